"""What a command prints of an evaluation: the table of all metrics, and sentences on what does not fit into it."""

from __future__ import annotations

from collections.abc import Iterator

from mmadv.printing import printable
from mmadv.report.breakdown import object_size_table
from mmadv.report.evaluation import Evaluation, MinimisedMIoU, RoundedValues
from mmadv.report.metrics import CURVES
from mmadv.report.minimal_radius import minimal_radius_text
from mmadv.report.table import metrics_table, percent


def summary_text(evaluation: Evaluation) -> str:
    """Returns the table of all metrics and what follows it, blocks parted by empty lines."""
    return '\n\n'.join([metrics_table(evaluation).text(), *blocks(evaluation)])


def blocks(evaluation: Evaluation) -> Iterator[str]:
    """Yields what follows the table, of what the evaluation has."""
    said = list(sentences(evaluation))
    if said:
        yield '\n'.join(map(printable, said))
    sizes = object_size_table(evaluation)
    if sizes:
        yield sizes.text()


def sentences(evaluation: Evaluation) -> Iterator[str]:
    """Yields the sentences on single numbers, of what the evaluation has."""
    for radius, result in evaluation.attacked.items():
        if result.minimised is not None:
            yield lowest_miou_text(radius, result.minimised)
    for radius, rounded in (evaluation.rounded or {}).items():
        yield rounded_text(radius, rounded)
    if evaluation.minimal_radius is not None:
        yield minimal_radius_text(evaluation.minimal_radius)


def rounded_text(radius: str, rounded: RoundedValues) -> str:
    """Returns the sentence on what rounding to 8 bits costs the attack."""
    parts = []
    for metric in CURVES:
        difference = rounded.difference[metric.name]
        points = '' if difference is None else f' ({100 * difference:+.2f} points)'
        parts.append(f'{metric.label} {percent(rounded[metric.name])} %{points}')
    return f'{radius}: images rounded to 8 bits and predicted again: {", ".join(parts)}'


def lowest_miou_text(radius: str, minimised: MinimisedMIoU) -> str:
    """Returns the sentence on the search for the lowest mIoU over the dataset."""
    starts = [value for value in minimised.starts.values() if value is not None]
    if not starts:
        return f'{radius}: mIoU over the dataset is undefined'
    return (
        f'{radius}: lowest mIoU over all choices of attacks found {percent(minimised.value)} %, from '
        f'{len(starts)} starts that end between {percent(min(starts))} and {percent(max(starts))} %; '
        f'no choice is below {percent(minimised.lower_bound)} %'
    )
