"""How many threads are used, and that nothing depends on it."""

import importlib
import math
import os
import sys

import numpy as np
import pytest

import csoftmax
from csoftmax import _threads
from csoftmax._dispatch import MODULES

from .cases import KINDS, rows
from .test_dispatch import USABLE, run

PRINT_THREADS = "import csoftmax; print(csoftmax.get_num_threads())"


@pytest.fixture(autouse=True)
def default_threads():
    yield
    csoftmax.set_num_threads(None)


COMPARE = """
import numpy as np, csoftmax
assert csoftmax.get_num_threads() == 1
for dtype in (np.float32, np.float64):
    for shape in ((64, 1000), (3, 40_000), (30_000, 5), (1, 200_000), (7, 12_345)):
        for axis in (0, 1):
            x = np.random.default_rng(0).normal(size=shape).astype(dtype)
            target = np.zeros(shape[1 - axis], int)
            results = []
            for threads in (1, 2, 3, 8):
                csoftmax.set_num_threads(threads)
                assert csoftmax.get_num_threads() == threads
                results.append([
                    csoftmax.softmax(x, axis), csoftmax.log_softmax(x, axis),
                    csoftmax.logsumexp(x, axis),
                    *csoftmax.cross_entropy_value_and_grad(x, target, axis),
                ])
            for other in results[1:]:
                for mine, right in zip(other, results[0], strict=True):
                    np.testing.assert_array_equal(mine, right)
"""


def test_same_bits_for_any_number_of_threads():
    """In a process whose OpenMP has eight threads, whatever the machine has."""
    result = run(COMPARE, OMP_NUM_THREADS="8", CSOFTMAX_NUM_THREADS="1")
    assert result.returncode == 0, result.stderr


EVERY_PATH = """
import numpy as np, csoftmax

def results_of(x, axis, target, temperature):
    out = [np.full(x.shape, np.nan, x.dtype) for _ in range(3)]
    keywords = dict(axis=axis, temperature=temperature)
    csoftmax.softmax(x, out=out[0], **keywords)
    csoftmax.log_softmax(x, out=out[1], **keywords)
    loss, _ = csoftmax.cross_entropy_value_and_grad(
        x, target, out=out[2], reduction="none", **keywords
    )
    other_loss = csoftmax.cross_entropy(x, target, reduction="none", **keywords)
    return [*out, loss, other_loss, csoftmax.logsumexp(x, axis)]

def contiguous(x):
    return x, -1

def side_by_side(x):
    return np.ascontiguousarray(x.T), 0

def with_gaps(x):
    return np.repeat(x, 2, axis=1)[:, ::2], -1

# Rows, their length, layouts. Each of 7 threads has 16384 numbers; some have a row more.
CASES = [
    (40_001, 3, contiguous, side_by_side), (3101, 37, contiguous, with_gaps),
    (577, 199, contiguous, side_by_side, with_gaps),
    (241, 500, contiguous, side_by_side, with_gaps),
    (29, 4099, contiguous, with_gaps), (7, 20_011, contiguous), (3, 70_001, contiguous),
    (1, 200_003, contiguous),
]
CASES = [(rows, n, layout) for rows, n, *layouts in CASES for layout in layouts]

for dtype in (np.float32, np.float64):
    for i, (rows, n, layout) in enumerate(CASES):
        rng = np.random.default_rng(i)
        x = rng.normal(size=(rows, n)) * rng.choice([1, 30], size=(rows, 1))
        x += rng.choice([0, 0, 0, 300, -2100], size=(rows, 1))
        x, axis = layout(x.astype(dtype))
        target = rng.integers(n, size=rows)
        target[::7] = -100
        for temperature in (
            1.0, rng.choice([1, 0.3, 7], size=rows), rng.choice([1, 0.3, 0, np.inf], size=rows)
        ):
            expected = None
            for threads in (1, 2, 3, 4, 7):
                csoftmax.set_num_threads(threads)
                assert csoftmax.get_num_threads() == threads
                results = results_of(x, axis, target, temperature)
                bits = [result.tobytes() for result in results]
                expected = expected or bits
                assert bits == expected, (dtype, rows, n, layout, temperature, threads)
"""


@pytest.mark.parametrize("isa", USABLE)
def test_same_bits_on_every_path_for_any_number_of_threads(isa):
    """Threads that wait don't take the time of those that work, though the machine has fewer."""
    result = run(EVERY_PATH, CSOFTMAX_ISA=isa, OMP_NUM_THREADS="7", OMP_WAIT_POLICY="passive")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("n", [1, 5, 64, 65, 127, 128, 129, 1000, 4096, 5000])
def test_a_row_has_the_same_bits_wherever_it_stands(n, dtype, build):
    x = np.concatenate([rows(kind, 2, n, dtype) for kind in KINDS])
    expected = csoftmax.softmax(x)
    for row, right in zip(x, expected, strict=True):
        for result in csoftmax.softmax(np.stack([row, row])):    # a single short row may differ
            np.testing.assert_array_equal(result, right)


WITH_FMA = [isa for isa in ("x86-64-v3", "x86-64-v4") if isa in USABLE]


@pytest.mark.skipif(len(WITH_FMA) < 2, reason="this CPU has not two builds with FMA to compare")
@pytest.mark.parametrize("n", [1, 5, 64, 129, 1000, 5000])
def test_same_bits_for_builds_with_fma(n, dtype):
    x = np.concatenate([rows(kind, 2, n, dtype) for kind in KINDS])
    one, other = (importlib.import_module(MODULES[isa]) for isa in WITH_FMA)
    for temperature in (1.0, 0.7):
        for name in ("softmax", "log_softmax"):
            mine, right = (getattr(kernels, name)(x, temperature) for kernels in (one, other))
            np.testing.assert_array_equal(mine, right)


FORK = """
import os, sys, numpy as np, csoftmax
x = np.random.default_rng(0).normal(size=(100, 20_000))
csoftmax.set_num_threads(2)
expected = csoftmax.softmax(x)
child = os.fork()
if child == 0:
    csoftmax.set_num_threads(2)
    os._exit(0 if (csoftmax.softmax(x) == expected).all() else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_after_fork():
    """libgomp's threads are not in the child: a parallel region there would wait forever."""
    assert run(FORK, OMP_NUM_THREADS="2").returncode == 0


OUT_OF_MEMORY = """
import resource, numpy as np, csoftmax
x = np.broadcast_to(np.float32(1), (1, 2**31))
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
for call in (csoftmax.logsumexp, lambda x: csoftmax.cross_entropy(x, [0])):
    try:
        call(x)
    except MemoryError:
        continue
    raise SystemExit("no MemoryError")
np.testing.assert_allclose(csoftmax.logsumexp([0.0, 0.0]), np.log(2))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is Linux's")
def test_a_failed_allocation_is_a_memory_error():
    result = run(OUT_OF_MEMORY, OPENBLAS_NUM_THREADS="1")
    assert result.returncode == 0, result.stderr


def test_limits():
    for threads in (1, 2, 5):
        csoftmax.set_num_threads(threads)
        assert csoftmax.get_num_threads() <= threads
    csoftmax.set_num_threads(1)
    assert csoftmax.get_num_threads() == 1
    csoftmax.set_num_threads(np.int64(2))
    csoftmax.set_num_threads(10**12)
    csoftmax.set_num_threads(None)
    assert csoftmax.get_num_threads() <= _threads.cpus_of_process()


@pytest.mark.parametrize("n", [0, -1])
def test_numbers_that_are_refused(n):
    with pytest.raises(ValueError, match=f"at least 1.*got {n}"):
        csoftmax.set_num_threads(n)


@pytest.mark.parametrize("n", [1.0, "2", [1]])
def test_types_that_are_refused(n):
    with pytest.raises(TypeError, match="integer or None, got"):
        csoftmax.set_num_threads(n)


def test_environment():
    assert run(PRINT_THREADS, CSOFTMAX_NUM_THREADS="1").stdout.strip() == "1"
    assert run(PRINT_THREADS, OMP_NUM_THREADS="1").stdout.strip() == "1"
    for wrong in ("0", "two", "", "-1", "1.5"):
        result = run(PRINT_THREADS, CSOFTMAX_NUM_THREADS=wrong)
        assert f"ImportError: csoftmax: CSOFTMAX_NUM_THREADS='{wrong}'" in result.stderr


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, math.inf),
        ({"cpu.max": "max 100000\n"}, math.inf),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu.max": "nonsense"}, math.inf),
    ],
)
def test_cgroup_quota(tmp_path, files, cpus):
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert _threads.cgroup_quota(tmp_path) == cpus


def test_many_python_threads_at_once(dtype):
    from concurrent.futures import ThreadPoolExecutor

    inputs = [np.random.default_rng(i).normal(size=(40, 1000)).astype(dtype) for i in range(40)]
    expected = [csoftmax.softmax(x) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        for mine, right in zip(pool.map(csoftmax.softmax, inputs), expected, strict=True):
            np.testing.assert_array_equal(mine, right)
