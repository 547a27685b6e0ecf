"""A billion logits on a Dask cluster, of which a worker holds a few million at a time.

`python -m benchmarks.dask_throughput` (the extra `test` has Dask) starts a worker with one thread
for each CPU, and times the mean confidence (the largest probability of a row) and the mean
cross-entropy: with csoftmax, with textbook NumPy, and without either, for what it takes to go
through the logits.
"""

import argparse
import functools
import logging
import os
import resource
from time import perf_counter

import dask.array as da
import numpy as np
from dask.distributed import Client, LocalCluster

import csoftmax
from csoftmax.reference import numpy_cross_entropy, numpy_softmax

CLASSES = 1000
ROWS_OF_BLOCK = 4000    # 16 MB of float32


@functools.cache
def table():
    return np.random.default_rng(0).standard_normal((2 * ROWS_OF_BLOCK, CLASSES), np.float32)


def logits_of_block(block_info):
    """A part of a table, as new random numbers would take longer than all that is made of them."""
    first = block_info[None]["chunk-location"][0] * 101 % ROWS_OF_BLOCK
    return table()[first : first + ROWS_OF_BLOCK]


def loss_of_block(logits, target):
    (logits,) = logits    # Dask gives the blocks along the axis that is summed over as a list
    return np.array([numpy_cross_entropy(logits, target)])


def tasks(rows):
    """Lazy means by what is computed and with what."""
    chunks = ((ROWS_OF_BLOCK,) * (rows // ROWS_OF_BLOCK), CLASSES)
    logits = da.map_blocks(
        logits_of_block, chunks=chunks, dtype=np.float32, meta=np.empty((0, 0), np.float32)
    )
    target = da.random.default_rng(0).integers(CLASSES, size=rows, chunks=chunks[0])
    largest = logits.max(axis=-1)
    return {
        "confidence": {
            "neither": largest.mean(),
            "numpy": logits.map_blocks(numpy_softmax, meta=logits).max(axis=-1).mean(),
            "csoftmax": csoftmax.softmax(logits).max(axis=-1).mean(),
        },
        "cross_entropy": {
            "neither": (largest + target).mean(),
            "numpy": da.blockwise(
                loss_of_block, "i", logits, "ij", target, "i", adjust_chunks={"i": 1},
                dtype=np.float32, meta=np.empty(0, np.float32),
            ).mean(),
            "csoftmax": csoftmax.cross_entropy(logits, target),
        },
    }  # fmt: skip


def peak_memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--numbers", type=float, default=1e9)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    blocks = max(1, round(arguments.numbers / (CLASSES * ROWS_OF_BLOCK)))
    numbers = blocks * CLASSES * ROWS_OF_BLOCK
    workers = os.cpu_count()
    print(f"{numbers:,} logits in rows of {CLASSES}, {workers} workers, best of "
          f"{arguments.repetitions} in turn")
    with LocalCluster(
        n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=logging.ERROR
    ) as cluster, Client(cluster) as client:  # fmt: skip
        client.run(lambda: table().shape)
        for kind, by_backend in tasks(blocks * ROWS_OF_BLOCK).items():
            best = {}
            for _ in range(arguments.repetitions):
                for backend, lazy in by_backend.items():
                    start = perf_counter()
                    value = client.compute(lazy, sync=True)
                    seconds = perf_counter() - start
                    best[backend] = min(best.get(backend, (seconds, value)), (seconds, value))
            for backend, (seconds, value) in best.items():
                print(
                    f"{kind:<15}{backend:<10}{value:>10.5f}{seconds:>8.2f} s"
                    f"{numbers / seconds / 1e6:>8.0f} million a second"
                )
        for worker, peak in client.run(peak_memory).items():
            print(f"most memory of {worker}: {peak / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
