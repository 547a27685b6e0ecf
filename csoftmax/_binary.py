"""sigmoid, log_sigmoid and binary_cross_entropy: two classes, of which one has the logit 0."""

from csoftmax._arguments import (
    as_logits,
    as_out,
    computed,
    require_broadcastable,
    require_out,
    require_shape_of,
)
from csoftmax._dispatch import kernels
from csoftmax._lazy import lazy_functions
from csoftmax._losses import as_reduction


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
    Softplus, :math:`\log(1 + e^x)`, is ``-log_sigmoid(-x)``. The largest error found is 3 ULP; what
    is closer to 0 than the smallest normal number may be 0.

    Examples
    --------
    >>> from csoftmax import log_sigmoid
    >>> log_sigmoid([-1000.0, 0.0, 2.0]).round(3)
    array([-1.000e+03, -6.930e-01, -1.270e-01])
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
        bools, where that is known.
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
    cross_entropy : Of several classes, of which one is right.

    Notes
    -----
    :math:`-\log \sigma(z) = \max(-z, 0) + \log(1 + e^{-|z|})`: no logarithm of 0, however large the
    logits are. A term of weight 0 doesn't count, even if its logarithm is infinite.

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
    reduction = as_reduction(reduction)
    logits, target = as_logits(logits, "logits"), as_logits(target, "target")
    require_shape_of(logits, "the logits", target, "target")
    weights = [weight, pos_weight]
    for i, name in enumerate(("weight", "pos_weight")):
        if weights[i] is not None:
            weights[i] = as_logits(weights[i], name)
            require_broadcastable(weights[i], logits.shape, name, "the shape of the logits")
    return computed(
        kernels.binary_cross_entropy(logits, target, *weights, reduction)
    )
