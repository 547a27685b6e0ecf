"""Calls of every public function, for tests of what must not change the bits of their results."""

import functools

import numpy as np

import csoftmax

from .cases import random_rows
from .functions import CALLS, LOGITS, WITH_OUT, operands_of_rows

# Otherwise what the machine does beside the tests would decide how many threads they use.
csoftmax._dispatch.kernels.ask_always(True)

OPERANDS = {name for call in CALLS.values() for name in call.operands}
SHAPES = [(5000, 7), (300, 130), (3, 12_000), (1, 40_000)]


def bits(results):
    """NaNs are different if any of their bits is."""
    return [np.asarray(result).tobytes() for result in results]


def few(operands, axis):
    """Some short rows, of which there may be n squared numbers."""
    y = np.moveaxis(operands["y"], axis, -1)[..., :9]
    y = y.reshape(-1, y.shape[-1])[:50]
    temperature = np.asarray(operands["temperature"])
    if temperature.ndim:
        temperature = temperature.reshape(-1)[:50]
    return {"y": y, "temperature": temperature}


def bits_of_calls(operands, axis=-1, calls=CALLS):
    """By name."""
    return {
        name: bits(call(*((few(operands, axis),) if "jacobian" in name else (operands, axis))))
        for name, call in calls.items()
    }


def bits_in_place(operands):
    """By name, of what has an `out`, in the place of the first operand."""
    found = {}
    for name, call in WITH_OUT.items():
        if call.out == LOGITS:
            copy = operands[call.places[0]].copy()
            found[f"{name}, in place"] = bits(call(operands | {call.places[0]: copy}, -1, copy))
    return found


@functools.cache
def operands_of_shape(shape, dtype, seed):
    x = random_rows(*shape, np.dtype(dtype), seed)
    return operands_of_rows(sorted(OPERANDS), x, [1, 0.7, 3.3], special=True)


def bits_of_everything(seed=0, shapes=SHAPES):
    """Of every function, on inputs of both types that are large enough for two threads."""
    everything = {}
    for dtype in ("float32", "float64"):
        for shape in shapes:
            operands = operands_of_shape(tuple(shape), dtype, seed)
            if shape[0] % 2:    # else one for each row
                operands = operands | {"temperature": 0.7}
            for name, result in (bits_of_calls(operands) | bits_in_place(operands)).items():
                everything[dtype, shape, name] = result
    return everything
