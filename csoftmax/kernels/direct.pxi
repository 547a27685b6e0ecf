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


def directly(int number, x, axis, temperature, out):
    """softmax or log_softmax (its number in `gufuncs`) of an array as most are; None for others.

    Taken are contiguous arrays in the types that are computed in, one axis, one temperature, and an
    `out` of the same kind. Nothing is raised: what is wrong is left to the way that checks it.
    """
    cdef double value
    cdef int type_number, i, at
    cdef npy_intp steps[5]
    cdef char *args[3]
    cdef npy_intp *shape
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
    if out is None:
        out = new_result(
            PyArray_NDIM(<ndarray> x), PyArray_DIMS(<ndarray> x), type_number,
            PyArray_NBYTES(<ndarray> x),
        )
    elif not is_plain(out, type_number) or not can_receive(out, x):
        return None
    at = axis
    if at < 0:
        at += PyArray_NDIM(<ndarray> x)
    shape = PyArray_DIMS(<ndarray> x)
    all.n = shape[at]
    all.groups = 1
    all.in_group = 1
    for i in range(at):
        all.groups *= shape[i]
    for i in range(at + 1, PyArray_NDIM(<ndarray> x)):
        all.in_group *= shape[i]
    steps[0] = steps[2] = PyArray_ITEMSIZE(<ndarray> x)
    steps[1] = 0
    steps[3] = steps[4] = all.in_group * steps[0]
    all.x_group_step = all.y_group_step = all.n * steps[3]
    all.beside_group_step = 0
    if all.in_group == 1:    # a group of rows, not groups of one
        all.in_group = all.groups
        all.groups = 1
        steps[0] = steps[2] = all.x_group_step
    args[0] = PyArray_BYTES(<ndarray> x)
    args[1] = <char *> &value
    args[2] = PyArray_BYTES(<ndarray> out)
    all.args = args
    all.steps = steps
    if PyArray_SIZE(<ndarray> x) < NUMBERS_PER_THREAD:
        compute(number, type_number, &all)
    else:
        with nogil:
            compute(number, type_number, &all)
    raise_if_out_of_memory()
    return out


cdef inline void compute(int number, int type_number, Rows *all) noexcept nogil:
    cdef unsigned int flags = csoftmax_float_flags()
    if type_number == NPY_FLOAT:
        over_rows[float](&gufuncs[number].operations[0], all, 0)
    else:
        over_rows[double](&gufuncs[number].operations[1], all, 0)
    csoftmax_restore_float_flags(flags)


def empty(tuple shape, bint is_double):
    """An array in C order for a result: NumPy would give a gufunc's the order of its loops."""
    cdef npy_intp lengths[NPY_MAXDIMS]
    cdef npy_intp bytes = sizeof(double) if is_double else sizeof(float)
    cdef int i
    for i in range(len(shape)):
        lengths[i] = shape[i]
        bytes *= lengths[i]
    return new_result(<int> len(shape), lengths, NPY_DOUBLE if is_double else NPY_FLOAT, bytes)
