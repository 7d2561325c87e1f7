"""Certified accuracy beside accuracy under attack, in L2: one table and one plot of any runs that have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmadv.report.certificates import CertificatesSummary, CertifiedRadius
from mmadv.report.curve import STYLES, svg_text
from mmadv.report.drawing import plain_text
from mmadv.report.evaluation import MetricValues
from mmadv.report.run import RunResults
from mmadv.report.table import Table, percent

NAME = 'bounds'
TITLE = 'Certified accuracy and accuracy under attack'
# Field of ``Bounds``, its title in tables, and the key of its column in files.
COLUMNS = (
    ('certified', 'certified accuracy', 'certified_accuracy'),
    ('attacked', 'accuracy under attack', 'aAcc'),
    ('certified_miou', 'guaranteed mIoU', 'guaranteed_mIoU'),
    ('attacked_miou', 'mIoU under attack', 'mIoU'),
    ('abstained', 'abstained', 'abstained'),
)
MODELS = (
    'A certificate is a lower bound for the smoothed model. An attack is an upper bound for the attacked model, which '
    'has no noise.'
)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What two runs say about one L2 radius, as fractions; None if a run says nothing.

    Attributes:
        certificates: the name of the run that has the certificates.
        attack: the name of the run that has the attack.
        radius: the L2 radius, in units of images in [0, 1].
        certified: the certified accuracy at the smallest certified radius that is not below ``radius``.
        certified_miou: the guaranteed mIoU there.
        abstained: the share of abstained pixels there.
        attacked: the accuracy under the attack at its largest radius that is not above ``radius``; radius 0 is clean.
        attacked_miou: the mIoU there.
    """

    certificates: str
    attack: str
    radius: float
    certified: float | None
    certified_miou: float | None
    abstained: float | None
    attacked: float | None
    attacked_miou: float | None


def bounds(runs: Mapping[str, RunResults]) -> list[Bounds]:
    """Returns the bounds at every radius of each pair of a run with certificates and a run with an attack in L2.

    A certificate holds at every smaller radius. The images of an attack are also allowed at every larger radius. So
    runs with different radii have a row for each radius of either. If some attacks are on the certified checkpoint,
    the other attacks make no pair with its certificates.

    Args:
        runs: name -> results.
    """
    rows = []
    for certificates, attack in _pairs(runs):
        certified, attacked = _certified(runs[certificates]), _attacked(runs[attack])
        for radius in sorted({*certified, *attacked}):
            above = next((certified[one] for one in sorted(certified) if one >= radius), None)
            below = attacked[max(one for one in attacked if one <= radius)]
            rows.append(
                Bounds(
                    certificates=certificates,
                    attack=attack,
                    radius=radius,
                    certified=above.accuracy if above else None,
                    certified_miou=above.guaranteed_miou if above else None,
                    abstained=above.abstained if above else None,
                    attacked=below['aAcc'],
                    attacked_miou=below['mIoU'],
                )
            )
    return rows


def bounds_table(runs: Mapping[str, RunResults]) -> Table:
    """Returns one row for each pair of runs and radius, in percent; no row if no pair has certificates and an attack.

    Args:
        runs: name -> results.
    """
    rows = tuple(
        (row.certificates, row.attack, f'{row.radius:.4f}', *(percent(getattr(row, field)) for field, *_ in COLUMNS))
        for row in bounds(runs)
    )
    header = ('certificates', 'attack', 'L2 radius', *(f'{title}, %' for _, title, _ in COLUMNS))
    return Table(header, rows, text_columns=2, caption=f'{TITLE}. {MODELS}', grouped=True)


def bounds_data(runs: Mapping[str, RunResults]) -> Table:
    """Returns ``bounds_table`` as fractions in full precision."""
    rows = tuple(
        (row.certificates, row.attack, row.radius, *(getattr(row, field) for field, *_ in COLUMNS))
        for row in bounds(runs)
    )
    return Table(('certificates', 'attack', 'radius', *(key for *_, key in COLUMNS)), rows, text_columns=2)


def notes(runs: Mapping[str, RunResults]) -> list[str]:
    """Returns the reasons why runs with certificates and runs with attacks do not compare, as sentences."""
    certificates = [name for name, run in runs.items() if _certified(run)]
    if not certificates:
        return []
    sentences = [
        f'{name}: certificates are in L2, and this attack is in {" and ".join(sorted(others)) or "no norm"}; '
        f"attack with threat=dict(type='L2', radius=...) to compare"
        for name, run in runs.items()
        if run.attack and (others := _threats(run.attack.parameters)) != {'L2'}
    ]
    for first, second in _pairs(runs):
        one, other = runs[first], runs[second]
        for what, read in (
            ('checkpoint', lambda run: run.checkpoint.sha256),
            ('dataset', lambda run: run.dataset.type),
            ('number of images', lambda run: run.evaluation.images),
        ):
            if read(one) != read(other):
                sentences.append(f'{first} and {second} differ in the {what}, so their numbers do not compare')
    return sentences


@plain_text
def draw_bounds(runs: Mapping[str, RunResults], path: str | Path) -> None:
    """Writes the plot of accuracy and mIoU against the L2 radius; the suffix of ``path`` decides the format."""
    bounds_figure(bounds(runs)).savefig(path, dpi=150)


@plain_text
def bounds_svgs(runs: Mapping[str, RunResults]) -> list[str]:
    """Returns the plot as one svg element; an empty list if no pair has certificates and an attack."""
    rows = bounds(runs)
    return [svg_text(bounds_figure(rows), NAME)] if rows else []


def bounds_figure(rows: Sequence[Bounds]) -> Figure:
    """Returns the figure: certificates are dashed, attacks are solid, and each run has its own colour and marker."""
    figure = Figure(figsize=(10, 4), layout='constrained')
    FigureCanvasAgg(figure)
    names = list(dict.fromkeys([row.certificates for row in rows] + [row.attack for row in rows]))
    styles = {name: STYLES[n % len(STYLES)] for n, name in enumerate(names)}
    plots = (('accuracy', 'certified', 'attacked'), ('mIoU', 'certified_miou', 'attacked_miou'))
    for axes, (metric, certified, attacked) in zip(figure.subplots(1, 2), plots, strict=True):
        draw = partial(_draw_lines, axes, rows, styles)
        draw('certificates', certified, dash='--', text='{}: certified' if metric == 'accuracy' else '{}: guaranteed')
        draw('attack', attacked, dash='-', text='{}: under attack')
        axes.set(xlabel='L2 radius, images in [0, 1]', ylabel=f'{metric}, %', ylim=(-2, 102))
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def _draw_lines(
    axes: Any, rows: Sequence[Bounds], styles: Mapping[str, tuple[Any, ...]], run: str, value: str, **line: str
) -> None:
    """Draws one line for each run: ``run`` and ``value`` name the fields of its name and of its values."""
    for name in dict.fromkeys(getattr(row, run) for row in rows):
        points = {row.radius: getattr(row, value) for row in rows if getattr(row, run) == name}
        known = [(radius, 100 * share) for radius, share in sorted(points.items()) if share is not None]
        colour, marker, _ = styles[name]
        axes.plot(
            [radius for radius, _ in known],
            [share for _, share in known],
            color=colour,
            marker=marker,
            linestyle=line['dash'],
            label=line['text'].format(name),
        )


def _pairs(runs: Mapping[str, RunResults]) -> Iterator[tuple[str, str]]:
    """Yields the names of a run with certificates and a run with an attack in L2."""
    attacks = [name for name, run in runs.items() if run.attack and _threats(run.attack.parameters) == {'L2'}]
    for name, run in runs.items():
        if _certified(run):
            same = [attack for attack in attacks if runs[attack].checkpoint.sha256 == run.checkpoint.sha256]
            yield from ((name, attack) for attack in same or attacks)


def _certified(run: RunResults) -> dict[float, CertifiedRadius]:
    """Returns radius -> certificate; an empty dict if the run has none."""
    summaries = (summary for _, summary in run.summaries() if isinstance(summary, CertificatesSummary))
    return {one.radius: one for summary in summaries for one in summary.certified}


def _attacked(run: RunResults) -> dict[float, MetricValues]:
    """Returns radius -> metrics under attack; the clean metrics are at radius 0."""
    values = {radius.text: radius.value for radius in run.radii}
    return {
        0.0: run.evaluation.clean,
        **{values[text]: result.worst_case for text, result in run.evaluation.attacked.items()},
    }


def _threats(parameters: Any) -> set[str]:
    """Returns the types of the threat models inside the parameters of an attack.

    >>> sorted(_threats({'attacks': {'a': {'threat': {'type': 'L2'}}, 'b': {'threat': {'type': 'Linf'}}}}))
    ['L2', 'Linf']
    """
    if isinstance(parameters, Mapping):
        own = parameters.get('threat')
        found = {str(own['type'])} if isinstance(own, Mapping) and 'type' in own else set()
        return found.union(*map(_threats, parameters.values()))
    if isinstance(parameters, (list, tuple)):
        return set().union(*map(_threats, parameters))
    return set()
