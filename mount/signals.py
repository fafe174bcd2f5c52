"""The signals that a daemon listens to."""

from __future__ import annotations

import signal

ENDING_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
"""What ends a daemon, in good order."""
