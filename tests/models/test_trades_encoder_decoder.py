"""TRADES: its loss is the formula's, its batches are pairs, its checkpoint is the stock model's."""

import copy
import re

import pytest
import torch
from mmengine.logging import MessageHub

from mmadv.attacks import PGD, KullbackLeibler, Linf, derive_seed
from mmadv.errors import UserError
from mmadv.models import TrainingAdapter, stack_images, stack_labels

ATTACK = dict(
    type='PGD',
    threat=dict(type='Linf', radius='8/255'),
    steps=2,
    step_size='4/255',
    objective=dict(type='KullbackLeibler'),
)
PREPROCESSOR = dict(type='AdvSegDataPreProcessor', attack=ATTACK)


@pytest.fixture(autouse=True)
def own_hub():
    name = 'test_trades_encoder_decoder'
    MessageHub._instance_dict.pop(name, None)
    hub = MessageHub.get_instance(name)
    hub.update_info('seed', 0)
    hub.update_info('iter', 5)
    yield hub
    MessageHub._instance_dict.pop(name, None)


@pytest.fixture
def trades(build_model):
    def build(name='fcn', preprocessor=PREPROCESSOR, **changes):
        return build_model(name, {**preprocessor, **changes}, kind='TRADESEncoderDecoder')

    return build


def test_loss_is_that_of_clean_images_and_beta_times_the_divergence(trades, build_model, make_batch):
    model, stock = trades(), build_model('fcn')
    stock.load_state_dict(model.state_dict())
    batch = make_batch([(24, 24)] * 2)
    for sample in batch['data_samples']:
        sample.gt_sem_seg.data[:, :3] = 255
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    clean, adversarial = data['inputs'].chunk(2)
    expected = stock.data_preprocessor(copy.deepcopy(batch), True)
    assert torch.equal(clean, expected['inputs'])
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in data['data_samples']])

    losses = model.loss(**data)
    reference = stock.loss(expected['inputs'], expected['data_samples'])
    assert set(losses) == {*reference, 'decode.loss_kl'}
    for name, value in reference.items():
        torch.testing.assert_close(losses[name], value)
    meta = [dict(img_shape=clean.shape[2:])] * 2
    p, q = (stock.encode_decode(part, meta).softmax(1) for part in (clean, adversarial))
    divergence = (p * (p / q).log()).sum(1)[labels != 255].mean()
    torch.testing.assert_close(losses['decode.loss_kl'], 6 * divergence, atol=1e-5, rtol=1e-4)
    assert divergence > 0


def test_attack_maximises_the_divergence_in_eval_mode(trades, make_batch):
    model = trades()
    batch = make_batch([(24, 24)] * 2)
    data = model.train().data_preprocessor(copy.deepcopy(batch), True)
    attack = PGD(threat=Linf(radius='8/255'), steps=2, step_size='4/255', objective=KullbackLeibler())
    seeds = [derive_seed('noise', 0, 0, 5, 0, index) for index in range(2)]
    images, labels = stack_images(batch['inputs']), stack_labels(batch['data_samples'])
    expected = attack.perturb(TrainingAdapter(model, (24, 24)), images, labels, seeds=seeds)
    own = model.data_preprocessor
    actual = ((data['inputs'][2:] * own.std + own.mean) / 255)[:, [2, 1, 0]]
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)


def test_stability_training_is_trades_with_noise_in_place_of_an_attack(trades, build_model, make_batch):
    """CE(f(x), y) + β KL(f(x) ‖ f(x + σε)), with the noise of the image's seed, clipped (Zheng et al.; Li et al.)."""
    model, stock = trades(attack=dict(type='GaussianNoise', sigma=0.12)).eval(), build_model('fcn').eval()
    stock.load_state_dict(model.state_dict())
    batch = make_batch([(24, 24)] * 2)
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    own, images = model.data_preprocessor, stack_images(batch['inputs'])
    generators = [torch.Generator().manual_seed(derive_seed('noise', 0, 0, 5, 0, n)) for n in range(2)]
    noise = torch.stack([torch.randn(images.shape[1:], generator=one, dtype=torch.float64) for one in generators])
    noisy = ((data['inputs'][2:] * own.std + own.mean) / 255)[:, [2, 1, 0]]
    torch.testing.assert_close(noisy, (images + 0.12 * noise.float()).clamp(0, 1), atol=1e-6, rtol=0)
    losses, reference = model.loss(**data), stock.loss(data['inputs'][:2], data['data_samples'])
    p, q = (stock.encode_decode(part, [dict(img_shape=(24, 24))] * 2).softmax(1) for part in data['inputs'].chunk(2))
    divergence = (p * (p / q).log()).sum(1)
    assert divergence.mean() > 0
    torch.testing.assert_close(
        losses['decode.loss_kl'] + losses['decode.loss_ce'],
        reference['decode.loss_ce'] + 6 * divergence.mean(),
        atol=1e-5,
        rtol=1e-4,
    )


def test_clean_and_adversarial_images_have_batch_statistics_of_their_own(trades, build_model, make_batch):
    model, stock = trades().train(), build_model('fcn').train()
    stock.load_state_dict(model.state_dict())
    data = model.data_preprocessor(make_batch([(24, 24)] * 2), True)
    model.loss(**data)
    for part in data['inputs'].chunk(2):
        stock.loss(part, data['data_samples'])
    for key, value in stock.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, msg=key)
    assert model.backbone.stem[1].num_batches_tracked == 2


def test_gradient_flows_through_both_predictions(trades, make_batch):
    model = trades()
    data = model.data_preprocessor(make_batch([(24, 24)] * 2), True)
    data['inputs'] = data['inputs'].requires_grad_()
    (gradient,) = torch.autograd.grad(model.loss(**data)['decode.loss_kl'], data['inputs'])
    assert gradient[:2].any() and gradient[2:].any()


def test_samples_that_are_not_drawn_add_no_divergence(trades, make_batch):
    model = trades(prob=0)
    data = model.data_preprocessor(make_batch([(24, 24)] * 2), True)
    assert torch.equal(*data['inputs'].chunk(2))
    assert model.loss(**data)['decode.loss_kl'].item() == pytest.approx(0, abs=1e-7)


def test_padded_labels_of_unequal_images_are_padded_once(trades, make_batch):
    model = trades(size_divisor=16)
    data = model.data_preprocessor(make_batch([(24, 24), (20, 30)]), True)
    assert data['inputs'].shape == (4, 3, 32, 32)
    assert all(sample.gt_sem_seg.data.shape == (1, 32, 32) for sample in data['data_samples'])
    assert model.loss(**data)['decode.loss_kl'] > 0


def test_checkpoint_is_the_stock_models_and_prediction_too(trades, build_model, make_batch):
    model, stock = trades('uper'), build_model('uper', seed=1)
    stock.load_state_dict(model.state_dict(), strict=True)
    assert list(model.state_dict()) == list(stock.state_dict())
    batch = make_batch([(24, 24)] * 2)
    with torch.no_grad():
        predictions = [part.test_step(copy.deepcopy(batch)) for part in (model, stock)]
    for ours, theirs in zip(*predictions, strict=True):
        assert torch.equal(ours.pred_sem_seg.data, theirs.pred_sem_seg.data)


def test_mistakes_get_a_sentence(trades, build_model, make_batch):
    with pytest.raises(UserError, match='needs a data_preprocessor of type AdvSegDataPreProcessor; found SegData'):
        build_model('fcn', kind='TRADESEncoderDecoder')
    with pytest.raises(UserError, match='FCNHead with 1 computes its loss in another way'):
        trades('sigmoid')
    model = trades(batch_augments=lambda inputs, samples: (inputs, samples))
    with pytest.raises(UserError, match='batch_augments would mix'):
        model.data_preprocessor(make_batch([(24, 24)]), True)
    model = trades()
    data = model.data_preprocessor(make_batch([(24, 24)] * 2), True)
    with pytest.raises(UserError, match=re.escape('trains on 4 images for 2 label maps; found 2')):
        model.loss(data['inputs'][:2], data['data_samples'])
