"""The study of aligned gradients on scenes: its scenes, its losses, and the page that shows its records."""

import json

import pag_scenes
import torch
from torch.nn import functional as F

from mmadv.models.pag_regions import RegionExemplars
from mmadv.robustness import ClassBank


def test_scenes_are_the_demo_s_at_half_size():
    images, labels = pag_scenes.scenes('val', 3)
    assert images.shape == (3, 3, 32, 32) and images.dtype == torch.uint8 and labels.shape == (3, 32, 32)
    assert all(len(label.unique()) > 2 for label in labels)
    # Digits are brighter than the background behind them.
    ink = images.amax(1)
    assert all(float(ink[n][labels[n] > 0].float().mean()) > 150 for n in range(3))


def test_the_loss_of_regions_is_the_cross_entropy_and_one_minus_the_cosine():
    images, labels = pag_scenes.scenes('val', 3)
    examples = torch.randint(0, 256, (11, 2, 4, 16, 16), generator=torch.Generator().manual_seed(0))
    examples[:, :, 3] = torch.arange(11)[:, None, None, None]
    target = RegionExemplars(ClassBank(examples.to(torch.uint8), torch.full((11,), 2)))
    network, pixels = pag_scenes.Network(0), images / 255
    small, large = (
        float(
            pag_scenes.region_loss(target, weight)(network, pixels, labels, torch.Generator().manual_seed(1)).detach()
        )
        for weight in (0.5, 1.0)
    )
    entropy = float(F.cross_entropy(network(pixels), labels).detach())
    assert entropy < small < large and abs((large - entropy) - 2 * (small - entropy)) < 1e-4
    assert abs(large - entropy - 1) < 0.2  # the gradient of a network with random weights is not aligned


def test_the_page_shows_the_stored_records():
    records = json.loads((pag_scenes.RESULTS / 'pag_scenes.json').read_text(encoding='utf-8'))['records']
    page = (pag_scenes.ROOT / 'docs' / 'evidence_gradients.md').read_text(encoding='utf-8')
    assert {record['method'] for record in records} == set(pag_scenes.METHODS)
    assert pag_scenes.table(records) in page
