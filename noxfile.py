#!/usr/bin/env -S uv run --script
# /// script
# dependencies = ["nox"]
# ///
"""Tasks: `nox -l` lists them, `nox -s sanitizers` runs one; what follows `--` goes to pytest.

Those that build csoftmax in another way do it in a copy of this folder, as Python prefers the
modules that lie here to installed ones.
"""

import os
import re
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2024.3.2"
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["tests", "lint"]

SUITE = ["python", "-m", "pytest", "-n", "auto"]
# NULL + 0, which the kernels do for results that an operation hasn't, is defined since C2y.
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize=pointer-overflow -shared-libasan"
# Failed allocations end in crashes of NumPy's own; calls that are worth interrupting take minutes.
NOT_SANITIZED = "not test_out_of_memory and not handlers_run_during_calls"


def copied(session):
    """Go to a copy of what git knows, with nothing built."""
    folder = Path(session.create_tmp()) / "csoftmax"
    shutil.rmtree(folder, ignore_errors=True)
    names = session.run("git", "ls-files", external=True, silent=True).splitlines()
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(name, folder / name)
    session.chdir(folder)


def clang(session):
    """CLANG, or the newest that is installed."""
    names = [os.environ.get("CLANG", "clang"), *(f"clang-{n}" for n in range(25, 13, -1))]
    found = [name for name in names if shutil.which(name)]
    if not found:
        session.error("no Clang: install clang, libomp-dev and libclang-rt-dev, or set CLANG")
    return found[0]


def built_by(compiler, **environment):
    return {"CC": compiler, "LDSHARED": f"{compiler} -shared", **environment}


def without_warnings(session, log):
    """Of the C compiler. Cython's own are about code that a type doesn't reach."""
    found = re.findall(r"^.*\.c:\d+:\d+: warning: .*$", log, re.MULTILINE)
    if found:
        session.error(f"{len(found)} warnings, the first: {found[0]}")


def install_with_all_warnings(session, **environment):
    environment["CFLAGS"] = "-Wall -Wextra"
    log = session.run("pip", "install", "-v", ".[test]", env=environment, silent=True)
    without_warnings(session, log)


@nox.session
def tests(session):
    """The suite, as in the README."""
    session.install(".[test]")
    session.run(*SUITE, *session.posargs)


@nox.session
def conformance(session):
    """The suites of other libraries, and these libraries in one process with csoftmax."""
    session.install(".[conformance]")
    session.run(*SUITE, "tests/conformance", *session.posargs)


@nox.session
def lint(session):
    session.install("ruff")
    session.run("ruff", "check", ".")


@nox.session
def docs(session):
    """The pages, without a warning, and their links; `-- html` without those to other places."""
    session.install(".[docs]")
    for builder in session.posargs or ["html", "linkcheck"]:
        options = ["-W", "--keep-going", "-b", builder]
        session.run("sphinx-build", *options, "docs", f"docs/_build/{builder}")


@nox.session
def types(session):
    """The stubs, by themselves, against typed calls and against the functions' signatures."""
    session.install(".", "mypy", "dask[array]")
    session.run("mypy")
    session.run(
        "python", "-m", "mypy.stubtest", "csoftmax",
        "--mypy-config-file", "pyproject.toml", "--allowlist", ".ci/stubtest-allowlist",
    )  # fmt: skip


@nox.session
def benchmarks(session):
    session.install(".[bench,peers]")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def large(session):
    """More than 2^31 numbers, and rows."""
    session.install(".[test]")
    session.run(*SUITE, "-n", "0", "-m", "large", *session.posargs)    # one at a time


@nox.session
def fuzz(session):
    """A million random calls of each build: 15 minutes each."""
    session.install(".[test]")
    for isa in ("x86-64-v4", "x86-64-v3", "x86-64-v2"):
        arguments = session.posargs or ["--calls", "1000000"]
        session.run("python", "-m", "tests.fuzz", *arguments, env={"CSOFTMAX_ISA": isa})


@nox.session
def warnings(session):
    """The suite, built by the default compiler with all warnings on."""
    copied(session)
    install_with_all_warnings(session)
    session.run(*SUITE, *session.posargs)


@nox.session
def second_compiler(session):
    """The suite, built by Clang with all warnings on."""
    compiler = clang(session)
    copied(session)
    install_with_all_warnings(session, **built_by(compiler))
    session.run(*SUITE, *session.posargs)


@nox.session
def serial(session):
    """The suite, built without OpenMP."""
    copied(session)
    install_with_all_warnings(session, CSOFTMAX_OPENMP="0")
    session.run(*SUITE, *session.posargs)


@nox.session
def sanitizers(session):
    """The suite under AddressSanitizer and UndefinedBehaviorSanitizer (Linux, Clang)."""
    compiler = clang(session)
    copied(session)
    environment = built_by(f"{compiler} {SANITIZERS}")
    session.run("pip", "install", ".[test]", env=environment, silent=True)
    runtime = session.run(
        compiler, "-print-file-name=libclang_rt.asan-x86_64.so", external=True, silent=True
    ).strip()
    session.run(
        *SUITE, "-k", NOT_SANITIZED, *session.posargs,
        env={
            "LD_PRELOAD": runtime,
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",    # CPython leaks
            "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        },
    )  # fmt: skip


@nox.session
def valgrind(session):
    """Every function under valgrind."""
    session.install(".[test]")
    session.run("python", "-m", "tests.valgrind", *session.posargs)


if __name__ == "__main__":
    nox.main()
