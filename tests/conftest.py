"""What tests against real mounts share: mounts that are always cleaned up, and places beside them.

A test gets its mounts from ``mount_nrfs``, or one with the defaults from ``mountpoint``. Whatever a
test does to them, they are gone afterwards; what a killed run of the tests left is taken away by the
next one. Nothing is skipped: where FUSE cannot be used, the tests fail and say so.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mount import control, mountinfo, places

REPOSITORY = Path(__file__).parent.parent
PREFIX = "nrfs-test-"
PATIENCE_SECONDS = 60.0
NOBODY = 65534
"""An ordinary user."""
PR_SET_CHILD_SUBREAPER = 36

in_a_guest = pytest.mark.skipif("NRFS_NUMA_VM" not in os.environ, reason="is for a guest: scripts/test --numa")
"""For tests that take CPUs away or ask for many nodes, and must not run on a machine that others use."""

alone = pytest.mark.alone
"""For tests beside which no other may run: they ask for nearly all memory or CPUs, or change the whole machine."""


@contextlib.contextmanager
def turn(is_alone: bool) -> Iterator[None]:
    """While it lasts, no test of another process runs that is ``alone``; and none at all if this one is.

    Who waits to be alone lets nobody else begin: so each has to pass the entrance first.
    """
    with contextlib.ExitStack() as room:
        with locked("entrance"):
            room.enter_context(locked("room", fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH))
        yield


@contextlib.contextmanager
def locked(name: str, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    """A lock between all processes that run tests."""
    with (Path(tempfile.gettempdir()) / f"{PREFIX}{name}-{os.geteuid()}").open("w") as file:
        fcntl.flock(file, how)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    with turn(item.get_closest_marker("alone") is not None):
        return (yield)


def in_namespace(script: str) -> tuple[str, ...]:
    """What runs a command where this shell script, which may mount what it likes, has been run before."""
    return ("unshare", "--mount", "sh", "-ec", f'{script}; exec "$@"', "sh")


def wait_until(condition: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Waits for what must come true soon, and fails where it does not."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain: {what}"
        time.sleep(0.005)


def shown_at(terminal: int) -> bytes:
    """All that comes out of the master of a pseudo-terminal, until its other end is closed; then it is closed too."""
    shown = b""
    try:
        while part := os.read(terminal, 65536):
            shown += part
    except OSError:  # The other end is closed.
        pass
    os.close(terminal)
    return shown


def nrfs_command(*arguments: object) -> list[str]:
    """The command line of ``nrfs`` in this interpreter."""
    return [sys.executable, "-m", "nrfs.cli", *map(str, arguments)]


def run_nrfs(
    *arguments: object, before: tuple[str, ...] = (), seconds: float = PATIENCE_SECONDS
) -> subprocess.CompletedProcess[str]:
    """Runs ``nrfs`` to its end.

    Args:
        arguments: of ``nrfs``.
        before: a command that runs it, such as ``setpriv`` with its own arguments.
        seconds: how long it may take.

    """
    return subprocess.run(
        [*before, *nrfs_command(*arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def hear_interrupts() -> None:
    """For ``preexec_fn``: what a shell runs in the background has SIGINT ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def options_of(options: dict[str, object]) -> list[str]:
    """Keyword arguments as long options: ``allow_other=True`` is ``--allow-other``, ``o="ro"`` is ``-o ro``."""
    words: list[str] = []
    for name, value in options.items():
        word = f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"
        if value is True:
            words.append(word)
        elif value is not None and value is not False:
            words += [word, str(value)]
    return words


def entry_at(path: Path) -> mountinfo.MountEntry | None:
    """The nrfs mount at ``path``, if there is one."""
    entry = mountinfo.topmost_at(str(path))
    return entry if entry is not None and entry.is_ours else None


def daemon_of(path: Path) -> int:
    """The process id of the daemon that serves the mount at ``path``."""
    entry = entry_at(path)
    assert entry is not None, f"nothing is mounted at {path}"
    return control.daemon_of(entry)


def is_alive(process: int) -> bool:
    """Whether a process runs; one that has ended and is not waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def exit_status(process: int) -> int:
    """Waits for the end of a daemon that is this process's child: see ``as_reaper``."""
    status: list[int] = []

    def ended() -> bool:
        reaped, raw = os.waitpid(process, os.WNOHANG)
        if reaped:
            status.append(os.waitstatus_to_exitcode(raw))
        return bool(reaped)

    wait_until(ended, "the daemon's end")
    return status[0]


@contextlib.contextmanager
def stopped(process: int) -> Iterator[None]:
    """Lets no thread of a process run meanwhile. The signal alone stops them one after the other."""

    def states() -> set[str]:
        tasks = Path(f"/proc/{process}/task").iterdir()
        return {(task / "stat").read_text().rpartition(") ")[2][0] for task in tasks}

    os.kill(process, signal.SIGSTOP)
    try:
        wait_until(lambda: states() == {"T"}, "the process to stop")
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def ownerless_control_files() -> set[str]:
    """What lies in this user's runtime directories and belongs to no mount."""
    files = [file for directory in places.runtime_directories(os.geteuid()) for file in directory.glob("*")]
    mounted = {entry.device for entry in mountinfo.entries() if entry.is_ours}
    return {str(file) for file in files if file.stem not in mounted}


def take_away(path: Path) -> None:
    """Unmounts all that is at ``path``, whatever state it is in, and ends its daemons."""
    while (entry := entry_at(path)) is not None:
        process = None
        with contextlib.suppress(Exception):
            process = control.daemon_of(entry)
        with contextlib.suppress(subprocess.TimeoutExpired):
            run_nrfs("umount", path)
        if entry_at(path) == entry:
            subprocess.run(["fusermount3", "-u", "-z", str(path)], capture_output=True, check=False)
        if process is not None and is_alive(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        assert entry_at(path) != entry, f"{path} cannot be unmounted"


@dataclass
class Mounts:
    """Makes mounts, remembers them, and takes them away in the end."""

    paths: list[Path] = field(default_factory=list)

    def directory(self) -> Path:
        """A new empty directory that anybody can enter, to mount at."""
        path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        path.chmod(0o755)
        self.paths.append(path)
        return path

    def __call__(self, path: Path | None = None, **options: object) -> Path:
        """Mounts, at a new directory unless told where, with these options of ``nrfs mount``."""
        path = path or self.directory()
        options = {"size": "1G", **options}
        result = run_nrfs("mount", path, *options_of(options))
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        return path

    def status(self, path: Path) -> dict[str, Any]:
        """What ``nrfs status --json`` says of a mount."""
        result = run_nrfs("status", "--json", path)
        assert result.stderr == ""
        status: dict[str, Any] = json.loads(result.stdout)
        return status

    def requests(self, path: Path) -> dict[str, int]:
        """How many requests of each kind have come to a mount. Asking for it makes none."""
        entry = entry_at(path)
        assert entry is not None
        requests: dict[str, int] = control.ask(entry, "status")["requests"]
        return requests

    def unmount(self, path: Path) -> None:
        """Ends a mount and its daemon by ``nrfs umount``."""
        result = run_nrfs("umount", path)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")

    def clean_up(self) -> None:
        """Takes all away."""
        for path in reversed(self.paths):
            take_away(path)
            shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_by_killed_runs() -> None:
    """Takes away the mounts of test runs whose process is gone."""
    places = {Path(entry.mountpoint) for entry in mountinfo.entries() if entry.is_ours}
    places |= set(Path(tempfile.gettempdir()).glob(f"{PREFIX}*"))
    for path in places:
        process = path.name.removeprefix(PREFIX).partition("-")[0]
        if path.name.startswith(PREFIX) and process.isdigit() and not is_alive(int(process)):
            take_away(path)
            shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def _fuse_can_be_used() -> None:
    device = Path("/dev/fuse")
    assert device.exists() and stat.S_ISCHR(device.stat().st_mode), "these tests need /dev/fuse (modprobe fuse)"


@pytest.fixture
def mount_nrfs(_fuse_can_be_used: None) -> Iterator[Mounts]:
    """Makes mounts on demand: ``mount_nrfs(nodes=2, cache="none")`` is the path of one."""
    mounts = Mounts()
    try:
        yield mounts
    finally:
        mounts.clean_up()


@pytest.fixture
def mountpoint(mount_nrfs: Mounts) -> Path:
    """A mount with the default options."""
    return mount_nrfs()


@dataclass(frozen=True)
class User:
    """An ordinary user, by the command that makes one of what comes behind it."""

    before: tuple[str, ...]
    home: Path


@pytest.fixture
def user(mount_nrfs: Mounts) -> Iterator[User]:
    """An ordinary user who may open /dev/fuse, as on every distribution. One test at a time has it."""
    device = Path("/dev/fuse")
    home = mount_nrfs.directory()
    os.chown(home, NOBODY, NOBODY)
    # The interpreter may lie where only root can read: that right alone is kept.
    capability = "-all,+dac_read_search"
    identity = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    rights = (f"--inh-caps={capability}", f"--ambient-caps={capability}")
    before = (*identity, *rights, "env", "-u", "XDG_RUNTIME_DIR")
    with locked("user"):
        mode = stat.S_IMODE(device.stat().st_mode)
        device.chmod(0o666)
        try:
            yield User(before, home)
        finally:
            device.chmod(mode)
            take_away(home)
            if any(Path(f"/tmp/nrfs-{NOBODY}").glob("*.sock")):  # Of killed daemons; root leaves that to the user.
                run_nrfs("status", before=before)


@pytest.fixture
def as_reaper() -> Iterator[None]:
    """Makes daemons this process's children, so that their exit status can be seen."""
    libc = ctypes.CDLL(None)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    try:
        yield
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.fixture
def tmpfs() -> Iterator[Path]:
    """A fresh directory on a tmpfs, to compare with."""
    shared_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared_memory if _is_tmpfs(shared_memory) else None) as name:
        path = Path(name)
        path.chmod(0o755)
        if _is_tmpfs(shared_memory):
            yield path
            return
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", name], check=True)
        try:
            yield path
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)


def _is_tmpfs(path: Path) -> bool:
    entry = mountinfo.topmost_at(str(path))
    return entry is not None and entry.filesystem_type == "tmpfs"
