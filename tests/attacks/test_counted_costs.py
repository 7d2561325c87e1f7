"""What an attack step costs on any machine: passes, tensors as large as the logits, waits for the device."""

import functools
import gc
from collections import Counter

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmadv.attacks import APGD, PGD, AnnealedMargin, CosineCrossEntropy, KullbackLeibler, Linf, ama, pixel_scores
from mmadv.attacks.class_weights import with_class_weights
from mmadv.attacks.presets import SEA_OBJECTIVES

IMAGES, CLASSES, SIDE = 2, 13, 11
THREAT = Linf(radius='1/255')
# Operations whose result the host has to wait for; indexing by a mask is one too.
WAITS = {'aten._local_scalar_dense', 'aten.nonzero', 'aten.equal', 'aten.item', 'aten.masked_select'}


@pytest.fixture(autouse=True)
def some_rows_at_a_time(monkeypatch):
    """What is computed some rows at a time makes no tensor of the logits' size, however small they are here."""
    monkeypatch.setitem(pixel_scores.CHUNKS, 'cpu', IMAGES * CLASSES * SIDE)


class Costs(TorchDispatchMode):
    """Counts new tensors of the logits' number of elements, and waits."""

    def __init__(self):
        super().__init__()
        self.large, self.waits = 0, Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        name = str(function).rsplit('.', 1)[0]
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        known = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor) and tensor.numel() == IMAGES * CLASSES * SIDE * SIDE:
                self.large += tensor.untyped_storage().data_ptr() not in known
        masks = [tensor for tensor in tensors[1:] if tensor.dtype == torch.bool]
        if name in WAITS or (name in ('aten.index', 'aten.index_put_', 'aten.index_put') and masks):
            self.waits[name] += 1
        return output


def costs(attack, gives_up_logits=False):
    """Returns the costs of an attack on random images that it cannot solve, and the passes it counted."""
    torch.manual_seed(0)
    model = torch.nn.Conv2d(3, CLASSES, 1)
    model.gives_up_logits = gives_up_logits
    images, labels = torch.rand(IMAGES, 3, SIDE, SIDE), torch.randint(CLASSES, (IMAGES, SIDE, SIDE))
    with Costs() as costs_of_run:
        result = attack(model, images, labels, seeds=range(IMAGES))
    return costs_of_run, result


def step_costs(attack_of, fewer=4, more=6, gives_up_logits=False):
    """Returns large tensors and waits of one step: the difference between attacks of more and fewer steps."""
    (less, _), (most, _) = (costs(attack_of(steps), gives_up_logits) for steps in (fewer, more))
    waits = sum(most.waits.values()) - sum(less.waits.values())
    return (most.large - less.large) / (more - fewer), waits / (more - fewer)


STEPS = {
    **{
        f'APGD, {name} ({preset})': lambda steps, objective=objective: APGD(
            threat=THREAT, steps=steps, objective=objective
        )
        for preset, losses in SEA_OBJECTIVES.items()
        for name, objective in losses.items()
    },
    'APGD, annealed margin': lambda steps: APGD(threat=THREAT, steps=steps, objective=AnnealedMargin()),
    'PGD': lambda steps: PGD(threat=THREAT, steps=steps),
    'CosPGD': lambda steps: PGD(threat=THREAT, steps=steps, objective=CosineCrossEntropy()),
    'ama': lambda steps: ama(radius='1/255', passes=steps),
}


def attack_of(name, steps, classes=CLASSES):
    """Returns an attack of STEPS, with class weights for a model of that many classes where it needs some."""
    return with_class_weights(STEPS[name](steps), range(1, classes + 1))


@pytest.mark.parametrize('name', STEPS)
def test_step_makes_the_logits_and_a_copy_of_them_or_overwrites_them(name):
    assert step_costs(functools.partial(attack_of, name))[0] == 2
    assert step_costs(functools.partial(attack_of, name), gives_up_logits=True)[0] == 1


@pytest.mark.parametrize('gives_up_logits', [False, True])
@pytest.mark.parametrize('name', STEPS)
def test_nothing_as_large_as_the_logits_is_alive_when_the_backbone_goes_backward(name, gives_up_logits):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = torch.nn.Conv2d(3, 2, 1), torch.nn.Conv2d(2, CLASSES, 1)
            self.logits, self.alive = [], []

        def forward(self, images):
            features = self.backbone(images)
            logits = self.head(features)
            if features.requires_grad:
                features.register_hook(lambda _: self.alive.append(self.count()))
            self.logits.append(StorageWeakRef(logits.untyped_storage()))
            return logits

        def count(self):
            return sum(not storage.expired() for storage in self.logits)

    torch.manual_seed(2)
    model = Net()
    model.gives_up_logits = gives_up_logits
    slopes = []

    class Recorded(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            output = function(*args, **(kwargs or {}))
            if str(function).startswith('aten.convolution_backward') and args[0].shape[1] == CLASSES:
                slopes.append(StorageWeakRef(args[0].untyped_storage()))
                model.logits.append(slopes[-1])
            return output

    labels = torch.randint(CLASSES, (IMAGES, SIDE, SIDE))
    with Recorded():
        attack_of(name, 4)(model, torch.rand(IMAGES, 3, SIDE, SIDE), labels, seeds=range(IMAGES))
    assert len(slopes) == len(model.alive) >= 3
    assert set(model.alive) == {0}


@pytest.mark.parametrize(('attack', 'images'), [(APGD(threat=THREAT, steps=6), 6), (ama(radius='1/255', passes=7), 4)])
def test_a_pass_finds_no_image_in_memory_that_is_not_needed(attack, images):
    """APGD: clean, strongest, iterate, the one before, the best, its gradient; `ama`: the first four."""
    alive, side = [], 17  # no other test has images of this size

    class Net(torch.nn.Conv2d):
        def forward(self, inputs):
            found = {
                one.untyped_storage().data_ptr()
                for one in gc.get_objects()
                if isinstance(one, torch.Tensor) and one.shape == inputs.shape
            }
            alive.append(len(found))
            return super().forward(inputs)

    torch.manual_seed(0)
    given, labels = torch.rand(IMAGES, 3, side, side), torch.randint(CLASSES, (IMAGES, side, side))
    attack(Net(3, CLASSES, 1), given, labels, seeds=range(IMAGES))
    assert max(alive) == images + 1  # with those given


ENDS = {
    'convolution': lambda logits: logits,
    'resized': lambda logits: torch.nn.functional.interpolate(logits, scale_factor=2, mode='bilinear'),
    'cut': lambda logits: torch.nn.functional.interpolate(logits, scale_factor=3, mode='bilinear')[:, :, 1:, :-2],
    'joined': lambda logits: torch.cat([logits, logits.flip(1)], dim=1),
    'averaged': lambda logits: logits / torch.arange(1, SIDE + 1),
    'tanh': lambda logits: 9 * torch.tanh(logits),  # the product's backward pass reads nothing, or the tanh
    'softmax': lambda logits: torch.softmax(9 * logits, dim=1),  # its own reads what it returned
    'cut softmax': lambda logits: torch.softmax(9 * logits, dim=1)[:, :-1],
}


@pytest.mark.filterwarnings('ignore:the outputs of the model are not negative and sum to 1:UserWarning')
@pytest.mark.parametrize('name', STEPS)
@pytest.mark.parametrize('end', ENDS)
def test_overwriting_the_logits_changes_no_number(name, end):
    class Net(torch.nn.Conv2d):
        def forward(self, images):
            return ENDS[end](super().forward(images))

    torch.manual_seed(1)
    model, images = Net(3, CLASSES, 1), torch.rand(IMAGES, 3, SIDE, SIDE)
    shape = model(images).shape
    labels = torch.randint(shape[1], (IMAGES, *shape[2:]))
    results = []
    for model.gives_up_logits in (False, True):
        results.append(attack_of(name, 5, shape[1])(model, images, labels, seeds=range(IMAGES)))
    assert torch.equal(results[0].images, results[1].images)
    assert torch.equal(results[0].predictions, results[1].predictions)
    assert not torch.equal(results[0].images, images)


@pytest.mark.parametrize('rows', [1, 2, 5, SIDE])
def test_rows_at_a_time_give_what_the_whole_gives(monkeypatch, rows):
    monkeypatch.setitem(pixel_scores.CHUNKS, 'cpu', rows * IMAGES * CLASSES * SIDE)
    heights = []

    def function(part, index):
        heights.append(part.shape[2])
        return part.gather(1, index).squeeze(1)

    logits, indices = torch.rand(IMAGES, CLASSES, SIDE, SIDE), torch.randint(CLASSES, (IMAGES, 1, SIDE, SIDE))
    assert torch.equal(pixel_scores.by_rows(function, logits, indices), logits.gather(1, indices).squeeze(1))
    assert max(heights) == rows and sum(heights) == SIDE


def test_step_of_trades_makes_the_softmax_of_the_clean_image_too():
    def attack_of(steps):
        return PGD(threat=THREAT, steps=steps, objective=KullbackLeibler())

    assert step_costs(attack_of)[0] == 3
    assert step_costs(attack_of, gives_up_logits=True)[0] == 2


# The finiteness of the logits is read too, in the same way for all, by an operation that a CPU does not dispatch.
@pytest.mark.parametrize(
    ('attack_of', 'expected'),
    [
        (lambda steps: PGD(threat=THREAT, steps=steps), 0),
        (lambda steps: PGD(threat=THREAT, steps=steps, keep='best_loss'), 0),
        (lambda steps: PGD(threat=THREAT, steps=steps, keep='lowest_accuracy'), 1),
        # None while the ball is larger than the radius: no iterate counts there.
        (lambda steps: ama(radius='1/255', passes=steps), 0.5),
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
