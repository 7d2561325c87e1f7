"""State dicts as the public checkpoint families publish them: their key names and shapes, with random weights."""

import timm
import torch
import torchvision
from timm.layers import LayerNorm2d
from torch import nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Channels of the ConvStem's convolutions, and of its last 1x1 convolution.
STEMS = {'convnext': ((48, 96), None), 'convnext_b': ((64, 96, 128), None), 'vit': ((48, 96, 192, 384), 384)}
TIMM = {
    'convnext_t': 'convnext_tiny',
    'convnext_s': 'convnext_small',
    'convnext_b': 'convnext_base',
    'vit_s': 'vit_small_patch16_224',
    'vit_b': 'vit_base_patch16_224',
}


class Stem(nn.Module):
    """The ConvStem of the robust models, whose convolutions are at stem.0, stem.3, ..."""

    def __init__(self, widths, last):
        super().__init__()
        layers, channels = [], 3
        for index, width in enumerate(widths):
            layers += [nn.Conv2d(channels, width, 3, 2 if index < 2 or last else 1, 1), LayerNorm2d(width), nn.GELU()]
            channels = width
        if last:
            layers.append(nn.Conv2d(channels, last, 1))
        self.stem = nn.Sequential(*layers)

    def forward(self, images):
        return self.stem(images)


def timm_model(name, **changes):
    """Returns timm's classifier of an architecture's name, with a ConvStem if the name says so."""
    plain = name.removesuffix('_convstem')
    model = timm.create_model(TIMM[plain], **changes)
    if name.endswith('_convstem'):
        widths, last = STEMS.get(plain, STEMS[plain.split('_')[0]])
        if plain.startswith('vit'):
            model.patch_embed.proj = Stem(widths, 768 if plain == 'vit_b' else last)
        else:
            model.stem = Stem(widths, last)
    return model.eval()


def revisiting_at(model, prefix='module.', normalizer=None):
    """Returns a file's content; normalizer is the (mean, std) that some files hold."""
    content = {f'{prefix}{key}': value for key, value in model.state_dict().items()}
    if normalizer:
        outer = prefix.removesuffix('base_model.')
        for name, values in zip(('mean', 'std'), normalizer, strict=True):
            content[f'{outer}base_normalize.{name}'] = torch.tensor(values).view(1, 3, 1, 1)
    return content


def resnet(depth=50):
    """Returns torchvision's classifier."""
    return getattr(torchvision.models, f'resnet{depth}')().eval()


def madry(model):
    """Returns the content of a file of the robustness library, which Salman's files are too."""
    network = model.state_dict()
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    weights = {
        'module.normalizer.new_mean': mean,
        'module.normalizer.new_std': std,
        **{f'module.model.{key}': value for key, value in network.items()},
        'module.attacker.normalize.new_mean': mean,
        'module.attacker.normalize.new_std': std,
        **{f'module.attacker.model.{key}': value for key, value in network.items()},
    }
    return {'model': weights, 'optimizer': {'state': {}, 'param_groups': []}, 'epoch': 90, 'amp': None}


def robustbench(model):
    """Returns the content of RobustBench's file."""
    return {
        'normalize.mean': torch.tensor(MEAN).view(1, 3, 1, 1),
        'normalize.std': torch.tensor(STD).view(1, 3, 1, 1),
        **{f'model.{key}': value for key, value in model.state_dict().items()},
    }
