"""Every real number is a temperature, with the results of the float that it is rounded to."""

import decimal
import fractions
import math

import numpy as np
import pytest

import csoftmax

from .cases import contiguous, side_by_side
from .every_function import bits
from .exact import LONG
from .functions import CALLS, hold, operands_of, operands_of_rows

DTYPES = (
    np.bool_, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64,
    np.float16, np.float32, np.float64,
)  # fmt: skip
REAL_NUMBERS = [
    2, True, 0, False, 2**64, 10**300, fractions.Fraction(1, 3), np.longdouble("0.7"), math.inf,
    *(dtype(0.7) if dtype(0.7) != 0 else dtype(3) for dtype in DTYPES),
]  # fmt: skip
ARRAYS = [
    *(np.array(number) for number in REAL_NUMBERS[-len(DTYPES) :]),
    np.array(0.7, ">f8"), np.array(3, ">i4"), np.array(0.7, ">f4"), np.array([0.7, 3])[::-1][1],
]  # fmt: skip


NAMES = [name for name, call in CALLS.items() if "temperature" in call.operands]
each_call = pytest.mark.parametrize("name", NAMES)


def bits_with(name, temperature, dtype=np.float32):
    """Of rows, of a single one, and of all numbers as one."""
    call = CALLS[name]
    results = []
    for shape, axis in (((3, 5), -1), ((5,), -1), ((3, 5), None))[: 2 + call.takes_several_axes]:
        operands = operands_of(call.operands, shape, np.dtype(dtype), axis)
        results.append(bits(call(operands | {"temperature": temperature}, axis)))
    return results


def assert_as_of_float(name, temperature, dtype):
    assert bits_with(name, temperature, dtype) == bits_with(name, float(temperature), dtype)


@each_call
@pytest.mark.parametrize("temperature", REAL_NUMBERS, ids=lambda t: f"{type(t).__name__} {t}"[:30])
def test_real_numbers(temperature, name, dtype):
    assert_as_of_float(name, temperature, dtype)


@each_call
@pytest.mark.parametrize("temperature", ARRAYS, ids=lambda t: f"{t.dtype.str} {t}")
def test_arrays_without_axes(temperature, name, dtype):
    assert_as_of_float(name, temperature, dtype)


@each_call
def test_decimal(name, dtype):
    """A number, though none of Python's tower: taken, or refused as what is no number is."""
    temperature = decimal.Decimal("0.7")
    try:
        bits_with(name, temperature, dtype)
    except TypeError:
        with pytest.raises(TypeError, match="temperature must be a real number or array"):
            bits_with(name, temperature, dtype)
    else:
        assert_as_of_float(name, temperature, dtype)


@each_call
@pytest.mark.parametrize(
    "temperature",
    [10**400, fractions.Fraction(10**400, 3)], ids=lambda t: type(t).__name__,
)  # fmt: skip
def test_too_large_for_a_float(temperature, name):
    """The message says what to write for a uniform distribution."""
    with pytest.raises(ValueError, match=r"temperature.*inf"):
        bits_with(name, temperature)


@each_call
@pytest.mark.parametrize(
    "temperature",
    [-1, -(2**64), -(10**400), fractions.Fraction(-1, 3), np.float16(-1), np.int8(-1),
     np.longdouble(-1), np.longdouble("nan"), np.array(-1), np.array(np.nan, np.float32),
     -5e-324, np.float32("nan"), -math.inf],
    ids=lambda t: f"{type(t).__name__} {t}"[:30],
)  # fmt: skip
def test_negative_numbers_and_nan(temperature, name):
    with pytest.raises(ValueError, match="temperature must be at least 0, got"):
        bits_with(name, temperature)


IN_FLOAT64 = r": np\.asarray\(temperature, float\) makes float64 of it"


@each_call
@pytest.mark.parametrize(
    ("temperature", "got"),
    [(1j, "complex128 from complex"), (np.complex64(1), "complex64 from complex64"),
     ("1", f"<U1 from str{IN_FLOAT64}"), (b"1", rf"\|S1 from bytes{IN_FLOAT64}"),
     (None, "object from NoneType"), ([None], "object from list"), ("a", "<U1 from str"),
     (np.array("1"), f"<U1 from ndarray{IN_FLOAT64}"),
     (np.ones(3, complex), "complex128 from ndarray"),
     (np.ones(3, np.longdouble), f"{np.dtype(np.longdouble)} from ndarray{IN_FLOAT64}")],
    ids=str,
)  # fmt: skip
def test_what_is_no_real_number(temperature, got, name):
    message = f"^temperature must be a real number or array, got {got}$"
    with pytest.raises(TypeError, match=message):
        bits_with(name, temperature)


@each_call
@pytest.mark.parametrize("n", [2, 7])
def test_a_trailing_axis_of_length_1(n, name):
    """As keepdims leaves it; the message says how to get rid of it."""
    call = CALLS[name]
    operands = operands_of(call.operands, (n, 5), np.dtype(np.float32))
    with pytest.raises(ValueError, match=r"temperature\[\.\.\., 0\]") as error:
        call(operands | {"temperature": np.ones((n, 1))})
    assert f"({n}, 1)" in str(error.value)


@pytest.mark.parametrize(
    "function", [csoftmax.softmax, csoftmax.log_softmax, csoftmax.entropy], ids=lambda f: f.__name__
)
def test_trailing_axes_of_several_row_axes(function):
    x = np.ones((4, 4, 3, 5), np.float32)
    for shape in ((4, 4, 3, 1), (4, 3, 1), (3, 1)):
        with pytest.raises(ValueError, match=r"temperature\[\.\.\., 0\]"):
            function(x, temperature=np.ones(shape))
    assert function(x, temperature=np.ones((4, 1))).shape == function(x).shape    # it broadcasts


def test_an_axis_of_length_1_in_the_place_of_the_classes():
    x = np.ones((4, 5, 3), np.float32)
    for axis, shape in ((1, (4, 1, 3)), ((0, 1), (1, 1, 3)), ((1, 2), (4, 1, 1))):
        drop = rf"temperature\.squeeze\(\({', '.join(map(str, np.atleast_1d(axis)))},?\)\)"
        with pytest.raises(ValueError, match=drop):
            csoftmax.softmax(x, axis, temperature=np.ones(shape))


@pytest.mark.parametrize("shape", [(3, 1), (1, 1), (4, 3, 1), (4, 4, 3, 1)], ids=str)
def test_dask_arrays_with_a_trailing_axis(shape):
    da = pytest.importorskip("dask.array")
    x = da.ones((4, 4, 3, 5), chunks=2, dtype=np.float32).rechunk({3: -1})
    temperature = da.ones(shape)
    if shape == (1, 1):    # which broadcasts
        csoftmax.softmax(x, temperature=temperature)
        return
    for function in (csoftmax.softmax, csoftmax.entropy):
        with pytest.raises(ValueError, match=r"temperature\[\.\.\., 0\]"):
            function(x, temperature=temperature)


def test_other_shapes_are_not_told_to_drop_an_axis():
    for shape in ((2,), (2, 3), (3, 2), (2, 1), (1, 2)):
        with pytest.raises(ValueError, match="does not broadcast") as error:
            csoftmax.softmax(np.ones((3, 5)), temperature=np.ones(shape))
        assert "drop" not in str(error.value)


@each_call
@pytest.mark.parametrize("layout", [contiguous, side_by_side])
def test_accuracy(name, layout, dtype, build, limits):
    """Without FMA the quotient of a logit and its temperature is not rounded either."""
    call, rng = CALLS[name].with_reduction(0), np.random.default_rng(0)
    for n, size in ((2, 60), (2, 5), (3, 60), (10, 20), (80, 60)):
        temperature = 10 ** rng.uniform(-3, 3, 3000 // n)
        x = (rng.uniform(-size, size, (len(temperature), n)) * temperature[:, None]).astype(dtype)
        operands = operands_of_rows(call.operands, x) | {"temperature": temperature}
        hold(call, limits, operands, layout)


@pytest.mark.parametrize("temperature", [1e-31, 1e-100, 1e-290])
def test_logits_as_small_as_the_temperature(temperature, limits):
    """Their distances from the maximum are not rounded on the way."""
    x = np.random.default_rng(0).normal(0, 30 * temperature, size=(200, 7))
    z = x.astype(LONG) / LONG(temperature)
    exact = np.exp(z - z.max(-1, keepdims=True))
    exact /= exact.sum(-1, keepdims=True)
    error = np.abs(csoftmax.softmax(x, temperature=temperature) - exact)
    assert (error <= limits["softmax with temperature"] * np.spacing(exact.astype(float))).all()


def test_gradient_of_the_smallest_logits(limits):
    x = np.float32([1.5e-38, 7.8e-39])
    grad = csoftmax.cross_entropy_value_and_grad(x, 0, temperature=1e-40)[1]
    p = np.exp((x[1].astype(LONG) - x[0]) / LONG(1e-40))
    exact = np.array([-p, p], LONG) / (1 + p) * LONG(1e40)
    error = np.abs(grad - exact)
    assert (
        error <= limits["gradient with temperature"] * np.spacing(np.abs(exact).astype("f"))
    ).all()
