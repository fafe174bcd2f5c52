"""How many programs hypothesis generates, and which.

By default a few, the same in every run. ``NRFS_TEST_EXAMPLES`` asks for more: then they are different in every run, and
hypothesis remembers in ``.hypothesis`` what failed.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Verbosity, settings

_DEFAULT = 40


def examples() -> int:
    return int(os.environ.get("NRFS_TEST_EXAMPLES", _DEFAULT))


def generated(divide: int = 1, steps: int = 40, verbosity: Verbosity = Verbosity.normal) -> settings:
    """Settings of a generated test.

    Args:
        divide: takes examples from a test that is run with many parameters.
        steps: of a state machine, at the most.
        verbosity: quiet where a failing comparison prints its own program, shorter than hypothesis would.

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
