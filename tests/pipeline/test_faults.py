"""Real faults in a copy of a small reproduction: kills, full disks, locks, hostile environments.

After each fault the next plain command succeeds, nothing half-written counts as finished, and the results are the
committed ones, byte for byte. errors.WAY_BACK restores those without running anything.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.support.clones import ALL_STAGES, HOSTILE, ORDINARY, UNUSUAL, WAY_BACK, Clone, stages_run

pytestmark = pytest.mark.pipeline

# Python imports it first. The named stage waits when it opens the named file, until the mark is removed. A file that it
# opens to write is half-written then, as a kill at that moment leaves it.
PAUSE = """
import os, sys, time
from pathlib import Path

def pause(event, arguments):
    if event != "open" or not str(arguments[0]).endswith(os.environ.get("PAUSE_AT", "/never")):
        return
    del os.environ["PAUSE_AT"]
    if "w" in (arguments[1] or ""):
        Path(arguments[0]).write_bytes(b"half")
    mark = Path(os.environ["PAUSE_MARK"])
    mark.with_suffix(".new").write_text(str(os.getpid()))
    mark.with_suffix(".new").replace(mark)
    while mark.exists():
        time.sleep(0.1)

if os.environ.get("DVC_STAGE") == os.environ.get("PAUSE_STAGE", ""):
    sys.addaudithook(pause)
"""


class Moment(NamedTuple):
    """A stage, a file that it reads when it gets SIGTERM, and one that it writes when it gets SIGKILL."""

    stage: str
    reads: str
    writes: str = ""


PROCESSED = "data/processed"
MOMENTS = [
    Moment("download", "params.yaml", "data/raw/.incomplete/test_batch"),
    Moment("preprocess", "data/raw/cifar-10-batches-py/data_batch_3", f"{PROCESSED}/test_images.npy"),
    Moment("split", f"{PROCESSED}/train_labels.npy", f"{PROCESSED}/split.npz"),
    Moment("train_keras_cnn", f"{PROCESSED}/train_images.npy", "metrics/runs/keras_cnn.json"),
    Moment("train_resnet18", f"{PROCESSED}/train_images.npy", "metrics/runs/resnet18.json"),
    Moment("evaluate@keras_cnn", "metrics/runs/keras_cnn.json"),
    Moment("evaluate@resnet18", "metrics/runs/resnet18.json"),
    Moment("export_keras_cnn", "metrics/runs/keras_cnn.json", "metrics/export/keras_cnn.json"),
    Moment("cards", "metrics/dataset.json"),
    Moment("plot", "metrics/samples.npz", "metrics/figures/samples.png"),
    Moment("compare", "metrics/dataset.json", "metrics/comparison.md"),
    Moment("report", "metrics/samples.npz", "metrics/report.html"),
]
assert {moment.stage for moment in MOMENTS} == {*ALL_STAGES} - {"export_resnet18"}  # of the exports one
SPLIT = next(moment for moment in MOMENTS if moment.stage == "split")


class Surroundings(NamedTuple):
    """A stage, what it says if it fails, and the fault: a command that runs dvc, or a change of the clone."""

    stage: str
    says: str = ""
    before: tuple[str, ...] = ()
    change: Callable[[Path], object] = lambda folder: None


def locked(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).chmod(0o555)


def without_locks(folder: Path) -> None:
    shutil.rmtree(folder / ".locks")
    (folder / ".locks").mkdir(mode=0o555)


def in_the_future(folder: Path) -> None:
    """Every file and folder is ten years newer than now, as after a clock is set back."""
    for path in folder.rglob("*"):
        os.utime(path, (time.time() + 3e8,) * 2, follow_symlinks=False)


SMALL_DISK = ("unshare", "-m", "sh", "-c", f'mount -t tmpfs -o size=100k none {PROCESSED}; exec "$@"', "sh")
NOT_ALLOWED = "Permission denied"
SURROUNDINGS = {
    "a full disk": Surroundings("preprocess", "No space left on device", SMALL_DISK),
    "an output folder that cannot be written": Surroundings("split", NOT_ALLOWED, ORDINARY, locked(PROCESSED)),
    "a folder of locks that cannot be written": Surroundings("split", NOT_ALLOWED, ORDINARY, without_locks),
    "a clock set back": Surroundings("split", change=in_the_future),
}
OF_THE_CLOCK = {"metrics/runtime/keras_cnn.json", "metrics/runtime/resnet18.json", "metrics/report.html"}  # says both


@pytest.fixture
def clone(repository: tuple[Clone, str], tmp_path: Path, request: pytest.FixtureRequest) -> Clone:
    """A copy whose name has spaces, quotes and non-ASCII letters, without DVC's record of earlier runs."""
    folder = tmp_path / getattr(request, "param", UNUSUAL)
    subprocess.run(["cp", "-a", repository[0].folder, folder], check=True)
    shutil.rmtree(folder / ".dvc/cache/runs", ignore_errors=True)
    (folder / ".git/pause").mkdir()
    (folder / ".git/pause/sitecustomize.py").write_text(PAUSE)
    copy = Clone(folder)
    assert copy.ok("git", "status", "--porcelain") == ""
    return copy


def mark(clone: Clone) -> Path:
    return clone.folder / ".git/pause/mark"


def paused(clone: Clone, stage: str, place: str, *command: str) -> "tuple[subprocess.Popen[str], int]":
    """The running command, and the process of its stage, which waits at that file."""
    mark(clone).unlink(missing_ok=True)
    process = clone.start(
        *command,
        PYTHONPATH=str(clone.folder / ".git/pause"),
        PAUSE_STAGE=stage,
        PAUSE_AT=place,
        PAUSE_MARK=str(mark(clone)),
    )
    while not mark(clone).exists():
        assert process.poll() is None, "\n".join(process.communicate())
        time.sleep(0.05)
    return process, int(mark(clone).read_text())


def again(*stages: str) -> tuple[str, ...]:
    return ("dvc", "repro", "--force", "--single-item", *stages)


def ended(process: "subprocess.Popen[str]") -> str:
    """Wait for a command that must fail, and return what it printed."""
    output, errors = process.communicate()
    assert process.returncode != 0
    assert "Traceback" not in output + errors
    return output + errors


def assert_committed_results(clone: Clone) -> None:
    """Everything except the run times is as committed, byte for byte."""
    status = {line[3:] for line in clone.ok("git", "status", "--porcelain").splitlines()}
    assert status <= {"dvc.lock", *OF_THE_CLOCK}
    before = yaml.safe_load(clone.ok("git", "show", "HEAD:dvc.lock"))["stages"]
    assert outputs(clone.lock()) == outputs(before)


def outputs(lock: dict) -> dict[str, str]:
    return {
        output["path"]: output["md5"]
        for stage in lock.values()
        for output in stage["outs"]
        if output["path"] not in OF_THE_CLOCK
    }


def assert_goes_back(clone: Clone) -> None:
    """The commands that errors name work: everything is as committed, and nothing needs to run."""
    clone.ok("sh", "-c", WAY_BACK)
    assert clone.ok("git", "status", "--porcelain") == ""
    assert "up to date" in clone.ok("dvc", "status", "dvc.yaml")


@pytest.mark.parametrize("moment", MOMENTS, ids=[moment.stage for moment in MOMENTS])
def test_a_stage_that_is_ended_or_killed(clone: Clone, moment: Moment) -> None:
    stage = moment.stage
    process, number = paused(clone, stage, moment.reads, *again(stage))
    os.kill(number, signal.SIGTERM)
    assert f"{stage}: interrupted; the same command " in ended(process)
    if stage == SPLIT.stage:
        assert_goes_back(clone)
    if moment.writes:
        process, number = paused(clone, stage, moment.writes, *again(stage))
        os.kill(number, signal.SIGKILL)
        assert f"failed to reproduce '{stage}'" in ended(process)
        assert (clone.folder / moment.writes).read_bytes() == b"half"
    ran = stages_run(clone.ok("dvc", "repro"))
    assert ran in ([stage], [stage, "report"], [])  # DVC's cache may have the bytes; the report has the run times
    assert_committed_results(clone)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_dvc_that_is_killed_and_the_locks_that_it_leaves(clone: Clone, number: signal.Signals) -> None:
    process, _ = paused(clone, SPLIT.stage, SPLIT.writes, *again(SPLIT.stage))
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # Ctrl-C reaches every process of the terminal
    else:
        process.send_signal(number)
    process.wait()
    assert stages_run(clone.ok("dvc", "repro")) == [SPLIT.stage]
    assert_committed_results(clone)


def test_dvc_repro_twice_at_once(clone: Clone) -> None:
    first, _ = paused(clone, SPLIT.stage, SPLIT.writes, *again(SPLIT.stage))
    second = clone.run("dvc", "repro")
    assert second.returncode != 0
    assert f"is busy, it is being blocked by:\n  (PID {first.pid})" in second.stderr
    mark(clone).unlink()
    assert first.wait() == 0, first.communicate()
    assert stages_run(clone.ok("dvc", "repro")) == []
    assert_committed_results(clone)


@pytest.mark.parametrize("clone", ["an 'unusual' name & more"], indirect=True)
def test_ctrl_c_during_a_queue(clone: Clone) -> None:
    """Only DVC's monitoring ends: the experiments continue, and the workspace stays as it was.

    The folder's name is ASCII: in any other, DVC 3.67 itself cannot set up a queued or temporary run.
    """
    clone.ok("dvc", "exp", "run", "--queue", "--name", "queued", "-S", "split.random_state=8", SPLIT.stage)
    process, _ = paused(clone, SPLIT.stage, SPLIT.writes, "dvc", "exp", "run", "--run-all")
    os.killpg(process.pid, signal.SIGINT)
    process.wait()
    mark(clone).unlink()
    while "Success" not in (status := clone.ok("dvc", "queue", "status")):
        assert "Failed" not in status
        time.sleep(0.5)
    assert stages_run(clone.ok("dvc", "repro")) == []
    assert_goes_back(clone)
    assert "queued" in clone.ok("dvc", "exp", "list", "--all-commits")


def skip_unless_allowed(clone: Clone, before: tuple[str, ...]) -> None:
    missing = before and shutil.which(before[0]) is None  # macOS has no `unshare`
    if missing or clone.run(*before, "true").returncode != 0:
        pytest.skip(f"may not be done here: {' '.join(before)}")


@pytest.mark.parametrize("surroundings", SURROUNDINGS.values(), ids=SURROUNDINGS.keys())
def test_hostile_surroundings(clone: Clone, surroundings: Surroundings) -> None:
    stage, says, before, change = surroundings
    skip_unless_allowed(clone, before)
    change(clone.folder)
    result = clone.run(*before, *again(stage))
    if not says:
        assert result.returncode == 0, result.stderr
        assert_committed_results(clone)
        return
    assert result.returncode != 0
    assert says in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    for path in (path for path in clone.folder.rglob("*") if path.is_dir()):
        path.chmod(0o755)
    assert stages_run(clone.ok("dvc", "repro")) in ([stage], [])
    assert_committed_results(clone)


def test_without_home_with_a_tmpdir_that_cannot_be_written_in_the_language_c(
    repository: tuple[Clone, str], clone: Clone
) -> None:
    """The reproduction that is copied here ran so; other tests run its stages again elsewhere, to the same bytes."""
    skip_unless_allowed(clone, HOSTILE)
    _, output = repository
    assert output.startswith("HOME=none TMPDIR=/proc LC_ALL=C\n")


def test_junk_in_dvcs_cache_is_named_and_the_line_leads_out(clone: Clone) -> None:
    """DVC trusts a read-only file in its cache, and puts it in place of what a new training writes."""
    model = clone.folder / "models/resnet18.pt"
    digest = outputs(clone.lock())["models/resnet18.pt"]
    cached = clone.folder / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
    cached.chmod(0o644)
    cached.write_bytes(b"junk")
    cached.chmod(0o444)
    model.unlink()
    clone.ok("dvc", "checkout")
    said = ended(clone.start(*again("evaluate@resnet18")))
    assert "models/resnet18.pt is not a model that this pipeline trained" in said
    clone.ok("chmod", "-R", "u+w", ".dvc/cache")
    model.unlink()
    clone.ok("dvc", "repro")
    assert_committed_results(clone)
    assert "chmod -R u+w .dvc/cache" in said
