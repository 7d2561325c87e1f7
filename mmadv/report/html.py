"""One self-contained HTML page of one run, or of several runs side by side."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mmadv.errors import UserError
from mmadv.fields import checked_exactly
from mmadv.report import views
from mmadv.report.metrics import HEADLINE
from mmadv.report.run import RunResults
from mmadv.report.seeds import seeds_of
from mmadv.report.table import Table, percent


@checked_exactly
def write_report(result_dirs: Mapping[str, str | Path], out: str | Path, title: str = 'Robustness report') -> Path:
    """Writes one self-contained HTML page that shows one run or compares several runs; returns its path.

    Args:
        result_dirs: name of the run -> folder that mmadv test wrote.
        out: the path of the page.
        title: the title of the page.

    Raises:
        UserError: there is no run or no path, or a folder has no readable results.
    """
    if not result_dirs:
        raise UserError('result_dirs is empty; a report needs at least one result folder')
    if not Path(out).name:
        raise UserError(f"out must be the path of a file; found '{out}'")
    runs = {name: RunResults.load(folder) for name, folder in result_dirs.items()}
    return write_whole(Path(out), _page(runs, dict(zip(runs, map(Path, result_dirs.values()), strict=True)), title))


def _page(runs: Mapping[str, RunResults], folders: Mapping[str, Path], title: str) -> str:
    """Returns the page; the page does not show the name of a single run."""
    shown = {name if len(runs) > 1 else '': run for name, run in runs.items()}
    places = dict(zip(shown, folders.values(), strict=True))
    wins = [views.wins_table(name, run.evaluation) for name, run in shown.items()]
    evaluations = [run.evaluation for run in runs.values()]
    return (
        environment()
        .get_template('report.html')
        .render(
            title=title,
            runs=shown,
            attacks=' / '.join(sorted({evaluation.title for evaluation in evaluations if evaluation.attacked})),
            headline=HEADLINE,
            intervals=any(one.has_interval(HEADLINE) for one in evaluations),
            seeds=seeds_of(runs),
            differences=views.differences(runs),
            figures=[Markup(svg) for svg in views.curves(runs)],  # matplotlib escapes the texts in it
            wins=[table for table in wins if table],
            sections=views.sections(shown, places),
            pictures={name: views.pictures(run, places[name]) for name, run in shown.items()},
            views=views,
        )
    )


def table_page(table: Table) -> str:
    """Returns a page of its own with one table."""
    return environment().get_template('table.html').render(content=table)


@cache
def environment() -> Environment:
    """Returns the environment of the templates, which escapes texts."""
    result = Environment(
        loader=FileSystemLoader(Path(__file__).parent / 'templates'),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    result.filters['percent'] = percent
    return result


def write_whole(path: Path, text: str) -> Path:
    """Writes a file under a temporary name first, so that the file is complete or does not exist."""
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
