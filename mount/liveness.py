"""Whether the daemon of a mount is alive, as the kernel knows it, for when it cannot be reached by the control socket.

A daemon counts as dead only if the kernel says that the connection has ended. That it does not answer may
have other reasons: the socket was deleted, it is in another network or mount namespace, or it is stopped.
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
if os.geteuid() == 0:  # Without allow_other, the kernel lets only the mount's owner ask, not even root.
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
sys.exit(ALIVE if answer.f_bsize else None)  # To users who may not ask, the kernel answers zeros by itself.
"""
"""A program that asks for the space of a mount. If it cannot ask, it exits with neither of the two statuses."""

_ALIVE, _DEAD = 71, 72
"""The probe's exit statuses; an interpreter that fails has neither."""


class Life(Enum):
    """What is known about a daemon."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


def of(entry: mountinfo.MountEntry) -> Life:
    """Whether the mount's daemon is alive. Takes some seconds if the daemon is stuck."""
    if processes.daemon_of(entry.device) is not None:
        return Life.ALIVE
    return {_ALIVE: Life.ALIVE, _DEAD: Life.DEAD}.get(_probe(entry), Life.UNKNOWN)


def _probe(entry: mountinfo.MountEntry) -> int:
    """The probe's exit status, or 0 if it gets no answer in time. It is a process, as a thread could not be killed."""
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
        probe.kill()  # It may end much later, when the kernel answers it.
        return 0
