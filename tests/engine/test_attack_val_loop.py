"""AttackValLoop and CatastrophicOverfittingHook: their numbers, and what training does with them."""

import json

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_project import write_config, write_dataset

from mmadv.attacks import PGD, Linf, RandomNoise, derive_seed
from mmadv.engine.attacked_batches import attack_batch
from mmadv.engine.catastrophic_overfitting_hook import CatastrophicOverfittingHook
from mmadv.errors import UserError
from mmadv.models import SegmentorAdapter, stack_images, stack_labels

RADIUS = dict(type='Linf', radius='8/255')
STRONG = dict(type='PGD', threat=RADIUS, steps=3, step_size='4/255')
WEAK = dict(type='FGSM', threat=RADIUS)
VAL = dict(type='AttackValLoop', attack=STRONG)
HOOK = dict(type='CatastrophicOverfittingHook', attack=STRONG, interval=2, images=4, threshold=0.5, batch_size=3)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('validation')
    write_dataset(root / 'data')
    write_config(root / 'config.py', root / 'data')
    return root


@pytest.fixture
def build_runner(folder, tmp_path):
    def build(name='work', **options):
        """Returns the runner of the tiny project with options merged in, trained adversarially with FGSM."""
        config = Config.fromfile(str(folder / 'config.py'))
        config.merge_from_dict(
            {
                'work_dir': str(tmp_path / name),
                'log_level': 'ERROR',
                'model.data_preprocessor': dict(type='AdvSegDataPreProcessor', attack=WEAK),
                'train_cfg.max_iters': 4,
                'train_cfg.val_interval': 2,
                'default_hooks.checkpoint.interval': 2,
                'default_hooks.logger': dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
                **options,
            }
        )
        return Runner.from_cfg(config)

    return build


def test_robust_metrics_are_those_of_the_attack_test_loop(build_runner):
    """Same weights, same noise: AttackMetric counts in another way what IoUMetric counts."""
    test_loop = dict(type='AttackTestLoop', attack=STRONG)
    runner = build_runner(val_cfg=VAL, test_cfg=test_loop, test_evaluator=dict(_delete_=True, type='AttackMetric'))
    validated, tested = runner.val(), runner.test()
    for name in ('aAcc', 'mIoU', 'mAcc'):
        clean, attacked = (100 * tested[f'attack/{part}/{name}'] for part in ('clean', '8/255/worst_case'))
        assert validated[name] == pytest.approx(clean, abs=0.006)
        assert validated[f'robust/{name}'] == pytest.approx(attacked, abs=0.006)
    assert validated['robust/aAcc'] < validated['aAcc']
    assert runner.val() == validated


def test_no_image_is_predicted_better_than_its_clean_one(build_runner):
    runner = build_runner()
    segmentor, data = runner.model, next(iter(runner.build_dataloader(runner.cfg.val_dataloader)))
    noise = RandomNoise(threat=Linf(radius='96/255'), steps=1)
    samples, inputs = data['data_samples'], data['inputs']
    model, labels = SegmentorAdapter(segmentor, samples), stack_labels(samples)
    images = stack_images(inputs, samples)
    segmentor.eval()
    clean = (model(images).argmax(1) == labels).sum().item()
    better = [
        seed for seed in range(20) if (noise(model, images, labels, seeds=[seed]).predictions == labels).sum() > clean
    ]
    assert better
    for seed in better:
        (attacked,) = attack_batch(segmentor, noise, inputs, samples, [seed])
        assert attacked.correct == clean


def test_limit_spreads_over_the_data_and_batches_do_not_matter(build_runner):
    runner = build_runner(val_cfg={**VAL, 'limit': 3})
    assert runner.val_dataloader.dataset.indexes == [0, 2, 4]
    one = runner.val()
    runner = build_runner('batched', **{'val_cfg': {**VAL, 'limit': 3}, 'val_dataloader.batch_size': 3})
    assert runner.val() == pytest.approx(one, abs=0.02)


def test_training_logs_both_curves_and_keeps_the_most_robust_weights(build_runner, tmp_path):
    runner = build_runner(
        **{
            'val_cfg': {**VAL, 'limit': 4},
            'default_hooks.checkpoint.save_best': 'robust/mIoU',
            'visualizer': dict(
                type='SegLocalVisualizer',
                vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')],
                name=f'visualizer_{tmp_path.name}',
            ),
            'custom_hooks': [HOOK],
        }
    )
    runner.train()
    assert len(list((tmp_path / 'work').glob('best_robust_mIoU_iter_*.pth'))) == 1

    (hook,) = (hook for hook in runner.hooks if isinstance(hook, CatastrophicOverfittingHook))
    assert [index for index, _ in hook.held_back] == [0, 1, 2, 3]
    curves = {'mIoU', 'robust/mIoU', 'overfitting/training_attack', 'overfitting/strong_attack', 'overfitting/gap'}
    (log,) = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert curves <= set().union(*lines)
    (events,) = {path.parent for path in (tmp_path / 'work').rglob('events.out.tfevents.*')}
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    assert curves <= set(accumulator.Tags()['scalars'])
    assert [event.step for event in accumulator.Scalars('robust/mIoU')] == [2, 4]

    # The last check was after the last update: its numbers can be computed again.
    last = {
        name: runner.message_hub.get_scalar(f'train/overfitting/{name}').current() for name in ('gap', 'strong_attack')
    }
    assert last['strong_attack'] == pytest.approx(naive_accuracy(runner, hook.held_back, hook.attack))
    weak = naive_accuracy(runner, hook.held_back, hook.training_attack)
    assert last['gap'] == pytest.approx(weak - last['strong_attack'])
    assert hook.training_attack == runner.model.data_preprocessor.attack


def naive_accuracy(runner, held_back, attack):
    """Pixel accuracy of the model on single images."""
    correct = valid = 0
    for index, data in held_back:
        inputs, samples = [data['inputs']], [data['data_samples']]
        labels = stack_labels(samples)
        model = SegmentorAdapter(runner.model, samples)
        seeds = [derive_seed('held back', index)]
        result = attack(model, stack_images(inputs), labels, seeds=seeds)
        correct += int(((result.predictions == labels) & (labels != 255)).sum())
        valid += int((labels != 255).sum())
    return correct / valid


@HOOKS.register_module()
class ScriptedOverfitting(CatastrophicOverfittingHook):
    """Finds a gap of 0.8 at the second check."""

    def accuracy(self, runner, attack):
        return 0.1 if attack is self.attack and runner.iter + 1 >= 2 * self.interval else 0.9


@HOOKS.register_module()
class WeightsKeeper(Hook):
    """Keeps the weights after every iteration."""

    priority = 'LOWEST'
    saved_weights = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.saved_weights.append({name: value.clone() for name, value in runner.model.state_dict().items()})


def scripted(action, **changes):
    return dict(HOOK, type='ScriptedOverfitting', interval=1, action=action, **changes)


@pytest.fixture
def saved_weights():
    WeightsKeeper.saved_weights.clear()
    return WeightsKeeper.saved_weights


@pytest.mark.parametrize(('action', 'iterations'), [('warn', 3), ('stop', 2)])
def test_a_gap_is_warned_of_and_may_stop_the_training(build_runner, saved_weights, action, iterations):
    hooks = [scripted(action), dict(type='WeightsKeeper')]
    runner = build_runner(**{'custom_hooks': hooks, 'train_cfg.max_iters': 3, 'train_cfg.val_interval': 9})
    warnings = []
    runner.logger.warning = lambda text, *rest: warnings.append(text)
    runner.train()
    assert runner.iter == len(saved_weights) == iterations
    gap_warnings = [text for text in warnings if 'catastrophic overfitting' in text]
    assert gap_warnings[0] == (
        'catastrophic overfitting at iteration 2: accuracy 0.900 under the training attack, 0.100 under the strong '
        'one; the gap of 0.800 is above 0.5'
    )
    assert len(gap_warnings) == iterations - 1


def test_rolls_back_to_the_best_weights_with_a_fresh_optimiser(build_runner, saved_weights, tmp_path):
    runner = build_runner(
        **{
            'custom_hooks': [scripted('rollback'), dict(type='WeightsKeeper')],
            'train_cfg.max_iters': 2,
            'train_cfg.val_interval': 1,
            'default_hooks.checkpoint.save_best': 'mIoU',
            'param_scheduler': [dict(type='LinearLR', start_factor=0.5, by_epoch=False, begin=0, end=3)],
        }
    )
    runner.train()
    before, after = saved_weights
    assert all(torch.equal(after[name], value) for name, value in before.items())
    optimizer = runner.optim_wrapper.optimizer
    assert not optimizer.state
    # Factors 0.5, 0.75, 1: after two iterations the third; the checkpoint is of the time of the first or second.
    assert optimizer.param_groups[0]['lr'] == pytest.approx(0.01)


def test_training_goes_on_where_there_is_nothing_to_roll_back_to(build_runner, saved_weights):
    options = {'default_hooks.checkpoint.save_best': 'mIoU', 'train_cfg.max_iters': 2, 'train_cfg.val_interval': 9}
    runner = build_runner(custom_hooks=[scripted('rollback'), dict(type='WeightsKeeper')], **options)
    runner.train()
    assert not torch.equal(
        saved_weights[0]['decode_head.conv_seg.weight'], saved_weights[1]['decode_head.conv_seg.weight']
    )


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(interval=0), 'interval must be an integer at least 1; found 0'),
        (dict(images=0.5), 'images must be an integer at least 1; found 0.5'),
        (dict(threshold=20), r'threshold must be a finite number in \(0, 1\); found 20'),
        (dict(action='rolback'), "action must be 'warn' or 'stop' or 'rollback'; found 'rolback'"),
        (dict(attack=dict(STRONG, objective=dict(type='CrossEntropy', targeted=True))), 'must be an untargeted attack'),
        (dict(training_attack=3), 'training_attack must be an untargeted attack; found 3'),
    ],
)
def test_hook_refuses_arguments_that_make_no_sense(arguments, message):
    with pytest.raises(UserError, match=message):
        CatastrophicOverfittingHook(**{'attack': STRONG, **arguments})


def test_hook_refuses_trainings_that_it_cannot_watch(build_runner):
    clean = dict(_delete_=True, type='SegDataPreProcessor', size=(32, 40))
    without_validation = dict(val_dataloader=None, val_cfg=None, val_evaluator=None)
    for options, message in (
        ({'custom_hooks': [HOOK], 'model.data_preprocessor': clean}, 'found no attack in the data preprocessor'),
        ({'custom_hooks': [HOOK], **without_validation}, 'holds back images of the validation data'),
        ({'custom_hooks': [{**HOOK, 'action': 'rollback'}]}, "'rollback' needs a best checkpoint"),
    ):
        runner = build_runner(**options)
        (hook,) = (hook for hook in runner.hooks if isinstance(hook, CatastrophicOverfittingHook))
        with pytest.raises(UserError, match=message):
            hook.before_train(runner)


@pytest.mark.parametrize(
    ('loop', 'message'),
    [
        (dict(type='AttackValLoop'), 'val_cfg has no attack'),
        (dict(VAL, limit=0), 'limit must be an integer at least 1, or None; found 0'),
        (dict(VAL, attack=dict(STRONG, steps=0)), 'steps must be a positive integer; found 0'),
        (dict(VAL, attack=dict(STRONG, objective=dict(type='CrossEntropy', targeted=True))), 'an untargeted attack'),
    ],
)
def test_loop_refuses_arguments_that_make_no_sense(build_runner, loop, message):
    with pytest.raises(UserError, match=message):
        build_runner(val_cfg=loop).val_loop  # noqa: B018


def test_hooks_numbers_do_not_depend_on_batches(build_runner):
    runner = build_runner(custom_hooks=[HOOK])
    attack = PGD(threat=Linf(radius='8/255'), steps=2)
    accuracies = []
    for batch_size in (1, 4):
        hook = CatastrophicOverfittingHook(STRONG, images=4, batch_size=batch_size)
        hook.before_train(runner)
        accuracies.append(hook.accuracy(runner, attack))
    assert accuracies[0] == pytest.approx(accuracies[1], abs=1e-3) and 0 < accuracies[0] < 1
