"""TorchvisionSegmentor predicts what torchvision's model predicts after torchvision's own preset."""

import copy
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torchvision.models import get_model
from torchvision.transforms._presets import SemanticSegmentation

from mmadv.errors import UserError
from mmadv.models import SegmentorAdapter, TorchvisionSegmentor, stack_images
from mmadv.models.segmentors.imported_segmentor import own_weights

NAMES = ['lraspp_mobilenet_v3_large', 'deeplabv3_mobilenet_v3_large', 'fcn_resnet50']


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Returns a file of random weights by model, as torchvision publishes them."""
    made = {}

    def get(name):
        if name not in made:
            torch.manual_seed(0)
            auxiliary = {} if name.startswith('lraspp') else {'aux_loss': True}
            model = get_model(name, weights=None, weights_backbone=None, num_classes=5, **auxiliary)
            with torch.no_grad():
                model.train()(torch.randn(2, 3, 64, 64))
            made[name] = tmp_path_factory.mktemp('weights') / f'{name}.pth'
            torch.save(model.state_dict(), made[name])
        return str(made[name])

    return get


def segmentor_of(name, files, **settings):
    return TorchvisionSegmentor(name, files(name), num_classes=5, size=64, **settings).eval()


@pytest.mark.parametrize(
    ('name', 'size'), [(NAMES[0], (80, 100)), (NAMES[0], (90, 70)), (NAMES[1], (90, 70)), (NAMES[2], (64, 64))]
)
def test_predicts_what_torchvision_predicts(files, make_batch, name, size):
    segmentor = segmentor_of(name, files)
    batch = make_batch([size])
    with torch.no_grad():
        (sample,) = segmentor.test_step(copy.deepcopy(batch))
        logits = SegmentorAdapter(segmentor, batch['data_samples'])(stack_images(batch['inputs']))
        # mmseg loads BGR. Of floating-point images the preset rounds nothing.
        processed = SemanticSegmentation(resize_size=64)(batch['inputs'][0][[2, 1, 0]] / 255)[None]
        expected = F.interpolate(segmentor.network(processed)['out'], size, mode='bilinear')
    assert torch.equal(logits.argmax(1), sample.pred_sem_seg.data)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_gradient_agrees_with_finite_differences(files, make_batch):
    segmentor = segmentor_of(NAMES[0], files).double()
    batch = make_batch([(70, 72)])
    adapter = SegmentorAdapter(segmentor, batch['data_samples'])
    images = (stack_images(batch['inputs']).double() * 0.8 + 0.1).requires_grad_()
    generator = torch.Generator().manual_seed(1)
    logits = adapter(images)
    weights = torch.randn(logits.shape, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((logits * weights).sum(), images)
    direction = torch.randn(images.shape, generator=generator, dtype=torch.float64)
    step = 1e-7
    with torch.no_grad():
        above, below = ((adapter(images + sign * step * direction) * weights).sum() for sign in (1, -1))
    assert float((above - below) / (2 * step)) == pytest.approx(float((gradient * direction).sum()), rel=1e-3)


def test_trains_on_torchvisions_loss(files, make_batch):
    segmentor = segmentor_of(NAMES[1], files)
    batch = make_batch([(64, 64)] * 2)
    data = segmentor.data_preprocessor(copy.deepcopy(batch), True)
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in batch['data_samples']])
    losses = segmentor.loss(data['inputs'], data['data_samples'])
    outputs = segmentor.network(data['inputs'])
    for name, key, weight in (('loss_network', 'out', 1), ('loss_auxiliary', 'aux', 0.5)):
        torch.testing.assert_close(losses[name], weight * F.cross_entropy(outputs[key], labels))
    sum(losses.values()).backward()
    before = copy.deepcopy(segmentor.state_dict())
    segmentor.init_weights()
    assert all(torch.equal(value, before[key]) for key, value in segmentor.state_dict().items())


def test_classes_of_the_data_set_choose_and_order_the_outputs(files):
    names = ['__background__', 'bicycle', 'bird', 'boat', 'Traffic_Light']
    segmentor = segmentor_of(NAMES[0], files, names=names, classes=['traffic light', 'background'])
    assert segmentor.channels == [4, 0] and segmentor.num_classes == 2
    batch_labels = torch.tensor([[[0, 1, 255, 0]]])
    assert segmentor.network_labels(batch_labels).tolist() == [[[4, 0, 255, 4]]]


def test_weights_of_a_config(files):
    file = files(NAMES[0])
    config = dict(type='TorchvisionSegmentor', model=NAMES[0])
    assert own_weights({**config, 'weights': file}) == (file, [Path(file)])
    assert own_weights({**config, 'weights': None}) is None
    assert own_weights(dict(type='EncoderDecoder')) is None


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(model='fcn_resnet5'), "torchvision has no segmentation model 'fcn_resnet5'; did you mean 'fcn_resnet50'"),
        (dict(model='fcn_resnet50', weights='DEFALT'), "no file 'DEFALT', .* did you mean 'DEFAULT'"),
        (dict(model='fcn_resnet50', weights=None, num_classes=4, names=['a', 'b']), 'is 4, but there are names of 2'),
        (dict(model='fcn_resnet50', weights=None, num_classes=1), 'has 1 class; a segmentor needs at least 2'),
    ],
    ids=['model', 'weights', 'names', 'one class'],
)
def test_says_what_is_wrong(arguments, message):
    with pytest.raises(UserError, match=message):
        TorchvisionSegmentor(**arguments)


def test_names_weights_of_another_number_of_classes(files):
    with pytest.raises(
        UserError, match=r'do not fit LRASPP: 4 of another size, first classifier.low_classifier.weight'
    ):
        TorchvisionSegmentor(NAMES[0], files(NAMES[0]), num_classes=7)
