"""One self-contained page of a run, or of several side by side."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from html import escape
from pathlib import Path

from mmadv.errors import UserError
from mmadv.report import sections
from mmadv.report.curve import curve_svgs
from mmadv.report.minimal_radius import minimal_radius_svg
from mmadv.report.results import load_results

STYLE = """
body { font-family: system-ui, 'DejaVu Sans', sans-serif; max-width: 72rem; margin: 1.5rem auto; padding: 0 1rem;
  color: #1a1a1a; line-height: 1.45; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { margin-top: 2.2rem; border-bottom: 2px solid #1a1a1a; }
h4 { margin: .8rem 0 .2rem; }
table { border-collapse: collapse; margin: .3rem 0 1rem; }
caption, .caption { text-align: left; margin: 1rem 0 .2rem; padding: 0; font-weight: 600; }
th, td { border-bottom: 1px solid #ccc; padding: .3rem .7rem .3rem 0; text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid #767676; vertical-align: bottom; }
th[scope=rowgroup] { padding-top: .9rem; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
th, .scroll td { overflow-wrap: normal; }
.headline td { padding-left: 1.5rem; } .interval { display: block; white-space: nowrap; color: #555; font-size: .8em; }
pre { background: #f4f4f4; padding: .7rem; white-space: pre-wrap; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); gap: 1rem; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem; }
figure { margin: 0; } img { max-width: 100%; height: auto; } svg { width: 100%; height: auto; }
.bars { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 18rem), 1fr)); gap: .3rem 2rem; }
.bar { display: grid; grid-template-columns: 4.5rem 1fr 3.5rem; gap: .5rem; align-items: center; font-size: .85rem; }
.track { background: #eee; height: .8rem; } .fill { display: block; height: 100%; background: #0072B2; }
.fill.clean { background: #fff; box-shadow: inset 0 0 0 2px #0072B2; }
.note { border-left: .3rem solid #D55E00; padding: .3rem .8rem; margin: 1rem 0; background: #fdf3ee; }
.scroll { overflow-x: auto; }
summary { cursor: pointer; margin: .5rem 0; }
@media (max-width: 40rem) { .headline :is(th, td) { padding: .3rem .15rem; } .headline { width: 100%; }
  .interval { font-size: .68em; } }
@media print { .scroll { overflow: visible; } }
"""


def write_report(result_dirs: Mapping[str, str | Path], out: str | Path, title: str = 'Robustness report') -> Path:
    """Writes one HTML page of a run, or that compares several, with everything inlined, and returns its path.

    Args:
        result_dirs: name of the run -> folder that mmadv test wrote.
        out: path of the page.
        title: of the page.

    Raises:
        UserError: no run, or a folder without readable results.
    """
    if not result_dirs:
        raise UserError('a report needs at least one result folder')
    runs = {name: load_results(folder) for name, folder in result_dirs.items()}
    named = runs if len(runs) > 1 else {'': next(iter(runs.values()))}
    evaluations = {name: results['evaluation'] for name, results in named.items()}
    body = [f'<h1>{escape(title)}</h1>', sections.headline(runs), sections.differences(runs)]
    body += [sections.warnings(name, results) for name, results in named.items()]
    body += [sections.command(name, results) for name, results in named.items()]
    if any(results['radii'] for results in runs.values()):
        figures = ''.join(f'<figure>{svg}</figure>' for svg in (*curve_svgs(runs), minimal_radius_svg(runs)) if svg)
        body.append(f'<h2>Robustness curves</h2><div class="curves">{figures}</div>')
    wins = [sections.wins_tables(name, evaluation) for name, evaluation in evaluations.items()]
    body += ['<h2>Which attack won</h2>', *wins] if any(wins) else []
    body.append('<h2>Classes</h2>')
    body += [sections.class_bars(name, evaluation) for name, evaluation in evaluations.items()]
    body += sections.gradients(named, result_dirs)
    body.append('<h2>Images</h2>')
    folders = map(Path, result_dirs.values())
    body += [sections.pictures(*run, folder) for run, folder in zip(named.items(), folders, strict=True)]
    body.append('<h2>All numbers</h2>')
    body += [sections.numbers(name, evaluation) for name, evaluation in evaluations.items()]
    body.append('<h2>Settings</h2>')
    body += [sections.settings(name, results) for name, results in named.items()]
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><style>{STYLE}</style></head>\n'
        '<body>\n' + '\n'.join(filter(None, body)) + '\n</body></html>\n'
    )
    return _write_whole(Path(out), page)


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
