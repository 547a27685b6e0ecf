"""The memory of large results, which is kept for the next ones (kernels/memory.h)."""

import tracemalloc

import numpy as np
import pytest

import csoftmax

from .helpers import run_checked

pytestmark = pytest.mark.skipif(
    csoftmax.show_config("dicts")["keep_mb"] == 0,
    reason="memory is kept on Linux alone, unless it is turned off",
)


@pytest.fixture(params=[(9000, 700), (900, 300)], ids=["25 MB", "1 MB"])
def x(request):
    return np.random.default_rng(0).normal(size=request.param).astype(np.float32)


def address(array):
    return array.ctypes.data


def test_memory_is_used_again(x):
    first = csoftmax.softmax(x)
    where = address(first)
    expected = first.copy()
    del first
    second = csoftmax.softmax(x)
    assert address(second) == where
    np.testing.assert_array_equal(second, expected)


def test_a_result_that_is_alive_keeps_its_memory(x):
    first = csoftmax.softmax(x)
    expected = first.copy()
    others = [csoftmax.log_softmax(x) for _ in range(3)]
    assert len({address(array) for array in (first, *others)}) == 4
    np.testing.assert_array_equal(first, expected)
    view = first[5:]
    del first, others
    csoftmax.softmax(x)
    np.testing.assert_array_equal(view, expected[5:])


def test_memory_that_is_too_small_or_far_too_large_is_not_used(x):
    where = address(csoftmax.softmax(np.concatenate([x, x, x])))
    small = csoftmax.softmax(x)
    assert address(small) != where
    where = address(small)
    del small
    larger = csoftmax.softmax(np.concatenate([x, x]))
    assert address(larger) != where
    np.testing.assert_array_equal(larger[: len(x)], larger[len(x) :])
    del larger
    np.testing.assert_array_equal(csoftmax.softmax(x)[:9], csoftmax.softmax(x[:9]))


@pytest.mark.parametrize("rows", [1000, 100, -100])
def test_a_result_is_an_ordinary_array(x, rows):
    result = csoftmax.softmax(x)
    assert result.flags.owndata
    assert result.base is None
    expected = result[:10].copy()
    result.resize((len(x) + rows, x.shape[1]), refcheck=False)
    np.testing.assert_array_equal(result[:10], expected)
    assert not result[len(x) :].any()
    del result
    np.testing.assert_array_equal(csoftmax.softmax(x)[:10], expected)


def test_gradients_and_other_layouts_use_it_too(x):
    _, grad = csoftmax.cross_entropy_value_and_grad(x, np.zeros(len(x), int))
    where = address(grad)
    del grad
    result = csoftmax.softmax(np.asfortranarray(x))
    assert address(result) == where
    assert result.flags.c_contiguous


def test_several_results_at_once_and_several_sizes_keep_theirs(x):
    sizes = [x, x, np.concatenate([x] * 5)]
    first = {address(result) for result in [csoftmax.softmax(one) for one in sizes]}
    assert len(first) == 3
    for _ in range(3):
        assert {address(r) for r in [csoftmax.softmax(one) for one in sizes]} == first
        assert address(csoftmax.softmax(x[: len(x) * 99 // 100])) in first


BEGIN = """
import csoftmax
import numpy as np
from numpy._core.multiarray import get_handler_name

def logits(megabytes):
    return np.ones((megabytes * 256, 1024), np.float32)

def of_process(*names):
    '''Megabytes.'''
    with open("/proc/self/smaps_rollup") as file:
        sizes = {line.split()[0]: line.split()[1] for line in file}
    return [int(sizes[f"{name}:"]) / 1024 for name in names]

def allocator(megabytes):
    return get_handler_name(csoftmax.softmax(logits(megabytes)))

def stays(*sizes):
    '''Of results that are alive together: in all, and marked as free.'''
    inputs = [logits(size) for size in sizes]
    (before,) = of_process("Rss")
    results = [csoftmax.softmax(x) for x in inputs]
    del results
    after, free = of_process("Rss", "LazyFree")
    return after - before, free

def settings(**expected):
    config = csoftmax.show_config("dicts")
    assert {key: config[key] for key in expected} == expected
"""

BY_DEFAULT = """
settings(keep_mb=256)
all, free = stays(40, 40, 50)
assert 125 < all < 140, all
# Of each all but its first huge page, and what is left of its last one.
assert free > all - 3 * 4 - 2, (all, free)
all, free = stays(100, 100, 100)
assert all + 130 < 260, all    # the three before are gone
assert allocator(256) == "csoftmax" and allocator(257) == "default_allocator"
"""

SET_TO_50 = """
settings(keep_mb=50)
assert stays(40, 40)[0] < 45
assert allocator(50) == "csoftmax" and allocator(51) == "default_allocator"
"""

TURNED_OFF = """
settings(keep_mb=0)
assert stays(40, 40, 50)[0] < 5
assert allocator(2) == "default_allocator"
"""


def test_what_stays_with_the_process():
    run_checked(BEGIN + BY_DEFAULT)


def test_the_limit_is_an_environment_variable():
    run_checked(BEGIN + SET_TO_50, CSOFTMAX_KEEP_MB="50")
    run_checked(BEGIN + "settings(keep_mb=10**30)", CSOFTMAX_KEEP_MB=str(10**30))


def test_turned_off():
    run_checked(BEGIN + TURNED_OFF, CSOFTMAX_KEEP_MB="0")


@pytest.mark.parametrize("text", ["", "-1", "1.5", "all"])
def test_a_limit_that_is_no_number(text):
    run_checked(
        """
try:
    import csoftmax
except ImportError as error:
    assert "CSOFTMAX_KEEP_MB" in str(error) and "at least 0" in str(error)
else:
    raise SystemExit("no ImportError")
""",
        CSOFTMAX_KEEP_MB=text,
    )


FROM_MANY_THREADS = """
from concurrent.futures import ThreadPoolExecutor
inputs = [np.random.default_rng(i).normal(size=(300 + 60 * i, 1000)) for i in range(6)]
expected = [csoftmax.softmax(x).copy() for x in inputs]

def work(seed):
    kept = {}
    for i in np.random.default_rng(seed).integers(6, size=200):
        kept[i % 3] = i, csoftmax.softmax(inputs[i])
        for j, result in kept.values():
            assert (result[::50] == expected[j][::50]).all()

with ThreadPoolExecutor(4) as pool:
    list(pool.map(work, range(4)))
"""


def test_from_many_threads():
    run_checked(BEGIN + FROM_MANY_THREADS)


ADDRESSES = """
def addresses():
    '''Megabytes.'''
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * 4096 / 2**20

x = np.ones((275, 1024), np.float32)
csoftmax.softmax(x)
before = addresses()
results = [csoftmax.softmax(x) for _ in range(1000)]
assert addresses() - before < 1.1 * 1000 * x.nbytes / 2**20, addresses() - before
"""


def test_a_thousand_results_take_the_addresses_of_their_numbers():
    run_checked(BEGIN + ADDRESSES)


# NumPy's C interface, by its table of addresses; its allocator functions as C has them.
OWN_ALLOCATOR = """
import ctypes as c

class Allocator(c.Structure):
    _fields_ = [(name, c.c_void_p) for name in ("context", "malloc", "calloc", "realloc", "free")]

class Handler(c.Structure):
    _fields_ = [("name", c.c_char * 127), ("version", c.c_uint8), ("allocator", Allocator)]

libc = c.CDLL(None)
libc.malloc.restype = libc.calloc.restype = libc.realloc.restype = c.c_void_p
libc.malloc.argtypes = [c.c_size_t]
libc.calloc.argtypes = [c.c_size_t] * 2
libc.realloc.argtypes = [c.c_void_p, c.c_size_t]
libc.free.argtypes = [c.c_void_p]
MALLOC = c.CFUNCTYPE(c.c_void_p, c.c_void_p, c.c_size_t)
CALLOC = c.CFUNCTYPE(c.c_void_p, c.c_void_p, c.c_size_t, c.c_size_t)
REALLOC = c.CFUNCTYPE(c.c_void_p, c.c_void_p, c.c_void_p, c.c_size_t)
FREE = c.CFUNCTYPE(None, c.c_void_p, c.c_void_p, c.c_size_t)
functions = (
    MALLOC(lambda context, size: libc.malloc(size)),
    CALLOC(lambda context, count, size: libc.calloc(count, size)),
    REALLOC(lambda context, data, size: libc.realloc(data, size)),
    FREE(lambda context, data, size: libc.free(data)),
)
addresses = [c.cast(function, c.c_void_p) for function in functions]
handler = Handler(b"my own", 1, Allocator(None, *addresses))

api = c.pythonapi
api.PyCapsule_GetPointer.restype = c.c_void_p
api.PyCapsule_GetPointer.argtypes = [c.py_object, c.c_char_p]
api.PyCapsule_New.restype = c.py_object
api.PyCapsule_New.argtypes = [c.c_void_p, c.c_char_p, c.c_void_p]
table = c.cast(
    api.PyCapsule_GetPointer(np._core._multiarray_umath._ARRAY_API, None), c.POINTER(c.c_void_p)
)
set_handler = c.PYFUNCTYPE(c.py_object, c.py_object)(table[304])
"""

HOSTS_OWN = """
before = set_handler(api.PyCapsule_New(c.addressof(handler), b"mem_handler", None))
x = logits(2)
own = csoftmax.softmax(x)
assert get_handler_name(own) == get_handler_name(x) == "my own"
set_handler(before)
again = csoftmax.softmax(x)
assert get_handler_name(again) == "csoftmax"
np.testing.assert_array_equal(own, again)
del own, x
"""


def test_the_allocator_of_a_host_is_used():
    run_checked(BEGIN + OWN_ALLOCATOR + HOSTS_OWN)


def test_tracemalloc_sees_results(x):
    tracemalloc.start()
    try:
        result = csoftmax.softmax(x)
        assert x.nbytes <= tracemalloc.get_traced_memory()[0] < x.nbytes + 100_000
        del result
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()
