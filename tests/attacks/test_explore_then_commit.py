"""The rule that decides for each image which part of an attack gets the passes, and how many."""

from dataclasses import replace

import pytest
import torch
from toy_models import PixelLinear, batch, conv_net

from mmadv.attacks import APGD, Cascade, ExploreThenCommit, Linf, adaptive
from mmadv.attacks.cascade import only
from mmadv.attacks.sweep import leading
from mmadv.errors import UserError

WEIGHT, RADIUS = (0.5, -0.3, 0.2), 0.05
# The most that the score of a pixel can change within the ball.
REACH = RADIUS * 1.0


def mixed_images():
    """Returns a linear model and images: some pixels can cross, none can, all can; and the pixels that stay right."""
    generator = torch.Generator().manual_seed(0)
    images = 0.4 + 0.2 * torch.rand(3, 3, 6, 6, generator=generator, dtype=torch.float64)
    model = PixelLinear(WEIGHT, -0.05)
    # A shift along the weights moves every score of an image by the same amount.
    shift = torch.as_tensor(WEIGHT, dtype=torch.float64).view(1, 3, 1, 1) / 0.38
    score = model(images)[:, 1]
    scores = torch.tensor([0.0, 0.15, 0.0], dtype=torch.float64)
    images = images + shift * (scores - score.flatten(1).mean(1)).view(-1, 1, 1, 1)
    images[2] = images[2].mean((1, 2), keepdim=True) + 0.1 * (images[2] - images[2].mean((1, 2), keepdim=True))
    score = model(images)[:, 1].detach()
    return model, images, (score > 0).long(), (score.abs() > REACH).flatten(1).sum(1)


def test_linear_model_reaches_the_optimum_and_images_that_cannot_move_cost_their_probes():
    model, images, labels, optimum = mixed_images()
    attack = adaptive(RADIUS, passes=90)
    result = attack(model, images, labels, seeds=[1, 2, 3])
    left = (result.predictions == labels).flatten(1).sum(1)
    assert optimum.tolist() == left.tolist() and 0 < optimum[0] < 36 and optimum[1] == 36 and optimum[2] == 0
    probes = 3 * attack.probe_steps
    # The clean image, the last iterate of each part, and the class that is furthest.
    assert result.backward_passes[1] == probes and result.forward_passes[1] == probes + 5
    assert result.backward_passes[0] > probes > result.backward_passes[2]
    assert torch.equal(result.images[1], images[1]) or Linf(radius=RADIUS).contains(result.images[1:2], images[1:2])


def test_an_image_has_the_result_and_the_passes_that_it_has_alone():
    model, (images, labels) = conv_net(24).eval(), batch(24, n=3)
    images[1] = 0.5
    labels[1] = model(images[1:2]).argmax(1)[0]
    attack = adaptive('0.6/255', passes=60)
    whole = attack(model, images, labels, seeds=range(3))
    assert whole.backward_passes.tolist() == [30, 60, 30]
    reverse = attack(model, images.flip(0), labels.flip(0), seeds=range(2, -1, -1))
    assert torch.equal(whole.images, reverse.images.flip(0))
    for row in range(3):
        alone = attack(model, images[row : row + 1], labels[row : row + 1], seeds=[row])
        assert torch.equal(alone.images[0], whole.images[row]) and alone.accuracy == whole.accuracy[row]
        assert alone.forward_passes == whole.forward_passes[row] and alone.backward_passes == whole.backward_passes[row]
        assert {name: part[row].item() for name, part in whole.parts.items()} == {
            name: part.item() for name, part in alone.parts.items()
        }


def test_every_pass_of_the_model_is_counted():
    net, (images, labels) = conv_net(24).eval(), batch(24, n=4)
    seen = []

    def model(x):
        seen.append(len(x))
        return net(x)

    result = adaptive('4/255', passes=120)(model, images, labels, seeds=range(4))
    assert sum(seen) == result.forward_passes.sum() and (result.backward_passes <= 120).all()


def test_never_weaker_than_the_probe_of_a_part_or_than_the_clean_image():
    model, (images, labels) = conv_net(24).eval(), batch(24, n=4)
    attack = adaptive('2/255', passes=60)
    whole = attack(model, images, labels, seeds=range(4))
    for name in ('ama', 'furthest'):
        part = attack.attacks[name].with_steps(attack.probe_steps)
        probe = Cascade(attacks={name: part})(model, images, labels, seeds=range(4))
        assert (whole.accuracy <= probe.accuracy).all()
    clean = ((model(images).argmax(1) == labels) & (labels != 255)).flatten(1).sum(1)
    assert (whole.accuracy <= clean / (labels != 255).flatten(1).sum(1).double()).all()
    assert torch.equal(whole.accuracy, torch.stack(list(whole.parts.values())).amin(0))


def test_the_part_that_led_gets_the_passes():
    """A part whose budget of iterations is wasted, since it starts at the clean image and pushes the wrong way."""
    model, images, labels, _ = mixed_images()
    images, labels = images[:1], labels[:1]
    calls = []

    class Noted(APGD):
        def run(self, context, start=None):
            calls.append((self.objective.targeted, self.steps))
            return super().run(context, start)

    good = Noted(threat=Linf(radius=RADIUS))
    attack = ExploreThenCommit(attacks={'weak': replace(good, steps=1), 'good': good}, steps=60, probe=5)
    object.__setattr__(attack.attacks['weak'], 'with_steps', lambda steps: Noted(threat=Linf(radius=1e-6), steps=steps))
    attack(model, images, labels, seeds=[0])
    assert [steps for _, steps in calls] == [5, 5, 50]


@pytest.mark.parametrize(
    ('steps', 'probe', 'leader', 'relay'),
    [
        (3, 1, 0, 0),
        (4, 1, 1, 0),
        (7, 1, 4, 0),
        (60, 10, 30, 0),
        (119, 19, 57, 5),
        (120, 20, 60, 0),
        (150, 20, 75, 15),
        (400, 20, 284, 56),
        (1200, 20, 950, 190),
    ],
)
def test_the_leader_has_one_run_that_grows_with_the_steps(steps, probe, leader, relay):
    attack = adaptive('4/255', steps)
    assert (attack.probe_steps, *attack.committed_steps) == (probe, leader, relay)
    assert 3 * probe + leader + relay == attack.steps == steps


def test_more_steps_lengthen_the_run_of_the_leader_and_then_of_the_relay():
    model, (images, labels) = conv_net(24).eval(), batch(24, n=1)
    lengths = []

    class Noted(APGD):
        def run(self, context, start=None):
            lengths.append(self.steps)
            return super().run(context, start)

    part = Noted(threat=Linf(radius='2/255'))
    attack = ExploreThenCommit(attacks={'part': part, 'relay': part}, relays=('relay',), steps=60, probe=5)
    result = attack(model, images, labels, seeds=[0])
    assert lengths == [5, 5, 42, 8] and result.backward_passes.tolist() == [60]


def test_targeted_labels_are_wanted():
    model, (images, labels) = conv_net(24).eval(), batch(24, n=3)
    result = adaptive('8/255', 30, targeted=True)(model, images, labels, seeds=range(3))
    clean = ((model(images).argmax(1) == labels) & (labels != 255)).flatten(1).sum(1)
    assert (result.accuracy > clean / (labels != 255).flatten(1).sum(1)).all()


def test_a_shared_sweep_leaves_out_the_parts_that_did_not_lead():
    model, (images, labels) = conv_net(24).eval(), batch(24, n=3)
    attack = adaptive('4/255', 30)
    probe = attack(model, images, labels, seeds=range(3))
    clean = torch.full((3,), 0.9, dtype=torch.float64)
    probe.parts = {'ama': clean - 0.4, 'furthest': clean - 0.1, 'js': clean - 0.4}
    ((part, rows),) = leading(attack.with_radius('8/255'), probe, clean, torch.arange(3))
    assert rows.tolist() == [0, 1, 2] and part == only(attack.with_radius('8/255'), ['ama', 'js'])
    assert part.steps == 30 and (part(model, images, labels, seeds=range(3)).accuracy <= probe.accuracy).all()


def test_fewer_steps_than_parts_are_refused():
    with pytest.raises(UserError, match='3 attacks in turn need at least as many steps together; found 2'):
        adaptive('4/255', passes=2)
