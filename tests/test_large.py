"""More than 2^31 numbers, and more than 2^31 rows: no index is kept in 32 bits.

    python -m pytest -m large tests/test_large.py

takes minutes and up to 18 GB of memory. Results are compared at places around 2^31 and at random
ones, and the numbers repeat, so that the exact sum of a row is that of a period times their number.
"""

import numpy as np
import pytest

import csoftmax

from .exact import LONG, Exact, largest_error
from .helpers import Prescribed

COUNT = 2**31 + 5
PERIOD = np.random.default_rng(0).normal(size=100_003).astype(np.float32)    # a prime number
FLOAT32 = np.dtype(np.float32)
PLACES = np.unique(np.concatenate([
    np.arange(100), 2**31 + np.arange(-100, 5), COUNT // 2 + np.arange(-20, 20),
    np.arange(2**24, COUNT, 2**24), np.random.default_rng(1).integers(COUNT, size=20_000),
]))  # fmt: skip

pytestmark = pytest.mark.large


def periodic(count=COUNT, values=PERIOD):
    """Numbers that repeat, made without a copy of them all."""
    x = np.empty(count, values.dtype)
    block = np.tile(values, 100)
    for start in range(0, count, block.size):
        x[start : start + block.size] = block[: count - start]
    return x


def at(places):
    """The numbers of `periodic` there."""
    return PERIOD[places % PERIOD.size]


def exact_sum(terms, count=COUNT):
    """Of terms that repeat with the period."""
    full, rest = divmod(count, terms.size)
    return full * terms.sum() + terms[:rest].sum()


def sum_of_exponentials(values=PERIOD, count=COUNT):
    return exact_sum(np.exp(values.astype(LONG)), count)


def assert_sums_to_1(y):
    """By blocks, in float64."""
    total = sum(y[start : start + 2**24].sum(dtype=float) for start in range(0, y.size, 2**24))
    np.testing.assert_allclose(total, 1, rtol=1e-6)


def test_softmax_of_one_row():
    x = periodic()
    assert csoftmax.softmax(x, out=x) is x
    right = np.exp(at(PLACES).astype(LONG)) / sum_of_exponentials()
    assert largest_error(x[PLACES], right, FLOAT32) <= 3
    assert_sums_to_1(x)


def test_log_softmax_of_one_row():
    x = periodic()
    csoftmax.log_softmax(x, out=x)
    right = at(PLACES).astype(LONG) - np.log(sum_of_exponentials())
    assert largest_error(x[PLACES], right, FLOAT32) <= 3


def test_logsumexp_and_entropy_of_one_row():
    x = periodic()
    log_sum = np.log(sum_of_exponentials())
    assert largest_error(csoftmax.logsumexp(x), log_sum, FLOAT32) <= 2
    exact = PERIOD.astype(LONG)
    of_sum = exact_sum(np.exp(exact) * exact) / sum_of_exponentials()
    assert largest_error(csoftmax.entropy(x), log_sum - of_sum, FLOAT32) <= 2
    for target in (0, 2**31 - 1, 2**31, COUNT - 1):
        loss = csoftmax.cross_entropy(x, target)
        assert largest_error(loss, log_sum - at(np.array(target)).astype(LONG), FLOAT32) <= 2


def test_first_classes_and_draws_of_one_row():
    """The largest number stands in each period."""
    x = periodic()
    places = PERIOD.argmax() + PERIOD.size * np.arange(COUNT // PERIOD.size + 1)
    places = places[places < COUNT]
    for k in (1, 20, len(places)):
        indices, log_p = csoftmax.top_log_probs(x, k)
        np.testing.assert_array_equal(indices, places[:k])
        right = PERIOD.max().astype(LONG) - np.log(sum_of_exponentials())
        assert largest_error(log_p, np.full(k, right), FLOAT32) <= 3
    drawn = csoftmax.sample(x, rng=Prescribed([0, 1 - 2.0**-53]), size=2)
    np.testing.assert_array_equal(drawn, [0, COUNT - 1])
    middles = (np.arange(len(places)) + 0.5) / len(places)
    drawn = csoftmax.sample(x, rng=Prescribed(middles), size=len(places), top_k=len(places))
    np.testing.assert_array_equal(drawn, places)
    # Half of the row, up to 2^30.
    drawn = csoftmax.sample(x, rng=Prescribed([0.5]), size=1)
    assert abs(drawn[0] - COUNT / 2) < PERIOD.size


def test_softmax_of_one_row_with_a_mask():
    """One number in three is left out."""
    x = periodic()
    where = np.ones(COUNT, bool)
    where[::3] = False
    csoftmax.softmax(x, where=where, out=x)
    # The period and 3 have no common divisor: after three periods both repeat.
    three = np.tile(PERIOD.astype(LONG), 3)
    terms = np.where(np.arange(three.size) % 3 != 0, np.exp(three), 0)
    right = np.where(PLACES % 3 != 0, np.exp(at(PLACES).astype(LONG)) / exact_sum(terms), 0)
    assert largest_error(x[PLACES], right, FLOAT32) <= 3
    assert (x[PLACES][PLACES % 3 == 0] == 0).all()


def test_rows_of_1():
    x = periodic().reshape(COUNT, 1)
    csoftmax.softmax(x, out=x)
    for start in range(0, COUNT, 2**28):
        assert (x[start : start + 2**28] == 1).all()


@pytest.mark.parametrize("n", [10, 100])
def test_short_rows(n):
    rows = -(-COUNT // n)
    x = periodic(rows * n).reshape(rows, n)
    csoftmax.softmax(x, out=x)
    chosen = np.unique(PLACES // n)
    right = Exact(at(chosen[:, None] * n + np.arange(n))).softmax
    assert largest_error(x[chosen], right, FLOAT32) <= 3


def test_rows_along_the_first_axis():
    """A few columns that are as long as memory allows."""
    rows = 16
    n = -(-COUNT // rows)
    x = periodic(n * rows).reshape(n, rows)
    csoftmax.softmax(x, 0, out=x)
    chosen = np.unique(PLACES // rows)
    # Row r has the numbers r, r + 16, ... of the period, which is odd: all of them, in turn.
    values = at(np.arange(PERIOD.size)[:, None] * rows + np.arange(rows)).astype(LONG)
    sums = np.array([exact_sum(np.exp(column), n) for column in values.T])
    right = np.exp(at(chosen[:, None] * rows + np.arange(rows)).astype(LONG)) / sums
    assert largest_error(x[chosen], right, FLOAT32) <= 3


def test_long_rows_side_by_side():
    """Two, which are not enough to be computed next to one another: they are copied."""
    n = 2**27 + 3
    x = periodic(2 * n).reshape(n, 2)
    csoftmax.softmax(x, 0, out=x)
    values = at(np.arange(PERIOD.size)[:, None] * 2 + np.arange(2)).astype(LONG)
    sums = np.array([exact_sum(np.exp(column), n) for column in values.T])
    chosen = np.unique(PLACES % n)
    right = np.exp(at(chosen[:, None] * 2 + np.arange(2)).astype(LONG)) / sums
    assert largest_error(x[chosen], right, FLOAT32) <= 3


# A row for all: what more than 2^31 rows of their own would need is more than there is.
ROW = np.array([0.5, -1, 2], np.float32)
ROWS = np.broadcast_to(ROW, (COUNT, 3))


def assert_all_equal(result, right):
    assert result.size == COUNT
    for start in range(0, COUNT, 2**28):
        assert (result[start : start + 2**28] == right).all()


@pytest.mark.parametrize("function", [csoftmax.logsumexp, csoftmax.entropy], ids=["sum", "entropy"])
def test_results_of_many_rows(function):
    right = function(np.broadcast_to(ROW, (100, 3)))[50]
    assert_all_equal(function(ROWS), right)


def test_losses_of_many_rows():
    target = np.broadcast_to(np.int64(1), COUNT)
    right = csoftmax.cross_entropy(ROW, 1)
    assert_all_equal(csoftmax.cross_entropy(ROWS, target, reduction="none"), right)
    np.testing.assert_allclose(csoftmax.cross_entropy(ROWS, target), right, rtol=1e-6)


def test_losses_of_many_distributions():
    shares = np.broadcast_to(np.array([0.25, 0.25, 0.5], np.float32), ROWS.shape)
    right = csoftmax.cross_entropy(ROW, shares[0])
    loss = csoftmax.cross_entropy(ROWS, shares, reduction="none")
    np.testing.assert_allclose(loss[PLACES], right, rtol=1e-6)
    assert (loss == loss[0]).all()


def test_a_class_index_that_is_wrong_behind_all_others():
    shape = 2**16, 2**15 + 1
    target = np.zeros((shape[0], 1), np.int64)
    target[-1] = 3
    with pytest.raises(IndexError, match=r"target\[65535, 0\] is 3"):
        csoftmax.cross_entropy(np.broadcast_to(ROW, (*shape, 3)), np.broadcast_to(target, shape))


def test_gradient_in_place():
    """Of weighted rows of 10."""
    rows = -(-COUNT // 10)
    x = periodic(10 * rows).reshape(rows, 10)
    target = np.broadcast_to(np.int64(7), rows)
    loss, grad = csoftmax.cross_entropy_value_and_grad(x, target, reduction="none", out=x)
    assert grad is x
    chosen = np.unique(PLACES // 10)
    exact = Exact(at(chosen[:, None] * 10 + np.arange(10)))
    right = exact.loss(np.full(len(chosen), 7)).astype(np.float32)
    np.testing.assert_allclose(loss[chosen], right, rtol=1e-5)
    right = exact.softmax - (np.arange(10) == 7)
    np.testing.assert_allclose(x[chosen], right.astype(np.float32), atol=1e-6)


def test_products():
    """Of gradients and probabilities that are the same for all rows."""
    n = 10
    rows = -(-COUNT // n)
    y = csoftmax.softmax(PERIOD[:n])
    out = np.empty((rows, n), np.float32)
    for function, outcome in (
        (csoftmax.softmax_vjp, y), (csoftmax.log_softmax_vjp, np.log(y)),
    ):  # fmt: skip
        out[...] = np.nan
        grad = np.broadcast_to(PERIOD[n : 2 * n], (rows, n))
        function(grad, np.broadcast_to(outcome, (rows, n)), out=out)
        right = function(grad[:100], np.broadcast_to(outcome, (100, n)))[50]
        for start in range(0, rows, 2**24):
            assert (out[start : start + 2**24] == right).all()


def test_sigmoid_in_place():
    x = periodic()
    csoftmax.sigmoid(x, out=x)
    right = 1 / (1 + np.exp(-at(PLACES).astype(LONG)))
    assert largest_error(x[PLACES], right, FLOAT32) <= 3


def test_binary_losses():
    x = np.broadcast_to(np.float32(0.5), COUNT)
    target = np.broadcast_to(np.float32(0.25), COUNT)
    right = csoftmax.binary_cross_entropy(x[:1], target[:1])
    assert_all_equal(csoftmax.binary_cross_entropy(x, target, reduction="none"), right)
    loss = csoftmax.binary_cross_entropy(x, target)
    np.testing.assert_allclose(loss, right, rtol=1e-6)
