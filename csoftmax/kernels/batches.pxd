# cython: language_level=3
"""Many short rows at a time: what every row costs beside its numbers is shared, or done in vectors.

A batch has rows in one of two layouts. In ROWS, each row is contiguous. In COLUMNS, row stands
beside row, and lanes run across them, each lane with a reduction and a sum of its own: an axis that
is not the last, or few classes that were copied so. What follows the sums, a reciprocal or a
logarithm, is a loop over the rows of the batch in both, and becomes vector code as well.

Rows go through the same operations in the same order whatever stands beside them, so that a result
does not depend on where a batch begins.
"""

from cython cimport floating
from csoftmax.kernels.arithmetic cimport (
    SHIFTED, TEMPERED, UNSHIFTED, Kind, Reduction, Sum, exponential, power_of_two,
    reduction, two_sum,
)
from csoftmax.kernels.rows cimport (
    DOMINATED, FLOAT_LANES, LANE_BYTES, Row, add, add_four, can_be_guessed,
    exponentials, exponentials_in_two_sweeps, guess_of_maximum, headroom, larger, set_maximum_apart,
    smallest_difference, sweep,
)


cdef enum:
    MAX_BATCH = 128     # rows; as columns, 512 bytes of each number's floats


cdef enum Layout:
    ROWS
    COLUMNS


cdef struct Batch:
    # The fields of `Row`, and of its reduction, for each row. Loops run over whole lanes of rows;
    # `padded` is the number of rows rounded up to that.
    Kind kind
    Py_ssize_t rows
    Py_ssize_t padded
    double maximum[MAX_BATCH]
    double maximum_residue[MAX_BATCH]
    double unit[MAX_BATCH]
    double others_hi[MAX_BATCH]
    double others_lo[MAX_BATCH]
    double magic[MAX_BATCH]
    double lowest[MAX_BATCH]
    double shift[MAX_BATCH]
    double scale_before[MAX_BATCH]
    double scale_after[MAX_BATCH]
    double log2_e[MAX_BATCH]
    double inverse_hi[MAX_BATCH]
    double inverse_lo[MAX_BATCH]


cdef inline Py_ssize_t whole_lanes(Py_ssize_t numbers, floating type_tag) noexcept nogil:
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    return (numbers + LANES - 1) // LANES * LANES


cdef inline void set_reduction_without_temperature(
    Batch *batch, Py_ssize_t r, const Reduction *reduction
) noexcept nogil:
    batch.maximum_residue[r] = reduction.max_residue
    batch.unit[r] = 1.0
    batch.shift[r] = reduction.shift
    batch.magic[r] = reduction.magic
    batch.lowest[r] = reduction.lowest


cdef inline void set_reduction(
    Batch *batch, Py_ssize_t r, const Reduction *reduction
) noexcept nogil:
    set_reduction_without_temperature(batch, r, reduction)
    batch.scale_before[r] = reduction.scale_before
    batch.scale_after[r] = reduction.scale_after
    batch.log2_e[r] = reduction.log2_e
    batch.inverse_hi[r] = reduction.inverse_hi
    batch.inverse_lo[r] = reduction.inverse_lo


cdef inline void start_batch(Batch *batch, Py_ssize_t rows, floating type_tag) noexcept nogil:
    batch.rows = rows
    batch.padded = whole_lanes[floating](rows, 0)


cdef inline Reduction reduction_of(const Batch *batch, Py_ssize_t r) noexcept nogil:
    cdef Reduction reduced
    reduced.kind = batch.kind
    reduced.shift = batch.shift[r]
    reduced.magic = batch.magic[r]
    reduced.lowest = batch.lowest[r]
    reduced.scale_before = batch.scale_before[r]
    reduced.scale_after = batch.scale_after[r]
    reduced.log2_e = batch.log2_e[r]
    reduced.inverse_hi = batch.inverse_hi[r]
    reduced.inverse_lo = batch.inverse_lo[r]
    return reduced


cdef inline Row row_of(const Batch *batch, Py_ssize_t r) noexcept nogil:
    cdef Row row
    row.reduction = reduction_of(batch, r)
    row.maximum = batch.maximum[r]
    row.maximum_count = 1.0
    row.maximum_residue = batch.maximum_residue[r]
    row.others.hi = batch.others_hi[r]
    row.others.lo = batch.others_lo[r]
    row.unit = batch.unit[r]
    return row


cdef inline bint are_tempered(
    const Batch *batch, const char *temperatures, Py_ssize_t step
) noexcept nogil:
    cdef Py_ssize_t r
    cdef bint tempered = False
    for r in range(batch.rows if step else 1):
        tempered |= (<double *> (temperatures + r * step))[0] != 1.0
    return tempered


cdef inline void set_reductions(
    Batch *batch, const char *temperatures, Py_ssize_t step, floating type_tag
) noexcept nogil:
    """From the maxima."""
    cdef Py_ssize_t r
    cdef Reduction row
    cdef double temperature
    cdef bint shifted = False
    if are_tempered(batch, temperatures, step):
        for r in range(batch.rows):
            temperature = (<double *> (temperatures + r * step))[0]
            row = reduction(<floating> batch.maximum[r], temperature)
            set_reduction(batch, r, &row)
        for r in range(batch.rows, batch.padded):
            set_reduction(batch, r, &row)
        batch.kind = TEMPERED
        return
    for r in range(batch.padded):
        row = reduction(<floating> batch.maximum[r], 1.0)
        set_reduction_without_temperature(batch, r, &row)
    for r in range(batch.padded):
        shifted |= batch.shift[r] != 0
    batch.kind = SHIFTED if shifted else UNSHIFTED


cdef inline void set_maxima_of_columns(
    const floating *x, Py_ssize_t x_step, Py_ssize_t n, Batch *batch
) noexcept nogil:
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef floating maxima[MAX_BATCH]
    cdef Py_ssize_t i, block, k
    for block in range(batch.padded // LANES):
        for k in range(LANES):
            maxima[block * LANES + k] = x[block * LANES + k]
    for i in range(1, n):
        for block in range(batch.padded // LANES):
            for k in range(LANES):
                maxima[block * LANES + k] = larger(
                    x[i * x_step + block * LANES + k], maxima[block * LANES + k]
                )
    for k in range(batch.padded):
        batch.maximum[k] = maxima[k]


cdef inline Sum sum_of_column_without(
    const floating *x, Py_ssize_t step, Py_ssize_t n, floating left_out, bint are_exponentials,
    const Reduction *reduced, Kind kind
) noexcept nogil:
    """As sum_without, from exponentials or from logits."""
    cdef double total = 0, lost = 0
    cdef floating term
    cdef Py_ssize_t i
    for i in range(n):
        term = x[i * step] if are_exponentials else exponential(x[i * step], reduced, kind)
        add(&total, &lost, 0 if term == left_out else term)
    return two_sum(total, lost)


cdef inline void set_maxima_apart(
    const floating *x, Py_ssize_t x_step, Py_ssize_t n, Batch *batch, bint are_exponentials,
    Kind kind
) noexcept nogil:
    """set_maximum_apart of each column."""
    cdef floating maximum_term[MAX_BATCH]
    cdef double smallest = smallest_difference[floating](0)
    cdef bint is_any_small = False
    cdef Reduction reduced
    cdef Sum sum
    cdef Py_ssize_t r
    for r in range(batch.padded):
        reduced = reduction_of(batch, r)
        maximum_term[r] = exponential(<floating> batch.maximum[r], &reduced, kind)
        sum = two_sum(batch.others_hi[r], -maximum_term[r])
        batch.others_hi[r] = sum.hi
        batch.others_lo[r] += sum.lo
        is_any_small |= sum.hi < smallest * maximum_term[r]
    if not is_any_small:
        return
    for r in range(batch.rows):
        if batch.others_hi[r] < smallest * maximum_term[r]:
            reduced = reduction_of(batch, r)
            sum = sum_of_column_without(
                x + r, x_step, n, maximum_term[r], are_exponentials, &reduced, kind
            )
            batch.others_hi[r] = sum.hi
            batch.others_lo[r] = sum.lo


cdef inline Reduction reduction_of_lane(
    const Batch *batch, Py_ssize_t lane, const floating *magic, const floating *lowest,
    const floating *shift
) noexcept nogil:
    """reduction_of, its most used fields from copies in the type of the numbers."""
    cdef Reduction reduced = reduction_of(batch, lane)
    reduced.magic = magic[lane]
    reduced.lowest = lowest[lane]
    reduced.shift = shift[lane]
    return reduced


cdef inline void sweep_columns(
    const floating *x, Py_ssize_t x_step, floating *e, Py_ssize_t e_step, Py_ssize_t n,
    Batch *batch, bint keep, Kind kind
) noexcept nogil:
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef Py_ssize_t blocks = batch.padded // LANES
    cdef floating magic[MAX_BATCH]
    cdef floating lowest[MAX_BATCH]
    cdef floating shift[MAX_BATCH]
    cdef double total[MAX_BATCH]
    cdef double lost[MAX_BATCH]
    cdef floating first[FLOAT_LANES]
    cdef floating second[FLOAT_LANES]
    cdef floating third[FLOAT_LANES]
    cdef floating fourth[FLOAT_LANES]
    cdef const floating *from_x
    cdef floating *to_e
    cdef Reduction reduced
    cdef Sum sum
    cdef Py_ssize_t i = 0, block, k, lane
    for lane in range(batch.padded):
        magic[lane] = <floating> batch.magic[lane]
        lowest[lane] = <floating> batch.lowest[lane]
        shift[lane] = <floating> batch.shift[lane]
        total[lane] = 0
        lost[lane] = 0
    while i + 4 <= n:
        for block in range(blocks):
            from_x = x + i * x_step + block * LANES
            to_e = e + i * e_step + block * LANES
            for k in range(LANES):
                lane = block * LANES + k
                reduced = reduction_of_lane(batch, lane, magic, lowest, shift)
                first[k] = exponential(from_x[k], &reduced, kind)
                second[k] = exponential(from_x[x_step + k], &reduced, kind)
                third[k] = exponential(from_x[2 * x_step + k], &reduced, kind)
                fourth[k] = exponential(from_x[3 * x_step + k], &reduced, kind)
                add_four(total + lane, lost + lane, first[k], second[k], third[k], fourth[k])
            if keep:    # through local arrays, as e may be x
                for k in range(LANES):
                    to_e[k] = first[k]
                for k in range(LANES):
                    to_e[e_step + k] = second[k]
                for k in range(LANES):
                    to_e[2 * e_step + k] = third[k]
                for k in range(LANES):
                    to_e[3 * e_step + k] = fourth[k]
        i += 4
    while i < n:
        for block in range(blocks):
            from_x = x + i * x_step + block * LANES
            to_e = e + i * e_step + block * LANES
            for k in range(LANES):
                lane = block * LANES + k
                reduced = reduction_of_lane(batch, lane, magic, lowest, shift)
                first[k] = exponential(from_x[k], &reduced, kind)
                add(total + lane, lost + lane, first[k])
            if keep:
                for k in range(LANES):
                    to_e[k] = first[k]
        i += 1
    for lane in range(batch.padded):
        sum = two_sum(total[lane], lost[lane])
        batch.others_hi[lane] = sum.hi
        batch.others_lo[lane] = sum.lo
    if keep:
        set_maxima_apart(e, e_step, n, batch, True, kind)
    else:
        set_maxima_apart(x, x_step, n, batch, False, kind)


cdef inline void exponentials_of_columns(
    const floating *x, Py_ssize_t x_step, floating *e, Py_ssize_t e_step, Py_ssize_t n,
    const char *temperatures, Py_ssize_t temperature_step, Batch *batch, bint keep
) noexcept nogil:
    """Exponentials to e, unless not to be kept, and the sums to `batch`.

    Steps are from number to number. x and e have room for whole lanes of rows; e may be x.
    """
    set_maxima_of_columns(x, x_step, n, batch)
    set_reductions[floating](batch, temperatures, temperature_step, 0)
    if batch.kind == UNSHIFTED:
        sweep_columns(x, x_step, e, e_step, n, batch, keep, UNSHIFTED)
    elif batch.kind == SHIFTED:
        sweep_columns(x, x_step, e, e_step, n, batch, keep, SHIFTED)
    else:
        sweep_columns(x, x_step, e, e_step, n, batch, keep, TEMPERED)


cdef inline void set_row(Batch *batch, Py_ssize_t r, const Row *row) noexcept nogil:
    batch.maximum[r] = row.maximum
    batch.maximum_residue[r] = row.maximum_residue
    batch.unit[r] = row.unit
    batch.others_hi[r] = row.others.hi
    batch.others_lo[r] = row.others.lo


cdef inline void exponentials_of_guessed_rows(
    const floating *x, Py_ssize_t x_step, floating *e, Py_ssize_t e_step, const floating *y,
    Py_ssize_t y_step, Py_ssize_t n, Batch *batch
) noexcept nogil:
    """exponentials_in_one_sweep of each row, in stages, so that rows don't wait for one another."""
    cdef floating guess[MAX_BATCH]
    cdef floating maximum[MAX_BATCH]
    cdef double maximum_term[MAX_BATCH]
    cdef double others_hi[MAX_BATCH]
    cdef double others_lo[MAX_BATCH]
    cdef Reduction of_guess, of_maximum
    cdef Row row
    cdef Sum sum
    cdef Py_ssize_t r
    for r in range(batch.rows):
        guess[r] = guess_of_maximum(x + r * x_step)
    for r in range(batch.rows, batch.padded):
        guess[r] = 0
    for r in range(batch.padded):
        of_guess = reduction(guess[r], 1.0)
        batch.magic[r] = of_guess.magic
        batch.lowest[r] = of_guess.lowest
        batch.unit[r] = of_guess.power
    batch.kind = UNSHIFTED
    for r in range(batch.rows):
        of_guess = reduction_of(batch, r)
        sum = sweep(
            x + r * x_step, e + r * e_step, y + r * y_step if y != NULL else NULL, n, &of_guess,
            guess[r], maximum + r, True, UNSHIFTED,
        )
        others_hi[r] = sum.hi
        others_lo[r] = sum.lo
    for r in range(batch.rows, batch.padded):
        maximum[r] = 0
        others_hi[r] = 100
        others_lo[r] = 0
    for r in range(batch.padded):
        of_guess = reduction_of(batch, r)
        of_maximum = reduction(maximum[r], 1.0)
        maximum_term[r] = exponential(maximum[r], &of_guess, UNSHIFTED)
        batch.maximum[r] = maximum[r]
        batch.maximum_residue[r] = of_maximum.max_residue
        batch.unit[r] = power_of_two(of_maximum.power - batch.unit[r])
        sum = two_sum(others_hi[r], -maximum_term[r])
        batch.others_hi[r] = sum.hi
        batch.others_lo[r] = sum.lo + others_lo[r]
    for r in range(batch.rows):
        if not (
            can_be_guessed[floating](guess[r], 0)
            and maximum[r] - guess[r] < headroom[floating](0)
        ):
            exponentials_in_two_sweeps(
                x + r * x_step, e + r * e_step, <const floating *> NULL, n, 1.0, &row
            )
            set_row(batch, r, &row)
        elif others_hi[r] < DOMINATED * maximum_term[r]:
            row = row_of(batch, r)
            row.others.hi = others_hi[r]
            row.others.lo = others_lo[r]
            set_maximum_apart(e + r * e_step, n, <floating> maximum_term[r], True, &row)
            set_row(batch, r, &row)


cdef inline void exponentials_of_rows(
    const floating *x, Py_ssize_t x_step, floating *e, Py_ssize_t e_step, const floating *y,
    Py_ssize_t y_step, Py_ssize_t n, const char *temperatures, Py_ssize_t temperature_step,
    Batch *batch
) noexcept nogil:
    """Exponentials to e, which has room for whole lanes in each row, and the sums to `batch`.

    Steps are from row to row; n is at least LANES. y is where the results will go.
    """
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating), r
    cdef double temperature
    cdef bint tempered = are_tempered(batch, temperatures, temperature_step)
    cdef Reduction of_nothing
    cdef Row row
    if not tempered and n >= 4 * LANES:
        exponentials_of_guessed_rows(x, x_step, e, e_step, y, y_step, n, batch)
        return
    for r in range(batch.rows):
        temperature = (<double *> (temperatures + r * temperature_step))[0]
        exponentials(
            x + r * x_step, e + r * e_step, y + r * y_step if y != NULL else NULL, n, temperature,
            &row,
        )
        set_reduction(batch, r, &row.reduction)
        set_row(batch, r, &row)
    for r in range(batch.rows, batch.padded):
        of_nothing = reduction(<floating> 0, 1.0)
        set_reduction(batch, r, &of_nothing)
        batch.maximum[r] = 0
        batch.others_hi[r] = 0
        batch.others_lo[r] = 0
    batch.kind = TEMPERED if tempered else UNSHIFTED
