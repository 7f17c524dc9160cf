"""One run of the grid on a machine of the cluster: data, run, push. `stages.tools.cluster_machine` starts it.

    python -m stages.tools.cluster_run PARENT NAME

It runs in a clone at the grid's commit and makes the run as `make grid` does. It ends soon after its parent.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from filelock import FileLock

from stages.common.errors import ExpectedError, run_program
from stages.common.paths import LOCK
from stages.common.process import LOCKS, end_with
from stages.experiments.git import git
from stages.experiments.origin import made, origin, read_lock
from stages.experiments.plan import Experiments, Run, all_runs, load_experiments
from stages.tools.runs import Processes, run_all, say

DATA_STAGES = ("download", "preprocess", "split")
PRESENT = LOCKS / "cluster-data"  # a file that says that the data is here
BEGUN = Path(".begun")  # a file for each run that did not end: its checkpoint is here
THEIRS = "refs/cluster-theirs"
PAUSES = (5.0, 30.0, 120.0)  # seconds before a push is tried again


def main() -> None:
    parent, name = sys.argv[1:]
    end_with(int(parent))
    experiments = load_experiments()
    run = all_runs(experiments)[name]
    commit = git("rev-parse", "HEAD").strip()
    reference = f"refs/exps/{commit[:2]}/{commit[2:]}/{name}"
    if pushed(run, reference, experiments):
        return
    if not exists(run, reference, experiments):
        get_data()
        BEGUN.mkdir(exist_ok=True)
        (BEGUN / name).touch()
        failed = run_all([run], Processes(), jobs=1)
        (BEGUN / name).unlink(missing_ok=True)
        if failed:
            sys.exit(1)
    push(run, reference, experiments)


def exists(run: Run, reference: str, experiments: Experiments) -> bool:
    """Whether this clone has the run."""
    commits = git("for-each-ref", "--format=%(objectname)", reference).split()
    return made(run, commits, origin(read_lock(), run.model), experiments) is not None


def pushed(run: Run, reference: str, experiments: Experiments) -> bool:
    """Whether the git remote has the run."""
    if not git("ls-remote", "origin", reference):
        return False
    git("fetch", "--quiet", "origin", f"+{reference}:{THEIRS}")
    return exists(run, THEIRS, experiments)


def get_data() -> None:
    """Bring the data that dvc.lock records: from the DVC remote, or, without one, as `dvc repro split` makes it.

    A machine with CIFAR10_ARCHIVE needs no remote: the stage `download` checks the archive's sums.

    Raises:
        ExpectedError: DVC failed, or the data is other than what dvc.lock records.
    """
    LOCKS.mkdir(exist_ok=True)
    with FileLock(PRESENT.with_suffix(".lock")):  # several runs may start here at once
        if PRESENT.exists():
            return
        if os.environ.get("CIFAR10_ARCHIVE") or not dvc("remote", "list"):
            dvc("repro", "split")
        else:
            dvc("pull", *DATA_STAGES)
        if changes := git("status", "--porcelain", "--untracked-files=no"):
            git("checkout", "--force", "HEAD")
            raise ExpectedError(f"the data made here is not what {LOCK} records: {' '.join(changes.split())} changed")
        PRESENT.touch()


def dvc(*arguments: str) -> str:
    """What a command of DVC prints.

    Raises:
        ExpectedError: It failed.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # whose python the stages are
    result = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "stages.tools.dvc_child", str(os.getpid()), *arguments],
        env=os.environ | {"PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        start_new_session=True,
        check=False,
    )
    if result.returncode:
        reasons = (*(f"{stage}: " for stage in DATA_STAGES), "ERROR")  # what a stage says comes before DVC's own line
        why = next((line for line in result.stderr.splitlines() if line.startswith(reasons)), result.returncode)
        raise ExpectedError(f"dvc {' '.join(arguments)} failed: {why}")
    return result.stdout


def push(run: Run, reference: str, experiments: Experiments) -> None:
    """Push the run, if nobody else has meanwhile.

    Raises:
        ExpectedError: The git remote does not take it; it stays here, and the same command pushes it again.
    """
    for pause in (*PAUSES, None):
        try:
            git("push", "--quiet", "origin", reference)
            return
        except ExpectedError as error:
            if pause is None:
                raise ExpectedError(f"{run.name} is made, but {error}; the same command pushes it again") from None
            try:
                if pushed(run, reference, experiments):
                    return
            except ExpectedError:
                pass  # the remote is away
            say(f"{run.name}: not pushed yet: {error}")
            time.sleep(pause)


if __name__ == "__main__":
    run_program("cluster_run", main)
