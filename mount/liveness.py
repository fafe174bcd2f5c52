"""Whether the daemon of a mount lives, as the kernel knows it: for when nobody answers at the control socket.

Only the kernel's word that a connection has ended makes a daemon dead. That nobody answers may have
many reasons: a socket that was swept away, another network or mount namespace, a process that is stopped.
"""

from __future__ import annotations

import subprocess
import sys
from enum import Enum

from mount import mountinfo, processes

_PATIENCE_SECONDS = 3.0

_PROBE = """
import errno, os, sys
path, mount, user, group = os.fsencode(sys.argv[1]), *map(int, sys.argv[2:])
os.chdir("/")
if os.geteuid() == 0:  # Others than the mount's owner are kept from asking, root too.
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW)
with open(f"/proc/self/fdinfo/{descriptor}") as lines:
    if f"mnt_id:\\t{mount}\\n" not in lines:
        sys.exit(2)
try:
    answer = os.fstatvfs(descriptor)
except OSError as error:
    sys.exit(1 if error.errno in (errno.ENOTCONN, errno.ECONNABORTED) else 2)
sys.exit(0 if answer.f_bsize else 2)  # The kernel itself answers those who are kept from asking, with nothing.
"""
"""Asks for the space of a mount. Exit status: 0 there is an answer, 1 the connection has ended, else nobody knows."""


class Life(Enum):
    """What is known."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


def of(entry: mountinfo.MountEntry) -> Life:
    """Whether the mount's daemon lives. It takes some seconds where the daemon is stuck."""
    if processes.daemon_of(entry.device) is not None:
        return Life.ALIVE
    status = _probe(entry)
    return Life.UNKNOWN if status is None else {0: Life.ALIVE, 1: Life.DEAD}.get(status, Life.UNKNOWN)


def _probe(entry: mountinfo.MountEntry) -> int | None:
    """The probe's exit status, None where it waits in vain: by a process, for nothing else can be given up."""
    arguments = [entry.mountpoint, str(entry.mount_id), str(entry.owner), str(entry.group)]
    probe = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _PROBE, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        return probe.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        probe.kill()  # It may end much later, when the kernel lets it.
        return None
