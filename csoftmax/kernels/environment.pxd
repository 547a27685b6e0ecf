"""The floating-point environment: rounding mode, flags, what is done with subnormals.

A host may have set any of it: libraries that are linked for fast, unsafe arithmetic flush
subnormals, PyTorch can be told to. The kernels compute in the default one, helper threads too: what
they rely on holds, and results don't depend on it. Afterwards the host's is back, with the flags
that it had. The kernels use the vector unit alone, not the x87.
"""

cdef extern from "platform.h" nogil:
    const char *CSOFTMAX_COMPILER
    int FE_ALL_EXCEPT
    int fetestexcept(int flags)
    int feclearexcept(int flags)
    ctypedef struct Environment "csoftmax_environment":
        pass
    void csoftmax_get_environment(Environment *place)
    void set_environment "csoftmax_set_environment"(const Environment *place)
    void csoftmax_set_default_environment()


cdef inline Environment enter_environment() noexcept nogil:
    """The kernels' own. Returns the host's."""
    cdef Environment host
    csoftmax_get_environment(&host)
    csoftmax_set_default_environment()
    return host
