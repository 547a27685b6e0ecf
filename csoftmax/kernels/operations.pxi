"""What each function does with rows.

x are logits; y, if there is one, results, which may be x itself. `operands` points to the single
numbers that belong to a row, in the order of the gufunc's signature, inputs before outputs. Nothing
here can raise: what is not defined becomes NaN, and the Python layer has raised before.

A function consists of

- `_outcome`: from the sums of one row, its single results, and what its numbers are made of: a
  factor of the exponentials, or the logarithm of their sum;
- `_batch`: the same, and the numbers too, for a batch of rows side by side;
- `_limit`: all of it for one row at temperature 0 or infinity.
"""


cdef struct Weighed:
    # Of functions that weigh distances.
    Distances distances
    double scale            # of a gradient; unless at the end, it is in the factor
    bint scale_at_end


cdef struct Outcome:
    # Inputs of functions that have a target, or weigh distances.
    double target_logit
    Weighed *weighed
    # Results, of which a function sets what it uses.
    Sum factor              # of exponentials that are in units of the row's 2^N
    double log_sum
    double target_result    # takes the place of the target's number


cdef inline void fill(floating *y, Py_ssize_t n, double value) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        y[i] = <floating> value


cdef inline double with_one_nan(double x) noexcept nogil:
    return x if x == x else NAN


cdef inline void make_nans_alike(
    floating *y, Py_ssize_t y_step, Py_ssize_t n, Py_ssize_t rows, const double *of_rows
) noexcept nogil:
    """In the columns of rows whose sum, or other outcome, is NaN.

    Which of two NaN an operation keeps depends on their order in an instruction, which differs
    between the copies that a compiler makes of a loop. A row's place in a batch chooses the copy,
    and the number of threads its place."""
    cdef Py_ssize_t i, r
    cdef bint is_nan = False
    for r in range(rows):    # without a branch, as nearly always there is none
        is_nan |= of_rows[r] != of_rows[r]
    if not is_nan:
        return
    for r in range(rows):
        if of_rows[r] != of_rows[r]:
            for i in range(n):
                if y[i * y_step + r] != y[i * y_step + r]:
                    y[i * y_step + r] = NAN


cdef inline bint is_finite(double x) noexcept nogil:
    return fabs(x) < INFINITY


# Temperatures 0 and infinity: a uniform choice among some classes, for 0 the first maximum alone.

cdef struct Choice:
    bint is_first_maximum
    Py_ssize_t first_maximum
    Py_ssize_t count


cdef inline bint is_limit(double temperature) noexcept nogil:
    return temperature == 0 or temperature == INFINITY


cdef inline bint find_choice(
    const floating *x, Py_ssize_t n, double temperature, Choice *choice
) noexcept nogil:
    """False where the softmax is NaN: a NaN, an infinite maximum, or -inf alone."""
    cdef Py_ssize_t i, finite = 0
    if n == 0:
        return False
    choice.is_first_maximum = temperature == 0
    choice.first_maximum = 0
    for i in range(n):
        if x[i] != x[i]:
            return False
        if x[i] > x[choice.first_maximum]:
            choice.first_maximum = i
        finite += x[i] > -INFINITY
    choice.count = 1 if choice.is_first_maximum else finite
    return is_finite(x[choice.first_maximum])


cdef inline bint is_chosen(floating x, Py_ssize_t i, const Choice *choice) noexcept nogil:
    return i == choice.first_maximum if choice.is_first_maximum else x > -INFINITY


# softmax: y = softmax(x / temperature); operands: temperature

cdef inline void scale(
    const floating *e, floating *y, Py_ssize_t n, Sum factor
) noexcept nogil:
    """y = e * factor, rounded once (with FMA): a rounded factor would cost another half ULP."""
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef floating hi = <floating> factor.hi
    cdef floating lo = <floating> (factor.hi - hi if floating is float else factor.lo)
    cdef floating last[FLOAT_LANES]
    cdef floating values[FLOAT_LANES]
    cdef Py_ssize_t i, k
    if n < LANES:
        for i in range(n):
            y[i] = multiply_add(e[i], hi, e[i] * lo)
        return
    for k in range(LANES):    # first, for the last step overlaps the one before, and y may be e
        last[k] = multiply_add(e[n - LANES + k], hi, e[n - LANES + k] * lo)
    for i in range(n // LANES):
        for k in range(LANES):
            values[k] = multiply_add(e[k], hi, e[k] * lo)
        for k in range(LANES):
            y[k] = values[k]
        y += LANES
        e += LANES
    y += n % LANES - LANES
    for k in range(LANES):
        y[k] = last[k]


cdef inline void scale_far(
    const floating *e, floating *y, Py_ssize_t n, Sum factor, Sum ratio, double power
) noexcept nogil:
    """y = e * factor * ratio * 2^power, also where a factor is beyond the type but a result is not.

    A factor is infinite where 1 / T is: 0 stays 0 then.
    """
    cdef double largest = FLT_MAX if floating is float else DBL_MAX
    cdef double lowest = -250 if floating is float else -2000
    cdef floating half_power, other_half, value
    cdef floating hi, lo
    cdef Py_ssize_t i
    if factor.hi > largest:
        for i in range(n):
            y[i] = <floating> factor.hi if e[i] > 0 and power > lowest else 0
        return
    factor = times(factor, ratio)
    if power >= -60:
        scale(e, y, n, times(factor, exactly(power_of_two(power))))
        return
    power = max(power, lowest)    # far enough for hi and lo to lose digits
    half_power = <floating> power_of_two(floor(power / 2))
    other_half = <floating> power_of_two(power - floor(power / 2))
    hi = <floating> factor.hi
    lo = <floating> (factor.hi - hi if floating is float else factor.lo)
    for i in range(n):
        value = e[i] * half_power * other_half
        y[i] = multiply_add(value, hi, value * lo)


cdef void softmax_limit(
    const floating *x, floating *y, Py_ssize_t n, char **operands
) noexcept nogil:
    cdef double temperature = (<double *> operands[0])[0]
    cdef Choice choice
    cdef Py_ssize_t i
    if not find_choice(x, n, temperature, &choice):
        fill(y, n, NAN)
        return
    for i in range(n):
        y[i] = 1.0 / <double> choice.count if is_chosen(x[i], i, &choice) else 0.0


cdef void softmax_outcome(
    const Row *row, bint is_defined, char **operands, Outcome *outcome, floating type_tag
) noexcept nogil:
    if is_defined:
        outcome.factor = reciprocal(sum_of_row(row))


cdef inline void scale_columns(
    floating *e, Py_ssize_t step, Py_ssize_t n, Py_ssize_t rows, const double *factor_hi,
    const double *factor_lo
) noexcept nogil:
    """As scale, in place."""
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef floating hi[MAX_BATCH]
    cdef floating lo[MAX_BATCH]
    cdef floating value
    cdef Py_ssize_t i, r, k, block
    for r in range(rows):
        hi[r] = <floating> factor_hi[r]
        lo[r] = <floating> (factor_hi[r] - hi[r] if floating is float else factor_lo[r])
    for i in range(n):
        for block in range(rows // LANES):
            r = block * LANES
            for k in range(LANES):
                value = e[r + k]
                e[r + k] = multiply_add(value, hi[r + k], value * lo[r + k])
        e += step


cdef void softmax_batch(
    const floating *x, Py_ssize_t x_step, floating *y, Py_ssize_t y_step, Py_ssize_t n,
    Py_ssize_t rows, char **operands, const npy_intp *steps
) noexcept nogil:
    cdef double factor_hi[MAX_BATCH]
    cdef double factor_lo[MAX_BATCH]
    cdef Batch batch
    cdef Sum total, factor
    cdef Py_ssize_t r
    start_batch[floating](&batch, rows, 0)
    exponentials_of_columns(
        x, x_step, y, y_step, n, operands[0], steps[0], &batch, True, False
    )
    for r in range(batch.padded):
        total.hi = batch.others_hi[r]
        total.lo = batch.others_lo[r]
        factor = reciprocal(total)
        factor_hi[r] = factor.hi if is_finite(batch.maximum[r]) else NAN
        factor_lo[r] = factor.lo
    scale_columns(y, y_step, n, batch.padded, factor_hi, factor_lo)
    make_nans_alike(y, y_step, n, rows, factor_hi)


# log_softmax: y = log(softmax(x / temperature)); operands: temperature

cdef inline floating log_probability(
    floating x, const Row *row, double log_sum, Kind kind
) noexcept nogil:
    """(x - maximum) / T - log_sum: two terms of one sign, so nothing cancels."""
    cdef floating z, low, small = <floating> -log_sum
    if kind != TEMPERED:
        return (x - <floating> row.maximum) + small
    z = multiply_add(
        x, <floating> row.reduction.scale_before,
        -<floating> (row.maximum * row.reduction.scale_before),
    )
    z = z * <floating> row.reduction.scale_after
    low = multiply_add(z, <floating> row.reduction.inverse_lo, small)
    if fabs(low) < INFINITY:    # else so is the result, and infinities of two signs would be NaN
        small = low
    return multiply_add(z, <floating> row.reduction.inverse_hi, small)


cdef inline void write_log_probabilities(
    const floating *x, floating *y, Py_ssize_t n, const Row *row, double log_sum, Kind kind
) noexcept nogil:
    cdef Py_ssize_t i
    if x == y:    # a loop of its own, for the compiler makes vectors of distinct arrays or of one
        for i in range(n):
            y[i] = log_probability(y[i], row, log_sum, kind)
    else:
        for i in range(n):
            y[i] = log_probability(x[i], row, log_sum, kind)


cdef void log_softmax_limit(
    const floating *x, floating *y, Py_ssize_t n, char **operands
) noexcept nogil:
    cdef double temperature = (<double *> operands[0])[0]
    cdef Choice choice
    cdef Sum log_count
    cdef Py_ssize_t i
    if not find_choice(x, n, temperature, &choice):
        fill(y, n, NAN)
        return
    log_count = log_1p(exactly(<double> (choice.count - 1)))
    for i in range(n):
        y[i] = 0.0 - (log_count.hi + log_count.lo) if is_chosen(x[i], i, &choice) else -INFINITY


cdef void log_softmax_outcome(
    const Row *row, bint is_defined, char **operands, Outcome *outcome, floating type_tag
) noexcept nogil:
    cdef Sum log_sum
    if is_defined:
        log_sum = log_sum_of_row[floating](row, 0)
        outcome.log_sum = log_sum.hi + log_sum.lo


# Not inline, as several functions share them: 13 KB that each would have. The batch is started once
# more, so that the compiler knows that its loops over `padded` are over whole vectors.

cdef void sums_below_maxima(
    const floating *x, Py_ssize_t x_step, Py_ssize_t n, const char *temperatures,
    Py_ssize_t temperature_step, Batch *batch
) noexcept nogil:
    cdef floating unused[FLOAT_LANES]
    start_batch[floating](batch, batch.rows, 0)
    exponentials_below_maxima(
        x, x_step, unused, 0, n, temperatures, temperature_step, batch, False, True
    )


cdef void exponentials_and_sums_below_maxima(
    const floating *x, Py_ssize_t x_step, floating *e, Py_ssize_t e_step, Py_ssize_t n,
    const char *temperatures, Py_ssize_t temperature_step, Batch *batch
) noexcept nogil:
    start_batch[floating](batch, batch.rows, 0)
    exponentials_below_maxima(
        x, x_step, e, e_step, n, temperatures, temperature_step, batch, True, True
    )


cdef inline void sums_of_columns(
    const floating *x, Py_ssize_t x_step, Py_ssize_t n, const char *temperatures,
    Py_ssize_t temperature_step, Batch *batch
) noexcept nogil:
    set_maxima_of_columns(x, x_step, n, batch)
    sums_below_maxima(x, x_step, n, temperatures, temperature_step, batch)


cdef inline void log_sums_of_batch(
    const Batch *batch, double *log_sums, floating type_tag
) noexcept nogil:
    cdef Py_ssize_t r
    cdef Row row
    cdef Sum log_sum
    for r in range(batch.padded):
        row = row_of(batch, r)
        log_sum = log_sum_of_row[floating](&row, 0)
        log_sums[r] = log_sum.hi + log_sum.lo if is_finite(row.maximum) else NAN


cdef inline void write_columns_of_log_probabilities(
    const floating *x, Py_ssize_t x_step, floating *y, Py_ssize_t y_step, Py_ssize_t n,
    const Batch *batch, const double *log_sums, Kind kind
) noexcept nogil:
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef floating values[FLOAT_LANES]
    cdef floating maximum[MAX_BATCH]
    cdef floating log_sum[MAX_BATCH]
    cdef Py_ssize_t i, k, block
    cdef Row row
    for k in range(batch.padded):
        maximum[k] = batch.maximum[k]
        log_sum[k] = log_sums[k]
    for i in range(n):
        for block in range(batch.padded // LANES):
            for k in range(LANES):
                row = row_of(batch, block * LANES + k)
                row.maximum = maximum[block * LANES + k]
                values[k] = log_probability(
                    x[block * LANES + k], &row, log_sum[block * LANES + k], kind
                )
            for k in range(LANES):
                y[block * LANES + k] = values[k]
        x += x_step
        y += y_step


cdef void log_softmax_batch(
    const floating *x, Py_ssize_t x_step, floating *y, Py_ssize_t y_step, Py_ssize_t n,
    Py_ssize_t rows, char **operands, const npy_intp *steps
) noexcept nogil:
    cdef double log_sums[MAX_BATCH]
    cdef Batch batch
    start_batch[floating](&batch, rows, 0)
    sums_of_columns(x, x_step, n, operands[0], steps[0], &batch)
    log_sums_of_batch[floating](&batch, log_sums, 0)
    if batch.kind == TEMPERED:
        write_columns_of_log_probabilities(x, x_step, y, y_step, n, &batch, log_sums, TEMPERED)
    else:
        write_columns_of_log_probabilities(x, x_step, y, y_step, n, &batch, log_sums, UNSHIFTED)
    make_nans_alike(y, y_step, n, rows, log_sums)


# logsumexp; operands: the result

cdef void logsumexp_outcome(
    const Row *row, bint is_defined, char **operands, Outcome *outcome, floating type_tag
) noexcept nogil:
    """Where the maximum is not finite, it is the result: of an empty row too."""
    cdef Sum log_sum = exactly(row.maximum)
    if is_defined:
        log_sum = plus(log_sum, log_sum_of_row[floating](row, 0))
    (<floating *> operands[0])[0] = <floating> (log_sum.hi + log_sum.lo)


cdef void logsumexp_batch(
    const floating *x, Py_ssize_t x_step, floating *y, Py_ssize_t y_step, Py_ssize_t n,
    Py_ssize_t rows, char **operands, const npy_intp *steps
) noexcept nogil:
    cdef double one = 1.0
    cdef double results[MAX_BATCH]
    cdef floating unused[FLOAT_LANES]
    cdef Batch batch
    cdef Row row
    cdef Sum log_sum
    cdef Py_ssize_t r
    start_batch[floating](&batch, rows, 0)
    # Without the code for temperatures, which sums_of_columns has: in float64 a quarter of the time.
    exponentials_of_columns(
        x, x_step, unused, 0, n, <const char *> &one, 0, &batch, False, True
    )
    for r in range(batch.padded):
        row = row_of(&batch, r)
        log_sum = log_sum_of_row[floating](&row, 0)
        log_sum = plus(exactly(row.maximum), log_sum)
        results[r] = log_sum.hi + log_sum.lo
    for r in range(rows):
        if is_finite(batch.maximum[r]):
            (<floating *> (operands[0] + r * steps[0]))[0] = <floating> with_one_nan(results[r])
        elif has_nan(x + r, x_step, n):
            (<floating *> (operands[0] + r * steps[0]))[0] = NAN
        else:
            (<floating *> (operands[0] + r * steps[0]))[0] = batch.maximum[r]


# with a mask; operands: mask, the result

cdef void masked_logsumexp_outcome(
    const Row *row, bint is_defined, char **operands, Outcome *outcome, floating type_tag
) noexcept nogil:
    logsumexp_outcome[floating](row, is_defined, operands + 1, outcome, 0)


cdef void masked_logsumexp_batch(
    const floating *x, Py_ssize_t x_step, floating *y, Py_ssize_t y_step, Py_ssize_t n,
    Py_ssize_t rows, char **operands, const npy_intp *steps
) noexcept nogil:
    logsumexp_batch(x, x_step, y, y_step, n, rows, operands + 1, steps + 1)


# cross_entropy; operands: target, ignore_index, temperature, the loss

cdef inline floating limit_loss(
    const floating *x, Py_ssize_t n, int64_t target, double temperature
) noexcept nogil:
    cdef Choice choice
    cdef Sum log_count
    if not find_choice(x, n, temperature, &choice):
        return NAN
    if not is_chosen(x[target], target, &choice):
        return INFINITY
    log_count = log_1p(exactly(<double> (choice.count - 1)))
    return log_count.hi + log_count.lo


cdef void cross_entropy_limit(
    const floating *x, floating *y, Py_ssize_t n, char **operands
) noexcept nogil:
    (<floating *> operands[3])[0] = limit_loss(
        x, n, (<int64_t *> operands[0])[0], (<double *> operands[2])[0]
    )


cdef inline floating loss_of_row(
    const Row *row, bint is_defined, const Outcome *outcome, floating type_tag
) noexcept nogil:
    cdef Sum log_sum
    if not is_defined:
        return NAN
    log_sum = log_sum_of_row[floating](row, 0)
    return 0 - log_probability(
        <floating> outcome.target_logit, row, log_sum.hi + log_sum.lo, row.reduction.kind
    )


cdef void cross_entropy_outcome(
    const Row *row, bint is_defined, char **operands, Outcome *outcome, floating type_tag
) noexcept nogil:
    (<floating *> operands[3])[0] = loss_of_row[floating](row, is_defined, outcome, 0)


cdef inline void losses_of_kind(
    const floating *target_logits, const Batch *batch, const double *log_sums, double *losses,
    Kind kind
) noexcept nogil:
    cdef Py_ssize_t r
    cdef Row row
    for r in range(batch.rows):
        row = row_of(batch, r)
        losses[r] = 0 - log_probability(target_logits[r], &row, log_sums[r], kind)


cdef inline void losses_of_batch(
    const floating *target_logits, Py_ssize_t n, char **operands, const npy_intp *steps,
    const Batch *batch, double *losses
) noexcept nogil:
    """-log of the probabilities of the targets; operands begin with target and ignore_index."""
    cdef double log_sums[MAX_BATCH]
    cdef Py_ssize_t r
    cdef int64_t target
    log_sums_of_batch[floating](batch, log_sums, 0)
    if batch.kind == TEMPERED:
        losses_of_kind(target_logits, batch, log_sums, losses, TEMPERED)
    else:
        losses_of_kind(target_logits, batch, log_sums, losses, UNSHIFTED)
    for r in range(batch.rows):
        target = (<int64_t *> (operands[0] + r * steps[0]))[0]
        if target == (<int64_t *> (operands[1] + r * steps[1]))[0]:
            losses[r] = 0
        elif not 0 <= target < n:
            losses[r] = NAN


cdef inline void gather_targets(
    const floating *x, Py_ssize_t x_step, Py_ssize_t n, char **operands, const npy_intp *steps,
    Py_ssize_t rows, floating *of_targets
) noexcept nogil:
    cdef Py_ssize_t r
    cdef int64_t target
    for r in range(rows):
        target = (<int64_t *> (operands[0] + r * steps[0]))[0]
        of_targets[r] = x[target * x_step + r] if 0 <= target < n else 0


cdef void cross_entropy_batch(
    const floating *x, Py_ssize_t x_step, floating *y, Py_ssize_t y_step, Py_ssize_t n,
    Py_ssize_t rows, char **operands, const npy_intp *steps
) noexcept nogil:
    cdef floating target_logits[MAX_BATCH]
    cdef double losses[MAX_BATCH]
    cdef Batch batch
    cdef Py_ssize_t r
    start_batch[floating](&batch, rows, 0)
    gather_targets(x, x_step, n, operands, steps, rows, target_logits)
    sums_of_columns(x, x_step, n, operands[2], steps[2], &batch)
    losses_of_batch(target_logits, n, operands, steps, &batch, losses)
    for r in range(rows):
        (<floating *> (operands[3] + r * steps[3]))[0] = <floating> with_one_nan(losses[r])


# cross_entropy_value_and_grad; operands: target, ignore_index, temperature, weight, the loss.
# y is the gradient of weight * loss.

cdef void cross_entropy_value_and_grad_limit(
    const floating *x, floating *y, Py_ssize_t n, char **operands
) noexcept nogil:
    """(p - onehot) / T: 0 for T = inf; for T = 0 the limit, 0 where p is right, else infinite."""
    cdef int64_t target = (<int64_t *> operands[0])[0]
    cdef double temperature = (<double *> operands[2])[0]
    cdef double weight = (<double *> operands[3])[0]
    cdef floating *loss = <floating *> operands[4]
    cdef Choice choice
    cdef double p
    cdef Py_ssize_t i
    if not find_choice(x, n, temperature, &choice):
        loss[0] = NAN
        fill(y, n, NAN)
        return
    loss[0] = limit_loss(x, n, target, temperature)
    for i in range(n):
        p = is_chosen(x[i], i, &choice)
        y[i] = 0.0 if temperature == INFINITY or p == (i == target) or weight == 0 else (
            (p - (i == target)) * weight * INFINITY
        )


cdef inline floating grad_of_target(
    const Row *row, floating logit, floating exponential, Sum inverse, Sum scale_of_loss
) noexcept nogil:
    """p - 1, scaled. 1 - p is the share of the others; else the difference is as exact."""
    cdef Sum share
    if row.maximum_count == 1 and logit == row.maximum:
        share = times(inverse, row.others)
    else:
        share.hi = 1.0 - exact_fma(exponential, inverse.hi, exponential * inverse.lo)
        share.lo = 0
    if share.hi + share.lo == 0:
        return 0
    if not is_finite(scale_of_loss.lo):
        return -INFINITY * (share.hi + share.lo)    # NaN of NaN
    share = times(share, scale_of_loss)
    return -(share.hi + share.lo)


cdef void cross_entropy_value_and_grad_outcome(
    const Row *row, bint is_defined, char **operands, Outcome *outcome, floating type_tag
) noexcept nogil:
    cdef double temperature = (<double *> operands[2])[0]
    cdef double weight = (<double *> operands[3])[0]
    cdef Sum inverse, scale_of_loss
    cdef floating target_exponential
    (<floating *> operands[4])[0] = loss_of_row[floating](row, is_defined, outcome, 0)
    outcome.target_result = NAN
    if not is_defined:
        return
    inverse = reciprocal(sum_of_row(row))
    scale_of_loss = times(exactly(weight), reciprocal(exactly(temperature)))
    outcome.factor = times(inverse, scale_of_loss)
    target_exponential = exponential(
        <floating> outcome.target_logit, &row.reduction, row.reduction.kind
    )
    outcome.target_result = grad_of_target(
        row, <floating> outcome.target_logit, target_exponential, inverse, scale_of_loss
    )


cdef void cross_entropy_value_and_grad_batch(
    const floating *x, Py_ssize_t x_step, floating *y, Py_ssize_t y_step, Py_ssize_t n,
    Py_ssize_t rows, char **operands, const npy_intp *steps
) noexcept nogil:
    cdef floating target_logits[MAX_BATCH]
    cdef floating target_exponentials[MAX_BATCH]
    cdef double losses[MAX_BATCH]
    cdef double factor_hi[MAX_BATCH]
    cdef double factor_lo[MAX_BATCH]
    cdef double inverse_hi[MAX_BATCH]
    cdef double inverse_lo[MAX_BATCH]
    cdef double scale_hi[MAX_BATCH]
    cdef double scale_lo[MAX_BATCH]
    cdef double temperature, weight
    cdef Sum inverse, scale_of_loss, factor
    cdef Py_ssize_t r, i
    cdef int64_t target
    cdef Batch batch
    cdef Row row
    start_batch[floating](&batch, rows, 0)
    gather_targets(x, x_step, n, operands, steps, rows, target_logits)
    set_maxima_of_columns(x, x_step, n, &batch)
    exponentials_and_sums_below_maxima(
        x, x_step, y, y_step, n, operands[2], steps[2], &batch
    )
    gather_targets(y, y_step, n, operands, steps, rows, target_exponentials)
    losses_of_batch(target_logits, n, operands, steps, &batch, losses)
    for r in range(batch.padded):
        temperature = (<double *> (operands[2] + min(r, rows - 1) * steps[2]))[0]
        weight = (<double *> (operands[3] + min(r, rows - 1) * steps[3]))[0]
        row = row_of(&batch, r)
        inverse = reciprocal(sum_of_row(&row))
        scale_of_loss = times(exactly(weight), reciprocal(exactly(temperature)))
        factor = times(inverse, scale_of_loss)
        factor_hi[r] = factor.hi if r < rows and losses[r] == losses[r] else NAN
        factor_lo[r] = factor.lo
        inverse_hi[r] = inverse.hi
        inverse_lo[r] = inverse.lo
        scale_hi[r] = scale_of_loss.hi
        scale_lo[r] = scale_of_loss.lo
    scale_columns(y, y_step, n, batch.padded, factor_hi, factor_lo)
    make_nans_alike(y, y_step, n, rows, losses)
    for r in range(rows):
        (<floating *> (operands[4] + r * steps[4]))[0] = <floating> with_one_nan(losses[r])
        target = (<int64_t *> (operands[0] + r * steps[0]))[0]
        if target == (<int64_t *> (operands[1] + r * steps[1]))[0]:
            for i in range(n):
                y[i * y_step + r] = 0
        elif losses[r] == losses[r]:
            row = row_of(&batch, r)
            inverse.hi = inverse_hi[r]
            inverse.lo = inverse_lo[r]
            scale_of_loss.hi = scale_hi[r]
            scale_of_loss.lo = scale_lo[r]
            y[target * y_step + r] = grad_of_target(
                &row, target_logits[r], target_exponentials[r], inverse, scale_of_loss
            )
