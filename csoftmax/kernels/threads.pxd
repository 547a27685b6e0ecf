"""How many threads a call may use, and how they share it. threads.h says how that works."""

from libc.stdint cimport int64_t

cdef extern from "threads.h" nogil:
    # Computes units first to last of the work. Its functions have a last argument of type
    # `const floating *`, of no use but to make one for each type.
    ctypedef void (*Work "csoftmax_work")(
        void *work, Py_ssize_t first, Py_ssize_t last, int participant, const void *type_tag
    ) noexcept nogil

    void share "csoftmax_share"(
        Work compute, void *work, Py_ssize_t units, Py_ssize_t grain, Py_ssize_t numbers,
        int threads
    )
    int threads_of_call "csoftmax_threads"()
    int openmp_limit "csoftmax_openmp_limit"()
    int helpers_pay "csoftmax_helpers_pay"()
    void set_up_threads "csoftmax_set_up_threads"()

    const bint CSOFTMAX_OPENMP
    int thread_limit_here "csoftmax_thread_limit_here"
    int64_t thread_limit "csoftmax_thread_limit", helper_count "csoftmax_helper_count"
    int64_t calls_helped "csoftmax_calls_helped", always "csoftmax_always"
    int64_t load "csoftmax_load"(int64_t *place)
    void store "csoftmax_store"(int64_t *place, int64_t value)


cdef enum:
    # Below this many numbers a second thread costs more than it brings.
    NUMBERS_PER_THREAD = 12288


cdef inline int threads_for(Py_ssize_t numbers) noexcept nogil:
    """At most; `share` takes fewer where others compute, too, or helpers don't pay."""
    cdef Py_ssize_t worth = numbers // NUMBERS_PER_THREAD
    return <int> max(1, min(worth, threads_of_call())) if worth > 1 else 1
