"""The common functions of all preparations: they check, write and count label maps."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from mmadv.datasets.checks import check_pairs
from mmadv.errors import UserError

VOID = 255


@dataclass(frozen=True)
class Job:
    """One label map that must exist after the preparation.

    Args:
        image: the path of the image that the label map belongs to.
        output: the path of the label map.
        make: the function that returns the label map, (H, W) uint8; None if the file must exist already.
        original: the file that ``make`` reads; None if ``make`` does not read one file.
    """

    image: Path
    output: Path
    make: Callable[[], np.ndarray] | None = None
    original: Path | None = None

    @property
    def needed(self) -> Path | None:
        """Returns the file that must exist so that there is a label map; None if no file is needed."""
        return self.output if self.make is None or self.output.exists() else self.original


@dataclass
class Count:
    """The counts of one split.

    Args:
        name: the name of the split.
        classes: the number of classes.
        expected: the number of images in the complete split, None if it has no fixed number.
    """

    name: str
    classes: int
    expected: int | None = None
    written: int = 0
    existing: int = 0
    pixels: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.pixels = np.zeros(VOID + 1, np.int64)

    @property
    def images(self) -> int:
        """Returns the number of label maps that exist now."""
        return self.written + self.existing

    def describe(self) -> str:
        """Returns one line that reports the counts.

        >>> count = Count('val', classes=2, expected=500, written=3, existing=1)
        >>> count.pixels[[0, 255]] = 30, 10
        >>> count.describe()
        'val: 4 images with label maps (3 written, 1 there already), 1 of 2 classes occur, 25.00 % void; \
the complete split has 500'
        """
        total = max(int(self.pixels.sum()), 1)
        present = int((self.pixels[: self.classes] > 0).sum())
        line = (
            f'{self.name}: {self.images} images with label maps ({self.written} written, {self.existing} there '
            f'already), {present} of {self.classes} classes occur, {100 * self.pixels[VOID] / total:.2f} % void'
        )
        if self.expected is not None and self.expected != self.images:
            line += f'; the complete split has {self.expected}'
        return line


def prepare_label_maps(jobs: Sequence[Job], count: Count, palette: Sequence[Sequence[int]]) -> Count:
    """Writes the missing label maps, checks all of them, and returns the count.

    An existing file is checked like a new one and never written again. So if a run is interrupted, the next run
    continues it. If the dataset is complete, a run checks the whole dataset.

    Args:
        jobs: the label maps.
        count: the count to fill.
        palette: the colours of the classes. The files store them so that viewers show them.

    Raises:
        UserError: an image or an original is missing, or a label map is unreadable, has another size than its image,
            or has an invalid value.
    """
    check_pairs((str(job.image), str(job.needed) if job.needed else None) for job in jobs)
    for job in tqdm(jobs, desc=count.name, unit='image', file=sys.stderr, dynamic_ncols=True):
        size = image_size(job.image)
        if job.output.exists():
            count.pixels += count_values(read_label_map(job.output), job.output, size, count.classes)
            count.existing += 1
        else:
            labels = job.make()
            count.pixels += count_values(labels, job.original or job.output, size, count.classes)
            write_whole(job.output, encode_label_map(labels, palette))
            count.written += 1
    return count


def image_size(path: Path) -> tuple[int, int]:
    """Returns (height, width) from the header of an image."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except OSError as error:
        raise UserError(f"'{path}' is not a readable image ({error}); fetch it again") from error


def read_label_map(path: Path) -> np.ndarray:
    """Returns the (H, W) uint8 values of a label map; in a file with a palette, the values are the palette indices.

    Raises:
        UserError: the label map is unreadable or has several channels.
    """
    try:
        with Image.open(path) as image:
            labels = np.array(image)
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError on a broken PNG
        raise UserError(f"the label map '{path}' is not a readable image ({error}); fetch or write it again") from error
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise UserError(
            f"the label map '{path}' must have one channel of 8 bits, found mode {image.mode}; it is not a label map "
            'of this dataset'
        )
    return labels


def read_colours(path: Path) -> np.ndarray:
    """Returns the (H, W, 3) uint8 RGB values of an image."""
    try:
        with Image.open(path) as image:
            return np.array(image.convert('RGB'))
    except (OSError, SyntaxError) as error:
        raise UserError(f"'{path}' is not a readable image ({error}); fetch it again") from error


def count_values(labels: np.ndarray, path: Path, size: tuple[int, int], classes: int) -> np.ndarray:
    """Returns the (256,) pixel counts of a label map after checking its size and values.

    Args:
        labels: (H, W) uint8.
        path: the path of the label map, for the error message.
        size: (height, width) of the image.
        classes: the number of classes; valid values are 0 to ``classes`` - 1, and 255.

    Raises:
        UserError: the label map has another size than its image, or a value that is not a class.
    """
    if labels.shape != size:
        raise UserError(
            f"the label map '{path}' is {labels.shape[1]}x{labels.shape[0]} and its image {size[1]}x{size[0]}; remove "
            'it, or fetch both again'
        )
    pixels = np.bincount(labels.ravel(), minlength=VOID + 1)
    wrong = classes + np.flatnonzero(pixels[classes:VOID])
    if wrong.size:
        raise UserError(
            f"the label map '{path}' holds the value {wrong[0]}; valid are 0 to {classes - 1} and {VOID}: remove it, "
            'or fetch the original again'
        )
    return pixels


def encode_label_map(labels: np.ndarray, palette: Sequence[Sequence[int]]) -> bytes:
    """Returns a PNG whose palette indices are the labels; void has VOC's cream white.

    Args:
        labels: (H, W) uint8.
        palette: the RGB colour of each class.
    """
    colours = np.zeros((VOID + 1, 3), np.uint8)
    colours[: len(palette)] = palette
    colours[VOID] = (224, 224, 192)
    image = Image.fromarray(labels)
    image.putpalette(colours.tobytes())
    content = io.BytesIO()
    image.save(content, 'PNG')
    return content.getvalue()


def write_whole(path: Path, content: bytes) -> None:
    """Writes a new file so that the file is complete or does not exist.

    An interruption leaves only a hidden ``.part`` file, which the next run replaces.

    Raises:
        UserError: the file exists, or cannot be written.
    """
    if path.exists():
        raise UserError(f"'{path}' exists and is not overwritten; remove it to have it written again")
    part = path.with_name(f'.{path.name}.part')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        raise UserError(
            f"cannot write '{path}' ({error.strerror}); make room or choose a folder you may write"
        ) from error


def write_list(path: Path, names: Iterable[str]) -> str:
    """Writes one name per line, and returns a line that reports the result.

    Raises:
        UserError: the file exists and has other names.
    """
    names = list(names)
    if path.exists():
        if set(read_list(path)) != set(names):
            raise UserError(
                f"the list '{path}' is there with other names than this data gives; remove it to have it written again"
            )
        return f'{path.name}: {len(names)} images (there already)'
    write_whole(path, ''.join(f'{name}\n' for name in names).encode())
    return f'{path.name}: {len(names)} images (written)'


def read_list(path: Path) -> list[str]:
    """Returns the first word of every line that is not empty.

    Raises:
        UserError: the file does not exist, is not text, or holds no name.
    """
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except FileNotFoundError as error:
        raise UserError(f"the list '{path}' does not exist; fetch the dataset again, or check the folder") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the list '{path}' cannot be read as text; fetch it again") from error
    names = [line.split()[0] for line in lines if line.strip()]
    if not names:
        raise UserError(f"the list '{path}' is empty; fetch it again")
    return names


def files_with_suffix(folder: Path, suffix: str, what: str) -> list[Path]:
    """Returns the files below a folder that end in ``suffix``, sorted.

    Args:
        folder: the folder to search, with all its subfolders.
        suffix: the end of the names, such as ``_leftImg8bit.png``.
        what: the dataset or archive that the files come from, for the error message.

    Raises:
        UserError: the folder does not exist, or holds no such file.
    """
    need_folder(folder, what)
    files = sorted(path for path in folder.rglob(f'*{suffix}') if not path.name.startswith('.'))
    if not files:
        raise UserError(f"the folder '{folder}' holds no file *{suffix}; unpack {what} there")
    return files


def need_folder(folder: Path, what: str) -> None:
    """Raises UserError unless a folder exists."""
    if not folder.is_dir():
        raise UserError(f"the folder '{folder}' does not exist; unpack {what} there, or name the right folder")
