"""Training the second pipeline's network: its loop, its switches, its records, and resuming to the same bytes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from beyond import train
from beyond.recipe import paths, schedule
from beyond.recipe.augmentation import draw, move
from beyond.recipe.settings import WAY_BACK, load
from stages.common.files import read_rows
from stages.training.checkpoint import Checkpoint
from stages.training.images import Images, load_images, load_split
from stages.training.randomness import generator
from tests.support.beyond import change, clear, copy_of, prepare_beyond, settings
from tests.support.stage_runs import ROOT, few_images, kill_in_epoch, one_line, process_settings

RESULTS = (paths.MODEL, paths.HISTORY, paths.RUN)
SWITCHES = {
    "as committed": [],
    "sgd, lookahead": [
        *("optimiser.filters=sgd", "optimiser.filters_rate=0.0015", "averaging.kind=lookahead", "averaging.every=2"),
        *("schedule.start=0.2", "schedule.peak=0.23", "schedule.end=0.07"),
    ],
    "ema, no whitening": ["averaging.kind=ema", "averaging.every=2", "network.whitening=false"],
    "all images": ["validation=none", "augmentation.flip=random"],
}
# Each switch off, or set to another value: the weights after two epochs differ.
CHANGES = [
    "optimiser.filters=sgd",
    "optimiser.newton_schulz_steps=4",
    "optimiser.weight_decay=0.001",
    "schedule.end=0.5",
    "augmentation.flip=none",
    "augmentation.flip=random",
    "augmentation.translate=0",
    "averaging.kind=ema",
    "averaging.kind=lookahead",
    "label_smoothing=0.0",
    "network.whitening=false",
    "network.whitening_bias_epochs=1",
    "network.identity_start=false",
    "network.activation=relu",
    "network.batch_norm_keeps=0.5",
    "seed=8",
]


@pytest.fixture(scope="module", autouse=True)
def _own_settings() -> Iterator[None]:
    with process_settings():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with synthetic data."""
    made = tmp_path_factory.mktemp("beyond")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(made)
        prepare_beyond()
    return made


@pytest.fixture
def work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same, its results removed afterwards."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    change()
    yield folder
    clear()


class Log:
    """Takes the place of a TrainingLog."""

    steps_per_epoch = 3

    def start_epoch(self) -> None: ...

    def step(self, *_: Any) -> None: ...

    def end_epoch(self, *_: Any) -> None: ...


def trained(images: Images, *overrides: str) -> dict[str, torch.Tensor]:
    """The weights after two epochs on 24 images of noise."""
    given, rows = settings("epochs=2", "averaging.every=1", *overrides), np.arange(24)
    log: Any = Log()
    model = train.train(train.starting_model(images.pixels[rows], given), images, rows, rows[:0], given, log)
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_each_switch_changes_the_weights_and_the_same_settings_do_not() -> None:
    images = few_images()
    plain, again = trained(images), trained(images)
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    for override in CHANGES:
        other = trained(images, override)
        assert not all(torch.equal(plain[name], other[name]) for name in plain), override


def test_the_whitening_stays_and_its_biases_are_trained_for_their_epochs_only() -> None:
    images = few_images()
    start = train.starting_model(images.pixels[:24], settings())
    frozen, one, two = (trained(images, f"network.whitening_bias_epochs={epochs}") for epochs in (0, 1, 2))
    assert torch.equal(two["whiten.weight"], start.whiten.weight)
    assert not frozen["whiten.bias"].any()
    assert one["whiten.bias"].any()
    assert not torch.equal(one["whiten.bias"], two["whiten.bias"])
    assert not torch.equal(trained(images, "network.whitening=false")["whiten.weight"], start.whiten.weight)


def test_an_epoch_shows_each_image_at_most_once_augmented_as_drawn() -> None:
    images, given = few_images(), settings("augmentation.translate=0", "augmentation.flip=none")
    pixels, labels = torch.from_numpy(images.pixels), torch.from_numpy(images.labels).long()
    rows = np.arange(1, 26)
    batches = list(train.batches(pixels, labels, rows, given, epoch=1))
    assert [len(part) for part, _ in batches] == [8, 8, 8]  # the 25th image is left out
    shown = [image.numpy().tobytes() for part, _ in batches for image in part]
    assert len(set(shown)) == 24
    assert set(shown) <= {image.tobytes() for image in images.pixels[rows]}
    other = [image.numpy().tobytes() for part, _ in train.batches(pixels, labels, rows, given, 2) for image in part]
    assert shown != other


def test_each_image_has_its_own_move_and_label() -> None:
    images, given, rows = few_images(), settings(), np.arange(1, 26)
    pixels, labels = torch.from_numpy(images.pixels), torch.from_numpy(images.labels).long()
    for epoch in (1, 2):
        order = generator(given.seed, epoch, "order").permutation(25)
        moves = (torch.from_numpy(values[order]) for values in draw(given.augmentation, 25, given.seed, epoch))
        expected = move(pixels[rows[order]], *moves)
        parts = list(train.batches(pixels, labels, rows, given, epoch))
        assert torch.equal(torch.cat([part for part, _ in parts]), expected[:24])
        assert torch.equal(torch.cat([part for _, part in parts]), labels[rows[order]][:24])


def test_the_learning_rate_changes_with_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[float] = []
    monkeypatch.setattr(train, "set_rates", lambda update, part, whitening: found.append(part))
    trained(few_images())
    given = settings("epochs=2")
    assert found == pytest.approx([schedule.rate(step / 6, given.schedule) for step in range(6)])
    assert len(set(found)) == 6


def test_it_writes_the_history_the_model_and_the_records(work: Path) -> None:
    train.main()
    rows, record = read_rows(paths.HISTORY), json.loads(paths.RUN.read_text())
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx([0.17, 0.17 * 2 / 3, 0.17 / 3], rel=1e-5)
    assert record["parameters"] == load().model_dump(exclude={"evaluate"})
    assert record["data"] == {"train_images": 40, "validation_images": 10}
    assert record["training_pflop"] > 0
    assert record["validation"] == {"loss": float(rows[-1]["val_loss"]), "accuracy": float(rows[-1]["val_accuracy"])}
    assert json.loads(paths.RUNTIME.read_text())["steps_per_epoch"] == 5
    assert not list(Path(".resume").glob("*"))


def test_the_held_out_images_and_the_test_set_are_not_trained_on(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: dict[str, Any] = {}
    monkeypatch.setattr(
        train, "train", lambda model, images, rows, held_out, *_: taken.update(m=model, r=rows, h=held_out)
    )
    monkeypatch.setattr(train, "load_images", lambda part: load_images(part) if part == "train" else pytest.fail(part))
    for validation in ("held_out", "none"):
        change(f"validation={validation}")
        with pytest.raises(AttributeError):  # there is no model to save
            train.main()
        split = load_split(50)
        held_out = validation == "held_out"
        assert np.array_equal(taken["r"], split.train if held_out else np.arange(50))
        assert np.array_equal(taken["h"], split.validation if held_out else [])
        seen = load_images("train").pixels[taken["r"]] / 255.0
        assert taken["m"].mean.numpy() == pytest.approx(seen.mean(axis=(0, 1, 2)), abs=1e-5)
        assert taken["m"].std.numpy() == pytest.approx(seen.std(axis=(0, 1, 2)), abs=1e-4)


@pytest.mark.parametrize("overrides", SWITCHES.values(), ids=SWITCHES)
def test_an_interrupted_training_resumes_to_the_same_bytes(
    work: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change(*overrides)
    train.main()
    whole = copy_of(work, RESULTS)
    clear()
    save = Checkpoint.save

    def save_and_stop(self: Checkpoint, content: bytes) -> None:
        save(self, content)
        raise KeyboardInterrupt

    for epoch in (1, 2):
        with monkeypatch.context() as patch:
            patch.setattr(Checkpoint, "save", save_and_stop)
            with pytest.raises(KeyboardInterrupt):
                train.main()
        assert len(read_rows(paths.HISTORY)) == epoch
    train.main()
    assert "resumes after epoch 2/3" in capsys.readouterr().out
    assert copy_of(work, RESULTS) == whole


def test_a_killed_training_resumes_to_the_same_bytes(work: Path) -> None:
    change("epochs=4")
    kill_in_epoch("beyond.train", 2)
    command, environment = [sys.executable, "-m", "beyond.train"], os.environ | {"PYTHONPATH": str(ROOT)}
    resumed = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    assert "resumes after epoch 1/4" in resumed.stdout
    found = copy_of(work, RESULTS)
    clear()
    train.main()
    assert copy_of(work, RESULTS) == found


def test_a_checkpoint_is_of_its_code(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"train.py", "recipe/muon.py", "recipe/settings.py"} <= train.code().keys()
    names = []
    monkeypatch.setattr(train, "train", lambda *arguments: names.append(arguments[-1].path.name))
    for code in ("one", "other"):
        monkeypatch.setattr(train, "code", lambda code=code: {"train.py": code})
        with pytest.raises(AttributeError):
            train.main()
    assert names[0] != names[1]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["batch_size=41"], "batch_size is 41, and 40 images train"),
        (["device=cuda"], "device is cuda, but PyTorch sees no GPU here"),
        (["optimiser.head_rate=1e38"], "the training diverged: "),
    ],
)
def test_what_cannot_be_trained_is_one_line_with_the_way_back(
    work: Path, overrides: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    change(*overrides)
    line = one_line("beyond.train", train.stage)
    assert message in line
    assert line.endswith(WAY_BACK)
    assert "params.yaml dvc.lock" not in line
    assert not paths.MODEL.exists()
