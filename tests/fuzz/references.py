"""Rows in longdouble, and how results are held against what is right."""

import math

import numpy as np

from ..exact import LONG, TINY, Exact, largest_error
from .values import EPS, F32, F64, INF, MAX

# The relative error that is let pass where the contract has "no promise".
LOOSE = 1e-3


class Failure(Exception):
    """What the contract does not allow."""


def require(condition, message):
    if not (condition if isinstance(condition, bool) else condition.all()):
        raise Failure(message)


class Rows(Exact):
    """Softmax and what belongs to it, in longdouble, of rows of any kind."""

    def __init__(self, x, temperature=1.0, where=True):
        x = np.where(where, x.astype(LONG), -INF)
        count, n = x.shape
        temperature = np.broadcast_to(np.asarray(temperature, LONG), count)[:, None]
        self.x = x
        self.temperature = temperature[:, 0]
        self.maximum = x.max(-1, initial=-INF)
        self.defined = np.isfinite(self.maximum)
        self.argmax = x.argmax(-1) if n else np.zeros(count, int)
        first = np.arange(n) == self.argmax[:, None]
        d = (x - self.maximum[:, None]) / temperature
        if not ((temperature > 0) & (temperature < INF)).all():
            d = np.where(temperature == 0, np.where(first, 0, -INF), d)
            d = np.where(temperature == INF, np.where(x == -INF, -INF, 0), d)
        self.set_results(d)


def as_rows(array, axes):
    """The rows along these axes as a 2-d array."""
    others = [i for i in range(array.ndim) if i not in axes]
    length = math.prod(array.shape[i] for i in axes)
    count = math.prod(array.shape[i] for i in others)
    return array.transpose(*others, *axes).reshape(count, length)


def from_rows(rows, shape, axes):
    order = [*(i for i in range(len(shape)) if i not in axes), *axes]
    return rows.reshape([shape[i] for i in order]).transpose(np.argsort(order))


def without(shape, axes):
    return tuple(n for i, n in enumerate(shape) if i not in axes)


class Result:
    """A result as an array, with the type of its computation."""

    def __init__(self, values, computed, limits):
        self.values = np.asarray(values)
        self.computed = computed
        self.limits = limits
        self.largest = 0.0

    def limit(self, name, tempered=False):
        """In ULP; where the contract promises nothing, a loose one."""
        if tempered:
            name = {"softmax": "softmax", "gradient": "gradient"}.get(name, "log")
            name += " with temperature"
        limit = self.limits[name]
        return LOOSE / EPS[self.computed] if limit == INF else limit

    def hold(self, result, right, limit, scale=None, what=""):
        """`right` within `limit` ULP of `scale`; where it is infinite, the same."""
        if not result.size:
            return
        scale = np.abs(right) if scale is None else np.abs(scale)
        # The ULP is the same from 0.75 times the largest number on, and beyond it is infinite.
        scale = np.minimum(scale, 0.75 * MAX[self.computed])
        if result.dtype.itemsize >= self.computed.itemsize:
            error = largest_error(result, right, self.computed, scale)
            if limit < LOOSE / EPS[F32]:    # else the contract promises nothing
                self.largest = max(self.largest, error)
            if not error <= limit:
                raise Failure(f"{what}: {error:.3g} ULP, limit {limit:.3g}")
            return
        # An `out` of a narrower type: what is within the limit, rounded once more.
        tiny = TINY[self.computed]
        ulp = np.spacing(np.maximum(scale, tiny).astype(self.computed)).astype(LONG)
        near_0 = np.where(scale < tiny, tiny, 0)
        low, high = (
            (right + sign * (limit * ulp + near_0)).astype(self.computed).astype(result.dtype)
            for sign in (-1, 1)
        )
        require((low <= result) & (result <= high), f"{what}, rounded to {result.dtype}")


def hold_shape(call, given, shape, computed, may_be_scalar=False):
    """Shape and type of a result; of `out` they have been seen to be."""
    if call.out is None:
        hold_new(given, shape, computed, may_be_scalar)


def hold_new(given, shape, computed, may_be_scalar):
    require(np.shape(given) == shape, f"shape {np.shape(given)}, expected {shape}")
    require(isinstance(given, np.ndarray | np.generic), f"a {type(given).__name__}")
    require(given.dtype == computed, f"dtype {given.dtype}, expected {computed}")
    if shape == () and may_be_scalar:
        require(isinstance(given, np.generic), "no NumPy scalar for a result without axes")
    if shape != ():
        require(type(given) is np.ndarray, f"a {type(given).__name__}")


def hold_loss(given, shape, computed, reduction):
    """The losses, or their float64 sum or mean."""
    is_reduced = reduction != "none"
    hold_new(given, () if is_reduced else shape, F64 if is_reduced else computed, True)
