"""One row of the paper compared with ours."""

import json
from fnmatch import fnmatch
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from stages.common.errors import ExpectedError
from stages.common.files import Json
from stages.common.paths import NUMBERS
from stages.paper.numbers import SOME, Configuration, Curve, Number, NumberList, Paper, Setting
from stages.paper.ours import Run, class_names, look_up, read_curves, rounded
from stages.paper.statistics import prediction_interval

# What can be said of a row.
ANSWERED = "answered"
NOT_ANSWERED = "not answered"  # the run has other parameters than the row
WAITS = "waits"  # no run of the row's configuration was collected yet
NOT_COMPARED = "not compared"  # the run is of other data


class Standing(NamedTuple):
    """What can be said of a configuration's rows: the runs that answer them, or the reasons why none does.

    `interpretation` is the name of what the answering ones have where the paper is silent.
    """

    status: str
    runs: list[Run]
    reasons: list[str] = []  # noqa: RUF012
    interpretation: str = ""

    def described(self) -> Json:
        return {"status": self.status, "reasons": self.reasons, "runs": len(self.runs)}


def compare_number(row: Number, standing: Standing) -> Json:
    """A single number compared with ours, and the numbers that the row wants shown with it."""
    number = measure(row.ours, row.unit, [])
    if standing.status == ANSWERED:
        number = measure(row.ours, row.unit, standing.runs)
        if number["ours"] is None:
            standing = unanswered(NOT_ANSWERED, f"there is no {row.ours}")
        else:
            number["difference"] = rounded(number["ours"] - row.value)
            if number["interval"]:
                low, high = number["interval"]
                half = half_a_digit(row.value, row.unit, row.decimals)
                number["inside"] = low - half <= row.value <= high + half
    return {
        **row.model_dump(exclude={"value", "ours", "also"}, exclude_none=True),
        **standing.described(),
        "interpretation": standing.interpretation,
        "paper": row.value,
        **number,
        "address": row.ours,
        "also": [
            {"what": also.what, **measure(also.ours, row.unit, standing.runs), "address": also.ours}
            for also in row.also
            if standing.status == ANSWERED
        ],
    }


def half_a_digit(value: float, unit: str, decimals: int | None = None) -> float:
    """How far a printed number may be from the one that it was rounded from; `printed` writes the same digits."""
    if decimals is None:
        decimals = {"nats": 3, "rate": 2, "percent": len(f"{value:g}".partition(".")[2])}.get(unit, 0)
    return 0.5 * 10.0**-decimals


def measure(address: str, unit: str, runs: list[Run]) -> Json:
    """A number of ours in the unit that the paper prints, from one or more runs.

    Args:
        address: Where it is, of the run of `dvc repro`; the other runs have it at the same place of their own files.
        unit: `percent` turns a fraction into percent; every other unit is ours too.
        runs: The runs that answer it; those that do not have it do not count.

    Returns:
        `ours` is the mean of the `values`, one for each of the `seeds`, and `runs` is how many there are. From two runs
        on, `spread` is their standard deviation; from three, `interval` is the 95 % prediction interval for one more.
        `difference` and `inside` are for the caller, who knows the paper's number.
    """
    found = [(run, value) for run in runs if (value := run.look_up(address)) is not None]
    values = [100 * value if unit == "percent" else value for _, value in found]
    ours = mean(values) if values else None
    interval = prediction_interval(values)
    return {
        "ours": rounded(ours) if isinstance(ours, float) else ours,
        "difference": None,
        "spread": rounded(stdev(values)) if len(values) > 1 else None,
        "interval": [rounded(end) for end in interval] if interval else None,
        "inside": None,
        "runs": len(values),
        "values": [rounded(value) for value in values],
        "seeds": [run.parameters["seed"] for run, _ in found],
    }


def compare_list(row: NumberList, standing: Standing) -> Json:
    """A number for each class compared with ours.

    Raises:
        ExpectedError: The paper's list and ours are not of the same length.
    """
    classes: list[str] = []
    values: list[float] = []
    if standing.status == ANSWERED:
        classes, values = class_names(Path(row.ours.split()[0]).stem), look_up(row.ours)
        if len(values) != len(row.values):
            raise ExpectedError(f"{NUMBERS}: {row.id} has {len(row.values)} values, and {row.ours} has {len(values)}")
    return {
        **row.model_dump(exclude={"values", "ours"}, exclude_none=True),
        **standing.described(),
        "runs": int(standing.status == ANSWERED),  # only the files of `dvc repro` have the list
        "classes": classes,
        "paper": row.values,
        "ours": values,
        "difference": [rounded(our - paper) for our, paper in zip(values, row.values, strict=bool(values))],
        "address": row.ours,
    }


def compare_curve(row: Curve, standing: Standing) -> Json:
    """Our history compared with the paper's, each column over the epochs that both have."""
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


def compare_setting(row: Setting, compared: bool) -> Json:
    """What the text says, what the notebook ran, and what ran here; the last only where that is compared."""
    ran, status = None, NOT_COMPARED
    if compared:
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


def standing_of(wanted: Configuration, own: Run, runs: list[Run], paper: Paper) -> Standing:
    """Which runs answer the rows of a configuration.

    The one of `dvc repro` is among them, or there are none, unless the configuration is `collected`. Only that run's
    files have lists and curves.
    """
    if warning := paper.warning(own.source):
        return unanswered(NOT_COMPARED, warning)
    if not wanted.collected and (reasons := differing(wanted, own.parameters)):
        return unanswered(NOT_ANSWERED, *reasons)
    found = [run for run in runs if run.model == own.model and not differing(wanted, run.parameters)]
    return Standing(ANSWERED, found) if found else unanswered(WAITS, "no run with these parameters was collected yet")


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


def shown(value: Any) -> str:
    """A parameter as params.yaml writes it."""
    return value if isinstance(value, str) else json.dumps(value)
