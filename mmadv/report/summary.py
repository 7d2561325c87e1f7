"""The text that a command prints for an evaluation: the table of all metrics, and sentences on other numbers."""

from __future__ import annotations

from mmadv.printing import printable
from mmadv.report.evaluation import Evaluation, MinimisedMIoU
from mmadv.report.run import RunResults
from mmadv.report.table import metrics_table, percent


def run_text(run: RunResults) -> str:
    """Returns the table of all metrics, the sentences and the texts of the measurements, with empty lines between."""
    measured = [measurement.text(summary) for measurement, summary in run.summaries()]
    blocks = ['\n'.join(sentences(run.evaluation)), *measured]
    texts = [metrics_table(run.evaluation).text(), *(printable(block, lines=True) for block in blocks)]
    return '\n\n'.join(filter(None, texts))


def sentences(evaluation: Evaluation) -> list[str]:
    """Returns the sentences on single numbers of the attack."""
    return [
        lowest_miou_text(radius, result.minimised)
        for radius, result in evaluation.attacked.items()
        if result.minimised is not None
    ]


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
