"""``nrfs bench tree``, as a user runs it; and that no wrong result gets past it."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from shutil import which

import pytest
from conftest import Mounts, hear_interrupts, nrfs_command, wait_until
from support.results import only_run

from workloads.tree import STEPS

PACKED = 6
"""Files of ``source`` that are part of the tree."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small tree, with what is not packed, and what tools stumble over."""
    root = tmp_path / "source"
    package = root / "package" / ("deep" * 30)
    package.mkdir(parents=True)
    (root / "package" / "module.py").write_text("import os\n" * 500)
    (root / ".gitignore").write_text("module.py\n")
    (root / "with space\nand line").touch()
    (package / "\u00e4\u00f6.bin").write_bytes(bytes(range(256)) * 400)
    (package / "lines.txt").write_bytes(b"one\r\ntwo\r\n")
    (root / "linked.py").symlink_to("package/module.py")
    (root / "dangling").symlink_to("nowhere")
    (root / "empty").mkdir()
    (root / ".gitattributes").write_text("* text=auto\n")
    (root / "built.so").touch()
    for name in (".git", "site-packages"):
        (root / name).mkdir()
        (root / name / "HEAD").touch()
    return root


def bench(*arguments: object, **environment: object) -> subprocess.CompletedProcess[str]:
    settings = os.environ | {name: str(value) for name, value in environment.items()}
    command = nrfs_command("bench", "tree", *arguments)
    return subprocess.run(command, env=settings, capture_output=True, text=True, check=False, timeout=120)


def complaint(done: subprocess.CompletedProcess[str], status: int = 1) -> str:
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (status, "", 1), done
    return done.stderr


def test_every_step_is_taken_on_both_directories_and_nothing_is_left(
    mountpoint: Path, tmpfs: Path, source: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    directories = ["--dir", mountpoint, "--against", tmpfs]
    done = bench(*directories, "--source", source, "--files", 3 * PACKED, "--rounds", 3, "--json", report)
    assert (done.returncode, done.stderr) == (0, "")
    run = only_run(report)
    run.check()
    assert run.orders == [[0, 1], [1, 0], [0, 1]]
    assert run.names == [*STEPS, "total"]
    for step in run.names:
        assert all(seconds > 0 for side in (0, 1) for seconds in run.values(step, side))
        assert f"\n{step} " in done.stdout
    assert f" {3 * PACKED} files" in done.stdout
    assert f"how many times as fast as {tmpfs}" in done.stdout
    assert [*mountpoint.iterdir(), *tmpfs.iterdir()] == []


def test_the_tree_is_the_standard_library_unless_told(tmpfs: Path) -> None:
    done = bench("--dir", tmpfs, "--files", 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ratio" not in done.stdout
    assert list(tmpfs.iterdir()) == []


def test_nothing_that_the_user_has_set_up_for_a_tool_is_heeded(tmpfs: Path, source: Path) -> None:
    home = source.parent / "home"
    (home / ".config" / "git").mkdir(parents=True)
    (home / ".gitconfig").write_text("[commit]\n\tgpgSign = true\n[gpg]\n\tprogram = false\n")
    (home / ".config" / "git" / "attributes").write_text("* text\n")
    done = bench(
        *("--dir", tmpfs, "--source", source, "--files", 1),
        HOME=home,
        GIT_CONFIG_GLOBAL=home / ".gitconfig",
        GIT_DIR=home / "elsewhere",
        TAR_OPTIONS="--exclude=*.py",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not (home / "elsewhere").exists()


@pytest.mark.parametrize(
    ("tool", "then", "said"),
    [
        ("tar", "rm tree/1/.gitignore", "find: 5 files found, not 6"),
        ("tar", "printf x | dd of=tree/1/package/module.py conv=notrunc status=none", "is not what was packed"),
        ("tar", "echo tar: it broke >&2; exit 2", "tar: it broke"),
        ("grep", "printf 'one more\\0'", "grep -r: 7 files searched, not 6"),
        ("cp", "echo >>copy/1/package/module.py", "diff"),
        ("rm", "mkdir left", "rm -rf: 1 names left, not 0"),
    ],
)
def test_a_wrong_result_is_no_figure(tool: str, then: str, said: str, tmpfs: Path, source: Path) -> None:
    programs = source.parent / "programs"
    programs.mkdir()
    program = programs / tool
    program.write_text(f'#!/bin/sh\n{which(tool)} "$@"\nstatus=$?\n{then}\nexit $status\n')
    program.chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    assert said in complaint(bench("--dir", tmpfs, "--source", source, "--files", 1, PATH=path))
    assert list(tmpfs.iterdir()) == []


def test_missing_tools_are_named(tmpfs: Path, tmp_path: Path) -> None:
    assert "needs tar, find, grep, cp, diff, git, rm" in complaint(bench("--dir", tmpfs, PATH=tmp_path))


def test_a_directory_without_room_is_said_in_one_line(mount_nrfs: Mounts, source: Path) -> None:
    mountpoint = mount_nrfs(size="256K")
    (source / "large").write_bytes(bytes(1 << 20))
    assert "No space left on device" in complaint(bench("--dir", mountpoint, "--source", source, "--files", 1))
    assert list(mountpoint.iterdir()) == []


def test_what_cannot_be_measured_is_said_in_one_line(tmpfs: Path, source: Path) -> None:
    missing = source / "missing"
    for arguments, status, said in [
        (("--dir", missing), 1, f"{missing}: no such directory"),
        (("--dir", tmpfs, "--source", missing), 1, f"{missing}: no such directory"),
        (("--dir", tmpfs, "--source", source / "linked.py"), 1, "not a directory"),
        (("--dir", tmpfs, "--source", source / "empty"), 1, "no file to make a tree of"),
        (("--dir", "/proc", "--source", source), 1, "/proc: cannot create a directory here"),
        (("--dir", tmpfs, "--files", "0"), 2, "--files"),
        (("--dir", tmpfs, "--rounds", "0"), 2, "--rounds"),
        ((), 2, "--dir"),
    ]:
        assert said in complaint(bench(*arguments), status)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_and_leaves_nothing(number: signal.Signals, status: int, tmpfs: Path, source: Path) -> None:
    command = nrfs_command("bench", "tree", "--dir", tmpfs, "--source", source, "--files", 600, "--rounds", 1000)
    # A shell that runs us in the background has SIGINT ignored, and children inherit that.
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts) as process:
        wait_until(lambda: any(tmpfs.glob("*/copy")), "a step")
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said.count("\n")) == (status, 1 if number == signal.SIGINT else 0)
    assert list(tmpfs.iterdir()) == []
