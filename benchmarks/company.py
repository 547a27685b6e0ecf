"""What a call costs beside others that use the CPUs, with every setting at its default.

A machine is seldom as quiet as while a benchmark runs. Where a library's threads wait for one
another, whatever keeps one of them from its CPU keeps all: means show it, the least of many times
does not. How much a call disturbs the others in turn is the idle time: the CPU time that its
process uses when the call is over.

To add a call, enter its case into `CASES`; a library or a setting, a function of a case into
`CONTENDERS`; company, a line into `COMPANIES`. ``python -m benchmarks.company`` is the process of
one figure, or of one that keeps it company.
"""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from statistics import fmean, median
from typing import NamedTuple

import numpy as np

import csoftmax
from benchmarks import processes, table

CASES = {
    f"{operation}, {'x'.join(map(str, shape))}": table.Case("company", shape, (operation,))
    for operation, shape in [
        ("softmax", (256, 1000)),
        ("softmax", (1, 128_256)),
        ("cross_entropy + grad", (256, 1000)),
        ("softmax_vjp", (256, 1000)),
        ("sigmoid", (256_000,)),
    ]
}


def csoftmax_call(case):
    (operation,) = case.operations
    return table.call_for(operation, OWN, case)


def csoftmax_in_one_thread(case):
    csoftmax.set_num_threads(1)
    return csoftmax_call(case)


def csoftmax_in_all_threads(case):
    csoftmax._dispatch.kernels.ask_always(True)
    return csoftmax_call(case)


def onnx_call(case):
    x, _ = table.inputs(case)
    return table.onnx_call("Softmax", x, case.axis, threads=0)


def torch_call(case):
    x, _ = table.inputs(case)
    torch = import_module("torch")
    return partial(torch.softmax, torch.from_numpy(x), case.axis)


OWN = "csoftmax"
ONE_THREAD = "one thread"
ALL_THREADS = "all threads"
CONTENDERS = {
    OWN: csoftmax_call,
    ONE_THREAD: csoftmax_in_one_thread,
    ALL_THREADS: csoftmax_in_all_threads,
    "onnxruntime": onnx_call,
    "torch": torch_call,
}
# Settings of csoftmax, the better of which the default is held against.
SETTINGS = [ONE_THREAD, ALL_THREADS]


class Company(NamedTuple):
    busy_cores: int = 0    # processes that compute all the time
    alike: int = 0    # processes that do the same
    matmuls: bool = False    # one between any two calls, in BLAS' threads
    threads: int = 1    # of Python, which all call


COMPANIES = {
    "nothing": Company(),
    "one busy core": Company(busy_cores=1),
    "two busy cores": Company(busy_cores=2),
    "one more process": Company(alike=1),
    "two more processes": Company(alike=2),
    "matmuls between": Company(matmuls=True),
    "four Python threads": Company(threads=4),
}

IDLE = 0.05    # seconds


def contenders(case):
    """Those that have the operation, of those that are installed."""
    libraries = table.PEERS if case.operations == table.SOFTMAX else ()
    return [
        name
        for name in CONTENDERS
        if name in (OWN, *SETTINGS) or (name in libraries and table.installed(name))
    ]


@contextmanager
def companions(company, *call):
    """The other processes, from when they have begun until the end of the block."""
    roles = [("compute",)] * company.busy_cores + [("keep_calling", *call)] * company.alike
    running = [
        subprocess.Popen(processes.command("company", *role), stdout=subprocess.PIPE)
        for role in roles
    ]
    try:
        for process in running:
            if not process.stdout.readline():
                raise RuntimeError(f"a process that keeps company ended: {process.args}")
        yield running
    finally:
        for process in running:
            process.kill()
            process.communicate()


def measure(name, seconds, rounds, each_turn):
    """Seconds of a call in each company, of all contenders in turns."""
    names = [
        (company, contender) for company in COMPANIES for contender in contenders(CASES[name])
    ]

    def mean_seconds(key):
        company, contender = key
        with companions(COMPANIES[company], name, contender):
            return processes.figure_from("company", "mean", name, contender, company, seconds)

    times = processes.medians(mean_seconds, names, rounds, each_turn)
    by_company = {company: {} for company in COMPANIES}
    for (company, contender), seconds in times.items():
        by_company[company][contender] = seconds
    return [
        {"call": name, "company": company, "seconds": row, "ratio": ratio(row)}
        for company, row in by_company.items()
    ]


def ratio(seconds):
    """The default's time by that of the best setting in the same company."""
    return seconds[OWN] / min(seconds[setting] for setting in SETTINGS)


def measure_idle(name, repetitions):
    """CPU seconds that each contender uses after a call."""
    return [
        {"call": name, "contender": contender}
        | processes.figure_from("company", "idle", name, contender, repetitions)
        for contender in contenders(CASES[name])
    ]


def mean(name, contender, company, seconds):
    """What `measure` gets from a process: the mean seconds of a call, and of a thread."""
    call = CONTENDERS[contender](CASES[name])
    company = COMPANIES[company]
    between = matmul() if company.matmuls else None
    call()    # the warm-up
    time_calls = partial(processes.mean_time, call, float(seconds), between)
    with ThreadPoolExecutor() as pool:
        others = [pool.submit(time_calls) for _ in range(company.threads - 1)]
        return fmean([time_calls(), *(other.result() for other in others)])


def matmul():
    matrix = np.random.default_rng(0).standard_normal((512, 512), np.float32)
    return partial(np.matmul, matrix, matrix, out=np.empty_like(matrix))


def idle(name, contender, repetitions):
    """What `measure_idle` gets from a process, with what a sleep takes by itself."""
    call = CONTENDERS[contender](CASES[name])
    after_nothing = [cpu_seconds_of_sleep() for _ in range(int(repetitions))]
    after_calls = []
    for _ in range(int(repetitions)):
        call()
        after_calls.append(cpu_seconds_of_sleep())
    return {
        "sleep": median(after_nothing),
        "median": median(after_calls),
        "max": max(after_calls),
    }


def cpu_seconds_of_sleep():
    before = cpu_seconds()
    time.sleep(IDLE)
    return sum(used - before.get(thread, 0) for thread, used in cpu_seconds().items())


def cpu_seconds():
    """What each thread of the process has used; under one name where they can't be told apart.

    The clock of the process lacks what its running threads have used since the last tick of Linux,
    by the next of which that would look like idle time.
    """
    threads = "/proc/self/task"
    if not os.path.exists(threads):
        return {"all": time.process_time()}
    used = {}
    for thread in os.listdir(threads):
        with suppress(OSError):    # one that has ended meanwhile
            # The clock's number is made of the thread's, as pthread_getcpuclockid does it.
            used[thread] = time.clock_gettime(~int(thread) << 3 | 6)
    return used


def keep_calling(name, contender):
    """What a process does that does the same as the measured one."""
    call = CONTENDERS[contender](CASES[name])
    call()
    keep_on(call)


def compute():
    """What a process does that keeps a core busy."""
    keep_on(lambda: sum(range(10_000)))


def keep_on(work):
    """Until it is ended, or left behind by who started it."""
    print(flush=True)
    parent = os.getppid()
    while os.getppid() == parent:
        work()


def main(role, *arguments):
    figure = ROLES[role](*arguments)
    print(json.dumps(figure))


ROLES = {role.__name__: role for role in (mean, idle, keep_calling, compute)}

if __name__ == "__main__":
    main(*sys.argv[1:])
