"""A test loop that predicts every image clean and attacked, through the model's own prediction path."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from mmengine.dist import all_gather_object, broadcast_object_list, get_rank, is_main_process
from mmengine.runner import TestLoop
from mmengine.structures import PixelData
from mmseg.registry import LOOPS
from torch import Tensor

from mmadv.attacks import Attack
from mmadv.attacks.steps import step_notes
from mmadv.engine.attack_regions import note_regions
from mmadv.engine.attacked_batches import groups_of_one_geometry, in_order
from mmadv.engine.context import RunContext
from mmadv.engine.data import Selection, dataset_of, evenly_spaced
from mmadv.engine.determinism import check_deterministic
from mmadv.engine.example_collector import ExampleCollector, displayed, loads_rgb
from mmadv.engine.image_space import attack_image_files
from mmadv.engine.label_map import label_map_notes
from mmadv.engine.memory import is_out_of_memory, release_memory
from mmadv.engine.predictor import ImageFailed, PredictedGroup, Predictor
from mmadv.engine.progress import Progress
from mmadv.engine.scoring import disagreement, metrics_ignore_index
from mmadv.engine.spec import EvaluationSpec, SourceConfig, config_parts, spec_from_arguments, sweep_notes
from mmadv.errors import UserError
from mmadv.evaluation.attack_metric import AttackMetric
from mmadv.evaluation.image_record import FailedRecord, ImageRecord, image_record
from mmadv.evaluation.record_check import check_record
from mmadv.evaluation.result_store import ResultStore
from mmadv.fields import NotNegative, Positive, Radius, checked
from mmadv.models.adapter import caveats, head_ignore_index, unwrap
from mmadv.printing import shown
from mmadv.report.measurement import Measurement, Outcome
from mmadv.report.pictures import Example

# Number of names in the note on images that were removed.
REMOVED_SHOWN = 10


@LOOPS.register_module()
@checked
class AttackTestLoop(TestLoop):
    """Attacks the test images, and hands clean and attacked predictions to the evaluator.

    Every data sample gets four fields:

    - ``pred_sem_seg``: the clean prediction.
    - ``adversarial``: radius -> member -> (H, W) prediction. A single attack has one member, 'attack'.
    - ``attack``: a dict of ``title``, ``ignore_index``, ``void`` and ``passes``. ``void`` holds the labels that are
      neither a class nor ignored. ``passes`` maps each radius to (forward, backward).
    - ``attack_record``: the sample's ``ImageRecord``.

    The evaluator needs ``AttackMetric`` or, for ensembles, ``EnsembleMetric``.

    Noise is keyed by ``seed`` and the image's name. Results therefore depend neither on batch size nor on the order
    or number of processes, beyond the arithmetic of the model. At radius 0 the loop reports the clean prediction.
    Several processes share the images evenly by cost, and no image is done twice. If images do not fit into memory
    together, the loop attacks them in smaller groups. If the model returns NaN for an image, the loop leaves the image
    out and lists it under ``failed``.

    Args:
        runner: the runner.
        dataloader: config of the test data. Batches may mix image sizes.
        evaluator: evaluator or its config.
        spec: description of the evaluation, in place of all other arguments except ``show``.
        show: number of images whose arrays are kept in ``examples``, spread evenly over the attacked images. The least
            robust and the most robust images are kept too, half as many of each.
        attack: attack or its config; None predicts clean only.
        radii: radii of the attack, as texts such as '4/255' or as floats; empty for the attack's own radius. A fixed
            step size is scaled with the radius, and ``caveats`` says so.
        seed: seed of all noise.
        limit: number of images, spread evenly over the dataset; None for all.
        title: name of the attack in tables; None derives it from the attack.
        space: 'input' attacks the output of the test pipeline, as the papers do. 'image' attacks the image as it is in
            its file, through the resizing of the pipeline, which the adapter then does.
        target: target of the attack, as ``class:NAME``, ``remove:NAME`` or ``masks:DIR``; None for anything but the
            labels. With a target, every sample's ``attack`` has ``reached``: radius -> [pixels reached, pixels wanted].
        region: the pixels that the attack may change, as ``box:TOP,LEFT,HEIGHT,WIDTH`` in shares of the image,
            ``class:NAME`` or ``except:NAME``; None for all.
        score: 'rest' scores the pixels outside the region alone, clean and attacked; 'all' scores all pixels.
        source: ``config`` and ``checkpoint`` of a source model that is attacked in place of the runner's model. The
            runner's model then predicts the attacked images. None attacks the runner's model.
        sweep: 'independent' attacks at each radius by itself; 'shared' makes the result at a radius a candidate at the
            larger radii, where a cascade such as auto runs only the parts that led, and ``caveats`` says so.
        measurements: measurements or their configs, such as ``dict(type='MinimalRadius', upper='32/255')``, in addition
            to those that the attack implies.

    Attributes:
        spec: description of the evaluation.
        predictor: a group of images -> their predictions.
        outcome: results of the measurements, after ``run``, on the main process.
        summaries: name of a measurement -> its summary in JSON, for measurements that are not part of the evaluation.
        caveats: sentences that a reader of the results has to know.
        ignore_index: label of the pixels that are in no score, taken from the evaluator's metrics.
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
        region: str | None = None,
        score: Literal['rest', 'all'] = 'rest',
        source: SourceConfig | None = None,
        measurements: Sequence[Measurement | Mapping[str, Any]] = (),
        sweep: Literal['independent', 'shared'] = 'independent',
        spec: EvaluationSpec | None = None,
    ) -> None:
        if spec is None:
            base_spec = spec_from_arguments(
                attack=attack,
                radii=tuple(radii),
                seed=seed,
                limit=limit,
                name=title,
                space=space,
                target=target,
                region=region,
                score=score,
                source=source,
                measurements=measurements,
                sweep=sweep,
            )
            spec = replace(base_spec, **config_parts(runner.cfg))
        elif not isinstance(spec, EvaluationSpec):
            raise UserError(f'AttackTestLoop.spec must be an EvaluationSpec; found {shown(spec)}')
        dataset = _dataset(dataloader)
        self.spec = spec.completed(dataset)
        self.selection = _selection(dataset, spec)
        indexes = self.selection.indexes
        sample = {indexes[i] for i in evenly_spaced(len(indexes), show)} if show else set()
        self.show = show
        self.collector = ExampleCollector(sample, show // 2, rgb=loads_rgb(runner.cfg, dataset))
        self.examples: list[Example] = []
        self.seconds = {'clean': 0.0, **dict.fromkeys(spec.attacks, 0.0)}
        self.store: ResultStore | None = None
        self.done, self.missing = 0, indexes
        self.removed: list[str] = []
        self.largest_group: int | None = None
        self.outcome: Outcome | None = None
        self.summaries: dict[str, Any] = {}
        self.dataloader_config = in_order({**dataloader, 'dataset': self.selection}, round_up=False)
        super().__init__(runner, self.dataloader_config, evaluator)
        segmentor = unwrap(runner.model)
        head = head_ignore_index(segmentor)
        self.ignore_index = metrics_ignore_index(self.evaluator.metrics, head)
        self.predictor = Predictor.of(self.spec, segmentor, dataset.metainfo['classes'], self.ignore_index)
        self.caveats = [*self._notes(segmentor), *disagreement(head, self.ignore_index), *self.spec.notes]

    def _notes(self, segmentor: Any) -> list[str]:
        """Returns the notes that follow from the evaluation, the model and the data."""
        spec = self.spec
        notes = [*step_notes(spec.attack, spec.attacks), *caveats(segmentor), *sweep_notes(spec)]
        return [*notes, *label_map_notes(segmentor, self.selection.metainfo)]

    @property
    def context(self) -> RunContext:
        """Returns the parts of the run that measurements may use."""
        shown = tuple(example for example in self.examples if example.index in self.collector.sample)
        return RunContext(self.spec, self.predictor, self.selection, self.collector.rgb, self.show, shown, self.store)

    def settings(self) -> dict[str, Any]:
        """Returns the settings that must be the same when the run is resumed, fit for JSON."""
        dataset = self.selection.dataset
        facts = {
            'type': type(dataset).__name__,
            'classes': list(dataset.metainfo['classes']),
        }
        return {**self.spec.settings(), 'dataset': facts, 'ignore_index': self.ignore_index}

    def resume_from(self, store: ResultStore) -> int:
        """Connects the run to a store, and returns the number of images that the store already holds.

        The run writes its results to the store as it goes, and skips the images that the store holds.
        All processes must call this method before ``run``. If the store lacks the arrays of an image to be shown, the
        run does that image again. If a stored image is no longer in the data, it is left out and named in ``caveats``.

        Raises:
            UserError: the stored results were made with other settings, or the images have changed since.
        """
        metrics = [metric for metric in self.evaluator.metrics if isinstance(metric, AttackMetric)]
        if len(metrics) != len(self.evaluator.metrics):
            raise UserError(
                'a run that stores its results takes AttackMetric or EnsembleMetric alone; remove the other metrics'
            )
        self.store = store
        seen = all_gather_object(store.records())  # each of several machines may see its own part
        by_name = {str(record.get('image')): rank for rank in reversed(range(len(seen))) for record in seen[rank]}
        records = {str(record.get('image')): record for part in reversed(seen) for record in part}
        for record in records.values():
            check_record(record, self.predictor.num_classes, str(store.folder))
        names = {index: self.selection.name(index) for index in self.selection.indexes}
        known = {index: by_name[name] for index, name in names.items() if name in by_name}
        by_index = {index: {**records[names[index]], 'index': index} for index in known}
        stored = {index: ImageRecord.from_json(record, str(store.folder)) for index, record in by_index.items()}
        self.removed = self.selection.removed(records)
        verdict: list[str | None] = [None]
        if is_main_process():
            verdict = [_changed_image(self.selection, stored) or _none_left(records, self.removed)]
        broadcast_object_list(verdict)
        if verdict[0]:
            raise UserError(
                f'{store.folder.parent} was started with other images: {verdict[0]}; choose another output folder'
            )
        if self.removed:
            self.caveats.append(_removed_text(self.removed))
        self.missing = [index for index in self.selection.indexes if index not in stored]
        incomplete = {
            i for i, record in stored.items() if not all(m.holds(self.context, record) for m in self._measured)
        }
        redone = self.collector.adopt(stored, store) | set.intersection(*all_gather_object(incomplete))
        done = {index: record for index, record in stored.items() if index not in redone}
        for metric in metrics:
            metric.adopt(record for index, record in done.items() if known[index] == get_rank())
        self.done = len(done)
        remaining = [index for index in self.selection.indexes if index not in done]
        config = {**self.dataloader_config, 'dataset': Selection(self.selection.dataset, remaining)}
        self.dataloader = self.runner.build_dataloader(config, seed=self.runner.seed)
        return len(done)

    def run(self) -> dict:
        """Returns the metrics of the whole dataset."""
        self.progress = Progress(
            self.done + len(self.dataloader.dataset), self.spec.title, self.done, len(self.dataloader.sampler)
        )
        if is_main_process():
            for caveat in self.caveats:
                self.progress.say(f'note: {caveat}')
        try:
            for measurement in self.spec.measurements:
                self.predictor = measurement.prepare(self.context)
            metrics = super().run()
        finally:
            self.progress.close()
            if self.store is not None:
                self.store.close()
        self.examples = self.collector.gather()
        if is_main_process():
            self._summarise()
        return metrics

    def _summarise(self) -> None:
        """Adds the summaries of the measurements to the evaluation of the metric."""
        metric = next((one for one in self.evaluator.metrics if isinstance(one, AttackMetric)), None)
        if metric is None or metric.evaluation is None:
            return
        outcome = Outcome(metric.evaluation, metric.per_image, metric.records)
        for measurement in self.spec.measurements:
            summary = measurement.to_json(measurement.summarise(self.context, outcome))
            if measurement.of_run:
                self.summaries[measurement.name] = summary
            else:
                summaries = {**outcome.evaluation.measurements, measurement.name: summary}
                outcome = outcome._replace(evaluation=replace(outcome.evaluation, measurements=summaries))
        self.outcome = outcome

    @property
    def _measured(self) -> list[Measurement]:
        """Returns the measurements that have a value for each image."""
        return [measurement for measurement in self.spec.measurements if measurement.key]

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict) -> None:
        """Predicts one batch, clean and attacked."""
        self.runner.call_hook('before_test_iter', batch_idx=idx, data_batch=data_batch)
        inputs, samples = list(data_batch['inputs']), data_batch['data_samples']
        if self.predictor.region is not None:
            note_regions(inputs, samples, self.predictor.region, self.spec.score, self.ignore_index)
        done: list[int] = []
        for group in groups_of_one_geometry(inputs, samples):
            done += self._run_group(group, inputs, samples)
        batch = {'inputs': [inputs[i] for i in sorted(done)], 'data_samples': [samples[i] for i in sorted(done)]}
        for sample in batch['data_samples']:
            record = image_record(sample.to_dict(), self.predictor.num_classes)
            sample.set_field(record, 'attack_record')
            if self.store is not None:
                self.store.append(record.to_json())
        self.evaluator.process(data_samples=batch['data_samples'], data_batch=batch)
        self.collector.keep((sample.metainfo['sample_idx'] for sample in batch['data_samples']), self.store)
        self.runner.call_hook('after_test_iter', batch_idx=idx, data_batch=batch, outputs=batch['data_samples'])
        self.progress.advance(len(samples))

    def _run_group(self, group: list[int], inputs: list[Tensor], samples: list[Any]) -> list[int]:
        """Predicts samples of one geometry, in parts if memory is short, and returns the positions that succeeded."""
        size = self.largest_group or len(group)
        waiting = [group[start : start + size] for start in range(0, len(group), size)]
        done: list[int] = []
        while waiting:
            part = waiting.pop(0)
            try:
                measured = self._measure_if_it_fits([inputs[i] for i in part], [samples[i] for i in part])
            except ImageFailed as failure:
                self._fail(samples[part[failure.position]], str(failure))
                rest = [i for n, i in enumerate(part) if n != failure.position]
                waiting[:0] = [rest] if rest else []
                continue
            if measured is None:
                self._shrink(len(part))
                waiting[:0] = [part[: self.largest_group], part[self.largest_group :]]
                continue
            self._take([samples[i] for i in part], *measured)
            done += part
        return done

    def _measure_if_it_fits(
        self, inputs: list[Tensor], samples: list[Any]
    ) -> tuple[PredictedGroup, list[dict[str, Any]]] | None:
        """Returns the predictions, and key -> value of the measurements for each image.

        It returns None if several images do not fit into memory together.
        """
        try:
            predicted = self.predictor(inputs, samples)
            values: list[dict[str, Any]] = [{} for _ in samples]
            for measurement in self._measured:
                for own, value in zip(values, measurement.measure(self.context, predicted), strict=True):
                    own.update({} if value is None else {measurement.key: value})
        except (RuntimeError, MemoryError) as error:
            if len(inputs) == 1 or not is_out_of_memory(error):
                raise
            return None
        return predicted, values

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
        """Notes that the model failed on an image; the run goes on without the image."""
        record = FailedRecord(sample.metainfo['sample_idx'], sample.metainfo['image_name'], reason)
        for metric in self.evaluator.metrics:
            if isinstance(metric, AttackMetric):
                metric.adopt([record])
        self.progress.say(f'failed: {reason}')

    def _take(self, samples: list[Any], predicted: PredictedGroup, values: list[dict[str, Any]]) -> None:
        """Writes the predictions into the samples, the examples, the sums and the times."""
        examples = self.collector.start(samples, predicted)
        for sample, prediction, measured in zip(samples, predicted.clean, values, strict=True):
            sample.pred_sem_seg = PixelData(data=prediction[None])
            sample.set_field({}, 'adversarial')
            attack = {'title': self.spec.title, 'ignore_index': predicted.ignore_index, 'passes': {}, 'reached': {}}
            sample.set_field({**attack, 'void': list(predicted.void), 'measurements': measured}, 'attack')
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
                    examples[i].adversarial[radius] = displayed(attacked.images[i], self.collector.rgb)
                    examples[i].attacked[radius] = attacked.worst[i].numpy()
            self._count(radius, attacked.worst, predicted)
            self.seconds[radius] += attacked.seconds

    def _count(self, name: str, predictions: Tensor, predicted: PredictedGroup) -> None:
        valid = predicted.labels != predicted.ignore_index
        self.progress.add(name, int(((predictions == predicted.labels) & valid).sum()), int(valid.sum()))


def _dataset(dataloader: Any) -> Any:
    """Returns the dataset of a test dataloader's config, checked to give the same samples at every read."""
    dataset = dataset_of(dataloader, 'test_dataloader', 'AttackTestLoop')
    check_deterministic(dataset, 'test_dataloader.dataset')
    return dataset


def _selection(dataset: Any, spec: EvaluationSpec) -> Selection:
    """Returns the samples of a dataset that an evaluation uses; their files are checked."""
    if spec.space == 'image':
        attack_image_files(dataset)
    selection = Selection(dataset, evenly_spaced(len(dataset), spec.limit))
    selection.check_files()
    return selection


def _changed_image(dataset: Selection, stored: Mapping[int, ImageRecord]) -> str | None:
    """Returns a sentence on the first image that has changed since its result was stored; None if none has."""
    for index, record in stored.items():
        try:
            if dataset.digest(index) != record.digest:
                return f'{record.image} (number {index}) or its label has changed since'
        except UserError as error:
            return str(error)
    return None


def _none_left(records: Collection[str], removed: Sequence[str]) -> str | None:
    """Returns a sentence if the dataset has none of the stored images, else None."""
    return f'the data has none of its {len(records)} images' if records and len(removed) == len(records) else None


def _removed_text(names: Sequence[str]) -> str:
    """Returns the sentence on images that have stored results but are no longer in the data."""
    listed = ', '.join(names[:REMOVED_SHOWN]) + (', ...' if len(names) > REMOVED_SHOWN else '')
    count = '1 image that this run began with is' if len(names) == 1 else f'{len(names)} images of this run are'
    return f'{count} no longer in the data and in no number: {listed}'
