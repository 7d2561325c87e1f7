"""``mmadv convert``: rename the weights of a public checkpoint to those of a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from mmadv.checkpoints.conventions import CONVENTIONS
from mmadv.checkpoints.families import SOURCES
from mmadv.commands.argument_types import number
from mmadv.commands.command_line import Parser
from mmadv.fields import Range
from mmadv.models.backbones.architectures import ARCHITECTURES
from mmadv.models.backbones.conversion import convert_file

# Limits of an image side in pixels; the patches of a ViT have 16 pixels or more.
Side = Annotated[int, Range(16, 16384)]


def parser() -> Parser:
    """Returns the parser of ``mmadv convert``."""
    result = Parser(
        prog='mmadv convert',
        description='Rename the weights of a public checkpoint to those of a backbone.',
        example='mmadv convert convnext_tiny_published.pth convnext_tiny.pth --source revisiting-at',
    )
    result.add_argument('input', metavar='IN', help='the published file')
    result.add_argument('output', metavar='OUT', help='the file to write')
    result.add_argument('--source', required=True, help=f'family of the published file: {", ".join(SOURCES)}')
    result.add_argument(
        '--architecture', help=f'architecture, instead of the one that fits the weights: {", ".join(ARCHITECTURES)}'
    )
    result.add_argument(
        '--image-size',
        nargs=2,
        type=number(Side),
        metavar=('H', 'W'),
        help="resize a ViT's position embedding for inputs of this size",
    )
    result.add_argument(
        '--input-convention', help=f'mean and std, instead of those on record: {", ".join(CONVENTIONS)}'
    )
    result.add_argument(
        '--trust',
        action='store_true',
        help='run the code that the file holds, in a separate process; use it only if you trust the file',
    )
    return result


def run_convert(argv: Sequence[str]) -> None:
    """Converts a checkpoint as the arguments say, and prints what happened to every key.

    Raises:
        UserError: a mistake in the arguments or the file.
    """
    arguments = parser().parse_args(argv)
    conversion = convert_file(
        arguments.input,
        arguments.output,
        source_name=arguments.source,
        architecture=arguments.architecture,
        image_size=tuple(arguments.image_size) if arguments.image_size else None,
        input_convention=arguments.input_convention,
        trust=arguments.trust,
    )
    print(f'{conversion.summary()}\nwritten: {arguments.output}')
