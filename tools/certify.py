"""Certifies a checkpoint by randomized smoothing: python tools/certify.py CONFIG CHECKPOINT --sigma 0.25."""

import sys

from mmadv.commands.main import main

if __name__ == '__main__':
    sys.exit(main(['certify', *sys.argv[1:]]))
