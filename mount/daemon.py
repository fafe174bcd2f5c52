"""The daemon: one file system, its mount, its channel and its control socket, from start to end.

It ends by SIGTERM, SIGINT or SIGHUP, or when its mount is taken away. Either way it leaves no mount and no
socket. An error after the mount was made is logged, and ends the mount.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, final

import pyfuse3
import trio

from mount import channel, mounting, places, remount, server, sharing, tracing
from mount.failure import MountError, UsageError
from mount.operations import Operations
from mount.options import Cache, Content, MountOptions
from mount.signals import ENDING_SIGNALS
from mount.writeback import collected_at_most
from nrfs import Connection, Filesystem, __version__

_PAUSE = 10.0
"""Seconds for which memory of deleted files is kept unused before it is given back to the system."""

_PATIENCE = 1.0
"""Seconds that the mount's end waits for those who trace it to take what has come."""

_log = logging.getLogger("nrfs")


def run(options: MountOptions, on_ready: Callable[[Path], None]) -> None:
    """Mounts, serves, and returns when the mount has ended.

    The caller must have blocked the ending signals. One that comes early ends the daemon as soon as it can.

    Args:
        options: what to mount.
        on_ready: called when the mount can be used, with the path for the daemon's own log. If it raises
            ``OSError``, the caller has gone, and the mount ends.

    Raises:
        MountError: the mount could not be made, or serving it failed; only in the second case it has a
            cause. Nothing is left behind.

    """
    _log_what_matters()
    choice = channel.choose(options.channel)
    if options.content is Content.SHARED:
        sharing.check(choice.channel)
    filesystem = _filesystem(options)
    directory = places.make_runtime_directory(options.mountpoint)
    if signal.sigpending() & ENDING_SIGNALS:
        return
    mount = mounting.attach(options, directory)
    device = mount.entry.device
    files = server.ControlFiles.of(device, directory)
    daemon = _Daemon(options, choice, filesystem, mount, files.log)
    try:
        with daemon.session(on_ready), server.listening(files.socket, device) as listeners:
            # What exists now stays, so the garbage collector need not traverse it during requests.
            gc.collect()
            gc.freeze()
            trio.run(daemon.serve, listeners)
    except MountError:
        raise
    except Exception as fault:
        raise MountError(f"{options.mountpoint}: serving the mount failed: {_innermost(fault)}") from fault
    finally:
        if daemon.taken_away:
            mount.detach_if_dead()
        else:
            mount.detach()
        files.remove_empty_log()


def _log_what_matters() -> None:
    def matters(record: logging.LogRecord) -> bool:
        # The kernel accepts no reply to a request whose caller was killed, nor any after the mount's end.
        nobody_waits = {os.strerror(number) for number in (errno.ENOENT, errno.ENODEV)}
        return "fuse_reply_" not in record.msg or not nobody_waits.intersection(record.args or ())

    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("pyfuse3").addFilter(matters)


def _filesystem(options: MountOptions) -> Filesystem:
    try:
        return Filesystem(
            nodes=options.nodes,
            content=options.content.value,
            huge=options.huge,
            mpol=options.mpol,
            logs=options.logs,
            size=options.size,
            inodes=options.inodes,
            mode=options.mode,
            uid=os.geteuid() if options.uid is None else options.uid,
            gid=os.getegid() if options.gid is None else options.gid,
            noswap=options.noswap,
        )
    except (ValueError, OverflowError) as reason:
        raise UsageError(str(reason)) from None
    except (MemoryError, OSError) as reason:
        raise MountError(f"no memory for the file system: {reason}") from None


def _innermost(fault: BaseException) -> BaseException:
    while isinstance(fault, BaseExceptionGroup):
        fault = fault.exceptions[0]
    return fault


@final
class _Daemon:
    """A mount that is served in this process."""

    def __init__(
        self, options: MountOptions, choice: channel.Choice, filesystem: Filesystem, mount: mounting.Mount, log: Path
    ) -> None:
        self.taken_away = False
        """Whether the kernel ended the connection."""
        self._options = options
        self._channel = choice
        self._filesystem = filesystem
        self._mount = mount
        self._own_log = log
        self._told_to_end = False
        self._failure: MountError | None = None
        self._remounting = trio.Lock()
        self._started = time.time()
        self._tracers = 0
        self._ended = trio.Event()

    @contextmanager
    def session(self, on_ready: Callable[[Path], None]) -> Iterator[None]:
        """The connection to the kernel, which owns the mount's descriptor, and pyfuse3's session behind it."""

        def announce() -> None:
            try:
                if self._options.content is Content.SHARED:
                    sharing.check_kernel(self._connection)
                on_ready(self._own_log)
            except OSError:
                self._end()
            except MountError as failure:  # Raised later, as libfuse calls this.
                self._failure = failure
                self._end()

        operations = Operations(self._filesystem, self._options.cache, announce)
        self._connection = Connection(
            self._filesystem,
            self._mount.descriptor,
            channel=self._channel.channel,
            caching=self._options.cache is Cache.WRITEBACK,
            collected=self._collected(),
        )
        try:
            try:
                # By this form of path libfuse uses a descriptor that is already mounted.
                pyfuse3.init(operations, f"/dev/fd/{self._connection.descriptor}", set())
            except BaseException:
                os.close(self._connection.descriptor)
                raise
            try:
                yield
            finally:
                pyfuse3.close(unmount=False)
        finally:
            try:
                self._connection.end()
            except OSError:
                # The mount is still there, but has no workers: a process that touches it would wait for ever.
                self.taken_away = False
                raise

    def _collected(self) -> int:
        capacity = self._filesystem.capacity()
        replicas = len(self._filesystem.status()["replicas"])
        return collected_at_most(self._mount.entry.device, capacity.blocks * capacity.block_size, replicas)

    async def serve(self, listeners: Sequence[socket.socket]) -> None:
        """Answers requests and clients until the mount's end."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_on_signal)
            nursery.start_soon(self._end_with_requests)
            nursery.start_soon(self._give_memory_back)
            nursery.start_soon(server.serve, listeners, self._answer, self._tell)
            # One task: handlers never wait, so more tasks would only take turns.
            await pyfuse3.main(min_tasks=1, max_tasks=1)
            self.taken_away = not self._told_to_end
            self._ended.set()
            with trio.move_on_after(_PATIENCE):
                while self._tracers > 0:
                    await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    async def _end_on_signal(self) -> None:
        with trio.open_signal_receiver(*ENDING_SIGNALS) as signals:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
            async for _ in signals:
                self._end()

    async def _end_with_requests(self) -> None:
        await trio.lowlevel.wait_readable(self._connection)
        pyfuse3.terminate()

    async def _give_memory_back(self) -> None:
        """Gives memory that requests have freed back to the system when it was not needed for a while."""
        given_at = seen = 0
        while True:
            await trio.sleep(_PAUSE)
            before, seen = seen, sum(self._requests().values())
            is_busy = seen != before
            if is_busy or seen != given_at:
                # In a thread: a lot of memory takes long, and Python's requests must not wait.
                await trio.to_thread.run_sync(partial(self._filesystem.release_memory, surplus=is_busy))
            if not is_busy:
                given_at = seen

    def _end(self) -> None:
        self._told_to_end = True
        pyfuse3.terminate()

    async def _answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        match command := asked["command"]:
            case "status":
                return self._status()
            case "verify":
                verify = self._filesystem.verify  # In a thread: it may take long.
                return {"logs": await trio.to_thread.run_sync(verify, abandon_on_cancel=True)}
            case "mounted":
                return {"mounted": self._mount.is_there()}
            case "remount":
                return await self._remount(asked["size"], asked["inodes"], asked["fixed"])
        raise ValueError(f"no such command: {command}")

    async def _tell(self, client: trio.SocketStream, wanted: dict[str, Any]) -> None:
        self._tracers += 1
        try:
            await tracing.tell(client, self._connection, wanted, self._ended)
        finally:
            self._tracers -= 1

    async def _remount(self, size: int | str | None, inodes: int | None, fixed: dict[str, str]) -> dict[str, Any]:
        """Changes the limits, both or neither, and returns those of before.

        Other settings cannot change: ``fixed`` has what they should be, as ``mount.remount.fixed`` writes it.
        """
        now = remount.fixed(self._options)
        for name, wanted in fixed.items():
            if now.get(name) != wanted:
                raise MountError(f"{name}: a remount cannot change it")
        async with self._remounting:
            before = self._filesystem.capacity()
            resize = partial(self._filesystem.resize, size=size, inodes=inodes)
            try:
                await trio.to_thread.run_sync(resize)
            except (ValueError, OverflowError) as reason:
                raise MountError(str(reason)) from None
            except OSError as refusal:
                raise MountError(refusal.strerror or str(refusal)) from None
            self._connection.set_collected(self._collected())
        return {"size": before.blocks * before.block_size, "inodes": before.inodes}

    def _status(self) -> dict[str, Any]:
        return {
            "version": __version__,
            "pid": os.getpid(),
            "cache": str(self._options.cache),
            "channel": self._channel.channel,
            "channel_reason": self._channel.reason,
            "started": self._started,
            "requests": self._requests(),
            "workers": self._connection.statistics(),
            "latencies": self._latencies(),
            "tracers": self._tracers,
            **self._filesystem.status(),
        }

    def _latencies(self) -> dict[str, dict[str, list[int]]]:
        """By kind of request, the histogram of its latencies, as ``mount.latency`` reads it."""
        every = self._connection.latencies()
        return {
            kind: {"nanoseconds": [limit for limit, _ in each], "counts": [count for _, count in each]}
            for kind, each in every.items()
        }

    def _requests(self) -> dict[str, int]:
        """How many requests of each kind have come."""
        total: Counter[str] = Counter()
        for worker in self._connection.statistics():
            total.update(worker["requests"])
        return dict(total)
