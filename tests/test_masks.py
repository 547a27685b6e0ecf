"""`where`: exact results of what is left, and nothing of what is left out, for every build."""

import contextlib
import math
import re

import numpy as np
import pytest

import csoftmax

from .cases import KINDS, LAYOUTS, each_input_type, mixed_rows, normal, rows
from .exact import LONG, Exact, largest_error, well_above_underflow
from .test_accuracy import check_log_probabilities
from .test_edge_cases import beside_a_forbidden_page
from .test_layouts import LAYOUTS as LAYOUTS_OF_X
from .test_layouts import every_other, read_only

INF, NAN = np.inf, np.nan
ROWWISE = {"softmax": 0, "log_softmax": -INF}    # and what stands where something is left out
LENGTHS = [
    1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 100, 127, 129, 255, 300, 1000, 4095,
    4096, 4097, 5000, 8193,
]  # fmt: skip
SHARES = [0, 0.03, 0.5, 0.95, 1]    # of a row's numbers that are left out
TEMPERATURES = {"1": [1.0], "others": [1.0, 0.5, 2.0, 0.7, 3.3, 1e-3, 1e3]}
EXTREME_TEMPERATURES = [1.0, 0.0, 0.3, INF, 7.0]

pytestmark = [
    pytest.mark.usefixtures("build"),
    pytest.mark.filterwarnings("ignore:overflow encountered"),    # of exact results as float32
]
each_layout = pytest.mark.parametrize("layout", LAYOUTS)
each_name = pytest.mark.parametrize("name", ROWWISE)


def masks(count, n, seed=0):
    """Rows of which nothing, little, half, most and all is left out, in turn."""
    rng = np.random.default_rng([seed, n])
    return rng.random((count, n)) >= np.resize(SHARES, count)[:, None]


def garbage(shape, dtype):
    """What may stand where nothing is read."""
    largest = float(np.finfo(dtype).max)
    values = [NAN, INF, -INF, largest, -largest, 1e-40, 0, 1e5]
    return np.random.default_rng(0).choice(values, size=shape).astype(dtype)


def results_of(x, where, axis=-1, temperature=1.0):
    """What every function makes of x, with the axis moved to the end."""
    keywords = {"axis": axis, "temperature": temperature, "where": where}
    results = {}
    for name in ROWWISE:
        result = getattr(csoftmax, name)(x, out=np.full_like(x, NAN), **keywords)
        results[name] = np.moveaxis(result, axis, -1)
    if np.all(temperature == 1):
        results["logsumexp"] = csoftmax.logsumexp(x, axis, where=where)
    return results


def check_special(results, left, where):
    """What is left out, rows without a softmax; which rows have one. `left` has -inf elsewhere."""
    maximum = left.max(-1)
    ordinary = np.isfinite(maximum)
    is_nan = where & ~ordinary[:, None]
    for name, left_out in ROWWISE.items():
        assert (results[name][~where] == left_out).all(), name
        np.testing.assert_array_equal(np.isnan(results[name]), is_nan, name)
    if "logsumexp" in results:
        np.testing.assert_array_equal(results["logsumexp"][~ordinary], maximum[~ordinary])
    return ordinary


def check(results, x, where, limits, temperature=1.0):
    """Results of rows against the contract."""
    dtype, n = x.dtype, x.shape[-1]
    left = np.where(where, x, -INF)
    kept = check_special(results, left, where)
    if not kept.any():
        return
    left, results = left[kept], {name: result[kept] for name, result in results.items()}
    temperature = np.broadcast_to(temperature, len(x))[kept]
    exact = Exact(left, temperature)
    with_temperature = "" if (temperature == 1).all() else " with temperature"
    limit = limits["softmax" + with_temperature]
    assert largest_error(results["softmax"], exact.softmax, dtype) <= limit
    if with_temperature:
        right = exact.log_softmax
        in_range = np.abs(right) <= float(np.finfo(dtype).max)
        in_range &= well_above_underflow(right, n, dtype)
        error = largest_error(results["log_softmax"][in_range], right[in_range], dtype)
        assert error <= limits["log with temperature"]
    else:
        check_log_probabilities(
            results["log_softmax"], exact.log_softmax, left, exact.logsumexp[:, None], n, dtype,
            limits,
        )  # fmt: skip
    if "logsumexp" in results:
        largest_term = np.maximum(np.abs(exact.maximum), exact.log_sum)
        error = largest_error(results["logsumexp"], exact.logsumexp, dtype, largest_term)
        assert error <= limits["log"]


def bits(result):
    """The sign of zeros included, but not that of NaN, which says nothing."""
    return np.where(np.isnan(result), np.nan, result).tobytes()


def bits_by_threads(call):
    """The bits of the arrays that `call` returns, with one thread and with two."""
    both = []
    for threads in (1, 2):
        csoftmax._dispatch.kernels.set_thread_limit(threads)
        both.append([bits(result) for result in call()])
    return both


@each_layout
@pytest.mark.parametrize("temperatures", TEMPERATURES)
def test_lengths(layout, temperatures, dtype, limits):
    """Rows of every kind; also most of their maxima are left out."""
    for n in LENGTHS:
        count = max(5, min(20, 9000 // n))
        x, where = mixed_rows(KINDS, count, n, dtype), masks(count, n)
        temperature = np.random.default_rng(n).choice(TEMPERATURES[temperatures], size=count)
        arranged, axis = layout(x)
        results = results_of(arranged, layout(where)[0], axis, temperature)
        check(results, x, where, limits, temperature)


@each_layout
def test_numbers_of_rows(layout, dtype, limits):
    """Rows fill lanes and batches, or are one more or less."""
    for n in (1, 5, 40, 64, 129):
        for count in (1, 2, 3, 8, 15, 16, 17, 127, 128, 129):
            x, where = mixed_rows(KINDS, count, n, dtype), masks(count, n, seed=count)
            arranged, axis = layout(x)
            check(results_of(arranged, layout(where)[0], axis), x, where, limits)


@each_layout
def test_a_single_number_is_left(layout, dtype, limits):
    """In every place of the row."""
    for n in (1, 2, 16, 17, 65, 130):
        where = np.eye(n, dtype=bool)
        x = np.where(where, mixed_rows([normal], n, n, dtype), garbage((n, n), dtype))
        arranged, axis = layout(x)
        results = results_of(arranged, layout(where)[0], axis)
        check(results, x, where, limits)
        assert (results["log_softmax"][where] == 0).all()


@each_layout
@pytest.mark.parametrize("n", [300, 9000])
def test_a_window_is_left(n, layout, dtype, limits):
    """Whole blocks and chunks are left out, before or behind; what is there is larger."""
    borders = [0, 1, 15, 16, 64, 65, 128, 299, 2048, 4096, 4097, 8192, 8999, n]
    borders = [border for border in borders if border <= n]
    bounds = np.array([(a, b) for a in borders for b in borders if a < b])
    bounds = bounds[:: 1 if n == 300 else 4]
    places = np.arange(n)
    where = (places >= bounds[:, :1]) & (places < bounds[:, 1:])
    x = rows(normal, len(where), n, dtype) + np.where(where, 0, dtype.type(1000))
    arranged, axis = layout(x)
    check(results_of(arranged, layout(where)[0], axis), x, where, limits)


# The same mask, or one like it, as it may lie in memory.
LAYOUTS_OF_MASKS = {
    "contiguous": np.copy,
    "Fortran order": np.asfortranarray,
    "read-only": read_only,
    "every other": every_other,
    "backwards": LAYOUTS_OF_X["backwards"],
    "rows backwards": LAYOUTS_OF_X["rows backwards"],
    "part of a larger one": lambda mask: np.pad(mask, 3)[3:-3, 3:-3],
    "nested lists": lambda mask: mask.tolist(),
    "one row for all, stride 0": lambda mask: np.broadcast_to(mask[-1], mask.shape),
    "one column for all, stride 0": lambda mask: np.broadcast_to(mask[:, :1], mask.shape),
    "shape (n,)": lambda mask: mask[-1],
    "shape (1, n)": lambda mask: mask[-1:],
    "shape (rows, 1)": lambda mask: mask[:, :1],
    "shape (1, 1)": lambda mask: mask[:1, :1],
    "shape ()": lambda mask: np.array(True),
    "True": lambda mask: True,
    "False": lambda mask: np.False_,
}


@pytest.mark.parametrize("layout_of_mask", LAYOUTS_OF_MASKS)
@pytest.mark.parametrize("arrange", [np.copy, np.asfortranarray], ids=["C", "Fortran"])
def test_layouts_of_masks(layout_of_mask, arrange, dtype, limits):
    for shape in ((1, 1), (3, 5), (17, 130), (130, 7), (2, 4200)):
        x = mixed_rows(KINDS, *shape, dtype)
        where = LAYOUTS_OF_MASKS[layout_of_mask](masks(*shape))
        check(results_of(arrange(x), where), x, np.broadcast_to(where, shape), limits)


@pytest.mark.parametrize("layout", LAYOUTS_OF_X)
def test_layouts_of_logits(layout, dtype, limits):
    if layout == "list":
        dtype = np.dtype(np.float64)
    for shape in ((1, 1), (3, 5), (17, 130), (300, 7), (5, 4100)):
        x, where = rows(normal, *shape, dtype), masks(*shape)
        arranged = LAYOUTS_OF_X[layout](x)
        results = {
            name: getattr(csoftmax, name)(arranged, where=where) for name in (*ROWWISE, "logsumexp")
        }
        check(results, x, where, limits)


AXES = [0, 1, -1, (0, 1), (2, 0), (1,), (0, 1, 2), None]    # of three


def axes_of(axis):
    return sorted({0, 1, 2} if axis is None else {int(i) % 3 for i in np.atleast_1d(axis)})


def as_rows(x, axes):
    """The rows of a 3-d array along these axes."""
    others = [i for i in range(3) if i not in axes]
    return x.transpose(*others, *axes).reshape(-1, math.prod(x.shape[i] for i in axes))


@pytest.mark.parametrize("axis", AXES)
def test_axes(axis, dtype, limits):
    axes = axes_of(axis)
    for shape in ((4, 5, 6), (2, 300, 3), (130, 2, 40), (1, 1, 1)):
        x = rows(normal, 1, math.prod(shape), dtype).reshape(shape)
        for shape_of_mask in (shape, (1, *shape[1:]), shape[1:], shape[2:], (*shape[:2], 1)):
            where = masks(5, math.prod(shape_of_mask))[2].reshape(shape_of_mask)
            results = {
                name: as_rows(getattr(csoftmax, name)(x, axis, where=where), axes)
                for name in ROWWISE
            }
            logsumexp = csoftmax.logsumexp(x, axis, where=where)
            assert logsumexp.shape == tuple(n for i, n in enumerate(shape) if i not in axes)
            results["logsumexp"] = np.ravel(logsumexp)
            where = np.broadcast_to(where, shape)
            check(results, as_rows(x, axes), as_rows(where, axes), limits)


def padding(length):
    """Of two sequences, of which one is half as long."""
    return np.arange(length) < np.array([[length], [length // 2]])


# Masks of attention, for weights of the shape (batch, heads, L, L): axis -1 are the keys.
MASKS_OF_ATTENTION = {
    "causal": lambda length: np.tri(length, dtype=bool),
    "windowed": lambda length: np.tri(length, dtype=bool) & ~np.tri(length, k=-9, dtype=bool),
    "padding of keys": lambda length: padding(length)[:, None, None, :],
    "padding of queries": lambda length: padding(length)[:, None, :, None],
    "causal and padding": lambda length: (
        np.tri(length, dtype=bool) & padding(length)[:, None, None, :]
    ),
    "per head": lambda length: masks(3, length * length).reshape(3, length, length),
    "per batch": lambda length: np.array([True, False]).reshape(2, 1, 1, 1),
}


@pytest.mark.parametrize("kind", MASKS_OF_ATTENTION)
@pytest.mark.parametrize("length", [1, 7, 33, 65])
def test_masks_of_attention(kind, length, dtype, limits):
    shape = (2, 3, length, length)
    where = MASKS_OF_ATTENTION[kind](length)
    x = rows(normal, 6 * length, length, dtype)
    results = results_of(x.reshape(shape), where)
    results = {name: result.reshape(len(x), -1) for name, result in results.items()}
    results["logsumexp"] = np.ravel(results["logsumexp"])
    check(results, x, np.broadcast_to(where, shape).reshape(x.shape), limits)


def test_masked_attention(dtype):
    """Numbers whose products are exact, so that only the softmax and its products are rounded."""
    rng = np.random.default_rng(0)
    length, d = 48, 16
    q, k = rng.integers(-4, 5, size=(2, 2, 3, length, d)).astype(dtype)
    v = rng.normal(size=(2, 3, length, d)).astype(dtype)
    causal = np.tri(length, dtype=bool)
    scores = q @ k.swapaxes(-1, -2)
    result = csoftmax.softmax(scores, temperature=np.sqrt(d), where=causal) @ v

    scores = np.where(causal, scores.astype(LONG) / 4, -INF)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    of_terms = weights @ np.abs(v.astype(LONG))
    tolerance = (length + 4) * np.finfo(dtype).eps * of_terms    # of sums of so many products
    assert result.dtype == dtype
    assert (np.abs(result - weights @ v.astype(LONG)) <= tolerance).all()


@each_layout
@pytest.mark.parametrize("n", [1, 5, 17, 64, 65, 129, 300, 4097])
def test_what_is_left_out_changes_no_bit(n, layout, dtype):
    """Nor in rows that are NaN, nor at any temperature."""
    count = 20 if n < 1000 else 5
    x, where = mixed_rows(KINDS, count, n, dtype), masks(count, n, seed=1)
    x[2, where[2].argmax()] = NAN
    temperatures = np.resize(EXTREME_TEMPERATURES, count)
    for temperature in (1.0, np.roll(temperatures, n)):
        expected = None
        for value in (0, NAN, float(np.finfo(dtype).max), garbage(x.shape, dtype)):
            arranged, axis = layout(np.where(where, x, value).astype(dtype))
            results = results_of(arranged, layout(where)[0], axis, temperature)
            of_value = {name: bits(result) for name, result in results.items()}
            expected = expected or of_value
            assert of_value == expected


@each_layout
@pytest.mark.parametrize("n", [1, 2, 17, 65, 129, 300, 4097])
def test_rows_without_softmax(n, layout, dtype):
    """NaN or +inf among what is left, or only -inf: NaN; all left out: 0. Others don't notice."""
    places = sorted({0, n // 2, n - 1})
    bad = np.full((2 * len(places) + 1, n), -INF, dtype)
    for i, place in enumerate(places):
        bad[2 * i : 2 * i + 2] = rows(normal, 2, n, dtype)
        bad[[2 * i, 2 * i + 1], place] = NAN, INF
    for share in (0.3, 1):
        where = np.random.default_rng(n).random((3 * len(bad), n)) >= share
        x = rows(normal, len(where), n, dtype)
        where[1::3] |= ~np.isfinite(bad) & (bad != -INF) & (share < 1)
        replaced = x.copy()
        replaced[1::3] = bad
        for temperature in (1.0, np.resize(EXTREME_TEMPERATURES, len(x))):
            expected = results_of(*arranged(layout, x, where), temperature)
            results = results_of(*arranged(layout, replaced, where), temperature)
            check_special(results, np.where(where, replaced, -INF), where)
            for name in results:
                for others in (np.s_[::3], np.s_[2::3]):
                    np.testing.assert_array_equal(results[name][others], expected[name][others])


def arranged(layout, x, where):
    x, axis = layout(x)
    return x, layout(where)[0], axis


@each_layout
@pytest.mark.parametrize("n", [1, 2, 16, 17, 65, 129, 300, 4097])
def test_temperatures_0_and_infinity(n, layout, dtype):
    where = masks(15, n)
    x = np.random.default_rng(n).integers(0, 5, size=where.shape).astype(dtype)
    x[~where] = 9
    has_any = where.any(-1)[:, None]
    first = np.where(where, x, -INF).argmax(-1)[:, None]
    one_hot = has_any & (np.arange(n) == first)
    results = results_of(*arranged(layout, x, where), 0)
    np.testing.assert_array_equal(results["softmax"], one_hot)
    np.testing.assert_array_equal(results["log_softmax"], np.where(one_hot, 0, -INF))

    x[:, ::3] = -INF
    finite = where & (x > -INF)
    results = results_of(*arranged(layout, x, where), INF)
    left = np.where(where, x, -INF)
    kept = check_special(results, left, where)
    count = np.maximum(finite.sum(-1), 1)[:, None]
    expected = np.where(finite, (1 / count).astype(dtype), 0)
    np.testing.assert_array_equal(results["softmax"][kept], expected[kept])
    expected = np.where(finite, -np.log(count).astype(dtype), -INF)
    np.testing.assert_allclose(
        results["log_softmax"][kept], expected[kept], rtol=4 * np.finfo(dtype).eps
    )


def in_fortran_order(x):
    return np.array(x, order="F")


@each_name
@pytest.mark.parametrize("axis", [-1, 0, None])
def test_out(name, axis, dtype):
    function = getattr(csoftmax, name)
    tolerance = 8 * np.finfo(dtype).eps    # twice the limit: another order of the sum
    for shape in ((7,), (3, 5), (20, 127), (20, 300), (3, 5000), (2, 9000)):
        where = np.random.default_rng(0).random(shape) >= 0.3
        x = np.where(where, 5 * np.random.default_rng(1).normal(size=shape), NAN).astype(dtype)
        scale = 0 if name == "softmax" else np.abs(x[where]).max()
        expected = function(x, axis, where=where)
        for arrange in (np.copy, in_fortran_order, every_other):
            out, in_place = arrange(np.full_like(x, 7)), arrange(x)
            assert function(x, axis, where=where, out=out) is out
            assert function(in_place, axis, where=where, out=in_place) is in_place
            for result in (out, in_place):
                np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance * scale)
                assert (result[~where] == ROWWISE[name]).all()
        for out_dtype in (np.float16, np.float32, np.float64):
            out = np.full(shape, 7, out_dtype)
            function(x, axis, where=where, out=out)
            with np.errstate(all="ignore"):
                np.testing.assert_array_equal(out, expected.astype(out_dtype))


@pytest.mark.parametrize("out_dtype", [np.float16, np.float32, np.float64])
def test_out_of_logsumexp(out_dtype, dtype):
    x, where = rows(normal, 10, 300, dtype), masks(10, 300)
    expected = csoftmax.logsumexp(x, where=where).astype(out_dtype)
    out = np.full(10, 7, out_dtype)
    assert csoftmax.logsumexp(x, where=where, out=out) is out
    np.testing.assert_array_equal(out, expected)
    kept = csoftmax.logsumexp(x, where=where, keepdims=True)
    assert kept.shape == (10, 1)
    np.testing.assert_array_equal(kept[:, 0].astype(out_dtype), expected)


@each_name
@pytest.mark.parametrize("shift", [-299, -3, -1, 1, 100])
def test_out_that_overlaps_the_logits(name, shift, dtype):
    where = masks(5, 300)
    x = rows(normal, 5, 300, dtype)
    expected = getattr(csoftmax, name)(x, where=where)
    memory = np.zeros(1500 + abs(shift), dtype)
    start, end = max(-shift, 0), max(shift, 0)
    overlapping = memory[start : start + 1500].reshape(5, 300)
    overlapping[:] = x
    out = memory[end : end + 1500].reshape(5, 300)
    getattr(csoftmax, name)(overlapping, where=where, out=out)
    np.testing.assert_array_equal(out, expected)


@each_name
@pytest.mark.parametrize("start", [0, 100, 4500])
def test_out_that_overlaps_the_mask(name, start, dtype):
    x, where = rows(normal, 5, 300, dtype), masks(5, 300)
    expected = getattr(csoftmax, name)(x, where=where)
    memory = np.zeros(x.nbytes + 100, np.uint8)
    overlapping = memory[start : start + 1500].view(bool).reshape(5, 300)
    overlapping[:] = where
    out = memory[: x.nbytes].view(dtype).reshape(5, 300)
    getattr(csoftmax, name)(x, where=overlapping, out=out)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(
    "shape", [(64, 1000), (3, 20_001), (9001, 5), (1, 60_003), (241, 199)], ids=str
)
def test_same_bits_for_one_thread_and_two(shape, dtype):
    x = rows(normal, *shape, dtype)
    where = np.random.default_rng(0).random(shape) >= np.resize(SHARES, shape[0])[:, None]
    x[~where] = NAN

    def results():
        for axis, mask in ((0, where), (1, where), (1, where[:1])):
            yield from results_of(x, mask, axis).values()

    one, two = bits_by_threads(results)
    assert one == two


def test_a_row_of_logits_for_many_masks(dtype, limits):
    """Logits of stride 0."""
    x, where = rows(normal, 1, 200, dtype), masks(50, 200)
    x = np.broadcast_to(x, where.shape)
    check(results_of(x, where), x, where, limits)


def test_temperature_with_several_axes(dtype):
    x = rows(normal, 6, 200, dtype).reshape(6, 4, 50)
    where = masks(6, 200)[:, :50].reshape(6, 1, 50)
    together = csoftmax.softmax(x, (0, 2), temperature=[0.5, 1, 0, INF], where=where)
    for i, temperature in enumerate((0.5, 1, 0, INF)):
        expected = csoftmax.softmax(x[:, i], None, temperature=temperature, where=where[:, 0])
        np.testing.assert_array_equal(together[:, i], expected)


@each_input_type
def test_types(input_dtype, result_dtype):
    x = np.array([[0, 1, 1, 0, 1]]).astype(input_dtype)
    where = np.array([True, True, False, True, False])
    for name in (*ROWWISE, "logsumexp"):
        result = getattr(csoftmax, name)(x, where=where)
        assert result.dtype == result_dtype
        expected = getattr(csoftmax, name)(x.astype(result_dtype), where=where)
        np.testing.assert_array_equal(result, expected)


def test_scalars_and_one_row(dtype):
    x = np.array([1, 1, 50], dtype)
    where = [True, True, False]
    np.testing.assert_array_equal(csoftmax.softmax(x, where=where), [0.5, 0.5, 0])
    result = csoftmax.logsumexp(x, where=where)
    assert isinstance(result, dtype.type)
    np.testing.assert_allclose(result, 1 + np.log(2), rtol=2 * np.finfo(dtype).eps)
    assert csoftmax.softmax(3, axis=None, where=True) == 1
    assert csoftmax.softmax(NAN, axis=None, where=False) == 0
    assert csoftmax.log_softmax(3.0, axis=None, where=False) == -INF
    assert csoftmax.logsumexp(3.0, axis=None, where=np.bool_(False)) == -INF


def test_without_a_mask(dtype):
    x = rows(normal, 4, 100, dtype)
    for name in (*ROWWISE, "logsumexp"):
        function = getattr(csoftmax, name)
        np.testing.assert_array_equal(function(x, where=None), function(x))


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 0), (0, 5)])
def test_nothing_to_sum_or_no_rows(shape):
    x = np.empty(shape, np.float32)
    for where in (True, False, np.ones(shape, bool), np.ones(shape[-1:], bool)):
        for name in ROWWISE:
            result = getattr(csoftmax, name)(x, where=where)
            assert result.shape == shape
            assert result.dtype == np.float32
        result = csoftmax.logsumexp(x, where=where)
        assert result.shape == shape[:-1]
        assert (result == -INF).all()


def test_inputs_are_not_changed(dtype):
    for n in (30, 300, 5000):
        where = masks(20, n)
        x = garbage(where.shape, dtype)
        copies = x.copy(), where.copy()
        for axis in (0, 1, None):
            for name in (*ROWWISE, "logsumexp"):
                getattr(csoftmax, name)(x, axis, where=where)
        np.testing.assert_array_equal(x, copies[0])
        np.testing.assert_array_equal(where, copies[1])


def test_no_floating_point_flag_is_left_behind(dtype):
    for shape in ((5, 3), (40, 16), (5, 129), (5, 5000)):
        x, where = garbage(shape, dtype), masks(*shape)
        with np.errstate(all="raise"):
            for axis in (0, -1, None):
                for temperature in (1.0, 0.0, 1e-3, 1e30, INF):
                    csoftmax.softmax(x, axis, temperature=temperature, where=where)
                    csoftmax.log_softmax(x, axis, temperature=temperature, where=where)
                csoftmax.logsumexp(x, axis, where=where)


@pytest.mark.parametrize("side", ["before", "behind"])
@pytest.mark.parametrize("layout", ["contiguous", "side by side", "with gaps"])
@pytest.mark.parametrize(
    "shape", [(1, 17), (1, 4099), (7, 2), (19, 40), (18, 129), (19, 301), (3, 4101)], ids=str
)
def test_nothing_outside_the_mask_is_touched(shape, layout, side, dtype):
    count, n = shape
    steps = {"contiguous": (n, 1), "side by side": (1, count), "with gaps": (2 * n, 2)}[layout]
    numbers = (count - 1) * steps[0] + (n - 1) * steps[1] + 1
    with contextlib.ExitStack() as stack:
        x, out, where = (
            np.ndarray(
                shape, kind, strides=[step * kind.itemsize for step in steps],
                buffer=stack.enter_context(
                    beside_a_forbidden_page(numbers * kind.itemsize, side)
                ),
            )
            for kind in (dtype, dtype, np.dtype(bool))
        )  # fmt: skip
        x[...] = rows(normal, count, n, dtype)
        where[...] = masks(count, n)
        for mask in (where, where[:1], where[:, :1]):
            for temperature in (1.0, 0.7):
                for name in ROWWISE:
                    function = getattr(csoftmax, name)
                    function(x, temperature=temperature, where=mask, out=out)
            csoftmax.logsumexp(x, where=mask)
        del x, out, where, mask    # before their memory goes


X = np.arange(12.0, dtype=np.float32).reshape(3, 4)


def mentioning(*words):
    """A pattern for messages that have all of these, in any order."""
    return "".join(f"(?=.*{re.escape(str(word))})" for word in words)


@pytest.mark.parametrize(
    ("where", "error", "words"),
    [
        (np.ones((3, 4), int), TypeError, ["int64"]), (X, TypeError, ["float32"]),
        (np.ones((3, 4), np.uint8), TypeError, ["uint8"]),
        (np.ones((3, 4), object), TypeError, ["object"]),
        ([[1, 0, 1, 1]] * 3, TypeError, ["int64"]), (1, TypeError, ["int64"]),
        (0.0, TypeError, ["float64"]), ("yes", TypeError, ["<U3"]), ([], TypeError, ["float64"]),
        (np.ones((4, 3), bool), ValueError, [(4, 3), (3, 4)]),
        (np.ones(3, bool), ValueError, [(3,), (3, 4)]),
        (np.ones((3, 5), bool), ValueError, [(3, 5), (3, 4)]),
        (np.ones((0, 4), bool), ValueError, [(0, 4), (3, 4)]),
        (np.ones((2, 3, 4), bool), ValueError, [(2, 3, 4), (3, 4)]),
        (np.ones((1, 3, 4), bool), ValueError, [(1, 3, 4), (3, 4)]),
    ],
)  # fmt: skip
def test_masks_that_are_refused(where, error, words):
    """Before anything is written."""
    for axis in (-1, 0, None):
        for name in (*ROWWISE, "logsumexp"):
            shape = X.shape if name in ROWWISE else csoftmax.logsumexp(X, axis).shape
            out = np.full(shape, 7, np.float32)
            with pytest.raises(error, match=mentioning("where", *words)):
                getattr(csoftmax, name)(X, axis, where=where, out=out)
            assert (out == 7).all()


def test_logits_are_not_enlarged():
    for name in (*ROWWISE, "logsumexp"):
        with pytest.raises(ValueError, match=mentioning((3, 4), (1, 4))):
            getattr(csoftmax, name)(X[:1], where=np.ones((3, 4), bool))
        with pytest.raises(ValueError, match=mentioning((4,), ())):
            getattr(csoftmax, name)(1.0, None, where=np.ones(4, bool))


def test_other_arguments_are_checked_beside_a_mask():
    where = X > 3
    for name in ROWWISE:
        function = getattr(csoftmax, name)
        out = np.full(X.shape, 7, np.float32)
        for wrong, error in (
            ({"temperature": -1.0}, ValueError), ({"temperature": [1.0, 2.0]}, ValueError),
            ({"axis": 2}, np.exceptions.AxisError), ({"axis": 1.0}, TypeError),
        ):  # fmt: skip
            with pytest.raises(error):
                function(X, where=where, out=out, **wrong)
        assert (out == 7).all()
        with pytest.raises(ValueError, match="read-only"):
            function(X, where=where, out=np.broadcast_to(np.float32(0), X.shape))
        with pytest.raises(ValueError, match=r"shape \(3, 4\), got \(4, 3\)"):
            function(X, where=where, out=out.T)
        with pytest.raises(TypeError, match=r"float32 or float64.*got"):
            function(X.astype(complex), where=where)
        with pytest.raises(TypeError, match="positional"):
            function(X, -1, 1.0, where)
