"""A figure as SVG inside an HTML page: small, in the page's own font and colours, and the same bytes each time."""

import io
import re
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.figure import Figure

from stages.figures import style

SVG, LINK = "http://www.w3.org/2000/svg", "{http://www.w3.org/1999/xlink}href"
# Each colour of a figure is one of the page's, which has two of each: for light and for dark.
PAGE_COLOURS = {
    "#000000": "ink",
    "#ffffff": "ground",
    style.BLUE: "blue",
    style.GREEN: "green",
    style.RED: "red",
    style.OCHRE: "ochre",
    style.PURPLE: "purple",
    style.PALE_BLUE: "pale-blue",
    style.PALE_RED: "pale-red",
    style.GREY: "grey",
    style.RULE: "rule",
    "#cccccc": "rule",
}
COLOURS = {colour.lower(): f"var(--{name})" for colour, name in PAGE_COLOURS.items()}
IN_POINTS = ("d", "x", "y", "width", "height", "transform")  # attributes that hold coordinates
ElementTree.register_namespace("", SVG)


def to_svg(figure: Figure, name: str, text: str) -> str:
    """The element `svg` of a figure, as wide as its place allows but not wider than it was drawn.

    Args:
        figure: Drawn with the colours of stages/figures/style.py alone; its background is the page's.
        name: Of this figure alone in its page.
        text: What the figure shows, for those who do not see it.

    Raises:
        ValueError: It has a colour that the page does not have twice.
    """
    for patch in (figure.patch, *(axes.patch for axes in figure.axes)):
        patch.set_visible(False)
    drawn = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(drawn, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    root = ElementTree.fromstring(drawn.getvalue())  # noqa: S314  our own
    _number(root, name)
    for element in root.iter():
        for attribute, value in element.attrib.items():
            element.set(attribute, _rounded(value) if attribute in IN_POINTS else _coloured(value))
        if element.get("transform", "").startswith("rotate(-0 "):
            del element.attrib["transform"]
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    root.attrib.clear()
    root.attrib |= {
        "viewBox": f"0 0 {width:g} {height:g}",
        "style": f"max-width:{width / 72:.3g}in",
        "role": "img",
        "aria-label": text,
    }
    return _plain(ElementTree.tostring(root, encoding="unicode"))


def _number(root: ElementTree.Element, name: str) -> None:
    """Leave out what the page does not need, and give the elements that are referred to names that no other has."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
    used: dict[str, str] = {}
    text = ElementTree.tostring(root, encoding="unicode")
    for identity in re.findall(r'(?:url\(#|href="#)([\w-]+)', text):
        used.setdefault(identity, f"{name}-{len(used)}")
    for element in root.iter():
        attributes = element.attrib
        if identity := attributes.pop("id", ""):
            attributes |= {"id": used[identity]} if identity in used else {}
        if link := attributes.pop(LINK, ""):
            attributes["href"] = f"#{used[link[1:]]}"
        if clip := attributes.get("clip-path"):
            attributes["clip-path"] = f"url(#{used[clip[5:-1]]})"


def _coloured(value: str) -> str:
    """Colours as the page's, and the font too, but for its size."""
    value = re.sub(r"#[0-9a-f]{6}\b", lambda found: _page_colour(found[0]), value)
    return re.sub(r"font-family: [^;]*; ?", "", value)


def _page_colour(colour: str) -> str:
    if colour not in COLOURS:
        raise ValueError(f"{colour} is not among the page's colours, {', '.join(COLOURS)}")
    return COLOURS[colour]


def _rounded(value: str) -> str:
    return re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), value)


def _plain(text: str) -> str:
    """Without empty groups and empty lines."""
    while (shorter := re.sub(r"<(g|defs) ?/>\s*|<(g|defs)>\s*</\2>\s*", "", text)) != text:
        text = shorter
    return re.sub(r"\s*\n\s*", "\n", text).strip()
