"""Make git tags that hold the paper's numbers and curves in the form of our files, for DVC to compare. It is no stage.

    make paper-ref
    dvc metrics diff paper                       the paper's Table 1 and Conclusion, and ours
    dvc exp show --rev paper
    dvc plots diff paper                         its Figures 1 and 2, and ours
    dvc metrics diff paper-table2-64-0.3 ...     a cell of its Table 2, and an experiment

A tag's commit is written straight into git's store: nothing is checked out, no branch moves, and the same
data/paper gives the same commit again.
"""

import json
from pathlib import Path
from typing import Any

import yaml

from stages.common.errors import ExpectedError, run_program
from stages.common.paths import PIPELINE
from stages.experiments.git import git
from stages.paper.numbers import Numbers, load_numbers

EMAIL = "paper@example.org"
# The date is arbitrary but fixed: the commit's hash includes it.
DATE = "2024-11-01T00:00:00Z"
Files = dict[str, str]


def main() -> None:
    numbers = load_numbers()
    pipeline = yaml.safe_load(PIPELINE.read_text(encoding="utf-8"))
    prefix = git("rev-parse", "--show-prefix").strip()  # this folder below git's root, where DVC looks for the files
    for tag, files in tags(numbers).items():
        whole = {PIPELINE.as_posix(): shown(pipeline, files), **files}
        content = {prefix + path: text for path, text in whole.items()}
        made = commit(content, f"What the paper prints: {tag}", author_of(numbers))
        if git("tag", "--list", tag) and git("log", "-1", "--format=%ae", tag).strip() != EMAIL:
            raise ExpectedError(f"git has another tag {tag}; rename or delete it (git tag -d {tag})")
        git("update-ref", f"refs/tags/{tag}", made)
        print(f"{tag}: {', '.join(files)}")


def author_of(numbers: Numbers) -> str:
    """The author of the tags' commits: the paper, and who wrote it first."""
    return f"the paper, {numbers.paper.by.partition(',')[0]}"


def tags(numbers: Numbers) -> dict[str, Files]:
    """The files of each tag by path: our files, with the paper's values where the paper prints one."""
    found: dict[str, Files] = {}
    scores: dict[str, dict[str, Any]] = {}
    for row in numbers.results:
        file, _, key = row.ours.partition(" ")
        if Path(file).suffix != ".json" or Path(file).parent.name != "metrics":
            continue
        value = round(row.value / 100, 6) if row.unit == "percent" else row.value
        content = scores.setdefault(tag_of(row.configuration, numbers), {}).setdefault(file, {})
        *sections, name = key.split(".")
        for section in sections:
            content = content.setdefault(section, {})
        content[name] = value
    for tag, contents in scores.items():
        found[tag] = {file: json.dumps(content, indent=2) + "\n" for file, content in contents.items()}
    for curve in numbers.curves:
        found.setdefault(tag_of(curve.configuration, numbers), {})[curve.ours] = Path(curve.paper).read_text(
            encoding="utf-8"
        )
    return found


def tag_of(configuration: str, numbers: Numbers) -> str:
    """`paper` for a model's first configuration that `dvc repro` may have; any other has a tag of its own.

    The numbers of several configurations have the same place in the same file.
    """
    wanted = numbers.configurations[configuration]
    if not wanted.grid:
        rows = [row.configuration for row in [*numbers.results, *numbers.curves]]
        of_model = [name for name in rows if numbers.configurations[name].model == wanted.model]
        first = next((name for name in of_model if numbers.configurations[name].is_of_dvc_repro), None)
        return "paper" if configuration == first else f"paper-{configuration}"
    return "-".join(["paper", wanted.grid, *(str(wanted.parameters[axis]) for axis in numbers.grids[wanted.grid].axes)])


def shown(pipeline: dict[str, Any], files: Files) -> str:
    """A dvc.yaml that shows these files as ours does, and has no stage."""
    plots = []
    for plot in pipeline.get("plots", []):
        ((_, options),) = plot.items() if isinstance(plot, dict) else [(plot, {})]
        curves = options.get("y")
        if isinstance(curves, dict) and set(curves) <= set(files):
            plots.append(plot)
    content = {"metrics": [file for file in pipeline.get("metrics", []) if file in files], "plots": plots}
    shown: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return shown


def commit(files: Files, message: str, author: str) -> str:
    """A commit without parents that holds these files."""
    facts = {"NAME": author, "EMAIL": EMAIL, "DATE": DATE}
    who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in facts.items()}
    return git("commit-tree", "--no-gpg-sign", "-m", message, tree(files), **who).strip()


def tree(files: Files) -> str:
    """The hash of git's tree of these files."""
    folders: dict[str, Files] = {}
    entries = []
    for path, content in files.items():
        folder, slash, rest = path.partition("/")
        if slash:
            folders.setdefault(folder, {})[rest] = content
        else:
            entries.append(f"100644 blob {git('hash-object', '-w', '--stdin', stdin=content).strip()}\t{path}")
    entries += [f"040000 tree {tree(inside)}\t{folder}" for folder, inside in folders.items()]
    return git("mktree", stdin="".join(f"{entry}\n" for entry in entries)).strip()


if __name__ == "__main__":
    run_program("paper-ref", main)
