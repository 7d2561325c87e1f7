"""Measures everything about the robustness of a checkpoint: python tools/card.py CONFIG CHECKPOINT --out card."""

import sys

from mmadv.commands.main import main

if __name__ == '__main__':
    sys.exit(main(['card', *sys.argv[1:]]))
