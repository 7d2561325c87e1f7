"""Names that matplotlib would take for formulas, and pictures that fail."""

import numpy as np
import pytest
from PIL import Image

from mmadv.report import Example, draw_example
from mmadv.report.certificates import certificate_figure
from mmadv.report.drawing import draw_file, draw_svgs
from mmadv.report.sheet import draw_sheet

NAMES = ['$x$', r'$\frac{1}$', '$', r'a_$\nonsense$', '50 $ or 60 $']


@pytest.mark.parametrize('name', NAMES)
def test_names_with_dollars_are_drawn_as_they_are(tmp_path, name):
    pixels, classes = np.zeros((8, 8, 3)), np.zeros((8, 8), int)
    example = Example(0, name, pixels, classes, classes, {name: pixels}, {name: classes})
    draw_example(example, tmp_path / 'example.png', classes=[name], palette=[[0, 0, 0]])
    draw_sheet({name: [pixels]}, [name], tmp_path / 'sheet.png', notes={name: [name]})
    for path in tmp_path.iterdir():
        assert np.asarray(Image.open(path)).min() < 100


@pytest.mark.parametrize('shape', [(32, 32), (60, 32), (16, 48)], ids=str)
def test_the_titles_of_certificates_are_within_the_picture(shape):
    label, where = np.zeros(shape, int), np.ones(shape, bool)
    label[0, 0] = 255
    figure = certificate_figure(
        np.zeros((*shape, 3)), label, label % 2, {0.1: where, 0.2: ~where}, palette=[[9, 9, 9]] * 2
    )
    figure.canvas.draw()
    assert [axes.get_title() for axes in figure.axes[3:]] == [
        'certified to 0.100\n0.0 % abstained',
        'certified to 0.200\n100.0 % abstained',
    ]
    for axes in figure.axes:
        title = axes.title.get_window_extent()
        assert title.y0 >= axes.get_window_extent().y1 and title.y1 <= figure.bbox.y1
    assert (np.asarray(figure.axes[4].images[0].get_array()) == 255).all()


def test_a_picture_that_fails_is_told_and_leaves_no_file(tmp_path, capsys):
    path = tmp_path / 'picture.png'

    def fail():
        path.write_text('half')
        raise ValueError('no such colour\nat all')

    assert not draw_file(path, fail)
    assert not path.exists()
    assert draw_file(path, lambda: path.write_text('whole') and None) and path.exists()
    assert draw_svgs('curve', lambda: ['<svg>']) == ['<svg>'] and draw_svgs('curve', fail) == []
    notes = capsys.readouterr().err.splitlines()
    assert notes == [
        f'note: {name} could not be drawn (ValueError: no such colour); no number depends on it'
        for name in ('picture.png', 'curve')
    ]
