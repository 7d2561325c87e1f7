"""``mmadv test``: attack a checkpoint and write its results."""

from __future__ import annotations

import datetime
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import barrier, broadcast_object_list, get_world_size, is_main_process
from mmengine.runner import Runner
from torch import Tensor

from mmadv.attacks import Universal, WorstCase, parse_radius
from mmadv.attacks.attack import Attack
from mmadv.checkpoints.loading import file_sha256, load_weights
from mmadv.commands.command_line import command_text, join_processes_on_cpu, load_config, require, set_local_rank
from mmadv.commands.going_on import UNFINISHED, kept, opened, sole_run, without_resuming
from mmadv.commands.gradient_study import GradientStudy
from mmadv.commands.provenance import decisive_versions, hardware, versions
from mmadv.commands.supplement_options import check_supplements, chosen_supplements
from mmadv.commands.testing_options import check_numbers, chosen_attack, default_out, parser
from mmadv.commands.trust_check import check_trust, trust_text
from mmadv.engine.attack_test_loop import AttackTestLoop, attacks_by_radius, unwrap
from mmadv.engine.data import first_line
from mmadv.engine.scoring import evaluator_notes, loop_notes, scored_ignore_index
from mmadv.engine.universal import UniversalTraining, check_universal
from mmadv.errors import UserError
from mmadv.evaluation.result_store import ResultStore, write_records
from mmadv.locks import temporary_folder
from mmadv.models.building import build_segmentor, model_settings
from mmadv.printing import printable
from mmadv.report.breakdown import images_table, write_breakdowns
from mmadv.report.drawing import draw_file
from mmadv.report.evaluation import FailedImage
from mmadv.report.gradients import Gradients, gradients_text
from mmadv.report.html import write_report
from mmadv.report.output_folder import staged
from mmadv.report.pictures import draw_example
from mmadv.report.results import FILE_NAME
from mmadv.report.run import RunResults
from mmadv.report.summary import summary_text

# Inside the output folder: results per image of a complete run.
RECORDS = 'records.jsonl'
# Inside the output folder: the page to look at.
REPORT = 'report.html'
# Of the folder that the runner writes to, which nobody keeps.
SCRATCH_PREFIX = 'mmadv-scratch-'
# Keys of a config that decide numbers; a run that goes on must have them as they were.
# Hooks of training alone. Checkpoints of EMAHook hold the averaged weights as the model's; the hook itself would swap
# them out. EarlyStoppingHook asks for a train loop before a test begins.
TRAINING_HOOKS = ('EMAHook', 'EarlyStoppingHook')
DECISIVE_KEYS = ('model', 'data_preprocessor', 'custom_hooks', 'custom_imports', 'default_scope')


def run_test(argv: Sequence[str]) -> int:
    """Attacks a checkpoint as the arguments say, prints the table and writes the results; returns the exit status.

    That is 0, or 1 where the model failed on some images, which are listed.

    Raises:
        UserError: a mistake in the arguments, config, checkpoint or data. The results of images that were done
            before it are kept; where there are none, nothing is written.
        KeyboardInterrupt: with how to go on as its message.
    """
    arguments = parser().parse_args(argv)
    set_local_rank(arguments)
    check_numbers(arguments)
    check_supplements(arguments)
    attack = chosen_attack(arguments)
    check_universal(attack, arguments)
    attacks_by_radius(attack, arguments.eps)
    out = Path(arguments.out) if arguments.out else default_out(arguments)
    config = opened(arguments, out)
    notes = [*evaluator_notes(config.get('test_evaluator')), *loop_notes(config.get('test_cfg'))]
    start = time.perf_counter()
    with ExitStack() as stack:
        scratch = stack.enter_context(temporary_folder(tempfile.gettempdir(), SCRATCH_PREFIX))
        testing = config_for_testing(config, arguments, attack, str(scratch))
        join_processes_on_cpu(testing)
        runner = Runner.from_cfg(testing)
        name_failing_hooks(runner)
        load_weights(unwrap(runner.model), arguments.checkpoint)
        if arguments.precision == 'float64':
            runner.model.double()
        loop, out = runner.test_loop, _agreed(out)
        stack.enter_context(sole_run(arguments, out))
        loop.notes += notes
        attack = loop.completed(attack)
        source = load_source(arguments, loop, next(runner.model.parameters()))
        loop.supplements = chosen_supplements(arguments, loop, out)
        study = GradientStudy(loop, config, arguments.gradients) if arguments.gradients else None
        universal = UniversalTraining(config, loop, arguments.space, out) if isinstance(attack, Universal) else None
        settings = {'source': source, 'universal': universal and universal.settings}
        store = ResultStore(
            out / UNFINISHED,
            {**run_settings(config, arguments, attack, loop), **settings},
            out / RECORDS if arguments.resume else None,
        )
        _discard(store, arguments)
        loop.keep_results(store)
        if arguments.resume and not loop.missing and _is_complete(out, store, arguments):
            return _tell_complete(out)
        with kept(store, out, 'test', argv):
            if universal is not None:
                universal.run(runner, store)
            runner.test()
            if not is_main_process():
                return 0
            trust = check_trust(loop, arguments.check) if arguments.check else None
            if study is not None:
                study.run(arguments.show)
            seconds = {'total': time.perf_counter() - start, **loop.seconds}
            _write(
                out, arguments, argv, config.pretty_text, attack, loop, seconds, store, trust, source, study, universal
            )
        store.remove()
    return _tell_failed(loop.evaluator.metrics[0].evaluation.failed)


def name_failing_hooks(runner: Runner) -> None:
    """Makes a hook that cannot begin a test, since it needs a train loop, a UserError that names it."""
    for hook in runner.hooks:

        def begin(runner: Runner, hook: Any = hook, before_run: Any = hook.before_run) -> None:
            try:
                before_run(runner)
            except (AssertionError, AttributeError, TypeError, ValueError) as error:
                raise UserError(
                    f'{type(hook).__name__} of the config cannot begin a test, which has no train loop '
                    f'({first_line(error)}); take it out of custom_hooks'
                ) from error

        hook.before_run = begin


def load_source(arguments: Namespace, loop: AttackTestLoop, like: Tensor) -> dict[str, str] | None:
    """Gives the loop the model of ``--source``, and returns its ``config``, ``checkpoint`` and ``sha256``.

    Args:
        arguments: of the command line.
        loop: whose images are to be attacked on that model.
        like: a parameter of the model that is evaluated: its device and precision.

    Raises:
        UserError: no such config or checkpoint, or weights that do not fit.
    """
    if not arguments.source:
        return None
    path, checkpoint = arguments.source
    config = load_config(path, what='source config')
    require(config, path, ['model'])
    segmentor = unwrap(build_segmentor(config))
    load_weights(segmentor, checkpoint)
    loop.source = segmentor.to(like).eval()
    loop.title = f'{loop.title} on {Path(path).stem}, transferred'
    return {'config': str(path), 'checkpoint': str(checkpoint), 'sha256': file_sha256(checkpoint)}


def run_settings(config: Config, arguments: Namespace, attack: Attack | None, loop: AttackTestLoop) -> dict[str, Any]:
    """Returns everything that decides the numbers of a run: what must not change when it goes on."""
    settings = config.to_dict()
    return {
        'checkpoint': {'sha256': file_sha256(arguments.checkpoint)},
        'attack': attack and attack.describe(),
        'radii': list(loop.attacks),
        'seed': arguments.seed,
        'precision': arguments.precision,
        'space': arguments.space,
        'target': arguments.target,
        'supplements': {extra.name: extra.settings for extra in loop.supplements} or None,
        'dataset': loop.describe_dataset(),
        'ignore_index': loop.ignore_index,
        'config': {
            **{key: settings.get(key) for key in DECISIVE_KEYS},
            'test_dataloader': {'dataset': settings['test_dataloader'].get('dataset')},
        },
        'versions': decisive_versions(),
    }


def _agreed(out: Path) -> Path:
    """Returns the output folder of the main process; the default one holds the time."""
    names = [str(out)]
    broadcast_object_list(names)
    return Path(names[0])


def _discard(store: ResultStore, arguments: Namespace) -> None:
    """Deletes what an earlier run left, unless this one goes on with it."""
    barrier()  # by now every process has seen that it may
    if not arguments.resume and is_main_process():
        store.remove()
    barrier()


def _is_complete(out: Path, store: ResultStore, arguments: Namespace) -> bool:
    """Returns whether the folder holds the results of this very run already."""
    if store.begun or not (out / FILE_NAME).is_file():
        return False
    results = RunResults.load(out)
    return results.dataset.limit == arguments.limit and not results.evaluation.failed


def _tell_complete(out: Path) -> int:
    if is_main_process():
        print(f'{summary_text(RunResults.load(out).evaluation)}\n\nnothing is left to do; results: {out}')
    return 0


def _tell_failed(failed: Sequence[FailedImage]) -> int:
    """Lists the images that the model failed on, and returns the exit status."""
    if not failed:
        return 0
    for image in failed:
        print(printable(f'failed: {image.image}: {image.reason}'), file=sys.stderr)
    number = f'{len(failed)} image' + ('s' if len(failed) > 1 else '')
    print(f'error: the model failed on {number}, left out of every number; --resume tries again', file=sys.stderr)
    return 1


def config_for_testing(config: Config, arguments: Namespace, attack: Attack | None, scratch: str) -> Config:
    """Returns the config of a run that only tests, with mmadv's loop and metric instead of the config's own.

    Args:
        config: of the model and its test data.
        arguments: of the command line.
        attack: None for clean predictions alone.
        scratch: folder for what the runner writes.
    """
    config = config.copy()
    config.model = model_settings(config)
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
    config.custom_hooks = [hook for hook in config.get('custom_hooks') or [] if _name(hook) not in TRAINING_HOOKS]
    config.test_cfg = {
        'type': 'AttackTestLoop',
        'attack': attack and attack.describe(),
        'radii': list(arguments.eps),
        'seed': arguments.seed,
        'limit': arguments.limit,
        'show': arguments.show,
        'space': arguments.space,
        'target': arguments.target,
    }
    metric = 'SEAMetric' if isinstance(attack, WorstCase) else 'AttackMetric'
    config.test_evaluator = {'type': metric, 'collect_device': 'gpu', 'ignore_index': scored_ignore_index(config)}
    if arguments.batch_size is not None:
        config.test_dataloader.batch_size = arguments.batch_size
    return config


def _name(hook: Any) -> str:
    """Returns the class name of a hook or its config, whose type may be a class, or a name with its scope."""
    kind = hook.get('type') if isinstance(hook, Mapping) else type(hook)
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]


def _write(
    out: Path,
    arguments: Namespace,
    argv: Sequence[str],
    text: str,
    attack: Attack | None,
    loop: AttackTestLoop,
    seconds: Mapping[str, float],
    store: ResultStore,
    trust: Mapping[str, Any] | None,
    source: Mapping[str, Any] | None,
    study: GradientStudy | None,
    universal: UniversalTraining | None,
) -> None:
    """Prints the table and writes everything into the result folder at once."""
    dataset, (metric,) = loop.dataloader.dataset, loop.evaluator.metrics
    results: dict[str, Any] = {
        'created': datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
        'command': command_text('test', without_resuming(argv), _processes(arguments)),
        'config': {'file': arguments.config, 'text': text},
        'checkpoint': {'file': arguments.checkpoint, 'sha256': file_sha256(arguments.checkpoint)},
        'attack': attack and {'name': arguments.attack, 'title': loop.title, 'parameters': attack.describe()},
        'source': source,
        'target': arguments.target,
        'radii': [{'text': radius, 'value': parse_radius(radius)} for radius in loop.attacks],
        'seed': arguments.seed,
        'batch_size': loop.dataloader.batch_size,
        'precision': arguments.precision,
        'space': arguments.space,
        'caveats': loop.caveats,
        'dataset': {
            'type': type(dataset.dataset).__name__,
            'size': loop.dataset_size,
            'limit': arguments.limit,
            'palette': [list(map(int, colour)) for colour in dataset.metainfo['palette']],
        },
        'versions': versions(),
        'hardware': hardware(),
        'seconds': {name: round(value, 3) for name, value in seconds.items()},
        'evaluation': metric.evaluation.to_json(),
        'trust': trust,
        'gradients': study and study.results,
        'pictures': [],
    }
    print(f'{summary_text(metric.evaluation)}\n')
    if trust is not None:
        print(f'{trust_text(trust)}\n')
    if study is not None:
        print(f'{gradients_text(Gradients.from_json(study.results))}\n')
    with staged(out) as stage:
        (stage / 'pictures').mkdir()
        if study is not None:
            study.draw(stage)
        results['universal'] = universal and universal.write(stage)
        for example in loop.examples:
            file = f'pictures/{example.index:05d}.png'
            draw = partial(
                draw_example,
                example,
                stage / file,
                classes=metric.evaluation.classes,
                palette=results['dataset']['palette'],
                ignore_index=metric.evaluation.ignore_index,
            )
            if not draw_file(stage / file, draw):
                continue
            kind = loop.drawn.kinds[example.index]
            results['pictures'].append({'file': file, 'index': example.index, 'image': example.name, 'kind': kind})
        images_table(metric.per_image).write_csv(stage / 'per_image.csv')
        write_breakdowns(stage, metric.evaluation)
        for extra in loop.supplements:
            extra.write(stage, metric.evaluation, metric.records)
        write_records(stage / RECORDS, store.settings, metric.records)
        RunResults.from_json(results).write(stage)
        write_report({out.resolve().name: stage}, stage / REPORT, title=f'{loop.title}: {Path(arguments.config).stem}')
    print(f'results: {out}\nreport: {out / REPORT}')


def _processes(arguments: Namespace) -> int:
    """Returns how many processes torchrun started; what a scheduler started is left to the scheduler."""
    return get_world_size() if arguments.launcher == 'pytorch' else 1
