"""A mount on a machine with four NUMA nodes, and the script that makes one: see docs/numa.md."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from conftest import REPOSITORY, hear_interrupts, wait_until

PROGRAM = REPOSITORY / "scripts" / "numa-vm"
SECONDS = 600
"""As long as a machine that does much else may take; it is well under a minute and a half otherwise."""


def numa_vm(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS + 60,
        check=False,
    )


@pytest.fixture(scope="session")
def _a_guest_can_be_made() -> None:
    checked = numa_vm("--check")
    if checked.returncode != 0:
        pytest.skip(checked.stderr.strip())


def test_in_a_guest_each_replicas_content_is_on_its_node_and_the_replicas_are_equal(_a_guest_can_be_made: None) -> None:
    words = ["--nodes", "4", "--memory", "512", "--timeout", f"{SECONDS}"]
    done = numa_vm(*words, "--", sys.executable, str(REPOSITORY / "tests" / "support" / "in_a_guest.py"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "in a guest: 4 nodes, each with its content; the replicas are equal" in done.stdout


def test_a_guest_that_is_interrupted_leaves_nothing(_a_guest_can_be_made: None, tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [str(PROGRAM), "--nodes", "1", "--memory", "256", "--", "sleep", "600"]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, preexec_fn=hear_interrupts)
    try:
        wait_until(lambda: list(tmp_path.glob("numa-vm-*/console")), "the guest")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 128 + signal.SIGINT
    finally:
        process.kill()
        process.wait()
    assert not list(tmp_path.iterdir())
    shown = subprocess.run(["ps", "-A", "-o", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in shown


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "give a command, or --setup, or --check"),
        (["--cpus", "1,2", "--", "true"], "--cpus is for 2 nodes, and --nodes says 4"),
        (["--memory", "0", "--", "true"], "a machine needs memory"),
        (["--distance", "10", "--", "true"], "a distance is from 11 to 254"),
        (["--cpus", "few", "--", "true"], "'few' is neither a number nor numbers with commas"),
    ],
)
def test_what_is_no_machine_is_refused(words: list[str], problem: str) -> None:
    done = numa_vm(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert problem in done.stderr


def test_where_something_is_missing_one_line_says_how_to_get_it() -> None:
    with tempfile.TemporaryDirectory() as empty:
        done = numa_vm("--", "true", environment={**os.environ, "XDG_CACHE_HOME": empty})
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("numa-vm: ") and done.stderr.count("\n") == 1
    assert any(word in done.stderr for word in ("scripts/numa-vm --setup", "root", "x86-64"))
