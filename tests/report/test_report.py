"""Tables, curves, pictures, pages and result folders, from hand-made results."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from mmadv.errors import UserError
from mmadv.report import (
    Example,
    class_table,
    draw_curve,
    draw_example,
    load_results,
    summary_table,
    write_report,
)
from mmadv.report.curve import curve_points, curve_svg
from mmadv.report.gradients import gradients_text
from mmadv.report.pictures import colour, magnified
from mmadv.report.results import check_writable, staged, write_per_image, write_results


def metrics(value, **more):
    return {
        **dict.fromkeys(('aAcc', 'aAcc_image_mean', 'mAcc', 'mIoU'), value),
        'IoU': [value, None],
        'Acc': [value, None],
        'images': 2,
        'pixels': 8,
        **more,
    }


def results(scale=1.0, seed=0):
    passes = {kind: {'total': 10, 'mean_per_image': 5.0} for kind in ('forward', 'backward')}
    attacked = {
        radius: {
            'worst_case': metrics(scale * value, mIoU_greedy=scale * value / 2),
            'members': {'js': metrics(scale * value + 0.01), 'masked_ce': metrics(scale * value)},
            'passes': passes,
        }
        for radius, value in (('4/255', 0.5), ('8/255', 0.25))
    }
    return {
        'created': '2024-01-01T00:00:00+00:00',
        'command': 'python tools/test.py c.py w.pth --attack sea --eps 4/255 8/255',
        'config': {'file': 'c.py', 'text': 'model = dict(type="<Net>")'},
        'checkpoint': {'file': 'w.pth', 'sha256': 'abc'},
        'attack': {'name': 'sea', 'title': 'SEA (paper: 4 losses)', 'parameters': {'type': 'WorstCase'}},
        'radii': [{'text': '4/255', 'value': 4 / 255}, {'text': '8/255', 'value': 8 / 255}],
        'seed': seed,
        'batch_size': 1,
        'dataset': {'type': 'Some', 'size': 2, 'limit': None, 'palette': [[0, 0, 0], [255, 0, 0]]},
        'versions': {'mmadv': '1'},
        'hardware': {'processor': 'p'},
        'seconds': {'total': 1.5},
        'evaluation': {
            'title': 'SEA (paper: 4 losses)',
            'ignore_index': 255,
            'classes': ['sky', 'road & path'],
            'images': 2,
            'excluded': ['void.png'],
            'clean': metrics(0.9),
            'attacked': attacked,
        },
        'pictures': [{'file': 'pictures/00000.png', 'index': 0, 'image': 'a.png'}],
    }


@pytest.fixture
def folder(tmp_path):
    def make(name, **changes):
        path = tmp_path / name
        (path / 'pictures').mkdir(parents=True)
        Image.new('RGB', (2, 2)).save(path / 'pictures' / '00000.png')
        write_results(path, results(**changes))
        return path

    return make


def test_summary_table():
    lines = summary_table(results()['evaluation']).splitlines()
    assert lines[0].split() == [
        'radius',
        'attack',
        'aAcc',
        'ACC',
        '(image',
        'mean)',
        'mAcc',
        'mIoU',
        'mIoU',
        '(greedy)',
    ]
    assert lines[2].split() == ['0', 'clean', *['90.00'] * 4]
    assert lines[3].split() == ['4/255', 'js', *['51.00'] * 4]
    assert lines[5].split() == ['4/255', *['SEA', '(paper:', '4', 'losses)'], *['50.00'] * 4, '25.00']
    assert len(lines) == 2 + 1 + 2 * 3


def test_class_table():
    lines = class_table(results()['evaluation']).splitlines()
    assert lines[2].split() == ['sky', '90.00', '90.00', '50.00', '50.00', '25.00', '25.00']
    assert lines[3].split() == ['road', '&', 'path', *['-'] * 6]


def test_curve_points_start_clean_and_follow_the_radius():
    assert curve_points(results(), 'mIoU') == [(0.0, '0', 90.0), (4 / 255, '4/255', 50.0), (8 / 255, '8/255', 25.0)]


def test_curve_is_told_apart_without_colour_and_repeats(tmp_path):
    runs = {'one': results(), 'two': results(0.5)}
    text = curve_svg(runs)
    assert text == curve_svg(runs)
    assert text.startswith('<svg') and '8/255' in text and 'two' in text
    assert 'stroke-dasharray' in text
    draw_curve(runs, tmp_path / 'curve.png')
    assert Image.open(tmp_path / 'curve.png').size == (1500, 600)


def test_report_is_self_contained(folder, tmp_path):
    out = write_report(
        {'plain <1>': folder('a'), 'adversarial': folder('b', scale=1.5)}, tmp_path / 'new' / 'report.html'
    )
    page = out.read_text()
    assert re.findall(r'(?:src|href)="(?!data:|#)', page.replace('xlink:', '')) == []
    assert 'plain &lt;1&gt;' in page and '<1>' not in page
    for text in ('90.00', '75.00', '37.50', 'road &amp; path', 'SEA (paper: 4 losses)', 'void.png', 'sha256 abc'):
        assert text in page
    assert 'python tools/test.py c.py w.pth --attack sea --eps 4/255 8/255' in page
    assert page.count('data:image/png;base64,') == 2
    assert 'The runs differ in' not in page
    assert list(out.parent.iterdir()) == [out]


def test_report_says_what_differs(folder, tmp_path):
    page = write_report({'a': folder('a'), 'b': folder('b', seed=3)}, tmp_path / 'report.html').read_text()
    assert 'The runs differ in<ul><li>seed: a: 0; b: 3</li></ul>' in page


def test_report_without_an_attack(folder, tmp_path):
    path = folder('clean')
    content = results()
    content.update(attack=None, radii=[], pictures=[])
    content['evaluation'].update(title='clean', attacked={})
    write_results(path, content)
    page = write_report({'clean': path}, tmp_path / 'report.html').read_text()
    assert '90.00' in page and 'None were kept.' in page


def test_refused_results(folder, tmp_path):
    with pytest.raises(UserError, match='at least one result folder'):
        write_report({}, tmp_path / 'report.html')
    with pytest.raises(UserError, match='cannot be read: No such file'):
        load_results(tmp_path / 'no')
    path = folder('a')
    whole = (path / 'results.json').read_text()
    (path / 'results.json').write_text(whole[:100])
    with pytest.raises(UserError, match='is not JSON'):
        load_results(path)
    (path / 'results.json').write_text('{"schema": "other"}')
    with pytest.raises(UserError, match="is not of the schema 'mmadv/results'"):
        load_results(path)
    (path / 'results.json').write_text(json.dumps({**json.loads(whole), 'schema_version': 99}))
    with pytest.raises(UserError, match='schema version 99, this mmadv reads 1'):
        load_results(path)
    with pytest.raises(ValueError, match='not JSON compliant'):
        write_results(path, {'number': float('nan')})


def test_staged_folder_appears_whole_or_not_at_all(tmp_path):
    def fail():
        with staged(tmp_path / 'deep' / 'out') as stage:
            (stage / 'results.json').write_text('{}')
            raise RuntimeError('stop')

    with pytest.raises(RuntimeError, match='stop'):
        fail()
    assert list((tmp_path / 'deep').iterdir()) == []
    with staged(tmp_path / 'deep' / 'out') as stage:
        (stage / 'results.json').write_text('{}')
    assert [path.name for path in (tmp_path / 'deep').iterdir()] == ['out']
    check_writable(tmp_path / 'deep' / 'out')
    check_writable(tmp_path / 'not' / 'yet')
    assert not (tmp_path / 'not').exists()


def test_per_image_rows(tmp_path):
    attacked = {
        '4/255': {
            'members': {'attack': 0.5},
            'worst_case': 0.5,
            'worst_member': 'attack',
            'forward_passes': 3,
            'backward_passes': 2,
        }
    }
    image = {'index': 4, 'image': 'a, b.png', 'valid_pixels': 10, 'clean': None, 'attacked': attacked}
    write_per_image(tmp_path / 'rows.csv', [image])
    assert (tmp_path / 'rows.csv').read_text().splitlines() == [
        'index,image,valid_pixels,clean,4/255 worst_case,4/255 worst_member,4/255 forward_passes,4/255 backward_passes',
        '4,"a, b.png",10,,0.5,attack,3,2',
    ]


def test_void_is_grey_and_perturbations_fill_the_range():
    classes, void = np.array([[0, 1], [255, 1]]), np.array([[False, False], [True, False]])
    assert colour(classes, [[1, 2, 3], [4, 5, 6]], void).tolist() == [
        [[1, 2, 3], [4, 5, 6]],
        [[128, 128, 128], [4, 5, 6]],
    ]
    image = np.full((1, 2, 3), 0.5)
    shown, factor = magnified(image, image + np.array([[[0.02] * 3, [-0.01] * 3]]))
    assert factor == pytest.approx(25)
    assert shown[0, 0] == pytest.approx([1.0] * 3) and shown[0, 1] == pytest.approx([0.25] * 3)
    assert magnified(image, image)[1] == 1


@pytest.mark.parametrize('radii', [(), ('4/255',), ('4/255', '8/255')])
def test_picture_has_a_row_per_radius(tmp_path, radii):
    image, label = np.zeros((8, 10, 3)), np.zeros((4, 5), int)
    label[0] = 255
    example = Example(0, 'a.png', image, label, label * 0)
    for radius in radii:
        example.adversarial[radius], example.attacked[radius] = image + 0.01, label * 0 + 1
    draw_example(example, tmp_path / 'p.png', classes=['a', 'b'], palette=[[0, 0, 0], [9, 9, 9]])
    assert Image.open(tmp_path / 'p.png').height == int(80 * (2.9 * max(1, len(radii)) + 1.3))


def test_a_page_shows_measured_gradients(tmp_path):
    measures = dict.fromkeys(('cosine', 'cosine_present', 'cosine_absent', 'high_frequency', 'image_high_frequency'))
    gradients = {
        **measures,
        'target': {'type': 'NearestNeighbour', 'of': 'other test images'},
        'cosine': 0.1234,
        'high_frequency': 0.5,
        'classes': ['a', 'b'],
        'without_example': ['c'],
        'per_image': [{}] * 3,
        'sheet': {'file': 'gradients.png'},
    }
    for name, found in (('with', gradients), ('without', None)):
        (tmp_path / name / 'pictures').mkdir(parents=True)
        write_results(tmp_path / name, {**results(), 'gradients': found, 'pictures': []})
    Image.new('RGB', (4, 4)).save(tmp_path / 'with' / 'gradients.png')
    runs = {name: tmp_path / name for name in ('with', 'without')}
    page = write_report(runs, tmp_path / 'page.html').read_text()
    (row,) = re.findall(r'<tr><td>with</td><td>NearestNeighbour, other test images</td>(.*?)</tr>', page)
    assert re.findall(r'>([\d.-]+)<', row) == ['0.123', '-', '-', '0.500', '-']
    assert page.count('<img ') == 1
    assert 'Input gradients' not in write_report({'w': tmp_path / 'without'}, tmp_path / 'page.html').read_text()
    text = gradients_text(gradients)
    assert 'of 3 images and 2 class scores' in text and 'cosine to g           0.123' in text
    assert text.endswith('without an example: c')
    (tmp_path / 'with' / 'gradients.png').unlink()
    with pytest.raises(UserError, match='gradients.png cannot be read'):
        write_report(runs, tmp_path / 'page.html')
