"""``nrfs bench service``, as a user runs it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from pathlib import Path

from conftest import hear_interrupts, nrfs_command, run_nrfs, shown_at

from workloads.commands.service import OPERATIONS


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_nrfs("bench", "service", *arguments, seconds=600)


SHORT = ("--rounds", "1", "--milliseconds", "20", "--file-size", "16384")


def test_every_operation_is_measured_and_how_it_scales(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = bench("--threads", "2", "--nodes", "1,2,3", "--size", "5000", *SHORT, "--json", str(report))
    assert (done.returncode, done.stderr) == (0, "")
    summary = json.loads(report.read_text())["summary"]
    keys = {(each["operation"], each["threads"], each["nodes"]) for each in summary}
    assert keys == {
        (operation, threads, nodes) for operation in OPERATIONS for threads in (1, 2) for nodes in (1, 2, 3)
    }
    assert len(summary) == len(keys)
    rates = {(each["operation"], each["threads"], each["nodes"]): each["operations_per_second"] for each in summary}
    assert all(rate > 0 for rate in rates.values())
    for each in summary:
        operation, threads, nodes = each["operation"], each["threads"], each["nodes"]
        if threads == 1:
            assert each["scaling"] is None
        else:
            assert each["scaling"] == rates[operation, threads, nodes] / rates[operation, 1, nodes]


def test_one_operation_is_shown_alone() -> None:
    done = bench("--op", "stat-apart", "--threads", "1", "--nodes", "1", *SHORT)
    assert (done.returncode, done.stderr) == (0, "")
    assert "stat-apart" in done.stdout
    assert "read-apart" not in done.stdout


def test_an_interrupted_run_shows_the_rounds_that_were_complete(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    options = ("--op", "stat-shared", "--threads", 1, "--nodes", 1, "--rounds", 100_000, "--milliseconds", 1)
    command = nrfs_command("bench", "service", *options, "--json", report)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm"},
        preexec_fn=hear_interrupts,
    ) as process:
        os.close(theirs)
        shown = b""
        while b"stat-shared" not in shown:  # Then it has a figure.
            shown += os.read(ours, 1 << 16)
        process.send_signal(signal.SIGINT)
        shown_at(ours)
        printed = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 130
    rounds = json.loads(report.read_text())["configuration"]["rounds"]
    assert 0 < rounds < 100_000 and f"medians of {rounds} rounds" in " ".join(printed.split())


def test_what_cannot_be_measured_is_said_in_one_line(tmp_path: Path) -> None:
    for arguments, status in [
        (("--json", str(tmp_path)), 1),
        (("--nodes", "1025"), 1),
        (("--threads", "0"), 2),
        (("--op", "read"), 2),
        (("--file-size", "5000"), 2),
        (("--size", "8192", "--file-size", "4096"), 2),
    ]:
        done = bench(*arguments)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (status, "", 1)
