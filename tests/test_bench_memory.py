"""``nrfs bench memory``, as a user runs it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from conftest import run_nrfs


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_nrfs("bench", "memory", *arguments, seconds=120)


def test_memory_is_reported_per_replica(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = bench("--nodes", "2", "--files", "20000", "--data", str(64 << 20), "--json", str(report))
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads(report.read_text())["figures"]
    # Loose bounds: they tell a file that costs something from one that costs far too much.
    assert 50 < figures["bytes_per_empty_file"] < 1000
    assert 0.5 < figures["bytes_per_byte"] < 2


def test_what_cannot_be_measured_is_said_in_one_line(tmp_path: Path) -> None:
    for arguments, status in [
        (("--data", "10", "--file-size", "20"), 2),
        (("--json", str(tmp_path)), 1),
        (("--nodes", "0"), 2),
        (("--nodes", "1000000000000"), 2),
        (("--files", "9" * 30), 2),
    ]:
        done = bench(*arguments)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (status, "", 1)
