"""Hierarchies of classes: groups that a certificate falls back to, from fine to coarse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmadv.errors import UserError, nearest
from mmadv.fields import checked_exactly


@checked_exactly
@dataclass(frozen=True)
class Hierarchy:
    """Groups of classes at several levels. Level 0 is the classes themselves; each further level joins whole groups.

    Attributes:
        classes: names of the classes.
        levels: groups of level 1, 2, and so on: name of a group -> its classes. A class that a level does not name is a
            group by itself.

    Raises:
        UserError: a class is unknown, missing or in two groups, or a level does not join groups of the level before.
    """

    classes: Sequence[str]
    levels: Sequence[Mapping[str, Sequence[str]]]

    def __post_init__(self) -> None:
        if not self.levels:
            raise UserError('the hierarchy has no level; give a list of levels, each a dict of group -> classes')
        before = np.arange(len(self.classes))
        for number, level in enumerate(self.levels, start=1):
            where = f'level {number} of the hierarchy'
            self._check_members(level, where)
            now = self._groups(level)
            self._check_nested(before, now, where)
            before = now

    @property
    def groups(self) -> np.ndarray:
        """Returns the group of each class at each level, level 0 first, (L + 1, K) int64."""
        return np.stack([np.arange(len(self.classes)), *map(self._groups, self.levels)])

    @property
    def gains(self) -> np.ndarray:
        """Returns log(K / size of the class' group) / log K at each level, (L + 1, K): 1 for a class by itself."""
        sizes = np.stack([np.bincount(level)[level] for level in self.groups])
        return 1 - np.log(sizes) / np.log(len(self.classes))

    def _check_members(self, level: Mapping[str, Sequence[str]], where: str) -> None:
        seen: dict[str, str] = {}
        for group, members in level.items():
            if not members:
                raise UserError(f"{where}: the group '{group}' has no class; name its classes, or leave it out")
            for name in members:
                if name not in self.classes:
                    hint = nearest(name, self.classes)
                    raise UserError(f"{where}: the dataset has no class '{name}' of the group '{group}'{hint}")
                if name in seen:
                    raise UserError(f"{where}: the class '{name}' is in the groups '{seen[name]}' and '{group}'")
                seen[name] = group

    def _groups(self, level: Mapping[str, Sequence[str]]) -> np.ndarray:
        """Returns the group of each class, (K,); a group has the number of its first class."""
        groups = np.arange(len(self.classes))
        for members in level.values():
            places = [list(self.classes).index(name) for name in members]
            groups[places] = min(places)
        return groups

    def _check_nested(self, before: np.ndarray, now: np.ndarray, where: str) -> None:
        for group in np.unique(before):
            members = np.flatnonzero(before == group)
            if len(np.unique(now[members])) > 1:
                names = ', '.join(self.classes[member] for member in members.tolist())
                raise UserError(f'{where} splits {names}, which the level before joins; a coarser level joins groups')
        if len(np.unique(now)) == len(np.unique(before)):
            raise UserError(f'{where} joins no groups of the level before; leave it out')
        if len(np.unique(now)) == 1:
            raise UserError(f'{where} has all classes in one group, which says nothing; leave it out')
