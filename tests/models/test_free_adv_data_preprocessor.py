"""FreeAdvSegDataPreProcessor: algorithm 1 of the paper, written out beside it."""

import copy

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmseg.models.data_preprocessor import SegDataPreProcessor

from mmadv.errors import UserError
from mmadv.models import FreeAdvSegDataPreProcessor, SegmentorAdapter, stack_images

FREE = dict(type='FreeAdvSegDataPreProcessor', radius='8/255', step_size='5/255')
RADIUS, STEP_SIZE = 8 / 255, 5 / 255


def free_model(build_model, name='segmenter', **changes):
    model = build_model(name, {**FREE, **changes}).train()
    model.data_preprocessor.slot = 0
    return model


def test_one_backward_pass_moves_weights_and_perturbation(build_model, make_batch):
    model, naive = free_model(build_model), build_model('segmenter').train()
    naive.load_state_dict(model.state_dict())
    batches = [make_batch([(32, 32)] * 2, seed=seed) for seed in (0, 1)]
    batches = [batches[0], batches[0], batches[1], batches[1]]
    passes = []
    model.backbone.register_forward_hook(lambda *_: passes.append(1))
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    for batch in batches:
        model.train_step(copy.deepcopy(batch), optimizer)
    assert len(passes) == 4

    perturbation = torch.zeros(2, 3, 32, 32)
    for batch in batches:
        noise = perturbation.clone().requires_grad_()
        pixels = (stack_images(batch['inputs']) + noise).clamp(0, 1) * 255
        data = naive.data_preprocessor({**copy.deepcopy(batch), 'inputs': list(pixels)}, True)
        loss, _ = naive.parse_losses(naive.loss(**data))
        by_noise, *by_weights = torch.autograd.grad(loss, [noise, *naive.parameters()])
        with torch.no_grad():
            for parameter, gradient in zip(naive.parameters(), by_weights, strict=True):
                parameter -= 0.1 * gradient
            perturbation = (perturbation + STEP_SIZE * by_noise.sign()).clamp(-RADIUS, RADIUS)
    for ours, theirs in zip(model.parameters(), naive.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    actual = model.data_preprocessor.perturbations[0]
    # The sign of a gradient near zero is rounding's.
    assert (actual != perturbation).double().mean() < 1e-3
    assert actual.abs().max() == pytest.approx(RADIUS)


def test_padding_is_not_perturbed_and_a_batch_of_another_shape_starts_afresh(build_model, make_batch):
    model = free_model(build_model, 'fcn', size_divisor=None, size=(40, 40))
    own = model.data_preprocessor
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.0))
    batch = make_batch([(24, 32), (40, 40)])
    model.train_step(copy.deepcopy(batch), optimizer)
    perturbation = own.perturbations[0]
    assert perturbation.shape == (2, 3, 40, 40)
    assert not perturbation[0, :, 24:].any() and not perturbation[0, :, :, 32:].any()
    assert (perturbation[0, :, :24, :32] != 0).double().mean() > 0.9

    stock = SegDataPreProcessor(
        mean=own.mean.flatten().tolist(), std=own.std.flatten().tolist(), bgr_to_rgb=True, size=(40, 40)
    )
    data = own(copy.deepcopy(batch), True)
    difference = data['inputs'] - stock(copy.deepcopy(batch), True)['inputs']
    assert 0 < (difference * own.std / 255).abs().max() <= RADIUS + 1e-6
    assert not difference[0, :, 24:].any()
    single = {name: part[:1] for name, part in batch.items()}
    clean = stock(copy.deepcopy(single), True)['inputs']
    torch.testing.assert_close(own(copy.deepcopy(single), True)['inputs'], clean, atol=1e-5, rtol=0)


def test_overflowing_gradients_leave_the_perturbation(build_model, make_batch):
    model = free_model(build_model)
    data = model.data_preprocessor(make_batch([(32, 32)] * 2), True)
    weights = torch.ones_like(data['inputs'])
    weights[0], weights[1, 0] = float('inf'), float('nan')
    (data['inputs'] * weights).sum().backward()
    actual = model.data_preprocessor.perturbations[0]
    assert actual.isfinite().all() and actual.abs().max() == pytest.approx(STEP_SIZE)


def test_testing_is_mmsegs_and_the_checkpoint_the_stock_models(build_model, make_batch):
    model, stock = free_model(build_model, 'fcn').eval(), build_model('fcn', seed=1)
    stock.load_state_dict(model.state_dict(), strict=True)
    batch = make_batch([(24, 24)] * 2)
    actual, expected = (part.data_preprocessor(copy.deepcopy(batch), False)['inputs'] for part in (model, stock))
    assert torch.equal(actual, expected)
    SegmentorAdapter(model, batch['data_samples'])
    assert copy.deepcopy(model).data_preprocessor._segmentor() is not model


def test_mistakes_get_a_sentence(build_model, make_batch):
    model = free_model(build_model)
    model.data_preprocessor.slot = None
    with pytest.raises(UserError, match="set train_cfg.type='FreeTrainLoop'"):
        model.data_preprocessor(make_batch([(32, 32)]), True)
    with pytest.raises(UserError, match='step_size 0 moves nothing'):
        FreeAdvSegDataPreProcessor(radius='4/255', step_size=0)
    with pytest.raises(UserError, match='Linf radius 4 is more than the whole range'):
        FreeAdvSegDataPreProcessor(radius=4)
    model.data_preprocessor.slot = 0
    batch = make_batch([(32, 32)])
    batch['data_samples'][0].gt_sem_seg.data[0, 0, 0] = 5
    with pytest.raises(UserError, match='/data/0.png: labels must be below 5'):
        model.data_preprocessor(batch, True)
    attack = dict(type='AdvSegDataPreProcessor', attack=dict(type='FastNewton'))
    for frozen in (free_model(build_model), build_model('fcn', attack)):
        frozen.requires_grad_(False)
        with pytest.raises(UserError, match='every parameter of the model is frozen, so there is nothing to train'):
            frozen.data_preprocessor(make_batch([(32, 32)]), True)
