"""The progress bar of an attack evaluation."""

from __future__ import annotations

import sys

from mmengine.dist import is_main_process
from tqdm import tqdm

from mmadv.printing import printable


class Progress:
    """A bar on stderr: finished images, time left, and the pixel accuracy so far, clean and at every radius.

    In a distributed run only the main process shows the bar, with its own accuracy. It estimates the number of finished
    images from the finished part of its own share, because all processes take about equally long.

    Args:
        total: number of images.
        description: text in front of the bar.
        done: number of images that were finished before.
        share: number of the remaining images that this process does; None for all of them.
    """

    def __init__(self, total: int, description: str, done: int = 0, share: int | None = None) -> None:
        self._sums: dict[str, list[int]] = {}
        self._before, self._remaining = done, total - done
        self._share = self._remaining if share is None else share
        self._advanced = 0
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=description,
            unit='image',
            file=sys.stderr,
            dynamic_ncols=True,
            disable=not is_main_process(),
        )

    def add(self, name: str, correct: int, valid: int) -> None:
        """Adds correct and valid pixels to the running accuracy of ``name``."""
        sums = self._sums.setdefault(name, [0, 0])
        sums[0] += correct
        sums[1] += valid
        self._bar.set_postfix_str(self.accuracies(), refresh=sys.stderr.isatty())

    def advance(self, images: int) -> None:
        """Counts images as done."""
        self._advanced += images
        self._bar.update(self._before + self._remaining * self._advanced // self._share - self._bar.n)

    def accuracies(self) -> str:
        """Returns the running accuracies in percent."""
        return ', '.join(
            f'{name} {100 * correct / valid:.1f}%' for name, (correct, valid) in self._sums.items() if valid
        )

    def say(self, sentence: str) -> None:
        """Prints a line above the bar, on every process that calls this method."""
        tqdm.write(printable(sentence), file=sys.stderr)

    def close(self) -> None:
        """Closes the bar; its last state stays on the screen."""
        self._bar.close()
