"""The whole of one build: each instruction set's module consists of this."""

from cython cimport floating
from cpython.exc cimport PyErr_CheckSignals
from cpython.float cimport PyFloat_Check
from cpython.long cimport PyLong_AsLongAndOverflow, PyLong_AsLongLongAndOverflow, PyLong_Check
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_New
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.unicode cimport PyUnicode_CheckExact
from libc.float cimport DBL_MAX, FLT_MAX
from libc.math cimport INFINITY, NAN, fabs, floor
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from numpy cimport (
    NPY_BOOL, NPY_BYTE, NPY_CORDER, NPY_DOUBLE, NPY_FLOAT, NPY_INT, NPY_INT64, NPY_KEEPORDER,
    NPY_LONGDOUBLE, NPY_ORDER, NPY_ULONG, NPY_ULONGLONG, NPY_USHORT, PyArray_BYTES,
    PyArray_CheckExact, PyArray_CopyInto, PyArray_DescrFromType, PyArray_DIM, PyArray_DIMS,
    PyArray_EMPTY, PyArray_FillWithScalar, PyArray_GETCONTIGUOUS, PyArray_IS_C_CONTIGUOUS,
    PyArray_ISALIGNED, PyArray_ISNOTSWAPPED, PyArray_ISWRITEABLE, PyArray_ITEMSIZE,
    PyArray_NDIM, PyArray_NewCopy, PyArray_SAMESHAPE, PyArray_SIZE, PyArray_STRIDE,
    PyArray_STRIDES, PyArray_TYPE, PyDataMem_Handler, PyDataMem_SetHandler, dtype, import_array,
    ndarray, npy_intp,
)

from csoftmax.kernels.arithmetic cimport (
    SHIFTED, TEMPERED, UNSHIFTED, DoubleBits, FloatBits, Kind, Reduction, Sum, exact_fma,
    exactly, exponential, log_1p, log_1p_up_to_one, multiply_add, plus, power_of_two,
    reciprocal, reduction, times, two_sum, value_or_zero,
)
from csoftmax.kernels.batches cimport (
    MAX_BATCH, Batch, exponentials_below_maxima, exponentials_of_columns, reduction_of, row_of,
    set_maxima_of_columns, start_batch, whole_lanes,
)
from csoftmax.kernels.lanes cimport FLOAT_LANES, LANE_BYTES, LaneSums
from csoftmax.kernels.plan cimport (
    COMPANION, LOGITS, MAX_LEVELS, POS_WEIGHT, RESULT, ROLES, ROW_RESULT, TARGET, TEMPERATURE,
    WEIGHT, Plan, collapse, locate, set_number, set_operand, start_plan,
)
from csoftmax.kernels.rows cimport (
    CHUNK_BYTES, FLOAT_CHUNK, Chunk, Row, combine_chunks, exponentials,
    exponentials_in_two_sweeps, finish_guessed, guess_reduction, has_nan, in_units_of_row,
    log_sum_of_row, sum_of_row, sweep_guessed,
)
from csoftmax.kernels.threads cimport (
    NUMBERS_PER_THREAD, Work, helpers_pay, openmp_limit, set_limit, set_up_threads, share,
    thread_limit_here, threads_for, threads_of_call,
)
from csoftmax.kernels.weighing cimport (
    DISTANCE_UNIT, PER_DISTANCE_UNIT, Coefficients, Distances, add_gradient, add_product, add_term,
    add_weighted, coefficient, distance, finished, from_higher, over_temperature, start_sums,
    sum_of_gradients, weigh_by_coefficients, weigh_by_exponentials,
)

from numbers import Real

import numpy as np

cdef extern from * nogil:
    """
    #ifdef _OPENMP
    #define CSOFTMAX_OPENMP 1
    #else
    #define CSOFTMAX_OPENMP 0
    #endif

    #if defined(__clang__)
    #define CSOFTMAX_COMPILER "Clang " __clang_version__
    #elif defined(__GNUC__)
    #define CSOFTMAX_COMPILER "GCC " __VERSION__
    #elif defined(_MSC_VER)
    #define CSOFTMAX_TEXT_OF(number) #number
    #define CSOFTMAX_TEXT(number) CSOFTMAX_TEXT_OF(number)
    #define CSOFTMAX_COMPILER "MSVC " CSOFTMAX_TEXT(_MSC_FULL_VER)
    #else
    #define CSOFTMAX_COMPILER "unknown"
    #endif
    """
    const char *CSOFTMAX_COMPILER
    bint CSOFTMAX_OPENMP


import_array()

compiler = CSOFTMAX_COMPILER.decode()
openmp = bool(CSOFTMAX_OPENMP)

include "threads.pxi"
include "operation.pxi"
include "environment.pxi"
include "stops.pxi"
include "operations.pxi"
include "copies.pxi"
include "losses.pxi"
include "masks.pxi"
include "loops.pxi"
include "products.pxi"
include "elementwise.pxi"
include "memory.pxi"
include "entry.pxi"
