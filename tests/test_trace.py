"""``nrfs trace``: what a user sees of what programs do beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Mounts, User, daemon_of, hear_interrupts, nrfs_command, run_nrfs, stopped, wait_until
from support.mounts import Configuration, configurations

from mount import control, status


class Tracer:
    """A running ``nrfs trace``."""

    def __init__(self, run: subprocess.Popen[str]) -> None:
        self.run = run

    def interrupt(self) -> tuple[list[dict[str, Any]], str]:
        """What it has shown, and what it says in the end."""
        self.run.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> tuple[list[dict[str, Any]], str]:
        """The same, if it ends by itself."""
        shown, said = self.run.communicate(timeout=30)
        assert self.run.returncode == 0, said
        return [json.loads(line) for line in shown.splitlines()], said


@contextmanager
def tracing(path: Path, *options: object) -> Iterator[Tracer]:
    """Traces with ``--json``, once it has begun."""
    command = nrfs_command("trace", path, "--json", *options)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts
    ) as run:
        try:
            wait_until(lambda: tracers_of(path) or run.poll() is not None, "the tracer")
            yield Tracer(run)
        finally:
            run.kill()


def tracers_of(path: Path) -> int:
    """How many trace a mount."""
    tracers: int = control.ask(status.entry(str(path)), "status")["tracers"]
    return tracers


def shell(script: str, directory: Path) -> int:
    """Runs a script there; returns its process id."""
    with subprocess.Popen(["sh", "-c", script], cwd=directory, stderr=subprocess.DEVNULL) as run:
        pass
    return run.pid


def brief(traced: dict[str, Any]) -> tuple[str, str | None, str | None]:
    """Kind, path and error."""
    return traced["kind"], traced["paths"][0]["path"] if traced["paths"] else None, traced["error"]


@pytest.mark.parametrize("configuration", configurations([2, 2, 1]), ids=str)
def test_a_users_commands_are_seen_as_they_come(configuration: Configuration, mount_nrfs: Mounts) -> None:
    path = mount_nrfs(None, **configuration.options)
    (path / "old").mkdir()
    for name in ("file", "kept"):
        (path / "old" / name).write_text("content")
    with tracing(path) as tracer:
        process = shell("mkdir new; rmdir old; chmod 600 old/kept; mv old/file new/file; rm new/file", path)
        wait_until(lambda: mount_nrfs.requests(path)["forget"], "what is deleted to be forgotten")
        shown, said = tracer.interrupt()
    assert said == f"nrfs trace: {len(shown)} requests, none lost\n"
    seen = [brief(each) for each in shown]
    for expected in [
        ("mkdir", "new", None),
        ("rmdir", "old", "ENOTEMPTY"),
        ("rename", "old/file", None),
        ("unlink", "new/file", None),
    ]:
        assert seen.count(expected) == 1, seen
    by_kind = {each["kind"]: each for each in shown}
    assert [each["path"] for each in by_kind["rename"]["paths"]] == ["old/file", "new/file"]
    # What was made before is found by its inode, and what is deleted is shown as such.
    assert ("setattr", "old/kept", None) in seen
    assert by_kind["forget"]["paths"][0]["deleted"]
    for kind in ("mkdir", "rename", "unlink"):
        each = by_kind[kind]
        assert each["batches"] == [{"log": "namespace", "operations": 1}]
        assert 0 <= each["node"] < configuration.nodes
        assert each["pid"] > process and each["microseconds"] > 0
    assert by_kind["mkdir"]["uid"] == os.geteuid()
    # Nobody traces any more.
    wait_until(lambda: tracers_of(path) == 0, "the tracer to go")


def test_each_of_several_tracers_is_shown_what_it_asks_for(mount_nrfs: Mounts) -> None:
    path = mount_nrfs(nodes=1)
    (path / "logs").mkdir()
    below, all_three = {("mkdir", "logs/a"), ("mkdir", "logs/b")}, ("--path", "*/?", "--path", path / "other")
    wanted: list[tuple[tuple[object, ...], set[tuple[str, str]]]] = [
        (("--kind", "mkdir,rmdir", "--path", "logs"), {*below, ("rmdir", "logs/a")}),
        (("--kind", "mkdir", *all_three), {*below, ("mkdir", "other")}),
        (("--kind", "mkdir", "--failed"), set()),
        (("--kind", "mkdir", "--slower", "60e6"), set()),
        (("--kind", "mkdir", "--pid", "1"), set()),
    ]
    with ExitStack() as stack:
        tracers = [stack.enter_context(tracing(path, *options)) for options, _ in wanted]
        wait_until(lambda: tracers_of(path) == len(tracers), "all tracers")
        shell("mkdir logs/a logs/b other; rmdir logs/a other", path)
        for tracer, (_, expected) in zip(tracers, wanted, strict=True):
            shown, _ = tracer.interrupt()
            assert {(kind, where) for kind, where, _ in map(brief, shown)} == expected
    with tracing(path, "-n", "2", "--kind", "mkdir") as tracer:
        shell("mkdir a b c", path)
        shown, said = tracer.end()
    assert [where for _, where, _ in map(brief, shown)] == ["a", "b"]
    assert said == "nrfs trace: 2 requests, none lost\n"
    unknown = run_nrfs("trace", path, "--kind", "mkdirs")
    assert (unknown.returncode, len(unknown.stderr.splitlines())) == (2, 1)


def test_people_get_a_table_and_the_mounts_end_in_one_line(mount_nrfs: Mounts) -> None:
    path = mount_nrfs()
    run = subprocess.Popen(nrfs_command("trace", path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with run, tracing(path, "--kind", "mkdir") as other:
        wait_until(lambda: tracers_of(path) == 2, "both tracers")
        shell("mkdir 'a\nb'; setfattr -n user.word -v x .", path)
        mount_nrfs.unmount(path)
        shown, said = run.communicate(timeout=30)
        assert [where for _, where, _ in map(brief, other.end()[0])] == ["a\nb"]
    assert run.returncode == 0
    assert said.startswith(f"nrfs trace: {path}: the mount has ended; ") and said.count("\n") == 1
    rows = shown.splitlines()
    assert rows[0].split() == ["time", "pid", "uid", "request", "result", "us", "node", "log", "path"]
    (row,) = [row for row in rows if " mkdir " in row]
    assert row.endswith(r"a\nb") and " ok " in row and " namespace x1 " in row
    assert any(row.endswith(".  user.word") for row in rows)


def test_a_stopped_tracer_holds_up_nobody_and_is_told_what_it_lost(mount_nrfs: Mounts) -> None:
    path = mount_nrfs(cache="none", nodes=1)
    with tracing(path) as tracer:
        with stopped(tracer.run.pid):
            # More than the queues of the workers and the socket have room for.
            for _ in range(30_000):
                path.stat()
            assert mount_nrfs.requests(path)["getattr"] >= 30_000
        shown, said = tracer.interrupt()
    requests = [each for each in shown if "kind" in each]
    lost = sum(each["lost"] for each in shown if "lost" in each)
    assert lost > 0 and f"{lost:,} lost" in said
    assert len(requests) > 4096


def test_a_killed_daemon_is_no_end_of_the_mount(mount_nrfs: Mounts) -> None:
    path = mount_nrfs()
    with tracing(path) as tracer:
        os.kill(daemon_of(path), signal.SIGKILL)
        _, said = tracer.run.communicate(timeout=30)
    assert (tracer.run.returncode, said) == (1, f"nrfs trace: {path}: the daemon has gone after 0 requests\n")


def test_only_the_owner_and_root_may_trace(mount_nrfs: Mounts, user: User) -> None:
    path = mount_nrfs(allow_other=True)
    refused = run_nrfs("trace", path, before=user.before)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert control.NO_RIGHT in refused.stderr
