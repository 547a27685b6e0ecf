"""bfloat16 of ml_dtypes, as an input and as `out`: what float32 gives for the same numbers."""

import dask.array as da
import numpy as np
import pytest

import csoftmax

from .cases import BFLOAT16
from .exact import F32, F64
from .functions import CALLS, WITH_OUT, operands_of
from .helpers import FORMS, assert_same_results, best_build, each_argument, rounded_to, run

each_call = pytest.mark.parametrize("name", CALLS)
SHAPES = [(4, 50), (3, 5000), (2000, 3)]


def in_bfloat16(operands):
    """Those that are floats, and the same in float32."""
    narrow = {
        key: array.astype(BFLOAT16) if array.dtype == F32 else array
        for key, array in operands.items()
    }  # fmt: skip
    wide = {key: array.astype(F32) if array.dtype == BFLOAT16 else array
            for key, array in narrow.items()}  # fmt: skip
    return narrow, wide


def test_it_is_not_imported():
    assert "ml_dtypes" not in run("import csoftmax, sys; print(*sys.modules)").stdout


@each_call
def test_inputs(name, build):
    call = CALLS[name]
    for shape in SHAPES:
        if name.startswith("softmax_jacobian") and shape[-1] > 100:    # n squared numbers
            continue
        narrow, wide = in_bfloat16(operands_of(call.operands, shape, F32))
        assert_same_results(call(narrow), call(wide), F32)


@best_build
@each_argument
def test_forms_of_inputs(call, key, build):
    operands = operands_of(call.operands, (6, 40), F32)
    if operands[key].dtype != F32:
        return
    x = operands[key].astype(BFLOAT16)
    for name, (dimensions, form) in FORMS.items():
        if x.ndim >= dimensions and name not in ("matrix", "list", "lists of scalars"):
            given = form(x)
            expected = call(operands | {key: np.array(given).astype(F32)})
            assert_same_results(call(operands | {key: given}), expected, F32)


def numbers(dtype):
    """All bits, and what lies next to the middle of two bfloat16."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2 ** (8 * dtype.itemsize), 100_000, f"u{dtype.itemsize}")
    every = np.arange(2**16).astype(np.uint16).view(BFLOAT16).astype(dtype)
    halves = (every[1:] + every[:-1]) / 2
    around = [np.nextafter(halves, dtype.type(sign * np.inf)) for sign in (-1, 1)]
    subnormal = rng.uniform(-4, 4, 10_000).astype(dtype) * dtype.type(2.0**-133)
    return np.concatenate([bits.view(dtype), every, halves, *around, subnormal]) + dtype.type(0)


def test_rounding(dtype, build):
    """Of sums of one number, which are that number."""
    with np.errstate(all="ignore"):
        x = numbers(dtype)
        right = rounded_to("bfloat16", x)
    for out in (np.empty(x.shape, BFLOAT16), np.empty((2, *x.shape), BFLOAT16)[1, ::-1],
                np.empty(x.shape, BFLOAT16.newbyteorder(">"))):  # fmt: skip
        assert csoftmax.logsumexp(x[:, None], out=out) is out
        is_nan = np.isnan(x)
        assert np.isnan(out[is_nan].astype(F32)).all()
        bits = out.astype(BFLOAT16).view(np.uint16)
        np.testing.assert_array_equal(bits[~is_nan], right.view(np.uint16)[~is_nan])


@pytest.mark.parametrize("name", WITH_OUT)
def test_in_place(name, build):
    call = WITH_OUT[name]
    for shape in SHAPES:
        narrow, wide = in_bfloat16(operands_of(call.operands, shape, F32))
        expected = call(wide)
        for key in call.places:
            if narrow[key].dtype != BFLOAT16 or call.shape_of_out(shape, -1) != shape:
                continue
            place = narrow[key].copy()
            results = call(narrow | {key: place}, -1, place)
            assert results[-1] is place
            np.testing.assert_array_equal(
                place.view(np.uint16), rounded_to("bfloat16", expected[-1]).view(np.uint16)
            )
            if len(results) == 2:
                np.testing.assert_array_equal(results[0], expected[0])


def test_axes_that_are_no_step_of_one_stride():
    x = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(BFLOAT16)
    out = np.empty_like(x)
    for given, wide in ((x, x.astype(F32)), (x.astype(F64), x.astype(F64))):
        assert csoftmax.softmax(given, (0, 2), out=out) is out
        right = csoftmax.softmax(wide, (0, 2))
        np.testing.assert_array_equal(out, rounded_to("bfloat16", right))


@best_build
@each_call
def test_dask(name, build):
    call = CALLS[name]
    narrow, wide = in_bfloat16(operands_of(call.operands, (6, 40), F32))
    lazy = {key: da.from_array(array, (2, -1)[: array.ndim] if array.ndim == 2 else -1)
            for key, array in narrow.items()}  # fmt: skip
    expected = call({key: da.from_array(array, lazy[key].chunks) for key, array in wide.items()})
    for result, right in zip(call(lazy), expected, strict=True):
        assert result.dtype == right.dtype
        np.testing.assert_array_equal(result.compute(), right.compute())
