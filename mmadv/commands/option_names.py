"""Makes errors of an evaluation name the command-line options instead of the config keys and arguments."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager

from mmadv.commands.command_line import user_sentence
from mmadv.errors import UserError
from mmadv.report.measurement import MEASUREMENTS

# Config keys of an evaluation; options of the same names set them.
KEYS = ('precision', 'region', 'score', 'seed', 'source', 'space', 'sweep', 'target')


def names_of_options(arguments: Namespace) -> dict[str, str]:
    """Returns the option behind each config key, measurement and argument of a measurement that the options set."""
    names = {f'test_cfg.{key}': f'--{key}' for key in KEYS if key in arguments}
    for kind in MEASUREMENTS.values():
        asked = kind.options and getattr(arguments, kind.options[0].attribute, None)
        if asked is None or asked is False or asked == ():
            continue
        names[kind.__name__] = kind.options[0].flag
        names |= {f'{kind.__name__}.{one.argument}': one.flag for one in kind.options if one.argument}
    return names


@contextmanager
def errors_name_options(arguments: Namespace) -> Iterator[None]:
    """Makes a UserError of the block name the option that the user gave, instead of the config key.

    Raises:
        UserError: the error of the block, with the names of the command line.
    """
    try:
        yield
    except UserError as error:
        names = names_of_options(arguments)
        sentence = user_sentence(error) or ''
        known = '|'.join(re.escape(name) for name in sorted(names, key=len, reverse=True))
        renamed = re.sub(rf'(?<![\w.])({known})(?![\w]|\.\w)', lambda match: names[match[1]], sentence)
        if renamed == sentence:
            raise
        raise UserError(renamed) from error
