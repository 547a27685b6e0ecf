"""Dask arrays: lazy, the same as NumPy arrays, rows in several chunks, real workers."""

import dask
import dask.array as da
import numpy as np
import pytest

import csoftmax
from csoftmax import cross_entropy, cross_entropy_value_and_grad, log_softmax, logsumexp, softmax

from .exact import LONG, Exact, largest_error
from .functions import CALLS, operands_of
from .helpers import USABLE, best_build, run_checked

SHAPE = (4, 5, 6)
AXES = [-1, 0, 1, (0, 2), None]
CHUNKS = [(2, 3, 4), ((3, 1), (1, 4), (1, 5))]
GRADIENTS = ("cross_entropy_value_and_grad", "softmax_vjp", "log_softmax_vjp")
RNG = np.random.default_rng(0)
LOGITS = 4 * RNG.normal(size=SHAPE)


@pytest.fixture(autouse=True)
def in_this_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


def lazy(array, chunks, whole=()):
    """In these chunks if it has the shape of logits, but for the axes `whole`; in pairs if not."""
    if array.shape == SHAPE:
        return da.from_array(array, chunks).rechunk(dict.fromkeys(whole, -1))
    return da.from_array(array, 2)


def assert_close(result, expected, is_gradient=False, dtype=None):
    """To 4 ULP of themselves, or of the largest gradient, in the type of the computation."""
    if expected.dtype.kind == "i":
        np.testing.assert_array_equal(result, expected)
        return
    limit = 4 * np.finfo(expected.dtype if dtype is None else dtype).eps
    finite = np.abs(np.where(np.isfinite(expected), expected, 0))
    atol = limit * finite.max(initial=0) if is_gradient else 0
    np.testing.assert_allclose(result, expected, rtol=limit, atol=atol)


def axes_of(axis):
    return tuple(range(3)) if axis is None else tuple(int(i) for i in np.atleast_1d(axis) % 3)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("name", CALLS)
def test_same_as_of_numpy_arrays(name, axis, dtype):
    """To a few bits: blocks have other shapes, and sums another order."""
    call = CALLS[name]
    if not isinstance(axis, int) and not call.takes_several_axes:
        return
    operands = operands_of(call.operands, SHAPE, dtype, axis, extreme_temperatures=True)
    whole = axes_of(axis) if call.takes_axis else ()
    made = {name: lazy(array, CHUNKS[0], whole) for name, array in operands.items()}
    for result, expected in zip(call(made, axis), call(operands, axis), strict=True):
        assert isinstance(result, da.Array)
        assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
        computed = np.asarray(result.compute())
        assert (computed.shape, computed.dtype) == (expected.shape, expected.dtype)
        assert_close(computed, expected, call.name in GRADIENTS, dtype)


@pytest.mark.parametrize("name", CALLS)
def test_nothing_is_computed_before_it_is_asked_for(name):
    def not_yet(block):
        raise AssertionError("computed")

    call = CALLS[name]
    operands = operands_of(call.operands, SHAPE, np.dtype(np.float32))
    made = {
        name: lazy(array, (2, 3, 6)).map_blocks(not_yet, meta=array[:0], dtype=array.dtype)
        for name, array in operands.items()
    }
    for result in call(made):
        with pytest.raises(AssertionError, match="computed"):
            result.compute()


@pytest.mark.parametrize("name", CALLS)
def test_one_lazy_array_is_enough(name, dtype):
    """Whichever it is; the others are NumPy arrays."""
    call = CALLS[name]
    operands = operands_of(call.operands, SHAPE, dtype)
    expected = call(operands)
    for which in operands:
        made = operands | {which: lazy(operands[which], (2, 3, 6), whole=(2,))}
        for result, one in zip(call(made), expected, strict=True):
            assert isinstance(result, da.Array)
            assert_close(result.compute(), one, call.name in GRADIENTS, dtype)


def test_losses_and_gradients_are_computed_together():
    calls = []

    def count(block):
        calls.append(block.shape)
        return block

    logits = lazy(LOGITS, (2, 5, 6)).map_blocks(count, dtype=LOGITS.dtype, meta=LOGITS[:0])
    dask.compute(*cross_entropy_value_and_grad(logits, np.zeros((4, 5), int)))
    assert calls == [(2, 5, 6)] * 2


@pytest.mark.parametrize("function", [softmax, log_softmax])
def test_unknown_lengths(function):
    logits = lazy(LOGITS, (2, 5, 6))
    some = logits[logits[:, 0, 0] > 0]
    temperature = da.from_array(RNG.uniform(0.5, 2, size=4), 2)[logits[:, 0, 0] > 0]
    expected = LOGITS[LOGITS[:, 0, 0] > 0]
    np.testing.assert_array_equal(function(some).compute(), function(expected))
    np.testing.assert_array_equal(
        function(some, temperature=temperature[:, None]).compute(),
        function(expected, temperature=temperature.compute()[:, None]),
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses_of_unknown_lengths(reduction):
    logits, target = LOGITS[:, 0], np.array([1, -100, 5, 0])
    shares = softmax(LOGITS[:, 1])
    weight = np.arange(6.0)
    counts = logits[:, 0] > -3
    some = da.from_array(logits, (2, 6))
    some = some[some[:, 0] > -3]
    for targets in (target, shares):
        lazy_targets = da.from_array(targets, 2)[da.from_array(counts, 2)]
        for keywords in ({}, {"weight": weight}, {"weight": da.from_array(weight, 4)}):
            lazily = cross_entropy(some, lazy_targets, reduction=reduction, **keywords)
            keywords = dict.fromkeys(keywords, weight)
            expected = cross_entropy(
                logits[counts], targets[counts], reduction=reduction, **keywords
            )
            np.testing.assert_allclose(lazily.compute(), expected, rtol=5e-16)


def test_chunks_without_numbers():
    """As they are left by a selection."""
    logits = LOGITS[:1, 0]
    made = da.from_array(logits, ((0, 1), 6))
    for reduction in ("mean", "sum", "none"):
        expected = cross_entropy(logits, [3], reduction=reduction)
        assert_close(cross_entropy(made, [3], reduction=reduction).compute(), expected)
    for where in (logits > 0, da.from_array(logits > 0, ((1, 0), 6))):
        assert_close(softmax(made, where=where).compute(), softmax(logits, where=logits > 0))
    assert_close(cross_entropy(da.zeros((0, 3)), [], reduction="sum").compute(), np.float64(0))


def test_unknown_lengths_beside_others():
    """Dask would repeat the one block beside the several, whatever their lengths."""
    x = da.from_array(LOGITS[0, 0], 6)
    weight = da.from_array(np.ones(6), 2)
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        csoftmax.binary_cross_entropy(x[x > -99], x[x > -99] > 0, weight=weight[weight > 0])


def test_rows_of_unknown_length():
    x = da.from_array(LOGITS[0], (5, 6))[:, da.from_array(LOGITS[0, 0] > 0, 6)]
    expected = LOGITS[0][:, LOGITS[0, 0] > 0]
    assert_close(softmax(x).compute(), softmax(expected))
    assert_close(logsumexp(x, keepdims=True).compute(), logsumexp(expected, keepdims=True))
    weight = np.arange(1.0, 1 + expected.shape[1])
    for keywords in ({}, {"weight": weight}):
        result = csoftmax.nll_loss(x, np.zeros(5, int), **keywords)
        assert_close(result.compute(), csoftmax.nll_loss(expected, np.zeros(5, int), **keywords))


def test_numpy_arrays_are_one_chunk():
    """However large: chunks that Dask would choose could cut rows."""
    target = da.from_array(np.zeros((4, 5), int), 2)
    with dask.config.set({"array.chunk-size": "64B"}):
        result = cross_entropy(LOGITS, target).compute()
    assert_close(result, cross_entropy(LOGITS, target.compute()))


def test_masked_arrays_in_a_list_are_refused():
    """NumPy computes them, and reads them without their masks."""
    masked = da.ma.masked_array(da.from_array(LOGITS[0]), LOGITS[0] > 0)
    for x in ([masked], [[masked], [masked]], (LOGITS[0], masked)):
        for where in (None, da.ones(1, dtype=bool)):
            with pytest.raises(TypeError, match="x is masked"):
                softmax(x, where=where)
    right = softmax([LOGITS[0]] * 2)
    np.testing.assert_array_equal(softmax([da.from_array(LOGITS[0])] * 2), right)


def test_wrong_labels_say_what_to_write():
    logits = da.zeros((2, 3))
    for target, error, message in (
        ([0, 2**63], IndexError, r"target\[1\] is 9223372036854775808, but classes are"),
        ([True, False], TypeError, r"got bool of .*: np\.asarray\(target\)\.astype\(int\)"),
        (da.ones(2), TypeError, r"got float64 of .*: target\.astype\(int\)"),
        ([[0], [1]], ValueError, r": np\.squeeze\(target, 1\)"),
    ):
        with pytest.raises(error, match=message):
            cross_entropy(logits, target)
    with pytest.raises(TypeError, match=r"object from list: np\.asarray\(temperature, float\)"):
        softmax(logits, temperature=[2**64, 1])
    with pytest.raises(TypeError, match=r"got object from list: np\.asarray\(weight, float\)"):
        cross_entropy(logits, [0, 1], weight=[2**64, 1, 1])


def test_masked_blocks_are_refused():
    """Whole rows and parts of them, masked themselves or by such a mask."""
    masked = da.ma.masked_array(da.from_array(LOGITS, (2, 5, 3)), LOGITS > 0)
    everything = da.ones(SHAPE, dtype=bool, chunks=masked.chunks)
    masked_mask = da.ma.masked_array(everything, LOGITS > 0)
    plain = da.from_array(LOGITS, (2, 5, 3))
    for x, where in ((masked, None), (masked, everything), (plain, masked_mask)):
        for function in (softmax, log_softmax, logsumexp):
            for one in (x, x.rechunk({2: -1})):
                with pytest.raises(TypeError, match="is masked"):
                    function(one, where=where).compute()


def test_targets_that_are_probabilities_are_not_kept():
    """Their number is known: no block of them is needed before the gradients are computed."""
    logits = da.from_array(LOGITS, (1, 5, 6))
    for target, needs_blocks in ((softmax(logits), False), (da.zeros((4, 5), dtype=int), True)):
        _, grad = cross_entropy_value_and_grad(logits, target)
        names = [name for name in grad.dask.layers if name.startswith("number_of_block")]
        assert bool(names) == needs_blocks


# From logits to classes

FILTERS = [
    {}, {"temperature": 0.5, "top_k": 3}, {"top_p": 0.8, "min_p": 0.05}, {"temperature": 0},
    {"where": LOGITS > -2, "temperature": "rows"},
]  # fmt: skip


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("keywords", FILTERS, ids=lambda keywords: "-".join(keywords) or "all")
def test_the_same_draws(keywords, axis, chunks, dtype):
    """Of the same seed, whatever the chunks; also where masks and temperatures are lazy."""
    logits = LOGITS.astype(dtype)
    forms = [keywords]
    if "where" in keywords:
        rows = np.moveaxis(LOGITS, axis, -1)[..., 0]
        keywords = keywords | {"temperature": np.where(rows > 0, 0.7, 0)}
        whole = axes_of(axis)
        forms = [keywords, {name: lazy(one, chunks, whole) for name, one in keywords.items()}]
    made = lazy(logits, chunks, whole=axes_of(axis))
    for size in (None, 3, (2, 4), (3, 0)):
        expected = csoftmax.sample(logits, axis, size=size, rng=5, **keywords)
        for given in forms:
            result = csoftmax.sample(made, axis, size=size, rng=5, **given)
            assert isinstance(result, da.Array)
            assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
            np.testing.assert_array_equal(result.compute(), expected)


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_the_same_first_classes(axis, chunks, dtype):
    logits = LOGITS.astype(dtype).round(0)    # among which are equal ones
    made = lazy(logits, chunks, whole=axes_of(axis))
    for k in (1, np.int8(2), SHAPE[axis]):
        for keywords in ({}, {"temperature": 0}, {"where": LOGITS > -2, "temperature": 0.5}):
            expected = csoftmax.top_log_probs(logits, k, axis, **keywords)
            results = csoftmax.top_log_probs(made, k, axis, **keywords)
            for result, right in zip(results, expected, strict=True):
                assert isinstance(result, da.Array)
                assert (result.shape, result.dtype) == (right.shape, right.dtype)
                assert result.compute().dtype == right.dtype
                if right.dtype == np.int64:
                    np.testing.assert_array_equal(result.compute(), right)
                else:
                    assert_close(result.compute(), right)


def test_draws_from_one_row():
    made, row = da.from_array(LOGITS[0, 0], 6), LOGITS[0, 0]
    for size in (None, 5):
        drawn = csoftmax.sample(made, rng=3, size=size).compute()
        np.testing.assert_array_equal(drawn, csoftmax.sample(row, rng=3, size=size))
    indices, _ = csoftmax.top_log_probs(made, 2)
    np.testing.assert_array_equal(indices.compute(), csoftmax.top_log_probs(row, 2)[0])


def test_random_numbers_are_drawn_at_the_call():
    """So a second computation gives the same, and calls follow one another as without Dask."""
    rng, other = np.random.default_rng(1), np.random.default_rng(1)
    made = da.from_array(LOGITS, (2, 3, 6))
    results = [csoftmax.sample(made, rng=rng, size=size) for size in (None, 2)]
    assert rng.random() == other.random(4 * 5 * 3 + 1)[-1]
    other = np.random.default_rng(1)
    expected = [csoftmax.sample(LOGITS, rng=other, size=size) for size in (None, 2)]
    for result, right in zip(reversed(results), reversed(expected), strict=True):
        for _ in range(2):
            np.testing.assert_array_equal(result.compute(), right)
    rng, other = np.random.default_rng(1), np.random.default_rng(1)
    for keywords in ({"temperature": 0}, {"temperature": np.zeros(()), "size": 3}, {"size": 0}):
        csoftmax.sample(made, rng=rng, **keywords).compute()
    with pytest.raises(ValueError, match="rechunk"):
        csoftmax.sample(made.rechunk(3), rng=rng)
    assert rng.random() == other.random()
    both = csoftmax.sample(made), csoftmax.sample(made)    # None: others each time
    assert (both[0] != both[1]).any().compute()


def test_rows_and_classes_of_unknown_number():
    made = da.from_array(LOGITS[0], (2, 6))
    some = made[made[:, 0] > 0]
    for keywords in ({}, {"temperature": 0}, {"size": 0}):
        with pytest.raises(ValueError, match=r"logits\.compute_chunk_sizes\(\)"):
            csoftmax.sample(some, **keywords)
    known = LOGITS[0][LOGITS[0, :, 0] > 0]
    for result, right in zip(
        csoftmax.top_log_probs(some, 2), csoftmax.top_log_probs(known, 2), strict=True
    ):
        assert_close(result.compute(), right, dtype=LOGITS.dtype)
    drawn = csoftmax.sample(some.compute_chunk_sizes(), rng=0)
    np.testing.assert_array_equal(drawn.compute(), csoftmax.sample(known, rng=0))

    counts = LOGITS[0, 0] > 0
    classes, known = made.rechunk((2, 6))[:, da.from_array(counts, 6)], LOGITS[0][:, counts]
    drawn = csoftmax.sample(classes, rng=0, size=2)
    np.testing.assert_array_equal(drawn.compute(), csoftmax.sample(known, rng=0, size=2))
    indices, _ = csoftmax.top_log_probs(classes, 1)
    np.testing.assert_array_equal(indices.compute(), csoftmax.top_log_probs(known, 1)[0])
    with pytest.raises(ValueError, match=f"at most {counts.sum()}, the number of classes"):
        csoftmax.top_log_probs(classes, 6)[0].compute()


# Rows in several chunks

def limits_of_parts(limits, dtype, has_temperature):
    """The contract's of whole rows, half a ULP more in float32, three times them in float64."""
    suffix = " with temperature" if has_temperature else ""
    of_softmax, of_log = limits[f"softmax{suffix}"], limits[f"log{suffix}"]
    if dtype == np.float32:
        return of_softmax + 0.5, of_log + 0.5
    return 3 * of_softmax, 3 * of_log


KINDS = {
    "normal": lambda n: RNG.normal(size=n),
    "spread": lambda n: 30 * RNG.normal(size=n),
    "large": lambda n: 30 * RNG.normal(size=n) - 1e6,
    "one class": lambda n: np.where(np.arange(n[-1]) == n[-1] // 3, 20, RNG.normal(size=n)),
    "ascending": lambda n: np.sort(30 * RNG.normal(size=n)),
}


@pytest.mark.parametrize("temperature", [None, 0.3, "rows"])
@pytest.mark.parametrize("chunk", [1, 7, 60])
@pytest.mark.parametrize("kind", KINDS)
@best_build
def test_rows_in_several_chunks(kind, chunk, temperature, dtype, build, limits):
    """As many chunks as show how their sums come together, which is done in NumPy."""
    x = KINDS[kind]((20, {1: 12, 7: 40, 60: 100}[chunk])).astype(dtype)
    made = da.from_array(x, (12, chunk))
    keywords = {}
    if temperature == "rows":
        keywords["temperature"] = RNG.uniform(0.1, 10, size=20)
    elif temperature is not None:
        keywords["temperature"] = temperature
    exact = Exact(x, keywords.get("temperature", 1.0))
    of_softmax, of_log = limits_of_parts(limits, dtype, bool(keywords))
    result = softmax(made, **keywords)
    assert result.chunks == made.chunks
    assert largest_error(result.compute(), exact.softmax, dtype) <= of_softmax
    scaled = np.abs(x.astype(LONG)) / np.reshape(keywords.get("temperature", 1.0), (-1, 1))
    terms = np.maximum(np.abs(exact.log_softmax), scaled)
    result = log_softmax(made, **keywords)
    assert result.chunks == made.chunks
    assert largest_error(result.compute(), exact.log_softmax, dtype, terms) <= of_log
    if not keywords:
        terms = np.maximum(np.abs(exact.logsumexp), np.abs(exact.maximum))
        assert largest_error(logsumexp(made).compute(), exact.logsumexp, dtype, terms) <= of_log


@pytest.mark.parametrize("temperature", [1.0, 0.0, np.inf])
@pytest.mark.parametrize("function", [softmax, log_softmax, logsumexp])
def test_special_rows_in_several_chunks(function, temperature, dtype):
    """Every row of six that consists of some of these, unmasked and with a mask."""
    numbers = np.array([0, 1, -np.inf, np.inf, np.nan])
    rows = np.stack(np.meshgrid(*[numbers] * 4), -1).reshape(-1, 4)
    x = rows[:, [0, 0, 1, 2, 2, 3]].astype(dtype)
    mask = RNG.random(x.shape) < 0.6
    mask[:100] = False
    keywords = {} if function is logsumexp else {"temperature": temperature}
    for where in (None, mask):
        expected = function(x, where=where, **keywords)
        for chunks in ((1,) * 6, (2, 2, 2), (0, 1, 5, 0)):
            made = da.from_array(x, (-1, chunks))
            result = function(made, where=where, **keywords).compute()
            assert_close(result, expected)


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize(
    "name",
    [name for name, call in CALLS.items() if call.name in ("softmax", "log_softmax")]
    + ["logsumexp", "logsumexp, mask"],
)
def test_any_axes_in_several_chunks(name, axis, chunks, dtype):
    call = CALLS[name]
    operands = operands_of(call.operands, SHAPE, dtype, axis)
    made = {name: lazy(array, chunks) for name, array in operands.items()}
    (result,), (expected,) = call(made, axis), call(operands, axis)
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
    scale = np.abs(np.where(np.isfinite(expected), expected, 0)).max()
    atol = 0 if name.startswith("softmax") else 6 * np.finfo(dtype).eps * scale
    np.testing.assert_allclose(
        result.compute(), expected, rtol=12 * np.finfo(dtype).eps, atol=atol
    )


def test_temperature_0_without_a_tie_of_blocks():
    for x in (np.full((4, 6), -np.inf), np.full((4, 6), np.inf), np.arange(24.0).reshape(4, 6)):
        expected = softmax(x, None, temperature=0)
        assert_close(softmax(da.from_array(x, 2), None, temperature=0).compute(), expected)
    x = np.zeros((4, 6))    # whose parts follow one another
    result = softmax(da.from_array(x, (2, 6)), None, temperature=0)
    assert_close(result.compute(), softmax(x, None, temperature=0))


def test_no_block_has_a_whole_row():
    lengths = []

    def note(function):
        def noted(x, *args, **keywords):
            lengths.append(np.shape(x))
            return function(x, *args, **keywords)

        return noted

    x = da.from_array(RNG.normal(size=(3, 1000)), (-1, 100))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csoftmax._softmax, "softmax", note(softmax))
        csoftmax._dask.softmax(csoftmax._softmax.softmax, x, -1, 1.0, None, None).compute()
    assert set(lengths) == {(3, 100), (3, 10)}    # its chunks, and one number of each of them


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("axis", AXES)
def test_keepdims(axis, chunks, keepdims):
    result = logsumexp(lazy(LOGITS, chunks), axis, keepdims=keepdims)
    expected = logsumexp(LOGITS, axis, keepdims=keepdims)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result.compute(), expected, rtol=1e-15)


THREADS_OF_BLOCKS = """
import dask, dask.array as da, numpy as np, csoftmax
from csoftmax import _dask

def threads(block):
    return np.full(block.shape, csoftmax.get_num_threads())

def in_blocks(scheduler):
    x = da.zeros(8, chunks=1)
    lazy = _dask.by_blocks(threads, (0,), [x], [(0,)], int)
    return set(lazy.compute(scheduler=scheduler))

csoftmax.set_num_threads({threads})
default = csoftmax.get_num_threads()
print(*(in_blocks(scheduler) == {{{expected}}} for scheduler in ("threads", "synchronous")))
assert csoftmax.get_num_threads() == default
"""


@pytest.mark.parametrize(
    ("threads", "expected", "environment"),
    [
        (None, "1", {}),
        (2, "default", {}),
        (None, "default", {"CSOFTMAX_NUM_THREADS": "2"}),
        (None, "default", {"OMP_NUM_THREADS": "2"}),
    ],
)
def test_blocks_use_one_thread_each(threads, expected, environment, monkeypatch):
    """Or as many as were asked for."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    script = THREADS_OF_BLOCKS.format(threads=threads, expected=expected)
    assert run_checked(script, **environment).split() == ["True", "True"]


# Errors: at once where they are known, else when the block is computed.

ROWS = da.from_array(LOGITS, (2, 5, 6))
PARTS = da.from_array(LOGITS, (2, 5, 3))
TARGET = da.zeros((4, 5), dtype=int, chunks=2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: softmax(ROWS, 3), np.exceptions.AxisError, "axis 3"),
        (lambda: softmax(ROWS, "a"), TypeError, "axis must be"),
        (lambda: softmax(ROWS, out=LOGITS), TypeError, "out must be None"),
        (lambda: softmax(ROWS.astype(complex)), TypeError, "got complex128"),
        (lambda: softmax(ROWS, where=ROWS), TypeError, "where must be an array of bool"),
        (lambda: softmax(ROWS, where=ROWS[:, :2] > 0), ValueError, r"where of shape \(4, 2, 6\)"),
        (lambda: softmax(ROWS, temperature=-1), ValueError, "at least 0"),
        (lambda: softmax(ROWS, temperature=ROWS), ValueError, "temperature of shape"),
        (lambda: softmax(ROWS, temperature=TARGET * 1j), TypeError, "temperature must be a real"),
        (lambda: csoftmax.entropy(PARTS), ValueError, r"logits\.rechunk\(\{2: -1\}\)"),
        (lambda: csoftmax.softmax_vjp(ROWS, PARTS), ValueError, r"y\.rechunk\(\{2: -1\}\)"),
        (lambda: csoftmax.softmax_jacobian(PARTS), ValueError, r"y\.rechunk\(\{2: -1\}\)"),
        (lambda: cross_entropy(PARTS, TARGET), ValueError, r"logits\.rechunk\(\{2: -1\}\)"),
        (lambda: csoftmax.nll_loss(PARTS, TARGET), ValueError, r"log_probs\.rechunk"),
        (lambda: csoftmax.kl_divergence(PARTS, PARTS), ValueError, r"logits\.rechunk\(\{2: -1\}\)"),
        (lambda: csoftmax.kl_divergence(ROWS, TARGET), ValueError, "the shape of the logits"),
        (lambda: csoftmax.top_log_probs(PARTS, 2), ValueError, r"logits\.rechunk\(\{2: -1\}\)"),
        (lambda: csoftmax.top_log_probs(ROWS, 7), ValueError, "k must be at least 1 and at most 6"),
        (lambda: csoftmax.top_log_probs(ROWS, 2.0), TypeError, "k must be an integer"),
        (lambda: csoftmax.top_log_probs(ROWS, 2, None), TypeError, "axis must be an integer"),
        (lambda: csoftmax.sample(PARTS), ValueError, r"logits\.rechunk\(\{2: -1\}\)"),
        (lambda: csoftmax.sample(ROWS, 3), np.exceptions.AxisError, "axis 3"),
        (lambda: csoftmax.sample(ROWS, top_k=0), ValueError, "or None for all classes; got 0"),
        (lambda: csoftmax.sample(ROWS, top_p=1.5), ValueError, r"top_p must be in \[0, 1\]"),
        (lambda: csoftmax.sample(ROWS, min_p=-1), ValueError, r"min_p must be in \[0, 1\]"),
        (lambda: csoftmax.sample(ROWS, size=-1), ValueError, "size must be at least 0"),
        (lambda: csoftmax.sample(ROWS, rng="a"), TypeError, None),
        (lambda: csoftmax.sample(ROWS, where=ROWS), TypeError, "where must be an array of bool"),
        (lambda: csoftmax.sample(ROWS, temperature=TARGET[:2]), ValueError, "temperature of shape"),
        (lambda: cross_entropy(ROWS, TARGET[:2]), ValueError, r"shape \(4, 5\), or probabilities"),
        (lambda: cross_entropy(ROWS, TARGET * 1.0), TypeError, "target must be class indices"),
        (lambda: csoftmax.nll_loss(ROWS, ROWS), ValueError, "target must be class indices"),
        (lambda: cross_entropy(ROWS, ROWS * 1j), TypeError, "target must be float32"),
        (lambda: cross_entropy(ROWS, ROWS, ignore_index=3), ValueError, "ignore_index is of no"),
        (lambda: cross_entropy(ROWS, TARGET, reduction="all"), ValueError, "reduction must be"),
        (lambda: cross_entropy(ROWS, TARGET, weight=[1, 2]), ValueError, "weight must have"),
        (lambda: cross_entropy(ROWS, TARGET, weight=da.ones(5)), ValueError, "weight must have"),
        (lambda: cross_entropy(ROWS, TARGET, label_smoothing=2), ValueError, "label_smoothing"),
        (
            lambda: csoftmax.binary_cross_entropy(ROWS, TARGET), ValueError,
            "target must have the shape of the logits",
        ),
        (
            lambda: csoftmax.softmax_vjp(TARGET, ROWS), ValueError, "grad must have the shape of y",
        ),
    ],
)  # fmt: skip
def test_errors_at_once(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: softmax(ROWS, temperature=-ROWS[..., 0]), ValueError, "at least 0"),
        (lambda: cross_entropy(ROWS, TARGET + 6), IndexError, "is 6, but classes are 0 to 5"),
        (
            lambda: csoftmax.sample(da.where(LOGITS[3, 1, 2] == ROWS, np.nan, ROWS)), ValueError,
            r"row \(1, 1\) of a block of logits: a logit is nan",
        ),
        (    # of another length than it says
            lambda: csoftmax.sample(ROWS.map_blocks(lambda block: block[:1], meta=LOGITS[:0])),
            ValueError, r"numbers of shape \(1, 5\), got \(2, 5\)",
        ),
        (lambda: softmax(da.zeros((4, 4), chunks=2), None, temperature=0), ValueError, "rechunk"),
        (lambda: softmax(da.zeros((4, 4), chunks=2), (0, 1), temperature=0), ValueError, "chunks"),
    ],
)  # fmt: skip
def test_errors_of_blocks(call, error, message):
    result = call()
    with pytest.raises(error, match=message):
        result.compute()


# Workers in processes of their own.

ON_A_CLUSTER = """
import numpy as np, dask, dask.array as da, csoftmax
from dask.distributed import Client, LocalCluster

def results(x, parts):
    return [
        csoftmax.softmax(x), csoftmax.log_softmax(parts),
        csoftmax.softmax(x, temperature=np.linspace(0.5, 2, len(x)), where=x > -1),
        csoftmax.cross_entropy(x, np.arange(600)),
        *csoftmax.cross_entropy_value_and_grad(x, np.arange(600), temperature=0.5),
        *csoftmax.top_log_probs(x, 20), csoftmax.sample(x, top_p=0.9, rng=0, size=2),
    ]

x = np.random.default_rng(0).normal(size=(600, 1000))
lazy = results(da.from_array(x, (100, -1)), da.from_array(x, (100, 300)))
with LocalCluster(
    n_workers=2, threads_per_worker=1, dashboard_address=None, env={environment}
) as cluster, Client(cluster) as client:
    configs = client.run(lambda: __import__("csoftmax").show_config("dicts")).values()
    for result, expected in zip(client.compute(lazy, sync=True), results(x, x), strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-14)
assert len(configs) == 2
print({{(config["isa"], config["num_threads"]) for config in configs}})
"""


@pytest.mark.parametrize(
    "environment", [{}, {"OMP_NUM_THREADS": "2", "CSOFTMAX_NUM_THREADS": "1"}]
)
def test_workers_use_one_thread(environment):
    """Dask sets OMP_NUM_THREADS=1 for workers that it starts, or a variable of ours asks for it."""
    output = run_checked(ON_A_CLUSTER.format(environment=environment))
    assert output.strip() == str({(csoftmax.show_config("dicts")["isa"], 1)})


@pytest.mark.parametrize("isa", USABLE)
def test_workers_choose_their_own_build(isa):
    """What is sent to them names no build: their CPU may be another."""
    assert isa in run_checked(ON_A_CLUSTER.format(environment={"CSOFTMAX_ISA": isa}))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses_of_one_row(reduction):
    """The block of its losses is a scalar."""
    logits = np.float32([2, 1, 0.1])
    lazy = da.from_array(logits)
    loss = csoftmax.cross_entropy(lazy, 0, reduction=reduction)
    assert loss.compute() == csoftmax.cross_entropy(logits, 0, reduction=reduction)
    loss = csoftmax.binary_cross_entropy(da.asarray(2.0), 1.0, reduction=reduction)
    assert loss.compute() == csoftmax.binary_cross_entropy(2.0, 1.0, reduction=reduction)


@pytest.mark.parametrize("axis", [-1, 1, (0, 2), None])
@pytest.mark.parametrize("keepdims", [False, True])
def test_weighted_sums_of_rows_that_chunks_cut(axis, keepdims, dtype):
    """Of each part a logarithm and a sign are brought together; NaN and infinities too."""
    rng = np.random.default_rng(0)
    x, b = rng.normal(size=(2, 4, 5, 6)).astype(dtype)
    x[0, 0, 0], x[1, 1, 1], x[2, 2] = np.nan, np.inf, -np.inf
    b[0, 0, 0], b[1, :2, 1], b[3, :, :3] = 0, -1, 0
    keywords = {"axis": axis, "keepdims": keepdims, "return_sign": True}
    where = rng.random((4, 1, 6)) < 0.7
    for weights in (b, b[0, 0], -2, None):
        for mask in (None, where):
            expected = logsumexp(x, b=weights, where=mask, **keywords)
            for chunks in ((2, 2, 4), (4, 5, 6)):
                cut = da.from_array(x, chunks)
                results = logsumexp(cut, b=weights, where=mask, **keywords)
                for result, right in zip(results, expected, strict=True):
                    assert (result.shape, result.dtype) == (right.shape, right.dtype)
                    tolerance = 20 * np.finfo(dtype).eps
                    np.testing.assert_allclose(result.compute(), right, tolerance, tolerance)
                plain = logsumexp(cut, b=weights, where=mask, axis=axis, keepdims=keepdims)
                right = np.where(expected[1] < 0, np.nan, expected[0])
                np.testing.assert_allclose(plain.compute(), right, tolerance, tolerance)
    lazy_b = da.from_array(b, (1, 5, 2))
    result = logsumexp(x, b=lazy_b, **keywords)[1].compute()
    np.testing.assert_array_equal(result, logsumexp(x, b=b, **keywords)[1])


@pytest.mark.parametrize("weight", [[2.0, 1.0, np.inf], [1e39] * 3], ids=str)
def test_weights_of_absent_classes_and_weights_beyond_float32(weight, dtype):
    z = np.array([[1, 2, 3], [0, 1, 0], [3, 1, 0]], dtype)
    cut, of_rows = da.from_array(z, (2, 3)), np.array([1.0, 2.0, 0.5])
    for target in (np.array([0, 1, 1]), np.eye(3)[[0, 1, 1]]):
        # Each loss is rounded to its type before blocks are added up.
        means = ({}, {"sample_weight": of_rows}) if max(weight) == np.inf else ()
        for keywords in (*means, {"reduction": "none"}):
            expected = cross_entropy_value_and_grad(z, target, weight=weight, **keywords)
            result = cross_entropy_value_and_grad(cut, target, weight=weight, **keywords)
            for one, right in zip(dask.compute(*result), expected, strict=True):
                assert one.dtype == right.dtype
                np.testing.assert_allclose(one, right, 8 * np.finfo(dtype).eps)
    keywords = {"weight": np.full(z.shape, 1e39), "reduction": "none"}
    expected = csoftmax.binary_cross_entropy_value_and_grad(z, z > 0, **keywords)
    result = csoftmax.binary_cross_entropy_value_and_grad(cut, z > 0, **keywords)
    for one, right in zip(dask.compute(*result), expected, strict=True):
        assert one.dtype == right.dtype
        np.testing.assert_allclose(one, right, 8 * np.finfo(dtype).eps)
