"""cross_entropy, its gradient and Hessian, and nll_loss."""

import numpy as np

from csoftmax._arguments import (
    INTEGERS,
    NUMBERS_OF_PANDAS,
    as_array,
    as_integer,
    as_logits,
    as_mask,
    as_out,
    as_share,
    as_temperature,
    computed,
    computed_type,
    float64_of,
    may_be_equal,
    normalized_axis,
    quiet,
    require_one_for_each_row,
    require_order_of,
    require_out,
)
from csoftmax._dispatch import kernels
from csoftmax._lazy import lazy_functions


def cross_entropy(
    logits,
    target,
    /,
    axis=-1,
    *,
    weight=None,
    sample_weight=None,
    ignore_index=-100,
    reduction="mean",
    label_smoothing=0.0,
    temperature=1.0,
    where=None,
):
    r"""Cross-entropy of logits and targets: of a class index, minus its log-probability.

    .. math:: \ell = -\sum_j w_j \Bigl((1 - \varepsilon)\, t_j + \frac{\varepsilon}{C}\Bigr)
        \log p_j

    .. math:: \log p_j = \frac{z_j}{T} - \log \sum_k e^{z_k / T}

    where of a class index y, :math:`t_y` is 1 and the others are 0. Its loss without smoothing is
    :math:`-w_y \log p_y`.

    Parameters
    ----------
    logits : array_like
        Scores :math:`z`, one per class along `axis`. Types as for `softmax`.
    target : array_like
        Either class indices: integers in [0, C), of the shape of `logits` without `axis`. Or
        probabilities :math:`t`, of the shape of `logits`; one-hot rows may be integers or bools.
        These aren't checked: negative ones, and rows that don't sum to 1, go into the formula.
    axis : int, default -1
        The axis of the C classes; PyTorch's is 1.
    weight : array_like, optional
        :math:`w`, a number for each class, of shape (C,), infinite ones of classes that no target
        has included. Default: 1.
    sample_weight : array_like, optional
        A number for each row, broadcasts to the losses, which it multiplies. A row of weight 0
        doesn't count, NaN included; weights may be negative. Default: 1.
    ignore_index : int, default -100
        Rows with this class index have the loss 0 and don't count in the mean.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides the sum by the weights of the targets, each times its row's weight, ignored
        ones left out, and where targets are probabilities by the number of rows, or the sum of
        their weights; "none" returns every loss.
    label_smoothing : float, default 0.0
        :math:`\varepsilon` in [0, 1], the part of a target that all classes share.
    temperature : float or array_like, default 1.0
        :math:`T \ge 0`, a number or one per row, as for `softmax`.
    where : array_like of bool, optional
        Which classes there are; broadcasts to `logits`. The others count as logits of -inf,
        whatever they contain: as a target their loss is infinite, and with label smoothing every
        class is one.

    Returns
    -------
    scalar or ndarray
        The loss in nats. A mean or a sum is made in float64 and is one, whatever the type of
        `logits`. With "none" an array of the shape of `logits` without `axis`, in the dtype of the
        computation, float32 or float64. The mean of no row, or of weights that sum to 0, is NaN.

    Raises
    ------
    IndexError
        If a class index is neither in [0, C) nor `ignore_index`.
    TypeError
        If the dtype of `logits`, `target` or a weight is not a real number's, that of `where` isn't
        bool, or `target` has the shape of class indices but is not of integers.
    ValueError
        If `target`, `where` or a weight has the wrong shape, `reduction`, `label_smoothing` or
        `temperature` is not as described, targets are probabilities and `ignore_index` is a class,
        or labels of a pandas object are in another order than those of `logits`.

    See Also
    --------
    cross_entropy_value_and_grad : The gradient with it, for less than twice the time.
    nll_loss : The same from log-probabilities.
    log_softmax : All log-probabilities.

    Notes
    -----
    One pass over the logits: no probabilities are stored. The arithmetic is that of
    ``torch.nn.functional.cross_entropy`` [1]_, but for classes whose weight or target is 0: they
    don't count, even if their log-probability is -inf, where PyTorch has NaN. With label smoothing
    every class has a target, and the loss of a logit of -inf is infinite. A mean whose weights sum
    to 0, but are not all 0, is infinite there.

    A probability under the smallest normal number, 1.2e-38 in float32 and 2.2e-308 in float64, may
    count as 0. The loss of an improbable target is right all the same; that of one which has nearly
    everything may be too small by as much for each other class, or 0.

    Label smoothing is due to [2]_. With the softmax of another model's logits as the target it is
    the loss of distillation [3]_.

    References
    ----------
    .. [1] https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.cross_entropy.html
    .. [2] C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2015.
       https://arxiv.org/abs/1512.00567
    .. [3] G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015.
       https://arxiv.org/abs/1503.02531

    Examples
    --------
    Of a class index, or of a one-hot row, it is -log of one probability:

    >>> import numpy as np
    >>> from csoftmax import cross_entropy, softmax
    >>> z = np.log([0.2, 0.1, 0.7])
    >>> cross_entropy(z, 2).round(3), cross_entropy(z, [0, 0, 1]).round(3)
    (np.float64(0.357), np.float64(0.357))

    ``-log(softmax(z))`` is infinite as soon as a probability underflows, this never is:

    >>> logits = np.array([[2.0, 1.0, 0.1], [0.0, 1000.0, 0.0]])
    >>> with np.errstate(divide="ignore"):
    ...     -np.log(softmax(logits)[1, 2])
    np.float64(inf)
    >>> cross_entropy(logits, [0, 2], reduction="none").round(3)
    array([4.17e-01, 1.00e+03])
    >>> cross_entropy(logits, [0, -100]).round(3)
    np.float64(0.417)

    Distillation: a teacher's probabilities as the target, both at one temperature.

    >>> teacher, student = np.array([[3.0, 1.0, 0.0]]), np.array([[2.0, 1.0, 0.1]])
    >>> T = 2.0
    >>> cross_entropy(student, softmax(teacher, temperature=T), temperature=T).round(3)
    np.float64(0.939)
    """
    loss = kernels.cross_entropy(
        logits, target, axis, weight, sample_weight, ignore_index, reduction, label_smoothing,
        temperature, where,
    )
    if loss is not None:
        return loss
    if lazily := lazy_functions(logits, target, weight, sample_weight, temperature, where):
        return lazily.cross_entropy(
            logits, target, axis, weight, sample_weight, ignore_index, reduction, label_smoothing,
            temperature, where,
        )
    logits, *others = checked(
        logits, target, axis, weight, sample_weight, ignore_index, reduction, label_smoothing,
        temperature, where,
    )
    logits, dtype = as_wide_as(logits, others[2])
    loss = computed(kernels.cross_entropy(logits, *others))
    return in_type(dtype, loss) if reduction == "none" else loss


def cross_entropy_value_and_grad(
    logits,
    target,
    /,
    axis=-1,
    *,
    weight=None,
    sample_weight=None,
    ignore_index=-100,
    reduction="mean",
    label_smoothing=0.0,
    temperature=1.0,
    where=None,
    out=None,
):
    r"""Cross-entropy and its gradient with respect to the logits.

    .. math:: \frac{\partial \ell}{\partial z_i} = \frac{1}{N T} (S p_i - c_i)

    where :math:`c_j` is what :math:`-\log p_j` is multiplied by in the loss (of a class index
    without smoothing, its weight or 0), :math:`S = \sum_j c_j`, and N what "mean" divides by,
    else 1.

    Parameters
    ----------
    logits : array_like
        Scores, one per class along `axis`, as for `cross_entropy`.
    target : array_like
        Class indices or probabilities, as for `cross_entropy`.
    axis : int, default -1
        The axis of the C classes.
    weight : array_like, optional
        A number for each class, of shape (C,). Default: 1.
    sample_weight : array_like, optional
        A number for each row, as for `cross_entropy`. Default: 1.
    ignore_index : int, default -100
        Rows with this class index have the loss and the gradient 0.
    reduction : {"mean", "sum", "none"}, default "mean"
        As for `cross_entropy`. The gradient is that of the mean or of the sum.
    label_smoothing : float, default 0.0
        In [0, 1], the part of a target that all classes share.
    temperature : float or array_like, default 1.0
        :math:`T \ge 0`, a number or one per row, as for `softmax`.
    where : array_like of bool, optional
        Which classes there are, as for `cross_entropy`; the others are logits of -inf, whose
        gradient is 0 unless they are targets.
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

    See Also
    --------
    cross_entropy : The loss alone.
    softmax_vjp : The gradient of any other loss, from that with respect to the probabilities.

    Notes
    -----
    One sweep: the gradient is made of the exponentials while a row is in the cache. Components of
    probabilities under the smallest normal number, 1.2e-38 in float32 and 2.2e-308 in float64, may
    be 0.

    At temperature 0 the gradient is the limit for small temperatures: 0 where the prediction is
    right, else infinite for the classes in question. At other temperatures under 5.6e-309, whose
    reciprocal is infinite, numbers that should be 0 or finite may be NaN or infinite.

    Examples
    --------
    >>> from csoftmax import cross_entropy_value_and_grad
    >>> loss, grad = cross_entropy_value_and_grad([[2.0, 1.0, 0.1]], [0])
    >>> loss.round(3), grad.round(3)
    (np.float64(0.417), array([[-0.341,  0.242,  0.099]]))
    """
    loss_and_grad = kernels.cross_entropy(
        logits, target, axis, weight, sample_weight, ignore_index, reduction, label_smoothing,
        temperature, where, True, out,
    )
    if loss_and_grad is not None:
        return loss_and_grad
    if lazily := lazy_functions(logits, target, weight, sample_weight, temperature, where):
        return lazily.cross_entropy_value_and_grad(
            logits, target, axis, weight, sample_weight, ignore_index, reduction, label_smoothing,
            temperature, where, out,
        )
    logits, *others = checked(
        logits, target, axis, weight, sample_weight, ignore_index, reduction, label_smoothing,
        temperature, where,
    )
    if out is not None:
        require_out(out, logits.shape)
    logits, dtype = as_wide_as(logits, others[2])
    loss, grad = computed(kernels.cross_entropy(logits, *others, True, as_out(out)))
    if reduction == "none":
        loss = in_type(dtype, loss)
    return loss, in_type(dtype, grad) if out is None else out


def cross_entropy_grad_and_hess(
    logits,
    target,
    /,
    axis=-1,
    *,
    weight=None,
    sample_weight=None,
    ignore_index=-100,
    temperature=1.0,
):
    r"""Gradient and diagonal of the Hessian of a cross-entropy, as boosting libraries want them.

    .. math:: \frac{\partial \ell}{\partial z_i} = \frac{1}{T} (S p_i - c_i), \quad
        \frac{\partial^2 \ell}{\partial z_i^2} = \frac{1}{T^2} S p_i (1 - p_i)

    where :math:`c_j` is what :math:`-\log p_j` is multiplied by in the loss, of a class index its
    weight or 0, and :math:`S = \sum_j c_j`.

    Parameters
    ----------
    logits : array_like
        Scores, one per class along `axis`, as for `cross_entropy`.
    target : array_like
        Class indices or probabilities, as for `cross_entropy`.
    axis : int, default -1
        The axis of the C classes.
    weight : array_like, optional
        A number for each class, of shape (C,). Default: 1.
    sample_weight : array_like, optional
        A number for each row, as for `cross_entropy`. Default: 1.
    ignore_index : int, default -100
        Rows with this class index have 0 in both.
    temperature : float or array_like, default 1.0
        :math:`T \ge 0`, a number or one per row, as for `softmax`.

    Returns
    -------
    grad : ndarray
        Of the losses' sum, of the shape of `logits`, in float32 or float64.
    hess : ndarray
        The Hessian's diagonal, likewise.

    Raises
    ------
    IndexError, TypeError, ValueError
        As `cross_entropy` does.

    See Also
    --------
    cross_entropy_value_and_grad : The loss and its gradient, also of the mean.

    Notes
    -----
    One sweep makes both. Where p is close to 1, 1 - p is the share of the other classes: it keeps
    its digits, and a Hessian is 0 only where that is, or is under the smallest normal number,
    1.2e-38 in float32 and 2.2e-308 in float64.

    A booster's custom objective is this function of raw scores and labels [1]_. XGBoost's own
    "multi:softprob" takes :math:`2 p (1 - p)`, at least 1e-16, as the Hessian.

    References
    ----------
    .. [1] T. Chen, C. Guestrin, "XGBoost: A Scalable Tree Boosting System", 2016.
       https://arxiv.org/abs/1603.02754

    Examples
    --------
    >>> from csoftmax import cross_entropy_grad_and_hess
    >>> grad, hess = cross_entropy_grad_and_hess([[2.0, 1.0, 0.1], [40.0, 0.0, 0.0]], [0, 0])
    >>> grad
    array([[-3.40998861e-01,  2.42432971e-01,  9.85658904e-02],
           [-8.49670851e-18,  4.24835426e-18,  4.24835426e-18]])
    >>> hess
    array([[2.24718638e-01, 1.83659225e-01, 8.88506557e-02],
           [8.49670851e-18, 4.24835426e-18, 4.24835426e-18]])
    """
    both = kernels.cross_entropy(
        logits, target, axis, weight, sample_weight, ignore_index, "none", 0.0, temperature, None,
        has_hessian=True,
    )
    if both is not None:
        return both
    if lazily := lazy_functions(logits, target, weight, sample_weight, temperature):
        return lazily.cross_entropy_grad_and_hess(
            logits, target, axis, weight, sample_weight, ignore_index, temperature
        )
    logits, *others = checked(
        logits, target, axis, weight, sample_weight, ignore_index, "none", 0.0, temperature, None
    )
    logits, dtype = as_wide_as(logits, others[2])
    grad, hessian = computed(kernels.cross_entropy(logits, *others, has_hessian=True))
    return in_type(dtype, grad), in_type(dtype, hessian)


def nll_loss(
    log_probs,
    target,
    /,
    axis=-1,
    *,
    weight=None,
    sample_weight=None,
    ignore_index=-100,
    reduction="mean",
):
    r"""Negative log-likelihood: minus the log-probability of the right class.

    .. math:: \ell = -w_y \log p_y

    Parameters
    ----------
    log_probs : array_like
        Log-probabilities, ``log_softmax(logits, axis)``. Types as for `softmax`. That they are none
        isn't checked: the loss of a number over 0 is negative.
    target : array_like of int
        Class indices y in [0, C), of the shape of `log_probs` without `axis`.
    axis : int, default -1
        The axis of the C classes.
    weight : array_like, optional
        A number for each class, of shape (C,). Default: 1.
    sample_weight : array_like, optional
        A number for each row, as for `cross_entropy`. Default: 1.
    ignore_index : int, default -100
        Rows with this class index have the loss 0 and don't count in the mean.
    reduction : {"mean", "sum", "none"}, default "mean"
        As for `cross_entropy`.

    Returns
    -------
    scalar or ndarray
        As from `cross_entropy`.

    Raises
    ------
    IndexError, TypeError, ValueError
        As `cross_entropy` does.

    See Also
    --------
    cross_entropy : From logits, without an array of log-probabilities.

    Examples
    --------
    >>> from csoftmax import cross_entropy, log_softmax, nll_loss
    >>> logits = [[2.0, 1.0, 0.1], [0.5, 2.5, 0.0]]
    >>> nll_loss(log_softmax(logits), [0, 1]).round(3)
    np.float64(0.307)
    >>> cross_entropy(logits, [0, 1]).round(3)
    np.float64(0.307)
    """
    arguments = log_probs, target, axis, weight, sample_weight, ignore_index, reduction
    loss = kernels.nll_loss(*arguments)
    if loss is not None:
        return loss
    if lazily := lazy_functions(log_probs, target, weight, sample_weight):
        return lazily.nll_loss(*arguments)
    log_probs, *others = checked_of_either(*arguments, "log_probs", False)
    log_probs, dtype = as_wide_as(log_probs, others[2])
    loss = computed(kernels.nll_loss(log_probs, *others))
    return in_type(dtype, loss) if reduction == "none" else loss


def checked(
    logits, target, axis, weight, sample_weight, ignore_index, reduction, label_smoothing,
    temperature, where,
):  # fmt: skip
    """The arguments of a cross-entropy as its kernel takes them."""
    require_order_of(logits, "logits", temperature=temperature, where=where)
    logits, target, axis, *others = checked_of_either(
        logits, target, axis, weight, sample_weight, ignore_index, reduction, "logits", True
    )
    label_smoothing = as_share(label_smoothing, "label_smoothing")
    temperature = as_temperature(temperature, logits, (axis,))
    return logits, target, axis, *others, label_smoothing, temperature, as_mask(where, logits)


def checked_of_either(
    logits, target, axis, weight, sample_weight, ignore_index, reduction, name,
    takes_probabilities,
):  # fmt: skip
    """Those that a cross-entropy and a negative log-likelihood have in common."""
    reduction = as_reduction(reduction)
    require_order_of(logits, name, target=target, weight=weight, sample_weight=sample_weight)
    logits, axis, row_shape, classes = as_logits_with_axis(logits, axis, name)
    ignore_index = as_ignore_index(ignore_index)
    weight = as_class_weight(weight, classes)
    sample_weight = as_sample_weight(sample_weight, logits, axis)
    given, target = target, as_array(target, "target")
    if takes_probabilities and target.shape == logits.shape:
        require_no_class(ignore_index)
        target = as_logits(given, "target")
    else:
        or_else = or_probabilities(logits, axis) if takes_probabilities else ""
        target = as_class_indices(target, row_shape, classes, ignore_index, or_else, given)
    return logits, target, axis, weight, sample_weight, ignore_index, reduction


def as_logits_with_axis(logits, axis, name):
    """Also the shape of the rows, and how many classes they have."""
    logits = as_logits(logits, name)
    axis = normalized_axis(as_integer(axis, "axis"), logits.ndim)
    return logits, axis, logits.shape[:axis] + logits.shape[axis + 1 :], logits.shape[axis]


def as_reduction(reduction):
    """The plain string that it equals: a member of an enumeration is one, too."""
    for name in ("mean", "sum", "none"):
        if isinstance(reduction, str) and reduction == name:
            return name
    raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")


def as_ignore_index(ignore_index):
    ignore_index = as_integer(ignore_index, "ignore_index")
    if not -(2**63) <= ignore_index < 2**63:
        raise ValueError(f"ignore_index must be an int64, got {ignore_index}")
    return ignore_index


def as_class_weight(weight, classes):
    if weight is None:
        return None
    weight = as_logits(weight, "weight")
    require_number_for_each(weight, classes)
    return weight


def as_wide_as(logits, *weights):
    """`logits`, in float64 where float32 has no number for a weight: 1e-50 would be 0 in it, and
    1e39 infinite. Also the type of their results."""
    dtype = computed_type(logits)
    if dtype == np.float32 and not all(fits_float32(weight) for weight in weights):
        logits = in_type(np.float64, logits)
    return logits, dtype


def fits_float32(weight):
    """But for its digits."""
    if weight is None:
        return True
    with quiet():
        narrow = weight.astype(np.float32)
    too_small = (np.abs(narrow) < np.finfo(np.float32).tiny) & (weight != 0)
    return not (too_small | np.isinf(narrow) & ~np.isinf(weight)).any()


def in_type(dtype, result):
    with quiet():
        return result.astype(dtype, copy=False)


def as_sample_weight(sample_weight, logits, axis):
    """`sample_weight` in float64, with a number for each row."""
    if sample_weight is None:
        return None
    sample_weight = as_logits(sample_weight, "sample_weight")
    require_one_for_each_row(sample_weight, logits, (axis,), "sample_weight")
    return for_each_row(sample_weight, logits.shape[:axis] + logits.shape[axis + 1 :])


def for_each_row(sample_weight, row_shape):
    sample_weight = as_array(sample_weight, "sample_weight")
    with quiet():
        return np.broadcast_to(sample_weight, row_shape).astype(np.float64)


def require_number_for_each(weight, classes):
    if not may_be_equal(weight.shape, (classes,)):
        raise ValueError(
            f"weight must have a number for each class, shape ({classes},); got {weight.shape}"
        )


def require_no_class(ignore_index):
    if ignore_index >= 0:
        raise ValueError(
            f"ignore_index is of no use with probabilities as targets, got {ignore_index}"
        )


def empty_as_indices(target):
    """NumPy makes float64 of an empty list."""
    return target.astype(np.int64) if target.size == 0 and target.dtype == np.float64 else target


def as_class_indices(target, row_shape, classes, ignore_index, or_else="", given=None):
    """`target` as int64, every one of which is a class or `ignore_index`: a copy, so that no other
    thread changes what has been checked."""
    target = empty_as_indices(target).copy()
    if target.shape != row_shape or target.dtype.num not in INTEGERS:
        if target.shape == row_shape:
            require_in_int64(target if given is None else given, classes, ignore_index)
        refuse_class_indices(target, row_shape, or_else, given)
    is_uint64 = target.dtype.kind == "u" and target.dtype.itemsize == 8    # in either byte order
    if is_uint64 and target.size and target.max() > np.uint64(2**63 - 1):
        wrong = target > np.uint64(2**63 - 1)    # int64 would make small negative numbers of them
    else:
        indices = target.astype(np.int64, copy=False)
        is_class = indices.view(np.uint64) < np.uint64(classes)    # what is negative is huge here
        if is_class.all():
            return indices
        wrong = ~is_class & (indices != ignore_index)
        if not wrong.any():
            return indices
    raise wrong_index(target, wrong, classes, ignore_index)


def require_in_int64(target, classes, ignore_index):
    """Python numbers that NumPy has made no integers of, as one is too large for that."""
    if isinstance(target, list | tuple) or getattr(target, "dtype", None) == np.dtype(object):
        numbers = np.asarray(target, object)
        wrong = [
            isinstance(one, int) and not -(2**63) <= one < 2**63 for one in numbers.ravel()
        ]
        if any(wrong):
            raise wrong_index(numbers, np.reshape(wrong, numbers.shape), classes, ignore_index)


def wrong_index(target, wrong, classes, ignore_index):
    """An error for the first one."""
    position = tuple(int(i) for i in np.unravel_index(wrong.argmax(), wrong.shape))
    where = f"target[{', '.join(map(str, position))}]" if position else "target"
    allowed = f"0 to {classes - 1} (C = {classes})" if classes else "none (C = 0)"
    return IndexError(
        f"{where} is {target[position]}, but classes are {allowed} "
        f"and ignore_index is {ignore_index}"
    )


def or_probabilities(logits, axis):
    return f", or probabilities of the logits' shape {logits.shape}, with classes along axis {axis}"


def refuse_class_indices(target, row_shape, or_else, given=None):
    error = ValueError if target.shape != row_shape else TypeError
    way = to_indices(target, given) if error is TypeError else to_rows(target.shape, row_shape)
    raise error(
        f"target must be class indices, integers of shape {row_shape}{or_else}; "
        f"got {target.dtype} of shape {target.shape}{way}"
    )


def to_rows(shape, row_shape):
    """What drops an axis of length 1, as columns of tables have it."""
    for i in range(len(shape))[::-1]:
        if shape[i] == 1 and may_be_equal(shape[:i] + shape[i + 1 :], row_shape):
            return f": np.squeeze(target, {i}) drops the axis of length 1"
    return ""


def to_indices(target, given):
    """What makes class indices of labels that are whole numbers, bools or names."""
    dtype = getattr(given, "dtype", None)
    if getattr(dtype, "name", "") == "category":
        return f": target{'.cat' if hasattr(given, 'cat') else ''}.codes are indices"
    if not isinstance(dtype, np.dtype) and getattr(dtype, "kind", "O") in NUMBERS_OF_PANDAS:
        return ": target.to_numpy(int, na_value=-100), with ignore_index=-100 for NA"
    if hasattr(given, "dask"):    # whose numbers are not known yet
        return ": target.astype(int) makes integers of whole numbers and bools"
    if hasattr(target, "dask"):    # of one block, beside lazy logits
        target = np.asarray(given)
    if target.dtype.kind in "OUT" and all(isinstance(one, str) for one in target.ravel()):
        return ": np.unique(target, return_inverse=True)[1] are indices of labels"
    numbers = float64_of(target)
    if numbers is None:
        return ""
    missing = np.isnan(numbers)
    if not (numbers[~missing] % 1 == 0).all():
        return ""
    if missing.any():
        return (
            ": np.nan_to_num(np.asarray(target, float), nan=-100).astype(int), with "
            "ignore_index=-100 for NaN"
        )
    return ": np.asarray(target).astype(int) makes integers of them"
