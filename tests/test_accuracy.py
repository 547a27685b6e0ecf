"""The contract's errors: every call, kind of row, length at which a loop may change, and build."""

import functools

import numpy as np
import pytest

import csoftmax

from .cases import (
    FINITE_KINDS,
    GAPS,
    KINDS,
    LAYOUTS,
    LENGTHS,
    UNSHIFTED_KINDS,
    chunk_of,
    contiguous,
    dominated_rows,
    mixed_rows,
    rows,
    special_rows,
)
from .contract import Failure
from .exact import INF, LONG, NAN, Exact, largest_error
from .functions import CALLS, LOGITS, hold, hold_rows, operands_of_rows, results_of_rows, targets_of
from .helpers import USABLE, from_kernels

TEMPERATURES = [0.5, 2.0, 0.7, 3.3, 0.1, 8.0, 1e-3, 1e3]
EXTREME_TEMPERATURES = [1.0, 0.0, 0.3, INF, 7.0, 1e-35, 1e35]
COUNTS = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 147]
# Rows and their length: one after the other of either, with some of the other.
SIZES = [(max(2, min(20, 3000 // n)), n) for n in LENGTHS]
SIZES += [(count, n) for n in (3, 10, 40, 129) for count in COUNTS]
# Each in a layout, the shortest of 20 rows in all of them.
CASES = [
    (turn, *size) for turn, size in enumerate(SIZES)
    for _ in (LAYOUTS if size[0] == 20 and size[1] <= 17 else [0])
]  # fmt: skip


@functools.cache
def some_rows(is_finite, count, n, dtype):
    return mixed_rows(FINITE_KINDS if is_finite else KINDS, count, n, dtype)


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

each_layout = pytest.mark.parametrize("layout", LAYOUTS)


@pytest.mark.parametrize("name", CALLS)
def test_every_call(name, dtype, build, limits):
    # Layouts take turns: between the calls, types and builds, too.
    first = list(CALLS).index(name) + (dtype == np.float64) + USABLE.index(build)
    for case, (turn, count, n) in enumerate(CASES):
        call, layout = CALLS[name].with_reduction(turn), LAYOUTS[(case + first) % len(LAYOUTS)]
        if call.name == "softmax_jacobian" and n * n * count > 50_000:
            continue
        if call.function.axes == "none" and turn < len(LENGTHS):
            count = 1    # else there would be multiples of it alone
        # NaN and infinities would be all there is to see of a sum of losses.
        x = some_rows(call.is_reduced, count, n, dtype).copy()
        special = not call.is_reduced and turn % 5 in (1, 2)
        if special:
            x[3::8] = np.resize(special_rows(n, dtype), x[3::8].shape)
        temperatures = EXTREME_TEMPERATURES if special else [1.0, *TEMPERATURES]
        operands = operands_of_rows(call.operands, x, temperatures, special)
        out = np.full_like(x, NAN) if call.out == LOGITS and turn % 7 < 4 else None
        try:
            hold(call, limits, operands, layout, out)
        except Failure as failure:
            raise Failure(f"{count} rows of {n}, {layout.__name__}: {failure}") from failure


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


@pytest.mark.parametrize("n", [1_000_000, 10_000_000])
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


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(
    "name", ["softmax, temperature", "log_softmax, temperature", "logsumexp",
             "cross_entropy_value_and_grad, temperature"],
)  # fmt: skip
def test_few_classes_beside_any_others(name, batch, dtype, build):
    """A row has the same bits beside whatever other rows it stands; alone it may go another way."""
    kinds, temperatures = BATCHES[batch]
    call = CALLS[name].with_reduction(0)
    for n in range(1, 41):
        x = np.resize(mixed_rows(kinds, 50, n, dtype), (300, n))
        operands = operands_of_rows(call.operands, x, temperatures)
        expected = results_of_rows(call, operands, contiguous)
        for count in (2, 3, 15, 16, 17, 127, 128, 129, 130):
            some = {key: array[300 - count :] for key, array in operands.items()}
            layout = LAYOUTS[(n + count) % len(LAYOUTS)]
            for result, right in zip(results_of_rows(call, some, layout), expected, strict=True):
                np.testing.assert_array_equal(result, right[300 - count :])


@each_layout
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_one_class_dominates(layout, temperature, dtype, build, limits):
    for n in (2, 3, 7, 16, 17, 40, 128, 129, 200, 300, 301, 1000, chunk_of(dtype)):
        maxima = [0, 210, -250, 300, 1700, -2040, 2100]
        x, target = dominated_rows(n, [0, n // 2, n - 1], maxima, dtype)
        target[1::3] = n // 3
        hold_rows((x * temperature).astype(dtype), target, limits, layout, temperature)


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
    hold_rows(x, target, limits, temperature=temperature)


@pytest.mark.parametrize(
    "x",
    [[-0.08374398651755567, -1.3445848609230608], [0.06446768534516796, -1.2316900939622801],
     [0.00093482228789768581, -1.262456935166989], [-0.0036866926773517876, -1.2629101649371477],
     [-0.12402859149658806, -1.3860720800890516]],
)  # fmt: skip
def test_logarithms_that_were_off(x, build, limits):
    """Of a sum that 1 rounds: what it lost was divided by 1 + f with an error of f^2."""
    hold_rows(np.array([x, x[::-1]]), np.array([0, 1]), limits)


@each_layout
@pytest.mark.parametrize("n", [3, 80, 1000])
def test_products_that_cancel(n, layout, dtype, build, limits):
    """Of gradients that are nearly the same: the row's sum has digits to spare on every build."""
    rng = np.random.default_rng(n)
    y = Exact(rng.normal(size=(50, n))).softmax.astype(dtype)
    grad = (20 + rng.normal(size=(50, n))).astype(dtype)
    arranged, axis = layout(y)
    result = np.moveaxis(csoftmax.softmax_vjp(layout(grad)[0], arranged, axis), axis, -1)
    exact = y.astype(LONG) * (grad - (y.astype(LONG) * grad).sum(-1, keepdims=True))
    scale = np.maximum(np.abs(exact), y / 10)    # for closer ones the reference lacks digits
    assert largest_error(result, exact, dtype, scale) <= limits["gradient"]


def most_wrong(dtype):
    """Numbers in [-3, 0] whose exponentials this build rounds most upwards, and downwards."""
    x = -np.random.default_rng(0).uniform(0, 3, 400_000).astype(dtype)
    exact = np.exp(x.astype(LONG))
    order = np.argsort((from_kernels("exp", x) - exact) / exact)
    return x[order[-300:]], x[order[:300]]


@each_layout
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


@each_layout
@pytest.mark.parametrize("n", [3, 10, 63, 64, 300, 1000, 4096, 9000])
def test_many_equal_small_terms(n, layout, dtype, build, limits):
    """Their sum is exact, though each alone may be too small to change what it is added to."""
    smallest = -20 if dtype == np.float32 else -45
    gaps = np.linspace(smallest, 0.7, 16)
    x = np.repeat((gaps - np.log(n))[:, None], n, axis=1)
    target = np.resize([0, n // 2, n - 1], len(x))
    x[np.arange(len(x)), target] = 0
    hold_rows(x.astype(dtype), target, limits, layout)


@each_layout
@pytest.mark.parametrize("n", [2, 3, 10, 63, 64, 300, 1000, 4096, 9000])
def test_two_equal_maxima(n, layout, dtype, build, limits):
    gaps = np.resize(GAPS[dtype], 12)
    x = np.random.default_rng(n).uniform(-1, 1, size=(len(gaps), n)) - gaps[:, None]
    x[:, [0, n - 1]] = np.random.default_rng(n).normal(size=(len(gaps), 1))
    x = x.astype(dtype)
    target = np.resize([0, n - 1, n // 2], len(x))
    hold_rows(x, target, limits, layout)


def test_a_maximum_far_above_the_first_numbers(dtype, build, limits):
    """The first numbers say little of the others."""
    steps = [0.5, 3, 4.4, 4.5, 4.6, 5, 8, 30, 39.9, 40, 40.1, 100, 399.9, 400, 400.1, 1500]
    for n in (32, 64, 65, 100, 1000):
        x = rows(KINDS[0], len(steps), n, dtype)
        x[np.arange(len(x)), n - 1] = x[:, : n // 2].max(-1) + steps
        hold_rows(x, targets_of(x), limits)


@pytest.mark.parametrize("n", [1, 2, 40, 64, 300, 9000])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_a_class_that_has_everything(n, temperature, dtype, build):
    """It has exactly 1; without FMA it may have an ULP more or less."""
    tolerance = np.finfo(dtype).eps if build == "x86-64-v2" else 0
    x, places = dominated_rows(n, [0, n // 2, n - 1], [0, 0.1, 17, -200], dtype)
    x = (x - 800 * (np.arange(n) != places[:, None])).astype(dtype)
    for columns, axis in ((x, -1), (np.ascontiguousarray(x.T), 0)):
        result = csoftmax.softmax(columns, axis, temperature=temperature)
        assert (np.abs(result.max(axis) - 1) <= tolerance).all()


# A gradient's small component beside a class that has nearly all.


@each_layout
@pytest.mark.parametrize("n", [2, 3, 17, 40, 300, 9001])
def test_small_components_of_gradients(n, layout, dtype, build, limits):
    """Of one-hot targets, as of class indices: each component by itself."""
    rng = np.random.default_rng(n)
    x, target = rng.normal(size=(40, n)), rng.integers(n, size=40)
    x[np.arange(40), target] += rng.uniform(0, 60 if dtype == np.float64 else 25, 40)
    x = x.astype(dtype)
    exact = Exact(x).gradient(target)
    logits, axis = layout(x)
    one_hot = layout((np.arange(n) == target[:, None]).astype(dtype))[0]
    for given in (target, one_hot):
        grad = csoftmax.cross_entropy_value_and_grad(logits, given, axis, reduction="sum")[1]
        error = largest_error(np.moveaxis(grad, axis, -1), exact, dtype)
        assert error <= limits["gradient"]


@each_layout
@pytest.mark.parametrize("n", [2, 3, 17, 40, 300, 9001])
def test_small_components_of_log_softmax_vjp(n, layout, dtype, build, limits):
    """From log-probabilities close to 0: of the digits of these, and of what gradients leave."""
    rng = np.random.default_rng(n)
    x = rng.normal(size=(40, n))
    x[:, n // 2] += rng.uniform(0, 60 if dtype == np.float64 else 25, 40)
    log_y = csoftmax.log_softmax(x).astype(dtype)
    for grad in (rng.normal(size=(40, n)), np.arange(n) == n // 2, np.arange(n) != n // 2):
        grad = np.broadcast_to(grad, (40, n)).astype(dtype)
        laid, axis = layout(log_y)
        result = csoftmax.log_softmax_vjp(layout(grad)[0], laid, axis)
        result = np.moveaxis(result, axis, -1)[:, n // 2]
        wide, y = grad.astype(LONG), log_y.astype(LONG)
        others = np.delete(wide, n // 2, -1).sum(-1)
        less = np.expm1(y[:, n // 2])
        exact = -others - less * wide.sum(-1)
        near = np.abs(y[:, n // 2]) < 0.3
        scale = np.maximum(np.abs(others), np.abs(less * wide.sum(-1)))
        # A sum in float64 is what there is for float32.
        scale = np.maximum(scale, 2.0**-26 * np.abs(wide).max(-1))
        assert largest_error(result[near], exact[near], dtype, scale[near]) <= limits["gradient"]


def test_jacobian_beside_a_certain_class(dtype, build):
    """Its rows sum to 0, where 1 - p has no digits left."""
    y = csoftmax.softmax(np.array([[30.0, 0, 1], [0, 40.0, 1], [1, 2, 3]], dtype))
    jacobian = csoftmax.softmax_jacobian(y).astype(LONG)
    sums, largest = np.abs(jacobian.sum(-1)), np.abs(jacobian).max(-1)
    assert (sums <= 2 * np.finfo(dtype).eps * largest).all()


def test_products_whose_sum_is_beyond_the_range(build):
    log_p = csoftmax.log_softmax(np.zeros(4, np.float32))
    result = csoftmax.log_softmax_vjp(np.full(4, 1e38, np.float32), log_p)
    assert (np.abs(result) <= 4 * np.spacing(np.float32(1e38))).all()
    y, grad = np.array([0.25, 0.25, 0.5]), np.array([9e307, -9e307, 9e307])
    right = [6.75e307, -1.125e308, 4.5e307]
    np.testing.assert_allclose(csoftmax.log_softmax_vjp(grad, np.log(y)), right, 1e-15)
    np.testing.assert_allclose(
        csoftmax.softmax_vjp(grad, y), [1.125e307, -3.375e307, 2.25e307], 1e-15
    )
    for n in (5, 100, 5000):
        for dtype, size in ((np.float32, 3e38), (np.float64, 1.7e308)):
            y = csoftmax.log_softmax(np.random.default_rng(n).normal(size=(4, n)).astype(dtype))
            grad = np.full((4, n), size, dtype)
            grad[:, ::2] *= -1
            exact = grad.astype(LONG) - np.exp(y.astype(LONG)) * grad.astype(LONG).sum(-1)[:, None]
            for result in (
                csoftmax.log_softmax_vjp(grad, y), csoftmax.log_softmax_vjp(grad.T, y.T, 0).T
            ):
                is_within = np.abs(exact) <= np.finfo(dtype).max
                part = (result.astype(LONG) - exact)[is_within] / size
                assert (np.abs(part) <= 4 * np.finfo(dtype).eps).all()
                assert np.isinf(result[~is_within]).all()
