"""The loops over rows: which way they go, and what threads share."""


cdef enum Path:
    # How rows get to the functions that compute them.
    DIRECT_ROWS       # rows that are contiguous
    DIRECT_COLUMNS    # rows that stand side by side
    COPIED_COLUMNS    # rows copied so that they do
    COPIED_ROWS       # rows copied so that they are contiguous


cdef enum:
    MAX_OPERANDS = 10
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
    const Operation *operation, const Row *row, bint is_defined, char **operands,
    Outcome *outcome, floating type_tag
) noexcept nogil:
    (<void (*)(const Row *, bint, char **, Outcome *, floating) noexcept nogil> operation.outcome)(
        row, is_defined, operands, outcome, type_tag
    )


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


cdef inline Coefficients coefficients_of_row(
    const Operation *operation, char **operands, npy_intp first, floating type_tag
) noexcept nogil:
    """From the number `first` on."""
    cdef npy_intp offset = first * <npy_intp> sizeof(floating)
    cdef const char *targets = NULL
    if not operation.target:
        targets = operands[operation.beside - 1] + offset
    return coefficients_of(
        operands, targets, operands[operation.class_weight - 1] + offset, operation.target > 0
    )


cdef inline void weigh_distances(
    const Operation *operation, const floating *x, const floating *e, npy_intp first, npy_intp n,
    char **operands, double maximum, Distances *distances
) noexcept nogil:
    cdef Coefficients coefficients
    if operation.weighing == BY_EXPONENTIALS:
        weigh_by_exponentials(x, e, n, <floating> maximum, distances)
    elif operation.weighing == BY_COEFFICIENTS:
        coefficients = coefficients_of_row[floating](operation, operands, first, 0)
        weigh_by_coefficients(x, n, <floating> maximum, &coefficients, distances)


cdef inline bint begin_row(
    const Operation *operation, const floating *x, floating *y, npy_intp n, char **operands,
    Outcome *outcome, double *temperature
) noexcept nogil:
    """What its operands say of a row. False if they alone decide the results: these are written."""
    cdef int64_t target
    temperature[0] = 1.0
    if operation.temperature:
        temperature[0] = (<double *> operands[operation.temperature - 1])[0]
    if operation.target:
        target = (<int64_t *> operands[operation.target - 1])[0]
        if target == (<int64_t *> operands[operation.target])[0]:
            (<floating *> operands[operation.operands - 2 - operation.has_row_result])[0] = 0
            if operation.numbers != NOTHING:
                fill(y, n, 0)
            return False
        if 0 <= target < n:
            outcome.target_logit = x[target]
        else:
            temperature[0] = NAN    # as everything else will be
    if n > 0 and is_limit(temperature[0]):
        (<void (*)(const floating *, floating *, Py_ssize_t, char **) noexcept nogil>
            operation.limit)(x, y, n, operands)
        return False
    return True


cdef inline void write_target(
    const Operation *operation, floating *y, npy_intp n, char **operands, const Outcome *outcome
) noexcept nogil:
    """The target's number, where it has one of its own."""
    cdef int64_t target
    if operation.target and operation.numbers != NOTHING:
        target = (<int64_t *> operands[operation.target - 1])[0]
        if 0 <= target < n:
            y[target] = <floating> outcome.target_result


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
    npy_intp n, npy_intp rows, char **operands, const npy_intp *steps
) noexcept nogil:
    """At most STAGED_ROWS. They go from stage to stage together, so that a processor that looks
    ahead a few hundred instructions computes one row's exponentials in the time that another waits
    for its sum and its quotient."""
    cdef floating buffer[FLOAT_CHUNK]
    cdef floating *e = room_for_exponentials(operation, x, y, n, buffer)
    cdef npy_intp e_step = (
        y_step if e == y else whole_lanes[floating](n, 0) * <npy_intp> sizeof(floating)
    )
    cdef floating total[STAGED_ROWS][FLOAT_LANES]
    cdef floating lost[STAGED_ROWS][FLOAT_LANES]
    cdef floating maxima[STAGED_ROWS][FLOAT_LANES]
    cdef char *of_row[STAGED_ROWS][MAX_OPERANDS]
    cdef double temperature[STAGED_ROWS]
    cdef Outcome outcome[STAGED_ROWS]
    cdef Row row[STAGED_ROWS]
    cdef bint is_begun[STAGED_ROWS]
    cdef bint is_guessed[STAGED_ROWS]
    cdef bint is_finite[STAGED_ROWS]
    cdef const floating *xs[STAGED_ROWS]
    cdef floating *es[STAGED_ROWS]
    cdef floating *ys[STAGED_ROWS]
    cdef npy_intp r
    cdef int k
    for r in range(rows):
        xs[r] = at[floating](<char *> x, r * x_step, 0)
        es[r] = at[floating](<char *> e, r * e_step, 0)
        ys[r] = at[floating](<char *> y, r * y_step, 0)
        for k in range(operation.operands - 1):
            of_row[r][k] = operands[k] + r * steps[k]
        is_begun[r] = begin_row(operation, xs[r], ys[r], n, of_row[r], outcome + r, temperature + r)
        is_guessed[r] = is_begun[r] and guess_reduction(xs[r], n, temperature[r], row + r)
        if is_guessed[r]:
            sweep_guessed(xs[r], es[r], n, row + r, total[r], lost[r], maxima[r])
    for r in range(rows):
        is_finite[r] = is_guessed[r] and finish_guessed(
            es[r], n, total[r], lost[r], maxima[r], operation.takes_logarithm, row + r
        )
        if is_begun[r] and not is_finite[r]:
            row[r].maximum = -INFINITY
            is_finite[r] = n > 0 and temperature[r] > 0 and exponentials_in_two_sweeps(
                xs[r], es[r], n, temperature[r], operation.takes_logarithm, row + r
            )
        if is_begun[r]:
            finish_row[floating](operation, row + r, is_finite[r], of_row[r], outcome + r, 0)
    if operation.numbers == NOTHING:
        return
    for r in range(rows):
        if is_finite[r]:
            write_numbers(
                operation, xs[r], es[r], ys[r], n, row + r, outcome + r, exactly(1), 0
            )
            write_target(operation, ys[r], n, of_row[r], outcome + r)
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


cdef void sweep_chunk(
    const Operation *operation, const floating *x, floating *y, npy_intp first, npy_intp n,
    char **operands, npy_intp beside_step, double temperature, Chunk *chunk
) noexcept nogil:
    """The sums of a chunk, and its exponentials to y if they will be needed."""
    cdef floating buffer[FLOAT_CHUNK]
    cdef floating unmasked[FLOAT_CHUNK]
    cdef floating *copy = unmasked
    cdef floating *e
    if operation.numbers == LOG_PROBABILITIES:    # needs it again
        copy = y
    if operation.is_masked:
        copy_masked(
            x, sizeof(floating), copy, sizeof(floating), n,
            operands[operation.beside - 1] + first * beside_step, beside_step,
        )
        x = copy
    e = room_for_exponentials(operation, x, y, n, buffer)
    chunk.is_finite = exponentials(x, e, n, temperature, operation.takes_logarithm, &chunk.row)
    if not chunk.is_finite:
        fill(e, n, 0)
        chunk.ratio = exactly(0)
        chunk.ratio_power = 0
    weigh_distances(
        operation, x, e, first, n, operands, reference_of(chunk), &chunk.distances
    )
    if operation.numbers != NOTHING and operation.numbers != LOG_PROBABILITIES and e != y:
        memcpy(y, e, n * sizeof(floating))


cdef inline double reference_of(const Chunk *chunk) noexcept nogil:
    """What distances in a chunk are taken from: of -inf alone, from any finite number."""
    return chunk.row.maximum if chunk.is_finite else 0


cdef struct LongRow:
    # What the threads that share a row need.
    const Operation *operation
    const void *x
    void *y
    npy_intp n
    char **operands
    npy_intp beside_step
    double temperature
    Chunk *chunks
    const Row *row
    const Outcome *outcome


cdef void sweep_chunks(
    void *work, npy_intp first, npy_intp last, int participant, const floating *type_tag
) noexcept nogil:
    cdef LongRow *all = <LongRow *> work
    cdef npy_intp length = chunk_length[floating](0), c, start
    for c in range(first, last):
        start = c * length
        sweep_chunk(
            all.operation, <floating *> all.x + start, <floating *> all.y + start, start,
            min(length, all.n - start), all.operands, all.beside_step, all.temperature,
            all.chunks + c,
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
    cdef Coefficients coefficients
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
            coefficients = coefficients_of_row[floating](all.operation, all.operands, start, 0)
            subtract_coefficients(y, count, &coefficients, all.outcome.weighed)


cdef void compute_long_row(
    const Operation *operation, const floating *x, floating *y, npy_intp n, char **operands,
    npy_intp beside_step, Chunk *chunks, int threads
) noexcept nogil:
    """In chunks, whose bounds depend on n alone: so a result does not depend on the threads."""
    cdef npy_intp count = chunks_of[floating](n, 0) if n > 0 else 0
    cdef bint is_defined
    cdef double temperature
    cdef Outcome outcome
    cdef Weighed weighed
    cdef Row row
    cdef LongRow all
    outcome.weighed = &weighed
    if operation.is_masked and operation.temperature and is_limit(
        (<double *> operands[operation.temperature - 1])[0]
    ):
        copy_masked(
            x, sizeof(floating), y, sizeof(floating), n, operands[operation.beside - 1], beside_step
        )
        x = y
    if not begin_row(operation, x, y, n, operands, &outcome, &temperature):
        return
    all.operation = operation
    all.x = x
    all.y = y
    all.n = n
    all.operands = operands
    all.beside_step = beside_step
    all.temperature = temperature
    all.chunks = chunks
    all.row = &row
    all.outcome = &outcome
    share(<Work> sweep_chunks[floating], &all, count, 1, n, threads)
    if count == 1:
        is_defined = temperature > 0 and chunks.is_finite
        row = chunks.row
        weighed.distances = chunks.distances
        chunks.ratio = exactly(1)
        chunks.ratio_power = 0
    else:
        is_defined = temperature > 0 and combine_chunks[floating](
            chunks, count, temperature, &row, 0
        )
        if is_defined and operation.weighing != NO_DISTANCES:
            combine_distances(operation, chunks, count, &row, &weighed.distances)
    finish_row[floating](operation, &row, is_defined, operands, &outcome, 0)
    if operation.numbers == NOTHING:
        return
    if not is_defined:
        fill(y, n, NAN)
        return
    if operation.is_masked:    # if needed, its copy
        all.x = y
    share(<Work> write_chunks[floating], &all, count, 1, n, threads)
    write_target(operation, y, n, operands, &outcome)


cdef inline npy_intp rows_in_stages(npy_intp n, floating type_tag) noexcept nogil:
    """So few that their exponentials and logits fit a small L1 cache together."""
    cdef npy_intp rows = STAGED_ROWS
    while rows > 1 and 2 * rows * whole_lanes[floating](n, 0) > chunk_length[floating](0):
        rows = rows // 2
    return rows


cdef void compute_rows(
    const Operation *operation, const floating *x, npy_intp x_step, floating *y, npy_intp y_step,
    npy_intp n, npy_intp rows, char **operands, const npy_intp *steps, npy_intp beside_step,
    Chunk *chunks, int threads
) noexcept nogil:
    """Rows of contiguous numbers; only a mask may have a step between numbers."""
    cdef char *row_operands[MAX_OPERANDS]
    cdef const floating *row_x
    cdef floating *row_y
    cdef bint are_staged = not needs_chunks[floating](operation, n, 0) and not is_product(operation)
    cdef npy_intp staged = rows_in_stages[floating](n, 0) if are_staged else 1
    cdef npy_intp r = 0, i
    cdef int k
    while r < rows:
        row_x = at[floating](<char *> x, r * x_step, 0)
        row_y = at[floating](<char *> y, r * y_step, 0)
        for k in range(operation.operands - 1):
            row_operands[k] = operands[k] + r * steps[k]
        if is_product(operation):
            products_of_row(
                row_x, <floating *> row_operands[operation.beside - 1], row_y, n,
                (<double *> row_operands[operation.temperature - 1])[0], chunks, threads,
                operation.numbers,
            )
        elif are_staged and operation.is_masked:
            compute_masked_rows(
                operation, row_x, x_step, row_y, y_step, n, min(staged, rows - r), row_operands,
                steps, beside_step,
            )
        elif are_staged:
            compute_short_rows(
                operation, row_x, x_step, row_y, y_step, n, min(staged, rows - r), row_operands,
                steps,
            )
        else:
            compute_long_row(
                operation, row_x, row_y, n, row_operands, beside_step, chunks, threads
            )
        if operation.is_masked and operation.has_row_result:
            for i in range(min(staged, rows - r)):
                restore_masked(
                    operation, at[floating](<char *> row_y, i * y_step, 0), 1, n,
                    row_operands[operation.beside - 1] + i * steps[operation.beside - 1],
                    beside_step,
                )
        r += staged


cdef void compute_masked_rows(
    const Operation *operation, const floating *x, npy_intp x_step, floating *y, npy_intp y_step,
    npy_intp n, npy_intp rows, char **operands, const npy_intp *steps, npy_intp beside_step
) noexcept nogil:
    """As compute_short_rows, of copies that stay in the cache."""
    cdef floating copies[FLOAT_CHUNK]
    cdef npy_intp copy_step = whole_lanes[floating](n, 0) * <npy_intp> sizeof(floating), r
    for r in range(rows):
        copy_masked(
            at[floating](<char *> x, r * x_step, 0), sizeof(floating),
            at[floating](<char *> copies, r * copy_step, 0), sizeof(floating), n,
            operands[operation.beside - 1] + r * steps[operation.beside - 1], beside_step,
        )
    compute_short_rows(operation, copies, copy_step, y, y_step, n, rows, operands, steps)


cdef inline void call_batch(
    const Operation *operation, const floating *x, npy_intp x_step, floating *y, npy_intp y_step,
    npy_intp n, npy_intp rows, char **operands, const npy_intp *steps, const floating *beside,
    npy_intp beside_step
) noexcept nogil:
    if operation.beside and not operation.is_masked:
        (<void (*)(
            const floating *, Py_ssize_t, floating *, Py_ssize_t, Py_ssize_t, Py_ssize_t, char **,
            const npy_intp *, const floating *, Py_ssize_t
        ) noexcept nogil> operation.batch)(
            x, x_step, y, y_step, n, rows, operands, steps, beside, beside_step
        )
        return
    (<void (*)(
        const floating *, Py_ssize_t, floating *, Py_ssize_t, Py_ssize_t, Py_ssize_t, char **,
        const npy_intp *
    ) noexcept nogil> operation.batch)(
        x, x_step, y, y_step, n, rows, operands, steps
    )


cdef struct Rows:
    # Where the rows of a call are: in groups, the same steps apart in each.
    char **args
    const npy_intp *steps    # from row to row, of each operand
    npy_intp n
    npy_intp groups
    npy_intp in_group
    npy_intp x_group_step
    npy_intp beside_group_step
    npy_intp y_group_step
    npy_intp x_number_step
    npy_intp beside_number_step
    npy_intp y_number_step


cdef inline void set_number_steps(const Operation *operation, Rows *all) noexcept nogil:
    """From where the machinery of gufuncs has them: behind the steps from row to row."""
    cdef const npy_intp *number_steps = all.steps + operation.operands
    cdef int rows = 1
    all.x_number_step = number_steps[0]
    all.beside_number_step = 0
    all.y_number_step = 0
    if operation.beside:
        all.beside_number_step = number_steps[1]
        rows += 1
    if operation.class_weight:
        rows += 1
    if operation.has_row_result:
        all.y_number_step = number_steps[rows]


cdef struct Span:
    # Rows of every group that go the same way; they are numbered through all groups.
    Path path
    npy_intp first
    npy_intp rows


cdef inline npy_intp copied_rows(npy_intp n, npy_intp size) noexcept nogil:
    return max(1, min(TILE_ROWS, TILE_BYTES // (n * size)))


cdef inline npy_intp rows_at_a_time(Path path, npy_intp n, npy_intp size) noexcept nogil:
    cdef npy_intp lanes = LANE_BYTES // size
    if path == DIRECT_COLUMNS:
        return MAX_BATCH
    if path == COPIED_COLUMNS:
        return max(lanes, min(MAX_BATCH, COPY_BYTES // LANE_BYTES // n * lanes))
    return copied_rows(n, size) if path == COPIED_ROWS else STAGED_ROWS


cdef inline void copy_columns(
    const Rows *all, const Span *span, npy_intp row, npy_intp rows, floating *tile,
    npy_intp width, bint is_input, int operand, npy_intp group_step, npy_intp stride
) noexcept nogil:
    """Rows, of one group or several, to a tile or from it."""
    cdef npy_intp size = sizeof(floating), step = all.steps[operand], done = 0, part, group, place
    cdef char *base
    while done < rows:
        group = (row + done) // span.rows
        place = (row + done) % span.rows
        part = min(rows - done, span.rows - place)
        base = all.args[operand] + group * group_step + (span.first + place) * step
        if is_input and stride == size:    # a constant makes better code
            to_columns(base, step, size, tile + done, width, part, all.n)
        elif is_input:
            to_columns(base, step, stride, tile + done, width, part, all.n)
        elif stride == size:
            from_columns(tile + done, width, base, step, size, part, all.n)
        else:
            from_columns(tile + done, width, base, step, stride, part, all.n)
        done += part


cdef inline void copy_masked_columns(
    const Operation *operation, const Rows *all, const Span *span, npy_intp row, npy_intp rows,
    floating *tile, npy_intp width
) noexcept nogil:
    """Masked while numbers that are contiguous stand together."""
    cdef floating masked[FLOAT_TILE]
    cdef npy_intp size = sizeof(floating), n = all.n, done = 0, part, group, place, i
    cdef npy_intp x_step = all.steps[0], mask_step = all.steps[operation.beside]
    cdef char *x
    cdef char *mask
    while done < rows:
        group = (row + done) // span.rows
        place = (row + done) % span.rows
        part = min(rows - done, span.rows - place)
        x = all.args[0] + group * all.x_group_step + (span.first + place) * x_step
        mask = all.args[operation.beside] + group * all.beside_group_step
        mask += (span.first + place) * mask_step
        if x_step == size:
            for i in range(n):
                copy_masked(
                    at[floating](x, i * all.x_number_step, 0), size, tile + i * width + done, size,
                    part, mask + i * all.beside_number_step, mask_step,
                )
        elif x_step == n * all.x_number_step and mask_step == n * all.beside_number_step:
            copy_masked(
                <floating *> x, all.x_number_step, masked, size, part * n, mask,
                all.beside_number_step,
            )
            to_columns(<char *> masked, n * size, size, tile + done, width, part, n)
        else:
            for i in range(part):
                copy_masked(
                    at[floating](x, i * x_step, 0), all.x_number_step, masked + i * n, size, n,
                    mask + i * mask_step, all.beside_number_step,
                )
            to_columns(<char *> masked, n * size, size, tile + done, width, part, n)
        done += part


cdef inline void restore_masked_columns(
    const Operation *operation, const Rows *all, const Span *span, npy_intp row, npy_intp rows,
    floating *y, npy_intp y_step
) noexcept nogil:
    cdef npy_intp r, group, place
    for r in range(rows):
        group = (row + r) // span.rows
        place = span.first + (row + r) % span.rows
        restore_masked(
            operation, y + r, y_step, all.n,
            all.args[operation.beside] + group * all.beside_group_step
            + place * all.steps[operation.beside],
            all.beside_number_step,
        )


cdef inline void over_copied_columns(
    const Operation *operation, const Rows *all, const Span *span, npy_intp row, npy_intp rows,
    char **operands, floating type_tag
) noexcept nogil:
    cdef floating tile[FLOAT_TILE]
    cdef floating beside[FLOAT_TILE]
    cdef npy_intp width = whole_lanes[floating](rows, 0)
    cdef bint is_companion = operation.beside and not operation.is_masked
    if rows < width:
        memset(tile, 0, all.n * width * sizeof(floating))
        if is_companion:
            memset(beside, 0, all.n * width * sizeof(floating))
    if operation.is_masked:
        copy_masked_columns(operation, all, span, row, rows, tile, width)
    else:
        copy_columns(
            all, span, row, rows, tile, width, True, 0, all.x_group_step, all.x_number_step
        )
    if is_companion:
        copy_columns(
            all, span, row, rows, beside, width, True, operation.beside, all.beside_group_step,
            all.beside_number_step,
        )
    call_batch(
        operation, tile, width, tile, width, all.n, rows, operands, all.steps + 1, beside, width
    )
    if not operation.has_row_result:
        return
    if operation.is_masked:
        restore_masked_columns(operation, all, span, row, rows, tile, width)
    copy_columns(
        all, span, row, rows, tile, width, False, operation.operands - 1, all.y_group_step,
        all.y_number_step,
    )


cdef inline void over_columns(
    const Operation *operation, const Rows *all, const Span *span, npy_intp row, char *x, char *y,
    npy_intp rows, char **operands, floating *copies, floating type_tag
) noexcept nogil:
    """Columns as they are, or their copies where they are masked."""
    cdef npy_intp size = sizeof(floating), x_step = all.x_number_step // size, i
    cdef npy_intp y_step = all.y_number_step // size
    cdef const floating *beside = NULL
    if operation.is_masked:
        for i in range(all.n):
            copy_masked(
                at[floating](x, i * all.x_number_step, 0), size, copies + i * rows, size, rows,
                operands[operation.beside - 1] + i * all.beside_number_step,
                all.steps[operation.beside],
            )
        x = <char *> copies
        x_step = rows
    elif operation.beside:
        beside = <floating *> operands[operation.beside - 1]
    call_batch(
        operation, <floating *> x, x_step, <floating *> y, y_step, all.n, rows, operands,
        all.steps + 1, beside, all.beside_number_step // size,
    )
    if operation.is_masked and operation.has_row_result:
        restore_masked_columns(operation, all, span, row, rows, <floating *> y, y_step)


cdef inline void copy_to_rows(
    char *x, npy_intp row_step, npy_intp number_step, floating *copies, npy_intp rows, npy_intp n
) noexcept nogil:
    cdef npy_intp i, r
    for i in range(n):
        for r in range(rows):
            copies[r * n + i] = at[floating](x, r * row_step + i * number_step, 0)[0]


cdef inline void over_copied_rows(
    const Operation *operation, const Rows *all, char *x, char *y, npy_intp rows,
    char **operands, floating *copies, Chunk *chunks
) noexcept nogil:
    cdef npy_intp n = all.n, row_bytes = n * sizeof(floating), i, r
    cdef npy_intp y_step = all.steps[operation.operands - 1]
    cdef npy_intp steps[MAX_OPERANDS]
    cdef char *beside
    cdef int k
    for k in range(operation.operands - 1):
        steps[k] = all.steps[k + 1]
    copy_to_rows(x, all.steps[0], all.x_number_step, copies, rows, n)
    if operation.beside and not operation.is_masked:
        k = operation.beside - 1
        beside = operands[k]
        operands[k] = <char *> (copies + rows * n)
        copy_to_rows(
            beside, steps[k], all.beside_number_step, <floating *> operands[k], rows, n
        )
        steps[k] = row_bytes
    compute_rows(
        operation, copies, row_bytes, copies, row_bytes, n, rows, operands, steps,
        all.beside_number_step, chunks, 1,
    )
    if operation.has_row_result:
        for i in range(n):
            for r in range(rows):
                at[floating](y, r * y_step + i * all.y_number_step, 0)[0] = copies[r * n + i]


cdef void over_range(
    const Operation *operation, const Rows *all, const Span *span, npy_intp first, npy_intp last,
    char *scratch, npy_intp copy_bytes, int threads, floating type_tag
) noexcept nogil:
    """Rows first to last of a span. `scratch` has room for copies, and behind them for chunks."""
    cdef Chunk *chunks = <Chunk *> (scratch + copy_bytes)
    cdef int result = operation.operands - 1
    cdef npy_intp size = sizeof(floating)
    cdef npy_intp y_step = all.steps[result] if operation.has_row_result else 0
    cdef npy_intp limit = rows_at_a_time(span.path, all.n, size)
    cdef char *operands[MAX_OPERANDS]
    cdef char *x
    cdef char *y = NULL
    cdef npy_intp row = first, rows, group, place
    cdef int k
    while row < last:
        group = row // span.rows
        place = span.first + row % span.rows
        rows = last - row
        if span.path != DIRECT_ROWS:
            rows = min(limit, rows)
        if span.path != COPIED_COLUMNS:    # which may be of several groups
            rows = min(rows, span.first + span.rows - place)
        x = all.args[0] + group * all.x_group_step + place * all.steps[0]
        if operation.has_row_result:
            y = all.args[result] + group * all.y_group_step + place * y_step
        for k in range(1, operation.operands):
            operands[k - 1] = all.args[k] + (group * all.in_group + place) * all.steps[k]
        if operation.beside:
            k = operation.beside
            operands[k - 1] = all.args[k] + group * all.beside_group_step + place * all.steps[k]
        if span.path == DIRECT_ROWS:
            compute_rows(
                operation, <floating *> x, all.steps[0], <floating *> y, y_step, all.n, rows,
                operands, all.steps + 1, all.beside_number_step, chunks, threads,
            )
        elif span.path == DIRECT_COLUMNS:
            over_columns[floating](
                operation, all, span, row, x, y, rows, operands, <floating *> scratch, 0
            )
        elif span.path == COPIED_COLUMNS:
            over_copied_columns[floating](operation, all, span, row, rows, operands, 0)
        else:
            over_copied_rows[floating](
                operation, all, x, y, rows, operands, <floating *> scratch, chunks
            )
        row += rows


cdef inline bint are_ordinary(
    const char *temperatures, npy_intp step, npy_intp rows
) noexcept nogil:
    """Extreme temperatures, 0 and infinity among them, are left to the functions for one row."""
    cdef npy_intp r
    for r in range(rows if step else 1):
        if not is_ordinary((<double *> (temperatures + r * step))[0]):
            return False
    return True


cdef inline bint are_side_by_side(
    const Operation *operation, const Rows *all, npy_intp size
) noexcept nogil:
    if all.steps[0] != size or all.x_number_step % size or all.x_group_step % size:
        return False
    if operation.beside and not operation.is_masked and (
        all.steps[operation.beside] != size or all.beside_number_step % size
    ):
        return False
    return not operation.has_row_result or not (
        all.steps[operation.operands - 1] != size or all.y_number_step % size
        or all.y_group_step % size
    )


cdef inline bint are_contiguous_rows(
    const Operation *operation, const Rows *all, npy_intp size
) noexcept nogil:
    return all.n <= 1 or (
        all.x_number_step == size
        and (not operation.has_row_result or all.y_number_step == size)
        and (not operation.beside or operation.is_masked or all.beside_number_step == size)
    )


cdef inline Path path_for(
    const Operation *operation, const Rows *all, npy_intp size
) noexcept nogil:
    cdef npy_intp n = all.n, lanes = LANE_BYTES // size
    cdef bint in_batches = operation.batch != NULL and n > 0 and all.in_group > 0
    cdef bint are_contiguous = are_contiguous_rows(operation, all, size)
    cdef bint is_single = all.groups * all.in_group == 1
    if in_batches and operation.temperature:
        in_batches = are_ordinary(
            all.args[operation.temperature], all.steps[operation.temperature],
            all.groups * all.in_group,
        )
    if in_batches and are_side_by_side(operation, all, size) and all.in_group >= lanes:
        if n > FEW or all.in_group % lanes == 0 or all.in_group >= 3 * lanes:
            return DIRECT_COLUMNS
    if in_batches and n <= FEW and not (are_contiguous and is_single):
        return COPIED_COLUMNS
    return DIRECT_ROWS if are_contiguous else COPIED_ROWS


cdef void over_span(
    const Operation *operation, const Rows *all, const Span *span, floating type_tag
) noexcept nogil:
    """In shares, between which signals are handled."""
    cdef npy_intp size = sizeof(floating), rows = all.groups * span.rows, first = 0, last
    cdef npy_intp unit = LANE_BYTES // size if span.path == DIRECT_COLUMNS else 1
    cdef npy_intp rows_per_share = max(1, NUMBERS_PER_SHARE // max(1, all.n) // unit) * unit
    while first < rows:
        last = min(rows, first + rows_per_share)
        share_rows[floating](operation, all, span, first, last, unit, 0)
        if must_stop((last - first) * all.n):
            return
        first = last


cdef struct SharedRows:
    const Operation *operation
    const Rows *all
    const Span *span
    npy_intp first
    npy_intp last
    npy_intp unit
    char *scratch
    npy_intp copy_bytes
    npy_intp bytes    # of scratch, for each thread
    int threads_inside


cdef void over_units(
    void *work, npy_intp first, npy_intp last, int participant, const floating *type_tag
) noexcept nogil:
    cdef SharedRows *shared = <SharedRows *> work
    over_range[floating](
        shared.operation, shared.all, shared.span, shared.first + first * shared.unit,
        min(shared.last, shared.first + last * shared.unit),
        shared.scratch + participant * shared.bytes, shared.copy_bytes, shared.threads_inside, 0,
    )


cdef void share_rows(
    const Operation *operation, const Rows *all, const Span *span, npy_intp first, npy_intp last,
    npy_intp unit, floating type_tag
) noexcept nogil:
    """Among threads, in whole units, so that the results don't depend on the threads."""
    cdef npy_intp size = sizeof(floating), rows = last - first
    cdef npy_intp units = (rows + unit - 1) // unit
    cdef int worth = threads_for(rows * all.n)
    cdef int threads = <int> max(1, min(worth, units))
    cdef npy_intp copy_bytes = 0, bytes = 0
    cdef npy_intp chunks = chunks_of[floating](all.n, 0)
    cdef SharedRows shared
    shared.threads_inside = 1
    if span.path == DIRECT_ROWS and rows < 8 * worth and rows % worth and chunks >= 4 * worth:
        shared.threads_inside = worth
        threads = 1
    if span.path == DIRECT_COLUMNS and operation.is_masked:
        bytes = copy_bytes = all.n * size * min(MAX_BATCH, span.rows)
    if span.path == COPIED_ROWS:
        copy_bytes = 2 if operation.beside and not operation.is_masked else 1
        copy_bytes = (copy_bytes * copied_rows(all.n, size) * all.n * size + 63) // 64 * 64
    if span.path == DIRECT_ROWS or span.path == COPIED_ROWS:
        bytes = copy_bytes
        if needs_chunks[floating](operation, all.n, 0):
            bytes += chunks * sizeof(Chunk)
    shared.scratch = NULL
    if bytes:
        shared.scratch = <char *> scratch_memory(threads * bytes)
        if shared.scratch == NULL:
            return
    shared.operation = operation
    shared.all = all
    shared.span = span
    shared.first = first
    shared.last = last
    shared.unit = unit
    shared.copy_bytes = copy_bytes
    shared.bytes = bytes
    share(
        <Work> over_units[floating], &shared, units,
        max(1, rows_at_a_time(span.path, all.n, size) // unit), rows * all.n, threads,
    )
    PyMem_RawFree(shared.scratch)


cdef void over_rows(
    const Operation *operation, const Rows *all, floating type_tag
) noexcept nogil:
    cdef npy_intp size = sizeof(floating), lanes = LANE_BYTES // <npy_intp> sizeof(floating)
    cdef Span span
    span.path = path_for(operation, all, size)
    span.first = 0
    span.rows = all.in_group
    if span.path == DIRECT_COLUMNS:
        span.rows = all.in_group // lanes * lanes
    if all.groups * span.rows > 0:
        over_span[floating](operation, all, &span, 0)
    span.first = span.rows
    span.rows = all.in_group - span.first
    if span.rows > 0 and not is_stopped():
        span.path = COPIED_COLUMNS if all.n <= FEW else COPIED_ROWS
        over_span[floating](operation, all, &span, 0)


cdef inline void gufunc_loop(
    char **args, const npy_intp *dimensions, const npy_intp *steps, void *data, floating type_tag
) noexcept nogil:
    cdef Rows all
    cdef uint64_t host
    if is_stopped():    # by one of the call's other loops
        return
    host = enter_environment()
    all.args = args
    all.steps = steps
    all.n = dimensions[1]
    all.groups = 1
    all.in_group = dimensions[0]
    all.x_group_step = all.beside_group_step = all.y_group_step = 0
    set_number_steps(<Operation *> data, &all)
    over_rows[floating](<Operation *> data, &all, 0)
    csoftmax_set_environment(host)


cdef void float_loop(
    char **args, const npy_intp *dimensions, const npy_intp *steps, void *data
) noexcept nogil:
    gufunc_loop[float](args, dimensions, steps, data, 0)


cdef void double_loop(
    char **args, const npy_intp *dimensions, const npy_intp *steps, void *data
) noexcept nogil:
    gufunc_loop[double](args, dimensions, steps, data, 0)
