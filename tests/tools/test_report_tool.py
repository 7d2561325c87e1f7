"""tools/report.py on folders of tools/test.py."""

import csv
import json
import shutil

from PIL import Image
from refusals import refused


def test_runs_side_by_side(attack_tool, report_tool, project, capsys):
    common = ['config.py', 'trained.pth', '--eps', '8/255', '--limit', '3', '--show', '0']
    assert attack_tool([*common, '--attack', 'sea-eccv', '--iterations', '4', '--out', 'a']) == 0
    assert attack_tool([*common, '--attack', 'fgsm', '--out', 'b', '--check', '1']) == 0
    printed = capsys.readouterr().out
    assert 'sanity checks on 1 images at radius 8/255' in printed
    assert 'the forward pass is deterministic (two passes differ by 0 of the largest logit)' in printed
    assert report_tool(['a', 'b', '--names', 'eccv', 'one step', '--out', 'both']) == 0
    table = capsys.readouterr().out
    assert '| eccv | SEA (eccv: 3 losses) | 8/255 | 3 | ' in table and '| one step | FGSM | 8/255 | 3 |' in table
    assert sorted(path.name for path in (project / 'both').iterdir()) == [
        *(f'comparison.{suffix}' for suffix in ('csv', 'md', 'png', 'tex')),
        'manifest.json',
    ]
    assert (project / 'both/comparison.md').read_text() in table
    with open('both/comparison.csv', newline='') as stream:
        rows = list(csv.DictReader(stream))
    assert all(float(row['aAcc low']) <= float(row['aAcc']) <= float(row['aAcc high']) for row in rows)
    assert Image.open('both/comparison.png').width == 1500
    assert report_tool(['a', '--components']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(('masked_ce', 'masked_balanced_ce', 'js')) for line in lines) == 7 + 3
    assert report_tool(['a', 'b', '--paired', '--out', 'pairs']) == 0
    pairs = capsys.readouterr().out
    assert '| 8/255 | b | FGSM | 1 | worst case |' in pairs and (project / 'pairs/paired.md').read_text() in pairs
    assert '| 8/255 | a | red-ε | 4 | masked_balanced_ce |' in pairs
    assert Image.open('pairs/budget_8_255.png').width == 1200 and (project / 'pairs/paired.csv').is_file()
    assert 'b differs from a in the attack' in refused(report_tool, ['a', 'b', '--over-seeds'], project, capsys)
    written = json.loads((project / 'a/results.json').read_text())
    shutil.copytree('a', 'c')
    (project / 'c/results.json').write_text(json.dumps({**written, 'seed': 1}))
    assert report_tool(['a', 'c', '--over-seeds', '--components', '--out', 'seeds']) == 0
    printed = capsys.readouterr().out
    assert 'Mean ± sample standard deviation over 2 seeds, %' in printed
    with open('seeds/seeds.csv', newline='') as stream:
        rows = {row['attack']: row for row in csv.DictReader(stream)}
    assert list(rows)[1:] == [
        'masked_ce', 'masked_balanced_ce', 'js', 'SEA (eccv: 3 losses)',
        'masked_ce + masked_balanced_ce', 'masked_ce + js', 'masked_balanced_ce + js',
    ]  # fmt: skip
    whole = written['evaluation']['attacked']['8/255']['worst_case']['aAcc']
    assert float(rows['SEA (eccv: 3 losses)']['aAcc mean']) == whole
    assert whole <= float(rows['masked_ce + js']['aAcc mean']) <= float(rows['js']['aAcc mean'])
    assert {float(row['aAcc deviation']) for row in rows.values()} == {0}
    for suffix in ('md', 'tex', 'html'):
        assert ' ± 0.00' in (project / f'seeds/seeds.{suffix}').read_text()
    assert 'ran a single attack' in refused(report_tool, ['b', '--components'], project, capsys)
    assert 'must name each of the 2 runs' in refused(report_tool, ['a', 'b', '--names', 'x', 'x'], project, capsys)
    assert 'cannot be read' in refused(report_tool, ['none'], project, capsys)
    (project / 'a/records.jsonl').write_bytes((project / 'a/records.jsonl').read_bytes()[:-9])
    assert 'records.jsonl are damaged' in refused(report_tool, ['a', '--components'], project, capsys)
