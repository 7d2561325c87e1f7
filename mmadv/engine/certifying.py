"""``tools/certify.py``: certify the smoothed predictions of a checkpoint and write its results."""

from __future__ import annotations

import datetime
import json
import math
import shlex
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from mmadv.attacks import derive_seed
from mmadv.checkpoints.loading import file_sha256, load_checkpoint_file, load_weights, use_safe_loading
from mmadv.engine.command_line import Parser, load_config, require
from mmadv.engine.data import Selection, build_dataset, check_not_scaled, evenly_spaced
from mmadv.engine.progress import Progress
from mmadv.engine.provenance import hardware, versions
from mmadv.errors import UserError
from mmadv.models.adapter import SegmentorAdapter, stack_images, stack_labels
from mmadv.report.certificates import certificate_table, draw_certificate
from mmadv.report.results import check_writable, staged
from mmadv.robustness import Certificate, Certifier, Counts, certified_counts, count, metrics, worst_iou
from mmadv.robustness.certification import BOUNDS, CORRECTIONS, SHARES

SCHEMA, SCHEMA_VERSION, FILE_NAME = 'mmadv/certificates', 1, 'certificates.json'


def parser() -> Parser:
    """Returns the parser of ``tools/certify.py``."""
    result = Parser(prog='certify.py', description='Certify a segmentor by randomized smoothing, in L2.')
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
    result.add_argument('--seed', type=int, default=0, help='of all noise (default: 0)')
    result.add_argument('--out', metavar='DIR', help='results (default: work_dirs/CONFIG/certify_DATE)')
    result.add_argument('--show', type=int, default=4, help='number of images to draw (default: 4)')
    result.add_common()
    return result


def run_certify(argv: Sequence[str]) -> None:
    """Certifies a checkpoint as the arguments say, prints the table and writes the results.

    Raises:
        UserError: a mistake in the arguments, config, checkpoint or data; nothing is written then.
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
    check_writable(out)
    config = load_config(arguments.config, arguments.cfg_options)
    require(config, arguments.config, ['model', 'test_dataloader'])
    use_safe_loading()
    load_checkpoint_file(arguments.checkpoint)
    dataset = build_dataset(config.test_dataloader.dataset, 'test_dataloader.dataset')
    indexes = evenly_spaced(len(dataset), arguments.limit)
    segmentor = MODELS.build(config.model)
    load_weights(segmentor, arguments.checkpoint)
    segmentor.to('cuda' if torch.cuda.is_available() else 'cpu').eval()
    loaded_rgb = bool((config.model.get('data_preprocessor') or {}).get('rgb_to_bgr'))
    run = CertificationRun(segmentor, Selection(dataset, indexes), certifier, arguments.seed, loaded_rgb)
    shown = {indexes[i] for i in evenly_spaced(len(indexes), arguments.show)} if arguments.show else set()
    start = time.perf_counter()
    with staged(out) as stage:
        (stage / 'pictures').mkdir()
        pictures = run.over(shown, stage / 'pictures')
        results = {
            'schema': SCHEMA,
            'schema_version': SCHEMA_VERSION,
            'created': datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
            'command': shlex.join(['python', 'tools/certify.py', *argv]),
            'config': {'file': arguments.config, 'text': config.pretty_text},
            'checkpoint': {'file': arguments.checkpoint, 'sha256': file_sha256(arguments.checkpoint)},
            'smoothing': {key: getattr(certifier, key) for key in certifier.__dataclass_fields__},
            'seed': arguments.seed,
            'dataset': {'type': type(dataset).__name__, 'size': len(dataset), 'limit': arguments.limit},
            'classes': list(dataset.metainfo['classes']),
            'versions': versions(),
            'hardware': hardware(),
            'seconds': {'total': round(time.perf_counter() - start, 3), 'sampling': round(run.seconds, 3)},
            'pictures': pictures,
            **run.evaluation(),
        }
        (stage / FILE_NAME).write_text(json.dumps(results, indent=1, allow_nan=False) + '\n', encoding='utf-8')
    print(f'{certificate_table(results)}\n')
    print(f'results: {out}')


class CertificationRun:
    """Certifies the images of a dataset one by one, and adds up what comes out.

    The noise of an image is a function of the seed and the image's name.

    Args:
        segmentor: in eval mode, on its device.
        dataset: what is certified, with labels.
        certifier: how.
        seed: of all noise.
        loaded_rgb: whether the dataset gives RGB images, as OpenMMLab's loaders do not.
    """

    def __init__(
        self, segmentor: Any, dataset: Selection, certifier: Certifier, seed: int, loaded_rgb: bool = False
    ) -> None:
        self.segmentor = segmentor
        self.dataset = dataset
        self.certifier = certifier
        self.seed = seed
        self.loaded_rgb = loaded_rgb
        self.seconds = 0.0
        self.smoothed: list[Counts] = []
        self.counts: list[list[Counts]] = [[] for _ in certifier.taus]
        self.abstained: list[list[np.ndarray]] = [[] for _ in certifier.taus]
        self.images: list[dict[str, Any]] = []

    def over(self, shown: set[int], folder: Path) -> list[dict[str, Any]]:
        """Certifies all images, and draws those whose index is ``shown``; returns what was drawn."""
        pictures = []
        progress = Progress(len(self.dataset), f'certifying, σ = {self.certifier.sigma:g}')
        try:
            for item in range(len(self.dataset)):
                data = self.dataset[item]
                sample: SegDataSample = data['data_samples']
                image, labels, certificate, model = self._certify(data['inputs'], sample)
                self._add(certificate, labels, model, sample.metainfo['image_name'])
                progress.add('certified', int(self.counts[0][-1].correct[0]), int(self.smoothed[-1].valid[0]))
                progress.advance(1)
                if sample.metainfo['sample_idx'] in shown:
                    name = f'{sample.metainfo["sample_idx"]:05d}.png'
                    self._draw(folder / name, image, labels, certificate, model.ignore_index)
                    file = {'file': f'pictures/{name}', 'image': sample.metainfo['image_name']}
                    pictures.append({**file, 'index': sample.metainfo['sample_idx']})
        finally:
            progress.close()
        return pictures

    def evaluation(self) -> dict[str, Any]:
        """Returns the metrics of all images, fit for JSON: fractions, None where undefined."""
        rows = []
        for t, (tau, radius) in enumerate(zip(self.certifier.taus, self.certifier.radii, strict=True)):
            counts, abstained = Counts.concatenate(self.counts[t]), np.concatenate(self.abstained[t])
            found = metrics(counts)
            pixels = found['pixels']
            guaranteed = worst_iou(counts, abstained)
            rows.append(
                {
                    'tau': tau,
                    'radius': radius,
                    'certified_accuracy': _number(found['aAcc']),
                    'certified_mIoU': _number(found['mIoU']),
                    'guaranteed_mIoU': _number(float(np.nanmean(guaranteed))),
                    'abstained': _number(abstained.sum() / pixels) if pixels else None,
                    'IoU': [_number(value) for value in found['IoU']],
                }
            )
        smoothed = metrics(Counts.concatenate(self.smoothed))
        return {
            'smoothed': {'aAcc': _number(smoothed['aAcc']), 'mIoU': _number(smoothed['mIoU'])},
            'certified': rows,
            'per_image': self.images,
        }

    def _certify(self, inputs: Tensor, sample: SegDataSample) -> tuple[Tensor, np.ndarray, Certificate, Any]:
        check_not_scaled(inputs, sample)
        model = SegmentorAdapter(self.segmentor, [sample])
        images, labels = stack_images([inputs], [sample]), stack_labels([sample])
        model.check_labels(labels, [sample])
        device = next(self.segmentor.parameters()).device
        name = sample.metainfo['image_name']
        start = time.perf_counter()
        try:
            certificate = self.certifier(model, images[0].to(device), seed=derive_seed('certify', self.seed, name))
        except UserError as error:
            raise UserError(f'{name}: {error}') from error
        self.seconds += time.perf_counter() - start
        return images[0], labels[0].numpy(), certificate, model

    def _add(self, certificate: Certificate, labels: np.ndarray, model: Any, name: str) -> None:
        classes = model.num_classes
        self.smoothed.append(count(certificate.classes[None], labels[None], classes, model.ignore_index))
        shares = []
        for t, certified in enumerate(certificate.certified):
            counts, abstained = certified_counts(certificate.classes, certified, labels, classes, model.ignore_index)
            self.counts[t].append(counts)
            self.abstained[t].append(abstained)
            shares.append(_number(counts.accuracy[0]))
        self.images.append({'image': name, 'valid_pixels': int(counts.valid[0]), 'certified_accuracy': shares})

    def _draw(self, path: Path, image: Tensor, labels: np.ndarray, certificate: Certificate, ignore_index: int) -> None:
        pixels = image.permute(1, 2, 0).numpy()
        draw_certificate(
            pixels if self.loaded_rgb or pixels.shape[2] != 3 else pixels[:, :, ::-1],
            labels,
            certificate.classes,
            dict(zip(self.certifier.radii, certificate.certified, strict=True)),
            path,
            palette=self.dataset.metainfo['palette'],
            ignore_index=ignore_index,
        )


def _default_out(arguments: Namespace) -> Path:
    date = datetime.datetime.now().strftime('%Y%m%d_%H%M%S')
    return Path('work_dirs') / Path(arguments.config).stem / f'certify_{date}'


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
