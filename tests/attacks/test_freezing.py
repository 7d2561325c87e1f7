"""Models behind functions, methods and objects are attacked in eval mode, and left as they were."""

import functools
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from toy_models import batch, conv_net

from mmadv.attacks import PGD, CrossEntropy, Linf
from mmadv.attacks.freezing import frozen, modules_behind
from mmadv.robustness import Certifier, SmoothedModel, measure_gradients
from mmadv.synthesis import Descent

NET = conv_net(0)


class Wrapper:
    def __init__(self, net):
        self.net = net

    def predict(self, images):
        return self.net(images)

    def __call__(self, images):
        return self.predict(images)


class Slots:
    __slots__ = ('net',)

    def __init__(self, net):
        self.net = net

    def __call__(self, images):
        return self.net(images)


class Hidden(nn.Module):
    """A module that does not register the one it runs."""

    def __init__(self, net):
        super().__init__()
        self.net = (net,)

    def forward(self, images):
        return self.net[0](images)


def with_default(images, net=NET):
    return net(images)


def keyword(images, *, net):
    return net(images)


@functools.lru_cache
def scale():
    return 1.0


def of_closure(net):
    def outer(images):
        def inner():
            return scale() * net(images)

        return inner()

    return outer


def decorated(function):
    @functools.wraps(function)
    def wrapper(images):
        return function(images)

    return wrapper


CALLABLES = {
    'module': lambda net: net,
    'closure': lambda net: lambda x: net(x),
    'function in a function': of_closure,
    'bound method of a module': lambda net: net.forward,
    'bound method': lambda net: Wrapper(net).predict,
    'object': Wrapper,
    'object with slots': Slots,
    'object in a closure': lambda net: (lambda wrapper: lambda x: wrapper.predict(x))(Wrapper(net)),
    'partial': lambda net: functools.partial(keyword, net=net),
    'partial of a method': lambda net: functools.partial(Wrapper(net).predict),
    'dict in a closure': lambda net: (lambda nets: lambda x: nets['a'](x))({'a': net}),
    'nested attributes': lambda net: (lambda space: lambda x: space.a.net(x))(SimpleNamespace(a=Wrapper(net))),
    'decorated': lambda net: decorated(Wrapper(net).predict),
    'no_grad decorated': lambda net: torch.enable_grad()(lambda x: net(x)),
    'unregistered in a module': Hidden,
    'closure of a module': lambda net: type('Net', (nn.Module,), {'forward': lambda self, x: net(x)})(),
}
ATTACK = PGD(threat=Linf(radius='8/255'), steps=2)
IMAGES, LABELS = batch(0)


def state(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def check_left_as_it_was(net, before):
    assert [module.training for module in net] == [True, False, True, True, True]
    assert [parameter.requires_grad for parameter in net.parameters()] == [False, True, True, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.fixture
def net():
    made = conv_net(3).train()
    made[1].eval()
    made[0].weight.requires_grad_(False)
    return made


@pytest.mark.parametrize('kind', CALLABLES)
def test_modules_are_found_frozen_and_given_back(kind, net):
    expected = ATTACK(conv_net(3).eval(), IMAGES, LABELS, seeds=[1, 2, 3])
    net[1].train()
    model, before = CALLABLES[kind](net), state(net)
    result = ATTACK(model, IMAGES, LABELS, seeds=[1, 2, 3])
    assert torch.equal(result.images, expected.images) and torch.equal(result.accuracy, expected.accuracy)
    net[1].eval()
    check_left_as_it_was(net, before)
    with pytest.raises(ZeroDivisionError), frozen(model):
        raise ZeroDivisionError
    check_left_as_it_was(net, before)


@pytest.mark.parametrize('kind', ['closure', 'object'])
def test_everything_that_runs_a_model_freezes_what_is_behind_it(kind, net):
    model, before = CALLABLES[kind](net), state(net)
    runs = [
        lambda: Certifier(sigma=0.1, n0=1, n=100, alpha=0.5)(model, IMAGES[0, :, :1, :1]),
        lambda: ATTACK(SmoothedModel(model, sigma=0.1, samples=1), IMAGES, LABELS),
        lambda: measure_gradients(model, IMAGES, LABELS, torch.tensor([[0], [1], [2]]), lambda x, t, _: x[:, None]),
        lambda: Descent(steps=1)(model, lambda _, logits: CrossEntropy()(logits, LABELS).flatten(1).sum(1), IMAGES),
    ]
    for run in runs:
        run()
        check_left_as_it_was(net, before)


def test_globals_and_defaults_are_found():
    assert modules_behind(lambda x: NET(x)) == modules_behind(with_default) == [NET]
    assert modules_behind(lambda x: [NET(part) for part in x]) == [NET]
    assert modules_behind(torch.relu) == modules_behind(lambda x: torch.relu(x)) == []


def test_buffers_that_a_function_changes_are_restored():
    net = conv_net(3)
    norm = net[1]

    def by_batch(images):
        hidden = nn.functional.batch_norm(net[0](images), norm.running_mean, norm.running_var, training=True)
        return net[4](hidden)

    before = state(net)
    ATTACK(by_batch, IMAGES, LABELS)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
