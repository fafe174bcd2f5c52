"""A mount can be mounted once more with mapped ids, as containers do with volumes, and there does what tmpfs does.

Under it, and beside it, the kernel names the caller of no request but those that make inodes: so what goes by who the
caller is must come out right all the same.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import acl, programs
from support.compare import outcome
from support.id_mapping import COUNT, FIRST, id_mapped
from support.mounts import Configuration, configurations, mounted_pair
from support.operations import ACCESS_LIST, DEFAULT_LIST, shown
from support.syscalls import FALLOC_FL_KEEP_SIZE, RENAME_WHITEOUT, acting_as, fallocate, linkat, opened, renameat2

CONFIGURATIONS = configurations([1, 2], ("writeback", "none"))

ROOT, OWNER, OTHER = 0, FIRST + 1000, FIRST + 2000
"""Who acts: root, who has no id there; and two users, by the ids with which they are known outside."""


@dataclass(frozen=True)
class Side:
    """One file system: as it is, and with mapped ids."""

    plain: Path
    mapped: Path
    configuration: Configuration


@pytest.fixture(scope="module", params=CONFIGURATIONS, ids=str)
def sides(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    places = tmp_path_factory.mktemp("mapped")
    places.chmod(0o755)
    directory = tmp_path_factory.mktemp("pair")
    with mounted_pair(directory, request.param, allow_other=True, o="suid") as pair:
        try:
            with id_mapped(pair.reference, places / "tmpfs") as tmpfs, id_mapped(pair.subject, places / "nrfs") as nrfs:
                yield Side(pair.reference, tmpfs, request.param), Side(pair.subject, nrfs, request.param)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM, errno.ENOSYS):
                raise
            pytest.skip(f"the kernel mounts nothing with mapped ids: {error}")


def alike(sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch, work: Callable[[Side], object]) -> object:
    """What is done in a fresh directory of everybody's, which must be the same on both; so must what is there then."""
    results = []
    name = f"{os.getpid()}-{os.urandom(4).hex()}"
    for side in sides:
        fresh = side.plain / name
        fresh.mkdir()
        fresh.chmod(0o777)
        monkeypatch.chdir(side.mapped / name)
        done = work(side)
        seen = [{path.name: shown(path.lstat()) for path in top.iterdir()} for top in (Path(), fresh)]
        results.append((done, seen))
        monkeypatch.chdir("/")
    assert results[1] == results[0]
    return results[1][0]


def made_by(user: int, name: str, mode: int = 0o644) -> Path:
    with acting_as(user, 0):
        path = Path(name)
        with opened(path, os.O_CREAT | os.O_WRONLY) as descriptor:
            os.write(descriptor, b"data\n")
        path.chmod(mode)
    return path


def test_owners_are_shown_mapped_and_kept_unmapped(sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch) -> None:
    def work(side: Side) -> object:
        with acting_as(OWNER, 0o022):
            Path("file").touch()
            Path("directory").mkdir()
            Path("symlink").symlink_to("x")
            os.mkfifo("fifo")
            if side.configuration.channel != "pyfuse3":
                with opened(".", os.O_TMPFILE | os.O_RDWR) as descriptor:
                    linkat(f"/proc/self/fd/{descriptor}".encode(), b"nameless", follow=True)
        return [os.lstat(name).st_uid for name in ("file", "directory", "symlink", "fifo")]

    assert alike(sides, monkeypatch, work) == [OWNER] * 4


def test_who_has_no_id_there_makes_nothing(sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch) -> None:
    def work(_: Side) -> object:
        attempts: list[Callable[[], object]] = [
            Path("file").touch,
            Path("directory").mkdir,
            lambda: Path("symlink").symlink_to("x"),
            lambda: os.mkfifo("fifo"),
        ]
        return [outcome(attempt) for attempt in attempts]

    alike(sides, monkeypatch, work)


@pytest.mark.parametrize("user", [ROOT, OWNER, OTHER])
def test_rights_are_those_of_the_mapped_ids(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch, user: int
) -> None:
    def work(_: Side) -> object:
        file, other = made_by(OWNER, "file"), made_by(OWNER, "other")
        private = made_by(OWNER, "private", 0o600)
        attempts: list[Callable[[], object]] = [
            lambda: file.chmod(0o640),
            lambda: os.chown(file, FIRST + 5, -1),
            lambda: os.chown(file, -1, FIRST + 5),
            lambda: os.chown(file, 5, -1),
            lambda: os.chown(file, FIRST + COUNT, -1),
            lambda: os.utime(file, (1, 1)),
            lambda: os.truncate(file, 2),
            private.read_bytes,
            lambda: os.setxattr(file, "user.a", b"v"),
            lambda: os.setxattr(file, "trusted.a", b"v"),
            lambda: sorted(os.listxattr(file)),
            lambda: file.rename("renamed"),
            lambda: Path("link").hardlink_to(other),
            other.unlink,
        ]
        with acting_as(user, 0o022):
            return [outcome(attempt) for attempt in attempts]

    alike(sides, monkeypatch, work)


@pytest.mark.parametrize("name", ["access", "default"])
def test_access_control_lists_name_mapped_ids(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def work(side: Side) -> object:
        which = ACCESS_LIST if name == "access" else DEFAULT_LIST
        entries = acl.owner(7), acl.user(OTHER, 5), acl.group(5), acl.named_group(OTHER, 4), acl.mask(7), acl.other(0)
        with acting_as(OWNER, 0):
            Path("directory").mkdir()
            os.setxattr("directory", which, acl.packed(*entries))
            Path("directory/file").touch()
        told: list[object] = [os.getxattr("directory", which), sorted(os.listxattr("directory/file"))]
        told.append(os.getxattr(side.plain / Path.cwd().name / "directory", which))
        with acting_as(OTHER, 0):
            told += [outcome(os.listdir, "directory"), outcome(Path("directory/new").touch)]
        return told

    alike(sides, monkeypatch, work)


def test_a_directory_hands_on_its_group(sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch) -> None:
    def work(_: Side) -> object:
        with acting_as(OWNER, 0):
            Path("directory").mkdir()
            Path("directory").chmod(0o2777)
        with acting_as(OTHER, 0):
            Path("directory/file").touch()
            Path("directory/below").mkdir()
        return [shown((Path("directory") / name).stat()) for name in ("file", "below")]

    alike(sides, monkeypatch, work)


def test_a_whiteout_is_the_callers(sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch) -> None:
    def work(_: Side) -> object:
        made_by(OWNER, "file")
        with acting_as(OWNER, 0):
            return outcome(renameat2, b"file", b"moved", RENAME_WHITEOUT)

    alike(sides, monkeypatch, work)


def _write(path: Path) -> None:
    with opened(path, os.O_WRONLY) as descriptor:
        os.write(descriptor, b"x")
        os.fsync(descriptor)


def _copy(path: Path) -> None:
    with opened("source") as source, opened(path, os.O_WRONLY) as target:
        os.copy_file_range(source, target, 5, 0, 0)


def _allocate(path: Path) -> None:
    with opened(path, os.O_WRONLY) as descriptor:
        fallocate(descriptor, FALLOC_FL_KEEP_SIZE, 0, 8192)


CHANGES: dict[str, Callable[[Path], object]] = {
    "write": _write,
    "truncate": lambda path: os.truncate(path, 2),
    "copy": _copy,
    "allocate": _allocate,
    "give away": lambda path: os.chown(path, -1, path.stat().st_gid),
}


@pytest.mark.parametrize("user", [ROOT, OWNER, OTHER])
@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("where", ["mapped", "plain"])
def test_set_user_id_goes_where_it_goes_on_tmpfs(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch, user: int, name: str, where: str
) -> None:
    """Also in the mount as it is: there the kernel names nobody, either."""
    if name == "allocate" and sides[0].configuration.channel == "pyfuse3":
        pytest.skip("pyfuse3 cannot allocate")

    def work(side: Side) -> object:
        made_by(OWNER, "source")
        made_by(OWNER, "file", 0o6777)
        os.setxattr(side.plain / Path.cwd().name / "file", "security.capability", programs.file_capability)
        top = Path.cwd() if where == "mapped" else side.plain / Path.cwd().name
        target = top / "file"
        os.chdir(top)
        with acting_as(user, 0o022):
            done = outcome(CHANGES[name], Path("file"))
        return done, oct(stat.S_IMODE(target.stat().st_mode)), outcome(os.getxattr, target, "security.capability")

    alike(sides, monkeypatch, work)


@pytest.mark.parametrize("where", ["mapped", "plain"])
def test_only_root_sees_trusted_attributes(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def work(side: Side) -> object:
        made_by(OWNER, "file")
        os.chdir(Path.cwd() if where == "mapped" else side.plain / Path.cwd().name)
        os.setxattr("file", "trusted.a", b"v")
        os.setxattr("file", "user.a", b"v")
        told = [sorted(os.listxattr("file"))]
        for user in (OWNER, OTHER):
            with acting_as(user, 0):
                told.append(sorted(os.listxattr("file")))
        return told

    assert alike(sides, monkeypatch, work) == [["trusted.a", "user.a"], ["user.a"], ["user.a"]]
