"""References in more digits than the results have, and errors in units in the last place.

80-bit longdouble, which `test_exact.py` holds against mpmath: for float32 it is as good as exact,
for float64 it is off by 0.15 ULP at most, where probabilities are close to underflow.
"""

import numpy as np

LONG = np.longdouble
TINY = {np.dtype(np.float32): 2.0**-126, np.dtype(np.float64): 2.0**-1022}
MANTISSA_BITS = {np.dtype(np.float32): 24, np.dtype(np.float64): 53}


def limits_of(build):
    """The contract's largest errors in ULP, which depend on whether the build has FMA."""
    has_fma = build != "x86-64-v2"
    return {
        "softmax": 3 if has_fma else 4,
        "softmax with temperature": 4 if has_fma else np.inf,
        "log": 2 if has_fma else 3,
        "log, one class": 4 if has_fma else 5,
        "log with temperature": 4 if has_fma else np.inf,
        "gradient": 4 if has_fma else 5,
        "gradient with temperature": 4 if has_fma else np.inf,
    }


class Exact:
    """All that the functions can be asked of the rows of a 2-d array with finite maxima."""

    def __init__(self, x, temperature=1.0):
        x = x.astype(LONG)
        self.maximum = x.max(-1)
        self.argmax = x.argmax(-1)
        temperature = np.asarray(temperature, LONG).reshape(-1, 1)
        self.set_results((x - self.maximum[:, None]) / temperature)

    def set_results(self, d):
        """From (x - maximum) / T."""
        e = np.exp(d)
        others = np.where(np.arange(d.shape[-1]) == self.argmax[:, None], 0, e).sum(-1)
        self.log_sum = np.log1p(others)
        self.softmax = e / (1 + others)[:, None]
        self.log_softmax = d - self.log_sum[:, None]
        self.logsumexp = self.maximum + self.log_sum
        self.others_share = others / (1 + others)

    def loss(self, target):
        return -self.log_softmax[np.arange(len(target)), target]

    def gradient(self, target, temperature=1.0):
        rows = np.arange(len(target))
        gradient = self.softmax.copy()
        gradient[rows, target] = np.where(
            target == self.argmax, -self.others_share, gradient[rows, target] - 1
        )
        return gradient / np.asarray(temperature, LONG).reshape(-1, 1)


def largest_error(result, exact, dtype, scale=None):
    """The largest error in ULP of `scale`, by default the exact results.

    What is below the smallest normal number may be 0 instead: there the error is counted from the
    smallest normal's own ULP. Sums of so small terms lose digits accordingly and are left out.
    """
    dtype = np.dtype(dtype)
    scale = np.abs(exact if scale is None else scale)
    smallest = np.spacing(dtype.type(TINY[dtype]))
    ulp = np.maximum(np.spacing(scale.astype(dtype)), smallest).astype(LONG)
    error = np.abs(result.astype(LONG) - exact) / ulp
    return float(np.where(scale >= TINY[dtype], error, 0).max(initial=0))


def well_above_underflow(values, n, dtype):
    """Where none of n terms that were flushed to 0 could show in the last digit."""
    dtype = np.dtype(dtype)
    return np.abs(values) > n * TINY[dtype] * 2.0 ** MANTISSA_BITS[dtype]
