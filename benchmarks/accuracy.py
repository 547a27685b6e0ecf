"""Largest errors, against extended precision; csoftmax makes at most an input of it."""

from functools import lru_cache

import numpy as np

import csoftmax
from benchmarks import table

ROWS = 50
AVAILABLE = np.finfo(np.longdouble).nmant > 52


def largest_error(operation, implementation, call, case):
    """The largest error of the first rows of a call's result, in ULP of the type of the case.

    A mean hides the errors of rows, so for cross-entropy each row is a call of its own. The unit is
    the exact result's ULP; for a gradient that of its row's largest entry.
    """
    wanted = exact(operation, case)
    if operation == "cross_entropy":
        result = row_losses(table.TABLE[operation][implementation], implementation, case)
    elif operation.endswith("+ grad"):
        _, result = call()
    else:
        result = call()
    result = np.asarray(result)
    if operation == "softmax_jacobian":
        got = result[:ROWS]
    else:
        got = first_rows(result, case.axis) if wanted.ndim > 1 else result.reshape(-1)[:ROWS]
    if operation == "masked softmax":    # zeros are exact, and have no ULP
        wanted, got = wanted[wanted > 0], got[wanted > 0]
    wanted = wanted[: len(got)]
    scale = np.abs(wanted).astype(case.dtype)
    if operation.endswith(("+ grad", "_vjp")):
        scale = scale.max(axis=-1, keepdims=True)
    error = np.abs(got.astype(np.longdouble) - wanted) / np.spacing(scale)
    return float(error.max())


def row_losses(setup, implementation, case):
    x, target = table.inputs_for(implementation, case)
    rows, targets = first_rows(x, case.axis), target.reshape(-1)
    return [
        np.asarray(setup(np.ascontiguousarray(row[np.newaxis]), right[np.newaxis], -1)())
        for row, right in zip(rows, targets[:ROWS], strict=True)
    ]


def first_rows(array, axis):
    array = np.moveaxis(array, axis, -1)
    return array.reshape(-1, array.shape[-1])[:ROWS]


@lru_cache(maxsize=1)
def exact(operation, case):
    """The first rows in extended precision: all of its rounding is far below a float64's ULP."""
    x, target = table.inputs(case)
    rows = first_rows(x, case.axis).astype(np.longdouble)
    maximum = rows.max(axis=-1, keepdims=True)
    exponentials = np.exp(rows - maximum)
    sums = exponentials.sum(axis=-1, keepdims=True)
    logsumexp = maximum + np.log(sums)
    right = np.arange(rows.shape[-1]) == target.reshape(-1)[:ROWS, np.newaxis]
    match operation:
        case "softmax":
            return exponentials / sums
        case "log_softmax":
            return rows - logsumexp
        case "logsumexp":
            return logsumexp[:, 0]
        case "cross_entropy":
            return (logsumexp - rows)[right]
        case "cross_entropy + grad":
            return (exponentials / sums - right) / target.size
        case "nll_loss":
            log_y = csoftmax.log_softmax(x, case.axis).astype(np.longdouble)
            return -log_y[table.right_classes(target, case.axis)].mean().reshape(1)
        case "softmax, T=0.7" | "softmax, T by row":
            by = np.longdouble(0.7)
            if operation == "softmax, T by row":
                by = table.temperatures_for(x, case.axis).reshape(-1)[:ROWS, np.newaxis]
            exponentials = np.exp((rows - maximum) / by)
            return exponentials / exponentials.sum(axis=-1, keepdims=True)
        case "masked softmax":
            exponentials *= first_rows(table.mask_for(x), case.axis)
            return exponentials / exponentials.sum(axis=-1, keepdims=True)
        case "soft targets + grad":
            soft = first_rows(table.probabilities_for(x, case.axis), case.axis)
            soft = soft.astype(np.longdouble)
            total = soft.sum(axis=-1, keepdims=True)
            return (total * exponentials / sums - soft) / target.size
        case "softmax_vjp":
            y = first_rows(csoftmax.softmax(x, case.axis), case.axis).astype(np.longdouble)
            grad = first_rows(table.grad_for(x), case.axis).astype(np.longdouble)
            return y * (grad - (grad * y).sum(axis=-1, keepdims=True))
        case "log_softmax_vjp":
            log_y = first_rows(csoftmax.log_softmax(x, case.axis), case.axis)
            grad = first_rows(table.grad_for(x), case.axis).astype(np.longdouble)
            return grad - np.exp(log_y.astype(np.longdouble)) * grad.sum(axis=-1, keepdims=True)
        case "softmax_jacobian":
            y = first_rows(csoftmax.softmax(x, case.axis), case.axis).astype(np.longdouble)
            return y[..., np.newaxis] * (np.eye(y.shape[-1]) - y[..., np.newaxis, :])
        case "entropy":
            return (exponentials / sums * (logsumexp - rows)).sum(axis=-1)
        case "sigmoid":
            return 1 / (1 + np.exp(-rows))
        case "binary_cross_entropy":
            x, target = x.astype(np.longdouble), table.probabilities_for(x)
            softplus = np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
            return (softplus - target * x).mean().reshape(1)
    raise ValueError(f"no reference for {operation}")
