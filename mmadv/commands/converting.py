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

# Of an image in pixels; the patches of a ViT are of 16 or more.
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
    result.add_argument('--source', required=True, help=f'the family of the file: {", ".join(SOURCES)}')
    result.add_argument('--architecture', help=f'instead of the one that fits: {", ".join(ARCHITECTURES)}')
    result.add_argument(
        '--image-size',
        nargs=2,
        type=number(Side),
        metavar=('H', 'W'),
        help="resize a ViT's position embedding for this input",
    )
    result.add_argument('--input-convention', help=f'overrule the mean and std on record: {", ".join(CONVENTIONS)}')
    result.add_argument(
        '--trust',
        action='store_true',
        help='run code that the file holds, in a process of its own: only if you trust it',
    )
    return result


def run_convert(argv: Sequence[str]) -> None:
    """Converts as the arguments say, and prints what became of every key.

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
