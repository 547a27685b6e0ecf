"""The contract's errors: every kind of row, every length where a loop changes, every build."""

import numpy as np
import pytest

import csoftmax

from .cases import KINDS, LENGTHS, rows
from .exact import Exact, largest_error, well_above_underflow

TEMPERATURES = [0.5, 2.0, 0.7, 3.3, 0.1, 8.0, 1e-3, 1e3]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)

# Eight numbers of one lane whose sum, rounded after each addition, was off by more than 4 ULP.
SAME_LANE = {
    np.dtype(np.float32): [
        -0.23226958513259888, -0.32784897089004517, 0.5140699148178101, 0.01029236987233162,
        -0.15587466955184937, -0.13874709606170654, 0.02020871452987194, 0.2050696164369583,
    ],
    np.dtype(np.float64): [
        float.fromhex(text)
        for text in (
            "0x1.201f00bf6639bp-6", "-0x1.f8b29cbc2c133p-5", "0x1.a5fdf5200b402p-2",
            "0x1.e4f5f430c3ba1p-3", "-0x1.4bdaa6774d68ap-2", "0x1.08dabad07e3d4p-6",
            "-0x1.5d21d317f4f15p-2", "-0x1.5a33eac316944p-5",
        )
    ],
}  # fmt: skip


def count_for(n):
    return max(2, min(12, 3000 // n))


def check_log_probabilities(result, exact, x, logsumexp, n, dtype, limits):
    """The contract: 2 ULP of the largest term, and 4 of the result where one class has nearly all.

    As x - maximum and the logarithm of the sum have one sign, the 4 hold for every result.
    """
    in_range = np.isfinite(exact) & (np.abs(exact) <= float(np.finfo(dtype).max))
    scale = np.maximum(np.abs(exact), np.maximum(np.abs(x), np.abs(logsumexp)))
    error = largest_error(result[in_range], exact[in_range], dtype, scale[in_range])
    assert error <= limits["log"]
    kept = in_range & well_above_underflow(exact, n, dtype)
    assert largest_error(result[kept], exact[kept], dtype) <= limits["log, one class"]


def check_gradient(result, exact, temperature, n, dtype, limit):
    largest_term = np.abs(exact).max(-1)
    smallest = largest_term * np.minimum(temperature, 1)
    kept = well_above_underflow(smallest, n, dtype) & (largest_term < float(np.finfo(dtype).max))
    scale = np.broadcast_to(largest_term[:, None], exact.shape)
    assert largest_error(result[kept], exact[kept], dtype, scale[kept]) <= limit


@each_kind
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_functions_of_rows(kind, dtype, build, limits):
    for n in LENGTHS:
        x = rows(kind, count_for(n), n, dtype)
        exact = Exact(x)
        error = largest_error(csoftmax.softmax(x), exact.softmax, dtype)
        assert error <= limits["softmax"], f"n = {n}"
        result = csoftmax.log_softmax(x)
        check_log_probabilities(
            result, exact.log_softmax, x, exact.logsumexp[:, None], n, dtype, limits
        )
        largest_term = np.maximum(np.abs(exact.maximum), exact.log_sum)
        result = csoftmax.logsumexp(x)
        error = largest_error(result, exact.logsumexp, dtype, largest_term)
        assert error <= limits["log"], f"n = {n}"


@each_kind
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_loss_and_gradient(kind, dtype, build, limits):
    rng = np.random.default_rng(2)
    for n in LENGTHS:
        x = rows(kind, count_for(n), n, dtype, seed=2)
        target = rng.integers(n, size=len(x))
        exact = Exact(x)
        target[::2] = exact.argmax[::2]
        loss, gradient = csoftmax.cross_entropy_value_and_grad(x, target, reduction="none")
        of_target = x[np.arange(len(x)), target]
        for result in (loss, csoftmax.cross_entropy(x, target, reduction="none")):
            check_log_probabilities(
                result, exact.loss(target), of_target, exact.logsumexp, n, dtype, limits
            )
        check_gradient(gradient, exact.gradient(target), 1.0, n, dtype, limits["gradient"])


@each_kind
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_temperatures(kind, dtype, build, limits):
    rng = np.random.default_rng(3)
    for n in LENGTHS[::3]:
        x = rows(kind, 8, n, dtype, seed=3)
        temperature = rng.permutation(TEMPERATURES)
        target = rng.integers(n, size=len(x))
        exact = Exact(x, temperature)
        error = largest_error(csoftmax.softmax(x, temperature=temperature), exact.softmax, dtype)
        assert error <= limits["softmax with temperature"], f"n = {n}"
        loss, gradient = csoftmax.cross_entropy_value_and_grad(
            x, target, reduction="none", temperature=temperature
        )
        log_probabilities = csoftmax.log_softmax(x, temperature=temperature)
        for result, right in (
            (log_probabilities, exact.log_softmax), (loss, exact.loss(target))
        ):
            kept = np.isfinite(right) & (np.abs(right) <= float(np.finfo(dtype).max))
            kept &= well_above_underflow(right, n, dtype)
            error = largest_error(result[kept], right[kept], dtype)
            assert error <= limits["log with temperature"], f"n = {n}"
        check_gradient(
            gradient, exact.gradient(target, temperature), temperature, n, dtype,
            limits["gradient with temperature"],
        )


@pytest.mark.parametrize("offset", [0, 210, -210, 300, 2100])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_terms_of_one_size_in_one_lane(offset, temperature, dtype, build, limits):
    lanes = 16 if dtype == np.float32 else 8
    for n in (8 * lanes, 20 * lanes, 6000):
        x = np.full((1, n), -np.inf, dtype)
        x[0, : 8 * lanes : lanes] = np.array(SAME_LANE[dtype]) + offset
        exact = Exact(x, temperature)
        error = largest_error(csoftmax.softmax(x, temperature=temperature), exact.softmax, dtype)
        limit = limits["softmax" if temperature == 1 else "softmax with temperature"]
        assert error <= limit, f"n = {n}"


@pytest.mark.parametrize("n", [100_003, 1_000_000, 10_000_000])
def test_long_rows(n, dtype, build, limits):
    x = (3 * np.random.default_rng(4).standard_normal((1, n))).astype(dtype)
    exact = Exact(x)
    assert largest_error(csoftmax.softmax(x), exact.softmax, dtype) <= limits["softmax"]
    assert largest_error(csoftmax.logsumexp(x), exact.logsumexp, dtype) <= limits["log"]


@pytest.mark.parametrize(
    ("x", "temperature"),
    [
        (["-0x1.bb36150c90731p-1", "-0x1.414b83faa77c9p+1"], 0.7),
        (["0x1.86042c75402a6p-1", "-0x1.6e61cde7a0dedp+0", "-0x1.f06b1cd6c33c6p-2"], 0.7),
    ],
)
def test_gradients_that_were_off(x, temperature, build, limits):
    x = np.array([[float.fromhex(text) for text in x]])
    target = np.array([0])
    _, gradient = csoftmax.cross_entropy_value_and_grad(x, target, temperature=temperature)
    exact = Exact(x, temperature).gradient(target, temperature)
    limit = limits["gradient with temperature"]
    check_gradient(gradient, exact, temperature, x.shape[1], x.dtype, limit)
