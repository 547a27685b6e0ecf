# cython: language_level=3
"""Vectors as arrays of lanes: how many there are, and how their maxima and sums come together.

The number of lanes and the order of every sum are the same for all instruction sets, so that those
with FMA give the same bits.
"""

from cython cimport floating

from csoftmax.kernels.arithmetic cimport Sum, exactly, two_sum


cdef extern from * nogil:
    """
    #include <stdint.h>
    #include <string.h>

    /* The maximum and the sum of 16 lanes of float. Written with vectors where there are any: GCC
       unrolls loops as short as these before it makes vectors, and leaves single numbers, which
       cost a row as much as 40 exponentials. */
    #if defined(__has_builtin)
    #if __has_builtin(__builtin_shufflevector) && __has_builtin(__builtin_convertvector)
    #define CSOFTMAX_VECTORS 1
    #endif
    #endif

    #ifdef CSOFTMAX_VECTORS
    typedef float csoftmax_float8 __attribute__((vector_size(32)));
    typedef float csoftmax_float4 __attribute__((vector_size(16)));
    typedef double csoftmax_double4 __attribute__((vector_size(32)));
    typedef int32_t csoftmax_int8 __attribute__((vector_size(32)));
    typedef int32_t csoftmax_int4 __attribute__((vector_size(16)));

    /* a, or b where that is larger */
    #define CSOFTMAX_LARGER(a, b, floats, integers) \
        (floats)(((integers)(b) & ((b) > (a))) | ((integers)(a) & ~((b) > (a))))
    #define CSOFTMAX_DOUBLES(v) __builtin_convertvector(v, csoftmax_double4)

    static inline float csoftmax_max_of_floats(const float *lanes)
    {
        /* One by one: an array of both would be copied by halves, and loads of whole ones wait
           until these are stored, a tenth of a row of 100. */
        csoftmax_float8 v, w;
        csoftmax_float4 low, high;
        float even, odd;
        memcpy(&v, lanes, sizeof(v));
        memcpy(&w, lanes + 8, sizeof(w));
        v = CSOFTMAX_LARGER(v, w, csoftmax_float8, csoftmax_int8);
        low = __builtin_shufflevector(v, v, 0, 1, 2, 3);
        high = __builtin_shufflevector(v, v, 4, 5, 6, 7);
        low = CSOFTMAX_LARGER(low, high, csoftmax_float4, csoftmax_int4);
        even = low[2] > low[0] ? low[2] : low[0];
        odd = low[3] > low[1] ? low[3] : low[1];
        return odd > even ? odd : even;
    }

    static inline double csoftmax_sum_of_floats(const float *total, const float *lost, int start)
    {
        csoftmax_float4 t[4], l[4];
        csoftmax_double4 sum;
        memcpy(t, total, sizeof(t));
        memcpy(l, lost, sizeof(l));
        sum = (CSOFTMAX_DOUBLES(t[0]) + CSOFTMAX_DOUBLES(t[2]))
            + (CSOFTMAX_DOUBLES(t[1]) + CSOFTMAX_DOUBLES(t[3]));
        sum = (sum - 4.0 * start) + CSOFTMAX_DOUBLES((l[0] + l[2]) + (l[1] + l[3]));
        return (sum[0] + sum[2]) + (sum[1] + sum[3]);
    }
    #else
    static float csoftmax_max_of_floats(const float *lanes)
    {
        float larger = lanes[0];
        int k;
        for (k = 1; k < 16; k++) {
            larger = lanes[k] > larger ? lanes[k] : larger;
        }
        return larger;
    }

    static double csoftmax_sum_of_floats(const float *t, const float *l, int start)
    {
        double sum[4];
        int k;
        for (k = 0; k < 4; k++) {
            sum[k] = ((double)t[k] + t[k + 8]) + ((double)t[k + 4] + t[k + 12]);
            sum[k] = (sum[k] - 4.0 * start) + ((l[k] + l[k + 8]) + (l[k + 4] + l[k + 12]));
        }
        return (sum[0] + sum[2]) + (sum[1] + sum[3]);
    }
    #endif
    """
    float csoftmax_max_of_floats(const float *)
    double csoftmax_sum_of_floats(const float *, const float *, int)


cdef enum:
    LANE_BYTES = 64
    FLOAT_LANES = 16      # LANE_BYTES of float; double has half as many
    START_OF_SUM = 128    # of a lane's exponentials, more than each of them: see add


cdef struct LaneSums:
    # Unevaluated sums, one per lane.
    double hi[FLOAT_LANES]
    double lo[FLOAT_LANES]


cdef inline floating larger(floating a, floating b) noexcept nogil:
    """As the vector instruction does it: b if either is NaN."""
    return a if a > b else b


cdef inline void halve_maxima(floating *lanes, Py_ssize_t half) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(half):
        lanes[k] = larger(lanes[k + half], lanes[k])


cdef inline floating max_of_lanes(floating *lanes) noexcept nogil:
    if floating is float:
        return csoftmax_max_of_floats(lanes)
    halve_maxima(lanes, 4)
    halve_maxima(lanes, 2)
    return larger(lanes[1], lanes[0])


cdef inline void add(floating *total, floating *lost, floating term) noexcept nogil:
    """To a lane's sum, which has its rounding errors beside it.

    Dekker's Fast2Sum: the error is exact where `term` is not larger than `total`. So totals begin
    with START_OF_SUM. Four operations, in the type of the terms: sums of floats in double would
    take as many, two of them conversions, for half as many lanes each.
    """
    cdef floating sum = total[0] + term
    lost[0] += term - (sum - total[0])
    total[0] = sum


cdef inline void halve_sums(LaneSums *sums, Py_ssize_t half, floating type_tag) noexcept nogil:
    cdef Py_ssize_t k
    cdef Sum sum
    for k in range(half):
        if floating is float:
            sums.hi[k] += sums.hi[k + half]
        else:
            sum = two_sum(sums.hi[k], sums.hi[k + half])
            sums.hi[k] = sum.hi
            sums.lo[k] += sums.lo[k + half] + sum.lo


cdef inline Sum sum_of_lanes(LaneSums *sums, floating type_tag) noexcept nogil:
    if floating is float:
        halve_sums(sums, 8, type_tag)
    halve_sums(sums, 4, type_tag)
    halve_sums(sums, 2, type_tag)
    halve_sums(sums, 1, type_tag)
    if floating is float:
        return exactly(sums.hi[0])
    return two_sum(sums.hi[0], sums.lo[0])    # so that hi alone is the rounded sum


cdef inline Sum total_sum(const floating *total, const floating *lost) noexcept nogil:
    """Of the lanes that `add` filled."""
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating), k
    cdef LaneSums sums
    if floating is float:
        return exactly(csoftmax_sum_of_floats(total, lost, START_OF_SUM))
    for k in range(LANES):
        sums.hi[k] = total[k] - START_OF_SUM
        sums.lo[k] = lost[k]
    return sum_of_lanes[floating](&sums, 0)
