"""A small, consistent set of result files, as the stages would leave it: what `compare` and `verify` read."""

import contextlib
import csv
import hashlib
import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml

from stages import cards, compare
from stages.common import paths
from stages.common.files import Json, flat, read_json, read_rows, write_json, write_rows
from stages.common.paths import COLLECTED, METRICS, RUNS, SAMPLES
from stages.evaluate import write_scores
from stages.experiments.origin import origin
from stages.experiments.plan import recorded_parameters
from stages.experiments.predictions import in_short, to_bytes
from stages.experiments.table import write_runs
from stages.inference.classifier import OPSET
from stages.paper.markdown import headline_table
from stages.paper.numbers import Numbers, load_numbers
from tests.support.onnx_models import write_constant_model

ROOT = Path(__file__).parents[2]
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
TEST_IMAGES = 10_000
SAMPLES_OF = (("train", 25), ("test", 10))
# What the stage reads, and what was written for some inputs, by a hash of their bytes.
STAGE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["compare"]
COMPARED = [name for name in STAGE["deps"] if not name.startswith("stages/")]
WRITTEN: dict[bytes, list[bytes]] = {}
DRAWS = {
    "keras_cnn": [(1, 0.76, 0.7), (2, 0.762, 0.71), (3, 0.761, 0.69)],
    "resnet18": [(1, 0.8, 0.6), (2, 0.802, 0.61), (3, 0.801, 0.62)],
}
PARAMETERS = {
    "keras_cnn": {
        "seed": 7,
        "dropout": 0.3,
        "batch_size": 64,
        "keras_cnn": {
            "backend": "tensorflow",
            "device": "cpu",
            "epochs": 50,
            "learning_rate": 0.001,
            "filters": [32, 64, 128],
            "convolutions_per_block": 1,
            "kernel_size": 3,
            "dense_units": 128,
            "dropout_profile": "rising",
            "augmentation": "none",
            "early_stopping_patience": 10,
            "reduce_lr_patience": 5,
            "reduce_lr_factor": 0.5,
            "min_learning_rate": 0.00001,
        },
    },
    "resnet18": {
        "seed": 7,
        "resnet18": {
            "device": "cpu",
            "epochs": 20,
            "batch_size": 64,
            "learning_rate": 0.001,
            "weight_decay": 0.0,
            "weights": "none",
            "weights_file": "data/weights/none",
            "frozen": [],
            "augmentation": "flip_crop",
            "validation": "test",
            "validation_augmentation": "flip_crop",
            "mean": [0.4914, 0.4822, 0.4465],
            "std": [0.2023, 0.1994, 0.2010],
            "early_stopping_patience": None,
            "reduce_lr_patience": None,
            "reduce_lr_factor": 0.5,
            "min_learning_rate": 0.00001,
        },
    },
}
SPLIT = {"validation_fraction": 0.2, "random_state": 7}


def write_results(sources: dict[str, str] | None = None) -> None:
    """Write everything into the current folder: the paper's data, metrics, comparison, README.md, dvc.lock.

    The histories are the paper's own curves, so that the distance to them is 0 until a test changes one.

    Args:
        sources: "cifar10" or "synthetic" for `dataset`, `keras_cnn` and `resnet18`; CIFAR-10 where not given.
    """
    sources = {"dataset": "cifar10", "keras_cnn": "cifar10", "resnet18": "cifar10"} | (sources or {})
    shutil.copytree(_results(tuple(sources.items())).name, ".", dirs_exist_ok=True)


@cache
def _results(sources: tuple[tuple[str, str], ...]) -> TemporaryDirectory:
    """The same in a folder of its own, made once."""
    folder = TemporaryDirectory()
    with contextlib.chdir(folder.name):
        _make_results(dict(sources))
    return folder


def _make_results(sources: dict[str, str]) -> None:
    paper = Path("data/paper")
    paper.mkdir(parents=True)
    for file in (ROOT / "data/paper").iterdir():
        (paper / file.name).write_bytes(file.read_bytes())
    write_json(
        Path("metrics/dataset.json"),
        {
            "source": sources["dataset"],
            "classes": CLASSES,
            "train_images": 50_000,
            "test_images": TEST_IMAGES,
            "images_per_class": 6000,
            "image_shape": [32, 32, 3],
            "mean": [0.491401, 0.482159, 0.446531],
            "std": [0.247032, 0.243485, 0.261588],
        },
    )
    write_rows(
        Path("metrics/class_distribution.csv"),
        [
            {"class": name, "train": 4000 + shift, "validation": 1000 - shift, "test": 1000}
            for name, shift in zip(CLASSES, [3, -3, 0, 0, 5, -5, 0, 0, 0, 0], strict=True)
        ],
    )
    write_model("keras_cnn", sources["keras_cnn"], "figure1_keras_cnn.csv", 50, (358_218, 357_514), (40_000, 10_000))
    write_model("resnet18", sources["resnet18"], "figure2_resnet18.csv", 20, (11_181_642,) * 2, (50_000, 10_000))
    write_samples()
    write_exported_model()
    parameters = {**PARAMETERS["keras_cnn"], **PARAMETERS["resnet18"], "split": SPLIT}
    Path("params.yaml").write_text(yaml.safe_dump(parameters))
    Path("experiments.yaml").write_text(
        "interpretations:\n  flip: [keras_cnn.augmentation=flip]\n  uniform: [keras_cnn.dropout_profile=uniform]\n"
        "  depth2: [keras_cnn.convolutions_per_block=2]\ngrids: {}\nsame_results: {}\n"
    )
    write_runs([])
    settle()


def write_samples() -> None:
    """The first images of both parts, of noise; the test images have the labels of the predictions."""
    random = np.random.default_rng(0)
    arrays = {f"{part}_images": random.integers(0, 256, (count, 32, 32, 3), np.uint8) for part, count in SAMPLES_OF}
    labels = predictions("keras_cnn")[1]
    np.savez_compressed(SAMPLES, train_labels=labels[:25], test_labels=labels[:10], **arrays)


def write_exported_model() -> None:
    """A model that gives the predictions of the stored test images, whatever it is shown."""
    facts = {"classes": json.dumps(CLASSES), "source": "cifar10"}
    write_constant_model(paths.onnx("keras_cnn"), predictions("keras_cnn")[0][:10], facts)
    export = {"opset": OPSET, "bytes": 1, "images": TEST_IMAGES, "largest_difference": 1e-6, "other_classes": 0}
    for model in ("keras_cnn", "resnet18"):
        write_json(paths.export(model), export)


def settle() -> None:
    """Make what follows from the metrics anew: the comparison, the README's table and the lock."""
    compare_anew()
    cards.main()
    table = headline_table(read_json(paths.comparison("json")))
    Path("README.md").write_text(f"# A title\n\n<!-- results -->\n{table}\n<!-- /results -->\n\nText.\n")
    write_lock()


def write_lock() -> None:
    """dvc.lock as DVC writes it, with every file of metrics and models as an output of one stage."""
    outs = [
        {"path": path.as_posix(), "hash": "md5", "md5": hashlib.md5(path.read_bytes()).hexdigest()}
        for path in sorted([*Path("metrics").rglob("*"), *Path("models").iterdir()])
        if path.is_file() and path != RUNS and COLLECTED not in path.parents
    ]
    model = {"path": "models/keras_cnn.keras", "hash": "md5", "md5": "0" * 32}  # not in a plain clone
    stages = {"everything": {"cmd": "true", "outs": [model, *outs]}}
    for stage, code in (("split", "d" * 32), ("train_keras_cnn", "a" * 32), ("evaluate@keras_cnn", "b" * 32)):
        paths = {f"stages/{stage[:5]}.py": code, "data/processed/test_images.npy": "c" * 32}
        stages[stage] = {"cmd": "true", "deps": [{"path": path, "md5": md5} for path, md5 in paths.items()]}
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


def add_run() -> None:
    """A run of another seed and dropout rate in metrics/runs.csv, with the history and predictions of the first."""
    record, scores = (read_json(Path(f"metrics/{folder}keras_cnn.json")) for folder in ("runs/", ""))
    set_ = ["dropout=0.4"]
    configuration = {"model": "keras_cnn", "seeds": [8], "set": set_}
    Path("experiments.yaml").write_text(yaml.safe_dump({"grids": {"more": configuration}, "same_results": {}}))
    made_from = origin(yaml.safe_load(Path("dvc.lock").read_text()), "keras_cnn")
    parameters = recorded_parameters(record) | {"seed": 8, "dropout": 0.4}
    row = {"name": "more-seed8", "model": "keras_cnn", "overrides": " ".join(set_), **made_from._asdict()}
    write_runs([row | {"seconds": 1000.0} | flat(scores) | parameters])
    COLLECTED.mkdir()
    paths.collected_predictions("more-seed8").write_bytes(to_bytes(in_short(*predictions("keras_cnn"))))
    (COLLECTED / "more-seed8.csv").write_bytes(Path("metrics/history/keras_cnn.csv").read_bytes())
    settle()


def compare_anew(numbers: Numbers | None = None, metrics: Path = METRICS) -> None:
    """As `stages.compare.write_comparison`. What it has written once for the same bytes it writes again."""
    content = hashlib.sha256()
    for place in map(Path, COMPARED):
        for file in sorted(path for path in (place, *place.rglob("*")) if path.is_file()):
            content.update(f"{file}\0".encode() + file.read_bytes() + b"\0")
    files = [paths.comparison(ending, metrics) for ending in ("json", "md")]
    written_once(content.digest(), files, lambda: compare.write_comparison(numbers or load_numbers(), metrics))


def scores_anew(model: str, run: Json, probabilities: np.ndarray, labels: np.ndarray, *others: Any) -> None:
    """As `stages.evaluate.write_scores`, likewise; the last of `others` is the folder."""
    *inputs, metrics = others
    content = hashlib.sha256(json.dumps([model, run, *inputs]).encode())
    for array in (probabilities, labels):
        content.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    files = [path(model, metrics) for path in (paths.scores, paths.per_class, paths.confusion)]
    written_once(content.digest(), files, lambda: write_scores(model, run, probabilities, labels, *others))


def written_once(key: bytes, files: list[Path], write: Callable[[], None]) -> None:
    """Write these files, or what was written for this key before."""
    if key not in WRITTEN:
        write()
        WRITTEN[key] = [file.read_bytes() for file in files]
    for file, known in zip(files, WRITTEN[key], strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(known)


def compared(part: str = "results") -> dict[str, dict[str, Any]]:
    """The rows of a new comparison by id."""
    compare_anew()
    return {row["id"]: row for row in read_json(paths.comparison("json"))[part]}


def statuses(part: str = "results") -> dict[str, str]:
    return {row_id: row["status"] for row_id, row in compared(part).items()}


def comparison_text() -> str:
    compare_anew()
    return paths.comparison("md").read_text(encoding="utf-8")


def collected(batch_size: int, dropout: float, accuracy: float, seed: int = 7, **more: Any) -> dict[str, Any]:
    """A row of metrics/runs.csv. Its other parameters are Table 1's, except those in `more`."""
    record = read_json(paths.run("keras_cnn"))
    parameters = recorded_parameters(record) | {"seed": seed, "batch_size": batch_size, "dropout": dropout} | more
    name = f"run-{batch_size}-{dropout}-{seed}-{len(more)}"
    scores = {"source": "cifar10", "code": "c", "data": "d", "test.accuracy": accuracy, "test.loss": 1 - accuracy}
    return {
        "name": name,
        "model": "keras_cnn",
        **scores,
        "best_epoch": 40,
        "epochs": 50,
        "seconds": 1000.0,
        **parameters,
    }


def add_seeds(*seeds: int) -> None:
    """Runs of other seeds: both models as in Table 1, and all of Table 2 with flips, with histories near the first."""
    rows = []
    for seed in seeds:
        shift = 0.002 * seed
        rows += [collected(64, 0.3, 0.81 + shift, seed)]
        rows += [
            collected(size, rate, 0.8 + rate / 10 + shift, seed, **{"keras_cnn.augmentation": "flip"})
            for size in (64, 128)
            for rate in (0.3, 0.4)
        ]
        record, scores = read_json(paths.run("resnet18")), flat(read_json(paths.scores("resnet18")))
        made = {"name": f"resnet-{seed}", "model": "resnet18", "code": "c", "data": "d", "seconds": 900.0}
        rows.append(made | scores | recorded_parameters(record) | {"seed": seed, "test.accuracy": 0.8 + shift})
    COLLECTED.mkdir(exist_ok=True)
    for row in rows:
        history = read_rows(paths.history(row["model"]))
        changed = [line | {"val_loss": f"{float(line['val_loss']) + 0.01 * row['seed']:.4f}"} for line in history]
        write_rows(paths.collected_history(row["name"]), changed)
    write_runs(rows)


def write_model(
    model: str, source: str, curves: str, best_epoch: int, weights: tuple[int, int], images: tuple[int, int]
) -> None:
    probabilities, labels = predictions(model)
    with (ROOT / "data/paper" / curves).open() as file:
        history = [{"learning_rate": 0.001} | row for row in csv.DictReader(file)]
    names = ("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate")
    write_rows(Path(f"metrics/history/{model}.csv"), [{name: row[name] for name in names} for row in history])
    last, kept = history[-1], history[best_epoch - 1]
    results = {
        "validation": {"loss": float(kept["val_loss"]), "accuracy": float(kept["val_accuracy"])},
        "train": {"loss": float(last["train_loss"]), "accuracy": float(last["train_accuracy"])},
        "epochs": len(history),
        "best_epoch": best_epoch,
    }
    write_json(
        Path(f"metrics/runs/{model}.json"),
        {
            "model": model,
            "source": source,
            "data": {"train_images": images[0], "validation_images": images[1]},
            "split": SPLIT,
            "parameters": deepcopy(PARAMETERS[model]),
            **({"dropout_rates": [0.3, 0.4, 0.5, 0.5]} if model == "keras_cnn" else {}),
            "weights": weights[0],
            "trainable_weights": weights[1],
            **results,
        },
    )
    write_json(Path(f"metrics/runtime/{model}.json"), {"seconds": 1234.5})
    draws = [{"draw": draw, "accuracy": accuracy, "loss": loss} for draw, accuracy, loss in DRAWS[model]]
    train_clean = {"accuracy": 0.9, "loss": 0.3}
    write_scores(model, read_json(paths.run(model)), probabilities, labels, draws, train_clean, CLASSES)
    write_rows(Path(f"metrics/augmented/{model}.csv"), draws)
    Path("metrics/predictions").mkdir(exist_ok=True)
    np.savez_compressed(
        f"metrics/predictions/{model}.npz", probabilities=probabilities, labels=labels, source=np.array(source)
    )


@cache
def predictions(model: str) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, 10), right in about four cases of five, and labels (N,)."""
    random = np.random.default_rng(len(model))
    labels = random.permutation(np.arange(TEST_IMAGES) % 10).astype(np.uint8)
    if model == "resnet18":  # one test set for both
        labels = predictions("keras_cnn")[1]
    scores = random.exponential(size=(TEST_IMAGES, 10))
    scores[np.arange(TEST_IMAGES), labels] += 3
    return (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32), labels


def change_json(path: str, key: str, value: Any) -> None:
    """Set a dotted key of a JSON file, which must be there, as if by hand."""
    content = read_json(Path(path))
    *parents, last = key.split(".")
    inner = content
    for parent in parents:
        inner = inner[parent]
    assert last in inner
    inner[last] = value
    Path(path).write_text(json.dumps(content, indent=2) + "\n")
