"""The grid's runs on the machines of a Ray cluster (`make grid CLUSTER=<host>:<port>`). It is no stage.

Ray only decides where a run takes place, and tells when a machine or a grid dies. Code and results are references of
the git remote, the data is in the DVC remote, and a run is what `stages.tools.grid` calls made. So the cluster keeps
nothing: whatever dies, only the runs that were at work are lost.
"""

import contextlib
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from stages.common.config import read
from stages.common.errors import ExpectedError
from stages.common.files import flat
from stages.common.paths import EXPERIMENTS, PARAMETERS
from stages.experiments.git import git
from stages.experiments.plan import Run, parameters_of
from stages.tools import cluster_machine
from stages.tools.cluster import check_reachable, facts, load_ray, packages, why_not
from stages.tools.runs import KEPT_LINES, SHOWN, say

NAMESPACE = "grid"  # in which all drivers see the names of the actors
FOLLOWERS = 100  # drivers that may follow one run
MOST_DEATHS = 3  # of the machines of one run
PAUSE_SECONDS = 6.0  # after a death: Ray may need 5 to know that the machine is gone
LOOK_SECONDS = 5.0  # how often to look whether a machine is left for a run that waits
ALONE_SECONDS = 120.0  # to wait for a machine when none is left
PUSH_AGAIN_SECONDS = 2.0
TASK_SECONDS = 60.0  # for a small task on a machine


class Cluster:
    """A way to run the grid's runs. It ends with this process, and the runs that only it has asked for end with it."""

    def __init__(self, address: str, threads: int, mixed: bool) -> None:
        """Connect to a cluster of which this machine is a part.

        Args:
            address: The head's host:port.
            threads: Of each run.
            mixed: Whether other processors and GPUs than those of this machine will do.

        Raises:
            ExpectedError: There is no such cluster, or this machine is no part of it, or its token is another one.
        """
        check_reachable(address)
        self.ray = load_ray()
        self.ask(threads, mixed, facts())
        self.commit = git("rev-parse", "HEAD").strip()
        self.begun: dict[str, str] = {}  # runs that did not end: the machine that has the checkpoint
        self.ended = threading.Event()
        on_sigterm = signal.getsignal(signal.SIGTERM)
        said: list[str] = []
        try:
            with stderr_into(said):
                self.ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.CRITICAL)
        except Exception as error:  # Ray has a class of its own for each reason, and none for all
            raise ExpectedError(why_not("\n".join([*said, f"{type(error).__name__}: {error}"]))) from None
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own prints where in its libraries it was
        self.ray._private.worker._worker_logs_enabled = False  # or Ray prints 20 lines of its log when a machine dies
        self.ray.cloudpickle.register_pickle_by_value(cluster_machine)

    def ask(self, threads: int, mixed: bool, here: dict[str, str]) -> None:
        """Note what a machine must have: the cores for so many threads, and what this machine is."""
        self.threads = threads
        self.facts = here
        self.compared = ["packages"] if mixed else ["packages", "processor", "gpu"]

    def gather(self) -> None:
        """Push the code, and bring the results that machines have not pushed and those that are in the git remote.

        Raises:
            ExpectedError: experiments.yaml is not committed, or git failed.
        """
        if git("status", "--porcelain", "--", str(EXPERIMENTS)):
            raise ExpectedError(f"not committed: {EXPERIMENTS}; commit it: the machines read it from the commit")
        push = ("push", "--quiet", "origin", f"{self.commit}:refs/cluster/{self.commit}")
        try:
            git(*push)
        except ExpectedError:  # git refuses one of two grids that push the same at the same moment
            time.sleep(PUSH_AGAIN_SECONDS)
            git(*push)
        asked = {self._on(node, cluster_machine.leftovers, self.commit): node["NodeID"] for node in self._machines()}
        told, _ = self.ray.wait(list(asked), num_returns=len(asked), timeout=TASK_SECONDS) if asked else ([], [])
        for answer in told:
            with contextlib.suppress(self.ray.exceptions.RayError):  # a machine that just died has nothing to tell
                self.begun |= dict.fromkeys(self.ray.get(answer), asked[answer])
        self.fetch()

    def fetch(self) -> None:
        """Fetch the experiments of the git remote whose names are not here.

        Raises:
            ExpectedError: git failed.
        """
        here = set(git("for-each-ref", "--format=%(refname)", "refs/exps").split())
        there = {line.split()[1] for line in git("ls-remote", "origin", "refs/exps/*").splitlines()}
        if new := sorted(there - here):
            git("fetch", "--quiet", "origin", "--stdin", stdin="".join(f"{name}:{name}\n" for name in new))

    def run(self, run: Run) -> bool:
        """Run it on some machine, and on another one if that dies; show its progress; return whether it succeeded."""
        for deaths in range(MOST_DEATHS + 1):
            if deaths and not self.ended.is_set():
                say(f"{run.name}: its machine or its grid is gone; it starts again")
                self.ended.wait(PAUSE_SECONDS)
            if self.ended.is_set():
                return False
            try:
                return self._follow(run)
            except self.ray.exceptions.RayActorError:
                continue
        say(f"{run.name}: {MOST_DEATHS + 1} machines died")
        return False

    def end(self, forcibly: bool) -> None:
        """Let go of the cluster: the runs end."""
        self.ended.set()
        self.ray.shutdown()

    def _follow(self, run: Run) -> bool:
        actor = self._actor(run)
        known, status, last_lines = 0, None, deque[str](maxlen=KEPT_LINES)
        while status is None:
            news = self._wait(run, actor.follow.remote(known), started=known > 0)
            if news is None:
                return False
            machine, lines, status = news
            known += len(lines)
            last_lines.extend(lines)
            for line in lines:
                text = line.removeprefix(f"{run.name}: ")
                if text != line and text.startswith(("dvc ", *SHOWN)):
                    say(f"{run.name} on {machine}: {text}")
        if status:
            say("\n".join(f"    {line}" for line in [f"on {machine}:", *last_lines]))
        return status == 0

    def _actor(self, run: Run) -> Any:
        """The actor that makes this run, of this driver or of another one."""
        fitting = {key: self.facts[key] for key in self.compared}
        preferred = {"ray.io/node-id": self.begun.pop(run.name)} if run.name in self.begun else {}
        return (
            self.ray.remote(cluster_machine.RemoteRun)
            .options(
                name=f"{self.commit}-{run.name}",
                get_if_exists=True,
                num_cpus=self.threads,
                num_gpus=int(needs_gpu(run)),
                label_selector=fitting | preferred,
                fallback_strategy=[{"label_selector": fitting}],
                max_concurrency=FOLLOWERS,
                max_restarts=0,
                max_task_retries=0,
            )
            .remote(self.commit, run.name, self.threads)
        )

    def _wait(self, run: Run, reference: Any, started: bool) -> Any:
        """What an actor tells; None if there is no machine for it."""
        alone_since = None
        while True:
            with contextlib.suppress(self.ray.exceptions.GetTimeoutError):
                return self.ray.get(reference, timeout=LOOK_SECONDS)
            if started or any(not self._misfit(run, machine) for machine in self._machines()):
                alone_since = None
            elif alone_since is None:
                alone_since = time.monotonic()
                say(f"{run.name}: no machine is left for it; it waits {ALONE_SECONDS:.0f} s for one to join")
            elif time.monotonic() - alone_since > ALONE_SECONDS:
                return None

    def _machines(self) -> list[Any]:
        """The machines that have joined to run something."""
        return [node for node in self.ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]

    def check_fit(self, runs: Sequence[Run]) -> None:
        """Check that each run fits some machine.

        Raises:
            ExpectedError: One fits none.
        """
        machines = self._machines()
        if runs and not machines:
            raise ExpectedError("no machine has joined the cluster; make cluster-join HEAD=<host>:<port> on each")
        for run in {needs_gpu(run): run for run in reversed(runs)}.values():
            misfits = [(machine["NodeName"], self._misfit(run, machine)) for machine in machines]  # names may be equal
            said = "; ".join(f"{name}: {reason}" for name, reason in misfits if reason)
            if all(reason for _, reason in misfits):
                raise ExpectedError(f"no machine fits {run.name}: {said}")
            fitting = ", ".join(name for name, reason in misfits if not reason)
            say(f"machines for {run.name} and similar runs: {fitting}{f'; not {said}' if said else ''}")

    def _misfit(self, run: Run, machine: Any) -> str:
        """Why a machine cannot make this run; empty if it can."""
        labels, resources = machine["Labels"], machine["Resources"]
        if labels.get("packages") != self.facts["packages"]:
            return f"it has other packages ({self._other_packages(machine)}); install them, and join again"
        for key in self.compared:
            if labels.get(key) != self.facts[key]:
                return f"its {key} is {labels.get(key)}, not {self.facts[key]} as here; MIXED=1 allows it"
        if resources["CPU"] < self.threads:
            return f"it gives {resources['CPU']:.0f} cores, and a run has {self.threads} threads; THREADS sets them"
        if needs_gpu(run) and not resources.get("GPU"):
            return "it has no GPU"
        return ""

    def _other_packages(self, machine: Any) -> str:
        here = packages()
        with contextlib.suppress(self.ray.exceptions.GetTimeoutError):
            there = self.ray.get(self._on(machine, cluster_machine.versions, list(here)), timeout=TASK_SECONDS)
            other = [f"{name} {there[name]}, not {here[name]}" for name in here if there[name] != here[name]]
            return "; ".join(other[:3]) or "its requirements.txt names others"
        return "it does not tell which"

    def _on(self, machine: Any, function: Any, *arguments: Any) -> Any:
        """A small task on this machine."""
        where = {"ray.io/node-id": machine["NodeID"]}
        return self.ray.remote(function).options(num_cpus=0, label_selector=where).remote(*arguments)


@contextlib.contextmanager
def stderr_into(lines: list[str]) -> Iterator[None]:
    """Append to the list what this process, its C++ code too, prints to stderr meanwhile."""
    stderr = os.dup(sys.stderr.fileno())
    with tempfile.TemporaryFile("w+", errors="replace") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
        try:
            yield
        finally:
            os.dup2(stderr, sys.stderr.fileno())
            os.close(stderr)
            file.seek(0)
            lines.extend(file.read().splitlines())


def needs_gpu(run: Run) -> bool:
    """Whether its model is trained on a GPU."""
    parameters = flat(read(PARAMETERS)) | parameters_of(run.overrides)
    return bool(parameters.get(f"{run.model}.device") == "cuda")
