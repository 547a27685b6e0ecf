"""Beside PyTorch and scikit-learn in one process.

Each brings OpenMP. scikit-learn's libgomp has a name of its own; PyTorch's has the common one, so
that csoftmax has the same, PyTorch's or the system's, whichever is loaded first.
"""

import json

import numpy as np
import pytest

import csoftmax

from ..helpers import run_checked

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

NAMES = ["csoftmax", "torch", "sklearn"]
# Threads that wait don't take the time of the other libraries' threads.
TWO_THREADS = {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}

# Each library is imported when its function is first called.
LIBRARIES = """
import hashlib, json, os, sys, numpy as np

rng = np.random.default_rng(0)
LOGITS = [
    rng.normal(size=shape).astype(dtype)
    for shape in ((5000, 7), (300, 130), (3, 40_000)) for dtype in (np.float32, np.float64)
]
SAMPLES = rng.normal(size=(3000, 8))
LABELS = (SAMPLES[:, 0] * SAMPLES[:, 1] > 0).astype(int) + (SAMPLES[:, 2] > 1)

def digest(arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()

def of_csoftmax():
    import csoftmax
    results = []
    for x in LOGITS:
        loss, grad = csoftmax.cross_entropy_value_and_grad(x, np.zeros(len(x), int))
        y = csoftmax.softmax(x)
        results += [
            y, csoftmax.log_softmax(x), csoftmax.logsumexp(x), loss, grad, csoftmax.entropy(x),
            csoftmax.softmax_vjp(x, y), csoftmax.sigmoid(x), csoftmax.softmax(x, where=x > 0),
        ]
    return digest(results)

def of_torch():
    import torch
    results = []
    for x in map(torch.from_numpy, LOGITS):
        results += [torch.softmax(x, -1), torch.log_softmax(x, -1), torch.logsumexp(x, -1)]
    return digest(result.numpy() for result in results)

def of_sklearn():
    from sklearn.ensemble import HistGradientBoostingClassifier
    model = HistGradientBoostingClassifier(max_iter=3, random_state=0).fit(SAMPLES, LABELS)
    return digest([model.predict_proba(SAMPLES)])

FUNCTIONS = {"csoftmax": of_csoftmax, "torch": of_torch, "sklearn": of_sklearn}
"""

ALONE = """
[name] = {names!r}
print(json.dumps({{name: FUNCTIONS[name]()}}))
others = {{"csoftmax", "torch", "sklearn"}} - {{name}}
assert not others & sys.modules.keys()
"""

TOGETHER = """
import importlib, threading
from concurrent.futures import ThreadPoolExecutor

NAMES = {names!r}
for name in NAMES:
    importlib.import_module(name)

results = {{name: FUNCTIONS[name]() for name in NAMES}}
print(json.dumps(results))

for name in [*NAMES, *reversed(NAMES), *NAMES]:
    assert FUNCTIONS[name]() == results[name], name

with ThreadPoolExecutor(4) as pool:
    names = NAMES * 3
    for name, result in zip(names, pool.map(lambda name: FUNCTIONS[name](), names), strict=True):
        assert result == results[name], name

# In a child, of csoftmax alone: others may need OpenMP threads that stay in the parent.
if hasattr(os, "fork"):
    child = os.fork()
    if child == 0:
        os._exit(0 if of_csoftmax() == results["csoftmax"] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for name in NAMES:
        assert FUNCTIONS[name]() == results[name], name
"""


@pytest.fixture(scope="module")
def results_alone():
    """Digests of what each library returns in a process where it is the only one."""
    results = {}
    for name in NAMES:
        output = run_checked(LIBRARIES + ALONE.format(names=[name]), **TWO_THREADS)
        results |= json.loads(output)
    return results


@pytest.mark.parametrize(
    "names",
    [["csoftmax", "torch", "sklearn"], ["torch", "sklearn", "csoftmax"],
     ["sklearn", "csoftmax", "torch"]],
    ids=" ".join,
)  # fmt: skip
def test_same_bits_together(names, results_alone):
    """In turn, in Python threads at once, and after a fork, whatever was imported first."""
    output = run_checked(LIBRARIES + TOGETHER.format(names=names), **TWO_THREADS)
    assert json.loads(output) == results_alone


LIMIT = """
import csoftmax, torch
assert (csoftmax.get_num_threads(), torch.get_num_threads()) == (2, 2)
for threads in (1, 2, 1, None):
    csoftmax.set_num_threads(threads)
    csoftmax.softmax([[1.0] * 50_000] * 2)
    assert torch.get_num_threads() == 2
torch.set_num_threads(1)    # which is OpenMP's limit, where both have the same OpenMP
assert csoftmax.get_num_threads() <= 2
torch.set_num_threads(2)
assert csoftmax.get_num_threads() == 2
"""


def test_a_limit_is_not_that_of_torch():
    run_checked(LIMIT, CSOFTMAX_NUM_THREADS="2", **TWO_THREADS)


FLUSHED = """
import numpy as np, torch, csoftmax
x = np.random.default_rng(0).normal(size=(300, 130)).astype(np.float32)
expected = csoftmax.softmax(x)
assert torch.set_flush_denormal(True)
np.testing.assert_allclose(csoftmax.softmax(x), expected, rtol=1e-6)
smallest = torch.tensor([1e-310], dtype=torch.float64)
assert (smallest * 1 == 0).all()    # what was asked for of torch is still so
torch.set_flush_denormal(False)
csoftmax.softmax(x)
assert (smallest * 1 != 0).all()
"""


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this CPU can't flush subnormals")
def test_subnormal_numbers_are_what_torch_wants():
    run_checked(FLUSHED, **TWO_THREADS)


@pytest.mark.parametrize("shape", [(5, 7), (3000, 130), (3, 40_000)], ids=str)
def test_results_in_the_memory_of_tensors(shape, dtype):
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    expected = csoftmax.softmax(x)
    tensor = torch.full(shape, torch.nan, dtype=torch.from_numpy(x).dtype)
    assert csoftmax.softmax(x, out=tensor.numpy()).ctypes.data == tensor.data_ptr()
    np.testing.assert_array_equal(tensor.numpy(), expected)

    in_place = torch.from_numpy(x.copy())
    csoftmax.softmax(in_place.numpy(), out=in_place.numpy())
    assert torch.equal(in_place, tensor)
    torch.testing.assert_close(tensor, torch.softmax(torch.from_numpy(x), -1))

    columns = torch.full(shape[::-1], torch.nan, dtype=tensor.dtype)
    csoftmax.softmax(x, out=columns.T.numpy())
    assert torch.equal(columns.T, tensor)


def test_memory_of_a_result_that_a_tensor_holds(dtype):
    """csoftmax keeps the memory of large results, but not while a tensor uses it."""
    x = np.random.default_rng(0).normal(size=(3000, 500)).astype(dtype)
    tensor = torch.from_numpy(csoftmax.softmax(x))
    expected = tensor.clone()
    others = [csoftmax.log_softmax(x) for _ in range(3)]
    assert tensor.data_ptr() not in {other.ctypes.data for other in others}
    assert torch.equal(tensor, expected)
