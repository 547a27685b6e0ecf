"""What is refused, what the message says, and that nothing has been written by then."""

import inspect
import re
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from numpy.exceptions import AxisError

import csoftmax

from .cases import REFUSED
from .exact import INF, NAN
from .functions import FUNCTIONS, ROWS
from .helpers import mentioning

NO_NUMBERS = [
    np.longdouble, np.complex64, object, "U3", "M8[s]", "m8[s]", "V2", "V4",
    [("x", "f4")], [("x", "f4"), ("y", "f4")], *REFUSED,
]  # fmt: skip
OF_NUMBERS = {"x", "logits", "target_logits", "log_probs", "grad", "y", "log_y"}


def last_wrong(values, wrong):
    values = values.copy()
    values[-1] = wrong
    return values


def good_arguments(function, shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    target = x > 0 if function.axes == "none" else np.arange(shape[0]) % shape[1]
    return {
        "target": target, "y": np.full_like(x, 0.1), "k": 2, **dict.fromkeys(OF_NUMBERS - {"y"}, x),
    }  # fmt: skip


def wrong_numbers(parameter, function, shape):
    of_parameter = rf"^{parameter} must be float32 or float64, or .*got "
    for dtype in NO_NUMBERS:
        array = np.zeros(shape, dtype)
        yield {parameter: array}, TypeError, of_parameter + re.escape(str(array.dtype))
    x = np.ones(shape, np.float32)
    if parameter in ("grad", "target_logits"):
        for other in (x[:, :1], x[0], x.T, np.float64(1)):
            yield {parameter: other}, ValueError, mentioning(parameter, other.shape, shape)
    elif "vjp" in function.name:
        yield {parameter: x[None]}, ValueError, mentioning("grad", shape, (1, *shape))
    elif function.axes != "none":
        yield {parameter: 1.0, "target": 0}, AxisError, "axis -1 is out of bounds"


def wrong_axis(function, shape):
    wrong = [(2, AxisError), (-3, AxisError), (1.0, TypeError), ("0", TypeError), ([0], TypeError)]
    if function.axes == "several":
        wrong += [((0, 2), AxisError), ((0, 0), ValueError), ((0, -2), ValueError)]
    else:
        wrong += [(None, TypeError), ((0, 1), TypeError)]
    for axis, error in wrong:
        message = "axis must be" if error is TypeError else "axis"
        yield {"axis": axis}, error, message


def wrong_temperature(function, shape):
    rows = shape[0]
    good = np.ones(rows)
    for number, got in ((-1.0, "-1.0"), (NAN, "nan"), (-INF, "-inf")):
        message = f"temperature must be at least 0, got {got}"
        yield {"temperature": number}, ValueError, message
        for array in (good, good.astype(np.float32), np.ones(2 * rows)[::2]):
            yield {"temperature": last_wrong(array, number)}, ValueError, message
    for dtype in NO_NUMBERS:
        of_rows = np.zeros(rows, dtype)
        message = re.escape(f"temperature must be a real number or array, got {of_rows.dtype}")
        for array in (of_rows, of_rows[:1].reshape(())):
            yield {"temperature": array}, TypeError, message
    for number in ("1", None, 1j):
        yield {"temperature": number}, TypeError, "temperature must be a real number or array, got"
    for other in ((rows + 1,), (2, rows)):
        message = mentioning("temperature of shape", "does not broadcast", other, (rows,))
        yield {"temperature": np.ones(other)}, ValueError, message
    message = r"temperature\[\.\.\., 0\]"
    yield {"temperature": np.ones((rows, 1))}, ValueError, message
    if rows != shape[1]:
        for other in (shape, (1, shape[1]), shape[1:]):
            message = mentioning("temperature of shape", other, "divide the logits by it")
            yield {"temperature": np.ones(other)}, ValueError, message
    message = r"got object from (list|ndarray): np\.asarray\(temperature, float\)"
    for beyond in ([2**64, *[1] * (rows - 1)], np.array(2**64)):
        yield {"temperature": beyond}, TypeError, message


def wrong_where(function, shape):
    rows, n = shape
    for where in (
        np.ones(shape, int), np.ones(shape, np.float32), np.ones(shape, np.uint8),
        np.ones(shape, object), [[1] * n] * rows, 1, 0.0, "yes", [],
    ):  # fmt: skip
        message = f"where must be an array of bool, got {np.asarray(where).dtype}"
        yield {"where": where}, TypeError, message
    for dtype in NO_NUMBERS:
        where = np.zeros(shape, dtype)
        message = re.escape(f"where must be an array of bool, got {where.dtype}")
        yield {"where": where}, TypeError, message
    for other in ((n, rows), (rows,), (rows, n + 1), (0, n), (2, rows, n), (1, rows, n)):
        message = mentioning("where", other, shape)
        yield {"where": np.ones(other, bool)}, ValueError, message
    if "target" in function.parameters:    # whose shape would be wrong, too
        return
    x = np.ones((1, n), np.float32)    # is not made larger
    given = dict.fromkeys({"x", "logits", "target_logits"} & {*function.parameters}, x)
    yield given | {"where": np.ones(shape, bool)}, ValueError, mentioning("where", shape, (1, n))


def wrong_b(function, shape):
    for dtype in NO_NUMBERS:
        yield {"b": np.zeros(shape, dtype)}, TypeError, "^b must be float32 or float64, or .*got"
    for number in ("1", 1j, 10**400):
        yield {"b": number}, TypeError, "^b must be .*got"
    rows, n = shape
    for other in ((n, rows), (n + 1,), (rows, n - 1), (2, rows + 1, n), (0, n)):
        yield {"b": np.ones(other)}, ValueError, mentioning("b of shape", other, "against", shape)


def wrong_out(function, shape):
    shape = shape[:1] if function.out == ROWS else shape
    for other in (shape[::-1] if len(shape) > 1 else (*shape, 1), (1, *shape)):
        message = f"out must have the result's shape {shape}, got {other}"
        yield {"out": np.empty(other, np.float32)}, ValueError, re.escape(message)
    for dtype in (int, complex, *(one for one in NO_NUMBERS if one is not np.longdouble)):
        message = re.escape(f"out must be floating-point, got {np.dtype(dtype)}")
        yield {"out": np.zeros(shape, dtype)}, TypeError, message
    yield {"out": np.empty(shape).tolist()}, TypeError, "out must be a NumPy array, got list"
    yield {"out": np.broadcast_to(np.float32(0), shape)}, ValueError, "out is read-only"


def wrong_reduction(function, shape):
    for reduction in ("avg", "", None, 0, b"mean"):
        message = f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}"
        yield {"reduction": reduction}, ValueError, re.escape(message)


def wrong_label_smoothing(function, shape):
    shares = np.full(shape, 0.25)
    for smoothing in (-1, 2, -0.1, 1.5, NAN, INF, 10**400, -(10**400)):
        for more in ({}, {"target": shares}):
            message = re.escape(f"label_smoothing must be in [0, 1], got {smoothing}")
            yield {"label_smoothing": smoothing, **more}, ValueError, message
    for smoothing in ("0.1", None, 1j, [0.1], np.array([0.1]), np.array("0.1"), np.array(1j)):
        yield {"label_smoothing": smoothing}, TypeError, "label_smoothing must be a number, got"
    for smoothing in (-0.1, NAN, np.float32(1.5), 2):
        message = r"label_smoothing must be in \[0, 1\], got"
        yield {"label_smoothing": np.array(smoothing)}, ValueError, message


def wrong_k(function, shape):
    for k in (0, -1, shape[1] + 1, 2**63, -(2**70), np.int8(0)):
        message = f"k must be at least 1 and at most {shape[1]}, the number of classes; got {k}"
        yield {"k": k}, ValueError, message
    yield {"k": 1, "logits": np.ones((3, 0))}, ValueError, "at most 0, the number of classes; got 1"
    for k in (2.0, "2", None, [2], np.float32(2), np.array([2]), (1, 2)):
        yield {"k": k}, TypeError, "k must be an integer, got"


def wrong_top_k(function, shape):
    """0 and -1 stand for all classes in other libraries."""
    for k in (0, -1, -(2**70), np.int64(0), False):
        message = f"top_k must be at least 1, or None for all classes; got {int(k)}"
        yield {"top_k": k}, ValueError, message
    for k in (2.0, "2", [2], NAN, np.array([2])):
        yield {"top_k": k}, TypeError, "top_k must be an integer, got"


def wrong_share(parameter):
    def wrong(function, shape):
        for share in (-1, 2, -0.1, 1.0000001, NAN, INF, -INF, 10**400, np.float32(1.5)):
            for more in ({}, {"temperature": 0}, {"size": 0}):
                message = re.escape(f"{parameter} must be in [0, 1], got {share}")
                yield {parameter: share, **more}, ValueError, message
        for share in ("0.1", None, 1j, [0.1], np.ones(shape[0])):
            yield {parameter: share}, TypeError, f"{parameter} must be a number, got"

    return wrong


def wrong_rng(function, shape):
    """By NumPy."""
    for rng in ("seed", 0.5, object(), np.random):
        yield {"rng": rng}, TypeError, None
    yield {"rng": -1}, ValueError, "non-negative"


def wrong_size(function, shape):
    for size in (-1, (2, -3), [-1], np.int64(-2), -(2**70)):
        yield {"size": size}, ValueError, re.escape(f"size must be at least 0, got {size}")
    for size in (1.0, "3", (1.5, 2), (1, None), (2, (3,)), np.array([2])):
        yield {"size": size}, TypeError, "size must be an int, a tuple of ints or None, got"
    for size in (2**62, (2**40, 2**40), (1,) * 64, 2**70):    # by NumPy, or no memory
        yield {"size": size}, (ValueError, MemoryError, OverflowError), None
        yield {"size": size, "temperature": 0}, (ValueError, MemoryError, OverflowError), None


def wrong_ignore_index(function, shape):
    for index in (1.5, "0", None):
        yield {"ignore_index": index}, TypeError, "ignore_index must be an integer, got"
    for index in (2**63, -(2**63) - 1):
        message = f"ignore_index must be an int64, got {index}"
        yield {"ignore_index": index}, ValueError, message
    if function.name != "nll_loss":
        for index in (0, 7):
            for target in (np.full(shape, 0.25), np.eye(*shape, dtype=int)):
                yield {"target": target, "ignore_index": index}, ValueError, "ignore_index is of no"


def wrong_weight(function, shape, parameter="weight"):
    n = shape[1]
    good = np.ones(n)
    for dtype in NO_NUMBERS:
        weight = np.zeros(n, dtype)
        message = f"^{parameter} must be .*got " + re.escape(str(weight.dtype))
        yield {parameter: weight}, TypeError, message
    if function.axes == "none":
        for other in ((n - 1,), (n + 1,), (n, n), (n, 1), (1, *shape), (2, *shape), (0,)):
            yield {parameter: np.ones(other)}, ValueError, mentioning(parameter, shape, other)
        return
    for weight in (good[1:], np.ones(1), 1.0, np.ones((1, n)), np.ones(shape), []):
        message = mentioning("weight", (n,), np.shape(weight))
        for target in ({}, {"target": np.full(shape, 0.25)} if "cross" in function.name else {}):
            yield {"weight": weight, **target}, ValueError, message


def wrong_sample_weight(function, shape):
    rows = shape[0]
    for dtype in NO_NUMBERS:
        yield {"sample_weight": np.zeros(rows, dtype)}, TypeError, "^sample_weight must be .*got"
    for weight in (np.ones(rows + 1), np.ones((2, rows)), np.ones((rows, 1)), []):
        message = mentioning("sample_weight", (rows,), np.shape(weight))
        yield {"sample_weight": weight}, ValueError, message


def wrong_pos_weight(function, shape):
    return wrong_weight(function, shape, "pos_weight")


def wrong_target(function, shape):
    rows, n = shape
    if function.axes == "none":
        for other in ((n,), (rows, 1), (1, n), (n, rows), (rows,), (), (1, *shape), (0, n)):
            yield {"target": np.zeros(other)}, ValueError, mentioning("target", shape, other)
        for dtype in NO_NUMBERS:
            target = np.zeros(shape, dtype)
            message = "^target must be .*got " + re.escape(str(target.dtype))
            yield {"target": target}, TypeError, message
        return
    yield from wrong_indices(function, shape)
    of_rows = mentioning("target", (rows,), *([] if function.name == "nll_loss" else [shape]))
    for other in ((n, rows), (rows - 1,), (rows, 1), (rows, n + 1), (1, *shape), ()):
        message = of_rows + mentioning(f"got int64 of shape {other}")
        yield {"target": np.zeros(other, int)}, ValueError, message
        message = of_rows + mentioning(f"got float64 of shape {other}")
        yield {"target": np.zeros(other)}, (TypeError, ValueError), message
    for dtype in ("float16", "float64", "bool"):
        yield {"target": np.ones(rows, dtype)}, TypeError, of_rows + mentioning(dtype)
    for dtype in NO_NUMBERS:
        for other in (rows,) if function.name == "nll_loss" else (rows, shape):
            target = np.zeros(other, dtype)
            yield {"target": target}, TypeError, mentioning("target", target.dtype)
    if function.name == "nll_loss":
        for target in (np.full(shape, 0.25), np.eye(*shape, dtype=int)):
            yield {"target": target}, (TypeError, ValueError), of_rows


def wrong_indices(function, shape):
    """Even if, as a signed integer, they are the `ignore_index`."""
    rows, n = shape
    good = np.arange(rows) % n
    more = [{}, {"weight": np.ones(n)}, {"ignore_index": -1}]
    if "cross" in function.name:
        more += [{"label_smoothing": 0.1}, {"temperature": np.ones(rows)}]
    for index in (n, 2**63 - 1, -2, -(2**63), 2**63, 2**64 - 100, 2**64 - 1):
        message = rf"target\[{rows - 1}\] is {index}, but classes are 0 to {n - 1} \(C = {n}\)"
        target = last_wrong(good.astype(np.uint64 if index >= 2**63 else np.int64), index)
        swapped, strided = target.astype(target.dtype.newbyteorder()), np.repeat(target, 2)[1::2]
        for given in (target, swapped, strided):
            for keywords in more:
                yield {"target": given, **keywords}, IndexError, message
    message = rf"target\[{rows - 1}\] is -1.*ignore_index is -100"
    for dtype in (np.int8, np.int64):
        target = (good % 100).astype(dtype)
        yield {"target": last_wrong(target, -1)}, IndexError, message


WRONG = {
    "axis": wrong_axis, "b": wrong_b, "temperature": wrong_temperature, "where": wrong_where,
    "out": wrong_out,
    "reduction": wrong_reduction, "label_smoothing": wrong_label_smoothing, "weight": wrong_weight,
    "ignore_index": wrong_ignore_index, "pos_weight": wrong_pos_weight,
    "sample_weight": wrong_sample_weight, "target": wrong_target, "k": wrong_k,
    "top_k": wrong_top_k, "top_p": wrong_share("top_p"), "min_p": wrong_share("min_p"),
    "rng": wrong_rng, "size": wrong_size,
}  # fmt: skip
# What an `out` may be, and that it is an input.
OUTS = {
    "same type": np.full_like,
    "float16": lambda x, value: np.full(x.shape, value, np.float16),
    "float64": lambda x, value: np.full(x.shape, value, np.float64),
    "Fortran order": lambda x, value: np.full_like(x, value, order="F"),
    "with gaps": lambda x, value: np.full((*x.shape, 2), value, x.dtype)[..., 1],
    "big-endian": lambda x, value: np.full(x.shape, value, x.dtype.newbyteorder(">")),
    "input": None,
}
CASES = [
    (function, parameter) for function in FUNCTIONS.values() for parameter in function.parameters
    if parameter not in ("keepdims", "return_sign")
]  # fmt: skip


@pytest.mark.parametrize(
    ("function", "parameter"), CASES, ids=[f"{one.name}: {parameter}" for one, parameter in CASES]
)
@pytest.mark.parametrize("shape", [(3, 4), (2000, 30), (3, 9000)], ids=str)
def test_what_is_refused(function, parameter, shape):
    """Of one call, of many rows, and of long rows that threads share."""
    if parameter in OF_NUMBERS:
        wrong = wrong_numbers(parameter, function, shape)
    else:
        wrong = WRONG[parameter](function, shape)
    places = [
        name for name, one in inspect.signature(function.call).parameters.items()
        if one.kind is one.POSITIONAL_ONLY
    ]  # fmt: skip
    for turn, (changed, error, message) in enumerate(wrong):
        arguments = good_arguments(function, shape) | {"axis": -1} | changed
        forms = list(OUTS) if function.out and "out" not in changed else [None]
        if np.ndim(arguments[places[0]]) == 0:    # whose result would have no axis, too
            forms = [None]
        for form in forms if shape == (3, 4) else [forms[turn % len(forms)]]:
            out = some_out(form, function, arguments[places[0]], shape)
            if out is not None:
                arguments["out"], before = out, out.copy()
            with pytest.raises(error, match=message):
                function.call(
                    *(arguments[name] for name in places),
                    **{name: arguments[name] for name in function.parameters[len(places) :]
                       if name in arguments},
                )  # fmt: skip
            if out is not None:
                np.testing.assert_array_equal(out, before, str(changed))


def some_out(form, function, x, shape):
    """An array for the result of these logits, maybe themselves."""
    is_input = isinstance(x, np.ndarray) and x.dtype == np.float32
    x = x if is_input else np.zeros(shape, np.float32)
    if function.out == ROWS:
        x = x[:, 0]
    if form == "input":
        return x if is_input and function.out != ROWS else None
    return OUTS[form](x, 7) if form else None


def test_position_of_a_bad_index_in_more_dimensions():
    target = np.zeros((2, 5), int)
    target[1, 3] = 9
    with pytest.raises(IndexError, match=r"target\[1, 3\] is 9"):
        csoftmax.cross_entropy(np.zeros((2, 4, 5)), target, 1)


NO_DISTRIBUTION = {
    "a logit is nan": [NAN, 1, INF, -INF],
    "a logit is inf": [0, -INF, INF, 1],
    "every logit is -inf": [-INF] * 4,
}


@pytest.mark.parametrize("keywords", [{}, {"temperature": 0}, {"size": 2}, {"top_k": 1}], ids=str)
@pytest.mark.parametrize("why", NO_DISTRIBUTION)
def test_rows_that_have_no_distribution(why, keywords, dtype, build):
    """The first of them in C order is named, and the reason."""
    x = np.zeros((2, 3, 5, 4), dtype)
    x[1, 0, 3:] = x[1, 2] = x[0, 2, 4] = NO_DISTRIBUTION[why]
    for given, where in ((x, r"row \(0, 2, 4\) of "), (x[1, 0], "row 3 of "), (x[1, 2, 0], "in ")):
        message = f"there is no distribution to draw from .*{where}logits: {why}$"
        for axis in range(given.ndim):
            turned = np.moveaxis(given, -1, axis)
            for one in (turned, turned.tolist(), turned.astype(turned.dtype.newbyteorder())):
                with pytest.raises(ValueError, match=message):
                    csoftmax.sample(one, axis, **keywords)


def test_rows_that_have_no_class(build):
    x = np.zeros((2, 3, 4))
    where = x == 0
    where[1, 1] = False
    x[1, 1, 0] = NAN    # which is not seen
    for axis in range(3):
        turned, mask = np.moveaxis(x, -1, axis), np.moveaxis(where, -1, axis)
        message = r"row \(1, 1\) of logits: `where` leaves no class$"
        with pytest.raises(ValueError, match=message):
            csoftmax.sample(turned, axis, where=mask)
        with pytest.raises(ValueError, match=r"row \(0, 0\) of logits: `where` leaves no class$"):
            csoftmax.sample(turned, axis, where=[[[False]]])
        with pytest.raises(ValueError, match=r"row \(0, 0\) of logits: there are no classes$"):
            csoftmax.sample(np.moveaxis(x[..., :0], -1, axis), axis, size=2)
    x[1, 0], where[1, 0, 1:] = -INF, False
    with pytest.raises(ValueError, match=r"row \(1, 0\) of logits: every logit is -inf$"):
        csoftmax.sample(x, where=where)


NUMBERS_AS_ARRAYS = [
    np.array, lambda value: np.array(value, np.float32), lambda value: np.ma.array(value),
    lambda value: np.array(value, ">f8"), lambda value: np.array(value, ml_dtypes.bfloat16),
    ml_dtypes.bfloat16, np.float16,
]  # fmt: skip


@pytest.mark.parametrize("form", NUMBERS_AS_ARRAYS)
def test_numbers_may_be_arrays_without_axes(form):
    x = np.random.default_rng(0).normal(size=(40, 6))
    target = np.arange(40) % 6
    for name, call in {
        "label_smoothing": lambda **given: csoftmax.cross_entropy(x, target, **given),
        "top_p": lambda **given: csoftmax.sample(x, rng=1, **given),
        "min_p": lambda **given: csoftmax.sample(x, rng=1, **given),
        "temperature": lambda **given: csoftmax.softmax(x, **given),
    }.items():
        np.testing.assert_array_equal(call(**{name: form(0.25)}), call(**{name: 0.25}))
    whole = np.array(2, np.uint8)
    np.testing.assert_array_equal(csoftmax.softmax(x, np.array(0)), csoftmax.softmax(x, 0))
    np.testing.assert_array_equal(
        csoftmax.top_log_probs(x, whole)[0], csoftmax.top_log_probs(x, 2)[0]
    )
    for name in ("top_k", "size"):
        drawn = [csoftmax.sample(x, rng=1, **{name: one}) for one in (whole, 2)]
        np.testing.assert_array_equal(*drawn)
    losses = [csoftmax.cross_entropy(x, target, ignore_index=one) for one in (whole, 2)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ([0, 2**63], IndexError, r"target\[1\] is 9223372036854775808, but classes are 0 to 2"),
        ([2**70, 1], IndexError, r"target\[0\] is 1180591620717411303424, but classes are"),
        ((-(2**63) - 1, 0), IndexError, r"target\[0\] is -9223372036854775809, but classes"),
        (np.array([0, 2**64], object), IndexError, r"target\[1\] is 18446744073709551616"),
        ([True, False], TypeError, r"got bool of .*: np\.asarray\(target\)\.astype\(int\)"),
        ([0.0, 1.0], TypeError, r"got float64 of .*: np\.asarray\(target\)\.astype\(int\)"),
        (np.ones(2, "O"), TypeError, r"got object of .*: np\.asarray\(target\)\.astype\(int\)"),
        ([0.0, NAN], TypeError, r"nan_to_num\(np\.asarray\(target, float\), nan=-100\)\.astype"),
        ([0, None], TypeError, r"nan_to_num\(np\.asarray\(target, float\), nan=-100\)\.astype"),
        ([0.5, 1.0], TypeError, r"got float64 of shape \(2,\)$"),
        (["a", "b"], TypeError, r"np\.unique\(target, return_inverse=True\)\[1\]"),
        ([[0], [1]], ValueError, r"\(2, 1\): np\.squeeze\(target, 1\)"),
        ([[0, 1]], ValueError, r"\(1, 2\): np\.squeeze\(target, 0\)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("function", [csoftmax.cross_entropy, csoftmax.nll_loss])
def test_what_to_write_for_labels(function, target, error, message):
    """And that it is taken then."""
    logits = np.zeros((2, 3))
    with pytest.raises(error, match=message) as caught:
        function(logits, target)
    way = re.search(r": (np\..*[])])", str(caught.value))
    if error is not IndexError and "0.5" not in str(target):
        function(logits, eval(way[1], {"np": np, "target": target}))


@pytest.mark.parametrize(
    "x", [[2**70, 1], [1.0, None], ["1.5"], np.ones(2, np.longdouble), np.ones(2, object),
          np.ones(2, ml_dtypes.float8_e4m3b11fnuz), [Fraction(1, 3)]], ids=repr
)  # fmt: skip
def test_what_to_write_for_numbers(x):
    with pytest.raises(TypeError, match=r"got .*: np\.asarray\(x, float\) makes float64 of it"):
        csoftmax.softmax(x)
    assert csoftmax.softmax(np.asarray(x, float)).dtype == np.float64


def test_one_axis_too_many():
    y = np.ones((1,) * 64)
    with pytest.raises(ValueError, match=r"at most 63 axes, as the Jacobian .* got 64"):
        csoftmax.softmax_jacobian(y)
    assert csoftmax.softmax_jacobian(y[0]).ndim == 64


class Unusual(np.random.Generator):
    """Gives these numbers, whatever is asked for."""

    def __init__(self, numbers):
        super().__init__(np.random.PCG64(0))
        self.numbers = numbers

    def random(self, shape):
        return self.numbers


def test_numbers_of_a_generator_of_another_class(build):
    x, numbers = np.zeros((3, 1000)), np.random.default_rng(0).random((2, 3))
    expected = csoftmax.sample(x, rng=0, size=2)
    for same in (numbers, numbers.tolist(), np.asfortranarray(numbers), numbers.astype(">f8")):
        np.testing.assert_array_equal(csoftmax.sample(x, rng=Unusual(same), size=2), expected)
    with pytest.raises(TypeError, match="what rng gives is masked"):
        csoftmax.sample(x, rng=Unusual(np.ma.array(numbers, mask=numbers > 0.5)), size=2)
    for other in (numbers[:1], numbers.T, 0.5, [], np.zeros((2, 3, 1))):
        message = re.escape(f"rng must give random numbers of shape (2, 3), got {np.shape(other)}")
        with pytest.raises(ValueError, match=message):
            csoftmax.sample(x, rng=Unusual(other), size=2)
    for outside in (1.0, 2.0, INF, NAN, -0.1, -INF):    # what is drawn is a class all the same
        drawn = csoftmax.sample(x, rng=Unusual(np.full((2, 3), outside)), size=2)
        assert ((drawn >= 0) & (drawn < 1000)).all()


class OfAnEnumeration(str):
    """As members of enumerations, equal to a name, but printed as another."""

    def __str__(self):
        return f"Reduction.{self.upper()}"


@pytest.mark.parametrize(
    "reduction", [*map(OfAnEnumeration, ("mean", "sum", "none")), np.str_("mean")], ids=repr
)
def test_reductions_that_are_equal_to_a_name(reduction):
    x, name = np.ones((3, 4)), "".join(reduction)
    for function, target in (
        (csoftmax.cross_entropy, [0, 1, 2]), (csoftmax.nll_loss, [0, 1, 2]),
        (csoftmax.binary_cross_entropy, x), (csoftmax.kl_divergence, x),
    ):  # fmt: skip
        result, expected = (function(x, target, reduction=one) for one in (reduction, name))
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_classes_are_along_the_axis(axis):
    """The weight of another axis is refused, and a target without another axis."""
    x = np.zeros((2, 3, 4))
    other = (axis + 1) % 3
    target, of_other = (np.zeros(np.delete(x.shape, i), int) for i in (axis, other))
    with pytest.raises(ValueError, match=rf"weight.*\({x.shape[axis]},\)"):
        csoftmax.cross_entropy(x, target, axis, weight=np.ones(x.shape[other]))
    with pytest.raises(ValueError, match=r"target.*\(2, 3, 4\)"):
        csoftmax.cross_entropy(x, of_other, axis)


def test_show_config(capsys):
    config = csoftmax.show_config(mode="dicts")
    assert config["version"] == csoftmax.__version__
    assert config["isa"] in config["isas_built"]
    assert config["isa"] in config["isas_supported"]
    assert config["num_threads"] == csoftmax.get_num_threads()
    assert isinstance(config["openmp"], bool)
    assert csoftmax.show_config() is None
    printed = capsys.readouterr().out
    for key in config:
        assert f"{key}: " in printed
    with pytest.raises(ValueError, match="mode must be"):
        csoftmax.show_config(mode="json")
