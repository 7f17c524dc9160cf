"""`make predict` classifies pictures with ONNX Runtime alone, and says in one line which it cannot read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.common import paths
from stages.common.errors import ExpectedError
from stages.inference.classifier import load_classifier
from stages.tools import predict
from tests.support.made_up_results import CLASSES
from tests.support.onnx_models import write_colour_model
from tests.support.stage_runs import ROOT

ALONE = {"numpy", "PIL", "onnxruntime", "_distutils_hack"}  # the last is of setuptools, which every process has
COLOURS = {"airplane": (255, 0, 0), "cat": (0, 255, 0), "ship": (0, 0, 255)}


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model that tells three colours apart, and is unsure about others."""
    monkeypatch.chdir(tmp_path)
    weights = np.zeros((3, 10), np.float32)
    for channel, name in enumerate(COLOURS):
        weights[channel, CLASSES.index(name)] = 6 / 255
    write_model(weights, {"classes": json.dumps(CLASSES), "source": "cifar10"})
    for name, color in COLOURS.items():
        Image.new("RGB", (50, 40), color).save(f"{name}.png")
    Image.new("RGB", (50, 40), (200, 200, 200)).save("grey.png")
    return tmp_path


def write_model(weights: np.ndarray, facts: dict[str, str]) -> None:
    write_colour_model(paths.onnx("keras_cnn"), weights, facts)


def run(*arguments: str, stdin: bytes = b"", **environment: str) -> "subprocess.CompletedProcess[str]":
    result = subprocess.run(
        [sys.executable, "-m", "stages.tools.predict", *arguments],
        input=stdin,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"} | environment,
        capture_output=True,
        check=False,
    )
    return subprocess.CompletedProcess(arguments, result.returncode, result.stdout.decode(), result.stderr.decode())


def test_a_folder_of_pictures_a_line_each() -> None:
    result = run(".")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines[:4]] == ["airplane.png", "cat.png", "grey.png", "ship.png"]
    assert lines[0].startswith("airplane.png: airplane 97.8%, ")
    assert lines[2].startswith("grey.png: unsure: ")
    assert "The model knows only ten classes" in result.stdout


def test_json_has_all_classes() -> None:
    (found,) = json.loads(run("-", "--json", stdin=Path("cat.png").read_bytes()).stdout)
    assert (found["picture"], found["model"], found["unsure"]) == ("-", "keras_cnn", False)
    assert sorted(found["probabilities"]) == sorted(CLASSES)
    assert next(iter(found["probabilities"])) == "cat"
    probabilities = np.array(list(found["probabilities"].values()))
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert found["entropy"] == pytest.approx(-(probabilities * np.log(probabilities)).sum(), abs=1e-3)


def test_one_bad_picture_does_not_stop_the_others() -> None:
    Path("bad.png").write_text("hello")
    result = run("bad.png", "cat.png", "missing.png")
    assert result.returncode == 1
    assert result.stdout.startswith("cat.png: cat ")
    assert result.stderr.splitlines() == [
        "predict: bad.png is no picture that Pillow reads",
        "predict: missing.png: No such file or directory",
    ]


def test_a_folder_without_files_and_a_name_that_is_too_long_do_not_stop_the_others(work: Path) -> None:
    (work / "empty").mkdir()
    result = run("empty", "x" * 300, "cat.png")
    assert result.returncode == 1
    assert result.stdout.startswith("cat.png: cat ")
    assert result.stderr.splitlines() == ["predict: empty has no files", f"predict: {'x' * 300}: File name too long"]


def test_any_file_name_can_be_printed() -> None:
    """Also one that is not UTF-8, and where the terminal knows ASCII alone."""
    name = os.fsdecode(b"caf\xe9.png")
    Path("cat.png").rename(name)
    result = run(name, PYTHONIOENCODING="ascii:strict")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("caf\\udce9.png: cat ")


def test_a_reader_that_has_gone_is_no_fault() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "stages.tools.predict", "cat.png"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_model_that_is_in_git_is_brought_back_from_there() -> None:
    paths.onnx("keras_cnn").unlink()
    assert run("cat.png").stderr == (
        "predict: models/keras_cnn.onnx is missing; git restore models/keras_cnn.onnx brings it back\n"
    )


def test_a_missing_model_says_how_to_get_it() -> None:
    result = run("cat.png", "--model", "resnet18")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "predict: models/resnet18.onnx is missing; dvc pull models/resnet18.onnx fetches it where a remote has it, "
        "dvc repro export_resnet18 makes it\n"
    )


def test_a_damaged_model_is_said_in_one_line() -> None:
    paths.onnx("keras_cnn").write_bytes(b"junk")
    with pytest.raises(ExpectedError, match=r"models/keras_cnn\.onnx is no model of this pipeline \(") as error:
        load_classifier(paths.onnx("keras_cnn"))
    assert "\n" not in str(error.value)
    write_model(np.zeros((3, 10), np.float32), {})  # another program's
    with pytest.raises(ExpectedError, match="is no model of this pipeline"):
        load_classifier(paths.onnx("keras_cnn"))


def test_a_model_of_synthetic_data_says_so() -> None:
    write_model(np.zeros((3, 10), np.float32), {"classes": json.dumps(CLASSES), "source": "synthetic"})
    assert run("cat.png").stderr == "predict: this model was trained on synthetic data, not on CIFAR-10\n"


def test_it_imports_no_framework() -> None:
    code = (
        "import sys, stages.tools.predict; "
        "print(*{name.split('.')[0] for name, module in sys.modules.items() if 'site-packages' in "
        "(getattr(module, '__file__', None) or '')})"
    )
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"numpy", "PIL", "onnxruntime"} <= set(loaded.split()) <= ALONE


def test_onnx_runtime_reports_nothing_of_its_use(tmp_path: Path) -> None:
    """It would keep its reports, and a name for this computer, in the home folder."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(home)}
    command = [sys.executable, "-m", "stages.tools.predict", "cat.png"]
    subprocess.run(command, env=environment, capture_output=True, check=True)
    assert list(home.iterdir()) == []


def test_the_entropy_of_a_sure_and_of_a_clueless_model() -> None:
    sure, clueless = np.eye(10, dtype=np.float32)[3], np.full(10, 0.1, np.float32)
    assert predict.answer(sure, CLASSES)["entropy"] == 0
    assert predict.answer(clueless, CLASSES)["entropy"] == pytest.approx(np.log(10), abs=1e-4)
    assert predict.answer(clueless, CLASSES)["unsure"] is True
