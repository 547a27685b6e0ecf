"""Arrays with as many axes as NumPy has, against the same numbers with three."""

import re

import dask.array as da
import numpy as np
import pytest

import csoftmax

from .contract import axes_of, without
from .functions import CALLS, operands_of

AXES = 64
SHAPE = (2, 3, 4)
PLACES = (0, 2, AXES - 1)    # where these lengths stand among others of 1
NAMES = [name for name, call in CALLS.items() if call.name != "softmax_jacobian"]


def with_many_axes(array, places=PLACES):
    """`array`, of three axes, with its axes at these places among others of length 1."""
    shape = np.ones(AXES, int)
    shape[list(places)] = array.shape
    return array.reshape(shape)


def full(operands, axis):
    """Operands as arrays of three axes; weights of classes, which have one, as they are."""
    made = dict(operands)
    for name, array in operands.items():
        if array.shape == without(SHAPE, axes_of(axis, 3)) and array.ndim < len(SHAPE):
            made[name] = np.expand_dims(array, axis)
        elif name == "pos_weight":
            made[name] = array[None, None]
    return made


def arranged(operands, axis, arrange, of_rows):
    """What has the axes of logits goes through `arrange`, what has those of rows loses `axis`."""
    made = {}
    for name, array in operands.items():
        if array.ndim < len(SHAPE):
            made[name] = array
        elif array.shape == SHAPE or name == "pos_weight":
            made[name] = arrange(array)
        else:
            made[name] = np.squeeze(arrange(array), of_rows)
    return made


# The same three axes in another order, and the same order of all axes.
ORDERS = {
    "in order": (lambda x: x, with_many_axes, lambda i: (i, PLACES[i])),
    "transposed": (
        lambda x: x.T, lambda x: with_many_axes(x).T,
        lambda i: (2 - i, AXES - 1 - PLACES[i]),
    ),
}  # fmt: skip
each_order = pytest.mark.parametrize("order", ORDERS)


def both(name, order, axis, dtype):
    """Operands of three axes and of many, and the axis or axes in each."""
    of_three, of_many, places_of = ORDERS[order]
    axes = (axis,) if isinstance(axis, int) else axis
    few, many = (tuple(one) for one in zip(*map(places_of, axes), strict=True))
    if isinstance(axis, int):
        few, many = few[0], many[0]
    operands = operands_of(CALLS[name].operands, SHAPE, dtype, axis)
    operands = full(operands, axis)
    return (
        arranged(operands, axis, of_three, few), few,
        arranged(operands, axis, of_many, many), many,
    )  # fmt: skip


@each_order
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_any_function(name, axis, order, dtype):
    call = CALLS[name]
    few, axis_of_few, many, axis_of_many = both(name, order, axis, dtype)
    results = call(many, axis_of_many)
    expected = call(few, axis_of_few)
    for result, right in zip(results, expected, strict=True):
        np.testing.assert_array_equal(np.squeeze(result), right)
        assert result.ndim in (0, AXES - 1, AXES)
    if call.out:
        shape = results[-1].shape
        for out in (np.full(shape, 7, dtype), np.full(shape[::-1], 7, dtype).T):
            assert call(many, axis_of_many, out)[-1] is out
            np.testing.assert_array_equal(np.squeeze(out), expected[-1])


@each_order
@pytest.mark.parametrize("axis", [(0, 2), (1, 2), (0, 1, 2)], ids=str)
@pytest.mark.parametrize(
    "name", [name for name in NAMES if CALLS[name].takes_several_axes and CALLS[name].takes_axis]
)
def test_several_axes(name, axis, order, dtype):
    call = CALLS[name]
    few, axes_of_few, many, axes_of_many = both(name, order, axis, dtype)
    for result, right in zip(call(many, axes_of_many), call(few, axes_of_few), strict=True):
        np.testing.assert_array_equal(np.squeeze(result), right)


@pytest.mark.parametrize("name", NAMES)
def test_axes_that_do_not_collapse(name, dtype):
    """Twelve axes of length 2, every other of which is reversed."""
    call = CALLS[name]
    if not call.takes_axis:
        return
    shape = (2,) * 12
    operands = operands_of(call.operands, shape, dtype, 5)
    turned = {
        key: array[(np.s_[::-1], np.s_[:]) * (array.ndim // 2)] for key, array in operands.items()
    }
    copies = {key: array.copy() for key, array in turned.items()}
    for result, right in zip(call(turned, 5), call(copies, 5), strict=True):
        np.testing.assert_array_equal(result, right)


@pytest.mark.parametrize("name", NAMES)
def test_dask(name, dtype):
    """Rows in one chunk, of any axes."""
    call = CALLS[name]
    _, _, many, axis = both(name, "in order", 1, dtype)
    lazy = {key: da.from_array(one, chunks=-1) for key, one in many.items()}
    for result, right in zip(call(lazy, axis), call(many, axis), strict=True):
        assert result.ndim == np.ndim(right)
        np.testing.assert_array_equal(result.compute(), right)


SUMS = {
    "softmax": csoftmax.softmax, "log_softmax": csoftmax.log_softmax,
    "logsumexp": csoftmax.logsumexp,
    "with weights": lambda x, axis: csoftmax.logsumexp(x, axis, b=2, return_sign=True)[1],
}  # fmt: skip


@pytest.mark.parametrize("function", SUMS.values(), ids=SUMS.keys())
def test_dask_in_parts(function, dtype):
    """Dask brings chunks of up to 32 axes together."""
    x = operands_of(["logits"], SHAPE, dtype)["logits"].reshape((2,) + (1,) * 29 + (3, 4))
    result = function(da.from_array(x, chunks=2), (0, -1))
    np.testing.assert_allclose(result.compute(), function(x, (0, -1)), rtol=1e-6)
    with pytest.raises(ValueError, match=r"Dask changes the chunks of .* up to 32 axes, .*33"):
        function(da.from_array(x[None], chunks=2), (1, -1))


# Checks of shapes and positions, too, where NumPy's own functions may take 32 axes.
def test_what_is_refused():
    x, rows = np.zeros((1,) * (AXES - 1) + (3,)), np.zeros((1,) * (AXES - 1), int)
    wide = np.zeros((*rows.shape, 2))
    place = re.escape(", ".join("0" * (AXES - 1)))
    for error, message, call in (
        (IndexError, rf"target\[{place}\] is 7", lambda: csoftmax.cross_entropy(x, rows + 7)),
        (ValueError, rf"row \({place}\) of logits: a logit", lambda: csoftmax.sample(x + np.nan)),
        (ValueError, r"b of shape .*2\) does not broad", lambda: csoftmax.logsumexp(x, b=wide)),
        (ValueError, r"where .*2\) does not broad", lambda: csoftmax.softmax(x, where=wide > 0)),
        (ValueError, r"temperature .*2\) does not broadcast",
         lambda: csoftmax.softmax(x, temperature=wide[..., 0, :])),
        (ValueError, "most 63 axes, .* got 64", lambda: csoftmax.softmax_jacobian(x)),
        (ValueError, "most 63 axes, .* got 64",
         lambda: csoftmax.softmax_jacobian(da.from_array(x))),
        (ValueError, "makes 65 axes of the result", lambda: csoftmax.sample(x, size=(1, 1))),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            call()


def test_weights_of_more_rows(dtype):
    x, b = (operands_of(["logits"], SHAPE, dtype)["logits"] for _ in range(2))
    few = csoftmax.logsumexp(x[:1, :1], b=b, return_sign=True)
    many = csoftmax.logsumexp(with_many_axes(x[:1, :1]), b=with_many_axes(b), return_sign=True)
    for result, right in zip(many, few, strict=True):
        np.testing.assert_array_equal(np.squeeze(result), right)


def test_keepdims(dtype):
    x = operands_of(["logits"], SHAPE, dtype)["logits"]
    result = csoftmax.logsumexp(with_many_axes(x), 2, keepdims=True)
    assert result.ndim == AXES
    np.testing.assert_array_equal(np.squeeze(result), csoftmax.logsumexp(x, 1))
