"""The study of catastrophic overfitting: what it trains, and what it reads of a training that the hook has watched."""

import inspect
import json

import catastrophic_overfitting as experiment
import experiments
import pytest
from mmengine.config import Config, DictAction

from mmadv.engine import CatastrophicOverfittingHook


def scalars(step, weak, strong):
    values = {
        'overfitting/training_attack': weak,
        'overfitting/strong_attack': strong,
        'overfitting/gap': weak - strong,
    }
    return json.dumps({'loss': 1.0, **values, 'step': step})


# As MMEngine writes them: one log and one list of scalars for each start of a training.
SCALARS = [
    ['{"lr": 0.01, "loss": 2.1, "step": 50}', scalars(100, 0.61, 0.5), scalars(200, 0.7, 0.3)],
    [scalars(200, 0.72, 0.1), '{"mIoU": 50.0, "step": 200}', scalars(300, 0.5, 0.4)],
]
LOGS = [
    ['11/28 10:44:22 - mmengine - INFO - Checkpoints will be saved to {folder}.'],
    [
        '11/28 10:48:09 - mmengine - WARNING - catastrophic overfitting at iteration 200: accuracy 0.720 under …',
        '11/28 10:48:10 - mmengine - WARNING - rolled back at iteration 200 to the weights of '
        '{folder}/best_robust_mIoU_iter_100.pth',
    ],
]


def test_attack_hook_and_validation_have_the_radius_of_the_run(tmp_path):
    (stage,) = experiment.watched(tmp_path, '0.12', 'rollback').stages
    config = Config.fromfile(experiments.ROOT / stage.command[1], import_custom_modules=False)
    options = stage.command[stage.command.index('--cfg-options') + 1 :]
    pairs = (option.partition('=') for option in options)
    config.merge_from_dict({key: DictAction._parse_iterable(value) for key, _, value in pairs})
    attack, hook = config.model.data_preprocessor.attack, config.custom_hooks[1]
    assert (attack.type, 'prob' in config.model.data_preprocessor) == ('FGSM', False)
    assert {attack.threat.radius, hook.attack.threat.radius, config.val_cfg.attack.threat.radius} == {0.12}
    assert (hook.type, hook.action) == ('CatastrophicOverfittingHook', 'rollback')
    assert (hook.attack.type, hook.attack.steps, hook.attack.keep) == ('BIM', 10, 'lowest_accuracy')
    assert config.train_cfg.max_iters == experiment.ITERATIONS
    assert config.default_hooks.logger.interval == hook.interval
    assert config.default_hooks.checkpoint.save_best == 'robust/mIoU'


def test_checks_and_lines_are_those_of_the_training(tmp_path):
    for start, (values, lines) in enumerate(zip(SCALARS, LOGS, strict=True)):
        folder = tmp_path / f'2026_{start}' / 'vis_data'
        folder.mkdir(parents=True)
        (folder / 'scalars.json').write_text('\n'.join(values), encoding='utf-8')
        log = '\n'.join(lines).format(folder=tmp_path)
        (folder.parent / f'{start}.log').write_text(log, encoding='utf-8')
    assert experiment.checks_of(tmp_path) == [[100, 0.61, 0.5], [200, 0.72, 0.1], [300, 0.5, 0.4]]
    assert experiment.events_of(tmp_path) == [
        'catastrophic overfitting at iteration 200: accuracy 0.720 under …',
        'rolled back at iteration 200 to the weights of best_robust_mIoU_iter_100.pth',
    ]


def test_lines_and_scalars_are_those_of_the_hook():
    source = inspect.getsource(CatastrophicOverfittingHook)
    for text in (
        'catastrophic overfitting at iteration {',
        'rolled back at iteration {',
        'train/overfitting/{name}',
    ):
        assert text in source
    assert all(repr(name.partition('/')[2]) in source for name in experiment.CHECK)


CONTENT = {
    'records': [
        {'radius': '0.03', 'action': 'warn', 'checks': [[100, 0.6, 0.5], [200, 0.7, 0.65]], 'events': []},
        {
            'radius': '0.06',
            'action': 'warn',
            'checks': [[100, 0.6, 0.5], [200, 0.8, 0.1], [300, 0.5, 0.4]],
            'events': ['catastrophic overfitting at iteration 200: …'],
        },
        {'radius': '0.06', 'action': 'rollback', 'checks': [[100, 0.6, 0.5]], 'events': ['rolled back to …']},
    ],
    'command': 'python benchmarks/catastrophic_overfitting.py',
    'hardware': {'processor': 'P', 'threads': 1, 'accelerators': []},
    'versions': {'torch': '2', 'mmadv': '0'},
    'date': '2026-01-02',
}


def test_section_names_the_radius_of_the_collapse():
    text = experiment.section(CONTENT)
    assert text.startswith(
        'FGSM overfits catastrophically at 0.06: at iteration 200 the model has 80.0 % of the pixels under its own '
        'attack, and 10.0 % under BIM-10'
    )
    assert '| 0.03 | 10.0 | 100 | 60.0 | 50.0 | 70.0 | 65.0 |' in text
    assert '| 0.06 | 70.0 | 200 | 80.0 | 10.0 | 50.0 | 40.0 |' in text
    assert 'rolled back to …' in text


def test_section_without_a_collapse_says_so():
    text = experiment.section({**CONTENT, 'records': CONTENT['records'][:1]})
    assert text.startswith('FGSM does not overfit catastrophically at any of these radii: 0.03.')
    assert 'rollback' not in text


@pytest.mark.parametrize(('record', 'expected'), [(0, False), (1, True)])
def test_collapse_is_a_warning_of_the_hook(record, expected):
    assert experiment.collapsed(CONTENT['records'][record]) == expected


def test_the_document_holds_the_section_of_the_stored_records():
    content = json.loads((experiments.RESULTS / 'catastrophic_overfitting.json').read_text(encoding='utf-8'))
    assert experiment.section(content) in (experiments.ROOT / 'docs/evidence_training.md').read_text(encoding='utf-8')
