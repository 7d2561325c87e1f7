"""Common corruptions against the published code's pixels, and their parts against naive or library versions."""

from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
from frost_colours import COLOURS
from published_corruptions import SEED, drawn_image

from mmadv.corruptions import CORRUPTIONS, SEVERITIES, corrupt, corruption_seed, corruptions_of, severities_of
from mmadv.corruptions.blur import MOTION, in_motion, scattered
from mmadv.corruptions.conditions import enlarged, stretched
from mmadv.corruptions.digital import smoothed
from mmadv.corruptions.weather import FROST, fractal
from mmadv.errors import UserError

# benchmarks/published_corruptions.py wrote it: the published code's values at 300 places, for the same random numbers.
PUBLISHED = Path(__file__).parents[1] / 'data' / 'corruptions.npz'
RANDOM = {'gaussian_noise', 'shot_noise', 'impulse_noise', 'glass_blur', 'motion_blur', 'snow', 'frost', 'fog'}
RANDOM |= {'elastic_transform'}


def random_image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize('name', [name for name in CORRUPTIONS if name != 'frost'])
def test_every_severity_has_the_published_pixels(name):
    stored = np.load(PUBLISHED)
    rows, columns = stored['places']
    for severity in SEVERITIES:
        ours = corrupt(drawn_image(), name, severity, seed=SEED)[rows, columns].astype(int)
        difference = np.abs(ours - stored[f'{name}_{severity}'])
        assert difference.max() <= 1
        assert (difference == 0).mean() > 0.9


@pytest.mark.parametrize('severity', SEVERITIES)
def test_frost_is_a_weighted_sum_with_one_photograph(severity, photographs):
    image = drawn_image()
    results = [corrupt(image, 'frost', severity, seed=seed, frost_photographs=photographs) for seed in range(12)]
    weight, of_frost = FROST[severity - 1]
    expected = [(weight * image + of_frost * np.array(colour)).clip(0, 255) for colour in COLOURS]
    chosen = [int(np.argmin([np.abs(one - result).max() for one in expected])) for result in results]
    for n, result in zip(chosen, results, strict=True):
        assert np.abs(expected[n] - result).max() < 2.5  # JPEG moves a colour by a level or two
    assert len(set(chosen)) > 2


@pytest.mark.parametrize('name', CORRUPTIONS)
@pytest.mark.parametrize('scale', ['published', 'image'])
def test_images_of_any_size_and_one_result_for_a_seed(name, scale, photographs):
    for size in ((8, 8), (33, 50), (96, 64)):
        image = random_image(*size)
        before = image.copy()
        one, same, other = (
            corrupt(image, name, 3, seed=seed, scale=scale, frost_photographs=photographs) for seed in (5, 5, 6)
        )
        assert one.shape == image.shape and one.dtype == np.uint8
        np.testing.assert_array_equal(one, same)
        np.testing.assert_array_equal(image, before)
    assert (name in RANDOM) == bool((one != other).any())


@pytest.mark.parametrize('name', CORRUPTIONS)
def test_both_scales_agree_on_images_of_the_published_size(name, photographs):
    image = drawn_image()
    one, other = (
        corrupt(image, name, 4, seed=1, scale=scale, frost_photographs=photographs) for scale in ('published', 'image')
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize('severity', [2, 5])
def test_scaled_boxes_grow_with_the_image(severity):
    image = drawn_image()
    doubled = image.repeat(2, axis=0).repeat(2, axis=1)
    small = corrupt(image, 'pixelate', severity, seed=0)
    np.testing.assert_array_equal(
        corrupt(doubled, 'pixelate', severity, seed=0, scale='image'), small.repeat(2, axis=0).repeat(2, axis=1)
    )
    assert (corrupt(doubled, 'pixelate', severity, seed=0) != small.repeat(2, axis=0).repeat(2, axis=1)).any()


def test_a_scaled_blur_blurs_a_doubled_image_twice_as_far():
    line = np.zeros((448, 448, 3), np.uint8)
    line[224, 224] = 255
    spread = [
        (corrupt(line, 'defocus_blur', 1, seed=0, scale=scale) > 0).any(axis=(0, 2)).sum()
        for scale in ('published', 'image')
    ]
    assert spread == [7, 13]  # 2 * 3 + 1 and 2 * 6 + 1


def test_scattered_pixels_are_those_of_the_published_loop():
    image = random_image(19, 23)
    expected, generator = image.copy(), np.random.default_rng(3)
    for row in range(19 - 3, 3, -1):
        for column in range(23 - 3, 3, -1):
            right, down = generator.integers(-3, 3, size=2)
            expected[row, column] = expected[row + down, column + right]
    np.testing.assert_array_equal(scattered(image, 3, np.random.default_rng(3)), expected)


@pytest.mark.parametrize('angle', [0.0, 30.0, -77.0])
def test_motion_is_a_weighted_mean_along_a_line(angle):
    image = random_image(30, 40)[..., 0] / 255
    radius, sigma = MOTION[0]
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    expected = np.zeros_like(image)
    for n, weight in enumerate(weights):
        right, down = (int(np.ceil(n * f(np.deg2rad(angle)) - 0.5)) for f in (np.cos, np.sin))
        rows, columns = (np.arange(30) + down).clip(0, 29), (np.arange(40) + right).clip(0, 39)
        expected += weight * image[np.ix_(rows, columns)]
    result = in_motion(image, radius, sigma, angle)
    assert np.abs(result - expected).max() < 1.01 / 255
    np.testing.assert_array_equal(255 * result, np.round(255 * result))
    np.testing.assert_array_equal(in_motion(np.full((30, 40), 200 / 255), radius, sigma, angle), 200 / 255)


@pytest.mark.parametrize('sigma', [0.6, 5.0, 90.0])
def test_smoothing_is_that_of_scipy(sigma):
    values = np.random.default_rng(0).uniform(-1, 1, (21, 34))
    expected = scipy.ndimage.gaussian_filter(values, sigma, mode='reflect', truncate=3)
    np.testing.assert_allclose(smoothed(values, sigma), expected, atol=1e-12)


def test_stretching_is_that_of_scipy():
    image = np.random.default_rng(0).uniform(size=(20, 31, 3))
    expected = scipy.ndimage.zoom(image, (1.3, 1.3, 1), order=1)
    np.testing.assert_allclose(stretched(image, expected.shape[:2]), expected, atol=1e-12)
    np.testing.assert_array_equal(enlarged(image, 1.0), image)
    assert enlarged(image, 4.5).shape == image.shape


def test_a_fractal_covers_the_range_and_repeats_at_its_borders():
    cloud = fractal(64, 2.0, np.random.default_rng(0))
    assert cloud.min() == 0 and cloud.max() == 1
    inside = np.abs(np.diff(cloud, axis=0)).mean()
    assert np.abs(cloud[0] - cloud[-1]).mean() < 2 * inside


def test_brightness_keeps_hue_and_adds_to_the_value():
    image = np.array([[[0, 0, 0], [100, 50, 0], [200, 255, 100]] + [[0, 0, 0]] * 5] * 8, np.uint8)
    result = corrupt(image, 'brightness', 2, seed=0)
    np.testing.assert_array_equal(result[0, :3], [[51, 51, 51], [151, 75, 0], [200, 255, 100]])


def test_names_and_groups():
    assert corruptions_of([]) == tuple(CORRUPTIONS) == corruptions_of(['all'])
    assert len(CORRUPTIONS) == 15
    assert corruptions_of(['fog', 'noise']) == ('gaussian_noise', 'shot_noise', 'impulse_noise', 'fog')
    assert severities_of([5, 1]) == (1, 5)


def test_a_seed_depends_on_the_name_of_the_file_alone():
    assert corruption_seed(0, 'a/b.png', 'fog', 1) == corruption_seed(0, 'b.png', 'fog', 1)
    others = [(1, 'b.png', 'fog', 1), (0, 'c.png', 'fog', 1), (0, 'b.png', 'snow', 1), (0, 'b.png', 'fog', 2)]
    assert corruption_seed(0, 'b.png', 'fog', 1) not in {corruption_seed(*one) for one in others}


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: corruptions_of(['fogg']), "corruptions must be the name of a corruption; found 'fogg'.*mean 'fog'"),
        (lambda: corruptions_of(['fog', 'weather']), 'corruptions has fog twice; name each corruption once'),
        (lambda: severities_of([]), r'severities must be different numbers from 1 to 5; found \[\]'),
        (lambda: severities_of([0]), r'severities must be different numbers from 1 to 5; found \[0\]'),
        (lambda: severities_of([2, 2]), r'severities must be different numbers from 1 to 5; found \[2, 2\]'),
        (lambda: corrupt(random_image(7, 9), 'fog', 1, seed=0), r'at least 8 pixels wide and high; found \(7, 9\)'),
        (
            lambda: corrupt(random_image(9, 9), 'frost', 1, seed=0, frost_photographs='/nowhere'),
            'the photograph of frost /nowhere/frost1.png does not exist',
        ),
    ],
)
def test_mistakes_are_told(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_missing_and_damaged_photographs_are_told(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr('mmadv.corruptions.photographs.find_spec', lambda name: None)
    with pytest.raises(UserError, match='run pip install --no-deps imagecorruptions, or give the folder of frost1.png'):
        corrupt(random_image(9, 9), 'frost', 1, seed=0)
    for file in Path(photographs).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / 'frost3.png').write_bytes(b'no image')
    with pytest.raises(UserError, match='frost3.png cannot be read'):
        corrupt(random_image(9, 9), 'frost', 1, seed=0, frost_photographs=str(tmp_path))
