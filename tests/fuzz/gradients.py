"""Calls of softmax_vjp, log_softmax_vjp and softmax_jacobian."""

import math

import numpy as np

from ..exact import LONG, well_above_underflow
from .references import Result, Rows, as_rows, from_rows, hold_shape, require, without
from .values import EPS, INF, MAX, NAN, REFUSED_TYPES, TYPES, computed_type, of_any_exponent


def outer_gradient(call, y, dtype):
    """Of the result: ordinary, of all sizes, one-hot, constant, or with what is not finite."""
    rng, shape = call.rng, y.shape
    kind = call.random()
    if dtype.kind != "f":
        return call.numbers(shape, dtype)
    if kind < 0.35:
        grad = rng.normal(size=shape)
    elif kind < 0.5:
        grad = 10 ** rng.uniform(-9, 9) * rng.normal(size=shape)
    elif kind < 0.6:
        grad = 10 ** rng.uniform(-9, 9, shape) * rng.normal(size=shape)
    elif kind < 0.7:
        grad = np.where(rng.random(shape) < 0.1, -1.0, 0)
    elif kind < 0.8:
        grad = np.full(shape, rng.normal())
    elif kind < 0.9:
        grad = 1e6 + rng.normal(size=shape)
    else:
        grad = of_any_exponent(rng, shape, computed_type(dtype))
    grad = np.asarray(grad).astype(dtype)
    if grad.size and call.chance(0.1):
        grad.reshape(-1)[call.between(0, grad.size - 1)] = call.pick((NAN, INF, -INF))
    return grad


def outcome(call, shape, axes, dtype, name, temperature):
    """What softmax or log_softmax may have returned, some of it left out."""
    nothing = 0 if name == "softmax" else -INF
    if dtype.kind != "f":
        # 1 and 0, or the logarithms that integers can be: 0, and negative ones.
        values = np.asarray(call.rng.random(shape) < 0.2)
        if name == "softmax":
            return values.astype(dtype)
        return (np.where(values, 0, -2) if dtype.kind == "i" else np.zeros(shape)).astype(dtype)
    x = np.asarray(call.numbers(shape, computed_type(dtype)))
    where = call.rng.random(shape) < call.pick((0, 0.3, 0.9, 1, 1, 1, 1))
    rows = Rows(as_rows(x, axes), temperature, as_rows(np.asarray(where), axes))
    y = rows.softmax if name == "softmax" else rows.log_softmax
    y = np.where(rows.maximum[:, None] == -INF, nothing, y)
    return from_rows(y.astype(dtype), shape, axes)


def vjp(call):
    name = call.name.removesuffix("_vjp")
    shape = call.shape()
    axis, axes = call.axis(shape)
    temperature, _ = call.temperature(shape, axes)
    y_type = call.pick(TYPES)
    y = call.spread_out(outcome(call, shape, axes, y_type, name, temperature))
    grad_type = y_type if call.chance(0.6) else call.pick(TYPES)
    grad = call.spread_out(np.asarray(outer_gradient(call, y, grad_type)))
    if y.dtype.kind == "f" and grad.dtype.kind == "f" and call.chance(0.3):
        nothing = 0 if name == "softmax" else -INF
        grad = np.where(y == nothing, NAN, grad).astype(grad_type)
    given_grad, given_y = call.place(grad), call.place(y)
    if call.wrong == "y type":
        call.refused(TypeError)
        given_y = np.ones(shape).astype(call.pick(REFUSED_TYPES))
    elif call.wrong == "grad type":
        call.refused(TypeError)
        given_grad = np.ones(shape).astype(call.pick(REFUSED_TYPES))
    elif call.wrong == "grad shape":
        call.refused(ValueError)
        given_grad = np.ones(call.pick([(1, *shape), call.too_wide(shape)]))
    elif call.chance(0.03):
        given_grad, grad = given_y, y    # the same array twice
        grad_type = y_type
    computed = np.promote_types(computed_type(y_type), computed_type(grad_type))
    call.result_array(shape, computed)

    def check(given, limits):
        result = Result(given, computed, limits)
        hold_shape(call, given, shape, computed)
        if y.size:
            rows = (as_rows(one, axes) for one in (result.values, grad, y))
            hold_product(name, result, *rows, temperature)
        return result.largest

    return [given_grad, given_y, *axis], check


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
        sums = np.abs(of_grad).sum(-1)
        difference = y * (grad - of_grad.sum(-1, keepdims=True))
        sums = np.maximum(sums, np.abs(grad).max(-1))
    else:
        of_grad = grad
        of_sum = np.where(counts, np.exp(y), 0) * grad.sum(-1, keepdims=True)
        sums = np.abs(grad).sum(-1)
        difference = of_grad - of_sum
    terms = np.maximum(np.abs(of_grad), np.abs(of_sum)).max(-1)
    # Sums are made of numbers of the result's type, in which they must not overflow.
    ordinary &= sums < MAX[dtype] / 4
    require(~np.isnan(values[ordinary]), "NaN in the gradient of a row that has none")
    is_0, is_infinite = ordinary & (temperature == 0), ordinary & (temperature == INF)
    require(values[is_infinite] == 0, "the gradient at temperature inf")
    # What rounding or underflow may have made 0 is left out.
    clear = np.abs(difference) > 16 * EPS[dtype] * terms[:, None]
    clear &= well_above_underflow(difference, n, dtype) & is_0[:, None]
    right = np.where(difference > 0, INF, -INF)
    require((values == right)[clear], "the gradient at temperature 0")
    scale, right = terms / temperature, difference / temperature[:, None]
    kept = ordinary & (temperature > 0) & (temperature < INF)
    kept &= np.maximum(scale, np.abs(right).max(-1)) < MAX[dtype]
    kept &= well_above_underflow(scale * np.minimum(temperature, 1), n, dtype)
    right = right[kept]
    scale = np.broadcast_to(scale[kept, None], right.shape)
    result.hold(values[kept], right, result.limit("gradient"), scale, "gradient")


def softmax_jacobian(call):
    shape = call.shape(least_axes=1)
    if math.prod(shape) * max(shape) > 100_000:    # numbers of the result
        shape = tuple(min(side, 17) for side in shape)
    axis, axes = call.axis(shape, several=False)
    n = shape[axes[0]]
    temperature, _ = call.temperature(shape, axes)
    dtype = call.pick(TYPES)
    y = call.spread_out(outcome(call, shape, axes, dtype, "softmax", temperature))
    given_y = call.place(y)
    if call.wrong == "y type":
        call.refused(TypeError)
        given_y = np.ones(shape).astype(call.pick(REFUSED_TYPES))
    computed = computed_type(dtype)

    def check(given, limits):
        result = Result(given, computed, limits)
        hold_shape(call, given, (*without(shape, axes), n, n), computed)
        rows = as_rows(y, axes).astype(LONG)
        values = result.values.reshape(len(rows), n, n)
        t = temperature.astype(LONG)[:, None, None]
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
        result.hold(
            values[kept], (right / t)[kept], result.limit("gradient"), scale[kept], "Jacobian"
        )
        return result.largest

    return [given_y, *axis], check
