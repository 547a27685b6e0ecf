"""Masks: bytes, 0 where a number is left out.

Before rows are computed, -inf is put in the place of what is left out, in a copy. So no function
knows of masks, and whatever stood there has no effect. Afterwards a row that is NaN, one without
any number among them, gets its results in these places back.
"""


cdef inline floating kept_or_minus_infinity(floating x, char mask) noexcept nogil:
    """In integers, see value_or_zero. The mask selects bits of x ^ -inf, which turn -inf to x."""
    cdef FloatBits f, minus_infinity
    cdef DoubleBits d, minus_infinity_in_double
    if floating is float:
        f.value = x
        minus_infinity.value = -INFINITY
        f.bits = (f.bits ^ minus_infinity.bits) & (<uint32_t> 0 - <uint32_t> (mask != 0))
        f.bits ^= minus_infinity.bits
        return f.value
    else:
        d.value = x
        minus_infinity_in_double.value = -INFINITY
        d.bits = (d.bits ^ minus_infinity_in_double.bits) & (
            <uint64_t> 0 - <uint64_t> (mask != 0)
        )
        d.bits ^= minus_infinity_in_double.bits
        return d.value


cdef inline void copy_masked(
    const floating *x, npy_intp x_step, floating *y, npy_intp y_step, npy_intp n,
    const char *mask, npy_intp mask_step
) noexcept nogil:
    """y = x, or -inf where the mask is 0. y may be x. Steps are in bytes."""
    cdef npy_intp LANES = LANE_BYTES // <npy_intp> sizeof(floating), size = sizeof(floating)
    cdef floating values[FLOAT_LANES]
    cdef npy_intp i = 0, k
    if x_step == size and y_step == size and mask_step == 1:
        while i + LANES <= n:
            for k in range(LANES):
                values[k] = kept_or_minus_infinity(x[i + k], mask[i + k])
            for k in range(LANES):
                y[i + k] = values[k]
            i += LANES
    while i < n:
        at[floating](<char *> y, i * y_step, 0)[0] = kept_or_minus_infinity(
            at[floating](<char *> x, i * x_step, 0)[0], mask[i * mask_step]
        )
        i += 1


cdef inline void restore_masked(
    const Operation *operation, floating *y, npy_intp y_step, npy_intp n, const char *mask,
    npy_intp mask_step
) noexcept nogil:
    """A row without a softmax is NaN as a whole, and its first number shows it.

    y_step is in numbers, mask_step in bytes.
    """
    cdef double left_out = 0.0 if operation.numbers == SCALED_EXPONENTIALS else -INFINITY
    cdef npy_intp i
    if y[0] == y[0]:
        return
    for i in range(n):
        if not mask[i * mask_step]:
            y[i * y_step] = <floating> left_out
