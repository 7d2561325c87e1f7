"""What an attack step costs on any machine: passes, tensors as large as the logits, waits for the device."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmadv.attacks import APGD, PGD, CosineCrossEntropy, CrossEntropy, KullbackLeibler, Linf, ama
from mmadv.attacks.presets import SEA_OBJECTIVES

IMAGES, CLASSES, SIDE = 2, 13, 11
THREAT = Linf(radius='1/255')
# Operations whose result the host has to wait for; indexing by a mask is one too.
WAITS = {'aten._local_scalar_dense', 'aten.nonzero', 'aten.equal', 'aten.item', 'aten.masked_select'}
# Buffers of the logits' size in a pass with gradient, beside the logits: one for every loss but the spherical, which
# squares the logits to take their norm, and CosPGD's, which squashes all logits and takes the norm in logarithms.
BUFFERS = {name: 1 for losses in SEA_OBJECTIVES.values() for name in losses} | {'masked_spherical': 2}


class Costs(TorchDispatchMode):
    """Counts new tensors of the logits' number of elements, and waits."""

    def __init__(self):
        super().__init__()
        self.large, self.waits = 0, Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        name = str(function).rsplit('.', 1)[0]
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        known = {tensor.untyped_storage().data_ptr() for tensor in given}
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor) and tensor.numel() == IMAGES * CLASSES * SIDE * SIDE:
                self.large += tensor.untyped_storage().data_ptr() not in known
        masks = [tensor for tensor in given[1:] if tensor.dtype == torch.bool]
        if name in WAITS or (name in ('aten.index', 'aten.index_put_', 'aten.index_put') and masks):
            self.waits[name] += 1
        return output


def costs(attack):
    """Returns the costs of an attack on random images that it cannot solve, and the passes it counted."""
    torch.manual_seed(0)
    model = torch.nn.Conv2d(3, CLASSES, 1)
    images, labels = torch.rand(IMAGES, 3, SIDE, SIDE), torch.randint(CLASSES, (IMAGES, SIDE, SIDE))
    with Costs() as found:
        result = attack(model, images, labels, seeds=range(IMAGES))
    return found, result


def step_costs(attack_of, fewer=4, more=6):
    """Returns large tensors and waits of one step: the difference between attacks of more and fewer steps."""
    (less, _), (most, _) = costs(attack_of(fewer)), costs(attack_of(more))
    waits = sum(most.waits.values()) - sum(less.waits.values())
    return (most.large - less.large) / (more - fewer), waits / (more - fewer)


@pytest.mark.parametrize('name', sorted(BUFFERS))
def test_apgd_step_makes_the_logits_and_one_buffer_like_them(name):
    objective = {**SEA_OBJECTIVES['paper'], **SEA_OBJECTIVES['eccv']}[name]
    large, _ = step_costs(lambda steps: APGD(threat=THREAT, steps=steps, objective=objective))
    assert large == 1 + BUFFERS[name]


@pytest.mark.parametrize(
    ('attack_of', 'expected'),
    [
        (lambda steps: PGD(threat=THREAT, steps=steps, objective=CrossEntropy()), 2),
        (lambda steps: PGD(threat=THREAT, steps=steps, objective=CosineCrossEntropy()), 4),
        (lambda steps: PGD(threat=THREAT, steps=steps, objective=KullbackLeibler()), 3),
        (lambda steps: ama(radius='1/255', passes=steps), 2),
    ],
    ids=['PGD', 'CosPGD', 'TRADES', 'ama'],
)
def test_step_of_other_attacks_makes_no_more(attack_of, expected):
    large, _ = step_costs(attack_of)
    assert large == expected


# The finiteness of the logits is read too, in the same way for all, by an operation that a CPU does not dispatch.
@pytest.mark.parametrize(
    ('attack_of', 'expected'),
    [
        (lambda steps: PGD(threat=THREAT, steps=steps), 0),
        (lambda steps: PGD(threat=THREAT, steps=steps, keep='best_loss'), 0),
        (lambda steps: PGD(threat=THREAT, steps=steps, keep='lowest_accuracy'), 1),
        (lambda steps: ama(radius='1/255', passes=steps), 1),
        (lambda steps: APGD(threat=THREAT, steps=steps), 1),
    ],
    ids=['PGD', 'PGD, best loss', 'PGD, lowest accuracy', 'ama', 'APGD'],
)
def test_step_waits_for_the_device_only_to_drop_solved_images(attack_of, expected):
    _, waits = step_costs(attack_of)
    assert waits == expected


@pytest.mark.parametrize('steps', [1, 4])
def test_passes_are_one_for_each_gradient_and_one_to_see_what_became_of_it(steps):
    for attack, forwards in (
        (APGD(threat=THREAT, steps=steps), steps + 1),
        (PGD(threat=THREAT, steps=steps, keep='lowest_accuracy'), steps + 1),
        (ama(radius='1/255', passes=steps), steps + 1),
    ):
        _, result = costs(attack)
        assert result.forward_passes.tolist() == IMAGES * [forwards]
        assert result.backward_passes.tolist() == IMAGES * [steps]
