"""Converts a public checkpoint: python tools/convert_checkpoint.py IN OUT --source revisiting-at."""

import sys

from mmadv.commands.main import main

if __name__ == '__main__':
    sys.exit(main(['convert', *sys.argv[1:]]))
