"""Long rows, which are computed in chunks, and rows of all sorts that are computed together."""

import itertools

import numpy as np
import pytest

import csoftmax

from .cases import LAYOUTS, chunk_of, contiguous, normal, rows
from .exact import Exact
from .test_accuracy import all_results, check_all, check_dominated, dominated_rows, targets_of

INF, NAN = np.inf, np.nan

STEPS = [30, 80, 200, 700]
ORDERS = {
    "ascending": [0, 1, 2, 3, 4],
    "descending": [4, 3, 2, 1, 0],
    "to and fro": [3, 4, 1, 2, 0],
}


def limit_of(dtype):
    """Beyond this, a chunk's maximum is subtracted before."""
    return 256 if dtype == np.float32 else 2048


def in_chunks(x, dtype):
    """Views of the chunks of these rows."""
    return np.split(x, range(chunk_of(dtype), x.shape[1], chunk_of(dtype)), axis=1)


def stairs(n, step, order, maximum, dtype):
    """Two rows whose chunks are `step` apart; in the second one a chunk's maximum comes late."""
    x = np.random.default_rng([n, step]).uniform(-2, 0, size=(2, n))
    chunks = in_chunks(x, dtype)
    places = ORDERS[order][: len(chunks)]
    for chunk, place in zip(chunks, places, strict=True):
        chunk += maximum - step * (max(places) - place)
        chunk[1, :100] -= 35 if dtype == np.float32 else 350
    return x


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "anchor", ["zero", "above minus limit", "above limit", "below minus limit"]
)
def test_chunks_far_apart(order, anchor, dtype, build, limits):
    """Probabilities are right down to the smallest normal number."""
    limit = limit_of(dtype)
    maximum = {
        "zero": 0, "above minus limit": 8 - limit,
        "above limit": limit + 20, "below minus limit": -limit - 20,
    }[anchor]  # fmt: skip
    n = 2 * chunk_of(dtype) + 1
    x = np.concatenate([stairs(n, step, order, maximum, dtype) for step in STEPS]).astype(dtype)
    target = targets_of(x)
    check_all(all_results(x, target), Exact(x), x, target, limits)


@pytest.mark.parametrize("order", ORDERS)
def test_chunks_far_apart_with_temperatures(order, dtype, build, limits):
    temperatures = [0.01, 0.3, 7, 1e5]
    x, temperature = [], []
    for i, step in enumerate(STEPS):
        temperature += [temperatures[i], temperatures[i - 1]]
        x += [*stairs(3 * chunk_of(dtype) + 77, step, order, 0, dtype)]
    x += [*stairs(len(x[0]), 80, order, limit_of(dtype) + 20, dtype)]
    x += [*stairs(len(x[0]), 80, order, 8 - limit_of(dtype), dtype)]
    temperature = np.array([*temperature, *temperatures])
    x = (np.array(x) * temperature[:, None]).astype(dtype)
    target = targets_of(x)
    results = all_results(x, target, temperature=temperature)
    check_all(results, Exact(x, temperature), x, target, limits, temperature)


@pytest.mark.parametrize("maximum", ["zero", "above minus limit", "above limit"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_one_class_dominates_a_long_row(maximum, temperature, dtype, build, limits):
    """From any chunk, and any place in it."""
    chunk = chunk_of(dtype)
    n = 2 * chunk + 100
    places = [0, chunk + 70, 2 * chunk, n - 1]
    maximum = {
        "zero": 0, "above minus limit": 8 - limit_of(dtype), "above limit": limit_of(dtype) + 20
    }[maximum]  # fmt: skip
    x, target = dominated_rows(n, places, [maximum], dtype)
    target[1::3] = n // 3
    x = (x * temperature).astype(dtype)
    check_dominated(x, target, contiguous, limits, temperature)


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_chunks_of_only_minus_infinity(temperature, dtype, build, limits):
    n = 3 * chunk_of(dtype) + 1
    masks = [mask for mask in itertools.product([False, True], repeat=4) if any(mask)]
    x = np.full((len(masks), n), -INF, dtype)
    for row, finite, numbers in zip(x, masks, rows(normal, len(x), n, dtype), strict=True):
        for chunk, values, kept in zip(
            in_chunks(row[None], dtype), in_chunks(numbers[None], dtype), finite, strict=True
        ):
            chunk[...] = values if kept else -INF
    target = targets_of(x)
    results = all_results(x, target, temperature=temperature)
    check_all(results, Exact(x, temperature), x, target, limits, temperature)
    assert (results["softmax"][x == -INF] == 0).all()
    assert (results["log_softmax"][x == -INF] == -INF).all()


@pytest.mark.parametrize("temperature", [1e-320, 1e-300, 1e-60, 1e-40, 1e40, 1e60, 1e300])
def test_extreme_temperatures_of_long_rows(temperature, dtype, build):
    chunk = chunk_of(dtype)
    x = np.zeros(3 * chunk + 5, dtype)
    x[[1, chunk + 3]] = 3
    x[2 * chunk] = 2.5
    target = 2 * chunk
    right = np.where(x == 3, 0.5, 0) if temperature < 1 else np.full(len(x), 1 / len(x))
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(csoftmax.softmax(x, temperature=temperature), right, rtol=4 * eps)
    right[target] -= 1
    with np.errstate(all="ignore"):
        right = (right / np.longdouble(temperature)).astype(dtype)
    _, gradient = csoftmax.cross_entropy_value_and_grad(x, target, temperature=temperature)
    np.testing.assert_allclose(gradient, right, rtol=4 * eps)


LENGTHS = [1, 2, 17, 63, 64, 65, 300, "3 chunks"]
TEMPERATURES = {"1": [1.0], "ordinary": [1.0, 0.3, 7.0], "extreme": [1.0, 0.0, 0.3, INF, 7.0]}
each_length = pytest.mark.parametrize("n", LENGTHS)
each_layout = pytest.mark.parametrize("layout", LAYOUTS)
each_temperature = pytest.mark.parametrize("temperatures", TEMPERATURES)


def length(n, dtype):
    return 2 * chunk_of(dtype) + 5 if n == "3 chunks" else n


def rows_without_softmax(n, dtype):
    """With NaN, with inf, of -inf alone; and their logsumexp."""
    places = sorted({0, min(70, n - 1), n // 2, n - 1})
    cases = [({place: value}, None, value) for value in (NAN, INF) for place in places]
    cases += [({place: value}, -INF, value) for value in (NAN, INF) for place in (0, n - 1)]
    cases += [({}, value, value) for value in (NAN, INF, -INF)]
    cases += [({i: NAN, j: INF}, None, NAN) for i, j in itertools.pairwise(places)]
    cases += [({i: INF, j: NAN}, None, NAN) for i, j in itertools.pairwise(places)]
    x = rows(normal, len(cases), n, dtype)
    for row, (numbers, others, _) in zip(x, cases, strict=True):
        if others is not None:
            row[:] = others
        for place, value in numbers.items():
            row[place] = value
    return x, np.array([logsumexp for *_, logsumexp in cases], dtype)


def beside_others(bad, dtype):
    """Ordinary rows; the same, but most of them replaced by the bad ones; which these are."""
    ordinary = rows(normal, len(bad) * 3 // 2 + 2, bad.shape[1], dtype, seed=1)
    is_bad = np.arange(len(ordinary)) % 3 != 0
    is_bad[np.flatnonzero(is_bad)[len(bad) :]] = False
    x = ordinary.copy()
    x[is_bad] = bad
    return ordinary, x, is_bad


@each_length
@each_layout
@each_temperature
def test_rows_without_softmax_leave_others_alone(n, layout, temperatures, dtype, build):
    bad, _ = rows_without_softmax(length(n, dtype), dtype)
    ordinary, x, is_bad = beside_others(bad, dtype)
    target = np.arange(len(x)) % x.shape[1]
    temperature = np.resize(TEMPERATURES[temperatures], len(x))
    ordinary, axis = layout(ordinary)
    expected = all_results(ordinary, target, axis, temperature)
    results = all_results(layout(x)[0], target, axis, temperature)
    for name in results.keys() - {"logsumexp"}:
        np.testing.assert_array_equal(results[name][~is_bad], expected[name][~is_bad], name)
        assert np.isnan(results[name][is_bad]).all(), name


@each_length
@each_layout
def test_logsumexp_of_rows_without_softmax(n, layout, dtype, build):
    bad, logsumexp = rows_without_softmax(length(n, dtype), dtype)
    ordinary, x, is_bad = beside_others(bad, dtype)
    expected = csoftmax.logsumexp(*layout(ordinary))
    expected[is_bad] = logsumexp
    np.testing.assert_array_equal(csoftmax.logsumexp(*layout(x)), expected)


@each_length
@each_layout
@pytest.mark.parametrize(
    ("temperatures", "ignore_index"), [("1", -100), ("ordinary", 0), ("extreme", -100)]
)
def test_ignored_rows(n, layout, temperatures, ignore_index, dtype, build):
    """Their loss and gradient are 0, whatever numbers they hold; the others don't notice."""
    bad, _ = rows_without_softmax(length(n, dtype), dtype)
    ordinary, x, is_ignored = beside_others(bad, dtype)
    target = np.arange(len(x)) % x.shape[1]
    is_ignored |= target == ignore_index
    keywords = {
        "temperature": np.resize(TEMPERATURES[temperatures], len(x)),
        "reduction": "none",
        "ignore_index": ignore_index,
    }
    ordinary, axis = layout(ordinary)
    loss, gradient = csoftmax.cross_entropy_value_and_grad(
        ordinary, target, axis, out=np.full_like(ordinary, NAN), **keywords
    )
    expected = np.where(is_ignored[:, None], 0, np.moveaxis(gradient, axis, -1))
    expected_loss = np.where(is_ignored, 0, loss)

    target[is_ignored] = ignore_index
    x, axis = layout(x)
    loss, gradient = csoftmax.cross_entropy_value_and_grad(
        x, target, axis, out=np.full_like(x, NAN), **keywords
    )
    np.testing.assert_array_equal(np.moveaxis(gradient, axis, -1), expected)
    np.testing.assert_array_equal(loss, expected_loss)
    np.testing.assert_array_equal(csoftmax.cross_entropy(x, target, axis, **keywords), loss)
