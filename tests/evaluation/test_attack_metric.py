"""The metrics: what they count, in one process and in several."""

import json
import multiprocessing
import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmadv.errors import UserError
from mmadv.evaluation import AttackMetric, EnsembleMetric
from mmadv.evaluation.image_record import FailedRecord, ImageRecord, Records, image_record
from mmadv.report.evaluation import Evaluation
from mmadv.robustness import Counts

META = {'classes': ('a', 'b')}
LABEL = torch.tensor([[[0, 0, 1, 1]]])


def sample(index, clean, attacked, label=LABEL, ignore_index=255):
    """A data sample as the loop makes it, from lists of classes of four pixels."""
    content = {
        'sample_idx': index,
        'image_name': f'{index}.png',
        'gt_sem_seg': {'data': label},
        'pred_sem_seg': {'data': torch.tensor([[clean]])},
        'adversarial': {'4/255': {name: torch.tensor([values]) for name, values in attacked.items()}},
        'attack': {'title': 'some attack', 'ignore_index': ignore_index, 'passes': {'4/255': (3, 2)}},
    }
    return {**content, 'attack_record': image_record(content, 2)}


def evaluate(kind, samples, size=None):
    metric = kind()
    metric.dataset_meta = META
    metric.process(None, samples)
    return metric, metric.evaluate(size or len(samples))


def test_single_attack():
    metric, scalars = evaluate(
        AttackMetric, [sample(0, [0, 0, 1, 1], {'attack': [0, 0, 0, 0]}), sample(1, [0, 0, 1, 0], {'attack': [1] * 4})]
    )
    assert scalars['attack/clean/aAcc'] == 7 / 8
    assert scalars['attack/4/255/worst_case/aAcc'] == 0.5
    assert scalars['attack/4/255/worst_case/mIoU'] == pytest.approx(2 / 6)
    attacked = metric.evaluation.attacked['4/255']
    assert attacked.members == {}
    assert attacked.worst_case.iou == pytest.approx([2 / 6, 2 / 6])
    assert attacked.passes.to_json() == {
        'forward': {'total': 6, 'mean_per_image': 3.0, 'max_per_image': 3},
        'backward': {'total': 4, 'mean_per_image': 2.0, 'max_per_image': 2},
    }
    assert metric.per_image[1].clean == 0.75
    assert metric.evaluation.title == 'some attack'
    content = metric.evaluation.to_json()
    json.dumps([scalars, content, [image.to_json() for image in metric.per_image]], allow_nan=False)
    assert Evaluation.from_json(json.loads(json.dumps(content))) == metric.evaluation
    assert all(type(value) is float for value in scalars.values())


def test_ensemble_reports_members_and_the_worst_of_each_image():
    metric, scalars = evaluate(
        EnsembleMetric,
        [
            sample(0, [0, 0, 1, 1], {'x': [0, 0, 0, 0], 'y': [1, 1, 1, 0]}),  # 2 correct, 1 correct
            sample(1, [0, 0, 1, 1], {'x': [1, 1, 0, 0], 'y': [0, 0, 1, 1]}),  # 0 correct, 4 correct
        ],
    )
    assert scalars['attack/4/255/x/aAcc'] == 2 / 8
    assert scalars['attack/4/255/y/aAcc'] == 5 / 8
    assert scalars['attack/4/255/worst_case/aAcc'] == 1 / 8
    assert [image.attacked['4/255'].worst_member for image in metric.per_image] == ['y', 'x']
    # The chosen predictions: class a is never hit, of b one pixel of four labelled and of five predicted.
    assert scalars['attack/4/255/worst_case/mIoU'] == pytest.approx((0 + 1 / 8) / 2)
    # Of the four choices (y, x), the worst per image, is the lowest: (x, x) and (y, y) and (x, y) keep more.
    for name in ('greedy', 'minimised'):
        assert scalars[f'attack/4/255/worst_case/mIoU_{name}'] == pytest.approx(1 / 16)
    assert 0 <= scalars['attack/4/255/worst_case/mIoU_lower_bound'] <= 1 / 16
    minimised = metric.evaluation.attacked['4/255'].minimised
    assert minimised.value == min(minimised.starts.values()) and minimised.lower_bound <= minimised.value
    low, high = metric.evaluation.interval('4/255', 'mIoU_minimised')
    assert 0 <= low <= 1 / 16 <= high


def test_image_means_leave_void_images_out():
    void = torch.full((1, 1, 4), 255)
    metric, scalars = evaluate(
        AttackMetric,
        [
            sample(0, [0, 0, 1, 1], {'attack': [0, 0, 0, 1]}, label=torch.tensor([[[0, 0, 1, 255]]])),
            sample(1, [0] * 4, {'attack': [0] * 4}, label=void),
        ],
    )
    assert metric.evaluation.excluded == ('1.png',)
    assert metric.evaluation.images == 1
    assert scalars['attack/4/255/worst_case/aAcc_image_mean'] == pytest.approx(2 / 3)
    assert metric.per_image[1].clean is None
    assert metric.per_image[1].attacked['4/255'].worst_member is None


def test_another_ignore_index_comes_from_the_loop():
    label = torch.tensor([[[0, 0, 1, 7]]])
    _, scalars = evaluate(AttackMetric, [sample(0, [0, 0, 1, 0], {'attack': [0] * 4}, label, ignore_index=7)])
    assert scalars['attack/clean/aAcc'] == 1.0


def test_repeated_images_count_once():
    repeated = [sample(i, [0, 0, 1, 1], {'attack': [i % 2] * 4}) for i in (1, 0, 1)]
    metric, _ = evaluate(AttackMetric, repeated)
    assert [image.index for image in metric.per_image] == [0, 1]
    assert metric.evaluation.clean.pixels == 8


def test_records_are_in_order_without_repetitions_and_failures():
    def record(index, n=0):
        return ImageRecord(index, f'{index}.png', None, 'some attack', 255, {}, [[0, n, n, n]], {})

    texts = [one.to_text() for one in (record(7), record(2, 1), record(2, 2))]
    texts += [FailedRecord(n, f'{n}.png', 'nan').to_text() for n in (9, 2, 3)]
    records = Records(texts)
    assert list(records) == [record(2, 2), record(7)] == [records[0], records[-1]]
    assert records[1:] == [record(7)] and len(records) == 2
    assert [failed.index for failed in records.failed] == [3, 9]
    assert records == Records(texts[:3]) and records != Records(texts[:1])


def test_a_record_keeps_what_measurements_add():
    measured = {'objects': {'sizes': [[3, 2, 4]]}, 'rounded': {'4/255': [[0, 1, 1, 1]]}}
    record = replace(sample(0, [0] * 4, {'attack': [0] * 4})['attack_record'], measurements=measured)
    assert json.loads(record.to_text())['rounded'] == {'4/255': [[0, 1, 1, 1]]}
    assert ImageRecord.from_text(record.to_text()) == record


def test_what_is_computed_over_all_images_is_not_computed_for_each(monkeypatch):
    calls = []
    accuracy = Counts.accuracy.fget
    monkeypatch.setattr(Counts, 'accuracy', property(lambda counts: calls.append(len(counts)) or accuracy(counts)))

    def number(images):
        calls.clear()
        evaluate(EnsembleMetric, [sample(n, [0, 0, 1, 1], {'x': [0] * 4, 'y': [1] * 4}) for n in range(images)])
        return len(calls)

    assert number(3) == number(12) > 0


def test_class_that_never_occurs_is_none():
    metric, _ = evaluate(AttackMetric, [sample(0, [0] * 4, {'attack': [0] * 4}, torch.zeros(1, 1, 4, dtype=int))])
    assert metric.evaluation.clean.iou == (1.0, None)
    assert metric.evaluation.clean['mIoU'] == 1.0


def test_refused():
    with pytest.raises(UserError, match='found the members x, y; use EnsembleMetric'):
        evaluate(AttackMetric, [sample(0, [0] * 4, {'x': [0] * 4, 'y': [0] * 4})])
    with pytest.raises(UserError, match='none of the 1 images has a labelled pixel'):
        evaluate(AttackMetric, [sample(0, [0] * 4, {'attack': [0] * 4}, torch.full((1, 1, 4), 255))])
    plain = sample(0, [0] * 4, {'attack': [0] * 4})
    del plain['attack_record']
    with pytest.raises(UserError, match='AttackMetric found no attacked predictions; set test_cfg = dict'):
        evaluate(AttackMetric, [plain])


def _process(rank, port, queue):
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    torch.distributed.init_process_group('gloo', rank=rank, world_size=2)
    metric = EnsembleMetric(collect_device='gpu')
    metric.dataset_meta = META
    # Three images on two processes: the sampler repeats the first one on the second process.
    for index in ([0, 2], [1, 0])[rank]:
        values = np.random.default_rng(index).integers(0, 2, (3, 4)).tolist()
        metric.process(None, [sample(index, values[0], {'x': values[1], 'y': values[2]})])
    scalars = metric.evaluate(3)
    queue.put((rank, scalars, metric.evaluation))
    torch.distributed.destroy_process_group()


def test_two_processes_count_no_image_twice(unused_port):
    context = multiprocessing.get_context('spawn')
    queue = context.Queue()
    processes = [context.Process(target=_process, args=(rank, unused_port, queue)) for rank in range(2)]
    for process in processes:
        process.start()
    results = {rank: (scalars, evaluation) for rank, scalars, evaluation in (queue.get(timeout=120) for _ in range(2))}
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    samples = []
    for index in range(3):
        values = np.random.default_rng(index).integers(0, 2, (3, 4)).tolist()
        samples.append(sample(index, values[0], {'x': values[1], 'y': values[2]}))
    metric, scalars = evaluate(EnsembleMetric, samples)
    assert results[0] == (scalars, metric.evaluation)
    assert results[1] == (scalars, None)
