"""Random calls of every public function, checked against longdouble formulas.

    python -m tests.fuzz --calls 1000000 --seed 0
    python -m tests.fuzz --seed 0 --only 4711

A call follows from the seed and its number alone. CSOFTMAX_ISA chooses the build. Structure varies
more than size: types, shapes, axes, memory layouts, overlaps, special values, wrong arguments.
"""

import argparse
import ctypes
import math
import platform
import re
import sys
import tempfile
import time
import traceback
import warnings

import numpy as np
from numpy.exceptions import AxisError

import csoftmax

from .exact import LONG, TINY, largest_error, well_above_underflow
from .exact_losses import coefficients, error_of_sum

INF, NAN = np.inf, np.nan
F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
MAX = {F32: float(np.finfo(F32).max), F64: float(np.finfo(F64).max)}
EPS = {F32: float(np.finfo(F32).eps), F64: float(np.finfo(F64).eps)}

TYPES = [
    np.dtype(name)
    for name in ("f4 " * 10 + "f8 " * 10 + "f2 f2 >f2 >f4 >f8 ? i1 u1 i2 u2 i4 u4 i8 u8 >i2 >i8")
    .split()
]  # fmt: skip
FLOATS = [dtype for dtype in TYPES if dtype.kind == "f"]
INDEX_TYPES = [dtype for dtype in TYPES if dtype.kind in "iu"] + 3 * [np.dtype(np.int64)]
REFUSED_TYPES = [np.longdouble, np.complex64, np.complex128, object, "U3"]

# Around what fills blocks and chunks; those with more than 24,576 numbers are shared by threads.
LARGE = [
    (63,), (64, 1), (65,), (3, 128), (129, 2), (64, 64), (65, 65), (2, 1000), (130, 17), (300, 3),
    (4096,), (4097,), (2, 4096), (2048, 2), (2049,), (3, 4097), (5, 2049), (7, 11, 65), (40, 700),
    (9000, 3), (4, 2, 3100), (2, 20_000), (20_001, 2), (300, 129), (100_000,), (1, 60_003),
]  # fmt: skip

# The relative error that is let pass where the contract has "no promise".
LOOSE = 1e-3


class Failure(Exception):
    """What the contract does not allow."""


def limits_of(build):
    """The contract's largest errors in ULP, as the fixture `limits` has them."""
    has_fma = build != "x86-64-v2"
    return {
        "softmax": 3 if has_fma else 4,
        "softmax with temperature": 4 if has_fma else INF,
        "log": 2 if has_fma else 3,
        "log, one class": 4 if has_fma else 5,
        "log with temperature": 4 if has_fma else INF,
        "gradient": 4 if has_fma else 5,
        "gradient with temperature": 4 if has_fma else INF,
    }


def computed_type(dtype):
    return F32 if dtype.char in "fe?bBhH" else F64


def require(condition, message):
    if not (condition if isinstance(condition, bool) else condition.all()):
        raise Failure(message)


def is_spread(array):
    """Whether the same number stands for several."""
    return any(step == 0 and n > 1 for n, step in zip(array.shape, array.strides, strict=True))


def c_math_library():
    """For its floating-point flags, or None where it isn't glibc's."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return None
    if platform.libc_ver()[0] != "glibc":
        return None
    return ctypes.CDLL("libm.so.6")


LIBM = c_math_library()
ALL_FLAGS, INEXACT = 0x3F, 0x20    # nearly all arithmetic is inexact, also Python's


# References, of rows in a 2-d array.


class Rows:
    """Softmax and what belongs to it, in longdouble, of rows of any kind."""

    def __init__(self, x, temperature=1.0, where=None):
        x = x.astype(LONG)
        if where is not None:
            x = np.where(where, x, -INF)
        count, n = x.shape
        temperature = np.broadcast_to(np.asarray(temperature, LONG), count)[:, None]
        self.x = x
        self.temperature = temperature[:, 0]
        self.maximum = x.max(-1, initial=-INF)
        self.defined = np.isfinite(self.maximum)
        self.argmax = x.argmax(-1) if n else np.zeros(count, int)
        first = np.arange(n) == self.argmax[:, None]
        d = (x - self.maximum[:, None]) / temperature
        if not ((temperature > 0) & (temperature < INF)).all():
            d = np.where(temperature == 0, np.where(first, 0, -INF), d)
            d = np.where(temperature == INF, np.where(x == -INF, -INF, 0), d)
        e = np.exp(d)
        others = np.where(first, 0, e).sum(-1)
        self.log_sum = np.log1p(others)
        self.softmax = e / (1 + others)[:, None]
        self.log_softmax = d - self.log_sum[:, None]
        self.logsumexp = self.maximum + self.log_sum
        self.others_share = others / (1 + others)


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def as_rows(array, axes):
    """The rows along these axes as a 2-d array."""
    others = [i for i in range(array.ndim) if i not in axes]
    length = math.prod(array.shape[i] for i in axes)
    count = math.prod(array.shape[i] for i in others)
    return array.transpose(*others, *axes).reshape(count, length)


def from_rows(rows, shape, axes):
    order = [*(i for i in range(len(shape)) if i not in axes), *axes]
    return rows.reshape([shape[i] for i in order]).transpose(np.argsort(order))


def without(shape, axes):
    return tuple(n for i, n in enumerate(shape) if i not in axes)


# Values.


def random_bits(rng, shape, dtype):
    bits = rng.integers(0, 2 ** (8 * dtype.itemsize), shape, f"u{dtype.itemsize}", endpoint=False)
    return np.asarray(bits).view(dtype)


def of_any_exponent(rng, shape, dtype):
    lowest, highest = (-148, 127) if dtype == F32 else (-1073, 1023)
    return rng.choice([-1.0, 1.0], shape) * 2.0 ** rng.uniform(lowest, highest, shape)


NUMBERS = [
    lambda rng, shape, dtype: rng.normal(size=shape),
    lambda rng, shape, dtype: rng.normal(size=shape),
    lambda rng, shape, dtype: 10 ** rng.uniform(-2, 3) * rng.normal(size=shape),
    lambda rng, shape, dtype: rng.normal() + 10 ** rng.uniform(-9, -1) * rng.normal(size=shape),
    lambda rng, shape, dtype: rng.normal(size=shape) + rng.normal() * 10 ** rng.uniform(1, 6),
    lambda rng, shape, dtype: rng.normal(size=shape) * MAX[dtype] / 5,
    lambda rng, shape, dtype: rng.uniform(-0.99, 0.5, shape) * MAX[dtype],
    lambda rng, shape, dtype: rng.uniform(-104 if dtype == F32 else -746, 0, shape),
    lambda rng, shape, dtype: rng.normal(size=shape) * TINY[dtype],
    lambda rng, shape, dtype: rng.choice([0.0, -0.0], shape),
    lambda rng, shape, dtype: rng.integers(0, 3, shape).astype(float),
    lambda rng, shape, dtype: 20.0 * (rng.random(shape) < 0.1) + 1e-3 * rng.random(shape),
    lambda rng, shape, dtype: rng.integers(-300, 300, shape) * (np.log(2) / 2),
    of_any_exponent,
    random_bits,
]

# None beyond 1e60: reciprocals of those under 5.6e-309 are infinite, and before that weighted
# distances lose digits, see the docstrings. That nothing but digits is lost is tested elsewhere.
TEMPERATURES = [
    0, 1, 2, 0.5, INF, 0.3, 1e-3, 1e3, 1e-30, 1e30, 1.0000001e-30, 1e-31, 1e31, 1e-38, 1e-45, 1e38,
    1e-60, 1e60,
]  # fmt: skip


class Call:
    """One random call: its arguments, and what must come of it.

    `wrong` names the one argument that is to be refused, if any; `errors` are then the allowed
    exceptions. `check` takes the result and the limits, and returns the largest error in ULP.
    """

    def __init__(self, seed, number):
        self.name = FUNCTIONS[number % len(FUNCTIONS)]
        self.rng = np.random.default_rng([seed, number])
        self.random = self.rng.random
        self.buffers = []       # memory that must not change
        self.placed = []        # arrays, the memory that they are in, and where
        self.out = None
        self.computed = None    # the type of the result
        self.has_indices = False    # as targets
        self.errors = ()
        self.keywords = {}
        wrongs = WRONG[self.name]
        self.wrong = self.pick(wrongs) if self.random() < 0.08 else None
        with np.errstate(all="ignore"):
            self.arguments, self.check = BUILDERS[self.name](self)

    def chance(self, probability):
        return self.random() < probability

    def pick(self, choices):
        return choices[int(self.random() * len(choices))]

    def between(self, lowest, highest):
        return lowest + int(self.random() * (highest - lowest + 1))

    def refused(self, *errors):
        self.errors = errors

    # Shapes and axes.

    def shape(self, least_axes=0):
        if self.chance(1 / 200):
            shape = self.pick(LARGE)
            return shape[::-1] if self.chance(0.3) else shape
        axes = self.pick((0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 4, 5))
        room = self.pick((8, 30, 100, 100, 300, 600))
        shape = []
        for _ in range(max(axes, least_axes)):
            side = 0 if self.chance(0.02) else int(min(70, room) ** self.random())
            shape.append(side)
            room //= max(side, 1)
        return tuple(shape[::-1] if self.chance(0.5) else shape)

    def axis(self, shape, several=True):
        """The arguments for an axis, and the axes."""
        ndim = len(shape)
        if self.wrong == "axis":
            return self.wrong_axis(ndim, several)
        if several and (ndim == 0 or self.chance(0.25)):
            if self.chance(0.5):
                return self.passed("axis", None), tuple(range(ndim))
            axes = tuple(i for i in range(ndim) if self.chance(0.5))
            given = tuple(i - ndim if self.chance(0.3) else i for i in axes)
            return self.passed("axis", given[::-1] if self.chance(0.3) else given), axes
        axis = self.between(-ndim, ndim - 1)
        axes = (axis % ndim,)
        if axis == -1 and self.chance(0.5):
            return [], axes
        if self.chance(0.1):
            axis = self.pick((np.int8, np.int64, np.uint8))(axis % ndim)
        return self.passed("axis", axis), axes

    def wrong_axis(self, ndim, several):
        wrong = [
            (ndim, AxisError), (-ndim - 1, AxisError), (99, AxisError), (-1 << 70, AxisError),
            (0.0, TypeError), ("0", TypeError), ([0], TypeError),
        ]  # fmt: skip
        if several:
            wrong += [((0, 0), ValueError), ((0, ndim), AxisError)]
        else:
            wrong += [(None, TypeError), ((0,), TypeError)]
        axis, error = self.pick(wrong)
        if axis == (0, 0) and ndim == 0:
            error = AxisError
        self.refused(error)
        return self.passed("axis", axis), tuple(range(ndim))[-1:]

    def passed(self, name, value):
        """By position, or as a keyword."""
        if self.chance(0.5):
            return [value]
        self.keywords[name] = value
        return []

    # Arrays.

    def place(self, values, fill=0xFF, is_out=False):
        """`values`, laid out at random in memory of their own.

        Gaps are NaN, or what `fill` makes. Axes along which `values` has stride 0 keep that.
        """
        how = 1 if is_out else self.random()
        # What a list of such numbers becomes again.
        is_default = values.dtype.char in "d?l" and values.dtype.isnative
        if how < 0.05 and is_default and 0 < values.size < 60:
            return values.tolist()
        if how < 0.001:
            with tempfile.TemporaryFile() as file:
                file.write(values.tobytes() or b"0")    # no file can be mapped without a byte
                file.flush()
                return np.memmap(file, values.dtype, self.pick("rc"), shape=values.shape)
        shape, size = values.shape, values.itemsize
        order = list(range(len(shape)))[::-1]
        is_plain = self.chance(0.4)
        if not is_plain and self.chance(0.6):
            order = order[::-1] if self.chance(0.5) else self.rng.permutation(len(shape)).tolist()
        strides, offset, extent = [0] * len(shape), 0, size
        for i in order:
            if values.strides[i] == 0 and shape[i] > 1:
                continue
            step = extent
            if not is_plain and self.chance(0.25):
                step *= self.between(2, 3)
            extent = step * max(shape[i], 1)
            if not is_plain and self.chance(0.2):
                offset += step * max(shape[i] - 1, 0)
                step = -step
            strides[i] = step
        room = extent // size if self.chance(0.1) else 4
        before = size * self.between(0, room)
        if not is_plain and self.chance(0.1):
            before += self.between(1, size)    # unaligned
        buffer = np.full(before + extent + size * self.between(0, room), fill, np.uint8)
        array = np.ndarray(shape, values.dtype, buffer, before + offset, strides)
        if not is_out:
            array[...] = values
            self.placed.append((array, buffer, before + offset))
            array.flags.writeable = not self.chance(0.1)
        self.buffers.append(buffer)
        return array

    def spread_out(self, values, probability=0.06):
        """Sometimes the same along an axis, with stride 0."""
        if values.ndim and self.chance(probability):
            axis = self.between(0, values.ndim - 1)
            if values.shape[axis] > 1:
                one = values.take([0], axis)
                return np.broadcast_to(one, values.shape)
        return values

    def logits(self, shape):
        """An array-like, and its values in the type of the computation."""
        if self.wrong == "x type":
            self.refused(TypeError)
            values = np.ones(shape)
            return values.astype(self.pick(REFUSED_TYPES)), values
        dtype = self.pick(TYPES)
        values = self.spread_out(np.asarray(self.numbers(shape, dtype)))
        return self.place(values), values.astype(computed_type(dtype))

    def numbers(self, shape, dtype):
        rng = self.rng
        if dtype.kind == "b":
            return rng.random(shape) < 0.5
        if dtype.kind in "iu":
            if self.chance(0.7):
                values = rng.integers(0 if dtype.kind == "u" else -9, 10, shape)
            else:
                info = np.iinfo(dtype)
                values = rng.integers(info.min, info.max, shape, dtype.newbyteorder("="), True)
            return np.asarray(values).astype(dtype)
        computed = computed_type(dtype)
        values = np.asarray(self.pick(NUMBERS)(rng, shape, computed)).astype(dtype)
        if values.size and self.chance(0.1):
            others = np.asarray(self.pick(NUMBERS)(rng, shape, computed)).astype(dtype)
            values = np.where(rng.random(shape) < 0.5, values, others)
        if values.size and self.chance(0.25):
            values = self.with_specials(values)
        return values.astype(dtype, copy=False)

    def with_specials(self, values):
        flat = np.array(values).reshape(-1)
        kind = self.random()
        if kind < 0.4:
            flat[self.rng.random(flat.size) < self.pick((0.1, 0.5, 0.95))] = -INF
        elif kind < 0.85:
            flat[self.rng.integers(flat.size, size=self.between(1, 2))] = self.pick(
                (NAN, INF, -INF)
            )
        else:
            flat[: self.between(1, flat.size)] = self.pick((-INF, -INF, NAN, INF))
        return flat.reshape(values.shape)

    def broadcastable(self, shape):
        """A shape that broadcasts to this one."""
        if self.chance(0.5):
            return shape
        shape = tuple(1 if self.chance(0.3) else n for n in shape)
        return shape[self.between(0, len(shape)) :] if self.chance(0.5) else shape

    def too_wide(self, shape):
        """A shape that doesn't broadcast to this one."""
        if shape and self.chance(0.5):
            return (*shape[:-1], shape[-1] + 2)
        return (2, *shape)

    def temperature(self, shape, axes):
        """The temperature of each row, and whether any isn't 1."""
        rows = without(shape, axes)
        count = math.prod(rows)
        if self.wrong == "temperature":
            self.refused(ValueError)
            self.keywords["temperature"] = self.pick(
                [-1.0, NAN, -INF, -1, np.float32(-1), -5e-324, np.full(rows, -1.0) if count else -2]
            )
        elif self.wrong == "temperature shape":
            self.refused(ValueError)
            self.keywords["temperature"] = np.ones(self.too_wide(rows))
        elif self.wrong == "temperature type":
            self.refused(TypeError)
            self.keywords["temperature"] = self.pick([None, "1", 1j, np.longdouble(1), 10**400])
        elif self.chance(0.6):
            kind = self.random()
            if kind < 0.5:
                number = self.one_temperature()
                number = self.pick((float, float, np.float64, np.array, np.float32))(number)
            else:
                number = self.pick((1, 2, 3, 0, True, np.int8(3), 10**15, np.uint64(7)))
            if kind < 0.8:
                self.keywords["temperature"] = number
                number = np.float64(number)
                return np.full(count, number), number != 1
            temperature = np.empty(self.broadcastable(rows))
            number = self.one_temperature()
            for i in np.ndindex(temperature.shape) if temperature.size < 40 else ():
                temperature[i] = self.one_temperature() if self.chance(0.5) else number
            if temperature.size >= 40:
                some = [self.one_temperature() for _ in range(3)]
                temperature[...] = self.rng.choice(some, temperature.shape)
            temperature = self.spread_out(
                temperature.astype(self.pick(("f8", "f8", "f8", "f4", "f2", ">f8"))), 0.1
            )
            self.keywords["temperature"] = self.place(temperature)
            temperature = np.broadcast_to(temperature, rows).astype(F64).reshape(count)
            return temperature, (temperature != 1).any()
        return np.ones(count), False

    def one_temperature(self):
        kind = self.random()
        if kind < 0.5:
            return math.exp(6 * self.random() - 3)
        if kind < 0.85:
            return self.pick(TEMPERATURES)
        return 10 ** ((2 * self.random() - 1) * self.pick((30, 60)))

    def where(self, array, shape, axes):
        """A mask as rows, or None; puts anything into what it leaves out of `array`."""
        if self.wrong == "where type":
            self.refused(TypeError)
            self.keywords["where"] = self.pick(
                [np.ones(shape, int), np.ones(shape), 1, 0.0, "yes", np.ones(shape, np.uint8)]
            )
        elif self.wrong == "where shape":
            self.refused(ValueError)
            self.keywords["where"] = np.ones(self.too_wide(shape), bool)
        elif self.chance(0.4):
            density = self.pick((0, 0.05, 0.5, 0.5, 0.95, 1))
            mask = np.asarray(self.rng.random(self.broadcastable(shape)) < density)
            if self.chance(0.1):
                mask = np.asarray(self.pick((True, False)))
            mask = self.spread_out(mask)
            self.keywords["where"] = self.place(mask)
            mask = np.broadcast_to(mask, shape)
            is_array = isinstance(array, np.ndarray) and array.dtype.kind == "f"
            may_write = is_array and array.flags.writeable and not is_spread(array)
            if may_write and self.chance(0.5):
                array[~mask] = self.pick((NAN, INF, -INF, MAX[F64], 1.0))
            return as_rows(mask, axes)
        return None

    def result_array(self, shape, computed):
        """`out`, if the call has one: new memory, or that of other arguments."""
        self.computed = computed
        if self.wrong in ("out shape", "out type", "out read-only"):
            return self.wrong_out(shape, computed)
        if self.chance(0.5):
            return None
        dtype = computed
        if self.chance(0.3):
            dtype = np.dtype(self.pick(("f2", "f4", "f8", ">f4", ">f8", ">f2")))
        out = self.overlapping(shape, dtype) if self.placed and self.chance(0.4) else None
        if out is None:
            out = self.place(np.empty(shape, dtype), fill=0x5A, is_out=True)
        self.keywords["out"] = self.out = out
        return out

    def wrong_out(self, shape, computed):
        out = np.full(shape, 7, computed)
        if self.wrong == "out shape":
            self.refused(ValueError)
            out = np.full(self.too_wide(shape), 7, computed)
        elif self.wrong == "out type":
            self.refused(TypeError)
            out = self.pick([np.full(shape, 7, self.pick(("i4", "?", "c8", "O"))), out.tolist()])
        else:
            self.refused(ValueError)
            out.flags.writeable = False
        if isinstance(out, np.ndarray) and out.dtype.char != "O":
            self.buffers.append(out)
        self.keywords["out"] = out
        return out

    def overlapping(self, shape, dtype):
        """An array in the memory of an argument, or None if none fits."""
        array, buffer, offset = self.pick(self.placed)
        size = dtype.itemsize
        how = self.random()
        is_like = array.shape == shape and array.dtype.kind == "f" and array.size > 0
        if is_like and not is_spread(array) and how < 0.85:
            if how < 0.35 and array.flags.writeable:
                return array
            array = np.ndarray(shape, array.dtype, buffer, offset, array.strides)
            if how < 0.5:
                return array[(..., *(np.s_[::-1] if self.chance(0.7) else np.s_[:] for _ in shape))]
            if how < 0.6:
                turned = array.T
                return turned if turned.shape == shape else array
            reach = [(n - 1) * step for n, step in zip(shape, array.strides, strict=True)]
            low = offset + sum(min(0, one) for one in reach)
            high = offset + array.itemsize + sum(max(0, one) for one in reach)
            places = [
                step for step in (-70, -17, -16, -4, -3, -2, -1, 1, 2, 3, 4, 8, 16, 33, 70)
                if -low <= step * array.itemsize <= buffer.nbytes - high
            ]  # fmt: skip
            if not places:
                return array
            offset += self.pick(places) * array.itemsize
            return np.ndarray(shape, array.dtype, buffer, offset, array.strides)
        spare = buffer.nbytes - size * math.prod(shape)
        if spare < 0:
            return None
        start = self.between(0, spare)
        if self.chance(0.9):
            start -= start % size
        order = "F" if self.chance(0.3) else "C"
        return np.ndarray(shape, dtype, buffer, start, order=order)

    def in_kernels_alone(self):
        """Whether Python and NumPy compute nothing: their casts and sums leave flags behind."""
        if self.name in ("nll_loss", "softmax_jacobian", "binary_cross_entropy"):
            return False
        if self.name.startswith("cross_entropy"):
            named = {"weight", "label_smoothing", "out"} & self.keywords.keys()
            return not named and self.keywords.get("reduction") == "none" and self.has_indices
        return self.out is None or self.out.dtype == self.computed

    def described(self):
        """The arguments in one line each."""
        lines = [f"csoftmax.{self.name}"]
        named = [*((str(i), one) for i, one in enumerate(self.arguments)), *self.keywords.items()]
        for name, value in named:
            text = repr(value)
            if isinstance(value, np.ndarray):
                text = (
                    f"{value.dtype.str} {value.shape} strides {value.strides} "
                    f"{value.ravel()[:8].tolist()}"
                )
            lines.append(f"    {name}: {text[:300]}")
        return "\n".join(lines)


# What results are held against.


class Result:
    """A result as an array, with the type of its computation."""

    def __init__(self, values, computed, limits):
        self.values = np.asarray(values)
        self.computed = computed
        self.limits = limits
        self.largest = 0.0

    def limit(self, name, tempered=False):
        """In ULP; where the contract promises nothing, a loose one."""
        if tempered:
            name = {"softmax": "softmax", "gradient": "gradient"}.get(name, "log")
            name += " with temperature"
        limit = self.limits[name]
        return LOOSE / EPS[self.computed] if limit == INF else limit

    def hold(self, result, right, limit, scale=None, what=""):
        """`right` within `limit` ULP of `scale`; where it is infinite, the same."""
        if not result.size:
            return
        scale = np.abs(right) if scale is None else np.abs(scale)
        # The ULP is the same from 0.75 times the largest number on, and beyond it is infinite.
        scale = np.minimum(scale, 0.75 * MAX[self.computed])
        if result.dtype == self.computed:
            error = largest_error(result, right, self.computed, scale)
            if limit < LOOSE / EPS[F32]:    # else the contract promises nothing
                self.largest = max(self.largest, error)
            if not error <= limit:
                raise Failure(f"{what}: {error:.3g} ULP, limit {limit:.3g}")
            return
        # An `out` of another type: what is within the limit, rounded once more.
        tiny = TINY[self.computed]
        ulp = np.spacing(np.maximum(scale, tiny).astype(self.computed)).astype(LONG)
        near_0 = np.where(scale < tiny, tiny, 0)
        low, high = (
            (right + sign * (limit * ulp + near_0)).astype(self.computed).astype(result.dtype)
            for sign in (-1, 1)
        )
        require((low <= result) & (result <= high), f"{what}, rounded to {result.dtype}")


def hold_probabilities(result, p, rows, where, tempered):
    taking_part = True if where is None else where
    if where is not None:
        require(p[~where] == 0, "what is left out has probability 0")
    is_nan = taking_part & ~rows.defined[:, None]
    require(np.isnan(p) == is_nan, "NaN in rows without a softmax and nowhere else")
    p, right = p[rows.defined], rows.softmax[rows.defined]
    tiny = TINY[result.computed]
    small = right < tiny
    require(p[right == 0] == 0, "0 where the probability is 0")
    require((p[small] >= 0) & (p[small] <= tiny * (1 + 1e-6)), "small probabilities")
    result.hold(p, right, result.limit("softmax", tempered), None, "probabilities")


def hold_log_probabilities(result, log_p, rows, where, tempered):
    taking_part = True if where is None else where
    if where is not None:
        require(log_p[~where] == -INF, "what is left out has log-probability -inf")
    is_nan = taking_part & ~rows.defined[:, None]
    require(np.isnan(log_p) == is_nan, "NaN in rows without a softmax and nowhere else")
    log_p, right = log_p[rows.defined], rows.log_softmax[rows.defined]
    require(log_p <= 0, "no log-probability is positive")
    require(log_p[right == -INF] == -INF, "-inf where the probability is 0")
    dtype, n = result.computed, right.shape[1]
    in_range = np.abs(right) <= MAX[dtype]
    require(log_p[~in_range] <= -0.999 * MAX[dtype], "log-probabilities beyond the range")
    above = in_range & well_above_underflow(right, n, dtype)
    if tempered:
        limit = result.limit("log", tempered)
    else:
        x, logsumexp = rows.x[rows.defined], rows.logsumexp[rows.defined][:, None]
        scale = np.maximum(np.abs(right), np.maximum(np.abs(x), np.abs(logsumexp)))
        kept = in_range & well_above_underflow(scale, n, dtype)
        result.hold(
            log_p[kept], right[kept], result.limit("log"), scale[kept], "log-probabilities"
        )
        limit = result.limit("log, one class")
    result.hold(log_p[above], right[above], limit, None, "log-probabilities themselves")


# The functions: each builder makes the arguments and what checks the result.


def rowwise(call):
    shape = call.shape()
    x, values = call.logits(shape)
    axis, axes = call.axis(shape)
    temperature, tempered = call.temperature(shape, axes)
    where = call.where(x, shape, axes)
    computed = values.dtype
    call.result_array(shape, computed)
    if call.errors:
        return [x, *axis], None
    hold = hold_probabilities if call.name == "softmax" else hold_log_probabilities

    def check(given, limits):
        result = Result(given, computed, limits)
        hold_shape(call, given, shape, computed)
        if values.size:
            rows = Rows(as_rows(values, axes), temperature, where)
            hold(result, as_rows(result.values, axes), rows, where, tempered)
        return result.largest

    return [x, *axis], check


def logsumexp(call):
    shape = call.shape()
    x, values = call.logits(shape)
    axis, axes = call.axis(shape)
    where = call.where(x, shape, axes)
    computed = values.dtype
    row_shape = without(shape, axes)
    if call.chance(0.2):
        call.keywords["keepdims"] = call.pick((True, False))
    if call.keywords.get("keepdims"):
        row_shape = tuple(1 if i in axes else n for i, n in enumerate(shape))
    call.result_array(row_shape, computed)
    if call.errors:
        return [x, *axis], None

    def check(given, limits):
        result = Result(given, computed, limits)
        hold_shape(call, given, row_shape, computed, may_be_scalar=True)
        rows = Rows(as_rows(values, axes), 1.0, where)
        totals, right = result.values.reshape(-1), rows.logsumexp
        kept = rows.defined
        np.testing.assert_array_equal(totals[~kept], rows.maximum[~kept].astype(totals.dtype))
        scale = np.maximum(np.abs(rows.maximum), rows.log_sum)
        n = rows.x.shape[1]
        small = kept & ~well_above_underflow(scale, n, computed)
        tolerance = 2 * n * TINY[computed] if totals.dtype == computed else np.inf
        require(np.abs(totals[small] - right[small]) <= tolerance, "small sums")
        kept &= ~small
        result.hold(totals[kept], right[kept], result.limit("log"), scale[kept], "logsumexp")
        return result.largest

    return [x, *axis], check


def entropy(call):
    shape = call.shape()
    x, values = call.logits(shape)
    axis, axes = call.axis(shape)
    temperature, tempered = call.temperature(shape, axes)
    computed = values.dtype
    if call.errors:
        return [x, *axis], None

    def check(given, limits):
        result = Result(given, computed, limits)
        hold_shape(call, given, without(shape, axes), computed, may_be_scalar=True)
        entropies = result.values.reshape(-1)
        if not values.size:
            require(entropies == 0, "the entropy of no class")
            return 0.0
        rows = Rows(as_rows(values, axes), temperature)
        kept = rows.defined
        require(np.isnan(entropies) == ~kept, "NaN in rows without a softmax and nowhere else")
        p, log_p = rows.softmax[kept], rows.log_softmax[kept]
        right = -(p * np.where(p > 0, log_p, 0)).sum(-1)
        entropies = entropies[kept]
        require(entropies >= 0, "no entropy is negative")
        # What is below the smallest normal number may be 0, times a logarithm of up to 750.
        above = well_above_underflow(right, 750 * p.shape[1], computed)
        small = entropies[~above] <= 2 * right[~above] + TINY[computed]
        require(small, "small entropies")
        limit = result.limit("log" if tempered else "log, one class", tempered)
        result.hold(entropies[above], right[above], limit, None, "entropies")
        return result.largest

    return [x, *axis], check


def hold_shape(call, given, shape, computed, may_be_scalar=False):
    """Shape and type of a result; of `out` they have been seen to be."""
    if call.out is None:
        hold_new(given, shape, computed, may_be_scalar)


def hold_new(given, shape, computed, may_be_scalar):
    require(np.shape(given) == shape, f"shape {np.shape(given)}, expected {shape}")
    require(isinstance(given, np.ndarray | np.generic), f"a {type(given).__name__}")
    require(given.dtype == computed, f"dtype {given.dtype}, expected {computed}")
    if shape == () and may_be_scalar:
        require(isinstance(given, np.generic), "no NumPy scalar for a result without axes")
    if shape != ():
        require(type(given) is np.ndarray, f"a {type(given).__name__}")


# Losses.


def ignore_index_of(call, classes):
    """The default, another negative number, or a class."""
    if call.chance(0.6):
        return -100
    return call.pick((-1, -100, classes, 10**18, *((0, classes - 1) if classes else ())))


def indices(call, row_shape, classes):
    """Class indices, some of them ignored, and `ignore_index`."""
    ignore_index = ignore_index_of(call, classes)
    dtype = call.pick(INDEX_TYPES)
    info = np.iinfo(dtype)
    rng = call.rng
    target = np.full(row_shape, ignore_index)
    if classes:
        target = np.asarray(rng.integers(min(classes, info.max + 1), size=row_shape))
    can_ignore = info.min <= ignore_index <= info.max
    if can_ignore and call.chance(0.5):
        share = call.pick((0.1, 0.5, 1))
        target = np.where(rng.random(row_shape) < share, ignore_index, target)
    elif target.size and not classes:
        ignore_index = call.pick((0, 1))    # what every type can hold
        target = np.full(row_shape, ignore_index)
    target = call.spread_out(np.asarray(target).astype(dtype))
    if call.wrong == "index" and target.size:
        call.refused(IndexError)
        too_large = [one for one in (classes, classes + 1, info.max, info.min, -1)
                     if info.min <= one <= info.max and not 0 <= one < classes
                     and one != ignore_index]  # fmt: skip
        if not too_large:
            call.errors = ()
        else:
            target = target.copy()
            target.reshape(-1)[call.between(0, target.size - 1)] = call.pick(too_large)
    if call.wrong == "ignore_index":
        bad, error = call.pick(
            [(1.5, TypeError), ("0", TypeError), (2**63, ValueError), (-(2**63) - 1, ValueError),
             (None, TypeError)]
        )  # fmt: skip
        call.refused(error)
        call.keywords["ignore_index"] = bad
    elif ignore_index != -100 or call.chance(0.1):
        call.keywords["ignore_index"] = ignore_index
    return target, ignore_index


def probabilities(call, shape, axes, x):
    """Targets of the logits' shape: of all classes, of some, of one; not always normalized."""
    rng = call.rng
    classes = math.prod(shape[i] for i in axes)
    count = math.prod(without(shape, axes))
    kind = call.random()
    if kind < 0.35 and classes:
        rows = np.arange(classes) == rng.integers(classes, size=(count, 1))
        dtype = np.dtype(call.pick(("?", "i1", "u1", "i8", "f4", "f8", "f2", ">f8")))
    else:
        rows = rng.exponential(size=(count, classes))
        if kind < 0.6:
            rows *= rng.random(rows.shape) < 0.3
        if kind < 0.9:
            rows /= np.maximum(rows.sum(-1, keepdims=True), 1e-3)
        if call.chance(0.6):
            rows[as_rows(x, axes) == -INF] = 0
        if call.chance(0.05) and rows.size:
            rows[call.between(0, count - 1), call.between(0, classes - 1)] = NAN
        dtype = call.pick(FLOATS)
    return from_rows(rows.astype(dtype), shape, axes)


def class_weight(call, classes):
    """None, or one positive number for each class, some of them 0."""
    if call.wrong == "weight shape":
        call.refused(ValueError)
        call.keywords["weight"] = np.ones(call.pick([(classes + 1,), (1, classes), ()]))
        return None
    if call.wrong == "weight type":
        call.refused(TypeError)
        call.keywords["weight"] = np.ones(classes).astype(call.pick(REFUSED_TYPES))
        return None
    if call.chance(0.6):
        return None
    dtype = call.pick(TYPES)
    if dtype.kind == "f":
        weight = 10 ** call.rng.uniform(-3, 3, classes)
    else:
        weight = call.rng.integers(0, 2 if dtype.kind == "b" else 100, classes)
    if call.chance(0.3):
        weight = weight * (call.rng.random(classes) < call.pick((0, 0.5, 0.9)))
    weight = call.spread_out(np.asarray(weight).astype(dtype))
    call.keywords["weight"] = call.place(weight)
    return weight


def reduction_of(call):
    if call.wrong == "reduction":
        call.refused(ValueError)
        call.keywords["reduction"] = call.pick(("avg", "", None, 0, "MEAN", b"mean"))
        return None
    if call.chance(0.3):
        return "mean"
    call.keywords["reduction"] = call.pick(("mean", "sum", "none", "none"))
    return call.keywords["reduction"]


def smoothing_of(call):
    if call.wrong == "label_smoothing":
        bad, error = call.pick(
            [(-0.1, ValueError), (1.5, ValueError), (NAN, ValueError), (INF, ValueError),
             ("0.1", TypeError), (None, TypeError), ([0.1], TypeError)]
        )  # fmt: skip
        call.refused(error)
        call.keywords["label_smoothing"] = bad
        return 0.0
    if call.chance(0.6):
        return 0.0
    smoothing = call.pick((0, 0.1, 1, 0.0, 1.0, 0.5, 1e-3, np.float32(0.25), True))
    call.keywords["label_smoothing"] = smoothing
    return float(smoothing)


def wrong_target(call, shape, row_shape):
    """Of a wrong shape, or a wrong type for its shape."""
    if call.wrong == "target shape":
        call.refused(ValueError)
        return np.zeros(call.pick([(*row_shape, 1, 1, 1), (2, *shape)]), int)
    call.refused(TypeError)
    return np.zeros(row_shape, call.pick(("?", "f4", "f2", "c8", "U3", "O")))


def in_type(values, computed):
    """As the computation has them."""
    return None if values is None else values.astype(computed)


def cross_entropy(call):
    with_grad = call.name.endswith("grad")
    shape = call.shape(least_axes=1)
    z, values = call.logits(shape)
    axis, axes = call.axis(shape, several=False)
    temperature, tempered = call.temperature(shape, axes)
    computed = values.dtype
    row_shape = without(shape, axes)
    classes = math.prod(shape[i] for i in axes)
    weight = class_weight(call, classes)
    smoothing = smoothing_of(call)
    reduction = reduction_of(call)
    ignore_index = -100
    if call.wrong in ("target shape", "target type"):
        has_indices, target = True, wrong_target(call, shape, row_shape)
        given_target = target
    elif call.wrong != "index" and call.wrong != "ignore_index" and call.chance(0.45):
        has_indices, target = False, probabilities(call, shape, axes, values)
        target = call.spread_out(target)
        if call.wrong == "ignore_index of probabilities":
            call.refused(ValueError)
            call.keywords["ignore_index"] = call.pick((0, 7))
        given_target = call.place(target)
    else:
        has_indices = call.has_indices = True
        target, ignore_index = indices(call, row_shape, classes)
        given_target = call.place(target)
    if with_grad:
        call.result_array(shape, computed)
    arguments = [z, given_target, *axis]
    if call.errors:
        return arguments, None
    in_rows = target.reshape(-1).astype(np.int64) if has_indices else as_rows(target, axes)

    def check(given, limits):
        loss, grad = given if with_grad else (given, None)
        result = Result(loss, computed, limits)
        losses = Losses(
            as_rows(values, axes), in_rows if has_indices else in_rows.astype(computed),
            temperature, tempered, in_type(weight, computed), smoothing, ignore_index,
        )  # fmt: skip
        hold_new(loss, row_shape if reduction == "none" else (), computed, may_be_scalar=True)
        losses.hold(result, reduction)
        if with_grad:
            hold_shape(call, grad, shape, computed)
            of_grad = Result(grad, computed, limits)
            if values.size:
                losses.hold_gradient(of_grad, as_rows(of_grad.values, axes), reduction)
            return max(result.largest, of_grad.largest)
        return result.largest

    return arguments, check


class Losses:
    """Exact losses of rows, and their gradient, as in exact_losses, for rows of every kind."""

    def __init__(self, x, target, temperature, tempered, weight, smoothing, ignore_index):
        count, self.n = x.shape
        self.dtype = x.dtype
        self.tempered = tempered
        self.is_plain = target.ndim == 1 and weight is None and not smoothing
        self.target = target
        if self.n:
            self.c, self.divisor = coefficients(target, self.n, weight, smoothing, ignore_index)
        else:
            self.c = np.zeros((count, 0), LONG)
            self.divisor = LONG(count if target.ndim == 2 else 0)
        self.rows = Rows(x, temperature)
        self.ignored = np.zeros(count, bool)
        if target.ndim == 1:
            self.ignored = target == ignore_index
        counts = self.c != 0
        surprise = np.where(counts, -self.rows.log_softmax, 0)
        self.losses = (self.c * surprise).sum(-1)
        self.losses[self.ignored] = 0
        # Rows without any coefficient may or may not be NaN where logits are.
        is_open = ~counts.any(-1) & ~self.ignored
        bad = ~self.rows.defined & ~self.ignored & bool(self.n)
        self.open = bad & is_open
        self.nan = (bad & ~is_open) | np.isnan(self.c).any(-1)
        self.losses[self.nan] = NAN
        with np.errstate(all="ignore"):
            logits = np.abs(self.rows.x) / self.rows.temperature[:, None]
        logits = np.where(counts & np.isfinite(logits), logits, 0)
        if self.is_plain and not tempered:
            logits = np.maximum(logits, np.where(counts, np.abs(self.rows.logsumexp)[:, None], 0))
        terms = np.abs(self.c) * np.maximum(logits, surprise)
        self.largest_terms = np.maximum(np.abs(self.losses), terms.max(-1, initial=0))
        # Before they are multiplied by weights, terms under the smallest normal number may be 0.
        self.largest_weights = np.maximum(np.abs(self.c).max(-1, initial=0), 1)
        self.is_single = counts.sum(-1) == 1
        self.in_range = np.maximum(self.losses, surprise.max(-1, initial=0)) <= MAX[self.dtype]

    def hold(self, result, reduction):
        if reduction == "none":
            self.hold_each(result, result.values.reshape(-1))
        else:
            self.hold_reduced(result, reduction)

    def hold_each(self, result, losses):
        closed = ~self.open
        of_open = losses[self.open]
        require(np.isnan(of_open) | (of_open == 0), "a row without coefficients")
        require(np.isnan(losses[closed]) == self.nan[closed], "NaN in rows without a softmax")
        kept = closed & ~self.nan
        require(losses[self.ignored] == 0, "ignored losses")
        is_infinite = kept & (self.losses == INF)
        require(losses[is_infinite] == INF, "infinite losses")
        require(losses[kept] >= 0, "no loss is negative")
        beyond = kept & (self.losses > MAX[self.dtype])
        require(losses[beyond] >= 0.999 * MAX[self.dtype], "losses beyond the range")
        require(losses[kept & (self.losses == 0)] == 0, "losses of 0")
        kept &= self.in_range
        unweighted = self.largest_terms / self.largest_weights
        kept &= well_above_underflow(unweighted, self.n, self.dtype)
        result.hold(
            losses[kept], self.losses[kept], result.limit("log", self.tempered),
            self.largest_terms[kept], "losses",
        )  # fmt: skip
        unweighted = self.losses / self.largest_weights
        kept &= self.is_single & well_above_underflow(unweighted, self.n, self.dtype)
        limit = result.limit("log" if self.tempered else "log, one class", self.tempered)
        result.hold(losses[kept], self.losses[kept], limit, None, "losses of one class")

    def hold_reduced(self, result, reduction):
        loss = result.values[()]
        divisor = self.divisor if reduction == "mean" else 1
        if reduction == "mean" and not divisor:
            require(np.isnan(loss), "the mean of nothing")
            return
        if self.nan.any():
            require(np.isnan(loss), "the NaN of a row")
            return
        if self.open.any():
            return
        right, scale = self.losses.sum() / divisor, self.largest_terms.sum() / divisor
        if not self.losses.any():
            require(loss == 0, "a loss of 0")
        elif (self.losses == INF).any():
            require(loss == INF, "an infinite loss")
        elif self.in_range.all() and right <= MAX[self.dtype] and self.losses.sum() <= MAX[F64]:
            smallest = min(scale, scale * divisor) / self.largest_weights.max(initial=1)
            if not well_above_underflow(smallest, self.n * len(self.losses), self.dtype):
                return
            limit = result.limit("log", self.tempered)
            limit += error_of_sum(max(len(self.losses), 1), self.dtype)
            result.hold(*(np.asarray([one]) for one in (loss, right)), limit, scale, "a loss")
        else:
            require(loss >= 0, "a loss beyond the range")

    def hold_gradient(self, result, gradient, reduction):
        require(gradient[self.ignored] == 0, "the gradient of ignored rows")
        if reduction == "mean" and not self.divisor:
            require(np.isnan(gradient[~self.ignored]), "the gradient of a mean over nothing")
            return
        divisor = self.divisor if reduction == "mean" else 1
        temperature = self.rows.temperature
        of_open = gradient[self.open]
        require(np.isnan(of_open) | (of_open == 0), "the gradient without coefficients")
        # A NaN in a target may leave the limit at temperature 0 or inf as it is: 0 or infinite.
        is_limit = (temperature == 0) | (temperature == INF)
        nan = self.nan & ~(self.rows.defined & is_limit)
        require(np.isnan(gradient[nan]), "the gradient of rows without a softmax")
        defined = ~(self.nan | self.open | self.ignored)
        require(~np.isnan(gradient[defined]), "NaN in the gradient of a row that has one")
        first = self.c.sum(-1, keepdims=True) * self.rows.softmax
        terms = np.maximum(first, self.c)
        difference = first - self.c
        if self.is_plain:
            # The difference to 1 of a probability that is close to it has all its digits.
            places = np.arange(self.n) == np.where(self.ignored, -1, self.target)[:, None]
            places &= places & (self.rows.argmax[:, None] == np.arange(self.n))
            difference = np.where(places, -self.rows.others_share[:, None], difference)
        require(gradient[defined][terms[defined] == 0] == 0, "the gradient of no terms")
        is_0 = defined & (temperature == 0)
        if is_0.any():
            # A difference within rounding may be taken for 0.
            clear = np.abs(difference[is_0]) > 8 * EPS[self.dtype] * terms[is_0]
            right = np.where(difference[is_0] > 0, INF, -INF)
            of_0 = gradient[is_0]
            require(of_0[clear] == right[clear].astype(of_0.dtype), "the gradient at temperature 0")
            require(np.isinf(of_0) | (of_0 == 0), "the gradient at temperature 0")
        require(gradient[defined & (temperature == INF)] == 0, "the gradient at temperature inf")
        factor = (1 / temperature / divisor)[:, None]
        right, terms = difference * factor, terms.max(-1, initial=0) * factor[:, 0]
        if self.is_plain:
            terms = np.abs(right).max(-1, initial=0)
        kept = defined & ~is_0 & (temperature < INF) & (terms <= MAX[self.dtype])
        kept &= well_above_underflow(terms * np.minimum(temperature, 1), self.n, self.dtype)
        scale = np.broadcast_to(terms[kept, None], right[kept].shape)
        limit = result.limit("gradient", self.tempered)
        result.hold(gradient[kept], right[kept], limit, scale, "gradient")


def nll_loss(call):
    shape = call.shape(least_axes=1)
    log_p, values = call.logits(shape)
    axis, axes = call.axis(shape, several=False)
    computed = values.dtype
    row_shape = without(shape, axes)
    classes = math.prod(shape[i] for i in axes)
    weight = class_weight(call, classes)
    reduction = reduction_of(call)
    if call.wrong in ("target shape", "target type"):
        target = given_target = wrong_target(call, shape, row_shape)
        ignore_index = -100
    else:
        target, ignore_index = indices(call, row_shape, classes)
        given_target = call.place(target)
    arguments = [log_p, given_target, *axis]
    if call.errors:
        return arguments, None
    target = target.reshape(-1).astype(np.int64)

    def check(given, limits):
        result = Result(given, computed, limits)
        hold_new(given, row_shape if reduction == "none" else (), computed, may_be_scalar=True)
        counts = target != ignore_index
        losses = np.zeros(len(target), LONG)
        weights = np.zeros(len(target), LONG)
        places = np.flatnonzero(counts)
        if len(places):
            losses[places] = -as_rows(values, axes)[places, target[places]].astype(LONG)
            weights[places] = 1 if weight is None else in_type(weight, computed)[target[places]]
            does_not_count = (weights == 0) & (losses == INF)
            losses = np.where(does_not_count, 0, losses * weights)
        if reduction == "none":
            of_rows = result.values.reshape(-1)
            finite = np.abs(losses) <= MAX[computed]
            require((of_rows == losses)[np.isinf(losses)], "infinite losses")
            require(np.isnan(of_rows) == np.isnan(losses), "NaN in losses")
            limit = 0 if weight is None else result.limit("log")
            if weight is not None:
                finite &= well_above_underflow(losses, 1, computed)
            result.hold(of_rows[finite], losses[finite], limit, None, "losses")
            return result.largest
        divisor = weights.sum() if reduction == "mean" else 1
        right, scale = losses.sum(), np.abs(losses).sum()
        are_numbers = (np.abs(losses) <= MAX[computed]) | ~np.isfinite(losses)
        size = np.abs(losses)[np.isfinite(losses)].sum()
        if not divisor or np.isnan(right):
            require(np.isnan(given), "the mean of nothing, or NaN")
        elif not are_numbers.all() or size > MAX[F64]:
            pass    # sums of what has overflowed, of both signs
        elif np.isinf(right):
            require(given == right, "an infinite loss")
        elif scale / divisor <= MAX[computed] and well_above_underflow(
            min(scale, scale / divisor), len(target), computed
        ):
            limit = result.limit("log") + error_of_sum(max(len(target), 1), computed)
            scale, right = np.asarray([scale / divisor]), np.asarray([right / divisor])
            result.hold(np.asarray([given]), right, limit, scale, "a loss")
        return result.largest

    return arguments, check


# Gradients.


def outer_gradient(call, y, dtype):
    """Of the result: ordinary, of all sizes, one-hot, constant, or with what is not finite."""
    rng, shape = call.rng, y.shape
    kind = call.random()
    if dtype.kind != "f":
        return call.numbers(shape, dtype)
    if kind < 0.35:
        grad = rng.normal(size=shape)
    elif kind < 0.5:
        grad = 10 ** rng.uniform(-9, 9) * rng.normal(size=shape)
    elif kind < 0.6:
        grad = 10 ** rng.uniform(-9, 9, shape) * rng.normal(size=shape)
    elif kind < 0.7:
        grad = np.where(rng.random(shape) < 0.1, -1.0, 0)
    elif kind < 0.8:
        grad = np.full(shape, rng.normal())
    elif kind < 0.9:
        grad = 1e6 + rng.normal(size=shape)
    else:
        grad = of_any_exponent(rng, shape, computed_type(dtype))
    grad = np.asarray(grad).astype(dtype)
    if grad.size and call.chance(0.1):
        grad.reshape(-1)[call.between(0, grad.size - 1)] = call.pick((NAN, INF, -INF))
    return grad


def outcome(call, shape, axes, dtype, name, temperature):
    """What softmax or log_softmax may have returned, some of it left out."""
    nothing = 0 if name == "softmax" else -INF
    if dtype.kind != "f":
        # 1 and 0, or the logarithms that integers can be: 0, and negative ones.
        values = np.asarray(call.rng.random(shape) < 0.2)
        if name == "softmax":
            return values.astype(dtype)
        return (np.where(values, 0, -2) if dtype.kind == "i" else np.zeros(shape)).astype(dtype)
    x = np.asarray(call.numbers(shape, F64 if computed_type(dtype) == F64 else F32))
    where = call.rng.random(shape) < call.pick((0, 0.3, 0.9, 1, 1, 1, 1))
    rows = Rows(as_rows(x, axes), temperature, as_rows(np.asarray(where), axes))
    y = rows.softmax if name == "softmax" else rows.log_softmax
    y = np.where(rows.maximum[:, None] == -INF, nothing, y)
    return from_rows(y.astype(dtype), shape, axes)


def vjp(call):
    name = call.name.removesuffix("_vjp")
    shape = call.shape()
    axis, axes = call.axis(shape)
    temperature, tempered = call.temperature(shape, axes)
    y_type = call.pick(TYPES)
    y = call.spread_out(outcome(call, shape, axes, y_type, name, temperature))
    grad_type = y_type if call.chance(0.6) else call.pick(TYPES)
    grad = call.spread_out(np.asarray(outer_gradient(call, y, grad_type)))
    if y.dtype.kind == "f" and grad.dtype.kind == "f" and call.chance(0.3):
        nothing = 0 if name == "softmax" else -INF
        grad = np.where(y == nothing, NAN, grad).astype(grad_type)
    given_grad, given_y = call.place(grad), call.place(y)
    if call.wrong == "y type":
        call.refused(TypeError)
        given_y = np.ones(shape).astype(call.pick(REFUSED_TYPES))
    elif call.wrong == "grad type":
        call.refused(TypeError)
        given_grad = np.ones(shape).astype(call.pick(REFUSED_TYPES))
    elif call.wrong == "grad shape":
        call.refused(ValueError)
        given_grad = np.ones(call.pick([(1, *shape), call.too_wide(shape)]))
    elif call.chance(0.03) and computed_type(y_type).kind == "f":
        given_grad, grad = given_y, y    # the same array twice
        grad_type = y_type
    computed = np.promote_types(computed_type(y_type), computed_type(grad_type))
    call.result_array(shape, computed)
    arguments = [given_grad, given_y, *axis]
    if call.errors:
        return arguments, None

    def check(given, limits):
        result = Result(given, computed, limits)
        hold_shape(call, given, shape, computed)
        if y.size:
            hold_product(
                name, result, *(as_rows(one, axes) for one in (result.values, grad, y)),
                temperature, tempered,
            )  # fmt: skip
        return result.largest

    return arguments, check


def hold_product(name, result, values, grad, y, temperature, tempered):
    dtype, n = result.computed, y.shape[1]
    grad, y = grad.astype(dtype).astype(LONG), y.astype(dtype).astype(LONG)
    counts = y != (0 if name == "softmax" else -INF)
    require(values[~counts] == 0, "the gradient of what has no probability")
    grad, y = np.where(counts, grad, 0), np.where(counts, y, 0)
    is_nan = np.isnan(grad).any(-1) | np.isnan(y).any(-1)
    require(np.isnan(values) | ~(counts & is_nan[:, None]), "NaN fills its row")
    infinite = np.isinf(grad)
    has_infinite = infinite.any(-1) & ~is_nan
    own = infinite & has_infinite[:, None] & (temperature < INF)[:, None]
    require(~np.isfinite(values) | ~own, "an infinite gradient")
    ordinary = ~is_nan & ~has_infinite
    temperature = temperature.astype(LONG)
    if name == "softmax":
        of_grad = y * grad
        of_sum = y * of_grad.sum(-1, keepdims=True)
        sums = np.abs(of_grad).sum(-1)
        difference = y * (grad - of_grad.sum(-1, keepdims=True))
        sums = np.maximum(sums, np.abs(grad).max(-1))
    else:
        of_grad = grad
        of_sum = np.where(counts, np.exp(y), 0) * grad.sum(-1, keepdims=True)
        sums = np.abs(grad).sum(-1)
        difference = of_grad - of_sum
    terms = np.maximum(np.abs(of_grad), np.abs(of_sum)).max(-1)
    # Sums are made of numbers of the result's type, in which they must not overflow.
    ordinary &= sums < MAX[dtype] / 4
    require(~np.isnan(values[ordinary]), "NaN in the gradient of a row that has none")
    is_0, is_infinite = ordinary & (temperature == 0), ordinary & (temperature == INF)
    require(values[is_infinite] == 0, "the gradient at temperature inf")
    # What rounding or underflow may have made 0 is left out.
    clear = np.abs(difference) > 16 * EPS[dtype] * terms[:, None]
    clear &= well_above_underflow(difference, n, dtype) & is_0[:, None]
    right = np.where(difference > 0, INF, -INF)
    require((values == right)[clear], "the gradient at temperature 0")
    scale, right = terms / temperature, difference / temperature[:, None]
    kept = ordinary & (temperature > 0) & (temperature < INF)
    kept &= np.maximum(scale, np.abs(right).max(-1)) < MAX[dtype]
    kept &= well_above_underflow(scale * np.minimum(temperature, 1), n, dtype)
    right = right[kept]
    scale = np.broadcast_to(scale[kept, None], right.shape)
    result.hold(values[kept], right, result.limit("gradient"), scale, "gradient")


def softmax_jacobian(call):
    shape = call.shape(least_axes=1)
    if math.prod(shape) * max(shape) > 100_000:    # numbers of the result
        shape = tuple(min(side, 17) for side in shape)
    axis, axes = call.axis(shape, several=False)
    n = shape[axes[0]]
    temperature, _ = call.temperature(shape, axes)
    dtype = call.pick(TYPES)
    y = call.spread_out(outcome(call, shape, axes, dtype, "softmax", temperature))
    given_y = call.place(y)
    if call.wrong == "y type":
        call.refused(TypeError)
        given_y = np.ones(shape).astype(call.pick(REFUSED_TYPES))
    arguments = [given_y, *axis]
    if call.errors:
        return arguments, None
    computed = computed_type(dtype)

    def check(given, limits):
        result = Result(given, computed, limits)
        hold_shape(call, given, (*without(shape, axes), n, n), computed)
        rows = as_rows(y, axes).astype(LONG)
        values = result.values.reshape(len(rows), n, n)
        t = temperature.astype(LONG)[:, None, None]
        diagonal = np.eye(n) * rows[:, :, None]
        products = rows[:, :, None] * rows[:, None, :]
        right = np.where(np.eye(n) == 0, -products, rows[:, :, None] * (1 - rows[:, None, :]))
        terms = np.maximum(diagonal, products)
        is_nan = np.isnan(rows[:, :, None] + rows[:, None, :])
        require(np.isnan(values) == (is_nan & (products != 0)), "NaN beside NaN, not beside 0")
        ordinary = ~is_nan
        require(values[ordinary & (terms == 0)] == 0, "0 without probabilities")
        require(values[ordinary & (t == INF)] == 0, "the Jacobian at temperature inf")
        above = ordinary & well_above_underflow(terms * np.minimum(t, 1), 1, computed)
        clear = ordinary & (t == 0) & well_above_underflow(right, 1, computed)
        clear &= np.abs(right) > 8 * EPS[computed] * terms
        require(
            values[clear] == np.where(right[clear] > 0, INF, -INF), "the Jacobian at temperature 0"
        )
        scale = np.broadcast_to(terms / t, right.shape)
        kept = above & (t > 0) & (t < INF) & (scale < MAX[computed])
        kept &= well_above_underflow(scale * np.minimum(t, 1), 1, computed)
        result.hold(
            values[kept], (right / t)[kept], result.limit("gradient"), scale[kept], "Jacobian"
        )
        return result.largest

    return arguments, check


# Single numbers.


def sigmoid(call):
    shape = call.shape()
    x, values = call.logits(shape)
    computed = values.dtype
    call.result_array(shape, computed)
    if call.errors:
        return [x], None

    def check(given, limits):
        result = Result(given, computed, limits)
        hold_shape(call, given, shape, computed, may_be_scalar=True)
        right = 1 / (1 + np.exp(-values.astype(LONG)))
        p = result.values
        require(np.isnan(p) == np.isnan(right), "NaN for NaN and for nothing else")
        kept = ~np.isnan(right)
        p, right = p[kept], right[kept]
        small = right < TINY[computed]
        require((p[small] >= 0) & (p[small] <= TINY[computed] * (1 + 1e-6)), "small probabilities")
        result.hold(p, right, 3, None, "sigmoid")
        return result.largest

    return [x], check


def binary_weight(call, name, shape):
    """None, or positive numbers that broadcast, some of them 0."""
    if call.wrong == f"{name} shape":
        call.refused(ValueError)
        call.keywords[name] = np.ones(call.too_wide(shape))
        return None
    if call.wrong == f"{name} type":
        call.refused(TypeError)
        call.keywords[name] = np.ones(shape).astype(call.pick(REFUSED_TYPES))
        return None
    if call.chance(0.6):
        return None
    if call.chance(0.2):
        call.keywords[name] = call.pick((2, 0.5, 0, True, np.float32(0.25), 3.0))
        return np.asarray(call.keywords[name])
    shape = call.broadcastable(shape)
    dtype = call.pick(TYPES)
    if dtype.kind == "f":
        weight = 10 ** call.rng.uniform(-3, 3, shape)
    else:
        weight = call.rng.integers(0, 2 if dtype.kind == "b" else 100, shape)
    if call.chance(0.3):
        weight = weight * (call.rng.random(shape) < 0.5)
    weight = call.spread_out(np.asarray(weight).astype(dtype))
    call.keywords[name] = call.place(weight)
    return weight


def binary_cross_entropy(call):
    shape = call.shape()
    x, values = call.logits(shape)
    computed = values.dtype
    reduction = reduction_of(call)
    rng = call.rng
    if call.chance(0.4):
        dtype = np.dtype(call.pick(("?", "i1", "u1", "i8", "f4", "f8", "f2", ">f8")))
        y = np.asarray(rng.random(shape) < 0.5).astype(dtype)
    else:
        y = np.asarray(rng.random(shape) ** call.pick((1, 9, 0.01))).astype(call.pick(FLOATS))
    if y.dtype.kind == "f" and y.size and call.chance(0.05):
        y.reshape(-1)[call.between(0, y.size - 1)] = NAN
    y = call.spread_out(y)
    target = call.place(y)
    if call.wrong == "target shape":
        call.refused(ValueError)
        target = np.ones(call.pick([(1, *shape), call.too_wide(shape)]))
    elif call.wrong == "target type":
        call.refused(TypeError)
        target = np.ones(shape).astype(call.pick(REFUSED_TYPES))
    weight = binary_weight(call, "weight", shape)
    pos_weight = binary_weight(call, "pos_weight", shape)
    if call.errors:
        return [x, target], None

    def check(given, limits):
        result = Result(given, computed, limits)
        loss_shape = shape if reduction == "none" else ()
        hold_shape(call, given, loss_shape, computed, may_be_scalar=True)
        z, t, w, v = (
            np.asarray(LONG(1) if one is None else one.astype(computed).astype(LONG))
            for one in (values, y, weight, pos_weight)
        )
        # A part whose coefficient is 0 doesn't count.
        positive = np.where(v * t == 0, 0, v * t * softplus(-z))
        negative = np.where(t == 1, 0, (1 - t) * softplus(z))
        unweighted = positive + negative
        right = np.broadcast_to(np.where((w == 0) & (unweighted == INF), 0, w * unweighted), shape)
        is_nan = np.broadcast_to(np.isnan(z) | np.isnan(t), shape)
        right = np.where(is_nan, NAN, right)
        # NaN times 0 may be either.
        is_open = is_nan & np.broadcast_to((w == 0) | ((v * t == 0) & (t == 1)), shape)
        limit = 3
        if weight is not None or pos_weight is not None:
            limit = result.limit("log, one class")
        parts = np.maximum(positive, np.maximum(negative, unweighted))
        too_large = np.broadcast_to(parts > MAX[computed], shape) | (right > MAX[computed])
        if reduction == "none":
            losses = result.values
            require((np.isnan(losses) == is_nan) | is_open, "NaN for NaN and for nothing else")
            infinite = right == INF
            require(losses[infinite] == INF, "infinite losses")
            require((losses >= 0) | is_nan, "no loss is negative")
            require(losses[right == 0] == 0, "losses of 0")
            kept = ~(too_large | is_nan) & well_above_underflow(right, 2, computed)
            result.hold(losses[kept], right[kept], limit, None, "losses")
            return result.largest
        if not right.size:
            require(np.isnan(given) if reduction == "mean" else given == 0, "the loss of nothing")
        elif (is_nan & ~is_open).any():
            require(np.isnan(given), "the NaN of an element")
        elif not is_open.any():
            total = right.sum() / (right.size if reduction == "mean" else 1)
            has_overflown = too_large.any() or right.sum() > MAX[F64] or total > MAX[computed]
            if np.isinf(right).any():
                require(given == INF, "an infinite loss")
            elif not has_overflown and well_above_underflow(total, 2 * right.size, computed):
                limit += error_of_sum(right.size, computed)
                result.hold(np.asarray([given]), np.asarray([total]), limit, None, "a loss")
        return result.largest

    return [x, target], check


BUILDERS = {
    "softmax": rowwise,
    "log_softmax": rowwise,
    "logsumexp": logsumexp,
    "entropy": entropy,
    "cross_entropy": cross_entropy,
    "cross_entropy_value_and_grad": cross_entropy,
    "nll_loss": nll_loss,
    "softmax_vjp": vjp,
    "log_softmax_vjp": vjp,
    "softmax_jacobian": softmax_jacobian,
    "sigmoid": sigmoid,
    "binary_cross_entropy": binary_cross_entropy,
}
FUNCTIONS = list(BUILDERS)

OF_TEMPERATURE = ["temperature", "temperature shape", "temperature type"]
OF_OUT = ["out shape", "out type", "out read-only"]
OF_TARGET = [
    "target shape", "target type", "weight shape", "weight type", "reduction", "x type",
]  # fmt: skip
OF_ROWS = ["x type", "axis", "where type", "where shape", *OF_OUT]
OF_LOSS = [
    "axis", *OF_TARGET, *OF_TEMPERATURE, "index", "index", "ignore_index",
    "ignore_index of probabilities", "label_smoothing",
]  # fmt: skip
OF_PRODUCT = ["y type", "grad type", "grad shape", "axis", *OF_TEMPERATURE, *OF_OUT]
# What may be wrong with the arguments of each function.
WRONG = {
    "softmax": [*OF_ROWS, *OF_TEMPERATURE],
    "log_softmax": [*OF_ROWS, *OF_TEMPERATURE],
    "logsumexp": OF_ROWS,
    "entropy": ["x type", "axis", *OF_TEMPERATURE],
    "cross_entropy": OF_LOSS,
    "cross_entropy_value_and_grad": [*OF_LOSS, *OF_OUT],
    "nll_loss": ["axis", *OF_TARGET, "index", "ignore_index"],
    "softmax_vjp": OF_PRODUCT,
    "log_softmax_vjp": OF_PRODUCT,
    "softmax_jacobian": ["y type", "axis", *OF_TEMPERATURE],
    "sigmoid": ["x type", *OF_OUT],
    "binary_cross_entropy": [*OF_TARGET, "pos_weight shape", "pos_weight type"],
}


def perform(call, limits):
    """Make the call and check what comes of it: the error in ULP, or None if it was refused."""
    before = [buffer.tobytes() for buffer in call.buffers]
    out, function = call.out, getattr(csoftmax, call.name)
    error = None
    with np.errstate(all="raise"):
        if LIBM:
            LIBM.feclearexcept(ALL_FLAGS)
        try:
            result = function(*call.arguments, **call.keywords)
        except Exception as raised:    # whatever it is, it is compared with what is allowed
            error = raised
        flags = LIBM.fetestexcept(ALL_FLAGS & ~INEXACT) if LIBM and call.in_kernels_alone() else 0
    if error is not None and type(error) not in call.errors:
        raise Failure(f"{type(error).__name__}: {error}") from error
    if error is None and call.errors:
        names = " or ".join(one.__name__ for one in call.errors)
        raise Failure(f"no {names} for wrong {call.wrong}")
    if error is None:
        require(not flags, f"floating-point flags 0x{flags:x} are left")
        grad = result[1] if call.name.endswith("value_and_grad") else result
        if out is not None:
            require(grad is out, "what is returned is not `out`")
            grad = out.astype(out.dtype.newbyteorder("="))
            put_back(out, call.buffers, before)
        else:
            for array, *_ in call.placed:
                require(not np.may_share_memory(grad, array), "the result is a part of an input")
    for buffer, was in zip(call.buffers, before, strict=True):
        require(buffer.tobytes() == was, "memory that is not the result's was changed")
    if error is not None:
        return None
    result = (result[0], grad) if call.name.endswith("value_and_grad") else grad
    with np.errstate(all="ignore"):
        return call.check(result, limits)


def put_back(out, buffers, before):
    """What was in the elements of `out` before the call, and nothing else."""
    for buffer, was in zip(buffers, before, strict=True):
        if np.may_share_memory(out, buffer):
            start = out.__array_interface__["data"][0] - buffer.__array_interface__["data"][0]
            old = np.ndarray(out.shape, out.dtype, was, start, out.strides)
            out[...] = old


def run_many(numbers, seed, limits, progress=None):
    """The calls of these numbers; a table of what they gave, and failures as (number, text)."""
    table = {name: [0, 0, 0.0] for name in FUNCTIONS}
    failures, seen = [], set()
    for number in numbers:
        name = FUNCTIONS[number % len(FUNCTIONS)]
        row = table[name]
        row[0] += 1
        try:
            error = perform(Call(seed, number), limits)
        except Exception as failure:    # of the call, or of this module
            text = f"{type(failure).__name__}: {failure}"
            if not isinstance(failure, Failure):
                text = traceback.format_exc(limit=-3)
            kind = name + re.sub(r"[\d.]+", "", text)
            if kind not in seen:
                seen.add(kind)
                failures.append((number, text))
            if len(failures) >= 20:
                break
            continue
        if error is None:
            row[1] += 1
        else:
            row[2] = max(row[2], error)
        if progress:
            progress(number)
    return table, failures


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--functions", default=",".join(FUNCTIONS), help="names, with commas")
    parser.add_argument("--only", type=int, help="the number of the one call to make")
    options = parser.parse_args(arguments)
    build = csoftmax.show_config(mode="dicts")["isa"]
    limits = limits_of(build)
    warnings.simplefilter("error")
    if options.only is not None:
        call = Call(options.seed, options.only)
        print(call.described())
        print("largest error in ULP:", perform(call, limits))
        return 0
    wanted = options.functions.split(",")
    turns = [i for i, name in enumerate(FUNCTIONS) if name in wanted]
    if len(turns) != len(wanted):
        parser.error(f"functions are {', '.join(FUNCTIONS)}")
    numbers = (
        i // len(turns) * len(FUNCTIONS) + turns[i % len(turns)] for i in range(options.calls)
    )
    start = last = time.monotonic()
    made = 0

    def progress(number):
        nonlocal last, made
        made += 1
        now = time.monotonic()
        if now - last > 30:
            last = now
            print(f"{made} calls, {made / (now - start):.0f} a second", flush=True)

    table, failures = run_many(numbers, options.seed, limits, progress)
    print(f"{build}, {time.monotonic() - start:.0f} seconds")
    print(f"{'function':<30}{'calls':>10}{'refused':>10}{'largest error, ULP':>20}")
    for name in wanted:
        calls, refused, error = table[name]
        print(f"{name:<30}{calls:>10}{refused:>10}{error:>20.3g}")
    for number, text in failures:
        print(f"\npython -m tests.fuzz --seed {options.seed} --only {number}")
        print(text)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
