"""How the time of a grid falls with the number of machines: `python -m tests.support.scale`.

Each machine is a folder of this computer and takes one run at a time. A run sleeps for a known time instead of training
and scoring, so that the machines do not share the processor; all else is as on a real cluster: Ray, git, `dvc exp run`.
"""

import argparse
import tempfile
import time
from pathlib import Path

import yaml

from tests.support.clones import Clone, drop_own_settings
from tests.support.grids import small_grid
from tests.support.ray_cluster import GRID, RayCluster

# Instead of the training and of the scores: those of the last commit, under this run's parameters.
STAND_IN = """
import json, subprocess, sys, time
import yaml
from pathlib import Path

time.sleep(float(sys.argv[1]))
for path in sys.argv[2:]:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(subprocess.check_output(["git", "show", f"HEAD:{path}"]))
record = Path("metrics/runs/keras_cnn.json")
if str(record) in sys.argv:
    content = json.loads(record.read_text())
    content["parameters"]["seed"] = yaml.safe_load(Path("params.yaml").read_text())["seed"]
    record.write_text(json.dumps(content))
    Path("models/keras_cnn.keras").write_text(str(content["parameters"]["seed"]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.support.scale", description=__doc__)
    parser.add_argument("--machines", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30.0, help="that a run sleeps")
    options = parser.parse_args()
    drop_own_settings()
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        repository = sleeping(Path(folder) / "repository", options.runs, options.seconds)
        print(
            "| Machines | Runs | Minutes | Runs an hour | Seconds a run on top of its sleep |\n"
            "|---:|---:|---:|---:|---:|"
        )
        for machines in options.machines:
            seconds = measure(Path(folder) / str(machines), repository, machines)
            overhead = seconds * machines / options.runs - options.seconds
            print(
                f"| {machines} | {options.runs} | {seconds / 60:.1f} | {3600 * options.runs / seconds:.0f} "
                f"| {overhead:.1f} |",
                flush=True,
            )


def sleeping(folder: Path, runs: int, seconds: float) -> Clone:
    """A repository with runs that sleep."""
    clone = small_grid(folder)
    (clone.folder / "stand_in.py").write_text(STAND_IN)
    pipeline = yaml.safe_load((clone.folder / "dvc.yaml").read_text())
    training, scoring = pipeline["stages"]["train_keras_cnn"], pipeline["stages"]["evaluate"]["do"]
    for stage, duration in ((training, seconds), (scoring, 0)):
        outs = [path for out in stage["outs"] if isinstance(out, dict) for path in out]
        stage["cmd"] = " ".join(["python stand_in.py", str(duration), *outs])
    (clone.folder / "dvc.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
    grids = {"table2-sleep": {"model": "keras_cnn", "seeds": list(range(1, runs + 1))}}
    (clone.folder / "experiments.yaml").write_text(yaml.safe_dump({"grids": grids, "same_results": {}}))
    clone.commit("runs that sleep")
    clone.ok("dvc", "repro", "evaluate@keras_cnn")
    clone.commit("reproduced")
    return clone


def measure(folder: Path, repository: Clone, machines: int) -> float:
    """The seconds that the grid takes on so many machines, with all that their first run needs."""
    folder.mkdir()
    cluster = RayCluster(folder, repository)
    try:
        cluster.join(*(f"m{number}" for number in range(1, machines + 1)), cpus=1)
        home = cluster.home("home")
        started = time.perf_counter()
        home.ok(*GRID, "--cluster", cluster.address, "--threads", "1")
        return time.perf_counter() - started
    finally:
        cluster.end()


if __name__ == "__main__":
    main()
