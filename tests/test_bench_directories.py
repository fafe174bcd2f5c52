"""What all workloads on directories have in common: how a run ends, and what becomes of its results."""

from __future__ import annotations

import json
import os
import platform
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, hear_interrupts, nrfs_command, run_nrfs, shown_at, wait_until
from support.results import only_run

from workloads.commands import ON_DIRECTORIES


def test_results_say_on_what_machine_and_how_they_were_measured(tmpfs: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    arguments = ("bench", "files", "--dir", tmpfs, "--counts", 10, "--json", report)
    assert run_nrfs(*arguments).returncode == 0
    machine = only_run(report).document["machine"]
    assert machine["command"] == f"nrfs {' '.join(map(str, arguments))}"
    assert machine["kernel"] == f"Linux {platform.release()}"
    assert machine["cpus"] == len(os.sched_getaffinity(0))
    assert machine["versions"]["python"] == platform.python_version()
    assert len(machine["load_before"]) == len(machine["load_after"]) == 3


def test_results_are_never_overwritten(tmpfs: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    report.write_text("before")
    done = run_nrfs("bench", "files", "--dir", tmpfs, "--counts", 1000000, "--json", report)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"nrfs bench files: {report}: is there already, and results are never overwritten\n"
    assert report.read_text() == "before"


INTERRUPTED = """
import os, random, signal, sys, threading, time
from pathlib import Path
from workloads.directories import temporary_directory

parent = Path(sys.argv[1])
for _ in range(300):
    timer = threading.Timer(random.random() * 0.004, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        with temporary_directory(parent, "work") as directory:
            for number in range(20):
                (directory / str(number)).touch()
        time.sleep(60)
    except KeyboardInterrupt:
        timer.join()
    assert not list(parent.iterdir())
"""


def test_an_interrupt_at_any_moment_leaves_no_directory(tmpfs: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(tmpfs)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=REPOSITORY, preexec_fn=hear_interrupts, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_interrupted_run_tells_what_it_has_measured(tmpfs: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = nrfs_command("bench", "files", "--dir", tmpfs, "--counts", 300, "--rounds", 10000, "--json", report)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,
    ) as process:
        seen: set[Path] = set()

        def fourth_round() -> bool:
            seen.update(tmpfs.iterdir())
            return len(seen) >= 4

        wait_until(fourth_round, "the fourth round")  # Then at least two are complete.
        process.send_signal(signal.SIGINT)
        printed, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "nrfs bench files: interrupted\n")
    run = only_run(report)
    run.check()
    assert f"medians of {len(run.orders)} rounds" in " ".join(printed.split())
    assert list(tmpfs.iterdir()) == []


def test_also_of_a_first_round_that_is_cut_off(tmpfs: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = nrfs_command("bench", "files", "--dir", tmpfs, "--counts", "10,10000000", "--json", report)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts
    ) as process:
        wait_until(lambda: any(len(list(place.iterdir())) > 10 for place in tmpfs.iterdir()), "the second count")
        process.send_signal(signal.SIGINT)
        printed, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "nrfs bench files: interrupted\n")
    assert "10: total" in printed and "Interrupted in the first round" in printed
    (run,) = json.loads(report.read_text())["runs"]
    assert [each["name"] for each in run["rounds"][0]["sides"]["0"]][-1] == "10: total"
    assert list(tmpfs.iterdir()) == []


@pytest.mark.parametrize("name", [workload.name for workload in ON_DIRECTORIES])
def test_every_workload_shows_at_a_terminal_how_far_it_is(name: str, tmpfs: Path) -> None:
    (workload,) = [each for each in ON_DIRECTORIES if each.name == name]
    ours, theirs = pty.openpty()
    command = nrfs_command("bench", name, "--dir", tmpfs, *workload.brief)
    environment = os.environ | {"TERM": "xterm"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = shown_at(ours)
    assert process.returncode == 0
    assert b"round 1/1" in shown
    assert b"100%" in shown
