"""Colours, lines and sizes of all figures, and figures without anything in them."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Colours that the colour-blind can tell apart (Okabe and Ito's), the last two darker, to be read as text on white.
BLUE, GREEN, RED = "#0072B2", "#00795A", "#BD3A00"
OCHRE, PURPLE = "#8A6D00", "#7A4B94"
PALE_BLUE, PALE_RED = "#7FB8D8", "#EBA67F"
GREY, RULE = "#777777", "#DDDDDD"

Look = dict[str, Any]  # as matplotlib takes it
OURS_TRAIN: Look = {"color": BLUE, "linestyle": "-", "linewidth": 1.2, "marker": "o", "markersize": 3}
OURS_VALIDATION: Look = {"color": RED, "linestyle": "-", "linewidth": 1.2, "marker": "^", "markersize": 4}
PAPER_TRAIN: Look = {"color": PALE_BLUE, "linestyle": "--", "linewidth": 3}
PAPER_VALIDATION: Look = {"color": PALE_RED, "linestyle": ":", "linewidth": 3}
BAND: Look = {"alpha": 0.2, "linewidth": 0}
KEPT: Look = {"color": "black", "linestyle": "-.", "linewidth": 1}

PAPER_POINT: Look = {"linestyle": "", "marker": "o", "markersize": 8, "markerfacecolor": "none", "markeredgewidth": 1.5}
OUR_POINT: Look = {"linestyle": "", "marker": "o", "markersize": 4.5, "elinewidth": 1.6}
OUR_RUN: Look = {"linestyle": "", "marker": "o", "markersize": 3.2, "markeredgewidth": 0, "alpha": 0.55}
COLOURS = (RED, BLUE, GREEN, OCHRE, PURPLE)  # of a grid's interpretations, the nearest first
MARKERS = ("o", "s", "D", "^", "v")  # likewise

# Inches and points that are read well at a README's width, about 900 pixels.
STYLE = {
    "font.size": 11,
    "axes.titlesize": 11.5,
    "figure.titlesize": 14,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.08,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": RULE,
}


def new_figure(title: str, width: float, height: float, source: str) -> Figure:
    """An empty figure, in inches, that says above everything else when it does not show CIFAR-10."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title if source == "cifar10" else f"{title}\n{source} data, not CIFAR-10")
    return figure


def show_image(axes: Axes, image: np.ndarray) -> None:
    """An image, (32, 32, 3) uint8, with its pixels as they are and no axes around it."""
    axes.imshow(image, interpolation="nearest")
    axes.set_axis_off()
