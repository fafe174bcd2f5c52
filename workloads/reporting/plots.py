"""The plots of a run, by matplotlib. Each is as narrow as a telephone; a page may show several beside each other.

Colours are names for a style sheet: see ``as_svg``. Each side has a marker of its own, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Final, final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from workloads.reporting.read import Row, Run

WIDTH: Final = 4.3
"""The width of a plot in inches."""

INK: Final = "#010203"
"""The colour of text and axes."""

LINES: Final = "#c0c1c2"
"""The colour of the grid."""

COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b07d00", "#3a93c8", "#7a7a7a", "#8a4fbf")
"""The colours of the sides, after Okabe and Ito: colour-blind people can tell them apart, too."""

MARKERS: Final = "osD^vPX*"

TIMES: Final = "\N{MULTIPLICATION SIGN}"

STYLE: Final[dict[Any, Any]] = {
    "font.size": 9.0,
    "svg.fonttype": "path",
    "svg.hashsalt": "nrfs",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": LINES,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
}


@final
@dataclass(frozen=True)
class Plot:
    """A plot with its names."""

    name: str
    """Its name as part of a file name."""
    title: str
    reading: str
    """A sentence or two on how to read it."""
    canvas: Canvas


def of(run: Run) -> Iterator[Plot]:
    """All plots that the results suffice for."""
    with mpl.rc_context(STYLE):
        if any(row.is_compared for row in run.rows):
            yield _speeds(run)
        if run.by_cores:
            yield from _by_cores(run)
        if any(cell.latency for row in run.rows for cell in row.cells.values()):
            yield _latencies(run)


def as_svg(plot: Plot, prefix: str) -> str:
    """The element ``svg``, to stand in a page.

    Its names begin with ``prefix``, so that they are the page's only ones. Colours are ``var(--ink)``, ``var(--lines)``
    and ``var(--side-0)`` and so on.
    """
    with mpl.rc_context(STYLE):
        text = StringIO()
        plot.canvas.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}-', svg)
    svg = svg.replace("url(#", f"url(#{prefix}-")
    svg = svg.replace(INK, "var(--ink)").replace(LINES, "var(--lines)")
    for number, colour in enumerate(COLOURS):
        svg = svg.replace(colour, f"var(--side-{number})")
    # The page decides how large it is, and has all of it as text.
    return re.sub(
        r"^<svg (.*?)>", lambda tag: f'<svg aria-hidden="true" {_unsized(tag[1])}>', svg, count=1, flags=re.DOTALL
    )


def _unsized(attributes: str) -> str:
    return re.sub(r'\b(width|height)="[^"]*"', "", attributes)


def write_png(plot: Plot, path: Path) -> None:
    """Writes a plot as a picture with a white background."""
    with mpl.rc_context(STYLE):
        plot.canvas.savefig(path, format="png", dpi=200, facecolor="white")


def _speeds(run: Run) -> Plot:
    """For each figure, how many times as fast each side is as the baseline."""
    assert run.baseline is not None
    rows = [row for row in run.rows if row.is_compared]
    sides = [side for side in _sides(run) if side != run.baseline]
    canvas, axes = _rows(run, [_label(run, row) for row in rows], len(sides), sides)
    for place, row in enumerate(rows):
        for number, side in enumerate(sides):
            ratio = row.cells[side].ratio
            if ratio is not None:
                y = _offset(place, number, len(sides))
                axes.plot([ratio.lowest, ratio.highest], [y, y], color=_colour(side), linewidth=1.5)
                axes.plot(ratio.median, y, MARKERS[side % len(MARKERS)], color=_colour(side), markersize=4.5)
    axes.axvline(1, color=INK, linewidth=1)
    _log(axes, lambda value: f"{value:g}{TIMES}")
    base = run.sides[run.baseline]
    axes.set_xlabel("← slower      faster →")
    return Plot(
        f"{run.workload}-speed",
        f"Speed, compared with {base}",
        f"A mark at 2{TIMES} is twice as fast as {base} in the same round, at 0.5{TIMES} half as fast. {_spreads(run)}",
        canvas,
    )


def _latencies(run: Run) -> Plot:
    """For each figure and side, the distribution of the latencies of single calls."""
    most = max(row.cores for row in run.rows)
    rows = [row for row in run.rows if row.cores == most and any(cell.latency for cell in row.cells.values())]
    rows = rows or [row for row in run.rows if any(cell.latency for cell in row.cells.values())]
    sides = _sides(run)
    canvas, axes = _rows(run, [_label(run, row) for row in rows], len(sides), sides)
    for place, row in enumerate(rows):
        for number, side in enumerate(sides):
            latency, colour = row.cells[side].latency, _colour(side)
            if latency:
                y = _offset(place, number, len(sides))
                axes.plot([latency[1], latency[99]], [y, y], color=colour, linewidth=1)
                axes.plot([latency[25], latency[75]], [y, y], color=colour, linewidth=3.5, solid_capstyle="butt")
                axes.plot(latency[50], y, MARKERS[side % len(MARKERS)], color=colour, markersize=4.5)
    _log(axes, _duration)
    axes.set_xlabel("← faster      slower →")
    return Plot(
        f"{run.workload}-latency",
        "How long single calls take",
        "The mark is the median call. Half of all calls are within the thick line, and 98 of 100 within the thin one: "
        "where that reaches far to the right, some calls take much longer than most. Further left is faster.",
        canvas,
    )


def _by_cores(run: Run) -> Iterator[Plot]:
    """For each figure that was measured with several numbers of cores, how its throughput grows."""
    names = list(dict.fromkeys(row.name for row in run.rows))
    for name in names:
        rows = [row for row in run.rows if row.name == name]
        if len(rows) < 2 or rows[0].unit == "x":
            continue
        canvas = Canvas(figsize=(WIDTH, 3.0), layout="constrained")
        axes = canvas.subplots()
        cores = [row.cores for row in rows]
        for side in _sides(run):
            values = [row.cells[side].value for row in rows]
            middle = [value.median for value in values]
            below = [value.median - value.lowest for value in values]
            above = [value.highest - value.median for value in values]
            lines = axes.errorbar(cores, middle, [below, above], capsize=2, linewidth=1.5, color=_colour(side))
            lines[0].set(marker=MARKERS[side % len(MARKERS)], markersize=4.5)
        axes.set_ylim(bottom=0)
        axes.set_xticks(cores)
        axes.set_xlabel("cores")
        axes.set_ylabel(rows[0].unit)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _rate(value)))
        axes.grid(axis="y", linewidth=0.5)
        _legend(run, canvas, _sides(run))
        yield Plot(
            f"{run.workload}-{re.sub(r'[^0-9A-Za-z]+', '-', name)}-cores",
            f"{name}: throughput by cores",
            f"What all cores do together. A line that rises steeply scales well. {_spreads(run)}",
            canvas,
        )


def _spreads(run: Run) -> str:
    """The sentence that explains marks and their lines."""
    if run.rounds == 1:
        return "There was one round, so it is not known how much it varies."
    return f"The mark is the median of {run.rounds} rounds; the line goes from the lowest to the highest."


def _rows(run: Run, labels: Sequence[str], each: int, sides: Sequence[int]) -> tuple[Canvas, Axes]:
    """An empty plot with a row for each label. Each row has room for ``each`` lines."""
    height = 1.0 + 0.19 * len(sides) * 0.6 + len(labels) * (0.12 + 0.1 * each)
    canvas = Canvas(figsize=(WIDTH, height), layout="constrained")
    axes = canvas.subplots()
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    for place in range(1, len(labels)):
        axes.axhline(place - 0.5, color=LINES, linewidth=0.5)
    axes.grid(axis="x", linewidth=0.5)
    _legend(run, canvas, sides)
    return canvas, axes


def _offset(place: int, number: int, lines: int) -> float:
    """The vertical position of a line in its row."""
    return place + (number - (lines - 1) / 2) * 0.7 / lines


def _legend(run: Run, canvas: Canvas, sides: Sequence[int]) -> None:
    marks = [Line2D([], [], color=_colour(side), marker=MARKERS[side % len(MARKERS)], markersize=4.5) for side in sides]
    names = [_short(run.sides[side], 40) for side in sides]
    columns = 2 if max(map(len, names)) <= 22 else 1
    canvas.legend(marks, names, loc="outside upper left", ncols=columns, frameon=False)


def _log(axes: Axes, text: Callable[[float], str]) -> None:
    """Makes the horizontal axis logarithmic, with ticks that can be read."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low / 1.05, high * 1.05)
    if high / low < 8:
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 1.5, 2, 3, 5, 7), numticks=8))
    elif high / low < 100:
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _sides(run: Run) -> list[int]:
    """The sides that have figures."""
    return sorted(run.rows[0].cells) if run.rows else []


def _label(run: Run, row: Row) -> str:
    name = _short(row.name, 24)
    return f"{name}, {row.cores} core{'s' if row.cores > 1 else ''}" if run.by_cores else name


def _short(name: str, length: int) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


def _colour(side: int) -> str:
    return COLOURS[side % len(COLOURS)]


def _duration(microseconds: float) -> str:
    if microseconds >= 1e6:
        return f"{microseconds / 1e6:g} s"
    return f"{microseconds / 1e3:g} ms" if microseconds >= 1e3 else f"{microseconds:g} µs"


def _rate(value: float) -> str:
    for unit, factor in (("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{value / factor:g}{unit}"
    return f"{value:g}"
