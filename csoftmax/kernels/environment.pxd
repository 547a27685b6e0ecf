"""The floating-point environment: rounding mode, flags, what is done with subnormals.

A host may have set any of it: libraries that are linked for fast, unsafe arithmetic flush
subnormals, PyTorch can be told to. The kernels compute in the default one, helper threads too: what
they rely on holds, and results don't depend on it. Afterwards the host's is back, with the flags
that it had. The kernels use the vector unit alone, not the x87.
"""

from libc.stdint cimport uint64_t

cdef extern from "platform.h" nogil:
    const char *CSOFTMAX_COMPILER
    int FE_ALL_EXCEPT
    int fetestexcept(int flags)
    int feclearexcept(int flags)
    uint64_t csoftmax_environment()
    void csoftmax_set_environment(uint64_t saved)
    void csoftmax_set_default_environment()


cdef inline uint64_t enter_environment() noexcept nogil:
    """The kernels' own. Returns the host's."""
    cdef uint64_t host = csoftmax_environment()
    csoftmax_set_default_environment()
    return host
