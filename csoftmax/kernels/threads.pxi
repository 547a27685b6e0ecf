"""What Python sees of threads.h."""

cdef extern from "threads.h" nogil:
    int64_t helper_count "csoftmax_helper_count"
    int64_t calls_helped "csoftmax_calls_helped"
    int64_t always "csoftmax_always"
    int64_t load "csoftmax_load"(int64_t *place)
    void store "csoftmax_store"(int64_t *place, int64_t value)


def set_thread_limit(int limit):
    set_limit(limit)


def set_thread_limit_here(int limit):
    """For the calls of this Python thread; what it was before."""
    global thread_limit_here
    before = thread_limit_here
    thread_limit_here = limit
    return before


def get_num_threads():
    return threads_of_call()


def thread_state():
    """OpenMP's limit; how many helpers there are; whether the next call would ask them."""
    return openmp_limit(), load(&helper_count), bool(helpers_pay())


def number_of_calls_helped():
    """By a thread other than the caller's, for tests that want to see some."""
    return load(&calls_helped)


def ask_always(bint wanted):
    """All threads at any cost, whatever the company: for tests and benchmarks."""
    store(&always, wanted)


set_up_threads()
