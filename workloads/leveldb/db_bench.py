"""LevelDB's own db_bench, of the distribution or of the user, with the same sizes: its loops are native."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from workloads.directories import temporary_directory
from workloads.failure import WorkloadError
from workloads.figures import Figure
from workloads.leveldb.configuration import Configuration

_LINE = re.compile(r"^(\w+) +: +([\d.]+) micros/op;", re.MULTILINE)


def run(program: Path, configuration: Configuration, parent: Path) -> list[Figure]:
    """The figures of all benchmarks, in a new database below ``parent``. It uses one database, and uniform keys.

    Raises:
        WorkloadError: it cannot be run, or fails, or does not tell a benchmark's figure.

    """
    with temporary_directory(parent, "db-bench") as place:
        command = [
            str(program),
            f"--db={place}",
            f"--benchmarks={','.join(configuration.benchmarks)}",
            f"--num={configuration.num}",
            f"--reads={configuration.reads}",
            f"--value_size={configuration.value_size}",
            f"--threads={configuration.threads}",
        ]
        if configuration.compression == "none":
            command.append("--compression=0")
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        except OSError as failure:
            raise WorkloadError(f"{program}: {failure.strerror}") from failure
    told = {name: float(micros) for name, micros in _LINE.findall(done.stdout)}
    missing = [name for name in configuration.benchmarks if name not in told]
    if done.returncode != 0 or missing:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        reason = said[-1] if said else f"it ended with {done.returncode}"
        raise WorkloadError(f"{program}: {reason}" if done.returncode else f"{program} tells nothing of {missing[0]}")
    # What it tells is the time of an operation in one thread. A clock too coarse for few operations tells 0.
    return [
        Figure(f"{name}, db_bench", configuration.threads * 1e6 / max(told[name], 1e-3), "op/s", configuration.threads)
        for name in configuration.benchmarks
    ]
