# cython: language_level=3
"""From the sums of a tile's rows to what each function makes of them.

One loop over rows for each function: it has no branches and becomes vector code, whatever the
layout of the tile. A row whose maximum is not finite has no softmax: its results are NaN.
"""

from cython cimport floating
from libc.float cimport DBL_EPSILON
from libc.math cimport NAN, fabs

from csoftmax.kernels.arithmetic cimport (
    GENERAL, PLAIN, DoubleDouble, ExpParams, dd_add, dd_mul, dd_reciprocal, dd_sum, exp_dd,
    exp_params, exponential, from_double, log_1p, two_sum, value_or_zero,
)
from csoftmax.kernels.formulas cimport (
    DISTANCE_UNIT, Difference, WeightedSums, coefficient as class_coefficient, dd_scaled,
    excess_over_log, grad_of_class, half_difference, is_finite, log_of_sum, log_sum_from, quotient,
    sum_of_exponentials, times_weight, weighted_sum, with_class,
)
from csoftmax.kernels.lanes cimport START_OF_SUM
from csoftmax.kernels.passes cimport MAX_TERMS, Tile, in_type_of, params_of, set_other_params

cdef extern from * nogil:
    """
    #define LARGEST_SCALE 1e30    /* of a gradient in a float */
    #define UNKNOWN_SIGN 2.0
    """
    const double LARGEST_SCALE, UNKNOWN_SIGN


cdef inline DoubleDouble sum_of_row(const Tile *tile, Py_ssize_t r) noexcept nogil:
    """Of all exponentials but, where a logarithm is taken, the largest."""
    cdef DoubleDouble sum
    sum.hi = tile.sum_hi[r]
    sum.lo = tile.sum_lo[r]
    return sum


cdef inline WeightedSums weighted_sums_of_row(const Tile *tile, Py_ssize_t r) noexcept nogil:
    cdef WeightedSums sums
    sums.weights.hi = tile.weights_hi[r]
    sums.weights.lo = tile.weights_lo[r]
    sums.distances.hi = tile.distances_hi[r]
    sums.distances.lo = tile.distances_lo[r] if is_finite(tile.distances_hi[r]) else 0
    return sums


cdef inline double smallest_others(
    Py_ssize_t terms, Py_ssize_t terms_in_lane, floating type_tag
) noexcept nogil:
    """In units of the largest term: if the sum of the others is less, it is made anew without it.

    Sums of floats are in double: each addition of a lane loses up to 2^-53, and what is left shall
    be known to 2^-26 of itself. Those of doubles carry what additions lose, up to half an ULP of
    START_OF_SUM each; these errors are rounded when they are added up in turn, by as much for
    each of the terms. The bound is less than 1: where the largest term is there twice, that is
    the sum of the others.
    """
    if floating is float:
        return min(0.75, 2.0**-27 * terms_in_lane)
    return min(
        0.75, DBL_EPSILON / 2 * START_OF_SUM * min(terms_in_lane, <Py_ssize_t> MAX_TERMS) * terms
    )


cdef inline bint lacks_digits(
    const Tile *tile, Py_ssize_t r, double smallest, bint is_added_to_maximum
) noexcept nogil:
    """Of the sum of the others. None is missed where its logarithm is added to a maximum / T of at
    least 1, as in logsumexp."""
    return (tile.sum_hi[r] < smallest * tile.factor_hi[r]) & (
        (not is_added_to_maximum) | (fabs(tile.maximum[r]) < tile.temperature[r])
    )


cdef inline bint take_largest_out(
    Tile *tile, double smallest, bint is_added_to_maximum, floating type_tag
) noexcept nogil:
    """From the sums of all to those of the others, which is all that small losses consist of.

    Whether one lacks digits, and has to be made anew. The largest terms are left in the factors.
    """
    cdef bint is_any_lacking = False
    cdef ExpParams params
    cdef DoubleDouble others
    cdef Py_ssize_t r
    for r in range(tile.padded):
        params = params_of[floating](tile, r, GENERAL, 0)
        tile.factor_hi[r] = exponential(<floating> tile.maximum[r], &params, GENERAL)
        others = dd_sum[floating](tile.sum_hi[r], -tile.factor_hi[r], 0)
        tile.sum_hi[r] = others.hi
        tile.sum_lo[r] += others.lo
        is_any_lacking |= lacks_digits(tile, r, smallest, is_added_to_maximum)
    return is_any_lacking


cdef inline void use_sums_of_others(
    Tile *tile, double smallest, bint is_added_to_maximum
) noexcept nogil:
    """Those that were made anew, in the rows that need them."""
    cdef Py_ssize_t r
    for r in range(tile.padded):
        if lacks_digits(tile, r, smallest, is_added_to_maximum):
            tile.sum_hi[r] = tile.distances_hi[r]
            tile.sum_lo[r] = tile.distances_lo[r]


cdef inline void set_softmax(Tile *tile, bint is_largest_out, floating type_tag) noexcept nogil:
    cdef Py_ssize_t r
    cdef DoubleDouble sum, factor
    for r in range(tile.padded):
        sum = sum_of_row(tile, r)
        if is_largest_out:
            sum = sum_of_exponentials[floating](sum, tile.residue[r], 0)
        factor = dd_reciprocal[floating](sum, 0)
        tile.factor_hi[r] = factor.hi if is_finite(tile.maximum[r]) else NAN
        tile.factor_lo[r] = factor.lo


cdef inline void set_log_softmax(Tile *tile, floating type_tag) noexcept nogil:
    cdef Py_ssize_t r
    cdef DoubleDouble log_sum
    for r in range(tile.padded):
        log_sum = log_sum_from[floating](sum_of_row(tile, r), tile.residue[r], 0)
        tile.log_sum[r] = log_sum.hi + log_sum.lo if is_finite(tile.maximum[r]) else NAN


cdef inline void set_logsumexp(Tile *tile, bint is_tempered, floating type_tag) noexcept nogil:
    """Where the maximum over T is not finite, it is the result."""
    cdef Py_ssize_t r
    cdef DoubleDouble log_sum, largest
    for r in range(tile.padded):
        log_sum = log_sum_from[floating](sum_of_row(tile, r), tile.residue[r], 0)
        largest = from_double(tile.maximum[r])
        if is_tempered:
            largest = quotient[floating](tile.maximum[r], tile.temperature[r], 0)
        log_sum = dd_add[floating](largest, log_sum, 0)
        tile.row_result[r] = log_sum.hi + log_sum.lo
        if not is_finite(largest.hi):
            tile.row_result[r] = largest.hi


cdef inline bint set_weighted_logsumexp(
    Tile *tile, Py_ssize_t terms, floating type_tag
) noexcept nogil:
    """Whether there are rows whose sign is unknown: what is too small for the type beside the
    largest exponential may count in these, by a large weight, or something is not finite.

    An exponential under 2^-126 (double: 2^-1022) counts as 0, and shall not show; nor shall the
    digits that products under it lose.
    """
    cdef bint is_any_unknown = False, is_known
    cdef WeightedSums sums
    cdef DoubleDouble others, sum
    cdef double total, sign, smallest
    cdef Py_ssize_t r
    for r in range(tile.padded):
        sums = weighted_sums_of_row(tile, r)
        others = dd_mul[floating](sums.distances, exp_dd[floating](-tile.residue[r], 0), 0)
        total = sums.weights.hi + others.hi
        if floating is double:
            others.lo = others.lo if is_finite(others.hi) else 0
            sum = dd_add[double](sums.weights, others, 0)
            total = sum.hi + sum.lo
        sign = 1.0 if total > 0 else -1.0
        smallest = in_type_of[floating](tile.of.weighted_sum.largest_weight, 0)[r]
        if floating is float:
            smallest = terms * max(smallest * 2.0**-98, 2.0**-122)
        else:
            smallest = terms * max(smallest * 2.0**-965, 2.0**-1018)
        is_known = is_finite(tile.maximum[r]) & is_finite(total) & (fabs(total) > smallest)
        others = log_of_sum[floating](dd_scaled(sums.weights, sign), dd_scaled(others, sign), 0)
        others = dd_add[floating](from_double(tile.maximum[r]), others, 0)
        tile.row_result[r] = others.hi + others.lo
        tile.of.weighted_sum.row_sign[r] = sign if is_known else UNKNOWN_SIGN
        is_any_unknown |= (not is_known) & (r < tile.rows)
    return is_any_unknown


cdef inline void set_entropy(Tile *tile, floating type_tag) noexcept nogil:
    """The weights of -log p_j are the p_j themselves."""
    cdef Py_ssize_t r
    cdef WeightedSums sums
    cdef DoubleDouble others, inverse
    cdef double entropy
    for r in range(tile.padded):
        sums = weighted_sums_of_row(tile, r)
        others = sum_of_row(tile, r)
        inverse = dd_reciprocal[floating](
            sum_of_exponentials[floating](others, tile.residue[r], 0), 0
        )
        sums.distances = dd_mul[floating](sums.distances, inverse, 0)
        sums.weights = from_double(1)
        entropy = weighted_sum[floating](
            sums, log_sum_from[floating](others, tile.residue[r], 0), tile.temperature[r], 1, 0
        )
        tile.row_result[r] = entropy if is_finite(tile.maximum[r]) else NAN


# A scale that is beyond a float is multiplied by when all else is done.

cdef inline double scale_now(double scale) noexcept nogil:
    return 1.0 if fabs(scale) >= LARGEST_SCALE else scale


cdef inline double scale_later(double scale) noexcept nogil:
    return scale if fabs(scale) >= LARGEST_SCALE else 1.0


cdef inline void set_loss(
    Tile *tile, bint has_indices, bint has_grad, floating type_tag
) noexcept nogil:
    cdef Py_ssize_t r
    cdef WeightedSums sums
    cdef DoubleDouble others, inverse, factor, coefficient
    cdef ExpParams params
    cdef double loss, scale
    cdef bint has_one
    for r in range(tile.padded):
        sums = weighted_sums_of_row(tile, r)
        others = sum_of_row(tile, r)
        if has_indices:
            coefficient = dd_mul[floating](
                from_double(tile.share), from_double(tile.of.loss.class_weight[r]), 0
            )
            sums = with_class[floating](
                sums, coefficient,
                tile.maximum[r], tile.of.loss.target_logit[r], 0,
            )
        loss = weighted_sum[floating](
            times_weight[floating](sums, tile.of.loss.weight[r], 0),
            log_sum_from[floating](others, tile.residue[r], 0), tile.temperature[r],
            DISTANCE_UNIT, 0,
        )
        tile.row_result[r] = loss if is_finite(tile.maximum[r]) else NAN
        if has_grad:
            scale = tile.scale[r]
            tile.scale[r] = scale_now(scale)
            tile.scale_at_end[r] = scale_later(scale)
            inverse = dd_reciprocal[floating](
                sum_of_exponentials[floating](others, tile.residue[r], 0), 0
            )
            factor = dd_mul[floating](inverse, sums.weights, 0)
            factor = dd_mul[floating](factor, from_double(scale_now(scale)), 0)
            has_one = is_finite(tile.maximum[r]) & is_finite(sums.weights.hi)
            tile.factor_hi[r] = factor.hi if has_one else NAN
            tile.factor_lo[r] = factor.lo
        if has_grad and not has_indices:
            coefficient.hi = tile.of.loss.coefficient_hi[r]
            coefficient.lo = tile.of.loss.coefficient_lo[r]
            tile.of.loss.target_result[r] = grad_of_class[floating](
                others, inverse, 0, True, sums.weights, coefficient, scale, 0
            )
        elif has_grad:
            params = params_of[floating](tile, r, GENERAL, 0)
            tile.of.loss.target_result[r] = grad_of_class[floating](
                others, inverse,
                exponential(<floating> tile.of.loss.target_logit[r], &params, GENERAL),
                tile.of.loss.target_logit[r] == tile.maximum[r], sums.weights,
                class_coefficient[floating](
                    1, tile.of.loss.class_weight[r], tile.share, tile.offset, 0
                ), scale, 0
            )


cdef inline double curvature_of(
    const Tile *tile, Py_ssize_t r, double temperature, bint is_extreme, bint has_indices,
    floating type_tag
) noexcept nogil:
    """The sum of a loss's coefficients over T^2. At an extreme temperature it may be infinite."""
    cdef DoubleDouble weight, inverse
    weight.hi = tile.of.loss.class_weight[r] if has_indices else tile.weights_hi[r]
    weight.lo = 0 if has_indices else tile.weights_lo[r]
    weight = dd_mul[floating](weight, from_double(tile.of.loss.weight[r]), 0)
    if is_extreme:
        return value_or_zero(weight.hi / temperature / temperature, weight.hi != 0)
    inverse = dd_reciprocal[floating](from_double(temperature), 0)
    weight = dd_mul[floating](dd_mul[floating](weight, inverse, 0), inverse, 0)
    return weight.hi + weight.lo


cdef inline void set_hessian(
    Tile *tile, bint has_indices, bint has_extremes, floating type_tag
) noexcept nogil:
    """Its diagonal. Where there are extreme temperatures, the curvatures are there already."""
    cdef Py_ssize_t r
    cdef DoubleDouble others, inverse, share, of_largest
    cdef double curvature
    for r in range(tile.padded):
        others = sum_of_row(tile, r)
        inverse = dd_reciprocal[floating](
            sum_of_exponentials[floating](others, tile.residue[r], 0), 0
        )
        tile.of.loss.inverse_sum_hi[r] = inverse.hi if is_finite(tile.maximum[r]) else NAN
        tile.of.loss.inverse_sum_lo[r] = inverse.lo
        share = dd_mul[floating](others, inverse, 0)
        if has_extremes:
            curvature = tile.of.loss.curvature[r]
        else:
            curvature = curvature_of[floating](
                tile, r, tile.temperature[r], False, has_indices, 0
            )
        tile.of.loss.curvature[r] = scale_now(curvature)
        tile.of.loss.curvature_at_end[r] = scale_later(curvature)
        of_largest = dd_add[floating](from_double(1), dd_scaled(share, -1), 0)
        of_largest = dd_mul[floating](
            dd_mul[floating](of_largest, share, 0), from_double(tile.of.loss.curvature[r]), 0
        )
        tile.of.loss.of_largest[r] = of_largest.hi + of_largest.lo


cdef struct Divergence:
    double value
    double correction    # of log(S_z / S_t)
    bint lacks_digits    # where u^2 / 2 is nearly all of A


cdef inline Divergence divergence_of_row(const Tile *tile, Py_ssize_t r) noexcept nogil:
    """Where A is large, u is less exact than the lead."""
    cdef Divergence divergence
    cdef double a = tile.weights_hi[r], b = tile.distances_hi[r], u, excess
    a += tile.weights_lo[r] if is_finite(a) else 0
    b += tile.distances_lo[r] if is_finite(b) else 0
    a = a / tile.of_target.sum_hi[r]
    u = a + b / tile.of_target.sum_hi[r]
    u = u if (a < 0.25) & (fabs(u) <= 2.0**-10) else 0
    excess = excess_over_log(u)
    divergence.value = a - excess
    divergence.value = 0 if divergence.value < 0 else divergence.value
    divergence.correction = u - excess
    divergence.lacks_digits = divergence.value < a / 16
    return divergence


cdef inline void set_lead(Tile *tile, Py_ssize_t r, double lead, floating type_tag) noexcept nogil:
    """Taken off with the center, as three numbers of the type. Where the center is so much larger
    that the lead would lose digits, it stays by itself: then what it is taken off is exact."""
    cdef Difference center = half_difference(
        <floating> tile.maximum[r], <floating> tile.of_target.maximum[r]
    )
    cdef bint is_large = fabs(center.hi) >= 2.0**20 * fabs(lead)
    cdef DoubleDouble both = two_sum(center.hi, 0 if is_large else lead)
    cdef double hi = <floating> both.hi, rest = (both.hi - hi) + (both.lo + center.lo)
    cdef double lo = <floating> rest
    tile.of.divergence.lead[r] = lead
    in_type_of[floating](tile.of.divergence.center_hi, 0)[r] = <floating> hi
    in_type_of[floating](tile.of.divergence.center_lo, 0)[r] = <floating> lo
    in_type_of[floating](tile.of.divergence.last, 0)[r] = <floating> (
        lead if is_large else rest - lo
    )


cdef inline void correct_lead(
    Tile *tile, Py_ssize_t r, double correction, floating type_tag
) noexcept nogil:
    cdef double half = 0.5 * tile.temperature[r] * correction
    set_lead[floating](tile, r, tile.of.divergence.lead[r] + half, 0)


cdef inline void set_center(Tile *tile, floating type_tag) noexcept nogil:
    """And the lead: from the sums of both sides in units of their maxima's exponentials."""
    cdef const Tile *target = tile.of_target
    cdef DoubleDouble apart, log_sum
    cdef double smaller, difference
    cdef Py_ssize_t r
    for r in range(tile.padded):
        apart = dd_sum[floating](tile.sum_hi[r], -target.sum_hi[r], 0)
        difference = apart.hi + (apart.lo + (tile.sum_lo[r] - target.sum_lo[r]))
        smaller = min(tile.sum_hi[r], target.sum_hi[r])
        log_sum = log_1p(from_double(fabs(difference) / smaller))
        log_sum.hi = log_sum.hi if difference > 0 else -log_sum.hi
        log_sum.lo = log_sum.lo if difference > 0 else -log_sum.lo
        difference = log_sum.hi - (tile.residue[r] - target.residue[r]) + log_sum.lo
        set_lead[floating](tile, r, 0.5 * tile.temperature[r] * difference, 0)
        in_type_of[floating](tile.of.divergence.per_center, 0)[r] = <floating> (
            2 / tile.temperature[r]
        )
        in_type_of[floating](tile.of.divergence.ratio, 0)[r] = <floating> (
            target.sum_hi[r] / tile.sum_hi[r]
        )


cdef inline bint correct_leads(Tile *tile, floating type_tag) noexcept nogil:
    """Of rows that lack digits; whether there are any."""
    cdef bint is_any_lacking = False
    cdef Divergence divergence
    cdef Py_ssize_t r
    for r in range(tile.padded):
        divergence = divergence_of_row(tile, r)
        correct_lead[floating](
            tile, r, divergence.correction if divergence.lacks_digits else 0, 0
        )
        is_any_lacking |= divergence.lacks_digits
    return is_any_lacking


cdef inline void set_divergence(Tile *tile, bint has_grad, floating type_tag) noexcept nogil:
    cdef Tile *target = tile.of_target
    cdef Divergence divergence
    cdef DoubleDouble factor
    cdef double scale
    cdef bint is_one
    cdef Py_ssize_t r
    for r in range(tile.padded):
        divergence = divergence_of_row(tile, r)
        is_one = is_finite(tile.maximum[r]) & is_finite(target.maximum[r])
        is_one &= is_finite(tile.sum_hi[r]) & is_finite(target.sum_hi[r])    # NaN if a number is
        tile.row_result[r] = divergence.value if is_one else NAN
        if has_grad:
            correct_lead[floating](tile, r, divergence.correction, 0)
            scale = tile.scale[r]
            tile.scale[r] = scale_now(scale)
            tile.scale_at_end[r] = scale_later(scale)
            factor = dd_reciprocal[floating](sum_of_row(tile, r), 0)
            factor = dd_mul[floating](factor, from_double(scale_now(scale)), 0)
            tile.factor_hi[r] = factor.hi if is_one else NAN
            tile.factor_lo[r] = factor.lo
            factor = dd_reciprocal[floating](sum_of_row(target, r), 0)
            factor = dd_mul[floating](factor, from_double(scale_now(scale)), 0)
            target.factor_hi[r] = factor.hi if is_one else NAN
            target.factor_lo[r] = factor.lo


cdef inline void set_vjp(Tile *tile, floating type_tag) noexcept nogil:
    """The sums take the place of the factors."""
    cdef Py_ssize_t r
    cdef ExpParams params
    cdef floating *units = in_type_of[floating](tile.of.product.grad_unit, 0)
    tile.kind = PLAIN
    for r in range(tile.padded):
        if tile.temperature[r] != 1 or units[r] != 1:
            tile.kind = GENERAL
        tile.factor_hi[r] = tile.distances_hi[r]
        tile.factor_lo[r] = tile.distances_lo[r]
        tile.scale_at_end[r] = tile.scale[r] * units[r]    # which results are divided by
    if tile.kind == PLAIN:
        return
    for r in range(tile.padded):
        params = exp_params[floating](0, tile.temperature[r], True, 0)
        set_other_params[floating](tile, r, &params, 0)
