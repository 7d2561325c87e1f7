"""The equidistant search for the step size, against a naive version and a model with a known boundary."""

import pytest
import torch
from toy_models import PixelLinear, batch, conv_net

from mmadv.attacks import FGSM, PGD, CrossEntropy, FastNewton, Linf, StepSearch
from mmadv.errors import UserError

EIGHT = Linf(radius='8/255')


@pytest.mark.parametrize('points', [1, 3, 5])
def test_equals_a_search_for_one_pixel_at_a_time(points):
    model, (images, labels) = conv_net(0).eval(), batch(0, n=4, size=(5, 6))
    predicted = model(images).argmax(1)
    labels = torch.where(labels == 255, 255, predicted)
    labels[2, :2] = (labels[2, :2] + 1) % 4  # some pixels are wrong already
    labels[3] = (predicted[3] + 1) % 4  # all pixels are
    threat = Linf(radius='40/255')
    result = StepSearch(attack=FGSM(threat=threat), points=points)(model, images, labels, seeds=range(4))
    full = FGSM(threat=threat)(model, images, labels, seeds=range(4)).images
    found = set()
    for n in range(4):
        adversarial, last = [], 0
        for h, w in (labels[n] != 255).nonzero().tolist():
            for k in range(points + 1):
                one = images[n] + k / points * (full[n] - images[n])
                if k == points or int(model(one[None])[0, :, h, w].argmax()) != labels[n, h, w]:
                    break
            adversarial.append(one)
            found.add(k)
            last = max(last, k)
        torch.testing.assert_close(result.images[n], torch.stack(adversarial).mean(0))
        assert int(result.forward_passes[n]) == 1 + min(last + 1, points) + 1  # FGSM's, the search's, and to evaluate
    assert found == set(range(points + 1)) and result.backward_passes.tolist() == [1] * 4
    assert torch.equal(result.images[3], images[3])


def test_takes_the_first_fraction_beyond_the_boundary():
    """One pixel each: Fast Newton's step to the boundary is known, and the search rounds it up to a fraction."""
    model = PixelLinear([1.0, 1.0, 1.0], -1.0)
    images = torch.tensor([0.34, 0.36, 0.40, 0.5], dtype=torch.float64).view(4, 1, 1, 1).repeat(1, 3, 1, 1)
    labels = torch.ones(4, 1, 1, dtype=torch.int64)
    attack = StepSearch(attack=FGSM(threat=Linf(radius=0.08)), points=4)
    result = attack(model, images, labels)
    torch.testing.assert_close(
        (images - result.images)[:, 0, 0, 0], torch.tensor([0.02, 0.04, 0.08, 0.08], dtype=torch.float64)
    )
    newton = (images - FastNewton()(model, images, labels).images)[:, 0, 0, 0]
    torch.testing.assert_close(newton, images[:, 0, 0, 0] - 1 / 3)
    assert result.accuracy.tolist() == [0, 0, 0, 1]


def test_a_random_start_is_part_of_the_full_step():
    model, (images, labels) = conv_net(1).eval(), batch(1, n=6, size=(4, 4))
    labels = torch.where(labels == 255, 255, model(images).argmax(1))
    inner, seeds = PGD(threat=EIGHT, steps=1, step_size='10/255'), range(6)
    full = inner.perturb(model, images, labels, seeds=seeds) - images
    found = StepSearch(attack=inner, points=4).perturb(model, images, labels, seeds=seeds) - images
    share = found.abs().flatten(1).sum(1) / full.abs().flatten(1).sum(1)
    torch.testing.assert_close(found, share.view(-1, 1, 1, 1) * full)
    steps = share * 4 * (labels != 255).flatten(1).sum(1)
    torch.testing.assert_close(steps, steps.round())
    assert StepSearch(attack=inner).is_random and not StepSearch(attack=FGSM(threat=EIGHT)).is_random


@pytest.mark.parametrize(
    ('arguments', 'match'),
    [
        (dict(attack=PGD(threat=EIGHT, steps=2)), 'must be FGSM or PGD of one step'),
        (dict(attack=FGSM(threat=EIGHT, keep='lowest_accuracy')), "keep='last'"),
        (dict(attack=FGSM(threat=EIGHT, objective=CrossEntropy(targeted=True))), 'must be untargeted'),
        (dict(attack=FGSM(threat=EIGHT), points=0), 'points must be'),
    ],
)
def test_what_makes_no_sense_is_named(arguments, match):
    with pytest.raises(UserError, match=match):
        StepSearch(**arguments)
