"""Sets how many programs hypothesis generates.

By default it generates a few, the same ones in every run. ``NRFS_TEST_EXAMPLES`` sets another number: then they are
different in every run, and hypothesis saves failing ones in ``.hypothesis``.
"""

from __future__ import annotations

import os
from zlib import crc32

from hypothesis import HealthCheck, Verbosity, given, seed, settings
from hypothesis.strategies import SearchStrategy

from .compare import Program, compare
from .mounts import Pair

_DEFAULT = 40


def examples() -> int:
    return int(os.environ.get("NRFS_TEST_EXAMPLES", _DEFAULT))


def generated(divide: int = 1, steps: int = 40, verbosity: Verbosity = Verbosity.normal) -> settings:
    """Settings of a generated test.

    Args:
        divide: divides the number of examples, for a test that runs with many parameters.
        steps: the most steps of a state machine.
        verbosity: quiet if a failing comparison prints its own program, which is shorter than hypothesis's output.

    """
    return settings(
        max_examples=max(examples() // divide, 1),
        stateful_step_count=steps,
        verbosity=verbosity,
        derandomize="NRFS_TEST_EXAMPLES" not in os.environ,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )


def compare_generated(pair: Pair, programs: SearchStrategy[Program]) -> None:
    """Compares generated programs, which are others for each configuration: so each needs only half as many."""

    @generated(divide=2, verbosity=Verbosity.quiet)
    @given(program=programs)
    def run(program: Program) -> None:
        compare(program, pair.reference, pair.subject, pair.abilities)

    if "NRFS_TEST_EXAMPLES" not in os.environ:
        run = seed(crc32(str(pair.configuration).encode()))(run)
    run()
