"""Training ResNet-18: the loop against one by hand, what the parameters change, its records."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.transforms import functional as transforms

from stages import split, train_resnet18
from stages.common.config import load
from stages.common.errors import WAY_BACK
from stages.common.files import read_rows
from stages.resnet18 import architecture as resnet18
from stages.resnet18.batches import Batches
from stages.resnet18.model_file import MODEL_FILE
from stages.train_resnet18 import HISTORY_FILE, RUN_FILE, RUNTIME_FILE, Parameters
from stages.training.augmentation import augment, draw
from stages.training.images import Images, load_images
from stages.training.log import COLUMNS, TrainingLog
from stages.training.randomness import generator
from tests.support.stage_runs import (
    ROOT,
    change_parameters,
    few_images,
    one_line,
    prepare,
    replayed_plateau,
    run_stage,
    starting_point,
)

pytestmark = pytest.mark.usefixtures("own_process_settings")

RESULTS = (MODEL_FILE, HISTORY_FILE, RUN_FILE)
SHORT = {"resnet18.batch_size": 24, "resnet18.epochs": 2}  # 24, 24 and 2 images


@pytest.fixture
def images() -> Images:
    return few_images()


@pytest.fixture
def work(workdir: Path) -> Path:
    """A working directory with synthetic data and parameters for a short training."""
    prepare(SHORT)
    return workdir


def parameters(seed: int = 7, **section: Any) -> Parameters:
    """The committed parameters with these changes, those of the section `resnet18` by name."""
    committed = load(Parameters, ROOT / "params.yaml")
    changed = committed.resnet18.model_copy(update={"batch_size": 8} | section)
    return committed.model_copy(update={"seed": seed, "resnet18": changed})


def new_log(folder: Path, given: Parameters, images: int) -> TrainingLog:
    return TrainingLog(
        folder / "history.csv", given.resnet18.epochs, -(-images // given.resnet18.batch_size), "cifar10"
    )


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


# The loop


@pytest.mark.parametrize(("weight_decay", "seed", "validation_augmentation"), [(0.0, 7, "flip_crop"), (0.1, 8, "none")])
def test_two_epochs_are_plain_pytorch_to_the_bit(
    images: Images, tmp_path: Path, weight_decay: float, seed: int, validation_augmentation: str
) -> None:
    """Batches of 8, 8 and 3 images by hand: order, torchvision's augmentation, cross-entropy, Adam with its decay."""
    given = parameters(
        seed,
        epochs=2,
        weight_decay=weight_decay,
        learning_rate=0.002,
        validation_augmentation=validation_augmentation,
    )
    torch.manual_seed(7)
    model, by_hand = resnet18.build(), resnet18.build()
    by_hand.load_state_dict(model.state_dict())
    rows, validation_rows = np.arange(3, 22), np.arange(22, 26)
    log = new_log(tmp_path, given, len(rows))
    train_resnet18.train(model, (images, rows), (images, validation_rows), given, log)

    optimiser = torch.optim.Adam(by_hand.parameters(), lr=0.002, weight_decay=weight_decay, fused=True)
    by_hand.train()
    for epoch in (1, 2):
        order = generator(seed, epoch, "order").permutation(rows)
        choices = draw("flip_crop", 19, generator(seed, epoch, "augmentation"))
        losses, right = [], []
        for batch in (range(8), range(8, 16), range(16, 19)):
            pictures = []
            for number in batch:
                picture = torch.from_numpy(images.pixels[order[number]]).permute(2, 0, 1)
                picture = transforms.hflip(picture) if choices.flip[number] else picture
                top, left = int(choices.top[number]), int(choices.left[number])
                picture = transforms.crop(transforms.pad(picture, [4]), top, left, 32, 32)
                pictures.append(picture.permute(1, 2, 0).numpy())
            labels = torch.from_numpy(images.labels[order[list(batch)]]).long()
            pixels = np.ascontiguousarray(np.stack(pictures))
            logits = by_hand(resnet18.to_input(pixels, given.resnet18.mean, given.resnet18.std))
            losses.extend(nn.CrossEntropyLoss(reduction="none")(logits, labels).tolist())
            right.extend((logits.argmax(1) == labels).tolist())
            optimiser.zero_grad()
            nn.CrossEntropyLoss()(logits, labels).backward()
            optimiser.step()
        row = log.rows[epoch - 1]
        assert row["train_loss"] == pytest.approx(np.mean(losses), rel=2e-6)
        assert row["train_accuracy"] == pytest.approx(np.mean(right), rel=2e-6)
        assert row["learning_rate"] == 0.002
    expected = by_hand.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_each_seed_starts_from_its_own_weights(work: Path) -> None:
    def weights(model: nn.Module) -> bytes:
        return b"".join(value.numpy().tobytes() for value in model.state_dict().values())

    found = [starting_point(train_resnet18, 0, seed, weights) for seed in (7, 8, 7)]
    assert found[0] == found[2] != found[1]


def test_validation_measures_and_learns_nothing(images: Images) -> None:
    """Its loss is the network's in evaluation mode, computed by hand, even if the last batch is smaller."""
    model = resnet18.build()
    before = state(model)
    rows = np.array([25, 3, 7, 0, 9, 1, 2])
    choices = draw("flip_crop", 7, generator(7, 1, "validation augmentation"))
    given = parameters().resnet18
    batches = Batches(images, rows, "flip_crop", given.mean, given.std, nn.Sequential(), torch.device("cpu"))
    measured = train_resnet18.validate(model.eval(), batches(rows, choices, 5))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        logits = model(resnet18.to_input(augment(images.pixels[rows], choices), given.mean, given.std))
    labels = torch.from_numpy(images.labels[rows]).long()
    assert measured["loss"] == pytest.approx(nn.CrossEntropyLoss()(logits, labels).item(), rel=1e-5)
    assert measured["accuracy"] == (logits.argmax(1) == labels).sum().item() / 7


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


# The stage


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which the stage has run once; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        monkeypatch.delenv("DVC_ROOT", raising=False)
        prepare(SHORT)
        result = run_stage("train_resnet18", without="tensorflow,keras")
    assert result.returncode == 0, result.stderr
    assert "epoch 2/2" in result.stdout
    return folder


def test_writes_the_history_the_model_and_the_records(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)

    rows = read_rows(HISTORY_FILE)
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

    test = load_images("test")
    pixels = augment(test.pixels, draw("flip_crop", 10, generator(7, 2, "validation augmentation")))
    assert float(last["val_loss"]) == pytest.approx(loss_of_saved(pixels, test.labels), rel=1e-5)


def loss_of_saved(pixels: np.ndarray, labels: np.ndarray) -> float:
    """The loss of the saved weights, which torchvision loads, on these images."""
    model = models.resnet18(num_classes=10)
    model.load_state_dict(torch.load(MODEL_FILE, weights_only=True))
    given = load(Parameters).resnet18
    with torch.no_grad():
        logits = model.eval()(resnet18.to_input(pixels, given.mean, given.std))
    return nn.CrossEntropyLoss()(logits, torch.from_numpy(labels).long()).item()


def test_another_process_gives_the_same_bytes(trained: Path, work: Path) -> None:
    train_resnet18.main()
    for path in RESULTS:
        assert path.read_bytes() == (trained / path).read_bytes(), path


def test_the_texts_interpretation_runs_whole(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the paper describes and its notebook did not do, together; only the classifier trains."""
    train, taken = train_resnet18.train, []

    def spy(model: nn.Module, training: Any, validating: Any, *others: Any) -> int:
        taken.extend([training[1], validating[1]])
        return train(model, training, validating, *others)

    monkeypatch.setattr(train_resnet18, "train", spy)
    weights = resnet18.build(outputs=1000).state_dict()
    torch.save(weights, tmp_path / "weights.pt")
    changes = {
        "weights": "file",
        "weights_file": str(tmp_path / "weights.pt"),
        "frozen": [name for name in resnet18.LAYERS if name != "fc"],
        "weight_decay": 0.0001,
        "learning_rate": 0.1,
        "epochs": 30,
        "validation": "held_out",
        "validation_augmentation": "none",
        "early_stopping_patience": 2,
        "reduce_lr_patience": 1,
    }
    change_parameters({f"resnet18.{name}": value for name, value in changes.items()})
    train_resnet18.main()
    run, rows = json.loads(RUN_FILE.read_text(encoding="utf-8")), read_rows(HISTORY_FILE)
    assert run["data"] == {"train_images": 40, "validation_images": 10}
    assert run["weights"] == 11_181_642
    assert run["trainable_weights"] == 512 * 10 + 10
    kept = torch.load(MODEL_FILE, weights_only=True)
    assert not [name for name in kept if not name.startswith("fc.") and not torch.equal(kept[name], weights[name])]

    # It stopped, and slowed, as the rule of stages/training/plateau.py has it, with the best weights.
    plateau = replayed_plateau(load(Parameters).resnet18, rows)
    assert plateau.stops_before(len(rows) + 1) or len(rows) == changes["epochs"]  # it differs by machine and threads
    assert run["best_epoch"] == plateau.best_epoch
    assert run["validation"]["loss"] == plateau.best_loss
    images, parts = load_images("train"), np.load("data/processed/split.npz")
    held_out = parts["validation"]
    assert np.array_equal(taken[0], parts["train"])
    assert np.array_equal(taken[1], held_out)
    loss = loss_of_saved(images.pixels[held_out], images.labels[held_out])
    assert plateau.best_loss == pytest.approx(loss, rel=1e-5)


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
        (
            {"resnet18.device": "cuda"},
            "resnet18.device is cuda, but PyTorch sees no GPU here; use -S resnet18.device=cpu; ",
        ),
    ],
)
def test_what_cannot_train_or_validate_is_refused(
    work: Path, changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    change_parameters(changes)
    split.main()
    line = one_line("train_resnet18", train_resnet18.main)
    assert message in line
    assert line.endswith(f"; {WAY_BACK}")
    assert not HISTORY_FILE.exists()
    assert not MODEL_FILE.exists()


def test_it_says_that_the_test_set_steers_and_that_it_diverged(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_parameters({"resnet18.learning_rate": 1e30, "resnet18.early_stopping_patience": 3})
    assert "the training diverged: " in one_line("train_resnet18", train_resnet18.main)
    assert "the test set now steers the training" in capsys.readouterr().out
    assert not MODEL_FILE.exists()
    assert not RUN_FILE.exists()
