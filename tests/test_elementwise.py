"""Functions of single numbers, of logits from everywhere, and at the edges, for every build."""

import mpmath
import numpy as np
import pytest

import csoftmax

from .contract import softplus
from .exact import INF, LONG, NAN, largest_error
from .functions import FUNCTIONS

hold_sigmoid = FUNCTIONS["sigmoid"].hold
hold_log_sigmoid = FUNCTIONS["log_sigmoid"].hold
hold_losses_and_grad = FUNCTIONS["binary_cross_entropy_value_and_grad"].hold
hold_losses = FUNCTIONS["binary_cross_entropy"].hold
pytestmark = pytest.mark.usefixtures("build")


def signs(rng, count):
    return rng.choice([-1, 1], count)


# Logits from everywhere.
POINTS = {
    "dense": lambda rng, count: np.linspace(-20, 20, count),
    "until underflow": lambda rng, count: np.linspace(-750, 750, count),
    "around 0": lambda rng, count: rng.normal(size=count) * 10 ** rng.uniform(-12, 0, count),
    "of every size": lambda rng, count: signs(rng, count) * 2 ** rng.uniform(-148, 127, count),
    "float32's limits": lambda rng, count: signs(rng, count) * rng.uniform(85, 105, count),
    "float64's limits": lambda rng, count: signs(rng, count) * rng.uniform(700, 746, count),
    "multiples of ln2 / 2": lambda rng, count: (
        rng.integers(-2200, 2200, count) * (np.log(2) / 2) * (1 + 1e-7 * rng.integers(-3, 4, count))
    ),
    "rounding to 1": lambda rng, count: rng.uniform(15, 38, count),
}
each_points = pytest.mark.parametrize("points", POINTS)


def points_of(points, dtype, count=30_000):
    return POINTS[points](np.random.default_rng(0), count).astype(dtype)


def test_references_against_mpmath():
    """longdouble has the digits that are needed, as far as results are normal numbers."""
    x = np.concatenate([np.linspace(-708, 708, 150), np.linspace(-3, 3, 50)])
    y = np.resize([0, 0.25, 1], len(x))
    sigmoid = 1 / (1 + np.exp(-x.astype(LONG)))
    losses = y * softplus(-x.astype(LONG)) + (1 - y) * softplus(x.astype(LONG))
    with mpmath.workprec(1200):
        for i, number in enumerate(map(mpmath.mpf, x)):
            right = 1 / (1 + mpmath.exp(-number))
            loss = y[i] * mpmath.log1p(mpmath.exp(-number))
            loss += (1 - y[i]) * mpmath.log1p(mpmath.exp(number))
            for mine, exact in ((sigmoid[i], right), (losses[i], loss)):
                exact = LONG(mpmath.nstr(exact, 30))
                assert largest_error(mine, exact, np.float64) < 0.15


@each_points
def test_sigmoid(points, dtype, limits):
    x = points_of(points, dtype)
    hold_sigmoid(csoftmax.sigmoid(x), limits, x)
    hold_log_sigmoid(csoftmax.log_sigmoid(x), limits, x)


def test_sigmoid_of_every_sort_of_bits(dtype, limits):
    """Every 30,011th float32, and as many float64."""
    unsigned = np.dtype(f"u{dtype.itemsize}")
    step = 30_011 if dtype == np.float32 else 30_011 << 32 | 12_345
    x = np.arange(0, 2 ** (8 * dtype.itemsize) - 1, step, dtype=unsigned).view(dtype)
    hold_sigmoid(csoftmax.sigmoid(x), limits, x)
    hold_log_sigmoid(csoftmax.log_sigmoid(x), limits, x)


def test_sigmoid_at_the_edges(dtype):
    largest, smallest = float(np.finfo(dtype).max), float(np.finfo(dtype).smallest_subnormal)
    x = np.array([-INF, -largest, -0.0, 0, smallest, -smallest, 1000, largest, INF, NAN], dtype)
    right = [0, 0, 0.5, 0.5, 0.5, 0.5, 1, 1, 1, NAN]
    for copies in (1, 2, 7, 100, 3000):
        np.testing.assert_array_equal(csoftmax.sigmoid(np.tile(x, copies)), right * copies)


def test_log_sigmoid_at_the_edges(dtype):
    largest, smallest = float(np.finfo(dtype).max), float(np.finfo(dtype).smallest_subnormal)
    x = np.array([-INF, -largest, -0.0, 0, smallest, -1000, 1000, largest, INF, NAN], dtype)
    half = -np.log(dtype.type(2))
    right = np.array([-INF, -largest, half, half, half, -1000, 0, 0, 0, NAN], dtype)
    for copies in (1, 2, 7, 100, 3000):
        result = csoftmax.log_sigmoid(np.tile(x, copies))
        np.testing.assert_array_equal(result, np.tile(right, copies))


# Targets: hard ones, and any share.
TARGETS = {
    "0 and 1": lambda rng, count: rng.integers(2, size=count),
    "shares": lambda rng, count: rng.random(count),
    "close to 0": lambda rng, count: 10 ** rng.uniform(-12, 0, size=count),
    "close to 1": lambda rng, count: 1 - 10 ** rng.uniform(-7, 0, size=count),
}


def problem(shape, dtype, points="dense", targets="shares"):
    """Logits and targets."""
    count = int(np.prod(shape))
    x = np.random.default_rng(2).permutation(points_of(points, dtype, count))
    y = TARGETS[targets](np.random.default_rng(1), count).astype(dtype)
    return x.reshape(shape), y.reshape(shape)


@each_points
@pytest.mark.parametrize("targets", TARGETS)
def test_losses(points, targets, dtype, limits):
    x, y = problem(10_000, dtype, points, targets)
    loss = csoftmax.binary_cross_entropy(x, y, reduction="none")
    hold_losses(loss, limits, x, y, reduction="none")
    for reduction in ("none", "sum", "mean"):
        both = csoftmax.binary_cross_entropy_value_and_grad(x, y, reduction=reduction)
        hold_losses_and_grad(both, limits, x, y, reduction=reduction)
    both = csoftmax.binary_cross_entropy_value_and_grad(x, y, reduction="none")
    np.testing.assert_array_equal(both[0], loss)


@pytest.mark.parametrize("weights", [{}, {"weight": 0.00820709, "pos_weight": 2.838542}])
@pytest.mark.parametrize(
    ("x", "y"),
    [(0.5421128157422459, 0.002716789939772366), (-1.1195868115488274, 0.30597073017874604),
     (-0.10708066, 0.8387026), (-1.3034863668656707, 2.5422540590624655e-05),
     (0.053239375352859497, 0.24800106883049011)],
)  # fmt: skip
def test_losses_that_were_off(x, y, weights, dtype, build, limits):
    """With every product rounded by itself, by more than 3 ULP."""
    x, y = dtype.type(x), dtype.type(y)
    weights = {name: dtype.type(value) for name, value in weights.items()}
    loss = csoftmax.binary_cross_entropy(x, y, reduction="none", **weights)
    hold_losses(loss, limits, x, y, reduction="none", **weights)


@pytest.mark.parametrize("pos_weight", [0.001617661273170602, 1.0])
def test_a_weighted_loss_that_was_off(pos_weight, build, limits):
    x, y = -1.1195868115488274, 0.30597073017874604
    weights = {"weight": 0.002384230107853437, "pos_weight": pos_weight}
    loss = csoftmax.binary_cross_entropy(x, y, reduction="none", **weights)
    hold_losses(loss, limits, x, y, reduction="none", **weights)


@each_points
def test_small_losses(points, dtype, limits):
    """Where the prediction is right all digits are there, down to the smallest normal number."""
    x = points_of(points, dtype)
    y = (x > 0).astype(dtype)
    loss = csoftmax.binary_cross_entropy(x, y, reduction="none")
    assert largest_error(loss, softplus(-np.abs(x.astype(LONG))), dtype) <= limits["binary loss"]


@each_points
def test_weights(points, dtype, limits):
    rng = np.random.default_rng(3)
    x, y = problem((60, 70), dtype, points)
    for weight_shape, pos_weight_shape in (
        ((60, 70), (70,)), ((70,), (60, 70)), ((60, 1), (1, 70)), ((), (60, 1)), ((1, 1), ()),
    ):  # fmt: skip
        weight = rng.uniform(0.1, 10, size=weight_shape).astype(dtype)
        pos_weight = rng.uniform(0.1, 10, size=pos_weight_shape).astype(dtype)
        for weights in (
            {"weight": weight}, {"pos_weight": pos_weight},
            {"weight": weight, "pos_weight": pos_weight},
        ):  # fmt: skip
            loss = csoftmax.binary_cross_entropy(x, y, reduction="none", **weights)
            hold_losses(loss, limits, x, y, reduction="none", **weights)
            for reduction in ("none", "mean"):
                keywords = weights | {"reduction": reduction}
                both = csoftmax.binary_cross_entropy_value_and_grad(x, y, **keywords)
                hold_losses_and_grad(both, limits, x, y, **keywords)


def test_weights_of_other_types(dtype, limits):
    """Numbers, lists, integers, bools; strided, broadcast, read-only arrays."""
    x, y = problem((40, 6), dtype)
    for weight in (
        2, 0.5, [1, 2, 3, 4, 5, 6], np.arange(6, dtype=np.int8), np.arange(6) > 2, np.float16(0.25),
        np.arange(6.0, dtype=">f8"), np.arange(12.0)[::2], np.broadcast_to(3.0, (40, 6)),
        np.asfortranarray(np.arange(240.0).reshape(40, 6)),
    ):  # fmt: skip
        for name in ("weight", "pos_weight"):
            keywords = {name: weight, "reduction": "none"}
            loss = csoftmax.binary_cross_entropy(x, y, **keywords)
            hold_losses(loss, limits, x, y, **keywords)


@pytest.mark.parametrize(
    ("x", "y", "weights", "right"),
    [
        (INF, 1, {}, 0), (-INF, 0, {}, 0), (INF, 0, {}, INF), (-INF, 1, {}, INF),
        (INF, 0.5, {}, INF), (-INF, 0.5, {}, INF), (NAN, 0, {}, NAN), (NAN, 1, {}, NAN),
        (NAN, 0.5, {}, NAN), (0, NAN, {}, NAN), (1e38, 1, {}, 0), (-1e38, 0, {}, 0),
        (1e38, 0, {}, np.float32(1e38)), (-1e38, 1, {}, np.float32(1e38)),
        (-INF, 1, {"pos_weight": 0}, 0), (INF, 1, {"pos_weight": 0}, 0),
        (INF, 0, {"pos_weight": 0}, INF), (-1e38, 1, {"pos_weight": 0}, 0),
        (INF, 0, {"weight": 0}, 0), (-INF, 1, {"weight": 0}, 0), (-INF, 0.5, {"weight": 0}, 0),
        (INF, 0, {"weight": 2}, INF), (3, 1, {"weight": 0}, 0),
    ],
)  # fmt: skip
def test_losses_at_the_edges(x, y, weights, right, dtype):
    """A part whose coefficient is 0 doesn't count, though the other factor is infinite."""
    if np.isfinite(x):
        x = np.float32(x)
    for n in (1, 7, 16, 40, 1000):
        logits, target = np.full(n, x, dtype), np.full(n, y, dtype)
        loss = csoftmax.binary_cross_entropy(logits, target, reduction="none", **weights)
        np.testing.assert_array_equal(loss, np.full(n, right, dtype))
        logits, target = np.stack([logits, np.zeros(n, dtype)], 1), np.stack([target, target], 1)
        loss = csoftmax.binary_cross_entropy(logits, target, reduction="none", **weights)
        np.testing.assert_array_equal(loss[:, 0], np.full(n, right, dtype))
        assert np.isfinite(loss[:, 1]).all() or np.isnan(y)


def test_sum_is_accumulated_in_float64(limits):
    """200,000 losses of float32 added one after the other would be off in the fourth digit."""
    x, y = problem(200_000, np.dtype(np.float32))
    for reduction in ("sum", "mean"):
        loss = csoftmax.binary_cross_entropy(x, y, reduction=reduction)
        hold_losses(loss, limits, x, y, reduction=reduction)


def test_losses_are_those_of_two_classes(dtype):
    """cross_entropy of the logits 0 and x is the same function."""
    x, y = problem(1000, dtype, targets="0 and 1")
    loss = csoftmax.binary_cross_entropy(x, y, reduction="none")
    two = np.stack([np.zeros_like(x), x], axis=1)
    expected = csoftmax.cross_entropy(two, y.astype(int), reduction="none")
    np.testing.assert_allclose(loss, expected, rtol=(3 + 5) * np.finfo(dtype).eps)


def test_gradients_in_both_tails(dtype):
    """Neither is the difference of numbers next to 1."""
    x = np.array([40, 80], dtype)
    right = np.exp(-x.astype(LONG))
    for logits, target, expected in ((x, [1, 1], -right), (-x, [0, 0], right)):
        loss, grad = csoftmax.binary_cross_entropy_value_and_grad(logits, target, reduction="sum")
        assert largest_error(grad, expected, dtype) <= 4
        assert loss.dtype == np.float64


@pytest.mark.parametrize(
    ("x", "y", "weights", "right"),
    [
        (INF, 1, {}, 0), (-INF, 0, {}, 0), (INF, 0, {}, 1), (-INF, 1, {}, -1),
        (INF, 0.25, {}, 0.75), (-INF, 0.25, {}, -0.25), (NAN, 0, {}, NAN), (NAN, 1, {}, NAN),
        (0, NAN, {}, NAN), (1e38, 1, {}, 0), (-1e38, 0, {}, 0), (0, 0.5, {}, 0),
        (-INF, 1, {"pos_weight": 0}, 0), (INF, 0, {"weight": 0}, 0), (-INF, 1, {"weight": 0}, 0),
        (0, 0, {"pos_weight": INF}, 0.5), (INF, 0, {"pos_weight": INF}, 1),
        (0, 1, {"pos_weight": INF}, -INF), (0, 1, {"weight": INF}, -INF),
        (0, 0, {"weight": INF}, INF), (0, 1, {"weight": 0, "pos_weight": INF}, 0),
        (0, 0, {"weight": -2}, -1), (0, 1, {"weight": -2}, 1), (0, 1, {"weight": NAN}, NAN),
        (0, 0, {"weight": NAN}, NAN),
    ],
)  # fmt: skip
def test_gradients_at_the_edges(x, y, weights, right, dtype):
    """As for losses: what has the coefficient 0 doesn't count, whatever it is multiplied by."""
    for n in (1, 7, 40, 1000):
        logits, target = np.full(n, x, dtype), np.full(n, y, dtype)
        loss, grad = csoftmax.binary_cross_entropy_value_and_grad(
            logits, target, reduction="sum", **weights
        )
        np.testing.assert_array_equal(grad, np.full(n, right, dtype))
        alone = csoftmax.binary_cross_entropy(logits, target, reduction="sum", **weights)
        np.testing.assert_array_equal(loss, alone)
        assert np.isnan(loss) == np.isnan(right)


def test_gradient_in_place(dtype):
    """Of the logits it takes the place; targets there are read before."""
    x, y = problem(5000, dtype)
    loss, grad = csoftmax.binary_cross_entropy_value_and_grad(x, y)
    for place in (x.copy(), y.copy()):
        logits, target = (place, y) if np.array_equal(place, x) else (x, place)
        result = csoftmax.binary_cross_entropy_value_and_grad(logits, target, out=place)
        assert result[1] is place
        assert result[0] == loss
        np.testing.assert_array_equal(place, grad)


def test_gradient_is_the_losses(limits):
    """Central differences of the sum."""
    x, y = problem((6, 7), np.dtype(np.float64), "around 0")
    weight, pos_weight = np.linspace(0.5, 2, 6)[:, None], np.linspace(3, 0, 7)
    keywords = {"weight": weight, "pos_weight": pos_weight, "reduction": "mean"}
    _, grad = csoftmax.binary_cross_entropy_value_and_grad(x, y, **keywords)
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = 1e-5
        up, down = (csoftmax.binary_cross_entropy(x + s, y, **keywords) for s in (step, -step))
        np.testing.assert_allclose((up - down) / 2e-5, grad[i], atol=1e-9)
