"""The base of measurements that train an attack once, on images of the training data."""

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

from mmadv.attacks import NonFinite, TrainingBatch, derive_seed
from mmadv.attacks.trained_attack import TrainedAttack
from mmadv.engine.attack_regions import parse_box
from mmadv.engine.attacked_batches import groups_of_one_geometry
from mmadv.engine.data import Selection, build_dataset, evenly_spaced
from mmadv.engine.image_space import attack_image_files
from mmadv.engine.measurements.minimal_radius import MinimalRadius
from mmadv.engine.measurements.sanity_checks import SanityChecks
from mmadv.engine.predictor import Predictor
from mmadv.engine.spec import first_attack
from mmadv.errors import UserError
from mmadv.evaluation.result_store import ResultStore
from mmadv.report.measurement import Measurement


@dataclass
class TrainedOnce(Measurement):
    """Trains the attack of a run at every radius, once.

    The images come from the training data, and the test pipeline reads them. The seed decides the mini-batches, which
    are the same for every radius. The trained arrays are stored with the results of an unfinished run, and in the
    folder of a finished run.

    Attributes:
        kind: the attack.
        what: the trained tensor, in sentences.
        array: its name in files.

    Raises:
        UserError: there are no training data, or the test pipeline cannot be used for them.
    """

    _images: Selection | None = field(default=None, init=False, repr=False)
    _names: list[list[str]] = field(default_factory=list, init=False, repr=False)

    kind: ClassVar[type[TrainedAttack]]
    what: ClassVar[str]
    array: ClassVar[str]
    of_run: ClassVar[bool] = True

    @classmethod
    def implied_by(cls, attack: Any) -> Measurement | None:
        return cls() if isinstance(attack, cls.kind) else None

    def settings(self, spec: Any) -> Any:
        """Returns the settings that decide the training, besides the attack and the settings of the run."""
        return {'data': training_data(spec, self.kind.__name__), 'size': len(self._selection(spec).dataset)}

    def check(self, spec: Any) -> None:
        refused = [type(one).__name__ for one in spec.measurements if isinstance(one, SanityChecks | MinimalRadius)]
        by_labels = spec.region and parse_box(spec.region) is None
        aims = {'test_cfg.target': spec.target, f'test_cfg.region {spec.region}': by_labels}
        for name in [*refused, *(aim for aim, given in aims.items() if given)]:
            raise UserError(
                f'{name} needs an attack that perturbs each image by itself; leave it out, or name another attack than '
                f'{self.kind.__name__}'
            )

    def prepare(self, context: Any) -> Any:
        """Returns the predictor with trained attacks: stored ones, or ones that the main process trains now."""
        predictor = context.predictor
        trainer = replace(predictor, segmentor=predictor.source or predictor.segmentor, source=None, attacks={})
        attacks = {}
        for radius, attack in predictor.attacks.items():
            attacks[radius] = attack
            if not isinstance(attack, self.kind):
                continue
            trained = [self._stored(radius, context.store) if is_main_process() else None]
            if is_main_process() and trained[0] is None:
                trained = [self._trained(context, radius, attack, trainer)]
                if context.store is not None:
                    arrays = {self.array: trained[0], 'key': _key(context.store)}
                    context.store.save_arrays(f'{self.name}-{self._stem(radius)}', arrays)
            broadcast_object_list(trained)
            attacks[radius] = attack.with_trained(torch.from_numpy(trained[0]))
        return replace(predictor, attacks=attacks)

    def _written(self, context: Any, folder: Path) -> dict[str, str]:
        """Writes every trained array, and its picture; returns radius -> file of the array."""
        files = {}
        (folder / self.name).mkdir()
        for radius, attack in context.predictor.attacks.items():
            if not isinstance(attack, self.kind) or attack.trained is None:
                continue
            values = attack.trained.cpu().numpy()
            path = folder / self.name / f'{self._stem(radius)}.npz'
            arrays: dict[str, Any] = {self.array: values, 'key': _key(context.store)}
            np.savez_compressed(path, **arrays)
            shown = self._picture(values.transpose(1, 2, 0))
            ordered = shown[:, :, ::-1] if context.rgb else shown  # OpenCV writes BGR
            _, data = cv2.imencode('.png', np.ascontiguousarray((ordered * 255).round().astype(np.uint8)))
            path.with_suffix('.png').write_bytes(data.tobytes())
            files[radius] = f'{self.name}/{path.name}'
        return files

    def _stem(self, radius: str) -> str:
        """Returns the name of the files of a radius, without suffix."""
        return radius.replace('/', '_')

    def _picture(self, values: np.ndarray) -> np.ndarray:
        """Returns a picture (h, w, 3 or 1) in [0, 1] of the trained array (h, w, C)."""
        raise NotImplementedError

    def _read(self, context: Any, predictor: Predictor, inputs: Sequence[torch.Tensor], samples: Sequence[Any]) -> None:
        """Checks the images of a mini-batch, and prepares their labels."""

    def _selection(self, spec: Any) -> Selection:
        """Returns the training images."""
        if self._images is None:
            dataset = build_dataset(training_data(spec, self.kind.__name__), 'train_dataloader.dataset')
            if spec.space == 'image':
                attack_image_files(dataset)
            _, attack = first_attack(spec.attacks)
            assert isinstance(attack, self.kind)
            self._images = Selection(dataset, evenly_spaced(len(dataset), attack.training_images))
        return self._images

    def _trained(self, context: Any, radius: str, attack: TrainedAttack, predictor: Predictor) -> np.ndarray:
        context.predictor.segmentor.eval()
        images = self._selection(context.spec)
        print(
            f'training {self.what} at radius {radius}: {attack.steps} mini-batches of {attack.batch_size} '
            f'from {len(images)} of {len(images.dataset)} training images',
            file=sys.stderr,
        )
        seed = derive_seed(context.spec.seed, self.name)
        try:
            batches = self._batches(context, attack, predictor)
            assert predictor.ignore_index is not None  # a run always sets it
            trained = attack.train(batches, seed=seed, ignore_index=predictor.ignore_index)
        except NonFinite as error:
            names = ', '.join(name for part in self._names for name in part)
            raise UserError(
                f'{error.description} while {self.what} is trained on {names}; check the checkpoint and the precision'
            ) from error
        return trained.trained.cpu().numpy()

    def _batches(self, context: Any, attack: TrainedAttack, predictor: Predictor) -> Iterator[Sequence[TrainingBatch]]:
        """Yields mini-batches without end; each round has every image once, in a new order."""
        images = self._selection(context.spec)
        draw = np.random.default_rng(derive_seed(context.spec.seed, f'{self.name} order'))
        waiting: list[int] = []
        while True:
            while len(waiting) < attack.batch_size:
                waiting += draw.permutation(len(images)).tolist()
            chosen, waiting = waiting[: attack.batch_size], waiting[attack.batch_size :]
            read = [images[n] for n in chosen]
            inputs, samples = [data['inputs'] for data in read], [data['data_samples'] for data in read]
            self._read(context, predictor, inputs, samples)
            self._names = [[sample.metainfo['image_name'] for sample in samples]]
            parts = []
            for group in groups_of_one_geometry(inputs, samples):
                parts.append(
                    TrainingBatch(*predictor.prepared([inputs[i] for i in group], [samples[i] for i in group]))
                )
            yield parts

    def _stored(self, radius: str, store: ResultStore | None) -> np.ndarray | None:
        """Returns the array that an earlier start of this same run stored; None if there is none."""
        if store is None:
            return None
        finished = ResultStore(store.folder.parent / self.name, store.settings)
        for arrays in (
            store.load_arrays(f'{self.name}-{self._stem(radius)}'),
            finished.load_arrays(self._stem(radius)),
        ):
            if arrays is not None and str(arrays.get('key')) == _key(store):
                return arrays[self.array]
        return None


def training_data(spec: Any, attack: str) -> dict[str, Any]:
    """Returns the config of the training data, with the pipeline of the test data.

    Raises:
        UserError: the training data or the pipeline is missing.
    """
    if spec.training_data is None:
        raise UserError(
            f"the attack {attack} trains on the training data, but the config has no 'train_dataloader'; add one"
        )
    test = spec.config['test_dataloader']['dataset']
    while 'pipeline' not in test and ('dataset' in test or test.get('datasets')):
        test = test.get('dataset') or test['datasets'][0]
    if 'pipeline' not in test:
        raise UserError(
            f'the attack {attack} reads the training data by the pipeline of the test data; the config has none'
        )
    return _with_pipeline(spec.training_data, test['pipeline'])


def _with_pipeline(dataset: Mapping[str, Any], pipeline: Sequence[Any]) -> dict[str, Any]:
    """Returns a dataset config whose leaves have a pipeline, without wrappers that only repeat or mix images."""
    if 'datasets' in dataset:
        return {**dataset, 'datasets': [_with_pipeline(part, pipeline) for part in dataset['datasets']]}
    if 'dataset' in dataset:
        return _with_pipeline(dataset['dataset'], pipeline)
    return {**dataset, 'pipeline': list(pipeline)}


def _key(store: ResultStore | None) -> str:
    """Returns a key of the run's settings, which tells its arrays from those of other settings."""
    settings = store.settings if store is not None else {}
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16).hexdigest()
