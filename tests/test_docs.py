"""The documentation: links lead somewhere, files that are named are there, and docs/cli.md is what the parser says."""

from __future__ import annotations

import re
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY

PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("nrfs/core/*/README.md")])
NAMES = [str(page.relative_to(REPOSITORY)) for page in PAGES]

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
NAMED_FILE = re.compile(r"[\w.-]+(?:/[\w.-]+)*/[\w.-]+\.(?:rs|pyi|py|md|toml)")


def text_of(page: Path) -> Iterator[str]:
    """The lines that are no block of code."""
    is_code = False
    for line in page.read_text().splitlines():
        if line.startswith("```"):
            is_code = not is_code
        elif not is_code and not line.startswith("    "):
            yield line


def anchors_of(page: Path) -> set[str]:
    """What headings can be linked by, as GitHub makes it of their text."""
    seen: Counter[str] = Counter()
    anchors = set()
    for line in text_of(page):
        if heading := re.match(r"#+ (.*)", line):
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).strip().lower()
            kept = (letter for letter in words if letter in " -_" or unicodedata.category(letter)[0] in "LNM")
            anchor = "".join(kept).replace(" ", "-")
            anchors.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
            seen[anchor] += 1
    return anchors


@pytest.mark.parametrize("name", NAMES)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading_of_this_repository(name: str) -> None:
    page = REPOSITORY / name
    broken = []
    for link in LINK.findall("\n".join(text_of(page))):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            broken.append(link)
    assert not broken


ROOTS = (REPOSITORY, REPOSITORY / "nrfs" / "core")
"""Where the paths begin that pages name."""

EXAMPLES = {
    "machines/src/counters.rs",
    "machines/tests/counters.rs",
    "python/src/counters.rs",
    "tests/test_counters.py",
    "tests/test_touch.py",
}
"""Files that a page tells the reader to make."""


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("docs/")])
def test_every_file_that_a_page_names_is_there(name: str) -> None:
    codes = (code for line in text_of(REPOSITORY / name) for code in CODE.findall(line))
    named = {path for code in codes for path in NAMED_FILE.findall(code)} - EXAMPLES
    # Others are another project's.
    ours = {path for path in named if any((root / path.split("/")[0]).is_dir() for root in ROOTS)}
    assert not {path for path in ours if not any((root / path).exists() for root in ROOTS)}


def test_the_page_of_the_command_line_is_what_the_parser_says() -> None:
    command = [sys.executable, "scripts/write-cli-reference", "--check"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
