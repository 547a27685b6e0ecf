"""The contract's table of edge cases, for every build; pytest turns any warning into an error."""

import contextlib
import ctypes
import mmap

import numpy as np
import pytest

import csoftmax

INF, NAN = np.inf, np.nan
LENGTHS = [1, 2, 15, 16, 17, 100, 128, 129, 300, 1000, 4096, 4097, 9000]
pytestmark = pytest.mark.usefixtures("build")


def row(n, dtype, **at):
    """Numbers that decrease from 0, with others put in at `first`, `middle`, `last`."""
    x = -np.arange(n, dtype=dtype) / n
    for place, value in at.items():
        x[{"first": 0, "middle": n // 2, "last": n - 1}[place]] = value
    return x


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.3, 0.0, INF])
def test_nan_and_plus_infinity_fill_their_row_and_no_other(n, place, temperature, dtype):
    for value in (NAN, INF):
        x = np.stack([row(n, dtype), row(n, dtype, **{place: value}), row(n, dtype)])
        for function in (csoftmax.softmax, csoftmax.log_softmax):
            result = function(x, temperature=temperature)
            assert np.isnan(result[1]).all()
            others = result[[0, 2]]
            assert not np.isnan(others).any()
            np.testing.assert_array_equal(others, function(x[[0, 2]], temperature=temperature))
        np.testing.assert_array_equal(csoftmax.logsumexp(x)[1], value)
        loss, grad = csoftmax.cross_entropy_value_and_grad(
            x, [0, 0, 0], reduction="none", temperature=temperature
        )
        assert np.isnan(loss).tolist() == [False, True, False]
        assert np.isnan(grad).any(-1).tolist() == [False, True, False]
        np.testing.assert_array_equal(
            csoftmax.cross_entropy(x, [0, 0, 0], reduction="none", temperature=temperature), loss
        )


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("temperature", [1.0, 0.3, 0.0, INF])
def test_only_minus_infinity(n, temperature, dtype):
    x = np.full(n, -INF, dtype)
    assert np.isnan(csoftmax.softmax(x, temperature=temperature)).all()
    assert np.isnan(csoftmax.log_softmax(x, temperature=temperature)).all()
    assert csoftmax.logsumexp(x) == -INF
    x[n // 2] = NAN
    assert np.isnan(csoftmax.logsumexp(x))


def test_both_infinities_and_nan():
    assert csoftmax.logsumexp([INF, -INF]) == INF
    assert np.isnan(csoftmax.logsumexp([INF, NAN]))


@pytest.mark.parametrize("n", LENGTHS[1:])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.3, 3.3])
def test_minus_infinity_beside_finite(n, temperature, dtype):
    for place in ("first", "last"):
        x = row(n, dtype, **{place: -INF})
        finite = x > -INF
        y = csoftmax.softmax(x, temperature=temperature)
        assert (y[~finite] == 0).all()
        assert (y[finite] > 0).all()
        log_y = csoftmax.log_softmax(x, temperature=temperature)
        assert (log_y[~finite] == -INF).all()
        assert np.isfinite(log_y[finite]).all()
        target = int(np.argmin(x))
        assert csoftmax.cross_entropy(x, target, temperature=temperature) == INF


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("temperature", [1.0, 1e-3, 0.7, 4.0, 1e3])
def test_huge_logits(n, temperature, dtype):
    huge = float(np.finfo(dtype).max) * 0.99
    for value in (huge, -huge):
        y = csoftmax.softmax(np.full(n, value, dtype), temperature=temperature)
        np.testing.assert_allclose(y, 1 / n, rtol=3 * np.finfo(dtype).eps)
        assert np.isfinite(csoftmax.logsumexp(np.full(n, value, dtype)))
    x = np.full(n, -huge, dtype)
    x[-1] = huge
    expected = np.zeros(n)
    expected[-1] = 1
    np.testing.assert_array_equal(csoftmax.softmax(x, temperature=temperature), expected)


def test_temperature_scales_huge_differences(dtype):
    huge = float(np.finfo(dtype).max) / 2
    x = np.array([huge, -huge], dtype)
    result = csoftmax.log_softmax(np.array([huge, -huge, huge], dtype), temperature=4.0)
    np.testing.assert_allclose(result[1], -huge / 2, rtol=1e-6)
    np.testing.assert_allclose(
        csoftmax.softmax(x, temperature=huge), [np.exp(2) / (1 + np.exp(2)), 1 / (1 + np.exp(2))],
        rtol=1e-6,
    )


@pytest.mark.parametrize("temperature", [1e-320, 1e-300, 1e-60, 1e-40, 1e40, 1e60, 1e300])
def test_extreme_temperatures(temperature, dtype):
    y = csoftmax.softmax(np.array([1, 3, 2, 3], dtype), temperature=temperature)
    expected = [0, 0.5, 0, 0.5] if temperature < 1 else [0.25] * 4
    np.testing.assert_array_equal(y, expected)
    _, grad = csoftmax.cross_entropy_value_and_grad(
        np.array([1, 3, 2, 3], dtype), 0, temperature=temperature
    )
    with np.errstate(all="ignore"):
        exact = (np.array(expected, np.longdouble) - [1, 0, 0, 0]) / np.longdouble(temperature)
        np.testing.assert_allclose(grad, exact.astype(dtype), rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("temperature", [1e-320, 1e-300, 1e-70, 1e-60, 1e-50, 1e-40, 1e-31])
@pytest.mark.parametrize("n", [2, 300, 9000])
def test_log_probabilities_at_extreme_temperatures(n, temperature, dtype):
    x = np.full(n, 2.5, dtype)
    x[n // 2] = 3
    with np.errstate(all="ignore"):
        right = np.where(x == 3, 0, -np.longdouble(0.5) / temperature).astype(dtype)
    log_y = csoftmax.log_softmax(x, temperature=temperature)
    np.testing.assert_allclose(log_y, right, rtol=4 * np.finfo(dtype).eps)
    for target in (0, n // 2):
        loss = csoftmax.cross_entropy(x, target, temperature=temperature)
        np.testing.assert_allclose(loss, -right[target], rtol=4 * np.finfo(dtype).eps)


def test_gradient_where_only_its_scale_is_large():
    x = np.array([3, 1, 2], np.float32)
    _, grad = csoftmax.cross_entropy_value_and_grad(x, 1, temperature=3e-39)
    np.testing.assert_allclose(grad, np.array([1, -1, 0]) / 3e-39, rtol=1e-6)
    _, grad = csoftmax.cross_entropy_value_and_grad([x] * 1000, [1] * 1000, temperature=1e-40)
    np.testing.assert_allclose(grad[0], np.array([1, -1, 0]) / 1e-37, rtol=1e-6)


@pytest.mark.parametrize("n", LENGTHS)
def test_temperature_zero_is_argmax(n, dtype):
    x = np.random.default_rng(n).integers(0, 5, size=(3, n)).astype(dtype)
    one_hot = np.arange(n) == x.argmax(-1)[:, None]
    np.testing.assert_array_equal(csoftmax.softmax(x, temperature=0), one_hot)
    log_y = csoftmax.log_softmax(x, temperature=0)
    np.testing.assert_array_equal(log_y, np.where(one_hot, 0, -INF))
    target = np.zeros(3, int)
    loss, grad = csoftmax.cross_entropy_value_and_grad(x, target, temperature=0, reduction="none")
    np.testing.assert_array_equal(loss, -log_y[:, 0])
    right = one_hot[:, 0]
    assert (grad[right] == 0).all()
    wrong = np.where(one_hot, INF, np.where(np.arange(n) == 0, -INF, 0))
    np.testing.assert_array_equal(grad[~right], wrong[~right])


@pytest.mark.parametrize("n", LENGTHS)
def test_temperature_infinity_is_uniform(n, dtype):
    x = row(n, dtype, first=float(np.finfo(dtype).max))
    x[1::3] = -INF
    finite = x > -INF
    y = csoftmax.softmax(x, temperature=INF)
    np.testing.assert_array_equal(y, np.where(finite, dtype.type(1 / finite.sum()), 0))
    log_y = csoftmax.log_softmax(x, temperature=INF)
    np.testing.assert_allclose(log_y[finite], -np.log(finite.sum()), rtol=1e-6)
    assert (log_y[~finite] == -INF).all()
    loss, grad = csoftmax.cross_entropy_value_and_grad(x, 0, temperature=INF)
    assert loss == -log_y[0]
    assert (grad == 0).all()


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 0)])
def test_empty_axis(shape):
    x = np.empty(shape, np.float32)
    for function in (csoftmax.softmax, csoftmax.log_softmax):
        assert function(x).shape == shape
        assert function(x).dtype == np.float32
    result = csoftmax.logsumexp(x)
    assert result.shape == shape[:-1]
    assert (result == -INF).all()


def test_no_rows():
    x = np.empty((0, 5), np.float32)
    assert csoftmax.softmax(x).shape == (0, 5)
    assert csoftmax.logsumexp(x).shape == (0,)
    target = np.empty(0, int)
    assert np.isnan(csoftmax.cross_entropy(x, target))
    assert csoftmax.cross_entropy(x, target, reduction="sum") == 0
    assert csoftmax.cross_entropy(x, target, reduction="none").shape == (0,)
    loss, grad = csoftmax.cross_entropy_value_and_grad(x, [])
    assert np.isnan(loss)
    assert grad.shape == (0, 5)


def test_everything_ignored():
    x = np.ones((3, 4))
    loss, grad = csoftmax.cross_entropy_value_and_grad(x, [-100] * 3)
    assert np.isnan(loss)
    assert (grad == 0).all()
    assert csoftmax.cross_entropy(x, [-100] * 3, reduction="sum") == 0


def test_no_floating_point_flag_is_left_behind(dtype):
    x = np.array([[NAN, INF, -INF], [1e-30, 2e-30, 3e-30], [-80, 0, 1]], dtype)
    with np.errstate(all="raise"):
        for temperature in (1.0, 0.0, 1e-3, 1e30, INF):
            csoftmax.softmax(x, temperature=temperature)
            csoftmax.log_softmax(x, temperature=temperature)
            csoftmax.cross_entropy_value_and_grad(x, [0, 1, 2], temperature=temperature)
        csoftmax.logsumexp(x)


@contextlib.contextmanager
def beside_a_forbidden_page(size, side):
    """`size` bytes of memory; to touch what is before or behind them ends the process."""
    pages = -(-size // mmap.PAGESIZE)
    forbidden, start = {
        "behind": (pages * mmap.PAGESIZE, pages * mmap.PAGESIZE - size),
        "before": (0, mmap.PAGESIZE),
    }[side]
    memory = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
    page = ctypes.c_void_p(np.frombuffer(memory, np.uint8).ctypes.data + forbidden)
    mprotect = ctypes.CDLL(None).mprotect
    assert mprotect(page, mmap.PAGESIZE, 0) == 0
    try:
        yield np.ndarray(size, np.uint8, memory, start)
    finally:
        mprotect(page, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE)


@pytest.mark.parametrize("side", ["before", "behind"])
@pytest.mark.parametrize("layout", ["contiguous", "side by side", "with gaps"])
@pytest.mark.parametrize(
    "shape",
    [(1, n) for n in (0, 1, 3, 5, 16, 63, 64, 65, 128, 129, 300, 301, 4096, 4099)]
    + [(2, 3), (3, 17), (7, 2), (19, 40), (35, 128), (18, 129), (17, 300), (19, 301), (3, 4101)],
    ids=str,
)
def test_nothing_outside_input_and_output_is_touched(shape, layout, side, dtype):
    count, n = shape
    steps = {"contiguous": (n, 1), "side by side": (1, count), "with gaps": (2 * n, 2)}[layout]
    numbers = (count - 1) * steps[0] + (n - 1) * steps[1] + 1 if n else 0
    strides = [step * dtype.itemsize for step in steps]
    target = np.arange(count) % max(n, 1)
    with (
        beside_a_forbidden_page(numbers * dtype.itemsize, side) as input_memory,
        beside_a_forbidden_page(numbers * dtype.itemsize, side) as output_memory,
    ):
        x = np.ndarray(shape, dtype, input_memory, strides=strides)
        out = np.ndarray(shape, dtype, output_memory, strides=strides)
        x[...] = np.random.default_rng(0).normal(size=shape)
        x[::2, n // 2 : n // 2 + 1] += 50
        csoftmax.logsumexp(x)
        for temperature in (1.0, 0.7, INF):
            csoftmax.softmax(x, temperature=temperature, out=out)
            csoftmax.log_softmax(x, temperature=temperature, out=out)
            if n:
                csoftmax.cross_entropy(x, target, temperature=temperature)
                csoftmax.cross_entropy_value_and_grad(x, target, temperature=temperature, out=out)


def test_casts_to_a_smaller_out_do_not_warn():
    x = np.array([[0, -1e5], [0, -30]])
    with np.errstate(all="raise"):
        for dtype in (np.float16, np.float32):
            for axis in (-1, None):
                csoftmax.softmax(x, axis, out=np.empty(x.shape, dtype))
                csoftmax.log_softmax(x, axis, out=np.empty(x.shape, dtype))
            csoftmax.logsumexp(x * 1e300, out=np.empty(2, dtype))
            csoftmax.cross_entropy_value_and_grad(
                x, [1, 1], temperature=1e-20, out=np.empty(x.shape, dtype)
            )


def test_no_input_warns():
    """Casts and sums that overflow or underflow on the way."""
    half = np.array([65504, -65504], np.float16)
    x = np.zeros((2, 2), np.float32)
    with np.errstate(all="raise"):
        csoftmax.log_softmax(half, out=np.empty(2, np.float16))
        csoftmax.sigmoid(half, out=np.empty(2, np.float16))
        for target in (1e300, 1e-50):
            csoftmax.binary_cross_entropy(x[0], [target, 0.5])
            csoftmax.cross_entropy(x[0], [target, 0.5])
        for weight in ([1.7e308] * 2, [1e-310] * 2, [INF, 1], [INF, -INF], [1e-300, 1e300]):
            for logits in (x, x.astype(float)):
                csoftmax.cross_entropy_value_and_grad(logits, [0, 1], weight=weight)
                csoftmax.cross_entropy(logits, [0, 1], weight=weight, label_smoothing=0.1)
                csoftmax.nll_loss(logits, [0, 1], weight=weight)
                csoftmax.binary_cross_entropy(logits, x, weight=weight, pos_weight=weight)


@pytest.mark.parametrize("label_smoothing", [0, 0.1])
def test_out_of_no_classes_is_returned(label_smoothing, dtype):
    x, out = np.empty((2, 3, 0), dtype)
    for target in (x, np.full(3, -100)):
        loss, grad = csoftmax.cross_entropy_value_and_grad(
            x, target, label_smoothing=label_smoothing, reduction="sum", out=out
        )
        assert grad is out
        assert loss == 0


def test_weights_that_are_too_large_together():
    """Only their product with a target of 0 is not."""
    loss = csoftmax.binary_cross_entropy(
        np.float32([0]), [0], weight=[1e20], pos_weight=[1e20], reduction="sum"
    )
    np.testing.assert_allclose(loss, 1e20 * np.log(2), rtol=1e-6)
