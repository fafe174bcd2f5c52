"""Results files of workloads on directories, and what their rounds must say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, final


@final
@dataclass(frozen=True)
class Run:
    """One workload of a results file."""

    document: dict[str, Any]
    run: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """The figures of each pass, in order; the same in all."""
        every = {tuple(figure["name"] for figure in side) for side in self._passes()}
        assert len(every) == 1, every
        return [*every.pop()]

    @property
    def orders(self) -> list[list[int]]:
        return [each["order"] for each in self.run["rounds"]]

    def values(self, name: str, side: int = 0, cores: int | None = None) -> list[float]:
        """A figure in each round."""
        return [self.figure(name, side, number, cores)["value"] for number in range(len(self.run["rounds"]))]

    def figure(self, name: str, side: int = 0, number: int = 0, cores: int | None = None) -> dict[str, Any]:
        """A figure of one pass; ``cores`` tells it apart if it was measured with several."""
        found: dict[str, Any]
        every = self.run["rounds"][number]["sides"][str(side)]
        (found,) = [each for each in every if each["name"] == name and cores in (None, each["cores"])]
        return found

    def check(self) -> None:
        """That the summary is what the rounds say."""
        assert self._passes()
        baseline = self.run["baseline"]
        for side, summaries in self.run["summary"].items():
            assert [each["name"] for each in summaries] == self.names
            for each in summaries:
                ours = self.values(each["name"], int(side), each["cores"])
                assert each["value"] == _spread(ours)
                if baseline is None or int(side) == baseline:
                    assert each["ratio"] is None
                    continue
                theirs = self.values(each["name"], baseline, each["cores"])
                pairs = [(x, y) for x, y in zip(ours, theirs, strict=True) if x and y]
                # One division, as the figure is of a time or of a rate.
                speeds = [1 / x / (1 / y) if each["unit"] in ("s", "us") else x / y for x, y in pairs]
                assert each["ratio"] == _spread(speeds)

    def _passes(self) -> list[list[dict[str, Any]]]:
        return [side for each in self.run["rounds"] for side in each["sides"].values()]


def runs(path: Path) -> dict[str, Run]:
    """The workloads of a results file, by name."""
    document = json.loads(path.read_text())
    assert (document["format"], document["version"]) == ("nrfs-results", 1)
    return {run["workload"]: Run(document, run) for run in document["runs"]}


def only_run(path: Path) -> Run:
    (found,) = runs(path).values()
    return found


def _spread(values: list[float]) -> dict[str, float] | None:
    return {"median": median(values), "lowest": min(values), "highest": max(values)} if values else None
