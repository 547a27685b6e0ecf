"""A failed allocation is a MemoryError: no crash, no other result, nothing that leaks."""

import faulthandler
import gc
import json
import linecache
import os
import re
import sys
import sysconfig
import traceback
import tracemalloc
from contextvars import copy_context
from pathlib import Path
from types import CodeType, FunctionType

import numpy as np
import pytest

from .functions import CALLS, operands_of
from .helpers import run_checked

# Lengths and numbers of rows, and how they lie: what scratch memory is needed for.
EXTREME = "extreme temperatures"
PATHS = {
    "short rows": ((20, 5), -1, np.copy),    # none
    "long rows": ((2, 9000), -1, np.copy),    # sums of chunks, also of weighed distances
    # A copy of those that are masked, and of the last 8, which no longer fill a vector.
    "columns": ((500, 40), 0, np.copy),
    "rows with gaps": ((100, 400), -1, lambda a: np.repeat(a, 2, axis=-1)[..., ::2]),    # copies
    "shared rows": ((1, 70_000), -1, np.copy),
    "both axes": ((3, 50), None, np.copy),
    "many rows": ((9000, 2), -1, np.copy),    # sums of blocks of losses
    # Memory that is kept afterwards, from 1 MB on.
    "large results": ((1, 300_000), -1, np.copy),
    EXTREME: ((20, 5), -1, np.copy),    # copies of logits that 0 and infinity change
}


def case(name, path):
    """A call without arguments, or None where the function has no such axis."""
    shape, axis, arrange = PATHS[path]
    call = CALLS[name]
    if axis is None and not call.takes_several_axes:
        return None
    if "jacobian" in name and shape[-1] > 200:    # n squared numbers
        return None
    if path == EXTREME and "temperature" not in call.keywords:
        return None
    operands = operands_of(call.operands, shape, np.dtype(np.float32), axis, path == EXTREME)
    operands = {
        key: arrange(array) if array.shape == shape else array for key, array in operands.items()
    }
    return lambda: call(operands, axis)


# For these the kernels need memory of their own.
WITH_SCRATCH = [
    ("softmax", "long rows"), ("softmax", "rows with gaps"), ("softmax, mask", "columns"),
    ("log_softmax, mask", "long rows"), ("entropy", "columns"), ("entropy", "long rows"),
    ("top_log_probs", "long rows"), ("sample", "long rows"), ("sample, filters", "columns"),
    ("logsumexp", "long rows"), ("logsumexp, mask", "rows with gaps"),
    ("logsumexp, b", "long rows"), ("logsumexp, b, mask, sign", "rows with gaps"),
    ("cross_entropy, indices", "long rows"), ("cross_entropy, weight", "many rows"),
    ("cross_entropy, shares", "long rows"), ("cross_entropy, smoothing", "rows with gaps"),
    ("cross_entropy_value_and_grad, shares", "rows with gaps"),
    ("kl_divergence", "columns"), ("kl_divergence_value_and_grad", "long rows"),
    ("softmax_vjp", "rows with gaps"), ("log_softmax_vjp", "long rows"),
    ("binary_cross_entropy, weights", "many rows"),
    ("binary_cross_entropy_value_and_grad, weights", "many rows"),
]  # fmt: skip


def bits_of(results):
    return [np.asarray(result).tobytes() for result in results]


def outcome_of(call, n):
    """What becomes of a call whose allocation number n fails.

    Nothing of it may stay until a collection. CPython has 16 MemoryErrors ready; while they are in
    use, a failed allocation raises one object again and again, whose traceback grows for ever.
    """
    from _testcapi import remove_mem_hooks, set_nomemory

    gc.disable()    # A collection amid the call would change the numbers of what follows it.
    run = copy_context().run    # With it goes an np.errstate that there is no memory to reset.
    run(call)    # Fills lists of free objects: so that the same allocations follow, whatever n was.
    set_nomemory(n, n + 1)
    try:
        try:
            results = run(call)
        finally:
            remove_mem_hooks()
    except Exception as error:    # A name that is there afterwards would make a cycle.
        return kind_of(error)
    return "right" if bits_of(results) == bits_of(call()) else "wrong result"


def kind_of(error):
    if isinstance(error, MemoryError):
        return "own MemoryError" if str(error).startswith("no memory for") else "MemoryError"
    frames = traceback.extract_tb(error.__traceback__)
    if Path(np.__file__).parent in Path(frames[-1].filename).parents or any(
        isinstance(error, kind) and re.match(text, str(error)) for kind, text in NUMPYS_OWN
    ):
        return "NumPy's own error"
    return "".join(traceback.format_exception(error))


# NumPy 2.4 forgets to set an exception where the iterator or a ufunc's arguments have no memory;
# and where axes or an index can't be converted it says that they are wrong.
NUMPYS_OWN = [
    (SystemError, r"<(ufunc '|class 'numpy\.|built-in function where>)"),
    (TypeError, "expected a sequence of integers or a single integer, got 'array"),
    (IndexError, "invalid index to scalar variable"),
    (RuntimeError, "can't allocate lock"),    # a bit generator's
]


def is_numpys_crash(report):
    """Whether it was in a line that calls nothing compiled here.

    NumPy 2.4 goes on without memory for an index.
    """
    frame = re.search(r'File "(.*)", line (\d+) in', report)
    line = linecache.getline(frame[1], int(frame[2])) if frame else ""
    return bool(line) and not re.search(r"\bkernels?(\.\w+)?\(", line)


def references_to_code():
    """A hundred to each function, or generator expression, that is made within another function.

    CPython 3.12 and 3.13 let go of one too many where it has no memory (cpython#122752), and crash
    some calls later.
    """
    functions = [f for f in gc.get_objects() if isinstance(f, FunctionType)]
    return 100 * [c for f in functions for c in f.__code__.co_consts if isinstance(c, CodeType)]


def outcomes(call):
    """For the first allocation, the second, and so on, until none is left that the call needs.

    Children do it, each of which goes on where another one has crashed.
    """
    held = references_to_code()
    for _ in range(20):    # CPython adapts its code meanwhile, and takes memory for that.
        call()
    found, successes = [], 0
    # Some failures are made good (that of a cache, say): one success is not yet the end.
    while successes < 15:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            faulthandler.enable(writer)
            n = len(found)
            while successes < 15:
                outcome = outcome_of(call, n)
                successes = successes + 1 if outcome == "right" else 0
                os.write(writer, (json.dumps(outcome) + "\n").encode())
                n += 1
            os._exit(0)
        os.close(writer)
        with open(reader) as stream:
            lines = stream.readlines()
        status = os.waitpid(child, 0)[1]
        reported = [json.loads(line) for line in lines if line.startswith('"')]
        found += reported
        if status == 0:
            break
        rest = "".join(lines[len(reported) :])
        found.append("NumPy's crash" if is_numpys_crash(rest) else f"status {status}: {rest}")
    del held
    return found


def fail_every_allocation(name):
    allowed = {"right", "MemoryError", "own MemoryError", "NumPy's own error", "NumPy's crash"}
    for path in PATHS:
        call = case(name, path)
        if call is None:
            continue
        expected = bits_of(call())
        found = outcomes(call)
        assert "MemoryError" in found
        for n, outcome in enumerate(found):
            assert outcome in allowed, f"{path}, allocation {n}: {outcome}"
        assert bits_of(call()) == expected


def fail_allocations_of_kernels(name, path):
    """Those that csoftmax reports itself: again and again, which may leave nothing behind."""
    call = case(name, path)
    own = [n for n, outcome in enumerate(outcomes(call)) if outcome == "own MemoryError"]
    assert own, "no allocation that fails is the kernels' own"

    def fail():
        for n in own:    # What is left behind by another one, NumPy's, is not counted.
            outcome = outcome_of(call, n)
            assert outcome == "own MemoryError", f"allocation {n} of {own}: {outcome}"

    growth = growth_of(fail, 30)
    assert growth < 12, f"{growth} bytes"


def run_here(code, **environment):
    """In a process of its own, with what this module defines."""
    run_checked(f"from {__name__} import *\n{code}", **environment)


def needs_testcapi():
    pytest.importorskip("_testcapi", reason="this Python has no _testcapi, which fails allocations")
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("free-threaded Python 3.13 itself crashes after failed allocations")


@pytest.mark.parametrize("name", CALLS)
def test_every_allocation_may_fail(name):
    needs_testcapi()
    run_here(f"fail_every_allocation({name!r})")


@pytest.mark.parametrize(("name", "path"), WITH_SCRATCH, ids=map(": ".join, WITH_SCRATCH))
def test_allocations_of_the_kernels_may_fail(name, path):
    needs_testcapi()
    run_here(f"fail_allocations_of_kernels({name!r}, {path!r})", CSOFTMAX_KEEP_MB="0")


LIMITED = """
import csoftmax, resource
x = np.broadcast_to(np.float32(1), (1, 2**31))
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
for call in (
    csoftmax.softmax, csoftmax.sigmoid,
    lambda x: csoftmax.log_softmax(x, where=True), lambda x: csoftmax.softmax_vjp(x, x),
    lambda x: csoftmax.binary_cross_entropy(x, x),
    lambda x: csoftmax.cross_entropy_value_and_grad(x, [0]),
):
    for _ in range(3):
        try:
            call(x)
        except MemoryError:
            continue
        raise SystemExit("no MemoryError")
np.testing.assert_allclose(csoftmax.logsumexp([0.0, 0.0]), np.log(2))
np.testing.assert_allclose(csoftmax.softmax(np.zeros((3, 9000))), 1 / 9000)
"""

# What is left of the address space is filled, and some of it freed again, by and by.
USED_UP = """
import csoftmax, faulthandler, os, resource
from numpy._core.multiarray import get_handler_name

faulthandler.enable()
large = np.zeros((1, 300_000), np.float32)
csoftmax.set_num_threads(2)
csoftmax.softmax(large[:, :20_000])    # a stack that has to grow needs addresses, too
for turn in range(60):
    child = os.fork()
    if child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, turn
        continue
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    held, length = [], 2**20
    outcomes = set()
    right = csoftmax.softmax(large).tobytes() if turn % 2 else None    # or before any is kept
    resource.setrlimit(resource.RLIMIT_AS, (size + turn % 8 * 2**19, resource.RLIM_INFINITY))
    while length >= 16:
        try:
            held.append(bytearray(length))
        except MemoryError:
            length //= 2
    for _ in range(40):
        try:
            result = csoftmax.softmax(large)
            outcomes.add(right is None or result.tobytes() == right)
        except MemoryError:
            pass
        del held[-1 - len(held) // 10 :]
    del held
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert outcomes <= {True}
    assert csoftmax.softmax(large).any()
    assert get_handler_name() == get_handler_name(np.zeros(3)) == "default_allocator"
    os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is Linux's")
def test_arrays_that_the_system_has_no_memory_for():
    run_here(LIMITED, OPENBLAS_NUM_THREADS="1")


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is Linux's")
def test_large_results_where_the_address_space_is_used_up():
    run_here(USED_UP, OPENBLAS_NUM_THREADS="1")


def growth_of(call, times):
    """Bytes that each of so many calls leaves behind.

    The least of four rounds: Python and NumPy keep blocks for later, but not forever more.
    """
    growth = []
    tracemalloc.start()
    try:
        call()
        gc.collect()    # What the first round took away would hide as much that stays.
        for _ in range(4):
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(times):
                call()
            gc.collect()
            growth.append((tracemalloc.get_traced_memory()[0] - before) / times)
    finally:
        tracemalloc.stop()
    return min(growth)


def assert_nothing_stays(call, times=300):
    """No object, that is: each has a block at least. Counting blocks takes no time, where
    tracemalloc, which the kernels' memory needs, takes most of it."""
    blocks = []
    gc.freeze()    # A collection would go through the objects of the whole suite: 0.4 seconds.
    for _ in range(4):    # Python fills its lists of free objects, in the first round most
        for _ in range(times):
            call()
        gc.collect()
        blocks.append(sys.getallocatedblocks())
    gc.unfreeze()
    assert min(np.diff(blocks)) < times / 2


@pytest.mark.parametrize("name", CALLS)
def test_calls_leave_nothing_behind(name):
    for path in ("short rows", "long rows", "both axes"):
        call = case(name, path)
        if call is not None:
            assert_nothing_stays(call)


@pytest.mark.parametrize("name", CALLS)
def test_refused_calls_leave_nothing_behind(name):
    """Each argument in turn has a type that is refused, after others have been converted."""
    call = CALLS[name]
    operands = operands_of(call.operands, (20, 5), np.dtype(np.float32))
    wrong = np.zeros((20, 5), np.complex64)
    for key in call.operands:

        def refused(key=key):
            try:
                call(operands | {key: wrong})
            except (TypeError, ValueError):    # not pytest.raises, which keeps tracebacks
                return
            raise AssertionError("not refused")

        assert_nothing_stays(refused)
