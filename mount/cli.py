"""The command lines of the daemon: ``nrfs mount``, ``umount``, ``status``, ``top`` and others.

Each command imports what it needs when it runs, so that a mount is ready sooner.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from mount.failure import MountError
from nrfs import terminal

if TYPE_CHECKING:
    from nrfs.arguments import OneLineParser

    Subcommands = argparse._SubParsersAction[OneLineParser]


def add_commands(subparsers: Subcommands) -> None:
    """Adds the commands of this package."""
    _add_mount(subparsers)
    _add_umount(subparsers)
    _add_status(subparsers)
    _add_doctor(subparsers)
    _add_topology(subparsers)
    _add_top(subparsers)
    _add_trace(subparsers)
    _add_metrics(subparsers)


def _add_mount(subparsers: Subcommands) -> None:
    parser = subparsers.add_parser(
        "mount",
        help="mount a new, empty file system",
        description="Mounts a new, empty file system at MOUNTPOINT and returns when it can be used. "
        "Its content lives in memory and ends with the mount.",
    )
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", help="an existing directory")
    parser.add_argument("--nodes", metavar="auto|N", help="NUMA nodes to replicate on; N emulates so many (auto)")
    parser.add_argument("--topology", metavar="FILE", help="the CPUs of each node, as nrfs topology --json prints them")
    parser.add_argument("--logs", metavar="K", help="parallel logs for the content of files (4)")
    parser.add_argument(
        "--size",
        metavar="8G|50%",
        help="content at the most: bytes of each replica, or a part of a node's memory (50%%)",
    )
    parser.add_argument(
        "--content",
        metavar="replicated|shared",
        help="the bytes of files at every node, or once, where the kernel itself reads and writes them (replicated)",
    )
    parser.add_argument("--huge", metavar="POLICY", help="huge pages for shared content, as in tmpfs(5) (never)")
    parser.add_argument("--mpol", metavar="POLICY", help="its memory policy, as in tmpfs(5) (interleave)")
    parser.add_argument("--inodes", metavar="N", help="inodes at the most (by the memory of each node)")
    parser.add_argument(
        "--cache", metavar="writeback|none", help="what the kernel may keep: all it can, or nothing (writeback)"
    )
    parser.add_argument(
        "--channel",
        metavar="auto|ring|device|pyfuse3",
        help="how requests come in: over io_uring, by /dev/fuse, or to Python alone (the first that there is)",
    )
    parser.add_argument("--allow-other", action="store_true", help="let other users in, each by the files' modes")
    parser.add_argument("--foreground", action="store_true", help="serve in this process until the mount's end")
    parser.add_argument("--log", metavar="FILE", help="append the daemon's messages to FILE")
    parser.add_argument(
        "-o",
        dest="options",
        metavar="OPT,...",
        action="append",
        default=[],
        help="as in fstab: ro, suid, dev, noexec, mode=1777, uid=..., and the above as size=8G; docs/fstab.md has all",
    )
    parser.set_defaults(run=_reporting("mount", run_mount))


def _add_umount(subparsers: Subcommands) -> None:
    parser = subparsers.add_parser(
        "umount",
        help="unmount a file system and end its daemon",
        description="Unmounts the file system at MOUNTPOINT, with all its content, and waits for the daemon's end.",
    )
    parser.add_argument("mountpoint", metavar="MOUNTPOINT")
    parser.add_argument("-l", "--lazy", action="store_true", help="though it is in use: who uses it can go on")
    parser.set_defaults(run=_reporting("umount", run_umount))


def _add_status(subparsers: Subcommands) -> None:
    parser = subparsers.add_parser(
        "status",
        help="show replicas, logs, requests and space of mounts",
        description="Shows the replicas, logs, requests and space of the mount at MOUNTPOINT, or of all mounts "
        "of this user. The exit status is 1 where a daemon is dead or cannot be asked, or replicas differ.",
    )
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", nargs="?")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--verify", action="store_true", help="bring all replicas to one position and compare them")
    parser.set_defaults(run=_reporting("status", run_status))


def _add_doctor(subparsers: Subcommands) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="show what this machine offers, and what enables the rest",
        description="Shows what this machine offers, what nrfs uses of it, and what enables what is missing. "
        "The exit status is 1 where nrfs cannot mount.",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=_reporting("doctor", run_doctor))


def _add_topology(subparsers: Subcommands) -> None:
    parser = subparsers.add_parser(
        "topology",
        help="show NUMA nodes, and where replicas would be",
        description="Shows the NUMA nodes of this machine, their CPUs, memory and distances, and the replicas that a "
        "mount with the same options would have.",
    )
    parser.add_argument("--nodes", metavar="auto|N", help="NUMA nodes to replicate on; N emulates so many (auto)")
    parser.add_argument("--topology", metavar="FILE", help="the CPUs of each node, as --json prints them")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=_reporting("topology", run_topology))


def _add_top(subparsers: Subcommands) -> None:
    parser = subparsers.add_parser(
        "top",
        help="show what a mount does, as it does it",
        description="Shows operations per second and latencies by kind, replicas, logs, workers and memory of the "
        "mount at MOUNTPOINT: on a terminal in place, with keys to sort, pause and quit; else one after the other.",
    )
    parser.add_argument("mountpoint", metavar="MOUNTPOINT")
    parser.add_argument("--interval", type=_seconds, default=1.0, metavar="S", help="seconds between two looks (1)")
    parser.add_argument("--once", action="store_true", help="show one interval, and end")
    parser.add_argument("--json", action="store_true", help="for programs: an object in a line for each interval")
    parser.set_defaults(run=_reporting("top", run_top))


def _add_trace(subparsers: Subcommands) -> None:
    parser = subparsers.add_parser(
        "trace",
        help="show the requests of a mount as they come",
        description="Shows the requests that the kernel sends to the mount at MOUNTPOINT as they are answered: caller, "
        "kind, result, latency in microseconds, the node whose replica answered, and for a change its logs with the "
        "number of operations that were appended together. What the kernel answers from its cache makes no request. "
        "Ends by ctrl-C, or with the mount, and says how many there were.",
    )
    parser.add_argument("mountpoint", metavar="MOUNTPOINT")
    parser.add_argument("-n", "--number", type=_number, metavar="N", help="end after N requests")
    parser.add_argument("--json", action="store_true", help="for programs: an object in a line for each request")
    parser.add_argument("--kind", metavar="KIND,...", default="", help="only these, as status has them: lookup,read")
    parser.add_argument(
        "--path",
        metavar="PATH",
        action="append",
        default=[],
        help="only what is at PATH or below, from the mountpoint; also a pattern, as 'logs/*.txt'",
    )
    parser.add_argument("--pid", type=_number, metavar="PID", help="only what this process asks for")
    parser.add_argument("--failed", action="store_true", help="only what fails")
    parser.add_argument("--slower", type=_microseconds, default=0.0, metavar="US", help="only what takes so long")
    parser.set_defaults(run=_reporting("trace", run_trace))


def _add_metrics(subparsers: Subcommands) -> None:
    parser = subparsers.add_parser(
        "metrics",
        help="print or serve what status knows for Prometheus",
        description="Prints the metrics of the mount at MOUNTPOINT, or of all mounts of this user, as Prometheus reads "
        "them; or serves them until it is interrupted.",
    )
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", nargs="?")
    served = parser.add_mutually_exclusive_group()
    served.add_argument(
        "--port", type=_port, metavar="N", help="serve them on this port of 127.0.0.1 (0: any; it prints which)"
    )
    served.add_argument("--socket", metavar="PATH", help="serve them at a Unix socket that only this user can reach")
    parser.set_defaults(run=_reporting("metrics", run_metrics))


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.01 <= number <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.01 to 86400")
    return number


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 1 << 32:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def _microseconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1e12:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of microseconds")
    return number


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port")
    return int(text)


def _reporting(name: str, command: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Wraps a command: a ``MountError`` becomes one line on standard error, and the exit status."""

    def run(arguments: argparse.Namespace) -> int:
        try:
            return command(arguments)
        except MountError as failure:
            terminal.complain(f"nrfs {name}", str(failure))
            return failure.status

    return run


def run_mount(arguments: argparse.Namespace) -> int:
    """Mounts; returns when the mount can be used, or with ``--foreground`` at its end."""
    from mount import launch, mountinfo, placement, words

    wanted = words.from_arguments(arguments, mountinfo.locate(arguments.mountpoint))
    # Made once, so that the warning is about what is mounted.
    wanted = replace(wanted, nodes=placement.of(wanted.nodes))

    def warn() -> None:
        reason = placement.shortfall(wanted)
        if reason is not None:
            terminal.complain("nrfs mount", f"--size {wanted.size}: {reason}")

    if wanted.foreground:
        launch.run_in_foreground(wanted, warn)
        return 0
    try:
        launch.run_in_background(wanted)
    except launch.Interrupted as interrupted:
        terminal.complain("nrfs mount", "interrupted, nothing is mounted")
        return 128 + interrupted.number
    warn()
    return 0


def run_umount(arguments: argparse.Namespace) -> int:
    """Unmounts and waits for the daemon's end."""
    from mount import ending

    ending.end(arguments.mountpoint, lazy=arguments.lazy)
    return 0


def run_status(arguments: argparse.Namespace) -> int:
    """Shows one mount or all."""
    from mount import status

    return status.show(arguments.mountpoint, as_json=arguments.json, verify=arguments.verify)


def run_top(arguments: argparse.Namespace) -> int:
    """Shows what a mount does."""
    from mount import top

    return top.show(arguments.mountpoint, interval=arguments.interval, once=arguments.once, as_json=arguments.json)


def run_trace(arguments: argparse.Namespace) -> int:
    """Shows requests as they come."""
    from mount import trace

    wanted = trace.Wanted(
        kinds=[kind for kind in arguments.kind.split(",") if kind],
        process=arguments.pid,
        paths=arguments.path,
        fails=arguments.failed,
        microseconds=arguments.slower,
    )
    return trace.show(arguments.mountpoint, wanted, most=arguments.number, as_json=arguments.json)


def run_metrics(arguments: argparse.Namespace) -> int:
    """Prints or serves metrics."""
    from mount import metrics

    return metrics.show(arguments.mountpoint, arguments.port, arguments.socket)


def run_doctor(arguments: argparse.Namespace) -> int:
    """Shows what this machine offers."""
    from mount import doctor

    return doctor.show(as_json=arguments.json)


def run_topology(arguments: argparse.Namespace) -> int:
    """Shows the nodes of this machine, and the replicas that a mount would have."""
    from mount import placement, topology, words

    replicas = placement.of(words.nodes_from(arguments.nodes, arguments.topology))
    return topology.show(replicas, as_json=arguments.json)
