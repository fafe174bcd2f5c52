"""How long requests take: the histograms of a daemon, and percentiles of them.

A histogram is a list of pairs ``(nanoseconds, count)`` in ascending order. ``count`` requests took at most
``nanoseconds``, and longer than the pair before says. Not all requests are timed: see ``Connection.latencies``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Histogram = Sequence[tuple[int, int]]


def histograms(daemon: Mapping[str, Any]) -> dict[str, Histogram]:
    """By kind of request, from a daemon's status."""
    return {
        kind: list(zip(each["nanoseconds"], each["counts"], strict=False)) for kind, each in daemon["latencies"].items()
    }


def since(now: Histogram, before: Histogram) -> Histogram:
    """What was added to a histogram since it was read as ``before``."""
    counted = dict(before)
    return [(limit, count - counted.get(limit, 0)) for limit, count in now if count > counted.get(limit, 0)]


def microseconds(histogram: Histogram, percent: float) -> float | None:
    """A percentile: the microseconds that ``percent`` of the requests took at most. None if none was timed."""
    left = sum(count for _, count in histogram) * percent / 100
    for limit, count in histogram:
        left -= count
        if left <= 0:
            return limit / 1e3
    return None
