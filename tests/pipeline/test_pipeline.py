"""The whole graph through the real `dvc`, on synthetic data, in a clone of the working tree."""

import json
import re
import subprocess

import pytest
import yaml

from tests.support.clones import ALL_STAGES, WAY_BACK, Clone, stages_run

pytestmark = pytest.mark.pipeline

KERAS_STAGES = {"train_keras_cnn", "evaluate@keras_cnn", "export_keras_cnn", "cards", "plot", "compare", "report"}


def test_repro_runs_every_stage_once(repository):
    clone, output = repository
    assert sorted(stages_run(output)) == sorted(ALL_STAGES)
    changed = clone.ok("git", "diff", "--name-only", "HEAD~1").split()
    folders = {name.split("/")[0] for name in changed}
    assert {"dvc.lock", "metrics"} <= folders <= {"dvc.lock", "metrics", "data", "models"}


def test_a_second_repro_runs_nothing(repository):
    clone, _ = repository
    output = clone.ok("dvc", "repro")
    assert stages_run(output) == []
    assert "up to date" in output


def test_data_and_models_stay_out_of_git_and_what_joins_them_is_in_it(repository):
    clone, _ = repository
    tracked = clone.ok("git", "ls-files").splitlines()
    assert {"metrics/predictions/keras_cnn.npz", "models/keras_cnn.onnx", "models/resnet18.md"} <= set(tracked)
    others = (".npy", ".keras", ".pt", "resnet18.onnx")
    assert not [name for name in tracked if name.endswith(others) or "batches-py" in name]


def test_synthetic_data_are_labelled(repository):
    clone, _ = repository
    assert clone.metrics("keras_cnn")["source"] == clone.metrics("resnet18")["source"] == "synthetic"
    assert "synthetic data, not CIFAR-10" in (clone.folder / "metrics/comparison.md").read_text()


def test_dvc_shows_metrics_plots_and_artifacts(repository):
    clone, _ = repository
    shown = json.loads(clone.ok("dvc", "metrics", "show", "--json"))[""]["data"]
    assert set(shown) == {"metrics/keras_cnn.json", "metrics/resnet18.json"}
    page = clone.ok("dvc", "plots", "show", "--json")
    for plot in ("accuracy", "loss", "metrics/confusion/resnet18.csv"):
        assert plot in page
    artifacts = clone.ok("python", "-c", "from dvc.repo import Repo; print(Repo().artifacts.read())")
    assert "models/keras_cnn.keras" in artifacts
    assert "models/resnet18.pt" in artifacts


def test_another_dropout_in_a_plain_clone_without_cache_runs_exactly_what_depends_on_it(repository, tmp_path):
    origin, _ = repository
    subprocess.run(["git", "clone", "--quiet", origin.folder, tmp_path / "plain"], check=True)
    clone = Clone(tmp_path / "plain")
    assert stages_run(clone.ok("dvc", "repro", "split")) == ["download", "preprocess", "split"]
    output = clone.ok("dvc", "exp", "run", "--allow-missing", "-S", "dropout=0.4")
    assert sorted(stages_run(output)) == sorted(KERAS_STAGES)
    assert not (clone.folder / "models/resnet18.pt").exists()
    for stage in set(ALL_STAGES) - KERAS_STAGES:
        assert clone.lock()[stage] == origin.lock()[stage]
    difference = clone.ok("dvc", "metrics", "diff")
    assert re.search(r"metrics/keras_cnn\.json +test\.loss +\d\.\d+ +\d\.\d+ +-?\d\.\d+", difference)
    assert "metrics/resnet18.json" not in difference
    clone.ok("sh", "-c", WAY_BACK)
    assert clone.ok("git", "status", "--porcelain") == ""


def test_a_bad_value_is_one_line_that_says_how_to_go_back(repository):
    clone, _ = repository
    result = clone.run("dvc", "exp", "run", "-S", "dropout=1.5")
    lines = [line for line in (result.stdout + result.stderr).splitlines() if line.startswith("train_keras_cnn: ")]
    assert result.returncode != 0
    assert "Traceback" not in result.stdout + result.stderr
    assert len(lines) == 1
    assert "dropout is 1.5: input should be less than 1" in lines[0]

    assert lines[0].endswith(WAY_BACK)
    assert clone.ok("git", "status", "--porcelain") != ""
    clone.ok("sh", "-c", WAY_BACK)
    assert clone.ok("git", "status", "--porcelain") == ""
    assert "up to date" in clone.ok("dvc", "status", "dvc.yaml")


def test_a_reproduction_with_other_parameters_can_be_taken_back(repository):
    """`dvc repro` puts the new dvc.lock into git's index, where a plain `git restore` would find it."""
    clone, _ = repository
    parameters = (clone.folder / "params.yaml").read_text()
    assert parameters.count("random_state: 7") == 1
    (clone.folder / "params.yaml").write_text(parameters.replace("random_state: 7", "random_state: 8"))
    assert stages_run(clone.ok("dvc", "repro", "split")) == ["split"]
    clone.ok("sh", "-c", WAY_BACK)
    assert clone.ok("git", "status", "--porcelain") == ""
    assert "up to date" in clone.ok("dvc", "status", "dvc.yaml")


def test_a_mistyped_key_is_refused_and_nothing_changes(repository):
    clone, _ = repository
    assert clone.run("dvc", "exp", "run", "-S", "droput=0.4").returncode != 0
    assert clone.ok("git", "status", "--porcelain") == ""


@pytest.mark.real_data
def test_a_relative_archive_is_found_from_a_temporary_run_too(repository, cifar10_archive):
    clone, _ = repository
    (clone.folder / "local.tar.gz").symlink_to(cifar10_archive)
    try:
        output = clone.ok(
            *("dvc", "exp", "run", "--temp", "--name", "relative", "-S", "data.source=cifar10", "download"),
            CIFAR10_ARCHIVE="local.tar.gz",
        )
    finally:
        (clone.folder / "local.tar.gz").unlink()
    assert stages_run(output) == ["download"]
    (experiment,) = re.findall(
        r"^refs/exps/\S+/relative$", clone.ok("git", "for-each-ref", "--format=%(refname)"), re.M
    )
    lock = yaml.safe_load(clone.ok("git", "show", f"{experiment}:dvc.lock"))["stages"]
    assert lock["download"]["outs"][0]["nfiles"] == 8
