"""Certificates beside attacks: the bounds at every radius of two runs, in tables, files and the page."""

import copy
import csv

import numpy as np
import pytest
from PIL import Image
from stored_results import certificates, content, metrics

from mmadv.commands.reporting import run_report
from mmadv.report import RunResults, write_report
from mmadv.report.bounds import bounds, bounds_figure, notes
from mmadv.report.certificates import results_of_certificates

CERTIFIED = {0.1: (0.8, 0.5, 0.1), 0.3: (0.6, 0.4, 0.2), 0.5: (0.2, 0.1, 0.7)}
ATTACKED = {0.2: 0.75, 0.3: 0.7, 0.6: 0.3}


def certificates_content(sha256='abc'):
    stored = certificates()
    one = stored['certified'][0]
    taus = [0.6, 0.75, 0.9]
    stored['smoothing']['taus'] = taus
    stored['certified'] = [
        {
            **one,
            'tau': tau,
            'radius': radius,
            'certified_accuracy': accuracy,
            'guaranteed_mIoU': miou,
            'abstained': abstained,
        }
        for tau, (radius, (accuracy, miou, abstained)) in zip(taus, CERTIFIED.items(), strict=True)
    ]
    stored['pictures'] = []
    stored['checkpoint']['sha256'] = sha256
    return {
        'schema': 'mmadv/results',
        'schema_version': 1,
        **results_of_certificates(stored, 'certificates'),
    }


def attack_content(threat='L2', sha256='abc'):
    stored = content()
    result = stored['evaluation']['attacked']['4/255']
    stored['attack']['parameters'] = {
        'type': 'WorstCase',
        'attacks': {'js': {'type': 'PGD', 'threat': {'type': threat, 'radius': 1}}},
    }
    stored['radii'] = [{'text': str(radius), 'value': radius} for radius in ATTACKED]
    stored['evaluation']['attacked'] = {
        str(radius): {**copy.deepcopy(result), 'worst_case': metrics(value)} for radius, value in ATTACKED.items()
    }
    stored['evaluation']['intervals'] = None
    stored['checkpoint']['sha256'], stored['pictures'] = sha256, []
    return stored


def loaded(**contents):
    return {name: RunResults.from_json(one) for name, one in contents.items()}


def test_every_bound_is_the_tightest_that_the_runs_give():
    """Among all certificates at this radius or above, and all attacks at this radius or below."""
    rows = bounds(loaded(certified=certificates_content(), attack=attack_content()))
    assert [row.radius for row in rows] == sorted({0.0, *CERTIFIED, *ATTACKED})
    clean = content()['evaluation']['clean']['aAcc']
    for row in rows:
        lower = [values for radius, values in CERTIFIED.items() if radius >= row.radius]
        upper = [clean, *(value for radius, value in ATTACKED.items() if radius <= row.radius)]
        assert row.attacked == row.attacked_miou == min(upper)
        found = (row.certified, row.certified_miou, row.abstained)
        assert found == (max(lower) if lower else (None, None, None))
    assert [row.certified for row in rows] == [0.8, 0.8, 0.6, 0.6, 0.2, None]
    assert [row.attacked for row in rows] == [0.9, 0.9, 0.75, 0.7, 0.7, 0.3]


def test_the_plot_has_the_numbers_of_the_table():
    rows = bounds(loaded(certified=certificates_content(), attack=attack_content()))
    accuracy, miou = bounds_figure(rows).axes
    lines = {line.get_label(): line for line in accuracy.lines}
    np.testing.assert_allclose(lines['certified: certified'].get_ydata(), [80, 80, 60, 60, 20])
    np.testing.assert_allclose(lines['attack: under attack'].get_xdata(), [0, 0.1, 0.2, 0.3, 0.5, 0.6])
    np.testing.assert_allclose(lines['attack: under attack'].get_ydata(), [90, 90, 75, 70, 70, 30])
    assert [line.get_label() for line in miou.lines] == ['certified: guaranteed', 'attack: under attack']


def test_certificates_meet_the_attacks_on_their_own_checkpoint():
    runs = loaded(
        c1=certificates_content('1'), a1=attack_content(sha256='1'), c2=certificates_content('2'), a2=attack_content()
    )
    pairs = {(row.certificates, row.attack) for row in bounds(runs)}
    assert pairs == {('c1', 'a1'), ('c2', 'a1'), ('c2', 'a2')}
    assert 'c2 and a2 differ in the checkpoint, so their numbers do not compare' in notes(runs)


@pytest.mark.parametrize(('threat', 'told'), [('Linf', 'this attack is in Linf'), (None, 'this attack is in no norm')])
def test_an_attack_in_another_norm_is_left_out_and_said(threat, told):
    other = attack_content(threat)
    if threat is None:
        other['attack']['parameters'] = {'type': 'FastNewton'}
    runs = loaded(certified=certificates_content(), attack=other)
    assert bounds(runs) == []
    assert any(told in note for note in notes(runs))
    assert notes(loaded(attack=other)) == []


def test_report_writes_table_plot_and_page(tmp_path, capsys):
    folders = {}
    for name, one in (('certified', certificates_content()), ('attack', attack_content())):
        folders[name] = tmp_path / name
        folders[name].mkdir()
        RunResults.from_json(one).write(folders[name])
    out = tmp_path / 'out'
    run_report([*map(str, folders.values()), '--out', str(out)])
    printed = capsys.readouterr().out
    assert '| certified | attack | 0.2000 | 60.00 | 75.00 | 40.00 | 75.00 | 20.00 |' in printed
    assert (out / 'bounds.md').read_text() in printed
    assert (out / 'bounds.tex').is_file() and Image.open(out / 'bounds.png').width == 1500
    with open(out / 'bounds.csv', newline='') as stream:
        rows = list(csv.DictReader(stream))
    assert [row['certified_accuracy'] for row in rows] == ['0.8', '0.8', '0.6', '0.6', '0.2', '']
    page = write_report(folders, tmp_path / 'page.html').read_text()
    assert 'Certified accuracy and accuracy under attack</h2>' in page and 'attack: under attack' in page
