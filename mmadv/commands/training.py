"""``mmadv train``: train a segmentor, and report mistakes before anything is written."""

from __future__ import annotations

import errno
import os
from argparse import Namespace
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import nullcontext
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader, Runner
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.registry import HOOKS, RUNNERS
from torch import nn

from mmadv.checkpoints.loading import load_checkpoint_file, load_weights, matched_weights, use_safe_loading
from mmadv.checkpoints.resuming import newest_checkpoint
from mmadv.commands.command_line import (
    Parser,
    join_processes_on_cpu,
    launched_rank,
    load_config,
    naming,
    require,
    set_local_rank,
    work_dir,
)
from mmadv.engine.atomic_checkpoint_hook import checkpoint_folder
from mmadv.engine.attack_val_loop import check_validation_attack
from mmadv.engine.data import build_dataset, first_line
from mmadv.engine.free_train_loop import check_perturbs_replayed_batches, check_replays
from mmadv.errors import UserError
from mmadv.models.adv_data_preprocessor import check_trainable
from mmadv.models.batches import check_channels, sample_names
from mmadv.models.building import build_segmentor, model_settings
from mmadv.models.free_adv_data_preprocessor import NOT_REPLAYED, FreeAdvSegDataPreProcessor
from mmadv.report.output_folder import check_writable, locked

# Types of hooks that AtomicCheckpointHook replaces.
STOCK_HOOKS = ('CheckpointHook', 'mmengine.CheckpointHook', CheckpointHook)


def parser() -> Parser:
    """Returns the parser of ``mmadv train``."""
    result = Parser(
        prog='mmadv train',
        description='Train a segmentor, adversarially if its config says so.',
        example='mmadv train pir_at/upernet_convnext_t_voc.py --work-dir work_dirs/pir_at',
    )
    result.add_argument('config', help='config from mmadv or mmseg')
    result.add_argument('--work-dir', metavar='DIR', help='folder of logs and checkpoints (default: work_dirs/CONFIG)')
    result.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='auto|CKPT',
        help='resume from a checkpoint, by default the latest in the work folder',
    )
    result.add_argument('--amp', action='store_true', help='train in mixed precision')
    result.add_launcher()
    result.add_cfg_options()
    return result


def run_train(argv: Sequence[str]) -> None:
    """Trains as the arguments say.

    Raises:
        UserError: there is a mistake in the arguments, config, checkpoints or data.
    """
    arguments = parser().parse_args(argv)
    set_local_rank(arguments)
    config = load_config(arguments.config, arguments.cfg_options)
    require(config, arguments.config, ['model', 'train_dataloader', 'train_cfg', 'optim_wrapper'])
    _check_length(config.train_cfg)
    config.launcher = arguments.launcher
    config.model = model_settings(config)
    join_processes_on_cpu(config)
    config.work_dir = work_dir(config, arguments.config, arguments.work_dir)
    check_writable(config.work_dir, '--work-dir')
    # The first process of a run locks the folder; the others share it.
    alone = locked(config.work_dir, '--work-dir') if launched_rank(arguments) == 0 else nullcontext()
    with alone:
        _train(config, arguments)


def _train(config: Config, arguments: Namespace) -> None:
    """Trains by a config with the arguments merged in, in a work folder that no other run writes to."""
    if arguments.amp:
        _use_amp(config)
    _check_precision(config, arguments)
    use_safe_loading()
    _use_safe_hooks(config)
    checkpoint = _choose_start(config, arguments)
    model = _check_parts(config)
    if checkpoint is not None:
        # mmengine resumes with strict=False: a part of the model whose weights do not fit would stay random.
        load_weights(model, checkpoint)
    else:
        _print_matched(config, model)
    del model
    runner = RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)
    _name_unreadable_files(runner)
    _name_images_of_other_channels(runner)
    try:
        runner.train()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f'the disk is full ({error.strerror}: {error.filename or config.work_dir}); the checkpoints are as they '
            'were: make room, and go on with --resume'
        ) from error


def _check_length(train_cfg: Mapping[str, Any]) -> None:
    """Raises UserError for a training without iterations, or for counts that are not positive integers."""
    for key in ('max_iters', 'max_epochs', 'val_interval'):
        value = train_cfg.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f'train_cfg.{key} must be a positive integer; found {value!r}')


def _check_precision(config: Config, arguments: Namespace) -> None:
    """Raises UserError for mixed precision without an accelerator, because mmengine's wrapper refuses it."""
    if str(config.optim_wrapper.get('type')).endswith('AmpOptimWrapper') and get_device() == 'cpu':
        which = '--amp' if arguments.amp else "optim_wrapper.type='AmpOptimWrapper'"
        raise UserError(f'{which} trains in mixed precision, which needs a GPU; leave it out on this machine')


def _use_amp(config: Config) -> None:
    kind = config.optim_wrapper.get('type', 'OptimWrapper')
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UserError(f'--amp needs optim_wrapper.type OptimWrapper; found {kind}; leave --amp out')
    config.optim_wrapper.type = 'AmpOptimWrapper'
    config.optim_wrapper.setdefault('loss_scale', 'dynamic')


def _use_safe_hooks(config: Config) -> None:
    """Adds hooks so that checkpoints survive a kill and a resumed run repeats the random draws, unless already set."""
    if config.get('default_hooks') is None:
        config.default_hooks = {}
    hooks = config.default_hooks
    hooks.setdefault('checkpoint', {'type': 'CheckpointHook'})
    hooks.setdefault('iteration_seed', {'type': 'IterationSeedHook'})
    for hook in [*hooks.values(), *(config.get('custom_hooks') or [])]:
        if isinstance(hook, MutableMapping) and hook.get('type') in STOCK_HOOKS:
            hook['type'] = 'AtomicCheckpointHook'


def _choose_start(config: Config, arguments: Namespace) -> str | None:
    """Sets the checkpoint that the run loads, and returns the checkpoint that it resumes from.

    If there is nothing to resume from, the run starts as it does without ``--resume``.
    """
    start = config.get('load_from')
    if arguments.resume is not None:
        config.resume = True
        config.load_from = None if arguments.resume == 'auto' else arguments.resume
    if config.get('resume') and not config.load_from:
        hook = config.default_hooks.get('checkpoint') or {}
        folder = checkpoint_folder(config.work_dir, hook.get('out_dir'))
        newest, why = newest_checkpoint(config.work_dir, folder)
        if is_main_process():
            print(f'{why}, from the weights of load_from={start}' if newest is None and start else why)
        if newest or not start:
            config.load_from = newest
            return newest
        config.resume, config.load_from = False, start
    if not config.get('load_from') or '://' in config.load_from:
        return None
    with naming('' if arguments.resume in (None, 'auto') else '--resume'):
        load_checkpoint_file(config.load_from)
    return config.load_from if config.get('resume') else None


def _check_parts(config: Config) -> nn.Module:
    """Builds datasets and model, so that errors appear before the work folder is made; returns the model."""
    for key in ('train_dataloader', 'val_dataloader'):
        if config.get(key) is not None:
            if config[key].get('dataset') is None:
                raise UserError(f"config key {key} has no 'dataset'; give one, or inherit a base that does")
            build_dataset(config[key].dataset, f'{key}.dataset')
    for checkpoint in pretrained(config.model):
        if '://' not in checkpoint and not os.path.isfile(checkpoint):
            raise UserError(f'checkpoint {checkpoint}, which the model starts from, does not exist; download it first')
    built = build_segmentor(config)
    check_trainable(built)
    _check_methods(config, built)
    return built


def _print_matched(config: Config, model: nn.Module) -> None:
    """Prints how many weights of the model its start checkpoints hold, since they are loaded with strict=False.

    Raises:
        UserError: a checkpoint holds too few weights of the model.
    """
    starts = [(model, config.load_from, '')] if config.get('load_from') and not config.get('resume') else []
    for part in model.modules():
        # A backbone with its own loading code may rename the keys.
        if not isinstance(part, BaseModule) or type(part).init_weights is not BaseModule.init_weights:
            continue
        settings = part.init_cfg if isinstance(part.init_cfg, (list, tuple)) else [part.init_cfg]
        for start in settings:
            if isinstance(start, Mapping) and start.get('type') == 'Pretrained':
                path = start.get('checkpoint')
                if isinstance(path, str) and '://' not in path:
                    starts.append((part, path, start.get('prefix') or ''))
    for part, path, prefix in starts:
        sentence = matched_weights(part, _content(path), path, prefix=prefix)
        if is_main_process():
            print(sentence)


def _content(path: str) -> dict[str, Any]:
    """Returns the content of a checkpoint; an address is downloaded first, to the place where mmengine finds it."""
    if '://' not in path:
        return load_checkpoint_file(path)
    try:
        return CheckpointLoader.load_checkpoint(path, map_location='cpu')
    except OSError as error:
        raise UserError(f'load_from {path} cannot be downloaded ({first_line(error)}); check the address') from error


def _check_methods(config: Config, model: nn.Module) -> None:
    """Builds the settings of mmadv's loops and hooks, so that their mistakes also appear before training."""
    if config.train_cfg.get('type') == 'FreeTrainLoop':
        check_replays(config.train_cfg.get('replays', 1))
        check_perturbs_replayed_batches(model.data_preprocessor)
    elif isinstance(model.data_preprocessor, FreeAdvSegDataPreProcessor):
        raise UserError(NOT_REPLAYED)
    if (config.get('val_cfg') or {}).get('type') == 'AttackValLoop':
        check_validation_attack(config.val_cfg.get('attack'))
    for hook in config.get('custom_hooks') or []:
        if hook.get('type') == 'CatastrophicOverfittingHook':
            HOOKS.build(hook)


def pretrained(model: Any) -> Iterator[str]:
    """Yields the checkpoints that ``init_cfg`` entries of a model config start from."""
    if isinstance(model, Mapping):
        if model.get('type') == 'Pretrained' and isinstance(model.get('checkpoint'), str):
            yield model['checkpoint']
        for value in model.values():
            yield from pretrained(value)
    elif isinstance(model, (list, tuple)):
        for value in model:
            yield from pretrained(value)


def _name_unreadable_files(runner: Runner) -> None:
    """Makes errors of the training and validation data name the file that cannot be read."""
    build_dataset(runner.train_loop.dataloader.dataset, 'train_dataloader.dataset')
    if runner.val_loop is not None:
        build_dataset(runner.val_loop.dataloader.dataset, 'val_dataloader.dataset')


def _name_images_of_other_channels(runner: Runner) -> None:
    """Makes mmseg's data preprocessor name an image if it has a wrong number of channels."""
    preprocessor = getattr(runner.model, 'module', runner.model).data_preprocessor
    if isinstance(preprocessor, SegDataPreProcessor):
        preprocessor.register_forward_pre_hook(_check_batch)


def _check_batch(preprocessor: SegDataPreProcessor, arguments: tuple) -> None:
    batch = arguments[0]
    check_channels(batch['inputs'], sample_names(batch['data_samples']), preprocessor)
