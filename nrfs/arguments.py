"""The parser of every command line of ``nrfs``."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn, final

from nrfs.terminal import plain


@final
class OneLineParser(argparse.ArgumentParser):
    """A parser that reports wrong arguments in one line, and exits with status 2."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401 (argparse's own)
        # Refused here: a subcommand's parser would pass them to the top parser, which would not name the subcommand.
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {plain(message)} (--help tells more)\n")
