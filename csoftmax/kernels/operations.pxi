"""What each function does with rows.

x are logits; y, if there is one, results, which may be x itself. Nothing here can raise: what is
not defined becomes NaN, and arguments have been checked before.

A function consists of

- `_outcome`: from the sums of one row, its single result, and what its numbers are made of: a
  factor of the exponentials, or the logarithm of their sum;
- `_batch`: the same, and the numbers too, for a batch of rows side by side.
"""


cdef struct Weighed:
    # Of functions that weigh distances.
    Distances distances
    double scale            # of a gradient; unless at the end, it is in the factor
    bint scale_at_end


cdef struct Outcome:
    # Inputs: the temperature that the row was swept with; the target, and weighed distances.
    double temperature
    int64_t target
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


# softmax: y = softmax(x / temperature)

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
    if fabs(factor.hi) > largest:
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


cdef inline void softmax_outcome(
    const Row *row, bint is_defined, Outcome *outcome
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
    Py_ssize_t rows, const RowOperands *operands
) noexcept nogil:
    cdef double factor_hi[MAX_BATCH]
    cdef double factor_lo[MAX_BATCH]
    cdef Batch batch
    cdef Sum total, factor
    cdef Py_ssize_t r
    start_batch[floating](&batch, rows, 0)
    exponentials_of_columns(
        x, x_step, y, y_step, n, operands.temperature, operands.temperature_stride, &batch, True,
        False,
    )
    for r in range(batch.padded):
        total.hi = batch.others_hi[r]
        total.lo = batch.others_lo[r]
        factor = reciprocal(total)
        factor_hi[r] = factor.hi if is_finite(batch.maximum[r]) else NAN
        factor_lo[r] = factor.lo
    scale_columns(y, y_step, n, batch.padded, factor_hi, factor_lo)
    make_nans_alike(y, y_step, n, rows, factor_hi)


# log_softmax: y = log(softmax(x / temperature))

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


cdef void log_softmax_outcome(
    const Row *row, bint is_defined, Outcome *outcome, floating type_tag
) noexcept nogil:
    cdef Sum log_sum
    if is_defined:
        log_sum = log_sum_of_row[floating](row, 0)
        outcome.log_sum = log_sum.hi + log_sum.lo


# Not inline, as several functions share them: 13 KB that each would have. The batch is started once
# more, so that the compiler knows that its loops over `padded` are over whole vectors.

cdef void sums_below_maxima(
    const floating *x, Py_ssize_t x_step, Py_ssize_t n, const RowOperands *operands, Batch *batch
) noexcept nogil:
    cdef floating unused[FLOAT_LANES]
    start_batch[floating](batch, batch.rows, 0)
    exponentials_below_maxima(
        x, x_step, unused, 0, n, operands.temperature, operands.temperature_stride, batch, False,
        True,
    )


cdef void exponentials_and_sums_below_maxima(
    const floating *x, Py_ssize_t x_step, floating *e, Py_ssize_t e_step, Py_ssize_t n,
    const RowOperands *operands, Batch *batch
) noexcept nogil:
    start_batch[floating](batch, batch.rows, 0)
    exponentials_below_maxima(
        x, x_step, e, e_step, n, operands.temperature, operands.temperature_stride, batch, True,
        True,
    )


cdef inline void sums_of_columns(
    const floating *x, Py_ssize_t x_step, Py_ssize_t n, const RowOperands *operands, Batch *batch
) noexcept nogil:
    set_maxima_of_columns(x, x_step, n, batch)
    sums_below_maxima(x, x_step, n, operands, batch)


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
    Py_ssize_t rows, const RowOperands *operands
) noexcept nogil:
    cdef double log_sums[MAX_BATCH]
    cdef Batch batch
    start_batch[floating](&batch, rows, 0)
    sums_of_columns(x, x_step, n, operands, &batch)
    log_sums_of_batch[floating](&batch, log_sums, 0)
    if batch.kind == TEMPERED:
        write_columns_of_log_probabilities(x, x_step, y, y_step, n, &batch, log_sums, TEMPERED)
    else:
        write_columns_of_log_probabilities(x, x_step, y, y_step, n, &batch, log_sums, UNSHIFTED)
    make_nans_alike(y, y_step, n, rows, log_sums)


# logsumexp

cdef void logsumexp_outcome(
    const Row *row, bint is_defined, const RowOperands *operands, npy_intp r, floating type_tag
) noexcept nogil:
    """Where the maximum is not finite, it is the result."""
    cdef Sum log_sum = exactly(row.maximum)
    if is_defined:
        log_sum = plus(log_sum, log_sum_of_row[floating](row, 0))
    set_result[floating](operands, r, log_sum.hi + log_sum.lo, 0)


cdef void logsumexp_batch(
    const floating *x, Py_ssize_t x_step, floating *y, Py_ssize_t y_step, Py_ssize_t n,
    Py_ssize_t rows, const RowOperands *operands
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
            set_result[floating](operands, r, results[r], 0)
        elif has_nan(x + r, x_step, n):
            set_result[floating](operands, r, NAN, 0)
        else:
            set_result[floating](operands, r, batch.maximum[r], 0)
