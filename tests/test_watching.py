"""``nrfs top`` and ``nrfs metrics``, and the latencies that ``nrfs status`` tells."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from threading import Event, Thread

import pytest
from conftest import Mounts, run_nrfs
from prometheus_client.parser import text_string_to_metric_families
from support.mounts import Configuration, configurations

from mount import latency

COMMAND = [sys.executable, "-m", "nrfs.cli"]


@pytest.fixture(params=configurations([1, 2, 2]), ids=str)
def used(request: pytest.FixtureRequest, mount_nrfs: Mounts) -> Path:
    """A mount on which something was done."""
    configuration: Configuration = request.param
    path = mount_nrfs(nodes=configuration.nodes, channel=configuration.channel)
    for number in range(100):
        (path / f"file {number}").write_bytes(b"content")
    for number in range(100):
        (path / f"file {number}").unlink()
    return path


@contextmanager
def in_use(path: Path) -> Iterator[None]:
    """Files are made and deleted there meanwhile."""
    ends = Event()

    def work() -> None:
        while not ends.is_set():
            (path / "file").write_bytes(b"content")
            (path / "file").unlink()

    thread = Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


def test_status_tells_how_long_requests_take(used: Path, mount_nrfs: Mounts) -> None:
    status = mount_nrfs.status(used)
    timed = latency.histograms(status)
    # Each worker times the first 64 and then one of 8. Those that were forwarded are all timed.
    assert 64 + 5 <= sum(count for _, count in timed["unlink"]) <= 100
    p50, p99 = (latency.microseconds(timed["unlink"], percent) for percent in (50, 99))
    assert p50 is not None and p99 is not None and 0 < p50 <= p99 < 10e6
    assert all(sum(count for _, count in each) <= status["requests"][kind] for kind, each in timed.items())
    (line,) = [line for line in run_nrfs("status", used).stdout.splitlines() if "latency" in line]
    assert "us (p50 / p99)" in line


def test_top_shows_what_is_done_now(used: Path) -> None:
    with in_use(used):
        result = run_nrfs("top", used, "--once", "--json", "--interval", "0.5")
        shown = run_nrfs("top", used, "--once", "--interval", "0.2")
    assert (result.returncode, result.stderr) == (0, "")
    view = json.loads(result.stdout)
    by_kind = {each["kind"]: each for each in view["operations"]}
    assert by_kind["unlink"]["per_second"] > 0
    assert 0 < by_kind["unlink"]["p50_microseconds"] <= by_kind["unlink"]["p99_microseconds"]
    assert sum(worker["per_second"] for worker in view["workers"]) > 0
    tree = view["logs"][0]
    assert tree["per_second"] >= 0 and len(view["logs"]) > 1
    assert all(replica["lag"] >= 0 for replica in view["replicas"])
    if len(view["replicas"]) > 1:
        assert tree["per_second"] > 0 and tree["operations_per_batch"] >= 1
    assert any(thread["cpu_percent"] > 0 for thread in view["threads"])
    assert (shown.returncode, shown.stderr) == (0, "")
    assert all(word in shown.stdout for word in ("op/s", "unlink", "lag", "worker", "CPU %"))


def test_top_is_a_stream_without_a_terminal(mountpoint: Path) -> None:
    command = [*COMMAND, "top", str(mountpoint), "--json", "--interval", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        views = [json.loads(run.stdout.readline()) for _ in range(3)]
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=30)
    assert all(view["mountpoint"] == str(mountpoint) for view in views)
    assert (run.returncode, said) == (130, "nrfs: interrupted\n")


def test_keys_pause_top_and_end_it(mountpoint: Path) -> None:
    process, terminal = pty.fork()
    if process == 0:
        os.execv(sys.executable, [*COMMAND, "top", str(mountpoint), "--interval", "0.1"])
    shown = b""

    def wait_for(text: bytes) -> None:
        nonlocal shown
        until = time.monotonic() + 30
        while text not in shown:
            assert time.monotonic() < until, shown
            if select.select([terminal], [], [], 1)[0]:
                shown += os.read(terminal, 1 << 16)

    wait_for(b"op/s")
    os.write(terminal, b" ")
    wait_for(b"PAUSED")
    os.write(terminal, b"npq")
    # What it still writes must be read, or it would wait for ever.
    while True:
        try:
            if not os.read(terminal, 1 << 16):
                break
        except OSError:
            break
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    os.close(terminal)


def test_metrics_are_what_prometheus_reads(used: Path, mount_nrfs: Mounts) -> None:
    result = run_nrfs("metrics", used)
    assert (result.returncode, result.stderr) == (0, "")
    families = {each.name: each for each in text_string_to_metric_families(result.stdout)}
    status = mount_nrfs.status(used)
    requests = {each.labels["kind"]: each.value for each in families["nrfs_requests"].samples}
    assert requests["unlink"] == status["requests"]["unlink"] == 100
    took = [each for each in families["nrfs_request_duration_seconds"].samples if each.labels.get("kind") == "unlink"]
    buckets = [each.value for each in took if each.name.endswith("_bucket")]
    (count,) = [each.value for each in took if each.name.endswith("_count")]
    assert buckets == sorted(buckets) and buckets[-1] == count > 0
    assert {each.labels["mountpoint"] for each in families["nrfs_up"].samples} == {str(used)}
    assert len(families["nrfs_replica_applied"].samples) == len(status["replicas"]) * len(status["logs"])


def test_metrics_are_served_on_a_loopback_port(mountpoint: Path) -> None:
    command = [*COMMAND, "metrics", str(mountpoint), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        address = run.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:")
        for _ in range(2):
            with urllib.request.urlopen(address, timeout=30) as answer:
                assert f'nrfs_up{{mountpoint="{mountpoint}"}} 1.0' in answer.read().decode()
        port = address.rpartition(":")[2].partition("/")[0]
        taken = run_nrfs("metrics", mountpoint, "--port", port)
        assert (taken.returncode, len(taken.stderr.splitlines())) == (1, 1)
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=30)
    assert (run.returncode, said) == (130, "nrfs: interrupted\n")


def test_metrics_are_served_at_a_socket_of_this_user_alone(mountpoint: Path, tmp_path: Path) -> None:
    place = tmp_path / "metrics.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(place))
    command = [*COMMAND, "metrics", str(mountpoint), "--socket", str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == f"{place}\n"
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        connection = HTTPConnection("localhost")
        for _ in range(2):
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(str(place))
            connection.request("GET", "/metrics")
            assert f'nrfs_up{{mountpoint="{mountpoint}"}} 1.0' in connection.getresponse().read().decode()
            connection.close()
        taken = run_nrfs("metrics", mountpoint, "--socket", place)
        assert (taken.returncode, len(taken.stderr.splitlines())) == (1, 1)
        assert place.exists()
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=30)
    assert (run.returncode, said) == (130, "nrfs: interrupted\n")
    assert not place.exists()
    place.write_text("not a socket")
    assert run_nrfs("metrics", mountpoint, "--socket", place).returncode == 1
    assert place.read_text() == "not a socket"


def test_what_cannot_be_watched_is_said_in_one_line(tmp_path: Path) -> None:
    for arguments, status in [
        (("top", tmp_path), 1),
        (("metrics", tmp_path), 1),
        (("top",), 2),
        (("top", tmp_path, "--interval", "0"), 2),
        (("metrics", "--port", "70000"), 2),
        (("metrics", "--port", "0", "--socket", "s"), 2),
        (("trace", tmp_path), 1),
        (("trace", tmp_path, "-n", "0"), 2),
        (("trace", tmp_path, "--slower", "soon"), 2),
    ]:
        result = run_nrfs(*arguments)
        assert (result.returncode, result.stdout, len(result.stderr.splitlines())) == (status, "", 1)
