"""Figures that are taken in processes of their own, as programs run.

Nothing is set for them, neither variables of the environment nor limits of threads: what a library
does by default, beside the other libraries that a program has, is what there is to see. So means
count here, as waiting is part of them, not the least of many times.
"""

import json
import subprocess
import sys
from statistics import median
from time import perf_counter


def command(module, *arguments):
    return [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]


def figure_from(module, *arguments):
    """What such a process prints as JSON."""
    done = subprocess.run(command(module, *arguments), stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def medians(measure, names, rounds, each_turn):
    """The median of what `measure` gives for each name, in rounds in which all have their turn.

    A round takes A B C, so that what else the machine does meets all of them; `each_turn` is told
    how much is done.
    """
    figures = {name: [] for name in names}
    for turn in range(rounds):
        for place, name in enumerate(names):
            each_turn((turn + place / len(names)) / rounds)
            figures[name].append(measure(name))
    return {name: median(values) for name, values in figures.items()}


def mean_time(call, seconds, between=None):
    """The mean time of a call in so many seconds, without what is done `between` the calls."""
    used, calls = 0.0, 0
    end = perf_counter() + seconds
    while calls == 0 or perf_counter() < end:
        if between:
            between()
        before = perf_counter()
        call()
        used += perf_counter() - before
        calls += 1
    return used / calls
