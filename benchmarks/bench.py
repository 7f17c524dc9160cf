"""Measure how fast the models train, how far that is from the machine's limit, and what the pipeline costs.

`make bench` runs this in about 15 minutes on two cores. It prints Markdown tables and writes the figures to
benchmarks/results/<machine>.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import host, limit, pipeline, throughput
from benchmarks.markdown import table
from stages.cifar10.synthetic import draw
from stages.common.errors import ExpectedError, run_program
from stages.common.files import read_json, read_rows, write_json

Json = dict[str, Any]
RESULTS = Path("benchmarks/results")
PLATEAU = 0.75  # section 3.3 of the paper: the accuracy at which its Keras CNN levels off
NO_GPU = "not measured: no GPU"
QUICK_IMAGES = 640


def main() -> None:
    """Measure what the options name."""
    options = arguments()
    os.chdir(throughput.ROOT)
    facts = host.facts()
    machine = options.machine or host.slug(facts["processor"], facts["cores"])
    out = options.out or RESULTS / f"{machine}.json"

    results: Json = {"machine": machine, "quick": options.quick, "host": facts}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        if options.quick and options.only != "pipeline":
            data = synthetic(folder)
        else:
            say("download, preprocess, split")
            clone, cost = pipeline.prepare(folder)
            data = clone.data
        if options.only != "pipeline":  # first, because it refuses a params.yaml that does not compare
            results |= training(data, options.quick)
        if options.only == "pipeline" or not (options.only or options.quick):
            say("each stage with one epoch, then dvc itself")
            results["pipeline"] = cost | pipeline.measure(clone)
            results["full_runs"] = {model: full_run(model) for model in throughput.MODELS}
    write_json(out, results)
    print(f"\n{table(results)}\n\n{out}")


def arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument("--machine", help="the name in the results instead of the processor's")
    parser.add_argument("--out", type=Path, help="the JSON file instead of benchmarks/results/<machine>.json")
    parser.add_argument("--only", choices=("throughput", "pipeline"), help="measure one part")
    parser.add_argument("--quick", action="store_true", help="a few steps on synthetic images, to try it; no figures")
    return parser.parse_args()


def training(data: Path, quick: bool) -> Json:
    """Throughput on the CPU, its limit, and throughput on a GPU where there is one."""
    say("the rate of matrix products, and the models' own")
    plans = throughput.QUICK_PLANS if quick else throughput.PLANS
    batch_sizes = sorted({batch_size for _, batch_size in plans})
    side = limit.QUICK_SIDE if quick else limit.SIDE
    rates = {framework: rates_of(framework, batch_sizes, side) for framework in ("torch", "tensorflow")}
    rows = on_device("cpu", data, plans)
    gpu: Any = NO_GPU
    if name := rates["torch"]["gpu"]:
        gpu_rows = on_device("cuda", data, throughput.QUICK_PLANS if quick else throughput.GPU_PLANS)
        gpu = {"name": name, "throughput": gpu_rows}
    return {"throughput": rows, "limit": limits(rows, rates), "gpu": gpu}


def on_device(device: str, data: Path, plans: dict[tuple[str, int], throughput.Plan]) -> list[Json]:
    """Throughput of both models on one device."""
    rows = []
    for (model, batch_size), plan in plans.items():
        say(f"{model}, batch {batch_size}, {device}: {plan.rounds} rounds of {plan.steps} steps each")
        rows.append(throughput.measure(model, batch_size, device, data, plan))
    return rows


def rates_of(framework: str, batch_sizes: list[int], side: int) -> Json:
    """What `benchmarks.limit` measures, in a process of its own, with products of matrices of this side."""
    command = [sys.executable, "-m", "benchmarks.limit", framework, str(side), *map(str, batch_sizes)]
    result = subprocess.run(command, cwd=throughput.ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode:
        raise ExpectedError(f"benchmarks.limit {framework} failed: {throughput.last_line(result.stderr)}")
    answer: Json = json.loads(result.stdout.splitlines()[-1])
    return answer


def limits(rows: list[Json], rates: Json) -> list[Json]:
    """For each row of the throughput: a step's operations, their least time, and the time of its products alone."""
    keras_cnn = limit.keras_cnn_operations()
    operations = {
        "keras_cnn": ("tensorflow", {"network": keras_cnn, "ours": keras_cnn}),
        "resnet18": ("torch", rates["torch"]["operations"]),
    }
    lines = []
    for row in rows:
        framework, counts = operations[row["model"]]
        step = {name: count * row["batch_size"] for name, count in counts.items()}
        lines.append(
            {
                "model": row["model"],
                "batch_size": row["batch_size"],
                "framework": framework,
                "gigaflop_per_step": {name: round(count / 1e9, 3) for name, count in step.items()},
                "ms_per_step": row["ours"]["ms_per_step"],
                "products_ms": rates[framework]["products_ms"][str(row["batch_size"])],
                "gflops_per_second": rates[framework]["gflops_per_second"],
            }
            | limit.share(step["ours"], rates[framework]["gflops_per_second"], row["ours"]["ms_per_step"])
        )
    return lines


def full_run(model: str) -> Json:
    """Seconds of training of the committed run, until the paper's plateau and until the end."""
    history = read_rows(Path(f"metrics/history/{model}.csv"))
    runtime = read_json(Path(f"metrics/runtime/{model}.json"))
    return {
        "processor": runtime["processor"],
        "cores": runtime["cores"],
        "epochs": len(history),
        "accuracy": PLATEAU,
        "seconds_to_accuracy": pipeline.time_to(PLATEAU, history, runtime["epoch_seconds"]),
        "seconds": round(runtime["seconds"], 1),
    }


def synthetic(folder: Path) -> Path:
    """A few synthetic images, as `preprocess` writes the real ones."""
    images, labels = draw(np.random.default_rng(0), QUICK_IMAGES)
    np.save(folder / "train_images.npy", images.transpose(0, 2, 3, 1))
    np.save(folder / "train_labels.npy", labels.astype(np.uint8))
    return folder


def say(what: str) -> None:
    """Progress, on standard error: the tables are standard output."""
    print(f"bench: {what} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_program("bench", main, again="begins anew")
