"""The hook that gives a PAG segmentor the targets of its gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from mmadv.attacks import derive_seed
from mmadv.engine.pag_bank import cached_bank, raw_pictures, shared_bank
from mmadv.errors import UserError, nearest
from mmadv.fields import NotNegative, Positive, checked
from mmadv.models.adapter import head_ignore_index, unwrap
from mmadv.models.pag_segmentor import PAGMixin
from mmadv.models.pag_targets import (
    BankRequest,
    build_bank_target,
    build_region_target,
    collect_bank,
    collect_regions,
    load_teacher,
)
from mmadv.robustness import ClassBank, Distillation

BANK_FILE = 'pag_bank.pth'
# Type of a bank target -> default number of examples per class.
BANK_TARGETS = {
    'RegionExemplars': 32,
    'RegionDistillation': 32,
    'OneImage': 1,
    'ClassMean': 32,
    'NearestNeighbour': 8,
    'NearestClusterMean': 32,
}
# Targets whose bank holds regions, which are stored at this height and width by default.
REGION_TARGETS = ('RegionExemplars', 'RegionDistillation')
REGION_SIZE = (64, 64)
DEFAULT_TARGET = {'type': 'RegionExemplars'}
SETTINGS = {
    'RegionExemplars': ('per_class', 'regions'),
    'RegionDistillation': ('per_class', 'regions', 'config', 'checkpoint'),
    'OneImage': (),
    'ClassMean': ('per_class', 'scale'),
    'NearestNeighbour': ('per_class',),
    'NearestClusterMean': ('per_class', 'clusters'),
    'Distillation': ('config', 'checkpoint'),
}


@HOOKS.register_module()
@checked
class PAGTargetHook(Hook):
    """Makes the targets g(x, t) of a PAG segmentor before training starts.

    A bank holds, for each class, crops of training images: regions of that class with their label maps for the region
    targets, else crops of the size of the training batches around the class. The crops come from the loaded images,
    before augmentation. The main process makes the bank once, from a random order of the training images. The file
    ``pag_bank.pth`` in the work folder keeps the bank for a resumed run, and all processes use the same bank. The bank
    takes K · M · H · W · 3 bytes of memory.

    Args:
        target: a target of regions, ``dict(type='RegionExemplars', per_class=32, regions=4)`` (default) or
            ``dict(type='RegionDistillation', config=..., checkpoint=..., per_class=32, regions=4)``, or one of the
            published form: ``dict(type='OneImage')``, ``dict(type='ClassMean', per_class=32, scale=1.0)``,
            ``dict(type='NearestNeighbour', per_class=8)``,
            ``dict(type='NearestClusterMean', per_class=32, clusters=4)`` and
            ``dict(type='Distillation', config=..., checkpoint=...)``. The teacher of a distillation is a robust
            segmentor with the same classes.
        size: height and width of the crops. None takes 64 x 64 for regions. The crops of the published form must have
            the size of the training batches; None takes the data preprocessor's ``size``, or else the size of the first
            training sample.
        max_images: largest number of images that are searched; None for all.
        seed: seed of the order.

    Raises:
        UserError: a target or setting is unknown; the model is not a PAG segmentor, or has batch norms that were never
            trained; no image holds some class; the bank is larger than the data; or the teacher has other classes.
    """

    def __init__(
        self,
        target: Mapping[str, Any] = DEFAULT_TARGET,
        size: tuple[Positive, Positive] | None = None,
        max_images: Positive | None = None,
        seed: NotNegative = 0,
    ) -> None:
        self.target = dict(target)
        kind = self.target.get('type')
        if kind not in SETTINGS:
            raise UserError(f"PAGTargetHook: unknown target '{kind}'{nearest(str(kind), SETTINGS)}")
        for key in self.target:
            if key not in ('type', *SETTINGS[kind]):
                raise UserError(f"PAGTargetHook: {kind} has no setting '{key}'{nearest(str(key), SETTINGS[kind])}")
        for key in ('config', 'checkpoint') if 'Distillation' in kind else ():
            if not isinstance(self.target.get(key), str):
                raise UserError(f'PAGTargetHook: {kind} needs the {key} of its teacher')
        for key in ('per_class', 'clusters', 'regions'):
            number = self.target.get(key, 1)
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise UserError(f'PAGTargetHook: {key} must be a positive integer; found {number!r}')
        self.size = None if size is None else (int(size[0]), int(size[1]))
        self.max_images = max_images
        self.seed = seed

    @property
    def of_regions(self) -> bool:
        """Returns whether the target is one of regions."""
        return self.target['type'] in REGION_TARGETS

    @property
    def per_class(self) -> int:
        """Returns the number of examples of each class in the bank."""
        return self.target.get('per_class', BANK_TARGETS[self.target['type']])

    def before_train(self, runner: Runner) -> None:
        """Builds the target and gives it to the runner's model."""
        segmentor = unwrap(runner.model)
        if not isinstance(segmentor, PAGMixin):
            raise UserError(
                f'PAGTargetHook needs a PAGEncoderDecoder or PAGCascadeEncoderDecoder; found '
                f'{type(segmentor).__name__}; set model.type'
            )
        segmentor.check_norms()
        classes = segmentor.num_classes
        if self.target['type'] == 'Distillation':
            teacher = load_teacher(self.target['config'], self.target['checkpoint'], classes)
            segmentor.set_pag_target(Distillation(teacher, classes, over=segmentor.pag_over))
            return
        without = [k for k in range(classes) if k not in segmentor.pag_classes]
        bank = shared_bank(lambda: self._bank(runner, segmentor))
        if self.of_regions:
            ignore_index = head_ignore_index(segmentor)
            segmentor.set_pag_target(build_region_target(self.target, bank, without, ignore_index))
            return
        settings = {key: value for key, value in self.target.items() if key != 'per_class'}
        segmentor.set_pag_target(build_bank_target(settings, bank, without))

    def _bank(self, runner: Runner, segmentor: Any) -> ClassBank:
        """Returns the bank of the work folder, and makes it first if necessary."""
        dataset = runner.train_loop.dataloader.dataset
        preprocessor = segmentor.data_preprocessor
        per_class = self.per_class
        if per_class > len(dataset):
            raise UserError(
                f'PAGTargetHook: per_class {per_class} is more than the {len(dataset)} training images; ask for fewer'
            )
        default = REGION_SIZE if self.of_regions else preprocessor.size or tuple(dataset[0]['inputs'].shape[-2:])
        request = BankRequest(
            classes=tuple(segmentor.pag_classes),
            num_classes=segmentor.num_classes,
            per_class=per_class,
            size=self.size or default,
            ignore_index=head_ignore_index(segmentor),
        )
        collect = collect_regions if self.of_regions else collect_bank
        settings = (request, collect.__name__, self.max_images, self.seed, str(runner.cfg.get('train_dataloader')))
        key = str(derive_seed(*map(str, settings)))

        def make() -> ClassBank:
            bank = collect(raw_pictures(dataset, self.seed, self.max_images), request)
            looked = len(dataset) if self.max_images is None else self.max_images
            _check_complete(bank, request, dataset.metainfo['classes'], looked)
            return bank

        return cached_bank(Path(runner.work_dir) / BANK_FILE, key, make)


def _check_complete(bank: ClassBank, request: BankRequest, names: Sequence[str], images: int) -> None:
    missing = [k for k in request.classes if int(bank.counts[k]) == 0]
    if missing:
        raise UserError(
            f'PAGTargetHook: none of {images} training images holds class {missing[0]} ({names[missing[0]]}); '
            f'look through more (max_images), or put it into model.pag.exclude'
        )
    fewer = [f'{names[k]}: {int(bank.counts[k])}' for k in request.classes if bank.counts[k] < request.per_class]
    if fewer:
        print_log(f'PAG bank: fewer than {request.per_class} images hold {", ".join(fewer)}', logger='current')
