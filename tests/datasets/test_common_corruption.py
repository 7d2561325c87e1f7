import numpy as np
import pytest

from mmadv.corruptions import corrupt, corruption_seed
from mmadv.datasets import CommonCorruption
from mmadv.errors import UserError

IMAGE = np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)


def results(path='folder/a.png'):
    return dict(img=IMAGE.copy(), img_path=path, gt_seg_map=np.arange(720, dtype=np.uint8).reshape(24, 30))


@pytest.mark.parametrize('channels', ['bgr', 'rgb'])
def test_the_named_corruption_of_the_named_image(channels):
    transform = CommonCorruption(['elastic_transform'], [4], seed=3, channels=channels)
    actual = transform.transform(results())
    step = -1 if channels == 'bgr' else 1
    seed = corruption_seed(3, 'a.png', 'elastic_transform', 4)
    expected = corrupt(np.ascontiguousarray(IMAGE[..., ::step]), 'elastic_transform', 4, seed=seed)[..., ::step]
    np.testing.assert_array_equal(actual['img'], expected)
    np.testing.assert_array_equal(actual['gt_seg_map'], results()['gt_seg_map'])


def test_a_seed_makes_choice_and_noise_depend_on_the_file_alone():
    transform = CommonCorruption(['noise', 'digital'], seed=1)
    np.random.seed(0)
    one = transform.transform(results('here/a.png'))['img']
    transform.transform(results('b.png'))
    np.random.seed(1)
    np.testing.assert_array_equal(transform.transform(results('there/a.png'))['img'], one)
    assert len({transform.transform(results(f'{n}.png'))['img'].tobytes() for n in range(8)}) > 6


def test_an_augmentation_follows_numpys_global_generator():
    transform, share = CommonCorruption(['noise'], prob=0.5), []
    np.random.seed(0)
    first = [transform.transform(results())['img'] for _ in range(40)]
    np.random.seed(0)
    for one in first:
        np.testing.assert_array_equal(transform.transform(results())['img'], one)
        share.append((one != IMAGE).any())
    assert 0.3 < np.mean(share) < 0.7


def test_the_scale_reaches_the_corruption():
    one, other = (
        CommonCorruption(['pixelate'], [3], seed=0, scale=scale).transform(results())['img']
        for scale in ('published', 'image')
    )
    assert (one != IMAGE).any()
    np.testing.assert_array_equal(other, IMAGE)  # boxes of 0.1 pixels


def test_frost_needs_its_photographs_when_it_is_built():
    with pytest.raises(UserError, match='frost1.png does not exist'):
        CommonCorruption(['weather'], frost_photographs='/nowhere')


@pytest.mark.parametrize(
    ('arguments', 'changes', 'message'),
    [
        (dict(corruptions=['rain']), {}, "CommonCorruption.corruptions must be the name of a corruption; found 'rain'"),
        (dict(corruptions=['fog'], severities=[6]), {}, 'CommonCorruption.severities must be different numbers from 1'),
        (dict(corruptions=['fog']), dict(img=IMAGE / 255), r'found float64 of shape \(24, 30, 3\); put it after load'),
        (dict(corruptions=['fog']), dict(img=IMAGE[..., 0]), r'found uint8 of shape \(24, 30\)'),
        (dict(corruptions=['fog'], seed=0), dict(img_path=None), 'seed needs images with a file or a number'),
    ],
)
def test_mistakes_are_told(arguments, changes, message):
    with pytest.raises(UserError, match=message):
        CommonCorruption(**arguments).transform({**results(), **changes})
