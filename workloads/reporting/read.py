"""Reads results files of workloads on directories."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from statistics import geometric_mean
from typing import Any, final

from workloads.failure import WorkloadError
from workloads.figures import Spread
from workloads.report import FORMAT, VERSION


@final
@dataclass(frozen=True)
class Cell:
    """One figure of one side."""

    value: Spread
    ratio: Spread | None
    """To the baseline."""
    latency: Mapping[float, float]
    note: str


@final
@dataclass(frozen=True)
class Row:
    """One figure, of all sides that have it."""

    name: str
    unit: str
    cores: int
    cells: Mapping[int, Cell]

    @property
    def is_compared(self) -> bool:
        """Whether sides are compared by it. Some figures are derived from others of the same side."""
        return self.unit != "x" and any(cell.ratio is not None for cell in self.cells.values())


@final
@dataclass(frozen=True)
class Run:
    """A workload."""

    workload: str
    title: str
    notes: Sequence[str]
    began: str
    rounds: int
    sides: Sequence[str]
    baseline: int | None
    rows: Sequence[Row]
    failures: Sequence[tuple[str, str]]
    """By a side's name, why it has no figures."""

    @property
    def by_cores(self) -> bool:
        """Whether something was measured with several numbers of cores."""
        return len({row.cores for row in self.rows}) > 1

    @property
    def overall(self) -> dict[int, float]:
        """By side, the geometric mean of its ratios."""
        ratios: dict[int, list[float]] = {}
        for row in self.rows:
            for side, cell in row.cells.items():
                if row.is_compared and cell.ratio is not None:
                    ratios.setdefault(side, []).append(cell.ratio.median)
        return {side: geometric_mean(values) for side, values in ratios.items()}


@final
@dataclass(frozen=True)
class Document:
    """A results file."""

    machine: Mapping[str, Any]
    sides: Sequence[Mapping[str, str]]
    runs: Sequence[Run]


def file(path: Path) -> Document:
    """Reads a file.

    Raises:
        WorkloadError: it cannot be read, or has something else in it.

    """
    try:
        return document(path.read_text())
    except OSError as failure:
        raise WorkloadError(f"{path}: {(failure.strerror or str(failure)).lower()}") from failure
    except WorkloadError as failure:
        raise WorkloadError(f"{path}: {failure}") from failure
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as failure:
        raise WorkloadError(f"{path}: not results of nrfs bench") from failure


def document(text: str) -> Document:
    """Reads what a file has."""
    raw = json.loads(text)
    if raw["format"] != FORMAT:
        raise ValueError(raw["format"])
    if raw["version"] > VERSION:
        raise WorkloadError(f"results of version {raw['version']}, of a newer nrfs: this one knows {VERSION}")
    if "runs" not in raw:
        raise WorkloadError(f"results of 'nrfs bench {raw['workload']}', which has no plots")
    sides = raw["sides"]
    return Document(raw["machine"], sides, [_run(run, [side["name"] for side in sides]) for run in raw["runs"]])


def _run(raw: Mapping[str, Any], sides: Sequence[str]) -> Run:
    measured = {int(side): summaries for side, summaries in raw["summary"].items()}
    rows = []
    for together in zip(*measured.values(), strict=True):
        cells = {side: _cell(each) for side, each in zip(measured, together, strict=True)}
        rows.append(Row(together[0]["name"], together[0]["unit"], int(together[0]["cores"]), cells))
    return Run(
        workload=raw["workload"],
        title=raw["title"],
        notes=raw["notes"],
        began=raw["began"],
        rounds=len(raw["rounds"]),
        sides=sides,
        baseline=raw["baseline"],
        rows=rows,
        failures=[(sides[each["side"]], each["reason"]) for each in raw["failures"]],
    )


def _cell(raw: Mapping[str, Any]) -> Cell:
    value, ratio = _spread(raw["value"]), _spread(raw["ratio"])
    if value is None:
        raise ValueError("no value")
    return Cell(value, ratio, {float(percent): float(each) for percent, each in raw["latency"].items()}, raw["note"])


def _spread(raw: Mapping[str, Any] | None) -> Spread | None:
    if raw is None:
        return None
    spread = Spread(float(raw["median"]), float(raw["lowest"]), float(raw["highest"]))
    if not all(map(isfinite, (spread.median, spread.lowest, spread.highest))):
        raise ValueError("not a finite number")
    return spread
