"""How many times csoftmax's time the fastest of the others takes, cell by cell.

A cell is an operation on a case, into a new array or into an existing one (out=), beside those that
do the same; where none of them has an out=, beside those that make a new array.
"""

from statistics import geometric_mean

from benchmarks.limits import COPY, LIMIT
from benchmarks.table import OUT

OWN = ("csoftmax", "csoftmax" + OUT)
PLAIN = {"numpy", "scipy"}


def compare(figures):
    """The cells, in the order of the figures."""
    times, copies = {}, {}
    for figure in figures:
        case, implementation = figure["case"], figure["implementation"]
        if implementation == COPY:
            copies[case] = figure["ns_per_number"]
        elif figure["operation"] != LIMIT:
            row = times.setdefault((case, figure["operation"]), {})
            row[implementation] = figure["ns_per_number"]
    return [
        {"case": case, "operation": operation, "copies": row[own] / copies[case]}
        | beside_others(own, row)
        for (case, operation), row in times.items()
        for own in OWN
        if own in row
    ]


def beside_others(own, times):
    out = own.endswith(OUT)
    others = {name: ns for name, ns in times.items() if name not in OWN}
    alike = [name for name in others if name.endswith(OUT) == out] or others
    peer = min(alike, key=others.get)
    plain = min(PLAIN & others.keys(), key=others.get)
    return {
        "out": out,
        "peer": peer,
        "peer_ratio": others[peer] / times[own],
        "plain": plain,
        "plain_ratio": others[plain] / times[own],
    }


def means(cells):
    """Geometric means of both ratios, over the cells without out=, over those with it, over all."""
    groups = {
        "new array": [cell for cell in cells if not cell["out"]],
        "out=": [cell for cell in cells if cell["out"]],
        "all": cells,
    }
    return {
        name: {
            "cells": len(group),
            "peer_ratio": geometric_mean(cell["peer_ratio"] for cell in group),
            "plain_ratio": geometric_mean(cell["plain_ratio"] for cell in group),
        }
        for name, group in groups.items()
    }
