"""What befalls a run, each for real in a copy of a small reproduction: kills, full disks, locks, hostile surroundings.

After each of them the next plain command succeeds or has said what to do, nothing half-written passes for finished, and
the results are the committed ones to the byte; errors.WAY_BACK brings those back without running anything again.
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

from tests.clones import WAY_BACK, Clone, stages_run

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(300)]

# Python imports it first of all. The stage that is named waits when it opens the file that is named, as long as the
# mark is there; what it would write is half-written then, as a kill at that moment leaves it.
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
    """A stage, a file that it reads when it is told to end, and one that it writes when it is killed."""

    stage: str
    reads: str
    writes: str


PROCESSED = "data/processed"
MOMENTS = [
    Moment("download", "params.yaml", "data/raw/.incomplete/test_batch"),
    Moment("preprocess", "data/raw/cifar-10-batches-py/data_batch_3", f"{PROCESSED}/test_images.npy"),
    Moment("split", f"{PROCESSED}/train_labels.npy", f"{PROCESSED}/split.npz"),
    Moment("train_keras_cnn", f"{PROCESSED}/train_images.npy", "metrics/runs/keras_cnn.json"),
    Moment("train_resnet18", f"{PROCESSED}/train_images.npy", "metrics/runs/resnet18.json"),
    Moment("evaluate@keras_cnn", "metrics/runs/keras_cnn.json", "metrics/confusion/keras_cnn.csv"),
    Moment("evaluate@resnet18", "metrics/runs/resnet18.json", "metrics/confusion/resnet18.csv"),
    Moment("plot", "metrics/samples.npz", "metrics/figures/samples.png"),
    Moment("compare", "metrics/dataset.json", "metrics/comparison.md"),
]
SPLIT = MOMENTS[2]


class Surroundings(NamedTuple):
    """A command before dvc's, or a change of the clone, that makes the fault; the stage; what it says, if it fails."""

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
    """As a clock that is set back leaves a clone: every file and folder is ten years newer than now."""
    for path in folder.rglob("*"):
        os.utime(path, (time.time() + 3e8,) * 2, follow_symlinks=False)


# Root without this right is held to permissions as anyone is; another user could not even read a Python in root's home.
ORDINARY = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.getuid() == 0 else ()
SMALL_FILES = ("sh", "-c", 'ulimit -f 1000; exec "$@"', "sh")  # half a MB, or a whole one, as the shell counts
SMALL_DISK = ("unshare", "-m", "sh", "-c", f'mount -t tmpfs -o size=600k none {PROCESSED}; exec "$@"', "sh")
NO_SPACE = "No space left on device; free some space and run the same command again"
NOT_ALLOWED = "Permission denied"
SURROUNDINGS = {
    "no space left: a limit on files": Surroundings("preprocess", "raise the limit on file sizes", SMALL_FILES),
    "no space left: a full disk": Surroundings("preprocess", NO_SPACE, SMALL_DISK),
    "an output folder that cannot be written": Surroundings("split", NOT_ALLOWED, ORDINARY, locked(PROCESSED)),
    "another, in git": Surroundings("compare", NOT_ALLOWED, ORDINARY, locked("metrics")),
    "a folder of locks that cannot be written": Surroundings("split", NOT_ALLOWED, ORDINARY, without_locks),
    "a clock set back": Surroundings("split", change=in_the_future),
    "LANG=C": Surroundings("compare", before=("env", "-u", "LC_CTYPE", "LC_ALL=C", "LANG=C", "PYTHONCOERCECLOCALE=0")),
    "no HOME": Surroundings("plot", before=("env", "-u", "HOME")),
    "an unwritable temp folder": Surroundings("split", before=(*ORDINARY, "env", "TMPDIR=/proc")),
    "all of these for Keras": Surroundings(
        "evaluate@keras_cnn", before=(*ORDINARY, "env", "-u", "HOME", "TMPDIR=/proc", "LC_ALL=C")
    ),
    "all of these for PyTorch": Surroundings(
        "evaluate@resnet18", before=(*ORDINARY, "env", "-u", "HOME", "TMPDIR=/proc", "LC_ALL=C")
    ),
}


@pytest.fixture
def clone(repository: tuple[Clone, str], tmp_path: Path, request: pytest.FixtureRequest) -> Clone:
    """A copy whose name has spaces, quotes and more than ASCII, without the runs that DVC would take results from."""
    folder = tmp_path / getattr(request, "param", "an 'ünusual' 目录 & more")
    subprocess.run(["cp", "-a", repository[0].folder, folder], check=True)
    shutil.rmtree(folder / ".dvc/cache/runs")
    (folder / ".git/pause").mkdir()
    (folder / ".git/pause/sitecustomize.py").write_text(PAUSE)
    copy = Clone(folder)
    assert copy.ok("git", "status", "--porcelain") == ""
    return copy


def mark(clone: Clone) -> Path:
    return clone.folder / ".git/pause/mark"


def paused(clone: Clone, stage: str, place: str, *command: str) -> "tuple[subprocess.Popen[str], int]":
    """The command at work, and the process of its stage, which waits at that file."""
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


def again(stage: str) -> tuple[str, ...]:
    return ("dvc", "repro", "--force", "--single-item", stage)


def ended(process: "subprocess.Popen[str]") -> str:
    """What a command that must fail said."""
    output, errors = process.communicate()
    assert process.returncode != 0
    assert "Traceback" not in output + errors
    return output + errors


def assert_committed_results(clone: Clone) -> None:
    """All but the run times is as it was committed, to the byte."""
    status = {line[3:] for line in clone.ok("git", "status", "--porcelain").splitlines()}
    assert status <= {"dvc.lock", "metrics/runtime/keras_cnn.json", "metrics/runtime/resnet18.json"}
    before = yaml.safe_load(clone.ok("git", "show", "HEAD:dvc.lock"))["stages"]
    assert outputs(clone.lock()) == outputs(before)


def outputs(lock: dict) -> dict[str, str]:
    return {
        output["path"]: output["md5"]
        for stage in lock.values()
        for output in stage["outs"]
        if "runtime" not in output["path"]
    }


def assert_goes_back(clone: Clone) -> None:
    """What the errors name: everything is as committed, and nothing needs to run."""
    clone.ok("sh", "-c", WAY_BACK)
    assert clone.ok("git", "status", "--porcelain") == ""
    assert "up to date" in clone.ok("dvc", "status")


@pytest.mark.parametrize("moment", MOMENTS, ids=[moment.stage for moment in MOMENTS])
def test_a_stage_that_is_ended_or_killed(clone: Clone, moment: Moment) -> None:
    stage = moment.stage
    process, number = paused(clone, stage, moment.reads, *again(stage))
    os.kill(number, signal.SIGTERM)
    assert f"{stage}: interrupted; the same command goes on" in ended(process)
    assert_goes_back(clone)

    process, number = paused(clone, stage, moment.writes, *again(stage))
    os.kill(number, signal.SIGKILL)
    assert f"failed to reproduce '{stage}'" in ended(process)
    assert (clone.folder / moment.writes).read_bytes() == b"half"
    assert stages_run(clone.ok("dvc", "repro")) in ([stage], [])  # of what is missing DVC's cache may have the bytes
    assert_committed_results(clone)
    assert "up to date" in clone.ok("dvc", "status")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_dvc_that_is_killed_and_the_locks_that_it_leaves(clone: Clone, number: signal.Signals) -> None:
    process, _ = paused(clone, SPLIT.stage, SPLIT.writes, *again(SPLIT.stage))
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # Ctrl-C goes to every process of the terminal
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
    """DVC says that only its watching ends: the experiments go on, and the workspace stays as it was.

    The folder's name is ASCII: in another DVC 3.67 itself fails to set up a queued or temporary run.
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


@pytest.mark.parametrize("surroundings", SURROUNDINGS.values(), ids=SURROUNDINGS.keys())
def test_hostile_surroundings(clone: Clone, surroundings: Surroundings) -> None:
    stage, says, before, change = surroundings
    if before and clone.run(*before, "true").returncode != 0:
        pytest.skip(f"may not be done here: {' '.join(before)}")
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


def test_junk_in_dvcs_cache_is_named_and_the_line_leads_out(clone: Clone) -> None:
    """DVC takes a read-only file of its cache for what its name says, and puts it over what a new training writes."""
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
