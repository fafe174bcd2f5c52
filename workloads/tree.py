"""Ordinary work with a source tree, by the usual tools: unpack, search, copy, compare, commit and remove it.

The time of a step is that of its processes, from start to end, as for a user at a shell. Starting a process takes
about a millisecond. The result of each step is checked, which is not timed; in the end git must have exactly the bytes
that were packed. The tree is packed once, into memory of this process, so that the compared file systems do not have
to read it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import signal
import subprocess
import sysconfig
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import product
from pathlib import Path
from shutil import which
from time import perf_counter
from typing import BinaryIO, Final, NoReturn, final

from workloads.compared import Measure
from workloads.directories import temporary_directory
from workloads.failure import WorkloadError
from workloads.figures import Figure
from workloads.progress import ProgressBar

STEPS: Final = ("tar x", "find", "grep -r", "cp -r", "diff -r", "git", "rm -rf")
TOOLS: Final = ("tar", "find", "grep", "cp", "diff", "git", "rm")

LEFT_OUT: Final = frozenset({".git", ".gitattributes", "site-packages", "dist-packages"})
"""Names that are not packed: other projects, and files that would make git store other bytes than the files have."""

BUILT: Final = frozenset({".a", ".o", ".pyc", ".so"})
"""Suffixes of files that are built from source, which are not packed, either."""

ENVIRONMENT: Final = {
    "PATH": os.environ.get("PATH", os.defpath),
    "LC_ALL": "C",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
}
"""The whole environment of the tools: no settings of the user affect them. Without HOME, git reads no user's file."""

GIT: Final = (
    "git",
    *("-c", "user.name=nrfs", "-c", "user.email=nrfs@localhost"),
    # Both would continue after the commit, and make files while the tree is removed.
    *("-c", "gc.auto=0", "-c", "maintenance.auto=false"),
)


@final
@dataclass(frozen=True)
class Packed:
    """The packed tree."""

    archive: int
    """A descriptor of the tar archive, which is a file in memory."""
    objects: dict[bytes, bytes]
    """By path in the tree, git's object name for the content of each file."""
    size: int
    """Bytes of all files."""


@final
@dataclass(frozen=True)
class Tree:
    """The workload."""

    source: Path | None
    """The tree to pack; None: the standard library of this Python."""
    files: int
    """About how many files to pack. The source is repeated in numbered directories."""

    @property
    def name(self) -> str:
        return "tree"

    @property
    def title(self) -> str:
        return f"A tree of about {self.files:,} files: seconds of each step"

    @property
    def notes(self) -> Sequence[str]:
        return ["git: init, add and commit. rm -rf: of the tree and its copy. Every result was right."]

    @property
    def steps(self) -> int:
        return len(STEPS)

    @contextmanager
    def measuring(self, bar: ProgressBar) -> Iterator[Measure]:
        """Packs the tree. Raises a WorkloadError if a tool is missing."""
        missing = [tool for tool in TOOLS if which(tool) is None]
        if missing:
            raise WorkloadError(f"needs {', '.join(missing)}: not found in PATH")
        bar.begin("packing the tree")
        with os.fdopen(os.memfd_create("nrfs-bench-tree"), "w+b") as archive:
            packed = _pack(self.source or Path(sysconfig.get_path("stdlib")), self.files, archive)

            def one_pass(directory: Path, where: str, number: int) -> Iterator[Figure]:
                with temporary_directory(directory, "tree") as place:
                    total = 0.0
                    for step, spent in _Pass(place, where, bar).take(packed):
                        total += spent
                        yield Figure(step, spent, "s")
                note = f"{len(packed.objects):,} files, {packed.size / 2**20:.1f} MiB"
                yield Figure("total", total, "s", note=note)

            yield one_pass


def _pack(source: Path, files: int, archive: BinaryIO) -> Packed:
    objects: dict[bytes, bytes] = {}
    size = 0
    try:
        names = sorted(_files(source))
        if not names:
            raise WorkloadError(f"{source}: no file to make a tree of")
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for copy, name in product(range(max(1, round(files / len(names)))), names):
                content = (source / name).read_bytes()
                path = Path(str(copy + 1), name)
                entry = tarfile.TarInfo(str("tree" / path))
                entry.size = len(content)
                entry.mtime = int((source / name).stat().st_mtime)
                entry.uid, entry.gid = os.geteuid(), os.getegid()
                tar.addfile(entry, BytesIO(content))
                objects[os.fsencode(path)] = _object(content)
                size += len(content)
        archive.flush()
    except OSError as failure:
        raise WorkloadError(f"{failure.filename or source}: {failure.strerror}") from failure
    return Packed(archive.fileno(), objects, size)


def _files(source: Path) -> Iterator[Path]:
    """The paths below ``source`` of the files to pack: regular files, and symlinks to regular files."""

    def fail(failure: OSError) -> NoReturn:
        raise failure

    for directory, directories, names in os.walk(source, onerror=fail):
        directories[:] = (name for name in directories if name not in LEFT_OUT)
        for name in names:
            path = Path(directory, name)
            if name not in LEFT_OUT and path.suffix not in BUILT and path.is_file():
                yield path.relative_to(source)


def _object(content: bytes) -> bytes:
    """Git's object name (SHA-1) for a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest().encode()


@final
class _Pass:
    """One pass of all steps, in a new directory."""

    def __init__(self, place: Path, where: str, bar: ProgressBar) -> None:
        self._place = place
        self._where = where
        self._bar = bar
        self._seconds: dict[str, float] = {}

    def take(self, packed: Packed) -> Iterator[tuple[str, float]]:
        """Does every step; yields its name, and the seconds that it took, once its result was right."""
        count = len(packed.objects)
        os.lseek(packed.archive, 0, os.SEEK_SET)
        with self._step("tar x"):
            self._run("tar", "xf", "-", stdin=packed.archive)
        with self._step("find"):
            found = self._run("find", "tree", "-type", "f", "-print0")
        yield self._took("tar x")
        self._expect("find", "files found", found.count(b"\0"), count)
        yield self._took("find")
        # The pattern occurs nowhere, so grep reads all files; -L lists them.
        with self._step("grep -r"):
            unmatched = self._run("grep", "-rLZ", secrets.token_hex(), "tree", statuses=(0, 1))
        self._expect("grep -r", "files searched", unmatched.count(b"\0"), count)
        yield self._took("grep -r")
        with self._step("cp -r"):
            self._run("cp", "-r", "tree", "copy")
        with self._step("diff -r"):
            self._run("diff", "-r", "tree", "copy")
        yield self._took("cp -r")
        yield self._took("diff -r")
        with self._step("git"):
            self._run(*GIT, "init", "--quiet", "--object-format=sha1", "tree")
            self._run(*GIT, "-C", "tree", "add", "--all", "--force", ".")
            self._run(*GIT, "-C", "tree", "commit", "--quiet", "--message=all")
        self._check_commit(packed)
        yield self._took("git")
        with self._step("rm -rf"):
            self._run("rm", "-rf", "tree", "copy")
        self._expect("rm -rf", "names left", len(list(self._place.iterdir())), 0)
        yield self._took("rm -rf")

    def _took(self, step: str) -> tuple[str, float]:
        return step, self._seconds[step]

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        """Times the enclosed statements as a step."""
        self._bar.begin(f"{self._where}  {name}")
        began = perf_counter()
        yield
        self._seconds[name] = perf_counter() - began
        self._bar.end(1)

    def _check_commit(self, packed: Packed) -> None:
        listing = self._run(*GIT, "-C", "tree", "ls-tree", "-r", "-z", "HEAD")
        committed = {}
        for line in listing.split(b"\0")[:-1]:
            attributes, _, path = line.partition(b"\t")
            committed[path] = attributes.split()[2]
        self._expect("git", "files committed", len(committed), len(packed.objects))
        for path, content in packed.objects.items():
            if committed.get(path) != content:
                raise WorkloadError(f"{self._where}: git: {os.fsdecode(path)} is not what was packed")

    def _run(self, *command: str, stdin: int = subprocess.DEVNULL, statuses: Sequence[int] = (0,)) -> bytes:
        """Runs a tool to its end; returns its output. An exception kills the tool."""
        done = subprocess.run(command, cwd=self._place, env=ENVIRONMENT, stdin=stdin, capture_output=True, check=False)
        if done.returncode not in statuses:
            said = (done.stderr or done.stdout).decode(errors="replace").splitlines()
            why = said[0] if said else f"ended with {done.returncode}"
            if done.returncode < 0:
                why = f"killed by {signal.Signals(-done.returncode).name}"
            raise WorkloadError(f"{self._where}: {command[0]}: {why}")
        return done.stdout

    def _expect(self, step: str, what: str, found: int, expected: int) -> None:
        if found != expected:
            raise WorkloadError(f"{self._where}: {step}: {found:,} {what}, not {expected:,}")
