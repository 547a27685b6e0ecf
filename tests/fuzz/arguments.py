"""How arguments are drawn: shapes, axes, memory layouts, masks, temperatures, `out`."""

import math
import tempfile
from collections import deque
from fractions import Fraction

import numpy as np
from numpy.exceptions import AxisError

from ..contract import without
from ..exact import F64, INF, LONG, MAX, NAN, computed_type
from .values import FLOATS, REFUSED_TYPES, TYPES, Draws

# Around what fills blocks and chunks; those with more than 24,576 numbers are shared by threads.
LARGE = [
    (63,), (64, 1), (65,), (3, 128), (129, 2), (64, 64), (65, 65), (2, 1000), (130, 17), (300, 3),
    (4096,), (4097,), (2, 4096), (2048, 2), (2049,), (3, 4097), (5, 2049), (7, 11, 65), (40, 700),
    (9000, 3), (4, 2, 3100), (2, 20_000), (20_001, 2), (300, 129), (100_000,), (1, 60_003),
]  # fmt: skip


def is_spread(array):
    """Whether the same number stands for several."""
    return any(step == 0 and n > 1 for n, step in zip(array.shape, array.strides, strict=True))


class Arguments(Draws):
    """Draws the arguments of one call, and keeps those that are passed as keywords.

    `wrong` names the one argument that is to be refused, if any, of the names in `wrongs`; `errors`
    are then the allowed exceptions.
    """

    def __init__(self, rng, wrongs):
        super().__init__(rng)
        self.buffers = []       # memory that must not change
        self.placed = []        # arrays, the memory that they are in, and where
        self.out = None
        self.errors = ()
        self.keywords = {}
        self.wrong = self.pick(wrongs) if self.chance(0.08) else None

    def refused(self, *errors):
        self.errors = errors

    # Shapes and axes.

    def shape(self, least_axes=0):
        if self.chance(1 / 200):
            shape = self.pick(LARGE)
            return shape[::-1] if self.chance(0.3) else shape
        if self.chance(0.03):    # nearly as many axes as arrays can have
            shape = [1] * self.between(33, 62)
            for side in (2, 3, 5):
                shape[self.between(0, len(shape) - 1)] = side
            return tuple(shape)
        if self.chance(0.1):    # rows along several axes, which memory may have in any order
            return tuple(self.between(1, 4) for _ in range(self.between(4, 6)))
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
        if how < 0.06 and values.ndim and values.size and values.dtype.isnative:
            return self.pick((list, tuple, deque))(values)
        if how < 0.001:
            with tempfile.TemporaryFile() as file:
                file.write(values.tobytes() or b"0")    # no file can be mapped without a byte
                file.flush()
                return np.memmap(file, values.dtype, self.pick("rc"), shape=values.shape)
        size = values.itemsize
        is_plain = self.chance(0.4)
        strides, offset, extent = self.layout(values, is_plain)
        room = extent // size if self.chance(0.1) else 4
        before = size * self.between(0, room)
        if not is_plain and self.chance(0.1):
            before += self.between(1, size)    # unaligned
        buffer = np.full(before + extent + size * self.between(0, room), fill, np.uint8)
        array = np.ndarray(values.shape, values.dtype, buffer, before + offset, strides)
        if not is_out:
            array[...] = values
            self.placed.append((array, buffer, before + offset))
            array.flags.writeable = not self.chance(0.1)
        self.buffers.append(buffer)
        return array

    def layout(self, values, is_plain):
        """Strides, the first element's offset and the extent in bytes; plain is C-contiguous."""
        shape = values.shape
        order = list(range(len(shape)))[::-1]
        if not is_plain and self.chance(0.6):
            order = order[::-1] if self.chance(0.5) else self.rng.permutation(len(shape)).tolist()
        strides, offset, extent = [0] * len(shape), 0, values.itemsize
        for i in order:
            if values.strides[i] == 0 and shape[i] > 1:
                continue
            step = extent
            is_one_of_many = shape[i] == 1 and len(shape) > 10    # gaps in each would fill memory
            if not is_plain and not is_one_of_many and self.chance(0.25):
                step *= self.between(2, 3)
            extent = step * max(shape[i], 1)
            if not is_plain and self.chance(0.2):
                offset += step * max(shape[i] - 1, 0)
                step = -step
            strides[i] = step
        return strides, offset, extent

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
            return self.unusable(shape), np.ones(shape)
        dtype = self.pick(TYPES)
        values = self.spread_out(np.asarray(self.numbers(shape, dtype)))
        return self.place(values), values.astype(computed_type(dtype))

    def unusable(self, shape):
        """Ones of a type that is refused, or masked, in sequences too."""
        ones = np.ones(shape)
        if ones.size and self.chance(0.3):
            mask = self.rng.random(shape) < self.pick((0.1, 1))
            masked = np.ma.array(ones, mask=mask)
            masked[(-1,) * ones.ndim] = np.ma.masked
            return self.pick((list, tuple, deque, np.ma.array))(masked) if shape else masked
        return ones.astype(self.pick(REFUSED_TYPES))

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
        """Draws the temperature, of all rows or of each; it of each row."""
        rows = without(shape, axes)
        count = math.prod(rows)
        if self.wrong == "temperature":
            self.refused(ValueError)
            self.keywords["temperature"] = self.pick(
                [-1.0, NAN, -INF, -1, np.float32(-1), -5e-324, 10**400, -(10**400), LONG(-1),
                 Fraction(-1, 3), Fraction(10**400, 3), np.float16(NAN), np.array(-1),
                 np.full(rows, -1.0) if count else -2]
            )  # fmt: skip
        elif self.wrong == "temperature shape":
            self.refused(ValueError)
            self.keywords["temperature"] = np.ones(self.too_wide(rows))
        elif self.wrong == "temperature type":
            self.refused(TypeError)
            arrays = [np.ones(rows, dtype) for dtype in REFUSED_TYPES]
            self.keywords["temperature"] = self.pick(
                [None, "1", b"1", 1j, np.complex64(1), np.array("1"), *arrays]
            )
        elif self.chance(0.6):
            kind = self.random()
            if kind < 0.8:
                number = self.keywords["temperature"] = self.real_number()
                return np.full(count, float(number))
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
            return np.broadcast_to(temperature, rows).astype(F64).reshape(count)
        return np.ones(count)

    def real_number(self):
        """A temperature of any type that has real numbers."""
        if self.chance(0.4):
            return self.pick(
                (1, 2, 3, 0, True, False, 10**15, 2**64, 2**64 - 1, np.int8(3), np.uint64(7),
                 np.uint64(2**64 - 1), np.True_, Fraction(1, 3), Fraction(2**70, 3), LONG(1) / 3,
                 np.array(3), np.array(True), np.array(7, ">u8"), np.array(2**63, np.uint64))
            )  # fmt: skip
        number = self.one_temperature()
        if self.chance(0.1) and number < INF:
            return Fraction(number) / 3
        dtype = self.pick(("f8", "f8", "f8", "f4", "f2", "g", ">f8", ">f4", ">f2"))
        array = np.array(number).astype(dtype)
        if self.chance(0.2) and dtype != "g":
            return array
        return self.pick((float, array.dtype.type))(array[()])

    def where(self, array, shape):
        """A mask, or none; puts anything into what it leaves out of `array`."""
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
            is_array = isinstance(array, np.ndarray) and array.dtype in FLOATS
            may_write = is_array and array.flags.writeable and not is_spread(array)
            may_write &= not isinstance(array, np.ma.MaskedArray)    # no longer masked then
            if may_write and self.chance(0.5):
                array[~mask] = self.pick((NAN, INF, -INF, MAX[F64], 1.0))

    def result_array(self, shape, computed):
        """`out`, if the call has one: new memory, or that of other arguments."""
        if self.wrong in ("out shape", "out type", "out read-only"):
            return self.wrong_out(shape, computed)
        if self.chance(0.5):
            return None
        dtype = computed
        if self.chance(0.3):
            dtype = np.dtype(self.pick(("f2", "f4", "f8", ">f4", ">f8", ">f2", "bfloat16")))
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
        is_like = array.shape == shape and array.dtype in FLOATS and array.size > 0
        if is_like and not is_spread(array) and how < 0.85:
            if how < 0.35 and array.flags.writeable:
                return array
            array = np.ndarray(shape, array.dtype, buffer, offset, array.strides)
            if how < 0.5:
                return array[(..., *(np.s_[::-1] if self.chance(0.7) else np.s_[:] for _ in shape))]
            if how < 0.6:
                turned = array.T if self.chance(0.5) else array.transpose(
                    self.rng.permutation(len(shape))
                )
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

    # Of losses.

    def reduction(self):
        if self.wrong == "reduction":
            self.refused(ValueError)
            self.keywords["reduction"] = self.pick(("avg", "", None, 0, "MEAN", b"mean"))
        elif self.chance(0.7):
            self.keywords["reduction"] = self.pick(("mean", "sum", "none", "none"))
