"""The parts of the page that ``html.py`` puts together: tables, bars and notes, as HTML text.

The name of a run is empty where the page has no other.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from mmadv.errors import UserError
from mmadv.report.breakdown import object_size_rows
from mmadv.report.gradients import COLUMNS as GRADIENT_COLUMNS
from mmadv.report.gradients import gradients_rows
from mmadv.report.summary import sentences
from mmadv.report.table import COLUMNS, percent, rows

HEADLINE = ('aAcc', 'aAcc_image_mean', 'mIoU')
# More classes than these are folded away.
OPEN_CLASSES = 30
KINDS = {
    'least robust': 'The least robust',
    'most robust': 'The most robust',
    'sample': 'Spread evenly over the images',
}
# What should be the same in runs that are compared: name -> where it is in results.json.
SETTINGS = {
    'attack': lambda r: (r['attack'] or {}).get('title', 'none'),
    'attack parameters': lambda r: json.dumps((r['attack'] or {}).get('parameters'), sort_keys=True),
    'radii': lambda r: ', '.join(radius['text'] for radius in r['radii']) or 'none',
    'seed': lambda r: r['seed'],
    'dataset': lambda r: r['dataset']['type'],
    'images': lambda r: r['evaluation']['images'],
    'classes': lambda r: len(r['evaluation']['classes']),
    'ignored label': lambda r: r['evaluation']['ignore_index'],
}


def headline(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the table of the headline metrics, clean and worst case at every radius, with their intervals."""
    body, intervals_known = [], False
    for name, results in runs.items():
        evaluation = results['evaluation']
        known = evaluation.get('intervals') or {}
        if len(runs) > 1:
            body.append(f'<tr><th scope="rowgroup" colspan="{1 + len(HEADLINE)}">{escape(name)}</th></tr>')
        for radius, values in _columns(evaluation).items():
            cells = [_with_interval(values[metric], (known.get(radius) or {}).get(metric)) for metric in HEADLINE]
            intervals_known |= any('interval' in cell for cell in cells)
            body.append(
                f'<tr><th scope="row">{escape(radius)}</th>'
                + ''.join(f'<td class="number">{cell}</td>' for cell in cells)
                + '</tr>'
            )
    titles = ' / '.join(sorted({results['evaluation']['title'] for results in runs.values()}))
    note = '; below each number its 95\u00a0% interval over resampled images' if intervals_known else ''
    head = ''.join(f'<th scope="col" class="number">{escape(COLUMNS[metric])}</th>' for metric in HEADLINE)
    return (
        f'<p class="caption">Under {escape(titles)}, by radius, in percent{note}</p>'
        '<div class="scroll"><table class="headline"><thead>'
        f'<tr><th scope="col">radius</th>{head}</tr></thead><tbody>{"".join(body)}</tbody>'
        '</table></div>'
    )


def _with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    if interval is None:
        return percent(value)
    return f'{percent(value)} <span class="interval">{percent(interval[0])} to {percent(interval[1])}</span>'


def differences(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a note on settings that differ between the runs, since such numbers do not compare."""
    notes = []
    for setting, read in SETTINGS.items():
        values = {name: read(results) for name, results in runs.items()}
        if len(set(map(str, values.values()))) > 1:
            detail = '' if setting == 'attack parameters' else ': ' + '; '.join(f'{n}: {v}' for n, v in values.items())
            notes.append(f'<li>{escape(setting + detail)}</li>')
    if not notes:
        return ''
    listed = ''.join(notes)
    return f'<div class="note">The runs differ in<ul>{listed}</ul>so their numbers do not compare directly.</div>'


def warnings(name: str, results: Mapping[str, Any]) -> str:
    """Returns notes on what makes the numbers of a run doubtful: images that failed, caveats, a failed trust check."""
    evaluation = results['evaluation']
    notes = [f'{image["image"]} is in no number: {image["reason"]}' for image in evaluation.get('failed') or ()]
    notes += results.get('caveats') or ()
    for finding in (results.get('trust') or {}).get('findings', ()):
        if not finding['passed']:
            notes.append(f'trust check: not so: {finding["name"]} ({finding["evidence"]}); {finding["advice"]}')
    listed = ''.join(f'<li>{escape(note)}</li>' for note in notes)
    return f'<div class="note">{_prefix(name)}Mind that<ul>{listed}</ul></div>' if notes else ''


def command(name: str, results: Mapping[str, Any]) -> str:
    """Returns the command that repeats a run."""
    return f'<p class="caption">{_prefix(name)}Reproduced by</p><pre>{escape(results["command"])}</pre>'


def wins_tables(name: str, evaluation: Mapping[str, Any]) -> str:
    """Returns on how many images each attack of an ensemble is the worst, by radius; nothing for single attacks."""
    found = {radius: attacked.get('wins') or {} for radius, attacked in evaluation['attacked'].items()}
    members = list(dict.fromkeys(member for wins in found.values() for member in wins))
    if not members:
        return ''
    radii = [radius for radius, wins in found.items() if wins]
    lines = [
        [member, *(f'{found[radius][member]["worst"]} ({found[radius][member]["alone"]})' for radius in radii)]
        for member in members
    ]
    title = f'On how many of {evaluation["images"]} images an attack is the worst (in brackets: it alone)'
    return table(_prefix(name) + title, ['attack', *radii], lines, text_columns=1)


def class_bars(name: str, evaluation: Mapping[str, Any]) -> str:
    """Returns bars of the IoU of every class, clean and worst case at every radius."""
    columns = _columns(evaluation)
    blocks = []
    for k, label in enumerate(evaluation['classes']):
        lines = []
        for column, values in columns.items():
            iou = values['IoU'][k]
            fill = 'fill' if column != 'clean' else 'fill clean'
            lines.append(
                f'<div class="bar"><span>{escape(column)}</span><span class="track"><span class="{fill}" '
                f'style="width:{100 * (iou or 0):.2f}%"></span></span><span class="number">{percent(iou)}</span></div>'
            )
        blocks.append(f'<div class="class"><h4>{escape(label)}</h4>{"".join(lines)}</div>')
    state = ' open' if len(blocks) <= OPEN_CLASSES else ''
    return (
        f'<details{state}><summary>{_prefix(name)}IoU of {len(blocks)} classes, %</summary>'
        f'<div class="bars">{"".join(blocks)}</div></details>'
    )


def pictures(name: str, results: Mapping[str, Any], folder: Path) -> str:
    """Returns the pictures of a run, inlined, by why they were drawn.

    Raises:
        UserError: a picture cannot be read.
    """
    parts = [_heading(name)]
    for kind, title in KINDS.items():
        mine = [picture for picture in results['pictures'] if picture.get('kind', 'sample') == kind]
        if mine:
            text = '{}: image, label, predictions, adversarial images and perturbations'
            figures = ''.join(_figure(folder / one['file'], text.format(one['image'])) for one in mine)
            parts.append(f'<h4>{title}</h4><div class="pictures">{figures}</div>')
    if not results['pictures']:
        parts.append('<p>None were kept.</p>')
    return '\n'.join(parts)


def gradients(runs: Mapping[str, Mapping[str, Any]], folders: Mapping[str, str | Path]) -> list[str]:
    """Returns the section on input gradients, empty where no run measured them.

    Args:
        runs: name -> content of results.json.
        folders: of the runs, in the same order.

    Raises:
        UserError: a picture cannot be read.
    """
    body = gradients_rows(runs)
    if not body:
        return []
    header = ['run', 'targets g', *GRADIENT_COLUMNS.values()]
    parts = ['<h2>Input gradients</h2>', table('Mean over images and classes', header, body, text_columns=2)]
    for (name, results), folder in zip(runs.items(), folders.values(), strict=True):
        sheet = (results.get('gradients') or {}).get('sheet')
        if sheet:
            text = f'{_prefix(name)}gradients of some class scores, and images moved towards the classes'
            parts += [_heading(name), _figure(Path(folder) / sheet['file'], text)]
    return parts


def _figure(path: Path, text: str) -> str:
    """Returns a picture, inlined; ``text`` says what it shows."""
    try:
        data = base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise UserError(f'picture {path} cannot be read: {error.strerror}; run mmadv test again') from None
    return f'<figure><img alt="{escape(text)}" src="data:image/png;base64,{data}"></figure>'


def numbers(name: str, evaluation: Mapping[str, Any]) -> str:
    """Returns the tables of all metrics of a run, by attack, class and object size."""
    lines = list(rows(evaluation))
    shown = [key for key in COLUMNS if any(key in values for _, _, values in lines)]
    body = [
        [radius, attack, *(percent(values[key]) if key in values else '' for key in shown)]
        for radius, attack, values in lines
    ]
    text = table(
        f'{_prefix(name)}In percent', ['radius', 'attack', *(COLUMNS[key] for key in shown)], body, text_columns=2
    )
    columns = _columns(evaluation)
    classes = [
        [label, *(percent(values[metric][k]) for values in columns.values() for metric in ('IoU', 'Acc'))]
        for k, label in enumerate(evaluation['classes'])
    ]
    header = ['class', *(f'{metric} {column}' for column in columns for metric in ('IoU', 'Acc'))]
    text += table(f'{_prefix(name)}IoU and accuracy of each class, %', header, classes, text_columns=1)
    text += ''.join(f'<p>{escape(sentence)}</p>' for sentence in sentences(evaluation))
    sizes = object_size_rows(evaluation)
    if sizes:
        caption = f'{_prefix(name)}Accuracy by size of the labelled region (share of the image), %'
        text += table(caption, sizes[0], sizes[1:], text_columns=1)
    if evaluation['excluded']:
        text += f'<p>Without a labelled pixel, and in no number: {escape(", ".join(evaluation["excluded"]))}</p>'
    return text


def settings(name: str, results: Mapping[str, Any]) -> str:
    """Returns what a run was made with."""
    passes = {
        radius: f'{attacked["passes"]["forward"]["mean_per_image"]:.1f} forward, '
        f'{attacked["passes"]["backward"]["mean_per_image"]:.1f} backward'
        for radius, attacked in results['evaluation']['attacked'].items()
    }
    dataset = results['dataset']
    facts = {
        'date': results['created'],
        'config': results['config']['file'],
        'checkpoint': f'{results["checkpoint"]["file"]}, sha256 {results["checkpoint"]["sha256"]}',
        'dataset': f'{dataset["type"]}, {results["evaluation"]["images"]} of {dataset["size"]} images',
        'seed': results['seed'],
        'passes per image': '; '.join(f'{radius}: {text}' for radius, text in passes.items()) or 'none',
        'seconds': f'{results["seconds"]["total"]:.1f}',
        'hardware': ', '.join(f'{key}: {value}' for key, value in results['hardware'].items()),
        'versions': ', '.join(f'{key} {value}' for key, value in results['versions'].items()),
    }
    lines = ''.join(
        f'<tr><th scope="row">{escape(key)}</th><td>{escape(str(value))}</td></tr>' for key, value in facts.items()
    )
    attack = json.dumps((results['attack'] or {}).get('parameters'), indent=1)
    return (
        f'{_heading(name)}<table class="settings">{lines}</table>'
        f'<details><summary>Attack</summary><pre>{escape(attack)}</pre></details>'
        f'<details><summary>Config</summary><pre>{escape(results["config"]["text"])}</pre></details>'
    )


def table(caption: str, header: Sequence[str], body: Sequence[Sequence[str]], text_columns: int) -> str:
    """Returns a table, its caption HTML already, in a box that scrolls by itself where the page is narrower."""

    def kind(column: int) -> str:
        return '' if column < text_columns else ' class="number"'

    head = ''.join(f'<th scope="col"{kind(column)}>{escape(cell)}</th>' for column, cell in enumerate(header))
    lines = ''.join(
        '<tr>' + ''.join(f'<td{kind(column)}>{escape(cell)}</td>' for column, cell in enumerate(row)) + '</tr>'
        for row in body
    )
    return (
        f'<p class="caption">{caption}</p><div class="scroll"><table aria-label="{caption}">'
        f'<thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'
    )


def _columns(evaluation: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Returns the metrics of the clean images and of the worst case at every radius."""
    attacked = {radius: values['worst_case'] for radius, values in evaluation['attacked'].items()}
    return {'clean': evaluation['clean'], **attacked}


def _heading(name: str) -> str:
    return f'<h3>{escape(name)}</h3>' if name else ''


def _prefix(name: str) -> str:
    return f'{escape(name)}: ' if name else ''
