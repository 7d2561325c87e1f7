"""Certifies a checkpoint by randomized smoothing: python tools/certify.py CONFIG CHECKPOINT --sigma 0.25."""

import sys
from collections.abc import Sequence

from mmadv.commands.certifying import run_certify
from mmadv.commands.command_line import guarded


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 after a mistake in what was given."""
    return guarded(run_certify, argv)


if __name__ == '__main__':
    sys.exit(main())
