"""The entries, and the record of which of them a database must hold.

A value is a stretch of one pool of random bytes; where it begins follows from the key and from the
generation of the write (every fill and every overwrite is a new generation). So the right value of
every key is known without a second copy of the data, building one copies nothing, and comparing one is
a single ``memcmp``. The value of another key, of an earlier generation, or one torn between two, does
not compare equal. (Values of a few bytes repeat in the pool, and are told apart less surely.)

Half of every 100 bytes of the pool repeats the other half, db_bench's default, so that compression,
when asked for, has something to find.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

POSITIONS = 1 << 20
"""Where a value can begin in the pool. A power of two, so that a mask keeps positions inside."""
MASK = POSITIONS - 1
KEY_STRIDE = 0x9E3779B1
"""Odd, so that neighbouring keys lie far apart and no two of POSITIONS keys share a position."""
GENERATION_STRIDE = 0x85EBCA6B
"""Odd too, so that no two of POSITIONS generations of a key share one."""
ABSENT = -1

KEY_BYTES = 16


@final
class Entries:
    """The keys of a range and the values they can take. Immutable, and shared by all databases of a run."""

    def __init__(self, num: int, value_size: int) -> None:
        self.num = num
        self.value_size = value_size
        self.keys = [b"%016d" % number for number in range(num)]
        """The key of each number, 16 digits, as db_bench writes it."""
        random = np.random.default_rng(301)
        halves = random.integers(0, 256, (-(-(POSITIONS + value_size) // 100), 50), dtype=np.uint8)
        self.pool = np.concatenate([halves, halves], axis=1).tobytes()
        self.view = memoryview(self.pool)

    def shift(self, generation: int) -> int:
        """The value of key number k in a generation begins at ``(k * KEY_STRIDE + shift) & MASK``."""
        return (generation * GENERATION_STRIDE) & MASK


@final
class Contents:
    """What one database must hold: of each key, where in the pool its value begins, or that it is absent.

    Changed only between measurements, by the thread that runs them; read by all threads during one.
    """

    def __init__(self, entries: Entries) -> None:
        self._entries = entries
        self._begins = np.full(entries.num, ABSENT, dtype=np.int64)
        self._generation = 0
        self.expected: list[int] = self._begins.tolist()
        """The position of each key number's value, or ABSENT. A list: the loops read it key by key."""

    def next_generation(self) -> int:
        """A generation that no write has used yet."""
        self._generation += 1
        return self._generation

    def written(self, numbers: Sequence[int], generation: int) -> None:
        """Notes that these keys now hold their values of the generation."""
        keys = np.asarray(numbers, dtype=np.int64)
        self._begins[keys] = (keys * KEY_STRIDE + self._entries.shift(generation)) & MASK
        self.expected = self._begins.tolist()

    def deleted(self, numbers: Sequence[int]) -> None:
        self._begins[np.asarray(numbers, dtype=np.int64)] = ABSENT
        self.expected = self._begins.tolist()

    def present(self) -> list[int]:
        """The numbers of all keys that exist, ascending."""
        numbers: list[int] = np.flatnonzero(self._begins != ABSENT).tolist()
        return numbers

    def at_or_after(self) -> list[int]:
        """For each number, the next one at or after it whose key exists, or ABSENT."""
        present = np.flatnonzero(self._begins != ABSENT)
        places = np.searchsorted(present, np.arange(self._entries.num))
        following: list[int] = np.append(present, ABSENT)[places].tolist()
        return following
