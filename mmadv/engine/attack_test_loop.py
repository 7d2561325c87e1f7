"""A test loop that predicts every image clean and attacked, through the path that predicts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import all_gather_object
from mmengine.runner import TestLoop
from mmengine.structures import PixelData
from mmseg.registry import LOOPS
from torch import Tensor

from mmadv.attacks import (
    Attack,
    Cascade,
    NonFiniteLogits,
    ScheduledPGD,
    WorstCase,
    ama,
    auto,
    derive_seed,
    parse_radius,
    sea,
)
from mmadv.engine.data import Selection, build_dataset, check_not_scaled, evenly_spaced
from mmadv.engine.progress import Progress
from mmadv.errors import UserError
from mmadv.models.adapter import SegmentorAdapter, geometry, stack_images, stack_labels, unwrap
from mmadv.models.batches import label_maps
from mmadv.registry import ATTACKS, build
from mmadv.report.pictures import Example


@LOOPS.register_module()
class AttackTestLoop(TestLoop):
    """Attacks the test images, and hands clean and attacked predictions to the evaluator.

    Every data sample gets ``pred_sem_seg``, the clean prediction; ``adversarial``, radius -> member -> (H, W)
    prediction, where a single attack has the one member 'attack'; and ``attack``, a dict of ``title``,
    ``ignore_index`` and ``passes``, radius -> (forward, backward).
    The evaluator needs ``AttackMetric`` or, for ensembles, ``SEAMetric``.

    Noise is keyed by ``seed`` and the image's name, so that results depend neither on batch size nor on order
    or number of processes, beyond the arithmetic of the model. At radius 0 the clean prediction is reported as it is.

    Args:
        runner: the runner.
        dataloader: config of the test data. Batches may mix image sizes.
        evaluator: evaluator or its config.
        attack: attack or its config; None predicts clean only.
        radii: of the attack, as texts such as '4/255' or floats; empty for the attack's own.
        seed: of all noise.
        limit: number of images, spread evenly over the dataset; None for all.
        show: number of images whose arrays are kept in ``examples``, spread evenly over those attacked.
        title: of the attack in tables; None derives it from the attack.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Mapping[str, Any],
        evaluator: Any,
        attack: Attack | Mapping[str, Any] | None = None,
        radii: Sequence[str | float] = (),
        seed: int = 0,
        limit: int | None = None,
        show: int = 0,
        title: str | None = None,
    ) -> None:
        if not isinstance(dataloader, Mapping):
            raise UserError(
                f'AttackTestLoop needs test_dataloader as a config, found a {type(dataloader).__name__}; give a dict'
            )
        self.attacks = attacks_by_radius(attack, radii)
        self.seed = seed
        self.title = title or attack_title(next(filter(None, self.attacks.values()), None))
        dataset = build_dataset(dataloader['dataset'], 'test_dataloader.dataset')
        indexes = evenly_spaced(len(dataset), limit)
        self.dataset_size = len(dataset)
        self.shown = {indexes[i] for i in evenly_spaced(len(indexes), show)} if show else set()
        self.examples: list[Example] = []
        self.seconds = {'clean': 0.0, **dict.fromkeys(self.attacks, 0.0)}
        super().__init__(runner, _in_order({**dataloader, 'dataset': Selection(dataset, indexes)}), evaluator)
        self.num_classes = len(self.dataloader.dataset.metainfo['classes'])
        self.loaded_rgb = _loads_rgb(runner.cfg)

    def run(self) -> dict:
        """Returns the metrics of the whole dataset."""
        self.segmentor = unwrap(self.runner.model)
        self.device = next(self.segmentor.parameters()).device
        self.progress = Progress(len(self.dataloader.dataset), self.title)
        try:
            metrics = super().run()
        finally:
            self.progress.close()
        gathered = [example for part in all_gather_object(self.examples) for example in part]
        self.examples = sorted({example.index: example for example in gathered}.values(), key=lambda e: e.index)
        return metrics

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict) -> None:
        """Predicts one batch, clean and attacked."""
        self.runner.call_hook('before_test_iter', batch_idx=idx, data_batch=data_batch)
        inputs, samples = list(data_batch['inputs']), data_batch['data_samples']
        groups: dict[tuple, list[int]] = {}
        for i, (image, label, sample) in enumerate(zip(inputs, label_maps(samples), samples, strict=True)):
            check_not_scaled(image, sample)
            groups.setdefault((image.shape, label.shape, geometry(sample)), []).append(i)
        for group in groups.values():
            self._run_group([inputs[i] for i in group], [samples[i] for i in group])
        self.evaluator.process(data_samples=samples, data_batch=data_batch)
        self.runner.call_hook('after_test_iter', batch_idx=idx, data_batch=data_batch, outputs=samples)
        self.progress.advance(len(samples))

    def _run_group(self, inputs: list[Tensor], samples: list[Any]) -> None:
        """Predicts samples of one geometry and writes the predictions into them."""
        model = SegmentorAdapter(self.segmentor, samples)
        if model.num_classes != self.num_classes:
            raise UserError(
                f'the model predicts {model.num_classes} classes, the dataset has {self.num_classes}; '
                'make num_classes of the decode head and the classes of the dataset agree'
            )
        images, labels = stack_images(inputs, samples), stack_labels(samples)
        model.check_labels(labels, samples)
        images, labels = images.to(self.device), labels.to(self.device)
        names = [sample.metainfo['image_name'] for sample in samples]
        clean = self._predict_clean(model, images, names)
        self._count('clean', clean, labels, model)
        for sample, prediction in zip(samples, clean.cpu(), strict=True):
            sample.pred_sem_seg = PixelData(data=prediction[None])
            sample.set_field({}, 'adversarial')
            sample.set_field({'title': self.title, 'ignore_index': model.ignore_index, 'passes': {}}, 'attack')
        examples = self._start_examples(images, samples)
        for radius, attack in self.attacks.items():
            self._attack(radius, attack, model, images, labels, clean, samples, examples)

    def _predict_clean(self, model: SegmentorAdapter, images: Tensor, names: list[str]) -> Tensor:
        start = time.perf_counter()
        logits = model(images)
        finite = torch.isfinite(logits).flatten(1).all(1)
        if not finite.all():
            raise UserError(
                f'the model returns NaN or infinite logits for the clean image {names[int((~finite).nonzero()[0])]} '
                '(iteration 0); check the checkpoint and the normalisation'
            )
        predictions = logits.argmax(1)
        self.seconds['clean'] += time.perf_counter() - start
        return predictions

    def _attack(
        self,
        radius: str,
        attack: Attack | None,
        model: SegmentorAdapter,
        images: Tensor,
        labels: Tensor,
        clean: Tensor,
        samples: list[Any],
        examples: dict[int, Example],
    ) -> None:
        """Attacks a group at one radius and writes the outcome into its samples and examples."""
        start = time.perf_counter()
        adversarial, worst = images, clean
        predictions = dict.fromkeys(self._members(), clean)
        passes = [torch.zeros(len(images), dtype=torch.int64)] * 2
        if attack is not None and bool((labels != model.ignore_index).any()):
            names = [sample.metainfo['image_name'] for sample in samples]
            seeds = [derive_seed(self.seed, name) for name in names]
            try:
                result = attack(model, images, labels, seeds=seeds, ignore_index=model.ignore_index)
            except NonFiniteLogits as error:
                raise UserError(
                    f'the model returns NaN or infinite logits for the image {names[error.index]} at iteration '
                    f'{error.iteration} of {self.title} with radius {radius}; check the checkpoint and the precision'
                ) from error
            adversarial, worst = result.images, result.predictions
            predictions = {name: member.predictions for name, member in result.members.items()} or {'attack': worst}
            passes = [result.forward_passes, result.backward_passes]
        for name, prediction in predictions.items():
            for sample, one in zip(samples, prediction.cpu(), strict=True):
                sample.adversarial.setdefault(radius, {})[name] = one
        for i, (sample, *counts) in enumerate(zip(samples, *(column.tolist() for column in passes), strict=True)):
            sample.attack['passes'][radius] = tuple(counts)
            if i in examples and attack is not None:
                examples[i].adversarial[radius] = self._displayed(adversarial[i])
                examples[i].attacked[radius] = worst[i].cpu().numpy()
        self._count(radius, worst, labels, model)
        self.seconds[radius] += time.perf_counter() - start

    def _members(self) -> list[str]:
        """Returns the names under which the attack's predictions are reported."""
        attack = next(filter(None, self.attacks.values()), None)
        return list(attack.attacks) if isinstance(attack, WorstCase) else ['attack']

    def _count(self, name: str, predictions: Tensor, labels: Tensor, model: SegmentorAdapter) -> None:
        valid = labels != model.ignore_index
        self.progress.add(name, int(((predictions == labels) & valid).sum()), int(valid.sum()))

    def _start_examples(self, images: Tensor, samples: list[Any]) -> dict[int, Example]:
        """Returns the examples that are to be kept of a group, by position, with all but the attacks."""
        examples = {}
        for i, (image, sample) in enumerate(zip(images, samples, strict=True)):
            index = sample.metainfo['sample_idx']
            if index in self.shown and all(example.index != index for example in self.examples):
                examples[i] = Example(
                    index=index,
                    name=sample.metainfo['image_name'],
                    image=self._displayed(image),
                    label=sample.gt_sem_seg.data[0].cpu().numpy(),
                    clean=sample.pred_sem_seg.data[0].cpu().numpy(),
                )
        self.examples += examples.values()
        return examples

    def _displayed(self, image: Tensor) -> Any:
        """Returns (C, h, w) as (h, w, 3) RGB; other than three channels are shown by the first one."""
        pixels = image.detach().float().cpu().permute(1, 2, 0).numpy()
        if pixels.shape[2] != 3:
            return pixels[:, :, :1].repeat(3, axis=2)
        return pixels if self.loaded_rgb else pixels[:, :, ::-1].copy()


def attacks_by_radius(
    attack: Attack | Mapping[str, Any] | None, radii: Sequence[str | float] = ()
) -> dict[str, Attack | None]:
    """Returns the attack at every radius, by the radius' text; None stands for radius 0.

    Raises:
        UserError: a radius is no radius, or given twice; the attack does not build, or is targeted.
    """
    if attack is None:
        if radii:
            raise UserError(f'radii {", ".join(map(str, radii))} are given, but no attack; name one, or leave them out')
        return {}
    values = {str(radius): parse_radius(radius) for radius in radii}
    if len(values) < len(radii):
        raise UserError(f'a radius is given twice in {", ".join(map(str, radii))}; give each once')
    built = build(attack, ATTACKS)
    if not isinstance(built, Attack):
        raise UserError(f'attack must be an attack or its config; found {built!r}')
    if built.targeted:
        raise UserError('the test loop knows no target classes; choose an untargeted attack')
    if not values:
        return {radius_text(built.threat.radius): built}
    return {text: built.with_radius(text) if value > 0 else None for text, value in values.items()}


def attack_title(attack: Attack | None) -> str:
    """Returns what tables call an attack: SEA with its preset, AMA, the worst case of others, or the class name.

    >>> attack_title(sea('4/255', preset='eccv')), attack_title(ama('4/255', passes=30))
    ('SEA (eccv: 3 losses)', 'AMA (30 passes)')
    """
    if isinstance(attack, ScheduledPGD) and attack == ama(attack.threat.radius, attack.steps, threat=_kind(attack)):
        return f'AMA ({attack.steps} passes)'
    if isinstance(attack, Cascade):
        reference = auto(attack.threat.radius, threat=_kind(attack))
        if attack.attacks.keys() == reference.attacks.keys() and attack == reference.with_steps(attack.steps):
            return f'auto ({attack.steps} passes)'
    if not isinstance(attack, WorstCase):
        return 'clean' if attack is None else type(attack).__name__
    for preset in ('paper', 'eccv'):
        for member in attack.attacks.values():
            steps = getattr(getattr(member, 'attack', None), 'steps', None)
            if steps and attack == sea(attack.threat.radius, steps, preset, _kind(attack)):
                return f'SEA ({preset}: {len(attack.attacks)} losses)'
    return f'worst case of {len(attack.attacks)} attacks'


def _kind(attack: Attack) -> str:
    return type(attack.threat).__name__


def radius_text(radius: float) -> str:
    """Returns a radius as a multiple of 1/255 where it is one.

    >>> radius_text(4 / 255), radius_text(0.03)
    ('4/255', '0.03')
    """
    levels = round(radius * 255, 6)
    return f'{levels:g}/255' if levels == int(levels) else repr(radius)


def _in_order(dataloader: dict[str, Any]) -> dict[str, Any]:
    """Returns a dataloader config that reads every sample once, in order."""
    dropped = ('batch_sampler', 'num_batch_per_epoch', 'shuffle', 'drop_last')
    kept = {key: value for key, value in dataloader.items() if key not in dropped}
    return {'batch_size': 1, **kept, 'sampler': {'type': 'mmengine.DefaultSampler', 'shuffle': False}}


def _loads_rgb(config: Any) -> bool:
    """Returns whether the pipeline gives RGB images; OpenMMLab's loaders give BGR."""
    preprocessor = (config.get('model') or {}).get('data_preprocessor') or config.get('data_preprocessor') or {}
    return bool(isinstance(preprocessor, Mapping) and preprocessor.get('rgb_to_bgr'))
