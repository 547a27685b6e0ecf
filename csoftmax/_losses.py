"""cross_entropy and its gradient."""

import operator

import numpy as np

from csoftmax._arguments import (
    as_logits,
    as_temperature,
    call,
    new_result,
    normalized_axis,
    require_out,
)
from csoftmax._dispatch import kernels

REDUCTIONS = ("mean", "sum", "none")


def cross_entropy(
    logits, target, /, axis=-1, *, ignore_index=-100, reduction="mean", temperature=1.0
):
    r"""Cross-entropy of logits and class indices: minus the log-probability of the right class.

    .. math:: \ell = -\log p_t = \log \sum_j e^{z_j / T} - z_t / T

    Parameters
    ----------
    logits : array_like
        Scores :math:`z`, one per class along `axis`. Types as for `softmax`.
    target : array_like of int
        The right class of each row, in [0, C): the shape of `logits` without `axis`.
    axis : int, default -1
        The axis of the C classes. (PyTorch's is 1.)
    ignore_index : int, default -100
        Rows with this target have the loss 0 and don't count in the mean.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides the sum by the number of rows not ignored, "none" returns every loss.
    temperature : float or array_like, default 1.0
        :math:`T \ge 0`, a number or one per row, as for `softmax`.

    Returns
    -------
    scalar or ndarray
        The loss in nats, in the dtype of the computation, float32 or float64; with "none" an array
        of the shape of `target`. The sum is made in float64. The mean of no row is NaN.

    Raises
    ------
    IndexError
        If a target is neither in [0, C) nor `ignore_index`.
    TypeError
        If the dtype of `logits` is not a real number's, or `target` are not integers.
    ValueError
        If `target` has the wrong shape, or `reduction` or `temperature` is not as described.

    See Also
    --------
    cross_entropy_value_and_grad : The gradient with it, for less than twice the time.
    log_softmax : All log-probabilities.

    Notes
    -----
    No probabilities are stored. ``-log(softmax(z))[t]`` overflows to inf where :math:`p_t`
    underflows, this doesn't; and where :math:`p_t` is close to 1, all digits of the small loss are
    right.

    Examples
    --------
    >>> import numpy as np
    >>> from csoftmax import cross_entropy
    >>> cross_entropy(np.log([0.2, 0.1, 0.7]), 2).round(3)
    np.float64(0.357)
    >>> logits = np.array([[2.0, 1.0, 0.1], [0.0, 1000.0, 0.0]])
    >>> cross_entropy(logits, [0, 2], reduction="none").round(3)
    array([4.17e-01, 1.00e+03])
    >>> cross_entropy(logits, [0, -100]).round(3)
    np.float64(0.417)
    """
    logits, target, axis, temperature, ignore_index = loss_arguments(
        logits, target, axis, temperature, ignore_index, reduction
    )
    losses = call(
        kernels.cross_entropy, logits, target, ignore_index, temperature, axis=axis
    )
    return reduced(losses, reduction, count_of_rows(target, ignore_index, reduction))


def cross_entropy_value_and_grad(
    logits,
    target,
    /,
    axis=-1,
    *,
    ignore_index=-100,
    reduction="mean",
    temperature=1.0,
    out=None,
):
    r"""Cross-entropy and its gradient with respect to the logits.

    .. math:: \frac{\partial \ell}{\partial z_i} = \frac{w}{T} (p_i - [i = t])

    with :math:`w = 1 / N` for the mean over N rows that are not ignored, else 1.

    Parameters
    ----------
    logits, target, axis, ignore_index, reduction, temperature
        As for `cross_entropy`.
    out : ndarray, optional
        Where to write the gradient: floating-point, of the shape of `logits`, and may be `logits`.

    Returns
    -------
    loss : scalar or ndarray
        As from `cross_entropy`.
    grad : ndarray
        The gradient of the loss, with "none" of the losses' sum, of the shape of `logits`; `out` if
        that is given. Ignored rows have the gradient 0.

    Raises
    ------
    IndexError, TypeError, ValueError
        As `cross_entropy` does, before anything is written to `out`.

    Notes
    -----
    One sweep: the gradient is made of the exponentials while a row is in the cache.

    At temperature 0 the gradient is the limit for small temperatures: 0 where the prediction is
    right, else infinite for the two classes in question.

    Examples
    --------
    >>> from csoftmax import cross_entropy_value_and_grad
    >>> loss, grad = cross_entropy_value_and_grad([[2.0, 1.0, 0.1]], [0])
    >>> loss.round(3), grad.round(3)
    (np.float64(0.417), array([[-0.341,  0.242,  0.099]]))
    """
    logits, target, axis, temperature, ignore_index = loss_arguments(
        logits, target, axis, temperature, ignore_index, reduction
    )
    if out is not None:
        require_out(out, logits.shape)
    rows = count_of_rows(target, ignore_index, reduction)
    losses, grad = call(
        kernels.cross_entropy_value_and_grad,
        logits, target, ignore_index, temperature, 1.0 / max(rows, 1),
        axis=axis, out=(None, new_result(logits) if out is None else out),
    )  # fmt: skip
    return reduced(losses, reduction, rows), grad


def loss_arguments(logits, target, axis, temperature, ignore_index, reduction):
    """The arguments that the losses share, checked and as the kernels want them."""
    if not isinstance(reduction, str) or reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    logits = as_logits(logits, "logits")
    axis = normalized_axis(as_integer(axis, "axis"), logits.ndim)
    row_shape = logits.shape[:axis] + logits.shape[axis + 1 :]
    temperature = as_temperature(temperature, logits, (axis,))
    ignore_index = as_integer(ignore_index, "ignore_index")
    if not -(2**63) <= ignore_index < 2**63:
        raise ValueError(f"ignore_index must be an int64, got {ignore_index}")
    target = as_class_indices(target, row_shape, logits.shape[axis], ignore_index)
    return logits, target, axis, temperature, ignore_index


def as_integer(value, name):
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None


def as_class_indices(target, row_shape, classes, ignore_index):
    """`target` as int64, every one of which is a class or `ignore_index`."""
    target = np.asarray(target)
    if target.size == 0 and target.dtype == np.float64:
        target = target.astype(np.int64)    # an empty list
    if target.dtype.kind not in "iu":
        raise TypeError(
            f"target must be class indices: integers of shape {row_shape}, the shape of the logits "
            f"without the class axis; got {target.dtype} of shape {target.shape}"
        )
    if target.shape != row_shape:
        raise ValueError(
            f"target must have the shape of the logits without the class axis, {row_shape}; "
            f"got {target.shape}"
        )
    if target.dtype == np.uint64 and target.size and target.max() > np.uint64(2**63 - 1):
        wrong = target > np.uint64(2**63 - 1)    # int64 would make small negative numbers of them
    else:
        indices = target.astype(np.int64, copy=False)
        is_class = indices.view(np.uint64) < np.uint64(classes)    # what is negative is huge here
        if is_class.all():
            return indices
        wrong = ~is_class & (indices != ignore_index)
        if not wrong.any():
            return indices
    position = tuple(int(i) for i in np.unravel_index(wrong.argmax(), wrong.shape))
    where = f"target[{', '.join(map(str, position))}]" if position else "target"
    allowed = f"0 to {classes - 1} (C = {classes})" if classes else "none (C = 0)"
    raise IndexError(
        f"{where} is {target[position]}, but classes are {allowed} "
        f"and ignore_index is {ignore_index}"
    )


def count_of_rows(target, ignore_index, reduction):
    """The rows that a mean is taken of; 1 for other reductions."""
    return np.count_nonzero(target != ignore_index) if reduction == "mean" else 1


def reduced(losses, reduction, rows):
    if reduction == "none":
        return losses
    with np.errstate(all="ignore"):
        return losses.dtype.type(losses.sum(dtype=np.float64) / np.float64(rows))
