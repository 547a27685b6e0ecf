"""The host process is left alone: floating-point unit, signals, files, what others set."""

import ast
import functools
from pathlib import Path

import numpy as np
import pytest

import csoftmax

from . import fenv
from .cases import BFLOAT16, nans, special_rows
from .every_function import OPERANDS, few
from .functions import CALLS, masks, operands_of_rows
from .helpers import run_checked

needs_fenv = pytest.mark.skipif(not fenv.IS_KNOWN, reason="needs glibc on x86-64 or AArch64")
TEMPERATURES = [1.0, 0.7, 0.0, np.inf, 1e-320, 1e-30, 1e300]
TWO_THREADS = {"OMP_NUM_THREADS": "2", "CSOFTMAX_NUM_THREADS": "2"}


def special_inputs(count, n, dtype):
    """NaNs, quiet and signalling, infinities, zeros, subnormal and huge numbers; ordinary rows."""
    rng = np.random.default_rng([count, n])
    smallest, largest = float(np.finfo(dtype).tiny), float(np.finfo(dtype).max)
    extremes = [smallest / 3, -smallest / 8, largest, -largest, 0, -0.0, 1]
    with np.errstate(under="ignore"):
        others = [rng.choice(extremes, size=(count, n)), 30 * rng.normal(size=(count, n))]
        special = special_rows(n, dtype)
        return np.concatenate([special, *(one.astype(dtype) for one in others)])


def special_calls(x):
    """(name, call), of every call, with temperatures of every kind."""
    operands = operands_of_rows(sorted(OPERANDS), x, [0, 0.3, 1, np.inf, 1e-310], special=True)
    for temperature in (*TEMPERATURES, operands["temperature"]):
        some = operands | {"temperature": temperature}
        for name, call in CALLS.items():
            given = few(some, -1) if call.name == "softmax_jacobian" else some
            yield name, functools.partial(call, given)


# For two threads, and for one.
SHAPES = [(6, 5), (180, 65), (3, 4200)]
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


@needs_fenv
@each_shape
def test_no_warning_and_no_flag_for_any_input(shape, dtype, build):
    """FE_INEXACT, which Python's own arithmetic raises all the time, doesn't count."""
    left = {}
    with np.errstate(all="raise"):
        for name, call in list(special_calls(special_inputs(*shape, dtype))):
            fenv.clear_flags()
            call()
            if fenv.flags():
                left.setdefault(name, set()).update(fenv.flags())
    assert not left


@needs_fenv
def test_the_jacobian_leaves_no_flag():
    y = np.array([1e-38, 1], np.float32)
    fenv.clear_flags()
    csoftmax.softmax_jacobian(y, temperature=1e10)
    assert not fenv.flags()


@needs_fenv
@pytest.mark.parametrize(
    ("function", "out_dtype"),
    [
        (csoftmax.logsumexp, np.float16),
        (csoftmax.logsumexp, BFLOAT16),
        (csoftmax.logsumexp, np.float32),
        (lambda x, out: csoftmax.log_softmax_vjp(x, x, out=out), np.float16),
    ],
    ids=["logsumexp float16", "logsumexp bfloat16", "logsumexp float32", "log_softmax_vjp float16"],
)
def test_a_narrower_out_leaves_no_flag(function, out_dtype):
    x = np.array([[0, -1e300], [1e300, 1e300]])
    shape = 2 if function is csoftmax.logsumexp else x.shape
    out = np.empty(shape, out_dtype)
    fenv.clear_flags()
    function(x, out=out)
    assert not fenv.flags()


@needs_fenv
@each_shape
@pytest.mark.parametrize("function", [csoftmax.softmax, csoftmax.log_softmax])
def test_flags_of_before_stay(function, shape, dtype, build):
    """Where NumPy computes, it clears them for every ufunc; here it doesn't."""
    x = special_inputs(*shape, dtype)
    mask = masks(*x.shape)
    for name in fenv.FLAGS:
        for temperature in TEMPERATURES:
            for where in (None, mask):
                fenv.clear_flags()
                fenv.raise_flags([name])
                function(x, temperature=temperature, where=where)
                assert fenv.flags() == {name}
    fenv.clear_flags()


def test_signalling_nan_in_nll_loss(dtype):
    x = np.full((2, 3), nans(dtype)[4])
    with np.errstate(all="raise"):
        csoftmax.nll_loss(x, [0, 1])


@pytest.mark.parametrize("function", [csoftmax.softmax_vjp, csoftmax.log_softmax_vjp])
def test_signalling_nan_in_a_gradient_of_another_type(function):
    grad = np.full((2, 3), nans(np.dtype(np.float32))[4])
    with np.errstate(all="raise"):
        function(grad, np.full((2, 3), 0.3))


def every_call(x):
    """Of all functions, on ordinary rows and on special ones."""
    special = special_calls(special_inputs(6, 65, x.dtype))
    operands = operands_of_rows(sorted(OPERANDS), x, [0.7])
    ordinary = [
        functools.partial(call, few(operands, -1) if call.name == "softmax_jacobian" else operands)
        for call in CALLS.values()
    ]
    return [*ordinary, *(call for _, call in special)]


MODES = {
    "upward": lambda: fenv.set_rounding("upward"),
    "downward": lambda: fenv.set_rounding("downward"),
    "toward zero": lambda: fenv.set_rounding("toward zero"),
    "no subnormals": fenv.flush_subnormals,
}
each_large_shape = pytest.mark.parametrize("shape", [(300, 5), (300, 100), (3, 30_000)], ids=str)


@needs_fenv
@each_large_shape
@pytest.mark.parametrize("mode", MODES)
def test_the_mode_of_the_host_stays(mode, shape, dtype, build):
    """And nothing crashes."""
    every = every_call(np.random.default_rng(0).normal(size=shape).astype(dtype))
    MODES[mode]()
    try:
        before = fenv.control()
        for call in every:
            with np.errstate(all="ignore"):
                call()
            assert fenv.control() == before
    finally:
        fenv.back_to_default()


def check_probabilities(x, mode, temperature):
    right = csoftmax.softmax(x, temperature=temperature)
    MODES[mode]()
    try:
        result = csoftmax.softmax(x, temperature=temperature)
        log_result = csoftmax.log_softmax(x, temperature=temperature)
    finally:
        fenv.back_to_default()
    np.testing.assert_allclose(result, right, rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.exp(log_result), right, rtol=0, atol=1e-5)


@needs_fenv
@each_large_shape
@pytest.mark.parametrize("mode", ["upward", "downward", "toward zero", "no subnormals"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_probabilities_in_the_mode_of_the_host(mode, temperature, shape, dtype, build):
    rng = np.random.default_rng(0)
    x = rng.choice([1, 30, 300], size=(shape[0], 1)) * rng.normal(size=shape)
    for rows in (x, x[:1]):
        check_probabilities(rows.astype(dtype), mode, temperature)


SUBNORMALS = """
import ctypes, sys, threading, numpy as np
from concurrent.futures import ThreadPoolExecutor
from tests import fenv

SMALLEST = [np.float32(1e-45), np.float64(5e-324)]
before = fenv.control()

def check(place):
    for smallest in SMALLEST:
        assert smallest * type(smallest)(1) != 0, place
        assert (np.full(100, smallest) * type(smallest)(1) != 0).all(), place
    assert fenv.control() == before, (place, fenv.control(), before)

check("before import")
pool = ThreadPoolExecutor(1)
pool.submit(check, "thread of before").result()

import csoftmax
from tests.every_function import bits_of_everything
check("after import")
assert csoftmax.get_num_threads() == 2

def compute_and_check(place):
    for threads in (1, 2):
        csoftmax.set_num_threads(threads)
        bits_of_everything()
        check(place)

compute_and_check("main thread")
pool.submit(check, "thread of before, after calls").result()
pool.submit(compute_and_check, "thread of before, its own calls").result()
ThreadPoolExecutor(1).submit(check, "thread of after").result()
ThreadPoolExecutor(1).submit(compute_and_check, "thread of after, its own calls").result()
"""

@needs_fenv
def test_subnormal_numbers_survive():
    run_checked(SUBNORMALS, **TWO_THREADS)


STATE = """
import ctypes, decimal, faulthandler, locale, logging, os, random, signal, sys, threading, warnings
import numpy as np

def environment_of_c():
    if os.name != "posix":
        return None
    entries = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
    values = []
    while entries[len(values)] is not None:
        values.append(entries[len(values)])
    return values

def state():
    return {
        "locale": locale.setlocale(locale.LC_ALL),
        "flags": sys.flags,
        "signals": [signal.getsignal(number) for number in sorted(signal.valid_signals())],
        "environment": dict(os.environ),
        "environment of C": environment_of_c(),
        "directory": os.getcwd(),
        "threads": sorted(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0,
        "python threads": threading.enumerate(),
        "hooks": [
            sys.excepthook, sys.displayhook, sys.unraisablehook, threading.excepthook,
            sys.gettrace(), sys.getprofile(), sys.breakpointhook,
        ],
        "limits": [sys.getrecursionlimit(), sys.getswitchinterval()],
        "path": [*sys.path, *sys.meta_path],
        "warnings": list(warnings.filters),
        "logging": [*logging.root.handlers, logging.root.level],
        "numpy": [np.geterr(), np.geterrcall(), np.get_printoptions(), np.getbufsize()],
        "numpy's allocator": np._core.multiarray.get_handler_name(),
        "random": [random.getstate(), repr(np.random.get_state())],
        "decimal": repr(decimal.getcontext()),
        "faulthandler": faulthandler.is_enabled(),
        "affinity": os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None,
    }

def compare(place):
    after = state()
    for name in before:
        assert after[name] == before[name], (place, name, before[name], after[name])

# Nothing is inherited from the tests' process, which has imported csoftmax.
for name in os.environ.keys() - {"PATH", "LD_LIBRARY_PATH", "SYSTEMROOT"}:
    del os.environ[name]
before = state()
import csoftmax
compare("import")

from tests import every_function
from tests.every_function import bits_of_everything
before["numpy"] = state()["numpy"]
csoftmax.set_num_threads(1)
bits_of_everything()
compare("calls")
large = csoftmax.softmax(np.zeros((1000, 1000)))    # in memory that is kept
compare("a large result")
"""


def test_state_of_the_process():
    """Import and calls change nothing; import doesn't start a thread, nor do calls with one."""
    run_checked(STATE, OMP_NUM_THREADS="2")


OPENED = """
import math, operator, os, pathlib, sys, numpy as np
opened, started = [], []

def hook(event, arguments):
    if event == "open":
        opened.append(str(arguments[0]))
    elif event.startswith(("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_",
                           "os.remove", "os.rename", "os.mkdir", "os.putenv", "os.unsetenv",
                           "signal.", "ctypes.", "marshal.dumps", "pickle.", "tempfile.")):
        started.append((event, arguments))

sys.addaudithook(hook)
import csoftmax
csoftmax.get_num_threads()
csoftmax.show_config("dicts")
x = np.zeros((100, 1000))
csoftmax.cross_entropy_value_and_grad(x, np.zeros(100, int))
csoftmax.softmax(x, temperature=np.ones(100), where=x == 0)
left = [
    path for path in opened
    if not path.endswith((".py", ".pyc", ".so", ".pyd", ".dylib"))
    and ".pyc." not in path    # the cache of a module, when it is first written
    and not path.startswith(("/proc/self/", "/sys/fs/cgroup/"))
]
assert not left, left
assert not [event for event in started if event[0] not in ("os.rename", "os.mkdir")], started
assert any("csoftmax" in path for path in opened)    # the hook works
print(*started, *opened, sep="\\n")
"""


def test_files_that_are_opened():
    """Modules, and what the kernel says of the CPUs; nothing else is started or changed."""
    run_checked(OPENED)


FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "open", "input", "breakpoint"}
FORBIDDEN_MODULES = {
    "ctypes", "dill", "http", "marshal", "multiprocessing", "pickle", "shelve", "shutil", "socket",
    "ssl", "subprocess", "tempfile", "urllib",
}  # fmt: skip
FORBIDDEN_OF_OS = {
    "execv", "execve", "fork", "kill", "popen", "posix_spawn", "putenv", "remove", "setenv",
    "spawnv", "system", "unlink",
}  # fmt: skip


def forbidden_names(source):
    """What a module calls or imports of these."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and node.id in FORBIDDEN_CALLS:
            yield node.id
        elif isinstance(node, ast.Attribute) and node.attr in FORBIDDEN_OF_OS:
            yield node.attr
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names]
            for name in names:
                if name and name.partition(".")[0] in FORBIDDEN_MODULES | FORBIDDEN_CALLS:
                    yield name
        elif isinstance(node, ast.Call):    # import_module("pickle"), getattr(builtins, "eval")
            for argument in node.args:
                value = argument.value if isinstance(argument, ast.Constant) else None
                if value in FORBIDDEN_MODULES | FORBIDDEN_CALLS:
                    yield value


# Those of the package; kernels/ has a tool beside them, which it doesn't contain.
SOURCES = sorted(Path(csoftmax.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_nothing_dangerous_is_used(path):
    # It reads what the kernel says of the CPUs; test_files_that_are_opened sees which files.
    allowed = {"open"} if path.name == "_threads.py" else set()
    assert set(forbidden_names(path.read_text())) <= allowed


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')", "import pickle", "from pickle import loads", "import os, ctypes.util",
        "os.system('x')", "f = exec", "import_module('socket')", "getattr(builtins, 'eval')",
        "from concurrent import x; import urllib.request",
    ],
)  # fmt: skip
def test_dangerous_names_are_found(source):
    assert list(forbidden_names(source))
