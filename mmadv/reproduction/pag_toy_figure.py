"""Figure 3 of the PAG paper: the decision boundaries of the toy experiment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

BACKGROUND = ListedColormap(['#c6dbef', '#fdd0a2'])
POINTS = ListedColormap(['#08519c', '#a63603'])


def draw_boundaries(
    networks: Mapping[str, Callable[[Tensor], Tensor]], points: Tensor, classes: Tensor, path: str | Path
) -> None:
    """Writes a panel per network: the predicted class in the background, the test points on top.

    Args:
        networks: title -> network of points (N, 2) to scores (N, 2).
        points: (N, 2) test points.
        classes: (N,) their classes.
        path: path of the picture.
    """
    figure = Figure(figsize=(6 * len(networks), 5.5), layout='constrained')
    FigureCanvasAgg(figure)
    x, y = torch.meshgrid(torch.linspace(-70, 70, 561), torch.linspace(-140, 140, 561), indexing='xy')
    panels = figure.subplots(1, len(networks), squeeze=False)[0]
    for axes, (title, network) in zip(panels, networks.items(), strict=True):
        with torch.no_grad():
            predicted = network(torch.stack([x.flatten(), y.flatten()], 1)).argmax(1).view_as(x)
        axes.pcolormesh(x.numpy(), y.numpy(), predicted.numpy(), cmap=BACKGROUND, vmin=0, vmax=1, rasterized=True)
        axes.scatter(points[:, 0], points[:, 1], c=classes, cmap=POINTS, s=6, linewidths=0)
        axes.set(title=title, xlabel='$x_1$', ylabel='$x_2$')
    figure.savefig(path, dpi=100)
