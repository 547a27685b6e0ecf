"""logsumexp with weights of both signs: what they leave out, what cancels, how far they reach."""

import mpmath
import numpy as np
import pytest

import csoftmax
from csoftmax import logsumexp

from .cases import contiguous
from .exact import EPS, INF, NAN, TINY
from .functions import CALLS, hold

each_length = pytest.mark.parametrize("n", [2, 3, 40, 100, 9000])
MAX32, MAX64 = (float(np.finfo(dtype).max) for dtype in (np.float32, np.float64))


def in_a_row(pairs, n, dtype, rest=(NAN, 0)):
    """These pairs of x and b among others that don't count."""
    x, b = np.full(n, rest[0], dtype), np.full(n, rest[1], dtype)
    places = np.linspace(0, n - 1, len(pairs)).astype(int)
    x[places], b[places] = np.array(pairs, dtype).T
    return x, b


SPECIAL = [    # x and b of each term, the logarithm and the sign
    ([], -INF, 0),
    ([(-INF, 1)], -INF, 0),
    ([(-INF, 1), (-INF, -1)], -INF, 0),
    ([(3, 1), (3, -1)], -INF, 0),
    ([(INF, 2)], INF, 1),
    ([(INF, -2)], INF, -1),
    ([(INF, 1), (INF, 1)], INF, 1),
    ([(INF, 1), (INF, -1)], NAN, NAN),
    ([(INF, 1), (0, -3)], INF, 1),
    ([(NAN, 1)], NAN, NAN),
    ([(NAN, -1), (INF, 1)], NAN, NAN),
    ([(1, NAN)], NAN, NAN),
    ([(-INF, NAN), (1, 1)], NAN, NAN),
    ([(-5, INF)], INF, 1),
    ([(-5, -INF), (100, 1)], INF, -1),
    ([(-5, -INF), (5, INF)], NAN, NAN),
    ([(-INF, INF), (1, 1)], NAN, NAN),
    ([(INF, -INF)], INF, -1),
    ([(0, 0), (-0.0, -0.0)], -INF, 0),
]


@each_length
@pytest.mark.parametrize("case", SPECIAL, ids=str)
def test_special_values(case, n, dtype, build):
    pairs, log, sign = case
    if len(pairs) > n:
        return
    rests = [(0, 0), (NAN, 0), (INF, 0), (-INF, 0), (1e30, -0.0)]
    rows = [in_a_row(pairs or [(0, 0)], n, dtype, rest) for rest in rests]
    x, b = (np.array(one) for one in zip(*rows, strict=True))
    for axis in (0, 1):
        some = (x, b) if axis else (np.repeat(x, 7, 0).T.copy(), np.repeat(b, 7, 0).T.copy())
        logs, signs = logsumexp(some[0], axis, b=some[1], return_sign=True)
        assert logs.dtype == signs.dtype == dtype
        np.testing.assert_array_equal(logs, log)
        np.testing.assert_array_equal(signs, sign)
        plain = logsumexp(some[0], axis, b=some[1])
        np.testing.assert_array_equal(plain, NAN if sign < 0 else log)


@pytest.mark.parametrize("x", [[1.0, 2.0], [-INF], [INF, 0], [NAN, 0], []])
def test_signs_without_weights(x, dtype, build):
    x = np.array(x, dtype)
    log, sign = logsumexp(x, return_sign=True)
    np.testing.assert_array_equal(log, logsumexp(x))
    weighted = logsumexp(x, b=np.ones_like(x), return_sign=True)
    np.testing.assert_array_equal((log, sign), weighted)
    assert type(sign) is type(log) is dtype.type


FAR_APART = {    # each of two or three terms counts, or nearly
    np.float64: [
        [(0, 1e-300), (-800, 1e300)],
        [(0, 1e-300), (-1300, 1e300)],
        [(0, 1), (-800, 1e300)],
        [(0, -1), (-800, 1e300)],
        [(0, 5e-324), (-1400, MAX64)],
        [(0, 5e-324), (-1, -5e-324), (-700, 1)],
        [(700, 5e-324), (0, MAX64)],
        [(0, MAX64), (0, MAX64), (-1, -MAX64)],
        [(5000, 1e300), (5000, 1e300), (4000, 1)],
        [(1e300, 1e-300), (-1e300, 1e300)],
        [(MAX64, 1), (-MAX64, 1e300)],
        [(0, 1e-310), (-0.5, -1e-310)],
        [(-744, 1e10), (-750, -1e12), (-700, 1e-9)],
    ],
    np.float32: [
        [(0, 1e-38), (-170, 1e38)],
        [(0, 1), (-100, 1e30)],
        [(0, -1), (-100, 1e30)],
        [(0, 1e-45), (-180, MAX32)],
        [(0, MAX32), (0, MAX32), (-1, -MAX32)],
        [(5000, 1e30), (5000, 1e30), (4950, 1)],
        [(MAX32, 1), (-MAX32, 1e30)],
        [(-100, 1e-40), (-101, -1e-40)],
    ],
}  # fmt: skip


def exact_sum(x, b):
    with mpmath.workdps(2500):
        terms = [
            mpmath.mpf(float(weight)) * mpmath.exp(mpmath.mpf(float(number)))
            for number, weight in zip(x, b, strict=True)
        ]
        total = mpmath.fsum(terms)
        condition = mpmath.fsum(map(abs, terms)) / abs(total)
        return float(mpmath.log(abs(total))), int(mpmath.sign(total)), float(condition)


@each_length
def test_weights_that_are_far_apart(n, dtype, build, limits):
    for pairs in FAR_APART[dtype.type]:
        if len(pairs) > n:
            continue
        if max(abs(one) for one, _ in pairs) > 1e6 and dtype == np.float64:
            # What exp can't have in any digits: the first term is all.
            right, sign, condition = pairs[0][0], 1, 1.0
            x, b = in_a_row(pairs, n, dtype)
        else:
            x, b = in_a_row(pairs, n, dtype)
            of_terms = [(v, w) for v, w in zip(x, b, strict=True) if w]
            right, sign, condition = exact_sum(*zip(*of_terms, strict=True))
        for layout in (lambda a: (a[None], 1), lambda a: (np.repeat(a[:, None], 40, 1), 0)):
            (some_x, axis), (some_b, _) = layout(x), layout(b)
            log, signs = logsumexp(some_x, axis, b=some_b, return_sign=True)
            assert (signs == sign).all()
            scale = max(abs(right), abs(float(np.nanmax(np.where(b != 0, x, NAN))))) + condition
            ulp = np.spacing(dtype.type(min(scale, 0.7 * float(np.finfo(dtype).max))))
            errors = np.abs(log.astype(np.longdouble) - right) / ulp
            assert errors.max() <= limits["log"], (pairs, log[0], right)


def test_what_is_left_of_one_beside_a_small_term(dtype, build, limits):
    """Its digits are kept, whatever signs both have: log(1 + d) is d."""
    gaps = np.array([5, 20, 40, 80, 87] if dtype == np.float32 else [5, 20, 40, 300, 700])
    for first in (1, -1):
        for second in (1, -1, 3, 1e-3, -1e6):
            x = np.stack([np.zeros(len(gaps)), -gaps], 1).astype(dtype)
            b = np.broadcast_to(np.array([first, second], dtype), x.shape)
            operands = {"logits": x, "b": b.copy()}
            hold(CALLS["logsumexp, b, sign"], limits, operands, contiguous)
            log, sign = logsumexp(x, b=b, return_sign=True)
            d = np.longdouble(b[:, 1]) / first * np.exp(x[:, 1].astype(np.longdouble))
            kept = (np.abs(d) < 0.5) & (np.abs(d) > TINY[dtype] * 1e6)
            right = np.log1p(d[kept])
            errors = np.abs(log[kept] - right) / np.spacing(np.abs(right).astype(dtype))
            assert errors.max() <= limits["log, one class"]
            assert (sign[kept] == first).all()


@pytest.mark.parametrize("n", [3, 100, 5000])
def test_nothing_more_cancels_than_in_the_data(n, dtype, build):
    """Also exp(a) - exp(b) of neighbours a and b, whose ULP is 8 times that of the exponential."""
    a = np.array([*np.linspace(-200, -8.5, 25), *np.linspace(8.5, 300, 25)], dtype)
    b = np.nextafter(a, -INF)
    x = np.full((50, n), -INF, dtype)
    x[:, 0], x[:, n - 1] = a, b
    weights = np.ones(n, dtype)
    weights[n - 1] = -1
    log, sign = logsumexp(x, b=weights, return_sign=True)
    right = a + np.log(-np.expm1(b.astype(np.longdouble) - a))
    assert (sign == 1).all()
    assert np.abs(log - right).max() < 0.15


def test_a_difference_of_numbers_next_to_0(dtype, build):
    """What is left is as small as they are, and its reciprocal is too large for the type."""
    x = np.array([2, -1], dtype) * dtype.type(TINY[dtype] / 4)
    log, sign = logsumexp(x, b=np.array([1, -1], dtype), return_sign=True)
    if dtype == np.float32:
        assert (log, sign) == (-INF, 0) or log < -60
    else:
        np.testing.assert_allclose(log, np.log(TINY[dtype]) + np.log(0.75), rtol=1e-13)
        assert sign == 1


class TestShapes:
    x = np.random.default_rng(0).normal(size=(3, 4, 5))

    @pytest.mark.parametrize(
        "shape", [(), (5,), (4, 1), (1, 5), (3, 1, 1), (3, 1, 5), (3, 4, 5), (2, 3, 4, 5), (1,) * 5]
    )
    @pytest.mark.parametrize("axis", [-1, 0, (0, 2), (1, 2), None, ()])
    def test_b_of_any_shape_that_broadcasts(self, shape, axis, dtype, build, limits):
        x, b = self.x.astype(dtype), np.random.default_rng(1).normal(size=shape).astype(dtype)
        where = np.arange(5) != 2
        for keywords in ({}, {"where": where}, {"keepdims": True}):
            result = logsumexp(x, axis, b=b, return_sign=True, **keywords)
            CALLS["logsumexp, b"].function.hold(
                result, limits, x, axis, b=b, return_sign=True, **keywords
            )

    @pytest.mark.parametrize("axis", [0, 1])
    def test_x_broadcasts_to_b(self, axis, dtype, build):
        x, b = self.x[0, :, :1].astype(dtype), self.x[0].astype(dtype)
        for some_x, some_b in ((x, b), (x[:, 0], b[None, :, 0])):
            some_axis = min(axis, some_b.ndim - 1)
            result = logsumexp(some_x, some_axis, b=some_b, return_sign=True)
            expected = logsumexp(
                np.broadcast_to(some_x, np.broadcast_shapes(some_x.shape, some_b.shape)).copy(),
                some_axis, b=some_b, return_sign=True,
            )  # fmt: skip
            np.testing.assert_array_equal(result, expected)

    def test_one_weight_for_columns_and_rows(self, dtype, build, limits):
        """Weights that rows have in common are copied to the columns, or stay where they are."""
        for n, count in ((3, 200), (70, 100), (200, 40), (5000, 20)):
            x = np.random.default_rng(n).normal(size=(n, count)).astype(dtype)
            b = np.random.default_rng(n).normal(size=n).astype(dtype)
            for some_x, some_b, axis in ((x, b[:, None], 0), (x.T.copy(), b, 1), (x.T, b, 1)):
                result = logsumexp(some_x, axis, b=some_b, return_sign=True)
                CALLS["logsumexp, b"].function.hold(
                    result, limits, some_x, axis, b=some_b, return_sign=True
                )


class TestTypes:
    @pytest.mark.parametrize(
        ("x", "b", "expected"),
        [("f4", "f4", "f4"), ("f4", "f8", "f8"), ("f8", "f4", "f8"), ("f4", "i8", "f8"),
         ("f2", "?", "f4"), ("i1", "f2", "f4"), (">f4", ">f8", "f8"), ("u8", "f4", "f8")],
    )  # fmt: skip
    def test_the_wider_one(self, x, b, expected, build):
        x, b = np.ones(3).astype(x), np.ones(3).astype(b)
        for one in logsumexp(x, b=b, return_sign=True):
            assert one.dtype == expected

    @pytest.mark.parametrize("b", [2, -0.5, True, 0, 10**30, 1e300])
    def test_a_number_of_pythons_has_no_type(self, b, dtype, build):
        x = np.ones((2, 3), dtype)
        with np.errstate(over="ignore"):
            array = np.full(3, b, dtype)
        expected = logsumexp(x, b=array, return_sign=True)
        result = logsumexp(x, b=b, return_sign=True)
        assert result[0].dtype == dtype
        np.testing.assert_array_equal(result, expected)

    def test_a_number_of_numpys_has(self, build):
        assert logsumexp(np.ones(3, np.float32), b=np.float64(2)).dtype == np.float64


@pytest.mark.parametrize("out_dtype", [np.float16, np.float32, np.float64])
def test_out_is_the_logarithm(out_dtype, dtype, build):
    x, b = np.random.default_rng(0).normal(size=(2, 6, 5)).astype(dtype)
    expected = logsumexp(x, b=b, return_sign=True)
    out = np.empty((6, 2), out_dtype)[:, 0]
    log, sign = logsumexp(x, b=b, return_sign=True, out=out)
    assert log is out
    np.testing.assert_array_equal(out, expected[0].astype(out_dtype))
    np.testing.assert_array_equal(sign, expected[1])
    # Over the weights themselves, which are read before.
    log, sign = logsumexp(x, b=b, return_sign=True, out=b[:, 1])
    np.testing.assert_array_equal((log, sign), expected)


def test_a_mask_leaves_out_weights_too(dtype, build):
    x, b = np.random.default_rng(0).normal(size=(2, 6, 50)).astype(dtype)
    where = np.random.default_rng(1).random((6, 50)) < 0.5
    expected = logsumexp(x, b=np.where(where, b, 0).astype(dtype), return_sign=True)
    x[~where], b[~where] = INF, NAN
    np.testing.assert_array_equal(logsumexp(x, b=b, where=where, return_sign=True), expected)


@pytest.mark.parametrize("n", [4096 * 3, 100_000, 1_000_000])
def test_long_rows(n, dtype, build, limits):
    rng = np.random.default_rng(n)
    x = (3 * rng.normal(size=(2, n))).astype(dtype)
    x[1] += np.sort(rng.normal(size=n) * 100)
    for b in (rng.normal(size=n), rng.random(n) - 0.1, (rng.random(n) < 0.001) * 1.0):
        b = b.astype(dtype)
        result = logsumexp(x, b=b, return_sign=True)
        CALLS["logsumexp, b"].function.hold(result, limits, x, b=b, return_sign=True)


def test_same_bits_for_any_number_of_threads(dtype, build):
    rng = np.random.default_rng(0)
    before = csoftmax.get_num_threads()
    try:
        for shape in ((3, 300_000), (4000, 70), (70, 4000)):
            x, b = rng.normal(size=(2, *shape)).astype(dtype)
            for axis in (0, 1):
                results = []
                for threads in (1, 2, 3):
                    csoftmax.set_num_threads(threads)
                    results.append(logsumexp(x, axis, b=b, return_sign=True))
                np.testing.assert_array_equal(results[0], results[1])
                np.testing.assert_array_equal(results[0], results[2])
    finally:
        csoftmax.set_num_threads(before)


def test_differences_of_exponentials_against_expm1(dtype, build):
    a = np.array([0.5, 3, 100, -7], dtype)
    b = np.array([0.25, 2.5, 99, -8], dtype)
    log, sign = logsumexp([a, b], 0, b=np.array([[1], [-1]], dtype), return_sign=True)
    right = a + np.log(-np.expm1(b.astype(np.float64) - a))
    np.testing.assert_allclose(log, right, rtol=8 * EPS[dtype], atol=8 * EPS[dtype])
    assert (sign == 1).all()
