"""A whole job: a softmax classifier of handwritten digits, trained by full-batch gradient descent.

Apart from loss and gradient both trainings are the same code, data, weights and steps, so they must
come to the same accuracy. The matrix products take their share of the time, as they do everywhere.
"""

from importlib.util import find_spec
from time import perf_counter

import numpy as np

import csoftmax
from benchmarks.table import numpy_value_and_grad
from benchmarks.timing import settle

BACKENDS = {
    "numpy": numpy_value_and_grad,
    "csoftmax": csoftmax.cross_entropy_value_and_grad,
}
RATE, MOMENTUM = 0.1, 0.9


def load():
    """Pixels, standardised and with a column of ones, and digits: to train with, and to test."""
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(digits))
    train, test = np.split(order, [len(order) * 3 // 4])
    deviation = pixels[train].std(axis=0)
    pixels = (pixels - pixels[train].mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    pixels = np.column_stack([pixels, np.ones(len(pixels))]).astype(np.float32)
    return pixels[train], digits[train], pixels[test], digits[test]


def train(value_and_grad, pixels, digits, steps):
    """Weights, last loss, seconds in all, and seconds spent in the loss and its gradient."""
    start = perf_counter()
    weights = np.zeros((pixels.shape[1], 10), np.float32)
    velocity = np.zeros_like(weights)
    in_loss = 0.0
    for _ in range(steps):
        logits = pixels @ weights
        before = perf_counter()
        loss, grad = value_and_grad(logits, digits)
        in_loss += perf_counter() - before
        velocity = MOMENTUM * velocity - RATE * (pixels.T @ grad)
        weights += velocity
    return weights, loss, perf_counter() - start, in_loss


def compare(steps=500, repetitions=6):
    """What `train` gives for each backend, in its fastest repetition; None without scikit-learn."""
    if not find_spec("sklearn"):
        return None
    pixels, digits, test_pixels, test_digits = load()
    results = {}
    for _ in range(repetitions):
        for name, value_and_grad in BACKENDS.items():
            settle()
            weights, loss, seconds, in_loss = train(value_and_grad, pixels, digits, steps)
            if name not in results or seconds < results[name]["seconds"]:
                right = (test_pixels @ weights).argmax(axis=1) == test_digits
                results[name] = {
                    "rows": len(pixels),
                    "steps": steps,
                    "seconds": seconds,
                    "seconds_in_loss_and_grad": in_loss,
                    "loss": float(loss),
                    "accuracy": float(right.mean()),
                }
    assert results["numpy"]["accuracy"] == results["csoftmax"]["accuracy"], results
    return results


def comparison_text(results):
    if results is None:
        return "handwritten digits: left out, as scikit-learn, which has them, is not installed\n"
    plain, fast = results["numpy"], results["csoftmax"]
    lines = [
        f"handwritten digits: a softmax classifier trained on {plain['rows']} images in "
        f"{plain['steps']} steps, float32",
        "",
        f"{'':16}{'accuracy':>10}{'loss':>10}{'training, ms':>14}{'loss + grad, ms':>17}",
    ]
    for name, result in results.items():
        lines.append(
            f"{name:<16}{result['accuracy']:>10.2%}{result['loss']:>10.5f}"
            f"{result['seconds'] * 1e3:>14.1f}{result['seconds_in_loss_and_grad'] * 1e3:>17.1f}"
        )
    total, in_loss = (plain[key] / fast[key] for key in ("seconds", "seconds_in_loss_and_grad"))
    lines += [f"{'numpy / csoftmax':<36}{total:>14.2f}{in_loss:>17.2f}", ""]
    return "\n".join(lines)
