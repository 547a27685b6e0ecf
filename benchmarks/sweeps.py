"""Softmax over a range of row lengths, and over a range of numbers of rows, for the charts."""

from benchmarks import table
from benchmarks.measure import measure_times

# SciPy's softmax calls the same functions of NumPy as "numpy" does.
CONTENDERS = ("csoftmax", "csoftmax" + table.OUT, "numpy", "torch", "onnxruntime", "jax")

BY_LENGTH, BY_ROWS = "row length", "number of rows"
NUMBERS = 1_000_000
LARGEST = 10_000_000
LENGTHS = [2, 3, 5, 10, 20, 33, *(m * 10**k for k in range(1, 7) for m in (5, 10, 20))]
ROWS = [m * 10**k for k in range(7) for m in (1, 3)]

CASES = [
    table.Case(BY_LENGTH, (max(1, NUMBERS // length), length), table.SOFTMAX, dtype)
    for dtype in ("float32", "float64")
    for length in LENGTHS
    if length <= LARGEST
] + [
    table.Case(BY_ROWS, (rows, length), table.SOFTMAX)
    for length in (10, 1000)
    for rows in ROWS
    if rows <= 1_000_000 and rows * length <= LARGEST
]


def quick_cases():
    """Every third point, without those that take long."""
    return [case for case in CASES if case.size <= table.LARGEST_QUICK][::3]


def measure(case, budget, each_turn):
    """The figures of one point of a sweep."""
    calls = {
        (operation, name): table.call_for(operation, name, case)
        for operation, name in table.contenders(case)
        if name in CONTENDERS
    }
    return measure_times(case, calls, budget, each_turn)
