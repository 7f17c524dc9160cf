"""Kill a training again and again, and compare its results with those of an uninterrupted one.

`make kills` runs this for both full-size models on real CIFAR-10 (CIFAR10_ARCHIVE), some of its images: minutes, so it
is no part of `make test`; tests/pipeline/test_resume.py runs less of it on synthetic data. A pass is one training,
killed and started again until it ends; passes follow one another until there were as many kills as asked for.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from tests.support.stage_runs import ROOT

MODELS = {"keras_cnn": "models/keras_cnn.keras", "resnet18": "models/resnet18.pt"}
# The learning rate falls, and early stopping keeps another epoch than the last, within a few epochs.
CHANGES = {
    "keras_cnn": {"learning_rate": 0.004, "augmentation": "flip_crop", "early_stopping_patience": 4},
    "resnet18": {"learning_rate": 0.002, "validation": "held_out", "validation_augmentation": "none"}
    | {"early_stopping_patience": 4},
}
SHARED = {"epochs": 8, "reduce_lr_patience": 1, "reduce_lr_factor": 0.5}


class Kill(NamedTuple):
    """When a process was killed: epochs that were saved, and whether it was writing its checkpoint."""

    epochs: int
    writing: bool


class Outcome(NamedTuple):
    """The kills, the passes that ended, and the uninterrupted run's history."""

    kills: list[Kill]
    passes: int
    rows: list[list[str]]

    def describe(self) -> str:
        rates = [float(row[5]) for row in self.rows]
        best = min(range(len(self.rows)), key=lambda number: float(self.rows[number][3])) + 1
        fallen = next((number for number, rate in enumerate(rates, start=1) if rate < rates[0]), len(rates) + 1)
        return (
            f"{len(self.kills)} of {len(self.kills)} kills survived in {self.passes} trainings "
            f"of {len(self.rows)} epochs: "
            f"{sum(kill.epochs == 0 for kill in self.kills)} before the first epoch was saved, "
            f"{sum(kill.epochs + 1 >= fallen for kill in self.kills)} after a fall of the learning rate, "
            f"{sum(kill.epochs >= best for kill in self.kills)} after the best epoch, "
            f"{sum(kill.writing for kill in self.kills)} while the checkpoint was written"
        )


def prepare(folder: Path, data: Path, model: str, images: int, **changes: object) -> None:
    """A working directory with the first images of those in `data`, and parameters under which a training is short."""
    parameters = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    parameters[model] |= SHARED | CHANGES[model] | changes
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(parameters, sort_keys=False), encoding="utf-8")
    (folder / "metrics").mkdir()
    shutil.copy(data / "metrics/dataset.json", folder / "metrics")
    processed = folder / "data/processed"
    processed.mkdir(parents=True)
    for part in ("train", "test"):
        for kind in ("images", "labels"):
            name = f"{part}_{kind}.npy"
            np.save(processed / name, np.load(data / "data/processed" / name, mmap_mode="r")[:images])
    rows = np.random.default_rng(0).permutation(len(np.load(processed / "train_labels.npy")))
    part = len(rows) // 5
    np.savez(
        processed / "split.npz", train=rows[part:], validation=rows[:part], validation_fraction=0.2, random_state=7
    )


def start(folder: Path, *command: str) -> "subprocess.Popen[str]":
    """A stage, as dvc.yaml names it, in that folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> None:
    _, errors = process.communicate()
    assert process.returncode == 0, errors


def results(folder: Path, model: str, predict: bool) -> dict[str, bytes]:
    """The bytes of the model, its history, its record and, if asked for, its predictions."""
    names = [MODELS[model], f"metrics/history/{model}.csv", f"metrics/runs/{model}.json"]
    if predict:
        finish(start(folder, "stages.evaluate", model))
        names.append(f"metrics/predictions/{model}.npz")
    return {name: (folder / name).read_bytes() for name in names}


def saved_epochs(folder: Path, model: str) -> int:
    """How many rows the history has: an epoch's row is written just before its checkpoint."""
    history = folder / f"metrics/history/{model}.csv"
    return max(len(history.read_text(encoding="utf-8").splitlines()) - 1, 0) if history.exists() else 0


def kill_again_and_again(
    work: Path, data: Path, model: str, images: int, kills: int, seed: int, predict: bool = True, **changes: object
) -> Outcome:
    """See the module.

    Args:
        work: An empty folder.
        data: Where download, preprocess and split ran.
        model: "keras_cnn" or "resnet18".
        images: How many to take.
        kills: How many at least.
        seed: Of the moments.
        predict: Whether to compare the predictions too, which takes one more process for each pass.
        changes: More parameters of the model's section.

    Raises:
        AssertionError: A result differs, a training failed, or one did not resume from its checkpoint.
    """
    rng = random.Random(seed)
    reference = work / "reference"
    prepare(reference, data, model, images, **changes)
    began = time.monotonic()
    finish(start(reference, f"stages.train_{model}"))
    whole = time.monotonic() - began
    expected = results(reference, model, predict)
    rows = [line.split(",") for line in expected[f"metrics/history/{model}.csv"].decode().splitlines()[1:]]
    training = sum(json.loads((reference / f"metrics/runtime/{model}.json").read_text())["epoch_seconds"])
    starting, epoch = max(whole - training, 1.0), training / len(rows)

    done: list[Kill] = []
    passes = 0
    while len(done) < kills:
        folder = work / f"pass{passes}"
        prepare(folder, data, model, images, **changes)
        while True:
            # By progress and not by the clock alone: on a busy machine all kills would else fall on the start.
            target = saved_epochs(folder, model) + rng.choice([0, 1, 1, 2])
            wait_for_checkpoint, delay = rng.random() < 0.3, rng.uniform(0, 1.2) * epoch
            resumes = any((folder / ".resume").glob("*.checkpoint"))
            process = start(folder, f"stages.train_{model}")
            began, reached, writing = time.monotonic(), None, False
            starts = starting * rng.uniform(0.3, 1.5)
            while process.poll() is None:
                now = time.monotonic()
                if reached is None and now - began > starts and saved_epochs(folder, model) >= target:
                    reached = now
                if reached is not None and wait_for_checkpoint:
                    writing = any((folder / ".resume").glob("*.new"))
                if writing or (reached is not None and not wait_for_checkpoint and now - reached > delay):
                    break
                time.sleep(0.01 if reached is None else 0.0005)  # a checkpoint is written within milliseconds
            if process.poll() is not None or len(done) >= kills:
                finish(process)
                break
            process.kill()
            process.communicate()
            done.append(Kill(saved_epochs(folder, model), writing))
        found = results(folder, model, predict)
        assert not (different := [name for name in expected if found[name] != expected[name]]), different
        runtime = json.loads((folder / f"metrics/runtime/{model}.json").read_text())
        assert bool(runtime["resumed_after"]) == resumes, (runtime["resumed_after"], done)
        left = [path.name for path in (folder / ".resume").iterdir()]
        assert not left, left
        passes += 1
    return Outcome(done, passes, rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.support.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=24, help="of each model")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    archive = os.environ.get("CIFAR10_ARCHIVE")
    if not archive:
        sys.exit("kills: set CIFAR10_ARCHIVE=/path/to/cifar-10-python.tar.gz")
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        data = Path(name) / "data"
        data.mkdir()
        shutil.copy(ROOT / "params.yaml", data)
        os.environ["CIFAR10_ARCHIVE"] = str((ROOT / archive).resolve())
        for stage in ("download", "preprocess", "split"):
            finish(start(data, f"stages.{stage}"))
        for model in MODELS:
            outcome = kill_again_and_again(Path(name) / model, data, model, options.images, options.kills, options.seed)
            print(f"{model}: {outcome.describe()}", flush=True)


if __name__ == "__main__":
    main()
