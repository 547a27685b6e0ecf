"""Copies of rows to columns and back, masked ones, and from float16."""

cdef float WIDENING = 2.0**112

cdef extern from * nogil:
    """
    #include <string.h>

    /* y[j][i] = x[i][j], four by four; steps in bytes. A row has so few numbers that loops over
       them become moves of single numbers, which take twice as long as everything else. */
    #if defined(__has_builtin)
    #if __has_builtin(__builtin_shufflevector)
    #define CSOFTMAX_SHUFFLES 1
    #endif
    #endif

    #ifdef CSOFTMAX_SHUFFLES
    typedef float csoftmax_floats __attribute__((vector_size(16)));
    typedef double csoftmax_doubles __attribute__((vector_size(16)));

    static inline void csoftmax_transpose_floats(
        const char *x, ptrdiff_t x_step, char *y, ptrdiff_t y_step)
    {
        csoftmax_floats a, b, c, d, low, high, column;
        memcpy(&a, x, 16);
        memcpy(&b, x + x_step, 16);
        memcpy(&c, x + 2 * x_step, 16);
        memcpy(&d, x + 3 * x_step, 16);
        low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
        high = __builtin_shufflevector(c, d, 0, 4, 1, 5);
        column = __builtin_shufflevector(low, high, 0, 1, 4, 5);
        memcpy(y, &column, 16);
        column = __builtin_shufflevector(low, high, 2, 3, 6, 7);
        memcpy(y + y_step, &column, 16);
        low = __builtin_shufflevector(a, b, 2, 6, 3, 7);
        high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
        column = __builtin_shufflevector(low, high, 0, 1, 4, 5);
        memcpy(y + 2 * y_step, &column, 16);
        column = __builtin_shufflevector(low, high, 2, 3, 6, 7);
        memcpy(y + 3 * y_step, &column, 16);
    }

    static inline void csoftmax_transpose_two_doubles(
        const char *x, ptrdiff_t x_step, char *y, ptrdiff_t y_step)
    {
        csoftmax_doubles a, b, column;
        memcpy(&a, x, 16);
        memcpy(&b, x + x_step, 16);
        column = __builtin_shufflevector(a, b, 0, 2);
        memcpy(y, &column, 16);
        column = __builtin_shufflevector(a, b, 1, 3);
        memcpy(y + y_step, &column, 16);
    }

    static inline void csoftmax_transpose_doubles(
        const char *x, ptrdiff_t x_step, char *y, ptrdiff_t y_step)
    {
        csoftmax_transpose_two_doubles(x, x_step, y, y_step);
        csoftmax_transpose_two_doubles(x + 16, x_step, y + 2 * y_step, y_step);
        csoftmax_transpose_two_doubles(x + 2 * x_step, x_step, y + 16, y_step);
        csoftmax_transpose_two_doubles(x + 2 * x_step + 16, x_step, y + 2 * y_step + 16, y_step);
    }
    #else
    #define CSOFTMAX_TRANSPOSE(name, type) \
        static void name(const char *x, ptrdiff_t x_step, char *y, ptrdiff_t y_step) \
        { \
            int i, j; \
            for (i = 0; i < 4; i++) { \
                for (j = 0; j < 4; j++) { \
                    memcpy(y + j * y_step + i * sizeof(type), \
                           x + i * x_step + j * sizeof(type), sizeof(type)); \
                } \
            } \
        }
    CSOFTMAX_TRANSPOSE(csoftmax_transpose_floats, float)
    CSOFTMAX_TRANSPOSE(csoftmax_transpose_doubles, double)
    #endif
    """
    void csoftmax_transpose_floats(const char *, npy_intp, char *, npy_intp)
    void csoftmax_transpose_doubles(const char *, npy_intp, char *, npy_intp)


cdef inline floating *at(char *base, npy_intp offset, floating type_tag) noexcept nogil:
    return <floating *> (base + offset)


cdef inline void transpose_four(
    char *x, npy_intp x_step, char *y, npy_intp y_step, floating type_tag
) noexcept nogil:
    if floating is float:
        csoftmax_transpose_floats(x, x_step, y, y_step)
    else:
        csoftmax_transpose_doubles(x, x_step, y, y_step)


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


cdef inline void to_columns(
    char *x, npy_intp row_step, npy_intp number_step, floating *tile, npy_intp width,
    npy_intp rows, npy_intp n
) noexcept nogil:
    """Numbers of a row go under one another, `width` apart."""
    cdef npy_intp size = sizeof(floating), r = 0, i
    if row_step == size:
        for i in range(n):
            copy_numbers(at[floating](x, i * number_step, 0), tile + i * width, rows)
        return
    if number_step == size:
        while r + 4 <= rows and n >= 4:
            i = 0
            while i < n:
                i = min(i, n - 4)    # the last step overlaps the one before
                transpose_four[floating](
                    x + r * row_step + i * size, row_step, <char *> (tile + i * width + r),
                    width * size, 0,
                )
                i += 4
            r += 4
    while r < rows:
        for i in range(n):
            tile[i * width + r] = at[floating](x, r * row_step + i * number_step, 0)[0]
        r += 1


cdef inline void from_columns(
    floating *tile, npy_intp width, char *y, npy_intp row_step, npy_intp number_step,
    npy_intp rows, npy_intp n
) noexcept nogil:
    cdef npy_intp size = sizeof(floating), r = 0, i
    if row_step == size:
        for i in range(n):
            copy_numbers(tile + i * width, at[floating](y, i * number_step, 0), rows)
        return
    if number_step == size:
        while r + 4 <= rows and n >= 4:
            i = 0
            while i < n:
                i = min(i, n - 4)
                transpose_four[floating](
                    <char *> (tile + i * width + r), width * size,
                    y + r * row_step + i * size, row_step, 0,
                )
                i += 4
            r += 4
    while r < rows:
        for i in range(n):
            at[floating](y, r * row_step + i * number_step, 0)[0] = tile[i * width + r]
        r += 1


cdef inline void copy_to_rows(
    char *x, npy_intp row_step, npy_intp number_step, floating *y, npy_intp y_step,
    npy_intp rows, npy_intp n
) noexcept nogil:
    cdef npy_intp i, r
    for i in range(n):
        for r in range(rows):
            y[r * y_step + i] = at[floating](x, r * row_step + i * number_step, 0)[0]


cdef inline void copy_from_rows(
    const floating *x, npy_intp x_step, char *y, npy_intp row_step, npy_intp number_step,
    npy_intp rows, npy_intp n
) noexcept nogil:
    cdef npy_intp i, r
    for i in range(n):
        for r in range(rows):
            at[floating](y, r * row_step + i * number_step, 0)[0] = x[r * x_step + i]


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


cdef inline void copy_masked_run(
    char *x, npy_intp stride, const char *mask, npy_intp mask_stride, floating *y, npy_intp count
) noexcept nogil:
    """To numbers that are contiguous. Not by way of local arrays, as bytes and numbers make vectors
    of other sizes there, for which the next load waits."""
    cdef npy_intp i
    if stride == <npy_intp> sizeof(floating) and mask_stride == 1:
        for i in range(count):
            y[i] = kept_or_minus_infinity((<floating *> x)[i], mask[i])
    else:
        for i in range(count):
            y[i] = kept_or_minus_infinity(at[floating](x, i * stride, 0)[0], mask[i * mask_stride])


cdef inline void copy_masked(
    char *x, npy_intp row_step, npy_intp number_step, const char *mask, npy_intp mask_row_step,
    npy_intp mask_step, floating *y, npy_intp y_row_step, npy_intp y_step, npy_intp rows,
    npy_intp n
) noexcept nogil:
    """y has steps in numbers, one of them 1. Short rows are masked while they are contiguous, and
    then moved to columns."""
    cdef floating masked[FEW * FLOAT_LANES]
    cdef npy_intp size = sizeof(floating), r = 0, count, i
    if y_step == 1:
        for r in range(rows):
            copy_masked_run(
                x + r * row_step, number_step, mask + r * mask_row_step, mask_step,
                y + r * y_row_step, n,
            )
    elif row_step == size:
        for i in range(n):
            copy_masked_run(
                x + i * number_step, size, mask + i * mask_step, mask_row_step, y + i * y_step,
                rows,
            )
    else:
        while r < rows:
            count = min(rows - r, FEW * FLOAT_LANES // n)
            if row_step == n * number_step and mask_row_step == n * mask_step:
                copy_masked_run(
                    x + r * row_step, number_step, mask + r * mask_row_step, mask_step, masked,
                    count * n,
                )
            else:
                for i in range(count):
                    copy_masked_run(
                        x + (r + i) * row_step, number_step, mask + (r + i) * mask_row_step,
                        mask_step, masked + i * n, n,
                    )
            to_columns(<char *> masked, n * size, size, y + r, y_step, count, n)
            r += count


cdef void widen(const uint16_t *x, float *y, npy_intp n) noexcept nogil:
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
        value.value *= WIDENING
        value.bits |= (<uint32_t> 0 - <uint32_t> (digits >= 0x7c00)) & 0x7f800000
        value.bits |= <uint32_t> (x[i] & 0x8000) << 16
        y[i] = value.value
