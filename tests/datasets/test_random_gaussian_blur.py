import numpy as np
import pytest

from mmadv.datasets import RandomGaussianBlur
from mmadv.errors import UserError


def test_an_impulse_becomes_a_gaussian():
    image = np.zeros((21, 21, 3), np.float32)
    image[10, 10] = 1
    labels = np.arange(441, dtype=np.uint8).reshape(21, 21)
    results = RandomGaussianBlur(prob=1.0, sigma=(0.8, 0.8)).transform(dict(img=image, gt_seg_map=labels.copy()))
    line = np.exp(-(np.arange(-3, 4) ** 2) / (2 * 0.8**2))
    line /= line.sum()
    expected = np.zeros((21, 21))
    expected[7:14, 7:14] = np.outer(line, line)
    np.testing.assert_allclose(results['img'], np.repeat(expected[..., None], 3, axis=2), atol=1e-6)
    np.testing.assert_array_equal(results['gt_seg_map'], labels)


@pytest.mark.parametrize(
    'transform', [RandomGaussianBlur(prob=0.0), RandomGaussianBlur(prob=1.0, sigma=(0.0, 0.0))], ids=repr
)
def test_no_blur_leaves_the_image(transform):
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    assert transform.transform(dict(img=image))['img'] is image


def test_half_of_the_images_are_blurred_with_sigma_up_to_one():
    np.random.seed(0)
    transform = RandomGaussianBlur(prob=0.5)
    sigmas = np.array([transform.draw_sigma() for _ in range(2000)])
    assert np.mean(sigmas > 0) == pytest.approx(0.5, abs=0.04)
    assert sigmas[sigmas > 0].mean() == pytest.approx(0.5, abs=0.04)
    assert sigmas.max() < 1


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (dict(prob=1.5), r'prob must be a finite number in \[0, 1\]; found 1.5'),
        (dict(sigma=(1.0, 0.5)), r'sigma must be the lowest, then the highest value; found \(1.0, 0.5\)'),
        (dict(sigma=(-1.0, 0.5)), r'sigma\[0\] must be a finite number at least 0; found -1.0'),
    ],
)
def test_mistakes_are_told(arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        RandomGaussianBlur(**arguments)
