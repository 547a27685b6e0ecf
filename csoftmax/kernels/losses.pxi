"""Losses whose coefficients are spread over the classes, and the entropy.

    loss = sum_j c_j (-log p_j),    its gradient = (S p_j - c_j) / T,    S = sum_j c_j

with c_j = class_weight_j (share target_j + offset): share = 1 - label_smoothing, offset =
label_smoothing / C. Where the target is a class index, target_j is 1 for that class and 0 for the
others, and a weight is added to the sums of the offsets.

Operands are temperature, share, offset and scale; then target and ignore_index if it is a class
index, else a row of targets; the class weights; the loss.
"""

cdef enum:
    TEMPERATURE, SHARE, OFFSET, SCALE
    TARGET, IGNORE_INDEX, WEIGHTS_BESIDE_INDEX, LOSS_OF_INDEX
    TARGETS = 4
    WEIGHTS_BESIDE_TARGETS, LOSS_OF_TARGETS


cdef inline double number_at(char **operands, int operand) noexcept nogil:
    return (<double *> operands[operand])[0]


cdef inline Coefficients coefficients_of(
    char **operands, const char *targets, const char *class_weights, bint is_index
) noexcept nogil:
    """Without the class that an index names."""
    cdef Coefficients coefficients
    coefficients.targets = class_weights if is_index else targets    # whatever is finite, times 0
    coefficients.class_weights = class_weights
    coefficients.share = 0.0 if is_index else number_at(operands, SHARE)
    coefficients.offset = number_at(operands, OFFSET)
    return coefficients


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
    return difference.hi * scale if difference.hi != 0 else 0


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


cdef inline void distribution_outcome(
    const Row *row, char **operands, floating *loss, Outcome *outcome
) noexcept nogil:
    cdef Sum log_sum = log_sum_of_row[floating](row, 0)
    cdef double temperature = number_at(operands, TEMPERATURE)
    cdef Sum exact_loss = loss_of(&outcome.weighed.distances, log_sum, temperature)
    loss[0] = <floating> (exact_loss.hi + exact_loss.lo)
    set_scale_of_grad(row, number_at(operands, SCALE) / temperature, outcome)


cdef void targets_outcome(
    const Row *row, bint is_defined, char **operands, Outcome *outcome, floating type_tag
) noexcept nogil:
    cdef floating *loss = <floating *> operands[LOSS_OF_TARGETS]
    loss[0] = NAN
    if is_defined:
        distribution_outcome(row, operands, loss, outcome)


cdef void index_outcome(
    const Row *row, bint is_defined, char **operands, Outcome *outcome, floating type_tag
) noexcept nogil:
    cdef int64_t target = (<int64_t *> operands[TARGET])[0]
    cdef floating *loss = <floating *> operands[LOSS_OF_INDEX]
    cdef double share = number_at(operands, SHARE), class_weight, exponential_of_target
    loss[0] = NAN
    outcome.target_result = NAN
    if not is_defined:
        return
    class_weight = (<const floating *> operands[WEIGHTS_BESIDE_INDEX])[target]
    add_class(
        &outcome.weighed.distances,
        times(exactly(share), exactly(class_weight)), row.maximum, outcome.target_logit,
    )
    distribution_outcome(row, operands, loss, outcome)
    exponential_of_target = exponential(
        <floating> outcome.target_logit, &row.reduction, row.reduction.kind
    )
    outcome.target_result = grad_of_class(
        row, outcome.target_logit, exponential_of_target, outcome.weighed.distances.weights,
        (share + number_at(operands, OFFSET)) * class_weight, outcome.weighed.scale,
    )


# Temperatures 0 and infinity.

cdef inline Sum coefficient_at(
    const Coefficients *coefficients, Py_ssize_t i, int64_t target, double share_of_target,
    floating type_tag
) noexcept nogil:
    cdef double class_weight = (<const floating *> coefficients.class_weights)[i]
    cdef Sum c = coefficient[floating](
        (<const floating *> coefficients.targets)[i], class_weight, coefficients.share,
        coefficients.offset, 0,
    )
    if i == target:
        c = plus(c, times(exactly(share_of_target), exactly(class_weight)))
    return c


cdef inline void distribution_limit(
    const floating *x, floating *y, Py_ssize_t n, char **operands,
    const Coefficients *coefficients, int64_t target, floating *loss
) noexcept nogil:
    """At T = inf the gradient is 0; at T = 0 a loss or gradient that isn't 0 is infinite."""
    cdef double temperature = number_at(operands, TEMPERATURE), share = number_at(operands, SHARE)
    cdef double not_chosen = 0, difference
    cdef Sum weights = exactly(0), chosen = exactly(0), c
    cdef Choice choice
    cdef Py_ssize_t i
    if not find_choice(x, n, temperature, &choice):
        loss[0] = NAN
        if y != NULL:
            fill(y, n, NAN)
        return
    for i in range(n):
        c = coefficient_at[floating](coefficients, i, target, share, 0)
        weights = plus(weights, c)
        if is_chosen(x[i], i, &choice):
            chosen = plus(chosen, c)
        elif c.hi != 0:
            not_chosen += c.hi * INFINITY
    chosen = times(chosen, log_1p(exactly(<double> (choice.count - 1))))
    loss[0] = <floating> (not_chosen + (chosen.hi + chosen.lo))
    if y == NULL:
        return
    for i in range(n):
        c = coefficient_at[floating](coefficients, i, target, share, 0)
        difference = weights.hi / <double> choice.count if is_chosen(x[i], i, &choice) else 0.0
        difference -= c.hi
        if difference != difference:
            y[i] = NAN
        elif temperature == INFINITY or difference == 0:
            y[i] = 0
        else:
            y[i] = <floating> (difference * number_at(operands, SCALE) * INFINITY)


cdef void targets_limit(
    const floating *x, floating *y, Py_ssize_t n, char **operands
) noexcept nogil:
    cdef Coefficients coefficients = coefficients_of(
        operands, operands[TARGETS], operands[WEIGHTS_BESIDE_TARGETS], False
    )
    distribution_limit(
        x, y, n, operands, &coefficients, -1, <floating *> operands[LOSS_OF_TARGETS]
    )


cdef void index_limit(
    const floating *x, floating *y, Py_ssize_t n, char **operands
) noexcept nogil:
    cdef Coefficients coefficients = coefficients_of(
        operands, NULL, operands[WEIGHTS_BESIDE_INDEX], True
    )
    distribution_limit(
        x, y, n, operands, &coefficients, (<int64_t *> operands[TARGET])[0],
        <floating *> operands[LOSS_OF_INDEX],
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
    const floating *target_logits, Py_ssize_t n, char **operands, const npy_intp *steps,
    const Batch *batch, ColumnDistances *distances
) noexcept nogil:
    cdef const floating *class_weights = <const floating *> operands[WEIGHTS_BESIDE_INDEX]
    cdef Distances of_row
    cdef Py_ssize_t r
    cdef int64_t target
    for r in range(batch.rows):
        target = (<int64_t *> (operands[TARGET] + r * steps[TARGET]))[0]
        if 0 <= target < n:
            of_row = distances_at(distances, r)
            add_class(
                &of_row,
                times(exactly(number_at(operands, SHARE)), exactly(class_weights[target])),
                batch.maximum[r], target_logits[r],
            )
            distances.weights_hi[r] = of_row.weights.hi
            distances.weights_lo[r] = of_row.weights.lo
            distances.weighted_hi[r] = of_row.weighted.hi
            distances.weighted_lo[r] = of_row.weighted.lo


cdef inline void distribution_outcomes(
    const Batch *batch, const ColumnDistances *distances, char **operands, const npy_intp *steps,
    double *losses, double *scales, double *factor_hi, double *factor_lo, floating type_tag
) noexcept nogil:
    cdef double temperature
    cdef Py_ssize_t r
    cdef Distances of_row
    cdef Sum log_sum, loss, factor
    cdef Row row
    for r in range(batch.padded):
        temperature = (<double *> (
            operands[TEMPERATURE] + min(r, batch.rows - 1) * steps[TEMPERATURE]
        ))[0]
        row = row_of(batch, r)
        of_row = distances_at(distances, r)
        log_sum = log_sum_of_row[floating](&row, 0)
        loss = loss_of(&of_row, log_sum, temperature)
        losses[r] = loss.hi + loss.lo if is_finite(row.maximum) else NAN
        scales[r] = number_at(operands, SCALE) / temperature
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
    floating *y, Py_ssize_t y_step, Py_ssize_t n, char **operands, const npy_intp *steps,
    const floating *target_logits, const floating *target_exponentials, const Batch *batch,
    const ColumnDistances *distances, const double *scales, double *losses, bint keep
) noexcept nogil:
    """What is ignored or no class, and the gradients of the classes."""
    cdef const floating *class_weights = <const floating *> operands[WEIGHTS_BESIDE_INDEX]
    cdef double share_of_target = number_at(operands, SHARE) + number_at(operands, OFFSET)
    cdef Distances of_row
    cdef Py_ssize_t r, i
    cdef int64_t target
    cdef double of_rest
    cdef Row row
    for r in range(batch.rows):
        target = (<int64_t *> (operands[TARGET] + r * steps[TARGET]))[0]
        if target == (<int64_t *> (operands[IGNORE_INDEX] + r * steps[IGNORE_INDEX]))[0]:
            losses[r] = 0
        elif not 0 <= target < n:
            losses[r] = NAN
        else:
            if keep and losses[r] == losses[r]:
                row = row_of(batch, r)
                of_row = distances_at(distances, r)
                y[target * y_step + r] = <floating> grad_of_class(
                    &row, target_logits[r], target_exponentials[r], of_row.weights,
                    share_of_target * class_weights[target], scales[r],
                )
            continue
        if keep:
            of_rest = losses[r]
            for i in range(n):
                y[i * y_step + r] = <floating> of_rest


cdef inline void distribution_batch(
    const floating *x, Py_ssize_t x_step, floating *y, Py_ssize_t y_step, Py_ssize_t n,
    Py_ssize_t rows, char **operands, const npy_intp *steps, const floating *targets,
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
    cdef int loss = LOSS_OF_INDEX if is_index else LOSS_OF_TARGETS
    cdef Coefficients coefficients = coefficients_of(
        operands, NULL, operands[WEIGHTS_BESIDE_INDEX if is_index else WEIGHTS_BESIDE_TARGETS],
        is_index,
    )
    cdef Batch batch
    cdef Py_ssize_t r
    if is_index:    # targets of which none counts
        memset(zeros, 0, sizeof(zeros))
        targets = zeros
        target_step = 0
        gather_targets(x, x_step, n, operands + TARGET, steps + TARGET, rows, target_logits)
    start_batch[floating](&batch, rows, 0)
    set_maxima_of_columns(x, x_step, n, &batch)
    weigh_columns(x, x_step, n, &batch, targets, target_step, &coefficients, &distances)
    if is_index:
        add_classes(target_logits, n, operands, steps, &batch, &distances)
    if keep:
        exponentials_and_sums_below_maxima(
            x, x_step, y, y_step, n, operands[TEMPERATURE], steps[TEMPERATURE], &batch
        )
    else:
        sums_below_maxima(x, x_step, n, operands[TEMPERATURE], steps[TEMPERATURE], &batch)
    distribution_outcomes[floating](
        &batch, &distances, operands, steps, losses, scales, factor_hi, factor_lo, 0
    )
    if keep:
        if is_index:
            gather_targets(
                y, y_step, n, operands + TARGET, steps + TARGET, rows, target_exponentials
            )
        scale_columns(y, y_step, n, batch.padded, factor_hi, factor_lo)
        subtract_from_columns(
            y, y_step, n, &batch, targets, target_step, &coefficients, scales
        )
        make_nans_alike(y, y_step, n, rows, losses)
    if is_index:
        finish_classes(
            y, y_step, n, operands, steps, target_logits, target_exponentials, &batch, &distances,
            scales, losses, keep,
        )
    for r in range(rows):
        (<floating *> (operands[loss] + r * steps[loss]))[0] = <floating> with_one_nan(losses[r])


cdef void targets_loss_batch(
    const floating *x, Py_ssize_t x_step, floating *y, Py_ssize_t y_step, Py_ssize_t n,
    Py_ssize_t rows, char **operands, const npy_intp *steps, const floating *targets,
    Py_ssize_t target_step
) noexcept nogil:
    distribution_batch(
        x, x_step, y, y_step, n, rows, operands, steps, targets, target_step, False, False
    )


cdef void targets_grad_batch(
    const floating *x, Py_ssize_t x_step, floating *y, Py_ssize_t y_step, Py_ssize_t n,
    Py_ssize_t rows, char **operands, const npy_intp *steps, const floating *targets,
    Py_ssize_t target_step
) noexcept nogil:
    distribution_batch(
        x, x_step, y, y_step, n, rows, operands, steps, targets, target_step, False, True
    )


cdef void index_loss_batch(
    const floating *x, Py_ssize_t x_step, floating *y, Py_ssize_t y_step, Py_ssize_t n,
    Py_ssize_t rows, char **operands, const npy_intp *steps
) noexcept nogil:
    distribution_batch(
        x, x_step, y, y_step, n, rows, operands, steps, <const floating *> NULL, 0, True, False
    )


cdef void index_grad_batch(
    const floating *x, Py_ssize_t x_step, floating *y, Py_ssize_t y_step, Py_ssize_t n,
    Py_ssize_t rows, char **operands, const npy_intp *steps
) noexcept nogil:
    distribution_batch(
        x, x_step, y, y_step, n, rows, operands, steps, <const floating *> NULL, 0, True, True
    )


# entropy = log_sum + sum_j p_j (maximum - x_j) / T; operands: temperature, the entropy

cdef inline Sum entropy_from(
    const Row *row, Sum weighted, double temperature, floating type_tag
) noexcept nogil:
    return plus(
        log_sum_of_row[floating](row, 0),
        over_temperature(times(weighted, reciprocal(sum_of_row(row))), temperature),
    )


cdef void entropy_outcome(
    const Row *row, bint is_defined, char **operands, Outcome *outcome, floating type_tag
) noexcept nogil:
    cdef Sum entropy = exactly(NAN)
    if is_defined:
        entropy = entropy_from[floating](
            row, outcome.weighed.distances.weighted, (<double *> operands[0])[0], 0
        )
    (<floating *> operands[1])[0] = <floating> (entropy.hi + entropy.lo)


cdef void entropy_limit(
    const floating *x, floating *y, Py_ssize_t n, char **operands
) noexcept nogil:
    cdef Choice choice
    cdef Sum log_count = exactly(NAN)
    if find_choice(x, n, (<double *> operands[0])[0], &choice):
        log_count = log_1p(exactly(<double> (choice.count - 1)))
    (<floating *> operands[1])[0] = <floating> (log_count.hi + log_count.lo)


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
    Py_ssize_t rows, char **operands, const npy_intp *steps
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
    sums_of_columns(x, x_step, n, operands[0], steps[0], &batch)
    if batch.kind == UNSHIFTED:
        weigh_columns_by_exponentials(x, x_step, n, &batch, hi, lo, UNSHIFTED)
    elif batch.kind == SHIFTED:
        weigh_columns_by_exponentials(x, x_step, n, &batch, hi, lo, SHIFTED)
    else:
        weigh_columns_by_exponentials(x, x_step, n, &batch, hi, lo, TEMPERED)
    for r in range(batch.padded):
        temperature = (<double *> (operands[0] + min(r, rows - 1) * steps[0]))[0]
        row = row_of(&batch, r)
        weighted.hi = hi[r]
        weighted.lo = lo[r]
        entropy = entropy_from[floating](&row, weighted, temperature, 0)
        entropies[r] = entropy.hi + entropy.lo if is_finite(row.maximum) else NAN
    for r in range(rows):
        (<floating *> (operands[1] + r * steps[1]))[0] = <floating> with_one_nan(entropies[r])
