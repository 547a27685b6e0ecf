"""The loops over rows: which way they go, and what threads share."""


cdef enum Path:
    # How rows get to the functions that compute them.
    DIRECT_ROWS       # rows that are contiguous
    DIRECT_COLUMNS    # rows that stand side by side
    COPIED_COLUMNS    # rows copied so that they do
    COPIED_ROWS       # rows copied so that they are contiguous
    PICKED            # rows of which one number is read


cdef enum:
    # Rows with up to FEW numbers are copied to columns, which takes 2 cycles a number whatever the
    # length (Zen 4). Up to 100 that is still faster in the cache, but memory waits meanwhile:
    # 400,000 rows of 100 took 1.4 ns a number, row by row 0.65.
    FEW = 63
    # Of columns at a time. More are faster in the cache by up to a tenth, and slower out of it:
    # 10^6 rows of 33 took 0.63 ns a number with 16 KiB, 0.42 with this.
    COPY_BYTES = 2048
    FLOAT_TILE = FEW * FLOAT_LANES
    # Rows that go from stage to stage together: with 2, or 8, rows of 100 take 4 to 9 % more.
    STAGED_ROWS = 4
    # Rows that are not contiguous are copied together, as many as share cache lines along the other
    # axis, while they fit the cache.
    TILE_ROWS = 64
    TILE_BYTES = 262144


cdef inline bint is_ordinary(double temperature) noexcept nogil:
    """Whether its reciprocal is one among the numbers of both types, with digits to spare."""
    return 1e-30 < temperature < 1e30


cdef inline bint is_product(const Operation *operation) noexcept nogil:
    return operation.numbers == SOFTMAX_PRODUCTS or operation.numbers == LOG_SOFTMAX_PRODUCTS


cdef inline void finish_row(
    const Operation *operation, const Row *row, bint is_defined, const RowOperands *operands,
    npy_intp r, Outcome *outcome, floating type_tag
) noexcept nogil:
    if operation.function == SOFTMAX:
        softmax_outcome(row, is_defined, outcome)
    elif operation.function == LOG_SOFTMAX:
        log_softmax_outcome[floating](row, is_defined, outcome, 0)
    elif operation.function == LOGSUMEXP:
        logsumexp_outcome[floating](row, is_defined, operands, r, 0)
    elif operation.function == ENTROPY:
        entropy_outcome[floating](row, is_defined, operands, r, outcome, 0)
    elif operation.function == CLASS_LOSS:
        class_outcome[floating](row, is_defined, operands, r, outcome, 0)
    elif operation.function == INDEX_LOSS:
        index_outcome[floating](row, is_defined, operands, r, outcome, 0)
    elif operation.function == TARGETS_LOSS:
        targets_outcome[floating](row, is_defined, operands, r, outcome, 0)


cdef inline void write_numbers(
    const Operation *operation, const floating *x, const floating *e, floating *y, npy_intp n,
    const Row *row, const Outcome *outcome, Sum ratio, double ratio_power
) noexcept nogil:
    """The results of a chunk of a row, from its logits x or its exponentials e."""
    if operation.numbers != LOG_PROBABILITIES:
        scale_far(e, y, n, outcome.factor, ratio, ratio_power)
    elif row.reduction.kind == TEMPERED:
        write_log_probabilities(x, y, n, row, outcome.log_sum, TEMPERED)
    else:
        write_log_probabilities(x, y, n, row, outcome.log_sum, UNSHIFTED)


cdef inline void finish_gradients(
    const Operation *operation, floating *y, npy_intp first, npy_intp n,
    const RowOperands *operands, const char *companion, const Outcome *outcome
) noexcept nogil:
    """From scaled exponentials, from the class `first` on; the target's may be written after."""
    cdef Coefficients coefficients
    if operation.weighing == BY_COEFFICIENTS:
        coefficients = coefficients_of(
            operands.loss, companion, first * <npy_intp> sizeof(floating),
            operation.function == INDEX_LOSS,
        )
        subtract_coefficients(y, n, &coefficients, outcome.weighed)


# A function of its own: inlined beside the loop over exponentials, float64's loop stays scalar, and
# an entropy takes 1.7 times as long.

cdef void weigh_chunk_by_exponentials(
    const floating *x, const floating *e, npy_intp n, floating maximum, Distances *distances
) noexcept nogil:
    weigh_by_exponentials(x, e, n, maximum, distances)


cdef inline void weigh_distances(
    const Operation *operation, const floating *x, const floating *e, npy_intp first, npy_intp n,
    const RowOperands *operands, const char *companion, double maximum, Distances *distances
) noexcept nogil:
    cdef Coefficients coefficients
    if operation.weighing == BY_EXPONENTIALS:
        weigh_chunk_by_exponentials(x, e, n, <floating> maximum, distances)
    elif operation.weighing == BY_COEFFICIENTS:
        coefficients = coefficients_of(
            operands.loss, companion, first * <npy_intp> sizeof(floating),
            operation.function == INDEX_LOSS,
        )
        weigh_by_coefficients(x, n, <floating> maximum, &coefficients, distances)


cdef inline bint has_indices(const Operation *operation) noexcept nogil:
    return operation.function == CLASS_LOSS or operation.function == INDEX_LOSS


cdef inline bint begin_row(
    const Operation *operation, const floating *x, floating *y, npy_intp n,
    const RowOperands *operands, npy_intp r, Outcome *outcome
) noexcept nogil:
    """What its operands say of a row. False if they alone decide the results: these are written."""
    outcome.temperature = temperature_of(operands, r)
    if not has_indices(operation):
        return True
    outcome.target = counted_target(operands, r, n)
    if outcome.target < 0:
        set_result[floating](operands, r, 0, 0)
        if operation.numbers != NOTHING:
            fill(y, n, 0)
        return False
    outcome.target_logit = x[outcome.target]
    return True


cdef inline void write_target(
    const Operation *operation, floating *y, const Outcome *outcome
) noexcept nogil:
    """The target's number, where it has one of its own."""
    if has_indices(operation) and operation.numbers == GRADIENTS:
        y[outcome.target] = <floating> outcome.target_result


cdef inline floating *room_for_exponentials(
    const Operation *operation, const floating *x, floating *y, npy_intp n, floating *buffer
) noexcept nogil:
    """y, unless it is x, which may be needed again. Results that are none of the exponentials go
    there later; by then its memory is in the cache."""
    if operation.numbers == NOTHING or y == x or n * <npy_intp> sizeof(floating) < LANE_BYTES:
        return buffer
    return y


cdef void compute_short_rows(
    const Operation *operation, const floating *x, npy_intp x_step, floating *y, npy_intp y_step,
    npy_intp n, npy_intp rows, const RowOperands *operands, npy_intp first
) noexcept nogil:
    """At most STAGED_ROWS, from `first` on. They go from stage to stage together, so that a
    processor that looks ahead a few hundred instructions computes one row's exponentials in the
    time that another waits for its sum and its quotient."""
    cdef floating buffer[FLOAT_CHUNK]
    cdef floating *e = room_for_exponentials(operation, x, y, n, buffer)
    cdef npy_intp e_step = (
        y_step if e == y else whole_lanes[floating](n, 0) * <npy_intp> sizeof(floating)
    )
    cdef floating total[STAGED_ROWS][FLOAT_LANES]
    cdef floating lost[STAGED_ROWS][FLOAT_LANES]
    cdef floating maxima[STAGED_ROWS][FLOAT_LANES]
    cdef Outcome outcome[STAGED_ROWS]
    cdef Row row[STAGED_ROWS]
    cdef bint is_begun[STAGED_ROWS]
    cdef bint is_guessed[STAGED_ROWS]
    cdef bint is_finite[STAGED_ROWS]
    cdef const floating *xs[STAGED_ROWS]
    cdef floating *es[STAGED_ROWS]
    cdef floating *ys[STAGED_ROWS]
    cdef npy_intp r
    for r in range(rows):
        xs[r] = at[floating](<char *> x, r * x_step, 0)
        es[r] = at[floating](<char *> e, r * e_step, 0)
        ys[r] = at[floating](<char *> y, r * y_step, 0)
        is_begun[r] = begin_row(operation, xs[r], ys[r], n, operands, first + r, outcome + r)
        is_guessed[r] = is_begun[r] and guess_reduction(xs[r], n, outcome[r].temperature, row + r)
        if is_guessed[r]:
            sweep_guessed(xs[r], es[r], n, row + r, total[r], lost[r], maxima[r])
    for r in range(rows):
        is_finite[r] = is_guessed[r] and finish_guessed(
            es[r], n, total[r], lost[r], maxima[r], operation.takes_logarithm, row + r
        )
        if is_begun[r] and not is_finite[r]:
            row[r].maximum = -INFINITY
            is_finite[r] = exponentials_in_two_sweeps(
                xs[r], es[r], n, outcome[r].temperature, operation.takes_logarithm, row + r
            )
        if is_begun[r]:
            finish_row[floating](
                operation, row + r, is_finite[r], operands, first + r, outcome + r, 0
            )
    if operation.numbers == NOTHING:
        return
    for r in range(rows):
        if is_finite[r]:
            write_numbers(
                operation, xs[r], es[r], ys[r], n, row + r, outcome + r, exactly(1), 0
            )
            write_target(operation, ys[r], outcome + r)
        elif is_begun[r]:
            fill(ys[r], n, NAN)


cdef inline npy_intp chunk_length(floating type_tag) noexcept nogil:
    return CHUNK_BYTES // <npy_intp> sizeof(floating)


cdef inline npy_intp chunks_of(npy_intp n, floating type_tag) noexcept nogil:
    """How many chunks a row has; 1 if it is computed without."""
    return max(1, (n + chunk_length[floating](0) - 1) // chunk_length[floating](0))


cdef inline bint needs_chunks(
    const Operation *operation, npy_intp n, floating type_tag
) noexcept nogil:
    """Long rows, and those that distances are weighed in, if only one."""
    return chunks_of[floating](n, 0) > 1 or operation.weighing != NO_DISTANCES


# Temperatures 0 and infinity: a uniform choice among some classes, for 0 the first maximum alone.
# Logits that are chosen count as 0, the others as -inf, at temperature 1.

cdef struct Choice:
    bint is_first_maximum
    npy_intp first_maximum


cdef inline bint is_limit(double temperature) noexcept nogil:
    return temperature == 0 or temperature == INFINITY


cdef inline bint find_choice(
    const floating *x, npy_intp n, const char *mask, npy_intp mask_stride, double temperature,
    Choice *choice
) noexcept nogil:
    """False where the softmax is NaN: a NaN, an infinite maximum, or -inf alone."""
    cdef floating number, maximum = -INFINITY
    cdef npy_intp i
    choice.is_first_maximum = temperature == 0
    choice.first_maximum = 0
    for i in range(n):
        number = x[i] if mask == NULL else kept_or_minus_infinity(x[i], mask[i * mask_stride])
        if number != number:
            return False
        if number > maximum:
            maximum = number
            choice.first_maximum = i
    return is_finite(maximum)


cdef inline floating chosen(floating x, npy_intp i, const Choice *choice) noexcept nogil:
    cdef bint is_chosen = i == choice.first_maximum if choice.is_first_maximum else x > -INFINITY
    return 0 if is_chosen else -INFINITY


cdef struct LongRow:
    # What the threads that share a row need.
    const Operation *operation
    const void *x
    void *y
    npy_intp n
    const RowOperands *operands
    const char *companion    # a mask, or targets
    npy_intp companion_stride
    const Choice *choice     # NULL unless the temperature is 0 or infinite
    Chunk *chunks
    const Row *row
    Outcome *outcome


cdef inline const floating *loaded(
    const LongRow *all, npy_intp first, npy_intp n, floating *copy
) noexcept nogil:
    """Logits from `first` on: as they are, or a copy that mask and temperature have changed."""
    cdef const floating *x = <const floating *> all.x + first
    cdef npy_intp i
    if all.operation.is_masked:
        copy_masked(
            x, sizeof(floating), copy, sizeof(floating), n,
            all.companion + first * all.companion_stride, all.companion_stride,
        )
        x = copy
    if all.choice != NULL:
        for i in range(n):
            copy[i] = chosen(x[i], first + i, all.choice)
        x = copy
    return x


cdef void sweep_chunk(
    const LongRow *all, npy_intp first, npy_intp n, floating *y, Chunk *chunk
) noexcept nogil:
    """The sums of a chunk, and its exponentials to y if they will be needed."""
    cdef const Operation *operation = all.operation
    cdef floating buffer[FLOAT_CHUNK]
    cdef floating copy[FLOAT_CHUNK]
    # Log-probabilities are made of logits: their copy has to stay.
    cdef const floating *x = loaded(
        all, first, n, y if operation.numbers == LOG_PROBABILITIES else copy
    )
    cdef floating *e = room_for_exponentials(operation, x, y, n, buffer)
    chunk.is_finite = exponentials(
        x, e, n, all.outcome.temperature, operation.takes_logarithm, &chunk.row
    )
    if not chunk.is_finite:
        fill(e, n, 0)
        chunk.ratio = exactly(0)
        chunk.ratio_power = 0
    weigh_distances(
        operation, x, e, first, n, all.operands, all.companion, reference_of(chunk),
        &chunk.distances,
    )
    if operation.numbers != NOTHING and operation.numbers != LOG_PROBABILITIES and e != y:
        memcpy(y, e, n * sizeof(floating))


cdef inline double reference_of(const Chunk *chunk) noexcept nogil:
    """What distances in a chunk are taken from: of -inf alone, from any finite number."""
    return chunk.row.maximum if chunk.is_finite else 0


cdef void sweep_chunks(
    void *work, npy_intp first, npy_intp last, int participant, const floating *type_tag
) noexcept nogil:
    cdef LongRow *all = <LongRow *> work
    cdef npy_intp length = chunk_length[floating](0), c, start
    for c in range(first, last):
        start = c * length
        sweep_chunk(
            all, start, min(length, all.n - start), <floating *> all.y + start, all.chunks + c
        )


cdef inline void combine_distances(
    const Operation *operation, const Chunk *chunks, npy_intp count, const Row *row,
    Distances *distances
) noexcept nogil:
    cdef npy_intp c
    cdef const Chunk *chunk
    cdef Sum weights, weighted
    distances.weights = exactly(0)
    distances.weighted = exactly(0)
    for c in range(count):
        chunk = chunks + c
        weights = chunk.distances.weights
        weighted = chunk.distances.weighted
        if operation.weighing == BY_EXPONENTIALS:
            if not chunk.is_finite:
                continue
            weights = in_units_of_row(chunk, sum_of_row(&chunk.row))
            weighted = in_units_of_row(chunk, weighted)
        weighted = from_higher(weighted, weights, row.maximum, reference_of(chunk))
        distances.weights = plus(distances.weights, weights)
        distances.weighted = plus(distances.weighted, weighted)


cdef void write_chunks(
    void *work, npy_intp first, npy_intp last, int participant, const floating *type_tag
) noexcept nogil:
    cdef LongRow *all = <LongRow *> work
    cdef npy_intp length = chunk_length[floating](0), c, start, count
    cdef floating *y
    for c in range(first, last):
        start = c * length
        count = min(length, all.n - start)
        y = <floating *> all.y + start
        write_numbers(
            all.operation, <floating *> all.x + start, y, y, count, all.row, all.outcome,
            all.chunks[c].ratio, all.chunks[c].ratio_power,
        )
        if all.operation.numbers == GRADIENTS:
            finish_gradients(
                all.operation, y, start, count, all.operands, all.companion, all.outcome
            )


cdef void compute_long_row(
    const Operation *operation, const floating *x, floating *y, npy_intp n,
    const RowOperands *operands, npy_intp r, const char *companion, npy_intp companion_stride,
    Chunk *chunks, int threads
) noexcept nogil:
    """In chunks, whose bounds depend on n alone: so a result does not depend on the threads."""
    cdef npy_intp count = chunks_of[floating](n, 0)
    cdef bint is_defined
    cdef Outcome outcome
    cdef Weighed weighed
    cdef Choice choice
    cdef Row row
    cdef LongRow all
    outcome.weighed = &weighed
    row.maximum = NAN
    if not begin_row(operation, x, y, n, operands, r, &outcome):
        return
    all.operation = operation
    all.x = x
    all.y = y
    all.n = n
    all.operands = operands
    all.companion = companion
    all.companion_stride = companion_stride
    all.choice = NULL
    all.chunks = chunks
    all.row = &row
    all.outcome = &outcome
    if is_limit(outcome.temperature):
        all.choice = &choice
        is_defined = find_choice(
            x, n, companion if operation.is_masked else NULL, companion_stride,
            outcome.temperature, &choice,
        )
        outcome.temperature = 1.0 if is_defined else NAN
        if has_indices(operation):
            outcome.target_logit = chosen(
                <floating> outcome.target_logit, outcome.target, &choice
            )
    share(<Work> sweep_chunks[floating], &all, count, 1, n, threads)
    if count == 1:
        is_defined = outcome.temperature > 0 and chunks.is_finite
        row = chunks.row
        weighed.distances = chunks.distances
        chunks.ratio = exactly(1)
        chunks.ratio_power = 0
    else:
        is_defined = outcome.temperature > 0 and combine_chunks[floating](
            chunks, count, outcome.temperature, &row, 0
        )
        if is_defined and operation.weighing != NO_DISTANCES:
            combine_distances(operation, chunks, count, &row, &weighed.distances)
    finish_row[floating](operation, &row, is_defined, operands, r, &outcome, 0)
    if operation.numbers == NOTHING:
        return
    if not is_defined:
        fill(y, n, NAN)
        return
    if operation.is_masked or all.choice != NULL:    # if needed, its copy
        all.x = y
    share(<Work> write_chunks[floating], &all, count, 1, n, threads)
    write_target(operation, y, &outcome)


cdef inline npy_intp rows_in_stages(npy_intp n, floating type_tag) noexcept nogil:
    """So few that their exponentials and logits fit a small L1 cache together."""
    cdef npy_intp rows = STAGED_ROWS
    while rows > 1 and 2 * rows * whole_lanes[floating](n, 0) > chunk_length[floating](0):
        rows = rows // 2
    return rows


cdef void compute_masked_rows(
    const Operation *operation, const floating *x, npy_intp x_step, floating *y, npy_intp y_step,
    npy_intp n, npy_intp rows, const RowOperands *operands, npy_intp first, const char *mask,
    npy_intp mask_step, npy_intp mask_stride
) noexcept nogil:
    """As compute_short_rows, of copies that stay in the cache."""
    cdef floating copies[FLOAT_CHUNK]
    cdef npy_intp copy_step = whole_lanes[floating](n, 0) * <npy_intp> sizeof(floating), r
    for r in range(rows):
        copy_masked(
            at[floating](<char *> x, r * x_step, 0), sizeof(floating),
            at[floating](<char *> copies, r * copy_step, 0), sizeof(floating), n,
            mask + r * mask_step, mask_stride,
        )
    compute_short_rows(operation, copies, copy_step, y, y_step, n, rows, operands, first)


cdef inline npy_intp without_limits(
    const RowOperands *operands, npy_intp first, npy_intp rows
) noexcept nogil:
    """How many rows from `first` on have a temperature that is neither 0 nor infinite."""
    cdef npy_intp r
    for r in range(rows if operands.temperature_stride else 1):
        if is_limit(temperature_of(operands, first + r)):
            return r
    return rows


cdef void compute_rows(
    const Operation *operation, const floating *x, npy_intp x_step, floating *y, npy_intp y_step,
    npy_intp n, npy_intp rows, const RowOperands *operands, const char *companion,
    npy_intp companion_step, npy_intp companion_stride, Chunk *chunks, int threads
) noexcept nogil:
    """Rows of contiguous numbers; only a mask may have a stride. Steps are from row to row."""
    cdef const floating *row_x
    cdef const char *row_companion
    cdef floating *row_y
    cdef bint are_staged = not needs_chunks[floating](operation, n, 0) and not is_product(operation)
    cdef npy_intp stage = rows_in_stages[floating](n, 0), r = 0, staged, i
    while r < rows:
        row_x = at[floating](<char *> x, r * x_step, 0)
        row_y = at[floating](<char *> y, r * y_step, 0)
        row_companion = companion + r * companion_step
        staged = without_limits(operands, r, min(stage, rows - r)) if are_staged else 0
        if is_product(operation):
            products_of_row(
                row_x, <floating *> row_companion, row_y, n, temperature_of(operands, r), chunks,
                threads, operation.numbers,
            )
        elif staged == 0:
            compute_long_row(
                operation, row_x, row_y, n, operands, r, row_companion, companion_stride, chunks,
                threads,
            )
        elif operation.is_masked:
            compute_masked_rows(
                operation, row_x, x_step, row_y, y_step, n, staged, operands, r, row_companion,
                companion_step, companion_stride,
            )
        else:
            compute_short_rows(operation, row_x, x_step, row_y, y_step, n, staged, operands, r)
        staged = max(1, staged)
        if operation.is_masked and operation.numbers != NOTHING:
            for i in range(staged):
                restore_masked(
                    operation, at[floating](<char *> row_y, i * y_step, 0), 1, n,
                    row_companion + i * companion_step, companion_stride,
                )
        r += staged


cdef inline void compute_batch(
    const Operation *operation, const floating *x, npy_intp x_step, floating *y, npy_intp y_step,
    npy_intp n, npy_intp rows, const RowOperands *operands, const floating *companion,
    npy_intp companion_step
) noexcept nogil:
    """Rows side by side; steps are from number to number."""
    if operation.function == SOFTMAX:
        softmax_batch(x, x_step, y, y_step, n, rows, operands)
    elif operation.function == LOG_SOFTMAX:
        log_softmax_batch(x, x_step, y, y_step, n, rows, operands)
    elif operation.function == LOGSUMEXP:
        logsumexp_batch(x, x_step, y, y_step, n, rows, operands)
    elif operation.function == ENTROPY:
        entropy_batch(x, x_step, y, y_step, n, rows, operands)
    elif operation.function == CLASS_LOSS and operation.numbers == NOTHING:
        class_loss_batch(x, x_step, y, y_step, n, rows, operands)
    elif operation.function == CLASS_LOSS:
        class_grad_batch(x, x_step, y, y_step, n, rows, operands)
    elif operation.function == INDEX_LOSS and operation.numbers == NOTHING:
        index_loss_batch(x, x_step, y, y_step, n, rows, operands)
    elif operation.function == INDEX_LOSS:
        index_grad_batch(x, x_step, y, y_step, n, rows, operands)
    elif operation.function == TARGETS_LOSS and operation.numbers == NOTHING:
        targets_loss_batch(
            x, x_step, y, y_step, n, rows, operands, companion, companion_step
        )
    elif operation.function == TARGETS_LOSS:
        targets_grad_batch(
            x, x_step, y, y_step, n, rows, operands, companion, companion_step
        )
    elif operation.function == SOFTMAX_VJP:
        softmax_vjp_batch(x, x_step, y, y_step, n, rows, operands, companion, companion_step)
    elif operation.function == LOG_SOFTMAX_VJP:
        log_softmax_vjp_batch(x, x_step, y, y_step, n, rows, operands, companion, companion_step)


# How rows get there. Of every group the rows from `first` on go one way; they are numbered through
# all groups.

cdef struct Span:
    Path path
    npy_intp first
    npy_intp rows


cdef struct Part:
    # Rows of one group in a tile that may have rows of several.
    npy_intp first               # in the tile
    npy_intp rows
    char *places[ROLES]


cdef inline RowOperands row_operands(
    const Plan *plan, char **places, const LossTerms *loss
) noexcept nogil:
    cdef RowOperands operands
    operands.temperature = places[TEMPERATURE]
    operands.temperature_stride = plan.strides[0][TEMPERATURE]
    operands.target = places[TARGET]
    operands.target_stride = plan.strides[0][TARGET]
    operands.result = places[ROW_RESULT]
    operands.result_stride = plan.strides[0][ROW_RESULT]
    operands.loss = loss
    return operands


cdef inline npy_intp copied_rows(npy_intp n, npy_intp size) noexcept nogil:
    return max(1, min(TILE_ROWS, TILE_BYTES // (n * size)))


cdef inline npy_intp rows_at_a_time(Path path, npy_intp n, npy_intp size) noexcept nogil:
    cdef npy_intp lanes = LANE_BYTES // size
    if path == DIRECT_COLUMNS:
        return MAX_BATCH
    if path == COPIED_COLUMNS:
        return max(lanes, min(MAX_BATCH, COPY_BYTES // LANE_BYTES // n * lanes))
    return copied_rows(n, size) if path == COPIED_ROWS else STAGED_ROWS


cdef inline npy_intp find_parts(
    const Plan *plan, const Span *span, npy_intp row, npy_intp rows, Part *parts
) noexcept nogil:
    """The groups that these rows are of. In the same round of level 1, one is a stride from the one
    before: where groups have three rows, to locate each costs a fifth of a softmax."""
    cdef npy_intp group = row // span.rows, place = row - group * span.rows, done = 0, count = 0
    cdef npy_intp in_round = group % plan.shape[1] if plan.levels > 1 else 0
    cdef npy_intp place_before = 0
    cdef int role
    while done < rows:
        parts[count].first = done
        parts[count].rows = min(rows - done, span.rows - place)
        if count == 0 or in_round == 0:
            locate(plan, group, span.first + place, parts[count].places)
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
    return count


cdef inline void load_columns(
    const Plan *plan, const Part *part, int role, floating *tile, npy_intp width
) noexcept nogil:
    cdef npy_intp size = sizeof(floating), stride = plan.stride[role]
    cdef npy_intp step = plan.strides[0][role]
    if stride == size:    # a constant makes better code
        to_columns(part.places[role], step, size, tile + part.first, width, part.rows, plan.n)
    else:
        to_columns(part.places[role], step, stride, tile + part.first, width, part.rows, plan.n)


cdef inline void store_columns(
    const Plan *plan, const Part *part, floating *tile, npy_intp width
) noexcept nogil:
    cdef npy_intp size = sizeof(floating), stride = plan.stride[RESULT]
    cdef npy_intp step = plan.strides[0][RESULT]
    if stride == size:
        from_columns(tile + part.first, width, part.places[RESULT], step, size, part.rows, plan.n)
    else:
        from_columns(
            tile + part.first, width, part.places[RESULT], step, stride, part.rows, plan.n
        )


cdef inline void load_masked_columns(
    const Plan *plan, const Part *part, floating *tile, npy_intp width
) noexcept nogil:
    """Masked while numbers that are contiguous stand together."""
    cdef floating masked[FLOAT_TILE]
    cdef npy_intp size = sizeof(floating), n = plan.n, i
    cdef npy_intp stride = plan.stride[LOGITS], step = plan.strides[0][LOGITS]
    cdef npy_intp mask_stride = plan.stride[COMPANION]
    cdef npy_intp mask_step = plan.strides[0][COMPANION]
    cdef char *x = part.places[LOGITS]
    cdef char *mask = part.places[COMPANION]
    if step == size:
        for i in range(n):
            copy_masked(
                at[floating](x, i * stride, 0), size, tile + i * width + part.first, size,
                part.rows, mask + i * mask_stride, mask_step,
            )
        return
    if step == n * stride and mask_step == n * mask_stride:
        copy_masked(<floating *> x, stride, masked, size, part.rows * n, mask, mask_stride)
    else:
        for i in range(part.rows):
            copy_masked(
                at[floating](x, i * step, 0), stride, masked + i * n, size, n,
                mask + i * mask_step, mask_stride,
            )
    to_columns(<char *> masked, n * size, size, tile + part.first, width, part.rows, n)


cdef inline void restore_masked_columns(
    const Operation *operation, const Plan *plan, const char *mask, npy_intp rows, floating *y,
    npy_intp y_step
) noexcept nogil:
    cdef npy_intp r
    for r in range(rows):
        restore_masked(
            operation, y + r, y_step, plan.n, mask + r * plan.strides[0][COMPANION],
            plan.stride[COMPANION],
        )


cdef struct Gathered:
    # What belongs to the rows of several groups, side by side.
    double temperature[MAX_BATCH]
    int64_t target[MAX_BATCH]
    double result[MAX_BATCH]    # room for numbers of either type


cdef inline RowOperands gathered(
    const Plan *plan, const LossTerms *loss, Part *parts, npy_intp count, Gathered *to,
    floating type_tag
) noexcept nogil:
    cdef RowOperands operands, all = row_operands(plan, parts[0].places, loss)
    cdef npy_intp p, r
    all.result = <char *> to.result
    all.result_stride = sizeof(floating)
    if not plan.is_number[TEMPERATURE]:
        all.temperature = <char *> to.temperature
        all.temperature_stride = sizeof(double)
        for p in range(count):
            operands = row_operands(plan, parts[p].places, loss)
            for r in range(parts[p].rows):
                to.temperature[parts[p].first + r] = temperature_of(&operands, r)
    if plan.data[TARGET] != NULL:
        all.target = <char *> to.target
        all.target_stride = sizeof(int64_t)
        for p in range(count):
            operands = row_operands(plan, parts[p].places, loss)
            for r in range(parts[p].rows):
                to.target[parts[p].first + r] = target_of(&operands, r)
    return all


cdef inline void scatter_results(
    const Plan *plan, const Part *parts, npy_intp count, const Gathered *gathered,
    floating type_tag
) noexcept nogil:
    cdef npy_intp p, r
    for p in range(count):
        for r in range(parts[p].rows):
            at[floating](
                parts[p].places[ROW_RESULT], r * plan.strides[0][ROW_RESULT], 0
            )[0] = (<floating *> gathered.result)[parts[p].first + r]


cdef inline void over_copied_columns(
    const Operation *operation, const Plan *plan, const LossTerms *loss, const Span *span,
    npy_intp row, npy_intp rows, floating type_tag
) noexcept nogil:
    cdef floating tile[FLOAT_TILE]
    cdef floating companion[FLOAT_TILE]
    cdef Part parts[MAX_BATCH]
    cdef Gathered of_groups
    cdef npy_intp width = whole_lanes[floating](rows, 0)
    cdef npy_intp count = find_parts(plan, span, row, rows, parts), p
    cdef RowOperands operands
    if rows < width:
        memset(tile, 0, plan.n * width * sizeof(floating))
        if operation.has_companion:
            memset(companion, 0, plan.n * width * sizeof(floating))
    for p in range(count):
        if operation.is_masked:
            load_masked_columns(plan, parts + p, tile, width)
        else:
            load_columns(plan, parts + p, LOGITS, tile, width)
        if operation.has_companion:
            load_columns(plan, parts + p, COMPANION, companion, width)
    if count == 1:
        operands = row_operands(plan, parts[0].places, loss)
    else:
        operands = gathered[floating](plan, loss, parts, count, &of_groups, 0)
    compute_batch(
        operation, tile, width, tile, width, plan.n, rows, &operands, companion, width
    )
    if count > 1 and plan.data[ROW_RESULT] != NULL:
        scatter_results[floating](plan, parts, count, &of_groups, 0)
    if operation.numbers == NOTHING:
        return
    for p in range(count):
        if operation.is_masked:
            restore_masked_columns(
                operation, plan, parts[p].places[COMPANION], parts[p].rows, tile + parts[p].first,
                width,
            )
        store_columns(plan, parts + p, tile, width)


cdef inline void over_columns(
    const Operation *operation, const Plan *plan, const RowOperands *operands, char **places,
    npy_intp rows, floating *copies, floating type_tag
) noexcept nogil:
    """Columns as they are, or their copies where they are masked."""
    cdef npy_intp size = sizeof(floating), stride = plan.stride[LOGITS], i
    cdef npy_intp x_step = stride // size, y_step = plan.stride[RESULT] // size
    cdef npy_intp mask_stride = plan.stride[COMPANION]
    cdef const floating *x = <floating *> places[LOGITS]
    if operation.is_masked:
        for i in range(plan.n):
            copy_masked(
                at[floating](places[LOGITS], i * stride, 0), size, copies + i * rows, size, rows,
                places[COMPANION] + i * mask_stride, plan.strides[0][COMPANION],
            )
        x = copies
        x_step = rows
    compute_batch(
        operation, x, x_step, <floating *> places[RESULT], y_step, plan.n, rows, operands,
        <floating *> places[COMPANION], mask_stride // size,
    )
    if operation.is_masked and operation.numbers != NOTHING:
        restore_masked_columns(
            operation, plan, places[COMPANION], rows, <floating *> places[RESULT], y_step
        )


cdef inline void copy_to_rows(
    char *x, npy_intp row_step, npy_intp stride, floating *copies, npy_intp rows, npy_intp n
) noexcept nogil:
    cdef npy_intp i, r
    for i in range(n):
        for r in range(rows):
            copies[r * n + i] = at[floating](x, r * row_step + i * stride, 0)[0]


cdef inline void over_copied_rows(
    const Operation *operation, const Plan *plan, const RowOperands *operands, char **places,
    npy_intp rows, floating *copies, Chunk *chunks
) noexcept nogil:
    cdef npy_intp n = plan.n, row_bytes = n * sizeof(floating), i, r
    cdef npy_intp y_step = plan.strides[0][RESULT], y_stride = plan.stride[RESULT]
    cdef npy_intp companion_step = plan.strides[0][COMPANION]
    cdef char *companion = places[COMPANION]
    copy_to_rows(
        places[LOGITS], plan.strides[0][LOGITS], plan.stride[LOGITS], copies, rows, n
    )
    if operation.has_companion:
        companion = <char *> (copies + rows * n)
        copy_to_rows(
            places[COMPANION], companion_step, plan.stride[COMPANION], <floating *> companion, rows,
            n,
        )
        companion_step = row_bytes
    compute_rows(
        operation, copies, row_bytes, copies, row_bytes, n, rows, operands, companion,
        companion_step, plan.stride[COMPANION], chunks, 1,
    )
    if operation.numbers != NOTHING:
        for i in range(n):
            for r in range(rows):
                at[floating](places[RESULT], r * y_step + i * y_stride, 0)[0] = copies[r * n + i]


cdef void over_range(
    const Operation *operation, const Plan *plan, const LossTerms *loss, const Span *span,
    npy_intp first, npy_intp last, char *scratch, npy_intp copy_bytes, int threads,
    floating type_tag
) noexcept nogil:
    """Rows first to last of a span. `scratch` has room for copies, and behind them for chunks."""
    cdef Chunk *chunks = <Chunk *> (scratch + copy_bytes)
    cdef npy_intp limit = rows_at_a_time(span.path, plan.n, sizeof(floating))
    cdef npy_intp row = first, rows, group, place
    cdef RowOperands operands
    cdef char *places[ROLES]
    while row < last:
        rows = min(limit, last - row)
        if span.path == COPIED_COLUMNS:    # which may be of several groups
            over_copied_columns[floating](operation, plan, loss, span, row, rows, 0)
            row += rows
            continue
        group = row // span.rows
        place = row - group * span.rows
        if span.path == DIRECT_ROWS or span.path == PICKED:
            rows = last - row
        rows = min(rows, span.rows - place)
        locate(plan, group, span.first + place, places)
        operands = row_operands(plan, places, loss)
        if span.path == DIRECT_ROWS:
            compute_rows(
                operation, <floating *> places[LOGITS], plan.strides[0][LOGITS],
                <floating *> places[RESULT], plan.strides[0][RESULT], plan.n, rows, &operands,
                places[COMPANION], plan.strides[0][COMPANION], plan.stride[COMPANION], chunks,
                threads,
            )
        elif span.path == DIRECT_COLUMNS:
            over_columns[floating](
                operation, plan, &operands, places, rows, <floating *> scratch, 0
            )
        elif span.path == COPIED_ROWS:
            over_copied_rows[floating](
                operation, plan, &operands, places, rows, <floating *> scratch, chunks
            )
        else:
            pick_targets[floating](
                places[LOGITS], plan.strides[0][LOGITS], plan.stride[LOGITS], plan.n, rows,
                &operands, 0,
            )
        row += rows


# Which way.

cdef inline bint are_ordinary(const Plan *plan, bint *has_limits) noexcept nogil:
    """Extreme temperatures, 0 and infinity among them, are left to the functions for one row."""
    cdef npy_intp step = plan.strides[0][TEMPERATURE], group, r
    cdef bint are_all = True
    cdef double number = (<double *> plan.data[TEMPERATURE])[0]
    cdef char *places[ROLES]
    if plan.is_number[TEMPERATURE]:
        has_limits[0] = is_limit(number)
        return is_ordinary(number)
    for group in range(plan.groups):
        locate(plan, group, 0, places)
        for r in range(plan.shape[0]):
            number = (<double *> (places[TEMPERATURE] + r * step))[0]
            are_all = are_all and is_ordinary(number)
            has_limits[0] = has_limits[0] or is_limit(number)
    return are_all


cdef inline bint has_numbers(
    const Operation *operation, const Plan *plan, int role
) noexcept nogil:
    """Whether its rows are of the type that is computed in."""
    return plan.data[role] != NULL and not (role == COMPANION and operation.is_masked)


cdef inline bint are_side_by_side(
    const Operation *operation, const Plan *plan, npy_intp size
) noexcept nogil:
    cdef int role
    for role in range(RESULT + 1):
        if has_numbers(operation, plan, role) and (
            plan.strides[0][role] != size or plan.stride[role] % size
        ):
            return False
    return True


cdef inline bint are_contiguous_rows(
    const Operation *operation, const Plan *plan, npy_intp size
) noexcept nogil:
    cdef int role
    for role in range(RESULT + 1):
        if has_numbers(operation, plan, role) and plan.stride[role] != size and plan.n > 1:
            return False
    return True


cdef inline Path path_for(
    const Operation *operation, const Plan *plan, npy_intp size, bint *has_limits
) noexcept nogil:
    cdef npy_intp n = plan.n, lanes = LANE_BYTES // size, in_group = plan.shape[0]
    cdef bint in_batches, is_single = plan.groups * in_group == 1
    if operation.function == NLL_LOSS:
        return PICKED
    in_batches = are_ordinary(plan, has_limits)
    if in_batches and in_group >= lanes and are_side_by_side(operation, plan, size):
        if n > FEW or in_group % lanes == 0 or in_group >= 3 * lanes:
            return DIRECT_COLUMNS
    if in_batches and n <= FEW and not is_single:
        return COPIED_COLUMNS
    return DIRECT_ROWS if are_contiguous_rows(operation, plan, size) else COPIED_ROWS


# Threads, and a whole call.

cdef struct SharedRows:
    const Operation *operation
    const Plan *plan
    const LossTerms *loss
    Span span
    npy_intp first
    npy_intp last
    npy_intp unit
    char *scratch
    npy_intp copy_bytes
    npy_intp bytes    # of scratch, for each thread
    int threads_inside
    bint has_limits


cdef void over_units(
    void *work, npy_intp first, npy_intp last, int participant, const floating *type_tag
) noexcept nogil:
    cdef SharedRows *shared = <SharedRows *> work
    over_range[floating](
        shared.operation, shared.plan, shared.loss, &shared.span,
        shared.first + first * shared.unit,
        min(shared.last, shared.first + last * shared.unit),
        shared.scratch + participant * shared.bytes, shared.copy_bytes, shared.threads_inside, 0,
    )


cdef void share_rows(SharedRows *shared, floating type_tag) noexcept nogil:
    """Among threads, in whole units, so that the results don't depend on the threads."""
    cdef const Operation *operation = shared.operation
    cdef Path path = shared.span.path
    cdef npy_intp size = sizeof(floating), n = shared.plan.n, rows = shared.last - shared.first
    cdef npy_intp units = (rows + shared.unit - 1) // shared.unit
    cdef npy_intp numbers = rows if path == PICKED else rows * n
    cdef int worth = threads_for(numbers)
    cdef int threads = <int> max(1, min(worth, units))
    cdef npy_intp chunks = chunks_of[floating](n, 0)
    shared.threads_inside = 1
    if path == DIRECT_ROWS and rows < 8 * worth and rows % worth and chunks >= 4 * worth:
        shared.threads_inside = worth
        threads = 1
    shared.copy_bytes = 0
    if path == DIRECT_COLUMNS and operation.is_masked:
        shared.copy_bytes = n * size * min(MAX_BATCH, shared.span.rows)
    if path == COPIED_ROWS:
        shared.copy_bytes = 2 if operation.has_companion else 1
        shared.copy_bytes = (shared.copy_bytes * copied_rows(n, size) * n * size + 63) // 64 * 64
    shared.bytes = shared.copy_bytes
    if (path == DIRECT_ROWS or path == COPIED_ROWS) and (
        needs_chunks[floating](operation, n, 0) or shared.has_limits
    ):
        shared.bytes += chunks * sizeof(Chunk)
    shared.scratch = NULL
    if shared.bytes:
        shared.scratch = <char *> scratch_memory(threads * shared.bytes)
        if shared.scratch == NULL:
            return
    share(
        <Work> over_units[floating], shared, units,
        max(1, rows_at_a_time(path, n, size) // shared.unit), numbers, threads,
    )
    PyMem_RawFree(shared.scratch)


cdef void over_span(SharedRows *shared, floating type_tag) noexcept nogil:
    """In shares, between which signals are handled."""
    cdef npy_intp n = shared.plan.n, rows = shared.plan.groups * shared.span.rows, rows_per_share
    shared.unit = 1
    if shared.span.path == DIRECT_COLUMNS:
        shared.unit = LANE_BYTES // <npy_intp> sizeof(floating)
    rows_per_share = max(1, NUMBERS_PER_SHARE // n // shared.unit) * shared.unit
    shared.first = 0
    while shared.first < rows:
        shared.last = min(rows, shared.first + rows_per_share)
        share_rows[floating](shared, 0)
        if must_stop((shared.last - shared.first) * n):
            return
        shared.first = shared.last


cdef void over_rows(
    const Operation *operation, const Plan *plan, const LossTerms *loss, floating type_tag
) noexcept nogil:
    """A whole call, which has rows and classes."""
    cdef npy_intp lanes = LANE_BYTES // <npy_intp> sizeof(floating), in_group = plan.shape[0]
    cdef SharedRows shared
    shared.operation = operation
    shared.plan = plan
    shared.loss = loss
    shared.has_limits = False
    shared.span.path = path_for(operation, plan, sizeof(floating), &shared.has_limits)
    shared.span.first = 0
    shared.span.rows = in_group
    if shared.span.path == DIRECT_COLUMNS:
        shared.span.rows = in_group // lanes * lanes
    over_span[floating](&shared, 0)
    shared.span.first = shared.span.rows
    shared.span.rows = in_group - shared.span.first
    if shared.span.rows > 0 and not is_stopped():
        shared.span.path = COPIED_COLUMNS if plan.n <= FEW else COPIED_ROWS
        over_span[floating](&shared, 0)
