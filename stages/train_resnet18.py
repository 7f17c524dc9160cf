"""Train ResNet-18 in PyTorch (sections 2.1 to 2.5; the defaults are what the notebook ran).

All 50,000 images train, from random weights and with every layer free; Adam without weight decay; flips and padded
crops; 20 epochs, of which the last one's weights are kept. The test set validates, augmented too, as in the notebook:
nothing is chosen by it. What the paper's text describes instead (ImageNet weights, frozen layers, weight decay, early
stopping, a held-out part that validates) is reachable by parameters. Leaves the model, its history, the record of
what was run, and its run time. Killed at any moment, it goes on from its last finished epoch, to the same bits.
"""

import hashlib
import http.client
import io
import pickle
import urllib.error
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau as Scheduler
from torchvision.models import ResNet18_Weights

from stages import torch_device
from stages.architectures import resnet18
from stages.augmentation import Augmentation, draw
from stages.checkpoint import Checkpoint
from stages.dataset import Images, load_images, load_source, load_split
from stages.errors import BadParameter
from stages.files import check_writable, write_json
from stages.live_taps import leave_out_padding
from stages.parameters import Section, Seed, load
from stages.randomness import derived_seed, generator
from stages.running import run_stage
from stages.torch_batches import Batches
from stages.training_log import TrainingLog, machine

MODEL_FILE = Path("models/resnet18.pt")
HISTORY_FILE = Path("metrics/history/resnet18.csv")
RUN_FILE = Path("metrics/runs/resnet18.json")
RUNTIME_FILE = Path("metrics/runtime/resnet18.json")

VALIDATION_BATCH = 500  # images; nothing is learned from them, so it changes no result
PROGRESS_STEPS = 25  # how often the loss is asked for: on a GPU each time waits for all that was asked before


class ResNet18(Section):
    """The section `resnet18`."""

    device: torch_device.Device = Field(description="cpu or cuda")
    epochs: int = Field(ge=1, description="a whole number from 1")
    batch_size: int = Field(ge=2, description="a whole number from 2 (its batch norms need two images)")
    learning_rate: float = Field(gt=0, description="a number above 0")
    weight_decay: float = Field(ge=0, description="a number from 0")
    weights: Literal["none", "imagenet", "file"] = Field(description="none, imagenet or file (with weights_file)")
    weights_file: str = Field(min_length=1, description="the path of a state dict of torchvision's resnet18")
    frozen: list[Literal["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"]] = Field(
        description=f"a list of layers out of {', '.join(resnet18.LAYERS)}, not all of them"
    )
    augmentation: Augmentation = Field(description="none, flip or flip_crop")
    validation: Literal["test", "held_out"] = Field(description="test or held_out (the split's part)")
    validation_augmentation: Augmentation = Field(description="none, flip or flip_crop")
    mean: list[float] = Field(min_length=3, max_length=3, description="three numbers, one for each channel")
    std: list[float] = Field(min_length=3, max_length=3, description="three numbers above 0, one for each channel")
    early_stopping_patience: int | None = Field(ge=1, description="a whole number from 1, or null (off)")
    reduce_lr_patience: int | None = Field(ge=1, description="a whole number from 1, or null (off)")
    reduce_lr_factor: float = Field(gt=0, lt=1, description="a number above 0 and below 1")
    min_learning_rate: float = Field(ge=0, description="a number from 0")

    @model_validator(mode="after")
    def _lists_make_sense(self) -> "ResNet18":
        if set(self.frozen) == set(resnet18.LAYERS):
            raise ValueError("resnet18.frozen names every layer; allowed: a list that leaves one to train")
        if min(self.std) <= 0:
            raise ValueError(f"resnet18.std is {self.std}; allowed: three numbers above 0")
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
    check_writable(MODEL_FILE)

    device = torch_device.start(section.device)
    torch.manual_seed(derived_seed(parameters.seed, 0, "weights"))
    model = starting_model(section)
    weights = {name: weight.numel() for name, weight in model.named_parameters()}
    trainable = [name for name, weight in model.named_parameters() if weight.requires_grad]
    model = faster(model, section).to(device)
    if section.validation == "test" and (section.early_stopping_patience or section.reduce_lr_patience):
        print("resnet18.validation is test: the test set now steers the training; held_out keeps it out", flush=True)
    log = TrainingLog(HISTORY_FILE, section.epochs, -(-len(train_rows) // section.batch_size), source)
    computer = machine(section.device, torch.get_num_threads(), ("torch", "torchvision", "numpy"))
    facts = {"parameters": parameters.model_dump(), "source": source, "machine": computer}
    weights_at_start = (value.numpy(force=True) for value in model.state_dict().values())
    arrays = chain(training, validating, [train_rows, validation_rows], weights_at_start)
    with Checkpoint("train_resnet18", facts, arrays) as state:
        best_epoch = train(model, (training, train_rows), (validating, validation_rows), parameters, log, state)
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
        state.clear()


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


def save(model: nn.Module, path: Path) -> None:
    """Write the state dict, by way of memory: straight to disk, torch.save hides the system's word on a full one."""
    buffer = io.BytesIO()
    torch.save({name: value.cpu() for name, value in model.state_dict().items()}, buffer)
    path.write_bytes(buffer.getbuffer())


def starting_model(section: ResNet18) -> nn.Module:
    """The network as it starts: random or pre-trained weights, its frozen layers frozen, the classifier always new.

    Raises:
        BadParameter: The weights cannot be had or do not fit.
    """
    model = resnet18.build()
    if section.weights != "none":
        pretrained = pretrained_weights(section)
        features = {name: value for name, value in pretrained.items() if not name.startswith("fc.")}
        try:
            missing, unexpected = model.load_state_dict(features, strict=False)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise BadParameter(f"resnet18.weights_file: {section.weights_file} does not fit: {reason}") from None
        if odd := unexpected + [name for name in missing if not name.startswith("fc.")]:
            raise BadParameter(
                f"resnet18.weights_file: {section.weights_file} is no state dict of torchvision's resnet18 "
                f"(see {odd[0]!r}); name another file"
            )
    for name in section.frozen:
        getattr(model, name).requires_grad_(False)
    return model


def pretrained_weights(section: ResNet18) -> dict[str, torch.Tensor]:
    """The state dict that `resnet18.weights` names, read without running anything in it.

    Raises:
        BadParameter: It cannot be downloaded, or the file is missing or is no state dict.
    """
    path = imagenet_file() if section.weights == "imagenet" else Path(section.weights_file)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BadParameter(f"resnet18.weights_file: {path} does not exist; give the path of a state dict") from None
    except pickle.UnpicklingError:  # whose own words advise to run what is in the file
        raise BadParameter(f"resnet18.weights_file: {path} is damaged, or holds more than tensors") from None
    except Exception as error:  # torch.load raises whatever its zip reader or parser meets
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadParameter(f"resnet18.weights_file: {path} is no state dict that can be read ({reason})") from None
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    ):
        raise BadParameter(f"resnet18.weights_file: {path} holds no state dict; save one with model.state_dict()")
    return content


def imagenet_file() -> Path:
    """torchvision's ResNet-18 of ImageNet in PyTorch's own cache, downloaded if need be and checked each time.

    Raises:
        BadParameter: It cannot be downloaded, or is not that file.
    """
    url = ResNet18_Weights.IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path))
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            raise BadParameter(
                f"torchvision's ImageNet weights cannot be downloaded ({error}); give a copy with "
                "-S resnet18.weights=file -S resnet18.weights_file=PATH"
            ) from None
    # Its name ends with the first digits of its SHA-256: resnet18-f37072fd.pth
    if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(path.stem.rpartition("-")[2]):
        raise BadParameter(f"{path} is damaged: it is not torchvision's file; remove it, and it is downloaded anew")
    return path


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
        checkpoint: Where the state of an interrupted training stands, and each epoch's is kept; None for nowhere.

    Returns:
        The epoch, counted from 1, whose weights are kept: the last, or with early stopping the one of the lowest
        validation loss.
    """
    seed, section = parameters.seed, parameters.resnet18
    optimiser = adam(model, section)
    scheduler = plateau_scheduler(optimiser, section)
    best = Best()
    features, head = resnet18.divide(model, section.frozen) if section.frozen else (nn.Sequential(), model)
    mean, std, device = section.mean, section.std, next(model.parameters()).device
    batches = Batches(*training, section.augmentation, mean, std, features, device)
    validation_batches = Batches(*validating, section.validation_augmentation, mean, std, features, device)

    done = 0
    if checkpoint and (state := checkpoint.load()):
        done = log.resume(restore(state, model, optimiser, scheduler, best))
    for epoch in range(done + 1, section.epochs + 1):
        if epoch - 1 - best.epoch >= (section.early_stopping_patience or section.epochs):
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
        if scheduler is not None:
            scheduler.step(validation["loss"])
        if section.early_stopping_patience is None:
            best.epoch = epoch
        elif validation["loss"] < best.loss:
            best.loss, best.epoch = validation["loss"], epoch
            best.weights = {name: value.clone() for name, value in model.state_dict().items()}
        if checkpoint:
            checkpoint.save(snapshot(model, optimiser, scheduler, best, log))

    if best.weights is not None:
        model.load_state_dict(best.weights)
    return best.epoch


@dataclass
class Best:
    """The epoch whose weights are kept, counted from 1; with early stopping, its validation loss and weights too."""

    epoch: int = 0
    loss: float = float("inf")
    weights: dict[str, torch.Tensor] | None = None


def snapshot(
    model: nn.Module, optimiser: Optimizer, scheduler: Scheduler | None, best: Best, log: TrainingLog
) -> bytes:
    """All that the epochs so far have left behind and the next ones build on.

    Not in it: the order and the augmentation, which derive from (seed, epoch, purpose).
    """
    state = {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "scheduler": scheduler.state_dict() if scheduler else None,
        "best": vars(best),
        "log": log.state(),
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def restore(
    state: bytes, model: nn.Module, optimiser: Optimizer, scheduler: Scheduler | None, best: Best
) -> dict[str, Any]:
    """Put a `snapshot` back where it came from; returns what is the log's."""
    content = torch.load(io.BytesIO(state), map_location=next(model.parameters()).device, weights_only=True)
    model.load_state_dict(content["model"])
    optimiser.load_state_dict(content["optimiser"])
    if scheduler:
        scheduler.load_state_dict(content["scheduler"])
    vars(best).update(content["best"])
    log: dict[str, Any] = content["log"]
    return log


def adam(model: nn.Module, section: ResNet18) -> Optimizer:
    """Adam (section 2.5) for the layers that are not frozen; fused: one pass over its arrays instead of many."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    return torch.optim.Adam(trained, lr=section.learning_rate, weight_decay=section.weight_decay, fused=True)


def plateau_scheduler(optimiser: Optimizer, section: ResNet18) -> Scheduler | None:
    """PyTorch's learning-rate reduction, set to reduce when Keras's does; None where it is off."""
    if section.reduce_lr_patience is None:
        return None
    return Scheduler(
        optimiser,
        factor=section.reduce_lr_factor,
        patience=section.reduce_lr_patience - 1,  # PyTorch waits for one epoch more than it is told, Keras does not
        threshold=1e-4,  # Keras's min_delta
        threshold_mode="abs",
        min_lr=section.min_learning_rate,
    )


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
