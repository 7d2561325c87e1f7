import numpy as np
import pytest
from mmengine.registry import DefaultScope
from mmseg.registry import TRANSFORMS
from PIL import Image

from mmadv.datasets import ResizeShortSide, ScoreAtInputSize, VoidToClass
from mmadv.errors import UserError


def test_scoring_size_becomes_the_images():
    results = dict(img=np.zeros((12, 16, 3)), gt_seg_map=np.zeros((12, 16)), ori_shape=(36, 48))
    assert ScoreAtInputSize()(results)['ori_shape'] == (12, 16)


def test_unresized_label_map_is_refused():
    results = dict(img=np.zeros((12, 16, 3)), gt_seg_map=np.zeros((36, 48)), ori_shape=(36, 48))
    with pytest.raises(ValueError, match=r'\(36, 48\): load annotations before Resize'):
        ScoreAtInputSize()(results)


def test_short_side_by_antialiased_bilinear():
    """Halving by PIL's bilinear filter weighs four neighbours 1, 3, 3, 1 and, at the border, three of them 3, 3, 1."""
    row = np.array([0, 70, 140, 210, 0, 0, 80, 240], np.uint8)
    image = np.repeat(np.repeat(row[None, :, None], 4, axis=0), 3, axis=2)
    labels = np.repeat(np.array([[0, 1, 2, 3, 4, 5, 6, 7]], np.uint8), 4, axis=0)
    results = dict(img=image, gt_seg_map=labels, seg_fields=['gt_seg_map'])
    resized = ResizeShortSide(size=2)(results)
    expected = [
        (3 * 0 + 3 * 70 + 140) / 7,
        (70 + 3 * 140 + 3 * 210 + 0) / 8,
        (210 + 0 + 0 + 80) / 8,
        (0 + 3 * 80 + 3 * 240) / 7,
    ]
    assert resized['img'].shape == (2, 4, 3) == (*resized['img_shape'], 3)
    assert resized['img'][0, :, 0].tolist() == [round(value) for value in expected]
    # Nearest: the pixel in which the centre of the new pixel lies.
    assert resized['gt_seg_map'].tolist() == [[1, 3, 5, 7]] * 2
    assert resized['scale_factor'] == (0.5, 0.5)


@pytest.mark.parametrize(
    ('size', 'expected'),
    [((375, 500), (473, 630)), ((500, 375), (630, 473)), ((473, 473), (473, 473)), ((281, 500), (473, 841))],
)
def test_long_side_is_rounded_down(size, expected):
    """500 * 473 / 375 = 630.67 and 500 * 473 / 281 = 841.6: mmseg's ResizeShortestEdge would round up."""
    results = ResizeShortSide(size=473)(dict(img=np.zeros((*size, 3), np.uint8), seg_fields=[]))
    assert results['img'].shape[:2] == results['img_shape'] == expected


def test_published_pipeline_scores_what_the_published_code_scores(tmp_path):
    """Image and labels of the whole VOC pipeline, step by step in PIL."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (60, 93, 3), dtype=np.uint8))
    labels = Image.fromarray(rng.choice(np.array([0, 5, 20, 255], np.uint8), (60, 93)))
    image.save(tmp_path / 'image.png')
    labels.save(tmp_path / 'labels.png')
    steps = [
        dict(type='LoadImageFromFile', color_type='color_ignore_orientation', imdecode_backend='pillow'),
        dict(type='LoadAnnotations'),
        dict(type='VoidToClass', label=0),
        dict(type='ResizeShortSide', size=48),
        dict(type='CenterCrop', crop_size=(48, 48)),
        dict(type='ScoreAtInputSize'),
    ]
    results = dict(
        img_path=str(tmp_path / 'image.png'), seg_map_path=str(tmp_path / 'labels.png'), seg_fields=[], label_map=None,
        reduce_zero_label=False,
    )  # fmt: skip
    with DefaultScope.overwrite_default_scope('mmseg'):
        for step in steps:
            results = TRANSFORMS.build(step)(results)
    # 93 * 48 / 60 = 74.4; the crop begins at (74 - 48) / 2.
    box = (13, 0, 61, 48)
    expected = np.asarray(image.resize((74, 48), Image.Resampling.BILINEAR).crop(box))
    assert (results['img'] == expected[..., ::-1]).all()
    wanted = np.asarray(labels.resize((74, 48), Image.Resampling.NEAREST).crop(box)).copy()
    assert (wanted == 255).any()
    wanted[wanted == 255] = 0
    assert (results['gt_seg_map'] == wanted).all()
    assert results['ori_shape'] == (48, 48)


def test_void_becomes_a_class_and_nothing_else_changes():
    labels = np.array([[0, 255, 7]], np.uint8)
    results = VoidToClass(label=3)(dict(gt_seg_map=labels))
    assert results['gt_seg_map'].tolist() == [[0, 3, 7]] and results['gt_seg_map'].dtype == np.uint8
    assert labels.tolist() == [[0, 255, 7]]


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: ResizeShortSide(size=0), 'size must be an integer at least 1; found 0'),
        (lambda: ResizeShortSide(size=(4, 4)), r'size must be an integer at least 1; found \(4, 4\)'),
        (lambda: VoidToClass(label=256), r'label must be an integer in \[0, 255\]; found 256'),
        (lambda: VoidToClass(label=255), 'label and void are both 255, which changes nothing'),
        (
            lambda: ResizeShortSide(size=4)(dict(img=np.zeros((8, 8, 3)), seg_fields=[])),
            'needs images of type uint8, found float64; put it after loading',
        ),
    ],
)
def test_mistakes_are_one_sentence(make, message):
    with pytest.raises(UserError, match=message):
        make()
