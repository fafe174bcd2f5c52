"""Results of workloads on directories: the table, and the file that ``nrfs report`` reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from workloads.compared import Results
from workloads.figures import Spread, Summary, summaries
from workloads.report import print_table, write_results


def write(path: Path | None, every: Sequence[Results]) -> None:
    """Writes the results of workloads on the same sides, if there is to be a file."""
    if path is not None:
        write_results(path, as_json(every))


def as_json(every: Sequence[Results]) -> dict[str, Any]:
    """The results of workloads on the same sides, as the file has them."""
    return {"sides": list(map(asdict, every[0].sides)), "runs": [_run(each) for each in every]}


def by_side(results: Results) -> dict[int, list[Summary]]:
    """The figures of all rounds, summed up, for each side that has any."""
    measured = results.measured
    rounds = {side: [passes[side] for passes in results.rounds] for side in measured}
    base = results.baseline if results.baseline in measured else None
    return {side: summaries(rounds[side], None if base in (None, side) else rounds[base]) for side in measured}


def show(results: Results) -> None:
    """Prints the table."""
    workload, every = results.workload, by_side(results)
    count = len(results.rounds)
    title = workload.title + (f", medians of {count} rounds" if count > 1 else "")
    everything = [summary for side in every.values() for summary in side]
    # Columns that would be empty are left out.
    by_cores = any(summary.cores > 1 for summary in everything)
    timed = any(summary.latency for summary in everything)
    noted = any(summary.note for summary in everything)
    compared = results.baseline is not None
    table = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False)
    table.add_column(workload.name, no_wrap=True)
    if by_cores:
        table.add_column("cores", justify="right")
    table.add_column("directory", overflow="fold")
    ratios = [*(["ratio", "(lowest to highest)"] if compared else []), *(["p50 ratio"] if compared and timed else [])]
    for heading in ("figure", "unit", *(["p50 us", "p99 us"] if timed else []), *ratios, *(["note"] if noted else [])):
        table.add_column(heading, justify="left" if heading in ("unit", "note") else "right", no_wrap=True)
    for sides in zip(*every.values(), strict=True):
        first = [sides[0].name, *([str(sides[0].cores)] if by_cores else [])]
        for side, summary in zip(every, sides, strict=True):
            cells = [_number(summary.value.median), summary.unit]
            cells += [_latency(summary, percent) for percent in (50, 99) if timed]
            cells += _ratio(summary.ratio)[: 2 if compared else 0]
            cells += _ratio(summary.p50_ratio)[: 1 if compared and timed else 0]
            table.add_row(*first, results.sides[side].name, *cells, *([summary.note] if noted else []))
            first = [""] * len(first)
    print_table(table, "\n".join(_footer(results)))


def _notes(results: Results) -> Iterator[str]:
    yield from results.workload.notes
    if results.is_cut_off:
        yield "Interrupted in the first round: this is what was measured of it."


def _footer(results: Results) -> Iterator[str]:
    yield from _notes(results)
    if results.baseline is not None:
        base = results.sides[results.baseline].name
        yield (
            f"Ratio: how many times as fast as {base}, within each round; the median. "
            "p50 ratio: by the median latencies."
        )
    for failure in results.failures:
        yield f"{results.sides[failure.side].name} FAILED in round {failure.round + 1}: {failure.reason}"


def _run(results: Results) -> dict[str, Any]:
    return {
        "workload": results.workload.name,
        "title": results.workload.title,
        "notes": list(_notes(results)),
        "began": results.began.isoformat(timespec="seconds"),
        "configuration": asdict(results.workload),  # type: ignore[call-overload]
        "baseline": results.baseline,
        "rounds": [
            {"order": list(passes), "sides": {side: [asdict(each) for each in passes[side]] for side in sorted(passes)}}
            for passes in results.rounds
        ],
        "failures": list(map(asdict, results.failures)),
        "summary": {side: list(map(asdict, every)) for side, every in by_side(results).items()},
    }


def _latency(summary: Summary, percent: float) -> str:
    return _number(summary.latency[percent]) if percent in summary.latency else ""


def _ratio(ratio: Spread | None) -> list[str]:
    return ["", ""] if ratio is None else [f"{ratio.median:.3f}", ratio.extent]


def _number(value: float) -> str:
    """A number, without decimals from 1000 on, and otherwise with four significant digits; ``-`` for 0."""
    return "-" if not value else f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
