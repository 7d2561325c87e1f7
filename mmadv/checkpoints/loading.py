"""Reads checkpoints as weights only; an error says in one sentence what is wrong with the checkpoint."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmadv.checkpoints.safe_globals import InertHistory, safe_globals
from mmadv.errors import UserError
from mmadv.fields import checked
from mmadv.files import check_regular
from mmadv.printing import shown

# The message of torch's weights-only unpickler has one of these if a file needs more than data.
_CODE = re.compile(
    r'GLOBAL (?P<name>\S+)|(TorchScript) archives|call reduce for|Can only (?:build|create)|(getattr) of', re.DOTALL
)

# The type of torch.load's argument.
MapLocation = str | torch.device | Callable | Mapping | None

# A load that takes only matching weights needs at least this share of a model's weights, by key and size.
LEAST_SHARE = 0.5


@checked
def load_checkpoint_file(path: str | Path, map_location: MapLocation = 'cpu', *, mmap: bool = False) -> dict[str, Any]:
    """Returns the content of a checkpoint, and runs no code of the file.

    Args:
        path: a file written by ``torch.save`` or mmengine.
        map_location: as in ``torch.load``.
        mmap: leave the tensors in the file until they are used. This checks only that the end of the file is there.

    Raises:
        UserError: the file is missing, is cut short, is not a checkpoint, or holds code.
    """
    if isinstance(map_location, str):
        try:
            torch.device(map_location)
        except RuntimeError as error:
            raise UserError(f'load_checkpoint_file.map_location: {str(error).splitlines()[0]}') from None
    return _read(path, map_location, InertHistory, mmap)


@checked
def file_sha256(path: str | Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    _check_exists(path)
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@checked
def load_weights(model: nn.Module, path: str | Path) -> dict[str, Any]:
    """Loads all weights of a checkpoint into a model, and returns the checkpoint.

    Args:
        model: the model that gets the weights; if it is a distributed wrapper, the module inside gets them.
        path: a checkpoint that has the weights under 'state_dict', or holds weights alone.

    Raises:
        UserError: as in ``load_checkpoint_file``, or if weights are missing, unexpected or of another size; the
            sentence names the first of each.
    """
    checkpoint = load_checkpoint_file(path)
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        model = model.module
    weights = _weights(checkpoint, path)
    own = model.state_dict()
    _check_values(weights, own, path)
    resized = [key for key, value in weights.items() if key in own and own[key].shape != value.shape]
    problems = []
    if resized:
        key = resized[0]
        problems.append(
            f'{len(resized)} of another size, first {key}: {tuple(weights[key].shape)} in the file, '
            f'{tuple(own[key].shape)} in the model'
        )
        missing = [key for key in own if key not in weights]
        unexpected = [key for key in weights if key not in own]
    else:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    # Batch norms of old files lack this counter. It matters only if momentum is None.
    missing = [key for key in missing if not key.endswith('num_batches_tracked')]
    for keys, what in ((missing, 'missing'), (unexpected, 'not in the model')):
        if keys:
            problems.append(f'{len(keys)} {what}, first {keys[0]}')
    if problems:
        raise UserError(
            f'the weights in {path} do not fit {type(model).__name__}: {"; ".join(problems)}; '
            'use the config that the checkpoint was trained with'
        )
    return checkpoint


def matched_weights(model: nn.Module, checkpoint: dict[str, Any], path: str | Path, *, prefix: str = '') -> str:
    """Returns a sentence on how many of a model's weights a checkpoint holds, for a load of only matching weights.

    A weight matches if its key and its size are equal. Counters of batch norms do not count.

    Args:
        model: the model that starts from the checkpoint.
        checkpoint: the content of the checkpoint.
        path: the path of the checkpoint, for messages.
        prefix: the prefix of the model's keys in the checkpoint, such as 'backbone'.

    Raises:
        UserError: fewer than ``LEAST_SHARE`` of the weights match, so the model would start from random weights.
    """
    stored = _weights(checkpoint, path)
    if prefix:
        prefix = prefix.removesuffix('.') + '.'
        stored = {key.removeprefix(prefix): value for key, value in stored.items() if key.startswith(prefix)}
    own = {key: value for key, value in model.state_dict().items() if not key.endswith('num_batches_tracked')}
    resized = [key for key in own if key in stored and stored[key].shape != own[key].shape]
    missing = [key for key in own if key not in stored]
    matched = len(own) - len(resized) - len(missing)
    counts = [f'{matched} of {len(own)} weights of {type(model).__name__} are in {path}']
    if missing:
        counts.append(f'{len(missing)} missing, first {missing[0]}')
    if resized:
        counts.append(f'{len(resized)} of another size, first {resized[0]}')
    sentence = '; '.join(counts)
    if matched < LEAST_SHARE * len(own):
        example = next(iter(stored), None)
        example_key = f'; a key of the file is {example}' if example else ''
        raise UserError(
            f'{sentence}{example_key}; fewer than {LEAST_SHARE:.0%} fit, so the training would start from random '
            'weights: check the file, the prefix of its keys and the architecture'
        )
    return sentence


def use_safe_loading() -> None:
    """Makes mmengine load every checkpoint as weights only, for the rest of the process.

    This covers ``load_from``, ``resume`` and ``Pretrained``, from files and URLs alike. Files that mmengine itself
    writes still load and resume. Loading drops the configs stored in a checkpoint, because resuming would evaluate them
    as Python.

    Raises:
        UserError: the environment demands unsafe loading.
    """
    if os.environ.get('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '0').lower() in ('1', 'y', 'yes', 'true'):
        raise UserError('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set, which makes checkpoints run code; unset it')
    # Imported only here: the rest of this module works without mmengine.
    import mmengine.runner.checkpoint as mmengine_checkpoint
    from mmengine.logging.history_buffer import HistoryBuffer

    os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = '1'
    allowed = safe_globals(HistoryBuffer)
    mmengine_checkpoint.get_torch_safe_globals = lambda: allowed
    loader = mmengine_checkpoint.CheckpointLoader
    for scheme, load in list(loader._schemes.items()):
        if getattr(load, 'is_safe', False):
            continue
        loader.register_scheme(scheme, _local(load) if scheme == '' else _guarded(load, allowed), force=True)


def _local(load: Callable) -> Callable:
    from mmengine.logging.history_buffer import HistoryBuffer

    @functools.wraps(load)
    def load_safely(filename: str, map_location: Any = None) -> dict[str, Any]:
        return _without_configs(_read(os.path.expanduser(filename), map_location, HistoryBuffer))

    vars(load_safely)['is_safe'] = True
    return load_safely


def _guarded(load: Callable, allowed: list[Any]) -> Callable:
    @functools.wraps(load)
    def load_safely(filename: str, map_location: Any = None) -> dict[str, Any]:
        try:
            with torch.serialization.safe_globals(allowed):
                return _without_configs(load(filename, map_location=map_location))
        except (pickle.UnpicklingError, RuntimeError) as error:
            raise _sentence(filename, error) from error

    vars(load_safely)['is_safe'] = True
    return load_safely


def _without_configs(checkpoint: Any) -> Any:
    """Drops the Python configs in a checkpoint, which mmengine evaluates when it resumes or infers."""
    if isinstance(checkpoint, Mapping):
        hub = checkpoint.get('message_hub')
        holders = [checkpoint.get('meta'), hub.get('runtime_info') if isinstance(hub, Mapping) else None]
        for holder in holders:
            if isinstance(holder, dict):
                for key in ('config', 'cfg'):
                    holder.pop(key, None)
    return checkpoint


def _read(path: str | Path, map_location: Any, history: type, mmap: bool = False) -> dict[str, Any]:
    _check_exists(path)
    try:
        with torch.serialization.safe_globals(safe_globals(history)):
            checkpoint = torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except OSError as error:
        if error.errno == errno.EINVAL:  # the end of a file that was cut short points before its beginning
            raise _sentence(path, error) from error
        raise UserError(f'cannot read the checkpoint {path}: {error.strerror or error}') from error
    except Exception as error:  # a damaged file can make the unpickler fail in any way
        raise _sentence(path, error) from error
    if not isinstance(checkpoint, dict):
        raise UserError(f'the checkpoint {path} holds a {type(checkpoint).__name__}, not a dict of weights')
    _check_keys(checkpoint, path)
    return checkpoint


def _check_keys(checkpoint: Mapping[Any, Any], path: str | Path) -> None:
    """Raises UserError for a key with control characters; a loader that lists keys would send them to the terminal."""
    for holder in (checkpoint, *checkpoint.values()):
        for key in holder if isinstance(holder, Mapping) else ():
            if isinstance(key, str) and not key.isprintable():
                raise UserError(
                    f'the checkpoint {path} holds a key with control characters ({shown(key)}); no model has such '
                    'weights, so it is not loaded'
                )


def _check_exists(path: str | Path) -> None:
    if not os.path.exists(path):
        raise UserError(f'the checkpoint {path} does not exist')
    if os.path.isdir(path):
        raise UserError(f'the checkpoint {path} is a folder; give the file in it')
    check_regular(path, 'the checkpoint')


def _sentence(path: str | Path, error: Exception) -> UserError:
    match = _CODE.search(str(error))
    if match is None:
        return UserError(f'{path} is not a checkpoint, or was cut short; copy or download it again')
    name = next((name for name in match.groups() if name), 'an object')
    return UserError(
        f'the checkpoint {path} holds code ({name}) instead of weights alone; it was not run, and will not be loaded'
    )


def _check_values(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], path: str | Path) -> None:
    """Raises UserError for weights that torch would load although the result is not the trained network."""
    for key, value in weights.items():
        if key in own and own[key].is_floating_point() and not value.is_floating_point():
            kind = str(value.dtype).removeprefix('torch.')
            raise UserError(
                f'the checkpoint {path} holds {key} as {kind}, but the model has floating-point weights; was it '
                'quantised? Save it in floating point'
            )
        statistic = key.rpartition('.')[2]
        if statistic in ('running_mean', 'running_var') and not value.isfinite().all():
            raise UserError(
                f'the checkpoint {path} holds NaN or infinite values in {key}, which silences the channels behind it; '
                'was the training stable? Use another checkpoint'
            )
        if statistic == 'running_var' and bool((value < 0).any()):
            raise UserError(f'the checkpoint {path} holds a negative variance in {key}; use another checkpoint')


def _weights(checkpoint: dict[str, Any], path: str | Path) -> dict[str, Tensor]:
    """Returns the weights in a checkpoint, without the key prefix of distributed wrappers."""
    stored = checkpoint.get('state_dict', checkpoint)
    if not isinstance(stored, Mapping) or not stored or not all(isinstance(value, Tensor) for value in stored.values()):
        raise UserError(f"the checkpoint {path} holds no weights; it needs a 'state_dict' of tensors")
    kind: Any = type(stored)
    weights = kind((key.removeprefix('module.'), value) for key, value in stored.items())
    if hasattr(stored, '_metadata'):
        weights._metadata = stored._metadata
    return weights
