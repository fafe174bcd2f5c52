"""The parser of every command line of ``nrfs``."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn, final

from nrfs.terminal import plain


@final
class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, with exit status 2; ``--help`` has the rest."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401 (argparse's own)
        # As a subcommand's parser it would hand unknown arguments up, to be refused without its name.
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {plain(message)} (--help tells more)\n")
