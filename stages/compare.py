"""Lay our numbers beside the paper's: metrics/comparison.json for programs, metrics/comparison.md for people.

What the paper prints, what it really is and which of our numbers answers it stand in data/paper/numbers.yaml. A row is
answered only by runs with the very parameters under which the row holds; otherwise it names those that differ. The runs
are that of `dvc repro` and those of metrics/runs.csv; where several seeds answer a row, their mean does. Nothing that
comes from the synthetic stand-in is compared. Works from the tables in metrics alone, and reads no run time, so that
two runs of one commit give the same bytes.
"""

import math
from fnmatch import fnmatch
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from stages.addresses import METRICS, class_names, images_behind, look_up, read_curves, rounded
from stages.errors import ExpectedError
from stages.experiments import all_runs, flat, load_experiments, read_runs, recorded_parameters
from stages.files import read_json, write_json
from stages.markdown import render
from stages.paper import SOME, Configuration, Curve, Grid, Number, NumberList, Numbers, Setting, load_numbers
from stages.running import run_stage

DATASET = METRICS / "dataset.json"
COMPARISON_JSON = METRICS / "comparison.json"
COMPARISON_MD = METRICS / "comparison.md"

REAL = "cifar10"
STAND_IN = "synthetic stand-in, not CIFAR-10"
NORMAL_95 = 1.959964  # 95 % of a normal distribution lies within so many standard deviations

# What can be said of a row.
ANSWERED = "answered"
NOT_ANSWERED = "not answered"  # the run has other parameters than the row
WAITS = "waits"  # the row's own configuration is not known in full
NOT_COMPARED = "not compared"  # the run is of the stand-in

OWN = "dvc repro"
NOT_SAID = object()
PARAMETER_KEYS = {"seed", "dropout", "batch_size", "split", "keras_cnn", "resnet18"}  # of which a run keeps a record

Json = dict[str, Any]


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
        return self.row.get(what) if Path(file) == METRICS / f"{self.model}.json" else None

    def kept(self) -> str:
        """The epoch whose weights were kept, and of how many."""
        file = METRICS / f"{self.model}.json"
        return f"{self.look_up(f'{file} best_epoch')} of {self.look_up(f'{file} epochs')}"

    def is_with(self, parameters: Json) -> bool:
        return all(self.parameters.get(key) == value for key, value in parameters.items())


class Standing(NamedTuple):
    """What can be said of a configuration's rows: the runs that answer them, or the reasons why none does.

    `beside` has runs that are shown next to them; `reading` is what the answering ones have where the paper is silent.
    """

    status: str
    runs: list[Run]
    reasons: list[str] = []  # noqa: RUF012
    beside: dict[str, list[Run]] = {}  # noqa: RUF012
    reading: str = ""

    def described(self) -> Json:
        return {"status": self.status, "reasons": self.reasons, "runs": len(self.runs)}


def main() -> None:
    comparison = compare(load_numbers())
    write_json(COMPARISON_JSON, comparison)
    COMPARISON_MD.write_text(render(comparison), encoding="utf-8")


def compare(numbers: Numbers) -> Json:
    """Every row of the paper's numbers with ours, from the files in metrics.

    Returns:
        The content of metrics/comparison.json. Of a row, `paper`, `ours`, `difference` (ours less the paper's) and
        `uncertainty` are in the row's `unit`; `status` is one of the constants above, `reasons` says why a row is not
        answered, and `runs` is how many runs of ours are behind the answer.

    Raises:
        ExpectedError: A file is missing or damaged, or two files of one model are of different data.
    """
    own = {model: read_own_run(model) for model in numbers.models}
    sources = {model: run.source for model, run in own.items()} | {"dataset": read_json(DATASET)["source"]}
    runs = [*own.values(), *read_collected(list(own.values()))]
    collected = {row["name"] for row in read_runs()}
    grids = {name: Readings(grid, numbers, runs) for name, grid in numbers.grids.items()}
    standings = {
        name: grids[wanted.grid].standing(wanted, own[wanted.model])
        if wanted.grid
        else standing_of(wanted, own[wanted.model], runs)
        for name, wanted in numbers.configurations.items()
    }
    return {
        "models": [
            {
                "model": model,
                "title": title,
                "source": sources[model],
                "warning": "" if sources[model] == REAL else STAND_IN,
                "seed": own[model].parameters["seed"],
                "scores": flat(read_json(METRICS / f"{model}.json")),
            }
            for model, title in numbers.models.items()
        ],
        "grids": [{"id": name, **readings.described()} for name, readings in grids.items()],
        "not_run": [name for name in all_runs(load_experiments()) if name not in collected],
        "results": [compare_number(row, standings[row.configuration]) for row in numbers.results],
        "details": [compare_number(row, standings[row.configuration]) for row in numbers.details],
        "lists": [compare_list(row, standings[row.configuration]) for row in numbers.lists],
        "curves": [compare_curve(row, standings[row.configuration]) for row in numbers.curves],
        "settings": [compare_setting(row, sources[row.model]) for row in numbers.settings],
        "fixed": numbers.fixed,
        "not_compared": [row.model_dump() for row in numbers.not_compared],
        "sources": numbers.sources,
    }


def compare_number(row: Number, standing: Standing) -> Json:
    """A single number beside ours, and the numbers that the row wants shown with it."""
    number: Json = {"ours": None, "difference": None, "uncertainty": None, "spread": None, "runs": 0}
    if standing.status == ANSWERED:
        number = measure(row.ours, row.unit, standing.runs)
        if number["ours"] is None:
            standing = unanswered(NOT_ANSWERED, f"there is no {row.ours}")
        else:
            number["difference"] = rounded(number["ours"] - row.value)
    beside = row.beside if standing.status == ANSWERED else []
    others = [(other.what, other.ours, standing.runs) for other in beside]
    others += [(what, row.ours, runs) for what, runs in standing.beside.items()]
    return {
        **row.model_dump(exclude={"value", "ours", "beside"}),
        **standing.described(),
        "ours_is": "; ".join(filter(None, [row.ours_is, standing.reading])),
        "paper": row.value,
        **number,
        "address": row.ours,
        "beside": [
            {"what": what, **measure(address, row.unit, runs), "address": address} for what, address, runs in others
        ],
    }


def measure(address: str, unit: str, runs: list[Run]) -> Json:
    """A number of ours in the unit that the paper prints, and what so many test images leave uncertain about it.

    Args:
        address: Where it is, of the run of `dvc repro`; the other runs have it at the same place of their own files.
        unit: `percent` turns a fraction into percent; every other unit is ours too.
        runs: Whose mean it is, of those that have it (`runs` says how many); the `spread` is their standard deviation,
            where there are two or more.
    """
    values = [value for run in runs if (value := run.look_up(address)) is not None]
    value = mean(values) if values else None
    spread = stdev(values) if len(values) > 1 else None
    images, uncertainty = images_behind(address), None
    if value is not None and unit == "percent":
        uncertainty = None if images is None else rounded(100 * half_interval(value, images))
        value, spread = 100 * value, None if spread is None else 100 * spread
    if isinstance(value, float):
        value = rounded(value)
    return {
        "ours": value,
        "difference": None,
        "uncertainty": uncertainty,
        "spread": None if spread is None else rounded(spread),
        "runs": len(values),
    }


def half_interval(accuracy: float, images: int) -> float:
    """Half the 95 % interval of an accuracy (binomial, in the normal approximation), as a fraction.

    It is 0.0077 for 80.75 % of 10,000 images: what depends on which images happen to be in the set. The luck of a seed
    comes on top.
    """
    return NORMAL_95 * math.sqrt(accuracy * (1 - accuracy) / images)


def compare_list(row: NumberList, standing: Standing) -> Json:
    """A number for each class beside ours."""
    classes: list[str] = []
    values: list[float] = []
    if standing.status == ANSWERED:
        classes, values = class_names(Path(row.ours.split()[0]).stem), look_up(row.ours)
    return {
        **row.model_dump(exclude={"values", "ours"}),
        **standing.described(),
        "runs": int(standing.status == ANSWERED),  # the list is in the files of `dvc repro` alone
        "classes": classes,
        "paper": row.values,
        "ours": values,
        "difference": [rounded(our - paper) for our, paper in zip(values, row.values, strict=bool(values))],
        "address": row.ours,
    }


def compare_curve(row: Curve, standing: Standing) -> Json:
    """Our history beside the paper's, each column over the epochs that both have."""
    columns = []
    if standing.status == ANSWERED:
        paper, ours = read_curves(Path(row.paper)), read_curves(Path(row.ours))
        columns = [{"column": name, **distance(paper[name], ours.get(name, {}))} for name in paper]
    return {
        **row.model_dump(exclude={"ours"}),
        **standing.described(),
        "runs": int(bool(columns)),
        "columns": columns,
        "address": row.ours,
    }


def distance(paper: dict[int, float], ours: dict[int, float]) -> Json:
    """How far apart two curves, from epoch to value, are in the epochs that both have.

    Returns:
        `epochs` (how many both have) and `paper_epochs`; the `mean` and the `largest` absolute difference, and the
        epoch `at` which the largest is, or None for them where no epoch is common.
    """
    gaps = {epoch: rounded(abs(ours[epoch] - paper[epoch])) for epoch in paper if epoch in ours}
    at = max(gaps, key=gaps.__getitem__, default=None)
    return {
        "epochs": len(gaps),
        "paper_epochs": len(paper),
        "mean": rounded(sum(gaps.values()) / len(gaps)) if gaps else None,
        "largest": None if at is None else gaps[at],
        "at": at,
    }


def compare_setting(row: Setting, source: str) -> Json:
    """What the text says, what the notebook ran, and what ran here."""
    ran, status = None, NOT_COMPARED
    if source == REAL:
        ran = look_up(row.ran)
        status = {
            (True, True): "same",
            (False, True): "as the notebook, not as the text",
            (True, False): "as the text, not as the notebook",
            (False, False): "differs",
        }[agrees(row.text, ran), ran == row.ran_in_notebook]
    return {
        **row.model_dump(exclude={"ran", "notebook"}),
        "notebook": row.ran_in_notebook,
        "ran": ran,
        "status": status,
        "address": row.ran,
    }


def agrees(text: Any, value: Any) -> bool:
    """Whether a value is what the text says; `some` is anything but nothing (null, 0, an empty list, `none`)."""
    return bool(value) and value != "none" if text == SOME else value == text


def standing_of(wanted: Configuration, own: Run, runs: list[Run]) -> Standing:
    """Which runs answer the rows of a configuration; the one of `dvc repro` is among them, or there are none.

    The rows' lists and curves are in that run's files alone.
    """
    if own.source != REAL:
        return unanswered(NOT_COMPARED, STAND_IN)
    if reasons := differing(wanted, own.parameters):
        return unanswered(NOT_ANSWERED, *reasons)
    return Standing(ANSWERED, [run for run in runs if run.model == own.model and not differing(wanted, run.parameters)])


def unanswered(status: str, *reasons: str) -> Standing:
    return Standing(status, [], list(reasons))


def differing(wanted: Configuration, ran: Json) -> list[str]:
    """The parameters of a run that are not the configuration's, a sentence each."""
    other = [
        f"{key} is {shown(ran[key]) if key in ran else 'not recorded'}, the row holds for {shown(value)}"
        for key, value in wanted.parameters.items()
        if key not in ran or ran[key] != value
    ]
    unnamed = [
        f"{key} is {shown(value)}, of which the row says nothing"
        for key, value in ran.items()
        if key not in wanted.parameters and not any(fnmatch(key, pattern) for pattern in wanted.free)
    ]
    return other + unnamed


class Readings:
    """The runs of a grid's cells, by what they have otherwise than the grid's base."""

    def __init__(self, grid: Grid, numbers: Numbers, runs: list[Run]) -> None:
        base = numbers.configurations[grid.base]
        self.grid, self.base = grid, base
        self.cells = {
            name: cell
            for name, cell in numbers.configurations.items()
            if cell.grid and numbers.grids[cell.grid] is grid
        }
        self.rows = [row for row in numbers.results if row.configuration in self.cells]
        self.runs: dict[str, dict[str, list[Run]]] = {}
        self.full: set[str] = set()
        for run in runs:
            cell = next((name for name, cell in self.cells.items() if run.is_with(cell.parameters)), None)
            if cell and run.model == base.model and run.source == REAL:
                apart = [*grid.axes, *base.free]
                changed = {
                    key: value
                    for key, value in run.parameters.items()
                    if base.parameters.get(key, NOT_SAID) != value and not any(fnmatch(key, free) for free in apart)
                }
                label = " ".join(f"{key}={shown(value)}" for key, value in changed.items()) or grid.base_is
                self.runs.setdefault(label, {}).setdefault(cell, []).append(run)
                if not set(grid.in_full) & set(changed):
                    self.full.add(label)
        self.labels = sorted(self.runs, key=self._rank)

    def _rank(self, label: str) -> tuple[bool, int, float, str]:
        """Those in full first, then those with the most cells, then the nearest."""
        return label not in self.full, -len(self.runs[label]), self.distance(label, "percent") or 0.0, label

    @property
    def nearest(self) -> str | None:
        """The reading that answers the grid's rows: of those in full with the most cells the nearest in accuracy."""
        return self.labels[0] if self.labels and self.labels[0] in self.full else None

    def measured(self, label: str, row: Number) -> Json | None:
        """A row's number under a reading, with its difference; None where the cell was not run."""
        if not (runs := self.runs[label].get(row.configuration)):
            return None
        number = measure(row.ours, row.unit, runs)
        values = [measure(row.ours, row.unit, [run])["ours"] for run in runs]
        return number | {"difference": rounded(number["ours"] - row.value), "values": values}

    def distance(self, label: str, unit: str) -> float | None:
        """The mean absolute difference over the rows of a unit whose cells were run."""
        gaps = [
            abs(number["difference"]) for row in self.rows if row.unit == unit if (number := self.measured(label, row))
        ]
        return rounded(mean(gaps)) if gaps else None

    def standing(self, wanted: Configuration, own: Run) -> Standing:
        """Which runs answer the rows of a cell."""
        if own.source != REAL:
            return unanswered(NOT_COMPARED, STAND_IN)
        (name,) = (name for name, cell in self.cells.items() if cell is wanted)
        if self.nearest is None:
            return unanswered(WAITS, "no run of this table yet")
        beside, base_is = {}, self.grid.base_is
        if self.nearest != base_is and (runs := self.runs.get(base_is, {}).get(name)):
            beside = {f"ours, with everything else {base_is}": runs}
        if not (runs := self.runs[self.nearest].get(name)):
            return Standing(
                WAITS, [], [f"the reading that comes nearest ({self.nearest}) has no run of this cell yet"], beside
            )
        return Standing(ANSWERED, runs, [], beside, self.nearest)

    def described(self) -> Json:
        """The grid in the comparison: every reading's numbers, nearest first, and the highest accuracy of them all."""
        readings = [
            {
                "reading": label,
                "in_full": label in self.full,
                "cells": len(self.runs[label]),
                "distance": {unit: self.distance(label, unit) for unit in ("percent", "nats")},
                "numbers": {row.id: self.measured(label, row) for row in self.rows},
                "kept": {cell: [run.kept() for run in runs] for cell, runs in self.runs[label].items()},
            }
            for label in self.labels
        ]
        best = [
            {"reading": label, "row": row.id, "ours": max(number["values"])}
            for label in self.labels
            for row in self.rows
            if row.unit == "percent" and (number := self.measured(label, row))
        ]
        return {
            "where": self.grid.where,
            "base": self.grid.base,
            "base_is": self.grid.base_is,
            "axes": self.grid.axes,
            "rows": [
                {"id": row.id, "what": row.what, "unit": row.unit, "paper": row.value}
                | {"cell": row.configuration}
                | {"at": [self.cells[row.configuration].parameters[axis] for axis in self.grid.axes]}
                for row in self.rows
            ],
            "readings": readings,
            "nearest": self.nearest,
            "highest": max(best, key=lambda found: found["ours"], default=None),
            "highest_of_paper": max(row.value for row in self.rows if row.unit == "percent"),
        }


def read_own_run(model: str) -> Run:
    """The run of `dvc repro`.

    Raises:
        ExpectedError: A file of it is missing or damaged, or the model's metrics are of other data than its record.
    """
    path, metrics = METRICS / "runs" / f"{model}.json", METRICS / f"{model}.json"
    record, source = read_json(path), read_json(metrics)["source"]
    if record["source"] != source:
        raise ExpectedError(
            f"{path} is of {record['source']} data and {metrics} of {source}; run dvc repro, which makes both anew"
        )
    return Run(OWN, model, source, recorded_parameters(record), {})


def read_collected(own: list[Run]) -> list[Run]:
    """The runs of metrics/runs.csv that are of our data, each once, and not those that `dvc repro` did itself.

    A run is its parameters, the seed among them. Whether its code is the present one is for `make verify` to say.

    Raises:
        ExpectedError: The file is missing or damaged.
    """
    runs: list[Run] = []
    for row in read_runs():
        parameters = {key: value for key, value in row.items() if key.partition(".")[0] in PARAMETER_KEYS}
        run = Run(row["name"], row["model"], row["source"], parameters, row)
        same_model = [other for other in own if other.model == run.model]
        if any(other.source != run.source for other in same_model):
            continue
        if not any(run.parameters == other.parameters for other in [*same_model, *runs]):
            runs.append(run)
    return runs


def shown(value: Any) -> str:
    """A parameter as params.yaml writes it."""
    return "null" if value is None else str(value)


if __name__ == "__main__":
    run_stage("compare", main)
