"""What the figures depend on."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import csoftmax
from benchmarks import table

DISTRIBUTIONS = {"sklearn": "scikit-learn", "llama_cpp": "llama-cpp-python"}


def describe():
    peers = [name for name in table.PEERS if table.installed(name)]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cpus": os.cpu_count(),
        "threads": csoftmax.get_num_threads(),
        "versions": {"python": platform.python_version()}
        | {name: version(DISTRIBUTIONS.get(name, name)) for name in ["numpy", *peers]},
        "not_installed": [name for name in table.PEERS if name not in peers],
        "csoftmax": csoftmax.show_config(mode="dicts"),
    }


def cpu_model():
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()
