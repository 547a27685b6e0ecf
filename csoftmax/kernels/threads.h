/* Threads that share a call: a pool whose caller never waits for a helper that has not begun.

The work is cut into pieces. Everybody begins with a share of his own, whose memory is then in the
cache of his core at the next call, too, and goes on with what is left of the others'. So a helper
that comes late, because it had to be woken or because its core is busy, finds less to do, or
nothing: the caller takes its offer back and returns. It waits for pieces only that were begun.
Whoever computes a piece, its results are the same. docs/threads.md says why OpenMP would not do.

Whether helpers are asked at all is decided at each call: see `csoftmax_credit`. Nothing here knows
Python's thread states; its locks are semaphores that threads without one may use. */

#ifndef CSOFTMAX_THREADS_H
#define CSOFTMAX_THREADS_H

#include <Python.h>
#include <limits.h>
#include <math.h>
#include <pythread.h>
#if defined(_WIN32)
#include <windows.h>
#else
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>
#endif
#if defined(__linux__)
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif
#ifdef _OPENMP
#include <omp.h>
#define CSOFTMAX_OPENMP 1
#else
#define CSOFTMAX_OPENMP 0
#endif

#include "platform.h"

#define CSOFTMAX_MIN(a, b) ((a) < (b) ? (a) : (b))
#define CSOFTMAX_MAX(a, b) ((a) > (b) ? (a) : (b))

enum {    /* times in nanoseconds, sizes in numbers (logits) */
    CSOFTMAX_MOST_THREADS = 128,
    /* How long a helper waits for the next call before it sleeps, and a caller for the end of a
       helper's piece. To be woken takes a helper about as long. */
    CSOFTMAX_SPIN = 50000,
    CSOFTMAX_SHORT_SPIN = 2000,    /* where the last wait was in vain */
    /* So small that nobody waits long for the last one, so large that taking one costs nothing. */
    CSOFTMAX_LEAST_PIECE = 4096,
    CSOFTMAX_MOST_PIECE = 32768,
    CSOFTMAX_PIECES_OF_THREAD = 8,
    /* A helper that sleeps is woken for calls of this size, and for less where the last such call
       is no longer ago than it waits for the next: it will be awake for those that follow. */
    CSOFTMAX_WORTH_WAKING = 65536,
    /* See `csoftmax_credit`. The limit of debts is for processes that were stopped amid a call,
       which would be in debt for hours else. */
    CSOFTMAX_MOST_CREDIT = 16000000,
    CSOFTMAX_MOST_DEBT = 100000000,
    CSOFTMAX_PART_EARNED = 32,
    CSOFTMAX_REMEMBERED = 30000000,    /* so much time of calls alone says how they are disturbed */
    CSOFTMAX_RETRY = 1000000000        /* until threads are asked for again, if there were none */
};

/* A call must be so much faster with helpers than it would be alone. Without that, two processes on
   two cores each take the other's core for a helper, find that it nearly pays, and both lose. */
#define CSOFTMAX_LEAST_GAIN 0.125

/* Computes units `first` to `last`; `participant` is less than the number of threads, and nobody
   else has the same. `type_tag` is NULL: by its type, Cython makes one function for each. */
typedef void (*csoftmax_work)(
    void *work, Py_ssize_t first, Py_ssize_t last, int participant, const void *type_tag);

typedef struct {
    csoftmax_atomic next;    /* the first unit that nobody has taken */
    int64_t end;
    char apart[48];    /* a cache line each */
} csoftmax_range;

typedef struct {    /* a call's, on its caller's stack */
    csoftmax_work compute;
    void *work;
    Py_ssize_t piece;
    int threads;
    csoftmax_atomic participants;
    csoftmax_range ranges[CSOFTMAX_MOST_THREADS];
} csoftmax_job;

/* A helper's `state`, unless it has a job: then that is its address, and BUSY is added to it from
   when the helper has begun. */
enum { CSOFTMAX_IDLE = 0, CSOFTMAX_ASLEEP = 1, CSOFTMAX_BUSY = 1 };

typedef struct {
    csoftmax_atomic state;
    csoftmax_atomic thread;    /* what the system calls it, 0 while that is not known */
    PyThread_type_lock wake;    /* free for a moment when the helper is to wake up */
    int home, avoided_cpu;
    char apart[64];
} csoftmax_helper;

static csoftmax_helper csoftmax_helpers[CSOFTMAX_MOST_THREADS - 1];
static csoftmax_atomic csoftmax_helper_count, csoftmax_no_start_until;

static csoftmax_atomic csoftmax_thread_limit = 1;               /* of all calls */
CSOFTMAX_OF_THREAD int csoftmax_thread_limit_here = INT_MAX;    /* of those of a Python thread */
CSOFTMAX_OF_THREAD struct csoftmax_stop {    /* what stops them: stops.pxd */
    int out_of_memory;
    PyObject *raised;    /* by a signal's handler */
    Py_ssize_t numbers_since_signals;
} csoftmax_stop;

static csoftmax_atomic csoftmax_callers;     /* with work for several threads */
static csoftmax_atomic csoftmax_last_end;    /* of such a call */
static csoftmax_atomic csoftmax_calls_helped;
static csoftmax_atomic csoftmax_always;      /* all threads at any cost, for tests and benchmarks */

/* What calls with helpers have saved. One that takes longer than it would have taken alone, as it
   does where other processes or libraries use the cores, costs credit. With debts, calls are
   computed alone and pay back a part of their time. So in any company losses take no more than that
   part; what was saved, up to a limit, lets a machine that is disturbed at times keep helpers. */
static csoftmax_atomic csoftmax_credit;

/* What calls alone took of late, and would have taken undisturbed, all pieces as fast as the fastest
   one: 1 to 1 on a quiet machine. Beside others a call alone is disturbed, too, and so would have
   been one with helpers. */
static csoftmax_atomic csoftmax_time_alone = CSOFTMAX_REMEMBERED;
static csoftmax_atomic csoftmax_undisturbed_time_alone = CSOFTMAX_REMEMBERED;

static int csoftmax_openmp_limit(void) {
    int limit = INT_MAX;
#ifdef _OPENMP
    limit = omp_in_parallel() ? 1 : omp_get_max_threads();
#if _OPENMP >= 200805
    limit = CSOFTMAX_MIN(limit, omp_get_thread_limit());
#endif
#endif
    return limit;
}

static int csoftmax_threads(void) {
    int own = (int)csoftmax_load(&csoftmax_thread_limit), openmps = csoftmax_openmp_limit();
    own = CSOFTMAX_MIN(own, csoftmax_thread_limit_here);
    return CSOFTMAX_MIN(own, openmps);
}

static int csoftmax_helpers_pay(void) {
    return csoftmax_load(&csoftmax_always) || csoftmax_load(&csoftmax_credit) >= 0;
}

static inline int64_t csoftmax_now(void) {
#if defined(_WIN32)
    LARGE_INTEGER ticks, ticks_per_second;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&ticks_per_second);
    return (int64_t)((double)ticks.QuadPart * 1e9 / (double)ticks_per_second.QuadPart);
#else
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
#endif
}

/* Until `place` has another value, or the time is over. Whether it has another. */
static int csoftmax_spin_while(csoftmax_atomic *place, int64_t value, int64_t nanoseconds) {
    int64_t end = csoftmax_now() + nanoseconds;
    do {
        for (int i = 0; i < 16; i++) {
            if (csoftmax_load(place) != value) return 1;
            csoftmax_pause();
        }
    } while (csoftmax_now() < end);
    return 0;
}

/* Takes pieces until none is left, those of its home first. The number of units. `fastest` becomes
   the least time of a unit. */
static Py_ssize_t csoftmax_take_pieces(
    csoftmax_job *job, int participant, int home, double *fastest) {
    Py_ssize_t units = 0, first, last;
    int64_t begin = csoftmax_now(), end;
    for (int i = 0; i < job->threads; i++) {
        csoftmax_range *range = &job->ranges[(home + i) % job->threads];
        while (csoftmax_load(&range->next) < range->end
               && (first = (Py_ssize_t)csoftmax_add(&range->next, job->piece)) < range->end) {
            last = (Py_ssize_t)CSOFTMAX_MIN(first + job->piece, range->end);
            job->compute(job->work, first, last, participant, NULL);
            units += last - first;
            end = csoftmax_now();
            *fastest = CSOFTMAX_MIN(*fastest, (double)(end - begin) / (double)(last - first));
            begin = end;
        }
    }
    return units;
}

/* Signals are for the host's threads, but for those that say what this one has done. */
static void csoftmax_begin_thread(csoftmax_helper *helper) {
#if !defined(_WIN32)
    sigset_t signals;
    sigfillset(&signals);
    sigdelset(&signals, SIGBUS);
    sigdelset(&signals, SIGFPE);
    sigdelset(&signals, SIGILL);
    sigdelset(&signals, SIGSEGV);
    pthread_sigmask(SIG_SETMASK, &signals, NULL);
#endif
#if defined(__linux__)
    prctl(PR_SET_NAME, "csoftmax", 0, 0, 0);
    csoftmax_store(&helper->thread, syscall(SYS_gettid));
#endif
    csoftmax_set_default_environment();
}

static void csoftmax_help(void *argument) {
    csoftmax_helper *helper = argument;
    int64_t spin = CSOFTMAX_SPIN;
    csoftmax_begin_thread(helper);
    for (;;) {
        int64_t idle_since = csoftmax_now(), state;
        if (!csoftmax_spin_while(&helper->state, CSOFTMAX_IDLE, spin)
            && csoftmax_replace(&helper->state, CSOFTMAX_IDLE, CSOFTMAX_ASLEEP))
            PyThread_acquire_lock(helper->wake, WAIT_LOCK);
        spin = csoftmax_now() - idle_since < CSOFTMAX_SPIN ? CSOFTMAX_SPIN : CSOFTMAX_SHORT_SPIN;
        state = csoftmax_load(&helper->state);
        if (state != CSOFTMAX_IDLE
            && csoftmax_replace(&helper->state, state, state + CSOFTMAX_BUSY)) {
            csoftmax_job *job = (csoftmax_job *)(intptr_t)state;
            int participant = (int)csoftmax_add(&job->participants, 1);
            double fastest = HUGE_VAL;
            csoftmax_take_pieces(job, participant, helper->home % job->threads, &fastest);
            csoftmax_store(&helper->state, CSOFTMAX_IDLE);
        }
    }
}

/* Whether there is memory and a thread for it. */
static int csoftmax_start(csoftmax_helper *helper, int home) {
    csoftmax_helper fresh = {.wake = PyThread_allocate_lock(), .home = home, .avoided_cpu = -1};
    if (fresh.wake == NULL) return 0;
    PyThread_acquire_lock(fresh.wake, WAIT_LOCK);
    *helper = fresh;
    if (PyThread_start_new_thread(csoftmax_help, helper) != PYTHREAD_INVALID_THREAD_ID) return 1;
    PyThread_free_lock(fresh.wake);
    return 0;
}

/* So many helpers, or what can be had. */
static int csoftmax_grow(int wanted) {
    int64_t until = csoftmax_load(&csoftmax_no_start_until);
    int count = (int)csoftmax_load(&csoftmax_helper_count);
    if (count >= wanted || csoftmax_now() < until
        || !csoftmax_replace(&csoftmax_no_start_until, until, INT64_MAX))    /* nobody else now */
        return count;
    count = (int)csoftmax_load(&csoftmax_helper_count);
    while (count < wanted && csoftmax_start(&csoftmax_helpers[count], count + 1))
        csoftmax_store(&csoftmax_helper_count, ++count);
    csoftmax_store(&csoftmax_no_start_until, count < wanted ? csoftmax_now() + CSOFTMAX_RETRY : 0);
    return count;
}

/* Linux may wake a thread on the core of the one that wakes it, although another is idle: on two
   cores of which one computes it does. The helper would take turns with its caller. So the caller's
   core is taken from its mask, which has what the caller's has otherwise. */
static void csoftmax_wake(csoftmax_helper *helper) {
#if defined(__linux__)
    cpu_set_t mask[8192 / CPU_SETSIZE];    /* as many as Linux can have */
    pid_t thread = (pid_t)csoftmax_load(&helper->thread);
    size_t size = sizeof(mask);
    int cpu = sched_getcpu();
    if (thread && cpu >= 0 && cpu != helper->avoided_cpu && !sched_getaffinity(0, size, mask)) {
        CPU_CLR_S((size_t)cpu, size, mask);
        if (CPU_COUNT_S(size, mask) > 0 && !sched_setaffinity(thread, size, mask))
            helper->avoided_cpu = cpu;
    }
#endif
    PyThread_release_lock(helper->wake);
}

/* Offers a job to so many of the helpers that are idle, in `asked`; how many there were. */
static int csoftmax_ask(
    csoftmax_job *job, csoftmax_helper **asked, int wanted, int helpers, int may_wake) {
    int count = 0;
    for (int i = 0; i < helpers && count < wanted; i++) {
        csoftmax_helper *helper = &csoftmax_helpers[i];
        int64_t state = csoftmax_load(&helper->state);
        if ((state != CSOFTMAX_IDLE && (state != CSOFTMAX_ASLEEP || !may_wake))
            || !csoftmax_replace(&helper->state, state, (intptr_t)job))
            continue;
        if (state == CSOFTMAX_ASLEEP)
            csoftmax_wake(helper);
        asked[count++] = helper;
    }
    return count;
}

/* Takes an offer back, or waits until the helper, which has begun, is done. */
static void csoftmax_dismiss(csoftmax_job *job, csoftmax_helper *helper) {
    int64_t offered = (intptr_t)job;
    if (csoftmax_replace(&helper->state, offered, CSOFTMAX_IDLE)) return;
    /* If it takes longer, something else has the helper's core. It may be moved to this one. */
    while (!csoftmax_spin_while(&helper->state, offered + CSOFTMAX_BUSY, CSOFTMAX_SPIN))
#if defined(_WIN32)
        Sleep(1);
#else
        usleep(CSOFTMAX_SPIN / 1000);
#endif
}

/* What the time of a call says; `undisturbed` is what it would have taken alone then. One of two
   callers at once may lose what it has earned, which does no harm. */
static void csoftmax_account(int was_shared, int64_t elapsed, double undisturbed) {
    double alone = (double)csoftmax_load(&csoftmax_time_alone);
    double undisturbed_alone = (double)csoftmax_load(&csoftmax_undisturbed_time_alone);
    double kept = CSOFTMAX_MAX(0, 1 - (double)elapsed / CSOFTMAX_REMEMBERED);
    int64_t credit = csoftmax_load(&csoftmax_credit);
    if (was_shared) {
        alone *= undisturbed / (undisturbed_alone + 1);
        credit += (int64_t)(alone * (1 - CSOFTMAX_LEAST_GAIN)) - elapsed;
    } else {
        csoftmax_store(&csoftmax_time_alone, (int64_t)(kept * alone + (double)elapsed));
        csoftmax_store(
            &csoftmax_undisturbed_time_alone, (int64_t)(kept * undisturbed_alone + undisturbed));
        if (credit >= 0) return;
        credit = CSOFTMAX_MIN(0, credit + elapsed / CSOFTMAX_PART_EARNED);
    }
    credit = CSOFTMAX_MIN(credit, CSOFTMAX_MOST_CREDIT);
    csoftmax_store(&csoftmax_credit, CSOFTMAX_MAX(credit, -CSOFTMAX_MOST_DEBT));
}

/* How many units a piece is: whole grains, as far as there are enough of them for all threads. */
static Py_ssize_t csoftmax_piece(
    Py_ssize_t units, Py_ssize_t grain, Py_ssize_t numbers, int threads) {
    Py_ssize_t piece = numbers / (threads * CSOFTMAX_PIECES_OF_THREAD);
    piece = CSOFTMAX_MAX(CSOFTMAX_LEAST_PIECE, CSOFTMAX_MIN(piece, CSOFTMAX_MOST_PIECE));
    piece = (Py_ssize_t)((double)piece * (double)units / (double)numbers);
    piece = piece < grain ? grain : (piece + grain - 1) / grain * grain;
    return CSOFTMAX_MIN(piece, units / threads);
}

/* `units` of work, altogether so many numbers, by up to so many threads, in pieces of whole grains,
   each of so many units. */
static void csoftmax_share(
    csoftmax_work compute, void *work, Py_ssize_t units, Py_ssize_t grain, Py_ssize_t numbers,
    int threads) {
    int always = (int)csoftmax_load(&csoftmax_always), may_wake, limit, helpers, count;
    Py_ssize_t pieces, own;
    int64_t begin, end;
    double fastest = HUGE_VAL;
    csoftmax_helper *asked[CSOFTMAX_MOST_THREADS - 1];
    csoftmax_job job;

    threads = (int)CSOFTMAX_MIN(units, CSOFTMAX_MIN(threads, CSOFTMAX_MOST_THREADS));
    if (threads <= 1) {
        compute(work, 0, units, 0, NULL);
        return;
    }
    limit = csoftmax_threads() / (int)(csoftmax_add(&csoftmax_callers, 1) + 1);
    if (!always)
        threads = CSOFTMAX_MAX(1, CSOFTMAX_MIN(threads, limit));
    if (!csoftmax_helpers_pay())
        threads = 1;
    helpers = threads > 1 ? csoftmax_grow(threads - 1) : 0;

    begin = csoftmax_now();
    may_wake = always || numbers >= CSOFTMAX_WORTH_WAKING
        || begin - csoftmax_load(&csoftmax_last_end) < CSOFTMAX_SPIN;
    job.compute = compute;
    job.work = work;
    job.piece = csoftmax_piece(units, grain, numbers, threads);
    job.threads = threads;
    job.participants = 1;
    pieces = units / job.piece;
    for (int i = 0; i < threads; i++) {
        job.ranges[i].next = pieces * i / threads * job.piece;
        job.ranges[i].end = i == threads - 1 ? units : pieces * (i + 1) / threads * job.piece;
    }
    count = csoftmax_ask(&job, asked, threads - 1, helpers, may_wake);
    own = csoftmax_take_pieces(&job, 0, 0, &fastest);
    for (int i = 0; i < count; i++)
        csoftmax_dismiss(&job, asked[i]);
    csoftmax_add(&csoftmax_calls_helped, csoftmax_load(&job.participants) > 1);
    end = csoftmax_now();
    if (own > 0)    /* or the helpers were so fast that nothing is known */
        csoftmax_account(count > 0, end - begin, fastest * (double)units);
    csoftmax_store(&csoftmax_last_end, end);
    csoftmax_add(&csoftmax_callers, -1);
}

#if !defined(_WIN32)
/* A fork's child has none of its parent's threads. */
static void csoftmax_forget_helpers(void) {
    csoftmax_helper_count = csoftmax_no_start_until = csoftmax_callers = 0;
}
#define csoftmax_set_up_threads() ((void)pthread_atfork(NULL, NULL, csoftmax_forget_helpers))
#else
#define csoftmax_set_up_threads() ((void)0)
#endif

#endif
