"""The floating-point environment: rounding mode, flags, what is done with subnormals.

A host may have set any of it, with other libraries' help (one that is linked for unsafe, fast
arithmetic flushes subnormals, PyTorch can be told to). The kernels compute in the default one, each thread of
OpenMP too: what they rely on holds, and results don't depend on it. Afterwards the host's is back,
with the flags that it had. The kernels use the vector unit alone, not the x87.
"""

cdef extern from "<fenv.h>" nogil:
    int FE_ALL_EXCEPT
    int fetestexcept(int flags)
    int feclearexcept(int flags)

cdef extern from * nogil:
    """
    #if defined(__SSE2__) || defined(_M_X64)
    #include <xmmintrin.h>
    #define csoftmax_environment() ((uint64_t)_mm_getcsr())
    #define csoftmax_set_environment(saved) _mm_setcsr((unsigned int)(saved))
    #define csoftmax_set_default_environment() _mm_setcsr(0x1f80)
    #elif defined(__aarch64__) && defined(__GNUC__)
    static inline uint64_t csoftmax_environment(void)
    {
        uint64_t control, flags;
        __asm__ volatile("mrs %0, fpcr" : "=r"(control));
        __asm__ volatile("mrs %0, fpsr" : "=r"(flags));
        return control << 32 | (uint32_t)flags;
    }
    static inline void csoftmax_set_environment(uint64_t saved)
    {
        __asm__ volatile("msr fpcr, %0" : : "r"(saved >> 32) : "memory");
        __asm__ volatile("msr fpsr, %0" : : "r"(saved & 0xffffffff) : "memory");
    }
    #define csoftmax_set_default_environment() csoftmax_set_environment(0)
    #else
    #define csoftmax_environment() ((uint64_t)fetestexcept(FE_ALL_EXCEPT))
    #define csoftmax_set_environment(flags) \
        ((void)feclearexcept(FE_ALL_EXCEPT & ~(int)(flags)))
    #define csoftmax_set_default_environment() ((void)0)    /* unknown: the host's */
    #endif
    """
    uint64_t csoftmax_environment()
    void csoftmax_set_environment(uint64_t saved)
    void csoftmax_set_default_environment()


cdef inline uint64_t enter_environment() noexcept nogil:
    """The kernels' own. Returns the host's."""
    cdef uint64_t host = csoftmax_environment()
    csoftmax_set_default_environment()
    return host


def float_flags():
    """Of all units: NumPy raises those of float16 in the x87."""
    return fetestexcept(FE_ALL_EXCEPT)


def restore_float_flags(int flags):
    """Clear all others."""
    feclearexcept(FE_ALL_EXCEPT & ~flags)
