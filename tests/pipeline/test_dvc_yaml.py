"""Both dvc.yaml declare the code that each stage imports, imports have one direction, each parameter has a stage."""

import ast

import pytest
import yaml

from tests.support.clones import ALL_STAGES
from tests.support.stage_runs import ROOT

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
BEYOND = yaml.safe_load((ROOT / "beyond/dvc.yaml").read_text())["stages"]
# Of beyond/, what is no code: what its stages read of what they, `make beyond` and people write.
RESULTS = {
    *("beyond/models/model.pt", "beyond/metrics/run.json", "beyond/runs"),
    *("beyond/experiments.yaml", "beyond/published.yaml", "beyond/search.yaml", "beyond/search"),
}
# A module imports from its own part of stages/ and from the rows above it; each stage is a part of its own.
LEVELS = [
    {"common"},
    {"cifar10", "training", "experiments", "figures"},
    {"keras_cnn", "resnet18", "paper", "inference"},
    {"page"},
    {f"{name}.py" for name in PIPELINE["stages"]},
    {"tools"},
]


def part(module: str) -> str:
    """The folder of stages/ that a module is in, or the file of a stage."""
    return module.split("/")[1]


def imports(module: str) -> set[str]:
    """The modules of stages/ and beyond/ that a module imports, at its top or in a function."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    paths = {f"{name.replace('.', '/')}.py" for name in names if name.startswith(("stages.", "beyond."))}
    return {path for path in paths if (ROOT / path).is_file()}


def needed(*modules: str) -> set[str]:
    """These modules and all that they import, directly or indirectly."""
    found: set[str] = set()
    waiting = set(modules)
    while waiting:
        found |= waiting
        waiting = set().union(*map(imports, waiting)) - found
    return found


@pytest.mark.parametrize("name", ALL_STAGES)
def test_a_stage_declares_its_own_file_and_the_folders_that_it_imports_from(name):
    stage, _, model = name.partition("@")
    entry = PIPELINE["stages"][stage]
    modules = [f"stages/{stage}.py"]
    if model:  # `evaluate` imports the module of its model by name, when it runs
        modules.append(f"stages/{model}/model_file.py")
    declared = {dep.replace("${key}", model) for dep in entry.get("do", entry)["deps"] if dep.startswith("stages/")}
    assert declared == {f"stages/{part(module)}" for module in needed(*modules)}


@pytest.mark.parametrize("name", BEYOND)
def test_so_does_a_stage_of_the_second_pipeline(name):
    declared = {dep for dep in BEYOND[name]["deps"] if dep.startswith(("stages/", "beyond/")) and dep not in RESULTS}
    assert declared == {"/".join(module.split("/")[:2]) for module in needed(f"beyond/{name}.py")}


def test_only_tools_of_the_second_pipeline_import_tools_and_nothing_of_the_first_imports_the_second():
    for module in (path.relative_to(ROOT).as_posix() for path in (ROOT / "beyond").rglob("*.py")):
        if not module.startswith("beyond/tools/"):
            assert not [other for other in imports(module) if "/tools/" in other], module
    for module in (path.relative_to(ROOT).as_posix() for path in (ROOT / "stages").rglob("*.py")):
        assert not [other for other in imports(module) if other.startswith("beyond/")], module


def test_imports_have_one_direction():
    level = {name: number for number, names in enumerate(LEVELS) for name in names}
    modules = [path.relative_to(ROOT).as_posix() for path in (ROOT / "stages").rglob("*.py")]
    assert {part(module) for module in modules} == set(level), "a new part of stages/ needs a place in LEVELS"
    backwards = [
        f"{module} imports {other}"
        for module in modules
        for other in imports(module)
        if part(module) != part(other) and level[part(module)] <= level[part(other)]
    ]
    assert backwards == []


def test_dvc_yaml_lists_each_stage_after_those_that_it_depends_on():
    """The bench measures the stages in this order."""
    made: set[str] = set()
    outs = {out for name in ALL_STAGES for out in paths(name, "outs")}
    for name in ALL_STAGES:
        assert paths(name, "deps") & outs <= made
        made |= paths(name, "outs")


@pytest.mark.parametrize("name", ["plot", "compare", "report", "cards"])
def test_what_joins_the_models_reads_only_what_is_in_git(name):
    """So a plain clone, without DVC's cache, can draw and compare again."""
    in_git = {"experiments.yaml", "metrics/runs.csv", "metrics/experiments"}  # no stage's: `make collect` writes two
    for stage in ALL_STAGES:
        in_git |= paths(stage, "outs", "cache")
    read = {dep for dep in paths(name, "deps") if not dep.startswith(("stages/", "data/paper"))}
    assert read
    assert read <= in_git


def paths(name: str, kind: str, option: str = "") -> set[str]:
    """The deps or outs of a stage; where an option is named, only those that set it to false."""
    stage, _, model = name.partition("@")
    entry = PIPELINE["stages"][stage]
    found = set()
    for item in entry.get("do", entry)[kind]:
        ((path, options),) = item.items() if isinstance(item, dict) else [(item, {})]
        if not option or options.get(option) is False:
            values = {
                "key": model,
                **{f"item.{key}": value for key, value in entry.get("foreach", {}).get(model, {}).items()},
            }
            for variable, value in values.items():
                path = path.replace(f"${{{variable}}}", value)
            found.add(path)
    return found
