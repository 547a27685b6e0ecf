"""What Python calls: arrays as they are go in, final results come out.

There is one function for each family: row-wise functions, losses, vector-Jacobian products,
elementwise functions. Each takes NumPy arrays of the types that are converted or computed with,
numbers, and None. Where an argument is anything else, or wrong, it returns None: the Python layer
says what is wrong, or converts it and calls again. Nothing is written before all is checked.
"""

cdef extern from "numpy/arrayobject.h":    # not in Cython's declarations, or with another type
    int NPY_HALF
    ctypedef struct PyArray_Descr
    PyArray_Descr *PyArray_DescrFromType(int)
    ndarray PyArray_NewLikeArray(ndarray, NPY_ORDER, PyArray_Descr *, int)

cdef tuple NUMPY_NUMBERS = (np.floating, np.integer)
cdef ndarray ONE_FLOAT = np.ones((), np.float32)
cdef ndarray ONE_DOUBLE = np.ones((), np.float64)


cdef struct Call:
    Plan plan
    Operation operation
    LossTerms loss
    Axes axes                 # of the logits
    Axes row_axes             # those of them that are not the classes'
    int type_number           # that is computed in
    double temperature        # where it is one number
    bint is_loss              # of rows; only then these two are set:
    double label_smoothing
    int64_t least_target
    bint is_weighted          # by the classes
    bint is_summed
    bint is_mean
    double divisor            # of the sum, and of the gradient
    double sum                # divided


# Computing

cdef void compute(const Call *call) noexcept nogil:
    if call.operation.function >= SIGMOID:
        if call.type_number == NPY_FLOAT:
            over_numbers[float](call.operation.function, &call.plan, 0)
        else:
            over_numbers[double](call.operation.function, &call.plan, 0)
    elif call.type_number == NPY_FLOAT:
        over_rows[float](&call.operation, &call.plan, &call.loss, 0)
    else:
        over_rows[double](&call.operation, &call.plan, &call.loss, 0)


cdef bint scan_targets(Call *call) noexcept nogil:
    """Sets what a mean divides by: how many count, or the sum of their weights, which are added
    exactly, as there may be many small ones. False if an index is no class."""
    cdef const int64_t *target = <int64_t *> call.plan.data[TARGET]
    cdef const char *class_weights = call.loss.class_weights
    cdef int64_t ignored = call.loss.ignore_index, least = call.least_target, index
    cdef npy_intp rows = call.plan.rows, classes = call.plan.n, count = 0, i
    cdef bint is_wrong = False, counts
    cdef DoubleDouble sum, weights = from_double(0)
    for i in range(rows):    # without a branch, for the compiler makes vectors of it
        counts = target[i] != ignored
        count += counts
        is_wrong |= (target[i] < least) | counts & (<uint64_t> target[i] >= <uint64_t> classes)
    if is_wrong or not call.is_mean:
        return not is_wrong
    call.divisor = count
    if call.is_weighted:
        for i in range(rows):
            index = target[i]    # once: another thread may change it
            if index != ignored and 0 <= index < classes:
                sum = two_sum(
                    weights.hi, (<const float *> class_weights)[index]
                    if call.type_number == NPY_FLOAT else (<const double *> class_weights)[index],
                )
                weights.hi = sum.hi
                weights.lo += sum.lo
        call.divisor = weights.hi
        if is_finite(weights.hi):    # else the errors are NaN
            call.divisor += weights.lo
    return True


cdef void add_up(Call *call, const char *losses) noexcept nogil:
    """What is divided by 0 is NaN."""
    if call.type_number == NPY_FLOAT:
        call.sum = sum_of_numbers(<const float *> losses, call.plan.rows)
    else:
        call.sum = sum_of_numbers(<const double *> losses, call.plan.rows)
    call.sum = call.sum / call.divisor if call.divisor != 0 else NAN


cdef bint compute_all(Call *call) noexcept nogil:
    """False, and nothing is written, if a class index is wrong."""
    cdef npy_intp n = call.plan.n
    if call.is_mean:
        call.divisor = call.plan.rows
    if call.plan.data[TARGET] != NULL and not scan_targets(call):
        return False
    if call.is_loss:
        call.loss.share = 1.0 - call.label_smoothing
        call.loss.offset = call.label_smoothing / <double> n if n else 0
        # The gradient of a mean over nothing is NaN where a row counts, with a weight of 0.
        call.loss.scale = 1.0 / call.divisor if call.divisor != 0 else NAN
    if n * call.plan.rows > 0:
        collapse(&call.plan)
        compute(call)
    if call.is_summed:
        add_up(call, call.plan.data[RESULT if call.operation.function >= SIGMOID else ROW_RESULT])
    return True


cdef bint run(Call *call) except -1:
    """Raised is what interrupted it."""
    cdef uint64_t host = enter_environment()
    cdef bint is_right
    if max(call.plan.n, 1) * call.plan.rows < NUMBERS_PER_THREAD:
        is_right = compute_all(call)    # too short to let other threads run
    else:
        with nogil:
            is_right = compute_all(call)
    csoftmax_set_environment(host)
    raise_if_stopped()
    return is_right


# Arrays

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


cdef inline bint is_usable(ndarray x, int type_number) noexcept:
    """As it is: of this type, aligned and in this machine's byte order."""
    return PyArray_TYPE(x) == type_number and PyArray_ISBEHAVED_RO(x)


cdef inline bint has_shape(ndarray x, Axes *axes) noexcept:
    return PyArray_NDIM(x) == axes.count and PyArray_CompareLists(
        PyArray_DIMS(x), axes.lengths, axes.count
    )


cdef inline ndarray new_array(int axes, npy_intp *lengths, npy_intp numbers, int type_number):
    cdef npy_intp size = sizeof(float) if type_number == NPY_FLOAT else sizeof(double)
    return new_result(axes, lengths, type_number, size * numbers)


cdef object copy_quietly(ndarray to, ndarray source):
    """With a cast, of which neither warnings nor floating-point flags are left."""
    cdef int number = PyArray_TYPE(source), flags = fetestexcept(FE_ALL_EXCEPT)
    cdef uint64_t host = enter_environment()
    try:
        if number == PyArray_TYPE(to) or NPY_BOOL <= number <= NPY_ULONGLONG:    # no warnings
            PyArray_CopyInto(to, source)
        else:
            with np.errstate(all="ignore"):
                PyArray_CopyInto(to, source)
    finally:
        csoftmax_set_environment(host)
        if fetestexcept(FE_ALL_EXCEPT) != flags:    # float16 sets those of the x87
            feclearexcept(FE_ALL_EXCEPT & ~flags)


cdef ndarray converted(ndarray x, int type_number):
    """A copy in C order."""
    cdef npy_intp numbers = PyArray_SIZE(x)
    cdef ndarray copy = new_array(PyArray_NDIM(x), PyArray_DIMS(x), numbers, type_number)
    cdef uint64_t host
    if type_number == NPY_FLOAT and is_usable(x, NPY_HALF) and PyArray_IS_C_CONTIGUOUS(x):
        host = enter_environment()
        widen(<uint16_t *> PyArray_BYTES(x), <float *> PyArray_BYTES(copy), PyArray_SIZE(copy))
        csoftmax_set_environment(host)
    else:
        copy_quietly(copy, x)
    return copy


cdef inline ndarray in_type(ndarray x, int type_number):
    return x if is_usable(x, type_number) else converted(x, type_number)


cdef inline ndarray in_order(ndarray x, int type_number):
    return PyArray_GETCONTIGUOUS(in_type(x, type_number))


# Arguments

cdef bint read_axes(Axes *axes, ndarray x, object axis) except -1:
    """Those of an array, and which of them are the classes'. False for what Python has to look at.

    Lengths are a copy: the array's own are gone when another thread gives it another shape.
    """
    cdef bint is_tuple = type(axis) is tuple
    cdef Py_ssize_t named = 0 if axis is None else len(<tuple> axis) if is_tuple else 1, i
    cdef object one
    cdef int overflow
    cdef long at
    axes.count = PyArray_NDIM(x)
    for i in range(axes.count):
        axes.lengths[i] = PyArray_DIM(x, i)
        axes.is_class[i] = axis is None
    for i in range(named):
        one = (<tuple> axis)[i] if is_tuple else axis
        if type(one) is not int:
            return False
        at = PyLong_AsLongAndOverflow(one, &overflow)
        if overflow or not -axes.count <= at < axes.count:
            return False
        at += axes.count if at < 0 else 0
        if axes.is_class[at]:
            return False
        axes.is_class[at] = True
    return True


cdef bint start_call(Call *call, object logits, object axis) except -1:
    """With an array of a type that is computed with, along axes that it has; else False."""
    if not is_computable(logits) or not read_axes(&call.axes, logits, axis):
        return False
    call.type_number = computed_type(logits)
    start_plan(&call.plan, &call.axes, &call.row_axes)
    memset(&call.operation, 0, sizeof(Operation))
    call.loss.class_weights = NULL
    call.is_loss = call.is_weighted = call.is_summed = call.is_mean = False
    call.divisor = 1
    return True


cdef ndarray read_operand(Call *call, int role, object x):
    """In the type that is computed in. None for what is no array of numbers, doesn't broadcast to
    the logits, or whose classes have several strides."""
    cdef ndarray array
    if not is_computable(x):
        return None
    array = in_type(x, call.type_number)
    return array if set_operand(&call.plan, role, array, &call.axes) else None


cdef bint read_number(object x, double *number) except -1:
    """Python's or NumPy's. False for others, and for an int that no float can hold."""
    if type(x) is float:    # nearly always
        number[0] = x
        return True
    if not (PyFloat_Check(x) or PyLong_Check(x) or isinstance(x, NUMPY_NUMBERS)):
        return False
    try:
        number[0] = x
    except OverflowError:
        return False
    return True


cdef object read_temperature(Call *call, object temperature):
    """What has to stay until the call is over, or None."""
    cdef ndarray several
    cdef double *numbers
    cdef npy_intp i
    if not is_computable(temperature):
        call.plan.data[TEMPERATURE] = <char *> &call.temperature
        call.plan.is_number[TEMPERATURE] = True
        if not read_number(temperature, &call.temperature) or not call.temperature >= 0:
            return None
        return True
    several = converted(temperature, NPY_DOUBLE)    # what has been checked can't be changed
    numbers = <double *> PyArray_BYTES(several)
    for i in range(PyArray_SIZE(several)):
        if not numbers[i] >= 0:
            return None
    return several if set_operand(&call.plan, TEMPERATURE, several, &call.row_axes) else None


# Results

cdef inline char *end_of(ndarray x, int side) noexcept:
    """Where the memory of its numbers begins (-1), or ends (1)."""
    cdef char *end = PyArray_BYTES(x) + (PyArray_ITEMSIZE(x) if side > 0 else 0)
    cdef int i
    for i in range(PyArray_NDIM(x)):
        end += side * max(0, side * (PyArray_DIM(x, i) - 1) * PyArray_STRIDE(x, i))
    return end


cdef bint are_apart(ndarray x, ndarray out, bint or_one) noexcept:
    """Or one: of a shape and type, with the same numbers at the same places."""
    return x is None or end_of(x, 1) <= end_of(out, -1) or end_of(out, 1) <= end_of(x, -1) or (
        or_one and PyArray_BYTES(x) == PyArray_BYTES(out)
        and PyArray_CompareLists(PyArray_STRIDES(x), PyArray_STRIDES(out), PyArray_NDIM(out))
    )


cdef bint overlaps_itself(ndarray x) noexcept:
    """Unless every stride leads over all that smaller ones reach."""
    cdef npy_intp reach
    cdef int i, j
    for i in range(PyArray_NDIM(x)):
        reach = PyArray_ITEMSIZE(x)
        for j in range(PyArray_NDIM(x)):
            if j != i and llabs(PyArray_STRIDE(x, j)) <= llabs(PyArray_STRIDE(x, i)):
                reach += (PyArray_DIM(x, j) - 1) * llabs(PyArray_STRIDE(x, j))
        if PyArray_DIM(x, i) > 1 and llabs(PyArray_STRIDE(x, i)) < reach:
            return True
    return False


cdef bint can_be_out(object out, Axes *axes) noexcept:
    """Whether it has the shape and takes floating-point numbers."""
    return (
        PyArray_CheckExact(out) and PyArray_ISWRITEABLE(<ndarray> out)
        and PyArray_ISFLOAT(<ndarray> out) and has_shape(out, axes)
    )


cdef ndarray room_for_numbers(
    Call *call, object out, object given, ndarray logits, ndarray read_together=None,
    ndarray read_later=None, ndarray read_later_too=None,
):
    """Where results of the logits' shape are written first; None for an `out` that is wrong.

    Without `out` that is a new array, or the copy that the given logits were converted to. Else it
    is `out` itself if it can be computed in, and nothing that is read later lies in its memory; the
    logits, and what is read together with them, may be `out`, as numbers are read before their
    results are written. If not, a new array in the order of `out`: bits depend on how rows lie.
    """
    cdef ndarray room
    if logits is None:
        return None
    if out is None:
        room = logits
        if logits is given:
            room = new_array(
                call.axes.count, call.axes.lengths, call.plan.n * call.plan.rows, call.type_number
            )
    elif not can_be_out(out, &call.axes):
        return None
    elif (
        is_usable(out, call.type_number)
        and (PyArray_IS_C_CONTIGUOUS(<ndarray> out) or not overlaps_itself(out))
        and are_apart(logits, out, True) and are_apart(read_together, out, True)
        and are_apart(read_later, out, False) and are_apart(read_later_too, out, False)
    ):
        room = out
    else:
        room = PyArray_NewLikeArray(
            out, NPY_KEEPORDER, PyArray_DescrFromType(call.type_number), False
        )
    return room if set_operand(&call.plan, RESULT, room, &call.axes) else None


cdef ndarray room_for_rows(Call *call, object out, bint keepdims):
    """A new array with one number for each row; None for an `out` that is wrong."""
    cdef Axes *axes = &call.row_axes
    cdef ndarray room
    cdef int i
    if keepdims:    # those of the logits, which are all set by now
        axes = &call.axes
        for i in range(axes.count):
            axes.lengths[i] = 1 if axes.is_class[i] else axes.lengths[i]
    if out is not None and not can_be_out(out, axes):
        return None
    room = new_array(axes.count, axes.lengths, call.plan.rows, call.type_number)
    set_operand(&call.plan, ROW_RESULT, room, axes)
    return room


cdef inline object delivered(ndarray result, object out):
    if out is None:
        return result if PyArray_NDIM(result) else result[()]
    if result is not out:
        copy_quietly(out, result)
    return out


cdef object computed(Call *call, ndarray result, object out):
    """None if there is no room for it, or a class index is wrong. A sum or mean is in float64."""
    if result is None or not run(call):
        return None
    return np.float64(call.sum) if call.is_summed else delivered(result, out)


# softmax, log_softmax, logsumexp, entropy

cdef object rowwise(
    Function function, object x, object axis, object temperature, object where, object out,
    bint keepdims
):
    cdef Call call
    cdef ndarray logits, result
    if not start_call(&call, x, axis):
        return None
    call.operation.function = function
    call.operation.is_masked = where is not None
    temperature = read_temperature(&call, temperature)
    logits = read_operand(&call, LOGITS, x)
    if temperature is None or logits is None:
        return None
    if where is not None and not (
        PyArray_CheckExact(where) and PyArray_TYPE(<ndarray> where) == NPY_BOOL
        and set_operand(&call.plan, COMPANION, where, &call.axes)
    ):
        return None
    if function == SOFTMAX or function == LOG_SOFTMAX:
        result = room_for_numbers(&call, out, x, logits, None, where)
    else:
        result = room_for_rows(&call, out, keepdims)
        if result is not None and call.plan.n == 0:    # log(0), of a sum of nothing; no class
            PyArray_FillWithScalar(result, 0.0 if function == ENTROPY else -INFINITY)
    return computed(&call, result, out)


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
    cdef ndarray y_array, grad_array
    if not start_call(&call, y, axis) or not is_computable(grad) or not has_shape(grad, &call.axes):
        return None
    call.type_number = max(call.type_number, computed_type(grad))    # NPY_DOUBLE is the larger
    call.operation.function = function
    temperature = read_temperature(&call, temperature)
    y_array = read_operand(&call, LOGITS, y)
    grad_array = read_operand(&call, COMPANION, grad)
    if temperature is None or y_array is None or grad_array is None:
        return None
    return computed(&call, room_for_numbers(&call, out, y, y_array, grad_array), out)


def softmax_vjp(grad, y, axis, temperature, out):
    return product(SOFTMAX_VJP, grad, y, axis, temperature, out)


def log_softmax_vjp(grad, log_y, axis, temperature, out):
    return product(LOG_SOFTMAX_VJP, grad, log_y, axis, temperature, out)


# Losses

cdef bint read_reduction(Call *call, object reduction) except -1:
    if not PyUnicode_CheckExact(reduction):
        return False
    call.is_mean = reduction == "mean"
    call.is_summed = call.is_mean or reduction == "sum"
    return call.is_summed or reduction == "none"


def total(x):
    """The sum of an array's numbers, in float64; NumPy's own converts numbers one by one."""
    cdef Call call
    start_call(&call, x, ())
    call.plan.n = 0    # nothing else is computed
    call.is_summed = True
    x = in_order(x, call.type_number)
    set_operand(&call.plan, ROW_RESULT, x, &call.axes)
    return computed(&call, x, None)


cdef ndarray read_targets(Call *call, object target, bint is_nll):
    """As they are computed with, or None. Sets the function."""
    cdef ndarray indices
    if not PyArray_CheckExact(target):
        return None
    if not is_nll and has_shape(target, &call.axes):
        call.operation.function = TARGETS_LOSS
        return read_operand(call, COMPANION, target) if call.loss.ignore_index < 0 else None
    if not PyArray_ISINTEGER(<ndarray> target):
        return None
    call.operation.function = NLL_LOSS if is_nll else CLASS_LOSS
    # Numbers too large for an int64 become negative, which ignore_index may be.
    call.least_target = 0 if PyArray_ISUNSIGNED(<ndarray> target) else INT64_MIN
    indices = in_order(target, NPY_INT64)
    set_operand(&call.plan, TARGET, indices, &call.row_axes)
    return indices if has_shape(indices, &call.row_axes) else None


cdef ndarray read_class_weights(Call *call, object weight):
    """One for each class, or None."""
    cdef ndarray class_weights
    call.is_weighted = weight is not None
    if weight is None:
        class_weights = new_array(1, &call.plan.n, call.plan.n, call.type_number)
        PyArray_FillWithScalar(class_weights, 1.0)
    elif is_computable(weight):
        class_weights = in_order(weight, call.type_number)
        if PyArray_NDIM(class_weights) != 1 or PyArray_DIM(class_weights, 0) != call.plan.n:
            return None
    else:
        return None
    call.loss.class_weights = PyArray_BYTES(class_weights)
    return class_weights


cpdef cross_entropy(
    logits, target, axis, weight, ignore_index, reduction, label_smoothing, temperature,
    bint has_grad=False, out=None, divisor=None, bint is_nll=False,
):
    """The loss, or with `has_grad` the loss and the gradient. A given divisor is what the gradient
    of losses that are not reduced is divided by."""
    cdef Call call
    cdef ndarray x, losses, grad = None
    cdef int overflow
    if type(axis) is not int or type(ignore_index) is not int or not (
        start_call(&call, logits, axis) and read_reduction(&call, reduction)
        and read_number(label_smoothing, &call.label_smoothing) and 0 <= call.label_smoothing <= 1
    ):
        return None
    call.is_loss = True
    call.loss.ignore_index = PyLong_AsLongLongAndOverflow(ignore_index, &overflow)
    temperature = read_temperature(&call, temperature)
    x = read_operand(&call, LOGITS, logits)
    target = read_targets(&call, target, is_nll)
    if overflow or temperature is None or x is None or target is None:
        return None
    if call.operation.function == CLASS_LOSS and call.label_smoothing > 0:
        call.operation.function = INDEX_LOSS
    # Where all classes count, their weights are an array in any case.
    if weight is not None or call.operation.function in (INDEX_LOSS, TARGETS_LOSS):
        weight = read_class_weights(&call, weight)
        if weight is None:
            return None
    if divisor is not None:
        call.divisor = divisor
    losses = room_for_rows(&call, None, False)
    if has_grad:
        call.operation.has_grad = True
        grad = room_for_numbers(&call, out, logits, x, None, target, weight)
        if grad is None:
            return None
    if call.plan.n == 0:
        PyArray_FillWithScalar(losses, 0.0)
    value = computed(&call, losses, None)
    return (value, delivered(grad, out)) if has_grad and value is not None else value


def nll_loss(log_probs, target, axis, weight, ignore_index, reduction):
    return cross_entropy(
        log_probs, target, axis, weight, ignore_index, reduction, 0.0, 1.0, False, None, None, True
    )


# Functions of single numbers

cdef object elementwise(Function function, object x, object out):
    cdef Call call
    cdef ndarray numbers
    if not start_call(&call, x, ()):
        return None
    call.operation.function = function
    numbers = read_operand(&call, LOGITS, x)
    return computed(&call, room_for_numbers(&call, out, x, numbers), out)


def sigmoid(x, out):
    return elementwise(SIGMOID, x, out)


# The arithmetic by itself, for the tests that measure it: exp(x) for x <= 0, and log(1 + x).

def exp(x):
    return elementwise(EXP, x, None)


def log_1p_of(x):
    return elementwise(LOG_1P, x, None)


cdef ndarray read_weight(Call *call, int role, object weight):
    """None for what is none."""
    if weight is None:
        weight = ONE_FLOAT if call.type_number == NPY_FLOAT else ONE_DOUBLE
    return read_operand(call, role, weight)


def binary_cross_entropy(logits, target, weight, pos_weight, reduction):
    cdef Call call
    cdef ndarray x
    if not start_call(&call, logits, ()) or not read_reduction(&call, reduction):
        return None
    if not is_computable(target) or not has_shape(target, &call.axes):
        return None
    call.operation.function = BINARY_CROSS_ENTROPY
    x = read_operand(&call, LOGITS, logits)
    target = read_operand(&call, COMPANION, target)
    weight = read_weight(&call, WEIGHT, weight)
    pos_weight = read_weight(&call, POS_WEIGHT, pos_weight)
    if x is None or target is None or weight is None or pos_weight is None:
        return None
    return computed(&call, room_for_numbers(&call, None, logits, x), None)
