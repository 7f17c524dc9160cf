"""Check, in seconds and from a plain clone, that every committed number follows from what is committed beside it.

`make verify` runs this: no data, no model, no training. It scores the committed probabilities again, follows each table
to what it was made from, makes the comparison with the paper anew, and compares the bytes of every result with what
dvc.lock recorded. A line a check; status 1 where one failed.
"""

import json
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from stages.addresses import METRICS, read_curves
from stages.compare import COMPARISON_JSON, COMPARISON_MD, DATASET, compare
from stages.errors import ExpectedError, run_program
from stages.evaluate import summary
from stages.experiments import (
    EXPERIMENTS,
    HISTORIES,
    LOCK,
    RUNS,
    Json,
    Origin,
    all_runs,
    differing,
    flat,
    load_experiments,
    md5_of,
    origin,
    read_lock,
    read_runs,
    same_origin,
)
from stages.files import read_arrays, read_json, read_rows
from stages.markdown import render, results_table
from stages.paper import Numbers, load_numbers
from stages.parameters import PARAMETERS_FILE
from stages.scoring import report, score

README = Path("README.md")
DISTRIBUTION = METRICS / "class_distribution.csv"
TABLE_BEGINS, TABLE_ENDS = "<!-- results -->", "<!-- /results -->"

SHOWN_FAULTS = 3  # of one check
SHOWN_CHARACTERS = 150  # of one value
SUM_TOLERANCE = 1e-4  # of ten float32 probabilities; a softmax is within 1e-6

Pair = tuple[Any, Any]  # what a file should hold, and what it holds
Comparison = Callable[[], dict[str, Any]]  # makes the comparison with the paper anew


class Check(NamedTuple):
    """A file, what is checked of it, and the function that finds what is expected and what is there."""

    file: Path
    what: str
    look: Callable[[], Pair]


class Predictions(NamedTuple):
    """What a model made of the test set: float32 (N, 10), uint8 (N,), and where the images came from."""

    probabilities: np.ndarray
    labels: np.ndarray
    source: str


def main() -> None:
    checks = all_checks(load_numbers())
    failed = 0
    for check in checks:
        faults = list(faults_of(check))
        failed += bool(faults)
        if not faults:
            print(f"ok: {check.file}: {check.what}")
        for fault in faults[:SHOWN_FAULTS]:
            print(f"FAILED: {check.file}: {fault}")
        if len(faults) > SHOWN_FAULTS:
            print(f"        and {len(faults) - SHOWN_FAULTS} more in {check.file}")
    if failed:
        print(f"{failed} of {len(checks)} checks failed; git diff shows what was edited; dvc repro makes results anew,")
        print(f"and {README} takes its table from {COMPARISON_MD}")
        sys.exit(1)
    print(f"all {len(checks)} checks passed")


def all_checks(numbers: Numbers) -> list[Check]:
    """Every check, in the order in which the files follow from each other."""
    models = list(numbers.models)
    again = cache(partial(compare, numbers))
    checks = [
        Check(DATASET, "one data set behind all results", partial(sources, models)),
        Check(DISTRIBUTION, "as many images as the data set and the test labels have", partial(distribution, models)),
    ]
    for model in models:
        table = f"{model}.csv"
        checks += [
            Check(PARAMETERS_FILE, f"what {model} was trained with", partial(parameters, model)),
            Check(run_file(model), "the images of the split, the results of its history", partial(run_record, model)),
            Check(predictions_file(model), "a distribution for each test image", partial(distributions, model)),
            Check(METRICS / f"{model}.json", "its predictions, draws and run, scored again", partial(scores, model)),
            Check(METRICS / "report" / table, "its predictions, class by class", partial(class_report, model)),
            Check(METRICS / "confusion" / table, "its predictions, image by image", partial(confusion, model)),
        ]
    return [
        *checks,
        Check(predictions_file(models[-1]), "the labels of the other models", partial(labels, models)),
        Check(RUNS, "runs of experiments.yaml, of this code and data, with their histories' results", collected),
        Check(COMPARISON_JSON, "the comparison, made again", partial(comparison, again)),
        Check(COMPARISON_MD, "the comparison, written again", partial(comparison_text, again)),
        Check(README, "the comparison's table", partial(readme_table, again)),
        Check(LOCK, "the MD5 sum of each result", lock),
    ]


def sources(models: list[str]) -> Pair:
    """The source that each file names, held to that of the data set."""
    found: dict[str, str] = {}
    for model in models:
        found |= {
            run_file(model).as_posix(): read_json(run_file(model))["source"],
            f"{METRICS}/{model}.json": read_json(METRICS / f"{model}.json")["source"],
            predictions_file(model).as_posix(): read_predictions(model).source,
        }
    return dict.fromkeys(found, read_json(DATASET)["source"]), found


def distribution(models: list[str]) -> Pair:
    dataset, counts = read_json(DATASET), read_distribution()
    classes = dataset["classes"]
    expected = {
        "class": classes,
        "all": [dataset["images_per_class"]] * len(classes),
        "train and validation": dataset["train_images"],
        "test": np.bincount(read_predictions(models[0]).labels, minlength=len(classes)).tolist(),
    }
    found = {
        "class": [row["class"] for row in read_rows(DISTRIBUTION)],
        "all": [sum(parts) for parts in zip(*counts.values(), strict=True)],
        "train and validation": sum(counts["train"]) + sum(counts["validation"]),
        "test": counts["test"],
    }
    return expected, found


def parameters(model: str) -> Pair:
    """params.yaml, as far as the model's run recorded it."""
    run = read_json(run_file(model))
    content = yaml.safe_load(PARAMETERS_FILE.read_text(encoding="utf-8"))
    expected = {**run["parameters"], "split": run["split"]}
    return expected, {name: content.get(name) for name in expected}


def run_record(model: str) -> Pair:
    """What a run recorded of its images (from the split) and of its results (from its history)."""
    run, counts = read_json(run_file(model)), read_distribution()
    train, validation = sum(counts["train"]), sum(counts["validation"])
    if run["parameters"][model].get("validation") == "test":  # then nothing is held out
        train, validation = train + validation, sum(counts["test"])
    patience = run["parameters"][model]["early_stopping_patience"]
    history = METRICS / "history" / f"{model}.csv"
    expected = {
        "data": {"train_images": train, "validation_images": validation},
        **results_of(history, stops=patience is not None, recorded=run["best_epoch"]),
    }
    return expected, {name: run[name] for name in expected}


def results_of(history: Path, stops: bool, recorded: int) -> Json:
    """What follows from a history: epochs and best epoch, the last one's training and the best one's validation.

    Args:
        history: The table.
        stops: Whether early stopping was on: then the weights of the lowest validation loss are kept, else the last.
        recorded: The best epoch that the run recorded: the six digits of the history may show a tie where the training
            saw none.
    """
    curves = read_curves(history)
    val_loss, last = curves["val_loss"], max(curves["train_loss"])
    lowest = [epoch for epoch, loss in val_loss.items() if loss == min(val_loss.values())] if stops else []
    best = recorded if recorded in lowest else (lowest or [last])[0]
    return {
        "epochs": last,
        "best_epoch": best,
        "train": {"loss": curves["train_loss"][last], "accuracy": curves["train_accuracy"][last]},
        "validation": {"loss": val_loss.get(best), "accuracy": curves["val_accuracy"].get(best)},
    }


def collected() -> Pair:
    """Each row of the collected runs: where it is from, what it was run with, and what its history says of it."""
    experiments, lock = load_experiments(), read_lock()
    runs, source = all_runs(experiments), read_json(DATASET)["source"]
    rows = read_runs()
    expected: Json = {"histories": sorted(path.stem for path in HISTORIES.glob("*"))}
    found: Json = {"histories": sorted(row["name"] for row in rows)}
    for row in rows:
        name, model = row["name"], row["model"]
        wanted = origin(lock, model)
        is_wanted = same_origin(Origin(row["code"], row["data"]), wanted, experiments)
        history = results_of(
            HISTORIES / f"{name}.csv",
            stops=row.get(f"{model}.early_stopping_patience") is not None,
            recorded=row["best_epoch"],
        )
        expected[name] = {"source": source, "origin": list(wanted), "other parameters": [], **flat(history)}
        run = runs.get(name)
        other = differing(run, row) if run else [f"{EXPERIMENTS} does not name it"]
        found[name] = {
            "source": row["source"],
            "origin": list(wanted) if is_wanted else [row["code"], row["data"]],
            "other parameters": other,
            **{key: row.get(key) for key in flat(history)},
        }
    return expected, found


def distributions(model: str) -> Pair:
    """That the probabilities of each test image are none below 0 and 1 in all."""
    rows = read_predictions(model).probabilities
    good = (rows >= 0).all(axis=1) & (np.abs(rows.sum(axis=1, dtype=np.float64) - 1) <= SUM_TOLERANCE)
    dataset = read_json(DATASET)
    shape = [dataset["test_images"], len(dataset["classes"])]
    return {"shape": shape, "distributions": shape[0]}, {"shape": list(rows.shape), "distributions": int(good.sum())}


def scores(model: str) -> Pair:
    predictions = read_predictions(model)
    draws = [
        {"draw": int(row["draw"]), "accuracy": float(row["accuracy"]), "loss": float(row["loss"])}
        for row in read_rows(METRICS / "augmented" / f"{model}.csv")
    ]
    test = score(predictions.probabilities, predictions.labels)
    return summary(read_json(run_file(model)), test, draws), read_json(METRICS / f"{model}.json")


def class_report(model: str) -> Pair:
    predictions = read_predictions(model)
    rows = report(predictions.probabilities, predictions.labels, read_json(DATASET)["classes"])
    expected = [{name: str(value) for name, value in row.items()} for row in rows]
    return expected, read_rows(METRICS / "report" / f"{model}.csv")


def confusion(model: str) -> Pair:
    predictions, classes = read_predictions(model), read_json(DATASET)["classes"]
    answers = zip(predictions.labels, predictions.probabilities.argmax(axis=1), strict=True)
    expected = [{"actual": classes[actual], "predicted": classes[predicted]} for actual, predicted in answers]
    return expected, read_rows(METRICS / "confusion" / f"{model}.csv")


def labels(models: list[str]) -> Pair:
    """The test labels of the last model, held to each other one's."""
    last = read_predictions(models[-1]).labels.tolist()
    return {model: read_predictions(model).labels.tolist() for model in models}, dict.fromkeys(models, last)


def comparison(again: Comparison) -> Pair:
    return json.loads(json.dumps(again())), read_json(COMPARISON_JSON)


def comparison_text(again: Comparison) -> Pair:
    return render(again()).split("\n"), COMPARISON_MD.read_text(encoding="utf-8").split("\n")


def readme_table(again: Comparison) -> Pair:
    """The table of results between its two markers in the README."""
    _, begins, rest = README.read_text(encoding="utf-8").partition(TABLE_BEGINS)
    table, ends, _ = rest.partition(TABLE_ENDS)
    if not (begins and ends):
        raise ExpectedError(f"holds no table between {TABLE_BEGINS} and {TABLE_ENDS}")
    return results_table(again()).split("\n"), table.strip().split("\n")


def lock() -> Pair:
    """What dvc.lock recorded of the results in git, and what they are; a result that it does not know is a fault."""
    stages = yaml.safe_load(LOCK.read_text(encoding="utf-8"))["stages"].values()
    outs = {Path(out["path"]): out["md5"] for stage in stages for out in stage.get("outs", [])}
    expected = {path.as_posix(): md5 for path, md5 in outs.items() if METRICS in path.parents}
    present = {path for path in METRICS.rglob("*") if path.is_file() and not path.name.startswith(".")}
    strangers = {path for path in present if not {path, *path.parents} & {*outs, RUNS, HISTORIES}}
    found = {path: md5_of(Path(path)) for path in expected if Path(path).exists()}
    return expected, found | {path.as_posix(): "a file that no stage made" for path in sorted(strangers)}


def read_predictions(model: str) -> Predictions:
    arrays = read_arrays(predictions_file(model))
    return Predictions(arrays["probabilities"], arrays["labels"], str(arrays["source"]))


def read_distribution() -> dict[str, list[int]]:
    """How many images of each class there are in each part of the data."""
    rows = read_rows(DISTRIBUTION)
    return {part: [int(row[part]) for row in rows] for part in ("train", "validation", "test")}


def predictions_file(model: str) -> Path:
    return METRICS / "predictions" / f"{model}.npz"


def run_file(model: str) -> Path:
    return METRICS / "runs" / f"{model}.json"


def faults_of(check: Check) -> Iterator[str]:
    """What is wrong, a sentence each; a file in which a reader stumbles is at fault too."""
    try:
        expected, found = check.look()
    except Exception as error:  # whatever a damaged file makes a reader raise
        message = str(error) if isinstance(error, ExpectedError) else f"cannot be checked: {error!r}"
        yield message.removeprefix(f"{check.file} ")
        return
    yield from differences(expected, found)


def differences(expected: Any, found: Any, place: str = "") -> Iterator[str]:
    """Where two nested values differ, a sentence each."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in expected | found:
            inner = f"{place}, {key}" if place else str(key)
            yield from differences(expected.get(key, "nothing"), found.get(key, "nothing"), inner)
    elif isinstance(expected, list) and isinstance(found, list):
        for number, (one, other) in enumerate(zip(expected, found, strict=False), start=1):
            yield from differences(one, other, f"{place}, {number}" if place else f"row {number}")
        if len(expected) != len(found):
            yield f"{place or 'rows'}: expected {len(expected)}, found {len(found)}"
    elif expected != found:
        yield f"{place}: expected {short(expected)}, found {short(found)}"


def short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."


if __name__ == "__main__":
    run_program("verify", main)
