"""top_log_probs and sample: order, filters, what is drawn with which number, and how often."""

import functools
import math

import mpmath
import numpy as np
import pytest

import csoftmax
from csoftmax import sample, top_log_probs

from .cases import BFLOAT16, LAYOUTS, contiguous, nans
from .contract import drawable, in_order
from .exact import INF, LONG, MAX, NAN, limits_of
from .functions import FUNCTIONS, masks
from .helpers import Prescribed, assert_as_promised

pytestmark = pytest.mark.usefixtures("build")

# Around the sizes of vectors, blocks, chunks and their multiples.
LENGTHS = [
    *range(1, 41), *range(63, 66), *range(127, 131), *range(255, 258), *range(511, 514),
    *range(1023, 1026), *range(2047, 2050), *range(4095, 4114), *range(8191, 8210),
    12_287, 12_289, 16_384, 24_577, 65_537,
]  # fmt: skip
LAST = np.nextafter(1, 0)    # the largest uniform number


def draw(x, numbers, **keywords):
    """A row with each of these uniform numbers."""
    return sample(x, rng=Prescribed(numbers), size=len(numbers), **keywords)


def chances(x, temperature=1.0, top_k=None, top_p=1.0, min_p=0.0):
    """Of the classes of one row, step by step."""
    x = np.asarray(x).astype(LONG)
    weights = np.exp((x - x.max()) / LONG(temperature))
    order = sorted(range(len(x)), key=lambda i: (-x[i], i))[:top_k]
    total, kept = weights[order].sum(), []
    for i in order:
        kept.append(i)
        if weights[kept].sum() >= LONG(top_p) * total:
            break
    kept = [i for i in kept if weights[i] >= LONG(min_p)]
    result = np.zeros(len(x), LONG)
    result[kept] = weights[kept] / weights[kept].sum()
    return result


# Frequencies.

DISTRIBUTIONS = {
    "two classes": (2, {}),
    "five classes": (5, {"temperature": 0.7}),
    "top 3": (30, {"top_k": 3}),
    "a nucleus": (30, {"top_p": 0.8}),
    "at least a tenth": (30, {"min_p": 0.1}),
    "all filters": (300, {"temperature": 1.3, "top_k": 50, "top_p": 0.95, "min_p": 0.02}),
    "hot": (100, {"temperature": 20.0}),
    "long rows": (5000, {"top_k": 60}),
}
each_distribution = pytest.mark.parametrize("kind", DISTRIBUTIONS)
DRAWS = 20_000


def quantile(sigmas, degrees):
    """Of chi-square, from the normal distribution's as Wilson and Hilferty have it."""
    part = 2 / (9 * degrees)
    return degrees * (1 - part + sigmas * math.sqrt(part)) ** 3


def is_likely(drawn, p):
    """Whether chi-square is within what it is in 999 of 1000 cases, with nothing impossible."""
    if (p[np.unique(drawn)] == 0).any():
        return False
    expected = drawn.size * p.astype(float)
    observed = np.bincount(drawn.ravel(), minlength=len(p))
    often = expected >= 5
    expected, observed = (
        np.append(one[often], one[~often].sum()) for one in (expected, observed)
    )  # fmt: skip
    observed, expected = observed[expected > 0], expected[expected > 0]
    chi_square = ((observed - expected) ** 2 / expected).sum()
    low, high = (quantile(sigmas, len(expected) - 1) for sigmas in (-3.3, 3.3))
    return low <= chi_square <= high


@functools.cache
def some_logits(n, dtype):
    return (2 * np.random.default_rng(n).normal(size=n)).astype(dtype)


@each_distribution
def test_frequencies(kind, dtype):
    """Of draws from one row, and of one draw from each of many."""
    n, keywords = DISTRIBUTIONS[kind]
    x = some_logits(n, dtype)
    p = chances(x, **keywords)
    assert is_likely(sample(x, rng=0, size=DRAWS, **keywords), p)
    if n <= 300:
        drawn = sample(np.broadcast_to(x, (DRAWS, n)), rng=1, **keywords)
        assert is_likely(drawn, p)
        # Each with the next one.
        pairs = np.outer(p, p).ravel()
        assert n > 5 or is_likely(drawn[:-1:2] * n + drawn[1::2], pairs)


@each_distribution
def test_frequencies_that_are_not_likely(kind, dtype):
    """The bounds can fail: at a temperature that is off by a tenth, or with another class."""
    n, keywords = DISTRIBUTIONS[kind]
    x = some_logits(n, dtype)
    p = chances(x, **keywords)
    temperature = keywords.get("temperature", 1)
    if kind != "hot":
        assert not is_likely(
            sample(x, rng=0, size=DRAWS, **keywords | {"temperature": 1.1 * temperature}), p
        )
    assert not is_likely(np.sort(np.resize(np.flatnonzero(p), DRAWS)), p)


# Filters, and which number gives which class.

def random_filters(rng, n):
    """Each of them, or none."""
    filters = {
        "temperature": float(rng.choice([0.3, 0.7, 1.5, 4])),
        "top_k": int(rng.integers(1, n + 3)),
        "top_p": rng.uniform(0.05, 0.99),
        "min_p": 10 ** rng.uniform(-3, -0.1),
    }
    return {name: value for name, value in filters.items() if rng.random() < 0.6}


def test_each_kept_class_has_its_part(dtype):
    """In the middle of its part, and close to its ends."""
    eps = np.finfo(dtype).eps
    for seed in range(300):
        rng = np.random.default_rng(seed)
        n = int(rng.choice([1, 2, 3, 8, 17, 40, 130]))
        x = (3 * rng.normal(size=n)).astype(dtype)
        keywords = random_filters(rng, n)
        p = chances(x, **keywords)
        kept = np.flatnonzero(p > 64 * eps)
        ends = p.cumsum()
        starts = ends - p
        for part in (0.5, 16 * eps / p[kept], 1 - 16 * eps / p[kept]):
            numbers = (starts[kept] + part * p[kept]).astype(float)
            np.testing.assert_array_equal(
                draw(x, numbers, **keywords), kept, f"{seed}: {keywords}"
            )


def test_few_cases_are_open(dtype):
    """Where rounding decides, either neighbour is right: on builds with FMA these are not many."""
    limits = limits_of("x86-64-v3")
    is_open, count = 0, 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        n = int(rng.choice([3, 40, 1000]))
        x = (3 * rng.normal(size=(10, n))).astype(dtype)
        rows = drawable(limits, x, **random_filters(rng, n))
        is_open += (rows.least != rows.most).sum()
        count += len(x)
    assert is_open <= 0.02 * count


FILTERS = [
    {},
    {"top_k": 1},
    {"top_k": 20, "temperature": 0.7},
    {"top_p": 0.9},
    {"min_p": 0.05, "temperature": 3.0},
    {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.01},
    {"top_k": 10**9, "top_p": 0.5},
    {"top_p": 0.999, "temperature": INF},
    {"temperature": 0},
]


def mended(x):
    """With a distribution for each row."""
    x = np.where(np.isfinite(x) | (x == -INF), x, 1)
    x[:, 0] = np.where(x[:, 0] == -INF, 0, x[:, 0])
    return x


def rows_in_any_order(n, dtype):
    """Ordinary ones, ascending, descending, equal, with many equal logits, -inf, NaN, +inf."""
    rng = np.random.default_rng(n)
    x = 3 * rng.normal(size=(12, n))
    x[1] = np.arange(n)
    x[2] = -np.arange(n)
    x[3] = 1.5
    x[4] = rng.choice([0.0, -0.0], size=n)
    x[5] = rng.integers(-1, 3, size=n) * rng.choice([1.0, -1.0])
    x[6] = np.arange(n) % 16
    x[7, rng.random(n) < 0.9] = -INF
    x[8, rng.integers(n, size=2)] = 50
    x[9] = np.where(rng.random(n) < 0.01, 7, -7)
    x[10, rng.integers(n, size=2)] = NAN
    x[11, rng.integers(n)] = INF
    return x.astype(dtype)


def test_lengths_of_rows(dtype, limits):
    for turn, n in enumerate(LENGTHS):
        x, axis = LAYOUTS[turn % len(LAYOUTS)](mended(rows_in_any_order(n, dtype)[turn % 3 :: 3]))
        for i in (0, 4):
            keywords = FILTERS[(turn + i) % len(FILTERS)] | {"rng": turn, "size": (2,)[: i // 4]}
            drawn = sample(x, axis, **keywords)
            FUNCTIONS["sample"].hold(drawn, limits, x, axis, **keywords)


def test_masks_and_temperatures_of_rows(dtype, limits):
    for turn, n in enumerate([1, 2, 17, 64, 130, 1000, 4097, 9000]):
        x = mended(rows_in_any_order(n, dtype))
        x[:, 1:] = np.where(masks(len(x), n, 1), x, -INF)[:, 1:]
        where = masks(len(x), n)
        where[:, 0] = True
        temperature = np.resize([1, 0.3, 0, INF, 20, 1e-30, 1e30], len(x))
        for i, layout in enumerate(LAYOUTS):
            some, axis = layout(np.where(where, x, NAN))
            mask, _ = layout(where)
            keywords = FILTERS[(turn + i) % len(FILTERS)] | {
                "rng": turn, "where": mask, "temperature": temperature,
            }  # fmt: skip
            drawn = sample(some, axis, **keywords)
            FUNCTIONS["sample"].hold(drawn, limits, some, axis, **keywords)


# Equal logits.

EQUAL = [1, 2, 3, 8, 15, 16, 17, 64, 100, 129, 1000, 4096, 4097, 8193]


@pytest.mark.parametrize("n", EQUAL)
def test_equal_logits(n, dtype):
    """The first ones are kept, exactly as many as there must be."""
    zeros = np.where(np.arange(n) % 3 == 1, -0.0, 0.0).astype(dtype)
    for x in (zeros, np.full(n, 1e30, dtype), np.full(n, -2.5, dtype)):
        for kept in {1, 2, n // 2, n - 1, n} & {*range(1, n + 1)}:
            numbers = (np.arange(kept) + 0.5) / kept
            first = np.arange(kept)
            np.testing.assert_array_equal(draw(x, numbers, top_k=kept), first)
            for top_p in (kept / n, (kept - 1) / n + 1e-13, (kept - 0.5) / n):
                # Sums of exponentials of 0 are exact, others are rounded.
                if top_p < kept / n or x is zeros:
                    np.testing.assert_array_equal(draw(x, numbers, top_p=top_p), first)
            np.testing.assert_array_equal(draw(x, numbers, top_k=kept, min_p=1), first)
            # A number at a border belongs to what follows.
            if kept & (kept - 1) == 0 and x is zeros:
                numbers = np.arange(kept) / kept
                np.testing.assert_array_equal(draw(x, numbers, top_k=kept), first)


def test_many_equal_logits(dtype):
    """Whose sum in float32 would be off by some classes."""
    x = np.full(300_007, -2.5, dtype)
    x[0] = 0
    p = np.exp(x.astype(LONG))
    numbers = ((p.cumsum() - p / 2) / p.sum()).astype(float)
    np.testing.assert_array_equal(draw(x, numbers), np.arange(len(x)))


def test_a_nucleus_of_equal_logits_whose_sums_are_rounded(dtype):
    """Its end is a product, not a sum of as many terms."""
    for n in (1000, 5000, 100_000):
        for top_p in (0.2, 0.3, 0.5, 0.9):
            x = np.full(n, -2.3, dtype)
            assert draw(x, [LAST], top_p=top_p) == [round(top_p * n) - 1], (n, top_p)


def test_what_is_just_probable_enough():
    """exp(x) is at least min_p in exact arithmetic: the class is kept."""
    for least in np.random.default_rng(0).uniform(0, 1, size=1000):
        x = np.log(least)
        while mpmath.exp(mpmath.mpf(float(x))) < mpmath.mpf(float(least)):
            x = np.nextafter(x, 1)
        assert draw(np.array([0, x]), [LAST], min_p=least) == [1], least


@pytest.mark.parametrize("n", EQUAL[3:])
def test_a_boundary_inside_equal_logits(n, dtype):
    """Some larger ones before, behind and between; of the equal ones the lower indices are kept."""
    rng = np.random.default_rng(n)
    for turn in range(12):
        x = np.zeros(n, dtype)
        larger = np.sort(rng.choice(n, size=min(3, n - 2), replace=False))
        x[larger] = [1, 2, 1][: len(larger)]
        x[rng.choice(n, size=n // 4, replace=False)] -= 1
        x[x == 0] = rng.choice([0.0, -0.0], size=(x == 0).sum())
        order = in_order(x[None])[0]
        equal = np.flatnonzero(x[order] == 0)
        if not equal.size:
            continue
        kept = int(rng.choice(equal)) + 1
        weights = np.exp(x.astype(LONG) - x.max())
        shares = weights[order].cumsum() / weights.sum()
        some = np.sort(order[:kept])
        middle = shares[kept - 1] - 0.5 * weights[order[kept - 1]] / weights.sum()
        e = float(weights[order[kept - 1]])
        for keywords in (
            {"top_k": kept}, {"top_p": float(middle)}, {"top_k": kept, "min_p": e * 0.999},
            {"top_k": kept, "top_p": 1 - 0.1 * e / n},
        ):
            p = weights[some] / weights[some].sum()
            numbers = (p.cumsum() - p / 2).astype(float)
            np.testing.assert_array_equal(draw(x, numbers, **keywords), some, f"{turn}: {keywords}")


@pytest.mark.parametrize("n", [1, 2, 5, 16, 17, 100, 4097, 9000])
def test_the_smallest_filters(n, dtype):
    """top_p of 0 keeps one class; min_p of 1 those that are equal to the most probable."""
    numbers = [0, 0.3, 0.7, LAST]
    for x in mended(rows_in_any_order(n, dtype)):
        first, largest = x.argmax(), np.flatnonzero(x == x.max())
        for keywords in ({"top_p": 0}, {"top_p": 0.0, "min_p": 1}, {"top_k": 1}, {"top_p": 1e-300}):
            assert (draw(x, numbers, **keywords) == first).all()
        numbers_of = (np.arange(len(largest)) + 0.5) / len(largest)
        for keywords in ({"min_p": 1}, {"min_p": 1.0, "temperature": 3.0}):
            np.testing.assert_array_equal(draw(x, numbers_of, **keywords), largest)


def test_filters_that_keep_everything(dtype):
    for n in (1, 2, 17, 130, 1000, 9000):
        x = mended(rows_in_any_order(n, dtype))
        for temperature in (1, 0.4, INF):
            expected = sample(x, rng=n, temperature=temperature, size=50)
            for filters in (
                {"top_k": n}, {"top_k": n + 1}, {"top_k": 2**62}, {"top_p": 1}, {"top_p": True},
                {"min_p": 0}, {"top_k": None, "top_p": 1.0, "min_p": 0.0}, {"where": True},
                {"where": x > -INF}, {"top_k": np.int8(n) if n < 128 else np.uint64(n)},
                {"top_k": n + 5, "top_p": 1.0, "min_p": 5e-324},
            ):  # fmt: skip
                drawn = sample(x, rng=n, temperature=temperature, size=50, **filters)
                np.testing.assert_array_equal(drawn, expected, f"{n}, {temperature}, {filters}")


# What has no probability.

@pytest.mark.parametrize("n", [2, 3, 16, 17, 64, 130, 1000, 4097, 9000])
@pytest.mark.parametrize("keywords", FILTERS[:6], ids=str)
def test_what_has_no_probability_is_never_drawn(n, keywords, dtype):
    """Not even with the smallest or the largest number: at the ends, and in whole blocks."""
    numbers = [0, 5e-324, 1e-17, 0.5, 1 - 1e-15, LAST]
    tiny = 800.0 * max(1, keywords.get("temperature", 1))
    for start, stop in ((0, 1), (n - 1, n), (n // 2, n // 2 + 1), (n // 3, n - n // 3)):
        if start >= stop:
            continue
        inside = np.zeros(n, bool)
        inside[start:stop] = True
        for x, where in (
            (np.where(inside, 1, -INF), None), (np.zeros(n), inside),
            (np.where(inside, 0, -tiny), None), (np.where(inside, -1e4, NAN), inside),
            (np.where(inside, 3e38, -3e38), None),
        ):  # fmt: skip
            drawn = draw(x.astype(dtype), numbers, where=where, **keywords)
            assert inside[drawn].all()
            assert drawn[0] == start
            assert drawn[-1] == stop - 1 or keywords.keys() & {"top_k", "top_p"}


def test_extreme_logits_and_temperatures(dtype, limits):
    largest = float(np.finfo(dtype).max)
    tiny = float(np.finfo(dtype).tiny)
    rng = np.random.default_rng(0)
    for n in (3, 40, 300, 5000):
        x = np.stack([
            rng.choice([-1, 1], n) * largest * rng.random(n), rng.normal(size=n) * tiny,
            rng.normal(size=n) + 1e6, 1e-20 * rng.normal(size=n), rng.normal(size=n) * 1e20,
        ]).astype(dtype)  # fmt: skip
        for temperature in (1.0, 1e-30, 1e30, 1e-38, 1e38, 1e-5):
            for filters in ({}, {"top_k": 9, "top_p": 0.7}, {"min_p": 0.5}):
                keywords = {"temperature": temperature, "rng": n, "size": 4, **filters}
                FUNCTIONS["sample"].hold(sample(x, **keywords), limits, x, **keywords)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0])
def test_rows_without_a_distribution(temperature, dtype):
    """The first such row is named. What is after the NaN, and where it stands, makes no change."""
    for n in (1, 2, 17, 64, 130, 4097, 9000):
        for wrong in (*nans(dtype), INF, -INF):
            x = np.zeros((5, n), dtype)
            if wrong == -INF:
                x[[2, 4]] = wrong
            else:
                x[2, n - 1] = x[4, n // 2] = wrong
            for layout in LAYOUTS:
                some, axis = layout(x)
                for keywords in ({}, {"top_k": 3}, {"top_p": 0.5, "min_p": 0.1}):
                    with pytest.raises(ValueError, match=r"\b2\b"):
                        sample(some, axis, temperature=temperature, **keywords)
            with pytest.raises(ValueError, match=r"\b1, (:, )?0\b"):
                sample(x[:4].reshape(2, 2, n), temperature=temperature)
            with pytest.raises(ValueError, match="distribution"):
                sample(x[2], temperature=temperature)
            if wrong != -INF:    # left out it does nothing
                where = np.isfinite(x)
                where[:, 0] |= n == 1
                drawn = sample(np.nan_to_num(x), rng=0, where=where, temperature=temperature)
                masked = np.where(where, 0, x)
                np.testing.assert_array_equal(
                    sample(masked, rng=0, where=where, temperature=temperature), drawn
                )


def test_rows_of_which_nothing_is_left(dtype):
    for n in (1, 5, 130, 9000):
        where = np.ones((4, n), bool)
        where[1] = False
        for temperature in (1, 0, [1, 0, 1, 1]):
            with pytest.raises(ValueError, match=r"\b1\b"):
                sample(np.zeros((4, n), dtype), where=where, temperature=temperature)


def test_no_classes_and_no_rows(dtype):
    for temperature in (1.0, 0):
        for shape in ((0,), (3, 0)):
            with pytest.raises(ValueError, match="distribution"):
                sample(np.empty(shape, dtype), temperature=temperature)
        for shape, axis, rows in (((0, 3), -1, (0,)), ((0, 0), -1, (0,)), ((2, 4, 0), 1, (2, 0))):
            for size in (None, 2, (3, 1)):
                drawn = sample(np.empty(shape, dtype), axis, size=size, temperature=temperature)
                assert drawn.dtype == np.int64
                assert drawn.shape == (*([] if size is None else np.atleast_1d(size)), *rows)
        for size in (0, (0,), (3, 0)):
            drawn = sample(np.zeros((2, 3), dtype), size=size, temperature=temperature)
            assert drawn.dtype == np.int64
            assert drawn.shape == (*np.atleast_1d(size), 2)


# Numbers that are drawn.

def test_many_draws_are_those_of_single_ones(dtype):
    """With the same numbers, in the order of `size` and rows."""
    for n in (1, 3, 17, 130, 5000):
        x = mended(rows_in_any_order(n, dtype)).reshape(3, 4, n)
        for turn, filters in enumerate(FILTERS):
            numbers = np.random.default_rng(n).random((2, 5, 3, 4))
            drawn = sample(x, rng=n, size=(2, 5), **filters)
            assert drawn.shape == numbers.shape
            for i, j in ((0, 0), (0, 4), (1, turn % 5)):
                one = sample(x, rng=Prescribed(numbers[i, j]), **filters)
                np.testing.assert_array_equal(drawn[i, j], one)
                np.testing.assert_array_equal(
                    sample(x, rng=Prescribed(numbers[i, j]), size=1, **filters), one[None]
                )
            whole = sample(x[0, 1], rng=Prescribed(numbers[1, 2, 0, 1]), **filters)
            assert isinstance(whole, np.int64)
            assert n > 3 or whole == drawn[1, 2, 0, 1]


def test_a_seed_a_generator_or_none(dtype):
    x = some_logits(100, dtype)
    expected = sample(x, rng=np.random.default_rng(5), size=300)
    for rng in (5, np.random.SeedSequence(5), np.random.PCG64(5), np.random.default_rng(5)):
        np.testing.assert_array_equal(sample(x, rng=rng, size=300), expected)
    rng = np.random.default_rng(5)
    parts = [sample(x, rng=rng, size=100) for _ in range(3)]
    np.testing.assert_array_equal(np.concatenate(parts), expected)
    assert (sample(x, size=300) != sample(x, size=300)).any()


def test_a_number_that_is_none_of_the_uniform_ones(dtype):
    """A generator of another class gives 1: the last class is drawn that has a probability."""
    x = np.array([1, 2, -MAX[np.dtype(dtype)] / 2, -MAX[np.dtype(dtype)] / 2], dtype)
    for keywords in ({}, {"top_k": 3}, {"top_p": 0.99}):
        assert draw(x, [1.0], **keywords) == [1]


def test_rows_beyond_memory(dtype):
    """Whose candidates would take more bytes than there are numbers for."""
    for n in (418_593_846_817_550_270, 419_244_183_493_398_901):
        with pytest.raises(MemoryError):
            sample(np.broadcast_to(dtype.type(0), (n,)), top_p=0.5)


def test_as_many_numbers_as_draws(dtype):
    """One for each draw and row, whatever the filters."""
    x = np.tile(some_logits(40, dtype), (2, 3, 1))
    for size, count in ((None, 6), ((), 6), (4, 24), ((4, 5), 120), (0, 0)):
        for keywords in FILTERS[:-1]:
            rng, other = (np.random.default_rng(0) for _ in range(2))
            sample(x, rng=rng, size=size, **keywords)
            other.random(count)
            assert rng.bit_generator.state == other.bit_generator.state


@pytest.mark.parametrize("temperature", [0, 0.0, -0.0, np.float32(0), np.array(0), False])
def test_temperature_0_draws_no_number(temperature, dtype):
    """It gives the first of several maxima."""
    rng = np.random.default_rng(0)
    state = rng.bit_generator.state
    for n in (1, 17, 130, 9000):
        x = mended(rows_in_any_order(n, dtype))
        for keywords in ({}, {"top_k": 3}, {"top_p": 0.1, "min_p": 1}):
            drawn = sample(x, rng=rng, temperature=temperature, **keywords)
            np.testing.assert_array_equal(drawn, x.argmax(-1))
            drawn = sample(x, rng=rng, temperature=temperature, size=(2, 3), **keywords)
            np.testing.assert_array_equal(drawn, np.broadcast_to(x.argmax(-1), (2, 3, len(x))))
    assert rng.bit_generator.state == state


def test_rows_at_temperature_0_beside_others(dtype):
    """They don't change which numbers the others have."""
    for n in (2, 17, 130, 9000):
        x = mended(rows_in_any_order(n, dtype))
        temperature = np.resize([1, 0, 0.5], len(x))
        cold = temperature == 0
        numbers = np.random.default_rng(n).random((7, len(x)))
        drawn = sample(x, temperature=temperature, rng=Prescribed(numbers), size=7)
        np.testing.assert_array_equal(
            drawn[:, cold], np.broadcast_to(x[cold].argmax(-1), (7, cold.sum()))
        )
        others = sample(
            x[~cold], temperature=temperature[~cold], rng=Prescribed(numbers[:, ~cold]), size=7
        )
        np.testing.assert_array_equal(drawn[:, ~cold], others)


def test_arguments_that_are_refused_draw_no_number():
    rng = np.random.default_rng(0)
    state = rng.bit_generator.state
    for keywords in (
        {"top_k": 0}, {"top_k": -1}, {"top_k": 1.5}, {"top_p": 1.1}, {"top_p": NAN},
        {"min_p": -0.1}, {"min_p": "0"}, {"temperature": -1}, {"where": [1]}, {"size": -1},
        {"size": 1.5}, {"axis": 2},
    ):  # fmt: skip
        with pytest.raises((ValueError, TypeError)):
            sample(np.zeros((2, 3)), rng=rng, **keywords)
    assert rng.bit_generator.state == state


# The same for any rows beside, layout, number of threads, type.

@pytest.mark.parametrize("n", [1, 3, 10, 40, 130, 1000])
def test_batches(n, dtype):
    """A row gives the same with the same number, whatever rows it stands beside."""
    x = np.resize(mended(rows_in_any_order(n, dtype)), (1000, n)).copy()
    x[:, 1:] += np.random.default_rng(n).integers(0, 2, size=(1000, 1)).astype(dtype)
    numbers = np.random.default_rng(n).random(1000)
    k, scale = min(n, 7), np.abs(x[x > -INF]).max()
    indices, log_p = top_log_probs(x, k)
    for turn, filters in enumerate(FILTERS):
        everything = sample(x, rng=Prescribed(numbers), **filters)
        for count in (1, 2, 3, 15, 16, 17, 127, 128, 129, 130, 999):
            part = np.s_[turn : turn + count]
            some, axis = LAYOUTS[(turn + count) % len(LAYOUTS)](x[part])
            drawn = sample(some, axis, rng=Prescribed(numbers[part]), **filters)
            np.testing.assert_array_equal(drawn, everything[part])
            if turn == 0:
                first, of_first = top_log_probs(some, k, axis)
                np.testing.assert_array_equal(np.moveaxis(first, axis, -1), indices[part])
                assert_as_promised(np.moveaxis(of_first, axis, -1), log_p[part], scale)


@pytest.mark.parametrize("shape", [(1, 100_003), (3, 30_001), (40, 5000), (3000, 40)], ids=str)
def test_threads(shape, dtype):
    x = mended(np.resize(rows_in_any_order(shape[1], dtype), shape).copy())
    results = []
    try:
        for threads in (1, 2, None):
            csoftmax.set_num_threads(threads)
            some = [sample(x, rng=0, size=3, **filters) for filters in FILTERS]
            some += [part for k in (1, 20, 300) for part in top_log_probs(x, min(k, shape[1]))]
            results.append([one.tobytes() for one in some])
    finally:
        csoftmax.set_num_threads(None)
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize(
    "given", ["float16", BFLOAT16, "bool", "int8", "uint16", "int32", "uint64", ">f4", ">f8"],
    ids=str,
)
def test_types(given):
    x = np.random.default_rng(0).integers(-60, 60, size=(20, 300)) / 8
    given = np.dtype(given)
    x = (np.abs(x) if given.kind == "u" else x).astype(given)
    wide = x.astype(csoftmax.softmax(x).dtype)
    for i, filters in enumerate(FILTERS):
        drawn = sample(x, rng=i, **filters)
        np.testing.assert_array_equal(drawn, sample(wide, rng=i, **filters))
    for k in (1, 5, 300):
        (first, log_p), (right, exact) = top_log_probs(x, k), top_log_probs(wide, k)
        assert log_p.dtype == wide.dtype
        np.testing.assert_array_equal(first, right)
        np.testing.assert_array_equal(log_p, exact)


# The first classes.

def hold_top(x, k, axis=-1, **keywords):
    """Also against log_softmax of contiguous rows."""
    indices, log_p = (np.moveaxis(one, axis, -1) for one in top_log_probs(x, k, axis, **keywords))
    rows = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    if keywords.get("where") is not None:
        where = np.broadcast_to(keywords["where"], x.shape)
        keywords["where"] = np.moveaxis(where, axis, -1)
    right = in_order(np.where(keywords.get("where", True), rows, -INF))[..., :k]
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(indices, right)
    everything = csoftmax.log_softmax(rows, **keywords)
    assert log_p.dtype == everything.dtype
    np.testing.assert_array_equal(log_p, np.take_along_axis(everything, indices, -1))


def test_the_first_classes(dtype):
    """Of rows of every length, in all layouts; also without a softmax, whose order is kept."""
    for turn, n in enumerate(LENGTHS):
        rows = rows_in_any_order(n, dtype)
        for i, k in enumerate(sorted({1, 2, 5, 20, 64, 65, n // 2, n - 1, n} & {*range(1, n + 1)})):
            layout = LAYOUTS[(turn + i) % len(LAYOUTS)] if i % 3 == 0 else contiguous
            some = rows if n < 5000 or k < 100 else rows[turn % 5 :: 5]
            hold_top(*(layout(some)[0], k, layout(some)[1]))


def test_the_first_classes_of_rows_side_by_side(dtype):
    """As many as vectors hold, and some that are left: as of contiguous rows."""
    for n in (5, 64, 300, 4097, 4099, 4112, 8199):
        for count in (2, 12, 17, 40, 100):
            x = np.resize(rows_in_any_order(n, dtype), (count, n))
            for k in (1, 5):
                hold_top(np.ascontiguousarray(x.T), k, 0)


def test_the_first_classes_at_temperatures_and_of_masks(dtype):
    """The order is that of logits, also where all or all but one have the same probability."""
    for n in (1, 2, 17, 64, 130, 1000, 4097, 9000):
        x = rows_in_any_order(n, dtype)
        where = masks(len(x), n)
        temperature = np.resize([1, 0.3, 0, INF, 20, 1e-30, 1e30], len(x))
        for k in {1, min(n, 6), n}:
            for one in (0, INF, 0.7, temperature):
                hold_top(x, k, temperature=one)
                hold_top(x, k, temperature=one, where=where)
            for axis in (0, -1):
                hold_top(x[:, :12], min(k, 12, n), axis, where=where[:, :1])


def test_the_first_classes_of_one_row(dtype):
    """No axis is left of the rows; k is any integer."""
    x = np.array([0, 2, 1, 2, -INF], dtype)
    for k in (3, np.int8(3), np.uint64(3), np.array(3)):
        indices, log_p = top_log_probs(x, k)
        np.testing.assert_array_equal(indices, [1, 3, 2])
        np.testing.assert_array_equal(log_p, csoftmax.log_softmax(x)[[1, 3, 2]])
    x[:] = np.where(np.arange(5) == 2, -0.0, 0.0)
    np.testing.assert_array_equal(top_log_probs(x, 5)[0], range(5))
    np.testing.assert_array_equal(top_log_probs(x, 5, where=np.arange(5) > 1)[0], [2, 3, 4, 0, 1])


def test_signalling_and_negative_nans(dtype):
    """None is taken for a large number."""
    for n in (6, 40, 300, 9000):
        x = np.random.default_rng(n).normal(size=(6, n)).astype(dtype)
        x[:, n // 3] = x[::-1, n - 2] = nans(dtype)
        for k in (1, 6, n):
            hold_top(x, min(k, n))


def hold_long_row(x, limits):
    """By partition, which is faster than to sort it."""
    n = len(x)
    for k in (1, 20, 1000):
        indices, log_p = top_log_probs(x, k)
        kth = np.partition(x, n - k)[n - k]
        some = np.flatnonzero(x >= kth)
        np.testing.assert_array_equal(indices, some[in_order(x[None, some])[0]][:k])
        np.testing.assert_array_equal(log_p, csoftmax.log_softmax(x)[indices])
    for filters in (FILTERS[0], FILTERS[5]):
        keywords = filters | {"rng": n, "size": 20}
        FUNCTIONS["sample"].hold(sample(x, **keywords), limits, x, **keywords)


def test_a_row_of_a_million(dtype, limits):
    x = 3 * np.random.default_rng(0).standard_normal(1_000_000).astype(dtype)
    hold_long_row(x, limits)
    hold_long_row(np.rint(x), limits)


@pytest.mark.large
def test_a_row_of_ten_million(dtype, limits):
    hold_long_row(3 * np.random.default_rng(0).standard_normal(10_000_000).astype(dtype), limits)
