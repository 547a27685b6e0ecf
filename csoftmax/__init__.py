"""Softmax, log-softmax, logsumexp and cross-entropy for NumPy arrays: fast, and exact to 3 ULP."""

from csoftmax import reference
from csoftmax._binary import (
    binary_cross_entropy,
    binary_cross_entropy_value_and_grad,
    log_sigmoid,
    sigmoid,
)
from csoftmax._config import __version__, show_config
from csoftmax._divergence import kl_divergence, kl_divergence_value_and_grad
from csoftmax._gradients import log_softmax_vjp, softmax_jacobian, softmax_vjp
from csoftmax._losses import (
    cross_entropy,
    cross_entropy_grad_and_hess,
    cross_entropy_value_and_grad,
    nll_loss,
)
from csoftmax._sampling import sample, top_log_probs
from csoftmax._softmax import (
    entropy,
    log_softmax,
    logsumexp,
    softmax,
    softmax_and_logsumexp,
)
from csoftmax._threads import get_num_threads, set_num_threads

__all__ = [
    "__version__",
    "binary_cross_entropy",
    "binary_cross_entropy_value_and_grad",
    "cross_entropy",
    "cross_entropy_grad_and_hess",
    "cross_entropy_value_and_grad",
    "entropy",
    "get_num_threads",
    "kl_divergence",
    "kl_divergence_value_and_grad",
    "log_sigmoid",
    "log_softmax",
    "log_softmax_vjp",
    "logsumexp",
    "nll_loss",
    "reference",
    "sample",
    "set_num_threads",
    "show_config",
    "sigmoid",
    "softmax",
    "softmax_and_logsumexp",
    "softmax_jacobian",
    "softmax_vjp",
    "top_log_probs",
]
