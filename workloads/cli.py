"""``nrfs bench`` and ``nrfs simulate``: the command line of the workloads. Each is imported only when it runs."""

from __future__ import annotations

import argparse
import os
import signal
import stat
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from nrfs import terminal
from nrfs.arguments import OneLineParser
from workloads.failure import UsageError, WorkloadError
from workloads.leveldb.configuration import BENCHMARKS, DB_BENCH, PRESETS, Configuration

if TYPE_CHECKING:
    from workloads.simulation.costs import Costs

    Subcommands = argparse._SubParsersAction[OneLineParser]

AGAINST_ALL = ("mutex", "rwlock", "sharded", "multikernel", "node-replication")
"""The contenders of ``nr`` for a hash map."""

AGAINST = tuple(name for name in AGAINST_ALL if name != "sharded")
"""The contenders of ``nr`` for any structure."""

VM_AGAINST = ("linux", "mutex", "rwlock", "multikernel")
"""The contenders of our address space."""

SERVICE_OPERATIONS = ("read-shared", "read-apart", "write-shared", "write-apart", "create", "stat-shared", "stat-apart")
"""What threads do with the file system service: on one file, or on files apart, each in a log of its own."""

FIO_JOBS = ("randwrite", "randread", "fdatasync", "mmap", "write", "read")
"""The jobs of fio, by name."""

SIMULATED = ("nr", "mutex", "rwlock", "sharded", "multikernel")
"""The ways to share a structure that are simulated."""

MOST_CORES = 4096
"""Of a simulated machine: so many that a simulation of all ways ends within minutes."""

_LARGEST = (1 << 63) - 1

ROUNDS_COMPARED = 5
"""So many that two disturbed rounds do not move the median."""


def add_commands(subparsers: Subcommands) -> None:
    """Adds ``bench`` with the workloads below it, and ``simulate``."""
    bench = subparsers.add_parser("bench", help="run a workload and report its figures")
    workloads = bench.add_subparsers(dest="workload", metavar="WORKLOAD", required=True)
    _add_leveldb(workloads)
    _add_memory(workloads)
    _add_files(workloads)
    _add_tree(workloads)
    _add_fio(workloads)
    _add_structures(workloads)
    _add_vm(workloads)
    _add_service(workloads)
    _add_calibrate(workloads)
    _add_simulate(subparsers)


def _add_leveldb(workloads: argparse._SubParsersAction[OneLineParser]) -> None:
    parser = workloads.add_parser(
        "leveldb",
        help="LevelDB's db_bench benchmarks on a directory, or on two compared",
        description="Runs LevelDB's db_bench benchmarks in a new database in DIR and prints their figures. "
        "Every value read is checked.",
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_compared(parser, "where to make the database")
    benchmarks = partial(_names, "benchmark", tuple(BENCHMARKS))
    parser.add_argument("--benchmarks", type=benchmarks, metavar="NAME,...", help="which, in this order")
    parser.add_argument("--num", type=_positive, metavar="N", help=f"keys of the range ({DB_BENCH.num})")
    parser.add_argument("--value-size", type=_positive, metavar="B", help=f"bytes ({DB_BENCH.value_size})")
    parser.add_argument("--reads", type=_positive, metavar="N", help="reads of each thread (as many as --num)")
    parser.add_argument(
        "--threads", type=_positive, default=1, metavar="T", help="each does the whole benchmark, as in db_bench (1)"
    )
    parser.add_argument("--batch-size", type=_positive, default=1, metavar="B", help="entries per write (1)")
    parser.add_argument("--compression", choices=["none", "snappy"], default="none", help="LevelDB's (none)")
    parser.add_argument("--preset", choices=sorted(PRESETS), help="a published configuration; other options override")
    parser.set_defaults(run=run_leveldb)


def _add_memory(workloads: argparse._SubParsersAction[OneLineParser]) -> None:
    parser = workloads.add_parser(
        "memory",
        help="how much memory files take",
        description="Makes files through the service itself, without a mount, and measures what is resident.",
    )
    parser.add_argument("--nodes", type=_positive, default=1, metavar="N", help="replicas (1)")
    parser.add_argument("--files", type=_positive, default=1_000_000, metavar="N", help="empty files (1000000)")
    parser.add_argument("--data", type=_positive, default=2**30, metavar="B", help="bytes of content (1 GiB)")
    parser.add_argument("--file-size", type=_positive, default=2**16, metavar="B", help="bytes in a file (65536)")
    _add_json(parser)
    parser.set_defaults(run=run_memory)


def _add_files(workloads: argparse._SubParsersAction[OneLineParser]) -> None:
    parser = workloads.add_parser(
        "files",
        help="many files in one directory",
        description="Makes, lists, stats and deletes many files in one directory, and tells what each costs.",
    )
    _add_compared(parser, "where to make the files")
    parser.add_argument(
        "--counts", type=_positives, default=(10_000, 1_000_000), metavar="N,...", help="files (10000,1000000)"
    )
    parser.add_argument("--size", type=_whole, default=0, metavar="B", help="bytes written to each when made (0)")
    parser.set_defaults(run=run_files)


def _add_tree(workloads: argparse._SubParsersAction[OneLineParser]) -> None:
    parser = workloads.add_parser(
        "tree",
        help="a source tree: tar x, find, grep -r, cp -r, diff -r, git, rm -rf",
        description="Unpacks a source tree, searches, copies, compares, commits and removes it by the ordinary tools, "
        "and tells how long each takes. Every result is checked.",
    )
    _add_compared(parser, "where to unpack the tree")
    parser.add_argument(
        "--source",
        type=Path,
        metavar="DIR",
        help="the tree, without .git and what is built (the standard library of the running Python)",
    )
    parser.add_argument(
        "--files", type=_positive, default=5000, metavar="N", help="repeat it until it has about so many (5000)"
    )
    parser.set_defaults(run=run_tree)


def _add_fio(workloads: argparse._SubParsersAction[OneLineParser]) -> None:
    parser = workloads.add_parser(
        "fio",
        help="fio's random and sequential reads and writes, by system calls and by a mapping",
        description="Runs jobs of fio, which must be installed, on a file in DIR: random reads and writes of 4 KiB, "
        "the writes also with fdatasync after each, both by a mapping, and sequential reads and writes of 1 MiB. The "
        "data is checked by checksums, untimed.",
    )
    _add_compared(parser, "where to make the file")
    jobs = partial(_names, "job", FIO_JOBS)
    parser.add_argument("--jobs", type=jobs, default=FIO_JOBS, metavar="NAME,...", help=f"({','.join(FIO_JOBS)})")
    parser.add_argument(
        "--size", type=_positive, default=64 << 20, metavar="B", help="bytes of the file, in whole MiB (64 MiB)"
    )
    parser.add_argument("--seconds", type=_positive, default=2, metavar="S", help="of each job (2)")
    parser.set_defaults(run=run_fio)


def _add_compared(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds the options of all workloads on directories, which ``_compared`` reads."""
    parser.add_argument("--dir", type=Path, required=True, metavar="DIR", help=what)
    parser.add_argument("--against", type=Path, metavar="DIR2", help="compare with this directory, in turn")
    parser.add_argument(
        "--rounds", type=_positive, metavar="R", help=f"repetitions (1; with --against {ROUNDS_COMPARED})"
    )
    _add_json(parser)


def _add_structures(workloads: argparse._SubParsersAction[OneLineParser]) -> None:
    """Adds ``nr`` and ``sched``, which measure different structures in the same way."""
    nr = workloads.add_parser(
        "nr",
        help="node replication against locks, a sharded map, a multikernel and the node-replication crate",
        description="Builds what is compared (needs the source and cargo), and measures how many operations threads "
        "do together on a structure that they share.",
    )
    nr.add_argument("--structure", choices=["hashmap", "stack", "queue"], default="hashmap", help="(hashmap)")
    sched = workloads.add_parser(
        "sched",
        help="the replicated scheduler against the same machine behind locks and in a multikernel",
        description="As 'nrfs bench nr', of the scheduler: writes ask for cores, reads ask whose a core is.",
    )
    sched.set_defaults(structure="scheduler")
    for parser, against in ((nr, AGAINST_ALL), (sched, AGAINST)):
        parser.add_argument(
            "--write-ratio", type=_percentages, default=(0, 10, 60, 100), metavar="P,...", help="(0,10,60,100)"
        )
        parser.add_argument("--threads", type=_positives, default=None, metavar="T,...", help="(1, and one a CPU)")
        _add_contenders(parser, against)
        _add_milliseconds(parser)
        parser.set_defaults(run=run_structures)


def _add_vm(workloads: argparse._SubParsersAction[OneLineParser]) -> None:
    parser = workloads.add_parser(
        "vm",
        help="the replicated address space against Linux, locks and a multikernel",
        description="Builds what is compared (needs the source and cargo), and measures how many pages threads map, "
        "protect, resolve and unmap, and how long one map and one unmap with shootdown take.",
    )
    parser.add_argument("--cores", type=_positives, default=None, metavar="C,...", help="threads (1, and one a CPU)")
    _add_contenders(parser, VM_AGAINST)
    parser.add_argument("--logs", type=_positive, default=2, metavar="K", help="parallel logs (2)")
    operations = ["map", "unmap", "protect", "resolve", "mix"]
    parser.add_argument("--op", choices=operations, help="show this operation only (all)")
    parser.set_defaults(run=run_vm)


def _add_service(workloads: argparse._SubParsersAction[OneLineParser]) -> None:
    parser = workloads.add_parser(
        "service",
        help="the file system service without a mount: how its throughput grows with threads",
        description="Builds what measures (needs the source and cargo), and measures how many reads, writes, creates "
        "and stats threads do together, on one file and on files apart, and how many times as much that is as one "
        "thread does. Checks what is read, and that all replicas agree.",
    )
    parser.add_argument(
        "--threads", type=_positives, default=None, metavar="T,...", help="always 1 too (1, and one a CPU)"
    )
    _add_nodes(parser)
    parser.add_argument("--size", type=_positive, default=4096, metavar="B", help="bytes of one read (4096)")
    parser.add_argument(
        "--file-size", type=_positive, default=1 << 20, metavar="B", help="bytes of a file, in whole pages (1 MiB)"
    )
    operations = partial(_names, "operation", SERVICE_OPERATIONS)
    parser.add_argument(
        "--op",
        type=operations,
        default=SERVICE_OPERATIONS,
        metavar="NAME,...",
        help=f"({','.join(SERVICE_OPERATIONS)})",
    )
    _add_milliseconds(parser)
    _add_rounds(parser)
    _add_json(parser)
    parser.set_defaults(run=run_service)


def _add_calibrate(workloads: argparse._SubParsersAction[OneLineParser]) -> None:
    parser = workloads.add_parser(
        "calibrate",
        help="what the parts of an operation cost on this machine, for nrfs simulate",
        description="Builds what measures (needs the source and cargo), and measures what transfers of cache lines, "
        "messages, locks and operations on a hash map cost, in nanoseconds.",
    )
    parser.add_argument("--milliseconds", type=_positive, default=20, metavar="MS", help="of each figure (20)")
    parser.add_argument("--rounds", type=_positive, default=11, metavar="R", help="(11)")
    _add_json(parser)
    parser.set_defaults(run=run_calibrate)


def _add_simulate(subparsers: Subcommands) -> None:
    parser = subparsers.add_parser(
        "simulate",
        help="how ways to share a structure scale on a machine that is not here",
        description="Simulates threads that share a hash map on a machine with N nodes of M cores, filled node by "
        "node: throughput and latency by node replication, behind locks, sharded, and in a multikernel. The costs come "
        "from 'nrfs bench calibrate --json', or are those of a common server.",
    )
    parser.add_argument("--nodes", type=_positive, default=4, metavar="N", help="(4)")
    parser.add_argument("--cores", type=_positive, default=24, metavar="M", help="of each node (24)")
    ratios = (0, 10, 100)
    parser.add_argument("--write-ratio", type=_percentages, default=ratios, metavar="P,...", help="percent (0,10,100)")
    ways = partial(_names, "way", SIMULATED)
    parser.add_argument("--way", type=ways, default=SIMULATED, metavar="NAME,...", help=f"({','.join(SIMULATED)})")
    parser.add_argument("--logs", type=_positives, default=(1,), metavar="K,...", help="parallel logs of nr (1)")
    parser.add_argument("--batch", type=_positive, metavar="B", help="the most that a combiner takes (all there is)")
    parser.add_argument("--costs", type=Path, metavar="FILE", help="costs that 'nrfs bench calibrate' has written")
    for name, what in (
        ("local", "a transfer of a cache line within a node"),
        ("remote", "a transfer of a cache line between nodes"),
        ("message", "a message within a node"),
        ("wake", "to wake a thread"),
    ):
        parser.add_argument(f"--{name}-ns", type=_positive, metavar="NS", help=f"{what}, instead of the file's")
    parser.add_argument("--operations", type=_positive, default=20_000, metavar="N", help="of each figure (20000)")
    parser.add_argument("--seed", type=_whole, default=1, metavar="S", help="of random numbers (1)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the throughput there, as SVG")
    parser.add_argument(
        "--check",
        action="store_true",
        help="instead calibrate and measure here, with one thread and two, and compare; exit status 1 if the "
        "simulation is more than 15%% off (needs the source, cargo and two idle CPUs)",
    )
    parser.add_argument("--rounds", type=_positive, default=25, metavar="R", help="of --check (25)")
    parser.add_argument("--milliseconds", type=_positive, default=5, metavar="MS", help="of a figure of --check (5)")
    _add_json(parser)
    parser.set_defaults(run=run_simulate)


def _add_contenders(parser: argparse.ArgumentParser, against: Sequence[str]) -> None:
    """Adds the options of all workloads with structures that threads share."""
    _add_nodes(parser)
    contenders = partial(_names, "contender", against)
    parser.add_argument("--against", type=contenders, metavar="NAME,...", help=f"({','.join(against)})")
    _add_rounds(parser)
    _add_json(parser)


def _add_nodes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", type=_positives, default=(1, 2), metavar="N,...", help="replicas (1,2)")


def _add_milliseconds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--milliseconds", type=_positive, default=200, metavar="MS", help="of each figure (200)")


def _add_rounds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=_positive, default=ROUNDS_COMPARED, metavar="R", help="(5)")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")


def _epilog() -> str:
    lines = ["benchmarks:", *(f"  {name:<17} {meaning}" for name, meaning in BENCHMARKS.items())]
    lines += ["", "A benchmark that needs a filled database and comes first gets one, untimed.", "", "presets:"]
    for name, sizes in PRESETS.items():
        numbers = f"--num {sizes.num} --value-size {sizes.value_size} --reads {sizes.reads or sizes.num}"
        lines.append(f"  {name:<17} --benchmarks {','.join(sizes.benchmarks)} {numbers}")
    return "\n".join(lines)


def run_leveldb(options: argparse.Namespace) -> int:
    """Runs the LevelDB workload; its exit status is the command's."""
    sizes = PRESETS[options.preset] if options.preset else DB_BENCH
    num = options.num or sizes.num
    configuration = Configuration(
        **_compared(options),
        benchmarks=options.benchmarks or sizes.benchmarks,
        num=num,
        value_size=options.value_size or sizes.value_size,
        reads=options.reads or sizes.reads or num,
        threads=options.threads,
        batch_size=options.batch_size,
        compression=options.compression,
    )

    def work() -> None:
        _check(configuration.directories, configuration.json)
        from workloads.leveldb import report, rounds

        results = rounds.run(configuration)
        report.write_json(results)
        report.show(results)

    return _run("leveldb", work)


def run_memory(options: argparse.Namespace) -> int:
    """Measures the memory that files take; its exit status is the command's."""

    def work() -> None:
        from workloads import memory

        if options.data < options.file_size:
            raise UsageError("--data is less than one file of --file-size")
        configuration = memory.Configuration(
            options.nodes, options.files, options.data, options.file_size, options.json
        )
        _check_json(options.json)
        memory.show(configuration, memory.run(configuration))

    return _run("memory", work)


def run_files(options: argparse.Namespace) -> int:
    """Measures what files in one directory cost; its exit status is the command's."""

    def work() -> None:
        from workloads import files

        configuration = files.Configuration(**_compared(options), counts=options.counts, size=options.size)
        _check(configuration.directories, configuration.json)
        files.show(configuration, files.run(configuration))

    return _run("files", work)


def run_tree(options: argparse.Namespace) -> int:
    """Measures what is done with a source tree; its exit status is the command's."""

    def work() -> None:
        from workloads import tree

        configuration = tree.Configuration(**_compared(options), source=options.source, files=options.files)
        sources = () if configuration.source is None else (configuration.source,)
        _check((*configuration.directories, *sources), configuration.json)
        tree.show(configuration, tree.run(configuration))

    return _run("tree", work)


def run_fio(options: argparse.Namespace) -> int:
    """Runs jobs of fio; its exit status is the command's."""

    def work() -> None:
        from workloads import fio

        configuration = fio.Configuration(
            **_compared(options), jobs=options.jobs, size=options.size, seconds=options.seconds
        )
        _check(configuration.directories, configuration.json)
        fio.show(configuration, fio.run(configuration))

    return _run("fio", work)


def run_structures(options: argparse.Namespace) -> int:
    """Measures structures that threads share; its exit status is the command's."""

    def work() -> None:
        from workloads import structures

        configuration = structures.Configuration(
            structure=options.structure,
            write_ratios=options.write_ratio,
            threads=options.threads or _one_and_all_cpus(),
            nodes=options.nodes,
            against=options.against or (AGAINST_ALL if options.structure == "hashmap" else AGAINST),
            rounds=options.rounds,
            milliseconds=options.milliseconds,
            json=options.json,
        )
        _check_json(options.json)
        structures.show(configuration, structures.run(configuration))

    return _run(options.workload, work)


def run_vm(options: argparse.Namespace) -> int:
    """Measures address spaces; its exit status is the command's."""

    def work() -> None:
        from workloads import vm

        configuration = vm.Configuration(
            threads=options.cores or _one_and_all_cpus(),
            nodes=options.nodes,
            logs=options.logs,
            against=options.against or VM_AGAINST,
            operation=options.op,
            rounds=options.rounds,
            json=options.json,
        )
        _check_json(options.json)
        vm.show(configuration, vm.run(configuration))

    return _run("vm", work)


def run_service(options: argparse.Namespace) -> int:
    """Measures the file system service; its exit status is the command's."""

    def work() -> None:
        from workloads import service

        configuration = service.Configuration(
            operations=options.op,
            threads=tuple(sorted({1, *(options.threads or _one_and_all_cpus())})),
            nodes=options.nodes,
            size=options.size,
            file_size=options.file_size,
            rounds=options.rounds,
            milliseconds=options.milliseconds,
            json=options.json,
        )
        _check_json(options.json)
        service.show(configuration, service.run(configuration))

    return _run("service", work)


def run_calibrate(options: argparse.Namespace) -> int:
    """Measures what the parts of operations cost; its exit status is the command's."""

    def work() -> None:
        from workloads import calibrate

        configuration = calibrate.Configuration(options.rounds, options.milliseconds, options.json)
        _check_json(options.json)
        calibrate.show(configuration, calibrate.run(configuration))

    return _run("calibrate", work)


def run_simulate(options: argparse.Namespace) -> int:
    """Simulates a machine, or checks the simulation; its exit status is the command's."""

    def check() -> None:
        from workloads.simulation import check

        if options.plot is not None or options.costs is not None:
            raise UsageError("--check makes no plot and measures the costs itself")
        _check_json(options.json)
        configuration = check.Configuration(
            options.rounds, options.milliseconds, options.operations, options.seed, options.json
        )
        if not check.show(configuration, *check.run(configuration)):
            raise WorkloadError("the simulation deviates from what was measured")

    def sweep() -> None:
        from workloads.simulation import report

        if options.nodes * options.cores > MOST_CORES:
            raise UsageError(f"--nodes, --cores: {options.nodes * options.cores} cores are more than {MOST_CORES}")
        _check_json(options.json)
        _check_json(options.plot)
        configuration = report.Configuration(
            nodes=options.nodes,
            cores=options.cores,
            write_ratios=options.write_ratio,
            ways=options.way,
            logs=options.logs,
            batch=options.batch,
            operations=options.operations,
            seed=options.seed,
            costs=_costs(options),
            plot=options.plot,
            json=options.json,
        )
        report.show(configuration, report.run(configuration))

    return _run("simulate", check if options.check else sweep, command="nrfs simulate")


def _costs(options: argparse.Namespace) -> Costs:
    """The costs of the options."""
    from dataclasses import replace

    from workloads import calibrate
    from workloads.simulation.costs import DEFAULT, Costs

    costs = DEFAULT if options.costs is None else Costs.measured(calibrate.read(options.costs))
    named = {name: getattr(options, f"{name}_ns") for name in ("local", "remote", "message", "wake")}
    return replace(costs, **{name: value for name, value in named.items() if value is not None})


def _one_and_all_cpus() -> tuple[int, ...]:
    return tuple(sorted({1, len(os.sched_getaffinity(0))}))


def _compared(options: argparse.Namespace) -> dict[str, Any]:
    """The options of all workloads on directories, with defaults filled in."""
    return {
        "directory": options.dir,
        "against": options.against,
        "rounds": options.rounds or (1 if options.against is None else ROUNDS_COMPARED),
        "json": options.json,
    }


def _run(workload: str, work: Callable[[], None], command: str | None = None) -> int:
    """Calls ``work``; if that fails, prints one line that says why. Returns the exit status."""
    command = command or f"nrfs bench {workload}"
    signal.signal(signal.SIGTERM, _exit_on_signal)
    try:
        work()
    except WorkloadError as failure:
        terminal.complain(command, str(failure))
        return failure.status
    except KeyboardInterrupt:
        print(f"{command}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def _check(directories: Sequence[Path], report: Path | None) -> None:
    """Finds errors that would only appear after hours of work."""
    for directory in directories:
        try:
            status = directory.stat()
        except OSError as failure:
            missing = isinstance(failure, FileNotFoundError)
            reason = "no such directory" if missing else str(failure.strerror).lower()
            raise WorkloadError(f"{directory}: {reason}") from None
        if not stat.S_ISDIR(status.st_mode):
            raise WorkloadError(f"{directory}: not a directory")
    _check_json(report)


def _check_json(path: Path | None) -> None:
    if path is None:
        return
    try:
        target = path if path.exists() else path.absolute().parent
        can_write = not path.is_dir() and os.access(target, os.W_OK)
    except OSError:  # For example, the current directory is gone, or the name is too long.
        can_write = False
    if not can_write:
        raise WorkloadError(f"{path}: cannot write the results there")


def _exit_on_signal(number: int, frame: FrameType | None) -> NoReturn:
    """Ends the command by an exception, so that the databases are removed."""
    sys.exit(128 + number)


def _whole(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    if number > _LARGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is too large")
    return number


def _positive(text: str) -> int:
    number = _whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return number


def _positives(text: str) -> tuple[int, ...]:
    return tuple(map(_positive, text.split(",")))


def _percentages(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(map(int, text.split(",")))
    except ValueError:
        numbers = (-1,)
    if not all(0 <= number <= 100 for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} are not percentages from 0 to 100")
    return numbers


def _names(kind: str, known: Sequence[str], text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"unknown {kind} {name!r}; there are {', '.join(known)}")
    return names
