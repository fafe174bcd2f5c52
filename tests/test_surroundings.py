"""Whatever the caller's shell has or lacks: commands work, a daemon is not bound by it, and nobody sees a traceback."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import (
    NOBODY,
    PATIENCE_SECONDS,
    REPOSITORY,
    Mounts,
    User,
    daemon_of,
    entry_at,
    exit_status,
    nrfs_command,
    run_nrfs,
    take_away,
    wait_until,
)

CLOSED = {"input": "<&-", "output": ">&-", "error": "2>&-", "all": "<&- >&- 2>&-"}


def in_shell(script: str) -> tuple[str, ...]:
    """What runs a command behind a line of shell."""
    return ("bash", "-c", f'{script} "$@"', "bash")


def one_line(result: subprocess.CompletedProcess[str], status: int = 1) -> str:
    assert (result.returncode, result.stdout, len(result.stderr.splitlines())) == (status, "", 1), result
    return result.stderr


# What is missing


@pytest.mark.parametrize("closed", CLOSED.values(), ids=CLOSED.keys())
def test_standard_streams_may_be_closed(mount_nrfs: Mounts, closed: str) -> None:
    before = ("bash", "-c", f'"$@" {closed}', "bash")
    path = mount_nrfs.directory()
    assert run_nrfs("mount", path, "--size", "64M", before=before).returncode == 0
    process = daemon_of(path)
    targets = [str(Path(f"/proc/{process}/fd/{number}").readlink()) for number in range(3)]
    assert targets[0] == "/dev/null" and targets[1] == targets[2]
    assert not [target for target in targets if target == "/dev/fuse" or ":" in target]
    for command in (("status", path), ("status", "--json"), ("doctor",), ("--version",), ("umount", path)):
        result = run_nrfs(*command, before=before)
        assert (result.returncode == 0 or command == ("status", "--json")) and result.stderr == "", result


def test_an_output_that_takes_no_more_is_a_failure_in_one_line() -> None:
    before = ("bash", "-c", '"$@" > /dev/full', "bash")
    for command in ("status", "doctor"):
        line = one_line(run_nrfs(command, before=before))
        assert line == f"nrfs {command}: standard output: No space left on device\n"


def test_the_current_directory_may_be_gone(mount_nrfs: Mounts) -> None:
    path = mount_nrfs.directory()
    gone = mount_nrfs.directory()
    before = ("bash", "-c", f'cd {gone}; rmdir {gone}; export PYTHONPATH={REPOSITORY}; "$@"', "bash")
    for command in ("mount", "status", "umount"):
        line = one_line(run_nrfs(command, "here", before=before))
        assert line == f"nrfs {command}: here: the current directory, to which it is relative, is gone\n"
        gone.mkdir()
    failing: list[tuple[str | Path, ...]] = [("mount", path, "--log", "log"), ("bench", "memory", "--json", "report")]
    for arguments in failing:
        assert "unforeseen" not in one_line(run_nrfs(*arguments, before=before))
        gone.mkdir()
    for arguments in (("mount", path, "--size", "64M"), ("status", path), ("umount", path)):
        result = run_nrfs(*arguments, before=before)
        assert (result.returncode, result.stderr) == (0, "")
        gone.mkdir()


@pytest.mark.parametrize(
    "setting",
    ["PYTHONIOENCODING=ascii", "PYTHONIOENCODING=latin-1", "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0"],
)
def test_the_output_may_have_another_encoding(mount_nrfs: Mounts, setting: str) -> None:
    before = ("env", *setting.split())
    path = mount_nrfs.directory() / "ü-日本"
    path.mkdir()
    try:
        command = [*before, *nrfs_command("mount", path, "--size", "64M")]
        assert subprocess.run(command, cwd=REPOSITORY, check=False).returncode == 0
        for arguments in (["status"], ["status", path], ["doctor"], ["mount", path], ["umount", path]):
            done = subprocess.run(
                [*before, *nrfs_command(*arguments)], cwd=REPOSITORY, capture_output=True, check=False
            )
            assert b"Traceback" not in done.stderr and b"unforeseen" not in done.stderr
            # Of all mounts, others may be in whatever state.
            assert arguments == ["status"] or done.returncode == (1 if arguments[0] == "mount" else 0)
    finally:
        take_away(path)


def test_there_may_be_no_environment(mount_nrfs: Mounts, user: User) -> None:
    path = mount_nrfs.directory()
    for before, place in ((("env", "-i"), path), ((*user.before, "env", "-i"), user.home)):
        for arguments in (("mount", place, "--size", "64M"), ("status", place), ("doctor",), ("umount", place)):
            result = run_nrfs(*arguments, before=before)
            assert (result.returncode, result.stderr) == (0, "")


# What binds


def limits_of(process: int) -> dict[int, tuple[int, int]]:
    names = (resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)
    return {name: resource.prlimit(process, name) for name in names}


def test_limits_of_the_caller_do_not_bind_the_daemon(mount_nrfs: Mounts) -> None:
    path = mount_nrfs.directory()
    before = in_shell("ulimit -S -t 2; ulimit -S -f 0; ulimit -S -n 32; exec")
    assert run_nrfs("mount", path, "--size", "64M", before=before).returncode == 0
    limits = limits_of(daemon_of(path))
    assert limits[resource.RLIMIT_CPU][0] == resource.RLIM_INFINITY
    assert limits[resource.RLIMIT_FSIZE][0] == resource.RLIM_INFINITY
    soft, hard = limits[resource.RLIMIT_NOFILE]
    assert soft == hard
    (path / "file").write_bytes(bytes(1 << 20))


def test_a_limit_that_would_end_the_daemon_and_stays_is_a_reason_not_to_mount(mount_nrfs: Mounts, user: User) -> None:
    before = (*in_shell("ulimit -t 3600; exec"), *user.before)
    line = one_line(run_nrfs("mount", user.home, before=before))
    reason = "the limit of CPU time (ulimit -t 3600) would end the daemon, and root alone can lift it"
    assert line == f"nrfs mount: {reason}\n"
    assert entry_at(user.home) is None


def test_signals_that_the_caller_ignores_are_not_ignored(mount_nrfs: Mounts, user: User, as_reaper: None) -> None:
    ignoring = "import os, signal, sys\n" + "\n".join(
        f"signal.signal(signal.{name}, signal.SIG_IGN)" for name in ("SIGCHLD", "SIGTERM", "SIGHUP", "SIGINT")
    )
    blocking = "signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))"
    before = (sys.executable, "-c", f"{ignoring}\n{blocking}\nos.execvp(sys.argv[1], sys.argv[1:])")
    assert run_nrfs("mount", user.home, "--size", "64M", before=(*before, *user.before)).returncode == 0
    process = daemon_of(user.home)
    os.kill(process, signal.SIGTERM)
    assert exit_status(process) == 0
    assert entry_at(user.home) is None
    others = mount_nrfs.directory()
    line = one_line(run_nrfs("mount", others, before=(*before, *user.before)))
    assert line == f"nrfs mount: {others}: user has no write access to mountpoint {others}\n"


@pytest.mark.parametrize("foreground", [False, True])
def test_no_descriptor_of_the_caller_is_kept_whatever_the_limit(
    mount_nrfs: Mounts, tmp_path: Path, foreground: bool
) -> None:
    path = mount_nrfs.directory()
    held = tmp_path / "held"
    held.touch()
    before = in_shell(f"exec 200<{held}; ulimit -S -n 64; exec")
    if foreground:
        command = [*before, *nrfs_command("mount", path, "--size", "64M", "--foreground")]
        with subprocess.Popen(command, cwd=REPOSITORY) as process:
            try:
                wait_until(lambda: entry_at(path) is not None or process.poll() is not None, "the mount is made")
                files = open_files(process.pid)
            finally:
                process.terminate()
            process.wait(PATIENCE_SECONDS)
    else:
        assert run_nrfs("mount", path, "--size", "64M", before=before).returncode == 0
        files = open_files(daemon_of(path))
    assert files
    assert str(held) not in files


def open_files(process: int) -> list[str]:
    files = []
    for link in Path(f"/proc/{process}/fd").iterdir():
        with suppress(FileNotFoundError):  # It was closed meanwhile.
            files.append(str(link.readlink()))
    return files


# What nobody foresaw


BROKEN_COMMAND = "import mount.ending; mount.ending.end = lambda *_, **__: 1 / 0"
BROKEN_DAEMON = "import mount.mounting; mount.mounting.attach = lambda *_: 1 / 0"
BROKEN_LATER = "from mount.daemon import _Daemon; _Daemon._status = 5; _Daemon.serve = lambda *_: 1 / 0"


def run_broken(change: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    words = [str(argument) for argument in arguments]
    start = f"import sys; {change}; from nrfs.cli import main; sys.exit(main({words!r}))"
    command = [sys.executable, "-c", start]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def kept_traceback(line: str) -> str:
    path = Path(line.rstrip().rstrip(")").rpartition(" in ")[2])
    assert path.stat().st_mode & 0o077 == 0
    text = path.read_text()
    path.unlink()
    return text


def test_what_a_command_did_not_foresee_is_a_line_and_a_file(mount_nrfs: Mounts) -> None:
    line = one_line(run_broken(BROKEN_COMMAND, "umount", "/nowhere"))
    assert line.startswith("nrfs umount: unforeseen: ZeroDivisionError: division by zero (the traceback is in /")
    assert "Traceback" in kept_traceback(line)


@pytest.mark.parametrize("foreground", [False, True])
@pytest.mark.parametrize("change", [BROKEN_DAEMON, BROKEN_LATER])
def test_what_a_daemon_did_not_foresee_is_a_line_and_a_file(mount_nrfs: Mounts, change: str, foreground: bool) -> None:
    path = mount_nrfs.directory()
    more = ["--foreground"] if foreground else []
    line = one_line(run_broken(change, "mount", path, "--size", "64M", *more))
    assert "division by zero" in line and line.startswith("nrfs mount: ")
    assert "ZeroDivisionError" in kept_traceback(line)
    assert entry_at(path) is None


def test_with_a_log_the_traceback_is_there(mount_nrfs: Mounts, tmp_path: Path) -> None:
    log = tmp_path / "log"
    line = one_line(run_broken(BROKEN_LATER, "mount", mount_nrfs.directory(), "--size", "64M", "--log", log))
    assert line.endswith(f"(more is in {log})\n")
    assert "ZeroDivisionError" in log.read_text()


# The log


def test_the_log_is_a_plain_file_of_ones_own(mount_nrfs: Mounts, tmp_path: Path) -> None:
    mine, fifo, link, others = (tmp_path / name for name in ("mine", "fifo", "link", "others"))
    mine.touch()
    os.mkfifo(fifo)
    link.symlink_to(mine)
    others.touch()
    os.chown(others, NOBODY, NOBODY)
    path = mount_nrfs.directory()
    for log in (fifo, link, others, tmp_path, Path("/dev/null"), Path("/dev/stderr")):
        for more in ([], ["--foreground"]):
            line = one_line(run_nrfs("mount", path, "--size", "64M", "--log", log, *more))
            assert line.startswith(f"nrfs mount: {log}: the log must be a ")
    assert entry_at(path) is None
    mount_nrfs(path, log=mine)
