"""References of the losses, in longdouble: of class indices or probabilities, weighted, smoothed.

Every loss of a row is sum_j c_j (-log p_j), and its gradient (S p_j - c_j) / T with S = sum_j c_j.
What the arguments mean is only in the coefficients c, and in the number that a mean divides by.
"""

import numpy as np

from .exact import LONG, Exact


def coefficients(target, classes, weight=None, label_smoothing=0.0, ignore_index=-100):
    """c of shape (N, C), and the number that the mean divides by.

    `target` are N class indices or an array (N, C) of probabilities.
    """
    eps = LONG(label_smoothing)
    weight = np.ones(classes, LONG) if weight is None else np.asarray(weight).astype(LONG)
    target = np.asarray(target)
    if target.ndim == 2:
        return weight * (target.astype(LONG) * (1 - eps) + eps / classes), LONG(len(target))
    ignored = target == ignore_index
    target = np.where(ignored, 0, target)
    c = np.tile(weight * eps / classes, (len(target), 1))
    c[np.arange(len(target)), target] += (1 - eps) * weight[target]
    c[ignored] = 0
    return c, weight[target[~ignored]].sum()


class ExactLosses:
    """Losses and gradients of the rows of a 2-d array with finite maxima."""

    def __init__(self, x, target, *, temperature=1.0, **keywords):
        self.c, self.divisor = coefficients(target, x.shape[1], **keywords)
        self.dtype = x.dtype
        counts = self.c != 0
        temperature = np.asarray(temperature, LONG).reshape(-1, 1)
        exact = Exact(x, temperature)
        # Of a class that doesn't count also an infinity is multiplied by 0.
        surprise = np.where(counts, -exact.log_softmax, 0)
        self.losses = (self.c * surprise).sum(-1)
        # The largest term of a loss: c_j times what -log p_j is the difference of, or itself.
        logits = np.where(counts, np.abs(x.astype(LONG)) / temperature, 0)
        terms = np.abs(self.c) * np.maximum(logits, surprise)
        self.largest_terms = np.maximum(np.abs(self.losses), terms.max(-1))
        # Whether the log-probabilities that count are numbers of the logits' dtype.
        largest = np.maximum(self.losses, surprise.max(-1))
        self.in_range = largest <= np.finfo(x.dtype).max

        # The terms of a gradient: S p_j / T and c_j / T.
        first = self.c.sum(-1, keepdims=True) * exact.softmax / temperature
        second = self.c / temperature
        self.gradient = first - second
        self.gradient_terms = np.maximum(np.abs(first), np.abs(second)).max(-1)

    def reduced(self, reduction):
        """The loss and the largest that its terms can be."""
        if reduction == "none":
            return self.losses, self.largest_terms
        divisor = self.divisor if reduction == "mean" else 1
        return self.losses.sum() / divisor, self.largest_terms.sum() / divisor


def error_of_sum(count, dtype):
    """ULP that a sum in float64 may add to the errors of its terms, all of one sign.

    Pairwise it is half an epsilon for each doubling of their number. For float32 it is nothing.
    """
    return np.log2(count) if dtype == np.float64 else 0
