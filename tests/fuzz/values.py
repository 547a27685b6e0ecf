"""Types, and random numbers of them: ordinary, of all sizes, special."""

import math

import numpy as np

from ..cases import BFLOAT16, REFUSED
from ..exact import F32, INF, MAX, NAN, TINY, computed_type

TYPES = [
    np.dtype(name)
    for name in ("f4 " * 10 + "f8 " * 10 + "f2 f2 >f2 >f4 >f8 ? i1 u1 i2 u2 i4 u4 i8 u8 >i2 >i8")
    .split()
] + [BFLOAT16] * 2  # fmt: skip
FLOATS = [dtype for dtype in TYPES if dtype.kind == "f" or dtype == BFLOAT16]
INDEX_TYPES = [dtype for dtype in TYPES if dtype.kind in "iu"] + [
    np.dtype(name) for name in ("i8", "i8", "i8", "u8", ">i4", ">u2", ">u4", ">u8")
]
REFUSED_TYPES = [np.longdouble, np.complex64, np.complex128, object, "U3", *REFUSED]


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


class Draws:
    """Random choices and numbers, all from one generator."""

    def __init__(self, rng):
        self.rng = rng
        self.random = rng.random

    def chance(self, probability):
        return self.random() < probability

    def pick(self, choices):
        return choices[int(self.random() * len(choices))]

    def between(self, lowest, highest):
        return lowest + int(self.random() * (highest - lowest + 1))

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

    def one_temperature(self):
        kind = self.random()
        if kind < 0.5:
            return math.exp(6 * self.random() - 3)
        if kind < 0.85:
            return self.pick(TEMPERATURES)
        return 10 ** ((2 * self.random() - 1) * self.pick((30, 60)))

    def unit_of(self, dtype):
        """A power of two far from 1, which leaves numbers of this type some room."""
        largest = {2: 8, 4: 100, 8: 800}[4 if dtype == BFLOAT16 else dtype.itemsize]
        return 2.0 ** self.between(-largest, largest)

    def weights(self, shape, dtype):
        """Positive numbers, seldom far from 1; those of integer types are sometimes 0."""
        if dtype in FLOATS:
            unit = self.unit_of(dtype) if self.chance(0.1) else 1.0
            return unit * 10 ** self.rng.uniform(-3, 3, shape)
        return self.rng.integers(0, 2 if dtype.kind == "b" else 100, shape)
