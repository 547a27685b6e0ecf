"""Gradients through softmax and log_softmax, against longdouble formulas, for every build."""

import contextlib
import itertools
import math

import numpy as np
import pytest

import csoftmax

from .cases import KINDS, LAYOUTS, chunk_of, mixed_rows, normal, rows
from .exact import LONG, Exact, largest_error, well_above_underflow
from .test_edge_cases import beside_a_forbidden_page
from .test_layouts import LAYOUTS as LAYOUTS_OF_ARRAYS
from .test_layouts import every_other
from .test_masks import (
    AXES,
    as_rows,
    axes_of,
    bits,
    bits_by_threads,
    garbage,
    in_fortran_order,
    masks,
    mentioning,
)

INF, NAN = np.inf, np.nan
NOTHING = {"softmax": 0, "log_softmax": -INF}    # the outcome that has no gradient
LENGTHS = [
    1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 48, 63, 64, 65, 100, 127, 129, 300, 1000, 2049, 4096,
    4097, 8193,
]  # fmt: skip
TEMPERATURES = {"1": [1.0], "others": [1.0, 0.5, 2.0, 0.7, 3.3, 0.1, 1e-3, 1e3]}

pytestmark = [
    pytest.mark.usefixtures("build"),
    pytest.mark.filterwarnings("ignore:overflow encountered"),    # of exact results as float32
]
each_name = pytest.mark.parametrize("name", NOTHING)
each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def function_of(name):
    return getattr(csoftmax, f"{name}_vjp")


def outcomes(name, x, where=True, temperature=1.0):
    """What softmax or log_softmax would return, were it exact up to the last rounding."""
    left = np.where(where, x, -INF)
    is_empty = (left == -INF).all(-1)[:, None]
    exact = getattr(Exact(np.where(is_empty, 0, left), temperature), name)
    return np.where(is_empty, NOTHING[name], exact).astype(x.dtype)


# Kinds of gradients with respect to the result.
GRADIENTS = [
    lambda rng, n: rng.normal(size=n),
    lambda rng, n: -1.0 * (np.arange(n) == rng.integers(n)),
    lambda rng, n: np.full(n, rng.normal()),
    lambda rng, n: 1e6 + rng.normal(size=n),
    lambda rng, n: rng.normal(size=n) * 10 ** rng.uniform(-9, 9, size=n),
    lambda rng, n: rng.choice([-1, 1], size=n) + 1e-6 * rng.normal(size=n),
    lambda rng, n: 1e30 * rng.normal(size=n),
    lambda rng, n: 1e-20 * rng.normal(size=n),
    lambda rng, n: np.zeros(n),
]


def gradients(count, n, dtype, seed=0):
    """Of every kind in turn; other lengths begin with other kinds."""
    rng = np.random.default_rng([seed, n])
    turns = [GRADIENTS[(n + i) % len(GRADIENTS)] for i in range(count)]
    return np.array([kind(rng, n) for kind in turns]).astype(dtype)


def exact_gradient(name, grad, y, temperature=1.0):
    """The exact result, and the largest term of each row."""
    counts = y != NOTHING[name]
    y = np.where(counts, y, 0).astype(LONG)
    grad = np.where(counts, grad, 0).astype(LONG)
    temperature = np.asarray(temperature, LONG).reshape(-1, 1)
    if name == "softmax":
        of_grad = y * grad
        of_sum = y * of_grad.sum(-1, keepdims=True)
        result = y * (grad - of_grad.sum(-1, keepdims=True))
    else:
        of_grad = grad
        of_sum = np.where(counts, np.exp(y), 0) * grad.sum(-1, keepdims=True)
        result = of_grad - of_sum
    terms = np.maximum(np.abs(of_grad), np.abs(of_sum)) / temperature
    return result / temperature, terms.max(-1)


def check(name, result, grad, y, limits, temperature=1.0):
    """Gradients of rows against the contract."""
    dtype, n = result.dtype, result.shape[-1]
    exact, scale = exact_gradient(name, grad, y, temperature)
    assert (result[y == NOTHING[name]] == 0).all()
    smallest = scale * np.minimum(temperature, 1)
    kept = well_above_underflow(smallest, n, dtype) & (scale < float(np.finfo(dtype).max))
    assert np.isfinite(result[kept]).all()
    scale = np.broadcast_to(scale[:, None], exact.shape)
    assert largest_error(result[kept], exact[kept], dtype, scale[kept]) <= limits["gradient"]


@each_name
@each_layout
@pytest.mark.parametrize("temperatures", TEMPERATURES)
def test_against_the_formula(name, layout, temperatures, dtype, limits):
    """Outcomes of rows of every kind, some with masks; gradients of every kind."""
    for n in LENGTHS:
        count = max(5, min(18, 6000 // n))
        temperature = np.random.default_rng(n).choice(TEMPERATURES[temperatures], size=count)
        where = masks(count, n) | (np.arange(count) % 2 == 0)[:, None]
        y = outcomes(name, mixed_rows(KINDS, count, n, dtype), where, temperature)
        grad = gradients(count, n, dtype)
        (arranged, axis), (arranged_grad, _) = layout(y), layout(grad)
        result = function_of(name)(
            arranged_grad, arranged, axis, temperature=temperature, out=np.full_like(arranged, NAN)
        )
        check(name, np.moveaxis(result, axis, -1), grad, y, limits, temperature)


@each_name
@each_layout
def test_numbers_of_rows(name, layout, dtype, limits):
    """Rows fill lanes and batches, or are one more or less."""
    for n in (1, 5, 40, 129):
        for count in (1, 3, 8, 15, 16, 17, 127, 128, 129):
            y = outcomes(name, mixed_rows(KINDS, count, n, dtype))
            grad = gradients(count, n, dtype, seed=count)
            (arranged, axis), (arranged_grad, _) = layout(y), layout(grad)
            result = function_of(name)(arranged_grad, arranged, axis)
            check(name, np.moveaxis(result, axis, -1), grad, y, limits)


@each_name
def test_long_rows(name, dtype, limits):
    """Also with an offset that most of the digits go to."""
    x = rows(normal, 4, 100_003, dtype)
    x[3] *= 20
    y = outcomes(name, x)
    noise = np.random.default_rng(0).normal(size=x.shape)
    grad = (noise + np.array([[0], [100], [1e6], [1e6]])).astype(dtype)
    check(name, function_of(name)(grad, y), grad, y, limits)


def test_equal_gradients_cancel(dtype):
    """As probabilities sum to 1, what is added to all gradients makes no difference."""
    y = np.full((3, 64), 1 / 64, dtype)
    grad = np.full_like(y, 1e6)
    assert (csoftmax.softmax_vjp(grad, y) == 0).all()
    grad[:, 3] += 64
    right = np.where(np.arange(64) == 3, 1 - 1 / 64, -1 / 64)
    np.testing.assert_array_equal(csoftmax.softmax_vjp(grad, y), np.tile(right, (3, 1)))


@each_name
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_against_finite_differences(name, temperature):
    """Of the exact function, masked; a masked logit changes nothing."""
    x = rows(normal, 30, 7, np.float64)
    where = masks(30, 7)
    grad = np.random.default_rng(1).normal(size=x.shape)
    y = getattr(csoftmax, name)(x, temperature=temperature, where=where)
    result = function_of(name)(grad, y, temperature=temperature)
    kept = where.any(-1)
    step = LONG(2) ** -20

    def total(x):
        outcome = getattr(Exact(np.where(where, x, -INF)[kept], temperature), name)
        return (grad[kept] * np.where(where[kept], outcome, 0)).sum(-1)

    for column in range(x.shape[1]):
        up, down = x.astype(LONG), x.astype(LONG)
        up[:, column] += step
        down[:, column] -= step
        slope = (total(up) - total(down)) / (2 * step)
        np.testing.assert_allclose(
            result[kept, column], slope.astype(float), rtol=1e-8, atol=1e-11
        )
    assert (result[~where] == 0).all()


@each_name
@pytest.mark.parametrize("layout", LAYOUTS_OF_ARRAYS)
def test_layouts(name, layout, dtype, limits):
    """Of both arrays, and of each beside a contiguous one."""
    arrange = LAYOUTS_OF_ARRAYS[layout]
    if layout == "list":
        dtype = np.dtype(np.float64)
    for shape in ((1, 1), (3, 5), (17, 130), (130, 7), (2, 4200)):
        y = outcomes(name, rows(normal, *shape, dtype), masks(*shape))
        grad = gradients(*shape, dtype)
        for one, other in ((arrange, arrange), (arrange, np.copy), (np.copy, arrange)):
            result = function_of(name)(one(grad), other(y))
            assert result.dtype == dtype
            check(name, result, grad, y, limits)


@each_name
def test_broadcast_inputs(name, dtype, limits):
    """Of stride 0, such as the gradient of a sum."""
    y = outcomes(name, rows(normal, 20, 130, dtype))
    for grad in (np.ones((1, 1), dtype), gradients(1, 130, dtype), gradients(20, 1, dtype)):
        grad = np.broadcast_to(grad, y.shape)
        check(name, function_of(name)(grad, y), grad, y, limits)
    y = np.broadcast_to(y[:1], y.shape)
    check(name, function_of(name)(grad, y), grad, y, limits)


@each_name
@pytest.mark.parametrize("axis", AXES)
def test_axes(name, axis, dtype, limits):
    axes = axes_of(axis)
    for shape in ((4, 5, 6), (2, 300, 3), (130, 2, 40), (1, 1, 1)):
        x = rows(normal, 1, math.prod(shape), dtype).reshape(shape)
        y = getattr(csoftmax, name)(x, axis)
        grad = gradients(1, math.prod(shape), dtype, seed=len(axes)).reshape(shape)
        row_shape = [n for i, n in enumerate(shape) if i not in axes]
        temperature = np.random.default_rng(0).uniform(0.1, 5, size=row_shape)
        for arrange in (np.copy, in_fortran_order):
            result = function_of(name)(arrange(grad), arrange(y), axis, temperature=temperature)
            assert result.shape == shape
            in_rows = (as_rows(array, axes) for array in (result, grad, y))
            check(name, *in_rows, limits, temperature.ravel())


@each_name
@pytest.mark.parametrize("axis", [-1, 0, None])
def test_out(name, axis, dtype):
    """Also in the place of the gradient, and of the outcome."""
    function = function_of(name)
    for shape in ((7,), (3, 5), (20, 127), (20, 300), (3, 5000), (2, 9000)):
        x = rows(normal, 1, int(np.prod(shape)), dtype).reshape(shape)
        y = getattr(csoftmax, name)(x, axis)
        grad = np.random.default_rng(1).normal(size=shape).astype(dtype)
        expected = function(grad, y, axis)
        # Twice the limit, as another layout has another order of the sum.
        tolerance = 8 * np.finfo(dtype).eps * (np.abs(grad).max() + np.abs(grad.sum(axis)).max())
        for arrange in (np.copy, in_fortran_order, every_other):
            out, in_grad, in_y = arrange(np.full_like(grad, 7)), arrange(grad), arrange(y)
            assert function(grad, y, axis, out=out) is out
            assert function(in_grad, y, axis, out=in_grad) is in_grad
            assert function(grad, in_y, axis, out=in_y) is in_y
            for result in (out, in_grad, in_y):
                np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance)
        of_itself = function(y, y, axis)
        in_both = y.copy()
        function(in_both, in_both, axis, out=in_both)
        np.testing.assert_array_equal(in_both, of_itself)
        for out_dtype in (np.float16, np.float32, np.float64):
            out = np.full(shape, 7, out_dtype)
            function(grad, y, axis, out=out)
            with np.errstate(all="ignore"):
                np.testing.assert_array_equal(out, expected.astype(out_dtype))


@each_name
@pytest.mark.parametrize("shift", [-299, -3, -1, 1, 100])
@pytest.mark.parametrize("overlapped", ["grad", "y", "both"])
def test_out_that_overlaps_in_part(name, shift, overlapped, dtype):
    y = outcomes(name, rows(normal, 5, 300, dtype))
    grad = y[::-1].copy() if overlapped == "both" else gradients(5, 300, dtype)
    memory = np.zeros(1500 + abs(shift), dtype)
    start, end = max(-shift, 0), max(shift, 0)
    inside = memory[start : start + 1500].reshape(5, 300)
    inside[:] = grad if overlapped == "grad" else y
    operands = {
        "grad": (inside, y), "y": (grad, inside), "both": (inside[::-1], inside)
    }[overlapped]  # fmt: skip
    expected = function_of(name)(*(operand.copy() for operand in operands))
    out = memory[end : end + 1500].reshape(5, 300)
    function_of(name)(*operands, out=out)
    np.testing.assert_array_equal(out, expected)


@each_name
@each_layout
@pytest.mark.parametrize("n", [1, 5, 17, 64, 65, 129, 300, 4097])
def test_what_is_masked_changes_no_bit(name, n, layout, dtype):
    """Neither the logit under the mask nor its gradient; also not in rows that are NaN."""
    count = 20 if n < 1000 else 5
    where = masks(count, n)
    x, grad = rows(normal, count, n, dtype), gradients(count, n, dtype)
    x[2, where[2].argmax()] = NAN
    rubbish = garbage(x.shape, dtype)
    temperature = np.resize([1.0, 0.0, 0.3, INF], count)
    for temperatures in (1.0, temperature):
        expected = None
        for value in (0, NAN, INF, rubbish):
            logits, axis = layout(np.where(where, x, value).astype(dtype))
            y = getattr(csoftmax, name)(logits, axis, where=layout(where)[0])
            outer, _ = layout(np.where(where, grad, value).astype(dtype))
            result = function_of(name)(outer, y, axis, temperature=temperatures)
            assert (np.moveaxis(result, axis, -1)[~where] == 0).all()
            expected = expected or bits(result)
            assert bits(result) == expected


@each_name
@each_layout
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_nan_and_infinity_stay_in_their_row(name, layout, value, dtype):
    """What has no probability has the gradient 0 even there."""
    for n in (2, 17, 65, 129, 300, 4097):
        where = np.arange(n) % 3 != 1
        y = outcomes(name, rows(normal, 9, n, dtype), where)
        grad = np.random.default_rng(n).normal(size=y.shape).astype(dtype)
        arranged, axis = layout(y)
        expected = np.moveaxis(function_of(name)(layout(grad)[0], arranged, axis), axis, -1)
        grad[1::3, 0] = value
        result = np.moveaxis(function_of(name)(layout(grad)[0], arranged, axis), axis, -1)
        for others in (np.s_[::3], np.s_[2::3]):
            np.testing.assert_array_equal(result[others], expected[others])
        assert (result[1::3, ~where] == 0).all()
        assert np.isnan(result[1::3, 0]).all()
        assert np.isnan(value) <= np.isnan(result[1::3, where]).all()


@each_name
@pytest.mark.parametrize("n", [2, 17, 64, 65, 300, 4096, 9000])
def test_rows_without_an_outcome(name, n, dtype):
    """Where softmax is NaN the gradient is NaN; where everything is masked it is 0."""
    x = np.full((3, n), -INF, dtype)
    where = np.ones((3, n), bool)
    where[1] = False
    where[2, 1:] = False
    y = getattr(csoftmax, name)(x, where=where)
    result = function_of(name)(np.ones_like(x), y)
    assert np.isnan(result[0]).all()
    assert (result[1] == 0).all()
    assert np.isnan(result[2, 0])
    assert (result[2, 1:] == 0).all()


def test_temperature_infinity(dtype):
    for n in (1, 5, 64, 300, 9000):
        grad = gradients(9, n, dtype)
        for name in NOTHING:
            y = getattr(csoftmax, name)(rows(normal, 9, n, dtype), temperature=INF)
            assert (function_of(name)(grad, y, temperature=INF) == 0).all()
            assert (function_of(name)(grad.T, y.T, 0, temperature=[INF] * 9) == 0).all()


@pytest.mark.parametrize("copies", [1, 5, 16, 40, 200, 3000])
def test_temperature_0(copies, dtype):
    """What is not 0 without the temperature is infinite."""
    y = np.array([0.5, 0.25, 0.25, 0] * copies, dtype) / copies
    grad = np.array([2, 1, -5, NAN] * copies, dtype)
    right = np.array([INF, INF, -INF, 0] * copies)
    np.testing.assert_array_equal(csoftmax.softmax_vjp(grad, y, temperature=0), right)
    columns = csoftmax.softmax_vjp(
        np.tile(grad, (3, 1)).T, np.tile(y, (3, 1)).T, 0, temperature=[0, 1, 0]
    )
    np.testing.assert_array_equal(columns[:, ::2], np.tile(right, (2, 1)).T)
    assert np.isfinite(columns[:, 1]).all()
    log_y = np.log(y, where=y > 0, out=np.full_like(y, -INF))
    right = np.array([INF, INF, -INF, 0] * copies)    # of 2 + 1, 1 + 0.5, -5 + 0.5
    result = csoftmax.log_softmax_vjp(grad, log_y, temperature=0)
    np.testing.assert_array_equal(result, right)


@each_name
def test_temperature_0_of_its_own_outcome(name, dtype):
    """Of an outcome that is one-hot nothing is left to be divided."""
    for n in (1, 5, 64, 300, 9000):
        y = getattr(csoftmax, name)(rows(normal, 9, n, dtype), temperature=0)
        result = function_of(name)(gradients(9, n, dtype), y, temperature=0)
        assert (result == 0).all()


@each_name
@pytest.mark.parametrize("temperature", [1e-310, 1e-300, 1e-40, 1e-37, 1e37, 1e40, 1e300])
def test_extreme_temperatures(name, temperature, dtype, limits):
    """Where gradients are as extreme the result is ordinary, also if 1 / T is no normal number."""
    size = np.clip(temperature, *((1e-30, 1e30) if dtype == np.float32 else (1e-290, 1e290)))
    for n, layout in itertools.product((4, 80, 400, 5000), LAYOUTS):
        y = outcomes(name, rows(normal, 4, n, dtype))
        grad = (size * np.random.default_rng(0).normal(size=y.shape)).astype(dtype)
        arranged, axis = layout(y)
        result = function_of(name)(layout(grad)[0], arranged, axis, temperature=temperature)
        result = np.moveaxis(result, axis, -1)
        exact, scale = exact_gradient(name, grad, y, temperature)
        kept = well_above_underflow(scale, n, dtype) & (scale < float(np.finfo(dtype).max))
        scale = np.broadcast_to(scale[:, None], exact.shape)
        assert largest_error(result[kept], exact[kept], dtype, scale[kept]) <= limits["gradient"]


@each_name
def test_temperatures_that_broadcast(name, dtype, limits):
    y, grad = outcomes(name, rows(normal, 24, 50, dtype)), gradients(24, 50, dtype)
    operands = grad.reshape(6, 4, 50), y.reshape(6, 4, 50)
    for temperature in (2, [0.5, 1, 3, 4], [[2]], np.arange(1.0, 7)[:, None]):
        result = function_of(name)(*operands, temperature=temperature).reshape(y.shape)
        check(name, result, grad, y, limits, np.broadcast_to(temperature, (6, 4)).ravel())


@each_name
@pytest.mark.parametrize(
    ("types", "result_dtype"),
    [(("float32", "float32"), "float32"), (("float16", "float32"), "float32"),
     (("int8", "float16"), "float32"), (("float32", "float64"), "float64"),
     (("float64", "float32"), "float64"), (("int32", "float32"), "float64"),
     (("float32", "int64"), "float64"), ((">f4", ">f8"), "float64"), (("bool", ">f4"), "float32")],
)  # fmt: skip
def test_types(name, types, result_dtype):
    grad = np.array([[0, 1, 1, 0, 1]] * 3).astype(types[0])
    y = np.array([[1, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]).astype(types[1])
    result = function_of(name)(grad, y)
    assert result.dtype == result_dtype
    expected = function_of(name)(grad.astype(result_dtype), y.astype(result_dtype))
    np.testing.assert_array_equal(result, expected)
    out = np.empty(y.shape, np.float32)
    assert function_of(name)(grad, y, out=out) is out
    np.testing.assert_array_equal(out, expected.astype(np.float32))


def test_lists_and_scalars():
    result = csoftmax.softmax_vjp([1, 0], [0.5, 0.5])
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result, [0.25, -0.25])
    assert csoftmax.softmax_vjp([1.0, 0.0], np.float32([0.5, 0.5])).dtype == np.float64
    assert csoftmax.softmax_vjp(2.0, 1.0, axis=None) == 0
    assert csoftmax.log_softmax_vjp(2.0, 0.0, axis=None) == 0


@each_name
@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 0), (0, 5)])
def test_empty(name, shape):
    empty = np.empty(shape, np.float32)
    for axis in (0, -1, None):
        result = function_of(name)(empty, empty, axis)
        assert result.shape == shape
        assert result.dtype == np.float32


@each_name
@pytest.mark.parametrize(
    "shape", [(64, 1000), (3, 20_001), (9001, 5), (1, 60_003), (241, 199)], ids=str
)
def test_same_bits_for_one_thread_and_two(name, shape, dtype):
    y = getattr(csoftmax, name)(rows(normal, *shape, dtype))
    grad = np.random.default_rng(0).normal(size=shape).astype(dtype)
    y[::3, ::2] = NOTHING[name]

    def results():
        for axis in (0, -1):
            temperature = np.linspace(0.5, 2, y.size // y.shape[axis])
            yield function_of(name)(grad, y, axis, temperature=temperature)
        yield function_of(name)(in_fortran_order(grad), y)

    one, two = bits_by_threads(results)
    assert one == two


@each_name
def test_inputs_are_not_changed_and_no_flag_is_left_behind(name, dtype):
    for shape in ((5, 3), (40, 16), (5, 129), (5, 5000)):
        grad, y = garbage(shape, dtype), outcomes(name, rows(normal, *shape, dtype))
        y[0] = garbage(shape[1], dtype)
        copies = grad.copy(), y.copy()
        with np.errstate(all="raise"):
            for axis in (0, -1, None):
                for temperature in (1.0, 0.0, 1e-3, 1e30, INF):
                    function_of(name)(grad, y, axis, temperature=temperature)
                function_of(name)(grad, y, axis, out=np.empty(shape, np.float16))
        np.testing.assert_array_equal(grad, copies[0])
        np.testing.assert_array_equal(y, copies[1])


@each_name
@pytest.mark.parametrize("side", ["before", "behind"])
@pytest.mark.parametrize("layout", ["contiguous", "side by side", "with gaps"])
def test_nothing_outside_inputs_and_output_is_touched(name, layout, side, dtype):
    for count, n in ((1, 17), (7, 2), (19, 40), (18, 129), (19, 301), (3, 4101)):
        steps = {"contiguous": (n, 1), "side by side": (1, count), "with gaps": (2 * n, 2)}[layout]
        numbers = (count - 1) * steps[0] + (n - 1) * steps[1] + 1
        strides = [step * dtype.itemsize for step in steps]
        with contextlib.ExitStack() as stack:
            pages = [
                stack.enter_context(beside_a_forbidden_page(numbers * dtype.itemsize, side))
                for _ in range(3)
            ]
            grad, y, out = (np.ndarray((count, n), dtype, page, 0, strides) for page in pages)
            y[...] = outcomes(name, rows(normal, count, n, dtype))
            grad[...] = gradients(count, n, dtype)
            for temperature in (1.0, np.linspace(0.5, 2, count)):
                function_of(name)(grad, y, temperature=temperature, out=out)
            del grad, y, out    # before their memory goes


def terms_of_jacobian(y, temperature):
    """The exact Jacobian of rows, and the larger term of each entry."""
    y = y.astype(LONG)
    temperature = np.asarray(temperature, LONG)[..., None, None]
    diagonal = np.eye(y.shape[-1]) * y[..., None]
    products = y[..., None] * y[..., None, :]
    entries = np.where(diagonal == 0, -products, y[..., None] * (1 - y[..., None, :]))
    return entries / temperature, np.maximum(diagonal, products) / temperature


@pytest.mark.parametrize("shape", [(1,), (2,), (5,), (4, 7), (2, 3, 5), (3, 16), (2, 65), (1, 200)])
@pytest.mark.parametrize("axis", [0, -1, 1])
def test_jacobian(shape, axis, dtype, limits):
    if axis == 1 and len(shape) == 1:
        axis = -1
    x = rows(normal, 1, int(np.prod(shape)), dtype).reshape(shape)
    y = csoftmax.softmax(x, axis)
    y[..., :1] = 0
    as_rows = np.moveaxis(y, axis, -1)
    for temperature in (1.0, 0.7, np.random.default_rng(0).uniform(0.1, 5, as_rows.shape[:-1])):
        result = csoftmax.softmax_jacobian(y, axis, temperature=temperature)
        assert result.shape == (*as_rows.shape, shape[axis])
        assert result.dtype == dtype
        temperature = np.broadcast_to(temperature, as_rows.shape[:-1])
        exact, terms = terms_of_jacobian(as_rows, temperature)
        kept = well_above_underflow(terms * min(1, temperature.min()), 1, dtype)
        assert (result[terms == 0] == 0).all()
        error = largest_error(result[kept], exact[kept], dtype, terms[kept])
        assert error <= limits["gradient"]


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_a_gradient_times_the_jacobian(temperature, dtype, limits):
    y = csoftmax.softmax(rows(normal, 20, 30, dtype), temperature=temperature, where=masks(20, 30))
    grad = np.random.default_rng(0).normal(size=y.shape).astype(dtype)
    jacobian = csoftmax.softmax_jacobian(y, temperature=temperature).astype(LONG)
    product = (grad.astype(LONG)[:, None] @ jacobian)[:, 0]
    result = csoftmax.softmax_vjp(grad, y, temperature=temperature)
    _, terms = terms_of_jacobian(y, np.full(20, temperature))
    scale = np.abs(grad.astype(LONG))[:, None] @ terms
    error = np.abs(result - product) / np.finfo(dtype).eps
    limit = 2 * limits["gradient"]    # of both functions
    assert (error <= limit * scale[:, 0].max(-1, keepdims=True)).all()


def test_jacobian_at_the_edges(dtype):
    y = np.array([[0, 1, 0], [0.25, 0.5, 0.25]], dtype)
    assert (csoftmax.softmax_jacobian(y, temperature=INF) == 0).all()
    assert (csoftmax.softmax_jacobian(y[:1], temperature=0) == 0).all()
    expected = np.array([[3, -2, -1], [-2, 4, -2], [-1, -2, 3]]) / 16
    np.testing.assert_array_equal(csoftmax.softmax_jacobian(y)[1], expected)
    np.testing.assert_array_equal(csoftmax.softmax_jacobian(y, temperature=0.5)[1], 2 * expected)
    assert csoftmax.softmax_jacobian(y[:, :0]).shape == (2, 0, 0)
    assert csoftmax.softmax_jacobian(y[:0]).shape == (0, 3, 3)
    assert csoftmax.softmax_jacobian(y.astype(np.float16)).dtype == np.float32
    assert csoftmax.softmax_jacobian([0, 1]).dtype == np.float64


X = np.full((3, 4), 0.25, np.float32)


@each_name
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"grad": X[:, :1]}, ValueError, mentioning((3, 1), (3, 4))),
        ({"grad": X[0]}, ValueError, mentioning((4,), (3, 4))),
        ({"grad": X.T}, ValueError, mentioning((4, 3), (3, 4))),
        ({"grad": 1.0}, ValueError, mentioning((), (3, 4))),
        ({"y": X[None]}, ValueError, mentioning((3, 4), (1, 3, 4))),
        ({"grad": X.astype(complex)}, TypeError, r"float32 or float64.*got complex128"),
        ({"y": X.astype(np.longdouble)}, TypeError, r"float32 or float64.*got"),
        ({"grad": X.astype(object)}, TypeError, r"float32 or float64.*got object"),
        ({"axis": 2}, np.exceptions.AxisError, "axis"), ({"axis": 1.0}, TypeError, "axis"),
        ({"axis": (0, 0)}, ValueError, "axis"),
        ({"temperature": -1.0}, ValueError, "at least 0, got -1.0"),
        ({"temperature": NAN}, ValueError, "at least 0, got nan"),
        ({"temperature": [1.0, 2.0]}, ValueError, mentioning((2,), (3,))),
        ({"temperature": "1"}, TypeError, "real number"),
    ],
)  # fmt: skip
def test_arguments_that_are_refused(name, arguments, error, message):
    """Before anything is written."""
    arguments = {"grad": X, "y": X, "axis": -1} | arguments
    operands = [arguments.pop(key) for key in ("grad", "y", "axis")]
    out = np.full(X.shape, 7, np.float32)
    with pytest.raises(error, match=message):
        function_of(name)(*operands, out=out, **arguments)
    assert (out == 7).all()


@each_name
def test_out_that_is_refused(name):
    for out, error, message in (
        (np.empty((4, 3)), ValueError, r"shape \(3, 4\), got \(4, 3\)"),
        (np.empty((3, 4), int), TypeError, "floating-point, got int64"),
        ([[0.0] * 4] * 3, TypeError, "NumPy array, got list"),
        (np.broadcast_to(np.float32(0), (3, 4)), ValueError, "read-only"),
    ):
        with pytest.raises(error, match=message):
            function_of(name)(X, X, out=out)
    with pytest.raises(np.exceptions.AxisError):
        function_of(name)(1.0, 1.0)


@pytest.mark.parametrize(
    ("y", "axis", "error"),
    [(X, None, TypeError), (X, (0, 1), TypeError), (X, 2, np.exceptions.AxisError),
     (0.5, -1, np.exceptions.AxisError), (X.astype(complex), -1, TypeError)],
)  # fmt: skip
def test_jacobians_that_are_refused(y, axis, error):
    with pytest.raises(error, match=r"axis|float32 or float64"):
        csoftmax.softmax_jacobian(y, axis)
    with pytest.raises(ValueError, match="at least 0"):
        csoftmax.softmax_jacobian(X, temperature=-1.0)


def test_chunks_that_are_masked_as_a_whole(dtype, limits):
    chunk = chunk_of(dtype)
    x = rows(normal, 8, 3 * chunk + 1, dtype)
    kept = (np.arange(8)[:, None] >> np.arange(3)) & 1 == 1
    where = np.append(np.repeat(kept, chunk, axis=1), np.ones((8, 1), bool), axis=1)
    for name in NOTHING:
        y = outcomes(name, x, where)
        grad = np.where(where, gradients(*x.shape, dtype), NAN)
        check(name, function_of(name)(grad, y), grad, y, limits)
