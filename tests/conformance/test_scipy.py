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
    "test_logsumexp_complex_sign": "complex numbers",
    "test_gh21610": "complex numbers",
    "test_gh21709_small_imaginary": "complex numbers",
}
REAL_DTYPES = [dtype for dtype in suite.dtypes if "complex" not in dtype]


@pytest.fixture
def xp():
    return np


@pytest.fixture
def devices():
    return ["cpu"]


@pytest.fixture(autouse=True)
def csoftmax_in_place_of_scipy(monkeypatch):
    for name in ("softmax", "log_softmax", "logsumexp"):
        # SciPy's default is all axes.
        function = functools.partial(getattr(csoftmax, name), axis=None)
        monkeypatch.setattr(suite, name, function)


class TestLogSumExp(suite.TestLogSumExp):
    # These run for complex numbers, too: here are their real cases.

    @pytest.mark.parametrize("dtype", REAL_DTYPES)
    def test_dtypes_a(self, dtype, xp):
        super().test_dtypes_a(dtype, xp)

    @pytest.mark.parametrize("dtype_a", REAL_DTYPES)
    @pytest.mark.parametrize("dtype_b", REAL_DTYPES)
    def test_dtypes_ab(self, dtype_a, dtype_b, xp):
        super().test_dtypes_ab(dtype_a, dtype_b, xp)

    @pytest.mark.parametrize("x_raw", [1.0, []])
    def test_device(self, x_raw, xp, devices):
        super().test_device(x_raw, xp, devices)

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
