/* What compilers and processors have different names for. */

#ifndef CSOFTMAX_PLATFORM_H
#define CSOFTMAX_PLATFORM_H

#include <fenv.h>

#if defined(__clang__)
#define CSOFTMAX_COMPILER "Clang " __clang_version__
#else
#define CSOFTMAX_COMPILER "GCC " __VERSION__
#endif

/* Of a number that is not 0. */
#define csoftmax_lowest_bit(number) __builtin_ctz(number)
#define csoftmax_highest_bit(number) (63 - __builtin_clzll(number))

/* The floating-point environment, and what a loop that waits does. On x86 the environment of the
   vector unit alone: fenv.h has the x87's, too, and takes 0.4 microseconds for a call. */
#if defined(__SSE2__)
#include <xmmintrin.h>
typedef unsigned int csoftmax_environment;
#define csoftmax_get_environment(place) ((void)(*(place) = _mm_getcsr()))
#define csoftmax_set_environment(place) _mm_setcsr(*(place))
#define csoftmax_set_default_environment() _mm_setcsr(0x1f80)
#define csoftmax_pause() _mm_pause()
#else
typedef fenv_t csoftmax_environment;
#define csoftmax_get_environment(place) ((void)fegetenv(place))
#define csoftmax_set_environment(place) ((void)fesetenv(place))
#define csoftmax_set_default_environment() ((void)fesetenv(FE_DFL_ENV))
#if defined(__aarch64__)
#define csoftmax_pause() __asm__ volatile("isb")
#else
#define csoftmax_pause() ((void)0)
#endif
#endif

#endif
