"""SciPy's own tests of softmax, log_softmax and logsumexp, run with csoftmax's in their place."""

import functools
import importlib

import numpy as np
import pytest

import csoftmax

pytest.importorskip("scipy")
suite = importlib.import_module("scipy.special.tests.test_logsumexp")

# SciPy's tests of what csoftmax doesn't offer. (test_wrap_radians, outside of the classes, is
# about a helper of SciPy's for complex numbers.)
LEFT_OUT = {
    "test_logsumexp_b": "b=",
    "test_logsumexp_shape": "b=",
    "test_logsumexp_b_zero": "b=",
    "test_logsumexp_b_shape": "b=",
    "test_dtypes_ab": "b=",
    "test_no_writeback": "b=",
    "test_device": "b=",
    "test_logsumexp_sign": "b= and return_sign=",
    "test_logsumexp_sign_zero": "b= and return_sign=",
    "test_logsumexp_sign_shape": "b= and return_sign=",
    "test_gh22903": "b= and return_sign=",
    "test_gh23548": "b= and return_sign=",
    "test_logsumexp_complex_sign": "complex numbers and return_sign=",
    "test_gh21610": "complex numbers and return_sign=",
    "test_gh21709_small_imaginary": "complex numbers",
}
REAL_DTYPES = [dtype for dtype in suite.dtypes if "complex" not in dtype]


@pytest.fixture
def xp():
    return np


@pytest.fixture(autouse=True)
def csoftmax_in_place_of_scipy(monkeypatch):
    for name in ("softmax", "log_softmax", "logsumexp"):
        # SciPy's default is all axes.
        function = functools.partial(getattr(csoftmax, name), axis=None)
        monkeypatch.setattr(suite, name, function)


class TestLogSumExp(suite.TestLogSumExp):
    # Two tests run for complex numbers, too: these are their real cases.

    @pytest.mark.parametrize("dtype", REAL_DTYPES)
    def test_dtypes_a(self, dtype, xp):
        super().test_dtypes_a(dtype, xp)

    @pytest.mark.parametrize("x", [-np.inf, np.inf])
    @pytest.mark.parametrize("y", [-np.inf, np.inf])
    def test_gh22601_infinite_elements(self, x, y, xp):
        super().test_gh22601_infinite_elements(x, y, xp)


for name in LEFT_OUT:
    assert hasattr(suite.TestLogSumExp, name), f"SciPy has no {name} any more"
    setattr(TestLogSumExp, name, None)


class TestSoftmax(suite.TestSoftmax):
    pass


class TestLogSoftmax(suite.TestLogSoftmax):
    pass
