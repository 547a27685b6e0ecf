"""How many threads a call may use, and how they share it. threads.h says how that works."""

from libc.stdint cimport int64_t

cdef extern from "threads.h" nogil:
    # Computes units first to last of the work. Its functions have a last argument of type
    # `const floating *`, of no use but to make one for each type.
    ctypedef void (*Work "work_function")(
        void *work, Py_ssize_t first, Py_ssize_t last, int participant, const void *type_tag
    ) noexcept nogil

    void share(
        Work compute, void *work, Py_ssize_t units, Py_ssize_t grain, Py_ssize_t numbers,
        int threads
    )
    int threads_of_call()
    int openmp_limit()
    int helpers_pay()
    int count_cpus()
    int set_up_threads() except -1

    const bint CSOFTMAX_OPENMP
    int get_limit_here()
    bint set_limit_here(int limit)
    # These are read and written atomically.
    int64_t thread_limit, helper_count, calls_helped, always


cdef enum:
    # Below this many numbers a second thread costs more than it brings.
    NUMBERS_PER_THREAD = 12288


cdef inline int threads_for(Py_ssize_t numbers) noexcept nogil:
    """At most; `share` takes fewer where others compute, too, or helpers don't pay."""
    cdef Py_ssize_t worth = numbers // NUMBERS_PER_THREAD
    return <int> max(1, min(worth, threads_of_call())) if worth > 1 else 1
