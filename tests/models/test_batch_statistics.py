"""Batch norms of the PAG pass: modes and statistics, and synchronised ones against one process with the whole batch."""

import pytest
import torch
from forks import run_together
from torch import nn

from mmadv.models.batch_statistics import without_dropout
from mmadv.robustness import PAGLoss

IMAGES, CLASSES = 5, 2


def network(seed=0):
    """Two convolutions with a batch norm after each, the second without weight and bias: (N, 3, 6, 6) -> (N, 2)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Sequential(
            *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.Dropout(0.9)),
            *(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5, affine=False), nn.SiLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, CLASSES)),
        )
        nn.init.uniform_(layers[1].weight), nn.init.normal_(layers[1].bias)
    return layers.double().train()


def batch():
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(IMAGES, 3, 6, 6, generator=generator, dtype=torch.float64)
    return images, torch.randn(IMAGES, CLASSES, 3, 6, 6, generator=generator, dtype=torch.float64)


def pag_step(model, images, targets):
    """Returns the losses of the images, their input gradients, and the gradients of the summed loss."""
    images = images.clone().requires_grad_()
    with without_dropout(model):
        alignment = PAGLoss(weight=0.7)(model(images), images, targets)
    model.zero_grad()
    alignment.loss.sum().backward()
    found = [parameter.grad for parameter in model.parameters()]
    assert found.pop() is None  # of the last bias, which no input gradient depends on
    return alignment.loss.detach(), alignment.gradients, found


def one_rank(argv):
    """What each process does with its images: the first has three of them, the second two."""
    rank = torch.distributed.get_rank()
    rows = slice(0, 3) if rank == 0 else slice(3, None)
    model = nn.SyncBatchNorm.convert_sync_batchnorm(network())
    torch.save(pag_step(model, *(tensor[rows] for tensor in batch())), f'{argv[0]}/{rank}.pth')
    return 0


def test_two_processes_see_the_statistics_and_gradients_of_the_whole_batch(tmp_path, unused_port):
    loss, gradients, parameters = pag_step(network(), *batch())
    run_together(one_rank, [tmp_path], 2, unused_port, tmp_path)
    found = [torch.load(tmp_path / f'{rank}.pth') for rank in (0, 1)]
    torch.testing.assert_close(torch.cat([part[0] for part in found]), loss)
    torch.testing.assert_close(torch.cat([part[1] for part in found]), gradients)
    for first, second, expected in zip(found[0][2], found[1][2], parameters, strict=True):
        torch.testing.assert_close(first + second, expected, rtol=1e-6, atol=1e-10)
    assert all(parameters[i].abs().max() > 1e-4 for i in (0, 2, 4))  # of weights; biases cancel


@pytest.mark.parametrize('convert', [nn.Identity(), nn.SyncBatchNorm.convert_sync_batchnorm], ids=['own', 'synced'])
def test_modules_keep_their_modes_methods_and_statistics(convert):
    model = convert(network())
    model[1].eval()
    modes, state = (
        [module.training for module in model.modules()],
        {k: v.clone() for k, v in model.state_dict().items()},
    )
    images, targets = batch()
    first, second = pag_step(model, images, targets), pag_step(model, images, targets)
    torch.testing.assert_close(first, second)  # no dropout
    assert [module.training for module in model.modules()] == modes
    assert all('forward' not in vars(module) for module in model.modules())
    torch.testing.assert_close(dict(model.state_dict()), state)
    with torch.no_grad():
        model[1].running_mean.add_(1.0)  # frozen by eval mode: it counts
        model[5].running_mean.add_(1.0)  # in training: it does not
    changed = pag_step(model, images, targets)
    assert not torch.allclose(changed[0], first[0])
    with torch.no_grad():
        model[1].running_mean.sub_(1.0)
    torch.testing.assert_close(pag_step(model, images, targets)[0], first[0])
