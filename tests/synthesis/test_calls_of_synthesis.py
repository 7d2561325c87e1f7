"""Every public call of mmadv.synthesis refuses every spoilt argument in one sentence that names it."""

import pytest
import torch
from mutations import cases, check_complete, check_refused, rights
from toy_models import batch, conv_net

import mmadv.synthesis as synthesis
from mmadv.attacks import Linf
from mmadv.synthesis import ClassGaussian, Descent

MODEL = conv_net(0).eval()
IMAGES, LABELS = batch(0, size=(7, 8))
MASK = IMAGES[:, :1] > 0.5
STEP = Descent(steps=1)
GAUSSIAN = ClassGaussian.fit(IMAGES)
QUALITY = dict(images=IMAGES, reference=IMAGES.flip(0), mask=MASK)


def loss(images, logits):
    return logits.flatten(1).sum(1)


def callback(step, images, losses):
    assert step == 0


# name -> a function that returns the callable and its right arguments.
CALLS = {
    'ClassGaussian': lambda: (ClassGaussian, dict(mean=GAUSSIAN.mean, centred=GAUSSIAN.centred)),
    'ClassGaussian.fit': lambda: (ClassGaussian.fit, dict(images=IMAGES)),
    'ClassGaussian.sample': lambda: (GAUSSIAN.sample, dict(seeds=[1, 2])),
    'Descent': lambda: (Descent, dict(steps=2, step_size='8/255', threat=Linf(radius='16/255'))),
    'Descent.__call__': lambda: (STEP, dict(model=MODEL, loss=loss, start=IMAGES, centre=IMAGES, callback=callback)),
    'ball': lambda: (synthesis.ball, dict(norm='L2', radius='4/255')),
    'corrupt': lambda: (synthesis.corrupt, dict(images=IMAGES, mask=MASK)),
    'generate': lambda: (
        synthesis.generate,
        dict(model=MODEL, means=IMAGES.mean((2, 3)), labels=LABELS, size=(7, 8), descent=STEP, ignore_index=255)
        | dict(callback=callback),
    ),
    'inpaint': lambda: (
        synthesis.inpaint,
        dict(model=MODEL, images=IMAGES, labels=LABELS, mask=MASK, descent=STEP, penalty=1.0, ignore_index=255)
        | dict(callback=callback),
    ),
    'move_to_class': lambda: (
        synthesis.move_to_class,
        dict(model=MODEL, images=IMAGES, classes=torch.tensor([0, 1, 2]), descent=STEP, objective='mean_logit')
        | dict(callback=callback),
    ),
    'psnr': lambda: (synthesis.psnr, QUALITY),
    'mean_absolute_error': lambda: (synthesis.mean_absolute_error, QUALITY),
    'ssim': lambda: (synthesis.ssim, QUALITY),
}
RIGHT = rights(
    ('a number in the range', '2.5', 'ball.radius', 'inpaint.penalty'),
    ('a number in the range', '0', 'inpaint.penalty'),
    ('any number of images, each less their mean', 'smaller batch|in 0..255|negative', 'ClassGaussian.centred'),
    ('any number of images', 'smaller batch', 'ClassGaussian.fit.images'),
    ('any number of images', 'one less|one more', 'ClassGaussian.sample.seeds'),
    ('images of any size', 'narrower|lower', 'ClassGaussian.fit.images', 'move_to_class.images'),
    ('the model refuses other channels itself', 'narrower', 'generate.means'),
)


def test_every_call_is_tried():
    check_complete(synthesis, CALLS, ())


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(('name', 'argument'), cases(CALLS))
def test_spoilt_arguments_are_refused(name, argument):
    check_refused(CALLS, RIGHT, name, argument)


@pytest.mark.parametrize(
    'name', ['inpaint', 'move_to_class', 'Descent.__call__', 'corrupt', 'ssim', 'ClassGaussian.fit']
)
def test_layout_and_graph_of_the_images_do_not_matter(name):
    call, arguments = CALLS[name]()
    first = next(key for key in arguments if key in ('images', 'start'))
    plain = call(**arguments)
    strided = call(**{**arguments, first: arguments[first].mT.contiguous().mT})
    in_graph = call(**{**arguments, first: arguments[first].clone().requires_grad_()})
    for other in (strided, in_graph):
        one, two = (value.mean if isinstance(value, ClassGaussian) else value for value in (plain, other))
        torch.testing.assert_close(one, two.detach(), rtol=0, atol=1e-12)
