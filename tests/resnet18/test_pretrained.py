"""Pre-trained weights: what fits is loaded, what does not is one line, and nothing in a file runs."""

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torchvision import models
from torchvision.models import ResNet18_Weights

from stages.common.errors import WAY_BACK
from stages.resnet18.architecture import build
from stages.resnet18.pretrained import load_features
from tests.support.stage_runs import one_line

# PyTorch's word on a pickle before it refuses it.
pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")


def of_1000_classes(**changes: Any) -> dict[str, torch.Tensor]:
    """A state dict as ImageNet's."""
    torch.manual_seed(1)
    return build(outputs=1000).state_dict() | changes


@pytest.mark.parametrize("kind", ["float32", "float16", "ten classes", "before batch norms counted batches"])
def test_all_but_the_classifier_is_loaded(kind: str, tmp_path: Path) -> None:
    content = build().state_dict() if kind == "ten classes" else of_1000_classes()
    if kind == "float16":
        content = {name: value.half() if value.is_floating_point() else value for name, value in content.items()}
    if kind == "before batch norms counted batches":  # as torchvision's first ImageNet weights
        content = {name: value for name, value in content.items() if "num_batches" not in name}
    torch.save(content, tmp_path / "weights.pt")
    model = build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_features(model, "file", str(tmp_path / "weights.pt"))
    for name, value in model.state_dict().items():
        expected = before[name] if name.startswith("fc.") else content.get(name, before[name])
        assert torch.equal(value, expected.to(value.dtype)), name
        assert value.dtype == before[name].dtype


@pytest.fixture
def imagenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in place of torchvision's, under a name that fits its SHA-256; PyTorch's cache is an empty folder."""
    served = tmp_path / "served.pth"
    torch.save(of_1000_classes(), served)
    place = served.with_name(f"resnet18-{hashlib.sha256(served.read_bytes()).hexdigest()[:8]}.pth")
    served.rename(place)
    weights = mock.Mock(get_state_dict=lambda **options: torch.hub.load_state_dict_from_url(place.as_uri(), **options))
    monkeypatch.setattr("stages.resnet18.pretrained.ResNet18_Weights", mock.Mock(IMAGENET1K_V1=weights))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return place


def test_imagenet_is_torchvisions_own(imagenet: Path) -> None:
    assert ResNet18_Weights.IMAGENET1K_V1.url.endswith("/resnet18-f37072fd.pth")
    model = build()
    load_features(model, "imagenet", "not read")
    assert torch.equal(model.state_dict()["conv1.weight"], of_1000_classes()["conv1.weight"])


@pytest.mark.parametrize("fault", ["no network", "another file", "a payload in the cache"])
def test_imagenet_that_cannot_be_had_is_one_line(fault: str, imagenet: Path, tmp_path: Path) -> None:
    if fault == "no network":
        imagenet.unlink()
    elif fault == "another file":
        imagenet.write_bytes(imagenet.read_bytes()[:-1] + b"!")
    else:
        (tmp_path / "cache/hub/checkpoints").mkdir(parents=True)
        write_payload(tmp_path / "cache/hub/checkpoints" / imagenet.name)
    line = one_line("train_resnet18", lambda: load_features(build(), "imagenet", "not read"))
    assert line.startswith("train_resnet18: resnet18.weights: torchvision's ImageNet weights cannot be loaded")
    assert "-S resnet18.weights=file -S resnet18.weights_file=PATH" in line
    assert not (tmp_path / "cache/hub/checkpoints/ran").exists()


class Payload:
    """A pickle that makes a folder if the unpickler runs what it is given."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def write_payload(path: Path) -> None:
    torch.save({"conv1.weight": Payload(path.parent / "ran")}, path)


def write_truncated(path: Path) -> None:
    torch.save(of_1000_classes(), path)
    path.write_bytes(path.read_bytes()[:1_000_000])


def saving(content: Callable[[], Any]) -> Callable[[Path], Any]:
    return lambda path: torch.save(content(), path)


MORE = "it is damaged, or holds more than tensors"
BAD_WEIGHTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "No such file or directory"),
    "folder": (lambda path: path.mkdir(), "Is a directory"),
    "empty": (lambda path: path.write_bytes(b""), "EOFError"),
    "page": (lambda path: path.write_text("<html>404</html>"), MORE),
    "truncated": (write_truncated, ""),
    "payload": (write_payload, MORE),
    "bare payload": (lambda path: path.write_bytes(pickle.dumps(Payload(path.parent / "ran"))), MORE),
    "tensor": (saving(lambda: torch.zeros(3)), "TypeError"),
    "checkpoint": (saving(lambda: {"model": of_1000_classes()}), "Missing key(s)"),
    "numbers for names": (saving(lambda: {1: torch.zeros(3)}), ""),
    "another architecture": (saving(lambda: models.squeezenet1_1().state_dict()), "Missing key(s)"),
    # The widespread ResNet-18 for CIFAR-10 has a 3x3 first convolution.
    "another stem": (saving(lambda: of_1000_classes(**{"conv1.weight": torch.zeros(64, 3, 3, 3)})), "size mismatch"),
}


@pytest.mark.parametrize(("write", "message"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS.keys())
def test_bad_weights_are_refused_in_one_line_that_runs_nothing(
    write: Callable[[Path], Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pt"
    write(path)
    line = one_line("train_resnet18", lambda: load_features(build(), "file", str(path)))
    assert line.startswith(f"train_resnet18: resnet18.weights: {path} cannot be loaded into ResNet-18 (")
    assert message in line
    assert line.endswith(f"; {WAY_BACK}")
    assert len(line) < 800
    assert not (tmp_path / "ran").exists()


def test_the_payload_would_have_run(tmp_path: Path) -> None:
    """Otherwise the test above would show nothing."""
    write_payload(tmp_path / "weights.pt")
    torch.load(tmp_path / "weights.pt", weights_only=False)
    assert (tmp_path / "ran").exists()
