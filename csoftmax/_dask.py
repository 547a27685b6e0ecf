"""The functions for Dask arrays: lazily, block by block, with the public functions for each block.

A worker finds these by their names, so it uses the build that its own CPU is best with. Arguments
are checked at once as far as they are known; values that are computed later (temperatures, class
indices) raise then.

Rows have to be in one block each, but for softmax, log_softmax and logsumexp, which bring
together two numbers of each part of a row.
"""

import contextlib
import math

import dask.array as da
import numpy as np
from dask.array.core import unify_chunks

from csoftmax import _binary, _divergence, _gradients, _losses, _sampling, _softmax, _threads
from csoftmax._arguments import (
    INTEGERS,
    as_array,
    as_integer,
    as_mask,
    as_share,
    as_temperature,
    computed,
    computed_type,
    is_allowed,
    may_be_equal,
    normalized_axes,
    normalized_axis,
    quiet,
    refuse_dtype,
    require_broadcastable,
    require_mask,
    require_one_for_each_row,
    require_real_temperature,
    require_shape_of,
    shape_of_both,
    with_one_axis,
)
from csoftmax._dispatch import kernels


def softmax(function, x, axis, temperature, where, out):
    """`function` is softmax or log_softmax."""
    require_no_out(out)
    x = as_lazy_logits(x, "x")
    axes = normalized_axes(axis, x.ndim)
    operands = [x, lazy_temperature(temperature, x, axes), lazy_mask(where, x)]
    labels = [all_of(x), without(axes, x), all_of(x)]
    dtype = computed_type(x)
    if not is_whole(x, axes):
        return softmax_of_parts(function, operands, labels, axes, dtype)
    return by_blocks(
        function, all_of(x), operands, labels, dtype, whole=axes, names=("temperature", "where"),
        axis=axes,
    )  # fmt: skip


def logsumexp(x, axis, b, where, keepdims, return_sign, out):
    require_no_out(out)
    x = as_lazy_logits(x, "x")
    if b is not None or return_sign:
        return weighted_logsumexp(x, axis, b, where, bool(keepdims), return_sign)
    axes = normalized_axes(axis, x.ndim)
    operands, labels = [x, lazy_mask(where, x)], [all_of(x)] * 2
    dtype = computed_type(x)
    if is_whole(x, axes):
        result = by_blocks(
            _softmax.logsumexp, without(axes, x), operands, labels, dtype, whole=axes,
            names=("where",), axis=axes,
        )  # fmt: skip
    else:
        parts = parts_of_rows(
            _softmax.log_softmax, x, 1.0, operands[1], [all_of(x), (), all_of(x)], axes
        )
        result = by_blocks(
            log_sum_of_parts, without(axes, x), [parts], [all_of(parts)], dtype, whole=axes,
            axes=axes, dtype_of_sum=dtype,
        )  # fmt: skip
    return with_kept_axes(result, axes, x) if keepdims else result


def softmax_and_logsumexp(x, axis, temperature, where, keepdims, out):
    require_no_out(out)
    x = as_lazy_logits(x, "x")
    axes = normalized_axes(axis, x.ndim)
    require_whole(x, axes, "x", "softmax_and_logsumexp")
    operands = [x, lazy_temperature(temperature, x, axes), lazy_mask(where, x)]
    labels = [all_of(x), without(axes, x), all_of(x)]
    probabilities, log_sums = both_by_blocks(
        _softmax.softmax_and_logsumexp, (all_of(x), without(axes, x)), operands, labels,
        computed_type(x), whole=axes, names=("temperature", "where"), axis=axes,
    )  # fmt: skip
    return probabilities, with_kept_axes(log_sums, axes, x) if keepdims else log_sums


def with_kept_axes(result, axes, x):
    """Not by expand_dims, which needs to know all lengths."""
    return result[tuple(None if i in axes else slice(None) for i in range(x.ndim))]

def weighted_logsumexp(x, axis, b, where, keepdims, return_sign):
    """A part of a row gives a logarithm and a sign. The row's are those of a sum again, in which
    the signs are the weights."""
    dtype = computed_type(x)
    if b is not None and type(b) not in (float, int, bool):
        b = as_lazy_logits(b, "b")
        dtype = np.promote_types(dtype, computed_type(b))
        shape = shape_of_both(x, b)
        x = x if shape == x.shape else da.broadcast_to(x, shape)
    axes = normalized_axes(axis, x.ndim)
    rows, operands, labels = without(axes, x), [x, b, lazy_mask(where, x)], [all_of(x)] * 3
    if is_whole(x, axes):
        keywords = {"whole": axes, "names": ("b", "where"), "axis": axes}
    else:
        parts = by_blocks(
            signed_part, all_of(x), operands, labels, np.float64,
            adjust_chunks={axes[0]: 2, **dict.fromkeys(axes[1:], 1)}, axes=axes,
        )  # fmt: skip
        operands, labels = [parts], [all_of(x)]
        keywords = {"whole": axes, "axes": axes, "dtype_of_sum": dtype}
    function = _softmax.logsumexp if is_whole(x, axes) else sum_of_signed_parts
    if return_sign:
        results = both_by_blocks(
            function, (rows, rows), operands, labels, dtype, return_sign=True, **keywords
        )
    else:
        results = (by_blocks(function, rows, operands, labels, dtype, **keywords),)
    if keepdims:
        results = tuple(with_kept_axes(result, axes, x) for result in results)
    return results if return_sign else results[0]


def signed_part(x, b, where, *, axes):
    x = as_array(x, "x").astype(np.float64)
    pair = _softmax.logsumexp(x, axes, b=b, where=where, keepdims=True, return_sign=True)
    return np.concatenate(pair, axes[0], dtype=np.float64)


def sum_of_signed_parts(parts, *, axes, dtype_of_sum, return_sign=False):
    log, sign = both_of(parts, axes)
    result = _softmax.logsumexp(log, axes, b=sign, return_sign=return_sign)
    with quiet():
        if return_sign:
            return tuple(one.astype(dtype_of_sum) for one in result)
        return result.astype(dtype_of_sum)


def entropy(logits, axis, temperature, where):
    logits = as_lazy_logits(logits, "logits")
    axes = normalized_axes(axis, logits.ndim)
    require_whole(logits, axes, "logits", "entropy")
    rows = without(axes, logits)
    operands = [logits, lazy_temperature(temperature, logits, axes), lazy_mask(where, logits)]
    return by_blocks(
        _softmax.entropy, rows, operands, [all_of(logits), rows, all_of(logits)],
        computed_type(logits), whole=axes, names=("temperature", "where"), axis=axes,
    )  # fmt: skip


def top_log_probs(logits, k, axis, temperature, where):
    logits, axis = as_whole_rows(logits, axis, "logits", "top_log_probs")
    k = _sampling.as_count(k, logits.shape[axis])
    labels, rows, dtype = all_of(logits), without((axis,), logits), computed_type(logits)
    operands = [logits, k, lazy_temperature(temperature, logits, (axis,)), lazy_mask(where, logits)]
    return both_by_blocks(
        _sampling.top_log_probs, (labels, labels), operands, [labels, (), rows, labels],
        (np.int64, dtype), whole=(axis,), names=("temperature", "where"), adjust_chunks={axis: k},
        axis=axis,
    )  # fmt: skip


def sample(logits, axis, temperature, top_k, top_p, min_p, where, uniform, size):
    """The random numbers are drawn at once, those that the NumPy array would have."""
    logits, axis = as_whole_rows(logits, axis, "logits", "sample")
    temperature = lazy_temperature(temperature, logits, (axis,))
    where = lazy_mask(where, logits)
    rows = without((axis,), logits)
    shape = (*size, *(logits.shape[i] for i in rows))
    if math.isnan(math.prod(shape)):
        raise ValueError(
            "sample needs to know how many rows there are, to draw a random number for each: "
            "logits.compute_chunk_sizes() makes lengths known"
        )
    is_greedy = isinstance(temperature, float) and temperature == 0
    numbers = da.zeros(shape, chunks=-1) if is_greedy else as_lazy(uniform(shape), "rng")
    labels = (*range(logits.ndim, logits.ndim + len(size)), *rows)
    return by_blocks(
        draws_of_block, labels, [logits, numbers, temperature, where],
        [all_of(logits), labels, rows, all_of(logits)], np.int64, whole=(axis,), axis=axis,
        top_k=top_k, top_p=top_p, min_p=min_p, places_of_size=len(size),
    )  # fmt: skip


def draws_of_block(logits, numbers, temperature, where, *, places_of_size, **keywords):
    return _sampling.drawn(
        logits, temperature=temperature, where=where, size=numbers.shape[:places_of_size],
        uniform=lambda shape: _sampling.as_numbers(numbers, shape), name="a block of logits",
        **keywords,
    )  # fmt: skip


def as_whole_rows(logits, axis, name, what):
    """Lazy logits and their one axis of classes."""
    logits = as_lazy_logits(logits, name)
    axis = normalized_axis(as_integer(axis, "axis"), logits.ndim)
    require_whole(logits, (axis,), name, what)
    return logits, axis


def product(function, grad, y, name, axis, temperature, out):
    """`function` is softmax_vjp or log_softmax_vjp."""
    require_no_out(out)
    grad, y = as_lazy_logits(grad, "grad"), as_lazy_logits(y, name)
    require_shape_of(y, name, grad, "grad")
    axes = normalized_axes(axis, y.ndim)
    require_whole(y, axes, name, function.__name__)
    operands = [grad, y, lazy_temperature(temperature, y, axes)]
    dtype = np.promote_types(computed_type(grad), computed_type(y))
    return by_blocks(
        function, all_of(y), operands, [all_of(y), all_of(y), without(axes, y)], dtype, whole=axes,
        names=("temperature",), axis=axes,
    )  # fmt: skip


def softmax_jacobian(y, axis, temperature):
    y, axis = as_whole_rows(y, axis, "y", "softmax_jacobian")
    _gradients.require_room_for_matrix(y)
    rows, matrix = without((axis,), y), (y.ndim, y.ndim + 1)
    operands = [y, lazy_temperature(temperature, y, (axis,))]
    return by_blocks(
        _gradients.softmax_jacobian, (*rows, *matrix), operands, [all_of(y), rows],
        computed_type(y), names=("temperature",), axis=axis,
        new_axes=dict.fromkeys(matrix, y.shape[axis]),
    )  # fmt: skip


def of_each_number(function, x, out):
    """`function` is sigmoid or log_sigmoid."""
    require_no_out(out)
    x = as_lazy_logits(x, "x")
    return by_blocks(function, all_of(x), [x], [all_of(x)], computed_type(x))


def binary_cross_entropy(logits, target, weight, pos_weight, reduction):
    reduction = _losses.as_reduction(reduction)
    operands = binary_operands(logits, target, weight, pos_weight)
    logits = operands[0]
    losses = by_blocks(
        _binary.binary_cross_entropy, all_of(logits), operands, [all_of(logits)] * 4,
        computed_type(logits), names=("weight", "pos_weight"), reduction="none",
    )  # fmt: skip
    return reduced(losses, reduction, number_for(reduction, logits))


def binary_cross_entropy_value_and_grad(logits, target, weight, pos_weight, reduction, out):
    require_no_out(out)
    reduction = _losses.as_reduction(reduction)
    logits, *others = binary_operands(logits, target, weight, pos_weight)
    labels, dtype, divisor = all_of(logits), computed_type(logits), number_for(reduction, logits)
    losses, grad = both_by_blocks(
        binary_losses_and_grad, (labels, labels), [logits, *others, divisor],
        [*[labels] * 4, ()], dtype,
    )  # fmt: skip
    return reduced(losses, reduction, divisor), grad


def binary_operands(logits, target, weight, pos_weight):
    operands = [as_lazy_logits(logits, "logits"), as_lazy_logits(target, "target")]
    logits, target = operands
    require_shape_of(logits, "the logits", target, "target")
    for name, array in (("weight", weight), ("pos_weight", pos_weight)):
        if array is not None:
            array = as_lazy_logits(array, name)
            require_broadcastable(array, logits.shape, name, "the shape of the logits")
        operands.append(array)
    return operands


def number_for(reduction, logits):
    """What the sum of losses of single numbers is divided by."""
    return number_of(logits, all_of(logits)) if reduction == "mean" else 1.0


def binary_losses_and_grad(logits, target, weight, pos_weight, divisor):
    logits, *others = _binary.checked(logits, target, weight, pos_weight, "none")
    logits, dtype = _losses.as_wide_as(logits, *others[1:3])
    losses, grad = computed(
        kernels.binary_cross_entropy(logits, *others, True, None, float(divisor))
    )
    return _losses.in_type(dtype, losses), _losses.in_type(dtype, grad)


def cross_entropy(
    logits, target, axis, weight, sample_weight, ignore_index, reduction, label_smoothing,
    temperature, where,
):  # fmt: skip
    loss = LazyLoss(logits, target, axis, weight, sample_weight, ignore_index, reduction)
    losses = by_blocks(
        _losses.cross_entropy, loss.rows, *loss.operands(temperature, where), loss.dtype,
        whole=(loss.axis,), names=("sample_weight", "temperature", "where"), reduction="none",
        label_smoothing=as_share(label_smoothing, "label_smoothing"), **loss.keywords,
    )  # fmt: skip
    return reduced(losses, reduction, loss.divisor())


def cross_entropy_value_and_grad(
    logits, target, axis, weight, sample_weight, ignore_index, reduction, label_smoothing,
    temperature, where, out,
):  # fmt: skip
    require_no_out(out)
    loss = LazyLoss(logits, target, axis, weight, sample_weight, ignore_index, reduction)
    divisor = loss.divisor()
    operands, labels = loss.operands(temperature, where)
    losses, grad = both_by_blocks(
        losses_and_grad, (loss.rows, all_of(loss.logits)), [*operands, divisor], [*labels, ()],
        loss.dtype, whole=(loss.axis,),
        label_smoothing=as_share(label_smoothing, "label_smoothing"), **loss.keywords,
    )  # fmt: skip
    return reduced(losses, reduction, divisor), grad


def cross_entropy_grad_and_hess(
    logits, target, axis, weight, sample_weight, ignore_index, temperature
):
    loss = LazyLoss(logits, target, axis, weight, sample_weight, ignore_index, "none")
    operands, labels = loss.operands(temperature)
    return both_by_blocks(
        _losses.cross_entropy_grad_and_hess, (all_of(loss.logits),) * 2, operands, labels,
        loss.dtype, whole=(loss.axis,), names=("sample_weight", "temperature"), **loss.keywords,
    )  # fmt: skip


def nll_loss(log_probs, target, axis, weight, sample_weight, ignore_index, reduction):
    loss = LazyLoss(
        log_probs, target, axis, weight, sample_weight, ignore_index, reduction, "log_probs",
        takes_probabilities=False,
    )  # fmt: skip
    losses = by_blocks(
        _losses.nll_loss, loss.rows, *loss.operands(), loss.dtype, names=("sample_weight",),
        reduction="none", **loss.keywords,
    )  # fmt: skip
    return reduced(losses, reduction, loss.divisor())


class LazyDivergence:
    """The arguments of a divergence, checked as far as they are known, as those of `by_blocks`."""

    def __init__(self, logits, target_logits, axis, temperature, where, reduction):
        self.reduction = _losses.as_reduction(reduction)
        self.logits = logits = as_lazy_logits(logits, "logits")
        target = as_lazy_logits(target_logits, "target_logits")
        axis = normalized_axis(as_integer(axis, "axis"), logits.ndim)
        require_shape_of(logits, "the logits", target, "target_logits")
        require_whole(logits, (axis,), "logits", "a divergence")
        self.rows, self.classes = without((axis,), logits), all_of(logits)
        self.dtype = np.promote_types(computed_type(logits), computed_type(target))
        self.operands = [
            logits, target, lazy_temperature(temperature, logits, (axis,)),
            lazy_mask(where, logits),
        ]  # fmt: skip
        self.labels = [self.classes, self.classes, self.rows, self.classes]
        self.keywords = {"whole": (axis,), "axis": axis}

    def divisor(self):
        return number_of(self.logits, self.rows) if self.reduction == "mean" else 1.0


def kl_divergence(logits, target_logits, axis, temperature, where, reduction):
    all = LazyDivergence(logits, target_logits, axis, temperature, where, reduction)
    losses = by_blocks(
        _divergence.kl_divergence, all.rows, all.operands, all.labels, all.dtype,
        names=("temperature", "where"), reduction="none", **all.keywords,
    )  # fmt: skip
    return reduced(losses, reduction, all.divisor())


def kl_divergence_value_and_grad(
    logits, target_logits, axis, temperature, where, reduction, out
):
    require_no_out(out)
    all = LazyDivergence(logits, target_logits, axis, temperature, where, reduction)
    divisor = all.divisor()
    losses, grad = both_by_blocks(
        divergences_and_grad, (all.rows, all.classes), [*all.operands, divisor],
        [*all.labels, ()], all.dtype, **all.keywords,
    )  # fmt: skip
    return reduced(losses, reduction, divisor), grad


def divergences_and_grad(logits, target_logits, temperature, where, divisor, *, axis):
    arguments = _divergence.checked(logits, target_logits, axis, temperature, where, "none")
    return computed(kernels.kl_divergence(*arguments, True, None, float(divisor)))


# Losses

class LazyLoss:
    """The arguments of a loss, checked as far as they are known."""

    def __init__(
        self, logits, target, axis, weight, sample_weight, ignore_index, reduction,
        name="logits", takes_probabilities=True,
    ):  # fmt: skip
        self.reduction = _losses.as_reduction(reduction)
        self.logits, self.axis = logits, axis = as_whole_rows(logits, axis, name, "a loss")
        self.rows = without((axis,), logits)
        self.dtype = computed_type(logits)
        given, target = target, as_lazy(target, "target")
        ignore_index = _losses.as_ignore_index(ignore_index)
        self.has_indices = not (takes_probabilities and may_be_equal(target.shape, logits.shape))
        if self.has_indices:
            target = _losses.empty_as_indices(target)
            row_shape = tuple(logits.shape[i] for i in self.rows)
            if not may_be_equal(target.shape, row_shape) or target.dtype.num not in INTEGERS:
                or_else = _losses.or_probabilities(logits, axis) if takes_probabilities else ""
                if not isinstance(given, da.Array) and target.shape == row_shape:
                    _losses.require_in_int64(given, logits.shape[axis], ignore_index)
                _losses.refuse_class_indices(target, row_shape, or_else, given)
        else:
            as_lazy_logits(target, "target")
            _losses.require_no_class(ignore_index)
        self.target = target
        if isinstance(weight, da.Array):
            _losses.require_number_for_each(as_lazy_logits(weight, "weight"), logits.shape[axis])
        else:
            weight = _losses.as_class_weight(weight, logits.shape[axis])
        self.sample_weight = self.as_lazy_sample_weight(sample_weight)
        self.keywords = {"axis": axis, "weight": weight, "ignore_index": ignore_index}

    def as_lazy_sample_weight(self, sample_weight):
        if sample_weight is None:
            return None
        sample_weight = as_lazy_logits(sample_weight, "sample_weight")
        require_one_for_each_row(sample_weight, self.logits, (self.axis,), "sample_weight")
        return sample_weight

    def operands(self, *temperature_and_mask):
        """With the labels of their axes."""
        operands = [self.logits, self.target, self.sample_weight]
        of_target = self.rows if self.has_indices else all_of(self.logits)
        labels = [all_of(self.logits), of_target, self.rows]
        for temperature in temperature_and_mask[:1]:
            operands.append(lazy_temperature(temperature, self.logits, (self.axis,)))
            labels.append(self.rows)
        for where in temperature_and_mask[1:]:
            operands.append(lazy_mask(where, self.logits))
            labels.append(all_of(self.logits))
        return operands, labels

    def divisor(self):
        """Of a mean. From class indices alone: a block's logits are not kept until it is known."""
        if self.reduction != "mean":
            return 1.0
        if not self.has_indices and self.sample_weight is None:
            return number_of(self.target, self.rows)
        operands, labels = self.operands()
        keywords = {"axis": self.axis}
        if self.has_indices:
            keywords = {
                "weight": self.keywords["weight"], "ignore_index": self.keywords["ignore_index"],
                "dtype_of_weight": self.dtype,
            }  # fmt: skip
        return sum_over_blocks(
            divisor_of_indices if self.has_indices else divisor_of_probabilities, self.rows,
            operands[1:], labels[1:], **keywords,
        )  # fmt: skip


def divisor_of_indices(target, sample_weight, *, weight, ignore_index, dtype_of_weight):
    target = as_array(target, "target")
    if sample_weight is None and weight is None:
        return np.count_nonzero(target != ignore_index)
    if weight is None:    # then it doesn't matter which class
        target, ignore_index, weight = np.where(target == ignore_index, -1, 0), -1, [1]
    classes = np.size(weight)
    weight = _losses.as_class_weight(weight, classes)
    if _losses.fits_float32(weight):
        weight = _losses.in_type(dtype_of_weight, weight)
    target = _losses.as_class_indices(target, target.shape, classes, ignore_index)
    if sample_weight is not None:
        sample_weight = _losses.for_each_row(sample_weight, target.shape)
    # A loss is the weight of its target, and of its row, where all log-probabilities are -1.
    log_probs = np.broadcast_to(-1.0, (*target.shape, classes))
    return computed(
        kernels.nll_loss(log_probs, target, -1, weight, sample_weight, ignore_index, "sum")
    )


def divisor_of_probabilities(target, sample_weight, *, axis):
    rows = target.shape[:axis] + target.shape[axis + 1 :]
    return kernels.total(_losses.for_each_row(sample_weight, rows))


def losses_and_grad(
    logits, target, sample_weight, temperature, where, divisor, *, label_smoothing, **keywords
):
    arguments = _losses.checked(
        logits, target, **keywords, sample_weight=sample_weight, reduction="none",
        label_smoothing=label_smoothing, temperature=temperature, where=where,
    )  # fmt: skip
    logits, *others = arguments
    logits, dtype = _losses.as_wide_as(logits, others[2])
    losses, grad = computed(kernels.cross_entropy(logits, *others, True, None, float(divisor)))
    return _losses.in_type(dtype, losses), _losses.in_type(dtype, grad)


def reduced(losses, reduction, divisor):
    if reduction == "none":
        return losses
    labels = all_of(losses)
    total = sum_over_blocks(total_of_block, labels, [losses], [labels])
    return by_blocks(mean_of_total, (), [total, divisor], [(), ()], np.float64)


def total_of_block(losses):
    """Here, so that a worker uses its own build. The losses of one row are a scalar."""
    return kernels.total(np.asarray(losses))


def mean_of_total(total, divisor):
    """The mean over nothing is NaN, also of a sum that isn't 0."""
    with quiet():
        return np.float64(total / divisor if divisor else math.nan)


def sum_over_blocks(function, labels, operands, labels_of_operands, **keywords):
    """The sum of a number that `function` makes of each block."""
    numbers = by_blocks(
        number_of_block, labels, operands, labels_of_operands, np.float64,
        whole={label for its in labels_of_operands for label in its} - set(labels),
        adjust_chunks=dict.fromkeys(labels, 1), function_of_block=function, ndim=len(labels),
        **keywords,
    )  # fmt: skip
    return by_blocks(quiet_sum, (), [numbers.rechunk(-1)], [labels], np.float64)


def number_of_block(*blocks, function_of_block, ndim, **keywords):
    return np.full([1] * ndim, function_of_block(*blocks, **keywords), np.float64)


def number_of(array, axes):
    """How many numbers these axes have, lazily where lengths are unknown."""
    number = math.prod(array.shape[i] for i in axes)
    if number == number:
        return float(number)
    # One block along other axes is enough.
    blocks = array.blocks[tuple(slice(None) if i in axes else slice(1) for i in all_of(array))]
    return sum_over_blocks(number_along, all_of(blocks), [blocks], [all_of(blocks)], axes=axes)


def number_along(block, *, axes):
    return math.prod(block.shape[i] for i in axes)


def quiet_sum(array):
    with quiet():
        return array.sum()


# Rows in several chunks. The softmax of a part times the part's share of its row's sum is the
# softmax of the row. Shares are made of two numbers of each part, its maximum and what the softmax
# of the part is there: 1 / sum e^((x - maximum) / T), however large the logits are. Logarithms add
# up alike. All of that is in float64, so that float32 has half a ULP more than whole rows; float64
# has up to three times their errors, and log-probabilities next to 0 lose digits.

def softmax_of_parts(function, operands, labels, axes, dtype):
    pairs = zip(operands, map(labels_of, operands, labels), strict=True)
    with as_many_axes_as_dask_has(operands):
        _, (x, temperature, where) = unify_chunks(*(one for pair in pairs for one in pair))
    parts = parts_of_rows(function, x, temperature, where, labels, axes)
    shares = by_blocks(
        shares_of_parts, all_of(x), [parts, temperature], [all_of(parts), labels[1]], np.float64,
        whole=axes, adjust_chunks={axes[0]: lambda n: n // 2}, function_of_rows=function,
        axes=axes,
    )  # fmt: skip
    # A chunk of x and its share have the same place, but not the same length.
    return by_blocks(
        softmax_of_part, all_of(x),
        [x, shares.rechunk(dict.fromkeys(axes, 1)), temperature, where], [all_of(x), *labels],
        dtype, align_arrays=False, function_of_rows=function, axes=axes,
    )  # fmt: skip


def parts_of_rows(function, x, temperature, where, labels, axes):
    """The two numbers for each chunk along `axes`, one after the other along the first of them: an
    axis of their own would be one too many for arrays that have as many as can be."""
    return by_blocks(
        part_of_rows, all_of(x), [x, temperature, where], labels, np.float64,
        adjust_chunks={axes[0]: 2, **dict.fromkeys(axes[1:], 1)}, function_of_rows=function,
        axes=axes,
    )  # fmt: skip


def both_of(parts, axes):
    """The first numbers of all chunks, and the second ones."""
    before = (slice(None),) * axes[0]
    return parts[(*before, slice(0, None, 2))], parts[(*before, slice(1, None, 2))]


def part_of_rows(x, temperature, where, *, function_of_rows, axes):
    x = as_array(x, "x")
    with quiet():
        part = with_one_axis(x, axes).astype(np.float64)    # a copy, and the only one
        if where is not None:
            mask = np.broadcast_to(as_mask(where, x), x.shape)
            np.copyto(part, -np.inf, where=~with_one_axis(mask, axes))
        maximum = part.max(axis=-1, initial=-np.inf)
        function_of_rows(part, temperature=temperature, out=part)
        largest = part.max(axis=-1, initial=-np.inf)
    alone = 1 if function_of_rows is _softmax.softmax else 0
    largest = np.where(np.isfinite(maximum), largest, alone)
    return np.concatenate([np.expand_dims(one, axes) for one in (maximum, largest)], axes[0])


def shares_of_parts(parts, temperature, *, function_of_rows, axes):
    """Or their logarithms. NaN where the row has no softmax."""
    maximum, largest = both_of(parts, axes)
    is_maximum = np.isfinite(maximum) & (maximum == maximum.max(axis=axes, keepdims=True))
    in_order = all(maximum.shape[i] == 1 for i in axes[1:])    # parts follow one another
    if not in_order and (np.equal(temperature, 0) & (is_maximum.sum(axes) > 1)).any():
        raise ValueError(
            f"at temperature 0, equal maxima are in several chunks of the axes {axes}, and which "
            "is first isn't known: rechunk these axes to one chunk"
        )
    shares = function_of_rows(maximum, axes, temperature=temperature)
    if function_of_rows is _softmax.log_softmax:
        return _softmax.log_softmax(shares - largest, axes)
    shares /= largest
    return shares / shares.sum(axis=axes, keepdims=True)


def softmax_of_part(x, share, temperature, where, *, function_of_rows, axes):
    result = function_of_rows(x, axes, temperature=temperature, where=where)
    counts = True if where is None else where
    is_log = function_of_rows is _softmax.log_softmax
    with quiet():
        (np.add if is_log else np.multiply)(
            result, share, out=result, where=counts, casting="unsafe"
        )
    # A part of only -inf has no softmax of its own, but nothing of the row's.
    nothing = -np.inf if is_log else 0
    np.copyto(result, nothing, where=share == nothing)
    return result


def log_sum_of_parts(parts, *, axes, dtype_of_sum):
    maximum, largest = both_of(parts, axes)
    with quiet():
        return _softmax.logsumexp(maximum - largest, axes).astype(dtype_of_sum)


# Arguments

def require_no_out(out):
    if out is not None:
        raise TypeError(
            "out must be None where an array is a Dask array: it is computed later; "
            f"got {type(out).__name__}"
        )


def as_lazy(array, name):
    """In chunks that go together. A NumPy array is in one, which others' chunks then cut."""
    if not isinstance(array, da.Array):
        return da.asarray(as_array(array, name), chunks=-1)
    # Dask takes an axis of length 1 that is in chunks of 0 and 1 for one of several numbers.
    return array.rechunk({i: -1 for i, n in enumerate(array.shape) if n == 1})


def as_lazy_logits(x, name):
    given, x = x, as_lazy(x, name)
    if not is_allowed(x.dtype):
        refuse_dtype(x, name, given)
    return x


def lazy_temperature(temperature, x, axes):
    if not isinstance(temperature, da.Array):
        temperature = as_temperature(temperature, x, axes)
        return as_lazy(temperature, "temperature") if np.ndim(temperature) else float(temperature)
    temperature = as_lazy(temperature, "temperature")
    require_real_temperature(temperature, temperature)
    require_one_for_each_row(temperature, x, axes, "temperature")
    return temperature


def lazy_mask(where, x):
    if where is None:
        return None
    mask = as_lazy(where, "where")
    require_mask(mask, x, where)
    return mask


def is_whole(x, axes):
    return all(x.numblocks[i] == 1 for i in axes)


def require_whole(x, axes, name, what):
    chunked = {i: -1 for i in axes if x.numblocks[i] > 1}
    if chunked:
        raise ValueError(
            f"{what} needs whole rows, but axis {next(iter(chunked))} of {name} is in several "
            f"chunks {x.chunks[next(iter(chunked))]}: {name}.rechunk({chunked}) makes one of them"
        )


# Blocks

def all_of(x):
    """Labels of all axes: their places."""
    return tuple(range(x.ndim))


def without(axes, x):
    return tuple(i for i in range(x.ndim) if i not in axes)


def labels_of(operand, labels):
    """Of the last axes, as NumPy broadcasts; None for what is no array and goes to every block."""
    if not isinstance(operand, da.Array):
        return None
    return tuple(labels)[len(labels) - operand.ndim :]


def both_by_blocks(function, labels, operands, labels_of_operands, dtype, **keywords):
    """Of a function with two results; `labels` are theirs, `dtype` is that of both, or a pair. The
    results lie in pairs in the blocks of an array that others never see."""
    of_pairs = max(labels, key=len)
    dtypes = dtype if isinstance(dtype, tuple) else (dtype, dtype)
    pairs = by_blocks(function, of_pairs, operands, labels_of_operands, dtypes[0], **keywords)
    return tuple(
        by_blocks(part_of_pair, labels[i], [pairs], [of_pairs], dtypes[i], place=i)
        for i in range(2)
    )


def part_of_pair(pair, *, place):
    return pair[place]


def by_blocks(
    function, labels, operands, labels_of_operands, dtype, *, whole=(), names=(), new_axes=None,
    adjust_chunks=None, align_arrays=True, **keywords,
):  # fmt: skip
    """`function` of the blocks with equal labels. The last operands are its parameters `names`.

    Blocks have all of the axes that are labelled `whole`.
    """
    arguments = []
    for operand, its_labels in zip(operands, labels_of_operands, strict=True):
        its_labels = labels_of(operand, its_labels)
        if its_labels is not None:
            # Of unknown lengths Dask refuses even what changes nothing.
            cut = [
                i for i, label in enumerate(its_labels)
                if label in whole and operand.numblocks[i] > 1
            ]  # fmt: skip
            with as_many_axes_as_dask_has([operand]):
                operand = operand.rechunk(dict.fromkeys(cut, -1))
        arguments += [operand, its_labels]
    require_equal_numbers_of_unknown_blocks(arguments)
    with as_many_axes_as_dask_has(operands):
        return da.blockwise(
            of_block, tuple(labels), *arguments, token=function.__name__, dtype=dtype,
            meta=np.empty((0,) * len(labels), dtype), new_axes=new_axes,
            adjust_chunks=adjust_chunks, align_arrays=align_arrays, function=function,
            names=names, **keywords,
        )  # fmt: skip


@contextlib.contextmanager
def as_many_axes_as_dask_has(operands):
    """Dask brings chunks of up to 32 axes together, where arrays have up to 64."""
    try:
        yield
    except RuntimeError as error:
        axes = max(np.ndim(one) for one in operands)
        if axes <= 32:
            raise
        raise ValueError(
            "Dask changes the chunks of arrays of up to 32 axes, and here chunks have to be "
            f"brought together; got {axes}: reshape, or give arrays whose rows are in one chunk"
        ) from error


def require_equal_numbers_of_unknown_blocks(arguments):
    """Dask repeats one block beside several, whatever its length turns out to be."""
    chunks_of_labels = {}
    for operand, labels in zip(arguments[::2], arguments[1::2], strict=True):
        for label, chunks in zip(labels or (), getattr(operand, "chunks", ()), strict=True):
            if chunks != (1,):
                chunks_of_labels.setdefault(label, []).append(chunks)
    for several in chunks_of_labels.values():
        if len(set(map(len, several))) > 1 and math.isnan(sum(map(sum, several))):
            raise ValueError(
                f"one of the arrays has chunks of unknown lengths, and others have other chunks: "
                f"{several}; x.compute_chunk_sizes() makes lengths known"
            )


def of_block(*blocks, function, names, **keywords):
    """Of an axis that the result doesn't have, Dask gives a list of blocks, here always of one.

    With its `concatenate=True` it would copy that one.
    """
    blocks = list(blocks)
    for i in range(len(blocks)):
        while isinstance(blocks[i], list):
            (blocks[i],) = blocks[i]
    places = len(blocks) - len(names)
    keywords |= zip(names, blocks[places:], strict=True)
    with among_blocks():
        return function(*blocks[:places], **keywords)


@contextlib.contextmanager
def among_blocks():
    """One thread for a block, unless a number was set.

    As many blocks are computed at once as there are CPUs, in threads or processes: more threads
    would only take each other's time.
    """
    if _threads.is_set:
        yield
        return
    before = kernels.set_thread_limit_here(1)
    try:
        yield
    finally:
        kernels.set_thread_limit_here(before)
