/* What stops a call before its end: memory that could not be had, or a signal.

A loop can't raise. It leaves a mark at its call, the loops that follow within the call do nothing,
and the function that Python called asks when they are over (`raise_if_stopped`). The mark is the
call's and not the thread's: a signal's handler may call csoftmax, and helper threads see it, too.

Python runs a signal's handler between two of its own instructions, so Ctrl-C would wait for the end
of a call. That is why handlers are run here too: by the thread of the call, if it is Python's main
thread, as others never run any. Its own thread state is what it takes the GIL with. To look for
one (PyGILState_Ensure) ends the process where a subinterpreter was, or Python is about to exit. */

#ifndef CSOFTMAX_STOPS_H
#define CSOFTMAX_STOPS_H

#include <Python.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

#include "memory.h"

enum {
    CSOFTMAX_BETWEEN_SIGNALS = 20000000    /* nanoseconds */
};

typedef enum { GOES_ON = 0, RAISED, OUT_OF_MEMORY, LOST_HELPERS } csoftmax_reason;

typedef struct csoftmax_call {
    _Atomic int reason;       /* why it stops */
    pthread_t thread;         /* that it came in */
    PyThreadState *python;    /* of a thread that may run handlers, and has let go of the GIL */
    int64_t asked;            /* for signals: when */
    int64_t away;             /* how long handlers have taken altogether */
    struct csoftmax_call *outer;    /* which a signal's handler has interrupted */
} csoftmax_call;

/* Of the call that a thread computes for. Not a variable of the thread (__thread): a module's have
   their memory when a thread first asks for one, and where there is none the process is ended. */
static pthread_key_t csoftmax_call_key;

static unsigned long csoftmax_main_thread;    /* as Python numbers threads */

static inline csoftmax_call *csoftmax_call_here(void) {
    return (csoftmax_call *)pthread_getspecific(csoftmax_call_key);
}

/* Whether there is memory for it. */
static inline int csoftmax_compute_for(csoftmax_call *call) {
    return pthread_setspecific(csoftmax_call_key, call) == 0;
}

static inline int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static inline int csoftmax_begin(csoftmax_call *call) {
    call->reason = GOES_ON;
    call->thread = pthread_self();
    call->python = NULL;
    call->away = 0;
    call->outer = csoftmax_call_here();
    if (csoftmax_compute_for(call)) return 0;
    PyErr_NoMemory();
    return -1;
}

static inline void csoftmax_end(csoftmax_call *call) {
    csoftmax_compute_for(call->outer);    /* in a place that there is now */
}

/* Lets other threads run. */
static inline PyThreadState *csoftmax_leave_python(csoftmax_call *call) {
    PyThreadState *state = PyEval_SaveThread();
    if (PyThread_get_thread_ident() == csoftmax_main_thread) {
        call->python = state;
        call->asked = now();
    }
    return state;
}

static inline void csoftmax_stop(csoftmax_reason reason) {
    csoftmax_call *call = csoftmax_call_here();
    if (call->reason == GOES_ON) call->reason = reason;
}

static inline int csoftmax_is_stopped(void) {
    return csoftmax_call_here()->reason != GOES_ON;
}

/* Asked now and then by whoever computes. What a handler raises stays set in Python until the call
   is over. */
static __attribute__((noinline)) int csoftmax_must_stop_at(int64_t time) {
    csoftmax_call *call = csoftmax_call_here();
    if (call->reason == GOES_ON && call->python != NULL
        && pthread_equal(call->thread, pthread_self())
        && time - call->asked >= CSOFTMAX_BETWEEN_SIGNALS) {
        PyEval_RestoreThread(call->python);
        if (PyErr_CheckSignals() < 0) call->reason = RAISED;
        PyEval_SaveThread();
        call->asked = now();
        call->away += call->asked - time;
    }
    return call->reason != GOES_ON;
}

/* Cold: a loop that calls it keeps its vectors in registers but for this. */
static __attribute__((noinline, cold)) int csoftmax_must_stop(void) {
    csoftmax_call *call = csoftmax_call_here();
    return call->python == NULL ? call->reason != GOES_ON : csoftmax_must_stop_at(now());
}

/* NULL if there is none, and the call stops. Seen by tracemalloc; needs no GIL. */
static inline void *csoftmax_scratch(Py_ssize_t bytes) {
    void *scratch = csoftmax_take_scratch((size_t)bytes);
    if (scratch == NULL) csoftmax_stop(OUT_OF_MEMORY);
    return scratch;
}

#endif
