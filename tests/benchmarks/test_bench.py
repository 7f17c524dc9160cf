"""The bench's arithmetic and tables on made-up figures, and its processes on synthetic images."""

import contextlib
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import bench, host, limit, pipeline, throughput, worker
from benchmarks import markdown as table
from stages.common.errors import ExpectedError
from tests.support.stage_runs import ROOT


def answer(seconds, left_out, loss):
    return {"seconds": seconds, "left_out": [left_out], "loss": loss}


ROUNDS = [  # seconds of a step; in the middle round the machine was busy
    {way: answer(*values) for way, values in zip(throughput.WAYS, row, strict=True)}
    for row in (
        [([0.010, 0.012], 0.5, 2.0), ([0.011], 0.1, 2.0), ([0.022], 0.6, 2.1)],
        [([0.040, 0.040], 0.015, 1.8), ([0.060], 0.1, 1.8), ([0.060], 0.07, 1.9)],
        [([0.010, 0.010], 0.02, 1.6), ([0.011], 0.1, 1.6), ([0.030], 0.05, 1.7)],
    )
]


def made_up_results() -> dict:
    row = {"model": "keras_cnn", "batch_size": 64, "device": "cpu", "settings": {"threads": 2}}
    row["forms"] = {"expert": "XLA"}
    row |= throughput.summary(ROUNDS, 64)
    imports = {"download": {"seconds": 0.31, "frameworks": []}, "split": {"seconds": 3.0, "frameworks": ["torch"]}}
    run = {"processor": "A Processor", "cores": 2}
    return {
        "machine": "a-processor-2-cores",
        "quick": False,
        "host": {
            "date": "2026-11-22 12:00 UTC",
            "commit": "0123456789abcdef",
            "dirty": True,
            "processor": "A Processor",
            "cores": 2,
            "memory_gb": 16.1,
            "platform": "Linux x86_64",
            "versions": {"python": "3.11.7", "torch": "2.15.0"},
        },
        "throughput": [row],
        "limit": bench.limits(
            [row],
            {
                "tensorflow": {"gflops_per_second": 300.0, "products_ms": {"64": 9.5}},
                "torch": {"operations": {}},
            },
        ),
        "gpu": bench.NO_GPU,
        "pipeline": {
            "data_seconds": 12.3,
            "archive": "a local copy",
            "stages": {"split": {"seconds": 1.2, "peak_memory_mb": 99}},
            "stages_of_one_epoch": {"train_keras_cnn": {"seconds": 123.4, "peak_memory_mb": 1100}},
            "repro_with_nothing_to_do_seconds": 0.91,
            "experiment_until_training_seconds": 9.2,
            "imports": imports,
        },
        "full_runs": {
            "keras_cnn": run | {"epochs": 50, "accuracy": 0.75, "seconds_to_accuracy": 300.0, "seconds": 1500.0},
            "resnet18": run | {"epochs": 20, "accuracy": 0.75, "seconds_to_accuracy": None, "seconds": 1900.0},
        },
    }


def cells(text: str, start: str) -> list[str]:
    """The cells of the only line of a table that starts so."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_table_shows_every_figure_with_its_unit(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = table.table(json.loads(json.dumps(made_up_results())))
    assert max(map(len, text.splitlines())) <= table.LINE
    assert "commit 0123456 with uncommitted changes; python 3.11.7, torch 2.15.0." in " ".join(text.split())
    assert "On a GPU: not measured: no GPU." in text
    assert "Faster for the expert: Keras CNN, 64: XLA." in " ".join(text.split())
    speed = ["5,818", "5,818", "2,133", "**1.10** (1.00 to 1.50)", "**2.00** (1.50 to 3.00)"]
    limits = ["3.95 of 3.95 GFLOP", "13.2 ms at 300 GFLOP/s", "11.0 ms (120 %)", "9.5 ms"]
    assert cells(text, "Keras CNN, 64 | 5,818") == ["Keras CNN, 64", *speed]
    assert cells(text, "Keras CNN, 64 | 3.95") == ["Keras CNN, 64", *limits]
    assert cells(text, "split") == ["split", "1.2 s", "99 MB"]
    assert cells(text, "train_keras_cnn") == ["train_keras_cnn, one epoch", "123 s", "1,100 MB"]
    assert cells(text, "`import stages.download`")[0] == "`import stages.download` (no framework)"
    assert cells(text, "`import stages.split`")[0] == "`import stages.split` (torch)"
    assert cells(text, "ResNet-18, to validation accuracy")[1] == "-"
    assert cells(text, "Keras CNN, all 50 epochs")[1] == "1,500 s"


def test_table_names_a_gpu():
    results = made_up_results()
    results["gpu"] = {"name": "A GPU", "throughput": results["throughput"]}
    assert table.table(results).count("**2.00** (1.50 to 3.00)") == 2


def test_ratio_is_the_median_of_the_rounds_own():
    summary = throughput.summary(ROUNDS, 64)
    assert summary["ratio_to_notebook"] == 2.0  # of 2.0, 1.5 and 3.0; all steps together would give 2.7
    assert summary["ours"] == {
        "images_per_second": 5818.2,
        "ms_per_step": 11.0,
        "left_out_ms_per_step": 20.0,
        "last_loss": 1.6,
    }
    assert summary["rounds_ms_per_step"][1] == {"ours": 40.0, "expert": 60.0, "notebook": 60.0}


def test_measure_asks_each_way_in_turns(monkeypatch, tmp_path):
    asked = []
    threads = 2

    class Made:
        def __init__(self, model, way, *_):
            self.way, self.settings, self.first_loss = way, {"threads": 2 if way == "ours" else threads}, 2.3
            self.form = "as it is"

        def __enter__(self):
            return self

        def __exit__(self, *_):
            asked.append(f"{self.way} ended")

    def ask(process, steps):
        asked.append(process.way)
        seconds = [0.01 if process.way == "ours" else 0.02] * (steps // 25)
        return {"seconds": seconds, "left_out": [], "loss": 1.5}

    monkeypatch.setattr(throughput, "worker", Made)
    monkeypatch.setattr(throughput, "ask", ask)
    result = throughput.measure("resnet18", 64, "cpu", tmp_path, throughput.Plan(3, 50))
    assert asked[:9] == [*throughput.WAYS, *throughput.WAYS[::-1], *throughput.WAYS]
    assert sorted(asked[9:]) == ["expert ended", "notebook ended", "ours ended"]
    assert result["ratio_to_notebook"] == result["ratio_to_expert"] == 2
    assert result["first_loss"] == dict.fromkeys(throughput.WAYS, 2.3)
    asked.clear()
    throughput.measure("resnet18", 64, "cuda", tmp_path, throughput.Plan(1, 50))
    assert asked[:2] == ["ours", "notebook"]

    threads = 1
    with pytest.raises(ExpectedError, match="is not what the notebook ran"):
        throughput.measure("resnet18", 64, "cpu", tmp_path, throughput.Plan(3, 50))


@pytest.mark.parametrize("last", [2.0, 1.95, 2.5, float("nan")])
def test_a_loss_that_does_not_fall_is_an_error(last):
    with pytest.raises(ExpectedError, match="resnet18, ours, batch 64, cpu: the loss does not fall"):
        throughput.check_falling(2.0, last, "resnet18, ours, batch 64, cpu")
    throughput.check_falling(2.0, 1.7, "one that falls")


@pytest.mark.parametrize(
    ("processor", "cores", "name"),
    [
        ("AMD EPYC (family 25, model 17)", 1, "amd-epyc-family-25-model-17-1-core"),
        ("Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz", 8, "intel-core-i7-8650u-cpu-1-90ghz-8-cores"),
        ("", 4, "processor-4-cores"),
    ],
)
def test_slug(processor, cores, name):
    assert host.slug(processor, cores) == name


def test_operations_of_the_keras_cnn():
    forward = [
        2 * 32 * 32 * (3 * 3 * 3) * 32,  # first convolution: pixels, products of each, channels
        2 * 16 * 16 * (3 * 3 * 32) * 64,
        2 * 8 * 8 * (3 * 3 * 64) * 128,
        2 * (4 * 4 * 128) * 128,
        2 * 128 * 10,
    ]
    assert sum(forward) == 21_170_688
    assert limit.keras_cnn_operations() == 3 * 21_170_688 - 1_769_472 == 61_742_592


def test_least_time():
    assert limit.share(3_000_000_000, 300.0, 40.0) == {"least_ms": 10.0, "share_of_step": 0.25}


def test_time_to_an_accuracy():
    history = [{"val_accuracy": text} for text in ("0.6", "", "0.75", "0.7", "0.8")]
    seconds = [10.0, 10.5, 20.0, 30.0, 40.0]
    assert pipeline.time_to(0.75, history, seconds) == 40.5
    assert pipeline.time_to(0.80, history, seconds) == 110.5
    assert pipeline.time_to(0.81, history, seconds) is None
    with pytest.raises(ExpectedError, match="5 epochs is next to the run time of 4"):
        pipeline.time_to(0.75, history, seconds[:4])


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("rm $HISTORY; sleep 1; echo epoch,val_accuracy > $HISTORY; sleep 60", ""),
        ("sleep 1; echo no data >&2; exit 1", "did not train: no data"),
    ],
)
def test_seconds_until_a_training_starts(tmp_path, script, says):
    history = tmp_path / "metrics/history/keras_cnn.csv"
    history.parent.mkdir(parents=True)
    history.write_text("epoch,val_accuracy\n1,0.5\n")  # of the run before, which is no training that has begun
    clone = SimpleNamespace(folder=tmp_path, environment=os.environ | {"HISTORY": str(history)})
    with pytest.raises(ExpectedError, match=says) if says else contextlib.nullcontext():
        assert 1 < pipeline.until_training(clone, "sh", "-c", script) < 30


def test_chunks_give_every_image_once_before_any_twice():
    orders = worker.chunks(20, 8)
    rows = np.concatenate([next(orders) for _ in range(5)])
    assert sorted(rows[:20]) == sorted(rows[20:]) == list(range(20))


def test_run_times_stretches_and_leaves_out_the_first():
    def train(order, log):
        assert order.shape == (75 * 8,)
        for step in range(1, 76):  # as the notebook's: each step; ours reports each 25th
            log.step(step, 3 - step / 100, 0.5)

    answer = worker.run(train, worker.chunks(20, 8), 75, left_out=1)
    assert (len(answer["seconds"]), len(answer["left_out"])) == (2, 1)
    assert answer["loss"] == 2.25


def test_a_worker_that_fails_is_one_clear_line(tmp_path):
    with (
        pytest.raises(
            ExpectedError, match=r"benchmarks.worker keras_cnn ours 8 cpu ended with status 1: .* is missing"
        ),
        throughput.worker("keras_cnn", "ours", 8, "cpu", tmp_path),
    ):
        pass


@pytest.mark.parametrize("model", throughput.MODELS)
def test_workers(model, tmp_path, monkeypatch):
    """One trains at a time; the others wait and use no processor time; all are gone afterwards."""
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", "1")  # PyTorch's own switch: it would compile for a minute
    data = bench.synthetic(tmp_path)
    with contextlib.ExitStack() as stack:
        workers = {way: stack.enter_context(throughput.worker(model, way, 8, "cpu", data)) for way in throughput.WAYS}
        assert workers["ours"].settings == workers["expert"].settings == workers["notebook"].settings
        assert workers["ours"].settings["threads"] >= 1
        before = processor_seconds(workers["notebook"])
        answers = [throughput.ask(workers[way], 50) for way in ("ours", "expert")]
        assert processor_seconds(workers["notebook"]) - before < 0.5
        answers.append(throughput.ask(workers["notebook"], 50))
    for answer in answers:
        assert len(answer["seconds"] + answer["left_out"]) == 2
        assert all(0 < seconds < 10 for seconds in answer["seconds"])
        assert 0 < answer["loss"] < 5
    assert all(worker.process.returncode is not None for worker in workers.values())


def processor_seconds(process: throughput.Worker) -> float:
    """What a process has used so far, user and system; nothing where the system does not tell."""
    path = Path(f"/proc/{process.process.pid}/stat")
    if not path.exists():
        return 0.0
    fields = path.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_docs_hold_the_committed_figures():
    """The tables of docs/performance.md are those of one of the committed results, and none is a quick try."""
    results = [json.loads(file.read_text(encoding="utf-8")) for file in (ROOT / bench.RESULTS).glob("*.json")]
    page = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    held = page.partition("<!-- bench -->\n")[2].partition("\n<!-- /bench -->")[0]
    assert held in [table.table(each) for each in results]
    assert not any(each["quick"] for each in results)


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_the_limit_of_a_framework(framework):
    """A process of its own measures the rate, and its model's products with each batch size."""
    rates = bench.rates_of(framework, [8, 16], bench.limit.QUICK_SIDE)
    assert rates["gflops_per_second"] > 0
    assert set(rates["products_ms"]) == {"8", "16"}
    assert all(milliseconds > 0 for milliseconds in rates["products_ms"].values())
