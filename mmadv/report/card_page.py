"""The page of a robustness card, as HTML with everything inline and as Markdown, and the page of a comparison."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from mmadv.report import views
from mmadv.report.card import CARD_METRICS, MIOU, Card, CardPart, CardRow, Cost
from mmadv.report.card_comparison import Number, differences, shown, summary_table, wins_table
from mmadv.report.curve import robustness_figure, svg_text
from mmadv.report.drawing import draw_svgs, plain_text
from mmadv.report.html import environment
from mmadv.report.metrics import METRICS
from mmadv.report.run import RunResults
from mmadv.report.table import Table

# Parts whose accuracy over the radius is drawn together, by norm.
CURVES = {'Linf': ('auto', 'sea', 'square', 'universal', 'transfer', 'noise'), 'L2': ('auto-l2', 'sea-l2')}
# Parts whose own plots the page has.
PLOTTED = ('corruptions', 'calibration')
INTERVALS = (
    'Intervals are 95 % intervals over resampled images. They say how much a number depends on the choice of images.'
)


class PartView(NamedTuple):
    """A part on the page: its title, table, sentences, and the command that repeats it."""

    title: str
    table: Table
    sentences: list[str]
    command: str


def part_table(part: CardPart) -> Table:
    """Returns the numbers of a part, one row for each condition."""
    metrics = list(dict.fromkeys(metric for row in part.rows for metric in row.values))
    rows = tuple((row.condition, *(_cell(row, metric) for metric in metrics)) for row in part.rows)
    return Table(('condition', *(_title(metric) for metric in metrics)), rows, text_columns=1, caption=_caption(part))


def _title(metric: str) -> str:
    one = CARD_METRICS[metric]
    return f'{one.label}, %' if one.percent else one.label


def _cell(row: CardRow, metric: str) -> str:
    value = row.values.get(metric)
    return shown(None if value is None else Number(value, row.intervals.get(metric)), metric)


def _caption(part: CardPart) -> str:
    passes = '; '.join(
        f'{radius}: {forward:.1f} forward, {backward:.1f} backward'
        for radius, (forward, backward) in part.passes.items()
    )
    return f'{part.images} images' + (f'; passes of the attack for each image: {passes}' if passes else '')


def sentences(part: CardPart) -> list[str]:
    """Returns the sanity checks and the reasons to doubt the numbers of a part."""
    checks = [f'{"passed" if one.passed else "FAILED"}: {one.name} ({one.evidence})' for one in part.findings]
    return [*checks, *part.notes]


def part_view(card: Card, part: CardPart) -> PartView:
    """Returns a part as the page shows it."""
    source = [f'the attacked model is that of {part.seen_from}'] if part.seen_from else []
    files = ['--source', part.seen_from, 'ITS_CHECKPOINT'] if part.seen_from else []
    words = [part.config or card.config, card.checkpoint.file, *part.words, *files]
    command = f'mmadv {part.command} {shlex.join(words)}'
    return PartView(part.title, part_table(part), [*source, *sentences(part)], command)


def cost_table(costs: Mapping[str, Cost]) -> Table:
    """Returns the passes of each part, the predicted time and the time that it took."""
    rows = [
        (
            cost.title,
            cost.images,
            cost.forward,
            cost.backward,
            cost.once or '-',
            _minutes(cost.seconds),
            '-' if cost.actual is None else _minutes(cost.actual),
        )
        for cost in costs.values()
    ]
    known = [cost.actual for cost in costs.values() if cost.actual is not None]
    passes = sum(cost.images * cost.forward + cost.once for cost in costs.values())
    backward = sum(cost.images * cost.backward + cost.once for cost in costs.values())
    actual = _minutes(sum(known)) if len(known) == len(costs) else '-'
    total = ('in all', '-', passes, backward, '-', _minutes(sum(cost.seconds for cost in costs.values())), actual)
    header = ('part', 'images', 'forward', 'backward', 'once', 'minutes, about', 'minutes it took')
    caption = 'Passes for each image, at most; passes that train a perturbation once; the last line has all passes'
    return Table(header, (*rows, total), text_columns=1, caption=caption)


def _minutes(seconds: float) -> str:
    return f'{seconds / 60:.1f}' if seconds >= 60 else f'{seconds / 60:.2f}'


def facts(card: Card) -> dict[str, str]:
    """Returns the settings of a card: name -> text."""
    return {
        'config': card.config,
        'weights': f'{card.checkpoint.file}, sha256 {card.checkpoint.sha256}',
        'dataset': f'{card.dataset}, {card.images} of {card.size} images',
        'budget': card.budget,
        'seed': str(card.seed),
        'versions': ', '.join(f'{name} {version}' for name, version in card.versions.items()),
    }


def card_page(name: str, card: Card, folder: Path, costs: Mapping[str, Cost]) -> str:
    """Returns the page of one card.

    Args:
        name: name of the model.
        card: the card.
        folder: folder with the result folders of the parts, for plots and pictures.
        costs: part -> its cost.
    """
    runs = {part: RunResults.load(folder / part) for part in card.parts}
    pictures = [
        one for part, run in runs.items() for shown in views.pictures(run, folder / part).values() for one in shown
    ]
    return (
        environment()
        .get_template('card.html')
        .render(
            title=f'Robustness card: {name}',
            lead=[INTERVALS, *_trust(card)],
            summary=[replace(transposed(summary_table({name: card})), header=('condition', 'value'))],
            figures=[Markup(svg) for svg in _figures(runs)],  # matplotlib escapes the texts in it
            parts=[part_view(card, part) for part in card.parts.values()],
            left_out=card.left_out,
            costs=cost_table(costs) if costs else None,
            facts=facts(card),
            pictures=pictures,
            notes=[],
        )
    )


def _figures(runs: Mapping[str, RunResults]) -> list[str]:
    figures = []
    for norm, names in CURVES.items():
        drawn = {name: runs[name] for name in names if name in runs}
        if drawn:
            figures += draw_svgs(f'the curves under {norm}', partial(_curve, norm, drawn))
    for name in PLOTTED:
        if name in runs:
            figures += views.measured_curves({'': runs[name]})
    return figures


@plain_text
def _curve(norm: str, runs: Mapping[str, RunResults]) -> list[str]:
    figure = robustness_figure(runs, [METRICS[MIOU]])
    figure.suptitle(f'Attacks, {norm}')
    return [svg_text(figure, norm)]


def _trust(card: Card) -> list[str]:
    part = card.parts.get('checks')
    failed = [one.name for one in part.findings if not one.passed] if part else []
    return (
        [f'Sanity checks that failed: {", ".join(failed)}. The numbers under attack may be too high.'] if failed else []
    )


def transposed(table: Table) -> Table:
    """Returns a table with a column for each of its rows, which a phone shows better."""
    columns = [table.header, *table.texts]
    header, *rows = zip(*columns, strict=True)
    return Table(header, tuple(rows), text_columns=1, caption=table.caption)


def card_markdown(name: str, card: Card, costs: Mapping[str, Cost]) -> str:
    """Returns the card in Markdown: what the page has, without pictures."""
    blocks = [f'# Robustness card: {name}', INTERVALS, *_trust(card)]
    table = transposed(summary_table({name: card}))
    blocks += [f'{table.caption}\n\n{table.markdown().rstrip()}']
    for part in card.parts.values():
        view = part_view(card, part)
        blocks += [f'## {view.title}', f'{view.table.caption}\n\n{view.table.markdown().rstrip()}']
        blocks += ['\n'.join(f'- {sentence}' for sentence in view.sentences)] if view.sentences else []
        blocks += [f'    {view.command}']
    if card.left_out:
        blocks += ['## Not measured', '\n'.join(f'- {part}: {reason}' for part, reason in card.left_out.items())]
    if costs:
        table = cost_table(costs)
        blocks += ['## Cost', f'{table.caption}\n\n{table.markdown().rstrip()}']
    blocks += ['## Settings', '\n'.join(f'- {key}: {value}' for key, value in facts(card).items())]
    return '\n\n'.join(blocks) + '\n'


def comparison_page(cards: Mapping[str, Card]) -> str:
    """Returns the page of several cards: a line for each model, who wins where, and the settings."""
    return (
        environment()
        .get_template('card.html')
        .render(
            title='Robustness cards',
            lead=[INTERVALS],
            summary=[wins_table(cards), transposed(summary_table(cards))],
            figures=[],
            parts=[],
            left_out={
                f'{name}, {part}': reason for name, card in cards.items() for part, reason in card.left_out.items()
            },
            costs=None,
            facts={f'{name}, {key}': value for name, card in cards.items() for key, value in facts(card).items()},
            pictures=[],
            notes=differences(cards),
        )
    )


def comparison_markdown(cards: Mapping[str, Card]) -> str:
    """Returns several cards in Markdown: who wins where, a line for each model, and the settings that differ."""
    blocks = ['# Robustness cards', INTERVALS]
    for table in (wins_table(cards), summary_table(cards)):
        blocks += [f'## {table.caption}', table.markdown().rstrip()] if table else []
    notes = differences(cards)
    if notes:
        blocks += ['The cards differ in these settings, so their numbers do not compare directly:']
        blocks += ['\n'.join(f'- {note}' for note in notes)]
    return '\n\n'.join(blocks) + '\n'
