"""No function touches memory outside its arrays, and every number of `out` is written."""

import contextlib
import ctypes
import itertools
import mmap
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from .functions import CALLS, WITH_OUT, operands_of
from .helpers import USABLE, run

# Every length that a loop's tail can have; and around blocks and chunks.
LENGTHS = [
    *range(71), 127, 128, 129, 1023, 1024, 1025, 2047, 2048, 2049, 4095, 4096, 4097, 5000,
]  # fmt: skip
GUARD = 1024    # bytes; a batch of columns has 512, a vector 64

# NaN that no computation makes: to write a NaN is not mistaken for writing nothing.
UNWRITTEN = {4: 0x7FC0BEEF, 8: 0x7FF800000BADBEEF}


def some_rows(n, turn):
    """One, two, or many rows: more than go together, and now and then more than a whole batch."""
    if turn % 3 < 2:
        return turn % 3 + 1
    if n > 129:
        return 5
    return 133 if n % 16 == 1 else 19


# Of rows and their length: the shape of contiguous memory, the view of it, and the axis of rows.
LAYOUTS = {
    "last axis": lambda rows, n: ((rows, n), lambda a: a, -1),
    "first axis": lambda rows, n: ((n, rows), lambda a: a, 0),
    "middle axis": lambda rows, n: ((2, n, rows), lambda a: a, 1),
    "Fortran order": lambda rows, n: ((n, rows), lambda a: a.T, -1),
    "gaps between numbers": lambda rows, n: ((rows, 2 * n), lambda a: a[:, ::2], -1),
    "gaps between rows": lambda rows, n: ((rows, n + 3), lambda a: a[:, 1 : n + 1], -1),
    "gaps between columns": lambda rows, n: ((n, 2 * rows), lambda a: a[:, ::2], 0),
    "part of columns": lambda rows, n: ((n, rows + 5), lambda a: a[:, 2 : rows + 2], 0),
    "backwards": lambda rows, n: ((rows, n), lambda a: a[:, ::-1], -1),
    "columns backwards": lambda rows, n: ((n, rows), lambda a: a[::-1, ::-1], 0),
    "unaligned": lambda rows, n: ((rows, n), lambda a: a, -1),
}
MODES = ["input of its own", "input that lies like it", "in place"]


def cases(name):
    """Rows, length, layout, mode. Every layout has every length; the rest takes turns."""
    first = list(CALLS).index(name)
    turns = itertools.count(7 * first)
    for n in LENGTHS:
        for layout in LAYOUTS:
            turn = next(turns)
            yield some_rows(n, turn), n, layout, MODES[turn // 3 % 3]


def guarded(layout, rows, n, dtype):
    """Memory, the view of it that is inside, and the axis. Around it, and between, are bytes."""
    shape, view, axis = LAYOUTS[layout](rows, n)
    size = int(np.prod(shape)) * dtype.itemsize
    start = GUARD + (layout == "unaligned")
    memory = np.full(size + start + GUARD, 0xA5, np.uint8)
    return memory, view(memory[start : start + size].view(dtype).reshape(shape)), axis


def guarded_rows(layout, shape, dtype):
    """The same for a result that has a number for each row."""
    memory = np.full((*shape[:-1], 2 * shape[-1] + 2 * GUARD), 0xA5A5, dtype)
    inside = memory[..., GUARD : GUARD + 2 * shape[-1] : 2]
    return memory, inside[..., ::-1] if "backwards" in layout else inside


@pytest.mark.parametrize("name", WITH_OUT)
def test_exactly_what_is_inside_out_is_written(name, dtype, build):
    call = WITH_OUT[name]
    bits_type, unwritten = np.dtype(f"u{dtype.itemsize}"), UNWRITTEN[dtype.itemsize]
    for rows, n, layout, mode in cases(name):
        memory, out, axis = guarded(layout, rows, n, dtype)
        operands = operands_of(call.operands, out.shape, dtype, axis)
        same_shape = call.places[rows % len(call.places)]    # the first or the second
        if call.out == "rows":
            memory, out = guarded_rows(layout, call.shape_of_out(out.shape, axis), dtype)
        elif mode != MODES[0] and operands[same_shape].shape == out.shape:
            if mode == MODES[1]:
                _, inside, _ = guarded(layout, rows, n, dtype)
            else:
                inside = out
            inside[...] = operands[same_shape]
            operands[same_shape] = inside
        bits = out.view(bits_type)
        in_place = any(operand is out for operand in operands.values())
        if not in_place:
            bits[...] = unwritten
        before = memory.copy()
        assert call(operands, axis, out)[-1] is out
        case = rows, n, layout, mode
        assert in_place or (bits != unwritten).all(), case
        bits[...] = 0    # the same inside, whatever has been written
        after, memory[...] = memory.copy(), before
        bits[...] = 0
        assert after.tobytes() == memory.tobytes(), case


class Fenced:
    """Memory between two pages; to touch these ends the process."""

    def __init__(self, size):
        self.size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self.memory = mmap.mmap(-1, self.size + 2 * mmap.PAGESIZE)
        self.bytes = np.frombuffer(self.memory, np.uint8)
        mprotect = ctypes.CDLL(None, use_errno=True).mprotect
        for page in (0, mmap.PAGESIZE + self.size):
            address = ctypes.c_void_p(self.bytes.ctypes.data + page)
            assert mprotect(address, mmap.PAGESIZE, 0) == 0

    def place(self, array, side, order, steps):
        """A copy of the array that begins or ends at a page.

        Its axes follow one another in memory in this order; from one number to the next are so
        many steps, backwards if negative.
        """
        strides, step = [0] * array.ndim, array.itemsize * abs(steps)
        for i in order:
            strides[i] = step
            step *= array.shape[i]
        reach = sum((n - 1) * step for n, step in zip(array.shape, strides, strict=True))
        size = reach + array.itemsize if array.size else 0
        start = mmap.PAGESIZE + (self.size - size if side == "behind" else 0)
        if steps < 0:
            strides = [-step for step in strides]
            start += reach if array.size else 0
        placed = np.ndarray(array.shape, array.dtype, self.memory, start, strides)
        placed[...] = array
        return placed


# The shape for rows of length n, the axis of rows, the order of axes in memory, and steps.
FENCED_LAYOUTS = {
    "last axis": lambda rows, n: ((rows, n), -1, (1, 0), 1),
    "first axis": lambda rows, n: ((n, rows), 0, (1, 0), 1),
    "middle axis": lambda rows, n: ((2, n, rows), 1, (2, 1, 0), 1),
    "with gaps": lambda rows, n: ((rows, n), -1, (1, 0), 2),
    "columns with gaps": lambda rows, n: ((n, rows), 0, (1, 0), 2),
    "backwards": lambda rows, n: ((rows, n), -1, (1, 0), -1),
}


def touch_everything():
    """Calls every function with all of its arrays at the border of forbidden pages.

    The last line that is printed tells the case.
    """
    largest = 8 * 2 * 5 * 5000
    fences = {name: Fenced(largest) for call in CALLS.values() for name in call.operands}
    fences["out"] = Fenced(largest)
    for (number, name), dtype in itertools.product(enumerate(CALLS), ("float32", "float64")):
        call, turns = CALLS[name], itertools.count(5 * number)
        for n, layout in itertools.product(LENGTHS, FENCED_LAYOUTS):
            turn = next(turns)
            turn += turn // len(FENCED_LAYOUTS)    # other numbers of rows for the next length
            if turn % 2 and layout not in ("last axis", "first axis"):
                continue
            if name == "softmax_jacobian" and n > 129:    # n squared numbers
                continue
            shape, axis, order, steps = FENCED_LAYOUTS[layout](some_rows(n, turn), n)
            print(name, dtype, shape, layout, flush=True)
            if not call.takes(shape, axis):
                continue
            operands = operands_of(
                call.operands, shape, np.dtype(dtype), axis, extreme_temperatures=turn // 2 % 2
            )
            if call.out:
                operands["out"] = np.empty(call.shape_of_out(shape, axis), dtype)
            for side in ("before", "behind") if turn % 4 == 0 else ("behind",):
                placed = {}
                for key, array in operands.items():
                    own = order if array.ndim == len(shape) else range(array.ndim)[::-1]
                    placed[key] = fences[key].place(array, side, own, steps)
                call(placed, axis, placed.get("out"))


@pytest.mark.skipif(sys.platform != "linux", reason="pages are made unreadable as Linux does it")
@pytest.mark.parametrize("isa", USABLE)
def test_arrays_at_the_border_of_unreadable_pages(isa):
    """In a process of its own, so that its end is a failure with the name of the case."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
    code += f"from {__name__} import touch_everything; touch_everything()"
    result = run(code, CSOFTMAX_ISA=isa, PYTHONFAULTHANDLER="1")
    last = result.stdout.splitlines()[-1:] or ["before the first case"]
    assert result.returncode == 0, f"{last[0]}\n{result.stderr}"


def others_of(array, n):
    """What another thread may write to an operand while a call reads it."""
    if array.dtype.kind == "i":
        some = [3, 2**45, -(2**45), n - 1, n, -1, -100, 2**63 - 1, -(2**63)]
    elif array.dtype.kind == "b":
        some = [False, True, np.random.default_rng(0).random(array.shape) < 0.5]
    else:
        some = [0, np.nan, np.inf, -np.inf, np.finfo(array.dtype).max, 1e-40, -1, 1]
    return [array.copy(), *(np.broadcast_to(one, array.shape) for one in some)]


def change_while_read(array, others, is_over):
    while not is_over.is_set():
        for other in others:
            array[...] = other


CHANGED_SHAPES = [((3, 30_000), -1), ((30, 2000), -1), ((3000, 20), -1), ((40, 600), 0)]


def change_everything():
    """Calls every function while its operands change in turn, one of them or all. Indices that are
    wrong lead far outside, and arrays end at forbidden pages. Classes that are found exist."""
    largest = 8 * 90_000
    fences = {name: Fenced(largest) for call in CALLS.values() for name in call.operands}
    sys.setswitchinterval(1e-5)
    for (name, call), (shape, axis), dtype in itertools.product(
        CALLS.items(), CHANGED_SHAPES, ("float32", "float64")
    ):
        if name == "softmax_jacobian" and shape[axis] > 100:    # n squared numbers
            continue
        operands = operands_of(call.operands, shape, np.dtype(dtype), axis)
        placed = {
            key: fences[key].place(array, "behind", range(array.ndim)[::-1], 1)
            for key, array in operands.items()
        }
        for changed in [*([key] for key in placed), [*placed]]:
            print(name, dtype, shape, changed, flush=True)
            is_over = threading.Event()
            changing = [
                threading.Thread(
                    target=change_while_read,
                    args=(placed[key], others_of(operands[key], shape[axis]), is_over),
                )
                for key in changed
            ]
            for thread in changing:
                thread.start()
            try:
                for _ in range(8):
                    with contextlib.suppress(IndexError, ValueError, RuntimeError):
                        classes = call(placed, axis)[0]
                        if call.name in ("top_log_probs", "sample"):
                            assert ((classes >= 0) & (classes < shape[axis])).all()
            finally:
                is_over.set()
                for thread in changing:
                    thread.join()
            for key, array in operands.items():
                placed[key][...] = array


@pytest.mark.skipif(sys.platform != "linux", reason="pages are made unreadable as Linux does it")
@pytest.mark.parametrize("isa", USABLE)
def test_operands_that_change_while_they_are_read(isa):
    """What has been checked may be something else when it is used."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
    code += f"from {__name__} import *; change_everything()"
    result = run(code, CSOFTMAX_ISA=isa, PYTHONFAULTHANDLER="1", CSOFTMAX_NUM_THREADS="2")
    last = result.stdout.splitlines()[-1:] or ["before the first case"]
    assert result.returncode == 0, f"{last[0]}\n{result.stderr}"
