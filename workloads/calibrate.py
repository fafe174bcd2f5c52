"""What the parts of an operation cost on this machine, in nanoseconds: ``nrfs bench calibrate``.

``nrfs simulate`` uses these figures: see :mod:`workloads.simulation.costs`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import final

from rich.table import Table

from workloads import native
from workloads.cores import Cores
from workloads.failure import WorkloadError
from workloads.progress import ProgressBar
from workloads.report import print_table, write_json
from workloads.simulation.costs import MEANINGS

THREADS = 2
"""Two threads pass lines and messages to each other."""


@final
@dataclass(frozen=True)
class Configuration:
    rounds: int
    milliseconds: int
    """Of each measurement."""
    json: Path | None


def run(configuration: Configuration) -> dict[str, float]:
    """Builds what measures, and measures. Returns the median of each cost, by name.

    Raises:
        WorkloadError: it cannot be built, or fails.

    """
    with ProgressBar(len(MEANINGS) * configuration.rounds) as progress, Cores(THREADS) as cores:
        progress.begin("building")
        program = native.build("calibrate")
        return measure(program, configuration.rounds, configuration.milliseconds, cores.held, progress)


def measure(
    program: Path, rounds: int, milliseconds: int, cpus: list[int], progress: ProgressBar | None = None
) -> dict[str, float]:
    """Measures all costs, in turn, so many times. Returns the median of each, by name."""
    measured: dict[str, list[float]] = {name: [] for name in MEANINGS}
    for figure in native.run(program, {"rounds": rounds, "milliseconds": milliseconds, "cpus": cpus}):
        measured[figure["name"]].append(figure["nanoseconds"])
        if progress is not None:
            progress.begin(figure["name"])
            progress.end(1)
    return {name: median(values) for name, values in measured.items()}


def show(configuration: Configuration, medians: Mapping[str, float]) -> None:
    """Prints the table, and writes the JSON file if there is to be one."""
    write_json("calibrate", configuration, nanoseconds=dict(medians))
    title = f"what it costs on this machine, medians of {configuration.rounds} rounds"
    table = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False)
    table.add_column("cost", no_wrap=True)
    table.add_column("ns", justify="right", no_wrap=True)
    table.add_column("what it is", no_wrap=True)
    for name, nanoseconds in medians.items():
        table.add_row(name, f"{nanoseconds:.1f}", MEANINGS[name])
    print_table(table, "In each round the time of the median run of a few hundred repetitions.")


def read(path: Path) -> dict[str, float]:
    """The medians in a file that ``--json`` has written.

    Raises:
        WorkloadError: it cannot be read, or has something else in it.

    """
    try:
        medians = json.loads(path.read_text())["nanoseconds"]
        found = {name: float(medians[name]) for name in MEANINGS}
    except OSError as failure:
        raise WorkloadError(f"{path}: {(failure.strerror or str(failure)).lower()}") from failure
    except (ValueError, TypeError, KeyError) as failure:
        raise WorkloadError(f"{path}: not what 'nrfs bench calibrate --json' writes") from failure
    if not all(0 < nanoseconds < float("inf") for nanoseconds in found.values()):
        raise WorkloadError(f"{path}: a cost is not a positive number")
    return found
