"""`make grid` and `make collect` through the real `dvc`, on synthetic data: killed and resumed, and collected."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from filelock import FileLock

from stages.experiments.predictions import read_predictions, scores_of
from stages.tools.runs import share_cores
from tests.support.clones import Clone
from tests.support.grids import CUT, FINISHED, SECONDS, histories, none_is_left, read_until, table

pytestmark = pytest.mark.pipeline


@pytest.fixture
def clone(grid_repository: Clone, tmp_path: Path) -> Clone:
    """A copy of the repository, with DVC's cache."""
    shutil.copytree(grid_repository.folder, tmp_path / "clone", symlinks=True)
    return Clone(tmp_path / "clone")


GRID = (sys.executable, "-m", "stages.tools.grid")


def test_an_ended_grid_resumes_to_the_same_table(uninterrupted: Clone, clone: Clone) -> None:
    """Ended by Ctrl-C after one run and within the other; resumed by make, which is killed; and resumed to the end."""
    process = clone.start(*GRID, stderr=subprocess.STDOUT)
    printed = end(clone, process, signal.SIGINT, f"{FINISHED}-seed7: done (1 of 2)", f"{CUT}-seed8: epoch 3/25")
    assert process.returncode == 1
    assert "Traceback" not in printed

    # The recipe of the Makefile, without the set-up that it would begin with.
    makefile = clone.folder.with_name("Makefile")
    makefile.write_text(f"grid:; {' '.join(GRID)}\n")
    process = clone.start("make", f"--file={makefile}", "grid", stderr=subprocess.STDOUT)
    printed = end(clone, process, signal.SIGKILL, f"{CUT}-seed8: epoch ")
    assert process.returncode == -signal.SIGKILL
    assert "Traceback" not in printed
    assert_resumed(printed)

    assert_resumed(clone.ok(*GRID))
    assert table(clone) == table(uninterrupted)
    assert histories(clone) == histories(uninterrupted)
    none_is_left(clone.folder)


def end(clone: Clone, process: "subprocess.Popen[str]", ending: signal.Signals, *lines: str) -> str:
    """End a grid once it has printed these lines; return all that it prints."""
    try:
        printed = "".join(read_until(process, line) for line in lines)
        process.send_signal(ending)
        rest, _ = process.communicate(timeout=SECONDS)  # until the last process that could write there is gone
    finally:
        process.kill()
    none_is_left(clone.folder)
    assert clone.ok("git", "status", "--porcelain") == ""
    return printed + rest


def assert_resumed(printed: str) -> None:
    assert "2 runs, 1 of them done" in printed
    assert f"{FINISHED}-seed7: dvc exp run" not in printed
    assert f"{CUT}-seed8: resumes after epoch" in printed
    assert f"{CUT}-seed8: epoch 2/25" not in printed


def test_the_table_says_what_was_run(uninterrupted: Clone) -> None:
    first, second = table(uninterrupted)
    assert [first["name"], second["name"]] == [f"{FINISHED}-seed7", f"{CUT}-seed8"]
    assert second["overrides"] == "batch_size=128 dropout=0.4 keras_cnn.epochs=25"
    assert (second["seed"], second["batch_size"], second["dropout"]) == ("8", "128", "0.4")
    assert second["source"] == "synthetic"
    assert second["keras_cnn.backend"] == "tensorflow"
    assert len(first["code"]) == len(first["data"]) == 12
    assert (first["code"], first["data"]) == (second["code"], second["data"])
    assert 0 <= float(second["test.accuracy"]) <= 1
    assert len(histories(uninterrupted)[f"{CUT}-seed8.csv"].splitlines()) == 26
    # What each model predicted is kept, and has the scores of its row.
    with np.load(uninterrupted.folder / "metrics/predictions/keras_cnn.npz") as arrays:
        labels = arrays["labels"]
    for row in (first, second):
        kept = read_predictions(uninterrupted.folder / f"metrics/experiments/{row['name']}.npz", len(labels))
        for key, value in scores_of(kept, labels, 10).items():
            assert value == pytest.approx(float(row[key]), abs=1.5e-6), key
    assert not (uninterrupted.folder / "models/resnet18.pt").exists()
    # A cell trains its own model alone: its dvc.lock has the other one's entry as it was.
    references = uninterrupted.ok("git", "for-each-ref", "--format=%(objectname)", "refs/exps").split()
    locks = [yaml.safe_load(uninterrupted.ok("git", "show", f"{commit}:dvc.lock"))["stages"] for commit in references]
    assert len(locks) == 2
    for lock in locks:
        assert lock["train_resnet18"] == uninterrupted.lock()["train_resnet18"]
    assert locks[0]["train_keras_cnn"] != locks[1]["train_keras_cnn"]


def test_a_run_is_run_and_collected_once(uninterrupted: Clone) -> None:
    before = (uninterrupted.folder / "metrics/runs.csv").read_bytes()
    output = uninterrupted.ok("python", "-m", "stages.tools.grid")
    assert "2 runs, 2 of them done" in output
    assert "2 runs of 3 in experiments.yaml, 0 of them new" in output
    assert (uninterrupted.folder / "metrics/runs.csv").read_bytes() == before


def test_an_experiment_that_was_not_scored_is_not_collected(clone: Clone) -> None:
    """Its commit still has the scores of the run before it."""
    changes = ("batch_size=128", "dropout=0.4", "keras_cnn.epochs=25", "seed=8")
    overrides = [part for change in changes for part in ("-S", change)]
    clone.ok("dvc", "exp", "run", "--temp", "--name", f"{CUT}-seed8", *overrides, "train_keras_cnn")
    output = clone.ok("python", "-m", "stages.tools.collect")
    assert f"left out: {CUT}-seed8: its experiment is of other code, data or parameters, or was not scored" in output
    assert "0 runs of 3" in output


@pytest.mark.parametrize("changed", ["stages/training", "data/processed/train_images.npy"])
def test_an_experiment_of_other_code_or_data_is_not_collected(
    uninterrupted: Clone, tmp_path: Path, changed: str
) -> None:
    """As after a commit with other code or data. A row that is there already is refused, and not lost."""
    shutil.copytree(uninterrupted.folder, tmp_path / "clone", symlinks=True)
    clone = Clone(tmp_path / "clone")
    (md5,) = {dep["md5"] for dep in clone.lock()["train_keras_cnn"]["deps"] if dep["path"] == changed}
    lock = clone.folder / "dvc.lock"
    lock.write_text(lock.read_text().replace(md5, md5.translate(str.maketrans("0123456789", "1234567890"))))
    before = table(clone)
    result = clone.run("python", "-m", "stages.tools.collect")
    assert result.returncode == 1
    assert f"{FINISHED}-seed7 in metrics/runs.csv is of code " in result.stderr
    assert table(clone) == before
    (clone.folder / "metrics/runs.csv").write_text("name\n")
    output = clone.ok("python", "-m", "stages.tools.collect")
    for run in (f"{FINISHED}-seed7", f"{CUT}-seed8"):
        assert f"left out: {run}: its experiment is of other code, data or parameters, or was not scored" in output
    assert "0 runs of 3" in output


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            ("batch_size=64", "batch_size=32"),
            "was run with other parameters (batch_size is 64, not 32); remove its row",
        ),
        ((FINISHED, "other"), "which experiments.yaml does not name; name it there, or remove its row"),
    ],
)
def test_a_row_that_no_longer_belongs_is_said_and_kept(
    uninterrupted: Clone, tmp_path: Path, change: tuple[str, str], says: str
) -> None:
    shutil.copytree(uninterrupted.folder, tmp_path / "clone", symlinks=True)
    clone = Clone(tmp_path / "clone")
    before = table(clone)
    path = clone.folder / "experiments.yaml"
    path.write_text(path.read_text().replace(*change))
    before_training = clone.run("python", "-m", "stages.tools.grid", "screen-broken")
    assert (before_training.returncode, before_training.stdout) == (1, "")
    assert says in before_training.stderr
    result = clone.run("python", "-m", "stages.tools.collect")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert says in result.stderr
    assert table(clone) == before


def test_collected_runs_outlive_their_experiments(uninterrupted: Clone, tmp_path: Path) -> None:
    """A plain clone has no experiments. Its table still has the runs, and the grid does not repeat them."""
    subprocess.run(["git", "clone", "--quiet", uninterrupted.folder, tmp_path / "plain"], check=True)
    plain = Clone(tmp_path / "plain")
    for name in ("runs.csv", "experiments"):
        plain.ok("cp", "-r", str(uninterrupted.folder / "metrics" / name), "metrics/")
    assert "0 of them new" in plain.ok("python", "-m", "stages.tools.collect")
    assert table(plain) == table(uninterrupted)
    assert "2 runs, 2 of them done" in plain.ok("python", "-m", "stages.tools.grid")


def test_a_failed_run_does_not_stop_the_others(
    whole_grid: tuple[Clone, "subprocess.CompletedProcess[str]"],
) -> None:
    _, ended = whole_grid
    assert ended.returncode == 1
    assert "dropout is 1.5: input should be less than 1" in ended.stdout
    assert "git restore" not in ended.stdout
    for run in (f"{FINISHED}-seed7", f"{CUT}-seed8"):
        assert f"{run}: done" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr
    assert ended.stderr == (
        "grid: 1 of 3 runs failed: screen-broken-seed7; the others are done, and make collect brings them into the "
        "tables\n"
    )


def test_what_cannot_be_run_is_said(clone: Clone) -> None:
    result = clone.run("python", "-m", "stages.tools.grid", "table3")
    assert result.returncode == 1
    assert result.stderr == f"grid: experiments.yaml has no 'table3'; it has {FINISHED}, {CUT}, screen-broken\n"
    (clone.folder / "params.yaml").write_text((clone.folder / "params.yaml").read_text() + "# more\n")
    result = clone.run("python", "-m", "stages.tools.grid")
    assert result.returncode == 1
    assert result.stderr.startswith("grid: not committed: params.yaml; ")
    clone.commit("more")
    (clone.folder / "stages/common/.notes").touch()  # DVC would hash it, and no temporary copy has it
    result = clone.run("python", "-m", "stages.tools.grid")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith("grid: not committed: stages/common/.notes; ")
    (clone.folder / "stages/common/.notes").unlink()
    with FileLock(clone.folder / ".locks/grid.lock"):
        result = clone.run("python", "-m", "stages.tools.grid", "screen-broken")
    assert result.stderr.startswith("grid: another grid runs in this folder; ")
    augmentation = clone.folder / "stages/training/augmentation.py"
    augmentation.write_text(augmentation.read_text() + "# more\n")
    clone.commit("other code than was run")
    result = clone.run("python", "-m", "stages.tools.grid")
    assert result.stderr.startswith("grid: stages/training is not what dvc.lock records; ")


def test_only_a_cluster_needs_ray(clone: Clone, tmp_path: Path) -> None:
    """With a Ray that cannot be imported, as where it is not installed."""
    (tmp_path / "ray.py").write_text("raise ImportError('No module named ray')\n")
    without = {"PYTHONPATH": str(tmp_path)}
    assert "0 runs of 3" in clone.ok("python", "-m", "stages.tools.collect", **without)
    result = clone.run("python", "-m", "stages.tools.grid", "table3", **without)
    assert result.stderr.startswith("grid: experiments.yaml has no 'table3'; ")
    with socket.create_server(("127.0.0.1", 0)) as head:
        (clone.folder / ".cluster").mkdir()
        (clone.folder / ".cluster/token").touch(mode=0o600)
        address = f"127.0.0.1:{head.getsockname()[1]}"
        result = clone.run("python", "-m", "stages.tools.grid", "--cluster", address, **without)
    why = "Ray is not installed (No module named ray); pip install -r requirements-cluster.txt"
    assert (result.returncode, result.stderr) == (1, f"grid: {why}\n")


@pytest.mark.parametrize(
    ("jobs", "threads", "own", "set_"),
    [
        (1, None, {}, {}),
        (2, None, {}, {"OMP_WAIT_POLICY": "PASSIVE"}),
        (2, None, {"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
        (1, 3, {"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "3", "TF_NUM_INTRAOP_THREADS": "3"}),
    ],
)
def test_runs_at_once_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, jobs: int, threads: int | None, own: dict[str, str], set_: dict[str, str]
) -> None:
    monkeypatch.setattr(os, "environ", own)
    share_cores(jobs, threads)
    assert own == set_
