"""beyond/params.yaml: what is refused, and in which words."""

from pathlib import Path

import pytest

from beyond.recipe.settings import PARAMETERS, WAY_BACK, BadSetting, load
from tests.support.clones import Clone
from tests.support.stage_runs import ROOT

REFUSED = [
    ("epochs: 7", "epochs: 0", "epochs is 0: input should be greater than or equal to 1"),
    ("flip: alternating", "flip: sometimes", "augmentation.flip is 'sometimes': input should be"),
    ("widths: [32, 128, 128]", "widths: [32, 128]", "network.widths is [32, 128]: list should have at least 3 items"),
    ("views: 6", "views: 3", "evaluate.views is 3: input should be 1, 2 or 6"),
    ("start: 1.0", "start: 0.5", "schedule: start is 0.5, and peak 0 begins at the peak"),
    ("seed: 7", "sead: 7", "unknown key 'sead'"),
]


def test_the_committed_file_is_allowed() -> None:
    assert load(ROOT / PARAMETERS).validation == "held_out"  # so that nobody tunes on the test set by mistake


@pytest.mark.parametrize(("old", "new", "message"), REFUSED)
def test_what_is_not_allowed_is_one_line_with_the_way_back(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (ROOT / PARAMETERS).read_text(encoding="utf-8")
    assert text.count(old) == 1
    (tmp_path / "params.yaml").write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(BadSetting) as caught:
        load(tmp_path / "params.yaml")
    assert message in str(caught.value)
    assert str(caught.value).endswith(WAY_BACK)
    assert "\n" not in str(caught.value)


def test_the_way_back_leaves_code_alone(tmp_path: Path) -> None:
    files = {name: tmp_path / "beyond" / name for name in ("params.yaml", "dvc.lock", "metrics/ladder.md", "train.py")}
    for file in files.values():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("committed")
    clone = Clone(tmp_path)
    clone.ok("git", "init", "--quiet")
    for setting in ("user.name=A tester", "user.email=tester@example.org"):
        clone.ok("git", "config", *setting.split("="))
    clone.commit("all")
    for file in files.values():
        file.write_text("changed")
    clone.ok("git", "add", "beyond/dvc.lock")  # as DVC does
    clone.ok("sh", "-c", WAY_BACK.split(": ")[1].split(" && ")[0])
    assert [file.read_text() for file in files.values()] == ["committed", "committed", "committed", "changed"]
