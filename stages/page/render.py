"""The report as HTML: the template has the prose, and the functions here turn numbers into its texts and tables."""

import re
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from matplotlib.image import imsave

from stages.common.files import Json
from stages.paper.claims import CANNOT_TELL
from stages.paper.markdown import (
    DIGITS,
    finding,
    measured,
    part_figures,
    plain,
    printed,
    signed,
    templates,
    under_others,
    what_would_tell,
)
from stages.paper.rows import shown
from stages.paper.statistics import FEWEST

SECTIONS = {
    "reproduced": "What was reproduced",
    "tables": "The paper's numbers and ours",
    "claims": "What the paper claims",
    "curves": "Curves over the paper's",
    "grid": "The grid over both axes",
    "interpretations": "Which interpretation",
    "cost": "Accuracy against cost",
    "mistakes": "What is taken for what",
    "calibration": "How sure, and how often right",
    "samples": "Sample predictions",
    "measured": "How each number was measured",
    "open": "What the paper leaves open",
    "again": "Versions, machines, and how to make it again",
}
HERE = Path(__file__).parent
PLURAL = {"lies": "lie", "stands": "stand", "is": "are"}


def render(content: Json) -> str:
    """The page; `content` has what report.html.jinja names."""
    environment = templates(HERE, html=True)
    filters = (measured, part_figures, part_verdict, place, printed, share, signed, spread_of_runs)
    environment.filters |= {function.__name__: function for function in filters}
    css = Markup((HERE / "style.css").read_text(encoding="utf-8"))  # noqa: S704  a file of ours
    page = environment.get_template("report.html.jinja").render(content, css=css, sections=sections(content))
    return page.lstrip()


def sections(content: Json) -> dict[str, str]:
    """The titles of the sections that have something to show, by their names."""
    tables = " and ".join(grid["where"] for grid in content["grids"])
    filled = {
        "claims": content["claims"] or content["warning"],
        "curves": any(model["curves"] for model in content["models"]),
        "grid": tables or content["warning"],
        "interpretations": tables or content["warning"],
        "cost": content["cost_charts"],
    }
    of_tables = {"grid": f"{tables} over both axes", "interpretations": f"Which interpretation of {tables}"}
    return {id: title for id, title in (SECTIONS | of_tables if tables else SECTIONS).items() if filled.get(id, True)}


def summary(comparison: Json) -> str:
    """What was reproduced, in one sentence."""
    results, found = comparison["results"], comparison["claims"]
    places = Counter(place(row) for row in results)
    interval = "the 95 % prediction interval of one more run of ours"
    words = {
        "inside": ("lies", f"inside {interval}"),
        "outside": ("lies", "outside it" if places["inside"] else f"outside {interval}"),
        "one run": ("stands", "beside a single run of ours (too few for an interval)"),
        "two runs": ("stands", "beside two runs of ours (too few for an interval)"),
        "no run": ("is", "not answered by any run of ours yet"),
    }
    said = [
        f"{places[name]} {verb if places[name] == 1 else PLURAL[verb]} {what}"
        for name, (verb, what) in words.items()
        if places[name]
    ]
    said = said if len(said) > 1 else [f"all {said[0]}"]
    largest = {
        where: max(abs(row["difference"]) for row in rows)
        for where, rows in by_place([row for row in results if row["unit"] == "percent"]).items()
        if all(row["difference"] is not None for row in rows)
    }
    clauses = [f"Of the {len(results)} results that the paper prints, {joined(said)}"]
    for grid in (grid for grid in comparison["grids"] if grid["nearest"]):
        full = [found for found in grid["interpretations"] if found["in_full"]]
        whole = {one["name"]: one["distance"]["percent"] for one in full if one["cells"] == full[0]["cells"]}
        base = f"; {grid['base_is']}: {whole[grid['base_is']]:.2f}" if grid["base_is"] in whole else ""
        clauses.append(
            f"{grid['where']} is compared under the interpretation {grid['nearest']}, the nearest of {len(whole)} "
            f"in test accuracy ({whole[grid['nearest']]:.2f} points on average{base})"
        )
    if distances := [f"{points:.2f} points ({where})" for where, points in largest.items()]:
        clauses.append(f"the largest difference of an accuracy is {joined(distances)}")
    rates = [row["interval"] for row in results if row["unit"] == "percent" and row.get("interval")]
    if rates:
        widest = max(high - low for low, high in rates) / 2
        clauses.append(f"the widest interval of an accuracy is ±{widest:.2f} points")
    if verdicts := Counter(claim["verdict"] for claim in found):
        why = Counter(undecided(claim) for claim in found if claim["verdict"] == CANNOT_TELL)
        reasons = ", ".join(f"{count} {reason}" for reason, count in why.items())
        counts = [
            f"{count} {verdict}" + (f" ({reasons})" if verdict == CANNOT_TELL else "")
            for verdict, count in verdicts.items()
        ]
        clauses.append(f"and the verdicts on its {len(found)} claims are: {joined(counts)}")
    return "; ".join(clauses) + "."


def undecided(claim: Json) -> str:
    """Why there is no verdict on a claim."""
    parts = [part for part in claim["parts"] if part["counts"] and part["says"] == CANNOT_TELL]
    if any(part["mean"] is None and not part["missed"] for part in parts):
        return "not measured yet"
    return f"with fewer than {FEWEST} seeds" if any(part["seeds_of_each"] < FEWEST for part in parts) else "undecided"


def by_place(rows: Sequence[Json]) -> dict[str, list[Json]]:
    """The rows of each table of the paper."""
    return {
        where: [row for row in rows if row["where"] == where] for where in dict.fromkeys(row["where"] for row in rows)
    }


def scores(models: Sequence[Json]) -> list[list[str]]:
    """Every score of every model."""
    names = dict.fromkeys(name for model in models for name in model["scores"])
    return [[name, *(plain(model["scores"].get(name)) for model in models)] for name in names]


def finding_of(grid: Json) -> Markup:
    """The finding of metrics/comparison.md as HTML."""
    text = str(escape(finding(grid)))
    for mark, tag in ((r"\*\*", "strong"), ("`", "code")):
        text = re.sub(rf"{mark}(.+?){mark}", rf"<{tag}>\1</{tag}>", text, flags=re.DOTALL)
    return Markup(text)  # noqa: S704  escaped above


def legend_lines(grid: Json) -> list[list[str]]:
    """What each interpretation changes, and its distance from the paper."""
    changes = {
        name: ", ".join(f"{key.rpartition('.')[2]}={shown(value)}" for key, value in changed.items()) or "nothing"
        for name, changed in grid["legend"].items()
    }
    return [
        [found["name"], changes[found["name"].partition(" (")[0]], f"{found['distance']['percent']:.2f}"]
        for found in grid["interpretations"]
    ]


def curves_text(seeds: Sequence[int], paper_validation: str, remark: str) -> str:
    """What the curves of a model show; `paper_validation` says what the paper's is, "" where it is not drawn."""
    sentences = [f"Ours, seed{'' if len(seeds) == 1 else 's'} {', '.join(map(str, seeds))}"]
    if paper_validation:
        sentences[0] += f", over the paper's training and {paper_validation}"
    if len(seeds) > 1:
        sentences.append("The lines are the mean, and the bands the range, of the runs that reached the epoch")
    return ". ".join(filter(None, [*sentences, remark])) + "."


def place(row: Json) -> str:
    """Where the paper's number lies: inside or outside our interval, which one or two runs do not have."""
    if row["ours"] is None:
        return "no run"
    if row.get("interval") is None:
        return "one run" if row["runs"] == 1 else "two runs"
    return "inside" if row["inside"] else "outside"


def spread_of_runs(row: Json) -> str:
    """The prediction interval and the number of runs behind a number of ours."""
    runs = f"n = {row['runs']}"
    if row.get("interval") is None:
        return runs
    low, high = (f"{end:.{DIGITS[row['unit']]}f}" for end in row["interval"])
    return f"{low} to {high}, {runs}"


def part_verdict(part: Json) -> str:
    """What a part says, by which rule, and how many runs would decide it."""
    aside = "" if part["counts"] else "; shown only, does not count"
    rule = f"{part['says']} (supported if the interval is {part['rule']})"
    return f"{rule}{what_would_tell(part)}{aside}{under_others(part)}"


def rule(supports: str, margin: float) -> str:
    """Where the whole interval has to lie."""
    return {
        "above": f"above {margin:g}",
        "below": f"below {-margin:g}" if margin else "below 0",
        "within": f"within ±{margin:g}",
        "outside": f"outside ±{margin:g}",
        "not_below": f"above {-margin:g}",
    }[supports]


def measurements(rows: Sequence[Json]) -> list[Json]:
    """What the paper's numbers are and what ours are, those of one kind together."""
    kinds: dict[tuple[str, str], list[Json]] = {}
    for row in rows:
        kinds.setdefault((row["where"], row["really"]), []).append(row)
    return [
        {
            "numbers": [f"{row['what']}: {printed(row['paper'], row)}" for row in alike],
            "where": where,
            "really": really,
            "ours": list(dict.fromkeys(f"{row['ours_is']}, {address_of(row)}".removeprefix(", ") for row in alike)),
            "also": [f"{also['what']}: {measured(also['ours'], row['unit'])}" for row in alike for also in row["also"]],
        }
        for (where, really), alike in kinds.items()
    ]


def address_of(row: Json) -> str:
    """Where a number of ours stands: in one file, or as the mean of several runs."""
    if row["runs"] < 2:
        return str(row["address"])
    seeds = ", ".join(map(str, sorted(set(row["seeds"]))))
    under = f" under {row['interpretation']}" if row["interpretation"] else ""
    return f"the mean of {row['runs']} runs{under} (seeds {seeds}) of {row['address']}"


def settings(rows: Sequence[Json], titles: Json, data: str) -> list[list[str]]:
    """The settings that text, notebook and we do not have alike."""
    return [
        [f"{titles.get(row['model'], data)}, {row['what']} ({row['where']})"]
        + [plain(row[whose]) for whose in ("text", "notebook", "ran")]
        for row in rows
        if row["status"] not in ("same", "not compared")
    ]


def open_ends(comparison: Json) -> list[str]:
    """The results that no run answers yet, and the numbers that are not ours to compare."""
    lines = [
        f"{row['where']}, {row['what']}: {', and '.join(row['reasons'])}"
        for row in comparison["results"]
        if row["reasons"]
    ]
    return lines + [f"{row['what']}, {row['printed']}: {row['why']}" for row in comparison["not_compared"]]


def picture(image: np.ndarray) -> str:
    """A PNG as the address of itself; not compressed, so that every version of zlib gives the same bytes."""
    file = BytesIO()
    metadata: dict[str, Any] = {"Software": None}
    imsave(file, image, format="png", metadata=metadata, pil_kwargs={"compress_level": 0})
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"


def share(number: int, total: int) -> str:
    """The square root of a share: it sets apart the mistakes, most of them below a tenth of their row."""
    return f"{(number / max(total, 1)) ** 0.5:.2f}"


def percent(share: float, decimals: int = 2) -> str:
    return f"{100 * share:.{decimals}f} %"


def joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
