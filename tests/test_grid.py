"""`make grid` and `make collect` through the real `dvc`, on the stand-in: killed and gone on, and collected."""

import csv
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from tests.clones import Clone, new_repository

pytestmark = pytest.mark.pipeline

SMALL = {
    "data": {"source": "synthetic", "synthetic": {"seed": 7, "train_images": 300, "test_images": 60}},
    "keras_cnn": {"epochs": 1, "filters": [3, 4], "dense_units": 6},
    "evaluate": {"augmented_draws": 2},
}
FINISHED, CUT = "table2-64-0.3", "table2-128-0.4"
EXPERIMENTS = {
    "configurations": {
        FINISHED: {"model": "keras_cnn", "seeds": [7], "set": ["batch_size=64", "dropout=0.3"]},
        CUT: {"model": "keras_cnn", "seeds": [8], "set": ["batch_size=128", "dropout=0.4", "keras_cnn.epochs=25"]},
        "screen-broken": {"model": "keras_cnn", "seeds": [7], "set": ["dropout=1.5"]},
    },
    "same_results": {},
}
OF_THE_CLOCK = {"seconds"}
SECONDS = 120  # for what takes a few


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The working tree with a small stand-in and no collected runs, its Keras CNN trained; not to be changed."""
    clone = new_repository(tmp_path_factory.mktemp("grid") / "origin", SMALL)
    (clone.folder / "experiments.yaml").write_text(yaml.safe_dump(EXPERIMENTS, sort_keys=False))
    (clone.folder / "metrics/runs.csv").write_text("name\n")
    shutil.rmtree(clone.folder / "metrics/experiments", ignore_errors=True)
    clone.commit("small")
    clone.ok("dvc", "repro", "evaluate@keras_cnn")
    clone.commit("reproduced")
    return clone


@pytest.fixture
def clone(repository: Clone, tmp_path: Path) -> Clone:
    """A copy of it, DVC's cache included."""
    shutil.copytree(repository.folder, tmp_path / "clone", symlinks=True)
    return Clone(tmp_path / "clone")


def processes_in(folder: Path) -> list[psutil.Process]:
    """Those that work below a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def none_is_left(folder: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while (left := processes_in(folder)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, [process.cmdline() for process in left]


def read_until(process: "subprocess.Popen[str]", text: str) -> str:
    """What it printed up to the line with this text, which has to come."""
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if text in line:
            return printed
    raise AssertionError(printed)


def table(clone: Clone) -> list[dict[str, str]]:
    """The collected runs, but for what the clock says."""
    with (clone.folder / "metrics/runs.csv").open(newline="") as file:
        return [
            {name: value for name, value in row.items() if name not in OF_THE_CLOCK} for row in csv.DictReader(file)
        ]


def histories(clone: Clone) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (clone.folder / "metrics/experiments").iterdir()}


@pytest.fixture(scope="module")
def uninterrupted(repository: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A copy in which the grid ran to its end, both cells at once; not to be changed."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "clone"
    shutil.copytree(repository.folder, folder, symlinks=True)
    clone = Clone(folder)
    output = clone.ok("python", "-m", "stages.grid", "--jobs", "2")
    assert f"{CUT}-seed8: epoch 25/25" in output
    return clone


GRID = (sys.executable, "-m", "stages.grid")
# The recipe of the Makefile, without the set-up that it would begin with.
MAKE = ("make", "--file=/dev/null", f"--eval=grid:; {' '.join(GRID)}", "grid")


@pytest.mark.parametrize(
    ("command", "ending"), [(MAKE, signal.SIGKILL), (GRID, signal.SIGINT)], ids=["make, killed", "Ctrl-C"]
)
def test_an_ended_grid_goes_on_to_the_same_table(
    uninterrupted: Clone, clone: Clone, command: tuple[str, ...], ending: signal.Signals
) -> None:
    process = clone.start(*command, stderr=subprocess.STDOUT)
    try:
        read_until(process, f"{FINISHED}-seed7: done (1 of 2)")
        read_until(process, f"{CUT}-seed8: epoch 3/25")
        process.send_signal(ending)
        rest, _ = process.communicate(timeout=SECONDS)  # until the last process that could write there is gone
    finally:
        process.kill()
    assert process.returncode == (1 if ending == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in rest
    none_is_left(clone.folder)
    assert clone.ok("git", "status", "--porcelain") == ""

    output = clone.ok("python", "-m", "stages.grid")
    assert "2 runs, 1 of them done" in output
    assert f"{FINISHED}-seed7: dvc exp run" not in output
    assert f"{CUT}-seed8: goes on after epoch" in output
    assert f"{CUT}-seed8: epoch 2/25" not in output
    assert table(clone) == table(uninterrupted)
    assert histories(clone) == histories(uninterrupted)
    none_is_left(clone.folder)


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
    assert not (uninterrupted.folder / "models/resnet18.pt").exists()  # a cell trains its own model alone


def test_a_run_is_run_and_collected_once(uninterrupted: Clone) -> None:
    before = (uninterrupted.folder / "metrics/runs.csv").read_bytes()
    output = uninterrupted.ok("python", "-m", "stages.grid")
    assert "2 runs, 2 of them done" in output
    assert "2 runs of 3 in experiments.yaml, 0 of them new" in output
    assert (uninterrupted.folder / "metrics/runs.csv").read_bytes() == before


def test_an_experiment_that_was_not_scored_is_not_collected(clone: Clone) -> None:
    """Its commit still has the scores of the run before it."""
    changes = ("batch_size=128", "dropout=0.4", "keras_cnn.epochs=25", "seed=8")
    overrides = [part for change in changes for part in ("-S", change)]
    clone.ok("dvc", "exp", "run", "--temp", "--name", f"{CUT}-seed8", *overrides, "train_keras_cnn")
    output = clone.ok("python", "-m", "stages.collect")
    assert f"left out: {CUT}-seed8: its experiment is of other code, data or parameters, or was not scored" in output
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
    result = clone.run("python", "-m", "stages.collect")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert says in result.stderr
    assert table(clone) == before


def test_collected_runs_outlive_their_experiments(uninterrupted: Clone, tmp_path: Path) -> None:
    """In a plain clone there are none, and the table still has them, and the grid does not run them again."""
    subprocess.run(["git", "clone", "--quiet", uninterrupted.folder, tmp_path / "plain"], check=True)
    plain = Clone(tmp_path / "plain")
    for name in ("runs.csv", "experiments"):
        plain.ok("cp", "-r", str(uninterrupted.folder / "metrics" / name), "metrics/")
    assert "0 of them new" in plain.ok("python", "-m", "stages.collect")
    assert table(plain) == table(uninterrupted)
    assert "2 runs, 2 of them done" in plain.ok("python", "-m", "stages.grid")


def test_a_failed_run_does_not_stop_the_others(clone: Clone) -> None:
    result = clone.run("python", "-m", "stages.grid", "screen-broken", FINISHED)
    assert result.returncode == 1
    assert "dropout is 1.5; allowed: a number from 0 to below 1" in result.stdout
    assert f"{FINISHED}-seed7: done" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr
    assert result.stderr == "grid: 1 of 2 runs failed: screen-broken-seed7; the others are done\n"


def test_what_cannot_be_run_is_said(clone: Clone) -> None:
    result = clone.run("python", "-m", "stages.grid", "table3")
    assert result.returncode == 1
    assert result.stderr == f"grid: experiments.yaml has no 'table3'; it has {FINISHED}, {CUT}, screen-broken\n"
    (clone.folder / "params.yaml").write_text((clone.folder / "params.yaml").read_text() + "# more\n")
    result = clone.run("python", "-m", "stages.grid")
    assert result.returncode == 1
    assert result.stderr.startswith("grid: not committed: params.yaml; ")
    clone.commit("more")
    augmentation = clone.folder / "stages/augmentation.py"
    augmentation.write_text(augmentation.read_text() + "# more\n")
    clone.commit("other code than was run")
    result = clone.run("python", "-m", "stages.grid")
    assert result.stderr.startswith("grid: stages/augmentation.py is not the one of dvc.lock; ")
