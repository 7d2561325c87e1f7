"""``tools/test.py``: attack a checkpoint and write its results."""

from __future__ import annotations

import datetime
import shlex
import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from mmadv.attacks import WorstCase, parse_radius
from mmadv.attacks.attack import Attack
from mmadv.attacks.presets import PRESETS, preset
from mmadv.checkpoints.loading import file_sha256, load_checkpoint_file, load_weights, use_safe_loading
from mmadv.engine.attack_test_loop import AttackTestLoop, attack_title, attacks_by_radius, unwrap
from mmadv.engine.command_line import Parser, load_config, require, set_local_rank
from mmadv.engine.provenance import hardware, versions
from mmadv.errors import UserError, nearest
from mmadv.registry import ATTACKS, build
from mmadv.report.pictures import draw_example
from mmadv.report.results import check_writable, staged, write_per_image, write_results
from mmadv.report.table import summary_table


def parser() -> Parser:
    """Returns the parser of ``tools/test.py``."""
    result = Parser(prog='test.py', description='Attack a segmentor and write how it stands up.')
    result.add_argument('config', help='config of the model and its test data, of mmadv or mmseg')
    result.add_argument('checkpoint', help='checkpoint of the model')
    result.add_argument(
        '--attack',
        required=True,
        metavar='NAME|FILE.py',
        help=f'none, {", ".join(PRESETS)}, or a config file that defines attack = dict(...)',
    )
    result.add_argument('--eps', nargs='+', metavar='RADIUS', default=[], help="radii in [0, 1] units, such as '4/255'")
    result.add_argument(
        '--iterations', type=int, help='of the attack, instead of its own number (SEA: of each loss; auto: in all)'
    )
    result.add_argument('--limit', type=int, help='number of images, spread evenly over the dataset; all by default')
    result.add_argument('--batch-size', type=int, help="instead of the config's; results do not depend on it")
    result.add_argument('--seed', type=int, default=0, help='of all noise (default: 0)')
    result.add_argument('--out', metavar='DIR', help='results (default: work_dirs/CONFIG/ATTACK_DATE)')
    result.add_argument('--show', type=int, default=4, help='number of images to draw (default: 4)')
    result.add_common()
    return result


def run_test(argv: Sequence[str]) -> None:
    """Attacks a checkpoint as the arguments say, prints the table and writes the results.

    Raises:
        UserError: a mistake in the arguments, config, checkpoint or data; nothing is written then.
    """
    arguments = parser().parse_args(argv)
    set_local_rank(arguments)
    _check_numbers(arguments)
    attack = chosen_attack(arguments)
    attacks_by_radius(attack, arguments.eps)
    out = Path(arguments.out) if arguments.out else _default_out(arguments)
    check_writable(out)
    config = load_config(arguments.config, arguments.cfg_options)
    require(config, arguments.config, ['model', 'test_dataloader'])
    text = config.pretty_text
    use_safe_loading()
    load_checkpoint_file(arguments.checkpoint)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix='mmadv-test-') as scratch:
        runner = Runner.from_cfg(config_for_testing(config, arguments, attack, scratch))
        load_weights(unwrap(runner.model), arguments.checkpoint)
        runner.test()
    if is_main_process():
        seconds = {'total': time.perf_counter() - start, **runner.test_loop.seconds}
        _write(out, arguments, argv, text, attack, runner.test_loop, seconds)


def config_for_testing(config: Config, arguments: Namespace, attack: Attack | None, scratch: str) -> Config:
    """Returns the config of a run that only tests, with mmadv's loop and metric instead of the config's own.

    Args:
        config: of the model and its test data.
        arguments: of the command line.
        attack: None for clean predictions alone.
        scratch: folder for what the runner writes.
    """
    config = config.copy()
    config.launcher = arguments.launcher
    config.work_dir = scratch
    config.log_level = 'WARNING'
    config.randomness = {'seed': arguments.seed}
    config.load_from, config.resume = None, False
    for key in ('dataloader', 'cfg', 'evaluator'):
        config[f'train_{key}'] = config[f'val_{key}'] = None
    config.optim_wrapper = config.param_scheduler = None
    config.visualizer = {'type': 'mmengine.Visualizer', 'name': 'mmadv', 'vis_backends': []}
    hooks = config.get('default_hooks') or {}
    config.default_hooks = {name: hook for name, hook in hooks.items() if name != 'visualization'}
    # Checkpoints of EMAHook hold the averaged weights as the model's; the hook itself would swap them out.
    config.custom_hooks = [hook for hook in config.get('custom_hooks') or [] if hook.get('type') != 'EMAHook']
    config.test_cfg = {
        'type': 'AttackTestLoop',
        'attack': attack and attack.describe(),
        'radii': list(arguments.eps),
        'seed': arguments.seed,
        'limit': arguments.limit,
        'show': arguments.show,
    }
    metric = 'SEAMetric' if isinstance(attack, WorstCase) else 'AttackMetric'
    config.test_evaluator = {'type': metric, 'collect_device': 'gpu'}
    if arguments.batch_size is not None:
        config.test_dataloader.batch_size = arguments.batch_size
    return config


def chosen_attack(arguments: Namespace) -> Attack | None:
    """Returns the attack of ``--attack`` at the first radius, None for 'none'.

    Raises:
        UserError: an unknown name (names the nearest), a file without an attack, radii missing or superfluous.
    """
    name, radii = arguments.attack, arguments.eps
    for radius in radii:
        parse_radius(radius, what='--eps')
    if name == 'none':
        if radii or arguments.iterations is not None:
            raise UserError('--attack none takes neither --eps nor --iterations; leave them out, or name an attack')
        return None
    if name.endswith('.py'):
        config = load_config(name, what='attack config')
        if config.get('attack') is None:
            raise UserError(f"attack config {name} defines no 'attack'; write attack = dict(type=..., ...) in it")
        attack = build(config.attack.to_dict(), ATTACKS)
        if not isinstance(attack, Attack):
            raise UserError(f'attack config {name}: attack must be an attack; found {attack!r}')
        return attack if arguments.iterations is None else attack.with_steps(arguments.iterations)
    if name not in PRESETS:
        raise UserError(f"unknown attack '{name}'{nearest(name, ['none', *PRESETS])}")
    if not radii:
        raise UserError(f'--attack {name} needs --eps, such as --eps 4/255 8/255')
    positive = [radius for radius in radii if parse_radius(radius) > 0]
    if not positive:
        raise UserError('--eps 0 leaves the attack nothing to change; give a positive radius, or --attack none')
    return preset(name, positive[0], arguments.iterations)


def _check_numbers(arguments: Namespace) -> None:
    for name in ('iterations', 'limit', 'batch_size'):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UserError(f'--{name.replace("_", "-")} must be positive; found {value}')


def _default_out(arguments: Namespace) -> Path:
    date = datetime.datetime.now().strftime('%Y%m%d_%H%M%S')
    return Path('work_dirs') / Path(arguments.config).stem / f'{Path(arguments.attack).stem}_{date}'


def _write(
    out: Path,
    arguments: Namespace,
    argv: Sequence[str],
    text: str,
    attack: Attack | None,
    loop: AttackTestLoop,
    seconds: Mapping[str, float],
) -> None:
    """Prints the table and writes everything into the result folder at once."""
    dataset, (metric,) = loop.dataloader.dataset, loop.evaluator.metrics
    results: dict[str, Any] = {
        'created': datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
        'command': shlex.join(['python', 'tools/test.py', *argv]),
        'config': {'file': arguments.config, 'text': text},
        'checkpoint': {'file': arguments.checkpoint, 'sha256': file_sha256(arguments.checkpoint)},
        'attack': attack and {'name': arguments.attack, 'title': attack_title(attack), 'parameters': attack.describe()},
        'radii': [{'text': radius, 'value': parse_radius(radius)} for radius in loop.attacks],
        'seed': arguments.seed,
        'batch_size': loop.dataloader.batch_size,
        'dataset': {
            'type': type(dataset.dataset).__name__,
            'size': loop.dataset_size,
            'limit': arguments.limit,
            'palette': [list(map(int, colour)) for colour in dataset.metainfo['palette']],
        },
        'versions': versions(),
        'hardware': hardware(),
        'seconds': {name: round(value, 3) for name, value in seconds.items()},
        'evaluation': metric.evaluation,
        'pictures': [],
    }
    print(f'{summary_table(metric.evaluation)}\n')
    with staged(out) as stage:
        (stage / 'pictures').mkdir()
        for example in loop.examples:
            file = f'pictures/{example.index:05d}.png'
            draw_example(
                example,
                stage / file,
                classes=metric.evaluation['classes'],
                palette=results['dataset']['palette'],
                ignore_index=metric.evaluation['ignore_index'],
            )
            results['pictures'].append({'file': file, 'index': example.index, 'image': example.name})
        write_per_image(stage / 'per_image.csv', metric.per_image)
        write_results(stage, results)
    print(f'results: {out}')
