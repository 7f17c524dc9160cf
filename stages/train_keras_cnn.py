"""Train the paper's Keras CNN (sections 2.1 to 2.5).

Data: 40,000 training images and 10,000 for validation, by the split; pixels in [0, 1], no augmentation (notebook).
Network: three blocks of convolution, batch norm, max pooling and dropout, then a dense layer: 358,218 weights.
Training: Adam on categorical cross-entropy, batches of 64, at most 50 epochs. The learning rate halves after 5 epochs
without a lower validation loss; after 10 the training stops. The weights of the lowest validation loss are kept.

It takes about 17 minutes on two cores. Its scores are in metrics/keras_cnn.json, and next to the paper's in
metrics/comparison.md.

Writes the model, its history, the run's record and its run time. After an interruption, the same command resumes from
the last finished epoch, and the results are the same to the bit.
"""

import importlib
import io
import json
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from stages.common import paths
from stages.common.config import Section, Seed, load
from stages.common.errors import BadParameter
from stages.common.files import write_json
from stages.common.process import run_stage
from stages.keras_cnn import architecture
from stages.keras_cnn import backend as keras_backend
from stages.keras_cnn.backend import Backend, Device
from stages.keras_cnn.model_file import MODEL_FILE, save
from stages.training.augmentation import Augmentation, Choices, augment, draw
from stages.training.checkpoint import Checkpoint
from stages.training.images import Images, Split, load_images, load_source, load_split
from stages.training.log import TrainingLog
from stages.training.machine import machine
from stages.training.plateau import Plateau
from stages.training.randomness import derived_seed, generator

HISTORY_FILE = paths.history("keras_cnn")
RUN_FILE = paths.run("keras_cnn")
RUNTIME_FILE = paths.runtime("keras_cnn")

Profile = Literal["rising", "uniform"]
HIGHEST_RISING = 0.5  # section 2.2: "0.3 for early layers and up to 0.5 in deeper layers"


class KerasCnn(Section):
    """The section `keras_cnn`."""

    backend: Backend
    device: Device
    epochs: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    filters: list[Annotated[int, Field(ge=1)]] = Field(min_length=1, max_length=5)  # one a block
    convolutions_per_block: int = Field(ge=1, le=3)
    kernel_size: int = Field(ge=1, le=32)
    dense_units: int = Field(ge=1)
    dropout_profile: Profile
    augmentation: Augmentation
    early_stopping_patience: int | None = Field(ge=1)
    reduce_lr_patience: int | None = Field(ge=1)
    reduce_lr_factor: float = Field(gt=0, lt=1)
    min_learning_rate: float = Field(ge=0)


class Parameters(Section):
    """What this stage reads of params.yaml."""

    seed: Seed
    dropout: float = Field(ge=0, lt=1)
    batch_size: int = Field(ge=1)
    keras_cnn: KerasCnn

    @model_validator(mode="after")
    def _rising_starts_low_enough(self) -> "Parameters":
        if self.keras_cnn.dropout_profile == "rising" and self.dropout > HIGHEST_RISING:
            raise ValueError(
                f"dropout is {self.dropout}: with keras_cnn.dropout_profile=rising it is at most {HIGHEST_RISING}"
            )
        return self


def main() -> None:
    """Train, and write the model and its records."""
    parameters = load(Parameters)
    images, source = load_images("train"), load_source()
    split = load_split(len(images.labels))
    keras = keras_backend.start(parameters.keras_cnn.backend, parameters.keras_cnn.device)

    keras.utils.set_random_seed(derived_seed(parameters.seed, 0, "weights"))
    rates = dropout_rates(parameters.dropout, parameters.keras_cnn.dropout_profile, len(parameters.keras_cnn.filters))
    model = untrained_model(parameters.keras_cnn, rates)
    training_model = compiled(keras, model, parameters.keras_cnn)
    steps = -(-len(split.train) // parameters.batch_size)
    log = TrainingLog(HISTORY_FILE, parameters.keras_cnn.epochs, steps, source)
    framework, device = parameters.keras_cnn.backend, parameters.keras_cnn.device
    computer = machine(device, keras_backend.threads(framework), ("keras", framework, "numpy"))
    facts = {"parameters": parameters.model_dump(), "source": source, "machine": computer}
    inputs = [*images, split.train, split.validation, *model.get_weights()]
    with Checkpoint("train_keras_cnn", facts, inputs) as checkpoint:
        best_epoch = train(keras, training_model, images, split, parameters, log, checkpoint)
        save(model, MODEL_FILE)
        record = {
            "model": "keras_cnn",
            "source": source,
            "data": {"train_images": len(split.train), "validation_images": len(split.validation)},
            "split": {"validation_fraction": split.validation_fraction, "random_state": split.random_state},
            "parameters": parameters.model_dump(),
            "dropout_rates": rates,
            "weights": model.count_params(),
            "trainable_weights": sum(int(np.prod(weight.shape)) for weight in model.trainable_weights),
        }
        write_json(RUN_FILE, record | log.results(best_epoch))
        write_json(RUNTIME_FILE, log.runtime(computer))
        checkpoint.clear()


def dropout_rates(dropout: float, profile: Profile, blocks: int) -> list[float]:
    """One rate for each convolution block and one for the dense layer, which takes the last block's.

    Args:
        dropout: The rate of the first block.
        profile: "rising" adds 0.1 from block to block, up to 0.5 (the notebook: 0.3 gives 0.3, 0.4, 0.5 and 0.5);
            "uniform" is the same rate everywhere.
        blocks: How many convolution blocks there are.
    """
    rise = 0.1 if profile == "rising" else 0.0
    rates = [round(min(dropout + rise * block, max(dropout, HIGHEST_RISING)), 10) for block in range(blocks)]
    return [*rates, rates[-1]]


def untrained_model(section: KerasCnn, rates: list[float]) -> Any:
    """The network, of Keras's own layers.

    Raises:
        BadParameter: It does not fit into memory.
    """
    try:
        return architecture.build(
            section.filters, section.kernel_size, section.dense_units, rates, section.convolutions_per_block
        )
    except MemoryError:
        raise BadParameter("the network does not fit into memory; lower keras_cnn.filters or dense_units") from None


def compiled(keras: Any, model: Any, section: KerasCnn) -> Any:
    """The network as it trains, with its optimiser, loss and metric (section 2.5).

    It shares the layers of `model`, which stays without them, and so is saved without them.
    """
    settings: dict[str, Any] = {"loss": "categorical_crossentropy", "metrics": ["accuracy"]}
    if keras.backend.backend() == "tensorflow" and section.device == "cpu":  # what was measured
        from stages.keras_cnn.fused import STEPS_AT_ONCE, fused

        model = fused(model)
        settings["steps_per_execution"] = STEPS_AT_ONCE
    else:
        model = keras.Sequential([keras.Input(model.input_shape[1:]), *model.layers], name=model.name)
    model.compile(keras.optimizers.Adam(section.learning_rate), **settings)
    return model


def train(
    keras: Any,
    model: Any,
    images: Images,
    split: Split,
    parameters: Parameters,
    log: TrainingLog,
    checkpoint: Checkpoint | None = None,
) -> int:
    """Train epoch by epoch; the model ends with the weights that are kept.

    Args:
        keras: The module, on its backend.
        model: The network from `compiled`, trained in place.
        images: The training set, which `split` divides.
        split: Which images train and which validate; where none validate, nothing stops or slows the training.
        parameters: Those of the stage.
        log: Takes each epoch's row.
        checkpoint: Of an interrupted training, and of this one after each epoch; None for none.

    Returns:
        The epoch, counted from 1, whose weights are kept: the one of the lowest validation loss, or the last where
        early stopping is off.
    """
    seed, section = parameters.seed, parameters.keras_cnn
    plateau = Plateau(section)
    done = 0
    if checkpoint and (saved := checkpoint.load()):
        done = restore(saved, model, plateau, log)
    for epoch in range(done + 1, section.epochs + 1):
        if plateau.stops_before(epoch):
            break
        order = generator(seed, epoch, "order").permutation(split.train)
        choices = draw(section.augmentation, len(order), generator(seed, epoch, "augmentation"))
        reseed_dropout(model, seed, epoch)
        learning_rate = float(model.optimizer.learning_rate)
        log.start_epoch()
        fitted = train_epoch(
            keras,
            model,
            images,
            order,
            parameters.batch_size,
            choices if section.augmentation != "none" else None,
            derived_seed(seed, epoch, "dropout"),
            log,
        )
        validation = validate(keras, model, images, split.validation, parameters.batch_size)
        log.end_epoch(fitted, validation, learning_rate)
        loss = validation["loss"] if validation else None
        if plateau.is_best(epoch, loss):
            plateau.best_weights = model.get_weights()
        model.optimizer.learning_rate = plateau.next_rate(learning_rate, loss)
        if checkpoint:
            checkpoint.save(snapshot(model, plateau, log))

    if plateau.best_weights is not None:
        model.set_weights(plateau.best_weights)
    return plateau.best_epoch


def train_epoch(
    keras: Any,
    model: Any,
    images: Images,
    order: np.ndarray,
    batch_size: int,
    choices: Choices | None,
    dropout_seed: int,
    log: TrainingLog,
) -> dict[str, float]:
    """One pass over the images in the given order; returns its mean loss (nats) and accuracy, as Keras sums them up.

    Args:
        keras: The module, on its backend.
        model: The network from `compiled`.
        images: Where to take them from.
        order: Rows of `images`, int64.
        batch_size: The last batch may be smaller.
        choices: The augmentation of each row of `order`, or None for no augmentation.
        dropout_seed: Seeds PyTorch's generator, where Keras on PyTorch draws its dropout from; not that of the layers.
        log: Told of the progress.
    """
    callbacks = [
        keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda step, logs: log.step(step + 1, logs["loss"], logs["accuracy"])
        )
    ]
    if keras.backend.backend() == "torch":
        torch = importlib.import_module("torch")  # only now: `fit` itself draws from it too, the first time more often
        callbacks.append(
            keras.callbacks.LambdaCallback(
                on_train_batch_begin=lambda step, logs: None if step else torch.manual_seed(dropout_seed)
            )
        )
    steps = -(-len(order) // batch_size)
    data = feed(keras, lambda size: batches(images, order, size, choices), batch_size, steps)
    fitted = model.fit(data, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=callbacks)
    return {name: values[0] for name, values in fitted.history.items()}


def snapshot(model: Any, plateau: Plateau, log: TrainingLog) -> bytes:
    """All that the epochs so far have left behind and the next ones build on.

    The weights, the optimiser's variables (its step, learning rate and moments), the best weights, and what the plateau
    rule and the log have counted. Not in it: order, augmentation and dropout, which derive from (seed, epoch, purpose).
    """
    groups = {
        "weight": model.get_weights(),
        "optimiser": [np.asarray(variable) for variable in model.optimizer.variables],
        "best": plateau.best_weights or [],
    }
    arrays = {f"{group} {number}": array for group, values in groups.items() for number, array in enumerate(values)}
    buffer = io.BytesIO()
    np.savez(buffer, counts=np.array(json.dumps([plateau.state(), log.state()])), **arrays)
    return buffer.getvalue()


def restore(saved: bytes, model: Any, plateau: Plateau, log: TrainingLog) -> int:
    """Put a `snapshot` back into the compiled model, the plateau rule and the log; returns the epochs that are done."""
    with np.load(io.BytesIO(saved), allow_pickle=False) as arrays:

        def group(name: str) -> list[np.ndarray]:
            return [arrays[f"{name} {number}"] for number in range(sum(key.startswith(name) for key in arrays))]

        model.set_weights(group("weight"))
        model.optimizer.build(model.trainable_variables)
        for variable, value in zip(model.optimizer.variables, group("optimiser"), strict=True):
            variable.assign(value)
        of_plateau, of_log = json.loads(arrays["counts"].item())
        plateau.resume(of_plateau, group("best") or None)
    return log.resume(of_log)


def reseed_dropout(model: Any, seed: int, epoch: int) -> None:
    """Seed each dropout layer's generator for this epoch, whatever it drew before."""
    layers = [part for layer in model.layers for part in getattr(layer, "parts", [layer])]
    for number, layer in enumerate(layers):
        if hasattr(layer, "seed_generator"):
            layer.seed_generator.state.assign([derived_seed(seed, epoch, f"dropout {number}"), 0])


def batches(
    images: Images, order: np.ndarray, batch_size: int, choices: Choices | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images, uint8 (B, 32, 32, 3), and their labels, uint8 (B,), in the given order.

    Args:
        images: Where to take them from.
        order: Rows of `images`, int64.
        batch_size: B; the last batch may be smaller.
        choices: One for each row of `order`, or None for no augmentation.
    """
    for start in range(0, len(order), batch_size):
        rows = slice(start, start + batch_size)
        pixels, labels = images.pixels[order[rows]], images.labels[order[rows]]
        yield pixels if choices is None else augment(pixels, choices[rows]), labels


def feed(
    keras: Any, batches: Callable[[int], Iterator[tuple[np.ndarray, np.ndarray]]], batch_size: int, steps: int
) -> Any:
    """The network's inputs, float32, and one-hot labels, as `fit` and `evaluate` of this backend take them fastest."""
    if keras.backend.backend() == "tensorflow":
        from stages.keras_cnn.fused import dataset

        return dataset(batches, batch_size, steps)
    one_hot = np.eye(10, dtype=np.float32)
    return ((architecture.to_input(pixels), one_hot[labels]) for pixels, labels in batches(batch_size))


def validate(keras: Any, model: Any, images: Images, rows: np.ndarray, batch_size: int) -> dict[str, float] | None:
    """Loss and accuracy on the validation images, never augmented; None where there are none."""
    if not len(rows):
        return None
    steps = -(-len(rows) // batch_size)
    data = feed(keras, lambda size: batches(images, rows, size), batch_size, steps)
    return dict(model.evaluate(data, steps=steps, verbose=0, return_dict=True))


if __name__ == "__main__":
    run_stage("train_keras_cnn", main)
