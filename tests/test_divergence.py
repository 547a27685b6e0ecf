"""The divergence of rows that are close, and its gradient, against mpmath; special rows."""

import mpmath
import numpy as np
import pytest

import csoftmax

from .cases import LAYOUTS, chunk_of
from .exact import INF, LONG
from .functions import CALLS, hold, masks

pytestmark = pytest.mark.usefixtures("build")


def exact(z, t, temperature):
    """The divergence, and q - p, in 80 digits."""
    with mpmath.workdps(80):
        z, t = ([mpmath.mpf(float(one)) / mpmath.mpf(temperature) for one in row] for row in (z, t))
        log_z, log_t = (mpmath.log(mpmath.fsum(map(mpmath.exp, row))) for row in (z, t))
        log_q, log_p = [one - log_z for one in z], [one - log_t for one in t]
        p, q = [mpmath.exp(one) for one in log_p], [mpmath.exp(one) for one in log_q]
        terms = (a * (b - c) for a, b, c in zip(p, log_p, log_q, strict=True))
        return mpmath.fsum(terms), [a - b for a, b in zip(q, p, strict=True)]


def steps(x, count, rng):
    """Each number by up to so many ULP up or down."""
    for _ in range(count):
        to = rng.choice([-INF, 0, INF], size=x.shape).astype(x.dtype)
        x = np.where(to == 0, x, np.nextafter(x, to))
    return x


CLOSE = {
    "1 ULP": lambda x, rng: steps(x, 1, rng),
    "4 ULP": lambda x, rng: steps(x, 4, rng),
    "one by 1 ULP": lambda x, rng: np.where(
        np.arange(x.shape[1]) == rng.integers(x.shape[1]), np.nextafter(x, x.dtype.type(INF)), x
    ),
    "1e-3": lambda x, rng: x + (1e-3 * rng.normal(size=x.shape)).astype(x.dtype),
    "a constant, ULPs": lambda x, rng: steps(x + x.dtype.type(100), 1, rng),
}


@pytest.mark.parametrize("apart", CLOSE)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("scale", [1e-3, 1, 20])
def test_close_rows(scale, temperature, apart, dtype, limits):
    rng = np.random.default_rng([len(apart), int(scale)])
    limit = limits[f"divergence, {dtype}"]
    long = chunk_of(dtype) + 300
    for n in (2, 3, 10, 17, 40, 130, *([long] if temperature == scale == 1 else [])):
        t = (scale * rng.normal(size=(3 if n < 1000 else 1, n))).astype(dtype)
        if scale == 1:
            t[:, n // 2] += 12    # which has nearly all the probability
        z = CLOSE[apart](t, rng)
        right = [exact(a, b, temperature) for a, b in zip(z, t, strict=True)]
        last_digit = 1e-3 * np.spacing(np.abs(z).max())
        for layout in LAYOUTS:
            (some_z, axis), (some_t, _) = layout(z), layout(t)
            divergences, grad = csoftmax.kl_divergence_value_and_grad(
                some_z, some_t, axis, temperature=temperature, reduction="none"
            )
            grad = np.moveaxis(grad, axis, -1)
            for value, row, (divergence, difference) in zip(divergences, grad, right, strict=True):
                assert value >= 0
                if divergence > max(1e6 * np.finfo(dtype).tiny, np.finfo(float).eps ** 4):
                    # The contract's, where one class differs that has hardly any probability.
                    of_it = limit if divergence > np.finfo(dtype).eps ** 3 else 1e-3
                    assert abs(float(value) - divergence) <= of_it * divergence
                of_row = np.array([float(one / temperature) for one in difference])
                # By a constant alone rows may differ, or where one class has nearly everything.
                largest = max(np.abs(of_row).max(), last_digit)
                assert np.abs(row - of_row).max() <= 2 * limit * largest


def test_equal_rows(dtype):
    rng = np.random.default_rng(0)
    for n in (1, 2, 10, 100, 3 * chunk_of(dtype)):
        x = (10 * rng.normal(size=(5, n))).astype(dtype)
        x[1] += 1000
        x[2, : n // 2] = -INF
        for layout in LAYOUTS:
            some, axis = layout(x)
            for temperature in (1.0, 0.3, 0, 1e-35, INF):
                divergences, grad = csoftmax.kl_divergence_value_and_grad(
                    some, some.copy(), axis, temperature=temperature, reduction="none"
                )
                assert (divergences == 0).all()
                assert (grad == 0).all()


@pytest.mark.parametrize("n", [2, 17, 100, 9000])
def test_what_has_no_probability(n, dtype):
    """On one side, the other, both."""
    t = np.random.default_rng(n).normal(size=(4, n)).astype(dtype)
    z = t[::-1].copy()
    t[1, 0] = z[2, 0] = -INF
    z[3, 0] = t[3, 0] = -INF
    for layout in LAYOUTS:
        (some_z, axis), (some_t, _) = layout(z), layout(t)
        divergences, grad = csoftmax.kl_divergence_value_and_grad(
            some_z, some_t, axis, reduction="none"
        )
        grad = np.moveaxis(grad, axis, -1)
        assert np.isfinite(divergences[[0, 1, 3]]).all()
        assert divergences[2] == INF
        difference = csoftmax.softmax(z) - csoftmax.softmax(t)
        np.testing.assert_allclose(grad, difference, atol=4 * np.finfo(dtype).eps)
        assert grad[3, 0] == 0


def test_a_mask_that_leaves_nothing(dtype):
    for n in (3, 100, 9000):
        z, t = np.random.default_rng(n).normal(size=(2, 5, n)).astype(dtype)
        where = masks(5, n)
        where[2] = False
        z[2, 0], t[3] = np.nan, np.where(where[3], -INF, 0)
        for layout in LAYOUTS:
            (some_z, axis), (some_t, _), (mask, _) = layout(z), layout(t), layout(where)
            divergences, grad = csoftmax.kl_divergence_value_and_grad(
                some_z, some_t, axis, where=mask, reduction="none"
            )
            grad = np.moveaxis(grad, axis, -1)
            assert divergences[2] == 0
            assert (grad[2] == 0).all()
            assert np.isnan(divergences[3]) == where[3].any()
            assert (grad[~where] == 0).all()


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_it_is_cross_entropy_less_entropy(temperature, dtype):
    z, t = 3 * np.random.default_rng(0).normal(size=(2, 50, 30)).astype(dtype)
    p = csoftmax.softmax(t, temperature=temperature)
    divergence, grad = csoftmax.kl_divergence_value_and_grad(z, t, temperature=temperature)
    loss, right = csoftmax.cross_entropy_value_and_grad(z, p, temperature=temperature)
    entropy = csoftmax.entropy(t, temperature=temperature).astype(LONG).mean()
    np.testing.assert_allclose(divergence, float(loss - entropy), rtol=1e-5)
    np.testing.assert_allclose(grad, right, atol=4 * np.finfo(dtype).eps / 50)


def test_both_types(limits):
    """In float64 if one of them is."""
    z, t = np.random.default_rng(0).normal(size=(2, 9, 30))
    call = CALLS["kl_divergence_value_and_grad"]
    for some in ((z.astype("f4"), t), (z, t.astype("f2")), (z.astype("i1"), t.astype("f4"))):
        hold(call, limits, dict(zip(call.places, some, strict=True)), LAYOUTS[0])
