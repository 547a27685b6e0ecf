"""sigmoid, log_sigmoid, binary cross-entropy: two classes, of which one has the logit 0."""

from csoftmax._arguments import (
    as_logits,
    as_out,
    computed,
    require_broadcastable,
    require_order_of,
    require_out,
    require_shape_of,
)
from csoftmax._dispatch import kernels
from csoftmax._lazy import lazy_functions
from csoftmax._losses import as_reduction, as_wide_as, in_type


def sigmoid(x, /, *, out=None):
    r"""Logistic sigmoid of every number.

    .. math:: \sigma(x) = \frac{1}{1 + e^{-x}}

    Parameters
    ----------
    x : array_like
        Logits. Types as for `softmax`.
    out : ndarray, optional
        Where to write the result: floating-point, of the shape of `x`, and may be `x` itself.

    Returns
    -------
    ndarray or scalar
        Probabilities, of the shape of `x`, in float32 or float64; `out` if that is given.

    Raises
    ------
    TypeError
        If `x` is longdouble, complex, object or text, or `out` isn't a floating-point array.
    ValueError
        If `out` has another shape.

    See Also
    --------
    softmax : Of several classes, of which one is right. A sigmoid each is for labels that may be
        right together.
    log_sigmoid : The logarithm, also where the probability is 0.
    binary_cross_entropy : The loss of the logits directly.

    Notes
    -----
    Computed from :math:`e^{-|x|}`, so that nothing overflows. The largest error found is 3 ULP;
    what is below the smallest normal number may be 0.

    Examples
    --------
    >>> import numpy as np
    >>> from csoftmax import sigmoid, softmax
    >>> sigmoid([-1000.0, 0.0, 2.0]).round(3)
    array([0.   , 0.5  , 0.881])

    It is the softmax of two classes, one of which has the logit 0:

    >>> softmax([2.0, 0.0]).round(3)
    array([0.881, 0.119])
    """
    result = kernels.sigmoid(x, out)
    return of_each_number(sigmoid, kernels.sigmoid, x, out) if result is None else result


def log_sigmoid(x, /, *, out=None):
    r"""Logarithm of the logistic sigmoid of every number.

    .. math:: \log \sigma(x) = -\log(1 + e^{-x}) = \min(x, 0) - \log(1 + e^{-|x|})

    Parameters
    ----------
    x : array_like
        Logits. Types as for `softmax`.
    out : ndarray, optional
        Where to write the result: floating-point, of the shape of `x`, and may be `x` itself.

    Returns
    -------
    ndarray or scalar
        Log-probabilities, of the shape of `x`, in float32 or float64; `out` if that is given.

    Raises
    ------
    TypeError, ValueError
        As `sigmoid` does.

    See Also
    --------
    sigmoid : The probability.
    log_softmax : Of several classes, of which one is right.
    binary_cross_entropy : The loss, which is ``-log_sigmoid(x)`` where the label is right and
        ``-log_sigmoid(-x)`` where it is not.

    Notes
    -----
    Finite for every finite number, and with all its digits where the probability is close to 1.
    Softplus, :math:`\log(1 + e^x)`, is ``-log_sigmoid(-x)``. The largest error found is 2 ULP, with
    x86-64-v2 3; what is closer to 0 than the smallest normal number may be 0.

    Examples
    --------
    >>> from csoftmax import log_sigmoid
    >>> log_sigmoid([-1000.0, 0.0, 2.0]).round(3)
    array([-1.00e+03, -6.93e-01, -1.27e-01])
    """
    result = kernels.log_sigmoid(x, out)
    return of_each_number(log_sigmoid, kernels.log_sigmoid, x, out) if result is None else result


def of_each_number(function, kernel, x, out):
    """Of arguments that the kernel has not taken as they are."""
    if lazily := lazy_functions(x):
        return lazily.of_each_number(function, x, out)
    x = as_logits(x)
    if out is not None:
        require_out(out, x.shape)
    result = computed(kernel(x, as_out(out)))
    return result if out is None else out


def binary_cross_entropy(
    logits, target, /, *, weight=None, pos_weight=None, reduction="mean"
):
    r"""Binary cross-entropy of logits and probabilities, elementwise.

    .. math:: \ell = -w \bigl(v\, t \log \sigma(z) + (1 - t) \log(1 - \sigma(z))\bigr)

    Parameters
    ----------
    logits : array_like
        Scores :math:`z`. Types as for `softmax`.
    target : array_like
        Probabilities :math:`t` that the label is right, of the shape of `logits`; 0 and 1, or
        bools, where that is known. Not checked: what is outside [0, 1] goes into the formula.
    weight : array_like, optional
        :math:`w`, broadcasts to `logits`. Default: 1.
    pos_weight : array_like, optional
        :math:`v`, the weight of what is right; broadcasts to `logits`. Default: 1.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides the sum by the number of elements, "none" returns every loss.

    Returns
    -------
    scalar or ndarray
        The loss in nats. A mean or a sum is made in float64 and is one, whatever the type of
        `logits`. With "none" of the shape of `logits`, in the dtype of the computation, float32 or
        float64. The mean of no element is NaN.

    Raises
    ------
    TypeError
        If the dtype of an input is not a real number's.
    ValueError
        If `target` has another shape than `logits`, `weight` or `pos_weight` does not broadcast to
        it, or `reduction` is none of the three.

    See Also
    --------
    binary_cross_entropy_value_and_grad : Also its gradient.
    cross_entropy : Of several classes, of which one is right.

    Notes
    -----
    :math:`-\log \sigma(z) = \max(-z, 0) + \log(1 + e^{-|z|})`: no logarithm of 0, however large the
    logits are. A term of weight 0 doesn't count, even if its logarithm is infinite. A loss under
    the smallest normal number, 1.2e-38 in float32 and 2.2e-308 in float64, may be 0.

    Examples
    --------
    >>> import numpy as np
    >>> from csoftmax import binary_cross_entropy
    >>> binary_cross_entropy([2.0, -1.0, 1000.0], [1, 0, 0], reduction="none").round(3)
    array([1.27e-01, 3.13e-01, 1.00e+03])
    """
    loss = kernels.binary_cross_entropy(logits, target, weight, pos_weight, reduction)
    if loss is not None:
        return loss
    if lazily := lazy_functions(logits, target, weight, pos_weight):
        return lazily.binary_cross_entropy(logits, target, weight, pos_weight, reduction)
    logits, *others = checked(logits, target, weight, pos_weight, reduction)
    logits, dtype = as_wide_as(logits, *others[1:3])
    loss = computed(kernels.binary_cross_entropy(logits, *others))
    return in_type(dtype, loss) if reduction == "none" else loss


def binary_cross_entropy_value_and_grad(
    logits, target, /, *, weight=None, pos_weight=None, reduction="mean", out=None
):
    r"""Binary cross-entropy and its gradient with respect to the logits.

    .. math:: \frac{\partial \ell}{\partial z} =
        \frac{w}{N} \bigl((1 - t)\, \sigma(z) - v\, t\, \sigma(-z)\bigr)

    where N is the number of elements for "mean", else 1. Without weights that is
    :math:`(\sigma(z) - t) / N`.

    Parameters
    ----------
    logits : array_like
        Scores :math:`z`. Types as for `softmax`.
    target : array_like
        Probabilities :math:`t`, of the shape of `logits`, as for `binary_cross_entropy`.
    weight : array_like, optional
        :math:`w`, broadcasts to `logits`. Default: 1.
    pos_weight : array_like, optional
        :math:`v`, the weight of what is right; broadcasts to `logits`. Default: 1.
    reduction : {"mean", "sum", "none"}, default "mean"
        As for `binary_cross_entropy`. The gradient is that of the mean or of the sum.
    out : ndarray, optional
        Where to write the gradient: floating-point, of the shape of `logits`, and may be `logits`.

    Returns
    -------
    loss : scalar or ndarray
        As from `binary_cross_entropy`.
    grad : ndarray or scalar
        The gradient of the loss, with "none" of the losses' sum, of the shape of `logits`; `out` if
        that is given.

    Raises
    ------
    TypeError, ValueError
        As `binary_cross_entropy` does, before anything is written to `out`.

    See Also
    --------
    binary_cross_entropy : The loss alone.
    cross_entropy_value_and_grad : Of several classes, of which one is right.

    Notes
    -----
    One sweep, both from :math:`e^{-|z|}`. The difference :math:`\sigma(z) - t` would be 0 where the
    prediction is close to 1 and right; here it keeps its digits, down to the smallest normal
    number: 1.2e-38 in float32, 2.2e-308 in float64. What is below may be 0.

    Examples
    --------
    >>> from csoftmax import binary_cross_entropy_value_and_grad, sigmoid
    >>> loss, grad = binary_cross_entropy_value_and_grad([2.0, -1.0, 0.5], [1, 0, 0])
    >>> loss.round(3), grad.round(3)
    (np.float64(0.471), array([-0.04 ,  0.09 ,  0.207]))

    A prediction that is nearly certain, and right:

    >>> binary_cross_entropy_value_and_grad(40.0, 1)[1]
    np.float64(-4.248354255291589e-18)
    >>> sigmoid(40.0) - 1
    np.float64(0.0)
    """
    loss_and_grad = kernels.binary_cross_entropy(
        logits, target, weight, pos_weight, reduction, True, out
    )
    if loss_and_grad is not None:
        return loss_and_grad
    if lazily := lazy_functions(logits, target, weight, pos_weight):
        return lazily.binary_cross_entropy_value_and_grad(
            logits, target, weight, pos_weight, reduction, out
        )
    logits, *others = checked(logits, target, weight, pos_weight, reduction)
    if out is not None:
        require_out(out, logits.shape)
    logits, dtype = as_wide_as(logits, *others[1:3])
    loss, grad = computed(kernels.binary_cross_entropy(logits, *others, True, as_out(out)))
    if reduction == "none":
        loss = in_type(dtype, loss)
    return loss, in_type(dtype, grad) if out is None else out


def checked(logits, target, weight, pos_weight, reduction):
    """The arguments as the kernel takes them."""
    reduction = as_reduction(reduction)
    require_order_of(logits, "logits", target=target, weight=weight, pos_weight=pos_weight)
    logits, target = as_logits(logits, "logits"), as_logits(target, "target")
    require_shape_of(logits, "the logits", target, "target")
    weights = [weight, pos_weight]
    for i, name in enumerate(("weight", "pos_weight")):
        if weights[i] is not None:
            weights[i] = as_logits(weights[i], name)
            require_broadcastable(weights[i], logits.shape, name, "the shape of the logits")
    return logits, target, *weights, reduction
