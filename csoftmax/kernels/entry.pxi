"""What Python calls: arrays as they are go in, final results come out.

There is one function for each family: row-wise functions, losses, vector-Jacobian products,
elementwise functions. Each takes NumPy arrays of the types that are converted or computed with,
numbers, and None. Where an argument is anything else, or wrong, it returns None: the Python layer
says what is wrong, or converts it and calls again. Nothing is written before all is checked.
"""

cdef extern from "numpy/arrayobject.h":    # which Cython's declarations lack
    int NPY_HALF
    ndarray PyArray_NewLikeArray(ndarray, NPY_ORDER, dtype, int)

cdef tuple NUMPY_NUMBERS = (np.floating, np.integer, np.bool_)


cdef struct Call:
    Plan plan
    Operation operation
    LossTerms loss
    double temperature            # where it is one number
    int type_number               # that is computed in
    int axes                      # of the logits
    npy_intp lengths[MAX_LEVELS]
    bint is_class[MAX_LEVELS]     # of the logits' axes
    int row_axes
    npy_intp row_lengths[MAX_LEVELS]


# Arguments

cdef inline int computed_type(ndarray x) noexcept:
    """The type that is computed in, or -1 if there is none: what a float holds exactly is float."""
    cdef int number = PyArray_TYPE(x)
    if number == NPY_FLOAT or number == NPY_DOUBLE:
        return number
    if number == NPY_HALF or NPY_BOOL <= number <= NPY_USHORT:
        return NPY_FLOAT
    return NPY_DOUBLE if NPY_INT <= number <= NPY_ULONGLONG else -1


cdef inline bint is_computable(object x) noexcept:
    return PyArray_CheckExact(x) and computed_type(x) >= 0


cdef object copy_quietly(ndarray to, ndarray source):
    """With a cast, of which neither warnings nor floating-point flags are left."""
    cdef int number = PyArray_TYPE(source), flags
    cdef uint64_t host
    if number == PyArray_TYPE(to) or NPY_BOOL <= number <= NPY_ULONGLONG:    # there is no warning
        host = enter_environment()
        try:
            PyArray_CopyInto(to, source)
        finally:
            csoftmax_set_environment(host)
        return
    flags = fetestexcept(FE_ALL_EXCEPT)    # also those of the x87, which float16 sets
    host = enter_environment()
    try:
        with np.errstate(all="ignore"):
            PyArray_CopyInto(to, source)
    finally:
        csoftmax_set_environment(host)
        feclearexcept(FE_ALL_EXCEPT & ~flags)


cdef inline bint is_usable(ndarray x, int type_number) noexcept:
    """As it is: of this type, aligned and in this machine's byte order."""
    return (
        PyArray_TYPE(x) == type_number and PyArray_ISALIGNED(x) and PyArray_ISNOTSWAPPED(x)
    )


cdef inline ndarray new_array(int axes, npy_intp *lengths, int type_number):
    cdef npy_intp bytes = sizeof(float) if type_number == NPY_FLOAT else sizeof(double)
    cdef int i
    for i in range(axes):
        bytes *= lengths[i]
    return new_result(axes, lengths, type_number, bytes)


cdef ndarray in_type(ndarray x, int type_number):
    """x itself if it is usable, else a copy in C order."""
    cdef ndarray copy
    cdef uint64_t host
    if is_usable(x, type_number):
        return x
    copy = new_array(PyArray_NDIM(x), PyArray_DIMS(x), type_number)
    if type_number == NPY_FLOAT and is_usable(x, NPY_HALF) and PyArray_IS_C_CONTIGUOUS(x):
        host = enter_environment()
        widen(<uint16_t *> PyArray_BYTES(x), <float *> PyArray_BYTES(copy), PyArray_SIZE(x))
        csoftmax_set_environment(host)
    else:
        copy_quietly(copy, x)
    return copy


cdef inline ndarray in_order(ndarray x, int type_number):
    """in_type, and contiguous."""
    return PyArray_GETCONTIGUOUS(in_type(x, type_number))


cdef inline bint add_class_axis(Call *call, object axis) except -1:
    cdef int overflow
    cdef long at = PyLong_AsLongAndOverflow(axis, &overflow)
    if overflow or not -call.axes <= at < call.axes:
        return False
    at += call.axes if at < 0 else 0
    if call.is_class[at]:
        return False
    call.is_class[at] = True
    return True


cdef bint find_axes(Call *call, object axis) except -1:
    """Which of the logits' axes are the classes'. False for what Python has to look at."""
    cdef object one
    cdef int i
    call.row_axes = 0
    for i in range(call.axes):
        call.is_class[i] = axis is None
    if type(axis) is int:
        if not add_class_axis(call, axis):
            return False
    elif axis is not None:
        if type(axis) is not tuple:
            return False
        for one in <tuple> axis:
            if type(one) is not int or not add_class_axis(call, one):
                return False
    for i in range(call.axes):
        if not call.is_class[i]:
            call.row_lengths[call.row_axes] = call.lengths[i]
            call.row_axes += 1
    return True


cdef bint start_call(Call *call, object logits, object axis) except -1:
    """With an array of a type that is computed with, along axes that it has; else False."""
    if not PyArray_CheckExact(logits):
        return False
    call.type_number = computed_type(logits)
    call.axes = PyArray_NDIM(<ndarray> logits)
    # A copy: the array's own are gone when another thread gives it another shape.
    memcpy(call.lengths, PyArray_DIMS(<ndarray> logits), call.axes * sizeof(npy_intp))
    if call.type_number < 0 or not find_axes(call, axis):
        return False
    start_plan(&call.plan, call.row_axes, call.row_lengths)
    memset(&call.operation, 0, sizeof(Operation))
    return True


cdef inline bint is_number(object x) except -1:
    """A real one: Python's, NumPy's, or of a class that says that it is one."""
    return (
        PyFloat_Check(x) or PyLong_Check(x) or isinstance(x, NUMPY_NUMBERS) or isinstance(x, Real)
    )


cdef object read_temperature(Call *call, object temperature):
    """True if it is one number, now in the call; an array of several; None for what is neither."""
    cdef double *numbers
    cdef ndarray several
    cdef npy_intp i
    if type(temperature) is float:
        call.temperature = temperature
        return True if call.temperature >= 0 else None
    if is_computable(temperature):
        several = in_order(temperature, NPY_DOUBLE)
        if several is temperature:    # another thread may change it after it has been checked
            several = PyArray_NewCopy(several, NPY_CORDER)
        numbers = <double *> PyArray_BYTES(several)
        for i in range(PyArray_SIZE(several)):
            if not numbers[i] >= 0:
                return None
        if PyArray_NDIM(several) > 0:
            return several
        call.temperature = numbers[0]
        return True
    if not is_number(temperature):
        return None
    try:
        call.temperature = temperature
    except OverflowError:
        return None
    return True if call.temperature >= 0 else None


# Operands

cdef inline bint set_array(Call *call, int role, ndarray x) noexcept:
    """One that broadcasts to the logits; False if it doesn't, or classes have several strides."""
    return set_operand(
        &call.plan, role, PyArray_BYTES(x), PyArray_NDIM(x), PyArray_DIMS(x), PyArray_STRIDES(x),
        call.axes, call.lengths, call.is_class,
    )


cdef inline bint set_array_of_rows(Call *call, int role, ndarray x) noexcept:
    """One that broadcasts to the logits without the axes of the classes."""
    return set_operand(
        &call.plan, role, PyArray_BYTES(x), PyArray_NDIM(x), PyArray_DIMS(x), PyArray_STRIDES(x),
        call.row_axes, call.row_lengths, NULL,
    )


cdef inline bint set_temperature(Call *call, object temperature) except -1:
    if temperature is True:
        set_number(&call.plan, TEMPERATURE, &call.temperature)
        return True
    return set_array_of_rows(call, TEMPERATURE, temperature)


cdef inline void find_bounds(ndarray x, char **low, char **high) noexcept:
    cdef npy_intp reach
    cdef int i
    low[0] = PyArray_BYTES(x)
    high[0] = low[0] + PyArray_ITEMSIZE(x)
    for i in range(PyArray_NDIM(x)):
        reach = (PyArray_DIM(x, i) - 1) * PyArray_STRIDE(x, i)
        low[0] += min(reach, 0)
        high[0] += max(reach, 0)


cdef bint may_overlap(ndarray x, ndarray out) noexcept:
    """By the bounds of their memory."""
    cdef char *x_low
    cdef char *x_high
    cdef char *out_low
    cdef char *out_high
    find_bounds(x, &x_low, &x_high)
    find_bounds(out, &out_low, &out_high)
    return x_low < out_high and out_low < x_high


cdef bint are_the_same(ndarray x, ndarray out) noexcept:
    """Of one shape: whether each element of one is that of the other."""
    cdef int i
    if PyArray_BYTES(x) != PyArray_BYTES(out):
        return False
    for i in range(PyArray_NDIM(x)):
        if PyArray_DIM(x, i) > 1 and PyArray_STRIDE(x, i) != PyArray_STRIDE(out, i):
            return False
    return True


cdef inline npy_intp distance_along(ndarray x, int axis) noexcept:
    cdef npy_intp stride = PyArray_STRIDE(x, axis)
    return stride if stride > 0 else -stride


cdef bint overlaps_itself(ndarray out) noexcept:
    """Unless every stride leads over all that smaller ones reach."""
    cdef npy_intp stride, reach
    cdef int i, j
    if PyArray_IS_C_CONTIGUOUS(out):
        return False
    for i in range(PyArray_NDIM(out)):
        stride = distance_along(out, i)
        reach = PyArray_ITEMSIZE(out)
        for j in range(PyArray_NDIM(out)):
            if j != i and distance_along(out, j) <= stride:
                reach += (PyArray_DIM(out, j) - 1) * distance_along(out, j)
        if PyArray_DIM(out, i) > 1 and stride < reach:
            return True
    return False


cdef bint can_be_out(object out, int axes, const npy_intp *lengths) noexcept:
    """Whether it has the shape and takes floating-point numbers."""
    cdef int number, i
    if not PyArray_CheckExact(out) or not PyArray_ISWRITEABLE(<ndarray> out):
        return False
    number = PyArray_TYPE(<ndarray> out)
    if not (NPY_FLOAT <= number <= NPY_LONGDOUBLE or number == NPY_HALF):
        return False
    if PyArray_NDIM(<ndarray> out) != axes:
        return False
    for i in range(axes):
        if PyArray_DIM(<ndarray> out, i) != lengths[i]:
            return False
    return True


cdef inline bint is_apart(object operand, ndarray out) noexcept:
    """Also where the operand is no array."""
    return not PyArray_CheckExact(operand) or not may_overlap(operand, out)


cdef inline bint is_apart_or_the_same(object operand, ndarray out) noexcept:
    return is_apart(operand, out) or are_the_same(operand, out)


cdef ndarray room_beside(
    Call *call, ndarray out, ndarray logits, object read_together, object read_later,
    object read_later_too=None,
):
    """Where the logits' results are written first: `out` itself if it can be computed in, and
    nothing that is read later lies in its memory; else a new array.

    `logits`, and what is read together with them, may be `out` itself, as numbers are read before
    their results are written. A new array has the order of `out`, as bits depend on how rows lie.
    """
    cdef dtype descr
    if (
        is_usable(out, call.type_number) and not overlaps_itself(out)
        and is_apart_or_the_same(logits, out) and is_apart_or_the_same(read_together, out)
        and is_apart(read_later, out) and is_apart(read_later_too, out)
    ):
        return out
    descr = PyArray_DescrFromType(call.type_number)
    Py_INCREF(descr)    # which the next function takes
    return PyArray_NewLikeArray(out, NPY_KEEPORDER, descr, False)


cdef inline ndarray room_without_out(Call *call, object given, ndarray logits):
    """A new array, or the copy that the logits were converted to."""
    if logits is not given:
        return logits
    return new_array(call.axes, call.lengths, call.type_number)


cdef inline object delivered(ndarray result, object out):
    if out is None:
        return result if PyArray_NDIM(result) else result[()]
    if result is not out:
        copy_quietly(out, result)
    return out


# Computing

cdef void compute(const Call *call) noexcept nogil:
    cdef uint64_t host = enter_environment()
    if call.operation.function >= SIGMOID:
        if call.type_number == NPY_FLOAT:
            over_numbers[float](call.operation.function, &call.plan, 0)
        else:
            over_numbers[double](call.operation.function, &call.plan, 0)
    elif call.type_number == NPY_FLOAT:
        over_rows[float](&call.operation, &call.plan, &call.loss, 0)
    else:
        over_rows[double](&call.operation, &call.plan, &call.loss, 0)
    csoftmax_set_environment(host)


cdef object run(Call *call):
    """Unless there are no numbers. Raised is what interrupted it."""
    cdef npy_intp size = call.plan.n
    cdef int i
    for i in range(call.row_axes):
        size *= call.row_lengths[i]
    if size == 0:
        return
    collapse(&call.plan)
    if size < NUMBERS_PER_THREAD:    # too short to let other threads run
        compute(call)
    else:
        with nogil:
            compute(call)
    raise_if_stopped()


# softmax, log_softmax, logsumexp, entropy

cdef object rowwise(
    Function function, object x, object axis, object temperature, object where, object out,
    bint keepdims
):
    cdef Call call
    cdef ndarray logits, result
    cdef npy_intp lengths[MAX_LEVELS]
    cdef bint has_rows = function == SOFTMAX or function == LOG_SOFTMAX
    cdef int axes, i
    if not start_call(&call, x, axis):
        return None
    if where is not None and not (
        PyArray_CheckExact(where) and PyArray_TYPE(<ndarray> where) == NPY_BOOL
    ):
        return None
    temperature = read_temperature(&call, temperature)
    if temperature is None:
        return None
    axes = call.axes if has_rows or keepdims else call.row_axes
    for i in range(axes):
        lengths[i] = call.lengths[i] if has_rows or keepdims else call.row_lengths[i]
        if keepdims and call.is_class[i]:
            lengths[i] = 1
    if out is not None and not can_be_out(out, axes, lengths):
        return None
    call.operation.function = function
    call.operation.is_masked = where is not None
    call.operation.takes_logarithm = function != SOFTMAX
    if function == ENTROPY:
        call.operation.weighing = BY_EXPONENTIALS
    logits = in_type(x, call.type_number)
    if not set_array(&call, LOGITS, logits) or not set_temperature(&call, temperature):
        return None
    if where is not None and not set_array(&call, COMPANION, where):
        return None
    if has_rows:
        call.operation.numbers = SCALED_EXPONENTIALS if function == SOFTMAX else LOG_PROBABILITIES
        if out is None:
            result = room_without_out(&call, x, logits)
        else:
            result = room_beside(&call, out, logits, None, where)
        if not set_array(&call, RESULT, result):
            return None
    else:
        result = new_array(axes, lengths, call.type_number)
        if keepdims:
            set_array(&call, ROW_RESULT, result)
        else:
            set_array_of_rows(&call, ROW_RESULT, result)
        if call.plan.n == 0:    # a sum of nothing, whose logarithm is -inf; no classes
            PyArray_FillWithScalar(result, 0.0 if function == ENTROPY else -INFINITY)
    run(&call)
    return delivered(result, out)


def softmax(x, axis, temperature, where, out):
    return rowwise(SOFTMAX, x, axis, temperature, where, out, False)


def log_softmax(x, axis, temperature, where, out):
    return rowwise(LOG_SOFTMAX, x, axis, temperature, where, out, False)


def logsumexp(x, axis, where, keepdims, out):
    return rowwise(LOGSUMEXP, x, axis, 1.0, where, out, keepdims)


def entropy(logits, axis, temperature):
    return rowwise(ENTROPY, logits, axis, temperature, None, None, False)


# softmax_vjp, log_softmax_vjp

cdef object product(
    Function function, object grad, object y, object axis, object temperature, object out
):
    cdef Call call
    cdef ndarray y_array, grad_array, result
    if not start_call(&call, y, axis) or not is_computable(grad):
        return None
    if not PyArray_SAMESHAPE(<ndarray> grad, <ndarray> y):
        return None
    temperature = read_temperature(&call, temperature)
    if temperature is None:
        return None
    if out is not None and not can_be_out(out, call.axes, call.lengths):
        return None
    call.type_number = max(call.type_number, computed_type(grad))    # NPY_DOUBLE is the larger
    call.operation.function = function
    call.operation.has_companion = True
    call.operation.numbers = (
        SOFTMAX_PRODUCTS if function == SOFTMAX_VJP else LOG_SOFTMAX_PRODUCTS
    )
    y_array = in_type(y, call.type_number)
    grad_array = in_type(grad, call.type_number)
    if out is None:
        result = room_without_out(&call, y, y_array)
    else:
        result = room_beside(&call, out, y_array, grad_array, None)
    if not (
        set_array(&call, LOGITS, y_array) and set_array(&call, COMPANION, grad_array)
        and set_array(&call, RESULT, result) and set_temperature(&call, temperature)
    ):
        return None
    run(&call)
    return delivered(result, out)


def softmax_vjp(grad, y, axis, temperature, out):
    return product(SOFTMAX_VJP, grad, y, axis, temperature, out)


def log_softmax_vjp(grad, log_y, axis, temperature, out):
    return product(LOG_SOFTMAX_VJP, grad, log_y, axis, temperature, out)


# Losses

cdef enum HowReduced:
    NOT_REDUCED
    TO_MEAN
    TO_SUM
    UNKNOWN


cdef int read_reduction(object reduction) except -1:
    if not PyUnicode_CheckExact(reduction):
        return UNKNOWN
    if reduction == "mean":
        return TO_MEAN
    if reduction == "sum":
        return TO_SUM
    return NOT_REDUCED if reduction == "none" else UNKNOWN


cdef bint read_ignore_index(object ignore_index, int64_t *number) except -1:
    cdef int overflow
    if type(ignore_index) is not int:
        return False
    number[0] = PyLong_AsLongLongAndOverflow(ignore_index, &overflow)
    return not overflow


cdef bint scan_indices(
    const int64_t *target, npy_intp rows, npy_intp classes, const LossTerms *loss,
    double *divisor, floating type_tag
) noexcept nogil:
    """How many count, or the sum of their weights; False if an index is no class.

    Weights are added exactly: there may be many small ones.
    """
    cdef Sum sum, weights = exactly(0)
    cdef bint is_wrong = False, counts
    cdef npy_intp count = 0, i
    cdef int64_t index
    for i in range(rows):    # without a branch, for the compiler makes vectors of it
        counts = target[i] != loss.ignore_index
        count += counts
        is_wrong |= counts & (<uint64_t> target[i] >= <uint64_t> classes)
    divisor[0] = count
    if is_wrong:
        return False
    if loss.class_weights != NULL:
        for i in range(rows):
            index = target[i]    # once: another thread may change it
            if index != loss.ignore_index and 0 <= index < classes:
                sum = two_sum(weights.hi, (<const floating *> loss.class_weights)[index])
                weights.hi = sum.hi
                weights.lo += sum.lo
        divisor[0] = weights.hi
        if is_finite(weights.hi):    # else the errors are NaN
            divisor[0] += weights.lo
    return True


cdef double divided_sum(
    const char *numbers, npy_intp n, int type_number, double divisor
) noexcept nogil:
    """What is divided by 0 is NaN."""
    cdef uint64_t host = enter_environment()
    cdef double total
    if type_number == NPY_FLOAT:
        total = sum_of_numbers(<const float *> numbers, n)
    else:
        total = sum_of_numbers(<const double *> numbers, n)
    total = total / divisor if divisor != 0 else NAN
    csoftmax_set_environment(host)
    return total


cdef object sum_of(ndarray x, double divisor):
    cdef const char *numbers = PyArray_BYTES(x)
    cdef npy_intp n = PyArray_SIZE(x)
    cdef int type_number = PyArray_TYPE(x)
    cdef double total
    if n < NUMBERS_PER_THREAD:
        total = divided_sum(numbers, n, type_number, divisor)
    else:
        with nogil:
            total = divided_sum(numbers, n, type_number, divisor)
    raise_if_stopped()
    return np.float64(total)


cdef object reduced(ndarray losses, int reduction, double divisor):
    """A sum or mean is in float64. The mean over nothing is NaN."""
    if reduction == NOT_REDUCED:
        return delivered(losses, None)
    return sum_of(losses, divisor if reduction == TO_MEAN else 1)


cdef object read_targets(Call *call, object target, bint is_nll):
    """Sets the function. The targets as they are computed with, or None."""
    cdef ndarray indices
    cdef int64_t *numbers
    cdef npy_intp row
    cdef int number, i
    cdef bint has_shape_of_rows
    if not PyArray_CheckExact(target):
        return None
    number = PyArray_TYPE(<ndarray> target)
    has_shape_of_rows = PyArray_NDIM(<ndarray> target) == call.row_axes
    if not has_shape_of_rows:
        if is_nll or PyArray_NDIM(<ndarray> target) != call.axes:
            return None
        for i in range(call.axes):
            if PyArray_DIM(<ndarray> target, i) != call.lengths[i]:
                return None
        call.operation.function = TARGETS_LOSS
        if computed_type(target) < 0 or call.loss.ignore_index >= 0:
            return None
        return in_type(target, call.type_number)
    for i in range(call.row_axes):
        if PyArray_DIM(<ndarray> target, i) != call.row_lengths[i]:
            return None
    call.operation.function = NLL_LOSS if is_nll else CLASS_LOSS
    if not NPY_BYTE <= number <= NPY_ULONGLONG:
        return None
    indices = in_order(target, NPY_INT64)
    if number == NPY_ULONG or number == NPY_ULONGLONG:
        numbers = <int64_t *> PyArray_BYTES(indices)
        for row in range(PyArray_SIZE(indices)):
            if numbers[row] < 0:    # a number too large for an int64, which could be ignore_index
                return None
    return indices


cdef object read_class_weights(Call *call, object weight):
    """An array in the type that is computed in, or None."""
    if not (
        is_computable(weight) and PyArray_NDIM(<ndarray> weight) == 1
        and PyArray_DIM(<ndarray> weight, 0) == call.plan.n
    ):
        return None
    return in_order(weight, call.type_number)


cdef bint scan(
    const int64_t *target, npy_intp rows, const Call *call, double *divisor
) noexcept nogil:
    cdef uint64_t host = enter_environment()
    cdef bint are_right
    if call.type_number == NPY_FLOAT:
        are_right = scan_indices[float](target, rows, call.plan.n, &call.loss, divisor, 0)
    else:
        are_right = scan_indices[double](target, rows, call.plan.n, &call.loss, divisor, 0)
    csoftmax_set_environment(host)
    return are_right


cdef bint scan_targets(const Call *call, ndarray indices, double *divisor) noexcept:
    cdef npy_intp rows = PyArray_SIZE(indices)
    cdef const int64_t *target = <int64_t *> PyArray_BYTES(indices)
    cdef bint are_right
    if rows < NUMBERS_PER_THREAD:
        return scan(target, rows, call, divisor)
    with nogil:
        are_right = scan(target, rows, call, divisor)
    return are_right


cdef object set_loss_terms(
    Call *call, double label_smoothing, object class_weights, double divisor
):
    """The weights that are used: of distributions they are an array in any case."""
    cdef npy_intp n = call.plan.n
    cdef uint64_t host = enter_environment()
    cdef ndarray ones
    call.loss.share = 1.0 - label_smoothing
    call.loss.offset = label_smoothing / <double> n if n else 0
    # The gradient of a mean over nothing is NaN where a row counts, with a weight of 0.
    call.loss.scale = 1.0 / divisor if divisor != 0 else 1.0 if class_weights is None else NAN
    csoftmax_set_environment(host)
    if call.loss.offset != 0 and call.operation.function == CLASS_LOSS:
        call.operation.function = INDEX_LOSS
    if call.operation.function == TARGETS_LOSS or call.operation.function == INDEX_LOSS:
        call.operation.weighing = BY_COEFFICIENTS
        if class_weights is None:
            ones = new_array(1, &call.plan.n, call.type_number)
            PyArray_FillWithScalar(ones, 1.0)
            class_weights = ones
            call.loss.class_weights = PyArray_BYTES(ones)
    return class_weights


cdef object loss(
    bint is_nll, object logits, object target, object axis, object weight, object ignore_index,
    object reduction, object label_smoothing, object temperature, bint has_grad, object out,
    object given_divisor
):
    """The loss, or with `has_grad` the loss and the gradient.

    A given divisor is what the gradient is divided by, in place of what the mean would be.
    """
    cdef Call call
    cdef ndarray x, losses
    cdef ndarray grad = None
    cdef int how = read_reduction(reduction)
    cdef npy_intp rows = 1
    cdef double divisor, smoothing
    cdef int i
    if how == UNKNOWN or type(axis) is not int or not start_call(&call, logits, axis):
        return None
    if not read_ignore_index(ignore_index, &call.loss.ignore_index):
        return None
    if not PyFloat_Check(label_smoothing) and not (
        type(label_smoothing) is int and 0 <= label_smoothing <= 1
    ):
        return None
    smoothing = label_smoothing
    temperature = read_temperature(&call, temperature)
    if temperature is None or not 0 <= smoothing <= 1:
        return None
    if has_grad and out is not None and not can_be_out(out, call.axes, call.lengths):
        return None
    x = in_type(logits, call.type_number)
    target = read_targets(&call, target, is_nll)
    if target is None or not set_array(&call, LOGITS, x) or not set_temperature(&call, temperature):
        return None
    call.loss.class_weights = NULL
    if weight is not None:
        weight = read_class_weights(&call, weight)
        if weight is None:
            return None
        call.loss.class_weights = PyArray_BYTES(<ndarray> weight)
    for i in range(call.row_axes):
        rows *= call.row_lengths[i]
    divisor = rows
    if call.operation.function == TARGETS_LOSS:
        call.operation.has_companion = True
        if not set_array(&call, COMPANION, target):
            return None
    else:
        if not scan_targets(&call, target, &divisor):
            return None
        if not set_array_of_rows(&call, TARGET, target):
            return None
    if given_divisor is None:
        weight = set_loss_terms(&call, smoothing, weight, divisor if how == TO_MEAN else 1.0)
    else:
        weight = set_loss_terms(&call, smoothing, weight, given_divisor)
    call.operation.takes_logarithm = True
    losses = new_array(call.row_axes, call.row_lengths, call.type_number)
    set_array_of_rows(&call, ROW_RESULT, losses)
    if has_grad:
        call.operation.numbers = GRADIENTS
        if out is None:
            grad = room_without_out(&call, logits, x)
        else:
            grad = room_beside(&call, out, x, None, target, weight)
        if not set_array(&call, RESULT, grad):
            return None
    if call.plan.n == 0:
        PyArray_FillWithScalar(losses, 0.0)
    run(&call)
    if has_grad:
        return reduced(losses, how, divisor), delivered(grad, out)
    return reduced(losses, how, divisor)


def cross_entropy(
    logits, target, axis, weight, ignore_index, reduction, label_smoothing, temperature
):
    return loss(
        False, logits, target, axis, weight, ignore_index, reduction, label_smoothing, temperature,
        False, None, None,
    )


def cross_entropy_value_and_grad(
    logits, target, axis, weight, ignore_index, reduction, label_smoothing, temperature, out,
    divisor=None,
):
    return loss(
        False, logits, target, axis, weight, ignore_index, reduction, label_smoothing, temperature,
        True, out, divisor,
    )


def nll_loss(log_probs, target, axis, weight, ignore_index, reduction):
    return loss(
        True, log_probs, target, axis, weight, ignore_index, reduction, 0.0, 1.0, False, None, None
    )


def sum_of_weights(target, weight, ignore_index):
    """Of class indices that are classes or ignored, and a weight for each class."""
    cdef Call call
    cdef double total = 0
    call.type_number = NPY_DOUBLE
    call.plan.n = PyArray_SIZE(weight)
    call.loss.ignore_index = ignore_index
    weight = in_order(weight, NPY_DOUBLE)
    target = in_order(target, NPY_INT64)
    call.loss.class_weights = PyArray_BYTES(<ndarray> weight)
    if not scan_targets(&call, target, &total):
        raise IndexError("class indices changed while they were read")
    return total


# Functions of single numbers

cdef object elementwise(Function function, object x, object out):
    cdef Call call
    cdef ndarray numbers, result
    if not start_call(&call, x, ()) or (
        out is not None and not can_be_out(out, call.axes, call.lengths)
    ):
        return None
    call.operation.function = function
    numbers = in_type(x, call.type_number)
    if out is None:
        result = room_without_out(&call, x, numbers)
    else:
        result = room_beside(&call, out, numbers, None, None)
    if not set_array(&call, LOGITS, numbers) or not set_array(&call, RESULT, result):
        return None
    run(&call)
    return delivered(result, out)


def sigmoid(x, out):
    return elementwise(SIGMOID, x, out)


cdef float ONE_FLOAT = 1
cdef double ONE_DOUBLE = 1


cdef bint set_weight(Call *call, int role, object weight) except -1:
    """One that broadcasts to the logits; None is 1."""
    if weight is not None:
        return set_array(call, role, weight)
    if call.type_number == NPY_FLOAT:
        set_number(&call.plan, role, &ONE_FLOAT)
    else:
        set_number(&call.plan, role, &ONE_DOUBLE)
    return True


def binary_cross_entropy(logits, target, weight, pos_weight, reduction):
    cdef Call call
    cdef ndarray x, losses
    cdef int how = read_reduction(reduction)
    if how == UNKNOWN or not start_call(&call, logits, ()) or not is_computable(target):
        return None
    if not PyArray_SAMESHAPE(<ndarray> target, <ndarray> logits):
        return None
    if weight is not None:
        if not is_computable(weight):
            return None
        weight = in_type(weight, call.type_number)
    if pos_weight is not None:
        if not is_computable(pos_weight):
            return None
        pos_weight = in_type(pos_weight, call.type_number)
    call.operation.function = BINARY_CROSS_ENTROPY
    x = in_type(logits, call.type_number)
    target = in_type(target, call.type_number)
    losses = new_array(call.axes, call.lengths, call.type_number)
    if not (
        set_array(&call, LOGITS, x) and set_array(&call, COMPANION, target)
        and set_array(&call, RESULT, losses) and set_weight(&call, WEIGHT, weight)
        and set_weight(&call, POS_WEIGHT, pos_weight)
    ):
        return None
    run(&call)
    return reduced(losses, how, PyArray_SIZE(x))


def total(x):
    """The sum of an array's numbers, in float64; NumPy's own converts numbers one by one."""
    return sum_of(in_order(x, computed_type(x)), 1)


# The arithmetic by itself, for the tests that measure it: exp(x) for x <= 0, and log(1 + x).

def exp(x):
    return elementwise(EXP, x, None)


def log_1p_of(x):
    return elementwise(LOG_1P, x, None)
