# cython: language_level=3
"""Functions of single numbers, in blocks; sums of losses.

What are rows in a plan are numbers here, of several groups in a block. A block of an operand whose
numbers don't lie side by side is copied.
"""

from cython cimport floating
from libc.math cimport NAN
from numpy cimport npy_intp

from csoftmax.kernels.arithmetic cimport (
    PLAIN, DoubleDouble, ExpParams, exact_fma, exp_params, exponential,
)
from csoftmax.kernels.copies cimport copy_rows
from csoftmax.kernels.formulas cimport (
    binary_cross_entropy_grad_of, binary_cross_entropy_of, coefficient_of_right,
    coefficient_of_wrong, log_sigmoid_of, sigmoid_of,
)
from csoftmax.kernels.lanes cimport FLOAT_LANES, LaneSums, add_term, clear, finished
from csoftmax.kernels.passes cimport lanes_of
from csoftmax.kernels.plan cimport (
    BINARY_CROSS_ENTROPY, BINARY_CROSS_ENTROPY_AND_GRAD, COMPANION, LOGITS, LOG_SIGMOID,
    POS_WEIGHT, RESULT, ROLES, ROW_RESULT, SIGMOID, WEIGHT, Function, Plan, locate,
)
from csoftmax.kernels.memory cimport leave_scratch
from csoftmax.kernels.stops cimport NUMBERS_PER_SHARE, is_stopped, scratch_memory
from csoftmax.kernels.threads cimport Work, share, threads_for


cdef enum:
    BLOCK = 512                  # numbers: 2 KiB of each operand, or 4
    SUMMED = 8192
    OPERANDS = 6    # of a call, at most: the stack has copies of their blocks


cdef inline void compute_number(
    Function function, floating **operands, Py_ssize_t i, const ExpParams *of_zero, floating scale,
    floating scale_error, floating *value, floating *loss, bint has_weights
) noexcept nogil:
    """The results that the function has."""
    cdef floating x = operands[LOGITS][i], e, right, wrong, weight = 1, pos_weight = 1
    if function == SIGMOID:
        value[0] = sigmoid_of(x, of_zero)
        return
    if function == LOG_SIGMOID:
        value[0] = log_sigmoid_of(x, of_zero)
        return
    e = exponential(-x if x > 0 else x, of_zero, PLAIN)
    if has_weights:
        weight = operands[WEIGHT][i]
        pos_weight = operands[POS_WEIGHT][i]
    right = coefficient_of_right(operands[COMPANION][i], weight, pos_weight)
    wrong = coefficient_of_wrong(operands[COMPANION][i], weight)
    loss[0] = binary_cross_entropy_of(x, e, right, wrong)
    if function == BINARY_CROSS_ENTROPY_AND_GRAD:
        value[0] = binary_cross_entropy_grad_of(x, e, right, wrong, scale, scale_error)


cdef inline void write_results(
    Function function, floating **operands, Py_ssize_t n, double divisor, bint has_weights
) noexcept nogil:
    """They may take the place of the logits."""
    cdef Py_ssize_t LANES = lanes_of[floating](0), i = 0, k
    cdef ExpParams of_zero = exp_params[floating](0, 1, False, 0)
    cdef bint has_values = function != BINARY_CROSS_ENTROPY
    cdef bint has_losses = function >= BINARY_CROSS_ENTROPY
    cdef floating scale = <floating> (1.0 / divisor)
    cdef floating scale_error = <floating> exact_fma(-<double> scale, divisor, 1.0)
    cdef floating values[FLOAT_LANES]
    cdef floating losses[FLOAT_LANES]
    while i + LANES <= n:
        for k in range(LANES):
            compute_number(
                function, operands, i + k, &of_zero, scale, scale_error, values + k, losses + k,
                has_weights,
            )
        if has_values:
            for k in range(LANES):
                operands[RESULT][i + k] = values[k]
        if has_losses:
            for k in range(LANES):
                operands[ROW_RESULT][i + k] = losses[k]
        i += LANES
    for i in range(i, n):
        compute_number(
            function, operands, i, &of_zero, scale, scale_error, values, losses, has_weights
        )
        if has_values:
            operands[RESULT][i] = values[0]
        if has_losses:
            operands[ROW_RESULT][i] = losses[0]


cdef inline void compute_block(
    Function function, floating **operands, npy_intp n, double divisor, bint has_weights
) noexcept nogil:
    if function == SIGMOID:    # constants, for loops that do nothing for the others
        write_results(SIGMOID, operands, n, divisor, False)
    elif function == LOG_SIGMOID:
        write_results(LOG_SIGMOID, operands, n, divisor, False)
    elif function == BINARY_CROSS_ENTROPY and not has_weights:
        write_results(BINARY_CROSS_ENTROPY, operands, n, divisor, False)
    elif function == BINARY_CROSS_ENTROPY:
        write_results(BINARY_CROSS_ENTROPY, operands, n, divisor, True)
    elif not has_weights:
        write_results(BINARY_CROSS_ENTROPY_AND_GRAD, operands, n, divisor, False)
    else:
        write_results(BINARY_CROSS_ENTROPY_AND_GRAD, operands, n, divisor, True)


cdef inline bint is_result(int role) noexcept nogil:
    return role == RESULT or role == ROW_RESULT


cdef inline floating *block_or_copy(
    const Plan *plan, int role, npy_intp first, npy_intp count, floating *copy
) noexcept nogil:
    """The numbers where they are, if they lie side by side there."""
    cdef npy_intp group = first // plan.shape[0], place = first - group * plan.shape[0]
    cdef char *places[ROLES]
    if plan.strides[0][role] != <npy_intp> sizeof(floating) or place + count > plan.shape[0]:
        return copy
    locate(plan, group, place, places)
    return <floating *> places[role]


cdef inline void copy_block(
    const Plan *plan, int role, npy_intp first, npy_intp count, floating *copy
) noexcept nogil:
    """Numbers from `first` on of an input to their copy; of results from it."""
    cdef npy_intp size = sizeof(floating), stride = plan.strides[0][role], part
    cdef npy_intp group = first // plan.shape[0], place = first - group * plan.shape[0]
    cdef char *places[ROLES]
    while count > 0:
        part = min(count, plan.shape[0] - place)
        locate(plan, group, place, places)
        if is_result(role):
            copy_rows[floating](<char *> copy, size, 0, places[role], stride, 0, part, 1, 0)
        else:
            copy_rows[floating](places[role], stride, 0, <char *> copy, size, 0, part, 1, 0)
        copy += part
        count -= part
        group += 1
        place = 0


cdef inline bint is_one(const Plan *plan, int role, floating type_tag) noexcept nogil:
    return plan.is_number[role] and (<floating *> plan.data[role])[0] == 1


cdef struct Blocks:
    Function function
    const Plan *plan
    npy_intp numbers
    npy_intp begin    # of the blocks that threads share
    double divisor    # of gradients


cdef inline void over_blocks(
    void *work, npy_intp first, npy_intp last, int participant, const floating *type_tag
) noexcept nogil:
    cdef const Blocks *all = <Blocks *> work
    cdef const Plan *plan = all.plan
    cdef floating memory[OPERANDS][BLOCK]
    cdef floating *copies[ROLES]
    cdef floating *operands[ROLES]
    cdef npy_intp block, start, count, i
    cdef bint has_weights = all.function >= BINARY_CROSS_ENTROPY and not (
        is_one[floating](plan, WEIGHT, 0) and is_one[floating](plan, POS_WEIGHT, 0)
    )
    cdef int role, used = 0
    for role in range(ROLES):
        copies[role] = NULL
        if plan.data[role] != NULL:
            copies[role] = memory[used]
            used += 1
    for block in range(all.begin + first, all.begin + last):
        start = block * BLOCK
        count = min(BLOCK, all.numbers - start)
        for role in range(ROLES):
            if copies[role] == NULL:
                continue
            operands[role] = block_or_copy(plan, role, start, count, copies[role])
            if is_result(role) or operands[role] != copies[role]:
                continue
            if not plan.is_number[role]:
                copy_block(plan, role, start, count, copies[role])
            elif block == all.begin + first:    # for all blocks, of which the last is shorter
                for i in range(count):
                    copies[role][i] = (<floating *> plan.data[role])[0]
        compute_block(all.function, operands, count, all.divisor, has_weights)
        for role in range(ROLES):
            if is_result(role) and copies[role] != NULL and operands[role] == copies[role]:
                copy_block(plan, role, start, count, copies[role])


cdef inline void over_numbers(
    Function function, const Plan *plan, double divisor, floating type_tag
) noexcept nogil:
    cdef Blocks all
    cdef npy_intp blocks, first = 0, last, numbers
    all.function = function
    all.plan = plan
    all.divisor = divisor
    all.numbers = plan.groups * plan.shape[0]
    blocks = (all.numbers + BLOCK - 1) // BLOCK
    while first < blocks and not is_stopped():
        last = min(blocks, first + NUMBERS_PER_SHARE // BLOCK)
        numbers = (last - first) * min(all.numbers, BLOCK)
        all.begin = first
        share(<Work> over_blocks[floating], &all, last - first, 1, numbers, threads_for(numbers))
        first = last


# Sums of losses, in float64, by blocks that depend on nothing but n.

cdef inline double sum_of_block(const floating *x, npy_intp n, double unit) noexcept nogil:
    cdef npy_intp LANES = lanes_of[floating](0), i = 0, k
    cdef DoubleDouble total
    cdef LaneSums sums
    clear(&sums)
    while i + LANES <= n:
        for k in range(LANES):
            add_term[floating](sums.hi + k, sums.lo + k, x[i + k] * unit, 0)
        i += LANES
    for k in range(n - i):
        add_term[floating](sums.hi + k, sums.lo + k, x[i + k] * unit, 0)
    total = finished[floating](&sums, 0)
    return total.hi + total.lo


cdef struct SummedBlocks:
    const void *x
    npy_intp n
    double unit
    double *sums


cdef inline void sum_blocks(
    void *work, npy_intp first, npy_intp last, int participant, const floating *type_tag
) noexcept nogil:
    cdef SummedBlocks *all = <SummedBlocks *> work
    cdef const floating *x = <const floating *> all.x
    cdef npy_intp i
    for i in range(first, last):
        all.sums[i] = sum_of_block(x + i * SUMMED, min(SUMMED, all.n - i * SUMMED), all.unit)


cdef inline double sum_of_numbers(const floating *x, npy_intp n, double unit) noexcept nogil:
    """In units, by which each is multiplied."""
    cdef npy_intp blocks = (n + SUMMED - 1) // SUMMED
    cdef SummedBlocks all
    cdef double total
    if blocks <= 1:
        return sum_of_block(x, n, unit)
    all.x = x
    all.n = n
    all.unit = unit
    all.sums = <double *> scratch_memory(blocks * sizeof(double))
    if all.sums == NULL:
        return NAN
    share(<Work> sum_blocks[floating], &all, blocks, 1, n, threads_for(n))
    total = sum_of_block(all.sums, blocks, 1)
    leave_scratch(all.sums, blocks * sizeof(double))
    return total
