"""``nrfs doctor``: what this machine offers, what nrfs will use of it, and what enables the rest.

Each check examines one thing and returns one finding, with the command that helps, ready to be copied.
Nothing is changed: one file system is mounted at a new directory, and unmounted at once.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shlex
import shutil
import stat
import struct
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import final

from rich.console import Console
from rich.text import Text

import nrfs
from mount import channel, control, machine, mountinfo, mounting, places, rights, sharing, surroundings, wording
from mount.failure import MountError
from mount.liveness import Life
from mount.options import MountOptions
from nrfs.terminal import plain

_CONFIGURATION = Path("/etc/fuse.conf")
_LIMITS = Path("/etc/security/limits.conf")
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")
_DESCRIPTORS = 19
"""How many descriptors a daemon has open, without those of its workers."""
_DESCRIPTORS_OF_A_WORKER = 4
_INIT = struct.Struct("40x5I")
"""The kernel's first request: a header, then major, minor, read-ahead, and two words of flags."""
_LARGEST_INIT = 8192
_PASSTHROUGH = 1 << 37
"""The flag of FUSE passthrough among those two words."""


class State(StrEnum):
    """Whether nrfs can mount in spite of a finding."""

    OK = "ok"
    WARNING = "warning"
    """nrfs can mount, but something else does not work."""
    MISSING = "missing"
    """nrfs cannot mount here."""


@final
@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    state: State
    text: str
    command: str | None = None
    """The command by which this user gets what is missing."""


@final
@dataclass(frozen=True)
class Plan:
    """The settings that ``nrfs mount`` uses by default on this machine."""

    channel: str
    channel_reason: str | None
    nodes: list[list[int]]
    """The CPUs of each node."""
    logs: int
    size: int
    """Bytes of content, on each node."""
    inodes: int
    cache: str


Check = Callable[[], Finding]

_COLOURS = {State.OK: "green", State.WARNING: "yellow", State.MISSING: "red"}


def show(*, as_json: bool) -> int:
    """Prints all findings and the plan.

    Returns:
        0 if nrfs can mount here, else 1.

    """
    findings = {name: _examine(check) for name, check in CHECKS.items()}
    plan = make_plan()
    can_mount = all(finding.state is not State.MISSING for finding in findings.values())
    if as_json:
        shapes = [{"name": name, **asdict(finding)} for name, finding in findings.items()]
        print(json.dumps({"can_mount": can_mount, "findings": shapes, "plan": asdict(plan)}, indent=2))
    else:
        _print(findings, plan, can_mount=can_mount)
    return 0 if can_mount else 1


def make_plan() -> Plan:
    """The plan for this machine."""
    choice = channel.choose(channel.Channel.AUTO)
    options = MountOptions(mountpoint="")
    status = nrfs.Filesystem(nodes=options.nodes, logs=options.logs, size=options.size, inodes=options.inodes).status()
    return Plan(
        channel=choice.channel,
        channel_reason=choice.reason,
        nodes=[replica["cpus"] for replica in status["replicas"]],
        logs=options.logs,
        size=status["capacity"]["bytes"],
        inodes=status["capacity"]["inodes"],
        cache=str(options.cache),
    )


def _examine(check: Check) -> Finding:
    try:
        return check()
    except OSError as error:  # Not every machine has all the files that checks read.
        return Finding(State.WARNING, f"cannot tell: {error}")


def _print(findings: Mapping[str, Finding], plan: Plan, *, can_mount: bool) -> None:
    console = Console(highlight=False, soft_wrap=True)
    width = max(map(len, findings))
    for name, finding in findings.items():
        line = Text(finding.state.ljust(len(State.WARNING)), style=_COLOURS[finding.state])
        line.append(f"  {name.ljust(width)}  {plain(finding.text)}", style="default")
        if finding.command is not None:
            line.append(f"; what helps: {plain(finding.command)}", style="default")
        console.print(line)
    reason = f" ({plan.channel_reason})" if plan.channel_reason else ""
    nodes = ", ".join(f"CPUs {wording.ranges(cpus)}" for cpus in plan.nodes)
    print(f"\nnrfs {'mounts here with' if can_mount else 'cannot mount here; it would with'}")
    print(f"  channel  {plan.channel}{reason}")
    print(f"  nodes    {len(plan.nodes)}: {nodes}")
    print(f"  logs     1 for the namespace, {plan.logs} for the content of files")
    print(f"  size     {wording.amount(plan.size)} on each node, {plan.inodes:,} inodes")
    print(f"  cache    {plan.cache}")


def _by_root(command: str | None) -> str | None:
    """A command for root, as this user must type it."""
    if command is None or os.geteuid() == 0:
        return command
    return f"sudo sh -c {shlex.quote(command)}" if ">" in command else f"sudo {command}"


def _installing(package: str) -> str | None:
    """The command by which this distribution installs a package; the package has the same name everywhere."""
    manager = next(filter(shutil.which, ("apt-get", "dnf", "zypper")), None)
    return _by_root(f"{manager} install {package}") if manager else None


def _life(entry: mountinfo.MountEntry) -> Life:
    try:
        control.daemon_of(entry)
    except control.DaemonUnreachableError as unreachable:
        return unreachable.life
    except MountError:  # It does not answer, but it exists.
        return Life.ALIVE
    return Life.ALIVE


# What it takes to mount


def _kernel() -> Finding:
    return Finding(State.OK, f"Linux {platform.release()}")


def _device() -> Finding:
    try:
        os.close(mounting.open_device())
    except MountError as failure:
        command = f"chmod 666 {mounting.DEVICE}" if mounting.DEVICE.exists() else "modprobe fuse"
        return Finding(State.MISSING, str(failure), _by_root(command))
    return Finding(State.OK, "can be opened")


def _rights() -> Finding:
    if os.geteuid() != 0:
        return Finding(State.OK, "an ordinary user's, who mounts through fusermount3")
    if rights.has_capability(rights.SYS_ADMIN):
        return Finding(State.OK, "root's")
    return Finding(State.MISSING, "root's, but without CAP_SYS_ADMIN (containers: --cap-add SYS_ADMIN)")


def _fusermount3() -> Finding:
    state = State.WARNING if os.geteuid() == 0 else State.MISSING
    try:
        path = Path(mounting.fusermount())
    except MountError:
        return Finding(state, "missing: only root can mount", _installing("fuse3"))
    status = path.stat()
    if status.st_uid != 0 or not status.st_mode & stat.S_ISUID:
        return Finding(state, f"{path} is not set-user-id root: only root can mount", _by_root(f"chmod u+s {path}"))
    if os.statvfs(path).f_flag & os.ST_NOSUID:
        return Finding(state, f"{path} is on a file system without set-user-id: only root can mount")
    if os.geteuid() != 0 and rights.of_this_process("NoNewPrivs") == "1":
        return Finding(state, "this process can gain no rights (no_new_privs, as in a sandbox)")
    return Finding(State.OK, f"{path}, with which ordinary users can mount")


@cache
def _first_request() -> tuple[int, int, int]:
    """Mounts, and reads the kernel's first request: the protocol's version, major and minor, and what it offers.

    Raises:
        MountError: this process cannot mount.

    """
    with tempfile.TemporaryDirectory(prefix="nrfs-doctor-") as directory:
        mountpoint = os.path.realpath(directory)
        try:
            mount = mounting.attach(MountOptions(mountpoint=mountpoint), places.make_runtime_directory(mountpoint))
        except MountError as failure:
            raise MountError(str(failure).removeprefix(f"{mountpoint}: ")) from None
        try:
            major, minor, _, flags, more = _INIT.unpack_from(os.read(mount.descriptor, _LARGEST_INIT))
        finally:
            os.close(mount.descriptor)
            mount.detach()
    return major, minor, flags | more << 32


def _trial() -> Finding:
    try:
        major, minor, _ = _first_request()
    except MountError as failure:
        return Finding(State.MISSING, str(failure))
    return Finding(State.OK, f"tried, and it works; the kernel speaks FUSE {major}.{minor}")


def _python() -> Finding:
    python = platform.python_version()
    found = [f"{python}, nrfs {nrfs.__version__}"]
    for module, without in (("pyfuse3", State.MISSING), ("trio", State.MISSING), ("plyvel", State.WARNING)):
        try:
            import_module(module)
        except ImportError as error:
            use = "nrfs mount" if without is State.MISSING else "nrfs bench leveldb"
            command = f"{shlex.quote(sys.executable)} -m pip install {module}"
            return Finding(without, f"{python}; {use} needs {module}: {error}", command)
        found.append(f"{module} {metadata.version(module)}")
    return Finding(State.OK, ", ".join(found))


def _open_files() -> Finding:
    """A daemon raises its own limit as far as it may, and with CAP_SYS_RESOURCE beyond the hard limit."""
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    if rights.has_capability(rights.SYS_RESOURCE):
        allowed = max(allowed, surroundings.OPEN_FILES)
    needed = _DESCRIPTORS + _DESCRIPTORS_OF_A_WORKER * len(os.sched_getaffinity(0))
    if allowed == resource.RLIM_INFINITY:
        return Finding(State.OK, f"any number allowed, {needed} needed")
    text = f"{allowed:,} allowed, {needed} needed"
    if allowed >= needed:
        return Finding(State.OK, text)
    return Finding(State.MISSING, text, _by_root(f"prlimit --pid $$ --nofile={needed}"))


# What makes it better


def _allow_other() -> Finding:
    try:
        lines = {line.strip() for line in _CONFIGURATION.read_text(errors="replace").splitlines()}
    except FileNotFoundError:
        lines = set()
    if "user_allow_other" in lines:
        return Finding(State.OK, "ordinary users may let others into their mounts")
    command = _by_root(f"echo user_allow_other >> {_CONFIGURATION}")
    return Finding(State.WARNING, "only root may let other users into a mount", command)


def _shared() -> Finding:
    reason = sharing.rights_missing()
    if reason is not None:
        return Finding(State.WARNING, f"--content shared: {reason}")
    try:
        _, _, offered = _first_request()
    except MountError:
        return Finding(State.WARNING, "cannot tell, as nothing can be mounted")
    if not offered & _PASSTHROUGH:
        return Finding(State.WARNING, f"--content shared: {sharing.NOT_OFFERED}")
    return Finding(State.OK, "the kernel can read and write files itself (--content shared)")


def _ring() -> Finding:
    problem = channel.ring_problem()
    if problem is None:
        return Finding(State.OK, "FUSE over io_uring is on")
    return Finding(State.WARNING, problem.reason, _by_root(problem.command))


def _io_uring() -> Finding:
    problem = channel.io_uring_problem()
    if problem is None:
        return Finding(State.OK, "this process can have rings")
    return Finding(State.WARNING, problem.reason, _by_root(problem.command))


def _scheduling() -> Finding:
    """Workers yield by the policy SCHED_IDLE, which not every user's threads may leave again."""

    def go_and_come_back() -> None:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))

    with ThreadPoolExecutor(1) as thread:
        try:
            thread.submit(go_and_come_back).result()
        except PermissionError:
            text = "workers may not yield their CPUs (SCHED_IDLE), so that many requests take longer"
            return Finding(State.WARNING, text, _by_root(f"echo '* - nice 0' >> {_LIMITS}"))
    return Finding(State.OK, "workers can yield their CPUs")


def _cpus() -> Finding:
    allowed, online = os.sched_getaffinity(0), machine.cpus("online")
    present, possible = machine.cpus("present"), machine.cpus("possible")
    text = f"{wording.ranges(allowed)} of {wording.ranges(online)} that are online"
    text += f" (present {wording.ranges(present)}, possible {wording.ranges(possible)})"
    quota = machine.cpu_quota()
    if quota is not None and quota < len(allowed):
        return Finding(State.WARNING, f"{text}, but a control group grants the time of {quota:.1f}")
    if len(allowed) < len(online):
        return Finding(State.WARNING, f"{text}: this process is kept from the others")
    return Finding(State.OK, text)


def _nodes() -> Finding:
    def described(node: nrfs.MachineNode) -> str:
        text = f"node {node.node} with CPUs {wording.ranges(node.cpus) or 'none'}"
        return text if node.usable else f"{text} and no memory for this process"

    nodes = nrfs.Topology.machine().machine_nodes
    text = ", ".join(map(described, nodes))
    if len(nodes) == 1:
        text += " (nrfs mount --nodes 2 emulates two)"
    return Finding(State.OK, text)


def _memory() -> Finding:
    available, limit = machine.memory()["MemAvailable"], machine.memory_limit()
    plan = make_plan()
    needed = plan.size * len(plan.nodes)
    text = f"{wording.amount(available)} available"
    if limit is not None:
        text += f", {wording.amount(limit)} granted by the control group"
        available = min(available, limit)
    rooms = [(available, len(plan.nodes))]
    lacking = [f", and a full mount of the default size takes {wording.amount(needed)}"]
    nodes = nrfs.Topology.machine().machine_nodes
    for node in nodes if len(nodes) > 1 else ():
        room, replicas = machine.available_on(node.node), len(node.replicas)
        if replicas:
            rooms.append((room, replicas))
        if plan.size * replicas > room:
            share = wording.amount(plan.size * replicas)
            lacking.append(f"{share} of it on node {node.node}, which has {wording.amount(room)} available")
    if all(plan.size * replicas <= room for room, replicas in rooms):
        return Finding(State.OK, text)
    half = max(min(room // 2 // replicas for room, replicas in rooms) >> 20, 1)
    return Finding(State.WARNING, text + ", ".join(lacking), f"nrfs mount --size {half}M MOUNTPOINT")


def _huge_pages() -> Finding:
    def chosen(file: str) -> str:
        try:
            return next(word[1:-1] for word in (_HUGE_PAGES / file).read_text().split() if word[0] == "[")
        except OSError:
            return "none"

    enabled = chosen("enabled")
    reserved = wording.amount(machine.memory().get("Hugetlb", 0))
    text = f"{enabled} (of shared memory {chosen('shmem_enabled')}; {reserved} reserved)"
    if enabled == "none":
        return Finding(State.WARNING, "this kernel has no transparent ones: content takes more faults")
    if enabled == "never":
        command = _by_root(f"echo madvise > {_HUGE_PAGES / 'enabled'}")
        return Finding(State.WARNING, text, command)
    return Finding(State.OK, text)


def _mounts() -> Finding:
    ours = [entry for entry in mountinfo.entries() if entry.is_ours and entry.owner == os.geteuid()]
    lives = {entry: _life(entry) for entry in ours}
    dead = [entry.mountpoint for entry in ours if lives[entry] is Life.DEAD]
    unknown = [entry.mountpoint for entry in ours if lives[entry] is Life.UNKNOWN]
    sockets = control.stale_sockets()
    if dead:
        command = "; ".join(f"nrfs umount {wording.argument(mountpoint)}" for mountpoint in dead)
        return Finding(State.WARNING, f"the daemon is dead of {', '.join(dead)}", command)
    if unknown:
        return Finding(State.WARNING, f"the daemon cannot be reached, and may be alive, of {', '.join(unknown)}")
    if sockets:
        text = f"killed daemons left {', '.join(map(str, sockets))}"
        return Finding(State.WARNING, text, "nrfs status")
    return Finding(State.OK, f"{len(ours)} of this user's, and nothing is left of others")


CHECKS: dict[str, Check] = {
    "kernel": _kernel,
    "/dev/fuse": _device,
    "rights": _rights,
    "fusermount3": _fusermount3,
    "mount": _trial,
    "Python": _python,
    "open files": _open_files,
    "allow_other": _allow_other,
    "content": _shared,
    "ring": _ring,
    "io_uring": _io_uring,
    "scheduling": _scheduling,
    "CPUs": _cpus,
    "NUMA": _nodes,
    "memory": _memory,
    "huge pages": _huge_pages,
    "mounts": _mounts,
}
