"""Every public function on rows of all lengths, laid out in all ways: calls for tests/bits.py."""

import functools
import itertools
import math

import numpy as np

import csoftmax

from .cases import random_rows, special_rows
from .every_function import OPERANDS, few
from .functions import CALLS, LOGITS, operands_of

DTYPES = [np.dtype(np.float32), np.dtype(np.float64)]
SHAPES = [
    # Few rows, few classes, more of them, long rows; columns; groups of a few columns.
    ((10,), 0), ((1, 10), 1), ((7, 2), 1), ((5, 1), 1), ((32, 10), 1), ((130, 12), 1),
    ((1000, 3), 1), ((4000, 10), 1), ((300, 63), 1),
    ((257, 100), 1), ((64, 1000), 1), ((40, 4097), 1), ((3, 50257), 1), ((1, 130_001), 1),
    ((10, 500), 0), ((1000, 64), 0), ((40, 100, 33), 1),
    ((200, 10, 3), 1), ((40, 10, 4, 4), 1), ((500, 10, 1), 1), ((50, 3, 7, 2), 1),
]  # fmt: skip
SHAPES_OF_LAYOUTS = [((130, 12), 1), ((70, 1000), 1), ((10, 500), 0), ((40, 10, 3), 1)]
LAYOUTS = {
    "every other row": lambda x: x[::2],
    "every other column": lambda x: x[..., ::2],
    "reversed": lambda x: x[..., ::-1],
    "reversed rows": lambda x: x[::-1],
    "all but the ends": lambda x: x[1:-1, 1:-1],
    "Fortran order": np.asfortranarray,
    "of the other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
    "special rows": lambda x: special_rows(x.shape[-1], x.dtype),
}
TYPES_OF_INPUTS = ["float16", "bool", "int8", "int16", "int32", "int64", "uint64"]
TEMPERATURES = {
    "1.0": 1.0, "0.7": 0.7, "2": 2, "float32 2": np.float32(2), "sqrt 3": np.sqrt(3), "0": 0,
    "inf": np.inf, "1e-40": 1e-40, "1e40": 1e40, "one per row": None,
}  # fmt: skip
FEW_TEMPERATURES = ["1.0", "0.7", "one per row"]


def with_rows(shape, axis, dtype):
    """An array of this shape with random rows along the axis."""
    others = shape[:axis] + shape[axis + 1 :]
    rows = random_rows(math.prod(others), shape[axis], dtype).reshape(*others, -1)
    return np.ascontiguousarray(np.moveaxis(rows, -1, axis))


def inputs():
    """Of every case: its name, the names of the temperatures that are tried, logits and axis."""
    for dtype in DTYPES:
        for shape, axis in SHAPES:
            x = with_rows(shape, axis, dtype)
            yield f"{dtype} {shape} axis {axis}", TEMPERATURES, x, axis
            # Of the others the means and sums are NaN.
            x = np.nan_to_num(x, nan=1, posinf=5, neginf=-5)
            yield f"{dtype} {shape} axis {axis} finite", FEW_TEMPERATURES[:2], x, axis
        for shape, axis in SHAPES_OF_LAYOUTS:
            for layout, laid_out in LAYOUTS.items():
                x = laid_out(with_rows(shape, axis, dtype))
                yield f"{dtype} {shape} axis {axis} {layout}", FEW_TEMPERATURES, x, axis
    for name in TYPES_OF_INPUTS:
        for shape, axis in SHAPES_OF_LAYOUTS:
            x = with_rows(shape, axis, DTYPES[1])
            if name != "float16":
                x = np.clip(np.nan_to_num(x), 0 if name.startswith("u") else -100, 100)
            yield f"{name} {shape} axis {axis}", FEW_TEMPERATURES, x.astype(name), axis


def every_call(operands, axis, with_outs, tempered):
    """By name, with every reduction; maybe with an `out` of every type, or an operand's place."""
    for name, call in CALLS.items():
        if ("temperature" in call.operands) != tempered:
            continue
        if not isinstance(axis, int) and not call.takes_several_axes:
            continue
        if call.name == "softmax_jacobian":
            yield name, functools.partial(call, few(operands, axis))
            continue
        for turn in (0, 1, 3) if "reduction" in call.function.parameters else (0,):
            some = call.with_reduction(turn)
            reduction = some.others.get("reduction", "")
            yield f"{name} {reduction}", functools.partial(some, operands, axis)
        if call.out == LOGITS and with_outs:
            for kind in "efd":
                out = np.empty(operands["logits"].shape, kind)
                yield f"{name} to type {kind}", functools.partial(call, operands, axis, out)
            key = call.places[0]
            if key != "logits":
                out = operands[key].copy()
                in_place = functools.partial(call, operands | {key: out}, axis, out)
                yield f"{name} in place", in_place


def calls():
    """All of them: of every case its name, and a dict of calls by name."""
    for case, temperatures, x, axis in inputs():
        dtype = csoftmax.sigmoid(x).dtype
        operands = operands_of(OPERANDS, x.shape, dtype, axis) | {"logits": x}
        shape, mask = operands["temperature"].shape, operands["mask"]
        yield case, dict(every_call(operands, axis, True, False))
        some = operands | {"mask": mask[(slice(1),) * (axis % x.ndim)]}
        yield f"{case} by a row", dict(every_call(some, axis, False, False))
        for name in temperatures:
            temperature = TEMPERATURES[name]
            if temperature is None:
                some = [1, 0.7, 3.3, 0, np.inf, 1e-3]
                temperature = np.random.default_rng(1).choice(some, size=shape)
            some = operands | {"temperature": temperature}
            with_outs = name in FEW_TEMPERATURES
            yield f"{case} temperature {name}", dict(every_call(some, axis, with_outs, True))
    for dtype, n, axis in itertools.product(DTYPES, (4, 40), ((0, 2), None, (2, 1))):
        x = random_rows(2 * n, 5 * n, dtype).reshape(2 * n, 5, n)
        x[1::5] = 1.5
        operands = operands_of(OPERANDS, x.shape, dtype, axis) | {"logits": x}
        for tempered in (False, True):
            name = f"{dtype} {x.shape} axis {axis}"
            yield name, dict(every_call(operands, axis, True, tempered))
