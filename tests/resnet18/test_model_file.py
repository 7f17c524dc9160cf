"""models/resnet18.pt: never half of one."""

from pathlib import Path

import torch
from torch import nn

from stages.resnet18.model_file import save
from tests.support.stage_runs import files_limited_to, one_line


def test_holds_the_state_dict(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    save(model, tmp_path / "models/model.pt")
    loaded = torch.load(tmp_path / "models/model.pt", weights_only=True)
    assert {name: value.tolist() for name, value in loaded.items()} == {
        name: value.tolist() for name, value in model.state_dict().items()
    }


def test_a_full_disk_is_one_line_and_leaves_no_half_a_model(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"an earlier one")
    with files_limited_to(1000):
        line = one_line("train_resnet18", lambda: save(nn.Linear(100, 100), path))
    assert "File too large; correct this" in line
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("model.pt", b"an earlier one")]
