"""Signals during long calls: their handlers run at once, not when the call is over."""

import signal

import pytest

from .helpers import run, run_checked

COMMON = """
import signal, tracemalloc, numpy as np, csoftmax

row = np.random.default_rng(0).normal(size=500).astype(np.float32)
long = np.broadcast_to(row, (400_000, 500))    # 2 * 10^8 numbers in the memory of 500
square = np.broadcast_to(row, (800, 500, 500))
wide = np.broadcast_to(row[0], (5, 40_000_000))
tall = np.broadcast_to(row[:8].astype(float), (6_000_000, 8))    # one unit of work
lower = tall[:1_500_000]
half = np.broadcast_to(row[:8] > 0, lower.shape)
few = np.full(8, 3)
indices = np.broadcast_to(np.int64(3), (400_000,))
mask = np.broadcast_to(row > 0, square.shape)
CALLS = {
    "rows": lambda: csoftmax.logsumexp(long),
    "few rows that threads share": lambda: csoftmax.logsumexp(wide),
    "rows with gaps": lambda: csoftmax.logsumexp(np.broadcast_to(row[::2], (800_000, 250))),
    "columns": lambda: csoftmax.logsumexp(np.broadcast_to(row, (400, 1000, 500)), axis=1),
    "masked groups": lambda: csoftmax.logsumexp(square, where=mask),
    "class indices": lambda: csoftmax.cross_entropy(long, indices, reduction="none"),
    "distributions": lambda: csoftmax.cross_entropy(long, indices, label_smoothing=0.1),
    "entropy": lambda: csoftmax.entropy(long, temperature=0.7),
    "divergence": lambda: csoftmax.kl_divergence(long, long[::-1], temperature=0.7),
    "the first classes": lambda: csoftmax.top_log_probs(long, 3),
    "draws": lambda: csoftmax.sample(long, top_k=9, rng=0),
    "draws from rows that threads share": lambda: csoftmax.sample(wide, rng=0),
    "many draws of rows": lambda: csoftmax.sample(long[:2000], size=1500, rng=0),
    "single numbers": lambda: csoftmax.binary_cross_entropy(wide, wide),
    "few long columns": lambda: csoftmax.logsumexp(tall, axis=0),
    "entropy of columns": lambda: csoftmax.entropy(lower, axis=0, temperature=0.7),
    "masked columns": lambda: csoftmax.logsumexp(lower, axis=0, where=half),
    "weighted columns": lambda: csoftmax.logsumexp(tall, axis=0, b=tall),
    "class indices of columns": lambda: csoftmax.cross_entropy(
        lower, few, axis=0, label_smoothing=0.1
    ),
    "divergence of columns": lambda: csoftmax.kl_divergence(lower, lower[::-1], axis=0),
    "one long row": lambda: csoftmax.logsumexp(np.broadcast_to(row[0], (1, 200_000_000))),
    "a long row at an extreme temperature": lambda: csoftmax.entropy(
        np.broadcast_to(row[0], (1, 200_000_000)), temperature=1e-40
    ),
    "the first classes of a long row": lambda: csoftmax.top_log_probs(
        np.broadcast_to(row[0], (1, 4_000_000)), 2_000_000
    ),
    "a result of the same shape": lambda: csoftmax.softmax(np.zeros((1_500_000, 100), np.float32)),
}
"""

ALONE = """
CALLS = {
    name: CALLS[name] for name in ("rows", "few long columns", "one long row", "draws", "entropy")
}
"""

CONTINUED = """
for name, call in CALLS.items():
    expected = call()
    handled = []
    signal.signal(signal.SIGALRM, lambda *_: handled.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    result = call()
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert len(handled) > 2, name    # once, or twice, if they wait for the end of the call
    np.testing.assert_array_equal(result, expected, err_msg=name)
"""

INTERRUPTED = """
import time, traceback

def interrupted(name, after):
    try:
        signal.setitimer(signal.ITIMER_REAL, after)
        CALLS[name]()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt as error:
        # Without the source's lines, of which copies would stay.
        frames = traceback.walk_tb(error.__traceback__)
        return [frame.f_code.co_name.rpartition(".")[2] for frame, _ in frames]
    return []    # too late

signal.signal(signal.SIGALRM, signal.default_int_handler)
for name, call in CALLS.items():
    begin = time.perf_counter()
    expected = call()
    whole = time.perf_counter() - begin
    for attempt in range(1, 20):    # the first may come before the kernels have begun
        after = whole * attempt / 20
        if "raise_if_stopped" in interrupted(name, after):
            break
    else:
        raise SystemExit(f"{name}: interrupted, but not from within")
    np.testing.assert_array_equal(call(), expected, err_msg=name)
    del expected
    tracemalloc.start()
    interrupted(name, after)
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(5):
        interrupted(name, after)
    growth = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert growth < 10_000, (name, growth)    # a result has 1 MB, scratch memory 20 KB
"""

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="this system has no timers that send signals"
)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("code", [CONTINUED, INTERRUPTED], ids=["continued", "interrupted"])
def test_handlers_run_during_calls(code, threads):
    some = ALONE if threads == 1 else ""
    run_checked(COMMON + some + code, CSOFTMAX_NUM_THREADS=str(threads), OMP_NUM_THREADS="2")


HANDLER_THAT_CALLS = """
results = []
signal.signal(signal.SIGALRM, lambda *_: results.append(csoftmax.softmax(row)))
expected, right = csoftmax.softmax(row), csoftmax.logsumexp(long)
signal.setitimer(signal.ITIMER_REAL, 0.002, 0.01)
result = csoftmax.logsumexp(long)
signal.setitimer(signal.ITIMER_REAL, 0)
np.testing.assert_array_equal(result, right)
assert len(results) > 2
for one in results:
    np.testing.assert_array_equal(one, expected)
"""


def test_a_handler_that_calls_csoftmax():
    run_checked(COMMON + HANDLER_THAT_CALLS)


SWALLOWED = """
class Stop(Exception):
    pass

def stop(*_):
    raise Stop

swallowed = []

def swallow(*_):
    '''Calls csoftmax, and is interrupted by the other handler.'''
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    try:
        csoftmax.logsumexp(wide)
        raise SystemExit("not interrupted")
    except Stop:
        swallowed.append(1)

right = csoftmax.logsumexp(wide)
for _ in range(5):
    signal.signal(signal.SIGALRM, swallow)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    np.testing.assert_array_equal(csoftmax.logsumexp(wide), right)
assert len(swallowed) == 5
"""


def test_what_stops_a_call_stops_no_other():
    """The call of a handler, whose exception it swallows, and the one that it interrupts."""
    run_checked(COMMON + SWALLOWED)


AT_ONCE = """
import os, threading

class Stop(Exception):
    pass

def stop(*_):
    raise Stop

def swallow(*_):
    try:
        csoftmax.logsumexp(long)
    except Stop:
        pass

right = csoftmax.logsumexp(wide)
for stopping, swallowing in ((signal.SIGUSR1, signal.SIGUSR2), (signal.SIGUSR2, signal.SIGUSR1)):
    signal.signal(stopping, stop)
    signal.signal(swallowing, swallow)
    for turn in range(10):
        def send():
            for number in (stopping, swallowing) if turn % 2 else (swallowing, stopping):
                os.kill(os.getpid(), number)
        sending = threading.Timer(0.005 * turn, send)
        outcome = None
        try:
            sending.start()
            outcome = csoftmax.logsumexp(wide)
            sending.join()
        except Stop:
            sending.join()
        if outcome is not None:
            np.testing.assert_array_equal(outcome, right)
"""


def test_handlers_of_two_signals_at_once():
    """One raises, one calls csoftmax: the call is complete, or raises."""
    run_checked(COMMON + AT_ONCE)


FORKED = """
import os, sys
right = csoftmax.logsumexp(wide)
csoftmax._dispatch.kernels.ask_always(True)
children = []
signal.signal(signal.SIGALRM, lambda *_: children.append(os.fork()))
signal.setitimer(signal.ITIMER_REAL, 0.02)
try:
    result = csoftmax.logsumexp(wide)
except RuntimeError as error:
    assert children == [0] and "forked" in str(error), (children, error)
    assert (csoftmax.logsumexp(wide) == right).all()    # with a helper of its own
    os._exit(0)
np.testing.assert_array_equal(result, right)
if children == [0]:
    os._exit(0)
assert len(children) == 1
assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
"""


def test_a_handler_that_forks():
    """The child has lost the helpers, and what they would have computed."""
    run_checked(COMMON + FORKED, CSOFTMAX_NUM_THREADS="2", OMP_NUM_THREADS="2")


AT_EXIT = """
import ctypes, sys, threading, time
on_exit = getattr(ctypes.CDLL(None), "on_exit", None)
if on_exit:    # after Python's end: sleep(status)
    on_exit(ctypes.CDLL(None).sleep, None)

def call_forever():
    while True:
        csoftmax.logsumexp(wide)

for _ in range(3):
    threading.Thread(target=call_forever, daemon=True).start()
time.sleep(0.2)
sys.exit(1)
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_daemon_threads_amid_calls_at_exit(threads):
    """They run no handlers, so they need nothing of Python, whose end they outlive here."""
    result = run(
        COMMON + AT_EXIT, CSOFTMAX_NUM_THREADS=str(threads), OMP_NUM_THREADS=str(threads)
    )
    assert result.returncode == 1, result.stderr
    assert not result.stderr
