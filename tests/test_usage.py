"""Bad usage is exit status 2 and a failure 1, in one line each, of every command alike; figures are finite."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from conftest import run_nrfs

BAD_USAGE = [
    "",
    "frobnicate",
    "--frobnicate",
    "mount",
    "mount /tmp --frobnicate",
    "mount /tmp /tmp",
    "mount /nowhere --size=lots",
    "mount /nowhere --size=0",
    "mount /nowhere --nodes=9999999",
    "mount /nowhere -o size=lots",
    "umount",
    "umount a b",
    "status a b",
    "status --frobnicate",
    "doctor x",
    "topology x",
    "topology --nodes 0",
    "topology --nodes 9999999",
    "topology --topology /dev/null",
    "bench",
    "bench frobnicate",
    "bench leveldb",
    "bench leveldb --dir /tmp --num 0",
    "bench leveldb --dir /tmp --benchmarks frobnicate",
    "bench files --dir /tmp --counts 0",
    "bench files --dir /tmp --rounds -1",
    "bench memory --data 1 --file-size 2",
    "bench memory --nodes 99999999",
    "bench memory --files 99999999999999999999999",
    "bench tree",
    "bench nr --write-ratio 101",
    "bench nr --structure stack --against sharded",
    "bench vm --op frobnicate",
    "bench service --size 8192 --file-size 4096",
]
FAILURES = [
    "mount /nowhere --size 64M",
    "umount /nowhere",
    "status /nowhere",
    "topology --topology /nowhere",
    "bench leveldb --dir /nowhere",
    "bench files --dir /dev/null",
    "bench tree --dir /tmp --source /nowhere",
    "bench memory --json /nowhere/report",
    f"bench files --dir {'long' * 100}",
]


@pytest.mark.parametrize(
    ("line", "status"), [(line, 2) for line in BAD_USAGE] + [(line, 1) for line in FAILURES], ids=lambda part: part
)
def test_what_is_wrong_is_one_line_and_an_exit_status(line: str, status: int) -> None:
    result = run_nrfs(*line.split())
    assert (result.returncode, result.stdout) == (status, "")
    assert len(result.stderr.splitlines()) == 1
    assert "unforeseen" not in result.stderr


LITTLE = [
    "leveldb --dir {place} --num 1 --value-size 1 --reads 1",
    "leveldb --dir {place} --against /dev/shm --num 1 --value-size 1 --reads 1 --rounds 1",
    "memory --files 1 --data 1 --file-size 1",
    "memory --files 1 --data 10000 --file-size 100",
    "files --dir {place} --counts 1",
    "files --dir {place} --against /dev/shm --counts 1,1 --rounds 1",
]


@pytest.mark.parametrize("line", LITTLE, ids=lambda line: line.split()[0])
def test_with_next_to_nothing_to_do_the_figures_are_finite(tmp_path: Path, line: str) -> None:
    report = tmp_path / "report.json"
    result = run_nrfs("bench", *line.format(place=tmp_path).split(), "--json", report)
    assert (result.returncode, result.stderr) == (0, "")
    assert "nan" not in result.stdout and "inf" not in result.stdout.replace("info", "")

    def check(value: object) -> None:
        match value:
            case dict():
                list(map(check, value.values()))
            case list():
                list(map(check, value))
            case float():
                assert math.isfinite(value)

    check(json.loads(report.read_text()))
