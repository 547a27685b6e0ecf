"""Losses, and the entropy.

Where the coefficients are spread over the classes,

    loss = sum_j c_j (-log p_j),    its gradient = (S p_j - c_j) / T,    S = sum_j c_j

with c_j = class_weight_j (share target_j + offset): share = 1 - label_smoothing, offset =
label_smoothing / C. Where the target is a class index, target_j is 1 for that class and 0 for the
others: its weight is added to the sums of the offsets, of which there are none without smoothing.
"""

cdef inline Coefficients coefficients_of(
    const LossTerms *loss, const char *targets, npy_intp offset_in_bytes, bint is_index
) noexcept nogil:
    """Without the class that an index names."""
    cdef Coefficients coefficients
    coefficients.class_weights = loss.class_weights + offset_in_bytes
    coefficients.targets = targets + offset_in_bytes
    coefficients.share = loss.share
    coefficients.offset = loss.offset
    if is_index:    # whatever is finite, times 0
        coefficients.targets = coefficients.class_weights
        coefficients.share = 0.0
    return coefficients


cdef inline double class_weight_of(
    const LossTerms *loss, int64_t target, floating type_tag
) noexcept nogil:
    return 1.0 if loss.class_weights == NULL else (<const floating *> loss.class_weights)[target]


cdef inline Sum loss_of(const Distances *distances, Sum log_sum, double temperature) noexcept nogil:
    cdef Sum of_distances = over_temperature(distances.weighted, temperature)
    if not is_finite(of_distances.hi):
        return exactly(of_distances.hi + (log_sum.hi + log_sum.lo))    # NaN if either is
    return plus(of_distances, times(distances.weights, log_sum))


cdef inline void add_class(
    Distances *distances, Sum weight, double maximum, double logit
) noexcept nogil:
    """A class of its own to the sums: that of a class index."""
    distances.weights = plus(distances.weights, weight)
    if weight.hi == 0:
        return
    if is_finite(logit):
        distances.weighted = plus(
            distances.weighted,
            times(weight, two_sum(maximum * PER_DISTANCE_UNIT, -logit * PER_DISTANCE_UNIT)),
        )
    else:
        distances.weighted = exactly(-weight.hi * logit)


cdef inline double grad_of_class(
    const Row *row, double logit, double exponential, Sum weights, double coefficient, double scale
) noexcept nogil:
    """(S p - c) scale for a class index. Where that class has nearly all, p is 1 minus the share of
    the others."""
    cdef Sum inverse = reciprocal(sum_of_row(row)), difference
    if row.maximum_count == 1 and logit == row.maximum:
        difference = times(times(inverse, row.others), weights)
        difference = plus(
            plus(weights, exactly(-coefficient)), two_sum(-difference.hi, -difference.lo)
        )
    else:
        difference = times(times(inverse, exactly(exponential)), weights)
        difference = plus(difference, exactly(-coefficient))
    difference.hi += difference.lo
    # Adding 0 makes one zero of -0. A mean over nothing has no gradient: its scale is NaN.
    return difference.hi * scale + 0.0 if difference.hi != 0 or scale != scale else 0


cdef inline void set_scale_of_grad(const Row *row, double scale, Outcome *outcome) noexcept nogil:
    """Where it is beyond a float, numbers are multiplied by it when all else is done."""
    outcome.weighed.scale = scale
    outcome.weighed.scale_at_end = fabs(scale) >= 1e30
    outcome.factor = times(reciprocal(sum_of_row(row)), outcome.weighed.distances.weights)
    if not outcome.weighed.scale_at_end:
        outcome.factor = times(outcome.factor, exactly(scale))


cdef inline void subtract_coefficients(
    floating *y, Py_ssize_t n, const Coefficients *coefficients, const Weighed *weighed
) noexcept nogil:
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef const floating *targets = <const floating *> coefficients.targets
    cdef const floating *class_weights = <const floating *> coefficients.class_weights
    cdef double scale = 1.0 if weighed.scale_at_end else weighed.scale
    cdef floating share = <floating> (coefficients.share * scale)
    cdef floating offset = <floating> (coefficients.offset * scale)
    cdef floating values[FLOAT_LANES]
    cdef Py_ssize_t i = 0, k
    while i + LANES <= n:
        for k in range(LANES):
            values[k] = multiply_add(
                -class_weights[i + k], multiply_add(share, targets[i + k], offset), y[i + k]
            )
        for k in range(LANES):
            y[i + k] = values[k]
        i += LANES
    while i < n:
        y[i] = multiply_add(-class_weights[i], multiply_add(share, targets[i], offset), y[i])
        i += 1
    if weighed.scale_at_end:
        for i in range(n):
            y[i] = <floating> (y[i] * weighed.scale) if y[i] != 0 else 0


cdef void targets_outcome(
    const Row *row, bint is_defined, const RowOperands *operands, npy_intp r, Outcome *outcome,
    floating type_tag
) noexcept nogil:
    cdef Sum loss = exactly(NAN)
    if is_defined:
        loss = loss_of(
            &outcome.weighed.distances, log_sum_of_row[floating](row, 0), outcome.temperature
        )
        set_scale_of_grad(row, operands.loss.scale / temperature_of(operands, r), outcome)
    set_result[floating](operands, r, loss.hi + loss.lo, 0)


cdef void index_outcome(
    const Row *row, bint is_defined, const RowOperands *operands, npy_intp r, Outcome *outcome,
    floating type_tag
) noexcept nogil:
    cdef double class_weight, exponential_of_target
    outcome.target_result = NAN
    if is_defined:
        class_weight = class_weight_of[floating](operands.loss, outcome.target, 0)
        add_class(
            &outcome.weighed.distances,
            times(exactly(operands.loss.share), exactly(class_weight)), row.maximum,
            outcome.target_logit,
        )
    targets_outcome[floating](row, is_defined, operands, r, outcome, 0)
    if not is_defined:
        return
    exponential_of_target = exponential(
        <floating> outcome.target_logit, &row.reduction, row.reduction.kind
    )
    outcome.target_result = grad_of_class(
        row, outcome.target_logit, exponential_of_target, outcome.weighed.distances.weights,
        (operands.loss.share + operands.loss.offset) * class_weight, outcome.weighed.scale,
    )


# Many rows side by side.

cdef struct ColumnDistances:
    # The fields of `Distances` for each row.
    double weights_hi[MAX_BATCH]
    double weights_lo[MAX_BATCH]
    double weighted_hi[MAX_BATCH]
    double weighted_lo[MAX_BATCH]


cdef inline Distances distances_at(const ColumnDistances *all, Py_ssize_t r) noexcept nogil:
    cdef Distances distances
    distances.weights.hi = all.weights_hi[r]
    distances.weights.lo = all.weights_lo[r]
    distances.weighted.hi = all.weighted_hi[r]
    distances.weighted.lo = value_or_zero(all.weighted_lo[r], is_finite(all.weighted_hi[r]))
    return distances


cdef inline void weigh_columns(
    const floating *x, Py_ssize_t x_step, Py_ssize_t n, const Batch *batch,
    const floating *targets, Py_ssize_t target_step, const Coefficients *coefficients,
    ColumnDistances *distances
) noexcept nogil:
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef const floating *class_weights = <const floating *> coefficients.class_weights
    cdef Py_ssize_t i, block, k, r
    cdef double tops[MAX_BATCH]
    for r in range(batch.padded):
        tops[r] = batch.maximum[r] * PER_DISTANCE_UNIT
        distances.weights_hi[r] = distances.weights_lo[r] = 0
        distances.weighted_hi[r] = distances.weighted_lo[r] = 0
    for i in range(n):
        for block in range(batch.padded // LANES):
            for k in range(LANES):
                r = block * LANES + k
                add_weighted[floating](
                    distances.weights_hi + r, distances.weights_lo + r, distances.weighted_hi + r,
                    distances.weighted_lo + r,
                    coefficient[floating](
                        targets[i * target_step + r], class_weights[i], coefficients.share,
                        coefficients.offset, 0,
                    ),
                    distance(tops[r], x[i * x_step + r]), 0,
                )


cdef inline void add_classes(
    const floating *target_logits, Py_ssize_t n, const RowOperands *operands, const Batch *batch,
    ColumnDistances *distances
) noexcept nogil:
    cdef Distances of_row
    cdef Py_ssize_t r
    cdef int64_t target
    cdef double class_weight
    for r in range(batch.rows):
        target = counted_target(operands, r, n)
        if target >= 0:
            of_row = distances_at(distances, r)
            class_weight = class_weight_of[floating](operands.loss, target, 0)
            add_class(
                &of_row, times(exactly(operands.loss.share), exactly(class_weight)),
                batch.maximum[r], target_logits[r],
            )
            distances.weights_hi[r] = of_row.weights.hi
            distances.weights_lo[r] = of_row.weights.lo
            distances.weighted_hi[r] = of_row.weighted.hi
            distances.weighted_lo[r] = of_row.weighted.lo


cdef inline void distribution_outcomes(
    const Batch *batch, const ColumnDistances *distances, const RowOperands *operands,
    double *losses, double *scales, double *factor_hi, double *factor_lo, floating type_tag
) noexcept nogil:
    cdef double temperature
    cdef Py_ssize_t r
    cdef Distances of_row
    cdef Sum log_sum, loss, factor
    cdef Row row
    for r in range(batch.padded):
        temperature = temperature_of(operands, min(r, batch.rows - 1))
        row = row_of(batch, r)
        of_row = distances_at(distances, r)
        log_sum = log_sum_of_row[floating](&row, 0)
        loss = loss_of(&of_row, log_sum, temperature)
        losses[r] = loss.hi + loss.lo if is_finite(row.maximum) else NAN
        scales[r] = operands.loss.scale / temperature
        factor = times(reciprocal(sum_of_row(&row)), of_row.weights)
        factor = times(factor, exactly(scales[r]))
        factor_hi[r] = factor.hi if is_finite(row.maximum) else NAN
        factor_lo[r] = factor.lo


cdef inline void subtract_from_columns(
    floating *y, Py_ssize_t y_step, Py_ssize_t n, const Batch *batch, const floating *targets,
    Py_ssize_t target_step, const Coefficients *coefficients, const double *scales
) noexcept nogil:
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef const floating *class_weights = <const floating *> coefficients.class_weights
    cdef floating shares[MAX_BATCH]
    cdef floating offsets[MAX_BATCH]
    cdef floating values[FLOAT_LANES]
    cdef Py_ssize_t i, block, k, r
    for r in range(batch.padded):
        shares[r] = <floating> (coefficients.share * scales[r])
        offsets[r] = <floating> (coefficients.offset * scales[r])
    for i in range(n):
        for block in range(batch.padded // LANES):
            for k in range(LANES):
                r = block * LANES + k
                values[k] = multiply_add(
                    -class_weights[i],
                    multiply_add(shares[r], targets[i * target_step + r], offsets[r]),
                    y[i * y_step + r],
                )
            for k in range(LANES):
                y[i * y_step + block * LANES + k] = values[k]


cdef inline void finish_classes(
    floating *y, Py_ssize_t y_step, Py_ssize_t n, const RowOperands *operands,
    const floating *target_logits, const floating *target_exponentials, const Batch *batch,
    const ColumnDistances *distances, const double *scales, double *losses, bint keep
) noexcept nogil:
    """What is ignored or no class, and the gradients of the classes."""
    cdef double share_of_target = operands.loss.share + operands.loss.offset
    cdef Distances of_row
    cdef Py_ssize_t r, i
    cdef int64_t target
    cdef Row row
    for r in range(batch.rows):
        target = counted_target(operands, r, n)
        if target < 0:
            losses[r] = 0
            if keep:
                for i in range(n):
                    y[i * y_step + r] = 0
        elif keep and losses[r] == losses[r]:
            row = row_of(batch, r)
            of_row = distances_at(distances, r)
            y[target * y_step + r] = <floating> grad_of_class(
                &row, target_logits[r], target_exponentials[r], of_row.weights,
                share_of_target * class_weight_of[floating](operands.loss, target, 0),
                scales[r],
            )


cdef inline void gather_targets(
    const floating *x, Py_ssize_t x_step, Py_ssize_t n, const RowOperands *operands,
    Py_ssize_t rows, floating *of_targets
) noexcept nogil:
    cdef Py_ssize_t r
    cdef int64_t target
    for r in range(rows):
        target = counted_target(operands, r, n)
        of_targets[r] = x[target * x_step + r] if target >= 0 else 0


cdef inline void distribution_batch(
    const floating *x, Py_ssize_t x_step, floating *y, Py_ssize_t y_step, Py_ssize_t n,
    Py_ssize_t rows, const RowOperands *operands, const floating *targets,
    Py_ssize_t target_step, bint is_index, bint keep
) noexcept nogil:
    cdef ColumnDistances distances
    cdef double losses[MAX_BATCH]
    cdef double scales[MAX_BATCH]
    cdef double factor_hi[MAX_BATCH]
    cdef double factor_lo[MAX_BATCH]
    cdef floating target_logits[MAX_BATCH]
    cdef floating target_exponentials[MAX_BATCH]
    cdef floating zeros[MAX_BATCH]
    cdef Coefficients coefficients = coefficients_of(operands.loss, NULL, 0, is_index)
    cdef Batch batch
    cdef Py_ssize_t r
    if is_index:    # targets of which none counts
        memset(zeros, 0, sizeof(zeros))
        targets = zeros
        target_step = 0
        gather_targets(x, x_step, n, operands, rows, target_logits)
    start_batch[floating](&batch, rows, 0)
    set_maxima_of_columns(x, x_step, n, &batch)
    weigh_columns(x, x_step, n, &batch, targets, target_step, &coefficients, &distances)
    if is_index:
        add_classes(target_logits, n, operands, &batch, &distances)
    if keep:
        exponentials_and_sums_below_maxima(x, x_step, y, y_step, n, operands, &batch)
    else:
        sums_below_maxima(x, x_step, n, operands, &batch)
    distribution_outcomes[floating](
        &batch, &distances, operands, losses, scales, factor_hi, factor_lo, 0
    )
    if keep:
        if is_index:
            gather_targets(y, y_step, n, operands, rows, target_exponentials)
        scale_columns(y, y_step, n, batch.padded, factor_hi, factor_lo)
        subtract_from_columns(
            y, y_step, n, &batch, targets, target_step, &coefficients, scales
        )
        make_nans_alike(y, y_step, n, rows, losses)
    if is_index:
        finish_classes(
            y, y_step, n, operands, target_logits, target_exponentials, &batch, &distances,
            scales, losses, keep,
        )
    for r in range(rows):
        set_result[floating](operands, r, losses[r], 0)


# Functions of their own, so that none is inlined where it is called.

cdef void targets_loss_batch(
    const floating *x, Py_ssize_t x_step, floating *y, Py_ssize_t y_step, Py_ssize_t n,
    Py_ssize_t rows, const RowOperands *operands, const floating *targets, Py_ssize_t target_step
) noexcept nogil:
    distribution_batch(
        x, x_step, y, y_step, n, rows, operands, targets, target_step, False, False
    )


cdef void targets_grad_batch(
    const floating *x, Py_ssize_t x_step, floating *y, Py_ssize_t y_step, Py_ssize_t n,
    Py_ssize_t rows, const RowOperands *operands, const floating *targets, Py_ssize_t target_step
) noexcept nogil:
    distribution_batch(
        x, x_step, y, y_step, n, rows, operands, targets, target_step, False, True
    )


cdef void index_loss_batch(
    const floating *x, Py_ssize_t x_step, floating *y, Py_ssize_t y_step, Py_ssize_t n,
    Py_ssize_t rows, const RowOperands *operands
) noexcept nogil:
    distribution_batch(
        x, x_step, y, y_step, n, rows, operands, <const floating *> NULL, 0, True, False
    )


cdef void index_grad_batch(
    const floating *x, Py_ssize_t x_step, floating *y, Py_ssize_t y_step, Py_ssize_t n,
    Py_ssize_t rows, const RowOperands *operands
) noexcept nogil:
    distribution_batch(
        x, x_step, y, y_step, n, rows, operands, <const floating *> NULL, 0, True, True
    )


# A class index without smoothing: only its own weight w counts.
#
#     loss = w ((maximum - x_target) / T + log_sum),    gradient = w (p - onehot) / T

cdef inline double loss_of_class(
    double maximum, double logit, double temperature, Sum log_sum, double class_weight,
    floating type_tag
) noexcept nogil:
    """Of a row with a finite maximum. Free of branches."""
    cdef Sum distance, quotient, loss
    cdef double of_sums, plain
    if floating is float:    # a double has digits to spare
        plain = (maximum - logit) / temperature + (log_sum.hi + log_sum.lo)
        return value_or_zero(class_weight * plain, class_weight != 0)
    distance = two_sum(maximum * PER_DISTANCE_UNIT, -logit * PER_DISTANCE_UNIT)
    quotient.hi = distance.hi / temperature
    quotient.lo = exact_fma(-quotient.hi, temperature, distance.hi) + distance.lo
    quotient.lo = quotient.lo / temperature * DISTANCE_UNIT
    quotient.hi *= DISTANCE_UNIT
    loss = times(plus(quotient, log_sum), exactly(class_weight))
    of_sums = loss.hi + loss.lo
    # What is infinite has no errors to add.
    plain = class_weight * (quotient.hi + (log_sum.hi + log_sum.lo))
    return value_or_zero(of_sums if fabs(of_sums) < INFINITY else plain, class_weight != 0)


cdef inline Sum scale_of_class(double scale, double temperature) noexcept nogil:
    """scale / T; at the limits of T without the NaN that their reciprocals' errors are."""
    if scale == 0 or temperature == INFINITY and scale == scale:    # a mean over nothing is NaN
        return exactly(0)
    if temperature == 0:
        return exactly(scale * INFINITY)
    return times(exactly(scale), reciprocal(exactly(temperature)))


cdef inline Sum share_of_others(
    const Row *row, floating logit, floating exponential, Sum inverse
) noexcept nogil:
    """1 - p: the others' sum, if the class has the maximum; else the difference is as exact."""
    cdef Sum share = times(inverse, row.others)
    cdef double plain = 1.0 - exact_fma(exponential, inverse.hi, exponential * inverse.lo)
    cdef bint is_maximum = row.maximum_count == 1 and logit == row.maximum
    share.hi = share.hi if is_maximum else plain
    share.lo = share.lo if is_maximum else 0
    return share


cdef inline double grad_of_class_from(Sum share, Sum scale) noexcept nogil:
    """(p - 1) scale, 0 where p is 1, also if the scale is infinite: temperature 0."""
    cdef Sum product = times(share, scale)
    cdef double of_sums = product.hi + product.lo, plain = share.hi * scale.hi
    cdef bint counts = (share.hi != 0) | (scale.hi != scale.hi)    # a mean over nothing is NaN
    return 0 - value_or_zero(of_sums if fabs(of_sums) < INFINITY else plain, counts)


cdef void class_outcome(
    const Row *row, bint is_defined, const RowOperands *operands, npy_intp r, Outcome *outcome,
    floating type_tag
) noexcept nogil:
    cdef double class_weight, loss = NAN
    cdef floating logit = <floating> outcome.target_logit
    cdef Sum inverse, scale, share
    outcome.target_result = NAN
    if is_defined:
        class_weight = class_weight_of[floating](operands.loss, outcome.target, 0)
        loss = loss_of_class[floating](
            row.maximum, outcome.target_logit, outcome.temperature,
            log_sum_of_row[floating](row, 0), class_weight, 0,
        )
        inverse = reciprocal(sum_of_row(row))
        scale = scale_of_class(operands.loss.scale * class_weight, temperature_of(operands, r))
        outcome.factor = times(inverse, scale)
        share = share_of_others(
            row, logit, exponential(logit, &row.reduction, row.reduction.kind), inverse
        )
        outcome.target_result = grad_of_class_from(share, scale)
    set_result[floating](operands, r, loss, 0)


cdef inline void class_batch(
    const floating *x, Py_ssize_t x_step, floating *y, Py_ssize_t y_step, Py_ssize_t n,
    Py_ssize_t rows, const RowOperands *operands, bint keep
) noexcept nogil:
    cdef double class_weights[MAX_BATCH]
    cdef double temperatures[MAX_BATCH]
    cdef double losses[MAX_BATCH]
    cdef double factor_hi[MAX_BATCH]
    cdef double factor_lo[MAX_BATCH]
    cdef double of_targets[MAX_BATCH]
    cdef floating target_logits[MAX_BATCH]
    cdef floating target_exponentials[MAX_BATCH]
    cdef Batch batch
    cdef Sum inverse, scale, factor, share
    cdef double loss
    cdef Row row
    cdef Py_ssize_t r, i
    cdef int64_t targets[MAX_BATCH]
    for r in range(whole_lanes[floating](rows, 0)):
        temperatures[r] = temperature_of(operands, min(r, rows - 1))
        class_weights[r] = 1.0
        target_logits[r] = target_exponentials[r] = 0
    for r in range(rows):
        targets[r] = counted_target(operands, r, n)
        if targets[r] >= 0:
            target_logits[r] = x[targets[r] * x_step + r]
            class_weights[r] = class_weight_of[floating](operands.loss, targets[r], 0)
    start_batch[floating](&batch, rows, 0)
    set_maxima_of_columns(x, x_step, n, &batch)
    if keep:
        exponentials_and_sums_below_maxima(x, x_step, y, y_step, n, operands, &batch)
    else:
        sums_below_maxima(x, x_step, n, operands, &batch)
    for r in range(batch.padded):
        row = row_of(&batch, r)
        loss = loss_of_class[floating](
            row.maximum, target_logits[r], temperatures[r], log_sum_of_row[floating](&row, 0),
            class_weights[r], 0,
        )
        losses[r] = loss if is_finite(row.maximum) else NAN
    if keep:
        for r in range(rows):
            if targets[r] >= 0:
                target_exponentials[r] = y[targets[r] * y_step + r]
        for r in range(batch.padded):
            row = row_of(&batch, r)
            inverse = reciprocal(sum_of_row(&row))
            scale = times(
                exactly(operands.loss.scale * class_weights[r]),
                reciprocal(exactly(temperatures[r])),
            )
            factor = times(inverse, scale)
            factor_hi[r] = factor.hi if is_finite(row.maximum) else NAN
            factor_lo[r] = factor.lo
            share = share_of_others(&row, target_logits[r], target_exponentials[r], inverse)
            of_targets[r] = grad_of_class_from(share, scale)
        scale_columns(y, y_step, n, batch.padded, factor_hi, factor_lo)
        make_nans_alike(y, y_step, n, rows, losses)
    for r in range(rows):
        if targets[r] < 0:
            losses[r] = 0
            if keep:
                for i in range(n):
                    y[i * y_step + r] = 0
        elif keep and losses[r] == losses[r]:
            y[targets[r] * y_step + r] = <floating> of_targets[r]
        set_result[floating](operands, r, losses[r], 0)


cdef void class_loss_batch(
    const floating *x, Py_ssize_t x_step, floating *y, Py_ssize_t y_step, Py_ssize_t n,
    Py_ssize_t rows, const RowOperands *operands
) noexcept nogil:
    class_batch(x, x_step, y, y_step, n, rows, operands, False)


cdef void class_grad_batch(
    const floating *x, Py_ssize_t x_step, floating *y, Py_ssize_t y_step, Py_ssize_t n,
    Py_ssize_t rows, const RowOperands *operands
) noexcept nogil:
    class_batch(x, x_step, y, y_step, n, rows, operands, True)


# nll_loss: of log-probabilities, of which one is read.

cdef void pick_targets(
    const char *x, npy_intp x_stride, npy_intp class_stride, npy_intp n, npy_intp rows,
    const RowOperands *operands, floating type_tag
) noexcept nogil:
    cdef const LossTerms *loss = operands.loss
    cdef double picked, class_weight
    cdef int64_t target
    cdef npy_intp r
    for r in range(rows):
        target = counted_target(operands, r, n)
        if target < 0:
            set_result[floating](operands, r, 0, 0)
            continue
        picked = 0 - (<const floating *> (x + r * x_stride + target * class_stride))[0]
        class_weight = class_weight_of[floating](loss, target, 0)
        if class_weight == 0 and picked == INFINITY:    # what has the weight 0 doesn't count
            picked = 0
        set_result[floating](operands, r, picked * class_weight, 0)


# entropy = log_sum + sum_j p_j (maximum - x_j) / T

cdef inline Sum entropy_from(
    const Row *row, Sum weighted, double temperature, floating type_tag
) noexcept nogil:
    return plus(
        log_sum_of_row[floating](row, 0),
        over_temperature(times(weighted, reciprocal(sum_of_row(row))), temperature),
    )


cdef void entropy_outcome(
    const Row *row, bint is_defined, const RowOperands *operands, npy_intp r,
    const Outcome *outcome, floating type_tag
) noexcept nogil:
    cdef Sum entropy = exactly(NAN)
    if is_defined:
        entropy = entropy_from[floating](
            row, outcome.weighed.distances.weighted, outcome.temperature, 0
        )
    set_result[floating](operands, r, entropy.hi + entropy.lo, 0)


cdef inline void weigh_columns_by_exponentials(
    const floating *x, Py_ssize_t x_step, Py_ssize_t n, const Batch *batch, double *hi, double *lo,
    Kind kind
) noexcept nogil:
    """Exponentials are made again: to keep them, long columns would need memory."""
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef Py_ssize_t i, block, k, r
    cdef Reduction reduced
    cdef double tops[MAX_BATCH]
    for r in range(batch.padded):
        tops[r] = batch.maximum[r] * PER_DISTANCE_UNIT
        hi[r] = lo[r] = 0
    for i in range(n):
        for block in range(batch.padded // LANES):
            for k in range(LANES):
                r = block * LANES + k
                reduced = reduction_of(batch, r)
                add_product[floating](
                    hi + r, lo + r, exponential(x[i * x_step + r], &reduced, kind),
                    distance(tops[r], x[i * x_step + r]), 0,
                )


cdef void entropy_batch(
    const floating *x, Py_ssize_t x_step, floating *y, Py_ssize_t y_step, Py_ssize_t n,
    Py_ssize_t rows, const RowOperands *operands
) noexcept nogil:
    cdef double hi[MAX_BATCH]
    cdef double lo[MAX_BATCH]
    cdef double entropies[MAX_BATCH]
    cdef Batch batch
    cdef Row row
    cdef Sum weighted, entropy
    cdef double temperature
    cdef Py_ssize_t r
    start_batch[floating](&batch, rows, 0)
    sums_of_columns(x, x_step, n, operands, &batch)
    if batch.kind == UNSHIFTED:
        weigh_columns_by_exponentials(x, x_step, n, &batch, hi, lo, UNSHIFTED)
    elif batch.kind == SHIFTED:
        weigh_columns_by_exponentials(x, x_step, n, &batch, hi, lo, SHIFTED)
    else:
        weigh_columns_by_exponentials(x, x_step, n, &batch, hi, lo, TEMPERED)
    for r in range(batch.padded):
        temperature = temperature_of(operands, min(r, rows - 1))
        row = row_of(&batch, r)
        weighted.hi = hi[r]
        weighted.lo = lo[r]
        entropy = entropy_from[floating](&row, weighted, temperature, 0)
        entropies[r] = entropy.hi + entropy.lo if is_finite(row.maximum) else NAN
    for r in range(rows):
        set_result[floating](operands, r, entropies[r], 0)
