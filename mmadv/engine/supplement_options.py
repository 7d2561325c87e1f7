"""The options of ``tools/test.py`` that measure more than the attack at its radii."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from mmadv.engine.attack_test_loop import AttackTestLoop
from mmadv.engine.command_line import Parser
from mmadv.engine.eight_bit import SavedImages
from mmadv.engine.going_on import UNFINISHED
from mmadv.engine.supplements import Supplement
from mmadv.errors import UserError


def add_supplement_arguments(parser: Parser) -> None:
    """Adds the options."""
    parser.add_argument(
        '--save-images',
        action='store_true',
        help='write the adversarial images as 8-bit PNG files, and measure what the rounding costs the attack',
    )


def check_supplements(arguments: Namespace) -> None:
    """Raises UserError for options that do not go together."""
    if arguments.save_images and arguments.attack == 'none':
        raise UserError('--attack none has no adversarial images for --save-images; name an attack')


def chosen_supplements(arguments: Namespace, loop: AttackTestLoop, out: Path) -> list[Supplement]:
    """Returns the supplements that the options ask for.

    Args:
        arguments: of the command line.
        loop: of the run.
        out: output folder.
    """
    chosen: list[Supplement] = []
    if arguments.save_images:
        chosen.append(SavedImages(out, out / UNFINISHED, rgb=loop.drawn.rgb))
    return chosen
