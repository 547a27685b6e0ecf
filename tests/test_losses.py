"""Reductions and ignored rows; accuracy and edge cases stand in the files of those names."""

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
        assert loss.dtype == dtype
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
    assert csoftmax.cross_entropy(x, target, reduction="sum") == np.float32(right)


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
