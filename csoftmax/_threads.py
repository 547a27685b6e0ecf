"""How many threads a call may use.

The kernels take the smaller of the limit set here and OpenMP's own, at every call, so that
``OMP_NUM_THREADS`` and ``threadpoolctl`` hold as well. Within that limit they decide themselves:
small inputs use one thread, and so does a call in bad company (kernels/threads.h).
"""

import math
import operator
import os

from csoftmax._dispatch import kernels

VARIABLE = "CSOFTMAX_NUM_THREADS"
MOST_DIGITS = 100    # of a number in the environment; Python itself converts no more than 4300

# csoftmax's own limit, and what it comes from.
own_limit = source = None

# Whether somebody set the number of threads, so that it is not for us to judge.
is_set = False


def cpus_of_process():
    """CPUs that are left to this process, and by what."""
    cpus = kernels.cpus_of_thread() or os.cpu_count() or 1
    quota = cgroup_quota()
    if quota < cpus:
        return max(1, quota), "the quota of a cgroup"
    return cpus, "the affinity mask" if cpus < (os.cpu_count() or 1) else "the number of CPUs"


def cgroup_quota(groups="/proc/self/cgroup", root="/sys/fs/cgroup"):
    """CPUs' worth of time that the cgroup may use, rounded up; infinite where there is no limit.

    A group is limited by all that it is in. In a container without a namespace of its own, the
    path is the host's and doesn't exist; the container's group is then the root.

    Paths are strings, as pathlib takes as long to import as csoftmax.
    """
    try:
        lines = text_of(groups).splitlines()
    except OSError:
        return math.inf
    limit = math.inf
    for line in lines:
        _, _, group = line.partition(":")
        controllers, _, path = group.partition(":")
        if controllers == "":    # version 2
            top, files = root, ["cpu.max"]
        elif "cpu" in controllers.split(","):    # version 1
            top, files = os.path.join(root, "cpu"), ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        path = path.strip("/")
        while path:
            limit = min(limit, quota_of_group(os.path.join(top, path), files))
            path = os.path.dirname(path)
        limit = min(limit, quota_of_group(top, files))
    return limit


def quota_of_group(folder, files):
    try:
        quota, period = " ".join(text_of(os.path.join(folder, name)) for name in files).split()
        quota, period = int(quota), int(period)
    except (OSError, ValueError):    # no such group, or "max"
        return math.inf
    return math.ceil(quota / period) if quota > 0 and period > 0 else math.inf


def text_of(path):
    with open(path, errors="surrogateescape") as file:
        return file.read()


def number_in(variable, least):
    """What an environment variable says, or None."""
    text = os.environ.get(variable)
    if text is None:
        return None
    digits = text.strip()
    if not digits.isdecimal() or len(digits) > MOST_DIGITS or int(digits) < least:
        shown = text if len(text) <= MOST_DIGITS else f"{text[:20]}... ({len(text)} characters)"
        raise ImportError(
            f"csoftmax: {variable}={shown!r}; it must be a whole number, at least {least}, "
            f"of at most {MOST_DIGITS} digits."
        )
    return int(digits)


def default_limit():
    """The limit where none is set by a call, and what it comes from."""
    limit = number_in(VARIABLE, 1)
    return cpus_of_process() if limit is None else (limit, VARIABLE)


def set_num_threads(n):
    """Set how many threads a call may use at most.

    Parameters
    ----------
    n : int or None
        The limit, at least 1. None: back to the default, which is the environment variable
        ``CSOFTMAX_NUM_THREADS``, else the CPUs that this process may use (affinity, cgroup quota).

    Raises
    ------
    TypeError
        If `n` is neither an integer nor None.
    ValueError
        If `n` is less than 1.

    See Also
    --------
    get_num_threads : What is in force.

    Notes
    -----
    OpenMP's own limits (``OMP_NUM_THREADS``, ``threadpoolctl``) hold too, and small inputs use one
    thread. So do blocks of a Dask array unless a number is set here or by a variable, as several
    are computed at once. Beside other work on the same CPUs a call uses one thread where that is
    faster. Results don't depend on the number of threads, to the last bit.

    Examples
    --------
    >>> import csoftmax
    >>> csoftmax.set_num_threads(1)
    >>> csoftmax.get_num_threads()
    1
    >>> csoftmax.set_num_threads(None)
    """
    global is_set, own_limit, source
    is_set = n is not None or VARIABLE in os.environ or "OMP_NUM_THREADS" in os.environ
    if n is None:
        own_limit, source = default_limit()
    else:
        try:
            limit = operator.index(n)
        except TypeError:
            raise TypeError(f"n must be an integer or None, got {n!r}") from None
        if limit < 1:
            raise ValueError(f"n must be at least 1, or None for the default, got {limit}")
        own_limit, source = limit, "set_num_threads"
    kernels.set_thread_limit(min(own_limit, 2**31 - 1))


def get_num_threads():
    """How many threads a call on a large input may use now.

    Returns
    -------
    int
        The smaller of csoftmax's limit and of ``omp_get_max_threads()``.

    See Also
    --------
    set_num_threads : Set the limit.

    Examples
    --------
    >>> import csoftmax
    >>> csoftmax.get_num_threads() >= 1
    True
    """
    return kernels.thread_state()["threads"]


def threads_in_use():
    """What `show_config` says of threads."""
    state = kernels.thread_state()
    return {
        "num_threads": state["threads"],
        "num_threads_from": "OpenMP" if state["openmp_limit"] < own_limit else source,
        "helper_threads": state["helpers"],
        "helpers_pay": state["helpers_pay"],
    }


set_num_threads(None)
