"""Losses of probabilities, and of class indices with weights and label smoothing."""

import mpmath
import numpy as np
import pytest

import csoftmax

from .cases import KINDS, LAYOUTS, contiguous, huge, mixed_rows, side_by_side
from .exact import LONG, largest_error, well_above_underflow
from .exact_losses import ExactLosses, error_of_sum
from .test_accuracy import TEMPERATURES, dominated_rows, targets_of
from .test_edge_cases import beside_a_forbidden_page
from .test_exact import GOOD_TO
from .test_layouts import LAYOUTS as ARRANGEMENTS
from .test_layouts import logits

INF, NAN = np.inf, np.nan

# Below, at and above what fills lanes, blocks and chunks; short rows have batches of their own.
LENGTHS = [
    1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 40, 41, 63, 64, 65, 100, 127, 128, 129, 300, 1000,
    2047, 2049, 4095, 4096, 4097, 8193,
]  # fmt: skip
SOME_LENGTHS = [2, 17, 40, 129, 300, 4097]    # one for each kind of loop

CASES = [
    "indices, smoothing", "indices, weight", "indices, weight, smoothing, ignored",
    "probabilities", "probabilities, weight, smoothing",
]  # fmt: skip
each_case = pytest.mark.parametrize("case", CASES)
each_temperature = pytest.mark.parametrize("tempered", [False, True], ids=["T = 1", "tempered"])


def problem(case, x, tempered=False):
    """A target for the rows of x, and the keywords that belong to it."""
    count, n = x.shape
    rng = np.random.default_rng([count, n])
    target = probabilities(x) if case.startswith("probabilities") else targets_of(x)
    keywords = {}
    if "weight" in case:
        weight = rng.uniform(0.1, 2, n) * (rng.random(n) > 0.1)
        keywords["weight"] = weight.astype(x.dtype)
    if "smoothing" in case:
        keywords["label_smoothing"] = 0.1
    if "ignored" in case:
        target[1::4] = -100
    if tempered:
        keywords["temperature"] = rng.choice([1.0, *TEMPERATURES], size=count)
    return target, keywords


def probabilities(x):
    """In turn of all classes, some, one, and not quite normalized; mostly 0 where x is -inf."""
    rng = np.random.default_rng([1, *x.shape])
    t = rng.exponential(size=x.shape)
    t[1::4] *= rng.random(t[1::4].shape) < 0.3
    t[2::4] = np.arange(x.shape[1]) == targets_of(x[2::4])[:, None]
    t[(x == -INF) & (rng.random((len(x), 1)) < 0.8)] = 0
    t /= np.maximum(t.sum(-1, keepdims=True), 1e-3)
    t[3::4] *= 1.25
    return t.astype(x.dtype)


def results(x, target, layout=contiguous, **keywords):
    """The loss from each function, and the gradient, in a layout that all arrays have."""
    keywords = {"reduction": "none", **keywords}
    arranged, axis = layout(x)
    target = layout(target)[0] if np.shape(target) == x.shape else target
    out, _ = layout(np.full_like(x, NAN))
    loss, gradient = csoftmax.cross_entropy_value_and_grad(
        arranged, target, axis, out=out, **keywords
    )
    assert gradient is out
    alone = csoftmax.cross_entropy(arranged, target, axis, **keywords)
    return loss, alone, np.moveaxis(gradient, axis, -1)


def check_losses(losses, exact, limit):
    """The contract's 2 ULP of the largest term, and inf where a class that counts is at -inf."""
    assert losses.dtype == exact.dtype
    np.testing.assert_array_equal(losses[np.isinf(exact.losses)], INF)
    kept = exact.in_range
    # The ULP is the same from 0.75 times the largest number on, but spacing warns of overflow.
    scale = np.minimum(exact.largest_terms, 0.75 * np.finfo(exact.dtype).max)[kept]
    assert largest_error(losses[kept], exact.losses[kept], exact.dtype, scale) <= limit


def check_reduced(loss, exact, reduction, limit):
    """As for one row; the terms are those of all rows."""
    right, scale = exact.reduced(reduction)
    limit += error_of_sum(len(exact.losses), exact.dtype)
    assert loss.dtype == np.float64
    assert largest_error(loss, right, exact.dtype, scale) <= limit


def check_gradient(gradient, exact, limit, divisor=1):
    """The contract's 4 ULP of the row's largest term."""
    assert gradient.dtype == exact.dtype
    terms = exact.gradient_terms / divisor
    assert (gradient[terms == 0] == 0).all()
    kept = terms <= np.finfo(exact.dtype).max
    right = exact.gradient[kept] / divisor
    scale = np.broadcast_to(terms[kept, None], right.shape)
    assert largest_error(gradient[kept], right, exact.dtype, scale) <= limit


def limits_of(limits, tempered):
    suffix = " with temperature" if tempered else ""
    return limits["log" + suffix], limits["gradient" + suffix]


def check_rows(x, target, limits, layouts=(contiguous,), **keywords):
    exact = ExactLosses(x, target, **keywords)
    tempered = np.any(keywords.get("temperature", 1) != 1)
    loss_limit, gradient_limit = limits_of(limits, tempered)
    for layout in layouts:
        loss, alone, gradient = results(x, target, layout, **keywords)
        check_losses(loss, exact, loss_limit)
        check_losses(alone, exact, loss_limit)
        check_gradient(gradient, exact, gradient_limit)


def assert_close(result, expected):
    """Equal within a few roundings of numbers up to 40."""
    eps = np.finfo(result.dtype).eps
    np.testing.assert_allclose(result, expected, rtol=8 * eps, atol=40 * eps)


# The references themselves, and peers.


@each_case
def test_references_agree_with_mpmath(case):
    count, n = 17, 12
    x = mixed_rows([kind for kind in KINDS if kind is not huge], count, n, np.dtype(np.float64))
    target, keywords = problem(case, x, tempered=True)
    exact = ExactLosses(x, target, **keywords)
    temperature = keywords["temperature"]
    with mpmath.workprec(200):
        weight = [mpmath.mpf(float(w)) for w in keywords.get("weight", np.ones(n))]
        eps = mpmath.mpf(keywords.get("label_smoothing", 0.0))
        for i in range(count):
            z = [mpmath.mpf(float(value)) / temperature[i] for value in x[i]]
            total = mpmath.fsum(mpmath.exp(value - max(z)) for value in z)
            surprise = [mpmath.log(total) + max(z) - value for value in z]
            t = [target[i] == j for j in range(n)] if target.ndim == 1 else target[i]
            c = [w * (float(one) * (1 - eps) + eps / n) for w, one in zip(weight, t, strict=True)]
            if target.ndim == 1 and target[i] == -100:
                c = [mpmath.mpf(0)] * n
            loss = mpmath.fsum(c[j] * surprise[j] for j in range(n) if c[j])
            loss = LONG(mpmath.nstr(loss, 30))
            if np.isinf(loss):
                assert exact.losses[i] == loss
            else:
                assert largest_error(exact.losses[i], loss, np.float64) < GOOD_TO
            scale = exact.gradient_terms[i]
            for j in range(n):
                p = mpmath.exp(-surprise[j]) if surprise[j] < 11000 else 0    # is 0 in longdouble
                slope = LONG(mpmath.nstr((mpmath.fsum(c) * p - c[j]) / temperature[i], 30))
                assert largest_error(exact.gradient[i, j], slope, np.float64, scale) < GOOD_TO


@each_case
def test_gradients_against_finite_differences(case, build):
    x = np.random.default_rng(0).normal(size=(8, 5))
    target, keywords = problem(case, x)
    keywords["temperature"] = np.linspace(0.5, 4, 8)
    gradient = results(x, target, **keywords)[-1]
    step = LONG(2) ** -20
    for column in range(5):
        change = step * (np.arange(5) == column)
        slope = ExactLosses(x + change, target, **keywords).losses
        slope = (slope - ExactLosses(x - change, target, **keywords).losses) / (2 * step)
        np.testing.assert_allclose(gradient[:, column], slope.astype(float), 1e-8, 1e-11)


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


def test_the_peers_results(build):
    for target, weight, smoothing, reduction, right, right_row in PEER_RESULTS:
        loss, gradient = csoftmax.cross_entropy_value_and_grad(
            PEER_LOGITS, target, weight=weight, label_smoothing=smoothing, reduction=reduction
        )
        np.testing.assert_allclose(loss, right, rtol=1e-14)
        np.testing.assert_allclose(gradient[2], right_row, rtol=1e-13)


# Accuracy: every kind of row, every length where a loop changes.


@each_case
@each_temperature
def test_values_and_gradients(case, tempered, dtype, limits):
    for n in LENGTHS:
        x = mixed_rows(KINDS, 36 if n <= 41 else 18 if n <= 300 else 8, n, dtype)
        target, keywords = problem(case, x, tempered)
        check_rows(x, target, limits, LAYOUTS, **keywords)


@pytest.mark.parametrize("case", ["indices, weight, smoothing, ignored", CASES[-1]])
@each_temperature
def test_any_number_of_rows(case, tempered, dtype, limits):
    """They fill the lanes of a batch, or are one more, one less, or few."""
    for n in (1, 2, 3, 10, 17, 40, 129):
        for count in (1, 2, 3, 7, 8, 9, 15, 16, 17, 127, 129, 147):
            x = mixed_rows(KINDS, count, n, dtype)
            target, keywords = problem(case, x, tempered)
            check_rows(x, target, limits, [contiguous, side_by_side], **keywords)


@pytest.mark.parametrize("case", ["index, weight", "one-hot", "one-hot, weight"])
@each_temperature
def test_one_class_dominates(case, tempered, dtype, limits):
    """All digits of the loss of that class are right, however small it is."""
    temperature = 0.7 if tempered else 1.0
    limit = limits["log with temperature" if tempered else "log, one class"]
    for n in (2, 3, 16, 17, 40, 129, 300, 1000):
        x, target = dominated_rows(n, [0, n // 2, n - 1], [0, 210, -250, 1700], dtype)
        x = (x * temperature).astype(dtype)
        keywords = {"temperature": temperature}
        if "weight" in case:
            keywords["weight"] = np.random.default_rng(n).uniform(0.5, 2, n).astype(dtype)
        if "one-hot" in case:
            target = (np.arange(n) == target[:, None]).astype(dtype)
        exact = ExactLosses(x, target, **keywords)
        kept = well_above_underflow(exact.losses, n, dtype)
        for layout in LAYOUTS:
            for loss in results(x, target, layout, **keywords)[:2]:
                assert largest_error(loss[kept], exact.losses[kept], dtype) <= limit


@each_case
@each_temperature
def test_reductions(case, tempered, dtype, limits):
    loss_limit, gradient_limit = limits_of(limits, tempered)
    for shape in ((1, 4), (50, 7), (1000, 4), (9, 300), (3, 5000)):
        x = logits(shape, dtype)
        target, keywords = problem(case, x, tempered)
        exact = ExactLosses(x, target, **keywords)
        assert exact.divisor > 0
        for reduction, divisor in (("mean", exact.divisor), ("sum", 1)):
            loss, alone, gradient = results(x, target, reduction=reduction, **keywords)
            check_reduced(loss, exact, reduction, loss_limit)
            check_reduced(alone, exact, reduction, loss_limit)
            check_gradient(gradient, exact, gradient_limit, divisor)


@pytest.mark.parametrize("case", ["indices", "probabilities, weight"])
def test_amounts_of_smoothing(case, dtype, limits):
    for smoothing in (0, 1, 0.0, 1e-3, 0.5, 1.0, np.float32(0.25)):
        for n in (1, 5, 300):
            x = logits((20, n), dtype)
            target, keywords = problem(case, x)
            check_rows(x, target, limits, label_smoothing=smoothing, **keywords)


# Types, layouts and shapes.


@each_case
def test_axes(case, dtype, limits):
    """Target and temperature have the shape of the logits, with or without the axis."""
    loss_limit, gradient_limit = limits_of(limits, tempered=True)
    for shape in ((3, 7, 4, 5), (2, 130, 3, 2)):
        for axis in (0, 1, -1):
            x = logits(shape, dtype)
            moved = np.moveaxis(x, axis, -1)
            rows, row_shape = moved.reshape(-1, shape[axis]), moved.shape[:-1]
            target, keywords = problem(case, rows)
            temperature = np.linspace(0.5, 3, row_shape[-1])
            exact = ExactLosses(
                rows, target, temperature=np.broadcast_to(temperature, row_shape), **keywords
            )
            if target.ndim == 2:
                target = np.moveaxis(target.reshape(moved.shape), -1, axis).copy()
            else:
                target = target.reshape(row_shape)
            keywords["temperature"] = temperature
            loss, gradient = csoftmax.cross_entropy_value_and_grad(x, target, axis, **keywords)
            check_reduced(loss, exact, "mean", loss_limit)
            gradient = np.moveaxis(gradient, axis, -1)
            assert gradient.shape == moved.shape
            gradient = gradient.reshape(rows.shape)
            check_gradient(gradient, exact, gradient_limit, exact.divisor)
            losses = csoftmax.cross_entropy(x, target, axis, reduction="none", **keywords)
            assert losses.shape == row_shape
            check_losses(losses.ravel(), exact, loss_limit)


def test_one_row(dtype, limits):
    x = logits(9, dtype)
    t = probabilities(x[None])[0]
    exact = ExactLosses(x[None], t[None])
    for reduction in ("mean", "sum", "none"):
        loss, alone, gradient = results(x, t, reduction=reduction)
        for one in (loss, alone):
            assert np.ndim(one) == 0
            if reduction == "none":
                check_losses(one.reshape(1), exact, limits["log"])
            else:
                check_reduced(one, exact, "sum", limits["log"])
        check_gradient(gradient[None], exact, limits["gradient"])


def check_both(x, target, exact, limits, **keywords):
    """The loss and its gradient together, and the loss alone."""
    loss, gradient = csoftmax.cross_entropy_value_and_grad(x, target, **keywords)
    check_losses(loss, exact, limits["log"])
    check_gradient(gradient, exact, limits["gradient"])
    check_losses(csoftmax.cross_entropy(x, target, **keywords), exact, limits["log"])


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_probabilities_and_weights_of_any_layout(arrangement, dtype, limits):
    """All numbers are multiples of 1/64, which every type can hold."""
    arrange = ARRANGEMENTS[arrangement]
    for n in (5, 130, 4100):
        rng = np.random.default_rng(n)
        x = logits((6, n), dtype)
        for other in (np.float16, np.float32, np.float64):
            target = (rng.integers(65, size=x.shape) / 64).astype(other)
            weight = (rng.integers(129, size=n) / 64).astype(other)
            exact = ExactLosses(x, target, weight=weight)
            keywords = {"weight": arrange(weight), "reduction": "none"}
            target = arrange(target)
            check_both(x, target, exact, limits, **keywords)


@each_case
def test_the_logits_alone_decide_the_type(case, dtype, limits):
    """And what only the other type can hold is not rounded beyond the contract's limit."""
    x = logits((20, 30), dtype)
    target, keywords = problem(case, x.astype(np.float64))
    for other in (np.float16, np.float32, np.float64):
        converted = target.astype(other) if target.ndim == 2 else target
        if "weight" in keywords:
            keywords["weight"] = keywords["weight"].astype(other)
        check_rows(x, converted, limits, LAYOUTS, **keywords)


@pytest.mark.parametrize("given", [np.float16, np.int16, np.int64])
def test_types_of_logits_that_are_converted(given, limits):
    x = np.random.default_rng(0).integers(-5, 5, size=(20, 30)).astype(given)
    converted = x.astype(np.float64 if given is np.int64 else np.float32)
    target, keywords = problem(CASES[-1], converted)
    exact = ExactLosses(converted, target, **keywords)
    loss, gradient = csoftmax.cross_entropy_value_and_grad(x, target, **keywords)
    check_reduced(loss, exact, "mean", limits["log"])
    check_gradient(gradient, exact, limits["gradient"], exact.divisor)


def test_one_hot_is_the_index(dtype, limits):
    """Also where there are as many rows as classes."""
    for n in (3, 4, 130):
        x = logits((4, n), dtype)
        target = targets_of(x)
        keywords = {"label_smoothing": 0.2, "weight": np.linspace(0.5, 1.5, n).astype(dtype)}
        exact = ExactLosses(x, target, **keywords)
        for other in ("?", "i1", "u1", "i4", ">i4", "i8", "u8", "e", "f", "d", ">d"):
            one_hot = (np.arange(n) == target[:, None]).astype(other)
            for layout in (contiguous, side_by_side):
                loss, alone, gradient = results(x, one_hot, layout, **keywords)
                check_losses(loss, exact, limits["log"])
                check_losses(alone, exact, limits["log"])
                check_gradient(gradient, exact, limits["gradient"])


def test_types_of_weights(dtype, limits):
    x = logits((20, 5), dtype)
    wide = np.repeat([1, 0, 2, 1, 3], 2)
    for weight in (wide[::2].tolist(), wide[::2], wide[::-2], wide[::2] > 0, wide[::2] / 7):
        check_rows(x, targets_of(x), limits, weight=weight)
        check_rows(x, probabilities(x), limits, weight=weight)


def test_broadcast_targets_and_logits(dtype, limits):
    for n in (5, 130, 4100):
        x = logits((6, n), dtype)
        same_rows = np.broadcast_to(probabilities(x)[:1], x.shape)
        same_number = np.broadcast_to(dtype.type(1 / n), x.shape)
        keywords = {"weight": np.broadcast_to(dtype.type(1.5), n), "reduction": "none"}
        for given, target in (
            (x, same_rows), (x, same_number), (np.broadcast_to(x[:1], x.shape), same_rows)
        ):  # fmt: skip
            exact = ExactLosses(given, target, weight=keywords["weight"])
            check_both(given, target, exact, limits, **keywords)


@each_case
def test_out_and_in_place(case, dtype, limits):
    for shape in ((1, 4), (40, 6), (20, 130), (3, 5000)):
        x = logits(shape, dtype)
        target, keywords = problem(case, x)
        exact = ExactLosses(x, target, **keywords)
        keywords["reduction"] = "sum"
        right_loss, right = csoftmax.cross_entropy_value_and_grad(x, target, **keywords)
        arguments = [
            (x, target, np.full_like(x, NAN)), (x, target, np.full_like(x, NAN, order="F")),
            (x, target, np.full((*shape, 2), NAN, dtype)[..., 1]),
        ]  # fmt: skip
        for order in "CF":
            in_place = x.copy(order)
            arguments.append((in_place, target, in_place))
            if target.ndim == 2:
                in_place = target.copy(order)
                arguments.append((x, in_place, in_place))
        for given, given_target, out in arguments:
            loss, gradient = csoftmax.cross_entropy_value_and_grad(
                given, given_target, out=out, **keywords
            )
            assert gradient is out
            check_reduced(loss, exact, "sum", limits["log"])
            check_gradient(gradient, exact, limits["gradient"])
        for other in (np.float16, np.float32, np.float64):
            out = np.empty(shape, other)
            loss, _ = csoftmax.cross_entropy_value_and_grad(x, target, out=out, **keywords)
            assert loss == right_loss
            assert loss.dtype == np.float64
            np.testing.assert_array_equal(out, right.astype(other))


@pytest.mark.parametrize("overlapped", ["logits", "target"])
def test_out_that_overlaps_in_part(overlapped, dtype, limits):
    x = logits((5, 300), dtype)
    t = probabilities(x)
    exact = ExactLosses(x, t)
    for shift in (-300, -7, -1, 1, 3, 299):
        memory = np.zeros(2100, dtype)
        shared = memory[300:1800].reshape(5, 300)
        shared[...] = x if overlapped == "logits" else t
        arrays = (shared, t) if overlapped == "logits" else (x, shared)
        out = memory[300 + shift : 1800 + shift].reshape(5, 300)
        loss, _ = csoftmax.cross_entropy_value_and_grad(*arrays, reduction="none", out=out)
        check_losses(loss, exact, limits["log"])
        check_gradient(out, exact, limits["gradient"])


@each_case
def test_inputs_are_not_changed(case, dtype, build):
    x = logits((130, 130), dtype)
    target, keywords = problem(case, x)
    inputs = [x, target, *keywords.values()]
    before = [np.copy(array) for array in inputs]
    for axis in (0, 1):
        csoftmax.cross_entropy_value_and_grad(x, target, axis, **keywords)
        csoftmax.cross_entropy(x, target, axis, **keywords)
    for array, was in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(array, was)


@pytest.mark.parametrize("side", ["before", "behind"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_outside_target_and_weight_is_touched(layout, side, dtype, build):
    for count, n in ((1, 1), (1, 17), (3, 5), (19, 40), (7, 129), (5, 301), (2, 4101)):
        steps = {"contiguous": (n, 1), "side_by_side": (1, count), "with_gaps": (2 * n, 2)}
        strides = [step * dtype.itemsize for step in steps[layout.__name__]]
        size = (count - 1) * strides[0] + (n - 1) * strides[1] + dtype.itemsize
        with (
            beside_a_forbidden_page(size, side) as target_memory,
            beside_a_forbidden_page(n * dtype.itemsize, side) as weight_memory,
        ):
            target = np.ndarray((count, n), dtype, target_memory, strides=strides)
            target[...] = 1 / n
            weight = np.ndarray(n, dtype, weight_memory)
            weight[...] = 1
            x, axis = layout(np.zeros((count, n), dtype))
            target = target if axis else target.T
            for temperature in (1.0, 0.7, INF):
                keywords = {"weight": weight, "temperature": temperature}
                loss, _ = csoftmax.cross_entropy_value_and_grad(x, target, axis, **keywords)
                alone = csoftmax.cross_entropy(x, target, axis, **keywords)
                np.testing.assert_allclose([loss, alone], np.log(n), rtol=1e-3)


@each_case
def test_same_bits_for_any_number_of_threads(case, dtype, build):
    for shape in ((64, 1001), (20_001, 5), (3, 40_000), (1, 100_003)):
        x = logits(shape, dtype)
        target, keywords = problem(case, x)
        for layout in (contiguous, side_by_side):
            both = []
            for threads in (1, 2):
                csoftmax._dispatch.kernels.set_thread_limit(threads)    # of this build
                both.append(results(x, target, layout, **keywords))
            for one, two in zip(*both, strict=True):
                np.testing.assert_array_equal(one, two)


# Means, also where peers go wrong.


def test_mean_of_indices_divides_by_the_weights_that_are_used(dtype, limits):
    """Of the right classes of rows that are not ignored, also with smoothing."""
    x = logits((4, 3), dtype)
    target = np.array([0, 2, 1, 2])
    weight = np.array([1, 2, 4], dtype)
    for ignore_index, divisor in ((-100, 11), (2, 3), (0, 10), (1, 9)):
        for smoothing in (0.0, 0.3):
            keywords = {"weight": weight, "label_smoothing": smoothing}
            keywords["ignore_index"] = ignore_index
            exact = ExactLosses(x, target, **keywords)
            assert exact.divisor == divisor
            loss, alone, gradient = results(x, target, reduction="mean", **keywords)
            check_reduced(loss, exact, "mean", limits["log"])
            check_reduced(alone, exact, "mean", limits["log"])
            check_gradient(gradient, exact, limits["gradient"], divisor)
            assert (gradient[target == ignore_index] == 0).all()


def test_mean_of_probabilities_divides_by_the_rows(dtype, build):
    """Whatever their weights and the sums of their probabilities are."""
    x = np.zeros((4, 3), dtype)
    target = np.array([[1, 0, 0], [0, 0, 2], [0, 0, 0], [0.5, 0.5, 0]], dtype)
    for loss in results(x, target, weight=[3, 1, 1], reduction="mean")[:2]:
        np.testing.assert_allclose(loss, (3 + 2 + 0 + 2) / 4 * np.log(3), rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_everything_ignored(smoothing, dtype, build):
    x = logits((3, 4), dtype)
    for reduction, right in (("mean", NAN), ("sum", 0), ("none", [0, 0, 0])):
        loss, alone, gradient = results(
            x, [-100] * 3, reduction=reduction, label_smoothing=smoothing, weight=np.ones(4)
        )
        np.testing.assert_array_equal(loss, right)
        np.testing.assert_array_equal(alone, right)
        assert (gradient == 0).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_that_are_all_0(smoothing, dtype, build):
    x = logits((3, 4), dtype)
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


def test_no_rows(build):
    x = np.empty((0, 5), np.float32)
    for target in (np.empty(0, int), np.empty((0, 5))):
        for reduction, right in (("mean", NAN), ("sum", 0), ("none", np.empty(0))):
            loss, alone, gradient = results(
                x, target, reduction=reduction, weight=np.ones(5), label_smoothing=0.1
            )
            np.testing.assert_array_equal(loss, right)
            np.testing.assert_array_equal(alone, right)
            assert gradient.shape == (0, 5)


def test_sum_is_accumulated_in_float64(build):
    x = np.zeros((300_000, 3), np.float32)
    x[::2, 0] = 1
    for target in (np.zeros(300_000, int), np.broadcast_to(np.float32([0.5, 0.5, 0]), x.shape)):
        losses = csoftmax.cross_entropy(x, target, label_smoothing=0.1, reduction="none")
        right = losses.astype(LONG).sum()
        loss = csoftmax.cross_entropy(x, target, label_smoothing=0.1, reduction="sum")
        assert abs(loss - right) <= np.spacing(np.float64(right))


# Edge cases.


def test_a_class_without_coefficient_does_not_count(dtype, build):
    """0 * inf is 0 here, for weights and probabilities; in PyTorch it is NaN."""
    for n in SOME_LENGTHS:
        x = logits((2, n), dtype)
        x[:, -1] = -INF
        others = (np.arange(n) < n - 1).astype(dtype)
        everywhere = np.ones((2, n), dtype)
        all_last = [n - 1, n - 1]
        for target, keywords in (
            (everywhere * others, {}), (everywhere, {"weight": others}),
            (everywhere, {"weight": others, "label_smoothing": 0.1}),
            ([0, 0], {"weight": others, "label_smoothing": 0.1}),
            (all_last, {"weight": others}), (all_last, {"weight": others, "label_smoothing": 0.1}),
            ([n - 1, 0], {"weight": others, "label_smoothing": 0.1}),
        ):
            for temperature in (1.0, 0.7, INF):
                for layout in (contiguous, side_by_side):
                    loss, alone, gradient = results(
                        x, target, layout, temperature=temperature, **keywords
                    )
                    assert np.isfinite(loss).all()
                    assert np.isfinite(gradient).all()
                    assert (gradient[:, -1] == 0).all()
                    assert_close(alone, loss)
                    if target is all_last and "label_smoothing" not in keywords:
                        assert (loss == 0).all()


def test_a_class_with_a_coefficient_at_minus_infinity(dtype, build):
    for n in SOME_LENGTHS:
        x = logits((2, n), dtype)
        x[0, n // 2] = -INF
        tiny = np.full((2, n), 1e-30, dtype)
        for target, smoothing in (
            (tiny, 0.0), (tiny * 0, 1e-6), ([n // 2, 0], 0.0), ([0, 0], 1e-6),
        ):  # fmt: skip
            for temperature in (1.0, 0.7, INF):
                keywords = {"label_smoothing": smoothing, "temperature": temperature}
                loss, alone, gradient = results(x, target, **keywords)
                for losses in (loss, alone):
                    assert losses[0] == INF
                    assert np.isfinite(losses[1])
                assert np.isfinite(gradient).all()
                assert results(x, target, reduction="mean", **keywords)[:2] == (INF, INF)


@each_case
def test_what_is_not_defined_fills_its_row_and_no_other(case, dtype, build):
    """A NaN, a +inf, or nothing but -inf."""
    for n in (1, *SOME_LENGTHS):
        x = logits((6, n), dtype)
        target, keywords = problem(case, x)
        target[1:5] = n - 1 if target.ndim == 1 else 1 / n
        if "weight" in case:
            keywords["weight"] += 0.1    # a row without any coefficient may be defined
        bad = x.copy()
        bad[1, n // 2] = NAN
        bad[2, n - 1] = INF
        bad[3] = -INF
        bad[4, 0] = NAN
        for temperature in (1.0, 0.3, 0.0, INF):
            keywords["temperature"] = temperature
            expected = results(x, target, **keywords)
            for layout in (contiguous, side_by_side):
                for result, right in zip(
                    results(bad, target, layout, **keywords), expected, strict=True
                ):
                    assert np.isnan(result[1:5]).all()
                    assert_close(result[[0, 5]], right[[0, 5]])


def test_an_ignored_row_may_hold_anything(dtype, limits):
    for n in (1, *SOME_LENGTHS):
        x = logits((40, n), dtype)
        target = targets_of(x)
        target[1::2] = -100
        x[1::8, n // 2] = NAN
        x[3::8, 0] = INF
        x[5::8] = -INF
        keywords = {"label_smoothing": 0.1, "weight": np.linspace(0.5, 1.5, n).astype(dtype)}
        for temperature in (1.0, 0.7, 0.0, INF):
            for layout in (contiguous, side_by_side):
                for result in results(x, target, layout, temperature=temperature, **keywords):
                    assert (result[1::2] == 0).all()
        exact = ExactLosses(x[::2], target[::2], **keywords)
        loss, alone, gradient = results(x, target, reduction="mean", **keywords)
        check_reduced(loss, exact, "mean", limits["log"])
        check_reduced(alone, exact, "mean", limits["log"])
        check_gradient(gradient[::2], exact, limits["gradient"], exact.divisor)


def test_nan_in_a_target_stays_in_its_row(dtype, build):
    for n in (1, *SOME_LENGTHS):
        target = np.full((3, n), 1 / n)
        target[1, n // 2] = NAN
        loss, alone, gradient = results(logits((3, n), dtype), target)
        for result in (loss, alone, gradient.sum(-1)):
            assert np.isnan(result).tolist() == [False, True, False]


def test_temperature_0_is_the_first_maximum(dtype, build):
    for n in (1, *SOME_LENGTHS):
        x = np.random.default_rng(n).integers(0, 5, size=(6, n)).astype(dtype)
        x[:, 1::3] = -INF
        first, last = x.argmax(-1), np.full(6, n - 1)
        one_hot = (np.arange(n) == first[:, None]).astype(dtype)
        half = one_hot / 2
        half[:, -1] += 0.5
        everywhere = np.ones_like(x)
        only_class = np.full(6, n == 1)
        always = np.full(6, True)
        for target, keywords, right in (
            (one_hot, {}, always), (one_hot, {"weight": np.full(n, 2)}, always),
            (everywhere * 0, {}, always), (half, {}, first == last), (everywhere, {}, only_class),
            (first, {"weight": np.full(n, 2)}, always), (last, {"weight": np.zeros(n)}, always),
            (last, {"weight": np.full(n, 2)}, first == last),
            (first, {"label_smoothing": 0.5}, only_class),
        ):  # fmt: skip
            loss, alone, gradient = results(x, target, temperature=0, **keywords)
            np.testing.assert_array_equal(loss, np.where(right, 0, INF))
            np.testing.assert_array_equal(alone, loss)
            # The limit of (S p_j - c_j) / T, where p is 1 for the first maximum.
            assert (gradient[right] == 0).all()
            assert (gradient[~right, first[~right]] == INF).all()
            assert (gradient[~right] == -INF).any(-1).all()
            assert (np.isinf(gradient) | (gradient == 0)).all()


@each_case
def test_temperature_infinity_is_uniform(case, dtype, build):
    for n in (1, *SOME_LENGTHS):
        x = logits((8, n), dtype)
        x[:, 1::3] = -INF
        x[:, 0] = np.finfo(dtype).max
        finite = x[0] > -INF
        target, keywords = problem(case, x)
        if target.ndim == 2:
            target[:, ~finite] = 0
        else:
            target[target > 0] //= 3
            target[target > 0] *= 3
        if "smoothing" in case:    # it would give the classes at -inf a coefficient
            keywords["weight"] = keywords.get("weight", np.ones(n)) * finite
        coefficients = ExactLosses(np.zeros_like(x), target, **keywords).c
        expected = coefficients.sum(-1) * np.log(LONG(finite.sum()))
        loss, alone, gradient = results(x, target, temperature=INF, **keywords)
        for losses in (loss, alone):
            np.testing.assert_allclose(
                losses, expected.astype(float), rtol=4 * np.finfo(dtype).eps
            )
        assert (gradient == 0).all()


@each_case
def test_temperatures_0_1_and_infinity_side_by_side(case, dtype, build):
    """Each row as if all had its temperature."""
    temperature = np.resize([0, 1, INF], 30)
    for n in (20, 300):
        x = logits((30, n), dtype)
        target, keywords = problem(case, x)
        for layout in (contiguous, side_by_side):
            together = results(x, target, layout, temperature=temperature, **keywords)
            for one in (0, 1, INF):
                alone = results(x, target, layout, temperature=one, **keywords)
                for result, right in zip(together, alone, strict=True):
                    assert_close(result[temperature == one], right[temperature == one])


@each_case
def test_no_floating_point_flag_is_left_behind(case, dtype, build):
    x = np.array([[NAN, INF, -INF], [1e-30, 2e-30, 3e-30], [-80, 0, 1], [-INF, 3, 2]], dtype)
    target, keywords = problem(case, np.zeros_like(x))
    with np.errstate(all="raise"):
        for temperature in (1.0, 0.0, 1e-3, 1e30, INF):
            for reduction in ("mean", "sum", "none"):
                results(x, target, temperature=temperature, reduction=reduction, **keywords)


# Distillation: a teacher's probabilities as targets.


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_distillation(temperature, dtype, limits):
    for shape in ((40, 10), (20, 130), (6, 1000), (3, 5000)):
        teacher = logits(shape, dtype, seed=1)
        target = csoftmax.softmax(teacher, temperature=temperature)
        check_rows(logits(shape, dtype), target, limits, LAYOUTS, temperature=temperature)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(temperature, dtype, limits):
    """The gradient is what the errors of probabilities leave: of the targets, and of their sum."""
    suffix = "" if temperature == 1 else " with temperature"
    limit = 2 * limits["softmax" + suffix] + limits["gradient" + suffix]
    for shape in ((40, 10), (20, 130), (6, 1000), (3, 5000)):
        x = logits(shape, dtype)
        target = csoftmax.softmax(x, temperature=temperature)
        loss, _, gradient = results(x, target, temperature=temperature)
        scale = target.max(-1, keepdims=True) / dtype.type(temperature)
        zero = np.zeros(shape, LONG)
        assert largest_error(gradient, zero, dtype, np.broadcast_to(scale, shape)) <= limit
        entropy = -(target * csoftmax.log_softmax(x, temperature=temperature)).sum(-1)
        np.testing.assert_allclose(loss, entropy, rtol=1e-5)


# What is refused, before anything is written.

X = np.arange(12, dtype=np.float32).reshape(3, 4)
INDICES = [0, 1, 2]
PROBABILITIES = np.full((3, 4), 0.25)
BOTH_SHAPES = ("(3,)", "(3, 4)")

# Of each target: keywords, the error, and what its message says.
REFUSED = [
    *((target, {"label_smoothing": smoothing}, ValueError, ("label_smoothing", str(smoothing)))
      for smoothing in (-0.1, 1.5, NAN, INF) for target in (INDICES, PROBABILITIES)),
    *((INDICES, {"label_smoothing": smoothing}, TypeError, ("label_smoothing",))
      for smoothing in ("0.1", None, 1j, [0.1])),
    *((target, {"weight": weight}, ValueError, ("weight", "(4,)", str(np.shape(weight))))
      for weight in (np.ones(3), np.ones(1), 1.0, np.ones((1, 4)), np.ones((3, 4)), [])
      for target in (INDICES, PROBABILITIES)),
    *((target, {"weight": np.ones(4, dtype)}, TypeError, ("weight", np.dtype(dtype).name))
      for dtype in (complex, object) for target in (INDICES, PROBABILITIES)),
    *((PROBABILITIES, {"ignore_index": index}, ValueError, ("ignore_index",)) for index in (0, 7)),
    (np.eye(3, 4, dtype=int), {"ignore_index": 1}, ValueError, ("ignore_index",)),
    *((np.ones(3, dtype), {}, TypeError, (*BOTH_SHAPES, dtype))
      for dtype in ("float16", "float64")),
    *((np.ones(shape), {}, (TypeError, ValueError), (*BOTH_SHAPES, str(shape)))
      for shape in ((4, 3), (3, 1), (1, 3, 4))),
    *((np.ones(shape, int), {}, ValueError, (*BOTH_SHAPES, str(shape)))
      for shape in ((4, 3), (2,), (3, 1), (3, 5), (1, 3, 4), ())),
    *((np.ones(shape, dtype), {}, TypeError, ("target", np.dtype(dtype).name))
      for dtype in (complex, object) for shape in ((3,), (3, 4))),
    (np.full((3, 4), "a"), {}, TypeError, ("target", "<U1")),
    *(([0, 4, 1], keywords, IndexError, ("target[1] is 4", "C = 4"))
      for keywords in ({"weight": np.ones(4)}, {"label_smoothing": 0.1})),
    ([0, 1, -1], {"weight": np.ones(4)}, IndexError, ("target[2] is -1", "C = 4")),
]  # fmt: skip


@pytest.mark.parametrize(("target", "keywords", "error", "parts"), REFUSED)
def test_arguments_that_are_refused(target, keywords, error, parts):
    out = np.full((3, 4), 7, np.float32)
    for function, more in (
        (csoftmax.cross_entropy, {}), (csoftmax.cross_entropy_value_and_grad, {"out": out})
    ):  # fmt: skip
        with pytest.raises(error) as raised:
            function(X, target, **keywords, **more)
        for part in parts:
            assert part in str(raised.value)
    assert (out == 7).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_classes_are_along_the_axis(axis):
    """The weight of another axis is refused, and a target without another axis."""
    x = np.zeros((2, 3, 4))
    other = (axis + 1) % 3
    target, of_other = (np.zeros(np.delete(x.shape, i), int) for i in (axis, other))
    with pytest.raises(ValueError, match=rf"weight.*\({x.shape[axis]},\)"):
        csoftmax.cross_entropy(x, target, axis, weight=np.ones(x.shape[other]))
    with pytest.raises(ValueError, match=r"target.*\(2, 3, 4\)"):
        csoftmax.cross_entropy(x, of_other, axis)


@pytest.mark.parametrize("target", [INDICES, PROBABILITIES], ids=["indices", "probabilities"])
def test_out_that_is_refused(target):
    for out, error in (
        (np.full((4, 3), 7.0), ValueError), (np.full((3, 4), 7), TypeError),
        (X.tolist(), TypeError), (np.broadcast_to(7.0, (3, 4)), ValueError),
    ):  # fmt: skip
        with pytest.raises(error, match="out"):
            csoftmax.cross_entropy_value_and_grad(X, target, weight=np.ones(4), out=out)
