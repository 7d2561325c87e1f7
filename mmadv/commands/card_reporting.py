"""``mmadv report`` of robustness cards: several models side by side, or what changed between two cards of one model."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence

from mmadv.errors import UserError
from mmadv.evaluation.result_store import first_difference
from mmadv.printing import printable
from mmadv.report.card import CARD, Card, is_card
from mmadv.report.card_comparison import changes, changes_table, changes_text, summary_data, summary_table, wins_table
from mmadv.report.card_page import comparison_markdown, comparison_page
from mmadv.report.output_folder import locked, staged

# Options of the command that are for runs, not for cards.
OF_RUNS = ('components', 'over_seeds', 'paired')


def report_cards(arguments: Namespace, names: Sequence[str]) -> None:
    """Prints the comparison of cards as Markdown, and writes it if a folder is given.

    Args:
        arguments: parsed arguments of ``mmadv report``.
        names: names of the models.

    Raises:
        UserError: a folder has no card, an option is for runs, or two cards have other settings.
    """
    for folder in arguments.folders:
        if not is_card(folder):
            what = 'has no card' if arguments.changes else 'has no card, and another folder has one'
            raise UserError(f'result folder {folder} {what} ({CARD}); give folders of mmadv card alone')
    for option in OF_RUNS:
        if getattr(arguments, option):
            raise UserError(
                f'--{option.replace("_", "-")} is for results of mmadv test; leave it out, or give folders of parts, '
                'such as CARD/parts/auto'
            )
    cards = {name: Card.load(folder) for name, folder in zip(names, arguments.folders, strict=True)}
    texts = _changes(arguments, cards) if arguments.changes else _comparison(cards)
    print(printable(texts['md'], lines=True))
    if arguments.out:
        name = 'changes' if arguments.changes else 'comparison'
        with locked(arguments.out), staged(arguments.out, last=f'{name}.md') as stage:
            for suffix, text in texts.items():
                (stage / f'{name}.{suffix}').write_text(text, encoding='utf-8')
        print(f'{name}: {arguments.out}')


def _comparison(cards: Mapping[str, Card]) -> dict[str, str]:
    """Returns suffix -> text of the comparison of several models."""
    return {
        'md': comparison_markdown(cards),
        'csv': summary_data(cards).csv(),
        'tex': summary_table(cards).latex() + (wins_table(cards).latex() if len(cards) > 1 else ''),
        'html': comparison_page(cards),
    }


def _changes(arguments: Namespace, cards: Mapping[str, Card]) -> dict[str, str]:
    """Returns suffix -> text of what changed between two cards.

    Raises:
        UserError: there are not two cards, or they have other settings.
    """
    if len(cards) != 2:
        raise UserError(
            f'--changes compares two cards of one model; found {len(cards)}; give the older one, then the newer'
        )
    (first, old), (second, new) = cards.items()
    difference = first_difference(old.settings(), new.settings())
    if difference is not None:
        raise UserError(
            f'the cards {first} and {second} differ in {difference}; --changes compares cards of the same images, '
            'budget and parts'
        )
    changed = changes(old, new)
    table = changes_table(changed)
    lines = [f'- {sentence}' for sentence in changes_text(old, new)]
    body = [f'## {table.caption}', table.markdown().rstrip()] if table else ['Nothing changed beyond the intervals.']
    blocks = [f'# From {first} to {second}', '\n'.join(lines), *body]
    return {'md': '\n\n'.join(blocks) + '\n', 'csv': table.csv(), 'tex': table.latex()}
