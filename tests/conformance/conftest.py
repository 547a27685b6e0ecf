"""The marks that SciPy's tests carry, and a table of the suites at the end of a run."""

from collections import defaultdict


def pytest_configure(config):
    # SciPy registers them in its own conftest. They concern arrays other than NumPy's.
    for mark in ("skip_xp_backends", "xfail_xp_backends", "uses_xp_capabilities"):
        config.addinivalue_line("markers", f"{mark}: of SciPy's tests")


def pytest_terminal_summary(terminalreporter):
    """For each file and its test functions or classes: the cases, and those that passed."""
    cases, passed = defaultdict(set), defaultdict(set)
    for outcome in ("passed", "failed", "error", "skipped", "xfailed", "xpassed"):
        for report in terminalreporter.getreports(outcome):
            path, _, test = report.nodeid.partition("::")
            folder, _, file = path.rpartition("/")
            if test and folder.endswith("conformance"):
                name = test.partition("[")[0].partition("::")[0]
                for suite in (file, f"{file}::{name}"):
                    cases[suite].add(report.nodeid)
                    if outcome == "passed":
                        passed[suite].add(report.nodeid)
    if cases:
        terminalreporter.section("conformance: suite, cases, passed")
        for suite in sorted(cases):
            terminalreporter.line(f"{suite:60} {len(cases[suite]):6} {len(passed[suite]):6}")
