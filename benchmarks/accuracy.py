"""Largest errors, against extended precision; csoftmax makes at most an input of it."""

from functools import lru_cache

import numpy as np

import csoftmax
from benchmarks import table
from tests.contract import softplus
from tests.exact import LONG, Exact, coefficients

ROWS = 50
PAIRS = {"softmax + logsumexp", "cross_entropy grad + hess", "top_log_probs"}
AVAILABLE = np.finfo(LONG).nmant > 52


def largest_error(operation, implementation, call, case):
    """The largest error of the first rows of a call's result, in ULP of the type of the case.

    A mean hides the errors of rows, so for cross-entropy each row is a call of its own. The unit is
    the exact result's ULP; for a gradient that of its row's largest entry.
    """
    wanted = exact(operation, case)
    if operation == "cross_entropy":
        result = row_losses(table.TABLE[operation][implementation], implementation, case)
    elif operation.endswith("+ grad") or operation in PAIRS:
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
    error = np.abs(got.astype(LONG) - wanted) / np.spacing(scale)
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
    rows, targets = first_rows(x, case.axis), target.reshape(-1)[:ROWS]
    match operation:
        case "softmax" | "log_softmax" | "logsumexp":
            return getattr(Exact(rows), operation)
        case "weighted logsumexp":
            b = first_rows(table.probabilities_for(x), case.axis).astype(LONG)
            maximum = rows.astype(LONG).max(-1, keepdims=True)
            return np.log((b * np.exp(rows - maximum)).sum(-1)) + maximum[:, 0]
        case "softmax + logsumexp":
            return Exact(rows).logsumexp
        case "cross_entropy":
            return Exact(rows).loss(targets)
        case "cross_entropy + grad":
            return Exact(rows).gradient(targets) / target.size
        case "cross_entropy grad + hess":
            of_rows = Exact(rows)
            largest = np.arange(rows.shape[-1]) == of_rows.argmax[:, None]
            others = np.where(largest, of_rows.others_share[:, None], 1 - of_rows.softmax)
            return of_rows.softmax * others
        case "nll_loss":
            log_y = csoftmax.log_softmax(x, case.axis).astype(LONG)
            return -log_y[table.right_classes(target, case.axis)].mean().reshape(1)
        case "softmax, T=0.7":
            return Exact(rows, LONG(0.7)).softmax
        case "softmax, T by row":
            by = table.temperatures_for(x, case.axis).reshape(-1)[:ROWS]
            return Exact(rows, by).softmax
        case "masked softmax":
            return Exact(rows, where=first_rows(table.mask_for(x), case.axis)).softmax
        case "soft targets + grad":
            soft, _ = coefficients(
                first_rows(table.probabilities_for(x, case.axis), case.axis), rows.shape[-1]
            )
            return (soft.sum(axis=-1, keepdims=True) * Exact(rows).softmax - soft) / target.size
        case "kl_divergence":
            q, p = (
                Exact(np.moveaxis(one, case.axis, -1).reshape(-1, one.shape[case.axis]))
                for one in (x, table.grad_for(x))
            )
            divergences = (p.softmax * (p.log_softmax - q.log_softmax)).sum(axis=-1)
            return divergences.mean().reshape(1)
        case "kl_divergence + grad":
            others = first_rows(table.grad_for(x), case.axis)
            return (Exact(rows).softmax - Exact(others).softmax) / target.size
        case "softmax_vjp":
            y = first_rows(csoftmax.softmax(x, case.axis), case.axis).astype(LONG)
            grad = first_rows(table.grad_for(x), case.axis).astype(LONG)
            return y * (grad - (grad * y).sum(axis=-1, keepdims=True))
        case "log_softmax_vjp":
            log_y = first_rows(csoftmax.log_softmax(x, case.axis), case.axis)
            grad = first_rows(table.grad_for(x), case.axis).astype(LONG)
            return grad - np.exp(log_y.astype(LONG)) * grad.sum(axis=-1, keepdims=True)
        case "softmax_jacobian":
            y = first_rows(csoftmax.softmax(x, case.axis), case.axis).astype(LONG)
            return y[..., np.newaxis] * (np.eye(y.shape[-1]) - y[..., np.newaxis, :])
        case "entropy":
            of_rows = Exact(rows)
            return -(of_rows.softmax * of_rows.log_softmax).sum(axis=-1)
        case "sigmoid":
            return 1 / (1 + np.exp(-rows.astype(LONG)))
        case "log_sigmoid":
            return -softplus(-rows.astype(LONG))
        case "top_log_probs":
            return -np.sort(-Exact(rows).log_softmax)[:, : table.K]
        case "binary_cross_entropy":
            x, target = x.astype(LONG), table.probabilities_for(x)
            return (softplus(x) - target * x).mean().reshape(1)
        case "binary_cross_entropy + grad":
            soft = first_rows(table.probabilities_for(x), case.axis).astype(LONG)
            wrong = (1 - soft) / (1 + np.exp(-rows.astype(LONG)))
            return (wrong - soft / (1 + np.exp(rows.astype(LONG)))) / target.size / rows.shape[-1]
    raise ValueError(f"no reference for {operation}")
