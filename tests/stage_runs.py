"""Running a stage as dvc.yaml does, and changing its parameters as `dvc exp run -S` does."""

import contextlib
import importlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from stages.parameters import Section

ROOT = Path(__file__).parents[1]
STAGES_WITH_PARAMETERS = ("download", "split", "train_keras_cnn", "train_resnet18", "evaluate")


def schema(stage: str) -> type[Section]:
    parameters: type[Section] = importlib.import_module(f"stages.{stage}").Parameters
    return parameters


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


def run_stage(name: str, *arguments: str, without: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a stage in the current directory, with the repository's modules and these environment variables.

    It fails where it has imported a module of the comma-separated list `without`.
    """
    return subprocess.run(
        [sys.executable, "-c", RUN, name, without, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


RUN = """
import runpy, sys
_, name, without, *arguments = sys.argv
sys.argv = [name, *arguments]
runpy.run_module(f"stages.{name}", run_name="__main__", alter_sys=True)
imported = set(without.split(",")) & set(sys.modules)
assert not imported, f"imported {imported}"
"""


@contextlib.contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """A limit on the size of files, in bytes, stands for a full disk: the same system call fails, with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Steps:
    """In place of a TrainingLog: keeps what it is told of each step."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.losses: list[float] = []

    def step(self, done: int, loss: float, accuracy: float) -> None:
        """As TrainingLog's."""
        self.done.append(done)
        self.losses.append(float(loss))
