"""What is installed, and what an import brings along."""

import importlib.metadata
from pathlib import PurePosixPath

import pytest

import csoftmax

from .helpers import run_checked


@pytest.fixture
def installed():
    """The distribution that a wheel brought. A clone has files about one, too, but no RECORD."""
    found = importlib.metadata.distributions(name="csoftmax")
    found = [distribution for distribution in found if distribution.read_text("RECORD")]
    if not found:
        pytest.skip("not installed, only built in place")
    return found[0]


def test_version(installed):
    assert installed.version == csoftmax.__version__


def test_numpy_is_the_only_dependency(installed):
    names = [text for text in installed.requires if "extra ==" not in text]
    assert names == ["numpy>=2.0"]


def test_nothing_but_the_package_is_installed(installed):
    paths = [PurePosixPath(path) for path in installed.files]
    folders = {path.parts[0].partition("-")[0] for path in paths}
    assert folders <= {"csoftmax", "csoftmax.libs"}    # with what auditwheel adds
    assert not {path.suffix for path in paths} & {".c", ".pyx", ".pxd", ".pxi"}


@pytest.mark.skipif(
    not csoftmax.show_config("dicts")["compiler"].startswith("GCC"),
    reason="other compilers' code is larger, with sanitizers many times",
)
def test_less_than_four_megabytes_are_installed(installed):
    files = [path for path in installed.files if path.suffix != ".pyc"]
    assert sum(path.locate().stat().st_size for path in files) < 4_000_000


def test_modules_imported_beside_numpy():
    """An import takes 3 ms more than NumPy's; a module such as pathlib would take as long again."""
    script = "import sys, numpy; before = set(sys.modules)\nimport csoftmax\n"
    script += "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    new = {name for name in run_checked(script).split() if "cython" not in name}
    assert new <= {"csoftmax", "importlib", "math", "numbers"}
