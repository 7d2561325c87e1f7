"""What ``mmadv test --gradients`` measured, as text and table rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmadv.printing import printable

COLUMNS = {
    'cosine': 'cosine to g',
    'cosine_present': 'classes in the image',
    'cosine_absent': 'other classes',
    'high_frequency': 'high-frequency share',
    'image_high_frequency': 'of the images',
}


def number(value: float | None) -> str:
    """Returns a measure with three decimals, '-' where there is none."""
    return '-' if value is None else f'{value:.3f}'


def gradients_text(gradients: Mapping[str, Any]) -> str:
    """Returns the lines that are printed.

    Args:
        gradients: that of ``results.json``.
    """
    kind = gradients['target']
    values = {key: number(gradients[key]) for key in COLUMNS}
    lines = [
        f'input gradients of {len(gradients["per_image"])} images and {len(gradients["classes"])} class scores; '
        f'targets g: {kind["type"]}, {kind["of"]}',
        f'  cosine to g           {values["cosine"]}  ({values["cosine_present"]} for the classes in the image, '
        f'{values["cosine_absent"]} for the others)',
        f'  high-frequency share  {values["high_frequency"]}  ({values["image_high_frequency"]} of the images, '
        '0.804 of white noise)',
    ]
    if gradients['without_example']:
        lines.append(f'  left out, without an example: {", ".join(gradients["without_example"])}')
    return '\n'.join(map(printable, lines))


def gradients_rows(runs: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Returns one row for each run that measured its gradients: name, targets and measures.

    Args:
        runs: name -> content of results.json.
    """
    measured = {name: results['gradients'] for name, results in runs.items() if results.get('gradients')}
    return [
        [name, f'{found["target"]["type"]}, {found["target"]["of"]}', *(number(found[key]) for key in COLUMNS)]
        for name, found in measured.items()
    ]
