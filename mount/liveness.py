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
ALIVE, DEAD = map(int, sys.argv[5:])
path, mount, user, group = os.fsencode(sys.argv[1]), *map(int, sys.argv[2:5])
os.chdir("/")
if os.geteuid() == 0:  # Others than the mount's owner are kept from asking, root too.
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW)
with open(f"/proc/self/fdinfo/{descriptor}") as lines:
    if f"mnt_id:\\t{mount}\\n" not in lines:
        sys.exit()
try:
    answer = os.fstatvfs(descriptor)
except OSError as error:
    sys.exit(DEAD if error.errno in (errno.ENOTCONN, errno.ECONNABORTED) else None)
sys.exit(ALIVE if answer.f_bsize else None)  # The kernel itself answers those who are kept from asking, with nothing.
"""
"""Asks for the space of a mount. Whatever keeps it from that ends it with a status that says nothing."""

_ALIVE, _DEAD = 71, 72
"""No exit status of an interpreter that fails."""


class Life(Enum):
    """What is known."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


def of(entry: mountinfo.MountEntry) -> Life:
    """Whether the mount's daemon lives. It takes some seconds where the daemon is stuck."""
    if processes.daemon_of(entry.device) is not None:
        return Life.ALIVE
    return {_ALIVE: Life.ALIVE, _DEAD: Life.DEAD}.get(_probe(entry), Life.UNKNOWN)


def _probe(entry: mountinfo.MountEntry) -> int:
    """The probe's exit status, 0 where it waits in vain: by a process, for nothing else can be given up."""
    numbers = (entry.mount_id, entry.owner, entry.group, _ALIVE, _DEAD)
    arguments = [entry.mountpoint, *map(str, numbers)]
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
        return 0
