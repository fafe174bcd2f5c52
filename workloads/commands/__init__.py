"""The declarations of the commands, a file for each. What a command does is imported only when it runs."""

from __future__ import annotations

from workloads.commands import files, fio, fxmark, leveldb, sqlite, tree

ON_DIRECTORIES = (leveldb.WORKLOAD, files.WORKLOAD, tree.WORKLOAD, fio.WORKLOAD, fxmark.WORKLOAD, sqlite.WORKLOAD)
"""The workloads on directories."""
