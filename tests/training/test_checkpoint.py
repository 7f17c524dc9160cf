"""The checkpoint of a training: whole or not there, its owner's alone, bounded."""

import hashlib
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from stages.training import checkpoint, plateau
from stages.training.checkpoint import Checkpoint
from tests.support.stage_runs import ROOT, files_limited_to


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path / ".resume"


def checkpoint_of(seed: int = 7, value: float = 0.0) -> Checkpoint:
    return Checkpoint("train_model", {"seed": seed}, [np.full(3, value)])


def test_gives_back_what_was_saved_last_until_it_is_cleared(folder: Path) -> None:
    with checkpoint_of() as first:
        assert first.load() is None
        first.save(b"one")
        first.save(b"two")
    with checkpoint_of() as second:
        assert second.load() == b"two"
        second.clear()
    with checkpoint_of() as third:
        assert third.load() is None
        third.clear()
    assert list(folder.iterdir()) == []


def test_belongs_to_these_facts_and_arrays_alone() -> None:
    with checkpoint_of() as first:
        first.save(b"one")
    assert checkpoint_of().path == first.path
    for other in (
        checkpoint_of(seed=8),
        checkpoint_of(value=1.0),
        Checkpoint("train_model", {"seed": 7}, [np.zeros(4)]),
    ):
        with other:
            assert other.load() is None


def test_the_code_is_every_imported_module_of_the_project_and_the_program_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = ROOT / "stages/train_resnet18.py"
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(program), raising=False)
    assert plateau.__file__
    found = checkpoint.code()
    for name in ("train_resnet18.py", "training/checkpoint.py", "training/plateau.py", "common/files.py"):
        assert found[name] == hashlib.sha256((ROOT / "stages" / name).read_bytes()).hexdigest()
    assert not [name for name in found if not (ROOT / "stages" / name).exists()]


def test_stands_in_the_main_repository(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a temporary copy too, because that is removed with everything in it."""
    monkeypatch.setenv("DVC_ROOT", str(folder.parent))
    copy = folder.parent / "copy"
    copy.mkdir()
    monkeypatch.chdir(copy)
    with checkpoint_of() as first:
        first.save(b"one")
    assert [path.suffix for path in sorted(folder.iterdir())] == [".checkpoint", ".lock"]
    assert list(copy.iterdir()) == []


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "longer", "a folder"])
def test_a_damaged_checkpoint_is_set_aside_and_reported(
    damage: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with checkpoint_of() as first:
        first.save(bytes(range(200)))
    content = bytearray(first.path.read_bytes())
    if damage == "a folder":
        first.path.unlink()
        first.path.mkdir()
    else:
        content[100] ^= damage == "flipped"
        first.path.write_bytes(
            {"empty": b"", "cut": content[:-1], "longer": content + b"0"}.get(damage, bytes(content))
        )
    with checkpoint_of() as second:
        assert second.load() is None
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        assert str(first.path.stem) in line
        assert "starts at epoch 1" in line
        if damage != "a folder":
            assert first.path.with_suffix(".damaged").exists()
            second.save(b"new")
            assert second.load() == b"new"


def test_what_a_kill_left_half_written_is_not_read(folder: Path) -> None:
    with checkpoint_of() as first:
        first.save(b"one")
        first.path.with_suffix(".new").write_bytes(b"half")
    with checkpoint_of() as second:
        assert second.load() == b"one"
        second.clear()
    assert list(folder.iterdir()) == []


def test_a_full_disk_keeps_the_earlier_checkpoint_and_the_training(capsys: pytest.CaptureFixture[str]) -> None:
    with checkpoint_of() as first:
        first.save(b"one")
        with files_limited_to(1000):
            first.save(bytes(5000))
        assert "cannot be saved" in capsys.readouterr().err
        assert first.load() == b"one"
        assert not first.path.with_suffix(".new").exists()


def test_the_same_training_at_the_same_time_keeps_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkpoint, "WAIT_SECONDS", 0.1)
    with checkpoint_of() as first:
        first.save(b"one")
        with checkpoint_of() as second:
            assert "runs elsewhere" in capsys.readouterr().err
            assert second.load() is None
            second.save(b"two")
            second.clear()
        assert first.load() == b"one"


@pytest.mark.skipif(os.getuid() == 0, reason="root can write anywhere")
def test_a_folder_that_cannot_be_written_costs_the_checkpoint_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.mkdir(mode=0o500)
    with checkpoint_of() as first:
        assert "no checkpoint can be kept" in capsys.readouterr().err
        first.save(b"one")
        assert first.load() is None


def test_a_file_in_place_of_the_folder_costs_the_checkpoint_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write_text("")
    with checkpoint_of() as first:
        assert "no checkpoint can be kept" in capsys.readouterr().err
        first.save(b"one")
        assert first.load() is None


def test_the_oldest_checkpoints_give_way_above_the_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(4):
        with checkpoint_of(seed) as one:
            one.save(bytes(1000))
        os.utime(one.path, (seed + 1, seed + 1))
    monkeypatch.setattr(checkpoint, "MOST_BYTES", 2500)
    with checkpoint_of(0) as first:
        assert first.load() == bytes(1000)  # the one that is asked for stays
    kept = {checkpoint_of(seed).path for seed in (0, 3)}
    assert {path.resolve() for path in folder.glob("*.checkpoint")} == {path.resolve() for path in kept}
