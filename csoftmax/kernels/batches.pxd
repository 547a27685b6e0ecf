# cython: language_level=3
"""Many rows side by side: an axis that is not the last, or few classes that were copied so.

Lanes run across the rows, each lane with a reduction and a sum of its own. What follows the sums, a
reciprocal or a logarithm, is a loop over the rows of the batch and becomes vector code as well.

Rows go through the same operations in the same order whatever stands beside them, so that a result
does not depend on where a batch begins.
"""

from cython cimport floating
from csoftmax.kernels.arithmetic cimport (
    SHIFTED, TEMPERED, UNSHIFTED, Kind, Reduction, Sum, exactly, exponential, reduction, two_sum,
)
from csoftmax.kernels.lanes cimport FLOAT_LANES, LANE_BYTES, add, larger
from csoftmax.kernels.rows cimport Row, smallest_difference


cdef enum:
    MAX_BATCH = 128     # rows: 512 bytes of each number's floats
    START_OF_COLUMN = 2    # as START_OF_SUM: with the maximum known before, no term is over sqrt(2)
    MOVED = 64          # So many terms are added up before they are moved to a sum in doubles.


cdef struct Batch:
    # The fields of `Row`, and of its reduction, for each row. Loops run over whole lanes of rows;
    # `padded` is the number of rows rounded up to that.
    Kind kind
    Py_ssize_t rows
    Py_ssize_t padded
    double maximum[MAX_BATCH]
    double maximum_residue[MAX_BATCH]
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
    row.maximum_power = 0
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
    for block in range(batch.padded // LANES):
        for k in range(LANES):
            batch.maximum[block * LANES + k] = maxima[block * LANES + k]


cdef inline Sum sum_of_column_without(
    const floating *x, Py_ssize_t step, Py_ssize_t n, floating left_out, bint are_exponentials,
    const Reduction *reduced, Kind kind
) noexcept nogil:
    """As sum_without, from exponentials or from logits."""
    cdef Sum total = exactly(0), sum
    cdef floating term
    cdef Py_ssize_t i
    for i in range(n):
        term = x[i * step] if are_exponentials else exponential(x[i * step], reduced, kind)
        sum = two_sum(total.hi, 0 if term == left_out else term)
        total.hi = sum.hi
        total.lo += sum.lo
    return two_sum(total.hi, total.lo)


cdef inline void set_maxima_apart(
    const floating *x, Py_ssize_t x_step, Py_ssize_t n, Batch *batch, bint are_exponentials,
    Kind kind
) noexcept nogil:
    """set_maximum_apart of each column."""
    cdef floating maximum_term[MAX_BATCH]
    cdef double smallest = smallest_difference[floating](n, min(n, MOVED), START_OF_COLUMN, 0)
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


cdef inline void move_sums(
    Batch *batch, floating *total, floating *lost
) noexcept nogil:
    """From what `add` filled to sums that long columns don't make inexact."""
    cdef Py_ssize_t r
    cdef Sum sum
    for r in range(batch.padded):
        sum = two_sum(batch.others_hi[r], <double> total[r] - START_OF_COLUMN)
        batch.others_hi[r] = sum.hi
        batch.others_lo[r] += sum.lo + lost[r]
        total[r] = START_OF_COLUMN
        lost[r] = 0


cdef inline void sweep_columns(
    const floating *x, Py_ssize_t x_step, floating *e, Py_ssize_t e_step, Py_ssize_t n,
    Batch *batch, bint keep, bint maximum_apart, Kind kind
) noexcept nogil:
    cdef Py_ssize_t LANES = LANE_BYTES // <Py_ssize_t> sizeof(floating)
    cdef Py_ssize_t blocks = batch.padded // LANES
    cdef floating magic[MAX_BATCH]
    cdef floating lowest[MAX_BATCH]
    cdef floating shift[MAX_BATCH]
    cdef floating total[MAX_BATCH]
    cdef floating lost[MAX_BATCH]
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
        total[lane] = START_OF_COLUMN
        lost[lane] = 0
        batch.others_hi[lane] = 0
        batch.others_lo[lane] = 0
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
                add(total + lane, lost + lane, first[k])
                add(total + lane, lost + lane, second[k])
                add(total + lane, lost + lane, third[k])
                add(total + lane, lost + lane, fourth[k])
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
        if i % MOVED == 0:
            move_sums(batch, total, lost)
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
    move_sums(batch, total, lost)
    for lane in range(batch.padded):
        sum = two_sum(batch.others_hi[lane], batch.others_lo[lane])
        batch.others_hi[lane] = sum.hi
        batch.others_lo[lane] = sum.lo
    if maximum_apart and keep:
        set_maxima_apart(e, e_step, n, batch, True, kind)
    elif maximum_apart:
        set_maxima_apart(x, x_step, n, batch, False, kind)


cdef inline void exponentials_below_maxima(
    const floating *x, Py_ssize_t x_step, floating *e, Py_ssize_t e_step, Py_ssize_t n,
    const char *temperatures, Py_ssize_t temperature_step, Batch *batch, bint keep,
    bint maximum_apart
) noexcept nogil:
    """Exponentials to e, unless not to be kept, and the sums to `batch`, which has the maxima.

    Steps are from number to number. x and e have room for whole lanes of rows; e may be x.
    """
    set_reductions[floating](batch, temperatures, temperature_step, 0)
    if batch.kind == UNSHIFTED:
        sweep_columns(x, x_step, e, e_step, n, batch, keep, maximum_apart, UNSHIFTED)
    elif batch.kind == SHIFTED:
        sweep_columns(x, x_step, e, e_step, n, batch, keep, maximum_apart, SHIFTED)
    else:
        sweep_columns(x, x_step, e, e_step, n, batch, keep, maximum_apart, TEMPERED)


cdef inline void exponentials_of_columns(
    const floating *x, Py_ssize_t x_step, floating *e, Py_ssize_t e_step, Py_ssize_t n,
    const char *temperatures, Py_ssize_t temperature_step, Batch *batch, bint keep,
    bint maximum_apart
) noexcept nogil:
    set_maxima_of_columns(x, x_step, n, batch)
    exponentials_below_maxima(
        x, x_step, e, e_step, n, temperatures, temperature_step, batch, keep, maximum_apart
    )
