"""``mmadv report``: compare result folders in tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmadv.commands.card_reporting import report_cards
from mmadv.commands.command_line import Parser
from mmadv.commands.paired_runs import WORST, StoredRun, paired_data, paired_rows, paired_table
from mmadv.errors import UserError
from mmadv.evaluation.image_record import to_counts
from mmadv.evaluation.record_check import check_complete
from mmadv.evaluation.result_store import read_records
from mmadv.printing import printable
from mmadv.report import bounds
from mmadv.report.budget import draw_budget
from mmadv.report.card import is_card
from mmadv.report.comparison import FORMATS, section_tables
from mmadv.report.curve import draw_curve
from mmadv.report.drawing import draw_file
from mmadv.report.html import table_page
from mmadv.report.metrics import HEADLINE
from mmadv.report.output_folder import check_writable, locked, staged
from mmadv.report.run import RunResults
from mmadv.report.seeds import Line, obstacle, run_lines, seeds_data, seeds_table
from mmadv.report.table import Table, percent
from mmadv.robustness import Counts, every_subset, wins


def parser() -> argparse.ArgumentParser:
    """Returns the parser of ``mmadv report``."""
    result = Parser(
        prog='mmadv report',
        description='Compare result folders of mmadv test and mmadv certify, or cards of mmadv card.',
        example='mmadv report work_dirs/clean/sea work_dirs/at/sea --out comparison',
    )
    result.add_argument('folders', nargs='+', metavar='RESULT_DIR', help='folder of mmadv test, certify or card')
    result.add_argument('--names', nargs='+', metavar='NAME', help='names of the runs (default: names of the folders)')
    result.add_argument(
        '--out',
        metavar='DIR',
        help='write comparison.md, .csv, .tex and .png to DIR, with tables of measurements, the files of --paired and '
        '--over-seeds, and bounds.* if runs have certificates and attacks in L2',
    )
    result.add_argument(
        '--components',
        action='store_true',
        help='also show every subset of the attacks of an ensemble, from the stored counts',
    )
    result.add_argument(
        '--over-seeds',
        action='store_true',
        help='also show mean and deviation of runs that differ in --seed alone; with --components, of every subset too',
    )
    result.add_argument(
        '--paired',
        action='store_true',
        help='also compare each attack with the same attack of the first run, on common images, with paired intervals',
    )
    result.add_argument(
        '--changes',
        action='store_true',
        help='say what changed beyond the intervals between two cards of one model, the older one first',
    )
    return result


def run_report(argv: Sequence[str]) -> None:
    """Prints the comparison as Markdown, and writes it in all formats if a folder is given.

    Raises:
        UserError: a folder has no readable results, or the names do not fit the folders.
    """
    arguments = parser().parse_args(argv)
    names = arguments.names or _names(arguments.folders)
    if len(names) != len(arguments.folders) or len(set(names)) != len(names):
        raise UserError(f'--names must name each of the {len(arguments.folders)} runs differently; found {names}')
    if arguments.out:
        check_writable(arguments.out)
    cards = [folder for folder in arguments.folders if is_card(folder)]
    if cards or arguments.changes:
        report_cards(arguments, names)
        return
    runs = {name: RunResults.load(folder) for name, folder in zip(names, arguments.folders, strict=True)}
    texts = {suffix: write(runs) for suffix, write in FORMATS.items()}
    print(texts['md'])
    tables = section_tables(runs)
    certified = bounds.bounds_table(runs)
    if certified:
        tables[bounds.NAME] = certified
    for table in tables.values():
        print(f'{table.caption}\n\n{table.markdown()}')
    for note in bounds.notes(runs):
        print(printable(f'note: {note}'), file=sys.stderr)
    folders = dict(zip(names, map(Path, arguments.folders), strict=True))
    if arguments.components:
        for name, folder in folders.items():
            print(components(name, folder, runs[name]))
    lines = seed_lines(runs, folders, subsets=arguments.components) if arguments.over_seeds else []
    if lines:
        print(f'{seeds_table(lines).text()}\n')
    paired = []
    if arguments.paired:
        stored = [StoredRun.load(name, folder) for name, folder in zip(names, arguments.folders, strict=True)]
        paired = paired_rows(stored)
        print(paired_table(paired).markdown())
    if arguments.out:
        with locked(arguments.out), staged(arguments.out, last='comparison.md') as stage:
            for suffix, text in texts.items():
                (stage / f'comparison.{suffix}').write_text(text, encoding='utf-8')
            for name, table in tables.items():
                (stage / f'{name}.md').write_text(table.markdown(), encoding='utf-8')
                (stage / f'{name}.tex').write_text(table.latex(), encoding='utf-8')
            curve = stage / 'comparison.png'
            draw_file(curve, lambda: draw_curve(runs, curve))
            if certified:
                (stage / f'{bounds.NAME}.csv').write_text(bounds.bounds_data(runs).csv(), encoding='utf-8')
                plot = stage / f'{bounds.NAME}.png'
                draw_file(plot, lambda: bounds.draw_bounds(runs, plot))
            if lines:
                _write_seeds(stage, lines)
            if paired:
                _write_paired(stage, paired)
        print(f'comparison: {arguments.out}')


def seed_lines(runs: Mapping[str, RunResults], folders: Mapping[str, Path], *, subsets: bool) -> list[list[Line]]:
    """Returns the lines of runs that differ in the seed alone, for ``mmadv.report.seeds``.

    Args:
        runs: name -> results.
        folders: name -> result folder.
        subsets: add the worst case over every subset of at least two of an ensemble's attacks.

    Raises:
        UserError: the runs differ in more than the seed, or stored counts cannot be read.
    """
    sentence = obstacle(runs)
    if sentence:
        raise UserError(f'--over-seeds: {sentence}')
    lines = run_lines(runs)
    if subsets:
        radii = ['0', *next(iter(runs.values())).evaluation.attacked]
        for name, own in lines.items():
            own += _subset_lines(name, folders[name], runs[name])
            own.sort(key=lambda line: radii.index(line[0]))
    return list(lines.values())


def _subset_lines(name: str, folder: Path, run: RunResults) -> list[Line]:
    return [
        (radius, ' + '.join(row['members']), row)
        for radius, members in _members(name, folder, run).items()
        for row in every_subset(members)
        if 1 < len(row['members']) < len(members)
    ]


def _write_seeds(folder: Path, lines: Sequence[Sequence[Line]]) -> None:
    table = seeds_table(lines)
    texts = {'md': table.markdown(), 'csv': seeds_data(lines).csv(), 'tex': table.latex(), 'html': table_page(table)}
    for suffix, text in texts.items():
        (folder / f'seeds.{suffix}').write_text(text, encoding='utf-8')


def _write_paired(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    (folder / 'paired.md').write_text(paired_table(rows).markdown(), encoding='utf-8')
    (folder / 'paired.csv').write_text(paired_data(rows).csv(), encoding='utf-8')
    for radius in dict.fromkeys(row['radius'] for row in rows):
        mine = [row for row in rows if row['radius'] == radius]
        if all(row['iterations'] for row in mine):
            path = folder / f'budget_{radius.replace("/", "_")}.png'
            draw_file(path, partial(draw_budget, mine, path, WORST))


def components(name: str, folder: Path, run: RunResults) -> str:
    """Returns two tables per radius: every subset of an ensemble's attacks, and how often each attack is the worst.

    Raises:
        UserError: the run has a single attack, or its stored counts cannot be read.
    """
    texts = []
    for radius, members in _members(name, folder, run).items():
        subsets = Table(
            (f'{name}, {radius}: worst case of', *(metric.label for metric in HEADLINE)),
            tuple(
                (' + '.join(row['members']), *(percent(row[metric.name]) for metric in HEADLINE))
                for row in every_subset(members)
            ),
            text_columns=1,
        )
        counts = Table(
            ('attack', 'is the worst on', 'alone on'),
            tuple((member, won['worst'], won['alone']) for member, won in wins(members).items()),
            text_columns=1,
        )
        texts.append(f'{subsets.text()}\n\n{counts.text()}\n')
    return '\n'.join(texts)


def _members(name: str, folder: Path, run: RunResults) -> dict[str, dict[str, Counts]]:
    """Returns radius -> attack of an ensemble -> its stored counts; raises UserError for a single attack."""
    path, classes = folder / 'records.jsonl', len(run.evaluation.classes)
    _, records = read_records(path)
    check_complete(records, classes, str(path))
    counts = {}
    for radius in run.evaluation.attacked:
        stored = [record['attacked'][radius] for record in records]
        if len(stored[0]) < 2:
            raise UserError(f'{name} ran a single attack; --components is for ensembles such as --attack sea')
        counts[radius] = {member: to_counts([areas[member] for areas in stored], classes) for member in stored[0]}
    return counts


def _names(folders: Sequence[str]) -> list[str]:
    """Returns the last parts of the folders' paths, or the whole paths if the last parts are not unique."""
    last = [Path(folder).resolve().name for folder in folders]
    return last if len(set(last)) == len(last) else [str(folder) for folder in folders]
