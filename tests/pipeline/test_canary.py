"""A short, fixed training of each model on real data: its loss says whether a change has changed what is learned.

The stage's own main() with the committed parameters, but for one epoch of the first 1,600 training images: 25 steps of
64. The mean training loss is looked at twice, against tests/canary.json: after the first few steps, closely, and
after all 25, roughly. For training is chaotic: the sums of another machine, or of another number of threads, differ in
their last digit, and each step makes more of that difference. How much was measured, as relative differences of the
loss from the committed one, with 1 thread, without oneDNN, and with code for AVX2 and for SSE4 instead of AVX-512;
compared with the effect of a learning rate that is 1 % off:

                          other machines      1 % learning rate     tolerance    what else it shows
    Keras CNN,  6 steps   up to 0.000 05      0.000 4 to 0.000 6    0.000 1      dropout 0.31: 0.002
               25 steps   up to 0.002         0.000 5 to 0.002      0.01         doubled learning rate: 0.06
    ResNet-18,  2 steps   up to 0.000 000 3   0.000 1 to 0.000 2    0.000 02     weight decay 0.0005: 0.000 12
               25 steps   up to 0.013         0.007 to 0.009        0.04         no augmentation: 0.07

The Keras CNN's 6 steps are those of stages/keras_cnn/fused.py: 0.000 000 3 and less, but for 0.000 05 without oneDNN.
Its other figures were measured with Keras's own layers. So the first figure fails where the learning rate is 1 % off,
and the second cannot. A canary that a change of the mathematics is meant to move gets its new value from the message of
the failing test.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from stages import train_keras_cnn, train_resnet18
from stages.keras_cnn import backend as keras_backend
from stages.training.log import TrainingLog
from tests.support.stage_runs import ROOT, change_parameters

IMAGES, STEPS = 1600, 25
COMMITTED = json.loads((ROOT / "tests/canary.json").read_text(encoding="utf-8"))
STAGES = {"keras_cnn": train_keras_cnn, "resnet18": train_resnet18}
TOLERANCES = {"keras_cnn": (1e-4, 0.01), "resnet18": (2e-5, 0.04)}  # relative; the table above

# Keras's conversion of a TensorFlow tensor to NumPy; nothing of ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.usefixtures("own_process_settings"),
]


@pytest.fixture
def work(cifar10_workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the first images of the real CIFAR-10, all of them to train."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    Path("metrics").mkdir()
    shutil.copy(cifar10_workdir / "metrics/dataset.json", "metrics")
    Path("data/processed").mkdir(parents=True)
    for part, count in (("train", IMAGES), ("test", 100)):
        for kind in ("images", "labels"):
            name = f"data/processed/{part}_{kind}.npy"
            np.save(name, np.load(cifar10_workdir / name, mmap_mode="r")[:count])
    nothing = np.empty(0, dtype=np.int64)
    np.savez(
        "data/processed/split.npz",
        train=np.arange(IMAGES),
        validation=nothing,
        validation_fraction=0.0,
        random_state=7,
    )
    return tmp_path


@pytest.mark.real_data
@pytest.mark.parametrize("model", ["keras_cnn", "resnet18"])
def test_the_first_steps_on_real_data_give_the_committed_loss(
    model: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[float] = []
    monkeypatch.setattr(TrainingLog, "step", lambda _, done, loss, accuracy: losses.append(float(loss)))
    if model == "keras_cnn":  # every step is to be seen, which changes no result
        keras_backend.start("tensorflow", "cpu")
        monkeypatch.setattr("stages.keras_cnn.fused.STEPS_AT_ONCE", 1)
    monkeypatch.setattr(train_resnet18, "PROGRESS_STEPS", 1)
    change_parameters({f"{model}.epochs": 1})
    STAGES[model].main()

    assert len(losses) == STEPS
    committed, (close, rough) = COMMITTED[model], TOLERANCES[model]
    first_loss, all_loss = losses[committed["first_steps"] - 1], losses[-1]
    measured = f"measured {first_loss:.7g} and {all_loss:.7g}"
    assert first_loss == pytest.approx(committed["first_loss"], rel=close), measured
    assert all_loss == pytest.approx(committed["all_loss"], rel=rough), measured
