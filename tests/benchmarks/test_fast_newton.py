"""The study of Fast Newton: what its hook records, what it publishes, and what it refuses to publish."""

import json

import experiments
import fast_newton
import fast_newton_report
import pytest
import tiny_project
import torch
import training_record
from mmengine.config import Config
from mmseg.models.data_preprocessor import SegDataPreProcessor

from mmadv.attacks import BIM, FGSM, PGD, FastNewton, Linf, RandomFGSM, StepSearch
from mmadv.checkpoints.loading import file_sha256
from mmadv.registry import ATTACKS, build

CLEAN, STEPS = 0.5, 20
# What each method leaves under any attack at any radius but 0, by seed.
ROBUST = {'start': [0.1], 'standard': [0.12, 0.14], 'Fast Newton': [0.3, 0.34], 'FGSM': [0.28]}


# What trains each method, all at 0.03 on half of the samples; 'free' takes all of them.
TRAINED_WITH = {
    'Fast Newton': FastNewton(),
    'Fast Newton, bounded': FastNewton(max_radius=0.03),
    'FGSM': FGSM(threat=Linf(radius=0.03)),
    'random FGSM': RandomFGSM(threat=Linf(radius=0.03)),
    'RS-FGSM': PGD(threat=Linf(radius=0.03), steps=1, step_size=0.0375),
    'BIM-3': BIM(threat=Linf(radius=0.03), steps=3, step_size=0.01),
    'PGD-5': PGD(threat=Linf(radius=0.03), steps=5, step_size=0.01),
    'step search': StepSearch(attack=FGSM(threat=Linf(radius=0.03)), points=3),
}


# Of the same network and start, but not in the study.
MORE = {
    'RS-FGSM': 'configs/at/upernet_r18_rs_fgsm_camvid_finetune.py',
    'random FGSM': 'configs/at/upernet_r18_random_fgsm_camvid_finetune.py',
    'free': 'configs/at/upernet_r18_free_camvid_finetune.py',
    'Fast Newton, bounded': 'configs/fast_newton/upernet_r18_bounded_fast_newton_camvid_finetune.py',
    'step search': 'configs/at/upernet_r18_step_search_camvid_finetune.py',
}
CONFIGS = {**fast_newton.METHODS, **MORE}


@pytest.mark.parametrize('method', CONFIGS)
def test_methods_differ_by_their_attack_alone(method):
    config = Config.fromfile(experiments.ROOT / CONFIGS[method])
    start = Config.fromfile(experiments.ROOT / fast_newton.START)
    assert (start.train_cfg.max_iters, start.train_dataloader.batch_size) == (1500, 16)
    assert config.load_from == 'work_dirs/fast_newton/start/iter_1500.pth'
    assert (config.train_cfg.max_iters, config.train_dataloader.batch_size) == (500, 8)
    assert config.optim_wrapper.optimizer == {**start.optim_wrapper.optimizer, 'lr': 5e-4}
    assert config.train_dataloader.dataset == start.train_dataloader.dataset
    preprocessor = config.model.pop('data_preprocessor')
    if method == 'DDC-AT':
        assert config.model.pop('type') == 'DDCATEncoderDecoder'
        config.model.type = 'EncoderDecoder'  # whose network it has
    assert config.model == {key: value for key, value in start.model.items() if key != 'data_preprocessor'}
    if method in TRAINED_WITH:
        assert (build(preprocessor.attack, ATTACKS), preprocessor.prob) == (TRAINED_WITH[method], 0.5)
    elif method == 'DDC-AT':  # whose segmentor halves the batches
        assert (build(preprocessor.attack, ATTACKS), preprocessor.get('prob', 1)) == (TRAINED_WITH['BIM-3'], 1)
    elif method == 'free':
        assert (preprocessor.type, preprocessor.radius) == ('FreeAdvSegDataPreProcessor', 0.03)
        assert (config.train_cfg.type, config.train_cfg.replays) == ('FreeTrainLoop', 4)
    else:
        assert (method, preprocessor.type) == ('standard', 'SegDataPreProcessor')


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding='utf-8')


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The runs of two seeds, of which some have ended: their files are there."""
    monkeypatch.setattr(experiments, 'RESULTS', tmp_path / 'results')
    runs = fast_newton.plan(tmp_path / 'work', (0, 1))
    for item in runs:
        robust = ROBUST.get(item.facts['method'], [])
        if item.facts['seed'] < len(robust):
            end(item, robust[item.facts['seed']])
    return runs


def end(item, robust):
    """Writes what the stages of a run write, without the strong attacks."""
    for stage in item.stages:
        if stage.command[0] == 'train':
            folder = stage.done.parent
            weights = folder / ('iter_1500.pth' if item.name == 'start' else 'iter_500.pth')
            folder.mkdir(parents=True)
            weights.write_text(item.name, encoding='utf-8')
            steps = {} if item.name == 'start' else steps_of(item.facts['method'])
            write(stage.done, {**steps, 'sha256': file_sha256(weights), 'date': '2026-01-02'})
        elif not set(fast_newton.STRONG) & set(stage.command):
            write(stage.done, attack_of(stage, robust))


def steps_of(method):
    """Steps that are twice as dear with an attack, whose length goes from 0.01 to 0.03; every other step has none."""
    if method == 'standard':
        return {'seconds': [1.0] * STEPS, 'lengths': []}
    return {'seconds': [2.0] * STEPS, 'lengths': [[n, 0.01 if n < STEPS / 2 else 0.03] for n in range(0, STEPS, 2)]}


def attack_of(stage, robust):
    _, _, weights, _, name, images, *radii = stage.command
    numbers = {radius: {'mIoU': robust, 'aAcc': 0.9} for radius in radii}
    content = {'attack': name, 'images': int(images), 'date': '2026-01-03', 'sha256': file_sha256(weights)}
    return {**content, 'numbers': {'0': {'mIoU': CLEAN, 'aAcc': 0.9}, **numbers}}


@pytest.fixture
def docs(tmp_path):
    (tmp_path / 'docs' / 'images').mkdir(parents=True)
    path = tmp_path / 'docs' / 'evidence_training.md'
    marks = '<!-- fast_newton: written by benchmarks/fast_newton.py -->', '<!-- fast_newton: end -->'
    path.write_text('\n'.join(('before', *marks, 'after')), encoding='utf-8')
    return path


def test_section_has_what_has_run_and_says_how_much_that_is(runs, docs, tmp_path):
    fast_newton_report.publish(fast_newton.store_all(runs), tmp_path)
    text = docs.read_text(encoding='utf-8')
    assert '| start | 1 | 50.0 | 10.0 |' in text
    assert '| standard | 2 | 50.0 ± 0.0 | 13.0 ± 1.4 |' in text
    assert '| Fast Newton | 2 | 50.0 ± 0.0 | 32.0 ± 2.8 |' in text
    assert '| FGSM | 1 | 50.0 | 28.0 |' in text
    assert '| Fast Newton | 2.00 | 2.00 | 0.0100 | 0.0300 | 0.0200 |' in text
    assert '| standard | 1.00 | 1.00 | - | - | - |' in text
    assert 'Not measured yet: BIM-3, PGD-5, DDC-AT.' in text
    assert 'Under BIM-10 Fast Newton is +19.0 to +19.0 points' in text
    assert 'Against FGSM under BIM-10, in points: +4.0 at 0.01' in text
    assert '`auto` and SEA have not run yet' in text
    assert (tmp_path / 'docs' / 'images' / 'fast_newton.png').stat().st_size > 10_000
    stored = json.loads((tmp_path / 'results' / 'fast_newton.json').read_text(encoding='utf-8'))
    assert {(one['method'], one['seed']) for one in stored['trainings']} == {
        ('standard', 0), ('standard', 1), ('Fast Newton', 0), ('Fast Newton', 1), ('FGSM', 0),
    }  # fmt: skip
    assert str(tmp_path) not in json.dumps(stored['records'])


def section_of(runs):
    content = fast_newton.store_all(runs)
    methods = ['start', *content['settings']['methods']]
    return fast_newton_report.section(content, fast_newton_report.whole_methods(content['records'], methods))


def test_rows_of_one_seed_are_said_to_be_that(runs):
    text = section_of([run for run in runs if run.facts['seed'] == 0])
    assert 'Each row rests on one seed. Deviations over seeds are missing' in text
    assert '±' not in text


def test_strong_attacks_have_a_table_of_their_own(runs):
    robust = {('Fast Newton', 'auto'): 0.25, ('standard', 'auto'): 0.2, ('standard', 'SEA'): 0.21}
    for item in runs:
        (stage, *_) = item.stages
        key = item.facts['method'], stage.command[4] if len(stage.command) > 4 else ''
        if key in robust and item.facts['seed'] == 0:
            write(stage.done, attack_of(stage, robust[key]))
    text = section_of(runs)
    assert (
        'Under `auto` with 400 gradients and under SEA with 100 iterations of each of its four losses, at 0.02' in text
    )
    assert '| training | seeds | clean | `auto` | SEA |' in text
    assert '| standard | 1 | 50.0 | 20.0 | 21.0 |\n| Fast Newton | 1 | 50.0 | 25.0 | - |\n' in text


def rewritten(runs, method, attack, change):
    """Changes the numbers of an attack on the first seed of a method."""
    item = next(run for run in runs if run.facts == {'method': method, 'seed': 0})
    stage = next(stage for stage in item.stages if attack in stage.command)
    content = json.loads(stage.done.read_text(encoding='utf-8'))
    change(content)
    write(stage.done, content)


@pytest.mark.parametrize(
    ('method', 'radius', 'value', 'message'),
    [
        ('start', '0', 0.449, 'the start has a clean mIoU of 44.9 %, below 45 %'),
        ('start', '0.02', 0.25, r'start \(seed 0\) keeps 25.0 of 50.0 % mIoU under BIM-10 at 0.02'),
        ('standard', '0.02', 0.26, r'standard \(seed 0\) keeps 26.0 of 50.0 %'),
    ],
)
def test_start_that_is_weak_or_robust_publishes_nothing(runs, docs, tmp_path, method, radius, value, message):
    rewritten(runs, method, 'BIM-10', lambda content: content['numbers'][radius].update(mIoU=value))
    with pytest.raises(SystemExit, match=message):
        fast_newton.store_all(runs)
    assert not (tmp_path / 'results').exists()


def test_numbers_of_other_weights_are_refused(runs):
    rewritten(runs, 'FGSM', 'FGSM', lambda content: content.update(sha256='0' * 64))
    with pytest.raises(SystemExit, match='FGSM.json is of other weights than those that were trained'):
        fast_newton.records_of(runs)
    (weights,) = {stage.command[2] for run in runs[:1] for stage in run.stages[1:]}
    with open(weights, 'a', encoding='utf-8') as stream:
        stream.write('x')
    with pytest.raises(SystemExit, match='iter_1500.pth is not what was trained'):
        fast_newton.records_of(runs)


def test_too_few_rows_are_refused(runs, docs, tmp_path):
    before = docs.read_text(encoding='utf-8')
    few = [run for run in runs if run.facts['method'] != 'standard']
    with pytest.raises(SystemExit, match='standard have not run yet'):
        fast_newton_report.publish(fast_newton.store_all(few), tmp_path)
    assert docs.read_text(encoding='utf-8') == before


@pytest.mark.parametrize('swaps', [True, False])
def test_moved_is_the_distance_of_the_pixels(swaps):
    preprocessor = SegDataPreProcessor(mean=[120, 110, 100], std=[60, 50, 40], bgr_to_rgb=swaps, size=(4, 5))
    images = torch.randint(20, 200, (3, 3, 4, 5), generator=torch.Generator().manual_seed(0))
    changed = images.clone()
    changed[1, 0, 2, 3] += 7
    changed[1, 2, 0, 0] -= 51
    changed[2, 1, 1, 1] += 1
    inputs = preprocessor({'inputs': list(changed)})['inputs']
    expected = torch.tensor([0, 51 / 255, 1 / 255])
    pairs = torch.cat([preprocessor({'inputs': list(images)})['inputs'], inputs])
    for given in (inputs, pairs):
        torch.testing.assert_close(training_record.moved(preprocessor, images, given), expected, atol=1e-6, rtol=0)


ADVERSARIAL = """
pipeline.insert(2, dict(type='RandomCrop', crop_size=(32, 32)))
train_dataloader['dataset'] = dict(dataset, pipeline=pipeline)
attack = dict(type='FGSM', threat=dict(type='Linf', radius='8/255'))
model['data_preprocessor'].update(type='AdvSegDataPreProcessor', attack=attack, size=(32, 32), prob=0.7)
default_hooks['checkpoint']['interval'] = 2
val_cfg = val_dataloader = val_evaluator = None
"""


def test_training_that_goes_on_has_the_records_of_all_its_steps(tmp_path):
    tiny_project.write_dataset(tmp_path / 'data')
    config = tiny_project.write_config(tmp_path / 'config.py', tmp_path / 'data', ADVERSARIAL)
    work = tmp_path / 'work'
    for steps in (3, 5):
        options = ('--cfg-options', training_record.OPTION, f'train_cfg.max_iters={steps}')
        training_record.train_recorded([str(config), '--work-dir', str(work), *options])
        content = json.loads((work / 'training.json').read_text(encoding='utf-8'))
        assert len(content['seconds']) == steps and min(content['seconds']) > 0
    attacked = [step for step, _ in content['lengths']]
    assert attacked == sorted(set(attacked)) and set(attacked) <= set(range(5)) and attacked[-1] >= 3
    assert [length for _, length in content['lengths']] == pytest.approx([8 / 255] * len(attacked), abs=1e-5)
    assert content['sha256'] == file_sha256(work / 'iter_5.pth')
