"""A segmentor of which some classes take no part in predictions."""

import pytest
import torch

from mmadv.attacks import PGD, Linf
from mmadv.errors import UserError
from mmadv.models import SegmentorAdapter, stack_images, stack_labels

SLIDE = dict(mode='slide', crop_size=(24, 24), stride=(16, 16))


@pytest.fixture
def excluding(build_model):
    """Returns a model of five classes without some of them."""

    def make(name='fcn', excluded=(0,), **test_cfg):
        settings = dict(type='ClassExcludingEncoderDecoder', excluded_classes=excluded)
        return build_model(name, settings=settings, **test_cfg)

    return make


@pytest.mark.parametrize('name', ['fcn', 'segmenter'])
@pytest.mark.parametrize('mode', ['whole', 'slide'])
def test_predictions_are_the_best_of_the_other_classes(build_model, excluding, make_batch, name, mode):
    test_cfg = SLIDE if mode == 'slide' else {}
    stock, batch = build_model(name, **test_cfg), make_batch([(32, 40)] * 2)
    images, samples = stack_images(batch['inputs']), batch['data_samples']
    with torch.no_grad():
        whole = SegmentorAdapter(stock, samples)(images)
        # Without the most common prediction, every pixel of it changes.
        excluded = int(whole.argmax(1).mode().values.mode().values.mode().values)
        model = excluding(name, (excluded,), **test_cfg)
        model.load_state_dict(stock.state_dict())
        others = whole[:, [k for k in range(5) if k != excluded]]
        torch.testing.assert_close(SegmentorAdapter(model, samples)(images), others)
        predicted = model.predict(**model.data_preprocessor(batch))
    assert torch.equal(torch.stack([one.pred_sem_seg.data[0] for one in predicted]), others.argmax(1))


def test_attacks_see_the_remaining_classes(excluding, make_batch):
    batch = make_batch([(32, 40)], classes=4)
    model = SegmentorAdapter(excluding(), batch['data_samples'])
    assert model.num_classes == 4
    with torch.no_grad():
        labels = model(stack_images(batch['inputs'])).argmax(1)
    assert labels.shape == stack_labels(batch['data_samples']).shape
    attack = PGD(threat=Linf(radius='8/255'), steps=5, keep='lowest_accuracy')
    assert attack(model, stack_images(batch['inputs']), labels).accuracy < 1


def test_it_is_not_trained(excluding, make_batch):
    model = excluding()
    data = model.data_preprocessor(make_batch([(32, 40)] * 2), True)
    with pytest.raises(UserError, match='only scores trained models; train an EncoderDecoder'):
        model.loss(**data)


@pytest.mark.parametrize(
    ('name', 'excluded', 'sentence'),
    [
        ('fcn', (5,), r'must hold classes from 0 to 4; found \[5\]'),
        ('fcn', (0, 1, 2, 3), r'must leave at least two of the 5 classes; found \[0, 1, 2, 3\]'),
        ('sigmoid', (0,), 'needs one output channel for each class; found 1'),
    ],
)
def test_what_cannot_be_excluded_is_refused(excluding, name, excluded, sentence):
    with pytest.raises(UserError, match=f'excluded_classes {sentence}'):
        excluding(name, excluded)
