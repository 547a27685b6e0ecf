"""What stops a call before its end: memory that could not be had, or a signal.

A loop can't raise. It leaves a mark for its thread, the loops that follow within the call do
nothing, and the function that Python called asks when they are over (`raise_if_stopped`). Python
runs a signal's handler between two of its own instructions, so Ctrl-C would wait for the end of a
call. That is why handlers are run here too, between two shares of the rows.
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

from csoftmax.kernels.memory cimport leave_scratch, take_scratch

cdef extern from * nogil:
    """
    static __thread struct stop {
        int out_of_memory;
        PyObject *raised;    /* by a signal's handler */
        Py_ssize_t numbers_since_signals;
    } stop;    /* of a thread */
    """
    struct Stop "stop":
        bint out_of_memory
        PyObject *raised
        Py_ssize_t numbers_since_signals
    Stop stop

cdef enum:
    # A tenth of a second, or less. Of rows in memory that threads share, so that the end of a
    # share, where they wait for each other, doesn't count.
    NUMBERS_PER_SHARE = 33554432


cdef inline bint is_stopped() noexcept nogil:
    return stop.out_of_memory or stop.raised != NULL


cdef inline bint must_stop(Py_ssize_t numbers) noexcept nogil:
    """Asked when so many numbers more have been computed, by the thread that the call came in."""
    stop.numbers_since_signals += numbers
    if stop.numbers_since_signals >= NUMBERS_PER_SHARE and not is_stopped():
        stop.numbers_since_signals = 0
        with gil:
            try:
                PyErr_CheckSignals()
            except BaseException as error:
                Py_INCREF(error)
                stop.raised = <PyObject *> error
    return is_stopped()


cdef inline void *scratch_memory(Py_ssize_t bytes) noexcept nogil:
    """NULL and a mark if there is none."""
    cdef void *scratch = take_scratch(bytes)
    if scratch == NULL:
        stop.out_of_memory = True
    return scratch


cdef inline int raise_if_stopped() except -1:
    if stop.raised != NULL:
        error = <object> stop.raised
        Py_DECREF(error)
        stop.raised = NULL
        raise error
    if stop.out_of_memory:
        stop.out_of_memory = False
        raise MemoryError("no memory for copies of rows, or for the sums of their parts")
    return 0
