"""Functions of single numbers, in blocks.

Each takes the numbers of its inputs from contiguous memory: those that are not, one number for all
among them, are copied block by block.
"""

cdef enum:
    MAX_INPUTS = 4
    FLOAT_BLOCK = 1024    # 4 KiB of each input and of the result, also of doubles
    SUMMED = 8192


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


cdef inline void compute_block(
    Function function, const floating **inputs, floating *y, npy_intp n
) noexcept nogil:
    if function == SIGMOID:
        sigmoid_block(inputs, y, n)
    elif function == BINARY_CROSS_ENTROPY:
        binary_cross_entropy_block(inputs, y, n)
    elif function == EXP:
        exp_block(inputs, y, n)
    elif function == LOG_1P:
        log_1p_block(inputs, y, n)


# The loop. What are rows in a plan are numbers here; blocks are numbered through all of them.

cdef struct Blocks:
    Function function
    const Plan *plan
    npy_intp numbers
    npy_intp begin    # of the blocks that threads share


cdef enum Direction:
    LOAD
    STORE


cdef inline void copy_block(
    const Plan *plan, int role, npy_intp first, npy_intp count, floating *block,
    Direction direction
) noexcept nogil:
    """Numbers first to first + count of an operand, to a block or from it."""
    cdef npy_intp stride = plan.strides[0][role], length = plan.shape[0]
    cdef npy_intp group = first // length, place = first - group * length, part, i
    cdef char *places[ROLES]
    while count > 0:
        part = min(count, length - place)
        locate(plan, group, place, places)
        if direction == STORE:
            for i in range(part):
                at[floating](places[role], i * stride, 0)[0] = block[i]
        elif stride == <npy_intp> sizeof(floating):
            memcpy(block, places[role], part * sizeof(floating))
        else:
            for i in range(part):
                block[i] = at[floating](places[role], i * stride, 0)[0]
        block += part
        count -= part
        group += 1
        place = 0


cdef inline floating *contiguous_block(
    const Plan *plan, int role, npy_intp first, npy_intp count, floating type_tag
) noexcept nogil:
    """The numbers where they are; NULL where they don't lie side by side."""
    cdef npy_intp length = plan.shape[0], group = first // length, place = first - group * length
    cdef char *places[ROLES]
    if plan.strides[0][role] != <npy_intp> sizeof(floating) or place + count > length:
        return NULL
    locate(plan, group, place, places)
    return <floating *> places[role]


cdef void over_blocks(
    void *work, npy_intp first, npy_intp last, int participant, const floating *type_tag
) noexcept nogil:
    cdef const Blocks *all = <Blocks *> work
    cdef const Plan *plan = all.plan
    cdef floating copies[MAX_INPUTS][FLOAT_BLOCK]
    cdef floating results[FLOAT_BLOCK]
    cdef const floating *inputs[MAX_INPUTS]
    cdef floating *y
    cdef npy_intp block, start, count
    cdef int inputs_count, role
    for block in range(all.begin + first, all.begin + last):
        start = block * FLOAT_BLOCK
        count = min(FLOAT_BLOCK, all.numbers - start)
        inputs_count = 0
        for role in range(ROLES):
            if role == RESULT or plan.data[role] == NULL:
                continue
            inputs[inputs_count] = contiguous_block[floating](plan, role, start, count, 0)
            if inputs[inputs_count] == NULL:
                inputs[inputs_count] = copies[inputs_count]
                if not plan.is_number[role]:
                    copy_block(plan, role, start, count, copies[inputs_count], LOAD)
                elif block == all.begin + first:    # for all blocks, of which the last is shorter
                    fill(copies[inputs_count], count, (<floating *> plan.data[role])[0])
            inputs_count += 1
        y = contiguous_block[floating](plan, RESULT, start, count, 0)
        if y != NULL:
            compute_block(all.function, inputs, y, count)
        else:
            compute_block(all.function, inputs, results, count)
            copy_block(plan, RESULT, start, count, results, STORE)


cdef void over_numbers(Function function, const Plan *plan, floating type_tag) noexcept nogil:
    """In shares, between which signals are handled."""
    cdef Blocks all
    cdef npy_intp blocks, first = 0, last, numbers
    all.function = function
    all.plan = plan
    all.numbers = plan.groups * plan.shape[0]
    blocks = (all.numbers + FLOAT_BLOCK - 1) // FLOAT_BLOCK
    while first < blocks and not is_stopped():
        last = min(blocks, first + NUMBERS_PER_SHARE // FLOAT_BLOCK)
        numbers = (last - first) * min(all.numbers, FLOAT_BLOCK)
        all.begin = first
        share(<Work> over_blocks[floating], &all, last - first, 1, numbers, threads_for(numbers))
        must_stop(numbers)
        first = last


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


cdef double sum_of_numbers(const floating *x, npy_intp n) noexcept nogil:
    """By blocks, which depend on nothing but n."""
    cdef npy_intp blocks = (n + SUMMED - 1) // SUMMED
    cdef double total
    cdef SummedBlocks all
    if blocks <= 1:
        return sum_of_block(x, n)
    all.x = x
    all.n = n
    all.sums = <double *> scratch_memory(blocks * sizeof(double))
    if all.sums == NULL:
        return NAN
    share(<Work> sum_blocks[floating], &all, blocks, 1, n, threads_for(n))
    total = sum_of_block(all.sums, blocks)
    PyMem_RawFree(all.sums)
    return total
