"""Trains as ``mmadv train`` does, and records the cost and the perturbation of every step."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch import Tensor, nn

from mmadv.checkpoints.loading import file_sha256
from mmadv.commands.provenance import hardware, versions
from mmadv.commands.training import run_train
from mmadv.models.adapter import unwrap

SECONDS, LENGTH = 'train/step/seconds', 'train/step/length'
# Rounding of the normalisation moves pixels less than this, an attack moves them more.
ROUNDING = 1e-5
# Option of ``mmadv train`` that adds the hook.
OPTION = 'default_hooks.record.type=StepRecordHook'


@HOOKS.register_module()
class StepRecordHook(Hook):
    """Logs the processor time of each training step, and how far its attack moved the images.

    ``step/seconds`` leaves out the loading of data. ``step/length`` is the Linf distance in [0, 1] between the images
    that were loaded and those that were trained on, mean over the images that moved; a step that moves none has no
    entry. Both are in checkpoints, so a resumed run has the numbers of all steps.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Starts to record the output of the data preprocessor for each batch."""
        self.length: float | None = None
        unwrap(runner.model).data_preprocessor.register_forward_hook(self._measure)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Starts the clock."""
        self.length = None
        self.begin = time.process_time()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Logs both numbers."""
        runner.message_hub.update_scalar(SECONDS, time.process_time() - self.begin)
        if self.length is not None:
            runner.message_hub.update_scalar(LENGTH, self.length)
            runner.message_hub.update_info(LENGTH, [*self._steps(runner), runner.iter])

    def after_train(self, runner: Runner) -> None:
        """Writes ``steps.json`` into the work folder: the seconds of all steps, and the lengths with their steps."""
        scalars = runner.message_hub.log_scalars
        steps = self._steps(runner)
        lengths = scalars[LENGTH].data[0].tolist() if steps else []
        content = {
            'seconds': scalars[SECONDS].data[0].tolist(),
            'lengths': [list(pair) for pair in zip(steps, lengths, strict=True)],
        }
        (Path(runner.work_dir) / 'steps.json').write_text(json.dumps(content) + '\n', encoding='utf-8')

    @staticmethod
    def _steps(runner: Runner) -> list[int]:
        return runner.message_hub.runtime_info.get(LENGTH, [])

    def _measure(self, module: nn.Module, arguments: tuple, output: Mapping[str, Any]) -> None:
        data, training = arguments
        if training:
            lengths = moved(module, torch.stack(list(data['inputs'])), output['inputs'])
            lengths = lengths[lengths > ROUNDING]
            self.length = lengths.mean().item() if len(lengths) else None


def moved(preprocessor: nn.Module, images: Tensor, inputs: Tensor) -> Tensor:
    """Returns the Linf distance in [0, 1] of each image to what the preprocessor made of it, its normalisation undone.

    Args:
        preprocessor: of mmseg, which pads nothing.
        images: (N, 3, H, W) in [0, 255], as they were loaded.
        inputs: (N, 3, H, W), as the network gets them; of pairs, (2N, 3, H, W), the last N count, the adversarial ones.
    """
    restored = inputs[-len(images) :].detach() * preprocessor.std + preprocessor.mean
    if preprocessor._channel_conversion:
        restored = restored.flip(1)
    return (restored - images.to(restored.device)).abs().flatten(1).amax(1) / 255


def train_recorded(arguments: Sequence[str]) -> None:
    """Trains as ``mmadv train`` does, from the newest checkpoint if there is one; writes ``training.json`` at the end.

    Args:
        arguments: of ``mmadv train``: the config, --work-dir, and OPTION among --cfg-options if steps are to be
            recorded.
    """
    folder = Path(arguments[list(arguments).index('--work-dir') + 1])
    # Without a checkpoint, --resume would start from random weights, not from those of load_from.
    resume = ['--resume'] if any(folder.glob('iter_*.pth')) else []
    run_train([arguments[0], *resume, *arguments[1:]])
    steps = folder / 'steps.json'
    weights = max(folder.glob('iter_*.pth'), key=lambda path: int(path.stem.removeprefix('iter_')))
    content = {
        **(json.loads(steps.read_text(encoding='utf-8')) if OPTION in arguments else {}),
        'sha256': file_sha256(weights),
        'date': datetime.date.today().isoformat(),
        'hardware': hardware(),
        'versions': versions(),
    }
    (folder / 'training.json').write_text(json.dumps(content) + '\n', encoding='utf-8')


def lengths_by_tenth(training: Mapping[str, Any]) -> list[float | None]:
    """Returns the mean length of the steps in each tenth of a training; None for a tenth without an attack.

    Args:
        training: the content of ``training.json``.
    """
    tenth = len(training['seconds']) // 10
    parts = [
        [length for step, length in training['lengths'] if begin <= step < begin + tenth]
        for begin in range(0, 10 * tenth, tenth)
    ]
    return [round(sum(part) / len(part), 5) if part else None for part in parts]
