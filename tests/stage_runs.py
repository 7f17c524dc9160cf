"""Running a stage as dvc.yaml does, and changing its parameters as `dvc exp run -S` does."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]


def change_parameters(changes: dict[str, Any]) -> None:
    """Set keys, `section.key` each, of params.yaml in the current directory."""
    path = Path("params.yaml")
    parameters = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key, value in changes.items():
        *sections, name = key.split(".")
        section = parameters
        for part in sections:
            section = section[part]
        section[name] = value
    path.write_text(yaml.safe_dump(parameters, sort_keys=False), encoding="utf-8")


def run_stage(name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a stage in the current directory, with the repository's modules and these environment variables."""
    return subprocess.run(
        [sys.executable, "-m", f"stages.{name}"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
