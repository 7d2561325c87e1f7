"""``mmadv certify``: certify the smoothed predictions of a checkpoint and write its results."""

from __future__ import annotations

import datetime
import json
import math
import time
from argparse import Namespace
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmseg.structures import SegDataSample
from torch import Tensor

from mmadv.attacks import derive_seed
from mmadv.checkpoints.loading import file_sha256, load_weights
from mmadv.commands.command_line import Parser, command_text, seed_number
from mmadv.commands.going_on import UNFINISHED, kept, opened, sole_run, without_resuming
from mmadv.commands.provenance import decisive_versions, hardware, versions
from mmadv.engine.data import Selection, build_dataset, classes_differ, evenly_spaced
from mmadv.engine.determinism import check_deterministic
from mmadv.engine.examples import loads_rgb
from mmadv.engine.progress import Progress
from mmadv.engine.scoring import scored_ignore_index
from mmadv.errors import UserError
from mmadv.evaluation.image_record import to_areas, to_counts
from mmadv.evaluation.record_check import check_certificate_record
from mmadv.evaluation.result_store import ResultStore
from mmadv.models.adapter import SegmentorAdapter, stack_images, stack_labels
from mmadv.models.batches import check_not_scaled, sample_names
from mmadv.models.building import build_segmentor, model_settings
from mmadv.report.certificates import certificate_table, draw_certificate
from mmadv.report.drawing import draw_file
from mmadv.report.output_folder import staged
from mmadv.robustness import Certificate, Certifier, certified_counts, count, metrics, worst_iou
from mmadv.robustness.certification import BOUNDS, CORRECTIONS, SHARES

SCHEMA, SCHEMA_VERSION, FILE_NAME = 'mmadv/certificates', 1, 'certificates.json'


def parser() -> Parser:
    """Returns the parser of ``mmadv certify``."""
    result = Parser(
        prog='mmadv certify',
        description='Certify a segmentor by randomized smoothing, in L2.',
        example='mmadv certify demo/pspnet_gaussian_digits.py work_dirs/gaussian/iter_200.pth --sigma 0.25',
    )
    result.add_argument('config', help='config of the model and its test data, of mmadv or mmseg')
    result.add_argument('checkpoint', help='checkpoint of the model, best one trained with Gaussian noise')
    result.add_argument('--sigma', type=float, required=True, help='standard deviation of the noise, images in [0, 1]')
    result.add_argument('--n0', type=int, default=10, help='draws that select each class (default: 10)')
    result.add_argument('--n', type=int, default=100, help='draws that certify (default: 100)')
    result.add_argument(
        '--alpha', type=float, default=0.001, help='error rate over all pixels of an image (default: 0.001)'
    )
    result.add_argument(
        '--tau', type=float, nargs='+', default=[0.75], help='thresholds in [0.5, 1), a radius each (default: 0.75)'
    )
    result.add_argument('--kind', choices=sorted(SHARES), default='hard', help='of smoothing (default: hard)')
    result.add_argument('--bound', choices=sorted(BOUNDS), help='default: clopper-pearson, or hoeffding for soft')
    result.add_argument('--correction', choices=sorted(CORRECTIONS), default='holm', help='default: holm')
    result.add_argument('--limit', type=int, help='number of images, spread evenly over the dataset; all by default')
    result.add_argument('--batch-size', type=int, default=16, help='draws at once; results do not depend on it')
    result.add_argument('--seed', type=seed_number, default=0, help='of all noise (default: 0)')
    result.add_argument('--out', metavar='DIR', help='results (default: work_dirs/CONFIG/certify_DATE)')
    result.add_argument('--show', type=int, default=4, help='number of images to draw (default: 4)')
    result.add_argument('--resume', action='store_true', help='go on with an interrupted run in --out, if there is one')
    result.add_argument('--restart', action='store_true', help='discard an interrupted run in --out')
    result.add_common()
    return result


def run_certify(argv: Sequence[str]) -> None:
    """Certifies a checkpoint as the arguments say, prints the table and writes the results.

    Raises:
        UserError: a mistake in the arguments, config, checkpoint or data. Images that were done before are kept; where
            there are none, nothing is written.
    """
    arguments = parser().parse_args(argv)
    if arguments.launcher != 'none':
        raise UserError('certify.py runs in one process; leave --launcher out')
    if arguments.limit is not None and arguments.limit < 1:
        raise UserError(f'--limit must be positive; found {arguments.limit}')
    certifier = Certifier(
        sigma=arguments.sigma,
        n0=arguments.n0,
        n=arguments.n,
        alpha=arguments.alpha,
        taus=tuple(sorted(arguments.tau)),
        kind=arguments.kind,
        bound=arguments.bound,
        correction=arguments.correction,
        batch=arguments.batch_size,
    )
    out = Path(arguments.out) if arguments.out else _default_out(arguments)
    config = opened(arguments, out)
    dataset = build_dataset(config.test_dataloader.dataset, 'test_dataloader.dataset')
    check_deterministic(dataset, 'test_dataloader.dataset')
    indexes = evenly_spaced(len(dataset), arguments.limit)
    config.model = model_settings(config)
    segmentor = build_segmentor(config)
    load_weights(segmentor, arguments.checkpoint)
    segmentor.to('cuda' if torch.cuda.is_available() else 'cpu').eval()
    selection = Selection(dataset, indexes)
    selection.check_files()
    run = CertificationRun(
        segmentor,
        selection,
        certifier,
        arguments.seed,
        loads_rgb(config, dataset),
        ignore_index=scored_ignore_index(config),
    )
    shown = {indexes[i] for i in evenly_spaced(len(indexes), arguments.show)} if arguments.show else set()
    with sole_run(arguments, out):
        settings = _settings(config, arguments, certifier, run.dataset, len(dataset))
        store = ResultStore(out / UNFINISHED, settings)
        if not arguments.resume:
            store.remove()
        start = time.perf_counter()
        with kept(store, out, 'certify', argv):
            run.over(store, shown)
            store.close()
            seconds = time.perf_counter() - start
            results = _write(out, arguments, argv, config, certifier, run, store, shown, seconds)
        store.remove()
    print(f'{certificate_table(results)}\n')
    print(f'results: {out}')


def _write(
    out: Path,
    arguments: Namespace,
    argv: Sequence[str],
    config: Config,
    certifier: Certifier,
    run: CertificationRun,
    store: ResultStore,
    shown: Iterable[int],
    seconds: float,
) -> dict[str, Any]:
    """Writes the result folder, and returns the content of its JSON file."""
    dataset = run.dataset.dataset
    with staged(out, last=FILE_NAME) as stage:
        results = {
            'schema': SCHEMA,
            'schema_version': SCHEMA_VERSION,
            'created': datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
            'command': command_text('certify', without_resuming(argv)),
            'config': {'file': arguments.config, 'text': config.pretty_text},
            'checkpoint': {'file': arguments.checkpoint, 'sha256': file_sha256(arguments.checkpoint)},
            'smoothing': _smoothing(certifier),
            'seed': arguments.seed,
            'dataset': {'type': type(dataset).__name__, 'size': len(dataset), 'limit': arguments.limit},
            'classes': list(dataset.metainfo['classes']),
            'versions': versions(),
            'hardware': hardware(),
            'seconds': {'total': round(seconds, 3), 'sampling': round(run.seconds, 3)},
            'pictures': run.draw(store, shown, stage),
            **run.evaluation(),
        }
        (stage / FILE_NAME).write_text(json.dumps(results, indent=1, allow_nan=False) + '\n', encoding='utf-8')
    return results


def _smoothing(certifier: Certifier) -> dict[str, Any]:
    """Returns what decides the certificates, fit for JSON; the batch does not."""
    names = ('sigma', 'n0', 'n', 'alpha', 'taus', 'kind', 'bound', 'correction')
    return {name: getattr(certifier, name) for name in names}


def _settings(
    config: Config, arguments: Namespace, certifier: Certifier, selection: Selection, size: int
) -> dict[str, Any]:
    """Returns everything that decides the numbers of an image: what must not change when a run goes on."""
    settings = config.to_dict()
    return {
        'checkpoint': {'sha256': file_sha256(arguments.checkpoint)},
        'smoothing': _smoothing(certifier),
        'seed': arguments.seed,
        'dataset': {'size': size, 'classes': list(selection.metainfo['classes'])},
        'config': {'model': settings['model'], 'test_dataset': settings['test_dataloader'].get('dataset')},
        'versions': decisive_versions(),
    }


class CertificationRun:
    """Certifies the images of a dataset one by one, and adds up what comes out.

    The noise of an image is a function of the seed and the image's name.

    Args:
        segmentor: in eval mode, on its device.
        dataset: what is certified, with labels.
        certifier: how.
        seed: of all noise.
        loaded_rgb: whether the dataset gives RGB images, as OpenMMLab's loaders do not.
        ignore_index: label of the pixels that are in no number.
    """

    def __init__(
        self,
        segmentor: Any,
        dataset: Selection,
        certifier: Certifier,
        seed: int,
        loaded_rgb: bool = False,
        ignore_index: int = 255,
    ) -> None:
        self.segmentor = segmentor
        self.dataset = dataset
        self.certifier = certifier
        self.seed = seed
        self.loaded_rgb = loaded_rgb
        self.seconds = 0.0
        self.num_classes = len(dataset.metainfo['classes'])
        self.ignore_index = ignore_index
        self.records: dict[int, dict[str, Any]] = {}

    def over(self, store: ResultStore, shown: set[int]) -> None:
        """Certifies the images that the store does not hold, and adds each to it as soon as it is done.

        Args:
            store: of the run.
            shown: indexes of the images whose certificates are kept to be drawn.
        """
        stored = store.read()
        for known in stored.values():
            check_certificate_record(known, self.num_classes, str(store.folder))
        progress = Progress(len(self.dataset), f'certifying, σ = {self.certifier.sigma:g}')
        try:
            for index in self.dataset.indexes:
                record = stored.get(index)
                if record is None or record['digest'] != self.dataset.digest(index):
                    record, certificate = self._record(index)
                    if index in shown:
                        store.save_arrays(f'{index:05d}', vars(certificate))
                    store.append(record)
                self.records[index] = record
                first = to_counts([record['certified'][0]['areas']], self.num_classes)
                progress.add('certified', int(first.correct[0]), int(first.valid[0]))
                progress.advance(1)
        finally:
            progress.close()

    def draw(self, store: ResultStore, shown: Iterable[int], folder: Path) -> list[dict[str, Any]]:
        """Draws the images of some indexes below a folder; returns what was drawn."""
        (folder / 'pictures').mkdir()
        pictures = []
        for index in sorted(shown):
            image, labels, sample = self._read(index)
            kept = store.load_arrays(f'{index:05d}')
            certificate = self._certify(image, sample) if kept is None else Certificate(**kept)
            file = f'pictures/{index:05d}.png'
            path = folder / file
            if draw_file(path, partial(self._draw, path, image, labels, certificate)):
                pictures.append({'file': file, 'image': sample.metainfo['image_name'], 'index': index})
        return pictures

    def evaluation(self) -> dict[str, Any]:
        """Returns the metrics of all images, fit for JSON: fractions, None where undefined."""
        records = list(self.records.values())
        rows = []
        for t, (tau, radius) in enumerate(zip(self.certifier.taus, self.certifier.radii, strict=True)):
            counts = to_counts([record['certified'][t]['areas'] for record in records], self.num_classes)
            abstained = np.array([record['certified'][t]['abstained'] for record in records])
            found = metrics(counts)
            guaranteed = worst_iou(counts, abstained)
            rows.append(
                {
                    'tau': tau,
                    'radius': radius,
                    'certified_accuracy': _number(found['aAcc']),
                    'certified_mIoU': _number(found['mIoU']),
                    'guaranteed_mIoU': _number(_mean(guaranteed)),
                    'abstained': _number(abstained.sum() / found['pixels']) if found['pixels'] else None,
                    'IoU': [_number(value) for value in found['IoU']],
                }
            )
        smoothed = metrics(to_counts([record['smoothed'] for record in records], self.num_classes))
        return {
            'smoothed': {'aAcc': _number(smoothed['aAcc']), 'mIoU': _number(smoothed['mIoU'])},
            'certified': rows,
            'per_image': [self._summary(record) for record in records],
        }

    def _record(self, index: int) -> tuple[dict[str, Any], Certificate]:
        """Returns what is kept of an image, and its certificate."""
        image, labels, sample = self._read(index)
        certificate = self._certify(image, sample)
        certified = []
        for where in certificate.certified:
            counts, abstained = certified_counts(
                certificate.classes, where, labels, self.num_classes, self.ignore_index
            )
            certified.append({'areas': to_areas(counts), 'abstained': abstained[0].tolist()})
        smoothed = count(certificate.classes[None], labels[None], self.num_classes, self.ignore_index)
        record = {
            'index': index,
            'image': sample.metainfo['image_name'],
            'digest': sample.metainfo['digest'],
            'smoothed': to_areas(smoothed),
            'certified': certified,
        }
        return record, certificate

    def _summary(self, record: dict[str, Any]) -> dict[str, Any]:
        counts = to_counts([row['areas'] for row in record['certified']], self.num_classes)
        valid = to_counts([record['smoothed']], self.num_classes).valid[0]
        shares = [_number(value) for value in counts.accuracy]
        return {'image': record['image'], 'valid_pixels': int(valid), 'certified_accuracy': shares}

    def _read(self, index: int) -> tuple[Tensor, np.ndarray, SegDataSample]:
        data = self.dataset[self.dataset.indexes.index(index)]
        inputs, sample = data['inputs'], data['data_samples']
        check_not_scaled([inputs], sample_names([sample]))
        images, labels = stack_images([inputs], [sample]), stack_labels([sample])
        model = SegmentorAdapter(self.segmentor, [sample], self.ignore_index)
        if model.num_classes != self.num_classes:
            raise UserError(classes_differ(model.num_classes, self.num_classes))
        model.check_labels(labels, [sample])
        return images[0], labels[0].numpy(), sample

    def _certify(self, image: Tensor, sample: SegDataSample) -> Certificate:
        device = next(self.segmentor.parameters()).device
        name = sample.metainfo['image_name']
        start = time.perf_counter()
        try:
            model = SegmentorAdapter(self.segmentor, [sample], self.ignore_index)
            return self.certifier(model, image.to(device), seed=derive_seed('certify', self.seed, name))
        except UserError as error:
            raise UserError(f'{name}: {error}') from error
        finally:
            self.seconds += time.perf_counter() - start

    def _draw(self, path: Path, image: Tensor, labels: np.ndarray, certificate: Certificate) -> None:
        pixels = image.permute(1, 2, 0).numpy()
        draw_certificate(
            pixels if self.loaded_rgb or pixels.shape[2] != 3 else pixels[:, :, ::-1],
            labels,
            certificate.classes,
            dict(zip(self.certifier.radii, certificate.certified, strict=True)),
            path,
            palette=self.dataset.metainfo['palette'],
            ignore_index=self.ignore_index,
        )


def _default_out(arguments: Namespace) -> Path:
    date = datetime.datetime.now().strftime('%Y%m%d_%H%M%S')
    return Path('work_dirs') / Path(arguments.config).stem / f'certify_{date}'


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
