"""Which build of the kernels is used: the best that this CPU supports, or the one asked for.

``kernels`` is that build's module; everything compiled is reached through it.
"""

import importlib
import importlib.util
import os

try:
    from csoftmax.kernels import cpu
except ImportError as error:
    raise ImportError(
        "csoftmax is not built here: run `pip install .`, or start Python outside of its source"
    ) from error

VARIABLE = "CSOFTMAX_ISA"

# Best first: name of the instruction set, module of its build, x86-64 level that it needs.
BUILDS = [
    ("x86-64-v4", "x86_64_v4", 4),
    ("x86-64-v3", "x86_64_v3", 3),
    ("x86-64-v2", "x86_64_v2", 2),
    ("generic", "generic", 0),
]
MODULES = {isa: f"csoftmax.kernels.{module}" for isa, module, _ in BUILDS}

isas_supported = [isa for isa, _, level in BUILDS if cpu.x86_64_level() >= level]
isas_built = [isa for isa, module in MODULES.items() if importlib.util.find_spec(module)]


def choose(wanted):
    """The name of the build to use; `wanted` is a name, or None for the best."""
    usable = [isa for isa in isas_built if isa in isas_supported]
    if wanted is None and usable:
        return usable[0]
    if wanted in usable:
        return wanted
    asked = f"{VARIABLE}={wanted!r} can't be used" if wanted is not None else "no usable build"
    raise ImportError(
        f"csoftmax: {asked}. Built: {', '.join(isas_built)}; "
        f"supported by this CPU: {', '.join(isas_supported)}."
    )


isa = choose(os.environ.get(VARIABLE))
kernels = importlib.import_module(MODULES[isa])
