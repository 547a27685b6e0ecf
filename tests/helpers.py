"""What several test files use: processes, arrays as they may lie in memory, comparisons, marks."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from csoftmax import _dispatch

from .cases import BFLOAT16
from .functions import CALLS

USABLE = [isa for isa in _dispatch.isas_built if isa in _dispatch.isas_supported]


def run(code, **environment):
    """A script in a process of its own. One that hangs is ended, with the processes it started."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CSOFTMAX_")}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, env=kept | environment, cwd=Path(__file__).parents[1], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            output, errors = process.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def run_checked(code, **environment):
    """The output of a script that must succeed."""
    result = run(code, **environment)
    assert result.returncode == 0, f"exit status {result.returncode}\n{result.stderr}"
    return result.stdout


def from_kernels(name, x):
    """The arithmetic by itself, of a function that takes single numbers: exp or log_1p_of."""
    function = getattr(_dispatch.kernels, name)
    in_float = [x.dtype == np.float32] if name == "exp" else []
    return np.array([function(number, *in_float) for number in x.tolist()], x.dtype)


def mentioning(*words):
    """A pattern for messages that have all of these, in any order."""
    return "".join(f"(?=.*{re.escape(str(word))})" for word in words)


def rounded_to(dtype, x):
    """Once, and of two the even one; ml_dtypes goes from float64 to bfloat16 by way of float32."""
    if dtype != "bfloat16":
        return x.astype(dtype)
    x = np.asarray(x, np.float64)
    _, exponent = np.frexp(x)
    last = np.maximum(exponent - 8, -133)    # place of the last of 8 bits, or of a subnormal's
    return np.ldexp(np.rint(np.ldexp(x, -last)), last).astype(BFLOAT16)


def garbage(shape, dtype):
    """What may stand where nothing is read."""
    largest = float(np.finfo(dtype).max)
    values = [np.nan, np.inf, -np.inf, largest, -largest, 1e-40, 0, 1e5]
    return np.random.default_rng(0).choice(values, size=shape).astype(dtype)


def bits(result):
    """The sign of zeros included, but not that of NaN, which says nothing."""
    return np.where(np.isnan(result), np.nan, result).tobytes()


def assert_as_promised(result, expected, scale=0, dtype=None):
    """Equal within twice the contract's limit.

    Rows that stand side by side, or are copied so, have a loop of their own that adds up in another
    order. `scale` is the largest term, where that is what errors are measured by. `dtype` is that
    of the computation: a mean of losses is float64 for float32, too.
    """
    eps = np.finfo(expected.dtype if dtype is None else dtype).eps
    np.testing.assert_allclose(result, expected, rtol=8 * eps, atol=8 * eps * scale)


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def unaligned(x):
    buffer = np.zeros(x.nbytes + 1, np.uint8)
    result = buffer[1:].view(x.dtype).reshape(x.shape)
    result[...] = x
    return result


def every_other(x):
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), np.nan, x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


class Sub(np.ndarray):
    """A subclass that changes nothing."""


class Box:
    """Knows nothing but how to become an array."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return np.array(self.array, dtype)


class Prescribed(np.random.Generator):
    """Gives these numbers as the uniform ones, along the last axes of what is asked for."""

    def __init__(self, numbers):
        super().__init__(np.random.PCG64(0))
        self.numbers = np.asarray(numbers, float)

    def random(self, size=None, dtype=float, out=None):
        return np.broadcast_to(self.numbers, size).copy()


def empty_like(x, shape=None, selection=()):
    """Part of a larger array whose other bytes are not 0."""
    memory = np.empty(x.shape if shape is None else shape, x.dtype)
    memory.view(np.uint8)[...] = 1
    return memory[selection]


def filled(array, x):
    array[...] = x
    return array


def field(x):
    """Of a structure without gaps, so that most numbers are not aligned."""
    structure = np.dtype([("before", "u1"), ("x", x.dtype), ("behind", "u2")])
    return filled(np.ones(x.shape, structure)["x"], x)


# The least number of dimensions, and the same numbers in another array, which may be an `out`.
WRITEABLE_FORMS = {
    "Fortran order": (2, np.asfortranarray),
    "big-endian": (0, lambda x: x.astype(x.dtype.newbyteorder(">"))),
    "unaligned": (0, unaligned),
    "every other": (1, lambda x: filled(
        empty_like(x, (*x.shape[:-1], 2 * x.shape[-1]), np.s_[..., ::2]), x
    )),
    "every other row": (2, lambda x: filled(
        empty_like(x, (2 * len(x), *x.shape[1:]), np.s_[1::2]), x
    )),
    "backwards": (1, lambda x: x[..., ::-1].copy()[..., ::-1]),
    "rows backwards": (2, lambda x: x[::-1].copy()[::-1]),
    "field of a structure": (0, field),
    "matrix": (2, lambda x: np.matrix(x) if x.ndim == 2 else x),
    "subclass": (0, lambda x: x.copy().view(Sub)),
}  # fmt: skip
FORMS = WRITEABLE_FORMS | {
    "read-only": (0, read_only),
    "one row for all": (2, lambda x: np.broadcast_to(x[:1], x.shape)),
    "one number per row": (1, lambda x: np.broadcast_to(x[..., :1], x.shape)),
    "one number for all": (0, lambda x: np.broadcast_to(x.flat[0], x.shape)),
    "list": (0, lambda x: x.tolist()),
    "lists of scalars": (1, lambda x: [list(row) if x.ndim == 2 else row for row in x]),
    "__array__": (0, Box),
}
# What becomes of such arrays is decided before the kernels are called.
best_build = pytest.mark.parametrize("build", USABLE[:1], indirect=True)
each_argument = pytest.mark.parametrize(
    ("call", "key"),
    [pytest.param(call, key, id=f"{name}: {key}")
     for name, call in CALLS.items() for key in call.operands],
)  # fmt: skip


def assert_same_results(results, expected, dtype):
    """Plain arrays, or scalars, and numbers that differ as much as the order of a sum does.

    `dtype` is what numbers without an axis are computed in.
    """
    for result, right in zip(results, expected, strict=True):
        assert type(result) is np.ndarray or isinstance(result, np.floating | np.int64)
        assert result.dtype == right.dtype
        assert result.shape == right.shape
        if right.dtype.kind == "i":
            np.testing.assert_array_equal(result, right)
            continue
        finite = np.abs(right[np.isfinite(right)])
        assert_as_promised(result, right, finite.max(initial=0), None if right.ndim else dtype)
