"""The stubs against what is called: results have the types that are claimed, defaults are the same.

That mypy and stubtest accept them is seen by `nox -s types`; stubtest skips defaults of overloads.
"""

import ast
import inspect
import types
import typing
from pathlib import Path

import numpy as np
import pytest

import csoftmax

from . import typed_usage

STUB = ast.parse(Path(csoftmax.__file__).with_suffix(".pyi").read_text())
SIGNATURES = [node for node in STUB.body if isinstance(node, ast.FunctionDef)]


def holds(value, claim):
    """Whether the value is of the type, which is written as in typed_usage.py."""
    origin, arguments = typing.get_origin(claim), typing.get_args(claim)
    if hasattr(origin, "__value__"):    # a `type` statement, as NDArray since NumPy 2.5
        return holds(value, origin.__value__[arguments])
    if origin in (types.UnionType, typing.Union):    # NDArray[...] | Any: that or a scalar
        return isinstance(value, np.ndarray | np.generic) and holds(np.asarray(value), arguments[0])
    if origin is np.ndarray:
        dtype = typing.get_args(arguments[1])[0]
        return isinstance(value, np.ndarray) and issubclass(
            value.dtype.type, np.floating if dtype is typing.Any else dtype
        )
    if origin is tuple:
        return len(value) == len(arguments) and all(map(holds, value, arguments))
    if origin is list:
        return isinstance(value, list) and all(isinstance(one, arguments[0]) for one in value)
    return isinstance(value, claim)


@pytest.mark.parametrize(
    "usage",
    [
        typed_usage.dtypes, typed_usage.parameters, typed_usage.outs, typed_usage.without_an_axis,
        typed_usage.losses, typed_usage.losses_and_gradients, typed_usage.gradients,
        typed_usage.elementwise, typed_usage.sampling, typed_usage.the_rest, typed_usage.lazy,
        typed_usage.dlpack,
    ],
)  # fmt: skip
def test_results_have_the_claimed_types(usage, monkeypatch):
    def assert_type(value, claim):
        assert holds(value, claim), f"{value!r} is no {claim}"

    monkeypatch.setattr(typed_usage, "assert_type", assert_type)
    usage()


@pytest.mark.parametrize("call", typed_usage.REFUSED)
def test_what_types_refuse_is_refused(call):
    with pytest.raises((TypeError, ValueError)):
        call()


@pytest.mark.parametrize("stub", SIGNATURES, ids=lambda node: f"{node.name}:{node.lineno}")
def test_signatures(stub):
    runtime = inspect.signature(getattr(csoftmax, stub.name)).parameters.values()
    arguments = stub.args
    places = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(places) - len(arguments.defaults)) + arguments.defaults
    stubbed = [
        *zip(places, defaults, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    assert [one.name for one in runtime] == [one.arg for one, _ in stubbed]
    for parameter, (_, default) in zip(runtime, stubbed, strict=True):
        if default is not None:    # else an overload for calls that give this one
            assert ast.literal_eval(default) == parameter.default
