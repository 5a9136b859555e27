"""How every picture looks: size, colours, axes, PNG bytes. Knows nothing of what is drawn.

Only matplotlib's `Figure` objects: no pyplot, so no global state, no window, and safe in any thread. Colours are those
of Okabe and Ito (https://jfly.uni-koeln.de/color/), told apart by people with any colour vision; markers and line
styles repeat what they say."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX*<>"
LINES = ("-", "--", "-.", ":")
GREY = "#666666"
WIDTH_INCH, DPI = 7.5, 160  # 1200 pixels
_MOST_MARKERS = 15
_MOST_POINTS = 1000


def new_figure(height: float, rows: int = 1, columns: int = 1, **subplots: Any) -> tuple[Figure, list[Axes]]:
    """A figure of 1200 pixels' width.

    Args:
        height: inches; 1 inch is 160 pixels.
        rows, columns: panels.
        subplots: further arguments of `Figure.subplots`.

    Returns:
        The figure and its panels, row by row.
    """
    figure = Figure(figsize=(WIDTH_INCH, height), dpi=DPI, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    panels = list(figure.subplots(rows, columns, squeeze=False, **subplots).flat)
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def describe_panel(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    """Title and axis labels of a panel."""
    axes.set_title(as_text(title), loc="left", fontsize="medium", fontweight="bold")
    axes.set_xlabel(as_text(x_label))
    axes.set_ylabel(as_text(y_label))


def count_epochs(axes: Axes, unit: str = "epoch") -> None:
    """Makes the x axis count epochs or another unit: whole numbers only, also where there is one."""
    axes.set_xlabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def style_series(number: int) -> dict[str, Any]:
    """Colour, marker and line of the n-th series; all differ for the first 28."""
    style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)], "markersize": 4}
    return style | {"linestyle": LINES[number // len(COLOURS) % len(LINES)]}


def space_markers(num_points: int) -> int:
    """Every how many points a line has a marker, so that a long line stays a line."""
    return max(1, num_points // _MOST_MARKERS)


def add_legend_below(figure: Figure, labels: Sequence[str], handles: Sequence[Any] = ()) -> None:
    """One legend for all panels: the series in the order of `style_series`, unless handles are given."""
    handles = handles or [Line2D([], [], **style_series(number)) for number in range(len(labels))]
    shown = [as_text(label) for label in labels]
    figure.legend(handles, shown, loc="outside lower center", ncols=min(len(shown), 6), frameon=False)


def use_log_if_wide(axes: Axes, values: Sequence[float] | np.ndarray) -> None:
    """Makes the y axis logarithmic where positive values span more than a factor 20."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    if len(known) and known.min() > 0 and known.max() > 20 * known.min():
        axes.set_yscale("log")


def start_at_zero(axes: Axes) -> None:
    """Lets the y axis begin at 0, with room above the highest value."""
    axes.set_ylim(0, 1.05 * axes.get_ylim()[1])


def label_as_raw(axis: Axis, values_log1p: np.ndarray) -> None:
    """Labels an axis that shows log1p of something with the something itself: 0, 1, 10, 100, 1k, ..."""
    low, high = np.expm1(np.min(values_log1p)), np.expm1(np.max(values_log1p))
    decades = [0.0, *(10.0**power for power in range(16))]
    for steps in (
        decades,
        [0.0, *(m * ten for ten in decades[1:] for m in (1, 2, 5))],
        np.unique(np.linspace(low, high, 5)),
    ):
        ticks = [tick for tick in steps if low <= tick <= high]
        if len(ticks) >= 3:
            break
    axis.set_ticks([float(np.log1p(tick)) for tick in ticks], [shorten(tick) for tick in ticks])


def draw_cloud(figure: Figure, axes: Axes, x_N: np.ndarray, y_N: np.ndarray) -> None:
    """Points, or where they would hide each other, hexagons coloured by how many rows they hold (log scale)."""
    if len(x_N) <= _MOST_POINTS:
        axes.plot(x_N, y_N, "o", color=COLOURS[0], markersize=3.5, alpha=0.5, markeredgewidth=0)
        return
    cells = axes.hexbin(x_N, y_N, gridsize=45, bins="log", mincnt=1, cmap="viridis", linewidths=0.1)
    figure.colorbar(cells, ax=axes, label="rows")


def draw_histogram(axes: Axes, values_N: np.ndarray) -> None:
    """A histogram that lies on its side, beside a cloud with the same y axis."""
    axes.hist(values_N, choose_num_bins(len(values_N)), orientation="horizontal", color=COLOURS[0])
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def choose_num_bins(num_rows: int) -> int:
    """As many bins as so many rows can fill."""
    return int(np.clip(1.5 * num_rows**0.5, 8, 40))


def mark_bars(axes: Axes, bars: BarContainer, form: str) -> None:
    """Writes each bar's value beside it."""
    axes.bar_label(bars, fmt=form, padding=3, fontsize="small")


def shorten(value: float) -> str:
    """1500 as 1.5k, 2e6 as 2M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def shorten_name(name: str, most: int = 24) -> str:
    """A name that fits beside an axis."""
    return name if len(name) <= most else name[: most - 1] + "…"


def as_text(name: str) -> str:
    """A name from the data as it is: no mathematics between dollar signs, no character that the font lacks."""
    return "".join(c if c == "\n" or _has_glyph(c) else "?" for c in name).replace("$", r"\$")


def to_png(figure: Figure) -> bytes:
    """The picture as PNG, the same bytes for the same picture."""
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


@functools.cache
def _has_glyph(character: str) -> bool:
    return get_font(findfont(FontProperties())).get_char_index(ord(character)) != 0
