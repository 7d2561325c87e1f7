"""Compares result folders: python tools/report.py RESULT_DIR... --out DIR."""

import sys

from mmadv.commands.main import main

if __name__ == '__main__':
    sys.exit(main(['report', *sys.argv[1:]]))
