"""Speed and accuracy of csoftmax beside the other implementations.

Whole jobs take about four minutes, recipes two, calls in company a quarter of an hour, the tables
seven minutes; with --output, the curves of the charts take two more. CSOFTMAX_ISA forces one of
csoftmax's builds.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

from threadpoolctl import threadpool_limits

import csoftmax
from benchmarks import (
    company,
    jobs,
    limits,
    load,
    machine,
    ratios,
    recipes,
    report,
    sweeps,
    table,
)
from benchmarks.measure import measure
from benchmarks.timing import Budget


class Effort(NamedTuple):
    """What is measured, and for how long."""

    cases: list
    recipes: list
    curves: list
    seconds_per_operation: float    # of a table, or a recipe
    seconds_per_point: float    # of a curve, all contenders together
    seconds_for_products: float
    least_turns: int            # of each contender
    calls_in_company: list
    seconds_per_process: float    # of a job, or of a call in company
    rounds: int                   # of such processes
    idle_calls: int


FULL = Effort(
    cases=table.CASES,
    recipes=recipes.available(),
    curves=sweeps.CASES,
    seconds_per_operation=2.0,
    seconds_per_point=1.0,
    seconds_for_products=2.0,
    least_turns=4,
    calls_in_company=list(company.CASES),
    seconds_per_process=1.5,
    rounds=3,
    idle_calls=20,
)
QUICK = Effort(
    cases=table.quick_cases(),
    recipes=recipes.quick(),
    curves=sweeps.quick_cases(),
    seconds_per_operation=0.1,
    seconds_per_point=0.05,
    seconds_for_products=0.3,
    least_turns=1,
    calls_in_company=["sigmoid, 256000"],    # of csoftmax alone: others take seconds to import
    seconds_per_process=0.05,
    rounds=1,
    idle_calls=3,
)


class ProgressBar:
    def __init__(self, total):
        self.total = total
        self.begun = 0

    def begin(self, size, text):
        """A function to be told which part of the next `size` is done."""
        before = self.begun
        self.begun += size

        def draw(part):
            bar = "#" * int(30 * (before + size * part) / self.total)
            draw_line(f"[{bar:<30}] {text}")

        return draw


def draw_line(text):
    """Overwrite the line, if someone is there to see it."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def measure_jobs(effort, watch):
    names = jobs.available()
    bar = ProgressBar(len(names))
    figures = []
    for name in names:
        with watch.part(name):
            figures.append(
                jobs.measure(name, effort.seconds_per_process, effort.rounds, bar.begin(1, name))
            )
    return figures


def measure_recipes(effort, watch):
    bar = ProgressBar(len(effort.recipes))
    budget = Budget(effort.seconds_per_operation, effort.least_turns)
    figures = []
    for name in effort.recipes:
        with watch.part(name):
            figures.append(recipes.measure(name, budget, bar.begin(1, name)))
    return figures


def measure_company(effort, watch):
    """Figures in company, and idle ones."""
    names = effort.calls_in_company
    bar = ProgressBar(len(names))
    figures, idle_figures = [], []
    for name in names:
        with watch.part(f"{name} in company"):
            figures += company.measure(
                name, effort.seconds_per_process, effort.rounds, bar.begin(1, name)
            )
            idle_figures += company.measure_idle(name, effort.idle_calls)
    return figures, idle_figures


def measure_tables(effort, watch, show):
    figures = []
    bar = ProgressBar(sum(len(case.operations) for case in effort.cases))
    for case in effort.cases:
        operations = len(case.operations)
        budget = Budget(effort.seconds_per_operation * operations, effort.least_turns)
        with watch.part(str(case)):
            case_figures = measure(case, budget, bar.begin(operations, str(case)))
        show(report.case_table(case, case_figures))
        figures += case_figures
    return figures


def measure_curves(effort):
    bar = ProgressBar(len(effort.curves))
    budget = Budget(effort.seconds_per_point, effort.least_turns)
    return [
        figure
        for case in effort.curves
        for figure in sweeps.measure(case, budget, bar.begin(1, str(case)))
    ]


def measure_all(effort, with_curves, show):
    """All that goes into report.json; what there is to read is shown on the way."""
    about = machine.describe()
    watch = load.Watch()
    job_figures = measure_jobs(effort, watch)
    show(report.finding(job_figures))
    show(report.header(about))
    show(report.jobs_table(job_figures))
    recipe_figures = measure_recipes(effort, watch)
    show(report.recipes_table(recipe_figures))
    company_figures, idle_figures = measure_company(effort, watch)
    show(report.company_table(company_figures))
    show(report.idle_table(idle_figures))
    figures = measure_tables(effort, watch, show)
    draw_line("matrix products")
    with watch.part("matrix products"):
        fma_peak_ns = limits.fma_peak_ns(Budget(effort.seconds_for_products, effort.least_turns))
    cells = ratios.compare(figures)
    means = ratios.means(cells)
    show(report.limits_table(figures, cells, fma_peak_ns))
    show(report.ratios_table(cells, means))
    curves = []
    if with_curves:
        with watch.part("curves of the charts"):
            curves = measure_curves(effort)
    draw_line("")
    load_figures = watch.report()
    show(report.load_text(load_figures))
    return about | {
        "load": load_figures,
        "jobs": job_figures,
        "recipes": recipe_figures,
        "company": company_figures,
        "idle": idle_figures,
        "figures": figures,
        "fma_peak_ns": fma_peak_ns,
        "ratios": cells,
        "ratio_means": means,
        "curves": curves,
    }


def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="about a minute: less of everything")
    parser.add_argument(
        "--threads",
        metavar="N",
        type=int,
        help="of all contenders in recipes, tables and curves; default: csoftmax's default",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        help="write report.json, report.txt and charts (SVG and PNG) into DIR",
    )
    return parser.parse_args()


def main():
    options = parse_arguments()
    if options.output:
        # Not only when they are drawn: a missing matplotlib is to be noticed before minutes passed.
        from benchmarks import charts

        options.output.mkdir(parents=True, exist_ok=True)
    csoftmax.set_num_threads(options.threads)
    threadpool_limits(csoftmax.get_num_threads(), user_api="blas")

    texts = []

    def show(text):
        draw_line("")
        print(text, flush=True)
        texts.append(text)

    results = measure_all(QUICK if options.quick else FULL, bool(options.output), show)
    if options.output:
        (options.output / "report.json").write_text(json.dumps(results, indent=1) + "\n")
        (options.output / "report.txt").write_text("\n".join(texts))
        charts.draw(options.output)


if __name__ == "__main__":
    main()
