"""Checks of an image's stored result, before any metric is computed from it.

A right checksum shows that a line is complete. It does not show that the line is a result, as anybody can write lines
with right checksums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypedDict

from mmadv.errors import UserError
from mmadv.fields import Filled, NotNegative, NotNegativeNumber, NotRequired, Share, check
from mmadv.printing import shown

# Real counts of pixels are far below this limit. With it, sums over a dataset fit into 64 bits.
MOST_PIXELS = 2**40


class Rows:
    """In ``Annotated``: a list of rows of ``width`` numbers from 0 on, the first ``integers`` of them integers."""

    def __init__(self, width: int, integers: int) -> None:
        self.width = width
        self.integers = integers

    def fits(self, value: list[Any]) -> bool:
        """Returns whether a list holds such rows."""
        return all(isinstance(row, list) and len(row) == self.width and self._fits_row(row) for row in value)

    def _fits_row(self, row: list[Any]) -> bool:
        return all(type(number) is int for number in row[: self.integers]) and all(
            type(number) in (int, float) and 0 <= number <= MOST_PIXELS for number in row
        )


class Length:
    """In ``Annotated``: a list of so many items."""

    def __init__(self, items: int) -> None:
        self.items = items

    def fits(self, value: list[Any]) -> bool:
        """Returns whether a list has so many items."""
        return len(value) == self.items


Areas = Annotated[list, Rows(4, 4)]
Hits = Annotated[list, Rows(2, 1)]
Pair = tuple[NotNegative, NotNegative]


class Objects(TypedDict):
    """``objects`` of a record."""

    sizes: Annotated[list, Rows(3, 3)]
    clean: Hits
    attacked: dict[str, dict[str, Hits]]


class CertifiedAreas(TypedDict):
    """The certified areas and abstained pixels of an image at one radius; ``levels``: rows of ``level_counts``."""

    areas: Areas
    abstained: list[NotNegative]
    levels: NotRequired[list[list[NotNegativeNumber]]]


class Certificates(TypedDict):
    """``certificates`` of a record."""

    smoothed: Areas
    certified: list[CertifiedAreas]


class CalibrationRows(TypedDict):
    """The sums of an image for its calibration under one condition."""

    totals: Annotated[list[NotNegativeNumber], Length(6)]
    confidence: Annotated[list, Rows(4, 3)]
    classes: Annotated[list, Rows(5, 4)]
    ranks: Annotated[list, Rows(3, 3)]


class Distances(TypedDict):
    """``region_distance`` of a record."""

    bands: list[list[NotNegative]]


class Failed(TypedDict):
    """A record of an image that the model failed on."""

    index: NotNegative
    image: str
    failed: str


class Record(TypedDict):
    """A record of ``mmadv test``; image_record.py describes the keys."""

    index: NotNegative
    image: str
    digest: str | None
    title: str
    ignore_index: int
    passes: dict[str, Pair]
    clean: Areas
    attacked: dict[str, dict[str, Areas]]
    objects: NotRequired[Objects]
    reached: NotRequired[dict[str, Pair]]
    rounded: NotRequired[dict[str, Areas]]
    minimal_radius: NotRequired[tuple[Share, Share | None, NotNegative, NotNegative]]
    calibration: NotRequired[Annotated[dict[str, CalibrationRows], Filled()]]
    certificates: NotRequired[Certificates]
    region_distance: NotRequired[Distances]
    corruptions: NotRequired[Annotated[dict[str, Annotated[dict[str, Areas], Filled()]], Filled()]]


class Header(TypedDict):
    """The first value of a file of records."""

    settings: dict


class Indexed(TypedDict):
    """The entries that every record has."""

    index: NotNegative


def check_header(header: Any, where: str) -> None:
    """Raises UserError unless the first value of a file of records holds settings; messages call it ``where``."""
    check(header, Header, f'{where}: the first line')


def check_index(record: Any, where: str) -> None:
    """Raises UserError unless a value is a record with the index of an image; messages call its file ``where``."""
    check(record, Indexed, f'{where}: record')


def check_record(record: Any, num_classes: int, where: str) -> None:
    """Raises UserError unless a value is a record of ``mmadv test`` whose numbers agree.

    Args:
        record: a JSON value.
        num_classes: the dataset's number of classes.
        where: name of the file in messages.
    """
    check_index(record, where)
    where = f'{where}, image {record["index"]}: record'
    if 'failed' in record:
        check(record, Failed, where)
        return
    check(record, Record, where)
    if not record['attacked'].keys() == record['passes'].keys():
        raise UserError(f'{where}.passes must be of the radii of record.attacked, {list(record["attacked"])}')
    check_areas(record['clean'], num_classes, f'{where}.clean')
    labelled = _labelled(record['clean'])
    for radius, members in record['attacked'].items():
        if not members:
            raise UserError(f'{where}.attacked.{radius} must name at least one attack')
        _check_same(members, labelled, num_classes, f'{where}.attacked.{radius}')
    _check_same(record.get('rounded', {}), labelled, num_classes, f'{where}.rounded')
    for name, severities in record.get('corruptions', {}).items():
        _check_same(severities, labelled, num_classes, f'{where}.corruptions.{name}')
    if 'certificates' in record:
        _check_certificates(record['certificates'], labelled, num_classes, f'{where}.certificates')


def check_areas(areas: list[list[int]], num_classes: int, where: str) -> None:
    """Raises UserError if a class occurs twice or is unknown, or an intersection exceeds prediction or label."""
    classes = [row[0] for row in areas]
    if len(set(classes)) < len(classes) or max(classes, default=0) >= num_classes:
        raise UserError(f'{where} must hold each of the classes 0 to {num_classes - 1} at most once; found {classes}')
    for _, intersection, prediction, label in areas:
        if intersection > min(prediction, label):
            raise UserError(f'{where}: an intersection of {intersection} pixels is larger than the prediction or label')


def _check_same(areas: Mapping[str, list[list[int]]], labelled: dict[int, int], num_classes: int, where: str) -> None:
    """Checks that several predictions of one image have valid areas and all have the image's labelled pixels."""
    for name, rows in areas.items():
        check_areas(rows, num_classes, f'{where}.{name}')
        if _labelled(rows) != labelled:
            raise UserError(f'{where}.{name} has other labelled pixels than record.clean')


def _check_certificates(certificates: Certificates, labelled: dict[int, int], num_classes: int, where: str) -> None:
    """Checks the certificates of an image: a class has at most as many abstained as labelled pixels."""
    areas = {'smoothed': certificates['smoothed']}
    areas |= {f'certified[{n}].areas': one['areas'] for n, one in enumerate(certificates['certified'])}
    _check_same(areas, labelled, num_classes, where)
    for n, one in enumerate(certificates['certified']):
        most = [labelled.get(k, 0) for k in range(num_classes)]
        if len(one['abstained']) != num_classes or any(
            pixels > label for pixels, label in zip(one['abstained'], most, strict=True)
        ):
            raise UserError(
                f'{where}.certified[{n}].abstained must have at most the labelled pixels of each class, {most}; '
                f'found {one["abstained"]}'
            )


def _labelled(areas: list[list[int]]) -> dict[int, int]:
    return {row[0]: row[3] for row in areas if row[3]}


def check_complete(records: Sequence[Mapping[str, Any]], num_classes: int, where: str) -> None:
    """Raises UserError unless the records of a complete run hold each image once, all under the same attacks.

    Args:
        records: the records of ``mmadv test``, without records of failures.
        num_classes: the dataset's number of classes.
        where: name of the file in messages.
    """
    if not records:
        raise UserError(f'{where} holds no result of an image; run mmadv test again')
    seen: set[int] = set()
    attacks = None
    for record in records:
        check_record(record, num_classes, where)
        index = record['index']
        if 'failed' in record:
            raise UserError(f'{where}, image {index}: the model failed on it; resume mmadv test')
        if index in seen:
            raise UserError(f'{where} holds image {index} twice; restart mmadv test')
        seen.add(index)
        mine = {radius: list(members) for radius, members in record['attacked'].items()}
        if attacks is not None and mine != attacks:
            raise UserError(f'{where}, image {index}: the attacks {shown(mine)} are not those of the first image')
        attacks = mine
