"""One way of training one model, in its own process, which trains on request.

    python -m benchmarks.worker keras_cnn|resnet18 ours|expert|notebook BATCH cpu|cuda FOLDER

Each way has its own process, because the frameworks' settings belong to a whole process. The process reads images from
the folder, warms up, chooses the faster form of a way that has two, and reports that. Then it answers each line "STEPS"
on standard input with one line of JSON: the seconds a step of each stretch of steps, and the mean loss of all steps.
Between two such lines it waits and uses no processor time.
"""

import importlib
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stages.common.config import load
from stages.common.errors import ExpectedError, run_program
from stages.common.files import read_array
from stages.training.augmentation import draw
from stages.training.images import Images
from stages.training.randomness import derived_seed, generator

Json = dict[str, Any]
STRETCH = 25  # steps between two reports of our training
# Keras starts each epoch by setting up its queue of data: once in hundreds of steps of an epoch, but once in a hundred
# here. So the first stretch of each call is left out. The PyTorch loops have nothing like it.
LEFT_OUT = {"keras_cnn": 1, "resnet18": 0}
WARM_UP = 2 * STRETCH  # steps, which also compile what is compiled
IMAGES = 20_000  # enough; a float32 copy of them is 0.25 GB


class Stamps:
    """The log of one call: when the steps were done, and the mean loss so far."""

    def __init__(self) -> None:
        self.times = {0: time.perf_counter()}
        self.loss = float("nan")

    def step(self, done: int, loss: float, accuracy: float) -> None:
        """As `TrainingLog.step`."""
        self.times[done] = time.perf_counter()
        self.loss = loss


def main() -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed goes to standard error
    model, way, batch_size, device, folder = sys.argv[1:]
    images, labels = (read_array(Path(folder) / f"train_{name}.npy")[:IMAGES] for name in ("images", "labels"))
    forms, settings = start(model, way, images, labels, int(batch_size), device)
    orders = chunks(len(labels), int(batch_size))
    first = {form: run(train, orders, WARM_UP, left_out=1) for form, train in forms.items()}
    form = min(first, key=lambda name: first[name]["seconds"])
    started = {"settings": settings, "form": form, "first_loss": first[form]["loss"]}
    print(json.dumps(started), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(run(forms[form], orders, int(line), LEFT_OUT[model])), file=answers, flush=True)


def start(
    model: str, way: str, images: np.ndarray, labels: np.ndarray, batch_size: int, device: str
) -> tuple[Json, Json]:
    """The functions that train on some rows of the images, by form, and the settings that all ways must share."""
    # Imported here: a process has TensorFlow or PyTorch, and the other ways have none of our settings.
    if way != "ours":
        forms, settings = importlib.import_module(f"benchmarks.{way}.{model}").start(images, labels, batch_size, device)
        return forms, settings
    ours = {"keras_cnn": ours_keras_cnn, "resnet18": ours_resnet18}[model]
    train, settings = ours(images, labels, batch_size, device)
    return {"as it is": train}, settings


def ours_keras_cnn(images: np.ndarray, labels: np.ndarray, batch_size: int, device: str) -> tuple[Any, Json]:
    """Train as stages/train_keras_cnn.py, with params.yaml's values except for batch size and device."""
    from stages import train_keras_cnn
    from stages.keras_cnn import backend as keras_backend

    parameters = load(train_keras_cnn.Parameters)
    seed, section = parameters.seed, parameters.keras_cnn
    backend: keras_backend.Backend = section.backend if device == "cpu" else "torch"  # TensorFlow's wheel has no CUDA
    keras = keras_backend.start(backend, "cuda" if device == "cuda" else "cpu")
    keras.utils.set_random_seed(derived_seed(seed, 0, "weights"))
    rates = train_keras_cnn.dropout_rates(parameters.dropout, section.dropout_profile, len(section.filters))
    model = train_keras_cnn.compiled(keras, train_keras_cnn.untrained_model(section, rates), section)
    epochs = itertools.count(1)

    def train(order: np.ndarray, log: Any) -> None:
        choices = None
        if section.augmentation != "none":
            choices = draw(section.augmentation, len(order), generator(seed, next(epochs), "augmentation"))
        train_keras_cnn.train_epoch(keras, model, Images(images, labels), order, batch_size, choices, 1, log)

    return train, {
        "threads": keras_backend.threads(backend),
        "weights": model.count_params(),
        "dropout": rates,
        "augmentation": section.augmentation,
    }


def ours_resnet18(images: np.ndarray, labels: np.ndarray, batch_size: int, device: str) -> tuple[Any, Json]:
    """Train as stages/train_resnet18.py, with params.yaml's values except for batch size and device."""
    import torch

    from stages import train_resnet18
    from stages.resnet18.batches import Batches

    parameters = load(train_resnet18.Parameters)
    seed, section = parameters.seed, parameters.resnet18
    if section.frozen:
        raise ExpectedError("params.yaml has resnet18.frozen, but the notebook trains all layers; set it to []")
    place, model = ours_resnet18_model(device)
    optimiser = train_resnet18.adam(model, section)
    batches = Batches(
        Images(images, labels),
        np.arange(len(labels)),
        section.augmentation,
        section.mean,
        section.std,
        torch.nn.Sequential(),
        place,
    )
    epochs = itertools.count(1)

    def train(order: np.ndarray, log: Any) -> None:
        choices = draw(section.augmentation, len(order), generator(seed, next(epochs), "augmentation"))
        model.train()
        train_resnet18.train_epoch(model, optimiser, batches(order, choices, batch_size), log)

    return train, {
        "threads": torch.get_num_threads(),
        "weights": sum(weight.numel() for weight in model.state_dict().values()),
        "augmentation": section.augmentation,
    }


def ours_resnet18_model(device: str) -> tuple[Any, Any]:
    """The device, set up as the stage does, and the network in the form in which it trains there."""
    import torch

    from stages import train_resnet18
    from stages.resnet18 import device as torch_device

    parameters = load(train_resnet18.Parameters)
    section = parameters.resnet18.model_copy(update={"device": device})
    place = torch_device.start(section.device)
    torch.manual_seed(derived_seed(parameters.seed, 0, "weights"))
    return place, train_resnet18.faster(train_resnet18.starting_model(section), section).to(place)


def chunks(images: int, batch_size: int) -> Iterator[np.ndarray]:
    """Batches of rows, (batch_size,) each, one random order of all images after another."""
    rng = np.random.default_rng(0)
    rows = np.empty(0, dtype=np.int64)
    while True:
        while len(rows) < batch_size:
            rows = np.concatenate([rows, rng.permutation(images)])
        yield rows[:batch_size]
        rows = rows[batch_size:]


def run(train: Any, orders: Iterator[np.ndarray], steps: int, left_out: int) -> dict[str, Any]:
    """Train for some steps, a multiple of STRETCH.

    Returns:
        "seconds": of a step, for each stretch of STRETCH steps but those left out, which are in "left_out"; "loss": the
        mean of all steps.
    """
    order = np.concatenate(list(itertools.islice(orders, steps)))
    stamps = Stamps()
    train(order, stamps)
    ends = [stamps.times[done] for done in range(0, steps + 1, STRETCH)]
    seconds = [(end - begin) / STRETCH for begin, end in itertools.pairwise(ends)]
    return {"seconds": seconds[left_out:], "left_out": seconds[:left_out], "loss": round(stamps.loss, 4)}


if __name__ == "__main__":
    run_program("benchmarks.worker", main)
