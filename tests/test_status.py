"""``nrfs status``: what it shows of a mount, to people and to programs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, Mounts, daemon_of, entry_at, is_alive, run_nrfs, stopped, take_away, wait_until

import nrfs
from mount import places
from mount.mountinfo import MountEntry
from mount.status import MountStatus


def test_programs_get_everything_about_one_mount(mount_nrfs: Mounts) -> None:
    path = mount_nrfs(nodes=2, logs=3, size="64M", inodes=1000)
    (path / "file").write_bytes(bytes(10_000))
    status = mount_nrfs.status(path)
    assert (status["mountpoint"], status["alive"], status["cache"]) == (str(path), True, "writeback")
    assert status["pid"] == daemon_of(path)
    assert status["capacity"]["bytes"] == 64 << 20
    assert status["capacity"]["bytes_used"] >= 10_000
    assert (status["capacity"]["inodes"], status["capacity"]["inodes_used"]) == (1000, 2)
    assert [log["name"] for log in status["logs"]] == ["namespace", "content 0", "content 1", "content 2"]
    assert status["logs"][0]["tail"] >= 1
    cpus = [cpu for replica in status["replicas"] for cpu in replica["cpus"]]
    assert set(cpus) <= os.sched_getaffinity(0) and len(status["replicas"]) == 2
    for replica in status["replicas"]:
        assert len(replica["logs"]) == 4
        for log, position in zip(status["logs"], replica["logs"], strict=True):
            assert position["local_tail"] <= log["tail"]
            assert position["operations"] >= position["batches"]


def test_requests_are_counted_by_kind(mountpoint: Path, mount_nrfs: Mounts) -> None:
    before = mount_nrfs.requests(mountpoint)
    (mountpoint / "directory").mkdir()
    (mountpoint / "directory" / "file").touch()
    (mountpoint / "directory" / "file").rename(mountpoint / "file")
    os.setxattr(mountpoint / "file", "user.name", b"value")
    (mountpoint / "file").unlink()
    made = {kind: count - before[kind] for kind, count in mount_nrfs.requests(mountpoint).items()}
    expected = {"mkdir": 1, "create": 1, "rename": 1, "setxattr": 1, "unlink": 1}
    assert {kind: made[kind] for kind in expected} == expected
    wait_until(lambda: mount_nrfs.requests(mountpoint)["forget"] > before["forget"], "the kernel to forget the file")


def test_asking_for_the_status_makes_no_request(mount_nrfs: Mounts) -> None:
    path = mount_nrfs(cache="none")
    before = mount_nrfs.status(path)["requests"]
    assert run_nrfs("status", path).returncode == 0
    assert str(path) in run_nrfs("status").stdout
    assert mount_nrfs.status(path)["requests"] == before


def test_people_get_aligned_tables(mount_nrfs: Mounts) -> None:
    path = mount_nrfs(nodes=2, logs=2)
    (path / "file").write_text("x")
    result = run_nrfs("status", path, "--verify")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == str(path)
    assert f"process {daemon_of(path)}, up" in lines[1]
    tables = result.stdout.split("\n\n")[1:]
    assert [table.split()[0] for table in tables] == ["log", "node", "log"]
    assert ["node 0" in tables[0], "node 1" in tables[0]] == [True, True]
    for table in tables:
        assert len({len(line) for line in table.splitlines()}) == 1
    assert "\x1b" not in result.stdout


def test_verify_compares_the_replicas_at_one_position(mount_nrfs: Mounts) -> None:
    path = mount_nrfs(nodes=3, logs=2)
    for number in range(20):
        (path / f"{number}").write_bytes(os.urandom(5000))
    subprocess.run(["sync", "-f", path], check=True)
    result = run_nrfs("status", path, "--verify", "--json")
    assert result.returncode == 0
    status = json.loads(result.stdout)
    for log in status["verification"]:
        assert log["agree"] is True
        assert len(log["digests"]) == 3 and len(set(log["digests"])) == 1
    positions = {log["log"]: log["position"] for log in status["verification"]}
    assert positions["namespace"] >= 20
    # Whoever was behind has caught up at least so far.
    for replica in mount_nrfs.status(path)["replicas"]:
        assert all(log["local_tail"] >= positions[log["log"]] for log in replica["logs"])


def test_replicas_that_differ_are_no_success() -> None:
    agreeing = {"log": "namespace", "position": 5, "digests": ["a", "a"]}
    differing = {"log": "content 0", "position": 7, "digests": ["a", "b"]}
    assert MountStatus("/m", {}, [agreeing]).is_healthy
    status = MountStatus("/m", {}, [agreeing, differing])
    assert not status.is_healthy
    assert [log["agree"] for log in status.as_dictionary()["verification"]] == [True, False]


@pytest.mark.parametrize(
    ("change", "theirs"),
    [
        ("import nrfs; nrfs.__version__ = '0.0.9'", "nrfs 0.0.9"),
        (
            "from mount.daemon import _Daemon; _Daemon._status = lambda daemon: {}",
            "an older nrfs, which does not say which",
        ),
    ],
    ids=["named", "unnamed"],
)
def test_a_daemon_of_another_version_is_called_so(mount_nrfs: Mounts, change: str, theirs: str) -> None:
    path = mount_nrfs.directory()
    start = f"{change}; from nrfs.cli import main; main(['mount', '{path}', '--size', '64M'])"
    subprocess.run([sys.executable, "-c", start], cwd=REPOSITORY, check=True)
    problem = f"the daemon is of {theirs}, and this is nrfs {nrfs.__version__}: mount again to see its status"
    for more in ([], ["--verify"]):
        result = run_nrfs("status", path, *more)
        assert (result.returncode, result.stdout, result.stderr) == (1, f"{path}\n  {problem}\n", "")
    as_json = json.loads(run_nrfs("status", path, "--json").stdout)
    assert (as_json["alive"], as_json["problem"]) == (True, problem)
    mount_nrfs.unmount(path)


def test_without_a_mount_point_all_mounts_are_shown(mount_nrfs: Mounts) -> None:
    paths = {str(mount_nrfs()), str(mount_nrfs())}
    shown = run_nrfs("status").stdout.split("\n")
    assert paths <= set(shown)
    listed = json.loads(run_nrfs("status", "--json").stdout)
    assert paths <= {status["mountpoint"] for status in listed}


@pytest.mark.parametrize("path", ["/", "/proc", "/nowhere"])
def test_what_is_no_mount_of_nrfs_has_no_status(path: str) -> None:
    result = run_nrfs("status", path)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"nrfs status: {path}: no nrfs is mounted here\n"


def test_a_mount_point_may_be_no_text(mount_nrfs: Mounts) -> None:
    path = mount_nrfs.directory() / os.fsdecode(b"\xff")
    path.mkdir()
    try:
        mount_nrfs(path)
        result = run_nrfs("status", path)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.startswith(f"{path.parent}/\\xff\n")
    finally:
        take_away(path)


def test_a_dead_daemon_is_called_dead(mount_nrfs: Mounts) -> None:
    path = mount_nrfs()
    process = daemon_of(path)
    os.kill(process, signal.SIGKILL)
    wait_until(lambda: not is_alive(process), "the daemon's death")
    result = run_nrfs("status", path)
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout == f"{path}\n  the daemon is dead (nrfs umount {path} takes the mount away)\n"
    as_json = run_nrfs("status", "--json", path)
    assert as_json.returncode == 1
    assert json.loads(as_json.stdout)["alive"] is False


def test_a_stuck_daemon_is_named_and_waited_for_no_longer_than_some_seconds(mount_nrfs: Mounts) -> None:
    path = mount_nrfs()
    with stopped(daemon_of(path)):
        result = run_nrfs("status", path)
    assert (result.returncode, result.stderr) == (1, f"nrfs status: {path}: the daemon does not answer\n")


def test_whatever_a_client_says_the_daemon_goes_on(mountpoint: Path) -> None:
    entry = entry_at(mountpoint)
    assert entry is not None
    path = socket_of(entry)
    for said in (b"[" * 4000 + b"\n", b"\xff\xfe\n", b"{}\n", b'{"command": 1}\n', b"x" * 100_000, b""):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(path))
            with contextlib.suppress(BrokenPipeError):
                client.sendall(said)
            client.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                client.recv(100_000)
    (mountpoint / "file").touch()
    assert run_nrfs("status", mountpoint).returncode == 0


def test_only_the_owner_can_reach_the_control_socket(mountpoint: Path) -> None:
    entry = entry_at(mountpoint)
    assert entry is not None
    path = socket_of(entry)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def socket_of(entry: MountEntry) -> Path:
    directories = places.runtime_directories(entry.owner)
    return next(path for place in directories if (path := place / f"{entry.device}.sock").exists())


@pytest.mark.parametrize(
    "sent",
    [
        *(b"", b"\n", b"nonsense\n", b"{}\n", b"[]\n", b'{"command": 5}\n', b'{"command": "explode"}\n', b"x" * 10_000),
        *(b'{"command": "remount"}\n', b'{"command": "remount", "size": [1], "inodes": -1, "fixed": {"nodes": 7}}\n'),
        b'{"command": "remount", "size": "1Q", "inodes": 1e99, "fixed": {}}\n',
    ],
)
def test_a_broken_client_gets_an_error_and_harms_nothing(mountpoint: Path, sent: bytes) -> None:
    entry = entry_at(mountpoint)
    assert entry is not None
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(socket_of(entry)))
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        try:
            answer = client.recv(4096)
        except ConnectionResetError:  # It did not read all of the nonsense.
            answer = b""
    assert not answer or "error" in json.loads(answer)
    assert run_nrfs("status", mountpoint).returncode == 0


def test_the_reader_of_a_status_may_stop_reading(mountpoint: Path) -> None:
    result = run_nrfs("status", mountpoint, before=("sh", "-c", '"$@" | :', "sh"))
    assert result.stderr == ""
