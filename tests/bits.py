"""The bits of every function's results, recorded and compared: what a change of the source changes.

    python -m tests.bits record FILE
    python -m tests.bits compare FILE [--verbose]

The file has, for every build that this CPU can use, a hash of each call's results: of their dtypes,
shapes and bytes. Names of calls begin with the function's. Where a result is a scalar, there is
another hash with that rounded to float32.
"""

import argparse
import hashlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from csoftmax import _dispatch

from .every_layout import calls
from .functions import FUNCTIONS


def hash_of(parts):
    described = (f"{part.dtype.str}{part.shape}".encode() + part.tobytes() for part in parts)
    return hashlib.blake2b(b"".join(described), digest_size=10).hexdigest()


def hashes():
    """Of all calls, with the build that this process uses."""
    found = {}
    with np.errstate(all="ignore"):
        for case, called in calls():
            for name, call in called.items():
                parts = [np.asarray(result) for result in call()]
                found[f"{name}, {case}"] = hash_of(parts)
                if any(part.ndim == 0 for part in parts):
                    parts = [part if part.ndim else part.astype(np.float32) for part in parts]
                    found[f"{name} rounded, {case}"] = hash_of(parts)
    missing = FUNCTIONS.keys() - {name.split()[0].strip(",") for name in found}
    assert not missing, missing
    return found


def hashes_of_builds():
    usable = [isa for isa in _dispatch.isas_built if isa in _dispatch.isas_supported]
    return {
        isa: json.loads(subprocess.run(
            [sys.executable, "-m", "tests.bits", "print"], check=True, stdout=subprocess.PIPE,
            env={**os.environ, _dispatch.VARIABLE: isa},
        ).stdout) for isa in usable
    }  # fmt: skip


def compare(before, after, verbose):
    """Whether all are the same; says which are not."""
    same = True
    for isa in before | after:
        old, new = before.get(isa, {}), after.get(isa, {})
        different = [name for name in old | new if old.get(name) != new.get(name)]
        print(f"{isa}: {len(old | new) - len(different)} of {len(old | new)} are the same")
        for function, names in itertools.groupby(sorted(different), lambda name: name.split()[0]):
            names = list(names)
            print(f"  {function.strip(',')}: {len(names)} differ")
            if verbose:
                print(*(f"    {name}" for name in names), sep="\n")
        same = same and not different
    return same


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=["record", "compare", "print"])
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--verbose", action="store_true")
    chosen = parser.parse_args()
    if chosen.action == "print":
        json.dump(hashes(), sys.stdout)
    elif chosen.action == "record":
        chosen.file.write_text(json.dumps(hashes_of_builds(), indent=0))
    else:
        before = json.loads(chosen.file.read_text())
        sys.exit(not compare(before, hashes_of_builds(), chosen.verbose))


if __name__ == "__main__":
    main()
