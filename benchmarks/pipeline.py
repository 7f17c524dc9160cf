"""What the pipeline itself costs, measured through `dvc` in a clone of the last commit."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from benchmarks.throughput import ROOT, end_group, last_line
from stages.common.errors import ExpectedError

Json = dict[str, Any]
FRAMEWORKS = ("tensorflow", "torch", "keras", "jax")
SHORT = {"keras_cnn": {"epochs": 1}, "resnet18": {"epochs": 1}, "evaluate": {"augmented_draws": 1}}

DVC = (sys.executable, "-m", "dvc")  # its script names a Python by an absolute path, and a checkout may move
LAST_DATA_STAGE = "split"
NO_TRAINING_SECONDS = 300.0
STOP_SECONDS = 30.0


class Clone:
    """A clone of the last commit with its own DVC cache; everything is in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "clone"
        # The user's settings of git and DVC (a cache elsewhere, signed commits) must not matter.
        hidden = ("DVC_", "GIT_", "PYTHONPATH")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        self.environment |= {f"DVC_{kind}_DIR": str(folder / kind) for kind in ("GLOBAL_CONFIG", "SYSTEM_CONFIG")}
        self.environment |= {"DVC_SITE_CACHE_DIR": str(folder / "site"), "GIT_CONFIG_GLOBAL": os.devnull}
        for who in ("AUTHOR", "COMMITTER"):
            self.environment |= {f"GIT_{who}_NAME": "bench", f"GIT_{who}_EMAIL": "bench@example.org"}
        self.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        if archive := os.environ.get("CIFAR10_ARCHIVE"):
            self.environment["CIFAR10_ARCHIVE"] = str((ROOT / archive).resolve())
        self.run("git", "clone", "--quiet", str(ROOT), str(self.folder), directory=ROOT)

    @property
    def data(self) -> Path:
        """Where `preprocess` leaves the arrays."""
        return self.folder / "data/processed"

    def stages(self) -> tuple[list[str], list[str]]:
        """The stages of dvc.yaml, each after those that it depends on: those that make the data, and the others."""
        names = self.run(*DVC, "stage", "list", "--name-only")[2].split()
        data = names.index(LAST_DATA_STAGE) + 1
        return names[:data], names[data:]

    def run(self, *command: str, directory: Path | None = None) -> tuple[float, float, str]:
        """Run a command to its end.

        Returns:
            Its seconds; the peak memory of its largest process, in MB of 1e6 bytes; and what it printed.

        Raises:
            ExpectedError: It failed.
        """
        with tempfile.TemporaryFile() as output:
            began = time.perf_counter()
            process = subprocess.Popen(  # noqa: S603
                command,
                cwd=directory or self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                # Of this child and of those that it waited for, which RUSAGE_CHILDREN mixes with all others.
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            except BaseException:
                end_group(process)
                raise
            seconds = time.perf_counter() - began
            output.seek(0)
            printed = output.read().decode(errors="replace")
        if process.returncode:
            raise ExpectedError(f"{' '.join(command)} failed in a clone of the last commit: {last_line(printed)}")
        return seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6, printed


def prepare(folder: Path) -> tuple[Clone, Json]:
    """Clone and make the data; return the clone and the costs."""
    clone = Clone(folder)
    stages = {stage: once(clone, stage) for stage in clone.stages()[0]}
    seconds = sum(values["seconds"] for values in stages.values())
    source = "a local copy" if clone.environment.get("CIFAR10_ARCHIVE") else "downloaded"
    return clone, {"data_seconds": round(seconds, 1), "archive": source, "stages": stages}


def once(clone: Clone, stage: str) -> Json:
    """Seconds and peak memory of a stage, dvc's own included."""
    seconds, megabytes, _ = clone.run(*DVC, "repro", "--single-item", stage)
    return {"seconds": round(seconds, 1), "peak_memory_mb": round(megabytes)}


def measure(clone: Clone) -> Json:
    """Each stage once with one epoch, a `dvc repro` with nothing to do, the start of a training, and the imports."""
    path = clone.folder / "params.yaml"
    parameters = yaml.safe_load(path.read_text(encoding="utf-8"))
    for section, changes in SHORT.items():
        parameters[section] |= changes
    path.write_text(yaml.safe_dump(parameters, sort_keys=False), encoding="utf-8")

    data_stages, others = clone.stages()
    stages = {stage: once(clone, stage) for stage in others}
    clone.run("git", "add", "--all")
    clone.run("git", "commit", "--quiet", "--no-verify", "--message", "one epoch")
    return {
        "stages_of_one_epoch": stages,
        "repro_with_nothing_to_do_seconds": round(median(nothing_to_do(clone) for _ in range(3)), 2),
        "experiment_until_training_seconds": round(until_training(clone, *DVC, "exp", "run", "-S", "dropout=0.4"), 1),
        "imports": {stage: imports(clone, stage) for stage in data_stages},
    }


def nothing_to_do(clone: Clone) -> float:
    """Seconds of a `dvc repro` that finds everything up to date."""
    seconds, _, printed = clone.run(*DVC, "repro")
    if ran := re.findall(r"Running stage '(.*?)'", printed):
        raise ExpectedError(
            f"a second dvc repro ran {', '.join(ran)}, so its time is not that of one with nothing to do"
        )
    return seconds


def imports(clone: Clone, stage: str) -> Json:
    """What a stage imports: the median seconds of three processes, and the frameworks among the imports."""
    code = f"import sys, stages.{stage}; print(*sorted({set(FRAMEWORKS)} & set(sys.modules)))"
    runs = [clone.run(sys.executable, "-c", code) for _ in range(3)]
    return {"seconds": round(median(run[0] for run in runs), 2), "frameworks": runs[0][2].split()}


def until_training(clone: Clone, *command: str) -> float:
    """Seconds from a command's start until the Keras CNN's training has begun its history; then it is stopped.

    A training begins with a history that has only its header. The one that is there from before has more: `dvc exp run`
    restores it from git before it starts.

    Raises:
        ExpectedError: It ended before, or took too long.
    """
    history = clone.folder / "metrics/history/keras_cnn.csv"
    with tempfile.TemporaryFile() as output:
        began = time.monotonic()
        process = subprocess.Popen(  # noqa: S603
            command,
            cwd=clone.folder,
            env=clone.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while not has_only_its_header(history):
                if process.poll() is not None or time.monotonic() - began > NO_TRAINING_SECONDS:
                    output.seek(0)
                    said = last_line(output.read().decode(errors="replace"))
                    raise ExpectedError(f"{' '.join(command)} did not train: {said}")
                time.sleep(0.02)
            seconds = time.monotonic() - began
            os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            return seconds
        finally:
            end_group(process)


def has_only_its_header(history: Path) -> bool:
    """Whether a training has just begun this history."""
    with contextlib.suppress(FileNotFoundError):  # DVC removes it before the stage starts
        return history.read_text(encoding="utf-8").count("\n") == 1
    return False


def time_to(accuracy: float, history: list[dict[str, str]], epoch_seconds: list[float]) -> float | None:
    """Seconds of training until the validation accuracy first reaches a value; None where it never does.

    Args:
        accuracy: The value, a fraction.
        history: The rows of metrics/history/<model>.csv.
        epoch_seconds: The seconds of each epoch, its validation included.

    Raises:
        ExpectedError: The history and the run time are not of the same run.
    """
    if len(history) != len(epoch_seconds):
        raise ExpectedError(f"a history of {len(history)} epochs is next to the run time of {len(epoch_seconds)}")
    for epoch, row in enumerate(history, start=1):
        if float(row["val_accuracy"] or 0) >= accuracy:
            return round(sum(epoch_seconds[:epoch]), 1)
    return None
