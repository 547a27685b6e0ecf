# cython: language_level=3
"""Which instruction sets this CPU and its operating system support."""

cdef extern from *:
    """
    #if defined(__x86_64__)
    #define has(feature) __builtin_cpu_supports(feature)
    static int csoftmax_x86_64_level(void) {
        __builtin_cpu_init();
        if (!(has("sse3") && has("ssse3") && has("sse4.1") && has("sse4.2")
              && has("popcnt"))) return 1;
        if (!(has("avx") && has("avx2") && has("bmi") && has("bmi2") && has("fma"))) return 2;
        if (!(has("avx512f") && has("avx512bw") && has("avx512cd") && has("avx512dq")
              && has("avx512vl"))) return 3;
        return 4;
    }
    #undef has
    #else
    static int csoftmax_x86_64_level(void) { return 0; }
    #endif
    """
    int csoftmax_x86_64_level()


def x86_64_level():
    """1 to 4, as in the names x86-64-v1 to x86-64-v4; 0 on another architecture."""
    return csoftmax_x86_64_level()
