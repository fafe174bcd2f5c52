"""LevelDB on a directory: db_bench's benchmarks, through plyvel.

From the bottom up:

- ``configuration``: what the user asked for; the names and meanings of the benchmarks;
- ``contents``: the entries, and the record of which of them a database must hold;
- ``database``: one LevelDB database in a directory of its own, with that record beside it;
- ``benchmarks``: the timed loops, each checking what it reads against the record;
- ``workload``: the benchmarks in order, on a directory.
"""
