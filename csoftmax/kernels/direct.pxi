"""The commonest call, without the microsecond that the machinery of gufuncs takes."""

DIRECT_SOFTMAX, DIRECT_LOG_SOFTMAX = SOFTMAX, LOG_SOFTMAX


cdef inline bint is_plain(object array, int type_number) noexcept:
    """Contiguous, aligned and in this machine's byte order."""
    return (
        PyArray_CheckExact(array)
        and PyArray_TYPE(<ndarray> array) == type_number
        and PyArray_ISCARRAY_RO(<ndarray> array)
    )


cdef inline bint can_receive(ndarray out, ndarray x) noexcept:
    """Whether `out` is x itself, or has its shape and overlaps it nowhere."""
    cdef char *start = PyArray_BYTES(out)
    cdef char *x_start = PyArray_BYTES(x)
    cdef npy_intp size = PyArray_NBYTES(x)
    return (
        PyArray_ISWRITEABLE(out)
        and PyArray_SAMESHAPE(out, x)
        and (start == x_start or start + size <= x_start or x_start + size <= start)
    )


cdef inline bint may_overlap(ndarray mask, ndarray out) noexcept:
    """By the bounds of their memory."""
    cdef char *low = PyArray_BYTES(mask)
    cdef char *high = low
    cdef npy_intp reach
    cdef int i
    for i in range(PyArray_NDIM(mask)):
        reach = (PyArray_DIM(mask, i) - 1) * PyArray_STRIDE(mask, i)
        low += min(reach, 0)
        high += max(reach, 0)
    return low < PyArray_BYTES(out) + PyArray_NBYTES(out) and PyArray_BYTES(out) <= high


cdef bint set_mask_steps(ndarray mask, ndarray x, int at, Rows *all, npy_intp *row_step):
    """The steps of a mask that broadcasts to x; False if it doesn't, or needs more of them.

    Rows are the axes around `at`, of which each group is one step from the next, and each row of a
    group: where rows are along the last axis, the mask says which of the axes make a group.
    """
    cdef int axes = PyArray_NDIM(x), missing = axes - PyArray_NDIM(mask), i
    cdef npy_intp length, step, of_level = 0, rows = 1, groups = 1
    cdef bint in_groups = False
    cdef npy_intp *shape = PyArray_DIMS(x)
    if missing < 0:
        return False
    all.beside_group_step = row_step[0] = all.beside_number_step = 0
    for i in range(axes - 1, -1, -1):
        length = 1 if i < missing else PyArray_DIM(mask, i - missing)
        step = 0 if length == 1 else PyArray_STRIDE(mask, i - missing)
        if length != 1 and length != shape[i]:
            return False
        if i == at:
            all.beside_number_step = step
            in_groups = at < axes - 1
            continue
        if shape[i] == 1:
            continue
        if not in_groups and rows > 1 and at == axes - 1 and step != of_level * rows:
            in_groups = True
        if not in_groups:
            if rows == 1:
                of_level = row_step[0] = step
            elif step != of_level * rows:
                return False
            rows *= shape[i]
        else:
            if groups == 1:
                of_level = all.beside_group_step = step
            elif step != of_level * groups:
                return False
            groups *= shape[i]
    all.groups = groups
    all.in_group = rows
    return True


def directly(int number, x, axis, temperature, out, mask):
    """softmax or log_softmax (its number in `gufuncs`) of an array as most are; None for others.

    Taken are contiguous arrays in the types that are computed in, one axis, one temperature, an
    `out` of the same kind, and a mask that is an array of bools, or None. Nothing is raised: what
    is wrong is left to the way that checks it.
    """
    cdef double value
    cdef int type_number, i, at, result = 2
    cdef npy_intp steps[7]
    cdef char *args[4]
    cdef npy_intp *shape
    cdef npy_intp size
    cdef Rows all
    if not PyArray_CheckExact(x) or type(axis) is not int or type(temperature) is not float:
        return None
    type_number = PyArray_TYPE(<ndarray> x)
    if type_number != NPY_FLOAT and type_number != NPY_DOUBLE:
        return None
    value = temperature
    if not is_plain(x, type_number) or not value >= 0:
        return None
    if not -PyArray_NDIM(<ndarray> x) <= axis < PyArray_NDIM(<ndarray> x):
        return None
    if mask is not None and not (
        PyArray_CheckExact(mask) and PyArray_TYPE(<ndarray> mask) == NPY_BOOL
    ):
        return None
    at = axis
    if at < 0:
        at += PyArray_NDIM(<ndarray> x)
    size = PyArray_ITEMSIZE(<ndarray> x)
    shape = PyArray_DIMS(<ndarray> x)
    all.n = shape[at]
    all.beside_group_step = steps[2] = 0
    if mask is None:
        all.groups = all.in_group = 1
        for i in range(at):
            all.groups *= shape[i]
        for i in range(at + 1, PyArray_NDIM(<ndarray> x)):
            all.in_group *= shape[i]
        if at == PyArray_NDIM(<ndarray> x) - 1:    # a group of rows, not groups of one
            all.in_group = all.groups
            all.groups = 1
    elif PyArray_SIZE(<ndarray> x) == 0 or not set_mask_steps(mask, x, at, &all, steps + 2):
        return None
    if out is None:
        out = new_result(PyArray_NDIM(<ndarray> x), shape, type_number, PyArray_NBYTES(<ndarray> x))
    elif not is_plain(out, type_number) or not can_receive(out, x):
        return None
    elif mask is not None and may_overlap(mask, out):
        return None
    args[0] = PyArray_BYTES(<ndarray> x)
    args[1] = <char *> &value
    if mask is not None:
        number += MASKED_SOFTMAX - SOFTMAX
        args[2] = PyArray_BYTES(<ndarray> mask)
        result = 3
    args[result] = PyArray_BYTES(<ndarray> out)
    steps[1] = 0
    all.x_number_step = size
    steps[0] = all.n * size
    all.x_group_step = all.in_group * steps[0]
    if at < PyArray_NDIM(<ndarray> x) - 1:
        all.x_number_step = all.in_group * size
        steps[0] = size
        all.x_group_step = all.n * all.x_number_step
    steps[result] = steps[0]
    all.y_number_step = all.x_number_step
    all.y_group_step = all.x_group_step
    all.args = args
    all.steps = steps
    if PyArray_SIZE(<ndarray> x) < NUMBERS_PER_THREAD:
        compute(number, type_number, &all)
    else:
        with nogil:
            compute(number, type_number, &all)
    raise_if_stopped()
    return out


cdef inline void compute(int number, int type_number, const Rows *all) noexcept nogil:
    cdef uint64_t host = enter_environment()
    if type_number == NPY_FLOAT:
        over_rows[float](&gufuncs[number].operations[0], all, 0)
    else:
        over_rows[double](&gufuncs[number].operations[1], all, 0)
    csoftmax_set_environment(host)


def empty(tuple shape, bint is_double):
    """An array in C order for a result: NumPy would give a gufunc's the order of its loops."""
    cdef npy_intp lengths[NPY_MAXDIMS]
    cdef npy_intp bytes = sizeof(double) if is_double else sizeof(float)
    cdef int i
    for i in range(len(shape)):
        lengths[i] = shape[i]
        bytes *= lengths[i]
    return new_result(<int> len(shape), lengths, NPY_DOUBLE if is_double else NPY_FLOAT, bytes)
