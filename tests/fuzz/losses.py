"""Calls of the losses, of kl_divergence, and of both with gradients."""

import math

import numpy as np

from ..contract import as_rows, from_rows, without
from ..exact import INF, NAN, computed_type
from .values import FLOATS, INDEX_TYPES, TYPES


def ignore_index_of(call, classes):
    """The default, another negative number, or a class."""
    if call.chance(0.6):
        return -100
    return call.pick((-1, -100, classes, 10**18, *((0, classes - 1) if classes else ())))


def class_indices(call, row_shape, classes):
    """Class indices, some of them ignored."""
    ignore_index = ignore_index_of(call, classes)
    dtype = call.pick(INDEX_TYPES)
    info = np.iinfo(dtype)
    rng = call.rng
    target = np.full(row_shape, ignore_index)
    if classes:
        target = np.asarray(rng.integers(min(classes, info.max + 1), size=row_shape))
    can_ignore = info.min <= ignore_index <= info.max
    if can_ignore and call.chance(0.5):
        share = call.pick((0.1, 0.5, 1))
        target = np.where(rng.random(row_shape) < share, ignore_index, target)
    elif target.size and not classes:
        ignore_index = call.pick((0, 1))    # what every type can hold
        target = np.full(row_shape, ignore_index)
    target = call.spread_out(np.asarray(target).astype(dtype))
    if call.wrong == "index" and target.size:
        call.refused(IndexError)
        around = info.max + 1 if info.min == 0 else 0    # what is negative as a signed integer
        too_large = [one for one in (classes, classes + 1, info.max, info.min, -1,
                                     around + ignore_index, around - 100)
                     if info.min <= one <= info.max and not 0 <= one < classes
                     and one != ignore_index]  # fmt: skip
        if not too_large:
            call.errors = ()
        else:
            target = target.copy()
            target.reshape(-1)[call.between(0, target.size - 1)] = call.pick(too_large)
    if call.wrong == "ignore_index":
        bad, error = call.pick(
            [(1.5, TypeError), ("0", TypeError), (2**63, ValueError), (-(2**63) - 1, ValueError),
             (None, TypeError)]
        )  # fmt: skip
        call.refused(error)
        call.keywords["ignore_index"] = bad
    elif ignore_index != -100 or call.chance(0.1):
        call.keywords["ignore_index"] = ignore_index
    return target


def probabilities(call, shape, axes, x):
    """Targets of the logits' shape: of all classes, of some, of one; not always normalized."""
    rng = call.rng
    classes = math.prod(shape[i] for i in axes)
    count = math.prod(without(shape, axes))
    kind = call.random()
    if kind < 0.35 and classes:
        rows = np.arange(classes) == rng.integers(classes, size=(count, 1))
        dtype = np.dtype(call.pick(("?", "i1", "u1", "i8", "f4", "f8", "f2", ">f8")))
    else:
        rows = rng.exponential(size=(count, classes))
        if kind < 0.6:
            rows *= rng.random(rows.shape) < 0.3
        if kind < 0.9:
            rows /= np.maximum(rows.sum(-1, keepdims=True), 1e-3)
        if call.chance(0.6):
            rows[as_rows(x, axes) == -INF] = 0
        if call.chance(0.05) and rows.size:
            rows[call.between(0, count - 1), call.between(0, classes - 1)] = NAN
        dtype = call.pick(FLOATS)
    return from_rows(rows.astype(dtype), shape, axes)


def class_weight(call, classes):
    """A positive number for each class, some of them 0, or none."""
    if call.wrong == "weight shape":
        call.refused(ValueError)
        call.keywords["weight"] = np.ones(call.pick([(classes + 1,), (1, classes), ()]))
    elif call.wrong == "weight type":
        call.refused(TypeError)
        call.keywords["weight"] = call.unusable(classes)
    elif call.chance(0.4):
        dtype = call.pick(TYPES)
        weight = call.weights(classes, dtype)
        if call.chance(0.3):
            weight = weight * (call.rng.random(classes) < call.pick((0, 0.5, 0.9)))
        if classes and dtype in FLOATS and call.chance(0.1):    # as the balanced one of no sample
            weight[call.between(0, classes - 1)] = INF
        weight = call.spread_out(np.asarray(weight).astype(dtype))
        call.keywords["weight"] = call.place(weight)


def sample_weight(call, row_shape):
    """A number for each row, or for several, some of them 0 or negative, or none."""
    if call.wrong == "sample_weight shape":
        call.refused(ValueError)
        call.keywords["sample_weight"] = np.ones(call.too_wide(row_shape))
    elif call.wrong == "sample_weight type":
        call.refused(TypeError)
        call.keywords["sample_weight"] = call.unusable(row_shape)
    elif call.chance(0.3):
        weight = some_weight(call, row_shape)
        if call.chance(0.2) and np.asarray(weight).dtype.kind in "if":
            weight = -np.asarray(weight)
        call.keywords["sample_weight"] = weight


def smoothing_of(call):
    if call.wrong == "label_smoothing":
        bad, error = call.pick(
            [(-0.1, ValueError), (1.5, ValueError), (NAN, ValueError), (INF, ValueError),
             ("0.1", TypeError), (None, TypeError), ([0.1], TypeError)]
        )  # fmt: skip
        call.refused(error)
        call.keywords["label_smoothing"] = bad
    elif call.chance(0.4):
        smoothing = call.pick((0, 0.1, 1, 0.0, 1.0, 0.5, 1e-3, np.float32(0.25), True))
        call.keywords["label_smoothing"] = smoothing


def wrong_target(call, shape, row_shape):
    """Of a wrong shape, or a wrong type for its shape."""
    if call.wrong == "target shape":
        call.refused(ValueError)
        return np.zeros(call.pick([(*row_shape, 1, 1, 1), (2, *shape)]), int)
    call.refused(TypeError)
    return np.zeros(row_shape, call.pick(("?", "f4", "f2", "c8", "U3", "O")))


def cross_entropy(call):
    shape = call.shape(least_axes=1)
    z, values = call.logits(shape)
    axis, axes = call.axis(shape, several=False)
    call.temperature(shape, axes)
    row_shape, classes = without(shape, axes), shape[axes[0]]
    class_weight(call, classes)
    sample_weight(call, row_shape)
    if call.name != "cross_entropy_grad_and_hess":
        smoothing_of(call)
        call.reduction()
        call.where(z, shape)
    if call.wrong in ("target shape", "target type"):
        target = wrong_target(call, shape, row_shape)
    elif call.wrong not in ("index", "ignore_index") and call.chance(0.45):
        target = call.place(call.spread_out(probabilities(call, shape, axes, values)))
        if call.wrong == "ignore_index of probabilities":
            call.refused(ValueError)
            call.keywords["ignore_index"] = call.pick((0, 7))
    else:
        target = call.place(class_indices(call, row_shape, classes))
    if call.name.endswith("value_and_grad"):
        call.result_array(shape, values.dtype)
    return [z, target, *axis]


def nll_loss(call):
    shape = call.shape(least_axes=1)
    log_p, _ = call.logits(shape)
    axis, axes = call.axis(shape, several=False)
    row_shape, classes = without(shape, axes), shape[axes[0]]
    class_weight(call, classes)
    sample_weight(call, row_shape)
    call.reduction()
    if call.wrong in ("target shape", "target type"):
        target = wrong_target(call, shape, row_shape)
    else:
        target = call.place(class_indices(call, row_shape, classes))
    return [log_p, target, *axis]


def another_model(call, values):
    """Logits of the same shape: of any kind, or equal, or close to these."""
    dtype, kind = call.pick(TYPES), call.random()
    if kind < 0.4 or values.size == 0:
        return np.asarray(call.numbers(values.shape, dtype))
    if kind < 0.6:
        dtype = values.dtype
        steps = call.rng.choice([-INF, 0, INF], size=values.shape).astype(dtype)
        close = np.where(steps == 0, values, np.nextafter(values, steps))
    elif kind < 0.8:
        close = values + 10 ** call.rng.uniform(-8, 0) * call.rng.normal(size=values.shape)
    else:
        close = values + call.pick((0, 1.0, -300.0, 1e4))
    close = np.asarray(close).astype(dtype)
    return call.with_specials(close) if dtype.kind == "f" and call.chance(0.2) else close


def kl_divergence(call):
    shape = call.shape(least_axes=1)
    z, values = call.logits(shape)
    axis, axes = call.axis(shape, several=False)
    call.temperature(shape, axes)
    call.reduction()
    target = call.spread_out(another_model(call, values))
    given = call.place(target)
    call.where(call.pick((z, given)), shape)
    if call.wrong == "target_logits shape":
        call.refused(ValueError)
        given = np.ones(call.pick([(1, *shape), call.too_wide(shape)]))
    elif call.wrong == "target_logits type":
        call.refused(TypeError)
        given = call.unusable(shape)
    if call.name.endswith("grad"):
        computed = np.promote_types(values.dtype, computed_type(target.dtype))
        call.result_array(shape, computed)
    return [z, given, *axis]


def binary_weight(call, name, shape):
    """Positive numbers that broadcast, some of them 0, or none."""
    if call.wrong == f"{name} shape":
        call.refused(ValueError)
        call.keywords[name] = np.ones(call.too_wide(shape))
    elif call.wrong == f"{name} type":
        call.refused(TypeError)
        call.keywords[name] = call.unusable(shape)
    elif call.chance(0.4):
        call.keywords[name] = some_weight(call, shape)


def some_weight(call, shape):
    if call.chance(0.2):
        return call.pick((2, 0.5, 0, True, np.float32(0.25), 3.0))
    shape = call.broadcastable(shape)
    dtype = call.pick(TYPES)
    weight = call.weights(shape, dtype)
    if call.chance(0.3):
        weight = weight * (call.rng.random(shape) < 0.5)
    return call.place(call.spread_out(np.asarray(weight).astype(dtype)))


def binary_cross_entropy(call):
    shape = call.shape()
    x, values = call.logits(shape)
    call.reduction()
    if call.name.endswith("grad"):
        call.result_array(shape, values.dtype)
    rng = call.rng
    if call.chance(0.4):
        dtype = np.dtype(call.pick(("?", "i1", "u1", "i8", "f4", "f8", "f2", ">f8")))
        y = np.asarray(rng.random(shape) < 0.5).astype(dtype)
    else:
        y = np.asarray(rng.random(shape) ** call.pick((1, 9, 0.01))).astype(call.pick(FLOATS))
    if y.dtype in FLOATS and y.size and call.chance(0.05):
        y.reshape(-1)[call.between(0, y.size - 1)] = NAN
    y = call.spread_out(y)
    target = call.place(y)
    if call.wrong == "target shape":
        call.refused(ValueError)
        target = np.ones(call.pick([(1, *shape), call.too_wide(shape)]))
    elif call.wrong == "target type":
        call.refused(TypeError)
        target = call.unusable(shape)
    binary_weight(call, "weight", shape)
    binary_weight(call, "pos_weight", shape)
    return [x, target]
