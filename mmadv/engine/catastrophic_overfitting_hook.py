"""A hook that detects catastrophic overfitting of adversarial training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from mmengine.dist import all_reduce, get_rank, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from mmadv.attacks import Attack, derive_seed
from mmadv.engine.attacked_batches import attack_batch
from mmadv.engine.data import evenly_spaced
from mmadv.errors import UserError
from mmadv.fields import Positive, Range, checked
from mmadv.models.adapter import unwrap
from mmadv.registry import ATTACKS, build


@HOOKS.register_module()
@checked
class CatastrophicOverfittingHook(Hook):
    """Compares the accuracy under the training attack with the accuracy under a stronger attack, on held-back images.

    Single-step training may suddenly learn to withstand its own attack and nothing else (Wong et al., 2020; the
    collapsing FGSM curves of Fast Newton's figures 3 and 4). The accuracy under the training attack then rises towards
    the clean accuracy, while the accuracy under the stronger attack falls. Every ``interval`` iterations the hook logs
    both, as ``overfitting/training_attack`` and ``overfitting/strong_attack``, with their difference
    ``overfitting/gap``. They are pixel accuracies in [0, 1] of the model in eval mode. If the gap is above
    ``threshold``, the hook warns and takes the ``action``.

    The held-back images are spread evenly over the validation data. Every check attacks them with the same noise.
    A check costs ``images`` times the passes of both attacks.

    Args:
        attack: the strong attack or its config, such as ten steps of PGD at the radius of training.
        interval: iterations between checks.
        images: number of held-back images, over all processes.
        threshold: largest gap that passes, in (0, 1).
        action: 'warn' only warns; 'stop' stops the training; 'rollback' goes back to the weights that CheckpointHook's
            ``save_best`` keeps. The optimiser then starts with an empty state, at the current learning rate. If there
            are no such weights yet, training goes on.
        training_attack: the attack to compare with; None for the attack of AdvSegDataPreProcessor.
        batch_size: number of images that are attacked at once.

    Raises:
        UserError: an argument is invalid. At the start of training: there is no training attack, no validation data,
            or no hook that keeps weights to roll back to.
    """

    def __init__(
        self,
        attack: Attack | Mapping[str, Any],
        interval: Positive = 200,
        images: Positive = 8,
        threshold: Annotated[float, Range(0, 1, open_low=True, open_high=True)] = 0.2,
        action: Literal['warn', 'stop', 'rollback'] = 'warn',
        training_attack: Attack | Mapping[str, Any] | None = None,
        batch_size: Positive = 8,
    ) -> None:
        self.attack = _untargeted(attack, 'attack')
        self.training_attack = None if training_attack is None else _untargeted(training_attack, 'training_attack')
        self.interval = interval
        self.images = images
        self.threshold = threshold
        self.action = action
        self.batch_size = batch_size

    def before_train(self, runner: Runner) -> None:
        """Chooses the images and the attacks."""
        if self.training_attack is None:
            self.training_attack = getattr(unwrap(runner.model).data_preprocessor, 'attack', None)
        if self.training_attack is None:
            raise UserError(
                'CatastrophicOverfittingHook found no attack in the data preprocessor; train with '
                'AdvSegDataPreProcessor, or give training_attack'
            )
        if runner.val_loop is None:
            raise UserError(
                'CatastrophicOverfittingHook holds back images of the validation data; set val_dataloader, val_cfg '
                'and val_evaluator'
            )
        if self.action == 'rollback' and _best_checkpoints(runner) is None:
            raise UserError(
                "CatastrophicOverfittingHook: action 'rollback' needs a best checkpoint; set "
                "default_hooks.checkpoint.save_best, to 'mIoU' for example"
            )
        # Samples are read one by one: a dataloader's iterator would draw from the global random state.
        dataset = runner.val_loop.dataloader.dataset
        indexes = evenly_spaced(len(dataset), self.images)[get_rank() :: get_world_size()]
        self.held_back = [(index, dataset[index]) for index in indexes]

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Every ``interval`` iterations: measures both accuracies, logs them, and acts on a large gap."""
        if not self.every_n_train_iters(runner, self.interval):
            return
        assert self.training_attack is not None
        weak, strong = (self.accuracy(runner, attack) for attack in (self.training_attack, self.attack))
        gap = weak - strong
        values = {'training_attack': weak, 'strong_attack': strong, 'gap': gap}
        for name, value in values.items():
            runner.message_hub.update_scalar(f'train/overfitting/{name}', value)
        if gap > self.threshold:
            runner.logger.warning(
                f'catastrophic overfitting at iteration {runner.iter + 1}: accuracy {weak:.3f} under the training '
                f'attack, {strong:.3f} under the strong one; the gap of {gap:.3f} is above {self.threshold:g}'
            )
            self._act(runner)

    def accuracy(self, runner: Runner, attack: Attack) -> float:
        """Returns the pixel accuracy in [0, 1] of the runner's model on the held-back images, over all processes."""
        segmentor = unwrap(runner.model)
        counts = torch.zeros(2, dtype=torch.float64)
        for start in range(0, len(self.held_back), self.batch_size):
            part = self.held_back[start : start + self.batch_size]
            inputs, samples = [data['inputs'] for _, data in part], [data['data_samples'] for _, data in part]
            seeds = [derive_seed('held back', index) for index, _ in part]
            for one in attack_batch(segmentor, attack, inputs, samples, seeds):
                counts += torch.tensor([one.correct, one.valid], dtype=torch.float64)
        counts = counts.to(next(segmentor.parameters()).device)
        all_reduce(counts)
        if not counts[1]:
            raise UserError(
                f'none of the {self.images} validation images that CatastrophicOverfittingHook holds back has a '
                'labelled pixel; hold back more'
            )
        return float(counts[0] / counts[1])

    def _act(self, runner: Runner) -> None:
        if self.action == 'stop':
            runner.logger.warning('training stops here; the best and the latest checkpoint are in the work folder')
            runner.train_loop.stop_training = True
        elif self.action == 'rollback':
            self._roll_back(runner)

    def _roll_back(self, runner: Runner) -> None:
        best = _best_checkpoints(runner)
        if not best:
            runner.logger.warning(
                f'iteration {runner.iter + 1}: there is no best checkpoint to roll back to yet; training goes on'
            )
            return
        device = next(runner.model.parameters()).device
        runner.load_checkpoint(best[0], map_location=device, strict=True)
        # Best checkpoints hold no optimiser; the current moments belong to the weights that failed.
        wrapper = runner.optim_wrapper
        for part in wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
            part.optimizer.state.clear()
        # MMEngine's logger drops a warning that it has written before, so each has its iteration.
        runner.logger.warning(f'rolled back at iteration {runner.iter + 1} to the weights of {best[0]}')


def _untargeted(attack: Attack | Mapping[str, Any], name: str) -> Attack:
    built = build(attack, ATTACKS)
    if not isinstance(built, Attack) or built.targeted:
        raise UserError(f'CatastrophicOverfittingHook: {name} must be an untargeted attack; found {built!r}')
    return built


def _best_checkpoints(runner: Runner) -> list[str] | None:
    """Returns the files of the best checkpoints so far, one per metric; None if no hook keeps any."""
    hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook) and hook.save_best]
    if not hooks:
        return None
    hook = hooks[0]
    paths = hook.best_ckpt_path_dict.values() if len(hook.key_indicators) > 1 else [hook.best_ckpt_path]
    # A work folder may have been copied without them.
    return [path for path in paths if path and hook.file_backend.isfile(path)]
