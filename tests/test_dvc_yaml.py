"""dvc.yaml declares what the stages import, and DVC can read it."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())


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


def declared_code(stage: dict) -> set[str]:
    """The files of stages/ among a stage's deps; of a foreach stage, those of all its items together."""
    items = stage.get("foreach", {"": {}})
    deps = stage.get("do", stage)["deps"]
    found = set()
    for key, item in items.items():
        for dep in deps:
            for name, value in item.items():
                dep = dep.replace(f"${{item.{name}}}", value)
            found.add(dep.replace("${key}", key))
    return {dep for dep in found if dep.startswith("stages/")}


@pytest.mark.parametrize("name", PIPELINE["stages"])
def test_a_stage_depends_on_the_code_that_it_imports_and_on_no_other(name):
    own = f"stages/{name}.py"
    assert declared_code(PIPELINE["stages"][name]) == {own} | local_imports(ROOT / own)


def test_a_model_is_evaluated_without_the_other_framework():
    deps = PIPELINE["stages"]["evaluate"]["foreach"]
    assert deps["keras_cnn"]["framework"] == "stages/keras_backend.py"
    assert deps["resnet18"]["framework"] == "stages/torch_device.py"


@pytest.mark.parametrize("name", ["plot", "compare"])
def test_what_joins_the_models_reads_only_what_is_in_git(name):
    """So a plain clone, without DVC's cache, can draw and compare anew."""
    in_git = set()
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
