"""A validation loop that scores clean and attacked predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.runner import ValLoop
from mmengine.runner.amp import autocast
from mmengine.structures import PixelData
from mmseg.registry import LOOPS

from mmadv.attacks import Attack, derive_seed
from mmadv.attacks.class_weights import needs_class_weights, with_class_weights
from mmadv.engine.attacked_batches import attack_batch, in_order
from mmadv.engine.class_weights import class_weights_of_dataset
from mmadv.engine.data import Selection, dataset_of, evenly_spaced
from mmadv.engine.determinism import check_deterministic
from mmadv.engine.scoring import disagreement, metrics_ignore_index
from mmadv.engine.spec import attacks_by_radius
from mmadv.errors import UserError
from mmadv.fields import NotNegative, Positive, checked
from mmadv.models.adapter import head_ignore_index, unwrap


def check_validation_attack(attack: Attack | Mapping[str, Any] | None) -> Attack:
    """Returns the attack of a validation, built; raises UserError if there is no attack or it is targeted."""
    if attack is None:
        raise UserError("val_cfg has no attack; give one, as attack=dict(type='PGD', ...), or use ValLoop")
    (built,) = attacks_by_radius(attack).values()
    assert built is not None
    return built


@LOOPS.register_module()
@checked
class AttackValLoop(ValLoop):
    """A ValLoop that also attacks every image, and scores the attacked predictions by the same metrics.

    Clean metrics keep their names, such as ``mIoU``; the attacked metrics are named ``robust/mIoU``. Both are in the
    log, in the JSON log and, with a TensorBoard backend, among the curves.
    ``CheckpointHook(save_best='robust/mIoU')`` keeps the most robust weights. An image costs one prediction and the
    passes of the attack, and one more prediction if the attack keeps the strongest image.

    Noise is keyed by ``seed`` and the image's name, so every validation attacks with the same noise. Results depend
    neither on batch size nor on the number of processes, beyond the arithmetic of the model.

    Args:
        runner: the runner.
        dataloader: config of the validation data. Batches may mix image sizes if the model predicts such batches.
        evaluator: config of the evaluator, such as IoUMetric.
        attack: a short attack, or its config.
        limit: number of images, spread evenly over the dataset; None for all. Clean metrics use the same images.
        seed: seed of all noise.
        fp16: predict clean images in half precision; the attack runs in single precision.

    Raises:
        UserError: the dataloader is not a config, or there is no attack, or the attack is targeted.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Mapping[str, Any],
        evaluator: Any,
        attack: Attack | Mapping[str, Any] | None = None,
        limit: Positive | None = None,
        seed: NotNegative = 0,
        fp16: bool = False,
    ) -> None:
        if not isinstance(dataloader, Mapping) or not isinstance(evaluator, (Mapping, list, tuple)):
            raise UserError('AttackValLoop needs val_dataloader and val_evaluator as configs; give dicts')
        self.attack = check_validation_attack(attack)
        self.seed = seed
        dataset = dataset_of(dataloader, 'val_dataloader', 'AttackValLoop')
        check_deterministic(dataset, 'val_dataloader.dataset')
        if needs_class_weights(self.attack):
            self.attack = with_class_weights(self.attack, class_weights_of_dataset(dataset).value)
        selection = Selection(dataset, evenly_spaced(len(dataset), limit))
        super().__init__(runner, in_order({**dataloader, 'dataset': selection}, round_up=True), evaluator, fp16)
        self.robust_evaluator = runner.build_evaluator(evaluator)
        self.robust_evaluator.dataset_meta = self.evaluator.dataset_meta
        head = head_ignore_index(unwrap(runner.model))
        self.ignore_index = metrics_ignore_index(self.evaluator.metrics, head)
        for note in disagreement(head, self.ignore_index):
            print_log(f'note: {note}', logger='current')

    def run(self) -> dict:
        """Returns the metrics of the whole dataset, with the attacked metrics as ``robust/...``."""
        self.runner.call_hook('before_val')
        self.runner.call_hook('before_val_epoch')
        self.runner.model.eval()
        for index, data_batch in enumerate(self.dataloader):
            self.run_iter(index, data_batch)
        size = len(self.dataloader.dataset)
        metrics = self.evaluator.evaluate(size)
        metrics.update({f'robust/{name}': value for name, value in self.robust_evaluator.evaluate(size).items()})
        self.runner.call_hook('after_val_epoch', metrics=metrics)
        self.runner.call_hook('after_val')
        return metrics

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict) -> None:
        """Predicts one batch, clean and attacked."""
        self.runner.call_hook('before_val_iter', batch_idx=idx, data_batch=data_batch)
        inputs, samples = list(data_batch['inputs']), data_batch['data_samples']
        seeds = [derive_seed(self.seed, sample.metainfo['image_name']) for sample in samples]
        # The attack runs before the prediction, which writes into the data samples.
        attacked = attack_batch(unwrap(self.runner.model), self.attack, inputs, samples, seeds, self.ignore_index)
        with autocast(enabled=self.fp16):
            outputs = self.runner.model.val_step(data_batch)
        self.evaluator.process(data_samples=outputs, data_batch=data_batch)
        self.runner.call_hook('after_val_iter', batch_idx=idx, data_batch=data_batch, outputs=outputs)
        for sample, one in zip(outputs, attacked, strict=True):
            prediction = sample.pred_sem_seg.data
            sample.pred_sem_seg = PixelData(data=one.prediction[None].to(prediction))
        self.robust_evaluator.process(data_samples=outputs, data_batch=data_batch)
