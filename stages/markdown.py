"""The comparison with the paper as Markdown that reads well in a terminal and on GitHub.

Everything here is a pure function of the content of metrics/comparison.json.
"""

from collections import Counter
from typing import Any

Json = dict[str, Any]

NOTHING = "-"
RATE = ", test accuracy"
DIGITS = {"percent": 2, "nats": 3, "rate": 3, "weights": 0, "images": 0}  # of ours, after the point

ONE_RUN = """\
± is half the 95 % interval that a set of so many images leaves (binomial; about 0.77 points at 80.75 % of 10,000
images). The luck of a seed comes on top: **one run cannot judge half a point**, so a number of 1 run says no more than
that; of several runs it is the mean, with their standard deviation (sd). ↳ is a number of ours that is not measured as
the paper's was, or not run so, and has no difference."""
READINGS = """\
The text prints a batch size and a dropout rate for each of these rows, and the notebook has no trace of them. A reading
is what our runs have otherwise than Table 1's; its distance is the mean absolute difference over the rows that were
run. Runs of fewer epochs sort the readings out, and answer nothing. "epoch 49 of 50" is the one whose weights are
kept."""
CURVES = """\
Absolute differences, epoch by epoch. A validation curve jumps from one epoch to the next, in the paper and here, so
that two runs of one configuration lie apart as well."""
SETTINGS = """\
Where text and notebook disagree, the printed numbers come from what the notebook ran. "some": the text says that there
is one, and not which."""


def render(comparison: Json) -> str:
    """metrics/comparison.md; of synthetic results it shows the scores alone."""
    models = comparison["models"]
    sections = ["# The paper's numbers beside ours", *warnings(models)]
    if compared := [f"{model['title']} (seed {model['seed']})" for model in models if not model["warning"]]:
        sections += [
            f"On CIFAR-10: {', '.join(compared)}, and the runs of metrics/runs.csv. "
            "Where each fact is from: data/paper/numbers.yaml.",
            "## The numbers that the paper prints as results",
            answered(comparison["results"]),
            results_table(comparison),
            ONE_RUN,
            *grids(comparison["grids"]),
            *not_run(comparison["not_run"]),
            "## Further numbers",
            numbers_table(comparison["details"]),
            "## The paper's curves, epoch by epoch",
            CURVES,
            curves_table(comparison["curves"]),
            "## Numbers for each class",
            *(lists_table(comparison["lists"], unit) for unit in ("rate", "images")),
            "## The settings that the paper prints",
            f"{SETTINGS} Not parameters: {comparison['fixed']}.",
            settings_table(comparison["settings"], {model["model"]: model["title"] for model in models}),
            "## What no number here answers",
            open_ends(comparison),
        ]
    sections += ["## Our scores", scores_table(models)]
    return "\n\n".join(sections) + "\n"


def warnings(models: list[Json]) -> list[str]:
    """What has to be read first: which models' numbers are of the stand-in."""
    if all(model["warning"] for model in models):
        return [f"**{models[0]['warning']}: nothing here is compared with the paper**"]
    return [
        f"**{model['title']}: {model['warning']}: nothing of it is compared with the paper**"
        for model in models
        if model["warning"]
    ]


def answered(rows: list[Json]) -> str:
    """How many of the results are answered, and what is with the others."""
    counts = Counter(row["status"] for row in rows)
    return f"Of {len(rows)} numbers: {', '.join(f'{status} {count}' for status, count in counts.items())}."


def results_table(comparison: Json) -> str:
    """The paper's results beside ours; README.md holds the same table."""
    return numbers_table(comparison["results"])


def numbers_table(rows: list[Json]) -> str:
    """One number a line: the paper's, ours, the difference, and what the paper's number really is."""
    lines = []
    for row in rows:
        remarks = [row["really"]]
        if row["ours_is"] and row["runs"]:
            remarks.append(f"ours: {row['ours_is']}")
        lines.append(
            [
                row["where"],
                row["what"],
                printed(row["paper"], row["unit"]),
                measured(row["ours"], row["unit"], row["uncertainty"]),
                signed(row["difference"], row["unit"]),
                runs_behind(row, row["unit"]),
                "; ".join(remarks + reasons(row)),
            ]
        )
        for other in row["beside"]:
            number = measured(other["ours"], row["unit"], other["uncertainty"])
            lines.append(["", f"↳ {other['what']}", "", number, "", runs_behind(other, row["unit"]), ""])
    return table(["where", "what", "paper", "ours", "difference", "runs", "what the paper's number really is"], lines)


def runs_behind(number: Json, unit: str) -> str:
    """How many runs of ours are behind a number, and how far apart they lie."""
    spread = "" if number["spread"] is None else f" (sd {number['spread']:.{DIGITS[unit]}f})"
    return f"{number['runs']}{spread}" if number["runs"] else NOTHING


def grids(found: list[Json]) -> list[str]:
    """For each grid, which of its readings comes nearest, and every reading's numbers."""
    sections = []
    for grid in found:
        sections += [f"## {grid['where']}: which reading?", READINGS, finding(grid), readings_table(grid)]
    return sections


def not_run(names: list[str]) -> list[str]:
    """The gaps: what is meant to run and has not."""
    return [f"In experiments.yaml and not run yet: {', '.join(names)}."] if names else []


def finding(grid: Json) -> str:
    """Which reading comes nearest, how near, and whether any reaches the paper's highest accuracy."""
    nearest = next((reading for reading in grid["readings"] if reading["reading"] == grid["nearest"]), None)
    highest = grid["highest"]
    if nearest is None or highest is None:
        return "No run of it in full yet."
    rates = [row for row in grid["rows"] if row["unit"] == "percent"]
    missing = [row["what"].removesuffix(RATE) for row in rates if nearest["numbers"][row["id"]] is None]
    text = (
        f"**Of the readings in full with the most cells ({nearest['cells']} of {len(rates)}), the nearest is "
        f"{nearest['reading']}**: {nearest['distance']['percent']:.2f} points and {nearest['distance']['nats']:.3f} "
        "nats from the paper."
    )
    if missing:
        text += f" It has no run yet of {'; '.join(missing)}."
    verdict = "which reaches" if highest["ours"] >= grid["highest_of_paper"] else "and none reaches"
    return (
        f"{text} The highest test accuracy of all runs is {highest['ours']:.2f} % ({highest['reading']}), "
        f"{verdict} the paper's {grid['highest_of_paper']:g} %."
    )


def readings_table(grid: Json) -> str:
    """A reading a line, nearest first: ours and the difference for each accuracy, and the distances."""
    rates = [row for row in grid["rows"] if row["unit"] == "percent"]
    losses = [row for row in grid["rows"] if row["unit"] == "nats"]
    lines = []
    for reading in grid["readings"]:
        cells = []
        for rate, loss in zip(rates, losses, strict=True):
            found = [(row, reading["numbers"][row["id"]]) for row in (rate, loss)]
            texts = [
                f"{measured(number['ours'], row['unit'])} ({signed(number['difference'], row['unit']).split()[0]})"
                for row, number in found
                if number
            ]
            texts += [f"epoch {kept}" for kept in reading["kept"].get(rate["cell"], [])]
            cells.append("<br>".join(texts) or NOTHING)
        runs = sum(number["runs"] for row in rates if (number := reading["numbers"][row["id"]]))
        distance = f"{reading['distance']['percent']:.2f} points, {reading['distance']['nats']:.3f}"
        lines.append([reading["reading"], "yes" if reading["in_full"] else "no", str(runs), distance, *cells])
    names = [row["what"].removesuffix(RATE) for row in rates]
    return table(["reading", "in full", "runs", "distance", *names], lines)


def curves_table(rows: list[Json]) -> str:
    """Mean and largest absolute difference of each column of each figure."""
    lines = []
    for row in rows:
        lines += [[row["where"], reason, "", "", "", ""] for reason in reasons(row)]
        for column in row["columns"]:
            epochs = f"{column['epochs']} of {column['paper_epochs']}"
            gaps = [NOTHING if column[name] is None else f"{column[name]:.4f}" for name in ("mean", "largest")]
            lines.append([row["where"], column["column"], epochs, *gaps, plain(column["at"])])
    return table(["where", "curve", "epochs compared", "mean difference", "largest", "in epoch"], lines)


def lists_table(rows: list[Json], unit: str) -> str:
    """The lists of one unit, a class a line, each as the paper's and ours."""
    rows = [row for row in rows if row["unit"] == unit]
    full = [row for row in rows if row["runs"]]
    if not full:
        return "\n".join(f"- {row['what']}: {'; '.join(reasons(row))}" for row in rows)
    header = ["class", *(f"{row['what']}: {whose}" for row in full for whose in ("paper", "ours"))]
    lines = [
        [
            name,
            *(
                text
                for row in full
                for text in (
                    printed(row["paper"][index], unit),
                    measured(row["ours"][index], unit),
                )
            ),
        ]
        for index, name in enumerate(full[0]["classes"])
    ]
    means = [sum(map(abs, row["difference"])) / len(row["difference"]) for row in full]
    lines.append(["mean absolute difference", *(text for mean in means for text in ("", f"{mean:.3g}"))])
    return table(header, lines)


def settings_table(rows: list[Json], titles: dict[str, str]) -> str:
    """What the text says, what the notebook ran, what ran here; nothing of the stand-in."""
    lines = [
        [
            row["where"],
            titles.get(row["model"], "CIFAR-10"),
            row["what"],
            plain(row["text"]),
            plain(row["notebook"]),
            plain(row["ran"]),
            row["status"] if row["status"] == "same" else f"**{row['status']}**",
        ]
        for row in rows
        if row["status"] != "not compared"
    ]
    return table(["where", "of", "what", "the text", "the notebook", "ran here", "so it is"], lines)


def open_ends(comparison: Json) -> str:
    """The results that no run of one configuration can answer, and the numbers that are not ours to compare."""
    waiting: dict[str, list[str]] = {}
    for row in comparison["results"]:
        if row["status"] == "waits":
            waiting.setdefault("; ".join([*row["reasons"], row["really"]]), []).append(row["id"])
    lines = [f"- {', '.join(ids)}: {reason}." for reason, ids in waiting.items()]
    lines += [f"- {row['id']}: {row['what']}, {row['printed']}: {row['why']}." for row in comparison["not_compared"]]
    return "\n".join(lines)


def scores_table(models: list[Json]) -> str:
    """Every score of every model, compared or not: `test` is the clean test set for all of them, like for like."""
    scores = [model["scores"] | {"source": model["warning"] or "CIFAR-10"} for model in models]
    names = dict.fromkeys(name for score in scores for name in score)
    return table(
        ["", *(model["title"] for model in models)],
        [[name, *(plain(score.get(name)) for score in scores)] for name in names],
    )


def reasons(row: Json) -> list[str]:
    """Why a row is not answered, as one sentence; nothing where it is."""
    return [f"**{row['status']}**: {', and '.join(row['reasons'])}"] if row["reasons"] else []


def printed(value: float, unit: str) -> str:
    """A number of the paper, with the digits that the paper prints."""
    if unit == "percent":
        return f"{value:g} %"
    return {"nats": f"{value:.3f}", "rate": f"{value:.2f}"}.get(unit, f"{value:,}")


def measured(value: float | None, unit: str, uncertainty: float | None = None) -> str:
    """A number of ours."""
    if value is None:
        return NOTHING
    text = f"{value:,.{DIGITS[unit]}f}"
    if uncertainty is not None:
        text += f" ± {uncertainty:.{DIGITS[unit]}f}"
    return f"{text} %" if unit == "percent" else text


def signed(value: float | None, unit: str) -> str:
    """A difference, with its sign."""
    if value is None:
        return NOTHING
    text = f"{round(value, DIGITS[unit]) + 0.0:+,.{DIGITS[unit]}f}"  # + 0.0: and never -0.00
    return f"{text} points" if unit == "percent" else text


def plain(value: Any) -> str:
    """A setting or a score."""
    if value is None:
        return NOTHING
    return f"{value:,}" if isinstance(value, int) else str(value)


def table(header: list[str], lines: list[list[str]]) -> str:
    """A Markdown table, all but its last column padded, so that it lines up in a terminal too."""
    rows = [header, *lines]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header) - 1)] + [0]
    padded = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    rule = "|" + "|".join("-" * (max(width, 1) + 2) for width in widths) + "|"
    return "\n".join([padded[0], rule, *padded[1:]])
