"""``mmadv certify``: certify the smoothed predictions of a checkpoint and write the results."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from mmadv.commands.argument_types import not_negative, number, positive, sigma
from mmadv.commands.command_line import Parser, load_config, naming
from mmadv.commands.testing import run_evaluation
from mmadv.commands.testing_options import add_model, add_run
from mmadv.engine.measurements import Certificates
from mmadv.engine.spec import EvaluationSpec
from mmadv.errors import UserError
from mmadv.fields import Range
from mmadv.printing import shown
from mmadv.report.certificates import certificates_title
from mmadv.robustness.certification import BOUNDS, CORRECTIONS, SHARES, SIDES

Level = Annotated[float, Range(0, 1, open_low=True, open_high=True)]
Threshold = Annotated[float, Range(0.5, 1, open_high=True)]


def parser() -> Parser:
    """Returns the parser of ``mmadv certify``."""
    result = Parser(
        prog='mmadv certify',
        description='Certify a segmentor by randomized smoothing, in L2.',
        example='mmadv certify demo/pspnet_gaussian_digits.py work_dirs/gaussian/iter_200.pth --sigma 0.25',
    )
    add_model(result)
    result.add_argument(
        '--sigma', type=sigma, required=True, help='standard deviation of the noise, for images in [0, 1]'
    )
    result.add_argument(
        '--n0', type=positive, default=10, help='noise draws that select the class of each pixel (default: 10)'
    )
    result.add_argument(
        '--n', type=positive, default=100, help='noise draws that certify the selected classes (default: 100)'
    )
    result.add_argument(
        '--alpha', type=number(Level), default=0.001, help='error rate over all pixels of an image (default: 0.001)'
    )
    result.add_argument(
        '--tau',
        type=number(Threshold),
        nargs='+',
        default=[0.75],
        help='thresholds in [0.5, 1); each gives one certified radius (default: 0.75)',
    )
    result.add_argument('--kind', choices=sorted(SHARES), default='hard', help='kind of smoothing (default: hard)')
    result.add_argument(
        '--bound',
        choices=sorted(BOUNDS),
        help='confidence bound (default: clopper-pearson; hoeffding with --kind soft)',
    )
    result.add_argument(
        '--correction',
        choices=sorted(CORRECTIONS),
        help='multiple-testing correction over pixels (default: holm; bonferroni with --sides two)',
    )
    result.add_argument(
        '--sides',
        choices=list(SIDES),
        default='one',
        help="bound the selected class alone, or also each of its rivals, for the radius of Kaur et al.'s theorem 1 "
        '(default: one)',
    )
    _add_hierarchy(result)
    result.add_argument(
        '--batch-size',
        type=positive,
        default=16,
        dest='draws',
        help='noise draws per forward pass; results do not depend on it',
    )
    result.add_argument('--show', type=not_negative, default=4, help='number of images to draw (default: 4)')
    result.set_defaults(batch_size=1)  # images are certified one by one
    add_run(result, 'certify_DATE')
    return result


def _add_hierarchy(parser: Parser) -> None:
    parser.add_argument(
        '--hierarchy',
        metavar='FILE',
        help='groups of classes, from fine to coarse, that a pixel falls back to if its class is not certified: a .py '
        'or .json file with hierarchy = [{group: [classes]}, ...], such as _base_/hierarchies/camvid.py',
    )


def run_certify(argv: Sequence[str]) -> int:
    """Certifies a checkpoint as the arguments say, prints the table and writes the results; returns the exit status.

    The run, its errors and its result files have the same form as those of ``mmadv test``.
    """
    arguments = parser().parse_args(argv)
    return run_evaluation('certify', arguments, argv, spec_of_arguments(arguments))


def levels_of_file(path: str) -> list[dict[str, list[str]]]:
    """Returns the levels of a hierarchy from a file.

    Raises:
        UserError: there is no such file, or it has no such list.
    """
    with naming('--hierarchy'):
        levels = load_config(path, what='hierarchy').get('hierarchy')
    plain = [dict(level) for level in levels] if _is_hierarchy(levels) else None
    if plain is None:
        raise UserError(
            f'--hierarchy {path} must define hierarchy as a list of levels, each a dict of group -> list of classes; '
            f'found {shown(levels)}'
        )
    return [{str(group): list(members) for group, members in level.items()} for level in plain]


def _is_hierarchy(levels: Any) -> bool:
    members = [one for level in levels for one in level.values()] if _all_are(levels, Mapping) else None
    return members is not None and all(_all_are(one, str) for one in members)


def _all_are(values: Any, kind: type) -> bool:
    return isinstance(values, list | tuple) and all(isinstance(one, kind) for one in values)


def spec_of_arguments(arguments: Namespace) -> EvaluationSpec:
    """Returns the evaluation that the options describe: it has certificates and no attack."""
    certificates = Certificates(
        sigma=arguments.sigma,
        n0=arguments.n0,
        n=arguments.n,
        alpha=arguments.alpha,
        taus=tuple(arguments.tau),
        kind=arguments.kind,
        bound=arguments.bound,
        correction=arguments.correction,
        batch=arguments.draws,
        sides=arguments.sides,
        hierarchy=None if arguments.hierarchy is None else levels_of_file(arguments.hierarchy),
    )
    return EvaluationSpec(
        seed=arguments.seed,
        limit=arguments.limit,
        measurements=(certificates,),
        name=certificates_title(arguments.sigma),
    )
