"""A test loop that predicts every image clean and attacked, through the path that predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from mmengine.dist import all_gather_object, broadcast_object_list, get_rank, is_main_process
from mmengine.runner import TestLoop
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import LOOPS
from torch import Tensor

from mmadv.attacks import Attack, Cascade, ScheduledPGD, WorstCase, ama, auto, parse_radius, sea
from mmadv.attacks.class_weights import DATASET, class_weights_of, needs_class_weights, with_class_weights
from mmadv.attacks.steps import step_notes
from mmadv.engine.attacked_batches import groups_of_one_geometry, in_order
from mmadv.engine.attacked_group import GroupPredictor, ImageFailed, PredictedGroup
from mmadv.engine.class_weights import ClassWeights, class_weights_of_dataset
from mmadv.engine.data import Selection, build_dataset, evenly_spaced
from mmadv.engine.determinism import check_deterministic
from mmadv.engine.examples import Examples, loads_rgb
from mmadv.engine.image_space import attack_image_files
from mmadv.engine.memory import is_out_of_memory, release_memory
from mmadv.engine.progress import Progress
from mmadv.engine.scoring import disagreement, metrics_ignore_index
from mmadv.engine.supplements import Supplement
from mmadv.engine.targets import aimed, parse_target
from mmadv.errors import UserError
from mmadv.evaluation import AttackMetric, ResultStore
from mmadv.evaluation.record_check import check_record
from mmadv.fields import NotNegative, Positive, Radius, checked
from mmadv.models.adapter import caveats, head_ignore_index, unwrap
from mmadv.registry import ATTACKS, build
from mmadv.report.pictures import Example

SPACES = ('input', 'image')


@LOOPS.register_module()
@checked
class AttackTestLoop(TestLoop):
    """Attacks the test images, and hands clean and attacked predictions to the evaluator.

    Every data sample gets ``pred_sem_seg``, the clean prediction; ``adversarial``, radius -> member -> (H, W)
    prediction, where a single attack has the one member 'attack'; and ``attack``, a dict of ``title``,
    ``ignore_index``, ``void``, the labels that are neither a class nor ignored, and ``passes``, radius -> (forward,
    backward).
    The evaluator needs ``AttackMetric`` or, for ensembles, ``SEAMetric``.

    Noise is keyed by ``seed`` and the image's name, so that results depend neither on batch size nor on order
    or number of processes, beyond the arithmetic of the model. At radius 0 the clean prediction is reported as it is.
    Several processes share the images evenly by cost, none twice. Images that do not fit into memory together are
    attacked in smaller groups. An image for which the model returns NaN is left out and listed under ``failed``.

    Args:
        runner: the runner.
        dataloader: config of the test data. Batches may mix image sizes.
        evaluator: evaluator or its config.
        attack: attack or its config; None predicts clean only.
        radii: of the attack, as texts such as '4/255' or floats; empty for the attack's own. A fixed step size is
            scaled with the radius, which ``caveats`` says.
        seed: of all noise.
        limit: number of images, spread evenly over the dataset; None for all.
        show: number of images whose arrays are kept in ``examples``, spread evenly over those attacked; besides them
            the least and the most robust ones, half as many of either.
        title: of the attack in tables; None derives it from the attack.
        space: 'input', what the test pipeline gives, in which the papers attack; or 'image', the image as it is in its
            file, through the resizing of the pipeline, which the adapter then does.
        target: what the attack wants, as ``class:NAME``, ``remove:NAME`` or ``masks:DIR``; None for anything but the
            labels. Every sample's ``attack`` then has ``reached``: radius -> [pixels reached, pixels wanted].

    Attributes:
        source: a segmentor that is attacked in place of the runner's, which is shown the result; None for the runner's.
        supplements: measurements beside the attack's own, in the images' records and in the evaluation.
        ignore_index: label of the pixels that are in no score: that of the evaluator's metrics.
        notes: sentences about the run that are printed and stored with the caveats of the model.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Mapping[str, Any],
        evaluator: Any,
        attack: Attack | Mapping[str, Any] | None = None,
        radii: Sequence[Radius] = (),
        seed: NotNegative = 0,
        limit: Positive | None = None,
        show: NotNegative = 0,
        title: str | None = None,
        space: Literal['input', 'image'] = 'input',
        target: str | None = None,
    ) -> None:
        if not isinstance(dataloader, Mapping):
            raise UserError(
                f'AttackTestLoop needs test_dataloader as a config, found a {type(dataloader).__name__}; give a dict'
            )
        self.attacks = attacks_by_radius(attack, radii)
        self.step_notes = step_notes(None if attack is None else build(attack, ATTACKS), self.attacks)
        self.seed = seed
        self.title = title or attack_title(next(filter(None, self.attacks.values()), None))
        dataset = build_dataset(dataloader['dataset'], 'test_dataloader.dataset')
        check_deterministic(dataset, 'test_dataloader.dataset')
        self.class_weights: ClassWeights | None = None
        if any(map(needs_class_weights, self.attacks.values())):
            self.class_weights = class_weights_of_dataset(dataset)
            self.attacks = {radius: self.completed(attack) for radius, attack in self.attacks.items()}
        self.source: EncoderDecoder | None = None
        self.supplements: list[Supplement] = []
        self.target = parse_target(target, dataset.metainfo['classes']) if target else None
        if self.target is not None:
            self.attacks = {
                radius: attack and aimed(attack, targeted=self.target.targeted)
                for radius, attack in self.attacks.items()
            }
            self.title = title or f'{self.title}, {target}'
        if space == 'image':
            attack_image_files(dataset)
        indexes = evenly_spaced(len(dataset), limit)
        self.dataset_size = len(dataset)
        sample = {indexes[i] for i in evenly_spaced(len(indexes), show)} if show else set()
        self.drawn = Examples(sample, show // 2, rgb=loads_rgb(runner.cfg, dataset))
        self.examples: list[Example] = []
        self.seconds = {'clean': 0.0, **dict.fromkeys(self.attacks, 0.0)}
        self.store: ResultStore | None = None
        self.done = 0
        self.missing = indexes
        self.largest_group: int | None = None
        self.caveats: list[str] = []
        self.selection = Selection(dataset, indexes)
        self.selection.check_files()
        self.dataloader_config = in_order({**dataloader, 'dataset': self.selection}, round_up=False)
        super().__init__(runner, self.dataloader_config, evaluator)
        self.num_classes = len(self.dataloader.dataset.metainfo['classes'])
        head = head_ignore_index(unwrap(runner.model))
        self.ignore_index = metrics_ignore_index(self.evaluator.metrics, head)
        self.notes = disagreement(head, self.ignore_index)
        if self.class_weights is not None:
            self.notes.append(self.class_weights.note)

    def completed(self, attack: Attack | None) -> Attack | None:
        """Returns an attack with the class weights of the data set, if it needs them."""
        if attack is None or self.class_weights is None:
            return attack
        return with_class_weights(attack, self.class_weights.value)

    def keep_results(self, store: ResultStore) -> int:
        """Makes the run write to a store as it goes and leave out the images it holds; returns the number of those.

        To be called before ``run``, by all processes. Images to be shown whose arrays the store lacks are done again.

        Raises:
            UserError: the stored results were made with other settings, or the images are not those of then.
        """
        metrics = [metric for metric in self.evaluator.metrics if isinstance(metric, AttackMetric)]
        if len(metrics) != len(self.evaluator.metrics):
            raise UserError('results that are kept need AttackMetric or SEAMetric alone; take other metrics out')
        dataset = self.dataloader.dataset
        seen = all_gather_object(store.read())  # of several machines, each may see its own part
        known = {index: rank for rank in reversed(range(len(seen))) for index in seen[rank]}
        wanted = set(dataset.indexes)
        stored = {index: seen[rank][index] for index, rank in sorted(known.items()) if index in wanted}
        for record in stored.values():
            check_record(record, len(dataset.metainfo['classes']), str(store.folder))
        verdict = [_changed_image(dataset, stored) if is_main_process() else None]
        broadcast_object_list(verdict)
        if verdict[0]:
            raise UserError(f'{store.folder.parent} was begun with other images: {verdict[0]}; give another --out')
        self.missing = [index for index in dataset.indexes if index not in stored]
        lost = {i for i, record in stored.items() if not all(extra.holds(record) for extra in self.supplements)}
        redone = self.drawn.adopt(stored, store) | set.intersection(*all_gather_object(lost))
        done = {index: record for index, record in stored.items() if index not in redone}
        for metric in metrics:
            metric.store = store
            metric.adopt(record for index, record in done.items() if known[index] == get_rank())
        self.store, self.done = store, len(done)
        remaining = [index for index in dataset.indexes if index not in done]
        config = {**self.dataloader_config, 'dataset': Selection(dataset.dataset, remaining)}
        self.dataloader = self.runner.build_dataloader(config, seed=self.runner.seed)
        return len(done)

    def describe_dataset(self) -> dict[str, Any]:
        """Returns what has to be the same when a run goes on: type, size and classes of the dataset."""
        dataset = self.dataloader.dataset
        return {
            'type': type(dataset.dataset).__name__,
            'size': self.dataset_size,
            'classes': list(dataset.metainfo['classes']),
        }

    def run(self) -> dict:
        """Returns the metrics of the whole dataset."""
        self.predict = GroupPredictor(
            unwrap(self.runner.model),
            self.attacks,
            seed=self.seed,
            title=self.title,
            num_classes=self.num_classes,
            ignore_index=self.ignore_index,
            source=self.source,
            target=self.target,
            supplements=self.supplements,
        )
        for metric in self.evaluator.metrics:
            if isinstance(metric, AttackMetric):
                metric.supplements = self.supplements
        self.progress = Progress(
            self.done + len(self.dataloader.dataset), self.title, self.done, len(self.dataloader.sampler)
        )
        self.caveats = [*self.step_notes, *caveats(self.predict.segmentor), *self.notes]
        if is_main_process():
            for caveat in self.caveats:
                self.progress.say(f'note: {caveat}')
        try:
            metrics = super().run()
        finally:
            self.progress.close()
            if self.store is not None:
                self.store.close()
        self.examples = self.drawn.gather()
        return metrics

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict) -> None:
        """Predicts one batch, clean and attacked."""
        self.runner.call_hook('before_test_iter', batch_idx=idx, data_batch=data_batch)
        inputs, samples = list(data_batch['inputs']), data_batch['data_samples']
        done: list[int] = []
        for group in groups_of_one_geometry(inputs, samples):
            done += self._run_group(group, inputs, samples)
        batch = {'inputs': [inputs[i] for i in sorted(done)], 'data_samples': [samples[i] for i in sorted(done)]}
        self.evaluator.process(data_samples=batch['data_samples'], data_batch=batch)
        self.drawn.keep((sample.metainfo['sample_idx'] for sample in batch['data_samples']), self.store)
        self.runner.call_hook('after_test_iter', batch_idx=idx, data_batch=batch, outputs=batch['data_samples'])
        self.progress.advance(len(samples))

    def _run_group(self, group: list[int], inputs: list[Tensor], samples: list[Any]) -> list[int]:
        """Predicts samples of one geometry, in parts if they do not fit into memory, and returns which succeeded."""
        size = self.largest_group or len(group)
        waiting = [group[start : start + size] for start in range(0, len(group), size)]
        done: list[int] = []
        while waiting:
            part = waiting.pop(0)
            try:
                predicted = self._predict_if_it_fits([inputs[i] for i in part], [samples[i] for i in part])
            except ImageFailed as failure:
                self._fail(samples[part[failure.position]], str(failure))
                rest = [i for n, i in enumerate(part) if n != failure.position]
                waiting[:0] = [rest] if rest else []
                continue
            if predicted is None:
                self._shrink(len(part))
                waiting[:0] = [part[: self.largest_group], part[self.largest_group :]]
                continue
            self._take([samples[i] for i in part], predicted)
            done += part
        return done

    def _predict_if_it_fits(self, inputs: list[Tensor], samples: list[Any]) -> PredictedGroup | None:
        """Returns None for several images that do not fit into memory together."""
        try:
            return self.predict(inputs, samples)
        except (RuntimeError, MemoryError) as error:
            if len(inputs) == 1 or not is_out_of_memory(error):
                raise
        return None

    def _shrink(self, size: int) -> None:
        """Halves the number of images that are attacked together from now on."""
        release_memory()
        if self.largest_group is None:
            self.progress.say(
                f'{size} images do not fit into memory together; they are attacked in smaller groups from here on, '
                'which changes no result'
            )
        self.largest_group = (size + 1) // 2

    def _fail(self, sample: Any, reason: str) -> None:
        """Notes that the model failed on an image; the run goes on without it."""
        record = {'index': sample.metainfo['sample_idx'], 'image': sample.metainfo['image_name'], 'failed': reason}
        for metric in self.evaluator.metrics:
            if isinstance(metric, AttackMetric):
                metric.adopt([record])
        self.progress.say(f'failed: {reason}')

    def _take(self, samples: list[Any], predicted: PredictedGroup) -> None:
        """Writes what was predicted into the samples, the examples, the sums and the times."""
        examples = self.drawn.start(samples, predicted)
        for n, (sample, prediction) in enumerate(zip(samples, predicted.clean, strict=True)):
            sample.pred_sem_seg = PixelData(data=prediction[None])
            sample.set_field({}, 'adversarial')
            attack = {'title': self.title, 'ignore_index': predicted.ignore_index, 'passes': {}, 'reached': {}}
            attack['void'] = list(predicted.void)
            attack['supplements'] = {name: values[n] for name, values in predicted.supplements.items()}
            sample.set_field(attack, 'attack')
        self._count('clean', predicted.clean, predicted)
        self.seconds['clean'] += predicted.clean_seconds
        for radius, attacked in predicted.attacked.items():
            passes = zip(attacked.forward_passes.tolist(), attacked.backward_passes.tolist(), strict=True)
            for i, (sample, counts) in enumerate(zip(samples, passes, strict=True)):
                sample.adversarial[radius] = {name: values[i] for name, values in attacked.predictions.items()}
                sample.attack['passes'][radius] = counts
                if attacked.reached is not None:
                    sample.attack['reached'][radius] = attacked.reached[i]
                if i in examples and attacked.images is not None:
                    examples[i].adversarial[radius] = self.drawn.displayed(attacked.images[i])
                    examples[i].attacked[radius] = attacked.worst[i].numpy()
            self._count(radius, attacked.worst, predicted)
            self.seconds[radius] += attacked.seconds

    def _count(self, name: str, predictions: Tensor, predicted: PredictedGroup) -> None:
        valid = predicted.labels != predicted.ignore_index
        self.progress.add(name, int(((predictions == predicted.labels) & valid).sum()), int(valid.sum()))


def attacks_by_radius(
    attack: Attack | Mapping[str, Any] | None, radii: Sequence[Radius] = ()
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
        raise UserError('give an untargeted attack, and what it shall aim at as the target')
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
    weights = next(iter(class_weights_of(attack)), DATASET)
    for preset in ('paper', 'eccv', 'eccv-image'):
        for member in attack.attacks.values():
            steps = getattr(getattr(member, 'attack', None), 'steps', None)
            given = {'class_weights': weights} if preset == 'eccv' else {}
            if steps and attack == sea(attack.threat.radius, steps, preset, _kind(attack), **given):
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


def _changed_image(dataset: Selection, stored: Mapping[int, Mapping[str, Any]]) -> str | None:
    """Returns the sentence on the first image that is not what it was when its stored result was made."""
    for index, record in stored.items():
        try:
            if dataset.digest(index) != record['digest']:
                return f'{record["image"]} (number {index}) or its label has changed since'
        except UserError as error:
            return str(error)
    return None
