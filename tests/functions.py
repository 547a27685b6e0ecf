"""The registry of public functions: what each takes and gives, and what its results are held to.

Tests that ask the same of all functions go through it: accuracy and special values, layouts, types,
what is refused, what may overlap, what is touched, threads, processes, failed allocations, Dask.
"""

import inspect
import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

import csoftmax
from csoftmax._arguments import as_array

from . import contract
from .cases import contiguous
from .contract import axes_of, without
from .exact import INF, NAN, Exact

ROWS, LOGITS = "rows", "logits"


@dataclass(frozen=True)
class Function:
    """A public function that computes."""

    name: str
    axes: str = "several"    # that rows may be along; "one", or "none", of single numbers
    out: str = ""    # what its `out` has a number for, if it has one: ROWS or LOGITS
    is_out_first: bool = False    # among several results, else it is the last
    needs_classes: bool = False    # else a row without any has a result

    @cached_property
    def call(self):
        return getattr(csoftmax, self.name)

    @cached_property
    def hold(self):
        """Holds results against exact ones."""
        return getattr(contract, f"hold_{self.name}")

    @cached_property
    def parameters(self):
        return list(inspect.signature(self.call).parameters)


FUNCTIONS = {
    function.name: function for function in (
        Function("softmax", out=LOGITS),
        Function("log_softmax", out=LOGITS),
        Function("logsumexp", out=ROWS, is_out_first=True),
        Function("softmax_and_logsumexp", out=LOGITS, is_out_first=True),
        Function("entropy"),
        Function("top_log_probs", axes="one", needs_classes=True),
        Function("sample", axes="one", needs_classes=True),
        Function("cross_entropy", axes="one"),
        Function("cross_entropy_value_and_grad", axes="one", out=LOGITS),
        Function("cross_entropy_grad_and_hess", axes="one"),
        Function("nll_loss", axes="one"),
        Function("kl_divergence", axes="one"),
        Function("kl_divergence_value_and_grad", axes="one", out=LOGITS),
        Function("softmax_vjp", out=LOGITS),
        Function("log_softmax_vjp", out=LOGITS),
        Function("softmax_jacobian", axes="one"),
        Function("sigmoid", axes="none", out=LOGITS),
        Function("log_sigmoid", axes="none", out=LOGITS),
        Function("binary_cross_entropy", axes="none"),
        Function("binary_cross_entropy_value_and_grad", axes="none", out=LOGITS),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Call:
    """A function and the names of its operands, by place and by keyword."""

    function: Function
    places: tuple
    keywords: dict = field(default_factory=dict)    # parameter: name of its operand
    others: dict = field(default_factory=dict)    # parameter: value
    k: int = 0    # how many of a row's numbers, if there are as many

    @property
    def name(self):
        return self.function.name

    @property
    def operands(self):
        return (*self.places, *self.keywords.values())

    @property
    def out(self):
        return self.function.out

    @property
    def takes_axis(self):
        return self.function.axes != "none"

    @property
    def takes_several_axes(self):
        """Or asks for none, as elementwise functions do."""
        return self.function.axes != "one"

    @property
    def is_reduced(self):
        """Whether the first result is the sum or mean of losses."""
        return "reduction" in self.function.parameters and self.others.get("reduction") != "none"

    def with_reduction(self, turn):
        """The call itself, or with each reduction in turn if it has one; in turn 0 with none."""
        if "reduction" not in self.function.parameters:
            return self
        reduction = ("none", "sum", "none", "mean")[turn % 4]
        return replace(self, others=self.others | {"reduction": reduction})

    def arguments(self, operands, axis=-1, out=None):
        """By place and by keyword. `operands` may have more than are needed."""
        keywords = {parameter: operands[name] for parameter, name in self.keywords.items()}
        keywords |= self.others
        if self.takes_axis:
            keywords["axis"] = axis
        if out is not None:
            keywords["out"] = out
        places = [operands[name] for name in self.places]
        if self.k:
            x = places[0] if hasattr(places[0], "shape") else as_array(places[0], "logits")
            places.append(min(self.k, x.shape[axis]))
        return places, keywords

    def __call__(self, operands, axis=-1, out=None):
        """The results as a list, what `out` would have last."""
        places, keywords = self.arguments(operands, axis, out)
        result = self.function.call(*places, **keywords)
        return self.in_order(result) if isinstance(result, tuple) else [result]

    def in_order(self, results):
        """Those of the function, or of the list that has what `out` would have last."""
        return list(reversed(results)) if self.function.is_out_first else list(results)

    def hold(self, results, limits, operands, axis=-1, out=None):
        """These results against exact ones."""
        places, keywords = self.arguments(operands, axis, out)
        given = results[0] if len(results) == 1 else tuple(self.in_order(results))
        return self.function.hold(given, limits, *places, **keywords)

    def takes(self, shape, axis):
        """Some have no result for a row of no classes, and there are not as many as one."""
        if not self.function.needs_classes or shape[axis]:
            return True
        return not self.k and 0 in without(shape, axes_of(axis, len(shape)))

    def shape_of_out(self, shape, axis):
        return without(shape, axes_of(axis, len(shape))) if self.out == ROWS else shape


TEMPERED, MASKED = {"temperature": "temperature"}, {"where": "mask"}
PARTLY_MASKED = {"where": "kept"}
FILTERS = {"top_k": 40, "top_p": 0.9, "min_p": 1e-3}
WEIGHTED, OF_SAMPLES = {"weight": "weight"}, {"sample_weight": "sample_weight"}
NONE, SMOOTHED = {"reduction": "none"}, {"label_smoothing": 0.1}


def rowwise(name):
    """Without anything, with a temperature per row, with a mask, with both."""
    return [
        (name, ("logits",)),
        (f"{name}, temperature", ("logits",), TEMPERED),
        (f"{name}, mask", ("logits",), MASKED),
        (f"{name}, mask, temperature", ("logits",), TEMPERED | MASKED),
    ]


def losses(name):
    """Of class indices, weighted ones, smoothed ones, masked ones, and of probabilities."""
    indices, shares = ("logits", "indices"), ("logits", "shares")
    return [
        (f"{name}, indices", indices, {}, NONE),
        (f"{name}, temperature", indices, TEMPERED),
        (f"{name}, weight", indices, WEIGHTED),
        (f"{name}, smoothing", indices, TEMPERED | WEIGHTED, SMOOTHED | NONE),
        (f"{name}, shares", shares, WEIGHTED, NONE),
        (f"{name}, shares, temperature", shares, TEMPERED),
        (f"{name}, samples, mask", indices, WEIGHTED | OF_SAMPLES | MASKED, NONE),
        (f"{name}, shares, samples, mask", shares, OF_SAMPLES | MASKED),
    ]


def binary_losses(name):
    places = ("logits", "chances")
    weights = {"weight": "weight_of_each", "pos_weight": "pos_weight"}
    return [(name, places, {}, NONE), (f"{name}, weights", places, weights)]


def divergences(name):
    places = ("logits", "target_logits")
    return [
        (name, places, {}, NONE),
        (f"{name}, temperature", places, TEMPERED),
        (f"{name}, mask", places, MASKED, NONE),
        (f"{name}, mask, temperature", places, TEMPERED | MASKED),
    ]


def products(name, outcome):
    places = ("grad", outcome)
    return [(name, places), (f"{name}, temperature", places, TEMPERED)]


CALLS = {
    name: Call(FUNCTIONS[name.partition(",")[0]], *rest)
    for name, *rest in (
        *rowwise("softmax"),
        *rowwise("log_softmax"),
        ("logsumexp", ("logits",)),
        ("logsumexp, mask", ("logits",), MASKED),
        ("logsumexp, b", ("logits",), {"b": "b"}),
        ("logsumexp, b, sign", ("logits",), {"b": "b"}, {"return_sign": True}),
        ("logsumexp, b, mask, sign", ("logits",), {"b": "b"} | MASKED, {"return_sign": True}),
        *rowwise("softmax_and_logsumexp"),
        *losses("cross_entropy"),
        *losses("cross_entropy_value_and_grad"),
        ("cross_entropy_grad_and_hess", ("logits", "indices"), WEIGHTED | OF_SAMPLES),
        ("cross_entropy_grad_and_hess, temperature", ("logits", "indices"), TEMPERED),
        ("cross_entropy_grad_and_hess, shares", ("logits", "shares"), TEMPERED | WEIGHTED),
        ("nll_loss", ("log_y", "indices"), {}, NONE),
        ("nll_loss, weight", ("log_y", "indices"), WEIGHTED),
        ("nll_loss, samples", ("log_y", "indices"), WEIGHTED | OF_SAMPLES),
        *divergences("kl_divergence"),
        *divergences("kl_divergence_value_and_grad"),
        *products("softmax_vjp", "y"),
        *products("log_softmax_vjp", "log_y"),
        ("softmax_jacobian", ("y",), TEMPERED),
        *rowwise("entropy"),
        ("top_log_probs", ("logits",), {}, {}, 5),
        ("top_log_probs, mask, temperature", ("logits",), TEMPERED | MASKED, {}, 40),
        ("sample", ("scores",), {}, {"rng": 0}),
        ("sample, filters", ("scores",), TEMPERED | PARTLY_MASKED, FILTERS | {"rng": 0}),
        ("sigmoid", ("logits",)),
        ("log_sigmoid", ("logits",)),
        *binary_losses("binary_cross_entropy"),
        *binary_losses("binary_cross_entropy_value_and_grad"),
    )
}  # fmt: skip
WITH_OUT = {name: call for name, call in CALLS.items() if call.out}

NUMBERS = 1 << 20
RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=NUMBERS)
# Rows with such a number are summed twice; the others, most of them, once.
MANY_LOGITS = 3 * NORMAL + np.where(RNG.random(NUMBERS) < 0.003, 400, 0)
OTHER_LOGITS = MANY_LOGITS + np.where(MANY_LOGITS > 0, 1e-3, 1) * NORMAL[::-1]
SHARES = RNG.random(NUMBERS)
LOG_SHARES, WEIGHTS = np.log(SHARES), SHARES + 0.5
MASK = RNG.random(NUMBERS) < 0.8
B = np.where(MASK, NORMAL + 0.3, 0)
TEMPERATURES = RNG.choice([1, 1, 0.7, 3.3, 0, INF], size=NUMBERS)
ORDINARY_TEMPERATURES = RNG.uniform(0.3, 5, size=NUMBERS)


def part(values, shape, dtype=None):
    count = math.prod(shape)
    return values[:count].astype(dtype or values.dtype).reshape(shape)


def operands_of(names, shape, dtype, axis=-1, extreme_temperatures=False):
    """Operands by name, contiguous; of y and log_y it counts only that they are in range."""
    rows = without(shape, axes_of(axis, len(shape)))
    classes = shape[axis] if isinstance(axis, int) else 0
    temperatures = TEMPERATURES if extreme_temperatures else ORDINARY_TEMPERATURES

    def indices():
        return np.where(part(MASK, rows), (part(SHARES, rows) * classes).astype(np.int64), -100)

    def kept():
        mask = part(MASK, shape).copy()
        first = np.moveaxis(mask, axis, 0)[:1] if isinstance(axis, int) else mask
        first[...] = True
        return mask

    make = {
        "logits": lambda: part(MANY_LOGITS, shape, dtype),
        "target_logits": lambda: part(OTHER_LOGITS, shape, dtype),
        "grad": lambda: part(NORMAL, shape, dtype),
        "y": lambda: part(SHARES, shape, dtype) / dtype.type(max(classes, 1)),
        "log_y": lambda: part(LOG_SHARES, shape, dtype),
        "shares": lambda: part(SHARES, shape, dtype),
        "chances": lambda: part(SHARES, shape, dtype),
        "weight_of_each": lambda: part(SHARES, shape, dtype),
        "pos_weight": lambda: part(WEIGHTS, shape[-1:], dtype),
        "b": lambda: part(B, shape, dtype),
        "mask": lambda: part(MASK, shape),
        "scores": lambda: part(MANY_LOGITS, shape, dtype),
        "kept": kept,
        "temperature": lambda: part(temperatures, rows),
        "indices": indices if classes else lambda: np.full(rows, -100),
        "weight": lambda: part(WEIGHTS, (classes,), dtype),
        "sample_weight": lambda: np.where(part(MASK, rows), part(WEIGHTS, rows), 0),
    }
    return {name: make[name]() for name in names}


# Operands of every kind, for the rows of a 2-d array.

LEFT_OUT = [0, 0.03, 0.5, 0.95, 1]    # shares of a row's numbers
GRADIENTS = [
    lambda rng, n: rng.normal(size=n),
    lambda rng, n: -1.0 * (np.arange(n) == rng.integers(n)),
    lambda rng, n: np.full(n, rng.normal()),
    lambda rng, n: 1e6 + rng.normal(size=n),
    lambda rng, n: rng.normal(size=n) * 10 ** rng.uniform(-9, 9, size=n),
    lambda rng, n: rng.choice([-1, 1], size=n) + 1e-6 * rng.normal(size=n),
    lambda rng, n: 1e30 * rng.normal(size=n),
    lambda rng, n: 1e-20 * rng.normal(size=n),
    lambda rng, n: np.zeros(n),
]
SUMMANDS = [
    lambda rng, n: np.ones(n),
    lambda rng, n: rng.normal(size=n),
    lambda rng, n: rng.choice([-1, 0, 1], size=n),
    lambda rng, n: rng.choice([-1, 1]) * rng.random(n),
    lambda rng, n: rng.normal(size=n) * 10 ** rng.uniform(-30, 30, size=n),
    lambda rng, n: 10 ** rng.uniform(-3, 3, size=n),
    lambda rng, n: np.full(n, rng.choice([-1, 1e30, 1 / n])),
    lambda rng, n: np.where(rng.random(n) < 0.1, 1, 1e-20),
    lambda rng, n: (rng.random(n) < 0.5) * rng.normal(size=n),
    lambda rng, n: np.zeros(n),
]
CHANCES = [
    lambda rng, n: rng.integers(2, size=n),
    lambda rng, n: rng.random(n),
    lambda rng, n: 10 ** rng.uniform(-12, 0, size=n),
    lambda rng, n: 1 - 10 ** rng.uniform(-7, 0, size=n),
]


def of_another_model(x, rng):
    """In turn equal logits, some that are off by ULPs, by little, by a constant; others."""
    n = x.shape[1]
    some = rng.choice([-INF, INF], size=x.shape).astype(x.dtype)
    with np.errstate(all="ignore"):
        kinds = [
            x,
            np.where(rng.random(x.shape) < 0.5, x, np.nextafter(np.nextafter(x, some), some)),
            x + 10 ** rng.uniform(-4, 0) * rng.normal(size=x.shape),
            x + rng.choice([1, 100, 3000]),
            x[:, ::-1],
            np.where(np.isfinite(x), 3 * rng.normal(size=x.shape), x),
            np.where(np.arange(n) == rng.integers(n), x, np.nextafter(x, some)),
        ]
        turns = (np.arange(len(x)) % len(kinds))[:, None]
        t = np.select([turns == i for i in range(len(kinds))], kinds).astype(x.dtype)
    return np.where(np.isfinite(x) & ~np.isfinite(t), x, t)


def in_turn(kinds, rng, count, n):
    """Rows of every kind, a hundred different ones; other lengths begin with other kinds."""
    some = [kinds[(n + i) % len(kinds)](rng, n) for i in range(min(count, 100))]
    return np.resize(np.array(some), (count, n))


def masks(count, n, seed=0):
    """Rows of which nothing, little, half, most and all is left out, in turn."""
    rng = np.random.default_rng([seed, n])
    return rng.random((count, n)) >= np.resize(LEFT_OUT, count)[:, None]


def targets_of(x, seed=0):
    """Of every other row the largest logit, else any."""
    target = np.random.default_rng(seed).integers(x.shape[1], size=len(x))
    target[::2] = x[::2].argmax(-1)
    return target


def shares_of(x):
    """In turn of all classes, some, one, and not quite normalized; mostly 0 where x is -inf."""
    rng = np.random.default_rng([1, *x.shape])
    t = rng.exponential(size=x.shape)
    t[1::4] *= rng.random(t[1::4].shape) < 0.3
    t[2::4] = np.arange(x.shape[1]) == targets_of(x[2::4])[:, None]
    t[(x == -INF) & (rng.random((len(x), 1)) < 0.8)] = 0
    t /= np.maximum(t.sum(-1, keepdims=True), 1e-3)
    t[3::4] *= 1.25
    return t.astype(x.dtype)


def outcome(name, x, where=True):
    """What softmax or log_softmax would return, were it exact up to the last rounding."""
    with np.errstate(all="ignore"):
        exact = Exact(x, 1.0, where)
        nothing = 0 if name == "softmax" else -INF
        is_empty = (~where | (x == -INF)).all(-1)[:, None]
        return np.where(is_empty, nothing, getattr(exact, name)).astype(x.dtype)


def with_distributions(x):
    """Rows that have one, whatever but the first number is left out."""
    x = np.where(np.isnan(x) | (x == INF), x.dtype.type(1), x)
    x[:, 0] = np.where(x[:, 0] == -INF, 0, x[:, 0])
    return x


def operands_of_rows(names, x, temperatures=(1.0,), special=False):
    """Operands by name that go with these logits; `special` ones have NaN and infinities."""
    (count, n), dtype = x.shape, x.dtype
    rng = np.random.default_rng([count, n])

    def with_special(values, some=(NAN, INF, -INF)):
        if special:
            values[5::8, rng.integers(n)] = rng.choice(some)
        return values

    def indices():
        target = targets_of(x)
        target[1::7] = -100
        return target

    def some(low, high, shape):
        """Of which a tenth is 0."""
        return (10 ** rng.uniform(low, high, shape) * (rng.random(shape) > 0.1)).astype(dtype)

    unmasked = (np.arange(count) % 2 == 0)[:, None]
    make = {
        "logits": lambda: x,
        "target_logits": lambda: with_special(of_another_model(x, rng)),
        "grad": lambda: with_special(in_turn(GRADIENTS, rng, count, n).astype(dtype)),
        "y": lambda: outcome("softmax", x, masks(count, n) | unmasked),
        "log_y": lambda: outcome("log_softmax", x, masks(count, n) | unmasked),
        "shares": lambda: with_special(shares_of(x), [NAN]),
        "chances": lambda: in_turn(CHANCES, rng, count, n).astype(dtype),
        "weight_of_each": lambda: some(-1, 1, (count, n)),
        "pos_weight": lambda: some(-1, 1, (count, n)),
        "b": lambda: with_special(in_turn(SUMMANDS, rng, count, n).astype(dtype)),
        "mask": lambda: masks(count, n),
        "scores": lambda: with_distributions(x),
        "kept": lambda: masks(count, n) | (np.arange(n) == 0),
        "temperature": lambda: rng.choice(temperatures, size=count),
        "indices": indices,
        "weight": lambda: some(-1, 0.3, n),
        "sample_weight": lambda: rng.choice([1, 0, 0.3, 2.5, -1.5], size=count),
    }
    return {name: make[name]() for name in names}


def arranged(operands, layout):
    """What has a number for each logit, or for each row, laid out so, and the axis of rows."""
    shape = next(array.shape for array in operands.values() if array.ndim == 2)
    like, axis = layout(np.empty(shape))
    row_shape = without(like.shape, axes_of(axis, like.ndim))

    def made(name, array):
        if array.ndim == 2:
            return layout(array)[0]
        return array if name == "weight" else array.reshape(row_shape)

    return {name: made(name, array) for name, array in operands.items()}, axis


def hold(call, limits, operands, layout, out=None):
    """What the call gives for these operands of rows, laid out so; nothing else is changed."""
    operands, axis = arranged(operands, layout)
    if out is not None:
        out = layout(out)[0]
    before = {name: array.tobytes() for name, array in operands.items()}
    results = call(operands, axis, out)
    assert out is None or results[-1] is out
    call.hold(results, limits, operands, axis, out)
    for name, array in operands.items():
        assert array.tobytes() == before[name], f"{name} has changed"


def results_of_rows(call, operands, layout):
    """With a row for each row of logits."""
    operands, axis = arranged(operands, layout)
    results = call(operands, axis)
    if call.name == "softmax_jacobian":
        return results
    return [one if one.ndim <= 1 else np.moveaxis(one, axis, -1) for one in results]


OF_LOGITS = [
    "softmax", "log_softmax", "logsumexp", "entropy", "cross_entropy, indices",
    "cross_entropy_value_and_grad, indices",
]  # fmt: skip
OF_LOGITS_WITH_TEMPERATURE = [
    "softmax, temperature", "log_softmax, temperature", "entropy, temperature",
    "cross_entropy, temperature", "cross_entropy_value_and_grad, temperature",
]  # fmt: skip


def hold_rows(x, target, limits, layout=contiguous, temperature=1.0):
    """What every function of logits makes of these rows."""
    operands = {"logits": x, "indices": target}
    names = OF_LOGITS
    if np.any(temperature != 1):
        operands["temperature"] = np.broadcast_to(temperature, len(x))
        names = OF_LOGITS_WITH_TEMPERATURE
    for name in names:
        call = CALLS[name].with_reduction(0)
        out = np.full_like(x, NAN) if call.out == LOGITS else None
        hold(call, limits, operands, layout, out)
