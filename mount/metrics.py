"""``nrfs metrics``: what ``nrfs status`` knows, for Prometheus."""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from threading import Event
from typing import Any, final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, generate_latest, make_wsgi_app, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from mount import latency, status
from mount.failure import MountError
from mount.latency import Histogram

LOOPBACK = "127.0.0.1"

_BOUNDS = [1 << power for power in range(10, 36)]
"""Upper bounds of the buckets in nanoseconds, from a microsecond to half a minute. Each is also a bound of one of the
daemon's buckets, so that no count is divided."""


def show(path: str | None, port: int | None, at: str | None) -> int:
    """Prints the metrics of the mount at ``path``, or of all mounts of this user; or serves them on a loopback port, or
    at a Unix socket that only this user can reach, until it is interrupted.

    Raises:
        MountError: there is no such mount, or this user may not ask; or the port or the socket cannot be had.

    """
    status.of(path)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(path))
    if at is not None:
        with _Server(Path(at).absolute(), registry) as local:
            print(at, flush=True)
            local.serve_forever()
    if port is None:
        sys.stdout.write(generate_latest(registry).decode())
        return 0
    try:
        server, _ = start_http_server(port, LOOPBACK, registry)
    except OSError as failure:
        raise MountError(f"port {port}: {failure.strerror}") from None
    print(f"http://{LOOPBACK}:{server.server_port}/metrics", flush=True)
    Event().wait()
    return 0


@final
class _Server(ThreadingMixIn, WSGIServer):
    """Serves metrics at a Unix socket, which is removed in the end."""

    address_family = socket.AF_UNIX
    daemon_threads = True

    def __init__(self, path: Path, registry: CollectorRegistry) -> None:
        self._path = path
        self._inode: int | None = None
        try:
            _clear(path)
            super().__init__(os.fspath(path), _Quiet)  # type: ignore[arg-type]
        except OSError as failure:
            raise MountError(f"socket {path}: {failure.strerror or failure}") from None
        self.set_app(make_wsgi_app(registry))

    def server_bind(self) -> None:
        before = os.umask(0o177)
        try:
            TCPServer.server_bind(self)
        finally:
            os.umask(before)
        self._inode = self._path.lstat().st_ino
        self.server_name, self.server_port = "localhost", 0
        self.setup_environ()

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        connection, _ = super().get_request()
        return connection, ("local", 0)

    def server_close(self) -> None:
        super().server_close()
        with suppress(FileNotFoundError):
            if self._path.lstat().st_ino == self._inode:
                self._path.unlink()


@final
class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Logs no requests."""


def _clear(path: Path) -> None:
    """Removes a socket that a process has left at which nobody listens."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            try:
                connection.connect(os.fspath(path))
            except ConnectionRefusedError:
                path.unlink()


@final
class _Collector:
    """Asks the daemons each time the metrics are wanted."""

    def __init__(self, path: str | None) -> None:
        self._path = path

    def collect(self) -> Iterator[Metric]:
        try:
            every = status.of(self._path)
        except MountError:  # It has been unmounted meanwhile.
            every = []
        up = GaugeMetricFamily("nrfs_up", "Whether the daemon answers", labels=["mountpoint"])
        for each in every:
            up.add_metric([each.mountpoint], each.problem is None and each.daemon is not None)
        yield up
        known = [(each.mountpoint, each.daemon) for each in every if each.problem is None and each.daemon is not None]
        yield from _of_mounts(known)
        yield from _of_replicas(known)
        yield from _of_requests(known)


_Known = list[tuple[str, dict[str, Any]]]


def _of_mounts(known: _Known) -> Iterator[Metric]:
    started = GaugeMetricFamily("nrfs_start_time_seconds", "When the daemon was started", labels=["mountpoint"])
    for mountpoint, daemon in known:
        started.add_metric([mountpoint], daemon["started"])
    yield started
    for name, key, meaning in (
        ("nrfs_capacity_bytes", "bytes", "Bytes of content that there is room for"),
        ("nrfs_used_bytes", "bytes_used", "Bytes of content"),
        ("nrfs_capacity_inodes", "inodes", "Inodes that there is room for"),
        ("nrfs_used_inodes", "inodes_used", "Inodes"),
    ):
        gauge = GaugeMetricFamily(name, meaning, labels=["mountpoint"])
        for mountpoint, daemon in known:
            gauge.add_metric([mountpoint], daemon["capacity"][key])
        yield gauge


def _of_replicas(known: _Known) -> Iterator[Metric]:
    tail = CounterMetricFamily("nrfs_log_entries", "Operations appended to a log", labels=["mountpoint", "log"])
    memory = GaugeMetricFamily(
        "nrfs_replica_memory_bytes", "Memory of a replica by where it lies", labels=["mountpoint", "node", "place"]
    )
    for mountpoint, daemon in known:
        for log in daemon["logs"]:
            tail.add_metric([mountpoint, log["name"]], log["tail"])
        for replica in daemon["replicas"]:
            for place in ("here", "elsewhere"):
                memory.add_metric([mountpoint, str(replica["node"]), place], replica[f"bytes_{place}"])
    yield tail
    yield memory
    for name, key, meaning in (
        ("nrfs_replica_applied", "local_tail", "Entries of a log that a replica has applied"),
        ("nrfs_replica_operations", "operations", "Operations that a replica's combiners have appended"),
        ("nrfs_replica_batches", "batches", "Batches that a replica's combiners have appended"),
        ("nrfs_replica_helped", "helped", "How often a thread of another node has applied a log for a replica"),
        ("nrfs_replica_log_full", "full", "How often a combiner has found a log full"),
    ):
        counter = CounterMetricFamily(name, meaning, labels=["mountpoint", "node", "log"])
        for mountpoint, daemon in known:
            for replica in daemon["replicas"]:
                for log, of_log in zip(daemon["logs"], replica["logs"], strict=True):
                    counter.add_metric([mountpoint, str(replica["node"]), log["name"]], of_log[key])
        yield counter


def _of_requests(known: _Known) -> Iterator[Metric]:
    taken = CounterMetricFamily("nrfs_requests", "Requests of the kernel", labels=["mountpoint", "kind"])
    by_worker = CounterMetricFamily(
        "nrfs_worker_requests", "Requests that a worker has taken", labels=["mountpoint", "worker", "cpu"]
    )
    took = HistogramMetricFamily(
        "nrfs_request_duration_seconds",
        "How long requests that were timed took: the first 64 of a kind, then one of 8. The sum is an estimate",
        labels=["mountpoint", "kind"],
    )
    for mountpoint, daemon in known:
        for kind, count in daemon["requests"].items():
            taken.add_metric([mountpoint, kind], count)
        for number, worker in enumerate(daemon["workers"]):
            cpu = "any" if worker["cpu"] is None else str(worker["cpu"])
            by_worker.add_metric([mountpoint, str(number), cpu], sum(worker["requests"].values()))
        for kind, histogram in latency.histograms(daemon).items():
            took.add_metric(
                [mountpoint, kind], _buckets(histogram), sum(limit * count for limit, count in histogram) / 1e9
            )
    yield from (taken, by_worker, took)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    buckets: list[tuple[str, float]] = [
        (str(bound / 1e9), sum(count for limit, count in histogram if limit < bound)) for bound in _BOUNDS
    ]
    return [*buckets, ("+Inf", sum(count for _, count in histogram))]
