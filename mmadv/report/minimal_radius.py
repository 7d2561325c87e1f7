"""The share of images that no perturbation of a size was found to break: a sentence, and curves over the radius."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmadv.report.curve import STYLES, svg_text
from mmadv.report.drawing import plain_text
from mmadv.report.evaluation import MinimalRadii
from mmadv.report.run import RunResults
from mmadv.report.table import percent


def minimal_radius_text(result: MinimalRadii) -> str:
    """Returns the sentence on the minimal radii of a run."""
    shares = {**result.not_broken, result.upper.text: result.not_broken_at_upper}
    parts = ', '.join(f'{percent(share)} % within {radius}' for radius, share in shares.items())
    if result.median is None:
        middle = f'half of them or more are not broken within {result.upper.text}'
    else:
        middle = f'the median minimal radius is {255 * result.median:.3g}/255'
    return (
        f'images of which {100 * result.share:g} % of the pixels are not made wrong: {parts}; {middle} '
        f'({result.images} images, bisected to {result.tolerance.text})'
    )


def minimal_radius_points(radii: Sequence[float], images: int) -> tuple[list[float], list[float]]:
    """Returns radii and the percentage of images that are not broken from there on, a step at each.

    >>> minimal_radius_points([0.0, 0.5], images=4)
    ([0.0, 0.0, 0.5], [100.0, 75.0, 50.0])
    """
    points = [(0.0, 100.0), *((radius, 100 * (1 - n / images)) for n, radius in enumerate(radii, start=1))]
    return [radius for radius, _ in points], [share for _, share in points]


@plain_text
def minimal_radius_svg(runs: Mapping[str, RunResults]) -> str:
    """Returns the plot as an svg element, empty where no run has minimal radii.

    Args:
        runs: name -> results.
    """
    measured = {name: run.evaluation.minimal_radius for name, run in runs.items()}
    known = {name: result for name, result in measured.items() if result is not None and result.images}
    if not known:
        return ''
    figure = Figure(figsize=(5, 4), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for number, (name, result) in enumerate(known.items()):
        radii, shares = minimal_radius_points(result.radii, result.images)
        colour, _, dash = STYLES[number % len(STYLES)]
        end = max([result.upper.value, *radii])
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
