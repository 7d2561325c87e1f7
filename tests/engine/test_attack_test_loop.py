"""The loop: what it predicts, what its results do not depend on, and what it refuses."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from tiny_project import runner_for_test

from mmadv.attacks import PGD, Linf, WorstCase, ama, auto, parse_radius
from mmadv.attacks.result import AttackOutput
from mmadv.engine.spec import EvaluationSpec, attacks_by_radius, radius_text
from mmadv.errors import UserError
from mmadv.report.evaluation import FailedImage
from mmadv.report.run import SourceModel

PGD_CONFIG = {'type': 'PGD', 'threat': {'type': 'Linf', 'radius': '8/255'}, 'steps': 3, 'step_size': 0.02}
SEA_CONFIG = {'type': 'sea', 'radius': '8/255', 'iterations': 10}


def evaluate(tiny, tmp_path, loop, metric=None, **options):
    runner = runner_for_test(tiny / 'config.py', tmp_path, {'type': 'AttackTestLoop', **loop}, metric, **options)
    scalars = runner.test()
    return runner.test_loop, runner.test_evaluator.metrics[0], scalars


def test_clean_numbers_are_those_of_the_stock_loop_and_metric(tiny, tmp_path):
    stock = runner_for_test(tiny / 'config.py', tmp_path / 'stock', {'type': 'TestLoop'}, {'type': 'IoUMetric'}).test()
    _, metric, scalars = evaluate(tiny, tmp_path / 'ours', {})
    for name in ('aAcc', 'mAcc', 'mIoU'):
        assert round(100 * scalars[f'attack/clean/{name}'], 2) == pytest.approx(float(stock[name]), abs=0.011)
    assert metric.evaluation.excluded == ('5.png',)
    assert metric.evaluation.images == 5
    assert metric.evaluation.attacked == {}


def test_stock_metric_beside_ours_sees_the_clean_predictions(tiny, tmp_path):
    metrics = [{'type': 'AttackMetric'}, {'type': 'IoUMetric', 'prefix': 'stock'}]
    runner = runner_for_test(tiny / 'config.py', tmp_path, {'type': 'AttackTestLoop', 'attack': PGD_CONFIG}, metrics)
    scalars = runner.test()
    assert 100 * scalars['attack/clean/mIoU'] == pytest.approx(float(scalars['stock/mIoU']), abs=0.011)


def test_batch_size_and_order_do_not_matter(tiny, tmp_path):
    loop = {'attack': {**PGD_CONFIG, 'random_start': True}, 'radii': ['8/255'], 'seed': 3}
    _, one, _ = evaluate(tiny, tmp_path / '1', loop)
    _, four, _ = evaluate(tiny, tmp_path / '4', loop, **{'test_dataloader.batch_size': 4})
    _, other, _ = evaluate(tiny, tmp_path / 'other', {**loop, 'seed': 4})
    _, part, _ = evaluate(tiny, tmp_path / 'part', {**loop, 'limit': 3})

    def accuracies(metric):
        return {i.image: i.attacked['8/255'].worst_case for i in metric.per_image if i.valid_pixels}

    assert accuracies(four) == pytest.approx(accuracies(one), abs=2e-3)
    assert list(accuracies(part)) == ['0.png', '2.png', '4.png']
    assert accuracies(part) == pytest.approx({k: accuracies(one)[k] for k in accuracies(part)}, abs=2e-3)
    assert accuracies(other) != accuracies(one)


def test_radius_zero_is_the_clean_result_and_larger_radii_lower(tiny, tmp_path):
    loop, metric, _ = evaluate(
        tiny, tmp_path, {'attack': SEA_CONFIG, 'radii': ['0', 0.001, '32/255'], 'show': 2}, {'type': 'SEAMetric'}
    )
    evaluation = metric.evaluation
    assert evaluation.title == 'SEA (paper: 4 losses)'
    assert list(evaluation.attacked) == ['0', '0.001', '32/255']
    zero = evaluation.attacked['0']
    assert list(zero.members) == ['masked_ce', 'balanced_ce', 'js', 'masked_spherical']
    assert all(member == evaluation.clean for member in zero.members.values())
    assert {k: zero.worst_case[k] for k in evaluation.clean.scalars} == evaluation.clean.scalars
    assert zero.worst_case.iou == evaluation.clean.iou
    assert zero.passes.forward.total == 0
    worst = [result.worst_case['aAcc'] for result in evaluation.attacked.values()]
    assert worst[0] >= worst[1] > worst[2] + 0.02
    assert evaluation.attacked['32/255'].passes.backward.mean_per_image == 40
    assert {'0.png', '3.png'} <= {example.name for example in loop.examples}  # and the extremes
    example = loop.examples[0]
    assert list(example.adversarial) == ['0.001', '32/255']
    change = np.abs(example.adversarial['32/255'] - example.image).max()
    assert change == pytest.approx(32 / 255, abs=1e-6)
    assert example.image[15, 1] == pytest.approx(np.full(3, 90 / 255), abs=0.1)


@dataclass(frozen=True, kw_only=True)
class Helpful(PGD):
    """PGD towards the labels: every iterate is better for the model than the clean image."""

    def run(self, context, start=None):
        inner = replace(self, objective=replace(self.objective, targeted=True), keep='last')
        return PGD.run(inner, context, start)


@dataclass(frozen=True, kw_only=True)
class Scattered(PGD):
    """A random image of the ball, which says that it is the strongest."""

    keep: str = 'lowest_accuracy'

    def run(self, context, start=None):
        return AttackOutput(self.threat.random_start(context.images, context.seeds))


def test_attack_that_keeps_the_strongest_is_never_better_for_the_model_than_no_attack(tiny, tmp_path):
    def accuracies(keep, *, ensemble):
        attack = Helpful(threat=Linf(radius='32/255'), steps=5, random_start=False, keep=keep)
        whole = WorstCase(attacks={'helpful': attack}) if ensemble else attack
        metric = {'type': 'EnsembleMetric'} if ensemble else None
        _, metric, _ = evaluate(tiny, tmp_path / f'{keep}_{ensemble}', {'attack': whole}, metric)
        return [(image.clean, image.attacked['32/255'].worst_case) for image in metric.per_image if image.valid_pixels]

    raw = accuracies('last', ensemble=False)
    assert any(clean < attacked for clean, attacked in raw)  # an attack that returns its last iterate stays as it is
    with_clean = [(clean, min(clean, attacked)) for clean, attacked in raw]
    assert accuracies('lowest_accuracy', ensemble=False) == with_clean
    assert accuracies('last', ensemble=True) == with_clean


def test_shared_sweep_never_rises_with_the_radius_and_names_what_it_shares(tiny, tmp_path):
    loop = {'attack': Scattered(threat=Linf(radius='1/255')), 'radii': ['8/255', '0', '2/255', '4/255']}
    _, alone, _ = evaluate(tiny, tmp_path / 'alone', loop)
    shared_loop, shared, _ = evaluate(tiny, tmp_path / 'shared', {**loop, 'sweep': 'shared'})
    _, four, _ = evaluate(tiny, tmp_path / '4', {**loop, 'sweep': 'shared'}, **{'test_dataloader.batch_size': 4})
    assert list(shared.evaluation.attacked) == loop['radii']

    def curves(metric):
        radii = ('2/255', '4/255', '8/255')
        return np.array([[one.attacked[r].worst_case for r in radii] for one in metric.per_image if one.valid_pixels])

    own = curves(alone)
    assert (np.diff(own) > 0).any()  # by itself the attack is sometimes weaker at a larger radius
    np.testing.assert_array_equal(curves(shared), np.minimum.accumulate(own, axis=1))
    np.testing.assert_array_equal(curves(shared), curves(four))
    assert 'the radii 8/255, 2/255, 4/255 share results' in shared_loop.caveats[0]


def test_shared_sweep_of_auto_runs_at_larger_radii_the_parts_that_led(tiny, tmp_path):
    loop = {'attack': auto('4/255', passes=12), 'radii': ['16/255', '4/255']}
    _, alone, _ = evaluate(tiny, tmp_path / 'alone', loop)
    _, shared, _ = evaluate(tiny, tmp_path / 'shared', {**loop, 'sweep': 'shared'})
    pairs = list(zip(alone.per_image, shared.per_image, strict=True))
    assert all(own.attacked['4/255'] == one.attacked['4/255'] for own, one in pairs)
    passes = [(own.attacked['16/255'].forward_passes, one.attacked['16/255'].forward_passes) for own, one in pairs]
    assert all(few <= all_parts for all_parts, few in passes) and any(few < all_parts for all_parts, few in passes)
    for _, image in pairs:
        if image.valid_pixels:
            assert image.attacked['16/255'].worst_case <= image.attacked['4/255'].worst_case


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'radii': ('0', '4/255')}, 'test_cfg.sweep shared needs two positive radii or more; found 1; add radii'),
        ({'attack': None, 'radii': ()}, 'test_cfg.sweep shared needs two positive radii or more; found 0; add radii'),
        ({'attack': PGD(threat=Linf(radius=0.1))}, 'needs an attack that keeps its strongest image; PGD is defined'),
        ({'source': SourceModel('config.py', 'weights.pth')}, 'which a transfer attack does not see; leave out'),
    ],
)
def test_shared_sweep_that_would_do_nothing_is_refused(arguments, message):
    right = {'attack': ama('4/255'), 'radii': ('2/255', '4/255'), 'sweep': 'shared'}
    assert EvaluationSpec(**right).settings()['sweep'] == 'shared'
    with pytest.raises(UserError, match=message):
        EvaluationSpec(**{**right, **arguments})


def test_shown_images_are_rgb(tiny, tmp_path):
    loop, _, _ = evaluate(tiny, tmp_path, {'limit': 1, 'show': 1})
    (example,) = loop.examples
    box = example.image[example.label == 1].mean(axis=0)
    assert box == pytest.approx(np.array([170, 80, 60]) / 255, abs=0.03)


def test_model_is_left_as_it_was(tiny, tmp_path):
    runner = runner_for_test(tiny / 'config.py', tmp_path, {'type': 'AttackTestLoop', 'attack': PGD_CONFIG})
    before = {name: value.clone() for name, value in runner.model.state_dict().items()}
    required = [parameter.requires_grad for parameter in runner.model.parameters()]
    runner.test()
    assert all(torch.equal(value, before[name]) for name, value in runner.model.state_dict().items())
    assert [parameter.requires_grad for parameter in runner.model.parameters()] == required
    assert all(parameter.grad is None for parameter in runner.model.parameters())
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()


def test_nan_logits_name_image_and_iteration(tiny, tmp_path):
    runner = runner_for_test(tiny / 'config.py', tmp_path, {'type': 'AttackTestLoop', 'attack': PGD_CONFIG})
    with torch.no_grad():
        runner.model.decode_head.conv_seg.bias.fill_(float('nan'))
    with pytest.raises(UserError, match=r'NaN or infinite logits for the clean image 0.png \(iteration 0\)'):
        runner.test()


def test_nan_logits_during_the_attack_name_image_and_iteration(tiny, tmp_path):
    runner = runner_for_test(tiny / 'config.py', tmp_path, {'type': 'AttackTestLoop', 'attack': PGD_CONFIG})
    calls = []

    def fail_late(module, args, outputs):
        calls.append(len(outputs))
        return tuple(output * float('nan') for output in outputs) if len(calls) == 4 else outputs

    runner.model.backbone.register_forward_hook(fail_late)
    runner.test()
    evaluation = runner.test_evaluator.metrics[0].evaluation
    reason = (
        'the model returns NaN or infinite logits for the image 0.png at iteration 2 of PGD with radius 8/255; '
        'check the checkpoint and the precision'
    )
    assert evaluation.failed == (FailedImage('0.png', reason),)
    assert evaluation.images == 4


@pytest.mark.parametrize(
    ('attack', 'radii', 'message'),
    [
        (None, ['4/255'], 'no attack'),
        (PGD_CONFIG, ['4/255', '4/255'], 'given twice'),
        (PGD_CONFIG, ['-4/255'], "radius '-4/255' is negative"),
        (PGD_CONFIG, ['4/0'], "'4/0' divides by zero"),
        (PGD_CONFIG, ['big'], "'big' is not a number"),
        ({**PGD_CONFIG, 'type': 'PDG'}, [], "unknown attack 'PDG'; did you mean 'PGD'"),
        ({'type': 'Linf', 'radius': 0.1}, [], "unknown attack 'Linf'"),
    ],
)
def test_refused_attacks(attack, radii, message):
    with pytest.raises(UserError, match=message):
        attacks_by_radius(attack, radii)


def test_model_and_dataset_must_agree_on_the_classes(tiny, tmp_path):
    metainfo = {'classes': ('a', 'b'), 'palette': [[0, 0, 0], [9, 9, 9]]}
    with pytest.raises(UserError, match='the model predicts 3 classes, the dataset has 2'):
        evaluate(tiny, tmp_path, {}, **{'test_dataloader.dataset.metainfo': metainfo})


def test_titles_and_radius_texts():
    pgd = PGD(threat=Linf(radius='4/255'), steps=2, step_size=0.01)
    assert EvaluationSpec().title == 'clean'
    assert EvaluationSpec(attack=pgd, target='class:sky').title == 'PGD, class:sky'
    assert EvaluationSpec(attack=ama('4/255'), radii=('0', '2/255')).title == 'AMA (100 passes)'
    assert EvaluationSpec(attack=ama(2.0, threat='L2'), region='class:sky').title == (
        'AMA (100 passes), L2, inside class:sky'
    )
    assert list(attacks_by_radius(pgd)) == ['4/255']
    assert parse_radius(radius_text(0.5 / 255)) == 0.5 / 255


@pytest.mark.parametrize('config', ['', 'demo/pspnet_clean_digits.py'])
def test_a_source_without_weights_is_refused(tiny, tmp_path, config):
    config = config or str(tiny / 'config.py')  # a name is that of a config of mmadv
    settings = {'type': 'AttackTestLoop', 'attack': PGD_CONFIG, 'source': {'config': config}}
    with pytest.raises(UserError, match=rf'the source config {config} needs a checkpoint; only models of Hugging Face'):
        runner_for_test(tiny / 'config.py', tmp_path, settings).test()
