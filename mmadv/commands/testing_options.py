"""The options of ``mmadv test``, and the attack that they choose."""

from __future__ import annotations

import datetime
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from mmadv.attacks import parse_radius
from mmadv.attacks.attack import Attack
from mmadv.attacks.presets import PRESETS, preset
from mmadv.commands.argument_types import base_type, not_negative, number, positive, radius, seed
from mmadv.commands.command_line import Parser, load_config
from mmadv.engine.spec import SPACES, SWEEPS, EvaluationSpec, all_measurements
from mmadv.errors import UserError, nearest
from mmadv.registry import ATTACKS, build
from mmadv.report.measurement import MEASUREMENTS, Measurement, Option
from mmadv.report.run import SourceModel

NORMS = ('Linf', 'L2', 'L1')


def parser() -> Parser:
    """Returns the parser of ``mmadv test``."""
    result = Parser(
        prog='mmadv test',
        description='Attack a segmentor and write how robust it is.',
        example='mmadv test at/upernet_r18_pgd3_camvid.py work_dirs/at/iter_800.pth --attack sea --eps 4/255',
    )
    result.add_argument('config', help='config of the model and its test data, from mmadv or mmseg')
    result.add_argument(
        'checkpoint',
        nargs='?',
        help='checkpoint of the model; leave it out for a Hugging Face or torchvision model, which brings its weights',
    )
    result.add_argument(
        '--attack',
        required=True,
        metavar='NAME|FILE.py',
        help=f'none, {", ".join(PRESETS)}, or a config file that defines attack = dict(...)',
    )
    result.add_argument(
        '--eps',
        nargs='+',
        type=radius,
        metavar='RADIUS',
        default=[],
        help="radii in units of [0, 1], such as '4/255'; a fixed step size of an attack file is scaled with the radius",
    )
    own = ', '.join(f'{name} {one.steps} {one.counted}'.strip() for name, one in PRESETS.items() if one.steps)
    result.add_argument('--iterations', type=positive, help=f'iterations, instead of the default of the attack: {own}')
    result.add_argument(
        '--batch-size',
        type=positive,
        help='images per batch, instead of the number in the config; results do not depend on it',
    )
    result.add_argument(
        '--show',
        type=not_negative,
        default=4,
        help='number of images to draw; half as many of the least and of the most robust are added (default: 4)',
    )
    _add_attacked(result)
    result.add_argument(
        '--sweep',
        choices=SWEEPS,
        default='independent',
        help='attack at each radius by itself, or let results at a radius count at the larger radii, where auto then '
        'runs only the parts that led (default: independent)',
    )
    result.add_argument(
        '--precision',
        choices=['float32', 'float64'],
        default='float32',
        help='precision of model and attack; with float64, batch size changes no pixel of results (default: float32)',
    )
    for measurement in MEASUREMENTS.values():
        for option in measurement.options:
            result.add_argument(option.flag, **{**_number_of(measurement, option), **option.settings})
    add_run(result, 'ATTACK_DATE')
    return result


def _add_attacked(parser: Parser) -> None:
    """Adds the options of norm, attacked space, target and region of the attack, and of the source of a transfer."""
    parser.add_argument(
        '--norm', choices=NORMS, help='norm of the radii of a named attack, of the whole image (default: Linf)'
    )
    parser.add_argument(
        '--space',
        choices=SPACES,
        default='input',
        help="attack the network's input, as the papers do, or the pixels of the image file (default: input)",
    )
    parser.add_argument(
        '--target',
        metavar='class:NAME|remove:NAME|masks:DIR',
        help='target of the attack: every pixel as one class, one class removed, or label maps named like the images',
    )
    parser.add_argument(
        '--region',
        metavar='box:TOP,LEFT,HEIGHT,WIDTH|class:NAME|except:NAME',
        help='change only these pixels: a box in shares of the image, the pixels of a class, or all others',
    )
    parser.add_argument(
        '--score',
        choices=['rest', 'all'],
        default='rest',
        help='with --region or a patch: score the pixels outside it, or all pixels (default: rest)',
    )
    parser.add_argument(
        '--source',
        nargs='+',
        metavar=('CONFIG', 'CHECKPOINT'),
        help='attack this model, and evaluate the main model on the result (a transfer attack); models of Hugging Face '
        'and torchvision need no checkpoint',
    )


def add_model(parser: Parser) -> None:
    """Adds the config and the checkpoint of the evaluated model."""
    parser.add_argument('config', help='config of the model and its test data, from mmadv or mmseg')
    parser.add_argument(
        'checkpoint', nargs='?', help='its checkpoint; models of Hugging Face and torchvision need none'
    )


def add_run(parser: Parser, default_out: str, *, launcher: bool = True) -> None:
    """Adds the options of every run that evaluates a checkpoint: number of images, seed and output folder.

    Args:
        parser: parser that gets the options.
        default_out: the last part of the default output folder.
        launcher: add the options of a run in several processes.
    """
    parser.add_argument(
        '--limit', type=positive, help='number of images, spread evenly over the dataset (default: all)'
    )
    parser.add_argument('--seed', type=seed, default=0, help='random seed of all noise (default: 0)')
    parser.add_argument('--out', metavar='DIR', help=f'output folder (default: work_dirs/CONFIG/{default_out})')
    parser.add_argument('--resume', action='store_true', help='resume the unfinished run in --out')
    parser.add_argument('--restart', action='store_true', help='discard the unfinished run in --out and start again')
    if launcher:
        parser.add_launcher()
    parser.add_cfg_options()


def _number_of(measurement: type[Measurement], option: Option) -> dict[str, Any]:
    """Returns the type of an option that sets a number, or numbers, of a measurement; empty for a text or a switch."""
    if option.argument is None:
        return {}
    hint = get_type_hints(measurement, include_extras=True)[option.argument]
    if get_origin(hint) is Sequence:
        (hint,) = get_args(hint)
    return {'type': number(hint)} if base_type(hint) in (int, float) else {}


def chosen_attack(arguments: Namespace) -> Attack | None:
    """Returns the attack of ``--attack`` at the first radius; None for 'none'.

    Raises:
        UserError: the name is unknown (the message names the nearest), the file has no attack, or radii are missing or
            superfluous.
    """
    name, radii = arguments.attack, arguments.eps
    if arguments.norm is not None and (name == 'none' or name.endswith('.py')):
        raise UserError(
            f'--norm {arguments.norm} is for a named attack; leave it out, or set the threat in the attack file'
        )
    if name == 'none':
        if radii or arguments.iterations is not None or arguments.check is not None:
            raise UserError(
                '--attack none takes neither --eps nor --iterations nor --check; leave them out, or name an attack'
            )
        return None
    if name.endswith('.py'):
        config = load_config(name, what='attack config')
        if config.get('attack') is None:
            raise UserError(f"attack config {name} defines no 'attack'; write attack = dict(type=..., ...) in it")
        described = config.attack.to_dict() if hasattr(config.attack, 'to_dict') else config.attack
        attack = build(described, ATTACKS)
        if not isinstance(attack, Attack):
            raise UserError(f'attack config {name}: attack must be an attack; found {attack!r}')
        return attack if arguments.iterations is None else attack.with_steps(arguments.iterations)
    if name not in PRESETS:
        raise UserError(f"unknown attack '{name}'{nearest(name, ['none', *PRESETS])}")
    radii = radii or [radius for radius in [PRESETS[name].radius] if radius]
    if not radii:
        raise UserError(f'--attack {name} needs --eps, such as --eps 4/255 8/255')
    positive = [text for text in radii if parse_radius(text) > 0]
    if not positive:
        raise UserError('--eps 0 leaves the attack nothing to change; give a positive radius, or --attack none')
    return preset(name, positive[0], arguments.iterations, arguments.norm or NORMS[0])


def check_combinations(arguments: Namespace) -> None:
    """Raises UserError for options that do not go together."""
    if arguments.source and len(arguments.source) > 2:
        raise UserError(f'--source takes a config and a checkpoint; found {" ".join(arguments.source)}')
    for option in ('target', 'region', 'source'):
        if getattr(arguments, option) and arguments.attack == 'none':
            raise UserError(f'--attack none has nothing for --{option} to change; name an attack')


def chosen_measurements(arguments: Namespace) -> list[Measurement]:
    """Returns the measurements that the options ask for.

    Raises:
        UserError: an option lacks the option that asks for its measurement, or a value does not fit.
    """
    chosen = []
    for kind in MEASUREMENTS.values():
        values = {option: getattr(arguments, option.attribute) for option in kind.options}
        values = {option: value for option, value in values.items() if value is not None and value is not False}
        if not values:
            continue
        asking = kind.options[0]
        if asking not in values:
            what = f'{asking.flag} {asking.settings.get("metavar", "")}'.strip()
            raise UserError(f'{next(iter(values)).flag} is for {what}; give that, or leave it out')
        chosen.append(kind(**{option.argument: value for option, value in values.items() if option.argument}))
    return chosen


def spec_of_arguments(arguments: Namespace) -> EvaluationSpec:
    """Returns the evaluation that the options describe; reads no file except the attack file.

    Raises:
        UserError: options have wrong values, or do not go together.
    """
    chosen, attack = chosen_measurements(arguments), chosen_attack(arguments)
    return EvaluationSpec(
        attack=attack,
        radii=tuple(arguments.eps),
        seed=arguments.seed,
        limit=arguments.limit,
        space=arguments.space,
        target=arguments.target,
        region=arguments.region,
        score=arguments.score,
        source=SourceModel(*arguments.source) if arguments.source else None,
        precision=arguments.precision,
        sweep=arguments.sweep,
        measurements=all_measurements(attack, chosen),
    )


def default_out(arguments: Namespace, command: str) -> Path:
    """Returns the output folder of a run without --out; its name holds the time."""
    date = datetime.datetime.now().strftime('%Y%m%d_%H%M%S')
    name = Path(arguments.attack).stem if 'attack' in arguments else command
    return Path('work_dirs') / Path(arguments.config).stem / f'{name}_{date}'
