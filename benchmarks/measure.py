"""Figures of one case: times of all contenders in turns, and their errors."""

from benchmarks import accuracy, limits, table
from benchmarks.timing import best_times


def measure(case, budget, each_turn):
    """The figures of all contenders, with errors, and those of the limits."""
    calls = {key: table.call_for(*key, case) for key in table.contenders(case)}
    figures = measure_times(case, calls, budget, each_turn)
    if accuracy.AVAILABLE:
        for figure in figures:
            key = figure["operation"], figure["implementation"]
            if key in calls and figure["operation"] not in table.FILTERS:    # what is drawn
                figure["ulp"] = accuracy.largest_error(*key, calls[key], case)
    return figures


def measure_times(case, calls, budget, each_turn):
    """The figures of calls, by operation and implementation, and of the limits, all in turns."""
    x, _ = table.inputs(case)
    times = best_times(calls | limits.calls_for(x), budget, each_turn)
    limits.merge_copies(times, x)
    return [make_figure(case, *key, seconds) for key, seconds in times.items()]


def make_figure(case, operation, implementation, seconds):
    measured = table.part_for(implementation, case)
    return {
        "operation": operation,
        "implementation": implementation,
        "regime": case.regime,
        "case": str(case),
        "dtype": case.dtype,
        "shape": measured.shape,
        "axis": case.axis,
        "spread": case.spread,
        "seconds": seconds,
        "ns_per_number": seconds / measured.size * 1e9,
    }
