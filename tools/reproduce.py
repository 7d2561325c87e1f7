"""Repeats an experiment of a paper: python tools/reproduce.py pag-toy."""

import sys

from mmadv.commands.main import main

if __name__ == '__main__':
    sys.exit(main(['reproduce', *sys.argv[1:]]))
