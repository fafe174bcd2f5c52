"""A discrete-event simulation of ways to share a structure, on machines of any size: ``nrfs simulate``.

From the bottom:

- :mod:`~workloads.simulation.costs`: what the parts of an operation cost, measured or assumed;
- :mod:`~workloads.simulation.engine`: the clock, cores, and cache lines that travel between them;
- :mod:`~workloads.simulation.locks`: the mutex and the readers-writer lock of Rust's standard library;
- :mod:`~workloads.simulation.ways`: the structure behind a lock, and sharded;
- :mod:`~workloads.simulation.replication`: the structure replicated by ``nr``;
- :mod:`~workloads.simulation.multikernel`: a copy for each core, kept equal by messages;
- :mod:`~workloads.simulation.run`: cores that use one of these, and what comes out;
- :mod:`~workloads.simulation.check`: the simulation against measurements on this machine;
- :mod:`~workloads.simulation.report`: tables and plots.
"""
