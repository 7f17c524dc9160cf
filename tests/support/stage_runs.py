"""Running a stage as dvc.yaml does, and changing its parameters as `dvc exp run -S` does."""

import contextlib
import importlib
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from ruamel.yaml import YAML

from stages.common.config import Section, read
from stages.common.errors import run_program
from stages.training.images import Images
from stages.training.plateau import Plateau

ROOT = Path(__file__).parents[2]
STAGES_WITH_PARAMETERS = ("download", "split", "train_keras_cnn", "train_resnet18", "evaluate")


def schema(stage: str) -> type[Section]:
    parameters: type[Section] = importlib.import_module(f"stages.{stage}").Parameters
    return parameters


def change_parameters(changes: dict[str, Any]) -> None:
    """Set keys, `section.key` each, of params.yaml in the current directory."""
    path = Path("params.yaml")
    parameters = read(path)
    for key, value in changes.items():
        *sections, name = key.split(".")
        section = parameters
        for part in sections:
            section = section[part]
        section[name] = value
    YAML().dump(parameters, path)


def run_stage(name: str, *arguments: str, without: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a stage in the current directory, with the repository's modules and these environment variables.

    It fails if it has imported a module of the comma-separated list `without`.
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


def kill_in_epoch(module: str, epoch: int) -> None:
    """Run a training in the current directory, which is killed in this epoch."""
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_IN_EPOCH, module, str(epoch)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL


KILLED_IN_EPOCH = """
import os, runpy, signal, sys
from stages.training.log import TrainingLog

module, epoch = sys.argv[1], int(sys.argv[2])
step = TrainingLog.step

def step_or_die(log, *done):
    if len(log.rows) == epoch - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    step(log, *done)

TrainingLog.step = step_or_die
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@contextlib.contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """Limit the size of files, in bytes. As on a full disk, writing fails, here with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def process_settings() -> Iterator[None]:
    """Restore what a stage sets for the whole process: environment, deterministic operations, generators."""
    import torch  # here, because it takes seconds that the tests of the data do not need

    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    filling = torch.utils.deterministic.fill_uninitialized_memory
    with mock.patch.dict(os.environ), torch.random.fork_rng():
        yield
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    torch.utils.deterministic.fill_uninitialized_memory = filling


class Steps:
    """Takes the place of a TrainingLog, and keeps what it is told about each step."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.losses: list[float] = []

    def step(self, done: int, loss: float, accuracy: float) -> None:
        """As TrainingLog's."""
        self.done.append(done)
        self.losses.append(float(loss))


def one_line(name: str, main: Callable[[], None]) -> str:
    """The one line with which a program ends, if an expected error stops it."""
    with pytest.raises(SystemExit) as caught:
        run_program(name, main)
    line = caught.value.code
    assert isinstance(line, str)
    assert "\n" not in line
    return line


def prepare(changes: dict[str, Any]) -> None:
    """In the current directory: tiny synthetic data, 50 + 10 images split 40 and 10, and these parameters."""
    shutil.copy(ROOT / "params.yaml", ".")
    change_parameters({"data.source": "synthetic", "data.synthetic.train_images": 50, "data.synthetic.test_images": 10})
    for stage in ("download", "preprocess", "split"):
        importlib.import_module(f"stages.{stage}").main()
    change_parameters(changes)


class Started(Exception):
    """Raised in place of a training."""


def starting_point(stage: Any, argument: int, seed: int, value_of: Callable[[Any], Any]) -> Any:
    """What a training stage hands to its function `train`, which does not run.

    Args:
        stage: The stage's module; its parameters are those of the current directory.
        argument: Which argument of `train`.
        seed: In place of that of the parameters.
        value_of: What is kept of the argument.
    """
    found = []

    def train(*arguments: Any) -> None:
        found.append(value_of(arguments[argument]))
        raise Started

    change_parameters({"seed": seed})
    with mock.patch.object(stage, "train", train), pytest.raises(Started):
        stage.main()
    return found[0]


def few_images() -> Images:
    """26 images of noise, with the classes in turn."""
    pixels = np.random.default_rng(0).integers(0, 256, (26, 32, 32, 3), dtype=np.uint8)
    return Images(pixels, np.arange(26, dtype=np.uint8) % 10)


def replayed_plateau(settings: Any, rows: list[dict[str, str]]) -> Plateau:
    """Apply the rule of stages/training/plateau.py to a history, and check that the training followed it.

    Args:
        settings: A model's section of the parameters.
        rows: Of its history.

    Returns:
        The rule's state after the last epoch.
    """
    plateau, rate = Plateau(settings), settings.learning_rate
    for epoch, row in enumerate(rows, start=1):
        assert not plateau.stops_before(epoch)
        assert float(row["learning_rate"]) == pytest.approx(rate, rel=1e-5)
        plateau.is_best(epoch, float(row["val_loss"]))
        rate = plateau.next_rate(rate, float(row["val_loss"]))
    return plateau
