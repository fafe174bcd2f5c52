"""fsspec's interface: the suite that fsspec has for implementations, pandas, transactions, event loops."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Callable
from pathlib import Path

import fsspec
import pandas
import pytest
import trio
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from fsspec.tests import abstract

import nrfs
from nrfs.files.spec import FilesystemSpec, shared


@pytest.fixture
def filesystem() -> nrfs.Filesystem:
    return nrfs.Filesystem(nodes=2, size="64M")


@pytest.fixture
def spec(filesystem: nrfs.Filesystem) -> FilesystemSpec:
    return FilesystemSpec(filesystem)


# -- fsspec's own suite -----------------------------------------------------------------------------------------------


class OfNrfs(abstract.AbstractFixtures):  # type: ignore[misc]  # fsspec has no type hints.
    """What its tests want to know."""

    @pytest.fixture
    def fs(self, filesystem: nrfs.Filesystem) -> FilesystemSpec:
        return FilesystemSpec(filesystem, auto_mkdir=True)

    @pytest.fixture
    def fs_path(self) -> str:
        return "/suite"


class TestCopy(OfNrfs, abstract.AbstractCopyTests):  # type: ignore[misc]
    """Within the file system."""


class TestGet(OfNrfs, abstract.AbstractGetTests):  # type: ignore[misc]
    """From it to the machine."""


class TestPut(OfNrfs, abstract.AbstractPutTests):  # type: ignore[misc]
    """From the machine to it."""


class TestPipe(OfNrfs, abstract.AbstractPipeTests):  # type: ignore[misc]
    """Bytes."""


class TestOpen(OfNrfs, abstract.AbstractOpenTests):  # type: ignore[misc]
    """Files."""


# -- programs that use it ---------------------------------------------------------------------------------------------


def test_pandas_writes_and_reads_in_a_file_system_that_it_is_given(filesystem: nrfs.Filesystem) -> None:
    table = pandas.DataFrame({"name": ["a", "b"], "number": [1, 2]})
    options = {"filesystem": filesystem}
    for name in ("table.csv", "deep/er/table.csv.gz"):
        table.to_csv(f"nrfs://{name}", index=False, storage_options={**options, "auto_mkdir": True})
        assert pandas.read_csv(f"nrfs://{name}", storage_options=options).equals(table)
    assert nrfs.Path(filesystem, "table.csv").read_text() == "name,number\na,1\nb,2\n"
    assert nrfs.Path(filesystem, "deep/er/table.csv.gz").read_bytes()[:2] == b"\x1f\x8b"


def test_without_a_file_system_it_is_one_for_the_process() -> None:
    with fsspec.open("nrfs://of-the-process", "w") as file:
        file.write("text")
    with fsspec.open("nrfs:///of-the-process") as file:
        assert file.read() == b"text"
    assert nrfs.Path(shared(), "of-the-process").read_text() == "text"
    nrfs.Path(shared(), "of-the-process").unlink()


def test_fsspec_keeps_no_file_system_that_its_user_has_given_up(filesystem: nrfs.Filesystem) -> None:
    first = fsspec.filesystem("nrfs", filesystem=filesystem)
    assert isinstance(first, FilesystemSpec)
    assert first == fsspec.filesystem("nrfs", filesystem=filesystem)
    assert first != FilesystemSpec(nrfs.Filesystem(nodes=1, size="16M"))
    assert not FilesystemSpec._cache


def test_text_compression_and_parts_of_files(spec: FilesystemSpec) -> None:
    with spec.open("/text", "w", encoding="utf-16") as file:
        file.write("text")
    assert spec.read_text("/text", encoding="utf-16") == "text"
    with spec.open("/packed.gz", "wb", compression="infer") as file:
        file.write(b"text" * 100)
    assert spec.size("/packed.gz") < 100
    with spec.open("/packed.gz", "rb", compression="infer") as file:
        assert file.read() == b"text" * 100
    spec.pipe_file("/parts", b"0123456789")
    assert spec.cat_file("/parts", 2, -3) == b"23456"
    assert spec.cat_ranges(["/parts"] * 2, [0, 4], [2, 6]) == [b"01", b"45"]
    assert (spec.head("/parts", 3), spec.tail("/parts", 3)) == (b"012", b"789")
    with spec.open("/parts", "ab") as file:
        file.write(b"!")
    with spec.open("/parts", "r+b") as file:
        file.write(b"?")
    assert spec.cat("/parts") == b"?123456789!"


def test_what_a_listing_says_is_what_info_says(spec: FilesystemSpec, filesystem: nrfs.Filesystem) -> None:
    spec.makedirs("/directory/below")
    spec.pipe("/directory/file", b"text")
    root = nrfs.Path(filesystem)
    (root / "directory/link").symlink_to("file")
    (root / "directory/dangling").symlink_to("nowhere")
    listed = {info["name"]: info for info in spec.ls("/directory")}
    assert {name: (info["type"], info["size"], info["islink"]) for name, info in listed.items()} == {
        "/directory/below": ("directory", listed["/directory/below"]["size"], False),
        "/directory/file": ("file", 4, False),
        "/directory/link": ("file", 4, True),
        "/directory/dangling": ("other", 7, True),
    }
    assert all(info == spec.info(name) for name, info in listed.items())
    assert sorted(spec.ls("/directory", detail=False)) == sorted(listed)
    assert spec.ls("/directory/file", detail=False) == ["/directory/file"]
    assert spec.glob("/dir*/f*") == ["/directory/file"]
    assert spec.du("/directory") == 4 + 4 + 7
    status = (root / "directory/file").stat()
    assert spec.modified("/directory/file").timestamp() == pytest.approx(status.st_mtime)
    assert spec.created("/directory/file").timestamp() == pytest.approx(status.st_mtime)
    with pytest.raises(FileNotFoundError):
        spec.info("/nothing")
    with pytest.raises(FileNotFoundError):
        spec.ls("/nothing")


def test_a_symlink_is_not_followed_by_walks_nor_by_removal(spec: FilesystemSpec, filesystem: nrfs.Filesystem) -> None:
    spec.makedirs("/tree/below")
    spec.makedirs("/kept")
    spec.pipe("/kept/file", b"text")
    (nrfs.Path(filesystem) / "tree/out").symlink_to("/kept")
    (nrfs.Path(filesystem) / "tree/below/circle").symlink_to("/tree")
    assert sorted(spec.find("/tree")) == ["/tree/below/circle", "/tree/out"]
    spec.rm("/tree", recursive=True)
    assert not spec.exists("/tree")
    assert spec.cat("/kept/file") == b"text"


def test_to_move_is_to_rename(spec: FilesystemSpec) -> None:
    spec.mkdir("/new/directory")
    spec.pipe("/file", b"text")
    number = spec.info("/file")["ino"]
    spec.mv("/file", "/new/name")
    spec.mv("/new/name", "/new/directory")
    assert spec.info("/new/directory/name")["ino"] == number
    with pytest.raises(FileNotFoundError):
        spec.mv("/nothing", "/name")
    with pytest.raises(FileExistsError):
        spec.mkdir("/new")
    with pytest.raises(OSError, match="not empty"):
        spec.rmdir("/new")


def test_a_touched_file_is_emptied_unless_told_otherwise(spec: FilesystemSpec) -> None:
    spec.pipe("/file", b"text")
    spec.touch("/file", truncate=False)
    assert spec.cat("/file") == b"text"
    spec.touch("/file")
    assert spec.cat("/file") == b""


def test_a_transaction_shows_all_its_files_at_its_end_or_none(spec: FilesystemSpec) -> None:
    before = spec.filesystem.capacity().inodes_free
    spec.pipe("/old", b"old")
    with spec.transaction:
        spec.pipe("/old", b"new")
        spec.pipe("/other", b"other")
        assert spec.ls("/", detail=False) == ["/old"]
        assert spec.cat("/old") == b"old"
    assert spec.cat(["/old", "/other"]) == {"/old": b"new", "/other": b"other"}
    assert stat.S_IMODE(spec.info("/old")["mode"]) == stat.S_IMODE(spec.info("/other")["mode"])

    def fail() -> None:
        with spec.transaction:
            spec.pipe("/old", b"newest")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert spec.cat("/old") == b"new"
    spec.rm(["/old", "/other"])
    assert spec.filesystem.capacity().inodes_free == before


def test_a_full_file_system_says_so(tmp_path: Path) -> None:
    spec = FilesystemSpec(nrfs.Filesystem(nodes=1, size=8 * 4096))
    with pytest.raises(OSError, match="No space left"):
        spec.pipe("/file", bytes(9 * 4096))
    (tmp_path / "large").write_bytes(bytes(9 * 4096))
    with pytest.raises(OSError, match="No space left"):
        spec.put(str(tmp_path / "large"), "/large")


# -- event loops ------------------------------------------------------------------------------------------------------

LARGE = bytes(100 << 20)


def turns_of_another_thread(call: Callable[[], object], count: Callable[[], int]) -> int:
    """How often ``count`` counted on while a call of the core lasted."""
    before = count()
    call()
    return count() - before


def test_an_event_loop_of_asyncio_goes_on_while_a_thread_moves_data() -> None:
    spec = FilesystemSpec(nrfs.Filesystem(nodes=1, size="1G"))
    path = nrfs.Path(spec.filesystem, "/large")
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def main() -> None:
        loop = asyncio.create_task(turn())
        with path.open("wb", buffering=0) as raw:
            went_on = await asyncio.to_thread(turns_of_another_thread, lambda: raw.write(LARGE), lambda: turns)
        assert went_on > 3
        there = AsyncFileSystemWrapper(spec, asynchronous=True)
        assert await there._cat_file("/large", end=5) == bytes(5)
        await there._pipe_file("/small", b"text")
        assert sorted(await there._ls("/", detail=False)) == ["/large", "/small"]
        loop.cancel()

    asyncio.run(main())


def test_an_event_loop_of_trio_goes_on_while_a_thread_moves_data() -> None:
    path = nrfs.Path(nrfs.Filesystem(nodes=1, size="1G"), "/large")
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(turn)
            with path.open("wb", buffering=0) as raw:
                went_on = await trio.to_thread.run_sync(
                    turns_of_another_thread, lambda: raw.write(LARGE), lambda: turns
                )
            assert went_on > 3
            assert await trio.to_thread.run_sync(path.read_bytes) == LARGE
            async with trio.wrap_file(path.open("rb")) as file:
                assert await file.read(5) == bytes(5)
            nursery.cancel_scope.cancel()

    trio.run(main)
