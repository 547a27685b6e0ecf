"""``python -m benchmarks``: speed and accuracy of csoftmax beside the other implementations."""

import argparse
import json
import os
import platform
import sys
from functools import partial
from importlib.metadata import version
from math import prod
from pathlib import Path

import csoftmax
from benchmarks import accuracy, digits, table
from benchmarks.timing import best_times

SECONDS_PER_ROW = 2.3
SECONDS_PER_ROW_QUICK = 0.1
LARGEST_QUICK = 1_000_000
DISTRIBUTIONS = {"sklearn": "scikit-learn"}
OPERATIONS_PER_LINE = 3
WIDTH = 25    # of an operation's columns


def measure(case, budget, each_turn):
    """All figures of one case; its operations take turns too, so that each is spread over time."""
    setups = {
        (operation, name): setup
        for operation in case.operations
        for name, setup in table.contenders(operation, case).items()
    }
    inputs = {(operation, name): table.inputs_for(name, case) for operation, name in setups}
    calls = {key: setup(*inputs[key], case.axis) for key, setup in setups.items()}
    times = best_times(calls, budget, each_turn)
    results = []
    for (operation, name), (x, target) in inputs.items():
        seconds = times[operation, name]
        result = {
            "operation": operation,
            "implementation": table.label(name, case),
            "case": case.name,
            "shape": list(x.shape),
            "dtype": case.dtype,
            "axis": case.axis,
            "seconds": seconds,
            "ns_per_number": seconds / x.size * 1e9,
            "times_csoftmax": seconds / x.size / times[operation, "csoftmax"] * prod(case.shape),
        }
        if accuracy.AVAILABLE:
            key = operation, name
            result["ulp"] = accuracy.largest_error(
                operation, setups[key], calls[key](), x, target, case.axis
            )
        results.append(result)
    return results


def number(value):
    """About three digits, and no exponent."""
    return f"{value:.{3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0}f}"


def cell(result):
    """Time, ratio and error of one contender; blank where it lacks the operation."""
    if result is None:
        return " " * WIDTH
    one_call = len(result["shape"]) == 1
    time = result["seconds"] * 1e6 if one_call else result["ns_per_number"]
    error = number(result["ulp"]) if "ulp" in result else ""
    return f"{number(time):>9}{number(result['times_csoftmax']):>8}{error:>8}"


def print_table(case, results):
    """Implementations down, operations across, a few of them side by side."""
    unit = "us/call" if len(case.shape) == 1 else "ns"
    columns = f"{unit:>9}{'ratio':>8}{'ULP' if accuracy.AVAILABLE else '':>8}"
    cells = {(r["implementation"], r["operation"]): r for r in results}
    print(f"{case}: {case.name}")
    for start in range(0, len(case.operations), OPERATIONS_PER_LINE):
        operations = case.operations[start : start + OPERATIONS_PER_LINE]
        print(f"\n{'':16}" + "".join(f"{operation:>{WIDTH}}" for operation in operations))
        print(f"{'':16}{columns * len(operations)}".rstrip())
        for name in dict.fromkeys(result["implementation"] for result in results):
            row = "".join(cell(cells.get((name, operation))) for operation in operations)
            if row.strip():
                print(f"{name:<16}{row}".rstrip())
    print(flush=True)


def progress(done, share, total, text, part):
    """Draw the bar, if someone is there to see it: `part` of a `share` on top of what is done."""
    bar = "#" * int(30 * (done + share * part) / total)
    draw(f"[{bar:<30}] {text}")


def draw(line):
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


def machine():
    """What the figures depend on."""
    peers = [name for name in table.PEERS if table.installed(name)]
    cpuinfo = Path("/proc/cpuinfo")
    models = [
        line.partition(":")[2].strip()
        for line in (cpuinfo.read_text().splitlines() if cpuinfo.exists() else [])
        if line.startswith("model name")
    ]
    return {
        "platform": platform.platform(),
        "cpu": models[0] if models else platform.processor(),
        "cpus": os.cpu_count(),
        "versions": {"python": platform.python_version()}
        | {name: version(DISTRIBUTIONS.get(name, name)) for name in ["numpy", *peers]},
        "csoftmax": csoftmax.show_config(mode="dicts"),
    }


def print_header(about):
    csoftmax.show_config()
    print(f"on: {about['cpu']}, {about['cpus']} CPUs, {about['platform']}")
    print("with:", ", ".join(f"{name} {value}" for name, value in about["versions"].items()))
    missing = [name for name in table.PEERS if not table.installed(name)]
    if missing:
        print("not installed:", ", ".join(missing))
    print(
        "\nns: nanoseconds per number of the input, the least of many calls, taken in turns\n"
        "ratio: times csoftmax's\n"
        f"ULP: the largest error in the first {accuracy.ROWS} rows, in units in the last place"
    )
    if not accuracy.AVAILABLE:
        print("  (left out: longdouble is no more precise than float64 on this machine)")
    print(
        "out=: into an existing array; all others make a new one\n"
        "math: pure Python, in float64, on fewer rows where that is said\n"
        "numpy, math, scipy and the softmax of sklearn use one thread, the others "
        f"{csoftmax.get_num_threads()}\n"
    )


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds: less of everything")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures to FILE")
    options = parser.parse_args()
    cases, budget, job = table.CASES, SECONDS_PER_ROW, {}
    if options.quick:
        cases = [c for c in cases if c.dtype == "float32" and prod(c.shape) <= LARGEST_QUICK]
        budget, job = SECONDS_PER_ROW_QUICK, {"steps": 100, "repetitions": 2}

    about = machine()
    print_header(about)
    rows = sum(len(case.operations) for case in cases)
    figures, done = [], 0
    for case in cases:
        share = len(case.operations)
        results = measure(case, budget * share, partial(progress, done, share, rows, str(case)))
        draw("")
        print_table(case, results)
        figures += results
        done += share
    draw("handwritten digits")
    job = digits.compare(**job)
    draw("")
    digits.print_comparison(job)
    if options.json:
        options.json.write_text(json.dumps(about | {"table": figures, "digits": job}, indent=1))


if __name__ == "__main__":
    main()
