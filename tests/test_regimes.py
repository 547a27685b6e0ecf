"""Long rows, which are computed in chunks."""

import itertools

import numpy as np
import pytest

from .cases import chunk_of, contiguous, dominated_rows, normal, rows
from .exact import INF, NAN
from .functions import (
    CALLS,
    hold,
    hold_rows,
    operands_of_rows,
    outcome,
    targets_of,
)

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
    hold_rows(x, targets_of(x), limits)


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
    hold_rows(x, targets_of(x), limits, temperature=temperature)


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
    hold_rows(x, target, limits, temperature=temperature)


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
    hold_rows(x, targets_of(x), limits, temperature=temperature)


@pytest.mark.parametrize("name", ["softmax_vjp", "log_softmax_vjp"])
def test_products_of_chunks_that_are_masked_as_a_whole(name, dtype, build, limits):
    chunk, call = chunk_of(dtype), CALLS[name]
    x = rows(normal, 8, 3 * chunk + 1, dtype)
    kept = (np.arange(8)[:, None] >> np.arange(3)) & 1 == 1
    where = np.append(np.repeat(kept, chunk, axis=1), np.ones((8, 1), bool), axis=1)
    operands = operands_of_rows(["grad"], x)
    operands["grad"][~where] = NAN
    key = call.places[1]
    operands[key] = outcome(name.removesuffix("_vjp"), x, where)
    hold(call, limits, operands, contiguous)


@pytest.mark.parametrize("name", [name for name in CALLS if "jacobian" not in name])
def test_very_long_rows(name, dtype, build, limits):
    """With gradients of an offset that most of the digits go to, too."""
    call = CALLS[name].with_reduction(0)
    x = rows(normal, 2, 50_001, dtype) * np.array([[20], [0.01]], dtype)
    x[1] -= 5000
    hold(call, limits, operands_of_rows(call.operands, x, [1.0, 0.7]), contiguous)
