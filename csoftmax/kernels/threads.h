/* Threads that share a call: a pool whose caller never waits for a helper that has not begun.

The work is cut into pieces. Everybody begins with a share of his own, whose memory is then in the
cache of his core at the next call, too, and goes on with what is left of the others'. So a helper
that comes late, because it had to be woken or because its core is busy, finds less to do, or
nothing: the caller takes its offer back and returns. It waits for pieces only that were begun.
Whoever computes a piece, its results are the same. docs/threads.md says why OpenMP would not do.

Whether helpers are asked at all is decided at each call: see `credit`. Nothing here knows Python's
thread states; its locks are semaphores that threads without one may use. */

#ifndef CSOFTMAX_THREADS_H
#define CSOFTMAX_THREADS_H

#include <Python.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif
#ifdef _OPENMP
#include <omp.h>
#define CSOFTMAX_OPENMP 1
#else
#define CSOFTMAX_OPENMP 0
#endif

#include "platform.h"
#include "stops.h"

enum {    /* times in nanoseconds, sizes in numbers (logits) */
    MOST_THREADS = 128,
    /* How long a helper waits for the next call before it sleeps, and a caller for the end of a
       helper's piece. To be woken takes a helper about as long. */
    SPIN = 50000,
    SHORT_SPIN = 2000,    /* where the last wait was in vain */
    /* So small that nobody waits long for the last one, so large that taking one costs nothing. */
    LEAST_PIECE = 4096,
    MOST_PIECE = 32768,
    PIECES_OF_THREAD = 8,
    PIECE_ALONE = 1048576,    /* of a thread that shares with nobody: signals are looked for then */
    /* A helper that sleeps is woken for calls of this size, and for less where the last such call
       is no longer ago than it waits for the next: it will be awake for those that follow. */
    WORTH_WAKING = 65536,
    /* See `credit`. The limit of debts is for processes that were stopped amid a call, which would
       be in debt for hours else. */
    MOST_CREDIT = 16000000,
    MOST_DEBT = 100000000,
    PART_EARNED = 32,
    REMEMBERED = 30000000,    /* so much time of calls alone says how they are disturbed */
    RETRY = 1000000000        /* until threads are asked for again, if there were none */
};

/* A call must be so much faster with helpers than it would be alone. Without that, two processes on
   two cores each take the other's core for a helper, find that it nearly pays, and both lose. */
#define LEAST_GAIN 0.125

/* Computes units `first` to `last`; `participant` is less than the number of threads, and nobody
   else has the same. `type_tag` is NULL: by its type, Cython makes one function for each. */
typedef void (*work_function)(
    void *work, Py_ssize_t first, Py_ssize_t last, int participant, const void *type_tag);

typedef _Atomic int64_t shared_number;    /* its name reads and writes it atomically */

typedef struct {
    shared_number next;    /* the first unit that nobody has taken */
    int64_t end;
    char apart[48];    /* a cache line each */
} unit_range;

typedef struct {    /* a call's, on its caller's stack */
    work_function compute;
    void *work;
    csoftmax_call *call;
    Py_ssize_t piece;
    int threads;
    shared_number participants;
    unit_range *ranges;    /* of each thread */
} shared_job;

/* A helper's `state`, unless it has a job: then that is its address, and BUSY is added to it from
   when the helper has begun. */
enum { IDLE = 0, ASLEEP = 1, BUSY = 1 };

typedef struct {
    shared_number state;
    PyThread_type_lock wake;    /* free for a moment when the helper is to wake up */
    unsigned long thread;
    int avoided_cpu;
    char apart[64];
} helper_thread;

static helper_thread helpers[MOST_THREADS - 1];
static shared_number helper_count, no_start_until;

static shared_number thread_limit = 1;              /* of all calls */
static pthread_key_t limit_key;                     /* of those of a Python thread, NULL for none */

static int forks;                 /* this process is the child of so many */
static shared_number callers;     /* with work for several threads */
static shared_number last_end;    /* of such a call */
static shared_number calls_helped;
static shared_number always;      /* all threads at any cost, for tests and benchmarks */

/* What calls with helpers have saved. One that takes longer than it would have taken alone, as it
   does where other processes or libraries use the cores, costs credit. With debts, calls are
   computed alone and pay back a part of their time. So in any company losses take no more than that
   part; what was saved, up to a limit, lets a machine that is disturbed at times keep helpers. */
static shared_number credit;

/* What calls alone took of late, and would have taken undisturbed, all pieces as fast as the
   fastest one: 1 to 1 on a quiet machine. Beside others a call alone is disturbed, too, and so
   would have been one with helpers. */
static shared_number time_alone = REMEMBERED, undisturbed_time_alone = REMEMBERED;

static int openmp_limit(void) {
#ifdef _OPENMP
    return omp_in_parallel() ? 1 : Py_MIN(omp_get_max_threads(), omp_get_thread_limit());
#else
    return INT_MAX;
#endif
}

static int get_limit_here(void) {
    intptr_t limit = (intptr_t)pthread_getspecific(limit_key);
    return limit ? (int)limit : INT_MAX;
}

static int set_limit_here(int limit) {
    return pthread_setspecific(limit_key, (void *)(intptr_t)(limit < INT_MAX ? limit : 0)) == 0;
}

static int threads_of_call(void) {
    int own = (int)thread_limit, openmps = openmp_limit(), here = get_limit_here();
    own = Py_MIN(own, here);
    return Py_MIN(own, openmps);
}

static int helpers_pay(void) {
    return always || credit >= 0;
}

static int replace(shared_number *place, int64_t expected, int64_t value) {
    return atomic_compare_exchange_strong(place, &expected, value);
}

/* Until `place` has another value, or the time is over. Whether it has another. */
static int spin_while(shared_number *place, int64_t value, int64_t nanoseconds) {
    int64_t end = now() + nanoseconds;
    do {
        for (int i = 0; i < 16; i++) {
            if (*place != value) return 1;
            csoftmax_pause();
        }
    } while (now() < end);
    return 0;
}

/* Takes pieces until none is left, or the call stops, those of its home first. The number of units.
   `fastest` becomes the least time of a unit. */
static Py_ssize_t take_pieces(shared_job *job, int participant, int home, double *fastest) {
    Py_ssize_t units = 0, first, count;
    int64_t begin = now(), end;
    for (int i = 0; i < job->threads; i++) {
        unit_range *range = &job->ranges[(home + i) % job->threads];
        while (range->next < range->end
               && (first = atomic_fetch_add(&range->next, job->piece)) < range->end) {
            count = Py_MIN(job->piece, range->end - first);
            job->compute(job->work, first, first + count, participant, NULL);
            units += count;
            end = now();
            *fastest = Py_MIN(*fastest, (double)(end - begin) / (double)count);
            begin = end;
            if (csoftmax_must_stop_at(end)) return units;
        }
    }
    return units;
}

static void help(helper_thread *helper) {
    int64_t spin = SPIN, idle_since, state;
    int home = (int)(helper - helpers) + 1;
    for (;;) {
        idle_since = now();
        if (!spin_while(&helper->state, IDLE, spin) && replace(&helper->state, IDLE, ASLEEP))
            PyThread_acquire_lock(helper->wake, WAIT_LOCK);
        spin = now() - idle_since < SPIN ? SPIN : SHORT_SPIN;
        state = helper->state;
        if (state != IDLE && replace(&helper->state, state, state + BUSY)) {
            shared_job *job = (shared_job *)(intptr_t)state;
            double fastest = HUGE_VAL;
            if (csoftmax_compute_for(job->call))
                take_pieces(job, (int)job->participants++, home % job->threads, &fastest);
            helper->state = IDLE;
        }
    }
}

static void begin_helper(void *helper) {
    /* Signals are for the host's threads, but for those that say what this one has done. */
    static const int own[] = {SIGBUS, SIGFPE, SIGILL, SIGSEGV};
    sigset_t signals;
    sigfillset(&signals);
    for (size_t i = 0; i < Py_ARRAY_LENGTH(own); i++) sigdelset(&signals, own[i]);
    pthread_sigmask(SIG_SETMASK, &signals, NULL);
#if defined(__linux__)
    pthread_setname_np(pthread_self(), "csoftmax");
#endif
    csoftmax_set_default_environment();
    help(helper);
}

#if defined(__linux__)
typedef struct {
    cpu_set_t cpus[8192 / CPU_SETSIZE];    /* as many as Linux can have */
} cpu_mask;

#ifdef _OPENMP
/* Of one of OpenMP's places; into `all`, too. */
static void read_place(int number, cpu_mask *place, cpu_mask *all) {
    int count = omp_get_place_num_procs(number);
    int *cpus = PyMem_RawMalloc((size_t)count * sizeof(int));
    memset(place, 0, sizeof(cpu_mask));
    if (cpus == NULL) return;
    omp_get_place_proc_ids(number, cpus);
    for (int i = 0; i < count; i++) {
        CPU_SET_S((size_t)cpus[i], sizeof(cpu_mask), place->cpus);
        CPU_SET_S((size_t)cpus[i], sizeof(cpu_mask), all->cpus);
    }
    PyMem_RawFree(cpus);
}
#endif

/* CPUs that helpers of this thread may use: its own. OpenMP binds the thread that loads it to the
   first of its places where it is told to bind any (OMP_PROC_BIND, GOMP_CPU_AFFINITY); then those
   of all places. How many there are; 0 if it can't be told. */
static int find_cpus(cpu_mask *own) {
    if (sched_getaffinity(0, sizeof(cpu_mask), own->cpus)) return 0;
#ifdef _OPENMP
    if (omp_get_proc_bind() != omp_proc_bind_false) {
        cpu_mask place, all = {0};
        int is_bound = 0, places = omp_get_num_places();
        for (int i = 0; i < places; i++) {
            read_place(i, &place, &all);
            is_bound |= CPU_EQUAL_S(sizeof(cpu_mask), place.cpus, own->cpus);
        }
        if (is_bound) *own = all;
    }
#endif
    return CPU_COUNT_S(sizeof(cpu_mask), own->cpus);
}
#endif

static int count_cpus(void) {
#if defined(__linux__)
    cpu_mask mask;
    return find_cpus(&mask);
#else
    return 0;
#endif
}

/* Whether there is memory and a thread for it. */
static int start(helper_thread *helper) {
    helper->state = IDLE;
    helper->avoided_cpu = -1;
    helper->wake = PyThread_allocate_lock();
    if (helper->wake == NULL) return 0;
    PyThread_acquire_lock(helper->wake, WAIT_LOCK);
    helper->thread = PyThread_start_new_thread(begin_helper, helper);
    if (helper->thread == PYTHREAD_INVALID_THREAD_ID) {
        PyThread_free_lock(helper->wake);
        return 0;
    }
#if defined(__linux__)
    cpu_mask mask;
    if (find_cpus(&mask) > 0)
        pthread_setaffinity_np((pthread_t)helper->thread, sizeof(mask), mask.cpus);
#endif
    return 1;
}

/* So many helpers, or what can be had. */
static int grow(int wanted) {
    int64_t until = no_start_until;
    if (helper_count < wanted && now() >= until
        && replace(&no_start_until, until, INT64_MAX)) {    /* nobody else now */
        while (helper_count < wanted && start(&helpers[helper_count])) helper_count++;
        no_start_until = helper_count < wanted ? now() + RETRY : 0;
    }
    return (int)helper_count;
}

/* Linux may wake a thread on the core of the one that wakes it, although another is idle: on two
   cores of which one computes it does. The helper would take turns with its caller. So the caller's
   core is taken from its mask, which has what the caller's has otherwise (`find_cpus`). */
static void wake(helper_thread *helper) {
#if defined(__linux__)
    cpu_mask mask;
    int cpu = sched_getcpu();
    if (cpu >= 0 && cpu != helper->avoided_cpu && find_cpus(&mask) > 1) {
        CPU_CLR_S((size_t)cpu, sizeof(mask), mask.cpus);
        if (!pthread_setaffinity_np((pthread_t)helper->thread, sizeof(mask), mask.cpus))
            helper->avoided_cpu = cpu;
    }
#endif
    PyThread_release_lock(helper->wake);
}

/* Offers a job to so many of the helpers that are idle, in `asked`; how many there were. */
static int ask(shared_job *job, helper_thread **asked, int wanted, int count, int may_wake) {
    int found = 0;
    for (helper_thread *helper = helpers; helper < helpers + count && found < wanted; helper++) {
        int64_t state = helper->state;
        if ((state == IDLE || (state == ASLEEP && may_wake))
            && replace(&helper->state, state, (intptr_t)job)) {
            if (state == ASLEEP) wake(helper);
            asked[found++] = helper;
        }
    }
    return found;
}

/* Takes an offer back, or waits until the helper, which has begun, is done. */
static void dismiss(shared_job *job, helper_thread *helper) {
    int64_t offered = (intptr_t)job;
    if (replace(&helper->state, offered, IDLE)) return;
    /* If it takes longer, something else has the helper's core. It may be moved to this one. */
    while (!spin_while(&helper->state, offered + BUSY, SPIN)) {
        usleep(SPIN / 1000);
        csoftmax_must_stop();    /* which the helper sees */
    }
}

/* What the time of a call says; `undisturbed` is what it would have taken alone then. One of two
   callers at once may lose what it has earned, which does no harm. */
static void account(int was_shared, int64_t elapsed, double undisturbed) {
    double alone = (double)time_alone, undisturbed_alone = (double)undisturbed_time_alone;
    double kept = Py_MAX(0, 1 - (double)elapsed / REMEMBERED);
    int64_t left = credit;
    if (was_shared) {
        alone *= undisturbed / (undisturbed_alone + 1);
        left += (int64_t)(alone * (1 - LEAST_GAIN)) - elapsed;
    } else {
        time_alone = (int64_t)(kept * alone + (double)elapsed);
        undisturbed_time_alone = (int64_t)(kept * undisturbed_alone + undisturbed);
        if (left >= 0) return;
        left = Py_MIN(0, left + elapsed / PART_EARNED);
    }
    left = Py_MIN(left, MOST_CREDIT);
    credit = Py_MAX(left, -MOST_DEBT);
}

/* How many units have so many numbers, in whole grains. */
static Py_ssize_t units_of(
    Py_ssize_t piece, Py_ssize_t units, Py_ssize_t grain, Py_ssize_t numbers) {
    piece = (Py_ssize_t)((double)piece * (double)units / (double)numbers);
    return piece < grain ? grain : (piece + grain - 1) / grain * grain;
}

/* How many units a piece is, as far as there are enough of them for all threads. */
static Py_ssize_t piece_of(Py_ssize_t units, Py_ssize_t grain, Py_ssize_t numbers, int threads) {
    Py_ssize_t piece = numbers / (threads * PIECES_OF_THREAD);
    piece = Py_MAX(LEAST_PIECE, Py_MIN(piece, MOST_PIECE));
    return Py_MIN(units_of(piece, units, grain, numbers), units / threads);
}

/* These two are not inline, so that what a path needs on the stack is there on this path alone. */
static __attribute__((noinline)) void share_among(
    work_function compute, void *work, Py_ssize_t units, Py_ssize_t grain, Py_ssize_t numbers,
    int threads) {
    int limit = threads_of_call() / (int)++callers, count = 0, forks_before = forks;
    Py_ssize_t pieces, own;
    int64_t begin, end, away;
    double fastest = HUGE_VAL;
    helper_thread *asked[threads];
    unit_range ranges[threads];
    shared_job job;

    if (!always) threads = Py_MAX(1, Py_MIN(threads, limit));
    if (!helpers_pay()) threads = 1;
    if (threads > 1) count = grow(threads - 1);

    begin = now();
    job.compute = compute;
    job.work = work;
    job.call = csoftmax_call_here();
    away = job.call->away;
    job.piece = piece_of(units, grain, numbers, threads);
    job.threads = threads;
    job.participants = 1;
    job.ranges = ranges;
    pieces = units / job.piece;
    for (int i = 0; i < threads; i++) {
        job.ranges[i].next = pieces * i / threads * job.piece;
        job.ranges[i].end = i == threads - 1 ? units : pieces * (i + 1) / threads * job.piece;
    }
    count = ask(&job, asked, threads - 1, count,
                always || numbers >= WORTH_WAKING || begin - last_end < SPIN);
    own = take_pieces(&job, 0, 0, &fastest);
    if (forks != forks_before) {    /* by a signal's handler; this is the child */
        if (count > 0) csoftmax_stop(LOST_HELPERS);
        return;
    }
    for (int i = 0; i < count; i++) dismiss(&job, asked[i]);
    calls_helped += job.participants > 1;
    end = now();
    away = job.call->away - away;
    /* Unless the helpers were so fast that nothing is known, or it has stopped. */
    if (own > 0 && !csoftmax_is_stopped())
        account(count > 0, end - begin - away, fastest * (double)units);
    last_end = end;
    callers--;
}

/* `units` of work, altogether so many numbers, by up to so many threads, in pieces of whole grains,
   each of so many units. */
static __attribute__((noinline)) void share(
    work_function compute, void *work, Py_ssize_t units, Py_ssize_t grain, Py_ssize_t numbers,
    int threads) {
    Py_ssize_t first = 0, piece = units;
    threads = (int)Py_MIN(units, Py_MIN(threads, MOST_THREADS));
    if (threads > 1) {
        share_among(compute, work, units, grain, numbers, threads);
        return;
    }
    if (numbers > PIECE_ALONE) piece = units_of(PIECE_ALONE, units, grain, numbers);
    do {
        compute(work, first, Py_MIN(units, first + piece), 0, NULL);
        first += piece;
    } while (first < units && !csoftmax_must_stop());
}

/* A fork's child has none of its parent's threads but this one, which becomes Python's main one. */
static void forget_helpers(void) {
    helper_count = no_start_until = callers = 0;
    forks++;
    csoftmax_main_thread = PyThread_get_thread_ident();
}

static int set_up_threads(void) {
    if (pthread_key_create(&csoftmax_call_key, NULL) || pthread_key_create(&limit_key, NULL)
        || pthread_atfork(NULL, NULL, forget_helpers)) {
        PyErr_SetString(PyExc_ImportError, "csoftmax: no place of its own in each thread");
        return -1;
    }
    return 0;
}

#endif
