"""The output of all workloads: a table on stdout, and a JSON file if asked for."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.table import Table

from workloads.failure import WorkloadError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    class Configuration(DataclassInstance, Protocol):
        """The configuration of any workload."""

        @property
        def json(self) -> Path | None: ...


PLAIN_WIDTH = 200
"""Columns of a table in a file or a pipe: so many that no line is folded."""


def print_table(table: Table, footer: str) -> None:
    """Prints a table and a footer, as plain text unless stdout is a terminal."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PLAIN_WIDTH)
    console.print(table)
    console.print(footer, soft_wrap=True)


def write_json(workload: str, configuration: Configuration, **results: object) -> None:
    """Writes everything to the JSON file, if one was asked for. Types that JSON does not have become strings."""
    path = configuration.json
    if path is None:
        return
    document = {"workload": workload, "configuration": asdict(configuration), **results}
    try:
        path.write_text(json.dumps(document, indent=2, default=str) + "\n")
    except OSError as failure:
        raise WorkloadError(f"{path}: cannot write the results: {failure.strerror}") from failure
