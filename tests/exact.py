"""References in more digits than the results have, and errors in units in the last place.

80-bit longdouble, which `test_exact.py` holds against mpmath: for float32 it is as good as exact,
for float64 it is off by 0.15 ULP at most, where probabilities are close to underflow.
"""

import numpy as np

LONG = np.longdouble
INF, NAN = np.inf, np.nan
F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
TINY = {F32: 2.0**-126, F64: 2.0**-1022}
MAX = {F32: float(np.finfo(F32).max), F64: float(np.finfo(F64).max)}
EPS = {F32: float(np.finfo(F32).eps), F64: float(np.finfo(F64).eps)}
MANTISSA_BITS = {F32: 24, F64: 53}


# By name: types of other libraries have the characters and kinds of NumPy's.
IN_FLOAT32 = {"float32", "float16", "bfloat16", "bool", "int8", "uint8", "int16", "uint16"}


def computed_type(dtype):
    return F32 if dtype.name in IN_FLOAT32 else F64


def limits_of(build):
    """The contract's largest errors in ULP, which depend on whether the build has FMA."""
    has_fma = build != "x86-64-v2"
    return {
        "softmax": 3 if has_fma else 4,
        "softmax with temperature": 4 if has_fma else 5,
        "log": 2 if has_fma else 3,
        "log, one class": 4 if has_fma else 5,
        "log with temperature": 4 if has_fma else 5,
        "gradient": 4 if has_fma else 5,
        "gradient with temperature": 4 if has_fma else 5,
        # A probability's error, and half an ULP for each of four roundings.
        "Hessian": 5 if has_fma else 6,
        "Hessian with temperature": 6 if has_fma else 7,
        "sigmoid": 3,
        "binary loss": 3 if has_fma else 4,
        # Of which two more products are rounded.
        "binary loss with weights": 5 if has_fma else 6,
        # Relative errors.
        "divergence, float32": 1e-5 if has_fma else 1e-4,
        "divergence, float64": 1e-12,
    }


class Exact:
    """Softmax and what belongs to it, of the rows of a 2-d array, with a temperature of each.

    Of any rows: `defined` are those that have a softmax. The others' results mean nothing.
    """

    def __init__(self, x, temperature=1.0, where=True):
        self.x = x = np.where(where, x.astype(LONG), -INF)
        count, n = x.shape
        temperature = np.broadcast_to(np.asarray(temperature, LONG).reshape(-1, 1), (count, 1))
        self.temperature = temperature[:, 0]
        self.tempered = bool((temperature != 1).any())
        self.maximum = x.max(-1, initial=-INF)
        self.defined = np.isfinite(self.maximum)
        self.argmax = x.argmax(-1) if n else np.zeros(count, int)
        # At temperature 0 the first maximum, at infinity any of what is there.
        self.is_choice = (self.temperature == 0) | (self.temperature == INF)
        if not self.is_choice.any():
            self.set_results((x - self.maximum[:, None]) / temperature)
            return
        d = (x - self.maximum[:, None]) / np.where(temperature == 0, 1, temperature)
        first = np.arange(n) == self.argmax[:, None]
        d = np.where(temperature == 0, np.where(first, 0, -INF), d)
        self.set_results(np.where(temperature == INF, np.where(x == -INF, -INF, 0), d))

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

    def gradient(self, target):
        rows = np.arange(len(target))
        gradient = self.softmax.copy()
        gradient[rows, target] = np.where(
            target == self.argmax, -self.others_share, gradient[rows, target] - 1
        )
        return gradient / self.temperature[:, None]


def coefficients(
    target, classes, weight=None, label_smoothing=0.0, ignore_index=-100, sample_weight=None
):
    """c of shape (N, C), and the number that the mean divides by.

    Every loss of a row is sum_j c_j (-log p_j), and its gradient (S p_j - c_j) / T with
    S = sum_j c_j. `target` are N class indices or an array (N, C) of probabilities.
    """
    eps = LONG(label_smoothing)
    weight = np.ones(classes, LONG) if weight is None else np.asarray(weight).astype(LONG)
    target = np.asarray(target)
    rows = np.ones(len(target)) if sample_weight is None else np.asarray(sample_weight)
    rows = rows.astype(LONG)
    if target.ndim == 2:
        share = target.astype(LONG) * (1 - eps) + eps / classes
        c = np.where(share == 0, 0, weight * share)    # whatever the weight is
        return np.where(rows == 0, 0, c.T * rows).T, rows.sum()
    ignored = (target == ignore_index) | (rows == 0)
    target = np.where(ignored, 0, target)
    c = np.tile(weight * eps / classes if eps else np.zeros(classes, LONG), (len(target), 1))
    if eps < 1:
        c[np.arange(len(target)), target] += (1 - eps) * weight[target]
    c[ignored] = 0
    kept = ~ignored
    return np.where(ignored, 0, c.T * rows).T, (weight[target[kept]] * rows[kept]).sum()


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


def error_of_sum(count, dtype):
    """ULP that a sum in float64 may add to the errors of its terms, all of one sign.

    Pairwise it is half an epsilon for each doubling of their number. For float32 it is nothing.
    """
    return np.log2(count) if dtype == np.float64 else 0
