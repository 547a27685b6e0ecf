"""Which build is used, and what happens if it can't be: in processes of their own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from csoftmax import _dispatch

USABLE = [isa for isa in _dispatch.isas_built if isa in _dispatch.isas_supported]


def run(code, **environment):
    """A script in a process of its own. One that hangs is ended, with the processes it started."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CSOFTMAX_")}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, env=kept | environment, cwd=Path(__file__).parents[1], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            output, errors = process.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def run_checked(code, **environment):
    """The output of a script that must succeed."""
    result = run(code, **environment)
    assert result.returncode == 0, f"exit status {result.returncode}\n{result.stderr}"
    return result.stdout


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
