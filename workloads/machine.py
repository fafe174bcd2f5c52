"""What must be known of the machine to judge figures that were measured on it."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import nrfs

PACKAGES = ("numpy", "plyvel", "pyfuse3")
"""Those that take part in what is measured."""

LOAD_BEFORE = os.getloadavg()
"""How busy the machine was before anything was measured: when this module was imported."""


def machine() -> dict[str, Any]:
    """The description, with what is busy on the machine now."""
    topology = nrfs.Topology.machine()
    return {
        "command": shlex.join(["nrfs", *sys.argv[1:]]),
        "kernel": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "distribution": _distribution(),
        "cpu": next(_fields("/proc/cpuinfo", "model name"), platform.processor()),
        "cpus": len(os.sched_getaffinity(0)),
        "nodes": len(topology.nodes),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "load_before": LOAD_BEFORE,
        "load_after": os.getloadavg(),
        "ring": _text("/sys/module/fuse/parameters/enable_uring") == "Y",
        "versions": {
            "nrfs": nrfs.__version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in PACKAGES},
        },
    }


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def _fields(path: str, name: str) -> Iterator[str]:
    """The values of the lines ``name : value`` of a file."""
    for line in _text(path).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            yield value.strip()


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
