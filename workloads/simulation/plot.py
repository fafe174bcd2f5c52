"""A plot of a sweep, as SVG: a panel for each ratio of writes, and in it a line for each contender.

Written as text. A drawing library would be the largest dependency of nrfs, for a few lines on two axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from math import ceil, floor, log10
from pathlib import Path

from workloads.failure import WorkloadError
from workloads.simulation.report import Configuration, Point

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444", "#999999")
"""Those of Okabe and Ito, which people who are colour-blind can tell apart."""

DASHES = ("none", "8 3", "2 2", "8 3 2 3", "5 5", "12 3 2 3 2 3", "1 4", "14 4")
"""So that lines can be told apart without colour, too."""

WIDTH, HEIGHT = 300, 230
"""Of a panel, in pixels."""

LEFT, RIGHT, TOP, BOTTOM = 46, 12, 26, 36
"""Between a panel's edges and its axes."""


def write(path: Path, configuration: Configuration, points: Sequence[Point]) -> None:
    """Writes the plot.

    Raises:
        WorkloadError: the file cannot be written.

    """
    try:
        path.write_text("\n".join(_lines(configuration, points)) + "\n")
    except OSError as failure:
        raise WorkloadError(f"{path}: cannot write the plot: {failure.strerror}") from failure


def _lines(configuration: Configuration, points: Sequence[Point]) -> Iterator[str]:
    ratios = configuration.write_ratios
    width, height = WIDTH * len(ratios), HEIGHT + 24
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="11">'
    )
    yield f'<rect width="{width}" height="{height}" fill="white"/>'
    rates = [point.operations_per_second for point in points if point.operations_per_second] or [1.0]
    lowest, highest = floor(log10(min(rates))), ceil(log10(max(rates)))
    for number, ratio in enumerate(ratios):
        yield f'<g transform="translate({WIDTH * number},0)">'
        panel = [point for point in points if point.write_ratio == ratio]
        yield from _panel(configuration, ratio, panel, lowest, max(highest, lowest + 1))
        yield "</g>"
    for number, (name, _, _) in enumerate(configuration.contenders):
        x = LEFT + 120 * number
        yield f'<path d="M{x} {HEIGHT + 8}h34" {_stroke(number)}/>'
        yield f'<text x="{x + 39}" y="{HEIGHT + 12}">{escape(name)}</text>'
    yield "</svg>"


def _panel(
    configuration: Configuration, ratio: int, points: Sequence[Point], lowest: int, highest: int
) -> Iterator[str]:
    """Cores to the right, and operations per second upwards, both by their logarithms."""
    most = configuration.nodes * configuration.cores
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x(cores: int) -> float:
        return LEFT + (right - LEFT) * (log10(cores) / log10(most) if most > 1 else 0.5)

    def y(rate: float) -> float:
        return bottom - (bottom - TOP) * (log10(rate) - lowest) / (highest - lowest)

    yield f'<text x="{(LEFT + right) / 2}" y="16" text-anchor="middle">{ratio}% writes</text>'
    yield f'<path d="M{LEFT} {TOP}V{bottom}H{right}" stroke="black" fill="none"/>'
    for power in range(lowest, highest + 1):
        yield f'<path d="M{LEFT} {y(10**power):.1f}H{right}" stroke="#dddddd"/>'
        yield f'<text x="{LEFT - 4}" y="{y(10**power) + 4:.1f}" text-anchor="end">{_rate(power)}</text>'
    for nodes, cores in configuration.places:
        place = f'x="{x(nodes * cores):.1f}" y="{bottom + 13}"'
        yield f'<text {place} text-anchor="middle" font-size="9">{nodes * cores}</text>'
    yield f'<text x="{(LEFT + right) / 2}" y="{bottom + 27}" text-anchor="middle">cores</text>'
    if configuration.nodes > 1:
        edge = x(configuration.cores)
        yield f'<path d="M{edge:.1f} {TOP}V{bottom}" stroke="#999999" stroke-dasharray="3 3"/>'
    for number, (name, _, _) in enumerate(configuration.contenders):
        line = [
            f"{x(point.nodes * point.cores):.1f},{y(point.operations_per_second):.1f}"
            for point in points
            if point.contender == name and point.operations_per_second
        ]
        yield f'<polyline points="{" ".join(line)}" {_stroke(number)} fill="none"/>'


def _rate(power: int) -> str:
    """A power of ten of operations per second, in short."""
    unit = {0: "", 1: "k", 2: "M", 3: "G"}[min(power // 3, 3)]
    return f"{10 ** (power - 3 * min(power // 3, 3))}{unit}"


def _stroke(number: int) -> str:
    number %= len(COLOURS)
    return f'stroke="{COLOURS[number]}" stroke-dasharray="{DASHES[number]}" stroke-width="1.8"'
