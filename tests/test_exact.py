"""The references themselves, against arbitrary precision."""

import mpmath
import numpy as np
import pytest

from .cases import KINDS, rows
from .exact import LONG, Exact, largest_error

# ULP of float64: a difference of 700 has an error of 700 * 2^-65 in longdouble, 0.1 ULP of its exp.
GOOD_TO = 0.15


def test_long_double_has_the_digits_that_the_references_need():
    assert np.finfo(LONG).nmant >= 63


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_long_double_references_agree_with_mpmath(kind):
    x = rows(kind, 3, 20, np.float64, seed=1)
    exact = Exact(x)
    with mpmath.workprec(200):
        for i, row in enumerate(x):
            numbers = [mpmath.mpf(float(value)) for value in row]
            maximum = max(numbers)
            total = mpmath.fsum(mpmath.exp(value - maximum) for value in numbers)
            for j, value in enumerate(numbers):
                logarithm = value - maximum - mpmath.log(total)
                if logarithm < -11000:    # less than the smallest longdouble
                    assert exact.softmax[i, j] == 0
                    continue
                probability = LONG(mpmath.nstr(mpmath.exp(logarithm), 30))
                assert largest_error(exact.softmax[i, j], probability, np.float64) < GOOD_TO
                logarithm = LONG(mpmath.nstr(logarithm, 30))
                assert largest_error(exact.log_softmax[i, j], logarithm, np.float64) < GOOD_TO
