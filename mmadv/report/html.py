"""One self-contained page that compares several runs."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from mmadv.errors import UserError
from mmadv.report.breakdown import object_size_rows
from mmadv.report.curve import curve_svg
from mmadv.report.gradients import COLUMNS as GRADIENT_COLUMNS
from mmadv.report.gradients import gradients_rows
from mmadv.report.results import load_results
from mmadv.report.table import COLUMNS, percent, rows

HEADLINE = ('aAcc_image_mean', 'mIoU')
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
STYLE = """
body { font-family: system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
table { border-collapse: collapse; margin: 1rem 0; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { border-bottom: 1px solid #ccc; padding: .3rem .7rem; text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { background: #f4f4f4; padding: .7rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
img, svg { max-width: 100%; height: auto; }
.note { border-left: .3rem solid #D55E00; padding: .3rem .8rem; background: #fdf3ee; }
.scroll { overflow-x: auto; }
"""


def write_report(result_dirs: Mapping[str, str | Path], out: str | Path, title: str = 'Robustness report') -> Path:
    """Writes one HTML page that compares runs, with everything inlined, and returns its path.

    Args:
        result_dirs: name of the run -> folder that tools/test.py wrote.
        out: path of the page.
        title: of the page.

    Raises:
        UserError: no run, or a folder without readable results.
    """
    if not result_dirs:
        raise UserError('a report needs at least one result folder')
    runs = {name: load_results(folder) for name, folder in result_dirs.items()}
    body = [f'<h1>{escape(title)}</h1>', _headline(runs), _differences(runs)]
    if any(results['radii'] for results in runs.values()):
        body.append(f'<h2>Robustness curve</h2><figure>{curve_svg(runs)}</figure>')
    body += _gradients(runs, result_dirs)
    body.append('<h2>Examples</h2>')
    body += [_pictures(name, results, Path(result_dirs[name])) for name, results in runs.items()]
    body.append('<h2>All numbers</h2>')
    body += [_numbers(name, results['evaluation']) for name, results in runs.items()]
    body.append('<h2>Settings</h2>')
    body += [_settings(name, results) for name, results in runs.items()]
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><style>{STYLE}</style></head>\n'
        '<body>\n' + '\n'.join(body) + '\n</body></html>\n'
    )
    return _write_whole(Path(out), page)


def _headline(runs: Mapping[str, Mapping[str, Any]]) -> str:
    radii = list(dict.fromkeys(radius for results in runs.values() for radius in results['evaluation']['attacked']))
    titles = ' / '.join(sorted({results['evaluation']['title'] for results in runs.values()}))
    header = ['run', 'metric, %', 'clean', *radii]
    table = []
    for name, results in runs.items():
        evaluation = results['evaluation']
        for metric in HEADLINE:
            cells = [percent(evaluation['clean'][metric])]
            for radius in radii:
                attacked = evaluation['attacked'].get(radius)
                cells.append(percent(attacked['worst_case'][metric]) if attacked else '')
            table.append([name, COLUMNS[metric], *cells])
    return _table(f'Attacked with {titles}, by radius', header, table, text_columns=2)


def _differences(runs: Mapping[str, Mapping[str, Any]]) -> str:
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


def _pictures(name: str, results: Mapping[str, Any], folder: Path) -> str:
    parts = [f'<h3>{escape(name)}</h3>']
    for picture in results['pictures']:
        text = f'{picture["image"]}: image, adversarial image, perturbation, label and predictions'
        parts.append(_figure(folder / picture['file'], text))
    if not results['pictures']:
        parts.append('<p>None were kept.</p>')
    return '\n'.join(parts)


def _gradients(runs: Mapping[str, Mapping[str, Any]], folders: Mapping[str, str | Path]) -> list[str]:
    """Returns the section on input gradients, empty where no run measured them."""
    table = gradients_rows(runs)
    if not table:
        return []
    header = ['run', 'targets g', *GRADIENT_COLUMNS.values()]
    parts = ['<h2>Input gradients</h2>', _table('Mean over images and classes', header, table, text_columns=2)]
    for name, results in runs.items():
        sheet = (results.get('gradients') or {}).get('sheet')
        if sheet:
            text = f'{name}: gradients of some class scores, and images moved towards the classes'
            parts += [f'<h3>{escape(name)}</h3>', _figure(Path(folders[name]) / sheet['file'], text)]
    return parts


def _figure(path: Path, text: str) -> str:
    """Returns a picture with everything inlined."""
    try:
        data = base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise UserError(f'picture {path} cannot be read: {error.strerror}; run tools/test.py again') from None
    return f'<figure><img alt="{escape(text)}" src="data:image/png;base64,{data}"></figure>'


def _numbers(name: str, evaluation: Mapping[str, Any]) -> str:
    lines = list(rows(evaluation))
    shown = [key for key in COLUMNS if any(key in values for _, _, values in lines)]
    table = [
        [radius, attack, *(percent(values[key]) if key in values else '' for key in shown)]
        for radius, attack, values in lines
    ]
    text = _table(f'{name}, %', ['radius', 'attack', *(COLUMNS[key] for key in shown)], table, text_columns=2)
    columns = {'clean': evaluation['clean']}
    columns.update({radius: attacked['worst_case'] for radius, attacked in evaluation['attacked'].items()})
    classes = [
        [label, *(percent(values[metric][k]) for values in columns.values() for metric in ('IoU', 'Acc'))]
        for k, label in enumerate(evaluation['classes'])
    ]
    text += _table(
        f'{name}, IoU and accuracy of each class, %',
        ['class', *(f'{metric} {column}' for column in columns for metric in ('IoU', 'Acc'))],
        classes,
        text_columns=1,
    )
    sizes = object_size_rows(evaluation)
    if sizes:
        caption = f'{name}, accuracy by size of the labelled region (share of the image), %'
        text += _table(caption, sizes[0], sizes[1:], text_columns=1)
    if evaluation['excluded']:
        text += f'<p>Without a labelled pixel, and in no number: {escape(", ".join(evaluation["excluded"]))}</p>'
    return text


def _settings(name: str, results: Mapping[str, Any]) -> str:
    passes = {
        radius: f'{attacked["passes"]["forward"]["mean_per_image"]:.1f} forward, '
        f'{attacked["passes"]["backward"]["mean_per_image"]:.1f} backward'
        for radius, attacked in results['evaluation']['attacked'].items()
    }
    dataset = results['dataset']
    table = {
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
        f'<tr><th scope="row">{escape(key)}</th><td>{escape(str(value))}</td></tr>' for key, value in table.items()
    )
    attack = json.dumps((results['attack'] or {}).get('parameters'), indent=1)
    return (
        f'<h3>{escape(name)}</h3><table>{lines}</table>'
        f'<p>To reproduce:</p><pre>{escape(results["command"])}</pre>'
        f'<details><summary>Attack</summary><pre>{escape(attack)}</pre></details>'
        f'<details><summary>Config</summary><pre>{escape(results["config"]["text"])}</pre></details>'
    )


def _table(caption: str, header: Sequence[str], table: Sequence[Sequence[str]], text_columns: int) -> str:
    def kind(column: int) -> str:
        return '' if column < text_columns else ' class="number"'

    head = ''.join(f'<th scope="col"{kind(column)}>{escape(cell)}</th>' for column, cell in enumerate(header))
    body = ''.join(
        '<tr>' + ''.join(f'<td{kind(column)}>{escape(cell)}</td>' for column, cell in enumerate(row)) + '</tr>'
        for row in table
    )
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption>'
        f'<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _write_whole(path: Path, text: str) -> Path:
    """Writes a file under a temporary name first, so that it is there whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f'.{path.name}-', dir=path.parent)
        try:
            with os.fdopen(descriptor, 'w', encoding='utf-8') as stream:
                stream.write(text)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise UserError(f'report {path} cannot be written: {error.strerror}') from None
    return path
