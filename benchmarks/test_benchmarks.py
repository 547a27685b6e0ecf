"""``python -m pytest benchmarks``: the same table under pytest-benchmark; results must agree."""

import numpy as np
import pytest

from benchmarks.table import CASES, TABLE, contenders, inputs_for, label
from benchmarks.timing import settle

CELLS = [
    pytest.param(case, operation, name, id=f"{operation}, {case}: {label(name, case)}")
    for case in CASES
    for operation in case.operations
    for name in contenders(operation, case)
]


def assert_agree(result, wanted, dtype):
    """Close enough to be the same function; a table of accuracy is in ``python -m benchmarks``."""
    if isinstance(wanted, tuple):    # loss and gradient
        for one, other in zip(result, wanted, strict=True):
            assert_agree(one, other, dtype)
        return
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(
        np.asarray(result), wanted, rtol=1000 * eps, atol=4 * eps * np.abs(wanted).max()
    )


@pytest.mark.filterwarnings("ignore")    # what the other libraries warn of when they are imported
@pytest.mark.benchmark(max_time=0.2, min_rounds=3, warmup=False)
@pytest.mark.parametrize(("case", "operation", "implementation"), CELLS)
def test_benchmark(benchmark, case, operation, implementation):
    x, target = inputs_for(implementation, case)
    call = TABLE[operation][implementation](x, target, case.axis)
    wanted = TABLE[operation]["csoftmax"](x, target, case.axis)()
    assert_agree(call(), wanted, case.dtype)
    benchmark.group = f"{operation}, {case}"
    benchmark.extra_info["numbers"] = x.size
    settle()
    benchmark(call)
