"""``nrfs simulate``: runs a machine's sweep, and shows it as a table and as a plot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

from rich.table import Table

from workloads.progress import ProgressBar
from workloads.report import print_table, write_json
from workloads.simulation.costs import Costs
from workloads.simulation.run import Scenario, simulate


@final
@dataclass(frozen=True)
class Configuration:
    """What to simulate: a machine, filled with threads node by node."""

    nodes: int
    cores: int
    """Of each node."""
    write_ratios: tuple[int, ...]
    """Percent."""
    ways: tuple[str, ...]
    logs: tuple[int, ...]
    """Of ``nr``."""
    batch: int | None
    operations: int
    seed: int
    costs: Costs
    plot: Path | None
    json: Path | None

    @property
    def places(self) -> list[tuple[int, int]]:
        """Nodes that have threads, and the threads on each: first ever more on one node, then ever more full nodes."""
        return [(1, cores) for cores in _doubling(self.cores)] + [
            (nodes, self.cores) for nodes in _doubling(self.nodes)
        ][1:]

    @property
    def contenders(self) -> list[tuple[str, str, int]]:
        """For each column of the tables: its heading, the way, and its number of logs."""
        named = []
        for way in self.ways:
            if way == "nr" and self.logs != (1,):
                named += [(f"nr, {logs} log{'s' if logs > 1 else ''}", way, logs) for logs in self.logs]
            else:
                named.append((way, way, 1))
        return named


@final
@dataclass(frozen=True)
class Point:
    """One contender on so many cores."""

    contender: str
    nodes: int
    cores: int
    """Of each of these nodes."""
    write_ratio: int
    operations_per_second: float
    """Of all cores together."""
    p50: float
    """The median latency, in nanoseconds."""
    p99: float
    batch: float
    """Operations that a combiner of ``nr`` appended at once, on average; 0 for others."""


def run(configuration: Configuration) -> list[Point]:
    steps = len(configuration.places) * len(configuration.write_ratios) * len(configuration.contenders)
    with ProgressBar(steps) as progress:
        return list(_points(configuration, progress))


def _points(configuration: Configuration, progress: ProgressBar) -> Iterator[Point]:
    for write_ratio in configuration.write_ratios:
        for nodes, cores in configuration.places:
            for contender, way, logs in configuration.contenders:
                progress.begin(f"{nodes} x {cores} cores  {write_ratio}% writes  {contender}")
                scenario = Scenario(
                    way=way,
                    nodes=nodes,
                    cores=cores,
                    write_ratio=write_ratio,
                    logs=logs,
                    batch=configuration.batch,
                    operations=configuration.operations,
                    seed=configuration.seed,
                )
                result = simulate(scenario, configuration.costs)
                rate, p50, p99 = result.operations_per_second, result.latency(50), result.latency(99)
                yield Point(contender, nodes, cores, write_ratio, rate, p50, p99, result.batch)
                progress.end(1)


def show(configuration: Configuration, points: Sequence[Point]) -> None:
    """Prints the table, and writes the JSON file and the plot if there are to be such."""
    write_json("simulate", configuration, points=[asdict(point) for point in points])
    if configuration.plot is not None:
        from workloads.simulation import plot

        plot.write(configuration.plot, configuration, points)
    title = "simulated: million operations per second (latencies in µs: median, 99th percentile)"
    table = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False)
    for heading in ("writes", "nodes", "cores", *(name for name, _, _ in configuration.contenders)):
        table.add_column(heading, justify="right", no_wrap=True)
    for write_ratio in configuration.write_ratios:
        for nodes, cores in configuration.places:
            cells = [
                point
                for point in points
                if (point.write_ratio, point.nodes, point.cores) == (write_ratio, nodes, cores)
            ]
            table.add_row(f"{write_ratio}%", str(nodes), str(nodes * cores), *map(_cell, cells))
    print_table(table, "A model, not a measurement: docs/simulation.md says what it cannot tell.")


def _cell(point: Point) -> str:
    return f"{point.operations_per_second / 1e6:.2f} ({point.p50 / 1e3:.2f}, {point.p99 / 1e3:.2f})"


def _doubling(end: int) -> list[int]:
    """1, 2, 4 ... and at last ``end`` itself."""
    return [1 << power for power in range((end - 1).bit_length())] + [end]
