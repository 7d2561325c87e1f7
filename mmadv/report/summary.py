"""What a command prints of an evaluation: the table of all metrics, and sentences on what does not fit into it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmadv.printing import printable
from mmadv.report.breakdown import object_size_text
from mmadv.report.minimal_radius import minimal_radius_text
from mmadv.report.table import COLUMNS, percent, summary_table


def summary_text(evaluation: Mapping[str, Any]) -> str:
    """Returns the table of all metrics and what follows it, blocks parted by empty lines.

    Args:
        evaluation: the ``evaluation`` of a result, as docs/results.md describes it.
    """
    return '\n\n'.join([summary_table(evaluation), *blocks(evaluation)])


def blocks(evaluation: Mapping[str, Any]) -> Iterator[str]:
    """Yields what follows the table, of what the evaluation has."""
    said = list(sentences(evaluation))
    if said:
        yield '\n'.join(map(printable, said))
    if evaluation.get('object_sizes'):
        yield object_size_text(evaluation)


def sentences(evaluation: Mapping[str, Any]) -> Iterator[str]:
    """Yields the sentences on single numbers, of what the evaluation has."""
    for radius, attacked in evaluation['attacked'].items():
        if 'minimised' in attacked:
            yield lowest_miou_text(radius, attacked['minimised'])
    for radius, rounded in (evaluation.get('rounded') or {}).items():
        yield rounded_text(radius, rounded)
    if evaluation.get('minimal_radius'):
        yield minimal_radius_text(evaluation['minimal_radius'])


def rounded_text(radius: str, rounded: Mapping[str, Any]) -> str:
    """Returns the sentence on what rounding to 8 bits costs the attack."""
    parts = [
        f'{COLUMNS[name]} {percent(rounded[name])} % ({100 * rounded["difference"][name]:+.2f} points)'
        for name in ('aAcc_image_mean', 'mIoU')
    ]
    return f'{radius}: images rounded to 8 bits and predicted again: {", ".join(parts)}'


def lowest_miou_text(radius: str, minimised: Mapping[str, Any]) -> str:
    """Returns the sentence on the search for the lowest mIoU over the dataset."""
    starts = [value for value in minimised['starts'].values() if value is not None]
    if not starts:
        return f'{radius}: mIoU over the dataset is undefined'
    return (
        f'{radius}: lowest mIoU over all choices of attacks found {percent(minimised["value"])} %, from '
        f'{len(starts)} starts that end between {percent(min(starts))} and {percent(max(starts))} %; '
        f'no choice is below {percent(minimised["lower_bound"])} %'
    )
