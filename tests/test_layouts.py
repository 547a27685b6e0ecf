"""Any memory layout, axis, dtype and `out` gives what contiguous rows give."""

import numpy as np
import pytest

import csoftmax

pytestmark = pytest.mark.usefixtures("build")

ROWWISE = [csoftmax.softmax, csoftmax.log_softmax]


def logits(shape, dtype, seed=0):
    return (5 * np.random.default_rng(seed).normal(size=shape)).astype(dtype)


def assert_as_promised(result, expected, scale=0):
    """Equal within twice the contract's limit.

    Rows that stand side by side, or are copied so, have a loop of their own that adds up in another
    order. `scale` is the largest term, where that is what errors are measured by.
    """
    eps = np.finfo(expected.dtype).eps
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
    assert_as_promised(other_loss, loss, np.abs(x).max())
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
    assert_as_promised(loss, right_loss, np.abs(x).max())
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
    assert loss.dtype == grad.dtype == result_dtype


def test_python_numbers_and_scalars():
    assert csoftmax.softmax([1, 2]).dtype == np.float64
    assert csoftmax.softmax(3, axis=None) == 1
    assert isinstance(csoftmax.logsumexp([0.0, 0.0]), np.float64)
    assert isinstance(csoftmax.cross_entropy(np.zeros((2, 3), np.float32), [0, 1]), np.float32)


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
