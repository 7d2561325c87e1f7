"""tools/certify.py on a tiny trained model: its numbers, its determinism and its refusals."""

import json
import re

import pytest

from mmadv.robustness import Certifier


def certify(tool, *arguments, out='out'):
    assert tool(['config.py', 'trained.pth', '--sigma', '0.05', '--show', '1', *arguments, '--out', out]) == 0
    return out


def results(project, out):
    return json.loads((project / out / 'certificates.json').read_text())


def test_certified_accuracy_falls_with_the_radius_and_is_the_same_for_every_batch_size(project, certify_tool, capsys):
    options = ['--n', '120', '--alpha', '0.05', '--tau', '0.9', '0.6', '0.8', '--seed', '3']
    found = results(project, certify(certify_tool, *options))
    rows = found['certified']
    assert [row['tau'] for row in rows] == [0.6, 0.8, 0.9]
    assert rows[0]['radius'] < rows[1]['radius'] < rows[2]['radius']
    for key in ('certified_accuracy', 'certified_mIoU', 'guaranteed_mIoU'):
        values = [row[key] for row in rows]
        assert values == sorted(values, reverse=True) and 0.2 < values[0] <= 1
    assert [row['abstained'] for row in rows] == sorted(row['abstained'] for row in rows)
    for row in rows:
        assert row['guaranteed_mIoU'] <= row['certified_mIoU'] <= found['smoothed']['mIoU'] + 1e-12
        assert row['certified_accuracy'] <= found['smoothed']['aAcc']
    printed = capsys.readouterr().out
    assert f'{100 * rows[0]["certified_accuracy"]:.2f}' in printed and 'clopper-pearson, holm' in printed
    assert len(found['per_image']) == 6 and found['per_image'][5]['valid_pixels'] == 0
    (picture,) = found['pictures']
    assert (project / 'out' / picture['file']).stat().st_size > 1000
    again = results(project, certify(certify_tool, *options, '--batch-size', '50', '--limit', '2', out='again'))
    assert again['per_image'] == [found['per_image'][0], found['per_image'][3]]
    assert {path.name for path in (project / 'out').iterdir()} == {'certificates.json', 'manifest.json', 'pictures'}


def test_an_interrupted_run_goes_on_where_it_was(project, certify_tool, capsys, monkeypatch):
    options = ['--n', '60', '--alpha', '0.05', '--limit', '3', '--show', '2']
    whole = results(project, certify(certify_tool, *options))
    calls = []
    certifier = Certifier.__call__

    def interrupted(self, model, image, *, seed=0):
        calls.append(seed)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return certifier(self, model, image, seed=seed)

    monkeypatch.setattr(Certifier, '__call__', interrupted)
    given = ['config.py', 'trained.pth', '--sigma', '0.05', *options, '--out', 'cut']
    assert certify_tool(given) == 130
    assert '--resume' in capsys.readouterr().err
    assert certify_tool(given) == 2
    assert 'holds the results of an unfinished run' in capsys.readouterr().err
    assert certify_tool([*given, '--resume', '--alpha', '0.1']) == 2
    assert 'differs in smoothing.alpha' in capsys.readouterr().err
    del calls[:]
    assert certify_tool([*given, '--resume']) == 0
    assert len(calls) == 1  # two images were done
    resumed = results(project, 'cut')
    for key in ('certified', 'per_image', 'smoothed', 'pictures'):
        assert resumed[key] == whole[key]
    assert not (project / 'cut' / 'unfinished').exists()


def test_soft_smoothing_and_bonferroni_are_to_be_had(project, certify_tool):
    options = ['--n', '400', '--alpha', '0.05', '--tau', '0.6', '--limit', '1']
    hard = results(project, certify(certify_tool, *options, '--correction', 'bonferroni'))
    soft = results(project, certify(certify_tool, *options, '--kind', 'soft', out='soft'))
    assert soft['smoothing']['bound'] == 'hoeffding'
    assert soft['certified'][0]['abstained'] >= hard['certified'][0]['abstained']


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['--sigma', '0'], 'sigma must be a positive number'),
        (['--tau', '0.3'], 'tau must be at least 0.5'),
        (['--n', '20'], r'0.png: n = 20 draws cannot certify tau 0.75 .* at least 49 are needed'),
        (['--limit', '0'], '--limit must be positive; found 0'),
        (['--kind', 'soft', '--bound', 'clopper-pearson'], "soft smoothing has no bound 'clopper-pearson'"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(arguments, sentence, project, certify_tool, capsys):
    given = ['config.py', 'trained.pth', '--sigma', '0.1', '--limit', '1', '--out', 'out', *arguments]
    assert certify_tool(given) == 2
    assert re.search(sentence, capsys.readouterr().err)
    assert not (project / 'out').exists()
