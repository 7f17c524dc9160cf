"""Training the Keras CNN: its random choices, its losses, what it keeps, its records."""

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

from stages import split, train_keras_cnn
from stages.common.config import load
from stages.common.errors import WAY_BACK
from stages.common.files import read_rows
from stages.keras_cnn import backend as keras_backend
from stages.keras_cnn.model_file import MODEL_FILE
from stages.train_keras_cnn import HISTORY_FILE, RUN_FILE, RUNTIME_FILE, Parameters, dropout_rates
from stages.training.augmentation import augment, draw
from stages.training.images import Images, Split
from stages.training.log import COLUMNS, TrainingLog
from stages.training.randomness import generator
from tests.support.stage_runs import (
    ROOT,
    change_parameters,
    few_images,
    kill_in_epoch,
    one_line,
    prepare,
    replayed_plateau,
    run_stage,
    starting_point,
)

# Keras's conversion of a TensorFlow tensor to NumPy; nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RESULTS = (MODEL_FILE, HISTORY_FILE, RUN_FILE)
TINY = {
    "batch_size": 16,  # 16, 16 and 8 images
    "keras_cnn.filters": [3, 4],
    "keras_cnn.dense_units": 6,
    "keras_cnn.epochs": 6,
    "keras_cnn.augmentation": "flip_crop",
    # The learning rate falls, and early stopping keeps another epoch than the last.
    "keras_cnn.learning_rate": 0.03,
    "keras_cnn.early_stopping_patience": 2,
    "keras_cnn.reduce_lr_patience": 1,
}


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
    return few_images()


@pytest.fixture
def work(workdir: Path) -> Path:
    """A working directory with synthetic data and parameters for a tiny network."""
    prepare(TINY)
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


# Dropout


@pytest.mark.parametrize(
    ("dropout", "profile", "blocks", "rates"),
    [
        (0.3, "rising", 3, [0.3, 0.4, 0.5, 0.5]),  # the notebook
        (0.4, "rising", 3, [0.4, 0.5, 0.5, 0.5]),
        (0.0, "rising", 3, [0.0, 0.1, 0.2, 0.2]),
        (0.2, "rising", 5, [0.2, 0.3, 0.4, 0.5, 0.5, 0.5]),
        (0.3, "uniform", 1, [0.3, 0.3]),
        (0.6, "uniform", 3, [0.6, 0.6, 0.6, 0.6]),
    ],
)
def test_dropout_rates(dropout: float, profile: Any, blocks: int, rates: list[float]) -> None:
    assert dropout_rates(dropout, profile, blocks) == rates


def masks(keras: Any, model: Any) -> list[bytes]:
    """The output of each dropout layer for an input of ones."""
    ones = np.ones((4, 4, 4, 8), dtype=np.float32)
    layers = [part for layer in model.layers for part in getattr(layer, "parts", [layer])]
    dropouts = [layer for layer in layers if isinstance(layer, keras.layers.Dropout)]
    return [np.asarray(layer(ones, training=True)).tobytes() for layer in dropouts]


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


# What the network sees


def test_batches_are_images_and_labels_in_the_given_order_each_augmented_by_its_own_choice(images: Images) -> None:
    order = np.array([5, 0, 25, 7, 12])
    choices = draw("flip_crop", 5, generator(7, 1, "augmentation"))
    for given, expected in ((None, images.pixels[order]), (choices, augment(images.pixels[order], choices))):
        made = list(train_keras_cnn.batches(images, order, 2, given))
        assert [len(pixels) for pixels, _ in made] == [2, 2, 1]
        pixels, labels = (np.concatenate(arrays) for arrays in zip(*made, strict=True))
        assert np.array_equal(pixels, expected)
        assert labels.tolist() == images.labels[order].tolist()


def test_other_backends_get_scaled_inputs_and_one_hot_labels(images: Images) -> None:
    """tests/keras_cnn/test_fused.py tests TensorFlow's inputs."""
    order = np.array([5, 0, 25])
    other = mock.Mock(**{"backend.backend.return_value": "torch"})
    ((inputs, labels),) = train_keras_cnn.feed(other, lambda size: train_keras_cnn.batches(images, order, size), 8, 1)
    assert np.array_equal(inputs, images.pixels[order].astype("float32") / 255)
    assert np.array_equal(labels, np.eye(10, dtype=np.float32)[images.labels[order]])


@pytest.mark.parametrize(("kind", "seed"), [("flip_crop", 7), ("none", 7), ("flip_crop", 8)])
def test_order_and_augmentation_of_each_epoch(
    kind: str, seed: int, keras: Any, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each training image once, in the epoch's own order and with its own choices; no validation image."""
    seen: list[tuple[list[int], Any]] = []
    original = train_keras_cnn.batches

    def spy(images: Images, order: np.ndarray, batch_size: int, choices: Any = None) -> Any:
        seen.append((order.tolist(), choices))
        return original(images, order, batch_size, choices)

    monkeypatch.setattr(train_keras_cnn, "batches", spy)
    given = parameters(epochs=2, augmentation=kind, seed=seed)
    reseeded: list[tuple[int, int]] = []
    monkeypatch.setattr(train_keras_cnn, "reseed_dropout", lambda _, *given: reseeded.append(given))
    train_keras_cnn.train(keras, tiny_model(keras, given), images, parts(20, 6), given, new_log(tmp_path, given, 20))
    assert len(seen) == 4  # two epochs of training and validating
    for epoch, (order, choices) in enumerate(seen[::2], start=1):
        assert order == generator(seed, epoch, "order").permutation(np.arange(20)).tolist()
        if kind == "none":
            assert choices is None
        else:
            expected = draw("flip_crop", 20, generator(seed, epoch, "augmentation"))
            assert all(
                np.array_equal(*pair) for pair in zip(vars(choices).values(), vars(expected).values(), strict=True)
            )
    assert seen[0][0] != seen[2][0]
    assert seen[1::2] == [(list(range(20, 26)), None)] * 2
    assert reseeded == [(seed, 1), (seed, 2)]


def test_each_seed_starts_from_its_own_weights(work: Path, keras: Any) -> None:
    def weights(model: Any) -> bytes:
        return b"".join(array.tobytes() for array in model.get_weights())

    found = [starting_point(train_keras_cnn, 1, seed, weights) for seed in (7, 8, 7)]
    assert found[0] == found[2] != found[1]


# The stage


@pytest.fixture(scope="module")
def trained(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which the stage has run once; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as monkeypatch, mock.patch.dict(os.environ):
        monkeypatch.chdir(folder)
        monkeypatch.delenv("DVC_ROOT", raising=False)
        prepare(TINY)
        keras.utils.clear_session()  # names of layers count up in a process, and are in the file
        train_keras_cnn.main()
    return folder


def test_writes_the_history_the_model_and_the_records(
    trained: Path, keras: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    rows, given = read_rows(HISTORY_FILE), load(Parameters)
    assert list(rows[0]) == list(COLUMNS)
    best = min(rows, key=lambda row: float(row["val_loss"]))
    run = json.loads(RUN_FILE.read_text(encoding="utf-8"))
    assert run == {
        "model": "keras_cnn",
        "source": "synthetic",
        "data": {"train_images": 40, "validation_images": 10},
        "split": {"validation_fraction": 0.2, "random_state": 7},
        "parameters": given.model_dump(),
        "dropout_rates": [0.3, 0.4, 0.4],
        "weights": 3 * 27 + 3 + 4 * 3 + 4 * 27 + 4 + 4 * 4 + 6 * 256 + 6 + 4 * 6 + 10 * 6 + 10,
        "trainable_weights": run["weights"] - 2 * (3 + 4 + 6),
        "epochs": len(rows),
        "best_epoch": int(best["epoch"]),
        "train": {"loss": float(rows[-1]["train_loss"]), "accuracy": float(rows[-1]["train_accuracy"])},
        "validation": {"loss": float(best["val_loss"]), "accuracy": float(best["val_accuracy"])},
    }
    runtime = json.loads(RUNTIME_FILE.read_text(encoding="utf-8"))
    assert runtime["steps_per_epoch"] == 3
    assert len(runtime["epoch_seconds"]) == len(rows)
    assert {"keras", "tensorflow", "numpy", "python"} == set(runtime["versions"])

    # It stopped, and slowed, as the rule of stages/training/plateau.py has it.
    plateau = replayed_plateau(given.keras_cnn, rows)
    assert plateau.stops_before(len(rows) + 1)
    assert float(rows[-1]["learning_rate"]) < 0.03
    assert plateau.best_epoch == len(rows) - 2 == int(best["epoch"])

    # The saved weights are the kept ones, and what validated them was never augmented.
    model = keras.saving.load_model(MODEL_FILE, compile=False)
    held_out = np.load("data/processed/split.npz")["validation"]
    pixels = np.load("data/processed/train_images.npy")[held_out].astype("float32") / 255
    labels = np.load("data/processed/train_labels.npy")[held_out]
    probabilities = model.predict(pixels, verbose=0)[np.arange(10), labels]
    assert float(best["val_loss"]) == pytest.approx(-np.log(probabilities).mean(), rel=1e-5)


def test_a_process_of_its_own_gives_the_same_bytes(trained: Path, work: Path) -> None:
    result = run_stage("train_keras_cnn", without="torch")
    assert result.returncode == 0, result.stderr
    for path in RESULTS:
        assert path.read_bytes() == (trained / path).read_bytes(), path


def test_without_a_validation_part_all_epochs_run_and_the_last_is_kept(work: Path, keras: Any) -> None:
    change_parameters({"split.validation_fraction": 0})
    split.main()
    train_keras_cnn.main()
    assert [row["val_loss"] for row in read_rows(HISTORY_FILE)] == [""] * 6
    run = json.loads(RUN_FILE.read_text(encoding="utf-8"))
    assert (run["best_epoch"], run["data"]) == (6, {"train_images": 50, "validation_images": 0})
    assert run["validation"] == {"loss": None, "accuracy": None}


def test_a_training_that_diverges_ends_with_one_line(work: Path, keras: Any) -> None:
    change_parameters({"keras_cnn.learning_rate": 1e30})
    line = one_line("train_keras_cnn", train_keras_cnn.main)
    assert line.startswith("train_keras_cnn: the training diverged: ")
    assert line.endswith(f"; lower the learning rate; {WAY_BACK}")
    assert not MODEL_FILE.exists()
    assert not RUN_FILE.exists()
    assert all(math.isfinite(float(value)) for row in read_rows(HISTORY_FILE) for value in row.values())


def without_images(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("data/processed/train_images.npy").unlink()


def with_another_split(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"train": np.arange(40), "validation": np.arange(40, 49)}
    np.savez("data/processed/split.npz", **parts, validation_fraction=0.2, random_state=7)


def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    change_parameters({"keras_cnn.device": "cuda"})
    monkeypatch.setattr(keras_backend, "_has_gpu", lambda *_: False)


def without_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    change_parameters({"keras_cnn.backend": "jax"})
    monkeypatch.setitem(sys.modules, "jax", None)  # importing it raises ImportError


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (without_images, "data/processed/train_images.npy is missing; if git has it: git restore"),
        (with_another_split, "does not split the 50 training images"),
        (without_gpu, "keras_cnn.device is cuda, but tensorflow sees no GPU here; use -S keras_cnn.device=cpu; "),
        (without_jax, "pip install jax, or choose another; "),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    fault: Callable[[pytest.MonkeyPatch], None], message: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    assert message in one_line("train_keras_cnn", train_keras_cnn.main)
    assert not HISTORY_FILE.exists()


def test_runs_on_keras_torch_backend(work: Path) -> None:
    """In a process of its own: a process has one backend."""
    change_parameters({"keras_cnn.backend": "torch"})
    result = run_stage("train_keras_cnn")
    assert result.returncode == 0, result.stderr
    assert all(math.isfinite(float(value)) for row in read_rows(HISTORY_FILE) for value in row.values())
    assert json.loads(RUN_FILE.read_text(encoding="utf-8"))["parameters"]["keras_cnn"]["backend"] == "torch"
    versions = json.loads(RUNTIME_FILE.read_text(encoding="utf-8"))["versions"]
    assert set(versions) == {"keras", "torch", "numpy", "python"}

    # Killed after its second epoch, it ends with the same bytes: its dropout is also that of each epoch.
    expected = [path.read_bytes() for path in RESULTS]
    kill_in_epoch("stages.train_keras_cnn", 3)
    assert run_stage("train_keras_cnn").returncode == 0
    assert json.loads(RUNTIME_FILE.read_text(encoding="utf-8"))["resumed_after"] == [2]
    assert [path.read_bytes() for path in RESULTS] == expected
