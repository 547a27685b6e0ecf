"""``python -m pytest benchmarks``: the same table under pytest-benchmark; results must agree.

So must those of the jobs. What the report says is held against made-up figures; nothing depends on
how long something takes.
"""

from time import perf_counter

import numpy as np
import pytest

import csoftmax
from benchmarks import company, jobs, load, processes, recipes, report
from benchmarks.table import (
    CASES,
    FILTERS,
    TABLE,
    as_matrix,
    call_for,
    contenders,
    inputs_for,
    label,
    numpy_kept,
)
from benchmarks.timing import Budget, settle
from tests.functions import FUNCTIONS

# A case of more numbers, of which each round takes seconds, is left to ``python -m benchmarks``.
LARGEST = 50_000_000

CELLS = [
    pytest.param(case, operation, name, id=f"{operation}, {case}: {label(name, case)}")
    for case in CASES
    if case.size <= LARGEST
    for operation, name in contenders(case)
]


def assert_agree(result, wanted, case):
    """Close enough to be the same function; a table of accuracy is in ``python -m benchmarks``."""
    if isinstance(wanted, tuple):    # loss and gradient
        for one, other in zip(result, wanted, strict=True):
            assert_agree(one, other, case)
        return
    eps = np.finfo(case.dtype).eps
    # A sum that runs through all of a row in one float32 loses digits with the row's length, and
    # one of terms of either sign all of them but those of the largest.
    rtol = (1000 + case.shape[case.axis] / 500) * eps
    np.testing.assert_allclose(
        np.asarray(result), wanted, rtol=rtol, atol=16 * eps * np.abs(wanted).max()
    )


def assert_left_by_filters(drawn, x, case, **filters):
    probabilities = as_matrix(csoftmax.softmax(x, case.axis), case.axis)
    for one, p in zip(np.ravel(drawn), probabilities, strict=True):
        assert one in numpy_kept(p, **filters)


@pytest.mark.filterwarnings("ignore")    # what the other libraries warn of when they are imported
@pytest.mark.benchmark(max_time=0.1, min_rounds=2, warmup=False)
@pytest.mark.parametrize(("case", "operation", "implementation"), CELLS)
def test_benchmark(benchmark, case, operation, implementation):
    x, target = inputs_for(implementation, case)
    call = call_for(operation, implementation, case)
    wanted = TABLE[operation]["csoftmax"](x, target, case.axis)()
    result = call()
    if operation == "top_log_probs":    # of equal log-probabilities, others may take others first
        indices, result = map(np.asarray, result)
        _, wanted = wanted
        of_all = csoftmax.log_softmax(x, case.axis)
        assert_agree(np.take_along_axis(of_all, indices, case.axis), wanted, case)
    if operation not in FILTERS:
        assert_agree(result, wanted, case)
    elif implementation == "numpy":
        np.testing.assert_array_equal(result, wanted)
    else:
        assert_left_by_filters(result, x, case, **FILTERS[operation])
    benchmark.group = f"{operation}, {case}"
    benchmark.extra_info["numbers"] = x.size
    settle()
    benchmark(call)


# What makes a matrix of each row has a cell in small rows only.
SMALL_ONLY = {"softmax_jacobian"}


@pytest.mark.parametrize("regime", ["small rows", "groups of columns", "a vocabulary"])
def test_every_function_has_a_cell(regime):
    wanted = set(FUNCTIONS) - (set() if regime == "small rows" else SMALL_ONLY)
    measured = {
        call_for(operation, "csoftmax", case).func.__name__
        for case in CASES
        if case.regime == regime
        for operation in case.operations
    }
    assert measured >= wanted


def test_spread_is_that_of_trained_models():
    assert {case.spread for case in CASES} == {1, 4}
    assert [str(case) for case in CASES if case.spread == 1] == ["float32 1000x1000 spread 1"]


SMALLER = {
    jobs.train_mlp: {"examples": 64, "inputs": 16, "hidden": 16},
    jobs.attend: {"width": 8},
    jobs.fit_digits: {"iterations": 5},
    jobs.fit_mixture: {"points": 500},
    jobs.sample_tokens: {"vocabulary": 1000, "width": 16},
    jobs.boost: {"rows": 50},
}


@pytest.mark.parametrize("name", jobs.available())
def test_backends_agree_on_job(name):
    job = jobs.JOBS[name]
    smaller = SMALLER[getattr(job.prepare, "func", job.prepare)]
    results = {}
    for backend, functions in jobs.BACKENDS.items():
        work = job.prepare(functions, **smaller)
        results[backend] = work()
        assert work() == results[backend], "repetitions must do the same work"
    assert results["numpy"] == pytest.approx(results["csoftmax"], rel=job.rtol, abs=0)


def test_job_in_processes():
    done = []
    figure = jobs.measure("boosting objective", 0, 1, done.append)
    assert done == [0, 0.5]
    assert figure["ratio"] == figure["numpy"] / figure["csoftmax"]


def test_jobs_that_disagree(monkeypatch):
    results = iter([1.0, 1.1])
    monkeypatch.setattr(
        processes, "figure_from", lambda *arguments: {"seconds": 1, "result": next(results)}
    )
    with pytest.raises(AssertionError, match="boosting objective: the results differ"):
        jobs.measure("boosting objective", 0, 1, lambda part: None)


@pytest.mark.parametrize("name", recipes.available())
def test_recipe_agrees_with_what_people_write(name):
    plain, recipe = (call() for call in recipes.RECIPES[name].calls().values())
    if not isinstance(plain, tuple):
        plain, recipe = (plain,), (recipe,)
    rtol = recipes.RECIPES[name].rtol
    for wanted, result in zip(plain, recipe, strict=True):
        np.testing.assert_allclose(result, wanted, rtol, rtol * np.abs(wanted).max())


def test_recipe_in_turns():
    figure = recipes.measure("focal loss, 128 rows, 10 classes", Budget(0.01, 1), lambda part: None)
    assert figure["ratio"] == figure["plain"] / figure["recipe"]


def test_medians_take_turns():
    figures = iter([1, 10, 5, 20, 2, 30])
    order = []

    def measure(name):
        order.append(name)
        return next(figures)

    assert processes.medians(measure, "AB", 3, lambda part: None) == {"A": 2, "B": 20}
    assert order == list("ABABAB")


def test_mean_time_leaves_out_what_is_between():
    log = []
    seconds = processes.mean_time(
        lambda: log.append("call"), 0, lambda: log.append(wait_until(perf_counter() + 0.01))
    )
    assert log == [None, "call"]
    assert seconds < 0.01


def wait_until(end):
    while perf_counter() < end:
        pass


def test_company_ends():
    """Whatever kept company has ended at the end of the block."""
    beside = company.Company(busy_cores=1, alike=1)
    with company.companions(beside, "sigmoid, 256000", company.OWN) as running:
        assert [process.poll() for process in running] == [None, None]
    assert all(process.poll() is not None for process in running)


def test_company_that_fails():
    with pytest.raises(RuntimeError, match="keeps company ended"), company.companions(
        company.Company(alike=1), "no such call", company.OWN
    ):
        pass


@pytest.mark.parametrize("name", company.COMPANIES)
def test_call_in_company(name):
    assert company.mean("sigmoid, 256000", company.OWN, name, 0) > 0


def test_idle():
    figure = company.idle("sigmoid, 256000", company.ONE_THREAD, 1)
    assert figure["sleep"] > 0
    assert 0 < figure["median"] <= figure["max"]


def test_finding():
    figures = [{"job": "one", "ratio": 4.0}, {"job": "other", "ratio": 0.25}]
    assert report.finding(figures) == (
        "csoftmax is ahead of NumPy alone in 1 of 2 jobs; NumPy takes 1.00 times as long, as a "
        "geometric mean; behind in: other (0.250).\n"
    )
    assert report.finding(figures[:1]).endswith("4.00 times as long, as a geometric mean; "
                                                "behind in: none.\n")


def test_jobs_table():
    figures = [{"job": "one", "numpy": 0.004, "csoftmax": 0.001, "ratio": 4.0}]
    assert report.jobs_table(figures).splitlines()[-1].split() == ["one", "4.00", "1.00", "4.00"]


def test_recipes_table():
    figures = [{"name": "one", "plain": 0.004, "recipe": 0.001, "ratio": 4.0}]
    assert report.recipes_table(figures).splitlines()[-1].split() == ["one", "4.00", "1.00", "4.00"]


def test_company_table():
    figures = [
        {"call": call, "company": beside, "seconds": seconds, "ratio": company.ratio(seconds)}
        for call, beside, seconds in [
            ("softmax", "nothing", {"csoftmax": 1e-5, "one thread": 2e-5, "all threads": 4e-5}),
            ("softmax", "one core", {"csoftmax": 9e-5, "one thread": 4e-5, "all threads": 3e-5}),
            ("sigmoid", "nothing", {"csoftmax": 1e-5, "one thread": 1e-5, "all threads": 2e-5}),
        ]
    ]
    lines = [line.split() for line in report.company_table(figures).splitlines()]
    assert ["nothing", "10.0", "20.0", "40.0", "0.500"] in lines
    assert ["one", "core", "90.0", "40.0", "30.0", "3.00"] in lines
    assert ["nothing", "10.0", "10.0", "20.0", "1.00"] in lines
    assert report.company_table(figures).splitlines()[-1] == (
        "at most 1.25 in 2 of 3; the most is 3.00: softmax, beside it one core"
    )


def test_idle_table():
    figures = [
        {"call": "softmax", "contender": name, "sleep": 1e-4, "median": 2e-4, "max": maximum}
        for name, maximum in (("csoftmax", 3e-4), ("torch", 4e-4))
    ]
    figures.append(figures[0] | {"call": "sigmoid"})
    text = report.idle_table(figures)
    assert "100 of them are the sleep's own" in text
    assert text.splitlines()[-2].split() == ["softmax", "200", "300", "200", "400"]
    assert text.splitlines()[-1].split() == ["sigmoid", "200", "300"]


def test_load():
    averages = (0.5, 1.0, 12.0)
    parts = [
        {"part": "quiet", "others": 0.01, "stolen": 0.02},
        {"part": "beside a build", "others": 0.31, "stolen": 0.0},
        {"part": "on a shared host", "others": 0.0, "stolen": 0.06},
    ]
    text = report.load_text({"begin": averages, "end": None, "parts": parts})
    warnings = [line for line in text.splitlines() if line.startswith("WARNING")]
    assert "0.500 1.00 12.0" in text
    assert "not known here" in text
    assert warnings == [
        "WARNING, disturbed: beside a build: other processes had 31% of the CPUs' time, "
        "other machines 0%",
        "WARNING, disturbed: on a shared host: other processes had 0% of the CPUs' time, "
        "other machines 6%",
    ]


def test_shares_of_others(monkeypatch):
    monkeypatch.setattr(load.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(load, "TICKS", 100)
    before = load.Used(clock=100, own=5, all=50, stolen=3)
    after = load.Used(clock=110, own=10, all=59.05, stolen=4)
    assert load.shares_of_others(before, after) == pytest.approx({"others": 0.2, "stolen": 0.05})
