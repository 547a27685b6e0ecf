"""How many threads are used, and that nothing depends on it."""

import importlib
import math
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import csoftmax
from csoftmax import _threads
from csoftmax._dispatch import MODULES

from .cases import KINDS, rows
from .functions import CALLS, FUNCTIONS
from .helpers import USABLE, run, run_checked

PRINT_THREADS = "import csoftmax; print(csoftmax.get_num_threads())"


@pytest.fixture(autouse=True)
def default_threads():
    yield
    csoftmax.set_num_threads(None)


EVERY_REGIME = """
import numpy as np, csoftmax
from tests.cases import contiguous, random_rows, side_by_side, special_rows
from tests.every_function import OPERANDS, bits_of_calls
from tests.functions import CALLS, arranged, operands_of_rows

OF_ROWS = {
    name: call for name, call in CALLS.items() if {"mask", "temperature"} & {*call.operands}
}

OF_PRODUCTS = {name: call for name, call in CALLS.items() if "grad" in call.operands}

def in_groups(x):
    return np.ascontiguousarray(x.reshape(-1, 37, x.shape[1]).swapaxes(1, 2)), 1

def with_gaps(x):
    return np.repeat(x, 2, axis=1)[:, ::2], -1

# Rows, their length, layouts. Each of 5 threads has 12288 numbers; some have a row more.
COLUMNS = [
    (20_501, 3, contiguous, side_by_side), (1667, 37, contiguous, with_gaps),
    (1554, 40, in_groups), (629, 100, in_groups), (311, 199, side_by_side),
]
ROWS = [
    (311, 199, contiguous, with_gaps), (127, 500, contiguous, with_gaps),
    (17, 4099, contiguous, with_gaps), (7, 10_007, contiguous), (3, 41_001, contiguous),
    (1, 82_003, contiguous),
]
THREADS = (1, 2, 5)

def check(logits, layout):
    operands = operands_of_rows(sorted(OPERANDS), logits, [1, 0.3, 7], special=True)
    operands, axis = arranged(operands, layout)
    mask, temperature = operands["mask"], operands["temperature"]
    extreme = np.random.default_rng(0).choice(EXTREME, temperature.shape)
    expected = None
    for threads in THREADS:
        csoftmax.set_num_threads(threads)
        assert csoftmax.get_num_threads() == threads
        bits = bits_of_calls(operands | {"temperature": extreme}, axis)
        bits |= {
            (name, "one mask"): result for name, result in
            bits_of_calls(operands | {"mask": mask[:1]}, axis, OF_ROWS).items()
        }
        bits |= {    # with NaN in both, of other bits
            (name, "logits twice"): result for name, result in bits_of_calls(
                operands | dict.fromkeys(("grad", "y", "log_y"), operands["logits"]), axis,
                OF_PRODUCTS,
            ).items()
        }
        expected = expected or bits
        different = [name for name in bits if bits[name] != expected[name]]
        assert not different, (logits.dtype, logits.shape, layout.__name__, threads, different)

EXTREME = [1, 0.3, 0, np.inf]
for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
    for count, n, *layouts in COLUMNS + ROWS:
        logits = random_rows(count, n, dtype)
        for layout in layouts:
            check(logits, layout)
        if count < 10:    # a last row with two NaNs, in other chunks
            logits[-1] = special_rows(n, dtype)[13]
            check(logits, contiguous)
    ordinary = np.random.default_rng(0).normal(size=(1667, 37)).astype(dtype)
    check(ordinary, contiguous)
"""


@pytest.mark.parametrize("isa", USABLE)
def test_same_bits_in_every_regime_for_any_number_of_threads(isa):
    run_checked(EVERY_REGIME, CSOFTMAX_ISA=isa, CSOFTMAX_NUM_THREADS="1", OMP_NUM_THREADS="5")


def test_calls_are_of_every_public_function():
    """So that tests of all functions are."""
    others = {"__version__", "get_num_threads", "reference", "set_num_threads", "show_config"}
    assert FUNCTIONS.keys() == {call.name for call in CALLS.values()}
    assert FUNCTIONS.keys() == set(csoftmax.__all__) - others


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


def test_limits():
    for threads in (1, 2, 5):
        csoftmax.set_num_threads(threads)
        assert csoftmax.get_num_threads() <= threads
    csoftmax.set_num_threads(1)
    assert csoftmax.get_num_threads() == 1
    csoftmax.set_num_threads(np.int64(2))
    csoftmax.set_num_threads(10**12)
    csoftmax.set_num_threads(None)
    assert csoftmax.get_num_threads() <= _threads.cpus_of_process()[0]


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
    for name in (_threads.VARIABLE, "CSOFTMAX_KEEP_MB"):    # Python converts 4300 digits
        result = run(PRINT_THREADS, **{name: "1" * 5000})
        assert f"ImportError: csoftmax: {name}='1111" in result.stderr
        assert "(5000 characters)'; it must be a whole number" in result.stderr


@pytest.mark.parametrize(
    ("group", "files", "cpus"),
    [
        ("0::/\n", {}, math.inf),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/a/b\n", {"a/b/cpu.max": "200000 100000\n"}, 2),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "max 100000\n"}, 2),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "700000 100000\n"}, 2),
        ("0::/of/the/host\n", {"cpu.max": "300000 100000\n"}, 3),
        ("0::/a\n", {"b/cpu.max": "300000 100000\n", "a/memory.max": "1\n"}, math.inf),
        ("0::/a:b\n", {"a:b/cpu.max": "300000 100000\n"}, 3),
        ("5:memory:/m\n4:cpu,cpuacct:/a\n0::/\n",
         {"cpu/a/cpu.cfs_quota_us": "300000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 3),
        ("4:cpuacct,cpu:/\n",
         {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ("4:cpu:/a\n", {"cpu/cpu.cfs_quota_us": "90\n", "cpu/cpu.cfs_period_us": "100\n"}, 1),
        ("0::/\n", {"cpu.max": "nonsense"}, math.inf),
        ("nonsense\n\n0::/a\n", {"a/cpu.max": "200000 100000\n"}, 2),
        ("0::/\udcff\n", {"cpu.max": "200000 100000\n"}, 2),
    ],
)  # fmt: skip
def test_cgroup_quota(tmp_path, group, files, cpus):
    (tmp_path / "cgroup").write_text(group, errors="surrogateescape")
    for name, text in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert _threads.cgroup_quota(tmp_path / "cgroup", tmp_path / "fs") == cpus
    assert _threads.cgroup_quota(tmp_path / "missing", tmp_path / "fs") == math.inf


SHARED_INPUTS = """
import threading, numpy as np, csoftmax
from concurrent.futures import ThreadPoolExecutor
from tests.every_function import bits_of_everything

SHAPES = [(5000, 5), (3, 9000)]
csoftmax.set_num_threads(1)
expected = bits_of_everything(shapes=SHAPES)
csoftmax.set_num_threads(3)
"""

AT_ONCE = """
with ThreadPoolExecutor(8) as pool:
    for results in pool.map(lambda _: bits_of_everything(shapes=SHAPES), range(16)):
        assert results == expected
"""

MEANWHILE = """
import itertools
done = threading.Event()
def change():
    for threads in itertools.cycle((1, 2, 3, 1, None)):
        csoftmax.set_num_threads(threads)
        if done.wait(1e-4):
            break
changing = threading.Thread(target=change)
changing.start()
try:
    with ThreadPoolExecutor(4) as pool:
        for results in pool.map(lambda _: bits_of_everything(shapes=SHAPES), range(16)):
            assert results == expected
finally:
    done.set()
    changing.join()
"""

SHORT_LIVED = """
import os, time
x = np.random.default_rng(0).normal(size=(40, 1000)).astype(np.float32)
results = []
expected = csoftmax.softmax(x).tobytes()
def threads_of_process():
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
before = threads_of_process()
for _ in range(50):
    some = [
        threading.Thread(target=lambda: results.append(csoftmax.softmax(x).tobytes()))
        for _ in range(4)
    ]
    for thread in some:
        thread.start()
    for thread in some:
        thread.join()
assert results == [expected] * 200
for _ in range(100):    # the system's threads end a little after Python's
    if threads_of_process() == before:
        break
    time.sleep(0.05)
assert threads_of_process() == before    # the helpers are everybody's
"""


@pytest.mark.parametrize(
    "script", [AT_ONCE, MEANWHILE, SHORT_LIVED], ids=["at once", "limit changes", "short-lived"]
)
def test_python_threads(script):
    run_checked(SHARED_INPUTS + script, OMP_NUM_THREADS="3")


def test_many_python_threads_at_once(dtype):
    inputs = [np.random.default_rng(i).normal(size=(40, 1000)).astype(dtype) for i in range(40)]
    expected = [csoftmax.softmax(x) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        for mine, right in zip(pool.map(csoftmax.softmax, inputs), expected, strict=True):
            np.testing.assert_array_equal(mine, right)


needs_openmp = pytest.mark.skipif(
    not csoftmax.show_config("dicts")["openmp"],
    reason="built without OpenMP, whose limits don't hold then",
)
has_affinity = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system has no affinity masks"
)
ON_ONE_CPU = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "


@has_affinity
@pytest.mark.parametrize(
    ("environment", "call", "threads"),
    [
        # OpenMP's limit is above the others here, though libgomp would have taken the mask's.
        ({"OMP_NUM_THREADS": "8"}, "", 1),
        ({"OMP_NUM_THREADS": "8", "CSOFTMAX_NUM_THREADS": "3"}, "", 3),
        ({"OMP_NUM_THREADS": "8", "CSOFTMAX_NUM_THREADS": "3"}, "csoftmax.set_num_threads(5)", 5),
        ({"OMP_NUM_THREADS": "8", "CSOFTMAX_NUM_THREADS": "3"}, "csoftmax.set_num_threads(2)", 2),
        (
            {"OMP_NUM_THREADS": "8", "CSOFTMAX_NUM_THREADS": "3"},
            "csoftmax.set_num_threads(5); csoftmax.set_num_threads(None)", 3,
        ),
        # And caps all of them.
        pytest.param(
            {"OMP_NUM_THREADS": "2", "CSOFTMAX_NUM_THREADS": "3"}, "", 2, marks=needs_openmp
        ),
        pytest.param(
            {"OMP_NUM_THREADS": "2", "CSOFTMAX_NUM_THREADS": "3"}, "csoftmax.set_num_threads(5)", 2,
            marks=needs_openmp,
        ),
        pytest.param(
            {"OMP_NUM_THREADS": "2"}, "csoftmax.set_num_threads(10**20)", 2, marks=needs_openmp
        ),
    ],
)  # fmt: skip
def test_order_of_the_limits(environment, call, threads):
    """In a process that may use one CPU: which limit is in force."""
    script = f"{ON_ONE_CPU}import csoftmax\n{call}\nprint(csoftmax.get_num_threads())"
    assert int(run_checked(script, **environment)) == threads


@has_affinity
@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="one CPU"
)
def test_affinity_of_later_is_taken_when_asked_for():
    """None is the default of now, not that of the import."""
    script = f"import csoftmax; before = csoftmax.get_num_threads(); {ON_ONE_CPU}"
    script += "csoftmax.set_num_threads(None); print(before > 1, csoftmax.get_num_threads())"
    assert run_checked(script, OMP_NUM_THREADS="8").split() == ["True", "1"]


BOUND = """
import os
cpus = os.sched_getaffinity(0)
import csoftmax, numpy as np
before = os.sched_getaffinity(0)
assert len(before) == 1, "not bound"
assert csoftmax.get_num_threads() == len(cpus), csoftmax.show_config("dicts")
csoftmax.set_num_threads(2)
csoftmax._dispatch.kernels.ask_always(True)
x = np.random.default_rng(0).normal(size=(300, 10_000))
results = {csoftmax.softmax(x).tobytes() for _ in range(9)}
csoftmax.set_num_threads(1)
assert results == {csoftmax.softmax(x).tobytes()}
assert os.sched_getaffinity(0) == before
masks = []
for thread in os.listdir("/proc/self/task"):
    with open(f"/proc/self/task/{thread}/comm") as file:
        if file.read().strip() == "csoftmax":
            masks.append(os.sched_getaffinity(int(thread)))
assert len(masks) == 1 and masks[0] - before, (masks, before)    # not on the caller's CPU alone
"""


@has_affinity
@needs_openmp
@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="one CPU"
)
@pytest.mark.parametrize("variable", ["OMP_PROC_BIND", "GOMP_CPU_AFFINITY", "OMP_PLACES"])
def test_openmp_binds_the_thread_that_loads_it(variable):
    """But all of its places are ours."""
    places = " ".join(map(str, sorted(os.sched_getaffinity(0))))
    value = {"OMP_PROC_BIND": "true", "GOMP_CPU_AFFINITY": places, "OMP_PLACES": "threads"}
    script = BOUND
    if "libgomp" not in run_checked("import csoftmax; print(open('/proc/self/maps').read())"):
        pytest.skip("another OpenMP than libgomp, which binds later, or nothing")
    run_checked(script, **{variable: value[variable]})


THREADPOOLCTL = """
import numpy as np, csoftmax
from threadpoolctl import threadpool_limits
from tests.every_function import bits_of_everything

assert csoftmax.get_num_threads() == 3
expected = bits_of_everything(shapes=[(5000, 5), (3, 9000)])
for limit in (1, 2, 8):
    with threadpool_limits(limit):
        assert csoftmax.get_num_threads() == min(limit, 3)
        assert bits_of_everything(shapes=[(5000, 5), (3, 9000)]) == expected
        csoftmax.set_num_threads(5)
        assert csoftmax.get_num_threads() == min(limit, 5)
        csoftmax.set_num_threads(None)
    assert csoftmax.get_num_threads() == 3
"""


@needs_openmp
def test_threadpoolctl():
    run_checked(THREADPOOLCTL, OMP_NUM_THREADS="4", CSOFTMAX_NUM_THREADS="3")


@pytest.mark.parametrize(
    "environment",
    [
        {"OMP_THREAD_LIMIT": "1"}, {"OMP_DYNAMIC": "true"}, {"OMP_SCHEDULE": "dynamic,1"},
        {"OMP_PROC_BIND": "true"}, {"OMP_MAX_ACTIVE_LEVELS": "0"},
    ],
    ids=lambda environment: next(iter(environment)),
)  # fmt: skip
def test_fewer_openmp_threads_than_asked_for(environment):
    """The results are complete, whatever OpenMP makes of the number of threads."""
    script = """
import numpy as np
from tests.every_function import bits_of_everything
import csoftmax
results = bits_of_everything()
csoftmax.set_num_threads(1)
assert results == bits_of_everything()
"""
    run_checked(script, OMP_NUM_THREADS="3", CSOFTMAX_NUM_THREADS="3", **environment)


ON_SMALL_STACK = """
import threading
import numpy as np
from tests.cases import random_rows
from tests.every_function import OPERANDS, bits_of_calls
from tests.functions import operands_of_rows

def compute():
    for shape in [(300, 7), (130, 70), (3, 20_000)]:
        for dtype in (np.float32, np.float64):
            x = random_rows(*shape, np.dtype(dtype), 0)
            operands = operands_of_rows(sorted(OPERANDS), x, [1, 0.7, 1e-40], special=True)
            for axis in (-1, 0):
                if axis == 0:
                    operands = {name: np.asarray(x).T for name, x in operands.items()}
                bits_of_calls(operands, axis)

compute()    # imports what it needs where there is room
threading.stack_size(64 * 1024)
thread = threading.Thread(target=compute)
thread.start()
thread.join()
"""


@pytest.mark.parametrize("isa", USABLE)
def test_every_function_runs_on_a_stack_of_64_kib(isa):
    run_checked(ON_SMALL_STACK, CSOFTMAX_ISA=isa)
