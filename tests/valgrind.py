"""Every function under valgrind: what is read or written outside arrays, or read before it is set.

    python -m tests.valgrind
    python -m tests.valgrind --quick

The rows are around the sizes of vectors, blocks and chunks, in both types and several layouts; few
of them if it has to be quick. Valgrind knows no AVX-512, so the build is x86-64-v3 unless
CSOFTMAX_ISA says otherwise. CPython's own errors don't count.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from .cases import LAYOUTS, contiguous, random_rows, side_by_side, with_gaps
from .every_function import OPERANDS, bits_in_place, bits_of_calls
from .functions import arranged, operands_of_rows

# Numbers of rows, and their lengths. Some are enough for a second thread.
SHAPES = [
    (3, 1), (20, 3), (3, 7), (20, 15), (3, 16), (20, 17), (3, 63), (20, 64), (3, 65), (20, 70),
    (2, 130), (3, 511), (3, 513), (3, 1000), (2, 2055), (3, 2100), (3, 4096), (2, 4111), (3, 4113),
    (2, 8300), (1300, 5),
]  # fmt: skip
ALL = [(shape, layout) for shape in SHAPES for layout in LAYOUTS]
QUICK = [((20, 17), contiguous), ((40, 65), side_by_side), ((3, 1000), with_gaps)]


def call_everything(cases):
    for shape, layout in cases:
        for dtype in ("float32", "float64"):
            x = random_rows(*shape, np.dtype(dtype))
            operands = operands_of_rows(sorted(OPERANDS), x, [1, 0.7, 3.3], special=True)
            bits_of_calls(*arranged(operands, layout))
            if layout is contiguous:
                bits_in_place(operands)


def errors_of_kernels(arguments):
    """Where valgrind names the kernels, of a process that makes these calls."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        command = ["valgrind", f"--log-file={log}", "--num-callers=20"]
        command += [sys.executable, "-m", "tests.valgrind", "--inside", *arguments]
        environment = {"CSOFTMAX_ISA": "x86-64-v3", **os.environ}
        environment |= {"PYTHONMALLOC": "malloc", "OMP_NUM_THREADS": "2"}
        subprocess.run(command, env=environment, check=True)
        errors = re.split(r"(?m)^==\d+== $", log.read_text())
    return [error for error in errors if " at 0x" in error and re.search(r"x86_64_v\d", error)]


if __name__ == "__main__":
    if "--inside" in sys.argv:
        call_everything(QUICK if "--quick" in sys.argv else ALL)
    else:
        errors = errors_of_kernels(sys.argv[1:])
        sys.exit(f"{len(errors)} errors, the first:\n{errors[0]}" if errors else 0)
