"""The exceptions with which a command ends when it cannot do its work."""

from __future__ import annotations


class MountError(Exception):
    """One line for the person who gave the command; the command's exit status is 1."""

    status = 1


class UsageError(MountError):
    """The command itself was wrong; its exit status is 2."""

    status = 2
