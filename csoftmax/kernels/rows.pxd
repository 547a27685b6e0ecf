# cython: language_level=3
"""One row of contiguous numbers: its maximum, its exponentials, their sum.

How plain loops become vector code here: inner loops run over a constant number of lanes, what
belongs to a lane stays in that lane, and results go to local arrays, of which the compiler knows
that they overlap nothing.
"""

from cython cimport floating
from libc.float cimport DBL_EPSILON, FLT_EPSILON
from libc.math cimport INFINITY, NAN, fabs, rint
from libc.string cimport memcpy

from csoftmax.kernels.arithmetic cimport (
    LN2, LN2_HI_DOUBLE, LN2_LO_DOUBLE, LOG2_E, SHIFTED, TEMPERED, UNSHIFTED, Kind, Reduction, Sum,
    exact_fma, exactly, exp_sum, exponential, largest_unshifted, log_1p, plus, power_of_two,
    reduction, times, two_sum,
)
from csoftmax.kernels.lanes cimport (
    FLOAT_LANES, LANE_BYTES, START_OF_SUM, LaneSums, add, larger, max_of_lanes, sum_of_lanes,
    total_sum,
)
from csoftmax.kernels.weighing cimport Distances

cdef extern from * nogil:
    """
    /* log(START_OF_SUM) - log(2) / 2, at least: so far above a guess no exponential is larger. */
    #define LARGEST_IN_SUM 4.5
    """
    const double LARGEST_IN_SUM


cdef enum:
    CHUNK_BYTES = 16384   # of exponentials in a local buffer: half of a small L1 cache
    FLOAT_CHUNK = 4096


cdef struct Row:
    # After a sweep.
    Reduction reduction
    double maximum
    double maximum_count   # terms of it that are not in `others`; 0 unless it was set apart
    Sum others             # the sum of the other exponentials, in units of 2^N
    double maximum_power   # exp(maximum / T) = 2^maximum_power exp(maximum_residue) in units of
    double maximum_residue # 2^N, where maximum_power is 0 unless N was guessed


cdef inline floating max_of_four(const floating *x) noexcept nogil:
    """Of one lane."""
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    return larger(larger(x[0], x[LANES]), larger(x[2 * LANES], x[3 * LANES]))


cdef inline floating row_max(const floating *x, Py_ssize_t n) noexcept nogil:
    """The largest of n >= 1 numbers. If one is NaN, any of them."""
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef floating lanes[FLOAT_LANES]
    cdef Py_ssize_t i = LANES
    cdef Py_ssize_t k
    if n < LANES:
        lanes[0] = x[0]
        for i in range(1, n):
            lanes[0] = larger(x[i], lanes[0])
        return lanes[0]
    for k in range(LANES):
        lanes[k] = x[k]
    while i + 4 * LANES <= n:
        for k in range(LANES):
            lanes[k] = larger(max_of_four(x + i + k), lanes[k])
        i += 4 * LANES
    while i < n:
        if i + LANES > n:
            i = n - LANES    # the last step overlaps the one before
        for k in range(LANES):
            lanes[k] = larger(x[i + k], lanes[k])
        i += LANES
    return max_of_lanes(lanes)


cdef inline void exp_to_lane(
    const floating *x, floating *e, floating *total, floating *lost, floating *maximum,
    const Reduction *row, Kind kind
) noexcept nogil:
    """One exponential to e and to its lane's sum; the maximum on the way."""
    e[0] = exponential(x[0], row, kind)
    maximum[0] = larger(x[0], maximum[0])
    add(total, lost, e[0])


cdef inline void exp_chunk(
    const floating *x, floating *e, Py_ssize_t n, floating *total,
    floating *lost, floating *maxima, const Reduction *row, Kind kind
) noexcept nogil:
    """Write n exponentials to e, which has room for LANES at least, and add them to the sums.

    `maxima`, one per lane, are updated.
    """
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef floating tail[FLOAT_LANES]
    cdef floating first[FLOAT_LANES]    # for the compiler, e and x might overlap
    cdef floating second[FLOAT_LANES]
    cdef floating third[FLOAT_LANES]
    cdef floating fourth[FLOAT_LANES]
    cdef floating last
    cdef Py_ssize_t i = 0, k, done
    while i + 4 * LANES <= n:    # four vectors at a time: their chains of operations interleave
        for k in range(LANES):
            exp_to_lane(x + i + k, first + k, total + k, lost + k, maxima + k, row, kind)
            exp_to_lane(
                x + i + LANES + k, second + k, total + k, lost + k, maxima + k, row, kind
            )
            exp_to_lane(
                x + i + 2 * LANES + k, third + k, total + k, lost + k, maxima + k, row, kind
            )
            exp_to_lane(
                x + i + 3 * LANES + k, fourth + k, total + k, lost + k, maxima + k, row, kind
            )
        for k in range(LANES):
            e[i + k] = first[k]
        for k in range(LANES):
            e[i + LANES + k] = second[k]
        for k in range(LANES):
            e[i + 2 * LANES + k] = third[k]
        for k in range(LANES):
            e[i + 3 * LANES + k] = fourth[k]
        i += 4 * LANES
    while i + LANES <= n:
        for k in range(LANES):
            exp_to_lane(x + i + k, first + k, total + k, lost + k, maxima + k, row, kind)
        for k in range(LANES):
            e[i + k] = first[k]
        i += LANES
    if i < n and n >= LANES:    # the last step overlaps the one before
        done = i + LANES - n
        i = n - LANES
        for k in range(LANES):
            last = exponential(x[i + k], row, kind)
            maxima[k] = larger(x[i + k], maxima[k])
            first[k] = last
            add(total + k, lost + k, 0 if k < done else last)
        for k in range(LANES):
            e[i + k] = first[k]
    elif i < n:
        for k in range(LANES):
            tail[k] = -INFINITY
        memcpy(tail, x, n * sizeof(floating))
        for k in range(LANES):
            exp_to_lane(tail + k, e + k, total + k, lost + k, maxima + k, row, kind)


cdef inline Sum sum_without(
    const floating *e, Py_ssize_t n, floating left_out
) noexcept nogil:
    """The sum of e without the terms of one value, as exact as two doubles."""
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef Py_ssize_t i = 0, k
    cdef LaneSums sums
    cdef Sum sum
    for k in range(FLOAT_LANES):
        sums.hi[k] = 0
        sums.lo[k] = 0
    while i + LANES <= n:
        for k in range(LANES):
            sum = two_sum(sums.hi[k], 0 if e[i + k] == left_out else e[i + k])
            sums.hi[k] = sum.hi
            sums.lo[k] += sum.lo
        i += LANES
    for k in range(n - i):
        sum = two_sum(sums.hi[k], 0 if e[i + k] == left_out else e[i + k])
        sums.hi[k] = sum.hi
        sums.lo[k] += sum.lo
    return sum_of_lanes[floating](&sums, 0)


cdef inline double smallest_difference(
    Py_ssize_t n, Py_ssize_t in_lane, double start, floating type_tag
) noexcept nogil:
    """Of the sum and its largest term: below, it is made anew without that term.

    In units of the term. Of n numbers, `in_lane` are added one to another, beginning with `start`.
    The parts that `add` finds lost are up to half an ULP of `start`, and are rounded when they are
    added themselves. The bound keeps that below an ULP of the difference. It is less than 1: where
    the largest term is there twice, that is the difference.
    """
    cdef double half_ulp = (FLT_EPSILON if floating is float else DBL_EPSILON) / 2
    return min(0.75, half_ulp * start * in_lane * n)


cdef inline void set_maximum_apart(
    const floating *e, Py_ssize_t n, floating maximum_term, Row *row
) noexcept nogil:
    """From the sum of all to that of the others, which is all that small losses consist of."""
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef double smallest = smallest_difference[floating](n, n // LANES + 1, START_OF_SUM, 0)
    row.others = plus(row.others, exactly(-maximum_term))
    row.maximum_count = 1
    if row.others.hi < smallest * maximum_term:
        row.others = sum_without(e, n, maximum_term)


cdef inline bint can_be_guessed(floating guess, floating type_tag) noexcept nogil:
    """Whether a maximum near the guess is used as it is."""
    return fabs(guess) < largest_unshifted[floating](0) - headroom[floating](0)


cdef inline double headroom(floating type_tag) noexcept nogil:
    """How far above the guess exponentials don't overflow."""
    return 40.0 if floating is float else 400.0


cdef inline floating guess_of_maximum(const floating *x) noexcept nogil:
    """The largest of the first four numbers of each lane."""
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating), k
    cdef floating largest[FLOAT_LANES]
    for k in range(LANES):
        largest[k] = max_of_four(x + k)
    return max_of_lanes(largest)


cdef inline void sweep(
    const floating *x, floating *e, Py_ssize_t n, const Reduction *row,
    floating start, floating *total, floating *lost, floating *maxima, Kind kind
) noexcept nogil:
    """Exponentials to e, per lane their sums, and the largest of `start` and the lane's x."""
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating), k
    cdef floating t[FLOAT_LANES]    # in registers: nothing else can point to them
    cdef floating l[FLOAT_LANES]
    cdef floating m[FLOAT_LANES]
    for k in range(LANES):
        m[k] = start
        t[k] = START_OF_SUM
        l[k] = 0
    exp_chunk(x, e, n, t, l, m, row, kind)
    for k in range(LANES):
        maxima[k] = m[k]
        total[k] = t[k]
        lost[k] = l[k]


# Exponentials in one sweep, without one for the maximum before: N is guessed from the first
# numbers, and the true maximum is known afterwards. In three steps, so that several rows can take
# each of them in turn.

cdef inline bint guess_reduction(
    const floating *x, Py_ssize_t n, double temperature, Row *row
) noexcept nogil:
    """False where there are too few numbers, or the guess is not an ordinary one."""
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef floating guess
    if temperature != 1.0 or n < 4 * LANES:
        return False
    guess = guess_of_maximum(x)
    if not can_be_guessed[floating](guess, 0):
        return False
    row.maximum = guess
    row.reduction = reduction(guess, 1.0)
    return True


cdef inline void sweep_guessed(
    const floating *x, floating *e, Py_ssize_t n, const Row *row,
    floating *total, floating *lost, floating *maxima
) noexcept nogil:
    sweep(
        x, e, n, &row.reduction, <floating> row.maximum, total, lost, maxima, UNSHIFTED
    )


cdef inline bint finish_guessed(
    const floating *e, Py_ssize_t n, const floating *total, const floating *lost, floating *maxima,
    bint maximum_apart, Row *row
) noexcept nogil:
    """False where the maximum is so much larger than the guess that exponentials may have
    overflowed; e is worthless then."""
    cdef Reduction of_maximum
    cdef floating maximum = max_of_lanes(maxima)
    cdef double above = maximum - row.maximum
    if not above < headroom[floating](0):
        return False
    row.others = total_sum(total, lost)
    if not above < LARGEST_IN_SUM:
        row.others = sum_without[floating](e, n, 0)
    row.maximum = maximum
    row.maximum_count = 0
    if maximum_apart:
        of_maximum = reduction(maximum, 1.0)
        row.maximum_residue = of_maximum.max_residue
        row.maximum_power = of_maximum.power - row.reduction.power
        if row.others.hi < 3 * power_of_two(row.maximum_power):    # at least twice the maximum's
            set_maximum_apart(e, n, exponential(maximum, &row.reduction, UNSHIFTED), row)
    return True


cdef inline bint has_nan(const floating *x, Py_ssize_t x_step, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        if x[i * x_step] != x[i * x_step]:
            return True
    return False


cdef inline bint exponentials_in_two_sweeps(
    const floating *x, floating *e, Py_ssize_t n, double temperature,
    bint maximum_apart, Row *row
) noexcept nogil:
    """Exponentials to e and their sum, for 1 <= n <= CHUNK.

    False if the maximum is not finite; row.maximum is then NaN if there is one.
    """
    cdef floating total[FLOAT_LANES]
    cdef floating lost[FLOAT_LANES]
    cdef floating maxima[FLOAT_LANES]
    cdef floating maximum = row_max(x, n)
    cdef bint is_finite = fabs(maximum) < INFINITY
    cdef Kind kind
    row.reduction = reduction(maximum if is_finite else <floating> 0, temperature)
    row.maximum = maximum
    row.maximum_count = 0
    row.maximum_residue = row.reduction.max_residue
    row.maximum_power = 0
    row.others = exactly(0)
    if not is_finite:
        if has_nan(x, 1, n):
            row.maximum = NAN
        return False
    kind = row.reduction.kind
    if kind == UNSHIFTED:
        sweep(x, e, n, &row.reduction, maximum, total, lost, maxima, UNSHIFTED)
    elif kind == SHIFTED:
        sweep(x, e, n, &row.reduction, maximum, total, lost, maxima, SHIFTED)
    else:
        sweep(x, e, n, &row.reduction, maximum, total, lost, maxima, TEMPERED)
    row.others = total_sum(total, lost)
    if maximum_apart:
        set_maximum_apart(e, n, exponential(maximum, &row.reduction, kind), row)
    return True


cdef inline bint exponentials(
    const floating *x, floating *e, Py_ssize_t n, double temperature,
    bint maximum_apart, Row *row
) noexcept nogil:
    """As exponentials_in_two_sweeps; in one, where the maximum can be guessed."""
    cdef floating total[FLOAT_LANES]
    cdef floating lost[FLOAT_LANES]
    cdef floating maxima[FLOAT_LANES]
    if guess_reduction(x, n, temperature, row):
        sweep_guessed(x, e, n, row, total, lost, maxima)
        if finish_guessed(e, n, total, lost, maxima, maximum_apart, row):
            return True
    return exponentials_in_two_sweeps(x, e, n, temperature, maximum_apart, row)


cdef inline Sum sum_of_row(const Row *row) noexcept nogil:
    """The sum of all exponentials, in units of 2^N."""
    cdef Sum of_maximum
    if row.maximum_count == 0:
        return row.others
    of_maximum = times(
        exp_sum(row.maximum_residue), exactly(row.maximum_count * power_of_two(row.maximum_power))
    )
    return plus(of_maximum, row.others)


# Rows longer than a chunk: chunks have exponentials and sums of their own, each in its own unit,
# which are brought together afterwards. Where a chunk begins depends on nothing else, so threads
# can share a row without a trace in the result.

cdef struct Chunk:
    Row row
    Distances distances
    bint is_finite     # else exponentials stand for 0, if the row has a softmax at all
    Sum ratio          # a unit of its exponentials is ratio 2^ratio_power units of the whole row's
    double ratio_power


cdef inline void set_ratio(
    Chunk *chunk, const Reduction *whole, floating type_tag
) noexcept nogil:
    """exp(shift_c - shift_w) 2^(N_c - N_w), with the temperature in place."""
    cdef const Reduction *own = &chunk.row.reduction
    cdef Sum inverse = exactly(whole.inverse_hi)
    cdef Sum d
    cdef double k
    if floating is double:    # for float, inverse_hi is more than its product with a float needs
        inverse.lo = whole.inverse_lo
    d = times(exactly((own.shift - whole.shift) * whole.scale_after), inverse)
    k = rint(d.hi * LOG2_E)
    chunk.ratio_power = k + own.power - whole.power
    if not chunk.ratio_power > -3000:    # so far below the maximum that nothing of it is left
        chunk.ratio = exactly(0)
        chunk.ratio_power = -3000
        return
    chunk.ratio = exp_sum((exact_fma(-LN2_HI_DOUBLE, k, d.hi) - LN2_LO_DOUBLE * k) + d.lo)


cdef inline Sum in_units_of_row(const Chunk *chunk, Sum sum) noexcept nogil:
    cdef double power = max(-2040.0, chunk.ratio_power)
    cdef double half = rint(power / 2)    # together they may be less than the smallest number
    sum = times(times(sum, chunk.ratio), exactly(power_of_two(half)))
    return times(sum, exactly(power_of_two(power - half)))


cdef inline bint combine_chunks(
    Chunk *chunks, Py_ssize_t count, double temperature, Row *row, floating type_tag
) noexcept nogil:
    """The row that the chunks make, and their ratios to it. False if it has no finite maximum."""
    cdef Py_ssize_t c
    cdef Chunk *chunk
    cdef Sum scaled
    cdef bint has_nan = False
    row.maximum = -INFINITY
    for c in range(count):
        row.maximum = max(row.maximum, chunks[c].row.maximum)
        has_nan |= chunks[c].row.maximum != chunks[c].row.maximum
        has_nan |= chunks[c].is_finite and chunks[c].row.others.hi != chunks[c].row.others.hi
    if has_nan:
        row.maximum = NAN
    if not fabs(row.maximum) < INFINITY:
        return False
    row.reduction = reduction(<floating> row.maximum, temperature)
    row.maximum_residue = row.reduction.max_residue
    row.maximum_power = 0
    row.maximum_count = 0
    row.others = exactly(0)
    for c in range(count):
        chunk = chunks + c
        if not chunk.is_finite:
            continue
        set_ratio[floating](chunk, &row.reduction, 0)
        scaled = chunk.row.others
        if chunk.row.maximum == row.maximum:
            row.maximum_count += chunk.row.maximum_count
        else:
            scaled = sum_of_row(&chunk.row)
        scaled = in_units_of_row(chunk, scaled)
        row.others = plus(row.others, two_sum(scaled.hi, scaled.lo))
    return True


cdef inline Sum log_sum_of_row(const Row *row, floating type_tag) noexcept nogil:
    """log of the sum of exp((x - maximum) / T), at least 0."""
    cdef Sum sum
    if floating is float and row.maximum_count == 0:
        # The sum is more than two, so that the difference of logarithms in double has all digits
        # that a float needs.
        sum = log_1p(exactly(row.others.hi - 1.0))
        sum.lo -= row.maximum_power * LN2 + row.maximum_residue
        return two_sum(sum.hi, sum.lo)
    sum = times(row.others, exactly(power_of_two(-row.maximum_power)))
    sum = times(sum, exp_sum(-row.maximum_residue))
    return log_1p(plus(exactly(row.maximum_count - 1.0), sum))
