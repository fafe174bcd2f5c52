"""``nrfs bench compare``: what it mounts is measured in turn, what fails is told, and nothing is left mounted."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Mounts, daemon_of, hear_interrupts, nrfs_command, run_nrfs, wait_until
from support.results import only_run, runs

from workloads.commands import ON_DIRECTORIES, compare

pytestmark = pytest.mark.usefixtures("_fuse_can_be_used", "_mounts_of_its_own")

FILES = "files --counts 20"


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_nrfs("bench", "compare", *arguments, seconds=280)


@pytest.fixture
def _mounts_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others may compare on this machine meanwhile: what a test mounts is below its own directory."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def mounts_left() -> list[str]:
    """What is mounted for a comparison by this test."""
    own = f"{os.environ['TMPDIR']}/nrfs-compare-"
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if line.split()[4].startswith(own)]


def a_peer(place: Path, body: str = "") -> str:
    """A command that mounts a tmpfs, and serves it, so to speak, until that is unmounted."""
    program = place / "peer"
    program.write_text(
        f"#!/bin/sh\nset -e\nmount -t tmpfs -o size=64K peer $1\n{body}\nwhile mountpoint -q $1; do sleep 0.05; done\n"
    )
    program.chmod(0o755)
    return f"peer=cmd: {shlex.quote(str(program))} {{mountpoint}}"


def test_every_workload_runs_on_nrfs_in_each_way_and_on_tmpfs(tmp_path: Path) -> None:
    report, source = tmp_path / "report.json", tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("content")
    small = [
        "leveldb --num 100",
        FILES,
        f"tree --source {source} --files 1",
        "fio --size 1048576 --seconds 1 --jobs read",
        "fxmark --workloads DRBL,MWCL --milliseconds 20 --cores 1",
        "sqlite --rows 200 --inserts 20 --reads 100",
    ]
    wanted = [next((each for each in small if each.split()[0] == one.name), one.name) for one in ON_DIRECTORIES]
    mounts = "nrfs --size 1G,nrfs --nodes 2 --channel device --size 1G,nrfs --channel pyfuse3 --size 1G,tmpfs size=1G"
    done = bench("--mounts", mounts, "--workloads", ",".join(wanted), "--rounds", 2, "--json", report)
    assert (done.returncode, done.stderr) == (0, "")
    every = runs(report)
    assert [*every] == [workload.name for workload in ON_DIRECTORIES]
    for run in every.values():
        run.check()
        assert run.orders == [[0, 1, 2, 3], [3, 2, 1, 0]]
        assert run.run["failures"] == []
        assert [side["name"] for side in run.document["sides"]] == mounts.split(",")
        kinds = [side["mount"].split()[0] for side in run.document["sides"]]
        assert kinds == ["fuse.nrfs", "fuse.nrfs", "fuse.nrfs", "tmpfs"]
    assert mounts_left() == []


def test_directories_are_compared_with_the_first(tmpfs: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = bench("--dirs", f"{tmpfs},{tmp_path},{tmpfs}", "--workloads", FILES, "--rounds", 1, "--json", report)
    assert (done.returncode, done.stderr) == (0, "")
    run = only_run(report)
    run.check()
    assert run.run["baseline"] == 0
    assert f"how many times as fast as {tmpfs}" in done.stdout
    assert list(tmpfs.iterdir()) == []


def test_what_fails_is_told_and_not_averaged_and_the_others_go_on(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = bench(
        *("--mounts", f"tmpfs size=64M,{a_peer(tmp_path)}", "--json", report),
        *("--workloads", f"files --counts 2 --size 60000,{FILES}", "--rounds", 2),
    )
    assert done.returncode == 1
    assert done.stderr == "nrfs bench compare: 1 of 4 figures are missing: FAILED above says why\n"
    assert "peer FAILED in round 1:" in done.stdout
    first, second = (run for run in json.loads(report.read_text())["runs"])
    assert [each["side"] for each in first["failures"]] == [1]
    assert [*first["summary"]] == ["0"]
    assert [*second["summary"]] == ["0", "1"]
    assert mounts_left() == []


def test_a_daemon_that_dies_is_told_and_unmounted(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = nrfs_command(
        *("bench", "compare", "--mounts", "tmpfs size=1G,nrfs --size 1G", "--json", report),
        *("--workloads", "files --counts 100000", "--rounds", 1),
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        places: list[Path] = []

        def busy() -> bool:
            places[:] = [Path(line.split()[4]) for line in mounts_left() if "fuse.nrfs" in line]
            return bool(places) and any(places[0].glob("*/file-*"))

        wait_until(busy, "files on nrfs")
        os.kill(daemon_of(places[0]), signal.SIGKILL)
        printed, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "nrfs --size 1G FAILED in round 1" in printed
    assert [*only_run(report).run["summary"]] == ["0"]
    assert mounts_left() == []


def test_an_interrupted_run_tells_what_it_has_and_unmounts(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = nrfs_command(
        *("bench", "compare", "--mounts", "tmpfs size=1G,nrfs --size 1G", "--json", report),
        *("--workloads", f"{FILES},files --counts 1000000", "--rounds", 1),
    )
    # As a terminal does: to the whole group.
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        preexec_fn=hear_interrupts,
    ) as process:

        def in_the_second() -> bool:
            places = [Path(line.split()[4]) for line in mounts_left()]
            return any(any(place.glob("*/file-00001000")) for place in places)

        wait_until(in_the_second, "the second workload")
        os.killpg(process.pid, signal.SIGINT)
        printed, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (130, "nrfs bench compare: interrupted\n")
    assert "20: create" in printed
    assert len(only_run(report).orders) == 1
    assert mounts_left() == []


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--mounts", "frobnicate"), 2, "there are 'nrfs OPTION...'"),
        (("--mounts", "cmd: true"), 2, "the command has no {mountpoint}"),
        (("--mounts", "cmd: 'true {mountpoint}"), 2, "No closing quotation"),
        (("--mounts", "pyfuse3 /nowhere/tmpfs.py"), 2, "name it: 'pyfuse3 PATH'"),
        (("--mounts", "cmd: false {mountpoint}"), 1, "ended with 1"),
        (("--mounts", "cmd: /nowhere {mountpoint}"), 1, "/nowhere: No such file"),
        (("--mounts", "tmpfs,nrfs --nodes 0"), 1, "--nodes"),
        (("--mounts", "tmpfs", "--dirs", "/tmp"), 2, "not allowed with"),
        (("--dirs", "/nowhere"), 1, "/nowhere: no such directory"),
        (("--workloads", "frobnicate"), 2, "unknown workload 'frobnicate'"),
        (("--workloads", "files --counts 0"), 2, "--counts"),
        (("--workloads", "fio --size 5"), 2, "not whole MiB"),
        (("--workloads", "fxmark --service"), 2, "is not done in directories"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(arguments: tuple[str, ...], status: int, said: str) -> None:
    done = bench(*arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (status, "", 1), done
    assert said in done.stderr
    assert mounts_left() == []


def test_commas_within_options_do_not_end_them() -> None:
    assert [
        mount.name
        for mount in compare._mounts("nrfs -o ro,nosuid --nodes 2,a=nrfs,tmpfs size=1G,cmd: x {mountpoint},y")
    ] == [
        "nrfs -o ro,nosuid --nodes 2",
        "a",
        "tmpfs size=1G",
        "cmd: x {mountpoint},y",
    ]
    first, second = compare._workloads("leveldb --benchmarks fillseq,readseq,files --counts 1,2")
    assert (first.name, second.name) == ("leveldb", "files")


def test_the_examples_of_others_can_be_named(tmp_path: Path) -> None:
    example = tmp_path / "tmpfs.py"
    example.touch()
    (mount,) = compare._mounts(f"pyfuse3 {example}")
    assert mount.command == (sys.executable, str(example), "{mountpoint}")


def test_a_mount_of_ours_can_be_compared_with_one_that_is_there(mount_nrfs: Mounts, tmpfs: Path) -> None:
    done = bench("--dirs", f"{mount_nrfs(nodes=2)},{tmpfs}", "--workloads", FILES, "--rounds", 1)
    assert (done.returncode, done.stderr) == (0, "")
