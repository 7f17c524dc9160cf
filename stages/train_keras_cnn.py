"""Train the paper's Keras CNN (sections 2.1 to 2.5).

From `data/processed` and the split: 40,000 images train and 10,000 validate. Adam and categorical cross-entropy;
early stopping on the validation loss with the best weights restored, and the learning rate halved on a plateau, by
Keras's own callbacks. Leaves the model, its history, the record of what was run, and its run time. Killed at any
moment, it goes on from its last finished epoch, to the same bits.
"""

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from stages import keras_backend
from stages.architectures import keras_cnn
from stages.augmentation import Augmentation, Choices, augment, draw
from stages.checkpoint import Checkpoint
from stages.dataset import Images, Split, load_images, load_source, load_split
from stages.errors import BadParameter
from stages.files import check_writable, write_json
from stages.parameters import Section, Seed, load
from stages.randomness import derived_seed, generator
from stages.running import run_stage
from stages.training_log import TrainingLog, machine

MODEL_FILE = Path("models/keras_cnn.keras")
HISTORY_FILE = Path("metrics/history/keras_cnn.csv")
RUN_FILE = Path("metrics/runs/keras_cnn.json")
RUNTIME_FILE = Path("metrics/runtime/keras_cnn.json")

SHARED_OBJECT = re.compile(rb'("shared_object_id": )(\d+)')

Profile = Literal["rising", "uniform"]
HIGHEST_RISING = 0.5  # section 2.2: "0.3 for early layers and up to 0.5 in deeper layers"


class KerasCnn(Section):
    """The section `keras_cnn`."""

    backend: keras_backend.Backend = Field(description="tensorflow, torch or jax")
    device: keras_backend.Device = Field(description="cpu or cuda")
    epochs: int = Field(ge=1, description="a whole number from 1")
    learning_rate: float = Field(gt=0, description="a number above 0")
    filters: list[int] = Field(min_length=1, max_length=5, description="1 to 5 whole numbers from 1, one a block")
    kernel_size: int = Field(ge=1, le=32, description="a whole number from 1 to 32")
    dense_units: int = Field(ge=1, description="a whole number from 1")
    dropout_profile: Profile = Field(description="rising or uniform")
    augmentation: Augmentation = Field(description="none, flip or flip_crop")
    early_stopping_patience: int | None = Field(ge=1, description="a whole number from 1, or null (off)")
    reduce_lr_patience: int | None = Field(ge=1, description="a whole number from 1, or null (off)")
    reduce_lr_factor: float = Field(gt=0, lt=1, description="a number above 0 and below 1")
    min_learning_rate: float = Field(ge=0, description="a number from 0")

    @model_validator(mode="after")
    def _filters_are_positive(self) -> "KerasCnn":
        if min(self.filters) < 1:
            raise ValueError(f"keras_cnn.filters is {self.filters}; allowed: 1 to 5 whole numbers from 1")
        return self


class Parameters(Section):
    """What this stage reads of params.yaml."""

    seed: Seed
    dropout: float = Field(ge=0, lt=1, description="a number from 0 to below 1")
    batch_size: int = Field(ge=1, description="a whole number from 1")
    keras_cnn: KerasCnn

    @model_validator(mode="after")
    def _rising_starts_low_enough(self) -> "Parameters":
        if self.keras_cnn.dropout_profile == "rising" and self.dropout > HIGHEST_RISING:
            raise ValueError(
                f"dropout is {self.dropout}; allowed with keras_cnn.dropout_profile=rising: 0 to {HIGHEST_RISING}"
            )
        return self


def main() -> None:
    """Train, and write the model and its records."""
    parameters = load(Parameters)
    images, source = load_images("train"), load_source()
    split = load_split(len(images.labels))
    check_writable(MODEL_FILE)
    keras = keras_backend.start(parameters.keras_cnn.backend, parameters.keras_cnn.device)

    keras.utils.set_random_seed(derived_seed(parameters.seed, 0, "weights"))
    rates = dropout_rates(parameters.dropout, parameters.keras_cnn.dropout_profile, len(parameters.keras_cnn.filters))
    model = untrained_model(parameters.keras_cnn, rates)
    training_model = compiled(keras, model, parameters.keras_cnn)
    steps = -(-len(split.train) // parameters.batch_size)
    log = TrainingLog(HISTORY_FILE, parameters.keras_cnn.epochs, steps, source)
    backend, device = parameters.keras_cnn.backend, parameters.keras_cnn.device
    computer = machine(device, keras_backend.threads(backend), ("keras", backend, "numpy"))
    facts = {"parameters": parameters.model_dump(), "source": source, "machine": computer}
    with Checkpoint("train_keras_cnn", facts, [*images, split.train, split.validation, *model.get_weights()]) as state:
        best_epoch = train(keras, training_model, images, split, parameters, log, state)
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
        state.clear()


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
        return keras_cnn.build(section.filters, section.kernel_size, section.dense_units, rates)
    except MemoryError:
        raise BadParameter("the network does not fit into memory; lower keras_cnn.filters or dense_units") from None


def compiled(keras: Any, model: Any, section: KerasCnn) -> Any:
    """The network as it trains, with its optimiser, loss and metric (section 2.5).

    It shares the layers of `model`, which stays without them, and so is saved without them.
    """
    settings: dict[str, Any] = {"loss": "categorical_crossentropy", "metrics": ["accuracy"]}
    if keras.backend.backend() == "tensorflow" and section.device == "cpu":  # what was measured
        from stages import keras_tensorflow

        model = keras_tensorflow.fused(model)
        settings["steps_per_execution"] = keras_tensorflow.STEPS_AT_ONCE
    else:
        model = keras.Sequential([keras.Input(model.input_shape[1:]), *model.layers], name=model.name)
    model.compile(keras.optimizers.Adam(section.learning_rate), **settings)
    return model


def save(model: Any, path: Path) -> None:
    """Write the `.keras` file, the same bytes for the same model.

    Keras writes the time into it, and numbers what layers share by its place in memory; here these count from 1.
    """
    model.save(path)
    canonical = io.BytesIO()
    numbers: dict[bytes, int] = {}
    with zipfile.ZipFile(path) as given, zipfile.ZipFile(canonical, "w") as archive:
        for name in given.namelist():
            content = given.read(name)
            if name == "metadata.json":
                versions = {key: value for key, value in json.loads(content).items() if key != "date_saved"}
                content = json.dumps(versions).encode()
            elif name == "config.json":
                content = SHARED_OBJECT.sub(
                    lambda found: b"%s%d" % (found[1], numbers.setdefault(found[2], len(numbers) + 1)), content
                )
            archive.writestr(zipfile.ZipInfo(name), content)  # as of 1980
    path.write_bytes(canonical.getbuffer())


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
        checkpoint: Where the state of an interrupted training stands, and each epoch's is kept; None for nowhere.

    Returns:
        The epoch, counted from 1, whose weights are kept: the one of the lowest validation loss, or the last where
        early stopping is off.
    """
    seed, section = parameters.seed, parameters.keras_cnn
    callbacks = plateau_callbacks(keras, section) if len(split.validation) else []
    for callback in callbacks:
        callback.set_model(model)
        callback.on_train_begin()
    done = 0
    if checkpoint and (state := checkpoint.load()):
        done = log.resume(restore(state, model, callbacks))
    for epoch in range(done + 1, section.epochs + 1):
        if model.stop_training:
            break
        order = generator(seed, epoch, "order").permutation(split.train)
        choices = draw(section.augmentation, len(order), generator(seed, epoch, "augmentation"))
        reseed_dropout(model, seed, epoch)
        learning_rate = float(model.optimizer.learning_rate)
        log.start_epoch()
        fitted = train_epoch(
            keras, model, images, order, parameters.batch_size, choices if section.augmentation != "none" else None, log
        )
        validation = validate(keras, model, images, split.validation, parameters.batch_size)
        log.end_epoch(fitted, validation, learning_rate)
        for callback in callbacks:
            callback.on_epoch_end(epoch - 1, {"val_loss": (validation or {}).get("loss")})
        if checkpoint:
            checkpoint.save(snapshot(model, callbacks, log))

    kept = len(log.rows)
    for callback in callbacks:
        callback.on_train_end()  # early stopping restores its best weights here
        if isinstance(callback, keras.callbacks.EarlyStopping):
            kept = callback.best_epoch + 1
    return kept


def train_epoch(
    keras: Any,
    model: Any,
    images: Images,
    order: np.ndarray,
    batch_size: int,
    choices: Choices | None,
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
        log: Told of the progress.
    """
    progress = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda step, logs: log.step(step + 1, logs["loss"], logs["accuracy"])
    )
    steps = -(-len(order) // batch_size)
    data = feed(keras, lambda size: batches(images, order, size, choices), batch_size, steps)
    fitted = model.fit(data, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[progress])
    return {name: values[0] for name, values in fitted.history.items()}


def plateau_callbacks(keras: Any, section: KerasCnn) -> list[Any]:
    """Keras's own early stopping and learning-rate reduction, on the validation loss (section 2.5)."""
    callbacks = []
    if section.early_stopping_patience is not None:
        patience = section.early_stopping_patience
        callbacks.append(keras.callbacks.EarlyStopping("val_loss", patience=patience, restore_best_weights=True))
    if section.reduce_lr_patience is not None:
        callbacks.append(
            keras.callbacks.ReduceLROnPlateau(
                "val_loss",
                factor=section.reduce_lr_factor,
                patience=section.reduce_lr_patience,
                min_lr=section.min_learning_rate,
            )
        )
    return callbacks


def snapshot(model: Any, callbacks: list[Any], log: TrainingLog) -> bytes:
    """All that the epochs so far have left behind and the next ones build on.

    The weights, the optimiser's variables (its step, learning rate and moments), the callbacks' counters and best
    weights, and the log. Not in it: the order, augmentation and dropout, which derive from (seed, epoch, purpose).
    Keras's own BackupAndRestore leaves out the callbacks, which start anew with each `fit`.
    """
    arrays = {f"weight {number}": value for number, value in enumerate(model.get_weights())}
    arrays |= {f"optimiser {number}": np.asarray(value) for number, value in enumerate(model.optimizer.variables)}
    counters = []
    for callback in callbacks:
        values = {name: value for name, value in vars(callback).items() if isinstance(value, int | float | None)}
        best_weights = getattr(callback, "best_weights", None) or []
        arrays |= {f"best weight {number}": value for number, value in enumerate(best_weights)}
        counters.append(values)
    rest = {"log": log.state(), "callbacks": counters, "stop_training": model.stop_training}
    buffer = io.BytesIO()
    np.savez(buffer, rest=np.array(json.dumps(rest)), **arrays)
    return buffer.getvalue()


def restore(state: bytes, model: Any, callbacks: list[Any]) -> dict[str, Any]:
    """Put a `snapshot` back into the compiled model and the callbacks; returns what is the log's."""
    with np.load(io.BytesIO(state), allow_pickle=False) as arrays:
        rest = json.loads(arrays["rest"].item())

        def numbered(kind: str) -> list[np.ndarray]:
            return [arrays[f"{kind} {number}"] for number in range(sum(name.startswith(kind) for name in arrays))]

        model.set_weights(numbered("weight"))
        model.optimizer.build(model.trainable_variables)
        for variable, value in zip(model.optimizer.variables, numbered("optimiser"), strict=True):
            variable.assign(value)
        for callback, values in zip(callbacks, rest["callbacks"], strict=True):
            vars(callback).update(values)
            if hasattr(callback, "best_weights"):
                callback.best_weights = numbered("best weight") or None
    model.stop_training = rest["stop_training"]
    log: dict[str, Any] = rest["log"]
    return log


def reseed_dropout(model: Any, seed: int, epoch: int) -> None:
    """Start each dropout layer's generator anew for this epoch, whatever it drew before."""
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
        from stages import keras_tensorflow

        return keras_tensorflow.dataset(batches, batch_size, steps)
    one_hot = np.eye(10, dtype=np.float32)
    return ((keras_cnn.to_input(pixels), one_hot[labels]) for pixels, labels in batches(batch_size))


def validate(keras: Any, model: Any, images: Images, rows: np.ndarray, batch_size: int) -> dict[str, float] | None:
    """Loss and accuracy on the validation images, never augmented; None where there are none."""
    if not len(rows):
        return None
    steps = -(-len(rows) // batch_size)
    data = feed(keras, lambda size: batches(images, rows, size), batch_size, steps)
    return dict(model.evaluate(data, steps=steps, verbose=0, return_dict=True))


if __name__ == "__main__":
    run_stage("train_keras_cnn", main)
