"""The threads that share a call (kernels/threads.h): in processes of their own."""

import os
import sys

import pytest

from .helpers import run_checked

needs_proc = pytest.mark.skipif(
    not os.path.isdir("/proc/self/task"), reason="needs Linux's /proc to look at threads"
)

BEGIN = """
import os, sys, threading, time
import numpy as np
import csoftmax
from csoftmax._dispatch import kernels

def logits(*shape, dtype=np.float32):
    return np.random.default_rng(0).normal(0, 4, shape).astype(dtype)

def helpers():
    return csoftmax.show_config("dicts")["helper_threads"]

def until(condition, seconds=60):
    '''Whether it came true.'''
    end = time.monotonic() + seconds
    while not condition():    # asked once: it may be true for this moment only
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
    return True

def threads_of_helpers():
    names = {}
    for thread in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{thread}/comm") as file:
            names[int(thread)] = file.read().strip()
    return [thread for thread, name in names.items() if name == "csoftmax"]

def status(thread):
    with open(f"/proc/self/task/{thread}/status") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}
"""

EVERY_WAY = """
x, columns, long_row = logits(400, 1000), logits(40, 8000), logits(1, 500_000)
short_rows, strided = logits(30_000, 10), logits(400, 2000)[:, ::2]
grad, target = logits(400, 1000), np.zeros(400, int)
WAYS = {
    "rows": lambda: csoftmax.softmax(x),
    "columns": lambda: csoftmax.softmax(columns, axis=0),
    "short rows": lambda: csoftmax.log_softmax(short_rows),
    "rows with gaps": lambda: csoftmax.softmax(strided),
    "one long row": lambda: csoftmax.softmax(long_row),
    "vjp of a long row": lambda: csoftmax.softmax_vjp(long_row, long_row),
    "losses and gradients": lambda: csoftmax.cross_entropy_value_and_grad(x, target),
    "numbers": lambda: csoftmax.sigmoid(x),
    "sums": lambda: kernels.total(long_row),
}
kernels.ask_always(True)
for name, call in WAYS.items():
    before = kernels.thread_state()["calls_helped"]
    def is_helped():
        call()
        return kernels.thread_state()["calls_helped"] > before
    assert until(is_helped), name
"""


def test_helpers_take_part_on_every_way():
    run_checked(BEGIN + EVERY_WAY, CSOFTMAX_NUM_THREADS="2", OMP_NUM_THREADS="2")


AS_MANY_AS_THE_WORK_IS_WORTH = """
assert csoftmax.get_num_threads() == 64
small, large = logits(30, 1000), logits(2000, 1000)
expected = csoftmax.softmax(small).tobytes(), csoftmax.softmax(large[:10]).tobytes()
assert helpers() <= 1
for _ in range(2000):
    assert csoftmax.softmax(small).tobytes() == expected[0]
assert helpers() <= 1, "30,000 numbers are work for two threads"
kernels.ask_always({always})
for _ in range(200):
    assert csoftmax.softmax(large)[:10].tobytes() == expected[1]
assert helpers() == 63
"""


@pytest.mark.parametrize("always", [False, True])
def test_a_limit_far_above_the_number_of_cpus(always):
    script = BEGIN + AS_MANY_AS_THE_WORK_IS_WORTH.format(always=always)
    run_checked(script, CSOFTMAX_NUM_THREADS="64", OMP_NUM_THREADS="64")


NO_THREADS = """
import resource
x = logits(400, 1000)
expected = csoftmax.softmax(x).copy()
csoftmax.set_num_threads(4)
kernels.ask_always(True)
with open("/proc/self/statm") as file:
    size = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
# Results fit, the stacks of threads don't.
resource.setrlimit(resource.RLIMIT_AS, (size + 2**22, resource.RLIM_INFINITY))
for _ in range(20):
    assert (csoftmax.softmax(x) == expected).all()
assert helpers() == 0
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert until(lambda: (csoftmax.softmax(x) == expected).all() and helpers() == 3)
"""


@needs_proc
def test_no_thread_to_be_had():
    """Calls are computed alone, until there is one."""
    run_checked(BEGIN + NO_THREADS, CSOFTMAX_NUM_THREADS="1", OMP_NUM_THREADS="4")


AFTER_A_SUBINTERPRETER = """
import _testcapi
x = logits(400, 1000)
assert _testcapi.run_in_subinterp("import sys") == 0
kernels.ask_always(True)
expected = csoftmax.softmax(x)
assert _testcapi.run_in_subinterp("import sys") == 0
assert (csoftmax.softmax(x) == expected).all()
assert helpers() == 1

import signal
handled = []
signal.signal(signal.SIGALRM, lambda *_: handled.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
csoftmax.logsumexp(np.broadcast_to(x[0], (300_000, 1000)))
signal.setitimer(signal.ITIMER_REAL, 0)
assert len(handled) > 2
assert _testcapi.run_in_subinterp('''
try:
    import csoftmax
except ImportError:
    pass
else:
    raise SystemExit("imported")
''') == 0
assert (csoftmax.softmax(x) == expected).all()
"""


def test_after_a_subinterpreter():
    pytest.importorskip("_testcapi", reason="this Python has no _testcapi")
    run_checked(BEGIN + AFTER_A_SUBINTERPRETER, CSOFTMAX_NUM_THREADS="2", OMP_NUM_THREADS="2")


AS_THREADS_OF_THE_SYSTEM = """
import signal
x = logits(400, 1000)
kernels.ask_always(True)
assert until(lambda: csoftmax.softmax(x) is not None and kernels.thread_state()["calls_helped"] > 0)
# The call may be over before the second helper has begun, and given itself a name.
assert until(lambda: len(threads_of_helpers()) == helpers() == 2), threads_of_helpers()
helpers_threads = threads_of_helpers()
assert until(lambda: all(status(t)["State"].startswith("S") for t in helpers_threads)), "awake"
blocked = [int(status(t)["SigBlk"], 16) for t in helpers_threads]
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGALRM, signal.SIGUSR1):
    assert all(mask >> number - 1 & 1 for mask in blocked), number
for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE):
    assert not any(mask >> number - 1 & 1 for mask in blocked), number
mine = os.sched_getaffinity(0)
assert all(os.sched_getaffinity(t) <= mine for t in helpers_threads)
"""


@needs_proc
def test_helpers_sleep_take_no_signals_and_stay_on_the_callers_cpus():
    run_checked(BEGIN + AS_THREADS_OF_THE_SYSTEM, CSOFTMAX_NUM_THREADS="3", OMP_NUM_THREADS="3")


ON_ONE_CPU = """
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})    # which helpers inherit
x = logits(400, 1000)
expected = csoftmax.softmax(x)
# Helper and caller take turns: shared calls are no faster, which is debt, and the next are not
# shared.
def are_alone():
    assert (csoftmax.softmax(x) == expected).all()
    return not csoftmax.show_config("dicts")["helpers_pay"]
assert csoftmax.get_num_threads() == 2
assert until(are_alone)
"""


@needs_proc
def test_helpers_without_a_cpu_are_not_asked():
    run_checked(BEGIN + ON_ONE_CPU, CSOFTMAX_NUM_THREADS="2", OMP_NUM_THREADS="2")


IN_BAD_COMPANY = """
import subprocess
x = logits(400, 1000)
expected = csoftmax.softmax(x)
others = [
    subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() + 1)
]
try:
    for _ in range(500):
        assert (csoftmax.softmax(x) == expected).all()
finally:
    for other in others:
        other.kill()
        other.wait()
"""


def test_right_in_bad_company():
    run_checked(BEGIN + IN_BAD_COMPANY, CSOFTMAX_NUM_THREADS="2", OMP_NUM_THREADS="2")


IN_A_PARALLEL_REGION = """
import ctypes
libgomps = {line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line}
limits = {}

@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def region(_):
    limits[threading.get_native_id()] = csoftmax.get_num_threads()

assert csoftmax.get_num_threads() == 2
if csoftmax.show_config("dicts")["openmp"] and len(libgomps) == 1:
    ctypes.CDLL(libgomps.pop()).GOMP_parallel(region, None, 2, 0)
    assert list(limits.values()) == [1, 1], limits
    print("tried")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's /proc")
def test_one_thread_in_a_parallel_region_of_the_host():
    """As OpenMP has it."""
    script = BEGIN + IN_A_PARALLEL_REGION
    if not run_checked(script, CSOFTMAX_NUM_THREADS="2", OMP_NUM_THREADS="2"):
        pytest.skip("only a build with libgomp can try")
