"""The share of images that no perturbation of a size was found to break: a sentence, and curves over the radius."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmadv.report.curve import STYLES, svg_text
from mmadv.report.table import percent


def minimal_radius_text(found: Mapping[str, Any]) -> str:
    """Returns the sentence on the minimal radii of a run.

    Args:
        found: ``minimal_radius`` of an evaluation, as docs/results.md describes it.
    """
    shares = {**found['not_broken'], found['upper']['text']: found['not_broken_at_upper']}
    parts = ', '.join(f'{percent(share)} % within {radius}' for radius, share in shares.items())
    if found['median'] is None:
        middle = f'half of them or more are not broken within {found["upper"]["text"]}'
    else:
        middle = f'the median minimal radius is {255 * found["median"]:.3g}/255'
    return (
        f'images of which {100 * found["share"]:g} % of the pixels are not made wrong: {parts}; {middle} '
        f'({found["images"]} images, bisected to {found["tolerance"]["text"]})'
    )


def minimal_radius_points(found: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Returns radii and the percentage of images that are not broken from there on, a step at each.

    >>> minimal_radius_points({'radii': [0.0, 0.5], 'images': 4})
    ([0.0, 0.0, 0.5], [100.0, 75.0, 50.0])
    """
    steps = enumerate(found['radii'], start=1)
    points = [(0.0, 100.0), *((radius, 100 * (1 - n / found['images'])) for n, radius in steps)]
    return [radius for radius, _ in points], [share for _, share in points]


def minimal_radius_svg(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the plot as an svg element, empty where no run has minimal radii.

    Args:
        runs: name -> content of results.json.
    """
    known = {name: results['evaluation'].get('minimal_radius') for name, results in runs.items()}
    known = {name: found for name, found in known.items() if found and found['images']}
    if not known:
        return ''
    figure = Figure(figsize=(5, 4), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for number, (name, found) in enumerate(known.items()):
        radii, shares = minimal_radius_points(found)
        colour, _, dash = STYLES[number % len(STYLES)]
        end = max([found['upper']['value'], *radii])
        axes.step(
            [255 * radius for radius in [*radii, end]],
            [*shares, shares[-1]],
            where='post',
            color=colour,
            linestyle=dash,
            label=name,
        )
    axes.set_title('Minimal radii')
    axes.set_xlabel('radius × 255')
    axes.set_ylabel('images not broken, %')
    axes.set_ylim(-2, 102)
    axes.grid(alpha=0.3)
    if len(known) > 1:
        axes.legend()
    return svg_text(figure, 'minimal radius')
