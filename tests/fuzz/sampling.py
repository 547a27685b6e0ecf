"""Calls of top_log_probs and sample."""

import numpy as np

from ..contract import as_rows, without
from ..exact import INF, NAN, computed_type
from .arguments import is_spread
from .values import FLOATS


def logits_of_rows(call):
    """The arguments for logits and their axis, and the axes."""
    shape = call.shape(least_axes=1)
    x, _ = call.logits(shape)
    axis, axes = call.axis(shape, several=False)
    call.temperature(shape, axes)
    call.where(x, shape)
    return x, axis, shape, axes


def a_count(call, n):
    """Of 1 to n, of any type of integers."""
    count = call.pick((1, 1, 2, n, max(n - 1, 1), call.between(1, n)))
    dtype = np.dtype(call.pick(("i1", "u1", "i4", "i8", "u8")))
    count = min(max(count, 1), n)
    return dtype.type(count) if call.chance(0.2) and count <= np.iinfo(dtype).max else count


def top_log_probs(call):
    x, axis, shape, axes = logits_of_rows(call)
    n = shape[axes[0]]
    if call.wrong == "k":
        k, error = call.pick(
            [(0, ValueError), (-1, ValueError), (n + 1, ValueError), (2**70, ValueError),
             (1.0, TypeError), ("1", TypeError), (None, TypeError), ([1], TypeError)]
        )  # fmt: skip
        call.refused(error)
    elif n == 0:
        k = 1
        call.refused(*call.errors, ValueError)
    else:
        k = a_count(call, n)
    return [x, k, *axis]


def share(call, name):
    """A number in [0, 1]."""
    if call.wrong == name:
        number, error = call.pick(
            [(-1e-300, ValueError), (1.0000001, ValueError), (NAN, ValueError), (INF, ValueError),
             (2, ValueError), (-1, ValueError), ("0", TypeError), (None, TypeError),
             ([0.5], TypeError), (1j, TypeError)]
        )  # fmt: skip
        call.refused(error)
        call.keywords[name] = number
    elif call.chance(0.5):
        kind = call.random()
        if kind < 0.3:
            number = call.pick((0, 1, 0.0, 1.0, 0.5, 1e-300, 5e-324, 1e-40, np.nextafter(1, 0)))
        elif kind < 0.6:
            number = 10.0 ** (-call.pick((1, 1, 3, 12)) * call.random())
        else:
            number = call.random()
        call.keywords[name] = np.float32(number) if call.chance(0.1) else number


def how_many(call, n):
    if call.wrong == "top_k":
        number, error = call.pick(
            [(0, ValueError), (-1, ValueError), (-(2**70), ValueError), (1.5, TypeError),
             ("1", TypeError), ([1], TypeError)]
        )  # fmt: skip
        call.refused(error)
        call.keywords["top_k"] = number
    elif call.chance(0.5):
        call.keywords["top_k"] = call.pick((a_count(call, max(n, 1)), None, n + 1, 2**31, 10**18))


def how_often(call):
    if call.wrong == "size":
        size, error = call.pick(
            [(-1, ValueError), ((2, -1), ValueError), (1.5, TypeError), ("1", TypeError)]
        )
        call.refused(error)
        call.keywords["size"] = size
    elif call.chance(0.4):
        call.keywords["size"] = call.pick((None, (), 1, 3, (2,), (2, 3), (1, 1, 2), np.int64(2)))


def rows_that_lack(x, where, axes):
    """Which rows have no distribution."""
    values = np.asarray(x)
    values = np.where(True if where is None else where, values.astype(computed_type(values.dtype)),
                      -INF)  # fmt: skip
    return ~np.isfinite(as_rows(values, axes).max(-1, initial=-INF))


def mend(call, x, axes):
    """Gives most calls a distribution for each row, so that not too many are refused."""
    lacking = rows_that_lack(x, call.keywords.get("where"), axes)
    if lacking.any() and call.chance(0.9):
        if rows_that_lack(np.zeros(np.shape(x)), call.keywords.get("where"), axes).any():
            call.keywords.pop("where", None)
            lacking = rows_that_lack(x, None, axes)
        is_array = isinstance(x, np.ndarray) and x.dtype in FLOATS
        if is_array and x.flags.writeable and not is_spread(x):
            rows = lacking.reshape(without(x.shape, axes))
            np.moveaxis(x, axes[0], -1)[rows] = call.pick((0, 1, -3))
            lacking = rows_that_lack(x, call.keywords.get("where"), axes)
    if lacking.any():
        call.refused(*call.errors, ValueError)


def sample(call):
    x, axis, shape, axes = logits_of_rows(call)
    how_many(call, shape[axes[0]])
    share(call, "top_p")
    share(call, "min_p")
    how_often(call)
    call.keywords["rng"] = call.between(0, 10**9)
    if call.chance(0.2):
        call.keywords["rng"] = np.random.SeedSequence(call.keywords["rng"])
    if not call.errors:
        mend(call, x, axes)
    return [x, *axis]
