"""What a training says while it runs, and what it leaves behind."""

import csv
import math
from pathlib import Path

import pytest

from stages.common.errors import WAY_BACK, BadParameter
from stages.training.log import COLUMNS, TrainingLog
from stages.training.machine import machine

TRAIN = {"loss": 1.25, "accuracy": 0.5}
VALIDATION = {"loss": 1.5, "accuracy": 0.4}


@pytest.fixture
def log(tmp_path: Path) -> TrainingLog:
    return TrainingLog(tmp_path / "metrics/history/model.csv", epochs=5, steps_per_epoch=2, source="cifar10")


def run_epoch(
    log: TrainingLog,
    train: dict[str, float] = TRAIN,
    validation: dict[str, float] | None = VALIDATION,
    learning_rate: float = 0.001,
) -> None:
    log.start_epoch()
    log.step(log.steps_per_epoch, 1.0, 0.5)
    log.end_epoch(train, validation, learning_rate)


def lines(log: TrainingLog) -> list[str]:
    return log.path.read_text(encoding="utf-8").splitlines()


def test_the_file_is_there_with_its_header_before_the_first_epoch(log: TrainingLog) -> None:
    assert log.path.read_bytes() == b"epoch,train_loss,train_accuracy,val_loss,val_accuracy,learning_rate\n"


def test_each_epochs_row_is_there_as_soon_as_it_ends(log: TrainingLog) -> None:
    for epoch in (1, 2, 3):
        log.start_epoch()
        log.step(1, 1.0, 0.5)
        assert len(lines(log)) == epoch
        log.end_epoch(TRAIN, VALIDATION, 0.001)
        assert lines(log)[-1] == f"{epoch},1.25,0.5,1.5,0.4,0.001"
        assert log.path.read_bytes().endswith(b"\n")  # whole rows only, whoever reads meanwhile


def test_the_columns_are_those_of_the_papers_curves() -> None:
    """Then both can be drawn in one plot."""
    root = Path(__file__).parents[2]
    for name, ours in (("figure1_keras_cnn", COLUMNS), ("figure2_resnet18", COLUMNS[:-1])):
        with (root / f"data/paper/{name}.csv").open(encoding="utf-8", newline="") as file:
            assert tuple(next(csv.reader(file))) == ours


def test_without_validation_its_columns_are_empty(log: TrainingLog) -> None:
    run_epoch(log, validation=None)
    assert lines(log)[-1] == "1,1.25,0.5,,,0.001"
    assert log.results(1)["validation"] == {"loss": None, "accuracy": None}


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0010000000474974513, "0.001"),  # float32's 0.001
        (0.00001, "1e-05"),
        (1.23456789, "1.23457"),
        (1.0, "1.0"),
        (123456.789, "123457.0"),
    ],
)
def test_numbers_have_six_digits(log: TrainingLog, value: float, written: str) -> None:
    run_epoch(log, train={"loss": value, "accuracy": 0.5}, learning_rate=value)
    row = lines(log)[-1].split(",")
    assert (row[1], row[5]) == (written, written)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("part", ["train_loss", "val_loss"])
def test_a_loss_that_is_no_number_stops_with_one_line(log: TrainingLog, part: str, value: float) -> None:
    run_epoch(log)
    before = lines(log)
    train = TRAIN | {"loss": value} if part == "train_loss" else TRAIN
    validation = VALIDATION | {"loss": value} if part == "val_loss" else VALIDATION
    with pytest.raises(BadParameter) as caught:
        run_epoch(log, train, validation)
    assert str(caught.value) == (
        f"the training diverged: {part} is {value} in epoch 2; lower the learning rate; {WAY_BACK}"
    )
    assert lines(log) == before
    assert len(log.rows) == 1


def test_each_epoch_is_printed_as_it_ends(log: TrainingLog, capsys: pytest.CaptureFixture[str]) -> None:
    run_epoch(log)
    printed = capsys.readouterr()
    assert printed.out.startswith(
        "epoch 1/5  train_loss 1.2500  train_accuracy 0.5000  val_loss 1.5000  val_accuracy 0.4000  "
        "learning_rate 0.001  "
    )
    assert "min left" in printed.out
    assert printed.out.count("\n") == 1
    assert printed.err == ""  # the bar is for terminals alone
    run_epoch(log, validation=None)
    assert "val_" not in capsys.readouterr().out


def test_the_time_left_is_that_of_the_epochs_to_come(
    log: TrainingLog, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 400.0, 1000.0, 1100.0])  # epochs of 300 and 100 seconds
    monkeypatch.setattr("stages.training.log.time.perf_counter", lambda: next(clock))
    for _ in range(2):
        log.start_epoch()
        log.end_epoch(TRAIN, VALIDATION, 0.001)
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("  300.0 s  at most 20 min left")
    assert second.endswith("  100.0 s  at most 10 min left")
    assert log.epoch_seconds == [300.0, 100.0]


def test_a_terminal_shows_a_bar_with_the_loss_so_far(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    log = TrainingLog(tmp_path / "history.csv", epochs=5, steps_per_epoch=60, source="cifar10")
    log.start_epoch()
    for done in (25, 50, 75):  # the last one: steps come many at once, and the epoch may end between
        log.step(done, 2.34567, 0.25)
        log._bar.refresh()
    log.end_epoch(TRAIN, VALIDATION, 0.001)
    bar = capsys.readouterr().err
    assert "epoch 1/5" in bar
    assert [count for count in ("25/60", "50/60", "60/60", "75/60") if count in bar] == ["25/60", "50/60", "60/60"]
    assert "loss=2.3457" in bar
    assert "accuracy=0.2500" in bar


@pytest.mark.parametrize(
    ("source", "printed"), [("cifar10", ""), ("synthetic", "trained on synthetic data, not CIFAR-10\n")]
)
def test_synthetic_data_is_labelled(
    source: str, printed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    TrainingLog(tmp_path / "history.csv", epochs=5, steps_per_epoch=2, source=source)
    assert capsys.readouterr().out == printed


def test_results_are_those_of_the_last_epoch_and_of_the_kept_one(log: TrainingLog) -> None:
    for loss in (1.5, 1.1, 1.3):
        run_epoch(log, {"loss": loss - 1, "accuracy": 0.9}, {"loss": loss, "accuracy": loss / 10})
    assert log.results(2) == {
        "epochs": 3,
        "best_epoch": 2,
        "train": {"loss": 0.3, "accuracy": 0.9},
        "validation": {"loss": 1.1, "accuracy": 0.11},
    }


def test_a_new_training_starts_a_new_history(log: TrainingLog) -> None:
    run_epoch(log)
    TrainingLog(log.path, epochs=5, steps_per_epoch=2, source="cifar10")
    assert lines(log) == [",".join(COLUMNS)]


def test_run_time_and_versions_stand_apart_from_the_results(log: TrainingLog) -> None:
    run_epoch(log)
    runtime = log.runtime(machine("cpu", 2, ("numpy",)))
    assert set(runtime) == {
        "processor",
        "cores",
        "device",
        "threads",
        "platform",
        "versions",
        "steps_per_epoch",
        "seconds",
        "epoch_seconds",
        "resumed_after",
    }
    assert runtime["resumed_after"] == []
    assert (runtime["device"], runtime["threads"], runtime["steps_per_epoch"]) == ("cpu", 2, 2)
    assert set(runtime["versions"]) == {"python", "numpy"}
    assert runtime["seconds"] == pytest.approx(sum(runtime["epoch_seconds"]), abs=0.001)
    assert runtime["processor"]
    assert not set(runtime) & set(log.results(1))
