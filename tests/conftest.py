"""Fixtures: tests that ask for `build` run with every build that this CPU can use."""

import importlib

import numpy as np
import pytest

import csoftmax
from csoftmax import _dispatch

from .exact import limits_of

USABLE = [isa for isa in _dispatch.isas_built if isa in _dispatch.isas_supported]
WITH_KERNELS = [
    csoftmax._softmax, csoftmax._losses, csoftmax._divergence, csoftmax._gradients,
    csoftmax._binary, csoftmax._sampling, _dispatch,
]  # fmt: skip


@pytest.fixture(params=USABLE)
def build(request, monkeypatch):
    """The name of a build; while the test runs, csoftmax's functions use its kernels."""
    kernels = importlib.import_module(_dispatch.MODULES[request.param])
    for module in WITH_KERNELS:
        monkeypatch.setattr(module, "kernels", kernels)
    kernels.set_thread_limit(2)
    kernels.ask_always(True)
    yield request.param
    kernels.set_thread_limit(csoftmax._threads.own_limit)


@pytest.fixture
def limits(build):
    """The contract's largest errors in ULP, which depend on whether the build has FMA."""
    return limits_of(build)


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return np.dtype(request.param)
