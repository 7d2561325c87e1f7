"""Trains, attacks and reports on digit scenes: python tools/demo.py."""

import sys

from mmadv.commands.main import main

if __name__ == '__main__':
    sys.exit(main(['demo', *sys.argv[1:]]))
