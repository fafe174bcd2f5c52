"""What the parts of an operation cost, in nanoseconds.

``nrfs bench calibrate`` measures them on a machine. A simulated thread pays whole operations as one thread alone
measured them, and on top what comes from sharing: lines that other cores hold, and waiting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import Self, final

MEANINGS = {
    "line-take": "a thread changes a line, atomically, that the other has changed and does not want back",
    "line-turn": "two threads add to one number: from a turn of one to a turn of the other",
    "line-burst": "additions in a turn (a number, not a time)",
    "line-pass": "two threads pass a baton once in a cache line: a store there, a load here (only to compare)",
    "message-pass": "two threads pass a baton once by a message of the multikernel",
    "wake": "a thread wakes another, until that runs",
    "atomic": "an exchange of a number that no other thread uses",
    "pause": "one turn of a loop that spins",
    "yield": "a call of the kernel that offers the CPU to others",
    "wake-nobody": "a call of the kernel to wake a thread where none sleeps",
    "wait-refused": "a call of the kernel to sleep that finds no reason to",
    "interruption": "a thread that only works is interrupted: by the kernel, or by a virtual machine's host",
    "interruption-every": "from one such interruption to the next",
    "read": "a read of the map, which is not shared, with the loop that makes it",
    "write": "a write of the map, likewise",
    "read-beside": "a read of the map by each of two threads that share nothing",
    "write-beside": "a write of the map by each of two threads that share nothing",
    "apply": "a replica applies an entry of the log, one of many",
    "nr-1-read": "a read by nr with 1 replica, by one thread",
    "nr-1-write": "a write by nr with 1 replica, by one thread",
    "nr-2-read": "a read by nr with 2 replicas, by one thread",
    "nr-2-write": "a write by nr with 2 replicas, by one thread, without helping the other replica",
    "mutex-read": "a read behind a mutex, by one thread",
    "mutex-write": "a write behind a mutex, by one thread",
    "rwlock-read": "a read behind a readers-writer lock, by one thread",
    "rwlock-write": "a write behind a readers-writer lock, by one thread",
    "sharded-read": "a read of a sharded map, by one thread",
    "sharded-write": "a write of a sharded map, by one thread",
    "multikernel-read": "a read in a multikernel of one core",
    "multikernel-write": "a write in a multikernel of one core",
    "mutex-lock-1": "a mutex is locked and unlocked by one thread (only to compare)",
    "rwlock-lock-1": "a readers-writer lock is locked to write and unlocked by one thread (only to compare)",
    "mutex-lock-2": "a mutex is locked and unlocked by each of two threads that contend (only to compare)",
    "rwlock-lock-2": "a readers-writer lock likewise, to write (only to compare)",
}
"""The names of the costs that ``nrfs bench calibrate`` measures, in its order, and what each is."""


@final
@dataclass(frozen=True)
class Costs:
    """All costs that a simulation uses, in nanoseconds unless it says otherwise."""

    local: float
    """One transfer of a cache line between cores of a node, with the atomic instruction that waits for it."""
    request: float
    """The part of a transfer, 0 to 1, after which the line leaves who holds it."""
    kept: float
    """How long a core keeps a line, on average, that another core of the node already waits for."""
    remote: float
    """One transfer of a cache line between nodes."""
    message: float
    """A message between cores of a node, from the call that sends it until it is received."""
    wake: float
    atomic: float
    """An atomic instruction on a line that the core holds."""
    pause: float
    offer: float
    """A call of the kernel by which a thread offers the CPU to others."""
    call: float
    """A call of the kernel to wake a thread that finds none asleep."""
    refused: float
    """A call of the kernel to sleep that finds no reason to."""
    read: float
    write: float
    apply: float
    """An entry of the log, one of many, on a replica: the write and the way to it."""
    nr_1_read: float
    nr_1_write: float
    nr_2_read: float
    nr_2_write: float
    mutex_read: float
    mutex_write: float
    rwlock_read: float
    rwlock_write: float
    sharded_read: float
    sharded_write: float
    multikernel_read: float
    multikernel_write: float
    beside: float = 1.0
    """How many times longer work takes while other cores work, too, that share nothing with it. A ratio: 1 on cores
    that have nothing in common."""
    poll: float = 1.0
    """To see that one channel of a multikernel is empty: a load and a branch."""
    interruption: float = 0.0
    """How long a core does something else, now and then."""
    interruption_every: float = 1e6
    """From the beginning of one interruption to the next."""
    overlap: float = 4.0
    """How many transfers of lines that are known beforehand are under way at once. A number. Cores have 10 to 24
    buffers for lines; how many of them a loop fills depends on its body."""

    @classmethod
    def measured(cls, medians: Mapping[str, float], remote: float | None = None) -> Self:
        """From the medians of ``nrfs bench calibrate``, by name. Without a cost of remote transfers they are as many
        times dearer than local ones as in :data:`DEFAULT`.

        Raises:
            KeyError: one is missing.

        """
        local = medians["line-take"]
        # A core makes another operation before it loses the line, or not: so the lengths of bursts are geometric.
        burst = max(1.05, medians["line-burst"])
        kept = medians["atomic"] / log(burst / (burst - 1))
        arrival = medians["line-turn"] - medians["atomic"] * (burst - 1)
        beside = (medians["read-beside"] + medians["write-beside"]) / (medians["read"] + medians["write"])
        ways = ("nr-1", "nr-2", "mutex", "rwlock", "sharded", "multikernel")
        wholes = {
            f"{way}-{kind}".replace("-", "_"): medians[f"{way}-{kind}"] for way in ways for kind in ("read", "write")
        }
        return cls(
            local=local,
            request=min(1.0, max(0.0, 1 - arrival / local)),
            kept=kept,
            atomic=medians["atomic"],
            remote=local * DEFAULT.remote / DEFAULT.local if remote is None else remote,
            message=medians["message-pass"],
            wake=medians["wake"],
            pause=medians["pause"],
            offer=medians["yield"],
            call=medians["wake-nobody"],
            refused=medians["wait-refused"],
            interruption=medians["interruption"],
            interruption_every=medians["interruption-every"],
            read=medians["read"],
            write=medians["write"],
            apply=medians["apply"],
            beside=max(1.0, beside),
            **wholes,
        )


DEFAULT = Costs(
    local=50,
    request=0.6,
    kept=5,
    remote=130,
    message=150,
    wake=5000,
    atomic=3,
    pause=43,
    offer=400,
    call=100,
    refused=150,
    read=40,
    write=44,
    apply=60,
    nr_1_read=44,
    nr_1_write=78,
    nr_2_read=45,
    nr_2_write=154,
    mutex_read=46,
    mutex_write=54,
    rwlock_read=47,
    rwlock_write=53,
    sharded_read=49,
    sharded_write=52,
    multikernel_read=49,
    multikernel_write=60,
)
"""A server with two or more sockets. docs/simulation.md names the source of each."""
