"""Converts a public backbone checkpoint: python tools/convert_checkpoint.py IN OUT --source revisiting-at."""

import sys
from collections.abc import Sequence

from mmadv.checkpoints.conventions import CONVENTIONS
from mmadv.checkpoints.families import SOURCES
from mmadv.commands.command_line import Parser, guarded
from mmadv.models.backbones.architectures import ARCHITECTURES
from mmadv.models.backbones.conversion import convert_file


def convert(argv: Sequence[str]) -> None:
    """Converts as the arguments say, and prints what became of every key.

    Raises:
        UserError: a mistake in the arguments or the file.
    """
    parser = Parser(
        prog='convert_checkpoint.py', description='Renames the weights of a public checkpoint to those of a backbone.'
    )
    parser.add_argument('input', metavar='IN', help='the published file')
    parser.add_argument('output', metavar='OUT', help='the file to write')
    parser.add_argument('--source', required=True, help=f'the family of the file: {", ".join(SOURCES)}')
    parser.add_argument('--architecture', help=f'instead of the one that fits: {", ".join(ARCHITECTURES)}')
    parser.add_argument(
        '--image-size', nargs=2, type=int, metavar=('H', 'W'), help="resize a ViT's position embedding for this input"
    )
    parser.add_argument('--input-convention', help=f'overrule the mean and std on record: {", ".join(CONVENTIONS)}')
    parser.add_argument(
        '--trust',
        action='store_true',
        help='run code that the file holds, in a process of its own: only if you trust it',
    )
    arguments = parser.parse_args(argv)
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


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 after a mistake in what was given."""
    return guarded(convert, argv)


if __name__ == '__main__':
    sys.exit(main())
