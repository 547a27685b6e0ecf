# cython: language_level=3
"""Copies of rows to columns and back, masked ones, from narrower types and to bfloat16. Steps are
in bytes."""

from cython cimport floating
from libc.math cimport INFINITY, fabs
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from numpy cimport npy_intp

from csoftmax.kernels.arithmetic cimport DoubleBits, FloatBits
from csoftmax.kernels.lanes cimport LANE_BYTES


cdef enum:
    # Rows with up to FEW numbers go in columns, to which they are copied.
    FEW = 63
    FEWEST = 8    # of those that are masked at a time


cdef extern from * nogil:
    """
    /* y[j][i] = x[i][j], four by four; steps in bytes. The compiler makes nothing as fast of loops
       over numbers. */
    #if defined(__clang__)
    #define CSOFTMAX_CHOSEN(integers, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
    #else
    #define CSOFTMAX_CHOSEN(integers, a, b, ...) __builtin_shuffle(a, b, (integers){__VA_ARGS__})
    #endif
    typedef float csoftmax_floats __attribute__((vector_size(16)));
    typedef int32_t csoftmax_ints __attribute__((vector_size(16)));
    typedef double csoftmax_doubles __attribute__((vector_size(16)));
    typedef int64_t csoftmax_longs __attribute__((vector_size(16)));

    static inline void csoftmax_transpose_floats(
        const char *x, ptrdiff_t x_step, char *y, ptrdiff_t y_step)
    {
        csoftmax_floats rows[4], before[4];
        for (int k = 0; k < 4; k++) memcpy(rows + k, x + k * x_step, 16);
        for (int round = 0; round < 2; round++) {
            for (int k = 0; k < 4; k++) before[k] = rows[k];
            for (int k = 0; k < 2; k++) {
                csoftmax_floats a = before[k], b = before[k + 2];
                rows[2 * k] = CSOFTMAX_CHOSEN(csoftmax_ints, a, b, 0, 4, 1, 5);
                rows[2 * k + 1] = CSOFTMAX_CHOSEN(csoftmax_ints, a, b, 2, 6, 3, 7);
            }
        }
        for (int k = 0; k < 4; k++) memcpy(y + k * y_step, rows + k, 16);
    }

    static inline void csoftmax_transpose_doubles(
        const char *x, ptrdiff_t x_step, char *y, ptrdiff_t y_step)
    {
        for (int i = 0; i < 4; i += 2) {
            for (int j = 0; j < 4; j += 2) {
                csoftmax_doubles a, b, column;
                memcpy(&a, x + i * x_step + 8 * j, 16);
                memcpy(&b, x + (i + 1) * x_step + 8 * j, 16);
                column = CSOFTMAX_CHOSEN(csoftmax_longs, a, b, 0, 2);
                memcpy(y + j * y_step + 8 * i, &column, 16);
                column = CSOFTMAX_CHOSEN(csoftmax_longs, a, b, 1, 3);
                memcpy(y + (j + 1) * y_step + 8 * i, &column, 16);
            }
        }
    }
    """
    void transpose_floats "csoftmax_transpose_floats"(const char *, npy_intp, char *, npy_intp)
    void transpose_doubles "csoftmax_transpose_doubles"(const char *, npy_intp, char *, npy_intp)


cdef inline floating *at(const char *base, npy_intp offset, floating type_tag) noexcept nogil:
    return <floating *> (base + offset)


cdef inline void copy_numbers(
    const floating *x, floating *y, npy_intp count
) noexcept nogil:
    """As memcpy, whose calls would take longer than such short copies."""
    cdef npy_intp LANES = LANE_BYTES // <npy_intp> sizeof(floating)
    cdef npy_intp i
    if count < LANES:
        for i in range(count):
            y[i] = x[i]
        return
    i = 0
    while i < count:
        i = min(i, count - LANES)    # the last step overlaps the one before
        memcpy(y + i, x + i, LANE_BYTES)
        i += LANES


cdef inline void transpose(
    const char *x, npy_intp x_row_step, npy_intp x_step, npy_intp x_side_step, char *y,
    npy_intp y_row_step, npy_intp y_step, npy_intp y_side_step, npy_intp rows, npy_intp n,
    floating type_tag
) noexcept nogil:
    """Four by four numbers: their other two steps, the side steps, are those of neighbours."""
    cdef npy_intp r = 0, i
    while r < rows:
        r = min(r, rows - 4)    # the last step overlaps the one before
        i = 0
        while i < n:
            i = min(i, n - 4)
            if floating is float:
                transpose_floats(
                    x + r * x_row_step + i * x_step, x_side_step,
                    y + r * y_row_step + i * y_step, y_side_step,
                )
            else:
                transpose_doubles(
                    x + r * x_row_step + i * x_step, x_side_step,
                    y + r * y_row_step + i * y_step, y_side_step,
                )
            i += 4
        r += 4


cdef inline void fill(
    const char *x, npy_intp x_step, char *y, npy_intp y_step, npy_intp count, npy_intp n,
    floating type_tag
) noexcept nogil:
    """Of each number n, side by side."""
    cdef floating number
    cdef npy_intp i, k
    for i in range(count):
        number = at[floating](x, i * x_step, 0)[0]
        for k in range(n):
            at[floating](y, i * y_step, 0)[k] = number


cdef inline void copy_rows(
    const char *x, npy_intp x_row_step, npy_intp x_step, char *y, npy_intp y_row_step,
    npy_intp y_step, npy_intp rows, npy_intp n, floating type_tag
) noexcept nogil:
    """To columns or back, where one of the steps is that of neighbours, or between rows."""
    cdef floating four[4]
    cdef npy_intp size = sizeof(floating), i, r, k
    cdef bint is_large = rows >= 4 and n >= 4
    if x_row_step == size and y_row_step == size:
        for i in range(n):
            copy_numbers(at[floating](x, i * x_step, 0), at[floating](y, i * y_step, 0), rows)
    elif x_row_step == 0 and y_row_step == size:
        fill[floating](x, x_step, y, y_step, n, rows, 0)
    elif x_step == 0 and y_step == size:
        fill[floating](x, x_row_step, y, y_row_step, rows, n, 0)
    elif is_large and x_step == size and y_row_step == size:
        transpose[floating](
            x, x_row_step, size, x_row_step, y, size, y_step, y_step, rows, n, 0
        )
    elif is_large and x_row_step == size and y_step == size:
        transpose[floating](
            x, size, x_step, x_step, y, y_row_step, size, y_row_step, rows, n, 0
        )
    else:
        for i in range(n):
            r = 0
            while r + 4 <= rows:    # all are loaded before the first is stored
                for k in range(4):
                    four[k] = at[floating](x, (r + k) * x_row_step + i * x_step, 0)[0]
                for k in range(4):
                    at[floating](y, (r + k) * y_row_step + i * y_step, 0)[0] = four[k]
                r += 4
            for r in range(r, rows):
                at[floating](y, r * y_row_step + i * y_step, 0)[0] = at[floating](
                    x, r * x_row_step + i * x_step, 0
                )[0]


# Masks: bytes, 0 where a number is left out. -inf is put in its place, so no function knows of
# masks, and whatever stood there has no effect.

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


cdef inline void copy_masked_rows(
    const char *x, npy_intp x_row_step, npy_intp x_step, const char *mask, npy_intp mask_row_step,
    npy_intp mask_step, char *y, npy_intp y_row_step, npy_intp rows, npy_intp n, floating type_tag
) noexcept nogil:
    """To rows whose numbers lie side by side. Not by way of local arrays, as bytes and numbers make
    vectors of other sizes there, for which the next load waits."""
    cdef npy_intp size = sizeof(floating), r, i
    cdef floating *to
    if x_row_step == n * x_step and mask_row_step == n * mask_step and y_row_step == n * size:
        n *= rows    # as one row
        rows = 1
    for r in range(rows):
        to = at[floating](y, r * y_row_step, 0)
        if x_step == size and mask_step == 1:
            for i in range(n):
                to[i] = kept_or_minus_infinity(at[floating](x, 0, 0)[i], mask[i])
        else:
            for i in range(n):
                to[i] = kept_or_minus_infinity(
                    at[floating](x, i * x_step, 0)[0], mask[i * mask_step]
                )
        x += x_row_step
        mask += mask_row_step


cdef inline void copy_masked(
    const char *x, npy_intp x_row_step, npy_intp x_step, const char *mask, npy_intp mask_row_step,
    npy_intp mask_step, char *y, npy_intp y_row_step, npy_intp y_step, npy_intp rows, npy_intp n,
    floating type_tag
) noexcept nogil:
    """To rows or columns. Short rows are masked while they lie side by side, and then moved to
    columns."""
    cdef floating masked[FEW * FEWEST]
    cdef npy_intp size = sizeof(floating), r = 0, count
    if y_step == size:
        copy_masked_rows[floating](
            x, x_row_step, x_step, mask, mask_row_step, mask_step, y, y_row_step, rows, n, 0
        )
    elif x_row_step == size:
        copy_masked_rows[floating](
            x, x_step, size, mask, mask_step, mask_row_step, y, y_step, n, rows, 0
        )
    else:
        while r < rows:
            count = min(rows - r, FEW * FEWEST // n)
            copy_masked_rows[floating](
                x + r * x_row_step, x_row_step, x_step, mask + r * mask_row_step, mask_row_step,
                mask_step, <char *> masked, n * size, count, n, 0,
            )
            copy_rows[floating](
                <char *> masked, n * size, size, y + r * y_row_step, size, y_step, count, n, 0
            )
            r += count


cdef inline void widen(const uint16_t *x, float *y, npy_intp n) noexcept nogil:
    """float16 to float32, without NumPy's check for warnings, which takes longer than short rows.

    Exponent and digits stand 13 bits further left in a float, whose exponents count from 112 lower:
    so the number is 2^112 times too small, subnormal ones too. Infinity and NaN have all bits of
    the exponent set in both.
    """
    cdef FloatBits value
    cdef uint32_t digits
    cdef npy_intp i
    for i in range(n):
        digits = <uint32_t> (x[i] & 0x7fff)
        value.bits = digits << 13
        value.value *= <float> 2.0**112
        value.bits |= (<uint32_t> 0 - <uint32_t> (digits >= 0x7c00)) & 0x7f800000
        value.bits |= <uint32_t> (x[i] & 0x8000) << 16
        y[i] = value.value


# bfloat16: the upper half of a float. NumPy has no such type; ml_dtypes' casts from double round
# twice.

cdef inline void widen_bfloat16(const uint16_t *x, float *y, npy_intp n) noexcept nogil:
    cdef FloatBits value
    cdef npy_intp i
    for i in range(n):
        value.bits = <uint32_t> x[i] << 16
        y[i] = value.value


cdef inline float rounded_to_odd(floating x) noexcept nogil:
    """Cut off, and with the last bit set where that is less: rounded once more, it is as if it had
    been rounded once."""
    cdef FloatBits value
    value.value = <float> x
    if floating is double:
        value.bits -= fabs(value.value) > fabs(x)
        value.bits |= (value.value != x) & (x == x)
    return value.value


cdef inline void narrow_to_bfloat16(const floating *x, uint16_t *y, npy_intp n) noexcept nogil:
    """To the nearest, of two the even one; a NaN stays one."""
    cdef FloatBits value
    cdef uint32_t rounded
    cdef npy_intp i
    for i in range(n):
        value.value = rounded_to_odd(x[i])
        rounded = (value.bits + 0x7fff + (value.bits >> 16 & 1)) >> 16
        y[i] = <uint16_t> (rounded if value.value == value.value else value.bits >> 16 | 0x40)
