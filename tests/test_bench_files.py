"""``nrfs bench files``, as a user runs it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from conftest import nrfs_command


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = nrfs_command("bench", "files", *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_every_count_is_measured_on_both_directories_and_nothing_is_left(
    mountpoint: Path, tmpfs: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    done = bench("--dir", str(mountpoint), "--against", str(tmpfs), "--counts", "100,200", "--json", str(report))
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads(report.read_text())["figures"]
    measured = [(each["directory"], each["count"]) for each in figures]
    assert measured == [(str(place), count) for count in (100, 200) for place in (mountpoint, tmpfs)]
    for each in figures:
        assert each["total"] == sum(each[phase] for phase in ("create", "list", "stat", "delete")) > 0
    assert [*mountpoint.iterdir(), *tmpfs.iterdir()] == []


def test_what_cannot_be_measured_is_said_in_one_line(tmp_path: Path) -> None:
    for arguments, status in [
        (("--dir", str(tmp_path / "missing")), 1),
        (("--dir", str(tmp_path), "--json", str(tmp_path)), 1),
        (("--dir", str(tmp_path), "--counts", "10,0"), 2),
        ((), 2),
    ]:
        done = bench(*arguments)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (status, "", 1)
