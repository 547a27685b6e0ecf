"""Functions of single numbers, in blocks.

Each takes the numbers of its inputs from contiguous memory: those that are not, one number for all
among them, are copied block by block.
"""

cdef enum:
    MAX_INPUTS = 4
    FLOAT_BLOCK = 1024    # 4 KiB of each input and of the result, also of doubles
    SUMMED = 8192


cdef struct Elementwise:
    any_function function
    int inputs


# Functions: inputs, y, n. y may be one of the inputs.

cdef inline floating sigmoid_of(floating x, const Reduction *of_zero) noexcept nogil:
    """1 / (1 + exp(-x)), from the exponential that is at most 1."""
    cdef floating e = exponential(-x if x > 0 else x, of_zero, UNSHIFTED), one = 1
    return (e if x < 0 else one) / (one + e)


cdef void sigmoid_block(
    const floating **inputs, floating *y, Py_ssize_t n
) noexcept nogil:
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef Reduction of_zero = reduction(<floating> 0, 1.0)
    cdef const floating *x = inputs[0]
    cdef floating values[FLOAT_LANES]
    cdef Py_ssize_t i = 0, k
    while i + LANES <= n:
        for k in range(LANES):
            values[k] = sigmoid_of(x[i + k], &of_zero)
        for k in range(LANES):
            y[i + k] = values[k]
        i += LANES
    while i < n:
        y[i] = sigmoid_of(x[i], &of_zero)
        i += 1


cdef inline floating product_or_nothing(floating a, floating b) noexcept nogil:
    """What has the weight 0 doesn't count, even if it is infinite."""
    return value_or_zero(a * b, a != 0)


cdef inline floating binary_cross_entropy_of(
    floating x, floating target, floating weight, floating pos_weight, const Reduction *of_zero
) noexcept nogil:
    """weight (pos_weight t softplus(-x) + (1 - t) softplus(x)); softplus(x) = max(x, 0) + rest."""
    cdef floating rest = log_1p_up_to_one(exponential(-x if x > 0 else x, of_zero, UNSHIFTED))
    cdef floating of_positive = rest if x > 0 else rest - x
    cdef floating of_negative = rest + x if x > 0 else rest
    cdef floating one = 1
    # Those of the weights first: one with a large logit may be too large without them.
    return (
        product_or_nothing(weight * (pos_weight * target), of_positive)
        + product_or_nothing(weight * (one - target), of_negative)
    )


cdef void binary_cross_entropy_block(
    const floating **inputs, floating *y, Py_ssize_t n
) noexcept nogil:
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef Reduction of_zero = reduction(<floating> 0, 1.0)
    cdef const floating *x = inputs[0]
    cdef const floating *target = inputs[1]
    cdef const floating *weight = inputs[2]
    cdef const floating *pos_weight = inputs[3]
    cdef floating values[FLOAT_LANES]
    cdef Py_ssize_t i = 0, k
    while i + LANES <= n:
        for k in range(LANES):
            values[k] = binary_cross_entropy_of(
                x[i + k], target[i + k], weight[i + k], pos_weight[i + k], &of_zero
            )
        for k in range(LANES):
            y[i + k] = values[k]
        i += LANES
    while i < n:
        y[i] = binary_cross_entropy_of(x[i], target[i], weight[i], pos_weight[i], &of_zero)
        i += 1


# The arithmetic by itself, for the tests that measure it: exp(x) for x <= 0, and log(1 + x).

cdef void exp_block(const floating **inputs, floating *y, Py_ssize_t n) noexcept nogil:
    cdef Reduction of_zero = reduction(<floating> 0, 1.0)
    cdef Py_ssize_t i
    for i in range(n):
        y[i] = exponential(inputs[0][i], &of_zero, UNSHIFTED)


cdef void log_1p_block(const floating **inputs, floating *y, Py_ssize_t n) noexcept nogil:
    cdef Sum log_sum
    cdef Py_ssize_t i
    for i in range(n):
        log_sum = log_1p(exactly(inputs[0][i]))
        y[i] = <floating> (log_sum.hi + log_sum.lo)


# The loop. Blocks are numbered through all rows.

cdef struct Blocks:
    const Elementwise *operation
    npy_intp begin    # of those that threads share
    char **args
    const npy_intp *row_steps
    const npy_intp *number_steps
    npy_intp n
    npy_intp in_row


cdef inline const floating *contiguous(
    char *base, npy_intp step, npy_intp count, floating *copy
) noexcept nogil:
    """The numbers themselves, or their copy."""
    cdef npy_intp i
    if step == <npy_intp> sizeof(floating) or count == 1:
        return <floating *> base
    if step == 0:
        fill(copy, count, (<floating *> base)[0])
        return copy
    for i in range(count):
        copy[i] = at[floating](base, i * step, 0)[0]
    return copy


cdef void over_blocks(
    void *work, npy_intp first, npy_intp last, int participant, const floating *type_tag
) noexcept nogil:
    cdef const Blocks *all = <Blocks *> work
    cdef const Elementwise *operation = all.operation
    cdef floating copies[MAX_INPUTS][FLOAT_BLOCK]
    cdef floating results[FLOAT_BLOCK]
    cdef const floating *inputs[MAX_INPUTS]
    cdef npy_intp size = sizeof(floating), block, row, start, count, i
    cdef npy_intp step = all.number_steps[operation.inputs]
    cdef bint is_contiguous = step == size
    cdef char *y
    cdef int k
    for block in range(all.begin + first, all.begin + last):
        row = block // all.in_row
        start = block % all.in_row * FLOAT_BLOCK
        count = min(FLOAT_BLOCK, all.n - start)
        for k in range(operation.inputs):
            inputs[k] = contiguous(
                all.args[k] + row * all.row_steps[k] + start * all.number_steps[k],
                all.number_steps[k], count, copies[k],
            )
        y = all.args[operation.inputs] + row * all.row_steps[operation.inputs] + start * step
        if is_contiguous:
            call_block(operation, inputs, <floating *> y, count)
        else:
            call_block(operation, inputs, results, count)
            for i in range(count):
                at[floating](y, i * step, 0)[0] = results[i]


cdef inline void call_block(
    const Elementwise *operation, const floating **inputs, floating *y, npy_intp n
) noexcept nogil:
    (<void (*)(const floating **, floating *, Py_ssize_t) noexcept nogil> operation.function)(
        inputs, y, n
    )


cdef void over_numbers(
    const Elementwise *operation, char **args, npy_intp rows, npy_intp n,
    const npy_intp *row_steps, const npy_intp *number_steps, floating type_tag
) noexcept nogil:
    """In shares, between which signals are handled."""
    cdef Blocks all
    cdef npy_intp blocks, first = 0, last, numbers
    all.operation = operation
    all.args = args
    all.row_steps = row_steps
    all.number_steps = number_steps
    all.n = n
    all.in_row = (n + FLOAT_BLOCK - 1) // FLOAT_BLOCK
    blocks = rows * all.in_row
    while first < blocks and not is_stopped():
        last = min(blocks, first + NUMBERS_PER_SHARE // FLOAT_BLOCK)
        numbers = (last - first) * min(n, FLOAT_BLOCK)
        all.begin = first
        share(<Work> over_blocks[floating], &all, last - first, 1, numbers, threads_for(numbers))
        must_stop(numbers)
        first = last


cdef inline void elementwise_loop(
    char **args, const npy_intp *dimensions, const npy_intp *steps, void *data, floating type_tag
) noexcept nogil:
    cdef const Elementwise *operation = <Elementwise *> data
    cdef uint64_t host = enter_environment()
    over_numbers[floating](
        operation, args, dimensions[0], dimensions[1], steps, steps + operation.inputs + 1, 0
    )
    csoftmax_set_environment(host)


cdef void elementwise_float_loop(
    char **args, const npy_intp *dimensions, const npy_intp *steps, void *data
) noexcept nogil:
    elementwise_loop[float](args, dimensions, steps, data, 0)


cdef void elementwise_double_loop(
    char **args, const npy_intp *dimensions, const npy_intp *steps, void *data
) noexcept nogil:
    elementwise_loop[double](args, dimensions, steps, data, 0)


# Sums of losses, in float64.

cdef inline double sum_of_block(const floating *x, npy_intp n) noexcept nogil:
    cdef npy_intp LANES = LANE_BYTES // <npy_intp> sizeof(floating)
    cdef LaneSums sums
    cdef Sum total
    cdef npy_intp i = 0, k
    start_sums(&sums)
    while i + LANES <= n:
        for k in range(LANES):
            add_term[floating](sums.hi + k, sums.lo + k, x[i + k], 0)
        i += LANES
    for k in range(n - i):
        add_term[floating](sums.hi + k, sums.lo + k, x[i + k], 0)
    total = finished[floating](&sums, 0)
    return total.hi + total.lo


cdef struct SummedBlocks:
    const void *x
    npy_intp n
    double *sums


cdef void sum_blocks(
    void *work, npy_intp first, npy_intp last, int participant, const floating *type_tag
) noexcept nogil:
    cdef SummedBlocks *all = <SummedBlocks *> work
    cdef npy_intp block
    for block in range(first, last):
        all.sums[block] = sum_of_block(
            <floating *> all.x + block * SUMMED, min(SUMMED, all.n - block * SUMMED)
        )


cdef double sum_of_numbers(const floating *x, npy_intp n, double *sums) noexcept nogil:
    """By blocks, which depend on nothing but n."""
    cdef npy_intp blocks = (n + SUMMED - 1) // SUMMED
    cdef SummedBlocks all
    all.x = x
    all.n = n
    all.sums = sums
    share(<Work> sum_blocks[floating], &all, blocks, 1, n, threads_for(n))
    return sum_of_block(sums, blocks)


def mean_of(x, double divisor):
    """The sum of a contiguous array's numbers over the divisor, both in float64.

    NumPy's own sum in float64 converts numbers of float32 one by one.
    """
    cdef npy_intp n
    cdef double *sums
    cdef double mean
    cdef uint64_t host
    if not (is_plain(x, NPY_FLOAT) or is_plain(x, NPY_DOUBLE)):
        raise TypeError("mean_of takes contiguous arrays of float32 or float64")
    n = PyArray_SIZE(<ndarray> x)
    sums = <double *> PyMem_RawMalloc((n // SUMMED + 1) * sizeof(double))
    if sums == NULL:
        raise MemoryError("no memory for sums of blocks")
    with nogil:
        host = enter_environment()
        if PyArray_TYPE(<ndarray> x) == NPY_FLOAT:
            mean = sum_of_numbers(<float *> PyArray_BYTES(<ndarray> x), n, sums) / divisor
        else:
            mean = sum_of_numbers(<double *> PyArray_BYTES(<ndarray> x), n, sums) / divisor
        csoftmax_set_environment(host)
    PyMem_RawFree(sums)
    return mean
