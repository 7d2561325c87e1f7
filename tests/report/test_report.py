"""Tables, curves, pictures, pages and result folders, from hand-made results."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from browser import Browser, find_browser
from PIL import Image
from stored_results import content

from mmadv.engine.measurements import InputGradients
from mmadv.errors import UserError
from mmadv.report import (
    Example,
    RunResults,
    class_table,
    draw_curve,
    draw_example,
    load_results,
    summary_table,
    write_report,
)
from mmadv.report.breakdown import images_table
from mmadv.report.curve import curve_points, curve_svgs
from mmadv.report.evaluation import AttackedImage, ImageResult
from mmadv.report.pictures import colour, magnified


def results(**changes):
    return RunResults.from_json(content(**changes))


@pytest.fixture
def folder(tmp_path):
    def make(name, **changes):
        path = tmp_path / name
        (path / 'pictures').mkdir(parents=True)
        for number in range(2):
            Image.new('RGB', (640, 480)).save(path / 'pictures' / f'0000{number}.png')
        results(**changes).write(path)
        return path

    return make


def test_summary_table():
    lines = summary_table(results().evaluation).splitlines()
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
    lines = class_table(results().evaluation).splitlines()
    assert lines[2].split() == ['sky', '90.00', '90.00', '50.00', '50.00', '25.00', '25.00']
    assert lines[3].split() == ['road', '&', 'path', *['-'] * 6]


def test_curve_points_start_clean_and_follow_the_radius():
    assert curve_points(results(), 'mIoU') == [(0.0, '0', 90.0), (4 / 255, '4/255', 50.0), (8 / 255, '8/255', 25.0)]


def test_curve_is_told_apart_without_colour_and_repeats(tmp_path):
    runs = {'one': results(), 'two': results(scale=0.5)}
    texts = curve_svgs(runs)
    assert texts == curve_svgs(runs) and len(texts) == 2
    for text in texts:
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
    assert 'mmadv test c.py w.pth --attack sea --eps 4/255 8/255' in page
    assert page.count('data:image/png;base64,') == 4
    assert page.index('The least robust') < page.index('alt="b.png') < page.index('alt="a.png')
    assert 'The runs differ in' not in page
    assert list(out.parent.iterdir()) == [out]


def test_hostile_names_are_text(folder, tmp_path):
    hostile = '<script>alert("x")</script>&\'{{ 7 * 7 }}'
    path = folder('a')
    changed = content()
    changed['evaluation'].update(classes=['sky', hostile], excluded=[hostile], title=hostile)
    changed['config']['file'] = changed['command'] = changed['attack']['title'] = hostile
    changed['pictures'][0]['image'], changed['caveats'] = hostile, [hostile]
    RunResults.from_json(changed).write(path)
    for runs in ({'mine': path}, {hostile: path, 'other': folder('b')}):
        page = write_report(runs, tmp_path / 'page.html', title=hostile).read_text()
        assert '<script' not in page and '{{ 7 * 7 }}' in page and '>49' not in page
        assert page.count('&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;&amp;&#39;') > 8
        assert any(text.startswith('&lt;script&gt;') for text in re.findall(r'alt="([^"]*)"', page))


def test_runs_that_differ_in_the_seed_alone_have_mean_and_deviation(folder, tmp_path):
    runs = {name: folder(name, seed=seed, scale=scale) for name, seed, scale in (('a', 0, 1.0), ('b', 1, 0.9))}
    page = write_report(runs, tmp_path / 'report.html').read_text()
    assert 'Mean ± sample standard deviation over 2 seeds, %' in page and 'The runs differ in' not in page
    # 50 % and 45 % have the mean 47.5 % and the sample deviation 5 / sqrt(2) = 3.54 %.
    assert '<td class="number">47.50 ± 3.54</td>' in page


def test_report_says_what_differs(folder, tmp_path):
    other = results(seed=3)
    runs = {'a': folder('a'), 'b': folder('b')}
    replace(other, dataset=replace(other.dataset, type='Other')).write(runs['b'])
    page = write_report(runs, tmp_path / 'report.html').read_text()
    assert 'The runs differ in<ul><li>seed: a: 0; b: 3</li><li>dataset: a: Some; b: Other</li></ul>' in page
    assert 'over 2 seeds' not in page


def test_report_without_an_attack(folder, tmp_path):
    path = folder('clean')
    changed = content()
    changed.update(attack=None, radii=[], pictures=[])
    changed['evaluation'].update(title='clean', attacked={})
    RunResults.from_json(changed).write(path)
    page = write_report({'clean': path}, tmp_path / 'report.html').read_text()
    assert '90.00' in page and 'None were kept.' in page and 'Which attack won' not in page


def test_a_single_run_shows_intervals_wins_and_bars(folder, tmp_path):
    page = write_report({'mine': folder('a')}, tmp_path / 'report.html').read_text()
    body = page.partition('<body>')[2]
    assert 'mine' not in body  # there is nothing to tell it from
    assert '90.00 <span class="interval">85.00 to 92.50</span>' in body
    wins = body[body.index('On how many of 2 images') :]
    assert '<td>masked_ce</td><td class="number">2 (1)</td><td class="number">2 (1)</td>' in wins
    bars = re.findall(r'<span>(.*?)</span>.*?width:([\d.]+)%.*?class="number">(.*?)<', body)
    assert bars[:3] == [('clean', '90.00', '90.00'), ('4/255', '50.00', '50.00'), ('8/255', '25.00', '25.00')]
    assert bars[3:] == [('clean', '0.00', '-'), ('4/255', '0.00', '-'), ('8/255', '0.00', '-')]


def test_a_report_names_what_makes_numbers_doubtful(folder, tmp_path):
    path = folder('a')
    changed = content()
    changed['caveats'] = ['the gradient of EMAHead is partial']
    changed['evaluation']['failed'] = [{'image': 'c.png', 'reason': 'NaN <logits>'}]
    finding = {'name': 'gradients are not zero', 'passed': False, 'evidence': '80 %', 'advice': 'look for rounding'}
    findings = [finding, {**finding, 'name': 'fine', 'passed': True}]
    changed['trust'] = {'images': ['a.png'], 'radius': '4/255', 'findings': findings}
    RunResults.from_json(changed).write(path)
    page = write_report({'mine': path}, tmp_path / 'report.html').read_text()
    for note in (
        'c.png is in no number: NaN &lt;logits&gt;',
        'the gradient of EMAHead is partial',
        'sanity check failed: gradients are not zero (80 %); look for rounding',
    ):
        assert f'<li>{note}</li>' in page
    assert 'sanity check failed: fine' not in page


@pytest.mark.skipif(find_browser() is None, reason='no Chromium is installed (apt-get install chromium-headless-shell)')
def test_the_page_in_a_browser(folder, tmp_path):
    one = write_report({'mine': folder('a')}, tmp_path / 'one.html')
    long = 'a_long_name_of_a_run_without_a_single_space_in_it_as_folders_have'
    two = write_report({long: folder('b'), 'other': folder('c', seed=1)}, tmp_path / 'two.html')
    broken = tmp_path / 'broken.html'
    text = one.read_text()
    text = text.replace(
        '</body>', '<p style="width:700px">wide</p><img src="none.png"><script>nothing()</script></body>'
    )
    broken.write_text(text)
    with Browser(find_browser(), tmp_path / 'profile') as browser:
        for page in (one, two):
            for width in (375, 1200):
                browser.open(page, width, 800)
                assert _problems(browser) == []
        browser.open(one, 375, 800)
        assert browser.evaluate('document.images.length') == 2
        fits = "document.querySelector('.headline').parentElement"
        assert browser.evaluate(f'{fits}.scrollWidth <= {fits}.clientWidth'), 'the headline table is cut off on a phone'
        browser.open(broken, 375, 800)
        assert [problem.split(':')[0] for problem in _problems(browser)] == ['wide', 'request', 'image', 'error']


def _problems(browser):
    """Returns what is wrong with a loaded page: too wide, asking for files, pictures that do not show, errors."""
    asked = [event['request']['url'] for event in browser.of('Network.requestWillBeSent')][1:]
    decoded = '[...document.images].map(i => i.decode().then(() => "", () => i.alt || i.src))'
    errors = [event['exceptionDetails']['text'] for event in browser.of('Runtime.exceptionThrown')]
    errors += [event['type'] for event in browser.of('Runtime.consoleAPICalled')]
    width = browser.evaluate('document.documentElement.scrollWidth - window.innerWidth')
    overflow = browser.evaluate('document.documentElement.scrollWidth > document.documentElement.clientWidth')
    return [
        *([f'wide: by {width}'] if overflow else []),
        *(f'request: {url}' for url in asked if not url.startswith('data:')),
        *(f'image: {name}' for name in browser.evaluate(f'Promise.all({decoded})') if name),
        *(f'error: {text}' for text in errors),
    ]


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
        replace(results(), seconds={'total': float('nan')}).write(path)


def test_per_image_rows(tmp_path):
    attacked = {'4/255': AttackedImage({'attack': 0.5}, 0.5, 'attack', forward_passes=3, backward_passes=2)}
    images_table([ImageResult(4, 'a, b.png', 10, None, attacked)]).write_csv(tmp_path / 'rows.csv')
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
    example = Example(0, 'a.png', image, label, label * 0)  # with the classes a and b and void in the legend
    for radius in radii:
        example.adversarial[radius], example.attacked[radius] = image + 0.01, label * 0 + 1
    draw_example(example, tmp_path / 'p.png', classes=['a', 'b'], palette=[[0, 0, 0], [9, 9, 9]])
    panel = 2.7 * 0.8 + 0.75  # inches, for a picture of 8 by 10
    assert Image.open(tmp_path / 'p.png').size == (648, int(80 * (panel * (1 + len(radii)) + 0.33 + 0.6)))


SHEET_ATTACK = {'norm': 'L2', 'root_mean_square': 0.1, 'last_radius': 5.5, 'steps': 40}


def test_a_page_shows_measured_gradients(tmp_path):
    measures = dict.fromkeys(('cosine', 'cosine_present', 'cosine_absent', 'high_frequency', 'image_high_frequency'))
    gradients = {
        **measures,
        'target': {'type': 'NearestNeighbour', 'of': 'other test images'},
        'cosine': 0.1234,
        'high_frequency': 0.5,
        'classes': ['a', 'b'],
        'without_example': ['c'],
        'over': 'valid',
        'per_image': [{'image': 'a.png', 'cosine': 0.1, 'high_frequency': 0.5}] * 3,
        'sheet': {'file': 'gradients.png', 'images': ['a.png'], 'classes': ['a'], 'attack': SHEET_ATTACK},
    }
    for name, measured in (('with', gradients), ('without', None)):
        (tmp_path / name / 'pictures').mkdir(parents=True)
        RunResults.from_json({**content(), 'gradients': measured, 'pictures': []}).write(tmp_path / name)
    Image.new('RGB', (4, 4)).save(tmp_path / 'with' / 'gradients.png')
    runs = {name: tmp_path / name for name in ('with', 'without')}
    page = write_report(runs, tmp_path / 'page.html').read_text()
    (row,) = re.findall(r'<tr><td>with</td><td>NearestNeighbour, other test images</td>(.*?)</tr>', page)
    assert re.findall(r'>([\d.-]+)<', row) == ['0.123', '-', '-', '0.500', '-']
    assert page.count('<img ') == 1
    assert 'Input gradients' not in write_report({'w': tmp_path / 'without'}, tmp_path / 'page.html').read_text()
    text = InputGradients.text(InputGradients.read({'gradients': gradients}))
    assert 'of 3 images and 2 class scores' in text and 'cosine to g           0.123' in text
    assert text.endswith('without an example: c')
    (tmp_path / 'with' / 'gradients.png').unlink()
    with pytest.raises(UserError, match='gradients.png cannot be read'):
        write_report(runs, tmp_path / 'page.html')
