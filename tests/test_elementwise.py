"""sigmoid and binary_cross_entropy: errors, edges, layouts, block tails, for every build."""

import contextlib

import mpmath
import numpy as np
import pytest

import csoftmax

from .cases import each_input_type
from .exact import LONG, TINY, largest_error, well_above_underflow
from .test_edge_cases import beside_a_forbidden_page
from .test_layouts import LAYOUTS, every_other
from .test_masks import bits_by_threads, garbage, in_fortran_order, mentioning

INF, NAN = np.inf, np.nan
LIMIT = 3    # ULP
LENGTHS = [*range(71), 127, 128, 129, 1023, 1024, 1025, 5000]

pytestmark = [
    pytest.mark.usefixtures("build"),
    pytest.mark.filterwarnings("ignore:overflow encountered"),    # of exact results as float32
]
each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def exact_sigmoid(x):
    return 1 / (1 + np.exp(-x.astype(LONG)))


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def exact_losses(x, y, weight=1.0, pos_weight=1.0):
    """Every term is positive for y in [0, 1], so that nothing cancels."""
    x, y, weight, pos_weight = (np.asarray(a).astype(LONG) for a in (x, y, weight, pos_weight))
    return weight * (pos_weight * y * softplus(-x) + (1 - y) * softplus(x))


def check_sigmoid(result, x):
    exact = exact_sigmoid(x)
    assert largest_error(result, exact, x.dtype) <= LIMIT
    small = exact < TINY[x.dtype]
    assert (result[small] >= 0).all()
    assert (result[small] <= TINY[x.dtype]).all()


def check_losses(result, exact, dtype, limit=LIMIT):
    """Where a term, or a part of one, that is too small to be a normal number doesn't show."""
    kept = well_above_underflow(exact, 2, dtype) & (exact < float(np.finfo(dtype).max))
    assert largest_error(result[kept], exact[kept], dtype) <= limit
    assert (result[exact == 0] == 0).all()


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
    sigmoid, losses = exact_sigmoid(x), exact_losses(x, y)
    with mpmath.workprec(1200):
        for i, number in enumerate(map(mpmath.mpf, x)):
            right = 1 / (1 + mpmath.exp(-number))
            loss = y[i] * mpmath.log1p(mpmath.exp(-number))
            loss += (1 - y[i]) * mpmath.log1p(mpmath.exp(number))
            for mine, exact in ((sigmoid[i], right), (losses[i], loss)):
                exact = LONG(mpmath.nstr(exact, 30))
                assert largest_error(mine, exact, np.float64) < 0.15


@each_points
def test_sigmoid(points, dtype):
    x = points_of(points, dtype)
    check_sigmoid(csoftmax.sigmoid(x), x)


def test_sigmoid_of_every_sort_of_bits(dtype):
    """Every 30,011th float32, and as many float64."""
    unsigned = np.dtype(f"u{dtype.itemsize}")
    step = 30_011 if dtype == np.float32 else 30_011 << 32 | 12_345
    x = np.arange(0, 2 ** (8 * dtype.itemsize) - 1, step, dtype=unsigned).view(dtype)
    result = csoftmax.sigmoid(x)
    np.testing.assert_array_equal(np.isnan(result), np.isnan(x))
    finite = np.isfinite(x)
    check_sigmoid(result[finite], x[finite])


def test_sigmoid_at_the_edges(dtype):
    largest, smallest = float(np.finfo(dtype).max), float(np.finfo(dtype).smallest_subnormal)
    x = np.array([-INF, -largest, -0.0, 0, smallest, -smallest, 1000, largest, INF, NAN], dtype)
    right = [0, 0, 0.5, 0.5, 0.5, 0.5, 1, 1, 1, NAN]
    for copies in (1, 2, 7, 100, 3000):
        np.testing.assert_array_equal(csoftmax.sigmoid(np.tile(x, copies)), right * copies)


def test_sigmoid_of_every_length(dtype):
    """Numbers at the end have a loop of their own."""
    for n in LENGTHS:
        x = 20 * np.random.default_rng(n).normal(size=n).astype(dtype)
        wide = np.full((n, 3), NAN, dtype)
        wide[:, 1] = x
        for arranged in (x, x[::-1].copy()[::-1], wide[:, 1]):
            result = csoftmax.sigmoid(arranged)
            assert result.shape == (n,)
            check_sigmoid(result, x)
        guarded = np.full(n + 128, 7, dtype)
        check_sigmoid(csoftmax.sigmoid(wide[:, 1], out=guarded[64 : 64 + n]), x)
        assert (guarded[:64] == 7).all()
        assert (guarded[64 + n :] == 7).all()


@each_layout
def test_sigmoid_of_every_layout(layout, dtype):
    if layout == "list":
        dtype = np.dtype(np.float64)
    for shape in ((1, 1), (3, 5), (17, 130), (2, 3, 4, 5), (5, 4100), (3, 0)):
        x = 10 * np.random.default_rng(0).normal(size=shape).astype(dtype)
        result = csoftmax.sigmoid(LAYOUTS[layout](x))
        assert result.dtype == dtype
        assert result.shape == shape
        check_sigmoid(result, x)


@pytest.mark.parametrize("shape", [(), (7,), (3, 5), (20, 127), (3, 5000)])
def test_out_of_sigmoid(shape, dtype):
    x = np.asarray(10 * np.random.default_rng(0).normal(size=shape)).astype(dtype)
    expected = csoftmax.sigmoid(x)
    for arrange in (np.copy, in_fortran_order, every_other)[: 3 if shape else 2]:
        out, in_place = arrange(np.full(shape, 7, dtype)), arrange(x)
        assert csoftmax.sigmoid(x, out=out) is out
        assert csoftmax.sigmoid(in_place, out=in_place) is in_place
        for result in (out, in_place):
            np.testing.assert_allclose(result, expected, rtol=2 * LIMIT * np.finfo(dtype).eps)
    for out_dtype in (np.float16, np.float32, np.float64):
        out = np.full(shape, 7, out_dtype)
        csoftmax.sigmoid(x, out=out)
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(out, expected.astype(out_dtype))


@pytest.mark.parametrize("shift", [-299, -17, -1, 1, 3, 1000])
def test_out_of_sigmoid_that_overlaps_in_part(shift, dtype):
    x = 10 * np.random.default_rng(0).normal(size=1500).astype(dtype)
    memory = np.zeros(1500 + abs(shift), dtype)
    start, end = max(-shift, 0), max(shift, 0)
    memory[start : start + 1500] = x
    out = memory[end : end + 1500]
    csoftmax.sigmoid(memory[start : start + 1500], out=out)
    check_sigmoid(out, x)
    memory = x.copy()
    csoftmax.sigmoid(memory[::-1], out=memory)
    check_sigmoid(memory, x[::-1])


@each_input_type
def test_types(input_dtype, result_dtype):
    x = np.array([[0, 1, 1, 0, 1]]).astype(input_dtype)
    result = csoftmax.sigmoid(x)
    assert result.dtype == result_dtype
    np.testing.assert_array_equal(result, csoftmax.sigmoid(x.astype(result_dtype)))
    for target in (x, x.astype(np.float64), x.astype(bool)):
        loss = csoftmax.binary_cross_entropy(x, target, reduction="none")
        assert loss.dtype == result_dtype
        computed = x.astype(result_dtype)
        expected = csoftmax.binary_cross_entropy(computed, computed, reduction="none")
        np.testing.assert_array_equal(loss, expected)
        assert csoftmax.binary_cross_entropy(x, target).dtype == np.float64


def test_scalars():
    assert isinstance(csoftmax.sigmoid(0.0), np.float64)
    assert isinstance(csoftmax.sigmoid(np.array(0, np.float32)), np.float32)
    assert csoftmax.sigmoid(0) == 0.5
    assert csoftmax.sigmoid(np.empty((3, 0), np.float32)).shape == (3, 0)
    for reduction in ("none", "sum", "mean"):
        loss = csoftmax.binary_cross_entropy(np.float32(0), 1, reduction=reduction)
        assert isinstance(loss, np.float32 if reduction == "none" else np.float64)
        np.testing.assert_allclose(loss, np.log(2), rtol=LIMIT * np.finfo(np.float32).eps)
    assert isinstance(csoftmax.binary_cross_entropy([0.0, 1.0], [True, False]), np.float64)


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
def test_losses(points, targets, dtype):
    x, y = problem(10_000, dtype, points, targets)
    check_losses(csoftmax.binary_cross_entropy(x, y, reduction="none"), exact_losses(x, y), dtype)


@each_points
def test_small_losses(points, dtype):
    """Where the prediction is right all digits are there, down to the smallest normal number."""
    x = points_of(points, dtype)
    y = (x > 0).astype(dtype)
    loss = csoftmax.binary_cross_entropy(x, y, reduction="none")
    assert largest_error(loss, softplus(-np.abs(x.astype(LONG))), dtype) <= LIMIT


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
            check_losses(loss, exact_losses(x, y, **weights), dtype, limits["log, one class"])


def test_weights_of_other_types(dtype, limits):
    """Numbers, lists, integers, bools; strided, broadcast, read-only arrays."""
    x, y = problem((40, 6), dtype)
    for weight in (
        2, 0.5, [1, 2, 3, 4, 5, 6], np.arange(6, dtype=np.int8), np.arange(6) > 2, np.float16(0.25),
        np.arange(6.0, dtype=">f8"), np.arange(12.0)[::2], np.broadcast_to(3.0, (40, 6)),
        np.asfortranarray(np.arange(240.0).reshape(40, 6)),
    ):  # fmt: skip
        for name in ("weight", "pos_weight"):
            loss = csoftmax.binary_cross_entropy(x, y, reduction="none", **{name: weight})
            assert loss.dtype == dtype
            exact = exact_losses(x, y, **{name: weight})
            check_losses(loss, exact, dtype, limits["log, one class"])


def test_losses_of_every_length(dtype):
    """Numbers at the end have a loop of their own."""
    for n in LENGTHS:
        x, y = problem(n, dtype)
        exact = exact_losses(x, y)
        for arranged, target in (
            (x, y), (every_other(x), y), (x, every_other(y)), (every_other(x), y[::-1].copy()[::-1])
        ):  # fmt: skip
            loss = csoftmax.binary_cross_entropy(arranged, target, reduction="none")
            assert loss.shape == (n,)
            check_losses(loss, exact, dtype)
            total = csoftmax.binary_cross_entropy(arranged, target, reduction="sum")
            check_losses(np.array([total]), np.array([exact.sum()]), dtype)


@each_layout
def test_losses_of_every_layout(layout, dtype):
    if layout == "list":
        dtype = np.dtype(np.float64)
    arrange = LAYOUTS[layout]
    for shape in ((1, 1), (3, 5), (17, 130), (2, 3, 4, 5), (5, 4100)):
        x, y = problem(shape, dtype)
        exact = exact_losses(x, y)
        for one, other in ((arrange, arrange), (arrange, np.copy), (np.copy, arrange)):
            loss = csoftmax.binary_cross_entropy(one(x), other(y), reduction="none")
            assert loss.dtype == dtype
            assert loss.shape == shape
            check_losses(loss, exact, dtype)
    x = np.broadcast_to(x[:1], shape)
    y = np.broadcast_to(y[:, :1], shape)
    loss = csoftmax.binary_cross_entropy(x, y, reduction="none")
    check_losses(loss, exact_losses(x, y), dtype)


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


def test_reductions(dtype, limits):
    rng = np.random.default_rng(0)
    x, y = problem((200, 7), dtype)
    weight, pos_weight = rng.uniform(0.5, 2, size=(2, 7)).astype(dtype)
    exact = exact_losses(x, y, weight, pos_weight)
    weights = {"weight": weight, "pos_weight": pos_weight}
    for reduction, right in (("sum", exact.sum()), ("mean", exact.sum() / 1400)):
        loss = csoftmax.binary_cross_entropy(x, y, reduction=reduction, **weights)
        assert isinstance(loss, np.float64)
        assert largest_error(loss, right, dtype) <= limits["log, one class"]
    assert loss == csoftmax.binary_cross_entropy(x, y, **weights)    # "mean" is the default


def test_sum_is_accumulated_in_float64():
    """200,000 losses of float32 added one after the other would be off in the fourth digit."""
    x, y = problem(200_000, np.dtype(np.float32))
    exact = exact_losses(x, y)
    for reduction, right in (("sum", exact.sum()), ("mean", exact.sum() / len(x))):
        loss = csoftmax.binary_cross_entropy(x, y, reduction=reduction)
        assert loss.dtype == np.float64
        assert largest_error(loss, right, np.float32) <= LIMIT


def test_nothing_to_reduce():
    empty = np.empty((0, 3), np.float32)
    assert csoftmax.binary_cross_entropy(empty, empty, reduction="none").shape == (0, 3)
    assert csoftmax.binary_cross_entropy(empty, empty, reduction="sum") == 0
    loss = csoftmax.binary_cross_entropy(empty, empty)
    assert np.isnan(loss)
    assert loss.dtype == np.float64


def test_losses_are_those_of_two_classes(dtype):
    """cross_entropy of the logits 0 and x is the same function."""
    x, y = problem(1000, dtype, targets="0 and 1")
    loss = csoftmax.binary_cross_entropy(x, y, reduction="none")
    two = np.stack([np.zeros_like(x), x], axis=1)
    expected = csoftmax.cross_entropy(two, y.astype(int), reduction="none")
    np.testing.assert_allclose(loss, expected, rtol=(LIMIT + 5) * np.finfo(dtype).eps)


@pytest.mark.parametrize("shape", [(60_001,), (241, 199)])
def test_same_bits_for_one_thread_and_two(shape, dtype):
    x, y = problem(shape, dtype)
    weight = np.linspace(0.5, 2, shape[-1]).astype(dtype)

    def results():
        for arranged in (x, in_fortran_order(x), every_other(x)):
            yield csoftmax.sigmoid(arranged)
            for reduction in ("none", "sum", "mean"):
                yield csoftmax.binary_cross_entropy(arranged, y, reduction=reduction)
            yield csoftmax.binary_cross_entropy(x, y, weight=weight, pos_weight=weight)

    one, two = bits_by_threads(results)
    assert one == two


def test_inputs_are_not_changed_and_no_flag_is_left_behind(dtype):
    for n in (3, 16, 40, 5000):
        x = garbage(n, dtype)
        x[::3] = np.linspace(-100, 100, len(x[::3]))
        y = np.resize(np.array([0, 1, 0.5], dtype), n)
        copies = x.copy(), y.copy()
        with np.errstate(all="raise"):
            csoftmax.sigmoid(x)
            csoftmax.sigmoid(x[::2])
            csoftmax.sigmoid(x, out=np.empty(n, np.float16))
            for reduction in ("none", "sum", "mean"):
                csoftmax.binary_cross_entropy(x, y, reduction=reduction)
                csoftmax.binary_cross_entropy(
                    x, y, weight=y, pos_weight=1e30 * y, reduction=reduction
                )
        np.testing.assert_array_equal(x, copies[0])
        np.testing.assert_array_equal(y, copies[1])


@pytest.mark.parametrize("side", ["before", "behind"])
@pytest.mark.parametrize("step", [1, 2])
def test_nothing_outside_inputs_and_output_is_touched(step, side, dtype):
    for n in (1, 3, 15, 16, 17, 64, 127, 129, 1000, 4099):
        with contextlib.ExitStack() as stack:
            size = ((n - 1) * step + 1) * dtype.itemsize
            pages = [stack.enter_context(beside_a_forbidden_page(size, side)) for _ in range(4)]
            x, y, weight, out = (
                np.ndarray(n, dtype, page, 0, step * dtype.itemsize) for page in pages
            )
            x[:], y[:] = problem(n, dtype)
            weight[:] = 2
            csoftmax.sigmoid(x, out=out)
            csoftmax.binary_cross_entropy(x, y, reduction="none")
            csoftmax.binary_cross_entropy(x, y, weight=weight, pos_weight=weight)
            del x, y, weight, out    # before their memory goes


X = np.arange(12.0, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize("dtype_of_x", [np.longdouble, np.complex64, object, "U3", "M8[s]"])
def test_types_that_are_refused(dtype_of_x):
    x = np.zeros((3, 4), dtype_of_x)
    with pytest.raises(TypeError, match=r"float32 or float64.*got"):
        csoftmax.sigmoid(x)
    with pytest.raises(TypeError, match=r"float32 or float64.*got"):
        csoftmax.binary_cross_entropy(x, X)
    for arguments in ({"target": x}, {"weight": x}, {"pos_weight": x}):
        arguments = {"target": X} | arguments
        with pytest.raises(TypeError):
            csoftmax.binary_cross_entropy(X, arguments.pop("target"), **arguments)


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (np.empty((4, 3), np.float32), ValueError, r"shape \(3, 4\), got \(4, 3\)"),
        (np.empty((1, 3, 4), np.float32), ValueError, r"shape \(3, 4\), got \(1, 3, 4\)"),
        (np.empty((3, 4), int), TypeError, "floating-point, got int64"),
        ([[0.0] * 4] * 3, TypeError, "NumPy array, got list"),
        (np.broadcast_to(np.float32(0), (3, 4)), ValueError, "read-only"),
    ],
)
def test_out_of_sigmoid_that_is_refused(out, error, message):
    with pytest.raises(error, match=message):
        csoftmax.sigmoid(X, out=out)


@pytest.mark.parametrize("shape", [(4,), (3, 1), (1, 4), (4, 3), (3,), (), (1, 3, 4), (0, 4)])
def test_shapes_of_targets_that_are_refused(shape):
    """Targets don't broadcast: a column instead of a row would go unnoticed."""
    with pytest.raises(ValueError, match=mentioning((3, 4), shape)):
        csoftmax.binary_cross_entropy(X, np.zeros(shape))


@pytest.mark.parametrize("name", ["weight", "pos_weight"])
@pytest.mark.parametrize("shape", [(3,), (5,), (4, 4), (4, 1), (1, 3, 4), (2, 3, 4), (0,)])
def test_shapes_of_weights_that_are_refused(name, shape):
    with pytest.raises(ValueError, match=mentioning((3, 4), shape)):
        csoftmax.binary_cross_entropy(X, X > 5, **{name: np.ones(shape)})


@pytest.mark.parametrize("reduction", ["avg", "", None, 0])
def test_reductions_that_are_refused(reduction):
    with pytest.raises(ValueError, match="reduction must be 'mean', 'sum' or 'none', got"):
        csoftmax.binary_cross_entropy(X, X > 5, reduction=reduction)
