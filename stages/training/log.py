"""What a training says while it runs and leaves behind: its history, its progress, its record and its run time."""

import csv
import math
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stages.common.errors import BadParameter

COLUMNS = ("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate")


class TrainingLog:
    """The history as a CSV file that grows by a row an epoch, and the progress on the terminal.

    Losses are mean cross-entropies in nats and accuracies fractions; `train_*` is what the framework sums up while it
    trains. The `val_*` fields are empty without validation.
    """

    def __init__(self, path: Path, epochs: int, steps_per_epoch: int, source: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        self.rows: list[dict[str, Any]] = []
        self.epoch_seconds: list[float] = []
        self.resumed_after: list[int] = []  # epochs
        self._write("w", COLUMNS)
        if source != "cifar10":
            print("trained on synthetic data, not CIFAR-10", flush=True)

    def state(self) -> dict[str, Any]:
        """What `resume` needs, as JSON."""
        return {"rows": self.rows, "epoch_seconds": self.epoch_seconds, "resumed_after": self.resumed_after}

    def resume(self, state: dict[str, Any]) -> int:
        """Continue from a `state`: write its rows again, and say so.

        Returns:
            The epochs that are done.
        """
        self.rows, self.epoch_seconds = state["rows"], state["epoch_seconds"]
        self.resumed_after = [*state["resumed_after"], len(self.rows)]
        for row in self.rows:
            self._write("a", list(row.values()))
        print(f"resumes after epoch {len(self.rows)}/{self.epochs} of an interrupted run", flush=True)
        return len(self.rows)

    def start_epoch(self) -> None:
        """Open the epoch's progress bar, which shows only on a terminal."""
        self._started = time.perf_counter()
        title = f"epoch {len(self.rows) + 1}/{self.epochs}"
        self._bar = tqdm(total=self.steps_per_epoch, desc=title, unit="step", leave=False, disable=None)

    def step(self, done: int, loss: float, accuracy: float) -> None:
        """So many steps of the epoch are done; the loss and accuracy are those of the epoch so far."""
        self._bar.set_postfix(loss=f"{loss:.4f}", accuracy=f"{accuracy:.4f}", refresh=False)
        self._bar.update(min(done, self.steps_per_epoch) - self._bar.n)

    def end_epoch(self, train: dict[str, float], validation: dict[str, float] | None, learning_rate: float) -> None:
        """Add the epoch's row and print it, with an estimate of the time left.

        Args:
            train: "loss" and "accuracy" of the epoch.
            validation: Likewise after the epoch, or None where nothing validates.
            learning_rate: The one that the epoch was trained with.

        Raises:
            BadParameter: The training has diverged: a loss is no longer a finite number.
        """
        self._bar.close()
        self.epoch_seconds.append(round(time.perf_counter() - self._started, 3))
        values = [
            train["loss"],
            train["accuracy"],
            *([validation["loss"], validation["accuracy"]] if validation else [None, None]),
            learning_rate,
        ]
        row = dict(zip(COLUMNS, [len(self.rows) + 1, *map(_six_digits, values)], strict=True))
        for name, value in row.items():
            if value is not None and not math.isfinite(value):
                raise BadParameter(
                    f"the training diverged: {name} is {value} in epoch {row['epoch']}; lower the learning rate"
                )
        self.rows.append(row)
        self._write("a", list(row.values()))
        self._print_epoch(row)

    def _write(self, mode: str, values: Any) -> None:
        # Opened for each row, so that other programs see only whole rows.
        with self.path.open(mode, newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow(values)

    def _print_epoch(self, row: dict[str, Any]) -> None:
        left = (self.epochs - row["epoch"]) * sum(self.epoch_seconds) / len(self.epoch_seconds)
        values = "  ".join(f"{name} {row[name]:.4f}" for name in COLUMNS[1:5] if row[name] is not None)
        tqdm.write(
            f"epoch {row['epoch']}/{self.epochs}  {values}  learning_rate {row['learning_rate']:g}  "
            f"{self.epoch_seconds[-1]:.1f} s  at most {left / 60:.0f} min left"
        )

    def results(self, best_epoch: int) -> dict[str, Any]:
        """The part of a run's record that its history determines.

        Args:
            best_epoch: The epoch, counted from 1, whose weights are kept.
        """
        last, kept = self.rows[-1], self.rows[best_epoch - 1]
        return {
            "epochs": len(self.rows),
            "best_epoch": best_epoch,
            "train": {"loss": last["train_loss"], "accuracy": last["train_accuracy"]},
            "validation": {"loss": kept["val_loss"], "accuracy": kept["val_accuracy"]},
        }

    def runtime(self, machine: dict[str, Any]) -> dict[str, Any]:
        """Machine, versions and seconds: they differ from run to run, so they are no part of the results.

        Args:
            machine: From `machine`.
        """
        return machine | {
            "steps_per_epoch": self.steps_per_epoch,
            "seconds": round(sum(self.epoch_seconds), 3),
            "epoch_seconds": self.epoch_seconds,
            "resumed_after": self.resumed_after,
        }


def _six_digits(value: float | None) -> float | None:
    # float32 holds seven; six keep the files short and hide the seventh, which printing would make up.
    return None if value is None else float(f"{value:.6g}")
