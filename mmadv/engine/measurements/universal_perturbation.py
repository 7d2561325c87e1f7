"""One perturbation for all test images, trained on images of the training data: the ``universal`` attack."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from mmengine.dist import broadcast_object_list, is_main_process

from mmadv.attacks import NonFinite, TrainingBatch, Universal, derive_seed
from mmadv.engine.attack_regions import note_regions, parse_box
from mmadv.engine.attacked_batches import groups_of_one_geometry
from mmadv.engine.data import Selection, build_dataset, evenly_spaced
from mmadv.engine.image_space import attack_image_files
from mmadv.engine.measurements.minimal_radius import MinimalRadius
from mmadv.engine.measurements.sanity_checks import SanityChecks
from mmadv.engine.predictor import Predictor
from mmadv.engine.spec import first_attack
from mmadv.errors import UserError
from mmadv.evaluation.result_store import ResultStore
from mmadv.fields import NotNegative
from mmadv.report.measurement import Measurement, Outcome, register_measurement
from mmadv.report.pictures import magnified
from mmadv.report.schema import Schema

FOLDER = 'universal'


@dataclass(frozen=True)
class UniversalSummary(Schema):
    """A universal attack, trained on ``training_images`` of ``training_data`` images; ``files``: radius -> file."""

    training_images: NotNegative
    training_data: NotNegative
    files: dict[str, str]


@register_measurement
@dataclass
class UniversalPerturbation(Measurement):
    """Trains the universal attack of a run at every radius, once.

    The images come from the training data, and the test pipeline reads them. The seed decides the mini-batches, which
    are the same for every radius. The trained perturbations are stored with the results of an unfinished run, and in
    the folder of a finished run.

    Raises:
        UserError: there are no training data, or the test pipeline cannot be used for them.
    """

    _images: Selection | None = field(default=None, init=False, repr=False)
    _names: list[list[str]] = field(default_factory=list, init=False, repr=False)

    name: ClassVar[str] = 'universal'
    summary: ClassVar[Any] = UniversalSummary
    of_run: ClassVar[bool] = True

    @classmethod
    def implied_by(cls, attack: Any) -> Measurement | None:
        return cls() if isinstance(attack, Universal) else None

    def settings(self, spec: Any) -> Any:
        """Returns the settings that decide the perturbations, besides the attack and the settings of the run."""
        return {'data': training_data(spec), 'size': len(self._selection(spec).dataset)}

    def check(self, spec: Any) -> None:
        refused = [type(one).__name__ for one in spec.measurements if isinstance(one, SanityChecks | MinimalRadius)]
        by_labels = spec.region and parse_box(spec.region) is None
        aims = {'test_cfg.target': spec.target, f'test_cfg.region {spec.region}': by_labels}
        for name in [*refused, *(aim for aim, given in aims.items() if given)]:
            raise UserError(
                f'{name} needs an attack that perturbs each image by itself; leave it out, or name another attack than '
                'Universal'
            )

    def prepare(self, context: Any) -> Any:
        """Returns the predictor with trained attacks: stored ones, or ones that the main process trains now."""
        predictor = context.predictor
        trainer = replace(predictor, segmentor=predictor.source or predictor.segmentor, source=None, attacks={})
        attacks = {}
        for radius, attack in predictor.attacks.items():
            attacks[radius] = attack
            if not isinstance(attack, Universal):
                continue
            trained = [self._kept(radius, context.store) if is_main_process() else None]
            if is_main_process() and trained[0] is None:
                trained = [self._train(context, radius, attack, trainer)]
                if context.store is not None:
                    arrays = {'perturbation': trained[0], 'key': _key(context.store)}
                    context.store.save_arrays(_array_name(radius), arrays)
            broadcast_object_list(trained)
            attacks[radius] = attack.with_perturbation(torch.from_numpy(trained[0]))
        return replace(predictor, attacks=attacks)

    def summarise(self, context: Any, outcome: Outcome) -> UniversalSummary:
        images = self._selection(context.spec)
        return UniversalSummary(len(images), len(images.dataset), {})

    def write(self, context: Any, folder: Path, outcome: Outcome, summary: UniversalSummary) -> UniversalSummary:
        """Writes every perturbation as an array and as a magnified picture."""
        files = {}
        (folder / FOLDER).mkdir()
        for radius, attack in context.predictor.attacks.items():
            if not isinstance(attack, Universal) or attack.perturbation is None:
                continue
            perturbation = attack.perturbation.cpu().numpy()
            path = folder / FOLDER / f'{radius.replace("/", "_")}.npz'
            np.savez_compressed(path, perturbation=perturbation, key=_key(context.store))
            pixels = perturbation.transpose(1, 2, 0)
            pixels = pixels if pixels.shape[2] == 3 else pixels[:, :, :1]
            shown, _ = magnified(np.zeros_like(pixels), pixels)
            ordered = shown[:, :, ::-1] if context.rgb else shown  # OpenCV writes BGR
            _, data = cv2.imencode('.png', np.ascontiguousarray((ordered * 255).round().astype(np.uint8)))
            path.with_suffix('.png').write_bytes(data.tobytes())
            files[radius] = f'{FOLDER}/{path.name}'
        return replace(summary, files=files)

    @classmethod
    def files(cls, summary: UniversalSummary) -> dict[str, str]:
        return {f'files.{radius}': file for radius, file in summary.files.items()}

    def _selection(self, spec: Any) -> Selection:
        """Returns the training images."""
        if self._images is None:
            dataset = build_dataset(training_data(spec), 'train_dataloader.dataset')
            if spec.space == 'image':
                attack_image_files(dataset)
            _, attack = first_attack(spec.attacks)
            assert isinstance(attack, Universal)
            self._images = Selection(dataset, evenly_spaced(len(dataset), attack.training_images))
        return self._images

    def _train(self, context: Any, radius: str, attack: Universal, predictor: Predictor) -> np.ndarray:
        context.predictor.segmentor.eval()
        images = self._selection(context.spec)
        print(
            f'training a universal perturbation at radius {radius}: {attack.steps} mini-batches of {attack.batch_size} '
            f'from {len(images)} of {len(images.dataset)} training images',
            file=sys.stderr,
        )
        seed = derive_seed(context.spec.seed, 'universal')
        try:
            batches = self._batches(context, attack, predictor)
            assert predictor.ignore_index is not None  # a run always sets it
            trained = attack.train(batches, seed=seed, ignore_index=predictor.ignore_index)
        except NonFinite as error:
            names = ', '.join(name for part in self._names for name in part)
            raise UserError(
                f'{error.description} while a universal perturbation is trained on {names}; '
                'check the checkpoint and the precision'
            ) from error
        assert trained.perturbation is not None
        return trained.perturbation.cpu().numpy()

    def _batches(self, context: Any, attack: Universal, predictor: Predictor) -> Iterator[Sequence[TrainingBatch]]:
        """Yields mini-batches without end; each round has every image once, in a new order."""
        images = self._selection(context.spec)
        draw = np.random.default_rng(derive_seed(context.spec.seed, 'universal order'))
        waiting: list[int] = []
        while True:
            while len(waiting) < attack.batch_size:
                waiting += draw.permutation(len(images)).tolist()
            chosen, waiting = waiting[: attack.batch_size], waiting[attack.batch_size :]
            read = [images[n] for n in chosen]
            inputs, samples = [data['inputs'] for data in read], [data['data_samples'] for data in read]
            self._check_sizes(inputs, samples)
            if predictor.region is not None:
                assert predictor.ignore_index is not None  # a run always sets it
                note_regions(samples, predictor.region, context.spec.score, predictor.ignore_index)
            self._names = [[sample.metainfo['image_name'] for sample in samples]]
            parts = []
            for group in groups_of_one_geometry(inputs, samples):
                parts.append(
                    TrainingBatch(*predictor.prepared([inputs[i] for i in group], [samples[i] for i in group]))
                )
            yield parts

    def _check_sizes(self, inputs: Sequence[torch.Tensor], samples: Sequence[Any]) -> None:
        for image, sample in zip(inputs, samples, strict=True):
            if image.shape != inputs[0].shape:
                first, other = ('x'.join(map(str, one.shape[1:])) for one in (inputs[0], image))
                raise UserError(
                    f'a universal perturbation needs images of one size; {samples[0].metainfo["image_name"]} is '
                    f'{first}, {sample.metainfo["image_name"]} is {other} (height, width); resize or crop all images '
                    'to one size in the test pipeline'
                )

    @staticmethod
    def _kept(radius: str, store: ResultStore | None) -> np.ndarray | None:
        """Returns the perturbation that an earlier start of this same run stored; None if there is none."""
        if store is None:
            return None
        finished = ResultStore(store.folder.parent / FOLDER, store.settings)
        for arrays in (store.load_arrays(_array_name(radius)), finished.load_arrays(radius.replace('/', '_'))):
            if arrays is not None and str(arrays.get('key')) == _key(store):
                return arrays['perturbation']
        return None


def training_data(spec: Any) -> dict[str, Any]:
    """Returns the config of the training data, with the pipeline of the test data.

    Raises:
        UserError: the training data or the pipeline is missing.
    """
    if spec.training_data is None:
        raise UserError(
            "the attack Universal trains on the training data, but the config has no 'train_dataloader'; add one"
        )
    test = spec.config['test_dataloader']['dataset']
    while 'pipeline' not in test and ('dataset' in test or test.get('datasets')):
        test = test.get('dataset') or test['datasets'][0]
    if 'pipeline' not in test:
        raise UserError(
            'the attack Universal reads the training data by the pipeline of the test data; the config has none'
        )
    return _with_pipeline(spec.training_data, test['pipeline'])


def _with_pipeline(dataset: Mapping[str, Any], pipeline: Sequence[Any]) -> dict[str, Any]:
    """Returns a dataset config whose leaves have a pipeline, without wrappers that only repeat or mix images."""
    if 'datasets' in dataset:
        return {**dataset, 'datasets': [_with_pipeline(part, pipeline) for part in dataset['datasets']]}
    if 'dataset' in dataset:
        return _with_pipeline(dataset['dataset'], pipeline)
    return {**dataset, 'pipeline': list(pipeline)}


def _array_name(radius: str) -> str:
    return f'universal-{radius.replace("/", "_")}'


def _key(store: ResultStore | None) -> str:
    """Returns a key of the run's settings, which tells its perturbations from those of other settings."""
    settings = store.settings if store is not None else {}
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16).hexdigest()
