"""Where an operand's numbers lie does not change a bit of the results.

Of logits, and of what has their shape in a product, the order of axes in memory may: rows that lie
side by side have loops of their own. Copies of those are contiguous in the order that they have.
"""

import numpy as np
import pytest

from .functions import CALLS, WITH_OUT, operands_of
from .helpers import each_argument, unaligned

SHAPES = [
    ((4, 9, 3, 10), -1), ((4, 9, 3, 10), 1), ((4, 3, 2, 9), 0), ((4, 130, 6), 1), ((5, 4, 300), -1),
    ((3, 2, 4200), -1), ((7, 40), -1), ((40, 7), 0), ((40,), -1),
]  # fmt: skip


def laid_out(x, shape, selection, order=None):
    """The numbers of `x` in a part of a larger array, with its axes in another order."""
    order = range(x.ndim) if order is None else order
    memory = np.full(int(np.prod(shape)) * x.itemsize, 1, np.uint8).view(x.dtype).reshape(shape)
    view = memory[(..., *selection)].transpose(np.argsort(order))
    view[...] = x
    return view


def with_gaps(*steps):
    """Numbers with steps between them along the first axes, or all."""
    def form(x):
        of_axes = (*steps, *[1] * x.ndim)[: x.ndim]
        return laid_out(
            x, [n * step for n, step in zip(x.shape, of_axes, strict=True)],
            tuple(np.s_[::step] for step in of_axes),
        )  # fmt: skip
    return form


def reversed_along(*axes):
    def form(x):
        turned = (..., *(np.s_[::-1] if i in axes else np.s_[:] for i in range(x.ndim)))
        return x[turned].copy()[turned]
    return form


def in_order(order):
    """With the axes in this order in memory; fewer axes as the order of these."""
    def form(x):
        own = [i for i in order if i < x.ndim]
        return laid_out(x, [x.shape[i] for i in own], (), own)
    return form


def one_for_all(*axes):
    """The first numbers along these axes for all."""
    def form(x):
        first = (..., *(np.s_[:1] if i in axes else np.s_[:] for i in range(x.ndim)))
        return np.broadcast_to(x[first], x.shape)
    return form


def swapped(x):
    return x.astype(x.dtype.newbyteorder(">"))


FORMS = {
    "reversed": reversed_along(0, 1, 2, 3),
    "first axis reversed": reversed_along(0),
    "second axis reversed": reversed_along(1),
    "third axis reversed": reversed_along(2),
    "every other of axis 1, every third of axis 3": with_gaps(1, 2, 1, 3),
    "every other of axis 0 and 2": with_gaps(2, 1, 2, 1),
    "every third of axis 1": with_gaps(1, 3, 1, 1),
    "Fortran order": in_order((3, 2, 1, 0)),
    "first two axes exchanged": in_order((1, 0, 2, 3)),
    "axes in the order 2, 0, 1, 3": in_order((2, 0, 1, 3)),
    "axes in the order 0, 3, 1, 2": in_order((0, 3, 1, 2)),
    "axes in the order 2, 1, 3, 0": in_order((2, 1, 3, 0)),
    "one for all of axis 0": one_for_all(0),
    "one for all of axis 1": one_for_all(1),
    "one for all of axis 2": one_for_all(2),
    "one for all of axes 0 and 2": one_for_all(0, 2),
    "one for all": one_for_all(0, 1, 2, 3),
    "big-endian": swapped,
    "big-endian, reversed, with gaps": lambda x: reversed_along(0, 1)(with_gaps(2, 2)(swapped(x))),
    "unaligned": unaligned,
    "unaligned, in Fortran order": lambda x: unaligned(x.T).T,
    "big-endian, unaligned": lambda x: unaligned(swapped(x)),
}
# What a function's loops follow: the other operands are copied where their axes lie otherwise.
LEADING = {"logits", "scores", "grad", "y", "log_y", "b"}


def contiguous_copy(key, form):
    """In the native byte order."""
    order = "K" if key in LEADING else "C"
    return form.astype(form.dtype.newbyteorder("="), order=order)


def assert_same_bits(results, expected):
    for result, right in zip(results, expected, strict=True):
        assert result.dtype == right.dtype
        assert result.shape == right.shape
        assert np.ascontiguousarray(result).tobytes() == np.ascontiguousarray(right).tobytes()


@each_argument
@pytest.mark.parametrize("form", FORMS)
def test_bits(call, key, form, dtype):
    for shape, axis in SHAPES:
        if call.name == "softmax_jacobian" and shape[axis] > 40:
            continue
        operands = operands_of(call.operands, shape, dtype, axis)
        given = FORMS[form](operands[key])
        copy = contiguous_copy(key, given)
        np.testing.assert_array_equal(given, copy)
        assert_same_bits(
            call(operands | {key: given}, axis), call(operands | {key: copy}, axis)
        )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CALLS)
def test_bits_where_all_operands_lie_so(name, form, dtype):
    call = CALLS[name]
    for shape, axis in SHAPES:
        if call.name == "softmax_jacobian" and shape[axis] > 40:
            continue
        operands = operands_of(call.operands, shape, dtype, axis)
        given = {key: FORMS[form](array) for key, array in operands.items()}
        copies = {key: contiguous_copy(key, array) for key, array in given.items()}
        assert_same_bits(call(given, axis), call(copies, axis))


@pytest.mark.parametrize("name", WITH_OUT)
def test_bits_in_any_out(name, dtype):
    """Which is written where it lies, or to a copy."""
    call = WITH_OUT[name]
    for shape, axis in SHAPES:
        operands = operands_of(call.operands, shape, dtype, axis)
        plain = np.zeros(call.shape_of_out(shape, axis), dtype)
        expected = call(operands, axis, plain)
        for form in FORMS:
            if form.startswith("one for all"):
                continue
            out = FORMS[form](np.zeros_like(plain))
            results = call(operands, axis, out)
            assert results[-1] is out
            results[-1] = out.astype(dtype)
            assert_same_bits(results, expected)
