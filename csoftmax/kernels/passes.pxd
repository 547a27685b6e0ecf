# cython: language_level=3
"""Passes over a tile: some rows, as they lie in memory.

A tile consists of blocks of LANES lanes. Where its rows are contiguous (ROWS), a block is one row,
whose lanes are added up at the end. Where they stand side by side (COLUMNS), a block is LANES rows,
each in a lane of its own. Either way a pass takes vector after vector of a block, so each pass
stands here once; `layout` is a constant that says which constants a lane reads, and what becomes of
its sum. Rows go through the same operations in the same order whatever stands beside them, but for
`kind`, and a row without temperature and shift has the same bits in either.

How plain loops become vector code: inner loops run over a constant number of lanes, what belongs to
a lane stays in that lane, and results go to local arrays, of which the compiler knows that they
overlap nothing. The last vector of a row that is no multiple of LANES overlaps the one before. It
is read and computed first, as a pass may write where it reads.
"""

from cython cimport floating
from libc.math cimport INFINITY, fabs
from libc.stdint cimport int32_t, int64_t

from csoftmax.kernels.arithmetic cimport (
    GENERAL, PLAIN, DoubleDouble, ExpParams, Kind, exp_params, exponential, multiply_add, two_sum,
    value_or_zero,
)
from csoftmax.kernels.copies cimport kept_or_minus_infinity
from csoftmax.kernels.formulas cimport (
    DISTANCE_UNIT, coefficient, distance, divergence_grad, divergence_term, half_log_ratio,
    hessian_of_class, is_finite, log_probability, product_difference, scaled, times_inverse,
)
from csoftmax.kernels.lanes cimport (
    FLOAT_LANES, LANE_BYTES, START_OF_SUM, LaneSums, add, add_product, add_term, clear, finished,
    larger, max_of_lanes, move_sums, sum_of_lanes,
)
from csoftmax.kernels.stops cimport must_stop


cdef extern from * nogil:
    """
    #if defined(__GNUC__)
    #define csoftmax_prefetch(place) __builtin_prefetch(place, 0, 2)
    #else
    #define csoftmax_prefetch(place) ((void)0)
    #endif
    """
    void prefetch "csoftmax_prefetch"(const void *place)


cdef enum:
    MAX_ROWS = 128     # of a tile
    ROW_SLOTS = 136    # in arrays, so that they don't all begin at the same places of a cache
    MAX_TERMS = 256    # that are added up in a lane before its sum is moved
    MANY_CLASSES = 65536    # after which signals are looked for: whole spans of columns


cdef enum Layout:
    ROWS
    COLUMNS


cdef enum Weighing:
    # What a pass adds up beside the exponentials.
    NOTHING_WEIGHED
    BY_TARGETS                # distances, each times its coefficient in a loss
    BY_OFFSETS                # the same without targets: the coefficients of label smoothing
    BY_EXPONENTIALS           # distances, each times its exponential
    DIVERGENCES               # of probabilities from those of the target, to the weights
    PROBABILITY_GRADS         # of a vector-Jacobian product: probabilities times gradients
    LOG_PROBABILITY_GRADS     # or, of log-probabilities, the gradients
    OTHERS                    # the exponentials but for the largest
    OTHERS_KEPT               # the same from where they are kept
    WEIGHTED_EXPONENTIALS     # exponentials, each times a weight; of the largest the weights alone


cdef enum Values:
    # What a function makes of each number of a row.
    NO_VALUES
    PROBABILITIES
    LOG_PROBABILITIES
    GRADS                 # scaled exponentials less the coefficients of the loss
    GRADS_OF_OFFSETS      # the same without targets
    HESSIANS
    DIVERGENCE_GRADS
    SOFTMAX_VJPS
    LOG_SOFTMAX_VJPS


cdef struct View:
    # Where an operand's numbers are; steps are in elements.
    void *data
    Py_ssize_t row_step
    Py_ssize_t class_step


cdef struct LossFields:
    double weight[ROW_SLOTS]
    double class_weight[ROW_SLOTS]    # of the target
    double target_logit[ROW_SLOTS]
    # The gradient of one class, if it is computed by itself: the target's, or of targets that are
    # probabilities, that of the class which has more than all others.
    double target_result[ROW_SLOTS]
    double coefficient_hi[ROW_SLOTS]  # of this class
    double coefficient_lo[ROW_SLOTS]
    int64_t target[ROW_SLOTS]         # which it is; n of none, -1 where the row doesn't count
    # Of a Hessian's diagonal.
    double inverse_sum_hi[ROW_SLOTS]
    double inverse_sum_lo[ROW_SLOTS]
    double curvature[ROW_SLOTS]           # by which p (1 - p) is multiplied
    double of_largest[ROW_SLOTS]          # what that is where p is the largest
    double curvature_at_end[ROW_SLOTS]    # the same where it is beyond a float; else 1


cdef struct DivergenceFields:
    # See formulas.pxd; all but the lead are in the type of the numbers.
    double lead[ROW_SLOTS]
    double center_hi[ROW_SLOTS]
    double center_lo[ROW_SLOTS]
    double last[ROW_SLOTS]
    double per_center[ROW_SLOTS]
    double ratio[ROW_SLOTS]           # of an exponential's share of its row to one of the target's


cdef struct WeightedSumFields:
    double row_sign[ROW_SLOTS]
    double largest_weight[ROW_SLOTS]  # in the type of the numbers


cdef struct ProductFields:
    double grad_unit[ROW_SLOTS]       # by which gradients are multiplied; in their type


cdef struct ExtremeFields:
    double given_maximum[ROW_SLOTS]   # of logits that an extreme temperature has changed


cdef union FieldsOf:
    # A tile is on the stack, of which threads may have 128 KiB.
    LossFields loss
    DivergenceFields divergence
    WeightedSumFields weighted_sum
    ProductFields product
    ExtremeFields extreme


cdef struct Tile:
    Py_ssize_t rows
    Py_ssize_t padded         # rows up to whole vectors of doubles, or up to whole lanes
    Py_ssize_t classes
    Py_ssize_t ahead          # from the logits to those of the next tile, in elements
    Kind kind
    bint has_gaps             # among the largest logits: some have the weight 0, or are NaN
    Py_ssize_t span           # of columns, so many classes of all blocks go together
    View logits
    View companion            # targets, gradients or weights
    View result               # meanwhile the exponentials, where they are kept
    View hessian              # its diagonal
    View kept                 # the exponentials, where results don't take their place
    Tile *of_target           # of a divergence: the target's logits as a tile of their own
    const void *class_weights
    double share              # of the targets in a loss: 1 - label_smoothing
    double offset             # of every class: label_smoothing / C
    # Of each row.
    double temperature[ROW_SLOTS]
    double maximum[ROW_SLOTS]
    double residue[ROW_SLOTS]        # ExpParams
    double power[ROW_SLOTS]
    # In the type of the numbers, see `in_type_of`: the others of ExpParams.
    double magic[ROW_SLOTS]
    double lowest[ROW_SLOTS]
    double shift[ROW_SLOTS]
    double log2_e[ROW_SLOTS]
    double inverse_hi[ROW_SLOTS]
    double inverse_lo[ROW_SLOTS]
    double sum_hi[ROW_SLOTS]          # of exponentials, for logarithms without the largest
    double sum_lo[ROW_SLOTS]
    double weights_hi[ROW_SLOTS]      # WeightedSums
    double weights_lo[ROW_SLOTS]
    double distances_hi[ROW_SLOTS]
    double distances_lo[ROW_SLOTS]
    double factor_hi[ROW_SLOTS]       # of the exponentials
    double factor_lo[ROW_SLOTS]
    double log_sum[ROW_SLOTS]
    double scale[ROW_SLOTS]           # of the gradient
    double scale_at_end[ROW_SLOTS]    # the same where it is beyond a float; else 1
    double row_result[ROW_SLOTS]
    FieldsOf of                       # the function that is computed


cdef inline Py_ssize_t lanes_of(floating type_tag) noexcept nogil:
    return LANE_BYTES // <Py_ssize_t> sizeof(floating)


cdef inline Py_ssize_t blocks_of(const Tile *tile, Layout layout, floating type_tag) noexcept nogil:
    return tile.rows if layout == ROWS else tile.padded // lanes_of[floating](0)


cdef inline Py_ssize_t vectors_of(
    const Tile *tile, Layout layout, floating type_tag
) noexcept nogil:
    """Rows have at least one."""
    return tile.classes // lanes_of[floating](0) if layout == ROWS else tile.classes


cdef inline Py_ssize_t tail_of(const Tile *tile, Layout layout, floating type_tag) noexcept nogil:
    """How many numbers of a row whole vectors leave."""
    return tile.classes % lanes_of[floating](0) if layout == ROWS else 0


cdef inline Py_ssize_t step_of(const View *view, Layout layout, floating type_tag) noexcept nogil:
    """From vector to vector."""
    return lanes_of[floating](0) if layout == ROWS else view.class_step


cdef inline bint is_given_up(Layout layout, Py_ssize_t first) noexcept nogil:
    """Whether columns are so long that signals are handled meanwhile, and one stops the call."""
    return layout == COLUMNS and first > 0 and first % MANY_CLASSES == 0 and must_stop()


cdef inline floating *vector_at(
    const View *view, Py_ssize_t block, Py_ssize_t v, Layout layout, floating type_tag
) noexcept nogil:
    cdef Py_ssize_t block_step = view.row_step if layout == ROWS else lanes_of[floating](0)
    return <floating *> view.data + block * block_step + v * step_of[floating](view, layout, 0)


cdef inline Py_ssize_t row_of_lane(
    Py_ssize_t block, Py_ssize_t k, Layout layout, floating type_tag
) noexcept nogil:
    return block if layout == ROWS else block * lanes_of[floating](0) + k


cdef inline void copy_lanes(const floating *x, floating *y) noexcept nogil:
    """A loop: memcpy stores halves of vectors, and a load of a whole one waits for both."""
    cdef Py_ssize_t k
    for k in range(lanes_of[floating](0)):
        y[k] = x[k]


# The maximum

cdef inline floating counted(
    const floating *x, const floating *weights, Py_ssize_t k, bint has_weights
) noexcept nogil:
    """What has the weight 0 doesn't count."""
    return kept_or_minus_infinity(x[k], weights[k] != 0) if has_weights else x[k]


cdef inline void find_maxima_of_rows(
    Tile *tile, bint has_weights, floating type_tag
) noexcept nogil:
    """Where there is NaN, it may be that, or less than the largest of the others; then the sum is
    NaN."""
    cdef Py_ssize_t LANES = lanes_of[floating](0), n = tile.classes, r, i, k
    cdef floating largest[FLOAT_LANES]
    cdef const floating *x
    cdef const floating *w
    for r in range(tile.rows):
        x = <floating *> tile.logits.data + r * tile.logits.row_step
        w = <floating *> tile.companion.data + r * tile.companion.row_step
        for k in range(LANES):
            largest[k] = counted(x, w, k, has_weights)
        i = LANES
        while i + 4 * LANES <= n:
            for k in range(LANES):
                largest[k] = larger(
                    larger(
                        larger(
                            counted(x, w, i + k, has_weights),
                            counted(x, w, i + LANES + k, has_weights),
                        ),
                        larger(
                            counted(x, w, i + 2 * LANES + k, has_weights),
                            counted(x, w, i + 3 * LANES + k, has_weights),
                        ),
                    ),
                    largest[k],
                )
            i += 4 * LANES
        while i < n:
            i = min(i, n - LANES)    # the last one overlaps
            for k in range(LANES):
                largest[k] = larger(counted(x, w, i + k, has_weights), largest[k])
            i += LANES
        tile.maximum[r] = max_of_lanes(largest)


cdef inline void find_maxima_of_columns(
    Tile *tile, bint has_weights, floating type_tag
) noexcept nogil:
    cdef Py_ssize_t LANES = lanes_of[floating](0), i, block, k, first, end = 0
    cdef floating maxima[MAX_ROWS]
    cdef const floating *x = <floating *> tile.logits.data
    cdef const floating *w = <floating *> tile.companion.data
    for k in range(tile.padded):
        maxima[k] = counted(x, w, k, has_weights)
    while end < tile.classes and not is_given_up(COLUMNS, end):
        first, end = max(1, end), min(end + MANY_CLASSES, tile.classes)
        for i in range(first, end):
            x += tile.logits.class_step
            w += tile.companion.class_step
            for block in range(tile.padded // LANES):
                for k in range(LANES):
                    maxima[block * LANES + k] = larger(
                        counted(x, w, block * LANES + k, has_weights), maxima[block * LANES + k]
                    )
    for k in range(tile.padded):
        tile.maximum[k] = maxima[k]


cdef inline floating *in_type_of(const double *field, floating type_tag) noexcept nogil:
    """A field of the tile whose numbers are floats where the tile's are, without conversions."""
    return <floating *> field


cdef inline void set_params(
    Tile *tile, bint are_tempered, bint are_all_needed, floating type_tag
) noexcept nogil:
    """From maxima and temperatures. Where a maximum is not finite, results will be NaN.

    The plain exponential needs only two of the parameters: the others are left out then, as they
    cost short rows some time.
    """
    cdef Py_ssize_t r
    cdef ExpParams params
    cdef bint is_shifted = False
    for r in range(tile.padded):
        params = exp_params[floating](
            tile.maximum[r] if is_finite(tile.maximum[r]) else 0, tile.temperature[r],
            are_tempered, 0,
        )
        in_type_of[floating](tile.magic, 0)[r] = <floating> params.magic
        in_type_of[floating](tile.lowest, 0)[r] = <floating> params.lowest
        is_shifted |= params.shift != 0
        if are_all_needed:
            set_other_params[floating](tile, r, &params, 0)
    tile.kind = GENERAL if are_tempered or is_shifted else PLAIN
    if is_shifted and not are_all_needed:
        for r in range(tile.padded):
            params = exp_params[floating](
                tile.maximum[r] if is_finite(tile.maximum[r]) else 0, 1, False, 0
            )
            set_other_params[floating](tile, r, &params, 0)


cdef inline void set_other_params(
    Tile *tile, Py_ssize_t r, const ExpParams *params, floating type_tag
) noexcept nogil:
    in_type_of[floating](tile.shift, 0)[r] = <floating> params.shift
    in_type_of[floating](tile.log2_e, 0)[r] = <floating> params.log2_e
    in_type_of[floating](tile.inverse_hi, 0)[r] = <floating> params.inverse_hi
    in_type_of[floating](tile.inverse_lo, 0)[r] = <floating> params.inverse_lo
    tile.residue[r] = params.residue
    tile.power[r] = params.power


cdef inline ExpParams params_of(
    const Tile *tile, Py_ssize_t r, Kind kind, floating type_tag
) noexcept nogil:
    """What `exponential` needs."""
    cdef ExpParams params
    params.magic = in_type_of[floating](tile.magic, 0)[r]
    params.lowest = in_type_of[floating](tile.lowest, 0)[r]
    if kind == GENERAL:
        params.shift = in_type_of[floating](tile.shift, 0)[r]
        params.log2_e = in_type_of[floating](tile.log2_e, 0)[r]
        params.inverse_hi = in_type_of[floating](tile.inverse_hi, 0)[r]
        params.inverse_lo = in_type_of[floating](tile.inverse_lo, 0)[r]
    return params


# Exponentials and their sum

cdef inline void exp_vector(
    const Tile *tile, Py_ssize_t block, const floating *x, floating *e, floating *total,
    floating *compensation, double *exact_total, Py_ssize_t counted, Layout layout, Kind kind,
    bint is_precise
) noexcept nogil:
    """To the lanes' sums, from the lane `counted` on."""
    cdef ExpParams params
    cdef floating term
    cdef Py_ssize_t k
    for k in range(lanes_of[floating](0)):
        params = params_of[floating](tile, row_of_lane[floating](block, k, layout, 0), kind, 0)
        e[k] = exponential(x[k], &params, kind)
        term = value_or_zero(e[k], k >= counted) if counted else e[k]
        if floating is float and is_precise:
            exact_total[k] += term
        else:
            add(total + k, compensation + k, term)


cdef inline void sum_exponentials(
    Tile *tile, Layout layout, Kind kind, bint is_kept, bint is_precise, floating type_tag
) noexcept nogil:
    """Exponentials, if they are kept, and their sums.

    Sums are those of `add`, which carry their rounding errors; where the largest term will be taken
    out of them (`is_precise`), those of floats are in double, which costs an eighth more.
    """
    cdef Py_ssize_t LANES = lanes_of[floating](0), tail = tail_of[floating](tile, layout, 0)
    cdef Py_ssize_t vectors = vectors_of[floating](tile, layout, 0)
    cdef Py_ssize_t step = step_of[floating](&tile.logits, layout, 0)
    cdef Py_ssize_t e_step = step_of[floating](&tile.result, layout, 0)
    cdef Py_ssize_t ahead = tile.ahead, span = vectors if layout == ROWS else tile.span
    cdef Py_ssize_t first = 0, end, block, v, k, r
    cdef bint is_in_double = floating is float and is_precise
    cdef floating totals[MAX_ROWS]    # of columns, between spans
    cdef floating compensations[MAX_ROWS]
    cdef floating total[FLOAT_LANES]
    cdef floating compensation[FLOAT_LANES]
    cdef floating first_e[FLOAT_LANES]
    cdef floating second_e[FLOAT_LANES]
    cdef floating third_e[FLOAT_LANES]
    cdef floating fourth_e[FLOAT_LANES]
    cdef floating last_e[FLOAT_LANES]
    cdef const floating *x
    cdef floating *e
    cdef DoubleDouble sum
    cdef LaneSums sums
    if layout == COLUMNS:
        for k in range(tile.padded):
            tile.sum_hi[k] = tile.sum_lo[k] = 0
    while first < vectors and not is_given_up(layout, first):
        end = min(vectors, first + span)
        for block in range(blocks_of[floating](tile, layout, 0)):
            x = vector_at[floating](&tile.logits, block, first, layout, 0)
            e = vector_at[floating](&tile.result, block, first, layout, 0)
            r = row_of_lane[floating](block, 0, layout, 0)
            for k in range(LANES):
                total[k] = START_OF_SUM
                compensation[k] = sums.hi[k] = sums.lo[k] = 0
            if layout == COLUMNS and is_in_double:
                for k in range(LANES):
                    sums.hi[k] = tile.sum_hi[r + k]
            elif layout == COLUMNS and first % MAX_TERMS:
                copy_lanes(totals + r, total)
                copy_lanes(compensations + r, compensation)
            if tail:
                exp_vector(
                    tile, block, x + tile.classes - LANES, last_e, total, compensation, sums.hi,
                    LANES - tail, layout, kind, is_precise,
                )
            v = first
            while v + 4 <= end:    # four vectors at a time: their chains of operations interleave
                exp_vector(
                    tile, block, x, first_e, total, compensation, sums.hi, 0, layout, kind,
                    is_precise,
                )
                exp_vector(
                    tile, block, x + step, second_e, total, compensation, sums.hi, 0, layout, kind,
                    is_precise,
                )
                exp_vector(
                    tile, block, x + 2 * step, third_e, total, compensation, sums.hi, 0, layout,
                    kind, is_precise,
                )
                exp_vector(
                    tile, block, x + 3 * step, fourth_e, total, compensation, sums.hi, 0, layout,
                    kind, is_precise,
                )
                if is_kept:
                    copy_lanes(first_e, e)
                    copy_lanes(second_e, e + e_step)
                    copy_lanes(third_e, e + 2 * e_step)
                    copy_lanes(fourth_e, e + 3 * e_step)
                if ahead:
                    for k in range(4):
                        prefetch(x + ahead + k * step)
                x += 4 * step
                e += 4 * e_step
                v += 4
            while v < end:
                exp_vector(
                    tile, block, x, first_e, total, compensation, sums.hi, 0, layout, kind,
                    is_precise,
                )
                if is_kept:
                    copy_lanes(first_e, e)
                if ahead:
                    prefetch(x + ahead)
                x += step
                e += e_step
                v += 1
            if tail and is_kept:
                copy_lanes(last_e, e + tail - LANES)
            if layout == COLUMNS and is_in_double:
                for k in range(LANES):
                    tile.sum_hi[r + k] = sums.hi[k]
            elif layout == COLUMNS and end < vectors and end % MAX_TERMS:
                copy_lanes(total, totals + r)
                copy_lanes(compensation, compensations + r)
            elif layout == COLUMNS:
                move_sums(total, compensation, tile.sum_hi + r, tile.sum_lo + r)
            else:
                if not is_in_double:
                    move_sums(total, compensation, sums.hi, sums.lo)
                sum = sum_of_lanes[floating](&sums, LANES, 0)
                tile.sum_hi[r] = sum.hi
                tile.sum_lo[r] = sum.lo
        first = end
    if layout == COLUMNS and floating is double:
        for k in range(tile.padded):
            sum = two_sum(tile.sum_hi[k], tile.sum_lo[k])
            tile.sum_hi[k] = sum.hi
            tile.sum_lo[k] = sum.lo


# Other sums

cdef inline bint has_weights(Weighing weighing) noexcept nogil:
    return weighing == BY_TARGETS or weighing == BY_OFFSETS or weighing == DIVERGENCES


cdef inline bint has_companion(Weighing weighing) noexcept nogil:
    return (
        weighing == BY_TARGETS or weighing == DIVERGENCES or weighing == PROBABILITY_GRADS
        or weighing == LOG_PROBABILITY_GRADS or weighing == WEIGHTED_EXPONENTIALS
    )


cdef inline floating half_log_ratio_of_row(
    const Tile *tile, floating z, floating t, Py_ssize_t r
) noexcept nogil:
    return half_log_ratio(
        z, t, in_type_of[floating](tile.of.divergence.center_hi, 0)[r],
        in_type_of[floating](tile.of.divergence.center_lo, 0)[r],
        in_type_of[floating](tile.of.divergence.last, 0)[r],
    )


cdef inline void weigh_lane(
    double *weights_hi, double *weights_lo, double *sums_hi, double *sums_lo, floating x,
    floating companion, floating e, floating target_e, floating class_weight, double maximum,
    floating largest_e, const ExpParams *params, Kind kind, double share, double offset,
    const Tile *tile, Py_ssize_t r, bint counts, Weighing weighing
) noexcept nogil:
    """One number, unless it does not count: then its weight is 0, and what has the weight 0 counts
    nowhere, even if it is infinite or NaN."""
    cdef DoubleDouble weight
    cdef double apart
    cdef floating half_d, per_center, product
    if weighing == BY_TARGETS or weighing == BY_OFFSETS:
        weight = coefficient[floating](companion, class_weight, share, offset, 0)
        weight.hi = value_or_zero(weight.hi, counts)
        weight.lo = value_or_zero(weight.lo, counts)
        add_term[floating](weights_hi, weights_lo, weight.hi, 0)
        apart = value_or_zero(distance(maximum, x), weight.hi != 0)
        add_product[floating](sums_hi, sums_lo, weight.hi, apart, 0)
        if floating is double:
            weights_lo[0] += weight.lo
            sums_lo[0] += weight.lo * apart
    elif weighing == BY_EXPONENTIALS:
        e = value_or_zero(e, counts)
        apart = value_or_zero(distance(maximum, x), e != 0)
        add_product[floating](sums_hi, sums_lo, DISTANCE_UNIT * e, apart, 0)    # not in units
    elif weighing == DIVERGENCES:
        e = value_or_zero(e, counts)
        target_e = value_or_zero(target_e, counts)
        half_d = half_log_ratio_of_row(tile, x, companion, r)
        per_center = in_type_of[floating](tile.of.divergence.per_center, 0)[r]
        # In this order: d alone may be too large.
        product = target_e * value_or_zero(half_d, target_e != 0) * per_center
        add_term[floating](
            weights_hi, weights_lo,
            divergence_term(
                target_e, e, half_d * per_center, product,
                in_type_of[floating](tile.of.divergence.ratio, 0)[r],
            ), 0,
        )
        sums_hi[0] += product    # u is small whatever is lost here
    elif weighing == PROBABILITY_GRADS:
        x = value_or_zero(x, counts)
        companion = value_or_zero(companion, x != 0)
        add_product[floating](sums_hi, sums_lo, x, companion, 0)
    elif weighing == LOG_PROBABILITY_GRADS:
        # A NaN among the logarithms is one of the row, too.
        companion = multiply_add(<floating> 0, x, companion)
        add_term[floating](
            sums_hi, sums_lo, value_or_zero(companion, counts & (x != -INFINITY)), 0
        )
    elif weighing == OTHERS:
        e = exponential(x, params, kind)
        add_term[floating](sums_hi, sums_lo, value_or_zero(e, counts & (e != largest_e)), 0)
    elif weighing == OTHERS_KEPT:
        add_term[floating](sums_hi, sums_lo, value_or_zero(e, counts & (e != largest_e)), 0)


cdef inline void weigh_vector(
    const Tile *tile, LaneSums *weights, LaneSums *sums, const floating *x,
    const floating *companion, const floating *e, const floating *target_e, Py_ssize_t block,
    Py_ssize_t first_class, Py_ssize_t counted, Layout layout, Weighing weighing, Kind kind
) noexcept nogil:
    """From a class on, or of it. Lanes below `counted` have been counted."""
    cdef bint is_divergence = weighing == DIVERGENCES
    cdef bint has_e = weighing == BY_EXPONENTIALS or weighing == OTHERS_KEPT or is_divergence
    cdef bint has_class_weights = has_weights(weighing) and not is_divergence
    cdef const floating *class_weights = <const floating *> tile.class_weights
    cdef ExpParams params
    cdef floating largest_e = 0
    cdef double maximum
    cdef Py_ssize_t k, r, i
    for k in range(lanes_of[floating](0)):
        r = row_of_lane[floating](block, k, layout, 0)
        i = first_class + k if layout == ROWS else first_class
        maximum = tile.maximum[r]
        if layout == ROWS and not is_finite(maximum):    # of a chunk that is -inf alone
            maximum = 0
        if weighing == OTHERS:
            params = params_of[floating](tile, r, kind, 0)
        if weighing == OTHERS or weighing == OTHERS_KEPT:
            largest_e = <floating> tile.factor_hi[r]
        weigh_lane(
            weights.hi + k, weights.lo + k, sums.hi + k, sums.lo + k,
            x[k] if weighing != OTHERS_KEPT else 0, companion[k] if has_companion(weighing) else 0,
            e[k] if has_e else 0, target_e[k] if is_divergence else 0,
            class_weights[i] if has_class_weights else 0, maximum, largest_e, &params, kind,
            tile.share, tile.offset, tile, r, k >= counted if counted else True, weighing,
        )


# Between spans of columns sums stay as they are: bits don't depend on how wide these are.

cdef inline void take_sums(const double *hi, const double *lo, LaneSums *sums) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(FLOAT_LANES):
        sums.hi[k] = hi[k]
        sums.lo[k] = lo[k]


cdef inline void keep_sums(
    const LaneSums *sums, double *hi, double *lo, Py_ssize_t lanes
) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(lanes):
        hi[k] = sums.hi[k]
        lo[k] = sums.lo[k]


cdef inline void weigh(
    Tile *tile, Layout layout, Weighing weighing, Kind kind, floating type_tag
) noexcept nogil:
    """To the tile's distances, whatever is summed up there, and to its weights if there are any."""
    cdef Py_ssize_t LANES = lanes_of[floating](0), tail = tail_of[floating](tile, layout, 0)
    cdef Py_ssize_t vectors = vectors_of[floating](tile, layout, 0)
    cdef Py_ssize_t span = vectors if layout == ROWS else tile.span
    cdef Py_ssize_t last = tile.classes - LANES, first = 0, end, block, v, r
    cdef LaneSums weights, sums
    cdef DoubleDouble sum
    cdef const floating *x
    cdef const floating *companion
    cdef const floating *e
    cdef const floating *target_e = NULL
    if layout == COLUMNS:
        for r in range(tile.padded):
            tile.weights_hi[r] = tile.weights_lo[r] = 0
            tile.distances_hi[r] = tile.distances_lo[r] = 0
    while first < vectors and not is_given_up(layout, first):
        end = min(vectors, first + span)
        for block in range(blocks_of[floating](tile, layout, 0)):
            x = vector_at[floating](&tile.logits, block, first, layout, 0)
            companion = vector_at[floating](&tile.companion, block, first, layout, 0)
            e = vector_at[floating](&tile.result, block, first, layout, 0)
            if weighing == DIVERGENCES:
                target_e = vector_at[floating](&tile.of_target.result, block, first, layout, 0)
            r = row_of_lane[floating](block, 0, layout, 0)
            clear(&weights)
            clear(&sums)
            if layout == COLUMNS:
                take_sums(tile.distances_hi + r, tile.distances_lo + r, &sums)
                if has_weights(weighing):
                    take_sums(tile.weights_hi + r, tile.weights_lo + r, &weights)
            if tail:
                weigh_vector(
                    tile, &weights, &sums, x + last, companion + last, e + last, target_e + last,
                    block, last, LANES - tail, layout, weighing, kind,
                )
            for v in range(first, end):
                weigh_vector(
                    tile, &weights, &sums, x, companion, e, target_e, block,
                    v * LANES if layout == ROWS else v, 0, layout, weighing, kind,
                )
                if weighing == DIVERGENCES:
                    target_e += step_of[floating](&tile.of_target.result, layout, 0)
                elif has_companion(weighing) and tile.ahead:    # which no pass has read before
                    prefetch(x + tile.ahead)
                    prefetch(companion + tile.ahead)
                x += step_of[floating](&tile.logits, layout, 0)
                companion += step_of[floating](&tile.companion, layout, 0)
                e += step_of[floating](&tile.result, layout, 0)
            if layout == COLUMNS:
                keep_sums(&sums, tile.distances_hi + r, tile.distances_lo + r, LANES)
                if has_weights(weighing):
                    keep_sums(&weights, tile.weights_hi + r, tile.weights_lo + r, LANES)
                continue
            sum = finished[floating](&sums, 0)
            tile.distances_hi[r] = sum.hi
            tile.distances_lo[r] = sum.lo
            if has_weights(weighing):
                sum = finished[floating](&weights, 0)
                tile.weights_hi[r] = sum.hi
                tile.weights_lo[r] = sum.lo
        first = end


# Weighted sums of exponentials

cdef inline bint reaches_maximum(
    const Tile *tile, Py_ssize_t block, const floating *x, const floating *weights,
    Py_ssize_t step, Py_ssize_t weight_step, Layout layout, bint has_gaps
) noexcept nogil:
    """Whether a maximum is among four vectors."""
    cdef bint is_any = False
    cdef floating largest
    cdef Py_ssize_t k
    for k in range(lanes_of[floating](0)):
        largest = larger(
            larger(
                counted(x, weights, k, has_gaps),
                counted(x + step, weights + weight_step, k, has_gaps),
            ),
            larger(
                counted(x + 2 * step, weights + 2 * weight_step, k, has_gaps),
                counted(x + 3 * step, weights + 3 * weight_step, k, has_gaps),
            ),
        )
        is_any |= largest == <floating> tile.maximum[row_of_lane[floating](block, k, layout, 0)]
    return is_any


cdef inline floating without_largest(
    const Tile *tile, const floating *x, const floating *weights, LaneSums *of_largest,
    Py_ssize_t k, Py_ssize_t r, bint counts, Kind kind, bint has_gaps, bint has_largest
) noexcept nogil:
    """The exponential of a lane; of the largest 0, and its weight is added up."""
    cdef ExpParams params = params_of[floating](tile, r, kind, 0)
    cdef floating e = exponential(x[k], &params, kind)
    cdef bint is_largest
    if has_gaps:
        counts &= weights[k] != 0
    if has_largest:
        is_largest = x[k] == <floating> tile.maximum[r]
        add_term[floating](
            of_largest.hi + k, of_largest.lo + k, value_or_zero(weights[k], counts & is_largest), 0
        )
        counts &= not is_largest
    return value_or_zero(e, counts) if has_largest or has_gaps else e


cdef inline void weigh_one(
    const Tile *tile, Py_ssize_t block, const floating *x, const floating *weights, LaneSums *sums,
    LaneSums *of_largest, floating *largest_weight, Py_ssize_t counted, Layout layout, Kind kind,
    bint has_gaps
) noexcept nogil:
    """A vector, from the lane `counted` on."""
    cdef floating e
    cdef Py_ssize_t k
    for k in range(lanes_of[floating](0)):
        e = without_largest(
            tile, x, weights, of_largest, k, row_of_lane[floating](block, k, layout, 0),
            k >= counted if counted else True, kind, has_gaps, True,
        )
        add_term[floating](sums.hi + k, sums.lo + k, <floating> (weights[k] * e), 0)
        largest_weight[k] = larger(<floating> fabs(weights[k]), largest_weight[k])


cdef inline void weigh_two(
    const Tile *tile, Py_ssize_t block, const floating *x, const floating *weights,
    Py_ssize_t step, Py_ssize_t weight_step, LaneSums *sums, LaneSums *of_largest,
    floating *largest_weight, Layout layout, Kind kind, bint has_gaps, bint has_largest
) noexcept nogil:
    """Two vectors. Two products are added in the type of the numbers: with the exponential's own
    that makes less than 2 ULP of them."""
    cdef floating e, other_e
    cdef Py_ssize_t k, r
    for k in range(lanes_of[floating](0)):
        r = row_of_lane[floating](block, k, layout, 0)
        e = without_largest(
            tile, x, weights, of_largest, k, r, True, kind, has_gaps, has_largest
        )
        other_e = without_largest(
            tile, x + step, weights + weight_step, of_largest, k, r, True, kind, has_gaps,
            has_largest,
        )
        add_term[floating](
            sums.hi + k, sums.lo + k,
            multiply_add(weights[weight_step + k], other_e, <floating> (weights[k] * e)), 0,
        )
        largest_weight[k] = larger(
            larger(<floating> fabs(weights[k]), <floating> fabs(weights[weight_step + k])),
            largest_weight[k],
        )


cdef inline void sum_weighted(
    Tile *tile, Layout layout, Kind kind, bint has_gaps, floating type_tag
) noexcept nogil:
    """To the distances; the weights of the largest to the weights."""
    cdef Py_ssize_t LANES = lanes_of[floating](0), tail = tail_of[floating](tile, layout, 0)
    cdef Py_ssize_t vectors = vectors_of[floating](tile, layout, 0)
    cdef Py_ssize_t span = vectors if layout == ROWS else tile.span
    cdef Py_ssize_t step = step_of[floating](&tile.logits, layout, 0)
    cdef Py_ssize_t weight_step = step_of[floating](&tile.companion, layout, 0)
    cdef Py_ssize_t last = tile.classes - LANES, ahead = tile.ahead, first = 0, end, block, v, r, k
    # No pass has read the weights before. A tile of many classes in columns may be as large as the
    # cache, so there those of the next span are fetched.
    cdef Py_ssize_t weights_ahead = ahead if vectors <= span else span * weight_step
    cdef LaneSums sums, of_largest
    cdef DoubleDouble sum
    cdef floating largest_weight[FLOAT_LANES]
    cdef floating *largest_weights = in_type_of[floating](tile.of.weighted_sum.largest_weight, 0)
    cdef const floating *x
    cdef const floating *weights
    if layout == COLUMNS:
        for r in range(tile.padded):
            tile.weights_hi[r] = tile.weights_lo[r] = 0
            tile.distances_hi[r] = tile.distances_lo[r] = 0
            largest_weights[r] = 0
    while first < vectors and not is_given_up(layout, first):
        end = min(vectors, first + span)
        for block in range(blocks_of[floating](tile, layout, 0)):
            x = vector_at[floating](&tile.logits, block, first, layout, 0)
            weights = vector_at[floating](&tile.companion, block, first, layout, 0)
            r = row_of_lane[floating](block, 0, layout, 0)
            clear(&sums)
            clear(&of_largest)
            for k in range(LANES):
                largest_weight[k] = 0
            if layout == COLUMNS:
                take_sums(tile.distances_hi + r, tile.distances_lo + r, &sums)
                take_sums(tile.weights_hi + r, tile.weights_lo + r, &of_largest)
                copy_lanes(largest_weights + r, largest_weight)
            if tail:
                weigh_one(
                    tile, block, x + last, weights + last, &sums, &of_largest, largest_weight,
                    LANES - tail, layout, kind, has_gaps,
                )
            v = first
            while v + 4 <= end:
                if reaches_maximum(
                    tile, block, x, weights, step, weight_step, layout, has_gaps
                ):
                    for k in range(2):
                        weigh_two(
                            tile, block, x + 2 * k * step, weights + 2 * k * weight_step, step,
                            weight_step, &sums, &of_largest, largest_weight, layout, kind,
                            has_gaps, True,
                        )
                else:
                    weigh_two(
                        tile, block, x, weights, step, weight_step, &sums, &of_largest,
                        largest_weight, layout, kind, has_gaps, False,
                    )
                    weigh_two(
                        tile, block, x + 2 * step, weights + 2 * weight_step, step, weight_step,
                        &sums, &of_largest, largest_weight, layout, kind, has_gaps, False,
                    )
                if ahead:
                    for k in range(4):
                        prefetch(x + ahead + k * step)
                        prefetch(weights + weights_ahead + k * weight_step)
                x += 4 * step
                weights += 4 * weight_step
                v += 4
            while v < end:
                weigh_one(
                    tile, block, x, weights, &sums, &of_largest, largest_weight, 0, layout, kind,
                    has_gaps,
                )
                if ahead:
                    prefetch(x + ahead)
                    prefetch(weights + weights_ahead)
                x += step
                weights += weight_step
                v += 1
            if layout == COLUMNS:
                keep_sums(&sums, tile.distances_hi + r, tile.distances_lo + r, LANES)
                keep_sums(&of_largest, tile.weights_hi + r, tile.weights_lo + r, LANES)
                copy_lanes(largest_weight, largest_weights + r)
                continue
            sum = finished[floating](&sums, 0)
            tile.distances_hi[r] = sum.hi
            tile.distances_lo[r] = sum.lo
            sum = finished[floating](&of_largest, 0)
            tile.weights_hi[r] = sum.hi
            tile.weights_lo[r] = sum.lo
            largest_weights[r] = max_of_lanes(largest_weight)
        first = end


# Where the exponentials are that are larger than the sum of all others; -1 in rows without one. The
# exponentials are kept, and the factors are the largest.

cdef inline void find_largest_of_rows(
    const Tile *tile, int64_t *places, floating type_tag
) noexcept nogil:
    cdef Py_ssize_t numbers = 4 * lanes_of[floating](0), r, i, k
    cdef floating largest
    cdef bint is_found
    cdef const floating *e
    for r in range(tile.rows):
        places[r] = -1
        if not tile.sum_hi[r] < tile.factor_hi[r]:
            continue
        largest = <floating> tile.factor_hi[r]
        e = <floating *> tile.result.data + r * tile.result.row_step
        i = 0
        is_found = False
        while i + numbers <= tile.classes:
            for k in range(numbers):
                is_found |= e[i + k] == largest
            if is_found:
                break
            i += numbers
        for i in range(i, tile.classes):
            if e[i] == largest:
                places[r] = i
                break


cdef inline void find_largest_of_columns(
    const Tile *tile, int64_t *places, floating type_tag
) noexcept nogil:
    cdef Py_ssize_t LANES = lanes_of[floating](0), block, k, r
    cdef floating largest[FLOAT_LANES]
    cdef int32_t lanes[FLOAT_LANES]    # no columns that fit a memory are longer than these count
    cdef int32_t i, n = <int32_t> tile.classes
    cdef bint is_found
    cdef const floating *e
    for block in range(tile.padded // LANES):
        is_found = False
        for k in range(LANES):
            r = block * LANES + k
            largest[k] = <floating> (
                tile.factor_hi[r] if tile.sum_hi[r] < tile.factor_hi[r] else -1
            )
            is_found |= largest[k] > 0
            lanes[k] = 0
        e = <floating *> tile.result.data + block * LANES
        for i in range(n if is_found else 0):
            for k in range(LANES):
                lanes[k] |= i & -<int32_t> (e[k] == largest[k])
            e += tile.result.class_step
        for k in range(LANES):
            places[block * LANES + k] = lanes[k] if largest[k] > 0 else -1


# Results

cdef inline floating value_of_lane(
    const Tile *tile, const floating *x, const floating *companion, const floating *e,
    const floating *target_e, const floating *class_weights, Py_ssize_t k, Py_ssize_t r,
    Py_ssize_t i, floating hi, floating lo, floating other_hi, floating other_lo,
    const ExpParams *of_zero, Kind kind, Values values
) noexcept nogil:
    """`hi` and `lo` are the factor of the exponentials, the maximum and the logarithm of the sum,
    or the sum of a vector-Jacobian product; `other_hi` and `other_lo` share and offset, both times
    the scale, or the curvature and what it makes of the largest p, or 1 / T, or the factor of the
    target's exponentials."""
    if values == PROBABILITIES:
        return scaled(e[k], hi, lo)
    if values == LOG_PROBABILITIES:
        return log_probability(x[k], hi, lo, other_hi, other_lo, kind)
    if values == GRADS:
        return multiply_add(
            -class_weights[i], multiply_add(other_hi, companion[k], other_lo),
            scaled(e[k], hi, lo),
        )
    if values == GRADS_OF_OFFSETS:
        return multiply_add(-class_weights[i], other_lo, scaled(e[k], hi, lo))
    if values == HESSIANS:
        return hessian_of_class(scaled(e[k], hi, lo), other_hi, other_lo)
    if values == DIVERGENCE_GRADS:
        return divergence_grad(
            scaled(target_e[k], other_hi, other_lo), scaled(e[k], hi, lo),
            half_log_ratio_of_row(tile, x[k], companion[k], r)
            * in_type_of[floating](tile.of.divergence.per_center, 0)[r],
        )
    if kind == PLAIN:
        return product_difference(
            x[k], companion[k], hi, lo, of_zero, values == LOG_SOFTMAX_VJPS
        )
    hi = product_difference(
        x[k], companion[k] * in_type_of[floating](tile.of.product.grad_unit, 0)[r], hi, lo,
        of_zero, values == LOG_SOFTMAX_VJPS,
    )
    return times_inverse(hi, other_hi, other_lo)


cdef inline void write_vector(
    const Tile *tile, floating *y, const floating *x, const floating *companion,
    const floating *e, const floating *target_e, Py_ssize_t row, Py_ssize_t first_class,
    const floating *hi, const floating *lo, const floating *other_hi, const floating *other_lo,
    const ExpParams *of_zero, Layout layout, Kind kind, Values values
) noexcept nogil:
    cdef Py_ssize_t k, r, i
    for k in range(lanes_of[floating](0)):
        r = row if layout == ROWS else row + k
        i = first_class + k if layout == ROWS else first_class
        y[k] = value_of_lane(
            tile, x, companion, e, target_e, <const floating *> tile.class_weights, k, r, i, hi[r],
            lo[r], other_hi[r], other_lo[r], of_zero, kind, values,
        )


cdef inline void write(
    const Tile *tile, Layout layout, Kind kind, Values values, floating type_tag
) noexcept nogil:
    """The tile's results, which may lie where its logits or its companions do; before them its
    Hessians, for which the exponentials are still needed."""
    cdef Py_ssize_t LANES = lanes_of[floating](0), tail = tail_of[floating](tile, layout, 0)
    cdef Py_ssize_t vectors = vectors_of[floating](tile, layout, 0)
    cdef Py_ssize_t span = vectors if layout == ROWS else tile.span
    cdef Py_ssize_t last = tile.classes - LANES, first = 0, end, block, row, v, r
    cdef ExpParams of_zero = exp_params[floating](0, 1, False, 0)
    cdef floating hi[MAX_ROWS]
    cdef floating lo[MAX_ROWS]
    cdef floating other_hi[MAX_ROWS]
    cdef floating other_lo[MAX_ROWS]
    cdef floating numbers[FLOAT_LANES]
    cdef floating last_numbers[FLOAT_LANES]
    cdef const floating *x
    cdef const floating *companion
    cdef const floating *e
    cdef const floating *target_e
    cdef floating *y
    cdef const View *to = &tile.hessian if values == HESSIANS else &tile.result
    cdef View kept = tile.result, target_kept = tile.result
    if values == DIVERGENCE_GRADS:
        kept = tile.kept
        target_kept = tile.of_target.result
    for r in range(tile.padded):
        if values == LOG_PROBABILITIES:
            hi[r] = <floating> tile.maximum[r]
            lo[r] = <floating> tile.log_sum[r]
        elif values == HESSIANS:
            hi[r] = <floating> tile.of.loss.inverse_sum_hi[r]
            lo[r] = <floating> (
                tile.of.loss.inverse_sum_hi[r] - hi[r] if floating is float
                else tile.of.loss.inverse_sum_lo[r]
            )
            other_hi[r] = <floating> tile.of.loss.curvature[r]
            other_lo[r] = <floating> tile.of.loss.of_largest[r]
        else:
            hi[r] = <floating> tile.factor_hi[r]
            lo[r] = <floating> (
                tile.factor_hi[r] - hi[r] if floating is float else tile.factor_lo[r]
            )
        if values == GRADS or values == GRADS_OF_OFFSETS:
            other_hi[r] = <floating> (tile.share * tile.scale[r])
            other_lo[r] = <floating> (tile.offset * tile.scale[r])
        elif values == DIVERGENCE_GRADS:
            other_hi[r] = <floating> tile.of_target.factor_hi[r]
            other_lo[r] = <floating> (
                tile.of_target.factor_hi[r] - other_hi[r] if floating is float
                else tile.of_target.factor_lo[r]
            )
        elif kind == GENERAL and values != HESSIANS:
            other_hi[r] = in_type_of[floating](tile.inverse_hi, 0)[r]
            other_lo[r] = in_type_of[floating](tile.inverse_lo, 0)[r]
        if values == SOFTMAX_VJPS or values == LOG_SOFTMAX_VJPS:
            lo[r] = value_or_zero(lo[r], is_finite(hi[r]))
    while first < vectors and not is_given_up(layout, first):
        end = min(vectors, first + span)
        for block in range(blocks_of[floating](tile, layout, 0)):
            row = row_of_lane[floating](block, 0, layout, 0)
            x = vector_at[floating](&tile.logits, block, first, layout, 0)
            companion = vector_at[floating](&tile.companion, block, first, layout, 0)
            y = vector_at[floating](to, block, first, layout, 0)
            e = vector_at[floating](&kept, block, first, layout, 0)
            target_e = vector_at[floating](&target_kept, block, first, layout, 0)
            if tail:
                write_vector(
                    tile, last_numbers, x + last, companion + last, e + last, target_e + last, row,
                    last, hi, lo, other_hi, other_lo, &of_zero, layout, kind, values,
                )
            for v in range(first, end):
                write_vector(
                    tile, numbers, x, companion, e, target_e, row,
                    v * LANES if layout == ROWS else v, hi, lo, other_hi, other_lo, &of_zero,
                    layout, kind, values,
                )
                copy_lanes(numbers, y)
                x += step_of[floating](&tile.logits, layout, 0)
                companion += step_of[floating](&tile.companion, layout, 0)
                y += step_of[floating](to, layout, 0)
                e += step_of[floating](&kept, layout, 0)
                target_e += step_of[floating](&target_kept, layout, 0)
            if tail:
                copy_lanes(last_numbers, y + tail - LANES)
        first = end
