"""Special values, for every build; pytest turns any warning into an error."""

import itertools

import numpy as np
import pytest

import csoftmax

from .cases import BFLOAT16, LAYOUTS, chunk_of, normal, rows, special_rows
from .exact import INF, NAN
from .functions import (
    CALLS,
    hold,
    operands_of,
    operands_of_rows,
    results_of_rows,
)
from .helpers import bits, garbage, run_checked

LENGTHS = [1, 2, 7, 8, 16, 17, 40, 63, 64, 65, 100, 129, 300, 1000, 4096, 4097, 9000]
FEW_LENGTHS = [1, 2, 17, 63, 64, 65, 129, 300, 4097, 9000]
TEMPERATURES = [1.0, 0.0, 0.3, INF, 7.0]
pytestmark = pytest.mark.usefixtures("build")
each_layout = pytest.mark.parametrize("layout", LAYOUTS)
each_call = pytest.mark.parametrize("name", CALLS)


def is_too_large(call, n):
    """Of which there would be n squared numbers."""
    return call.name == "softmax_jacobian" and n > 129


SIDE_BY_SIDE = {"logits", "target_logits", "grad", "y", "log_y", "shares"}


@each_layout
@pytest.mark.parametrize("name", [name for name, call in CALLS.items() if call.takes_axis])
def test_rows_do_not_notice_one_another(name, layout, dtype):
    """A row has the same bits beside one with NaN or infinities, in any operand."""
    call = CALLS[name].with_reduction(0)
    for n in FEW_LENGTHS:
        if is_too_large(call, n):
            continue
        x = rows(normal, 36, n, dtype)
        operands = operands_of_rows(call.operands, x, TEMPERATURES)
        expected = results_of_rows(call, operands, layout)
        for key in operands.keys() & SIDE_BY_SIDE:
            bad = operands[key].copy()
            bad[1::3] = special_rows(n, dtype)[1::2]
            results = results_of_rows(call, operands | {key: bad}, layout)
            for result, right in zip(results, expected, strict=True):
                for others in (np.s_[::3], np.s_[2::3]):
                    np.testing.assert_array_equal(result[others], right[others], key)


def what_does_not_count(call, operands):
    """The operand whose numbers make no difference there, and where."""
    if "mask" in operands:
        return "logits", ~operands["mask"]
    if "grad" in operands:
        return "grad", operands["y"] == 0 if "y" in operands else operands["log_y"] == -INF
    return call.places[0], (operands["indices"] == -100)[:, None]


@each_layout
@pytest.mark.parametrize(
    "name", [name for name, call in CALLS.items() if {"mask", "grad", "indices"} & {*call.operands}]
)
def test_what_does_not_count_changes_no_bit(name, layout, dtype):
    """What is masked, the gradient of what has no probability, ignored rows; also beside NaN."""
    call = CALLS[name]
    for n in FEW_LENGTHS:
        x = rows(normal, 20 if n < 1000 else 8, n, dtype)
        operands = operands_of_rows(call.operands, x, TEMPERATURES)
        key, where = what_does_not_count(call, operands)
        if not call.is_reduced:
            operands[key][2] = NAN
        expected = None
        for value in (0, NAN, float(np.finfo(dtype).max), garbage(x.shape, dtype)):
            values = np.where(where, value, operands[key]).astype(dtype)
            results = [bits(one) for one in results_of_rows(call, operands | {key: values}, layout)]
            expected = expected or results
            assert results == expected, n


@each_call
def test_choices(name, dtype, limits):
    """At temperature 0 the first of several maxima, at infinity one of what is not -inf."""
    call = CALLS[name].with_reduction(0)
    if "temperature" not in call.operands:
        return
    for n, layout in zip(LENGTHS, itertools.cycle(LAYOUTS), strict=False):
        if is_too_large(call, n):
            continue
        x = np.random.default_rng(n).integers(0, 5, size=(9, n)).astype(dtype)
        x[3:6, 1::3] = -INF
        x[:, 0] = np.resize([0, float(np.finfo(dtype).max)], 9)
        hold(call, limits, operands_of_rows(call.operands, x, [0, 0, INF, INF, 1]), layout)


@each_call
@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 0), (0, 5), (2, 0, 3)], ids=str)
def test_nothing_to_compute(name, shape, dtype, limits):
    call = CALLS[name]
    for axis in [*range(-len(shape), len(shape)), *([None] if call.takes_several_axes else [])]:
        operands = operands_of(call.operands, shape, dtype, axis)
        if not call.takes(shape, axis):
            with pytest.raises(ValueError, match=r"distribution|\b0\b"):
                call(operands, axis)
            continue
        for turn in (0, 1, 3):
            some = call.with_reduction(turn)
            some.hold(some(operands, axis), limits, operands, axis)
            if call.out:
                out = np.empty(call.shape_of_out(shape, axis), dtype)
                assert some(operands, axis, out)[-1] is out


@pytest.mark.parametrize("name", ["softmax_vjp", "log_softmax_vjp"])
def test_one_nan_among_outcomes_fills_its_row_of_a_product(name, dtype, build):
    rng = np.random.default_rng(0)
    for n in (3, 40, 300, 20_000):
        y = getattr(csoftmax, name.removesuffix("_vjp"))(rng.normal(size=(3, n)).astype(dtype))
        grad = rng.normal(size=(3, n)).astype(dtype)
        y[1, n // 2] = NAN
        for axis, arrays in ((-1, (grad, y)), (0, (grad.T.copy(), y.T.copy()))):
            result = np.moveaxis(getattr(csoftmax, name)(*arrays, axis), axis, -1)
            assert np.isnan(result[1]).all()
            assert not np.isnan(result[[0, 2]]).any()


def test_both_infinities_and_nan():
    assert csoftmax.logsumexp([INF, -INF]) == INF
    assert np.isnan(csoftmax.logsumexp([INF, NAN]))


@pytest.mark.parametrize("temperature", [1.0, 1e-3, 0.7, 4.0, 1e3])
def test_huge_logits(temperature, dtype):
    huge = float(np.finfo(dtype).max) * 0.99
    for n in LENGTHS:
        for value in (huge, -huge):
            y = csoftmax.softmax(np.full(n, value, dtype), temperature=temperature)
            np.testing.assert_allclose(y, 1 / n, rtol=3 * np.finfo(dtype).eps)
            assert np.isfinite(csoftmax.logsumexp(np.full(n, value, dtype)))
            entropy = csoftmax.entropy(np.full(n, value, dtype), temperature=temperature)
            np.testing.assert_allclose(entropy, np.log(n), rtol=4 * np.finfo(dtype).eps)
        x = np.full(n, -huge, dtype)
        x[-1] = huge
        y = csoftmax.softmax(x, temperature=temperature)
        np.testing.assert_array_equal(y, np.arange(n) == n - 1)
        assert csoftmax.entropy(x, temperature=temperature) == 0


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
    """Of short rows, of some that are copied, and of those with several chunks."""
    tolerance = 4 * np.finfo(dtype).eps
    for n in (4, 80, 400, 3 * chunk_of(dtype) + 5):
        x = np.ones(n, dtype)
        x[[1, n - 1]], x[n // 2] = 3, 2.5
        right = np.where(x == 3, 0.5, 0) if temperature < 1 else np.full(n, 1 / n)
        y = csoftmax.softmax(x, temperature=temperature)
        np.testing.assert_allclose(y, right, rtol=tolerance)
        entropy = csoftmax.entropy(x, temperature=temperature)
        np.testing.assert_allclose(entropy, np.log(2 if temperature < 1 else n), rtol=tolerance)
        right[0] -= 1
        with np.errstate(all="ignore"):
            right = (right / np.longdouble(temperature)).astype(dtype)
        _, grad = csoftmax.cross_entropy_value_and_grad(x, 0, temperature=temperature)
        np.testing.assert_allclose(grad, right, rtol=tolerance)


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


# Vector-Jacobian products.

@pytest.mark.parametrize("name", ["softmax_vjp", "log_softmax_vjp"])
@pytest.mark.parametrize("temperature", [1e-310, 1e-300, 1e-40, 1e-37, 1e37, 1e40, 1e300])
def test_products_at_extreme_temperatures(name, temperature, dtype, limits):
    """Where gradients are as extreme the result is ordinary, also if 1 / T is no normal number."""
    call = CALLS[f"{name}, temperature"]
    size = np.clip(temperature, *((1e-30, 1e30) if dtype == np.float32 else (1e-290, 1e290)))
    for n, layout in itertools.product((4, 80, 400, 5000), LAYOUTS):
        operands = operands_of_rows(call.operands, rows(normal, 4, n, dtype), [temperature])
        operands["grad"] = (size * np.random.default_rng(0).normal(size=(4, n))).astype(dtype)
        hold(call, limits, operands, layout)


def test_equal_gradients_cancel(dtype):
    """As probabilities sum to 1, what is added to all gradients makes no difference."""
    y = np.full((3, 64), 1 / 64, dtype)
    grad = np.full_like(y, 1e6)
    assert (csoftmax.softmax_vjp(grad, y) == 0).all()
    grad[:, 3] += 64
    right = np.where(np.arange(64) == 3, 1 - 1 / 64, -1 / 64)
    np.testing.assert_array_equal(csoftmax.softmax_vjp(grad, y), np.tile(right, (3, 1)))


FUNCTIONS_OF_PRODUCTS = [
    (csoftmax.softmax, csoftmax.softmax_vjp), (csoftmax.log_softmax, csoftmax.log_softmax_vjp)
]  # fmt: skip
each_pair = pytest.mark.parametrize(("function", "product"), FUNCTIONS_OF_PRODUCTS)


@each_pair
def test_rows_without_an_outcome(function, product, dtype):
    """Where softmax is NaN the gradient is NaN; where everything is masked it is 0."""
    for n in (2, 17, 64, 65, 300, 4096, 9000):
        x, where = np.full((3, n), -INF, dtype), np.ones((3, n), bool)
        where[1] = where[2, 1:] = False
        result = product(np.ones_like(x), function(x, where=where))
        assert np.isnan(result[0]).all()
        assert (result[1] == 0).all()
        assert np.isnan(result[2, 0])
        assert (result[2, 1:] == 0).all()


@pytest.mark.parametrize("copies", [1, 5, 16, 40, 200, 3000])
def test_products_at_temperature_0(copies, dtype):
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


@each_pair
@pytest.mark.parametrize("temperature", [0, INF])
def test_products_with_an_outcome_of_their_temperature(function, product, temperature, dtype):
    """Of an outcome that is one-hot nothing is left to be divided; what infinity divides is 0."""
    for n in (1, 5, 64, 300, 9000):
        x = rows(normal, 9, n, dtype)
        grad = operands_of_rows(["grad"], x)["grad"]
        y = function(x, temperature=temperature)
        assert (product(grad, y, temperature=temperature) == 0).all()
        assert (product(grad.T, y.T, 0, temperature=[temperature] * 9) == 0).all()


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


# Losses.


def results(x, target, **keywords):
    """The loss from each function, and the gradient."""
    keywords = {"reduction": "none", **keywords}
    loss, gradient = csoftmax.cross_entropy_value_and_grad(x, target, **keywords)
    return loss, csoftmax.cross_entropy(x, target, **keywords), gradient


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_everything_ignored(smoothing, dtype):
    x = rows(normal, 3, 4, dtype)
    for reduction, right in (("mean", NAN), ("sum", 0), ("none", [0, 0, 0])):
        loss, alone, gradient = results(
            x, [-100] * 3, reduction=reduction, label_smoothing=smoothing, weight=np.ones(4)
        )
        np.testing.assert_array_equal(loss, right)
        np.testing.assert_array_equal(alone, right)
        assert (gradient == 0).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_that_are_all_0(smoothing, dtype):
    x = rows(normal, 3, 4, dtype)
    x[0, 1] = -INF
    keywords = {"label_smoothing": smoothing, "weight": np.zeros(4)}
    loss, alone, _ = results(x, [1, 2, 3], reduction="mean", **keywords)
    assert np.isnan(loss)
    assert np.isnan(alone)
    for target, reduction in (
        ([1, 2, 3], "sum"), ([1, 2, 3], "none"), (np.full((3, 4), 0.25), "none"),
        (np.full((3, 4), 0.25), "mean"),    # divided by 3
    ):
        for result in results(x, target, reduction=reduction, **keywords):
            assert (result == 0).all()


def test_a_target_at_minus_infinity(dtype):
    """The loss is inf, but where the weight is 0: 0 * inf is 0 here, in PyTorch it is NaN."""
    log_y = np.array([[-INF, 0, -INF], [-1, -2, -3]], dtype)
    for target, weight, right in (
        ([0, 0], None, [INF, 1]), ([1, 0], None, [0, 1]), ([0, 0], [2, 1, 1], [INF, 2]),
        ([0, 2], [0, 1, 1], [0, 3]), ([1, 0], [0, 1, 1], [0, 0]),
    ):  # fmt: skip
        losses = csoftmax.nll_loss(log_y, target, weight=weight, reduction="none")
        np.testing.assert_array_equal(losses, right)
        total = csoftmax.nll_loss(log_y, target, weight=weight, reduction="sum")
        assert total == sum(right)


def test_nan_and_what_is_ignored(dtype):
    log_y = np.array([[NAN] * 3, [INF] * 3, [-INF] * 3, [-1, -2, -3], [NAN] * 3], dtype)
    target = [-100, -100, -100, 1, 0]
    losses = csoftmax.nll_loss(log_y, target, reduction="none")
    np.testing.assert_array_equal(losses, [0, 0, 0, 2, NAN])
    assert np.isnan(csoftmax.nll_loss(log_y, target))
    for reduction in ("mean", "sum"):
        assert csoftmax.nll_loss(log_y[:4], target[:4], reduction=reduction) == 2


def test_nothing_to_take_the_mean_of(dtype):
    log_y = -np.ones((3, 4), dtype)
    for some, target, weight in (
        (log_y, [-100] * 3, None), (log_y, [-100] * 3, np.ones(4)), (log_y, [1, 2, 3], np.zeros(4)),
        (log_y[:0], np.empty(0, int), None), (log_y[:0], [], np.ones(4)),
    ):  # fmt: skip
        assert np.isnan(csoftmax.nll_loss(some, target, weight=weight))
        assert csoftmax.nll_loss(some, target, weight=weight, reduction="sum") == 0
        losses = csoftmax.nll_loss(some, target, weight=weight, reduction="none")
        np.testing.assert_array_equal(losses, np.zeros(len(some)))


def test_casts_to_a_smaller_out_do_not_warn():
    x = np.array([[0, -1e5], [0, -30]])
    with np.errstate(all="raise"):
        for dtype in (np.float16, BFLOAT16, np.float32):
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
                csoftmax.binary_cross_entropy_value_and_grad(
                    logits, x, weight=weight, pos_weight=weight
                )


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


WITHOUT_NUMBERS = """
import itertools, numpy as np
from tests.functions import WITH_OUT

SHAPES = [(2**33, 0), (0, 2**33), (0, 2**33, 5), (2**31, 0, 2**28)]
NAMES = {
    "softmax", "log_softmax", "softmax_vjp", "log_softmax_vjp", "sigmoid", "log_sigmoid",
    "binary_cross_entropy_value_and_grad",
}
calls = [call for call in WITH_OUT.values() if call.name in NAMES]
assert {call.name for call in calls} == NAMES
for call, shape, dtype in itertools.product(calls, SHAPES, "fd"):
    for axis in range(len(shape)):
        operands = {key: np.ones(shape, "?" if key == "mask" else dtype) for key in call.operands}
        if "temperature" in operands:
            operands["temperature"] = 0.7
        for out in (None, np.empty(shape, dtype), np.empty(shape[::-1], dtype).T):
            assert call(operands, axis, out)[-1].shape == shape
"""


def test_billions_of_rows_without_a_number(build):
    """Nothing is done for each of them. A script of its own, which is ended if it hangs."""
    run_checked(WITHOUT_NUMBERS, CSOFTMAX_ISA=build)
