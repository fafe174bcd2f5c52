"""Checks the replies of a daemon, as another user's program may answer in its place.

A shape is a type, a tuple of types of which one must fit, a dictionary of the required keys with their
shapes (more keys are allowed), a list with the shape of its members, or a ``Mapping``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

_LARGEST = 1 << 64
_LONGEST = 4096
_LATEST = 1 << 36
"""Seconds since 1970: some two thousand years."""

_LOG_OF_REPLICA = {"local_tail": int, "operations": int, "batches": int, "helped": int, "full": int}


@dataclass(frozen=True)
class Mapping:
    """The shape of a dictionary with any keys, whose values have one shape."""

    shape: object


STATUS = {
    "version": str,
    "pid": int,
    "cache": str,
    "channel": str,
    "channel_reason": (str, type(None)),
    "started": (int, float),
    "requests": Mapping(int),
    "workers": [{"cpu": (int, type(None)), "requests": Mapping(int), "elsewhere": int}],
    "tracers": int,
    "latencies": Mapping({"nanoseconds": [int], "counts": [int]}),
    "content": str,
    "placed": bool,
    "capacity": {"bytes": int, "bytes_used": int, "inodes": int, "inodes_used": int},
    "logs": [{"name": str, "tail": int}],
    "replicas": [
        {
            "node": int,
            "cpus": [int],
            "physical": (int, type(None)),
            "bytes_here": int,
            "bytes_elsewhere": int,
            "logs": [_LOG_OF_REPLICA],
        }
    ],
}
TRACE = {
    "traced": [
        {
            "time": (int, float),
            "kind": str,
            "inode": int,
            "paths": [{"path": (str, type(None)), "deleted": bool}],
            "attribute": (str, type(None)),
            "offset": (int, type(None)),
            "length": (int, type(None)),
            "pid": int,
            "uid": (int, type(None)),
            "gid": (int, type(None)),
            "errno": (int, type(None)),
            "microseconds": (int, float),
            "node": (int, type(None)),
            "batches": [{"log": str, "operations": int}],
        }
    ],
    "lost": int,
    "last": bool,
}
LIMITS = {"size": int, "inodes": int}
VERIFICATION = {"logs": [{"log": str, "position": int, "digests": [str]}]}


class NonsenseError(Exception):
    """Why a reply is malformed."""


class RefusedError(Exception):
    """The daemon refused a command; its reason."""


def understood(line: bytes) -> dict[str, Any]:
    """Parses a reply.

    Raises:
        RefusedError: it is a refusal.
        NonsenseError: it is malformed.

    """
    try:
        reply = json.loads(line)
    except RecursionError:
        raise NonsenseError("too deep") from None
    except ValueError:
        raise NonsenseError("no JSON") from None
    if not isinstance(reply, dict):
        raise NonsenseError("no object")
    if "error" in reply:
        raise RefusedError(str(reply["error"])[:_LONGEST])
    return reply


def check_status(reply: dict[str, Any]) -> None:
    """Checks that a status has everything that is shown of it.

    Raises:
        NonsenseError: what is missing or wrong.

    """
    _check(reply, STATUS, "status")
    if not reply["replicas"] or not reply["logs"] or not reply["workers"]:
        raise NonsenseError("nothing in it")
    if any(len(replica["logs"]) != len(reply["logs"]) for replica in reply["replicas"]):
        raise NonsenseError("replicas and logs do not match")


def check_trace(reply: dict[str, Any]) -> None:
    """Checks that a line about traced requests has everything that is shown of it.

    Raises:
        NonsenseError: what is missing or wrong.

    """
    _check(reply, TRACE, "trace")
    if not all(0 <= each["time"] < _LATEST for each in reply["traced"]):
        raise NonsenseError("trace out of time")


def check_verification(reply: dict[str, Any]) -> None:
    """Checks that a verification has everything that is shown of it.

    Raises:
        NonsenseError: what is missing or wrong.

    """
    _check(reply, VERIFICATION, "verification")


def check_limits(reply: dict[str, Any]) -> None:
    """Checks that the answer to a remount has the limits of before.

    Raises:
        NonsenseError: what is missing or wrong.

    """
    _check(reply, LIMITS, "limits")


def _check(value: object, shape: object, name: str) -> None:
    match shape:
        case dict():
            if not isinstance(value, dict):
                raise NonsenseError(f"{name} is no object")
            for key, wanted in shape.items():
                if key not in value:
                    raise NonsenseError(f"{name} without {key}")
                _check(value[key], wanted, key)
        case list():
            if not isinstance(value, list):
                raise NonsenseError(f"{name} is no list")
            for member in value:
                _check(member, shape[0], name)
        case Mapping():
            if not isinstance(value, dict):
                raise NonsenseError(f"{name} is no object")
            for member in value.values():
                _check(member, shape.shape, name)
        case _:
            if isinstance(value, bool) != (shape is bool) or not isinstance(value, shape):  # type: ignore[arg-type]
                raise NonsenseError(f"{name} of another kind")
            if isinstance(value, str) and len(value) > _LONGEST:
                raise NonsenseError(f"{name} too long")
            if isinstance(value, int | float) and not (math.isfinite(value) and abs(value) < _LARGEST):
                raise NonsenseError(f"{name} out of range")
