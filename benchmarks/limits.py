"""What bounds every implementation on this machine, measured in the same run.

Softmax has to read and to write each number, and a copy does nothing else; and it has to compute an
exponential of each, which takes so many fused multiply-adds (FMA).
"""

from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import numpy as np

import csoftmax
from benchmarks.timing import best_times

# What one exponential takes in csoftmax/kernels/arithmetic.pxd: rounding, reduction, polynomial and
# scaling, this one a bare multiplication. Clamp, subtraction and shift are left out, as a CPU may
# have other units for them.
FMAS_OF_EXP = {"float32": 1 + 2 + 6 + 1, "float64": 1 + 2 + 11 + 1}

# Matrices large enough for the product to run near the peak.
PRODUCT_SIZES = (512, 1024)

# In the place of an operation, for what is measured beside the contenders.
LIMIT = "limit"
COPY = "copy"
SHARED_COPIES = "shared copies"
NUMPY_EXP = "np.exp"
FMA_PEAK = "FMA peak"


@cache
def pool():
    return ThreadPoolExecutor(csoftmax.get_num_threads())


def calls_for(x):
    """What is timed beside the contenders; np.exp where `x` is one row."""
    out = np.empty_like(x)
    calls = {
        (LIMIT, COPY): partial(np.copyto, out, x),
        (LIMIT, SHARED_COPIES): shared_copies_call(out, x),
    }
    if x.ndim == 1:
        calls[LIMIT, NUMPY_EXP] = partial(np.exp, x)
    return calls


def shared_copies_call(out, x):
    """Copies by as many threads as csoftmax has, each of which has its part of the array."""
    threads, copies = csoftmax.get_num_threads(), number_of_shared_copies(x)
    outs, inputs = (np.array_split(array.reshape(-1), threads) for array in (out, x))
    own, *others = zip(outs, inputs, strict=True)

    def copy_part(out, x):
        for _ in range(copies):
            np.copyto(out, x)

    def call():
        waiting = [pool().submit(copy_part, *part) for part in others]
        copy_part(*own)
        for future in waiting:
            future.result()

    return call


def number_of_shared_copies(x):
    """Several in a call, as waking threads takes as long as copying a million numbers."""
    return max(1, min(32, 2**25 // x.size))


def merge_copies(times, x):
    """Leave one time of a copy: by one thread or by all, whichever is less."""
    shared = times.pop((LIMIT, SHARED_COPIES)) / number_of_shared_copies(x)
    times[LIMIT, COPY] = min(times[LIMIT, COPY], shared)


def fma_peak_ns(budget):
    """Nanoseconds of one exponential at the rate of FMAs of a matrix product, by dtype."""
    calls = {}
    for dtype in FMAS_OF_EXP:
        for size in PRODUCT_SIZES:
            matrix = np.random.default_rng(0).standard_normal((size, size)).astype(dtype)
            calls[dtype, size] = partial(np.matmul, matrix, matrix, out=np.empty_like(matrix))
    times = best_times(calls, budget, lambda part: None)
    return {
        dtype: fmas * min(times[dtype, size] / size**3 for size in PRODUCT_SIZES) * 1e9
        for dtype, fmas in FMAS_OF_EXP.items()
    }
