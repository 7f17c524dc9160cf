"""Where every file that stages exchange stands, relative to the repository."""

import os
from pathlib import Path

PARAMETERS = Path("params.yaml")
PIPELINE = Path("dvc.yaml")
LOCK = Path("dvc.lock")
EXPERIMENTS = Path("experiments.yaml")

RAW = Path("data/raw/cifar-10-batches-py")
PROCESSED = Path("data/processed")
SPLIT = PROCESSED / "split.npz"
PAPER = Path("data/paper")
NUMBERS = PAPER / "numbers.yaml"

METRICS = Path("metrics")
DATASET = METRICS / "dataset.json"
SAMPLES = METRICS / "samples.npz"
DISTRIBUTION = METRICS / "class_distribution.csv"
FIGURES = METRICS / "figures"
RUNS = METRICS / "runs.csv"
COLLECTED = METRICS / "experiments"
REPORT = METRICS / "report.html"


def main_repository() -> Path:
    """The main repository, even in a temporary copy of it (`dvc exp run --temp`), where DVC sets DVC_ROOT."""
    return Path(os.environ.get("DVC_ROOT") or ".")


def images(part: str) -> Path:
    """The pixels of a part, "train" or "test"."""
    return PROCESSED / f"{part}_images.npy"


def labels(part: str) -> Path:
    """The classes of a part, "train" or "test"."""
    return PROCESSED / f"{part}_labels.npy"


def scores(model: str, metrics: Path = METRICS) -> Path:
    """The numbers of a model, for `dvc metrics`."""
    return metrics / f"{model}.json"


def history(model: str) -> Path:
    """A row for each epoch of a model's training."""
    return METRICS / "history" / f"{model}.csv"


def run(model: str, metrics: Path = METRICS) -> Path:
    """What a model was trained with, and what came of it."""
    return metrics / "runs" / f"{model}.json"


def runtime(model: str) -> Path:
    """What a model's training took, and on what machine."""
    return METRICS / "runtime" / f"{model}.json"


def per_class(model: str, metrics: Path = METRICS) -> Path:
    """Precision, recall and F1 of each class."""
    return metrics / "per_class" / f"{model}.csv"


def confusion(model: str, metrics: Path = METRICS) -> Path:
    """The actual and the predicted class of each test image."""
    return metrics / "confusion" / f"{model}.csv"


def augmented(model: str) -> Path:
    """A row for each augmented draw of the test set."""
    return METRICS / "augmented" / f"{model}.csv"


def predictions(model: str) -> Path:
    """The probabilities of the test images, (N, 10)."""
    return METRICS / "predictions" / f"{model}.npz"


def collected_history(name: str) -> Path:
    """A row for each epoch of a collected run."""
    return COLLECTED / f"{name}.csv"


def collected_predictions(name: str) -> Path:
    """What a collected run predicted for each test image, in short."""
    return COLLECTED / f"{name}.npz"


def onnx(model: str) -> Path:
    """A trained model in ONNX, preprocessing included."""
    return Path("models") / f"{model}.onnx"


def export(model: str) -> Path:
    """How near an exported model is to what it was exported from."""
    return METRICS / "export" / f"{model}.json"


def card(model: str) -> Path:
    """What a model is for, and what it can do."""
    return Path("models") / f"{model}.md"


def comparison(ending: str, metrics: Path = METRICS) -> Path:
    """The paper's numbers compared with ours, as "json" or "md"."""
    return metrics / f"comparison.{ending}"
