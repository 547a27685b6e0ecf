"""`where`: windows and single numbers that are left, masks in any form, and those of attention."""

import numpy as np
import pytest

import csoftmax

from .cases import KINDS, LAYOUTS, mixed_rows, normal, rows
from .exact import INF, LONG, NAN
from .functions import CALLS, hold, masks
from .helpers import FORMS, garbage

pytestmark = pytest.mark.usefixtures("build")
each_layout = pytest.mark.parametrize("layout", LAYOUTS)
NAMES = ["softmax, mask", "log_softmax, mask", "logsumexp, mask"]


def hold_masked(x, where, limits, layout):
    for name in NAMES:
        hold(CALLS[name], limits, {"logits": x, "mask": where}, layout)


@each_layout
def test_a_single_number_is_left(layout, dtype, limits):
    """In every place of the row."""
    for n in (1, 2, 16, 17, 65, 130):
        where = np.eye(n, dtype=bool)
        x = np.where(where, mixed_rows([normal], n, n, dtype), garbage((n, n), dtype))
        hold_masked(x, where, limits, layout)
        assert (csoftmax.log_softmax(x, where=where)[where] == 0).all()


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
    hold_masked(x, where, limits, layout)


# The same mask, or one like it, that broadcasts.
PARTS = {
    "shape (n,)": lambda mask: mask[-1],
    "shape (1, n)": lambda mask: mask[-1:],
    "shape (rows, 1)": lambda mask: mask[:, :1],
    "shape (1, 1)": lambda mask: mask[:1, :1],
    "shape ()": lambda mask: np.array(True),
    "True": lambda mask: True,
    "False": lambda mask: np.False_,
    "part of a larger one": lambda mask: np.pad(mask, 3)[3:-3, 3:-3],
}


@pytest.mark.parametrize("form", [*PARTS, *FORMS])
@pytest.mark.parametrize("arrange", [np.copy, np.asfortranarray], ids=["C", "Fortran"])
@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_forms_of_masks(form, arrange, dtype, limits):
    arranged = PARTS[form] if form in PARTS else FORMS[form][1]
    for shape in ((1, 1), (3, 5), (17, 130), (130, 7), (2, 4200)):
        x, where = arrange(mixed_rows(KINDS, *shape, dtype)), arranged(masks(*shape))
        for name in NAMES:
            operands = {"logits": x, "mask": where}
            CALLS[name].hold(CALLS[name](operands), limits, operands)


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
    operands = {"logits": rows(normal, 6 * length, length, dtype).reshape(shape), "mask": where}
    for name in NAMES:
        CALLS[name].hold(CALLS[name](operands), limits, operands)


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


def test_temperature_with_several_axes(dtype):
    x = rows(normal, 6, 200, dtype).reshape(6, 4, 50)
    where = masks(6, 200)[:, :50].reshape(6, 1, 50)
    together = csoftmax.softmax(x, (0, 2), temperature=[0.5, 1, 0, INF], where=where)
    for i, temperature in enumerate((0.5, 1, 0, INF)):
        expected = csoftmax.softmax(x[:, i], None, temperature=temperature, where=where[:, 0])
        np.testing.assert_array_equal(together[:, i], expected)


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
    for name in ("softmax", "log_softmax", "logsumexp"):
        function = getattr(csoftmax, name)
        np.testing.assert_array_equal(function(x, where=None), function(x))
