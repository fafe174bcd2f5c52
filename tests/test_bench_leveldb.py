"""``nrfs bench leveldb``, as a user runs it; and that no wrong byte gets past it."""

from __future__ import annotations

import json
import os
import pty
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import hear_interrupts, shown_at
from support.results import only_run

from workloads.failure import WorkloadError
from workloads.leveldb import benchmarks
from workloads.leveldb.configuration import BENCHMARKS, Configuration
from workloads.leveldb.contents import Entries
from workloads.leveldb.database import Database, temporary_database

SMALL = ["--num", "300", "--reads", "200"]
READS = ["readrandom", "readseq", "readreverse", "readhot", "seekrandom", "readwhilewriting"]


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A directory on tmpfs."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture(params=["tmp_path", "memory_path"])
def directory(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "nrfs.cli", "bench", "leveldb", *map(str, arguments)]


def bench(*arguments: str | Path, before: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120, preexec_fn=before)


def succeeded(*arguments: str | Path) -> str:
    result = bench(*arguments)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def only_line(result: subprocess.CompletedProcess[str], status: int) -> str:
    assert result.returncode == status, result
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def left_over(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir())


def row(output: str, benchmark: str) -> list[str]:
    (line,) = [line for line in output.splitlines() if line.startswith(benchmark + " ")]
    return line.split()


# What it runs


@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_benchmark_runs_alone_and_leaves_nothing(name: str, directory: Path) -> None:
    output = succeeded("--dir", directory, "--benchmarks", name, *SMALL)
    assert row(output, name)[1] == str(directory)
    assert left_over(directory) == []


@pytest.mark.parametrize("options", [[], ["--threads", "3"], ["--batch-size", "7"], ["--compression", "snappy"]])
def test_all_benchmarks_run_in_one_go(options: list[str], directory: Path) -> None:
    output = succeeded("--dir", directory, *SMALL, *options)
    assert all(row(output, name) for name in BENCHMARKS)
    assert left_over(directory) == []


def test_values_of_any_size_are_written_and_read(memory_path: Path) -> None:
    for size in ["1", "99", "65536", "1500000"]:
        succeeded("--dir", memory_path, "--value-size", size, "--num", "12", "--benchmarks", "fillrandom,readrandom")


def figures(directory: Path, name: str, *options: str | Path) -> dict[str, Any]:
    """What else there is to the figure of the one benchmark called ``name``, in a run of one round on one directory."""
    results = directory / f"results-{len(left_over(directory))}.json"
    succeeded("--dir", directory, "--json", results, *options)
    more: dict[str, Any] = only_run(results).figure(name)["more"]
    return more


def test_each_thread_does_the_whole_benchmark_as_in_db_bench(memory_path: Path) -> None:
    measured = figures(memory_path, "readrandom", "--benchmarks", "readrandom", *SMALL, "--threads", "3")
    assert measured["operations"] == 3 * 200


def test_fillsync_writes_a_thousandth(memory_path: Path) -> None:
    assert figures(memory_path, "fillsync", "--benchmarks", "fillsync", "--num", "4000")["operations"] == 4
    assert figures(memory_path, "fillsync", "--benchmarks", "fillsync", "--num", "10")["operations"] == 1


def test_reads_default_to_num(memory_path: Path) -> None:
    assert figures(memory_path, "readhot", "--benchmarks", "readhot", "--num", "70")["operations"] == 70


def test_a_read_asked_for_alone_finds_every_key(memory_path: Path) -> None:
    assert figures(memory_path, "readrandom", "--benchmarks", "readrandom", *SMALL)["found"] == 200


def test_reads_after_fillrandom_miss_the_keys_it_did_not_write(memory_path: Path) -> None:
    found = figures(memory_path, "readrandom", "--benchmarks", "fillrandom,readrandom", *SMALL)["found"]
    assert 0 < found < 200


def test_reads_after_deleteseq_find_nothing(memory_path: Path) -> None:
    order = "fillseq,deleteseq,readrandom,readseq"
    assert figures(memory_path, "readrandom", "--benchmarks", order, *SMALL)["found"] == 0
    assert figures(memory_path, "readseq", "--benchmarks", order, *SMALL)["operations"] == 0


def test_a_sequential_read_ends_where_the_database_ends(memory_path: Path) -> None:
    measured = figures(memory_path, "readseq", "--benchmarks", "readseq", "--num", "50", "--reads", "80")
    assert measured["operations"] == 50


def test_a_benchmark_may_be_asked_for_twice(memory_path: Path) -> None:
    output = succeeded("--dir", memory_path, "--benchmarks", "readrandom,readrandom", *SMALL)
    assert sum(line.startswith("readrandom") for line in output.splitlines()) == 2


def test_the_preset_is_the_papers_and_options_override_it(memory_path: Path) -> None:
    results = memory_path / "results.json"
    succeeded("--dir", memory_path, "--preset", "nros", "--num", "20", "--reads", "30", "--json", results)
    configuration = only_run(results).run["configuration"]
    assert configuration["value_size"] == 65_535
    assert configuration["benchmarks"] == ["fillseq", "readrandom"]
    assert (configuration["num"], configuration["reads"]) == (20, 30)


# What it reports


def test_the_results_hold_configuration_rounds_and_their_medians(tmp_path: Path, memory_path: Path) -> None:
    results = tmp_path / "results.json"
    wanted = "fillseq,readrandom,seekrandom"
    arguments: list[str | Path] = ["--dir", tmp_path, "--against", memory_path, "--rounds", "3", "--json", results]
    succeeded(*arguments, "--benchmarks", wanted, *SMALL)
    run = only_run(results)
    run.check()
    assert run.run["configuration"]["num"] == 300
    assert [side["directory"] for side in run.document["sides"]] == [str(tmp_path), str(memory_path)]
    assert run.orders == [[0, 1], [1, 0], [0, 1]]
    assert run.names == wanted.split(",")
    for name in run.names:
        latencies = [figures["latency"] for side in (0, 1) for figures in [run.figure(name, side)]]
        assert all(list(each.values()) == sorted(each.values()) for each in latencies)
        assert run.values(name)[0] * run.figure(name)["more"]["microseconds_per_operation"] == pytest.approx(1e6)


def test_against_a_second_directory_the_table_gives_ratios(tmp_path: Path, memory_path: Path) -> None:
    output = succeeded("--dir", tmp_path, "--against", memory_path, "--rounds", "2", *SMALL)
    assert "ratio" in output
    assert str(memory_path) in output
    low, high = (float(row(output, "readrandom")[place].strip("()")) for place in (7, 9))
    assert low <= float(row(output, "readrandom")[6]) <= high
    assert left_over(tmp_path) == left_over(memory_path) == []


def test_both_directories_see_the_same_operations(tmp_path: Path, memory_path: Path) -> None:
    results = tmp_path / "results.json"
    arguments: list[str | Path] = ["--dir", tmp_path, "--against", memory_path, "--json", results]
    succeeded(*arguments, "--benchmarks", "fillrandom,readrandom", *SMALL)
    run = only_run(results)
    for number in range(len(run.orders)):
        one, other = (run.figure("readrandom", side, number)["more"]["found"] for side in (0, 1))
        assert one == other


def test_without_a_terminal_the_table_is_plain_and_stderr_silent(memory_path: Path) -> None:
    assert "\x1b" not in succeeded("--dir", memory_path, "--benchmarks", "fillseq", *SMALL)


def test_at_a_terminal_stderr_shows_a_progress_bar(memory_path: Path) -> None:
    ours, theirs = pty.openpty()
    arguments = command("--dir", memory_path, "--benchmarks", "fillseq", *SMALL)
    environment = os.environ | {"TERM": "xterm"}
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = shown_at(ours)
        assert process.stdout is not None
        assert b"\x1b" not in process.stdout.read()
    assert process.returncode == 0
    assert b"fillseq" in shown
    assert b"%" in shown


# What it refuses


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "--dir"),
        (["--dir", ".", "--benchmarks", "fillsideways"], "unknown benchmark 'fillsideways'"),
        (["--dir", ".", "--benchmarks", ""], "unknown benchmark ''"),
        (["--dir", ".", "--num", "0"], "--num"),
        (["--dir", ".", "--value-size", "-5"], "--value-size"),
        (["--dir", ".", "--threads", "many"], "--threads"),
        (["--dir", ".", "--compression", "zip"], "--compression"),
        (["--dir", ".", "--preset", "other"], "--preset"),
        (["--dir", ".", "--frobnicate"], "--frobnicate"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(arguments: list[str], complaint: str) -> None:
    assert complaint in only_line(bench(*arguments), 2)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert f"{missing}: no such directory" in only_line(bench("--dir", missing), 1)
    assert f"{missing}: no such directory" in only_line(bench("--dir", tmp_path, "--against", missing), 1)


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert f"{file}: not a directory" in only_line(bench("--dir", file), 1)


def test_a_directory_in_which_nothing_can_be_made_is_refused() -> None:
    assert "/proc: cannot create a directory here" in only_line(bench("--dir", "/proc"), 1)


def test_an_unwritable_json_file_is_refused_before_anything_runs(tmp_path: Path) -> None:
    result = bench("--dir", tmp_path, "--json", tmp_path / "missing" / "file")
    assert "cannot write the results" in only_line(result, 1)


# How it fails


def test_a_write_that_the_file_system_refuses_ends_in_one_line_and_leaves_nothing(memory_path: Path) -> None:
    def allow_only_small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    result = bench("--dir", memory_path, "--num", "50000", "--benchmarks", "fillseq", before=allow_only_small_files)
    assert "File too large" in only_line(result, 1)
    assert left_over(memory_path) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("threads", ["1", "3"])
def test_a_signal_ends_it_and_leaves_nothing(
    number: signal.Signals, status: int, threads: str, memory_path: Path
) -> None:
    arguments = command("--dir", memory_path, "--benchmarks", "readwhilewriting", "--reads", "2000000")
    arguments += ["--num", "1000", "--threads", threads]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts) as process:
        wait_for(lambda: any(memory_path.glob("*/*/*.log")))
        process.send_signal(number)
        _, complaint = process.communicate(timeout=60)
    assert process.returncode == status
    assert complaint.count("\n") == (1 if number == signal.SIGINT else 0)
    assert left_over(memory_path) == []


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_files_that_change_under_a_running_database_are_noticed(memory_path: Path) -> None:
    arguments = command("--dir", memory_path, "--benchmarks", "fillseq,compact,readrandom", "--reads", "5000000")
    arguments += ["--num", "3000", "--value-size", "10000"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            for table in memory_path.glob("*/*/*.ldb"):
                spoil(table)
            time.sleep(0.01)
        output, complaint = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, "")
    assert complaint.count("\n") == 1
    assert left_over(memory_path) == []


def spoil(path: Path) -> None:
    """Changes a byte of every page, if the file is still there."""
    try:
        with path.open("r+b") as file:
            for position in range(100, path.stat().st_size, 4096):
                file.seek(position)
                file.write(b"!")
    except FileNotFoundError:
        pass


@pytest.fixture
def database(memory_path: Path) -> Iterator[Database]:
    with temporary_database(memory_path, Entries(300, 100), "none") as filled:
        benchmarks.fill(filled, lambda _: None)
        yield filled


def run_benchmark(name: str, database: Database) -> None:
    configuration = Configuration(
        benchmarks=(name,),
        num=300,
        value_size=100,
        reads=3000,
        threads=2,
        databases=1,
        keys="uniform",
        batch_size=1,
        compression="none",
    )
    benchmarks.run(name, [database], configuration, (1,), lambda _: None)


VALUE_READS = [name for name in READS if name != "seekrandom"]


@pytest.mark.parametrize("name", READS)
def test_a_right_database_passes(name: str, database: Database) -> None:
    run_benchmark(name, database)
    database.contents.deleted([1])
    database.handle.delete(database.entries.keys[1])
    run_benchmark(name, database)


@pytest.mark.parametrize("name", [name for name in VALUE_READS if name != "readwhilewriting"])
def test_one_wrong_byte_is_noticed(name: str, database: Database) -> None:
    key = database.entries.keys[1]
    value = database.handle.get(key)
    assert value is not None
    database.handle.put(key, value[:-1] + bytes([value[-1] ^ 1]))
    with pytest.raises(WorkloadError, match="not the one that was written"):
        run_benchmark(name, database)


@pytest.mark.parametrize("name", VALUE_READS)
def test_a_short_value_is_noticed(name: str, database: Database) -> None:
    for key in database.entries.keys:
        value = database.handle.get(key)
        assert value is not None
        database.handle.put(key, value[:-1])
    with pytest.raises(WorkloadError, match="not the one that was written"):
        run_benchmark(name, database)


@pytest.mark.parametrize("name", VALUE_READS)
def test_values_of_an_earlier_generation_are_noticed(name: str, database: Database) -> None:
    database.contents.written(range(300), database.contents.next_generation())
    with pytest.raises(WorkloadError, match="not the one that was written"):
        run_benchmark(name, database)


@pytest.mark.parametrize("name", READS)
def test_lost_entries_are_noticed(name: str, database: Database) -> None:
    for key in database.entries.keys[:-1]:
        database.handle.delete(key)
    with pytest.raises(WorkloadError, match=f"{name}: "):
        run_benchmark(name, database)


@pytest.mark.parametrize("name", [name for name in READS if name != "readwhilewriting"])
def test_entries_that_must_not_exist_are_noticed(name: str, database: Database) -> None:
    database.contents.deleted(range(0, 300, 2))
    with pytest.raises(WorkloadError, match=f"{name}: "):
        run_benchmark(name, database)


def test_several_threads_share_several_databases(memory_path: Path) -> None:
    results = memory_path / "results.json"
    place = memory_path / "place"
    place.mkdir()
    succeeded("--dir", place, *SMALL, "--threads", "1,3", "--databases", "2", "--keys", "zipfian", "--json", results)
    (summary,) = json.loads(results.read_text())["runs"][0]["summary"].values()
    cores = {(each["name"], each["cores"]) for each in summary}
    assert {("fillseq", 1), ("fillseq", 3), ("compact", 1), ("compact", 2), ("readrandom", 3)} <= cores
    assert left_over(place) == []


def test_zipfian_keys_are_drawn_by_rank() -> None:
    drawn = benchmarks._zipfian(np.random.default_rng(1), 1000, 100_000)
    counts = sorted(np.bincount(drawn, minlength=1000), reverse=True)
    assert set(drawn) <= set(range(1000))
    expected = [100_000 / rank**0.99 / sum(1 / np.arange(1, 1001) ** 0.99) for rank in (1, 2, 3)]
    assert counts[:3] == pytest.approx(expected, rel=0.05)


DB_BENCH = """#!/bin/sh
for argument; do case $argument in --db=*) touch "${argument#--db=}/file";; esac; done
echo "LevelDB: version 1.23"
echo "fillseq      :       2.000 micros/op;   55.3 MB/s"
echo "readrandom   :       4.000 micros/op; (100 of 100 found)"
"""


def test_db_bench_stands_beside_it(memory_path: Path) -> None:
    program, results, place = memory_path / "db_bench", memory_path / "results.json", memory_path / "place"
    place.mkdir()
    program.write_text(DB_BENCH)
    program.chmod(0o755)
    names = ("--benchmarks", "fillseq,readrandom", "--num", "100", "--threads", "2", "--db-bench", program)
    succeeded("--dir", place, *names, "--json", results)
    (summary,) = json.loads(results.read_text())["runs"][0]["summary"].values()
    assert [each["name"] for each in summary] == ["fillseq", "readrandom", "fillseq, db_bench", "readrandom, db_bench"]
    assert [each["value"]["median"] for each in summary[2:]] == [1_000_000, 500_000]
    assert left_over(place) == []
    for text, reason in [
        ("#!/bin/sh\necho no such thing >&2; exit 1\n", "no such thing"),
        ("#!/bin/sh\n", "nothing of"),
    ]:
        program.write_text(text)
        done = bench("--dir", place, *names)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert reason in done.stderr
    assert left_over(place) == []
