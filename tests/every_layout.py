"""Every public function on rows of all lengths, laid out in all ways: calls for tests/bits.py."""

import functools
import itertools
import math

import numpy as np

import csoftmax

from .every_function import (
    companions,
    masked,
    random_rows,
    special_rows,
    with_temperature,
    without_temperature,
)

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


def losses(x, axis, beside, target, weight, temperature):
    """Both functions of cross-entropy with all that they take, reduced in all ways."""
    for function, reduction, (kind, targets), weights, smoothing in itertools.product(
        (csoftmax.cross_entropy, csoftmax.cross_entropy_value_and_grad), ("none", "mean", "sum"),
        {"indices": target, "probabilities": beside}.items(), (None, weight), (0.0, 0.2),
    ):  # fmt: skip
        weighted = "" if weights is None else ", weighted"
        name = f"{function.__name__} {reduction} of {kind}{weighted}, smoothed by {smoothing}"
        yield name, functools.partial(
            function, x, targets, axis, weight=weights, reduction=reduction,
            label_smoothing=smoothing, temperature=temperature,
        )  # fmt: skip


def of_any_axes(x, axis, beside, temperature):
    """Calls for one axis or several, many with out=: one of the inputs, or of another type."""
    keywords = {"axis": axis, "temperature": temperature}
    for function in (csoftmax.softmax, csoftmax.log_softmax):
        for kind in "efd":
            out = np.empty(x.shape, kind)
            call = functools.partial(function, x, out=out, **keywords)
            yield f"{function.__name__} to type {kind}", call
    for function in (csoftmax.softmax_vjp, csoftmax.log_softmax_vjp):
        name, out = function.__name__, beside.copy()
        yield f"{name} of any axes", functools.partial(function, beside, x, **keywords)
        yield f"{name} in place", functools.partial(function, out, x, out=out, **keywords)
    yield "entropy of any axes", lambda: csoftmax.entropy(x, **keywords)
    yield "logsumexp with keepdims", lambda: csoftmax.logsumexp(x, axis, keepdims=True)
    yield "sigmoid to type f", lambda: csoftmax.sigmoid(x, out=np.empty(x.shape, "f"))


def calls():
    """All of them: of every case its name, and a dict of calls by name."""
    for case, temperatures, x, axis in inputs():
        others = x.shape[:axis] + x.shape[axis + 1 :]
        dtype = csoftmax.sigmoid(x).dtype
        beside, target, weight = companions(math.prod(others), x.shape[axis], dtype)
        beside = np.moveaxis(beside.reshape(*others, -1), -1, axis)
        target = target.reshape(others)
        masks = {"": beside < 0.5, " by a row": beside[(slice(1),) * axis] < 0.5}
        yield case, without_temperature(x, axis, beside, target, weight)
        for name in temperatures:
            here = f"{case} temperature {name}"
            temperature = TEMPERATURES[name]
            if temperature is None:
                some = [1, 0.7, 3.3, 0, np.inf, 1e-3]
                temperature = np.random.default_rng(1).choice(some, size=others)
            arguments = (x, axis, beside, target, weight, temperature)
            if x.dtype.kind == "f":
                yield here, with_temperature(*arguments)
            if name in FEW_TEMPERATURES:
                yield here, dict(losses(*arguments))
                yield here, dict(of_any_axes(x, axis, beside, temperature))
                for mask, where in masks.items():
                    yield f"{here}{mask}", masked(x, axis, where, temperature)
    for dtype, n, axis in itertools.product(DTYPES, (4, 40), ((0, 2), None, (2, 1))):
        x = random_rows(2 * n, 5 * n, dtype).reshape(2 * n, 5, n)
        x[1::5] = 1.5
        beside = np.cos(x)
        for name, where in {"": x < 0.5, " by a row": x[0] < 0.5}.items():
            yield f"{dtype} {x.shape} axis {axis}{name}", masked(x, axis, where, 1.0)
        yield f"{dtype} {x.shape} axis {axis}", dict(of_any_axes(x, axis, beside, 0.7))
