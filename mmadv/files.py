"""Reading files that may be anything: a pipe or a device would make the reader wait for ever."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mmadv.errors import UserError


def check_regular(path: str | Path, what: str) -> None:
    """Raises UserError where a path leads to what is no file, such as a named pipe, a device or a folder.

    Nothing is opened. A path that leads nowhere passes: the one who reads it says so in his own words.

    Args:
        path: of the file; links are followed.
        what: what it is called, with its article, such as 'the checkpoint'.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    except ValueError as error:  # a null character in the path
        raise UserError(f'{what} {str(path)!r} is no path: {error}') from None
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFIFO: 'a named pipe', stat.S_IFCHR: 'a device', stat.S_IFBLK: 'a device'}
        kinds |= {stat.S_IFDIR: 'a folder', stat.S_IFSOCK: 'a socket'}
        raise UserError(f'{what} {path} is {kinds.get(stat.S_IFMT(mode), "no file")}; give a regular file')
