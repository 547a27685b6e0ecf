"""What is in use: version, build, compiler, threads, memory."""

import sys

from csoftmax._dispatch import isa, isas_built, isas_supported, kernels
from csoftmax._threads import number_in, threads_in_use

__version__ = "0.1.0"

# How much memory of large results is kept for the next ones at most (kernels/memory.h).
keep_mb = number_in("CSOFTMAX_KEEP_MB", 0)
if keep_mb is None:
    keep_mb = 256
if not kernels.keep_memory(min(keep_mb * 2**20, sys.maxsize)):
    keep_mb = 0


def show_config(mode="stdout"):
    """Print what is in use, or return it.

    Parameters
    ----------
    mode : {"stdout", "dicts"}, default "stdout"
        Whether to print, or to return a dict.

    Returns
    -------
    dict or None
        With "dicts": ``version``; ``isa``, the instruction set in use; ``isas_built``;
        ``isas_supported`` by this CPU; ``compiler``; ``openmp``, whether it was built with it,
        so that OpenMP's limits hold; ``num_threads``, see `get_num_threads`;
        ``num_threads_from``, what that limit comes from; ``helper_threads``, how many csoftmax
        has started so far; ``helpers_pay``, whether large calls were faster with them of late.
        Where they were not, as beside other work on the same CPUs, the next calls use one
        thread for a while; ``keep_mb``, how many megabytes of large results' memory stay with
        the process for the next ones, at most: 256, or what ``CSOFTMAX_KEEP_MB`` says, on Linux,
        0 elsewhere.

    Raises
    ------
    ValueError
        If `mode` is neither of the two.

    See Also
    --------
    set_num_threads : Set how many threads a call may use.

    Examples
    --------
    >>> import csoftmax
    >>> csoftmax.set_num_threads(1)
    >>> csoftmax.show_config(mode="dicts")["num_threads_from"]
    'set_num_threads'
    >>> csoftmax.set_num_threads(None)
    """
    if mode not in ("stdout", "dicts"):
        raise ValueError(f"mode must be 'stdout' or 'dicts', got {mode!r}")
    config = {
        "version": __version__,
        "isa": isa,
        "isas_built": list(isas_built),
        "isas_supported": list(isas_supported),
        "compiler": kernels.compiler,
        "openmp": kernels.openmp,
        **threads_in_use(),
        "keep_mb": keep_mb,
    }
    if mode == "dicts":
        return config
    for key, value in config.items():
        print(f"{key}: {', '.join(value) if isinstance(value, list) else value}")
    return None
