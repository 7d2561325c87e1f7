"""``mmadv card``: everything that is asked about the robustness of one model, on one page."""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
import warnings
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmadv.attacks import parse_radius
from mmadv.commands import testing
from mmadv.commands.argument_types import positive, positive_radius, sigma
from mmadv.commands.card_cost import costs_of, path_of, probe
from mmadv.commands.card_parts import (
    BUDGETS,
    PARTS,
    REGION,
    Budget,
    CardSettings,
    Part,
    has_frost,
    l2_radii,
    noise_of_training,
    parts_of,
)
from mmadv.commands.command_line import Parser, command_text, load_config, naming, require
from mmadv.commands.option_names import errors_name_options
from mmadv.commands.provenance import decisive_versions
from mmadv.commands.resuming import load_run, without_resuming
from mmadv.commands.testing_options import add_model, add_run, default_out
from mmadv.corruptions import frost_photographs
from mmadv.engine.attack_regions import parse_attack_region
from mmadv.engine.data import Selection, build_dataset, evenly_spaced
from mmadv.engine.memory import release_memory
from mmadv.errors import UserError
from mmadv.printing import printable
from mmadv.report.card import CARD, Card, Cost, Rates, part_of_run
from mmadv.report.card_comparison import summary_data, summary_table
from mmadv.report.card_page import card_markdown, card_page, cost_table, transposed
from mmadv.report.html import write_whole
from mmadv.report.output_folder import locked, staged
from mmadv.report.run import FILE_NAME, RunResults
from mmadv.report.schema import write_json
from mmadv.report.table import Table

# Inside the output folder: the result folders of the parts, the configs of weather, and the cost.
FOLDER, WEATHER, COST = 'parts', 'weather', 'cost.json'
# Images whose sizes are looked at beforehand.
SIZED = 8
# Option -> the parts that it is for.
OPTIONS = {
    'eps': ('auto', 'sea', 'noise', 'region', 'universal', 'square', 'transfer', 'calibration', 'checks'),
    'eps_l2': ('auto-l2', 'sea-l2'),
    'region': ('region',),
    'sigma': ('certificates',),
    'source': ('transfer',),
    'weather': ('weather',),
    'frost_photographs': ('corruptions',),
}


def parser() -> Parser:
    """Returns the parser of ``mmadv card``."""
    result = Parser(
        prog='mmadv card',
        description='Measure everything that is asked about the robustness of one model, and write it on one page.',
        example='mmadv card at/upernet_r18_pgd3_camvid.py work_dirs/at/iter_800.pth --budget quick --out card',
    )
    add_model(result)
    result.add_argument(
        '--budget',
        choices=list(BUDGETS),
        default='quick',
        help='a look at a few images, or all images with the attacks as published (default: quick)',
    )
    result.add_argument('--parts', nargs='+', choices=list(PARTS), metavar='PART', help=f'parts: {", ".join(PARTS)}')
    result.add_argument('--without', nargs='+', choices=list(PARTS), metavar='PART', help='parts to leave out')
    result.add_argument(
        '--eps',
        nargs='+',
        type=positive_radius,
        metavar='RADIUS',
        help='radii under Linf; the largest is that of parts with one',
    )
    result.add_argument(
        '--eps-l2', nargs='+', type=positive_radius, metavar='RADIUS', help='radii under L2, of the whole image'
    )
    result.add_argument('--region', help=f'region of the localized attack (default: {REGION})')
    result.add_argument(
        '--sigma', type=sigma, help='noise of the certificates (default: that of the training, from the config)'
    )
    result.add_argument(
        '--source', nargs='+', metavar=('CONFIG', 'CHECKPOINT'), help='model whose attack is transferred to this one'
    )
    result.add_argument(
        '--weather',
        nargs='+',
        metavar='CONFIG',
        help='configs with test data in bad weather, such as _base_/datasets/acdc_fog_as_stored.py',
    )
    result.add_argument('--frost-photographs', metavar='DIR', help='folder of frost1.png to frost5.jpg')
    result.add_argument('--batch-size', type=positive, help='images per batch, instead of the number in the config')
    add_run(result, 'card_DATE', launcher=False)
    return result


@dataclass(frozen=True)
class Plan:
    """What a card measures.

    Attributes:
        card: the settings of the parts.
        parts: the parts.
        left_out: part -> the reason why it is not measured.
        size: number of images of the dataset.
        sizes: part -> number of images of its dataset, which is another one for weather.
        data: checksum of the card's images.
        classes: the classes.
        dataset: type of the dataset.
        configs: name of a weather -> config of the model with its data.
        model: config and checkpoint on the command line.
        common: further arguments of each command.
    """

    card: CardSettings
    parts: list[Part]
    left_out: dict[str, str]
    size: int
    sizes: dict[str, int]
    data: str
    classes: tuple[str, ...]
    dataset: str
    configs: dict[str, Config]
    model: list[str]
    common: dict[str, list[str]]


def run_card(argv: Sequence[str]) -> int:
    """Measures the parts of a card, prints the cost before and a line for the model after; returns the exit status.

    The status is 0, or 1 if the model failed on some images of a part.

    Raises:
        UserError: there is a mistake in the arguments, config, checkpoint or data. Parts and images that were done
            before it are kept. If none was done, nothing is written.
        KeyboardInterrupt: the user interrupted the run; the message says how to resume it.
    """
    arguments = parser().parse_args(argv)
    out = Path(arguments.out) if arguments.out else default_out(arguments, 'card')
    with errors_name_options(arguments):
        _check(arguments)
        config = load_run(arguments, out)
        _check_unfinished(arguments, out)
        plan = plan_of(arguments, argv, config, out)
    try:
        rates = (_stored_rates(out) if arguments.resume else None) or _probed(arguments, config, plan)
        costs = costs_of(plan.parts, plan.sizes, rates)
        done = {part.name for part in plan.parts if arguments.resume and (path_of(out, part) / FILE_NAME).is_file()}
        _print_cost({name: cost for name, cost in costs.items() if name not in done}, plan.left_out)
        with locked(out), warnings.catch_warnings():
            # MMEngine: the runners of all parts have one visualizer, which draws nothing.
            warnings.filterwarnings('ignore', module='mmengine.utils.manager')
            _check_unfinished(arguments, out)
            return _run(arguments, plan, out, rates, costs)
    except KeyboardInterrupt:
        if not (out / FOLDER).is_dir():
            raise KeyboardInterrupt('nothing was done yet') from None
        words = without_resuming(argv)
        words += [] if any(word.startswith('--o') for word in words) else ['--out', str(out)]
        again = command_text('card', [*words, '--resume'])
        raise KeyboardInterrupt(f'parts and images that are done are kept; go on with\n{again}') from None


def _probed(arguments: Namespace, config: Config, plan: Plan) -> Rates:
    """Returns the times that a probe measures on a batch of the card's images."""
    batch = arguments.batch_size or config.test_dataloader.get('batch_size') or 1
    print('timing a few passes of the model', flush=True)
    with errors_name_options(arguments):
        return probe(
            plan.parts, plan.model, plan.common, min(plan.sizes[plan.parts[0].name], plan.card.images or batch, batch)
        )


def _run(arguments: Namespace, plan: Plan, out: Path, rates: Rates, costs: dict[str, Cost]) -> int:
    """Measures the parts in turn and writes the card; returns the exit status."""
    if arguments.resume:
        earlier = _stored_cost(out).get('parts', {})
        actual = {name: one.get('actual') for name, one in earlier.items()}
        costs = {name: replace(one, actual=actual.get(name)) for name, one in costs.items()}
    else:
        (out / CARD).unlink(missing_ok=True)
        _write_cost(out, rates, costs)
    for name, config in plan.configs.items():
        _write_weather(out / WEATHER / f'{name}.py', testing.layout(config), resume=arguments.resume)
    status = 0
    for number, part in enumerate(plan.parts, start=1):
        print('\n' + printable(f'== {part.name} ({number} of {len(plan.parts)}): {part.title}'), flush=True)
        start, begun = time.perf_counter(), arguments.resume and path_of(out, part).exists()
        with naming(f'part {part.name}'):
            status = max(
                status, testing.run_evaluation(part.command, _with_resuming(part, arguments), part.argv, part.spec)
            )
        took = time.perf_counter() - start
        if not begun:
            costs[part.name] = replace(costs[part.name], actual=took)
        _write_cost(out, rates, costs)
        release_memory()
    card = card_of(arguments, plan, out)
    name = Path(arguments.config).stem
    write_card(out, name, card, costs)
    print(f'\n{transposed(summary_table({name: card})).text()}\n\ncard: {out}\npage: {out / "card.html"}')
    return status


def _write_weather(path: Path, text: str, *, resume: bool) -> None:
    """Writes the config of the model with the data of a weather; a resumed card must have the same one."""
    if resume and path.is_file() and path.read_text(encoding='utf-8') != text:
        raise UserError(f'--weather: {path} of this card is another config; use the same one, or another --out')
    write_whole(path, text)


def _check(arguments: Namespace) -> None:
    """Raises UserError for options that do not go together."""
    both = set(arguments.parts or ()) & set(arguments.without or ())
    if both:
        raise UserError(f'--parts and --without both name {", ".join(sorted(both))}; leave out one of them')
    for option in ('parts', 'without', 'eps', 'eps_l2'):
        given = getattr(arguments, option) or []
        values = [str(parse_radius(one)) if option.startswith('eps') else one for one in given]
        twice = [given[n] for n, value in enumerate(values) if value in values[:n]]
        if twice:
            raise UserError(f'--{option.replace("_", "-")} names {twice[0]} twice; give it once')
    if arguments.source and len(arguments.source) > 2:
        raise UserError(f'--source takes a config and a checkpoint; found {" ".join(arguments.source)}')
    if arguments.frost_photographs is not None:
        with naming('--frost-photographs'):
            frost_photographs(arguments.frost_photographs)


def _check_unfinished(arguments: Namespace, out: Path) -> None:
    """Raises UserError if the folder has an unfinished card and the arguments give neither --resume nor --restart."""
    if arguments.resume or arguments.restart or (out / CARD).is_file() or not (out / FOLDER).is_dir():
        return
    raise UserError(
        f'output folder {out} holds an unfinished card; go on with --resume, discard it with --restart, or give '
        'another --out'
    )


def plan_of(arguments: Namespace, argv: Sequence[str], config: Config, out: Path) -> Plan:
    """Returns what a card measures; reads the data, and writes nothing.

    Raises:
        UserError: options, data or files do not fit.
    """
    budget = BUDGETS[arguments.budget]
    if (config.get('test_cfg') or {}).get('measurements'):
        raise UserError(
            f'config {arguments.config} has test_cfg.measurements, and a card has its own; leave them out, as with '
            '--cfg-options test_cfg.measurements=None'
        )
    limit = arguments.limit or budget.images
    selection = _selection(config, limit)
    shapes = _shapes(selection)
    configs = _weather(arguments.weather or (), config)
    card = CardSettings(
        budget=budget,
        images=limit,
        seed=arguments.seed,
        linf=tuple(sorted(arguments.eps or budget.linf, key=parse_radius)),
        l2=tuple(sorted(arguments.eps_l2 or l2_radii(budget.l2, math.prod(shapes[0])), key=parse_radius)),
        region=_region(arguments.region or REGION, selection),
        sigma=arguments.sigma or noise_of_training(config),
        source=tuple(arguments.source or ()),
        weather={name: str(out / WEATHER / f'{name}.py') for name in configs},
        frost=arguments.frost_photographs,
        colour=shapes[0][0] == 3,
    )
    reasons = _reasons(card, config, shapes)
    names, left_out = _chosen(arguments, budget, reasons)
    common = {
        'all': _config_options(argv),
        'batch': [] if arguments.batch_size is None else ['--batch-size', str(arguments.batch_size)],
        'out': [str(out / FOLDER)],
    }
    model = [arguments.config, *([arguments.checkpoint] if arguments.checkpoint is not None else [])]
    parts = parts_of(card, names, model, common)
    for part in parts:
        if part.spec.source is not None:
            testing.with_files(part.spec, part.arguments, config)
    sizes = {part.name: len(selection.dataset) for part in parts}
    for name, one in configs.items():
        sizes[f'weather.{name}'] = len(_selection(one, limit).dataset)
    if 'corruptions' in names and card.frost is None and not has_frost():
        left_out['frost'] = 'its photographs are missing; give --frost-photographs'
    metainfo = selection.metainfo
    return Plan(
        card=card,
        parts=parts,
        left_out=left_out,
        size=len(selection.dataset),
        sizes=sizes,
        data=_checksum(selection),
        classes=tuple(metainfo['classes']),
        dataset=type(selection.dataset).__name__,
        configs=configs,
        model=model,
        common=common,
    )


def _selection(config: Config, limit: int | None) -> Selection:
    dataset = build_dataset(config.test_dataloader.dataset, 'test_dataloader.dataset')
    selection = Selection(dataset, evenly_spaced(len(dataset), limit))
    selection.check_files()
    return selection


def _shapes(selection: Selection) -> list[tuple[int, ...]]:
    """Returns the sizes of some images as they enter the network, (C, h, w)."""
    return [tuple(selection[n]['inputs'].shape) for n in evenly_spaced(len(selection), SIZED)]


def _checksum(selection: Selection) -> str:
    """Returns a checksum of the names and files of the card's images."""
    names = [[selection.name(index), selection.digest(index)] for index in selection.indexes]
    return hashlib.blake2b(json.dumps(names).encode(), digest_size=8).hexdigest()


def _region(text: str, selection: Selection) -> str:
    """Returns the text of a region, checked."""
    parse_attack_region(text, selection.metainfo['classes'])
    return text


def _weather(files: Sequence[str], config: Config) -> dict[str, Config]:
    """Returns name -> config of the model with the test data of another config."""
    configs = {}
    for file in files:
        with naming('--weather'):
            other = load_config(file, what='weather config')
            require(other, file, ['test_dataloader'])
            name = Path(file).stem
            if name in configs:
                raise UserError(f'two configs have the name {name}; rename one of them')
            configs[name] = config.copy()
            configs[name].test_dataloader = other.test_dataloader
    return configs


def _reasons(card: CardSettings, config: Config, shapes: Sequence[tuple[int, ...]]) -> dict[str, str]:
    """Returns part -> the reason why it cannot be measured."""
    reasons = {}
    if not card.weather:
        reasons['weather'] = 'no data of bad weather; name their configs with --weather'
    if not card.source:
        reasons['transfer'] = 'no second model; name it with --source'
    if card.sigma is None:
        reasons['certificates'] = 'the config trains without Gaussian noise; give its deviation with --sigma'
    if not card.colour:
        reasons['corruptions'] = f'they need images with three channels; found {shapes[0][0]}'
    if config.get('train_dataloader') is None:
        for name in ('universal', 'universal-patch'):
            reasons[name] = "it is trained on the training data; the config has no 'train_dataloader'"
    elif len(set(shapes)) > 1:
        sizes = ', '.join(sorted({'x'.join(map(str, shape[1:])) for shape in shapes}))
        reasons['universal'] = f'one perturbation needs images of one size; found {sizes}'
    return reasons


def _chosen(arguments: Namespace, budget: Budget, reasons: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Returns the names of the parts to measure, and part -> reason for all others.

    Raises:
        UserError: a part that is named cannot be measured, no part is left, or an option has no part.
    """
    names, left_out = [], {}
    for name in PARTS:
        if name in (arguments.without or ()):
            left_out[name] = 'left out by --without'
        elif arguments.parts and name not in arguments.parts:
            left_out[name] = 'not among --parts'
        elif name in reasons:
            if arguments.parts:
                raise UserError(f'--parts {name}: {reasons[name]}')
            left_out[name] = reasons[name]
        elif not arguments.parts and name in budget.without:
            left_out[name] = f'the budget {arguments.budget} leaves it out; name it with --parts'
        else:
            names.append(name)
    if not names:
        raise UserError('--without leaves no part to measure; name fewer')
    for option, parts in OPTIONS.items():
        value = getattr(arguments, option)
        if value is not None and not set(parts) & set(names):
            shown = value if isinstance(value, str) else ' '.join(map(str, value)) if isinstance(value, list) else value
            raise UserError(
                f'--{option.replace("_", "-")} {shown} is for {", ".join(parts)}, which the card does not measure; '
                'leave it out'
            )
    return names, left_out


def _config_options(argv: Sequence[str]) -> list[str]:
    """Returns each ``--cfg-options`` of a command line with its values, as it may be given several times."""
    words: list[str] = []
    for start, word in enumerate(argv):
        name, _, value = word.partition('=')
        if name.startswith('--c') and '--cfg-options'.startswith(name):
            end = next((n for n in range(start + 1, len(argv)) if argv[n].startswith('--')), len(argv))
            words += ['--cfg-options', *([value] if value else []), *argv[start + 1 : end]]
    return words


def _with_resuming(part: Part, arguments: Namespace) -> Namespace:
    """Returns the arguments of a part with --resume or --restart as the card has them."""
    return Namespace(**{**vars(part.arguments), 'resume': arguments.resume, 'restart': arguments.restart})


def _print_cost(costs: Mapping[str, Cost], left_out: Mapping[str, str]) -> None:
    table = cost_table(costs)
    without_time = Table(table.header[:-1], tuple(row[:-1] for row in table.rows), table.text_columns)
    print(without_time.text())
    passes = sum(one.images * (one.forward + one.backward) + 2 * one.once for one in costs.values())
    minutes = sum(one.seconds for one in costs.values()) / 60
    print(f'\nthe card takes at most {passes} passes, which are {minutes:.1f} minutes here, as a probe has timed')
    for part, reason in left_out.items():
        print(printable(f'not measured: {part}: {reason}'))
    sys.stdout.flush()


def _stored_cost(out: Path) -> dict[str, Any]:
    """Returns the content of ``cost.json``; empty if it is missing or damaged, as it decides no number."""
    try:
        content = json.loads((out / COST).read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _stored_rates(out: Path) -> Rates | None:
    """Returns the times that the probe of an earlier start measured; None if there are none."""
    try:
        return Rates.from_json(_stored_cost(out).get('rates'))
    except UserError:
        return None


def _write_cost(out: Path, rates: Rates, costs: Mapping[str, Cost]) -> None:
    text = json.dumps({'rates': write_json(rates), 'parts': write_json(costs)}, indent=1)
    write_whole(out / COST, text + '\n')


def card_of(arguments: Namespace, plan: Plan, out: Path) -> Card:
    """Returns the card from the results of its parts."""
    parts = {}
    for part in plan.parts:
        run = RunResults.load(path_of(out, part))
        one = part_of_run(run, part.title, part.words, part.command)
        weather = part.name.partition('.')[2]
        parts[part.name] = replace(one, config=f'{WEATHER}/{weather}.py') if weather else one
    return Card(
        budget=arguments.budget,
        config=arguments.config,
        checkpoint=run.checkpoint,
        dataset=plan.dataset,
        size=plan.size,
        limit=plan.card.images,
        data=plan.data,
        classes=plan.classes,
        seed=arguments.seed,
        versions=decisive_versions(),
        parts=parts,
        left_out=plan.left_out,
    )


def write_card(out: Path, name: str, card: Card, costs: Mapping[str, Cost]) -> None:
    """Writes the card and its pages into its folder at once."""
    with staged(out, last=CARD) as stage:
        (stage / 'card.html').write_text(card_page(name, card, out / FOLDER, costs), encoding='utf-8')
        (stage / 'card.md').write_text(card_markdown(name, card, costs), encoding='utf-8')
        line = {name: card}
        for suffix, text in (
            ('md', summary_table(line).markdown()),
            ('csv', summary_data(line).csv()),
            ('tex', summary_table(line).latex()),
        ):
            (stage / f'summary.{suffix}').write_text(text, encoding='utf-8')
        (stage / CARD).write_text(card.text(), encoding='utf-8')
