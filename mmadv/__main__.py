"""``python -m mmadv``: the command ``mmadv``."""

import sys

from mmadv.commands.main import main

if __name__ == '__main__':
    sys.exit(main())
