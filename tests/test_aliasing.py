"""`out` may share memory with any input: the result is that of copies, and no other byte changes.

Each case has one memory for an input and `out`, and a copy of it for `out` alone. The same call
with both gives the bits that are wanted: all arrays lie alike, and only one of the calls overlaps.
"""

import math

import numpy as np
import pytest

import csoftmax

from .functions import WITH_OUT, operands_of


def cases():
    """Each function that has `out`, and each of its operands."""
    return [
        pytest.param(call, key, id=f"{name}: {key}")
        for name, call in WITH_OUT.items() for key in call.operands
    ]  # fmt: skip


OF_OUTS_SHAPE = {"logits", "target_logits", "grad", "y", "log_y", "shares"}
LIKE_OUT = [
    case for case in cases() if case.values[1] in OF_OUTS_SHAPE and case.values[0].out != "rows"
]
each_like_out = pytest.mark.parametrize(("call", "key"), LIKE_OUT)
each_other = pytest.mark.parametrize(
    ("call", "key"), [case for case in cases() if case not in LIKE_OUT]
)
SHAPES = [(1, 1), (1, 7), (3, 5), (5, 70), (18, 33), (3, 300), (2, 5000)]


def check(call, key, operands, axis, memory, arrange):
    """`arrange` makes the operand and `out` of a memory; the operand's values go there."""
    operand, out = arrange(memory)
    if operand.flags.writeable:
        operand[...] = operands[key]
    else:    # one number is at several places
        out[...] = np.resize(operands[key], out.shape)
    apart = memory.copy()
    others = {name: array for name, array in operands.items() if name != key}
    before = {name: array.copy() for name, array in others.items()}
    right = call(others | {key: operand}, axis, arrange(apart)[1])
    results = call(others | {key: operand}, axis, out)
    assert results[-1] is out
    for result, expected in zip(results, right, strict=True):
        np.testing.assert_array_equal(result, expected)
    arrange(apart)[1][...] = out
    assert memory.tobytes() == apart.tobytes()    # around out
    for name, array in others.items():
        np.testing.assert_array_equal(array, before[name], name)


def shifts_of(count, n):
    """All of them for few numbers; else by some, by a row, a lane, a chunk, nearly by all."""
    if count < 40:
        return range(-count, count + 1)
    some = {0, 1, 3, 8, 16, 17, n - 1, n, n + 1, 4096, count - 1}
    return sorted({sign * shift for shift in some if shift <= count for sign in (-1, 1)})


@each_like_out
@pytest.mark.parametrize("axis", [-1, 0])
def test_shifted_views_of_one_buffer(call, key, axis, dtype, build):
    """By whole numbers, and by a byte, which one of the two is not aligned with."""
    for shape in SHAPES:
        operands = operands_of(call.operands, shape, dtype, axis)
        like, size = operands[key], operands[key].nbytes
        shifts = [shift * dtype.itemsize for shift in shifts_of(like.size, shape[-1])]
        for shift in (*shifts, 1, -1, dtype.itemsize + 1):
            arrange = views(like, size, shape, dtype, size + shift)
            memory = np.full(3 * size + 32, 7, np.uint8)
            check(call, key, operands, axis, memory, arrange)


# Two views, of the input and of out, of memory that has twice their numbers.
ARRANGEMENTS = {
    "reversed": lambda m, a, b: (m[0], m[0, ::-1, ::-1]),
    "rows reversed": lambda m, a, b: (m[0], m[0, ::-1]),
    "numbers reversed": lambda m, a, b: (m[0, :, ::-1], m[0]),
    "in another order": lambda m, a, b: (m[0], m[0].reshape(b, a).T),
    "interleaved": lambda m, a, b: np.moveaxis(m.reshape(a, b, 2), -1, 0),
    "rows interleaved": lambda m, a, b: np.moveaxis(m.reshape(a, 2, b), 1, 0),
    "every other of a part": lambda m, a, b: (m[0], m.reshape(a, 2 * b)[:, ::2]),
    "in gaps of itself": lambda m, a, b: (
        m.reshape(-1)[: a * b].reshape(a, b), m.reshape(-1)[1::2].reshape(a, b)
    ),
    "one row for all": lambda m, a, b: (np.broadcast_to(m[0, a // 2], (a, b)), m[0]),
    "one number per row": lambda m, a, b: (np.broadcast_to(m[0, :, b // 2 :][:, :1], (a, b)), m[0]),
    "one number for all": lambda m, a, b: (np.broadcast_to(m[0, -1, -1], (a, b)), m[0]),
}  # fmt: skip


@each_like_out
@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_other_views_of_one_buffer(arrangement, call, key, axis, dtype):
    for shape in SHAPES:
        operands = operands_of(call.operands, shape, dtype, axis)
        memory = np.full((2, *shape), 7, dtype)
        check(
            call, key, operands, axis, memory,
            lambda memory, shape=shape: ARRANGEMENTS[arrangement](memory, *shape),
        )  # fmt: skip


@each_like_out
@pytest.mark.parametrize("axis", [-1, 0])
def test_transposed(call, key, axis, dtype):
    for n in (2, 7, 17, 70, 200):
        operands = operands_of(call.operands, (n, n), dtype, axis)
        check(
            call, key, operands, axis, np.empty((n, n), dtype), lambda memory: (memory, memory.T)
        )


@pytest.mark.parametrize(
    ("call", "key"), [case for case in LIKE_OUT if case.values[0].takes_several_axes]
)
@pytest.mark.parametrize("axis", [None, (0, 1), (0, 2)])
def test_several_axes(call, key, axis, dtype):
    for shape in ((2, 3, 4), (5, 17, 30)):
        operands = operands_of(call.operands, shape, dtype, axis)
        like, size = operands[key], operands[key].nbytes
        for shift in shifts_of(like.size, shape[-1]):
            arrange = views(like, size, shape, dtype, size + shift * dtype.itemsize)
            check(call, key, operands, axis, np.full(3 * size, 7, np.uint8), arrange)


def starts_of(size, size_of_out, step):
    """Where an array lies from the start of out on: before it, over its start, within, at its end,
    behind it."""
    middle, end = size_of_out // 2, size_of_out
    starts = {-size, -size + step, -size // 2, -step, 0, step, middle, end - size, end - step, end}
    return sorted({start // step * step for start in starts if -size <= start <= end})


def views(like, start, shape_of_out, dtype, start_of_out):
    """An arrangement of an operand and of out at these places of a memory of bytes."""
    end = start_of_out + math.prod(shape_of_out) * dtype.itemsize

    def arrange(memory):
        operand = memory[start : start + like.nbytes].view(like.dtype).reshape(like.shape)
        return operand, memory[start_of_out:end].view(dtype).reshape(shape_of_out)

    return arrange


@each_other
@pytest.mark.parametrize("axis", [-1, 0])
def test_arrays_of_other_types_and_shapes(call, key, axis, dtype):
    """Masks, temperatures, class indices and weights in the memory of out."""
    for shape in SHAPES:
        operands = operands_of(call.operands, shape, dtype, axis)
        of_operand, shape_of_out = operands[key], call.shape_of_out(shape, axis)
        size_of_out = math.prod(shape_of_out) * dtype.itemsize
        place = 8 * -(-of_operand.nbytes // 8)
        for start in starts_of(of_operand.nbytes, size_of_out, of_operand.itemsize):
            arrange = views(of_operand, place + start, shape_of_out, dtype, place)
            memory = np.full(2 * place + size_of_out, 7, np.uint8)
            check(call, key, operands, axis, memory, arrange)


@pytest.mark.parametrize(
    ("call", "key"), [case for case in cases() if case.values[1] in ("mask", "temperature")]
)
def test_masks_and_temperatures_for_several_rows(call, key, dtype):
    """Arrays that broadcast."""
    for shape in SHAPES:
        operands = operands_of(call.operands, shape, dtype)
        whole, shape_of_out = operands[key], call.shape_of_out(shape, -1)
        if key == "mask":
            parts = whole[:1], whole[0], whole[:, :1], whole[0, 0]
        else:
            parts = whole[:1], whole[0]
        size_of_out = math.prod(shape_of_out) * dtype.itemsize
        for like in map(np.asarray, parts):
            if like.nbytes > size_of_out:
                continue
            middle = (size_of_out - like.nbytes) // 2 // like.itemsize * like.itemsize
            arrange = views(like, middle, shape_of_out, dtype, 0)
            memory = np.full(size_of_out, 7, np.uint8)
            check(call, key, operands | {key: like}, -1, memory, arrange)


def test_all_inputs_are_one_array(dtype):
    """And out is it, too."""
    for function in (csoftmax.softmax_vjp, csoftmax.log_softmax_vjp):
        for shape in SHAPES:
            x = -operands_of(["y"], shape, dtype)["y"]
            expected = function(x.copy(), x.copy(), out=x.copy())
            np.testing.assert_array_equal(function(x, x, out=x), expected)
    x = operands_of(["y"], (5, 70), dtype)["y"]
    expected = csoftmax.cross_entropy_value_and_grad(x.copy(), x.copy(), out=x.copy())
    for result, right in zip(
        csoftmax.cross_entropy_value_and_grad(x, x, out=x), expected, strict=True
    ):
        np.testing.assert_array_equal(result, right)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_class_indices_whose_weights_are_all_0(label_smoothing, dtype):
    """Which rows are ignored is asked again after out has been written."""
    memory = np.zeros((4, 6), np.float64)
    out = memory.view(dtype)[:, :6]
    indices = memory.view(np.int64)[:, 1]
    indices[...] = [1, -100, 0, 2]
    keywords = {"weight": np.zeros(6), "label_smoothing": label_smoothing}
    x = operands_of(["logits"], (4, 6), dtype)["logits"]
    loss, right = csoftmax.cross_entropy_value_and_grad(x, indices.copy(), **keywords)
    assert np.isnan(loss)
    csoftmax.cross_entropy_value_and_grad(x, indices, out=out, **keywords)
    np.testing.assert_array_equal(out, right)


# Overlaps of out along an axis in the middle.

OF_THREE_AXES = [(3, 5, 4), (2, 70, 3)]


@each_like_out
def test_shifted_out_along_the_middle_axis(call, key, dtype):
    for shape in OF_THREE_AXES:
        operands = operands_of(call.operands, shape, dtype, 1)
        like, size = operands[key], operands[key].nbytes
        for shift in {1, shape[2], shape[1] * shape[2], like.size - 1}:
            for sign in (-1, 1):
                start = size + sign * shift * dtype.itemsize
                arrange = views(like, size, shape, dtype, start)
                check(call, key, operands, 1, np.full(3 * size, 7, np.uint8), arrange)


@each_other
def test_other_operands_in_out_along_the_middle_axis(call, key, dtype):
    for shape in OF_THREE_AXES:
        operands = operands_of(call.operands, shape, dtype, 1)
        of_operand, shape_of_out = operands[key], call.shape_of_out(shape, 1)
        size = math.prod(shape_of_out) * dtype.itemsize
        place = 8 * -(-of_operand.nbytes // 8)
        for start in starts_of(of_operand.nbytes, size, of_operand.itemsize):
            arrange = views(of_operand, place + start, shape_of_out, dtype, place)
            check(call, key, operands, 1, np.full(2 * place + size, 7, np.uint8), arrange)


@each_like_out
def test_out_in_the_gaps_between_rows_that_overlap(call, key, dtype):
    """Views with steps, of which some numbers are shared."""
    shape = (4, 6, 5)
    operands = operands_of(call.operands, shape, dtype, 1)
    for first, second in (
        (np.s_[:4, :6, :5], np.s_[1:5, 1:7, 1:6]), (np.s_[::2, :6, :5], np.s_[:4, 1:7, :5]),
        (np.s_[:4, :6, ::2], np.s_[:4, ::2, :5]), (np.s_[:4, :6, 4::-1], np.s_[:4, 5::-1, :5]),
    ):  # fmt: skip
        check(
            call, key, operands, 1, np.full((8, 12, 10), 7, dtype),
            lambda memory, one=first, other=second: (memory[one], memory[other]),
        )  # fmt: skip
