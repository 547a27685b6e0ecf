"""What holds for every input, tried on inputs that hypothesis makes up."""

import hypothesis
import hypothesis.extra.numpy as npst
import hypothesis.strategies as st
import numpy as np

import csoftmax

hypothesis.settings.register_profile("csoftmax", deadline=None, max_examples=200, derandomize=True)
hypothesis.settings.load_profile("csoftmax")


def finite(width):
    return st.floats(width=width, allow_nan=False, allow_infinity=False)


def arrays(elements=finite, dtypes=(np.float32, np.float64), max_side=40):
    def of(dtype):
        width = np.dtype(dtype).itemsize * 8
        shape = npst.array_shapes(min_dims=1, max_dims=3, max_side=max_side)
        return npst.arrays(dtype, shape, elements=elements(width))

    return st.sampled_from(dtypes).flatmap(of)


def moderate(width):
    return st.floats(-50, 50, width=width)


def tolerance(x):
    """An ULP of 1 for each of the sum's terms is enough, as every probability is good to 3 ULP."""
    return 3 * np.finfo(x.dtype).eps


@hypothesis.given(arrays())
def test_probabilities_are_in_range_and_sum_to_1(x):
    y = csoftmax.softmax(x)
    assert (y >= 0).all()
    assert (y <= 1).all()
    np.testing.assert_allclose(y.sum(-1, dtype=float), 1, rtol=tolerance(x))


@hypothesis.given(arrays())
def test_order_is_kept(x):
    """In the exact softmax a larger logit has a larger probability; rounded, at least not less
    than by the errors of both."""
    order = np.argsort(x, axis=-1, kind="stable")
    y = np.take_along_axis(csoftmax.softmax(x), order, -1).astype(float)
    assert (np.diff(y) >= -6 * np.spacing(y[..., 1:].astype(x.dtype))).all()


@hypothesis.given(arrays(moderate), st.integers(-1000, 1000))
def test_shift_invariance(x, shift):
    x = np.round(x * 64) / 64    # so that x + shift is exact
    np.testing.assert_allclose(
        csoftmax.softmax(x + x.dtype.type(shift)), csoftmax.softmax(x),
        rtol=2 * tolerance(x), atol=float(np.finfo(x.dtype).tiny),
    )
    np.testing.assert_allclose(
        csoftmax.logsumexp(x + x.dtype.type(shift)), csoftmax.logsumexp(x) + shift,
        rtol=0, atol=4 * np.finfo(x.dtype).eps * (abs(shift) + 60),
    )


@hypothesis.given(arrays())
def test_permuted_logits_have_permuted_probabilities(x):
    y = csoftmax.softmax(x[..., ::-1])[..., ::-1]
    np.testing.assert_allclose(
        y, csoftmax.softmax(x), rtol=2 * tolerance(x), atol=float(np.finfo(x.dtype).tiny)
    )


@hypothesis.given(arrays(moderate))
def test_temperature_towards_0_is_argmax(x):
    x = np.round(x)
    cold = csoftmax.softmax(x, temperature=1e-4)
    ties = x == x.max(-1, keepdims=True)
    np.testing.assert_allclose(cold, ties / ties.sum(-1, keepdims=True), rtol=tolerance(x))
    coldest = csoftmax.softmax(x, temperature=0)
    np.testing.assert_array_equal(coldest.argmax(-1), x.argmax(-1))
    np.testing.assert_array_equal(coldest.sum(-1), 1)


@hypothesis.given(arrays())
def test_temperature_infinity_is_uniform(x):
    np.testing.assert_array_equal(
        csoftmax.softmax(x, temperature=np.inf), np.full(x.shape, 1 / x.shape[-1], x.dtype)
    )


@hypothesis.given(arrays(moderate), st.floats(0.01, 100))
def test_temperature_divides_the_logits(x, temperature):
    x = x.astype(np.float64)
    np.testing.assert_allclose(
        csoftmax.softmax(x, temperature=temperature), csoftmax.softmax(x / temperature),
        rtol=4e-16 * (10 + 100 / temperature), atol=1e-300,
    )


@hypothesis.given(arrays())
def test_log_softmax_is_the_log_of_softmax(x):
    y = csoftmax.softmax(x)
    kept = y > 1e-30
    np.testing.assert_allclose(
        csoftmax.log_softmax(x)[kept], np.log(y[kept].astype(np.longdouble)).astype(x.dtype),
        rtol=4 * np.finfo(x.dtype).eps, atol=4 * np.finfo(x.dtype).eps,
    )


@hypothesis.given(arrays(), st.randoms(use_true_random=False))
def test_loss_is_minus_the_log_probability(x, random):
    target = np.empty(x.shape[:-1], int)
    target.flat = [random.randrange(x.shape[-1]) for _ in range(target.size)]
    loss, grad = csoftmax.cross_entropy_value_and_grad(x, target, reduction="none")
    picked = np.take_along_axis(csoftmax.log_softmax(x), target[..., None], -1)[..., 0]
    np.testing.assert_allclose(loss, -picked, rtol=4 * np.finfo(x.dtype).eps)
    np.testing.assert_array_equal(loss, csoftmax.cross_entropy(x, target, reduction="none"))
    np.testing.assert_allclose(grad.sum(-1, dtype=float), 0, atol=4 * np.finfo(x.dtype).eps)


@hypothesis.given(arrays(lambda width: st.floats(width=width)))
def test_any_bits_at_all(x):
    """Infinities and NaN anywhere: rows are NaN exactly where the contract says so."""
    y = csoftmax.softmax(x)
    bad = np.isnan(x).any(-1) | (x == np.inf).any(-1) | (x == -np.inf).all(-1)
    assert np.isnan(y[bad]).all()
    assert not np.isnan(y[~bad]).any()
    assert np.isnan(csoftmax.log_softmax(x)[bad]).all()
    np.testing.assert_array_equal(np.isnan(csoftmax.logsumexp(x)), np.isnan(x).any(-1))
