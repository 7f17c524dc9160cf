"""Training the Keras CNN: its callbacks as Keras itself runs them, its random choices, its records."""

import csv
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from stages import keras_backend, preprocess, split, train_keras_cnn
from stages.architectures import keras_cnn
from stages.augmentation import augment, draw
from stages.dataset import Images, Split
from stages.download import main as download
from stages.errors import WAY_BACK
from stages.errors import run_program as ending
from stages.parameters import load
from stages.randomness import derived_seed, generator
from stages.train_keras_cnn import HISTORY_FILE, MODEL_FILE, RUN_FILE, RUNTIME_FILE, Parameters, dropout_rates
from stages.training_log import COLUMNS, TrainingLog
from tests.stage_runs import ROOT, change_parameters, run_stage

# Keras's conversion of a TensorFlow tensor to NumPy; nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """The stage sets variables for Keras and TensorFlow, which are put back."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture(scope="module")
def keras() -> Any:
    with mock.patch.dict(os.environ):
        return keras_backend.start("tensorflow", "cpu")


@pytest.fixture
def images() -> Images:
    rng = np.random.default_rng(0)
    return Images(rng.integers(0, 256, (26, 32, 32, 3), dtype=np.uint8), np.arange(26, dtype=np.uint8) % 10)


@pytest.fixture
def work(workdir: Path) -> Path:
    """A working directory with a stand-in of 50 + 10 images, split 40 and 10, and parameters for a tiny network."""
    download()
    preprocess.main()
    split.main()
    change_parameters(
        {
            "batch_size": 16,  # 16, 16 and 8 images
            "keras_cnn.filters": [3, 4],
            "keras_cnn.dense_units": 6,
            "keras_cnn.epochs": 2,
            "keras_cnn.augmentation": "flip_crop",
        }
    )
    return workdir


def parameters(batch_size: int = 8, seed: int = 7, **section: Any) -> Parameters:
    """The committed parameters with these changes, those of the section `keras_cnn` by name."""
    committed = load(Parameters, ROOT / "params.yaml")
    changed = committed.keras_cnn.model_copy(update=section)
    return committed.model_copy(update={"batch_size": batch_size, "seed": seed, "keras_cnn": changed})


def tiny_model(keras: Any, given: Parameters, rates: tuple[float, ...] = (0.3, 0.5)) -> Any:
    """An untrained network of one block."""
    keras.utils.set_random_seed(3)
    section = given.keras_cnn.model_copy(update={"filters": [3], "dense_units": 6})
    return train_keras_cnn.compiled(keras, train_keras_cnn.untrained_model(section, list(rates)), section)


def parts(train: int, validation: int = 0) -> Split:
    """The first images train, the next ones validate."""
    return Split(np.arange(train), np.arange(train, train + validation), validation / (train + validation), 7)


def new_log(folder: Path, given: Parameters, images: int) -> TrainingLog:
    return TrainingLog(folder / "history.csv", given.keras_cnn.epochs, -(-images // given.batch_size), "cifar10")


def history() -> list[dict[str, str]]:
    with HISTORY_FILE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# Dropout


@pytest.mark.parametrize(
    ("dropout", "profile", "blocks", "rates"),
    [
        (0.3, "rising", 3, [0.3, 0.4, 0.5, 0.5]),  # the notebook
        (0.4, "rising", 3, [0.4, 0.5, 0.5, 0.5]),
        (0.1, "rising", 3, [0.1, 0.2, 0.3, 0.3]),
        (0.5, "rising", 3, [0.5, 0.5, 0.5, 0.5]),
        (0.0, "rising", 3, [0.0, 0.1, 0.2, 0.2]),
        (0.2, "rising", 5, [0.2, 0.3, 0.4, 0.5, 0.5, 0.5]),
        (0.3, "rising", 1, [0.3, 0.3]),
        (0.3, "uniform", 3, [0.3, 0.3, 0.3, 0.3]),
        (0.0, "uniform", 3, [0.0, 0.0, 0.0, 0.0]),
        (0.6, "uniform", 3, [0.6, 0.6, 0.6, 0.6]),
        (0.95, "uniform", 2, [0.95, 0.95, 0.95]),
    ],
)
def test_dropout_rates(dropout: float, profile: Any, blocks: int, rates: list[float]) -> None:
    assert dropout_rates(dropout, profile, blocks) == rates


def parts_of(model: Any) -> list[Any]:
    """Its layers, where four of them are fused these four."""
    return [part for layer in model.layers for part in getattr(layer, "parts", [layer])]


def masks(keras: Any, model: Any) -> list[bytes]:
    """What each dropout layer lets through of a block of ones."""
    ones = np.ones((4, 4, 4, 8), dtype=np.float32)
    layers = [layer for layer in parts_of(model) if isinstance(layer, keras.layers.Dropout)]
    return [np.asarray(layer(ones, training=True)).tobytes() for layer in layers]


def test_dropout_masks_depend_on_seed_and_epoch_and_layer_alone(keras: Any) -> None:
    model = tiny_model(keras, parameters(), rates=(0.5, 0.5))
    train_keras_cnn.reseed_dropout(model, 7, 3)
    first = masks(keras, model)
    assert len({*first, *masks(keras, model)}) == 4  # both layers, and the next draw
    keras.utils.set_random_seed(12345)
    other = tiny_model(keras, parameters(), rates=(0.5, 0.5))
    train_keras_cnn.reseed_dropout(other, 7, 3)
    assert masks(keras, other) == first
    for seed, epoch in ((7, 4), (8, 3)):
        train_keras_cnn.reseed_dropout(model, seed, epoch)
        assert not set(masks(keras, model)) & set(first)


def test_dropout_0_needs_no_generator(keras: Any) -> None:
    model = tiny_model(keras, parameters(), rates=(0.0, 0.0))
    train_keras_cnn.reseed_dropout(model, 7, 1)
    assert len(set(masks(keras, model))) == 1


def test_training_starts_each_epochs_dropout_anew(keras: Any, images: Images, tmp_path: Path) -> None:
    """Whatever was drawn between two epochs, as by another process that goes on from the first: the same history."""

    class Disturbing(TrainingLog):
        def end_epoch(self, *values: Any) -> None:
            super().end_epoch(*values)
            for layer in parts_of(model):
                if hasattr(layer, "seed_generator"):
                    layer.seed_generator.next()
            np.random.random(10)  # noqa: NPY002

    given = parameters(epochs=3, augmentation="flip_crop")
    histories = []
    for log_class in (TrainingLog, Disturbing):
        model = tiny_model(keras, given)
        log = log_class(tmp_path / f"{log_class.__name__}.csv", 3, 3, "cifar10")
        train_keras_cnn.train(keras, model, images, parts(20, 6), given, log)
        histories.append(log.path.read_bytes())
    assert histories[0] == histories[1]
    assert histories[0].count(b"\n") == 4


# What the network sees


def test_batches_are_images_and_labels_in_the_given_order(images: Images) -> None:
    order = np.array([5, 0, 25, 7, 12])
    given = list(train_keras_cnn.batches(images, order, 2))
    assert [len(pixels) for pixels, _ in given] == [2, 2, 1]
    pixels, labels = (np.concatenate(arrays) for arrays in zip(*given, strict=True))
    assert np.array_equal(pixels, images.pixels[order])
    assert labels.tolist() == images.labels[order].tolist()


def test_batches_augment_each_image_by_its_own_choice(images: Images) -> None:
    order = np.array([5, 0, 25, 7, 12])
    choices = draw("flip_crop", 5, generator(7, 1, "augmentation"))
    given = np.concatenate([pixels for pixels, _ in train_keras_cnn.batches(images, order, 2, choices)])
    assert np.array_equal(given, augment(images.pixels[order], choices))


def test_other_backends_get_scaled_inputs_and_one_hot_labels(images: Images) -> None:
    """TensorFlow's are in test_keras_tensorflow.py."""
    order = np.array([5, 0, 25])
    other = mock.Mock(**{"backend.backend.return_value": "torch"})
    ((inputs, labels),) = train_keras_cnn.feed(other, lambda size: train_keras_cnn.batches(images, order, size), 8, 1)
    assert np.array_equal(inputs, images.pixels[order].astype("float32") / 255)
    assert np.array_equal(labels, np.eye(10, dtype=np.float32)[images.labels[order]])


def test_order_and_augmentation_of_each_epoch(
    keras: Any, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only images that train, each once, in an order and with choices of the epoch's own; none that validates."""
    seen: list[tuple[list[int], Any]] = []
    original = train_keras_cnn.batches

    def spy(images: Images, order: np.ndarray, batch_size: int, choices: Any = None) -> Any:
        seen.append((order.tolist(), choices))
        return original(images, order, batch_size, choices)

    monkeypatch.setattr(train_keras_cnn, "batches", spy)
    given = parameters(epochs=2, augmentation="flip_crop")
    model = tiny_model(keras, given)
    train_keras_cnn.train(keras, model, images, parts(20, 6), given, new_log(tmp_path, given, 20))

    assert len(seen) == 4  # two epochs of training and validating
    for epoch, (order, choices) in enumerate(seen[::2], start=1):
        assert order == generator(7, epoch, "order").permutation(np.arange(20)).tolist()
        expected = draw("flip_crop", 20, generator(7, epoch, "augmentation"))
        assert np.array_equal(choices.flip, expected.flip)
        assert np.array_equal(choices.top, expected.top)
        assert np.array_equal(choices.left, expected.left)
    assert seen[0][0] != seen[2][0]
    assert [(order, choices) for order, choices in seen[1::2]] == [(list(range(20, 26)), None)] * 2


def test_nothing_is_augmented_by_default(
    keras: Any, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_keras_cnn, "augment", lambda *_: pytest.fail("augmented"))
    given = parameters(epochs=1)
    assert given.keras_cnn.augmentation == "none"
    model = tiny_model(keras, given)
    train_keras_cnn.train(keras, model, images, parts(20, 6), given, new_log(tmp_path, given, 20))


def test_the_epochs_loss_is_the_mean_over_all_images_also_of_a_smaller_last_batch(
    keras: Any, images: Images, tmp_path: Path
) -> None:
    """With a learning rate too small to change a weight, against the same batches by hand: 8, 8 and 3 images."""
    given = parameters(epochs=1, learning_rate=1e-30)
    model, untrained = (tiny_model(keras, given, rates=(0.0, 0.0)) for _ in range(2))
    log = new_log(tmp_path, given, 19)
    train_keras_cnn.train(keras, model, images, parts(19), given, log)

    losses, right = [], []
    order = generator(7, 1, "order").permutation(19)
    for rows in (order[:8], order[8:16], order[16:]):
        probabilities = np.asarray(untrained(images.pixels[rows].astype("float32") / 255, training=True))
        losses.extend(-np.log(probabilities[np.arange(len(rows)), images.labels[rows]]))
        right.extend(probabilities.argmax(axis=1) == images.labels[rows])
    assert log.rows[0]["train_loss"] == pytest.approx(np.mean(losses), rel=2e-6)
    assert log.rows[0]["train_accuracy"] == pytest.approx(np.mean(right), rel=2e-6)


def test_adam_takes_its_first_step_with_the_learning_rate(keras: Any, images: Images, tmp_path: Path) -> None:
    """Adam's first step moves each weight that has a gradient by the learning rate, less the share of its epsilon."""
    given = parameters(batch_size=20, epochs=1, learning_rate=0.0123)
    model = tiny_model(keras, given)
    before = model.layers[-1].get_weights()[1]
    train_keras_cnn.train(keras, model, images, parts(20), given, new_log(tmp_path, given, 20))
    moved = np.abs(model.layers[-1].get_weights()[1] - before)
    assert moved == pytest.approx(np.full(10, 0.0123), rel=0.01)


# Early stopping and the learning rate


def paper_curve() -> list[float]:
    with (ROOT / "data/paper/figure1_keras_cnn.csv").open(encoding="utf-8", newline="") as file:
        return [float(row["val_loss"]) for row in csv.DictReader(file)]


def driven(
    keras: Any, given: Parameters, losses: list[float], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[float], int, list[np.ndarray], np.ndarray]:
    """The learning rates, the kept epoch, and each epoch's and the final classifier, of train() with these losses."""
    given_losses = iter(losses)
    weights: list[np.ndarray] = []

    def prepared(_: Any, model: Any, *__: Any) -> dict[str, float]:
        weights.append(model.get_weights()[0])
        return {"loss": next(given_losses), "accuracy": 0.5}

    monkeypatch.setattr(train_keras_cnn, "validate", prepared)
    model = classifier(keras, given)
    log = new_log(folder, given, 4)
    pictures = Images(np.full((5, 32, 32, 3), 99, dtype=np.uint8), np.arange(5, dtype=np.uint8))
    kept = train_keras_cnn.train(keras, model, pictures, parts(4, 1), given, log)
    return [row["learning_rate"] for row in log.rows], kept, weights, model.get_weights()[0]


def classifier(keras: Any, given: Parameters) -> Any:
    """The cheapest network there is."""
    keras.utils.set_random_seed(3)
    layers = [keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")]
    model = keras.Sequential(layers)
    adam = keras.optimizers.Adam(given.keras_cnn.learning_rate)
    model.compile(adam, "categorical_crossentropy", metrics=["accuracy"])
    return model


def by_keras_fit(keras: Any, given: Parameters, losses: list[float]) -> tuple[list[float], int | None]:
    """The learning rates and the best epoch of one call of Keras's fit() with the same callbacks and losses."""
    rates: list[float] = []

    class Prepared(keras.callbacks.Callback):  # type: ignore[name-defined, misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            rates.append(float(f"{float(self.model.optimizer.learning_rate):.6g}"))

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["val_loss"] = losses[epoch]  # the later callbacks get the same dictionary

    section = given.keras_cnn
    callbacks = []
    if section.early_stopping_patience:
        callbacks.append(
            keras.callbacks.EarlyStopping(
                monitor="val_loss", patience=section.early_stopping_patience, restore_best_weights=True
            )
        )
    if section.reduce_lr_patience:
        callbacks.append(
            keras.callbacks.ReduceLROnPlateau(
                monitor="val_loss",
                factor=section.reduce_lr_factor,
                patience=section.reduce_lr_patience,
                min_lr=section.min_learning_rate,
            )
        )
    model = classifier(keras, given)
    pixels, labels = np.full((4, 32, 32, 3), 99 / 255, dtype=np.float32), np.eye(10, dtype=np.float32)[:4]
    model.fit(pixels, labels, epochs=section.epochs, callbacks=[Prepared(), *callbacks], verbose=0)
    return rates, callbacks[0].best_epoch + 1 if section.early_stopping_patience else None


FALLS_THEN_RISES = [2.0, 1.5, 1.2, *[1.3 + 0.01 * step for step in range(30)]]
BY_LESS_THAN_1E_4 = [1.0 - 0.00005 * step for step in range(12)]  # counts for early stopping, not for the rate
UP_AND_DOWN = [2.0, 1.9, 2.1, 2.2, 1.8, 1.9, 1.9, 1.9, 1.7, *[1.75] * 5, 1.6, *[1.65] * 10]


@pytest.mark.parametrize(
    ("losses", "section"),
    [
        (FALLS_THEN_RISES, {}),
        (FALLS_THEN_RISES, {"epochs": 14, "early_stopping_patience": None, "reduce_lr_patience": 2}),
        (FALLS_THEN_RISES, {"early_stopping_patience": 1, "reduce_lr_patience": 1}),
        (BY_LESS_THAN_1E_4, {"epochs": 12, "early_stopping_patience": 2, "reduce_lr_patience": 3}),
        (UP_AND_DOWN, {"epochs": 22, "early_stopping_patience": 6, "reduce_lr_patience": 2, "reduce_lr_factor": 0.1}),
        (UP_AND_DOWN, {"epochs": 10, "reduce_lr_patience": None, "early_stopping_patience": 3}),
        (FALLS_THEN_RISES, {"epochs": 9, "reduce_lr_patience": 1, "min_learning_rate": 0.0004}),
    ],
    ids=["committed", "rate alone", "patience 1", "tiny steps", "up and down", "stopping alone", "floor"],
)
def test_stops_keeps_and_slows_as_keras_fit_does(
    keras: Any, losses: list[float], section: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = parameters(**section)
    rates, kept, weights, final = driven(keras, given, losses, tmp_path, monkeypatch)
    expected_rates, best = by_keras_fit(keras, given, losses)
    assert rates == expected_rates
    assert kept == (best or len(rates))
    assert np.array_equal(final, weights[kept - 1])
    assert not any(np.array_equal(final, other) for epoch, other in enumerate(weights, 1) if epoch != kept)


def test_the_prepared_losses_do_stop_and_slow(keras: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand, so that the comparison with Keras is not one of two that do nothing."""
    rates, kept, _, _ = driven(keras, parameters(), FALLS_THEN_RISES, tmp_path, monkeypatch)
    assert kept == 3
    assert rates == [0.001] * 8 + [0.0005] * 5  # epochs 4 to 8 are no better, nor 9 to 13


def test_on_the_papers_own_curve_the_rate_halves_for_epoch_50_which_is_kept(
    keras: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figure 1's validation losses give Figure 1's learning rates, and the epoch whose 0.8075 is printed."""
    with (ROOT / "data/paper/figure1_keras_cnn.csv").open(encoding="utf-8", newline="") as file:
        printed = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    committed = load(Parameters, ROOT / "params.yaml")
    rates, kept, weights, final = driven(keras, committed, paper_curve(), tmp_path, monkeypatch)
    assert rates == printed == [0.001] * 49 + [0.0005]
    assert kept == 50
    assert np.array_equal(final, weights[49])


# The stage


def test_writes_the_history_the_model_and_the_records(work: Path, keras: Any) -> None:
    train_keras_cnn.main()

    rows = history()
    assert list(rows[0]) == list(COLUMNS)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [row["learning_rate"] for row in rows] == ["0.001", "0.001"]
    run = json.loads(RUN_FILE.read_text(encoding="utf-8"))
    best = min(rows, key=lambda row: float(row["val_loss"]))
    assert run == {
        "model": "keras_cnn",
        "source": "synthetic",
        "data": {"train_images": 40, "validation_images": 10},
        "split": {"validation_fraction": 0.2, "random_state": 7},
        "parameters": load(Parameters).model_dump(),
        "dropout_rates": [0.3, 0.4, 0.4],
        "weights": 3 * 27 + 3 + 4 * 3 + 4 * 27 + 4 + 4 * 4 + 6 * 256 + 6 + 4 * 6 + 10 * 6 + 10,
        "trainable_weights": run["weights"] - 2 * (3 + 4 + 6),
        "epochs": 2,
        "best_epoch": int(best["epoch"]),
        "train": {"loss": float(rows[-1]["train_loss"]), "accuracy": float(rows[-1]["train_accuracy"])},
        "validation": {"loss": float(best["val_loss"]), "accuracy": float(best["val_accuracy"])},
    }
    runtime = json.loads(RUNTIME_FILE.read_text(encoding="utf-8"))
    assert runtime["steps_per_epoch"] == 3
    assert len(runtime["epoch_seconds"]) == 2
    assert runtime["seconds"] == pytest.approx(sum(runtime["epoch_seconds"]), abs=0.002)
    assert {"keras", "tensorflow", "numpy", "python"} == set(runtime["versions"])

    # The saved weights are the kept ones, and what validated them was never augmented.
    model = keras.saving.load_model(MODEL_FILE, compile=False)
    held_out = np.load("data/processed/split.npz")["validation"]
    pixels = np.load("data/processed/train_images.npy")[held_out].astype("float32") / 255
    labels = np.load("data/processed/train_labels.npy")[held_out]
    probabilities = model.predict(pixels, verbose=0)[np.arange(10), labels]
    assert float(best["val_loss"]) == pytest.approx(-np.log(probabilities).mean(), rel=1e-5)


def test_twice_gives_the_same_bytes_also_in_a_process_of_its_own(work: Path, keras: Any) -> None:
    results = []
    for another_process in (False, False, True):
        if another_process:
            result = run_stage("train_keras_cnn", without="torch")
            assert result.returncode == 0, result.stderr
            assert "epoch 2/2" in result.stdout
        else:
            train_keras_cnn.main()
        weights = keras.saving.load_model(MODEL_FILE, compile=False).get_weights()
        results.append((HISTORY_FILE.read_bytes(), RUN_FILE.read_bytes(), [array.tobytes() for array in weights]))
    assert results[0] == results[1] == results[2]

    change_parameters({"seed": 8})
    train_keras_cnn.main()
    assert HISTORY_FILE.read_bytes() != results[0][0]


def test_the_model_file_is_the_same_bytes_for_the_same_model(keras: Any, tmp_path: Path) -> None:
    """Saved at another time, and built at another place in memory, with what layers share still shared."""
    files = [tmp_path / "one.keras", tmp_path / "other.keras"]
    kept = []
    for file, written in zip(files, ("2026-01-01@00:00:00", "2026-01-02@00:00:00"), strict=True):
        keras.utils.clear_session()
        keras.utils.set_random_seed(3)
        model = train_keras_cnn.untrained_model(parameters(filters=[3, 4]).keras_cnn, [0.3, 0.4, 0.4])
        kept.append(model)  # so that the next one stands elsewhere
        with mock.patch("keras.src.saving.saving_lib.datetime") as clock:
            clock.datetime.now.return_value.strftime.return_value = written
            train_keras_cnn.save(model, file)
    assert files[0].read_bytes() == files[1].read_bytes()
    loaded = keras.saving.load_model(files[1], compile=False, safe_mode=True)
    assert all(np.array_equal(*pair) for pair in zip(loaded.get_weights(), model.get_weights(), strict=True))


def test_without_a_validation_part_it_runs_all_epochs_and_keeps_the_last(work: Path, keras: Any) -> None:
    change_parameters(
        {
            "split.validation_fraction": 0,
            "keras_cnn.epochs": 4,
            "keras_cnn.early_stopping_patience": 1,
            "keras_cnn.reduce_lr_patience": 1,
        }
    )
    split.main()
    train_keras_cnn.main()
    rows = history()
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert {row["learning_rate"] for row in rows} == {"0.001"}
    assert {row["val_loss"] for row in rows} == {row["val_accuracy"] for row in rows} == {""}
    run = json.loads(RUN_FILE.read_text(encoding="utf-8"))
    assert (run["epochs"], run["best_epoch"]) == (4, 4)
    assert run["data"] == {"train_images": 50, "validation_images": 0}
    assert run["validation"] == {"loss": None, "accuracy": None}


def test_the_history_grows_by_a_row_an_epoch(
    keras: Any, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown = []
    original = train_keras_cnn.validate

    def spy(*arguments: Any) -> Any:
        grown.append(log.path.read_text(encoding="utf-8").count("\n"))
        return original(*arguments)

    monkeypatch.setattr(train_keras_cnn, "validate", spy)
    given = parameters(epochs=3)
    log = new_log(tmp_path, given, 20)
    train_keras_cnn.train(keras, tiny_model(keras, given), images, parts(20, 6), given, log)
    assert grown == [1, 2, 3]  # the header, and the epochs before


def one_line(main: Callable[[], None]) -> str:
    """What the stage ends with where an expected error stops it."""
    with pytest.raises(SystemExit) as caught:
        ending("train_keras_cnn", main)
    line = caught.value.code
    assert isinstance(line, str)
    assert "\n" not in line
    return line


def test_a_training_that_diverges_ends_with_one_line(work: Path, keras: Any) -> None:
    change_parameters({"keras_cnn.learning_rate": 1e30})
    line = one_line(train_keras_cnn.main)
    assert line.startswith("train_keras_cnn: the training diverged: ")
    assert line.endswith(f"; lower the learning rate; {WAY_BACK}")
    assert not MODEL_FILE.exists() or not MODEL_FILE.read_bytes()  # an empty one shows that it can be written
    assert not RUN_FILE.exists()
    assert all(math.isfinite(float(value)) for row in history() for value in row.values())


def test_missing_images_are_named(work: Path) -> None:
    Path("data/processed/train_images.npy").unlink()
    assert "data/processed/train_images.npy is missing; if git has it: git restore" in one_line(train_keras_cnn.main)
    assert not HISTORY_FILE.exists()


def test_a_split_of_other_images_is_refused(work: Path) -> None:
    np.savez(
        "data/processed/split.npz",
        train=np.arange(40),
        validation=np.arange(40, 49),
        validation_fraction=0.2,
        random_state=7,
    )
    assert "does not split the 50 training images" in one_line(train_keras_cnn.main)


def test_cuda_is_refused_where_there_is_none(work: Path, keras: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    change_parameters({"keras_cnn.device": "cuda"})
    monkeypatch.setattr(keras_backend, "_has_gpu", lambda *_: False)
    line = one_line(train_keras_cnn.main)
    assert "keras_cnn.device is cuda, but tensorflow sees no GPU here; use -S keras_cnn.device=cpu; " in line
    assert line.endswith(WAY_BACK)
    assert not HISTORY_FILE.exists()


def test_a_backend_that_is_not_installed_is_refused(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change_parameters({"keras_cnn.backend": "jax"})
    monkeypatch.setitem(sys.modules, "jax", None)  # importing it raises ImportError
    line = one_line(train_keras_cnn.main)
    assert "keras_cnn.backend is jax, which cannot be imported here" in line
    assert line.endswith(f"pip install jax, or choose another; {WAY_BACK}")


def test_runs_on_keras_torch_backend(work: Path) -> None:
    """In a process of its own: a process has one backend."""
    change_parameters({"keras_cnn.backend": "torch"})
    result = run_stage("train_keras_cnn")
    assert result.returncode == 0, result.stderr
    assert [row["epoch"] for row in history()] == ["1", "2"]
    assert all(math.isfinite(float(value)) for row in history() for value in row.values())
    assert json.loads(RUN_FILE.read_text(encoding="utf-8"))["parameters"]["keras_cnn"]["backend"] == "torch"
    versions = json.loads(RUNTIME_FILE.read_text(encoding="utf-8"))["versions"]
    assert set(versions) == {"keras", "torch", "numpy", "python"}


def test_the_seed_of_the_weights_is_derived(work: Path, keras: Any) -> None:
    """With a learning rate too small to change a weight, the saved ones are those of the derived seed."""
    change_parameters({"keras_cnn.learning_rate": 1e-30, "keras_cnn.epochs": 1})
    train_keras_cnn.main()
    saved = keras.saving.load_model(MODEL_FILE, compile=False).layers[0].get_weights()[0]
    keras.utils.set_random_seed(derived_seed(7, 0, "weights"))
    assert np.array_equal(saved, keras_cnn.build([3, 4], 3, 6, [0.3, 0.4, 0.4]).layers[0].get_weights()[0])
