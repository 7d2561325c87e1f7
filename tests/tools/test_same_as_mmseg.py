"""The clean numbers of tools/test.py and of AttackValLoop are those of mmseg's own test of the same config."""

import json

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from refusals import configure, refused

from mmadv.checkpoints.loading import load_weights

IOU = "test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'], {})\n"
HEAD = "model['decode_head']['ignore_index'] = {}\n"
PIPELINE = "dict(type='PackSegInputs'),\n"
ATTACK = dict(type='FGSM', threat=dict(type='Linf', radius='4/255'))
CASES = {
    'stock': '',
    'evaluator ignores a class, 255 is void': IOU.format('ignore_index=0'),
    'head ignores a class': HEAD.format(0),
    'both ignore a class': IOU.format('ignore_index=1') + HEAD.format(1),
    'each ignores another class': IOU.format('ignore_index=2') + HEAD.format(0),
    'beta of a score that is not asked for': IOU.format('beta=2'),
    'further metrics': "test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU', 'mFscore'], ignore_index=1)\n",
    'two evaluators': "test_evaluator = [dict(type='IoUMetric'), dict(type='IoUMetric', prefix='b')]\n",
    'zero label': "test_dataloader['dataset'] = dict(dataset, reduce_zero_label=True)\n",
    'classes by top-level preprocessor': "data_preprocessor = model.pop('data_preprocessor')\n",
    'two preprocessors': "data_preprocessor = dict(type='SegDataPreProcessor', mean=[0.] * 3, std=[1.] * 3)\n",
    'slide': "model['test_cfg'] = dict(mode='slide', crop_size=(24, 24), stride=(8, 8))\n",
}


def numbers(metrics):
    return [float(metrics[name]) for name in ('aAcc', 'mAcc', 'mIoU')]


def of_mmseg(project, path='config.py'):
    config = Config.fromfile(project / path)
    config.work_dir, config.log_level = str(project / 'mmseg'), 'WARNING'
    runner = Runner.from_cfg(config)
    load_weights(runner.model, project / 'trained.pth')
    return runner.test()


def of_mmadv(project, attack_tool, capsys, *words):
    argv = ['config.py', 'trained.pth', '--attack', 'none', '--out', 'out', '--show', '0', *words]
    status = attack_tool(argv)
    errors = capsys.readouterr().err
    assert status == 0, errors
    results = json.loads((project / 'out' / 'results.json').read_text())
    return results, errors


@pytest.mark.parametrize('extra', CASES.values(), ids=CASES)
def test_clean_numbers(attack_tool, project, capsys, extra):
    configure(project, extra)
    expected = numbers(of_mmseg(project))
    results, _ = of_mmadv(project, attack_tool, capsys)
    actual = [100 * value for value in numbers(results['evaluation']['clean'])]
    np.testing.assert_allclose(actual, expected, atol=0.006)  # mmseg rounds to two places
    assert expected[2] < 99  # a model that errs, so that what is left out matters


def test_validation_under_attack_leaves_out_what_the_test_does(attack_tool, project, capsys):
    extra = IOU.format('ignore_index=0') + 'val_evaluator = test_evaluator\n'
    configure(project, extra + f"val_cfg = dict(type='AttackValLoop', attack={ATTACK!r})\n")
    config = Config.fromfile(project / 'config.py')
    config.work_dir, config.log_level = str(project / 'val'), 'WARNING'
    runner = Runner.from_cfg(config)
    load_weights(runner.model, project / 'trained.pth')
    validated = runner.val()
    (project / 'attack.py').write_text(f'attack = {ATTACK!r}\n')
    argv = ['config.py', 'trained.pth', '--attack', 'attack.py', '--out', 'out', '--show', '0']
    assert attack_tool(argv) == 0
    evaluation = json.loads((project / 'out' / 'results.json').read_text())['evaluation']
    assert evaluation['ignore_index'] == 0
    clean, attacked = evaluation['clean'], evaluation['attacked']['4/255']['worst_case']
    for name in ('aAcc', 'mAcc', 'mIoU'):
        assert validated[name] == pytest.approx(100 * clean[name], abs=0.006)
        assert validated[f'robust/{name}'] == pytest.approx(100 * attacked[name], abs=0.006)


def test_the_run_says_once_what_is_left_out(attack_tool, project, capsys):
    configure(project, IOU.format('ignore_index=0'))
    results, errors = of_mmadv(project, attack_tool, capsys)
    assert errors.count('the evaluator leaves out label 0 and the decode head label 255') == 1
    assert [caveat for caveat in results['caveats'] if 'leaves out label 0' in caveat]


@pytest.mark.parametrize(
    ('extra', 'sentence'),
    [
        ("test_evaluator = dict(type='IoUMetric', iou_metrics=['mDice'])\n", 'mDice is not computed here'),
        ("test_evaluator = dict(type='IoUMetric', output_dir='predicted')\n", 'output_dir has no effect here'),
        ("test_cfg = dict(type='TestLoop', fp16=True)\n", 'test_cfg.fp16 has no effect here'),
    ],
)
def test_settings_that_are_not_followed_are_named(attack_tool, project, capsys, extra, sentence):
    configure(project, extra)
    results, errors = of_mmadv(project, attack_tool, capsys)
    assert errors.count(sentence) == 1
    assert len([caveat for caveat in results['caveats'] if sentence in caveat]) == 1
    assert not (project / 'predicted').exists()


@pytest.mark.parametrize(
    ('extra', 'sentence'),
    [
        (IOU.format('nan_to_num=0'), 'test_evaluator.nan_to_num is 0'),
        (IOU.format("ignore_index='255'"), "ignore_index of an evaluator must be an integer; found '255'"),
        (
            "test_evaluator = [dict(type='IoUMetric'), dict(type='IoUMetric', ignore_index=0, prefix='b')]\n",
            'leave out different labels: ignore_index 255 and 0',
        ),
        (
            "pipeline[1]['reduce_zero_label'] = True\n",
            'test_dataloader.dataset: reduce_zero_label is False in the dataset and True in LoadAnnotations',
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(attack_tool, project, capsys, extra, sentence):
    configure(project, extra)
    argv = ['config.py', 'trained.pth', '--attack', 'none', '--out', 'out']
    assert sentence in refused(attack_tool, argv, project, capsys)
