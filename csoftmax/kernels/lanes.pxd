# cython: language_level=3
"""Vectors as arrays of lanes: how many there are, and how their maxima and sums come together.

The number of lanes and the order of every sum are the same for all instruction sets, so that those
with FMA give the same bits.
"""

from cython cimport floating
from libc.math cimport INFINITY, fabs

from csoftmax.kernels.arithmetic cimport (
    DoubleDouble, from_double, multiply_add, product_error, two_sum,
)


cdef enum:
    LANE_BYTES = 64
    FLOAT_LANES = 16      # LANE_BYTES of float; double has half as many
    START_OF_SUM = 2      # of a lane's exponentials, more than each of them: see add


cdef struct LaneSums:
    # Unevaluated sums, one per lane.
    double hi[FLOAT_LANES]
    double lo[FLOAT_LANES]


cdef inline Py_ssize_t whole_lanes(Py_ssize_t numbers, floating type_tag) noexcept nogil:
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    return (numbers + LANES - 1) // LANES * LANES


cdef inline floating larger(floating a, floating b) noexcept nogil:
    """As the vector instruction does it: b if either is NaN."""
    return a if a > b else b


cdef inline void halve_maxima(floating *lanes, Py_ssize_t half) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(half):
        lanes[k] = larger(lanes[k + half], lanes[k])


cdef inline floating max_of_lanes(floating *lanes) noexcept nogil:
    if floating is float:
        halve_maxima(lanes, 8)
    halve_maxima(lanes, 4)
    halve_maxima(lanes, 2)
    return larger(lanes[1], lanes[0])


cdef inline void add(floating *total, floating *compensation, floating term) noexcept nogil:
    """To a lane's sum, which has its rounding errors beside it.

    Dekker's Fast2Sum: the error is exact where `term` is not larger than `total`. So totals begin
    with START_OF_SUM. Four operations, in the type of the terms: sums of floats in double would
    take as many, two of them conversions, for half as many lanes each.
    """
    cdef floating sum = total[0] + term
    compensation[0] += term - (sum - total[0])
    total[0] = sum


cdef inline void add_term(
    double *hi, double *lo, double term, floating type_tag
) noexcept nogil:
    """For float the digits of a double are enough, and exact products fit into one."""
    cdef DoubleDouble sum
    if floating is float:
        hi[0] += term
    else:
        sum = two_sum(hi[0], term)
        hi[0] = sum.hi
        lo[0] += sum.lo


cdef inline void halve_sums(LaneSums *sums, Py_ssize_t half, floating type_tag) noexcept nogil:
    cdef Py_ssize_t k
    cdef DoubleDouble sum
    for k in range(half):
        if floating is float:
            sums.hi[k] += sums.hi[k + half]
        else:
            sum = two_sum(sums.hi[k], sums.hi[k + half])
            sums.hi[k] = sum.hi
            sums.lo[k] += sums.lo[k + half] + sum.lo


cdef inline DoubleDouble sum_of_lanes(
    LaneSums *sums, Py_ssize_t lanes, floating type_tag
) noexcept nogil:
    """Of 16 lanes, or 8."""
    if lanes > 8:
        halve_sums(sums, 8, type_tag)
    halve_sums(sums, 4, type_tag)
    halve_sums(sums, 2, type_tag)
    halve_sums(sums, 1, type_tag)
    if floating is float:
        return from_double(sums.hi[0])
    return two_sum(sums.hi[0], sums.lo[0])    # so that hi alone is the rounded sum


cdef inline void move_sums(
    const floating *total, const floating *compensation, double *hi, double *lo
) noexcept nogil:
    """From the lanes that `add` filled to sums that many terms don't make inexact."""
    cdef Py_ssize_t k
    for k in range(LANE_BYTES // <Py_ssize_t> sizeof(floating)):
        add_term[floating](hi + k, lo + k, total[k] - START_OF_SUM, 0)
        if floating is float:
            hi[k] += compensation[k]
        else:
            lo[k] += compensation[k]


cdef inline void clear(LaneSums *sums) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(FLOAT_LANES):
        sums.hi[k] = 0
        sums.lo[k] = 0


cdef inline void add_product(
    double *hi, double *lo, double a, double b, floating type_tag
) noexcept nogil:
    cdef double product
    if floating is float:
        hi[0] = multiply_add(a, b, hi[0])
    else:
        product = a * b
        add_term[floating](hi, lo, product, 0)
        lo[0] += product_error(a, b, product)


cdef inline DoubleDouble finished(LaneSums *sums, floating type_tag) noexcept nogil:
    """What is infinite or NaN has no errors to add."""
    cdef double plain = 0
    cdef Py_ssize_t k
    for k in range(LANE_BYTES // <Py_ssize_t> sizeof(floating)):
        plain += sums.hi[k]
    if not fabs(plain) < INFINITY:
        return from_double(plain)
    return sum_of_lanes[floating](sums, LANE_BYTES // <Py_ssize_t> sizeof(floating), 0)
