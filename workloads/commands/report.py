"""``nrfs report``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workloads.command import Command, check_file
from workloads.failure import WorkloadError


@contextmanager
def optional_packages() -> Iterator[None]:
    """Where what draws and writes the page is imported."""
    try:
        yield
    except ModuleNotFoundError as failure:
        raise WorkloadError(
            f"the page needs {failure.name}, which is not installed: pip install 'nrfs[report]'"
        ) from None


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS", help="files that --json has written")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="the page: HTML, or Markdown if it is FILE.md"
    )
    parser.add_argument("--png", type=Path, metavar="DIR", help="write each plot there, too, as a PNG picture")


def _work(options: argparse.Namespace) -> None:
    check_file(options.output)
    with optional_packages():
        from workloads.reporting import page, read
    page.write(options.output, [read.file(path) for path in options.results], options.png)


COMMAND = Command(
    "report",
    help="a page with plots and tables of results",
    description="Makes one page of results of 'nrfs bench compare' and of other workloads on directories: speeds, "
    "throughput by cores, latencies, and the tables behind them. The page has everything in it. Needs the packages of "
    "nrfs[report].",
    add_options=_add_options,
    work=_work,
)
