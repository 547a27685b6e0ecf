# cython: language_level=3
"""Formulas on the numbers of a row and on its sums. Nothing here stores, or knows how rows lie.

With S the sum of exp((x_j - maximum) / T),

    softmax: p_j = exp((x_j - maximum) / T) / S,    log p_j = (x_j - maximum) / T - log S

What weighs -log p_j, the coefficients c_j of a loss or the p_j of an entropy, is never negative,
nor is the distance of a logit from the maximum. So nothing cancels in

    sum_j c_j (-log p_j) = (sum_j c_j) log S + sum_j c_j (maximum - x_j) / T

Distances are kept in units of 2^64, so that they can be summed before they are divided by T,
however large logits are. Those of an entropy are not: times p they are never large, but may be as
small as p.
"""

from cython cimport floating
from libc.math cimport INFINITY, fabs

from csoftmax.kernels.arithmetic cimport (
    LN2, PLAIN, DoubleDouble, ExpParams, Kind, dd_add, dd_mul, dd_reciprocal, dd_sum, exact_fma,
    exp_dd, exp_or_less_one, exp_quotient, exponential, from_double, log_1p, log_1p_up_to_one,
    minus_log_1p, multiply_add, product_error, two_sum, value_or_zero,
)

cdef extern from * nogil:
    """
    #define DISTANCE_UNIT 0x1p64
    #define PER_DISTANCE_UNIT 0x1p-64
    """
    const double DISTANCE_UNIT, PER_DISTANCE_UNIT


cdef struct WeightedSums:
    DoubleDouble weights
    DoubleDouble distances    # each times its weight, in units


cdef inline bint is_finite(double x) noexcept nogil:
    return fabs(x) < INFINITY


# softmax and log_softmax

cdef inline DoubleDouble sum_of_exponentials(
    DoubleDouble others, double residue, floating type_tag
) noexcept nogil:
    """In units of 2^N: the maximum's own, and the others'."""
    return dd_add[floating](exp_dd[floating](residue, 0), others, 0)


cdef inline DoubleDouble log_sum_from(
    DoubleDouble others, double residue, floating type_tag
) noexcept nogil:
    """log S >= 0, where S = 1 + the others' part, in units of the maximum's exponential."""
    cdef DoubleDouble log_sum = log_1p(
        dd_mul[floating](others, exp_dd[floating](-residue, 0), 0)
    )
    return from_double(log_sum.hi + log_sum.lo) if floating is float else log_sum


cdef inline DoubleDouble dd_scaled(DoubleDouble x, double scale) noexcept nogil:
    """Times a power of two, or minus one."""
    x.hi *= scale
    x.lo *= scale
    return x


cdef inline DoubleDouble log_of_sum(
    DoubleDouble one, DoubleDouble other, floating type_tag
) noexcept nogil:
    """log(one + other), a sum above 0. What is close to 1 keeps the digits of its distance from 1:
    log(1 + d), or -log(1 - d / (1 + d)) of a negative d."""
    cdef DoubleDouble sum = dd_add[floating](one, other, 0)
    cdef DoubleDouble d = dd_add[floating](dd_add[floating](one, from_double(-1), 0), other, 0)
    cdef DoubleDouble quotient
    cdef bint is_below
    if floating is double:
        sum = two_sum(sum.hi, sum.lo)
        d = two_sum(d.hi, d.lo)
    is_below = d.hi < 0
    quotient = dd_mul[floating](d, dd_reciprocal[floating](sum, 0), 0)
    d.hi = -quotient.hi if is_below else d.hi
    d.lo = -quotient.lo if is_below else d.lo
    d = dd_scaled(log_1p(d), -1 if is_below else 1)
    return from_double(d.hi + d.lo) if floating is float else d


cdef inline floating scaled(floating e, floating hi, floating lo) noexcept nogil:
    """Rounded once (with FMA): a rounded factor would cost another half ULP."""
    return multiply_add(e, hi, e * lo)


cdef inline floating log_probability(
    floating x, floating maximum, floating log_sum, floating inverse_hi, floating inverse_lo,
    Kind kind
) noexcept nogil:
    """Two terms of one sign, so nothing cancels."""
    cdef floating half = 0.5, half_distance, low
    if kind == PLAIN:
        return (x - maximum) - log_sum
    # By halves: a difference beyond the type may come back into it when it is divided by T.
    half_distance = multiply_add(half, x, -half * maximum)
    low = multiply_add(half_distance, 2 * inverse_lo, -log_sum)
    if not fabs(low) < INFINITY:    # then so is the result, and infinities of two signs were NaN
        low = -log_sum
    return multiply_add(half_distance, 2 * inverse_hi, low)


# Weighted distances

cdef inline double distance(double maximum, double x) noexcept nogil:
    """In units. One rounding, as PER_DISTANCE_UNIT is a power of two."""
    return multiply_add(-PER_DISTANCE_UNIT, x, maximum * PER_DISTANCE_UNIT)


cdef inline DoubleDouble coefficient(
    double target, double class_weight, double share, double offset, floating type_tag
) noexcept nogil:
    """class_weight (share target + offset). In double with its rounding errors, which a loss of one
    class would show."""
    cdef DoubleDouble inner, product
    cdef double part
    if floating is float:
        return from_double(class_weight * multiply_add(share, target, offset))
    part = share * target
    inner = two_sum(part, offset)
    inner.lo += product_error(share, target, part)
    product.hi = class_weight * inner.hi
    product.lo = product_error(class_weight, inner.hi, product.hi) + class_weight * inner.lo
    return product


cdef inline DoubleDouble quotient(double a, double b, floating type_tag) noexcept nogil:
    """a / b, whose errors are left out where it is not finite."""
    cdef DoubleDouble q = from_double(a / b)
    if floating is double:
        q.lo = value_or_zero(exact_fma(-q.hi, b, a) / b, is_finite(q.hi))
    return q


cdef inline DoubleDouble over_temperature(
    DoubleDouble distances, double temperature, double unit, floating type_tag
) noexcept nogil:
    """No longer in units. What is infinite or NaN has no errors."""
    cdef DoubleDouble quotient = from_double(distances.hi / temperature)
    if floating is double:
        quotient.lo = exact_fma(-quotient.hi, temperature, distances.hi) + distances.lo
        quotient.lo = quotient.lo / temperature * unit
        quotient.lo = value_or_zero(quotient.lo, is_finite(quotient.hi))
    quotient.hi *= unit
    return quotient


cdef inline DoubleDouble from_higher(
    DoubleDouble distances, DoubleDouble weights, double up, double down, floating type_tag
) noexcept nogil:
    """Weighted distances from `up` that were taken from `down`."""
    if up == down:
        return distances
    cdef DoubleDouble apart = dd_sum[floating](
        up * PER_DISTANCE_UNIT, -down * PER_DISTANCE_UNIT, 0
    )
    return dd_add[floating](distances, dd_mul[floating](weights, apart, 0), 0)


# Losses: sum_j c_j (-log p_j), and its gradient (C p_j - c_j) / T, where C is the sum of c_j.

cdef inline WeightedSums with_class(
    WeightedSums sums, DoubleDouble weight, double maximum, double logit, floating type_tag
) noexcept nogil:
    """The class that an index names, beside the sums over all. Free of branches."""
    cdef DoubleDouble apart = dd_sum[floating](
        maximum * PER_DISTANCE_UNIT, -logit * PER_DISTANCE_UNIT, 0
    )
    cdef DoubleDouble product
    cdef bint counts = (weight.hi != 0) & (apart.hi != 0)
    if floating is float:
        product = from_double(value_or_zero(weight.hi * apart.hi, counts))
    else:
        product = dd_mul[floating](weight, apart, 0)
        product.lo = value_or_zero(product.lo, counts & is_finite(apart.hi))
        product.hi = value_or_zero(weight.hi * apart.hi, counts)
    sums.weights = dd_add[floating](sums.weights, weight, 0)
    sums.distances = dd_add[floating](sums.distances, product, 0)
    sums.distances.lo = value_or_zero(sums.distances.lo, is_finite(sums.distances.hi))
    return sums


cdef inline WeightedSums times_weight(
    WeightedSums sums, double weight, floating type_tag
) noexcept nogil:
    """Of a row: before the sum of both, as that may be too large without it."""
    cdef DoubleDouble distances = dd_mul[floating](sums.distances, from_double(weight), 0)
    sums.weights = dd_mul[floating](sums.weights, from_double(weight), 0)
    sums.distances.hi = value_or_zero(distances.hi, sums.distances.hi != 0)
    sums.distances.lo = value_or_zero(distances.lo, is_finite(distances.hi))
    return sums


cdef inline double weighted_sum(
    WeightedSums sums, DoubleDouble log_sum, double temperature, double unit, floating type_tag
) noexcept nogil:
    """Of all -log p_j. What is infinite has no errors to add."""
    cdef DoubleDouble total, distances = over_temperature[floating](
        sums.distances, temperature, unit, 0
    )
    cdef double plain = distances.hi + sums.weights.hi * (log_sum.hi + log_sum.lo)
    if floating is float:    # a double has digits to spare
        return plain
    total = dd_add[floating](distances, dd_mul[floating](sums.weights, log_sum, 0), 0)
    total.hi += total.lo
    return total.hi if is_finite(total.hi) else plain


cdef inline double grad_of_class(
    DoubleDouble others, DoubleDouble inverse, double exponential, bint is_maximum,
    DoubleDouble weights, DoubleDouble coefficient, double scale, floating type_tag
) noexcept nogil:
    """(C p - c) scale. Where the class has nearly all, p is 1 minus the share of the others."""
    cdef DoubleDouble part = others if is_maximum else from_double(exponential), difference
    part = dd_mul[floating](dd_mul[floating](inverse, part, 0), weights, 0)
    part.hi = -part.hi if is_maximum else part.hi
    part.lo = -part.lo if is_maximum else part.lo
    difference = dd_add[floating](
        dd_add[floating](
            weights if is_maximum else from_double(0), dd_scaled(coefficient, -1), 0
        ), part, 0,
    )
    difference.hi += difference.lo
    # Adding 0 makes one zero of -0. A mean over nothing has no gradient: its scale is NaN.
    return value_or_zero(
        difference.hi * scale + 0.0, (difference.hi != 0) | (scale != scale)
    )


cdef inline floating hessian_of_class(
    floating p, floating curvature, floating of_largest
) noexcept nogil:
    """p (1 - p) times the curvature. Only the largest probability is more than a half; its own is
    made of the share that it leaves to the others, which has more digits than 1 - p."""
    cdef floating one = 1
    return of_largest if p > 0.5 else p * (one - p) * curvature


# Divergences: KL(p || q) of p_j = exp(t_j / T) / S_t and q_j = exp(z_j / T) / S_z. With any numbers
# d_j = (z_j - t_j) / T - c, c near log(S_z / S_t),
#
#     A = sum_j p_j (exp(d_j) - 1 - d_j),    B = sum_j p_j d_j,    u = A + B,
#     sum_j p_j log(p_j / q_j) = A - (u - log(1 + u))
#
# u = sum_j p_j exp(d_j) - 1 is what c is wrong by. No term of A is negative, and where q is close
# to p, A is of the size of the result, and u^2 / 2 less. Exponentials that are off by an ULP are
# those of another p: the result is the divergence of that one, off by as little.
#
# c T is the difference of the maxima, the center, and a rest, the lead. Differences are sums of two
# numbers, without an error; halves, as they may be too large.

cdef struct Difference:
    double hi
    double lo


cdef inline Difference half_difference(floating z, floating t) noexcept nogil:
    """(z - t) / 2 in the type of both. Infinite ones have no errors."""
    cdef Difference difference
    cdef floating half = 0.5, a = half * z, b = half * t, s = a - b, part = a - s
    cdef floating error = (a - (s + part)) + (part - b)
    difference.hi = s
    difference.lo = value_or_zero(error, fabs(s) < INFINITY)
    return difference


cdef inline floating half_log_ratio(
    floating z, floating t, floating center_hi, floating center_lo, floating last
) noexcept nogil:
    """d_j T / 2; d_j is close to log(q_j / p_j)."""
    cdef Difference apart = half_difference(z, t)
    cdef floating hi = <floating> apart.hi - center_hi, lo = <floating> apart.lo - center_lo
    return (hi - last) + lo


cdef inline floating excess_of_exp(floating d) noexcept nogil:
    """exp(d) - 1 - d for a small d, see `is_small`."""
    return d * d * exp_quotient(d)


cdef inline double excess_over_log(double u) noexcept nogil:
    """u - log(1 + u) for |u| up to 2^-10."""
    cdef double series = multiply_add(u, 1.0 / 7, -1.0 / 6)
    series = multiply_add(multiply_add(multiply_add(series, -u, -0.2), u, 0.25), u, -1.0 / 3)
    return multiply_add(series, u, 0.5) * u * u


cdef inline bint is_small(floating d) noexcept nogil:
    """NaN is not, and the difference of two infinities is one."""
    cdef floating limit = LN2 / 2
    return fabs(d) <= limit


cdef inline floating divergence_term(
    floating p, floating q, floating d, floating p_times_d, floating ratio
) noexcept nogil:
    """p_j (exp(d_j) - 1 - d_j) in units of p; `ratio` is that of q's unit to it."""
    cdef floating small = p * excess_of_exp(d)
    cdef floating large = multiply_add(q, ratio, -p) - p_times_d
    return small if is_small(d) else large


cdef inline floating divergence_grad(floating p, floating q, floating d) noexcept nogil:
    """q_j - p_j."""
    cdef floating small = p * (d + excess_of_exp(d)), large = q - p
    return small if is_small(d) else large


# Vector-Jacobian products: of softmax y (g - sum g y) / T, of log_softmax
# (g - exp(log y) sum g) / T. What has no probability is masked: its g counts nowhere.

cdef inline floating product_difference(
    floating x, floating g, floating sum_hi, floating sum_lo, const ExpParams *of_zero,
    bint are_logarithms
) noexcept nogil:
    """y (g - sum) or g - y sum; 0 where y is 0.

    Where y is close to 1, the latter is (g - sum) - (y - 1) sum: the digits of log y and of what g
    leaves to the others are in it. What is no logarithm of a probability may be so large that its
    exponential would wrap around.
    """
    cdef floating y, largest = 88 if floating is float else 709
    cdef bint is_less_one
    if not are_logarithms:
        return value_or_zero(x * ((g - sum_hi) - sum_lo), x != 0)
    y = exp_or_less_one(x, of_zero, PLAIN, True, &is_less_one)
    y = INFINITY if x > largest else y
    g = (g - value_or_zero(sum_hi, is_less_one)) - value_or_zero(sum_lo, is_less_one)
    return value_or_zero(multiply_add(-y, sum_hi, multiply_add(-y, sum_lo, g)), x != -INFINITY)


cdef inline floating times_inverse(
    floating difference, floating inverse_hi, floating inverse_lo
) noexcept nogil:
    """Times 1 / T, or another factor, in two parts: where g and y sum add up, each rounding is
    twice as large beside them, and with another one 4 ULP of the larger would not hold."""
    cdef floating low = difference * inverse_lo
    return multiply_add(difference, inverse_hi, value_or_zero(low, fabs(low) < INFINITY))


# Single numbers

cdef inline floating sigmoid_of(floating x, const ExpParams *of_zero) noexcept nogil:
    """1 / (1 + exp(-x)), from the exponential that is at most 1."""
    cdef floating e = exponential(-x if x > 0 else x, of_zero, PLAIN), one = 1
    return (e if x < 0 else one) / (one + e)


cdef inline floating log_sigmoid_of(floating x, const ExpParams *of_zero) noexcept nogil:
    """min(x, 0) - log(1 + exp(-|x|)): two terms of one sign, so nothing cancels."""
    cdef floating e = exponential(-x if x > 0 else x, of_zero, PLAIN)
    return minus_log_1p(value_or_zero(x, x < 0), e)


# Of a label that is right with the chance t: a softplus(-x) + b softplus(x) is the loss, where
# a = weight pos_weight t and b = weight (1 - t), and b sigmoid(x) - a sigmoid(-x) its gradient.
# Both are made of e = exp(-|x|).
#
# What has the target, share or weight 0 doesn't count, even if all else is infinite. Products of
# weights come first: one with a large logit may be too large without the other.

cdef inline floating coefficient_of_right(
    floating target, floating weight, floating pos_weight
) noexcept nogil:
    return value_or_zero(
        weight * (pos_weight * target), (target != 0) & (weight != 0) & (pos_weight != 0)
    )


cdef inline floating coefficient_of_wrong(floating target, floating weight) noexcept nogil:
    cdef floating one = 1
    return value_or_zero(weight * (one - target), (target != 1) & (weight != 0))


cdef inline floating binary_cross_entropy_of(
    floating x, floating e, floating right, floating wrong
) noexcept nogil:
    """far |x| + (near + far) log(1 + e), where `far` is the coefficient of what x speaks against.

    The product with |x| comes in last, and what its rounding lost before it: with each term of
    both softplus rounded, the loss was off by up to 3.1 ULP. With weights it is by up to 4.8, as
    their products are rounded: to take that back, too, costs a fifth to two fifths of the time.
    Choices by the sign of x come first: with a product_error between them, GCC goes two ways,
    with calls in both, and makes no vectors."""
    cdef floating rest = log_1p_up_to_one(e), size = x if x > 0 else -x, smallest = 1e-30
    cdef floating far = wrong if x > 0 else right, near = right if x > 0 else wrong
    cdef floating product, others
    size += smallest    # which changes no result; an infinite weight times 0 would be NaN
    product = value_or_zero(far * size, far != 0)
    others = multiply_add(far, rest, product_error(far, size, product))
    others = value_or_zero(others, (far != 0) & (fabs(product) < INFINITY))    # finite, has errors
    return product + multiply_add(near, value_or_zero(rest, near != 0), others)


cdef inline floating binary_cross_entropy_grad_of(
    floating x, floating e, floating right, floating wrong, floating scale, floating scale_error
) noexcept nogil:
    """Of both sigmoids one is 1 / (1 + e) and the other e times that. So the terms are brought
    together before they are rounded, and both keep their digits however far out x is.

    With weights and a mean there are eight roundings, 4.4 ULP at worst in float. Some are taken
    back: what `scale` lacks, in units of it, and in float what 1 + e loses, over 1 + e, for which
    1 - e / 2 is good enough."""
    cdef floating one = 1, half = 0.5
    cdef floating far = -right if x > 0 else wrong    # from what x says
    cdef floating near = wrong if x > 0 else -right
    cdef floating sum = one + e, lost = e - (sum - one)
    cdef floating factor = scale / sum
    if floating is float:
        scale_error = multiply_add(lost, multiply_add(half, e, -one), scale_error)
    return times_inverse(multiply_add(far, e, near), factor, factor * scale_error)
