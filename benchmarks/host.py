"""What a measurement ran on, and the name of that machine."""

import datetime
import os
import platform
import re
import subprocess
from importlib.metadata import version
from typing import Any

from stages.training.machine import cores, processor

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


def slug(processor: str, count: int) -> str:
    """A machine's file name: "Intel(R) Core(TM) i7" with 2 cores is intel-core-i7-2-cores."""
    words = re.sub(r"\((r|tm|c)\)", " ", processor.lower())
    name = "-".join(re.findall(r"[a-z0-9]+", words)) or "processor"
    return f"{name}-{count}-core{'s' if count != 1 else ''}"


def _git(*arguments: str) -> str:
    try:
        result = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607
    except FileNotFoundError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
