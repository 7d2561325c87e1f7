"""DDC-AT: which pixels go to which branch, its loss against a naive version, and a checkpoint of the stock model."""

import copy
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.logging import MessageHub

from mmadv.attacks import PGD, Linf, derive_seed
from mmadv.errors import UserError
from mmadv.models import TrainingAdapter, stack_images, stack_labels
from mmadv.models.segmentors.ddcat_encoder_decoder import divided
from mmadv.models.training_only import TrainingOnly

ATTACK = dict(type='PGD', threat=dict(type='Linf', radius='8/255'), steps=2, step_size='4/255')
PREPROCESSOR = dict(type='AdvSegDataPreProcessor', attack=ATTACK)


@pytest.fixture(autouse=True)
def own_hub():
    name = 'test_ddcat_encoder_decoder'
    MessageHub._instance_dict.pop(name, None)
    hub = MessageHub.get_instance(name)
    hub.update_info('seed', 0)
    hub.update_info('iter', 0)
    yield hub
    MessageHub._instance_dict.pop(name, None)


@pytest.fixture
def ddcat(build_model):
    def build(name='psp', preprocessor=PREPROCESSOR, **changes):
        return build_model(name, {**preprocessor, **changes}, kind='DDCATEncoderDecoder')

    return build


@given(seed=st.integers(0, 2**32 - 1), levels=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_every_pixel_has_the_logits_of_the_branch_that_the_mask_head_says(seed, levels):
    """With few levels the mask head often ties, and then says the main branch."""
    random = np.random.default_rng(seed)
    main, second = (random.standard_normal((2, 3, 4, 5)) for _ in range(2))
    mask = random.integers(0, levels, (2, 2, 4, 5)).astype(float)
    actual = divided(*map(torch.from_numpy, (main, second, mask))).numpy()
    for n, h, w in np.ndindex(2, 4, 5):
        expected = second if mask[n, 1, h, w] > mask[n, 0, h, w] else main
        assert (actual[n, :, h, w] == expected[n, :, h, w]).all()


def test_no_gradient_flows_through_the_choice():
    generator = torch.Generator().manual_seed(0)
    main, second, mask = (torch.randn(1, k, 3, 3, generator=generator).requires_grad_() for k in (4, 4, 2))
    divided(main, second, mask).square().sum().backward()
    chosen = (mask[:, 1] > mask[:, 0])[:, None]
    assert mask.grad is None
    assert torch.equal(main.grad, torch.where(chosen, 0, 2 * main))
    assert torch.equal(second.grad, torch.where(chosen, 2 * second, 0))


def naive_logits(model, images, size):
    """Returns the logits of the three branches of a PSPNet, written out."""
    head, features = model.decode_head, model.backbone(images)[-1]
    pooled = [F.interpolate(part(features), features.shape[2:], mode='bilinear') for part in head.psp_modules]
    trunk = torch.cat([features, *pooled], dim=1)
    second, mask = model.branches['second'], model.branches['mask']
    logits = [part.conv_seg(block(trunk)) for part, block in (
        (head, head.bottleneck), (second, second.block), (mask, mask.block)
    )]  # fmt: skip
    return [F.interpolate(part, size, mode='bilinear') for part in logits]


@torch.no_grad()
def centre(model, images):
    """Makes mean logits zero, so that a random network uses every class in eval mode, and both branches in training."""
    branches = (model.decode_head, model.branches['second'], model.branches['mask'])
    for training, chosen in ((False, branches[:2]), (True, branches[2:])):
        model.train(training)
        logits = dict(zip(branches, naive_logits(model, images, images.shape[2:]), strict=True))
        for branch in chosen:
            branch.conv_seg.bias -= logits[branch].mean(dim=(0, 2, 3))


def naive_prediction(main, second, mask):
    """Returns the divided prediction in numpy, pixel by pixel."""
    main, second, mask = (part.detach().numpy() for part in (main, second, mask))
    return np.where(mask[:, 1] > mask[:, 0], second.argmax(1), main.argmax(1))


def naive_loss(model, clean, adversarial, labels):
    """Returns the loss of DDC-AT in numpy's terms; only the logits carry a gradient."""
    half, size = len(labels) // 2, labels.shape[1:]
    model.eval()
    with torch.no_grad():
        before, after = (naive_prediction(*naive_logits(model, images, size)) for images in (clean, adversarial))
    target = before != after
    target[half:] = False
    model.train()
    main, second, mask = naive_logits(model, torch.cat([clean[:half], adversarial[half:]]), size)
    main, second, mask = (part.log_softmax(1) for part in (main, second, mask))
    classes, marks = [], []
    for n, h, w in np.ndindex(*labels.shape):
        says_second = bool(mask[n, 1, h, w] > mask[n, 0, h, w])
        if labels[n, h, w] != 255:
            classes.append(-(second if says_second else main)[n, labels[n, h, w], h, w])
        marks.append(-mask[n, int(target[n, h, w]), h, w])
    return sum(classes) / len(classes), sum(marks) / len(marks), target


@pytest.mark.parametrize('images', [2, 3])
def test_loss_and_gradient_are_those_of_the_naive_version(ddcat, make_batch, images):
    model, batch = ddcat().double().train(), make_batch([(9, 9)] * images)
    model.decode_head.loss_decode.avg_non_ignore = True
    for sample in batch['data_samples']:
        sample.gt_sem_seg.data[:, :2] = 255
    data = model.data_preprocessor(batch, True)
    labels = stack_labels(data['data_samples'])
    clean = data['inputs'][:images].double()
    adversarial = clean.flip(0, 2) - clean  # far enough away that a few pixels change their class
    centre(model, clean)
    start = {key: value.clone() for key, value in model.named_buffers()}
    parameters = dict(model.named_parameters())

    losses = model.loss(torch.cat([clean, adversarial]), data['data_samples'])
    actual = torch.autograd.grad(losses['decode.loss_ce'] + losses['mask.loss_ce'], parameters.values())
    for key, value in model.named_buffers():
        value.copy_(start[key])
    classes, marks, target = naive_loss(model, clean, adversarial, labels)
    expected = torch.autograd.grad(classes + marks, parameters.values())

    torch.testing.assert_close(losses['decode.loss_ce'], classes)
    torch.testing.assert_close(losses['mask.loss_ce'], marks)
    assert float(losses['mask.boundary']) == pytest.approx(target[: images // 2].mean())
    assert target.any() and 0 < losses['mask.second'] < 1
    for key, one, other in zip(parameters, actual, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-6, msg=key)


def test_auxiliary_head_learns_on_the_mixed_batch(ddcat, make_batch):
    model = ddcat('psp_auxiliary')
    data = model.data_preprocessor(make_batch([(16, 16)] * 2), True)
    losses = model.loss(**data)
    clean, adversarial = data['inputs'].chunk(2)
    features = model.extract_feat(torch.stack([clean[0], adversarial[1]]))
    expected = model.auxiliary_head.loss(features, data['data_samples'], {})
    torch.testing.assert_close(losses['aux.loss_ce'], expected['loss_ce'])


def test_attack_sees_the_heads_own_classifier_in_eval_mode(ddcat, make_batch):
    model = ddcat()
    batch = make_batch([(24, 24)] * 2)
    data = model.train().data_preprocessor(copy.deepcopy(batch), True)
    attack = PGD(threat=Linf(radius='8/255'), steps=2, step_size='4/255')
    seeds = [derive_seed('noise', 0, 0, 0, 0, index) for index in range(2)]
    images, labels = stack_images(batch['inputs']), stack_labels(batch['data_samples'])
    own = model.data_preprocessor

    def pixels(inputs):
        return ((inputs * own.std + own.mean) / 255)[:, [2, 1, 0]]

    expected = attack.perturb(TrainingAdapter(model, (24, 24)), images, labels, seeds=seeds)
    torch.testing.assert_close(pixels(data['inputs'][2:]), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(pixels(data['inputs'][:2]), images, atol=1e-6, rtol=0)


def test_padding_is_no_pixel_of_the_mask_head(ddcat, make_batch):
    model = ddcat(size_divisor=16)
    data = model.data_preprocessor(make_batch([(16, 16), (10, 12)]), True)
    labels = stack_labels(data['data_samples'])
    losses = model.loss(**data)
    clean, adversarial = data['inputs'].chunk(2)
    _, _, mask = naive_logits(model, torch.stack([clean[0], adversarial[1]]), (16, 16))
    target = torch.zeros_like(labels)
    target[0] = model.boundary(clean[:1], adversarial[:1])[0]
    pixels = F.cross_entropy(mask, target, reduction='none')
    expected = torch.cat([pixels[0].flatten(), pixels[1, :10, :12].flatten()]).mean()
    torch.testing.assert_close(losses['mask.loss_ce'], expected)


def test_boundary_leaves_the_model_as_it_was(ddcat, make_batch):
    model = ddcat().train()
    model.backbone.layer1.eval()
    modes = [module.training for module in model.modules()]
    buffers = {key: value.clone() for key, value in model.named_buffers()}
    clean, adversarial = torch.randn(2, 2, 3, 16, 16).unbind()
    boundary = model.boundary(clean, adversarial)
    assert boundary.dtype == torch.bool and boundary.shape == (2, 16, 16) and not boundary.requires_grad
    assert not model.boundary(clean, clean).any()
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, buffers[key]) for key, value in model.named_buffers())


@pytest.mark.parametrize('name', ['psp', 'uper', 'aspp', 'separable'])
def test_checkpoint_is_the_stock_models_and_prediction_too(ddcat, build_model, make_batch, name):
    model, stock = ddcat(name), build_model(name, seed=1)
    branches = {key: value.clone() for key, value in model.branches.weights().items()}
    assert list(model.state_dict()) == list(stock.state_dict())
    stock.load_state_dict(model.state_dict(), strict=True)
    batch = make_batch([(24, 24)] * 2)
    with torch.no_grad():
        predictions = [part.test_step(copy.deepcopy(batch)) for part in (model, stock)]
    for ours, theirs in zip(*predictions, strict=True):
        assert torch.equal(ours.seg_logits.data, theirs.seg_logits.data)

    model.load_state_dict(build_model(name, seed=2).state_dict(), strict=True)
    assert branches and all(torch.equal(value, branches[key]) for key, value in model.branches.weights().items())


def test_branches_start_from_weights_of_their_own_and_all_of_them_learn(ddcat, make_batch):
    model = ddcat().train()
    model.init_weights()
    head, second = model.decode_head, model.branches['second']
    assert not torch.equal(head.bottleneck.conv.weight, second.block.conv.weight)
    assert second.conv_seg.weight.std().item() == pytest.approx(0.01, rel=0.3)
    data = model.data_preprocessor(make_batch([(24, 24)] * 2), True)
    torch.nn.init.constant_(model.branches['mask'].conv_seg.bias, 0)
    model.parse_losses(model.loss(**data))[0].backward()
    assert all(value.grad is not None for value in model.parameters())
    assert all(value.grad.any() for value in model.branches['mask'].conv_seg.parameters())


def test_branches_of_another_network_are_refused_in_a_resumed_run(ddcat, own_hub):
    model, other = ddcat(), ddcat('uper')
    other.branches.keep()
    own_hub.update_info('iter', 1)
    with pytest.raises(UserError, match='holds ddcat_branches of another network; resume with the config that it was'):
        model.branches.keep()


def test_weights_are_taken_from_the_iteration_before_alone(own_hub):
    def branches(seed):
        torch.manual_seed(seed)
        return TrainingOnly({'line': torch.nn.Linear(2, 2)}, key='lines')

    first = branches(0)
    own_hub.update_info('iter', 4)
    first.keep()
    first['line'].weight.data.add_(1)  # as the optimiser does, after it was kept
    for iteration, equal in ((5, True), (0, False), (7, False)):
        stored = own_hub.get_info('lines')
        other = branches(1)
        own_hub.update_info('iter', iteration)
        other.keep()
        assert torch.equal(other['line'].weight, first['line'].weight) == equal
        own_hub.update_info('lines', stored)


def test_mistakes_get_a_sentence(ddcat, build_model, make_batch):
    with pytest.raises(UserError, match='needs a data_preprocessor of type AdvSegDataPreProcessor; found SegData'):
        build_model('psp', kind='DDCATEncoderDecoder')
    with pytest.raises(UserError, match='FCNHead with 1 computes its loss in another way'):
        ddcat('sigmoid')
    known = 'PSPHead, ASPPHead, DepthwiseSeparableASPPHead, UPerHead'
    with pytest.raises(UserError, match=f'DDC-AT needs a decode head of type {known}; found FCNHead'):
        ddcat('fcn')
    model = ddcat()
    data = model.data_preprocessor(make_batch([(24, 24)] * 2), True)
    with pytest.raises(UserError, match=re.escape('DDC-AT trains on 4 images for 2 label maps; found 2')):
        model.loss(data['inputs'][:2], data['data_samples'])
    with pytest.raises(UserError, match='needs batches of at least 2 on every process'):
        model.loss(data['inputs'][:2], data['data_samples'][:1])
