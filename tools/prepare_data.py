"""Checks, converts and counts a downloaded dataset: python tools/prepare_data.py voc data/VOCdevkit."""

import sys
from collections.abc import Sequence

from mmadv.commands.command_line import guarded
from mmadv.datasets.prepare.command import run_prepare


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 after a mistake in what was given."""
    return guarded(run_prepare, argv)


if __name__ == '__main__':
    sys.exit(main())
