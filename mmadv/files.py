"""A check that a path is a regular file. A reader of a pipe or a device could wait forever."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mmadv.errors import UserError


def check_regular(path: str | Path, what: str) -> None:
    """Raises UserError if a path is not a regular file, but for example a named pipe, a device or a folder.

    The check does not open the file. A missing file passes, as its reader reports it with a better message.

    Args:
        path: path of the file; links are followed.
        what: the file's name in messages, with its article, such as 'the checkpoint'.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    except ValueError as error:  # a null character in the path
        raise UserError(f'{what} {str(path)!r} is not a path: {error}') from None
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFIFO: 'a named pipe', stat.S_IFCHR: 'a device', stat.S_IFBLK: 'a device'}
        kinds |= {stat.S_IFDIR: 'a folder', stat.S_IFSOCK: 'a socket'}
        raise UserError(f'{what} {path} is {kinds.get(stat.S_IFMT(mode), "no file")}; give a regular file')
