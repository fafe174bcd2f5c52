"""Workloads that are native programs: the crate ``nrfs/core/bench``, built when it is first needed.

They use crates for comparison that nothing else in nrfs needs. So they are not part of the native module, and need
cargo and the source.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from shutil import which
from typing import Any

import nrfs
from workloads.cores import Cores
from workloads.failure import WorkloadError
from workloads.progress import ProgressBar

CORE = Path(nrfs.__file__).parent / "core"


def build(program: str) -> Path:
    """Builds a program of the crate, which takes a few minutes the first time; returns its path."""
    if not (CORE / "bench" / "Cargo.toml").exists():
        raise WorkloadError("needs the source of nrfs: run it from a checkout, as scripts/setup makes it")
    cargo = _cargo()
    command = [cargo, "build", "--release", "--locked", "--package", "bench", "--bin", program]
    done = subprocess.run(
        [*command, "--message-format", "json-render-diagnostics"], cwd=CORE, capture_output=True, text=True, check=False
    )
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == program:
            return Path(message["executable"])
    reasons = [line for line in done.stderr.splitlines() if line.startswith("error")]
    raise WorkloadError(f"{' '.join(command)} in {CORE} failed: {reasons[0] if reasons else done.stderr.strip()}")


def run(program: Path, configuration: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Runs a program, and yields each figure when it is measured. Kills the program if the iteration ends early."""
    command = [str(program), json.dumps(configuration)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield from map(json.loads, process.stdout)
            if process.wait() != 0:
                raise WorkloadError(process.stderr.read().strip() or f"{program.name} ended with {process.returncode}")
        finally:
            process.kill()
            # Processes that it has started hold this pipe, too: they have ended when it does.
            process.stderr.read()


def figures(
    program: str,
    wanted: Mapping[str, Any],
    threads: int,
    rounds: int,
    steps: int,
    label: Callable[[Mapping[str, Any]], str],
) -> tuple[list[dict[str, Any]], int]:
    """Builds a program, and runs it with ``threads`` CPUs to pin its threads to.

    Meanwhile a progress bar of ``rounds`` times ``steps`` figures shows the ``label`` of the last one.

    Returns:
        All figures, and ``rounds``. If the user interrupts: those of the rounds that were complete, and their number.

    Raises:
        KeyboardInterrupt: none was.

    """
    measured: list[dict[str, Any]] = []
    with ProgressBar(rounds * steps) as progress, Cores(threads) as cores:
        progress.begin("building")
        try:
            for figure in run(build(program), {**wanted, "cpus": cores.held}):
                measured.append(figure)
                progress.begin(label(figure))
                progress.end(1)
        except KeyboardInterrupt:
            rounds = len(measured) // steps
            if rounds == 0:
                raise
    return measured[: rounds * steps], rounds


def check_interrupted(wanted: int, done: int) -> None:
    """Ends the command as an interrupt does, once it has shown the rounds that were done, unless these are all."""
    if done < wanted:
        raise KeyboardInterrupt


def _cargo() -> str:
    """The cargo of the PATH, or the one that scripts/setup uses."""
    find = CORE.parent.parent / "scripts" / "find-rust"
    found = subprocess.run([find], capture_output=True, text=True, check=False) if find.exists() else None
    place = found.stdout.strip() if found is not None and found.returncode == 0 else None
    cargo = which("cargo", path=place) or which("cargo")
    if cargo is None:
        raise WorkloadError("needs cargo, which builds what is compared: install Rust 1.85 or later")
    return cargo
