"""Where results go. memory.h says what is kept of large ones."""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from numpy cimport PyArray_EMPTY, npy_intp

cdef extern from "memory.h":
    const bint CSOFTMAX_KEEPS_MEMORY
    size_t keep_limit "csoftmax_keep_limit"
    int prepare_memory "csoftmax_prepare_memory"() except -1
    PyObject *kept_array "csoftmax_kept_array"(
        int axes, npy_intp *shape, int type_number, size_t size
    )

    void *take_scratch "csoftmax_take_scratch"(size_t size) noexcept nogil
    void leave_scratch "csoftmax_leave_scratch"(void *scratch, size_t size) noexcept nogil

cdef enum:
    LEAST_KEPT = 1048576


cdef inline object new_result(int axes, npy_intp *shape, int type_number, npy_intp bytes):
    """An array that is not initialized."""
    cdef PyObject *kept = NULL
    if LEAST_KEPT <= bytes <= <npy_intp> keep_limit:
        kept = kept_array(axes, shape, type_number, bytes)
    if kept == NULL:
        return PyArray_EMPTY(axes, shape, type_number, False)
    array = <object> kept
    Py_DECREF(array)
    return array
