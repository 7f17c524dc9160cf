"""What a training leaves behind for the shared stages: its record, its history and its run time."""

from typing import Any

from stages.common import paths
from stages.common.files import Json, read_json, write_json, write_rows
from stages.common.paths import DATASET
from stages.training.machine import cores, machine


def write_records(
    model: str, parameters: Json, history: list[dict[str, Any]], weights: int, train: Json, seconds: float
) -> None:
    """Write metrics/runs, metrics/history and metrics/runtime of a model.

    Args:
        model: "rbm" or "raw".
        parameters: What of params.yaml it was trained with, `split` apart.
        history: A row an iteration, with the column `epoch` from 1.
        weights: How many numbers the model learned.
        train: Its accuracy and loss on the training images.
        seconds: What the training took.
    """
    dataset = read_json(DATASET)
    split = parameters.pop("split")
    record = {
        "model": model,
        "source": dataset["source"],
        "data": {"train_images": dataset["train_images"], "validation_images": 0},
        "split": split,
        "parameters": parameters,
        "weights": weights,
        "epochs": len(history),
        "best_epoch": len(history),
        "train": train,
        "validation": {"loss": None, "accuracy": None},
    }
    write_json(paths.run(model), record)
    write_rows(paths.history(model), history)
    computer = machine("cpu", cores(), ("scikit-learn", "numpy"))
    write_json(paths.runtime(model), computer | {"seconds": round(seconds, 3)})
