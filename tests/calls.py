"""A table of calls: every public function with every array that it takes, and their operands.

For tests that ask the same of all functions: what they touch, what may overlap, how arrays may lie.
"""

import math
from dataclasses import dataclass, field

import numpy as np

import csoftmax

OF_ONE_AXIS = (
    csoftmax.cross_entropy, csoftmax.cross_entropy_value_and_grad, csoftmax.nll_loss,
    csoftmax.softmax_jacobian,
)  # fmt: skip


@dataclass(frozen=True)
class Call:
    """A function and the names of its operands, by place and by keyword."""

    function: object
    places: tuple
    keywords: dict = field(default_factory=dict)    # parameter: name of its operand
    others: dict = field(default_factory=dict)    # parameter: value
    out: str = ""    # the operand that `out` has the shape of, "rows", or nothing

    @property
    def operands(self):
        return (*self.places, *self.keywords.values())

    @property
    def takes_axis(self):
        return self.function not in (csoftmax.sigmoid, csoftmax.binary_cross_entropy)

    @property
    def takes_several_axes(self):
        """Or asks for none, as elementwise functions do."""
        return self.function not in OF_ONE_AXIS

    def __call__(self, operands, axis=-1, out=None):
        """The results as a list. `operands` may have more than are needed."""
        keywords = {parameter: operands[name] for parameter, name in self.keywords.items()}
        keywords |= self.others
        if self.takes_axis:
            keywords["axis"] = axis
        if out is not None:
            keywords["out"] = out
        result = self.function(*(operands[name] for name in self.places), **keywords)
        return list(result) if isinstance(result, tuple) else [result]

    def shape_of_out(self, shape, axis):
        return rows_of(shape, axis) if self.out == "rows" else shape


def rows_of(shape, axis):
    """The shape without the axis or axes."""
    axes = range(len(shape)) if axis is None else np.atleast_1d(axis) % len(shape)
    return tuple(n for i, n in enumerate(shape) if i not in axes)


def rowwise(function):
    """Without anything, with a temperature per row, with a mask, with both."""
    name = function.__name__
    tempered, masked = {"temperature": "temperature"}, {"where": "mask"}
    return {
        name: Call(function, ("logits",), out="logits"),
        f"{name}, temperature": Call(function, ("logits",), tempered, out="logits"),
        f"{name}, mask": Call(function, ("logits",), masked, out="logits"),
        f"{name}, mask, temperature": Call(function, ("logits",), tempered | masked, out="logits"),
    }


def losses(function, **keywords):
    """Of class indices, weighted ones, smoothed ones, and of probabilities."""
    name = function.__name__
    tempered, weighted = {"temperature": "temperature"}, {"weight": "weight"}
    indices, shares = ("logits", "indices"), ("logits", "shares")
    none, smooth = {"reduction": "none"}, {"label_smoothing": 0.1}
    return {
        f"{name}, indices": Call(function, indices, {}, none, **keywords),
        f"{name}, temperature": Call(function, indices, tempered, **keywords),
        f"{name}, weight": Call(function, indices, weighted, **keywords),
        f"{name}, smoothing": Call(function, indices, tempered | weighted, smooth, **keywords),
        f"{name}, shares": Call(function, shares, weighted, none, **keywords),
        f"{name}, shares, temperature": Call(function, shares, tempered, **keywords),
    }


def products(function, outcome):
    name = function.__name__
    tempered, places = {"temperature": "temperature"}, ("grad", outcome)
    return {
        name: Call(function, places, out="logits"),
        f"{name}, temperature": Call(function, places, tempered, out="logits"),
    }


CALLS = {
    **rowwise(csoftmax.softmax),
    **rowwise(csoftmax.log_softmax),
    "logsumexp": Call(csoftmax.logsumexp, ("logits",), out="rows"),
    "logsumexp, mask": Call(csoftmax.logsumexp, ("logits",), {"where": "mask"}, out="rows"),
    **losses(csoftmax.cross_entropy),
    **losses(csoftmax.cross_entropy_value_and_grad, out="logits"),
    "nll_loss": Call(csoftmax.nll_loss, ("log_y", "indices"), {}, {"reduction": "none"}),
    "nll_loss, weight": Call(csoftmax.nll_loss, ("log_y", "indices"), {"weight": "weight"}),
    **products(csoftmax.softmax_vjp, "y"),
    **products(csoftmax.log_softmax_vjp, "log_y"),
    "softmax_jacobian": Call(csoftmax.softmax_jacobian, ("y",), {"temperature": "temperature"}),
    "entropy": Call(csoftmax.entropy, ("logits",)),
    "entropy, temperature": Call(csoftmax.entropy, ("logits",), {"temperature": "temperature"}),
    "sigmoid": Call(csoftmax.sigmoid, ("logits",), out="logits"),
    "binary_cross_entropy": Call(
        csoftmax.binary_cross_entropy, ("logits", "shares"), {}, {"reduction": "none"}
    ),
    "binary_cross_entropy, weights": Call(
        csoftmax.binary_cross_entropy, ("logits", "shares"),
        {"weight": "weight_of_each", "pos_weight": "pos_weight"},
    ),
}  # fmt: skip
WITH_OUT = {name: call for name, call in CALLS.items() if call.out}

NUMBERS = 1 << 20
RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=NUMBERS)
# Rows with such a number are summed twice; the others, most of them, once.
LOGITS = 3 * NORMAL + np.where(RNG.random(NUMBERS) < 0.003, 400, 0)
SHARES = RNG.random(NUMBERS)
LOG_SHARES, WEIGHTS = np.log(SHARES), SHARES + 0.5
MASK = RNG.random(NUMBERS) < 0.8
TEMPERATURES = RNG.choice([1, 1, 0.7, 3.3, 0, np.inf], size=NUMBERS)
ORDINARY_TEMPERATURES = RNG.uniform(0.3, 5, size=NUMBERS)


def part(values, shape, dtype=None):
    count = math.prod(shape)
    return values[:count].astype(dtype or values.dtype).reshape(shape)


def operands_of(names, shape, dtype, axis=-1, extreme_temperatures=False):
    """Operands by name, contiguous; of y and log_y it counts only that they are in range."""
    rows, classes = rows_of(shape, axis), shape[axis] if isinstance(axis, int) else 0
    temperatures = TEMPERATURES if extreme_temperatures else ORDINARY_TEMPERATURES

    def indices():
        return np.where(part(MASK, rows), (part(SHARES, rows) * classes).astype(np.int64), -100)

    make = {
        "logits": lambda: part(LOGITS, shape, dtype),
        "grad": lambda: part(NORMAL, shape, dtype),
        "y": lambda: part(SHARES, shape, dtype) / dtype.type(max(classes, 1)),
        "log_y": lambda: part(LOG_SHARES, shape, dtype),
        "shares": lambda: part(SHARES, shape, dtype),
        "weight_of_each": lambda: part(SHARES, shape, dtype),
        "pos_weight": lambda: part(WEIGHTS, shape[-1:], dtype),
        "mask": lambda: part(MASK, shape),
        "temperature": lambda: part(temperatures, rows),
        "indices": indices if classes else lambda: np.full(rows, -100),
        "weight": lambda: part(WEIGHTS, (classes,), dtype),
    }
    return {name: make[name]() for name in names}
