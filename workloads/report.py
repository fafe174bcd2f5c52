"""What the user gets of any workload: a table on stdout, and all of it in a JSON file if asked."""

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
        """A workload's, whatever else it says."""

        @property
        def json(self) -> Path | None: ...


PLAIN_WIDTH = 200
"""Columns where there is no terminal to ask: a table in a file or a pipe is not to be folded."""


def print_table(table: Table, footer: str) -> None:
    """Prints both; plain text unless stdout is a terminal."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PLAIN_WIDTH)
    console.print(table)
    console.print(footer, soft_wrap=True)


def write_json(workload: str, configuration: Configuration, **results: object) -> None:
    """Writes all to the JSON file, if there is to be one; what JSON does not know, as text."""
    path = configuration.json
    if path is None:
        return
    document = {"workload": workload, "configuration": asdict(configuration), **results}
    try:
        path.write_text(json.dumps(document, indent=2, default=str) + "\n")
    except OSError as failure:
        raise WorkloadError(f"{path}: cannot write the results: {failure.strerror}") from failure
