"""Train ResNet-18 in PyTorch (sections 2.1 to 2.5; the committed parameters are what the notebook ran).

Data: all 50,000 training images, flipped and cropped at random; the test set validates, augmented too, as in the
notebook, and chooses nothing. Network: torchvision's ResNet-18 from random weights, every layer trained: 11,181,642
weights. Training: Adam without weight decay on cross-entropy, batches of 64, 20 epochs; the last weights are kept.
What the text describes instead (ImageNet weights, frozen layers, weight decay, early stopping, held-out validation
images) is reachable by parameters.

It takes about 20 minutes on two cores. Its scores are in metrics/resnet18.json, and next to the paper's in
metrics/comparison.md.

Writes the model, its history, the run's record and its run time. After an interruption, the same command resumes from
the last finished epoch, and the results are the same to the bit.
"""

import io
from collections.abc import Iterable
from itertools import chain
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional
from torch.optim import Optimizer

from stages.common import paths
from stages.common.config import Section, Seed, load
from stages.common.errors import BadParameter
from stages.common.files import write_json
from stages.common.process import run_stage
from stages.resnet18 import architecture
from stages.resnet18 import device as torch_device
from stages.resnet18.batches import Batches
from stages.resnet18.device import Device
from stages.resnet18.live_taps import leave_out_padding
from stages.resnet18.model_file import MODEL_FILE, save
from stages.resnet18.pretrained import load_features
from stages.training.augmentation import Augmentation, draw
from stages.training.checkpoint import Checkpoint
from stages.training.images import Images, load_images, load_source, load_split
from stages.training.log import TrainingLog
from stages.training.machine import machine
from stages.training.plateau import Plateau
from stages.training.randomness import derived_seed, generator

HISTORY_FILE = paths.history("resnet18")
RUN_FILE = paths.run("resnet18")
RUNTIME_FILE = paths.runtime("resnet18")

VALIDATION_BATCH = 500  # images; nothing is learned from them, so it changes no result
PROGRESS_STEPS = 25  # how often the loss is asked for: on a GPU each time waits for all that was asked before


class ResNet18(Section):
    """The section `resnet18`."""

    device: Device
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)  # its batch norms need two images
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    weights: Literal["none", "imagenet", "file"]  # file: weights_file
    weights_file: str = Field(min_length=1)  # a state dict of torchvision's resnet18
    frozen: list[Literal["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"]]
    augmentation: Augmentation
    validation: Literal["test", "held_out"]
    validation_augmentation: Augmentation
    mean: list[float] = Field(min_length=3, max_length=3)
    std: list[Annotated[float, Field(gt=0)]] = Field(min_length=3, max_length=3)
    early_stopping_patience: int | None = Field(ge=1)
    reduce_lr_patience: int | None = Field(ge=1)
    reduce_lr_factor: float = Field(gt=0, lt=1)
    min_learning_rate: float = Field(ge=0)

    @model_validator(mode="after")
    def _a_layer_is_left_to_train(self) -> "ResNet18":
        if set(self.frozen) == set(architecture.LAYERS):
            raise ValueError("frozen names every layer; leave one to train")
        return self


class Parameters(Section):
    """What this stage reads of params.yaml."""

    seed: Seed
    resnet18: ResNet18


def main() -> None:
    """Train, and write the model and its records."""
    parameters = load(Parameters)
    section = parameters.resnet18
    training, source = load_images("train"), load_source()
    split = load_split(len(training.labels))
    validating = load_images("test") if section.validation == "test" else training
    train_rows, validation_rows = np.arange(len(training.labels)), np.arange(len(validating.labels))
    if section.validation == "held_out":
        train_rows, validation_rows = split.train, split.validation
    check_batches(len(train_rows), len(validation_rows), section)

    place = torch_device.start(section.device)
    torch.manual_seed(derived_seed(parameters.seed, 0, "weights"))
    model = starting_model(section)
    weights = {name: weight.numel() for name, weight in model.named_parameters()}
    trainable = [name for name, weight in model.named_parameters() if weight.requires_grad]
    model = faster(model, section).to(place)
    if section.validation == "test" and (section.early_stopping_patience or section.reduce_lr_patience):
        print("resnet18.validation is test: the test set now steers the training; held_out keeps it out", flush=True)
    log = TrainingLog(HISTORY_FILE, section.epochs, -(-len(train_rows) // section.batch_size), source)
    computer = machine(section.device, torch.get_num_threads(), ("torch", "torchvision", "numpy"))
    facts = {"parameters": parameters.model_dump(), "source": source, "machine": computer}
    weights_at_start = (value.numpy(force=True) for value in model.state_dict().values())
    arrays = chain(training, validating, [train_rows, validation_rows], weights_at_start)
    with Checkpoint("train_resnet18", facts, arrays) as checkpoint:
        best_epoch = train(model, (training, train_rows), (validating, validation_rows), parameters, log, checkpoint)
        save(model, MODEL_FILE)
        record = {
            "model": "resnet18",
            "source": source,
            "data": {"train_images": len(train_rows), "validation_images": len(validation_rows)},
            "split": {"validation_fraction": split.validation_fraction, "random_state": split.random_state},
            "parameters": parameters.model_dump(),
            "weights": sum(weights.values()),
            "trainable_weights": sum(weights[name] for name in trainable),
        }
        write_json(RUN_FILE, record | log.results(best_epoch))
        write_json(RUNTIME_FILE, log.runtime(computer))
        checkpoint.clear()


def faster(model: nn.Module, section: ResNet18) -> nn.Module:
    """The same network in a form that trains faster: the same losses and weights, but for the order of sums."""
    if section.device == "cpu":
        leave_out_padding(model, 32, keep_dead_taps=section.weight_decay > 0)
    return model.to(memory_format=torch.channels_last)


def check_batches(train_images: int, validation_images: int, section: ResNet18) -> None:
    """Raise a BadParameter where the numbers of images cannot be trained or validated on."""
    if train_images % section.batch_size == 1:
        raise BadParameter(
            f"resnet18.batch_size is {section.batch_size}, which leaves one of {train_images} images for the last "
            "batch, and batch norm cannot train on one; choose another batch size"
        )
    if not validation_images:
        raise BadParameter("resnet18.validation is held_out, but split.validation_fraction is 0: raise it, or use test")


def starting_model(section: ResNet18) -> nn.Module:
    """The network as it starts: random or pre-trained weights, its frozen layers frozen, the classifier always new.

    Raises:
        BadParameter: The weights cannot be had or do not fit.
    """
    model = architecture.build()
    if section.weights != "none":
        load_features(model, section.weights, section.weights_file)
    for name in section.frozen:
        getattr(model, name).requires_grad_(False)
    return model


def train(
    model: nn.Module,
    training: tuple[Images, np.ndarray],
    validating: tuple[Images, np.ndarray],
    parameters: Parameters,
    log: TrainingLog,
    checkpoint: Checkpoint | None = None,
) -> int:
    """Train epoch by epoch; the model ends with the weights that are kept.

    Args:
        model: The network, on its device, trained in place.
        training: The images that train, and the rows of them to use.
        validating: Likewise for validation.
        parameters: Those of the stage.
        log: Takes each epoch's row.
        checkpoint: Of an interrupted training, and of this one after each epoch; None for none.

    Returns:
        The epoch, counted from 1, whose weights are kept: the last, or with early stopping the one of the lowest
        validation loss.
    """
    seed, section = parameters.seed, parameters.resnet18
    optimiser = adam(model, section)
    plateau = Plateau(section)
    features, head = architecture.divide(model, section.frozen) if section.frozen else (nn.Sequential(), model)
    mean, std, place = section.mean, section.std, next(model.parameters()).device
    batches = Batches(*training, section.augmentation, mean, std, features, place)
    validation_batches = Batches(*validating, section.validation_augmentation, mean, std, features, place)

    done = 0
    if checkpoint and (saved := checkpoint.load()):
        done = restore(saved, model, optimiser, plateau, log)
    for epoch in range(done + 1, section.epochs + 1):
        if plateau.stops_before(epoch):
            break
        order = generator(seed, epoch, "order").permutation(training[1])
        choices = draw(section.augmentation, len(order), generator(seed, epoch, "augmentation"))
        learning_rate = optimiser.param_groups[0]["lr"]
        log.start_epoch()
        model.train()
        for name in section.frozen:
            getattr(model, name).eval()  # or a frozen layer's batch-norm statistics would drift
        fitted = train_epoch(head, optimiser, batches(order, choices, section.batch_size), log)
        rows = validating[1]
        choices = draw(section.validation_augmentation, len(rows), generator(seed, epoch, "validation augmentation"))
        model.eval()
        validation = validate(head, validation_batches(rows, choices, VALIDATION_BATCH))
        log.end_epoch(fitted, validation, learning_rate)
        if plateau.is_best(epoch, validation["loss"]):
            plateau.best_weights = {name: value.clone() for name, value in model.state_dict().items()}
        for group in optimiser.param_groups:
            group["lr"] = plateau.next_rate(learning_rate, validation["loss"])
        if checkpoint:
            checkpoint.save(snapshot(model, optimiser, plateau, log))

    if plateau.best_weights is not None:
        model.load_state_dict(plateau.best_weights)
    return plateau.best_epoch


def snapshot(model: nn.Module, optimiser: Optimizer, plateau: Plateau, log: TrainingLog) -> bytes:
    """All that the epochs so far have left behind and the next ones build on.

    Not in it: the order and the augmentation, which derive from (seed, epoch, purpose).
    """
    content = {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "best": plateau.best_weights,
        "counts": [plateau.state(), log.state()],
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def restore(saved: bytes, model: nn.Module, optimiser: Optimizer, plateau: Plateau, log: TrainingLog) -> int:
    """Put a `snapshot` back where it came from; returns the epochs that are done."""
    content = torch.load(io.BytesIO(saved), map_location=next(model.parameters()).device, weights_only=True)
    model.load_state_dict(content["model"])
    optimiser.load_state_dict(content["optimiser"])
    of_plateau, of_log = content["counts"]
    plateau.resume(of_plateau, content["best"])
    return log.resume(of_log)


def adam(model: nn.Module, section: ResNet18) -> Optimizer:
    """Adam (section 2.5) for the layers that are not frozen; fused: one pass over its arrays instead of many."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    return torch.optim.Adam(trained, lr=section.learning_rate, weight_decay=section.weight_decay, fused=True)


def train_epoch(
    head: nn.Module,
    optimiser: Optimizer,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    log: TrainingLog,
) -> dict[str, float]:
    """One pass over the batches; returns its mean loss (nats) and accuracy, measured while it trains.

    Args:
        head: The network in training mode, without the leading layers that are frozen.
        optimiser: For its weights.
        batches: Inputs of the head, and labels.
        log: Told of the progress.
    """
    totals = Totals(next(head.parameters()).device)
    for step, (inputs, labels) in enumerate(batches, start=1):
        logits = head(inputs)
        loss = functional.cross_entropy(logits, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        totals.add(loss.detach(), logits, labels)
        if step % PROGRESS_STEPS == 0:
            log.step(step, **totals.means())
    return totals.means()


@torch.no_grad()
def validate(head: nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, float]:
    """Mean loss (nats) and accuracy over the batches, of the network in evaluation mode; else as `train_epoch`."""
    totals = Totals(next(head.parameters()).device)
    for inputs, labels in batches:
        logits = head(inputs)
        totals.add(functional.cross_entropy(logits, labels), logits, labels)
    return totals.means()


class Totals:
    """Sums over batches, kept on the device until someone asks."""

    def __init__(self, device: torch.device) -> None:
        self.images = 0
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)

    def add(self, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """A batch's mean loss, logits (B, 10) and labels (B,)."""
        self.images += len(labels)
        self.loss += loss.double() * len(labels)
        self.correct += (logits.argmax(1) == labels).sum()

    def means(self) -> dict[str, float]:
        """Mean loss (nats) and accuracy so far."""
        return {"loss": self.loss.item() / self.images, "accuracy": self.correct.item() / self.images}


if __name__ == "__main__":
    run_stage("train_resnet18", main)
