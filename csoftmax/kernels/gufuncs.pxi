"""The loops over rows, and the table of gufuncs made of them."""


ctypedef void (*any_function)() noexcept nogil


cdef struct Operation:
    any_function row           # a function of operations.pxi, for one of the types
    int operands               # of the gufunc: logits, row operands, results
    bint has_row_result        # the last one is a row, not a number


cdef enum:
    MAX_OPERANDS = 8
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


cdef inline int threads_for(npy_intp rows, npy_intp n) noexcept nogil:
    cdef npy_intp worth = min(rows, rows * n // NUMBERS_PER_THREAD)
    return <int> max(1, min(worth, min(thread_limit, csoftmax_max_threads())))


cdef inline void call_row(
    const Operation *operation, const floating *x, floating *y, npy_intp n, char **operands
) noexcept nogil:
    (<void (*)(const floating *, floating *, Py_ssize_t, char **) noexcept nogil> operation.row)(
        x, y, n, operands
    )


cdef void over_range(
    const Operation *operation, char **args, npy_intp first, npy_intp last, npy_intp n,
    const npy_intp *steps, floating *tile, npy_intp tile_rows
) noexcept nogil:
    """Rows first to last; through `tile`, with room for tile_rows of them, if it is not NULL."""
    cdef int result = operation.operands - 1
    cdef const npy_intp *strides = steps + operation.operands
    cdef char *operands[MAX_OPERANDS]
    cdef char *x
    cdef char *y
    cdef npy_intp row = first, rows, r, i
    cdef int k
    while row < last:
        rows = min(tile_rows, last - row)
        x = args[0] + row * steps[0]
        y = args[result] + row * steps[result] if operation.has_row_result else NULL
        if tile != NULL:
            for i in range(n):
                for r in range(rows):
                    tile[r * n + i] = (<floating *> (x + r * steps[0] + i * strides[0]))[0]
        for r in range(rows):
            for k in range(1, operation.operands):
                operands[k - 1] = args[k] + (row + r) * steps[k]
            if tile != NULL:
                call_row(operation, tile + r * n, tile + r * n, n, operands)
            else:
                call_row(operation, <floating *> x, <floating *> y, n, operands)
        if tile != NULL and y != NULL:
            for i in range(n):
                for r in range(rows):
                    (<floating *> (y + r * steps[result] + i * strides[1]))[0] = tile[r * n + i]
        row += rows


cdef void over_rows(
    const Operation *operation, char **args, npy_intp rows, npy_intp n, const npy_intp *steps,
    floating type_tag
) noexcept nogil:
    cdef const npy_intp *strides = steps + operation.operands
    cdef int threads = threads_for(rows, n), t
    cdef npy_intp size = sizeof(floating), tile_rows = 1
    cdef floating *tiles = NULL
    global csoftmax_out_of_memory
    if n > 1 and (strides[0] != size or (operation.has_row_result and strides[1] != size)):
        tile_rows = max(1, min(TILE_ROWS, TILE_BYTES // (n * size)))
        tiles = <floating *> malloc(threads * tile_rows * n * size)
        if tiles == NULL:
            csoftmax_out_of_memory = True
            return
    if threads == 1:
        over_range(operation, args, 0, rows, n, steps, tiles, tile_rows)
    else:
        for t in prange(threads, num_threads=threads, schedule="static", chunksize=1):
            over_range(
                operation, args, rows * t // threads, rows * (t + 1) // threads, n, steps,
                tiles + t * tile_rows * n if tiles != NULL else NULL, tile_rows,
            )
    free(tiles)


cdef void float_loop(
    char **args, const npy_intp *dimensions, const npy_intp *steps, void *data
) noexcept nogil:
    over_rows[float](<Operation *> data, args, dimensions[0], dimensions[1], steps, 0)
    feclearexcept(FE_ALL_EXCEPT)


cdef void double_loop(
    char **args, const npy_intp *dimensions, const npy_intp *steps, void *data
) noexcept nogil:
    over_rows[double](<Operation *> data, args, dimensions[0], dimensions[1], steps, 0)
    feclearexcept(FE_ALL_EXCEPT)


# The gufuncs. `types` has a letter for each operand: f logits and results (a second loop has double
# in their place), d double, l int64. A temperature is always double: Dask makes one of a number.

cdef struct Gufunc:
    Operation operations[2]
    void *data[2]
    char types[2 * MAX_OPERANDS]


cdef PyUFuncGenericFunction LOOPS[2]
LOOPS[0] = <PyUFuncGenericFunction> float_loop
LOOPS[1] = <PyUFuncGenericFunction> double_loop

cdef dict TYPE_NUMBERS = {"f": NPY_FLOAT, "d": NPY_DOUBLE, "l": NPY_INT64}


cdef object new_gufunc(
    Gufunc *made, const char *name, const char *signature, str types, int results,
    bint has_row_result, any_function row_of_floats, any_function row_of_doubles,
):
    cdef int operands = len(types), loop, k
    for loop in range(2):
        made.operations[loop].operands = operands
        made.operations[loop].has_row_result = has_row_result
        made.operations[loop].row = row_of_doubles if loop else row_of_floats
        made.data[loop] = &made.operations[loop]
        for k, letter in enumerate(types.replace("f", "d") if loop else types):
            made.types[loop * operands + k] = TYPE_NUMBERS[letter]
    return PyUFunc_FromFuncAndDataAndSignature(
        LOOPS, made.data, made.types, 2, operands - results, results, PyUFunc_None,
        name, "", 0, signature,
    )


cdef Gufunc gufuncs[7]

softmax = new_gufunc(
    &gufuncs[0], "softmax", "(n),()->(n)", "fdf", 1, True,
    <any_function> softmax_row[float], <any_function> softmax_row[double],
)
log_softmax = new_gufunc(
    &gufuncs[1], "log_softmax", "(n),()->(n)", "fdf", 1, True,
    <any_function> log_softmax_row[float], <any_function> log_softmax_row[double],
)
logsumexp = new_gufunc(
    &gufuncs[2], "logsumexp", "(n)->()", "ff", 1, False,
    <any_function> logsumexp_row[float], <any_function> logsumexp_row[double],
)
# logits, target, ignore_index, temperature -> loss
cross_entropy = new_gufunc(
    &gufuncs[3], "cross_entropy", "(n),(),(),()->()", "flldf", 1, False,
    <any_function> cross_entropy_row[float], <any_function> cross_entropy_row[double],
)
# logits, target, ignore_index, temperature, weight -> loss, gradient of weight * loss
cross_entropy_value_and_grad = new_gufunc(
    &gufuncs[4], "cross_entropy_value_and_grad", "(n),(),(),(),()->(),(n)", "flldd" + "ff", 2, True,
    <any_function> cross_entropy_value_and_grad_row[float],
    <any_function> cross_entropy_value_and_grad_row[double],
)
exp = new_gufunc(
    &gufuncs[5], "exp", "(n)->(n)", "ff", 1, True,
    <any_function> exp_row[float], <any_function> exp_row[double],
)
log_1p_of = new_gufunc(
    &gufuncs[6], "log_1p_of", "(n)->(n)", "ff", 1, True,
    <any_function> log_1p_row[float], <any_function> log_1p_row[double],
)
