"""tools/test.py after a kill, an interrupt or a failure, and in several processes: the files of a whole run."""

import json
import random
import sys

import numpy as np
import pytest
import torch
from forks import fork, kill_once, run_together
from PIL import Image
from refusals import configure, refused

from mmadv.checkpoints import load_checkpoint_file
from mmadv.evaluation import ResultStore
from mmadv.report import load_results

RUN = ['config.py', 'trained.pth', '--attack', 'sea', '--eps', '0', '8/255', '--iterations', '4', '--show', '3']
RUN += ['--precision', 'float64']
SHORT = ['config.py', 'trained.pth', '--attack', 'pgd', '--eps', '8/255', '--iterations', '2', '--show', '0']


def content(folder, batch_size=True, processes=True):
    """Returns a result folder's files as bytes, times left out, and the page that is made of them."""
    files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*') if path.is_file()}
    results = json.loads((folder / 'results.json').read_text())
    del results['created'], results['seconds']
    results['command'] = results['command'].replace(folder.name, 'DIR')
    for name in ([] if batch_size else ['batch_size']) + ([] if processes else ['command']):
        del results[name]
    if not processes:
        del results['hardware']['processes']
        results['config'] = None
    compared = {str(name): data for name, data in files.items() if name.suffix not in ('.json', '.html')}
    return {**compared, 'results': results}


def stored(folder):
    """Returns how many images a running command has finished."""
    return sum(max(path.read_bytes().count(b'\n') - 1, 0) for path in (folder / 'unfinished').glob('records-*'))


@pytest.fixture
def stop_after(monkeypatch):
    """Makes the command raise an error once it has stored some images."""
    append = ResultStore.append

    def stop(images, error):
        left = [images]

        def stopped(self, record):
            if left[0] == 0:
                monkeypatch.setattr(ResultStore, 'append', append)
                raise error
            left[0] -= 1
            append(self, record)

        monkeypatch.setattr(ResultStore, 'append', stopped)

    return stop


def test_killed_at_random_moments(attack_tool, project, capsys):
    assert attack_tool([*RUN, '--out', 'whole']) == 0
    generator = random.Random(1)
    seen = []
    for moment in (0, 1, 3):
        wait = generator.uniform(0, 0.2)
        process = fork(attack_tool, [*RUN, '--out', 'cut', '--resume'], project / 'log')
        images = stored(project / 'cut') + moment
        status = kill_once(process, lambda images=images: stored(project / 'cut') >= images, wait)
        seen.append(stored(project / 'cut'))
        if status == 0:
            break
        assert status == -9, (project / 'log').read_text()[-2000:]
        assert not (project / 'cut' / 'results.json').exists()
    assert seen == sorted(seen)
    capsys.readouterr()
    assert attack_tool([*RUN, '--out', 'cut', '--resume']) == 0
    assert content(project / 'cut') == content(project / 'whole')
    assert not (project / 'cut' / 'unfinished').exists()
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in project.rglob('*') if path.is_file()}
    assert attack_tool([*RUN, '--out', 'cut', '--resume']) == 0
    assert 'nothing is left to do; results: cut' in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in project.rglob('*') if path.is_file()} == before


def test_three_processes_go_on_where_one_was_stopped(attack_tool, project, unused_port, stop_after):
    """Five images are left for three processes."""
    assert attack_tool([*RUN, '--out', 'whole']) == 0
    stop_after(1, KeyboardInterrupt())
    assert attack_tool([*RUN, '--out', 'cut', '--batch-size', '1']) == 130
    run_together(attack_tool, [*RUN, '--out', 'cut', '--resume'], 3, unused_port, project)
    assert load_results('cut')['hardware']['processes'] == 3
    assert content(project / 'cut', processes=False) == content(project / 'whole', processes=False)


def test_an_interrupt_says_how_to_go_on(attack_tool, project, stop_after, capsys):
    stop_after(3, KeyboardInterrupt())
    assert attack_tool([*SHORT, '--out', 'out']) == 130
    message = capsys.readouterr().err.splitlines()
    assert message[-2].endswith('interrupted: 3 images are done and kept; go on with')
    assert message[-1] == 'mmadv test ' + ' '.join([*SHORT, '--out', 'out', '--resume'])
    assert 'holds the results of an unfinished run; go on with --resume, discard' in refused(
        attack_tool, [*SHORT, '--out', 'out'], project, capsys
    )
    assert attack_tool([*SHORT, '--out', 'out', '--resume', '--batch-size', '3']) == 0
    assert attack_tool([*SHORT, '--out', 'whole', '--batch-size', '1']) == 0
    resumed, whole = load_results('out'), load_results('whole')
    assert '--resume' not in resumed['command']
    worst = [results['evaluation']['attacked']['8/255']['worst_case']['aAcc'] for results in (resumed, whole)]
    assert worst[0] == pytest.approx(worst[1], abs=5e-3)
    assert sorted(path.name for path in (project / 'out').iterdir()) == [
        'manifest.json',
        'object_sizes.csv',
        'per_class.csv',
        'per_image.csv',
        'pictures',
        'records.jsonl',
        'report.html',
        'results.json',
    ]


def test_what_must_not_change(attack_tool, project, stop_after, capsys):
    stop_after(2, KeyboardInterrupt())
    assert attack_tool([*SHORT, '--out', 'out']) == 130
    again = [*SHORT, '--out', 'out', '--resume']

    def refusal(*words):
        before = [word for word in again if word not in ('--eps', '8/255')] if '--eps' in words else again
        return refused(attack_tool, [*before, *words], project, capsys)

    assert 'which differs in seed (0 then, 5 now); use the settings of that run' in refusal('--seed', '5')
    assert 'differs in attack.steps (2 then, 9 now)' in refusal('--iterations', '9')
    assert 'differs in attack.threat.radius' in refusal('--eps', '4/255')
    assert 'differs in radii' in refusal('--eps', '8/255', '4/255')
    assert 'differs in precision ("float32" then, "float64" now)' in refusal('--precision', 'float64')
    assert 'differs in config.model.test_cfg.mode ("whole" then, "slide" now)' in refusal(
        '--cfg-options', 'model.test_cfg.mode=slide', 'model.test_cfg.crop_size=(32,32)', 'model.test_cfg.stride=(9,9)'
    )
    label = project / 'data/labels/1.png'
    data = label.read_bytes()
    pixels = np.array(Image.open(label))
    Image.fromarray(np.where(pixels == 1, 2, pixels).astype(np.uint8)).save(label)
    assert '1.png (number 1) or its label has changed since; choose another output folder' in refusal()
    label.write_bytes(data)
    checkpoint = load_checkpoint_file(project / 'trained.pth')
    checkpoint['state_dict']['decode_head.conv_seg.bias'][0] += 1e-6
    torch.save({'state_dict': checkpoint['state_dict']}, project / 'trained.pth')
    assert 'differs in checkpoint.sha256' in refusal()
    assert '--resume goes on with an unfinished run and --restart discards it' in refusal('--restart')
    assert '--resume needs --out' in refused(attack_tool, [*SHORT, '--resume'], project, capsys)
    assert attack_tool([*SHORT, '--out', 'out', '--restart', '--limit', '1']) == 0
    assert load_results('out')['evaluation']['images'] == 1


def test_a_full_disk_keeps_what_was_done(attack_tool, project, stop_after, capsys):
    stop_after(2, ResultStore('out/unfinished', {})._unwritable(OSError(28, 'No space left on device')))
    assert attack_tool([*SHORT, '--out', 'out']) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        'error: results cannot be written to out/unfinished: No space left on device; make room there '
        '(2 images are done and kept in out; go on with the same command and --resume)'
    )


def test_an_image_that_fails_gives_status_1_and_a_list(attack_tool, project, capsys):
    configure(
        project,
        "custom_imports = dict(imports=['mmadv', 'blind'])\nmodel['backbone']['type'] = 'Blind'\n",
    )
    (project / 'blind.py').write_text(
        'from mmseg.models import ResNet\n'
        'from mmseg.registry import MODELS\n'
        '@MODELS.register_module(force=True)\n'
        'class Blind(ResNet):\n'
        '    def forward(self, x):\n'
        '        dark = (x.mean(dim=(1, 2, 3)) < -1.5).view(-1, 1, 1, 1)\n'
        "        return tuple(out.masked_fill(dark, float('nan')) for out in super().forward(x))\n"
    )
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(project / 'data/images/2.png')
    sys.path.insert(0, str(project))
    try:
        assert attack_tool([*SHORT, '--out', 'out', '--batch-size', '8']) == 1
        errors = capsys.readouterr().err.splitlines()
        assert 'failed: 2.png: the model returns NaN or infinite logits for the clean image 2.png' in errors[-2]
        assert errors[-1].startswith('error: the model failed on 1 image, left out of every number')
        evaluation = load_results('out')['evaluation']
        assert [failed['image'] for failed in evaluation['failed']] == ['2.png'] and evaluation['images'] == 4
        assert attack_tool([*SHORT, '--out', 'out', '--batch-size', '8', '--resume']) == 1
        assert load_results('out')['evaluation'] == evaluation
    finally:
        sys.path.remove(str(project))
        sys.modules.pop('blind', None)
