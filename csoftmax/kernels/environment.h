/* The floating-point environment: rounding mode, flags, what is done with subnormals. */

#ifndef CSOFTMAX_ENVIRONMENT_H
#define CSOFTMAX_ENVIRONMENT_H

#include <fenv.h>
#include <stdint.h>

#if defined(__SSE2__) || defined(_M_X64)
#include <xmmintrin.h>
#define csoftmax_environment() ((uint64_t)_mm_getcsr())
#define csoftmax_set_environment(saved) _mm_setcsr((unsigned int)(saved))
#define csoftmax_set_default_environment() _mm_setcsr(0x1f80)
#elif defined(__aarch64__) && defined(__GNUC__)
static inline uint64_t csoftmax_environment(void)
{
    uint64_t control, flags;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    __asm__ volatile("mrs %0, fpsr" : "=r"(flags));
    return control << 32 | (uint32_t)flags;
}
static inline void csoftmax_set_environment(uint64_t saved)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(saved >> 32) : "memory");
    __asm__ volatile("msr fpsr, %0" : : "r"(saved & 0xffffffff) : "memory");
}
#define csoftmax_set_default_environment() csoftmax_set_environment(0)
#else
#define csoftmax_environment() ((uint64_t)fetestexcept(FE_ALL_EXCEPT))
#define csoftmax_set_environment(flags) \
    ((void)feclearexcept(FE_ALL_EXCEPT & ~(int)(flags)))
#define csoftmax_set_default_environment() ((void)0)    /* unknown: the host's */
#endif

#endif
