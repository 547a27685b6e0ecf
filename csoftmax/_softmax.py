"""softmax, log_softmax, logsumexp, both at once, entropy."""

import numpy as np

from csoftmax._arguments import (
    along_one_axis,
    as_logits,
    as_mask,
    as_out,
    as_temperature,
    computed,
    computed_type,
    delivered,
    normalized_axes,
    quiet,
    require_order_of,
    require_out,
    shape_of_both,
    with_all_axes,
    with_one_axis,
)
from csoftmax._dispatch import kernels
from csoftmax._lazy import lazy_functions


def softmax(x, /, axis=-1, *, temperature=1.0, where=None, out=None):
    r"""Softmax: exponentials scaled so that they sum to 1 along an axis.

    .. math:: p_i = \frac{e^{x_i / T}}{\sum_j e^{x_j / T}}

    Parameters
    ----------
    x : array_like
        Logits: scores of any size and sign. float32, float16, bfloat16 (of ml_dtypes), bool and
        integers of 8 or 16 bits are computed in float32; float64, wider integers and Python numbers
        in float64. Not changed, unless it is `out`. Other libraries' arrays in the CPU's memory,
        labelled ones too, are read where they lie; a Dask array gives a lazy one.
    axis : int, tuple of ints or None, default -1
        The axis or axes to sum over; None: all.
    temperature : float or array_like, default 1.0
        :math:`T \ge 0`, a number, or an array that broadcasts against `x` without `axis`: one
        temperature per row. Small ones sharpen: 0 gives 1 to the first maximum and 0 to the others;
        infinity gives all entries but -inf the same probability.
    where : array_like of bool, optional
        Which entries take part; broadcasts to `x`. The others have probability 0, and whatever they
        contain, NaN included, has no effect. A row without any entry is all 0.
    out : ndarray, optional
        Where to write the result: floating-point, of the shape of `x`, and may be `x` itself.

    Returns
    -------
    ndarray
        Probabilities, of the shape of `x`, in float32 or float64; `out` if that is given.

    Raises
    ------
    TypeError
        If `x` is longdouble, complex, object or text, `where` isn't bool, something is masked, in a
        list too (its mask would be lost), or `out` isn't a floating-point array.
    ValueError
        If `temperature` is negative or NaN, or `temperature`, `where` or `out` has the wrong shape,
        or labels of a pandas object are in another order than those of `x`.
    numpy.exceptions.AxisError
        If `x` has no such axis.

    See Also
    --------
    log_softmax : The logarithm, also where the probability is too small for a float.
    cross_entropy : The loss of logits directly.

    Notes
    -----
    The largest error found is 3 ULP (with a temperature 4) on CPUs with FMA. The sum of the
    exponentials is scaled by a power of two in place of the maximum, so that no difference
    ``x - max`` is rounded; [1]_ has the error analysis of the usual ways.

    A NaN or +inf makes its whole row NaN, and so do only -inf. -inf beside finite numbers has
    probability 0.

    A probability under the smallest normal number, 1.2e-38 in float32 and 2.2e-308 in float64, may
    be 0: that of a logit which is more than 87.3 T, or 708.4 T, below the largest. `log_softmax`
    has its logarithm.

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

    To predict a class, the logits are enough: softmax keeps their order.

    >>> int(np.argmax([2.0, 1.0, 0.1])), int(softmax([2.0, 1.0, 0.1]).argmax())
    (0, 0)

    Causal attention: a query sees the keys up to its own place.

    >>> q = k = v = np.eye(3)
    >>> causal = np.tri(3, dtype=bool)
    >>> weights = softmax(q @ k.T, temperature=np.sqrt(3), where=causal)
    >>> (weights @ v).round(3)
    array([[1.   , 0.   , 0.   ],
           [0.36 , 0.64 , 0.   ],
           [0.264, 0.264, 0.471]])
    """
    result = kernels.softmax(x, axis, temperature, where, out)
    if result is None:
        result = rowwise(softmax, x, axis, temperature, where, out)
    return result


def log_softmax(x, /, axis=-1, *, temperature=1.0, where=None, out=None):
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
    where : array_like of bool, optional
        Which entries take part, as for `softmax`; the others have -inf.
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
    term. What is closer to 0 than 1.2e-38 in float32, 2.2e-308 in float64, times the number of
    classes, may be 0.

    In float32 a temperature under 1e-68, but 0, counts as 1e-68. That shows where logits differ by
    less than 1e-29, if at all.

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
    result = kernels.log_softmax(x, axis, temperature, where, out)
    if result is None:
        result = rowwise(log_softmax, x, axis, temperature, where, out)
    return result


def logsumexp(
    x, /, axis=-1, *, b=None, where=None, keepdims=False, return_sign=False, out=None
):
    r"""Logarithm of the sum of exponentials, each of which may have a weight.

    .. math:: \log \left| \sum_j b_j e^{x_j} \right|

    Parameters
    ----------
    x : array_like
        Numbers, of the types that `softmax` takes.
    axis : int, tuple of ints or None, default -1
        The axis or axes to sum over; None: all.
    b : array_like, optional
        Weights of any size and sign, of the types that `x` may have; broadcasts against `x`. What
        has the weight 0 doesn't count, whatever it is. Default: all are 1.
    where : array_like of bool, optional
        Which entries to sum over; broadcasts to `x`. The sum over none is 0, its logarithm -inf.
    keepdims : bool, default False
        Whether the result keeps the summed axes, with length 1.
    return_sign : bool, default False
        Whether to return the sum's sign, too. Without it the logarithm of a negative sum is NaN.
    out : ndarray, optional
        Where to write the logarithm: floating-point, of the result's shape.

    Returns
    -------
    log : ndarray or scalar
        In nats, the shape of `x` without `axis`; `out` if that is given. In float64 if `x` or `b`
        is computed in it, but where `b` is a number of Python's, the type is that of `x`.
    sign : ndarray or scalar
        Only with `return_sign`: 1, -1, or 0 of a sum that is 0; NaN of one that is NaN. In the same
        type.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `softmax` does, and if `b` is complex, or does not broadcast against `x`.

    See Also
    --------
    log_softmax : Every number minus this.
    entropy : Also of rows, without their probabilities.

    Notes
    -----
    Nothing overflows on the way: the result is as large as the largest `x`, or a little more. Of an
    empty axis, or of only -inf, it is -inf; of a row with +inf it is +inf, with NaN it is NaN.

    Weights of both signs cancel no more digits than the data do: the error of the sum is about an
    ULP of :math:`\sum_j |b_j| e^{x_j}`. Where one term is the largest by far, and its weight is 1
    or -1, also a result close to 0 has its digits. However far apart the weights are, none is lost.

    Examples
    --------
    >>> import numpy as np
    >>> from csoftmax import logsumexp
    >>> (logsumexp([1000.0, 1000.0]) - 1000).round(6)
    np.float64(0.693147)
    >>> logsumexp([[0.0, 0.0], [1.0, -np.inf]])
    array([0.69314718, 1.        ])

    The logarithm of a mean, and of a weighted one:

    >>> x = np.array([1000.0, 1001.0, 1002.0])
    >>> logsumexp(x, b=1 / 3).round(6)
    np.float64(1001.308994)
    >>> w = np.array([0.2, 0.3, 0.5])
    >>> logsumexp(x, b=w).round(6)
    np.float64(1001.549691)

    Of a difference of exponentials, :math:`e^{800} - e^{801}`, with its sign:

    >>> log, sign = logsumexp([800.0, 801.0], b=[1, -1], return_sign=True)
    >>> log.round(6), sign
    (np.float64(800.541325), np.float64(-1.0))
    """
    result = kernels.logsumexp(x, axis, b, where, keepdims, return_sign, out)
    if result is not None:
        return result
    if lazily := lazy_functions(x, b, where):
        return lazily.logsumexp(x, axis, b, where, keepdims, return_sign, out)
    require_order_of(x, "x", b=b, where=where)
    x = as_logits(x)
    if b is not None:
        x, b = with_weights(x, b)
    axes = normalized_axes(axis, x.ndim)
    shape = shape_of_rows(x, axes, keepdims)
    if out is not None:
        require_out(out, shape)
    mask = as_mask(where, x)
    if b is not None and mask is not None:
        # In the order that `b` has in memory, whatever that of the mask is.
        b = np.array(np.broadcast_to(b, x.shape), order="K")
        np.copyto(b, b.dtype.type(0), where=~mask)
        mask = None
    return_sign = bool(return_sign)
    result = kernels.logsumexp(x, axes, b, mask, bool(keepdims), return_sign, as_out(out))
    if result is None:
        x, b, mask = (
            None if one is None else with_one_axis(np.broadcast_to(one, x.shape), axes)
            for one in (x, b, mask)
        )
        result = computed(kernels.logsumexp(x, -1, b, mask, False, return_sign, None))
        if return_sign:
            log, sign = (np.reshape(one, shape)[()] for one in result)
            return delivered(log, out), sign
        return delivered(np.reshape(result, shape)[()], out)
    if out is None:
        return result
    return (out, result[1]) if return_sign else out


def with_weights(x, b):
    """`x` and its weights as arrays, `x` in the shape that both have together."""
    b, is_number = as_logits(b, "b"), type(b) in (float, int, bool)
    if is_number:    # of Python's, which has no type of its own
        with quiet():
            b = b.astype(computed_type(x))
    shape = shape_of_both(x, b)
    return x if shape == x.shape else np.broadcast_to(x, shape), b


def softmax_and_logsumexp(
    x, /, axis=-1, *, temperature=1.0, where=None, keepdims=False, out=None
):
    r"""Softmax, and the logarithm of the sum that it divides by.

    .. math:: p_i = \frac{e^{x_i / T}}{\sum_j e^{x_j / T}}, \quad \log \sum_j e^{x_j / T}

    Parameters
    ----------
    x : array_like
        Logits, as for `softmax`.
    axis : int, tuple of ints or None, default -1
        The axis or axes to sum over; None: all.
    temperature : float or array_like, default 1.0
        :math:`T \ge 0`, a number or one per row, as for `softmax`.
    where : array_like of bool, optional
        Which entries take part, as for `softmax`.
    keepdims : bool, default False
        Whether the logarithms keep the summed axes, with length 1.
    out : ndarray, optional
        Where to write the probabilities: floating-point, of the shape of `x`, and may be `x`.

    Returns
    -------
    probabilities : ndarray
        As from `softmax`; `out` if that is given.
    logsumexp : ndarray or scalar
        In nats, of the shape of `x` without `axis`, in the same dtype. Of a row without any entry
        -inf.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `softmax` does.

    See Also
    --------
    softmax, logsumexp : One of the two alone.

    Notes
    -----
    One sweep makes both. At temperature 0 the logarithm is the limit :math:`x_{max} / T`: infinite,
    but 0 where the maximum is 0. Probabilities under the smallest normal number may be 0, as those
    of `softmax`.

    In a mixture model (EM) the probabilities are the responsibilities of the components, and the
    sum of the logarithms is the log-likelihood. Attention over keys that come in parts is put
    together by the logarithms of the parts [1]_.

    References
    ----------
    .. [1] T. Dao, D. Y. Fu, S. Ermon, A. Rudra, C. Re, "FlashAttention: Fast and Memory-Efficient
       Exact Attention with IO-Awareness", 2022. https://arxiv.org/abs/2205.14135

    Examples
    --------
    Two points, and a mixture of two normal distributions of variance 1, with centres 0 and 3:

    >>> import numpy as np
    >>> from csoftmax import softmax_and_logsumexp
    >>> points = np.array([[0.5], [2.0]])
    >>> log_joint = np.log([0.7, 0.3]) - (points - [0.0, 3.0]) ** 2 / 2 - np.log(2 * np.pi) / 2
    >>> responsibilities, log_likelihoods = softmax_and_logsumexp(log_joint)
    >>> responsibilities.round(3)
    array([[0.979, 0.021],
           [0.342, 0.658]])
    >>> log_likelihoods.sum().round(3)
    np.float64(-3.583)
    """
    both = kernels.softmax_and_logsumexp(x, axis, temperature, where, keepdims, out)
    if both is not None:
        return both
    if lazily := lazy_functions(x, temperature, where):
        return lazily.softmax_and_logsumexp(x, axis, temperature, where, keepdims, out)
    x, axes, temperature, mask = checked(x, axis, temperature, where, out)
    both = kernels.softmax_and_logsumexp(x, axes, temperature, mask, bool(keepdims), as_out(out))
    if both is None:
        mask = np.broadcast_to(True if mask is None else mask, x.shape)
        probabilities, log_sums = computed(kernels.softmax_and_logsumexp(
            with_one_axis(x, axes), -1, temperature, with_one_axis(mask, axes), False, None
        ))
        log_sums = np.reshape(log_sums, shape_of_rows(x, axes, keepdims))[()]
        return delivered(with_all_axes(probabilities, axes, x.shape), out), log_sums
    return both[0] if out is None else out, both[1]


def entropy(logits, /, axis=-1, *, temperature=1.0, where=None):
    r"""Shannon entropy of the softmax of logits.

    .. math:: H = -\sum_i p_i \log p_i, \quad p = \mathrm{softmax}(z / T)

    Parameters
    ----------
    logits : array_like
        Scores :math:`z`. Types as for `softmax`.
    axis : int, tuple of ints or None, default -1
        The axis or axes of the classes; None: all.
    temperature : float or array_like, default 1.0
        :math:`T \ge 0`, a number or one per row, as for `softmax`.
    where : array_like of bool, optional
        Which classes there are, as for `softmax`. The entropy of none is 0.

    Returns
    -------
    ndarray or scalar
        In nats, from 0 (one class has all) to the logarithm of the number of classes (all alike);
        the shape of `logits` without `axis`. Rows without a softmax have NaN.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `softmax` does.

    See Also
    --------
    cross_entropy : The loss of logits against another distribution.

    Notes
    -----
    No probabilities are stored. With :math:`m` the largest logit, both terms of
    :math:`H = \log \sum_j e^{(z_j - m) / T} + \sum_j p_j (m - z_j) / T` are at least 0, so no
    digits cancel. A class with probability 0 adds nothing, and nor may one with a probability under
    the smallest normal number, 1.2e-38 in float32 and 2.2e-308 in float64. In float64 an entropy
    under 1e-280, or one of differences under 1e-290 at such temperatures, has fewer digits.

    References
    ----------
    .. [1] C. E. Shannon, "A Mathematical Theory of Communication", Bell System Technical Journal
       27(3), 1948. https://doi.org/10.1002/j.1538-7305.1948.tb01338.x

    Examples
    --------
    Of a fair coin, and of one that falls on one side in four of five cases:

    >>> import numpy as np
    >>> from csoftmax import entropy
    >>> entropy(np.log([[0.5, 0.5], [0.2, 0.8]])).round(3)
    array([0.693, 0.5  ])
    """
    result = kernels.entropy(logits, axis, temperature, where)
    if result is not None:
        return result
    if lazily := lazy_functions(logits, temperature, where):
        return lazily.entropy(logits, axis, temperature, where)
    logits, axes, temperature, mask = checked(logits, axis, temperature, where, None, "logits")
    result = kernels.entropy(logits, axes, temperature, mask)
    if result is None:
        result = along_one_axis(
            lambda x, mask, axis: kernels.entropy(x, axis, temperature, mask),
            axes, None, logits, np.broadcast_to(True if mask is None else mask, logits.shape),
        )  # fmt: skip
    return result


def rowwise(function, x, axis, temperature, where, out):
    """softmax or log_softmax of what its kernel doesn't take as it is."""
    if lazily := lazy_functions(x, temperature, where):
        return lazily.softmax(function, x, axis, temperature, where, out)
    kernel = getattr(kernels, function.__name__)
    x, axes, temperature, mask = checked(x, axis, temperature, where, out)
    result = kernel(x, axes, temperature, mask, as_out(out))
    if result is None:
        return along_one_axis(
            lambda x, mask, axis: kernel(x, axis, temperature, mask, None),
            axes, out, x, np.broadcast_to(True if mask is None else mask, x.shape),
        )  # fmt: skip
    return result if out is None else out


def checked(x, axis, temperature, where, out, name="x"):
    """The arguments that all of these have in common, as their kernels take them."""
    require_order_of(x, name, temperature=temperature, where=where)
    x = as_logits(x, name)
    if out is not None:
        require_out(out, x.shape)
    axes = normalized_axes(axis, x.ndim)
    return x, axes, as_temperature(temperature, x, axes), as_mask(where, x)


def shape_of_rows(x, axes, keepdims):
    kept = [1 if i in axes else n for i, n in enumerate(x.shape)]
    return tuple(n for i, n in enumerate(kept) if keepdims or i not in axes)
