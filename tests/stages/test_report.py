"""The report: what comparison.json says, on one page that needs nothing else, also in a browser."""

import csv
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages import compare, report
from stages.common import paths
from stages.common.errors import ExpectedError
from stages.common.files import read_json
from stages.common.paths import REPORT
from stages.page.render import SECTIONS, undecided
from stages.page.runs import read_trained
from stages.paper.numbers import load_numbers
from tests.support.browser import PROGRAMS, Browser, chromium
from tests.support.made_up_results import add_seeds, change_json, write_results
from tests.support.stage_runs import ROOT

LARGEST = 1_500_000  # bytes
SYNTHETIC = dict.fromkeys(("dataset", "keras_cnn", "resnet18"), "synthetic")
WIDTHS = (390, 1280)


class Page(HTMLParser):
    """What tests look up in a page: its elements by tag, and the text within each section."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: dict[str, list[dict[str, str | None]]] = {}
        self.sections: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """As the parser calls it."""
        self.elements.setdefault(tag, []).append(dict(attrs))
        if tag == "section":
            self.sections[str(dict(attrs)["id"])] = ""

    def handle_data(self, data: str) -> None:
        """As the parser calls it."""
        if self.sections:
            *_, last = self.sections
            self.sections[last] += data

    def attributes(self) -> Iterator[tuple[str, str, str]]:
        """Tag, name and value of every attribute."""
        for tag, elements in self.elements.items():
            for element in elements:
                yield from ((tag, name, value or "") for name, value in element.items())


def write_page() -> Page:
    report.main()
    return Page(REPORT.read_text(encoding="utf-8"))


def made(folder: Path, prepare: Callable[[], object]) -> Path:
    """A folder with results that somebody prepares, and their report."""
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        prepare()
        report.main()
    return folder


def several_seeds() -> None:
    """Results of four seeds."""
    write_results()
    add_seeds(1, 2, 3)
    compare.main()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("report") / "real", several_seeds)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("report") / "synthetic", lambda: write_results(SYNTHETIC))


@pytest.fixture
def page(real: Path, monkeypatch: pytest.MonkeyPatch) -> Page:
    """The page of several seeds; the current folder is that of its results."""
    monkeypatch.chdir(real)
    return Page(REPORT.read_text(encoding="utf-8"))


def test_it_has_every_section_once_in_order_and_the_contents_lead_there(page: Page) -> None:
    assert list(page.sections) == list(SECTIONS)
    links = [element["href"] for element in page.elements["a"]]
    assert links == [f"#{name}" for name in SECTIONS]


def numbers_of(rows: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """The attributes data-value that the rows of a table must have."""
    return {row["id"]: {name: str(row[name]) for name in ("paper", "ours", "difference")} for row in rows}


def shown_numbers(text: str) -> dict[str, dict[str, str]]:
    """The attributes data-value of the rows that have an id."""
    rows = re.findall(r'<tr data-id="([^"]+)">(.*?)</tr>', text, flags=re.DOTALL)
    return {name: dict(re.findall(r'data-of="(\w+)" data-value="([^"]*)"', row)) for name, row in rows}


def test_its_numbers_are_the_comparison_s(page: Page) -> None:
    comparison = read_json(paths.comparison("json"))
    text = REPORT.read_text(encoding="utf-8")
    assert shown_numbers(text) == numbers_of(comparison["results"])
    assert len(comparison["results"]) == 14
    first = comparison["results"][0]
    assert f"{first['paper']:g} %" in page.sections["tables"]
    assert f"{first['ours']:.2f} %" in page.sections["tables"]
    low, high = first["interval"]
    assert f"{low:.2f} to {high:.2f}, n = 4" in page.sections["tables"]
    claims = re.findall(r'data-claim="([^"]+)" data-verdict="([^"]+)"', text)
    assert claims == [(claim["id"], claim["verdict"]) for claim in comparison["claims"]]
    values = re.findall(r'class="part" data-value="([^"]*)"', text)
    assert values == [str(part["mean"]) for claim in comparison["claims"] for part in claim["parts"]]


def test_a_claim_s_picture_and_rule_are_in_the_unit_of_its_figures(page: Page) -> None:
    """An accuracy at most a point apart: points everywhere, and not shares beside points."""
    said = " ".join(page.sections["claims"].split())
    assert "supported if the interval is within ±1" in said
    assert "within ±0.01" not in said
    described = " ".join(str(picture["aria-label"]) for picture in page.elements["svg"])
    assert re.search(r"test accuracy, not more than a point apart: [+-]\d+\.\d\d points", described)


def test_one_sentence_counts_what_was_reproduced(page: Page) -> None:
    rows = read_json(paths.comparison("json"))["results"]
    inside = sum(row.get("inside") is True for row in rows)
    outside = sum(row.get("inside") is False for row in rows)
    assert inside
    assert f"{inside} lie inside the 95 % prediction interval" in page.sections["reproduced"]
    assert f"{outside} lie outside it" in page.sections["reproduced"]


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([{"mean": 0.1, "seeds_of_each": 5}], "undecided"),
        ([{"mean": 0.1, "seeds_of_each": 5}, {"mean": 0.1, "seeds_of_each": 2}], "with fewer than 3 seeds"),
        ([{"mean": 0.1, "seeds_of_each": 2}, {"mean": None, "seeds_of_each": 0}], "not measured yet"),
        ([{"mean": None, "seeds_of_each": 3, "missed": 1}], "undecided"),  # runs never reached what they had to
        ([{"mean": 0.1, "seeds_of_each": 5}, {"mean": None, "seeds_of_each": 0, "counts": False}], "undecided"),
        ([{"mean": 0.1, "seeds_of_each": 5}, {"mean": 0.1, "seeds_of_each": 2, "says": "supported"}], "undecided"),
    ],
)
def test_it_says_why_a_claim_has_no_verdict(parts: list[dict[str, Any]], why: str) -> None:
    common = {"counts": True, "says": "cannot tell", "missed": 0}
    assert undecided({"parts": [common | part for part in parts]}) == why


def test_a_single_run_has_no_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_results()
    page = write_page()
    assert "one run" in page.sections["tables"]
    assert " to " not in page.sections["tables"]
    assert re.search(r"claims are: 9 cannot tell \(.*\d not measured yet", page.sections["reproduced"])
    said = "8 stand beside a single run of ours (too few for an interval) and 6 are not answered by any run"
    assert said in page.sections["reproduced"]


def test_a_paper_without_claims_has_a_page_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a new one begins (docs/another-paper.md)."""
    monkeypatch.chdir(tmp_path)
    write_results()
    Path("data/paper/claims.yaml").write_text('{known: "", groups: {}, claims: []}')
    compare.main()
    page = write_page()
    assert "claims" not in page.sections
    assert re.search(r"points \([^)]+\)\.", page.sections["reproduced"])


def test_nor_have_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_results()
    add_seeds(8)
    compare.main()
    page = write_page()
    assert "two runs" in page.sections["tables"]
    assert "stand beside two runs of ours (too few for an interval)" in page.sections["reproduced"]


def test_it_needs_nothing_but_itself(page: Page) -> None:
    for tag, name, value in page.attributes():
        if name in ("src", "href", "srcset", "data", "action", "poster"):
            assert value.startswith(("#", "data:image/png;base64,")), (tag, name, value)
        assert "url(" not in value.replace("url(#", ""), (tag, name, value)
    assert "script" not in page.elements
    style = REPORT.read_text(encoding="utf-8").partition("<style>")[2].partition("</style>")[0]
    assert (ROOT / "stages/page/style.css").read_text(encoding="utf-8") in style  # and not escaped
    assert "@import" not in style
    assert "url(" not in style
    policy = next(element for element in page.elements["meta"] if element.get("http-equiv"))
    assert str(policy["content"]).startswith("default-src 'none'")


def test_every_picture_is_described(page: Page) -> None:
    assert len(page.elements["img"]) == 10
    assert len(page.elements["svg"]) > 15
    for picture in page.elements["img"]:
        assert picture["alt"]
    for picture in page.elements["svg"]:
        assert picture["role"] == "img"
        assert len(str(picture["aria-label"])) > 20


def test_no_two_elements_have_one_id_and_every_reference_has_its_element(page: Page) -> None:
    ids = [value for _, name, value in page.attributes() if name == "id"]
    assert len(ids) == len(set(ids))
    used = {value[1:] for _, name, value in page.attributes() if name == "href"}
    used |= {found for *_, value in page.attributes() for found in re.findall(r"url\(#([^)]+)\)", value)}
    assert used <= set(ids)


def test_every_colour_is_one_of_the_page_s_which_dark_has_too(page: Page) -> None:
    style = REPORT.read_text(encoding="utf-8").partition("<style>")[2].partition("</style>")[0]
    light, dark = (set(re.findall(r"(--[\w-]+):", part)) for part in re.findall(r":root \{([^}]*)", style))
    assert light == dark
    used = {found for *_, value in page.attributes() for found in re.findall(r"var\((--[\w-]+)\)", value)}
    assert used
    assert used <= light
    drawn = [value for tag, name, value in page.attributes() if name == "style" and tag not in ("svg", "td")]
    assert not [value for value in drawn if re.search(r"#[0-9a-fA-F]{3,6}\b", value)]


def test_it_is_small(real: Path) -> None:
    assert (real / REPORT).stat().st_size < LARGEST


def test_it_is_the_same_bytes_again(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(real)
    before = REPORT.read_bytes()
    report.main()
    assert REPORT.read_bytes() == before


def test_the_bands_are_of_all_seeds(page: Page) -> None:
    assert page.sections["curves"].count("seeds 7, 1, 2, 3") == 2
    assert page.sections["again"].count("run-64-0.3-") == 6


def test_a_run_names_its_machine_s_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the results that are in git."""
    monkeypatch.chdir(ROOT)
    numbers = load_numbers()
    trained = read_trained(numbers, images=1)
    lines = report.experiments(trained, numbers)
    for one, line in zip(trained, lines["experiments"], strict=True):
        said = lines["machines"][int(line[-1]) - 1]
        assert said.startswith(f"{numbers.models[one.run.model]}, ")
        if one.run.row:
            assert f": {one.run.row['processor']}, {one.run.row['device']}, threads: {one.run.row['threads']}; " in said
    assert {line[-1] for line in lines["experiments"]} == {str(1 + place) for place in range(len(lines["machines"]))}


def test_ensemble_mistakes_and_calibration_follow_from_the_predictions(page: Page) -> None:
    stored = [np.load(paths.predictions(model)) for model in ("keras_cnn", "resnet18")]
    labels, both = stored[0]["labels"], [one["probabilities"] for one in stored]
    right = (np.mean(both, axis=0).argmax(1) == labels).mean()
    assert f"is right on {100 * right:.2f} %" in page.sections["cost"]
    with paths.confusion("keras_cnn").open() as file:
        pairs = [(row["actual"], row["predicted"]) for row in csv.DictReader(file)]
    wrong = {pair: pairs.count(pair) for pair in set(pairs) if pair[0] != pair[1]}
    worst = max(wrong.values())
    assert f"{worst} times" in page.sections["mistakes"]
    sure = both[0].max(1).astype(float)
    bins = np.minimum((sure * 15).astype(int), 14)
    hits = both[0].argmax(1) == labels
    error = sum(abs(hits[bins == k].mean() - sure[bins == k].mean()) * (bins == k).mean() for k in set(bins))
    assert f"{error:.3f}" in page.sections["calibration"]


def test_on_synthetic_data_every_section_says_so_and_nothing_is_judged(synthetic: Path) -> None:
    text = (synthetic / REPORT).read_text(encoding="utf-8")
    page = Page(text)
    assert list(page.sections) == list(SECTIONS)
    for section in page.sections.values():
        assert "ynthetic data, not CIFAR-10: nothing here is compared with the paper" in section
    assert "data-claim" not in text
    assert "data-id" not in text
    printed = [f"{row['paper']:g} %" for row in read_json(synthetic / paths.comparison("json"))["results"]]
    assert not [number for number in printed if number in text]
    assert "paper, train" not in text


def test_results_of_other_data_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_results()
    change_json("metrics/dataset.json", "source", "synthetic")
    with pytest.raises(ExpectedError, match=r"different data \(cifar10, synthetic\)"):
        report.main()
    assert not REPORT.exists()


def test_a_comparison_of_other_claims_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_results()
    claims = Path("data/paper/claims.yaml")
    claims.write_text(claims.read_text(encoding="utf-8").replace("what: test loss", "what: another loss"))
    with pytest.raises(ExpectedError, match=r"comparison\.json judges other claims than .*; run dvc repro compare"):
        report.main()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = chromium()
    if program is None:
        pytest.skip(f"no Chromium: THE REPORT WAS NOT OPENED; install one of {', '.join(PROGRAMS)}, or set CHROMIUM")
    with Browser(program, tmp_path_factory.mktemp("profile")) as started:
        yield started


MISSING = "[...document.images].filter(image => !image.complete || !image.naturalWidth).length"
FLAT = "[...document.querySelectorAll('svg')].filter(svg => svg.getBoundingClientRect().height < 20).length"
NUMBERS = """Object.fromEntries([...document.querySelectorAll('tr[data-id]')].map(row => [row.dataset.id,
    Object.fromEntries([...row.querySelectorAll('[data-of]')].map(cell => [cell.dataset.of, cell.dataset.value]))]))"""


@pytest.mark.parametrize("kind", ["real", "synthetic"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_opens_in_a_browser_without_a_network(
    width: int, scheme: str, kind: str, browser: Browser, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(kind)
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(folder / REPORT, width, scheme=scheme)
    assert browser.complaints == []
    assert [address for address in browser.requests if not address.startswith("data:")] == [
        (folder / REPORT).resolve().as_uri()
    ]
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("document.images.length") == 10
    assert browser.evaluate(MISSING) == browser.evaluate(FLAT) == 0
    dark = browser.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(21, 24, 27)"
    assert dark == (scheme == "dark")
    rows = read_json(folder / paths.comparison("json"))["results"] if kind == "real" else []
    assert browser.evaluate(NUMBERS) == numbers_of(rows)


def test_a_browser_finds_what_is_wrong(browser: Browser, tmp_path: Path) -> None:
    """A script's error, a picture from the network and a wide line are planted; the test above would fail."""
    (tmp_path / "page.html").write_text(
        '<img src="http://127.0.0.1:9/x.png"><div style="width:5000px">wide</div><script>nothing()</script>'
    )
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(tmp_path / "page.html", 390)
    assert any("nothing is not defined" in complaint for complaint in browser.complaints)
    assert "http://127.0.0.1:9/x.png" in browser.requests
    assert browser.evaluate(MISSING) == 1
    assert browser.evaluate("document.documentElement.scrollWidth") > 5000


def test_it_is_printed_on_some_pages(browser: Browser, real: Path, tmp_path: Path) -> None:
    browser.open(real / REPORT, 1280)
    browser.pdf(tmp_path / "report.pdf")
    content = (tmp_path / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert 5 < len(re.findall(rb"/Type\s*/Page\b", content)) < 30
