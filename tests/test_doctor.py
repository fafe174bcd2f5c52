"""``nrfs doctor``: what it finds on a machine that lacks one thing or another, each really taken away."""

from __future__ import annotations

import errno
import json
import os
import pty
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    REPOSITORY,
    Mounts,
    User,
    alone,
    daemon_of,
    in_namespace,
    is_alive,
    nrfs_command,
    ownerless_control_files,
    run_nrfs,
    shown_at,
    wait_until,
)
from support.without_call import IO_URING_SETUP, without_call

import nrfs
from mount import mountinfo
from mount.channel import RING_PARAMETER

FUSERMOUNT = shutil.which("fusermount3")
needs_parameter = pytest.mark.skipif(not RING_PARAMETER.exists(), reason="this kernel has no ring to switch on")
WITHOUT_FUSERMOUNT = f"mount --bind /dev/null {FUSERMOUNT}"


def examine(*before: str) -> tuple[int, dict[str, Any], dict[str, dict[str, Any]]]:
    """The exit status, all that is said, and of that the findings by name."""
    result = run_nrfs("doctor", "--json", before=before)
    assert result.stderr == ""
    said = json.loads(result.stdout)
    return result.returncode, said, {finding["name"]: finding for finding in said["findings"]}


def with_ring_parameter(tmp_path: Path, text: str, *, more: str = "true") -> tuple[str, ...]:
    parameter = tmp_path / "parameter"
    parameter.write_text(f"{text}\n")
    return in_namespace(f"mount --bind {parameter} {RING_PARAMETER}; {more}")


def at_a_terminal(*arguments: str, **environment: str) -> bytes:
    """What a command shows there."""
    ours, theirs = pty.openpty()
    variables = {**{name: value for name, value in os.environ.items() if name != "NO_COLOR"}, **environment}
    process = subprocess.Popen(nrfs_command(*arguments), cwd=REPOSITORY, stdout=theirs, env=variables)
    os.close(theirs)
    shown = shown_at(ours)
    assert process.wait() == 0
    return shown


def test_programs_get_every_finding_in_one_shape(mount_nrfs: Mounts) -> None:
    status, said, findings = examine()
    assert (status, set(said), said["can_mount"]) == (0, {"can_mount", "findings", "plan"}, True)
    assert len(findings) == len(said["findings"]) > 10
    for finding in said["findings"]:
        assert set(finding) == {"name", "state", "text", "command"}
        assert finding["state"] in ("ok", "warning") and finding["text"]
    assert f"nrfs {nrfs.__version__}, pyfuse3" in findings["Python"]["text"]
    assert "the kernel speaks FUSE 7." in findings["mount"]["text"]


def test_the_plan_is_what_a_mount_comes_to(mount_nrfs: Mounts) -> None:
    _, said, _ = examine()
    status = mount_nrfs.status(mount_nrfs(size=None))
    assert said["plan"] == {
        "channel": status["channel"],
        "channel_reason": status["channel_reason"],
        "nodes": [replica["cpus"] for replica in status["replicas"]],
        "logs": len(status["logs"]) - 1,
        "size": status["capacity"]["bytes"],
        "inodes": status["capacity"]["inodes"],
        "cache": status["cache"],
    }


@alone  # It looks at all mounts of the machine.
def test_looking_leaves_nothing(mount_nrfs: Mounts) -> None:
    before = ownerless_control_files(), [entry for entry in mountinfo.entries() if not entry.is_ours]
    assert run_nrfs("doctor").returncode == 0
    after = ownerless_control_files(), [entry for entry in mountinfo.entries() if not entry.is_ours]
    assert after == before
    assert not [entry for entry in mountinfo.entries() if "nrfs-doctor" in entry.mountpoint]


def test_an_ordinary_user_is_looked_at_as_such(user: User) -> None:
    status, _, findings = examine(*user.before)
    assert status == 0
    assert findings["rights"]["text"].startswith("an ordinary user's")


def test_content_that_cannot_be_shared_is_refused_for_the_reason_told(user: User) -> None:
    _, _, findings = examine(*user.before)
    told = findings["content"]
    assert told["state"] == "warning"
    refused = run_nrfs("mount", "--content", "shared", user.home, before=user.before)
    assert refused.stderr.strip().endswith(told["text"])


def test_people_get_one_aligned_line_for_each_finding(mount_nrfs: Mounts) -> None:
    result = run_nrfs("doctor")
    assert (result.returncode, result.stderr) == (0, "")
    findings, plan = result.stdout.split("\n\n")
    _, said, _ = examine()
    column = max(len(finding["name"]) for finding in said["findings"]) + len("warning") + 4
    for line, finding in zip(findings.splitlines(), said["findings"], strict=True):
        assert line.split()[0] == finding["state"]
        assert line[column - 1] == " " and line[column] != " "
    assert plan.startswith("nrfs mounts here with\n")


def test_colours_are_for_terminals_whose_user_wants_them(mount_nrfs: Mounts) -> None:
    assert "\x1b" not in run_nrfs("doctor").stdout
    assert b"\x1b[32m" in at_a_terminal("doctor", TERM="xterm")
    assert b"\x1b" not in at_a_terminal("doctor", TERM="xterm", NO_COLOR="1")


def test_without_the_device_nrfs_cannot_mount(mount_nrfs: Mounts) -> None:
    status, said, findings = examine(*in_namespace("mount -t tmpfs tmpfs /dev; mknod /dev/null c 1 3"))
    assert (status, said["can_mount"]) == (1, False)
    assert findings["/dev/fuse"]["state"] == findings["mount"]["state"] == "missing"
    assert findings["/dev/fuse"]["command"] == "modprobe fuse"


def test_a_device_that_users_may_not_open_is_opened_by_root(user: User) -> None:
    Path("/dev/fuse").chmod(0o600)
    status, _, findings = examine(*user.before)
    assert (status, findings["/dev/fuse"]["command"]) == (1, "sudo chmod 666 /dev/fuse")


def test_without_fusermount3_only_root_mounts(user: User) -> None:
    status, _, findings = examine(*in_namespace(WITHOUT_FUSERMOUNT))
    assert (status, findings["fusermount3"]["state"]) == (0, "warning")
    assert findings["fusermount3"]["command"].endswith(" install fuse3")
    status, _, findings = examine(*in_namespace(WITHOUT_FUSERMOUNT), *user.before)
    assert (status, findings["fusermount3"]["state"]) == (1, "missing")
    assert findings["fusermount3"]["command"].startswith("sudo ")


def test_fusermount3_that_is_not_set_user_id_is_as_good_as_none(user: User, tmp_path: Path) -> None:
    copy = tmp_path / "fusermount3"
    shutil.copyfile(str(FUSERMOUNT), copy)
    copy.chmod(0o755)
    status, _, findings = examine(*in_namespace(f"mount --bind {copy} {FUSERMOUNT}"), *user.before)
    assert (status, findings["fusermount3"]["command"]) == (1, f"sudo chmod u+s {FUSERMOUNT}")
    assert findings["mount"]["state"] == "missing"
    status, _, findings = examine(*user.before, "setpriv", "--no-new-privs")
    assert status == 1 and "no_new_privs" in findings["fusermount3"]["text"]


def test_root_without_the_right_to_mount_is_told_so(mount_nrfs: Mounts) -> None:
    status, _, findings = examine("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    assert status == 1
    assert "CAP_SYS_ADMIN" in findings["rights"]["text"]
    assert findings["mount"]["text"] == "no right to mount (CAP_SYS_ADMIN is missing)"


@needs_parameter
def test_a_ring_that_is_off_costs_the_ring_and_is_switched_on_by_one_command(
    mount_nrfs: Mounts, tmp_path: Path
) -> None:
    off = with_ring_parameter(tmp_path, "N")
    status, said, findings = examine(*off)
    assert (status, findings["ring"]["state"], said["plan"]["channel"]) == (0, "warning", "device")
    command = findings["ring"]["command"]
    assert command == f"echo Y > {RING_PARAMETER}"
    assert said["plan"]["channel_reason"].endswith(command)
    _, _, findings = examine(*with_ring_parameter(tmp_path, "N", more=command))
    assert findings["ring"]["state"] == "ok"


@needs_parameter
def test_a_ring_that_cannot_be_switched_on_from_here_gets_no_command(mount_nrfs: Mounts, tmp_path: Path) -> None:
    remount = f"mount -o remount,bind,ro {RING_PARAMETER}"
    _, _, findings = examine(*with_ring_parameter(tmp_path, "N", more=remount))
    assert (findings["ring"]["state"], findings["ring"]["command"]) == ("warning", None)
    assert "cannot be written" in findings["ring"]["text"]


def test_a_kernel_without_the_ring_is_told_from_one_where_it_is_off(mount_nrfs: Mounts) -> None:
    status, said, findings = examine(*in_namespace(f"mount -t tmpfs tmpfs {RING_PARAMETER.parent}"))
    assert (status, said["plan"]["channel"]) == (0, "device")
    assert "Linux 6.14" in findings["ring"]["text"]


def test_who_may_not_have_an_io_uring_gets_the_device(mount_nrfs: Mounts) -> None:
    status, said, findings = examine(*without_call(IO_URING_SETUP, errno.EPERM))
    assert (status, findings["io_uring"]["state"], said["plan"]["channel"]) == (0, "warning", "device")
    assert "seccomp" in findings["io_uring"]["text"]


@pytest.mark.parametrize("permitted", [False, True])
def test_letting_others_in_is_roots_to_permit(user: User, tmp_path: Path, permitted: bool) -> None:
    configuration = tmp_path / "fuse.conf"
    configuration.write_text("user_allow_other\n" if permitted else "#user_allow_other\n")
    bind = f"mount --bind {configuration} /etc/fuse.conf"
    _, _, findings = examine(*in_namespace(bind), *user.before)
    expected = ("ok", None) if permitted else ("warning", "sudo sh -c 'echo user_allow_other >> /etc/fuse.conf'")
    assert (findings["allow_other"]["state"], findings["allow_other"]["command"]) == expected


@pytest.mark.parametrize(("limit", "state"), [(0, "warning"), (20, "ok")])
def test_an_ordinary_users_workers_yield_where_the_limits_let_them_come_back(
    user: User, limit: int, state: str
) -> None:
    raised = ("prlimit", f"--nice={limit}:{limit}")
    if subprocess.run([*raised, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("root may not raise limits here")
    status, _, findings = examine(*raised, *user.before)
    assert (status, findings["scheduling"]["state"]) == (0, state)
    assert ("limits.conf" in (findings["scheduling"]["command"] or "")) == (state == "warning")


def test_a_process_that_is_kept_from_cpus_is_told_so(mount_nrfs: Mounts) -> None:
    cpu = min(os.sched_getaffinity(0))
    status, said, findings = examine("taskset", "--cpu-list", str(cpu))
    assert (status, said["plan"]["nodes"]) == (0, [[cpu]])
    assert findings["CPUs"]["text"].startswith(f"{cpu} of ")


def test_too_few_open_files_are_too_few_to_mount(mount_nrfs: Mounts) -> None:
    powerless = ("setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource")
    few = ("sh", "-c", 'ulimit -n 16; exec "$@"', "sh", *powerless)
    status, _, findings = examine(*few)
    assert (status, findings["open files"]["state"]) == (1, "missing")
    assert run_nrfs("mount", mount_nrfs.directory(), before=few).returncode == 1


def test_what_a_control_group_grants_counts(mount_nrfs: Mounts) -> None:
    files = {
        "memory.max": "104857600",
        "memory/memory.limit_in_bytes": "104857600",
        "cpu.max": "50000 100000",
        "cpu/cpu.cfs_quota_us": "50000",
        "cpu/cpu.cfs_period_us": "100000",
    }
    writes = "; ".join(f"echo {text} > /sys/fs/cgroup/{name}" for name, text in files.items())
    group = in_namespace(
        f"mount -t tmpfs tmpfs /sys/fs/cgroup; mkdir /sys/fs/cgroup/memory /sys/fs/cgroup/cpu; {writes}"
    )
    status, said, findings = examine(*group)
    assert status == 0
    assert findings["CPUs"]["text"].endswith("but a control group grants the time of 0.5")
    assert "100.0 MiB granted by the control group" in findings["memory"]["text"]
    megabytes = 50 // len(said["plan"]["nodes"])
    assert findings["memory"]["command"] == f"nrfs mount --size {megabytes}M MOUNTPOINT"


def test_a_dead_daemons_mount_is_found_and_the_command_takes_it_away(mount_nrfs: Mounts) -> None:
    path = mount_nrfs()
    process = daemon_of(path)
    os.kill(process, signal.SIGKILL)
    wait_until(lambda: not is_alive(process), "the daemon's death")
    status, _, findings = examine()
    assert (status, findings["mounts"]["state"]) == (0, "warning")
    assert f"nrfs umount {path}" in findings["mounts"]["command"].split("; ")
    mount_nrfs.unmount(path)
    assert str(path) not in examine()[2]["mounts"]["text"]


def test_the_version_is_told() -> None:
    assert run_nrfs("--version").stdout == f"nrfs {nrfs.__version__}\n"
