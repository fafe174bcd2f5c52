"""``nrfs bench vm``, as a user runs it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from conftest import run_nrfs


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_nrfs("bench", "vm", *arguments, seconds=600)


def test_every_address_space_is_measured(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = bench("--cores", "1,2", "--rounds", "1", "--json", str(report))
    assert (done.returncode, done.stderr) == (0, "")
    published = [line.split() for line in done.stdout.splitlines() if "published" in line][:3]
    assert [(line[0], line[8], line[11]) for line in published] == [
        ("1", "0.70", "2.40"),
        ("8", "9.40", "16.30"),
        ("28", "33.40", "40.20"),
    ]
    summary = json.loads(report.read_text())["summary"]
    contenders = {"nrfs 1", "nrfs 2", "linux", "mutex", "rwlock", "multikernel"}
    assert {(each["contender"], each["threads"]) for each in summary} == {(c, t) for c in contenders for t in (1, 2)}
    for each in summary:
        rates = each["operations_per_second"]
        assert (rates.pop("resolve") is None) == (each["contender"] == "linux")
        assert all(rate > 0 for rate in rates.values())
        assert all(0 < p50 <= p99 <= most for p50, p99, most in each["nanoseconds"].values())
        assert (each["unmap_wait"] is not None) == each["contender"].startswith("nrfs")
        if each["unmap_wait"] is not None:
            average, longest = each["unmap_wait"]
            assert (0 < average <= longest) if each["threads"] > 1 else (average == longest == 0)


def test_what_cannot_be_measured_is_said_in_one_line(tmp_path: Path) -> None:
    for arguments, status in [
        (("--json", str(tmp_path)), 1),
        (("--cores", "0"), 2),
        (("--against", "sharded"), 2),
        (("--op", "read"), 2),
    ]:
        done = bench(*arguments)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (status, "", 1)
