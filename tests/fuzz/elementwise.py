"""Calls of sigmoid and binary_cross_entropy."""

import numpy as np

from ..exact import LONG, TINY, well_above_underflow
from ..exact_losses import error_of_sum
from .references import Result, hold_loss, hold_shape, require
from .values import F64, FLOATS, INF, MAX, NAN, REFUSED_TYPES, TYPES


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def sigmoid(call):
    shape = call.shape()
    x, values = call.logits(shape)
    computed = values.dtype
    call.result_array(shape, computed)

    def check(given, limits):
        result = Result(given, computed, limits)
        hold_shape(call, given, shape, computed, may_be_scalar=True)
        right = 1 / (1 + np.exp(-values.astype(LONG)))
        p = result.values
        require(np.isnan(p) == np.isnan(right), "NaN for NaN and for nothing else")
        kept = ~np.isnan(right)
        p, right = p[kept], right[kept]
        small = right < TINY[computed]
        require((p[small] >= 0) & (p[small] <= TINY[computed] * (1 + 1e-6)), "small probabilities")
        result.hold(p, right, 3, None, "sigmoid")
        return result.largest

    return [x], check


def binary_weight(call, name, shape):
    """None, or positive numbers that broadcast, some of them 0."""
    if call.wrong == f"{name} shape":
        call.refused(ValueError)
        call.keywords[name] = np.ones(call.too_wide(shape))
        return None
    if call.wrong == f"{name} type":
        call.refused(TypeError)
        call.keywords[name] = np.ones(shape).astype(call.pick(REFUSED_TYPES))
        return None
    if call.chance(0.6):
        return None
    if call.chance(0.2):
        call.keywords[name] = call.pick((2, 0.5, 0, True, np.float32(0.25), 3.0))
        return np.asarray(call.keywords[name])
    shape = call.broadcastable(shape)
    dtype = call.pick(TYPES)
    weight = call.weights(shape, dtype)
    if call.chance(0.3):
        weight = weight * (call.rng.random(shape) < 0.5)
    weight = call.spread_out(np.asarray(weight).astype(dtype))
    call.keywords[name] = call.place(weight)
    return weight


def binary_cross_entropy(call):
    shape = call.shape()
    x, values = call.logits(shape)
    computed = values.dtype
    reduction = call.reduction()
    rng = call.rng
    if call.chance(0.4):
        dtype = np.dtype(call.pick(("?", "i1", "u1", "i8", "f4", "f8", "f2", ">f8")))
        y = np.asarray(rng.random(shape) < 0.5).astype(dtype)
    else:
        y = np.asarray(rng.random(shape) ** call.pick((1, 9, 0.01))).astype(call.pick(FLOATS))
    if y.dtype.kind == "f" and y.size and call.chance(0.05):
        y.reshape(-1)[call.between(0, y.size - 1)] = NAN
    y = call.spread_out(y)
    target = call.place(y)
    if call.wrong == "target shape":
        call.refused(ValueError)
        target = np.ones(call.pick([(1, *shape), call.too_wide(shape)]))
    elif call.wrong == "target type":
        call.refused(TypeError)
        target = np.ones(shape).astype(call.pick(REFUSED_TYPES))
    weight = binary_weight(call, "weight", shape)
    pos_weight = binary_weight(call, "pos_weight", shape)

    def check(given, limits):
        result = Result(given, computed, limits)
        hold_loss(given, shape, computed, reduction)
        losses = BinaryLosses(values, y, weight, pos_weight)
        if reduction == "none":
            losses.hold_each(result)
        else:
            losses.hold_reduced(result, reduction)
        return result.largest

    return [x, target], check


class BinaryLosses:
    """Exact losses of single logits, and which of them may be NaN or overflow."""

    def __init__(self, x, target, weight, pos_weight):
        shape, computed = x.shape, x.dtype
        z, t, w, v = (
            np.asarray(LONG(1) if one is None else one.astype(computed).astype(LONG))
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

    def limit(self, result):
        return result.limit("log, one class") if self.is_weighted else 3

    def hold_each(self, result):
        losses, right = result.values, self.losses
        require((np.isnan(losses) == self.nan) | self.open, "NaN for NaN and for nothing else")
        require(losses[right == INF] == INF, "infinite losses")
        require((losses >= 0) | self.nan, "no loss is negative")
        require(losses[right == 0] == 0, "losses of 0")
        kept = ~(self.too_large | self.nan) & well_above_underflow(right, 2, result.computed)
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
            elif not has_overflown and well_above_underflow(right, 2 * count, dtype):
                limit = self.limit(result) + error_of_sum(count, dtype)
                result.hold(np.asarray([loss]), np.asarray([right]), limit, None, "a loss")
