"""Tiny models whose behaviour is known."""

import torch
from torch import nn


def conv_net(seed: int = 0, *, classes: int = 4, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """A two-layer network with batch norm and dropout, so that train and eval mode differ."""
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.GELU(),
        nn.Dropout2d(0.5),
        nn.Conv2d(6, classes, 3, padding=1),
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return net.to(dtype)


def batch(seed: int = 0, *, n: int = 3, size: tuple[int, int] = (8, 10), classes: int = 4, dtype=torch.float64):
    """Random images and labels, a tenth of the labels ignored (255)."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(n, 3, *size, generator=generator, dtype=torch.float64).to(dtype)
    labels = torch.randint(0, classes, (n, *size), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = 255
    return images, labels


class PixelLinear(nn.Module):
    """Two-class logits (0, w·x + b) of every pixel by itself: the worst case has a closed form."""

    def __init__(self, weight, bias: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.as_tensor(weight, dtype=torch.float64))
        self.bias = bias

    def forward(self, images):
        score = torch.einsum('nchw,c->nhw', images, self.weight) + self.bias
        return torch.stack([torch.zeros_like(score), score], 1)
