"""The whole of one build: each instruction set's module consists of this."""

from cython cimport floating
from cpython.long cimport PyLong_AsLongAndOverflow, PyLong_AsLongLongAndOverflow
from cpython.mem cimport PyMem_RawFree
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_CheckExact
from libc.math cimport INFINITY, NAN, fabs, floor, frexp, ldexp, rint
from libc.stdint cimport INT64_MIN, int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport llabs
from libc.string cimport memcpy, memset
from numpy cimport (
    NPY_BOOL, NPY_DOUBLE, NPY_FLOAT, NPY_FLOAT16, NPY_INT, NPY_INT64, NPY_ULONGLONG, NPY_USHORT, PyArray_BYTES, PyArray_CheckExact, PyArray_CompareLists, PyArray_CopyInto,
    PyArray_DIM, PyArray_DIMS, PyArray_FillWithScalar,
    PyArray_IS_C_CONTIGUOUS, PyArray_ISBEHAVED_RO, PyArray_ISFLOAT, PyArray_ISINTEGER,
    PyArray_ISUNSIGNED, PyArray_ISWRITEABLE, PyArray_ITEMSIZE, PyArray_NDIM, PyArray_SIZE,
    PyArray_STRIDE, PyArray_STRIDES, PyArray_TYPE, import_array, ndarray, npy_intp,
)

from csoftmax.kernels.arithmetic cimport (
    GENERAL, LN2_HI_DOUBLE, LN2_LO_DOUBLE, LOG2_E, PLAIN, DoubleBits, DoubleDouble, ExpParams,
    FloatBits, dd_add, dd_mul, exact_fma, exp_dd, exp_params, exponential, from_double,
    largest_unshifted, log_1p, power_of_two, two_sum,
)
from csoftmax.kernels.formulas cimport (
    WeightedSums, binary_cross_entropy_of, from_higher, is_finite, sigmoid_of,
    sum_of_exponentials,
)
from csoftmax.kernels.functions cimport (
    set_entropy, set_log_softmax, set_logsumexp, set_loss, set_softmax, set_vjp, sum_of_row,
    take_largest_out, use_sums_of_others, weighted_sums_of_row,
)
from csoftmax.kernels.lanes cimport (
    FLOAT_LANES, LANE_BYTES, LaneSums, add_term, clear, finished, whole_lanes,
)
from csoftmax.kernels.passes cimport (
    BY_EXPONENTIALS, BY_OFFSETS, BY_TARGETS, COLUMNS, GRADS, GRADS_OF_OFFSETS, LOG_PROBABILITIES,
    LOG_PROBABILITY_GRADS, LOG_SOFTMAX_VJPS, MAX_ROWS, NO_VALUES, NOTHING_WEIGHED, OTHERS,
    OTHERS_KEPT, PROBABILITIES, PROBABILITY_GRADS, ROWS, SOFTMAX_VJPS, Layout, Tile, Values, View,
    Weighing, find_maxima_of_columns, find_maxima_of_rows, in_type_of, lanes_of, set_params,
    sum_exponentials, weigh, write,
)
from csoftmax.kernels.environment cimport (
    CSOFTMAX_COMPILER, FE_ALL_EXCEPT, csoftmax_set_environment, enter_environment, feclearexcept,
    fetestexcept,
)
from csoftmax.kernels.memory cimport CSOFTMAX_KEEPS_MEMORY, keep_limit, new_result
from csoftmax.kernels.plan cimport (
    COMPANION, LOGITS, POS_WEIGHT, RESULT, ROLES, ROW_RESULT, TARGET, TEMPERATURE, WEIGHT, Axes,
    Plan, collapse, locate, set_operand, start_plan,
)
from csoftmax.kernels.stops cimport (
    NUMBERS_PER_SHARE, is_stopped, must_stop, raise_if_stopped, scratch_memory,
)
from csoftmax.kernels.threads cimport (
    CSOFTMAX_OPENMP, NUMBERS_PER_THREAD, Work, always, calls_helped, helper_count, helpers_pay,
    load, openmp_limit, set_up_threads, share, store, thread_limit, thread_limit_here, threads_for,
    threads_of_call,
)

import numpy as np

import_array()
set_up_threads()

include "copies.pxi"
include "engine.pxi"
include "elementwise.pxi"
include "entry.pxi"

compiler = CSOFTMAX_COMPILER.decode()
openmp = bool(CSOFTMAX_OPENMP)


def keep_memory(size_t limit):
    """Of large results, so many bytes at most; whether this system's is kept at all."""
    global keep_limit
    keep_limit = limit
    return bool(CSOFTMAX_KEEPS_MEMORY)


def set_thread_limit(int limit):
    store(&thread_limit, limit)


def set_thread_limit_here(int limit):
    """For the calls of this Python thread; what it was before."""
    global thread_limit_here
    before, thread_limit_here = thread_limit_here, limit
    return before


def thread_state():
    return {
        "threads": threads_of_call(),    # of the next call that has enough to do for them
        "openmp_limit": openmp_limit(),
        "helpers": load(&helper_count),
        "helpers_pay": bool(helpers_pay()),    # whether that call would ask them
        "calls_helped": load(&calls_helped),    # by a thread other than the caller's
    }


def ask_always(bint wanted):
    """All threads at any cost, whatever the company: for tests and benchmarks."""
    store(&always, wanted)
