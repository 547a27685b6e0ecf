"""How many threads a call may use, and how they share it. threads.h says how that works."""

from numpy cimport npy_intp


cdef extern from "threads.h" nogil:
    # Computes units first to last of the work. Its functions have a last argument of type
    # `const floating *`, of no use but to make one for each type.
    ctypedef void (*Work "csoftmax_work")(
        void *work, npy_intp first, npy_intp last, int participant, const void *type_tag
    ) noexcept nogil

    void share "csoftmax_share"(
        Work compute, void *work, npy_intp units, npy_intp grain, npy_intp numbers, int threads
    )
    int threads_of_call "csoftmax_threads"()
    int openmp_limit "csoftmax_openmp_limit"()
    int thread_limit_here "csoftmax_thread_limit_here"
    void set_limit "csoftmax_set_thread_limit"(int limit)
    int helpers_pay "csoftmax_helpers_pay"()
    void set_up_threads "csoftmax_set_up_threads"()


cdef enum:
    # Below this many numbers a second thread costs more than it brings.
    NUMBERS_PER_THREAD = 12288


cdef inline int threads_for(npy_intp numbers) noexcept nogil:
    """At most; `share` takes fewer where others compute, too, or helpers don't pay."""
    cdef npy_intp worth = numbers // NUMBERS_PER_THREAD
    return <int> max(1, min(worth, threads_of_call())) if worth > 1 else 1
