"""The report as text."""

from itertools import groupby
from operator import itemgetter
from statistics import geometric_mean, median

from benchmarks import accuracy, company, limits, load, table

OPERATIONS_PER_LINE = 3
WIDTH = 25    # of an operation's columns
CASE_WIDTH = 29
OPERATION_WIDTH = 21
NAME_WIDTH = CASE_WIDTH + OPERATION_WIDTH
JOB_WIDTH = 36
RECIPE_WIDTH = 64
COMPANY_WIDTH = 22
AIM_IN_COMPANY = 1.25
OUT_NAMES = {False: "new array", True: "out="}


def number(value):
    """About three digits, and no exponent."""
    return f"{value:.{3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0}f}"


def header(about):
    config = {
        key: ", ".join(value) if isinstance(value, list) else value
        for key, value in about["csoftmax"].items()
    }
    lines = [
        *(f"csoftmax {key}: {value}" for key, value in config.items()),
        f"on: {about['cpu']}, {about['cpus']} CPUs, {about['platform']}, {about['date']}",
        "with: " + ", ".join(f"{name} {version}" for name, version in about["versions"].items()),
    ]
    if about["not_installed"]:
        lines.append("not installed: " + ", ".join(about["not_installed"]))
    lines += [
        "",
        "ns: nanoseconds per number of the input, the least of many calls, taken in turns",
        "ratio: times csoftmax's",
        f"ULP: the largest error in the first {accuracy.ROWS} rows, in units in the last place",
    ]
    if not accuracy.AVAILABLE:
        lines.append("  (left out: longdouble is no more precise than float64 on this machine)")
    lines += [
        "out=: into an existing array; all others make a new one",
        "math: pure Python, in float64, on fewer rows where that is said",
        "spread: standard deviation of the logits of a row, 4 where nothing is said",
        "in the tables numpy, math, scipy, llama_cpp and the softmax of sklearn use one thread, "
        f"the others {about['threads']}",
    ]
    return joined(*lines, "")


def finding(jobs):
    """One sentence: how csoftmax's jobs compare with those of NumPy alone."""
    ahead = sum(job["ratio"] > 1 for job in jobs)
    mean = geometric_mean(job["ratio"] for job in jobs)
    behind = ", ".join(
        f"{job['job']} ({number(job['ratio'])})"
        for job in sorted(jobs, key=itemgetter("ratio"))
        if job["ratio"] <= 1
    )
    return (
        f"csoftmax is ahead of NumPy alone in {ahead} of {len(jobs)} jobs; NumPy takes "
        f"{number(mean)} times as long, as a geometric mean; behind in: {behind or 'none'}.\n"
    )


def jobs_table(jobs):
    lines = [
        "whole jobs, every setting at its default",
        "",
        "milliseconds: the mean of a process's repetitions, the median of some processes in turn",
        "ratio: the time of NumPy alone / csoftmax's; over 1 csoftmax is faster",
        "",
        f"{'':{JOB_WIDTH}}{'numpy':>12}{'csoftmax':>12}{'ratio':>8}",
    ]
    for job in jobs:
        times = "".join(f"{number(job[name] * 1e3):>12}" for name in ("numpy", "csoftmax"))
        lines.append(f"{job['job']:<{JOB_WIDTH}}{times}{number(job['ratio']):>8}")
    return joined(*lines, "")


def recipes_table(figures):
    lines = [
        "recipes of the pages",
        "",
        "milliseconds: the least of many calls, taken in turns",
        "ratio: the time of what people write in NumPy / the recipe's; over 1 the recipe is faster",
        "",
        f"{'':{RECIPE_WIDTH}}{'plain':>12}{'recipe':>12}{'ratio':>8}",
    ]
    for figure in figures:
        times = "".join(f"{number(figure[name] * 1e3):>12}" for name in ("plain", "recipe"))
        lines.append(f"{figure['name']:<{RECIPE_WIDTH}}{times}{number(figure['ratio']):>8}")
    return joined(*lines, "")


def company_table(figures):
    """Calls and their company down, contenders across."""
    names = list(dict.fromkeys(name for figure in figures for name in figure["seconds"]))
    lines = [
        "in company, every setting at its default, float32",
        "",
        "us/call: the mean of a process's calls, the median of some processes in turn",
        f"ratio: csoftmax's default / the better of {', '.join(company.SETTINGS)}, in that company",
    ]
    for call, rows in groupby(figures, key=itemgetter("call")):
        heads = "".join(f"{name:>13}" for name in names)
        lines += ["", f"{call:<{COMPANY_WIDTH}}{heads}{'ratio':>8}"]
        for row in rows:
            times = "".join(microseconds(row["seconds"].get(name)) for name in names)
            lines.append(f"{row['company']:<{COMPANY_WIDTH}}{times}{number(row['ratio']):>8}")
    worst = max(figures, key=itemgetter("ratio"))
    within = sum(figure["ratio"] <= AIM_IN_COMPANY for figure in figures)
    lines += [
        "",
        f"at most {AIM_IN_COMPANY} in {within} of {len(figures)}; the most is "
        f"{number(worst['ratio'])}: {worst['call']}, beside it {worst['company']}",
    ]
    return joined(*lines, "")


def idle_table(figures):
    """Calls down; the CPU time that each contender uses after one, across."""
    names = list(dict.fromkeys(figure["contender"] for figure in figures))
    sleep = number(median(figure["sleep"] for figure in figures) * 1e6)
    lines = [
        "idle: microseconds of CPU time that a process uses in the "
        f"{company.IDLE * 1e3:.0f} ms after a call, median and most;",
        f"{sleep} of them are the sleep's own",
        "",
        f"{'':{JOB_WIDTH}}" + "".join(f"{name:>20}" for name in names),
    ]
    for call, group in groupby(figures, key=itemgetter("call")):
        cells = {figure["contender"]: figure for figure in group}
        row = "".join(
            microseconds(cells.get(name, {}).get(key), 10)
            for name in names
            for key in ("median", "max")
        )
        lines.append(f"{call:<{JOB_WIDTH}}{row}")
    return joined(*lines, "")


def microseconds(seconds, width=13):
    return f"{'' if seconds is None else number(seconds * 1e6):>{width}}"


def load_text(about):
    """The machine's load, and a warning where something else had a share of it."""
    lines = ["load of the machine"]
    for moment in ("begin", "end"):
        averages = about[moment]
        text = "not known here" if averages is None else " ".join(map(number, averages))
        lines.append(f"{moment}, over 1, 5 and 15 minutes, this run included: {text}")
    lines += [
        f"WARNING, disturbed: {part['part']}: other processes had {part['others']:.0%} of the "
        f"CPUs' time, other machines {part['stolen']:.0%}"
        for part in load.disturbed(about["parts"])
    ]
    return joined(*lines, "")


def case_table(case, figures):
    """Implementations down, operations across, a few of them side by side."""
    unit = "us/call" if len(case.shape) == 1 else "ns"
    columns = f"{unit:>9}{'ratio':>8}{'ULP' if accuracy.AVAILABLE else '':>8}"
    cells = {(one["implementation"], one["operation"]): one for one in figures}
    names = dict.fromkeys(name for name, operation in cells if operation != limits.LIMIT)
    lines = [f"{case}: {case.regime}"]
    for start in range(0, len(case.operations), OPERATIONS_PER_LINE):
        operations = case.operations[start : start + OPERATIONS_PER_LINE]
        lines += ["", " " * 16 + "".join(f"{operation:>{WIDTH}}" for operation in operations)]
        lines.append(f"{'':16}{columns * len(operations)}")
        for name in names:
            row = "".join(
                contender_columns(cells.get((name, operation)), cells["csoftmax", operation])
                for operation in operations
            )
            if row.strip():
                lines.append(f"{table.label(name, case):<16}{row}")
    return joined(*lines, "")


def contender_columns(figure, csoftmax_figure):
    """Time, ratio and error of one contender; blank where it lacks the operation."""
    if figure is None:
        return " " * WIDTH
    ratio = figure["ns_per_number"] / csoftmax_figure["ns_per_number"]
    error = number(figure["ulp"]) if "ulp" in figure else ""
    time, _ = time_and_unit(figure)
    return f"{number(time):>9}{number(ratio):>8}{error:>8}"


def time_and_unit(figure):
    """Microseconds per call of a single row, else nanoseconds per number."""
    if len(figure["shape"]) == 1:
        return figure["seconds"] * 1e6, "us"
    return figure["ns_per_number"], "ns"


def limits_table(figures, cells, fma_peak_ns):
    """Cases and operations down; the limits, and how many copies csoftmax takes, across."""
    measured = {
        (one["case"], one["implementation"]): one
        for one in figures
        if one["operation"] == limits.LIMIT
    }
    fmas = ", ".join(f"{count} in {dtype}" for dtype, count in limits.FMAS_OF_EXP.items())
    lines = [
        "limits",
        "",
        "copy: of the numbers, into an existing array, by csoftmax's threads, or by one if faster",
        "np.exp: of the numbers, into a new array",
        f"FMA peak: one exponential's multiply-adds ({fmas}) at the rate of a matrix product",
        "",
        f"{'':{NAME_WIDTH}}{'':36}{'csoftmax / copy':>24}",
        f"{'':{NAME_WIDTH}}{limits.COPY:>12}{limits.NUMPY_EXP:>12}{limits.FMA_PEAK:>12}"
        + "".join(f"{name:>12}" for name in OUT_NAMES.values()),
    ]
    for name, row in rows_of(cells):
        case = row[0]["case"]
        copy = measured[case, limits.COPY]
        exp = measured.get((case, limits.NUMPY_EXP))
        lines.append(
            f"{name}{limit_column(*time_and_unit(copy))}"
            f"{limit_column(*time_and_unit(exp)) if exp else '':>12}"
            f"{limit_column(fma_peak_ns[copy['dtype']], 'ns')}"
            + "".join(f"{number(cell['copies']):>12}" for cell in row)
        )
    return joined(*lines, "")


def ratios_table(cells, means):
    """Cases and operations down; the fastest of the others, in csoftmax's times, across."""
    columns = f"  {'best peer':<16}{'ratio':>8}{'plain':>8}"
    lines = [
        "ratios: the others' time / csoftmax's; over 1 csoftmax is faster",
        "",
        "best peer: the fastest of all others; for out=, of those that have it, if there are any",
        "plain: the better of NumPy and SciPy",
        "",
        " " * NAME_WIDTH + "".join(f"  {name:<32}" for name in OUT_NAMES.values()),
        " " * NAME_WIDTH + columns * len(OUT_NAMES),
    ]
    for name, row in rows_of(cells):
        lines.append(name + "".join(peer_columns(cell) for cell in row))
    lines += ["", f"{'geometric means':<{NAME_WIDTH}}{'cells':>8}{'best peer':>12}{'plain':>12}"]
    for name, mean in means.items():
        lines.append(
            f"{name:<{NAME_WIDTH}}{mean['cells']:>8}"
            f"{number(mean['peer_ratio']):>12}{number(mean['plain_ratio']):>12}"
        )
    behind = [cell for cell in cells if cell["peer_ratio"] < 1]
    lines += ["", f"a peer is ahead in {len(behind)} of {len(cells)} cells"]
    for cell in sorted(behind, key=itemgetter("peer_ratio")):
        lines.append(
            f"{row_name(cell['case'], cell['operation'])}"
            f"{OUT_NAMES[cell['out']]:<12}{cell['peer']:<16}{number(cell['peer_ratio']):>8}"
        )
    return joined(*lines, "")


def rows_of(cells):
    """The name of each row, and its cells: into a new array and, if there is one, with out=."""
    for key, row in groupby(cells, key=itemgetter("case", "operation")):
        yield row_name(*key), list(row)


def row_name(case, operation):
    return f"{case:<{CASE_WIDTH}}{operation:<{OPERATION_WIDTH}}"


def limit_column(time, unit):
    return f"{number(time) + ' ' + unit:>12}"


def peer_columns(cell):
    return f"  {cell['peer']:<16}{number(cell['peer_ratio']):>8}{number(cell['plain_ratio']):>8}"


def joined(*lines):
    return "\n".join(line.rstrip() for line in lines)
