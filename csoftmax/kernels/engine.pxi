"""How rows get to the passes, and what threads share.

A block of rows is looked up in the plan: operands lie where the passes can take them, or are copied
so that they do. It is computed tile by tile. A row that is longer than a chunk is put together from
the sums of its chunks, whose bounds depend on its length alone.
"""

from cython cimport floating
from libc.math cimport INFINITY, NAN, fabs, floor, frexp, ldexp, rint
from libc.stdint cimport int64_t
from libc.string cimport memset
from numpy cimport npy_intp

from csoftmax.kernels.arithmetic cimport (
    GENERAL, LN2_HI_DOUBLE, LN2_LO_DOUBLE, LOG2_E, PLAIN, DoubleDouble, dd_add, dd_mul, exact_fma,
    exp_dd, from_double, largest_unshifted, power_of_two, two_sum, value_or_zero,
)
from csoftmax.kernels.candidates cimport MOST_PLACES, Selection, bytes_of_candidates
from csoftmax.kernels.copies cimport FEW, copy_masked, copy_rows
from csoftmax.kernels.formulas cimport (
    DISTANCE_UNIT, Difference, WeightedSums, coefficient, dd_scaled, excess_of_exp, from_higher,
    half_difference, is_finite, is_small, log_of_sum, sum_of_exponentials,
)
from csoftmax.kernels.functions cimport (
    UNKNOWN_SIGN, correct_leads, curvature_of, set_center, set_divergence, set_entropy, set_hessian,
    set_log_softmax, set_logsumexp, set_loss, set_softmax, set_vjp, set_weighted_logsumexp,
    smallest_others, sum_of_row, take_largest_out, use_sums_of_others, weighted_sums_of_row,
)
from csoftmax.kernels.lanes cimport LANE_BYTES, whole_lanes
from csoftmax.kernels.memory cimport leave_scratch
from csoftmax.kernels.passes cimport (
    BY_EXPONENTIALS, BY_OFFSETS, BY_TARGETS, COLUMNS, DIVERGENCES, DIVERGENCE_GRADS, GRADS,
    GRADS_OF_OFFSETS, HESSIANS, LOG_PROBABILITIES, LOG_PROBABILITY_GRADS, LOG_SOFTMAX_VJPS,
    MANY_CLASSES, MAX_ROWS, NOTHING_WEIGHED, NO_VALUES, OTHERS, OTHERS_KEPT, PROBABILITIES,
    PROBABILITY_GRADS, ROWS, SOFTMAX_VJPS, WEIGHTED_EXPONENTIALS, Layout, Tile, Values, View,
    Weighing, find_largest_of_columns, find_largest_of_rows, find_maxima_of_columns,
    find_maxima_of_rows, in_type_of, lanes_of, prefetch, set_params,
    sum_exponentials, sum_weighted, weigh, write,
)
from csoftmax.kernels.plan cimport (
    CLASS_LOSS, COMPANION, ENTROPY, HESSIAN, INDEX_LOSS, KL_DIVERGENCE, LOGITS, LOGSUMEXP,
    LOG_SOFTMAX, LOG_SOFTMAX_VJP, MASK, NLL_LOSS, OF_CLASSES, RESULT, ROLES, ROW_RESULT, SAMPLE,
    SIGN, SOFTMAX, SOFTMAX_AND_LOGSUMEXP, SOFTMAX_VJP, TARGET, TARGETS_LOSS, TEMPERATURE,
    TOP_LOG_PROBS, WEIGHT, WEIGHTED_LOGSUMEXP, Function, Plan, locate,
)
from csoftmax.kernels.stops cimport NUMBERS_PER_SHARE, is_stopped, must_stop, scratch_memory
from csoftmax.kernels.threads cimport Work, share, threads_for


cdef struct Operation:
    Function function
    bint has_grad           # of a loss


cdef struct LossTerms:
    # Of a whole call.
    int64_t ignore_index
    # Both times a unit of the class weights; rows have one, too: see set_units.
    double share            # of the target: 1 - label_smoothing
    double offset           # of every class: label_smoothing / C
    double row_unit
    double scale            # of the gradient: 1 / what "mean" divides by
    const char *class_weights    # contiguous; NULL where all are 1, and only the target's counts
    const char *finite_weights   # the same but 0 for infinite ones and NaN, if there are any


cdef enum:
    # Of columns at a time, where a call's numbers fit a cache and where they don't: then less at a
    # time waits less for memory. 10^6 rows of 33 took 0.63 ns a number with 16 KiB, 0.42 with 2;
    # 3000 rows of 10 take a tenth more with 2 KiB than with 4.
    COPY_BYTES = 4096
    COPY_BYTES_FROM_MEMORY = 2048
    CACHE_BYTES = 262144
    # Of a chunk, and of a tile of several rows: logits and results fit a small L1 cache together.
    # Larger tiles of short rows would leave no room there for those that come next.
    CHUNK_BYTES = 16384
    TILE_BYTES = 8192
    # Rows that are not contiguous are copied together, as many as share cache lines along the other
    # axis, while they fit the cache.
    MOST_COPIED_ROWS = 64
    # So many classes of columns that lie in memory have their exponentials before the next block's;
    # fewer where they are whole pages apart, and share few places of a cache. Parts of MAX_TERMS.
    SPAN = 16
    SPAN_OF_PAGES = 4
    PAGE_BYTES = 4096
    SLOTS = 3    # for copies: of logits, of companions, and of results or exponentials
    # Of a long row whose exponentials, those of both sides, are kept for its gradient.
    MOST_KEPT_BYTES = 1310720
    # How many numbers of other functions take as long as one of a selection, or a draw, at most.
    SELECTION_WORK = 8
    DRAW_WORK = 128


cdef struct Part:
    # Rows of one group in a block that may have rows of several.
    npy_intp first               # in the block
    npy_intp rows
    char *places[ROLES]


cdef struct Block:
    npy_intp rows
    npy_intp count
    Part parts[MAX_ROWS]


cdef enum Path:
    # How rows get to the passes.
    IN_ROWS
    DIRECT_COLUMNS    # rows that stand side by side
    COPIED_COLUMNS    # rows copied so that they do
    PICKED            # rows of which one number is read


cdef struct Job:
    # A call as its threads see it.
    const Operation *operation
    const Plan *plan
    const LossTerms *loss
    const Selection *selection
    Path path
    Layout layout
    Values values
    Weighing weighing
    bint takes_logarithm     # of the sum: then the largest exponential is kept out of it
    bint has_extremes        # among the temperatures
    bint is_in_cache         # all that is computed, supposedly
    npy_intp first           # of every group the rows from here on, numbered through all groups
    npy_intp rows_of_group
    npy_intp begin           # the share that is computed now
    npy_intp end
    npy_intp unit            # rows that threads don't part
    npy_intp rows_of_block
    npy_intp rows_of_tile
    npy_intp slot_bytes      # of copies of one operand
    npy_intp slots           # SLOTS, and one for a Hessian or the target's exponentials
    npy_intp tile_at         # after a participant's slots
    npy_intp bytes_of_participant
    npy_intp candidates_at   # of a selection: after all participants' copies
    bint keeps_row           # of a divergence: all exponentials of a long row, until its gradient
    npy_intp bytes_of_thread
    char *scratch            # of all threads: their stacks may be small
    int threads_of_row


cdef struct Rows:
    # A block's operands, or a chunk's.
    View logits
    View companion
    View result
    View hessian
    View kept
    View kept_of_target
    const char *next_logits    # of the block, or chunk, that comes after this one


cdef inline Values values_of(const Operation *operation) noexcept nogil:
    if operation.function == SOFTMAX or operation.function == SOFTMAX_AND_LOGSUMEXP:
        return PROBABILITIES
    if operation.function == LOG_SOFTMAX:
        return LOG_PROBABILITIES
    if operation.function == SOFTMAX_VJP:
        return SOFTMAX_VJPS
    if operation.function == LOG_SOFTMAX_VJP:
        return LOG_SOFTMAX_VJPS
    if not operation.has_grad:
        return NO_VALUES
    if operation.function == KL_DIVERGENCE:
        return DIVERGENCE_GRADS
    if operation.function == TARGETS_LOSS:
        return GRADS
    return GRADS_OF_OFFSETS if operation.function == INDEX_LOSS else PROBABILITIES


cdef inline Weighing weighing_of(Function function) noexcept nogil:
    if function == TARGETS_LOSS:
        return BY_TARGETS
    if function == INDEX_LOSS:
        return BY_OFFSETS
    if function == ENTROPY:
        return BY_EXPONENTIALS
    if function == WEIGHTED_LOGSUMEXP:
        return WEIGHTED_EXPONENTIALS
    if function == KL_DIVERGENCE:
        return DIVERGENCES
    if function == SOFTMAX_VJP:
        return PROBABILITY_GRADS
    return LOG_PROBABILITY_GRADS if function == LOG_SOFTMAX_VJP else NOTHING_WEIGHED


cdef inline bint is_vjp(const Job *job) noexcept nogil:
    return job.values == SOFTMAX_VJPS or job.values == LOG_SOFTMAX_VJPS


cdef inline bint is_divergence(const Job *job) noexcept nogil:
    return job.operation.function == KL_DIVERGENCE


cdef inline bint is_masked(const Job *job) noexcept nogil:
    return job.plan.data[MASK] != NULL


cdef inline bint has_indices(const Job *job) noexcept nogil:
    return job.operation.function == CLASS_LOSS or job.operation.function == INDEX_LOSS


cdef inline bint is_loss(const Job *job) noexcept nogil:
    """Of which rows may not count."""
    return has_indices(job) or job.operation.function == TARGETS_LOSS


cdef inline bint has_grad_of_targets(const Job *job) noexcept nogil:
    return job.values == GRADS


cdef inline bint is_selection(const Job *job) noexcept nogil:
    return job.selection != NULL


cdef inline bint is_sample(const Job *job) noexcept nogil:
    return job.operation.function == SAMPLE


cdef inline bint has_hessian(const Job *job) noexcept nogil:
    return job.plan.data[HESSIAN] != NULL


cdef inline bint is_logsumexp(const Job *job) noexcept nogil:
    """Whether the logarithm of the sum is added to the maximum."""
    return job.operation.function == LOGSUMEXP or job.operation.function == SOFTMAX_AND_LOGSUMEXP


cdef inline bint keeps_exponentials(const Job *job) noexcept nogil:
    return (
        job.values == PROBABILITIES or job.values == GRADS or job.values == GRADS_OF_OFFSETS
        or job.weighing == BY_EXPONENTIALS
    )


cdef inline bint copies_exponentials(const Job *job) noexcept nogil:
    """Results don't take their place."""
    return job.weighing == BY_EXPONENTIALS or is_divergence(job)


# Extreme temperatures change the logits when they are loaded, and leave an ordinary one. 0 and
# infinity are a uniform choice among some classes, for 0 the first maximum alone: logits that are
# chosen count as 0, the others as -inf. Others are multiplied by a power of two, the logits too.

cdef inline bint is_extreme(double temperature) noexcept nogil:
    """Unless its reciprocal is one among the numbers of both types, with digits to spare."""
    return not 1e-30 < temperature < 1e30


cdef inline double without_extreme(
    double temperature, int *exponent, floating type_tag
) noexcept nogil:
    """An ordinary temperature, which is left of this one when logits are divided by a power of two;
    1 of 0 and infinity."""
    cdef int most = 126 if floating is float else 1022
    exponent[0] = 0
    if not is_extreme(temperature):
        return temperature
    if temperature == 0 or not is_finite(temperature):
        return 1.0
    frexp(temperature, exponent)
    exponent[0] = max(-most, min(most, exponent[0]))
    return max(1e-30, min(1e30, ldexp(temperature, -exponent[0])))


cdef inline bint is_time_to_look(npy_intp i) noexcept nogil:
    """For signals."""
    return i % MANY_CLASSES == MANY_CLASSES - 1


cdef struct Maximum:
    # The first of a row; NaN if there is one.
    double value
    npy_intp place


cdef inline Maximum maximum_of(
    const char *x, npy_intp stride, npy_intp n, const char *mask, npy_intp mask_stride,
    floating type_tag
) noexcept nogil:
    cdef Maximum maximum
    cdef floating number
    cdef npy_intp i
    maximum.value = -INFINITY
    maximum.place = 0
    for i in range(n):
        if is_time_to_look(i) and must_stop():
            break
        number = (<const floating *> (x + i * stride))[0]
        if mask != NULL and not mask[i * mask_stride]:
            continue
        if number != number:
            maximum.value = NAN
            return maximum
        if number > maximum.value:
            maximum.value = number
            maximum.place = i
    return maximum


cdef void change_for_extreme(
    floating *x, npy_intp step, npy_intp n, npy_intp first, const Maximum *maximum,
    double temperature
) noexcept nogil:
    """Logits from `first` on of a row that has this maximum. It is taken off where it would become
    too large; what underflows not in the end is then exact, as where a row is shifted."""
    cdef int exponent
    cdef double power, left, shift = 0
    cdef bint is_chosen
    cdef npy_intp i
    if not is_finite(maximum.value) or not is_extreme(temperature):
        return
    left = without_extreme[floating](temperature, &exponent, 0)
    power = ldexp(1.0, -exponent)
    if not fabs(maximum.value * power / left) < largest_unshifted[floating](0):
        shift = maximum.value
    for i in range(n):
        if exponent > 0:
            x[i * step] = <floating> (x[i * step] * power)
        elif exponent < 0:
            x[i * step] = <floating> ((x[i * step] - shift) * power)
        else:
            is_chosen = x[i * step] > -INFINITY
            if temperature == 0:
                is_chosen = first + i == maximum.place
            x[i * step] = 0 if is_chosen else -INFINITY


# Rows of a block

cdef inline npy_intp whole_vectors(npy_intp bytes) noexcept nogil:
    return (bytes + LANE_BYTES - 1) // LANE_BYTES * LANE_BYTES


cdef inline char *aligned(char *memory) noexcept nogil:
    """There is a vector more than is used."""
    return memory + (LANE_BYTES - <size_t> memory % LANE_BYTES) % LANE_BYTES


cdef inline Tile *tile_of_participant(const Job *job, char *copies) noexcept nogil:
    """Of a divergence the target's comes next."""
    return <Tile *> (copies + job.tile_at)


cdef inline void find_parts(
    const Job *job, npy_intp row, npy_intp rows, Block *block
) noexcept nogil:
    """The groups that these rows are of. In the same round of level 1, one is a stride from the one
    before: where groups have three rows, to locate each costs a fifth of a softmax."""
    cdef const Plan *plan = job.plan
    cdef Part *parts = block.parts
    cdef npy_intp group = row // job.rows_of_group, place = row - group * job.rows_of_group
    cdef npy_intp in_round = group % plan.shape[1] if plan.levels > 1 else 0
    cdef npy_intp done = 0, count = 0, place_before = 0
    cdef int role
    while done < rows:
        parts[count].first = done
        parts[count].rows = min(rows - done, job.rows_of_group - place)
        if count == 0 or in_round == 0:
            locate(plan, group, job.first + place, parts[count].places)
        else:
            for role in range(ROLES):
                parts[count].places[role] = parts[count - 1].places[role] + (
                    plan.strides[1][role] - place_before * plan.strides[0][role]
                )
        done += parts[count].rows
        count += 1
        group += 1
        in_round += 1
        if plan.levels > 1 and in_round == plan.shape[1]:
            in_round = 0
        place_before = place
        place = 0
    block.rows = rows
    block.count = count


cdef inline bint is_broadcast(const Job *job, int role) noexcept nogil:
    """Weights that rows have in common, or one weight: to columns that need no other copy."""
    return job.weighing == WEIGHTED_EXPONENTIALS and role == COMPANION and (
        job.plan.strides[0][COMPANION] == 0
    )


cdef inline bint are_logits(const Job *job, int role) noexcept nogil:
    """Which masks and temperatures may change."""
    return role == LOGITS or role == COMPANION and is_divergence(job)


cdef inline bint lies_right(const Job *job, int role, npy_intp size) noexcept nogil:
    """Whether the passes can take an operand where it is."""
    if job.path == COPIED_COLUMNS:
        return False
    if are_logits(job, role) and (is_masked(job) or job.has_extremes):
        return False
    if job.path == DIRECT_COLUMNS:
        return not is_broadcast(job, role)
    return job.plan.stride[role] == size and job.plan.strides[0][role] % size == 0


cdef inline bint needs_copies(const Job *job, npy_intp size) noexcept nogil:
    cdef int role
    for role in range(OF_CLASSES):
        if job.plan.data[role] != NULL and not lies_right(job, role, size):
            return True
    return copies_exponentials(job)


cdef inline View view_of_part(
    const Job *job, const Part *part, int role, npy_intp first, floating type_tag
) noexcept nogil:
    """Classes from `first` on."""
    cdef View view
    view.data = part.places[role] + first * job.plan.stride[role]
    view.row_step = job.plan.strides[0][role] // <npy_intp> sizeof(floating)
    view.class_step = job.plan.stride[role] // <npy_intp> sizeof(floating)
    return view


cdef inline View view_of_copy(
    const Job *job, char *copies, int slot, npy_intp rows, npy_intp classes, floating type_tag
) noexcept nogil:
    cdef View view
    view.data = copies + slot * job.slot_bytes
    view.row_step = whole_lanes[floating](classes, 0) if job.layout == ROWS else 1
    view.class_step = 1 if job.layout == ROWS else whole_lanes[floating](rows, 0)
    return view


cdef inline void load_part(
    const Job *job, const Part *part, int role, npy_intp first, npy_intp classes, View to,
    floating type_tag
) noexcept nogil:
    """Classes from `first` on."""
    cdef const Plan *plan = job.plan
    cdef npy_intp size = sizeof(floating)
    cdef char *x = part.places[role] + first * plan.stride[role]
    cdef const char *mask = part.places[MASK] + first * plan.stride[MASK]
    cdef char *y = <char *> to.data + part.first * to.row_step * size
    if are_logits(job, role) and is_masked(job):
        copy_masked[floating](
            x, plan.strides[0][role], plan.stride[role], mask, plan.strides[0][MASK],
            plan.stride[MASK], y, to.row_step * size, to.class_step * size, part.rows, classes, 0,
        )
    else:
        copy_rows[floating](
            x, plan.strides[0][role], plan.stride[role], y, to.row_step * size,
            to.class_step * size, part.rows, classes, 0,
        )


cdef inline void store_part(
    const Job *job, const Part *part, int role, npy_intp first, npy_intp classes, View view,
    floating type_tag
) noexcept nogil:
    cdef const Plan *plan = job.plan
    cdef npy_intp size = sizeof(floating)
    copy_rows[floating](
        <char *> view.data + part.first * view.row_step * size, view.row_step * size,
        view.class_step * size, part.places[role] + first * plan.stride[role],
        plan.strides[0][role], plan.stride[role], part.rows, classes, 0,
    )


cdef void load_parts(
    const Job *job, const Block *block, int role, npy_intp first, npy_intp classes, const View *to,
    floating type_tag
) noexcept nogil:
    cdef npy_intp p
    for p in range(block.count):
        load_part[floating](job, block.parts + p, role, first, classes, to[0], 0)


cdef View loaded(
    const Job *job, const Block *block, int role, int slot, npy_intp first, npy_intp classes,
    char *copies, floating type_tag
) noexcept nogil:
    """Classes from `first` on, where they are or copied."""
    cdef View view, rest
    cdef npy_intp done = 0
    if lies_right(job, role, sizeof(floating)):
        return view_of_part[floating](job, block.parts, role, first, 0)
    view = rest = view_of_copy[floating](job, copies, slot, block.rows, classes, 0)
    if job.layout == COLUMNS and block.rows < view.class_step:
        memset(view.data, 0, classes * view.class_step * sizeof(floating))
    while classes - done > MANY_CLASSES and not must_stop():    # columns may be long
        load_parts[floating](job, block, role, first + done, MANY_CLASSES, &rest, 0)
        rest.data = <floating *> rest.data + MANY_CLASSES * rest.class_step
        done += MANY_CLASSES
    classes = min(classes - done, MANY_CLASSES)
    load_parts[floating](job, block, role, first + done, classes, &rest, 0)
    return view


cdef void load_operands(
    const Job *job, const Block *block, npy_intp first, npy_intp classes, char *copies,
    Rows *rows, floating type_tag
) noexcept nogil:
    rows.logits = loaded[floating](job, block, LOGITS, 0, first, classes, copies, 0)
    rows.next_logits = block.parts[0].places[LOGITS] + (
        block.rows * job.plan.strides[0][LOGITS] if block.rows > 1
        else (first + classes) * job.plan.stride[LOGITS]
    )
    rows.companion = rows.logits
    if job.plan.data[COMPANION] != NULL:
        rows.companion = loaded[floating](job, block, COMPANION, 1, first, classes, copies, 0)
    elif is_selection(job) and job.has_extremes:    # as they are given, in which order they are
        rows.companion = loaded[floating](job, block, LOGITS, 1, first, classes, copies, 0)
    if job.values == NO_VALUES:
        rows.result = view_of_copy[floating](job, copies, 2, block.rows, classes, 0)
    elif lies_right(job, RESULT, sizeof(floating)):
        rows.result = view_of_part[floating](job, block.parts, RESULT, first, 0)
    elif lies_right(job, LOGITS, sizeof(floating)):
        rows.result = view_of_copy[floating](job, copies, 2, block.rows, classes, 0)
    else:
        rows.result = rows.logits
    rows.hessian = rows.result
    if has_hessian(job) and lies_right(job, HESSIAN, sizeof(floating)):
        rows.hessian = view_of_part[floating](job, block.parts, HESSIAN, first, 0)
    elif has_hessian(job):
        rows.hessian = view_of_copy[floating](job, copies, 3, block.rows, classes, 0)
    rows.kept = rows.kept_of_target = rows.result
    if is_divergence(job):
        rows.kept = view_of_copy[floating](job, copies, 2, block.rows, classes, 0)
        rows.kept_of_target = view_of_copy[floating](job, copies, 3, block.rows, classes, 0)


cdef inline void fetch_next(const Job *job, const Block *block, const Rows *rows) noexcept nogil:
    """Of short rows the next block's logits, while this one's exponentials are computed."""
    cdef npy_intp bytes = block.rows * job.plan.strides[0][LOGITS], i
    if job.path == COPIED_COLUMNS and not job.is_in_cache and 0 < bytes <= 2 * COPY_BYTES:
        for i in range(bytes // LANE_BYTES + 1):
            prefetch(rows.next_logits + i * LANE_BYTES)


cdef void store_results(
    const Job *job, const Block *block, npy_intp first, npy_intp classes, const Rows *rows,
    floating type_tag
) noexcept nogil:
    cdef npy_intp p
    if job.values != NO_VALUES and not lies_right(job, RESULT, sizeof(floating)):
        for p in range(block.count):
            store_part[floating](job, block.parts + p, RESULT, first, classes, rows.result, 0)
    if has_hessian(job) and not lies_right(job, HESSIAN, sizeof(floating)):
        for p in range(block.count):
            store_part[floating](job, block.parts + p, HESSIAN, first, classes, rows.hessian, 0)


cdef inline void start_tile(
    const Job *job, const Rows *rows, npy_intp begin, npy_intp count, npy_intp classes,
    Tile *tile, floating type_tag
) noexcept nogil:
    """Of a block's rows from `begin` on."""
    tile.rows = count
    tile.padded = (count + 3) // 4 * 4 if job.layout == ROWS else whole_lanes[floating](count, 0)
    tile.classes = classes
    tile.span = classes
    tile.ahead = 0
    if lies_right(job, LOGITS, sizeof(floating)):
        tile.ahead = count * rows.logits.row_step if count > 1 else classes
    elif job.layout == ROWS:    # copied, block by block
        tile.ahead = (rows.next_logits - <char *> rows.logits.data) // <npy_intp> sizeof(floating)
    if job.path == DIRECT_COLUMNS:
        tile.span = SPAN
        if rows.logits.class_step * <npy_intp> sizeof(floating) % PAGE_BYTES == 0:
            tile.span = SPAN_OF_PAGES
    tile.logits = rows.logits
    tile.companion = rows.companion
    tile.result = rows.result
    tile.hessian = rows.hessian
    tile.logits.data = <floating *> tile.logits.data + begin * tile.logits.row_step
    tile.companion.data = <floating *> tile.companion.data + begin * tile.companion.row_step
    tile.result.data = <floating *> tile.result.data + begin * tile.result.row_step
    tile.hessian.data = <floating *> tile.hessian.data + begin * tile.hessian.row_step
    if job.loss != NULL:
        tile.class_weights = job.loss.finite_weights
        tile.share = job.loss.share
        tile.offset = job.loss.offset


cdef inline void start_target(
    const Job *job, const Block *block, const Rows *rows, npy_intp begin, Tile *tile,
    Tile *of_target, floating type_tag
) noexcept nogil:
    """Of a divergence: the tile of the target's logits."""
    tile.kept = rows.kept
    tile.kept.data = <floating *> tile.kept.data + begin * tile.kept.row_step
    tile.of_target = of_target
    of_target.rows = tile.rows
    of_target.padded = tile.padded
    of_target.classes = tile.classes
    of_target.span = tile.span
    of_target.ahead = 0
    if lies_right(job, COMPANION, sizeof(floating)):
        of_target.ahead = tile.classes
        if tile.rows > 1:
            of_target.ahead = tile.rows * tile.companion.row_step
    of_target.logits = tile.companion
    of_target.result = rows.kept_of_target
    of_target.result.data = (
        <floating *> of_target.result.data + begin * of_target.result.row_step
    )
    gather_operands[floating](job, block, begin, of_target, 0)


cdef inline int64_t counted_target(
    const Job *job, const char *place
) noexcept nogil:
    """A class; or -1 where the row doesn't count: also where another thread has changed the index
    since it was checked."""
    cdef int64_t target = (<int64_t *> place)[0]
    return target if target != job.loss.ignore_index and 0 <= target < job.plan.n else -1


cdef inline void gather_temperatures(
    const Job *job, const Part *part, npy_intp first, npy_intp last, double *temperatures,
    double *scales, floating type_tag
) noexcept nogil:
    """Of rows `first` to `last` of a part; and what gradients are multiplied by."""
    cdef npy_intp stride = job.plan.strides[0][TEMPERATURE], i
    cdef const char *place = part.places[TEMPERATURE] + first * stride
    cdef double temperature
    cdef int exponent
    if stride == 0:    # a loop of its own, which becomes vector code
        temperature = (<double *> place)[0]
        for i in range(last - first):
            temperatures[i] = temperature
    else:
        for i in range(last - first):
            temperatures[i] = (<double *> (place + i * stride))[0]
    if is_vjp(job):
        for i in range(last - first):
            scales[i] = 1.0
    elif job.operation.has_grad:
        for i in range(last - first):
            scales[i] = job.loss.scale / temperatures[i]
    if not job.has_extremes:
        return
    for i in range(last - first):
        temperature = temperatures[i]
        if is_vjp(job) and is_extreme(temperature):
            scales[i] = temperature
        temperatures[i] = without_extreme[floating](temperature, &exponent, 0)
        if is_vjp(job) and is_extreme(temperature):
            temperatures[i] = 1.0


cdef inline void gather_targets(
    const Job *job, const Part *part, npy_intp first, npy_intp last, int64_t *targets,
    double *class_weights, floating type_tag
) noexcept nogil:
    """Where targets are probabilities, there is none yet."""
    cdef npy_intp stride = job.plan.strides[0][TARGET], i
    cdef const char *place = part.places[TARGET] + first * stride
    for i in range(last - first):
        targets[i] = job.plan.n
        class_weights[i] = 1.0
    if not has_indices(job):
        return
    for i in range(last - first):
        targets[i] = counted_target(job, place + i * stride)
    if job.loss.class_weights != NULL:
        for i in range(last - first):
            if targets[i] >= 0:
                class_weights[i] = (<const floating *> job.loss.class_weights)[targets[i]]


cdef inline void gather_weights(
    const Job *job, const Part *part, npy_intp first, npy_intp last, int64_t *targets,
    double *weights, double *scales
) noexcept nogil:
    """What has the weight 0 doesn't count."""
    cdef npy_intp stride = job.plan.strides[0][WEIGHT], i
    cdef const char *place = part.places[WEIGHT] + first * stride
    for i in range(last - first):
        weights[i] = 1.0
    if job.plan.data[WEIGHT] == NULL:
        return
    for i in range(last - first):
        weights[i] = (<const double *> (place + i * stride))[0] * job.loss.row_unit
        scales[i] *= weights[i]
        if weights[i] == 0:
            targets[i] = -1


cdef inline void clear_weighted_sums(Tile *tile, npy_intp row) noexcept nogil:
    tile.weights_hi[row] = tile.weights_lo[row] = 0
    tile.distances_hi[row] = tile.distances_lo[row] = 0


cdef void gather_operands(
    const Job *job, const Block *block, npy_intp begin, Tile *tile, floating type_tag
) noexcept nogil:
    """What belongs to the tile's rows beside their numbers."""
    cdef const Part *part
    cdef npy_intp p, first, last, row
    for p in range(block.count):
        part = block.parts + p
        first = max(0, begin - part.first)
        last = min(part.rows, begin + tile.rows - part.first)
        row = part.first + first - begin
        if first >= last:
            continue
        gather_temperatures[floating](
            job, part, first, last, tile.temperature + row, tile.scale + row, 0
        )
        if is_loss(job):
            gather_targets[floating](
                job, part, first, last, tile.of.loss.target + row,
                tile.of.loss.class_weight + row, 0,
            )
            gather_weights(
                job, part, first, last, tile.of.loss.target + row, tile.of.loss.weight + row,
                tile.scale + row,
            )
    for row in range(tile.rows, tile.padded):    # for loops over whole vectors of rows
        tile.temperature[row] = tile.scale[row] = 1.0
        tile.maximum[row] = 0.0
        tile.sum_hi[row] = 2.0
        tile.sum_lo[row] = 0.0
        clear_weighted_sums(tile, row)
        if is_loss(job):
            tile.of.loss.weight[row] = tile.of.loss.class_weight[row] = 1.0
            tile.of.loss.target_logit[row] = 0.0
            tile.of.loss.target[row] = -1
        elif job.weighing == WEIGHTED_EXPONENTIALS:
            in_type_of[floating](tile.of.weighted_sum.largest_weight, 0)[row] = 0


cdef inline void gather_target_logits(const Job *job, Tile *tile, floating type_tag) noexcept nogil:
    cdef npy_intp r
    for r in range(tile.rows):
        tile.of.loss.target_logit[r] = 0
        if tile.of.loss.target[r] >= 0:
            tile.of.loss.target_logit[r] = (<floating *> tile.logits.data)[
                r * tile.logits.row_step + tile.of.loss.target[r] * tile.logits.class_step
            ]


cdef inline bint is_all_masked(const Job *job, const Part *part, npy_intp row) noexcept nogil:
    cdef npy_intp stride = job.plan.stride[MASK], i
    cdef const char *mask = part.places[MASK] + row * job.plan.strides[0][MASK]
    for i in range(job.plan.n):
        if mask[i * stride]:
            return False
    return True


cdef inline double result_of_nothing(const Job *job, const Tile *tile, npy_intp r) noexcept nogil:
    """Of a row without any class: no loss is smaller."""
    cdef double weights = tile.weights_hi[r]
    if is_logsumexp(job):
        return -INFINITY
    if not is_loss(job):
        return 0
    if has_indices(job):
        weights += tile.share * tile.of.loss.class_weight[r]
    weights *= tile.of.loss.weight[r]
    return weights * INFINITY if weights != 0 else 0


cdef inline double sign_of_row(const Job *job, const Tile *tile, npy_intp r) noexcept nogil:
    """Of the sum whose logarithm is the result."""
    cdef double result = tile.row_result[r]
    if result != result:
        return NAN
    if result == -INFINITY:
        return 0
    return tile.of.weighted_sum.row_sign[r] if job.weighing == WEIGHTED_EXPONENTIALS else 1


cdef inline void settle_results(
    const Job *job, const Block *block, npy_intp begin, Tile *tile
) noexcept nogil:
    """Of rows that a mask leaves nothing of, that have weights or don't count, and the logarithms
    of negative sums where no sign tells of them."""
    cdef const Part *part
    cdef npy_intp p, r
    for p in range(block.count if is_masked(job) else 0):
        part = block.parts + p
        for r in range(max(begin, part.first), min(begin + tile.rows, part.first + part.rows)):
            if tile.maximum[r - begin] == -INFINITY and (
                is_all_masked(job, part, r - part.first)
            ):
                tile.row_result[r - begin] = result_of_nothing(job, tile, r - begin)
    if is_loss(job):
        for r in range(tile.rows):
            tile.row_result[r] = value_or_zero(tile.row_result[r], tile.of.loss.target[r] >= 0)
    if job.weighing == WEIGHTED_EXPONENTIALS and job.plan.data[SIGN] == NULL:
        for r in range(tile.rows):
            if sign_of_row(job, tile, r) < 0:
                tile.row_result[r] = NAN


cdef inline void scatter_results(
    const Job *job, const Block *block, npy_intp begin, const Tile *tile, floating type_tag
) noexcept nogil:
    """NaN is one NaN: which one an operation keeps depends on the copy that was made of a loop."""
    cdef const Part *part
    cdef double result
    cdef npy_intp p, r, stride = job.plan.strides[0][ROW_RESULT]
    for p in range(block.count):
        part = block.parts + p
        for r in range(max(begin, part.first), min(begin + tile.rows, part.first + part.rows)):
            result = tile.row_result[r - begin]
            if result != result:
                result = NAN
            (<floating *> (part.places[ROW_RESULT] + (r - part.first) * stride))[0] = (
                <floating> result
            )
    stride = job.plan.strides[0][SIGN]
    for p in range(block.count if job.plan.data[SIGN] != NULL else 0):
        part = block.parts + p
        for r in range(max(begin, part.first), min(begin + tile.rows, part.first + part.rows)):
            (<floating *> (part.places[SIGN] + (r - part.first) * stride))[0] = (
                <floating> sign_of_row(job, tile, r - begin)
            )


# A tile: its sums, what follows from them, its results. Functions that are not inline have one pass
# each: GCC makes better code of a loop that is alone.

cdef void find_maxima_of(Tile *tile, Layout layout, floating type_tag) noexcept nogil:
    if layout == ROWS:
        find_maxima_of_rows[floating](tile, False, 0)
    else:
        find_maxima_of_columns[floating](tile, False, 0)


cdef void find_weighted_maxima_of(Tile *tile, Layout layout, floating type_tag) noexcept nogil:
    if layout == ROWS:
        find_maxima_of_rows[floating](tile, True, 0)
    else:
        find_maxima_of_columns[floating](tile, True, 0)


cdef void set_params_of(Tile *tile, bint are_all_needed, floating type_tag) noexcept nogil:
    cdef Py_ssize_t r
    cdef bint are_tempered = False
    for r in range(tile.rows):
        are_tempered |= tile.temperature[r] != 1
    if are_tempered:
        set_params[floating](tile, True, True, 0)
    elif are_all_needed:
        set_params[floating](tile, False, True, 0)
    else:
        set_params[floating](tile, False, False, 0)


cdef inline void sum_in(
    Tile *tile, Layout layout, bint is_kept, bint is_precise, floating type_tag
) noexcept nogil:
    if tile.kind == PLAIN and not is_precise:
        sum_exponentials[floating](tile, layout, PLAIN, True, False, 0)
    elif tile.kind == PLAIN and is_kept:
        sum_exponentials[floating](tile, layout, PLAIN, True, True, 0)
    elif tile.kind == PLAIN:
        sum_exponentials[floating](tile, layout, PLAIN, False, True, 0)
    elif not is_precise:
        sum_exponentials[floating](tile, layout, GENERAL, True, False, 0)
    elif is_kept:
        sum_exponentials[floating](tile, layout, GENERAL, True, True, 0)
    else:
        sum_exponentials[floating](tile, layout, GENERAL, False, True, 0)


cdef void sum_rows(Tile *tile, bint is_kept, bint is_precise, floating type_tag) noexcept nogil:
    sum_in[floating](tile, ROWS, is_kept, is_precise, 0)


cdef void sum_columns(Tile *tile, bint is_kept, bint is_precise, floating type_tag) noexcept nogil:
    sum_in[floating](tile, COLUMNS, is_kept, is_precise, 0)


cdef inline void weigh_in(
    Tile *tile, Layout layout, Weighing weighing, floating type_tag
) noexcept nogil:
    if weighing == BY_TARGETS:
        weigh[floating](tile, layout, BY_TARGETS, PLAIN, 0)
    elif weighing == BY_OFFSETS:
        weigh[floating](tile, layout, BY_OFFSETS, PLAIN, 0)
    elif weighing == BY_EXPONENTIALS:
        weigh[floating](tile, layout, BY_EXPONENTIALS, PLAIN, 0)
    elif weighing == DIVERGENCES:
        weigh[floating](tile, layout, DIVERGENCES, PLAIN, 0)
    elif weighing == PROBABILITY_GRADS:
        weigh[floating](tile, layout, PROBABILITY_GRADS, PLAIN, 0)
    elif weighing == LOG_PROBABILITY_GRADS:
        weigh[floating](tile, layout, LOG_PROBABILITY_GRADS, PLAIN, 0)
    elif weighing == OTHERS_KEPT:
        weigh[floating](tile, layout, OTHERS_KEPT, PLAIN, 0)
    elif tile.kind == PLAIN:
        weigh[floating](tile, layout, OTHERS, PLAIN, 0)
    else:
        weigh[floating](tile, layout, OTHERS, GENERAL, 0)


cdef void weigh_of(Tile *tile, Layout layout, Weighing weighing, floating type_tag) noexcept nogil:
    if layout == ROWS:
        weigh_in[floating](tile, ROWS, weighing, 0)
    else:
        weigh_in[floating](tile, COLUMNS, weighing, 0)


cdef inline void sum_weighted_in(
    Tile *tile, Layout layout, bint has_gaps, floating type_tag
) noexcept nogil:
    if has_gaps:    # seldom, and the general kind gives the plain one's bits
        sum_weighted[floating](tile, layout, GENERAL, True, 0)
    elif tile.kind == PLAIN:
        sum_weighted[floating](tile, layout, PLAIN, False, 0)
    else:
        sum_weighted[floating](tile, layout, GENERAL, False, 0)


cdef void sum_weighted_rows(Tile *tile, bint has_gaps, floating type_tag) noexcept nogil:
    sum_weighted_in[floating](tile, ROWS, has_gaps, 0)


cdef void sum_weighted_columns(Tile *tile, bint has_gaps, floating type_tag) noexcept nogil:
    sum_weighted_in[floating](tile, COLUMNS, has_gaps, 0)


cdef void sum_weighted_tile(const Job *job, Tile *tile, floating type_tag) noexcept nogil:
    """What has the weight 0 can't be told from others by its products unless it is NaN, infinite,
    or the largest. Only where that is so, weights are looked at; the bits are the same. Of tiles
    that follow, where it was so before."""
    cdef bint has_gaps = False
    cdef Py_ssize_t r
    if not tile.has_gaps:
        find_maxima_of[floating](tile, job.layout, 0)
        set_params_of[floating](tile, True, 0)
        if job.layout == ROWS:
            sum_weighted_rows[floating](tile, False, 0)
        else:
            sum_weighted_columns[floating](tile, False, 0)
        for r in range(tile.rows):
            has_gaps |= not is_finite(tile.maximum[r]) or tile.weights_hi[r] == 0
            has_gaps |= not is_finite(tile.distances_hi[r])
        if not has_gaps:
            return
    tile.has_gaps = True
    find_weighted_maxima_of[floating](tile, job.layout, 0)
    set_params_of[floating](tile, True, 0)
    if job.layout == ROWS:
        sum_weighted_rows[floating](tile, True, 0)
    else:
        sum_weighted_columns[floating](tile, True, 0)


cdef void look_for_nan(Tile *tile, floating type_tag) noexcept nogil:
    """A maximum that is not finite is NaN if there is one among the logits."""
    cdef Py_ssize_t r
    cdef bint are_finite = True
    for r in range(tile.rows):
        are_finite &= is_finite(tile.maximum[r])
    if are_finite:
        return
    for r in range(tile.rows):
        if not is_finite(tile.maximum[r]):
            tile.maximum[r] = maximum_of[floating](
                <char *> (<floating *> tile.logits.data + r * tile.logits.row_step),
                tile.logits.class_step * sizeof(floating), tile.classes, NULL, 0, 0,
            ).value


cdef void sum_others_anew(
    const Job *job, Tile *tile, double smallest, floating type_tag
) noexcept nogil:
    """Where the sums of a loss stand meanwhile, these are put aside."""
    cdef WeightedSums weighted[MAX_ROWS]
    cdef Py_ssize_t r
    for r in range(tile.padded):
        weighted[r].weights.hi = tile.weights_hi[r]
        weighted[r].weights.lo = tile.weights_lo[r]
        weighted[r].distances.hi = tile.distances_hi[r]
        weighted[r].distances.lo = tile.distances_lo[r]
    weigh_of[floating](tile, job.layout, OTHERS_KEPT if keeps_exponentials(job) else OTHERS, 0)
    use_sums_of_others(tile, smallest, is_logsumexp(job))
    for r in range(tile.padded):
        tile.weights_hi[r] = weighted[r].weights.hi
        tile.weights_lo[r] = weighted[r].weights.lo
        tile.distances_hi[r] = weighted[r].distances.hi
        tile.distances_lo[r] = weighted[r].distances.lo


cdef void sum_kept(const Job *job, Tile *tile, floating type_tag) noexcept nogil:
    """Of one side of a divergence whose maxima are known."""
    set_params_of[floating](tile, True, 0)
    if job.layout == ROWS:
        sum_rows[floating](tile, True, False, 0)
    else:
        sum_columns[floating](tile, True, False, 0)


cdef void diverge_tile(const Job *job, Tile *tile, floating type_tag) noexcept nogil:
    cdef View result = tile.result
    tile.result = tile.kept
    find_maxima_of[floating](tile.of_target, job.layout, 0)
    look_for_nan[floating](tile.of_target, 0)
    sum_kept[floating](job, tile.of_target, 0)
    find_maxima_of[floating](tile, job.layout, 0)
    look_for_nan[floating](tile, 0)
    sum_kept[floating](job, tile, 0)
    set_center[floating](tile, 0)
    weigh_of[floating](tile, job.layout, DIVERGENCES, 0)
    if correct_leads[floating](tile, 0):
        weigh_of[floating](tile, job.layout, DIVERGENCES, 0)
    tile.result = result


cdef void find_largest_classes(const Job *job, Tile *tile, floating type_tag) noexcept nogil:
    """Of a loss whose targets are probabilities, and their coefficients: where one class has more
    than all others, its gradient is made of what it leaves to these."""
    cdef int64_t places[MAX_ROWS]
    cdef DoubleDouble of_class
    cdef npy_intp r
    if job.layout == ROWS:
        find_largest_of_rows[floating](tile, places, 0)
    else:
        find_largest_of_columns[floating](tile, places, 0)
    for r in range(tile.padded):
        tile.of.loss.coefficient_hi[r] = tile.of.loss.coefficient_lo[r] = 0
    for r in range(tile.rows):
        if places[r] < 0 or tile.of.loss.target[r] < 0:
            continue
        of_class = coefficient[floating](
            (<const floating *> tile.companion.data)[
                r * tile.companion.row_step + places[r] * tile.companion.class_step
            ],
            (<const floating *> tile.class_weights)[places[r]], tile.share, tile.offset, 0
        )
        tile.of.loss.target[r] = places[r]
        tile.of.loss.coefficient_hi[r] = of_class.hi
        tile.of.loss.coefficient_lo[r] = of_class.lo


cdef void sum_tile(const Job *job, Tile *tile, floating type_tag) noexcept nogil:
    # As many as there could be: a mask that leaves out some of a tile shall not change bits.
    cdef npy_intp lanes = lanes_of[floating](0), terms = job.plan.n
    cdef double smallest
    cdef bint are_kept = keeps_exponentials(job)
    cdef npy_intp r
    if is_vjp(job):
        weigh_of[floating](tile, job.layout, job.weighing, 0)
        return
    if job.weighing == WEIGHTED_EXPONENTIALS:
        sum_weighted_tile[floating](job, tile, 0)
        return
    if is_divergence(job):
        diverge_tile[floating](job, tile, 0)
        return
    find_maxima_of[floating](tile, job.layout, 0)
    look_for_nan[floating](tile, 0)
    # A chunk is put together with others in its own units.
    set_params_of[floating](tile, job.takes_logarithm or tile.classes < job.plan.n, 0)
    # Before the exponentials, which may take the logits' place.
    if job.weighing == BY_TARGETS or job.weighing == BY_OFFSETS:
        weigh_of[floating](tile, job.layout, job.weighing, 0)
    elif has_indices(job):
        for r in range(tile.padded):
            clear_weighted_sums(tile, r)
    if job.layout == ROWS:
        sum_rows[floating](tile, are_kept, job.takes_logarithm, 0)
    else:
        sum_columns[floating](tile, are_kept, job.takes_logarithm, 0)
    if job.takes_logarithm:
        if job.layout == ROWS:
            terms = min(terms, chunk_length[floating](0) + lanes)
        smallest = smallest_others[floating](
            terms, terms // lanes + 1 if job.layout == ROWS else terms, 0
        )
        if take_largest_out[floating](tile, smallest, is_logsumexp(job), 0):
            sum_others_anew[floating](job, tile, smallest, 0)
    if job.weighing == BY_EXPONENTIALS:
        weigh_of[floating](tile, job.layout, BY_EXPONENTIALS, 0)
    if has_grad_of_targets(job):
        find_largest_classes[floating](job, tile, 0)


# Weighted sums whose terms differ by more than the type's range. Each has a power of two apart from
# its digits.

cdef inline double exp_of_sign(double x) noexcept nogil:
    """As large as what matters of exp(x) beside a weight: 0, infinite, NaN, or else 1."""
    return 0.0 if x == -INFINITY else 1.0 if x < INFINITY else x


cdef inline double term_apart(
    double x, double weight, double maximum, DoubleDouble *digits
) noexcept nogil:
    """The power of weight exp(x - maximum). What is 10000 below the maximum can't count beside it,
    whatever weights they have."""
    cdef DoubleDouble apart = two_sum(x, -maximum)
    cdef double k
    cdef int power
    digits[0] = from_double(0)
    if not apart.hi > -10000:
        return -INFINITY
    k = rint(apart.hi * LOG2_E)
    digits[0] = dd_mul[double](
        from_double(frexp(weight, &power)),
        exp_dd[double](
            (exact_fma(-LN2_HI_DOUBLE, k, apart.hi) - LN2_LO_DOUBLE * k) + apart.lo, 0
        ), 0,
    )
    return k + power


cdef inline DoubleDouble log_apart(DoubleDouble sum, double power, double maximum) noexcept nogil:
    """log(sum 2^power) + maximum."""
    cdef DoubleDouble of_power = from_double(0)
    cdef int exponent, back = 0
    frexp(sum.hi, &exponent)
    power += exponent
    if fabs(power) < 900:    # so that a sum that is close to 1 is seen
        back = <int> power
    else:
        of_power.hi = power * LN2_HI_DOUBLE
        of_power.lo = power * LN2_LO_DOUBLE
    sum.hi = ldexp(sum.hi, back - exponent)
    sum.lo = ldexp(sum.lo, back - exponent)
    return dd_add[double](
        dd_add[double](from_double(maximum), of_power, 0),
        log_of_sum[double](sum, from_double(0), 0), 0,
    )


cdef void sum_row_apart(
    const char *x, npy_intp x_stride, const char *weights, npy_intp w_stride, npy_intp n,
    double *result, double *sign, floating type_tag
) noexcept nogil:
    cdef double maximum = -INFINITY, infinite = 0, power = -INFINITY, number, weight, of_term
    cdef DoubleDouble sum = from_double(0), digits
    cdef npy_intp i
    for i in range(n):
        if is_time_to_look(i) and must_stop():
            return
        number = (<const floating *> (x + i * x_stride))[0]
        weight = (<const floating *> (weights + i * w_stride))[0]
        if weight == 0:
            continue
        of_term = weight * exp_of_sign(number)
        if not is_finite(of_term):
            infinite += of_term    # NaN once there are infinities of both signs
        maximum = max(maximum, number)
    result[0] = fabs(infinite) if infinite != 0 else -INFINITY
    sign[0] = 1 if infinite > 0 else -1
    if infinite != 0 or maximum == -INFINITY:
        return
    for i in range(n):
        if is_time_to_look(i) and must_stop():
            return
        weight = (<const floating *> (weights + i * w_stride))[0]
        if weight != 0:
            number = (<const floating *> (x + i * x_stride))[0]
            power = max(power, term_apart(number, weight, maximum, &digits))
    for i in range(n):
        if is_time_to_look(i) and must_stop():
            return
        weight = (<const floating *> (weights + i * w_stride))[0]
        if weight == 0:
            continue
        number = (<const floating *> (x + i * x_stride))[0]
        of_term = term_apart(number, weight, maximum, &digits)
        if of_term - power > -3000:
            sum = dd_add[double](sum, from_double(ldexp(digits.hi, <int> (of_term - power))), 0)
            sum.lo += ldexp(digits.lo, <int> (of_term - power))
    sum = two_sum(sum.hi, sum.lo)
    if sum.hi == 0:
        return
    sign[0] = 1 if sum.hi > 0 else -1
    sum = log_apart(dd_scaled(sum, sign[0]), power, maximum)
    result[0] = sum.hi + sum.lo


cdef void sum_rows_apart(
    const Job *job, const Block *block, npy_intp begin, Tile *tile, floating type_tag
) noexcept nogil:
    """Those that have no sign yet."""
    cdef const Plan *plan = job.plan
    cdef const Part *part
    cdef npy_intp p, r
    for p in range(block.count):
        part = block.parts + p
        for r in range(max(begin, part.first), min(begin + tile.rows, part.first + part.rows)):
            if tile.of.weighted_sum.row_sign[r - begin] == UNKNOWN_SIGN:
                sum_row_apart[floating](
                    part.places[LOGITS] + (r - part.first) * plan.strides[0][LOGITS],
                    plan.stride[LOGITS],
                    part.places[COMPANION] + (r - part.first) * plan.strides[0][COMPANION],
                    plan.stride[COMPANION], plan.n, tile.row_result + r - begin,
                    tile.of.weighted_sum.row_sign + r - begin, 0,
                )


cdef inline double temperature_given(
    const Job *job, const Part *part, npy_intp row
) noexcept nogil:
    """Where it is extreme, the tile has another one."""
    return (<double *> (
        part.places[TEMPERATURE] + row * job.plan.strides[0][TEMPERATURE]
    ))[0]


cdef void gather_curvatures(
    const Job *job, const Block *block, npy_intp begin, Tile *tile, floating type_tag
) noexcept nogil:
    """From the temperatures that were given."""
    cdef const Part *part
    cdef double temperature
    cdef npy_intp p, r
    for p in range(block.count):
        part = block.parts + p
        for r in range(max(begin, part.first), min(begin + tile.rows, part.first + part.rows)):
            temperature = temperature_given(job, part, r - part.first)
            tile.of.loss.curvature[r - begin] = curvature_of[floating](
                tile, r - begin, temperature, is_extreme(temperature), has_indices(job), 0
            )


cdef void add_infinite_weights(
    const Job *job, const Block *block, npy_intp begin, Tile *tile, floating type_tag
) noexcept nogil:
    """Those that count. What is no target does not, whatever its weight, so the passes have 0 in
    their place. A loss that has one is not finite; its gradient is NaN."""
    cdef const Plan *plan = job.plan
    cdef const floating *weights = <const floating *> job.loss.class_weights
    cdef const Part *part
    cdef const char *target
    cdef double share
    cdef npy_intp p, r, i
    if job.loss.finite_weights == job.loss.class_weights:
        return
    for p in range(block.count):
        part = block.parts + p
        for r in range(max(begin, part.first), min(begin + tile.rows, part.first + part.rows)):
            target = part.places[COMPANION] + (r - part.first) * plan.strides[0][COMPANION]
            for i in range(plan.n):
                if is_finite(weights[i]):
                    continue
                share = job.loss.offset
                if not has_indices(job):
                    share += job.loss.share * (
                        <const floating *> (target + i * plan.stride[COMPANION])
                    )[0]
                if share != 0:
                    tile.weights_hi[r - begin] += weights[i] * share
                    tile.row_result[r - begin] += (
                        weights[i] * share * tile.of.loss.weight[r - begin]
                    )
                    tile.factor_hi[r - begin] = NAN


cdef void sum_large_grads(
    const Job *job, const Block *block, npy_intp begin, Tile *tile, floating type_tag
) noexcept nogil:
    """Of vector-Jacobian products: once more, in units, where a sum may be too large for the type,
    or for a difference of a gradient and the sum."""
    cdef double unit = 2.0**-70 if floating is float else 2.0**-100
    cdef double largest = 2.0**100 if floating is float else 2.0**960
    cdef floating *units = in_type_of[floating](tile.of.product.grad_unit, 0)
    cdef bint are_logarithms = job.operation.function == LOG_SOFTMAX_VJP
    cdef const Plan *plan = job.plan
    cdef const Part *part
    cdef const char *y
    cdef const char *grad
    cdef floating probability
    cdef double term
    cdef DoubleDouble sum
    cdef npy_intp p, r, i
    cdef bint is_any = False
    for r in range(tile.padded):
        units[r] = 1
        is_any |= not fabs(tile.distances_hi[r]) <= largest
    for p in range(block.count if is_any else 0):
        part = block.parts + p
        for r in range(max(begin, part.first), min(begin + tile.rows, part.first + part.rows)):
            if fabs(tile.distances_hi[r - begin]) <= largest:
                continue
            y = part.places[LOGITS] + (r - part.first) * plan.strides[0][LOGITS]
            grad = part.places[COMPANION] + (r - part.first) * plan.strides[0][COMPANION]
            sum = from_double(0)
            for i in range(plan.n):
                probability = (<const floating *> (y + i * plan.stride[LOGITS]))[0]
                if probability == (-INFINITY if are_logarithms else 0):
                    continue
                term = (<const floating *> (grad + i * plan.stride[COMPANION]))[0] * unit
                if probability != probability:    # which fills the row
                    term = probability
                if are_logarithms:
                    sum = dd_add[double](sum, from_double(term), 0)
                else:
                    sum = dd_add[double](
                        sum, dd_mul[double](from_double(probability), from_double(term), 0), 0
                    )
            units[r - begin] = <floating> unit
            sum = two_sum(sum.hi, sum.lo)
            tile.distances_hi[r - begin], tile.distances_lo[r - begin] = sum.hi, sum.lo


cdef void finish_tile(
    const Job *job, const Block *block, npy_intp begin, Tile *tile, floating type_tag
) noexcept nogil:
    cdef Function function = job.operation.function
    if function == SOFTMAX:
        set_softmax[floating](tile, False, 0)
    elif function == LOG_SOFTMAX or function == TOP_LOG_PROBS:
        set_log_softmax[floating](tile, 0)
    elif function == LOGSUMEXP:
        set_logsumexp[floating](tile, False, 0)
    elif function == SOFTMAX_AND_LOGSUMEXP:
        set_softmax[floating](tile, True, 0)
        set_logsumexp[floating](tile, True, 0)
        if job.has_extremes:
            add_given_maxima(job, block, begin, tile)
    elif function == WEIGHTED_LOGSUMEXP:
        if set_weighted_logsumexp[floating](tile, job.plan.n, 0):
            sum_rows_apart[floating](job, block, begin, tile, 0)
    elif function == ENTROPY:
        set_entropy[floating](tile, 0)
    elif is_vjp(job):
        sum_large_grads[floating](job, block, begin, tile, 0)
        set_vjp[floating](tile, 0)
    elif is_divergence(job) and job.operation.has_grad:
        set_divergence[floating](tile, True, 0)
    elif is_divergence(job):
        set_divergence[floating](tile, False, 0)
    elif has_indices(job) and job.operation.has_grad:
        set_loss[floating](tile, True, True, 0)
    elif has_indices(job):
        set_loss[floating](tile, True, False, 0)
    elif job.operation.has_grad:
        set_loss[floating](tile, False, True, 0)
    else:
        set_loss[floating](tile, False, False, 0)
    if job.operation.function == TARGETS_LOSS or job.operation.function == INDEX_LOSS:
        add_infinite_weights[floating](job, block, begin, tile, 0)
    if has_hessian(job) and job.has_extremes:
        gather_curvatures[floating](job, block, begin, tile, 0)
        set_hessian[floating](tile, has_indices(job), True, 0)
    elif has_hessian(job):
        set_hessian[floating](tile, has_indices(job), False, 0)


cdef inline void write_in(
    Tile *tile, Layout layout, Values values, floating type_tag
) noexcept nogil:
    if values == PROBABILITIES:
        write[floating](tile, layout, PLAIN, PROBABILITIES, 0)
    elif values == LOG_PROBABILITIES and tile.kind == PLAIN:
        write[floating](tile, layout, PLAIN, LOG_PROBABILITIES, 0)
    elif values == LOG_PROBABILITIES:
        write[floating](tile, layout, GENERAL, LOG_PROBABILITIES, 0)
    elif values == GRADS:
        write[floating](tile, layout, PLAIN, GRADS, 0)
    elif values == HESSIANS:
        write[floating](tile, layout, PLAIN, HESSIANS, 0)
    elif values == GRADS_OF_OFFSETS:
        write[floating](tile, layout, PLAIN, GRADS_OF_OFFSETS, 0)
    elif values == DIVERGENCE_GRADS:
        write[floating](tile, layout, PLAIN, DIVERGENCE_GRADS, 0)
    elif values == SOFTMAX_VJPS and tile.kind == PLAIN:
        write[floating](tile, layout, PLAIN, SOFTMAX_VJPS, 0)
    elif values == SOFTMAX_VJPS:
        write[floating](tile, layout, GENERAL, SOFTMAX_VJPS, 0)
    elif values == LOG_SOFTMAX_VJPS and tile.kind == PLAIN:
        write[floating](tile, layout, PLAIN, LOG_SOFTMAX_VJPS, 0)
    elif values == LOG_SOFTMAX_VJPS:
        write[floating](tile, layout, GENERAL, LOG_SOFTMAX_VJPS, 0)


cdef void write_of(Tile *tile, Layout layout, Values values, floating type_tag) noexcept nogil:
    if layout == ROWS:
        write_in[floating](tile, ROWS, values, 0)
    else:
        write_in[floating](tile, COLUMNS, values, 0)


cdef void write_tile(const Job *job, Tile *tile, floating type_tag) noexcept nogil:
    if has_hessian(job):    # before its exponentials give way to gradients
        write_of[floating](tile, job.layout, HESSIANS, 0)
    write_of[floating](tile, job.layout, job.values, 0)


# Rows that are not as the others

cdef inline double value_left_out(const Job *job) noexcept nogil:
    """What a masked class gets."""
    return -INFINITY if job.values == LOG_PROBABILITIES else 0.0


cdef inline bint has_nan_results(const Job *job, const Tile *tile, Py_ssize_t r) noexcept nogil:
    if job.values == LOG_PROBABILITIES:
        return tile.log_sum[r] != tile.log_sum[r]
    return tile.factor_hi[r] != tile.factor_hi[r]


cdef inline void write_target(
    const Tile *tile, Py_ssize_t r, npy_intp first, floating type_tag
) noexcept nogil:
    """The gradient that was computed by itself, if it is among the classes from `first` on."""
    cdef floating *y = <floating *> tile.result.data + r * tile.result.row_step
    if first <= tile.of.loss.target[r] < first + tile.classes:
        y += (tile.of.loss.target[r] - first) * tile.result.class_step
        y[0] = <floating> tile.of.loss.target_result[r]


cdef void mend_row(
    const Job *job, const Tile *tile, Py_ssize_t r, const View *view, double scale_at_end,
    const char *mask, npy_intp mask_stride, floating type_tag
) noexcept nogil:
    """A row that doesn't count has no gradient; what is beyond a float is multiplied at the end. In
    a row that is NaN, what a mask leaves out is not, and NaN is one NaN: which one an operation
    keeps depends on the copy that was made of a loop, and that on the row's place, and that on the
    threads.
    """
    cdef npy_intp step = view.class_step, i
    cdef floating *y = <floating *> view.data + r * view.row_step
    if is_loss(job) and tile.of.loss.target[r] < 0:
        for i in range(tile.classes):
            y[i * step] = 0
    elif has_nan_results(job, tile, r):
        for i in range(tile.classes):
            if mask != NULL and not mask[i * mask_stride]:
                y[i * step] = <floating> value_left_out(job)
            elif y[i * step] != y[i * step]:
                y[i * step] = NAN
    elif scale_at_end != 1:
        for i in range(tile.classes):
            if y[i * step] == 0:
                continue
            if is_vjp(job):    # by the temperature itself, whose reciprocal may be too large
                y[i * step] = <floating> (y[i * step] / scale_at_end)
            else:
                y[i * step] = <floating> (y[i * step] * scale_at_end)


cdef inline double scale_at_end_of(const Job *job, const Tile *tile, Py_ssize_t r) noexcept nogil:
    return tile.scale_at_end[r] if job.operation.has_grad or is_vjp(job) else 1


cdef inline bint is_any_to_mend(const Job *job, const Tile *tile) noexcept nogil:
    """In loops of their own, which become vector code."""
    cdef bint is_any = False
    cdef Py_ssize_t r
    for r in range(tile.rows):
        is_any |= has_nan_results(job, tile, r)
    if job.operation.has_grad or is_vjp(job):
        for r in range(tile.rows):
            is_any |= tile.scale_at_end[r] != 1
    if has_hessian(job):
        for r in range(tile.rows):
            is_any |= tile.of.loss.curvature_at_end[r] != 1
    if is_loss(job):
        for r in range(tile.rows):
            is_any |= tile.of.loss.target[r] < 0
    return is_any


cdef void mend_rows(
    const Job *job, const Block *block, npy_intp begin, const Tile *tile, npy_intp first,
    floating type_tag
) noexcept nogil:
    """Of a tile whose numbers are from the class `first` on."""
    cdef const Part *part
    cdef const char *mask = NULL
    cdef npy_intp p, r, k, mask_stride = job.plan.stride[MASK]
    cdef bint is_any
    if job.values == NO_VALUES:
        return
    is_any = is_any_to_mend(job, tile)
    for p in range(block.count if is_any else 0):
        part = block.parts + p
        for k in range(max(begin, part.first), min(begin + tile.rows, part.first + part.rows)):
            r = k - begin
            if tile.classes > MANY_CLASSES and must_stop():
                return
            if is_masked(job):
                mask = part.places[MASK] + first * mask_stride
                mask += (k - part.first) * job.plan.strides[0][MASK]
            mend_row[floating](
                job, tile, r, &tile.result, scale_at_end_of(job, tile, r), mask, mask_stride, 0
            )
            if has_hessian(job):
                mend_row[floating](
                    job, tile, r, &tile.hessian, tile.of.loss.curvature_at_end[r], mask,
                    mask_stride, 0,
                )
    if is_loss(job):    # with a gradient, else there are no values
        for r in range(tile.rows):
            if not (is_any and has_nan_results(job, tile, r)):
                write_target[floating](tile, r, first, 0)


cdef void change_rows_for_extremes(
    const Job *job, const Block *block, npy_intp begin, Tile *tile, floating type_tag
) noexcept nogil:
    cdef Maximum maximum
    cdef const Part *part
    cdef npy_intp p, r
    cdef floating *x
    for p in range(block.count):
        part = block.parts + p
        for r in range(max(begin, part.first), min(begin + tile.rows, part.first + part.rows)):
            x = <floating *> tile.logits.data + (r - begin) * tile.logits.row_step
            maximum = maximum_of[floating](
                <char *> x, tile.logits.class_step * sizeof(floating), tile.classes, NULL, 0, 0
            )
            change_for_extreme(
                x, tile.logits.class_step, tile.classes, 0, &maximum,
                temperature_given(job, part, r - part.first),
            )
            if job.operation.function == SOFTMAX_AND_LOGSUMEXP:
                tile.of.extreme.given_maximum[r - begin] = maximum.value


cdef void add_given_maxima(
    const Job *job, const Block *block, npy_intp begin, Tile *tile
) noexcept nogil:
    """Over T, to logsumexps at extreme temperatures, where the maximum that is left is 0."""
    cdef const Part *part
    cdef double temperature, given
    cdef npy_intp p, r
    for p in range(block.count):
        part = block.parts + p
        for r in range(max(begin, part.first), min(begin + tile.rows, part.first + part.rows)):
            temperature = temperature_given(job, part, r - part.first)
            given = tile.of.extreme.given_maximum[r - begin]
            # 0 / 0 is what the first maximum has at temperature 0.
            if is_extreme(temperature) and tile.maximum[r - begin] == 0 and given != 0:
                tile.row_result[r - begin] += given / temperature


# A mask may leave out all that comes after some class in a whole block, as causal ones do. Then
# nothing is computed there.

cdef inline bint is_any_set(const char *mask) noexcept nogil:
    """Of a vector of bytes."""
    cdef char any_of = 0
    cdef npy_intp k
    for k in range(LANE_BYTES):
        any_of |= mask[k]
    return any_of != 0


cdef inline npy_intp classes_kept(
    const Job *job, const Block *block, floating type_tag
) noexcept nogil:
    """Up to the last that some row keeps, in whole vectors: a class has the same lane wherever it
    ends."""
    cdef npy_intp stride = job.plan.stride[MASK], kept = lanes_of[floating](0), p, r, i
    cdef const char *mask
    if not is_masked(job) or job.layout == COLUMNS or is_loss(job) or is_selection(job):
        return job.plan.n    # losses weigh every class, and any may be selected
    for p in range(block.count):
        for r in range(block.parts[p].rows):
            mask = block.parts[p].places[MASK] + r * job.plan.strides[0][MASK]
            i = job.plan.n
            while stride == 1 and i - LANE_BYTES >= kept and not is_any_set(mask + i - LANE_BYTES):
                i -= LANE_BYTES
            while i > kept and not mask[(i - 1) * stride]:
                i -= 1
            kept = i
    return min(job.plan.n, whole_lanes[floating](kept, 0))


cdef void leave_out(
    const Job *job, const Block *block, npy_intp first, floating type_tag
) noexcept nogil:
    """Classes from `first` on."""
    cdef npy_intp stride = job.plan.stride[RESULT], p, r, i
    cdef floating left_out = <floating> value_left_out(job)
    cdef char *y
    if job.values == NO_VALUES or first == job.plan.n:
        return
    for p in range(block.count):
        for r in range(block.parts[p].rows):
            y = block.parts[p].places[RESULT] + r * job.plan.strides[0][RESULT]
            if stride == <npy_intp> sizeof(floating):
                for i in range(first, job.plan.n):
                    (<floating *> y)[i] = left_out
            else:
                for i in range(first, job.plan.n):
                    (<floating *> (y + i * stride))[0] = left_out


cdef void compute_rows(
    const Job *job, const Block *block, char *copies, bint *has_gaps, floating type_tag
) noexcept nogil:
    cdef Tile *tile = tile_of_participant(job, copies)
    cdef Rows rows
    cdef npy_intp begin = 0, classes = classes_kept[floating](job, block, 0)
    load_operands[floating](job, block, 0, classes, copies, &rows, 0)
    fetch_next(job, block, &rows)
    tile.has_gaps = has_gaps[0]
    while begin < block.rows:
        start_tile[floating](
            job, &rows, begin, min(job.rows_of_tile, block.rows - begin), classes, tile, 0
        )
        gather_operands[floating](job, block, begin, tile, 0)
        if is_divergence(job):
            start_target[floating](job, block, &rows, begin, tile, tile + 1, 0)
        if job.has_extremes and not is_vjp(job):
            change_rows_for_extremes[floating](job, block, begin, tile, 0)
            if is_divergence(job):
                change_rows_for_extremes[floating](job, block, begin, tile.of_target, 0)
        if has_indices(job):
            gather_target_logits[floating](job, tile, 0)
        if is_sample(job):
            find_maxima_of[floating](tile, job.layout, 0)
            set_params_of[floating](tile, True, 0)
        else:
            sum_tile[floating](job, tile, 0)
            finish_tile[floating](job, block, begin, tile, 0)
        write_tile[floating](job, tile, 0)
        mend_rows[floating](job, block, begin, tile, 0, 0)
        if is_selection(job):
            select_in_rows[floating](job, block, begin, tile, copies + job.candidates_at, 0)
        elif job.plan.data[ROW_RESULT] != NULL:
            settle_results(job, block, begin, tile)
            scatter_results[floating](job, block, begin, tile, 0)
        begin += tile.rows
    has_gaps[0] = tile.has_gaps
    store_results[floating](job, block, 0, classes, &rows, 0)
    leave_out[floating](job, block, classes, 0)


# A row that is longer than a chunk. Chunks have exponentials and sums of their own, each in a unit
# of its own, which are brought together afterwards. Where a chunk begins depends on nothing but n,
# so threads can share a row without a trace in the result.

cdef struct Chunk:
    double maximum
    double shift
    double power
    double residue
    double largest_weight
    int64_t largest_class    # if it has more than all others; else n
    DoubleDouble coefficient    # of this class in a loss
    DoubleDouble sum
    WeightedSums weighted
    double lead            # of a divergence, as its tile; its A and B
    double a
    double b
    DoubleDouble ratio     # a unit of its exponentials is ratio 2^ratio_power of the whole row's
    double ratio_power
    npy_intp candidates    # that were copied
    bint has_nan


cdef struct Selected


cdef struct LongRow:
    # What the threads that share a row need.
    const Job *job
    const Block *block       # of this row alone
    Maximum maximum          # where the temperature is extreme
    double temperature
    Chunk *chunks
    npy_intp count
    Tile *whole
    char *copies             # of each thread
    char *kept               # two slots for each chunk, or NULL
    LongRow *of_target       # of a divergence
    Selected *selected


cdef inline char *copies_of_participant(const LongRow *all, int participant) noexcept nogil:
    return all.copies + participant * all.job.bytes_of_participant


cdef inline npy_intp chunk_length(floating type_tag) noexcept nogil:
    return CHUNK_BYTES // <npy_intp> sizeof(floating)


cdef inline npy_intp chunks_of(npy_intp n, floating type_tag) noexcept nogil:
    """The last one may be longer by less than a vector, so that none is shorter than that."""
    cdef npy_intp LANES = LANE_BYTES // <npy_intp> sizeof(floating)
    return max(1, (n - LANES) // chunk_length[floating](0) + 1) if n > LANES else 1


cdef inline void start_chunk(
    const LongRow *all, npy_intp c, Rows *rows, Tile *tile, char *copies, floating type_tag
) noexcept nogil:
    cdef const Job *job = all.job
    cdef npy_intp start = c * chunk_length[floating](0), count = chunk_length[floating](0)
    if c + 1 == all.count:
        count = job.plan.n - start
    load_operands[floating](job, all.block, start, count, copies, rows, 0)
    start_tile[floating](job, rows, 0, 1, count, tile, 0)
    if job.loss != NULL and job.loss.class_weights != NULL:
        tile.class_weights = <floating *> job.loss.finite_weights + start
    if job.has_extremes and not is_vjp(job):
        change_for_extreme(
            <floating *> tile.logits.data, 1, count, start, &all.maximum, all.temperature
        )
    if is_divergence(job):
        if job.keeps_row:
            rows.kept.data = all.kept + 2 * c * job.slot_bytes
            rows.kept_of_target.data = all.kept + (2 * c + 1) * job.slot_bytes
        start_target[floating](job, all.block, rows, 0, tile, tile + 1, 0)
        if job.has_extremes:
            change_for_extreme(
                <floating *> tile.companion.data, 1, count, start, &all.of_target.maximum,
                all.temperature,
            )


cdef inline void keep_sums_of_chunk(
    Chunk *chunk, const Tile *tile, floating type_tag
) noexcept nogil:
    chunk.maximum = tile.maximum[0]
    chunk.shift = in_type_of[floating](tile.shift, 0)[0]
    chunk.power = tile.power[0]
    chunk.residue = tile.residue[0]
    chunk.largest_weight = in_type_of[floating](tile.of.weighted_sum.largest_weight, 0)[0]
    chunk.sum = sum_of_row(tile, 0)
    chunk.ratio = from_double(0)
    chunk.ratio_power = -3000


cdef inline void keep_divergence_of_chunk(
    Chunk *chunk, Chunk *of_target, const Tile *tile
) noexcept nogil:
    """What is infinite has no errors to add."""
    chunk.a = tile.weights_hi[0]
    chunk.b = tile.distances_hi[0]
    if is_finite(chunk.a) and is_finite(chunk.b):
        chunk.a += tile.weights_lo[0]
        chunk.b += tile.distances_lo[0]
    chunk.a = chunk.a / tile.of_target.sum_hi[0]
    chunk.b = chunk.b / tile.of_target.sum_hi[0]
    chunk.lead = tile.of.divergence.lead[0]
    chunk.weighted.weights = chunk.weighted.distances = from_double(0)
    of_target.weighted = chunk.weighted    # which is of other functions


cdef void sum_chunks(
    void *work, npy_intp first, npy_intp last, int participant, const floating *type_tag
) noexcept nogil:
    cdef LongRow *all = <LongRow *> work
    cdef const Job *job = all.job
    cdef npy_intp length = chunk_length[floating](0), c
    cdef Chunk *chunk
    cdef Rows rows
    cdef char *copies = copies_of_participant(all, participant)
    cdef Tile *tile = tile_of_participant(job, copies)
    tile.has_gaps = False
    for c in range(first, last):
        start_chunk[floating](all, c, &rows, tile, copies, 0)
        if is_selection(job):
            find_groups_of_chunk[floating](all, c, tile, 0)
        if is_sample(job):
            continue
        gather_operands[floating](job, all.block, 0, tile, 0)
        clear_weighted_sums(tile, 0)    # there may be none
        sum_tile[floating](job, tile, 0)
        chunk = all.chunks + c
        chunk.weighted = weighted_sums_of_row(tile, 0)
        if is_vjp(job):
            continue
        keep_sums_of_chunk[floating](chunk, tile, 0)
        if has_grad_of_targets(job):
            chunk.largest_class = job.plan.n
            if 0 <= tile.of.loss.target[0] < tile.classes:
                chunk.largest_class = c * length + tile.of.loss.target[0]
            chunk.coefficient.hi = tile.of.loss.coefficient_hi[0]
            chunk.coefficient.lo = tile.of.loss.coefficient_lo[0]
        if is_divergence(job):
            keep_sums_of_chunk[floating](all.of_target.chunks + c, tile.of_target, 0)
            keep_divergence_of_chunk(chunk, all.of_target.chunks + c, tile)
        if keeps_exponentials(job):
            store_results[floating](job, all.block, c * length, tile.classes, &rows, 0)


cdef inline void set_ratio(Chunk *chunk, const Tile *whole, floating type_tag) noexcept nogil:
    """exp(shift_c - shift_w) 2^(N_c - N_w), with the temperature in place."""
    cdef DoubleDouble inverse, d
    cdef double k
    inverse.hi = in_type_of[floating](whole.inverse_hi, 0)[0]
    inverse.lo = in_type_of[floating](whole.inverse_lo, 0)[0]
    d = dd_mul[double](
        from_double(chunk.shift - in_type_of[floating](whole.shift, 0)[0]), inverse, 0
    )
    k = rint(d.hi * LOG2_E)
    chunk.ratio_power = k + chunk.power - whole.power[0]
    if not chunk.ratio_power > -3000:    # so far below the maximum that nothing of it is left
        chunk.ratio_power = -3000
        return
    chunk.ratio = exp_dd[double]((exact_fma(-LN2_HI_DOUBLE, k, d.hi) - LN2_LO_DOUBLE * k) + d.lo, 0)


cdef inline DoubleDouble in_units_of_row(const Chunk *chunk, DoubleDouble sum) noexcept nogil:
    cdef double power = max(-2040.0, chunk.ratio_power)
    cdef double half = rint(power / 2)    # together they may be less than the smallest number
    sum = dd_mul[double](dd_mul[double](sum, chunk.ratio, 0), from_double(power_of_two(half)), 0)
    return dd_mul[double](sum, from_double(power_of_two(power - half)), 0)


cdef inline double reference_of(const Chunk *chunk) noexcept nogil:
    """What distances in a chunk are taken from: of -inf alone, from any finite number."""
    return chunk.maximum if is_finite(chunk.maximum) else 0


cdef void combine_weighted_chunks(LongRow *all, floating type_tag) noexcept nogil:
    """The largest exponentials of a chunk are the row's, or among its others."""
    cdef Tile *whole = all.whole
    cdef WeightedSums sums
    cdef DoubleDouble others
    cdef Chunk *chunk
    cdef bint has_nan = False
    cdef double largest_weight
    cdef npy_intp c
    whole.maximum[0] = -INFINITY
    largest_weight = 0
    for c in range(all.count):
        chunk = all.chunks + c
        has_nan |= chunk.maximum != chunk.maximum
        has_nan |= chunk.weighted.distances.hi != chunk.weighted.distances.hi
        whole.maximum[0] = max(whole.maximum[0], chunk.maximum)
        largest_weight = max(largest_weight, chunk.largest_weight)
    if has_nan:
        whole.maximum[0] = NAN
    in_type_of[floating](whole.of.weighted_sum.largest_weight, 0)[0] = <floating> largest_weight
    set_params_of[floating](whole, True, 0)
    sums.weights = sums.distances = from_double(0)
    for c in range(all.count):
        chunk = all.chunks + c
        if not (is_finite(whole.maximum[0]) and is_finite(chunk.maximum)):
            continue
        set_ratio[floating](chunk, whole, 0)
        others = chunk.weighted.distances
        if chunk.maximum == whole.maximum[0]:
            sums.weights = dd_add[double](sums.weights, chunk.weighted.weights, 0)
        else:
            others = dd_add[double](
                dd_mul[double](chunk.weighted.weights, exp_dd[double](chunk.residue, 0), 0),
                others, 0,
            )
        sums.distances = dd_add[double](sums.distances, in_units_of_row(chunk, others), 0)
    whole.weights_hi[0], whole.weights_lo[0] = sums.weights.hi, sums.weights.lo
    whole.distances_hi[0], whole.distances_lo[0] = sums.distances.hi, sums.distances.lo


cdef inline void find_largest_class_of_row(LongRow *all, bint has_one) noexcept nogil:
    """See find_largest_classes."""
    cdef Tile *whole = all.whole
    cdef const Chunk *chunk
    cdef npy_intp c
    whole.of.loss.coefficient_hi[0] = whole.of.loss.coefficient_lo[0] = 0
    for c in range(all.count if has_one and whole.of.loss.target[0] >= 0 else 0):
        chunk = all.chunks + c
        if chunk.maximum == whole.maximum[0]:
            whole.of.loss.target[0] = chunk.largest_class
            whole.of.loss.coefficient_hi[0] = chunk.coefficient.hi
            whole.of.loss.coefficient_lo[0] = chunk.coefficient.lo


cdef void combine_chunks(LongRow *all, floating type_tag) noexcept nogil:
    """The sums of the row that the chunks make, and their ratios to it."""
    cdef const Job *job = all.job
    cdef Tile *whole = all.whole
    cdef DoubleDouble sum = from_double(0), part
    cdef WeightedSums weighted
    cdef WeightedSums part_weighted
    cdef Chunk *chunk
    cdef bint has_nan = False, is_largest_out = False
    cdef npy_intp c
    weighted.weights = weighted.distances = from_double(0)
    if job.weighing == WEIGHTED_EXPONENTIALS:
        combine_weighted_chunks[floating](all, 0)
        return
    if is_vjp(job):
        for c in range(all.count):
            weighted.distances = dd_add[double](
                weighted.distances, all.chunks[c].weighted.distances, 0
            )
        whole.distances_hi[0] = weighted.distances.hi
        whole.distances_lo[0] = weighted.distances.lo
        return
    whole.maximum[0] = -INFINITY
    for c in range(all.count):
        chunk = all.chunks + c
        has_nan |= chunk.maximum != chunk.maximum
        has_nan |= is_finite(chunk.maximum) and chunk.sum.hi != chunk.sum.hi
        whole.maximum[0] = max(whole.maximum[0], chunk.maximum)
    if has_nan:
        whole.maximum[0] = NAN
    set_params_of[floating](whole, True, 0)
    for c in range(all.count):
        chunk = all.chunks + c
        part_weighted = chunk.weighted
        if is_finite(whole.maximum[0]) and is_finite(chunk.maximum):
            set_ratio[floating](chunk, whole, 0)
            part = chunk.sum
            if job.takes_logarithm and (chunk.maximum != whole.maximum[0] or is_largest_out):
                part = sum_of_exponentials[double](part, chunk.residue, 0)
            is_largest_out |= chunk.maximum == whole.maximum[0]
            part = in_units_of_row(chunk, part)
            sum = dd_add[double](sum, two_sum(part.hi, part.lo), 0)
            if job.weighing == BY_EXPONENTIALS:
                part_weighted.weights = in_units_of_row(
                    chunk, sum_of_exponentials[double](chunk.sum, chunk.residue, 0)
                )
                part_weighted.distances = in_units_of_row(chunk, part_weighted.distances)
        elif job.weighing == BY_EXPONENTIALS:
            continue
        part_weighted.distances = from_higher[double](
            part_weighted.distances,
            dd_scaled(part_weighted.weights, DISTANCE_UNIT) if job.weighing == BY_EXPONENTIALS
            else part_weighted.weights,
            whole.maximum[0], reference_of(chunk), 0,
        )
        weighted.weights = dd_add[double](weighted.weights, part_weighted.weights, 0)
        weighted.distances = dd_add[double](weighted.distances, part_weighted.distances, 0)
    if has_grad_of_targets(job):
        find_largest_class_of_row(all, sum.hi < exp_dd[double](whole.residue[0], 0).hi)
    whole.sum_hi[0], whole.sum_lo[0] = sum.hi, sum.lo
    whole.weights_hi[0], whole.weights_lo[0] = weighted.weights.hi, weighted.weights.lo
    whole.distances_hi[0] = weighted.distances.hi
    whole.distances_lo[0] = weighted.distances.lo


cdef void combine_divergences(LongRow *all) noexcept nogil:
    """With P and Q for the chunk's parts of both sides, and d for its center less the row's: exp(d)
    is Q / P, and A is the sum of P (exp(d) A_c + (exp(d) - 1) B_c + exp(d) - 1 - d)."""
    cdef Tile *whole = all.whole
    cdef const Tile *target = all.of_target.whole
    cdef const Chunk *chunk
    cdef const Chunk *of_target
    cdef Difference center = half_difference(whole.maximum[0], target.maximum[0]), apart
    cdef double per_center = 2 / whole.temperature[0], a = 0, b = 0, p, q, half_d, d, excess
    cdef npy_intp c
    for c in range(all.count):
        chunk = all.chunks + c
        of_target = all.of_target.chunks + c
        p = in_units_of_row(of_target, of_target.sum).hi / target.sum_hi[0]
        q = in_units_of_row(chunk, chunk.sum).hi / whole.sum_hi[0]
        apart = half_difference(chunk.maximum, of_target.maximum)
        half_d = (apart.hi - center.hi) + (apart.lo - center.lo)
        half_d += chunk.lead - whole.of.divergence.lead[0]
        d = half_d * per_center
        if p == 0:
            a += q
        elif chunk.maximum == -INFINITY or chunk.a == INFINITY:
            a = INFINITY
        elif is_small(d):
            excess = excess_of_exp(d)
            a += p * (chunk.a + (d + excess) * (chunk.a + chunk.b) + excess)
            b += p * (chunk.b + d)
        else:
            a += q * chunk.a + (q - p) * chunk.b + (q - p - p * half_d * per_center)
            b += p * chunk.b + p * half_d * per_center
    whole.weights_hi[0] = a * target.sum_hi[0]
    whole.distances_hi[0] = b * target.sum_hi[0]
    whole.weights_lo[0] = whole.distances_lo[0] = 0


cdef inline void set_row_of_chunk(
    const Tile *whole, Tile *tile, floating type_tag
) noexcept nogil:
    """What results are made of."""
    tile.kind = whole.kind
    tile.maximum[0] = whole.maximum[0]
    tile.log_sum[0] = whole.log_sum[0]
    in_type_of[floating](tile.inverse_hi, 0)[0] = in_type_of[floating](whole.inverse_hi, 0)[0]
    in_type_of[floating](tile.inverse_lo, 0)[0] = in_type_of[floating](whole.inverse_lo, 0)[0]
    tile.factor_hi[0] = whole.factor_hi[0]
    tile.factor_lo[0] = whole.factor_lo[0]
    tile.scale[0] = whole.scale[0]
    tile.scale_at_end[0] = whole.scale_at_end[0]
    # Of whichever function it is.
    tile.of.loss.inverse_sum_hi[0] = whole.of.loss.inverse_sum_hi[0]
    tile.of.loss.inverse_sum_lo[0] = whole.of.loss.inverse_sum_lo[0]
    tile.of.loss.of_largest[0] = whole.of.loss.of_largest[0]
    tile.of.loss.curvature[0] = whole.of.loss.curvature[0]
    tile.of.loss.curvature_at_end[0] = whole.of.loss.curvature_at_end[0]
    tile.of.loss.target[0] = whole.of.loss.target[0]
    tile.of.loss.target_result[0] = whole.of.loss.target_result[0]
    tile.of.divergence.center_hi[0] = whole.of.divergence.center_hi[0]
    tile.of.divergence.center_lo[0] = whole.of.divergence.center_lo[0]
    tile.of.divergence.last[0] = whole.of.divergence.last[0]
    tile.of.divergence.per_center[0] = whole.of.divergence.per_center[0]
    tile.of.product.grad_unit[0] = whole.of.product.grad_unit[0]


cdef inline void scale_factor(double *hi, double *lo, DoubleDouble ratio) noexcept nogil:
    cdef DoubleDouble factor
    factor.hi = hi[0]
    factor.lo = lo[0]
    factor = dd_mul[double](factor, ratio, 0)
    hi[0] = factor.hi
    lo[0] = factor.lo


cdef void scale_to_row(
    const Job *job, const Chunk *chunk, Tile *tile, floating type_tag
) noexcept nogil:
    """What a chunk's exponentials are multiplied by; where that is so small that it would lose
    digits, a part of it goes to the exponentials."""
    cdef double lowest = -250 if floating is float else -2000
    cdef double power = max(lowest, chunk.ratio_power)
    cdef DoubleDouble ratio
    cdef floating *e = <floating *> tile.result.data
    cdef floating half, other_half
    cdef npy_intp i
    if power < -60:
        half = <floating> power_of_two(floor(power / 2))
        other_half = <floating> power_of_two(power - floor(power / 2))
        for i in range(tile.classes):
            e[i] = e[i] * half * other_half
        power = 0
    ratio = dd_mul[double](chunk.ratio, from_double(power_of_two(power)), 0)
    scale_factor(tile.factor_hi, tile.factor_lo, ratio)
    if has_hessian(job):
        scale_factor(tile.of.loss.inverse_sum_hi, tile.of.loss.inverse_sum_lo, ratio)


cdef void prepare_divergence_of_chunk(
    const LongRow *all, npy_intp c, Tile *tile, floating type_tag
) noexcept nogil:
    """The exponentials of both sides once more, unless there was room for those of a row."""
    cdef View result = tile.result
    tile.result = tile.kept
    tile.maximum[0] = all.chunks[c].maximum
    tile.of_target.maximum[0] = all.of_target.chunks[c].maximum
    tile.temperature[0] = all.whole.temperature[0]
    if not all.job.keeps_row:
        sum_kept[floating](all.job, tile, 0)
        sum_kept[floating](all.job, tile.of_target, 0)
    set_row_of_chunk[floating](all.whole, tile, 0)
    set_row_of_chunk[floating](all.of_target.whole, tile.of_target, 0)
    scale_to_row[floating](all.job, all.chunks + c, tile, 0)
    scale_to_row[floating](all.job, all.of_target.chunks + c, tile.of_target, 0)
    tile.result = result


cdef void write_chunks(
    void *work, npy_intp first, npy_intp last, int participant, const floating *type_tag
) noexcept nogil:
    cdef LongRow *all = <LongRow *> work
    cdef const Job *job = all.job
    cdef npy_intp length = chunk_length[floating](0), c
    cdef Rows rows
    cdef char *copies = copies_of_participant(all, participant)
    cdef Tile *tile = tile_of_participant(job, copies)
    for c in range(first, last):
        start_chunk[floating](all, c, &rows, tile, copies, 0)
        if keeps_exponentials(job):    # which sum_chunks has left there
            tile.result = rows.result = loaded[floating](
                job, all.block, RESULT, 2, c * length, tile.classes, copies, 0
            )
        set_row_of_chunk[floating](all.whole, tile, 0)
        if is_divergence(job):
            prepare_divergence_of_chunk[floating](all, c, tile, 0)
        elif keeps_exponentials(job):
            scale_to_row[floating](job, all.chunks + c, tile, 0)
        write_tile[floating](job, tile, 0)
        mend_rows[floating](job, all.block, 0, tile, c * length, 0)
        store_results[floating](job, all.block, c * length, tile.classes, &rows, 0)


cdef void compute_long_row(
    const Job *job, const Block *block, char *scratch, floating type_tag
) noexcept nogil:
    cdef const Plan *plan = job.plan
    cdef const char *logits = block.parts[0].places[LOGITS]
    cdef const char *mask = block.parts[0].places[MASK] if is_masked(job) else NULL
    cdef floating target_logit
    cdef LongRow all, of_target
    cdef Selected selected
    cdef Tile *whole = <Tile *> (scratch + job.threads_of_row * job.bytes_of_participant)
    whole.rows = whole.padded = 1
    whole.share = whole.offset = 0
    if job.loss != NULL:
        whole.share = job.loss.share
        whole.offset = job.loss.offset
    all.job = job
    all.block = block
    all.chunks = <Chunk *> (whole + 1)
    all.count = chunks_of[floating](plan.n, 0)
    all.whole = whole
    all.copies = scratch
    all.temperature = (<double *> block.parts[0].places[TEMPERATURE])[0]
    gather_operands[floating](job, block, 0, whole, 0)
    if job.has_extremes and not is_vjp(job):
        all.maximum = maximum_of[floating](
            logits, plan.stride[LOGITS], plan.n, mask, plan.stride[MASK], 0
        )
        if job.operation.function == SOFTMAX_AND_LOGSUMEXP:
            whole.of.extreme.given_maximum[0] = all.maximum.value
    if is_divergence(job):
        of_target = all
        of_target.whole = <Tile *> (all.chunks + all.count)
        of_target.chunks = <Chunk *> (of_target.whole + 1)
        of_target.whole.rows = of_target.whole.padded = 1
        gather_operands[floating](job, block, 0, of_target.whole, 0)
        whole.of_target = of_target.whole
        all.of_target = &of_target
        all.kept = aligned(<char *> (of_target.chunks + all.count))
        if job.has_extremes:
            of_target.maximum = maximum_of[floating](
                block.parts[0].places[COMPANION], plan.stride[COMPANION], plan.n, mask,
                plan.stride[MASK], 0,
            )
    if is_selection(job):
        start_selected[floating](
            &selected, job, block.parts, 0, whole, 0, scratch + job.candidates_at, 0
        )
        selected.all = &all
        selected.first_maximum = all.maximum
        all.selected = &selected
    whole.of.loss.target_logit[0] = 0
    if has_indices(job) and whole.of.loss.target[0] >= 0:
        target_logit = (<floating *> (logits + whole.of.loss.target[0] * plan.stride[LOGITS]))[0]
        if mask != NULL and not mask[whole.of.loss.target[0] * plan.stride[MASK]]:
            target_logit = -INFINITY
        if job.has_extremes:
            change_for_extreme(
                &target_logit, 1, 1, whole.of.loss.target[0], &all.maximum, all.temperature
            )
        whole.of.loss.target_logit[0] = target_logit
    share(<Work> sum_chunks[floating], &all, all.count, 1, plan.n, job.threads_of_row)
    if is_stopped():    # and what others would have left is missing
        return
    if is_sample(job):
        set_params_of_sample[floating](&all, 0)
        select_in_row[floating](&selected, 0)
        return
    combine_chunks[floating](&all, 0)
    if is_divergence(job):
        combine_chunks[floating](&of_target, 0)
        set_center[floating](whole, 0)
        combine_divergences(&all)
        if correct_leads[floating](whole, 0):
            combine_divergences(&all)
    finish_tile[floating](job, block, 0, whole, 0)
    if is_selection(job):
        select_in_row[floating](&selected, 0)
        return
    if plan.data[ROW_RESULT] != NULL:
        settle_results(job, block, 0, whole)
        scatter_results[floating](job, block, 0, whole, 0)
    if job.values != NO_VALUES:
        share(<Work> write_chunks[floating], &all, all.count, 1, plan.n, job.threads_of_row)


# nll_loss: of log-probabilities, of which one is read.

cdef void pick_targets(const Job *job, const Block *block, floating type_tag) noexcept nogil:
    cdef const Plan *plan = job.plan
    cdef const Part *part = &block.parts[0]
    cdef const floating *class_weights = <const floating *> job.loss.class_weights
    cdef double picked, class_weight, weight
    cdef int64_t target
    cdef npy_intp r
    for r in range(block.rows):
        target = counted_target(job, part.places[TARGET] + r * plan.strides[0][TARGET])
        picked = 0
        weight = 1
        if plan.data[WEIGHT] != NULL:
            weight = (<double *> (part.places[WEIGHT] + r * plan.strides[0][WEIGHT]))[0]
        if target >= 0 and weight != 0:
            picked = 0 - (<const floating *> (
                part.places[LOGITS] + r * plan.strides[0][LOGITS] + target * plan.stride[LOGITS]
            ))[0]
            class_weight = 1 if class_weights == NULL else class_weights[target]
            if class_weight == 0 and picked == INFINITY:    # what has the weight 0 doesn't count
                picked = 0
            # The weights first: with one alone it may overflow.
            picked *= class_weight * job.loss.share * (weight * job.loss.row_unit)
            if picked != picked:
                picked = NAN
        (<floating *> (part.places[ROW_RESULT] + r * plan.strides[0][ROW_RESULT]))[0] = (
            <floating> picked
        )


# Which way, and what threads share

cdef inline bint are_ordinary(const Plan *plan) noexcept nogil:
    cdef npy_intp step = plan.strides[0][TEMPERATURE], group, r
    cdef char *places[ROLES]
    if plan.is_number[TEMPERATURE]:
        return not is_extreme((<double *> plan.data[TEMPERATURE])[0])
    for group in range(plan.groups):
        locate(plan, group, 0, places)
        for r in range(plan.shape[0]):
            if is_extreme((<double *> (places[TEMPERATURE] + r * step))[0]):
                return False
    return True


cdef inline bint are_side_by_side(const Job *job, npy_intp size) noexcept nogil:
    """Whether the rows' numbers are; a mask may lie as it likes."""
    cdef const Plan *plan = job.plan
    cdef int role
    for role in range(OF_CLASSES):
        if plan.data[role] == NULL:
            continue
        if is_broadcast(job, role):
            continue
        if plan.strides[0][role] != size or plan.stride[role] % size:
            return False
    return True


cdef inline Path path_for(const Job *job, npy_intp size) noexcept nogil:
    cdef npy_intp n = job.plan.n, lanes = LANE_BYTES // size, in_group = job.plan.shape[0]
    if job.operation.function == NLL_LOSS:
        return PICKED
    if not job.has_extremes and not is_selection(job) and in_group >= lanes and (
        are_side_by_side(job, size)
    ):
        if n > FEW or in_group % lanes == 0 or in_group >= 3 * lanes:
            return DIRECT_COLUMNS
    return COPIED_COLUMNS if n <= FEW else IN_ROWS


cdef inline npy_intp rows_of_tile(const Job *job, floating type_tag) noexcept nogil:
    cdef npy_intp lanes = lanes_of[floating](0), row_bytes = job.plan.n * sizeof(floating)
    cdef npy_intp rows = MAX_ROWS, bytes
    if job.path == IN_ROWS:
        return max(1, min(rows, TILE_BYTES // row_bytes))
    if job.path == COPIED_COLUMNS:
        bytes = COPY_BYTES if job.is_in_cache else COPY_BYTES_FROM_MEMORY
        return max(lanes, min(rows, bytes // LANE_BYTES // job.plan.n * lanes))
    if job.path == DIRECT_COLUMNS and (
        is_masked(job) or copies_exponentials(job) or is_broadcast(job, COMPANION)
    ):    # which have copies
        return max(lanes, min(rows, CACHE_BYTES // row_bytes // lanes * lanes))
    return rows


cdef inline npy_intp rows_of_block(const Job *job, floating type_tag) noexcept nogil:
    """Rows with gaps between their numbers share cache lines with others: many are copied together.
    Those that lie right are looked up together."""
    cdef npy_intp size = sizeof(floating), rows = MAX_ROWS
    cdef bint are_direct = True
    cdef int role
    if job.path == PICKED:    # which have no tile
        return NUMBERS_PER_SHARE
    if job.path != IN_ROWS:
        return job.rows_of_tile
    if chunks_of[floating](job.plan.n, 0) > 1:
        return 1
    for role in range(OF_CLASSES):
        if job.plan.data[role] == NULL:
            continue
        if job.plan.stride[role] != size:
            rows = MOST_COPIED_ROWS
            return max(1, min(rows, CACHE_BYTES // (job.plan.n * size)))
        are_direct = are_direct and lies_right(job, role, size)
    return rows if are_direct and not copies_exponentials(job) else job.rows_of_tile


cdef void over_units(
    void *work, npy_intp first, npy_intp last, int participant, const floating *type_tag
) noexcept nogil:
    cdef const Job *job = <Job *> work
    cdef npy_intp row = job.begin + first * job.unit
    cdef npy_intp end = min(job.end, job.begin + last * job.unit), rows
    cdef bint is_long = job.path == IN_ROWS and chunks_of[floating](job.plan.n, 0) > 1
    cdef bint has_gaps = False
    cdef Block *block = <Block *> (aligned(job.scratch) + participant * job.bytes_of_thread)
    cdef char *scratch = <char *> block + whole_vectors(sizeof(Block))
    while row < end and not is_stopped():
        rows = min(job.rows_of_block, end - row)
        if job.path != COPIED_COLUMNS:    # which may be of several groups
            rows = min(rows, job.rows_of_group - row % job.rows_of_group)
        find_parts(job, row, rows, block)
        if job.path == PICKED:
            pick_targets[floating](job, block, 0)
        elif is_long:
            compute_long_row[floating](job, block, scratch, 0)
        else:
            compute_rows[floating](job, block, scratch, &has_gaps, 0)
        row += rows


cdef inline npy_intp work_of_row(npy_intp n, const Selection *selection) noexcept nogil:
    """In numbers of other functions."""
    if selection == NULL:
        return n
    return SELECTION_WORK * min(n, <npy_intp> MOST_PLACES) + DRAW_WORK * selection.draws


cdef void share_rows(Job *job, floating type_tag) noexcept nogil:
    """Among threads, in whole units, so that the results don't depend on the threads."""
    cdef npy_intp n = job.plan.n, rows = job.end - job.begin
    cdef npy_intp units = (rows + job.unit - 1) // job.unit
    cdef npy_intp numbers = rows if job.path == PICKED else rows * work_of_row(n, job.selection)
    cdef npy_intp chunks = chunks_of[floating](n, 0) if job.path == IN_ROWS else 1
    cdef npy_intp bytes
    cdef int worth = threads_for(numbers)
    cdef int threads = <int> max(1, min(worth, units))
    job.threads_of_row = 1
    if rows < 8 * worth and rows % worth and chunks >= 4 * worth:
        job.threads_of_row = worth
        threads = 1
    job.tile_at = job.slots * job.slot_bytes
    job.bytes_of_participant = job.tile_at + whole_vectors(
        sizeof(Tile) * (2 if is_divergence(job) else 1)
    )
    job.bytes_of_thread = whole_vectors(sizeof(Block))
    job.bytes_of_thread += job.threads_of_row * job.bytes_of_participant
    if chunks > 1:
        job.bytes_of_thread += (sizeof(Tile) + chunks * sizeof(Chunk)) * (
            2 if is_divergence(job) else 1
        )
    job.keeps_row = (
        job.values == DIVERGENCE_GRADS and chunks > 1
        and 2 * chunks * job.slot_bytes <= MOST_KEPT_BYTES
    )
    if job.keeps_row:
        job.bytes_of_thread += 2 * chunks * job.slot_bytes + LANE_BYTES
    job.candidates_at = job.bytes_of_thread - whole_vectors(sizeof(Block))
    if is_selection(job):
        job.bytes_of_thread += bytes_of_candidates[floating](n, job.selection, 0)
    job.bytes_of_thread = whole_vectors(job.bytes_of_thread)
    bytes = threads * job.bytes_of_thread + LANE_BYTES
    job.scratch = <char *> scratch_memory(bytes)
    if job.scratch == NULL:
        return
    share(
        <Work> over_units[floating], job, units, max(1, job.rows_of_tile // job.unit), numbers,
        threads,
    )
    leave_scratch(job.scratch, bytes)


cdef void over_groups(Job *job, floating type_tag) noexcept nogil:
    cdef npy_intp n = job.plan.n, rows = job.plan.groups * job.rows_of_group, rows_of_share
    cdef npy_intp row_work = work_of_row(n, job.selection)
    job.layout = ROWS if job.path == IN_ROWS else COLUMNS
    job.is_in_cache = rows * n * <npy_intp> sizeof(floating) <= CACHE_BYTES
    job.unit = lanes_of[floating](0) if job.path == DIRECT_COLUMNS else 1
    job.rows_of_tile = rows_of_tile[floating](job, 0)
    job.rows_of_block = rows_of_block[floating](job, 0)
    job.slots = SLOTS + (has_hessian(job) or is_divergence(job))
    job.slot_bytes = sizeof(floating) * (
        min(job.rows_of_block, rows) * whole_lanes[floating](n, 0) if job.layout == ROWS
        else n * whole_lanes[floating](min(job.rows_of_block, rows), 0)
    )
    if job.layout == ROWS and chunks_of[floating](n, 0) > 1:
        job.slot_bytes = CHUNK_BYTES + LANE_BYTES
    if job.path == PICKED or not needs_copies(job, sizeof(floating)):
        job.slot_bytes = 0
    rows_of_share = max(1, NUMBERS_PER_SHARE // row_work // job.unit) * job.unit
    job.begin = 0
    while job.begin < rows:
        job.end = min(rows, job.begin + rows_of_share)
        share_rows[floating](job, 0)
        if is_stopped():
            return
        job.begin = job.end


cdef void over_rows(
    const Operation *operation, const Plan *plan, const LossTerms *loss,
    const Selection *selection, floating type_tag
) noexcept nogil:
    """A whole call, which has rows and classes."""
    cdef npy_intp lanes = lanes_of[floating](0), in_group = plan.shape[0]
    cdef Job job
    job.operation = operation
    job.plan = plan
    job.loss = loss
    job.selection = selection
    job.values = values_of(operation)
    job.weighing = weighing_of(operation.function)
    job.takes_logarithm = operation.function != SOFTMAX and operation.function != KL_DIVERGENCE
    job.has_extremes = operation.function != NLL_LOSS and not are_ordinary(plan)
    job.path = path_for(&job, sizeof(floating))
    job.first = 0
    job.rows_of_group = in_group
    if job.path == DIRECT_COLUMNS:
        job.rows_of_group = in_group // lanes * lanes
    over_groups[floating](&job, 0)
    job.first = job.rows_of_group
    job.rows_of_group = in_group - job.first
    if job.rows_of_group > 0 and not is_stopped():
        job.path = COPIED_COLUMNS if plan.n <= FEW else IN_ROWS
        over_groups[floating](&job, 0)
