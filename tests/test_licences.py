"""What nrfs is built from and runs with may be used under its licence: each has one that is known to go with it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from importlib import metadata

from conftest import REPOSITORY

ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "PSF-2.0",
    "Python-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
}
"""Licences, as SPDX names them, that ask for no more than to be named."""

USED_AS_LIBRARIES = {"pyfuse3": "LGPL-2.1-or-later"}
"""What is used as it is and can be replaced by its user, as these licences want."""

OLD_NAMES = {
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "BSD 3-Clause": "BSD-3-Clause",
    "Apache Software License": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "MIT License": "MIT",
    "ISC License (ISCL)": "ISC",
    "Python Software Foundation License": "PSF-2.0",
}
"""What packages say that do not use the names of SPDX."""


def is_allowed(expression: str, allowed: set[str] = ALLOWED) -> bool:
    """Whether an SPDX expression leaves a choice that is allowed."""
    expression = expression.replace("/", " OR ").strip()
    while expression.startswith("(") and closing(expression) == len(expression) - 1:
        expression = expression[1:-1].strip()
    for operator, decide in ((" OR ", any), (" AND ", all)):
        parts = split(expression, operator)
        if len(parts) > 1:
            return decide(is_allowed(part, allowed) for part in parts)
    return expression in allowed


def closing(expression: str) -> int:
    """Where the bracket that the expression begins with is closed."""
    depth = 0
    for place, letter in enumerate(expression):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return place
    return -1


def split(expression: str, operator: str) -> list[str]:
    """The parts between operators that are in no brackets."""
    parts, depth, begin = [], 0, 0
    for place, letter in enumerate(expression):
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and expression.startswith(operator, place):
            parts.append(expression[begin:place])
            begin = place + len(operator)
    return [*parts, expression[begin:]]


def crates() -> Iterator[tuple[str, str]]:
    """The crates in Cargo.lock, each with its licence."""
    rust = subprocess.run([REPOSITORY / "scripts" / "find-rust"], capture_output=True, text=True, check=True)
    folder = rust.stdout.strip()
    done = subprocess.run(
        [f"{folder}/cargo", "metadata", "--format-version=1", "--locked"],
        cwd=REPOSITORY / "nrfs" / "core",
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for package in json.loads(done.stdout)["packages"]:
        yield package["name"], package["license"] or ""


def distributions(name: str = "nrfs") -> dict[str, str]:
    """The Python packages that nrfs needs to run, each with its licence."""
    found: dict[str, str] = {}
    left = [name]
    while left:
        about = metadata.metadata(left.pop())
        name = about["Name"]
        if name in found:
            continue
        found[name] = licence(about)
        wanted = (re.match(r"([\w.-]+)[^;]*(?:;(.*))?", line) for line in about.get_all("Requires-Dist") or ())
        names = [match[1] for match in wanted if match and "extra" not in (match[2] or "")]
        left += [name for name in names if is_installed(name)]  # Others are for other systems.
    return found


def is_installed(name: str) -> bool:
    try:
        metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def licence(about: metadata.PackageMetadata) -> str:
    """By the field that says it, of which there were several in the course of time."""
    fields = {name: about.get_all(name) or [] for name in ("License-Expression", "License", "Classifier")}
    if fields["License-Expression"]:
        return str(fields["License-Expression"][0])
    classifiers = [line.split(" :: ")[-1] for line in fields["Classifier"] if line.startswith("License :: ")]
    given = [name for name in [*classifiers, *fields["License"]] if name != "OSI Approved"]
    return " OR ".join(OLD_NAMES.get(name, name) for name in given if "\n" not in name)


def test_every_crate_has_a_licence_that_goes_with_ours() -> None:
    assert not {name: licence for name, licence in crates() if not is_allowed(licence)}


def test_every_python_package_has_a_licence_that_goes_with_ours() -> None:
    refused = {
        name: licence
        for name, licence in distributions().items()
        if not is_allowed(licence) and USED_AS_LIBRARIES.get(name) != licence
    }
    assert not refused


def test_a_choice_of_licences_is_allowed_if_one_of_them_is() -> None:
    assert is_allowed("MIT OR GPL-3.0-only")
    assert is_allowed("(MIT OR GPL-3.0-only) AND Unicode-3.0")
    assert is_allowed("Apache-2.0 WITH LLVM-exception")
    assert is_allowed("MIT/Apache-2.0")
    assert not is_allowed("MIT AND GPL-3.0-only")
    assert not is_allowed("")
