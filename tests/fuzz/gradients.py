"""Calls of softmax_vjp, log_softmax_vjp and softmax_jacobian."""

import math

import numpy as np

from ..contract import as_rows, from_rows
from ..exact import INF, NAN, Exact, computed_type
from .values import FLOATS, TYPES, of_any_exponent


def outer_gradient(call, y, dtype):
    """Of the result: ordinary, of all sizes, one-hot, constant, or with what is not finite."""
    rng, shape = call.rng, y.shape
    kind = call.random()
    if dtype not in FLOATS:
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
    if dtype not in FLOATS:
        # 1 and 0, or the logarithms that integers can be: 0, and negative ones.
        values = np.asarray(call.rng.random(shape) < 0.2)
        if name == "softmax":
            return values.astype(dtype)
        return (np.where(values, 0, -2) if dtype.kind == "i" else np.zeros(shape)).astype(dtype)
    x = np.asarray(call.numbers(shape, computed_type(dtype)))
    where = call.rng.random(shape) < call.pick((0, 0.3, 0.9, 1, 1, 1, 1))
    rows = Exact(as_rows(x, axes), temperature, as_rows(np.asarray(where), axes))
    y = rows.softmax if name == "softmax" else rows.log_softmax
    y = np.where(rows.maximum[:, None] == -INF, nothing, y)
    return from_rows(y.astype(dtype), shape, axes)


def vjp(call):
    name = call.name.removesuffix("_vjp")
    shape = call.shape()
    axis, axes = call.axis(shape)
    temperature = call.temperature(shape, axes)
    y_type = call.pick(TYPES)
    y = call.spread_out(outcome(call, shape, axes, y_type, name, temperature))
    grad_type = y_type if call.chance(0.6) else call.pick(TYPES)
    grad = call.spread_out(np.asarray(outer_gradient(call, y, grad_type)))
    if y.dtype in FLOATS and grad.dtype in FLOATS and call.chance(0.3):
        nothing = 0 if name == "softmax" else -INF
        grad = np.where(y == nothing, NAN, grad).astype(grad_type)
    if y.dtype in FLOATS and y.size and call.chance(0.05):
        y = np.array(y)
        y.reshape(-1)[call.between(0, y.size - 1)] = NAN
    given_grad, given_y = call.place(grad), call.place(y)
    if call.wrong == "y type":
        call.refused(TypeError)
        given_y = call.unusable(shape)
    elif call.wrong == "grad type":
        call.refused(TypeError)
        given_grad = call.unusable(shape)
    elif call.wrong == "grad shape":
        call.refused(ValueError)
        given_grad = np.ones(call.pick([(1, *shape), call.too_wide(shape)]))
    elif call.chance(0.03):
        given_grad, grad_type = given_y, y_type    # the same array twice
    computed = np.promote_types(computed_type(y_type), computed_type(grad_type))
    call.result_array(shape, computed)
    return [given_grad, given_y, *axis]


def softmax_jacobian(call):
    shape = call.shape(least_axes=1)
    if math.prod(shape) * max(shape) > 100_000:    # numbers of the result
        shape = tuple(min(side, 17) for side in shape)
    axis, axes = call.axis(shape, several=False)
    temperature = call.temperature(shape, axes)
    dtype = call.pick(TYPES)
    y = call.spread_out(outcome(call, shape, axes, dtype, "softmax", temperature))
    given_y = call.place(y)
    if call.wrong == "y type":
        call.refused(TypeError)
        given_y = call.unusable(shape)
    return [given_y, *axis]
