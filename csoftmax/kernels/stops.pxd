"""What stops a call before its end. stops.h says how."""

from cpython.pystate cimport PyThreadState

cdef extern from "stops.h" nogil:
    ctypedef struct Stop "csoftmax_call":
        int reason

    const int GOES_ON, RAISED, OUT_OF_MEMORY

    void end "csoftmax_end"(Stop *call)
    PyThreadState *leave_python "csoftmax_leave_python"(Stop *call)
    void return_to_python "PyEval_RestoreThread"(PyThreadState *state)

    bint is_stopped "csoftmax_is_stopped"()
    bint must_stop "csoftmax_must_stop"()
    void *scratch_memory "csoftmax_scratch"(Py_ssize_t bytes)

    unsigned long main_thread "csoftmax_main_thread"

cdef extern from "stops.h":
    int begin "csoftmax_begin"(Stop *call) except -1

cdef extern from *:
    """
    static int csoftmax_raise_again(void) { return -1; }    /* what is set in Python */
    """
    int raise_again "csoftmax_raise_again"() except -1

cdef enum:
    # Threads share so many at a time: then what they get depends on how far they have come.
    NUMBERS_PER_SHARE = 33554432


cdef inline int raise_if_stopped(const Stop *call) except -1:
    if call.reason == GOES_ON:
        return 0
    if call.reason == RAISED:
        raise_again()
    if call.reason == OUT_OF_MEMORY:
        raise MemoryError("no memory for copies of rows, or for the sums of their parts")
    raise RuntimeError(
        "a signal's handler has forked this process during a call, whose other threads it lost"
    )
