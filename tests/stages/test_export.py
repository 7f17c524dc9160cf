"""Both exported models take uint8 images, give the probabilities of `evaluate`, and are the same bytes each time."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from stages.common import paths
from stages.common.errors import ExpectedError
from stages.common.files import write_json
from stages.common.paths import DATASET
from stages.experiments.origin import md5_of
from stages.inference import onnx_file
from stages.inference.classifier import OPSET, load_classifier
from tests.support.clones import Clone
from tests.support.made_up_results import CLASSES
from tests.support.stage_runs import run_stage

MODELS = ["keras_cnn", "resnet18"]


class Brightness(nn.Module):
    """The softmax of each image's mean brightness times 0 to 9."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return (pixels.to(torch.float32).mean(dim=(1, 2, 3))[:, None] * torch.arange(10) / 255).softmax(dim=1)


@pytest.fixture
def brightness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A folder with five test images and what `Brightness` predicts for them."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    pixels[1] //= 4
    for path in (paths.images("test"), paths.predictions("keras_cnn")):
        path.parent.mkdir(parents=True)
    np.save(paths.images("test"), pixels)
    np.save(paths.labels("test"), np.zeros(5, np.uint8))
    write_json(DATASET, {"classes": CLASSES})
    probabilities: np.ndarray = Brightness()(torch.from_numpy(pixels)).numpy()
    np.savez(paths.predictions("keras_cnn"), probabilities=probabilities)
    return probabilities


def test_any_number_of_images_and_the_facts_in_the_file(brightness: np.ndarray) -> None:
    onnx_file.export("keras_cnn", Brightness(), "synthetic")
    classifier = load_classifier(paths.onnx("keras_cnn"))
    assert (classifier.classes, classifier.source) == (CLASSES, "synthetic")
    pixels = np.load(paths.images("test"))
    for count in (1, 2, 5):
        assert classifier.probabilities(pixels[:count]) == pytest.approx(brightness[:count], abs=1e-6)
    found = json.loads(paths.export("keras_cnn").read_text())
    assert found.pop("largest_difference") < 1e-6
    size = paths.onnx("keras_cnn").stat().st_size
    assert found == {"opset": OPSET, "bytes": size, "images": 5, "other_classes": 0}


def test_the_same_bytes_each_time_without_a_name_of_this_machine(brightness: np.ndarray) -> None:
    first, second = (onnx_file.exported(Brightness(), {"source": "synthetic"}) for _ in range(2))
    assert first == second
    assert b".py" not in first
    assert str(Path(onnx_file.__file__).parents[2]).encode() not in first


def test_other_probabilities_than_evaluate_s_are_refused(brightness: np.ndarray) -> None:
    brightness[3] = brightness[3, ::-1]
    np.savez(paths.predictions("keras_cnn"), probabilities=brightness)
    with pytest.raises(ExpectedError, match=r"keras_cnn\.onnx gives other probabilities than .*keras_cnn\.npz, by 0\."):
        onnx_file.export("keras_cnn", Brightness(), "synthetic")
    assert not paths.export("keras_cnn").exists()
    assert not paths.onnx("keras_cnn").exists()


@pytest.mark.pipeline
@pytest.mark.parametrize("model", MODELS)
def test_the_exported_model_of_a_reproduction(model: str, repository: tuple[Clone, str]) -> None:
    folder = repository[0].folder
    file = onnx.load(folder / paths.onnx(model))
    facts = {entry.key: entry.value for entry in file.metadata_props}
    classes = json.loads((folder / DATASET).read_text())["classes"]
    assert facts == {"model": model, "source": "synthetic", "classes": json.dumps(classes)}
    classifier = load_classifier(folder / paths.onnx(model))
    pixels = np.load(folder / paths.images("test"))
    expected = np.load(folder / paths.predictions(model))["probabilities"]
    assert classifier.probabilities(pixels) == pytest.approx(expected, abs=1e-5)


@pytest.mark.pipeline
@pytest.mark.parametrize(("model", "others"), [("keras_cnn", "tensorflow,jax"), ("resnet18", "tensorflow,keras,jax")])
def test_in_another_folder_the_same_bytes_without_tensorflow(
    model: str, others: str, repository: tuple[Clone, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = repository[0].folder
    for part in ("models", "metrics", "data/processed"):
        shutil.copytree(origin / part, tmp_path / part)
    monkeypatch.chdir(tmp_path)
    paths.onnx(model).unlink()
    result = run_stage(f"export_{model}", without=others)
    assert result.returncode == 0, result.stderr
    assert md5_of(paths.onnx(model)) == md5_of(origin / paths.onnx(model))

    (trained,) = (path for path in Path("models").iterdir() if path.suffix in (".keras", ".pt") and path.stem == model)
    trained.write_bytes(trained.read_bytes()[:1000])
    result = run_stage(f"export_{model}")
    assert result.returncode == 1
    assert re.fullmatch(rf"export_{model}: {trained} [^\n]+", result.stderr.splitlines()[-1])
    assert "Traceback" not in result.stderr
