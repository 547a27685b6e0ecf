"""Which module computes lazily, found by its name: it imports those that ask for it."""

import importlib
import sys

LAZY_MODULE = "csoftmax._dask"


def lazy_functions(*arrays):
    """The module with the functions for Dask arrays if one of these is one, else None."""
    if "dask.array" not in sys.modules:
        return None
    dask_array = getattr(sys.modules["dask.array"], "Array", ())    # not there while it is imported
    for array in arrays:
        if isinstance(array, dask_array):
            return importlib.import_module(LAZY_MODULE)
    return None
