"""The table of inputs: kinds of rows, and the lengths at which loops change."""

import ml_dtypes
import numpy as np
import pytest

# Every tail of a short row, and what is around the sizes of blocks and chunks.
LENGTHS = [
    *range(1, 71), 100, 127, 128, 129, 137, 255, 256, 257, 300, 511, 512, 513, 1000, 1023, 1024,
    1025, 2047, 2048, 2049, 2112, 4095, 4096, 4097, 4224, 5000, 8191, 8192, 8193,
]  # fmt: skip
NANS = {
    # Quiet and signalling, of both signs, with several payloads.
    4: [0x7FC00000, 0xFFC00000, 0x7FC12345, 0xFFFFFFFF, 0x7F800001, 0xFFA00003],
    8: [
        0x7FF8000000000000, 0xFFF8000000000000, 0x7FF8000012345678, 0xFFFFFFFFFFFFFFFF,
        0x7FF0000000000001, 0xFFF4000000000003,
    ],
}  # fmt: skip


def normal(rng, n, dtype):
    return rng.normal(size=n)


def spread(rng, n, dtype):
    return rng.choice([5, 30, 100]) * rng.normal(size=n)


def moderate_offset(rng, n, dtype):
    limit = 256 if dtype == np.float32 else 2048
    return 3 * rng.normal(size=n) + rng.uniform(-1.1 * limit, 1.1 * limit)


def large_offset(rng, n, dtype):
    return rng.uniform(0, 40, size=n) + rng.choice([-1, 1]) * 10 ** rng.uniform(2, 6)


def until_underflow(rng, n, dtype):
    return rng.uniform(-87 if dtype == np.float32 else -708, 0, size=n)


def beyond_underflow(rng, n, dtype):
    return rng.uniform(-1000, 300, size=n)


def constant(rng, n, dtype):
    return np.full(n, rng.choice([1, 10, 100]) * rng.normal())


def two_values(rng, n, dtype):
    a, b = rng.choice([1, 5, 20]) * rng.normal(size=2)
    return np.where(rng.random(n) < rng.choice([0.5, 0.1, 0.01]), a, b)


def spike(rng, n, dtype):
    x = rng.normal(size=n)
    x[rng.integers(n)] += rng.uniform(0, 60)
    return x


def two_spikes(rng, n, dtype):
    x = rng.normal(size=n)
    x[rng.integers(n, size=2)] += rng.uniform(10, 60)
    return x


def one_hot(rng, n, dtype):
    x = np.full(n, rng.uniform(-20, 20))
    x[rng.integers(n)] += rng.uniform(15, 40)
    return x


def mostly_minus_infinity(rng, n, dtype):
    x = np.full(n, -np.inf)
    x[rng.integers(n, size=3)] = 3 * rng.normal(size=3)
    return x


def ascending(rng, n, dtype):
    return np.sort(20 * rng.normal(size=n))


def descending(rng, n, dtype):
    return -ascending(rng, n, dtype)


def huge(rng, n, dtype):
    return rng.choice([-1, 1]) * 0.99 * float(np.finfo(dtype).max) * rng.uniform(0, 1, size=n)


def subnormal(rng, n, dtype):
    return rng.normal(size=n) * float(np.finfo(dtype).tiny)


def multiples_of_ln2(rng, n, dtype):
    """Where the exponential's reduction changes from one power of two to the next."""
    k = rng.integers(-300, 300) + rng.integers(-20, 1, size=n)
    return (k + rng.choice([0, 0.5])) * np.log(2)


def one_lane(rng, n, dtype):
    """A few terms of one size, all in one lane, where they are added up first."""
    lanes = 16 if dtype == np.float32 else 8
    x = np.full(n, -np.inf)
    start = rng.integers(min(n, lanes))
    x[start::lanes] = rng.uniform(-0.35, 0.7, size=len(x[start::lanes]))
    offset = rng.choice([0, 0, 210, -210, 300])
    x += offset
    keep = start + lanes * 8 * rng.integers(max(1, n // (lanes * 8)))
    x[:keep] = -np.inf
    x[keep + 8 * lanes :] = -np.inf
    return x if np.isfinite(x).any() else np.zeros(n)


KINDS = [
    normal, spread, moderate_offset, large_offset, until_underflow, beyond_underflow, constant,
    two_values, spike, two_spikes, one_hot, mostly_minus_infinity, ascending, descending, huge,
    subnormal, multiples_of_ln2, one_lane,
]  # fmt: skip


# Whose sums of losses are numbers.
FINITE_KINDS = [kind for kind in KINDS if kind not in (mostly_minus_infinity, one_lane, huge)]
# Whose logits stay within the limit up to which none is shifted.
UNSHIFTED_KINDS = [
    normal, until_underflow, two_values, spike, two_spikes, one_hot, mostly_minus_infinity,
    ascending, descending, subnormal,
]  # fmt: skip


def rows(kind, count, n, dtype, seed=0):
    """`count` rows of length n of one kind."""
    rng = np.random.default_rng([seed, KINDS.index(kind), n])
    return np.array([kind(rng, n, dtype) for _ in range(count)]).astype(dtype)


def mixed_rows(kinds, count, n, dtype, seed=0):
    """`count` rows of length n, of these kinds in turn; other lengths begin with other kinds."""
    rng = np.random.default_rng([seed, len(kinds), n])
    turns = [kinds[(n + i) % len(kinds)] for i in range(count)]
    return np.array([kind(rng, n, dtype) for kind in turns]).astype(dtype)


def nans(dtype):
    return np.array(NANS[dtype.itemsize], f"u{dtype.itemsize}").view(dtype)


def special_rows(n, dtype):
    """Rows without a softmax: with NaNs, two of them different, with inf, of -inf alone."""
    some = nans(dtype)
    x = np.random.default_rng(n).normal(size=(24, n)).astype(dtype)
    places = [0, n // 3, n // 2, n - 1]
    for i, row in enumerate(x[:12]):
        row[places[i % 4]] = some[i % 6]
    for i, row in enumerate(x[12:18]):
        row[places[i % 3]] = some[i]
        row[places[i % 3 + 1]] = some[i - 1]
    x[18] = np.inf
    x[19:21] = -np.inf
    x[20, n // 2] = some[3]
    x[21:, n - 1] = np.inf
    x[22, 0] = -np.inf
    x[23, n // 2] = some[1]
    return x


def random_rows(count, n, dtype, seed=0):
    """Ordinary ones of several sizes and offsets; one in five, if there are many, is special."""
    rng = np.random.default_rng([seed, count, n])
    x = rng.normal(size=(count, n)) * rng.choice([1, 30], size=(count, 1))
    x += rng.choice([0, 0, 0, 300, -2100], size=(count, 1))
    x = x.astype(dtype)
    x[1::5] = np.resize(special_rows(n, dtype), x[1::5].shape)
    return x


GAPS = {
    np.dtype(np.float32): [10, 20, 45, 80],
    np.dtype(np.float64): [10, 37, 60, 600, 700],
}


def dominated_rows(n, places, maxima, dtype):
    """In each row one logit is far above the others: every gap, every place."""
    rng = np.random.default_rng(n)
    gaps = np.repeat(GAPS[dtype], len(places))
    x = rng.uniform(-1, 1, size=(len(gaps), n)) - gaps[:, None]
    places = np.resize(places, len(x))
    x[np.arange(len(x)), places] = 0
    return x + np.resize(maxima, len(x))[:, None], places


# What lies in memory for the same rows, and the axis that they are along.


def contiguous(x):
    return x.copy(), -1


def side_by_side(x):
    return np.ascontiguousarray(x.T), 0


def with_gaps(x):
    """With a NaN after each number, which no result may show."""
    wide = np.full((len(x), 2 * x.shape[1]), np.nan, x.dtype)
    wide[:, ::2] = x
    return wide[:, ::2], -1


LAYOUTS = [contiguous, side_by_side, with_gaps]


def chunk_of(dtype):
    """Numbers of a chunk; longer rows are computed in several."""
    return 16384 // dtype.itemsize


# Types of other libraries, which NumPy knows when they are imported: one is taken.
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
REFUSED = [
    np.dtype(one) for one in vars(ml_dtypes).values()
    if isinstance(one, type) and issubclass(one, np.generic) and one is not ml_dtypes.bfloat16
]  # fmt: skip

# What is converted, and the type of the results.
each_input_type = pytest.mark.parametrize(
    ("input_dtype", "result_dtype"),
    [("float16", "float32"), ("bfloat16", "float32"), ("bool", "float32"), ("int8", "float32"),
     ("uint16", "float32"), ("int32", "float64"), ("uint64", "float64"), (">f4", "float32"),
     (">f8", "float64")],
)  # fmt: skip
