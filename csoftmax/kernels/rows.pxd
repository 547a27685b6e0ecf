# cython: language_level=3
"""One row of contiguous numbers: its maximum, its exponentials, their sum.

How plain loops become vector code here: inner loops run over a constant number of lanes, what
belongs to a lane stays in that lane, and results go to local arrays, of which the compiler knows
that they overlap nothing. The number of lanes and the order of every sum are the same for all
instruction sets, so that those with FMA give the same bits.
"""

from cython cimport floating
from libc.math cimport INFINITY, NAN, fabs, rint
from libc.string cimport memcpy

from csoftmax.kernels.arithmetic cimport (
    LN2_HI_DOUBLE, LN2_LO_DOUBLE, LOG2_E, SHIFTED, TEMPERED, UNSHIFTED, Kind, Reduction, Sum,
    exact_fma, exactly, exp_sum, exponential, largest_unshifted, log_1p, plus, power_of_two,
    reduction, times, two_sum,
)

cdef extern from * nogil:
    """
    #if defined(__GNUC__) || defined(__clang__)
    #define csoftmax_prefetch_to_write(address) __builtin_prefetch(address, 1)
    #else
    #define csoftmax_prefetch_to_write(address) ((void)(address))
    #endif

    #define SMALL_FLOAT_SUM 0x1p-20
    #define SMALL_DOUBLE_SUM 0x1p-45
    """
    void csoftmax_prefetch_to_write(const void *address)
    const double SMALL_FLOAT_SUM, SMALL_DOUBLE_SUM


cdef enum:
    LANE_BYTES = 64
    FLOAT_LANES = 16      # LANE_BYTES of float; double has half as many
    GROUPS = 8            # exponentials of a lane that exp_of_eight adds up in their own type
    CHUNK_BYTES = 16384   # of exponentials in a local buffer: half of a small L1 cache
    FLOAT_CHUNK = 4096
    # Where the sum is less than so many times its largest term, the rounding of eight such terms
    # that were added in their own type would show.
    DOMINATED = 16


cdef struct LaneSums:
    # Per lane: the sum of the exponentials, and what its rounding lost (double only).
    double total[FLOAT_LANES]
    double lost[FLOAT_LANES]


cdef struct Row:
    # After a sweep. The maximum is apart: maximum_count terms of it are not in `others`.
    Reduction reduction
    double maximum
    double maximum_count
    Sum others             # the sum of the other exponentials, in units of 2^N
    double unit            # exp(maximum / T) = unit exp(maximum_residue) in units of 2^N,
    double maximum_residue # where unit is 1 unless N was guessed


cdef inline floating larger(floating a, floating b) noexcept nogil:
    """As the vector instruction does it: b if either is NaN."""
    return a if a > b else b


cdef inline void halve_maxima(floating *lanes, Py_ssize_t half) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(half):
        lanes[k] = larger(lanes[k + half], lanes[k])


cdef inline floating max_of_lanes(floating *lanes) noexcept nogil:
    """A tree with constant lengths: a loop over the lanes would cost as much as 100 numbers."""
    if floating is float:
        halve_maxima(lanes, 8)
    halve_maxima(lanes, 4)
    halve_maxima(lanes, 2)
    return larger(lanes[1], lanes[0])


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


cdef inline void add(double *total, double *lost, floating term) noexcept nogil:
    """To a lane's sum."""
    cdef Sum sum
    if floating is float:
        total[0] += term
    else:
        sum = two_sum(total[0], term)
        total[0] = sum.hi
        lost[0] += sum.lo


cdef inline void add_four(
    double *total, double *lost, floating a, floating b, floating c, floating d
) noexcept nogil:
    """As four times add, but the chain from one sum to the next is a quarter as long."""
    cdef Sum first, second, sum
    if floating is float:
        total[0] += (<double> a + b) + (<double> c + d)
    else:
        first = two_sum(a, b)
        second = two_sum(c, d)
        sum = two_sum(first.hi, second.hi)
        lost[0] += first.lo + second.lo + sum.lo
        sum = two_sum(total[0], sum.hi)
        total[0] = sum.hi
        lost[0] += sum.lo


cdef inline void halve_sums(LaneSums *sums, Py_ssize_t half, floating type_tag) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(half):
        if floating is float:
            sums.total[k] += sums.total[k + half]
        else:
            add(sums.total + k, sums.lost + k, sums.total[k + half])
            sums.lost[k] += sums.lost[k + half]


cdef inline Sum sum_of_lanes(LaneSums *sums, floating type_tag) noexcept nogil:
    if floating is float:
        halve_sums(sums, 8, type_tag)
    halve_sums(sums, 4, type_tag)
    halve_sums(sums, 2, type_tag)
    halve_sums(sums, 1, type_tag)
    return two_sum(sums.total[0], sums.lost[0])    # so that hi alone is the rounded sum


cdef inline floating exp_of_one(
    const floating *x, floating *e, floating *maximum, const Reduction *row, Kind kind
) noexcept nogil:
    """Write one exponential to e and return it; look for the maximum on the way."""
    e[0] = exponential(x[0], row, kind)
    maximum[0] = larger(x[0], maximum[0])
    return e[0]


cdef inline floating exp_of_two(
    const floating *x, floating *e, floating *maximum, const Reduction *row, Kind kind
) noexcept nogil:
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef floating s = exp_of_one(x, e, maximum, row, kind)
    return s + exp_of_one(x + LANES, e + LANES, maximum, row, kind)


cdef inline floating exp_of_four(
    const floating *x, floating *e, floating *maximum, const Reduction *row, Kind kind
) noexcept nogil:
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef floating s = exp_of_two(x, e, maximum, row, kind)
    return s + exp_of_two(x + 2 * LANES, e + 2 * LANES, maximum, row, kind)


cdef inline floating exp_of_eight(
    const floating *x, floating *e, floating *maximum, const Reduction *row, Kind kind
) noexcept nogil:
    """The exponentials of one lane in eight groups, their sum as a tree."""
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef floating s = exp_of_four(x, e, maximum, row, kind)
    return s + exp_of_four(x + 4 * LANES, e + 4 * LANES, maximum, row, kind)


cdef inline void exp_of_four_to_lane(
    const floating *x, floating *e, double *total, double *lost, floating *maximum,
    const Reduction *row, Kind kind
) noexcept nogil:
    """As exp_of_four, with a sum that is not rounded."""
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef floating a = exp_of_one(x, e, maximum, row, kind)
    cdef floating b = exp_of_one(x + LANES, e + LANES, maximum, row, kind)
    cdef floating c = exp_of_one(x + 2 * LANES, e + 2 * LANES, maximum, row, kind)
    cdef floating d = exp_of_one(x + 3 * LANES, e + 3 * LANES, maximum, row, kind)
    add_four(total, lost, a, b, c, d)


cdef inline void exp_chunk(
    const floating *x, floating *e, const floating *y, Py_ssize_t n, LaneSums *sums,
    floating *maxima, const Reduction *row, bint in_eights, Kind kind
) noexcept nogil:
    """Write n exponentials to e, which has room for whole lanes, and add them to `sums`.

    `in_eights`: eight are added in their own type before, which costs a fraction, and shows where a
    few terms make most of the sum. `maxima`, one per lane, are updated. y, if not NULL, is where
    the results will go: fetched meanwhile, it costs no time later.
    """
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef floating tail[FLOAT_LANES]
    cdef floating s
    cdef Py_ssize_t i = 0, k, done
    while in_eights and i + GROUPS * LANES <= n:
        for k in range(LANES):
            s = exp_of_eight(x + i + k, e + i + k, maxima + k, row, kind)
            add(sums.total + k, sums.lost + k, s)
        if y != NULL:
            for k in range(GROUPS):
                csoftmax_prefetch_to_write(y + i + k * LANES)
        i += GROUPS * LANES
    while i + 4 * LANES <= n:
        for k in range(LANES):
            exp_of_four_to_lane(
                x + i + k, e + i + k, sums.total + k, sums.lost + k, maxima + k, row, kind
            )
        if y != NULL:
            for k in range(4):
                csoftmax_prefetch_to_write(y + i + k * LANES)
        i += 4 * LANES
    while i + LANES <= n:
        for k in range(LANES):
            s = exp_of_one(x + i + k, e + i + k, maxima + k, row, kind)
            add(sums.total + k, sums.lost + k, s)
        i += LANES
    if i < n and n >= LANES:    # the last step overlaps the one before
        done = i + LANES - n
        i = n - LANES
        for k in range(LANES):
            s = exp_of_one(x + i + k, e + i + k, maxima + k, row, kind)
            add(sums.total + k, sums.lost + k, 0 if k < done else s)
    elif i < n:
        for k in range(LANES):
            tail[k] = -INFINITY
        memcpy(tail, x, n * sizeof(floating))
        for k in range(LANES):
            s = exp_of_one(tail + k, e + k, maxima + k, row, kind)
            add(sums.total + k, sums.lost + k, s)


cdef inline void clear_lanes(LaneSums *sums) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(FLOAT_LANES):
        sums.total[k] = 0
        sums.lost[k] = 0


cdef inline Sum sum_without(
    const floating *e, Py_ssize_t n, floating left_out
) noexcept nogil:
    """The sum of e without rounding, terms of one value left out (0: none)."""
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef Py_ssize_t i = 0, k
    cdef LaneSums sums
    clear_lanes(&sums)
    while left_out == 0 and i + 4 * LANES <= n:
        for k in range(LANES):
            add_four(
                sums.total + k, sums.lost + k,
                e[i + k], e[i + LANES + k], e[i + 2 * LANES + k], e[i + 3 * LANES + k],
            )
        i += 4 * LANES
    while i + LANES <= n:
        for k in range(LANES):
            add(sums.total + k, sums.lost + k, 0 if e[i + k] == left_out else e[i + k])
        i += LANES
    for k in range(n - i):
        add(sums.total + k, sums.lost + k, 0 if e[i + k] == left_out else e[i + k])
    return sum_of_lanes[floating](&sums, 0)


cdef inline double smallest_difference(floating type_tag) noexcept nogil:
    """Of a sum and its largest term: below, it is made anew without that term.

    In units of the term. The sum has an error of 2^-53 (double: 2^-104), so that at least as many
    digits of the difference are right as the type has.
    """
    return SMALL_FLOAT_SUM if floating is float else SMALL_DOUBLE_SUM


cdef inline void set_maximum_apart(
    const floating *e, Py_ssize_t n, floating maximum_term, bint in_eights, Row *row
) noexcept nogil:
    """From the sum of all to that of the others, which is all that small losses consist of."""
    if in_eights and row.others.hi < DOMINATED * maximum_term:
        row.others = sum_without[floating](e, n, 0)
    row.others = plus(row.others, exactly(-maximum_term))
    row.maximum_count = 1
    if row.others.hi < smallest_difference[floating](0) * maximum_term:
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


cdef inline Sum sweep(
    const floating *x, floating *e, const floating *y, Py_ssize_t n, const Reduction *row,
    floating start, floating *maximum, bint in_eights, Kind kind
) noexcept nogil:
    """Exponentials to e. Returns their sum; `maximum` is at least `start`."""
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating), k
    cdef floating maxima[FLOAT_LANES]
    cdef LaneSums sums
    clear_lanes(&sums)
    for k in range(LANES):
        maxima[k] = start
    exp_chunk(x, e, y, n, &sums, maxima, row, in_eights, kind)
    maximum[0] = max_of_lanes(maxima)
    return sum_of_lanes[floating](&sums, 0)


cdef inline bint exponentials_in_one_sweep(
    const floating *x, floating *e, const floating *y, Py_ssize_t n, Row *row
) noexcept nogil:
    """Exponentials to e and their sum, without a sweep for the maximum before.

    N is guessed from the first numbers. The true maximum is known afterwards; where it is so much
    larger that exponentials may have overflowed, or where the guess is not an ordinary number,
    the answer is False and e worthless.
    """
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef Reduction of_maximum
    cdef floating guess, maximum
    if n < 4 * LANES:
        return False
    guess = guess_of_maximum(x)
    if not can_be_guessed[floating](guess, 0):
        return False
    row.reduction = reduction(guess, 1.0)
    row.others = sweep(x, e, y, n, &row.reduction, guess, &maximum, True, UNSHIFTED)
    if not maximum - guess < headroom[floating](0):
        return False
    row.maximum = maximum
    of_maximum = reduction(maximum, 1.0)
    row.maximum_residue = of_maximum.max_residue
    row.unit = power_of_two(of_maximum.power - row.reduction.power)
    set_maximum_apart(e, n, exponential(maximum, &row.reduction, UNSHIFTED), True, row)
    return True


cdef inline bint exponentials_in_two_sweeps(
    const floating *x, floating *e, const floating *y, Py_ssize_t n, double temperature, Row *row
) noexcept nogil:
    """Exponentials to e and their sum. False if there is no finite maximum."""
    cdef floating maximum = row_max(x, n)
    cdef bint is_finite = fabs(maximum) < INFINITY
    cdef Kind kind
    row.reduction = reduction(maximum if is_finite else <floating> 0, temperature)
    row.maximum = maximum
    row.maximum_count = 1
    row.maximum_residue = row.reduction.max_residue
    row.unit = 1.0
    row.others = exactly(0)
    if not is_finite:
        return False
    kind = row.reduction.kind
    if kind == UNSHIFTED:
        row.others = sweep(x, e, y, n, &row.reduction, maximum, &maximum, False, UNSHIFTED)
    elif kind == SHIFTED:
        row.others = sweep(x, e, y, n, &row.reduction, maximum, &maximum, False, SHIFTED)
    else:
        row.others = sweep(x, e, y, n, &row.reduction, maximum, &maximum, False, TEMPERED)
    set_maximum_apart(e, n, exponential(maximum, &row.reduction, kind), False, row)
    return True


cdef inline bint has_nan(const floating *x, Py_ssize_t x_step, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        if x[i * x_step] != x[i * x_step]:
            return True
    return False


cdef inline bint exponentials(
    const floating *x, floating *e, const floating *y, Py_ssize_t n, double temperature, Row *row
) noexcept nogil:
    """Exponentials to e and their sum, for 1 <= n <= CHUNK.

    False if the maximum is not finite; row.maximum is then NaN if there is one. y is as in
    exp_chunk.
    """
    if temperature == 1.0 and exponentials_in_one_sweep(x, e, y, n, row):
        return True
    if exponentials_in_two_sweeps(x, e, y, n, temperature, row):
        return True
    if has_nan(x, 1, n):
        row.maximum = NAN
    return False


cdef inline Sum sum_of_row(const Row *row) noexcept nogil:
    """The sum of all exponentials, in units of 2^N."""
    return plus(
        times(exp_sum(row.maximum_residue), exactly(row.maximum_count * row.unit)), row.others
    )


# Rows longer than a chunk: chunks have exponentials and sums of their own, each in its own unit,
# which are brought together afterwards. Where a chunk begins depends on nothing else, so threads
# can share a row without a trace in the result.

cdef struct Chunk:
    Row row
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


cdef inline bint combine_chunks(
    Chunk *chunks, Py_ssize_t count, double temperature, Row *row, floating type_tag
) noexcept nogil:
    """The row that the chunks make, and their ratios to it. False if it has no finite maximum."""
    cdef Py_ssize_t c
    cdef Chunk *chunk
    cdef Sum scaled
    cdef double power, half
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
    row.unit = 1.0
    row.maximum_count = 0
    row.others = exactly(0)
    for c in range(count):
        chunk = chunks + c
        if not chunk.is_finite:
            continue
        set_ratio[floating](chunk, &row.reduction, 0)
        scaled = chunk.row.others
        if chunk.row.maximum == row.maximum:
            row.maximum_count += 1
        else:
            scaled = sum_of_row(&chunk.row)
        power = max(-2040.0, chunk.ratio_power)
        half = rint(power / 2)    # together they may be less than the smallest number
        scaled = times(times(scaled, chunk.ratio), exactly(power_of_two(half)))
        scaled = times(scaled, exactly(power_of_two(power - half)))
        row.others = plus(row.others, two_sum(scaled.hi, scaled.lo))
    return True


cdef inline Sum log_sum_of_row(const Row *row) noexcept nogil:
    """log of the sum of exp((x - maximum) / T), at least 0."""
    cdef Sum others = times(row.others, exactly(1.0 / row.unit))
    others = times(others, exp_sum(-row.maximum_residue))
    return log_1p(plus(exactly(row.maximum_count - 1.0), others))
