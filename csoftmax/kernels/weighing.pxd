# cython: language_level=3
"""Sums over a row of two arrays, in twice the digits of the results.

What weighs the distances of the logits from their maximum: the coefficients of a loss, or the
exponentials for an entropy. As no distance is negative, nothing cancels in

    sum_j c_j (-log p_j) = (sum_j c_j) log_sum + sum_j c_j (maximum - x_j) / T

where log_sum is the logarithm of the sum of exp((x_j - maximum) / T). Distances are kept in units
of 2^64, so that they can be summed before they are divided by T, however large logits are.
"""

from cython cimport floating
from libc.math cimport INFINITY, fabs

from csoftmax.kernels.arithmetic cimport (
    Sum, exact_fma, exactly, multiply_add, plus, times, two_sum, value_or_zero,
)
from csoftmax.kernels.lanes cimport FLOAT_LANES, LANE_BYTES, LaneSums, sum_of_lanes

cdef extern from * nogil:
    """
    #define DISTANCE_UNIT 0x1p64
    #define PER_DISTANCE_UNIT 0x1p-64
    """
    const double DISTANCE_UNIT, PER_DISTANCE_UNIT


cdef struct Coefficients:
    # Of -log p_j in a loss: class_weight_j (share target_j + offset).
    const char *targets
    const char *class_weights
    double share
    double offset


cdef struct Distances:
    Sum weights      # their sum
    Sum weighted     # the sum of weight times (maximum - x), in units


cdef inline Sum coefficient(
    double target, double class_weight, double share, double offset, floating type_tag
) noexcept nogil:
    """class_weight (share target + offset). In double with its rounding errors, which a loss of one
    class would show."""
    cdef Sum inner, product
    cdef double part
    if floating is float:
        return exactly(class_weight * multiply_add(share, target, offset))
    part = share * target
    inner = two_sum(part, offset)
    inner.lo += multiply_add(share, target, -part)
    product.hi = class_weight * inner.hi
    product.lo = multiply_add(class_weight, inner.hi, -product.hi) + class_weight * inner.lo
    return product


cdef inline double distance(double maximum_in_units, double x) noexcept nogil:
    """One rounding, as PER_DISTANCE_UNIT is a power of two."""
    return multiply_add(-PER_DISTANCE_UNIT, x, maximum_in_units)


cdef inline void add_term(
    double *hi, double *lo, double term, floating type_tag
) noexcept nogil:
    """For float the digits of a double are enough, and exact products fit into one."""
    cdef Sum sum
    if floating is float:
        hi[0] += term
    else:
        sum = two_sum(hi[0], term)
        hi[0] = sum.hi
        lo[0] += sum.lo


cdef inline void add_product(
    double *hi, double *lo, double a, double b, floating type_tag
) noexcept nogil:
    """a b, or nothing where a is 0, even if b is infinite or NaN."""
    cdef double product
    if floating is float:
        hi[0] = multiply_add(a, value_or_zero(b, a != 0), hi[0])
    else:
        product = value_or_zero(a * b, a != 0)
        add_term[floating](hi, lo, product, 0)
        lo[0] += value_or_zero(multiply_add(a, b, -product), a != 0)


cdef inline void add_distance(
    double *hi, double *lo, Sum weight, double distance, floating type_tag
) noexcept nogil:
    add_product[floating](hi, lo, weight.hi, distance, 0)
    if floating is double:
        lo[0] += value_or_zero(weight.lo * distance, weight.hi != 0)


cdef inline Sum finished(LaneSums *sums, floating type_tag) noexcept nogil:
    cdef double plain = 0
    cdef Py_ssize_t k
    for k in range(LANE_BYTES // <Py_ssize_t> sizeof(floating)):
        plain += sums.hi[k]
    if not fabs(plain) < INFINITY:    # then errors are NaN
        return exactly(plain)
    return sum_of_lanes[floating](sums, 0)


cdef inline void start_sums(LaneSums *sums) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(FLOAT_LANES):
        sums.hi[k] = 0
        sums.lo[k] = 0


cdef inline void add_weighted(
    double *weights_hi, double *weights_lo, double *weighted_hi, double *weighted_lo, Sum weight,
    double distance, floating type_tag
) noexcept nogil:
    add_term[floating](weights_hi, weights_lo, weight.hi, 0)
    if floating is double:
        weights_lo[0] += weight.lo
    add_distance[floating](weighted_hi, weighted_lo, weight, distance, 0)


cdef inline void weigh_by_coefficients(
    const floating *x, Py_ssize_t n, floating maximum, const Coefficients *coefficients,
    Distances *distances
) noexcept nogil:
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef const floating *targets = <const floating *> coefficients.targets
    cdef const floating *class_weights = <const floating *> coefficients.class_weights
    cdef double share = coefficients.share, offset = coefficients.offset
    cdef double top = maximum * PER_DISTANCE_UNIT
    cdef LaneSums weights, weighted
    cdef Sum weight
    cdef Py_ssize_t i = 0, k
    start_sums(&weights)
    start_sums(&weighted)
    while i + LANES <= n:
        for k in range(LANES):
            weight = coefficient[floating](targets[i + k], class_weights[i + k], share, offset, 0)
            add_weighted[floating](
                weights.hi + k, weights.lo + k, weighted.hi + k, weighted.lo + k, weight,
                distance(top, x[i + k]), 0,
            )
        i += LANES
    for k in range(n - i):
        weight = coefficient[floating](targets[i + k], class_weights[i + k], share, offset, 0)
        add_weighted[floating](
            weights.hi + k, weights.lo + k, weighted.hi + k, weighted.lo + k, weight,
            distance(top, x[i + k]), 0,
        )
    distances.weights = finished[floating](&weights, 0)
    distances.weighted = finished[floating](&weighted, 0)


cdef inline void weigh_by_exponentials(
    const floating *x, const floating *e, Py_ssize_t n, floating maximum, Distances *distances
) noexcept nogil:
    """Without the sum of the weights, which is known."""
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef double top = maximum * PER_DISTANCE_UNIT
    cdef LaneSums weighted
    cdef Py_ssize_t i = 0, k
    start_sums(&weighted)
    while i + LANES <= n:
        for k in range(LANES):
            add_product[floating](
                weighted.hi + k, weighted.lo + k, e[i + k], distance(top, x[i + k]), 0
            )
        i += LANES
    for k in range(n - i):
        add_product[floating](
            weighted.hi + k, weighted.lo + k, e[i + k], distance(top, x[i + k]), 0
        )
    distances.weights = exactly(0)
    distances.weighted = finished[floating](&weighted, 0)


cdef inline Sum from_higher(Sum weighted, Sum weights, double up, double down) noexcept nogil:
    """Weighted distances from `up` that were taken from `down`."""
    if up == down:
        return weighted
    return plus(
        weighted, times(weights, two_sum(up * PER_DISTANCE_UNIT, -down * PER_DISTANCE_UNIT))
    )


cdef inline Sum quotient(Sum a, double b) noexcept nogil:
    """A sum that is infinite or NaN has no errors."""
    cdef Sum q = exactly(a.hi / b)
    if fabs(q.hi) < INFINITY:
        q.lo = (exact_fma(-q.hi, b, a.hi) + a.lo) / b
    return q


cdef inline Sum over_temperature(Sum weighted, double temperature) noexcept nogil:
    """Weighted distances / T, no longer in units."""
    cdef Sum result = quotient(weighted, temperature)
    result.hi *= DISTANCE_UNIT
    result.lo *= DISTANCE_UNIT
    return result


# Vector-Jacobian products: of softmax y (g - sum g y) / T, of log_softmax
# (g - exp(log y) sum g) / T. What has no probability is masked: its g counts nowhere.

cdef inline void add_gradient(
    double *hi, double *lo, floating x, floating g, bint is_logarithm
) noexcept nogil:
    """g y of a probability x = y, g of a logarithm x = log y."""
    if is_logarithm:
        add_term[floating](hi, lo, value_or_zero(g, x != -INFINITY), 0)
    else:
        add_product[floating](hi, lo, x, g, 0)


cdef inline Sum sum_of_gradients(
    const floating *x, const floating *g, Py_ssize_t n, bint are_logarithms
) noexcept nogil:
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef LaneSums sums
    cdef Py_ssize_t i = 0, k
    start_sums(&sums)
    while i + LANES <= n:
        for k in range(LANES):
            add_gradient(sums.hi + k, sums.lo + k, x[i + k], g[i + k], are_logarithms)
        i += LANES
    for k in range(n - i):
        add_gradient(sums.hi + k, sums.lo + k, x[i + k], g[i + k], are_logarithms)
    return finished[floating](&sums, 0)
