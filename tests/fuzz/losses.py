"""Calls of cross_entropy, cross_entropy_value_and_grad and nll_loss."""

import math

import numpy as np

from ..exact import LONG, well_above_underflow
from ..exact_losses import coefficients, error_of_sum
from .references import Result, Rows, as_rows, from_rows, hold_loss, hold_shape, require, without
from .values import EPS, F64, FLOATS, INDEX_TYPES, INF, MAX, NAN, REFUSED_TYPES, TYPES


def ignore_index_of(call, classes):
    """The default, another negative number, or a class."""
    if call.chance(0.6):
        return -100
    return call.pick((-1, -100, classes, 10**18, *((0, classes - 1) if classes else ())))


def class_indices(call, row_shape, classes):
    """Class indices, some of them ignored, and `ignore_index`."""
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
    return target, ignore_index


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
    """None, or one positive number for each class, some of them 0."""
    if call.wrong == "weight shape":
        call.refused(ValueError)
        call.keywords["weight"] = np.ones(call.pick([(classes + 1,), (1, classes), ()]))
        return None
    if call.wrong == "weight type":
        call.refused(TypeError)
        call.keywords["weight"] = np.ones(classes).astype(call.pick(REFUSED_TYPES))
        return None
    if call.chance(0.6):
        return None
    dtype = call.pick(TYPES)
    weight = call.weights(classes, dtype)
    if call.chance(0.3):
        weight = weight * (call.rng.random(classes) < call.pick((0, 0.5, 0.9)))
    weight = call.spread_out(np.asarray(weight).astype(dtype))
    call.keywords["weight"] = call.place(weight)
    return weight


def smoothing_of(call):
    if call.wrong == "label_smoothing":
        bad, error = call.pick(
            [(-0.1, ValueError), (1.5, ValueError), (NAN, ValueError), (INF, ValueError),
             ("0.1", TypeError), (None, TypeError), ([0.1], TypeError)]
        )  # fmt: skip
        call.refused(error)
        call.keywords["label_smoothing"] = bad
        return 0.0
    if call.chance(0.6):
        return 0.0
    smoothing = call.pick((0, 0.1, 1, 0.0, 1.0, 0.5, 1e-3, np.float32(0.25), True))
    call.keywords["label_smoothing"] = smoothing
    return float(smoothing)


def wrong_target(call, shape, row_shape):
    """Of a wrong shape, or a wrong type for its shape."""
    if call.wrong == "target shape":
        call.refused(ValueError)
        return np.zeros(call.pick([(*row_shape, 1, 1, 1), (2, *shape)]), int)
    call.refused(TypeError)
    return np.zeros(row_shape, call.pick(("?", "f4", "f2", "c8", "U3", "O")))


def cross_entropy(call):
    with_grad = call.name.endswith("grad")
    shape = call.shape(least_axes=1)
    z, values = call.logits(shape)
    axis, axes = call.axis(shape, several=False)
    temperature, tempered = call.temperature(shape, axes)
    computed = values.dtype
    row_shape = without(shape, axes)
    classes = math.prod(shape[i] for i in axes)
    weight = class_weight(call, classes)
    smoothing = smoothing_of(call)
    reduction = call.reduction()
    ignore_index = -100
    if call.wrong in ("target shape", "target type"):
        target = given_target = wrong_target(call, shape, row_shape)
    elif call.wrong not in ("index", "ignore_index") and call.chance(0.45):
        target = call.spread_out(probabilities(call, shape, axes, values))
        if call.wrong == "ignore_index of probabilities":
            call.refused(ValueError)
            call.keywords["ignore_index"] = call.pick((0, 7))
        given_target = call.place(target)
    else:
        call.has_indices = True
        target, ignore_index = class_indices(call, row_shape, classes)
        given_target = call.place(target)
    if with_grad:
        call.result_array(shape, computed)

    def check(given, limits):
        loss, grad = given if with_grad else (given, None)
        result = Result(loss, computed, limits)
        if call.has_indices:
            of_rows = target.reshape(-1).astype(np.int64)
        else:
            of_rows = as_rows(target, axes).astype(computed)
        losses = Losses(
            as_rows(values, axes), of_rows, temperature, tempered,
            None if weight is None else weight.astype(computed), smoothing, ignore_index,
        )  # fmt: skip
        hold_loss(loss, row_shape, computed, reduction)
        losses.hold(result, reduction)
        if with_grad:
            hold_shape(call, grad, shape, computed)
            of_grad = Result(grad, computed, limits)
            if values.size:
                losses.hold_gradient(of_grad, as_rows(of_grad.values, axes), reduction)
            return max(result.largest, of_grad.largest)
        return result.largest

    return [z, given_target, *axis], check


class Losses:
    """Exact losses of rows, and their gradient, as in exact_losses, for rows of every kind."""

    def __init__(self, x, target, temperature, tempered, weight, smoothing, ignore_index):
        count, self.n = x.shape
        self.dtype = x.dtype
        self.tempered = tempered
        self.is_plain = target.ndim == 1 and weight is None and not smoothing
        self.target = target
        if self.n:
            self.c, self.divisor = coefficients(target, self.n, weight, smoothing, ignore_index)
        else:
            self.c = np.zeros((count, 0), LONG)
            self.divisor = LONG(count if target.ndim == 2 else 0)
        self.rows = Rows(x, temperature)
        self.ignored = np.zeros(count, bool)
        if target.ndim == 1:
            self.ignored = target == ignore_index
        counts = self.c != 0
        surprise = np.where(counts, -self.rows.log_softmax, 0)
        self.losses = (self.c * surprise).sum(-1)
        self.losses[self.ignored] = 0
        # Rows without any coefficient may or may not be NaN where logits are.
        is_open = ~counts.any(-1) & ~self.ignored
        bad = ~self.rows.defined & ~self.ignored & bool(self.n)
        self.open = bad & is_open
        self.nan = (bad & ~is_open) | np.isnan(self.c).any(-1)
        self.losses[self.nan] = NAN
        with np.errstate(all="ignore"):
            logits = np.abs(self.rows.x) / self.rows.temperature[:, None]
        logits = np.where(counts & np.isfinite(logits), logits, 0)
        if self.is_plain and not tempered:
            logits = np.maximum(logits, np.where(counts, np.abs(self.rows.logsumexp)[:, None], 0))
        terms = np.abs(self.c) * np.maximum(logits, surprise)
        self.largest_terms = np.maximum(np.abs(self.losses), terms.max(-1, initial=0))
        # Before they are multiplied by weights, terms under the smallest normal number may be 0.
        self.largest_weights = np.maximum(np.abs(self.c).max(-1, initial=0), 1)
        self.is_single = counts.sum(-1) == 1
        self.in_range = np.maximum(self.losses, surprise.max(-1, initial=0)) <= MAX[self.dtype]

    def hold(self, result, reduction):
        if reduction == "none":
            self.hold_each(result, result.values.reshape(-1))
        else:
            self.hold_reduced(result, reduction)

    def hold_each(self, result, losses):
        closed = ~self.open
        of_open = losses[self.open]
        require(np.isnan(of_open) | (of_open == 0), "a row without coefficients")
        require(np.isnan(losses[closed]) == self.nan[closed], "NaN in rows without a softmax")
        kept = closed & ~self.nan
        require(losses[self.ignored] == 0, "ignored losses")
        is_infinite = kept & (self.losses == INF)
        require(losses[is_infinite] == INF, "infinite losses")
        require(losses[kept] >= 0, "no loss is negative")
        beyond = kept & (self.losses > MAX[self.dtype])
        require(losses[beyond] >= 0.999 * MAX[self.dtype], "losses beyond the range")
        require(losses[kept & (self.losses == 0)] == 0, "losses of 0")
        kept &= self.in_range
        unweighted = self.largest_terms / self.largest_weights
        kept &= well_above_underflow(unweighted, self.n, self.dtype)
        result.hold(
            losses[kept], self.losses[kept], result.limit("log", self.tempered),
            self.largest_terms[kept], "losses",
        )  # fmt: skip
        unweighted = self.losses / self.largest_weights
        kept &= self.is_single & well_above_underflow(unweighted, self.n, self.dtype)
        limit = result.limit("log" if self.tempered else "log, one class", self.tempered)
        result.hold(losses[kept], self.losses[kept], limit, None, "losses of one class")

    def hold_reduced(self, result, reduction):
        loss = result.values[()]
        divisor = self.divisor if reduction == "mean" else 1
        if reduction == "mean" and not divisor:
            require(np.isnan(loss), "the mean of nothing")
            return
        if self.nan.any():
            require(np.isnan(loss), "the NaN of a row")
            return
        if self.open.any():
            return
        right, scale = self.losses.sum() / divisor, self.largest_terms.sum() / divisor
        if not self.losses.any():
            require(loss == 0, "a loss of 0")
        elif (self.losses == INF).any():
            require(loss == INF, "an infinite loss")
        elif self.in_range.all() and self.losses.sum() <= MAX[F64]:
            smallest = min(scale, scale * divisor) / self.largest_weights.max(initial=1)
            if not well_above_underflow(smallest, self.n * len(self.losses), self.dtype):
                return
            limit = result.limit("log", self.tempered)
            limit += error_of_sum(max(len(self.losses), 1), self.dtype)
            # Where there is no ULP of so large a sum, it is held as a part of it would be.
            part = 2.0**-20 if scale > MAX[self.dtype] / 2 else 1.0
            loss, right = (np.asarray([one * part]) for one in (loss, right))
            result.hold(loss, right, limit, scale * part, "a loss")
        else:
            require(loss >= 0, "a loss beyond the range")

    def hold_gradient(self, result, gradient, reduction):
        require(gradient[self.ignored] == 0, "the gradient of ignored rows")
        if reduction == "mean" and not self.divisor:
            require(np.isnan(gradient[~self.ignored]), "the gradient of a mean over nothing")
            return
        divisor = self.divisor if reduction == "mean" else 1
        temperature = self.rows.temperature
        of_open = gradient[self.open]
        require(np.isnan(of_open) | (of_open == 0), "the gradient without coefficients")
        # A NaN in a target may leave the limit at temperature 0 or inf as it is: 0 or infinite.
        is_limit = (temperature == 0) | (temperature == INF)
        nan = self.nan & ~(self.rows.defined & is_limit)
        require(np.isnan(gradient[nan]), "the gradient of rows without a softmax")
        defined = ~(self.nan | self.open | self.ignored)
        require(~np.isnan(gradient[defined]), "NaN in the gradient of a row that has one")
        first = self.c.sum(-1, keepdims=True) * self.rows.softmax
        terms = np.maximum(first, self.c)
        difference = first - self.c
        if self.is_plain:
            # The difference to 1 of a probability that is close to it has all its digits.
            places = np.arange(self.n) == np.where(self.ignored, -1, self.target)[:, None]
            places &= places & (self.rows.argmax[:, None] == np.arange(self.n))
            difference = np.where(places, -self.rows.others_share[:, None], difference)
        require(gradient[defined][terms[defined] == 0] == 0, "the gradient of no terms")
        is_0 = defined & (temperature == 0)
        if is_0.any():
            # A difference within rounding may be taken for 0.
            clear = np.abs(difference[is_0]) > 8 * EPS[self.dtype] * terms[is_0]
            right = np.where(difference[is_0] > 0, INF, -INF)
            of_0 = gradient[is_0]
            require(of_0[clear] == right[clear].astype(of_0.dtype), "the gradient at temperature 0")
            require(np.isinf(of_0) | (of_0 == 0), "the gradient at temperature 0")
        require(gradient[defined & (temperature == INF)] == 0, "the gradient at temperature inf")
        factor = (1 / temperature / divisor)[:, None]
        right, terms = difference * factor, terms.max(-1, initial=0) * factor[:, 0]
        if self.is_plain:
            terms = np.abs(right).max(-1, initial=0)
        kept = defined & ~is_0 & (temperature < INF) & (terms <= MAX[self.dtype])
        kept &= well_above_underflow(terms * np.minimum(temperature, 1), self.n, self.dtype)
        scale = np.broadcast_to(terms[kept, None], right[kept].shape)
        limit = result.limit("gradient", self.tempered)
        result.hold(gradient[kept], right[kept], limit, scale, "gradient")


def nll_loss(call):
    shape = call.shape(least_axes=1)
    log_p, values = call.logits(shape)
    axis, axes = call.axis(shape, several=False)
    computed = values.dtype
    row_shape = without(shape, axes)
    classes = math.prod(shape[i] for i in axes)
    weight = class_weight(call, classes)
    reduction = call.reduction()
    if call.wrong in ("target shape", "target type"):
        target = given_target = wrong_target(call, shape, row_shape)
        ignore_index = -100
    else:
        target, ignore_index = class_indices(call, row_shape, classes)
        given_target = call.place(target)

    def check(given, limits):
        result = Result(given, computed, limits)
        hold_loss(given, row_shape, computed, reduction)
        indices = target.reshape(-1).astype(np.int64)
        counts = indices != ignore_index
        losses = np.zeros(len(indices), LONG)
        weights = np.zeros(len(indices), LONG)
        places = np.flatnonzero(counts)
        if len(places):
            losses[places] = -as_rows(values, axes)[places, indices[places]].astype(LONG)
            weights[places] = 1 if weight is None else weight.astype(computed)[indices[places]]
            does_not_count = (weights == 0) & (losses == INF)
            losses = np.where(does_not_count, 0, losses * weights)
        if reduction == "none":
            of_rows = result.values.reshape(-1)
            finite = np.abs(losses) <= MAX[computed]
            require((of_rows == losses)[np.isinf(losses)], "infinite losses")
            require(np.isnan(of_rows) == np.isnan(losses), "NaN in losses")
            limit = 0 if weight is None else result.limit("log")
            if weight is not None:
                finite &= well_above_underflow(losses, 1, computed)
            result.hold(of_rows[finite], losses[finite], limit, None, "losses")
            return result.largest
        divisor = weights.sum() if reduction == "mean" else 1
        right, scale = losses.sum(), np.abs(losses).sum()
        are_numbers = (np.abs(losses) <= MAX[computed]) | ~np.isfinite(losses)
        size = np.abs(losses)[np.isfinite(losses)].sum()
        if not divisor or np.isnan(right):
            require(np.isnan(given), "the mean of nothing, or NaN")
        elif not are_numbers.all() or size > MAX[F64]:
            pass    # sums of what has overflowed, of both signs
        elif np.isinf(right):
            require(given == right, "an infinite loss")
        elif scale / divisor <= MAX[computed] and well_above_underflow(
            min(scale, scale / divisor), len(indices), computed
        ):
            limit = result.limit("log") + error_of_sum(max(len(indices), 1), computed)
            scale, right = np.asarray([scale / divisor]), np.asarray([right / divisor])
            result.hold(np.asarray([given]), right, limit, scale, "a loss")
        return result.largest

    return [log_p, given_target, *axis], check
