"""The studies of aligned gradients of segmentors: their images, their losses, and the page that shows their records."""

import json

import pag_scenes
import pag_scenes_64
import pag_study
import pytest
import torch
from torch.nn import functional as F

from mmadv.models.pag_regions import RegionExemplars
from mmadv.robustness import ClassBank

STUDIES = {study.name: study for study in (pag_scenes.STUDY, pag_scenes_64.STUDY)}


@pytest.mark.parametrize('module, side', [(pag_scenes, 32), (pag_scenes_64, 64)])
def test_scenes_are_the_demo_s(module, side):
    images, labels = module.scenes('val')
    count = module.LENGTHS['val']
    assert images.shape == (count, 3, side, side) and images.dtype == torch.uint8
    assert labels.shape == (count, side, side) and labels.dtype == torch.int64
    assert all(len(label.unique()) > 2 for label in labels[:3])
    # Digits are brighter than the background behind them.
    ink = images.amax(1).float()
    assert float(ink[labels > 0].mean()) > 150 > float(ink[labels == 0].mean())


@pytest.mark.parametrize('size', [(64, 64), (60, 80)])
def test_the_network_has_logits_at_the_size_of_its_images(size):
    assert pag_study.Network(5, 0, stride=4)(torch.rand(1, 3, *size)).shape == (1, 5, *size)


def test_the_loss_of_regions_is_the_cross_entropy_and_one_minus_the_cosine():
    images, labels = (some[:3] for some in pag_scenes.scenes('val'))
    examples = torch.randint(0, 256, (11, 2, 4, 16, 16), generator=torch.Generator().manual_seed(0))
    examples[:, :, 3] = torch.arange(11)[:, None, None, None]
    target = RegionExemplars(ClassBank(examples.to(torch.uint8), torch.full((11,), 2)))
    network, pixels = pag_scenes.STUDY.network(0), images / 255
    small, large = (
        float(pag_study.region_loss(target, weight)(network, pixels, labels, torch.Generator().manual_seed(1)).detach())
        for weight in (0.5, 1.0)
    )
    entropy = float(F.cross_entropy(network(pixels), labels).detach())
    assert entropy < small < large and abs((large - entropy) - 2 * (small - entropy)) < 1e-4
    assert abs(large - entropy - 1) < 0.2  # the gradient of a network with random weights is not aligned


@pytest.mark.parametrize('name', STUDIES)
def test_the_page_shows_the_stored_records(name):
    study = STUDIES[name]
    records = json.loads((pag_study.RESULTS / f'{name}.json').read_text(encoding='utf-8'))['records']
    page = (pag_study.ROOT / 'docs' / 'evidence_gradients.md').read_text(encoding='utf-8')
    assert {record['method'] for record in records} == set(study.methods)
    assert study.table(records) in page
