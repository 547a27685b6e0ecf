"""kl_divergence and its gradient."""

from csoftmax._arguments import (
    as_logits,
    as_mask,
    as_out,
    as_temperature,
    computed,
    require_order_of,
    require_out,
    require_shape_of,
)
from csoftmax._dispatch import kernels
from csoftmax._lazy import lazy_functions
from csoftmax._losses import as_logits_with_axis, as_reduction


def kl_divergence(
    logits, target_logits, /, axis=-1, *, temperature=1.0, where=None, reduction="mean"
):
    r"""Kullback-Leibler divergence of two softmaxes, from the logits of both.

    .. math:: D(p \,\|\, q) = \sum_j p_j \log \frac{p_j}{q_j}

    where :math:`p = \operatorname{softmax}(t / T)` is the target and
    :math:`q = \operatorname{softmax}(z / T)`.

    Parameters
    ----------
    logits : array_like
        Scores :math:`z`, one per class along `axis`: those that are to become like the target's.
        Types as for `softmax`.
    target_logits : array_like
        Scores :math:`t` of the target, of the shape of `logits`.
    axis : int, default -1
        The axis of the classes.
    temperature : float or array_like, default 1.0
        :math:`T \ge 0` of both sides, a number or one per row, as for `softmax`.
    where : array_like of bool, optional
        False for classes to leave out on both sides; broadcasts to `logits`.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides the sum by the number of rows, as PyTorch's "batchmean" does where all axes
        but that of the classes are one; "none" returns the divergence of every row.

    Returns
    -------
    scalar or ndarray
        The divergence in nats, at least 0. A mean or a sum is made in float64 and is one, whatever
        the type of the logits. With "none" an array of the shape of `logits` without `axis`, in
        float32 if both inputs are computed in it, else in float64. The mean of no row is NaN.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `softmax` does, if both logits have different shapes, or `reduction` is not as described.

    See Also
    --------
    kl_divergence_value_and_grad : The gradient with it.
    cross_entropy : With probabilities as the target: the divergence and the target's entropy.

    Notes
    -----
    A class that has no probability in the target counts as 0. One that has some there, but is -inf
    in `logits`, makes the divergence infinite. So it is at temperature 0 unless both maxima are in
    one place. A row that has no softmax on either side is NaN, one of which `where` leaves nothing
    is 0.

    The divergence [1]_ of two rows that are close is far less than the entropies whose difference
    it is, and such a difference has no digits then. This is a sum of
    :math:`p_j (q_j / p_j - 1 - \log (q_j / p_j))`, no term of which is negative, made of the
    differences of logits: it keeps its digits where rows differ by the last bit of each logit, and
    is 0 where they are equal.

    A class whose probability in the target is under the smallest normal number, 1.2e-38 in float32
    and 2.2e-308 in float64, may add nothing.

    With temperature it is the loss of distillation [2]_, where it is often multiplied by
    :math:`T^2`.

    References
    ----------
    .. [1] S. Kullback, R. A. Leibler, "On Information and Sufficiency", 1951.
       https://doi.org/10.1214/aoms/1177729694
    .. [2] G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015.
       https://arxiv.org/abs/1503.02531

    Examples
    --------
    >>> import numpy as np
    >>> from csoftmax import kl_divergence, softmax
    >>> teacher, student = np.array([3.0, 1.0, 0.0]), np.array([2.0, 1.0, 0.1])
    >>> kl_divergence(student, teacher).round(4)
    np.float64(0.0868)
    >>> p, q = softmax(teacher), softmax(student)
    >>> (p * np.log(p / q)).sum().round(4)
    np.float64(0.0868)

    Where both are close, a difference of two losses would have no digits; this keeps them:

    >>> close = teacher + [1e-9, 0, 0]
    >>> print(f"{kl_divergence(close, teacher):.3g}")
    6.59e-20
    """
    loss = kernels.kl_divergence(
        logits, target_logits, axis, temperature, where, reduction
    )
    if loss is None:
        if lazily := lazy_functions(logits, target_logits, temperature, where):
            return lazily.kl_divergence(
                logits, target_logits, axis, temperature, where, reduction
            )
        loss = computed(kernels.kl_divergence(*checked(
            logits, target_logits, axis, temperature, where, reduction
        )))
    return loss


def kl_divergence_value_and_grad(
    logits, target_logits, /, axis=-1, *, temperature=1.0, where=None, reduction="mean", out=None
):
    r"""Kullback-Leibler divergence of two softmaxes, and its gradient with respect to the logits.

    .. math:: \frac{\partial D}{\partial z_i} = \frac{1}{N T} (q_i - p_i)

    where p is the softmax of the target's logits, q that of `logits`, and N the number of rows for
    "mean", else 1.

    Parameters
    ----------
    logits : array_like
        Scores, one per class along `axis`, as for `kl_divergence`.
    target_logits : array_like
        Scores of the target, of the shape of `logits`.
    axis : int, default -1
        The axis of the classes.
    temperature : float or array_like, default 1.0
        :math:`T \ge 0` of both sides, a number or one per row, as for `softmax`.
    where : array_like of bool, optional
        False for classes to leave out on both sides; broadcasts to `logits`. Their gradient is 0.
    reduction : {"mean", "sum", "none"}, default "mean"
        As for `kl_divergence`. The gradient is that of the mean or of the sum.
    out : ndarray, optional
        Where to write the gradient: floating-point, of the shape of `logits`; may be `logits` or
        `target_logits`.

    Returns
    -------
    divergence : scalar or ndarray
        As from `kl_divergence`.
    grad : ndarray
        The gradient of the divergence, with "none" of the rows' sum, of the shape of `logits`;
        `out` if that is given.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `kl_divergence` does, before anything is written to `out`.

    See Also
    --------
    kl_divergence : The divergence alone.
    cross_entropy_value_and_grad : The same gradient from the target's probabilities.

    Notes
    -----
    Where p and q are close, their difference is made of that of the logits, and keeps its digits.

    Examples
    --------
    >>> from csoftmax import kl_divergence_value_and_grad
    >>> divergence, grad = kl_divergence_value_and_grad([[2.0, 1.0, 0.1]], [[3.0, 1.0, 0.0]])
    >>> divergence.round(4), grad.round(3)
    (np.float64(0.0868), array([[-0.185,  0.128,  0.057]]))
    """
    loss_and_grad = kernels.kl_divergence(
        logits, target_logits, axis, temperature, where, reduction, True, out
    )
    if loss_and_grad is not None:
        return loss_and_grad
    if lazily := lazy_functions(logits, target_logits, temperature, where):
        return lazily.kl_divergence_value_and_grad(
            logits, target_logits, axis, temperature, where, reduction, out
        )
    logits, *others = checked(logits, target_logits, axis, temperature, where, reduction)
    if out is not None:
        require_out(out, logits.shape)
    loss, grad = computed(kernels.kl_divergence(logits, *others, True, as_out(out)))
    return loss, grad if out is None else out


def checked(logits, target_logits, axis, temperature, where, reduction):
    """The arguments as the kernel takes them."""
    reduction = as_reduction(reduction)
    require_order_of(
        logits, "logits", target_logits=target_logits, temperature=temperature, where=where
    )
    logits, axis, _, _ = as_logits_with_axis(logits, axis, "logits")
    target_logits = as_logits(target_logits, "target_logits")
    require_shape_of(logits, "the logits", target_logits, "target_logits")
    temperature = as_temperature(temperature, logits, (axis,))
    return logits, target_logits, axis, temperature, as_mask(where, logits), reduction
