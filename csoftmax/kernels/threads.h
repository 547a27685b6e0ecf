/* Threads that share a call: a pool whose caller never waits for a helper that has not begun.

The work is cut into pieces. Everybody begins with a share of his own, whose memory is then in the
cache of his core at the next call, too, and goes on with what is left of the others'. So a helper
that comes late, because it had to be woken or because its core is busy, finds less to do, or
nothing: the caller takes its offer back and returns. It waits for pieces only that were begun.
Whoever computes a piece, its results are the same.

OpenMP has no such thing: all threads of a team must have come before a parallel region ends, which
takes a time slice where one of their cores is busy. docs/threads.md has the measurements.

Whether helpers are asked at all is decided at each call: see `csoftmax_credit`. Nothing here knows
Python's thread states; its locks are semaphores that threads without one may use. */

#ifndef CSOFTMAX_THREADS_H
#define CSOFTMAX_THREADS_H

#include <Python.h>
#include <limits.h>
#include <math.h>
#include <pythread.h>
#include <stdint.h>
#include <stdlib.h>

#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(_WIN32)
#include <windows.h>
#else
#include <pthread.h>
#include <signal.h>
#include <time.h>
#endif
#if defined(__linux__)
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "environment.h"

#if defined(_MSC_VER)
#define CSOFTMAX_OF_THREAD static __declspec(thread)
#else
#define CSOFTMAX_OF_THREAD static __thread
#endif

/* Atomic numbers that can hold a pointer. */

#if defined(_MSC_VER) && !defined(__clang__)
typedef volatile LONG64 csoftmax_atomic;
#define csoftmax_load(place) InterlockedCompareExchange64(place, 0, 0)
#define csoftmax_store(place, value) ((void)InterlockedExchange64(place, value))
#define csoftmax_add(place, value) InterlockedExchangeAdd64(place, value)
#define csoftmax_replace(place, expected, value) \
    (InterlockedCompareExchange64(place, value, expected) == (expected))
#else
typedef int64_t csoftmax_atomic;
#define csoftmax_load(place) __atomic_load_n(place, __ATOMIC_ACQUIRE)
#define csoftmax_store(place, value) __atomic_store_n(place, value, __ATOMIC_RELEASE)
#define csoftmax_add(place, value) __atomic_fetch_add(place, value, __ATOMIC_ACQ_REL)
static inline int csoftmax_replace(csoftmax_atomic *place, int64_t expected, int64_t value)
{
    return __atomic_compare_exchange_n(
        place, &expected, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}
#endif

enum {
    CSOFTMAX_MOST_THREADS = 128,
    CSOFTMAX_CACHE_LINE = 64,

    /* How long a helper waits for the next call before it sleeps, and a caller for the end of a
       helper's piece, in nanoseconds. To be woken takes a helper about as long. */
    CSOFTMAX_SPIN = 50000,
    /* The same where the last wait was in vain. */
    CSOFTMAX_SHORT_SPIN = 2000,

    /* What pieces are made of, in numbers (logits): so few that nobody waits long for the last one,
       and so many that taking one costs nothing beside it. */
    CSOFTMAX_LEAST_PIECE = 4096,
    CSOFTMAX_MOST_PIECE = 32768,
    CSOFTMAX_PIECES_OF_THREAD = 8,
    /* A helper that sleeps is woken for calls of so many numbers, and for less where the last such
       call is no longer ago than it waits for the next: it will be awake for those that follow. */
    CSOFTMAX_WORTH_WAKING = 65536,

    /* See `csoftmax_credit`; times in nanoseconds. The limit of debts is for processes that were
       stopped amid a call, which would be in debt for hours else. */
    CSOFTMAX_MOST_CREDIT = 16000000,
    CSOFTMAX_MOST_DEBT = 100000000,
    CSOFTMAX_PART_EARNED = 32,
    CSOFTMAX_REMEMBERED = 30000000,    /* how much time of calls alone says how they are disturbed */

    /* Until threads are asked for again, if there were none, in nanoseconds. */
    CSOFTMAX_RETRY = 1000000000
};

/* A call must be so much faster with helpers than it would be alone. Without that, two processes on
   two cores each take the other's core for a helper, find that it nearly pays, and both lose. */
#define CSOFTMAX_LEAST_GAIN 0.125

static inline int64_t csoftmax_now(void)
{
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

static void csoftmax_sleep(void)
{
#if defined(_WIN32)
    Sleep(1);
#else
    struct timespec time = {0, CSOFTMAX_SPIN};
    nanosleep(&time, NULL);
#endif
}

static inline void csoftmax_pause(void)
{
#if defined(__SSE2__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
    __asm__ volatile("isb");
#endif
}

/* Until `place` has another value, or the time is over. Whether it has another. */
static int csoftmax_spin_while(csoftmax_atomic *place, int64_t value, int64_t nanoseconds)
{
    int64_t end = csoftmax_now() + nanoseconds;
    int i;
    do {
        for (i = 0; i < 16; i++) {
            if (csoftmax_load(place) != value) {
                return 1;
            }
            csoftmax_pause();
        }
    } while (csoftmax_now() < end);
    return 0;
}


/* Limits on the number of threads. */

static csoftmax_atomic csoftmax_thread_limit = 1;               /* of all calls */
CSOFTMAX_OF_THREAD int csoftmax_thread_limit_here = INT_MAX;    /* of those of a Python thread */

static void csoftmax_set_thread_limit(int limit)
{
    csoftmax_store(&csoftmax_thread_limit, limit);
}

/* INT_MAX if OpenMP isn't there. */
static int csoftmax_openmp_limit(void)
{
    int limit = INT_MAX;
#ifdef _OPENMP
    limit = omp_in_parallel() ? 1 : omp_get_max_threads();
#if _OPENMP >= 200805
    if (limit > omp_get_thread_limit()) {
        limit = omp_get_thread_limit();
    }
#endif
#endif
    return limit;
}

static int csoftmax_threads(void)
{
    int limit = (int)csoftmax_load(&csoftmax_thread_limit), openmp_limit = csoftmax_openmp_limit();
    if (limit > csoftmax_thread_limit_here) {
        limit = csoftmax_thread_limit_here;
    }
    return limit < openmp_limit ? limit : openmp_limit;
}


/* Helpers. */

/* Computes units `first` to `last`; `participant` is less than the number of threads, and nobody
   else has the same. `type_tag` is NULL: by its type, Cython makes one function for each. */
typedef void (*csoftmax_work)(
    void *work, Py_ssize_t first, Py_ssize_t last, int participant, const void *type_tag);

typedef struct {
    csoftmax_atomic next;    /* the first unit that nobody has taken */
    int64_t end;
    char apart[CSOFTMAX_CACHE_LINE - 2 * sizeof(int64_t)];
} csoftmax_range;

/* A call's, on its caller's stack. */
typedef struct {
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
    int home;
    int avoided_cpu;
} csoftmax_helper;

static csoftmax_helper *csoftmax_helpers[CSOFTMAX_MOST_THREADS - 1];
static csoftmax_atomic csoftmax_helper_count;
static csoftmax_atomic csoftmax_is_growing;
static csoftmax_atomic csoftmax_no_thread_until;

/* Takes pieces until none is left, those of its home first. The number of units. `fastest` becomes
   the least time of a unit, in nanoseconds. */
static Py_ssize_t csoftmax_take_pieces(
    csoftmax_job *job, int participant, int home, double *fastest)
{
    Py_ssize_t units = 0, first, last;
    int64_t begin = csoftmax_now(), end;
    int i;
    for (i = 0; i < job->threads; i++) {
        csoftmax_range *range = &job->ranges[(home + i) % job->threads];
        while (csoftmax_load(&range->next) < range->end) {
            first = (Py_ssize_t)csoftmax_add(&range->next, job->piece);
            if (first >= range->end) {
                break;
            }
            last = first + job->piece < range->end ? first + job->piece : (Py_ssize_t)range->end;
            job->compute(job->work, first, last, participant, NULL);
            units += last - first;
            end = csoftmax_now();
            if ((double)(end - begin) < *fastest * (double)(last - first)) {
                *fastest = (double)(end - begin) / (double)(last - first);
            }
            begin = end;
        }
    }
    return units;
}

/* Signals are for the host's threads, but for those that say what this one has done. */
static void csoftmax_begin_thread(csoftmax_helper *helper)
{
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

static void csoftmax_help(void *argument)
{
    csoftmax_helper *helper = argument;
    int64_t spin = CSOFTMAX_SPIN;
    csoftmax_begin_thread(helper);
    for (;;) {
        int64_t idle_since = csoftmax_now(), state;
        if (!csoftmax_spin_while(&helper->state, CSOFTMAX_IDLE, spin)
            && csoftmax_replace(&helper->state, CSOFTMAX_IDLE, CSOFTMAX_ASLEEP)) {
            PyThread_acquire_lock(helper->wake, WAIT_LOCK);
        }
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

/* One more, or NULL where there is no memory or no thread to be had. */
static csoftmax_helper *csoftmax_new_helper(int home)
{
    csoftmax_helper *helper = calloc(1, sizeof(*helper));
    if (helper == NULL) {
        return NULL;
    }
    helper->home = home;
    helper->avoided_cpu = -1;
    helper->wake = PyThread_allocate_lock();
    if (helper->wake != NULL) {
        PyThread_acquire_lock(helper->wake, WAIT_LOCK);
        if (PyThread_start_new_thread(csoftmax_help, helper) != PYTHREAD_INVALID_THREAD_ID) {
            return helper;
        }
        PyThread_free_lock(helper->wake);
    }
    free(helper);
    return NULL;
}

/* So many helpers, or what can be had. */
static int csoftmax_grow(int wanted)
{
    int count = (int)csoftmax_load(&csoftmax_helper_count);
    if (count >= wanted || csoftmax_now() < csoftmax_load(&csoftmax_no_thread_until)
        || !csoftmax_replace(&csoftmax_is_growing, 0, 1)) {
        return count;
    }
    for (count = (int)csoftmax_load(&csoftmax_helper_count); count < wanted; count++) {
        csoftmax_helpers[count] = csoftmax_new_helper(count + 1);
        if (csoftmax_helpers[count] == NULL) {
            csoftmax_store(&csoftmax_no_thread_until, csoftmax_now() + CSOFTMAX_RETRY);
            break;
        }
        csoftmax_store(&csoftmax_helper_count, count + 1);
    }
    csoftmax_store(&csoftmax_is_growing, 0);
    return count;
}

/* Linux may wake a thread on the core of the one that wakes it, although another is idle: on two
   cores of which one computes it does. The helper would take turns with its caller. So the caller's
   core is taken from its mask, which has what the caller's has otherwise. */
static void csoftmax_keep_off_this_cpu(csoftmax_helper *helper)
{
#if defined(__linux__)
    enum { BITS = 8 * sizeof(unsigned long), WORDS = 8192 / BITS };
    unsigned long mask[WORDS], others = 0;
    int64_t thread = csoftmax_load(&helper->thread);
    unsigned int cpu;
    long size, i;
    if (thread == 0 || syscall(SYS_getcpu, &cpu, NULL, NULL) != 0
        || helper->avoided_cpu == (int)cpu) {
        return;
    }
    size = syscall(SYS_sched_getaffinity, 0, sizeof(mask), mask);
    if (size <= (long)(cpu / 8)) {    /* or -1: the machine has more of them */
        return;
    }
    mask[cpu / BITS] &= ~(1ul << cpu % BITS);
    for (i = 0; i < size / (long)sizeof(mask[0]); i++) {
        others |= mask[i];
    }
    if (others != 0 && syscall(SYS_sched_setaffinity, (long)thread, size, mask) == 0) {
        helper->avoided_cpu = (int)cpu;
    }
#else
    (void)helper;
#endif
}

/* Offers a job to so many helpers that are idle, in `asked`; how many there were. */
static int csoftmax_ask(
    csoftmax_job *job, csoftmax_helper **asked, int wanted, int helpers, int may_wake)
{
    int count = 0, i;
    for (i = 0; i < helpers && count < wanted; i++) {
        csoftmax_helper *helper = csoftmax_helpers[i];
        int64_t state = csoftmax_load(&helper->state);
        if ((state == CSOFTMAX_IDLE || (state == CSOFTMAX_ASLEEP && may_wake))
            && csoftmax_replace(&helper->state, state, (intptr_t)job)) {
            if (state == CSOFTMAX_ASLEEP) {
                csoftmax_keep_off_this_cpu(helper);
                PyThread_release_lock(helper->wake);
            }
            asked[count++] = helper;
        }
    }
    return count;
}

/* Takes offers back; waits for helpers that have begun. Whether there was one. */
static int csoftmax_dismiss(csoftmax_job *job, csoftmax_helper **asked, int count)
{
    int64_t offered = (intptr_t)job;
    int have_helped = 0, i;
    for (i = 0; i < count; i++) {
        if (csoftmax_replace(&asked[i]->state, offered, CSOFTMAX_IDLE)) {
            continue;
        }
        have_helped = 1;
        /* If it takes longer, something else has the helper's core. It may be moved to this one. */
        while (!csoftmax_spin_while(&asked[i]->state, offered + CSOFTMAX_BUSY, CSOFTMAX_SPIN)) {
            csoftmax_sleep();
        }
    }
    return have_helped;
}


/* The decision. */

/* In nanoseconds: what calls with helpers have saved. One that takes longer than it would have taken
   alone, as it does where other processes or libraries use the cores, costs credit. With debts,
   calls are computed alone and pay back a part of their time. So in any company losses take no more
   than that part; and what was saved before, up to a limit, lets a machine that is disturbed at
   times keep its helpers. */
static csoftmax_atomic csoftmax_credit;

/* What calls alone took of late, and what they would have taken undisturbed, as fast in all of their
   pieces as in the fastest: 1 to 1 on a quiet machine. Beside others a call alone is disturbed, too,
   and so would one have been that had helpers. */
static csoftmax_atomic csoftmax_time_alone = CSOFTMAX_REMEMBERED;
static csoftmax_atomic csoftmax_undisturbed_time_alone = CSOFTMAX_REMEMBERED;

static csoftmax_atomic csoftmax_callers;    /* with work for several threads */
static csoftmax_atomic csoftmax_last_end;    /* of such a call */
static csoftmax_atomic csoftmax_calls_helped;

/* For tests and benchmarks: all threads at any cost. */
static csoftmax_atomic csoftmax_always;

static int csoftmax_helpers_pay(void)
{
    return csoftmax_load(&csoftmax_always) || csoftmax_load(&csoftmax_credit) >= 0;
}

/* Two callers at once may lose what one of them has earned, which does no harm. */
static void csoftmax_earn(int64_t nanoseconds, int64_t most)
{
    int64_t credit = csoftmax_load(&csoftmax_credit) + nanoseconds;
    credit = credit < most ? credit : most;
    csoftmax_store(&csoftmax_credit, credit > -CSOFTMAX_MOST_DEBT ? credit : -CSOFTMAX_MOST_DEBT);
}

static void csoftmax_remember(csoftmax_atomic *sum, int64_t elapsed, double nanoseconds)
{
    double kept = elapsed < CSOFTMAX_REMEMBERED ? 1 - (double)elapsed / CSOFTMAX_REMEMBERED : 0;
    csoftmax_store(sum, (int64_t)(kept * (double)csoftmax_load(sum) + nanoseconds));
}

/* What the time of a call says; `undisturbed` is what it would have taken alone then. */
static void csoftmax_account(int was_shared, int64_t elapsed, double undisturbed)
{
    if (was_shared) {
        double disturbance = (double)csoftmax_load(&csoftmax_time_alone)
            / (double)(csoftmax_load(&csoftmax_undisturbed_time_alone) + 1);
        double alone = disturbance * undisturbed * (1 - CSOFTMAX_LEAST_GAIN);
        csoftmax_earn((int64_t)alone - elapsed, CSOFTMAX_MOST_CREDIT);
        return;
    }
    csoftmax_remember(&csoftmax_time_alone, elapsed, (double)elapsed);
    csoftmax_remember(&csoftmax_undisturbed_time_alone, elapsed, undisturbed);
    if (csoftmax_load(&csoftmax_credit) < 0) {
        csoftmax_earn(elapsed / CSOFTMAX_PART_EARNED, 0);
    }
}

static void csoftmax_compute(
    csoftmax_work compute, void *work, Py_ssize_t units, Py_ssize_t piece, int threads, int may_wake)
{
    int helpers = threads > 1 ? csoftmax_grow(threads - 1) : 0, count, i;
    Py_ssize_t pieces = units / piece, own;
    int64_t begin = csoftmax_now(), end;
    double fastest = HUGE_VAL;
    csoftmax_helper *asked[CSOFTMAX_MOST_THREADS - 1];
    csoftmax_job job;
    may_wake |= begin - csoftmax_load(&csoftmax_last_end) < CSOFTMAX_SPIN;
    job.compute = compute;
    job.work = work;
    job.piece = piece;
    job.threads = threads;
    job.participants = 1;
    for (i = 0; i < threads; i++) {
        job.ranges[i].next = pieces * i / threads * piece;
        job.ranges[i].end = i == threads - 1 ? units : pieces * (i + 1) / threads * piece;
    }
    count = csoftmax_ask(&job, asked, threads - 1, helpers, may_wake);
    own = csoftmax_take_pieces(&job, 0, 0, &fastest);
    csoftmax_add(&csoftmax_calls_helped, csoftmax_dismiss(&job, asked, count));
    end = csoftmax_now();
    if (own > 0) {    /* or the helpers were so fast that nothing is known */
        csoftmax_account(count > 0, end - begin, fastest * (double)units);
    }
    csoftmax_store(&csoftmax_last_end, end);
}

/* Of so many units a piece is: whole grains, as far as there are enough of them for all threads. */
static Py_ssize_t csoftmax_piece(
    Py_ssize_t units, Py_ssize_t grain, Py_ssize_t numbers, int threads)
{
    Py_ssize_t piece = numbers / (threads * CSOFTMAX_PIECES_OF_THREAD);
    if (piece > CSOFTMAX_MOST_PIECE) {
        piece = CSOFTMAX_MOST_PIECE;
    }
    if (piece < CSOFTMAX_LEAST_PIECE) {
        piece = CSOFTMAX_LEAST_PIECE;
    }
    piece = (Py_ssize_t)((double)piece * (double)units / (double)numbers);
    piece = piece < grain ? grain : (piece + grain - 1) / grain * grain;
    return piece < units / threads ? piece : units / threads;
}

/* `units` of work, altogether so many numbers, by up to so many threads, in pieces of whole grains,
   each of so many units. */
static void csoftmax_share(
    csoftmax_work compute, void *work, Py_ssize_t units, Py_ssize_t grain, Py_ssize_t numbers,
    int threads)
{
    int always = (int)csoftmax_load(&csoftmax_always), limit;
    if (threads > CSOFTMAX_MOST_THREADS) {
        threads = CSOFTMAX_MOST_THREADS;
    }
    if (threads > units) {
        threads = (int)units;
    }
    if (threads <= 1) {
        compute(work, 0, units, 0, NULL);
        return;
    }
    limit = csoftmax_threads() / (int)(csoftmax_add(&csoftmax_callers, 1) + 1);
    if (!always && threads > limit) {
        threads = limit < 1 ? 1 : limit;
    }
    if (!csoftmax_helpers_pay()) {
        threads = 1;
    }
    csoftmax_compute(
        compute, work, units, csoftmax_piece(units, grain, numbers, threads), threads,
        always || numbers >= CSOFTMAX_WORTH_WAKING);
    csoftmax_add(&csoftmax_callers, -1);
}


#if !defined(_WIN32)
/* A fork's child has none of its parent's threads. */
static void csoftmax_forget_helpers(void)
{
    csoftmax_helper_count = 0;
    csoftmax_is_growing = 0;
    csoftmax_no_thread_until = 0;
    csoftmax_callers = 0;
}
#endif

static void csoftmax_set_up_threads(void)
{
#if !defined(_WIN32)
    pthread_atfork(NULL, NULL, csoftmax_forget_helpers);
#endif
}

#endif
