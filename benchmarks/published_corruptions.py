"""Compares mmadv's common corruptions with the published code, on the same random numbers, and stores its pixels.

The published code is ``ImageNet-C/imagenet_c/imagenet_c/corruptions.py`` of https://github.com/hendrycks/robustness.
It does not run with NumPy 2 and a current scikit-image, so this script gives it the old names. It needs scikit-image,
ImageMagick's ``convert``, and the folder ``frost`` beside the file:

    python benchmarks/published_corruptions.py /path/to/imagenet_c/corruptions.py --store tests/data/corruptions.npz

For each corruption and severity the script prints the largest difference of a pixel and the share of equal values, on a
drawn image of 224x224 and on each image of ``--images``. The published code draws from NumPy's global generator; here
it draws from a ``numpy.random.Generator`` of the same seed as mmadv's. The stored file has the published pixels at 300
places of the drawn image, which ``tests/corruptions`` compares with.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import types
import warnings
from pathlib import Path

import cv2
import numpy as np
import scipy.ndimage
from PIL import Image

from mmadv.corruptions import CORRUPTIONS, SEVERITIES, corrupt

SIDE = 224
PLACES = 300
SEED = 7


def drawn_image() -> np.ndarray:
    """Returns an image of 224x224 with edges, slopes and texture, made of integers alone, so equal on all machines."""
    y, x = np.mgrid[:SIDE, :SIDE]
    slopes = np.stack([x, y, SIDE - 1 - (x + y) // 2], axis=2)
    texture = (x * 7 + y * 13 + (x * y) % 17) % 32
    image = slopes * 200 // 223 + texture[..., None]
    image[(x - 70) ** 2 + (y - 90) ** 2 < 1600] = (230, 40, 60)
    image[140:200, 120:210] = (20, 90, 200)
    image[(x // 8 + y // 8) % 9 == 0] //= 3
    return image.astype(np.uint8)


def published_module(path: Path, magick: str) -> types.ModuleType:
    """Returns the published code as a module that runs with current libraries."""
    import skimage
    import skimage.color
    import skimage.filters
    import skimage.util

    def gaussian(image, sigma, multichannel=False, **settings):
        return skimage.filters.gaussian(image, sigma, channel_axis=-1 if multichannel else None, **settings)

    class MotionImage:
        def __init__(self, blob):
            self.blob = blob

        def motion_blur(self, radius, sigma, angle):
            how = ['-motion-blur', f'{radius}x{sigma}{angle:+.12f}', '-depth', '8', 'png:-']
            self.blob = subprocess.run([magick, 'png:-', *how], input=self.blob, capture_output=True, check=True).stdout

        def make_blob(self):
            return self.blob

    shims = {
        'pkg_resources': types.SimpleNamespace(resource_filename=lambda _, name: str(path.parent / name)),
        'wand': types.ModuleType('wand'),
        'wand.image': types.SimpleNamespace(Image=object),
        'wand.api': types.SimpleNamespace(library=types.SimpleNamespace(MagickMotionBlurImage=types.SimpleNamespace())),
        'wand.color': types.ModuleType('wand.color'),
        'scipy.ndimage.interpolation': types.SimpleNamespace(map_coordinates=scipy.ndimage.map_coordinates),
    }
    sys.modules.update(shims)
    module = types.ModuleType('published')
    module.__dict__.update(__name__='published', __file__=str(path))
    text = path.read_text(encoding='utf-8').replace('np.float_', 'np.float64').replace('np.fromstring', 'np.frombuffer')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        exec(compile(text, str(path), 'exec'), vars(module))
    module.gaussian, module.MotionImage, module.sk = gaussian, MotionImage, skimage
    return module


class Drawing:
    """Stands for ``numpy`` inside the published code: ``random`` draws from a generator of its own."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)
        self.random = types.SimpleNamespace(
            normal=self.generator.normal,
            uniform=self.generator.uniform,
            poisson=self.generator.poisson,
            randint=self.generator.integers,
        )

    def __getattr__(self, name: str):
        return getattr(np, name)


def published(module: types.ModuleType, name: str, image: np.ndarray, severity: int) -> np.ndarray:
    """Returns what the published code makes of an image, as bytes."""
    import skimage.util

    module.np = Drawing(SEED)

    def random_noise(pixels, **settings):
        return skimage.util.random_noise(pixels, rng=module.np.generator, **settings)

    module.sk = types.SimpleNamespace(
        color=__import__('skimage.color').color, util=types.SimpleNamespace(random_noise=random_noise)
    )
    return np.uint8(getattr(module, name)(Image.fromarray(image), severity))


def main() -> None:
    """Compares, prints, and stores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('code', type=Path)
    parser.add_argument('--images', type=Path, nargs='*', default=[])
    parser.add_argument('--magick', default='convert')
    parser.add_argument('--store', type=Path)
    arguments = parser.parse_args()
    module = published_module(arguments.code, arguments.magick)
    images = [drawn_image()]
    for path in arguments.images:
        pixels = np.asarray(Image.open(path).convert('RGB'))
        side = min(pixels.shape[:2])
        images.append(cv2.resize(pixels[:side, :side], (SIDE, SIDE), interpolation=cv2.INTER_AREA))
    places = np.random.default_rng(0).integers(0, SIDE, (2, PLACES))
    stored = {'places': places.astype(np.uint8)}
    for name in CORRUPTIONS:
        for severity in SEVERITIES:
            differences = []
            for n, image in enumerate(images):
                theirs = published(module, name, image, severity)
                ours = corrupt(image, name, severity, seed=SEED, frost_photographs=str(arguments.code.parent / 'frost'))
                differences.append(np.abs(ours.astype(int) - theirs.astype(int)))
                if n == 0 and name != 'frost':
                    stored[f'{name}_{severity}'] = theirs[places[0], places[1]]
            joined = np.concatenate([one.ravel() for one in differences])
            print(
                f'{name:18} {severity}  largest {joined.max():3d}  equal {100 * (joined == 0).mean():7.3f} %',
                flush=True,
            )
    if arguments.store:
        np.savez_compressed(arguments.store, **stored)


if __name__ == '__main__':
    main()
