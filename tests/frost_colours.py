"""The colours of the photographs of frost that tests make in place of the published ones."""

import numpy as np
from PIL import Image

from mmadv.corruptions.photographs import FILES

COLOURS = ((10, 20, 30), (250, 200, 100), (0, 0, 255), (90, 90, 90), (255, 255, 255))


def write_photographs(folder):
    """Writes photographs of one colour each, of several sizes, and returns the folder as text."""
    for n, (name, colour) in enumerate(zip(FILES, COLOURS, strict=True)):
        image = np.full((40 + 100 * n, 60 + 30 * n, 3), colour, np.uint8)
        Image.fromarray(image).save(folder / name, **({'quality': 100} if name.endswith('jpg') else {}))
    return str(folder)
