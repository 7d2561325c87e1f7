"""The sheet of images by radius: its pictures, its accuracies and what it refuses."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mmadv.commands.command_line import guarded
from mmadv.commands.testing import run_test
from mmadv.engine.measurements.radius_sheet import RadiusSheet, SheetImage, SheetSummary, sheet_columns
from mmadv.errors import UserError
from mmadv.report import Example
from mmadv.report.evaluation import AttackedImage, ImageResult

PALETTE = [(255, 0, 0), (0, 0, 255)]
VOID = 128 / 255


def example(index, wrong):
    """An image whose label is class 0 with a void column; ``wrong`` pixels of 12 are wrong at each radius."""
    label = np.zeros((4, 4), dtype=int)
    label[:, 3] = 255
    attacked = {radius: (np.arange(16) < number).astype(int).reshape(4, 4).T for radius, number in wrong.items()}
    grey = {radius: np.full((4, 4, 3), number / 100) for radius, number in wrong.items()}
    clean = np.zeros((4, 4), dtype=int)
    return Example(index, f'city/{index}.png', np.full((4, 4, 3), 0.5), label, clean, grey, attacked)


EXAMPLES = [example(3, {'4/255': 6, '8/255': 12}), example(7, {'4/255': 3, '8/255': 9})]


def result(one):
    attacked = {
        radius: AttackedImage({'attack': (12 - number) / 12}, (12 - number) / 12, 'attack', 1, 1)
        for radius, number in ((radius, int(prediction.sum())) for radius, prediction in one.attacked.items())
    }
    return ImageResult(one.index, one.name, 12, 1.0, attacked)


SUMMARY = SheetSummary(
    'sheet.png',
    (
        SheetImage('city/3.png', 1.0, {'4/255': 0.5, '8/255': 0.0}),
        SheetImage('city/7.png', 1.0, {'4/255': 0.75, '8/255': 0.25}),
    ),
)


def run(examples):
    context = SimpleNamespace(
        shown=examples, show=2, predictor='p', selection=SimpleNamespace(metainfo={'palette': PALETTE})
    )
    images = [result(one) for one in (example(0, {'4/255': 1, '8/255': 2}), *EXAMPLES)]
    return context, SimpleNamespace(images=images, evaluation=SimpleNamespace(ignore_index=255))


def test_the_summary_has_the_accuracies_of_the_shown_images(tmp_path):
    context, outcome = run(EXAMPLES)
    sheet = RadiusSheet()
    summary = sheet.summarise(context, outcome)
    assert summary == SUMMARY
    assert sheet.write(context, tmp_path, outcome, summary) == summary
    picture = Image.open(tmp_path / 'sheet.png')
    assert picture.width > 800 and picture.height > 800  # four columns and four rows
    assert RadiusSheet.read({'sheet': RadiusSheet.to_json(summary)}) == summary


def test_a_run_without_a_shown_image_has_no_file(tmp_path):
    context, outcome = run([])
    summary = RadiusSheet().summarise(context, outcome)
    assert summary == RadiusSheet().write(context, tmp_path, outcome, summary) == SheetSummary(None, ())
    assert RadiusSheet.files(summary) == {} and not list(tmp_path.iterdir())


def test_columns_are_radii_and_rows_are_images():
    columns, notes = sheet_columns(EXAMPLES, SUMMARY.images, PALETTE, 255)
    assert list(columns) == ['original', '0', '4/255', '8/255']
    assert {len(pictures) for pictures in columns.values()} == {4}
    assert columns['4/255'][0][0, 0, 0] == 0.06 and columns['8/255'][2][0, 0, 0] == 0.09  # adversarial images
    label, prediction = columns['original'][1], columns['8/255'][1]
    assert label[0, 0].tolist() == [1, 0, 0] and label[0, 3].tolist() == [VOID] * 3
    assert prediction[0, 0].tolist() == [0, 0, 1] and prediction[0, 3].tolist() == [VOID] * 3
    assert notes == {
        '0': ['', 'Acc: 100.0 %', '', 'Acc: 100.0 %'],
        '4/255': ['', 'Acc: 50.0 %', '', 'Acc: 75.0 %'],
        '8/255': ['', 'Acc: 0.0 %', '', 'Acc: 25.0 %'],
    }


def test_the_page_compares_the_sheets_of_runs():
    clean = SheetSummary('sheet.png', (SheetImage('a.png', None, {'1/255': None}),))
    section = RadiusSheet.section({'robust': SUMMARY, 'clean': clean})
    assert section.table.header == ('run', 'image', 'clean', '4/255', '8/255', '1/255')
    assert section.table.rows == (
        ('robust', 'city/3.png', '100.00', '50.00', '0.00', None),
        ('robust', 'city/7.png', '100.00', '75.00', '25.00', None),
        ('clean', 'a.png', '-', None, None, '-'),
    )
    assert [picture.file for picture in section.pictures['robust']] == ['sheet.png']


def test_what_a_sheet_needs(capsys):
    assert guarded(run_test, ['c.py', 'w.pth', '--attack', 'none', '--sheet']) == 2
    assert '--sheet needs an attack; name one' in capsys.readouterr().err
    with pytest.raises(UserError, match='RadiusSheet needs images that are shown; let show be 1 or more'):
        RadiusSheet().prepare(SimpleNamespace(show=0))
