"""Scoring: every number is scikit-learn's on predictions that are the model's own."""

import json
import os
import runpy
import shutil
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from sklearn import metrics
from torchvision import models, transforms
from torchvision.transforms import functional

from stages import evaluate
from stages.common.errors import FROM_SCRATCH, WAY_BACK
from stages.common.errors import run_program as ending
from stages.common.files import read_rows, write_json
from stages.evaluate import accuracy_and_loss, per_class, score
from stages.keras_cnn import architecture as keras_cnn
from stages.keras_cnn import backend as keras_backend
from stages.resnet18 import architecture as resnet18
from stages.resnet18 import model_file
from stages.training.augmentation import draw
from stages.training.images import Images
from stages.training.randomness import generator
from tests.support.stage_runs import ROOT, change_parameters, process_settings, run_stage

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
MODELS = ("keras_cnn", "resnet18")
MODEL_FILES = {"keras_cnn": Path("models/keras_cnn.keras"), "resnet18": Path("models/resnet18.pt")}
MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]
SEED = 5
DRAWS = 3
TRAINING_IMAGES, TRAINED = 40, 30
PARAMETERS = {
    "keras_cnn": {"seed": SEED, "dropout": 0.3, "batch_size": 64, "keras_cnn": {"backend": "tensorflow"}},
    "resnet18": {"seed": SEED, "resnet18": {"mean": MEAN, "std": STD}},
}
WEIGHTS = {"keras_cnn": 1234, "resnet18": 11_181_642}

# Keras's conversion of a TensorFlow tensor to NumPy, and PyTorch's word on a pickle before it refuses it.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning"),
    pytest.mark.usefixtures("own_process_settings"),
]


# Three classes, four images; predicted 0, 1, 1, 2; true 0, 1, 2, 2.
FOUR = np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.1, 0.65, 0.25], [0.2, 0.3, 0.5]], dtype=np.float32)
TRUE = np.array([0, 1, 2, 2], dtype=np.uint8)


@pytest.fixture(scope="module")
def keras() -> Any:
    with mock.patch.dict(os.environ):
        module = keras_backend.start("tensorflow", "cpu")
    module.utils.set_random_seed(7)
    return module


@pytest.fixture(scope="module")
def trained(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder models/ with both models, as if trained: they tell images apart, and their batch norms are their own."""
    folder = tmp_path_factory.mktemp("trained") / "models"
    folder.mkdir()
    rng = np.random.default_rng(1)
    model = keras_cnn.build([4, 6], 3, 8, [0.3, 0.4, 0.4])
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.normal(0.5, 0.2, array.shape) ** 2 for array in layer.get_weights()])
    classifier, before = model.layers[-1], keras.Model(model.inputs, model.layers[-2].output)
    features = before.predict(keras_cnn.to_input(colourful(rng, 64)), verbose=0)
    weights = 20 * classifier.get_weights()[0]
    classifier.set_weights([weights, -features.mean(axis=0) @ weights])
    model.save(folder / "keras_cnn.keras", include_optimizer=False)
    torch.manual_seed(1)
    network = resnet18.build()
    network(resnet18.to_input(colourful(rng, 64), MEAN, STD))  # in training mode: moves the statistics
    network.fc.weight.data *= 10
    torch.save(network.state_dict(), folder / "resnet18.pt")
    return folder


def colourful(rng: np.random.Generator, count: int) -> np.ndarray:
    """Noise in a colour of each image's own, which a network with random weights tells apart."""
    colours = rng.integers(0, 256, (count, 1, 1, 3))
    return (colours + rng.integers(-60, 60, (count, 32, 32, 3))).clip(0, 255).astype(np.uint8)


def as_training_leaves_it(trained: Path) -> None:
    """Fill the current folder, with 60 test images and a split that ResNet-18 does not use."""
    rng = np.random.default_rng(2)
    Path("data/processed").mkdir(parents=True)
    np.save("data/processed/test_images.npy", colourful(rng, 60))
    np.save("data/processed/test_labels.npy", rng.integers(0, 10, 60).astype(np.uint8))
    np.save("data/processed/train_images.npy", colourful(rng, TRAINING_IMAGES))
    np.save("data/processed/train_labels.npy", rng.integers(0, 10, TRAINING_IMAGES).astype(np.uint8))
    order = rng.permutation(TRAINING_IMAGES)
    np.savez(
        "data/processed/split.npz", train=order[:TRAINED], validation=order[TRAINED:], validation_fraction=0.25,
        random_state=7,
    )  # fmt: skip
    write_json(Path("metrics/dataset.json"), {"source": "synthetic", "classes": CLASSES})
    Path("models").symlink_to(trained, target_is_directory=True)
    for model in MODELS:
        write_json(Path(f"metrics/runs/{model}.json"), run_record(model))
    change_parameters({"evaluate.augmented_draws": DRAWS})


@pytest.fixture
def work(workdir: Path, trained: Path) -> Path:
    """A working directory of the test's own, as training leaves it."""
    as_training_leaves_it(trained)
    return workdir


@pytest.fixture(scope="module")
def scored(keras: Any, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which both models were evaluated; not to be changed."""
    folder = tmp_path_factory.mktemp("scored")
    with pytest.MonkeyPatch.context() as monkeypatch, process_settings():
        monkeypatch.chdir(folder)
        shutil.copy(ROOT / "params.yaml", folder)
        as_training_leaves_it(trained)
        for model in MODELS:
            evaluate.main(model)
    return folder


@pytest.fixture
def results(scored: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory `scored`, made the current one."""
    monkeypatch.chdir(scored)
    return scored


@pytest.fixture
def own_models(work: Path) -> Path:
    """A working directory of the test's own, with an empty folder models/."""
    Path("models").unlink()
    Path("models").mkdir()
    return work


def run_record(model: str) -> dict[str, Any]:
    return {
        "model": model,
        "source": "synthetic",
        "data": {"train_images": TRAINED if model == "keras_cnn" else TRAINING_IMAGES},
        "parameters": PARAMETERS[model],
        "weights": WEIGHTS[model],
        "epochs": 12,
        "best_epoch": 7,
        "train": {"loss": 0.4, "accuracy": 0.9},
        "validation": {"loss": 0.5, "accuracy": 0.8},
    }


def numbers(model: str) -> Any:
    return json.loads(Path(f"metrics/{model}.json").read_text(encoding="utf-8"))


def test_images() -> Images:
    return Images(np.load("data/processed/test_images.npy"), np.load("data/processed/test_labels.npy"))


test_images.__test__ = False  # type: ignore[attr-defined]


def predicted(model: str, keras: Any, images: np.ndarray) -> np.ndarray:
    """Probabilities by Keras's own predict(), and by torchvision's network and transforms."""
    if model == "keras_cnn":
        network = keras.saving.load_model(MODEL_FILES[model], compile=False)
        return network.predict(images.astype("float32") / 255, verbose=0)
    network = models.resnet18(num_classes=10)
    network.load_state_dict(torch.load(MODEL_FILES[model], weights_only=True))
    network.eval()
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    with torch.no_grad():
        return network(torch.stack([transform(image) for image in images])).softmax(dim=1).numpy()


def augmented_by_torchvision(images: np.ndarray, number: int) -> np.ndarray:
    """One draw of the test set's augmentation, carried out by torchvision."""
    choices = draw("flip_crop", len(images), generator(SEED, number, "test augmentation"))
    pictures = []
    for image, flip, top, left in zip(images, choices.flip, choices.top, choices.left, strict=True):
        picture = torch.from_numpy(image).permute(2, 0, 1)
        picture = functional.hflip(picture) if flip else picture
        picture = functional.crop(functional.pad(picture, [4]), int(top), int(left), 32, 32)
        pictures.append(picture.permute(1, 2, 0).numpy())
    return np.stack(pictures)


def one_line(model: str) -> str:
    """The line with which the stage ends, if an expected error stops it."""
    with pytest.raises(SystemExit) as caught:
        ending(f"evaluate@{model}", lambda: evaluate.main(model))
    line = caught.value.code
    assert isinstance(line, str)
    assert "\n" not in line
    assert not Path(f"metrics/{model}.json").exists()
    assert not Path("metrics/predictions").exists()
    return line


# The numbers


@pytest.mark.parametrize("model", MODELS)
def test_the_predictions_are_the_models_own(model: str, results: Path, keras: Any) -> None:
    with np.load(f"metrics/predictions/{model}.npz", allow_pickle=False) as saved:
        assert sorted(saved.files) == ["labels", "probabilities", "source"]
        probabilities, labels = saved["probabilities"], saved["labels"]
        assert saved["source"].shape == ()
        assert str(saved["source"]) == "synthetic"
    assert (probabilities.shape, probabilities.dtype) == ((60, 10), np.float32)
    assert (labels.shape, labels.dtype) == ((60,), np.uint8)
    assert np.array_equal(labels, test_images().labels)
    assert probabilities == pytest.approx(predicted(model, keras, test_images().pixels), abs=1e-5)
    assert len(set(probabilities.argmax(axis=1))) > 2  # or the scores below would show little


@pytest.mark.parametrize("model", MODELS)
def test_the_scores_are_scikit_learns_on_the_predictions(model: str, results: Path) -> None:
    with np.load(f"metrics/predictions/{model}.npz") as saved:
        probabilities, labels = saved["probabilities"].astype(float), saved["labels"]
    answers = probabilities.argmax(axis=1)
    options: dict[str, Any] = {"labels": range(10), "average": "macro", "zero_division": 0}
    expected = {
        "accuracy": metrics.accuracy_score(labels, answers),
        "loss": metrics.log_loss(labels, probabilities / probabilities.sum(axis=1, keepdims=True), labels=range(10)),
        "precision_macro": metrics.precision_score(labels, answers, **options),
        "recall_macro": metrics.recall_score(labels, answers, **options),
        "f1_macro": metrics.f1_score(labels, answers, **options),
    }
    assert numbers(model)["test"] == {name: round(float(value), 6) for name, value in expected.items()}

    report = metrics.classification_report(
        labels, answers, labels=range(10), target_names=CLASSES, output_dict=True, zero_division=0
    )
    table = read_rows(Path(f"metrics/per_class/{model}.csv"))
    assert [row["class"] for row in table] == CLASSES
    for row in table:
        for ours, theirs in (
            ("precision", "precision"),
            ("recall", "recall"),
            ("f1", "f1-score"),
            ("support", "support"),
        ):
            assert float(row[ours]) == pytest.approx(report[row["class"]][theirs], abs=6e-7)

    confusion = read_rows(Path(f"metrics/confusion/{model}.csv"))
    assert [row["actual"] for row in confusion] == [CLASSES[label] for label in labels]
    assert [row["predicted"] for row in confusion] == [CLASSES[answer] for answer in answers]


@pytest.mark.parametrize("model", MODELS)
def test_the_augmented_scores_are_those_of_torchvisions_transforms(model: str, results: Path, keras: Any) -> None:
    table = read_rows(Path(f"metrics/augmented/{model}.csv"))
    images = test_images()
    assert [row["draw"] for row in table] == ["1", "2", "3"]
    for row in table:
        probabilities = predicted(model, keras, augmented_by_torchvision(images.pixels, int(row["draw"])))
        loss = -np.log(probabilities[np.arange(60), images.labels]).mean()
        assert float(row["accuracy"]) == pytest.approx((probabilities.argmax(axis=1) == images.labels).mean(), abs=1e-6)
        assert float(row["loss"]) == pytest.approx(loss, abs=5e-6)
    assert len({row["loss"] for row in table}) == DRAWS  # each draw has numbers of its own

    summary = numbers(model)["test_augmented"]
    for name in ("accuracy", "loss"):
        values = [float(row[name]) for row in table]
        assert summary[name] == pytest.approx(statistics.mean(values), abs=1e-6)
        assert summary[f"{name}_std"] == pytest.approx(statistics.stdev(values), abs=1e-6)  # n - 1, the sample's


@pytest.mark.parametrize("model", MODELS)
def test_the_training_images_are_scored_as_they_are(model: str, results: Path, keras: Any) -> None:
    """Without augmentation and dropout; of the Keras CNN only those that the split trained on."""
    chosen = np.load("data/processed/split.npz")["train"] if model == "keras_cnn" else np.arange(TRAINING_IMAGES)
    images, labels = (np.load(f"data/processed/train_{name}.npy")[chosen] for name in ("images", "labels"))
    probabilities = predicted(model, keras, images)
    loss = -np.log(probabilities[np.arange(len(labels)), labels]).mean()
    found = numbers(model)["train_clean"]
    assert found["accuracy"] == pytest.approx((probabilities.argmax(axis=1) == labels).mean(), abs=1e-6)
    assert found["loss"] == pytest.approx(loss, abs=5e-6)


def test_another_split_than_the_runs_is_refused(work: Path) -> None:
    record = run_record("keras_cnn")
    write_json(Path("metrics/runs/keras_cnn.json"), record | {"data": {"train_images": TRAINED - 1}})
    assert one_line("keras_cnn") == (
        "evaluate@keras_cnn: data/processed/split.npz trains on 30 images, and the run had 29; run dvc repro"
    )


@pytest.mark.parametrize("model", MODELS)
def test_the_metrics_are_those_of_the_design(model: str, results: Path) -> None:
    written = numbers(model)
    assert list(written) == [
        "source",
        "test",
        "test_augmented",
        "validation",
        "train",
        "train_clean",
        "epochs",
        "best_epoch",
        "parameters",
    ]
    assert list(written["test"]) == ["accuracy", "loss", "precision_macro", "recall_macro", "f1_macro"]
    assert set(written["test_augmented"]) == {"accuracy", "accuracy_std", "loss", "loss_std", "draws"}
    assert written["test_augmented"]["draws"] == DRAWS
    assert {
        name: written[name] for name in ("source", "validation", "train", "epochs", "best_epoch", "parameters")
    } == {
        "source": "synthetic",
        "validation": {"loss": 0.5, "accuracy": 0.8},
        "train": {"loss": 0.4, "accuracy": 0.9},
        "epochs": 12,
        "best_epoch": 7,
        "parameters": WEIGHTS[model],
    }


OUTPUTS = ("metrics/{}.json", "metrics/per_class/{}.csv", "metrics/confusion/{}.csv", "metrics/augmented/{}.csv")


@pytest.mark.parametrize("model", MODELS)
def test_twice_gives_the_same_bytes_and_none_of_the_other_models(
    model: str, work: Path, scored: Path, keras: Any
) -> None:
    evaluate.main(model)
    for name in [*OUTPUTS, "metrics/predictions/{}.npz"]:
        assert Path(name.format(model)).read_bytes() == (scored / name.format(model)).read_bytes()
    written = {path.stem for path in Path("metrics").rglob("*") if path.is_file() and path.parent.name != "runs"}
    assert written == {"dataset", model}


def test_no_draws_no_augmented_scores(work: Path, keras: Any) -> None:
    change_parameters({"evaluate.augmented_draws": 0})
    evaluate.main("keras_cnn")
    assert "test_augmented" not in numbers("keras_cnn")
    assert Path("metrics/augmented/keras_cnn.csv").read_text(encoding="utf-8") == "draw,accuracy,loss\n"


def test_one_draw_has_no_spread(work: Path, keras: Any) -> None:
    change_parameters({"evaluate.augmented_draws": 1})
    evaluate.main("keras_cnn")
    summary = numbers("keras_cnn")["test_augmented"]
    assert (summary["draws"], summary["accuracy_std"], summary["loss_std"]) == (1, 0, 0)


def test_more_draws_leave_the_first_as_they_were(work: Path, keras: Any) -> None:
    tables = []
    for draws in (2, 4):
        change_parameters({"evaluate.augmented_draws": draws})
        evaluate.main("keras_cnn")
        tables.append(read_rows(Path("metrics/augmented/keras_cnn.csv")))
    assert tables[0] == tables[1][:2]


def test_without_validation_there_is_none_in_the_metrics(work: Path, keras: Any) -> None:
    nothing = {"validation": {"loss": None, "accuracy": None}}
    write_json(Path("metrics/runs/keras_cnn.json"), run_record("keras_cnn") | nothing)
    evaluate.main("keras_cnn")
    assert "validation" not in numbers("keras_cnn")


def test_images_are_predicted_in_parts_that_change_nothing(
    work: Path, keras: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = model_file.predictor(PARAMETERS["resnet18"])(test_images().pixels)
    monkeypatch.setattr(model_file, "BATCH", 7)
    parts = model_file.predictor(PARAMETERS["resnet18"])(test_images().pixels)
    assert parts.shape == (60, 10)
    assert parts == pytest.approx(whole, abs=1e-5)


# Files that are no model of ours


def save_cnn_of_five_classes(keras: Any, path: Path) -> None:
    layers = [keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(5)]
    keras.Sequential(layers).save(path)


def save_cnn_of_other_images(keras: Any, path: Path) -> None:
    layers = [keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    keras.Sequential(layers).save(path)


def save_truncated_cnn(keras: Any, path: Path) -> None:
    keras_cnn.build([4], 3, 8, [0.3, 0.4]).save(path)
    path.write_bytes(path.read_bytes()[:-2000])


def save_lambda(keras: Any, path: Path) -> None:
    """A model of the right shape with a layer whose code runs when the model is loaded; here it makes a folder."""
    payload = keras.layers.Lambda(lambda x: (__import__("os").makedirs("ran", exist_ok=True), x)[1])
    layers = [keras.Input((32, 32, 3)), payload, keras.layers.Flatten(), keras.layers.Dense(10)]
    keras.Sequential(layers).save(path)
    if Path("ran").exists():
        Path("ran").rmdir()


BAD_KERAS_MODELS: dict[str, tuple[Callable[[Any, Path], Any], str]] = {
    "missing": (lambda keras, path: None, ""),
    "folder": (lambda keras, path: path.mkdir(), ""),
    "empty": (lambda keras, path: path.write_bytes(b""), ""),
    "junk": (lambda keras, path: path.write_bytes(b"\x80\x02PK\x03\x04junk" * 100), ""),
    "truncated": (save_truncated_cnn, ""),
    "five classes": (save_cnn_of_five_classes, "it maps (None, 32, 32, 3) to (None, 5)"),
    "other images": (save_cnn_of_other_images, "it maps (None, 28, 28, 1) to (None, 10)"),
    "lambda": (save_lambda, "deserialization"),
    "a torch file": (lambda keras, path: torch.save({}, path), ""),
}


@pytest.mark.parametrize(("save", "reason"), BAD_KERAS_MODELS.values(), ids=BAD_KERAS_MODELS.keys())
def test_a_file_that_is_no_keras_cnn_is_one_line(
    save: Callable[[Any, Path], Any], reason: str, own_models: Path, keras: Any
) -> None:
    save(keras, MODEL_FILES["keras_cnn"])
    line = one_line("keras_cnn")
    assert line.startswith("evaluate@keras_cnn: models/keras_cnn.keras is not a model that this pipeline trained (")
    assert line.endswith(f"); {FROM_SCRATCH.format(MODEL_FILES['keras_cnn'])}")
    assert reason in line
    assert len(line) < 400
    assert not Path("ran").exists()


def test_the_lambda_would_have_run(own_models: Path, keras: Any) -> None:
    """Otherwise the test above would show nothing."""
    save_lambda(keras, MODEL_FILES["keras_cnn"])
    assert not Path("ran").exists()
    keras.saving.load_model(MODEL_FILES["keras_cnn"], safe_mode=False)
    assert Path("ran").exists()


class Payload:
    """A pickle that makes a folder if the unpickler runs what it is given."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


def save_truncated_resnet(path: Path) -> None:
    torch.save(resnet18.build().state_dict(), path)
    path.write_bytes(path.read_bytes()[:1_000_000])


BAD_RESNETS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "No such file"),
    "empty": (lambda path: path.write_bytes(b""), ""),
    "junk": (lambda path: path.write_bytes(b"\x80\x02junk" * 100), ""),
    "truncated": (save_truncated_resnet, ""),
    "payload": (lambda path: torch.save({"conv1.weight": Payload()}, path), "or holds more than tensors"),
    "1000 classes": (lambda path: torch.save(resnet18.build(1000).state_dict(), path), "size mismatch for fc.weight"),
    "another architecture": (lambda path: torch.save(models.squeezenet1_1().state_dict(), path), "Missing key(s)"),
    "a tensor": (lambda path: torch.save(torch.zeros(3), path), ""),
    "a whole module": (lambda path: torch.save(torch.nn.Linear(2, 2), path), ""),
}


@pytest.mark.parametrize(("save", "reason"), BAD_RESNETS.values(), ids=BAD_RESNETS.keys())
def test_a_file_that_is_no_resnet18_is_one_line(save: Callable[[Path], Any], reason: str, own_models: Path) -> None:
    save(MODEL_FILES["resnet18"])
    line = one_line("resnet18")
    assert line.startswith("evaluate@resnet18: models/resnet18.pt is not a model that this pipeline trained (")
    assert line.endswith(f"); {FROM_SCRATCH.format(MODEL_FILES['resnet18'])}")
    assert reason in line
    assert len(line) < 400
    assert not Path("ran").exists()


def test_a_model_that_predicts_no_numbers_is_one_line(own_models: Path) -> None:
    content = resnet18.build().state_dict()
    content["fc.bias"][3] = np.nan
    torch.save(content, MODEL_FILES["resnet18"])
    line = one_line("resnet18")
    assert "resnet18 predicts no finite numbers: its training diverged; lower its learning rate" in line
    assert line.endswith(WAY_BACK)


@pytest.mark.parametrize(
    "path", ["metrics/runs/resnet18.json", "metrics/dataset.json", "data/processed/test_images.npy"]
)
@pytest.mark.parametrize("content", [None, b"", b"{"], ids=["missing", "empty", "broken"])
def test_a_damaged_input_is_named_in_one_line(path: str, content: bytes | None, work: Path) -> None:
    Path(path).unlink() if content is None else Path(path).write_bytes(content)
    line = one_line("resnet18")
    assert line.startswith(f"evaluate@resnet18: {path} ")
    assert f"if git has it: git restore {path}; else: " in line


# The command


@pytest.mark.usefixtures("workdir")
@pytest.mark.parametrize("arguments", [(), ("lenet",), ("keras_cnn", "resnet18")])
@pytest.mark.filterwarnings("ignore:'stages.evaluate' found in sys.modules:RuntimeWarning")
def test_another_model_is_refused(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate", *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("stages.evaluate", run_name="__main__")
    assert ended.value.code == "usage: python -m stages.evaluate keras_cnn|resnet18"  # on stderr, with status 1


@pytest.mark.parametrize(("model", "other"), [("keras_cnn", "torch"), ("resnet18", "tensorflow")])
def test_in_a_process_of_its_own_it_gives_the_same_and_imports_one_framework(
    model: str, other: str, work: Path, scored: Path
) -> None:
    result = run_stage("evaluate", model, without=other)
    assert result.returncode == 0, result.stderr
    for name in OUTPUTS:
        assert Path(name.format(model)).read_bytes() == (scored / name.format(model)).read_bytes()


def test_hand_computed_scores() -> None:
    # Class 0: precision 1, recall 1, F1 1. Class 1: 1/2, 1, 2/3. Class 2: 1, 1/2, 2/3.
    assert score(FOUR, TRUE) == {
        "accuracy": 0.75,
        "loss": round(-(3 * np.log(0.5) + np.log(0.25)) / 4, 6),
        "precision_macro": 0.833333,
        "recall_macro": 0.833333,
        "f1_macro": 0.777778,
    }


def test_hand_computed_report() -> None:
    assert per_class(FOUR, TRUE, ["a", "b", "c"]) == [
        {"class": "a", "precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1},
        {"class": "b", "precision": 0.5, "recall": 1.0, "f1": 0.666667, "support": 1},
        {"class": "c", "precision": 1.0, "recall": 0.5, "f1": 0.666667, "support": 2},
    ]


def test_a_constant_guess_loses_the_logarithm_of_the_number_of_classes() -> None:
    uniform = np.full((20, 10), 0.1, dtype=np.float32)
    assert accuracy_and_loss(uniform, np.arange(20) % 10) == {"accuracy": 0.1, "loss": 2.302585}


@pytest.mark.filterwarnings("error")
def test_a_class_absent_from_labels_and_predictions_counts_as_zero() -> None:
    # Perfect on the two classes that occur; the third one's zeros stay in the mean.
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]], dtype=np.float32)
    labels = np.array([0, 1], dtype=np.uint8)
    scores = score(probabilities, labels)
    assert scores["accuracy"] == 1.0
    assert scores["loss"] == round(-np.log(0.8), 6)
    assert scores["precision_macro"] == scores["recall_macro"] == scores["f1_macro"] == 0.666667
    absent = per_class(probabilities, labels, ["a", "b", "c"])[2]
    assert absent == {"class": "c", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


@pytest.mark.filterwarnings("error")
def test_float32_rows_that_miss_one_by_rounding_are_accepted_without_a_warning() -> None:
    probabilities = np.full((4, 10), 0.1, dtype=np.float32) * np.float32(1 + 1e-6)
    assert accuracy_and_loss(probabilities, np.arange(4))["loss"] == 2.302585


def test_names_must_be_as_many_as_classes() -> None:
    with pytest.raises(ValueError, match="longer"):
        per_class(FOUR, TRUE, ["a", "b"])
