"""Hypothesis strategies for programs of file operations.

There are few names, users and slots, so that operations affect what others have made, removed, replaced or opened.
"""

from __future__ import annotations

import os
import stat
import struct

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from . import acl
from . import operations as ops
from .compare import Program, Step
from .inode_flags import APPEND_ONLY, IMMUTABLE, NO_ACCESS_TIME, NO_DUMP
from .syscalls import (
    FALLOC_FL_COLLAPSE_RANGE,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_ZERO_RANGE,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RENAME_WHITEOUT,
)

_PAGE = 4096

names = st.sampled_from([b"a", b"b", b"c", b"d"])
rare_names = st.sampled_from([b".", b"", b"n" * 255, b"n" * 256, b"\xff\n", b"\xc3\xa4"])


@st.composite
def _paths(draw: st.DrawFn) -> bytes:
    """One to four names; now and then a ".." behind one, a trailing slash, or a name of a rare kind.

    At most one "..", so that a program stays in the two directories that are its own.
    """
    parts = [draw(names) for _ in range(draw(st.sampled_from([1, 1, 1, 1, 1, 2, 2, 2, 3, 4])))]
    match draw(st.integers(0, 60)):
        case 60:
            parts.append(b"..")
        case 59:
            parts.append(b"")
        case 58:
            parts.append(draw(rare_names))
        case 57:
            parts[0] = draw(rare_names)
        case 56:
            parts.append(b".")
        case 55:
            parts.insert(1, b"..")
    return b"/".join(parts).lstrip(b"/")


paths = _paths()

targets = st.one_of(
    st.lists(names, min_size=1, max_size=3).map(b"/".join),
    st.sampled_from([b".", b"", b"a/", b"nowhere", b"x" * 4095, b"x" * 4096]),
)
"""Targets of symlinks: mostly other symlinks, so that loops occur."""

modes = st.one_of(
    st.sampled_from([0o644, 0o755, 0o777, 0o600, 0o000, 0o4755, 0o2755, 0o2775, 0o1777, 0o2777, 0o6777, 0o2644]),
    st.integers(0, 0o7777),
)
users = st.sampled_from([-1, 0, 0, 1000, 1000, 2000])

near = st.one_of(
    st.integers(0, 5 * _PAGE),
    st.sampled_from([0, 1, _PAGE - 1, _PAGE, _PAGE + 1, 2 * _PAGE, 3 * _PAGE, 4 * _PAGE - 1, 4 * _PAGE]),
)
far = st.sampled_from(
    [
        -1,
        -(2**63),
        1 << 20,
        (1 << 20) + 5,
        (1 << 31) - 1,
        1 << 32,
        (1 << 40) - 3,
        1 << 62,
        (1 << 63) - _PAGE - 1,
        (1 << 63) - _PAGE,
        (1 << 63) - 2,
        (1 << 63) - 1,
    ]
)
offsets = st.one_of(near, near, near, far)
sizes = st.one_of(near, near, far)
lengths = st.one_of(st.integers(0, 64), near)
data = st.builds(ops.Pattern, st.integers(0, 250), lengths)
times = st.sampled_from(
    [0, 1, 999_999_999, 1_000_000_000_123_456_789, -1_000_000_001, 2**31 * 10**9, 2**32 * 10**9 + 5]
)

slots = st.integers(0, 3)

xattr_names = st.one_of(
    st.sampled_from([b"user.a", b"user.b", b"trusted.t", b"security.s"]),
    st.sampled_from(
        [
            b"user.a",
            b"nosuch.x",
            b"user.",
            b"",
            b"plain",
            b"trusted.",
            b"system.nosuch",
            b"user." + b"n" * 250,
            b"user." + b"n" * 251,
        ]
    ),
)
xattr_values = st.sampled_from([b"", b"v", b"w" * 100, b"x" * 5000, b"y" * 65536, b"z" * 65537])
xattr_flags = st.sampled_from([0, 0, os.XATTR_CREATE, os.XATTR_REPLACE, os.XATTR_CREATE | os.XATTR_REPLACE, 4])

acl_names = st.sampled_from([ops.ACCESS_LIST, ops.DEFAULT_LIST])


@st.composite
def _acls(draw: st.DrawFn) -> bytes:
    """An access control list: valid, or with a part missing."""
    rights = st.integers(0, 7)
    ids = st.lists(st.sampled_from([0, 1000, 2000]), max_size=2)
    users: list[int] = draw(ids)
    groups: list[int] = draw(ids)
    entries = [acl.owner(draw(rights)), *(acl.user(uid, draw(rights)) for uid in users)]
    entries += [acl.group(draw(rights)), *(acl.named_group(gid, draw(rights)) for gid in groups)]
    if bool(users or groups) or draw(st.booleans()):
        entries.append(acl.mask(draw(rights)))
    entries.append(acl.other(draw(rights)))
    if draw(st.integers(0, 19)) == 19:
        entries.pop(draw(st.integers(0, len(entries) - 1)))
    return acl.packed(*entries)


acls = _acls()
file_capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
"""security.capability for CAP_NET_BIND_SERVICE, which a write to the file must take away."""

open_flags = st.builds(
    lambda access, extra: access | sum(extra),
    st.sampled_from([os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR]),
    st.one_of(
        st.just({os.O_CREAT}),
        st.just({os.O_CREAT}),
        st.just(set()),
        st.sets(
            st.sampled_from(
                [
                    os.O_CREAT,
                    os.O_EXCL,
                    os.O_TRUNC,
                    os.O_APPEND,
                    os.O_DIRECTORY,
                    os.O_NOFOLLOW,
                    os.O_DIRECT,
                    os.O_SYNC,
                    os.O_NOATIME,
                    os.O_PATH,
                ]
            ),
            max_size=4,
        ),
    ),
)

nameless = st.builds(
    lambda access, exclusive: access | exclusive | os.O_TMPFILE,
    st.sampled_from([os.O_RDWR, os.O_RDWR, os.O_WRONLY, os.O_RDONLY]),
    st.sampled_from([0, 0, 0, os.O_EXCL]),
)
"""Flags for a file without a name; with O_EXCL it can never be linked."""

rename_flags = st.sampled_from(
    [
        0,
        0,
        0,
        RENAME_NOREPLACE,
        RENAME_EXCHANGE,
        RENAME_EXCHANGE,
        RENAME_WHITEOUT,
        RENAME_NOREPLACE | RENAME_EXCHANGE,
        RENAME_WHITEOUT | RENAME_NOREPLACE,
        8,
    ]
)

fallocate_modes = st.sampled_from(
    [
        0,
        FALLOC_FL_KEEP_SIZE,
        FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
        FALLOC_FL_PUNCH_HOLE,
        FALLOC_FL_ZERO_RANGE,
        FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
        FALLOC_FL_COLLAPSE_RANGE,
    ]
)

_DEVICES = [0, os.makedev(1, 3), os.makedev(4095, 1048575)]

tree_operations: SearchStrategy[ops.Operation] = st.one_of(
    st.builds(ops.Make, paths, modes),
    st.builds(ops.Mkdir, paths, modes),
    st.builds(ops.Mkdir, paths, st.sampled_from([0o755, 0o777, 0o2777])),
    st.builds(
        ops.Mknod,
        paths,
        st.builds(
            lambda kind, mode: kind | mode,
            st.sampled_from([stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFREG, stat.S_IFDIR, 0]),
            modes,
        ),
        st.sampled_from(_DEVICES),
    ),
    st.builds(ops.Symlink, targets, paths),
    st.builds(ops.Symlink, targets, names),
    st.builds(ops.Link, paths, paths, st.booleans()),
    st.builds(ops.LinkHandle, slots, paths),
    st.builds(ops.Unlink, paths),
    st.builds(ops.Rmdir, paths),
    st.builds(ops.Rename, paths, paths, rename_flags),
    st.builds(ops.Rename, names, names, rename_flags),
    st.builds(ops.Rename, paths, paths, st.just(0)),
    st.builds(ops.Readlink, paths),
    st.builds(ops.List, paths),
    st.builds(ops.List, st.just(b".")),
)

attribute_operations: SearchStrategy[ops.Operation] = st.one_of(
    st.builds(ops.Stat, paths, st.booleans()),
    st.builds(ops.Access, paths, st.integers(0, 7)),
    st.builds(ops.Chmod, paths, modes),
    st.builds(ops.Chown, paths, users, users, st.booleans()),
    st.builds(ops.Utimens, paths, times, times, st.booleans()),
    st.builds(ops.UtimensNow, paths),
    st.builds(ops.Truncate, paths, sizes),
    st.builds(ops.Statvfs, paths),
    st.builds(ops.Fstat, slots),
    st.builds(ops.Fchmod, slots, modes),
    st.builds(ops.Fchown, slots, users, users),
    st.builds(ops.Futimens, slots, times, times),
)

acl_operations: SearchStrategy[ops.Operation] = st.one_of(
    st.builds(ops.SetXattr, names, acl_names, acls, st.just(0), st.just(True)),
    st.builds(ops.SetXattr, names, st.just(ops.DEFAULT_LIST), acls, st.just(0), st.just(True)),
    st.builds(ops.SetXattr, paths, acl_names, acls, xattr_flags, st.booleans()),
    st.builds(ops.FsetXattr, slots, acl_names, acls, xattr_flags),
    st.builds(ops.GetXattr, paths, acl_names, st.booleans()),
    st.builds(ops.FgetXattr, slots, acl_names),
    st.builds(ops.RemoveXattr, paths, acl_names, st.booleans()),
)

xattr_operations: SearchStrategy[ops.Operation] = st.one_of(
    st.builds(ops.SetXattr, paths, xattr_names, xattr_values, xattr_flags, st.booleans()),
    st.builds(
        ops.SetXattr, names, st.just(b"security.capability"), st.just(file_capability), xattr_flags, st.booleans()
    ),
    st.builds(ops.GetXattr, paths, xattr_names, st.booleans()),
    st.builds(ops.ListXattr, paths, st.booleans()),
    st.builds(ops.RemoveXattr, paths, xattr_names, st.booleans()),
    st.builds(ops.FsetXattr, slots, xattr_names, xattr_values, xattr_flags),
    st.builds(ops.FgetXattr, slots, xattr_names),
)

opening_operations: SearchStrategy[ops.Operation] = st.one_of(
    st.builds(ops.Open, slots, names, open_flags, modes),
    st.builds(ops.Open, slots, paths, open_flags, modes),
    st.builds(ops.Open, slots, names, st.just(os.O_RDWR | os.O_CREAT), st.just(0o666)),
    st.builds(ops.Open, slots, names, st.just(os.O_RDWR | os.O_CREAT | os.O_APPEND), st.just(0o666)),
    st.builds(ops.Open, slots, st.one_of(st.just(b"."), paths), nameless, modes),
    st.builds(ops.Close, slots),
    st.builds(ops.Duplicate, slots, slots),
)

content_operations: SearchStrategy[ops.Operation] = st.one_of(
    st.builds(ops.Read, slots, lengths),
    st.builds(ops.Pread, slots, lengths, offsets),
    st.builds(ops.Write, slots, data),
    st.builds(ops.Pwrite, slots, data, offsets),
    st.builds(ops.MmapWrite, slots, data, st.integers(0, 4)),
    st.builds(ops.Ftruncate, slots, sizes),
    st.builds(ops.Fsync, slots, st.booleans()),
    st.builds(ops.Fstat, slots),
    st.builds(ops.CopyRange, slots, slots, lengths, near, near),
    st.builds(ops.Seek, slots, offsets, st.sampled_from([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END, 77])),
    st.builds(ops.ListHandle, slots),
)

hole_seeks: SearchStrategy[ops.Operation] = st.builds(
    ops.Seek, slots, offsets, st.sampled_from([os.SEEK_DATA, os.SEEK_HOLE])
)
mapped_reads: SearchStrategy[ops.Operation] = st.builds(ops.MmapRead, slots, lengths, st.integers(0, 4))
"""Not used in a program with ``hole_seeks``: on tmpfs, a read through a mapping fills holes."""

fallocations: SearchStrategy[ops.Operation] = st.builds(ops.Fallocate, slots, fallocate_modes, near, near)


def steps(operations: SearchStrategy[ops.Operation]) -> SearchStrategy[Step]:
    return st.builds(
        Step,
        operations,
        st.sampled_from([0, 0, 0, 0, 0, 1000]),
        st.sampled_from([0o022, 0o022, 0o022, 0, 0o077, 0o777]),
    )


_TREE_OPENINGS: list[list[ops.Operation]] = [
    [],
    [
        ops.Mkdir(b"a", 0o777),
        ops.Mkdir(b"a/b", 0o755),
        ops.Mkdir(b"b", 0o2777),
        ops.Make(b"a/a", 0o644),
        ops.Make(b"c", 0o6777),
        ops.Symlink(b"a", b"d"),
        ops.Link(b"c", b"b/a", False),
        ops.Open(0, b"c", os.O_RDWR, 0),
        ops.Open(1, b"a/b", os.O_RDONLY, 0),
    ],
    [
        ops.Mkdir(b"a", 0o1777),
        ops.Mkdir(b"a/a", 0o777),
        ops.Mkdir(b"a/a/a", 0o777),
        ops.Make(b"a/a/a/a", 0o666),
        ops.Symlink(b"a/a", b"a/b"),
        ops.Symlink(b"c", b"d"),
        ops.Symlink(b"d", b"c"),
        ops.Mknod(b"b", stat.S_IFIFO | 0o666, 0),
        ops.Mknod(b"a/c", stat.S_IFSOCK | 0o666, 0),
        ops.Open(0, b"a/a/a/a", os.O_RDWR, 0),
        ops.Open(1, b"a", os.O_RDWR | os.O_TMPFILE, 0o640),
        ops.Open(2, b"b", os.O_RDWR, 0),
    ],
]

_CONTENT_OPENINGS: list[list[ops.Operation]] = [
    [ops.Open(0, b"a", os.O_RDWR | os.O_CREAT, 0o666)],
    [
        ops.Open(0, b"a", os.O_RDWR | os.O_CREAT, 0o666),
        ops.Open(1, b"b", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666),
        ops.Write(0, ops.Pattern(1, 3 * _PAGE + 10)),
        ops.Open(2, b"a", os.O_RDONLY, 0),
        ops.Duplicate(0, 3),
    ],
    [
        ops.Open(0, b"a", os.O_RDWR | os.O_CREAT, 0o666),
        ops.Open(1, b"a", os.O_RDWR | os.O_DIRECT, 0),
        ops.Pwrite(0, ops.Pattern(2, 100), 2 * _PAGE + 1),
        ops.Ftruncate(0, 5 * _PAGE),
        ops.Open(2, b"b", os.O_WRONLY | os.O_CREAT, 0o4777),
        ops.Unlink(b"b"),
    ],
]


_EVERYTHING_TO_ALL = acl.packed(
    acl.owner(7), acl.user(1000, 7), acl.group(7), acl.named_group(2000, 6), acl.mask(7), acl.other(5)
)

_ACL_OPENINGS: list[list[ops.Operation]] = [
    [
        ops.Mkdir(b"a", 0o2777),
        ops.SetXattr(b"a", ops.DEFAULT_LIST, _EVERYTHING_TO_ALL, 0, True),
        ops.Mkdir(b"a/a", 0o755),
        ops.Make(b"a/b", 0o640),
        ops.Symlink(b"a/b", b"d"),
        ops.Open(0, b"a/c", os.O_RDWR | os.O_CREAT, 0o666),
    ],
    [
        ops.SetXattr(b".", ops.DEFAULT_LIST, acl.packed(acl.owner(7), acl.group(5), acl.other(0)), 0, True),
        ops.Make(b"a", 0o6777),
        ops.Chown(b"a", 1000, 2000, True),
        ops.SetXattr(b"a", ops.ACCESS_LIST, _EVERYTHING_TO_ALL, 0, True),
        ops.Mkdir(b"b", 0o777),
        ops.Chown(b"b", 1000, 1000, True),
        ops.Mknod(b"c", stat.S_IFIFO | 0o666, 0),
    ],
]


def programs(
    openings: list[list[ops.Operation]], operations: SearchStrategy[ops.Operation], length: int = 40
) -> SearchStrategy[Program]:
    """Programs of a fixed length, after an opening that makes something to work on.

    ``Nothing`` is the simplest step, so that programs shrink step by step.
    """
    body = st.lists(steps(st.one_of(st.just(ops.Nothing()), operations)), min_size=length, max_size=length)
    begun = st.sampled_from([[Step(operation) for operation in opening] for opening in openings])
    return st.builds(lambda opening, rest: [*opening, *rest], begun, body)


def tree_programs() -> SearchStrategy[Program]:
    """Names, links, types, attributes, xattrs, and files held open meanwhile."""
    kinds = [tree_operations] * 3 + [attribute_operations, xattr_operations, acl_operations, opening_operations]
    return programs(_TREE_OPENINGS, st.one_of(kinds))


def acl_programs() -> SearchStrategy[Program]:
    """Access control lists, operations that inherit them, and operations that change the mode."""
    kinds = [acl_operations] * 3 + [tree_operations, attribute_operations, opening_operations]
    return programs(_ACL_OPENINGS + _TREE_OPENINGS, st.one_of(kinds))


def content_programs() -> SearchStrategy[Program]:
    """Bytes, sizes and holes of a few files through several handles."""
    few = st.sampled_from([b"a", b"b"])
    names_of_files = st.one_of(
        st.builds(ops.Truncate, few, sizes), st.builds(ops.Unlink, few), st.builds(ops.Rename, few, few, st.just(0))
    )
    kinds = [content_operations] * 3 + [opening_operations, names_of_files, fallocations, hole_seeks]
    return programs(_CONTENT_OPENINGS, st.one_of(kinds))


_FLAGS = [IMMUTABLE, APPEND_ONLY, NO_DUMP, NO_ACCESS_TIME, IMMUTABLE | NO_DUMP, APPEND_ONLY | NO_ACCESS_TIME, 1, 0x100]

flag_operations: SearchStrategy[ops.Operation] = st.one_of(
    st.builds(ops.SetFlags, paths, st.sampled_from(_FLAGS)),
    st.builds(ops.SetFlags, names, st.sampled_from([0, 0, *_FLAGS])),
    st.builds(ops.GetFlags, paths),
)


def flag_programs() -> SearchStrategy[Program]:
    """The flags of chattr(1), and what they forbid. All by root: for a user without the right, the errno may be either
    one. access(2) is left out: see ``differences``.
    """
    attributes: list[SearchStrategy[ops.Operation]] = [
        st.builds(ops.Stat, paths, st.booleans()),
        st.builds(ops.Chmod, paths, modes),
        st.builds(ops.Chown, paths, users, users, st.booleans()),
        st.builds(ops.Utimens, paths, times, times, st.booleans()),
        st.builds(ops.UtimensNow, paths),
        st.builds(ops.Truncate, paths, near),
        st.builds(ops.Fchmod, slots, modes),
        st.builds(ops.Fchown, slots, users, users),
        st.builds(ops.Futimens, slots, times, times),
    ]
    # The kernel refuses a default list of anything but a directory, without a request.
    lists: list[SearchStrategy[ops.Operation]] = [
        st.builds(ops.SetXattr, paths, acl_names, acls, st.just(0), st.just(True)),
        st.builds(ops.RemoveXattr, paths, st.just(ops.ACCESS_LIST), st.just(True)),
    ]
    kinds = [flag_operations] * 3 + [tree_operations] * 3 + [st.one_of(attributes), xattr_operations, st.one_of(lists)]
    kinds += [opening_operations, content_operations, st.builds(ops.Where, st.just("fallocate"), fallocations)]
    body = st.lists(
        st.one_of(st.just(Step(ops.Nothing())), st.builds(Step, st.builds(ops.Refusable, st.one_of(kinds)))),
        min_size=40,
        max_size=40,
    )
    openings = _TREE_OPENINGS[1:] + _CONTENT_OPENINGS
    begun = st.sampled_from([[Step(operation) for operation in opening] for opening in openings])
    return st.builds(lambda opening, rest: [*opening, *rest], begun, body)


def mixed_programs() -> SearchStrategy[Program]:
    """All kinds of operations."""
    kinds = [tree_operations, attribute_operations, xattr_operations, acl_operations]
    kinds += [opening_operations, content_operations, mapped_reads, fallocations]
    return programs(_TREE_OPENINGS + _CONTENT_OPENINGS, st.one_of(kinds))
