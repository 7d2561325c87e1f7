"""What all pictures share: names are drawn as they are, and a picture that fails costs no numbers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.backend_bases import FigureCanvasBase

from mmadv.errors import UserError
from mmadv.printing import printable

# Names of images and classes may hold '$', which matplotlib would take for a formula.
plain_text = matplotlib.rc_context({'text.parse_math': False, 'text.usetex': False})


def check_picture_path(path: str | Path) -> None:
    """Checks that the suffix of a picture's path names a format.

    Raises:
        UserError: it has none, or one that Matplotlib cannot write.
    """
    formats = sorted(FigureCanvasBase.get_supported_filetypes())
    if Path(path).suffix[1:].lower() not in formats:
        raise UserError(f"path '{printable(str(path))}' of a picture must end with one of .{', .'.join(formats)}")


def draw_file(path: Path, draw: Callable[[], None]) -> bool:
    """Returns whether a picture was drawn; one that fails is told on stderr and is not there, and the run goes on.

    Args:
        path: of the picture.
        draw: writes it.
    """
    try:
        draw()
    except Exception as error:
        path.unlink(missing_ok=True)
        _warn_not_drawn(path.name, error)
        return False
    return True


def draw_svgs(name: str, draw: Callable[[], list[str]]) -> list[str]:
    """Returns pictures as texts; where they fail, none, and it is told on stderr.

    Args:
        name: of the pictures.
        draw: returns them.
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
