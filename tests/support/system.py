"""A system of its own for tests of mount(8): nrfs's helpers in its own /sbin, and its own /etc/fstab, /run, /tmp, /mnt.

All of it is in a namespace, as are the daemons. The kernel ends them with this process, however that ends: so nothing
is left, neither a link in /sbin nor a mount.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

HELPER = Path(sys.executable).with_name("mount.nrfs")
REPOSITORY = Path(__file__).parent.parent.parent
NOBODY = 65534
AS_USER = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
NRFS, TMPFS, HOME = "/mnt/nrfs", "/mnt/tmpfs", "/mnt/home"
"""Mount points that are there; the last one is the user's."""
_SECONDS = 60.0

_SETUP = """
# Mounts of other tests, which this namespace would keep alive.
umount --all --types fuse.nrfs --lazy --no-canonicalize || true
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /run/of-tests {nrfs} {tmpfs} {home}
chown {user}:{user} {home}
cp -a /dev/fuse /run/of-tests/fuse
chmod 666 /run/of-tests/fuse
mount --bind /run/of-tests/fuse /dev/fuse
over() {{
    mkdir -p "/run/of-tests/$1/new" "/run/of-tests/$1/work"
    mount -t overlay -o "lowerdir=$1,upperdir=/run/of-tests/$1/new,workdir=/run/of-tests/$1/work" overlay "$1"
}}
over "$(realpath /sbin)"
over /etc
over /tmp
ln -sf {helper} /sbin/mount.nrfs
ln -sf {helper} /sbin/mount.fuse.nrfs
for closed in {closed}; do
    over "$closed"
    chmod go+rx "$closed"
done
: > /etc/fstab
rm -f /etc/mtab
ln -s /proc/self/mounts /etc/mtab
echo ready
while sleep 1000; do :; done
"""


@dataclass
class System:
    """A running system."""

    process: int
    """Its first process, as this process sees it."""

    def run(self, *command: object, user: bool = False, seconds: float = _SECONDS) -> subprocess.CompletedProcess[str]:
        """Runs a command in it to its end, as root or as an ordinary user."""
        return subprocess.run(
            self.command(*command, user=user), capture_output=True, text=True, timeout=seconds, check=False
        )

    def command(self, *command: object, user: bool = False) -> list[str]:
        """The command line that runs a command in it."""
        into = ("nsenter", "--target", str(self.process), "--mount", "--pid", "--wd=/")
        return [*into, *(AS_USER if user else ()), *map(str, command)]

    def done(self, *command: object, user: bool = False) -> str:
        """Runs a command that must succeed and say nothing on standard error. Returns its output."""
        result = self.run(*command, user=user)
        assert (result.returncode, result.stderr) == (0, ""), f"{command}: {result.stdout}"
        return result.stdout

    def shell(self, script: str, *, user: bool = False) -> str:
        """Runs a script that must succeed. Returns its output."""
        return self.done("sh", "-ec", script, user=user)

    def write_fstab(self, *lines: str) -> None:
        """Makes these lines the whole /etc/fstab."""
        self.shell("cat > /etc/fstab <<'END'\n" + "".join(f"{line}\n" for line in lines) + "END\n")

    def daemons(self) -> Sequence[str]:
        """The processes in it that serve a mount."""
        return self.run("pgrep", r"^mount\.(fuse\.)?nrfs$").stdout.split()

    def findmnt(self, column: str, path: str = NRFS) -> str:
        """What there is to find of a mount; empty if nothing is mounted there."""
        return self.run("findmnt", "--noheadings", "--output", column, "--mountpoint", path).stdout.strip()


@contextmanager
def _running() -> Iterator[System]:
    assert HELPER.exists(), f"{HELPER} is missing: scripts/setup installs it"
    paths = (HELPER, Path(sys.executable).resolve(), REPOSITORY)
    above = {directory for path in paths for directory in path.parents if directory.stat().st_mode & 0o005 != 0o005}
    closed = " ".join(shlex.quote(str(directory)) for directory in sorted(above))
    script = _SETUP.format(
        nrfs=NRFS, tmpfs=TMPFS, home=HOME, user=NOBODY, helper=shlex.quote(str(HELPER)), closed=closed
    )
    namespaces = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    command = ("setpriv", "--pdeathsig", "KILL", *namespaces, "sh", "-ec", script)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n", "there is no system of its own"
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            yield System(int(children[0]))
        finally:
            process.kill()


@pytest.fixture
def system(_fuse_can_be_used: None) -> Iterator[System]:
    """A system of its own, with nothing mounted."""
    with _running() as running:
        yield running
