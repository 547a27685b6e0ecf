/* What compilers, processors and operating systems have different names for. */

#ifndef CSOFTMAX_PLATFORM_H
#define CSOFTMAX_PLATFORM_H

#include <Python.h>
#include <fenv.h>
#include <stdint.h>

#if defined(__clang__)
#define CSOFTMAX_COMPILER "Clang " __clang_version__
#elif defined(__GNUC__)
#define CSOFTMAX_COMPILER "GCC " __VERSION__
#elif defined(_MSC_VER)
#define CSOFTMAX_COMPILER "MSVC " Py_STRINGIFY(_MSC_FULL_VER)
#else
#define CSOFTMAX_COMPILER "unknown"
#endif

/* The floating-point environment: rounding mode, flags, what is done with subnormals. */
#if defined(__SSE2__) || defined(_M_X64)
#include <xmmintrin.h>
#define csoftmax_environment() ((uint64_t)_mm_getcsr())
#define csoftmax_set_environment(saved) _mm_setcsr((unsigned int)(saved))
#define csoftmax_set_default_environment() _mm_setcsr(0x1f80)
#define csoftmax_pause() _mm_pause()    /* what a loop that waits does */
#elif defined(__aarch64__) && defined(__GNUC__)
static inline uint64_t csoftmax_environment(void) {
    uint64_t control, flags;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    __asm__ volatile("mrs %0, fpsr" : "=r"(flags));
    return control << 32 | (uint32_t)flags;
}
static inline void csoftmax_set_environment(uint64_t saved) {
    __asm__ volatile("msr fpcr, %0" : : "r"(saved >> 32) : "memory");
    __asm__ volatile("msr fpsr, %0" : : "r"(saved & 0xffffffff) : "memory");
}
#define csoftmax_set_default_environment() csoftmax_set_environment(0)
#define csoftmax_pause() __asm__ volatile("isb")
#else
#define csoftmax_environment() ((uint64_t)fetestexcept(FE_ALL_EXCEPT))
#define csoftmax_set_environment(flags) ((void)feclearexcept(FE_ALL_EXCEPT & ~(int)(flags)))
#define csoftmax_set_default_environment() ((void)0)    /* unknown: the host's */
#define csoftmax_pause() ((void)0)
#endif

/* A thread's own variables; atomic numbers, which can hold a pointer. */
#if defined(_MSC_VER)
#define CSOFTMAX_OF_THREAD static __declspec(thread)
#else
#define CSOFTMAX_OF_THREAD static __thread
#endif
#if defined(_MSC_VER) && !defined(__clang__)
#include <windows.h>
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
static inline int csoftmax_replace(csoftmax_atomic *place, int64_t expected, int64_t value) {
    return __atomic_compare_exchange_n(
        place, &expected, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}
#endif

#endif
