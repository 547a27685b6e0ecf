"""Calls of softmax, log_softmax, logsumexp, both at once, entropy, sigmoid and its logarithm."""

import numpy as np

from ..contract import without
from ..exact import F32, INF, NAN, computed_type
from .values import REFUSED_TYPES, TYPES


def logits_of_rows(call):
    """The arguments for logits and their axis, the logits' values, and the axes."""
    shape = call.shape()
    x, values = call.logits(shape)
    axis, axes = call.axis(shape)
    return [x, *axis], values, axes


def rowwise(call):
    arguments, values, axes = logits_of_rows(call)
    call.temperature(values.shape, axes)
    call.where(arguments[0], values.shape)
    call.result_array(values.shape, values.dtype)
    return arguments


SUMMANDS = [    # weights of a sum
    lambda rng, shape: rng.normal(size=shape),
    lambda rng, shape: rng.integers(-1, 2, size=shape),
    lambda rng, shape: rng.random(shape),
    lambda rng, shape: rng.choice([0, 1, -1, 1e-30, 1e30, 5e-324, 1e300], size=shape),
    lambda rng, shape: rng.choice([0, 1, -3, NAN, INF, -INF], p=[0.2, 0.4] + [0.1] * 4, size=shape),
    lambda rng, shape: np.zeros(shape),
]


def weights_of_sum(call, shape):
    """Draws `b`, and gives its type."""
    if call.wrong == "b type":
        call.refused(TypeError)
        call.keywords["b"] = call.pick(
            ["1", 1j, *(np.ones(shape).astype(dtype) for dtype in REFUSED_TYPES)]
        )
    elif call.wrong == "b shape" and shape[-1:] > (1,):
        call.refused(ValueError)
        call.keywords["b"] = np.ones((*shape[:-1], shape[-1] + 1))
    elif call.chance(0.15):
        call.keywords["b"] = call.pick((2, -0.5, True, 0, 1e300, 3.0))
    elif call.chance(0.6):
        dtype = call.pick(TYPES)
        summands = call.pick(SUMMANDS)(call.rng, call.broadcastable(shape))
        b = call.spread_out(np.asarray(summands).astype(dtype))
        call.keywords["b"] = call.place(b)
        return computed_type(dtype)
    return F32


def logsumexp(call):
    arguments, values, axes = logits_of_rows(call)
    shape = values.shape
    call.where(arguments[0], shape)
    row_shape = without(shape, axes)
    computed = np.promote_types(values.dtype, weights_of_sum(call, shape))
    if call.chance(0.4):
        call.keywords["return_sign"] = call.pick((True, True, False))
    keepdims(call)
    if call.keywords.get("keepdims"):
        row_shape = tuple(1 if i in axes else n for i, n in enumerate(shape))
    call.result_array(row_shape, computed)
    return arguments


def keepdims(call):
    if call.chance(0.2):
        call.keywords["keepdims"] = call.pick((True, False))


def softmax_and_logsumexp(call):
    arguments = rowwise(call)
    keepdims(call)
    return arguments


def entropy(call):
    arguments, values, axes = logits_of_rows(call)
    call.temperature(values.shape, axes)
    call.where(arguments[0], values.shape)
    return arguments


def sigmoid(call):
    x, values = call.logits(call.shape())
    call.result_array(values.shape, values.dtype)
    return [x]
