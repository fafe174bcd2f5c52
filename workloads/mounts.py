"""File systems to compare, each mounted for a run: ours, tmpfs, and any command that mounts something.

A mount is described in a line, as ``nrfs --nodes 2``, ``tmpfs size=2G`` or ``cmd: COMMAND {mountpoint}``.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from time import monotonic, sleep
from types import MappingProxyType
from typing import Final, final

from workloads.failure import UsageError, WorkloadError

PATIENCE: Final = 30.0
"""Seconds within which a command must have mounted something, or have ended."""

EXAMPLES: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "pyfuse3": ("tmpfs.py", "/usr/share/doc/python3-pyfuse3/examples:/usr/share/doc/pyfuse3/examples"),
        "libfuse": ("memfs_ll", "/usr/share/doc/libfuse3-dev/examples:/usr/local/bin:/usr/bin"),
    }
)
"""The in-memory file systems among others' examples: the file's name, and where it is looked for. It may also be named:
``pyfuse3 PATH``."""


@final
@dataclass(frozen=True)
class Mount:
    """How to mount something."""

    name: str
    """As the user wrote it; what tables and plots call it."""
    command: tuple[str, ...]
    """``{mountpoint}`` stands for where."""
    umount: tuple[str, ...]
    serves: bool
    """Whether the command may go on, and serve the mount; otherwise it can be used when the command has ended."""


def parse(line: str) -> Mount:
    """Reads a description.

    Raises:
        UsageError: it cannot be understood, or what it needs is not installed.

    """
    name, is_named, rest = line.strip().partition("=")
    if is_named and re.fullmatch(r"[\w.-]+", name):
        return Mount(name, *_command(rest.strip()))
    return Mount(line.strip(), *_command(line.strip()))


def _command(line: str) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """The commands that mount and unmount, and whether the first one may go on running while the mount is used."""
    kind, _, rest = line.partition(" ")
    try:
        words = shlex.split(rest)
    except ValueError as failure:
        raise UsageError(f"{line!r}: {failure}") from None
    unmount = ("umount",) if os.geteuid() == 0 else ("fusermount3", "-u")
    match kind:
        case "nrfs":
            ours = (sys.executable, "-m", "nrfs.cli")
            return (*ours, "mount", "{mountpoint}", *words), (*ours, "umount"), False
        case "tmpfs":
            if os.geteuid() != 0:
                raise UsageError("tmpfs: only root can mount it (--dirs /dev/shm compares with one that is there)")
            options = ("-o", ",".join(words)) if words else ()
            return ("mount", "-t", "tmpfs", *options, "tmpfs", "{mountpoint}"), ("umount",), False
        case "cmd:":
            if not any("{mountpoint}" in word for word in words):
                raise UsageError(f"{line!r}: the command has no {{mountpoint}}")
            return tuple(words), unmount, True
        case "pyfuse3" | "libfuse":
            return (*_example(kind, words), "{mountpoint}"), unmount, True
    raise UsageError(f"{line!r}: there are 'nrfs OPTION...', 'tmpfs OPTION...', 'cmd: COMMAND', pyfuse3 and libfuse")


def _example(kind: str, words: Sequence[str]) -> tuple[str, ...]:
    name, places = EXAMPLES[kind]
    if words:
        path: str | None = words[0] if Path(words[0]).exists() else None
    else:
        path = next((str(each) for place in places.split(":") if (each := Path(place, name)).exists()), which(name))
    if path is None:
        place = words[0] if words else places.replace(":", ", ")
        raise UsageError(f"{kind}: its example {name} is not there ({place}); name it: '{kind} PATH'")
    return (sys.executable, path) if kind == "pyfuse3" else (path, "-f")


@contextmanager
def mounted(mounts: Sequence[Mount], tell: Callable[[str], None]) -> Iterator[list[Path]]:
    """Mounts all, each at a new directory, and yields those. Unmounts all in the end, also after an exception.

    Raises:
        WorkloadError: one cannot be mounted.

    """
    with ExitStack() as stack:
        parent = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nrfs-compare-")))
        places = []
        for number, mount in enumerate(mounts):
            place = parent / str(number)
            place.mkdir()
            tell(f"mounting {mount.name}")
            stack.enter_context(_one(mount, place))
            places.append(place)
        yield places


@contextmanager
def _one(mount: Mount, place: Path) -> Iterator[None]:
    command = [word.replace("{mountpoint}", str(place)) for word in mount.command]
    with tempfile.TemporaryFile() as said:
        try:
            # A group of its own: a ctrl-C at the terminal is for us, and we unmount.
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, process_group=0)
        except OSError as failure:
            raise WorkloadError(f"{mount.name}: {command[0]}: {failure.strerror}") from failure
        try:
            _wait(mount, place, process, said.fileno())
            yield
        finally:
            _end(mount, place, process)


def _wait(mount: Mount, place: Path, process: subprocess.Popen[bytes], said: int) -> None:
    """Waits until something is mounted, and can be used."""
    end = monotonic() + PATIENCE
    while not _is_mounted(place) or not (mount.serves or process.poll() == 0):
        status = process.poll()
        if status or monotonic() > end:
            lines = os.pread(said, 1 << 16, 0).decode(errors="replace").strip().splitlines()
            why = lines[-1] if lines else "nothing was mounted" if status is None else f"ended with {status}"
            raise WorkloadError(f"{mount.name}: {why}")
        sleep(0.01)


def _end(mount: Mount, place: Path, process: subprocess.Popen[bytes]) -> None:
    if _is_mounted(place):
        done = subprocess.run([*mount.umount, str(place)], capture_output=True, check=False)
        if done.returncode != 0 and _is_mounted(place):  # The daemon is dead, or the mount still in use.
            lazy = ["umount", "--lazy"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
            subprocess.run([*lazy, str(place)], capture_output=True, check=False)
    with suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE)
    if process.poll() is None:
        process.kill()
        process.wait()


def _is_mounted(place: Path) -> bool:
    """By the kernel's table: a mount whose daemon is dead is there, but cannot be asked."""
    return any(line.split(" ")[4] == str(place) for line in Path("/proc/self/mountinfo").read_text().splitlines())


def description(place: Path) -> str:
    """What the kernel says of the mount that has this directory: the type of file system, and its options."""
    best, found = -1, ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, more = line.partition(" - ")
        at = fields.split(" ")[4]
        if place.resolve().is_relative_to(at) and len(at) >= best:
            kind, _, options = more.split(" ", 2)
            best, found = len(at), f"{kind} ({fields.split(' ')[5]},{options})"
    return found
