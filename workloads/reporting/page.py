"""The page: one file with everything in it, which fetches nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any, Final, final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

import nrfs
from workloads.failure import WorkloadError
from workloads.progress import ProgressBar
from workloads.reporting import plots
from workloads.reporting.plots import Plot
from workloads.reporting.read import Document, Run

UNITS: Final = {
    "op/s": "operations per second",
    "MiB/s": "mebibytes (2²⁰ bytes) per second",
    "s": "seconds",
    "us": "microseconds",
    "x": "times as much",
}


@final
@dataclass(frozen=True)
class Section:
    """A run, with its plots."""

    name: str
    """The name by which links lead to it."""
    run: Run
    plots: Sequence[tuple[Plot, Markup, str]]
    """Each plot as SVG, with the file name of its picture."""


def write(path: Path, documents: Sequence[Document], pictures: Path | None = None) -> None:
    """Writes the page, and each plot as a picture into the directory ``pictures``.

    The page is HTML; or Markdown, with tables and these pictures alone, if that is how its name ends.

    Raises:
        WorkloadError: something cannot be written.

    """
    try:
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)
        with ProgressBar(sum(len(document.runs) for document in documents)) as bar:
            groups = [
                (document, list(_sections(document, number, pictures, bar)))
                for number, document in enumerate(documents)
            ]
        is_markdown = path.suffix == ".md"
        environment = _environment(autoescape=not is_markdown)
        template = environment.from_string(_template("page.md" if is_markdown else "page.html"))
        beside = None if pictures is None else os.path.relpath(pictures, path.parent)
        path.write_text(template.render(groups=groups, version=nrfs.__version__, pictures=beside))
    except OSError as failure:
        raise WorkloadError(f"{failure.filename or path}: cannot be written: {failure.strerror}") from failure


def _sections(document: Document, number: int, pictures: Path | None, bar: ProgressBar) -> Iterator[Section]:
    for place, run in enumerate(document.runs):
        name = f"run-{number}-{place}"
        drawn = []
        bar.begin(f"drawing {run.workload}")
        for each, plot in enumerate(plots.of(run)):
            # The plots' own text: names from results are paths in it.
            picture = f"{number}-{place}-{plot.name}.png"
            drawn.append((plot, Markup(plots.as_svg(plot, f"{name}-{each}")), picture))
            if pictures is not None:
                plots.write_png(plot, pictures / picture)
        bar.end(1)
        yield Section(name, run, drawn)


def _environment(*, autoescape: bool) -> Environment:
    environment = Environment(autoescape=autoescape, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = _number
    environment.filters["ratio"] = _ratio
    environment.filters["moment"] = _moment
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|")
    environment.globals["units"] = UNITS
    environment.globals["colours"] = len(plots.COLOURS)
    return environment


def _template(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text()


def _number(value: Any) -> str:  # noqa: ANN401 (what a template gives)
    """A number, without decimals from 1000 on, and otherwise with four significant digits; ``-`` for 0."""
    number = float(value)
    return "-" if not number else f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"


def _ratio(value: float) -> str:
    """A ratio with two decimals; a small one with two significant digits."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def _moment(text: str) -> str:
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
