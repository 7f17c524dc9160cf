"""A figure inside a page: the page's colours and font, its own ids, the same bytes."""

import re

import pytest
from matplotlib.figure import Figure

from stages.figures.style import BLUE
from stages.figures.svg import to_svg


def figure(color: str = BLUE) -> Figure:
    drawn = Figure(figsize=(3, 2))
    axes = drawn.subplots()
    axes.plot([0, 1, 2], [0.123456789, 1, 0], color=color, marker="o", label="<a & b>")
    axes.legend()
    return drawn


def test_two_figures_of_a_page_share_no_id() -> None:
    first, second = (set(re.findall(r' id="([^"]+)"', to_svg(figure(), name, "Text"))) for name in ("one", "two"))
    assert first
    assert not first & second


def test_it_is_described_scales_and_has_the_page_s_colours() -> None:
    text = to_svg(figure(), "one", 'Ours & "theirs"')
    assert text.startswith("<svg ")
    assert 'role="img" aria-label="Ours &amp; &quot;theirs&quot;"' in text
    assert 'viewBox="0 0 216 144" style="max-width:3in"' in text
    assert "var(--blue)" in text
    assert "#0072b2" not in text
    assert "&lt;a &amp; b&gt;" in text
    assert "metadata" not in text
    assert "DejaVu" not in text
    assert not re.search(r'(?<=[ "])\d+\.\d{3,}', text)


def test_the_same_figure_is_the_same_bytes() -> None:
    assert to_svg(figure(), "one", "Text") == to_svg(figure(), "one", "Text")


def test_a_colour_that_the_page_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="#123456 is not among the page's colours"):
        to_svg(figure("#123456"), "one", "Text")
