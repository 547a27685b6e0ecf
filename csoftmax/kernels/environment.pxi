"""The floating-point environment: rounding mode, flags, what is done with subnormals.

A host may have set any of it, with other libraries' help (one that is linked for unsafe, fast
arithmetic flushes subnormals, PyTorch can be told to). The kernels compute in the default one, helper
threads too: what they rely on holds, and results don't depend on it. Afterwards the host's is back,
with the flags that it had. The kernels use the vector unit alone, not the x87.
"""

cdef extern from "<fenv.h>" nogil:
    int FE_ALL_EXCEPT
    int fetestexcept(int flags)
    int feclearexcept(int flags)

cdef extern from "environment.h" nogil:
    uint64_t csoftmax_environment()
    void csoftmax_set_environment(uint64_t saved)
    void csoftmax_set_default_environment()


cdef inline uint64_t enter_environment() noexcept nogil:
    """The kernels' own. Returns the host's."""
    cdef uint64_t host = csoftmax_environment()
    csoftmax_set_default_environment()
    return host


def float_flags():
    """Of all units: NumPy raises those of float16 in the x87."""
    return fetestexcept(FE_ALL_EXCEPT)


def restore_float_flags(int flags):
    """Clear all others."""
    feclearexcept(FE_ALL_EXCEPT & ~flags)
