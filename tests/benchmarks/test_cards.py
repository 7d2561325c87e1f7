"""The study of cards: what it runs, and what it publishes of the cards that are there."""

import json

import cards
import experiments
import pytest
from mmengine.config import Config

from mmadv.commands import card as card_command
from mmadv.report.card import Card, CardPart, CardRow
from mmadv.report.run import CheckpointFile


def card_of(miou, weights):
    parts = {}
    for name, condition, value, interval in (
        ('clean', 'clean', miou, (miou - 0.1, miou + 0.1)),
        ('auto', '4/255', miou / 2, (miou / 2 - 0.01, miou / 2 + 0.01)),
    ):
        rows = (CardRow(condition, {'mIoU': value}, {'mIoU': interval}),)
        parts[name] = CardPart(name, (), 'test', 8, {}, rows)
    return Card(
        budget='quick', config='config.py', checkpoint=CheckpointFile(weights, 'ab'), dataset='CamVidDataset', size=101,
        limit=8, data='cd', classes=('sky',), seed=0, versions={}, parts=parts, left_out={},
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of three cards, and docs to write into."""
    for module in (cards, experiments):
        monkeypatch.setattr(module, 'ROOT', tmp_path)
    monkeypatch.setattr(experiments, 'RESULTS', tmp_path / 'results')
    for name, miou in (('standard', 0.5), ('PGD-5', 0.4), ('ESPNet', 0.7)):
        out = tmp_path / 'work' / cards.file_name(name)
        out.mkdir(parents=True)
        (out / 'card.json').write_text(card_of(miou, f'{name}.pth').text(), encoding='utf-8')
        (out / 'cost.json').write_text('{"parts": {}}', encoding='utf-8')
    (tmp_path / 'docs').mkdir()
    marks = '<!-- cards: written by benchmarks/cards.py -->', '<!-- cards: end -->'
    (tmp_path / 'docs/evidence_cards.md').write_text('\n'.join(marks), encoding='utf-8')
    return tmp_path


def test_the_section_compares_models_of_one_dataset_and_shows_the_other_alone(folder):
    cards.publish(folder / 'work')
    text = (folder / 'docs/evidence_cards.md').read_text(encoding='utf-8')
    assert '[standard](cards/standard.md), [PGD-5](cards/pgd_5.md), [ESPNet](cards/espnet.md).' in text
    compared, alone = text.split('### ESPNet')
    assert '| clean | 50.00 [40.00, 60.00] | 40.00 [30.00, 50.00] |' in compared
    assert '| auto 4/255 | standard | PGD-5 | 25.00 [24.00, 26.00] | 20.00 [19.00, 21.00] | yes |' in compared
    assert '| auto 4/255 | 35.00 [34.00, 36.00] |' in alone and '70.00' not in compared
    page = (folder / 'docs/cards/espnet.md').read_text(encoding='utf-8')
    assert page.startswith('# Robustness card: ESPNet\n') and '| auto 4/255 | 35.00 [34.00, 36.00] |' in page
    records = json.loads((folder / 'results/cards.json').read_text(encoding='utf-8'))['records']
    assert len(records) == 6
    assert records[0] == {
        'model': 'standard', 'part': 'clean', 'condition': 'clean', 'metric': 'mIoU', 'value': 0.5,
        'interval': [0.4, 0.6],
    }  # fmt: skip


def test_one_card_compares_with_nothing(folder):
    (folder / 'work/pgd_5/card.json').unlink()
    with pytest.raises(SystemExit, match='fewer than two cards that compare'):
        cards.publish(folder / 'work')
    assert not (folder / 'results').exists() and not (folder / 'docs/cards').exists()


def test_cards_that_are_there_are_not_made_again_and_one_that_was_cut_short_goes_on(folder, monkeypatch):
    made = []
    monkeypatch.setattr(cards, 'run_card', made.append)
    (folder / 'work/gaussian_noise').mkdir()
    (folder / 'work/espnet/card.json').unlink()
    cards.make(folder / 'work', ['standard', 'Gaussian noise'])
    ((config, weights, *words),) = made
    assert (config, weights) == cards.MODELS['Gaussian noise'] and words[-1] == '--resume'


def test_commands_are_complete():
    """Each would run on the working machine: its options parse and its config is there."""
    for words in cards.commands(cards.Path('work_dirs/cards')).values():
        arguments = card_command.parser().parse_args(words)
        assert Config.fromfile(experiments.ROOT / arguments.config).test_dataloader
