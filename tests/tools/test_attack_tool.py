"""tools/test.py on a stock mmseg config: the table, the result folder, and runs in several processes."""

import csv
import hashlib
import json

import numpy as np
import pytest
from forks import run_together
from PIL import Image
from refusals import configure, refused

from mmadv.attacks.class_weights import frequency_weights
from mmadv.registry import ATTACKS, build
from mmadv.report import load_results

SEA = ['config.py', 'trained.pth', '--attack', 'sea', '--eps', '0', '4/255', '16/255', '--iterations', '10']


def test_sea(attack_tool, project, capsys):
    before = {path.name for path in project.iterdir()}
    assert attack_tool([*SEA, '--out', 'out', '--show', '2', '--sheet', '--limit', '5', '--seed', '7']) == 0
    table = capsys.readouterr()
    assert {path.name for path in project.iterdir()} - before == {'out'}
    results = load_results('out')
    evaluation = results['evaluation']
    assert 'SEA (paper: 4 losses)' in table.out
    assert f'{100 * evaluation["attacked"]["16/255"]["worst_case"]["mIoU"]:.2f}' in table.out
    assert 'clean ' in table.err and '16/255 ' in table.err

    assert results['schema_version'] == 1
    assert results['command'].startswith('mmadv test config.py trained.pth --attack sea')
    assert results['checkpoint']['sha256'] == hashlib.sha256((project / 'trained.pth').read_bytes()).hexdigest()
    assert "type='FCNHead'" in results['config']['text']
    assert [radius['text'] for radius in results['radii']] == ['0', '4/255', '16/255']
    assert [radius['value'] for radius in results['radii']] == [0, 4 / 255, 16 / 255]
    assert (results['seed'], results['dataset']['size'], results['dataset']['limit']) == (7, 6, 5)
    assert results['attack']['title'] == 'SEA (paper: 4 losses)'
    rebuilt = build(results['attack']['parameters'], ATTACKS)
    assert rebuilt.describe() == results['attack']['parameters']
    assert {'mmadv', 'torch', 'mmseg'} <= set(results['versions'])
    assert results['hardware']['processes'] == 1
    assert results['seconds']['total'] > results['seconds']['16/255'] > 0
    assert list(evaluation['attacked']['4/255']['members']) == ['masked_ce', 'balanced_ce', 'js', 'masked_spherical']

    with open('out/per_image.csv', newline='') as stream:
        rows = list(csv.DictReader(stream))
    assert [row['image'] for row in rows] == ['0.png', '1.png', '2.png', '3.png', '4.png']
    members = [float(rows[0][f'16/255 {name}']) for name in evaluation['attacked']['16/255']['members']]
    assert float(rows[0]['16/255 worst_case']) == min(members)
    mean = np.mean([float(row['16/255 worst_case']) for row in rows])
    assert mean == pytest.approx(evaluation['attacked']['16/255']['worst_case']['aAcc_image_mean'])

    radii = [radius['text'] for radius in results['radii']]
    attacked = [(sum(float(row[f'{radius} worst_case']) for radius in radii), -n) for n, row in enumerate(rows)]
    kinds = {-min(attacked)[1]: 'least robust', -max(attacked)[1]: 'most robust'}
    drawn = {0: 'sample', 2: 'sample', **kinds}
    assert [(picture['index'], picture['kind']) for picture in results['pictures']] == sorted(drawn.items())
    for picture in results['pictures']:
        assert Image.open(project / 'out' / picture['file']).width == 648
    page = (project / 'out/report.html').read_text()
    assert page.count('<img') == len(drawn) + 1 and 'report: out/report.html' in table.out
    sheet = evaluation['sheet']
    assert Image.open(project / 'out' / sheet['file']).width > 800
    assert [one['image'] for one in sheet['images']] == ['0.png', '2.png']
    assert sheet['images'][1]['attacked']['16/255'] == float(rows[2]['16/255 worst_case'])
    for radius in ('4/255', '16/255'):
        wins = evaluation['attacked'][radius]['wins']
        assert (
            sum(content['alone'] for content in wins.values())
            <= 5
            <= sum(content['worst'] for content in wins.values())
        )


@pytest.mark.parametrize('name', ['none', 'fgsm', 'bim', 'pgd', 'segpgd', 'cospgd', 'apgd', 'sea-eccv', 'ama', 'auto'])
def test_every_attack_name(attack_tool, project, name):
    argv = ['config.py', 'trained.pth', '--attack', name, '--out', 'out', '--show', '0', '--limit', '2']
    argv += [] if name == 'none' else ['--eps', '32/255']
    argv += [] if name in ('none', 'fgsm') else ['--iterations', '8']
    assert attack_tool(argv) == 0
    results = load_results('out')
    assert results['pictures'] == []
    if name == 'none':
        assert results['attack'] is None and results['evaluation']['attacked'] == {}
        return
    evaluation = results['evaluation']
    assert evaluation['attacked']['32/255']['worst_case']['aAcc'] < evaluation['clean']['aAcc']
    titles = {'sea-eccv': 'SEA (eccv: 3 losses)', 'cospgd': 'CosPGD', 'segpgd': 'SegPGD'}
    titles |= {'ama': 'AMA (8 passes)', 'auto': 'auto (8 passes)'}
    assert evaluation['title'] == titles.get(name, name.upper())


def test_class_weights_are_those_of_all_labels_and_the_results_say_so(attack_tool, project):
    argv = ['config.py', 'trained.pth', '--attack', 'sea-eccv', '--eps', '8/255', '--iterations', '3', '--show', '0']
    assert attack_tool([*argv, '--limit', '1', '--out', 'one']) == 0
    assert attack_tool([*argv, '--limit', '2', '--out', 'two']) == 0
    one, two = map(load_results, ('one', 'two'))
    assert one['attack'] == two['attack']
    members = one['attack']['parameters']['attacks']
    labels = [np.asarray(Image.open(path)) for path in (project / 'data' / 'labels').glob('*.png')]
    counts = [sum(int((label == index).sum()) for label in labels) for index in range(3)]
    assert members['masked_balanced_ce']['attack']['objective']['class_weights'] == list(frequency_weights(counts))
    note = f'the class weights of masked_balanced_ce are made of the label frequencies of all {len(labels)} images'
    assert note in one['caveats'] and note in two['caveats']
    assert attack_tool([*argv, '--limit', '1', '--out', 'image', '--attack', 'sea-eccv-image']) == 0
    image = load_results('image')
    assert image['evaluation']['title'] == 'SEA (eccv-image: 3 losses)' and not any(
        'weights' in c for c in image['caveats']
    )


@pytest.mark.filterwarnings('ignore:.*, less than the radius:UserWarning')
def test_attack_file_with_and_without_eps(attack_tool, project, capsys):
    (project / 'weak.py').write_text(
        "attack = dict(type='PGD', threat=dict(type='L2', radius='1/2'), steps=2, step_size=0.2)\n"
    )
    argv = ['config.py', 'trained.pth', '--attack', 'weak.py', '--limit', '2', '--show', '0']
    assert attack_tool([*argv, '--out', 'own']) == 0
    assert [radius['value'] for radius in load_results('own')['radii']] == [0.5]
    assert attack_tool([*argv, '--out', 'given', '--eps', '0.25', '--iterations', '3']) == 0
    results = load_results('given')
    assert list(results['evaluation']['attacked']) == ['0.25']
    assert results['attack']['parameters']['steps'] == 3
    assert results['attack']['parameters']['threat']['type'] == 'L2'
    scaled, short = results['caveats']
    assert scaled == 'PGD: step_size 0.2 was chosen for radius 0.5, and is scaled with the radius: 0.1 at 0.25'
    assert short.startswith(
        'PGD: 3 steps reach 0.3, which is too short to cross the ball from a random start at radius 0.25'
    )
    assert f'note: {scaled}' in capsys.readouterr().err
    assert '2 steps reach 0.4, which is too short to cross the ball' in load_results('own')['caveats'][0]


def test_batch_size_does_not_change_the_result(attack_tool, project):
    for size in ('1', '3'):
        assert attack_tool([*SEA, '--batch-size', size, '--out', f'out{size}', '--show', '0']) == 0
    one, three = (load_results(f'out{size}')['evaluation'] for size in ('1', '3'))
    assert one['excluded'] == three['excluded'] == ['5.png']
    for radius in one['attacked']:
        for name in ('aAcc', 'mIoU'):
            assert three['attacked'][radius]['worst_case'][name] == pytest.approx(
                one['attacked'][radius]['worst_case'][name], abs=5e-3
            )


def test_an_earlier_result_is_replaced_and_other_files_stay(attack_tool, project):
    argv = ['config.py', 'trained.pth', '--attack', 'none', '--out', 'out', '--limit', '1']
    assert attack_tool([*argv, '--show', '1']) == 0
    (project / 'out' / 'notes.txt').write_text('mine')
    assert attack_tool([*argv, '--show', '0', '--seed', '5']) == 0
    assert load_results('out')['seed'] == 5
    assert sorted(path.name for path in (project / 'out').iterdir()) == [
        'manifest.json',
        'notes.txt',
        'object_sizes.csv',
        'per_class.csv',
        'per_image.csv',
        'pictures',
        'records.jsonl',
        'report.html',
        'results.json',
    ]
    assert list((project / 'out' / 'pictures').iterdir()) == []
    assert not [path for path in project.iterdir() if path.name.startswith('.')]


def test_default_output_folder(attack_tool, project, capsys):
    assert attack_tool(['config.py', 'trained.pth', '--attack', 'none', '--limit', '1', '--show', '0']) == 0
    (folder,) = (project / 'work_dirs' / 'config').iterdir()
    assert folder.name.startswith('none_')
    assert f'results: {folder.relative_to(project)}' in capsys.readouterr().out


def test_weights_averaged_by_a_hook_are_those_evaluated(attack_tool, project):
    argv = ['config.py', 'trained.pth', '--attack', 'none', '--show', '0']
    assert attack_tool([*argv, '--out', 'plain']) == 0
    configure(project, "custom_hooks = [dict(type='EMAHook')]\nload_from = 'elsewhere.pth'\n")
    assert attack_tool([*argv, '--out', 'averaged']) == 0
    assert load_results('averaged')['evaluation'] == load_results('plain')['evaluation']


def test_an_aimed_attack_on_another_model(attack_tool, project, capsys):
    (project / 'weights.pth').write_bytes((project / 'trained.pth').read_bytes())
    argv = ['config.py', 'trained.pth', '--attack', 'ama', '--eps', '32/255', '--iterations', '8', '--limit', '2']
    argv += ['--show', '1', '--target', 'class:disc', '--out', 'out']
    source = ['--source', 'config.py', 'weights.pth']
    assert attack_tool([*argv, *source]) == 0
    results = load_results('out')
    assert results['target'] == 'class:disc'
    sha256 = hashlib.sha256((project / 'weights.pth').read_bytes()).hexdigest()
    assert results['source'] == {'config': 'config.py', 'checkpoint': 'weights.pth', 'sha256': sha256}
    assert results['attack']['title'] == 'AMA (8 passes), class:disc on config, transferred'
    worst = results['evaluation']['attacked']['32/255']['worst_case']
    assert worst['target_rate'] > 0.3
    assert 'target reached\n' in capsys.readouterr().out
    for words, message in (
        (
            ['--check', *source],
            '--check is for untargeted attacks on all pixels of the model itself; leave out --target',
        ),
        (['--target', 'class:disk', *source], "the dataset has no class 'disk'; did you mean 'disc'?"),
        (['--source', 'config.py', 'no.pth'], 'the checkpoint no.pth does not exist'),
        (['--source', 'no.py', 'weights.pth'], 'source config no.py does not exist'),
    ):
        assert message in refused(attack_tool, [*argv, *words], project, capsys)


def test_two_processes_give_the_result_of_one(attack_tool, project, unused_port):
    argv = ['config.py', 'trained.pth', '--attack', 'sea', '--eps', '8/255', '--iterations', '4']
    argv += ['--show', '3', '--limit', '5']
    assert attack_tool([*argv, '--out', 'one', '--batch-size', '1']) == 0
    run_together(attack_tool, [*argv, '--out', 'two'], 2, unused_port, project)
    one, two = load_results('one'), load_results('two')
    assert two['hardware']['processes'] == 2
    assert two['command'].startswith('torchrun --nproc_per_node=2 -m mmadv test config.py trained.pth --attack sea')
    assert two['evaluation'] == one['evaluation']
    assert two['pictures'] == one['pictures']
    assert (project / 'two/per_image.csv').read_text() == (project / 'one/per_image.csv').read_text()
    json.dumps(two, allow_nan=False)


@pytest.mark.parametrize(
    'attack', [['pgd', '--save-images', '--minimal-radius', '32/255'], ['universal', '--save-images']], ids=' '.join
)
def test_two_processes_measure_beside_the_attack_what_one_does(attack_tool, project, unused_port, attack):
    if attack[0] == 'universal':  # needs images of one size
        configure(project, "pipeline.insert(1, dict(type='Resize', scale=(32, 32), keep_ratio=False))")
    argv = ['config.py', 'trained.pth', '--eps', '16/255', '--iterations', '3', '--precision', 'float64']
    argv += ['--show', '0', '--limit', '5', '--attack', *attack]
    assert attack_tool([*argv, '--out', 'one']) == 0
    run_together(attack_tool, [*argv, '--out', 'two'], 2, unused_port, project)
    one, two = load_results('one'), load_results('two')
    assert two['hardware']['processes'] == 2
    assert two['evaluation'] == one['evaluation'] and two['universal'] == one['universal']
    assert one['evaluation']['rounded']['16/255'] and ('minimal_radius' in one['evaluation']) == (attack[0] == 'pgd')

    def files(out):
        written = [path for path in (project / out).rglob('*') if path.suffix in ('.png', '.csv', '.npz')]
        return {str(path.relative_to(project / out)): path.read_bytes() for path in written}

    assert files('two') == files('one')
    assert sum('adversarial' in name for name in files('one')) == 5
