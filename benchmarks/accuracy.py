"""Largest errors, against extended precision computed here without csoftmax."""

import numpy as np

ROWS = 50
AVAILABLE = np.finfo(np.longdouble).nmant > 52


def largest_error(operation, setup, result, x, target, axis):
    """The largest error of the first rows of a result, in ULP of the type of `x`.

    A mean hides the errors of rows, so for cross-entropy each row is a call of its own. The unit is
    the exact result's ULP; for a gradient that of its row's largest entry.
    """
    if operation == "cross_entropy":
        single = [slice(i, i + 1) for i in range(min(ROWS, len(x)))]
        result = [np.asarray(setup(x[row], target[row], axis)()) for row in single]
    elif operation == "cross_entropy + grad":
        result = result[1]
    rows = first_rows(x, axis)
    wanted = exact(operation, rows.astype(np.longdouble), target[:ROWS])
    if operation == "cross_entropy + grad":
        wanted /= len(x)
    got = np.asarray(result) if wanted.ndim == 1 else first_rows(result, axis)
    scale = np.abs(wanted).astype(x.dtype)
    if operation == "cross_entropy + grad":
        scale = scale.max(axis=-1, keepdims=True)
    error = np.abs(got[:ROWS].astype(np.longdouble) - wanted) / np.spacing(scale)
    return float(error.max())


def first_rows(array, axis):
    array = np.moveaxis(np.asarray(array), axis, -1)
    return array.reshape(-1, array.shape[-1])[:ROWS]


def exact(operation, rows, target):
    """The result in extended precision: all of its rounding is far below the ULP of a float64."""
    maximum = rows.max(axis=-1, keepdims=True)
    exponentials = np.exp(rows - maximum)
    sums = exponentials.sum(axis=-1, keepdims=True)
    logsumexp = maximum + np.log(sums)
    right = np.arange(rows.shape[-1]) == np.expand_dims(target, -1)
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
            return exponentials / sums - right
    raise ValueError(f"no reference for {operation}")
