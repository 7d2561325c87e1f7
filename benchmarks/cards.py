"""Makes robustness cards of models on CamVid, and the page of docs that compares them.

    python benchmarks/cards.py

The models are those of benchmarks/fast_newton.py (seed 0), one that trained with Gaussian noise from the same start,
and ESPNet with its authors' weights (see benchmarks/espnet.py). Cards lie in work_dirs/cards. A card that is there is
not made again, and one that was cut short goes on. ``--stored`` makes none: it writes the section of
docs/evidence_cards.md and the pages of docs/cards from those that are there. All of their numbers go to
benchmarks/results/cards.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments import ROOT, provenance, store, write_section

from mmadv.commands.card import COST, run_card
from mmadv.report.card import CARD, Card, Cost
from mmadv.report.card_comparison import summary_table, wins_table
from mmadv.report.card_page import card_markdown, transposed
from mmadv.report.html import write_whole

STUDY = 'work_dirs/fast_newton/upernet_r18'
SOURCE = ('configs/at/upernet_r18_fgsm_camvid_finetune.py', f'{STUDY}_fgsm_camvid_finetune_0/iter_500.pth')
# Name -> config, weights and further options. All but ESPNet have one architecture, one start and one dataset.
MODELS: dict[str, tuple[str, ...]] = {
    'standard': (
        'configs/clean/upernet_r18_clean_camvid_finetune.py',
        f'{STUDY}_clean_camvid_finetune_0/iter_500.pth',
    ),
    'PGD-5': (
        'configs/at/upernet_r18_pgd5_camvid_finetune.py',
        f'{STUDY}_pgd5_camvid_finetune_0/iter_500.pth',
    ),
    'Gaussian noise': (
        'configs/smoothing/upernet_r18_gaussian_camvid_finetune.py',
        f'{STUDY}_gaussian_camvid_finetune_0/iter_500.pth',
    ),
}
COMPARED = ('--sigma', '0.12', '--batch-size', '8', '--source', *SOURCE)
# Its passes take five times as long, so it gets half of the images and fewer parts.
ALONE: dict[str, tuple[str, ...]] = {
    'ESPNet': (
        'projects/espnet/configs/espnet_camvid.py',
        'work_dirs/espnet/espnet_camvid.pth',
        *('--limit', '4', '--without', 'auto-l2', 'region', 'universal-patch', 'universal'),
    ),
}
# Without processes that load data, which cost more than they save here.
LOADING = ('--cfg-options', 'test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False')


def file_name(name: str) -> str:
    """Returns the name of a model's files.

    >>> file_name('Gaussian noise')
    'gaussian_noise'
    """
    return name.lower().replace(' ', '_').replace('-', '_')


def commands(cards: Path) -> dict[str, list[str]]:
    """Returns the arguments of ``mmadv card`` for each model."""
    words = {name: [*model, *COMPARED] for name, model in MODELS.items()}
    words |= {name: list(model) for name, model in ALONE.items()}
    return {name: [*one, '--out', str(cards / file_name(name)), *LOADING] for name, one in words.items()}


def make(cards: Path, names: Sequence[str]) -> None:
    """Makes the cards that are not there yet."""
    for name, words in commands(cards).items():
        out = cards / file_name(name)
        if name in names and not (out / CARD).is_file():
            run_card([*words, '--resume'] if out.is_dir() else words)


def section(cards: Mapping[str, Card], content: Mapping[str, object]) -> str:
    """Returns the Markdown text between the marks of the study."""
    pages = [f'[{name}](cards/{file_name(name)}.md)' for name in cards]
    compared = {name: card for name, card in cards.items() if name in MODELS}
    blocks = [f'The whole cards: {", ".join(pages)}.']
    tables = [('Who wins where', wins_table(compared)), ('The numbers', transposed(summary_table(compared)))]
    for name in ALONE:
        if name in cards:
            tables.append((name, transposed(summary_table({name: cards[name]}))))
    for title, table in tables:
        caption = [] if table.caption == title else [f'{table.caption}.']
        blocks += [f'### {title}', *caption, table.markdown().rstrip()]
    return '\n\n'.join([*blocks, provenance(content)])


def publish(folder: Path) -> None:
    """Writes the records, the section of docs and the pages, of all cards that are there.

    Raises:
        SystemExit: fewer than two of the compared models have a card.
    """
    cards = {
        name: Card.load(folder / file_name(name))
        for name in (*MODELS, *ALONE)
        if (folder / file_name(name) / CARD).is_file()
    }
    compared = {name: card for name, card in cards.items() if name in MODELS}
    if len(compared) < 2:
        raise SystemExit('error: fewer than two cards that compare are there; run without --stored')
    records = [
        {'model': name, 'part': part, 'condition': condition, 'metric': metric, 'value': value, 'interval': interval}
        for name, card in cards.items()
        for (part, condition, metric), value, interval in card.numbers()
    ]
    content = json.loads(store('cards', records, models=commands(Path('work_dirs/cards'))).read_text(encoding='utf-8'))
    pages = ROOT / 'docs/cards'
    pages.mkdir(exist_ok=True)
    for name, card in cards.items():
        parts = json.loads((folder / file_name(name) / COST).read_text(encoding='utf-8'))['parts']
        costs = {part: Cost.from_json(cost) for part, cost in parts.items()}
        write_whole(pages / f'{file_name(name)}.md', card_markdown(name, card, costs))
    write_section(ROOT / 'docs/evidence_cards.md', 'benchmarks/cards.py', section(cards, content))


def main() -> None:
    """Makes the cards that are missing, and writes the records, the section and the pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/cards'))
    parser.add_argument('--models', nargs='+', choices=[*MODELS, *ALONE], default=[*MODELS, *ALONE])
    parser.add_argument('--stored', action='store_true', help='make none; write those that are there')
    arguments = parser.parse_args()
    if not arguments.stored:
        sys.path.insert(0, str(ROOT / 'projects/espnet'))  # as a user's own package would be
        make(arguments.work_dir, arguments.models)
    publish(arguments.work_dir)


if __name__ == '__main__':
    main()
