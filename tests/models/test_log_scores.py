"""Log-scores: segmentors whose outputs are class scores are attacked as those with logits are."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmseg.evaluation import IoUMetric
from torch import nn
from torch.nn import functional as F

from mmadv import cfg
from mmadv.attacks import FGSM, PGD, Linf, ama, sea
from mmadv.errors import UserError
from mmadv.models import SegmentorAdapter, TrainingAdapter, stack_images, stack_labels
from mmadv.models.adapter import caveats
from mmadv.models.building import build_segmentor
from mmadv.models.log_scores import check_outputs, log_scores
from tests.models.mask_classification import HEADS, mask_model

SLIDE = dict(mode='slide', crop_size=(24, 24), stride=(16, 16))
# Mask2FormerHead makes its outputs as large as the whole image, so that mmseg's own slide inference fails.
WAYS = [(name, mode) for name in HEADS for mode in ('whole', 'slide') if (name, mode) != ('mask2former', 'slide')]


def scored(model, batch):
    """Returns predictions of mmseg's own test, its mIoU and its outputs."""
    with torch.no_grad():
        samples = model.test_step(copy.deepcopy(batch))
    metric = IoUMetric(iou_metrics=['mIoU'])
    metric.dataset_meta = dict(classes=[str(k) for k in range(model.num_classes)])
    metric.process({}, [sample.to_dict() for sample in samples])
    predictions = torch.stack([sample.pred_sem_seg.data[0] for sample in samples])
    return predictions, metric.evaluate(len(samples)), torch.stack([sample.seg_logits.data for sample in samples])


@pytest.mark.parametrize(('name', 'mode'), WAYS)
def test_clean_score_is_that_of_mmsegs_own_test(make_batch, name, mode):
    model = mask_model(name, dict(test_cfg=dict(size_divisor=8)), **(SLIDE if mode == 'slide' else {}))
    batch = make_batch([(40, 56)] * 2, labels=(47, 61))
    for sample in batch['data_samples']:
        sample.set_metainfo(dict(ori_shape=(47, 61)))
    predictions, expected, scores = scored(model, batch)
    adapter = SegmentorAdapter(model, batch['data_samples'])
    with torch.no_grad():
        logits = adapter(stack_images(batch['inputs']))
    assert len(predictions.unique()) > 1
    assert torch.equal(logits.argmax(1), predictions)
    torch.testing.assert_close(logits.softmax(1), scores / scores.sum(1, keepdim=True))
    correct = logits.argmax(1) == stack_labels(batch['data_samples'])
    assert round(100 * correct.float().mean().item(), 2) == pytest.approx(float(expected['aAcc']), abs=0.006)


@pytest.mark.parametrize(('name', 'kind'), [*WAYS, *((name, 'train') for name in HEADS)])
def test_gradient_agrees_with_finite_differences(make_batch, name, kind):
    model = mask_model(name, dict(test_cfg=dict(size_divisor=8)), **(SLIDE if kind == 'slide' else {})).double()
    batch = make_batch([(32, 40)])
    adapter = TrainingAdapter(model, (32, 48)) if kind == 'train' else SegmentorAdapter(model, batch['data_samples'])
    images = stack_images(batch['inputs']).double().requires_grad_()
    generator = torch.Generator().manual_seed(1)
    logits = adapter(images)
    weights = torch.randn(logits.shape, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((logits * weights).sum(), images)
    direction = torch.randn(images.shape, generator=generator, dtype=torch.float64)
    step = 1e-7
    with torch.no_grad():
        above, below = ((adapter(images + sign * step * direction) * weights).sum() for sign in (1, -1))
    assert float((above - below) / (2 * step)) == pytest.approx(float((gradient * direction).sum()), rel=1e-5)


def test_arg_max_stays_for_scores_that_differ_in_the_last_bit():
    scores = torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(0)) * 90 + 10
    pair = torch.cat([scores, torch.nextafter(scores, torch.tensor(torch.inf)), scores], dim=1)
    assert (log_scores(pair).argmax(1) == 1).all()
    assert not (pair.log().argmax(1) == 1).all()


def test_scores_of_zero_have_finite_logits_and_gradients():
    scores = torch.tensor([[0.0, 0.0], [3.0, 0.0], [1e-30, 0.0]]).view(1, 3, 1, 2).requires_grad_()
    logits = log_scores(scores)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, torch.tensor([[[0, 2]]])), scores)
    assert torch.isfinite(logits).all() and torch.isfinite(gradient).all()
    assert logits.argmax(1).flatten().tolist() == scores.argmax(1).flatten().tolist() == [1, 0]


@pytest.mark.parametrize(
    'attack',
    [
        FGSM(threat=Linf(radius='16/255')),
        PGD(threat=Linf(radius='16/255'), steps=5, step_size='4/255'),
        ama('16/255', 12),
        sea('16/255', 5, 'paper'),
    ],
    ids=['fgsm', 'pgd', 'ama', 'sea'],
)
def test_attacks_take_them(make_batch, attack):
    model = mask_model('mask2former')
    batch = make_batch([(24, 24)] * 2)
    adapter = SegmentorAdapter(model, batch['data_samples'])
    images = stack_images(batch['inputs'])
    with torch.no_grad():
        labels = adapter(images).argmax(1)
    result = attack(adapter, images, labels, seeds=[0, 1])
    assert (result.accuracy < 0.9).all()
    with torch.no_grad():
        assert torch.equal(adapter(result.images).argmax(1), result.predictions)


def test_trains_on_adversarial_images(make_batch):
    attack = dict(type='PGD', threat=dict(type='Linf', radius='8/255'), steps=2, step_size='4/255')
    model = mask_model('maskformer', dict(type='AdvSegDataPreProcessor', attack=attack)).train()
    batch = make_batch([(24, 24)] * 2)
    plain = mask_model('maskformer').train()
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    same = plain.data_preprocessor(copy.deepcopy(batch), True)
    moved = (data['inputs'] - same['inputs']).abs() * model.data_preprocessor.std / 255
    assert float(moved.max()) == pytest.approx(8 / 255, rel=1e-3)
    loss = model.loss(data['inputs'], data['data_samples'])['decode.loss']
    assert loss > plain.loss(same['inputs'], same['data_samples'])['decode.loss']
    loss.backward()
    assert model.decode_head.queries.grad.abs().sum() > 0


def test_results_say_that_they_are_log_scores(build_model):
    assert caveats(build_model('fcn')) == []
    (sentence,) = caveats(mask_model('san'))
    assert sentence.startswith('TinySANHead returns class scores, not logits: attacks take their logarithms')


class Softmax(nn.Module):
    """A head that returns what a function makes of another head's logits."""

    num_classes = out_channels = 5
    ignore_index, align_corners = 255, False

    def __init__(self, head, output):
        super().__init__()
        self.head, self.output = head, output

    def predict(self, *inputs):
        return self.output(self.head.predict(*inputs))


def with_output(model, output, **attributes):
    model.decode_head = Softmax(model.decode_head, output)
    for name, value in attributes.items():
        setattr(model.decode_head, name, value)
    return model


def test_other_heads_declare_their_scores(build_model, make_batch):
    batch = make_batch([(24, 24)])
    images = stack_images(batch['inputs'])
    with torch.no_grad():
        expected = SegmentorAdapter(build_model('fcn'), batch['data_samples'])(images)
        model = with_output(build_model('fcn'), lambda logits: logits.softmax(1), gives_scores=True)
        logits = SegmentorAdapter(model, batch['data_samples'])(images)
    torch.testing.assert_close(logits.softmax(1), expected.softmax(1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ('output', 'attributes', 'message'),
    [
        (lambda logits: logits.softmax(1), {}, 'Softmax returned probabilities, which sum to 1 at every pixel'),
        (lambda logits: logits, {'gives_scores': True}, r'gives_scores = True, but returned -\d'),
        (lambda logits: logits[:, :4], {}, r'returned outputs of shape \(1, 4, 24, 24\); .* 5 classes'),
        (lambda logits: logits.argmax(1), {}, r'returned outputs of shape'),
        (lambda logits: (logits * 9).long(), {}, 'returned torch.int64 numbers, neither logits nor class scores'),
    ],
    ids=['probabilities', 'negative', 'channels', 'classes', 'integers'],
)
def test_refuses_outputs_of_another_kind(build_model, make_batch, output, attributes, message):
    batch = make_batch([(24, 24)])
    adapter = SegmentorAdapter(with_output(build_model('fcn'), output, **attributes), batch['data_samples'])
    with pytest.raises(UserError, match=message):
        adapter(stack_images(batch['inputs']))


def test_checks_what_has_no_image_size():
    with pytest.raises(UserError, match='head returned outputs of shape'):
        check_outputs(torch.zeros(1, 5), scores=False, channels=5, name='head')


@pytest.mark.parametrize('config', ['mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py'])
def test_real_heads_where_mmdetection_is_installed(make_batch, config):
    pytest.importorskip('mmdet.models')
    model = build_segmentor(Config.fromfile(cfg(f'mmseg::{config}'))).eval()
    batch = make_batch([(64, 64)], classes=150)
    predictions, _, scores = scored(model, batch)
    with torch.no_grad():
        logits = SegmentorAdapter(model, batch['data_samples'])(stack_images(batch['inputs']))
    assert torch.equal(logits.argmax(1), predictions)
    torch.testing.assert_close(logits.softmax(1), scores / scores.sum(1, keepdim=True))
