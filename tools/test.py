"""Attacks a checkpoint: python tools/test.py CONFIG CHECKPOINT --attack sea --eps 4/255 8/255."""

import sys

from mmadv.commands.main import main

if __name__ == '__main__':
    sys.exit(main(['test', *sys.argv[1:]]))
