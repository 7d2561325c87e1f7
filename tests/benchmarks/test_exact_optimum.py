"""The optimum of benchmarks/exact_program.py against exhaustive search and closed forms, and the study made of it."""

import dataclasses
import json

import exact_optimum
import exact_optimum_report as report
import pytest
import torch
from exact_program import Affine, NotProven, Segmentor, fewest_right, lead_bounds, leads_of
from experiments import RESULTS, ROOT
from torch import nn

from mmadv.attacks import derive_seed


def of_two_pixels(seed, hidden=None):
    """A model with three classes, a grey image of 1x2 and its labels; the pixels see each other."""
    generator = torch.Generator().manual_seed(seed)
    first = nn.Conv2d(1, hidden or 3, (1, 3), padding=(0, 1))
    model = Segmentor(first, nn.Conv2d(hidden, 3, (1, 3), padding=(0, 1)) if hidden else None).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    image = torch.rand(1, 1, 2, generator=generator, dtype=torch.float64)
    return model.requires_grad_(False), image, model(image[None]).argmax(1)[0]


@pytest.mark.parametrize('hidden', [None, 5])
def test_optimum_is_that_of_all_images_on_a_grid(hidden):
    found = []
    for seed in range(7):
        model, image, labels = of_two_pixels(seed, hidden)
        low, high = (image - 0.3).clamp(min=0).flatten(), (image + 0.3).clamp(max=1).flatten()
        axes = [torch.linspace(float(a), float(b), 101, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
        grid = torch.cartesian_prod(*axes).view(-1, 1, 1, 2)
        fewest = int((model(grid).argmax(1) == labels).flatten(1).sum(1).min())
        assert fewest_right(model, image, labels, 0.3).right == fewest, f'seed {seed}'
        found.append(fewest)
    assert len(set(found)) > 1


def test_optimum_of_pixels_by_themselves_has_a_closed_form():
    model = exact_optimum.trained(exact_optimum.FAMILIES['pixels'], 0, iterations=20)
    (image,), (labels,) = exact_optimum.scenes(1, 8, torch.Generator().manual_seed(0))
    low, high = (image - 0.05).clamp(min=0), (image + 0.05).clamp(max=1)
    weight, bias = model.stem.weight[:, :, 0, 0], model.stem.bias
    slopes = (weight - weight[labels][..., None, :]).permute(2, 3, 0, 1)  # (class, channel, row, column)
    best = torch.where(slopes > 0, slopes * high, slopes * low).sum(1) + (bias[:, None, None] - bias[labels])
    best.scatter_(0, labels[None], -torch.inf)
    expected = int((best.amax(0) <= 0).sum())
    assert 0 < expected < int((model(image[None]).argmax(1)[0] == labels).sum())
    assert fewest_right(model, image, labels, 0.05).right == expected


@pytest.fixture(scope='module')
def instances():
    """Two images of 5x5 of a model with a hidden layer."""
    return exact_optimum.solved('hidden', 0, wanted=2)


def test_solvers_image_lies_in_the_ball_and_leaves_the_optimum(instances):
    for image, labels, clean, optimum in zip(
        instances.images, instances.labels, instances.clean, instances.optima, strict=True
    ):
        assert float((optimum.image - image).abs().max()) <= instances.radius + 1e-12
        assert float(optimum.image.min()) >= 0 and float(optimum.image.max()) <= 1
        right = int((instances.model(optimum.image[None]).argmax(1)[0] == labels).sum())
        assert right == optimum.right and 0 < right < clean


def test_bounds_of_the_leads_hold_and_are_better_than_intervals(instances):
    model, image, labels = instances.model, instances.images[0], instances.labels[0]
    stem = Affine.of(model.stem, image.shape)
    leads, owners = leads_of(Affine.of(model.head, model.stem(image[None]).shape[1:]), labels)
    low, high = (image - 0.05).clamp(0, 1), (image + 0.05).clamp(0, 1)
    least, most = lead_bounds(leads, stem, low.numpy().ravel(), high.numpy().ravel())
    draws = torch.rand(200, *image.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits = model(torch.where(draws > 0.5, high, low))
    values = (logits - logits.gather(1, labels.expand(200, 1, -1, -1))).flatten(2)
    seen = torch.stack(
        [values[:, rival, pixel] for pixel in range(25) for rival in range(3) if rival != labels.view(-1)[pixel]]
    )
    assert (owners == torch.arange(25).repeat_interleave(2).numpy()).all()
    assert (seen.amin(1).numpy() >= least).all() and (seen.amax(1).numpy() <= most).all()
    inner = stem.bounds(low.numpy().ravel(), high.numpy().ravel())
    alone = leads.bounds(*(bound.clip(min=0) for bound in inner))
    assert (most - least).mean() < 0.7 * (alone[1] - alone[0]).mean()


def test_attacks_stay_above_the_optimum_and_one_below_is_an_error(instances):
    few = {name: make(instances.radius, 12) for name, make in exact_optimum.ATTACKS.items()}
    for name, attack in few.items():
        right = exact_optimum.right_after(instances, attack)
        assert all(count <= clean for count, clean in zip(right, instances.clean, strict=True)), name
    higher = [dataclasses.replace(optimum, right=25) for optimum in instances.optima]
    with pytest.raises(AssertionError, match='PGD leaves .* pixels right, below the optimum of 25'):
        exact_optimum.right_after(dataclasses.replace(instances, optima=higher), few['PGD'])


def test_a_solver_without_time_is_no_proof(instances):
    with pytest.raises(NotProven, match='no proof within 1e-06 s'):
        fewest_right(instances.model, instances.images[1], instances.labels[1], instances.radius, seconds=1e-6)


def test_numbers_of_gradients_are_those_of_the_table(instances):
    one = slice(0, 1)
    seeds = [derive_seed(0, 0)]
    for name, make in exact_optimum.ATTACKS.items():
        result = make(instances.radius, 12)(instances.model, instances.images[one], instances.labels[one], seeds=seeds)
        assert result.backward_passes.item() == (0 if name == 'Square' else 12), name
        assert 12 <= result.forward_passes.item() <= 12 + 12, name


def test_table_has_means_of_each_family_and_the_largest_gap():
    def record(family, left):
        return {
            'family': family, 'radius': 0.1, 'pixels': 9, 'clean': [9, 8], 'optimum': [2, 3],
            'left': {'PGD': {'100': left}},
        }  # fmt: skip

    records = [record('linear', [2, 4]), record('linear', [5, 4]), record('hidden', [2, 3])]
    assert report.gaps_table(records).splitlines()[2] == '| PGD | 100 | 1.25 | 0.00 | 3 | 3 |'
    assert report.families_table(records).splitlines()[2] == '| linear convolution | 4 | 9 | 0.1, 0.1 | 8.5 | 2.5 |'


def test_the_document_holds_the_section_of_the_stored_results():
    content = json.loads((RESULTS / 'exact_optimum.json').read_text(encoding='utf-8'))
    assert report.section(content) in (ROOT / 'docs/evidence_attacks.md').read_text(encoding='utf-8')
    for record in content['records']:
        for by_count in record['left'].values():
            for left in by_count.values():
                assert all(a >= b for a, b in zip(left, record['optimum'], strict=True))
