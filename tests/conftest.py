"""Fixtures: tests that ask for `build` run with every build that this CPU can use."""

import importlib

import numpy as np
import pytest

import csoftmax
from csoftmax import _dispatch

USABLE = [isa for isa in _dispatch.isas_built if isa in _dispatch.isas_supported]
WITH_KERNELS = [
    csoftmax._softmax, csoftmax._losses, csoftmax._gradients, csoftmax._binary, _dispatch
]  # fmt: skip


@pytest.fixture(params=USABLE)
def build(request, monkeypatch):
    """The name of a build; while the test runs, csoftmax's functions use its kernels."""
    kernels = importlib.import_module(_dispatch.MODULES[request.param])
    for module in WITH_KERNELS:
        monkeypatch.setattr(module, "kernels", kernels)
    kernels.set_thread_limit(2)
    yield request.param
    kernels.set_thread_limit(csoftmax._threads.default_limit())


@pytest.fixture
def limits(build):
    """The contract's largest errors in ULP, which depend on whether the build has FMA."""
    has_fma = build != "x86-64-v2"
    return {
        "softmax": 3 if has_fma else 4,
        "softmax with temperature": 4 if has_fma else np.inf,
        "log": 2 if has_fma else 3,
        "log, one class": 4 if has_fma else 5,
        "log with temperature": 4 if has_fma else np.inf,
        "gradient": 4 if has_fma else 5,
        "gradient with temperature": 4 if has_fma else np.inf,
    }


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return np.dtype(request.param)
