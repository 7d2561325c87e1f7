"""The options of ``mmadv test`` that measure more than the attack at its radii."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from mmadv.commands.command_line import Parser
from mmadv.commands.going_on import UNFINISHED
from mmadv.engine.attack_test_loop import AttackTestLoop
from mmadv.engine.eight_bit import SavedImages
from mmadv.engine.minimal_radius import MinimalRadius
from mmadv.engine.supplements import Supplement
from mmadv.errors import UserError

SHARE = 0.99
TOLERANCE = '0.5/255'


def add_supplement_arguments(parser: Parser) -> None:
    """Adds the options."""
    parser.add_argument(
        '--save-images',
        action='store_true',
        help='write the adversarial images as 8-bit PNG files, and measure what the rounding costs the attack',
    )
    parser.add_argument(
        '--minimal-radius',
        metavar='UPPER',
        help="find each image's smallest radius at which the attack breaks it, by bisection up to this radius",
    )
    parser.add_argument(
        '--minimal-share',
        type=float,
        metavar='SHARE',
        help=f'of the valid pixels that are wrong in a broken image (default: {SHARE})',
    )
    parser.add_argument(
        '--minimal-tolerance', metavar='RADIUS', help=f'width at which the bisection stops (default: {TOLERANCE})'
    )


def check_supplements(arguments: Namespace) -> None:
    """Raises UserError for options that do not go together."""
    if arguments.save_images and arguments.attack == 'none':
        raise UserError('--attack none has no adversarial images for --save-images; name an attack')
    if arguments.minimal_radius is None:
        for option in ('share', 'tolerance'):
            if getattr(arguments, f'minimal_{option}') is not None:
                raise UserError(f'--minimal-{option} is for --minimal-radius UPPER; give that, or leave it out')
        return
    if arguments.attack == 'none':
        raise UserError('--attack none breaks no image at any --minimal-radius; name an attack')
    for option in ('target', 'source'):
        if getattr(arguments, option):
            raise UserError(
                f'--minimal-radius is for untargeted attacks on the model itself; leave out --{option} or it'
            )


def chosen_supplements(arguments: Namespace, loop: AttackTestLoop, out: Path) -> list[Supplement]:
    """Returns the supplements that the options ask for.

    Args:
        arguments: of the command line.
        loop: of the run.
        out: output folder.
    """
    chosen: list[Supplement] = []
    if arguments.save_images:
        chosen.append(SavedImages(out, out / UNFINISHED, loop.selection, rgb=loop.drawn.rgb))
    if arguments.minimal_radius is not None:
        attack = next(attack for attack in loop.attacks.values() if attack is not None)
        share = SHARE if arguments.minimal_share is None else arguments.minimal_share
        tolerance = arguments.minimal_tolerance or TOLERANCE
        chosen.append(MinimalRadius(attack, upper=arguments.minimal_radius, share=share, tolerance=tolerance))
    return chosen
