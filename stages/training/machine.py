"""What computes: processor, cores, threads and versions."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any


def machine(device: str, threads: int, packages: tuple[str, ...]) -> dict[str, Any]:
    """What computes: its kind, how many threads, and the versions of Python and of these packages."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "device": device,
        "threads": threads,
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
    }


def processor() -> str:
    """Its name; on Linux with family and model, for "AMD EPYC" alone says little on how fast it is."""
    name = cpu_info("model name") or platform.processor() or platform.machine()
    family, model = cpu_info("cpu family"), cpu_info("model")
    return f"{name} (family {family}, model {model})" if family and model else name


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_info(field: str) -> str:
    """A field of Linux's description of the first processor; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.split(":")[0].strip() == field), "")
