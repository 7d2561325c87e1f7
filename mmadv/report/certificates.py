"""The results of randomized smoothing: their numbers as types, their table and their pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmadv.errors import UserError
from mmadv.fields import NotNegative, Positive, PositiveNumber, Share
from mmadv.report.evaluation import Amount
from mmadv.report.metrics import PREDICTION_METRICS
from mmadv.report.pictures import colour
from mmadv.report.schema import Schema, entry
from mmadv.report.table import Table, percent

ABSTAINED = (255, 255, 255)
PANEL_WIDTH = 2.6
COLUMNS = ('L2 radius', 'tau', 'accuracy', 'mIoU', 'guaranteed mIoU', 'abstained')
# ``mmadv certify`` wrote this file instead of results.json in version 0.2 and before.
OLD_FILE, OLD_SCHEMA, OLD_VERSION = 'certificates.json', 'mmadv/certificates', 1


@dataclass(frozen=True)
class Smoothing(Schema):
    """The settings of smoothing and certification; the fields are those of ``mmadv.robustness.Certifier``."""

    sigma: PositiveNumber
    n0: Positive
    n: Positive
    alpha: Share
    taus: tuple[Share, ...]
    kind: str
    bound: str
    correction: str
    sides: str = 'one'
    hierarchy: tuple[dict[str, tuple[str, ...]], ...] | None = None

    def __str__(self) -> str:
        sides = '' if self.sides == 'one' else f', {self.sides} sides'
        return (
            f'{self.kind} smoothing, sigma {self.sigma:g}, n0 {self.n0}, n {self.n}, '
            f'alpha {self.alpha:g} per image ({self.bound}, {self.correction}{sides})'
        )


@dataclass(frozen=True)
class CertifiedLevels(Schema):
    """The certificate at one L2 radius with a hierarchy of classes.

    Attributes:
        certified: for each level, classes first: share of the pixels that are certified there and at no finer level.
        accuracy: for each level: share of the pixels that are certified there and whose group has the label.
        abstained: share of the pixels that are certified at no level.
        information_gain: mean over the pixels of log(K / g) / log K where a group of g of K classes is rightly
            certified, and of 0 elsewhere. Without a hierarchy it is the certified accuracy.
    """

    certified: tuple[Share, ...]
    accuracy: tuple[Share, ...]
    abstained: Share
    information_gain: Share

    def cells(self, levels: int) -> tuple[str, ...]:
        """Returns the cells of ``hierarchy_columns``, in percent; '-' for levels that there are not."""
        coarser = [percent(share) for share in self.certified[1:]]
        return (*coarser, *['-'] * (levels - len(coarser)), percent(self.abstained), percent(self.information_gain))


def hierarchy_columns(levels: int) -> tuple[str, ...]:
    """Returns the columns of a hierarchy with so many levels above the classes, beside ``COLUMNS``."""
    numbers = range(1, levels + 1)
    return (*(f'certified at level {n}' for n in numbers), 'abstained at all levels', 'information gain')


@dataclass(frozen=True, kw_only=True)
class CertifiedRadius(Schema):
    """The certificate at one L2 radius.

    Attributes:
        tau: the threshold of the probability.
        radius: the radius that ``tau`` gives, in units of images in [0, 1].
        accuracy: the certified accuracy; an abstained pixel counts as wrong.
        miou: the certified mIoU; an abstained pixel counts as predicted as no class.
        guaranteed_miou: the guaranteed mIoU; no attack within the radius falls below it.
        abstained: the share of the abstained pixels.
        iou: the IoU of each class, counted as for ``miou``.
        levels: the certificate with a hierarchy of classes; None without one.
    """

    tau: Share
    radius: Amount
    accuracy: Share | None = entry(key='certified_accuracy')
    miou: Share | None = entry(key='certified_mIoU')
    guaranteed_miou: Share | None = entry(key='guaranteed_mIoU')
    abstained: Share | None
    iou: tuple[Share | None, ...] = entry(key='IoU')
    levels: CertifiedLevels | None = None


@dataclass(frozen=True)
class CertificatePicture(Schema):
    """A drawn certificate: its ``file`` in the folder, the name of the ``image``, and the image's ``index``."""

    file: str
    image: str
    index: NotNegative


@dataclass(frozen=True)
class CertificatesSummary(Schema):
    """The certificates of all images.

    Attributes:
        smoothing: the settings of smoothing and certification.
        smoothed: metric -> value of the smoothed model, which abstains nowhere.
        certified: the certificate at each threshold, from small to large.
        pictures: the drawn pictures.
    """

    smoothing: Smoothing
    smoothed: dict[str, Share | None]
    certified: tuple[CertifiedRadius, ...]
    pictures: tuple[CertificatePicture, ...] = ()

    @property
    def coarser(self) -> int:
        """The number of levels above the classes; 0 without a hierarchy."""
        return len(self.smoothing.hierarchy or ())

    def rows(self, coarser: int = 0) -> list[tuple[str, ...]]:
        """Returns the cells of ``COLUMNS``, in percent: the smoothed model, then every radius.

        Args:
            coarser: number of levels whose cells of ``hierarchy_columns`` follow; 0 for none.
        """
        more = [('-',) * len(hierarchy_columns(coarser)) if coarser else ()]
        more += [one.levels.cells(coarser) if coarser and one.levels else more[0] for one in self.certified]
        return [(*row, *others) for row, others in zip(self._flat_rows(), more, strict=True)]

    def _flat_rows(self) -> list[tuple[str, ...]]:
        smoothed = ('-', '-', percent(self.smoothed['aAcc']), percent(self.smoothed['mIoU']), '-', '-')
        shares = ((one.accuracy, one.miou, one.guaranteed_miou, one.abstained) for one in self.certified)
        radii = ((f'{one.radius:.4f}', f'{one.tau:g}') for one in self.certified)
        return [smoothed, *((*names, *map(percent, cells)) for names, cells in zip(radii, shares, strict=True))]

    def text(self) -> str:
        """Returns the text that a command prints: the settings of smoothing, and a line for each radius."""
        columns = COLUMNS + (hierarchy_columns(self.coarser) if self.coarser else ())
        return Table(columns, tuple(self.rows(self.coarser)), text_columns=0, caption=str(self.smoothing)).text()

    def check(self, classes: int, where: str) -> None:
        """Raises UserError unless the numbers agree with each other and with the number of classes."""
        if set(self.smoothed) != {'aAcc', 'mIoU'}:
            raise UserError(f'{where}.smoothed must have aAcc and mIoU; found {list(self.smoothed)}')
        if [one.tau for one in self.certified] != list(self.smoothing.taus):
            raise UserError(f'{where}.certified must have an entry for each of smoothing.taus')
        for n, one in enumerate(self.certified):
            if len(one.iou) != classes:
                raise UserError(f'{where}.certified[{n}].IoU must have a value for each of the {classes} classes')
            shares = () if one.levels is None else (one.levels.certified, one.levels.accuracy)
            if any(len(values) != self.coarser + 1 for values in shares):
                raise UserError(f'{where}.certified[{n}].levels must have a value for each level of its hierarchy')


@dataclass(frozen=True)
class _ImageShares(Schema):
    """The accuracy of an image in ``certificates.json``."""

    image: str
    valid_pixels: NotNegative


@dataclass(frozen=True)
class _OldCertificates(Schema):
    """The content of ``certificates.json`` that results need."""

    smoothing: Smoothing
    smoothed: dict[str, Share | None]
    certified: tuple[CertifiedRadius, ...]
    pictures: tuple[CertificatePicture, ...]
    per_image: tuple[_ImageShares, ...]
    classes: tuple[str, ...]
    dataset: dict[str, Any]


def results_of_certificates(content: Any, where: str) -> dict[str, Any]:
    """Returns the content of a ``results.json``, made from the content of a ``certificates.json``.

    A ``certificates.json`` has no clean predictions, so the clean metrics are None. It does not have the ignored label
    either, so ``ignore_index`` is 255.

    Args:
        content: the content of the file.
        where: the name of the content in messages.

    Raises:
        UserError: the content is of another schema, or does not fit its schema.
    """
    if not isinstance(content, dict) or content.get('schema') != OLD_SCHEMA:
        raise UserError(f"{where} is not of the schema '{OLD_SCHEMA}'; give a folder that mmadv certify wrote")
    if content.get('schema_version') != OLD_VERSION:
        raise UserError(f'{where} has schema version {content.get("schema_version")}; this mmadv reads {OLD_VERSION}')
    old = _OldCertificates.from_json(content, where)
    summary = CertificatesSummary(old.smoothing, old.smoothed, old.certified, old.pictures)
    counted = [image for image in old.per_image if image.valid_pixels]
    unknown = [None] * len(old.classes)
    clean = {
        **dict.fromkeys(metric.name for metric in PREDICTION_METRICS),
        'IoU': unknown,
        'Acc': unknown,
        'images': len(counted),
        'pixels': sum(image.valid_pixels for image in counted),
    }
    keys = ('created', 'command', 'config', 'checkpoint', 'seed', 'versions', 'hardware', 'seconds')
    return {
        **{key: content[key] for key in keys if key in content},
        'attack': None,
        'radii': [],
        'dataset': {**old.dataset, 'palette': []},
        'pictures': [],
        'evaluation': {
            'title': certificates_title(old.smoothing.sigma),
            'ignore_index': 255,
            'classes': list(old.classes),
            'images': len(counted),
            'excluded': [image.image for image in old.per_image if not image.valid_pixels],
            'clean': clean,
            'attacked': {},
            'certificates': summary.to_json(),
        },
    }


def certificates_title(sigma: float) -> str:
    """Returns the title that tables give to an evaluation that certifies."""
    return f'certificates, σ = {sigma:g}'


def certificate_figure(
    image: np.ndarray,
    label: np.ndarray,
    classes: np.ndarray,
    certified: Mapping[float, np.ndarray],
    *,
    palette: Sequence[Sequence[int]],
    ignore_index: int = 255,
) -> Figure:
    """Returns a picture of the image, the label, the smoothed prediction, and the certified pixels at each radius.

    Pixels without a certificate are white.

    Args:
        image: (h, w, 3) RGB in [0, 1]. If the number of channels is not three, the picture shows the first one.
        label: (H, W) integers.
        classes: (H, W) smoothed prediction.
        certified: radius -> (H, W) bool.
        palette: one RGB colour in 0..255 per class.
        ignore_index: label of void pixels.
    """
    void, nowhere = label == ignore_index, np.zeros_like(label, dtype=bool)
    shown = image if image.shape[2] == 3 else image[:, :, :1].repeat(3, axis=2)
    panels = [('image', shown), ('label', colour(label, palette, void))]
    panels.append(('smoothed prediction', colour(classes, palette, nowhere)))
    for radius, where in certified.items():
        pixels = colour(classes, palette, nowhere)
        pixels[~where] = ABSTAINED
        panels.append((f'certified to {radius:.3f}\n{100 * (~where).mean():.1f} % abstained', pixels))
    height, width = label.shape
    # Two lines of a title stand above each panel.
    tall = PANEL_WIDTH * min(max(height / width, 0.4), 1.5) + 0.8
    figure = Figure(figsize=(PANEL_WIDTH * len(panels), tall), layout='constrained')
    FigureCanvasAgg(figure)
    for axes, (title, pixels) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        axes.imshow(pixels, interpolation='nearest')
        axes.set_title(title, fontsize=11)
        axes.set(xticks=[], yticks=[])  # the frame stays, around white pixels
    return figure
