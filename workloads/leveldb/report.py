"""The output of the LevelDB workload: a table on stdout, and a JSON file if asked for."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict

import plyvel
from rich.table import Table

from workloads import report
from workloads.leveldb.configuration import Configuration
from workloads.leveldb.rounds import Medians, Results, Summary


def show(results: Results) -> None:
    """Prints the table."""
    configuration = results.configuration
    compared = configuration.against is not None
    table = Table(title=_title(configuration), title_justify="left", title_style="", box=None, pad_edge=False)
    table.add_column("benchmark", no_wrap=True)
    table.add_column("directory", overflow="fold")
    columns = ["op/s", "us/op", "MiB/s", "p50 us", "p99 us"]
    for heading in [*columns, "ratio", "(lowest to highest)", "p50 ratio"] if compared else columns:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("found", no_wrap=True)
    for summary in results.summaries():
        for side, medians in enumerate(summary.medians):
            ratio = _ratio_cells(summary if side == 0 else None) if compared else []
            name = summary.benchmark if side == 0 else ""
            directory = str(configuration.directories[side])
            table.add_row(name, directory, *_cells(medians), *ratio, _found(medians))
    report.print_table(table, _footer(results))


def write_json(results: Results) -> None:
    """Writes the JSON file, if one was asked for: configuration, every round's figures, and the medians."""
    configuration = results.configuration
    report.write_json(
        "leveldb",
        configuration,
        environment={
            "leveldb": plyvel.__leveldb_version__,
            "plyvel": plyvel.__version__,
            "python": platform.python_version(),
            "kernel": platform.release(),
            "cpus": len(os.sched_getaffinity(0)),
        },
        clock_microseconds=results.clock_microseconds,
        directories=configuration.directories,
        rounds=[
            {
                "order": each.order,
                "figures": [
                    {
                        "benchmark": name,
                        "directories": [asdict(side[place]) for side in each.figures],
                    }
                    for place, name in enumerate(configuration.benchmarks)
                ],
            }
            for each in results.rounds
        ],
        summary=[asdict(summary) for summary in results.summaries()],
    )


def _title(configuration: Configuration) -> str:
    threads = f"{configuration.threads} thread{'s' if configuration.threads > 1 else ''}"
    return (
        f"LevelDB {plyvel.__leveldb_version__}: {configuration.num} keys, values of {configuration.value_size} bytes, "
        f"compression {configuration.compression}, {threads}{configuration.medians}"
    )


def _footer(results: Results) -> str:
    configuration = results.configuration
    lines = [f"Timing itself is {results.clock_microseconds:.2f} us of each call. All values read were right."]
    if configuration.batch_size > 1:
        lines.append(f"p50 and p99 are of one call: writes carry up to {configuration.batch_size} entries.")
    if configuration.against is not None:
        lines.append(
            f"Ratio: op/s of {configuration.directory} over {configuration.against}, within each round; the median. "
            "p50 ratio: the same of the median latencies. Above 1 is faster."
        )
    return "\n".join(lines)


def _cells(medians: Medians) -> list[str]:
    if not medians.operations:
        return ["-"] * 5
    throughput = medians.mebibytes_per_second
    return [
        f"{medians.operations_per_second:,.0f}"
        if medians.operations_per_second >= 10
        else f"{medians.operations_per_second:.2f}",
        f"{medians.microseconds_per_operation:,.2f}",
        "-" if throughput is None else f"{throughput:,.1f}",
        f"{medians.p50_microseconds:,.2f}",
        f"{medians.p99_microseconds:,.2f}",
    ]


def _ratio_cells(summary: Summary | None) -> list[str]:
    if summary is None or summary.ratio is None or summary.p50_ratio is None:
        return ["", "", ""]
    ratio = summary.ratio
    return [f"{ratio.median:.3f}", ratio.extent, f"{summary.p50_ratio.median:.3f}"]


def _found(medians: Medians) -> str:
    return "" if medians.found is None else f"{medians.found:,.0f} of {medians.operations:,.0f}"
