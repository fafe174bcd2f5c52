"""``nrfs bench sqlite``, as a user runs it."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from pathlib import Path

import pytest
from conftest import Mounts, run_nrfs
from support.mounts import Configuration, configurations

from workloads import sqlite
from workloads.failure import WorkloadError
from workloads.progress import ProgressBar

LITTLE = ("--rows", "2500", "--inserts", "50", "--reads", "300", "--rounds", "1")


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_nrfs("bench", "sqlite", *arguments, seconds=600)


@pytest.mark.parametrize("configuration", configurations([2, 1, 3]), ids=str)
def test_every_journal_is_measured_on_a_mount_and_on_tmpfs(
    tmp_path: Path, mount_nrfs: Mounts, configuration: Configuration
) -> None:
    report = tmp_path / "report.json"
    mountpoint = mount_nrfs(nodes=configuration.nodes, channel=configuration.channel)
    done = bench("--dir", str(mountpoint), "--against", "/dev/shm", *LITTLE, "--json", str(report))
    assert (done.returncode, done.stderr) == (0, "")
    assert list(mountpoint.iterdir()) == []
    (run,) = json.loads(report.read_text())["runs"]
    for figures in run["summary"].values():
        names = [
            f"{phase}, {journal}" for journal in ("wal", "rollback") for phase in ("insert", "transaction", "read")
        ]
        assert [each["name"] for each in figures] == names
        assert all(each["value"]["median"] > 0 and each["latency"]["50"] > 0 for each in figures)


def test_a_wrong_row_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damage(self: sqlite._Pass, database: sqlite3.Connection, keys: list[int]) -> int:
        database.execute("UPDATE entries SET value = 'wrong' WHERE key = ?", keys)
        return read(self, database, keys)

    read = sqlite._Pass._read
    monkeypatch.setattr(sqlite._Pass, "_read", damage)
    workload = sqlite.SQLite(("wal",), 100, 1, 10, 100, "off")
    with (
        ProgressBar(1) as bar,
        workload.measuring(bar) as measure,
        pytest.raises(WorkloadError, match="not the one that was inserted"),
    ):
        list(measure(tmp_path, "here", 0))
    assert list(tmp_path.iterdir()) == []


def test_a_full_file_system_is_one_line(mount_nrfs: Mounts) -> None:
    mountpoint = mount_nrfs(size="1M")
    done = bench("--dir", str(mountpoint), "--rows", "100000")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert "full" in done.stderr
