"""Attacks a checkpoint: python tools/test.py CONFIG CHECKPOINT --attack sea --eps 4/255 8/255."""

import sys
from collections.abc import Sequence

from mmadv.commands.command_line import guarded
from mmadv.commands.testing import run_test


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 after a mistake in what was given."""
    return guarded(run_test, argv)


if __name__ == '__main__':
    sys.exit(main())
