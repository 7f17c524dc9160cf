"""Claims are judged by intervals alone, and claims.yaml says what the paper says."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure

from stages.common import paths
from stages.common.errors import ExpectedError
from stages.common.files import read_arrays, read_json, read_rows
from stages.experiments.predictions import in_short, to_bytes
from stages.experiments.table import write_runs
from stages.figures.panels import draw_estimate
from stages.paper.claims import (
    CANNOT_TELL,
    CLAIMS,
    NOT_SUPPORTED,
    SUPPORTED,
    Claim,
    Evidence,
    Region,
    TestSet,
    Value,
    judge,
    lies_in,
    load_claims,
    steps_of,
)
from stages.paper.markdown import estimate
from stages.paper.numbers import load_numbers
from stages.paper.ours import Run
from tests.support.made_up_results import collected, compared, write_results
from tests.support.stage_runs import ROOT


def run(accuracy: float = 0.8, seed: int = 1, curve: dict[int, float] | None = None, **scores: float) -> Evidence:
    return Evidence({"seed": seed}, {"test.accuracy": accuracy, **scores}, curve or {})


def seeds(*accuracies: float) -> list[Evidence]:
    return [run(accuracy, seed) for seed, accuracy in enumerate(accuracies)]


def claim(needs: str = "all", **part: Any) -> Claim:
    given = {"what": "x", "value": {"score": "test.accuracy"}, "of": "a", "less": "b", "supports": "above"} | part
    return Claim(id="c", where="here", says="x", needs=needs, parts=[given])


def verdict(a: list[float], b: list[float], **part: Any) -> str:
    runs = {"a": seeds(*a), "b": seeds(*b)}
    return judge(claim(**part), runs.__getitem__, NO_TEST_SET)["verdict"]


NO_TEST_SET = TestSet(load_numbers(ROOT / "data/paper/numbers.yaml"))  # reads nothing until predictions are kept
HIGH, LOW = [0.810, 0.812, 0.811], [0.800, 0.801, 0.802]


def test_a_claim_is_supported_only_where_the_whole_interval_lies_on_its_side() -> None:
    both = {"contradicts": "below"}
    assert verdict(HIGH, LOW, **both) == SUPPORTED
    assert verdict(LOW, HIGH, **both) == NOT_SUPPORTED
    assert verdict(HIGH, [0.80, 0.82, 0.81], **both) == CANNOT_TELL
    assert verdict(LOW, HIGH) == CANNOT_TELL  # nothing contradicts it by its rule


def test_fewer_than_three_runs_tell_nothing() -> None:
    assert verdict(HIGH[:2], LOW[:2], contradicts="below") == CANNOT_TELL
    assert verdict([0.82, 0.83], [0.72, 0.73], paired_by=["seed"]) == CANNOT_TELL
    assert verdict(HIGH[:1], LOW, contradicts="below") == CANNOT_TELL
    assert verdict([], LOW, contradicts="below") == CANNOT_TELL


def test_pairs_share_what_the_rule_names() -> None:
    """Apart by a seed's luck of ten points, and by one point within each pair."""
    a, b = [0.70, 0.80, 0.90], [0.69, 0.789, 0.891]
    assert verdict(a, b) == CANNOT_TELL
    assert verdict(a, b, paired_by=["seed"]) == SUPPORTED


def test_a_margin_says_what_is_not_much() -> None:
    part = {"supports": "within", "contradicts": "outside", "margin": 0.01}
    assert verdict(LOW, [0.801, 0.802, 0.803], **part) == SUPPORTED
    assert verdict([0.9, 0.901, 0.902], LOW, **part) == NOT_SUPPORTED
    assert verdict([0.80, 0.82, 0.81], LOW, **part) == CANNOT_TELL


REGIONS: dict[Region, Callable[[float, float], bool]] = {  # whether a point lies in it, with that margin
    "above": lambda point, margin: point > margin,
    "below": lambda point, margin: point < -margin,
    "within": lambda point, margin: abs(point) < margin,
    "not_below": lambda point, margin: point > -margin,
}


@pytest.mark.parametrize("region", [*REGIONS, "outside"])
def test_an_interval_lies_in_a_region_where_all_of_it_does(region: Region) -> None:
    """All intervals with ends in steps of 0.01, for margins of 0 and 0.02. Outside is above or below."""
    steps = [number / 100 for number in range(-4, 5)]
    for margin in (0.0, 0.02):
        for low in steps:
            for high in (step for step in steps if step >= low):
                points = [step for step in steps if low <= step <= high]
                wanted = [REGIONS[name] for name in (["above", "below"] if region == "outside" else [region])]
                inside = any(all(lies(point, margin) for point in points) for lies in wanted)
                assert lies_in(region, margin, low, high) is inside, (region, margin, low, high)


@pytest.mark.parametrize("region", [*REGIONS, "outside"])
def test_the_shaded_region_is_that_of_the_rule(region: Region) -> None:
    axes = Figure().subplots()
    part = {"low": -0.03, "high": 0.03, "mean": 0.0, "says": CANNOT_TELL}
    draw_estimate(axes, part, region, 0.01)
    spans = [[patch.get_x(), patch.get_x() + patch.get_width()] for patch in axes.patches]
    for point in (-0.025, -0.005, 0.005, 0.025):
        assert any(low < point < high for low, high in spans) is lies_in(region, 0.01, point, point), point


@pytest.mark.parametrize(("margin", "told"), [(0.0, True), (0.01, False)])
def test_the_runs_that_would_tell_are_not_known_for_a_margin(margin: float, told: bool) -> None:
    runs = {"a": seeds(0.80, 0.82, 0.81), "b": seeds(*LOW)}
    (part,) = judge(claim(margin=margin), runs.__getitem__, NO_TEST_SET)["parts"]
    assert part["says"] == CANNOT_TELL
    assert (part["runs_needed"] is not None) is told


def part_of(a: list[Evidence], b: list[Evidence], **part: Any) -> dict[str, Any]:
    (judged,) = judge(claim(**part), {"a": a, "b": b}.__getitem__, NO_TEST_SET)["parts"]
    return judged


def test_more_runs_would_not_tell_where_the_mean_is_on_the_side_that_decides_nothing() -> None:
    wrong = part_of(seeds(0.79, 0.81, 0.80), seeds(0.805, 0.80, 0.81))
    assert (wrong["says"], wrong["runs_needed"]) == (CANNOT_TELL, None)
    right = part_of(seeds(0.805, 0.80, 0.81), seeds(0.79, 0.81, 0.80))
    assert right["runs_needed"] > 3
    assert f"about {right['runs_needed']} runs would decide for it" in estimate(right | {"others": []})
    wrong = part_of(seeds(0.79, 0.81, 0.80), seeds(0.805, 0.80, 0.81), contradicts="below")
    assert wrong["runs_needed"] > 3
    assert "would decide against it" in estimate(wrong | {"others": []})


def test_pairs_of_two_seeds_give_no_verdict_however_many_they_are() -> None:
    def runs(*accuracies: float) -> list[Evidence]:
        cells = [(seed, size) for seed in (1, 2) for size in (64, 128)]
        return [
            Evidence({"seed": seed, "batch_size": size}, {"test.accuracy": accuracy})
            for (seed, size), accuracy in zip(cells, accuracies, strict=True)
        ]

    part = part_of(runs(0.86, 0.85, 0.86, 0.85), runs(0.84, 0.83, 0.841, 0.831), paired_by=["seed", "batch_size"])
    assert part["low"] > 0
    assert (part["runs"], part["seeds"], part["says"], part["runs_needed"]) == (4, 2, CANNOT_TELL, 6)
    assert "(4 pairs of 2 seeds); a verdict needs 3 seeds" in estimate(part)
    cells = [one[:2] for one in (runs(0.86, 0.85, 0, 0), runs(0.84, 0.835, 0, 0))]
    part = part_of(*cells, paired_by=["seed", "batch_size"])
    assert (part["runs"], part["seeds"]) == (2, 1)
    assert part["runs_needed"] >= 6  # three seeds of both batch sizes


def test_a_run_that_never_gets_to_the_goal_leaves_no_verdict() -> None:
    """The slowest run is not left out as if it did not exist."""

    def runs(*epochs: int | None) -> list[Evidence]:
        return [
            run(seed=seed, curve={epoch: 0.8 if epoch == reached else 0.5 for epoch in range(1, 9)})
            for seed, reached in enumerate(epochs)
        ]

    goal = {"value": {"epochs_to": 0.75}, "supports": "below", "paired_by": ["seed"]}
    assert part_of(runs(2, 3, 2, 3), runs(6, 7, 6, 8), **goal)["says"] == SUPPORTED
    part = part_of(runs(2, 3, 2, None), runs(6, 7, 6, 8), **goal)
    assert (part["runs"], part["missed"], part["says"]) == (3, 1, CANNOT_TELL)
    assert "no verdict, because 1 run never reached it" in estimate(part)
    assert part_of(runs(2, 3, 2, None), runs(6, 7, 6), **goal)["says"] == SUPPORTED  # it has no partner
    part = part_of(runs(None), runs(6), **goal)
    assert estimate(part) == "no value; no verdict, because 1 run never reached it"
    assert estimate(part_of(runs(2, None), runs(6, 6), **goal)).endswith("because 1 run never reached it")


def test_seconds_are_compared_on_one_machine() -> None:
    def runs(*machines: str) -> list[Evidence]:
        return [
            replace(run(seed=seed, curve={1: 0.8}), seconds=10.0, machine=(machine, "cpu", 2))
            for seed, machine in enumerate(machines)
        ]

    part = {"value": {"seconds_to": 0.75}, "paired_by": ["seed"]}
    assert part_of(runs("one", "one", "other"), runs("one", "other", "other"), **part)["runs"] == 2
    assert part_of(runs("one"), runs("other"), **part)["mean"] is None


def test_runs_of_one_seed_on_two_devices_are_two_pairs() -> None:
    def runs(accuracy: float) -> list[Evidence]:
        return [
            replace(run(accuracy + more), parameters={"seed": 1, "resnet18.device": device})
            for device, more in (("cpu", 0.0), ("cuda", 0.1))
        ]

    found = part_of(runs(0.8), runs(0.7)[::-1], paired_by=["seed"])
    assert found["runs"] == 2
    assert found["mean"] == pytest.approx(0.1)
    assert found["low"] == pytest.approx(found["high"])  # each with its own device's


def test_a_rule_that_does_not_tell_runs_apart_is_refused() -> None:
    two = [Evidence({"seed": 1, "batch_size": size}, {"test.accuracy": 0.8}) for size in (64, 128)]
    with pytest.raises(
        ExpectedError, match="two runs of a have the same seed; name in paired_by what tells them apart"
    ):
        part_of(two, two, paired_by=["seed"])
    with pytest.raises(ExpectedError, match="paired_by names 'sed', which no run of a records"):
        part_of(two, two, paired_by=["sed"])


def test_a_claim_rests_on_a_part_that_counts() -> None:
    with pytest.raises(ValueError, match="needs a part that counts"):
        claim(counts=False)


def test_a_part_that_does_not_count_is_shown_alone() -> None:
    parts = [
        {"what": "x", "value": {"score": "test.accuracy"}, "of": "a", "less": "b", "supports": "above"},
        {"what": "y", "value": {"score": "test.accuracy"}, "of": "b", "less": "a", "supports": "above"}
        | {"contradicts": "below", "counts": False},
    ]
    runs = {"a": seeds(*HIGH), "b": seeds(*LOW)}
    judged = judge(Claim(id="c", where="here", says="x", parts=parts), runs.__getitem__, NO_TEST_SET)
    assert judged["verdict"] == SUPPORTED
    assert [part["says"] for part in judged["parts"]] == [SUPPORTED, NOT_SUPPORTED]


def test_any_part_can_carry_a_claim_that_needs_one() -> None:
    parts = [
        {"what": "x", "value": {"dip_at": at}, "of": "a", "supports": "below", "contradicts": "above"} for at in (2, 3)
    ]
    curves = [{1: 0.5, 2: 0.7, 3: 0.6 + step, 4: 0.8, 5: 0.8} for step in (0.0, 0.001, 0.002)]
    runs = [run(seed=seed, curve=curve) for seed, curve in enumerate(curves)]
    one = Claim(id="c", where="here", says="x", needs="any", parts=parts)
    assert judge(one, lambda _: runs, NO_TEST_SET)["verdict"] == SUPPORTED
    every = one.model_copy(update={"needs": "all"})
    assert judge(every, lambda _: runs, NO_TEST_SET)["verdict"] == NOT_SUPPORTED


@pytest.mark.parametrize(("needs", "expected"), [("any", CANNOT_TELL), ("all", NOT_SUPPORTED)])
def test_one_contradicted_part_is_enough_only_against_a_claim_that_needs_all(needs: Any, expected: str) -> None:
    parts = [
        {"what": "x", "value": {"dip_at": at}, "of": "a", "supports": "below", "contradicts": "above"} for at in (2, 4)
    ]
    curves = [{1: 0.5, 2: 0.7, 3: 0.6 + step, 4: 0.7 - 20 * step, 5: 0.7} for step in (0.0, 0.001, 0.008)]
    runs = [run(seed=seed, curve=curve) for seed, curve in enumerate(curves)]
    judged = judge(Claim(id="c", where="here", says="x", needs=needs, parts=parts), lambda _: runs, NO_TEST_SET)
    assert [part["says"] for part in judged["parts"]] == [NOT_SUPPORTED, CANNOT_TELL]
    assert judged["verdict"] == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"epochs_to": 0.75}, 3),
        ({"epochs_to": 0.9}, None),
        ({"steps_to": 0.75}, 3 * 625),
        ({"steps_to": 0.9}, None),
        ({"seconds_to": 0.75}, 60.0),
        ({"accuracy_after": 2}, 0.7),
        ({"dip_at": 2}, pytest.approx(0.7 - (0.5 + 0.76) / 2)),
        ({"dip_at": 3}, None),
        ({"gap": "loss"}, pytest.approx(0.2)),
        ({"score": "test.accuracy"}, 0.8),
        ({"score": "nothing"}, None),
    ],
)
def test_a_run_s_values(value: dict[str, Any], expected: Any) -> None:
    of_run = run(curve={1: 0.5, 2: 0.7, 3: 0.76}, **{"test.loss": 0.6, "train_clean.loss": 0.4})
    of_run = replace(of_run, steps=625, seconds=20.0)
    assert Value(**value).of(of_run) == expected


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        ({"score": "test.accuracy"}, "points"),
        ({"score": "test.f1_macro"}, ""),
        ({"score": "test.loss"}, ""),
        ({"gap": "accuracy"}, "points"),
        ({"gap": "loss"}, ""),
        ({"accuracy_after": 1}, "points"),
        ({"dip_at": 10}, "points"),
        ({"epochs_to": 0.75}, ""),
    ],
)
def test_accuracies_are_in_points(value: dict[str, Any], unit: str) -> None:
    assert Value(**value).unit == unit


@pytest.mark.parametrize(
    ("model", "parameters", "expected"),
    [
        ("keras_cnn", {"batch_size": 64, "split.validation_fraction": 0.2}, 625),
        ("keras_cnn", {"batch_size": 128, "split.validation_fraction": 0.2}, 313),  # the last batch is a smaller one
        ("keras_cnn", {"batch_size": 64, "split.validation_fraction": 0.00003}, 782),  # 2 images validate
        ("resnet18", {"resnet18.batch_size": 64, "resnet18.validation": "test", "split.validation_fraction": 0.2}, 782),
        (
            "resnet18",
            {"resnet18.batch_size": 64, "resnet18.validation": "held_out"} | {"split.validation_fraction": 0.2},
            625,
        ),
    ],
)
def test_the_steps_of_an_epoch(model: str, parameters: dict[str, Any], expected: int, workdir: Path) -> None:
    write_results()
    assert steps_of(Run("r", model, "cifar10", parameters, {})) == expected


def test_the_paper_s_claims_name_what_numbers_yaml_has() -> None:
    claims = load_claims(load_numbers(ROOT / "data/paper/numbers.yaml"), ROOT / "data/paper/claims.yaml")
    assert len(claims.claims) == 9


def test_a_wrong_name_is_said_in_one_line(tmp_path: Any) -> None:
    text = (ROOT / "data/paper/claims.yaml").read_text()
    numbers = load_numbers(ROOT / "data/paper/numbers.yaml")
    for old, new, message in (
        ("configuration: keras_cnn_table1}", "configuration: keras_cnn_table9}", "names 'keras_cnn_table9'"),
        (
            "configuration: keras_cnn_table1}",
            "configuration: keras_cnn_table2_64_0.3}",
            r"its table \(table2\) instead",
        ),
        ("of: resnet18\n", "of: resnet81\n", "group 'resnet81' is not among"),
        ("{dip_at: 9}", "{dip_at: 9, gap: loss}", "exactly one of"),
    ):
        path = tmp_path / "claims.yaml"
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(ExpectedError, match=message) as error:
            load_claims(numbers, path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "{keras_cnn.augmentation:",
            "{keras_cnn.augmentaton:",
            "keras_cnn_augmented: no run of keras_cnn has a parameter keras_cnn.augmentaton",
        ),
        (
            "{table: table2, but: {dropout:",
            "{table: table2, but: {droput:",
            "no run of keras_cnn has a parameter droput",
        ),
        ("{score: test.accuracy}", "{score: test.acuracy}", "keras_better: no run has test.acuracy"),
    ],
)
def test_a_name_that_no_run_has_is_said(workdir: Path, old: str, new: str, message: str) -> None:
    write_results()
    text = CLAIMS.read_text()
    assert old in text
    CLAIMS.write_text(text.replace(old, new, 1))
    with pytest.raises(ExpectedError, match=message):
        compared("claims")


def test_verdicts_rest_on_the_runs_in_metrics(workdir: Path) -> None:
    """One run of each model: a part that they speak of has a mean, and no interval."""
    write_results()
    claims = compared("claims")
    assert {claim["verdict"] for claim in claims.values()} == {CANNOT_TELL}
    own = {model: read_json(Path(f"metrics/{model}.json")) for model in ("keras_cnn", "resnet18")}
    (part,) = claims["keras_better"]["parts"]
    difference = own["keras_cnn"]["test"]["accuracy"] - own["resnet18"]["test"]["accuracy"]
    assert (part["mean"], part["low"], part["runs"]) == (pytest.approx(difference), None, 1)
    assert part["other_images"] is None
    around = [float(row["val_accuracy"]) for row in read_rows(Path("metrics/history/resnet18.csv"))[8:11]]
    assert claims["dip"]["parts"][1]["mean"] == pytest.approx(around[1] - (around[0] + around[2]) / 2, abs=1e-6)


def test_kept_predictions_speak_of_other_images(workdir: Path) -> None:
    """Other images add to the interval, and runs that kept no predictions do not count."""
    write_results()
    random = np.random.default_rng(0)
    labels = read_arrays(Path("metrics/predictions/keras_cnn.npz"))["labels"]
    rows = []
    for seed, accuracy in ((1, 0.80), (2, 0.81), (3, 0.82)):
        rows.append(collected(64, 0.3, accuracy, seed, **{"keras_cnn.dropout_profile": "uniform"}))
        rows.append(collected(64, 0.0, accuracy - 0.05, seed, **{"keras_cnn.dropout_profile": "uniform"}))
    write_runs(rows)
    comparison = {"what": "x", "value": {"score": "test.accuracy"}, "of": "keras_cnn_dropout"}
    comparison |= {"less": "keras_cnn_no_dropout", "paired_by": ["seed"], "supports": "above"}
    claims = yaml.safe_load(Path("data/paper/claims.yaml").read_text())
    claims["claims"] = [{"id": "c", "where": "here", "says": "x", "parts": [comparison]}]
    Path("data/paper/claims.yaml").write_text(yaml.safe_dump(claims))
    (part,) = compared("claims")["c"]["parts"]
    assert (part["runs"], part["says"], part["other_images"]) == (3, SUPPORTED, None)

    for row in rows[:4]:
        right = random.random(len(labels)) < row["test.accuracy"]
        probabilities = np.eye(10)[np.where(right, labels, (labels + 1) % 10)] + 0.01
        content = to_bytes(in_short(probabilities, labels))
        paths.collected_predictions(row["name"]).parent.mkdir(exist_ok=True)
        paths.collected_predictions(row["name"]).write_bytes(content)
    (part,) = compared("claims")["c"]["parts"]
    other = part["other_images"]
    assert other["runs"] == 2
    assert other["low"] < 0.05 < other["high"]
    # Both pairs differ by 0.05, so the runs add nothing; the standard error of two independent pairs is 0.0041.
    assert other["high"] - other["low"] == pytest.approx(2 * 1.96 * 0.0041, rel=0.1)
    assert (part["runs"], part["says"]) == (3, SUPPORTED)

    # Both runs of a pair are scored on the same images: where nearly all answers are the same, the interval is narrow.
    right = random.random(len(labels)) < 0.85
    differ = random.random(len(labels)) < 0.05
    for row in rows:
        answers = right & ~differ if "0.0" in row["name"] else right
        probabilities = np.eye(10)[np.where(answers, labels, (labels + 1) % 10)] + 0.01
        paths.collected_predictions(row["name"]).write_bytes(to_bytes(in_short(probabilities, labels)))
    (part,) = compared("claims")["c"]["parts"]
    width = part["other_images"]["high"] - part["other_images"]["low"]
    assert width == pytest.approx(2 * 1.96 * (right & differ).std() / len(labels) ** 0.5, rel=0.1)


def test_synthetic_results_are_not_judged(workdir: Path) -> None:
    write_results({"dataset": "synthetic", "keras_cnn": "synthetic", "resnet18": "synthetic"})
    assert all(part["runs"] == 0 for claim in compared("claims").values() for part in claim["parts"])
    assert "What the paper claims" not in Path("metrics/comparison.md").read_text()


def test_each_cell_needs_three_seeds_and_the_other_interpretations_stand_beside(workdir: Path) -> None:
    """Three seeds of batch size 64 and one of 128 give no verdict, whatever their four pairs say."""
    write_results()
    depth = {"keras_cnn.convolutions_per_block": 2}
    cells = [(64, seed) for seed in (7, 1, 2)] + [(128, 7)]
    rows = [collected(size, 0.3, 0.85 + seed / 1e4, seed, **depth) for size, seed in cells]
    rows += [collected(size, 0.4, 0.87 + seed / 1e4, seed, **depth) for size, seed in cells]
    rows += [collected(128, dropout, 0.8 - dropout / 10) for dropout in (0.3, 0.4)]  # as Table 1
    write_runs(rows)
    claim = compared("claims")["more_dropout"]
    assert claim["interpretation"] == "depth2"
    part = claim["parts"][0]
    assert part["low"] > 0
    assert (part["runs"], part["seeds"], part["cells"], part["seeds_of_each"]) == (4, 3, 2, 1)
    parts = compared("claims")["larger_batch"]["parts"]
    assert [(part["unit"], part["decimals"]) for part in parts] == [("", 1), ("", 1), ("", 1), ("points", 2)]
    assert part["says"] == CANNOT_TELL
    (other,) = part["others"]
    assert (other["interpretation"], other["runs"], other["mean"]) == ("as Table 1", 1, pytest.approx(-0.01))
    said = " ".join(Path("metrics/comparison.md").read_text().split())
    assert "a verdict needs 3 seeds of each cell; under “as Table 1”: -1.00 points (1 pair)" in said

    write_runs(
        rows + [collected(128, d, a + s / 1e4, s, **depth) for d, a in ((0.3, 0.85), (0.4, 0.87)) for s in (1, 2)]
    )
    part = compared("claims")["more_dropout"]["parts"][0]
    assert (part["runs"], part["seeds_of_each"], part["says"]) == (6, 3, SUPPORTED)
