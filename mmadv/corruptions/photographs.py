"""The published photographs of frost, which mmadv does not bring along."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from mmadv.errors import UserError
from mmadv.fields import checked

# The published code draws one of these five; it has a sixth file, which it never reads.
FILES = ('frost1.png', 'frost2.png', 'frost3.png', 'frost4.jpg', 'frost5.jpg')
# The package on PyPI that brings the photographs, and their folder inside it. Its code is not imported.
PACKAGE, FOLDER = 'imagecorruptions', 'frost'


@checked
def frost_photographs(folder: str | None = None) -> tuple[np.ndarray, ...]:
    """Returns the five photographs, (h, w, 3) uint8 RGB each.

    Args:
        folder: the folder that has them; None for that of the installed package ``imagecorruptions``.

    Raises:
        UserError: there is no such folder or package, or a file is missing or damaged.
    """
    return _read(str(_installed() if folder is None else folder))


def _installed() -> Path:
    spec = find_spec(PACKAGE)
    places = spec.submodule_search_locations if spec is not None else None
    if not places:
        raise UserError(
            f'the corruption frost needs photographs of frost, which the package {PACKAGE} has; run pip install '
            f'--no-deps {PACKAGE}, or give the folder of {FILES[0]} to {FILES[-1]} as frost_photographs'
        )
    return Path(places[0]) / FOLDER


@lru_cache(maxsize=4)
def _read(folder: str) -> tuple[np.ndarray, ...]:
    photographs = []
    for name in FILES:
        path = Path(folder) / name
        if not path.is_file():
            raise UserError(f'the photograph of frost {path} does not exist; the folder must have {", ".join(FILES)}')
        try:
            photographs.append(np.asarray(Image.open(path).convert('RGB')))
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f'the photograph of frost {path} cannot be read ({error}); copy it again') from None
    return tuple(photographs)
