"""A real Ray cluster on this computer: a head and machines, each a clone of one git remote in a folder of its own."""

import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil

from tests.support.clones import Clone
from tests.support.grids import none_is_left

GRID = (sys.executable, "-m", "stages.tools.grid")
TRIES = 5
CLUSTER = (sys.executable, "-m", "stages.tools.cluster")


class RayCluster:
    """A head and machines on this computer, and the git remote of their clones."""

    def __init__(self, folder: Path, repository: Clone) -> None:
        self.folder = folder
        self.repository = repository
        self.origin = folder / "origin.git"
        subprocess.run(["git", "clone", "--quiet", "--bare", repository.folder, self.origin], check=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        self.parts: dict[str, subprocess.Popen[str]] = {}
        head = self.clone("head")
        self._start("head", head, "make grid CLUSTER=", "head", "--port", str(port))
        self.token = head.folder / ".cluster/token"

    def clone(self, name: str) -> Clone:
        """A new clone of the git remote."""
        subprocess.run(["git", "clone", "--quiet", self.origin, self.folder / name], check=True)
        return Clone(self.folder / name)

    def home(self, name: str) -> Clone:
        """A copy of the repository to start grids in, at a commit of its own, so that no run of it is made yet."""
        shutil.copytree(self.repository.folder, self.folder / name, symlinks=True)
        clone = Clone(self.folder / name)
        clone.ok("git", "commit", "--quiet", "--allow-empty", "--message", name)
        clone.ok("git", "remote", "add", "origin", str(self.origin))
        made = clone.ok("git", "ls-remote", "origin", "refs/exps/*").split()[1::2]  # by another home
        if made:
            clone.ok("git", "push", "--quiet", "origin", "--delete", *made)
        self.give_token(clone)
        return clone

    def give_token(self, clone: Clone) -> None:
        (clone.folder / ".cluster").mkdir(exist_ok=True)
        shutil.copy(self.token, clone.folder / ".cluster")

    def join(self, *names: str, cpus: int | None = None) -> None:
        """Let these machines join; each with all cores of this computer if no number is given."""
        options = [] if cpus is None else ["--cpus", str(cpus)]
        for name in names:
            clone = Clone(self.folder / name) if (self.folder / name).exists() else self.clone(name)
            self.give_token(clone)
            self._start(name, clone, "has joined", "join", self.address, "--name", name, *options)

    def _start(self, part: str, clone: Clone, started: str, *command: str) -> None:
        """Start Ray's processes of a part; Ray gives up after 30 s, so a busy computer may need more than one try."""
        for _ in range(TRIES):
            self.parts[part] = process = clone.start(*CLUSTER, *command)
            assert process.stdout is not None
            assert process.stderr is not None
            if any(started in line for line in process.stdout):
                return
            why = process.stderr.read()
            assert "timed out during startup" in why, why
        raise AssertionError(why)

    def processes(self, part: str) -> list[psutil.Process]:
        return psutil.Process(self.parts[part].pid).children(recursive=True)

    def kill(self, name: str) -> None:
        """Kill a machine as a power cut does: Ray's own process there, with SIGKILL."""
        (raylet,) = (process for process in self.processes(name) if process.name() == "raylet")
        raylet.kill()

    def end(self) -> None:
        for process in reversed(self.parts.values()):
            process.send_signal(signal.SIGINT)
        for process in self.parts.values():
            process.communicate()
        none_is_left(self.folder)
