"""Errors name the options that the user gave, and config keys where the user gave none."""

from argparse import Namespace

import pytest

import mmadv  # noqa: F401  (registers the measurements)
from mmadv.commands.option_names import errors_name_options
from mmadv.errors import UserError

GIVEN = Namespace(target='class:a', space='input', minimal_radius='8/255', check=None, save_images=False)


@pytest.mark.parametrize(
    ('sentence', 'expected'),
    [
        (
            'MinimalRadius.tolerance 9 must be below MinimalRadius.upper 8',
            '--minimal-tolerance 9 must be below --minimal-radius 8',
        ),
        ('leave out test_cfg.target or MinimalRadius', 'leave out --target or --minimal-radius'),
        ('test_cfg.target: the folder x does not exist', '--target: the folder x does not exist'),
        ('test_cfg.space image needs bilinear resizing', '--space image needs bilinear resizing'),
        # Not set by an option: keys and classes of the config keep their names.
        ('SanityChecks and SavedImages', 'SanityChecks and SavedImages'),
        ('test_cfg.fp16 has no effect', 'test_cfg.fp16 has no effect'),
        ('my_test_cfg.target, test_cfg.target.x', 'my_test_cfg.target, test_cfg.target.x'),
    ],
)
def test_sentences(sentence, expected):
    with pytest.raises(UserError) as caught, errors_name_options(GIVEN):
        raise UserError(sentence)
    assert str(caught.value) == expected


def test_other_errors_pass():
    with pytest.raises(KeyError, match='MinimalRadius'), errors_name_options(GIVEN):
        raise KeyError('MinimalRadius')
