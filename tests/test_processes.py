"""After fork, and in pools of processes: nothing hangs, and every function has the same bits.

A child that waits for threads which stayed in its parent hangs; then `run` ends it.
"""

import multiprocessing
import os

import pytest

from .helpers import run_checked

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

TWO_THREADS = {"OMP_NUM_THREADS": "2", "CSOFTMAX_NUM_THREADS": "2"}

# Its helper exists when this is done.
PARENT = """
import os, threading, traceback, numpy as np, csoftmax
from tests.every_function import bits_of_everything

assert csoftmax.get_num_threads() == 2
expected = bits_of_everything()

def compute_and_compare():
    assert bits_of_everything() == expected

def in_child(function):
    '''Call it in a fork's child. Whether that went well.'''
    child = os.fork()
    if child == 0:
        try:
            function()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

def in_thread(function):
    '''Call it in another Python thread; the result.'''
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]
"""

CHILD = """
assert in_child(compute_and_compare)
compute_and_compare()    # in the parent, too
"""

HAS_HELPERS = """
def have_helpers():
    assert csoftmax.get_num_threads() == 2
    config = csoftmax.show_config("dicts")
    assert config["helper_threads"] == 0, config
    helped = csoftmax._dispatch.kernels.thread_state()["calls_helped"]
    compute_and_compare()
    assert csoftmax.show_config("dicts")["helper_threads"] == 1
    assert csoftmax._dispatch.kernels.thread_state()["calls_helped"] > helped
assert in_child(have_helpers)
assert csoftmax.show_config("dicts")["helper_threads"] == 1
"""

CHILD_OF_A_CHILD = """
def fork_again():
    assert in_child(compute_and_compare)
    csoftmax.set_num_threads(2)
    compute_and_compare()
    assert in_child(compute_and_compare)
assert in_child(fork_again)
compute_and_compare()
"""

FROM_ANOTHER_THREAD = """
def compute_and_fork():
    compute_and_compare()
    return in_child(compute_and_compare)
assert in_thread(compute_and_fork)
assert in_thread(lambda: in_child(compute_and_compare))
assert in_child(lambda: in_thread(compute_and_compare))
"""

THREADS_IN_CHILD = """
from concurrent.futures import ThreadPoolExecutor

def use_threads():
    for threads in (None, 2):
        csoftmax.set_num_threads(threads)
        with ThreadPoolExecutor(4) as pool:
            some = pool.map(lambda _: bits_of_everything(), range(8))
            compute_and_compare()
            for results in some:
                assert results == expected
assert in_child(use_threads)
"""

DURING_CALLS = """
# Large enough that most of the time is spent in the kernels, with the GIL released; a result of
# several MB has memory that is kept.
x = np.random.default_rng(0).normal(size=(40, 20_000)).astype(np.float32)
probabilities = csoftmax.softmax(x).tobytes()
done = threading.Event()
failures = []

def call_repeatedly():
    while not done.is_set():
        if csoftmax.softmax(x).tobytes() != probabilities:
            failures.append("parent")

def child():
    csoftmax.set_num_threads(2)
    assert csoftmax.softmax(x).tobytes() == probabilities
    compute_and_compare()

calling = [threading.Thread(target=call_repeatedly) for _ in range(2)]
for thread in calling:
    thread.start()
try:
    for _ in range(10):
        assert in_child(child)
finally:
    done.set()
    for thread in calling:
        thread.join()
assert not failures
"""

@needs_fork
@pytest.mark.parametrize(
    "script",
    [CHILD, HAS_HELPERS, CHILD_OF_A_CHILD, FROM_ANOTHER_THREAD, THREADS_IN_CHILD, DURING_CALLS],
    ids=[
        "child", "helpers", "child of a child", "from another thread", "threads in the child",
        "during calls",
    ],
)  # fmt: skip
def test_after_fork(script):
    """Its parent's helpers are not in the child, which has helpers of its own."""
    run_checked(PARENT + script, **TWO_THREADS)


BEFORE_IMPORT = """
import os, sys, numpy as np
child = os.fork()
import csoftmax
from tests.every_function import bits_of_everything
assert csoftmax.get_num_threads() == 2
results = bits_of_everything()
csoftmax.set_num_threads(1)
assert results == bits_of_everything()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@needs_fork
def test_fork_before_import():
    """Both processes have threads of their own, and use them."""
    run_checked(BEFORE_IMPORT, **TWO_THREADS)


POOL = """
import multiprocessing
with multiprocessing.get_context({method!r}).Pool(2) as pool:
    results = pool.map(bits_of_everything, [0, 1, 0, 2], chunksize=1)
assert results == [bits_of_everything(seed) for seed in (0, 1, 0, 2)]
assert results[0] == expected
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip("this system has no such start method")
    run_checked(PARENT + POOL.format(method=method), **TWO_THREADS)


EXECUTOR = """
from concurrent.futures import ProcessPoolExecutor
with ProcessPoolExecutor(2) as pool:
    for results in pool.map(bits_of_everything, [0] * 4):
        assert results == expected
compute_and_compare()
"""


def test_process_pool_executor():
    run_checked(PARENT + EXECUTOR, **TWO_THREADS)


JOBLIB = """
import joblib
for backend in ("loky", "threading"):
    with joblib.parallel_config(backend=backend, n_jobs=2):
        for results in joblib.Parallel()(joblib.delayed(bits_of_everything)(0) for _ in range(4)):
            assert results == expected

# A limit that joblib sets in its workers holds.
with joblib.parallel_config(backend="loky", n_jobs=2, inner_max_num_threads=1):
    threads = joblib.Parallel()(joblib.delayed(csoftmax.get_num_threads)() for _ in range(4))
assert threads == [1] * 4 or not csoftmax.show_config("dicts")["openmp"]
compute_and_compare()
"""


def test_joblib():
    run_checked(PARENT + JOBLIB, **TWO_THREADS)


DRAWS = """
import os, numpy as np
from csoftmax import sample

def draw():
    return sample(np.zeros(1_000_000), size=5).tolist()

draws = [draw()]
for _ in range(2):
    end, other_end = os.pipe()
    if not os.fork():
        os.write(other_end, repr(draw()).encode())
        os._exit(0)
    os.wait()
    draws.append(os.read(end, 1000).decode())
draws.append(draw())
assert len(set(map(str, draws))) == 4, draws
"""


@needs_fork
def test_draws_after_fork():
    """Without a generator no process draws what another does."""
    run_checked(DRAWS)
