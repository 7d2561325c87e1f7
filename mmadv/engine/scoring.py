"""The pixels that a score counts: a config's evaluator sets ``ignore_index``, even if the decode head differs."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmseg.registry import METRICS

from mmadv.errors import UserError

# Settings of IoUMetric that change no number of a test, or that mmadv obeys.
FOLLOWED = ('type', '_scope_', 'ignore_index', 'prefix', 'collect_device', 'collect_dir', 'beta', 'nan_to_num')


def evaluator_ignore_index(evaluator: Any, otherwise: int = 255) -> int:
    """Returns the label that the metrics of an evaluator's config leave out.

    Args:
        evaluator: config of a metric, or of several metrics; None for no metric.
        otherwise: value to return if no metric names a label.

    Raises:
        UserError: the metrics leave out different labels, or ``ignore_index`` is not an integer.
    """
    return _agreed((_stated(metric) for metric in _metrics(evaluator)), otherwise)


def metrics_ignore_index(metrics: Iterable[Any], otherwise: int = 255) -> int:
    """Returns the label that built metrics leave out, with the errors of ``evaluator_ignore_index``."""
    return _agreed((getattr(metric, 'ignore_index', None) for metric in metrics), otherwise)


def scored_ignore_index(config: Mapping[str, Any]) -> int:
    """Returns the label that a test of a config leaves out: its evaluator decides, or else its decode head."""
    head = config['model'].get('decode_head') or {}
    last = head[-1] if isinstance(head, Sequence) else head
    return evaluator_ignore_index(config.get('test_evaluator'), last.get('ignore_index', 255))


def evaluator_notes(evaluator: Any) -> list[str]:
    """Returns a sentence for each setting of a config's evaluator that this package's own metrics do not follow.

    Raises:
        UserError: a metric sets ``nan_to_num``, which would change the mIoU.
    """
    notes = []
    for metric in _metrics(evaluator):
        if metric.get('nan_to_num') is not None:
            raise UserError(
                f'test_evaluator.nan_to_num is {metric["nan_to_num"]!r}, which puts a number in the place of classes '
                'that occur nowhere; mmadv leaves such classes out of its means, as IoUMetric does without it; '
                'set test_evaluator.nan_to_num=None'
            )
        wanted = metric.get('iou_metrics', 'mIoU')
        others = [name for name in ([wanted] if isinstance(wanted, str) else wanted) if name != 'mIoU']
        settings = [key for key in metric if key not in (*FOLLOWED, 'iou_metrics')]
        if not str(metric.get('type')).endswith(('IoUMetric', 'AttackMetric', 'EnsembleMetric', 'SEAMetric')):
            notes.append(f'test_evaluator: {metric.get("type")} is not computed here, but aAcc, mAcc and mIoU are')
        elif others:
            notes.append(f'test_evaluator: {", ".join(others)} is not computed here, but aAcc, mAcc and mIoU are')
        elif settings:
            notes.append(f'test_evaluator: {", ".join(settings)} has no effect here')
    return notes


def loop_notes(test_cfg: Mapping[str, Any] | None) -> list[str]:
    """Returns a note if the config's test loop would predict in half precision; none otherwise."""
    if not (test_cfg or {}).get('fp16'):
        return []
    return ['test_cfg.fp16 has no effect here: the evaluation has a precision of its own']


def disagreement(head: int, scored: int) -> list[str]:
    """Returns a note if the decode head ignores another label than the evaluator; none if they agree."""
    if head == scored:
        return []
    return [
        f'the evaluator leaves out label {scored} and the decode head label {head}: score and attack follow the '
        f'evaluator; a pixel whose label is 255 or {head} and no class is not attacked, and a prediction there counts '
        'against the IoU, as in a test of mmseg'
    ]


def _metrics(evaluator: Any) -> list[Mapping[str, Any]]:
    parts = evaluator if isinstance(evaluator, Sequence) else [evaluator]
    return [part for part in parts if isinstance(part, Mapping)]


def _stated(metric: Mapping[str, Any]) -> Any:
    """Returns the ``ignore_index`` of a metric's config, or else the default of the metric's class."""
    if 'ignore_index' in metric:
        return metric['ignore_index']
    kind = METRICS.get(metric['type']) if isinstance(metric.get('type'), str) else metric.get('type')
    if kind is None:
        return None
    parameter = inspect.signature(kind).parameters.get('ignore_index')
    return None if parameter is None else parameter.default


def _agreed(values: Iterable[Any], otherwise: int) -> int:
    stated = list(dict.fromkeys(value for value in values if value is not None))
    for value in stated:
        if isinstance(value, bool) or not isinstance(value, int):
            raise UserError(f'ignore_index of an evaluator must be an integer; found {value!r}')
    if len(stated) > 1:
        raise UserError(
            f'the metrics of the evaluator leave out different labels: ignore_index {" and ".join(map(str, stated))}; '
            'give one to all'
        )
    return stated[0] if stated else otherwise
