"""``nrfs bench nr`` and ``nrfs bench sched``, as a user runs them; and the cores of a run."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path

import pytest
from conftest import run_nrfs

import nrfs
from workloads import cores
from workloads.cores import Cores


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_nrfs("bench", *arguments, seconds=600)


@pytest.mark.parametrize("structure", ["hashmap", "stack", "queue", "scheduler"])
def test_every_way_to_share_a_structure_is_measured(structure: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    workload = ["sched"] if structure == "scheduler" else ["nr", "--structure", structure]
    short = ["--rounds", "1", "--milliseconds", "5", "--threads", "1,2", "--write-ratio", "0,50"]
    done = bench(*workload, *short, "--json", str(report))
    assert (done.returncode, done.stderr) == (0, "")
    summary = json.loads(report.read_text())["summary"]
    contenders = {each["contender"] for each in summary}
    others = {"mutex", "rwlock", "multikernel", "node-replication 1", "node-replication 2"}
    assert contenders == {"nr 1", "nr 2"} | others | ({"sharded"} if structure == "hashmap" else set())
    assert len(summary) == 4 * len(contenders)
    assert all(each["operations_per_second"] > 0 for each in summary)


def test_what_cannot_be_compared_is_said_in_one_line(tmp_path: Path) -> None:
    for arguments, status in [
        (("nr", "--structure", "stack", "--against", "sharded"), 2),
        (("nr", "--json", str(tmp_path)), 1),
        (("nr", "--write-ratio", "101"), 2),
        (("nr", "--threads", "0"), 2),
        (("sched", "--against", "sharded"), 2),
    ]:
        done = bench(*arguments)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (status, "", 1)


def test_a_thread_of_a_run_follows_the_cores_that_the_scheduler_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("needs two CPUs")
    online = tmp_path / "online"
    online.write_text(",".join(map(str, allowed)))
    monkeypatch.setattr(cores, "_ONLINE", online)
    seen: list[set[int]] = []

    def work() -> None:
        run.join()
        seen.append(os.sched_getaffinity(0))
        online.write_text(",".join(str(cpu) for cpu in allowed - seen[0]))
        run.follow()
        seen.append(os.sched_getaffinity(0))
        run.leave()

    scheduler = nrfs.Scheduler()
    with Cores(1, scheduler) as run:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        first, second = seen
        assert len(first) == len(second) == 1
        assert first.isdisjoint(second)
        assert set(run.held) == second
    assert all(core.process is None for core in scheduler.cores())
    assert os.sched_getaffinity(0) == allowed
