"""Our runs, and what our result files hold at an address, as data/paper/numbers.yaml writes it: "file what".

metrics/x.json a.b.0            a key, a key in it, an element of a list; names.length counts
metrics/per_class/x.csv recall     a column, an element for each class; class.length counts them
metrics/confusion/x.csv cat     how many images of that class were taken for each class
metrics/history/x.csv train_loss from 20        a column's mean from that epoch on
"""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from stages.common import paths
from stages.common.errors import ExpectedError
from stages.common.files import Json, flat, read_history, read_json, read_rows
from stages.common.paths import NUMBERS
from stages.experiments.plan import recorded_parameters
from stages.experiments.table import read_runs

DECIMALS = 6  # more than any number here has, and less than the last bits of a sum
OWN = "dvc repro"


class Run(NamedTuple):
    """A run of ours: that of `dvc repro`, whose numbers are in the files of metrics, or a row of metrics/runs.csv."""

    name: str
    model: str
    source: str
    parameters: Json  # by dotted keys
    row: Json

    def look_up(self, address: str) -> Any:
        """The value at an address, or None where the run has none."""
        if self.name == OWN:
            return look_up(address)
        file, _, what = address.partition(" ")
        return self.row.get(what) if Path(file) == paths.scores(self.model) else None

    def kept(self) -> tuple[int, int]:
        """The epoch whose weights were kept, and the number of epochs."""
        file = paths.scores(self.model)
        return self.look_up(f"{file} best_epoch"), self.look_up(f"{file} epochs")

    def trained_with(self) -> Json:
        """The parameters that the training depends on: where the test set validates, the split changes nothing."""
        if self.parameters.get(f"{self.model}.validation") != "test":
            return self.parameters
        return {key: value for key, value in self.parameters.items() if not key.startswith("split.")}

    def is_with(self, parameters: Json) -> bool:
        return all(self.parameters.get(key) == value for key, value in parameters.items())

    def scores(self) -> Json:
        """As in metrics/<model>.json, by dotted keys."""
        return flat(read_json(paths.scores(self.model))) if self.name == OWN else self.row

    def history_file(self) -> Path:
        return paths.history(self.model) if self.name == OWN else paths.collected_history(self.name)

    def validation_accuracy(self) -> dict[int, float]:
        """By epoch; empty where the run has no such curve."""
        file = self.history_file()
        return read_curves(file).get("val_accuracy", {}) if file.exists() else {}

    def training_images(self, images: int) -> int:
        """How many of the training set's images it trains on; stages/split.py rounds the other part up."""
        if self.parameters.get(f"{self.model}.validation") == "test":
            return images
        return images - math.ceil(images * self.parameters.get("split.validation_fraction", 0))


def read_own_run(model: str) -> Run:
    """The run of `dvc repro`.

    Raises:
        ExpectedError: A file of it is missing or damaged, or the model's metrics are of other data than its record, or
            that has no seed.
    """
    path, metrics = paths.run(model), paths.scores(model)
    record, source = read_json(path), read_json(metrics)["source"]
    if record["source"] != source:
        raise ExpectedError(
            f"{path} is of {record['source']} data and {metrics} of {source}; run dvc repro, which makes both anew"
        )
    parameters = recorded_parameters(record)
    if "seed" not in parameters:
        raise ExpectedError(f"{path} has no parameter seed; every run records one, used or not")
    return Run(OWN, model, source, parameters, {})


def read_collected(own: list[Run]) -> list[Run]:
    """The runs of metrics/runs.csv that are of our data, each once, without those that `dvc repro` did itself.

    A run is the parameters that it trained with, the seed among them. `make verify` checks whether its code is the
    present one.

    Raises:
        ExpectedError: The file is missing or damaged.
    """
    runs: list[Run] = []
    for row in read_runs():
        same_model = [other for other in own if other.model == row["model"]]
        recorded = {key for other in same_model for key in other.parameters}
        run = Run(row["name"], row["model"], row["source"], {key: row[key] for key in row if key in recorded}, row)
        if any(other.source != run.source for other in same_model):
            continue
        if not any(run.trained_with() == other.trained_with() for other in [*same_model, *runs]):
            runs.append(run)
    return runs


def look_up(address: str) -> Any:
    """The value at an address.

    Returns:
        A value, a list with an element for each class, or None where the file holds no such thing.

    Raises:
        ExpectedError: The file is missing or damaged, or has no place of that kind.
    """
    file, _, what = address.partition(" ")
    try:
        return _look_up(Path(file), what)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ExpectedError(
            f"{address}: no such place ({error!r}); correct it in {NUMBERS}, or restore {file}"
        ) from None


def _look_up(path: Path, what: str) -> Any:
    if path.suffix == ".json":
        return look_up_json(read_json(path), what)
    if path.parent.name == "per_class":
        return len(class_names(path.stem)) if what == "class.length" else [float(row[what]) for row in read_rows(path)]
    if path.parent.name == "confusion":
        if what not in (classes := class_names(path.stem)):
            raise KeyError(what)
        counts = Counter(row["predicted"] for row in read_rows(path) if row["actual"] == what)
        return [counts[name] for name in classes]
    column, _, first = what.partition(" from ")
    values = [value for epoch, value in read_curves(path).get(column, {}).items() if epoch >= int(first)]
    return rounded(sum(values) / len(values)) if values else None


def look_up_json(content: Any, what: str) -> Any:
    """The value at a dotted key; None where there is none."""
    for key in what.split("."):
        if isinstance(content, list):
            content = len(content) if key == "length" else content[int(key)]
        else:
            content = content.get(key) if isinstance(content, dict) else None
    return content


def class_names(model: str) -> list[str]:
    """The classes that a model distinguishes, in the order of their labels."""
    return [row["class"] for row in read_rows(paths.per_class(model))]


def read_curves(path: Path) -> dict[str, dict[int, float]]:
    """The columns of a history by name, each from epoch to value; an empty field has no value.

    Raises:
        ExpectedError: As `read_history`, or there is no column of epochs.
    """
    columns = read_history(path)
    if "epoch" not in columns:
        raise ExpectedError(f"{path} has no column epoch")
    epochs = columns.pop("epoch").astype(int).tolist()
    return {
        name: {epoch: value for epoch, value in zip(epochs, values.tolist(), strict=True) if value == value}  # no NaN
        for name, values in columns.items()
    }


def first_epoch_with(accuracy: float, by_epoch: Mapping[int, float]) -> int | None:
    """The first epoch that reaches a validation accuracy."""
    return next((epoch for epoch in sorted(by_epoch) if by_epoch[epoch] >= accuracy), None)


def rounded(value: float) -> float:
    return round(value, DECIMALS) + 0.0  # and never -0.0
