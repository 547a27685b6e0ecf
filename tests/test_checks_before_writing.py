"""Nothing is written to `out` before all arguments have been checked."""

import numpy as np
import pytest

import csoftmax

SHAPES = [(3, 4), (2000, 30), (3, 9000)]    # one call, many rows, long rows that threads share
OUTS = {
    "same type": np.full_like,
    "float16": lambda x, value: np.full(x.shape, value, np.float16),
    "float64": lambda x, value: np.full(x.shape, value, np.float64),
    "Fortran order": lambda x, value: np.full_like(x, value, order="F"),
    "with gaps": lambda x, value: np.full((*x.shape, 2), value, x.dtype)[..., 1],
    "big-endian": lambda x, value: np.full(x.shape, value, x.dtype.newbyteorder(">")),
}


def last_wrong(values, wrong):
    values = values.copy()
    values[-1] = wrong
    return values


def wrong_temperatures(rows):
    good = np.ones(rows)
    return {
        "negative temperature in the last row": {"temperature": last_wrong(good, -1)},
        "NaN as the last row's temperature": {"temperature": last_wrong(good, np.nan)},
        "float32 temperatures": {"temperature": last_wrong(good.astype(np.float32), -1)},
        "strided temperatures": {"temperature": last_wrong(np.ones(2 * rows)[::2], -1)},
        "negative temperature": {"temperature": -1.0},
        "complex temperature": {"temperature": 1j},
        "shape of temperature": {"temperature": np.ones(rows + 1)},
        "axis of temperature": {"temperature": np.ones((rows, 1))},
    }


def wrong_masks(shape):
    return {
        "type of mask": {"where": np.ones(shape, np.int8)},
        "shape of mask": {"where": np.ones((shape[0] + 1, 1), bool)},
    }


WRONG_AXES = {"axis": {"axis": 2}, "type of axis": {"axis": 1.0}}


def wrong_losses(shape):
    """Keywords of a loss of class indices, or other targets, that are wrong."""
    rows, classes = shape
    good = np.arange(rows) % classes
    return {
        **wrong_temperatures(rows),
        **WRONG_AXES,
        "index in the last row": {"target": last_wrong(good, classes)},
        "negative index in the last row": {"target": last_wrong(good, -1)},
        "int8 index": {"target": last_wrong((good % 100).astype(np.int8), -1)},
        "strided indices": {"target": last_wrong(np.repeat(good, 2)[::2], classes)},
        "uint64 index": {"target": last_wrong(good.astype(np.uint64), 2**64 - 100)},
        "shape of indices": {"target": good[:-1]},
        "type of indices": {"target": good.astype(float)},
        "type of probabilities": {"target": np.ones(shape, complex)},
        "shape of weight": {"weight": np.ones(classes + 1)},
        "axes of weight": {"weight": np.ones((1, classes))},
        "type of weight": {"weight": np.ones(classes, complex)},
        "reduction": {"reduction": "avg"},
        "type of reduction": {"reduction": None},
        "label_smoothing": {"label_smoothing": 1.5},
        "label_smoothing of NaN": {"label_smoothing": np.nan},
        "type of label_smoothing": {"label_smoothing": "0.1"},
        "type of ignore_index": {"ignore_index": 1.5},
        "ignore_index beyond int64": {"ignore_index": 2**63},
        "ignore_index of probabilities": {
            "target": np.ones(shape, np.float32), "ignore_index": 1
        },
        "index beside a weight": {
            "target": last_wrong(good, classes), "weight": np.ones(classes),
        },
        "index beside smoothing": {"target": last_wrong(good, classes), "label_smoothing": 0.1},
        "index beside temperatures": {
            "target": last_wrong(good, classes), "temperature": np.ones(rows)
        },
    }  # fmt: skip


def wrong_calls(function, shape):
    """Functions of out, by what is wrong with their other arguments, and the logits."""
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    name = function.__name__
    if name == "cross_entropy_value_and_grad":
        good = {"target": np.arange(shape[0]) % shape[1]}
        wrong = wrong_losses(shape)
        places = ("target",)
    elif name.endswith("vjp"):
        good = {"y": np.full_like(x, 0.1)}
        wrong = {
            **wrong_temperatures(shape[0]),
            **WRONG_AXES,
            "shape of y": {"y": x[:-1]},
            "type of y": {"y": x.astype(complex)},
        }
        places = ("y",)
    else:
        good, places = {}, ()
        wrong = {**WRONG_AXES, **wrong_masks(shape)}
        if name != "logsumexp":
            wrong |= wrong_temperatures(shape[0])
    for what, keywords in wrong.items():
        keywords = good | keywords
        yield what, x, [keywords.pop(place) for place in places], keywords


FUNCTIONS = [
    csoftmax.softmax, csoftmax.log_softmax, csoftmax.logsumexp, csoftmax.softmax_vjp,
    csoftmax.log_softmax_vjp, csoftmax.cross_entropy_value_and_grad,
]  # fmt: skip
each_function = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)


@each_function
@pytest.mark.parametrize("form", OUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_out_is_as_it_was(shape, form, function):
    for what, x, places, keywords in wrong_calls(function, shape):
        like = x[:, 0] if function is csoftmax.logsumexp else x
        out = OUTS[form](like, 7)
        with pytest.raises((TypeError, ValueError, IndexError)):
            function(x, *places, out=out, **keywords)
        assert (out == 7).all(), what


@each_function
def test_the_input_is_as_it_was_where_it_is_out(function):
    if function is csoftmax.logsumexp:
        return
    for what, x, places, keywords in wrong_calls(function, (300, 40)):
        before = x.copy()
        with pytest.raises((TypeError, ValueError, IndexError)):
            function(x, *places, out=x, **keywords)
        np.testing.assert_array_equal(x, before, what)


def test_sigmoid():
    for x in (np.ones((3, 4), complex), np.ones((3, 4), object), np.ones((3, 4), np.longdouble)):
        out = np.full((3, 4), 7, np.float32)
        with pytest.raises(TypeError):
            csoftmax.sigmoid(x, out=out)
        assert (out == 7).all()


@pytest.mark.parametrize("shape", [(3, 4), (2, 4, 5)], ids=str)
@pytest.mark.parametrize(
    "function",
    [csoftmax.cross_entropy, csoftmax.cross_entropy_value_and_grad, csoftmax.nll_loss],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_indices_that_are_negative_as_int64(function, shape):
    """Of uint64 above 2^63, even if they are the `ignore_index` then."""
    x = np.zeros(shape, np.float32)
    rows = (shape[0], *shape[2:])
    for index in (2**63, 2**64 - 100, 2**64 - 1):
        target = np.zeros(rows, np.uint64)
        target[(-1,) * target.ndim] = index
        position = ", ".join(str(n - 1) for n in rows)
        message = rf"target\[{position}\] is {index}, but classes are 0 to 3 \(C = 4\)"
        for given in (target, target.astype(">u8"), np.repeat(target, 2, -1)[..., ::2]):
            for keywords in ({}, {"weight": np.ones(4)}, {"ignore_index": -1}):
                with pytest.raises(IndexError, match=message):
                    function(x, given, axis=1, **keywords)
