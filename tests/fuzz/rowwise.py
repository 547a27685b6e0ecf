"""Calls of softmax, log_softmax, logsumexp, both at once, entropy and sigmoid."""

from ..contract import without


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


def logsumexp(call):
    arguments, values, axes = logits_of_rows(call)
    shape = values.shape
    call.where(arguments[0], shape)
    row_shape = without(shape, axes)
    keepdims(call)
    if call.keywords.get("keepdims"):
        row_shape = tuple(1 if i in axes else n for i, n in enumerate(shape))
    call.result_array(row_shape, values.dtype)
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
