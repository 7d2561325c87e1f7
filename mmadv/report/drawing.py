"""The common rules of all pictures: names are drawn unchanged, and a failed picture never stops a run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.backend_bases import FigureCanvasBase

from mmadv.errors import UserError
from mmadv.printing import printable

# Names of images and classes may contain '$'. Matplotlib would draw such a name as a formula.
plain_text = matplotlib.rc_context({'text.parse_math': False, 'text.usetex': False})


def check_picture_path(path: str | Path) -> None:
    """Checks that the suffix of a picture's path names a format.

    Raises:
        UserError: the path has no suffix, or Matplotlib cannot write that format.
    """
    formats = sorted(FigureCanvasBase.get_supported_filetypes())
    if Path(path).suffix[1:].lower() not in formats:
        raise UserError(f"path '{printable(str(path))}' of a picture must end with one of .{', .'.join(formats)}")


def draw_file(path: Path, draw: Callable[[], None]) -> bool:
    """Returns whether a picture was drawn.

    If drawing fails, the function prints a note on stderr, deletes the file, and the run goes on.

    Args:
        path: the path of the picture.
        draw: the function that writes the picture.
    """
    try:
        draw()
    except Exception as error:
        path.unlink(missing_ok=True)
        _warn_not_drawn(path.name, error)
        return False
    return True


def draw_svgs(name: str, draw: Callable[[], list[str]]) -> list[str]:
    """Returns pictures as texts; if drawing fails, prints a note on stderr and returns no picture.

    Args:
        name: the name of the pictures in the note.
        draw: the function that returns the pictures.
    """
    try:
        return draw()
    except Exception as error:
        _warn_not_drawn(name, error)
        return []


def _warn_not_drawn(name: str, error: Exception) -> None:
    reason = (str(error).strip().splitlines() or [''])[0]
    what = f'{name} could not be drawn ({type(error).__name__}: {reason})'
    print(printable(f'note: {what}; no number depends on it'), file=sys.stderr)
