"""entropy against exact ones, its edge cases and its layouts, for every build."""

import math

import numpy as np
import pytest

import csoftmax

from .cases import KINDS, LAYOUTS, chunk_of, each_input_type, mixed_rows, normal, rows
from .cases import LENGTHS as ALL_LENGTHS
from .exact import TINY, Exact, largest_error, well_above_underflow
from .test_accuracy import dominated_rows
from .test_edge_cases import beside_a_forbidden_page, row
from .test_layouts import LAYOUTS as LAYOUTS_OF_X
from .test_masks import AXES, as_rows, axes_of, bits_by_threads, garbage
from .test_regimes import ORDERS, STEPS, limit_of, stairs

INF, NAN = np.inf, np.nan
LENGTHS = [1, 2, 16, 17, 100, 129, 300, 1000, 4096, 4097, 9000]
TEMPERATURES = {"1": [1.0], "others": [1.0, 0.5, 2.0, 0.7, 3.3, 0.1, 8.0, 1e-3, 1e3]}

pytestmark = [
    pytest.mark.usefixtures("build"),
    pytest.mark.filterwarnings("ignore:overflow encountered"),    # of exact results as float32
]
each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def exact_entropy(x, temperature=1.0):
    """Without any cancellation, as no term is negative."""
    exact = Exact(x, temperature)
    log_y = np.where(exact.softmax > 0, exact.log_softmax, 0)
    return -(exact.softmax * log_y).sum(-1)


def check(result, x, limits, temperature=1.0):
    """Entropies of rows against the contract: all digits are right, however small they are.

    What is below the smallest normal number may be 0, times a logarithm of up to 750.
    """
    right = exact_entropy(x, temperature)
    limit = limits["log, one class" if np.all(temperature == 1) else "log with temperature"]
    kept = well_above_underflow(right, 750 * x.shape[1], x.dtype)
    assert largest_error(result[kept], right[kept], x.dtype) <= limit
    assert (result >= 0).all()
    assert (result[~kept] <= 2 * right[~kept] + TINY[x.dtype]).all()


@each_layout
@pytest.mark.parametrize("temperatures", TEMPERATURES)
def test_rows_of_every_kind(layout, temperatures, dtype, limits):
    for n in ALL_LENGTHS[:: 1 if temperatures == "1" else 3]:
        count = max(2, min(18, 6000 // n))
        x = mixed_rows(KINDS, count, n, dtype)
        temperature = np.random.default_rng(n).choice(TEMPERATURES[temperatures], size=count)
        arranged, axis = layout(x)
        check(csoftmax.entropy(arranged, axis, temperature=temperature), x, limits, temperature)


@each_layout
def test_numbers_of_rows(layout, dtype, limits):
    """Rows fill lanes and batches, or are one more or less."""
    for n in (1, 5, 40, 64, 129):
        for count in (1, 2, 3, 8, 15, 16, 17, 127, 128, 129):
            x = mixed_rows(KINDS, count, n, dtype, seed=count)
            check(csoftmax.entropy(*layout(x)), x, limits)


@each_layout
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_one_class_dominates(layout, temperature, dtype, limits):
    """By every gap, in every place: the entropy is small, but its digits are all there."""
    for n in (2, 3, 7, 16, 17, 40, 128, 129, 200, 300, 1000, chunk_of(dtype) + 1):
        maxima = [0, 210, -250, 300, 1700, -2040, 2100]
        x, _ = dominated_rows(n, [0, n // 2, n - 1], maxima, dtype)
        x = (x * temperature).astype(dtype)
        arranged, axis = layout(x)
        check(csoftmax.entropy(arranged, axis, temperature=temperature), x, limits, temperature)


@each_layout
def test_many_equal_small_terms(layout, dtype, limits):
    """Beside one that has nearly all."""
    gaps = np.linspace(-20 if dtype == np.float32 else -45, 0.7, 30)
    for n in (3, 10, 64, 300, 4096, 9000):
        x = np.repeat((gaps - np.log(n))[:, None], n, axis=1)
        x[np.arange(len(x)), np.resize([0, n // 2, n - 1], len(x))] = 0
        x = x.astype(dtype)
        check(csoftmax.entropy(*layout(x)), x, limits)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_chunks_far_apart(order, temperature, dtype, limits):
    n = 2 * chunk_of(dtype) + 77
    maxima = [0, 8 - limit_of(dtype), limit_of(dtype) + 20]
    x = [stairs(n, step, order, maximum, dtype) for step in STEPS for maximum in maxima]
    x = (np.concatenate(x) * temperature).astype(dtype)
    check(csoftmax.entropy(x, temperature=temperature), x, limits, temperature)


@pytest.mark.parametrize("offset", [0, 300, -5000])
def test_long_rows(offset, dtype, limits):
    x = rows(normal, 3, 100_003, dtype) * np.array([[1], [20], [0.01]], dtype) + dtype.type(offset)
    check(csoftmax.entropy(x), x, limits)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.3, INF])
def test_equal_logits(temperature, dtype):
    """log(n), the largest entropy, wherever the logits are."""
    for n in LENGTHS:
        x = np.repeat(np.array([[0], [3.7], [-1e4], [1e38], [-1e38]], dtype), n, axis=1)
        result = csoftmax.entropy(x, temperature=temperature)
        np.testing.assert_allclose(result, np.log(n), rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("n", LENGTHS)
def test_nothing_is_uncertain(n, dtype):
    """0 exactly: a single logit, one beside -inf alone, one far above the others."""
    x = np.full((4, n), -INF, dtype)
    x[:, n // 2] = [5, -1e30, 1e30, 0]
    x[3] -= 5000 * (np.arange(n) != n // 2)
    for temperature in (1.0, 0.3, 0.0):
        assert (csoftmax.entropy(x, temperature=temperature) == 0).all()
        assert (csoftmax.entropy(x.T, 0, temperature=temperature) == 0).all()
    assert (csoftmax.entropy(x[:3], temperature=INF) == 0).all()


@each_layout
@pytest.mark.parametrize("n", LENGTHS)
def test_rows_without_softmax(n, layout, dtype):
    """With NaN or +inf, or of only -inf: NaN; rows beside them don't notice."""
    places = ("first", "middle", "last")
    bad = [row(n, dtype, **{place: value}) for place in places for value in (NAN, INF)]
    bad = np.array([*bad, np.full(n, -INF, dtype), np.full(n, NAN, dtype)])
    ordinary = rows(normal, 2 * len(bad), n, dtype)
    x = ordinary.copy()
    x[::2] = bad
    for temperature in (1.0, np.resize([1.0, 0.0, 0.3, INF, 7.0], len(x))):
        arranged, axis = layout(ordinary)
        expected = csoftmax.entropy(arranged, axis, temperature=temperature)
        expected[::2] = NAN
        result = csoftmax.entropy(layout(x)[0], axis, temperature=temperature)
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("n", LENGTHS)
def test_temperature_0(n, dtype):
    """Also with several maxima: all goes to the first one."""
    x = np.random.default_rng(n).integers(0, 5, size=(3, n)).astype(dtype)
    assert (csoftmax.entropy(x, temperature=0) == 0).all()
    mixed, without = csoftmax.entropy(x, temperature=[1, 0, 1]), csoftmax.entropy(x)
    without[1] = 0
    np.testing.assert_allclose(mixed, without, rtol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("n", LENGTHS)
def test_temperature_infinity(n, dtype):
    """Uniform over the logits that are not -inf, however far apart they are."""
    largest = float(np.finfo(dtype).max)
    x = row(n, dtype, first=largest, last=-largest)
    x[1:-1:3] = -INF
    right = np.log(np.isfinite(x).sum())
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(csoftmax.entropy(x, temperature=INF), right, rtol=4 * eps)
    both = np.stack([x, np.zeros(n, dtype)], axis=1)
    result = csoftmax.entropy(both, 0, temperature=[INF, 1])
    np.testing.assert_allclose(result, [right, np.log(n)], rtol=4 * eps)


@pytest.mark.parametrize("temperature", [1e-320, 1e-300, 1e-60, 1e-40, 1e40, 1e60, 1e300])
def test_extreme_temperatures(temperature, dtype):
    for copies in (1, 20, 100, 3000):
        x = np.array([1, 3, 2, 3] * copies, dtype)
        right = np.log(2 * copies if temperature < 1 else 4 * copies)
        result = csoftmax.entropy(x, temperature=temperature)
        np.testing.assert_allclose(result, right, rtol=4 * np.finfo(dtype).eps)


def test_huge_logits(dtype):
    """Differences that overflow are no more than far apart."""
    largest = float(np.finfo(dtype).max)
    x = np.array([[largest, -largest, largest, -INF], [-largest, largest, 0, 0]], dtype)
    for arranged, axis in ((x, -1), (x.T, 0), (np.tile(x, 1001), -1)):
        right = np.log(arranged.shape[axis] // 4 * np.array([2, 1]))
        result = csoftmax.entropy(arranged, axis)
        np.testing.assert_allclose(result, right, rtol=4 * np.finfo(dtype).eps)


def test_minus_infinity_beside_finite(dtype):
    """As if the class was not there."""
    for n in LENGTHS:
        x = rows(normal, 4, n, dtype)
        with_others = np.full((4, 2 * n), -INF, dtype)
        with_others[:, ::2] = x
        result, expected = csoftmax.entropy(with_others), csoftmax.entropy(x)
        np.testing.assert_allclose(result, expected, rtol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 0)])
def test_no_class(shape):
    result = csoftmax.entropy(np.empty(shape, np.float32))
    assert result.shape == shape[:-1]
    assert result.dtype == np.float32
    assert (result == 0).all()


def test_no_rows():
    assert csoftmax.entropy(np.empty((0, 5))).shape == (0,)
    assert csoftmax.entropy(np.empty((0, 5)), 0).shape == (5,)
    assert csoftmax.entropy(np.empty((0, 5)), None) == 0


@pytest.mark.parametrize("layout", LAYOUTS_OF_X)
def test_layouts(layout, dtype, limits):
    if layout == "list":
        dtype = np.dtype(np.float64)
    for shape in ((1, 1), (3, 5), (40, 16), (17, 130), (300, 7), (5, 4100)):
        x = rows(normal, *shape, dtype)
        result = csoftmax.entropy(LAYOUTS_OF_X[layout](x))
        assert result.dtype == dtype
        check(result, x, limits)
    same = np.broadcast_to(x[:1], (50, x.shape[1]))
    check(csoftmax.entropy(same), same, limits)


@pytest.mark.parametrize("axis", AXES)
def test_axes_and_temperatures_of_rows(axis, dtype, limits):
    axes = axes_of(axis)
    for shape in ((4, 5, 6), (2, 300, 3), (130, 2, 40), (1, 1, 1)):
        x = rows(normal, 1, math.prod(shape), dtype).reshape(shape)
        row_shape = tuple(n for i, n in enumerate(shape) if i not in axes)
        for size in (row_shape, row_shape[1:], ()):
            temperature = np.random.default_rng(0).uniform(0.3, 5, size=size)
            result = csoftmax.entropy(x, axis, temperature=temperature)
            assert result.shape == row_shape
            temperature = np.broadcast_to(temperature, row_shape).ravel()
            check(np.ravel(result), as_rows(x, axes), limits, temperature)


@each_input_type
def test_types(input_dtype, result_dtype):
    x = np.array([[0, 1, 1, 0, 1]]).astype(input_dtype)
    result = csoftmax.entropy(x)
    assert result.dtype == result_dtype
    np.testing.assert_array_equal(result, csoftmax.entropy(x.astype(result_dtype)))


def test_lists_and_scalars():
    assert isinstance(csoftmax.entropy(np.zeros(3, np.float32)), np.float32)
    result = csoftmax.entropy([0.0, 0.0])
    assert isinstance(result, np.float64)
    np.testing.assert_allclose(result, np.log(2), rtol=1e-15)
    assert csoftmax.entropy([[0, 0], [5, 5]], axis=None).shape == ()
    assert csoftmax.entropy(3.0, axis=None) == 0


@pytest.mark.parametrize(
    "shape", [(64, 1000), (3, 20_001), (9001, 5), (1, 60_003), (241, 199)], ids=str
)
def test_same_bits_for_one_thread_and_two(shape, dtype):
    x = rows(normal, *shape, dtype)
    x[1::2] *= 10
    one, two = bits_by_threads(
        lambda: [
            csoftmax.entropy(x, axis, temperature=temperature)
            for axis in (0, 1) for temperature in (1.0, np.linspace(0.5, 2, shape[1 - axis]))
        ]
    )  # fmt: skip
    assert one == two


def test_input_is_not_changed_and_no_flag_is_left_behind(dtype):
    for shape in ((5, 3), (40, 16), (5, 129), (5, 5000)):
        for x in (garbage(shape, dtype), (1e-3 * garbage(shape, dtype)).clip(-80, 80)):
            before = x.copy()
            with np.errstate(all="raise"):
                for axis in (0, -1, None):
                    for temperature in (1.0, 0.0, 1e-3, 1e30, INF):
                        csoftmax.entropy(x, axis, temperature=temperature)
            np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("side", ["before", "behind"])
@pytest.mark.parametrize("layout", ["contiguous", "side by side", "with gaps"])
def test_nothing_outside_the_input_is_read(layout, side, dtype):
    for count, n in ((1, 1), (1, 17), (1, 4099), (7, 2), (19, 40), (18, 129), (19, 301), (3, 4101)):
        steps = {"contiguous": (n, 1), "side by side": (1, count), "with gaps": (2 * n, 2)}[layout]
        numbers = (count - 1) * steps[0] + (n - 1) * steps[1] + 1
        strides = [step * dtype.itemsize for step in steps]
        with beside_a_forbidden_page(numbers * dtype.itemsize, side) as memory:
            x = np.ndarray((count, n), dtype, memory, strides=strides)
            x[...] = rows(normal, count, n, dtype)
            for temperature in (1.0, 0.7, INF):
                csoftmax.entropy(x, temperature=temperature)
            del x    # before its memory goes


X = np.arange(12.0, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"logits": X.astype(complex)}, TypeError, r"float32 or float64.*got complex128"),
        ({"logits": X.astype(np.longdouble)}, TypeError, r"float32 or float64.*got"),
        ({"logits": 1.0}, np.exceptions.AxisError, "axis"),
        ({"axis": 2}, np.exceptions.AxisError, "axis"), ({"axis": 1.0}, TypeError, "axis"),
        ({"axis": (0, 0)}, ValueError, "axis"),
        ({"temperature": -1.0}, ValueError, "at least 0, got -1.0"),
        ({"temperature": NAN}, ValueError, "at least 0, got nan"),
        ({"temperature": [1.0, 2.0]}, ValueError, r"shape \(2,\) does not broadcast to \(3,\)"),
        ({"temperature": "1"}, TypeError, "real number"),
    ],
)  # fmt: skip
def test_arguments_that_are_refused(arguments, error, message):
    arguments = {"logits": X, "axis": -1} | arguments
    with pytest.raises(error, match=message):
        csoftmax.entropy(arguments.pop("logits"), arguments.pop("axis"), **arguments)
