"""scikit-learn's multinomial loss and its gradient against cross_entropy_value_and_grad."""

import importlib

import numpy as np
import pytest

import csoftmax

pytest.importorskip("sklearn")
HalfMultinomialLoss = importlib.import_module("sklearn._loss.loss").HalfMultinomialLoss

# In eps of the largest term: what csoftmax promises without FMA.
LOSS, GRADIENT = 3, 5


@pytest.mark.parametrize("n_classes", [2, 3, 10, 100, 1000])
def test_half_multinomial_loss(dtype, n_classes):
    """float32 is held against scikit-learn's float64, whose error is as large as csoftmax's."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, n_classes)).astype(dtype)
    target = rng.integers(n_classes, size=50)
    # float64 and C-contiguous is what the loss takes.
    expected_loss, expected_grad = HalfMultinomialLoss(n_classes=n_classes).loss_gradient(
        target.astype(np.float64), logits.astype(np.float64)
    )
    loss, grad = csoftmax.cross_entropy_value_and_grad(logits, target, reduction="none")

    assert loss.dtype == grad.dtype == dtype
    eps = np.finfo(dtype).eps * (1 if dtype == np.float32 else 2)
    largest = np.maximum(expected_loss, np.abs(logits).max(axis=1))
    assert (np.abs(loss - expected_loss) <= LOSS * eps * largest).all()
    largest = np.abs(expected_grad).max(axis=1, keepdims=True)
    assert (np.abs(grad - expected_grad) <= GRADIENT * eps * largest).all()
