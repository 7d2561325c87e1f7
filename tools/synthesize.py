"""Paints images with the gradients of checkpoints: python tools/synthesize.py inpaint CONFIG CHECKPOINT 0 1 2."""

import sys

from mmadv.commands.main import main

if __name__ == '__main__':
    sys.exit(main(['synthesize', *sys.argv[1:]]))
