"""Interrupted trainings end with the same bits as uninterrupted ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from stages import split, train_keras_cnn, train_resnet18
from stages.keras_cnn import backend as keras_backend
from stages.training.checkpoint import Checkpoint
from stages.training.log import TrainingLog
from tests.support.kills import kill_again_and_again
from tests.support.stage_runs import change_parameters, prepare, starting_point

# Keras's conversion of a TensorFlow tensor to NumPy; nothing of ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.usefixtures("own_process_settings"),
]
STAGES: dict[str, Any] = {"keras_cnn": train_keras_cnn, "resnet18": train_resnet18}
SMALL = {
    "keras_cnn": {"keras_cnn.filters": [3, 4], "keras_cnn.dense_units": 6, "batch_size": 16},
    "resnet18": {"resnet18.batch_size": 24},
}
# The learning rate falls at once where nothing improves, so hardly, and training stops before its last epoch.
STOPPING = {"epochs": 7, "early_stopping_patience": 2, "reduce_lr_patience": 1, "learning_rate": 0.03}
CONFIGURATIONS = {
    "keras_cnn stops": ("keras_cnn", STOPPING | {"augmentation": "flip_crop"}),
    "keras_cnn without validation": ("keras_cnn", {"epochs": 3}),
    "resnet18 as committed": ("resnet18", {"epochs": 3}),
    "resnet18 stops": (
        "resnet18",
        STOPPING | {"validation": "held_out", "validation_augmentation": "none", "learning_rate": 0.003},
    ),
    "resnet18 frozen, with weight decay": ("resnet18", {"epochs": 3, "frozen": ["conv1", "bn1"], "weight_decay": 0.01}),
}


@pytest.fixture
def work(workdir: Path) -> Path:
    """A working directory with synthetic data."""
    prepare({})
    return workdir


class Killed(BaseException):
    """Takes the place of a kill. Nothing catches it."""


def results(model: str) -> list[bytes]:
    stage = STAGES[model]
    return [file.read_bytes() for file in (stage.MODEL_FILE, stage.HISTORY_FILE, stage.RUN_FILE)]


def interrupted(main: Callable[[], None], epoch: int, when: str) -> None:
    """Run until the epoch's row is written, or until its checkpoint is saved."""
    owner, name = {"before its checkpoint": (TrainingLog, "end_epoch"), "after its checkpoint": (Checkpoint, "save")}[
        when
    ]
    original, calls = getattr(owner, name), []

    def stop(self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        calls.append(1)
        if len(calls) == epoch:
            raise Killed

    with mock.patch.object(owner, name, stop), pytest.raises(Killed):
        main()


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_resumes_from_every_epoch_to_the_same_bits(work: Path, name: str) -> None:
    model, changes = CONFIGURATIONS[name]
    change_parameters(SMALL[model] | {f"{model}.{key}": value for key, value in changes.items()})
    if "without validation" in name:
        change_parameters({"split.validation_fraction": 0.0})
        split.main()
    if model == "keras_cnn":  # names of layers count up in a process, and are in the file
        keras = keras_backend.start("tensorflow", "cpu")
        clear = keras.utils.clear_session
    else:
        clear = lambda: None  # noqa: E731
    main = STAGES[model].main

    clear()
    main()
    expected = results(model)
    rows = STAGES[model].HISTORY_FILE.read_text().splitlines()[1:]
    if "stops" in name:
        assert len(rows) < 7
        assert len({row.split(",")[5] for row in rows}) > 1
    for number in range(1, len(rows) + 1):  # each run saves one epoch, the last one too, and every second loses another
        clear()
        if number % 2 and number < len(rows):
            interrupted(main, 2, "before its checkpoint")
        else:
            interrupted(main, 1, "after its checkpoint")
        assert len(STAGES[model].HISTORY_FILE.read_text().splitlines()) - 1 >= number
    clear()
    main()
    assert results(model) == expected
    runtime = json.loads(STAGES[model].RUNTIME_FILE.read_text())
    assert runtime["resumed_after"]
    assert len(runtime["epoch_seconds"]) == len(rows)
    assert list(Path(".resume").iterdir()) == []


@pytest.mark.parametrize("model", STAGES)
def test_another_training_never_resumes_from_it(
    work: Path, model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other parameters, other data, other code: each starts at epoch 1, and the first checkpoint stays."""
    change_parameters(SMALL[model] | {f"{model}.epochs": 2})
    main = STAGES[model].main
    interrupted(main, 1, "after its checkpoint")
    capsys.readouterr()

    change_parameters({"seed": 8})
    main()
    change_parameters({"seed": 7})
    labels = np.load("data/processed/train_labels.npy")
    np.save("data/processed/train_labels.npy", np.roll(labels, 1))
    main()
    np.save("data/processed/train_labels.npy", labels)
    with monkeypatch.context() as patched:
        patched.setattr("stages.training.checkpoint.code", lambda: {"other.py": "0"})
        main()
    assert "resumes" not in capsys.readouterr().out
    assert len(list(Path(".resume").glob("*.checkpoint"))) == 1
    main()
    assert "resumes after epoch 1/2" in capsys.readouterr().out


@pytest.mark.parametrize("model", STAGES)
def test_a_checkpoint_is_of_all_that_a_training_starts_from(
    work: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of these alone makes it another training's: images, labels, split, weights, machine, code, seed."""
    stage = STAGES[model]
    change_parameters(SMALL[model] | {"resnet18.validation": "held_out"})
    clear = keras_backend.start("tensorflow", "cpu").utils.clear_session if model == "keras_cnn" else lambda: None

    def checkpoint(seed: int = 7) -> str:
        clear()
        name: str = starting_point(stage, -1, seed, lambda checkpoint: checkpoint.path.name)
        return name

    found = [checkpoint()]
    for kind in ("images", "labels"):
        path = Path(f"data/processed/train_{kind}.npy")
        before = path.read_bytes()
        array = np.load(path)
        array.flat[0] = (array.flat[0] + 1) % 10
        np.save(path, array)
        found.append(checkpoint())
        path.write_bytes(before)
    path = Path("data/processed/split.npz")
    before = path.read_bytes()
    with np.load(path) as arrays:
        parts = dict(arrays)
    parts["train"][0], parts["validation"][0] = parts["validation"][0], parts["train"][0]
    np.savez(path, **parts)
    found.append(checkpoint())
    path.write_bytes(before)
    for place, value in (
        (f"{stage.__name__}.derived_seed", lambda *_: 5),
        (f"{stage.__name__}.machine", lambda *_: {"processor": "another"}),
        ("stages.training.checkpoint.code", lambda: {"other.py": "0"}),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(place, value)
            found.append(checkpoint())
    found.append(checkpoint(seed=8))
    assert len(set(found)) == 8
    assert checkpoint() == found[0]


@pytest.mark.parametrize("model", STAGES)
def test_survives_real_kills(model: str, work: Path) -> None:
    """Equal model files give equal predictions (tests/stages/test_evaluate.py), so these are not made."""
    changes = {"epochs": 4, "early_stopping_patience": None}
    changes |= {"filters": [3, 4], "dense_units": 6} if model == "keras_cnn" else {}
    outcome = kill_again_and_again(work / "kills", work, model, images=50, kills=3, seed=2, predict=False, **changes)
    assert len(outcome.kills) == 3
    assert any(kill.epochs for kill in outcome.kills)
    assert outcome.passes >= 1
