"""One call as a whole: which function, what may be wrong with it, making it, checking it."""

import ctypes
import platform
import re
import sys
import traceback

import numpy as np

from ..contract import Error, Failure, require
from ..functions import FUNCTIONS as REGISTRY
from .arguments import Arguments
from .gradients import softmax_jacobian, vjp
from .losses import binary_cross_entropy, cross_entropy, kl_divergence, nll_loss
from .rowwise import entropy, logsumexp, rowwise, sigmoid, softmax_and_logsumexp
from .sampling import sample, top_log_probs

# What draws a function's arguments.
BUILDERS = {
    "softmax": rowwise,
    "log_softmax": rowwise,
    "logsumexp": logsumexp,
    "softmax_and_logsumexp": softmax_and_logsumexp,
    "entropy": entropy,
    "top_log_probs": top_log_probs,
    "sample": sample,
    "cross_entropy": cross_entropy,
    "cross_entropy_value_and_grad": cross_entropy,
    "cross_entropy_grad_and_hess": cross_entropy,
    "nll_loss": nll_loss,
    "kl_divergence": kl_divergence,
    "kl_divergence_value_and_grad": kl_divergence,
    "softmax_vjp": vjp,
    "log_softmax_vjp": vjp,
    "softmax_jacobian": softmax_jacobian,
    "sigmoid": sigmoid,
    "log_sigmoid": sigmoid,
    "binary_cross_entropy": binary_cross_entropy,
    "binary_cross_entropy_value_and_grad": binary_cross_entropy,
}
FUNCTIONS = list(BUILDERS)

# What may be wrong with each parameter; of x, logits and log_probs the same.
WRONG = {
    "axis": ["axis"],
    "x": ["x type"],
    "grad": ["grad type", "grad shape"],
    "y": ["y type"],
    "b": ["b type", "b shape"],
    "where": ["where type", "where shape"],
    "temperature": ["temperature", "temperature shape", "temperature type"],
    "out": ["out shape", "out type", "out read-only"],
    "k": ["k"],
    "top_k": ["top_k"],
    "top_p": ["top_p"],
    "min_p": ["min_p"],
    "size": ["size"],
    "target": ["target shape", "target type"],
    "target_logits": ["target_logits shape", "target_logits type"],
    "weight": ["weight shape", "weight type"],
    "sample_weight": ["sample_weight shape", "sample_weight type"],
    "pos_weight": ["pos_weight shape", "pos_weight type"],
    "reduction": ["reduction"],
    "ignore_index": ["index", "index", "ignore_index"],
    "label_smoothing": ["label_smoothing", "ignore_index of probabilities"],
}
SAME = {"logits": "x", "log_probs": "x", "log_y": "y"}


def wrongs(name):
    parameters = REGISTRY[name].parameters
    return [wrong for one in parameters for wrong in WRONG.get(SAME.get(one, one), ())]


def c_math_library():
    """For its floating-point flags, or None where it isn't glibc's."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return None
    if platform.libc_ver()[0] != "glibc":
        return None
    return ctypes.CDLL("libm.so.6")


LIBM = c_math_library()
ALL_FLAGS, INEXACT = 0x3F, 0x20    # nearly all arithmetic is inexact, also Python's


class Call(Arguments):
    """One random call: its arguments, and which exceptions must come of it."""

    def __init__(self, seed, number):
        self.name = FUNCTIONS[number % len(FUNCTIONS)]
        super().__init__(np.random.default_rng([seed, number]), wrongs(self.name))
        with np.errstate(all="ignore"):
            self.arguments = BUILDERS[self.name](self)

    def in_kernels_alone(self):
        """Whether Python and NumPy compute nothing: they leave flags behind."""
        return self.name != "softmax_jacobian"

    def described(self):
        """The arguments in one line each."""
        lines = [f"csoftmax.{self.name}"]
        named = [*((str(i), one) for i, one in enumerate(self.arguments)), *self.keywords.items()]
        for name, value in named:
            text = repr(value)
            if isinstance(value, np.ndarray):
                text = (
                    f"{value.dtype.str} {value.shape} strides {value.strides} "
                    f"{value.ravel()[:8].tolist()}"
                )
            lines.append(f"    {name}: {text[:300]}")
        return "\n".join(lines)


def perform(call, limits):
    """Make the call and check what comes of it: its `Error`, or None if it was refused."""
    before = [buffer.tobytes() for buffer in call.buffers]
    out, function = call.out, REGISTRY[call.name]
    error = None
    with np.errstate(all="raise"):
        if LIBM:
            LIBM.feclearexcept(ALL_FLAGS)
        try:
            result = function.call(*call.arguments, **call.keywords)
        except Exception as raised:    # whatever it is, it is compared with what is allowed
            error = raised
        flags = LIBM.fetestexcept(ALL_FLAGS & ~INEXACT) if LIBM and call.in_kernels_alone() else 0
    if error is not None and type(error) not in call.errors:
        raise Failure(f"{type(error).__name__}: {error}") from error
    if error is None and call.errors:
        names = " or ".join(one.__name__ for one in call.errors)
        raise Failure(f"no {names} for wrong {call.wrong}")
    if error is None:
        require(not flags, f"floating-point flags 0x{flags:x} are left")
        results = list(result) if isinstance(result, tuple) else [result]
        place = 0 if function.is_out_first else -1
        if out is not None:
            require(results[place] is out, "what is returned is not `out`")
            results[place] = out.astype(out.dtype.newbyteorder("="))
            put_back(out, call.buffers, before)
        for one in results:
            for array, *_ in call.placed:
                require(not np.may_share_memory(one, array), "the result is a part of an input")
        result = tuple(results) if isinstance(result, tuple) else results[0]
    for buffer, was in zip(call.buffers, before, strict=True):
        require(buffer.tobytes() == was, "memory that is not the result's was changed")
    if error is not None:
        return None
    return function.hold(result, limits, *call.arguments, **call.keywords)


def put_back(out, buffers, before):
    """What was in the elements of `out` before the call, and nothing else."""
    for buffer, was in zip(buffers, before, strict=True):
        if np.may_share_memory(out, buffer):
            start = out.__array_interface__["data"][0] - buffer.__array_interface__["data"][0]
            old = np.ndarray(out.shape, out.dtype, was, start, out.strides)
            out[...] = old


def run_many(numbers, seed, limits, progress=None):
    """The calls of these numbers; a table of what they gave, and failures as (number, text).

    For each function: how many calls, how many were refused, the error that was closest to its
    limit, and the number of that call.
    """
    table = {name: [0, 0, Error(), None] for name in FUNCTIONS}
    failures, seen = [], set()
    for number in numbers:
        name = FUNCTIONS[number % len(FUNCTIONS)]
        row = table[name]
        row[0] += 1
        try:
            error = perform(Call(seed, number), limits)
        except Exception as failure:    # of the call, or of the fuzzer itself
            text = f"{type(failure).__name__}: {failure}"
            if not isinstance(failure, Failure):
                text = traceback.format_exc(limit=-3)
            kind = name + re.sub(r"[\d.]+", "", text)
            if kind not in seen:
                seen.add(kind)
                failures.append((number, text))
            if len(failures) >= 20:
                break
            continue
        if error is None:
            row[1] += 1
        elif error > row[2]:
            row[2:] = error, number
        if progress:
            progress(number)
    return table, failures
