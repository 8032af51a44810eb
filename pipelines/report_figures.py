"""Plots of the report as SVG that takes its colours from the page, so that one drawing is right in light and dark."""

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from models.comparison import ClassGain

# Stand-ins that become CSS variables of the page; no other part of a plot is drawn in them.
_INK, _FAINT = "#010203", "#020304"
_OF_RUN = {"rgb": "#030405", "pose": "#040506", "flow": "#050607", "fusion": "#060708", "student": "#070809"}
_CSS = {_INK: "currentColor", _FAINT: "var(--line)"} | {c: f"var(--{run})" for run, c in _OF_RUN.items()}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "perfnet",
    "text.parse_math": False,  # a class may be called $x$
    "font.size": 9.5,
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
}
_DASHES = {"rgb": "-", "pose": "--", "flow": "-.", "student": "-"}
_MARKERS = {"pose": "s", "flow": "D", "fusion": "^", "student": "o"}
_MOST_POINTS = 150
MOST_CLASSES = 30

Curve = Sequence[tuple[int, float]]


def curves(runs: Mapping[str, Mapping[str, Curve]], *, metric: str, title: str, name: str) -> Markup:
    """One line a run over the steps; the val split, where there is one, as dots of the same colour.

    Args:
        runs: run → metric, such as train/loss → (step, value).
        metric: loss or accuracy.
        name: of the plot, unique on the page.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 2.9), layout="constrained")
        axes = figure.subplots()
        for run, metrics in runs.items():
            _line(axes, metrics.get(f"train/{metric}", ()), color=_OF_RUN[run], ls=_DASHES[run], label=run)
            _line(
                axes,
                metrics.get(f"val/{metric}", ()),
                color=_OF_RUN[run],
                ls="",
                marker="o",
                ms=3,
                label=f"{run}, val",
            )
        axes.set(xlabel="step", ylabel=metric)
        axes.set_ylim(0, 1.02 if metric == "accuracy" else None)
        figure.legend(loc="outside upper left", ncols=4, fontsize=9)
        return _svg(figure, title=title, name=name)


def _line(axes: Axes, curve: Curve, **style: Any) -> None:
    """A curve of at most so many points: means of neighbours where there are more."""
    if not curve:
        return
    steps_values = np.array(curve, float)
    parts = np.array_split(steps_values, min(len(curve), _MOST_POINTS))
    steps, values = np.array([part.mean(axis=0) for part in parts]).T
    axes.plot(steps, values, **style)


def gains(rows: Mapping[str, Sequence[ClassGain]], *, title: str, name: str) -> Markup:
    """Dots in percentage points right (better) and left of zero, one row a class in the order of the first run.

    Args:
        rows: run → its gains over rgb.
    """
    labels = [row.label for row in next(iter(rows.values()))]
    labels = (
        labels if len(labels) <= MOST_CLASSES else labels[: MOST_CLASSES // 2] + labels[-MOST_CLASSES // 2 :]
    )
    place = {label: -i for i, label in enumerate(labels)}
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 0.9 + 0.34 * len(labels)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=_INK, lw=1)
        for i, (run, found) in enumerate(rows.items()):
            shift = 0.24 * ((len(rows) - 1) / 2 - i)
            points = [(100 * row.gain, place[row.label] + shift) for row in found if row.label in place]
            axes.plot(*zip(*points, strict=True), _MARKERS[run], ms=5, color=_OF_RUN[run], label=run)
        axes.set_yticks(list(place.values()), [_short(label) for label in labels])
        axes.set(xlabel="percentage points over rgb", ylim=(-len(labels) + 0.4, 0.6))
        figure.legend(loc="outside upper right", ncols=len(rows), fontsize=9)
        return _svg(figure, title=title, name=name)


def _short(label: str) -> str:
    return label if len(label) <= 28 else label[:27] + "…"


def _svg(figure: Figure, *, title: str, name: str) -> Markup:
    """The drawing as an element of the page, with a name for people who cannot see it."""
    file = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the reader's browser has the glyphs
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = file.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<(metadata|style).*?</\1>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r"<[^>]+>", lambda tag: _adapt(tag[0], name), drawn)
    width, height = figure.get_size_inches() * 72
    label = Markup.escape(title)
    head = f'<svg class="plot" role="img" aria-label="{label}" viewBox="0 0 {width:g} {height:g}"'
    return Markup(re.sub(r"<svg [^>]*", head, drawn, count=1))


def _adapt(tag: str, name: str) -> str:
    """A tag with the page's colours, and with names that no other plot of the page has."""
    for stand_in, css in _CSS.items():
        tag = tag.replace(stand_in, css)
    return re.sub(r'(id="|xlink:href="#|url\(#)', rf"\g<1>{name}-", tag)
