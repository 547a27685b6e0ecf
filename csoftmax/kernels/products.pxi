"""Vector-Jacobian products of softmax and log_softmax.

x is y or log(y), the outcome of the forward function, and g the gradient with respect to it.
"""


# Functions with one loop each, called for each chunk: inlined in a loop over chunks, or two of them in
# one function, they are unrolled before they are made of vectors, and take five times as long.

cdef Sum softmax_product_sum(
    const floating *x, const floating *g, npy_intp n
) noexcept nogil:
    return sum_of_gradients(x, g, n, False)


cdef Sum log_softmax_product_sum(
    const floating *x, const floating *g, npy_intp n
) noexcept nogil:
    return sum_of_gradients(x, g, n, True)


cdef inline Sum product_sum(
    const floating *x, const floating *g, npy_intp n, Numbers numbers
) noexcept nogil:
    if numbers == SOFTMAX_PRODUCTS:
        return softmax_product_sum(x, g, n)
    return log_softmax_product_sum(x, g, n)


cdef inline floating exp_of_log(floating log_y, const Reduction *of_zero) noexcept nogil:
    """What is no logarithm of a probability may be so large that it would wrap around."""
    cdef floating largest = 88 if floating is float else 709
    return INFINITY if log_y > largest else exponential(log_y, of_zero, UNSHIFTED)


cdef inline floating difference(
    floating x, floating g, floating sum_hi, floating sum_lo, const Reduction *of_zero,
    Numbers numbers
) noexcept nogil:
    """y (g - sum) or g - y sum; 0 where y is 0."""
    cdef floating y
    if numbers == SOFTMAX_PRODUCTS:
        return value_or_zero(x * ((g - sum_hi) - sum_lo), x != 0)
    y = exp_of_log(x, of_zero)
    return value_or_zero(multiply_add(-y, sum_hi, multiply_add(-y, sum_lo, g)), x != -INFINITY)


cdef inline floating over_temperature_of(
    floating difference, floating inverse_hi, floating inverse_lo
) noexcept nogil:
    """Times 1 / T in two parts: where g and y sum add up, each rounding is twice as large beside
    them, and with another one 4 ULP of the larger would not hold."""
    cdef floating low = difference * inverse_lo
    return multiply_add(difference, inverse_hi, value_or_zero(low, fabs(low) < INFINITY))


cdef inline void write_products(
    const floating *x, const floating *g, floating *y, npy_intp n, Sum sum, double temperature,
    Numbers numbers
) noexcept nogil:
    if numbers == SOFTMAX_PRODUCTS:    # constants, for a loop that does nothing for the other
        write_products_of(x, g, y, n, sum, temperature, SOFTMAX_PRODUCTS)
    else:
        write_products_of(x, g, y, n, sum, temperature, LOG_SOFTMAX_PRODUCTS)


cdef inline void write_products_of(
    const floating *x, const floating *g, floating *y, npy_intp n, Sum sum, double temperature,
    Numbers numbers
) noexcept nogil:
    """y may be x or g."""
    cdef npy_intp LANES = LANE_BYTES // <npy_intp> sizeof(floating)
    cdef floating hi = <floating> sum.hi
    cdef floating lo = <floating> (sum.hi - hi if floating is float else sum.lo)
    cdef Sum inverse = reciprocal(exactly(temperature))
    cdef floating inverse_hi = <floating> inverse.hi
    cdef floating inverse_lo = <floating> (
        inverse.hi - inverse_hi if floating is float else inverse.lo
    )
    cdef floating values[FLOAT_LANES]
    cdef Reduction of_zero = reduction(<floating> 0, 1.0)
    cdef npy_intp i = 0, k
    if not fabs(hi) < INFINITY:
        lo = 0
    if is_ordinary(temperature):
        while i + LANES <= n:
            for k in range(LANES):
                values[k] = over_temperature_of(
                    difference(x[i + k], g[i + k], hi, lo, &of_zero, numbers),
                    inverse_hi, inverse_lo,
                )
            for k in range(LANES):
                y[i + k] = values[k]
            i += LANES
    while i < n:
        values[0] = difference(x[i], g[i], hi, lo, &of_zero, numbers)
        y[i] = <floating> (values[0] / temperature) if values[0] != 0 else 0    # also if T = 0
        i += 1


cdef struct LongProducts:
    # What the threads that share a row need.
    const void *x
    const void *g
    void *y
    npy_intp n
    double temperature
    Chunk *chunks
    Numbers numbers
    Sum total


cdef void sum_products_of_chunks(
    void *work, npy_intp first, npy_intp last, int participant, const floating *type_tag
) noexcept nogil:
    cdef LongProducts *all = <LongProducts *> work
    cdef npy_intp length = chunk_length[floating](0), c, start
    for c in range(first, last):
        start = c * length
        all.chunks[c].row.others = product_sum(
            <floating *> all.x + start, <floating *> all.g + start, min(length, all.n - start),
            all.numbers,
        )


cdef void write_products_of_chunks(
    void *work, npy_intp first, npy_intp last, int participant, const floating *type_tag
) noexcept nogil:
    cdef LongProducts *all = <LongProducts *> work
    cdef npy_intp start = first * chunk_length[floating](0)
    write_products(
        <floating *> all.x + start, <floating *> all.g + start, <floating *> all.y + start,
        min(all.n, last * chunk_length[floating](0)) - start, all.total, all.temperature,
        all.numbers,
    )


cdef void products_of_row(
    const floating *x, const floating *g, floating *y, npy_intp n, double temperature,
    Chunk *chunks, int threads, Numbers numbers
) noexcept nogil:
    """Chunks are added up in their order, whichever thread they are from."""
    cdef npy_intp count = chunks_of[floating](n, 0), c
    cdef LongProducts all
    if count == 1:
        write_products(x, g, y, n, product_sum(x, g, n, numbers), temperature, numbers)
        return
    all.x = x
    all.g = g
    all.y = y
    all.n = n
    all.temperature = temperature
    all.chunks = chunks
    all.numbers = numbers
    all.total = exactly(0)
    share(<Work> sum_products_of_chunks[floating], &all, count, 1, n, threads)
    for c in range(count):
        all.total = plus(all.total, chunks[c].row.others)
    share(<Work> write_products_of_chunks[floating], &all, count, 1, n, threads)


cdef inline void products_of_columns(
    const floating *x, npy_intp x_step, floating *y, npy_intp y_step, npy_intp n, npy_intp rows,
    const RowOperands *operands, const floating *g, npy_intp g_step, Numbers numbers
) noexcept nogil:
    cdef npy_intp LANES = LANE_BYTES // <npy_intp> sizeof(floating)
    cdef npy_intp blocks = whole_lanes[floating](rows, 0) // LANES
    cdef double sum_hi[MAX_BATCH]
    cdef double sum_lo[MAX_BATCH]
    cdef floating hi[MAX_BATCH]
    cdef floating lo[MAX_BATCH]
    cdef floating inverse_hi[MAX_BATCH]
    cdef floating inverse_lo[MAX_BATCH]
    cdef Sum inverse
    cdef floating values[FLOAT_LANES]
    cdef Reduction of_zero = reduction(<floating> 0, 1.0)
    cdef npy_intp i, r, k, block
    for r in range(blocks * LANES):
        sum_hi[r] = 0
        sum_lo[r] = 0
        inverse = reciprocal(exactly(temperature_of(operands, min(r, rows - 1))))
        inverse_hi[r] = <floating> inverse.hi
        inverse_lo[r] = <floating> (
            inverse.hi - inverse_hi[r] if floating is float else inverse.lo
        )
    for i in range(n):
        for block in range(blocks):
            for k in range(LANES):
                r = block * LANES + k
                add_gradient(
                    sum_hi + r, sum_lo + r, x[i * x_step + r], g[i * g_step + r],
                    numbers == LOG_SOFTMAX_PRODUCTS,
                )
    for r in range(blocks * LANES):
        hi[r] = <floating> sum_hi[r]
        lo[r] = <floating> (sum_hi[r] - hi[r] if floating is float else sum_lo[r])
        if not fabs(hi[r]) < INFINITY:
            lo[r] = 0
    for i in range(n):
        for block in range(blocks):
            for k in range(LANES):
                r = block * LANES + k
                values[k] = over_temperature_of(
                    difference(
                        x[i * x_step + r], g[i * g_step + r], hi[r], lo[r], &of_zero, numbers
                    ),
                    inverse_hi[r], inverse_lo[r],
                )
            for k in range(LANES):
                y[i * y_step + block * LANES + k] = values[k]
    make_nans_alike(y, y_step, n, rows, sum_hi)


cdef void softmax_vjp_batch(
    const floating *x, Py_ssize_t x_step, floating *y, Py_ssize_t y_step, Py_ssize_t n,
    Py_ssize_t rows, const RowOperands *operands, const floating *g, Py_ssize_t g_step
) noexcept nogil:
    products_of_columns(
        x, x_step, y, y_step, n, rows, operands, g, g_step, SOFTMAX_PRODUCTS
    )


cdef void log_softmax_vjp_batch(
    const floating *x, Py_ssize_t x_step, floating *y, Py_ssize_t y_step, Py_ssize_t n,
    Py_ssize_t rows, const RowOperands *operands, const floating *g, Py_ssize_t g_step
) noexcept nogil:
    products_of_columns(
        x, x_step, y, y_step, n, rows, operands, g, g_step, LOG_SOFTMAX_PRODUCTS
    )
