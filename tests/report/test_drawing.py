"""Names that matplotlib would take for formulas, and pictures that fail."""

import numpy as np
import pytest
from PIL import Image

from mmadv.report import Example, draw_example
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
