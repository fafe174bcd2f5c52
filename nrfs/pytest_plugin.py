"""A plugin of pytest: real, small, fast file systems for tests of any project.

``nrfs_mount`` is a test's own mount, ``nrfs_mount_factory`` makes mounts that last until the session's end. Both skip
where nothing can be mounted, with the reason. It is loaded at every start of pytest, and so imports little.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_PREFIX = "nrfs-mount-"
_SMALL = {"size": "64M", "nodes": 1}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "nrfs_mount(size='64M', nodes=1, ...): the mount is made with these options of 'nrfs mount'"
    )


@pytest.fixture
def nrfs_mount(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A new file system, mounted for this test: 64M, unless ``@pytest.mark.nrfs_mount(size="1M", inodes=10)`` says so.

    It is unmounted after the test, however that ends. Skips the test, with the reason, where mounting is impossible.
    """
    marker = request.node.get_closest_marker("nrfs_mount")
    with mounted(**(marker.kwargs if marker else {})) as path:
        yield path


@pytest.fixture(scope="session")
def nrfs_mount_factory() -> Iterator[Callable[..., Path]]:
    """Makes mounts that last until the session's end: ``nrfs_mount_factory(size="1M")`` is the path of one."""
    with contextlib.ExitStack() as mounts:
        yield lambda **options: mounts.enter_context(mounted(**options))


@contextlib.contextmanager
def mounted(**options: object) -> Iterator[Path]:
    """A mount for as long as the context lasts, for fixtures of other scopes.

    Args:
        options: of ``nrfs mount``: ``allow_other=True`` is ``--allow-other``, ``o="ro"`` is ``-o ro``.

    Raises:
        pytest.skip.Exception: nothing can be mounted here (``nrfs doctor`` tells more).
        OSError: what else is wrong, such as an option.

    """
    _take_away_what_killed_sessions_left()
    path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    try:
        done = _nrfs("mount", path, *_words({**_SMALL, **options}))
        if done.returncode != 0:
            if done.returncode == 1 and not _can_mount():
                pytest.skip(done.stderr.strip())
            raise OSError(done.stderr.strip())
        yield path
    finally:
        _take_away(path)


def _words(options: dict[str, object]) -> Iterator[str]:
    for name, value in options.items():
        word = f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"
        if value is True:
            yield word
        elif value is not None and value is not False:
            yield from (word, str(value))


def _nrfs(command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    # -P: what the tested project calls ``mount`` is not imported for ours.
    words = [sys.executable, "-P", "-m", "nrfs.cli", command, *map(str, arguments)]
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


@functools.cache
def _can_mount() -> bool:
    return _nrfs("doctor").returncode == 0


def _take_away(path: Path) -> None:
    """Unmounts, also what is in use, and removes the directory."""
    if _is_mounted(path) and _nrfs("umount", path).returncode != 0:
        _nrfs("umount", "--lazy", path)
    if not _is_mounted(path):
        shutil.rmtree(path, ignore_errors=True)


def _is_mounted(path: Path) -> bool:
    try:
        return path.stat().st_dev != path.parent.stat().st_dev
    except FileNotFoundError:
        return False
    except OSError:  # The daemon of the mount is dead.
        return True


def _take_away_what_killed_sessions_left() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        process = path.name.removeprefix(_PREFIX).partition("-")[0]
        if process.isdigit() and not Path("/proc", process).exists() and _is_mounted(path):
            _take_away(path)
