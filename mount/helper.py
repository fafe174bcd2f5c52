"""``mount.nrfs``, which mount(8) runs for ``mount -t nrfs`` and for lines of fstab of this type.

It is also ``mount.fuse.nrfs``, as the type of a mount that is there is fuse.nrfs: by that name mount(8) asks for a
remount. Where nrfs mounts as tmpfs does, a line of fstab means what it means there: all users come in, by the files'
modes; the root directory is everybody's, as /tmp is; and root's mounts have suid and dev unless they are switched off.
umount(8) needs no helper, as a daemon ends with its mount.

The exit statuses are those of mount(8).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mount import mountinfo, words
from mount.failure import MountError, UsageError
from mount.options import MountOptions
from nrfs import __version__, terminal
from nrfs.arguments import OneLineParser

_USAGE, _SYSTEM, _FAULT, _INTERRUPTED, _FAILED = 1, 2, 4, 8, 32
_TYPES = ("nrfs", "fuse.nrfs")
_REMOUNT = "remount"


def main(arguments: Sequence[str] | None = None) -> int:
    """Mounts or remounts; returns the exit status, as mount(8) has them."""
    terminal.prepare()
    name = Path(sys.argv[0]).name
    try:
        return _run(name, sys.argv[1:] if arguments is None else arguments)
    except SystemExit as end:  # argparse, which has said why.
        return _USAGE if end.code else 0
    except KeyboardInterrupt:
        terminal.complain(name, "interrupted")
        return _INTERRUPTED
    except MountError as failure:
        terminal.complain(name, str(failure))
        return _USAGE if isinstance(failure, UsageError) else _FAILED
    except OSError as failure:
        terminal.complain(name, failure.strerror or str(failure))
        return _SYSTEM
    except Exception as fault:
        terminal.complain(name, terminal.unforeseen(fault))
        return _FAULT


def _parser(name: str) -> OneLineParser:
    parser = OneLineParser(
        prog=name,
        usage=f"{name} SOURCE MOUNTPOINT [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]",
        description="Mounts a new, empty file system for mount(8), or remounts one.",
    )
    parser.add_argument("source", metavar="SOURCE", help="any name, which findmnt and df show")
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", help="an existing directory")
    parser.add_argument("-s", dest="sloppy", action="store_true", help="ignore unknown options")
    parser.add_argument("-f", dest="fake", action="store_true", help="check everything, and do not mount")
    parser.add_argument("-n", action="store_true", help="changes nothing: there is no /etc/mtab to write")
    parser.add_argument("-v", dest="verbose", action="store_true", help="say what was done, and what was ignored")
    parser.add_argument("-N", dest="namespace", metavar="NAMESPACE", help="the mount namespace, as a path or a process")
    parser.add_argument("-o", dest="options", metavar="OPTIONS", action="append", default=[])
    parser.add_argument("-t", dest="type", metavar="TYPE", choices=_TYPES, default=_TYPES[0])
    parser.add_argument("-V", "--version", action="version", version=f"{name} of nrfs {__version__}")
    return parser


def _run(name: str, arguments: Sequence[str]) -> int:
    given = _parser(name).parse_args(arguments)
    lists = [option for text in given.options for option in words.split(text)]
    is_remount = _REMOUNT in lists
    read = words.read([option for option in lists if option != _REMOUNT], is_remount=is_remount, sloppy=given.sloppy)
    if given.namespace is not None:
        _enter(given.namespace)
    base = _base(mountinfo.locate(given.mountpoint), given.source)
    wanted = read.applied_to(base)
    if given.fake:
        done = "would be remounted" if is_remount else "would be mounted"
    elif is_remount:
        from mount import remount

        remount.remount(given.mountpoint, read, base)
        done = "remounted"
    else:
        status = _mount(name, wanted)
        if status != 0:
            return status
        done = "mounted"
    if given.verbose:
        ignored = f" (ignored: {', '.join(read.ignored)})" if read.ignored else ""
        print(terminal.plain(f"{name}: {wanted.source} {done} on {wanted.mountpoint}.{ignored}"))
    return 0


def _base(mountpoint: str, source: str) -> MountOptions:
    """A mount without options. Another user than root gets what fusermount3 allows."""
    if os.geteuid() == 0:
        flags = frozenset({"noatime"})
        return MountOptions(mountpoint, source=source, mode=0o1777, flags=flags, allow_other=True)
    return MountOptions(mountpoint, source=source, mode=0o1777)


def _enter(namespace: str) -> None:
    # Loaded before, as the other namespace may have other files.
    from mount import daemon, kernel, remount  # noqa: F401

    path = f"/proc/{namespace}/ns/mnt" if namespace.isdigit() else namespace
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        kernel.enter(descriptor)
        os.close(descriptor)
    except OSError as error:
        raise MountError(f"-N {namespace}: {(error.strerror or str(error)).lower()}") from None


def _mount(name: str, wanted: MountOptions) -> int:
    from mount import launch, placement

    # Made once, so that the warning is about what is mounted.
    wanted = replace(wanted, nodes=placement.of(wanted.nodes))
    try:
        launch.run_in_background(wanted)
    except launch.Interrupted:
        terminal.complain(name, "interrupted, nothing is mounted")
        return _INTERRUPTED
    reason = placement.shortfall(wanted)
    if reason is not None:
        terminal.complain(name, f"size={wanted.size}: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
