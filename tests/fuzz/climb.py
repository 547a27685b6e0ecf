"""From a call whose error is large to others like it whose errors are larger."""

import inspect
import math

import numpy as np

from ..contract import Error, Failure, as_numbers, axes_of
from ..functions import FUNCTIONS
from .values import FLOATS

# What other numbers would have no meaning in.
BETWEEN = {
    "target": (0, 1), "label_smoothing": (0, 1), "y": (0, 1), "log_y": (-np.inf, 0),
    "log_probs": (-np.inf, 0), "weight": (0, np.inf), "pos_weight": (0, np.inf),
    "sample_weight": (0, np.inf),
}  # fmt: skip


class Climb:
    """Changes the arguments of a call, and keeps what makes it worse."""

    def __init__(self, call, limits):
        self.function, self.limits, self.rng = FUNCTIONS[call.name], limits, call.rng
        keywords = {name: value for name, value in call.keywords.items() if name != "out"}
        self.signature = inspect.signature(self.function.call)
        given = self.signature.bind(*call.arguments, **keywords).arguments
        self.first = next(iter(given))
        self.arguments = {name: self.as_taken(name, value) for name, value in given.items()}
        self.error = Error()

    def as_taken(self, name, value):
        """Arrays side by side in memory, and numbers in the type of the computation."""
        value = np.array(value) if isinstance(value, np.ndarray | list) else value
        is_real = name == self.first or getattr(value, "dtype", np.dtype(bool)) in FLOATS
        return as_numbers(value) if is_real else value

    def climb(self, rounds):
        self.error = self.error_of(self.arguments)
        for _ in range(rounds):
            change = self.CHANGES[self.rng.integers(len(self.CHANGES))]
            changed = self.arguments | change(self)
            try:
                error = self.error_of(changed)
            except Failure:
                self.arguments = changed
                raise
            except (TypeError, ValueError, IndexError):    # a change that isn't allowed
                continue
            if error >= self.error:
                self.arguments, self.error = changed, error

    def error_of(self, arguments):
        bound = inspect.BoundArguments(self.signature, arguments)
        result = self.function.call(*bound.args, **bound.kwargs)
        return self.function.hold(result, self.limits, *bound.args, **bound.kwargs)

    def described(self):
        """What can be typed to make the call."""
        values = [f"{name}={self.text(value)}" for name, value in self.arguments.items()]
        return f"{self.function.name}({', '.join(values)})"

    @staticmethod
    def text(value):
        if not isinstance(value, np.ndarray):
            return repr(value)
        return f"np.array({value.tolist()}, {value.dtype.str!r})"

    # Changes: what takes the place of some arguments.

    def one_of_floats(self):
        names = [
            name for name, value in self.arguments.items()
            if isinstance(value, float | np.ndarray) and np.asarray(value).dtype in FLOATS
        ]  # fmt: skip
        return names[self.rng.integers(len(names))]

    def changed(self, change):
        """One argument of real numbers, in its type."""
        name = self.one_of_floats()
        value = self.arguments[name]
        with np.errstate(all="ignore"):
            values = np.clip(change(np.asarray(value, float)), *BETWEEN.get(name, (None, None)))
            if isinstance(value, np.ndarray):
                return {name: values.astype(value.dtype)}
        return {name: float(values)}

    def scaled(self):
        by = 1 + self.rng.uniform(-1, 1) * 10 ** -self.rng.uniform(0, 16)
        return self.changed(lambda values: values * by)

    def shifted(self):
        by = self.rng.normal() * 10 ** -self.rng.uniform(-1, 8)
        return self.changed(lambda values: values + by)

    def moved(self):
        """Some numbers by themselves, by a few ULP or by more."""
        size = 10 ** -self.rng.uniform(0, 16)
        share = self.rng.random() ** 3
        def change(values):
            by = size * self.rng.normal(size=values.shape)
            return values * np.where(self.rng.random(values.shape) <= share, 1 + by, 1)
        return self.changed(change)

    def with_classes_or_rows(self):
        """Some of them left out, or each of them twice, in every argument that has them."""
        shape = np.shape(self.arguments[self.first])
        if not shape:
            return {}
        along = self.rng.integers(len(shape))
        n = shape[along]
        kept = np.arange(n)[self.rng.random(n) < self.rng.choice([0.5, 1 - 1 / max(n, 2)])]
        if self.rng.random() < 0.2 and math.prod(shape) < 2000:
            kept = np.repeat(np.arange(n), 2)
        axes = ()
        if self.function.axes != "none":
            axes = axes_of(self.arguments.get("axis", -1), len(shape))
        return {
            name: np.take(value, kept, place)
            for name, value in self.arguments.items() if isinstance(value, np.ndarray)
            for place in [self.place_of(along, value, shape, axes)] if place is not None
        }  # fmt: skip

    @staticmethod
    def place_of(along, value, shape, axes):
        """Which of its own axes stands for this one of the first argument, if any does."""
        own = [i for i in range(len(shape)) if i not in axes]
        if value.ndim == len(shape):
            place = along
        elif along in own and value.ndim == len(own):
            place = own.index(along)
        elif (along,) == axes and value.ndim == 1:
            place = 0
        else:
            return None
        return place if value.shape[place] == shape[along] else None

    CHANGES = (scaled, shifted, moved, moved, moved, with_classes_or_rows)
