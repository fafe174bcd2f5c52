"""``mount -t nrfs`` and lines of fstab: as users write them, beside the same lines with the type tmpfs."""

from __future__ import annotations

import errno
import os
import subprocess
import time

import pytest
from conftest import Mounts, entry_at, wait_until
from support.system import HELPER, HOME, NRFS, TMPFS, System, system

import nrfs
from mount import control
from mount.failure import MountError

__all__ = ["system"]

HARMLESS = (
    "defaults,rw,auto,nofail,_netdev,relatime,strictatime,lazytime,atime,diratime,nodiratime,async,loud,silent,mand,"
    "nomand,iversion,x-systemd.device-timeout=5,X-mount.something,comment=anything,nouser,owner,group,inode64"
)

BY_TYPE = {NRFS: "nrfs", TMPFS: "tmpfs"}


def mount_both(system: System, options: str) -> None:
    """Mounts both by lines of fstab that have the same options."""
    system.write_fstab(*(f"name-of-{kind} {path} {kind} {options} 0 0" for path, kind in BY_TYPE.items()))
    system.done("mount", "--all")


def shown(system: System, path: str, format_: str = "%a %u %g %F", *more: str) -> str:
    return system.done("stat", *more, "--format", format_, path).strip()


def on_both(system: System, script: str, *, user: bool = False) -> tuple[int, str]:
    """Runs a script with each of the mount points as $1. What it says, and its exit status, must be the same."""
    results = [system.run("sh", "-c", script, "sh", path, user=user) for path in BY_TYPE]
    said = [(result.returncode, (result.stdout + result.stderr).replace(TMPFS, NRFS)) for result in results]
    assert said[0] == said[1]
    return said[0]


def refusal(result: subprocess.CompletedProcess[str], status: int) -> str:
    """The one line that says why not."""
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (status, "", 1), result
    return result.stderr.rstrip("\n")


# A line for a tmpfs, with another type


@pytest.mark.parametrize(
    "options",
    [
        "defaults",
        "size=64m",
        "size=5000",
        "size=1G,nr_inodes=1k",
        "nr_blocks=10k",
        "nr_inodes=500",
        "size=1m,size=64K",
        "size=64M,mode=750",
        "mode=4711,uid=1000,gid=2000",
        "uid=nobody",
        "huge=never",
        "mpol=local",
        "mpol=bind:0",
        "mpol=interleave:0,size=64m",
        "mpol=prefer=static:0",
        f"size=64m,{HARMLESS}",
        "ro,nosuid,nodev,noexec,noatime,sync,dirsync",
        "nosymfollow",
    ],
)
def test_a_line_of_a_tmpfs_works_with_another_type(system: System, options: str) -> None:
    mount_both(system, options)
    assert shown(system, NRFS) == shown(system, TMPFS)
    if "size" in options or "nr_blocks" in options:
        assert shown(system, NRFS, "%S %b", "-f") == shown(system, TMPFS, "%S %b", "-f")
    if "nr_inodes" in options:
        assert shown(system, NRFS, "%c %d", "-f") == shown(system, TMPFS, "%c %d", "-f")
    flags = [set(system.findmnt("VFS-OPTIONS", path).split(",")) for path in BY_TYPE]
    assert flags[0] - {"noatime"} == flags[1] - {"noatime", "nodiratime", "relatime"}
    assert "noatime" in flags[0]
    on_both(system, 'echo content > "$1/file" && cat "$1/file"')


def test_a_percentage_is_of_the_memory(system: System) -> None:
    mount_both(system, "size=10%")
    nrfs, tmpfs = (int(shown(system, path, "%b", "-f")) for path in BY_TYPE)
    # Here it is of the memory of each node, and whole pages of it.
    assert 0.5 * tmpfs < nrfs <= 1.01 * tmpfs


def test_zero_is_no_limit(system: System) -> None:
    mount_both(system, "size=0,nr_inodes=0")
    blocks, inodes = map(int, shown(system, NRFS, "%b %c", "-f").split())
    memory = os.sysconf("SC_PHYS_PAGES")
    assert blocks > 4 * memory and inodes > 1 << 40
    on_both(system, 'head -c 3m /dev/zero > "$1/file" && stat -c %s "$1/file"')


@pytest.mark.parametrize("options", ["size=64m,huge=always,mpol=local,noswap", "nr_inodes=1k,mpol=bind:0,huge=advise"])
def test_shared_content_has_tmpfss_options_of_memory(system: System, options: str) -> None:
    system.done("mount", "-t", "nrfs", "-o", f"content=shared,{options}", "any", NRFS)
    system.shell(f"head -c 1m /dev/zero > {NRFS}/file && test $(stat -c %s {NRFS}/file) = 1048576")


def test_a_mount_of_root_has_suid_and_dev_and_lets_others_in(system: System) -> None:
    mount_both(system, "defaults")
    on_both(system, 'cp "$(command -v id)" "$1/id"; chmod 4755 "$1/id"; mknod -m 666 "$1/null" c 1 3')
    assert on_both(system, '"$1/id" --user; echo gone > "$1/null"; echo mine > "$1/file"', user=True) == (0, "0\n")
    assert on_both(system, 'rm "$1/id"', user=True)[0] == 1


def test_without_suid_and_dev_it_has_neither(system: System) -> None:
    mount_both(system, "nosuid,nodev,noexec")
    on_both(system, 'cp "$(command -v id)" "$1/id"; chmod 4755 "$1/id"; mknod -m 666 "$1/null" c 1 3')
    status, said = on_both(system, 'exec 2>&1; "$1/id" || echo no; : > "$1/null"', user=True)
    assert status != 0 and said.count("Permission denied") == 2


# How it shows


def test_the_name_of_the_source_is_the_users(system: System) -> None:
    name = "a name, with\\\\ signs"
    system.done("mount", "-t", "nrfs", name, NRFS)
    assert system.findmnt("SOURCE").replace("\\x5c", "\\") == name
    assert system.done("df", "--output=source", NRFS).splitlines()[1] == name
    assert system.findmnt("FSTYPE") == "fuse.nrfs"


def test_mount_all_mounts_what_is_not_mounted_yet(system: System) -> None:
    system.write_fstab(f"nrfs {NRFS} nrfs size=64m 0 0", f"other {TMPFS} nrfs noauto 0 0")
    for _ in range(2):
        system.done("mount", "--all")
    assert len(system.daemons()) == 1 and system.findmnt("SOURCE", TMPFS) == ""
    system.done("mount", TMPFS)
    assert system.findmnt("SOURCE", TMPFS) == "other"


def test_another_file_than_fstab_can_be_used(system: System) -> None:
    system.shell(f"echo 'nrfs {NRFS} nrfs nr_inodes=77' > /run/lines")
    system.done("mount", "--fstab", "/run/lines", NRFS)
    assert shown(system, NRFS, "%c", "-f") == "77"


def test_the_type_may_be_the_one_that_mounts_show(system: System) -> None:
    system.done("mount", "-t", "fuse.nrfs", "-o", "nodes=2,logs=3,cache=none,channel=device", "any", NRFS)
    assert system.findmnt("SOURCE") == "any"


def test_it_mounts_in_another_namespace(system: System) -> None:
    namespace = "unshare --mount --propagation private sleep 100"
    script = f"""
        {namespace} & sleep 0.5
        mount -N $! -t nrfs nrfs {NRFS}
        nsenter --target $! --mount findmnt --noheadings --output SOURCE --mountpoint {NRFS}
        nsenter --target $! --mount umount {NRFS}
        kill $!"""
    assert system.shell(script).strip() == "nrfs"
    assert system.findmnt("SOURCE") == ""


def test_verbose_says_what_was_done_and_what_was_ignored(system: System) -> None:
    said = system.done("mount", "-v", "-t", "nrfs", "-o", "relatime", "any", NRFS)
    assert f"mount.nrfs: any mounted on {NRFS}. (ignored: relatime)" in said


# Its end


def test_umount_leaves_nothing(system: System) -> None:
    for _ in range(3):
        system.done("mount", "-t", "nrfs", "nrfs", NRFS)
        system.shell(f"head -c 1m /dev/urandom > {NRFS}/file")
        assert len(system.daemons()) == 1
        system.done("umount", NRFS)
        wait_until(lambda: not system.daemons(), "the daemon's end")
        assert system.shell("ls -A /run/nrfs") == ""


def test_a_mount_in_use_is_busy_for_umount(system: System) -> None:
    mount_both(system, "defaults")
    status, said = on_both(system, 'cd "$1" && umount "$1"')
    assert status == 32 and "target is busy" in said
    system.done("umount", "--lazy", NRFS)
    wait_until(lambda: not system.daemons(), "the daemon's end")


# Remounts


@pytest.fixture(params=["replicated", "shared"])
def both(system: System, request: pytest.FixtureRequest) -> System:
    """Both mounted with 64 MiB and 1000 inodes."""
    mount_both(system, "x-both,size=64m,nr_inodes=1000,noauto")
    system.done("mount", TMPFS)
    system.done("mount", "-o", f"content={request.param}", NRFS)
    return system


SPACE = 'stat -f -c "%b %c" "$1"'


@pytest.mark.parametrize("is_in_fstab", [True, False])
def test_a_remount_changes_the_limits(both: System, is_in_fstab: bool) -> None:
    if not is_in_fstab:
        both.write_fstab()
    on_both(both, 'head -c 20m /dev/urandom > "$1/file"; mkdir "$1/directory"')
    before = both.shell(f"cksum {NRFS}/file")
    for change in ("size=128m", "size=32m,nr_inodes=50", "nr_inodes=2m", "nr_blocks=6k", "size=21000000"):
        assert on_both(both, f'mount -o remount,{change} "$1" && {SPACE}')[0] == 0, change
    assert both.shell(f"cksum {NRFS}/file") == before
    # 20 MiB are used, and 3 inodes.
    for change in ("size=19m", "nr_inodes=2", "size=64m,nr_inodes=2", "size=1m,nr_inodes=5k"):
        for path in BY_TYPE:
            result = both.run("mount", "-o", f"remount,{change}", path)
            assert result.returncode == 32, (change, path)
        assert "mount.fuse.nrfs: " in both.run("mount", "-o", f"remount,{change}", NRFS).stderr or is_in_fstab
        on_both(both, SPACE)
    assert on_both(both, 'head -c 10m /dev/zero > "$1/more"')[0] != 0
    on_both(
        both, 'rm "$1/more"; mount -o remount,size=64m "$1"; head -c 10m /dev/zero > "$1/more"; stat -c %s "$1/more"'
    )


def test_a_smaller_size_is_refused_for_what_the_kernel_has_only_collected(mount_nrfs: Mounts) -> None:
    """The daemon does not know of it yet. It is asked directly: until mount(8) comes to it, the kernel has written."""
    path = mount_nrfs(size="1G")
    entry = entry_at(path)
    assert entry is not None
    data = os.urandom(8 << 20)
    with (path / "data").open("wb", buffering=0) as file:  # When it is closed, the kernel writes what it has collected.
        assert file.write(data) == len(data)
        with pytest.raises(MountError, match="the size is too small for what is in use"):
            control.ask(entry, "remount", 60, size=4 << 20, inodes=None, fixed={})
        os.fsync(file.fileno())
    control.ask(entry, "remount", 60, size=9 << 20, inodes=None, fixed={})
    assert (path / "data").read_bytes() == data


def test_a_smaller_size_keeps_its_promise_to_who_writes_meanwhile(both: System) -> None:
    both.done("mount", "-o", "remount,size=1g", NRFS)
    writing = subprocess.Popen(
        both.command("sh", "-c", f"dd if=/dev/zero of={NRFS}/data bs=100k conv=fsync 2>&1 | tail -n 1"),
        stdout=subprocess.PIPE,
        text=True,
    )
    time.sleep(0.05)
    wait_until(lambda: both.run("mount", "-o", "remount,size=100m", NRFS).returncode in (0, 32), "the remount")
    said, _ = writing.communicate(timeout=60)
    written, size = int(said.split()[0]), int(shown(both, f"{NRFS}/data", "%s"))
    assert written == size


def test_a_remount_changes_the_flags(both: System) -> None:
    for change in ("ro", "rw,noexec", "nosuid,nodev,sync", "exec,suid,dev"):
        on_both(both, f'mount -o remount,{change} "$1" && touch "$1/file"')
        nrfs, tmpfs = (set(both.findmnt("VFS-OPTIONS", path).split(",")) for path in BY_TYPE)
        assert nrfs - {"noatime"} == tmpfs - {"relatime"}, change
        assert "noatime" in nrfs


def test_what_is_open_for_writing_keeps_it_from_becoming_read_only_and_nothing_changes(both: System) -> None:
    for path in BY_TYPE:
        result = both.run("sh", "-c", f"exec 3> {path}/file; mount -o remount,ro,size=128m {path}")
        assert (result.returncode, "busy" in result.stderr) == (32, True), result
    on_both(both, f'{SPACE}; touch "$1/more"')


def test_what_cannot_change_is_refused_and_may_be_said_again(system: System) -> None:
    options = "size=64m,nodes=2,logs=3,cache=none,mode=700"
    system.write_fstab(f"nrfs {NRFS} nrfs {options} 0 0")
    system.done("mount", NRFS)
    system.done("mount", "-o", "remount,ro", NRFS)
    for change in ("nodes=1", "logs=2", "cache=writeback", "content=shared"):
        line = refusal(system.run("mount", "-o", f"remount,size=1g,{change}", NRFS), 32)
        assert line == f"mount.nrfs: {NRFS}: {change.partition('=')[0]}: a remount cannot change it"
    assert shown(system, NRFS, "%b", "-f") == "16384"


def test_only_what_is_mounted_can_be_remounted(system: System) -> None:
    line = refusal(system.run(HELPER, "nrfs", NRFS, "-o", "remount,size=1g"), 32)
    assert line == f"mount.nrfs: {NRFS}: not mounted"
    system.done("mount", "-t", "tmpfs", "any", TMPFS)
    line = refusal(system.run(HELPER, "nrfs", TMPFS, "-o", "remount,size=1g"), 32)
    assert line == f"mount.nrfs: {TMPFS}: not an nrfs mount but tmpfs"


def test_the_limits_of_a_file_system_without_a_mount_change_likewise() -> None:
    filesystem = nrfs.Filesystem(size="1M", inodes=10)
    file = filesystem.mknod(nrfs.ROOT, b"file", 0o644)
    filesystem.write(file.ino, 0, bytes(8192))
    for change in ({"size": 4096}, {"size": 0}, {"inodes": 1}, {"size": "2M", "inodes": 1}):
        with pytest.raises(OSError, match=r"too (small|few)") as refused:
            filesystem.resize(**change)
        assert refused.value.errno == errno.EINVAL
    assert (filesystem.capacity().blocks, filesystem.capacity().inodes) == (256, 10)
    filesystem.resize(size="2M")
    filesystem.resize(inodes=2)
    assert (filesystem.capacity().blocks, filesystem.capacity().inodes) == (512, 2)
    with pytest.raises(OSError, match="No space"):
        filesystem.mknod(nrfs.ROOT, b"more", 0o644)
    with pytest.raises(ValueError, match="bad size"):
        filesystem.resize(size="much")


# What it refuses


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("sise=1G", "-o sise=1G: unknown option (size?)"),
        ("nr_inode=5", "-o nr_inode=5: unknown option (nr_inodes?)"),
        ("noexecute", "-o noexecute: unknown option (noexec?)"),
        ("frobnicate", "-o frobnicate: unknown option"),
        ("mode", "-o mode: unknown option (mode=... has a value)"),
        ("noswap=1", "-o noswap=1: it has no value"),
        ("mode=999", "-o mode=999: an octal number is wanted"),
        ("size=lots", "bad size 'lots'"),
        ("size=10x", "bad size '10x'"),
        ("nr_blocks=10%", "-o nr_blocks=10%: a number is wanted, with or without k, m, g, t behind it"),
        ("nr_inodes=some", "-o nr_inodes=some: a number is wanted, with or without k, m, g, t behind it"),
        ("huge=very", "-o huge=very: it is one of never, always, within_size, advise"),
        ("mpol=near", "-o mpol=near: it is one of default, local, prefer:NODE, bind:NODES, interleave, "),
        ("usrquota", "-o usrquota: there are no quotas"),
        ("grpquota_block_hardlimit=1m", "there are no quotas"),
        ("casefold", "-o casefold: names are bytes, and compared as such"),
        ("allow_root", "-o allow_root: allow_other lets all in, by the files' modes"),
        ("fd=3", "-o fd=3: nrfs sets it itself"),
        ("noswap", "noswap: it is for content=shared; "),
        ("nodes=many", "-o nodes=many: a positive whole number is wanted"),
        ("content=some", "-o content=some: it is one of replicated, shared"),
    ],
)
def test_an_option_that_is_not_for_nrfs_is_refused_in_one_line(system: System, options: str, reason: str) -> None:
    line = refusal(system.run("mount", "-t", "nrfs", "-o", options, "nrfs", NRFS), 1)
    assert line.startswith("mount.nrfs: ") and reason in line
    assert system.findmnt("SOURCE") == "" and not system.daemons()


def test_a_sloppy_mount_ignores_what_nobody_knows(system: System) -> None:
    system.done("mount", "-s", "-t", "nrfs", "-o", "frobnicate,size=64m,sise=3", "nrfs", NRFS)
    assert shown(system, NRFS, "%b", "-f") == "16384"


def test_a_fake_mount_checks_and_mounts_nothing(system: System) -> None:
    system.done("mount", "-f", "-t", "nrfs", "-o", "size=64m", "nrfs", NRFS)
    refusal(system.run(HELPER, "nrfs", NRFS, "-f", "-o", "sise=64m"), 1)
    assert system.findmnt("SOURCE") == "" and not system.daemons()


@pytest.mark.parametrize("arguments", [[], ["nrfs"], ["nrfs", NRFS, "--frobnicate"], ["nrfs", NRFS, "-t", "tmpfs"]])
def test_wrong_usage_has_its_status(system: System, arguments: list[str]) -> None:
    assert refusal(system.run(HELPER, *arguments), 1).startswith("mount.nrfs: ")


def test_the_mount_point_must_be_a_free_directory(system: System) -> None:
    line = refusal(system.run("mount", "-t", "nrfs", "nrfs", "/mnt/missing"), 32)
    assert line == "mount.nrfs: /mnt/missing: no such directory"
    system.shell("touch /mnt/file")
    assert refusal(system.run("mount", "-t", "nrfs", "nrfs", "/mnt/file"), 32).endswith("/mnt/file: not a directory")
    system.done("mount", "-t", "nrfs", "nrfs", NRFS)
    line = refusal(system.run("mount", "-t", "nrfs", "other", NRFS), 32)
    assert line.endswith(f"{NRFS}: nrfs is mounted here already (nrfs umount ends it)")
    assert system.findmnt("SOURCE") == "nrfs"


def test_an_interrupted_mount_has_its_status_and_leaves_nothing(system: System) -> None:
    """Another mount has the lock meanwhile, so that this one is not too quick."""
    script = f"""
        mkdir -m 700 /run/nrfs
        flock /run/nrfs sleep 8 > /dev/null 2>&1 & sleep 0.5
        {HELPER} nrfs {NRFS} & sleep 2
        kill $!
        wait $!"""
    assert refusal(system.run("sh", "-c", script), 8) == "mount.nrfs: interrupted, nothing is mounted"
    assert system.findmnt("SOURCE") == "" and not system.daemons()


def test_without_the_device_it_fails_as_mounts_do(system: System) -> None:
    system.shell("umount /dev/fuse; mount --bind /dev/null /dev/fuse")
    assert refusal(system.run("mount", "-t", "nrfs", "nrfs", NRFS), 32).startswith(f"mount.nrfs: {NRFS}: ")


# An ordinary user


def test_a_user_mounts_and_unmounts_by_a_line_that_lets_him(system: System) -> None:
    system.write_fstab(f"his {HOME} nrfs size=64m,user,noauto 0 0", f"roots {NRFS} nrfs defaults 0 0")
    system.done("mount", HOME, user=True)
    assert system.findmnt("SOURCE", HOME) == "his"
    assert {"nosuid", "nodev", "noexec"} <= set(system.findmnt("VFS-OPTIONS", HOME).split(","))
    system.shell(f'echo mine > {HOME}/file; test "$(stat -f -c %b {HOME})" = 16384', user=True)
    assert system.run("ls", HOME).returncode != 0, "root is let in"
    assert system.run("mount", NRFS, user=True).returncode == 32
    system.done("umount", HOME, user=True)
    wait_until(lambda: not system.daemons(), "the daemon's end")


def test_a_user_cannot_unmount_what_another_has_mounted(system: System) -> None:
    system.write_fstab(f"nrfs {NRFS} nrfs user,noauto 0 0")
    system.done("mount", NRFS)
    assert system.run("umount", NRFS, user=True).returncode == 32
    assert system.run("mount", "-o", "remount,size=1g", NRFS, user=True).returncode != 0
    assert "only root may remount" in system.run(HELPER, "nrfs", NRFS, "-o", "remount", user=True).stderr
    assert system.findmnt("SOURCE") == "nrfs"


def test_root_does_not_give_a_users_mount_suid_by_a_remount(system: System) -> None:
    system.write_fstab(f"his {HOME} nrfs user,noauto 0 0")
    system.done("mount", HOME, user=True)
    system.write_fstab()
    system.done(HELPER, "his", HOME, "-o", "remount,suid,dev")
    assert {"nosuid", "nodev"} <= set(system.findmnt("VFS-OPTIONS", HOME).split(","))
    system.done("umount", HOME)
