"""Lay our numbers beside the paper's: metrics/comparison.json for programs, metrics/comparison.md for people.

What the paper prints, what it really is and which of our numbers answers it stand in data/paper/numbers.yaml. A row is
answered only by a run with the very parameters under which the row holds; otherwise it names those that differ.
Nothing that comes from the synthetic stand-in is compared. Works from the tables in metrics alone, and reads no
run time, so that two runs of one commit give the same bytes.
"""

import math
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from stages.addresses import METRICS, class_names, images_behind, look_up, read_curves, rounded
from stages.errors import ExpectedError
from stages.files import read_json, write_json
from stages.markdown import render
from stages.paper import SOME, Configuration, Curve, Number, NumberList, Numbers, Setting, load_numbers
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

Json = dict[str, Any]


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
    runs = {model: read_run(model) for model in numbers.models}
    sources = {model: run["source"] for model, run in runs.items()} | {"dataset": read_json(DATASET)["source"]}
    standings = {name: standing_of(wanted, runs[wanted.model]) for name, wanted in numbers.configurations.items()}
    return {
        "models": [
            {
                "model": model,
                "title": title,
                "source": sources[model],
                "warning": "" if sources[model] == REAL else STAND_IN,
                "seed": runs[model]["parameters"]["seed"],
                "scores": flat(read_json(METRICS / f"{model}.json")),
            }
            for model, title in numbers.models.items()
        ],
        "results": [compare_number(row, standings[row.configuration]) for row in numbers.results],
        "details": [compare_number(row, standings[row.configuration]) for row in numbers.details],
        "lists": [compare_list(row, standings[row.configuration]) for row in numbers.lists],
        "curves": [compare_curve(row, standings[row.configuration]) for row in numbers.curves],
        "settings": [compare_setting(row, sources[row.model]) for row in numbers.settings],
        "fixed": numbers.fixed,
        "not_compared": [row.model_dump() for row in numbers.not_compared],
        "sources": numbers.sources,
    }


def compare_number(row: Number, standing: Json) -> Json:
    """A single number beside ours, and the numbers that the row wants shown with it."""
    number: Json = {"ours": None, "difference": None, "uncertainty": None}
    if standing["status"] == ANSWERED:
        number = measure(row.ours, row.unit)
        if number["ours"] is None:
            standing = unanswered(NOT_ANSWERED, f"there is no {row.ours}")
        else:
            number["difference"] = rounded(number["ours"] - row.value)
    beside = row.beside if standing["status"] == ANSWERED else []
    return {
        **row.model_dump(exclude={"value", "ours", "beside"}),
        **standing,
        "paper": row.value,
        **number,
        "address": row.ours,
        "beside": [{"what": other.what, **measure(other.ours, row.unit), "address": other.ours} for other in beside],
    }


def measure(address: str, unit: str) -> Json:
    """A number of ours in the unit that the paper prints, and what so many test images leave uncertain about it.

    Args:
        address: Where it is.
        unit: `percent` turns a fraction into percent; every other unit is ours too.
    """
    value, images = look_up(address), images_behind(address)
    uncertainty = None
    if value is not None and unit == "percent":
        uncertainty = None if images is None else rounded(100 * half_interval(value, images))
        value = rounded(100 * value)
    return {"ours": value, "difference": None, "uncertainty": uncertainty}


def half_interval(accuracy: float, images: int) -> float:
    """Half the 95 % interval of an accuracy (binomial, in the normal approximation), as a fraction.

    It is 0.0077 for 80.75 % of 10,000 images: what depends on which images happen to be in the set. The luck of a seed
    comes on top.
    """
    return NORMAL_95 * math.sqrt(accuracy * (1 - accuracy) / images)


def compare_list(row: NumberList, standing: Json) -> Json:
    """A number for each class beside ours."""
    classes: list[str] = []
    values: list[float] = []
    if standing["status"] == ANSWERED:
        classes, values = class_names(Path(row.ours.split()[0]).stem), look_up(row.ours)
    return {
        **row.model_dump(exclude={"values", "ours"}),
        **standing,
        "classes": classes,
        "paper": row.values,
        "ours": values,
        "difference": [rounded(our - paper) for our, paper in zip(values, row.values, strict=bool(values))],
        "address": row.ours,
    }


def compare_curve(row: Curve, standing: Json) -> Json:
    """Our history beside the paper's, each column over the epochs that both have."""
    columns = []
    if standing["status"] == ANSWERED:
        paper, ours = read_curves(Path(row.paper)), read_curves(Path(row.ours))
        columns = [{"column": name, **distance(paper[name], ours.get(name, {}))} for name in paper]
    return {**row.model_dump(exclude={"ours"}), **standing, "columns": columns, "address": row.ours}


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


def standing_of(wanted: Configuration, run: Json) -> Json:
    """Whether a run answers the rows of a configuration.

    Returns:
        `status`, the `reasons` for any but ANSWERED, and the number of `runs` behind the answer.
    """
    if run["source"] != REAL:
        return unanswered(NOT_COMPARED, STAND_IN)
    if wanted.open:
        return unanswered(WAITS, wanted.open)
    if reasons := differing(wanted, run):
        return unanswered(NOT_ANSWERED, *reasons)
    return {"status": ANSWERED, "reasons": [], "runs": 1}


def unanswered(status: str, *reasons: str) -> Json:
    return {"status": status, "reasons": list(reasons), "runs": 0}


def differing(wanted: Configuration, run: Json) -> list[str]:
    """The parameters of a run that are not the configuration's, a sentence each."""
    ran = flat({**run["parameters"], "split": run["split"]})
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


def read_run(model: str) -> Json:
    """The record of a model's run.

    Raises:
        ExpectedError: It is missing or damaged, or the model's metrics are of other data.
    """
    path, metrics = METRICS / "runs" / f"{model}.json", METRICS / f"{model}.json"
    run, source = read_json(path), read_json(metrics)["source"]
    if run["source"] != source:
        raise ExpectedError(
            f"{path} is of {run['source']} data and {metrics} of {source}; run dvc repro, which makes both anew"
        )
    return run


def flat(content: Json, prefix: str = "") -> Json:
    """Nested mappings as dotted keys."""
    leaves: Json = {}
    for key, value in content.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves


def shown(value: Any) -> str:
    """A parameter as params.yaml writes it."""
    return "null" if value is None else str(value)


if __name__ == "__main__":
    run_stage("compare", main)
