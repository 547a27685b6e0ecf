"""Vector-Jacobian products of softmax and log_softmax, and the Jacobian itself."""

import numpy as np

from csoftmax._arguments import (
    along_one_axis,
    as_integer,
    as_logits,
    as_out,
    as_temperature,
    computed_type,
    normalized_axes,
    normalized_axis,
    quiet,
    require_order_of,
    require_out,
    require_shape_of,
)
from csoftmax._dispatch import kernels
from csoftmax._lazy import lazy_functions


def softmax_vjp(grad, y, /, axis=-1, *, temperature=1.0, out=None):
    r"""Gradient with respect to the logits from that with respect to the probabilities.

    .. math:: \frac{\partial L}{\partial x_i} = \frac{y_i}{T} \Bigl(g_i - \sum_j g_j y_j\Bigr)

    Parameters
    ----------
    grad : array_like
        :math:`g = \partial L / \partial y`, of the shape of `y`.
    y : array_like
        Probabilities, ``softmax(x, axis, temperature=temperature)``.
    axis : int, tuple of ints or None, default -1
        The axis or axes that `softmax` summed over.
    temperature : float or array_like, default 1.0
        The temperature that `softmax` had.
    out : ndarray, optional
        Where to write the result: floating-point, of the shape of `y`; may be `grad` or `y`.

    Returns
    -------
    ndarray
        The gradient with respect to the logits, in float32 if both inputs are computed in it, else
        in float64; `out` if that is given.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `softmax` does, and if `grad` and `y` have different shapes.

    See Also
    --------
    softmax_jacobian : The matrix that this multiplies with.

    Notes
    -----
    Where `y` is 0, the result is 0 and `grad` doesn't count, NaN included: nothing that ``where=``
    left out of the softmax leaks into gradients. Nor does what has a probability under the smallest
    normal number, if `softmax` made 0 of it. That `y` is a softmax isn't checked.

    Examples
    --------
    >>> import numpy as np
    >>> from csoftmax import softmax, softmax_vjp
    >>> y = softmax([2.0, 1.0, 0.1])
    >>> softmax_vjp([1.0, 0.0, 0.0], y).round(3)
    array([ 0.225, -0.16 , -0.065])
    """
    result = kernels.softmax_vjp(grad, y, axis, temperature, out)
    if result is None:
        result = product(softmax_vjp, grad, y, "y", axis, temperature, out)
    return result


def log_softmax_vjp(grad, log_y, /, axis=-1, *, temperature=1.0, out=None):
    r"""Gradient with respect to the logits from that with respect to the log-probabilities.

    .. math:: \frac{\partial L}{\partial x_i} = \frac{1}{T} \Bigl(g_i - y_i \sum_j g_j\Bigr)

    Parameters
    ----------
    grad : array_like
        :math:`g = \partial L / \partial \log y`, of the shape of `log_y`.
    log_y : array_like
        Log-probabilities, ``log_softmax(x, axis, temperature=temperature)``.
    axis : int, tuple of ints or None, default -1
        The axis or axes that `log_softmax` summed over.
    temperature : float or array_like, default 1.0
        The temperature that `log_softmax` had.
    out : ndarray, optional
        Where to write the result: floating-point, of the shape of `log_y`; may be `grad` or
        `log_y`.

    Returns
    -------
    ndarray
        The gradient with respect to the logits, in float32 if both inputs are computed in it, else
        in float64; `out` if that is given.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `softmax` does, and if `grad` and `log_y` have different shapes.

    See Also
    --------
    softmax_vjp : The same from probabilities.

    Notes
    -----
    Where `log_y` is -inf, the result is 0 and `grad` doesn't count, NaN included. A probability
    under the smallest normal number, 1.2e-38 in float32 and 2.2e-308 in float64, may count as 0.
    That `log_y` is a log-softmax isn't checked.

    Examples
    --------
    >>> from csoftmax import log_softmax, log_softmax_vjp
    >>> log_y = log_softmax([2.0, 1.0, 0.1])
    >>> log_softmax_vjp([1.0, 0.0, 0.0], log_y).round(3)
    array([ 0.341, -0.242, -0.099])
    """
    result = kernels.log_softmax_vjp(grad, log_y, axis, temperature, out)
    if result is None:
        result = product(log_softmax_vjp, grad, log_y, "log_y", axis, temperature, out)
    return result


def softmax_jacobian(y, /, axis=-1, *, temperature=1.0):
    r"""Jacobian of the softmax, from its result: for teaching and for checks.

    .. math:: \frac{\partial y_i}{\partial x_j} = \frac{1}{T} y_i (\delta_{ij} - y_j)

    Parameters
    ----------
    y : array_like
        Probabilities, ``softmax(x, axis, temperature=temperature)``.
    axis : int, default -1
        The axis that `softmax` summed over, of length n.
    temperature : float or array_like, default 1.0
        The temperature that `softmax` had, a number or one per row.

    Returns
    -------
    ndarray
        Of the shape of `y` without `axis`, followed by (n, n); float32 or float64. The matrices are
        symmetric, and their rows sum to 0.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `softmax` does.

    See Also
    --------
    softmax_vjp : The product with a gradient, without the matrix: n numbers instead of n squared.

    Examples
    --------
    >>> from csoftmax import softmax, softmax_jacobian
    >>> softmax_jacobian(softmax([2.0, 1.0, 0.1])).round(3)
    array([[ 0.225, -0.16 , -0.065],
           [-0.16 ,  0.184, -0.024],
           [-0.065, -0.024,  0.089]])
    """
    if lazily := lazy_functions(y, temperature):
        return lazily.softmax_jacobian(y, axis, temperature)
    require_order_of(y, "y", temperature=temperature)
    y = as_logits(y, "y")
    require_room_for_matrix(y)
    axis = normalized_axis(as_integer(axis, "axis"), y.ndim)
    temperature = np.asarray(as_temperature(temperature, y, (axis,)))
    y = np.moveaxis(y, axis, -1).astype(computed_type(y), copy=False)
    with quiet():
        products = y[..., :, None] * y[..., None, :]
        diagonal = (y * share_of_others(y))[..., None]
        jacobian = np.where(np.eye(y.shape[-1], dtype=bool), diagonal, -products)
        jacobian = np.where(jacobian == 0, 0, jacobian / temperature[..., None, None])
        return jacobian.astype(y.dtype, copy=False)


def share_of_others(y):
    """1 - y; where one class has nearly all, the sum of what the others have, unless it is no
    softmax: that has the digits."""
    wide = y.astype(np.float64)
    others = np.where(wide > 0.5, 0, wide).sum(-1, keepdims=True)
    error = np.abs(others - (1 - wide))
    is_softmax = (y > 0.5) & (error <= np.finfo(y.dtype).eps)
    return np.where(is_softmax, others, 1 - y).astype(y.dtype)


def require_room_for_matrix(y):
    if y.ndim >= 64:
        raise ValueError(
            "y must have at most 63 axes, as the Jacobian has one more than y, and arrays have up "
            f"to 64; got {y.ndim}: np.moveaxis(y, axis, -1).reshape(-1, y.shape[axis]) has two"
        )


def product(function, grad, y, name, axis, temperature, out):
    """softmax_vjp or log_softmax_vjp of what its kernel doesn't take as it is."""
    if lazily := lazy_functions(grad, y, temperature):
        return lazily.product(function, grad, y, name, axis, temperature, out)
    kernel = getattr(kernels, function.__name__)
    require_order_of(y, name, grad=grad, temperature=temperature)
    grad, y = as_logits(grad, "grad"), as_logits(y, name)
    require_shape_of(y, name, grad, "grad")
    if out is not None:
        require_out(out, y.shape)
    axes = normalized_axes(axis, y.ndim)
    temperature = as_temperature(temperature, y, axes)
    result = kernel(grad, y, axes, temperature, as_out(out))
    if result is None:
        return along_one_axis(
            lambda grad, y, axis: kernel(grad, y, axis, temperature, None), axes, out, grad, y
        )
    return result if out is None else out
