"""``nrfs.Path`` does what :class:`pathlib.Path` does: the same programs run on both, and say the same.

``NRFS_TEST_EXAMPLES`` sets how many programs are generated.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from unittest.mock import ANY

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.generating import generated

import nrfs

DEPTH = 8
"""How deep programs begin, so that their ``..`` lead nowhere else."""

Either = Path | nrfs.Path
Act = Callable[[Any], object]
"""What a step of a program does, given the directory that it begins in."""


# -- programs ---------------------------------------------------------------------------------------------------------


class Step:
    """A step with the text of a program that does it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.act: Act = eval(f"lambda base: {text}", {"use": use, "io": io, "os": os})

    def __repr__(self) -> str:
        return self.text


def use(file: Any, actions: list[tuple[str, tuple[object, ...]]]) -> object:  # noqa: ANN401
    """Does things with an open file; says what each returned, or why it did not."""
    said: list[object] = []
    with file:
        for name, arguments in actions:
            try:
                said.append(getattr(file, name)(*arguments))
            except (OSError, ValueError, TypeError) as error:
                said.append(type(error))
    # Some releases of Python take "w+" for "r+" once the file is empty.
    return said, isinstance(file, io.RawIOBase) or type(file), file.mode.replace("wb+", "rb+"), file.closed


names = st.sampled_from(["a", "b", "c", "dir", "dir/a", "dir/b", "dir/sub", "dir/sub/c", "a/..", "dir/..", "a/../b"])
paths = st.one_of(names, st.sampled_from([".", "a/b", "link", "link/a", "link/link"]))
places = paths.map(lambda path: f"(base / {path!r})")
targets = st.sampled_from(["'a'", "'b'", "'dir'", "'dir/a'", "'../a'", "'..'", "'.'", "'link'", "'a/'", "base / 'dir'"])
flags = st.sampled_from([True, False])
modes = st.sampled_from([0o755, 0o700, 0o1777, 0o2755, 0o4755, 0o777])
open_modes = st.sampled_from(
    ["r", "rb", "r+", "r+b", "w", "wb", "w+b", "a", "ab", "a+", "a+b", "x", "xb", "x+", "rw", "q", "rbt", "", "b", "rr"]
)
patterns = st.sampled_from(
    ["*", "a", "dir/*", "*/*", "**/*", "**", "**/a", "d*", "[ab]", "?", "dir/**", "*/", "**/sub/*", "*/../a", "A", ".*"]
)
file_actions = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.tuples(st.integers(-1, 9))),
        st.tuples(st.just("write"), st.tuples(st.sampled_from(["text\n", "e\u00e9", b"bytes\n", b"", b"x" * 9000]))),
        st.tuples(st.just("seek"), st.tuples(st.sampled_from([0, 3, 7, 20, -1]), st.sampled_from([0, 1, 2]))),
        st.tuples(st.just("truncate"), st.sampled_from([(), (2,), (11,), (-1,)])),
        st.tuples(st.sampled_from(["tell", "readline", "flush", "readlines", "readable", "writable"]), st.just(())),
    ),
    max_size=6,
)


def steps() -> st.SearchStrategy[Step]:
    """Every operation of a path, about as often as it matters."""

    def step(form: str, *values: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
        return st.tuples(*values).map(lambda given: Step(form.format(*given)))

    quoted = patterns.map(repr)
    return st.one_of(
        step("{}.mkdir({}, {}, {})", places, modes, flags, flags),
        step("{}.mkdir(parents=True, exist_ok=True)", places),
        step("{}.touch(exist_ok={})", places, flags),
        step("{}.write_text('text {}')", places, st.integers(0, 9)),
        step("{}.write_bytes(b'bytes')", places),
        step("{}.symlink_to({})", places, targets),
        step("(base / 'link').symlink_to({})", targets),
        step("{}.hardlink_to({})", places, places),
        step("{}.rename({})", places, places),
        step("{}.replace({})", places, places),
        step("{}.unlink(missing_ok={})", places, flags),
        step("{}.rmdir()", places),
        step("{}.chmod({})", places, modes),
        step("use({}.open({!r}), {!r})", places, open_modes, file_actions),
        step("use({}.open({!r}, {}), {!r})", places, open_modes, st.sampled_from([0, 1, 16]), file_actions),
        step("{}.read_text()", places),
        step("{}.read_bytes()", places),
        step("{}.readlink()", places),
        step("{}.resolve(strict={})", places, flags),
        step("{}.samefile({})", places, places),
        step("sorted({}.iterdir())", places),
        step("sorted((base / {!r}).glob({}))", names, quoted),
        step("sorted((base / {!r}).rglob({}))", names, quoted),
        step("{}.lstat()", places),
        step("{}.owner()", places),
    )


def said(value: object) -> object:
    """A value without its type, numbers of inodes, sizes of directories, and times."""
    if isinstance(value, Path | nrfs.Path):
        return str(value)
    if isinstance(value, os.stat_result):
        return value.st_mode, value.st_nlink, value.st_uid, value.st_gid, stat.S_ISDIR(value.st_mode) or value.st_size
    if isinstance(value, list):
        return [said(part) for part in value]
    return value


def outcome(step: Step, base: Either) -> object:
    """What a step says, or with which error it fails, of which paths."""
    try:
        return said(step.act(base))
    except OSError as error:
        # pathlib's names what is missing on the way; ours the path itself, as all other methods do.
        about = ".resolve(" in step.text or (str(error.filename), str(error.filename2))
        return type(error), errno.errorcode[error.errno or 0], about
    except (ValueError, NotImplementedError) as error:
        return type(error)
    except RuntimeError:
        return ANY  # Before Python 3.13, a loop of symlinks is this error; since then, OSError if ``strict``.


def tree(base: Either) -> object:
    """All that is there. Recursion of its own: what is tested shall not look at itself."""
    found: dict[str, object] = {}
    left = [base] if base.is_dir() else []
    while left:
        directory = left.pop()
        for path in directory.iterdir():
            status = path.lstat()
            content: object = None
            if stat.S_ISDIR(status.st_mode):
                left.append(path)
            elif stat.S_ISREG(status.st_mode):
                content = path.read_bytes()
            else:
                content = str(path.readlink())
            looks = [path.exists(), path.is_dir(), path.is_file(), path.is_symlink(), path.is_fifo(), path.is_socket()]
            found[str(path)] = said(status), content, looks
    return found


@pytest.fixture(scope="module")
def reference() -> Iterator[Path]:
    """Where the real paths are: tmpfs."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.mark.filterwarnings("ignore:line buffering")
@generated()
@given(program=st.lists(steps(), min_size=1, max_size=25))
@example(
    program=[
        Step("(base / 'dir/sub').mkdir(parents=True)"),
        Step("(base / 'dir/sub/c').write_text('c')"),
        Step("(base / 'link').symlink_to('dir')"),
        Step("sorted((base).rglob('*'))"),
        Step("sorted((base).glob('**'))"),
        Step("sorted((base).glob('link/*'))"),
        Step("use((base / 'dir/sub/c').open('r+'), [('read', (1,)), ('write', ('d',)), ('seek', (0,)), ('read', ())])"),
        Step("(base / 'link/sub').rename(base / 'sub')"),
    ]
)
def test_a_path_does_what_pathlib_does(reference: Path, program: list[Step]) -> None:
    with tempfile.TemporaryDirectory(dir=reference) as name:
        theirs = Path(name, *["p"] * DEPTH)
        ours = nrfs.Path(nrfs.Filesystem(nodes=1, size="16M"), theirs)
        ours.mkdir(parents=True)
        theirs.mkdir(parents=True)
        for step in program:
            assert outcome(step, ours) == outcome(step, theirs), step
            assert tree(ours) == tree(theirs), step


LEXICAL = [
    "p.parts, p.name, p.stem, p.suffix, p.suffixes, p.root, p.drive, p.anchor, str(p), bytes(p), p.as_posix()",
    "p.parent, list(p.parents), p / 'x', p / '/x', p / 'x' / 'y', 'x' / p, p.joinpath('x', 'y'), p.joinpath()",
    "p.with_name('n')",
    "p.with_stem('s')",
    "p.with_suffix('.s')",
    "p.with_suffix('s')",
    "p.is_absolute(), p.match('*.gz'), p.match('b/*'), p.is_relative_to('/a'), p.relative_to('/a')",
    "p.relative_to(p.parent), p == p.parent, p < p / 'x', p >= p / 'x', sorted([p / 'b', p / 'a']), len({p, p / '.'})",
    "p / 3",
    "3 / p",
]


@pytest.mark.parametrize("text", ["/a/b.tar.gz", "/", "a/b", "", ".", "/a/../b", "//x/y", "a//b/", "/a/.hidden", ".."])
@pytest.mark.parametrize("form", LEXICAL)
def test_what_is_only_about_names_is_as_of_a_pure_path(text: str, form: str) -> None:
    def value(path: object) -> object:
        try:
            return [str(part) if isinstance(part, nrfs.Path) else plain(part) for part in [eval(form, {"p": path})]]
        except (ValueError, TypeError) as error:
            return type(error)

    def plain(part: object) -> object:
        if isinstance(part, tuple | list):
            return [plain(each) for each in part]
        return str(part) if isinstance(part, nrfs.Path | PurePosixPath) else part

    assert value(nrfs.Path(nrfs.Filesystem(nodes=1, size="16M"), text)) == value(PurePosixPath(text))


# -- what programs do not show ----------------------------------------------------------------------------------------


@pytest.fixture
def root() -> nrfs.Path:
    return nrfs.Path(nrfs.Filesystem(nodes=2, size="16M"))


@pytest.mark.parametrize("kind", [Path, nrfs.Path])
def test_the_umask_is_the_processs(kind: type, root: nrfs.Path, tmp_path: Path) -> None:
    base = root if kind is nrfs.Path else tmp_path
    for mask in (0o022, 0o027, 0o077, 0):
        before = os.umask(mask)
        try:
            base.joinpath(f"{mask}").mkdir()
            base.joinpath(f"{mask}/touched").touch(0o664)
            base.joinpath(f"{mask}/written").write_text("text")
        finally:
            os.umask(before)
        modes = [stat.S_IMODE(base.joinpath(f"{mask}{name}").stat().st_mode) for name in ("", "/touched", "/written")]
        assert modes == [0o777 & ~mask, 0o664 & ~mask, 0o666 & ~mask]


def test_times_are_those_of_the_changes(root: nrfs.Path) -> None:
    path = root / "file"

    def changed(act: Callable[[], object]) -> set[str]:
        """Which times have become later, each by an act of its own tick of the clock."""
        before = path.stat()
        time.sleep(0.02)
        act()
        now = path.stat()
        assert now.st_mtime == pytest.approx(now.st_mtime_ns / 1e9)
        names = ("atime", "mtime", "ctime")
        return {name for name in names if getattr(now, f"st_{name}_ns") > getattr(before, f"st_{name}_ns")}

    path.touch()
    status = path.stat()
    assert status.st_atime_ns == status.st_mtime_ns == status.st_ctime_ns == path.attributes().btime_ns
    assert changed(lambda: path.write_text("text")) == {"mtime", "ctime"}
    assert changed(path.read_text) == set()
    assert changed(lambda: path.chmod(0o600)) == {"ctime"}
    assert changed(path.touch) == {"atime", "mtime", "ctime"}
    assert changed(lambda: path.open("w").close()) == {"mtime", "ctime"}
    assert changed(lambda: (root / "link").hardlink_to(path)) == {"ctime"}


def test_an_unlinked_file_can_be_used_until_it_is_closed(root: nrfs.Path) -> None:
    free = root.filesystem.capacity()
    path = root / "file"
    with path.open("w+b") as file:
        file.write(b"text")
        path.unlink()
        assert not path.exists()
        path.write_text("another")
        file.seek(0)
        assert file.read() == b"text"
    path.unlink()
    assert root.filesystem.capacity().inodes_free == free.inodes_free
    assert root.filesystem.capacity().blocks_free == free.blocks_free


def test_a_full_file_system_says_so_and_keeps_what_fitted() -> None:
    root = nrfs.Path(nrfs.Filesystem(nodes=1, size=4 * 4096, inodes=3))
    with pytest.raises(OSError, match="No space left") as caught:
        (root / "file").write_bytes(bytes(5 * 4096))
    assert caught.value.errno == errno.ENOSPC
    assert (root / "file").stat().st_size == 4 * 4096
    (root / "other").touch()
    with pytest.raises(OSError, match="No space left on device: '/third'"):
        (root / "/third").touch()


def test_what_two_threads_append_is_all_there(root: nrfs.Path) -> None:
    path = root / "log"

    def append(letter: bytes) -> None:
        with path.open("ab", buffering=0) as file:
            for _ in range(500):
                file.write(letter * 7)

    threads = [threading.Thread(target=append, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = path.read_bytes()
    assert Counter(written[at : at + 7] for at in range(0, len(written), 7)) == dict.fromkeys(
        (b"a" * 7, b"b" * 7, b"c" * 7), 500
    )


def test_one_of_two_threads_makes_a_file_exclusively(root: nrfs.Path) -> None:
    made: list[int] = []

    def make(number: int) -> None:
        for name in range(200):
            with contextlib.suppress(FileExistsError), (root / f"{name}").open("x"):
                made.append(name)
            (root / f"shared-{name}").open("a").close()

    threads = [threading.Thread(target=make, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == list(range(200))


def test_a_file_that_is_unlinked_meanwhile_is_made_anew(root: nrfs.Path) -> None:
    path = root / "file"
    is_over = False

    def unlink() -> None:
        while not is_over:
            path.unlink(missing_ok=True)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=unlink)
    thread.start()
    try:
        for _ in range(2000):
            path.open("ab", buffering=0).close()
            path.touch()
    finally:
        is_over = True
        thread.join()
        sys.setswitchinterval(interval)


def test_nothing_is_a_link_between_two_file_systems(root: nrfs.Path) -> None:
    other = nrfs.Path(nrfs.Filesystem(nodes=1, size="16M"), "file")
    (root / "file").touch()
    for act in ((root / "file").rename, (root / "file").replace, (root / "new").hardlink_to):
        with pytest.raises(OSError, match="cross-device") as caught:
            act(other)
        assert caught.value.errno == errno.EXDEV
    other.touch()
    assert not other.samefile(root / "file")
    assert other != root / "file"
    with pytest.raises(TypeError):
        sorted([other, root])


def test_it_is_not_taken_for_a_path_of_the_machine(root: nrfs.Path) -> None:
    with pytest.raises(TypeError):
        open(root / "file")  # type: ignore[call-overload]  # noqa: PTH123, SIM115
    with pytest.raises(TypeError):
        os.stat(root)  # type: ignore[arg-type]  # noqa: PTH116


def test_names_that_cannot_be_are_refused(root: nrfs.Path) -> None:
    with pytest.raises(OSError, match="too long") as caught:
        (root / ("x" * 256)).touch()
    assert caught.value.errno == errno.ENAMETOOLONG
    with pytest.raises(ValueError, match="null"):
        (root / "a\0b").touch()
    assert not (root / "a\0b").exists()
    for act in (root.rmdir, root.unlink, root.mkdir, lambda: root.rename("x"), lambda: root.symlink_to("x")):
        with pytest.raises(OSError, match=re.escape("'.'")):
            act()
    undecodable = root / os.fsdecode(b"\xff")
    undecodable.touch()
    assert list(root.iterdir()) == [undecodable]


def test_what_is_no_regular_file_is_not_opened(root: nrfs.Path) -> None:
    root.filesystem.mknod(nrfs.ROOT, b"fifo", stat.S_IFIFO | 0o600)
    assert (root / "fifo").is_fifo()
    with pytest.raises(OSError, match="No such device or address"):
        (root / "fifo").open()
    with pytest.raises(IsADirectoryError):
        root.open()


def test_trees_deeper_than_the_stack_are_walked_and_matched(root: nrfs.Path) -> None:
    limit, depth = sys.getrecursionlimit(), 400
    path = root
    for _ in range(depth):
        path /= "d"
        path.mkdir()
    (path / "file").touch()
    sys.setrecursionlimit(depth)
    try:
        assert len(list(root.walk())) == len(list(root.walk(top_down=False))) == depth + 1
        assert list(root.rglob("file")) == [path / "file"]
    finally:
        sys.setrecursionlimit(limit)


def test_a_walk_leaves_out_what_its_user_takes_away(root: nrfs.Path) -> None:
    for name in ("kept", "dropped"):
        (root / name / "below").mkdir(parents=True)
    (root / "link").symlink_to("kept")
    seen = []
    for path, directories, others in root.walk():
        seen.append((str(path), sorted(directories), others))
        if "dropped" in directories:
            directories.remove("dropped")
    assert seen == [(".", ["dropped", "kept"], ["link"]), ("kept", ["below"], []), ("kept/below", [], [])]
    assert ("link", ["below"], []) in [(str(path), *names) for path, *names in root.walk(follow_symlinks=True)]
    errors: list[OSError] = []
    assert list((root / "none").walk(on_error=errors.append)) == []
    assert isinstance(errors[0], FileNotFoundError)


def test_text_has_the_encoding_and_the_ends_of_lines_that_are_asked_for(root: nrfs.Path) -> None:
    path = root / "file"
    path.write_text("\u00e4\n", encoding="latin-1", newline="\r\n")
    assert path.read_bytes() == b"\xe4\r\n"
    assert path.read_text(encoding="latin-1") == "\u00e4\n"
    with pytest.raises(UnicodeDecodeError):
        path.read_text(encoding="utf-8")
    with path.open("r", encoding="latin-1", newline="") as file:
        assert file.read() == "\u00e4\r\n"
    with path.open("w", buffering=1) as file:
        file.write("line\n")
        assert path.read_bytes() == b"line\n"


def test_holes_are_found(root: nrfs.Path) -> None:
    with (root / "file").open("wb", buffering=0) as file:
        file.seek(1 << 20)
        file.write(b"end")
        assert file.seek(0, os.SEEK_DATA) == 1 << 20
        assert file.seek(0, os.SEEK_HOLE) == 0


def test_in_a_forked_process_everything_says_so_and_nothing_hangs() -> None:
    program = """
import os, signal, threading, nrfs
from nrfs.files import opened
path = nrfs.Path(nrfs.Filesystem(nodes=1, size="16M"), "file")
file = path.open("ab", buffering=0)
with opened._appending:  # As if another thread appended.
    if os.fork() == 0:
        signal.alarm(20)
        for act in (lambda: file.write(b"x"), path.stat, path.touch, path.read_bytes, file.close):
            try:
                act()
            except RuntimeError as error:
                print("forked" in str(error), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n" * 5, "")


def test_who_does_not_use_it_does_not_import_it() -> None:
    program = """
import sys
before = set(sys.modules)
import nrfs
print(sorted(set(sys.modules) - before))
nrfs.Path
assert "nrfs.files.path" in sys.modules and not {"fsspec", "numpy", "dataclasses", "mount"} & set(sys.modules)
assert not hasattr(nrfs, "Paht")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("['nrfs', 'nrfs._core']\n", "")
