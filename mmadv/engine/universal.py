"""``--attack universal``: one perturbation for all test images, trained on images of the training data."""

from __future__ import annotations

import hashlib
import json
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.runner import Runner

from mmadv.attacks import Attack, NonFinite, TrainingBatch, Universal, derive_seed
from mmadv.engine.attack_test_loop import AttackTestLoop
from mmadv.engine.attacked_batches import groups_of_one_geometry
from mmadv.engine.attacked_group import GroupPredictor
from mmadv.engine.data import Selection, build_dataset, evenly_spaced
from mmadv.engine.image_space import attack_image_files
from mmadv.errors import UserError
from mmadv.evaluation.result_store import ResultStore
from mmadv.models.adapter import unwrap
from mmadv.report.pictures import magnified

FOLDER = 'universal'


def check_universal(attack: Attack | None, arguments: Namespace) -> None:
    """Raises UserError for options that a universal attack does not go with."""
    if not isinstance(attack, Universal):
        return
    for option in ('check', 'target', 'minimal_radius'):
        if getattr(arguments, option) is not None:
            raise UserError(
                f'--{option.replace("_", "-")} needs an attack on each image by itself; leave it out, or name another '
                'attack than the universal one'
            )


class UniversalTraining:
    """Trains the universal attack of a run at every radius, once.

    The images are those of the training data, read by the test pipeline. Mini-batches are drawn by the seed, the same
    for every radius. What is trained is kept with the results of an unfinished run and in the folder of a finished one.

    Args:
        config: of the model and its data.
        loop: of the run; its attack is universal.
        space: what is perturbed, 'input' or 'image'.
        out: output folder of the run.

    Raises:
        UserError: no training data, or a test pipeline that cannot be used for it.
    """

    def __init__(self, config: Config, loop: AttackTestLoop, space: str, out: Path) -> None:
        self.loop, self.out = loop, out
        self.data = training_data(config)
        dataset = build_dataset(self.data, 'train_dataloader.dataset')
        if space == 'image':
            attack_image_files(dataset)
        attack = next(attack for attack in loop.attacks.values() if isinstance(attack, Universal))
        self.images = Selection(dataset, evenly_spaced(len(dataset), attack.training_images))
        self.size = len(dataset)

    @property
    def settings(self) -> Any:
        """What decides the perturbations beside the attack and the settings of the run."""
        return {'data': self.data, 'size': self.size}

    def run(self, runner: Runner, store: ResultStore) -> None:
        """Gives the loop's attacks their perturbations, trained by the main process or kept from before.

        Args:
            runner: of the model.
            store: of the run, with its settings.
        """
        runner.model.eval()
        predictor = GroupPredictor(
            self.loop.source or unwrap(runner.model),
            {},
            seed=self.loop.seed,
            title=self.loop.title,
            num_classes=self.loop.num_classes,
            ignore_index=self.loop.ignore_index,
        )
        for radius, attack in self.loop.attacks.items():
            if not isinstance(attack, Universal):
                continue
            found = [self._kept(radius, store) if is_main_process() else None]
            if is_main_process() and found[0] is None:
                found = [self._train(radius, attack, predictor)]
                store.save_arrays(_array_name(radius), {'perturbation': found[0], 'key': self._key(store)})
            broadcast_object_list(found)
            self.loop.attacks[radius] = attack.with_perturbation(torch.from_numpy(found[0]))

    def write(self, folder: Path) -> dict[str, Any]:
        """Writes every perturbation as numbers and, magnified, as a picture; returns the entry of the results."""
        entry: dict[str, Any] = {'training_images': len(self.images), 'training_data': self.size, 'files': {}}
        (folder / FOLDER).mkdir()
        for radius, attack in self.loop.attacks.items():
            if not isinstance(attack, Universal) or attack.perturbation is None:
                continue
            perturbation = attack.perturbation.cpu().numpy()
            path = folder / FOLDER / f'{radius.replace("/", "_")}.npz'
            np.savez_compressed(path, perturbation=perturbation, key=self._key(self.loop.store))
            pixels = perturbation.transpose(1, 2, 0)
            pixels = pixels if pixels.shape[2] == 3 else pixels[:, :, :1]
            shown, _ = magnified(np.zeros_like(pixels), pixels)
            ordered = shown[:, :, ::-1] if self.loop.drawn.rgb else shown  # OpenCV writes BGR
            _, data = cv2.imencode('.png', np.ascontiguousarray((ordered * 255).round().astype(np.uint8)))
            path.with_suffix('.png').write_bytes(data.tobytes())
            entry['files'][radius] = f'{FOLDER}/{path.name}'
        return entry

    def _train(self, radius: str, attack: Universal, predictor: GroupPredictor) -> np.ndarray:
        print(
            f'training a universal perturbation at radius {radius}: {attack.steps} mini-batches of {attack.batch_size} '
            f'from {len(self.images)} of {self.size} training images',
            file=sys.stderr,
        )
        self._names: list[list[str]] = []
        seed = derive_seed(self.loop.seed, 'universal')
        try:
            trained = attack.train(self._batches(attack, predictor), seed=seed, ignore_index=self.loop.ignore_index)
        except NonFinite as error:
            names = ', '.join(name for part in self._names for name in part)
            raise UserError(
                f'{error.finding} while a universal perturbation is trained on {names}; '
                'check the checkpoint and the precision'
            ) from error
        assert trained.perturbation is not None
        return trained.perturbation.cpu().numpy()

    def _batches(self, attack: Universal, predictor: GroupPredictor) -> Iterator[Sequence[TrainingBatch]]:
        """Yields mini-batches without end: every image once in an order of its own for each round."""
        draw = np.random.default_rng(derive_seed(self.loop.seed, 'universal order'))
        waiting: list[int] = []
        while True:
            while len(waiting) < attack.batch_size:
                waiting += draw.permutation(len(self.images)).tolist()
            chosen, waiting = waiting[: attack.batch_size], waiting[attack.batch_size :]
            read = [self.images[n] for n in chosen]
            inputs, samples = [data['inputs'] for data in read], [data['data_samples'] for data in read]
            self._check_sizes(inputs, samples)
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

    def _kept(self, radius: str, store: ResultStore) -> np.ndarray | None:
        """Returns the perturbation of an earlier session of this very run, None without."""
        finished = ResultStore(self.out / FOLDER, store.settings)
        for arrays in (store.load_arrays(_array_name(radius)), finished.load_arrays(radius.replace('/', '_'))):
            if arrays is not None and str(arrays.get('key')) == self._key(store):
                return arrays['perturbation']
        return None

    @staticmethod
    def _key(store: ResultStore | None) -> str:
        assert store is not None
        return hashlib.blake2b(json.dumps(store.settings, sort_keys=True).encode(), digest_size=16).hexdigest()


def training_data(config: Config) -> dict[str, Any]:
    """Returns the config of the training data, to be read by the pipeline of the test data.

    Raises:
        UserError: a config without one of them.
    """
    if config.get('train_dataloader') is None or config.train_dataloader.get('dataset') is None:
        raise UserError(
            "--attack universal trains on the training data, and the config has no 'train_dataloader'; add one"
        )
    test = config.test_dataloader.dataset.to_dict()
    while 'pipeline' not in test and ('dataset' in test or test.get('datasets')):
        test = test.get('dataset') or test['datasets'][0]
    if 'pipeline' not in test:
        raise UserError('--attack universal reads the training data by the pipeline of the test data, which has none')
    return _with_pipeline(config.train_dataloader.dataset.to_dict(), test['pipeline'])


def _with_pipeline(dataset: Mapping[str, Any], pipeline: Sequence[Any]) -> dict[str, Any]:
    """Returns a dataset config whose leaves have a pipeline; wrappers that only repeat or mix images are left out."""
    if 'datasets' in dataset:
        return {**dataset, 'datasets': [_with_pipeline(part, pipeline) for part in dataset['datasets']]}
    if 'dataset' in dataset:
        return _with_pipeline(dataset['dataset'], pipeline)
    return {**dataset, 'pipeline': list(pipeline)}


def _array_name(radius: str) -> str:
    return f'universal-{radius.replace("/", "_")}'
