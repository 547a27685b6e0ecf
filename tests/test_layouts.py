"""Any memory layout, axis, dtype and `out` gives what contiguous rows give."""

import numpy as np
import pytest

import csoftmax

from .calls import CALLS, WITH_OUT, operands_of
from .test_dispatch import USABLE

pytestmark = pytest.mark.usefixtures("build")

ROWWISE = [csoftmax.softmax, csoftmax.log_softmax]


def logits(shape, dtype, seed=0):
    return (5 * np.random.default_rng(seed).normal(size=shape)).astype(dtype)


def assert_as_promised(result, expected, scale=0, dtype=None):
    """Equal within twice the contract's limit.

    Rows that stand side by side, or are copied so, have a loop of their own that adds up in another
    order. `scale` is the largest term, where that is what errors are measured by. `dtype` is that
    of the computation: a mean of losses is float64 for float32, too.
    """
    eps = np.finfo(expected.dtype if dtype is None else dtype).eps
    np.testing.assert_allclose(result, expected, rtol=8 * eps, atol=8 * eps * scale)


def scale_of(function, x):
    return 0 if function is csoftmax.softmax else np.abs(x).max(initial=0)


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


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "read-only": read_only,
    "unaligned": unaligned,
    "every other": every_other,
    "backwards": lambda x: x[..., ::-1].copy()[..., ::-1],
    "rows backwards": lambda x: x[::-1].copy()[::-1],
    "list": lambda x: x.tolist(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "shape", [(1, 1), (3, 5), (40, 16), (17, 130), (300, 7), (5, 4100), (33, 1000)]
)
def test_layouts(layout, shape, dtype):
    if layout == "list":
        dtype = np.dtype(np.float64)
    x = logits(shape, dtype)
    other = LAYOUTS[layout](x)
    target = np.arange(shape[0]) % shape[1]
    for function in (*ROWWISE, csoftmax.logsumexp):
        result = function(other)
        assert result.dtype == dtype
        assert_as_promised(result, function(x), scale_of(function, x))
    loss, grad = csoftmax.cross_entropy_value_and_grad(x, target)
    other_loss, other_grad = csoftmax.cross_entropy_value_and_grad(other, target)
    assert_as_promised(other_loss, loss, np.abs(x).max(), dtype)
    assert_as_promised(other_grad, grad, 1 / shape[0])
    assert csoftmax.cross_entropy(other, target) == other_loss


def test_broadcast_input(dtype):
    x = logits((1, 200), dtype)
    many = np.broadcast_to(x, (50, 200))
    np.testing.assert_array_equal(csoftmax.softmax(many), np.repeat(csoftmax.softmax(x), 50, 0))
    one_value = np.broadcast_to(x[:, :1], (3, 200))
    expected = np.full((3, 200), dtype.type(1 / 200))
    np.testing.assert_array_equal(csoftmax.softmax(one_value), expected)


@pytest.mark.parametrize("shape", [(4, 5, 6), (2, 300, 3), (130, 2, 40), (1, 1, 1), (3, 0, 2)])
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3, (0, 1), (2, 0), (1,), (0, 1, 2), None])
def test_axes(shape, axis, dtype):
    x = logits(shape, dtype)
    axes = tuple(range(3)) if axis is None else np.atleast_1d(axis) % 3
    others = [i for i in range(3) if i not in axes]
    axes = sorted(int(i) for i in axes)
    length = int(np.prod([shape[i] for i in axes]))
    count = int(np.prod([shape[i] for i in others]))
    rows = x.transpose(*others, *axes).reshape(count, length)
    for function in ROWWISE:
        result = function(x, axis)
        assert result.shape == shape
        moved = result.transpose(*others, *axes).reshape(rows.shape)
        assert_as_promised(moved, function(np.ascontiguousarray(rows)), scale_of(function, x))
    result = csoftmax.logsumexp(x, axis)
    assert result.shape == tuple(shape[i] for i in others)
    if x.size:
        assert_as_promised(np.ravel(result), csoftmax.logsumexp(rows), np.abs(x).max())
    kept = csoftmax.logsumexp(x, axis, keepdims=True)
    assert kept.shape == tuple(1 if i in axes else n for i, n in enumerate(shape))
    np.testing.assert_array_equal(kept.ravel(), np.ravel(result))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_loss_along_any_axis(axis, dtype):
    x = logits((40, 7, 30), dtype)
    rows = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    target = np.random.default_rng(1).integers(x.shape[axis], size=rows.shape[:-1])
    loss, grad = csoftmax.cross_entropy_value_and_grad(x, target, axis)
    right_loss, right_grad = csoftmax.cross_entropy_value_and_grad(rows, target)
    assert loss == csoftmax.cross_entropy(x, target, axis)
    assert_as_promised(loss, right_loss, np.abs(x).max(), dtype)
    assert_as_promised(np.moveaxis(grad, axis, -1), right_grad, 1 / target.size)


@pytest.mark.parametrize("function", ROWWISE, ids=lambda f: f.__name__)
@pytest.mark.parametrize("shape", [(7,), (3, 5), (20, 127), (20, 300), (3, 5000), (2, 9000)])
@pytest.mark.parametrize("axis", [-1, 0, None])
def test_out(function, shape, axis, dtype):
    x = logits(shape, dtype)
    expected = function(x, axis)
    for out in (
        np.full(shape, np.nan, dtype),
        np.full(shape, np.nan, dtype, order="F"),
        np.full((*shape, 2), np.nan, dtype)[..., 1],
        x.copy(),
    ):
        result = function(x, axis, out=out)
        assert result is out
        assert_as_promised(out, expected, scale_of(function, x))
    in_place = x.copy()
    function(in_place, axis, out=in_place)
    assert_as_promised(in_place, expected, scale_of(function, x))
    in_place = np.asfortranarray(x)
    function(in_place, axis, out=in_place)
    assert_as_promised(in_place, expected, scale_of(function, x))


@pytest.mark.parametrize("function", ROWWISE, ids=lambda f: f.__name__)
@pytest.mark.parametrize("shift", [1, 3, 100, 299])
def test_out_that_overlaps_in_part(function, shift, dtype):
    memory = logits(2000, dtype)
    expected = function(memory[:1500].reshape(5, 300).copy())
    for from_start in (True, False):
        shared = np.concatenate([memory[:1500], memory[:shift]])
        if not from_start:
            shared = np.concatenate([memory[:shift], memory[:1500]])
        x = (shared[:1500] if from_start else shared[shift:]).reshape(5, 300)
        out = (shared[shift:] if from_start else shared[:1500]).reshape(5, 300)
        function(x, out=out)
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("shape", [(1, 1), (9, 6), (40, 300), (3, 5000)])
def test_gradient_in_place(shape, dtype):
    x = logits(shape, dtype)
    target = np.arange(shape[0]) % shape[1]
    loss, grad = csoftmax.cross_entropy_value_and_grad(x, target)
    in_place = x.copy()
    other_loss, result = csoftmax.cross_entropy_value_and_grad(in_place, target, out=in_place)
    assert result is in_place
    assert other_loss == loss
    np.testing.assert_array_equal(in_place, grad)


@pytest.mark.parametrize("out_dtype", [np.float16, np.float32, np.float64])
def test_out_of_another_type_is_rounded(out_dtype, dtype):
    x = logits((4, 50), dtype)
    out = np.empty(x.shape, out_dtype)
    csoftmax.softmax(x, out=out)
    np.testing.assert_array_equal(out, csoftmax.softmax(x).astype(out_dtype))
    total = np.empty(4, out_dtype)
    assert csoftmax.logsumexp(x, out=total) is total
    np.testing.assert_array_equal(total, csoftmax.logsumexp(x).astype(out_dtype))


@pytest.mark.parametrize(
    ("input_dtype", "result_dtype"),
    [("float16", "float32"), ("float32", "float32"), ("bool", "float32"), ("int8", "float32"),
     ("uint8", "float32"), ("int16", "float32"), ("uint16", "float32"), ("float64", "float64"),
     ("int32", "float64"), ("uint32", "float64"), ("int64", "float64"), ("uint64", "float64")],
)
def test_types(input_dtype, result_dtype):
    x = np.array([[0, 1, 1, 0, 1]]).astype(input_dtype)
    for function in (*ROWWISE, csoftmax.logsumexp):
        assert function(x).dtype == result_dtype
        np.testing.assert_array_equal(function(x), function(x.astype(result_dtype)))
    loss, grad = csoftmax.cross_entropy_value_and_grad(x, [1])
    assert loss.dtype == np.float64
    assert grad.dtype == result_dtype


def test_python_numbers_and_scalars():
    assert csoftmax.softmax([1, 2]).dtype == np.float64
    assert csoftmax.softmax(3, axis=None) == 1
    assert isinstance(csoftmax.logsumexp([0.0, 0.0]), np.float64)
    assert isinstance(csoftmax.cross_entropy(np.zeros((2, 3), np.float32), [0, 1]), np.float64)
    loss = csoftmax.cross_entropy(np.zeros(3, np.float32), 0, reduction="none")
    assert isinstance(loss, np.float32)


def test_inputs_are_not_changed(dtype):
    x = logits((20, 3000), dtype)
    before = x.copy()
    for function in (*ROWWISE, csoftmax.logsumexp):
        function(x)
    csoftmax.cross_entropy_value_and_grad(x, np.zeros(20, int))
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("n", [1, 15, 16, 17, 127, 128, 129, 1000, 4097])
def test_nothing_is_written_outside_out(n, dtype):
    for function in ROWWISE:
        guarded = np.full((3, n + 128), 7, dtype)
        function(logits((3, n), dtype), out=guarded[:, 64 : 64 + n])
        assert (guarded[:, :64] == 7).all()
        assert (guarded[:, 64 + n :] == 7).all()


# The shape of a larger array, and which part of it has the shape (a, b, c).
PARTS = {
    "a block in the middle": lambda a, b, c: ((a + 2, b + 3, c + 1), np.s_[1:-1, 1:-2, :-1]),
    "every other number": lambda a, b, c: ((a, b, 2 * c), np.s_[:, :, 1::2]),
    "every other row": lambda a, b, c: ((a, 2 * b, c), np.s_[:, ::2]),
}


@pytest.mark.parametrize(
    "shape", [(3, 7, 33), (2, 130, 17), (18, 40, 3), (2, 301, 19), (1, 4100, 7)], ids=str
)
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("part", PARTS)
def test_what_is_around_input_and_output_does_not_matter(part, axis, shape, dtype):
    """It is neither read nor written, with an `out` of its own and in place."""
    x = logits(shape, dtype)
    target = np.random.default_rng(1).integers(shape[axis], size=np.delete(shape, axis))
    larger, inside = PARTS[part](*shape)

    def gradient(x, axis, out=None):
        return csoftmax.cross_entropy_value_and_grad(x, target, axis, reduction="sum", out=out)[1]

    for function in (*ROWWISE, gradient):
        scale = 1 if function is gradient else scale_of(function, x)
        memory, expected = np.full((2, *larger), np.nan, dtype)
        memory[inside] = x
        expected[inside] = function(x, axis)
        out = np.full(larger, 7, dtype)
        function(memory[inside], axis, out=out[inside])
        assert_as_promised(out, np.where(np.isnan(expected), dtype.type(7), expected), scale)
        function(memory[inside], axis, out=memory[inside])
        assert_as_promised(memory, expected, scale)


def test_temperature_per_row(dtype):
    x = logits((6, 4, 50), dtype)
    temperatures = np.random.default_rng(1).uniform(0.1, 5, size=(6, 4))
    result = csoftmax.softmax(x, temperature=temperatures)
    for i in np.ndindex(6, 4):
        expected = csoftmax.softmax(x[i], temperature=temperatures[i])
        np.testing.assert_array_equal(result[i], expected)
    per_column = csoftmax.log_softmax(x, temperature=temperatures[0])
    np.testing.assert_array_equal(
        per_column[:, 2], csoftmax.log_softmax(x[:, 2], temperature=temperatures[0, 2])
    )
    across = csoftmax.softmax(x, axis=0, temperature=np.arange(200.0).reshape(4, 50))
    np.testing.assert_array_equal(across[:, 1, 3], csoftmax.softmax(x[:, 1, 3], temperature=53))
    together = csoftmax.softmax(x, axis=(0, 2), temperature=[0.5, 1, 2, 4])
    expected = csoftmax.softmax(x[:, 2], axis=None, temperature=2)
    np.testing.assert_array_equal(together[:, 2], expected)


def test_float16_temperature_and_integer_temperature():
    x = logits((3, 5), np.float32)
    expected = csoftmax.softmax(x, temperature=2.0)
    for temperature in (2, np.float16(2), np.int8(2), [2, 2, 2], True + True):
        np.testing.assert_array_equal(csoftmax.softmax(x, temperature=temperature), expected)


class Sub(np.ndarray):
    """A subclass that changes nothing."""


class Box:
    """Knows nothing but how to become an array."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return np.array(self.array, dtype)


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
FORM_SHAPES = [((6, 40), -1), ((70, 20), 0), ((2, 4200), -1), ((7,), -1), ((2, 9, 4), 1)]
without_matrix_warning = pytest.mark.filterwarnings("ignore:the matrix subclass")
# What becomes of such arrays is decided before the kernels are called.
best_build = pytest.mark.parametrize("build", USABLE[:1], indirect=True)
each_argument = pytest.mark.parametrize(
    ("call", "key"),
    [pytest.param(call, key, id=f"{name}: {key}")
     for name, call in CALLS.items() for key in call.operands],
)  # fmt: skip


def on_disk(path, x, mode):
    x.tofile(path)
    return np.memmap(path, x.dtype, mode, shape=x.shape)


def assert_same_results(results, expected, dtype):
    """Plain arrays, or scalars, and numbers that differ as much as the order of a sum does.

    `dtype` is what numbers without an axis are computed in.
    """
    for result, right in zip(results, expected, strict=True):
        assert type(result) is np.ndarray or isinstance(result, np.floating)
        assert result.dtype == right.dtype
        assert result.shape == right.shape
        finite = np.abs(right[np.isfinite(right)])
        assert_as_promised(result, right, finite.max(initial=0), None if right.ndim else dtype)


@best_build
@without_matrix_warning
@each_argument
def test_every_argument_of_every_function(call, key, dtype, tmp_path):
    """In all forms, each beside ordinary arrays."""
    for shape, axis in FORM_SHAPES:
        if call.function is csoftmax.softmax_jacobian and shape[-1] > 40:    # n squared numbers
            continue
        operands = operands_of(call.operands, shape, dtype, axis)
        x = operands[key]
        forms = [form(x) for dimensions, form in FORMS.values() if x.ndim >= dimensions]
        forms.append(on_disk(tmp_path / "x", x, "r"))
        for form in forms:
            plain = np.array(form)
            plain = plain.astype(plain.dtype.newbyteorder("="))
            given = operands | {key: plain}
            computed = given[call.places[0]].dtype
            expected = call(given, axis)
            assert_same_results(call(operands | {key: form}, axis), expected, computed)
            if isinstance(form, np.ndarray):    # not changed
                np.testing.assert_array_equal(form, plain)


@best_build
@without_matrix_warning
@pytest.mark.parametrize("name", WITH_OUT)
def test_every_form_of_out(name, dtype, tmp_path):
    call = WITH_OUT[name]
    for shape, axis in FORM_SHAPES:
        operands = operands_of(call.operands, shape, dtype, axis)
        plain = np.empty(call.shape_of_out(shape, axis), dtype)
        expected = call(operands, axis, plain)
        forms = [
            form(np.zeros_like(plain)) for dimensions, form in WRITEABLE_FORMS.values()
            if plain.ndim >= dimensions
        ]  # fmt: skip
        forms.append(on_disk(tmp_path / "out", np.zeros_like(plain), "r+"))
        for out in forms:
            results = call(operands, axis, out)
            assert results[-1] is out
            results[-1] = np.array(out).astype(dtype)
            assert_same_results(results, expected, dtype)
        if plain.size:
            out.flush()
            np.testing.assert_array_equal(np.fromfile(tmp_path / "out", dtype), out.ravel())


@best_build
@pytest.mark.parametrize("name", [name for name, call in CALLS.items() if call.takes_several_axes])
def test_numbers(name, dtype):
    """0-d arrays, as themselves and as scalars."""
    call = CALLS[name]
    operands = operands_of(call.operands, (), dtype, None)
    operands = {key: array.reshape(()) for key, array in operands.items()}
    in_rows = {
        key: array.reshape(() if key == "temperature" else (1,)) for key, array in operands.items()
    }
    expected = [result.reshape(()) for result in call(in_rows, None)]
    scalars = {key: array[()] for key, array in operands.items()}
    for given in (operands, scalars):
        assert_same_results(call(given, None), expected, dtype)
    if call.out:
        out = np.empty((), dtype)
        assert call(operands, None, out)[-1] is out
        assert_same_results([out], expected, dtype)
