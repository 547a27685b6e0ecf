# cython: language_level=3
"""One row of contiguous numbers: its maximum, its exponentials, their sum.

How plain loops become vector code here: inner loops run over a constant number of lanes, what
belongs to a lane stays in that lane, and results go to local arrays, of which the compiler knows
that they overlap nothing. The number of lanes and the order of every sum are the same for all
instruction sets, so that those with FMA give the same bits.
"""

from cython cimport floating
from libc.math cimport INFINITY, fabs
from libc.string cimport memcpy

from csoftmax.kernels.arithmetic cimport (
    SHIFTED, TEMPERED, UNSHIFTED, Kind, Reduction, Sum, exactly, exp_sum, exponential,
    largest_unshifted, log_1p, plus, power_of_two, reduction, times, two_sum,
)

cdef extern from * nogil:
    """
    #if defined(__GNUC__) || defined(__clang__)
    #define csoftmax_prefetch_to_write(address) __builtin_prefetch(address, 1)
    #else
    #define csoftmax_prefetch_to_write(address) ((void)(address))
    #endif
    """
    void csoftmax_prefetch_to_write(const void *address)


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
    # After a sweep: the maximum is apart (maximum_count terms of it, one or all, are not in `others`),
    # or the sum is so much larger than it that this makes no difference (maximum_count is 0).
    Reduction reduction
    double maximum
    double maximum_count
    Sum others             # the sum of the other exponentials, in units of 2^N
    double unit            # exp(maximum / T) = unit exp(maximum_residue) in units of 2^N,
    double maximum_residue # where unit is 1 unless N was guessed


cdef inline bint fits_chunk(Py_ssize_t n, floating type_tag) noexcept nogil:
    return n <= CHUNK_BYTES // <Py_ssize_t> sizeof(floating)


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


cdef inline void add_to_lane(LaneSums *sums, Py_ssize_t k, floating term) noexcept nogil:
    cdef Sum total
    if floating is float:
        sums.total[k] += term
    else:
        total = two_sum(sums.total[k], term)
        sums.total[k] = total.hi
        sums.lost[k] += total.lo


cdef inline void add_four_to_lane(
    LaneSums *sums, Py_ssize_t k, floating a, floating b, floating c, floating d
) noexcept nogil:
    """As four times add_to_lane, but the chain from one sum to the next is a quarter as long."""
    cdef Sum first, second, total
    if floating is float:
        sums.total[k] += (<double> a + b) + (<double> c + d)
    else:
        first = two_sum(a, b)
        second = two_sum(c, d)
        total = two_sum(first.hi, second.hi)
        sums.lost[k] += first.lo + second.lo + total.lo
        total = two_sum(sums.total[k], total.hi)
        sums.total[k] = total.hi
        sums.lost[k] += total.lo


cdef inline void halve_sums(LaneSums *sums, Py_ssize_t half, floating type_tag) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(half):
        if floating is float:
            sums.total[k] += sums.total[k + half]
        else:
            add_to_lane(sums, k, sums.total[k + half])
            sums.lost[k] += sums.lost[k + half]


cdef inline Sum sum_of_lanes(LaneSums *sums, floating type_tag) noexcept nogil:
    if floating is float:
        halve_sums(sums, 8, type_tag)
    halve_sums(sums, 4, type_tag)
    halve_sums(sums, 2, type_tag)
    halve_sums(sums, 1, type_tag)
    return two_sum(sums.total[0], sums.lost[0])    # so that hi alone is the rounded sum


cdef inline floating exp_of_one(
    const floating *x, floating *e, floating *maximum, floating *count,
    const Reduction *row, bint max_is_known, Kind kind
) noexcept nogil:
    """Write one exponential to e, return what it adds to the sum.

    A known maximum is counted instead: so the others keep all their digits where their sum is small
    beside it, and log(1 + others) is exact. An unknown one is looked for on the way.
    """
    cdef floating value = exponential(x[0], row, kind)
    e[0] = value
    if max_is_known:
        count[0] += 1 if x[0] == maximum[0] else 0
        return 0 if x[0] == maximum[0] else value
    maximum[0] = larger(x[0], maximum[0])
    return value


cdef inline floating exp_of_two(
    const floating *x, floating *e, floating *maximum, floating *count,
    const Reduction *row, bint max_is_known, Kind kind
) noexcept nogil:
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef floating s = exp_of_one(x, e, maximum, count, row, max_is_known, kind)
    x += LANES
    e += LANES
    return s + exp_of_one(x, e, maximum, count, row, max_is_known, kind)


cdef inline floating exp_of_four(
    const floating *x, floating *e, floating *maximum, floating *count,
    const Reduction *row, bint max_is_known, Kind kind
) noexcept nogil:
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef floating s = exp_of_two(x, e, maximum, count, row, max_is_known, kind)
    x += 2 * LANES
    e += 2 * LANES
    return s + exp_of_two(x, e, maximum, count, row, max_is_known, kind)


cdef inline floating exp_of_eight(
    const floating *x, floating *e, floating *maximum, floating *count,
    const Reduction *row, bint max_is_known, Kind kind
) noexcept nogil:
    """The exponentials of one lane in eight groups, their sum as a tree."""
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef floating s = exp_of_four(x, e, maximum, count, row, max_is_known, kind)
    x += 4 * LANES
    e += 4 * LANES
    return s + exp_of_four(x, e, maximum, count, row, max_is_known, kind)


cdef inline void exp_of_four_to_lane(
    const floating *x, floating *e, LaneSums *sums, Py_ssize_t k, floating *maximum,
    floating *count, const Reduction *row, Kind kind
) noexcept nogil:
    """As exp_of_four for a known maximum, with a sum that is not rounded."""
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef floating a = exp_of_one(x, e, maximum, count, row, True, kind)
    cdef floating b = exp_of_one(x + LANES, e + LANES, maximum, count, row, True, kind)
    cdef floating c = exp_of_one(x + 2 * LANES, e + 2 * LANES, maximum, count, row, True, kind)
    cdef floating d = exp_of_one(x + 3 * LANES, e + 3 * LANES, maximum, count, row, True, kind)
    add_four_to_lane(sums, k, a, b, c, d)


cdef inline void exp_chunk(
    const floating *x, floating *e, const floating *y, Py_ssize_t n, LaneSums *sums,
    floating *maxima, double *count, const Reduction *row, bint max_is_known, Kind kind
) noexcept nogil:
    """Write n exponentials to e, which has room for whole lanes, and add them to `sums`.

    y, if not NULL, is where the results will go: fetched meanwhile, it costs no time later.

    `maxima`, one per lane, is the known maximum, whose terms are added to `count`, or is updated. A
    sum whose largest term is known must be good to the last digit: its terms go to the doubles one
    by one. Else eight are added in their own type before, which `exponentials_in_one_sweep` mends
    where it shows.
    """
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef floating counts[FLOAT_LANES]
    cdef floating tail[FLOAT_LANES]
    cdef floating s
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t k
    for k in range(LANES):
        counts[k] = 0
    while not max_is_known and i + GROUPS * LANES <= n:
        for k in range(LANES):
            s = exp_of_eight(x + i + k, e + i + k, maxima + k, counts + k, row, max_is_known, kind)
            add_to_lane(sums, k, s)
        if y != NULL:
            for k in range(GROUPS):
                csoftmax_prefetch_to_write(y + i + k * LANES)
        i += GROUPS * LANES
    while max_is_known and i + 4 * LANES <= n:
        for k in range(LANES):
            exp_of_four_to_lane(
                x + i + k, e + i + k, sums, k, maxima + k, counts + k, row, kind
            )
        if y != NULL:
            for k in range(4):
                csoftmax_prefetch_to_write(y + i + k * LANES)
        i += 4 * LANES
    while i + LANES <= n:
        for k in range(LANES):
            s = exp_of_one(x + i + k, e + i + k, maxima + k, counts + k, row, max_is_known, kind)
            add_to_lane(sums, k, s)
        i += LANES
    if i < n:
        for k in range(LANES):
            tail[k] = -INFINITY
        memcpy(tail, x + i, (n - i) * sizeof(floating))
        for k in range(LANES):
            s = exp_of_one(tail + k, e + i + k, maxima + k, counts + k, row, max_is_known, kind)
            add_to_lane(sums, k, s)
    if max_is_known:
        for k in range(LANES):
            count[0] += counts[k]


cdef inline void clear_lanes(LaneSums *sums) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(FLOAT_LANES):
        sums.total[k] = 0
        sums.lost[k] = 0


cdef inline void set_maximum_apart(
    const floating *x, floating *e, Py_ssize_t n, const floating *maxima, Row *row
) noexcept nogil:
    """Add up e again without one maximum, term by term; `maxima` of the lanes tell where it is."""
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef floating maximum = <floating> row.maximum
    cdef floating maximum_term
    cdef Py_ssize_t position = 0, i = 0, k
    cdef LaneSums sums
    while maxima[position] != maximum:
        position += 1
    while x[position] != maximum:
        position += LANES
    maximum_term = e[position]
    e[position] = 0
    clear_lanes(&sums)
    while i + 4 * LANES <= n:
        for k in range(LANES):
            add_four_to_lane(
                &sums, k,
                e[i + k], e[i + LANES + k], e[i + 2 * LANES + k], e[i + 3 * LANES + k],
            )
        i += 4 * LANES
    while i < n:    # the last lanes beyond n are 0, as exponentials of -inf
        for k in range(LANES):
            add_to_lane(&sums, k, e[i + k])
        i += LANES
    e[position] = maximum_term
    row.others = sum_of_lanes[floating](&sums, 0)
    row.maximum_count = 1


cdef inline bint exponentials_in_one_sweep(
    const floating *x, floating *e, const floating *y, Py_ssize_t n, Row *row
) noexcept nogil:
    """Exponentials to e and their sum, without a sweep for the maximum before.

    N is guessed from the first numbers. The true maximum is known afterwards; where it is so much
    larger that exponentials may have overflowed, or where the guess is not an ordinary number,
    the answer is False and e worthless.
    """
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating), k
    cdef floating maxima[FLOAT_LANES]
    cdef floating largest[FLOAT_LANES]
    cdef LaneSums sums
    cdef Reduction of_maximum
    cdef double headroom = 40.0 if floating is float else 400.0
    cdef floating guess
    if n < 4 * LANES:
        return False
    for k in range(LANES):
        largest[k] = max_of_four(x + k)
    guess = max_of_lanes(largest)
    if not fabs(guess) < largest_unshifted[floating](0) - headroom:
        return False
    row.reduction = reduction(guess, 1.0)
    clear_lanes(&sums)
    for k in range(LANES):
        maxima[k] = x[k]
    exp_chunk(x, e, y, n, &sums, maxima, NULL, &row.reduction, False, UNSHIFTED)
    for k in range(LANES):
        largest[k] = maxima[k]
    row.maximum = max_of_lanes(largest)
    if not row.maximum - guess < headroom:
        return False
    row.others = sum_of_lanes[floating](&sums, 0)
    row.maximum_count = 0
    of_maximum = reduction(<floating> row.maximum, 1.0)
    row.maximum_residue = of_maximum.max_residue
    row.unit = power_of_two(of_maximum.power - row.reduction.power)
    if row.others.hi < DOMINATED * row.unit:
        set_maximum_apart(x, e, n, maxima, row)
    return True


cdef inline bint exponentials(
    const floating *x, floating *e, floating *y, Py_ssize_t n, double temperature, Row *row
) noexcept nogil:
    """Exponentials to e, a chunk, or to y if they are longer than that (y NULL: to neither).

    False if the row has no finite maximum, or a NaN in its place.
    """
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating), k
    cdef Py_ssize_t CHUNK = CHUNK_BYTES // <Py_ssize_t> sizeof(floating)
    cdef Py_ssize_t left = n, length
    cdef floating maxima[FLOAT_LANES]
    cdef LaneSums sums
    cdef double *count = &row.maximum_count
    cdef floating maximum
    if n == 0:
        return False
    maximum = row_max(x, n)
    row.maximum = maximum
    if not fabs(maximum) < INFINITY:
        return False
    row.reduction = reduction(maximum, temperature)
    row.maximum_residue = row.reduction.max_residue
    row.unit = 1.0
    row.maximum_count = 0
    clear_lanes(&sums)
    for k in range(LANES):
        maxima[k] = maximum
    while left > 0:
        length = min(CHUNK, left)
        if row.reduction.kind == UNSHIFTED:
            exp_chunk(x, e, y, length, &sums, maxima, count, &row.reduction, True, UNSHIFTED)
        elif row.reduction.kind == SHIFTED:
            exp_chunk(x, e, y, length, &sums, maxima, count, &row.reduction, True, SHIFTED)
        else:
            exp_chunk(x, e, y, length, &sums, maxima, count, &row.reduction, True, TEMPERED)
        if y != NULL and n > CHUNK:
            memcpy(y, e, length * sizeof(floating))
        if y != NULL:
            y += length
        x += length
        left -= length
    row.others = sum_of_lanes[floating](&sums, 0)
    return True


cdef inline Sum sum_of_row(const Row *row) noexcept nogil:
    """The sum of all exponentials, in units of 2^N."""
    return plus(
        times(exp_sum(row.maximum_residue), exactly(row.maximum_count * row.unit)), row.others
    )


cdef inline Sum log_sum_of_row(const Row *row) noexcept nogil:
    """log of the sum of exp((x - maximum) / T), at least 0."""
    cdef Sum others = times(row.others, exactly(1.0 / row.unit))
    others = times(others, exp_sum(-row.maximum_residue))
    return log_1p(plus(exactly(row.maximum_count - 1.0), others))
