"""Mounts with mapped ids, as containers have for volumes, by mount_setattr(2) with MOUNT_ATTR_IDMAP."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .syscalls import syscall

FIRST = 100_000
"""The id that id 0 of the file system is shown as; higher ones follow it."""

COUNT = 65_536

_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_AT_FDCWD, _AT_EMPTY_PATH, _OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH = -100, 0x1000, 1, 4
_MOUNT_ATTR_IDMAP = 0x00100000


@contextmanager
def id_mapped(directory: Path, at: Path) -> Iterator[Path]:
    """Mounts ``directory`` at ``at`` with mapped ids, as long as the context lasts."""
    with _user_namespace() as namespace:
        tree = syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(directory), _OPEN_TREE_CLONE | os.O_CLOEXEC)
        try:
            attributes = struct.pack("QQQQ", _MOUNT_ATTR_IDMAP, 0, 0, namespace)
            syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, attributes, len(attributes))
            at.mkdir(exist_ok=True)
            syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(at), _MOVE_MOUNT_F_EMPTY_PATH)
        finally:
            os.close(tree)
    try:
        yield at
    finally:
        subprocess.run(["umount", at], check=True)


@contextmanager
def _user_namespace() -> Iterator[int]:
    """A descriptor of a user namespace whose ids from 0 on are the ids from ``FIRST`` on outside."""
    process = subprocess.Popen(["unshare", "--user", "sleep", "infinity"])
    try:
        mine = Path("/proc/self/ns/user").readlink()
        while Path(f"/proc/{process.pid}/ns/user").readlink() == mine:
            assert process.poll() is None, "no user namespace can be made"
        for kind in ("uid_map", "gid_map"):
            Path(f"/proc/{process.pid}/{kind}").write_text(f"0 {FIRST} {COUNT}")
        descriptor = os.open(f"/proc/{process.pid}/ns/user", os.O_RDONLY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
