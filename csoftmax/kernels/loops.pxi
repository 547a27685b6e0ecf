"""The loops over rows: which way they go, and what threads share."""


ctypedef void (*any_function)() noexcept nogil


cdef enum Numbers:
    # What a function makes of each number of a row.
    NOTHING
    SCALED_EXPONENTIALS
    LOG_PROBABILITIES


cdef struct Operation:
    any_function outcome       # functions of operations.pxi, for one of the types
    any_function batch
    any_function limit
    any_function elementwise   # instead of all these
    Numbers numbers
    int target                 # which operand is the target, 0 for none; ignore_index is the next
    int temperature            # which is the temperature, 0 for none
    int operands               # of the gufunc: logits, row operands, results
    bint has_row_result        # the last one is a row, not a number


cdef enum Path:
    # How rows get to the functions that compute them.
    ROW               # one by one
    ROW_BATCH         # many at a time
    DIRECT_COLUMNS    # rows that stand side by side
    COPIED_COLUMNS    # rows copied so that they do
    COPIED_ROW        # rows copied so that they are contiguous


cdef enum:
    MAX_OPERANDS = 8
    # Rows with up to FEW numbers are copied to columns, which takes 2 cycles a number whatever the
    # length (Zen 4); with up to SHORT, batches of rows share the cost of finishing them. Beyond that
    # a row by itself is as fast, and faster where the memory is the limit.
    FEW = 112
    SHORT = 256
    # Of rows at a time. Larger ones are faster in the cache by up to a tenth, but memory that waits
    # while they are computed costs more: 10^6 rows of 33 took 0.63 ns a number with 16 KiB of
    # copies, 0.42 with these.
    COPY_BYTES = 2048
    BATCH_BYTES = 4096
    # Rows that are not contiguous are copied together, as many as share cache lines along the other
    # axis, while they fit the cache.
    TILE_ROWS = 64
    TILE_BYTES = 262144
    # Below this many numbers a second thread costs more than it brings.
    NUMBERS_PER_THREAD = 16384


cdef int thread_limit = 1


def raise_if_out_of_memory():
    """A gufunc's loop can't raise: it leaves a mark, for its thread, and the Python layer asks."""
    global csoftmax_out_of_memory
    if csoftmax_out_of_memory:
        csoftmax_out_of_memory = False
        raise MemoryError("no memory for a copy of rows that are not contiguous")


def set_thread_limit(int limit):
    global thread_limit
    thread_limit = limit


def get_num_threads():
    return min(thread_limit, csoftmax_max_threads())


cdef inline int threads_for(npy_intp numbers) noexcept nogil:
    cdef npy_intp worth = numbers // NUMBERS_PER_THREAD
    return <int> max(1, min(worth, min(thread_limit, csoftmax_max_threads())))


cdef inline void finish_row(
    const Operation *operation, const Row *row, bint is_defined, char **operands,
    Outcome *outcome, floating type_tag
) noexcept nogil:
    (<void (*)(const Row *, bint, char **, Outcome *, floating) noexcept nogil> operation.outcome)(
        row, is_defined, operands, outcome, type_tag
    )


cdef inline void write_numbers(
    const Operation *operation, const floating *x, const floating *e, floating *y, npy_intp n,
    const Row *row, const Outcome *outcome, const Chunk *chunk
) noexcept nogil:
    """The results of a chunk of a row, from its logits x or its exponentials e."""
    if operation.numbers == SCALED_EXPONENTIALS:
        scale_far(e, y, n, outcome.factor, chunk.ratio, chunk.ratio_power)
    elif row.reduction.kind == TEMPERED:
        write_log_probabilities(x, y, n, row, outcome.log_sum, TEMPERED)
    else:
        write_log_probabilities(x, y, n, row, outcome.log_sum, UNSHIFTED)


cdef void sweep_chunk(
    const Operation *operation, const floating *x, floating *y, npy_intp n, double temperature,
    Chunk *chunk
) noexcept nogil:
    """The sums of a chunk, and its exponentials to y if they will be needed."""
    cdef floating e[FLOAT_CHUNK]
    cdef bint are_needed = operation.numbers == SCALED_EXPONENTIALS
    chunk.is_finite = exponentials(
        x, e, y if are_needed else NULL, n, temperature, &chunk.row
    )
    if not chunk.is_finite:
        fill(e, n, 0)
        chunk.ratio = exactly(0)
        chunk.ratio_power = 0
    if are_needed:
        memcpy(y, e, n * sizeof(floating))


cdef void compute_short_row(
    const Operation *operation, const floating *x, floating *y, npy_intp n, double temperature,
    char **operands, Outcome *outcome
) noexcept nogil:
    cdef floating e[FLOAT_CHUNK]
    cdef Chunk chunk
    chunk.row.maximum = -INFINITY
    chunk.ratio = exactly(1)
    chunk.ratio_power = 0
    chunk.is_finite = n > 0 and temperature > 0 and exponentials(
        x, e, y, n, temperature, &chunk.row
    )
    finish_row[floating](operation, &chunk.row, chunk.is_finite, operands, outcome, 0)
    if operation.numbers == NOTHING:
        return
    if chunk.is_finite:
        write_numbers(operation, x, e, y, n, &chunk.row, outcome, &chunk)
    else:
        fill(y, n, NAN)


cdef inline npy_intp chunks_of(npy_intp n, floating type_tag) noexcept nogil:
    """How many chunks a row has; 1 if it is computed without."""
    cdef npy_intp length = CHUNK_BYTES // <npy_intp> sizeof(floating)
    return max(1, (n + length - 1) // length)


cdef inline void sweep_chunks(
    const Operation *operation, const floating *x, floating *y, npy_intp n, double temperature,
    Chunk *chunks, npy_intp first, npy_intp last
) noexcept nogil:
    cdef npy_intp length = CHUNK_BYTES // <npy_intp> sizeof(floating), c
    for c in range(first, last):
        sweep_chunk(
            operation, x + c * length, y + c * length, min(length, n - c * length), temperature,
            chunks + c,
        )


cdef inline void write_chunks(
    const Operation *operation, const floating *x, floating *y, npy_intp n, const Row *row,
    const Outcome *outcome, const Chunk *chunks, npy_intp first, npy_intp last
) noexcept nogil:
    cdef npy_intp length = CHUNK_BYTES // <npy_intp> sizeof(floating), c
    for c in range(first, last):
        write_numbers(
            operation, x + c * length, y + c * length, y + c * length, min(length, n - c * length),
            row, outcome, chunks + c,
        )


cdef void compute_long_row(
    const Operation *operation, const floating *x, floating *y, npy_intp n, double temperature,
    char **operands, Outcome *outcome, Chunk *chunks, int threads
) noexcept nogil:
    """In chunks, whose bounds depend on n alone: so a result does not depend on the threads."""
    cdef npy_intp count = chunks_of[floating](n, 0)
    cdef bint is_defined
    cdef int t
    cdef Row row
    if threads == 1:
        sweep_chunks(operation, x, y, n, temperature, chunks, 0, count)
    else:
        for t in prange(threads, num_threads=threads, schedule="static", chunksize=1):
            sweep_chunks(
                operation, x, y, n, temperature, chunks, count * t // threads,
                count * (t + 1) // threads,
            )
    is_defined = temperature > 0 and combine_chunks[floating](chunks, count, temperature, &row, 0)
    finish_row[floating](operation, &row, is_defined, operands, outcome, 0)
    if operation.numbers == NOTHING:
        return
    if not is_defined:
        fill(y, n, NAN)
    elif threads == 1:
        write_chunks(operation, x, y, n, &row, outcome, chunks, 0, count)
    else:
        for t in prange(threads, num_threads=threads, schedule="static", chunksize=1):
            write_chunks(
                operation, x, y, n, &row, outcome, chunks, count * t // threads,
                count * (t + 1) // threads,
            )


cdef void compute_row(
    const Operation *operation, const floating *x, floating *y, npy_intp n, char **operands,
    Chunk *chunks, int threads
) noexcept nogil:
    """One row of contiguous numbers."""
    cdef Outcome outcome
    cdef int64_t target = 0
    cdef double temperature = 1.0
    if operation.elementwise != NULL:
        (<void (*)(const floating *, floating *, Py_ssize_t) noexcept nogil> operation.elementwise)(
            x, y, n
        )
        return
    if operation.temperature:
        temperature = (<double *> operands[operation.temperature - 1])[0]
    if operation.target:
        target = (<int64_t *> operands[operation.target - 1])[0]
        if target == (<int64_t *> operands[operation.target])[0]:
            (<floating *> operands[operation.operands - 2 - operation.has_row_result])[0] = 0
            if operation.numbers != NOTHING:
                fill(y, n, 0)
            return
        if 0 <= target < n:
            outcome.target_logit = x[target]
        else:
            temperature = NAN    # as everything else will be
    if n > 0 and is_limit(temperature):
        (<void (*)(const floating *, floating *, Py_ssize_t, char **) noexcept nogil>
            operation.limit)(x, y, n, operands)
        return
    if chunks_of[floating](n, 0) == 1:
        compute_short_row(operation, x, y, n, temperature, operands, &outcome)
    else:
        compute_long_row(operation, x, y, n, temperature, operands, &outcome, chunks, threads)
    if operation.target and operation.numbers != NOTHING and temperature > 0:
        y[target] = <floating> outcome.target_result


cdef inline void call_batch(
    const Operation *operation, const floating *x, npy_intp x_step, floating *y, npy_intp y_step,
    npy_intp n, npy_intp rows, char **operands, const npy_intp *steps, Layout layout
) noexcept nogil:
    (<void (*)(
        const floating *, Py_ssize_t, floating *, Py_ssize_t, Py_ssize_t, Py_ssize_t, char **,
        const npy_intp *, Layout
    ) noexcept nogil> operation.batch)(
        x, x_step, y, y_step, n, rows, operands, steps, layout
    )


cdef struct Rows:
    # Where the rows of a call are: in groups, the same steps apart in each.
    char **args
    const npy_intp *steps
    npy_intp n
    npy_intp groups
    npy_intp in_group
    npy_intp x_group_step
    npy_intp y_group_step


cdef struct Span:
    # Rows of every group that go the same way; they are numbered through all groups.
    Path path
    npy_intp first
    npy_intp rows


cdef inline npy_intp copied_rows(npy_intp n, npy_intp size) noexcept nogil:
    return max(1, min(TILE_ROWS, TILE_BYTES // (n * size)))


cdef inline npy_intp rows_at_a_time(Path path, npy_intp n, npy_intp size) noexcept nogil:
    cdef npy_intp lanes = LANE_BYTES // size
    if path == ROW_BATCH:
        return max(1, min(MAX_BATCH, BATCH_BYTES // ((n + lanes - 1) // lanes * LANE_BYTES)))
    if path == DIRECT_COLUMNS:
        return MAX_BATCH
    if path == COPIED_COLUMNS:
        return max(lanes, min(MAX_BATCH, COPY_BYTES // LANE_BYTES // n * lanes))
    return copied_rows(n, size) if path == COPIED_ROW else 1


cdef inline void copy_columns(
    const Rows *all, const Span *span, npy_intp row, npy_intp rows, floating *tile,
    npy_intp width, bint is_input, int operand, npy_intp stride, npy_intp step
) noexcept nogil:
    """Rows, of one group or several, to a tile or from it."""
    cdef npy_intp size = sizeof(floating), done = 0, part, group, place
    cdef npy_intp group_step = all.x_group_step if is_input else all.y_group_step
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


cdef void over_range(
    const Operation *operation, const Rows *all, const Span *span, npy_intp first, npy_intp last,
    char *scratch, npy_intp copy_bytes, int threads, floating type_tag
) noexcept nogil:
    """Rows first to last of a span. `scratch` has room for copies, and behind them for chunks."""
    cdef floating *copies = <floating *> scratch
    cdef Chunk *chunks = <Chunk *> (scratch + copy_bytes)
    cdef int result = operation.operands - 1
    cdef npy_intp size = sizeof(floating), n = all.n
    cdef npy_intp x_step = all.steps[0]
    cdef npy_intp y_step = all.steps[result] if operation.has_row_result else 0
    cdef npy_intp x_stride = all.steps[operation.operands]
    cdef npy_intp y_stride = all.steps[operation.operands + 1] if operation.has_row_result else 0
    cdef npy_intp limit = rows_at_a_time(span.path, n, size)
    cdef char *operands[MAX_OPERANDS]
    cdef floating tile[FLOAT_CHUNK]
    cdef char *x
    cdef char *y
    cdef npy_intp row = first, rows, r, i, width, group, place
    cdef int k
    while row < last:
        group = row // span.rows
        place = span.first + row % span.rows
        rows = min(limit, last - row)
        x = all.args[0] + group * all.x_group_step + place * x_step
        y = NULL
        if operation.has_row_result:
            y = all.args[result] + group * all.y_group_step + place * y_step
        for k in range(1, operation.operands):
            operands[k - 1] = all.args[k] + (group * all.in_group + place) * all.steps[k]
        if span.path == COPIED_COLUMNS:
            width = whole_lanes[floating](rows, 0)
            if rows < width:
                memset(tile, 0, n * width * size)
            copy_columns(all, span, row, rows, tile, width, True, 0, x_stride, x_step)
            call_batch(
                operation, tile, width, tile, width, n, rows, operands, all.steps + 1, COLUMNS
            )
            if y != NULL:
                copy_columns(all, span, row, rows, tile, width, False, result, y_stride, y_step)
            row += rows
            continue
        rows = min(rows, span.first + span.rows - place)
        if span.path == ROW:
            compute_row(operation, <floating *> x, <floating *> y, n, operands, chunks, threads)
        elif span.path == ROW_BATCH and n * size < LANE_BYTES:
            width = LANE_BYTES // size
            for r in range(rows):
                for i in range(width):    # exponentials of -inf are 0
                    tile[r * width + i] = -INFINITY
                memcpy(tile + r * width, x + r * x_step, n * size)
            call_batch(
                operation, tile, width, tile, width, width, rows, operands, all.steps + 1, ROWS
            )
            if y != NULL:
                for r in range(rows):
                    memcpy(y + r * y_step, tile + r * width, n * size)
        elif span.path == ROW_BATCH:
            call_batch(
                operation, <floating *> x, x_step // size, <floating *> y, y_step // size, n, rows,
                operands, all.steps + 1, ROWS,
            )
        elif span.path == DIRECT_COLUMNS:
            call_batch(
                operation, <floating *> x, x_stride // size, <floating *> y, y_stride // size,
                n, rows, operands, all.steps + 1, COLUMNS,
            )
        else:
            for i in range(n):
                for r in range(rows):
                    copies[r * n + i] = at[floating](x, r * x_step + i * x_stride, 0)[0]
            for r in range(rows):
                for k in range(1, operation.operands):
                    operands[k - 1] = all.args[k] + (
                        group * all.in_group + place + r
                    ) * all.steps[k]
                compute_row(operation, copies + r * n, copies + r * n, n, operands, chunks, 1)
            if y != NULL:
                for i in range(n):
                    for r in range(rows):
                        at[floating](y, r * y_step + i * y_stride, 0)[0] = copies[r * n + i]
        row += rows


cdef inline bint are_ordinary(
    const char *temperatures, npy_intp step, npy_intp rows
) noexcept nogil:
    """Extreme temperatures, 0 and infinity among them, are left to the functions for one row."""
    cdef npy_intp r
    for r in range(rows if step else 1):
        if not 1e-30 < (<double *> (temperatures + r * step))[0] < 1e30:
            return False
    return True


cdef inline bint are_side_by_side(
    const Operation *operation, const Rows *all, npy_intp size
) noexcept nogil:
    cdef const npy_intp *strides = all.steps + operation.operands
    if all.steps[0] != size or strides[0] % size or all.x_group_step % size:
        return False
    if not operation.has_row_result:
        return True
    return not (
        all.steps[operation.operands - 1] != size or strides[1] % size or all.y_group_step % size
    )


cdef inline Path path_for(
    const Operation *operation, const Rows *all, npy_intp size
) noexcept nogil:
    cdef npy_intp n = all.n, lanes = LANE_BYTES // size
    cdef const npy_intp *strides = all.steps + operation.operands
    cdef bint in_batches = operation.batch != NULL and n > 0 and all.in_group > 0
    cdef bint are_contiguous, is_single
    if in_batches and operation.temperature:
        in_batches = are_ordinary(
            all.args[operation.temperature], all.steps[operation.temperature],
            all.groups * all.in_group,
        )
    if in_batches and are_side_by_side(operation, all, size) and all.in_group >= lanes:
        if n > FEW or all.in_group % lanes == 0 or all.in_group >= MAX_BATCH:
            return DIRECT_COLUMNS
    are_contiguous = n <= 1 or (
        strides[0] == size and (not operation.has_row_result or strides[1] == size)
    )
    is_single = all.groups * all.in_group == 1
    if in_batches and n <= FEW and not (are_contiguous and is_single):
        return COPIED_COLUMNS
    if are_contiguous:
        return ROW_BATCH if in_batches and n <= SHORT else ROW
    return COPIED_ROW


cdef void over_span(
    const Operation *operation, const Rows *all, const Span *span, floating type_tag
) noexcept nogil:
    """A thread's rows begin at whole lanes, so that their results don't depend on the threads."""
    cdef npy_intp size = sizeof(floating), rows = all.groups * span.rows
    cdef npy_intp unit = LANE_BYTES // size if span.path == DIRECT_COLUMNS else 1
    cdef npy_intp units = rows // unit
    cdef int worth = threads_for(rows * all.n)
    cdef int threads = <int> max(1, min(worth, units)), inside = 1, t
    cdef npy_intp copy_bytes = 0, bytes = 0
    cdef npy_intp chunks = chunks_of[floating](all.n, 0)
    cdef char *scratch = NULL
    global csoftmax_out_of_memory
    if span.path == ROW and rows < 8 * worth and rows % worth and chunks >= 4 * worth:
        inside = worth
        threads = 1
    if span.path == COPIED_ROW:
        copy_bytes = (copied_rows(all.n, size) * all.n * size + 63) // 64 * 64
    if span.path == ROW or span.path == COPIED_ROW:
        bytes = copy_bytes + (chunks * sizeof(Chunk) if chunks > 1 else 0)
    if bytes:
        scratch = <char *> malloc(threads * bytes)
        if scratch == NULL:
            csoftmax_out_of_memory = True
            return
    if threads == 1:
        over_range[floating](operation, all, span, 0, rows, scratch, copy_bytes, inside, 0)
    else:
        for t in prange(threads, num_threads=threads, schedule="static", chunksize=1):
            over_range[floating](
                operation, all, span, units * t // threads * unit,
                units * (t + 1) // threads * unit, scratch + t * bytes, copy_bytes, 1, 0,
            )
    free(scratch)


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
    if span.rows > 0:
        span.path = COPIED_COLUMNS if all.n <= FEW else COPIED_ROW
        over_span[floating](operation, all, &span, 0)


cdef inline void gufunc_loop(
    char **args, const npy_intp *dimensions, const npy_intp *steps, void *data, floating type_tag
) noexcept nogil:
    cdef Rows all
    cdef unsigned int flags = csoftmax_float_flags()
    all.args = args
    all.steps = steps
    all.n = dimensions[1]
    all.groups = 1
    all.in_group = dimensions[0]
    all.x_group_step = 0
    all.y_group_step = 0
    over_rows[floating](<Operation *> data, &all, 0)
    csoftmax_restore_float_flags(flags)


cdef void float_loop(
    char **args, const npy_intp *dimensions, const npy_intp *steps, void *data
) noexcept nogil:
    gufunc_loop[float](args, dimensions, steps, data, 0)


cdef void double_loop(
    char **args, const npy_intp *dimensions, const npy_intp *steps, void *data
) noexcept nogil:
    gufunc_loop[double](args, dimensions, steps, data, 0)
