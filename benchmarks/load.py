"""How busy the machine was with other things, part by part of a run.

Times of a disturbed part say more about what disturbed it than about the contenders.
"""

import os
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

STAT = Path("/proc/stat")    # Linux
TICKS = os.sysconf("SC_CLK_TCK") if STAT.exists() else None
TICKS_OF_DOUBT = 5    # what others used is a difference of figures that are rounded to ticks

# Shares of the CPUs' time from which on a part counts as disturbed.
DISTURBING = 0.05


class Used(NamedTuple):
    """Seconds until now: of the clock, and of all CPUs together."""

    clock: float
    own: float    # by this process, and those of its children that have ended
    all: float    # by all processes
    stolen: float    # by other virtual machines


def used():
    own = sum(os.times()[:4])
    fields = STAT.read_text().split(maxsplit=10)[1:9]
    user, nice, system, _, _, irq, softirq, stolen = (int(field) / TICKS for field in fields)
    return Used(perf_counter(), own, user + nice + system + irq + softirq, stolen)


class Watch:
    """Averages of the load, and what others used in each part."""

    def __init__(self):
        self.begin = averages()
        self.parts = []

    @contextmanager
    def part(self, name):
        if not STAT.exists():
            yield
            return
        before = used()
        yield
        self.parts.append({"part": name} | shares_of_others(before, used()))

    def report(self):
        return {"begin": self.begin, "end": averages(), "parts": self.parts}


def averages():
    """Of one, five and fifteen minutes; this run's own processes are among them."""
    return os.getloadavg() if hasattr(os, "getloadavg") else None


def shares_of_others(before, after):
    """What other processes used, and other machines, of the time that all CPUs have."""
    clock, own, everyone, stolen = (end - begin for begin, end in zip(before, after, strict=True))
    available = clock * os.cpu_count()
    others = max(0, everyone - own - TICKS_OF_DOUBT / TICKS)
    return {"others": others / available, "stolen": stolen / available}


def disturbed(parts):
    return [part for part in parts if max(part["others"], part["stolen"]) > DISTURBING]
