"""The same functions as textbook code, to read, to test and to measure against.

``numpy_*`` are written with plain NumPy, ``math_*`` in pure Python with ``math.exp``. All subtract
the maximum first, so nothing overflows; none is as exact or as fast as the functions of `csoftmax`.
"""

import math

import numpy as np

__all__ = [
    "math_cross_entropy",
    "math_log_softmax",
    "math_logsumexp",
    "math_softmax",
    "numpy_cross_entropy",
    "numpy_log_softmax",
    "numpy_logsumexp",
    "numpy_softmax",
]


def numpy_softmax(x, axis=-1):
    r"""Softmax of an array along an axis, :math:`e^{x_i - m} / \sum_j e^{x_j - m}`, m the maximum.

    Parameters
    ----------
    x : array_like
        Logits.
    axis : int, default -1
        The axis to sum over.

    Returns
    -------
    ndarray
        Probabilities, of the shape of `x`.

    See Also
    --------
    csoftmax.softmax : The exact and fast one.

    Examples
    --------
    >>> numpy_softmax([2.0, 1.0, 0.1]).round(3)
    array([0.659, 0.242, 0.099])
    """
    x = np.asarray(x)
    exponentials = np.exp(x - x.max(axis=axis, keepdims=True))
    return exponentials / exponentials.sum(axis=axis, keepdims=True)


def numpy_log_softmax(x, axis=-1):
    r"""Log-softmax along an axis, :math:`(x_i - m) - \log \sum_j e^{x_j - m}`, m the maximum.

    Parameters
    ----------
    x : array_like
        Logits.
    axis : int, default -1
        The axis to sum over.

    Returns
    -------
    ndarray
        Log-probabilities, of the shape of `x`.

    See Also
    --------
    csoftmax.log_softmax : The exact and fast one.

    Examples
    --------
    >>> numpy_log_softmax([2.0, 1.0, 0.1]).round(3)
    array([-0.417, -1.417, -2.317])
    """
    x = np.asarray(x)
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def numpy_logsumexp(x, axis=-1):
    r"""Log of the sum of exponentials along an axis, :math:`m + \log \sum_j e^{x_j - m}`.

    Parameters
    ----------
    x : array_like
        Numbers.
    axis : int, default -1
        The axis to sum over.

    Returns
    -------
    ndarray or scalar
        The shape of `x` without `axis`.

    See Also
    --------
    csoftmax.logsumexp : The exact and fast one.

    Examples
    --------
    >>> numpy_logsumexp([0.0, 0.0]).round(6)
    np.float64(0.693147)
    """
    x = np.asarray(x)
    maximum = x.max(axis=axis, keepdims=True)
    log_sum = np.log(np.exp(x - maximum).sum(axis=axis))
    return maximum.squeeze(axis=axis) + log_sum


def numpy_cross_entropy(logits, target, axis=-1):
    r"""Mean cross-entropy of logits and class indices, -log p of the right class.

    Parameters
    ----------
    logits : array_like
        Scores, one per class along `axis`.
    target : array_like of int
        The right class of each row, of the shape of `logits` without `axis`.
    axis : int, default -1
        The axis of the classes.

    Returns
    -------
    scalar
        The mean loss in nats.

    See Also
    --------
    csoftmax.cross_entropy : The exact and fast one.

    Examples
    --------
    >>> numpy_cross_entropy([[2.0, 1.0, 0.1]], [0]).round(3)
    np.float64(0.417)
    """
    log_probabilities = numpy_log_softmax(logits, axis)
    picked = np.take_along_axis(log_probabilities, np.expand_dims(target, axis), axis)
    return -picked.mean()


def math_softmax(x):
    """Softmax of a sequence of numbers.

    Parameters
    ----------
    x : sequence of float
        Logits.

    Returns
    -------
    list of float
        Probabilities.

    See Also
    --------
    csoftmax.softmax : The exact and fast one.

    Examples
    --------
    >>> [round(p, 3) for p in math_softmax([2.0, 1.0, 0.1])]
    [0.659, 0.242, 0.099]
    """
    maximum = max(x)
    exponentials = [math.exp(value - maximum) for value in x]
    total = sum(exponentials)
    return [exponential / total for exponential in exponentials]


def math_log_softmax(x):
    """Log-softmax of a sequence of numbers.

    Parameters
    ----------
    x : sequence of float
        Logits.

    Returns
    -------
    list of float
        Log-probabilities.

    See Also
    --------
    csoftmax.log_softmax : The exact and fast one.

    Examples
    --------
    >>> [round(p, 3) for p in math_log_softmax([2.0, 1.0, 0.1])]
    [-0.417, -1.417, -2.317]
    """
    total = math_logsumexp(x)
    return [value - total for value in x]


def math_logsumexp(x):
    """Log of the sum of the exponentials of a sequence of numbers.

    Parameters
    ----------
    x : sequence of float
        Numbers.

    Returns
    -------
    float
        The logarithm.

    See Also
    --------
    csoftmax.logsumexp : The exact and fast one.

    Examples
    --------
    >>> round(math_logsumexp([0.0, 0.0]), 6)
    0.693147
    """
    maximum = max(x)
    return maximum + math.log(sum(math.exp(value - maximum) for value in x))


def math_cross_entropy(logits, target):
    """Mean cross-entropy of rows of logits and their right classes.

    Parameters
    ----------
    logits : sequence of sequences of float
        Scores, a row per example.
    target : sequence of int
        The right class of each row.

    Returns
    -------
    float
        The mean loss in nats.

    See Also
    --------
    csoftmax.cross_entropy : The exact and fast one.

    Examples
    --------
    >>> round(math_cross_entropy([[2.0, 1.0, 0.1]], [0]), 3)
    0.417
    """
    losses = [math_logsumexp(row) - row[right] for row, right in zip(logits, target, strict=True)]
    return sum(losses) / len(losses)
