"""Paints images with the gradients of checkpoints: python tools/synthesize.py inpaint CONFIG CHECKPOINT 0 1 2."""

import sys
from collections.abc import Sequence

from mmadv.commands.command_line import guarded
from mmadv.commands.synthesizing import run_synthesize


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 after a mistake in what was given."""
    return guarded(run_synthesize, argv)


if __name__ == '__main__':
    sys.exit(main())
