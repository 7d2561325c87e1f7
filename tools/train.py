"""Trains a segmentor: python tools/train.py CONFIG --work-dir DIR."""

import sys
from collections.abc import Sequence

from mmadv.commands.command_line import guarded
from mmadv.commands.training import run_train


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 after a mistake in what was given."""
    return guarded(run_train, argv)


if __name__ == '__main__':
    sys.exit(main())
