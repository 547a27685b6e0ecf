"""Softmax, log-softmax, logsumexp and cross-entropy for NumPy arrays: fast, and exact to 3 ULP."""

from csoftmax import reference
from csoftmax._config import __version__, show_config
from csoftmax._losses import cross_entropy, cross_entropy_value_and_grad
from csoftmax._softmax import log_softmax, logsumexp, softmax
from csoftmax._threads import get_num_threads, set_num_threads

__all__ = [
    "__version__",
    "cross_entropy",
    "cross_entropy_value_and_grad",
    "get_num_threads",
    "log_softmax",
    "logsumexp",
    "reference",
    "set_num_threads",
    "show_config",
    "softmax",
]
