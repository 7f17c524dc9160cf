"""Training ResNet-18: the loop against one by hand, its readings of the paper's text, its records."""

import csv
import hashlib
import json
import math
import os
import pickle
import shutil
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models import ResNet18_Weights
from torchvision.transforms import functional as transforms

from stages import keras_backend, preprocess, split, torch_batches, train_resnet18
from stages.architectures import resnet18
from stages.augmentation import augment, draw
from stages.dataset import Images, load_images
from stages.download import main as download
from stages.errors import WAY_BACK, BadParameter
from stages.errors import run_program as ending
from stages.parameters import load
from stages.randomness import derived_seed, generator
from stages.torch_batches import Batches
from stages.train_resnet18 import HISTORY_FILE, MODEL_FILE, RUN_FILE, RUNTIME_FILE, Parameters, ResNet18
from stages.training_log import COLUMNS, TrainingLog
from tests.stage_runs import ROOT, change_parameters, run_stage

# Keras's conversion of a TensorFlow tensor to NumPy, and PyTorch's word on a pickle before it refuses it.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning"),
    pytest.mark.usefixtures("process_settings"),
]


@pytest.fixture
def images() -> Images:
    rng = np.random.default_rng(0)
    return Images(rng.integers(0, 256, (26, 32, 32, 3), dtype=np.uint8), np.arange(26, dtype=np.uint8) % 10)


@pytest.fixture
def work(workdir: Path) -> Path:
    """A working directory with a stand-in of 50 + 10 images, split 40 and 10, and two epochs of 24, 24 and 2 images."""
    download()
    preprocess.main()
    split.main()
    change_parameters({"resnet18.batch_size": 24, "resnet18.epochs": 2})
    return workdir


def parameters(seed: int = 7, **section: Any) -> Parameters:
    """The committed parameters with these changes, those of the section `resnet18` by name."""
    committed = load(Parameters, ROOT / "params.yaml")
    changed = committed.resnet18.model_copy(update={"batch_size": 8} | section)
    return committed.model_copy(update={"seed": seed, "resnet18": changed})


def section(**changes: Any) -> ResNet18:
    return parameters(**changes).resnet18


def classifier() -> nn.Module:
    """The cheapest network there is."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))


def new_log(folder: Path, given: Parameters, images: int) -> TrainingLog:
    return TrainingLog(
        folder / "history.csv", given.resnet18.epochs, -(-images // given.resnet18.batch_size), "cifar10"
    )


def history() -> list[dict[str, str]]:
    with HISTORY_FILE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def one_line(main: Callable[[], None]) -> str:
    """What the stage ends with where an expected error stops it."""
    with pytest.raises(SystemExit) as caught:
        ending("train_resnet18", main)
    line = caught.value.code
    assert isinstance(line, str)
    assert "\n" not in line
    return line


# The loop


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_an_epoch_is_plain_pytorch_to_the_bit(images: Images, tmp_path: Path, weight_decay: float) -> None:
    """Batches of 8, 8 and 3 images by hand: order, torchvision's augmentation, cross-entropy, Adam with its decay."""
    given = parameters(epochs=1, weight_decay=weight_decay, learning_rate=0.002)
    torch.manual_seed(7)
    model = resnet18.build()
    torch.manual_seed(7)
    by_hand = resnet18.build()
    rows, validation_rows = np.arange(3, 22), np.arange(22, 26)
    log = new_log(tmp_path, given, len(rows))
    train_resnet18.train(model, (images, rows), (images, validation_rows), given, log)

    optimiser = torch.optim.Adam(by_hand.parameters(), lr=0.002, weight_decay=weight_decay, fused=True)
    order = generator(7, 1, "order").permutation(rows)
    choices = draw("flip_crop", 19, generator(7, 1, "augmentation"))
    losses, right = [], []
    by_hand.train()
    for batch in (range(8), range(8, 16), range(16, 19)):
        pictures = []
        for number in batch:
            picture = torch.from_numpy(images.pixels[order[number]]).permute(2, 0, 1)
            picture = transforms.hflip(picture) if choices.flip[number] else picture
            top, left = int(choices.top[number]), int(choices.left[number])
            pictures.append(transforms.crop(transforms.pad(picture, [4]), top, left, 32, 32).permute(1, 2, 0).numpy())
        labels = torch.from_numpy(images.labels[order[list(batch)]]).long()
        logits = by_hand(
            resnet18.to_input(np.ascontiguousarray(np.stack(pictures)), given.resnet18.mean, given.resnet18.std)
        )
        each = nn.CrossEntropyLoss(reduction="none")(logits, labels)
        optimiser.zero_grad()
        nn.CrossEntropyLoss()(logits, labels).backward()
        optimiser.step()
        losses.extend(each.tolist())
        right.extend((logits.argmax(1) == labels).tolist())

    expected = state(by_hand)
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert log.rows[0]["train_loss"] == pytest.approx(np.mean(losses), rel=2e-6)
    assert log.rows[0]["train_accuracy"] == pytest.approx(np.mean(right), rel=2e-6)
    assert log.rows[0]["learning_rate"] == 0.002


def test_validation_measures_and_learns_nothing(images: Images) -> None:
    """Its loss is by hand that of the network in evaluation mode, also where the last batch is smaller."""
    model = resnet18.build()
    before = state(model)
    rows = np.array([25, 3, 7, 0, 9, 1, 2])
    choices = draw("flip_crop", 7, generator(7, 1, "validation augmentation"))
    given = section()
    batches = Batches(images, rows, "flip_crop", given.mean, given.std, nn.Sequential(), torch.device("cpu"))
    measured = train_resnet18.validate(model.eval(), batches(rows, choices, 5))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        logits = model(resnet18.to_input(augment(images.pixels[rows], choices), given.mean, given.std))
    labels = torch.from_numpy(images.labels[rows]).long()
    assert measured["loss"] == pytest.approx(nn.CrossEntropyLoss()(logits, labels).item(), rel=1e-5)
    assert measured["accuracy"] == (logits.argmax(1) == labels).sum().item() / 7


def test_each_epoch_draws_its_own_choices(images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[list[int], Any]] = []
    made = Batches.__call__

    def spy(batches: Batches, order: Any, choices: Any, batch_size: int) -> Any:
        drawn.append((order.tolist(), choices))
        torch.rand(17)  # whatever else draws between: nothing may depend on a generator's history
        np.random.random(17)  # noqa: NPY002
        return made(batches, order, choices, batch_size)

    monkeypatch.setattr(Batches, "__call__", spy)
    given = parameters(epochs=2, validation_augmentation="flip")
    rows, validation_rows = np.arange(20), np.arange(20, 26)
    log = new_log(tmp_path, given, 20)
    train_resnet18.train(classifier(), (images, rows), (images, validation_rows), given, log)

    for epoch in (1, 2):
        order, choices = drawn[2 * epoch - 2]
        assert order == generator(7, epoch, "order").permutation(rows).tolist()
        expected = draw("flip_crop", 20, generator(7, epoch, "augmentation"))
        assert np.array_equal(choices.flip, expected.flip)
        assert np.array_equal(choices.top, expected.top)
        assert np.array_equal(choices.left, expected.left)
        validation_order, choices = drawn[2 * epoch - 1]
        assert validation_order == validation_rows.tolist()
        expected = draw("flip", 6, generator(7, epoch, "validation augmentation"))
        assert np.array_equal(choices.flip, expected.flip)
        assert np.array_equal(choices.left, expected.left)
    assert drawn[0][0] != drawn[2][0]


def test_frozen_layers_keep_their_weights_and_their_batch_norms_statistics(images: Images, tmp_path: Path) -> None:
    frozen = ["conv1", "bn1", "layer1", "layer3"]
    given = parameters(epochs=2, frozen=frozen, weight_decay=0.1)
    torch.manual_seed(7)
    model = train_resnet18.starting_model(given.resnet18)
    before = state(model)
    rows = np.arange(16)
    train_resnet18.train(model, (images, rows), (images, np.arange(16, 26)), given, new_log(tmp_path, given, 16))
    after = model.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {name for name in after if name.split(".")[0] not in frozen}
    assert {"layer2.0.bn1.running_mean", "layer4.1.bn2.num_batches_tracked", "fc.bias"} <= changed


def test_frozen_layers_see_each_image_once_where_nothing_augments(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their features are kept over the epochs; computed anew for each batch, they teach the rest the same."""
    frozen = ["conv1", "bn1", "layer1", "layer2"]
    given = parameters(epochs=3, frozen=frozen, augmentation="none", validation_augmentation="none")
    rows, validation_rows = np.arange(16), np.arange(16, 26)
    seen: list[int] = []
    losses = []
    for most in (torch_batches.MOST_FEATURES, 0):
        monkeypatch.setattr(torch_batches, "MOST_FEATURES", most)
        torch.manual_seed(7)
        model = train_resnet18.starting_model(given.resnet18)
        model.layer2.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
        log = new_log(tmp_path, given, 16)
        train_resnet18.train(model, (images, rows), (images, validation_rows), given, log)
        losses.append([row[name] for row in log.rows for name in ("train_loss", "val_loss")])
        if most:
            assert sum(seen) == 1 + 16 + 1 + 10  # one image of each tells how large the features are
            seen.clear()
    assert sum(seen) == 1 + 1 + 3 * (16 + 10)
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-5)  # then rounding grows, as in any training
    assert losses[0] == pytest.approx(losses[1], rel=0.1)


def test_without_frozen_layers_everything_learns(images: Images, tmp_path: Path) -> None:
    given = parameters(epochs=1)
    model = train_resnet18.starting_model(given.resnet18)
    before = state(model)
    train_resnet18.train(
        model, (images, np.arange(16)), (images, np.arange(16, 26)), given, new_log(tmp_path, given, 16)
    )
    assert not [name for name, value in model.state_dict().items() if torch.equal(value, before[name])]


# Early stopping and the learning rate


FALLS_THEN_RISES = [2.0, 1.5, 1.2, *[1.3 + 0.01 * step for step in range(30)]]


def driven(
    given: Parameters, losses: list[float], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[float], int, list[torch.Tensor], torch.Tensor]:
    """The learning rates, the kept epoch, and each epoch's and the final weights, of train() with these losses."""
    given_losses = iter(losses)
    weights = []

    def prepared(model: nn.Sequential, *_: Any) -> dict[str, float]:
        weights.append(model[1].weight.detach().clone())
        return {"loss": next(given_losses), "accuracy": 0.5}

    monkeypatch.setattr(train_resnet18, "validate", prepared)
    pictures = Images(np.full((4, 32, 32, 3), 99, dtype=np.uint8), np.arange(4, dtype=np.uint8))
    model = classifier()
    log = new_log(folder, given, 4)
    kept = train_resnet18.train(model, (pictures, np.arange(4)), (pictures, np.arange(4)), given, log)
    return [row["learning_rate"] for row in log.rows], kept, weights, model[1].weight.detach()


def test_by_default_all_epochs_run_at_one_rate_and_the_last_weights_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates, kept, weights, final = driven(parameters(), FALLS_THEN_RISES, tmp_path, monkeypatch)
    assert rates == [0.001] * 20
    assert kept == 20
    assert torch.equal(final, weights[-1])


@pytest.mark.parametrize(
    ("losses", "patience", "epochs_run", "kept"),
    [
        (FALLS_THEN_RISES, 4, 7, 3),
        (FALLS_THEN_RISES, 1, 4, 3),
        (FALLS_THEN_RISES, 40, 20, 3),
        ([2.0, 2.1, 1.9, 2.0, 1.8, *[1.9] * 30], 2, 7, 5),
        ([1.0] * 30, 3, 4, 1),  # no lower is no better
        ([1.0 - 0.00001 * step for step in range(30)], 1, 20, 20),
    ],
)
def test_early_stopping_keeps_the_best_weights(
    losses: list[float],
    patience: int,
    epochs_run: int,
    kept: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = parameters(early_stopping_patience=patience)
    rates, best, weights, final = driven(given, losses, tmp_path, monkeypatch)
    assert (len(rates), best) == (epochs_run, kept)
    assert torch.equal(final, weights[kept - 1])
    assert len({weight.numpy().tobytes() for weight in weights}) == epochs_run


def test_the_rate_falls_after_its_patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: epochs 4 and 5 are no better than 3, so 6 runs at half; then 6 and 7, and so on to the floor."""
    given = parameters(epochs=12, reduce_lr_patience=2, min_learning_rate=0.0002)
    rates, kept, _, _ = driven(given, FALLS_THEN_RISES, tmp_path, monkeypatch)
    assert rates == [0.001] * 5 + [0.0005] * 2 + [0.00025] * 2 + [0.0002] * 3
    assert kept == 12


@pytest.fixture(scope="module")
def keras() -> Any:
    with mock.patch.dict(os.environ):
        return keras_backend.start("tensorflow", "cpu")


def test_stops_and_slows_at_the_epochs_at_which_keras_does(
    keras: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty random walks with random settings, beside Keras's own callbacks on the same losses."""
    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    stopped = slowed = 0
    for _ in range(20):
        losses = (2 + rng.normal(-0.01, 0.1, 30).cumsum()).tolist()
        settings: dict[str, Any] = {
            "epochs": 30,
            "learning_rate": 0.01,
            "early_stopping_patience": int(rng.integers(3, 20)),
            "reduce_lr_patience": int(rng.integers(1, 6)),
            "reduce_lr_factor": float(rng.choice([0.1, 0.5, 0.7])),
            "min_learning_rate": float(rng.choice([1e-5, 1e-4, 1e-3])),
        }
        rates, kept, _, _ = driven(parameters(**settings), losses, tmp_path, monkeypatch)

        model.compile(keras.optimizers.Adam(settings["learning_rate"]), "mse")
        stopping = keras.callbacks.EarlyStopping(
            "val_loss", patience=settings["early_stopping_patience"], restore_best_weights=True
        )
        slowing = keras.callbacks.ReduceLROnPlateau(
            "val_loss",
            factor=settings["reduce_lr_factor"],
            patience=settings["reduce_lr_patience"],
            min_lr=settings["min_learning_rate"],
        )
        model.stop_training = False
        expected = []
        for callback in (stopping, slowing):
            callback.set_model(model)
            callback.on_train_begin()
        for epoch, loss in enumerate(losses):
            expected.append(float(model.optimizer.learning_rate))
            for callback in (stopping, slowing):
                callback.on_epoch_end(epoch, {"val_loss": loss})
            if model.stop_training:
                break
        assert rates == pytest.approx(expected, rel=1e-5)  # Keras's are float32
        assert kept == stopping.best_epoch + 1
        stopped += len(rates) < 30
        slowed += len(set(rates)) > 2
    assert stopped > 5  # or the walks would show nothing
    assert slowed > 5


# Where it starts


def saved(tmp_path: Path, content: Any) -> dict[str, str]:
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    return {"weights": "file", "weights_file": str(path)}


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_starts_from_the_features_of_a_state_dict_with_a_new_classifier(tmp_path: Path, half: bool) -> None:
    """As ImageNet's: 1000 classes, whose classifier is of no use here."""
    torch.manual_seed(1)
    pretrained = resnet18.build(outputs=1000)
    pretrained = pretrained.half() if half else pretrained
    given = section(**saved(tmp_path, pretrained.state_dict()))
    torch.manual_seed(7)
    model = train_resnet18.starting_model(given)
    torch.manual_seed(7)
    fresh = resnet18.build().state_dict()
    for name, value in model.state_dict().items():
        expected = fresh[name] if name.startswith("fc.") else pretrained.state_dict()[name].to(value.dtype)
        assert torch.equal(value, expected), name
        assert value.dtype == fresh[name].dtype
    assert model.fc.out_features == 10


def test_a_classifier_of_ten_classes_is_new_too(tmp_path: Path) -> None:
    """Whatever the file was trained for: only then do all files mean the same."""
    pretrained = resnet18.build().state_dict()
    model = train_resnet18.starting_model(section(**saved(tmp_path, pretrained)))
    assert not torch.equal(model.state_dict()["fc.weight"], pretrained["fc.weight"])
    assert torch.equal(model.state_dict()["conv1.weight"], pretrained["conv1.weight"])


def test_state_dicts_from_before_batch_norms_counted_batches_still_fit(tmp_path: Path) -> None:
    """torchvision's first ImageNet weights are such."""
    old = {name: value for name, value in resnet18.build(1000).state_dict().items() if "num_batches" not in name}
    model = train_resnet18.starting_model(section(**saved(tmp_path, old)))
    assert torch.equal(model.state_dict()["layer4.1.bn2.weight"], old["layer4.1.bn2.weight"])


def test_none_starts_from_pytorchs_own_random_weights(tmp_path: Path) -> None:
    given = section(weights_file=str(tmp_path / "not there"))  # named, but not asked for
    torch.manual_seed(7)
    model = train_resnet18.starting_model(given)
    torch.manual_seed(7)
    fresh = models.resnet18(num_classes=10).state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in model.state_dict().items())


@pytest.fixture
def imagenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torchvision's file is kept, in a cache of our own, and with a name that fits what the test serves."""
    torch.manual_seed(1)
    served = tmp_path / "served.pth"
    torch.save(resnet18.build(outputs=1000).state_dict(), served)
    digest = hashlib.sha256(served.read_bytes()).hexdigest()[:8]
    weights = mock.Mock(url=f"https://example.org/models/resnet18-{digest}.pth")
    monkeypatch.setattr(train_resnet18, "ResNet18_Weights", mock.Mock(IMAGENET1K_V1=weights))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda url, path: shutil.copy(served, path))
    return tmp_path / f"hub/checkpoints/resnet18-{digest}.pth"


def test_imagenet_is_torchvisions_own(imagenet: Path) -> None:
    assert ResNet18_Weights.IMAGENET1K_V1.url.endswith("/resnet18-f37072fd.pth")
    model = train_resnet18.starting_model(section(weights="imagenet"))
    assert torch.equal(model.state_dict()["conv1.weight"], torch.load(imagenet)["conv1.weight"])


def test_imagenet_is_checked_each_time(imagenet: Path) -> None:
    train_resnet18.starting_model(section(weights="imagenet"))
    imagenet.write_bytes(imagenet.read_bytes()[:-1] + b"!")
    line = one_line(lambda: train_resnet18.starting_model(section(weights="imagenet")))
    assert f"{imagenet} is damaged: it is not torchvision's file; remove it" in line


def test_imagenet_that_cannot_be_had_is_one_line(imagenet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    line = one_line(lambda: train_resnet18.starting_model(section(weights="imagenet")))
    assert "torchvision's ImageNet weights cannot be downloaded" in line
    assert "-S resnet18.weights=file -S resnet18.weights_file=PATH" in line


class Payload:
    """A pickle that leaves a file behind when it is read by an unpickler that runs what it is given."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def write_payload(path: Path) -> None:
    torch.save({"conv1.weight": Payload(path.parent / "ran")}, path)


def write_bare_payload(path: Path) -> None:
    path.write_bytes(pickle.dumps(Payload(path.parent / "ran")))


def write_truncated(path: Path) -> None:
    torch.save(resnet18.build().state_dict(), path)
    path.write_bytes(path.read_bytes()[:1_000_000])


def write_cifar_stem(path: Path) -> None:
    """The widespread ResNet-18 for CIFAR-10 has a 3x3 first convolution."""
    content = resnet18.build().state_dict()
    content["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    torch.save(content, path)


def write_without_a_layer(path: Path) -> None:
    content = resnet18.build().state_dict()
    del content["layer4.1.conv2.weight"]
    torch.save(content, path)


BAD_WEIGHTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "does not exist; give the path of a state dict"),
    "folder": (lambda path: path.mkdir(), "is no state dict that can be read"),
    "empty": (lambda path: path.write_bytes(b""), "is no state dict that can be read"),
    "junk": (lambda path: path.write_bytes(b"\x80\x02junk" * 100), "is no state dict that can be read"),
    "page": (lambda path: path.write_text("<html>404</html>"), "is damaged, or holds more than tensors"),
    "truncated": (write_truncated, "is no state dict that can be read"),
    "payload": (write_payload, "is damaged, or holds more than tensors"),
    "bare payload": (write_bare_payload, "is damaged, or holds more than tensors"),
    "checkpoint": (
        lambda path: torch.save({"model": resnet18.build().state_dict()}, path),
        "holds no state dict; save one with model.state_dict()",
    ),
    "tensor": (lambda path: torch.save(torch.zeros(3), path), "holds no state dict"),
    "another architecture": (
        lambda path: torch.save(models.squeezenet1_1().state_dict(), path),
        "is no state dict of torchvision's resnet18 (see ",
    ),
    "another stem": (write_cifar_stem, "does not fit: Error(s) in loading state_dict for ResNet: size mismatch for"),
    "a layer missing": (write_without_a_layer, "(see 'layer4.1.conv2.weight'); name another file"),
    "nothing in it": (lambda path: torch.save({}, path), "is no state dict of torchvision's resnet18 (see 'conv1."),
}


@pytest.mark.parametrize(("write", "message"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS.keys())
def test_bad_weights_are_refused_in_one_line_that_runs_nothing(
    write: Callable[[Path], Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pt"
    write(path)
    given = section(weights="file", weights_file=str(path))
    line = one_line(lambda: train_resnet18.starting_model(given))
    assert line.startswith(f"train_resnet18: resnet18.weights_file: {path} ")
    assert message in line
    assert line.endswith(f"; {WAY_BACK}")
    assert len(line) < 800
    assert not (tmp_path / "ran").exists()


def test_the_payload_would_have_run(tmp_path: Path) -> None:
    """Or the test above would show nothing."""
    write_payload(tmp_path / "weights.pt")
    torch.load(tmp_path / "weights.pt", weights_only=False)
    assert (tmp_path / "ran").exists()


# The stage


def test_writes_the_history_the_model_and_the_records(work: Path) -> None:
    train_resnet18.main()

    rows = history()
    assert list(rows[0]) == list(COLUMNS)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [row["learning_rate"] for row in rows] == ["0.001", "0.001"]
    last = rows[-1]
    assert json.loads(RUN_FILE.read_text(encoding="utf-8")) == {
        "model": "resnet18",
        "source": "synthetic",
        "data": {"train_images": 50, "validation_images": 10},
        "split": {"validation_fraction": 0.2, "random_state": 7},
        "parameters": load(Parameters).model_dump(),
        "weights": 11_181_642,
        "trainable_weights": 11_181_642,
        "epochs": 2,
        "best_epoch": 2,
        "train": {"loss": float(last["train_loss"]), "accuracy": float(last["train_accuracy"])},
        "validation": {"loss": float(last["val_loss"]), "accuracy": float(last["val_accuracy"])},
    }
    runtime = json.loads(RUNTIME_FILE.read_text(encoding="utf-8"))
    assert runtime["steps_per_epoch"] == 3
    assert len(runtime["epoch_seconds"]) == 2
    assert set(runtime["versions"]) == {"torch", "torchvision", "numpy", "python"}

    # Torchvision loads the saved weights; on the augmented test set they have the loss of the last row.
    model = models.resnet18(num_classes=10)
    model.load_state_dict(torch.load(MODEL_FILE, weights_only=True))
    model.eval()
    test = load_images("test")
    pixels = augment(test.pixels, draw("flip_crop", 10, generator(7, 2, "validation augmentation")))
    given = load(Parameters).resnet18
    with torch.no_grad():
        logits = model(resnet18.to_input(pixels, given.mean, given.std))
    loss = nn.CrossEntropyLoss()(logits, torch.from_numpy(test.labels).long()).item()
    assert float(last["val_loss"]) == pytest.approx(loss, rel=1e-5)


def test_twice_gives_the_same_bytes_also_in_a_process_of_its_own(work: Path) -> None:
    results = []
    for another_process in (False, False, True):
        if another_process:
            result = run_stage("train_resnet18", without="tensorflow,keras")
            assert result.returncode == 0, result.stderr
            assert "epoch 2/2" in result.stdout
        else:
            train_resnet18.main()
        weights = torch.load(MODEL_FILE, weights_only=True)
        results.append(
            (HISTORY_FILE.read_bytes(), RUN_FILE.read_bytes(), [v.numpy().tobytes() for v in weights.values()])
        )
    assert results[0] == results[1] == results[2]

    change_parameters({"seed": 8})
    train_resnet18.main()
    assert HISTORY_FILE.read_bytes() != results[0][0]


class Stopped(Exception):
    """Raised in place of the training."""


def parts_of_main(monkeypatch: pytest.MonkeyPatch) -> tuple[tuple[Images, np.ndarray], tuple[Images, np.ndarray]]:
    """What main() would train and validate on."""
    taken = []

    def train(model: nn.Module, training: Any, validating: Any, *_: Any) -> int:
        taken.append((training, validating))
        raise Stopped

    monkeypatch.setattr(train_resnet18, "train", train)
    with pytest.raises(Stopped):
        train_resnet18.main()
    return taken[0]


def test_by_default_all_images_train_and_the_test_set_validates(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (training, rows), (validating, validation_rows) = parts_of_main(monkeypatch)
    assert np.array_equal(training.pixels, load_images("train").pixels)
    assert np.array_equal(validating.pixels, load_images("test").pixels)
    assert rows.tolist() == list(range(50))
    assert validation_rows.tolist() == list(range(10))


def test_held_out_validates_on_the_splits_part_and_trains_on_the_other(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_parameters({"resnet18.validation": "held_out"})
    (training, rows), (validating, validation_rows) = parts_of_main(monkeypatch)
    with np.load("data/processed/split.npz") as parts:
        assert np.array_equal(rows, parts["train"])
        assert np.array_equal(validation_rows, parts["validation"])
    assert len(rows) == 40
    assert np.array_equal(training.pixels, load_images("train").pixels)
    assert np.array_equal(validating.pixels, training.pixels)


def test_the_texts_reading_runs_whole(work: Path, tmp_path: Path) -> None:
    """What the paper describes and its notebook did not do, together; only the classifier's weights are free."""
    frozen = [name for name in resnet18.LAYERS if name != "fc"]
    weights = resnet18.build(outputs=1000).state_dict()
    change_parameters(
        {
            **{f"resnet18.{name}": value for name, value in saved(tmp_path, weights).items()},
            "resnet18.frozen": frozen,
            "resnet18.weight_decay": 0.0001,
            "resnet18.validation": "held_out",
            "resnet18.validation_augmentation": "none",
            "resnet18.early_stopping_patience": 1,
            "resnet18.reduce_lr_patience": 1,
        }
    )
    train_resnet18.main()
    run = json.loads(RUN_FILE.read_text(encoding="utf-8"))
    assert run["data"] == {"train_images": 40, "validation_images": 10}
    assert run["weights"] == 11_181_642
    assert run["trainable_weights"] == 512 * 10 + 10
    assert run["validation"]["loss"] == min(float(row["val_loss"]) for row in history())
    kept = torch.load(MODEL_FILE, weights_only=True)
    assert not [name for name in kept if not name.startswith("fc.") and not torch.equal(kept[name], weights[name])]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, False),
        ({"resnet18.early_stopping_patience": 3}, True),
        ({"resnet18.reduce_lr_patience": 3}, True),
        ({"resnet18.early_stopping_patience": 3, "resnet18.validation": "held_out"}, False),
    ],
)
def test_says_when_the_test_set_steers_the_training(
    changes: dict[str, Any],
    said: bool,
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change_parameters(changes)
    parts_of_main(monkeypatch)
    assert ("the test set now steers the training" in capsys.readouterr().out) is said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_one_line() -> None:
    line = one_line(lambda: train_resnet18.save(nn.Linear(100, 100), Path("/dev/full")))
    assert line.startswith("train_resnet18: ")
    assert "No space left on device; free some space" in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"resnet18.batch_size": 7},
            "resnet18.batch_size is 7, which leaves one of 50 images for the last batch, and batch norm cannot train",
        ),
        (
            {"resnet18.batch_size": 13, "resnet18.validation": "held_out"},
            "resnet18.batch_size is 13, which leaves one of 40 images for the last batch",
        ),
        (
            {"split.validation_fraction": 0, "resnet18.validation": "held_out"},
            "resnet18.validation is held_out, but split.validation_fraction is 0: raise it, or use test",
        ),
    ],
)
def test_what_cannot_train_or_validate_is_refused(work: Path, changes: dict[str, Any], message: str) -> None:
    change_parameters(changes)
    split.main()
    line = one_line(train_resnet18.main)
    assert message in line
    assert line.endswith(f"; {WAY_BACK}")
    assert not HISTORY_FILE.exists()
    assert not MODEL_FILE.exists()


def test_one_image_in_the_last_batch_is_all_that_is_refused(work: Path) -> None:
    """48 of 50 images leave two, which train; batch norm's own complaint is what the check stands for."""
    train_resnet18.check_batches(50, 10, section(batch_size=48))
    train_resnet18.check_batches(50, 10, section(batch_size=50))
    train_resnet18.check_batches(50, 10, section(batch_size=64))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        resnet18.build()(torch.zeros(1, 3, 32, 32))
    with pytest.raises(BadParameter):
        train_resnet18.check_batches(49, 10, section(batch_size=48))


def test_cuda_is_refused_where_there_is_none(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change_parameters({"resnet18.device": "cuda"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    line = one_line(train_resnet18.main)
    assert "resnet18.device is cuda, but PyTorch sees no GPU here; use -S resnet18.device=cpu; " in line
    assert line.endswith(WAY_BACK)
    assert not HISTORY_FILE.exists()


def test_a_training_that_diverges_ends_with_one_line(work: Path) -> None:
    change_parameters({"resnet18.learning_rate": 1e30})
    line = one_line(train_resnet18.main)
    assert line.startswith("train_resnet18: the training diverged: ")
    assert line.endswith(f"; lower the learning rate; {WAY_BACK}")
    assert not MODEL_FILE.exists() or not MODEL_FILE.read_bytes()  # an empty one shows that it can be written
    assert not RUN_FILE.exists()
    assert all(math.isfinite(float(value)) for row in history() for value in row.values())


def test_the_history_grows_by_a_row_an_epoch(images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grown = []

    def spy(*_: Any) -> dict[str, float]:
        grown.append(log.path.read_text(encoding="utf-8").count("\n"))
        return {"loss": 1.0, "accuracy": 0.5}

    monkeypatch.setattr(train_resnet18, "validate", spy)
    given = parameters(epochs=3)
    log = new_log(tmp_path, given, 20)
    train_resnet18.train(classifier(), (images, np.arange(20)), (images, np.arange(6)), given, log)
    assert grown == [1, 2, 3]  # the header, and the epochs before


def test_a_missing_file_is_named(work: Path) -> None:
    Path("data/processed/test_labels.npy").unlink()
    assert one_line(train_resnet18.main) == (
        "train_resnet18: data/processed/test_labels.npy is missing; "
        "if git has it: git restore data/processed/test_labels.npy; else: dvc repro"
    )
    assert not HISTORY_FILE.exists()


def test_the_seed_of_the_weights_is_derived(work: Path) -> None:
    """With a learning rate too small to change a weight, the saved ones are those of the derived seed."""
    change_parameters({"resnet18.learning_rate": 1e-30, "resnet18.epochs": 1})
    train_resnet18.main()
    kept = torch.load(MODEL_FILE, weights_only=True)
    torch.manual_seed(derived_seed(7, 0, "weights"))
    assert torch.equal(kept["layer3.0.conv1.weight"], resnet18.build().layer3[0].conv1.weight)
