"""The study of robust accuracy against training cost: its configs, what runs again, its floor, and its tables."""

import json

import cost_of_robustness as study
import cost_of_robustness_report as report
import experiments
import pytest
from mmengine.config import Config

from mmadv.attacks import FGSM, PGD, FastNewton, GaussianNoise, Linf, RandomFGSM, SegPGD, StepSearch
from mmadv.registry import ATTACKS, build


def pgd(steps, size):
    return PGD(threat=Linf(radius=0.03), steps=steps, step_size=size)


# What trains each method, all at 0.03 on half of the samples.
TRAINED_WITH = {
    'Fast Newton': FastNewton(),
    'FGSM': FGSM(threat=Linf(radius=0.03)),
    'RS-FGSM': pgd(1, 0.0375),
    'PGD-2': pgd(2, 0.015),
    'PGD-3': pgd(3, 0.01),
    'PGD-5': pgd(5, 0.01),
    'SegPGD-3': SegPGD(threat=Linf(radius=0.03), steps=3, step_size=0.01),
    'Gaussian noise': GaussianNoise(sigma=0.12),
    'Fast Newton, bounded': FastNewton(max_radius=0.03),
    'random FGSM': RandomFGSM(threat=Linf(radius=0.03)),
    'step search': StepSearch(attack=FGSM(threat=Linf(radius=0.03)), points=3),
}


@pytest.mark.parametrize('method', study.METHODS)
def test_methods_differ_by_their_attack_alone(method):
    config, standard = (
        Config.fromfile(experiments.ROOT / study.CONFIGS / f'{name}.py', import_custom_modules=False)
        for name in (study.METHODS[method], 'standard')
    )
    for key in ('load_from', 'optim_wrapper', 'param_scheduler', 'train_dataloader', 'test_dataloader'):
        assert config[key] == standard[key]
    assert (config.train_cfg.max_iters, config.train_dataloader.batch_size) == (study.ITERATIONS, 8)
    preprocessor = config.model.pop('data_preprocessor')
    standard.model.pop('data_preprocessor')
    if method in TRAINED_WITH:
        assert (build(preprocessor.attack, ATTACKS), preprocessor.prob) == (TRAINED_WITH[method], 0.5)
    elif method == 'TRADES':
        assert (config.model.pop('type'), config.model.pop('beta')) == ('TRADESEncoderDecoder', 6.0)
        attack = build(preprocessor.attack, ATTACKS)
        assert (attack.threat, attack.steps, attack.step_size) == (Linf(radius=0.03), 3, 0.01)
        standard.model.pop('type')
    elif method in ('RIGD', 'PAG'):
        assert (config.model.pop('type'), config.model.pop('pag')) == ('PAGEncoderDecoder', {'weight': 0.5})
        target = config.custom_hooks[1].target
        assert target.type == ('RegionDistillation' if method == 'RIGD' else 'RegionExemplars')
        teacher = f'{study.CONFIGS}/{study.METHODS[study.TEACHER]}.py' if method == 'RIGD' else None
        assert target.get('config') == teacher
        standard.model.pop('type')
    elif method == 'free':
        assert (preprocessor.type, preprocessor.radius) == ('FreeAdvSegDataPreProcessor', 0.03)
        assert config.train_cfg.replays == 4
    else:
        assert (method, preprocessor.type) == ('standard', 'SegDataPreProcessor')
    assert config.model == standard.model


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, 'RESULTS', tmp_path / 'results')
    monkeypatch.setattr(study, 'RESULTS', tmp_path / 'results')
    return tmp_path / 'work'


def end(item, clean=0.6, left=0.1, step=2.0, sha256='a'):
    """Writes what the stages of a run write."""
    train, attack, *curves = item.stages[-4:]
    train.done.parent.mkdir(parents=True)
    lengths = [] if item.facts['method'] == 'standard' else [[step, 0.01 + 0.001 * step] for step in range(20)]
    train.done.write_text(
        json.dumps({'seconds': [1.0] * 5 + [step] * 10 + [9.0] * 5, 'lengths': lengths, 'sha256': 'a'})
    )
    shares = {name: {'mIoU': left, 'aAcc': 2 * left} for name in ('Linf 2/255', 'Linf 4/255', 'L2 1')}
    numbers = {'none': {'mIoU': clean, 'aAcc': 0.9}, **shares}
    more = {'images': 8, 'sha256': sha256, 'date': '2026-01-01', 'attack_seconds': 1.0}
    attack.done.write_text(json.dumps({'clean': {'mIoU': 0.5, 'aAcc': 0.9}, 'numbers': numbers, **more}))
    for stage in curves:
        name, images, *radii = stage.command[4:]
        points = {radius: {'mIoU': clean - 10 * float(radius), 'aAcc': 0.9} for radius in ('0', *radii)}
        stage.done.write_text(json.dumps({'attack': name, 'images': int(images), 'numbers': points, 'sha256': 'a'}))


def runs_of(work, *methods, seeds=(0,), stored=()):
    return [item for item in study.plan(work, seeds, stored) if item.facts['method'] in methods]


def test_what_has_a_record_does_not_run_again_and_rigd_has_its_teacher(work):
    stored = [{'method': 'PGD-5', 'seed': 0}, {'method': 'RIGD', 'seed': 1}]
    runs = study.plan(work, (0, 1), stored)
    assert len(runs) == 2 * len(study.METHODS) - 2
    (rigd,) = (item for item in runs if item.facts['method'] == 'RIGD')
    teacher, train, attack, *curves = (stage.command for stage in rigd.stages)
    assert (teacher[1], teacher[3]) == (f'{study.CONFIGS}/pgd_5.py', str(work / 'pgd_5_0'))
    assert f'custom_hooks.1.target.checkpoint={work / "pgd_5_0/iter_500.pth"}' in train
    assert {command[2] for command in (attack, *curves)} == {str(work / 'rigd_0/iter_500.pth')}
    assert [command[4] for command in curves] == ['FGSM', 'BIM-10']


def test_rigd_that_is_trained_needs_no_teacher(work):
    (item,) = runs_of(work, 'RIGD')
    assert len(item.stages) == 5
    end(item)
    (item,) = runs_of(work, 'RIGD')
    assert [stage.command[0] for stage in item.stages] == ['train', 'measure', 'attack', 'attack']
    (record,) = study.records_of([item])
    assert (record['method'], record['steps']) == ('RIGD', 20)


def test_floor(work):
    runs = runs_of(work, 'standard', seeds=(0, 1, 2))
    end(runs[0])
    study.check_floor(study.records_of(runs))
    end(runs[1], clean=0.44)
    with pytest.raises(SystemExit, match='seed 1.* clean mIoU of 44.0 %, below 45 %'):
        study.check_floor(study.records_of(runs))
    end(runs[2], left=0.3)
    with pytest.raises(SystemExit, match='seed 2.* keeps 30.0 of 60.0 % mIoU at Linf 2/255'):
        study.check_floor(study.records_of(runs)[2:])


def test_numbers_of_other_weights_are_refused(work):
    (item,) = runs_of(work, 'standard')
    end(item, sha256='b')
    with pytest.raises(SystemExit, match='is of other weights'):
        study.records_of([item])


def test_section(work, tmp_path):
    runs = runs_of(work, 'standard', 'FGSM', 'PGD-3', seeds=(0, 1))
    for item, left in zip(runs, (0.1, 0.3, 0.4, 0.12, 0.34), strict=False):
        end(item, left=left, step=2.0 if item.facts['method'] == 'standard' else 3.0)
    path = experiments.store('cost_of_robustness', study.records_of(runs), settings=study.SETTINGS)
    document = tmp_path / 'docs' / 'evidence_training.md'
    (tmp_path / 'docs/images').mkdir(parents=True)
    script = 'benchmarks/cost_of_robustness.py'
    document.write_text(f'a\n<!-- cost_of_robustness: written by {script} -->\n<!-- cost_of_robustness: end -->\nb\n')
    report.publish(json.loads(path.read_text()), tmp_path)
    text = document.read_text()
    assert '| training | cost | clean, all | clean | Linf 2/255 | Linf 4/255 | L2 1 | seeds |' in text
    left = '11.0 ± 1.4 (22.0 ± 2.8)'
    row = ['standard', '1.0', '50.0 ± 0.0', '60.0 ± 0.0 (90.0 ± 0.0)', left, left, left, '2']
    assert f'| {" | ".join(row)} |' in text
    row = ['PGD-3', '1.5', '50.0', '60.0 (90.0)', *['40.0 (80.0)'] * 3, '1']
    assert f'| {" | ".join(row)} |' in text
    assert 'Not measured yet: Fast Newton, PGD-5,' in text
    assert '| training | seeds | clean | FGSM 0.01 |' in text
    curve = '50.0 ± 0.0 | 40.0 ± 0.0 | 30.0 ± 0.0 | 20.0 ± 0.0'
    assert f'| FGSM | 2 | 60.0 ± 0.0 | {curve} | {curve} |' in text
    assert '| standard | 2.00 | 1.00 | - | - | - |' in text
    assert '| PGD-3 | 3.00 | 1.50 | 0.0105 | 0.0285 | 0.0195 |' in text
    assert (tmp_path / 'docs/images/cost_of_robustness_curves.png').stat().st_size > 10_000
    assert (tmp_path / 'docs/images/cost_of_robustness.png').stat().st_size > 10_000
    with pytest.raises(SystemExit, match='nothing is published'):
        report.publish({**json.loads(path.read_text()), 'records': []}, tmp_path)


def test_the_document_holds_the_section_of_the_stored_records():
    content = json.loads((experiments.ROOT / 'benchmarks/results/cost_of_robustness.json').read_text())
    methods = [method for method in content['settings']['methods'] if report.of(content['records'], method)]
    document = (experiments.ROOT / 'docs/evidence_training.md').read_text(encoding='utf-8')
    assert report.section(content, methods) in document
    study.check_floor(content['records'])
