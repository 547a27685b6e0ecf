"""softmax, log_softmax, logsumexp."""

import math

import numpy as np

from csoftmax._arguments import (
    as_logits,
    as_temperature,
    call,
    new_result,
    normalized_axes,
    require_out,
)
from csoftmax._dispatch import kernels


def softmax(x, /, axis=-1, *, temperature=1.0, out=None):
    r"""Softmax: exponentials scaled so that they sum to 1 along an axis.

    .. math:: p_i = \frac{e^{x_i / T}}{\sum_j e^{x_j / T}}

    Parameters
    ----------
    x : array_like
        Logits. float32, float16, bool and integers of 8 or 16 bits are computed in float32;
        float64, wider integers and Python numbers in float64. Not changed, unless it is `out`.
    axis : int, tuple of ints or None, default -1
        The axis or axes to sum over; None: all.
    temperature : float or array_like, default 1.0
        :math:`T \ge 0`, a number, or an array that broadcasts against `x` without `axis`: one
        temperature per row. Small ones sharpen: 0 gives 1 to the first maximum and 0 to the others;
        infinity gives all entries but -inf the same probability.
    out : ndarray, optional
        Where to write the result: floating-point, of the shape of `x`, and may be `x` itself.

    Returns
    -------
    ndarray
        Probabilities, of the shape of `x`, in float32 or float64; `out` if that is given.

    Raises
    ------
    TypeError
        If `x` is longdouble, complex, object or text, or `out` isn't a floating-point array.
    ValueError
        If `temperature` is negative, NaN or of the wrong shape, or `out` has the wrong shape.
    numpy.exceptions.AxisError
        If `x` has no such axis.

    See Also
    --------
    log_softmax : The logarithm, also where the probability is too small for a float.
    cross_entropy : The loss of logits directly.

    Notes
    -----
    The largest error found is 3 ULP (4 with a temperature, or on CPUs without FMA). The sum of the
    exponentials is scaled by a power of two in place of the maximum, so that no difference
    ``x - max`` is rounded; [1]_ has the error analysis of the usual ways.

    A NaN or +inf makes its whole row NaN, and so do only -inf. -inf beside finite numbers has
    probability 0. To predict a class, ``x.argmax(axis)`` alone is enough: softmax keeps the order.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and
       softmax functions", IMA Journal of Numerical Analysis 41(4), 2021.
       https://doi.org/10.1093/imanum/draa038

    Examples
    --------
    >>> import numpy as np
    >>> from csoftmax import softmax
    >>> softmax([2.0, 1.0, 0.1]).round(3)
    array([0.659, 0.242, 0.099])

    However large the logits are, only their differences count:

    >>> softmax([1000.0, 1001.0, 999.0]).round(3)
    array([0.245, 0.665, 0.09 ])

    A temperature under 1 sharpens, one over 1 flattens:

    >>> softmax([2.0, 1.0, 0.5], temperature=0.5).round(3)
    array([0.844, 0.114, 0.042])
    >>> softmax([2.0, 1.0, 0.5], temperature=2).round(3)
    array([0.481, 0.292, 0.227])
    """
    result = kernels.directly(kernels.DIRECT_SOFTMAX, x, axis, temperature, out)
    return rowwise(kernels.softmax, x, axis, temperature, out) if result is None else result


def log_softmax(x, /, axis=-1, *, temperature=1.0, out=None):
    r"""Logarithm of the softmax.

    .. math:: \log p_i = x_i / T - \log \sum_j e^{x_j / T}

    Parameters
    ----------
    x : array_like
        Logits, as for `softmax`.
    axis : int, tuple of ints or None, default -1
        The axis or axes to sum over; None: all.
    temperature : float or array_like, default 1.0
        :math:`T \ge 0`, a number or one per row, as for `softmax`. With 0 the first maximum has 0,
        the others -inf.
    out : ndarray, optional
        Where to write the result: floating-point, of the shape of `x`, and may be `x` itself.

    Returns
    -------
    ndarray
        Log-probabilities in nats, of the shape of `x`, in float32 or float64; `out` if given.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `softmax` does.

    See Also
    --------
    softmax : The probabilities.
    logsumexp : The logarithm of the sum alone.

    Notes
    -----
    ``log(softmax(x))`` is -inf as soon as the probability underflows, and has no correct digit
    where it is close to 1. Here both ends are exact to a few ULP:
    :math:`\log \sum e^{x_j - x_{max}}` is :math:`\mathrm{log1p}` of the sum without its largest
    term.

    Examples
    --------
    >>> import numpy as np
    >>> from csoftmax import log_softmax, softmax
    >>> log_softmax([2.0, 1.0, 0.1]).round(3)
    array([-0.417, -1.417, -2.317])
    >>> log_softmax([1000.0, 0.0])
    array([    0., -1000.])
    >>> log_softmax([20.0, 0.0])
    array([-2.06115362e-09, -2.00000000e+01])
    """
    result = kernels.directly(kernels.DIRECT_LOG_SOFTMAX, x, axis, temperature, out)
    return rowwise(kernels.log_softmax, x, axis, temperature, out) if result is None else result


def logsumexp(x, /, axis=-1, *, keepdims=False, out=None):
    r"""Logarithm of the sum of exponentials.

    .. math:: \log \sum_j e^{x_j}

    Parameters
    ----------
    x : array_like
        Numbers, of the types that `softmax` takes.
    axis : int, tuple of ints or None, default -1
        The axis or axes to sum over; None: all.
    keepdims : bool, default False
        Whether the result keeps the summed axes, with length 1.
    out : ndarray, optional
        Where to write the result: floating-point, of the result's shape.

    Returns
    -------
    ndarray or scalar
        In nats, the shape of `x` without `axis`; `out` if that is given.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `softmax` does.

    Notes
    -----
    Nothing overflows on the way: the result is as large as the largest `x`, or a little more. Of an
    empty axis, or of only -inf, it is -inf; of a row with +inf it is +inf, with NaN it is NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from csoftmax import logsumexp
    >>> (logsumexp([1000.0, 1000.0]) - 1000).round(6)
    np.float64(0.693147)
    >>> logsumexp([[0.0, 0.0], [1.0, -np.inf]])
    array([0.69314718, 1.        ])
    """
    x = as_logits(x)
    axes = normalized_axes(axis, x.ndim)
    rows = [n for i, n in enumerate(x.shape) if i not in axes]
    kept = [1 if i in axes else n for i, n in enumerate(x.shape)]
    shape = tuple(kept if keepdims else rows)
    if out is not None:
        require_out(out, shape)
    result = call(kernels.logsumexp, with_one_axis(x, axes))
    return delivered(np.reshape(result, shape), out)


def rowwise(gufunc, x, axis, temperature, out):
    """The result of a gufunc of the signature (n),()->(n), along one axis or several."""
    x = as_logits(x)
    if out is not None:
        require_out(out, x.shape)
    axes = normalized_axes(axis, x.ndim)
    temperature = as_temperature(temperature, x, axes)
    if len(axes) == 1:
        out = new_result(x) if out is None else out
        return call(gufunc, x, temperature, axis=axes[0], out=out)
    result = call(gufunc, with_one_axis(x, axes), temperature)
    others = [i for i in range(x.ndim) if i not in axes]
    result = result.reshape([x.shape[i] for i in (*others, *axes)])
    return delivered(result.transpose(np.argsort([*others, *axes])), out)


def delivered(result, out):
    if out is None:
        return result[()]
    with np.errstate(all="ignore"):    # of the cast
        out[...] = result
    return out


def with_one_axis(x, axes):
    """`x` with these axes merged into a last one; a view where strides allow."""
    others = [i for i in range(x.ndim) if i not in axes]
    length = math.prod(x.shape[i] for i in axes)
    return x.transpose(*others, *axes).reshape([*(x.shape[i] for i in others), length])
