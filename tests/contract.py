"""What the contract says of the public functions' results, for whatever arguments they take.

Each function has a `hold_` that takes what it gave, the limits of the build, and then the same
arguments: it computes the results in longdouble and raises `Failure` where one is further off than
docs/accuracy.md promises, or is not what its docstring says of special values. It returns the
error that is closest to its limit (`Error`).
"""

import math
import numbers
from functools import wraps
from typing import NamedTuple

import numpy as np

import csoftmax

from .exact import (
    EPS,
    F32,
    F64,
    INF,
    LONG,
    MAX,
    NAN,
    TINY,
    Exact,
    coefficients,
    computed_type,
    error_of_sum,
    largest_error,
    well_above_underflow,
)


class Failure(AssertionError):
    """What the contract does not allow."""


class Error(NamedTuple):
    share: float = 0.0    # of the limit
    ulp: float = 0.0


def require(condition, message):
    if not (condition if isinstance(condition, bool) else condition.all()):
        raise Failure(message)


# Arguments.


def as_numbers(x):
    """In the type of the computation."""
    x = np.asarray(x)
    return x.astype(computed_type(x.dtype))


def inner_type(computed, *weights):
    """That of the computation: float64 where float32 doesn't hold a weight."""
    for weight in weights:
        if weight is None:
            continue
        weight = np.asarray(weight).astype(LONG)
        narrow = weight.astype(computed)
        too_small = (np.abs(narrow) < TINY[computed]) & (weight != 0)
        if (too_small | (np.isinf(narrow) & ~np.isinf(weight))).any():
            return F64
    return computed


def axes_of(axis, ndim):
    return tuple(range(ndim)) if axis is None else tuple(sorted(np.atleast_1d(axis) % ndim))


def without(shape, axes):
    return tuple(n for i, n in enumerate(shape) if i not in axes)


def as_rows(array, axes):
    """The rows along these axes as a 2-d array."""
    others = [i for i in range(array.ndim) if i not in axes]
    length = math.prod(array.shape[i] for i in axes)
    count = math.prod(array.shape[i] for i in others)
    return array.transpose(*others, *axes).reshape(count, length)


def from_rows(rows, shape, axes):
    order = [*(i for i in range(len(shape)) if i not in axes), *axes]
    return rows.reshape([shape[i] for i in order]).transpose(np.argsort(order))


def of_rows(temperature, shape, axes):
    """The temperature of each row."""
    if isinstance(temperature, numbers.Real):
        temperature = float(temperature)
    return np.broadcast_to(np.asarray(temperature, F64), without(shape, axes)).reshape(-1)


# Results.


class Result:
    """A result as an array, with the type of its computation and the limits that it is held to."""

    def __init__(self, values, computed, limits):
        self.values = np.asarray(values)
        self.computed = computed
        self.limits = limits
        self.largest = Error()

    def limit(self, name, tempered=False):
        """In ULP."""
        if tempered:
            name = name if name in ("softmax", "gradient", "Hessian") else "log"
            name += " with temperature"
        return self.limits[name]

    def hold(self, result, right, limit, scale=None, what=""):
        """`right` within `limit` ULP of `scale`; where it is infinite, the same."""
        if not result.size:
            return
        scale = np.abs(right) if scale is None else np.abs(scale)
        # The ULP is the same from 0.75 times the largest number on, and beyond it is infinite.
        scale = np.minimum(scale, 0.75 * MAX[self.computed])
        if result.dtype.itemsize >= self.computed.itemsize:
            error = largest_error(result, right, self.computed, scale)
            if not error <= limit:
                raise Failure(f"{what}: {error:.4g} ULP, limit {limit:.3g}")
            self.largest = max(self.largest, Error(error / limit if limit else 0.0, error))
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


def holding(hold):
    """NumPy's warnings are of the exact results alone."""

    @wraps(hold)
    def quiet(*arguments, **keywords):
        with np.errstate(all="ignore"):
            return hold(*arguments, **keywords)

    return quiet


def hold_shape(given, out, shape, computed, may_be_scalar=False):
    """Shape and type of a result."""
    if out is None:
        hold_new(given, shape, computed, may_be_scalar)
    else:
        require(given.shape == shape, f"shape {given.shape} of out, expected {shape}")


def hold_new(given, shape, computed, may_be_scalar):
    require(np.shape(given) == shape, f"shape {np.shape(given)}, expected {shape}")
    require(isinstance(given, np.ndarray | np.generic), f"a {type(given).__name__}")
    require(given.dtype == computed, f"dtype {given.dtype}, expected {computed}")
    if shape == () and may_be_scalar:
        require(isinstance(given, np.generic), "no NumPy scalar for a result without axes")
    if shape != ():
        require(type(given) is np.ndarray, f"a {type(given).__name__}")


def hold_loss_shape(given, shape, computed, reduction):
    """The losses, or their float64 sum or mean."""
    is_reduced = reduction != "none"
    hold_new(given, () if is_reduced else shape, F64 if is_reduced else computed, True)


# softmax, log_softmax, logsumexp, both at once, entropy.


def hold_probabilities(result, p, rows, where):
    require(p[~where] == 0, "what is left out has probability 0")
    is_nan = where & ~rows.defined[:, None]
    require(np.isnan(p) == is_nan, "NaN in rows without a softmax and nowhere else")
    p, right = p[rows.defined], rows.softmax[rows.defined]
    tiny = TINY[result.computed]
    small = right < tiny
    require(p[right == 0] == 0, "0 where the probability is 0")
    require((p[small] >= 0) & (p[small] <= tiny * (1 + 1e-6)), "small probabilities")
    choices = rows.is_choice[rows.defined]
    shares = 1 / np.maximum((right > 0).sum(-1, keepdims=True), 1)
    chosen = np.where(right > 0, shares, 0)[choices].astype(result.computed).astype(p.dtype)
    require(p[choices] == chosen, "probabilities at temperature 0 or inf")
    result.hold(p, right, result.limit("softmax", rows.tempered), None, "probabilities")


def hold_log_probabilities(result, log_p, rows, where):
    require(log_p[~where] == -INF, "what is left out has log-probability -inf")
    is_nan = where & ~rows.defined[:, None]
    require(np.isnan(log_p) == is_nan, "NaN in rows without a softmax and nowhere else")
    log_p, right = log_p[rows.defined], rows.log_softmax[rows.defined]
    require(log_p <= 0, "no log-probability is positive")
    require(log_p[right == -INF] == -INF, "-inf where the probability is 0")
    dtype, n = result.computed, right.shape[1]
    in_range = np.abs(right) <= MAX[dtype]
    require(log_p[~in_range] <= -0.999 * MAX[dtype], "log-probabilities beyond the range")
    above = in_range & well_above_underflow(right, n, dtype)
    if rows.tempered:
        limit = result.limit("log", tempered=True)
    else:
        x, logsumexp = rows.x[rows.defined], rows.logsumexp[rows.defined][:, None]
        scale = np.maximum(np.abs(right), np.maximum(np.abs(x), np.abs(logsumexp)))
        kept = in_range & well_above_underflow(scale, n, dtype)
        result.hold(
            log_p[kept], right[kept], result.limit("log"), scale[kept], "log-probabilities"
        )
        limit = result.limit("log, one class")
    result.hold(log_p[above], right[above], limit, None, "log-probabilities themselves")


def rowwise(hold):
    @holding
    def held(given, limits, x, axis=-1, *, temperature=1.0, where=None, out=None):
        values = as_numbers(x)
        shape, axes = values.shape, axes_of(axis, values.ndim)
        hold_shape(given, out, shape, values.dtype)
        result = Result(given, values.dtype, limits)
        if values.size:
            where = as_rows(np.broadcast_to(True if where is None else where, shape), axes)
            rows = Exact(as_rows(values, axes), of_rows(temperature, shape, axes), where)
            hold(result, as_rows(result.values, axes), rows, where)
        return result.largest

    return held


hold_softmax, hold_log_softmax = rowwise(hold_probabilities), rowwise(hold_log_probabilities)


@holding
def hold_logsumexp(
    given, limits, x, axis=-1, *, b=None, where=None, keepdims=False, return_sign=False, out=None
):  # fmt: skip
    log, sign = given if return_sign else (given, None)
    values = as_numbers(x)
    computed = values.dtype
    if b is not None:
        weights = np.asarray(b)
        weights = weights.astype(
            computed if type(b) in (float, int, bool) else computed_type(weights.dtype)
        )
        computed = np.promote_types(computed, weights.dtype)
        shape = np.not_equal(values, weights).shape    # broadcast_arrays takes 32 axes
        values, weights = np.broadcast_to(values, shape), np.broadcast_to(weights, shape)
    shape, axes = values.shape, axes_of(axis, values.ndim)
    row_shape = without(shape, axes)
    if keepdims:
        row_shape = tuple(1 if i in axes else n for i, n in enumerate(shape))
    hold_shape(log, out, row_shape, computed, may_be_scalar=True)
    result = Result(log, computed, limits)
    where = as_rows(np.broadcast_to(True if where is None else where, shape), axes)
    values, totals = as_rows(values, axes), result.values.reshape(-1)
    if sign is not None:
        hold_shape(sign, None, row_shape, computed, may_be_scalar=True)
        sign = np.asarray(sign).reshape(-1)
    if b is None:
        hold_sums(result, totals, sign, Exact(values, 1.0, where))
    else:
        weights = np.where(where, as_rows(weights, axes), 0)
        hold_weighted_sums(result, totals, sign, values, weights)
    return result.largest


def hold_sums(result, totals, signs, rows):
    right, computed, kept = rows.logsumexp, result.computed, rows.defined
    others = rows.maximum[~kept].astype(totals.dtype).astype(computed)
    np.testing.assert_array_equal(totals[~kept].astype(computed), others)
    if signs is not None:
        right_sign = np.where(rows.maximum == -INF, 0, np.where(rows.maximum > -INF, 1, NAN))
        np.testing.assert_array_equal(signs, right_sign.astype(computed))
    scale = np.maximum(np.abs(right), np.maximum(np.abs(rows.maximum), rows.log_sum))
    n = rows.x.shape[1]
    small = kept & ~well_above_underflow(scale, n, computed)
    tolerance = 2 * n * TINY[computed] if totals.dtype == computed else np.inf
    require(np.abs(totals[small] - right[small]) <= tolerance, "small sums")
    kept &= ~small
    result.hold(totals[kept], right[kept], result.limit("log"), scale[kept], "logsumexp")


def hold_weighted_sums(result, totals, signs, x, b):
    rows = WeightedSums(x, b, result.computed)
    special = ~rows.is_sum
    if signs is None:
        require(np.isnan(totals[rows.sign == -1]) | rows.cancels[rows.sign == -1], "negative sums")
        positive = rows.sign != -1
    else:
        positive = np.ones(len(x), bool)
        np.testing.assert_array_equal(signs[special], rows.sign[special].astype(signs.dtype))
        clear = rows.is_sum & ~rows.cancels
        require(signs[clear] == rows.sign[clear], "signs")
        require(np.isin(signs[rows.is_sum], (-1, 0, 1)), "signs")
    special &= positive
    computed = result.computed
    right = rows.log[special].astype(totals.dtype).astype(computed)
    np.testing.assert_array_equal(totals[special].astype(computed), right)
    kept = rows.is_sum & positive & ~rows.cancels
    scale = np.maximum(np.abs(rows.log), np.abs(rows.maximum)) + rows.condition
    result.hold(totals[kept], rows.log[kept], result.limit("log"), scale[kept], "weighted sums")
    # What is left of a weight of 1 or -1 beside others that are small.
    kept &= rows.is_single
    scale = np.maximum(np.abs(rows.maximum), rows.others)
    smallest = scale / np.maximum(rows.largest_weight, 1)
    kept &= well_above_underflow(smallest, x.shape[1], result.computed)
    limit = result.limit("log, one class")
    result.hold(totals[kept], rows.log[kept], limit, scale[kept], "sums of one term")


class WeightedSums:
    """log|sum b e^x| of rows, its sign, and what errors are relative to."""

    def __init__(self, x, b, computed):
        x, b = x.astype(LONG), b.astype(LONG)
        counts = b != 0
        terms = np.where(counts, b * np.where(x == -INF, 0, np.where(x < INF, 1, x)), 0)
        infinite = np.where(np.isfinite(terms), 0, terms).sum(-1)
        self.maximum = np.where(counts, x, -INF).max(-1, initial=-INF)
        self.log, self.sign = np.abs(infinite), np.sign(infinite)
        is_nothing = (infinite == 0) & (self.maximum == -INF)
        self.log[is_nothing] = -INF
        self.is_sum = (infinite == 0) & ~is_nothing
        maximum = np.where(self.is_sum, self.maximum, 0)[:, None]
        b = np.where(counts & self.is_sum[:, None], b, 0)
        is_largest = x == maximum
        others = np.where(is_largest | (b == 0), 0, b * np.exp(x - maximum))
        largest = np.where(is_largest, b, 0).sum(-1)
        total = largest + others.sum(-1)
        sign = np.where(total < 0, -1, 1)
        # Where it is close to 1, its distance from that.
        apart = (sign * largest - 1) + sign * others.sum(-1)
        log = np.where(np.abs(apart) < 0.5, np.log1p(apart), np.log(np.abs(total)))
        self.log = np.where(self.is_sum, maximum[:, 0] + log, self.log)
        self.sign = np.where(self.is_sum, np.sign(total), self.sign)
        self.others = np.abs(others).sum(-1)
        sizes = self.others + np.where(is_largest, np.abs(b), 0).sum(-1)
        self.condition = sizes / np.abs(total)
        self.is_single = (np.abs(largest) == 1) & (np.where(is_largest, b != 0, False).sum(-1) == 1)
        self.is_single &= self.others < 0.25
        self.largest_weight = np.abs(b).max(-1, initial=0)
        # Rows in which hardly a digit is left.
        self.cancels = self.is_sum & ~(self.condition * EPS[computed] < 0.02)


@holding
def hold_softmax_and_logsumexp(
    given, limits, x, axis=-1, *, temperature=1.0, where=None, keepdims=False, out=None
):
    probabilities, log_sums = given
    largest = hold_softmax(
        probabilities, limits, x, axis, temperature=temperature, where=where, out=out
    )
    values = as_numbers(x)
    shape, axes = values.shape, axes_of(axis, values.ndim)
    temperature = of_rows(temperature, shape, axes)
    if (temperature == 1).all():
        return max(
            largest, hold_logsumexp(log_sums, limits, x, axis, where=where, keepdims=keepdims)
        )
    row_shape = tuple(1 if i in axes else n for i, n in enumerate(shape))
    hold_new(log_sums, row_shape if keepdims else without(shape, axes), values.dtype, True)
    result = Result(np.reshape(log_sums, -1), values.dtype, limits)
    where = as_rows(np.broadcast_to(True if where is None else where, shape), axes)
    rows = Exact(as_rows(values, axes), temperature, where)
    totals, kept = result.values, rows.defined
    np.testing.assert_array_equal(totals[~kept], rows.maximum[~kept].astype(totals.dtype))
    of_maximum = rows.maximum / rows.temperature
    of_maximum[(rows.maximum == 0) | ~kept] = 0
    right = of_maximum + rows.log_sum
    scale = np.maximum(np.abs(right), np.maximum(np.abs(of_maximum), rows.log_sum))
    beyond = kept & (scale > MAX[values.dtype])
    require(np.abs(totals[beyond]) >= 0.999 * MAX[values.dtype], "logarithms beyond the range")
    require(np.sign(totals[beyond]) == np.sign(of_maximum[beyond]), "their sign")
    kept &= ~beyond & well_above_underflow(scale, rows.x.shape[1], values.dtype)
    limit = result.limit("log", rows.tempered)
    result.hold(totals[kept], right[kept], limit, scale[kept], "logsumexp")
    return max(largest, result.largest)


@holding
def hold_entropy(given, limits, logits, axis=-1, *, temperature=1.0, where=None):
    values = as_numbers(logits)
    shape, axes, computed = values.shape, axes_of(axis, values.ndim), values.dtype
    result = Result(given, computed, limits)
    hold_shape(given, None, without(shape, axes), computed, may_be_scalar=True)
    entropies = result.values.reshape(-1)
    if not values.size:
        require(entropies == 0, "the entropy of no class")
        return Error()
    where = as_rows(np.broadcast_to(True if where is None else where, shape), axes)
    rows = Exact(as_rows(values, axes), of_rows(temperature, shape, axes), where)
    kept, is_empty = rows.defined, ~where.any(-1)
    require(entropies[is_empty] == 0, "the entropy of a row without classes")
    is_nan = ~(kept | is_empty)
    require(np.isnan(entropies) == is_nan, "NaN in rows without a softmax and nowhere else")
    p, log_p = rows.softmax[kept], rows.log_softmax[kept]
    right = -(p * np.where(p > 0, log_p, 0)).sum(-1)
    entropies = entropies[kept]
    require(entropies >= 0, "no entropy is negative")
    require(entropies[right == 0] == 0, "0 where nothing is uncertain")
    # What is below the smallest normal number may be 0, times a logarithm of up to 750. Distances
    # are weighed before they are divided by the temperature.
    smallest = right * np.minimum(rows.temperature[kept], 1)
    above = well_above_underflow(smallest, 750 * p.shape[1], computed)
    small = entropies[~above] <= 2 * right[~above] + TINY[computed]
    require(small, "small entropies")
    limit = result.limit("log" if rows.tempered else "log, one class", rows.tempered)
    result.hold(entropies[above], right[above], limit, None, "entropies")
    return result.largest


# top_log_probs, sample.


def in_order(x):
    """The classes of each row, the most probable first; equal logits by their indices."""
    return np.argsort(-np.where(np.isnan(x), -INF, x), -1, kind="stable")


@holding
def hold_top_log_probs(given, limits, logits, k, axis=-1, *, temperature=1.0, where=None):
    indices, log_p = given
    values, one = as_numbers(logits), axes_of(axis, np.ndim(logits))[0]
    shape = (*values.shape[:one], k, *values.shape[one + 1 :])
    hold_new(indices, shape, np.dtype(np.int64), False)
    hold_new(log_p, shape, values.dtype, False)
    values = values if where is None else np.where(where, values, values.dtype.type(-INF))
    right = in_order(as_rows(values, (one,)))[:, :k]
    require(as_rows(indices, (one,)) == right, "which classes are first, and their order")
    # Long rows that lie side by side go another way through log_softmax.
    contiguous = np.ascontiguousarray(np.moveaxis(np.asarray(logits), one, -1))
    if where is not None:
        where = np.moveaxis(np.broadcast_to(where, values.shape), one, -1)
    everything = csoftmax.log_softmax(contiguous, temperature=temperature, where=where)
    largest = hold_log_softmax(
        everything, limits, contiguous, temperature=temperature, where=where
    )
    everything = np.take_along_axis(everything, np.moveaxis(indices, one, -1), -1)
    np.testing.assert_array_equal(np.moveaxis(log_p, one, -1), everything)
    return largest


class Drawable:
    """What `sample` may draw of rows that have a softmax, and with which uniform numbers.

    Rounding decides where a filter ends within it, and to which of two neighbours a number belongs
    that is as close to their border: `least` and `most` are how many of the first classes are kept.
    """

    def __init__(self, x, rows, error, top_k, top_p, min_p):
        count, n = x.shape
        self.p, self.error = rows.softmax, error
        # Of float64 sums, and the contract's own 1e-14.
        self.slack = 1e-14 + (8 + np.log2(n)) * 2.0**-53
        order = in_order(x)
        p = np.take_along_axis(self.p, order, -1)
        k = n if top_k is None else min(top_k, n)
        self.least = self.most = np.full(count, k)
        if top_p < 1:
            shares = p[:, :k].cumsum(-1)
            shares /= shares[:, -1:]
            ends = [
                1 + (shares < top_p + sign * self.tolerance(shares)).sum(-1) for sign in (-1, 1)
            ]
            self.least, self.most = (np.minimum(one, k if top_p > 0 else 1) for one in ends)
        if min_p > 0:
            e, tiny = p / p[:, :1], TINY[x.dtype]
            is_sure = ((e >= min_p * (1 + 2 * error)) & (e >= tiny)) | (e == 1)
            may_be = (e >= min_p * (1 - 2 * error)) | ((e < tiny) & (min_p <= 2 * tiny))
            self.least = np.minimum(self.least, is_sure.sum(-1))
            self.most = np.minimum(self.most, may_be.sum(-1))
        ranks = np.empty_like(order)
        np.put_along_axis(ranks, order, np.arange(n)[None], -1)
        # What is under half the smallest number that there is, of the largest, is 0 when rounded.
        smallest = TINY[x.dtype] * EPS[x.dtype] / 4
        self.may_be_kept = (ranks < self.most[:, None]) & (self.p >= smallest * p[:, :1])
        least, most = (np.where(ranks < one[:, None], self.p, 0) for one in self.ends)
        before = [one.cumsum(-1) - one for one in (least, most)]
        behind = [one[:, ::-1].cumsum(-1)[:, ::-1] - one for one in (least, most)]
        self.low = before[0] / (before[0] + behind[1] + most)
        self.high = (before[1] + most) / (before[1] + most + behind[0])

    @property
    def ends(self):
        return self.least, self.most

    def tolerance(self, share):
        """By how much relative errors of exponentials change a share of their sum."""
        return 2 * self.error * share * (1 - share) + self.slack

    def hold(self, indices, uniform):
        """Of draws, each with an index and a number for each row."""
        rows = np.arange(len(self.p))
        require((indices >= 0) & (indices < self.p.shape[1]), "an index out of range")
        require(self.may_be_kept[rows, indices], "a class that is not kept")
        low, high = self.low[rows, indices], self.high[rows, indices]
        require(uniform >= low - self.tolerance(low), "a class that comes later than the number")
        require(uniform < high + self.tolerance(high), "a class that comes before the number")


def drawable(
    limits, logits, axis=-1, temperature=1.0, top_k=None, top_p=1.0, min_p=0.0, where=None
):
    values = as_numbers(logits)
    shape, dtype, axes = values.shape, values.dtype, axes_of(axis, values.ndim)
    where = as_rows(np.broadcast_to(True if where is None else where, shape), axes)
    x = as_rows(values, axes)
    rows = Exact(x, of_rows(temperature, shape, axes), where)
    require(rows.defined, "no ValueError for a row without a distribution")
    error = Result((), dtype, limits).limit("softmax", rows.tempered) * EPS[dtype]
    x = np.where(where, x, dtype.type(-INF))
    return Drawable(x, rows, error, top_k, float(top_p), float(min_p))


@holding
def hold_sample(given, limits, logits, axis=-1, *, rng=None, size=None, **filters):
    """`rng` gives the same numbers again, as a seed does."""
    size = () if size is None else tuple(np.atleast_1d(size).tolist())
    shape = np.shape(logits)
    shape = (*size, *without(shape, axes_of(axis, len(shape))))
    hold_new(given, shape, np.dtype(np.int64), True)
    if math.prod(shape):
        rows = drawable(limits, logits, axis, **filters)
        uniform = np.random.default_rng(rng).random(shape)
        rows.hold(*(one.reshape(-1, len(rows.p)) for one in (np.asarray(given), uniform)))
    return Error()


# cross_entropy, alone, with its gradient, and its gradient with the Hessian; nll_loss.


@holding
def hold_cross_entropy(
    given, limits, logits, target, axis=-1, *, reduction="mean", **keywords
):
    losses, values, axes = losses_of(logits, target, axis, **keywords)
    return held_loss(losses, given, limits, values, axes, reduction)


@holding
def hold_cross_entropy_value_and_grad(
    given, limits, logits, target, axis=-1, *, out=None, reduction="mean", **keywords
):
    losses, values, axes = losses_of(logits, target, axis, **keywords)
    loss, grad = given
    return max(
        held_loss(losses, loss, limits, values, axes, reduction),
        held_gradient(losses, grad, out, limits, values, axes, reduction),
    )


@holding
def hold_cross_entropy_grad_and_hess(given, limits, logits, target, axis=-1, **keywords):
    losses, values, axes = losses_of(logits, target, axis, **keywords)
    grad, hess = given
    hold_shape(hess, None, values.shape, values.dtype)
    result = Result(hess, values.dtype, limits)
    if values.size:
        losses.hold_hessian(result, as_rows(result.values, axes))
    return max(result.largest, held_gradient(losses, grad, None, limits, values, axes, "sum"))


def held_loss(losses, loss, limits, values, axes, reduction):
    hold_loss_shape(loss, without(values.shape, axes), values.dtype, reduction)
    result = Result(loss, values.dtype, limits)
    losses.hold(result, reduction)
    return result.largest


def held_gradient(losses, grad, out, limits, values, axes, reduction):
    hold_shape(grad, out, values.shape, values.dtype)
    result = Result(grad, values.dtype, limits)
    if values.size:
        losses.hold_gradient(result, as_rows(result.values, axes), reduction)
    return result.largest


def losses_of(
    logits, target, axis, *, weight=None, sample_weight=None, ignore_index=-100,
    label_smoothing=0.0, temperature=1.0, where=None,
):  # fmt: skip
    """Exact losses, and the logits in the type of the computation with the axis of classes."""
    values, target = as_numbers(logits), np.asarray(target)
    shape, axes, computed = values.shape, axes_of(axis, values.ndim), values.dtype
    if target.ndim == values.ndim:
        target = as_rows(target, axes).astype(inner_type(computed, weight))
    else:
        target = target.reshape(-1).astype(np.int64)
    losses = Losses(
        as_rows(values, axes), target, of_rows(temperature, shape, axes),
        None if weight is None else np.asarray(weight).astype(inner_type(computed, weight)),
        float(label_smoothing),
        ignore_index, None if sample_weight is None else of_rows(sample_weight, shape, axes),
        as_rows(np.broadcast_to(True if where is None else where, shape), axes),
    )  # fmt: skip
    return losses, values, axes


class Losses:
    """Exact losses of rows, and their gradient, for rows of every kind.

    `target` are N class indices or an array (N, C) of probabilities.
    """

    def __init__(
        self, x, target, temperature, weight, smoothing, ignore_index, sample_weight, where
    ):
        count, self.n = x.shape
        self.dtype = x.dtype
        self.is_plain = (
            target.ndim == 1 and weight is None and not smoothing and sample_weight is None
        )
        self.target = target
        self.is_smoothed = smoothing > 0
        if self.n:
            self.c, self.divisor = coefficients(
                target, self.n, weight, smoothing, ignore_index, sample_weight
            )
        else:
            self.c = np.zeros((count, 0), LONG)
            self.divisor = LONG(count if target.ndim == 2 else 0)
            if target.ndim == 2 and sample_weight is not None:
                self.divisor = sample_weight.astype(LONG).sum()
        self.rows = Exact(x, temperature, where)
        self.tempered = self.rows.tempered
        self.where = where
        self.ignored = np.zeros(count, bool)
        if target.ndim == 1:
            self.ignored = target == ignore_index
        if sample_weight is not None:
            self.ignored = self.ignored | (sample_weight == 0)
        # Infinite weights of what counts: the loss and its gradient are not finite.
        self.infinite = np.isinf(self.c).any(-1) & ~self.ignored
        counts = self.c != 0
        surprise = np.where(counts, -self.rows.log_softmax, 0)
        # A row that a mask leaves nothing of has no smaller loss.
        self.is_empty = ~where.any(-1) & bool(self.n)
        surprise[self.is_empty] = np.where(counts[self.is_empty], INF, 0)
        self.losses = np.where(counts, self.c * surprise, 0).sum(-1)
        self.losses[self.ignored] = 0
        # Rows without any coefficient may or may not be NaN where logits are.
        is_open = ~counts.any(-1) & ~self.ignored
        bad = ~self.rows.defined & ~self.ignored & ~self.is_empty & bool(self.n)
        self.open = bad & is_open
        self.nan = ((bad & ~is_open) | np.isnan(self.c).any(-1)) & ~self.infinite
        self.losses[self.nan] = NAN
        logits = np.abs(self.rows.x) / self.rows.temperature[:, None]
        logits = np.where(counts & np.isfinite(logits), logits, 0)
        if self.is_plain and not self.tempered:
            logits = np.maximum(logits, np.where(counts, np.abs(self.rows.logsumexp)[:, None], 0))
        terms = np.abs(self.c) * np.maximum(logits, surprise)
        self.largest_terms = np.maximum(np.abs(self.losses), terms.max(-1, initial=0))
        self.is_nonnegative = (self.c >= 0).all(-1)
        # Before they are multiplied by weights, terms under the smallest normal number may be 0.
        self.largest_weights = np.maximum(np.abs(self.c).max(-1, initial=0), 1)
        self.is_single = counts.sum(-1) == 1
        self.in_range = (
            np.maximum(np.abs(self.losses), surprise.max(-1, initial=0)) <= MAX[self.dtype]
        )

    def hold(self, result, reduction):
        if reduction == "none":
            self.hold_each(result, result.values.reshape(-1))
        else:
            self.hold_reduced(result, reduction)

    def hold_each(self, result, losses):
        require(~np.isfinite(losses[self.infinite]), "the loss of an infinite weight")
        closed = ~self.open & ~self.infinite
        of_open = losses[self.open & ~self.infinite]
        require(np.isnan(of_open) | (of_open == 0), "a row without coefficients")
        require(np.isnan(losses[closed]) == self.nan[closed], "NaN in rows without a softmax")
        kept = closed & ~self.nan
        require(losses[self.ignored] == 0, "ignored losses")
        is_infinite = kept & np.isinf(self.losses)
        require(losses[is_infinite] == self.losses[is_infinite], "infinite losses")
        require(losses[kept & self.is_nonnegative] >= 0, "no loss is negative")
        beyond = kept & (np.abs(self.losses) > MAX[self.dtype])
        signed = losses[beyond] * np.sign(self.losses[beyond])
        require(signed >= 0.999 * MAX[self.dtype], "losses beyond the range")
        require(losses[kept & (self.losses == 0)] == 0, "losses of 0")
        kept &= self.in_range
        unweighted = self.largest_terms / self.largest_weights
        kept &= well_above_underflow(unweighted, self.n, self.dtype)
        result.hold(
            losses[kept], self.losses[kept], result.limit("log", self.tempered),
            self.largest_terms[kept], "losses",
        )  # fmt: skip
        unweighted = self.losses / self.largest_weights
        kept &= self.is_single & well_above_underflow(unweighted, self.n, self.dtype)
        limit = result.limit("log" if self.tempered else "log, one class", self.tempered)
        result.hold(losses[kept], self.losses[kept], limit, None, "losses of one class")

    def hold_reduced(self, result, reduction):
        loss = result.values[()]
        divisor = self.divisor if reduction == "mean" else 1
        if reduction == "mean" and not divisor:
            require(np.isnan(loss), "the mean of nothing")
            return
        if self.nan.any():
            require(np.isnan(loss), "the NaN of a row")
            return
        if self.infinite.any():
            require(not np.isfinite(loss), "the loss of an infinite weight")
            return
        if self.open.any():
            return
        right, scale = self.losses.sum() / divisor, self.largest_terms.sum() / abs(divisor)
        if not self.losses.any():
            require(loss == 0, "a loss of 0")
        elif np.isinf(self.losses).any():
            require(np.isnan(loss) if np.isnan(right) else loss == right, "an infinite loss")
        elif self.in_range.all() and max(np.abs(self.losses).sum(), abs(right)) <= MAX[F64]:
            smallest = min(scale, scale * abs(divisor)) / self.largest_weights.max(initial=1)
            if not well_above_underflow(smallest, self.n * len(self.losses), self.dtype):
                return
            limit = result.limit("log", self.tempered)
            limit += error_of_sum(max(len(self.losses), 1), self.dtype)
            # Where there is no ULP of so large a sum, it is held as a part of it would be.
            part = 2.0**-20 if scale > MAX[self.dtype] / 2 else 1.0
            loss, right = (np.asarray([one * part]) for one in (loss, right))
            result.hold(loss, right, limit, scale * part, "a loss")
        elif self.is_nonnegative.all():
            require(loss >= 0, "a loss beyond the range")

    def hold_gradient(self, result, gradient, reduction):
        require(gradient[self.ignored] == 0, "the gradient of ignored rows")
        if reduction == "mean" and not self.divisor:
            of_nothing = np.isnan(gradient) | ~self.where
            require(of_nothing[~self.ignored], "the gradient of a mean over nothing")
            return
        divisor = self.divisor if reduction == "mean" else 1
        temperature = self.rows.temperature
        of_open = gradient[self.open & ~self.infinite]
        require(np.isnan(of_open) | (of_open == 0), "the gradient without coefficients")
        # A NaN in a target may leave the limit at temperature 0 or inf as it is: 0 or infinite.
        is_limit = (temperature == 0) | (temperature == INF)
        nan = self.nan & ~(self.rows.defined & is_limit)
        masked = ~self.where
        unweighted = self.c == 0
        require(gradient[masked & unweighted] == 0, "the gradient of what is left out")
        require(np.isnan(gradient[nan]) | masked[nan], "the gradient of rows without a softmax")
        require(gradient[self.is_empty] == 0, "the gradient of a row without classes")
        defined = ~(self.nan | self.open | self.ignored | self.is_empty | self.infinite)
        require(~np.isnan(gradient[defined]), "NaN in the gradient of a row that has one")
        weights = self.c.sum(-1, keepdims=True)
        first = weights * self.rows.softmax
        terms = np.maximum(np.abs(first), np.abs(self.c))
        difference = first - self.c
        # The largest probability is 1 less the share of the others, which has the digits.
        is_largest = np.arange(self.n) == self.rows.argmax[:, None]
        is_largest &= (self.rows.others_share < 0.5)[:, None]
        of_others = np.where(is_largest, 0, self.c).sum(-1, keepdims=True)
        share = weights * self.rows.others_share[:, None]
        difference = np.where(is_largest, of_others - share, difference)
        require(gradient[defined][terms[defined] == 0] == 0, "the gradient of no terms")
        is_0 = defined & (temperature == 0)
        if is_0.any():
            # A difference within rounding may be taken for 0.
            clear = np.abs(difference[is_0]) > 8 * EPS[self.dtype] * terms[is_0]
            right = np.where(difference[is_0] * np.sign(divisor) > 0, INF, -INF)
            of_0 = gradient[is_0]
            require(of_0[clear] == right[clear].astype(of_0.dtype), "the gradient at temperature 0")
            require(np.isinf(of_0) | (of_0 == 0), "the gradient at temperature 0")
        require(gradient[defined & (temperature == INF)] == 0, "the gradient at temperature inf")
        factor = (1 / temperature / divisor)[:, None]
        right, terms = difference * factor, terms.max(-1, initial=0) * np.abs(factor[:, 0])
        # Of one-hot rows each component by itself; of others the class that has nearly all, down to
        # what the sum of the coefficients has rounded away: of float32 in float64.
        of_largest = np.maximum(np.abs(of_others), np.abs(share)) * np.abs(factor)
        rounded_away = 2.0**-26 if self.dtype == F32 else 2.0**-48
        of_largest = np.maximum(of_largest, rounded_away * terms[:, None])
        is_own = is_largest
        if self.target.ndim == 1 and self.is_smoothed:    # then of the target alone
            is_own = is_largest & (np.arange(self.n) == self.target[:, None])
        scale = np.where(is_own, of_largest, terms[:, None])
        is_one_hot = ((self.c != 0).sum(-1) == 1) & (not self.is_smoothed)
        scale[is_one_hot] = np.abs(right[is_one_hot])
        kept = defined & ~is_0 & (temperature < INF) & (terms <= MAX[self.dtype])
        kept &= well_above_underflow(terms * np.minimum(temperature, 1), self.n, self.dtype)
        kept = kept[:, None] & well_above_underflow(
            scale * np.minimum(temperature, 1)[:, None], self.n, self.dtype
        )
        limit = result.limit("gradient", self.tempered)
        result.hold(gradient[kept], right[kept], limit, scale[kept], "gradient")


    def hold_hessian(self, result, hessian):
        """Its diagonal; where p is close to 1, 1 - p is the share of the others."""
        rows, temperature = self.rows, self.rows.temperature[:, None]
        require(hessian[self.ignored] == 0, "the Hessian of ignored rows")
        defined = rows.defined & ~self.nan & ~self.ignored & ~self.open & ~self.infinite
        nan = self.nan & ~rows.defined
        require(np.isnan(hessian[nan]), "the Hessian of rows without a softmax")
        others = np.where(
            np.arange(self.n) == rows.argmax[:, None], rows.others_share[:, None], 1 - rows.softmax
        )
        weights = self.c.sum(-1, keepdims=True)
        right = np.where(weights == 0, 0, weights * rows.softmax * others)
        require(hessian[defined & rows.is_choice & (temperature[:, 0] == 0)] == 0, "one-hot rows")
        factor = 1 / temperature**2
        scaled = np.where(right == 0, 0, right * factor)
        kept = (defined & ~rows.is_choice)[:, None] & (np.abs(scaled) <= MAX[self.dtype])
        smallest = np.minimum(np.abs(right), np.abs(scaled)) / np.maximum(np.abs(weights), 1)
        kept &= well_above_underflow(smallest * np.abs(weights).clip(max=1), self.n, self.dtype)
        limit = result.limit("Hessian", self.tempered)
        result.hold(hessian[kept], scaled[kept], limit, None, "Hessian")


@holding
def hold_nll_loss(
    given, limits, log_probs, target, axis=-1, *, weight=None, sample_weight=None,
    ignore_index=-100, reduction="mean",
):  # fmt: skip
    values, indices = as_numbers(log_probs), np.asarray(target).reshape(-1).astype(np.int64)
    shape, axes, computed = values.shape, axes_of(axis, values.ndim), values.dtype
    result = Result(given, computed, limits)
    hold_loss_shape(given, without(shape, axes), computed, reduction)
    losses, weights = np.zeros((2, len(indices)), LONG)
    of_sample = of_rows(1.0 if sample_weight is None else sample_weight, shape, axes)
    places = np.flatnonzero((indices != ignore_index) & (of_sample != 0))
    if len(places):
        losses[places] = -as_rows(values, axes)[places, indices[places]].astype(LONG)
        of_class = None
        if weight is not None:
            of_class = np.asarray(weight).astype(inner_type(computed, weight))
        weights[places] = 1 if weight is None else of_class[indices[places]]
        weights *= of_sample
        does_not_count = (weights == 0) & (losses == INF)
        losses = np.where(does_not_count, 0, losses * weights)
    if reduction == "none":
        each = result.values.reshape(-1)
        finite = np.abs(losses) <= MAX[computed]
        require((each == losses)[np.isinf(losses)], "infinite losses")
        require(np.isnan(each) == np.isnan(losses), "NaN in losses")
        is_weighted = weight is not None or sample_weight is not None
        limit = result.limit("log") if is_weighted else 0
        if is_weighted:
            finite &= well_above_underflow(losses, 1, computed)
        result.hold(each[finite], losses[finite], limit, None, "losses")
        return result.largest
    divisor = weights.sum() if reduction == "mean" else 1
    right, scale = losses.sum(), np.abs(losses).sum()
    are_numbers = (np.abs(losses) <= MAX[computed]) | ~np.isfinite(losses)
    size = np.abs(losses)[np.isfinite(losses)].sum()
    if not divisor or np.isnan(right):
        require(np.isnan(given), "the mean of nothing, or NaN")
    elif not are_numbers.all() or size > MAX[F64]:
        pass    # sums of what has overflowed, of both signs
    elif np.isinf(right):
        right = right / divisor
        require(np.isnan(given) if np.isnan(right) else given == right, "an infinite loss")
    elif not right and not scale:
        require(given == 0, "a loss of 0")
    elif scale / divisor <= MAX[computed] and well_above_underflow(
        min(scale, scale / divisor), len(indices), computed
    ):
        limit = result.limit("log") + error_of_sum(max(len(indices), 1), computed)
        scale, right = np.asarray([scale / divisor]), np.asarray([right / divisor])
        result.hold(np.asarray([given]), right, limit, scale, "a loss")
    return result.largest


# kl_divergence, alone and with its gradient.


@holding
def hold_kl_divergence(given, limits, logits, target_logits, axis=-1, **keywords):
    return held_divergences(given, None, None, limits, logits, target_logits, axis, **keywords)


@holding
def hold_kl_divergence_value_and_grad(
    given, limits, logits, target_logits, axis=-1, *, out=None, **keywords
):
    return held_divergences(*given, out, limits, logits, target_logits, axis, **keywords)


def held_divergences(
    divergence, grad, out, limits, logits, target_logits, axis, *, temperature=1.0, where=None,
    reduction="mean",
):  # fmt: skip
    z, t = as_numbers(logits), as_numbers(target_logits)
    shape, axes, computed = z.shape, axes_of(axis, z.ndim), np.promote_types(z.dtype, t.dtype)
    where = as_rows(np.broadcast_to(True if where is None else where, shape), axes)
    hold_loss_shape(divergence, without(shape, axes), computed, reduction)
    result = Result(divergence, computed, limits)
    if grad is not None:
        hold_shape(grad, out, shape, computed)
    if not z.size:
        is_mean_of_nothing = reduction == "mean" and not where.shape[0]
        right = NAN if is_mean_of_nothing else 0.0
        np.testing.assert_array_equal(result.values, right)
        return Error()
    temperature = of_rows(temperature, shape, axes)
    rows = Divergences(as_rows(z, axes), as_rows(t, axes), temperature, where, computed)
    rows.hold(result, reduction)
    if grad is None:
        return result.largest
    of_grad = Result(grad, computed, limits)
    rows.hold_gradient(of_grad, as_rows(of_grad.values, axes), reduction)
    return max(result.largest, of_grad.largest)


def excess_of_exp(d):
    """exp(d) - 1 - d of any small d."""
    series = sum(d**k / math.factorial(k) for k in range(12, 1, -1))
    return np.where(np.abs(d) < 0.01, series, np.expm1(d) - d)


def two_difference(a, b):
    """a - b and its error."""
    difference = a - b
    part = a - difference
    error = (a - (difference + part)) + (part - b)
    return difference, np.where(np.isfinite(difference), error, 0)


class Divergences:
    """Exact divergences of rows, and their gradients; close rows lose no digits."""

    def __init__(self, z, t, temperature, where, computed):
        self.computed, self.n = computed, z.shape[1]
        # Terms are summed before they are normalized, and none is more than sqrt(2) units.
        self.largest = MAX[computed] / (2 * self.n)
        self.rows, target = Exact(z, temperature, where), Exact(t, temperature, where)
        self.where, self.temperature = where, self.rows.temperature
        self.nothing = ~where.any(-1)
        self.defined = self.rows.defined & target.defined
        self.p, self.q = target.softmax, self.rows.softmax
        apart, error = two_difference(self.rows.x, target.x)
        of_maxima, its_error = two_difference(self.rows.maximum, target.maximum)
        apart = apart - of_maxima[:, None] + (error - its_error[:, None])
        d = apart / self.temperature[:, None] - (self.rows.log_sum - target.log_sum)[:, None]
        of_choice = self.rows.log_softmax - target.log_softmax
        d = np.where(self.rows.is_choice[:, None], of_choice, d)
        d[self.p == 0] = 0
        small = np.abs(d) < 0.5
        terms = np.where(small, self.p * excess_of_exp(d), self.q - self.p - self.p * d)
        terms[self.p == 0] = self.q[self.p == 0]
        u = terms.sum(-1) + (self.p * d).sum(-1)
        u[~((np.abs(u) < 1e-3) & (terms.sum(-1) < 1))] = 0    # of large terms it is rounding
        self.right = terms.sum(-1) - np.where(u == 0, 0, u**2 / 2 - u**3 / 3 + u**4 / 4)
        # What is below the smallest normal number may be 0.
        tiny = (self.p > 0) & (self.p < 2 * TINY[computed])
        self.least = self.right - np.where(tiny, self.p * np.abs(d) + self.p, 0).sum(-1)
        is_infinite = np.where(tiny, 0, terms).sum(-1) == INF
        self.least = np.where(is_infinite, INF, np.where(self.right == INF, 0, self.least))
        self.is_sure = is_infinite | (self.right < INF)
        self.is_sure &= is_infinite | (self.right - self.least <= 1e-9 * self.right)
        d = d - np.log1p(u)[:, None]
        self.difference = np.where(small, self.p * np.expm1(d), self.q - self.p)
        self.difference[self.p == 0] = self.q[self.p == 0]
        self.scale = np.maximum(self.p, self.q).max(-1, keepdims=True)

    def hold(self, result, reduction):
        if reduction == "none":
            self.hold_each(result, result.values.reshape(-1))
        else:
            self.hold_reduced(result, reduction)

    def limit(self, result):
        """In ULP; well within the contract's 1e-3."""
        return result.limits[f"divergence, {self.computed}"] / EPS[self.computed]

    def hold_each(self, result, values):
        require(values[self.nothing] == 0, "the divergence of nothing")
        require(np.isnan(values) == ~(self.defined | self.nothing), "NaN in rows without a softmax")
        values, right, least = (one[self.defined] for one in (values, self.right, self.least))
        is_sure = self.is_sure[self.defined]
        require(values >= 0, "no divergence is negative")
        largest = self.largest
        require(values[is_sure & (right > largest)] >= 0.999 * largest, "beyond the range")
        # Of rows that are equal but for a constant, or for a class of hardly any probability.
        smallest = EPS[self.computed] ** 3
        kept = right > smallest
        require(values[~kept] <= 2 * smallest, "small divergences")
        unsure = kept & ~is_sure & (least <= 0.999 * largest)
        require(values[unsure] >= 0.999 * least[unsure], "divergences of tiny probabilities")
        require(
            values[unsure] <= 1.001 * np.minimum(right, 1e4000)[unsure],
            "divergences of tiny probabilities",
        )
        kept &= is_sure & (right <= largest)
        result.hold(values[kept], right[kept], self.limit(result), None, "divergences")

    def hold_reduced(self, result, reduction):
        value, right = result.values[()], np.where(self.nothing, 0, self.right)
        if (~self.defined & ~self.nothing).any():
            require(np.isnan(value), "the NaN of a row")
            return
        divisor = len(right) if reduction == "mean" else 1
        require(value >= 0, "no divergence is negative")
        if not self.is_sure[~self.nothing].all():
            return
        if (right > self.largest).any():
            least = 0.999 * self.largest / divisor
            require(value >= least, "a divergence beyond the range")
        elif right.sum() > 1e3 * len(right) * EPS[self.computed] ** 3:
            limit = self.limit(result) + error_of_sum(max(len(right), 1), self.computed)
            right = right.sum() / divisor
            result.hold(np.asarray([value]), np.asarray([right]), limit, None, "a divergence")

    def hold_gradient(self, result, gradient, reduction):
        require(gradient[~self.where] == 0, "the gradient of what is left out")
        is_nan = np.isnan(gradient)
        expected = self.where & ~self.defined[:, None]
        require(is_nan == expected, "NaN in the gradient of rows without a softmax")
        divisor = len(gradient) if reduction == "mean" else 1
        t = np.where(self.defined, self.temperature, 1)[:, None]
        factor = 1 / t / divisor
        require(gradient[self.defined & (t[:, 0] == INF)] == 0, "the gradient at temperature inf")
        at_0 = np.where(self.difference > 0, INF, np.where(self.difference < 0, -INF, 0))
        is_0 = self.defined & (t[:, 0] == 0)
        require(gradient[is_0] == at_0[is_0], "the gradient at temperature 0")
        scale, right = self.scale * factor, self.difference * factor
        kept = self.defined & ((t > 0) & (t < INF) & (scale <= MAX[self.computed]))[:, 0]
        kept &= well_above_underflow(scale * np.minimum(t, 1), self.n, self.computed)[:, 0]
        limit = result.limit("gradient", self.rows.tempered)
        scale = np.broadcast_to(scale[kept], right[kept].shape)
        result.hold(gradient[kept], right[kept], limit, scale, "gradient")


# softmax_vjp, log_softmax_vjp, softmax_jacobian.


def product(name):
    @holding
    def held(given, limits, grad, y, axis=-1, *, temperature=1.0, out=None):
        grad, y = np.asarray(grad), np.asarray(y)
        computed = np.promote_types(computed_type(y.dtype), computed_type(grad.dtype))
        hold_shape(given, out, y.shape, computed)
        result, axes = Result(given, computed, limits), axes_of(axis, y.ndim)
        if y.size:
            rows = (as_rows(one, axes) for one in (result.values, grad, y))
            hold_product(name, result, *rows, of_rows(temperature, y.shape, axes))
        return result.largest

    return held


hold_softmax_vjp, hold_log_softmax_vjp = product("softmax"), product("log_softmax")


def hold_product(name, result, values, grad, y, temperature):
    dtype, n = result.computed, y.shape[1]
    grad, y = grad.astype(dtype).astype(LONG), y.astype(dtype).astype(LONG)
    counts = y != (0 if name == "softmax" else -INF)
    require(values[~counts] == 0, "the gradient of what has no probability")
    grad, y = np.where(counts, grad, 0), np.where(counts, y, 0)
    is_nan = np.isnan(grad).any(-1) | np.isnan(y).any(-1)
    require(np.isnan(values) | ~(counts & is_nan[:, None]), "NaN fills its row")
    infinite = np.isinf(grad)
    has_infinite = infinite.any(-1) & ~is_nan
    own = infinite & has_infinite[:, None] & (temperature < INF)[:, None]
    require(~np.isfinite(values) | ~own, "an infinite gradient")
    ordinary = ~is_nan & ~has_infinite
    temperature = temperature.astype(LONG)
    if name == "softmax":
        of_grad = y * grad
        of_sum = y * of_grad.sum(-1, keepdims=True)
        difference = y * (grad - of_grad.sum(-1, keepdims=True))
        # What is no probability may make too much of a gradient.
        ordinary &= np.abs(of_grad).sum(-1) < MAX[dtype] / 4
    else:
        of_grad = grad
        of_sum = np.where(counts, np.exp(y), 0) * grad.sum(-1, keepdims=True)
        difference = of_grad - of_sum
    terms = np.maximum(np.abs(of_grad), np.abs(of_sum)).max(-1)
    scale = np.broadcast_to(terms[:, None], y.shape)
    if name == "log_softmax":
        # Of the class that has nearly all, by itself, down to what a float64 sum rounds away.
        largest = np.where(counts, y, -INF).argmax(-1)[:, None]
        is_largest = (np.arange(n) == largest) & (np.abs(y) < 0.3)
        of_others = np.where(is_largest, 0, grad).sum(-1, keepdims=True)
        less = np.expm1(y) * grad.sum(-1, keepdims=True)
        difference = np.where(is_largest, -of_others - less, difference)
        own = np.maximum(np.abs(of_others), np.abs(less))
        scale = np.where(is_largest, np.maximum(own, 2.0**-26 * terms[:, None]), scale)
    require(~np.isnan(values[ordinary]), "NaN in the gradient of a row that has none")
    is_0, is_infinite = ordinary & (temperature == 0), ordinary & (temperature == INF)
    require(values[is_infinite] == 0, "the gradient at temperature inf")
    # What rounding or underflow may have made 0 is left out.
    clear = np.abs(difference) > 16 * EPS[dtype] * terms[:, None]
    clear &= well_above_underflow(difference, n, dtype) & is_0[:, None]
    right = np.where(difference > 0, INF, -INF)
    require((values == right)[clear], "the gradient at temperature 0")
    scale, right = scale / temperature[:, None], difference / temperature[:, None]
    kept = ordinary & (temperature > 0) & (temperature < INF)
    kept = kept[:, None] & (np.maximum(terms / temperature, np.abs(right).max(-1)) < MAX[dtype])[
        :, None
    ]
    kept = kept & well_above_underflow(scale * np.minimum(temperature, 1)[:, None], n, dtype)
    result.hold(values[kept], right[kept], result.limit("gradient"), scale[kept], "gradient")


@holding
def hold_softmax_jacobian(given, limits, y, axis=-1, *, temperature=1.0):
    y = np.asarray(y)
    computed, axes = computed_type(y.dtype), axes_of(axis, y.ndim)
    n = y.shape[axis]
    result = Result(given, computed, limits)
    hold_shape(given, None, (*without(y.shape, axes), n, n), computed)
    rows = as_rows(y, axes).astype(LONG)
    values = result.values.reshape(len(rows), n, n)
    t = of_rows(temperature, y.shape, axes).astype(LONG)[:, None, None]
    diagonal = np.eye(n) * rows[:, :, None]
    products = rows[:, :, None] * rows[:, None, :]
    right = np.where(np.eye(n) == 0, -products, rows[:, :, None] * (1 - rows[:, None, :]))
    terms = np.maximum(diagonal, products)
    is_nan = np.isnan(rows[:, :, None] + rows[:, None, :])
    require(np.isnan(values) == (is_nan & (products != 0)), "NaN beside NaN, not beside 0")
    ordinary = ~is_nan
    require(values[ordinary & (terms == 0)] == 0, "0 without probabilities")
    require(values[ordinary & (t == INF)] == 0, "the Jacobian at temperature inf")
    above = ordinary & well_above_underflow(terms * np.minimum(t, 1), 1, computed)
    clear = ordinary & (t == 0) & well_above_underflow(right, 1, computed)
    clear &= np.abs(right) > 8 * EPS[computed] * terms
    require(
        values[clear] == np.where(right[clear] > 0, INF, -INF), "the Jacobian at temperature 0"
    )
    scale = np.broadcast_to(terms / t, right.shape)
    kept = above & (t > 0) & (t < INF) & (scale < MAX[computed])
    kept &= well_above_underflow(scale * np.minimum(t, 1), 1, computed)
    result.hold(values[kept], (right / t)[kept], result.limit("gradient"), scale[kept], "Jacobian")
    return result.largest


# sigmoid, log_sigmoid, binary_cross_entropy and its gradient.


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


@holding
def hold_sigmoid(given, limits, x, *, out=None):
    values = as_numbers(x)
    computed = values.dtype
    result = Result(given, computed, limits)
    hold_shape(given, out, values.shape, computed, may_be_scalar=True)
    right = 1 / (1 + np.exp(-values.astype(LONG)))
    p = result.values
    require(np.isnan(p) == np.isnan(right), "NaN for NaN and for nothing else")
    kept = ~np.isnan(right)
    p, right = p[kept], right[kept]
    small = right < TINY[computed]
    require((p[small] >= 0) & (p[small] <= TINY[computed] * (1 + 1e-6)), "small probabilities")
    result.hold(p, right, limits["sigmoid"], None, "sigmoid")
    return result.largest


@holding
def hold_log_sigmoid(given, limits, x, *, out=None):
    values = as_numbers(x)
    computed = values.dtype
    result = Result(given, computed, limits)
    hold_shape(given, out, values.shape, computed, may_be_scalar=True)
    right = -softplus(-values.astype(LONG))
    log_p = result.values
    require(np.isnan(log_p) == np.isnan(right), "NaN for NaN and for nothing else")
    kept = ~np.isnan(right)
    log_p, right = log_p[kept], right[kept]
    require((log_p == -INF)[right == -INF], "-inf for -inf")
    small = -right < TINY[computed]
    require((log_p[small] <= 0) & (log_p[small] >= -TINY[computed] * (1 + 1e-6)), "close to 0")
    kept = right > -INF
    result.hold(log_p[kept], right[kept], limits["log"], None, "log_sigmoid")
    return result.largest


@holding
def hold_binary_cross_entropy(
    given, limits, logits, target, *, weight=None, pos_weight=None, reduction="mean"
):
    values = as_numbers(logits)
    result = Result(given, values.dtype, limits)
    hold_loss_shape(given, values.shape, values.dtype, reduction)
    BinaryLosses(values, target, weight, pos_weight).hold(result, reduction)
    return result.largest


@holding
def hold_binary_cross_entropy_value_and_grad(
    given, limits, logits, target, *, weight=None, pos_weight=None, reduction="mean", out=None
):
    loss, gradient = given
    values = as_numbers(logits)
    result = Result(loss, values.dtype, limits)
    hold_loss_shape(loss, values.shape, values.dtype, reduction)
    hold_shape(gradient, out, values.shape, values.dtype, may_be_scalar=True)
    losses = BinaryLosses(values, target, weight, pos_weight)
    losses.hold(result, reduction)
    losses.hold_gradient(result, np.asarray(gradient), reduction)
    return result.largest


class BinaryLosses:
    """Exact losses of single logits, and which of them may be NaN or overflow."""

    def __init__(self, x, target, weight, pos_weight):
        shape, computed = x.shape, x.dtype
        inner = inner_type(computed, weight, pos_weight)
        z, t, w, v = (
            np.asarray(LONG(1) if one is None else np.asarray(one).astype(inner).astype(LONG))
            for one in (x, target, weight, pos_weight)
        )
        # A part whose coefficient is 0 doesn't count.
        positive = np.where(v * t == 0, 0, v * t * softplus(-z))
        negative = np.where(t == 1, 0, (1 - t) * softplus(z))
        unweighted = positive + negative
        losses = np.broadcast_to(np.where((w == 0) & (unweighted == INF), 0, w * unweighted), shape)
        self.is_weighted = weight is not None or pos_weight is not None
        self.nan = np.broadcast_to(np.isnan(z) | np.isnan(t), shape)
        self.losses = np.where(self.nan, NAN, losses)
        # NaN times 0 may be either.
        self.open = self.nan & np.broadcast_to((w == 0) | ((v * t == 0) & (t == 1)), shape)
        parts = np.maximum(positive, np.maximum(negative, unweighted))
        too_large = np.broadcast_to(parts > MAX[computed], shape)
        self.too_large = too_large | (self.losses > MAX[computed])

        # Those of a number are the larger term of its gradient, and the gradient.
        right, wrong = w * v * t / (1 + np.exp(z)), w * (1 - t) / (1 + np.exp(-z))
        right, wrong = np.where(w * v * t == 0, 0, right), np.where(w * (1 - t) == 0, 0, wrong)
        self.terms = np.broadcast_to(np.maximum(np.abs(right), np.abs(wrong)), shape)
        self.gradient = np.broadcast_to(wrong - right, shape)
        # Where e^-|z| may be 0, that much may be missing.
        missing = np.maximum(np.abs(w * v * t), np.abs(w * (1 - t))) * TINY[computed]
        self.missing = np.where(np.exp(-np.abs(z)) < 2 * TINY[computed], missing, 0)

    def limit(self, result):
        return result.limits["binary loss with weights" if self.is_weighted else "binary loss"]

    def hold(self, result, reduction):
        if reduction == "none":
            self.hold_each(result)
        else:
            self.hold_reduced(result, reduction)

    def hold_gradient(self, result, gradient, reduction):
        divisor = max(self.losses.size, 1) if reduction == "mean" else 1
        require((np.isnan(gradient) == self.nan) | self.open, "NaN for NaN and for nothing else")
        require(gradient[(self.terms == 0) & ~self.nan] == 0, "a gradient of 0")
        terms, right = self.terms / divisor, self.gradient / divisor
        kept = ~self.nan & (self.terms <= MAX[result.computed])
        # What is below the smallest normal number may be 0.
        near_0 = np.maximum(TINY[result.computed], 4 * self.missing)
        small = kept & (terms < near_0)
        require(np.abs(gradient[small]) <= near_0[small] * (1 + 2.0**-7), "small gradients")
        kept &= ~small & (self.missing < terms * EPS[result.computed])
        limit = result.limits["gradient"]
        result.hold(gradient[kept], right[kept], limit, terms[kept], "gradient")

    def hold_each(self, result):
        losses, right = result.values, self.losses
        require((np.isnan(losses) == self.nan) | self.open, "NaN for NaN and for nothing else")
        require(losses[right == INF] == INF, "infinite losses")
        require((losses >= 0) | self.nan, "no loss is negative")
        require(losses[right == 0] == 0, "losses of 0")
        kept = ~(self.too_large | self.nan) & well_above_underflow(right, 2, result.computed)
        kept &= self.missing < right * EPS[result.computed]
        result.hold(losses[kept], right[kept], self.limit(result), None, "losses")

    def hold_reduced(self, result, reduction):
        loss, count, dtype = result.values[()], self.losses.size, result.computed
        if not count:
            require(np.isnan(loss) if reduction == "mean" else loss == 0, "the loss of nothing")
        elif (self.nan & ~self.open).any():
            require(np.isnan(loss), "the NaN of an element")
        elif not self.open.any():
            total = self.losses.sum()
            right = total / (count if reduction == "mean" else 1)
            has_overflown = self.too_large.any() or total > MAX[F64] or right > MAX[dtype]
            if np.isinf(self.losses).any():
                require(loss == INF, "an infinite loss")
            elif (
                not has_overflown and well_above_underflow(right, 2 * count, dtype)
                and count * np.max(self.missing) < total * EPS[dtype]
            ):  # fmt: skip
                limit = self.limit(result) + error_of_sum(count, dtype)
                result.hold(np.asarray([loss]), np.asarray([right]), limit, None, "a loss")
