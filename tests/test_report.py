"""``nrfs report``: the page is looked at in a real browser."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import run_nrfs
from support.browser import Page, browser, open_page

from workloads import results
from workloads.compared import Failure, Measure, Results, Side
from workloads.figures import PERCENTILES, Figure, Pass
from workloads.progress import ProgressBar

SIDES = ("nrfs --nodes 1", "nrfs --nodes 2", "tmpfs", "peer <b>&amp;</b>", "cmd: /a/long/path/" + "x" * 80)
FAILED = 3


@dataclass(frozen=True)
class Made:
    """A workload that was never run; its results are made up."""

    name: str
    cores: Sequence[int]
    title: str = "Made for a test, with <i>&lt;markup&gt;</i>"
    notes: Sequence[str] = ("A note.",)
    steps: int = 1

    def measuring(self, bar: ProgressBar) -> AbstractContextManager[Measure]:
        raise NotImplementedError

    def passes(self, number: int) -> list[Pass]:
        """Of each side."""
        return [self._figures(side, number) for side in range(len(SIDES))]

    def _figures(self, side: int, number: int) -> list[Figure]:
        made = []
        for name in ("write", "read", "a-name-that-is-longer-than-most-names"):
            for cores in self.cores:
                rate = 1e5 * cores * (1 + side) * (1 + 0.1 * number)
                latency = {percent: 10 * (1 + side) * (1 + percent / 50) for percent in PERCENTILES}
                made.append(Figure(name, rate, "op/s", cores, latency, "note"))
        return made


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of results of two workloads, one of them by cores, on five sides; one side has failed."""
    path = tmp_path_factory.mktemp("report") / "results.json"
    sides = [Side(name, Path("/somewhere") / str(number), "fuse (rw)") for number, name in enumerate(SIDES)]
    every = []
    for workload in (Made("fxmark", (1, 2, 4)), Made("leveldb", (1,))):
        rounds = [dict(enumerate(workload.passes(number))) for number in range(3)]
        failures = [Failure(FAILED, 2, "No space left on device")]
        every.append(Results(workload, sides, 0, rounds=rounds, failures=failures))
    results.write(path, every)
    return path


@pytest.fixture(scope="module")
def page(report: Path) -> Path:
    path = report.with_suffix(".html")
    done = run_nrfs("report", report, "-o", path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return path


@pytest.fixture(scope="module")
def shown() -> Iterator[Page]:
    if browser() is None:
        pytest.skip("there is no browser: Ubuntu has one only as a snap")
    with open_page() as shown:
        yield shown


def test_every_plot_is_there_and_has_lines_and_a_table_beside_it(page: Path, shown: Page) -> None:
    shown.show(page, 1280)
    titles = shown.evaluate("[...document.querySelectorAll('figure h3')].map(each => each.textContent)")
    by_cores = [f"{name}: throughput by cores" for name in ("write", "read", "a-name-that-is-longer-than-most-names")]
    speed, latency = f"Speed, compared with {SIDES[0]}", "How long single calls take"
    assert titles == [speed, *by_cores, latency, speed, latency]
    # Of each plot, how many colours of sides are drawn with: the one that failed has none.
    strokes = shown.evaluate(
        "[...document.querySelectorAll('figure svg')].map(svg => new Set("
        "[...svg.querySelectorAll('path')].map(path => path.style.stroke).filter(each => each.includes('--side-'))"
        ").size)"
    )
    assert strokes == [3, 4, 4, 4, 4, 3, 4]
    assert shown.evaluate("[...document.querySelectorAll('figure svg')].every(svg => svg.clientHeight > 150)")
    rows = shown.evaluate("document.querySelectorAll('tbody.group tr').length")
    assert rows == (3 * 3 + 3) * (len(SIDES) - 1)


OUTSIDE = """(svg => {
  const frame = svg.getBoundingClientRect();
  const drawn = [...svg.querySelectorAll('use, path')].filter(each => !each.closest('defs'));
  return drawn.map(each => each.getBoundingClientRect()).filter(box => box.width && (
    box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1
  )).map(JSON.stringify);
})"""


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_overflows(width: int, page: Path, shown: Page) -> None:
    shown.show(page, width)
    assert shown.evaluate("window.innerWidth") == width
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    wide = shown.evaluate(
        "[...document.querySelectorAll('body *')]"
        ".filter(each => !each.closest('.scroll table') && !each.closest('svg *')"
        f" && each.getBoundingClientRect().right > {width} + 0.5).map(each => each.outerHTML.slice(0, 200))"
    )
    assert wide == []
    # What is drawn lies within its picture.
    cut = shown.evaluate(f"[...document.querySelectorAll('figure svg')].flatMap({OUTSIDE})")
    assert cut == []


def test_nothing_is_fetched(page: Path, shown: Page) -> None:
    shown.fetched.clear()
    shown.complaints.clear()
    shown.show(page, 1280)
    assert set(shown.fetched) == {page.as_uri()}
    assert shown.complaints == []
    assert "<script" not in page.read_text()


CONTRAST = """(element => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => numbers(colour).slice(0, 3).map(each => each / 255).map(each =>
    each <= 0.03928 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4).reduce(
    (sum, each, place) => sum + each * [0.2126, 0.7152, 0.0722][place], 0);
  let behind = element;
  while (behind.parentElement && numbers(getComputedStyle(behind).backgroundColor)[3] === 0)
    behind = behind.parentElement;
  const style = getComputedStyle(element);
  const ink = element.closest('svg') ? (style.fill === 'none' ? style.stroke : style.fill) : style.color;
  const [more, less] = [light(ink), light(getComputedStyle(behind).backgroundColor)].sort((a, b) => b - a);
  return (more + 0.05) / (less + 0.05);
})"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_and_lines_can_be_read(dark: bool, page: Path, shown: Page) -> None:
    shown.show(page, 1280, dark=dark)
    ground = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") != dark
    words = shown.evaluate(f"[...document.querySelectorAll('h1, h2, h3, p, a, th, td, caption')].map({CONTRAST})")
    assert min(words) >= 4.5
    drawn = (
        "[...document.querySelectorAll('figure svg path, figure svg use')].filter(each =>"
        " !each.closest('defs') && each.style.stroke.includes('--side-'))"
    )
    assert min(shown.evaluate(f"{drawn}.map({CONTRAST})")) >= 3
    ink = "[...document.querySelectorAll('figure svg g[style*=\"--ink\"]')]"
    assert min(shown.evaluate(f"{ink}.map({CONTRAST})")) >= 4.5


def test_the_keyboard_and_a_screen_reader_reach_everything(page: Path, shown: Page) -> None:
    shown.show(page, 400)
    shown.press("Tab")
    assert shown.evaluate("document.activeElement.textContent") == "Skip to the results"
    assert shown.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    regions = "[...document.querySelectorAll('.scroll')]"
    assert shown.evaluate(f"{regions}.every(each => each.tabIndex === 0 && each.role === 'region' && each.ariaLabel)")
    names = "[...document.querySelectorAll('[aria-labelledby]')].map(each => each.getAttribute('aria-labelledby'))"
    assert shown.evaluate(f"{names}.every(name => document.getElementById(name).textContent)")
    assert shown.evaluate("[...document.querySelectorAll('figure svg')].every(each => each.ariaHidden === 'true')")
    assert shown.evaluate("[...document.querySelectorAll('table')].every(each => each.caption)")
    ids = shown.evaluate("[...document.querySelectorAll('[id]')].map(each => each.id)")
    assert len(ids) == len(set(ids))
    assert shown.evaluate("document.documentElement.lang") == "en"


def test_what_failed_is_told_and_names_are_shown_as_they_are(page: Path, shown: Page) -> None:
    shown.show(page, 1280)
    said = shown.evaluate("[...document.querySelectorAll('.bad')].map(each => each.textContent)")
    assert said == [f"{SIDES[FAILED]} failed, and has no figures: No space left on device"] * 2
    names = shown.evaluate("[...document.querySelectorAll('tbody th.long')].map(each => each.textContent)")
    assert names == [*SIDES]


def test_each_plot_can_be_had_as_a_picture(report: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    done = run_nrfs("report", report, report, "-o", tmp_path / "page.html", "--png", pictures)
    assert (done.returncode, done.stderr) == (0, "")
    written = sorted(path.name for path in pictures.iterdir())
    assert len(written) == 2 * 7
    assert "0-1-leveldb-latency.png" in written
    assert all((pictures / name).read_bytes().startswith(b"\x89PNG") for name in written)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: raw | {"version": 99}, "results of version 99"),
        (lambda raw: raw | {"format": "other"}, "not results of nrfs bench"),
        (lambda raw: {}, "not results of nrfs bench"),
        (lambda raw: [], "not results of nrfs bench"),
        (lambda raw: raw | {"runs": [{}]}, "not results of nrfs bench"),
        (lambda raw: {key: raw[key] for key in raw if key != "runs"} | {"workload": "nr"}, "which has no plots"),
    ],
)
def test_what_is_no_result_is_said_in_one_line(change: Any, said: str, report: Path, tmp_path: Path) -> None:  # noqa: ANN401
    path = tmp_path / "results.json"
    path.write_text(json.dumps(change(json.loads(report.read_text()))))
    done = run_nrfs("report", path, "-o", tmp_path / "page.html")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert said in done.stderr


def test_missing_files_and_packages_are_said_in_one_line(report: Path, tmp_path: Path) -> None:
    for arguments, said in [
        ((tmp_path / "missing", "-o", tmp_path / "page.html"), "missing: no such file or directory"),
        ((report, "-o", "/nowhere/page.html"), "cannot write"),
    ]:
        done = run_nrfs("report", *arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert said in done.stderr
    without = ("env", f"PYTHONPATH={tmp_path}")
    (tmp_path / "matplotlib.py").write_text("raise ModuleNotFoundError('no', name='matplotlib')")
    done = run_nrfs("report", report, "-o", tmp_path / "page.html", before=without)
    assert isinstance(done, subprocess.CompletedProcess)
    assert done.stderr == (
        "nrfs report: the page needs matplotlib, which is not installed: pip install 'nrfs[report]'\n"
    )


def test_a_page_in_markdown_has_the_tables_and_links_the_pictures(report: Path, tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    done = run_nrfs("report", report, "-o", page, "--png", tmp_path / "pictures")
    assert (done.returncode, done.stderr) == (0, "")
    lines = page.read_text().splitlines()
    tables = [place for place, line in enumerate(lines) if line.startswith("|---")]
    assert len(tables) == 3
    for place in tables:
        columns = lines[place].count("|")
        table = lines[place - 1 : place + len(SIDES)]
        assert all(line.startswith("|") and line.count("|") == columns for line in table), table
    links = [line.partition("](")[2].rstrip(")") for line in lines if line.startswith("![")]
    assert len(links) == 7
    assert all((tmp_path / link).exists() for link in links)
    assert f"**`{SIDES[FAILED]}` failed, and has no figures:** No space left on device" in lines
