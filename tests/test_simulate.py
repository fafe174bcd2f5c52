"""``nrfs simulate`` and ``nrfs bench calibrate``: what must hold in the model whatever a machine's costs are."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from workloads.commands.simulate import WAYS as SIMULATED
from workloads.failure import WorkloadError
from workloads.simulation.check import Turn, alike
from workloads.simulation.costs import DEFAULT, MEANINGS, Costs
from workloads.simulation.engine import Clock, Core, Line, Program
from workloads.simulation.multikernel import Multikernel
from workloads.simulation.replication import Replicated
from workloads.simulation.run import WAYS, Result, Scenario, simulate


def nrfs(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nrfs.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def simulated(way: str, nodes: int, cores: int, write_ratio: int, *, operations: int = 3000, **more: int) -> Result:
    return simulate(Scenario(way, nodes, cores, write_ratio, operations=operations, **more), DEFAULT)


def rate(way: str, nodes: int, cores: int, write_ratio: int, **more: int) -> float:
    return simulated(way, nodes, cores, write_ratio, **more).operations_per_second


def test_every_way_of_the_command_line_is_simulated() -> None:
    assert set(WAYS) == set(SIMULATED)


@pytest.mark.parametrize("way", SIMULATED)
def test_the_same_seed_gives_the_same_result_and_another_seed_another(way: str) -> None:
    first, second, other = (simulated(way, 2, 2, 20, operations=500, seed=seed) for seed in (1, 1, 2))
    assert first.operations_per_second == second.operations_per_second
    assert np.array_equal(first.latencies, second.latencies)
    assert not np.array_equal(first.latencies, other.latencies)


@pytest.mark.parametrize("write_ratio", [0, 10, 100])
@pytest.mark.parametrize("way", SIMULATED)
def test_every_operation_that_is_issued_completes(way: str, write_ratio: int) -> None:
    result = simulated(way, 2, 3, write_ratio, operations=600, steps=10_000_000)
    assert result.issued == result.completed == 600


@pytest.mark.parametrize("way", SIMULATED)
def test_as_many_operations_are_under_way_as_there_are_threads(way: str) -> None:
    """Little's law: throughput times mean latency."""
    result = simulated(way, 1, 4, 10)
    under_way = result.operations_per_second * float(result.latencies.mean()) / 1e9
    assert under_way == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize(("logs", "log_entries"), [(1, 512), (3, 512), (1, 8)])
def test_every_replica_applies_each_log_in_its_order(logs: int, log_entries: int) -> None:
    way = simulated("nr", 3, 3, 60, logs=logs, log_entries=log_entries, steps=10_000_000).way
    assert isinstance(way, Replicated)
    appended = [operation for log in way.logs for operation in log.operations]
    assert len(appended) == len(set(appended)) > 0
    for log, partitions in zip(way.logs, way.partitions, strict=True):
        for partition in partitions:
            assert partition.applied == log.operations[: partition.local_tail]
            assert len(log.operations) - partition.local_tail <= log_entries


def test_every_core_of_a_multikernel_makes_every_change() -> None:
    way = simulated("multikernel", 1, 4, 50, operations=400, steps=10_000_000).way
    assert isinstance(way, Multikernel)
    # The last change may be on its way to cores that are done.
    applied = [member.applied for member in way.members]
    assert max(applied) - min(applied) <= 1


def test_reads_by_nr_scale_with_cores_and_with_nodes() -> None:
    alone = rate("nr", 1, 1, 0)
    assert rate("nr", 1, 16, 0) > 14 * alone
    assert rate("nr", 4, 16, 0) > 50 * alone


def test_writes_by_nr_level_off() -> None:
    rates = [rate("nr", 2, cores, 100) for cores in (4, 8, 16)]
    assert max(rates) < 2 * min(rates)


def test_parallel_logs_lift_writes_by_nr() -> None:
    one, two, eight = (rate("nr", 2, 8, 100, logs=logs) for logs in (1, 2, 8))
    assert 1.1 * one < two
    assert 1.2 * two < eight


def test_locks_do_not_scale_and_nr_does_where_most_are_reads() -> None:
    for way in ("mutex", "rwlock"):
        assert rate(way, 2, 8, 10) < 2 * rate(way, 1, 1, 10)
        assert rate("nr", 2, 8, 10) > rate(way, 2, 8, 10)


def test_a_combiner_takes_no_more_than_it_may() -> None:
    result = simulated("nr", 1, 8, 100, batch=3)
    assert isinstance(result.way, Replicated)
    sizes = [size for partitions in result.way.partitions for each in partitions for size in each.batches]
    assert max(sizes) == 3
    assert result.batch < simulated("nr", 1, 8, 100).batch


def test_dear_transfers_between_nodes_slow_what_shares_lines_across_nodes() -> None:
    dear = replace(DEFAULT, remote=10 * DEFAULT.remote)
    for way, write_ratio in (("nr", 50), ("rwlock", 0), ("sharded", 50)):
        scenario = Scenario(way, 2, 4, write_ratio, operations=3000)
        assert simulate(scenario, dear).operations_per_second < simulate(scenario, DEFAULT).operations_per_second
    reads = Scenario("nr", 2, 4, 0, operations=3000)
    assert simulate(reads, dear).operations_per_second == simulate(reads, DEFAULT).operations_per_second


def test_only_turns_with_two_cores_that_stayed_at_the_most_common_distance_count() -> None:
    distances = [(38, 40), (39, 38), (7, 7), (7, 38), (38, 130), (130, 131), (41, 40)]
    turns = [Turn(({"line-take": before}, {"line-take": after}), {}) for before, after in distances]
    assert [turn.distances for turn in alike(turns)] == [(38, 40), (39, 38), (41, 40)]
    with pytest.raises(WorkloadError):
        alike(turns[2:5])


def test_a_core_makes_as_many_atomic_operations_in_a_row_as_a_burst_has() -> None:
    """Two cores add to one number, as the calibration does: the simulation gives back what was measured."""
    clock, line, owners = Clock(), Line(), []
    measured = dict.fromkeys(MEANINGS, 50.0) | {"line-take": 40, "line-turn": 30, "atomic": 3, "line-burst": 2.5}
    costs = Costs.measured(measured | {"interruption": 1e-9, "interruption-every": 1e9})

    def thread(core: Core) -> Program[None]:
        for _ in range(5000):
            yield from core.exchange(line)
            owners.append(core.number)

    for number in range(2):
        clock.start(thread(Core(number, 2, clock, costs, slowdown=1.0, seed=1)))
    clock.run(10**6)
    turns = sum(one != other for one, other in pairwise(owners))
    assert len(owners) / turns == pytest.approx(2.5, rel=0.15)
    assert clock.now / turns == pytest.approx(30, rel=0.15)


def test_an_interruption_takes_its_time_once() -> None:
    costs = replace(DEFAULT, interruption=20_000, interruption_every=1e6)
    rates = [simulate(Scenario("nr", 1, 1, 0, operations=200_000, steps=10**7), each) for each in (DEFAULT, costs)]
    without, disturbed = (each.operations_per_second for each in rates)
    assert disturbed / without == pytest.approx(0.98, rel=0.005)


SMALL = ("--nodes", "2", "--cores", "3", "--operations", "300")


def test_a_sweep_becomes_a_table_a_file_and_a_plot(tmp_path: Path) -> None:
    report, plot = tmp_path / "report.json", tmp_path / "plot.svg"
    done = nrfs("simulate", *SMALL, "--logs", "1,2", "--json", str(report), "--plot", str(plot))
    assert (done.returncode, done.stderr) == (0, "")
    assert "nr, 2 logs" in done.stdout
    points = json.loads(report.read_text())["points"]
    assert {(point["nodes"], point["cores"]) for point in points} == {(1, 1), (1, 2), (1, 3), (2, 3)}
    assert len(points) == 4 * 3 * (len(SIMULATED) + 1)
    drawn = ElementTree.parse(plot).getroot()
    lines = drawn.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 3 * (len(SIMULATED) + 1)


def test_costs_are_measured_and_used(tmp_path: Path) -> None:
    report = tmp_path / "costs.json"
    done = nrfs("bench", "calibrate", "--rounds", "1", "--milliseconds", "5", "--json", str(report))
    assert (done.returncode, done.stderr) == (0, "")
    costs = json.loads(report.read_text())["nanoseconds"]
    assert list(costs) == list(MEANINGS)
    assert all(nanoseconds > 0 for nanoseconds in costs.values())
    one = ("simulate", "--way", "nr", "--write-ratio", "50", *SMALL)
    by_file, by_default = nrfs(*one, "--costs", str(report)), nrfs(*one)
    assert (by_file.returncode, by_file.stderr) == (0, "")
    assert by_file.stdout != by_default.stdout


def test_a_check_compares_every_way(tmp_path: Path) -> None:
    report = tmp_path / "check.json"
    short = ("--rounds", "1", "--milliseconds", "5", "--operations", "300")
    done = nrfs("simulate", "--check", *short, "--json", str(report))
    if "in no turn" in done.stderr:
        pytest.skip("the two CPUs shared a core, or moved")
    compared = json.loads(report.read_text())["compared"]
    assert len(compared) == 2 * 4 * 6
    assert done.returncode == (0 if all(abs(each["deviation"]) <= 0.15 for each in compared) else 1)


def test_what_cannot_be_simulated_is_said_in_one_line(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text("{}")
    for arguments, status in [
        (("--nodes", "0"), 2),
        (("--cores", "many"), 2),
        (("--nodes", "100", "--cores", "100"), 2),
        (("--write-ratio", "101"), 2),
        (("--way", "magic"), 2),
        (("--batch", "0"), 2),
        (("--remote-ns", "-1"), 2),
        (("--check", "--plot", str(tmp_path / "plot.svg")), 2),
        (("--costs", str(tmp_path / "absent.json")), 1),
        (("--costs", str(wrong)), 1),
        (("--json", str(tmp_path)), 1),
        (("--plot", str(tmp_path)), 1),
    ]:
        done = nrfs("simulate", *arguments)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (status, "", 1)
