"""The published weights (github.com/sacmehta/ESPNet, MIT licence) under the names of this package."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from mmadv.errors import UserError

# The first pattern that matches a key renames it. In blocks, the BLOCKS patterns then rename the rest of the key.
MODULES = (
    (r'encoder\.level1\.conv\.', 'backbone.stem.conv.'),
    (r'encoder\.level1\.bn\.', 'backbone.stem.norm.'),
    (r'encoder\.level1\.act\.', 'backbone.stem.act.'),
    (r'encoder\.level(\d)_0\.', r'backbone.down\1.'),
    (r'encoder\.level(\d)\.', r'backbone.stage\1.'),
    (r'encoder\.b(\d)\.bn\.', r'backbone.norm\1.norm.'),
    (r'encoder\.b(\d)\.act\.', r'backbone.norm\1.act.'),
    (r'encoder\.classifier\.conv\.', 'decode_head.classifier3.'),
    (r'br\.', 'decode_head.norm3.'),
    (r'up_l3\.0\.', 'decode_head.up3.'),
    (r'level3_C\.conv\.', 'decode_head.classifier2.'),
    (r'combine_l2_l3\.0\.bn\.', 'decode_head.norm2.norm.'),
    (r'combine_l2_l3\.0\.act\.', 'decode_head.norm2.act.'),
    (r'combine_l2_l3\.1\.', 'decode_head.mix2.'),
    (r'up_l2\.0\.', 'decode_head.up2.'),
    (r'up_l2\.1\.bn\.', 'decode_head.up_norm2.norm.'),
    (r'up_l2\.1\.act\.', 'decode_head.up_norm2.act.'),
    (r'conv\.conv\.', 'decode_head.mix1.'),
    (r'conv\.bn\.', 'decode_head.norm1.norm.'),
    (r'conv\.act\.', 'decode_head.norm1.act.'),
    (r'classifier\.', 'decode_head.up1.'),
)
BLOCKS = (
    (r'c1\.conv\.', 'reduce.'),
    *((rf'd{2**i}\.conv\.', f'branches.{i}.') for i in range(5)),
    (r'(bn\.)?act\.', 'norm_act.act.'),
    (r'(bn\.)?bn\.', 'norm_act.norm.'),
)
BLOCK = re.compile(r'((?:backbone\.down\d|backbone\.stage\d\.\d+|decode_head\.mix2)\.)(.*)')


def renamed(key: str) -> str:
    """Returns the key of this package for a published one.

    >>> renamed('encoder.level3.0.d16.conv.weight')
    'backbone.stage3.0.branches.4.weight'

    Raises:
        UserError: the key is not one of ESPNet's.
    """
    name = _first_match(MODULES, key.removeprefix('module.'))
    block = BLOCK.fullmatch(name or '')
    if block is not None:
        inner = _first_match(BLOCKS, block[2])
        name = inner and block[1] + inner
    if not name:
        raise UserError(
            f"'{key}' is not a key of the published ESPNet; convert its decoder's weights, espnet_p_2_q_8.pth"
        )
    return name


def _first_match(rules: tuple[tuple[str, str], ...], key: str) -> str | None:
    for pattern, replacement in rules:
        name, matches = re.subn(f'^{pattern}', replacement, key)
        if matches:
            return name
    return None


def from_published(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns published weights under the names of this package; every key has one.

    Raises:
        UserError: a key is not one of ESPNet's, or two keys get the same name.
    """
    names = {key: renamed(key) for key in weights}
    if len(set(names.values())) != len(names):
        raise UserError('two published keys stand for one weight; take the file as its authors wrote it')
    return {names[key]: value for key, value in weights.items()}
