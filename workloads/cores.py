"""Gets the cores of a run from :class:`nrfs.Scheduler`, and pins threads to them.

A run gets as many cores as it has threads, if there are enough. They are near to each other, so that the figures do
not mix near and far memory. Each thread may run on all cores of the run: Python's threads hold the interpreter's lock
in turn, and a thread is slower if it may not run where the lock was released. If the kernel takes a CPU offline
during the run, the scheduler takes it from the run, and the threads move to the cores that are left.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self, final

import nrfs

_ONLINE = Path("/sys/devices/system/cpu/online")


@final
class Cores:
    """As many cores as there are threads, or all that this process may use.

    Each thread calls :meth:`join` for itself. The thread that waits for them calls :meth:`follow` now and then.
    """

    def __init__(self, threads: int, scheduler: nrfs.Scheduler | None = None) -> None:
        self._scheduler = nrfs.Scheduler() if scheduler is None else scheduler
        self._known = {core.core for core in self._scheduler.cores()}
        self._process = self._scheduler.create()
        self._threads: set[int] = set()
        """The kernel's numbers of the threads that have joined."""
        self._lock = threading.Lock()
        self.held: list[int] = []
        """The CPUs of the run, in the order in which they were given."""
        self._scheduler.request(self._process, min(threads, len(self._known)))
        self._hear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scheduler.exit(self._process)

    def join(self) -> None:
        """Pins the calling thread to the cores of the run."""
        with self._lock:
            self._threads.add(threading.get_native_id())
            self._pin()

    def leave(self) -> None:
        """To be called by a thread before it ends: it is not pinned any more."""
        with self._lock:
            self._threads.discard(threading.get_native_id())

    def follow(self) -> None:
        """Tells the scheduler which CPUs the kernel has taken offline or brought back, and moves the threads."""
        online = _parse(_ONLINE.read_text()) if _ONLINE.exists() else self._known
        for core in self._scheduler.cores():
            if core.online and core.core not in online:
                self._scheduler.offline(core.core)
            elif not core.online and core.core in online:
                self._scheduler.online(core.core)
        with self._lock:
            if self._hear():
                self._pin()

    def _hear(self) -> bool:
        """Takes the upcalls; returns whether there were any."""
        upcalls = self._scheduler.upcalls(self._process)
        for upcall in upcalls:
            if upcall.given:
                self.held.append(upcall.core)
            else:
                self.held.remove(upcall.core)
        return bool(upcalls)

    def _pin(self) -> None:
        for thread in self._threads:
            # A CPU may go, or the thread end, at any moment; the next look finds out.
            try:
                os.sched_setaffinity(thread, self.held or self._known)
            except OSError:
                continue


def _parse(listed: str) -> set[int]:
    """Reads the kernel's list format: ``0-3,8``."""
    ranges = [part.partition("-") for part in listed.strip().split(",") if part]
    return {number for first, _, last in ranges for number in range(int(first), int(last or first) + 1)}
