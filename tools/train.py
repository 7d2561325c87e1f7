"""Trains a segmentor: python tools/train.py CONFIG --work-dir DIR."""

import sys

from mmadv.commands.main import main

if __name__ == '__main__':
    sys.exit(main(['train', *sys.argv[1:]]))
