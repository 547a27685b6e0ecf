"""Losses and gradients: peers' results, means and sums, finite differences, distillation."""

import functools
import itertools
from dataclasses import replace

import numpy as np
import pytest

import csoftmax

from .cases import LAYOUTS, normal, rows
from .exact import LONG, Exact, coefficients, largest_error
from .functions import CALLS, hold, masks, operands_of_rows

pytestmark = pytest.mark.usefixtures("build")


def test_sum_is_accumulated_in_float64():
    """10^6 losses of float32 summed in float32 would be off in the fourth digit."""
    x = np.zeros((1_000_000, 3), np.float32)
    x[::2, 0] = 1
    target = np.zeros(1_000_000, int)
    for function in (csoftmax.cross_entropy, csoftmax.nll_loss):
        right = function(x - 0.1, target, reduction="none").astype(LONG).sum()
        assert function(x - 0.1, target, reduction="sum") == right


def reductions(x, target, weight):
    """Of each loss: it itself, its losses, and the number that its mean divides by."""
    one_hot = np.eye(x.shape[1])[target]
    for function, given, keywords, divisor in (
        (csoftmax.cross_entropy, target, {"weight": weight}, weight[target].sum()),
        (csoftmax.cross_entropy, one_hot, {"label_smoothing": 0.1}, len(x)),
        (csoftmax.nll_loss, target, {}, len(x)),
        (csoftmax.binary_cross_entropy, one_hot, {"pos_weight": weight}, x.size),
    ):
        loss = functools.partial(function, x, given, **keywords)
        yield loss, loss(reduction="none"), divisor
    both = functools.partial(csoftmax.cross_entropy_value_and_grad, x, target)
    yield lambda reduction: both(reduction=reduction)[0], both(reduction="none")[0], len(x)


@pytest.mark.parametrize("input_dtype", [np.int8, np.float16, np.float32, np.float64])
def test_means_and_sums_are_float64(input_dtype):
    """Nothing but each loss is rounded to float32."""
    rng = np.random.default_rng(0)
    x = (3 * rng.normal(size=(3001, 7))).astype(input_dtype)
    target, weight = rng.integers(7, size=len(x)), np.arange(1.0, 8.0)
    for loss, losses, divisor in reductions(x, target, weight):
        assert losses.dtype == (np.float64 if input_dtype == np.float64 else np.float32)
        right = losses.astype(LONG).sum()
        for reduction, expected in (("sum", right), ("mean", right / divisor)):
            result = loss(reduction=reduction)
            assert type(result) is np.float64
            np.testing.assert_allclose(result, expected, rtol=2 * np.finfo(np.float64).eps)
        assert np.float32(result) != result


def test_means_of_close_parameters_differ():
    """Rounded to float32 several would be the same, and a line search would stop there."""
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=(5000, 10)).astype(np.float32), rng.integers(10, size=5000)
    _, grad = csoftmax.cross_entropy_value_and_grad(x, target, reduction="sum")
    grad[500:] = 0
    steps = [x - np.float32(step * 1e-6) * grad for step in range(10)]
    means = np.array([csoftmax.cross_entropy(step, target) for step in steps])
    assert len(set(means.astype(np.float32))) < 7
    assert (np.diff(means) < 0).all()
    right = np.array([Exact(step).loss(target).mean() for step in steps])
    assert (np.abs(means - right) < np.spacing(np.float32(2)) / 50).all()


@pytest.mark.parametrize(
    "name", [name for name, call in CALLS.items() if "indices" in call.operands]
)
def test_any_number_may_be_ignored(name, dtype, limits):
    """Each with every length; layouts take turns."""
    cases = itertools.product((3, 17, 129, 4097), (-1, 0, 2, None, 10**18))
    for (n, ignore_index), layout in zip(cases, itertools.cycle(LAYOUTS), strict=False):
        call, ignored = CALLS[name], n if ignore_index is None else ignore_index
        call = replace(call, others=call.others | {"ignore_index": ignored})
        operands = operands_of_rows(call.operands, rows(normal, 9, n, dtype), [0.7])
        operands["indices"][1::7] = ignored
        hold(call, limits, operands, layout)


def derivatives(total, x):
    """Slopes of a function of logits, one for each of them."""
    step = LONG(2) ** -20
    slopes = np.empty(x.shape)
    for place in np.ndindex(x.shape):
        up, down = x.astype(LONG), x.astype(LONG)
        up[place] += step
        down[place] -= step
        slopes[place] = (total(up) - total(down)) / (2 * step)
    return slopes


@pytest.mark.parametrize(
    "name", [name for name in CALLS if name.startswith("cross_entropy_value_and_grad")]
)
def test_gradients_against_finite_differences(name):
    """Of the exact losses, where these are finite: no target is masked."""
    call = CALLS[name]
    x = np.random.default_rng(0).normal(size=(8, 5))
    operands = operands_of_rows(call.operands, x, [0.5, 1.0, 1.7, 4.0])
    places, keywords = call.arguments(operands)
    temperature = keywords.pop("temperature", np.ones(8))
    reduction = keywords.pop("reduction", "mean")
    where = keywords.pop("where", np.ones(x.shape, bool))
    del keywords["axis"]
    c, divisor = coefficients(places[1], 5, **keywords)
    kept = ((c == 0) | where).all(-1) & where.any(-1)

    def total(x):
        log_p = Exact(x[kept], temperature[kept], where[kept]).log_softmax
        loss = -(c[kept] * np.where(c[kept] == 0, 0, log_p)).sum()
        return loss / divisor if reduction == "mean" else loss

    gradient = call(operands)[1]
    np.testing.assert_allclose(gradient[kept], derivatives(total, x)[kept], 1e-8, 1e-11)
    assert kept.sum() > 2


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_products_against_finite_differences(name, temperature):
    """Of the exact function, masked; a masked logit changes nothing."""
    x, where = np.random.default_rng(0).normal(size=(12, 7)), masks(12, 7)
    grad = np.random.default_rng(1).normal(size=x.shape)
    y = getattr(csoftmax, name)(x, temperature=temperature, where=where)
    result = getattr(csoftmax, f"{name}_vjp")(grad, y, temperature=temperature)
    kept = where.any(-1)

    def total(x):
        outcome = getattr(Exact(x, temperature, where[kept]), name)
        return (grad[kept] * np.where(where[kept], outcome, 0)).sum()

    np.testing.assert_allclose(result[kept], derivatives(total, x[kept]), 1e-8, 1e-11)
    assert (result[~where] == 0).all()


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_a_gradient_times_the_jacobian(temperature, dtype, limits):
    x = rows(normal, 20, 30, dtype)
    y = csoftmax.softmax(x, temperature=temperature, where=masks(20, 30))
    grad = np.random.default_rng(0).normal(size=y.shape).astype(dtype)
    jacobian = csoftmax.softmax_jacobian(y, temperature=temperature).astype(LONG)
    product = (grad.astype(LONG)[:, None] @ jacobian)[:, 0]
    result = csoftmax.softmax_vjp(grad, y, temperature=temperature)
    exact = y.astype(LONG)
    terms = np.maximum(np.eye(30) * exact[:, None], exact[:, None] * exact[..., None]) / temperature
    scale = np.abs(grad.astype(LONG))[:, None] @ terms
    error = np.abs(result - product) / np.finfo(dtype).eps
    limit = 2 * limits["gradient"]    # of both functions
    assert (error <= limit * scale[:, 0].max(-1, keepdims=True)).all()


# What torch.nn.functional.cross_entropy 2.13 makes of these: the loss, and the last row's gradient.
PEER_LOGITS = [[1.0, -0.5, 2.0, 0.25], [0.0, 3.0, -1.0, 0.5], [2.0, 2.0, -3.0, 1.0]]
PEER_WEIGHT = [0.5, 2.0, 0.25, 1.5]
PEER_INDICES = [0, -100, 3]
PEER_PROBABILITIES = [[0.1, 0.2, 0.3, 0.4], [0.0, 1.0, 0.0, 0.0], [0.25, 0.25, 0.5, 0.0]]
PEER_RESULTS = [
    (PEER_INDICES, None, 0.1, "mean", 1.7154087297464733,
     [0.19806023698420488, 0.19806023698420488, -0.011081256283085553, -0.3850392176853243]),
    (PEER_INDICES, PEER_WEIGHT, 0.0, "mean", 1.769810027268726,
     [0.31584035547630734, 0.31584035547630734, 0.002128115575371673, -0.6338088265279864]),
    (PEER_INDICES, PEER_WEIGHT, 0.1, "mean", 1.8004622958274163,
     [0.30037834510824846, 0.2816283451082484, -0.0010589544622433343, -0.5809477357542535]),
    (PEER_INDICES, PEER_WEIGHT, 0.1, "sum", 3.6009245916548327,
     [0.6007566902164969, 0.5632566902164968, -0.0021179089244866686, -1.161895471508507]),
    (PEER_PROBABILITIES, None, 0.0, "mean", 1.7631642036845137,
     [0.05704015798946993, 0.05704015798946993, -0.16572083752205702, 0.051640521543117164]),
    (PEER_PROBABILITIES, None, 0.1, "mean", 1.8094142036845138,
     [0.05704015798946993, 0.05704015798946993, -0.1573875041887237, 0.04330718820978383]),
    (PEER_PROBABILITIES, PEER_WEIGHT, 0.1, "mean", 1.455101218617721,
     [0.06800012342927338, -0.056999876570726624, -0.03884440431410706, 0.02784415745556028]),
    (PEER_PROBABILITIES, PEER_WEIGHT, 0.1, "sum", 4.365303655853163,
     [0.20400037028782014, -0.17099962971217986, -0.11653321294232118, 0.08353247236668085]),
]  # fmt: skip


def test_the_peers_results():
    for target, weight, smoothing, reduction, right, right_row in PEER_RESULTS:
        loss, gradient = csoftmax.cross_entropy_value_and_grad(
            PEER_LOGITS, target, weight=weight, label_smoothing=smoothing, reduction=reduction
        )
        np.testing.assert_allclose(loss, right, rtol=1e-14)
        np.testing.assert_allclose(gradient[2], right_row, rtol=1e-13)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(temperature, dtype, limits):
    """The gradient is what the errors of probabilities leave: of the targets, and of their sum."""
    suffix = "" if temperature == 1 else " with temperature"
    limit = 2 * limits["softmax" + suffix] + limits["gradient" + suffix]
    for shape in ((40, 10), (20, 130), (6, 1000), (3, 5000)):
        x = 5 * rows(normal, *shape, dtype)
        target = csoftmax.softmax(x, temperature=temperature)
        loss, gradient = csoftmax.cross_entropy_value_and_grad(
            x, target, temperature=temperature, reduction="none"
        )
        scale = target.max(-1, keepdims=True) / dtype.type(temperature)
        zero = np.zeros(shape, LONG)
        assert largest_error(gradient, zero, dtype, np.broadcast_to(scale, shape)) <= limit
        entropy = -(target * csoftmax.log_softmax(x, temperature=temperature)).sum(-1)
        np.testing.assert_allclose(loss, entropy, rtol=1e-5)


# What would take a look at each number to find is not refused, see docs/guarantees.md.
@pytest.mark.parametrize("target", [[[-0.5, 1.5], [2.0, 3.0]], [[0.0, 0.0], [-1.0, 0.25]]])
def test_targets_that_are_no_probabilities_go_into_the_formula(target, dtype):
    z, target = np.array([[1.0, -2.0], [0.5, 3.0]], dtype), np.array(target, dtype)
    log_p = z.astype(LONG) - np.log(np.exp(z.astype(LONG)).sum(-1, keepdims=True))
    losses, grad = csoftmax.cross_entropy_value_and_grad(z, target, reduction="none")
    rtol = 20 * np.finfo(dtype).eps
    np.testing.assert_allclose(losses, -(target * log_p).sum(-1), rtol)
    np.testing.assert_allclose(
        grad, target.sum(-1, keepdims=True) * np.exp(log_p) - target, rtol, rtol
    )
    x = z.astype(LONG)
    right = (1 - target) * x + np.log1p(np.exp(-x))
    binary = csoftmax.binary_cross_entropy(z, target, reduction="none")
    np.testing.assert_allclose(binary, right, rtol, rtol)
    np.testing.assert_array_equal(csoftmax.nll_loss(z, [0, 1], reduction="none"), [-1, -3])


@pytest.mark.parametrize("weights", [[-1.0, 1.0], [1e30, -1e30], [0.0, 0.0]], ids=str)
def test_weights_that_sum_to_0(weights, dtype):
    """A mean is NaN, of weights of either kind, and so is its gradient where there are losses."""
    z, rows = np.array([[0.0, 1.0], [2.0, 3.5]], dtype), np.array(weights, dtype)
    for given in ({"weight": rows}, {"sample_weight": rows}):
        loss, grad = csoftmax.cross_entropy_value_and_grad(z, [0, 1], **given)
        assert np.isnan(loss)
        assert np.isnan(csoftmax.cross_entropy(z, [0, 1], **given))
        assert np.isnan(csoftmax.nll_loss(z, [0, 1], **given))
        assert np.isfinite(csoftmax.cross_entropy(z, [0, 1], **given, reduction="sum"))
        assert not np.isinf(grad).any()


def test_the_smallest_probabilities(dtype):
    """Under the smallest normal number they may be 0; logarithms, and losses of them, are right."""
    tiny = float(np.finfo(dtype).tiny)
    limit = -np.log(tiny)
    x = np.array([[0, 0.01 - limit], [0, -limit - 0.01], [0, -3 * limit]]).astype(dtype)
    right = np.exp(x[:, 1].astype(LONG))
    got = csoftmax.softmax(x)[:, 1]
    np.testing.assert_allclose(got[0], float(right[0]), 4 * np.finfo(dtype).eps)
    assert (abs(got - right) <= tiny).all()
    np.testing.assert_array_equal(csoftmax.log_softmax(x)[:, 1], x[:, 1])
    np.testing.assert_array_equal(
        csoftmax.cross_entropy(x, [1, 1, 1], reduction="none"), -x[:, 1]
    )
    certain, grad = csoftmax.cross_entropy_value_and_grad(x, [0, 0, 0], reduction="none")
    assert (abs(certain - right) <= tiny).all()
    assert (abs(grad[:, 1] - right) <= tiny).all()
    assert (abs(csoftmax.entropy(x) - right * (1 - x[:, 1])) <= 2 * limit * tiny).all()


# Zero times infinity, and numbers beyond the range on the way. Right values: exact arithmetic.

LOGITS = np.array([[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]])
OF_TWO = 1.4795253391882157    # the mean loss of the classes 0 and 1


@pytest.mark.parametrize("nothing", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.parametrize("n", [3, 40, 9001])
def test_weights_of_absent_classes_dont_count(nothing, layout, n, dtype):
    """As the balanced weights of a class without a sample are: as if they were 0."""
    rng = np.random.default_rng(n)
    z, target = rng.normal(size=(5, n)).astype(dtype), np.array([0, 1, 0, -100, 1])
    weight = rng.exponential(size=n)
    soft = rng.dirichlet(np.ones(n), 5) * (np.arange(n) < n // 2)
    one_hot = np.arange(n) == np.where(target < 0, 0, target)[:, None]
    finite, absent = weight.copy(), weight.copy()
    absent[n // 2 + 1 :], finite[n // 2 + 1 :] = nothing, 0
    others = {"temperature": 0.7, "sample_weight": [1.0, 2.0, 0.5, 3.0, 0.0]}
    laid, axis = layout(z)
    for given in (target, layout(one_hot.astype(dtype))[0], layout(soft.astype(dtype))[0]):
        for reduction, more in itertools.product(("mean", "none"), ({}, others)):
            keywords = {"reduction": reduction} | more
            expected = csoftmax.cross_entropy_value_and_grad(
                laid, given, axis, weight=finite, **keywords
            )
            result = csoftmax.cross_entropy_value_and_grad(
                laid, given, axis, weight=absent, **keywords
            )
            for one, other in zip(result, expected, strict=True):
                np.testing.assert_array_equal(one, other)
                assert np.isfinite(one).all()
            loss = csoftmax.cross_entropy(laid, given, axis, weight=absent, **keywords)
            np.testing.assert_array_equal(loss, expected[0])


def test_an_infinite_weight_of_a_target_makes_its_loss_infinite(dtype):
    z, weight = LOGITS.astype(dtype), [1.0, np.inf, 1.0]
    for target in ([0, 1], np.eye(3)[[0, 1]]):
        losses, grad = csoftmax.cross_entropy_value_and_grad(
            z, target, weight=weight, reduction="none"
        )
        assert losses[1] == np.inf
        assert np.isfinite(losses[0])
        assert not np.isfinite(grad[1]).any()
        assert np.isfinite(grad[0]).all()
    smoothed = csoftmax.cross_entropy(z, [0, 0], weight=weight, label_smoothing=0.1)
    assert smoothed == np.inf    # of which every class is a target


@pytest.mark.parametrize("weight", [1e-304, 1.7e308, 1e-50, 1e39, 1e-320])
def test_means_with_weights_beyond_the_range(weight, dtype):
    z, target, weights = LOGITS.astype(dtype), [0, 1], np.full(3, weight)
    rows = np.full(2, weight)
    rtol = 8 * np.finfo(dtype).eps if weight > 1e-310 else 0.01    # or its own few digits
    expected = csoftmax.cross_entropy_value_and_grad(z, target)
    for given in ({"weight": weights}, {"sample_weight": rows}):
        loss, grad = csoftmax.cross_entropy_value_and_grad(z, target, **given)
        np.testing.assert_allclose(loss, OF_TWO, rtol)
        np.testing.assert_allclose(grad, expected[1], rtol)
        assert grad.dtype == dtype
        np.testing.assert_allclose(csoftmax.cross_entropy(z, target, **given), OF_TWO, rtol)
        log_p = csoftmax.log_softmax(z)
        np.testing.assert_allclose(csoftmax.nll_loss(log_p, target, **given), OF_TWO, rtol)


def test_weights_that_float32_does_not_hold():
    """Are computed with in float64; the losses have the logits' type again."""
    z, target = LOGITS.astype(np.float32), [0, 1]
    losses, grad = csoftmax.cross_entropy_value_and_grad(
        z, target, weight=np.full(3, 1e-41), sample_weight=[1e6, 1e6], reduction="none"
    )
    plain, plain_grad = csoftmax.cross_entropy_value_and_grad(z, target, reduction="none")
    assert losses.dtype == grad.dtype == np.float32
    np.testing.assert_allclose(losses, plain * 1e-35, 1e-6)
    np.testing.assert_allclose(grad, plain_grad * 1e-35, 1e-6)
    out = np.empty_like(z)
    loss, binary = csoftmax.binary_cross_entropy_value_and_grad(
        z, np.ones_like(z), weight=np.float64(1e39), reduction="none", out=out
    )
    assert binary is out
    assert loss.dtype == np.float32
    right = 1e39 * np.log1p(np.exp(-LOGITS))
    np.testing.assert_allclose(loss, np.where(right < 3.4e38, right, np.inf), 1e-6)


def test_means_and_sums_whose_sum_on_the_way_is_too_large():
    z = np.array([[0, -1.2e308]] * 4)
    assert csoftmax.cross_entropy(z, [1] * 4) == 1.2e308
    assert csoftmax.nll_loss(z, [1] * 4) == 1.2e308
    assert csoftmax.binary_cross_entropy(z[:, 1], np.ones(4)) == 1.2e308
    signs = {"sample_weight": [1.0, 1.0, -1.0, -1.0], "reduction": "sum"}
    assert csoftmax.cross_entropy(z, [1] * 4, **signs) == 0
    assert csoftmax.cross_entropy(z, [1] * 4, reduction="sum") == np.inf
    small = csoftmax.cross_entropy(z[:1], [1], weight=[1.0, 12.0], sample_weight=[0.07])
    np.testing.assert_allclose(small, 1.2e308, 1e-15)


def test_entropies_and_losses_at_a_tiny_temperature():
    p = np.exp(LONG(-69))
    for x in ([0.0, -69e-280], [-69e-280, 0.0]):
        entropy = csoftmax.entropy(x, temperature=1e-280)
        np.testing.assert_allclose(entropy, float(p * 70), 1e-13)
