"""Check, in seconds and from a fresh clone, that every committed number follows from what is committed with it.

`make verify` runs this: no data, no model, no training. It writes everything that follows from the stored predictions,
histories and run records anew into a temporary folder, with the functions of the stages, and compares the files. The
rest (who was trained with what, collected runs, dvc.lock) it checks directly. One line for each fault; status 1 if any.
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import yaml

from stages.cards import DESCRIBED, card
from stages.common import config, paths
from stages.common.errors import ExpectedError, run_program
from stages.common.files import Json, flat, read_arrays, read_json, read_rows, write_json
from stages.common.paths import (
    COLLECTED,
    DATASET,
    DISTRIBUTION,
    EXPERIMENTS,
    LOCK,
    METRICS,
    PARAMETERS,
    REPORT,
    RUNS,
    SAMPLES,
)
from stages.compare import write_comparison
from stages.evaluate import write_scores
from stages.experiments.origin import Origin, md5_of, origin, read_lock, same_origin
from stages.experiments.plan import all_runs, differing, load_experiments, recorded_parameters
from stages.experiments.predictions import read_predictions, scores_of
from stages.experiments.table import read_runs
from stages.inference.classifier import IN_GIT, load_classifier
from stages.paper.markdown import headline_table
from stages.paper.numbers import Numbers, load_numbers
from stages.paper.ours import read_curves
from stages.report import write_report

README = Path("README.md")
ONNX = paths.onnx(IN_GIT)
LARGEST_DIFFERENCE = 1e-4  # of a probability, between this machine and the one that trained
TABLE_BEGINS, TABLE_ENDS = "<!-- results -->", "<!-- /results -->"
SHOWN_FAULTS = 3  # of one check
SHOWN_CHARACTERS = 150  # of one line
LOSS_TOLERANCE = 1.5e-6  # one in the last of six decimals, because a kept probability is float32
SUM_TOLERANCE = 1e-4  # of ten float32 probabilities; a softmax is within 1e-6

Check = Callable[[], Iterator[str]]  # yields "file: what is wrong"


def main() -> None:
    with TemporaryDirectory() as folder:
        checks = all_checks(load_numbers(), Path(folder))
        failed = [what for what, check in checks.items() if not passes(what, check)]
    if failed:
        print(f"{len(failed)} of {len(checks)} checks failed; git diff shows edits; dvc repro makes results anew")
        sys.exit(1)
    print(f"all {len(checks)} checks passed")


def passes(what: str, check: Check) -> bool:
    """Print a check's outcome; a file that cannot be read is a fault too."""
    faults = []
    try:
        for fault in check():
            faults.append(fault)
    except Exception as error:  # whatever a damaged file makes a reader raise
        faults.append(str(error) if isinstance(error, ExpectedError) else f"{what}: cannot be checked: {error!r}")
    for fault in faults[:SHOWN_FAULTS]:
        print(f"FAILED: {fault}")
    if len(faults) > SHOWN_FAULTS:
        print(f"        and {len(faults) - SHOWN_FAULTS} more of this check: {what}")
    if not faults:
        print(f"ok: {what}")
    return not faults


def all_checks(numbers: Numbers, folder: Path) -> dict[str, Check]:
    """Every check by what it checks, in the order in which the files follow from each other."""
    models = list(numbers.models)
    checks: dict[str, Check] = {
        "one data set and one order of the test images behind all results": partial(one_data_set, models),
        f"{DISTRIBUTION} has as many images as the data set and the test labels": partial(distribution, models),
    }
    for model in models:
        checks |= {
            f"{model} was trained with {PARAMETERS}": partial(parameters, model),
            f"{paths.run(model)} follows from the split and the history": partial(run_record, model, folder),
            f"{paths.predictions(model)} has a distribution for each test image": partial(distributions, model),
            f"{model}'s scores, numbers for each class and confusion follow from its predictions": partial(
                scores, model, folder
            ),
        }
    checks |= {
        f"{RUNS} has runs of {EXPERIMENTS}, of this code and data, with their histories' results": collected,
        f"{RUNS} has the scores of the predictions that are kept: {kept_predictions()}": partial(rescored, models),
        "the comparison with the paper follows from the results": partial(comparison, numbers, folder),
        f"{REPORT} follows from the results": partial(report, numbers, folder),
        f"{README} has the comparison's table": readme_table,
        f"{LOCK} has the MD5 sum of each result": lock,
    }
    if DESCRIBED.keys() <= numbers.models.keys():
        checks["the models' cards follow from the results"] = model_cards
    if IN_GIT in numbers.models:
        checks[f"{ONNX} gives the predictions of the stored test images"] = exported
    return checks


def one_data_set(models: list[str]) -> Iterator[str]:
    source, labels = read_json(DATASET)["source"], read_arrays(paths.predictions(models[0]))["labels"]
    for model in models:
        predictions = read_arrays(paths.predictions(model))
        found = {path: read_json(path)["source"] for path in (paths.run(model), paths.scores(model))}
        for path, other in (found | {paths.predictions(model): str(predictions["source"])}).items():
            if other != source:
                yield f"{path}: its source is {other}, and that of {DATASET} is {source}"
        if predictions["labels"].tolist() != labels.tolist():
            yield f"{paths.predictions(model)}: its labels are not those of {paths.predictions(models[0])}"


def distribution(models: list[str]) -> Iterator[str]:
    dataset, parts = read_json(DATASET), read_distribution()
    classes = dataset["classes"]
    labels = np.bincount(read_arrays(paths.predictions(models[0]))["labels"], minlength=len(classes)).tolist()
    facts = {
        "its classes": ([row["class"] for row in read_rows(DISTRIBUTION)], classes),
        "images to train and validate": (sum(parts["train"] + parts["validation"]), dataset["train_images"]),
        "test images of each class": (parts["test"], labels),
    }
    if "images_per_class" in dataset:  # it is balanced
        count = dataset["images_per_class"]
        facts["images of each class"] = (np.sum([*parts.values()], 0).tolist(), [count] * len(classes))
    for what, (found, expected) in facts.items():
        if found != expected:
            yield f"{DISTRIBUTION}: {what}: found {found}, expected {expected}"


def read_distribution() -> dict[str, list[int]]:
    """How many images of each class there are in each part of the data."""
    rows = read_rows(DISTRIBUTION)
    return {part: [int(row[part]) for row in rows] for part in ("train", "validation", "test")}


def parameters(model: str) -> Iterator[str]:
    now = flat(config.read(PARAMETERS))
    for key, value in recorded_parameters(read_json(paths.run(model))).items():
        if key not in now or now[key] != value:
            yield f"{PARAMETERS}: {key} is {now.get(key, 'missing')}, and {model} was trained with {value}"


def run_record(model: str, folder: Path) -> Iterator[str]:
    run, counts = read_json(paths.run(model)), {part: sum(count) for part, count in read_distribution().items()}
    own = run["parameters"].get(model, {})
    if own.get("validation") == "test":  # then nothing is held out
        counts = {"train": counts["train"] + counts["validation"], "validation": counts["test"]}
    data = {"train_images": counts["train"], "validation_images": counts["validation"]}
    stops = own.get("early_stopping_patience") is not None
    results = results_of(paths.history(model), stops, run["best_epoch"])
    write_json(paths.run(model, folder), run | {"data": data} | results)
    yield from differences(paths.run(model), paths.run(model, folder))


def results_of(history: Path, stops: bool, recorded: int) -> Json:
    """What follows from a history: epochs and best epoch, the last one's training and the best one's validation.

    Args:
        history: The table.
        stops: Whether early stopping was on: then the weights of the lowest validation loss are kept, else the last.
        recorded: The best epoch that the run recorded: the six digits of the history may show a tie where the training
            saw none.
    """
    curves = read_curves(history)
    val_loss, last = curves.get("val_loss", {}), max(map(max, filter(None, curves.values())))
    lowest = [epoch for epoch, loss in val_loss.items() if loss == min(val_loss.values())] if stops else []
    best = recorded if recorded in lowest else (lowest or [last])[0]
    results: Json = {"epochs": last, "best_epoch": best}
    for part, prefix, epoch in (("train", "train_", last), ("validation", "val_", best)):
        columns = [column for column in curves if column.startswith(prefix)]
        if columns:
            results[part] = {column.removeprefix(prefix): curves[column].get(epoch) for column in columns}
    return results


def distributions(model: str) -> Iterator[str]:
    rows, dataset = read_arrays(paths.predictions(model))["probabilities"], read_json(DATASET)
    if rows.shape != (shape := (dataset["test_images"], len(dataset["classes"]))):
        yield f"{paths.predictions(model)}: its shape is {rows.shape}, not {shape}"
    good = (rows >= 0).all(axis=1) & (np.abs(rows.sum(axis=1, dtype=np.float64) - 1) <= SUM_TOLERANCE)
    if not good.all():
        yield f"{paths.predictions(model)}: {(~good).sum()} rows are not distributions, first row {good.argmin()}"


def scores(model: str, folder: Path) -> Iterator[str]:
    run, predictions = read_json(paths.run(model)), read_arrays(paths.predictions(model))
    kept = paths.augmented(model)
    draws = [
        {"draw": int(row["draw"]), "accuracy": float(row["accuracy"]), "loss": float(row["loss"])}
        for row in (read_rows(kept) if kept.exists() else [])
    ]
    answers, classes = (predictions["probabilities"], predictions["labels"]), read_json(DATASET)["classes"]
    train_clean = read_json(paths.scores(model))["train_clean"]  # the training images' predictions are not in git
    write_scores(model, run, *answers, draws, train_clean, classes, folder)
    for path in (paths.scores, paths.per_class, paths.confusion):
        yield from differences(path(model), path(model, folder))


def collected() -> Iterator[str]:
    """Each row of the collected runs: where it is from, what it was run with, and what its history says of it."""
    experiments, lock, source, rows = load_experiments(), read_lock(), read_json(DATASET)["source"], read_runs()
    runs, histories = all_runs(experiments), {path.stem for path in COLLECTED.glob("*.csv")}
    for name in sorted(histories ^ {row["name"] for row in rows}):
        yield f"{RUNS}: {name} has no {'row' if name in histories else 'history'}"
    for row in rows:
        name, model = row["name"], row["model"]
        wrong = differing(runs[name], row) if name in runs else [f"{EXPERIMENTS} does not name it"]
        wrong += [] if row["source"] == source else [f"it is of {row['source']} data"]
        made_from, present = Origin(row["code"], row["data"]), origin(lock, model)
        if not same_origin(made_from, present, experiments):
            wrong.append(f"it is of code {made_from.code} and data {made_from.data}, {LOCK} of {' and '.join(present)}")
        stops = row.get(f"{model}.early_stopping_patience") is not None
        results = flat(results_of(paths.collected_history(name), stops, row["best_epoch"]))
        wrong += [f"{key} is {row.get(key)}, not {value}" for key, value in results.items() if row.get(key) != value]
        yield from (f"{RUNS}: {name}: {fault}" for fault in wrong)


def kept_predictions() -> str:
    """Of how many collected runs there are any."""
    return f"{len(list(COLLECTED.glob('*.npz')))} of {len(list(COLLECTED.glob('*.csv')))} runs"


def rescored(models: list[str]) -> Iterator[str]:
    """The scores of each collected run whose predictions are kept."""
    labels, classes = read_arrays(paths.predictions(models[0]))["labels"], len(read_json(DATASET)["classes"])
    rows = {row["name"]: row for row in read_runs()}
    for path in sorted(COLLECTED.glob("*.npz")):
        if path.stem not in rows:
            yield f"{RUNS}: {path.stem} has no row"
            continue
        scores = scores_of(read_predictions(path, len(labels)), labels, classes)
        wrong = [key for key, value in scores.items() if not same_score(key, rows[path.stem].get(key), value)]
        yield from (f"{RUNS}: {path.stem}: {key} is {rows[path.stem].get(key)}, not {scores[key]}" for key in wrong)


def same_score(key: str, kept: float | None, anew: float) -> bool:
    """Whether a score in the table is that of the kept predictions; one that is no number is not."""
    return kept is not None and abs(kept - anew) <= (LOSS_TOLERANCE if key == "test.loss" else 0)


def comparison(numbers: Numbers, folder: Path) -> Iterator[str]:
    write_comparison(numbers, folder)
    for ending in ("json", "md"):
        yield from differences(paths.comparison(ending), paths.comparison(ending, folder))


def report(numbers: Numbers, folder: Path) -> Iterator[str]:
    write_report(numbers, folder)
    yield from differences(REPORT, folder / REPORT.name)


def readme_table() -> Iterator[str]:
    """The table of results between its two markers in the README."""
    _, begins, rest = README.read_text(encoding="utf-8").partition(TABLE_BEGINS)
    table, ends, _ = rest.partition(TABLE_ENDS)
    if not (begins and ends):
        yield f"{README}: it has no table between {TABLE_BEGINS} and {TABLE_ENDS}"
    elif table.strip() != (expected := headline_table(read_json(paths.comparison("json")))):
        yield f"{README}: its table is old; replace it with:\n{expected}"


def model_cards() -> Iterator[str]:
    for model in DESCRIBED:
        if paths.card(model).read_text(encoding="utf-8") != card(model):
            yield f"{paths.card(model)}: it is not what the stage cards writes"


def exported() -> Iterator[str]:
    """What the model in git says of the test images in git."""
    images = read_arrays(SAMPLES)["test_images"]
    expected = read_arrays(paths.predictions(IN_GIT))["probabilities"][: len(images)]
    difference = np.abs(load_classifier(ONNX).probabilities(images) - expected).max()
    if not difference <= LARGEST_DIFFERENCE:
        yield f"{ONNX}: its probabilities differ by {difference:.2g} from {paths.predictions(IN_GIT)}"


def lock() -> Iterator[str]:
    """What dvc.lock recorded of the results in git; a result that it does not know is a fault."""
    stages = yaml.safe_load(LOCK.read_text(encoding="utf-8"))["stages"].values()
    outs = {Path(out["path"]): out["md5"] for stage in stages for out in stage.get("outs", [])}
    for path, md5 in outs.items():
        if in_git(path) and not (path.exists() and md5_of(path) == md5):
            yield f"{LOCK}: {path} is {'not the file that it recorded' if path.exists() else 'missing'}"
    for path in sorted(METRICS.rglob("*")):
        if path.is_file() and not path.name.startswith(".") and not {path, *path.parents} & {*outs, RUNS, COLLECTED}:
            yield f"{LOCK}: no stage made {path}"


def in_git(path: Path) -> bool:
    """Whether a stage's output is committed: what is in metrics, the models' cards, and the small model."""
    return METRICS in path.parents or path == ONNX or path.suffix == ".md"


def differences(committed: Path, anew: Path) -> Iterator[str]:
    """One line if the two files differ, with the first line that does."""
    if committed.read_bytes() != anew.read_bytes():
        found, expected = (path.read_text(encoding="utf-8").split("\n") for path in (committed, anew))
        yield f"{committed}: {first_difference(found, expected)}"


def first_difference(found: list[str], expected: list[str]) -> str:
    pairs = enumerate(zip_longest(found, expected, fillvalue="no such line"), start=1)
    number, lines = next(pair for pair in pairs if pair[1][0] != pair[1][1])
    first, second = (line.strip()[:SHOWN_CHARACTERS] for line in lines)
    return f"line {number}: found {first!r}, expected {second!r}"


if __name__ == "__main__":
    run_program("verify", main, again="begins anew")
