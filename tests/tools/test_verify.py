"""`make verify` passes what the stages leave behind, and catches each number that was changed by hand."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from stages.common import paths
from stages.common.files import read_arrays, read_json, read_rows, write_json, write_rows
from stages.common.paths import REPORT, SAMPLES
from stages.experiments.predictions import Predictions, in_short, to_bytes
from stages.paper.numbers import load_numbers
from stages.report import write_report
from stages.tools import verify
from tests.support.made_up_results import (
    CLASSES,
    add_run,
    change_json,
    compare_anew,
    predictions,
    scores_anew,
    settle,
    write_lock,
    write_results,
)
from tests.support.onnx_models import write_constant_model

Tampering = Callable[[], object]


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Made-up results; their report takes seconds, so only tests with the mark `report` have a real one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verify, "write_comparison", compare_anew)
    monkeypatch.setattr(verify, "write_scores", scores_anew)
    write_results()
    if request.node.get_closest_marker("report"):
        write_report(load_numbers())
    else:
        REPORT.write_text("a page")
        monkeypatch.setattr(verify, "write_report", lambda _, folder: shutil.copy(REPORT, folder))
    write_lock()


def verified(capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """The exit status and the lines of a verification."""
    capsys.readouterr()
    status = 0
    try:
        verify.main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    return status, capsys.readouterr().out.splitlines()


def in_json(path: str, key: str, value: Any) -> Tampering:
    return lambda: change_json(path, key, value)


def in_table(path: str, row: int, column: str, value: str) -> Tampering:
    def tamper() -> None:
        rows = read_rows(Path(path))
        assert rows[row][column] != value
        rows[row][column] = value
        write_rows(Path(path), rows)

    return tamper


def in_text(path: str, old: str, new: str) -> Tampering:
    def tamper() -> None:
        content = Path(path).read_text(encoding="utf-8")
        assert old in content
        Path(path).write_text(content.replace(old, new, 1), encoding="utf-8")

    return tamper


def in_predictions(model: str, change: Callable[[dict[str, np.ndarray]], object]) -> Tampering:
    def tamper() -> None:
        path = Path(f"metrics/predictions/{model}.npz")
        arrays = read_arrays(path)
        change(arrays)
        np.savez_compressed(path, **arrays)

    return tamper


def another_answer(arrays: dict[str, np.ndarray]) -> None:
    """Turn one row of probabilities around; it still is a distribution."""
    arrays["probabilities"][17] = arrays["probabilities"][17, ::-1].copy()


def another_sum(arrays: dict[str, np.ndarray]) -> None:
    arrays["probabilities"][5, 3] += 0.001


def below_zero(arrays: dict[str, np.ndarray]) -> None:
    arrays["probabilities"][5, :2] = [-0.25, arrays["probabilities"][5, :2].sum() + 0.25]


def two_labels_exchanged(arrays: dict[str, np.ndarray]) -> None:
    assert arrays["labels"][0] != arrays["labels"][1]
    arrays["labels"][[0, 1]] = arrays["labels"][[1, 0]]


def one_image_less(arrays: dict[str, np.ndarray]) -> None:
    arrays["probabilities"], arrays["labels"] = arrays["probabilities"][1:], arrays["labels"][1:]


def another_source(arrays: dict[str, np.ndarray]) -> None:
    arrays["source"] = np.array("synthetic")


def other_model() -> None:
    """Another model that gives the same classes, with slightly other probabilities."""
    images = len(read_arrays(SAMPLES)["test_images"])
    facts = {"classes": json.dumps(CLASSES), "source": "cifar10"}
    write_constant_model(paths.onnx("keras_cnn"), predictions("keras_cnn")[0][:images] * np.float32(0.999), facts)


# What is tampered with, and the file that is then at fault. dvc.lock is brought up to date after each, so that it is
# the check of the number that has to notice.
TAMPERINGS = {
    "test accuracy": (in_json("metrics/keras_cnn.json", "test.accuracy", 0.9), "metrics/keras_cnn.json"),
    "last digit of a loss": (in_json("metrics/keras_cnn.json", "test.loss", 1.175107), "metrics/keras_cnn.json"),
    "mean of the draws": (in_json("metrics/resnet18.json", "test_augmented.accuracy", 0.8003), "metrics/resnet18.json"),
    "a draw": (in_table("metrics/augmented/resnet18.csv", 1, "accuracy", "0.85"), "metrics/resnet18.json"),
    "recorded training loss": (
        in_json("metrics/runs/keras_cnn.json", "train.loss", 0.5),
        "metrics/runs/keras_cnn.json",
    ),
    "recorded best epoch": (in_json("metrics/runs/keras_cnn.json", "best_epoch", 44), "metrics/runs/keras_cnn.json"),
    "recorded images": (
        in_json("metrics/runs/resnet18.json", "data.train_images", 40_000),
        "metrics/runs/resnet18.json",
    ),
    "recorded dropout": (in_json("metrics/runs/keras_cnn.json", "parameters.dropout", 0.4), "params.yaml"),
    "recorded split": (in_json("metrics/runs/keras_cnn.json", "split.random_state", 8), "params.yaml"),
    "recorded weights": (in_json("metrics/runs/resnet18.json", "weights", 11), "metrics/resnet18.json"),
    "a parameter": (in_text("params.yaml", "dropout: 0.3", "dropout: 0.4"), "params.yaml"),
    "last epoch": (in_table("metrics/history/resnet18.csv", 19, "train_loss", "0.40"), "metrics/runs/resnet18.json"),
    "kept epoch": (in_table("metrics/history/keras_cnn.csv", 49, "val_accuracy", "0.9"), "metrics/runs/keras_cnn.json"),
    "an epoch better than the kept one": (
        in_table("metrics/history/keras_cnn.csv", 30, "val_loss", "0.5"),
        "metrics/runs/keras_cnn.json",
    ),
    "an epoch in the middle": (
        in_table("metrics/history/keras_cnn.csv", 30, "train_loss", "0.5"),
        "metrics/comparison.json",
    ),
    "a class's recall": (
        in_table("metrics/per_class/keras_cnn.csv", 3, "recall", "0.9"),
        "metrics/per_class/keras_cnn.csv",
    ),
    "an answer": (
        in_table("metrics/confusion/resnet18.csv", 5000, "predicted", "whale"),
        "metrics/confusion/resnet18.csv",
    ),
    "a prediction": (in_predictions("keras_cnn", another_answer), "metrics/keras_cnn.json"),
    "a probability": (in_predictions("resnet18", another_sum), "metrics/predictions/resnet18.npz"),
    "a negative probability": (in_predictions("resnet18", below_zero), "metrics/predictions/resnet18.npz"),
    "labels": (in_predictions("keras_cnn", two_labels_exchanged), "metrics/predictions/resnet18.npz"),
    "fewer images": (in_predictions("resnet18", one_image_less), "metrics/predictions/resnet18.npz"),
    "source of predictions": (in_predictions("resnet18", another_source), "metrics/predictions/resnet18.npz"),
    "source of the data": (in_json("metrics/dataset.json", "source", "synthetic"), "metrics/runs/keras_cnn.json"),
    "number of test images": (
        in_json("metrics/dataset.json", "test_images", 9999),
        "metrics/predictions/keras_cnn.npz",
    ),
    "number of training images": (
        in_json("metrics/dataset.json", "train_images", 50_001),
        "metrics/class_distribution.csv",
    ),
    "images of a class": (
        in_table("metrics/class_distribution.csv", 4, "train", "4004"),
        "metrics/class_distribution.csv",
    ),
    "test images of a class": (
        in_table("metrics/class_distribution.csv", 4, "test", "1001"),
        "metrics/class_distribution.csv",
    ),
    "another class": (
        in_table("metrics/class_distribution.csv", 0, "class", "whale"),
        "metrics/class_distribution.csv",
    ),
    "a difference": (
        in_text("metrics/comparison.json", '"difference": 0.11', '"difference": 0.01'),
        "metrics/comparison.json",
    ),
    "comparison's text": (in_text("metrics/comparison.md", "80.86", "80.76"), "metrics/comparison.md"),
    "README": (in_text("README.md", "80.86", "80.76"), "README.md"),
    "README without its table": (in_text("README.md", "<!-- results -->", ""), "README.md"),
    "the paper's number": (
        in_text("data/paper/numbers.yaml", "value: 80.75", "value: 80.85"),
        "metrics/comparison.json",
    ),
    "a card": (in_text("models/resnet18.md", "10,000", "10,001"), "models/resnet18.md"),
    "an export's record": (
        in_json("metrics/export/keras_cnn.json", "largest_difference", 1e-7),
        "models/keras_cnn.md",
    ),
    "the exported model": (other_model, "models/keras_cnn.onnx"),
    "the paper's curve": (in_text("data/paper/figure2_resnet18.csv", "1.0196", "1.1196"), "metrics/comparison.json"),
}


def test_what_the_stages_leave_passes(capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = verified(capsys)
    assert status == 0
    assert [line for line in lines[:-1] if not line.startswith("ok: ")] == []
    assert lines[-1] == f"all {len(lines) - 1} checks passed"


@pytest.mark.parametrize(("tamper", "file"), TAMPERINGS.values(), ids=TAMPERINGS)
def test_tampering_is_caught(tamper: Tampering, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    tamper()
    write_lock()
    status, lines = verified(capsys)
    assert status == 1
    assert [line for line in lines if line.startswith(f"FAILED: {file}: ")], lines
    assert "checks failed" in lines[-1]


IN_THE_REPORT = {
    "a number": ("80.86 %", "80.76 %"),
    "a number's attribute": ('data-value="80.86"', 'data-value="80.76"'),
    "a point of a chart": ('<use x="1', '<use x="2'),
    "a picture": ("data:image/png;base64,iVBORw0KGgo", "data:image/png;base64,iVBORw0KGgq"),
}


@pytest.mark.report
def test_tampering_with_the_report_is_caught(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verified(capsys)[0] == 0
    change_json("metrics/runtime/keras_cnn.json", "seconds", 999.0)
    write_lock()
    assert faults_of_the_report(capsys) == 1
    write_report(load_numbers())
    shutil.copy(REPORT, "page")  # what it writes each time
    monkeypatch.setattr(verify, "write_report", lambda _, folder: shutil.copy("page", folder / REPORT.name))
    for old, new in IN_THE_REPORT.values():
        in_text(str(REPORT), old, new)()
        write_lock()
        assert faults_of_the_report(capsys) == 1
        shutil.copy("page", REPORT)


def faults_of_the_report(capsys: pytest.CaptureFixture[str]) -> int:
    """How many faults a verification finds, all of them of the report."""
    status, lines = verified(capsys)
    faults = [line for line in lines if line.startswith("FAILED")]
    assert status == 1
    assert all(fault.startswith(f"FAILED: {REPORT}: line ") for fault in faults)
    return len(faults)


def change_score(column: str, by: float) -> None:
    kept = float(read_rows(Path("metrics/runs.csv"))[0][column])
    in_table("metrics/runs.csv", 0, column, str(round(kept + by, 6)))()


def unknown_probability() -> None:
    """The mean loss is then no number."""
    file = paths.collected_predictions("more-seed8")
    kept = Predictions(**read_arrays(file))
    kept.true_probability[0] = np.nan
    file.write_bytes(to_bytes(kept))


def other_predictions() -> bytes:
    return to_bytes(in_short(predictions("resnet18")[0], predictions("keras_cnn")[1]))


HISTORY_OF_A_RUN = "metrics/experiments/more-seed8.csv"
OF_COLLECTED_RUNS = {
    "epochs": in_table("metrics/runs.csv", 0, "epochs", "49"),
    "best epoch": in_table("metrics/runs.csv", 0, "best_epoch", "44"),
    "validation accuracy": in_table("metrics/runs.csv", 0, "validation.accuracy", "0.9"),
    "training loss": in_table("metrics/runs.csv", 0, "train.loss", "0.1"),
    "source": in_table("metrics/runs.csv", 0, "source", "synthetic"),
    "code": in_table("metrics/runs.csv", 0, "code", "0123456789ab"),
    "data": in_table("metrics/runs.csv", 0, "data", "0123456789ab"),
    "dropout": in_table("metrics/runs.csv", 0, "dropout", "0.3"),
    "seed": in_table("metrics/runs.csv", 0, "seed", "9"),
    "its name": in_table("metrics/runs.csv", 0, "name", "more-seed9"),
    "its configuration is gone": in_text("experiments.yaml", "more:", "other:"),
    "an epoch of its history": in_table(HISTORY_OF_A_RUN, 49, "train_loss", "0.1"),
    "a test accuracy": in_table("metrics/runs.csv", 0, "test.accuracy", "0.9"),
    "a test loss": in_table("metrics/runs.csv", 0, "test.loss", "0.1"),
    "the last digit of an F1-score": lambda: change_score("test.f1_macro", 1e-6),
    "no F1-score": in_table("metrics/runs.csv", 0, "test.f1_macro", ""),
    "a probability": unknown_probability,
    "its predictions": lambda: paths.collected_predictions("more-seed8").write_bytes(other_predictions()),
    "predictions of no run": lambda: paths.collected_predictions("more-seed9").write_bytes(other_predictions()),
    "no history": lambda: Path(HISTORY_OF_A_RUN).unlink(),
    "a history of no run": lambda: Path("metrics/experiments/other-seed8.csv").write_text("epoch\n"),
    "no table": lambda: Path("metrics/runs.csv").unlink(),
}


def test_collected_runs_pass(capsys: pytest.CaptureFixture[str]) -> None:
    add_run()
    status, lines = verified(capsys)
    assert (status, [line for line in lines if line.startswith("FAILED")]) == (0, [])


@pytest.mark.parametrize("tamper", OF_COLLECTED_RUNS.values(), ids=OF_COLLECTED_RUNS)
def test_tampering_with_collected_runs_is_caught(tamper: Tampering, capsys: pytest.CaptureFixture[str]) -> None:
    add_run()
    tamper()
    status, lines = verified(capsys)
    assert status == 1
    assert [line for line in lines if line.startswith("FAILED: metrics/runs.csv")], lines


def test_a_run_without_predictions_passes(capsys: pytest.CaptureFixture[str]) -> None:
    """The first runs were collected without."""
    add_run()
    paths.collected_predictions("more-seed8").unlink()
    settle()
    status, lines = verified(capsys)
    assert status == 0
    assert "ok: metrics/runs.csv has the scores of the predictions that are kept: 0 of 1 runs" in lines


def test_a_collected_test_accuracy_is_what_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    add_run()
    in_table("metrics/runs.csv", 0, "test.accuracy", "0.9")()
    status, lines = verified(capsys)
    assert status == 1
    assert [line for line in lines if line.startswith("FAILED: metrics/comparison.json: ")], lines


def test_code_with_the_same_results_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    add_run()
    now = json.dumps(read_rows(Path("metrics/runs.csv"))[0]["code"])
    in_table("metrics/runs.csv", 0, "code", "0123456789ab")()
    in_text(
        "experiments.yaml",
        "same_results: {}",
        f'same_results: {{"0123456789ab": {{same_as: {now}, shown: equal weights}}}}',
    )()
    assert verified(capsys)[0] == 0


LOCKED = {
    "a time": in_json("metrics/runtime/keras_cnn.json", "seconds", 1.0),
    "a learning rate": in_table("metrics/history/resnet18.csv", 3, "learning_rate", "0.1"),
    "the mean of a colour": in_json("metrics/dataset.json", "mean", [0.5, 0.5, 0.5]),
    "a result that is gone": lambda: Path("metrics/runtime/resnet18.json").unlink(),
    "another model": lambda: paths.onnx("keras_cnn").write_bytes(paths.onnx("keras_cnn").read_bytes() + b"\x32\0"),
    "a file of no stage": lambda: Path("metrics/more.csv").write_text("a\n1\n"),
}


@pytest.mark.parametrize("tamper", LOCKED.values(), ids=LOCKED)
def test_what_no_other_file_tells_is_caught_by_the_lock(tamper: Tampering, capsys: pytest.CaptureFixture[str]) -> None:
    tamper()
    status, lines = verified(capsys)
    assert status == 1
    assert {line.split(": ")[1] for line in lines if line.startswith("FAILED")} == {"dvc.lock"}


def test_a_failure_shows_the_first_line_that_differs(capsys: pytest.CaptureFixture[str]) -> None:
    file = Path("metrics/confusion/keras_cnn.csv")
    rows = read_rows(file)
    write_rows(file, [rows[0], *(row | {"predicted": "whale"} for row in rows[1:])])
    _, lines = verified(capsys)
    line = f"FAILED: {file}: line 3: found '{rows[1]['actual']},whale', expected '{','.join(rows[1].values())}'"
    assert [found for found in lines if found.startswith(f"FAILED: {file}: ")] == [line]


def test_many_faults_of_one_check_are_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(5):
        Path(f"metrics/more{number}.csv").write_text("a\n1\n")
    _, lines = verified(capsys)
    assert len([line for line in lines if line.startswith("FAILED")]) == 3
    assert "        and 2 more of this check: dvc.lock has the MD5 sum of each result" in lines


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("metrics/keras_cnn.json", b"{"),
        ("metrics/keras_cnn.json", b"[]"),
        ("metrics/dataset.json", None),
        ("metrics/predictions/resnet18.npz", b"PK junk"),
        ("metrics/predictions/keras_cnn.npz", None),
        ("metrics/history/keras_cnn.csv", b""),
        ("metrics/confusion/keras_cnn.csv", b"\xff\n"),
        ("metrics/comparison.json", None),
        ("models/keras_cnn.onnx", None),
        ("models/keras_cnn.onnx", b"junk"),
        ("models/resnet18.md", None),
        ("dvc.lock", b"["),
        ("params.yaml", b""),
        ("README.md", None),
    ],
)
def test_a_missing_or_damaged_file_is_a_failed_check(
    file: str, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(file)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    status, lines = verified(capsys)
    assert status == 1
    assert [line for line in lines if line.startswith("FAILED") and path.name in line], lines


def test_early_stopping_decides_which_epoch_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    history = read_rows(Path("metrics/history/resnet18.csv"))
    best = min(history, key=lambda row: float(row["val_loss"]))
    assert best["epoch"] == "19"
    for file in ("metrics/runs/resnet18.json", "metrics/resnet18.json"):
        change_json(file, "best_epoch", 19)
        change_json(file, "validation", {"loss": float(best["val_loss"]), "accuracy": float(best["val_accuracy"])})
    settle()
    assert verified(capsys)[0] == 1
    change_json("metrics/runs/resnet18.json", "parameters.resnet18.early_stopping_patience", 3)
    parameters = yaml.safe_load(Path("params.yaml").read_text())
    parameters["resnet18"]["early_stopping_patience"] = 3
    Path("params.yaml").write_text(yaml.safe_dump(parameters))
    settle()
    assert verified(capsys)[0] == 0


def test_a_run_without_validation_passes(capsys: pytest.CaptureFixture[str]) -> None:
    file = Path("metrics/history/keras_cnn.csv")
    write_rows(file, [row | {"val_loss": "", "val_accuracy": ""} for row in read_rows(file)])
    file = Path("metrics/class_distribution.csv")
    write_rows(file, [row | {"train": "5000", "validation": "0"} for row in read_rows(file)])
    change_json("metrics/runs/keras_cnn.json", "data", {"train_images": 50_000, "validation_images": 0})
    change_json("metrics/runs/keras_cnn.json", "validation", {"loss": None, "accuracy": None})
    metrics = read_json(Path("metrics/keras_cnn.json"))
    del metrics["validation"]
    write_json(Path("metrics/keras_cnn.json"), metrics)
    settle()
    status, lines = verified(capsys)
    assert status == 0, lines


def test_md5_sums_are_those_that_dvc_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pipeline").mkdir()
    monkeypatch.chdir(tmp_path / "pipeline")
    make = "mkdir -p metrics/figures/more; echo 1 > metrics/a.json; " + "".join(
        f"echo {name} > metrics/figures/{name}; " for name in ("b.png", "a.png", "more/c.png", "ü.png", "B.png")
    )
    outs = [{"metrics/a.json": {"cache": False}}, {"metrics/figures": {"cache": False}}]
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"all": {"cmd": make, "outs": outs}}}))
    for command in (["init", "--no-scm", "-q"], ["config", "core.analytics", "false"], ["repro", "-q"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], check=True)
    recorded = yaml.safe_load(Path("dvc.lock").read_text())["stages"]["all"]["outs"]
    assert {out["path"]: out["md5"] for out in recorded} == {
        path: verify.md5_of(Path(path)) for path in ("metrics/a.json", "metrics/figures")
    }
    assert list(verify.lock()) == []
    Path("metrics/figures/more/c.png").write_text("changed")
    assert list(verify.lock()) == ["dvc.lock: metrics/figures is not the file that it recorded"]


def test_what_follows_from_a_history_is_all_that_it_has(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text("epoch,train_loss,val_loss,val_f1\n1,2.0,1.5,0.4\n2,1.0,1.6,0.5\n")
    assert verify.results_of(path, True, 1) == {
        "epochs": 2,
        "best_epoch": 1,
        "train": {"loss": 1.0},
        "validation": {"loss": 1.5, "f1": 0.4},
    }


def test_the_command_ends_with_status_1_and_no_traceback() -> None:
    change_json("metrics/keras_cnn.json", "test.accuracy", 0.9)
    root = Path(verify.__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-m", "stages.tools.verify"],
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr == ""
    assert "FAILED: metrics/keras_cnn.json: line 4: found '\"accuracy\": 0.9,', expected" in ended.stdout
