"""The output of all workloads: a table on stdout, and a JSON file if asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from rich.console import Console
from rich.table import Table

from workloads.failure import WorkloadError
from workloads.machine import machine

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    class Configuration(DataclassInstance, Protocol):
        """The configuration of any workload."""

        @property
        def json(self) -> Path | None: ...


PLAIN_WIDTH = 200
"""Columns of a table in a file or a pipe: so many that no line is folded."""

FORMAT: Final = "nrfs-results"
VERSION: Final = 1
"""Grows when a program that reads results must change."""


def print_table(table: Table, footer: str) -> None:
    """Prints a table and a footer, as plain text unless stdout is a terminal."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PLAIN_WIDTH)
    console.print(table)
    console.print(footer, soft_wrap=True, markup=False)


def write_json(workload: str, configuration: Configuration, **results: object) -> None:
    """Writes everything to the JSON file, if one was asked for."""
    if configuration.json is not None:
        write_results(configuration.json, {"workload": workload, "configuration": asdict(configuration), **results})


def as_text(results: Mapping[str, object]) -> str:
    """The text of a results file."""
    document = {"format": FORMAT, "version": VERSION, "machine": machine(), **results}
    return json.dumps(document, indent=2, default=str) + "\n"


def write_results(path: Path, results: Mapping[str, object]) -> None:
    """Writes results to a file, with what must be known of the machine. Types that JSON does not have become strings.

    Raises:
        WorkloadError: it cannot be written; or it is a file already, which is left as it is.

    """
    text = as_text(results)
    try:
        # A device or a pipe may be there.
        with path.open("w" if path.exists() and not path.is_file() else "x") as file:
            file.write(text)
    except OSError as failure:
        raise WorkloadError(f"{path}: cannot write the results: {failure.strerror}") from failure
