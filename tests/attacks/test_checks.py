"""Every public entry refuses images, noise, radii and steps in other units than those of images in [0, 1]."""

import warnings

import pytest
import torch
from toy_models import batch, conv_net

from mmadv.attacks import FGSM, L2, PGD, FastNewton, FromPixels, GaussianNoise, Linf, TrainingBatch, Universal, preset
from mmadv.attacks.checks import warn_of_probabilities
from mmadv.errors import UserError
from mmadv.robustness import (
    Certifier,
    ClassBank,
    SmoothAdv,
    SmoothedModel,
    certified_radius,
    measure_gradients,
    soft_radii,
)
from mmadv.robustness.sanity_checks import measure
from mmadv.synthesis import (
    ClassGaussian,
    Descent,
    ball,
    corrupt,
    generate,
    inpaint,
    mean_absolute_error,
    move_to_class,
    psnr,
    ssim,
)

LINF = Linf(radius='8/255')
SIZE = (12, 14)  # at least as large as the window of SSIM
MODEL = conv_net(0).eval()
GOOD, LABELS = batch(0, size=SIZE)
MASK = torch.ones(3, 1, *SIZE, dtype=torch.bool)
CLASSES = torch.tensor([[0], [1], [2]])
STEPS = Descent(steps=1)


def loss(images, logits):
    return logits.flatten(1).sum(1)


TAKE_IMAGES = {
    'attack': lambda x: FGSM(threat=LINF)(MODEL, x, LABELS),
    'attack without a radius': lambda x: FastNewton()(MODEL, x, LABELS),
    'perturb': lambda x: GaussianNoise(sigma=0.1).perturb(MODEL, x, LABELS),
    'start': lambda x: FGSM(threat=LINF)(MODEL, GOOD, LABELS, start=x),
    'universal training': lambda x: Universal(threat=LINF, steps=6).train(6 * [[TrainingBatch(MODEL, x, LABELS)]]),
    'SmoothedModel': lambda x: SmoothedModel(MODEL, sigma=0.1, samples=1)(x),
    'Certifier': lambda x: Certifier(sigma=0.1, n0=1, n=1)(MODEL, x[0]),
    'measure_gradients': lambda x: measure_gradients(MODEL, x, LABELS, CLASSES, lambda x, t, _: x[:, None]),
    'trust': lambda x: measure(MODEL, x, LABELS, FGSM(threat=LINF), seeds=range(3)),
    'bank': lambda x: ClassBank(x[:, None], torch.ones(3, dtype=torch.int64)),
    'Descent': lambda x: STEPS(MODEL, loss, x),
    'centre of a Descent': lambda x: STEPS(MODEL, loss, GOOD, centre=x),
    'corrupt': lambda x: corrupt(x, MASK),
    'inpaint': lambda x: inpaint(MODEL, x, LABELS, MASK, descent=STEPS),
    'generate': lambda x: generate(MODEL, x.mean((2, 3)), LABELS, SIZE, descent=STEPS),
    'target': lambda x: move_to_class(MODEL, x, torch.tensor([0, 1, 2]), descent=STEPS),
    'ClassGaussian': ClassGaussian.fit,
    'psnr': lambda x: psnr(x, GOOD, MASK),
    'reference of psnr': lambda x: psnr(GOOD, x, MASK),
    'ssim': lambda x: ssim(GOOD, x, MASK),
    'mean_absolute_error': lambda x: mean_absolute_error(x, GOOD, MASK),
}


@pytest.mark.parametrize('name', TAKE_IMAGES)
@pytest.mark.parametrize('unit', ['bytes', 'signed', 'nan'])
def test_images_of_another_range_are_refused(name, unit):
    bad = {'bytes': GOOD * 255, 'signed': GOOD - 1, 'nan': GOOD * torch.nan}[unit]
    if (name, unit) == ('SmoothedModel', 'nan'):
        assert TAKE_IMAGES[name](bad).isnan().all()
        return
    with pytest.raises(UserError, match=r'must be in \[0, 1\]; found values from'):
        TAKE_IMAGES[name](bad)


TAKE_SIGMA = {
    'GaussianNoise': lambda s: GaussianNoise(sigma=s),
    'SmoothAdv': lambda s: SmoothAdv(attack=PGD(threat=LINF), sigma=s),
    'SmoothedModel': lambda s: SmoothedModel(MODEL, sigma=s),
    'Certifier': lambda s: Certifier(sigma=s),
    'certified_radius': lambda s: certified_radius(0.9, s),
    'soft_radii': lambda s: soft_radii(torch.rand(2, 3).numpy(), torch.rand(2, 3).numpy(), 10, alpha=0.1, sigma=s),
}


@pytest.mark.parametrize('name', TAKE_SIGMA)
@pytest.mark.parametrize(
    ('sigma', 'message'),
    [
        (12, 'sigma must be at most 1, the whole range of images .*; found 12; divide .* by 255'),
        (0, 'sigma must be a positive number.*found 0'),
        (-0.1, 'sigma must be a positive number.*found -0.1'),
        (float('nan'), 'sigma must be a (positive|finite) number.*found nan'),
        (True, 'sigma must be a (positive|finite) number.*found True'),
    ],
)
def test_noise_of_8_bit_values_is_refused(name, sigma, message):
    with pytest.raises(UserError, match=message):
        TAKE_SIGMA[name](sigma)


TAKE_RADIUS = {
    'Linf': lambda r: Linf(radius=r),
    'preset': lambda r: preset('ama', r),
    'with_radius': lambda r: FGSM(threat=LINF).with_radius(r),
    'FastNewton': lambda r: FastNewton(max_radius=r),
    'ball': lambda r: ball('Linf', r),
    'L2 attack': lambda r: PGD(threat=L2(radius=r))(MODEL, GOOD[:, :, :4, :4], LABELS[:, :4, :4]),
    'L2 SmoothAdv': lambda r: SmoothAdv(attack=PGD(threat=L2(radius=r)), sigma=0.1).perturb(
        MODEL, GOOD[:, :, :4, :4], LABELS[:, :4, :4]
    ),
    'L2 Descent': lambda r: Descent(threat=L2(radius=r))(MODEL, loss, GOOD[:, :, :4, :4]),
}


@pytest.mark.parametrize('name', TAKE_RADIUS)
def test_a_radius_beyond_the_whole_range_of_images_is_refused(name):
    with pytest.raises(UserError, match='adius 8 .*is more than the whole range'):
        TAKE_RADIUS[name](8)


TAKE_STEP_SIZE = {
    'PGD': lambda s: PGD(threat=LINF, step_size=s),
    'Universal': lambda s: Universal(threat=LINF, step_size=s),
    'Descent': lambda s: Descent(threat=LINF, step_size=s),
}


@pytest.mark.parametrize('name', TAKE_STEP_SIZE)
def test_step_sizes_of_8_bit_values_are_refused(name):
    with pytest.raises(UserError, match=f'{name}: step_size 2 is more than the whole range'):
        TAKE_STEP_SIZE[name](2)
    with pytest.raises(UserError, match=f'{name}: step_size 0 moves nothing'):
        TAKE_STEP_SIZE[name](0)


@pytest.mark.parametrize(
    ('mean', 'std', 'message'),
    [
        ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], 'must be those of images in .0, 1.; found .123.675'),
        ([0.485, 0.456, 0.406], [58.395, 57.12, 57.375], 'divide statistics of 8-bit images by 255'),
        ([0.5] * 3, [0.5] * 2, 'one positive std per mean'),
        ([0.5], [0.0], 'one positive std per mean'),
        ([float('nan')], [0.5], 'must be a finite number; found nan'),
    ],
)
def test_statistics_of_8_bit_images_are_refused(mean, std, message):
    with pytest.raises(UserError, match=f'FromPixels.*{message}'):
        FromPixels(MODEL, mean=mean, std=std)


def test_a_perturbation_of_8_bit_values_is_refused():
    with pytest.raises(UserError, match=r'magnitudes of a universal perturbation must be in \[0, 1\]'):
        Universal(threat=LINF).with_perturbation(torch.full((3, 4, 4), -8.0))


def test_probabilities_are_told_from_logits():
    logits = torch.randn(2, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match='seem to be probabilities'):
        assert warn_of_probabilities(logits.softmax(1))
    with pytest.warns(UserWarning, match='seem to be probabilities'):
        assert warn_of_probabilities(logits.softmax(1).half())
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for other in (logits, logits.log_softmax(1), logits.sigmoid(), logits[:, :1].softmax(1), logits.relu()):
            assert not warn_of_probabilities(other)
