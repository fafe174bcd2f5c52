"""``nrfs bench fxmark``, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Mounts, hear_interrupts, nrfs_command, run_nrfs
from support.mounts import Configuration, configurations

WITHOUT_MANY_FILES = ("DRBL", "DWOL", "DWSL", "MRPL", "mix")
"""All others prepare thousands of files, which takes minutes in a mount. bench/tests/fxmark.rs has them all."""
SHORT = ("--milliseconds", "20", "--file-size", "1048576", "--rounds", "1", "--cores", "1,2")


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_nrfs("bench", "fxmark", *arguments, seconds=600)


def summary_of(report: Path) -> dict[str, list[dict[str, Any]]]:
    summary: dict[str, list[dict[str, Any]]] = json.loads(report.read_text())["runs"][0]["summary"]
    return summary


@pytest.mark.parametrize("configuration", configurations([2, 1, 3]), ids=str)
def test_workloads_run_in_a_mount_and_in_tmpfs(
    tmp_path: Path, mount_nrfs: Mounts, configuration: Configuration
) -> None:
    report = tmp_path / "report.json"
    mountpoint = mount_nrfs(nodes=configuration.nodes, channel=configuration.channel)
    workloads = ("--workloads", ",".join(WITHOUT_MANY_FILES))
    done = bench("--dir", str(mountpoint), "--against", "/dev/shm", *workloads, *SHORT, "--json", str(report))
    assert (done.returncode, done.stderr) == (0, "")
    assert list(mountpoint.iterdir()) == []
    for figures in summary_of(report).values():
        rates = [each for each in figures if each["unit"] == "op/s"]
        assert {each["name"].split(",")[0] for each in rates} == set(WITHOUT_MANY_FILES)
        # With one core and with two; of the mix four ratios, on one file and on one for each core.
        assert len(rates) == 2 * (len(WITHOUT_MANY_FILES) - 1 + 4 * 2)
        assert all(each["value"]["median"] > 0 for each in figures)


def test_the_service_is_compared_with_threads_that_share_nothing(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = bench("--service", "--nodes", "1,2,3", "--workloads", "mix,MWCM", *SHORT, "--json", str(report))
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(report.read_text())
    assert [side["name"] for side in document["sides"]] == ["1 replicas", "2 replicas", "3 replicas", "apart"]
    for side, figures in summary_of(report).items():
        scaling = [each for each in figures if each["name"] == "MWCM: times 1 core"]
        assert len(scaling) == 1 and scaling[0]["value"]["median"] > 0
        assert (scaling[0]["ratio"] is None) == (side == "3")
    parts = [
        figure["more"]["harness_part"]
        for each in document["runs"][0]["rounds"]
        for side in each["sides"].values()
        for figure in side
        if figure["unit"] == "op/s"
    ]
    assert all(0 < part < 1 for part in parts)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_process_and_no_file(tmp_path: Path, number: signal.Signals) -> None:
    place = tmp_path / "place"
    place.mkdir()
    arguments = ("--dir", str(place), "--workloads", "MWCL,MWCM", "--milliseconds", "100000", "--cores", "1,2")
    with subprocess.Popen(
        nrfs_command("bench", "fxmark", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        preexec_fn=hear_interrupts,
    ) as run:
        while not list(place.glob("*/measured/0000/*")):
            assert run.poll() is None
            time.sleep(0.05)
        # As the terminal does it; SIGTERM goes to the command alone.
        if number == signal.SIGINT:
            os.killpg(run.pid, number)
        else:
            run.terminate()
        _, said = run.communicate(timeout=60)
        assert run.returncode == 128 + number
        assert "Traceback" not in said
    assert list(place.iterdir()) == []


def test_a_full_file_system_is_one_line(mount_nrfs: Mounts) -> None:
    mountpoint = mount_nrfs(size="8M")
    done = bench("--dir", str(mountpoint), "--workloads", "DWTL", *SHORT)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert "No space left on device" in done.stderr
    assert "DWTL" in done.stderr


def test_what_cannot_be_measured_is_said_in_one_line(tmp_path: Path) -> None:
    for arguments, status in [
        ((), 2),
        (("--service", "--dir", str(tmp_path)), 2),
        (("--service", "--against", str(tmp_path)), 2),
        (("--service", "--workloads", "DRBX"), 2),
        (("--service", "--file-size", "5000"), 2),
        (("--service", "--open-files", "0"), 2),
        (("--service", "--nodes", "1025", "--workloads", "DRBL"), 1),
        (("--dir", "/nowhere"), 1),
    ]:
        done = bench(*arguments)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (status, "", 1)
