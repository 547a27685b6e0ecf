"""``python -m pytest benchmarks``: the same table under pytest-benchmark; results must agree."""

import numpy as np
import pytest

from benchmarks.table import CASES, TABLE, call_for, contenders, inputs_for, label
from benchmarks.timing import settle

# A case of more numbers, of which each round takes seconds, is left to ``python -m benchmarks``.
LARGEST = 50_000_000

CELLS = [
    pytest.param(case, operation, name, id=f"{operation}, {case}: {label(name, case)}")
    for case in CASES
    if case.size <= LARGEST
    for operation, name in contenders(case)
]


def assert_agree(result, wanted, case):
    """Close enough to be the same function; a table of accuracy is in ``python -m benchmarks``."""
    if isinstance(wanted, tuple):    # loss and gradient
        for one, other in zip(result, wanted, strict=True):
            assert_agree(one, other, case)
        return
    eps = np.finfo(case.dtype).eps
    # A sum that runs through all of a row in one float32 loses digits with the row's length.
    rtol = (1000 + case.shape[case.axis] / 1000) * eps
    np.testing.assert_allclose(
        np.asarray(result), wanted, rtol=rtol, atol=4 * eps * np.abs(wanted).max()
    )


@pytest.mark.filterwarnings("ignore")    # what the other libraries warn of when they are imported
@pytest.mark.benchmark(max_time=0.1, min_rounds=2, warmup=False)
@pytest.mark.parametrize(("case", "operation", "implementation"), CELLS)
def test_benchmark(benchmark, case, operation, implementation):
    x, target = inputs_for(implementation, case)
    call = call_for(operation, implementation, case)
    wanted = TABLE[operation]["csoftmax"](x, target, case.axis)()
    assert_agree(call(), wanted, case)
    benchmark.group = f"{operation}, {case}"
    benchmark.extra_info["numbers"] = x.size
    settle()
    benchmark(call)
