"""`make grid` on a real Ray cluster: a head and two machines, which are folders of this one, and their faults."""

import importlib.util
import re
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.support.clones import Clone
from tests.support.grids import CUT, FINISHED, histories, none_is_left, read_until, table
from tests.support.ray_cluster import CLUSTER, GRID, RayCluster

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.cluster,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]

BROKEN = "screen-broken"
# Of what a grid prints: all but what Ray might add.
KNOWN = re.compile(r"\d+ runs, |(table2|screen)-\S+( on m\d)?: |    |metrics/runs.csv: |machines for |left out: |$")


@pytest.fixture(scope="module")
def cluster(grid_repository: Clone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    cluster = RayCluster(tmp_path_factory.mktemp("cluster"), grid_repository)
    try:
        cluster.join("m1", "m2")
        yield cluster
    finally:
        cluster.end()


def ended_with_one_line(result: "subprocess.CompletedProcess[str]", line: str) -> None:
    assert result.returncode == 1, result.stdout + result.stderr
    assert re.fullmatch(line, result.stderr.removesuffix("\n")), result.stderr


def test_a_machine_dies_and_a_run_fails_and_the_table_is_that_of_one_machine(
    cluster: RayCluster, uninterrupted: Clone
) -> None:
    home = cluster.home("home")
    grid = home.start(*GRID, BROKEN, "table2-*", "--cluster", cluster.address)
    printed = read_until(grid, "epoch 1/25")
    (machine,) = set(re.findall(rf"{CUT}-seed8 on (m\d): epoch", printed))
    cluster.kill(machine)
    rest, errors = grid.communicate()
    printed += rest

    assert errors.startswith(f"grid: 1 of 3 runs failed: {BROKEN}-seed7; the others are done, ")
    assert errors.count("\n") == 1
    assert f"{CUT}-seed8: its machine or its grid is gone; it starts again" in printed
    assert f"{CUT}-seed8: done (" in printed
    assert f"{FINISHED}-seed7: done (" in printed
    assert f"{BROKEN}-seed7: FAILED (" in printed
    assert "dropout is 1.5: input should be less than 1" in printed
    assert not [line for line in printed.splitlines() if not KNOWN.match(line)]
    assert "raylet" not in printed
    assert table(home) == table(uninterrupted)
    assert histories(home) == histories(uninterrupted)
    assert home.ok("git", "status", "--porcelain").split() == ["M", "metrics/runs.csv", "??", "metrics/experiments/"]

    # The dead machine's part ends with one line and leaves nothing behind. It joins again.
    _, errors = cluster.parts[machine].communicate()
    assert errors == f"cluster: the cluster at {cluster.address} has ended; make cluster-join joins it again\n"
    none_is_left(cluster.folder / machine)
    cluster.join(machine)


def test_of_two_grids_one_makes_the_run_and_if_it_dies_the_other_one(cluster: RayCluster, uninterrupted: Clone) -> None:
    first = cluster.home("first")
    subprocess.run(["cp", "-a", first.folder, cluster.folder / "second"], check=True)
    second = Clone(cluster.folder / "second")
    command = (*GRID, CUT, "--cluster", cluster.address)
    one = first.start(*command)
    read_until(one, "epoch 3/25")
    training = trainings_in(cluster.folder)
    for process in training:
        process.suspend()  # or it might end before the other grid has begun
    other = second.start(*command)
    read_until(other, "epoch 3/25")
    assert len({process.cwd() for process in training}) == 1  # both follow one run
    assert trainings_in(cluster.folder) == training
    for process in training:
        process.resume()
    one.kill()  # the run ends with the grid that asked first
    one.communicate()

    printed, errors = other.communicate()
    assert (other.returncode, errors) == (0, "")
    assert f"{CUT}-seed8: its machine or its grid is gone; it starts again" in printed
    again = first.ok(*command)
    assert "1 runs, 1 of them done" in again
    assert "dvc exp run" not in again
    whole = [row for row in table(uninterrupted) if row["name"] == f"{CUT}-seed8"]
    assert table(first) == table(second) == whole


def test_the_same_command_goes_on_after_the_only_grid_has_died(cluster: RayCluster, uninterrupted: Clone) -> None:
    home = cluster.home("killed")
    command = (*GRID, CUT, "--cluster", cluster.address)
    grid = home.start(*command)
    read_until(grid, "epoch 3/25")
    grid.kill()
    grid.communicate()
    again = home.ok(*command)
    assert "1 runs, 0 of them done" in again
    assert re.search(rf"{CUT}-seed8 on m\d: resumes after epoch", again)
    assert table(home) == [row for row in table(uninterrupted) if row["name"] == f"{CUT}-seed8"]


def trainings_in(folder: Path) -> list[psutil.Process]:
    """The processes that train in this folder."""
    trainings = [p for p in psutil.process_iter() if "stages.train_keras_cnn" in " ".join(arguments_of(p))]
    return [p for p in trainings if Path(p.cwd()).is_relative_to(folder)]


def arguments_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_machine_with_other_packages_is_not_used(cluster: RayCluster, tmp_path: Path) -> None:
    """The other version stands here: the label of each machine differs from this one's."""
    home = cluster.home("other packages")
    other = tmp_path / "tabulate-0.0.1.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: tabulate\nVersion: 0.0.1\n")
    result = home.run(*GRID, "--cluster", cluster.address, PYTHONPATH=str(tmp_path))
    why = r"it has other packages \(tabulate 0\.\d+\.\d+, not 0\.0\.1\); install them, and join again"
    ended_with_one_line(result, rf"grid: no machine fits {FINISHED}-seed7: m\d: {why}; m\d: {why}")
    result = home.run(*GRID, "--cluster", cluster.address, "--threads", "999")
    why = r"it gives \d+ cores, and a run has 999 threads; THREADS sets them"
    ended_with_one_line(result, rf"grid: no machine fits {FINISHED}-seed7: m\d: {why}; m\d: {why}")


def test_without_the_token_nothing_joins_and_nothing_runs(cluster: RayCluster) -> None:
    home = cluster.home("no token")
    token = home.folder / ".cluster/token"
    token.write_text("0" * 64)
    says = "the head has another token; copy its .cluster/token to this place"
    with ThreadPoolExecutor() as pool:  # each waits until Ray gives up
        grid = pool.submit(home.run, *GRID, "--cluster", cluster.address)
        join = pool.submit(home.run, *CLUSTER, "join", cluster.address)
        ended_with_one_line(grid.result(), f"grid: {says}")
        ended_with_one_line(join.result(), f"cluster: {says}")
    token.chmod(0o644)
    says = "others can read .cluster/token; chmod 600 .cluster/token, and make a new one if they may have read it"
    ended_with_one_line(home.run(*CLUSTER, "join", cluster.address), f"cluster: {says}")
    token.unlink()
    says = ".cluster/token is missing; copy it from the head, and chmod 600 it"
    ended_with_one_line(home.run(*GRID, "--cluster", cluster.address), f"grid: {says}")


def test_the_token_is_in_its_file_alone_and_ray_reports_nothing(cluster: RayCluster) -> None:
    token = cluster.token.read_text()
    assert len(token) == 64
    assert cluster.token.stat().st_mode & 0o777 == 0o600
    checked, folders = 0, set()
    for process in [process for part in cluster.parts for process in cluster.processes(part)]:
        try:
            arguments, variables = process.cmdline(), process.environ()
        except psutil.Error:
            continue
        assert token not in str(arguments) + str(variables)
        if " ".join(arguments).startswith("ray::"):  # it has written its title over its environment
            continue
        assert variables["RAY_USAGE_STATS_ENABLED"] == "0"
        assert variables["RAY_AUTH_MODE"] == "token"
        folders.update(re.findall(r"--temp-dir=(\S+)/ray", " ".join(arguments)))
        checked += 1
    assert checked > len(folders) == len(cluster.parts)
    for folder in map(Path, folders):
        assert folder.stat().st_mode & 0o777 == 0o700
        logs = [path for path in folder.rglob("*") if path.is_file()]
        assert logs
        assert not [log for log in logs if token.encode() in log.read_bytes()]


def test_an_address_without_a_head_is_said(cluster: RayCluster) -> None:
    home = cluster.home("no head")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
        ended_with_one_line(
            home.run(*CLUSTER, "join", nobody),
            rf"cluster: no head answers at {nobody} \(.*refused\); make cluster-head starts one",
        )
    ended_with_one_line(
        home.run(*GRID, "--cluster", "nowhere"),
        "grid: 'nowhere' is no address of a head; allowed: host:port, as make cluster-head prints it",
    )
