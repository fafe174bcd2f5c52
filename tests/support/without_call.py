"""Runs a command for which one system call always fails: ``without_call.py NUMBER ERRNO COMMAND ...``.

The filter is a classic BPF program of seccomp(2), which compares the number of each system call.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

IO_URING_SETUP, IO_URING_ENTER = 425, 426
"""The same on all architectures."""

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_SECCOMP_MODE_FILTER = 2
_LOAD_NUMBER, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000


def without_call(number: int, error: int) -> tuple[str, ...]:
    """The beginning of a command line; the command to run follows it."""
    return sys.executable, __file__, str(number), str(error)


def main() -> None:
    number, error, *command = sys.argv[1:]
    steps = [
        (_LOAD_NUMBER, 0, 0, 0),
        (_JUMP_IF_EQUAL, 0, 1, int(number)),
        (_RETURN, 0, 0, _REFUSE | int(error)),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("H6xP", len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    for option, *arguments in ((_PR_SET_NO_NEW_PRIVS, 1), (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program)):
        if libc.prctl(option, *arguments, *[0] * (4 - len(arguments))) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
