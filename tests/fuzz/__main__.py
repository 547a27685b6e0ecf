"""The command line: many calls and a table of what they gave, or one call by its number."""

import argparse
import sys
import time
import warnings

import csoftmax

from ..contract import Failure
from ..exact import limits_of
from .climb import Climb
from .random_calls import FUNCTIONS, Call, perform, run_many


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description="Random calls of every public function, checked against longdouble formulas.",
    )
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--functions", default=",".join(FUNCTIONS), help="names, with commas")
    parser.add_argument("--only", type=int, help="the number of the one call to make")
    parser.add_argument(
        "--climb", type=int, default=0, metavar="ROUNDS",
        help="then change each function's worst call so often, and keep what is worse",
    )
    options = parser.parse_args(arguments)
    build = csoftmax.show_config(mode="dicts")["isa"]
    limits = limits_of(build)
    warnings.simplefilter("error")
    if options.only is not None:
        call = Call(options.seed, options.only)
        print(call.described())
        print(perform(call, limits))
        return 0
    wanted = options.functions.split(",")
    turns = [i for i, name in enumerate(FUNCTIONS) if name in wanted]
    if len(turns) != len(wanted):
        parser.error(f"functions are {', '.join(FUNCTIONS)}")
    numbers = (
        i // len(turns) * len(FUNCTIONS) + turns[i % len(turns)] for i in range(options.calls)
    )
    start = last = time.monotonic()
    made = 0

    def progress(number):
        nonlocal last, made
        made += 1
        now = time.monotonic()
        if now - last > 30:
            last = now
            print(f"{made} calls, {made / (now - start):.0f} a second", flush=True)

    table, failures = run_many(numbers, options.seed, limits, progress)
    print(f"{build}, {time.monotonic() - start:.0f} seconds")
    print(f"{'function':<38}{'calls':>10}{'refused':>10}{'error, ULP':>12}{'of its limit':>14}")
    for name in wanted:
        calls, refused, error, number = table[name]
        print(f"{name:<38}{calls:>10}{refused:>10}{error.ulp:>12.3g}{error.share:>14.3g}")
        if not options.climb or number is None:
            continue
        climb = Climb(Call(options.seed, number), limits)
        try:
            climb.climb(options.climb)
        except Failure as failure:
            failures.append((number, f"{failure}, after a climb, of {climb.described()}"))
            continue
        print(f"{'    after the climb':<58}{climb.error.ulp:>12.3g}{climb.error.share:>14.3g}")
    for number, text in failures:
        print(f"\npython -m tests.fuzz --seed {options.seed} --only {number}")
        print(text)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
