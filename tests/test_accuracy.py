"""The contract's errors: every kind of row, every length where a loop changes, every build."""

import numpy as np
import pytest

import csoftmax

from .cases import (
    KINDS,
    LAYOUTS,
    LENGTHS,
    UNSHIFTED_KINDS,
    chunk_of,
    mixed_rows,
    rows,
    side_by_side,
)
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


def all_results(x, target, axis=-1, temperature=1.0):
    """What every function makes of x, with the logits' axis moved to the end.

    Rows go to an `out` that is laid out as x is: without one, NumPy makes them contiguous.
    """
    keywords = {"axis": axis, "temperature": temperature}
    loss, gradient = csoftmax.cross_entropy_value_and_grad(
        x, target, reduction="none", out=np.full_like(x, np.nan), **keywords
    )
    results = {
        "softmax": csoftmax.softmax(x, out=np.full_like(x, np.nan), **keywords),
        "log_softmax": csoftmax.log_softmax(x, out=np.full_like(x, np.nan), **keywords),
        "loss": csoftmax.cross_entropy(x, target, reduction="none", **keywords),
        "loss beside gradient": loss,
        "gradient": gradient,
    }
    for name in ("softmax", "log_softmax", "gradient"):
        results[name] = np.moveaxis(results[name], axis, -1)
    if np.all(temperature == 1):
        results["logsumexp"] = csoftmax.logsumexp(x, axis)
    return results


def check_all(results, exact, x, target, limits, temperature=1.0):
    """Results of every function against the contract."""
    dtype, n = x.dtype, x.shape[-1]
    with_temperature = "" if np.all(temperature == 1) else " with temperature"
    limit = limits["softmax" + with_temperature]
    assert largest_error(results["softmax"], exact.softmax, dtype) <= limit
    loss = exact.loss(target)
    of_target = x[np.arange(len(x)), target]
    for name, right, logits, logsumexp in (
        ("log_softmax", exact.log_softmax, x, exact.logsumexp[:, None]),
        ("loss", loss, of_target, exact.logsumexp),
        ("loss beside gradient", loss, of_target, exact.logsumexp),
    ):
        if with_temperature:
            kept = np.isfinite(right) & (np.abs(right) <= float(np.finfo(dtype).max))
            kept &= well_above_underflow(right, n, dtype)
            error = largest_error(results[name][kept], right[kept], dtype)
            assert error <= limits["log with temperature"], name
        else:
            check_log_probabilities(results[name], right, logits, logsumexp, n, dtype, limits)
    if "logsumexp" in results:
        largest_term = np.maximum(np.abs(exact.maximum), exact.log_sum)
        error = largest_error(results["logsumexp"], exact.logsumexp, dtype, largest_term)
        assert error <= limits["log"]
    check_gradient(
        results["gradient"], exact.gradient(target, temperature), temperature, n, dtype,
        limits["gradient" + with_temperature],
    )


def targets_of(x, seed=0):
    """Of every other row the largest logit, else any."""
    target = np.random.default_rng(seed).integers(x.shape[1], size=len(x))
    target[::2] = x[::2].argmax(-1)
    return target


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


# Which rows and temperatures share a batch: it is computed unshifted, shifted or tempered.
BATCHES = {
    "unshifted": (UNSHIFTED_KINDS, [1.0]),
    "of every kind": (KINDS, [1.0]),
    "tempered": (KINDS, [1.0, *TEMPERATURES]),
}
each_batch = pytest.mark.parametrize("batch", BATCHES)


def batch_of(batch, count, n, dtype):
    """Rows, their targets and temperatures."""
    kinds, temperatures = BATCHES[batch]
    x = mixed_rows(kinds, count, n, dtype)
    return x, targets_of(x), np.random.default_rng(n).choice(temperatures, size=count)


@each_batch
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_columns(batch, dtype, build, limits):
    """An axis that is not the last; columns fill lanes, or are one more, one less, or few."""
    lanes = 64 // dtype.itemsize
    for lengths, counts in (
        ([*range(1, 21), 31, 32, 33], (3, lanes - 1, lanes, lanes + 1, 131 + lanes)),
        ([40, 127, 128, 129, 299, 300, 301], (3, lanes - 1, lanes, lanes + 1)),
        ([2047, 2048, 2049, 4095, 4096, 4097, 8193], (lanes + 1,)),
    ):
        for n in lengths:
            for count in counts:
                x, target, temperature = batch_of(batch, count, n, dtype)
                columns, axis = side_by_side(x)
                results = all_results(columns, target, axis, temperature)
                check_all(results, Exact(x, temperature), x, target, limits, temperature)


@each_batch
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_few_classes(batch, dtype, build, limits):
    """They are as exact as many, and have the same bits beside whatever other rows they stand."""
    for n in range(1, 41):
        x, target, temperature = batch_of(batch, 300, n, dtype)
        expected = all_results(x, target, -1, temperature)
        for count in (1, 2, 3, 15, 16, 17, 127, 128, 129, 130):
            last = slice(300 - count, 300)
            some, axis = LAYOUTS[(n + count) % len(LAYOUTS)](x[last])
            results = all_results(some, target[last], axis, temperature[last])
            for name in results.keys() & expected.keys():
                np.testing.assert_array_equal(results[name], expected[name][last], name)
        exact = Exact(x[last], temperature[last])
        check_all(results, exact, x[last], target[last], limits, temperature[last])


GAPS = {
    np.dtype(np.float32): [10, 20, 45, 80],
    np.dtype(np.float64): [10, 37, 60, 600, 700],
}


def dominated_rows(n, places, maxima, dtype):
    """In each row one logit is far above the others: every gap, every place."""
    rng = np.random.default_rng(n)
    gaps = np.repeat(GAPS[dtype], len(places))
    x = rng.uniform(-1, 1, size=(len(gaps), n)) - gaps[:, None]
    places = np.resize(places, len(x))
    x[np.arange(len(x)), places] = 0
    return x + np.resize(maxima, len(x))[:, None], places


def check_dominated(x, target, layout, limits, temperature):
    """All digits of log_softmax and of losses are right, however small these are."""
    exact = Exact(x, temperature)
    arranged, axis = layout(x)
    results = all_results(arranged, target, axis, temperature)
    check_all(results, exact, x, target, limits, temperature)
    limit = limits["log, one class" if temperature == 1 else "log with temperature"]
    for name, right in (
        ("log_softmax", exact.log_softmax), ("loss", exact.loss(target)),
        ("loss beside gradient", exact.loss(target)),
    ):  # fmt: skip
        assert largest_error(results[name], right, x.dtype) <= limit, name


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_one_class_dominates(layout, temperature, dtype, build, limits):
    for n in (2, 3, 7, 16, 17, 40, 128, 129, 200, 300, 301, 1000, chunk_of(dtype)):
        maxima = [0, 210, -250, 300, 1700, -2040, 2100]
        x, target = dominated_rows(n, [0, n // 2, n - 1], maxima, dtype)
        target[1::3] = n // 3
        check_dominated((x * temperature).astype(dtype), target, layout, limits, temperature)


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


def most_wrong(dtype):
    """Numbers in [-3, 0] whose exponentials this build rounds most upwards, and downwards."""
    x = -np.random.default_rng(0).uniform(0, 3, 400_000).astype(dtype)
    exact = np.exp(x.astype(np.longdouble))
    order = np.argsort((csoftmax._dispatch.kernels.exp(x) - exact) / exact)
    return x[order[-300:]], x[order[:300]]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("largest", ["equal", "two", "five", "sixteen of a lane"])
def test_errors_of_one_sign(largest, layout, dtype, build, limits):
    """The sum is too large because its terms are, and the probability because its term is not."""
    rng = np.random.default_rng(1)
    lanes = 64 // dtype.itemsize
    count = {"equal": 0, "two": 2, "five": 5, "sixteen of a lane": 16}[largest]
    upwards, downwards = most_wrong(dtype)
    for large, small in ((upwards, downwards), (downwards, upwards)):
        for n in (8, 40, 64, 300, 1000):
            x = np.full((200, n), -30, dtype)
            if largest == "equal":
                x[:] = rng.choice(large, (200, 1))
            else:
                step = lanes if largest == "sixteen of a lane" else 1
                places = np.arange(0, n, step)[:count]
                x[:, places] = rng.choice(large, (200, len(places)))
            x[:, -3:] = rng.choice(small, (200, 3)) - 3
            arranged, axis = layout(x)
            result = np.moveaxis(csoftmax.softmax(arranged, axis), axis, -1)
            assert largest_error(result, Exact(x).softmax, dtype) <= limits["softmax"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n", [3, 10, 63, 64, 300, 1000, 4096, 9000])
def test_many_equal_small_terms(n, layout, dtype, build, limits):
    """Their sum is exact, though each alone may be too small to change what it is added to."""
    smallest = -20 if dtype == np.float32 else -45
    gaps = np.linspace(smallest, 0.7, 40)
    x = np.repeat((gaps - np.log(n))[:, None], n, axis=1)
    target = np.resize([0, n // 2, n - 1], len(x))
    x[np.arange(len(x)), target] = 0
    check_dominated(x.astype(dtype), target, layout, limits, 1.0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n", [2, 3, 10, 63, 64, 300, 1000, 4096, 9000])
def test_two_equal_maxima(n, layout, dtype, build, limits):
    gaps = np.resize(GAPS[dtype], 12)
    x = np.random.default_rng(n).uniform(-1, 1, size=(len(gaps), n)) - gaps[:, None]
    x[:, [0, n - 1]] = np.random.default_rng(n).normal(size=(len(gaps), 1))
    x = x.astype(dtype)
    target = np.resize([0, n - 1, n // 2], len(x))
    arranged, axis = layout(x)
    check_all(all_results(arranged, target, axis), Exact(x), x, target, limits)


def test_a_maximum_above_the_guess(dtype, build, limits):
    """The first numbers say little of the others."""
    steps = [0.5, 3, 4.4, 4.5, 4.6, 5, 8, 30, 39.9, 40, 40.1, 100, 399.9, 400, 400.1, 1500]
    for n in (32, 64, 65, 100, 1000):
        x = rows(KINDS[0], len(steps), n, dtype)
        x[np.arange(len(x)), n - 1] = x[:, : n // 2].max(-1) + steps
        target = targets_of(x)
        check_all(all_results(x, target), Exact(x), x, target, limits)


@pytest.mark.parametrize("n", [1, 2, 40, 64, 300, 9000])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_a_class_that_has_everything(n, temperature, dtype, build):
    """It has exactly 1; without FMA it may have an ULP more or less."""
    tolerance = np.finfo(dtype).eps if build == "x86-64-v2" else 0
    x, places = dominated_rows(n, [0, n // 2, n - 1], [0, 0.1, 17, -200], dtype)
    x = (x - 800 * (np.arange(n) != places[:, None])).astype(dtype)
    for arranged, axis in ((x, -1), (np.ascontiguousarray(x.T), 0)):
        result = csoftmax.softmax(arranged, axis, temperature=temperature)
        assert (np.abs(result.max(axis) - 1) <= tolerance).all()
