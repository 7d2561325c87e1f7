"""Robustness cards side by side: a line for each model, who wins where, and what changed between two cards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mmadv.report.card import CARD_METRICS, CERTIFIED, ECE, MIOU, Card, CardFinding, CardPart, Range95
from mmadv.report.corruptions import ALL
from mmadv.report.evaluation import CLEAN
from mmadv.report.table import Cell, Table, percent

Key = tuple[str, str, str]
# Part -> the metric that stands for it in a line; mIoU for all others.
LEADING = {'certificates': CERTIFIED, 'calibration': ECE}
# Parts whose clean numbers are over some of the pixels.
PARTLY_SCORED = ('region', 'patch', 'universal-patch')
TIE = 'tie'


class Number(NamedTuple):
    """A number of a card and its interval; None if it has none."""

    value: float
    interval: Range95 | None

    def beyond(self, other: Number) -> bool:
        """Returns whether two numbers differ beyond their intervals: each lies outside the other's interval.

        A number without an interval has no width.

        >>> Number(0.5, (0.4, 0.6)).beyond(Number(0.55, (0.5, 0.58))), Number(0.3, (0.2, 0.4)).beyond(Number(0.5, None))
        (False, True)
        """
        return self._misses(other.value) and other._misses(self.value)

    def _misses(self, value: float) -> bool:
        low, high = self.interval or (self.value, self.value)
        return not low <= value <= high


class Change(NamedTuple):
    """A number that differs between two cards: its key, the old and the new number, and whether it is beyond them."""

    key: Key
    old: Number
    new: Number
    beyond: bool


def headline(card: Card) -> dict[Key, Number]:
    """Returns the numbers of the line of a card: one for each condition of each part, without undefined ones."""
    chosen = {}
    for key, value, interval in card.numbers():
        part, condition, metric = key
        if metric != LEADING.get(part, MIOU) or value is None or part == 'checks':
            continue
        if (part == 'corruptions' and condition != ALL) or (part in PARTLY_SCORED and condition == CLEAN):
            continue
        chosen[key] = Number(value, interval)
    return chosen


def label(key: Key) -> str:
    """Returns the title of a number of the line, such as 'auto 4/255'."""
    part, condition, metric = key
    name = part.partition('.')[2] or part
    words = [name] if condition in (CLEAN, ALL) and part != 'calibration' else [name, condition]
    return ' '.join([*words, *([] if metric == MIOU else [CARD_METRICS[metric].label])])


def shown(number: Number | None, metric: str) -> str:
    """Returns a number with its interval, in percent if the metric is one."""
    if number is None:
        return '-'
    write = percent if CARD_METRICS[metric].percent else '{:.3f}'.format
    if number.interval is None:
        return write(number.value)
    low, high = number.interval
    return f'{write(number.value)} [{write(low)}, {write(high)}]'


def checks_text(part: CardPart | None) -> str:
    """Returns how many sanity checks passed; '-' without checks."""
    if part is None:
        return '-'
    return f'{sum(one.passed for one in part.findings)} of {len(part.findings)}'


def summary_table(cards: Mapping[str, Card]) -> Table:
    """Returns one line for each model: mIoU, certified accuracy and ECE in percent, with 95 % intervals in brackets."""
    lines = {name: headline(card) for name, card in cards.items()}
    keys = list(dict.fromkeys(key for line in lines.values() for key in line))
    checks = any('checks' in card.parts for card in cards.values())
    rows = tuple(
        (
            name,
            str(cards[name].images),
            *(shown(line.get(key), key[2]) for key in keys),
            *([checks_text(cards[name].parts.get('checks'))] if checks else []),
        )
        for name, line in lines.items()
    )
    header = ('model', 'images', *map(label, keys), *(['checks passed'] if checks else []))
    return Table(header, rows, text_columns=1, caption='mIoU, %, unless a column says otherwise; 95 % intervals')


def summary_data(cards: Mapping[str, Card]) -> Table:
    """Returns ``summary_table`` as fractions in full precision; the ends of intervals have their own columns."""
    lines = {name: headline(card) for name, card in cards.items()}
    keys = list(dict.fromkeys(key for line in lines.values() for key in line))
    header = ['model', 'images'] + [f'{label(key)}{suffix}' for key in keys for suffix in ('', ' low', ' high')]
    rows = []
    for name, line in lines.items():
        cells: list[Cell] = [name, cards[name].images]
        for key in keys:
            number = line.get(key)
            cells += [None] * 3 if number is None else [number.value, *(number.interval or (None, None))]
        rows.append(tuple(cells))
    return Table(tuple(header), tuple(rows), text_columns=1)


def wins_table(cards: Mapping[str, Card]) -> Table:
    """Returns who wins where: the best and the second model of each condition that at least two cards have."""
    lines = {name: headline(card) for name, card in cards.items()}
    rows = []
    for key in dict.fromkeys(key for line in lines.values() for key in line):
        known = {name: line[key] for name, line in lines.items() if key in line}
        if len(known) < 2:
            continue
        higher = CARD_METRICS[key[2]].higher is not False
        first, second, *_ = sorted(known, key=lambda name: known[name].value, reverse=higher)
        best, next_best = known[first], known[second]
        tied = best.value == next_best.value
        rows.append(
            (
                label(key),
                TIE if tied else first,
                second if not tied else f'{first}, {second}',
                shown(best, key[2]),
                shown(next_best, key[2]),
                'yes' if best.beyond(next_best) else 'no',
            )
        )
    header = ('condition', 'best', 'second', 'value of the best, %', 'of the second, %', 'beyond the intervals')
    return Table(header, tuple(rows), text_columns=3, caption='Who wins where')


def differences(cards: Mapping[str, Card]) -> list[str]:
    """Returns the settings that differ between cards of several models; their numbers then do not compare."""
    settings = {name: card.settings() for name, card in cards.items()}
    notes = []
    for key in ('budget', 'dataset', 'classes', 'images', 'data', 'seed'):
        if len({str(one[key]) for one in settings.values()}) > 1:
            values = '; '.join(f'{name}: {one[key]}' for name, one in settings.items())
            notes.append({'data': 'the content of the images', 'classes': 'the classes'}.get(key, f'{key}: {values}'))
    for part in dict.fromkeys(part for one in settings.values() for part in one['parts']):
        options = {name: one['parts'][part][0] for name, one in settings.items() if part in one['parts']}
        if len(set(options.values())) > 1:
            notes.append(f'the options of {part}: ' + '; '.join(f'{name}: {one}' for name, one in options.items()))
    return notes


def changes(old: Card, new: Card) -> list[Change]:
    """Returns all numbers of both cards that differ; the order is that of the new card."""
    before = {key: Number(value, interval) for key, value, interval in old.numbers() if value is not None}
    changed = []
    for key, value, interval in new.numbers():
        if value is None or key not in before or before[key].value == value:
            continue
        number = Number(value, interval)
        changed.append(Change(key, before[key], number, before[key].beyond(number)))
    return changed


def change_words(change: Change) -> str:
    """Returns 'better' or 'worse', or 'other' if neither value of the metric is the better one."""
    higher = CARD_METRICS[change.key[2]].higher
    if higher is None:
        return 'other'
    return 'better' if (change.new.value > change.old.value) == higher else 'worse'


def changes_table(changed: list[Change]) -> Table:
    """Returns the numbers that changed beyond the intervals, one row each."""
    rows = tuple(
        (
            change.key[0],
            change.key[1],
            CARD_METRICS[change.key[2]].label,
            shown(change.old, change.key[2]),
            shown(change.new, change.key[2]),
            change_words(change),
        )
        for change in changed
        if change.beyond
    )
    header = ('part', 'condition', 'metric', 'old', 'new', 'change')
    return Table(header, rows, text_columns=3, caption='Changed beyond the intervals')


def changes_text(old: Card, new: Card) -> list[str]:
    """Returns sentences on two cards of one model: what differs in model and versions, and how many numbers changed."""
    changed = changes(old, new)
    beyond = sum(change.beyond for change in changed)
    compared = len({key for key, _, _ in old.numbers()} & {key for key, _, _ in new.numbers()})
    same = old.checkpoint.sha256 == new.checkpoint.sha256
    versions = [name for name in new.versions if old.versions.get(name) != new.versions[name]]
    findings = [
        f'the sanity check "{one.name}" {"passes" if one.passed else "fails"} now ({one.evidence})'
        for before, one in _findings(old, new)
        if before.passed != one.passed
    ]
    return [
        'the weights are the same' if same else 'the weights differ',
        f'versions that differ: {", ".join(versions)}' if versions else 'all versions are the same',
        f'{compared} numbers are compared: {beyond} changed beyond the intervals, {len(changed) - beyond} changed '
        f'within them, {compared - len(changed)} are equal',
        *findings,
    ]


def _findings(old: Card, new: Card) -> list[tuple[CardFinding, CardFinding]]:
    first, second = old.parts.get('checks'), new.parts.get('checks')
    if first is None or second is None:
        return []
    before = {one.name: one for one in first.findings}
    return [(before[one.name], one) for one in second.findings if one.name in before]
