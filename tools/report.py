"""Compares result folders: python tools/report.py RESULT_DIR... --out DIR."""

import sys
from collections.abc import Sequence

from mmadv.commands.command_line import guarded
from mmadv.commands.reporting import run_report


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 after a mistake in what was given."""
    return guarded(run_report, argv)


if __name__ == '__main__':
    sys.exit(main())
