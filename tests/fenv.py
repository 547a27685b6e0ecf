"""The calling thread's floating-point unit, as the C library sees it (glibc, on two processors)."""

import ctypes
import platform

X86_64, AARCH64 = "x86_64", "aarch64"
MACHINE = platform.machine()
IS_KNOWN = platform.libc_ver()[0] == "glibc" and MACHINE in (X86_64, AARCH64)

# From <fenv.h>. FE_INEXACT is left out: nearly every operation of Python's raises it.
FLAGS = {
    X86_64: {"invalid": 1, "divide by zero": 4, "overflow": 8, "underflow": 16},
    AARCH64: {"invalid": 1, "divide by zero": 2, "overflow": 4, "underflow": 8},
}.get(MACHINE, {})
ALL_FLAGS = sum(FLAGS.values())
ROUNDING = {
    X86_64: {"nearest": 0, "downward": 0x400, "upward": 0x800, "toward zero": 0xC00},
    AARCH64: {"nearest": 0, "upward": 0x400000, "downward": 0x800000, "toward zero": 0xC00000},
}.get(MACHINE, {})

libm = ctypes.CDLL("libm.so.6") if IS_KNOWN else None


def clear_flags():
    libm.feclearexcept(ALL_FLAGS)


def raise_flags(names):
    libm.feraiseexcept(sum(FLAGS[name] for name in names))


def flags():
    raised = libm.fetestexcept(ALL_FLAGS)
    return {name for name, flag in FLAGS.items() if raised & flag}


def rounding():
    mode = libm.fegetround()
    return next(name for name, number in ROUNDING.items() if number == mode)


def set_rounding(name):
    assert libm.fesetround(ROUNDING[name]) == 0


def environment():
    """fenv_t: on x86-64 the x87's control word, others, then MXCSR; else FPCR, FPSR."""
    registers = (ctypes.c_uint32 * 8)()
    libm.fegetenv(registers)
    return registers


def control():
    """The registers without flags: rounding, traps, whether subnormal numbers are kept."""
    registers = environment()
    if MACHINE == X86_64:
        return registers[0] & 0xFFFF, registers[7] & ~0x3F
    return (registers[0],)


def flush_subnormals():
    """As some libraries do for speed: subnormal operands and results are zeros."""
    registers = environment()
    if MACHINE == X86_64:
        registers[7] |= 0x8040
    else:
        registers[0] |= 1 << 24
    libm.fesetenv(registers)


def back_to_default():
    libm.fesetenv(ctypes.c_void_p(-1))    # FE_DFL_ENV
