"""The declarations of the commands, a file for each. What a command does is imported only when it runs."""

from __future__ import annotations

from workloads.commands import files, fio, leveldb, tree

ON_DIRECTORIES = (leveldb.WORKLOAD, files.WORKLOAD, tree.WORKLOAD, fio.WORKLOAD)
"""The workloads on directories."""
