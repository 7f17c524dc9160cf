"""dvc.yaml declares what the stages import, and DVC can read it."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
FRAMEWORK_CODE = {  # what evaluate imports for one model only
    "keras_cnn": {"stages/keras_backend.py", "stages/architectures/keras_cnn.py"},
    "resnet18": {"stages/torch_device.py", "stages/architectures/resnet18.py"},
}


def local_imports(file: Path) -> set[str]:
    """The modules of stages/ that a file imports, wherever in it, and what those import."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stages"):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("stages")]
        for name in names:
            path = f"{name.replace('.', '/')}.py"
            if (ROOT / path).is_file():
                found |= {path} | local_imports(ROOT / path)
    return found


def declared_code(stage: dict, key: str = "") -> set[str]:
    """The files of stages/ among a stage's deps, or among those of one item of a foreach stage."""
    deps = stage.get("do", stage)["deps"]
    for name, value in stage.get("foreach", {}).get(key, {}).items():
        deps = [dep.replace(f"${{item.{name}}}", value) for dep in deps]
    return {dep.replace("${key}", key) for dep in deps if dep.startswith("stages/")}


@pytest.mark.parametrize("name", sorted(set(PIPELINE["stages"]) - {"evaluate"}))
def test_a_stage_depends_on_the_code_that_it_imports_and_on_no_other(name):
    own = f"stages/{name}.py"
    assert declared_code(PIPELINE["stages"][name]) == {own} | local_imports(ROOT / own)


@pytest.mark.parametrize("model", FRAMEWORK_CODE)
def test_a_model_is_evaluated_by_its_own_framework_s_code_alone(model):
    (other,) = set(FRAMEWORK_CODE) - {model}
    own = "stages/evaluate.py"
    needed = {own} | local_imports(ROOT / own)
    assert needed >= FRAMEWORK_CODE[model]
    assert declared_code(PIPELINE["stages"]["evaluate"], model) == needed - FRAMEWORK_CODE[other]


@pytest.mark.parametrize("name", ["plot", "compare"])
def test_what_joins_the_models_reads_only_what_is_in_git(name):
    """So a plain clone, without DVC's cache, can draw and compare anew."""
    in_git = {"experiments.yaml", "metrics/runs.csv"}  # no stage's: `make collect` writes the latter
    for stage in PIPELINE["stages"].values():
        for out in stage.get("do", stage)["outs"]:
            if isinstance(out, dict):
                ((path, options),) = out.items()
                assert options == {"cache": False}
                in_git |= {path.replace("${key}", model) for model in ("keras_cnn", "resnet18")}
    read = {dep for dep in PIPELINE["stages"][name]["deps"] if not dep.startswith(("stages/", "data/paper"))}
    assert read
    assert read <= in_git


def test_only_plain_keys_stand_in_params_yaml_that_some_stage_declares():
    """A parameter that no stage declares would be turned by `-S` and change nothing."""
    declared = {name for stage in PIPELINE["stages"].values() for name in stage.get("do", stage).get("params", [])}
    assert declared == set(yaml.safe_load((ROOT / "params.yaml").read_text()))
