"""The examples of docs/python.md and of the README do what the pages say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY


def blocks(name: str) -> list[str]:
    """The examples of a page."""
    return re.findall(r"^```python\n(.*?)^```$", (REPOSITORY / name).read_text(), re.MULTILINE | re.DOTALL)


# Each of docs/python.md is a program of its own. Those of the README continue each other.
EXAMPLES = [*blocks("docs/python.md"), "\n".join(blocks("README.md"))]


@pytest.mark.parametrize("code", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_does_what_its_page_says(code: str, tmp_path: Path) -> None:
    file = tmp_path / "test_example.py"
    file.write_text(code)
    tests = code.count("def test_")
    command = [sys.executable, *(["-m", "pytest", "-q", "-p", "no:cacheprovider"] if tests else []), str(file)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done
    assert not tests or f"{tests} passed" in done.stdout, done
