"""The whole of one build: each instruction set's module consists of this."""

from cython cimport floating
from cython.parallel cimport prange
from libc.float cimport DBL_MAX, FLT_MAX
from libc.math cimport INFINITY, NAN, fabs
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from numpy cimport (
    NPY_DOUBLE, NPY_FLOAT, NPY_INT64, PyUFunc_FromFuncAndDataAndSignature, PyUFunc_None,
    PyUFuncGenericFunction, import_array, import_ufunc, npy_intp,
)

from csoftmax.kernels.arithmetic cimport (
    TEMPERED, UNSHIFTED, Kind, Reduction, Sum, exact_fma, exactly, exponential, log_1p, multiply_add,
    plus, reciprocal, reduction, times,
)
from csoftmax.kernels.rows cimport (
    FLOAT_CHUNK, Row, exponentials, exponentials_in_one_sweep, fits_chunk, log_sum_of_row,
    sum_of_row,
)

cdef extern from * nogil:
    """
    #include <fenv.h>

    #ifdef _OPENMP
    #include <omp.h>
    #define csoftmax_max_threads() omp_get_max_threads()
    #define CSOFTMAX_OPENMP 1
    #else
    #define csoftmax_max_threads() 1
    #define CSOFTMAX_OPENMP 0
    #endif

    #if defined(_MSC_VER)
    static __declspec(thread) int csoftmax_out_of_memory = 0;
    #else
    static __thread int csoftmax_out_of_memory = 0;
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
    int FE_ALL_EXCEPT
    int feclearexcept(int)
    int csoftmax_max_threads()
    bint csoftmax_out_of_memory
    const char *CSOFTMAX_COMPILER
    bint CSOFTMAX_OPENMP


import_array()
import_ufunc()

compiler = CSOFTMAX_COMPILER.decode()
openmp = bool(CSOFTMAX_OPENMP)

include "operations.pxi"
include "gufuncs.pxi"
