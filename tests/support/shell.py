"""Runs a shell script in a directory, in an environment in which it behaves the same on every machine."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

_PREAMBLE = r"""
# A small tree of everything that a file system can hold, the same wherever it is made.
sample() {
    mkdir -p "$1/directory/below/deep" "$1/empty" "$1/with space"
    printf 'one\ntwo\nthree\n' >"$1/text"
    : >"$1/nothing"
    head -c 10000 /dev/zero | tr '\0' 'x' >"$1/directory/large"
    printf 'a\0b\377' >"$1/directory/binary"
    echo below >"$1/directory/below/file"
    echo odd >"$1/with space/new
line"
    printf 'echo ran\n' >"$1/script"
    ln "$1/text" "$1/directory/hardlink"
    ln -s ../text "$1/directory/symlink"
    ln -s nowhere "$1/dangling"
    ln -s directory "$1/linked directory"
    mkfifo "$1/fifo"
    truncate -s 1M "$1/sparse"
    chmod 755 "$1/script"
    chmod 4711 "$1/nothing"
    chmod 2775 "$1/directory"
    chmod 1777 "$1/empty"
    chmod 600 "$1/directory/binary"
    chown 1000:2000 "$1/directory/large"
    setfattr -n user.colour -v blue "$1/text"
    find "$1" -depth -exec touch -h -d '2001-02-03 04:05:06.789 UTC' {} +
}
"""


@dataclass(frozen=True)
class Ran:
    """The result of a script."""

    status: int
    output: str
    errors: str


def run(script: str, directory: Path) -> Ran:
    """Runs ``script`` by ``sh -eu`` in ``directory``, with the function ``sample`` defined.

    In its output the path of the directory is replaced by ``@``.
    """
    top = os.fsencode(directory)
    environment = {
        "PATH": os.environ["PATH"],
        "LC_ALL": "C",
        "TZ": "UTC",
        "HOME": "/nonexistent",
        "TOP": os.fsdecode(top),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_AUTHOR_NAME": "Author",
        "GIT_AUTHOR_EMAIL": "author@example.org",
        "GIT_AUTHOR_DATE": "2001-02-03T04:05:06Z",
        "GIT_COMMITTER_NAME": "Committer",
        "GIT_COMMITTER_EMAIL": "committer@example.org",
        "GIT_COMMITTER_DATE": "2001-02-03T04:05:06Z",
    }
    # The script is an argument, so that standard input is free; it is empty.
    done = subprocess.run(
        ["/bin/sh", "-euc", _PREAMBLE + script, "sh"],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=120,
    )
    output, errors = (
        stream.replace(top, b"@").decode(errors="backslashreplace") for stream in (done.stdout, done.stderr)
    )
    return Ran(done.returncode, output, errors)
