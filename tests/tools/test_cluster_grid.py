"""Which machine of a cluster fits which run; without a cluster."""

from pathlib import Path

import pytest

from stages.experiments.plan import Run
from stages.tools.cluster_grid import Cluster, needs_gpu

HERE = {"packages": "1a", "processor": "AMD", "gpu": "H100"}
CPU_RUN = Run("cell-seed7", "cell", "", "resnet18", 7, ["resnet18.device=cpu"])
GPU_RUN = CPU_RUN._replace(overrides=["resnet18.device=cuda"])


@pytest.mark.parametrize(
    ("run", "mixed", "labels", "resources", "why"),
    [
        (CPU_RUN, False, {}, {}, ""),
        (GPU_RUN, False, {}, {"GPU": 1.0}, ""),
        (GPU_RUN, False, {}, {}, "it has no GPU"),
        (CPU_RUN, False, {}, {"CPU": 1.0}, "it gives 1 cores, and a run has 2 threads; THREADS sets them"),
        (CPU_RUN, False, {"processor": "Xeon"}, {}, "its processor is Xeon, not AMD as here; MIXED=1 allows it"),
        (GPU_RUN, False, {"gpu": "A100"}, {"GPU": 1.0}, "its gpu is A100, not H100 as here; MIXED=1 allows it"),
        (GPU_RUN, True, {"processor": "Xeon", "gpu": "A100"}, {"GPU": 1.0}, ""),
        (CPU_RUN, True, {"packages": "2b"}, {}, "it has other packages (numpy); install them, and join again"),
    ],
)
def test_a_machine_fits_a_run_or_not(
    workdir: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Run,
    mixed: bool,
    labels: dict[str, str],
    resources: dict[str, float],
    why: str,
) -> None:
    monkeypatch.setattr(Cluster, "_other_packages", lambda *_: "numpy")
    cluster = Cluster.__new__(Cluster)  # not connected
    cluster.ask(threads=2, mixed=mixed, here=HERE)
    assert cluster._misfit(run, {"Labels": HERE | labels, "Resources": {"CPU": 2.0} | resources}) == why


def test_a_run_asks_for_a_gpu_if_its_own_model_is_trained_on_one(workdir: Path) -> None:
    assert needs_gpu(GPU_RUN)
    assert not needs_gpu(CPU_RUN)
    assert not needs_gpu(CPU_RUN._replace(overrides=["keras_cnn.device=cuda"]))
    assert not needs_gpu(CPU_RUN._replace(model="rbm", overrides=[]))  # which has no device
