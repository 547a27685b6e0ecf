"""Fit the polynomials of ``arithmetic.pxd`` and print them in hexadecimal.

    python csoftmax/kernels/fit_coefficients.py

Needs mpmath. Each polynomial is the minimax one (Remez' exchange algorithm) in the error that
matters: relative to the function, on the interval that the argument reduction leaves. The error
printed is that of the rounded coefficients, evaluated in exact arithmetic; what the compiled code
adds to it is measured by ``tests/test_arithmetic.py``.
"""

import mpmath
import numpy as np
from mpmath import mp, mpf

mp.prec = 200


def minimax(target, weight, degree, interval, iterations=20):
    """Coefficients, lowest first, of the polynomial q that minimises max |weight (q - target)|."""
    low, high = (mpf(end) for end in interval)
    count = degree + 2
    nodes = [
        (low + high) / 2 - (high - low) / 2 * mpmath.cos(mpmath.pi * (i + mpf(1) / 2) / count)
        for i in range(count)
    ]
    grid = [low + (high - low) * i / 2000 for i in range(2001)]
    for _ in range(iterations):
        system = mpmath.matrix(count, count)
        right = mpmath.matrix(count, 1)
        for row, x in enumerate(nodes):
            for power in range(degree + 1):
                system[row, power] = x**power
            system[row, degree + 1] = (-1) ** row / weight(x)
            right[row] = target(x)
        coefficients = list(mpmath.lu_solve(system, right))[: degree + 1]
        errors = [weight(x) * (mpmath.polyval(coefficients[::-1], x) - target(x)) for x in grid]
        nodes = alternating_extrema(grid, errors, count)
    return coefficients


def alternating_extrema(grid, errors, count):
    """The `count` points where the error peaks with alternating sign."""
    peaks = []
    for i, error in enumerate(errors):
        if peaks and (errors[peaks[-1]] > 0) == (error > 0):
            if abs(error) > abs(errors[peaks[-1]]):
                peaks[-1] = i
        else:
            peaks.append(i)
    while len(peaks) > count:
        peaks.pop(0 if abs(errors[peaks[0]]) < abs(errors[peaks[-1]]) else -1)
    if len(peaks) < count:
        raise ArithmeticError(f"the error has {len(peaks)} alternating peaks, {count} are needed")
    return [grid[i] for i in peaks]


def rounded(coefficients, dtype):
    return [dtype(mpmath.nstr(c, 40)) for c in coefficients]


def largest_relative_error(approximation, exact, interval):
    low, high = (mpf(end) for end in interval)
    points = (low + (high - low) * (i + mpf(1) / 3) / 4001 for i in range(4001))
    return max(abs(approximation(x) / exact(x) - 1) for x in points)


def report(title, coefficients, error, dtype):
    unit = mpf(float(np.finfo(dtype).eps)) / 2
    print(f"{title}\n  relative error {mpmath.nstr(error, 3)}, {mpmath.nstr(error / unit, 2)} u")
    for power, c in coefficients:
        print(f"  power {power:2}  {float(c).hex()}")


def fit_exp(dtype, degree):
    """exp(r) = 1 + r + r^2 q(r) on |r| <= ln2/2, the widest that rounding to the nearest n leaves.

    The interval is stretched by 2^-10, for n comes from a product that is rounded.
    """
    half = mpmath.log(2) / 2 * (1 + mpf(2) ** -10)
    interval = (-half, half)
    series = [1 / mpmath.factorial(k + 2) for k in range(30)]
    coefficients = minimax(
        target=lambda r: mpmath.polyval(series[::-1], r),
        weight=lambda r: (r * r + mpf(10) ** -12) * mpmath.exp(-r),
        degree=degree - 2,
        interval=interval,
    )
    coefficients = rounded(coefficients, dtype)
    exact_coefficients = [mpf(float(c)) for c in coefficients]
    error = largest_relative_error(
        lambda r: 1 + r + r * r * mpmath.polyval(exact_coefficients[::-1], r), mpmath.exp, interval
    )
    report(f"exp, {dtype.__name__}", enumerate(coefficients, 2), error, dtype)


def fit_log(dtype, degree):
    """log(1 + f) = 2 atanh(s) = 2 s + s^3 q(s^2), s = f / (2 + f), 1 + f in [2^-1/2, 2^1/2]."""
    largest = ((mpmath.sqrt(2) - 1) / (mpmath.sqrt(2) + 1)) ** 2
    interval = (mpf(0), largest)
    series = [mpf(2) / (2 * k + 3) for k in range(60)]

    def atanh_twice(z):
        return 2 + z * mpmath.polyval(series[::-1], z)

    coefficients = minimax(
        target=lambda z: mpmath.polyval(series[::-1], z),
        weight=lambda z: (z + mpf(10) ** -12) / atanh_twice(z),
        degree=degree,
        interval=interval,
    )
    coefficients = rounded(coefficients, dtype)
    exact_coefficients = [mpf(float(c)) for c in coefficients]
    error = largest_relative_error(
        lambda z: 2 + z * mpmath.polyval(exact_coefficients[::-1], z), atanh_twice, interval
    )
    report(f"log, {dtype.__name__}", enumerate(coefficients), error, dtype)


def fit_log_1p(dtype, degree):
    """log(1 + x) = x q(x) for x in [0, 1]."""
    interval = (mpf(0), mpf(1))

    def quotient(x):
        return mpmath.log1p(x) / x if x else mpf(1)

    coefficients = minimax(quotient, lambda x: 1 / quotient(x), degree, interval)
    coefficients = rounded(coefficients, dtype)
    exact_coefficients = [mpf(float(c)) for c in coefficients]
    error = largest_relative_error(
        lambda x: mpmath.polyval(exact_coefficients[::-1], x), quotient, interval
    )
    report(f"log1p, {dtype.__name__}", enumerate(coefficients), error, dtype)


def split(name, value, bits, dtype):
    """A constant as hi + lo, hi with so few bits that its product with an integer is exact."""
    mantissa, exponent = mpmath.frexp(value)
    hi = mpmath.floor(mantissa * 2**bits) * mpf(2) ** (exponent - bits)
    lo = rounded([value - hi], dtype)[0]
    print(f"{name}, {dtype.__name__}: {float(hi).hex()} + {float(lo).hex()}")


if __name__ == "__main__":
    fit_exp(np.float32, 6)
    fit_exp(np.float64, 11)
    fit_log(np.float64, 6)
    fit_log_1p(np.float32, 10)
    # |n| <= 512 has 10 bits in float32 (15 + 10 > 24 only where n's last bit is 0), 13 in float64.
    split("ln2", mpmath.log(2), 15, np.float32)
    split("ln2", mpmath.log(2), 40, np.float64)
