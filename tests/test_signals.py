"""Signals during long calls: their handlers run at once, not when the call is over."""

import signal

import pytest

from .helpers import run_checked

COMMON = """
import signal, tracemalloc, numpy as np, csoftmax

row = np.random.default_rng(0).normal(size=500).astype(np.float32)
long = np.broadcast_to(row, (400_000, 500))    # 2 * 10^8 numbers in the memory of 500
square = np.broadcast_to(row, (800, 500, 500))
wide = np.broadcast_to(row[0], (5, 40_000_000))
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
    "a result of the same shape": lambda: csoftmax.softmax(np.zeros((1_500_000, 100), np.float32)),
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
import traceback

def interrupted(name, after=0.005):
    signal.setitimer(signal.ITIMER_REAL, after)
    try:
        CALLS[name]()
    except KeyboardInterrupt as error:
        # Without the source's lines, of which copies would stay.
        frames = traceback.walk_tb(error.__traceback__)
        return [frame.f_code.co_name.rpartition(".")[2] for frame, _ in frames]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    raise SystemExit(f"{name}: not interrupted")

signal.signal(signal.SIGALRM, signal.default_int_handler)
for name, call in CALLS.items():
    expected = call()
    for attempt in range(10):    # the first may come before the kernels have begun
        if "raise_if_stopped" in interrupted(name, 0.002 * (1 + attempt)):
            break
    else:
        raise SystemExit(f"{name}: interrupted, but not from within")
    np.testing.assert_array_equal(call(), expected, err_msg=name)
    del expected
    tracemalloc.start()
    interrupted(name)
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(5):
        interrupted(name)
    growth = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert growth < 10_000, (name, growth)    # a result has 1 MB, scratch memory 20 KB
"""

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="this system has no timers that send signals"
)


@pytest.mark.parametrize("code", [CONTINUED, INTERRUPTED], ids=["continued", "interrupted"])
def test_handlers_run_during_calls(code):
    run_checked(COMMON + code)


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
