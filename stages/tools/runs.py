"""Running runs of experiments.yaml, several at once: here for `make grid`, and on each machine of a cluster."""

import contextlib
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from stages.common.errors import ExpectedError
from stages.experiments.git import experiments_in_git
from stages.experiments.plan import Run
from stages.tools.cluster_machine import threads_of_a_run

SHOWN = ("epoch ", "resumes after")  # of what a run prints
KEPT_LINES = 30
BUSY = "Unable to acquire lock"  # DVC waits three seconds for another run that starts or ends
TRIES = 5
END_SECONDS = 20.0  # for dvc and its stage to end by themselves


Watch = Callable[["subprocess.Popen[str]", str], bool]


class Named(Protocol):
    """A run."""

    @property
    def name(self) -> str: ...


class Runner(Protocol):
    """A way to run runs: processes of this machine, or a cluster."""

    def run(self, run: Any) -> bool:
        """Run it, and show its progress; return whether it succeeded."""

    def end(self, forcibly: bool) -> None:
        """End what is running."""


@contextlib.contextmanager
def alone(lock: Path, busy: str, instead: str = "") -> Iterator[None]:
    """While no other process holds this lock.

    Args:
        lock: Its file.
        busy: What another process does.
        instead: What else can be done than to wait.

    Raises:
        ExpectedError: Another process holds it.
    """
    lock.parent.mkdir(exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout:
        raise ExpectedError(f"{busy}; wait until it ends{instead}") from None


def share_cores(jobs: int, threads: int | None = None) -> None:
    """Set what the frameworks of the runs read from the environment, for so many runs at once on this machine.

    Args:
        jobs: How many at once.
        threads: Of each run; they change the order of sums, so a run records them. None: all cores.
    """
    if threads:
        os.environ |= threads_of_a_run(threads)
    if jobs > 1:  # PyTorch's threads would keep a core busy while they wait, which another run needs
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def run_all(runs: Sequence[Named], runner: Runner, jobs: int) -> list[str]:
    """Run them, and return the names of those that failed."""
    failed: list[str] = []
    pool = ThreadPoolExecutor(jobs)
    futures = {pool.submit(runner.run, run): run.name for run in runs}
    try:
        for count, future in enumerate(as_completed(futures), start=1):
            if not future.result():
                failed.append(futures[future])
            say(f"{futures[future]}: {'done' if future.result() else 'FAILED'} ({count} of {len(runs)})")
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        end_all(runner, futures)
    return failed


def end_all(runner: Runner, futures: "Iterable[Future[Any]]") -> None:
    """End what is still running, and wait for it."""
    waited = [future for future in futures if not future.cancelled()]
    for forcibly in (False, True):
        runner.end(forcibly)
        wait(waited, timeout=END_SECONDS)


def command_of(run: Run) -> list[str]:
    """What dvc is to do for a run of experiments.yaml."""
    overrides = [part for override in [*run.overrides, f"seed={run.seed}"] for part in ("-S", override)]
    return ["exp", "run", "--temp", "--name", run.name, *overrides, f"evaluate@{run.model}"]


class Processes:
    """Runs as processes of this machine; `command_of` says what dvc is to do for one."""

    def __init__(self, command_of: Callable[[Any], list[str]] = command_of) -> None:
        self.active: list[subprocess.Popen[str]] = []
        self.command_of = command_of

    def run(self, run: Any) -> bool:
        """Run it, and show its progress; return whether it succeeded."""
        command = self.command_of(run)
        say(f"{run.name}: dvc {' '.join(command)}")
        status, last_lines = run_dvc(run.name, command, self.active)
        if status != 0:
            say("".join(f"    {line}" for line in last_lines).rstrip())
        return status == 0

    def end(self, forcibly: bool) -> None:
        """End them: first as Ctrl-C does."""
        for process in list(self.active):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL if forcibly else signal.SIGINT)  # dvc alone would leave its stage


def run_dvc(
    name: str, command: list[str], active: "list[subprocess.Popen[str]]", watch: Watch | None = None
) -> tuple[int, deque[str]]:
    """Run `dvc exp run --temp`, some times if DVC is busy; return its exit status and its last lines.

    Args:
        name: Of the run.
        command: What dvc is to do.
        active: The processes that run; this one is among them while it does.
        watch: Called with each line that is shown; returns whether it ended the run, which is then not tried again.
    """
    for _ in range(TRIES):
        status, last_lines, ended = _run_once(name, command, active, watch)
        if status == 0 or ended or not any(BUSY in line for line in last_lines):
            break
    return status, last_lines


def _run_once(
    name: str, command: list[str], active: "list[subprocess.Popen[str]]", watch: Watch | None
) -> tuple[int, deque[str], bool]:
    """Likewise, once, in a process group of its own; return also whether `watch` ended it.

    The status is 1 too if dvc succeeds but git does not have the experiment. DVC 3.67 says nothing where it cannot
    fetch it from the temporary copy, because the clone is shallow or the disk full.
    """
    # dvc.yaml's commands say `python`, which has to be this one.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    last_lines: deque[str] = deque(maxlen=KEPT_LINES)
    before, ended = experiments_in_git().get(name, []), False
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "stages.tools.dvc_child", str(os.getpid()), *command],
        env=os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        active.append(process)
        assert process.stdout is not None
        for line in process.stdout:  # until the last process of the group has closed it
            last_lines.append(line)
            if line.startswith(SHOWN):
                say(f"{name}: {line.rstrip()}")
                ended = bool(watch and watch(process, line)) or ended
    active.remove(process)
    status = process.returncode
    if status == 0 and experiments_in_git().get(name, []) == before:
        last_lines.append("dvc made the experiment, and git does not have it: is the disk full?\n")
        status = 1
    return status, last_lines, ended


def say(what: str) -> None:
    with contextlib.suppress(OSError):  # where nobody reads any more, the runs must not wait
        print(what, flush=True)
