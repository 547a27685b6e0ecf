"""What Python calls: arrays as they are go in, final results come out.

There is one function for each family: row-wise functions, losses, vector-Jacobian products,
elementwise functions. Each takes NumPy arrays of the types that are converted or computed with,
numbers, and None. Where an argument is anything else, or wrong, the call is refused, and returns
None: the Python layer says what is wrong, or converts it and calls again. Nothing is written before
all is checked.
"""

from cython cimport floating
from cpython.long cimport PyLong_AsLongAndOverflow, PyLong_AsLongLongAndOverflow
from cpython.object cimport PyObject
from cpython.pystate cimport PyThreadState
from cpython.unicode cimport PyUnicode_CheckExact
from libc.float cimport FLT_MIN
from libc.math cimport INFINITY, NAN, fabs, frexp, ldexp
from libc.stdint cimport INT64_MIN, int64_t, uint16_t, uint64_t
from libc.stdlib cimport llabs
from libc.string cimport memset
from numpy cimport (
    NPY_BOOL, NPY_DOUBLE, NPY_FLOAT, NPY_FLOAT16, NPY_INT, NPY_INT64, NPY_ULONGLONG, NPY_USHORT,
    PyArray_CheckExact, PyArray_CompareLists, PyArray_CopyInto, PyArray_FillWithScalar,
    PyArray_ISBEHAVED_RO, PyArray_ISFLOAT, PyArray_ISINTEGER, PyArray_ISUNSIGNED,
    PyArray_ISUSERDEF, PyArray_ISWRITEABLE, PyArray_IS_C_CONTIGUOUS, PyArray_ITEMSIZE, PyArray_TYPE,
    import_array, ndarray, npy_intp,
)

from csoftmax.kernels.arithmetic cimport (
    PLAIN, DoubleDouble, ExpParams, exp_params, exponential, from_double, log_1p,
)
from csoftmax.kernels.copies cimport narrow_to_bfloat16, widen, widen_bfloat16
from csoftmax.kernels.elementwise cimport over_numbers, sum_of_numbers
from csoftmax.kernels.environment cimport (
    CSOFTMAX_COMPILER, FE_ALL_EXCEPT, Environment, enter_environment, feclearexcept, fetestexcept,
    set_environment,
)
from csoftmax.kernels.formulas cimport is_finite
from csoftmax.kernels.lanes cimport add_term
from csoftmax.kernels.memory cimport (
    CSOFTMAX_KEEPS_MEMORY, keep_limit, new_result, prepare_memory,
)
from csoftmax.kernels.plan cimport (
    BINARY_CROSS_ENTROPY, BINARY_CROSS_ENTROPY_AND_GRAD, CLASSES, CLASS_LOSS, COMPANION, ENTROPY,
    HESSIAN, INDEX_LOSS, KL_DIVERGENCE, LOGITS, LOGSUMEXP, LOG_SIGMOID, LOG_SOFTMAX,
    LOG_SOFTMAX_VJP, MASK, MAX_LEVELS, NLL_LOSS, POS_WEIGHT, RESULT, ROLES, ROW_RESULT, SAMPLE,
    SIGMOID, SIGN, SOFTMAX, SOFTMAX_AND_LOGSUMEXP, SOFTMAX_VJP, TARGET, TARGETS_LOSS, TEMPERATURE,
    TOP_LOG_PROBS, UNIFORMS, WEIGHT, WEIGHTED_LOGSUMEXP, Axes, Function, Plan, collapse,
    set_operand, start_plan,
)
from csoftmax.kernels.stops cimport (
    Stop, begin, end, leave_python, main_thread, raise_if_stopped, return_to_python,
)
from csoftmax.kernels.threads cimport (
    CSOFTMAX_OPENMP, NUMBERS_PER_THREAD, always, calls_helped, count_cpus, get_limit_here,
    helper_count, helpers_pay, openmp_limit, set_limit_here, set_up_threads, thread_limit,
    threads_of_call,
)

import sys
from _thread import get_ident

import numpy as np

include "engine.pxi"
include "selection.pxi"

import_array()
prepare_memory()
set_up_threads()

# To import threading would take a millisecond. Before others have, this is the main thread.
threading = sys.modules.get("threading")
main_thread = threading.main_thread().ident if threading else get_ident()
del threading

cdef tuple NUMBERS = (float, int, np.floating, np.integer)
cdef ndarray ONE_FLOAT = np.ones((), np.float32)
cdef ndarray ONE_DOUBLE = np.ones((), np.float64)


cdef enum:
    CLASS_WEIGHTS = ROLES    # beside the roles, as rows have none of their own
    MOST_DRAWS = 1048576     # of each row at a time

cdef double LEAST_DIVISOR = 2.0**-32    # of a mean, and the largest is 2^32: with others, in units

cdef struct Call:
    Plan plan
    Operation operation
    LossTerms loss
    Selection selection
    Axes axes                   # of the logits
    Axes row_axes               # those of them that are not the classes'
    int type_number             # that is computed in
    bint is_refused             # Python has to look at an argument
    PyObject *arrays[ROLES + 1]    # that are read, but for what only the call sees
    double temperature          # where it is one number
    double label_smoothing
    double class_unit           # of the classes' weights
    int64_t least_target
    bint is_weighted            # by the classes
    bint is_summed
    bint is_mean
    double divisor              # of the sum, and of the gradient
    double sum                  # divided


# Computing

cdef struct Weights:
    # Of a row: its own, and its target's class's. Both are 0 where it doesn't count.
    double row
    double of_class


cdef inline Weights weights_of_row(
    const Call *call, const int64_t *target, const double *row_weights, npy_intp i,
    floating type_tag
) noexcept nogil:
    cdef Weights weights
    cdef int64_t index
    weights.row = 1 if row_weights == NULL else row_weights[i]
    weights.of_class = 1
    if target != NULL:
        index = target[i]    # once: another thread may change it
        if index == call.loss.ignore_index or not 0 <= index < call.plan.n or weights.row == 0:
            weights.row = weights.of_class = 0
        elif call.is_weighted:
            weights.of_class = (<const floating *> call.loss.class_weights)[index]
    return weights


cdef double sum_of_weights(
    const Call *call, const int64_t *target, const double *row_weights, floating type_tag
) noexcept nogil:
    """In their units. They are added exactly, as there may be many small ones."""
    cdef DoubleDouble sum = from_double(0)
    cdef Weights weights
    cdef npy_intp i
    for i in range(call.plan.rows):
        weights = weights_of_row[floating](call, target, row_weights, i, 0)
        add_term[double](
            &sum.hi, &sum.lo,
            weights.of_class * call.class_unit * (weights.row * call.loss.row_unit), 0,
        )
    return sum.hi + sum.lo if is_finite(sum.hi) else sum.hi    # else the errors are NaN


cdef inline double unit_of(double largest) noexcept nogil:
    """A power of two that makes it about 1."""
    cdef int exponent
    if not 0 < largest < INFINITY:
        return 1
    frexp(largest, &exponent)
    return ldexp(1, max(-1000, min(1000, -exponent)))


cdef void set_units(
    Call *call, const int64_t *target, const double *row_weights, floating type_tag
) noexcept nogil:
    """Of the weights that count, so that a mean is neither too large nor too small on the way."""
    cdef double largest_row = 0, largest_class = 0
    cdef Weights weights
    cdef npy_intp i
    for i in range(call.plan.rows):
        weights = weights_of_row[floating](call, target, row_weights, i, 0)
        largest_row = max(largest_row, fabs(weights.row))
        largest_class = max(largest_class, fabs(weights.of_class))
    if row_weights != NULL:
        call.loss.row_unit = unit_of(largest_row)
    if call.is_weighted:
        call.class_unit = unit_of(largest_class)


cdef bint scan_targets(Call *call, floating type_tag) noexcept nogil:
    """Sets what a mean divides by: how many count, or the sum of their weights, and the units
    of these. False if an index is no class."""
    cdef const int64_t *target = NULL
    cdef const double *row_weights = NULL
    cdef int64_t ignored = call.loss.ignore_index, least = call.least_target
    cdef npy_intp rows = call.plan.rows, classes = call.plan.n, count = 0, i
    cdef bint is_wrong = False, counts
    if call.operation.function < SIGMOID:
        row_weights = <double *> call.plan.data[WEIGHT]
    if CLASS_LOSS <= call.operation.function <= NLL_LOSS:
        target = <int64_t *> call.plan.data[TARGET]
    if target != NULL:
        for i in range(rows):    # without a branch, for the compiler makes vectors of it
            counts = target[i] != ignored
            count += counts
            is_wrong |= (target[i] < least) | counts & (<uint64_t> target[i] >= <uint64_t> classes)
    if is_wrong or not call.is_mean:
        return not is_wrong
    call.divisor = rows if target == NULL else count
    if row_weights == NULL and (target == NULL or not call.is_weighted):
        return True
    call.divisor = sum_of_weights[floating](call, target, row_weights, 0)
    if not LEAST_DIVISOR < fabs(call.divisor) < 1 / LEAST_DIVISOR:
        set_units[floating](call, target, row_weights, 0)
        call.divisor = sum_of_weights[floating](call, target, row_weights, 0)
    return True


cdef inline const Selection *selection_of(const Call *call) noexcept nogil:
    """NULL of other functions."""
    if call.operation.function == TOP_LOG_PROBS or call.operation.function == SAMPLE:
        return &call.selection
    return NULL


cdef double mean_of(const floating *x, npy_intp n, double divisor) noexcept nogil:
    """Also where the sum is too large."""
    cdef double unit = 2.0**-100, sum = sum_of_numbers(x, n, 1)
    if divisor == 0:
        return NAN
    return sum / divisor if is_finite(sum) else sum_of_numbers(x, n, unit) / divisor / unit


cdef bint compute(Call *call, floating type_tag) noexcept nogil:
    """False, and nothing is written, if a class index is wrong."""
    cdef npy_intp n = call.plan.n
    if not scan_targets[floating](call, 0):
        return False
    call.loss.share = (1.0 - call.label_smoothing) * call.class_unit
    call.loss.offset = call.label_smoothing / <double> n * call.class_unit if n else 0
    # The gradient of a mean over nothing is NaN where a row counts, with a weight of 0.
    call.loss.scale = 1.0 / call.divisor if call.divisor != 0 else NAN
    if n * call.plan.rows > 0:
        collapse(&call.plan)
        if call.operation.function >= SIGMOID:
            over_numbers[floating](call.operation.function, &call.plan, call.divisor, 0)
        else:
            over_rows[floating](
                &call.operation, &call.plan, &call.loss, selection_of(call), 0
            )
    if call.is_summed:
        call.sum = mean_of(
            <const floating *> call.plan.data[ROW_RESULT], call.plan.rows, call.divisor
        )
        if call.sum != call.sum:    # one NaN, whichever it was among the numbers
            call.sum = NAN
    return True


cdef bint compute_in_its_type(Call *call) noexcept nogil:
    if call.type_number == NPY_FLOAT:
        return compute[float](call, 0)
    return compute[double](call, 0)


# Arrays

cdef int number_of_bfloat16 = -1    # among types; ml_dtypes registers it with NumPy


cdef bint is_bfloat16(ndarray x) noexcept:
    """Told by its name: characters and kinds of such types are those of others, too."""
    global number_of_bfloat16
    cdef int number = PyArray_TYPE(x)
    if not PyArray_ISUSERDEF(x):
        return False
    if number != number_of_bfloat16 and (<object> x).dtype.name == "bfloat16":
        number_of_bfloat16 = number
    return number == number_of_bfloat16


cdef inline int computed_type(object x) noexcept:
    """The type that an array is computed in: what a float holds exactly is float. -1 of an array of
    another type, and of what is none."""
    cdef int number
    if not PyArray_CheckExact(x):
        return -1
    number = PyArray_TYPE(<ndarray> x)
    if number == NPY_FLOAT or number == NPY_DOUBLE:
        return number
    if number == NPY_FLOAT16 or NPY_BOOL <= number <= NPY_USHORT:
        return NPY_FLOAT
    if NPY_INT <= number <= NPY_ULONGLONG:
        return NPY_DOUBLE
    return NPY_FLOAT if is_bfloat16(<ndarray> x) else -1


cdef inline bint is_usable(ndarray x, int type_number) noexcept:
    """As it is: of this type, aligned and in this machine's byte order."""
    return PyArray_TYPE(x) == type_number and PyArray_ISBEHAVED_RO(x)


cdef inline bint has_shape(ndarray x, Axes *axes) noexcept:
    return x.ndim == axes.count and PyArray_CompareLists(
        x.shape, axes.lengths, axes.count
    )


cdef inline ndarray new_array(int axes, npy_intp *lengths, npy_intp numbers, int type_number):
    cdef npy_intp size = sizeof(float) if type_number == NPY_FLOAT else sizeof(double)
    return new_result(axes, lengths, type_number, size * numbers)


cdef class quiet:
    """Arithmetic of NumPy's without its warnings, and without the flags that it leaves."""
    cdef int flags
    cdef object errstate

    def __enter__(self):
        self.flags = fetestexcept(FE_ALL_EXCEPT)
        self.errstate = np.errstate(all="ignore")
        self.errstate.__enter__()

    def __exit__(self, *error):
        self.errstate.__exit__(*error)
        feclearexcept(FE_ALL_EXCEPT & ~self.flags)    # of all units: float16 sets the x87's


cdef ndarray bits_of(ndarray x):
    """An array of bfloat16 as integers, on the same memory."""
    return (<object> x).view(np.dtype(np.uint16).newbyteorder((<object> x).dtype.byteorder))


cdef inline bint is_plain(ndarray x) noexcept:
    return PyArray_ISBEHAVED_RO(x) and PyArray_IS_C_CONTIGUOUS(x)


cdef ndarray from_bfloat16(ndarray x):
    """In C order."""
    cdef ndarray bits = x if is_plain(x) else np.array(bits_of(x), np.uint16, order="C")
    cdef ndarray floats = new_array(x.ndim, x.shape, x.size, NPY_FLOAT)
    widen_bfloat16(<uint16_t *> bits.data, <float *> floats.data, floats.size)
    return floats


cdef object to_bfloat16(ndarray to, ndarray source):
    cdef ndarray x = np.asarray(source, order="C")
    cdef ndarray bits = to if is_plain(to) else np.empty((<object> x).shape, np.uint16)
    if PyArray_TYPE(x) == NPY_FLOAT:
        narrow_to_bfloat16(<float *> x.data, <uint16_t *> bits.data, x.size)
    else:
        narrow_to_bfloat16(<double *> x.data, <uint16_t *> bits.data, x.size)
    if bits is not to:
        PyArray_CopyInto(bits_of(to), bits)


cdef object copy_quietly(ndarray to, ndarray source):
    """With a cast."""
    cdef int number = PyArray_TYPE(source)
    cdef Environment host = enter_environment()
    try:
        if is_bfloat16(to):
            return to_bfloat16(to, source)
        if is_bfloat16(source):
            source = from_bfloat16(source)
            number = NPY_FLOAT
        if PyArray_TYPE(to) == NPY_FLOAT and is_usable(source, NPY_FLOAT16) and (
            PyArray_IS_C_CONTIGUOUS(source) and PyArray_IS_C_CONTIGUOUS(to)
        ):
            widen(<uint16_t *> source.data, <float *> to.data, to.size)
        elif number == PyArray_TYPE(to) or NPY_BOOL <= number <= NPY_ULONGLONG:    # no warnings
            PyArray_CopyInto(to, source)
        else:
            with quiet():
                PyArray_CopyInto(to, source)
    finally:
        set_environment(&host)


def assign(to, source):
    copy_quietly(to, np.asarray(source))


cdef ndarray converted(ndarray x, int type_number):
    """A copy in C order."""
    cdef ndarray copy
    if type_number == NPY_FLOAT and is_bfloat16(x):
        return from_bfloat16(x)
    copy = new_array(x.ndim, x.shape, x.size, type_number)
    copy_quietly(copy, x)
    return copy


cdef inline ndarray in_type(ndarray x, int type_number, bint in_order=False):
    if is_usable(x, type_number) and (not in_order or PyArray_IS_C_CONTIGUOUS(x)):
        return x
    return converted(x, type_number)


cdef inline bint is_narrowed(const Call *call, ndarray x) noexcept:
    return call.type_number == NPY_FLOAT and PyArray_TYPE(x) == NPY_DOUBLE


cdef ndarray narrowed(Call *call, ndarray x):
    """Weights in float, in C order. What is neither 0 nor infinite, and would be in a float, is
    refused: Python goes on in float64."""
    cdef ndarray wide = in_type(x, NPY_DOUBLE, True)
    cdef ndarray narrow = new_array(x.ndim, x.shape, x.size, NPY_FLOAT)
    cdef const double *numbers = <const double *> wide.data
    cdef float *floats = <float *> narrow.data
    cdef Environment host = enter_environment()    # rounding leaves flags
    cdef bint is_lost = False
    cdef npy_intp i
    for i in range(wide.size):
        floats[i] = <float> numbers[i]
        is_lost |= (fabs(floats[i]) < FLT_MIN) & (numbers[i] != 0)
        is_lost |= (fabs(floats[i]) == INFINITY) & is_finite(numbers[i])
    set_environment(&host)
    call.is_refused |= is_lost
    return narrow


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
    axes.count = x.ndim
    for i in range(axes.count):
        axes.lengths[i] = x.shape[i]
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


cdef bint start_call(Call *call, Function function, object logits, object axis) except -1:
    """With an array of a type that is computed with, along axes that it has; else False."""
    call.type_number = computed_type(logits)
    if call.type_number < 0 or not read_axes(&call.axes, logits, axis):
        return False
    start_plan(&call.plan, &call.axes, &call.row_axes)
    memset(&call.operation, 0, sizeof(Operation))
    memset(call.arrays, 0, sizeof(call.arrays))
    call.operation.function = function
    call.loss.class_weights = NULL
    call.is_refused = call.is_weighted = call.is_summed = call.is_mean = False
    call.label_smoothing = 0
    call.divisor = call.class_unit = call.loss.row_unit = 1
    return True


# What reads an argument returns what has to stay until the call is over. Where Python has to look
# at the argument, the call is refused: what follows is done in vain then, and nothing is computed.

cdef object read_operand(Call *call, int role, object x):
    """An array that broadcasts to the logits, in the type that is computed in; a mask in bools."""
    cdef ndarray array
    if computed_type(x) < 0 or role == MASK and PyArray_TYPE(<ndarray> x) != NPY_BOOL:
        call.is_refused = True
        return None
    if (role == WEIGHT or role == POS_WEIGHT) and is_narrowed(call, x):
        array = narrowed(call, x)
    else:
        array = in_type(x, NPY_BOOL if role == MASK else call.type_number)
    call.arrays[role] = <PyObject *> array
    call.is_refused |= not set_operand(&call.plan, role, array, &call.axes)
    return array


cdef double number_of(object x) except? -1:
    """NaN of what is no number of Python's or NumPy's, and of an int that no float can hold."""
    if type(x) is float:    # nearly always
        return x
    try:
        return x if isinstance(x, NUMBERS) else NAN
    except OverflowError:
        return NAN


cdef object read_temperature(Call *call, object temperature):
    """One number, or one for each row."""
    cdef ndarray several = None
    cdef double *numbers = &call.temperature
    cdef npy_intp count = 1, i
    if computed_type(temperature) < 0:
        call.temperature = number_of(temperature)
        call.plan.data[TEMPERATURE] = <char *> numbers
        call.plan.is_number[TEMPERATURE] = True
    else:
        several = converted(temperature, NPY_DOUBLE)    # what has been checked can't be changed
        numbers = <double *> several.data
        count = several.size
        call.is_refused |= not set_operand(&call.plan, TEMPERATURE, several, &call.row_axes)
    for i in range(count):
        call.is_refused |= not numbers[i] >= 0
    return several


# Results

cdef inline char *end_of(ndarray x, int side) noexcept:
    """Where the memory of its numbers begins (-1), or ends (1)."""
    cdef char *end = x.data + (PyArray_ITEMSIZE(x) if side > 0 else 0)
    cdef int i
    for i in range(x.ndim):
        end += side * max(0, side * (x.shape[i] - 1) * x.strides[i])
    return end


cdef bint overlaps_itself(ndarray x) noexcept:
    """Unless every stride leads over all that smaller ones reach."""
    cdef npy_intp reach
    cdef int i, j
    for i in range(x.ndim):
        reach = PyArray_ITEMSIZE(x)
        for j in range(x.ndim):
            if j != i and llabs(x.strides[j]) <= llabs(x.strides[i]):
                reach += (x.shape[j] - 1) * llabs(x.strides[j])
        if x.shape[i] > 1 and llabs(x.strides[i]) < reach:
            return True
    return False


cdef bint can_be_written(const Call *call, ndarray out) noexcept:
    """Whether results may go to it at once: it has the type that is computed in, and nothing in its
    memory is read after a result is written. The logits, and what is read with them, may be `out`
    itself: their numbers are read before results take their place."""
    cdef bint are_both_read = call.operation.function in (
        SOFTMAX_VJP, LOG_SOFTMAX_VJP, KL_DIVERGENCE
    )
    cdef ndarray x
    cdef int role
    if not is_usable(out, call.type_number) or overlaps_itself(out):
        return False
    for role in range(ROLES + 1):
        if call.arrays[role] == NULL:
            continue
        x = <ndarray> call.arrays[role]
        if (
            (role == LOGITS or are_both_read) and x.data == out.data
            and PyArray_CompareLists(x.strides, out.strides, out.ndim)
        ):
            continue
        if end_of(out, -1) < end_of(x, 1) and end_of(x, -1) < end_of(out, 1):
            return False
    return True


cdef ndarray room_for(Call *call, int role, object out, object given):
    """Where results are written first; None for an `out` that is wrong.

    That is `out` itself if it can be, else a new array in the order of `out`: bits depend on how
    rows lie. In C order the copy that the given logits were converted to is as good.
    """
    cdef bint is_of_rows = role == ROW_RESULT or role == SIGN
    cdef Axes *axes = &call.row_axes if is_of_rows else &call.axes
    cdef ndarray room
    cdef bint is_log
    call.is_refused |= out is not None and not (
        PyArray_CheckExact(out) and PyArray_ISWRITEABLE(<ndarray> out)
        and (PyArray_ISFLOAT(<ndarray> out) or is_bfloat16(<ndarray> out))
        and has_shape(out, axes)
    )
    if call.is_refused:
        return None
    room = <ndarray> call.arrays[LOGITS]
    if out is not None and not is_of_rows and can_be_written(call, out):
        room = out
    elif out is not None and not PyArray_IS_C_CONTIGUOUS(<ndarray> out):
        room = np.empty_like(out, np.float32 if call.type_number == NPY_FLOAT else np.float64)
    elif is_of_rows or room is given:
        room = new_array(
            axes.count, axes.lengths, call.plan.rows * (1 if is_of_rows else call.plan.n),
            call.type_number,
        )
    call.is_refused = not set_operand(&call.plan, role, room, axes)
    if call.plan.n == 0:    # the logarithm of a sum of nothing; what else rows without a class have
        is_log = role == ROW_RESULT and call.operation.function in (
            LOGSUMEXP, WEIGHTED_LOGSUMEXP, SOFTMAX_AND_LOGSUMEXP
        )
        PyArray_FillWithScalar(room, -INFINITY if is_log else 0.0)
    return room


cdef inline object delivered(ndarray result, object out):
    if out is None:
        return result if result.ndim else result[()]
    if result is not out:
        copy_quietly(out, result)
    return out


cdef object computed(Call *call, ndarray result, object out):
    """None if the call is refused, or a class index is wrong. A sum or mean is in float64.

    Raised is what interrupted it.
    """
    cdef Environment host
    cdef PyThreadState *python
    cdef bint is_right
    cdef Stop stop
    if call.is_refused:
        return None
    begin(&stop)
    host = enter_environment()
    if call.plan.rows <= (NUMBERS_PER_THREAD - 1) // work_of_row(
        max(call.plan.n, 1), selection_of(call)
    ):
        is_right = compute_in_its_type(call)    # too short to let other threads run
    else:
        python = leave_python(&stop)    # as `with nogil`, of which no other code sees the state
        is_right = compute_in_its_type(call)
        return_to_python(python)
    end(&stop)
    set_environment(&host)
    raise_if_stopped(&stop)
    if not is_right:
        return None
    return np.float64(call.sum) if call.is_summed else delivered(result, out)


cdef void keep_axes(Call *call) noexcept:
    """Of the classes, in results for each row. After all operands have been read."""
    cdef int i
    call.row_axes = call.axes
    for i in range(call.axes.count):
        if call.axes.is_class[i]:
            call.row_axes.lengths[i] = 1


# Functions of numbers: along axes, and of each number by itself

cdef object weights_of(object b, int type_number):
    """A number of Python's has no type of its own. One that no double can hold is refused."""
    cdef ndarray one
    cdef double number
    cdef Environment host
    if type(b) is not float and type(b) is not int and type(b) is not bool:
        return b
    number = number_of(b)
    if number != number and type(b) is not float:
        return b
    one = new_array(0, NULL, 1, type_number)
    host = enter_environment()    # rounding leaves flags
    if type_number == NPY_FLOAT:
        (<float *> one.data)[0] = <float> number
    else:
        (<double *> one.data)[0] = number
    set_environment(&host)
    return one


cdef object of_numbers(
    Function function, object x, object axis, object temperature, object mask, object companion,
    object out, bint keepdims=False, bint has_sign=False
):
    """The companion is the gradient of a vector-Jacobian product, or the weights of a sum."""
    cdef Call call
    cdef bint is_product = function == SOFTMAX_VJP or function == LOG_SOFTMAX_VJP
    cdef int role = ROW_RESULT if LOGSUMEXP <= function <= ENTROPY else RESULT
    cdef ndarray result, sign = None
    if not start_call(&call, function, x, axis):
        return None
    if is_product:
        call.is_refused = computed_type(companion) < 0 or not has_shape(companion, &call.axes)
    if companion is not None:
        if function == WEIGHTED_LOGSUMEXP:
            companion = weights_of(companion, call.type_number)
        call.type_number = max(call.type_number, computed_type(companion))    # double is larger
    if function < SIGMOID:
        temperature = read_temperature(&call, temperature)
    numbers = read_operand(&call, LOGITS, x)
    if mask is not None:
        mask = read_operand(&call, MASK, mask)
    if companion is not None:
        companion = read_operand(&call, COMPANION, companion)
    if keepdims:
        keep_axes(&call)
    result = room_for(&call, role, out, x)
    if has_sign:
        sign = room_for(&call, SIGN, None, None)
    value = computed(&call, result, out)
    return (value, delivered(sign, None)) if has_sign and value is not None else value


def softmax(x, axis, temperature, where, out):
    return of_numbers(SOFTMAX, x, axis, temperature, where, None, out)


def log_softmax(x, axis, temperature, where, out):
    return of_numbers(LOG_SOFTMAX, x, axis, temperature, where, None, out)


def logsumexp(x, axis, b, where, bint keepdims, bint return_sign, out):
    """Python makes one of weights and a mask: what has the weight 0 does not count."""
    if b is None:
        return of_numbers(LOGSUMEXP, x, axis, 1.0, where, None, out, keepdims, return_sign)
    if where is not None:
        return None
    return of_numbers(WEIGHTED_LOGSUMEXP, x, axis, 1.0, None, b, out, keepdims, return_sign)


def softmax_and_logsumexp(x, axis, temperature, where, keepdims, out):
    cdef Call call
    if not start_call(&call, SOFTMAX_AND_LOGSUMEXP, x, axis):
        return None
    temperature = read_temperature(&call, temperature)
    numbers = read_operand(&call, LOGITS, x)
    if where is not None:
        where = read_operand(&call, MASK, where)
    if keepdims:
        keep_axes(&call)
    log_sums = room_for(&call, ROW_RESULT, None, None)
    probabilities = room_for(&call, RESULT, out, x)
    log_sums = computed(&call, log_sums, None)
    return None if log_sums is None else (delivered(probabilities, out), log_sums)


def entropy(logits, axis, temperature, where):
    return of_numbers(ENTROPY, logits, axis, temperature, where, None, None)


def softmax_vjp(grad, y, axis, temperature, out):
    return of_numbers(SOFTMAX_VJP, y, axis, temperature, None, grad, out)


def log_softmax_vjp(grad, log_y, axis, temperature, out):
    return of_numbers(LOG_SOFTMAX_VJP, log_y, axis, temperature, None, grad, out)


def sigmoid(x, out):
    return of_numbers(SIGMOID, x, (), None, None, None, out)


def log_sigmoid(x, out):
    return of_numbers(LOG_SIGMOID, x, (), None, None, None, out)


# Selections

cdef bint read_filters(Call *call, object top_k, object top_p, object min_p) except -1:
    """False if one is wrong. The least probability is lower by half an ULP of the type: what is
    rounded to it is kept."""
    cdef double half_ulp = 2.0**-25 if call.type_number == NPY_FLOAT else 2.0**-54, least
    cdef DoubleDouble log_least
    cdef int overflow = 0
    call.selection.most = max(call.plan.n, 1)
    if top_k is not None:
        if type(top_k) is not int:
            return False
        call.selection.most = PyLong_AsLongLongAndOverflow(top_k, &overflow)
        if overflow > 0:
            call.selection.most = call.plan.n
    call.selection.top_p = number_of(top_p)
    least = number_of(min_p)
    call.selection.log_min_p = -INFINITY
    if least > 0:
        least = max(least, 1e-300)    # so that its reciprocal is finite; what is less underflows
        log_least = log_1p(from_double((1 - least) / least))
        # The logarithm is rounded, too.
        call.selection.log_min_p = -(log_least.hi + log_least.lo) * (1 + 2.0**-52) - half_ulp
    return call.selection.most >= 1 and 0 <= call.selection.top_p <= 1 and 0 <= least <= 1


def top_log_probs(logits, axis, k, temperature, where):
    cdef Call call
    cdef Axes axes
    cdef ndarray classes, log_probs
    cdef int overflow, i
    if type(axis) is not int or type(k) is not int or not (
        start_call(&call, TOP_LOG_PROBS, logits, axis)
    ):
        return None
    call.selection.most = PyLong_AsLongLongAndOverflow(k, &overflow)
    call.selection.draws = 0
    call.is_refused = overflow or not 1 <= call.selection.most <= call.plan.n
    if call.is_refused:
        return None
    temperature = read_temperature(&call, temperature)
    x = read_operand(&call, LOGITS, logits)
    if where is not None:
        where = read_operand(&call, MASK, where)
    axes = call.axes
    for i in range(axes.count):
        if axes.is_class[i]:
            axes.lengths[i] = call.selection.most
    classes = new_array(axes.count, axes.lengths, call.plan.rows * call.selection.most, NPY_INT64)
    log_probs = new_array(
        axes.count, axes.lengths, call.plan.rows * call.selection.most, call.type_number
    )
    set_operand(&call.plan, CLASSES, classes, &axes)
    set_operand(&call.plan, ROW_RESULT, log_probs, &axes)
    return None if computed(&call, log_probs, None) is None else (classes, log_probs)


def sample(logits, axis, temperature, top_k, top_p, min_p, where, uniform, tuple size):
    """Classes; or the number of the first row that has no distribution. `uniform` makes the numbers
    that are needed."""
    cdef Call call
    cdef ndarray classes, uniforms = None
    cdef double *temperatures
    cdef npy_intp lengths[MAX_LEVELS]
    cdef npy_intp i
    if type(axis) is not int or not start_call(&call, SAMPLE, logits, axis) or not (
        read_filters(&call, top_k, top_p, min_p)
    ):
        return None
    temperature = read_temperature(&call, temperature)
    x = read_operand(&call, LOGITS, logits)
    if where is not None:
        where = read_operand(&call, MASK, where)
    if call.is_refused or len(size) + call.row_axes.count > MAX_LEVELS:
        return None
    call.selection.draws = 1
    for i in range(len(size)):
        lengths[i] = size[i]
        call.selection.draws *= lengths[i]
    for i in range(call.row_axes.count):
        lengths[len(size) + i] = call.row_axes.lengths[i]
    classes = new_array(
        len(size) + call.row_axes.count, lengths, call.plan.rows * call.selection.draws, NPY_INT64
    )
    temperatures = <double *> call.plan.data[TEMPERATURE]
    if call.plan.is_number[TEMPERATURE] and temperatures[0] == 0:    # the first maximum
        temperatures[0] = 1
        call.selection.most = 1
    else:
        uniforms = uniform((<object> classes).shape)
    if classes.size == 0:
        return classes
    if call.plan.n == 0:
        return 0
    set_draws(&call, CLASSES, classes, len(size))
    if uniforms is not None:
        set_draws(&call, UNIFORMS, uniforms, len(size))
    draw_in_parts(&call, classes)
    for i in range(classes.size):
        if (<int64_t *> classes.data)[i] < 0:
            return i % call.plan.rows
    return delivered(classes, None)


cdef int draw_in_parts(Call *call, ndarray classes) except -1:
    """Between which signals are handled."""
    cdef npy_intp left = call.selection.draws
    while left > 0:
        call.selection.draws = min(left, <npy_intp> MOST_DRAWS)
        computed(call, classes, None)
        left -= call.selection.draws
        call.plan.data[CLASSES] += call.selection.draws * call.plan.stride[CLASSES]
        if call.plan.data[UNIFORMS] != NULL:
            call.plan.data[UNIFORMS] += call.selection.draws * call.plan.stride[UNIFORMS]
    return 0


cdef object set_draws(Call *call, int role, ndarray x, int axes):
    """Several for each row, along the first axes."""
    set_operand(&call.plan, role, (<object> x)[(*(0,) * axes, ...)], &call.row_axes)
    call.plan.stride[role] = call.plan.rows * sizeof(double)


# Losses

cdef bint read_reduction(Call *call, object reduction) except -1:
    """False if it is none of the three."""
    if not PyUnicode_CheckExact(reduction):
        return False
    call.is_mean = reduction == "mean"
    call.is_summed = call.is_mean or reduction == "sum"
    return call.is_summed or reduction == "none"


def total(x):
    """The sum of an array's numbers, in float64; NumPy's own converts numbers one by one."""
    cdef Call call
    start_call(&call, LOGSUMEXP, x, ())
    call.plan.n = 0    # nothing else is computed
    call.is_summed = True
    x = in_type(x, call.type_number, True)
    set_operand(&call.plan, ROW_RESULT, x, &call.axes)
    return computed(&call, x, None)


cdef object read_targets(Call *call, object target, bint is_nll):
    """Class indices or probabilities. Sets the function."""
    cdef ndarray indices
    if not PyArray_CheckExact(target):
        call.is_refused = True
        return None
    if not is_nll and has_shape(target, &call.axes):
        call.operation.function = TARGETS_LOSS
        call.is_refused |= call.loss.ignore_index >= 0
        return read_operand(call, COMPANION, target)
    if not PyArray_ISINTEGER(<ndarray> target):
        call.is_refused = True
        return None
    call.operation.function = (
        NLL_LOSS if is_nll else INDEX_LOSS if call.label_smoothing > 0 else CLASS_LOSS
    )
    # Numbers too large for an int64 become negative, which ignore_index may be.
    call.least_target = 0 if PyArray_ISUNSIGNED(<ndarray> target) else INT64_MIN
    indices = in_type(target, NPY_INT64, True)
    call.arrays[TARGET] = <PyObject *> indices
    set_operand(&call.plan, TARGET, indices, &call.row_axes)
    call.is_refused |= not has_shape(indices, &call.row_axes)
    return indices


cdef bint is_any_infinite(const floating *x, npy_intp n) noexcept nogil:
    """Or NaN."""
    cdef bint is_any = False
    cdef npy_intp i
    for i in range(n):
        is_any |= not is_finite(x[i])
    return is_any


cdef object read_class_weights(Call *call, object weight):
    """One for each class."""
    cdef ndarray weights
    call.is_weighted = weight is not None
    if weight is None:
        weights = new_array(1, &call.plan.n, call.plan.n, call.type_number)
        PyArray_FillWithScalar(weights, 1.0)
    elif computed_type(weight) >= 0:
        if is_narrowed(call, weight):
            weights = narrowed(call, weight)
        else:
            weights = in_type(weight, call.type_number, True)
        call.is_refused |= weights.ndim != 1 or weights.shape[0] != call.plan.n
    else:
        call.is_refused = True
        return None
    call.arrays[CLASS_WEIGHTS] = <PyObject *> weights
    call.loss.class_weights = call.loss.finite_weights = weights.data
    if call.is_refused or not (
        is_any_infinite(<const float *> weights.data, call.plan.n)
        if call.type_number == NPY_FLOAT
        else is_any_infinite(<const double *> weights.data, call.plan.n)
    ):
        return weights
    finite = np.where(np.isfinite(weights), weights, weights.dtype.type(0))
    call.loss.finite_weights = (<ndarray> finite).data
    return weights, finite


cdef object read_row_weights(Call *call, object weight):
    """One for each row, in float64: those of an epoch may be small."""
    cdef ndarray weights
    if computed_type(weight) < 0 or not has_shape(weight, &call.row_axes):
        call.is_refused = True
        return None
    weights = in_type(weight, NPY_DOUBLE, True)
    call.arrays[WEIGHT] = <PyObject *> weights
    call.is_refused |= not set_operand(&call.plan, WEIGHT, weights, &call.row_axes)
    return weights


cpdef cross_entropy(
    logits, target, axis, weight, sample_weight, ignore_index, reduction, label_smoothing,
    temperature, where, bint has_grad=False, out=None, divisor=None, bint is_nll=False,
    bint has_hessian=False,
):
    """The loss, or with `has_grad` the loss and the gradient. A given divisor is what the gradient
    of losses that are not reduced is divided by. With `has_hessian` the gradient and the Hessian's
    diagonal."""
    cdef Call call
    cdef ndarray losses = None, grad = None, hessian = None
    cdef int overflow
    if type(axis) is not int or type(ignore_index) is not int or not (
        start_call(&call, CLASS_LOSS, logits, axis)
    ):
        return None
    call.loss.ignore_index = PyLong_AsLongLongAndOverflow(ignore_index, &overflow)
    call.label_smoothing = number_of(label_smoothing)
    call.is_refused |= overflow or not 0 <= call.label_smoothing <= 1
    call.is_refused |= not read_reduction(&call, reduction)
    temperature = read_temperature(&call, temperature)
    x = read_operand(&call, LOGITS, logits)
    target = read_targets(&call, target, is_nll)
    # Where all classes count, their weights are an array in any case.
    if weight is not None or call.operation.function in (INDEX_LOSS, TARGETS_LOSS):
        weight = read_class_weights(&call, weight)
    if sample_weight is not None:
        sample_weight = read_row_weights(&call, sample_weight)
    if where is not None:
        where = read_operand(&call, MASK, where)
    if divisor is not None:
        call.divisor = divisor
    if has_hessian:
        call.operation.has_grad = True
        grad = room_for(&call, RESULT, None, logits)
        hessian = room_for(&call, HESSIAN, None, x)
        return None if computed(&call, grad, None) is None else (grad, hessian)
    losses = room_for(&call, ROW_RESULT, None, None)
    if has_grad:
        call.operation.has_grad = True
        grad = room_for(&call, RESULT, out, logits)
    value = computed(&call, losses, None)
    return (value, delivered(grad, out)) if has_grad and value is not None else value


def nll_loss(log_probs, target, axis, weight, sample_weight, ignore_index, reduction):
    return cross_entropy(
        log_probs, target, axis, weight, sample_weight, ignore_index, reduction, 0.0, 1.0, None,
        False, None, None, True,
    )


def kl_divergence(
    logits, target_logits, axis, temperature, where, reduction, bint has_grad=False, out=None,
    divisor=None,
):
    """As `cross_entropy`."""
    cdef Call call
    cdef ndarray losses, grad = None
    if type(axis) is not int or not start_call(&call, KL_DIVERGENCE, logits, axis):
        return None
    call.is_refused = computed_type(target_logits) < 0 or not has_shape(target_logits, &call.axes)
    call.type_number = max(call.type_number, computed_type(target_logits))    # double is larger
    call.is_refused |= not read_reduction(&call, reduction)
    temperature = read_temperature(&call, temperature)
    x = read_operand(&call, LOGITS, logits)
    companion = read_operand(&call, COMPANION, target_logits)
    if where is not None:
        where = read_operand(&call, MASK, where)
    if divisor is not None:
        call.divisor = divisor
    losses = room_for(&call, ROW_RESULT, None, None)
    if has_grad:
        call.operation.has_grad = True
        grad = room_for(&call, RESULT, out, logits)
    value = computed(&call, losses, None)
    return (value, delivered(grad, out)) if has_grad and value is not None else value


def binary_cross_entropy(
    logits, target, weight, pos_weight, reduction, bint has_grad=False, out=None, divisor=None
):
    """As `cross_entropy`."""
    cdef Call call
    cdef Function function = (
        BINARY_CROSS_ENTROPY_AND_GRAD if has_grad else BINARY_CROSS_ENTROPY
    )
    cdef ndarray losses, grad = None
    if not start_call(&call, function, logits, ()) or not (
        PyArray_CheckExact(target) and has_shape(target, &call.axes)
    ):
        return None
    one = ONE_FLOAT if call.type_number == NPY_FLOAT else ONE_DOUBLE
    call.is_refused |= not read_reduction(&call, reduction)
    x = read_operand(&call, LOGITS, logits)
    target = read_operand(&call, COMPANION, target)
    weight = read_operand(&call, WEIGHT, one if weight is None else weight)
    pos_weight = read_operand(&call, POS_WEIGHT, one if pos_weight is None else pos_weight)
    if divisor is not None:
        call.divisor = divisor
    losses = room_for(&call, ROW_RESULT, None, None)
    if has_grad:
        grad = room_for(&call, RESULT, out, logits)
    value = computed(&call, losses, None)
    return (value, delivered(grad, out)) if has_grad and value is not None else value


# Settings

compiler = CSOFTMAX_COMPILER.decode()
openmp = bool(CSOFTMAX_OPENMP)


def keep_memory(size_t limit):
    """Of large results, so many bytes at most; whether this system's is kept at all."""
    global keep_limit
    keep_limit = limit
    return bool(CSOFTMAX_KEEPS_MEMORY)


def set_thread_limit(int limit):
    global thread_limit
    thread_limit = limit


def set_thread_limit_here(int limit):
    """For the calls of this Python thread; what it was before."""
    before = get_limit_here()
    if not set_limit_here(limit):
        raise MemoryError("no memory for a thread's own limit")
    return before


def thread_state():
    return {
        "threads": threads_of_call(),    # of the next call that has enough to do for them
        "openmp_limit": openmp_limit(),
        "helpers": helper_count,
        "helpers_pay": bool(helpers_pay()),    # whether that call would ask them
        "calls_helped": calls_helped,    # by a thread other than the caller's
    }


def cpus_of_thread():
    """How many this thread and its helpers may use; None where the system doesn't say."""
    return count_cpus() or None


def ask_always(bint wanted):
    """All threads at any cost, whatever the company: for tests and benchmarks."""
    global always
    always = wanted


def exp(double x, bint in_float):
    """The arithmetic by itself, for the tests that measure it: exp(x) for x <= 0."""
    cdef ExpParams of_zero
    if in_float:
        of_zero = exp_params[float](0, 1, False, 0)
        return exponential(<float> x, &of_zero, PLAIN)
    of_zero = exp_params[double](0, 1, False, 0)
    return exponential(x, &of_zero, PLAIN)


def log_1p_of(double x):
    """log(1 + x)."""
    cdef DoubleDouble log_sum = log_1p(from_double(x))
    return log_sum.hi + log_sum.lo
