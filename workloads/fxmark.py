"""FxMark's workloads and NrOS's mix of reads and writes, by number of cores: ``nrfs bench fxmark``.

The loops are native (``nrfs/core/bench/src/fxmark``). What the loop itself takes is measured in the same run, and told
beside each figure as a part of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import nrfs
from workloads import native
from workloads.commands.fxmark import APART, NODE
from workloads.compared import Measure
from workloads.cores import Cores
from workloads.directories import temporary_directory
from workloads.failure import WorkloadError
from workloads.figures import Figure
from workloads.progress import ProgressBar


@final
@dataclass(frozen=True)
class _Setting:
    """One measurement, as the native program is asked for it."""

    workload: str
    cores: int
    open_files: int
    writes: int
    file_size: int
    name: str
    """The name of its figure. It is the same for any number of nodes."""


@final
@dataclass(frozen=True)
class FxMark:
    """The workload. A "directory" that it measures may also be the name of something else: see ``_contender``."""

    service: bool
    """Whether it measures the service, not directories."""
    logs: int
    workloads: tuple[str, ...]
    cores: tuple[int, ...]
    """In ascending order, and 1 is among them."""
    write_ratios: tuple[int, ...]
    open_files: tuple[int, ...]
    file_size: int
    milliseconds: int

    @property
    def name(self) -> str:
        return "fxmark"

    @property
    def title(self) -> str:
        where = "threads on the file system service" if self.service else "processes by system calls"
        return f"FxMark: {where}, {self.milliseconds / 1000:g} s a figure"

    @property
    def notes(self) -> Sequence[str]:
        lines = [
            "times 1 core: what all cores do together, over what one core does.",
            "harness: the part of an operation that the measuring loop takes.",
        ]
        if self.service:
            lines.append(
                f"{APART}: each thread has a file system of its own, so threads share nothing but the machine."
            )
        return lines

    @property
    def steps(self) -> int:
        return len(self._settings(1))

    @contextmanager
    def measuring(self, bar: ProgressBar) -> Iterator[Measure]:
        bar.begin("building")
        program = native.build("fxmark")
        with Cores(max(self.cores)) as cores:

            def one_pass(directory: Path, where: str, number: int) -> Iterator[Figure]:
                if self.service:
                    yield from self._measure(program, cores, where, bar, _contender(directory.name))
                    return
                with temporary_directory(directory, "fxmark") as place:
                    yield from self._measure(program, cores, where, bar, {"directory": str(place)})

            yield one_pass

    def _measure(
        self, program: Path, cores: Cores, where: str, bar: ProgressBar, contender: object
    ) -> Iterator[Figure]:
        nodes = contender["service"] if isinstance(contender, dict) and "service" in contender else None
        settings = self._settings(nodes or len(nrfs.Topology.machine().nodes))
        wanted = {
            "contenders": [contender],
            "settings": [vars(setting) for setting in settings],
            "logs": self.logs,
            "rounds": 1,
            "milliseconds": self.milliseconds,
            "cpus": cores.held,
        }
        alone: dict[str, float] = {}
        label = where
        try:
            for told in native.run(program, wanted):
                if "setting" in told:
                    setting = settings[told["setting"]]
                    label = f"{where}  {setting.name}  {setting.cores} cores"
                    bar.begin(label)
                else:
                    yield from _figures(setting, told, alone)
                    bar.end(1)
        except WorkloadError as failure:
            raise WorkloadError(f"{label}: {failure}") from failure

    def _settings(self, nodes: int) -> list[_Setting]:
        """All measurements; what is compared, more cores with one, is one after the other."""
        every: list[_Setting] = []
        for workload in self.workloads:
            for writes in self.write_ratios if workload == "mix" else (0,):
                for wanted in self.open_files if workload == "mix" else (1,):
                    for cores in self.cores:
                        files = wanted if wanted != NODE else -(-cores // nodes)
                        name = f"mix, {writes}% writes, {_files(wanted)}" if workload == "mix" else workload
                        every.append(_Setting(workload, cores, files, writes, self.file_size, name))
        return every


def _files(wanted: int) -> str:
    return "a file for each core of a node" if wanted == NODE else f"{wanted} file{'s' if wanted > 1 else ''}"


def _contender(name: str) -> Any:  # noqa: ANN401 (as the native program reads it)
    """What is measured instead of a directory."""
    return APART if name == APART else {"service": int(name.split()[0])}


def _figures(setting: _Setting, told: dict[str, float], alone: dict[str, float]) -> Iterator[Figure]:
    """A figure, and how many times as much it is as that of one core."""
    rate, harness = told["operations_per_second"], told["harness_nanoseconds"]
    if not rate:
        raise WorkloadError("nothing was done: give --milliseconds more")
    part = harness * rate / 1e9 / setting.cores
    more = {"harness_nanoseconds": harness, "harness_part": part}
    yield Figure(setting.name, rate, "op/s", setting.cores, note=f"harness {part:.1%}", more=more)
    one = alone.setdefault(setting.name, rate)
    if setting.cores > 1:
        yield Figure(f"{setting.name}: times 1 core", rate / one, "x", setting.cores)
