"""Checks, converts and counts a downloaded dataset: python tools/prepare_data.py voc data/VOCdevkit."""

import sys

from mmadv.commands.main import main

if __name__ == '__main__':
    sys.exit(main(['prepare', *sys.argv[1:]]))
