# cython: language_level=3
"""Inline arithmetic on single numbers, free of branches, so that loops over it become vector code.

Nothing here knows of rows, strides or threads. Each algorithm stands once for float and double, and
only constants differ. `fit_coefficients.py` makes the coefficients.

The exponential whose shift does not round
------------------------------------------
The textbook's exp(x - max) rounds the difference: at x - max = -16 that alone costs 8 ULP. Here the
shift is a power of two. With N = round(max / ln2), once per row,

    exp(x) / 2^N = 2^(n - N) exp(r),    n = round(x / ln2),    r = x - n ln2,    |r| <= ln2 / 2

where n ln2 is subtracted in two parts, the first of them exact. Adding `magic` = 1.5 2^23 + 127 - N
(double: 1.5 2^52 + 1023 - N) to x / ln2 rounds it and leaves n - N + 127 in the last bits of the
sum; shifted left they are the float 2^(n - N). `lowest` clamps x where these bits are 0: what lies
below, -inf too, becomes exactly 0, and a NaN passes the comparison and stays.

That needs n ln2_hi to be exact, hence a limit to |x|. Where the maximum is beyond it, max itself is
subtracted first: every difference that does not underflow in exp is then exact (Sterbenz' lemma).

With a temperature T, r = x / T - n ln2, where 1 / T is a sum hi + lo. T is from 1e-30 to 1e30: what
is beyond changes the logits when they are loaded (engine.pxi).
"""

from cython cimport floating
from libc.math cimport fabs, rint
from libc.stdint cimport uint32_t, uint64_t


cdef extern from * nogil:
    """
    #include <math.h>
    #include <stdint.h>
    #if defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
    #error "csoftmax relies on NaN, infinities and rounding as written: leave -ffast-math out"
    #endif

    /* Contraction is off (-ffp-contract=off): a product and a sum are fused only where the source
       says so, and every compiler computes the same. Without an FMA instruction fma() is a slow
       call; there, two roundings cost an ULP more. What a product's rounding lost is then made of
       the halves of its factors (Dekker's product, whose splits here can't overflow). */
    #if defined(__FMA__) || defined(__AVX2__) || defined(FP_FAST_FMA)
    #define csoftmax_fmaf(a, b, c) fmaf(a, b, c)
    #define csoftmax_fma(a, b, c) fma(a, b, c)
    #define CSOFTMAX_HAS_FMA 1
    static CYTHON_INLINE float csoftmax_product_errorf(float a, float b, float product) {
        return fmaf(a, b, -product);
    }
    static CYTHON_INLINE double csoftmax_product_error(double a, double b, double product) {
        return fma(a, b, -product);
    }
    #else
    #define csoftmax_fmaf(a, b, c) ((a) * (b) + (c))
    #define csoftmax_fma(a, b, c) ((a) * (b) + (c))
    #define CSOFTMAX_HAS_FMA 0
    static CYTHON_INLINE float csoftmax_product_errorf(float a, float b, float product) {
        return (float) ((double) a * b - product);
    }
    static CYTHON_INLINE double csoftmax_first_half(double x) {
        union { double value; uint64_t bits; } half = {x};
        half.bits &= ~(uint64_t) 0 << 27;
        return half.value;
    }
    static CYTHON_INLINE double csoftmax_product_error(double a, double b, double product) {
        double a_hi = csoftmax_first_half(a), a_lo = a - a_hi;
        double b_hi = csoftmax_first_half(b), b_lo = b - b_hi;
        return ((a_hi * b_hi - product) + a_hi * b_lo + a_lo * b_hi) + a_lo * b_lo;
    }
    #endif

    /* exp(r) on |r| <= ln2 / 2, index = power of r. Error of the polynomial, with u half an ULP
       of 1: 0.073 u in float, 0.087 u in double. */
    static const float EXP_FLOAT[7] = {
        1.0f, 1.0f, 0x1.fffffcp-2f, 0x1.555490p-3f, 0x1.5558f4p-5f, 0x1.123a68p-7f,
        0x1.6a2358p-10f};
    static const double EXP_DOUBLE[12] = {
        1.0, 1.0, 0x1.000000000000ap-1, 0x1.55555555554f9p-3, 0x1.55555555507f4p-5,
        0x1.1111111127e72p-7, 0x1.6c16c1844a25bp-10, 0x1.a01a0129b8a46p-13, 0x1.a01999b042a7dp-16,
        0x1.71df26269570bp-19, 0x1.28adcc0ff9da7p-22, 0x1.ad7f057e53cbap-26};

    /* (2 atanh(s) - 2 s) / s^3 on |s| <= 0.1716, index = power of s^2. Error 0.013 u. */
    static const double LOG_DOUBLE[7] = {
        0x1.5555555555592p-1, 0x1.999999997fee8p-2, 0x1.24924941e0cdap-2, 0x1.c71c521645536p-3,
        0x1.74663c54b8cd1p-3, 0x1.39a1fb81adf5ap-3, 0x1.2f02e69a9410bp-3};

    /* log(1 + x) / x on [0, 1], index = power of x. Error 0.22 u. */
    static const float LOG_1P_FLOAT[11] = {
        1.0f, -0x1.fffff4p-2f, 0x1.55534ep-2f, -0x1.ffbd44p-3f, 0x1.975cccp-3f, -0x1.49d832p-3f,
        0x1.fca8b4p-4f, -0x1.51ae64p-4f, 0x1.53ca14p-5f, -0x1.b75666p-7f, 0x1.0a1b84p-9f};

    /* ln2 = hi + lo, hi so short that its product with any n in use is exact, also without FMA. */
    static const float LN2_HI_FLOAT = 0x1.62e4p-1f, LN2_LO_FLOAT = 0x1.7f7d1cp-20f;
    static const double LN2_HI_DOUBLE = 0x1.62e42fefa2p-1, LN2_LO_DOUBLE = 0x1.9ef35793c7673p-41;
    static const double LOG2_E = 0x1.71547652b82fep+0, LN2 = 0x1.62e42fefa39efp-1;
    static const double SQRT_HALF = 0x1.6a09e667f3bcdp-1;

    /* By Horner's rule, c[first] the coefficient of the highest power, c[last] the one without x.
       Loops over lanes become vectors only if this one is unrolled before. */
    #define CSOFTMAX_POLYNOMIAL(name, type, multiply_add) \\
        static CYTHON_INLINE type name(const type *c, int first, int last, type x) { \\
            type sum = c[first]; \\
            _Pragma("GCC unroll 16") \\
            for (int k = first - 1; k >= last; k--) \\
                sum = multiply_add(sum, x, c[k]); \\
            return sum; \\
        }
    CSOFTMAX_POLYNOMIAL(polynomial_in_float, float, csoftmax_fmaf)
    CSOFTMAX_POLYNOMIAL(polynomial, double, csoftmax_fma)
    """
    float polynomial_in_float(const float *, int, int, float) noexcept
    double polynomial(const double *, int, int, double) noexcept
    float csoftmax_fmaf(float, float, float) noexcept
    double csoftmax_fma(double, double, double) noexcept
    float csoftmax_product_errorf(float, float, float) noexcept
    double csoftmax_product_error(double, double, double) noexcept
    const bint CSOFTMAX_HAS_FMA
    double exact_fma "fma"(double, double, double) noexcept
    const float EXP_FLOAT[7]
    const double EXP_DOUBLE[12]
    const double LOG_DOUBLE[7]
    const float LOG_1P_FLOAT[11]
    const float LN2_HI_FLOAT, LN2_LO_FLOAT
    const double LN2_HI_DOUBLE, LN2_LO_DOUBLE, LOG2_E, LN2, SQRT_HALF


cdef union FloatBits:
    float value
    uint32_t bits


cdef union DoubleBits:
    double value
    uint64_t bits


cdef struct DoubleDouble:
    # An unevaluated sum: hi + lo carries twice the digits of one double.
    double hi
    double lo


cdef enum Kind:
    # What a row needs beside the bare exponential. Each kind is a loop of its own: callers pass it
    # as a constant and the compiler drops what the kind leaves out.
    PLAIN      # nothing
    GENERAL    # a temperature, a shift, or both

cdef struct ExpParams:
    # How the logits of one row become exponentials: exp(x / T) / 2^N, see the head of this file.
    double power        # N
    double magic
    double lowest       # where x - shift is below it, the exponential is 0
    double shift        # 0, or the row's maximum where that is large
    double log2_e       # 1 / (T ln2)
    double inverse_hi   # 1 / T
    double inverse_lo
    double residue      # r of the row's maximum


cdef inline floating multiply_add(floating a, floating b, floating c) noexcept nogil:
    """a b + c, rounded once where there is an FMA instruction."""
    if floating is float:
        return csoftmax_fmaf(a, b, c)
    else:
        return csoftmax_fma(a, b, c)


cdef inline floating product_error(floating a, floating b, floating product) noexcept nogil:
    """a b - product, where `product` is a b rounded; without an FMA instruction, too."""
    if floating is float:
        return csoftmax_product_errorf(a, b, product)
    else:
        return csoftmax_product_error(a, b, product)


cdef inline floating value_or_zero(floating value, bint condition) noexcept nogil:
    """value if condition else 0, also of NaN.

    In integers: written as a choice, GCC 12 may load numbers under the condition, and then uses the
    first vector's conditions for those after it (AVX2).
    """
    cdef FloatBits f
    cdef DoubleBits d
    if floating is float:
        f.value = value
        f.bits &= <uint32_t> 0 - <uint32_t> condition
        return f.value
    else:
        d.value = value
        d.bits &= <uint64_t> 0 - <uint64_t> condition
        return d.value


cdef inline DoubleDouble two_sum(double a, double b) noexcept nogil:
    """a + b without error (Knuth); neither need be the larger."""
    cdef DoubleDouble s
    cdef double b_part
    s.hi = a + b
    b_part = s.hi - a
    s.lo = (a - (s.hi - b_part)) + (b - b_part)
    return s


cdef inline DoubleDouble from_double(double x) noexcept nogil:
    cdef DoubleDouble s
    s.hi = x
    s.lo = 0
    return s


# On what belongs to a row, for results of either type. For floats a double has digits to spare: the
# errors of double are left out, and lo is 0.

cdef inline DoubleDouble dd_sum(double a, double b, floating type_tag) noexcept nogil:
    return from_double(a + b) if floating is float else two_sum(a, b)


cdef inline DoubleDouble dd_add(
    DoubleDouble a, DoubleDouble b, floating type_tag
) noexcept nogil:
    cdef DoubleDouble s = dd_sum[floating](a.hi, b.hi, 0)
    if floating is double:
        s.lo += a.lo + b.lo
    return s


cdef inline DoubleDouble dd_mul(
    DoubleDouble a, DoubleDouble b, floating type_tag
) noexcept nogil:
    """exact_fma is libm's: slow where there is no such instruction, but used a few times a row."""
    cdef DoubleDouble product = from_double(a.hi * b.hi)
    if floating is double:
        product.lo = exact_fma(a.hi, b.hi, -product.hi) + (a.hi * b.lo + a.lo * b.hi)
    return product


cdef inline DoubleDouble dd_reciprocal(DoubleDouble s, floating type_tag) noexcept nogil:
    cdef DoubleDouble inverse = from_double(1.0 / s.hi)
    if floating is double:
        inverse.lo = inverse.hi * (exact_fma(-inverse.hi, s.hi, 1.0) - inverse.hi * s.lo)
    return inverse


cdef inline floating exp_quotient(floating r) noexcept nogil:
    """(exp(r) - 1 - r) / r^2 for |r| <= ln2 / 2."""
    if floating is float:
        return polynomial_in_float(EXP_FLOAT, 6, 2, r)
    else:
        return polynomial(EXP_DOUBLE, 11, 2, r)


cdef inline floating exp_polynomial(floating r, floating one) noexcept nogil:
    """exp(r) - 1 + one for |r| <= ln2 / 2."""
    return multiply_add(multiply_add(exp_quotient(r), r, 1), r, one)


cdef inline DoubleDouble exp_dd(double r, floating type_tag) noexcept nogil:
    """exp(r) for |r| <= ln2 / 2 with two more bits than a double has."""
    return dd_sum[floating](1.0, multiply_add(exp_quotient(r), r * r, r), 0)


cdef inline floating times_power_of_two(floating p, floating t) noexcept nogil:
    """p 2^j, where j + 127 (double: j + 1023) stands in the last bits of t; 0 where that is 0."""
    cdef FloatBits f
    cdef DoubleBits d
    if floating is float:
        f.value = t
        f.bits <<= 23
        return p * f.value
    else:
        d.value = t
        d.bits <<= 52
        return p * d.value


cdef inline double power_of_two(double k) noexcept nogil:
    """2^k for an integer k in the range of normal numbers."""
    cdef DoubleBits power
    power.value = 4503599627370496.0 + 1023.0 + k    # 2^52: the integer stands in the last bits
    power.bits <<= 52
    return power.value


cdef inline floating exp_or_less_one(
    floating x, const ExpParams *params, Kind kind, bint may_be_less_one, bint *is_less_one
) noexcept nogil:
    """`exponential`; or, where |x| is at most about ln2 / 2, exp(x) - 1, which has the digits of a
    small x: of the polynomial all but its 1. For N = 0."""
    cdef floating magic = <floating> params.magic
    cdef floating ln2_hi = LN2_HI_FLOAT if floating is float else LN2_HI_DOUBLE
    cdef floating ln2_lo = LN2_LO_FLOAT if floating is float else LN2_LO_DOUBLE
    cdef floating t, n, r, quotient, one = 1
    if kind == GENERAL:
        x = x - <floating> params.shift
    if x < <floating> params.lowest:
        x = <floating> params.lowest
    t = multiply_add(x, <floating> (params.log2_e if kind == GENERAL else LOG2_E), magic)
    n = t - magic
    if kind == GENERAL:
        # The large parts cancel in one rounding; the two small ones follow.
        if CSOFTMAX_HAS_FMA:
            r = multiply_add(x, <floating> params.inverse_hi, -ln2_hi * n)
        else:
            quotient = x * <floating> params.inverse_hi
            r = product_error(x, <floating> params.inverse_hi, quotient) + (quotient - ln2_hi * n)
        r = multiply_add(x, <floating> params.inverse_lo, multiply_add(-ln2_lo, n, r))
    else:
        r = multiply_add(-ln2_lo, n, multiply_add(-ln2_hi, n, x))
    if may_be_less_one:
        is_less_one[0] = n == 0
        one = value_or_zero(one, n != 0)
    return times_power_of_two(exp_polynomial(r, one), t)


cdef inline floating exponential(
    floating x, const ExpParams *params, Kind kind
) noexcept nogil:
    """exp(x / T) / 2^N.

    Largest error measured: 0.85 ULP in float, 0.93 in double; without FMA 1.09 and 1.22.
    """
    cdef bint is_less_one
    return exp_or_less_one(x, params, kind, False, &is_less_one)


cdef inline double largest_unshifted(floating type_tag) noexcept nogil:
    """Up to this size logits are used as they are; |n| then stays below 512 (double: 4096)."""
    return 256.0 if floating is float else 2048.0


cdef inline ExpParams exp_params(
    double maximum, double temperature, bint is_tempered, floating type_tag
) noexcept nogil:
    """Of a row that has this finite maximum. Free of branches.

    Where no row of a tile has a temperature, `is_tempered` leaves out calls and divisions that
    short rows would feel.
    """
    cdef ExpParams params
    cdef double bias = 127.0 if floating is float else 1023.0
    cdef double z = maximum
    params.inverse_hi = 1.0
    params.inverse_lo = 0.0
    params.log2_e = LOG2_E
    if is_tempered:
        params.inverse_hi = 1.0 / temperature
        params.inverse_lo = exact_fma(-params.inverse_hi, temperature, 1.0) / temperature
        params.log2_e = LOG2_E / temperature
    else:
        temperature = 1.0
    params.shift = 0.0
    if not fabs(z * params.inverse_hi) < largest_unshifted[floating](0):
        params.shift = maximum
        z = 0.0
    params.power = rint(z * params.log2_e)
    if is_tempered:
        params.residue = exact_fma(z, params.inverse_hi, -LN2_HI_DOUBLE * params.power)
        params.residue += z * params.inverse_lo - LN2_LO_DOUBLE * params.power
    else:
        params.residue = (z - LN2_HI_DOUBLE * params.power) - LN2_LO_DOUBLE * params.power
    params.magic = (12582912.0 if floating is float else 6755399441055744.0) + bias - params.power
    params.lowest = (params.power - bias) * LN2 * temperature
    if floating is float:
        params.inverse_lo = params.inverse_hi - <float> params.inverse_hi
    return params


cdef inline DoubleDouble log_1p(DoubleDouble r) noexcept nogil:
    """log(1 + r) for r >= 0, as a sum whose parts overlap: what is added to it is rounded once.

    1 + r = 2^k m, sqrt(1/2) <= m < sqrt(2), what 1 + r rounds away is carried along; with m = 1 + f
    and s = f / (2 + f), log(m) = 2 atanh(s), arranged so that f enters unrounded. What is carried
    along is divided by 1 + f, of which 1 - f + f^2 is enough. Largest error measured: 1.06 ULP,
    for r < 1; 0.54 for r > 1.
    """
    cdef DoubleDouble one_plus_r = two_sum(1.0, r.hi), total
    cdef DoubleBits mantissa, exponent, reciprocal_power
    cdef double k, f, rest, half_square, s, z, q
    mantissa.value = one_plus_r.hi
    exponent.value = SQRT_HALF
    exponent.bits = (mantissa.bits - exponent.bits) >> 52
    mantissa.bits -= exponent.bits << 52
    reciprocal_power.bits = (1023 - exponent.bits) << 52
    exponent.bits |= <uint64_t> 0x4330000000000000    # of 2^52: an integer to a double without a
    k = exponent.value - 4503599627370496.0           # conversion, which AVX2 has not
    f = mantissa.value - 1.0
    rest = (one_plus_r.lo + r.lo) * reciprocal_power.value
    rest = multiply_add(-rest, multiply_add(-f, f, f), rest)
    half_square = 0.5 * f * f
    s = f / (2.0 + f)
    z = s * s
    q = polynomial(LOG_DOUBLE, 6, 0, z) * z
    rest = multiply_add(s, half_square + q, multiply_add(k, LN2_LO_DOUBLE, rest))
    total = two_sum(k * LN2_HI_DOUBLE, f)
    total.lo += rest - half_square
    return total


cdef inline floating log_1p_up_to_one(floating x) noexcept nogil:
    """log(1 + x) for 0 <= x <= 1 in the type of x, for floats in half the operations."""
    cdef DoubleDouble log_sum
    if floating is float:
        return multiply_add(polynomial_in_float(LOG_1P_FLOAT, 10, 1, x) * x, x, x)
    else:
        log_sum = log_1p(from_double(x))
        return log_sum.hi + log_sum.lo


cdef inline floating minus_log_1p(floating start, floating x) noexcept nogil:
    """start - log(1 + x) for start <= 0 and 0 <= x <= 1. The small parts come first: with their sum
    rounded before, log_sigmoid of floats was off by up to 2.04 ULP, else by 1.83."""
    cdef DoubleDouble log_sum
    if floating is float:
        return multiply_add(-(polynomial_in_float(LOG_1P_FLOAT, 10, 1, x) * x), x, start) - x
    else:
        log_sum = log_1p(from_double(x))
        return (start - log_sum.lo) - log_sum.hi
