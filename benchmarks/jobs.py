"""Whole jobs, as people write them in NumPy: how much of csoftmax's speed arrives in a program.

NumPy alone and csoftmax run the same code on the same data, apart from the functions in `Backend`,
and must come to the same result. Matrix products take their share of the time, and their threads
their share of the CPUs, as they do everywhere.

To add a job, write a function that makes the data and returns the work, itself a function without
arguments whose result is a number, and enter it into `JOBS`. ``python -m benchmarks.jobs`` is the
process of one job with one backend.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from math import isclose, sqrt
from typing import NamedTuple

import numpy as np

import csoftmax
from benchmarks import processes, table
from csoftmax import reference


class Backend(NamedTuple):
    """The functions that a job takes from NumPy alone, or from csoftmax."""

    softmax: Callable
    value_and_grad: Callable    # of the mean cross-entropy
    softmax_and_logsumexp: Callable
    top_log_probs: Callable
    sample: Callable    # of a row, at a temperature, with a generator


def numpy_softmax(x, temperature=1):
    return reference.numpy_softmax(x if temperature == 1 else x / temperature)


def numpy_value_and_grad(logits, target):
    return table.numpy_value_and_grad(logits, (np.arange(len(target)), target))


def numpy_softmax_and_logsumexp(x):
    total = reference.numpy_logsumexp(x)
    return np.exp(x - total[:, np.newaxis]), total


def numpy_sample(row, temperature, rng):
    return table.numpy_sample(row / temperature, rng, **table.FILTERS["sample"])


def csoftmax_softmax(x, temperature=1):
    return csoftmax.softmax(x, temperature=temperature)


def csoftmax_sample(row, temperature, rng):
    filters = table.FILTERS["sample"]
    return csoftmax.sample(row, temperature=temperature, rng=rng, **filters)


# csoftmax is imported in both processes; it starts no thread before it is called.
BACKENDS = {
    "numpy": Backend(
        numpy_softmax,
        numpy_value_and_grad,
        numpy_softmax_and_logsumexp,
        table.numpy_top_log_probs,
        numpy_sample,
    ),
    "csoftmax": Backend(
        csoftmax_softmax,
        csoftmax.cross_entropy_value_and_grad,
        csoftmax.softmax_and_logsumexp,
        csoftmax.top_log_probs,
        csoftmax_sample,
    ),
}


def train_mlp(backend, batch, classes, dtype, examples=2048, inputs=256, hidden=256):
    """An epoch of a network of two layers; the last loss."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((classes, inputs))
    labels = rng.integers(classes, size=examples)
    images = (centres[labels] + rng.standard_normal((examples, inputs))).astype(dtype)
    start = [
        (rng.standard_normal(shape) * sqrt(2 / shape[0])).astype(dtype)
        for shape in ((inputs, hidden), (hidden, classes))
    ]

    def work():
        first, second = (weights.copy() for weights in start)
        for begin in range(0, examples, batch):
            x, target = images[begin : begin + batch], labels[begin : begin + batch]
            activations = np.maximum(x @ first, 0)
            loss, grad = backend.value_and_grad(activations @ second, target)
            back = grad @ second.T
            back[activations == 0] = 0
            second -= 0.1 * (activations.T @ grad)
            first -= 0.1 * (x.T @ back)
        return loss

    return work


def attend(backend, heads, tokens, width=64):
    """Attention of a layer; the sum of squares of what comes out."""
    rng = np.random.default_rng(0)
    queries, keys, values = rng.standard_normal((3, heads, tokens, width), np.float32)
    queries *= 4    # the spread of the scores
    scale = sqrt(width)

    def work():
        scores = queries @ keys.transpose(0, 2, 1)
        out = backend.softmax(scores, temperature=scale) @ values
        return np.vdot(out, out)

    return work


def fit_digits(backend, iterations=50):
    """Logistic regression by L-BFGS on scikit-learn's digits, 1797 x 64; the last loss."""
    from scipy.optimize import minimize
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    pixels = pixels / 16 - 0.5

    def objective(weights):
        weights = weights.reshape(pixels.shape[1], 10)
        loss, grad = backend.value_and_grad(pixels @ weights, digits)
        loss += 0.5e-3 * np.vdot(weights, weights)
        return float(loss), (pixels.T @ grad + 1e-3 * weights).ravel()

    # It shall stop at the number of iterations, not when it is content: the work is then the same.
    options = {"maxiter": iterations, "ftol": 0, "gtol": 0}

    def work():
        start = np.zeros(pixels.shape[1] * 10)
        return minimize(objective, start, jac=True, method="L-BFGS-B", options=options).fun

    return work


def fit_mixture(backend, points=20_000, dimensions=8, parts=12, iterations=5):
    """A mixture of Gaussians with diagonal covariances, by EM; the mean log-likelihood."""
    rng = np.random.default_rng(0)
    centres = 4 * rng.standard_normal((parts, dimensions))
    x = centres[rng.integers(parts, size=points)] + rng.standard_normal((points, dimensions))
    squares = x**2

    def work():
        means, precisions = x[:parts], np.ones((parts, dimensions))
        weights = np.full(parts, 1 / parts)
        for _ in range(iterations):
            constants = np.log(weights) + 0.5 * np.log(precisions / (2 * np.pi)).sum(axis=1)
            constants -= 0.5 * (means**2 * precisions).sum(axis=1)
            joint = x @ (means * precisions).T - squares @ (0.5 * precisions).T + constants
            shares, log_densities = backend.softmax_and_logsumexp(joint)
            counts = shares.sum(axis=0)
            weights = counts / points
            means = (shares.T @ x) / counts[:, np.newaxis]
            variances = (shares.T @ squares) / counts[:, np.newaxis] - means**2
            precisions = 1 / (variances + 1e-6)
        return log_densities.mean()

    return work


def sample_tokens(backend, tokens=8, vocabulary=128_256, width=512):
    """Tokens drawn from a vocabulary, a row each, and the best ones' log-probabilities; a sum.

    The last layer, from the hidden state to the logits, is left out: it goes through 250 MB, and
    takes ten times as long as all the rest. The state is there for its matrix products alone.
    """
    rng = np.random.default_rng(0)
    logits = 4 * rng.standard_normal((tokens, vocabulary), np.float32)
    layers = rng.standard_normal((4, width, width), np.float32) / np.float32(sqrt(width))

    def work():
        draws = np.random.default_rng(1)
        state = np.ones((1, width), np.float32)
        total = 0.0
        for row in logits:
            for layer in layers:
                state = np.tanh(state @ layer)
            _, log_probs = backend.top_log_probs(row, table.K)
            total += row[backend.sample(row, 0.7, draws)] + log_probs.sum()
        return total

    return work


def boost(backend, rows=5000, classes=3, rounds=10):
    """The objective of boosting, as XGBoost's own demonstration has it; the sum of its Hessians.

    In place of trees, each round takes a part of Newton's step.
    """
    rng = np.random.default_rng(0)
    start = 4 * rng.standard_normal((rows, classes), np.float32)
    labels = rng.integers(classes, size=rows)

    def work():
        margins = start
        for _ in range(rounds):
            probabilities = backend.softmax(margins)
            grad = probabilities.copy()
            grad[np.arange(rows), labels] -= 1
            hess = np.maximum(2 * probabilities * (1 - probabilities), 1e-6)
            margins = margins - 0.1 * np.clip(grad / hess, -1, 1)
        return hess.sum()

    return work


def roundings(dtype):
    """How far results may be apart, relatively: each step takes over what those before rounded."""
    return 1000 * float(np.finfo(dtype).eps)


class Job(NamedTuple):
    prepare: Callable    # of a backend: the work
    rtol: float = roundings("float32")
    needs: tuple = ()    # modules


JOBS = {
    f"MLP, batch {batch}, {classes} classes, {dtype}": Job(
        partial(train_mlp, batch=batch, classes=classes, dtype=dtype), roundings(dtype)
    )
    for dtype in ("float32", "float64")
    for classes in (10, 1000)
    for batch in (32, 128, 1024)
} | {
    "attention, 8 heads, 128 tokens": Job(partial(attend, heads=8, tokens=128)),
    "attention, 12 heads, 512 tokens": Job(partial(attend, heads=12, tokens=512)),
    # 50 iterations end before the minimum, where a rounding may change the length of a step.
    "logistic regression, L-BFGS": Job(fit_digits, 1e-6, needs=("scipy", "sklearn")),
    "Gaussian mixture, EM": Job(fit_mixture, roundings("float64")),
    "token sampling": Job(sample_tokens),
    "boosting objective": Job(boost),
}


def available():
    return [name for name, job in JOBS.items() if all(map(find_spec, job.needs))]


def measure(name, seconds, rounds, each_turn):
    """Seconds of a job with either backend, each in processes of its own, in turns."""
    results = {}

    def measure_backend(backend):
        figure = processes.figure_from("jobs", name, backend, seconds)
        results[backend] = figure["result"]
        return figure["seconds"]

    times = processes.medians(measure_backend, BACKENDS, rounds, each_turn)
    if not isclose(results["numpy"], results["csoftmax"], rel_tol=JOBS[name].rtol):
        raise AssertionError(f"{name}: the results differ: {results}")
    return {"job": name, **times, "ratio": times["numpy"] / times["csoftmax"]}


def main(name, backend, seconds):
    work = JOBS[name].prepare(BACKENDS[backend])
    result = float(work())    # the warm-up
    print(json.dumps({"result": result, "seconds": processes.mean_time(work, float(seconds))}))


if __name__ == "__main__":
    main(*sys.argv[1:])
