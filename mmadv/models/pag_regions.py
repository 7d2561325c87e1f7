"""Region targets of the PAG loss: some regions of a scene are repainted, and the gradient should point there.

A classifier's class score belongs to the whole image, a segmentor's to a region. So the direction of a segmentor's
gradient is that from a scene x to the same scene with some regions repainted, x'. The score is what the repainting
changes: at every pixel whose label becomes another one, the logit of the new class minus that of the old one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from mmadv.errors import UserError
from mmadv.robustness import ClassBank, input_gradients
from mmadv.robustness.object_sizes import label_regions

# Smallest number of pixels of a region.
SMALLEST_REGION = 16
# The longest side of a box, as a share of the image's side. A larger region is represented by a window in it.
LONGEST_SIDE = 0.5
# Margin around a region, as a share of its box's side; at least one pixel.
MARGIN = 1 / 16

Box = tuple[slice, slice]


@dataclass(frozen=True)
class Repainted:
    """Scenes with repainted regions.

    Attributes:
        images: (N, C, H, W), x' in [0, 1]. Outside the regions they are the original images.
        labels: (N, H, W) int64, y'. They differ from the original ones only inside the regions.
        regions: (N, H, W) int64, the number of each pixel's region from 1, 0 outside.
    """

    images: Tensor
    labels: Tensor
    regions: Tensor


def region_boxes(
    label: np.ndarray, ignore_index: int = 255, generator: torch.Generator | None = None
) -> Iterator[tuple[int, Box]]:
    """Yields the class and box of an image's connected regions with at least 16 pixels, in random order.

    A box encloses its region with a small margin. Along an axis where the region is longer than half the image, the box
    is a window of half the image's side around a pixel of the region.

    Args:
        label: (H, W) integers.
        ignore_index: label of void pixels, which belong to no region.
        generator: generator of the order and of the windows. None takes the regions in the order of their classes, and
            puts windows around the pixel that is nearest to the region's centre of mass.
    """
    regions, number = label_regions(label, ignore_index)
    places = ndimage.find_objects(regions)
    order = range(number) if generator is None else torch.randperm(number, generator=generator).tolist()
    for index in order:
        place = places[index]
        pixels = np.argwhere(regions[place] == index + 1)
        if len(pixels) < SMALLEST_REGION:
            continue
        if generator is None:
            pick = int(((pixels - pixels.mean(0)) ** 2).sum(1).argmin())
        else:
            pick = int(torch.randint(len(pixels), (), generator=generator))
        corner = np.array([axis.start for axis in place])
        k = int(label[tuple(corner + pixels[0])])
        sides = [
            _side(axis, whole, centre)
            for axis, whole, centre in zip(place, label.shape, (corner + pixels[pick]).tolist(), strict=True)
        ]
        yield k, (sides[0], sides[1])


def _side(extent: slice, whole: int, centre: int) -> slice:
    """Returns the side of a box: a region's extent with its margin, or a window if the extent is too long."""
    longest = ceil(whole * LONGEST_SIDE)
    length = extent.stop - extent.start
    if length > longest:
        start = min(max(centre - longest // 2, 0), whole - longest)
        return slice(start, start + longest)
    margin = ceil(length * MARGIN)
    return slice(max(extent.start - margin, 0), min(extent.stop + margin, whole))


def region_scores(logits: Tensor, labels: Tensor, repainted: Repainted) -> Tensor:
    """Returns the score of each image's repainting, (N,): the sum over the regions of their mean logit differences.

    A region's mean is over its pixels whose label changes: the logit of the new class minus that of the old one.

    Args:
        logits: (N, K, H, W).
        labels: (N, H, W) int64, y.
        repainted: the repainting of the images.
    """
    differs = repainted.labels != labels
    new, old = (torch.where(differs, one, 0)[:, None] for one in (repainted.labels, labels))
    gains = (logits.gather(1, new) - logits.gather(1, old))[:, 0]
    counted = torch.where(differs, repainted.regions, 0).flatten(1)
    size = (len(logits), int(counted.max()) + 1 if counted.numel() else 1)
    sums = gains.new_zeros(size).scatter_add(1, counted, torch.where(differs, gains, 0).flatten(1))
    pixels = gains.new_zeros(size).scatter_add(1, counted, torch.ones_like(gains).flatten(1))
    return (sums / pixels.clamp_min(1))[:, 1:].sum(1)


class RegionExemplars(nn.Module):
    """Repaints regions by exemplars of other classes, and gives the direction x' - x.

    An image's regions are up to ``regions`` of its connected regions, whose boxes do not overlap. Each becomes a random
    other class: the exemplar of this class that is nearest to the box in L2 is resized to the box. It is painted where
    its labels differ from the image's, and one pixel around. Void pixels stay as they are.

    Args:
        bank: examples (K, M, C + 1, S, S) uint8; the last channel is the label map. Classes without an example are
            never painted.
        regions: largest number of regions of an image.
        ignore_index: label of void pixels.
        without: classes that are never painted, although the bank may have examples.

    Raises:
        UserError: the bank has examples of fewer than two classes that may be painted.
    """

    examples: Tensor

    def __init__(
        self, bank: ClassBank, *, regions: int = 4, ignore_index: int = 255, without: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.register_buffer('examples', bank.examples, persistent=False)
        self.counts = bank.counts.tolist()
        self.paintable = [k for k, count in enumerate(self.counts) if count and k not in without]
        self.regions = regions
        self.ignore_index = ignore_index
        if len(self.paintable) < 2:
            raise UserError(
                'the targets of regions need examples of at least two classes; look through more images (max_images)'
            )

    @property
    def num_classes(self) -> int:
        """Returns K."""
        return len(self.counts)

    @torch.no_grad()
    def repaint(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Repainted:
        """Returns images (N, C, H, W) in [0, 1] with labels (N, H, W) after repainting.

        Args:
            images: x.
            labels: y.
            generator: a generator on the CPU that draws regions and classes.
        """
        result = Repainted(images.clone(), labels.clone(), torch.zeros_like(labels))
        for n, label in enumerate(labels.cpu().numpy()):
            taken = np.zeros(label.shape, bool)
            number = 0
            for k, box in region_boxes(label, self.ignore_index, generator):
                if number == self.regions:
                    break
                if taken[box].any():
                    continue
                others = [t for t in self.paintable if t != k]
                t = others[int(torch.randint(len(others), (), generator=generator))]
                taken[box] = True
                number += 1
                self._paint(result, n, box, t, number)
        return result

    def _paint(self, result: Repainted, n: int, box: Box, t: int, number: int) -> None:
        """Paints class ``t`` into a box of image ``n``, as region ``number``."""
        image, label = result.images[n][:, box[0], box[1]], result.labels[n][box]
        exemplar = self.examples[t, self._nearest(image, t)]
        size = (label.shape[0], label.shape[1])
        painted = _resized(exemplar[None, :-1].to(image.dtype) / 255, size)[0]
        new = F.interpolate(exemplar[None, -1:].float(), size, mode='nearest-exact')[0, 0].long()
        valid = label != self.ignore_index
        differs = (new != label) & (new != self.ignore_index) & valid
        around = (F.max_pool2d(differs[None].float(), 3, 1, 1)[0] > 0) & valid
        image[:] = torch.where(around, painted, image)
        label[:] = torch.where(differs, new, label)
        result.regions[n][box] = torch.where(around, number, 0)

    def _nearest(self, image: Tensor, t: int) -> int:
        """Returns the index of the example of class ``t`` that is nearest to an image (C, h, w) in L2."""
        examples = self.examples[t, : self.counts[t], :-1].to(image.dtype) / 255
        shrunk = _resized(image[None], (examples.shape[2], examples.shape[3]))
        return int((examples - shrunk).square().flatten(1).sum(1).argmin())

    def directions(self, images: Tensor, labels: Tensor, repainted: Repainted) -> Tensor:
        """Returns the directions of the gradients of ``region_scores``, (N, C, H, W): x' - x, zero outside regions."""
        return repainted.images - images


class RegionDistillation(RegionExemplars):
    """Repaints regions, and gives the direction of a robust teacher's gradient of the same score.

    Args:
        teacher: images in [0, 1] -> logits, of the same classes. A module is frozen and put into eval mode.
        bank: as in ``RegionExemplars``, like the other arguments.
    """

    def __init__(
        self,
        teacher: Callable[[Tensor], Tensor],
        bank: ClassBank,
        *,
        regions: int = 4,
        ignore_index: int = 255,
        without: Sequence[int] = (),
    ) -> None:
        super().__init__(bank, regions=regions, ignore_index=ignore_index, without=without)
        self.teacher = teacher
        if isinstance(teacher, nn.Module):
            teacher.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> RegionDistillation:
        """Returns itself; the teacher stays in eval mode."""
        return self

    def directions(self, images: Tensor, labels: Tensor, repainted: Repainted) -> Tensor:
        """Returns the teacher's gradients, (N, C, H, W)."""
        with torch.enable_grad():
            inputs = images.detach().requires_grad_()
            scores = region_scores(self.teacher(inputs), labels, repainted)
            return input_gradients(scores[:, None], inputs)[:, 0]


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(images, size, mode='bilinear', antialias=True)
