"""The PAG segmentor against a naive computation, finite differences and the stock segmentor."""

import contextlib

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn
from torch.nn import functional as F

from mmadv.errors import UserError
from mmadv.models import PAGEncoderDecoder, pag_segmentor
from mmadv.models.iteration_key import IterationKey
from mmadv.models.pag_regions import RegionDistillation, RegionExemplars
from mmadv.models.pag_targets import BankRequest, Teacher, collect_bank, crop_around
from mmadv.robustness import ClassBank, Distillation, OneImage

CLASSES = 5
PAG = dict(weight=0.3, classes_per_step=CLASSES)


@pytest.fixture
def build_pag(build_model, monkeypatch):
    def build(name, pag=PAG, seed=0, bank_size=(16, 16), preprocessor=None):
        make = MODELS.build

        def make_pag(config, **options):
            segmentor = config.get('type') == 'EncoderDecoder'
            return make({**config, 'type': 'PAGEncoderDecoder', 'pag': pag} if segmentor else config, **options)

        with monkeypatch.context() as patch:
            patch.setattr(MODELS, 'build', make_pag)
            model = build_model(name, preprocessor, seed)
        examples = torch.randint(0, 256, (CLASSES, 1, 3, *bank_size), generator=torch.Generator().manual_seed(1))
        model.set_pag_target(OneImage(ClassBank(examples.to(torch.uint8), torch.ones(CLASSES, dtype=torch.int64))))
        return model

    return build


def losses_of(model, batch):
    data = model.data_preprocessor(batch, training=True)
    return model.loss(**data)


def pag_loss(model, batch):
    return losses_of(model, {key: list(value) for key, value in batch.items()})['loss_pag']


def trained(model, seed=4):
    """Returns the model with running statistics that are neither those of a new norm nor those of a batch."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return model


def smooth(model):
    """Returns the model with SiLU for ReLU: at a ReLU's kink, rounding decides about the whole gradient of a unit."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.SiLU())
    return model


def copied(batch):
    return dict(inputs=list(batch['inputs']), data_samples=[sample.clone() for sample in batch['data_samples']])


@pytest.mark.parametrize(('low', 'high'), [(0, 1), (-1, 1)])
def test_images_scaled_in_the_pipeline_are_refused(build_pag, make_batch, low, high):
    model, batch = build_pag('fcn'), make_batch([(16, 16)] * 2)
    batch['inputs'] = [image / 255 * (high - low) + low for image in batch['inputs']]
    with pytest.raises(UserError, match=r'pixels must be in \[0, 255\]; found values from .* of the pipeline'):
        losses_of(model, batch)


def test_the_loss_is_the_naive_one_of_the_stock_model_in_eval_mode(build_model, build_pag, make_batch):
    model, batch = smooth(trained(build_pag('fcn'))).train(), make_batch([(16, 16)] * 2)
    model.decode_head.dropout = nn.Dropout2d(0.5)
    stock = smooth(trained(build_model('fcn'))).eval()
    for sample in batch['data_samples']:
        sample.gt_sem_seg.data[:, :3] = 255
    actual = losses_of(model, copied(batch))
    (target,) = model._pag_target
    mean, std = model.data_preprocessor.mean, model.data_preprocessor.std
    sums, cosines = [], []
    for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
        pixels = (image.float() / 255).requires_grad_()
        inputs = ((pixels[[2, 1, 0]] * 255 - mean) / std)[None]
        meta = dict(ori_shape=(16, 16), img_shape=(16, 16), pad_shape=(16, 16), padding_size=[0] * 4)
        logits = stock.encode_decode(inputs, [meta])[0]
        row = []
        for k in range(CLASSES):
            score = logits[k][sample.gt_sem_seg.data[0] != 255].mean()
            (gradient,) = torch.autograd.grad(score, pixels, retain_graph=True)
            wanted = target.representatives[k] - pixels.detach()
            row.append(float(nn.functional.cosine_similarity(gradient.flatten(), wanted.flatten(), dim=0)))
        sums.append(sum(1 - cosine for cosine in row))
        cosines += row
    assert float(actual['loss_pag'].detach()) == pytest.approx(0.3 * sum(sums) / 2, rel=1e-4)
    assert float(actual['pag_cosine']) == pytest.approx(sum(cosines) / len(cosines), abs=1e-5)
    assert 0 < float(actual['pag_high_frequency']) < 1


@pytest.mark.parametrize(('name', 'training'), [('fcn', True), ('psp', False), ('uper', False), ('segmenter', True)])
def test_second_order_gradients_agree_with_finite_differences(name, training, build_pag, make_batch):
    model, batch = build_pag(name, bank_size=(32, 32)).double().train(training), make_batch([(32, 32)] * 2)
    parameters = list(model.parameters())
    generator = torch.Generator().manual_seed(3)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]

    def loss_at(step):
        with torch.no_grad():
            for parameter, towards in zip(parameters, direction, strict=True):
                parameter.add_(step * towards)
            values = [parameter.clone() for parameter in parameters]
        actual = pag_loss(model, copied(batch))
        with torch.no_grad():
            for parameter, value, towards in zip(parameters, values, direction, strict=True):
                parameter.copy_(value - step * towards)
        return float(actual.detach())

    pag_loss(model, copied(batch)).backward()
    slope = sum(float((p.grad * d).sum()) for p, d in zip(parameters, direction, strict=True) if p.grad is not None)
    # So short a step crosses no kink of the rectifiers, where input gradients jump.
    step = 1e-7
    difference = (loss_at(step) - loss_at(-step)) / (2 * step)
    assert slope == pytest.approx(difference, rel=1e-3, abs=1e-4)
    assert abs(slope) > 1e-3


def test_a_step_is_the_stock_segmentor_s_with_frozen_norms(build_model, build_pag, make_batch):
    stock, model = trained(build_model('fcn')).train(), trained(build_pag('fcn')).train()
    model.backbone.layer1.eval()
    modes = [module.training for module in model.modules()]
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    for module in stock.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    batch = make_batch([(16, 16)] * 2)
    expected = stock.loss(**stock.data_preprocessor(copied(batch), training=True))
    actual = losses_of(model, copied(batch))
    assert set(actual) - set(expected) == {'loss_pag', 'pag_cosine', 'pag_high_frequency'}
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value)
    model.parse_losses(actual)[0].backward()
    assert [module.training for module in model.modules()] == modes
    assert list(model.state_dict()) == list(stock.state_dict())
    torch.testing.assert_close(dict(model.named_buffers()), buffers, rtol=0, atol=0)
    assert all(norm.weight.grad.any() for norm in model.modules() if isinstance(norm, nn.BatchNorm2d))


def test_norms_that_were_never_trained_are_refused(build_pag):
    model = build_pag('fcn')
    with pytest.raises(UserError, match=r'PAGEncoderDecoder trains with frozen .* of 2\d were never trained'):
        model.check_norms()
    trained(model).check_norms()
    assert model.training
    build_pag('segmenter').check_norms()
    own = build_pag('fcn')
    own.backbone.train = lambda mode=True: type(own.backbone).train(own.backbone, False)  # as norm_eval=True does
    with pytest.raises(UserError, match='2 of 2 .*first: decode_head'):
        own.check_norms()


def test_only_norms_stay_in_eval_mode_in_training(build_pag):
    model = build_pag('fcn')
    for _ in range(2):
        frozen = {type(module) for module in model.train().modules() if not module.training}
        assert frozen == {nn.BatchNorm2d} and model.training
        assert not any(module.training for module in model.eval().modules())


def test_the_loss_in_training_is_that_in_eval_mode(build_pag, make_batch):
    model, batch = trained(build_pag('fcn')).train(), make_batch([(16, 16)] * 2)
    first = pag_loss(model, copied(batch))
    torch.testing.assert_close(pag_loss(model.eval(), copied(batch)), first)
    assert not torch.isclose(pag_loss(trained(model, seed=5).train(), copied(batch)), first)


def coloured_batch(seed, images=2):
    """Returns images of one colour per class with noise, as the dataloader gives them."""
    generator = torch.Generator().manual_seed(seed)
    labels = F.interpolate(torch.randint(0, CLASSES, (images, 1, 4, 4), generator=generator).float(), size=16).long()
    colours = torch.randint(0, 256, (CLASSES, 3), generator=torch.Generator().manual_seed(7))
    noise = torch.randn(images, 3, 16, 16, generator=generator) * 20
    pixels = (colours[labels[:, 0]].permute(0, 3, 1, 2) + noise).clamp(0, 255).to(torch.uint8)
    samples = [SegDataSample(metainfo=dict(ori_shape=(16, 16), img_shape=(16, 16))) for _ in range(images)]
    for sample, label in zip(samples, labels, strict=True):
        sample.gt_sem_seg = PixelData(data=label)
    return dict(inputs=list(pixels), data_samples=samples)


def take_steps(model, count, seed):
    optimizer = torch.optim.Adam(model.train().parameters(), 1e-2)
    for step in range(count):
        optimizer.zero_grad()
        model.parse_losses(losses_of(model, coloured_batch(seed + step)))[0].backward()
        optimizer.step()
    return model


def test_training_aligns_the_network_in_eval_mode(build_model, build_pag, monkeypatch):
    stock = build_model('fcn')
    torch.manual_seed(0)
    for module in stock.modules():
        if isinstance(module, nn.Conv2d):
            module.reset_parameters()  # the fixture's large weights take many more steps
    start = take_steps(stock, 10, seed=0).state_dict()

    def aligned(steps):
        model = build_pag('fcn', dict(weight=0.5, classes_per_step=2))
        model.load_state_dict(start)
        weights = take_steps(model, steps, seed=100).state_dict()
        measured = build_pag('fcn')
        measured.load_state_dict(weights)
        return float(losses_of(measured.eval(), coloured_batch(seed=999))['pag_cosine'])

    assert abs(aligned(0)) < 0.1 and aligned(15) > 0.2
    # With the batch's statistics in training another network than the deployed one is aligned.
    monkeypatch.setattr(pag_segmentor, 'freeze_norms', lambda model: [])
    monkeypatch.setattr(pag_segmentor, 'eval_mode', contextlib.nullcontext)
    assert abs(aligned(15)) < 0.1


def test_accumulated_gradients_are_those_of_the_whole_batch(build_pag, make_batch):
    model, batch = trained(build_pag('psp')).train(), make_batch([(16, 16)] * 4)

    def gradients(parts):
        model.zero_grad()
        for rows in parts:
            part = {key: [value[i] for i in rows] for key, value in copied(batch).items()}
            (pag_loss(model, part) / len(parts)).backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    for one, two in zip(gradients([range(4)]), gradients([range(2), range(2, 4)]), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


def test_autocast_does_not_reach_the_loss(build_pag, make_batch):
    model, batch = build_pag('fcn'), make_batch([(16, 16)] * 2)
    plain = losses_of(model, copied(batch))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        mixed = losses_of(model, copied(batch))
    torch.testing.assert_close(mixed['loss_pag'], plain['loss_pag'])
    assert not torch.equal(mixed['decode.loss_ce'], plain['decode.loss_ce'])


def test_padding_counts_in_no_gradient(build_pag, make_batch):
    batch = make_batch([(12, 16), (16, 10)])
    values = []
    for content in (0, 255):
        model = build_pag('fcn')
        bank = model._pag_target[0].representatives
        bank[:, :, :, 10:] = content / 255  # beyond the image on the right of the second one
        losses = []
        model._pag_loss = lambda *given, loss=model._pag_loss, losses=losses: losses.append(loss(*given)) or losses[-1]
        losses_of(model, copied(batch))
        values.append(losses[0].loss.detach())
    assert float(values[0][0]) != float(values[1][0])
    torch.testing.assert_close(values[0][1], values[1][1])


def test_classes_are_drawn_anew_for_every_image_and_step(build_pag):
    model = build_pag('fcn', dict(weight=1, classes_per_step=2, exclude=[1]))
    steps = torch.stack([model._draw_classes(3) for _ in range(200)])
    assert steps.shape == (200, 3, 2) and (steps[..., 0] != steps[..., 1]).all()
    assert not torch.equal(steps[:, 0], steps[:, 1]) and not torch.equal(steps[0], steps[1])
    drawn = steps.flatten().bincount(minlength=CLASSES).tolist()
    assert drawn[1] == 0 and all(230 < drawn[k] < 370 for k in (0, 2, 3, 4))


def test_images_without_labels_cost_nothing(build_pag, make_batch):
    model, batch = build_pag('fcn'), make_batch([(16, 16)] * 2)
    alone = {key: value[:1] for key, value in copied(batch).items()}
    batch['data_samples'][1].gt_sem_seg.data[:] = 255
    torch.testing.assert_close(pag_loss(model, copied(batch)), pag_loss(model, alone))


def test_a_student_equal_to_its_teacher_has_nothing_to_learn(build_model, build_pag, make_batch):
    preprocessor = dict(mean=[100.0] * 3, std=[50.0] * 3)
    model, batch = build_pag('uper', preprocessor=preprocessor), make_batch([(16, 16)] * 2)
    teacher = build_model('uper', preprocessor)
    model.set_pag_target(Distillation(Teacher(teacher), CLASSES))
    losses = losses_of(model, copied(batch))
    assert float(losses['pag_cosine']) == pytest.approx(1, abs=1e-4)
    other = build_model('uper', preprocessor, seed=1)
    model.set_pag_target(Distillation(Teacher(other), CLASSES))
    assert float(losses_of(model, copied(batch))['pag_cosine']) < 0.9
    assert all(parameter.grad is None for parameter in other.parameters())


def region_bank(channels=3):
    examples = torch.randint(0, 256, (CLASSES, 2, channels + 1, 8, 8), generator=torch.Generator().manual_seed(1))
    examples[:, :, -1] = torch.arange(CLASSES)[:, None, None, None]
    return ClassBank(examples.to(torch.uint8), torch.full((CLASSES,), 2))


def test_the_loss_of_regions_is_the_naive_one_of_the_stock_model(build_model, build_pag, monkeypatch):
    model, batch = smooth(build_pag('fcn', dict(weight=0.3))), coloured_batch(seed=1)
    batch['data_samples'][1].gt_sem_seg.data[:, :3] = 255
    target = RegionExemplars(region_bank(), regions=3)
    model.set_pag_target(target)
    drawn = []
    repaint = target.repaint
    monkeypatch.setattr(target, 'repaint', lambda *given: drawn.append(repaint(*given)) or drawn[-1])
    actual = losses_of(model, copied(batch))
    ((images, labels, regions),) = ((one.images, one.labels, one.regions) for one in drawn)
    stock, cosines = smooth(build_model('fcn')).eval(), []
    mean, std = model.data_preprocessor.mean, model.data_preprocessor.std
    for n, (image, sample) in enumerate(zip(batch['inputs'], batch['data_samples'], strict=True)):
        pixels = (image.float() / 255).requires_grad_()
        meta = dict(ori_shape=(16, 16), img_shape=(16, 16), pad_shape=(16, 16), padding_size=[0] * 4)
        logits = stock.encode_decode(((pixels[[2, 1, 0]] * 255 - mean) / std)[None], [meta])[0]
        old, score = sample.gt_sem_seg.data[0], 0
        for number in range(1, int(regions[n].max()) + 1):
            rows, columns = ((regions[n] == number) & (labels[n] != old)).nonzero(as_tuple=True)
            gains = logits[labels[n, rows, columns], rows, columns] - logits[old[rows, columns], rows, columns]
            score = score + gains.mean()
        (gradient,) = torch.autograd.grad(score, pixels)
        wanted = (images[n] - pixels.detach()).flatten()
        cosines.append(float(F.cosine_similarity(gradient.flatten(), wanted, dim=0)))
    assert float(actual['pag_cosine']) == pytest.approx(sum(cosines) / 2, abs=1e-5)
    assert float(actual['loss_pag'].detach()) == pytest.approx(0.3 * (1 - sum(cosines) / 2), rel=1e-4)
    losses_of(model, copied(batch))
    assert not torch.equal(drawn[0].labels, drawn[1].labels)
    for sample in batch['data_samples']:
        sample.gt_sem_seg.data[:] = 255
    assert float(losses_of(model, copied(batch))['loss_pag'].detach()) == 0


def test_second_order_gradients_of_regions_agree_with_finite_differences(build_pag):
    model, batch = build_pag('fcn', dict(weight=0.5)).double().eval(), coloured_batch(seed=1)
    model.set_pag_target(RegionExemplars(region_bank()))
    parameters = list(model.parameters())
    generator = torch.Generator().manual_seed(3)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]

    def loss():
        model._pag_key = IterationKey()  # the same draws in every call
        return pag_loss(model, copied(batch))

    def loss_at(step):
        with torch.no_grad():
            values = [parameter.clone() for parameter in parameters]
            for parameter, towards in zip(parameters, direction, strict=True):
                parameter.add_(step * towards)
        actual = float(loss().detach())
        with torch.no_grad():
            for parameter, value in zip(parameters, values, strict=True):
                parameter.copy_(value)
        return actual

    loss().backward()
    slope = sum(float((p.grad * d).sum()) for p, d in zip(parameters, direction, strict=True) if p.grad is not None)
    step = 1e-7  # crosses no kink of the rectifiers
    assert slope == pytest.approx((loss_at(step) - loss_at(-step)) / (2 * step), rel=1e-3, abs=1e-5)
    assert abs(slope) > 1e-3


def test_a_student_equal_to_its_teacher_has_nothing_to_learn_of_regions(build_model, build_pag):
    model, batch = build_pag('uper', dict(weight=1)), coloured_batch(seed=1)
    model.set_pag_target(RegionDistillation(Teacher(build_model('uper')), region_bank()))
    assert float(losses_of(model, copied(batch))['pag_cosine']) == pytest.approx(1, abs=1e-4)
    model.set_pag_target(RegionDistillation(Teacher(build_model('uper', seed=1)), region_bank()))
    assert float(losses_of(model, copied(batch))['pag_cosine']) < 0.9


@pytest.mark.parametrize('setting', [dict(over='valid'), dict(classes_per_step=2)])
def test_settings_without_effect_on_regions_are_refused(setting, build_pag):
    model = build_pag('fcn', dict(weight=1, **setting))
    with pytest.raises(UserError, match=rf'model.pag.{next(iter(setting))} has no effect .*RegionExemplars; remove it'):
        model.set_pag_target(RegionExemplars(region_bank()))


def test_windows_lie_around_the_class_and_inside_the_image():
    rng = np.random.default_rng(0)
    for _ in range(50):
        height, width = rng.integers(5, 40, 2)
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        labels = rng.integers(0, 3, (height, width))
        labels[rng.integers(height), rng.integers(width)] = 7
        crop = crop_around(image, labels, 7, (12, 9))
        assert crop.shape == (12, 9, 3)
        if height >= 12 and width >= 9:
            (row,), (column,) = np.where(labels == 7)
            colour = image[row, column]
            assert (crop == colour).all(2).any()


def test_a_bank_takes_the_first_images_of_each_class_and_then_stops():
    seen = []

    def pictures():
        for n in range(10):
            seen.append(n)
            labels = np.full((8, 8), 255)
            labels[:4] = n % 2
            labels[7, 0] = 2  # one pixel is no image of class 2
            yield np.full((8, 8, 3), n, np.uint8), labels

    bank = collect_bank(pictures(), BankRequest((0, 1), 4, 2, (4, 8)))
    assert bank.counts.tolist() == [2, 2, 0, 0] and seen == [0, 1, 2, 3]
    assert [int(bank.examples[k, m].float().mean()) for k in (0, 1) for m in (0, 1)] == [0, 2, 1, 3]
    assert bank.examples.shape == (4, 2, 3, 4, 8)
    assert collect_bank(pictures(), BankRequest((2,), 4, 2, (4, 8))).counts.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ('pag', 'match'),
    [
        (dict(weight=0), r'pag\.weight must be a finite number more than 0; found 0'),
        (dict(), "pag must be a dict with 'weight'"),
        (dict(weight=1, classes_per_step=6), 'from 1 to 5; found 6'),
        (dict(weight=1, classes_per_step=1.5), 'classes_per_step must be an integer at least 1; found 1.5'),
        (dict(weight=1, over='all'), "'valid' or 'class'; found 'all'"),
        (dict(weight=1, exclude=[5]), r'classes from 0 to 4; found \[5\]'),
        (dict(weight=1, wieght=2), "no setting 'wieght'; did you mean 'weight'"),
    ],
)
def test_settings_that_make_no_sense_are_named(pag, match, build_pag):
    with pytest.raises(UserError, match=match):
        build_pag('fcn', pag)


def test_one_output_channel_is_refused(build_pag):
    with pytest.raises(UserError, match='one output channel for each class'):
        build_pag('sigmoid')


def test_targets_that_do_not_fit_are_named(build_pag, make_batch):
    model = build_pag('fcn', bank_size=(8, 8))
    with pytest.raises(UserError, match=r'make a bank of the size .*size of PAGTargetHook'):
        losses_of(model, make_batch([(16, 16)]))
    with pytest.raises(UserError, match='has 2 classes, the model 5'):
        model.set_pag_target(OneImage(ClassBank(torch.zeros(2, 1, 3, 8, 8), torch.tensor([1, 1]))))
    model._pag_target = ()
    with pytest.raises(UserError, match='add dict'):
        losses_of(model, make_batch([(16, 16)]))
    assert isinstance(model, PAGEncoderDecoder)
