"""``nrfs.Topology``, ``nrfs topology`` and ``--topology``: where replicas are, on machines of several shapes.

This machine is made to look like another by files that are mounted over the kernel's, in a namespace of their own.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Mounts, in_namespace, nrfs_command, run_nrfs

import nrfs

CPUS = sorted(os.sched_getaffinity(0))
NODES = Path("/sys/devices/system/node")
ONLINE = Path("/sys/devices/system/cpu/online")
GIB = 1 << 30
BINDING = """
import ctypes, os, sys
mask, number = ctypes.c_ulong(1), {"x86_64": 238, "aarch64": 237}[os.uname().machine]
if ctypes.CDLL(None, use_errno=True).syscall(number, 2, ctypes.byref(mask), 64):
    sys.exit(os.strerror(ctypes.get_errno()))
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Runs a command whose memory is bound to node 0: set_mempolicy(2) with MPOL_BIND."""

SHOW_STATUS = "mount --bind {} /proc/$$/status"
"""Lets the process of a shell, and what it becomes, see this file as its status."""

needs_two_cpus = pytest.mark.skipif(len(CPUS) < 2, reason="one CPU makes no two nodes")


def shown(*arguments: str, before: tuple[str, ...] = ()) -> dict[str, Any]:
    """What ``nrfs topology --json`` says."""
    result = run_nrfs("topology", "--json", *arguments, before=before)
    assert (result.returncode, result.stderr) == (0, "")
    said: dict[str, Any] = json.loads(result.stdout)
    return said


def places(said: dict[str, Any]) -> list[tuple[list[int], int]]:
    """Of each replica, its CPUs and its node."""
    return [(replica["cpus"], replica["physical"]) for replica in said["replicas"]]


def written(tmp_path: Path, replicas: object) -> Path:
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"replicas": replicas}))
    return path


def with_nodes(
    tmp_path: Path, nodes: Sequence[tuple[Sequence[int], int]], *, free: float = 0.5, more: str = "true"
) -> tuple[str, ...]:
    """What runs a command on a machine with these nodes: CPUs and bytes of memory of each."""
    folder = tmp_path / "nodes"
    for number, (cpus, memory) in enumerate(nodes):
        node = folder / f"node{number}"
        node.mkdir(parents=True)
        (node / "cpulist").write_text(",".join(map(str, cpus)) + "\n")
        fields = {"MemTotal": memory, "MemFree": int(memory * free)}
        (node / "meminfo").write_text(
            "".join(f"Node {number} {name}: {size >> 10} kB\n" for name, size in fields.items())
        )
        distances = ("10" if other == number else str(20 + other + number) for other in range(len(nodes)))
        (node / "distance").write_text(" ".join(distances) + "\n")
    (folder / "online").write_text(f"0-{len(nodes) - 1}\n")
    (folder / "has_memory").write_text(
        ",".join(str(number) for number, (_, memory) in enumerate(nodes) if memory) + "\n"
    )
    # The process's cpuset may have only the nodes that there really are.
    status = tmp_path / "status"
    allowed = f"Mems_allowed_list:\t0-{len(nodes) - 1}"
    status.write_text(re.sub(r"(?m)^Mems_allowed_list:.*", allowed, Path("/proc/self/status").read_text()))
    return in_namespace(f"mount --bind {folder} {NODES}; {SHOW_STATUS.format(status)}; {more}")


# -- this machine -----------------------------------------------------------------------------------------------------


def test_programs_get_the_machine_and_the_replicas_of_a_mount(mount_nrfs: Mounts) -> None:
    said = shown()
    assert set(said) == {"replicas", "machine"}
    machine = said["machine"]
    assert set(machine) == {"nodes", "allowed_cpus", "offline_cpus", "memory_limit_bytes", "cpu_quota"}
    assert machine["allowed_cpus"] == CPUS
    for node in machine["nodes"]:
        assert set(node) == {"node", "cpus", "memory_bytes", "free_bytes", "usable", "distances", "replicas"}
        assert node["free_bytes"] <= node["memory_bytes"]
        assert len(node["distances"]) == len(machine["nodes"])
    status = mount_nrfs.status(mount_nrfs())
    assert [replica["cpus"] for replica in said["replicas"]] == [replica["cpus"] for replica in status["replicas"]]


@pytest.mark.parametrize("nodes", [1, 2, 5, 1024])
def test_what_is_printed_can_be_given_back(nodes: int, tmp_path: Path) -> None:
    result = run_nrfs("topology", "--nodes", nodes, "--json")
    path = tmp_path / "map.json"
    path.write_text(result.stdout)
    again = shown("--topology", str(path))
    assert again["replicas"] == json.loads(result.stdout)["replicas"]
    assert len(again["replicas"]) == nodes


def test_people_see_which_replicas_share_a_node() -> None:
    result = run_nrfs("topology", "--nodes", 2 * len(CPUS))
    assert (result.returncode, result.stderr) == (0, "")
    assert "\x1b" not in result.stdout
    lines = result.stdout.splitlines()
    assert lines[0].startswith("this machine: ")
    assert sum("replica " in line for line in lines) == 2 * len(CPUS)
    if lines[0] == "this machine: 1 node":
        assert (
            any(line.endswith("replica 0: CPU 0, shares node 0 with replicas 1-3") for line in lines) or len(CPUS) != 2
        )


def test_a_process_that_is_kept_from_cpus_has_no_replicas_there() -> None:
    said = shown(before=("taskset", "--cpu-list", str(CPUS[-1])))
    assert (said["machine"]["allowed_cpus"], places(said)[0][0]) == ([CPUS[-1]], [CPUS[-1]])
    result = run_nrfs("topology", before=("taskset", "--cpu-list", str(CPUS[-1])))
    assert (f"(this process may use {CPUS[-1]})" in result.stdout) == (len(CPUS) > 1)


# -- maps -------------------------------------------------------------------------------------------------------------


@needs_two_cpus
def test_a_mount_has_the_replicas_of_its_map(mount_nrfs: Mounts, tmp_path: Path) -> None:
    path = written(tmp_path, [{"cpus": [CPUS[1]]}, {"cpus": [CPUS[0]], "physical": None}])
    for options in ({"topology": path}, {"o": f"topology={path}"}):
        mounted = mount_nrfs(**options)
        assert [replica["cpus"] for replica in mount_nrfs.status(mounted)["replicas"]] == [[CPUS[1]], [CPUS[0]]]
        (mounted / "file").write_bytes(b"content")
        for cpu in CPUS[:2]:
            command = ["taskset", "--cpu-list", str(cpu), "cat", str(mounted / "file")]
            assert subprocess.run(command, capture_output=True, check=True).stdout == b"content"
        assert run_nrfs("status", "--verify", mounted).returncode == 0


def test_a_map_can_come_through_a_pipe(mount_nrfs: Mounts) -> None:
    """As of ``--topology <(...)``, whose descriptor the daemon does not have."""
    mounted = mount_nrfs.directory()
    command = [*nrfs_command("mount", mounted, "--size", "64M", "--topology", "/dev/stdin")]
    text = json.dumps({"replicas": [{"cpus": [CPUS[0]]}]})
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [replica["cpus"] for replica in mount_nrfs.status(mounted)["replicas"]] == [[CPUS[0]]]


@pytest.mark.parametrize("channel", ["auto", "device"])
def test_threads_on_cpus_that_a_map_leaves_out_use_some_replica(
    channel: str, mount_nrfs: Mounts, tmp_path: Path
) -> None:
    mounted = mount_nrfs(topology=written(tmp_path, [{"cpus": CPUS[:1]}]), channel=channel, cache="none")
    for cpu in CPUS:
        script = f"echo content > {mounted}/{cpu} && cat {mounted}/{cpu}"
        command = ["taskset", "--cpu-list", str(cpu), "sh", "-c", script]
        assert subprocess.run(command, capture_output=True, check=True).stdout == b"content\n"


BAD_MAPS: list[tuple[object, str]] = [
    ([], "a number of nodes from 1 to 1024 is needed"),
    ({}, "the map has no list 'replicas'"),
    ([[]], "replica 0 is no object"),
    ([{}], "replica 0 has no list 'cpus'"),
    ([{"cpus": [CPUS[0]]}, {"cpus": []}], "replica 1 has no CPU"),
    ([{"cpus": ["0"]}], "replica 0 has a CPU that is no number"),
    ([{"cpus": [True]}], "replica 0 has a CPU that is no number"),
    ([{"cpus": [-1]}], "replica 0 has a CPU that is no number"),
    ([{"cpus": [10**6]}], "there is no CPU 1000000"),
    ([{"cpus": [10**18]}], f"there is no CPU {10**18}"),
    ([{"cpus": [CPUS[0]] * 2}], f"CPU {CPUS[0]} is there twice (replicas can share a CPU if they have no other)"),
    ([{"cpus": [CPUS[0]], "physical": 999}], "there is no node 999"),
    ([{"cpus": [CPUS[0]], "physical": "0"}], "replica 0 is on a node that is no number"),
    ([{"cpus": [CPUS[0]], "phisical": 0}], 'replica 0 has "phisical", which means nothing here'),
]


@pytest.mark.parametrize(("replicas", "reason"), BAD_MAPS)
def test_a_map_that_cannot_be_is_refused_in_one_line(replicas: object, reason: str, tmp_path: Path) -> None:
    path = written(tmp_path, replicas)
    for command in ("topology", "mount /nowhere"):
        result = run_nrfs(*command.split(), "--topology", path)
        said = f"nrfs {command.split()[0]}: --topology {path}: {reason}\n"
        assert (result.returncode, result.stdout, result.stderr) == (2, "", said)


@needs_two_cpus
def test_two_replicas_share_a_cpu_only_where_they_have_no_other(tmp_path: Path) -> None:
    path = written(tmp_path, [{"cpus": CPUS[:2]}, {"cpus": CPUS[:1]}])
    assert "is there twice" in run_nrfs("topology", "--topology", path).stderr
    assert len(shown("--topology", str(written(tmp_path, [{"cpus": CPUS[:1]}] * 2)))["replicas"]) == 2


def test_a_file_that_is_no_map_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "map"
    for content in (b"", b"{", b"\xff\xfe", b"[" * 10**5, b"1" * 10**5, b"null", b" " * (17 << 20)):
        path.write_bytes(content)
        result = run_nrfs("topology", "--topology", path)
        assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1), content[:9]
        assert result.stderr.startswith(f"nrfs topology: --topology {path}: the ")
    result = run_nrfs("topology", "--topology", tmp_path / "none")
    said = f"nrfs topology: {tmp_path}/none: no such file or directory\n"
    assert (result.returncode, result.stdout, result.stderr) == (1, "", said)


def test_a_map_and_a_number_of_nodes_exclude_each_other(tmp_path: Path) -> None:
    path = written(tmp_path, [{"cpus": CPUS}])
    lines = [["topology"], ["mount", "/nowhere"]]
    for line in lines:
        result = run_nrfs(*line, "--nodes", "2", "--topology", path)
        said = f"nrfs {line[0]}: --nodes and --topology: only one of them can be given\n"
        assert (result.returncode, result.stderr) == (2, said)
    assert run_nrfs("mount", "/nowhere", "-o", f"nodes=1,topology={path}").returncode == 2


# -- other machines ---------------------------------------------------------------------------------------------------


@needs_two_cpus
def test_each_node_with_cpus_and_memory_gets_a_replica(tmp_path: Path) -> None:
    machine = with_nodes(tmp_path, [(CPUS[:1], 8 * GIB), (CPUS[1:], 2 * GIB), ([], 64 * GIB)])
    said = shown(before=machine)
    assert places(said) == [(CPUS[:1], 0), (CPUS[1:], 1)]
    assert [node["distances"] for node in said["machine"]["nodes"]] == [[10, 21, 22], [21, 10, 23], [22, 23, 10]]
    assert [node["memory_bytes"] // GIB for node in said["machine"]["nodes"]] == [8, 2, 64]
    lines = run_nrfs("topology", before=machine).stdout.splitlines()
    assert lines[0] == "this machine: 3 nodes"
    assert lines[1].endswith(f"node 0: CPU {CPUS[0]}, 8.0 GiB of memory, 4.0 GiB free")
    assert lines[2].endswith("distance to node 0 10, to node 1 21, to node 2 22")
    assert lines[3].endswith(f"replica 0: CPU {CPUS[0]}")
    assert lines[-2].endswith("node 2: no CPUs, 64.0 GiB of memory, 32.0 GiB free")


@needs_two_cpus
def test_cpus_without_memory_join_the_nearest_node_that_has_some(tmp_path: Path) -> None:
    machine = with_nodes(tmp_path, [(CPUS[:1], 0), ([], 4 * GIB), (CPUS[1:], 4 * GIB)])
    assert places(shown(before=machine)) == [(CPUS[:1], 1), (CPUS[1:], 2)]
    assert "no memory" in run_nrfs("topology", before=machine).stdout


@needs_two_cpus
def test_an_offline_cpu_makes_no_replica(tmp_path: Path) -> None:
    online = tmp_path / "online"
    online.write_text(f"{CPUS[0]}\n")
    nodes = [(CPUS[:1], 8 * GIB), (CPUS[1:], 2 * GIB)]
    machine = with_nodes(tmp_path, nodes, more=f"mount --bind {online} {ONLINE}")
    said = shown(before=machine)
    assert (places(said), said["machine"]["offline_cpus"]) == ([(CPUS[:1], 0)], CPUS[1:])
    result = run_nrfs("topology", before=machine)
    assert f"{CPUS[1]}: offline" in result.stdout or len(CPUS) > 2
    path = written(tmp_path, [{"cpus": CPUS[1:2]}])
    result = run_nrfs("topology", "--topology", path, before=machine)
    assert result.stderr.endswith(f": CPU {CPUS[1]} is offline\n")


@needs_two_cpus
@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="the number of set_mempolicy is not known")
def test_a_node_that_memory_is_not_bound_to_counts_as_one_without(tmp_path: Path) -> None:
    bound = (sys.executable, "-c", BINDING)
    if subprocess.run([*bound, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this process may not bind memory")
    machine = with_nodes(tmp_path, [(CPUS[:1], 8 * GIB), (CPUS[1:], 2 * GIB)])
    assert places(shown(before=(*machine, *bound))) == [(CPUS, 0)]
    assert "(this process may use none)" in run_nrfs("topology", before=(*machine, *bound)).stdout
    path = written(tmp_path, [{"cpus": CPUS, "physical": 1}])
    result = run_nrfs("topology", "--topology", path, before=(*machine, *bound))
    assert result.stderr.endswith(": this process has no memory on node 1\n")


@needs_two_cpus
@pytest.mark.parametrize(
    ("options", "size", "warning"),
    [
        ([], GIB, None),
        (["--size", "2G"], 2 * GIB, None),
        (["--size", "3G"], 3 * GIB, "node 1 has 2.0 GiB of memory, and its replica takes 3.0 GiB when full"),
        (["--size", "4G", "--nodes", "4"], 4 * GIB, None),
    ],
)
def test_the_size_of_a_mount_is_held_against_the_memory_of_each_node(
    options: list[str], size: int, warning: str | None, tmp_path: Path, mount_nrfs: Mounts
) -> None:
    machine = with_nodes(tmp_path, [(CPUS[:1], 64 * GIB), (CPUS[1:], 2 * GIB)])
    path = mount_nrfs.directory()
    mount, *others = (
        " ".join(nrfs_command(*arguments))
        for arguments in (("mount", path, *options), ("status", "--json", path), ("umount", path))
    )
    as_on_machine = f"sh -ec '{SHOW_STATUS.format(tmp_path / 'status')}; exec {mount}'"
    script = " && ".join([as_on_machine, *others])
    done = subprocess.run([*machine, "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 0 <= size - json.loads(done.stdout)["capacity"]["bytes"] < 2 * 4096
    if "--nodes" in options and len(CPUS) == 2:
        warning = "node 1 has 2.0 GiB of memory, and its 2 replicas take 8.0 GiB when full"
    assert warning is None or done.stderr == f"nrfs mount: --size {options[1]}: {warning}\n"
    assert warning is not None or done.stderr == "" or len(CPUS) > 2


@needs_two_cpus
def test_doctor_says_which_node_lacks_the_memory_for_a_full_mount(tmp_path: Path, mount_nrfs: Mounts) -> None:
    nodes = [(CPUS[:1], 64 * GIB), (CPUS[1:], 2 * GIB)]
    for free, part in ((0.75, None), (0.25, ", 1024.0 MiB of it on node 1, which has 512.0 MiB available")):
        tmp_path = tmp_path / str(free)
        tmp_path.mkdir()
        result = run_nrfs("doctor", "--json", before=with_nodes(tmp_path, nodes, free=free))
        findings = {finding["name"]: finding for finding in json.loads(result.stdout)["findings"]}
        said = findings["memory"]
        if part is None:
            assert said["state"] == "ok"
        else:
            assert said["text"].endswith(part)
            assert (said["state"], said["command"]) == ("warning", "nrfs mount --size 256M MOUNTPOINT")
        assert findings["NUMA"]["text"] == ", ".join(
            f"node {number} with CPUs {','.join(map(str, cpus))}" for number, (cpus, _) in enumerate(nodes)
        )


def test_what_a_control_group_grants_is_shown(mount_nrfs: Mounts) -> None:
    files = {"memory.max": "104857600", "memory/memory.limit_in_bytes": "104857600"}
    writes = "; ".join(f"echo {text} > /sys/fs/cgroup/{name}" for name, text in files.items())
    group = in_namespace(f"mount -t tmpfs tmpfs /sys/fs/cgroup; mkdir /sys/fs/cgroup/memory; {writes}")
    assert shown(before=group)["machine"]["memory_limit_bytes"] == 104857600
    assert "the control group grants 100.0 MiB of memory" in run_nrfs("topology", before=group).stdout


# -- the library ------------------------------------------------------------------------------------------------------


def test_every_service_takes_a_topology() -> None:
    topology = nrfs.Topology.emulated(3)
    filesystem = nrfs.Filesystem(nodes=topology, size="16M")
    assert [replica["cpus"] for replica in filesystem.status()["replicas"]] == [node.cpus for node in topology.nodes]
    assert len(nrfs.Scheduler(nodes=topology, cores=6).verify()["digests"]) == 3
    assert len(nrfs.AddressSpace(nodes=topology, cores=3).verify()[0]["digests"]) == 3


def test_a_topology_is_what_its_json_says(tmp_path: Path) -> None:
    topology = nrfs.Topology.emulated(2)
    text = json.dumps(topology.as_dictionary())
    (tmp_path / "map").write_text(text)
    for again in (nrfs.Topology.from_json(text), nrfs.Topology.from_file(tmp_path / "map")):
        assert again.as_dictionary()["replicas"] == topology.as_dictionary()["replicas"]
        assert repr(again) == repr(topology)
    with pytest.raises(FileNotFoundError) as caught:
        nrfs.Topology.from_file(tmp_path / "none")
    assert caught.value.filename == str(tmp_path / "none")


def test_what_cannot_be_is_a_value_error() -> None:
    for nodes in (0, -1, 1025, 2**70):
        with pytest.raises(ValueError, match="number"):
            nrfs.Topology.emulated(nodes)
    for size in ("", "lots", "1001%"):
        with pytest.raises(ValueError, match="bad size"):
            nrfs.Topology.machine().replica_bytes(size)
    with pytest.raises(AttributeError):
        nrfs.Topology.machine().nodes = []  # type: ignore[misc]


def test_a_size_is_divided_among_the_replicas_of_a_node() -> None:
    one, four = nrfs.Topology.emulated(1), nrfs.Topology.emulated(4)
    assert four.replica_bytes("1G") == four.replica_bytes(GIB) == GIB
    if len(one.machine_nodes) == 1:
        assert four.replica_bytes("50%") == one.replica_bytes("50%") // 4
        filesystem = nrfs.Filesystem(nodes=four, size="50%").status()
        assert filesystem["capacity"]["bytes"] == four.replica_bytes("50%") // 4096 * 4096
