"""What each function does with one row.

x are its n contiguous logits; y, if there is one, its n contiguous results, which may be x itself.
`operands` points to the single numbers that belong to the row, in the order of the gufunc's
signature, inputs before outputs. A row function can't raise: what is not defined becomes NaN, and
the Python layer has raised before.
"""


cdef inline void fill(floating *y, Py_ssize_t n, double value) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        y[i] = <floating> value


cdef inline bint is_finite(double x) noexcept nogil:
    return fabs(x) < INFINITY


cdef inline bint all_exponentials(
    const floating *x, floating *e, floating *y, Py_ssize_t n, double temperature, Row *row
) noexcept nogil:
    """Exponentials to e or y, in one sweep where that will do. False: the softmax is NaN."""
    if temperature == 1.0 and fits_chunk[floating](n, 0):
        if exponentials_in_one_sweep(x, e, y, n, row):
            return True
    return exponentials(x, e, y, n, temperature, row)


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
    cdef floating hi = <floating> factor.hi
    cdef floating lo = <floating> (factor.hi - hi if floating is float else factor.lo)
    cdef Py_ssize_t i
    for i in range(n):
        y[i] = multiply_add(e[i], hi, e[i] * lo)


cdef void softmax_limit_row(
    const floating *x, floating *y, Py_ssize_t n, double temperature
) noexcept nogil:
    cdef Choice choice
    cdef Py_ssize_t i
    if not find_choice(x, n, temperature, &choice):
        fill(y, n, NAN)
        return
    for i in range(n):
        y[i] = 1.0 / <double> choice.count if is_chosen(x[i], i, &choice) else 0.0


cdef void softmax_row(
    const floating *x, floating *y, Py_ssize_t n, char **operands
) noexcept nogil:
    cdef double temperature = (<double *> operands[0])[0]
    cdef floating e[FLOAT_CHUNK]
    cdef Sum factor
    cdef Row row
    if is_limit(temperature):
        softmax_limit_row(x, y, n, temperature)
        return
    if not (temperature > 0 and all_exponentials(x, e, y, n, temperature, &row)):
        fill(y, n, NAN)
        return
    factor = reciprocal(sum_of_row(&row))
    if fits_chunk[floating](n, 0):
        scale(e, y, n, factor)
    else:
        scale(y, y, n, factor)


# log_softmax: y = log(softmax(x / temperature)); operands: temperature

cdef inline bint log_sum_exp(
    const floating *x, floating *y, Py_ssize_t n, double temperature, Row *row, Sum *log_sum
) noexcept nogil:
    """log_sum = log(sum(exp((x - maximum) / temperature))). False: it is NaN."""
    cdef floating e[FLOAT_CHUNK]
    if not fits_chunk[floating](n, 0):
        y = NULL    # no use for the exponentials
    if not all_exponentials(x, e, y, n, temperature, row):
        return False
    log_sum[0] = log_sum_of_row(row)
    return True


cdef inline floating log_probability(
    floating x, const Row *row, double log_sum, Kind kind
) noexcept nogil:
    """(x - maximum) / T - log_sum: two terms of one sign, so nothing cancels."""
    cdef floating z, small = <floating> -log_sum
    if kind != TEMPERED:
        return (x - <floating> row.maximum) + small
    z = multiply_add(
        x, <floating> row.reduction.scale_before,
        -<floating> (row.maximum * row.reduction.scale_before),
    )
    z = z * <floating> row.reduction.scale_after
    if z > -INFINITY:    # infinity times a low part of 0 would be NaN
        small = multiply_add(z, <floating> row.reduction.inverse_lo, small)
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


cdef void log_softmax_limit_row(
    const floating *x, floating *y, Py_ssize_t n, double temperature
) noexcept nogil:
    cdef Choice choice
    cdef Sum log_count
    cdef Py_ssize_t i
    if not find_choice(x, n, temperature, &choice):
        fill(y, n, NAN)
        return
    log_count = log_1p(exactly(<double> (choice.count - 1)))
    for i in range(n):
        y[i] = 0.0 - (log_count.hi + log_count.lo) if is_chosen(x[i], i, &choice) else -INFINITY


cdef void log_softmax_row(
    const floating *x, floating *y, Py_ssize_t n, char **operands
) noexcept nogil:
    cdef double temperature = (<double *> operands[0])[0]
    cdef Sum log_sum
    cdef Row row
    if is_limit(temperature):
        log_softmax_limit_row(x, y, n, temperature)
    elif not (temperature > 0 and log_sum_exp(x, y, n, temperature, &row, &log_sum)):
        fill(y, n, NAN)
    elif row.reduction.kind == TEMPERED:
        write_log_probabilities(x, y, n, &row, log_sum.hi + log_sum.lo, TEMPERED)
    else:
        write_log_probabilities(x, y, n, &row, log_sum.hi + log_sum.lo, UNSHIFTED)


# logsumexp; operands: the result

cdef inline bint has_nan(const floating *x, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        if x[i] != x[i]:
            return True
    return False


cdef void logsumexp_row(
    const floating *x, floating *y, Py_ssize_t n, char **operands
) noexcept nogil:
    cdef floating *result = <floating *> operands[0]
    cdef Sum log_sum
    cdef Row row
    if n == 0:
        result[0] = -INFINITY
    elif log_sum_exp[floating](x, NULL, n, 1.0, &row, &log_sum):
        log_sum = plus(exactly(row.maximum), log_sum)
        result[0] = <floating> (log_sum.hi + log_sum.lo)
    elif has_nan(x, n):
        result[0] = NAN
    else:
        result[0] = <floating> row.maximum


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


cdef void cross_entropy_row(
    const floating *x, floating *y, Py_ssize_t n, char **operands
) noexcept nogil:
    cdef int64_t target = (<int64_t *> operands[0])[0]
    cdef int64_t ignore_index = (<int64_t *> operands[1])[0]
    cdef double temperature = (<double *> operands[2])[0]
    cdef floating *loss = <floating *> operands[3]
    cdef Sum log_sum
    cdef Row row
    if target == ignore_index:
        loss[0] = 0
    elif not 0 <= target < n:
        loss[0] = NAN
    elif is_limit(temperature):
        loss[0] = limit_loss(x, n, target, temperature)
    elif temperature > 0 and log_sum_exp[floating](x, NULL, n, temperature, &row, &log_sum):
        loss[0] = 0 - log_probability(
            x[target], &row, log_sum.hi + log_sum.lo, row.reduction.kind
        )
    else:
        loss[0] = NAN


# cross_entropy_value_and_grad; operands: target, ignore_index, temperature, weight, the loss.
# y is the gradient of weight * loss.

cdef void limit_loss_and_grad(
    const floating *x, floating *y, Py_ssize_t n, int64_t target, double temperature,
    double weight, floating *loss
) noexcept nogil:
    """(p - onehot) / T: 0 for T = inf; for T = 0 the limit, 0 where p is right, else infinite."""
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
        y[i] = 0.0 if temperature == INFINITY or p == (i == target) else (
            (p - (i == target)) * weight * INFINITY
        )


cdef inline void scale_finite_or_not(
    const floating *e, floating *y, Py_ssize_t n, Sum factor
) noexcept nogil:
    """As scale, also with a factor that is infinite in the type, as 1 / T may be: 0 stays 0."""
    cdef double largest = FLT_MAX if floating is float else DBL_MAX
    cdef Py_ssize_t i
    if factor.hi <= largest:
        scale(e, y, n, factor)
    else:
        for i in range(n):
            y[i] = <floating> (e[i] * factor.hi) if e[i] > 0 else 0


cdef void cross_entropy_value_and_grad_row(
    const floating *x, floating *y, Py_ssize_t n, char **operands
) noexcept nogil:
    cdef int64_t target = (<int64_t *> operands[0])[0]
    cdef int64_t ignore_index = (<int64_t *> operands[1])[0]
    cdef double temperature = (<double *> operands[2])[0]
    cdef double weight = (<double *> operands[3])[0]
    cdef floating *loss = <floating *> operands[4]
    cdef floating e[FLOAT_CHUNK]
    cdef floating target_logit, target_exponential
    cdef Sum log_sum, inverse, scale_of_loss, factor, share
    cdef Row row
    if target == ignore_index:
        loss[0] = 0
        fill(y, n, 0)
        return
    if not (0 <= target < n and temperature >= 0):
        loss[0] = NAN
        fill(y, n, NAN)
        return
    if is_limit(temperature):
        limit_loss_and_grad(x, y, n, target, temperature, weight, loss)
        return
    target_logit = x[target]    # y may be x
    if not all_exponentials(x, e, y, n, temperature, &row):
        loss[0] = NAN
        fill(y, n, NAN)
        return
    log_sum = log_sum_of_row(&row)
    loss[0] = 0 - log_probability(
        target_logit, &row, log_sum.hi + log_sum.lo, row.reduction.kind
    )
    inverse = reciprocal(sum_of_row(&row))
    scale_of_loss = exactly(weight)
    if temperature != 1.0:
        scale_of_loss = times(scale_of_loss, reciprocal(exactly(temperature)))
    factor = times(inverse, scale_of_loss)
    if fits_chunk[floating](n, 0):
        target_exponential = e[target]
        scale_finite_or_not(e, y, n, factor)
    else:
        target_exponential = y[target]
        scale_finite_or_not(y, y, n, factor)
    # 1 - p is the share of the others; where p is not close to 1, the difference is as exact.
    if row.maximum_count == 1 and target_logit == row.maximum:
        share = times(inverse, row.others)
    else:
        share.hi = 1.0 - exact_fma(target_exponential, inverse.hi, target_exponential * inverse.lo)
        share.lo = 0
    if share.hi + share.lo == 0:
        y[target] = 0
    elif is_finite(scale_of_loss.lo):
        share = times(share, scale_of_loss)
        y[target] = -(share.hi + share.lo)
    else:
        y[target] = -INFINITY


# The arithmetic by itself, for the tests that measure it: exp(x) for x <= 0, and log(1 + x).

cdef void exp_row(
    const floating *x, floating *y, Py_ssize_t n, char **operands
) noexcept nogil:
    cdef Reduction of_zero = reduction(<floating> 0, 1.0)
    cdef Py_ssize_t i
    for i in range(n):
        y[i] = exponential(x[i], &of_zero, UNSHIFTED)


cdef void log_1p_row(
    const floating *x, floating *y, Py_ssize_t n, char **operands
) noexcept nogil:
    cdef Sum log_sum
    cdef Py_ssize_t i
    for i in range(n):
        log_sum = log_1p(exactly(x[i]))
        y[i] = <floating> (log_sum.hi + log_sum.lo)
