"""metrics/comparison.md and the README's table."""

import re
from pathlib import Path

import pytest

from stages.common import paths
from stages.common.files import read_json
from stages.experiments.table import write_runs
from stages.paper.markdown import estimate, headline_table, kept, legend, plain, printed, render, table
from tests.support.made_up_results import collected, comparison_text


def test_the_text_says_what_one_run_cannot_judge() -> None:
    text = " ".join(comparison_text().split())
    assert "It does matter for other images: ±0.77 points (binomial, 80." in text
    assert "Of 14 numbers: answered 8, waits 6." in text


@pytest.mark.parametrize("runs", [0, 2])
def test_tables_are_whole_and_no_line_is_long(runs: int) -> None:
    write_runs([collected(64, 0.3, 0.8, seed) for seed in range(8, 8 + runs)])
    text = comparison_text()
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == 11 + (runs > 0)
    for lines in (block.splitlines() for block in tables):
        assert len({line.count("|") for line in lines}) == 1
        assert re.fullmatch(r"\|(-+:?\|)+", lines[1])
    assert [line for line in text.splitlines() if len(line) > 100] == []


def test_a_table_lines_up() -> None:
    assert table(["a", "b"], [["long", "10.5"], ["c", "1"]], right=1).splitlines() == [
        "| a    |    b |",
        "|------|-----:|",
        "| long | 10.5 |",
        "| c    |    1 |",
    ]


def test_the_readme_has_six_rows_and_three_footnotes() -> None:
    write_runs([collected(64, 0.4, 0.8154)])
    comparison_text()
    lines = headline_table(read_json(paths.comparison("json"))).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert cells[0] == ["Number", "Paper", "Ours", "Difference", "Interval (runs)"]
    assert [row[0] for row in cells[2:]] == [
        "Table 1: Keras CNN, test accuracy",
        "Table 1: Keras CNN, test loss",
        "Table 1: ResNet-18, test accuracy [1]",
        'Table 1: ResNet-18, "test loss" [2]',
        "Table 2: Keras CNN, batch 64, dropout 0.4 [3]",
        "Conclusion: Keras CNN, validation accuracy",
    ]
    assert cells[6][1:] == ["85.8 %", "81.54 %", "-4.26", "one run"]
    assert max(map(len, lines)) <= 100


def test_other_test_images_are_said() -> None:
    text = comparison_text()
    assert "The paper and we score the same test images" in " ".join(text.split())
    numbers = Path("data/paper/numbers.yaml")
    numbers.write_text(numbers.read_text().replace("paper:\n", "paper:\n  same_test_images: false\n", 1))
    text = " ".join(comparison_text().split())
    assert "The paper's test images are not known to be ours" in text
    assert "score the same test images" not in text


def test_the_legend_has_values_as_params_yaml_writes_them() -> None:
    assert legend({"legend": {"wide": {"a": 1024, "b": True}}}) == "- `wide`: a=1024, b=true"
    assert (plain(True), plain(1024)) == ("true", "1,024")


@pytest.mark.parametrize(
    ("value", "row", "text"),
    [
        (80.0, {"unit": "percent"}, "80 %"),
        (80.0, {"unit": "percent", "decimals": 2}, "80.00 %"),
        (0.5, {"unit": "nats"}, "0.500"),
        (0.5, {"unit": "nats", "decimals": 1}, "0.5"),
        (358218, {"unit": "weights"}, "358,218"),
    ],
)
def test_a_number_has_the_digits_that_the_paper_prints(value: float, row: dict[str, object], text: str) -> None:
    assert printed(value, row) == text


def test_of_several_runs_the_range_of_the_kept_epochs_is_shown() -> None:
    assert [kept([]), kept([[49, 50]]), kept([[49, 50], [31, 41]])] == ["-", "49 of 50", "31 to 49 of 41 to 50"]


def test_the_text_follows_from_the_json_alone() -> None:
    before = comparison_text()
    content = read_json(paths.comparison("json"))
    paths.scores("keras_cnn").unlink()
    assert render(content) == before


@pytest.mark.parametrize(
    ("unit", "decimals", "ends", "text"),
    [
        ("", 1, (-0.5, -6.87, 5.83), "-0.5, from -6.9 to +5.8 (2 pairs)"),
        ("points", 2, (0.01, -0.02, 0.04), "+1.00 points, from -2.00 to +4.00 (2 pairs)"),
        ("", 4, (-0.98, -1.12, -0.84), "-0.9800, from -1.1200 to -0.8400"),
    ],
)
def test_accuracies_are_in_points(unit: str, decimals: int, ends: tuple[float, ...], text: str) -> None:
    part = dict(zip(("mean", "low", "high"), ends, strict=True)) | {"runs": 2, "paired": True, "counts": True}
    part |= {"seeds": 2, "cells": 1, "seeds_of_each": 2, "missed": 0, "unit": unit, "decimals": decimals}
    assert estimate(part | {"other_images": None, "others": [], "runs_needed": None}).startswith(text)
