"""nll_loss: of log-probabilities what cross_entropy is of logits."""

import numpy as np
import pytest

import csoftmax

from .cases import KINDS, LAYOUTS, mixed_rows
from .exact import LONG, largest_error
from .exact_losses import ExactLosses, coefficients, error_of_sum
from .test_accuracy import targets_of
from .test_layouts import LAYOUTS as ARRANGEMENTS
from .test_layouts import logits

INF, NAN = np.inf, np.nan
LENGTHS = [1, 2, 3, 8, 17, 40, 64, 129, 300, 1000, 4097]


def problem(count, n, dtype):
    """Log-probabilities, of which a fifth is ignored."""
    log_y = -np.abs(logits((count, n), dtype))
    target = np.random.default_rng(n).integers(n, size=count)
    target[::5] = -100
    return log_y, target


def weights(n, dtype):
    rng = np.random.default_rng(n)
    return (rng.uniform(0.1, 2, n) * (rng.random(n) > 0.1)).astype(dtype)


def exact_losses(log_y, target, **keywords):
    """Losses, and the number that their mean divides by."""
    c, divisor = coefficients(target, log_y.shape[1], **keywords)
    return np.where(c == 0, 0, -c * log_y.astype(LONG)).sum(-1), divisor


def check(loss, right, dtype, limits, summands=1):
    assert loss.dtype == (dtype if np.ndim(loss) else np.float64)
    limit = limits["log"] + error_of_sum(summands, dtype)
    assert largest_error(loss, right, dtype) <= limit


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weight"])
def test_values(weighted, dtype, limits):
    for n in LENGTHS:
        log_y, target = problem(50, n, dtype)
        keywords = {"weight": weights(n, dtype)} if weighted else {}
        losses, divisor = exact_losses(log_y, target, **keywords)
        for layout in LAYOUTS:
            arranged, axis = layout(log_y)
            for reduction, right, summands in (
                ("none", losses, 1), ("sum", losses.sum(), 50),
                ("mean", losses.sum() / divisor, 50),
            ):  # fmt: skip
                loss = csoftmax.nll_loss(arranged, target, axis, reduction=reduction, **keywords)
                check(loss, right, dtype, limits, summands)


def test_without_a_weight_nothing_is_rounded(dtype, build):
    log_y, target = problem(50, 30, dtype)
    losses = csoftmax.nll_loss(log_y, target, reduction="none")
    kept = target >= 0
    np.testing.assert_array_equal(losses[kept], -log_y[kept, target[kept]])
    assert (losses[~kept] == 0).all()


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weight"])
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_it_is_the_cross_entropy_of_logits(weighted, dtype, limits):
    """Of two results that are within the limit; those of nll_loss are rounded once more."""
    for n in LENGTHS:
        x = mixed_rows(KINDS, 18, n, dtype)
        target = targets_of(x)
        target[::5] = -100
        keywords = {"weight": weights(n, dtype)} if weighted else {}
        exact = ExactLosses(x, target, **keywords)
        losses = csoftmax.nll_loss(csoftmax.log_softmax(x), target, reduction="none", **keywords)
        right = csoftmax.cross_entropy(x, target, reduction="none", **keywords)
        np.testing.assert_array_equal(np.isinf(losses), np.isinf(right))
        kept = exact.in_range
        scale = np.minimum(exact.largest_terms, 0.75 * np.finfo(dtype).max)[kept]
        limit = 3 * limits["log"] if weighted else 2 * limits["log"]
        assert largest_error(losses[kept], right[kept].astype(LONG), dtype, scale) <= limit
        limit -= limits["log"]
        assert largest_error(losses[kept], exact.losses[kept], dtype, scale) <= limit


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_axes(reduction, dtype, limits):
    for axis in (0, 1, 2, -1, -2):
        log_y = -np.abs(logits((3, 7, 5), dtype))
        moved = np.moveaxis(log_y, axis, -1)
        target = np.random.default_rng(0).integers(moved.shape[-1], size=moved.shape[:-1])
        target[1, 1:3] = -100
        weight = np.linspace(0.5, 1.5, moved.shape[-1]).astype(dtype)
        right, divisor = exact_losses(
            moved.reshape(-1, moved.shape[-1]), target.ravel(), weight=weight
        )
        loss = csoftmax.nll_loss(log_y, target, axis, weight=weight, reduction=reduction)
        assert np.shape(loss) == (target.shape if reduction == "none" else ())
        if reduction != "none":
            right = right.sum() / (divisor if reduction == "mean" else 1)
        check(loss, np.reshape(right, np.shape(loss)), dtype, limits, target.size)


def test_one_row(build):
    for reduction in ("mean", "sum", "none"):
        loss = csoftmax.nll_loss([-1.0, -0.5, -2.0], 2, reduction=reduction)
        assert loss == 2
        assert np.ndim(loss) == 0


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_layouts(arrangement, dtype, build):
    log_y, target = problem(12, 40, np.dtype(np.float64) if arrangement == "list" else dtype)
    weight = weights(40, dtype)
    arrange = ARRANGEMENTS[arrangement]
    strided_target = np.repeat(target, 2).astype(">i4")[::2]
    before = log_y.copy()
    for reduction in ("mean", "none"):
        right = csoftmax.nll_loss(log_y, target, weight=weight, reduction=reduction)
        loss = csoftmax.nll_loss(
            arrange(log_y), strided_target, weight=arrange(weight), reduction=reduction
        )
        np.testing.assert_array_equal(loss, right)
        assert loss.dtype == (log_y.dtype if reduction == "none" else np.float64)
    np.testing.assert_array_equal(log_y, before)


@pytest.mark.parametrize(
    ("given", "returned"),
    [(np.float16, np.float32), (np.float32, np.float32), (np.int8, np.float32),
     (np.float64, np.float64), (np.int64, np.float64)],
)  # fmt: skip
@pytest.mark.parametrize("of_weight", [None, np.int64, np.float16, np.float32, np.float64])
def test_the_log_probabilities_decide_the_type(given, returned, of_weight, build):
    log_y = np.array([[-1, -2, -3], [-4, -5, -6]], given)
    weight = None if of_weight is None else np.array([1, 2, 3], of_weight)
    for target_type in (np.int8, np.uint64, ">i4"):
        target = np.array([0, 2], target_type)
        for reduction in ("none", "mean"):
            loss = csoftmax.nll_loss(log_y, target, weight=weight, reduction=reduction)
            right = np.array([1, 6] if weight is None else [1, 18])
            if reduction == "mean":
                right = right.sum() / (2 if weight is None else 4)
            np.testing.assert_array_equal(loss, right)
            assert loss.dtype == (returned if reduction == "none" else np.float64)


def test_mean_divides_by_the_weights_that_are_used(dtype, build):
    log_y = np.array([[-1, -2, -4]] * 4, dtype)
    for ignore_index, right in ((-100, 37 / 11), (2, 5 / 3), (0, 36 / 10), (1, 33 / 9)):
        loss = csoftmax.nll_loss(log_y, [0, 2, 1, 2], weight=[1, 2, 4], ignore_index=ignore_index)
        assert loss == right


def test_sum_is_accumulated_in_float64(build):
    log_y = np.full((300_000, 3), -0.1, np.float32)
    loss = csoftmax.nll_loss(log_y, np.zeros(300_000, int), reduction="sum")
    assert loss == 300_000 * float(np.float32(0.1))


# Edge cases.


def test_a_target_at_minus_infinity(dtype, build):
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


def test_nan_and_what_is_ignored(dtype, build):
    log_y = np.array([[NAN] * 3, [INF] * 3, [-INF] * 3, [-1, -2, -3], [NAN] * 3], dtype)
    target = [-100, -100, -100, 1, 0]
    losses = csoftmax.nll_loss(log_y, target, reduction="none")
    np.testing.assert_array_equal(losses, [0, 0, 0, 2, NAN])
    assert np.isnan(csoftmax.nll_loss(log_y, target))
    for reduction in ("mean", "sum"):
        assert csoftmax.nll_loss(log_y[:4], target[:4], reduction=reduction) == 2


def test_nothing_to_take_the_mean_of(dtype, build):
    log_y = -np.ones((3, 4), dtype)
    for rows, target, weight in (
        (log_y, [-100] * 3, None), (log_y, [-100] * 3, np.ones(4)), (log_y, [1, 2, 3], np.zeros(4)),
        (log_y[:0], np.empty(0, int), None), (log_y[:0], [], np.ones(4)),
    ):  # fmt: skip
        assert np.isnan(csoftmax.nll_loss(rows, target, weight=weight))
        assert csoftmax.nll_loss(rows, target, weight=weight, reduction="sum") == 0
        losses = csoftmax.nll_loss(rows, target, weight=weight, reduction="none")
        np.testing.assert_array_equal(losses, np.zeros(len(rows)))


def test_no_floating_point_flag_is_left_behind(dtype, build):
    log_y = np.array([[NAN] * 3, [-INF] * 3, [-1e-30, -2, -3], [-INF, 0, -INF]], dtype)
    with np.errstate(all="raise"):
        for reduction in ("mean", "sum", "none"):
            for target in ([0, 1, 2, 0], [-100] * 4):
                for weight in (None, [0, 1, 2], [0, 0, 0]):
                    csoftmax.nll_loss(log_y, target, weight=weight, reduction=reduction)


# What is refused: as by cross_entropy, in the same words.

X = -np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize(
    ("target", "keywords", "error"),
    [
        ([0, 4, 1], {}, IndexError), ([0, 1, -1], {}, IndexError),
        ([0, 4, 1], {"weight": np.ones(4)}, IndexError),
        (np.array([0, 2**63, 1], np.uint64), {}, IndexError),
        *(([0, 1, 2], {"weight": weight}, ValueError)
          for weight in (np.ones(3), np.ones((1, 4)), 1.0)),
        *(([0, 1, 2], {"weight": np.ones(4, dtype)}, TypeError) for dtype in (complex, object)),
        ([0, 1, 2], {"reduction": "avg"}, ValueError), ([0, 1, 2], {"reduction": None}, ValueError),
        ([0, 1, 2], {"ignore_index": 1.5}, TypeError), ([0, 1, 2], {"axis": 2}, ValueError),
        ([0, 1, 2], {"ignore_index": 2**63}, ValueError), ([0, 1, 2], {"axis": None}, TypeError),
    ],
)  # fmt: skip
def test_arguments_that_are_refused(target, keywords, error):
    messages = []
    for function in (csoftmax.cross_entropy, csoftmax.nll_loss):
        with pytest.raises(error) as raised:
            function(X, target, **keywords)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize(
    ("target", "error", "parts"),
    [
        (np.full((3, 4), 0.25), (TypeError, ValueError), ("(3,)", "(3, 4)")),
        (np.eye(3, 4, dtype=int), ValueError, ("(3,)", "(3, 4)")),
        ([0.0, 1.0, 2.0], TypeError, ("(3,)", "float64")),
        ([0, 1], ValueError, ("(3,)", "(2,)")), (0, ValueError, ("(3,)", "()")),
        (["a", "b", "c"], TypeError, ("<U1",)), ([1j, 0, 1], TypeError, ("complex128",)),
    ],
)  # fmt: skip
def test_targets_are_class_indices(target, error, parts):
    with pytest.raises(error) as raised:
        csoftmax.nll_loss(X, target)
    for part in ("target", *parts):
        assert part in str(raised.value)


@pytest.mark.parametrize("dtype", [np.longdouble, np.complex64, object, "U3"])
def test_types_that_are_refused(dtype):
    with pytest.raises(TypeError, match=r"float32 or float64.*got"):
        csoftmax.nll_loss(np.zeros((2, 3), dtype), [0, 1])
    with pytest.raises(np.exceptions.AxisError):
        csoftmax.nll_loss(-1.0, 0)
