"""Runs a program of operations on two file systems, and reports the first difference."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import ParamSpec

from .differences import ALL, Abilities
from .inode_flags import clear_flags
from .operations import Nothing, Operation, Refusable, Result, SetFlags, Where, World
from .syscalls import acting_as
from .tree import differences, snapshot


@dataclass(frozen=True)
class Step:
    """An operation, with the user who does it (0 is root with all capabilities) and the umask."""

    operation: Operation
    user: int = 0
    umask: int = 0o022

    def __repr__(self) -> str:
        user = f", user={self.user}" if self.user else ""
        umask = f", umask={self.umask:#o}" if self.umask != 0o022 else ""
        return f"Step({self.operation!r}{user}{umask})"


@dataclass(frozen=True)
class Failed:
    """The result of an operation that failed."""

    errno: str


Program = Sequence[Step]

Arguments = ParamSpec("Arguments")

_directories = count()


def outcome(call: Callable[Arguments, Result], *arguments: Arguments.args, **keywords: Arguments.kwargs) -> Result:
    """The result of a call, or ``Failed``."""
    try:
        return call(*arguments, **keywords)
    except OSError as error:
        return Failed(errno.errorcode.get(error.errno or 0, str(error)))


def perform(step: Step, world: World, root: Path) -> Result:
    """Runs one step with ``root`` as the working directory; an ``OSError`` is a result like any other."""
    os.chdir(root)
    needed = step.operation.needs()
    try:
        if needed and not getattr(world.abilities, needed):
            return "not compared"
        with acting_as(step.user, step.umask):
            return outcome(step.operation.run, world)
    finally:
        os.chdir("/")


def compare(program: Program, reference: Path, subject: Path, abilities: Abilities = ALL) -> None:
    """Asserts that ``program`` does the same in a new directory on each of two file systems.

    Operations that need an ability which is not in ``abilities`` are left out on both. The result of each step is
    compared, and at the end the two trees: before the files that are still open are closed, and again after that.
    """
    program = [step for step in program if not isinstance(step.operation, Nothing)]
    name = f"program-{os.getpid()}-{next(_directories)}"
    roots = [top / name / "root" for top in (reference, subject)]
    try:
        with closing(World(abilities=abilities)) as expected_world, closing(World(abilities=abilities)) as actual_world:
            for root in roots:
                root.mkdir(parents=True)
                root.chmod(0o777)
            for number, step in enumerate(program):
                expected = perform(step, expected_world, roots[0])
                actual = perform(step, actual_world, roots[1])
                assert expected == actual, _report(
                    program[: number + 1], [f"the last step gives {expected!r} on the reference, but {actual!r}"]
                )
            _compare_trees(program, roots)
        _compare_trees(program, roots)
    finally:
        for root in roots:
            if any(_sets_flags(step.operation) for step in program):
                clear_flags(root)
            shutil.rmtree(root.parent)


def _sets_flags(operation: Operation) -> bool:
    return isinstance(operation, SetFlags) or (
        isinstance(operation, (Where, Refusable)) and _sets_flags(operation.operation)
    )


def _compare_trees(program: Program, roots: list[Path]) -> None:
    found = differences(*(snapshot(root) for root in roots))
    assert not found, _report(program, ["the trees differ:", *found])


def _report(program: Program, problem: list[str]) -> str:
    steps = "".join(f"    {step!r},\n" for step in program)
    return "\n".join(["after", f"[\n{steps}]", *problem])
