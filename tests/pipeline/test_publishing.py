"""A model in another project, and what a release has: with local repositories and remotes, and a stand-in for `gh`."""

import shutil
from pathlib import Path

import pytest

from stages.experiments.origin import md5_of
from tests.support.clones import Clone

pytestmark = pytest.mark.pipeline

IN_GIT = ["models/keras_cnn.onnx", "models/keras_cnn.md", "models/resnet18.md", "metrics/report.html"]
OTHER = "models/resnet18.onnx"
GH = """#!/bin/sh
echo "$*" >> gh.log
test "$1 $2" != "release view"
"""


@pytest.fixture
def copy(repository: tuple[Clone, str], tmp_path: Path) -> Clone:
    """A clone of a small reproduction, with its cache, and with a `gh` that only notes what it is told."""
    origin = repository[0].folder
    clone = Clone(tmp_path / "copy")
    shutil.copytree(origin, clone.folder, ignore=shutil.ignore_patterns("cache", "tmp", "processed", "raw"))
    clone.ok("dvc", "cache", "dir", "--local", str(origin / ".dvc/cache"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gh").write_text(GH)
    (tmp_path / "bin/gh").chmod(0o755)
    return clone


@pytest.fixture
def shared(copy: Clone, tmp_path: Path) -> Clone:
    """The clone, its ResNet-18 pushed to a remote that its last commit names."""
    copy.ok("dvc", "remote", "add", "--default", "storage", str(tmp_path / "storage"))
    copy.ok("git", "commit", "--quiet", "--message", "Share", ".dvc/config")
    copy.ok("dvc", "push", OTHER)
    return copy


def release(clone: Clone) -> tuple[str, list[str]]:
    """What .ci/release prints, and what it tells `gh`."""
    python = shutil.which("python") or "python"
    path = f"{clone.folder.parent / 'bin'}:{Path(python).parent}:/usr/bin:/bin"
    output = clone.ok(".ci/release", "v1.0", PATH=path)
    return output, (clone.folder / "gh.log").read_text().splitlines()


def test_another_project_gets_and_imports_a_model(shared: Clone, tmp_path: Path) -> None:
    other = Clone(tmp_path / "other")
    other.folder.mkdir()
    other.ok("git", "init", "--quiet")
    other.ok("dvc", "init", "--quiet")
    for path in (OTHER, "models/keras_cnn.onnx"):
        other.ok("dvc", "get", str(shared.folder), path, "--out", "got.onnx")
        assert md5_of(other.folder / "got.onnx") == md5_of(shared.folder / path)
        (other.folder / "got.onnx").unlink()
    other.ok("dvc", "import", str(shared.folder), OTHER)
    assert md5_of(other.folder / "resnet18.onnx") == md5_of(shared.folder / OTHER)
    assert "rev_lock" in (other.folder / "resnet18.onnx.dvc").read_text()
    assert "up to date" in other.ok("dvc", "status")


def test_a_release_has_both_models_the_cards_and_the_report(shared: Clone) -> None:
    (shared.folder / OTHER).unlink()
    output, told = release(shared)
    assert "not attached" not in output
    assert told[1].startswith("release create v1.0 --verify-tag --title v1.0 --notes ")
    assert told[2] == f"release upload v1.0 --clobber {' '.join([*IN_GIT, OTHER])}"
    assert all((shared.folder / path).exists() for path in [*IN_GIT, OTHER])


def test_without_a_remote_a_release_says_what_it_lacks(copy: Clone) -> None:
    output, told = release(copy)
    sentence = "resnet18.onnx is not attached: no DVC remote is configured in .dvc/config"
    assert f"::warning::{sentence}" in output
    assert told[1].endswith(f"{sentence}.")
    assert told[2] == f"release upload v1.0 --clobber {' '.join(IN_GIT)}"


def test_a_model_that_was_never_pushed_is_said_too(copy: Clone, tmp_path: Path) -> None:
    (copy.folder / OTHER).unlink()
    copy.ok("dvc", "cache", "dir", "--local", str(tmp_path / "empty"))
    copy.ok("dvc", "remote", "add", "--default", "storage", str(tmp_path / "storage"))
    output, told = release(copy)
    assert "::warning::resnet18.onnx is not attached: dvc pull failed" in output
    assert told[2] == f"release upload v1.0 --clobber {' '.join(IN_GIT)}"
