"""Functions of single numbers, in blocks.

Each takes the numbers of its inputs from contiguous memory: those that are not, one number for all
among them, are copied block by block.
"""

cdef enum:
    MAX_INPUTS = 4
    FLOAT_BLOCK = 1024    # 4 KiB of each input and of the result, also of doubles
    SUMMED = 8192


cdef inline floating value_of(
    Function function, const floating **inputs, Py_ssize_t i, const ExpParams *of_zero
) noexcept nogil:
    cdef floating x = inputs[0][i]
    cdef DoubleDouble log_sum
    if function == SIGMOID:
        return sigmoid_of(x, of_zero)
    if function == BINARY_CROSS_ENTROPY:
        return binary_cross_entropy_of(x, inputs[1][i], inputs[2][i], inputs[3][i], of_zero)
    # The arithmetic by itself, for the tests that measure it: exp(x) for x <= 0, and log(1 + x).
    if function == EXP:
        return exponential(x, of_zero, PLAIN)
    log_sum = log_1p(from_double(x))
    return <floating> (log_sum.hi + log_sum.lo)


cdef inline void write_values(
    Function function, const floating **inputs, floating *y, Py_ssize_t n
) noexcept nogil:
    """y may be one of the inputs."""
    cdef Py_ssize_t LANES = lanes_of[floating](0), i = 0, k
    cdef ExpParams of_zero = exp_params[floating](0, 1, False, 0)
    cdef floating values[FLOAT_LANES]
    while i + LANES <= n:
        for k in range(LANES):
            values[k] = value_of(function, inputs, i + k, &of_zero)
        for k in range(LANES):
            y[i + k] = values[k]
        i += LANES
    while i < n:
        y[i] = value_of(function, inputs, i, &of_zero)
        i += 1


cdef void compute_block(
    Function function, const floating **inputs, floating *y, npy_intp n
) noexcept nogil:
    if function == SIGMOID:    # constants, for loops that do nothing for the others
        write_values(SIGMOID, inputs, y, n)
    elif function == BINARY_CROSS_ENTROPY:
        write_values(BINARY_CROSS_ENTROPY, inputs, y, n)
    elif function == EXP:
        write_values(EXP, inputs, y, n)
    else:
        write_values(LOG_1P, inputs, y, n)


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
    cdef npy_intp block, start, count, i
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
                    for i in range(count):
                        copies[inputs_count][i] = (<floating *> plan.data[role])[0]
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
    cdef DoubleDouble total
    cdef npy_intp i = 0, k
    clear(&sums)
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
