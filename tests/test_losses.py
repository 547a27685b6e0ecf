"""Reductions and ignored rows; accuracy and edge cases stand in the files of those names."""

import functools

import numpy as np
import pytest

import csoftmax

from .exact import LONG, Exact

pytestmark = pytest.mark.usefixtures("build")


@pytest.fixture
def problem(dtype):
    rng = np.random.default_rng(0)
    x = (3 * rng.normal(size=(50, 7))).astype(dtype)
    target = rng.integers(7, size=50)
    target[::5] = -100
    return x, target, np.where(target == -100, 0, Exact(x).loss(np.maximum(target, 0)))


def test_reductions(problem, dtype):
    x, target, losses = problem
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(
        csoftmax.cross_entropy(x, target, reduction="none"), losses.astype(dtype), rtol=4 * eps
    )
    for reduction, right in (("sum", losses.sum()), ("mean", losses.sum() / 40)):
        loss, grad = csoftmax.cross_entropy_value_and_grad(x, target, reduction=reduction)
        assert loss.dtype == np.float64
        assert abs(loss - right) <= 4 * eps * right
        assert loss == csoftmax.cross_entropy(x, target, reduction=reduction)
        assert (grad[::5] == 0).all()


def test_gradient_weights_by_reduction(problem):
    x, target, _ = problem
    gradients = {
        reduction: csoftmax.cross_entropy_value_and_grad(x, target, reduction=reduction)[1]
        for reduction in ("mean", "sum", "none")
    }
    np.testing.assert_array_equal(gradients["sum"], gradients["none"])
    np.testing.assert_allclose(
        gradients["mean"], gradients["sum"] / 40, rtol=4 * np.finfo(x.dtype).eps
    )


def test_an_ignored_class_may_be_in_range(problem):
    x, target, _ = problem
    target = np.where(target == -100, 0, target)
    loss = csoftmax.cross_entropy(x, target, ignore_index=3)
    kept = target != 3
    np.testing.assert_allclose(
        loss, csoftmax.cross_entropy(x[kept], target[kept]), rtol=2 * np.finfo(x.dtype).eps
    )


def test_sum_is_accumulated_in_float64():
    """10^6 losses of float32 summed in float32 would be off in the fourth digit."""
    x = np.zeros((1_000_000, 3), np.float32)
    x[::2, 0] = 1
    target = np.zeros(1_000_000, int)
    losses = csoftmax.cross_entropy(x, target, reduction="none")
    right = losses.astype(LONG).sum()
    assert csoftmax.cross_entropy(x, target, reduction="sum") == right


def reductions(x, target, weight):
    """Of each loss: it itself, its losses, and the number that its mean divides by."""
    one_hot = np.eye(x.shape[1])[target]
    for function, given, keywords, divisor in (
        (csoftmax.cross_entropy, target, {"weight": weight}, weight[target].sum()),
        (csoftmax.cross_entropy, one_hot, {"label_smoothing": 0.1}, len(x)),
        (csoftmax.nll_loss, target, {}, len(x)),
        (csoftmax.binary_cross_entropy, one_hot, {"pos_weight": weight}, x.size),
    ):
        loss = functools.partial(function, x, given, **keywords)
        yield loss, loss(reduction="none"), divisor
    both = functools.partial(csoftmax.cross_entropy_value_and_grad, x, target)
    yield lambda reduction: both(reduction=reduction)[0], both(reduction="none")[0], len(x)


@pytest.mark.parametrize("input_dtype", [np.int8, np.float16, np.float32, np.float64])
def test_means_and_sums_are_float64(input_dtype):
    """Nothing but each loss is rounded to float32."""
    rng = np.random.default_rng(0)
    x = (3 * rng.normal(size=(3001, 7))).astype(input_dtype)
    target, weight = rng.integers(7, size=len(x)), np.arange(1.0, 8.0)
    for loss, losses, divisor in reductions(x, target, weight):
        assert losses.dtype == (np.float64 if input_dtype == np.float64 else np.float32)
        right = losses.astype(LONG).sum()
        for reduction, expected in (("sum", right), ("mean", right / divisor)):
            result = loss(reduction=reduction)
            assert type(result) is np.float64
            np.testing.assert_allclose(result, expected, rtol=2 * np.finfo(np.float64).eps)
        assert np.float32(result) != result


def test_means_of_close_parameters_differ():
    """Rounded to float32 several would be the same, and a line search would stop there."""
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=(5000, 10)).astype(np.float32), rng.integers(10, size=5000)
    _, grad = csoftmax.cross_entropy_value_and_grad(x, target, reduction="sum")
    grad[500:] = 0
    steps = [x - np.float32(step * 1e-6) * grad for step in range(10)]
    means = np.array([csoftmax.cross_entropy(step, target) for step in steps])
    assert len(set(means.astype(np.float32))) < 7
    assert (np.diff(means) < 0).all()
    right = np.array([Exact(step).loss(target).mean() for step in steps])
    assert (np.abs(means - right) < np.spacing(np.float32(2)) / 50).all()


@pytest.mark.parametrize("dtype_of_target", [np.int8, np.uint8, np.int32, np.uint64, ">i4"])
def test_integer_types_of_targets(problem, dtype_of_target):
    x, target, _ = problem
    target = np.maximum(target, 0)
    expected = csoftmax.cross_entropy(x, target)
    assert csoftmax.cross_entropy(x, target.astype(dtype_of_target)) == expected


def test_gradient_against_finite_differences(problem):
    x, target, _ = problem
    x = x.astype(np.float64)
    target = np.maximum(target, 0)
    _, grad = csoftmax.cross_entropy_value_and_grad(x, target, reduction="sum", temperature=1.7)
    step = LONG(2) ** -20
    for column in range(x.shape[1]):
        up, down = x.astype(LONG), x.astype(LONG)
        up[:, column] += step
        down[:, column] -= step
        slope = (Exact(up, 1.7).loss(target) - Exact(down, 1.7).loss(target)) / (2 * step)
        np.testing.assert_allclose(grad[:, column], slope.astype(float), rtol=1e-8, atol=1e-11)
