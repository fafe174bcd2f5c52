"""The Python API under whatever a program may do with it: it says no with an exception, and never ends the process.

Each of these runs in a process of its own, so that its end is seen.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import nrfs

ABSURD = [-(2**200), -(2**64), -1, 0, *(2**bits for bits in (16, 20, 31, 32, 40, 62, 63, 64, 200)), 2**63 - 1]


def run(program: str, *arguments: str, timeout: int = 120) -> str:
    """What a program prints, which must end well and say nothing else."""
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


# -- numbers ----------------------------------------------------------------------------------------------------------

IN_A_CHILD = """
import inspect, os, resource, signal, sys, nrfs

def in_a_child(what, call):
    "Calls in a process with little memory and time. What is neither a result nor an exception is printed."
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(10)
        try:
            call()
        except Exception as error:
            if len(str(error).splitlines()) > 1:
                print(what, "says much:", error, flush=True)
            os._exit(1 if isinstance(error, ValueError) else 2)
        except BaseException as error:
            print(what, "panics:", error, flush=True)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        print(what, "ends by signal", os.WTERMSIG(status), flush=True)
    return os.waitstatus_to_exitcode(status)
"""


@pytest.mark.parametrize("name", ["Filesystem", "AddressSpace", "Scheduler"])
def test_an_absurd_number_makes_no_object_or_a_value_error(name: str) -> None:
    """Of each argument that takes numbers; and far too many of two things of which each may be many."""
    program = f"""
    cls, absurd = getattr(nrfs, {name!r}), {ABSURD}
    no_numbers = {{"backed", "content", "huge", "mpol", "noswap"}}
    names = [name for name in inspect.signature(cls).parameters if name not in no_numbers]
    assert names
    cases = [{{name: number}} for name in names for number in absurd]
    if {name!r} == "AddressSpace":
        cases += [{{"memory": number, "backed": True}} for number in absurd]
        cases += [dict(cores=8192, logs=1024), dict(nodes=1024, logs=1024)]
    if {name!r} == "Filesystem":
        cases += [dict(nodes=1024, logs=1024)]
    for case in cases:
        ended = in_a_child(case, lambda: cls(**case))
        if ended == 2:
            print(case, "is another error")
        if ended == 0 and any(number < 0 or number > 2**63 for number in case.values()):
            print(case, "is possible")
    """
    assert run(IN_A_CHILD + textwrap.dedent(program)) == ""


@pytest.mark.parametrize("name", ["Filesystem", "AddressSpace", "Scheduler"])
def test_a_method_takes_or_refuses_whatever_numbers_it_is_given(name: str) -> None:
    program = f"""
    import itertools, random
    make = dict(
        Filesystem=lambda: nrfs.Filesystem(nodes=2, size="16M", inodes=100),
        AddressSpace=lambda: nrfs.AddressSpace(nodes=2, memory=1 << 24, backed=True),
        Scheduler=lambda: nrfs.Scheduler(nodes=2, cores=4),
    )[{name!r}]
    values = {ABSURD} + [1, 2, 3, 4096, 0o100644, 0x40000000, b"name", bytearray(9), "4K", "r--", None]
    cls = getattr(nrfs, {name!r})
    methods = [name for name in dir(cls) if not name.startswith("_") and callable(getattr(cls, name))]
    chance = random.Random(5)

    def call_all(method):
        made = make()
        if {name!r} == "Filesystem":
            made.write(made.mknod(nrfs.ROOT, b"file", 0o100644).ino, 0, b"content")
        call = getattr(made, method)
        parameters = inspect.signature(call).parameters.values()
        for _ in range(300):
            given = {{parameter.name: chance.choice(values) for parameter in parameters}}
            try:
                positional = [given[p.name] for p in parameters if p.kind != p.KEYWORD_ONLY]
                call(*positional, **{{p.name: given[p.name] for p in parameters if p.kind == p.KEYWORD_ONLY}})
            except Exception:
                pass
        for log in [made.verify()] if {name!r} == "Scheduler" else made.verify():
            assert len(set(log["digests"])) == 1

    for method in methods:
        if in_a_child(method, lambda: call_all(method)) not in (0, None):
            print(method, "failed")
    """
    assert run(IN_A_CHILD + textwrap.dedent(program), timeout=300) == ""


# -- descriptors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", ["ring", "device", "pyfuse3", "bad"])
def test_what_is_no_descriptor_of_the_kernel_is_refused_and_stays_open(channel: str, tmp_path: Path) -> None:
    program = """
    import os, sys, nrfs
    channel, path = sys.argv[1:]
    filesystem = nrfs.Filesystem(nodes=1, size="16M")
    descriptors = [os.open(path, os.O_CREAT | os.O_RDWR), os.open("/dev/null", os.O_RDWR), os.open(".", os.O_RDONLY)]
    descriptors += [*os.pipe(), os.eventfd(0), 0]
    for descriptor in [-1, -2, 99999, 2**31 - 1, 2**31, -(2**31), 2**64, *descriptors]:
        for _ in range(2):
            try:
                nrfs.Connection(filesystem, descriptor, channel=channel, caching=True)
            except (OSError, ValueError) as error:
                is_number = -(2**31) <= descriptor < 2**31
                assert isinstance(error, OSError) == (channel != "bad" and is_number), (descriptor, error)
            else:
                raise AssertionError(descriptor)
    for descriptor in descriptors:
        os.fstat(descriptor)
    """
    assert run(program, channel, str(tmp_path / "file")) == ""


def test_a_descriptor_belongs_to_one_connection_until_that_has_ended() -> None:
    filesystem = nrfs.Filesystem(nodes=1, size="16M")
    for _ in range(2):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        number = ours.detach()
        connection = nrfs.Connection(filesystem, number, channel="pyfuse3", caching=True)
        for channel in ("pyfuse3", "device"):
            with pytest.raises(OSError, match="busy"):
                nrfs.Connection(filesystem, number, channel=channel, caching=True)
        os.fstat(number)
        os.close(connection.descriptor)
        connection.end()
        connection.end()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)
        with pytest.raises(OSError, match="Bad file descriptor"):
            nrfs.Connection(filesystem, number, channel="pyfuse3", caching=True)
        theirs.close()


# -- forks ------------------------------------------------------------------------------------------------------------

FORKED = """
import gc, inspect, os, signal, socket, threading, nrfs

filesystem = nrfs.Filesystem(nodes=2, logs=2, size="64M")
space = nrfs.AddressSpace(nodes=2, cores=2, backed=True)
space.map(0x40000000, 4 << 20)
core, frame, view = space.core(0), space.frame(), space.view(0x40000000, 4 << 20)
scheduler = nrfs.Scheduler(nodes=2, cores=4)
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
connection = nrfs.Connection(filesystem, ours.detach(), channel="pyfuse3", caching=True)
is_ending = False

def work(number):
    while not is_ending:
        name = b"%d" % number
        filesystem.write(filesystem.mknod(nrfs.ROOT, name, 0o100644).ino, 0, bytes(10000))
        filesystem.unlink(nrfs.ROOT, name)
        scheduler.exit(scheduler.create())
        space.map((1 + number) << 40, 4096)
        space.view((1 + number) << 40, 4096)[0] = 1
        space.unmap((1 + number) << 40, 4096)

threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(4)]

def fork(body):
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert status == 0, status
        return
    signal.alarm(30)
    body()
"""


def test_a_forked_process_is_told_so_by_every_method_and_ends_as_any_other() -> None:
    """While threads of the first one hold whatever locks there are."""
    program = """
    def use():
        for made in (filesystem, space, core, scheduler, connection):
            for name in dir(made):
                if name.startswith("_") or not callable(getattr(type(made), name)):
                    continue
                method = getattr(made, name)
                values = dict(parent=1, new_parent=1, addresses=memoryview(bytearray(8)).cast("Q"), mode=0o100644)
                values |= dict.fromkeys(("name", "new_name", "target", "value", "data"), b"x")
                values |= dict(rights="r--", length=4096, va=0x40000000, whence=os.SEEK_DATA)
                parameters = inspect.signature(method).parameters.values()
                given = {p.name: values.get(p.name, 0) for p in parameters if p.default is p.empty}
                try:
                    print(made, name, method(**given), flush=True)
                except RuntimeError as error:
                    if len(str(error).splitlines()) != 1:
                        print(name, error, flush=True)
        for make in (
            lambda: nrfs.Connection(filesystem, theirs.fileno(), channel="pyfuse3", caching=True),
            lambda: space.map(0, frame),
        ):
            try:
                print(make(), flush=True)
            except RuntimeError:
                pass
        # What this process makes is its own.
        own = nrfs.Filesystem(nodes=2, size="16M")
        own.mknod(nrfs.ROOT, b"own", 0o100644)
        nrfs.AddressSpace(backed=True).map(0, 4096)
        nrfs.Scheduler(nodes=1).create()

    [thread.start() for thread in threads]
    for _ in range(20):
        fork(lambda: (use(), os._exit(0)))
    def leave():
        global filesystem, space, core, frame, view, scheduler, connection
        del filesystem, space, core, frame, view, scheduler, connection
        gc.collect()
        os._exit(0)
    for _ in range(20):
        fork(leave)
    child = os.fork()
    if child == 0:
        # As a program ends: all that there is goes, and nobody waits for threads that are not there.
        signal.alarm(30)
        threads.clear()
        raise SystemExit(0)
    assert os.waitpid(child, 0)[1] == 0
    is_ending = True
    [thread.join() for thread in threads]
    assert all(len(set(log["digests"])) == 1 for log in filesystem.verify())
    os.close(connection.descriptor)
    connection.end()
    """
    assert run(FORKED + textwrap.dedent(program)) == ""


def test_a_view_in_a_forked_process_is_a_copy_also_of_what_nobody_has_touched() -> None:
    program = """
    space.map(0xc0000000, frame, rights="r--")
    space.map(0xc0001000, frame)
    reader, writer = space.view(0xc0000000, 4096), space.view(0xc0001000, 4096)
    writer[7] = 9
    view[0] = 1

    def look():
        assert (view[0], view[1], reader[7], view[3 << 20]) == (1, 0, 9, 0)
        view[0] = 2
        view[3 << 20] = 3
        writer[7] = 4
        assert (view[0], view[3 << 20], view.sum(), reader[7]) == (2, 3, 5, 9)
        fork(lambda: (view.sum() == 5 or print("the copy's copy differs", flush=True), os._exit(0)))
        os._exit(0)

    [thread.start() for thread in threads]
    for _ in range(10):
        fork(look)
    is_ending = True
    [thread.join() for thread in threads]
    assert (view[0], view.sum(), reader[7], writer[7]) == (1, 1, 9, 9)
    os.close(connection.descriptor)
    connection.end()
    """
    assert run(FORKED + textwrap.dedent(program)) == ""
