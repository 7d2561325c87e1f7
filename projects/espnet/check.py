"""Compares the logits of the published weights with stored ones, in float64.

    python projects/espnet/check.py WEIGHTS IMAGE LOGITS.npz

LOGITS.npz holds 'logits_every_8th', (1, 12, H/8, W/8): the logits of the authors' network for the image, at every
eighth pixel. The exit status is 0 if no logit differs by 1e-5 or more.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch
from convert import PROJECT, convert
from mmengine.config import Config

from mmadv.errors import UserError

TOLERANCE = 1e-5


def differences(weights: Path, image: Path, logits: Path) -> np.ndarray:
    """Returns the absolute differences of the logits of all 12 channels to the stored ones, at every eighth pixel.

    Raises:
        UserError: the weights are not ESPNet's, or there is no such image.
    """
    with tempfile.TemporaryDirectory() as scratch:
        segmentor = convert(weights, Path(scratch) / 'weights.pth').double().eval()
    pixels = cv2.imread(str(image))  # BGR, as mmseg loads it
    if pixels is None:
        raise UserError(f'cannot read the image {image}')
    settings = Config.fromfile(PROJECT / 'configs/espnet_camvid.py').data_preprocessor
    mean, std = (torch.tensor(settings[key]).view(3, 1, 1) for key in ('mean', 'std'))
    # The stored logits belong to an image normalised in float32. The network itself runs in float64.
    images = ((torch.from_numpy(pixels).permute(2, 0, 1) - mean) / std).double()
    with torch.no_grad():
        features = segmentor.extract_feat(images[None])
        logits_here = segmentor.decode_head.all_logits(features)[:, :, ::8, ::8].numpy()
    return np.abs(logits_here - np.load(logits)['logits_every_8th'])


def main() -> None:
    """Compares as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('weights', type=Path, help='the state dict that the authors published')
    parser.add_argument('image', type=Path)
    parser.add_argument('logits', type=Path, help='the stored logits')
    arguments = parser.parse_args()
    try:
        errors = differences(arguments.weights, arguments.image, arguments.logits)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        raise SystemExit(2) from None
    print(f'{errors.size} logits in float64: largest difference {errors.max():.1e}, tolerance {TOLERANCE:.0e}')
    raise SystemExit(int(not errors.max() < TOLERANCE))


if __name__ == '__main__':
    main()
