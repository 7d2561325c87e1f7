"""The study behind docs/published.md: what its table says is what is stored."""

import json
from pathlib import Path

import protocol_differences
import published_size
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ('table', 'name'),
    [(published_size.table, 'published_size_cpu'), (protocol_differences.table, 'protocol_differences')],
)
def test_document_shows_the_stored_numbers(table, name):
    path = ROOT / 'benchmarks' / 'results' / f'{name}.json'
    content = json.loads(path.read_text(encoding='utf-8'))
    assert table(content) in (ROOT / 'docs' / 'published.md').read_text(encoding='utf-8')


def test_hours_of_sea_are_images_times_losses_times_iterations():
    title = 'UPerNet + ConvNeXt-T, VOC'
    assert published_size.hours_of_sea(title, 2.0) == pytest.approx(1449 * 3 * 300 * 2 / 3600)
    assert published_size.hours_of_sea('Segmenter + ViT-S, ADE20K', 1.0) == 500


def test_every_published_config_is_measured():
    published = {path.name for path in (ROOT / 'configs' / 'published').glob('*.py')}
    assert published == {Path(config).name for config, *_ in published_size.CASES.values() if 'published' in config}


def test_differences_from_the_protocol_are_those_of_its_own_run():
    def record(run, clean, attacked, greedy):
        numbers = {'aAcc': 0.9, 'aAcc_image_mean': 0.8}
        worst = {**numbers, 'aAcc': 0.5, 'mIoU': attacked, 'mIoU_greedy': greedy}
        return {'run': run, 'clean': {**numbers, 'mIoU': clean}, 'attacked': worst}

    records = [record('opencv', 0.6, 0.3, 0.2), record('void', 0.5, 0.2, 0.1), record('published', 0.7, 0.25, 0.24)]
    rows = protocol_differences.differences(records)
    expected = [(-10, 5), (-20, -5), (10, -30), (None, 1)]
    assert [(None if clean is None else round(clean, 9), round(attacked, 9)) for _, clean, attacked in rows] == expected
