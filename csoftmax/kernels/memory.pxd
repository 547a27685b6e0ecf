"""Where results go. memory.h says what is kept of large ones."""

from cpython.pycapsule cimport PyCapsule_New
from numpy cimport PyArray_EMPTY, PyDataMem_Handler, PyDataMem_SetHandler, npy_intp

cdef extern from "memory.h":
    const bint CSOFTMAX_KEEPS_MEMORY
    size_t keep_limit "csoftmax_keep_limit"
    PyDataMem_Handler csoftmax_memory

    void *take_scratch "csoftmax_take_scratch"(size_t size) noexcept nogil
    void leave_scratch "csoftmax_leave_scratch"(void *scratch, size_t size) noexcept nogil

cdef enum:
    LEAST_KEPT = 1048576


cdef inline object new_result(int dimensions, npy_intp *shape, int type_number, npy_intp bytes):
    """An array that is not initialized."""
    cdef object numpys_own
    if not LEAST_KEPT <= bytes <= <npy_intp> keep_limit:
        return PyArray_EMPTY(dimensions, shape, type_number, False)
    numpys_own = PyDataMem_SetHandler(PyCapsule_New(&csoftmax_memory, "mem_handler", NULL))
    try:
        return PyArray_EMPTY(dimensions, shape, type_number, False)
    finally:
        PyDataMem_SetHandler(numpys_own)
