"""``mmadv test``: attack a checkpoint and write the results."""

from __future__ import annotations

import datetime
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import barrier, broadcast_object_list, get_world_size, is_main_process
from mmengine.runner import Runner

from mmadv.attacks import WorstCase, parse_radius
from mmadv.checkpoints.loading import load_checkpoint_file, load_weights
from mmadv.commands.command_line import (
    command_text,
    join_processes_on_cpu,
    load_config,
    naming,
    require,
    set_local_rank,
)
from mmadv.commands.option_names import errors_name_options
from mmadv.commands.provenance import decisive_versions, hardware, versions
from mmadv.commands.resuming import UNFINISHED, exclusive_run, load_run, resume_hint, without_resuming
from mmadv.commands.testing_options import check_combinations, default_out, parser, spec_of_arguments
from mmadv.commands.weights import weights_of
from mmadv.engine.attack_regions import parse_attack_region
from mmadv.engine.attack_targets import parse_attack_target
from mmadv.engine.attack_test_loop import AttackTestLoop
from mmadv.engine.data import build_dataset, first_line
from mmadv.engine.scoring import evaluator_notes, loop_notes, scored_ignore_index
from mmadv.engine.spec import EvaluationSpec, all_measurements, build_measurement, config_parts
from mmadv.errors import UserError
from mmadv.evaluation.result_store import ResultStore, write_records
from mmadv.locks import temporary_folder
from mmadv.models.adapter import unwrap
from mmadv.models.building import model_settings
from mmadv.printing import printable
from mmadv.report.breakdown import images_table
from mmadv.report.drawing import draw_file
from mmadv.report.evaluation import FailedImage, NamedRadius
from mmadv.report.html import write_report
from mmadv.report.measurement import MEASUREMENTS
from mmadv.report.output_folder import staged
from mmadv.report.pictures import draw_example
from mmadv.report.run import (
    FILE_NAME,
    AttackSettings,
    ConfigText,
    DatasetFacts,
    Picture,
    RunResults,
)
from mmadv.report.summary import run_text
from mmadv.report.table import classes_table

# Inside the output folder: results per image of a complete run.
RECORDS = 'records.jsonl'
# Inside the output folder: the report as a web page.
REPORT = 'report.html'
# Prefix of the temporary folder that the runner writes to.
SCRATCH_PREFIX = 'mmadv-scratch-'
# Hooks for training only. Checkpoints of EMAHook hold the averaged weights as the model's weights; in a test the hook
# would swap them out. EarlyStoppingHook needs a train loop before a test begins.
TRAINING_HOOKS = ('EMAHook', 'EarlyStoppingHook')
# Text of a config -> the same text, laid out.
_LAID_OUT: dict[str, str] = {}


def run_test(argv: Sequence[str]) -> int:
    """Attacks a checkpoint as the arguments say, prints the table and writes the results; returns the exit status.

    The status is 0, or 1 if the model failed on some images, which are listed.

    Raises:
        UserError: there is a mistake in the arguments, config, checkpoint or data. The results of images that were done
            before it are kept. If no image was done, nothing is written.
        KeyboardInterrupt: the user interrupted the run; the message says how to resume it.
    """
    arguments = parser().parse_args(argv)
    check_combinations(arguments)
    with errors_name_options(arguments):
        return run_evaluation('test', arguments, argv, spec_of_arguments(arguments))


def run_evaluation(command: str, arguments: Namespace, argv: Sequence[str], spec: EvaluationSpec) -> int:
    """Evaluates a checkpoint, prints the table and writes the results; returns the exit status, as ``run_test`` does.

    Args:
        command: sub-command, such as 'test'.
        arguments: parsed arguments: config, checkpoint, limit, batch_size, show, out, resume, restart, and the common
            ones.
        argv: the command line itself.
        spec: the evaluation, without the parts that files hold.
    """
    set_local_rank(arguments)
    out = Path(arguments.out) if arguments.out else default_out(arguments, command)
    config = load_run(arguments, out)
    spec = with_files(spec, arguments, config)
    start = time.perf_counter()
    with ExitStack() as stack:
        scratch = stack.enter_context(temporary_folder(tempfile.gettempdir(), SCRATCH_PREFIX))
        testing = config_for_testing(config, arguments, spec, str(scratch))
        join_processes_on_cpu(testing)
        runner = Runner.from_cfg(testing)
        name_failing_hooks(runner)
        if arguments.checkpoint is not None:
            load_weights(unwrap(runner.model), arguments.checkpoint)
        if spec.precision == 'float64':
            runner.model.double()
        loop, out = runner.test_loop, _agreed(out)
        stack.enter_context(exclusive_run(arguments, out))
        settings = {**loop.settings(), 'versions': decisive_versions()}
        store = ResultStore(out / UNFINISHED, settings, out / RECORDS if arguments.resume else None)
        _discard(store, arguments)
        loop.resume_from(store)
        if arguments.resume and not loop.missing and _is_complete(out, store, arguments, loop.removed):
            return _print_complete(out)
        with resume_hint(store, out, command, argv):
            runner.test()
            if not is_main_process():
                return 0
            seconds = {'total': time.perf_counter() - start, **loop.seconds}
            again = command_text(command, without_resuming(argv), _processes(arguments))
            results = results_of(loop, arguments, again, layout(config), seconds)
            print(f'{run_text(results)}\n')
            _write(out, results, loop)
        store.remove()
    return _print_failed(results.evaluation.failed)


def with_files(spec: EvaluationSpec, arguments: Namespace, config: Config) -> EvaluationSpec:
    """Returns the evaluation completed from files: the config of the model and its data, and checksums of weights.

    The measurements of the options come first. Those of the config's ``test_cfg`` follow.

    Raises:
        UserError: a file cannot be read, or an evaluation cannot do what the config asks for.
    """
    source = spec.source
    if source is not None:
        with naming('--source'):
            source_config = load_config(source.config, what='source config')
            require(source_config, source.config, ['model'])
            if source.checkpoint is not None:
                load_checkpoint_file(source.checkpoint)
            source = replace(source, sha256=weights_of(source.config, source.checkpoint, source_config).sha256)
    if spec.target:
        parse_attack_target(
            spec.target, build_dataset(config.test_dataloader.dataset, 'test_dataloader.dataset').metainfo['classes']
        )
    if spec.region:
        parse_attack_region(
            spec.region, build_dataset(config.test_dataloader.dataset, 'test_dataloader.dataset').metainfo['classes']
        )
    notes = [*evaluator_notes(config.get('test_evaluator')), *loop_notes(config.get('test_cfg'))]
    named = [build_measurement(one) for one in (config.get('test_cfg') or {}).get('measurements') or []]
    return replace(
        spec,
        measurements=all_measurements(spec.attack, [*named, *spec.measurements]),
        source=source,
        checkpoint=weights_of(arguments.config, arguments.checkpoint, config),
        notes=tuple(notes),
        **config_parts(config),
    )


def name_failing_hooks(runner: Runner) -> None:
    """Makes hooks raise a UserError with their name if they cannot begin a test because they need a train loop."""
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


def _agreed(out: Path) -> Path:
    """Returns the main process's output folder in every process; the name of the default folder holds the time."""
    names = [str(out)]
    broadcast_object_list(names)
    return Path(names[0])


def _discard(store: ResultStore, arguments: Namespace) -> None:
    """Deletes the files of an earlier run, unless this run resumes it."""
    barrier()  # at this point every process has seen that it may go on
    if not arguments.resume and is_main_process():
        store.remove()
    barrier()


def _is_complete(out: Path, store: ResultStore, arguments: Namespace, removed: Sequence[str]) -> bool:
    """Returns whether the folder already holds the complete results of this run, without any ``removed`` image."""
    if store.has_results or removed or not (out / FILE_NAME).is_file():
        return False
    results = RunResults.load(out)
    return results.dataset.limit == arguments.limit and not results.evaluation.failed


def _print_complete(out: Path) -> int:
    if is_main_process():
        print(f'{run_text(RunResults.load(out))}\n\nnothing is left to do; results: {out}')
    return 0


def _print_failed(failed: Sequence[FailedImage]) -> int:
    """Lists the images that the model failed on, and returns the exit status."""
    if not failed:
        return 0
    for image in failed:
        print(printable(f'failed: {image.image}: {image.reason}'), file=sys.stderr)
    number = f'{len(failed)} image' + ('s' if len(failed) > 1 else '')
    print(f'error: the model failed on {number}, left out of every number; --resume tries again', file=sys.stderr)
    return 1


def config_for_testing(config: Config, arguments: Namespace, spec: EvaluationSpec, scratch: str) -> Config:
    """Returns the config of a run that only tests, with mmadv's loop and metric instead of the config's own.

    Args:
        config: config of the model and its test data.
        arguments: arguments of the command line.
        spec: the evaluation.
        scratch: folder for the files that the runner writes.
    """
    config = without_layout(config)
    config.model = model_settings(config)
    config.launcher = arguments.launcher
    config.work_dir = scratch
    config.log_level = 'WARNING'
    config.randomness = {'seed': spec.seed}
    config.load_from, config.resume = None, False
    for key in ('dataloader', 'cfg', 'evaluator'):
        config[f'train_{key}'] = config[f'val_{key}'] = None
    config.optim_wrapper = config.param_scheduler = None
    config.visualizer = {'type': 'mmengine.Visualizer', 'name': 'mmadv', 'vis_backends': []}
    hooks = config.get('default_hooks') or {}
    config.default_hooks = {name: hook for name, hook in hooks.items() if name != 'visualization'}
    config.custom_hooks = [hook for hook in config.get('custom_hooks') or [] if _name(hook) not in TRAINING_HOOKS]
    config.test_cfg = {'type': 'AttackTestLoop', 'spec': spec, 'show': arguments.show}
    metric = 'EnsembleMetric' if isinstance(spec.attack, WorstCase) else 'AttackMetric'
    config.test_evaluator = {'type': metric, 'collect_device': 'gpu', 'ignore_index': scored_ignore_index(config)}
    if arguments.batch_size is not None:
        config.test_dataloader.batch_size = arguments.batch_size
    return config


def without_layout(config: Config) -> Config:
    """Returns a copy of a config whose text mmengine does not lay out, which takes it seconds, three times in a run."""
    copy = config.copy()
    object.__setattr__(copy, '_format_python_code', False)
    return copy


def layout(config: Config) -> str:
    """Returns the text of a config, laid out for readers; equal configs are laid out once in a process."""
    text = without_layout(config).pretty_text
    if text not in _LAID_OUT:
        _LAID_OUT[text] = config.pretty_text
    return _LAID_OUT[text]


def _name(hook: Any) -> str:
    """Returns the class name of a hook or of its config; the type can be a class or a name with a scope."""
    kind = hook.get('type') if isinstance(hook, Mapping) else type(hook)
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]


def results_of(
    loop: AttackTestLoop, arguments: Namespace, command: str, text: str, seconds: Mapping[str, float]
) -> RunResults:
    """Returns the results of a run, without pictures.

    Args:
        loop: the test loop after its run.
        arguments: arguments of the command line.
        command: command line that repeats the run.
        text: text of the whole config.
        seconds: part of the run -> its duration.
    """
    assert loop.outcome is not None
    spec, dataset = loop.spec, loop.selection.dataset
    assert spec.checkpoint is not None
    absent = {one.name: None for one in MEASUREMENTS.values() if one.of_run}
    return RunResults(
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
        command=command,
        config=ConfigText(arguments.config, text),
        checkpoint=spec.checkpoint,
        attack=attack_settings(spec, arguments.attack) if spec.attack is not None else None,
        source=spec.source,
        target=spec.target,
        region=spec.region_text,
        score=spec.score if spec.region_text else None,
        radii=tuple(NamedRadius(radius, parse_radius(radius)) for radius in spec.attacks),
        seed=spec.seed,
        batch_size=loop.dataloader.batch_size,
        precision=spec.precision,
        space=spec.space,
        sweep=spec.sweep,
        caveats=tuple(loop.caveats),
        dataset=DatasetFacts(
            type=type(dataset).__name__,
            size=len(dataset),
            limit=spec.limit,
            palette=tuple((int(red), int(green), int(blue)) for red, green, blue in dataset.metainfo['palette']),
        ),
        versions=versions(),
        hardware=hardware(),
        seconds={name: round(value, 3) for name, value in seconds.items()},
        evaluation=loop.outcome.evaluation,
        pictures=(),
        measurements={**absent, **loop.summaries},
    )


def attack_settings(spec: EvaluationSpec, name: str) -> AttackSettings:
    """Returns the description of the attack of an evaluation; ``name`` is its name on the command line."""
    assert spec.attack is not None
    candidate = spec.attack.keeps_strongest and spec.source is None
    return AttackSettings(name, spec.title, spec.attack.describe(), candidate)


def _write(out: Path, results: RunResults, loop: AttackTestLoop) -> None:
    """Writes everything into the result folder at once."""
    outcome, evaluation = loop.outcome, results.evaluation
    assert outcome is not None and loop.store is not None
    with staged(out) as stage:
        (stage / 'pictures').mkdir()
        pictures = []
        for example in loop.examples:
            file = f'pictures/{example.index:05d}.png'
            draw = partial(
                draw_example,
                example,
                stage / file,
                classes=evaluation.classes,
                palette=results.dataset.palette,
                ignore_index=evaluation.ignore_index,
            )
            if not draw_file(stage / file, draw):
                continue
            pictures.append(Picture(file, example.name, example.index, loop.collector.kinds[example.index]))
        results = replace(results, pictures=tuple(pictures))
        images_table(outcome.images).write_csv(stage / 'per_image.csv')
        classes_table(evaluation, fractions=True).write_csv(stage / 'per_class.csv')
        for measurement in loop.spec.measurements:
            summary = measurement.write(loop.context, stage, outcome, results.summary(type(measurement)))
            results = results.with_summary(measurement, summary)
        write_records(stage / RECORDS, loop.store.settings, (record.to_json() for record in outcome.records))
        results.write(stage)
        title = f'{loop.spec.title}: {Path(results.config.file).stem}'
        write_report({out.resolve().name: stage}, stage / REPORT, title=title)
    print(f'results: {out}\nreport: {out / REPORT}')


def _processes(arguments: Namespace) -> int:
    """Returns the number of processes that torchrun started; 1 if a scheduler started them."""
    return get_world_size() if arguments.launcher == 'pytorch' else 1
