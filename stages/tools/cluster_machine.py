"""What a machine of the cluster does for the grid. Ray sends this by value, so it imports the standard library alone.

The machine's clone may be at any commit. A run takes place in a clone of that clone, `.runs/<commit>`, at the commit of
the grid, and all that it does there is in that commit's `stages.tools.cluster_run`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


class RemoteRun:
    """A Ray actor that makes one run. Actors have names, so all drivers that want a run follow the same actor."""

    def __init__(self, commit: str, name: str, threads: int) -> None:
        self.lines: list[str] = []
        self.status: int | None = None
        self.changed = threading.Condition()
        threading.Thread(target=self._run, args=(commit, name, threads), daemon=True).start()

    def follow(self, known: int) -> tuple[str, list[str], int | None]:
        """Wait for news: the machine's name, the lines after the first `known`, and the exit status at the end."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.lines) > known or self.status is not None)
            return os.environ["CLUSTER_MACHINE"], self.lines[known:], self.status

    def _run(self, commit: str, name: str, threads: int) -> None:
        status = 1
        try:
            command = [sys.executable, "-m", "stages.tools.cluster_run", str(os.getpid()), name]
            with subprocess.Popen(  # noqa: S603
                command,
                cwd=checkout(commit),
                env=environment(threads),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            ) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    self._add(line.rstrip())
            status = process.returncode
        except Exception as error:  # whatever it is, the driver has to hear of it
            self._add(f"{type(error).__name__}: {error}")
        finally:
            with self.changed:
                self.status = status
                self.changed.notify_all()

    def _add(self, line: str) -> None:
        with self.changed:
            self.lines.append(line)
            self.changed.notify_all()


def environment(threads: int) -> dict[str, str]:
    """The environment of a run: without Ray's own variables and token, and with so many threads an operation."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | threads_of_a_run(threads)


def threads_of_a_run(threads: int) -> dict[str, str]:
    """The environment variables of PyTorch and TensorFlow for so many threads an operation."""
    return {"OMP_NUM_THREADS": str(threads), "TF_NUM_INTRAOP_THREADS": str(threads)}


def places(commit: str) -> tuple[Path, Path, str]:
    """The machine's clone, the clone for this commit, and the project's folder in each."""
    clone = Path(os.environ["CLUSTER_CLONE"])
    return clone, clone / ".runs" / commit, run(clone, "git", "rev-parse", "--show-prefix")


def checkout(commit: str) -> Path:
    """The project's folder in a clone at this commit, which is made if it is not there.

    Raises:
        RuntimeError: git or DVC failed.
    """
    clone, folder, prefix = places(commit)
    top = run(clone, "git", "rev-parse", "--show-toplevel")
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
        try:
            run(clone, "git", "clone", "--quiet", "--shared", "--no-checkout", top, str(new))
            run(new, "git", "remote", "set-url", "origin", run(clone, "git", "remote", "get-url", "origin"))
            run(new, "git", "fetch", "--quiet", "origin", f"refs/cluster/{commit}")
            run(new, "git", "checkout", "--quiet", "--detach", commit)
            for key in ("user.name", "user.email"):  # DVC commits an experiment
                run(new, "git", "config", key, run(clone, "git", "config", "--default", "cluster", key))
            local = clone / ".dvc/config.local"  # the remote's credentials, if they are there
            if local.exists():
                shutil.copy(local, new / prefix / ".dvc/config.local")
            dvc = (sys.executable, "-m", "dvc")
            run(new / prefix, *dvc, "cache", "dir", "--local", run(clone, *dvc, "cache", "dir"))
            with suppress(OSError):  # another run was first
                new.rename(folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)  # nothing where it was renamed
    return folder / prefix


def leftovers(commit: str) -> list[str]:
    """Push the runs of this commit that were made here and not pushed; tell which were begun here and did not end."""
    _, folder, prefix = places(commit)
    if not folder.exists():
        return []
    push = ["git", "push", "--quiet", "origin", f"refs/exps/{commit[:2]}/{commit[2:]}/*"]
    subprocess.run(push, cwd=folder, capture_output=True, check=False)  # noqa: S603
    return [path.name for path in (folder / prefix / ".begun").glob("*")]


def versions(names: list[str]) -> dict[str, str]:
    """The installed versions of these packages."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def run(folder: Path, *command: str) -> str:
    """What a program prints.

    Raises:
        RuntimeError: It failed.
    """
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} failed: {' '.join(result.stderr.split()) or result.returncode}")
    return result.stdout.strip("\n")
