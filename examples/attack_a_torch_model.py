"""Trains a small network on digit scenes and attacks it: python examples/attack_a_torch_model.py.

It needs no mmseg config. Replace ``network`` with your own model.
"""

import argparse

import numpy as np
import torch
from torch import nn

from mmadv.attacks import FromPixels, ama, sea
from mmadv.datasets.digit_scenes import draw_scene
from mmadv.robustness import count, metrics


def scenes(split: str, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns images (N, 3, 64, 64) in [0, 1] and labels (N, 64, 64) in 0 to 10."""
    images, labels = zip(*(draw_scene(split, index) for index in range(number)), strict=True)
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255
    return pixels, torch.from_numpy(np.stack(labels)).long()


def block(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Returns a 3x3 convolution with batch norm and ReLU."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def main() -> None:
    """Prints mIoU without attack, under AMA and under SEA."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--steps', type=int, default=300, help='training steps (default: 300)')
    steps = parser.parse_args().steps

    torch.manual_seed(0)
    network = nn.Sequential(
        *(block(3, 16, stride=2), block(16, 32, stride=2), block(32, 48)),
        *(block(48, 48, dilation=2), block(48, 48, dilation=4), nn.Conv2d(48, 11, 1)),
    )
    # Maps images in [0, 1] to logits at the size of the images, for any normalisation and stride of the network.
    model = FromPixels(network, mean=[0.5] * 3, std=[0.25] * 3)
    images, labels = scenes('train', 512)
    # The background fills most of an image, so it weighs less.
    loss_of = nn.CrossEntropyLoss(weight=torch.tensor([0.3] + [1.0] * 10))
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for step in range(steps):
        batch = torch.randint(len(images), (16,))
        loss = loss_of(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f'step {step}: loss {loss.item():.3f}')

    model.eval()
    images, labels = scenes('val', 16)
    predictions = {'without attack': model(images).argmax(1)}
    predictions['AMA, 50 passes'] = ama(radius='4/255', passes=50)(model, images, labels).predictions
    predictions['SEA, 20 iterations of each loss'] = sea(radius='4/255', iterations=20)(
        model, images, labels
    ).predictions
    for name, prediction in predictions.items():
        values = metrics(count(prediction, labels, num_classes=11))
        print(f'{name}: accuracy {100 * values["aAcc"]:.1f} %, mIoU {100 * values["mIoU"]:.1f} %')


if __name__ == '__main__':
    main()
