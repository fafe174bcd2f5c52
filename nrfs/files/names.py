"""The part of a path that is only about names: what :class:`pathlib.PurePosixPath` knows, which does it."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Self

from nrfs._core import Filesystem


@functools.total_ordering
class PurePath:
    """A path in a file system, that knows nothing of what is there. See :class:`nrfs.Path`.

    It is no :class:`os.PathLike`: ``open`` and ``os`` would look on the machine's own file systems.
    """

    __slots__ = ("_filesystem", "_pure")

    def __init__(self, filesystem: Filesystem, *segments: str | os.PathLike[str] | Self) -> None:
        """A path of ``segments``, which are joined as by :class:`pathlib.PurePosixPath`.

        Args:
            filesystem: where it is.
            segments: if there is none, or if they are relative, they begin at the root.

        """
        self._filesystem = filesystem
        self._pure = PurePosixPath(*map(_plain, segments))

    @property
    def filesystem(self) -> Filesystem:
        """Where it is."""
        return self._filesystem

    def with_segments(self, *segments: str | os.PathLike[str] | Self) -> Self:
        """Another path in the same file system."""
        return type(self)(self._filesystem, *segments)

    def __str__(self) -> str:
        return str(self._pure)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __bytes__(self) -> bytes:
        return bytes(self._pure)

    def __hash__(self) -> int:
        return hash((id(self._filesystem), self._pure))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PurePath):
            return NotImplemented
        return self._filesystem is other._filesystem and self._pure == other._pure

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, PurePath) or self._filesystem is not other._filesystem:
            return NotImplemented
        return self._pure < other._pure

    def __truediv__(self, segment: str | os.PathLike[str] | Self) -> Self:
        try:
            return self.joinpath(segment)
        except TypeError:
            return NotImplemented

    def __rtruediv__(self, segment: str | os.PathLike[str]) -> Self:
        try:
            return self.with_segments(segment, self)
        except TypeError:
            return NotImplemented

    def joinpath(self, *segments: str | os.PathLike[str] | Self) -> Self:
        return self.with_segments(self, *segments)

    @property
    def parts(self) -> tuple[str, ...]:
        return self._pure.parts

    @property
    def anchor(self) -> str:
        return self._pure.anchor

    @property
    def root(self) -> str:
        return self._pure.root

    @property
    def drive(self) -> str:
        return self._pure.drive

    @property
    def name(self) -> str:
        return self._pure.name

    @property
    def stem(self) -> str:
        return self._pure.stem

    @property
    def suffix(self) -> str:
        return self._pure.suffix

    @property
    def suffixes(self) -> list[str]:
        return self._pure.suffixes

    @property
    def parent(self) -> Self:
        return self.with_segments(self._pure.parent)

    @property
    def parents(self) -> Sequence[Self]:
        return tuple(map(self.with_segments, self._pure.parents))

    def with_name(self, name: str) -> Self:
        return self.with_segments(self._pure.with_name(name))

    def with_stem(self, stem: str) -> Self:
        return self.with_segments(self._pure.with_stem(stem))

    def with_suffix(self, suffix: str) -> Self:
        return self.with_segments(self._pure.with_suffix(suffix))

    def is_absolute(self) -> bool:
        return self._pure.is_absolute()

    def absolute(self) -> Self:
        return self.with_segments("/", self)

    def relative_to(self, *other: str | os.PathLike[str] | Self) -> Self:
        return self.with_segments(self._pure.relative_to(PurePosixPath(*map(_plain, other))))

    def is_relative_to(self, *other: str | os.PathLike[str] | Self) -> bool:
        return self._pure.is_relative_to(PurePosixPath(*map(_plain, other)))

    def match(self, pattern: str) -> bool:
        return self._pure.match(pattern)

    def as_posix(self) -> str:
        return self._pure.as_posix()


def _plain(segment: str | os.PathLike[str] | PurePath) -> str | os.PathLike[str]:
    return segment._pure if isinstance(segment, PurePath) else segment
