"""The check that the classes of an imported network agree with the classes of the test data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from mmadv.errors import UserError
from mmadv.models.segmentors.imported_segmentor import ImportedSegmentor, plain


def label_map_notes(segmentor: nn.Module, metainfo: Mapping[str, Any]) -> list[str]:
    """Returns a note for each sign that a network's label map differs from the data set's; none for mmseg's models.

    Args:
        segmentor: the model.
        metainfo: meta information of the data set.

    Raises:
        UserError: the number or the order of the classes differs.
    """
    if not isinstance(segmentor, ImportedSegmentor):
        return []
    names, classes = segmentor.class_names, tuple(metainfo['classes'])
    network = segmentor.decode_head.network_name
    own, wanted = ([plain(name) for name in some] for some in (names, classes))
    if len(own) != len(wanted):
        raise UserError(
            f'{network} has {len(own)} classes ({_shown(names)}), the data set has {len(wanted)} ({_shown(classes)}); '
            'give model.classes, the names of the data set in its order, if the network has them all'
        )
    if own != wanted and sorted(own) == sorted(wanted):
        raise UserError(
            f"{network} has the data set's classes in another order, {_shown(names)}; give model.classes, the names of "
            f'the data set in its order: {_shown(classes)}'
        )
    notes = []
    different = [k for k, (a, b) in enumerate(zip(own, wanted, strict=True)) if a != b]
    if different:
        k = different[0]
        notes.append(
            f'{len(different)} of {len(own)} classes have other names in {network} than in the data set, first class '
            f"{k}: '{names[k]}' and '{classes[k]}'; the scores are valid only if both names mean the same class"
        )
    if segmentor.reduces_labels and not metainfo.get('reduce_zero_label'):
        notes.append(
            f'the processor of {network} takes 1 from labels and makes 0 void (do_reduce_labels), the data set does '
            'not (reduce_zero_label=False): check that label 0 is the first class of both'
        )
    return notes


def _shown(names: Sequence[str]) -> str:
    return ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
