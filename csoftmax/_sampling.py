"""From logits to classes: the most probable ones, and random ones."""

import functools
import os
import sys

import numpy as np

from csoftmax._arguments import (
    as_array,
    as_integer,
    as_logits,
    as_mask,
    as_share,
    as_temperature,
    computed,
    quiet,
    require_order_of,
)
from csoftmax._dispatch import kernels
from csoftmax._lazy import lazy_functions
from csoftmax._losses import as_logits_with_axis


def top_log_probs(logits, k, /, axis=-1, *, temperature=1.0, where=None):
    r"""The most probable classes, and their log-probabilities.

    .. math:: \log p_i = \frac{z_i}{T} - \log \sum_j e^{z_j / T}

    of the k largest :math:`z_i`; the sum is over all classes.

    Parameters
    ----------
    logits : array_like
        Scores :math:`z`, one per class along `axis`. Types as for `softmax`.
    k : int
        How many classes: from 1 to the length of `axis`.
    axis : int, default -1
        The axis of the classes.
    temperature : float or array_like, default 1.0
        :math:`T \ge 0`, a number or one per row, as for `softmax`. The order of the classes is that
        of their logits at any temperature, 0 and infinity included.
    where : array_like of bool, optional
        Which classes there are, as for `softmax`. The others count as logits of -inf.

    Returns
    -------
    indices : ndarray of int64
        Of the shape of `logits`, but that `axis` has length k: class indices, the most probable
        first. Of classes with equal logits, the lower index is first.
    log_probs : ndarray
        Their log-probabilities in nats, of the same shape, in float32 or float64.

    Raises
    ------
    TypeError
        As `softmax` does, and if `k` or `axis` is not an integer.
    ValueError
        As `softmax` does, and if `k` is less than 1 or more than there are classes.
    numpy.exceptions.AxisError
        If `logits` has no such axis.

    See Also
    --------
    log_softmax : Of all classes, in the order of their indices.
    sample : Draws classes instead.

    Notes
    -----
    Nothing is sorted but the k classes themselves. The log-probabilities are as exact as those of
    `log_softmax`, and along the last axis of an array in C order they are the same bits.

    A row that has no softmax, for it has a NaN or +inf, or nothing but -inf, has NaN as its
    log-probabilities; one of which `where` leaves nothing has -inf. Also then the indices are those
    of different classes.

    Examples
    --------
    >>> import numpy as np
    >>> from csoftmax import top_log_probs
    >>> indices, log_probs = top_log_probs([1.0, 3.0, -1.0, 3.0, 2.0], 3)
    >>> indices
    array([1, 3, 4])
    >>> log_probs.round(3)
    array([-0.925, -0.925, -1.925])
    >>> np.exp(log_probs).round(3)
    array([0.397, 0.397, 0.146])

    Of many rows, the second of which has only one class:

    >>> indices, log_probs = top_log_probs([[1.0, 3.0, 2.0], [-np.inf, -np.inf, 0.0]], 2)
    >>> indices
    array([[1, 2],
           [2, 0]])
    >>> log_probs.round(3)
    array([[-0.408, -1.408],
           [ 0.   ,   -inf]])
    """
    both = kernels.top_log_probs(logits, axis, k, temperature, where)
    if both is not None:
        return both
    if lazily := lazy_functions(logits, temperature, where):
        return lazily.top_log_probs(logits, k, axis, temperature, where)
    require_order_of(logits, "logits", temperature=temperature, where=where)
    logits, axis, _, classes = as_logits_with_axis(logits, axis, "logits")
    k = as_count(k, classes)
    temperature = as_temperature(temperature, logits, (axis,))
    return computed(
        kernels.top_log_probs(logits, axis, k, temperature, as_mask(where, logits))
    )


def sample(
    logits,
    /,
    axis=-1,
    *,
    temperature=1.0,
    top_k=None,
    top_p=1.0,
    min_p=0.0,
    where=None,
    rng=None,
    size=None,
):
    r"""Random classes, drawn by the softmax of logits, or of the most probable ones among them.

    .. math:: P(i) = \frac{e^{z_i / T}}{\sum_{j \in K} e^{z_j / T}}, \quad i \in K

    where K are the classes that `top_k`, `top_p` and `min_p` keep, one after the other: without
    them, all.

    Parameters
    ----------
    logits : array_like
        Scores :math:`z`, one per class along `axis`. Types as for `softmax`.
    axis : int, default -1
        The axis of the classes.
    temperature : float or array_like, default 1.0
        :math:`T \ge 0`, a number or one per row, as for `softmax`; before anything is left out.
        With 0 the first maximum is drawn, and no random number is.
    top_k : int, optional
        Only so many classes, the most probable ones, are kept. Default, and if there are fewer:
        all.
    top_p : float, default 1.0
        In [0, 1]. Of these, the fewest are kept that together have at least this share of their
        probability, the most probable ones: a nucleus. With 0 that is one class.
    min_p : float, default 0.0
        In [0, 1]. Of these, those are kept that are at least so many times as probable as the most
        probable one. With 1 that one is kept, and what is as probable.
    where : array_like of bool, optional
        Which classes there are, as for `softmax`. The others are never drawn, whatever they
        contain.
    rng : numpy.random.Generator, int or None, optional
        What random numbers are taken from: a generator, or what ``numpy.random.default_rng`` makes
        one of. A number gives the same classes again at each call, None others each time.
    size : int or tuple of ints, optional
        How many draws are made of each row: the axes in front of the result. Default: one draw,
        and no such axis.

    Returns
    -------
    ndarray of int64 or scalar
        Class indices, of the shape `size` followed by that of `logits` without `axis`.

    Raises
    ------
    TypeError
        As `softmax` does, if `axis`, `top_k` or `size` is not of integers, `top_p` or `min_p` not a
        number, or NumPy makes no generator of `rng`.
    ValueError
        As `softmax` does, if `top_k` is less than 1, `top_p` or `min_p` is not in [0, 1], or `size`
        is negative; and if a row has nothing to draw from, as it has a NaN or +inf, or nothing but
        -inf, or `where` leaves nothing of it: the message names the first such row.
    numpy.exceptions.AxisError
        If `logits` has no such axis.

    See Also
    --------
    top_log_probs : The most probable classes, and how probable they are.
    softmax : The probabilities of all classes.

    Notes
    -----
    Of classes with equal logits the lower index counts as more probable: where not all of them are
    kept, it is those of the lower indices. What has probability 0 is never drawn: a logit of -inf,
    or one whose exponential underflows.

    A class is drawn by inversion: the first one in the order of indices whose cumulated weight is
    more than u times that of all, where u is uniform in [0, 1) and the weights are the exponentials
    of what is kept, added up in float64. So a number gives the same class for any number of threads
    and on every build with FMA. The numbers are ``rng.random(shape)`` of the result's shape: one
    for each draw of each row, also where one of many temperatures is 0 and the row needs none. If
    `temperature` is the number 0, `rng` is not used.

    For a loop over tokens make a generator once, or give none: to make one takes longer than to
    draw from some thousand classes. Without one, all calls of a process share a generator, which
    begins with numbers of the operating system.

    `top_k` is due to [1]_, the nucleus of `top_p` to [2]_, `min_p` to [3]_. Other libraries have
    them in another order, or the temperature last.

    References
    ----------
    .. [1] A. Fan, M. Lewis, Y. Dauphin, "Hierarchical Neural Story Generation", 2018.
       https://arxiv.org/abs/1805.04833
    .. [2] A. Holtzman, J. Buys, L. Du, M. Forbes, Y. Choi, "The Curious Case of Neural Text
       Degeneration", 2020. https://arxiv.org/abs/1904.09751
    .. [3] M. Nguyen, A. Baker, C. Neo, A. Roush, A. Kirsch, R. Shwartz-Ziv, "Turning Up the Heat:
       Min-p Sampling for Creative and Coherent LLM Outputs", 2024.
       https://arxiv.org/abs/2407.01082

    Examples
    --------
    >>> import numpy as np
    >>> from csoftmax import sample, softmax
    >>> rng = np.random.default_rng(0)
    >>> logits = np.array([2.0, 1.0, 0.5, -1.0])
    >>> int(sample(logits, temperature=0.7, rng=rng))
    0
    >>> sample(logits, size=10, rng=rng)
    array([0, 0, 0, 1, 2, 0, 1, 0, 2, 1])

    Draws are as frequent as they are probable:

    >>> drawn = sample(logits, size=1_000_000, rng=rng)
    >>> (np.bincount(drawn) / len(drawn)).round(2)
    array([0.61, 0.22, 0.14, 0.03])
    >>> softmax(logits).round(2)
    array([0.61, 0.22, 0.14, 0.03])

    The two most probable ones, and the smallest set that has 80 % of the probability:

    >>> np.unique(sample(logits, top_k=2, size=1000, rng=rng))
    array([0, 1])
    >>> np.unique(sample(logits, top_p=0.8, size=1000, rng=rng))
    array([0, 1])

    One class of each row; three of each:

    >>> rows = np.array([[2.0, 1.0, 0.5, -1.0], [0.1, 0.0, 3.0, 0.2]])
    >>> sample(rows, min_p=0.1, rng=1)
    array([0, 2])
    >>> sample(rows, min_p=0.1, rng=1, size=3).shape
    (3, 2)
    """
    size = () if size is None else as_size(size)
    if rng is None:
        rng = generator_of_process()
    if type(rng) is np.random.Generator:
        uniform = rng.random
    else:
        def uniform(shape):
            return as_numbers(np.random.default_rng(rng).random(shape), shape)
    indices = kernels.sample(logits, axis, temperature, top_k, top_p, min_p, where, uniform, size)
    if indices is None:
        top_k, top_p, min_p = as_filters(top_k, top_p, min_p)
        arguments = logits, axis, temperature, top_k, top_p, min_p, where, uniform, size
        if lazily := lazy_functions(logits, temperature, where):
            return lazily.sample(*arguments)
        return drawn(*arguments)
    if type(indices) is int:
        refuse_row(indices, logits, axis, where)
    return indices


@functools.cache
def generator_of_process():
    """To make one takes ten times as long as to draw from a few classes."""
    return np.random.default_rng()


if hasattr(os, "register_at_fork"):    # or children would draw the same numbers
    os.register_at_fork(after_in_child=generator_of_process.cache_clear)


def drawn(
    logits, axis, temperature, top_k, top_p, min_p, where, uniform, size, name="logits"
):
    """From what the kernel doesn't take as it is; the filters and the size have been checked."""
    require_order_of(logits, name, temperature=temperature, where=where)
    logits, axis, _, _ = as_logits_with_axis(logits, axis, name)
    temperature = as_temperature(temperature, logits, (axis,))
    where = as_mask(where, logits)
    axes = len(size) + logits.ndim - 1
    if axes > 64:
        raise ValueError(f"size {size} makes {axes} axes of the result; arrays have up to 64")
    indices = computed(kernels.sample(
        logits, axis, temperature, top_k, top_p, min_p, where, uniform, size
    ))
    if type(indices) is int:
        refuse_row(indices, logits, axis, where, name)
    return indices


def as_count(k, classes):
    k = as_integer(k, "k")
    if k < 1 or k > classes:    # how many there are may be unknown, NaN: of Dask arrays
        raise ValueError(
            f"k must be at least 1 and at most {classes}, the number of classes; got {k}"
        )
    return k


def as_filters(top_k, top_p, min_p):
    if top_k is not None:
        top_k = as_integer(top_k, "top_k")
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, or None for all classes; got {top_k}")
    return top_k, as_share(top_p, "top_p"), as_share(min_p, "min_p")


def as_size(size):
    if type(size) is int and 0 <= size <= sys.maxsize:    # nearly always
        return (size,)
    given = size if isinstance(size, tuple | list) else (size,)
    try:
        shape = tuple(as_integer(one, "size") for one in given)
    except TypeError:
        raise TypeError(f"size must be an int, a tuple of ints or None, got {size!r}") from None
    if any(n < 0 for n in shape):
        raise ValueError(f"size must be at least 0, got {size}")
    if any(n > sys.maxsize for n in shape):
        raise ValueError(f"size must be at most {sys.maxsize}, got {size}")
    return shape


def as_numbers(numbers, shape):
    """As the kernel reads them: a generator of another class may give anything."""
    numbers = np.asarray(as_array(numbers, "what rng gives"), np.float64, order="C")
    if numbers.shape != shape:
        raise ValueError(f"rng must give random numbers of shape {shape}, got {numbers.shape}")
    return numbers


def refuse_row(number, logits, axis, where, name="logits"):
    """The one of this number in C order, which has no distribution."""
    rows = np.moveaxis(as_logits(logits, name), axis, -1)
    position = tuple(int(i) for i in np.unravel_index(number, rows.shape[:-1]))
    row, why = rows[position], "there are no classes"
    if where is not None and row.size:
        counts = np.broadcast_to(where, np.shape(logits))
        # A copy: NumPy counts a mask before it copies by it, and another thread may change it.
        kept = np.moveaxis(counts, axis, -1)[position].copy()
        row, why = row[kept], "`where` leaves no class"
    if row.size:
        with quiet():
            largest = row.astype(np.float64).max()    # NaN if there is one
        why = f"every logit is {largest}" if largest == -np.inf else f"a logit is {largest}"
    which = f"row {position[0] if len(position) == 1 else position} of " if position else ""
    raise ValueError(f"there is no distribution to draw from in {which}{name}: {why}")
