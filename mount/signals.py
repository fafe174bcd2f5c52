"""The signals that end a daemon."""

from __future__ import annotations

import signal

ENDING_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
"""On these a daemon ends its mount and then itself."""
