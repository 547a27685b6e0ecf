"""The arithmetic alone: the largest error of exp and log, as a table of ranges and limits."""

import numpy as np
import pytest

from .exact import LONG, largest_error
from .helpers import from_kernels

LN2 = np.log(LONG(2))

# Function, its exact value, interval, and largest error in ULP of float32 and float64 with FMA,
# measured on random points, and on all around multiples of ln2 / 2, where the reduced argument is
# largest.
TABLE = [
    ("exp", np.exp, (-0.5, 0), 1.0, 1.0),
    ("exp", np.exp, (-87, 0), 1.2, 1.2),
    ("exp", np.exp, (-700, -87), None, 1.2),
    ("log_1p_of", np.log1p, (0, 1e-3), 0.501, 1.0),
    ("log_1p_of", np.log1p, (0, 1), 0.501, 1.1),
    ("log_1p_of", np.log1p, (1, 1000), 0.501, 1.0),
    ("log_1p_of", np.log1p, (1e3, 1e9), 0.501, 1.0),
]


def points(interval, dtype):
    low, high = interval
    x = np.random.default_rng(0).uniform(low, high, size=200_000)
    edges = np.arange(max(low, -1000) / 0.3465, min(high, 1000) / 0.3465) * (LN2 / 2)
    near = [edges.astype(dtype) * (1 + k * np.finfo(dtype).eps) for k in range(-3, 4)]
    x = np.concatenate([x, *near]).astype(dtype)
    return x[(x >= low) & (x <= high)]


@pytest.mark.parametrize(("name", "exact", "interval", "in_float", "in_double"), TABLE)
def test_largest_error(name, exact, interval, in_float, in_double, dtype, build):
    limit = in_float if dtype == np.float32 else in_double
    if limit is None:
        return
    if build == "x86-64-v2" and name == "exp":
        limit += 0.5
    x = points(interval, dtype)
    assert largest_error(from_kernels(name, x), exact(x.astype(LONG)), dtype) <= limit


def test_exp_is_exactly_0_or_1_where_it_should_be(dtype, build):
    x = np.array([0, -0.0, -np.inf, -1e30, np.nan], dtype)
    np.testing.assert_array_equal(from_kernels("exp", x), [1, 1, 0, 0, np.nan])
