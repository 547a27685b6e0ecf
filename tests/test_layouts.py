"""Any axis, type, form of an argument and `out`: what is given for plain arrays."""

from dataclasses import replace

import numpy as np
import pytest

import csoftmax

from .exact import F64, computed_type
from .functions import CALLS, WITH_OUT, operands_of
from .helpers import (
    FORMS,
    WRITEABLE_FORMS,
    assert_same_results,
    best_build,
    each_argument,
    rounded_to,
)

each_call = pytest.mark.parametrize("name", CALLS)
ONE_AXIS = [0, 1, 2, -1, -3]
AXES = {
    "none": [-1], "one": ONE_AXIS,
    "several": [*ONE_AXIS, (0, 1), (2, 0), (1,), (0, 1, 2), None],
}  # fmt: skip


def parts_that_broadcast(operands):
    """The operands, and these with temperatures or a mask for several rows."""
    yield operands
    for key in operands.keys() & {"temperature", "mask"}:
        whole = operands[key]
        parts = [whole[0], whole[:1], whole[..., :1]] if whole.ndim and whole.size else []
        if key == "temperature" and parts:
            del parts[2]    # is refused, as what keepdims leaves
        for part in parts:
            yield operands | {key: part}


@pytest.mark.parametrize(
    ("name", "axis"),
    [(name, axis) for name, call in CALLS.items() for axis in AXES[call.function.axes]], ids=str,
)  # fmt: skip
@best_build
def test_axes(name, axis, dtype, build, limits):
    call = CALLS[name]
    for shape in ((4, 5, 6), (2, 300, 3), (130, 2, 40), (1, 1, 1), (3, 0, 2)):
        if call.name == "softmax_jacobian" and shape[axis] > 40:    # n squared numbers
            continue
        if not call.takes(shape, axis):
            continue
        operands = operands_of(call.operands, shape, dtype, axis, extreme_temperatures=True)
        for some in parts_that_broadcast(operands):
            call.hold(call(some, axis), limits, some, axis)
        if "keepdims" in call.function.parameters:
            kept = replace(call, others={"keepdims": True})
            kept.hold(kept(operands, axis), limits, operands, axis)


# What decides the type of the computation.
DECIDING = {"logits", "scores", "target_logits", "grad", "y", "log_y", "b"}
TYPES = [
    "float16", "bfloat16", "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64",
    "uint64", ">f2", ">f4", ">f8", ">i2", ">u8",
]  # fmt: skip


@each_call
@pytest.mark.parametrize("given", TYPES)
def test_types_that_are_converted(name, given):
    call, given = CALLS[name], np.dtype(given)
    computed = computed_type(given)
    operands = operands_of(call.operands, (3, 5), F64)
    converted = dict(operands)
    for key in operands.keys() & DECIDING:
        operands[key] = np.resize([0, 1, 1, 0, 1], (3, 5)).astype(given)
        converted[key] = operands[key].astype(computed)
    results = call(operands)
    for result, right in zip(results, call(converted), strict=True):
        assert result.dtype == right.dtype
        np.testing.assert_array_equal(result, right)
    types = [one.dtype for one in results if one.dtype.kind == "f"]
    assert types[1:] == [computed] * len(types[1:])
    assert types[:1] in ([], [F64 if call.is_reduced else computed])


@each_argument
@pytest.mark.parametrize("given", TYPES)
def test_types_of_other_arguments(call, key, given, dtype):
    """They decide nothing."""
    if key in DECIDING or key in ("mask", "kept"):
        return
    given = np.dtype(given)
    if key == "indices" and given.kind not in "iu":
        return
    operands = operands_of(call.operands, (7, 5), dtype)
    plain = operands[key]
    for values in (np.resize([0, 1, 1, 0, 1, 1], plain.shape), np.arange(plain.size) % 5):
        values = values.reshape(plain.shape).astype(given)
        results = call(operands | {key: values})
        expected = call(operands | {key: values.astype(plain.dtype)})
        for result, right in zip(results, expected, strict=True):
            assert result.dtype == right.dtype
            np.testing.assert_array_equal(result, right)


@pytest.mark.parametrize("out_dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("name", WITH_OUT)
def test_out_of_another_type_is_rounded(name, out_dtype, dtype, build):
    call = WITH_OUT[name]
    for shape, axis in (((4, 50), -1), ((50, 4), 0), ((3, 5000), -1), ((2000, 3), -1)):
        operands = operands_of(call.operands, shape, dtype, axis)
        expected = call(operands, axis)
        out = np.empty(call.shape_of_out(shape, axis), out_dtype)
        results = call(operands, axis, out)
        assert results[-1] is out
        with np.errstate(all="ignore"):
            # As float64, for NaN of bfloat16 is not taken for one.
            for result, right in ((out, expected[-1]), (results[0], expected[0])):
                right = rounded_to(result.dtype, right).astype(F64)
                np.testing.assert_array_equal(result.astype(F64), right)


def test_python_numbers_and_scalars():
    assert csoftmax.softmax([1, 2]).dtype == np.float64
    assert csoftmax.softmax(3, axis=None) == 1
    assert isinstance(csoftmax.logsumexp([0.0, 0.0]), np.float64)
    assert isinstance(csoftmax.entropy(np.zeros(3, np.float32)), np.float32)
    assert isinstance(csoftmax.cross_entropy(np.zeros((2, 3), np.float32), [0, 1]), np.float64)
    loss = csoftmax.cross_entropy(np.zeros(3, np.float32), 0, reduction="none")
    assert isinstance(loss, np.float32)
    assert csoftmax.softmax_vjp([1.0, 0.0], np.float32([0.5, 0.5])).dtype == np.float64
    assert isinstance(csoftmax.sigmoid(np.array(0, np.float32)), np.float32)
    assert isinstance(csoftmax.binary_cross_entropy([0.0, 1.0], [True, False]), np.float64)


FORM_SHAPES = [((6, 40), -1), ((70, 20), 0), ((2, 4200), -1), ((7,), -1), ((2, 9, 4), 1)]
without_matrix_warning = pytest.mark.filterwarnings("ignore:the matrix subclass")


def on_disk(path, x, mode):
    x.tofile(path)
    return np.memmap(path, x.dtype, mode, shape=x.shape)


@best_build
@without_matrix_warning
@each_argument
def test_every_argument_of_every_function(call, key, build, dtype, tmp_path):
    """In all forms, each beside ordinary arrays."""
    for shape, axis in FORM_SHAPES:
        if call.name == "softmax_jacobian" and shape[-1] > 40:    # n squared numbers
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
def test_every_form_of_out(name, build, dtype, tmp_path):
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
def test_numbers(name, build, dtype):
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
        assert_same_results([out], expected[-1:], dtype)
