"""Calls of softmax, log_softmax, logsumexp and entropy."""

import numpy as np

from ..exact import TINY, well_above_underflow
from .references import Result, Rows, as_rows, hold_shape, require, without
from .values import INF, MAX


def hold_probabilities(result, p, rows, where, tempered):
    require(p[~where] == 0, "what is left out has probability 0")
    is_nan = where & ~rows.defined[:, None]
    require(np.isnan(p) == is_nan, "NaN in rows without a softmax and nowhere else")
    p, right = p[rows.defined], rows.softmax[rows.defined]
    tiny = TINY[result.computed]
    small = right < tiny
    require(p[right == 0] == 0, "0 where the probability is 0")
    require((p[small] >= 0) & (p[small] <= tiny * (1 + 1e-6)), "small probabilities")
    result.hold(p, right, result.limit("softmax", tempered), None, "probabilities")


def hold_log_probabilities(result, log_p, rows, where, tempered):
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
    if tempered:
        limit = result.limit("log", tempered)
    else:
        x, logsumexp = rows.x[rows.defined], rows.logsumexp[rows.defined][:, None]
        scale = np.maximum(np.abs(right), np.maximum(np.abs(x), np.abs(logsumexp)))
        kept = in_range & well_above_underflow(scale, n, dtype)
        result.hold(
            log_p[kept], right[kept], result.limit("log"), scale[kept], "log-probabilities"
        )
        limit = result.limit("log, one class")
    result.hold(log_p[above], right[above], limit, None, "log-probabilities themselves")


def logits_of_rows(call):
    """The arguments for logits and their axis, the logits' values, and the axes."""
    shape = call.shape()
    x, values = call.logits(shape)
    axis, axes = call.axis(shape)
    return [x, *axis], values, axes


def rowwise(call):
    arguments, values, axes = logits_of_rows(call)
    shape, computed = values.shape, values.dtype
    temperature, tempered = call.temperature(shape, axes)
    where = call.where(arguments[0], shape, axes)
    call.result_array(shape, computed)
    hold = hold_probabilities if call.name == "softmax" else hold_log_probabilities

    def check(given, limits):
        result = Result(given, computed, limits)
        hold_shape(call, given, shape, computed)
        if values.size:
            rows = Rows(as_rows(values, axes), temperature, where)
            hold(result, as_rows(result.values, axes), rows, where, tempered)
        return result.largest

    return arguments, check


def logsumexp(call):
    arguments, values, axes = logits_of_rows(call)
    shape, computed = values.shape, values.dtype
    where = call.where(arguments[0], shape, axes)
    row_shape = without(shape, axes)
    if call.chance(0.2):
        call.keywords["keepdims"] = call.pick((True, False))
    if call.keywords.get("keepdims"):
        row_shape = tuple(1 if i in axes else n for i, n in enumerate(shape))
    call.result_array(row_shape, computed)

    def check(given, limits):
        result = Result(given, computed, limits)
        hold_shape(call, given, row_shape, computed, may_be_scalar=True)
        rows = Rows(as_rows(values, axes), 1.0, where)
        totals, right = result.values.reshape(-1), rows.logsumexp
        kept = rows.defined
        np.testing.assert_array_equal(totals[~kept], rows.maximum[~kept].astype(totals.dtype))
        scale = np.maximum(np.abs(rows.maximum), rows.log_sum)
        n = rows.x.shape[1]
        small = kept & ~well_above_underflow(scale, n, computed)
        tolerance = 2 * n * TINY[computed] if totals.dtype == computed else np.inf
        require(np.abs(totals[small] - right[small]) <= tolerance, "small sums")
        kept &= ~small
        result.hold(totals[kept], right[kept], result.limit("log"), scale[kept], "logsumexp")
        return result.largest

    return arguments, check


def entropy(call):
    arguments, values, axes = logits_of_rows(call)
    shape, computed = values.shape, values.dtype
    temperature, tempered = call.temperature(shape, axes)

    def check(given, limits):
        result = Result(given, computed, limits)
        hold_shape(call, given, without(shape, axes), computed, may_be_scalar=True)
        entropies = result.values.reshape(-1)
        if not values.size:
            require(entropies == 0, "the entropy of no class")
            return 0.0
        rows = Rows(as_rows(values, axes), temperature)
        kept = rows.defined
        require(np.isnan(entropies) == ~kept, "NaN in rows without a softmax and nowhere else")
        p, log_p = rows.softmax[kept], rows.log_softmax[kept]
        right = -(p * np.where(p > 0, log_p, 0)).sum(-1)
        entropies = entropies[kept]
        require(entropies >= 0, "no entropy is negative")
        # What is below the smallest normal number may be 0, times a logarithm of up to 750.
        above = well_above_underflow(right, 750 * p.shape[1], computed)
        small = entropies[~above] <= 2 * right[~above] + TINY[computed]
        require(small, "small entropies")
        limit = result.limit("log" if tempered else "log, one class", tempered)
        result.hold(entropies[above], right[above], limit, None, "entropies")
        return result.largest

    return arguments, check
