"""What a measurement ran on, and the name of that machine."""

import datetime
import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "tensorflow", "keras", "numpy", "dvc")


def facts() -> dict[str, Any]:
    """Processor, memory, system, versions, date, and the commit that was measured."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _git("rev-parse", "HEAD") or None,
        "dirty": bool(_git("status", "--porcelain")),
        "processor": processor(),
        "cores": cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }


def processor() -> str:
    """Its name; on Linux with family and model, for "AMD EPYC" alone says little on how fast it is."""
    name = cpu_info("model name") or platform.processor() or platform.machine()
    family, model = cpu_info("cpu family"), cpu_info("model")
    return f"{name} (family {family}, model {model})" if family and model else name


def slug(processor: str, count: int) -> str:
    """A machine's file name: "Intel(R) Core(TM) i7" with 2 cores is intel-core-i7-2-cores."""
    words = re.sub(r"\((r|tm|c)\)", " ", processor.lower())
    name = "-".join(re.findall(r"[a-z0-9]+", words)) or "processor"
    return f"{name}-{count}-core{'s' if count != 1 else ''}"


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


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 matrices itself; the frameworks would emulate it otherwise."""
    return bool({"avx512_bf16", "amx_bf16"} & set(cpu_info("flags").split()))


def _git(*arguments: str) -> str:
    try:
        result = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607
    except FileNotFoundError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
