"""Which build is used, and what happens if it can't be: in processes of their own."""

import pytest

from csoftmax import _dispatch

from .helpers import USABLE, run

PRINT_ISA = "import csoftmax; print(csoftmax.show_config('dicts')['isa'])"


@pytest.mark.parametrize("isa", USABLE)
def test_a_build_can_be_forced(isa):
    assert run(PRINT_ISA, CSOFTMAX_ISA=isa).stdout.strip() == isa


def test_the_best_build_is_the_default():
    assert run(PRINT_ISA).stdout.strip() == USABLE[0]


def test_something_is_built():
    assert USABLE


@pytest.mark.parametrize("isa", ["x86-64-v9", "", "AVX2"])
def test_unknown_builds(isa):
    result = run(PRINT_ISA, CSOFTMAX_ISA=isa)
    assert result.returncode != 0
    assert f"ImportError: csoftmax: CSOFTMAX_ISA='{isa}' can't be used" in result.stderr
    assert ", ".join(_dispatch.isas_built) in result.stderr


def test_a_build_that_the_cpu_does_not_support(monkeypatch):
    monkeypatch.setattr(_dispatch, "isas_built", ["x86-64-v4", "x86-64-v2"])
    monkeypatch.setattr(_dispatch, "isas_supported", ["x86-64-v2"])
    assert _dispatch.choose(None) == "x86-64-v2"
    with pytest.raises(ImportError, match="supported by this CPU: x86-64-v2"):
        _dispatch.choose("x86-64-v4")


def test_no_usable_build(monkeypatch):
    monkeypatch.setattr(_dispatch, "isas_supported", [])
    with pytest.raises(ImportError, match="no usable build"):
        _dispatch.choose(None)
