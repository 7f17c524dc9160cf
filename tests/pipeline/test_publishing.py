"""A model in another project, and what a release has: with local repositories and remotes, and a stand-in for `gh`."""

import shutil
import sys
from pathlib import Path

import pytest

from stages.experiments.origin import md5_of
from tests.support.clones import Clone
from tests.support.stage_runs import ROOT

pytestmark = pytest.mark.pipeline

IN_GIT = ["models/keras_cnn.onnx", "models/keras_cnn.md", "models/resnet18.md", "metrics/report.html"]
OTHER = "models/resnet18.onnx"
GH = """#!/bin/sh
echo "$*" >> gh.log
test "$1 $2" != "release view"
"""


def copy_of(origin: Path, folder: Path) -> Clone:
    """A clone with the cache of another, and with a `gh` beside it that only notes what it is told."""
    clone = Clone(folder / "copy")
    shutil.copytree(origin, clone.folder, ignore=shutil.ignore_patterns("cache", "tmp", "processed", "raw"))
    use_cache(clone, origin / ".dvc/cache")
    command(folder, "gh", GH)
    return clone


def use_cache(clone: Clone, folder: Path) -> None:
    """As `dvc cache dir --local` does."""
    (clone.folder / ".dvc/config.local").write_text(f'[cache]\n    dir = "{folder}"\n')


def command(folder: Path, name: str, script: str) -> None:
    """A command in the folder's `bin`."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / name).write_text(script)
    (folder / "bin" / name).chmod(0o755)


@pytest.fixture
def copy(repository: tuple[Clone, str], tmp_path: Path) -> Clone:
    """A clone of a small reproduction."""
    return copy_of(repository[0].folder, tmp_path)


@pytest.fixture(scope="module")
def shared(repository: tuple[Clone, str], tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """One whose ResNet-18 is pushed to a remote that its last commit names; not to be changed."""
    folder = tmp_path_factory.mktemp("shared")
    clone = copy_of(repository[0].folder, folder)
    clone.ok("dvc", "remote", "add", "--default", "storage", str(folder / "storage"))
    clone.ok("git", "commit", "--quiet", "--message", "Share", ".dvc/config")
    clone.ok("dvc", "push", OTHER)
    return clone


def release(clone: Clone) -> tuple[str, list[str]]:
    """What .ci/release prints, and what it tells `gh`."""
    path = f"{clone.folder.parent / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin"
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
    use_cache(copy, tmp_path / "empty")
    copy.ok("dvc", "remote", "add", "--default", "storage", str(tmp_path / "storage"))
    output, told = release(copy)
    assert "::warning::resnet18.onnx is not attached: dvc pull failed" in output
    assert told[2] == f"release upload v1.0 --clobber {' '.join(IN_GIT)}"


def test_a_dvc_that_fails_is_not_taken_for_a_missing_remote(tmp_path: Path) -> None:
    clone = Clone(tmp_path / "clone")
    (clone.folder / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci/release", clone.folder / ".ci")
    command(tmp_path, "gh", GH)
    command(tmp_path, "python", "#!/bin/sh\nexit 1\n")
    result = clone.run(".ci/release", "v1.0", PATH=f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert (result.returncode, result.stdout) == (1, "")
    assert not (clone.folder / "gh.log").exists()
