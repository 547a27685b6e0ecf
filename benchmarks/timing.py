"""Times of several functions side by side."""

from time import perf_counter, process_time, sleep
from timeit import Timer
from typing import NamedTuple

TURN = 0.012
SAMPLE = 0.0003


class Budget(NamedTuple):
    """How long the functions take turns: at least so many seconds, and so many turns of each."""

    seconds: float
    turns: int


def best_times(calls, budget, each_turn):
    """The least time of a call in seconds, by name.

    The functions take turns, A B C A B C, until the `budget` is used: a machine that has other
    work as well slows down all of them, not the one that was its turn just then. A turn is a few
    samples, each the mean of as many calls as fill a fraction of a millisecond. The least of all
    samples is the one that was disturbed least. `each_turn` is told how much of the budget is used.
    """
    timers = {name: Timer(call) for name, call in calls.items()}
    best = {name: timer.timeit(1) for name, timer in timers.items()}    # the warm-up
    start = perf_counter()
    turns = 0
    while turns < budget.turns or perf_counter() < start + budget.seconds:
        for name, timer in timers.items():
            each_turn(min((perf_counter() - start) / budget.seconds, 1))
            settle()
            turn_end = perf_counter() + TURN
            while perf_counter() < turn_end:
                repeats = max(1, int(SAMPLE / best[name]))
                best[name] = min(best[name], timer.timeit(repeats) / repeats)
        turns += 1
    return best


def settle(interval=0.002, at_most=0.2):
    """Wait until the threads of the contender before let the CPUs go.

    They wait for more work in a loop, for 10 ms with OpenMP, for 50 with ONNX Runtime, on a core
    that the next contender would lack.
    """
    end = perf_counter() + at_most
    while perf_counter() < end:
        used = process_time()
        sleep(interval)
        if process_time() - used < interval / 4:
            return
