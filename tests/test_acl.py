"""Who may do what: access control lists, owners, groups and modes, xattrs, as on tmpfs and as the kernel enforces them.

Everything is done on both, by setfacl(1) and getfacl(1), by the system calls, and by processes that have become other
users for good.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from conftest import Mounts
from support import acl, programs, shell
from support import operations as ops
from support.compare import Failed, Step, compare, outcome, perform
from support.generating import compare_generated
from support.mounts import Pair, configurations, mounted_pair
from support.operations import ACCESS_LIST, DEFAULT_LIST, Pattern, World
from support.syscalls import getxattr
from support.tree import differences, snapshot
from support.workers import as_user

CONFIGURATIONS = configurations([1, 2], ("writeback", "none"))

MINIMAL = acl.packed(acl.owner(6), acl.group(5), acl.other(0))
EXTENDED = acl.packed(acl.owner(7), acl.user(1000, 7), acl.group(5), acl.mask(6), acl.other(1))


@pytest.fixture(scope="module", params=CONFIGURATIONS, ids=str)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A pair that any user can reach."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        with mounted_pair(directory / "tmpfs", request.param, allow_other=True) as pair:
            yield pair


def test_lists_and_what_inherits_them_are_those_of_tmpfs(pair: Pair) -> None:
    compare_generated(pair, programs.acl_programs())


_LISTS = """
    # All that is in a tree, in an order that depends on names alone.
    lists() { find "$1" ! -type l -print0 | sort -z | xargs -0 getfacl -n; }
"""

SCRIPTS = {
    "set and get": """
        touch f; mkdir d; chmod 640 f
        setfacl -m u:1000:rwx,g:2000:r f; getfacl -n f; ls -l f | cut -c 1-11
        setfacl -m u:1000:rx,d:u:1000:rwx,d:g:2000:r-x d; getfacl -n d; ls -ld d | cut -c 1-11
        setfacl -x u:1000 f; getfacl -n f
        setfacl -k d; getfacl -n d
        setfacl -b f d; getfacl -n f d; ls -ld f d | cut -c 1-11
    """,
    "a list that a mode can tell is none": """
        touch f; setfacl -m u:1000:rwx f; setfacl --set u::rw,g::r,o::- f; getfattr -d -m - f; stat -c %a f
    """,
    "what is made inherits": """
        umask 077
        mkdir d; setfacl -d -m u:1000:rwx,g:2000:rx,m:rwx,o:r d
        touch d/f; mkdir -p d/e/g; ln -s f d/s; mkfifo -m 660 d/p; echo x >d/e/g/h; cp d/f d/copy; mknod d/n c 1 3
        lists d; find d -printf '%M %p\\n' | sort
        setfacl -k d; touch d/after; mkdir d/dafter; getfacl -n d/after d/dafter
    """,
    "chmod sets the mask": """
        touch f; setfacl -m u:1000:rwx,g:2000:rwx f
        for mode in 700 640 604 777 g-w,o+x 2750; do chmod "$mode" f; getfacl -n f; stat -c %a f; done
        setfacl -m m::r f; stat -c %a f; setfacl -n -m u:1001:rw f; getfacl -n f
    """,
    "a list goes with its file": """
        mkdir d e; touch d/f; setfacl -m u:1000:rwx d/f; setfacl -d -m u:2000:r e
        ln d/f d/l; mv d/f e/f; getfacl -n e/f d/l; cp -a e/f e/copy; getfacl -n e/copy
        tar --acls -cf t.tar e; mkdir x; tar --acls -xf t.tar -C x; lists x; rm d/l t.tar; getfacl -n e/f
    """,
    "what is no list": """
        touch f; mkdir d; ln -s f s; ln -s nowhere n
        setfacl -m d:u:1000:r f || echo refused; setfacl -m u:1000:r n || echo refused
        getfacl -n f s d
    """,
    "a tree is saved and restored": """
        sample tree; setfacl -R -m u:1000:rwX,d:g:2000:rX tree; getfacl -nR tree >saved
        setfacl -Rb tree; lists tree; setfacl --restore=saved; lists tree; rm saved
    """,
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_tools_do_what_they_do_on_tmpfs(pair: Pair, name: str) -> None:
    directories = pair.directories(name)
    told = [shell.run(_LISTS + SCRIPTS[name], directory) for directory in directories]
    assert told[1] == told[0]
    assert differences(*(snapshot(directory) for directory in directories)) == []


MALFORMED: dict[str, bytes] = {
    "empty": b"",
    "no entries": acl.packed(),
    "short": b"\2\0",
    "another version": b"\1" + EXTENDED[1:],
    "a byte too many": EXTENDED + b"x",
    "no owner": acl.packed(acl.group(5), acl.other(0)),
    "no others": acl.packed(acl.owner(7), acl.group(5)),
    "no mask": acl.packed(acl.owner(7), acl.user(1000, 5), acl.group(5), acl.other(0)),
    "no mask for a group": acl.packed(acl.owner(7), acl.group(5), acl.named_group(1000, 5), acl.other(0)),
    "two masks": acl.packed(acl.owner(7), acl.group(5), acl.mask(1), acl.mask(1), acl.other(0)),
    "out of order": acl.packed(acl.group(7), acl.owner(5), acl.other(0)),
    "a right too many": acl.packed(acl.owner(15), acl.group(5), acl.other(0)),
    "an unknown tag": acl.packed(acl.owner(7), (3, 5, 0), acl.group(5), acl.other(0)),
    "nobody": acl.packed(acl.owner(7), acl.user(0xFFFFFFFF, 5), acl.group(5), acl.mask(5), acl.other(0)),
}
WELL_FORMED: dict[str, bytes] = {
    "minimal": MINIMAL,
    "extended": EXTENDED,
    "no more than a mask": acl.packed(acl.owner(7), acl.group(5), acl.mask(1), acl.other(0)),
    "a user twice": acl.packed(
        acl.owner(7), acl.user(9, 5), acl.user(9, 4), acl.user(2, 1), acl.group(5), acl.mask(5), acl.other(0)
    ),
    "ids where none belong": acl.packed((1, 7, 5), (4, 5, 6), (0x10, 7, 7), (0x20, 0, 8)),
}


@pytest.mark.parametrize("kind", ["file", "directory", "symlink", "fifo"])
def test_any_list_is_taken_or_refused_as_on_tmpfs(pair: Pair, kind: str) -> None:
    make: dict[str, ops.Operation] = {
        "file": ops.Make(b"x", 0o6644),
        "directory": ops.Mkdir(b"x", 0o3755),
        "symlink": ops.Symlink(b"nowhere", b"x"),
        "fifo": ops.Mknod(b"x", stat.S_IFIFO | 0o644, 0),
    }
    program = [make[kind]]
    for name in (ACCESS_LIST, DEFAULT_LIST, b"system.posix_acl", b"system.posix_acl_other"):
        for value in [*MALFORMED.values(), *WELL_FORMED.values()]:
            for flags in (0, os.XATTR_CREATE, os.XATTR_REPLACE):
                program += [ops.SetXattr(b"x", name, value, flags, False), ops.GetXattr(b"x", name, False)]
            program += [ops.ListXattr(b"x", False), ops.Stat(b"x", False), ops.RemoveXattr(b"x", name, False)]
            program += [ops.ListXattr(b"x", False), ops.RemoveXattr(b"x", name, False)]
    compare([Step(operation) for operation in program], pair.reference, pair.subject, pair.abilities)


def test_a_list_of_more_than_a_page_is_refused(pair: Pair) -> None:
    """The kernel passes no more of it on to a FUSE file system."""
    largest, larger = (
        acl.packed(acl.owner(7), *(acl.user(uid, 4) for uid in range(count)), acl.group(5), acl.mask(7), acl.other(0))
        for count in (507, 508)
    )
    results = []
    for directory in pair.directories("large"):
        told: list[object] = [outcome(os.setxattr, directory, ACCESS_LIST, value) for value in (largest, larger)]
        results.append([*told, os.getxattr(directory, ACCESS_LIST) == largest])
    assert results == [[None, None, False], [None, Failed("E2BIG"), True]]


# -- other users ------------------------------------------------------------------------------------------------------


def done_by(user: int, groups: Sequence[int], operations: Sequence[ops.Operation], root: Path) -> list[object]:
    """What each operation answers in a process of that user."""

    def body() -> list[object]:
        world = World()
        return [perform(Step(operation, umask=0o027), world, root) for operation in operations]

    return as_user(user, groups, body)


def compare_as_others(
    pair: Pair,
    opening: Sequence[ops.Operation],
    users: Sequence[tuple[int, Sequence[int]]],
    operations: Sequence[ops.Operation],
) -> list[list[object]]:
    """Lets root open and each of the users do the same on both, and returns what these were answered."""
    told = []
    directories = pair.directories("others")
    for root in directories:
        root.chmod(0o777)
        world = World()
        assert [perform(Step(operation, umask=0), world, root) for operation in opening] == [None] * len(opening)
        told.append([done_by(user, groups, operations, root) for user, groups in users])
    assert told[1] == told[0]
    assert differences(*(snapshot(root) for root in directories)) == []
    return told[0]


EVERYBODY: list[tuple[int, list[int]]] = [
    (1000, []),
    (2000, []),
    (3000, [1000]),
    (3000, [2000, 7]),
    (4000, []),
    (5, []),
]


@pytest.mark.parametrize("bits", [0o7, 0o6, 0o5, 0o1, 0o0])
def test_the_kernel_lets_in_whom_a_list_lets_in(pair: Pair, bits: int) -> None:
    """The owner is 5, the owning group 7; named are user 1000 and group 2000."""
    value = acl.packed(
        acl.owner(bits ^ 7), acl.user(1000, 6), acl.group(4), acl.named_group(2000, 7), acl.mask(bits), acl.other(1)
    )
    opening: list[ops.Operation] = [ops.Make(b"file", 0o777), ops.Mkdir(b"dir", 0o777), ops.Make(b"dir/file", 0o666)]
    for name in (b"file", b"dir"):
        opening += [ops.Chown(name, 5, 7, True), ops.SetXattr(name, ACCESS_LIST, value, 0, True)]
    attempts: list[ops.Operation] = [ops.Access(b"file", mode) for mode in (os.R_OK, os.W_OK, os.X_OK)]
    attempts += [ops.Open(0, b"file", os.O_RDONLY, 0), ops.Open(1, b"file", os.O_WRONLY, 0), ops.Truncate(b"file", 9)]
    attempts += [ops.List(b"dir"), ops.Stat(b"dir/file", True), ops.Make(b"dir/new", 0o666), ops.Unlink(b"dir/new")]
    attempts += [ops.SetXattr(b"file", b"user.a", b"v", 0, True), ops.GetXattr(b"file", b"user.a", True)]
    attempts += [ops.GetXattr(b"file", ACCESS_LIST, True)]
    answers = compare_as_others(pair, opening, EVERYBODY, attempts)
    assert len({repr(answer) for answer in answers}) > 1


def test_a_list_that_changes_lets_in_others_at_once(pair: Pair) -> None:
    def value(rights: int) -> bytes:
        return acl.packed(acl.owner(7), acl.user(1000, rights), acl.group(0), acl.mask(7), acl.other(0))

    for root in pair.directories("changing"):
        path = root / "file"
        path.touch(0o600)
        for rights in (0, 6, 4, 0, 2):
            os.setxattr(path, ACCESS_LIST, value(rights))
            let_in = [as_user(1000, [], partial(os.access, path, mode)) for mode in (os.R_OK, os.W_OK)]
            assert let_in == [bool(rights & 4), bool(rights & 2)]
        path.chmod(0o600)
        assert not as_user(1000, [], partial(os.access, path, os.W_OK))
        path.chmod(0o660)
        assert as_user(1000, [], partial(os.access, path, os.W_OK))
        os.removexattr(path, ACCESS_LIST)
        assert not as_user(1000, [], partial(os.access, path, os.W_OK))


def test_only_the_owner_sets_a_list(pair: Pair) -> None:
    opening: list[ops.Operation] = [ops.Make(b"file", 0o666), ops.Mkdir(b"dir", 0o777)]
    opening += [ops.Chown(name, 1000, 1000, True) for name in (b"file", b"dir")]
    attempts: list[ops.Operation] = [
        ops.SetXattr(b"file", ACCESS_LIST, EXTENDED, 0, True),
        ops.SetXattr(b"dir", ACCESS_LIST, EXTENDED, 0, True),
        ops.SetXattr(b"dir", DEFAULT_LIST, EXTENDED, 0, True),
        ops.RemoveXattr(b"dir", DEFAULT_LIST, True),
        ops.RemoveXattr(b"file", ACCESS_LIST, True),
    ]
    answers = compare_as_others(pair, opening, [(1000, []), (2000, [1000])], attempts)
    assert answers == [[None] * 5, [Failed("EPERM")] * 5]


@pytest.mark.parametrize("value", [MINIMAL, EXTENDED], ids=["minimal", "extended"])
@pytest.mark.parametrize("name", [ACCESS_LIST, DEFAULT_LIST])
def test_set_group_id_goes_when_an_outsider_sets_an_access_list(pair: Pair, name: bytes, value: bytes) -> None:
    opening: list[ops.Operation] = []
    for path, gid in ((b"in", 2000), (b"out", 3000)):
        opening += [ops.Mkdir(path, 0o755), ops.Chown(path, 1000, gid, True), ops.Chmod(path, 0o2775)]
    attempts: list[ops.Operation] = []
    for path in (b"in", b"out"):
        attempts += [ops.SetXattr(path, name, value, 0, True), ops.Stat(path, True)]
    compare_as_others(pair, opening, [(1000, [2000])], attempts)


def test_set_group_id_stays_when_an_outsider_removes_an_access_list(pair: Pair) -> None:
    """The kernel does not tell the file system to take it away, as it does of a list that is set."""
    modes = []
    for root in pair.directories("removal"):
        path = root / "directory"
        path.mkdir()
        os.setxattr(path, ACCESS_LIST, EXTENDED)
        os.chown(path, 1000, 3000)
        path.chmod(0o2775)
        as_user(1000, [], partial(os.removexattr, path, ACCESS_LIST))
        modes.append(oct(stat.S_IMODE(path.stat().st_mode)))
    assert not pair.abilities.removal_of_a_list_by_outsiders
    assert modes == ["0o775", "0o2775"]


@pytest.mark.parametrize("mode", [0o6777, 0o2767, 0o4666, 0o6755])
@pytest.mark.parametrize("change", ["write", "truncate", "open to truncate", "chown to a group", "chmod", "append"])
def test_privileges_go_when_another_changes_the_file(pair: Pair, mode: int, change: str) -> None:
    """User 1000 owns one and is in its group, owns one outside the group, and may only write the third."""
    owners = {b"own": (1000, 1000), b"outside": (1000, 3000), b"foreign": (0, 2000)}
    opening: list[ops.Operation] = []
    attempts: list[ops.Operation] = []
    for name, (uid, gid) in owners.items():
        opening += [ops.Make(name, 0o666), ops.Truncate(name, 10), ops.Chown(name, uid, gid, True)]
        opening.append(ops.Chmod(name, mode))
        changes: dict[str, list[ops.Operation]] = {
            "write": [ops.Open(0, name, os.O_WRONLY, 0), ops.Write(0, Pattern(1, 10))],
            "append": [ops.Open(0, name, os.O_WRONLY | os.O_APPEND, 0), ops.Write(0, Pattern(1, 10))],
            "truncate": [ops.Truncate(name, 5)],
            "open to truncate": [ops.Open(0, name, os.O_WRONLY | os.O_TRUNC, 0)],
            "chown to a group": [ops.Chown(name, -1, 2000, True)],
            "chmod": [ops.Chmod(name, mode | 0o6000)],
        }
        attempts += [*changes[change], ops.Stat(name, True)]
    compare_as_others(pair, opening, [(1000, [2000])], attempts)


def test_a_directory_with_set_group_id_or_the_sticky_bit_binds_others_alike(pair: Pair) -> None:
    opening: list[ops.Operation] = [
        *(ops.Mkdir(name, 0o777) for name in (b"sticky", b"group", b"both")),
        *(ops.Chown(name, 0, 2000, True) for name in (b"group", b"both")),
        ops.Chmod(b"sticky", 0o1777),
        ops.Chmod(b"group", 0o2777),
        ops.Chmod(b"both", 0o3777),
        ops.SetXattr(b"both", DEFAULT_LIST, EXTENDED, 0, True),
    ]
    attempts: list[ops.Operation] = []
    for name in (b"sticky", b"group", b"both"):
        attempts += [
            ops.Make(name + b"/file", 0o2777),
            ops.Mkdir(name + b"/directory", 0o2777),
            ops.Mknod(name + b"/fifo", stat.S_IFIFO | 0o2666, 0),
            ops.Symlink(b"file", name + b"/link"),
            ops.Stat(name + b"/file", True),
            ops.Chmod(name + b"/file", 0o2775),
            ops.Rename(name + b"/fifo", name + b"/moved", 0),
            ops.Link(name + b"/file", name + b"/hard", False),
            ops.Unlink(name + b"/link"),
            ops.Rmdir(name + b"/directory"),
        ]
    compare_as_others(pair, opening, [(1000, [2000]), (1000, []), (3000, [2000]), (4000, [])], attempts)


# -- xattrs -----------------------------------------------------------------------------------------------------------


def test_others_see_of_xattrs_what_they_see_on_tmpfs(pair: Pair) -> None:
    names = [b"user.a", b"trusted.a", b"security.a"]
    opening: list[ops.Operation] = [ops.Make(b"file", 0o666), ops.Mkdir(b"dir", 0o1777), ops.Chmod(b"file", 0o666)]
    opening += [ops.SetXattr(b"file", name, b"roots", 0, True) for name in names]
    opening += [ops.SetXattr(b"file", ACCESS_LIST, EXTENDED, 0, True), ops.Symlink(b"nowhere", b"link")]
    attempts: list[ops.Operation] = [ops.ListXattr(b"file", True)]
    for path in (b"file", b"dir", b"link"):
        for name in names:
            attempts += [ops.GetXattr(path, name, False), ops.SetXattr(path, name, b"v", 0, False)]
            attempts += [ops.RemoveXattr(path, name, False)]
    answers = compare_as_others(pair, opening, [(1000, []), (2000, [])], attempts)
    assert answers[0][0] == ["security.a", "system.posix_acl_access", "user.a"]


def test_a_buffer_that_is_too_small_is_told(pair: Pair) -> None:
    results = []
    for directory in pair.directories("buffer"):
        os.setxattr(directory, "user.a", b"value")
        os.setxattr(directory, DEFAULT_LIST, EXTENDED)
        path = os.fsencode(directory)
        told = [outcome(getxattr, path, b"user.a", size) for size in (0, 4, 5, 100)]
        told += [outcome(getxattr, path, DEFAULT_LIST, size) for size in (0, 4, len(EXTENDED), 5000)]
        results.append([*told, outcome(getxattr, path, b"user.missing", 0), outcome(getxattr, path, ACCESS_LIST, 0)])
    assert results[1] == results[0]
    assert results[0][1] == Failed("ERANGE")


# -- what it costs ----------------------------------------------------------------------------------------------------


def test_a_list_that_was_asked_for_is_not_asked_for_again(mount_nrfs: Mounts) -> None:
    mountpoint = mount_nrfs(allow_other=True)
    mountpoint.chmod(0o755)
    paths = [mountpoint / f"{number}" for number in range(5)]
    for path in paths:
        path.touch()
        path.chmod(0o664)
    os.setxattr(paths[0], ACCESS_LIST, EXTENDED)
    paths[0].stat()

    def cost() -> dict[str, int]:
        before = mount_nrfs.requests(mountpoint)
        for path in paths:
            outcome(os.getxattr, path, ACCESS_LIST)
            os.access(path, os.R_OK)
        after = mount_nrfs.requests(mountpoint)
        return {kind: count - before[kind] for kind, count in after.items() if count != before[kind]}

    assert cost()["getxattr"] == len(paths)
    assert cost() == {}


def test_a_chmod_is_one_request_with_a_list_and_without(mount_nrfs: Mounts) -> None:
    mountpoint = mount_nrfs()
    for path in (mountpoint / "plain", mountpoint / "listed"):
        path.touch()
    os.setxattr(mountpoint / "listed", ACCESS_LIST, EXTENDED)
    for path in (mountpoint / "plain", mountpoint / "listed"):
        path.stat()
        before = mount_nrfs.requests(mountpoint)
        path.chmod(0o640)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        after = mount_nrfs.requests(mountpoint)
        assert {kind for kind in after if after[kind] != before[kind]} == {"setattr"}
        assert after["setattr"] == before["setattr"] + 1
