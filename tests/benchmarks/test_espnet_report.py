"""The tables of docs/espnet.md: their arithmetic, and that they are those of the stored cells."""

import espnet_report as report
import numpy as np
import pytest


def cell(accuracy, forward=2, curve=((1, 0.8),), right=(4, 1)):
    areas = {'right': list(right), 'predicted': [5, 5], 'labelled': [5, 5]}
    return dict(
        name='a', accuracy=accuracy, forward=forward, curve=[list(p) for p in curve], areas=areas, date='2026-01-01'
    )


@pytest.fixture
def content():
    cells = {f'published {image} 0 none 0': cell(0.9, right=(5, 5)) for image in (3, 7)}
    for image, radius in ((3, '1/255'), (3, '2/255'), (7, '1/255')):
        for loss, value in (('masked_ce', 0.5), ('balanced_ce', 0.6), ('js', 0.4 if image == 3 else 0.7)):
            curve = ((1, 0.8), (2, value))
            cells[f'published {image} {radius} sea/{loss} 25'] = cell(value, curve=curve, right=(2, 2))
        cells[f'published {image} {radius} sea/masked_spherical 25'] = cell(0.8)
    return {'cells': cells}


SEA = (('sea', 25),)


def test_worst_case_is_per_image_and_radii_with_other_images_have_a_table_of_their_own(content):
    results = report.Results(content, 'published')
    first, second = report.tables(results, SEA)
    assert first.startswith('2 of the 101 validation images') and second.startswith('1 of the 101')
    # (0.4 + 0.5) / 2; IoU of each class: 2 right of 5 + 5 - 2.
    assert first.splitlines()[-1] == '| SEA | 8 | 45.00 | 25.00 |'
    assert first.splitlines()[-2] == '| none | 1 | 90.00 | 100.00 |'
    assert second.splitlines()[-1] == '| SEA | 8 | 40.00 | 25.00 |'


def test_an_attack_with_a_loss_missing_has_no_number(content):
    results = report.Results(content, 'published')
    assert report.tables(results, (('sea-eccv', 25),)) == []
    assert report.tables(report.Results(content, 'adversarial'), SEA) == []


def test_losses_run_one_after_the_other_and_a_curve_never_rises(content):
    curve = report.Results(content, 'published').curve(7, '1/255', 'sea', 25)
    np.testing.assert_array_equal(curve, [0.8, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])


def test_the_document_holds_the_tables_of_the_stored_cells(tmp_path):
    images = tmp_path / 'images'
    images.mkdir()
    section = report.section(report.stored(), images)
    assert section in report.DOCUMENT.read_text(encoding='utf-8')
    for model in ('published', 'adversarial'):
        assert (images / f'espnet_{model}.png').stat().st_size > 10_000
