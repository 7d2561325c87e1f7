"""Clusters of the examples of a class, by k-means."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from mmadv.attacks.checks import finite
from mmadv.fields import Positive, Seed, checked
from mmadv.shapes import ANY_FLOATS, Shaped

# K-means ends when no example changes its cluster, or after so many rounds.
ROUNDS = 100


@checked
def cluster_means(
    examples: Annotated[Tensor, Shaped('M D *S', ANY_FLOATS, finite)], clusters: Positive, seed: Seed = 0
) -> Tensor:
    """Returns the means of the clusters of some examples, (k, D, *S): k-means in L2 from a k-means++ start.

    There are at most ``clusters`` means, and no more than different examples.

    Args:
        examples: (M, D, *S).
        clusters: the number of clusters.
        seed: seed of the start.
    """
    points = examples.flatten(1).double()
    centres = _first_centres(points, clusters, seed)
    assignment = torch.full((len(points),), -1, device=points.device)
    for _ in range(ROUNDS):
        nearest = torch.cdist(points, centres, compute_mode='donot_use_mm_for_euclid_dist').argmin(1)
        if torch.equal(nearest, assignment):
            break
        assignment = nearest
        # A cluster that loses all of its examples keeps its centre.
        for k in assignment.unique().tolist():
            centres[k] = points[assignment == k].mean(0)
    return centres.to(examples.dtype).unflatten(1, examples.shape[1:])


def _first_centres(points: Tensor, clusters: int, seed: int) -> Tensor:
    """Returns the start of k-means++: each next centre is drawn in proportion to its squared distance to the others."""
    generator = torch.Generator().manual_seed(seed)
    chosen = [int(torch.randint(len(points), (), generator=generator))]
    while len(chosen) < clusters:
        distance = torch.cdist(points, points[chosen], compute_mode='donot_use_mm_for_euclid_dist').amin(1)
        if not bool(distance.any()):
            break
        chosen.append(int(torch.multinomial(distance.square().cpu(), 1, generator=generator)))
    return points[chosen]
