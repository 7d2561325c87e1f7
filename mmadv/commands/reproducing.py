"""``mmadv reproduce``: repeat an experiment of a paper."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from mmadv.commands.argument_types import number, positive
from mmadv.commands.command_line import Parser
from mmadv.errors import UserError
from mmadv.fields import PositiveNumber
from mmadv.report.drawing import draw_file
from mmadv.report.output_folder import check_writable, locked, staged
from mmadv.reproduction import pag_toy
from mmadv.reproduction.pag_toy_figure import draw_boundaries

FILE = 'pag_toy.json'


def parser() -> Parser:
    """Returns the parser of ``mmadv reproduce``."""
    result = Parser(
        prog='mmadv reproduce',
        description='Repeat an experiment of a paper.',
        example='mmadv reproduce pag-toy --seeds 3',
    )
    experiments = result.add_subparsers(dest='experiment', required=True)
    toy = experiments.add_parser('pag-toy', help='two classes on a line, trained with and without aligned gradients')
    toy.add_argument('--seeds', type=positive, default=10, help='number of seeds, from 0 (default: 10)')
    toy.add_argument(
        '--weight',
        type=number(PositiveNumber),
        default=pag_toy.Setting.weight,
        help='weight λ of the loss, which the paper does not name',
    )
    toy.add_argument(
        '--per-class',
        type=positive,
        default=pag_toy.Setting.per_class,
        help='size of the bank of each class, which the paper does not name',
    )
    toy.add_argument(
        '--epochs', type=positive, default=pag_toy.Setting.epochs, help='epochs of both trainings (default: 100)'
    )
    toy.add_argument('--out', default='work_dirs/pag_toy', help='folder of the results (default: work_dirs/pag_toy)')
    return result


def run_reproduce(argv: Sequence[str]) -> None:
    """Runs the experiment that the arguments name.

    Raises:
        UserError: there is a mistake in the arguments, or the folder cannot be written.
    """
    reproduce_toy(parser().parse_args(argv))


def reproduce_toy(arguments: argparse.Namespace) -> None:
    """Runs the toy experiment, prints its table, and writes the numbers and the decision boundaries of seed 0.

    Raises:
        UserError: the bank is larger than a class, or the folder cannot be written.
    """
    largest = 3 * pag_toy.TRAIN_PER_MODE
    if arguments.per_class > largest:
        raise UserError(f'--per-class {arguments.per_class} is more than the {largest} points of a class')
    check_writable(arguments.out)
    with locked(arguments.out):
        setting = pag_toy.Setting(weight=arguments.weight, per_class=arguments.per_class, epochs=arguments.epochs)
        results, trained = pag_toy.run(range(arguments.seeds), setting)
        print(pag_toy.table(results))
        seconds = sum(model['seconds'] for model in results['models'].values())
        print(f'both trainings of {arguments.seeds} seeds took {seconds:.0f} s')
        with staged(arguments.out, last=FILE) as stage:
            titles = {
                f'{name}: {results["models"][name]["attacked"][0]:.1f} % under attack': networks.of_seed(0)
                for name, networks in trained.items()
            }
            picture, points = stage / 'pag_toy.png', pag_toy.draw_points(0, 'test')
            draw_file(picture, lambda: draw_boundaries(titles, *points, picture))
            (stage / FILE).write_text(json.dumps(results, indent=1) + '\n', encoding='utf-8')
    print(f'results: {Path(arguments.out)}')
