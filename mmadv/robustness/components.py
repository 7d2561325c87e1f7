"""The contribution of each attack of an ensemble: every subset's worst case, from stored counts (table 9 of SEA)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from mmadv.errors import UserError
from mmadv.fields import checked
from mmadv.robustness.counts import Counts, check_same_images, metrics, worst_case

SUBSET_LIMIT = 8


@checked
def every_subset(members: Mapping[str, Counts]) -> list[dict[str, Any]]:
    """Returns ``members`` and the metrics of the worst case over each subset, smallest first.

    Args:
        members: name -> counts of the same images, at most eight.

    Raises:
        UserError: there are no members, or more than eight.
    """
    check_same_images(members)
    if len(members) > SUBSET_LIMIT:
        raise UserError(f'the {len(members)} members have {2 ** len(members) - 1} subsets; give at most eight')
    rows = []
    for size in range(1, len(members) + 1):
        for names in combinations(members, size):
            counts, _ = worst_case({name: members[name] for name in names})
            rows.append({'members': list(names), **metrics(counts)})
    return rows


@checked
def wins(members: Mapping[str, Counts]) -> dict[str, dict[str, int]]:
    """Returns for each member on how many images it is the ``worst``, and on how many it is the worst ``alone``.

    The worst member of an image has the lowest accuracy. If several members are equally low, all of them are the worst
    and none is alone. Images without a valid pixel are left out.
    """
    check_same_images(members)
    correct = np.stack([counts.correct for counts in members.values()])
    valid = next(iter(members.values())).valid > 0
    lowest = (correct == correct.min(axis=0)) & valid
    alone = lowest & (lowest.sum(axis=0) == 1)
    return {name: {'worst': int(lowest[n].sum()), 'alone': int(alone[n].sum())} for n, name in enumerate(members)}
