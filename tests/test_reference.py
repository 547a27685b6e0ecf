"""The textbook versions, against exact arithmetic.

Subtracting the maximum rounds: the error of a probability is up to |x - max| / 2 ULP more than that
of exp and of the sums, hence the tolerances, which are relative.
"""

import numpy as np
import pytest

from csoftmax import reference

from .cases import normal, rows, spread
from .exact import Exact

SHAPES = [(1, 1), (5, 2), (3, 17), (4, 100)]


def numpy_rows(function):
    return function


def math_rows(function):
    return lambda x: np.array([function(row.tolist()) for row in x])


FUNCTIONS = {
    "softmax": [numpy_rows(reference.numpy_softmax), math_rows(reference.math_softmax)],
    "log_softmax": [numpy_rows(reference.numpy_log_softmax), math_rows(reference.math_log_softmax)],
    "logsumexp": [numpy_rows(reference.numpy_logsumexp), math_rows(reference.math_logsumexp)],
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [normal, spread], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_rows(name, kind, shape):
    x = rows(kind, *shape, np.float64)
    for function in FUNCTIONS[name]:
        exact = getattr(Exact(x), name)
        scale = np.maximum(1, np.abs(Exact(x).log_softmax)) * np.finfo(float).eps
        if name == "logsumexp":
            scale = scale.max(-1)
        elif name == "softmax":
            scale = scale * exact
        error = np.abs(function(x) - exact) / scale
        assert error.max() < shape[-1] + 8    # sums of n terms, one after the other


@pytest.mark.parametrize("shape", SHAPES)
def test_cross_entropy(shape):
    x = rows(normal, *shape, np.float64)
    target = np.arange(shape[0]) % shape[1]
    exact = Exact(x).loss(target).mean()
    for loss in (
        reference.numpy_cross_entropy(x, target),
        reference.math_cross_entropy(x.tolist(), target.tolist()),
    ):
        assert abs(loss - exact) < 1e-14 * max(1, exact)


def test_other_axes():
    x = rows(normal, 6, 20, np.float64).reshape(2, 3, 20)
    for function in (reference.numpy_softmax, reference.numpy_log_softmax):
        np.testing.assert_array_equal(function(x.swapaxes(1, 2), 1).swapaxes(1, 2), function(x))
    np.testing.assert_allclose(
        reference.numpy_logsumexp(x, 1), reference.numpy_logsumexp(x.swapaxes(1, 2)), rtol=1e-15
    )


def test_large_logits_do_not_overflow():
    assert reference.math_softmax([1e308, 0.0]) == [1.0, 0.0]
    assert reference.numpy_logsumexp([1000.0, 1000.0]) == 1000 + np.log(2)
