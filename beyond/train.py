"""Train a small, fast convolutional network on CIFAR-10: what the paper only wished for.

Data: the pipeline's own images; the split's held-out part validates, or all 50,000 train (`validation: none`). The test
set is not read here. Network, optimisers, schedule, augmentation and averaging: beyond/recipe, each with its source.
The steps of an epoch are its whole batches.

Writes the model, its history, the run's record and its run time. After an interruption, the same command resumes from
the last finished epoch, and the results are the same to the bit.
"""

import hashlib
import io
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch.optim import Optimizer

from beyond.recipe import device, paths, schedule
from beyond.recipe.augmentation import draw, move
from beyond.recipe.averaging import Average
from beyond.recipe.cost import PETA, steps_per_epoch, training_flop
from beyond.recipe.network import Network
from beyond.recipe.predicting import predict, save
from beyond.recipe.settings import BadSetting, Settings, load
from beyond.recipe.step import optimisers, set_rates, train_step
from beyond.recipe.whitening import IMAGES, whitening_filters
from stages.common.errors import BadParameter
from stages.common.files import write_json
from stages.common.process import run_stage
from stages.training.checkpoint import Checkpoint
from stages.training.images import Images, load_images, load_source, load_split
from stages.training.log import TrainingLog
from stages.training.machine import machine
from stages.training.randomness import derived_seed, generator

PROGRESS_STEPS = 5  # how often the loss is asked for


def main() -> None:
    """Train, and write the model and its records."""
    settings, images, source = load(), load_images("train"), load_source()
    split = load_split(len(images.labels))
    rows, held_out = np.arange(len(images.labels)), np.empty(0, dtype=np.int64)
    if settings.validation == "held_out":
        rows, held_out = split.train, split.validation
    check_batches(len(rows), len(held_out), settings)

    place = device.start(settings.device)
    model = starting_model(images.pixels[rows], settings)
    weights_at_start = [value.numpy() for value in model.state_dict().values()]
    log = TrainingLog(paths.HISTORY, settings.epochs, steps_per_epoch(len(rows), settings), source)
    computer = machine(settings.device, torch.get_num_threads(), ("torch", "numpy"))
    facts = {"parameters": trained_with(settings), "source": source, "machine": computer, "code": code()}
    with Checkpoint("beyond", facts, chain(images, [rows, held_out], weights_at_start)) as checkpoint:
        kept = train(model.to(place), images, rows, held_out, settings, log, checkpoint)
        save(kept, paths.MODEL)
        record = {
            "source": source,
            "data": {"train_images": len(rows), "validation_images": len(held_out)},
            "split": {"validation_fraction": split.validation_fraction, "random_state": split.random_state},
            "parameters": trained_with(settings),
            "weights": sum(weight.numel() for weight in model.parameters()),
            "training_pflop": float(f"{training_flop(len(rows), settings) / PETA:.6g}"),
        }
        write_json(paths.RUN, record | log.results(settings.epochs))
        write_json(paths.RUNTIME, log.runtime(computer))
        checkpoint.clear()


def trained_with(settings: Settings) -> dict[str, object]:
    """The parameters that this stage depends on."""
    return settings.model_dump(exclude={"evaluate"})


def check_batches(train_images: int, validation_images: int, settings: Settings) -> None:
    """Raise a BadSetting where the numbers of images cannot be trained or validated on."""
    if train_images < settings.batch_size:
        raise BadSetting(f"batch_size is {settings.batch_size}, and {train_images} images train; allowed: no more")
    if settings.validation == "held_out" and not validation_images:
        raise BadSetting("validation is held_out, but split.validation_fraction is 0: raise it, or use none")


def code() -> dict[str, str]:
    """The SHA-256 sum of each of this stage's modules, for the checkpoint's name: it knows those of stages/ itself."""
    folder = Path(__file__).parent
    files = [Path(__file__), *sorted((folder / "recipe").glob("*.py"))]
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def starting_model(pixels: np.ndarray, settings: Settings) -> Network:
    """The network as it starts: random weights, and whitening filters of the first of the images that train.

    Args:
        pixels: uint8 (N, 32, 32, 3), those that train.
        settings: The parameters.
    """
    torch.manual_seed(derived_seed(settings.seed, 0, "weights"))
    model = Network(settings.network)
    channels = pixels.reshape(-1, 3)
    scaled = [channels.mean(axis=0, dtype=np.float64) / 255, channels.std(axis=0, dtype=np.float64) / 255]
    model.mean, model.std = (torch.tensor(values, dtype=torch.float32) for values in scaled)
    if settings.network.whitening:
        model.start_whitening(whitening_filters(model.to_input(torch.from_numpy(pixels[:IMAGES]))))
    return model.to(memory_format=torch.channels_last)  # twice as fast on a processor


def train(
    model: Network,
    images: Images,
    rows: np.ndarray,
    held_out: np.ndarray,
    settings: Settings,
    log: TrainingLog,
    checkpoint: Checkpoint | None = None,
) -> Network:
    """Train epoch by epoch.

    Args:
        model: The network, on its device.
        images: Those of the training set.
        rows: Which of them train.
        held_out: Which of them validate; perhaps none.
        settings: The parameters.
        log: Takes each epoch's row.
        checkpoint: Of an interrupted training, and of this one after each epoch; None for none.

    Returns:
        The network that is kept: the last, or the average of it.
    """
    place = model.mean.device
    pixels, labels = torch.from_numpy(images.pixels).to(place), torch.from_numpy(images.labels).long().to(place)
    update, average = optimisers(model, settings), Average(model, settings.averaging)
    done = 0
    if checkpoint and (saved := checkpoint.load()):
        done = restore(saved, model, update, average, log)
    for epoch in range(done + 1, settings.epochs + 1):
        log.start_epoch()
        data = batches(pixels, labels, rows, settings, epoch)
        fitted = train_epoch(model, update, average, data, epoch, settings, log)
        if epoch == settings.epochs:
            average.finish()
        validation = score(average.scored, pixels, labels, held_out) if len(held_out) else None
        part = schedule.rate((epoch - 1) / settings.epochs, settings.schedule)
        log.end_epoch(fitted, validation, settings.optimiser.filters_rate * part)
        if checkpoint:
            checkpoint.save(snapshot(model, update, average, log))
    return average.scored


def batches(
    pixels: torch.Tensor, labels: torch.Tensor, rows: np.ndarray, settings: Settings, epoch: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The epoch's whole batches, in random order: augmented uint8 pixels (B, 32, 32, 3), and labels (B,)."""
    moves = draw(settings.augmentation, len(rows), settings.seed, epoch)
    order = generator(settings.seed, epoch, "order").permutation(len(rows))
    size = settings.batch_size
    for start in range(0, len(order) - size + 1, size):
        part = order[start : start + size]
        chosen = torch.from_numpy(rows[part]).to(pixels.device)
        made = (torch.from_numpy(move[part]).to(pixels.device) for move in moves)
        yield move(pixels[chosen], *made), labels[chosen]


def train_epoch(
    model: Network,
    update: list[Optimizer],
    average: Average[Network],
    data: Iterator[tuple[torch.Tensor, torch.Tensor]],
    epoch: int,
    settings: Settings,
    log: TrainingLog,
) -> dict[str, float]:
    """One pass over the batches; returns its mean loss (nats, of smoothed labels) and accuracy while it trained."""
    model.train()
    of_bias = settings.network.whitening_bias_epochs
    if settings.network.whitening:
        model.whiten.bias.requires_grad_(epoch <= of_bias)  # type: ignore[union-attr]
    steps, loss_sum, correct, seen = log.steps_per_epoch, 0.0, 0, 0
    for step, (pixels, labels) in enumerate(data, start=1):
        done = epoch - 1 + (step - 1) / steps  # epochs
        part = schedule.rate(done / settings.epochs, settings.schedule)
        whitening = part if not settings.network.whitening else max(0.0, 1 - done / of_bias) if of_bias else 0.0
        set_rates(update, part, whitening)
        loss, logits = train_step(model, update, pixels, labels, settings.label_smoothing)
        average.step((epoch - 1) * steps + step, settings.epochs * steps)
        loss_sum += loss.item()
        correct += int((logits.argmax(1) == labels).sum())
        seen += len(labels)
        if step % PROGRESS_STEPS == 0:
            log.step(step, loss_sum / seen, correct / seen)
    return {"loss": loss_sum / seen, "accuracy": correct / seen}


def score(model: Network, pixels: torch.Tensor, labels: torch.Tensor, rows: np.ndarray) -> dict[str, float]:
    """Mean loss (nats) and accuracy of some images, each predicted as it is."""
    chosen = torch.from_numpy(rows).to(pixels.device)
    logits = predict(model.eval(), pixels[chosen])
    loss = torch.nn.functional.cross_entropy(logits, labels[chosen])
    return {"loss": loss.item(), "accuracy": float((logits.argmax(1) == labels[chosen]).double().mean())}


def snapshot(model: Network, update: list[Optimizer], average: Average[Network], log: TrainingLog) -> bytes:
    """All that the epochs so far have left behind and the next ones build on; the rest follows from the seed."""
    content = {
        "model": model.state_dict(),
        "average": average.average.state_dict() if average.average else None,
        "optimisers": [optimiser.state_dict() for optimiser in update],
        "log": log.state(),
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def restore(saved: bytes, model: Network, update: list[Optimizer], average: Average[Network], log: TrainingLog) -> int:
    """Put a `snapshot` back where it came from; returns the epochs that are done."""
    content = torch.load(io.BytesIO(saved), map_location=model.mean.device, weights_only=True)
    model.load_state_dict(content["model"])
    if average.average is not None:
        average.average.load_state_dict(content["average"])
    for optimiser, state in zip(update, content["optimisers"], strict=True):
        optimiser.load_state_dict(state)
    return log.resume(content["log"])


def stage() -> None:
    """`main`, with this pipeline's way back where the training diverges."""
    try:
        main()
    except BadParameter as error:
        raise BadSetting(str(error.args[0])) from None


if __name__ == "__main__":
    run_stage("beyond.train", stage)
