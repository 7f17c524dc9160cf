"""The comparison with the paper as Markdown that reads well in a terminal and on GitHub.

comparison.md.jinja has the prose, and the functions here make its tables. Everything is a pure function of the content
of metrics/comparison.json.
"""

import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import tabulate
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stages.common.files import Json
from stages.paper.rows import shown
from stages.paper.statistics import FEWEST, sampling_error

tabulate.MIN_PADDING = 0  # no extra space around headers

NOTHING = "-"
WIDTH = 98  # characters of a line of prose
DIGITS = {"percent": 2, "nats": 3, "rate": 3, "weights": 0, "images": 0}  # of ours, after the point
NUMBERS = ["Number", "Paper", "Ours", "Difference"]


def render(comparison: Json) -> str:
    """metrics/comparison.md; of synthetic results it shows only the scores."""
    environment = templates(Path(__file__).parent)
    functions = (
        claims_list,
        finding,
        grid_table,
        legend,
        missing_runs,
        numbers_table,
        remarks,
        curves_table,
        lists_table,
        settings_table,
    )
    environment.filters |= {function.__name__: function for function in (*functions, scores_table)}
    environment.filters["wrap"] = wrap
    models, results = comparison["models"], comparison["results"]
    counts = Counter(row["status"] for row in results)
    return environment.get_template("comparison.md.jinja").render(
        comparison,
        warnings=warnings(models),
        compared=[f"{model['title']} (seed {model['seed']})" for model in models if not model["warning"]],
        answered=", ".join(f"{status} {count}" for status, count in counts.items()),
        sampling_error=sampling_error_of(comparison) if counts["answered"] else "",
        seeds=seeds_table(results),
        open_ends=open_ends(comparison),
    )


def templates(folder: Path, html: bool = False) -> Environment:
    """Jinja2 for the templates of a folder; an unknown name is an error."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=html,  # noqa: S701  Markdown is not HTML
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def warnings(models: list[Json]) -> list[str]:
    """What has to be read first: which models' numbers are of synthetic data."""
    if all(model["warning"] for model in models):
        return [f"{models[0]['warning']}: nothing here is compared with the paper"]
    return [
        f"{model['title']}: {model['warning']}: nothing of it is compared with the paper"
        for model in models
        if model["warning"]
    ]


def headline_table(comparison: Json) -> str:
    """README.md's table. A row has a footnote where what ours is does not follow from its name."""
    rows = [row for row in comparison["results"] if row["headline"]]
    notes = ["; ".join(filter(None, [row["ours_is"], row["interpretation"]])) for row in rows]
    lines = [
        [*line, f"{interval(row)} ({row['runs']})" if row["interval"] else few(row["runs"])]
        for line, row in zip(number_lines(rows, notes), rows, strict=True)
    ]
    return table([*NUMBERS, "Interval (runs)"], lines, right=4)


def numbers_table(rows: list[Json]) -> str:
    """The paper's numbers compared with ours; the footnotes are those of `remarks`."""
    lines = number_lines(rows, [remark(row) for row in rows])
    return table(
        [*NUMBERS, "Runs"], [[*line, str(row["runs"])] for line, row in zip(lines, rows, strict=True)], right=4
    )


def number_lines(rows: list[Json], notes: list[str]) -> list[list[str]]:
    """A line for each number, with a footnote where there is a note; equal notes are one footnote."""
    numbered = {note: number for number, note in enumerate(dict.fromkeys(filter(None, notes)), start=1)}
    return [
        [
            f"{row['where']}: {row['what']}" + (f" [{numbered[note]}]" if note else ""),
            printed(row["paper"], row),
            measured(row["ours"], row["unit"]),
            signed(row["difference"], row["unit"]),
        ]
        for row, note in zip(rows, notes, strict=True)
    ]


def remarks(rows: list[Json]) -> str:
    """The footnotes of `numbers_table`."""
    notes = dict.fromkeys(remark(row) for row in rows)
    return "\n".join(wrap(f"{number}. {note}.", indent=3) for number, note in enumerate(notes, start=1))


def remark(row: Json) -> str:
    """What the paper's number really is and what ours is, other numbers of ours, and why the row is not answered."""
    parts = [row["really"]]
    if row["runs"]:
        ours = [row["ours_is"], row["interpretation"] and f"the interpretation `{row['interpretation']}`"]
        parts += [f"ours is {text}" for text in ours if text]
    parts += [f"{also['what']}: {measured(also['ours'], row['unit'])}" for also in row["also"]]
    return ". ".join(text[0].upper() + text[1:] for text in parts + reasons(row))


def few(runs: int) -> str:
    """How many runs a number without an interval is of."""
    return f"{runs} runs" if runs > 1 else "one run" if runs else NOTHING


def interval(row: Json) -> str:
    """The 95 % prediction interval of a number that has one."""
    return "\N{EN DASH}".join(f"{end:,.{DIGITS[row['unit']]}f}" for end in row["interval"])


def seeds_table(rows: list[Json]) -> str:
    """What several runs say of one more, and whether the paper's number could be it; nothing where all are too few."""
    lines = [
        [
            f"{row['where']}: {row['what']}",
            f"{row['spread']:.{DIGITS[row['unit']]}f}",
            interval(row),
            "inside" if row["inside"] else "outside",
        ]
        for row in rows
        if row["interval"]
    ]
    return table(["Number", "SD", "Interval", "The paper's"], lines, right=3) if lines else ""


def sampling_error_of(comparison: Json) -> str:
    """The sampling error of the test set, at the first accuracy of ours."""
    scale = {"percent": 1, "rate": 100}
    rates = [
        scale[row["unit"]] * row["ours"]
        for row in comparison["results"]
        if row["unit"] in scale and row["ours"] is not None
    ]
    if not rates:
        return ""
    images = comparison["test_images"]
    return (
        f"±{100 * sampling_error(rates[0] / 100, images):.2f} points (binomial, {rates[0]:.2f} % of {images:,} images)"
    )


def claims_list(claims: list[Json]) -> str:
    """The paper's claims with their verdicts, and what each rests on."""
    lines = []
    for number, claim in enumerate(claims, start=1):
        # The paper leaves the settings open, and this interpretation's runs judge it.
        read_as = f"; judged as `{claim['interpretation']}`" if claim["interpretation"] else ""
        lines.append(
            wrap(
                f"{number}. **{claim['verdict'].capitalize()}:** {claim['says']} ({claim['where']}{read_as})", indent=3
            )
        )
        lines += [wrap(f"   - {part['what']}: {estimate(part)}", indent=5) for part in claim["parts"]]
        if claim["note"]:
            lines.append(wrap(f"   - {claim['note']}", indent=5))
    return "\n".join(lines)


def estimate(part: Json) -> str:
    """What a part of a claim measured, and how many runs would decide it."""
    aside = "" if part["counts"] else "; does not count"
    return f"{part_figures(part)}{what_would_tell(part)}{aside}{under_others(part)}"


def part_figures(part: Json) -> str:
    """The mean of a part of a claim, its interval over runs and for other images, and how many runs are behind it."""
    if part["mean"] is None:
        return "no value" if part["missed"] else "not measured yet"
    runs = runs_of(part)
    if part["low"] is None:
        return f"{mean_and_ends(part, part)} ({runs}, no interval)"
    text = f"{mean_and_ends(part, part)} ({runs})"
    if other := part["other_images"]:
        text += f"; for other images too, {ends(other, part)} ({counted(other['runs'], pair_or_run(part))})"
    return text


def mean_and_ends(estimate: Json, part: Json) -> str:
    """An estimate of a part's value, in the part's unit, with the interval that it may have."""
    mean = f"{number_of(estimate['mean'], part)} {part['unit']}".rstrip()
    return mean if estimate["low"] is None else f"{mean}, {ends(estimate, part)}"


def ends(estimate: Json, part: Json) -> str:
    return f"from {number_of(estimate['low'], part)} to {number_of(estimate['high'], part)}"


def number_of(value: float, part: Json) -> str:
    return f"{scale_of(part) * value:+,.{part['decimals']}f}"


def scale_of(part: Json) -> int:
    """How many of a part's unit its value 1 is: 100 points of accuracy."""
    return 100 if part["unit"] == "points" else 1


def under_others(part: Json) -> str:
    """What a part of a claim on a table has under the other interpretations, which do not count."""
    others = [
        f"; under “{found['interpretation']}”: {mean_and_ends(found, part)} "
        f"({counted(found['runs'], pair_or_run(part))})"
        for found in part["others"]
    ]
    return "".join(others)


def runs_of(part: Json) -> str:
    """How many runs or pairs a part of a claim rests on, and of how many seeds where that is another number."""
    seeds = "" if part["seeds"] == part["runs"] else f" of {counted(part['seeds'], 'seed')}"
    return counted(part["runs"], pair_or_run(part)) + seeds


def what_would_tell(part: Json) -> str:
    """What an undecided part of a claim needs; nothing where that is not known."""
    if part["missed"]:
        return f"; no verdict, because {counted(part['missed'], 'run')} never reached it"
    if part["mean"] is not None and part["seeds_of_each"] < FEWEST:
        return f"; a verdict needs {FEWEST} seeds" + (" of each cell" if part["cells"] > 1 else "")
    needed = part["runs_needed"]
    return f"; about {counted(needed, pair_or_run(part))} would decide {part['leans']} it" if needed else ""


def pair_or_run(part: Json) -> str:
    return "pair" if part["paired"] else "run"


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def missing_runs(names: list[str]) -> str:
    """The configurations of runs, with the number of seeds of each."""
    counts = Counter(name.rpartition("-seed")[0] for name in names)
    return ", ".join(f"{name} ({counted(count, 'seed')})" for name, count in counts.items())


def finding(grid: Json) -> str:
    """Which interpretation is nearest, how near, and whether any reaches the paper's highest accuracy."""
    nearest = next((found for found in grid["interpretations"] if found["name"] == grid["nearest"]), None)
    highest = grid["highest"]
    if nearest is None or highest is None:
        return "No run of it at full length yet."
    rates = [row for row in grid["rows"] if row["unit"] == "percent"]
    missing = [row["what"] for row in rates if nearest["numbers"][row["id"]] is None]
    verdict = "which reaches" if highest["ours"] >= grid["highest_of_paper"] else "and none reaches"
    return wrap(
        f"**Of the interpretations at full length with the most cells ({nearest['cells']} of {len(rates)}), the "
        f"nearest is `{nearest['name']}`**: {nearest['distance']['percent']:.2f} points and "
        f"{nearest['distance']['nats']:.3f} nats from the paper. "
        + (f"It has no run yet of {'; '.join(missing)}. " if missing else "")
        + f"The highest test accuracy of these runs is {highest['ours']:.2f} % (`{highest['interpretation']}`), "
        f"{verdict} the paper's {grid['highest_of_paper']:g} %."
    )


def grid_table(grid: Json, kind: str) -> str:
    """An interpretation a line, nearest first, and a column for each cell.

    Args:
        grid: An element of `grids`.
        kind: "percent" (accuracies), "nats" (losses), or "kept" (the epoch whose weights were kept).
    """
    unit = "percent" if kind == "kept" else kind
    rows = [row for row in grid["rows"] if row["unit"] == unit]
    cells = [", ".join(map(str, row["at"])) for row in rows]
    if kind == "kept":
        lines = [
            [found["name"], *(kept(found["kept"].get(row["cell"], [])) for row in rows)]
            for found in grid["interpretations"]
        ]
        return table(["Interpretation", *cells], lines, right=len(cells))
    lines = [["the paper", *(printed(row["paper"], row).removesuffix(" %") for row in rows), "", ""]]
    for found in grid["interpretations"]:
        numbers = [found["numbers"][row["id"]] for row in rows]
        texts = [mean_of_runs(number, unit) if number else NOTHING for number in numbers]
        runs = sum(number["runs"] for number in numbers if number)
        lines.append([found["name"], *texts, f"{found['distance'][unit]:.{DIGITS[unit]}f}", str(runs)])
    return table(["Interpretation", *cells, "Distance", "Runs"], lines, right=len(cells) + 2)


def mean_of_runs(number: Json, unit: str) -> str:
    """A number of ours in a cell of a grid, and of how many runs it is the mean where that is not one."""
    runs = f" ({number['runs']})" if number["runs"] > 1 else ""
    return f"{measured(number['ours'], unit).removesuffix(' %')}{runs}"


def kept(runs: list[list[int]]) -> str:
    """The epoch whose weights were kept and the number of epochs; of several runs, the ranges."""
    ranges = [dict.fromkeys(str(bound(values)) for bound in (min, max)) for values in zip(*runs, strict=True)]
    return " of ".join(" to ".join(found) for found in ranges) or NOTHING


def legend(grid: Json) -> str:
    """What each interpretation changes."""
    return "\n".join(
        wrap(f"- `{name}`: {', '.join(f'{key}={shown(value)}' for key, value in changes.items()) or 'nothing'}", 2)
        for name, changes in grid["legend"].items()
    )


def curves_table(rows: list[Json]) -> str:
    """Mean and largest absolute difference of each column of each figure."""
    lines = []
    for row in rows:
        for column in row["columns"]:
            epochs = f"{column['epochs']} of {column['paper_epochs']}"
            gaps = [NOTHING if column[name] is None else f"{column[name]:.4f}" for name in ("mean", "largest")]
            lines.append([row["where"], column["column"], epochs, *gaps, plain(column["at"])])
    missing = [wrap(f"- {row['where']}: {reason}", 2) for row in rows for reason in reasons(row)]
    full = [table(["Paper", "Curve", "Epochs", "Mean", "Largest", "In epoch"], lines, right=4)] if lines else []
    return "\n\n".join(full + missing)


def lists_table(rows: list[Json], unit: str) -> str:
    """The lists of one unit, a class a line, each as the paper's and ours."""
    rows = [row for row in rows if row["unit"] == unit]
    full = [row for row in rows if row["runs"]]
    if not full:
        return "\n".join(wrap(f"- {row['what']}: {'; '.join(reasons(row))}", 2) for row in rows)
    lines = []
    for index, name in enumerate(full[0]["classes"]):
        pairs = ((printed(row["paper"][index], row), measured(row["ours"][index], unit)) for row in full)
        lines.append([name, *(text for pair in pairs for text in pair)])
    means = [sum(map(abs, row["difference"])) / len(row["difference"]) for row in full]
    lines.append(["mean absolute difference", *(text for mean in means for text in ("", f"{mean:.3g}"))])
    header = ["Class", *(text for row in full for text in (row["what"], "ours"))]
    return table(header, lines, right=len(header) - 1)


def settings_table(rows: list[Json], models: list[Json], data: str) -> str:
    """What the text says, what the notebook ran and what ran here, where they differ; the others are folded."""
    titles = {model["model"]: model["title"] for model in models}
    compared = [row for row in rows if row["status"] != "not compared"]
    lines = {
        row["id"]: [
            row["where"].removeprefix("Sections ").removeprefix("Section "),
            titles.get(row["model"], data),
            row["what"],
            *(plain(row[whose]) for whose in ("text", "notebook", "ran")),
        ]
        for row in compared
    }
    same = [lines[row["id"]] for row in compared if row["status"] == "same"]
    other = [lines[row["id"]] for row in compared if row["status"] != "same"]
    folded = table(["Section", "Of", "Setting", "Everywhere"], [[*line[:3], line[5]] for line in same])
    return "\n\n".join(
        [
            table(["Section", "Of", "Setting", "Text", "Notebook", "Here"], other),
            f"<details>\n<summary>{len(same)} settings are the same everywhere</summary>",
            folded,
            "</details>",
        ]
    )


def open_ends(comparison: Json) -> str:
    """The results that no run of one configuration can answer, and the numbers that are not ours to compare."""
    waiting: dict[str, list[str]] = {}
    for row in comparison["results"]:
        if row["status"] == "waits":
            waiting.setdefault("; ".join([*row["reasons"], row["really"]]), []).append(row["id"])
    lines = [f"- {', '.join(ids)}: {reason}." for reason, ids in waiting.items()]
    lines += [f"- {row['what']}, {row['printed']}: {row['why']}." for row in comparison["not_compared"]]
    return "\n".join(wrap(line, 2) for line in lines)


def scores_table(models: list[Json]) -> str:
    """Every score of every model, compared or not: `test` is the clean test set for all of them, like for like."""
    scores = [model["scores"] | {"source": model["data"]} for model in models]
    names = dict.fromkeys(name for score in scores for name in score)
    lines = [[name, *(plain(score.get(name)) for score in scores)] for name in names]
    return table(["Score", *(model["title"] for model in models)], lines, right=len(models))


def reasons(row: Json) -> list[str]:
    """Why a row is not answered, as one sentence; nothing where it is."""
    return [f"**{row['status']}**: {', and '.join(row['reasons'])}"] if row["reasons"] else []


def printed(value: float, row: Json) -> str:
    """A number of the paper in a row, with the digits that the paper prints."""
    unit, decimals = row["unit"], row.get("decimals")
    if decimals is not None:
        text = f"{value:,.{decimals}f}"
    else:
        text = {"percent": f"{value:g}", "nats": f"{value:.3f}", "rate": f"{value:.2f}"}.get(unit, f"{value:,}")
    return f"{text} %" if unit == "percent" else text


def measured(value: float | None, unit: str) -> str:
    """A number of ours."""
    if value is None:
        return NOTHING
    text = f"{value:,.{DIGITS[unit]}f}"
    return f"{text} %" if unit == "percent" else text


def signed(value: float | None, unit: str) -> str:
    """A difference, with its sign; of percents, in points."""
    return NOTHING if value is None else f"{round(value, DIGITS[unit]) + 0.0:+,.{DIGITS[unit]}f}"  # never -0.00


def plain(value: Any) -> str:
    """A setting or a score."""
    if value is None:
        return NOTHING
    if value == []:
        return "none"
    if isinstance(value, bool):
        return shown(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def wrap(text: str, indent: int = 0) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def table(header: list[str], lines: list[list[str]], right: int = 0) -> str:
    """A Markdown table that lines up in a terminal too; its last `right` columns are aligned to the right."""
    align = ["left"] * (len(header) - right) + ["right"] * right
    text = tabulate.tabulate(lines, header, tablefmt="pipe", colalign=align if lines else None, disable_numparse=True)
    return text.replace("|:", "|-")
