"""A mount of nrfs with a tmpfs to compare it with, and the configurations that tests use.

``NRFS_TEST_NODES`` sets the numbers of replicas: ``NRFS_TEST_NODES=1 pytest tests`` runs everything with one replica,
``NRFS_TEST_NODES=5`` with five, even if there are fewer CPUs; ``1,2,8`` with each of these numbers in turn.
``NRFS_TEST_CHANNELS`` sets the channels: ``pyfuse3,device,ring`` runs everything on each; otherwise they take turns.
``NRFS_TEST_CONTENT=shared`` runs everything with shared content.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, cycle
from pathlib import Path
from typing import TypeAlias

import pytest
from conftest import Mounts, run_nrfs

from mount.channel import Channel, choose

from .differences import Abilities, abilities_of

Option: TypeAlias = str | int | bool | None
"""The value of an option of ``nrfs mount``."""

_fresh = count()


@dataclass(frozen=True)
class Configuration:
    """How nrfs is mounted for a test."""

    nodes: int
    cache: str = "writeback"
    channel: str = "pyfuse3"
    content: str = "replicated"

    def __str__(self) -> str:
        what = "" if self.content == "replicated" else f"-{self.content}"
        return f"{self.nodes}-{self.cache}-{self.channel}{what}"

    @property
    def is_collecting(self) -> bool:
        """Whether the kernel collects written data before it sends it."""
        return self.cache == "writeback" and self.content == "replicated"

    @property
    def options(self) -> dict[str, Option]:
        """The options of ``nrfs mount``."""
        return {"nodes": self.nodes, "cache": self.cache, "channel": self.channel, "content": self.content}


def configurations(nodes: Sequence[int], caches: Sequence[str] = ("writeback",)) -> list[Configuration]:
    """The configurations to test with: all numbers of replicas and cache modes, on channels that take turns.

    If there is no ring, the device is used in its place.
    """
    shapes = [(count, cache) for count in node_counts(nodes) for cache in caches]
    if os.environ.get("NRFS_TEST_CONTENT") == "shared":
        return [Configuration(*shape, choose(Channel.AUTO).channel, "shared") for shape in shapes]
    asked = os.environ.get("NRFS_TEST_CHANNELS")
    if asked:
        return [Configuration(*shape, channel) for channel in asked.split(",") for shape in shapes]
    turns = cycle(("pyfuse3", choose(Channel.AUTO).channel, "device"))
    return [Configuration(*shape, channel) for shape, channel in zip(shapes, turns, strict=False)]


def node_counts(default: Sequence[int]) -> list[int]:
    """The numbers of replicas to test with, unless ``NRFS_TEST_NODES`` says others."""
    asked = os.environ.get("NRFS_TEST_NODES")
    return [int(number) for number in asked.split(",")] if asked else list(default)


def more_than_cpus() -> int:
    return (os.cpu_count() or 1) + 1


@dataclass(frozen=True)
class Pair:
    """A tmpfs and a mount of nrfs."""

    reference: Path
    """A directory on the tmpfs."""
    subject: Path
    """A directory on nrfs."""
    configuration: Configuration

    @property
    def abilities(self) -> Abilities:
        """The abilities that both have."""
        return abilities_of(self.configuration.cache, self.configuration.channel, self.configuration.content)

    def directories(self, name: str) -> tuple[Path, Path]:
        """A new directory with the same name on each, the reference first."""
        made = f"{name} {next(_fresh)}".replace("/", "_")
        pair = self.reference / made, self.subject / made
        for directory in pair:
            directory.mkdir()
        return pair


@contextmanager
def mounted_nrfs(**options: Option) -> Iterator[Path]:
    """A mount for as long as the context lasts; at its end all replicas must agree."""
    mounts = Mounts()
    try:
        path = mounts(None, **options)
        yield path
        verified = run_nrfs("status", "--verify", path)
        assert verified.returncode == 0, verified.stdout + verified.stderr
        mounts.unmount(path)
    finally:
        mounts.clean_up()


@contextmanager
def mounted_tmpfs(mountpoint: Path, *options: str) -> Iterator[Path]:
    """A tmpfs with the mount flags that nrfs has by default."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts a tmpfs to compare with")
    mountpoint.mkdir(exist_ok=True)
    flags = ",".join(["nosuid", "nodev", "noatime", *options])
    subprocess.run(["mount", "-t", "tmpfs", "-o", flags, "tmpfs", mountpoint], check=True)
    try:
        yield mountpoint
    finally:
        subprocess.run(["umount", mountpoint], check=True)


@contextmanager
def mounted_pair(directory: Path, configuration: Configuration, **options: Option) -> Iterator[Pair]:
    """A tmpfs and a mount of nrfs, as long as the context lasts.

    Args:
        directory: where the tmpfs is mounted.
        configuration: how nrfs is mounted.
        options: more options of ``nrfs mount``; ``size`` (in bytes) and ``inodes`` hold for the tmpfs too.

    """
    options = {"size": 1 << 30, **options}
    limits = [
        f"{theirs}={options[ours]}" for ours, theirs in (("size", "size"), ("inodes", "nr_inodes")) if ours in options
    ]
    with (
        mounted_tmpfs(directory, "mode=755", *limits) as reference,
        mounted_nrfs(**configuration.options, **options) as subject,
    ):
        yield Pair(reference, subject, configuration)
