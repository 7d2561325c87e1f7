"""Region targets: boxes, repainting, scores and banks, against hand-made scenes and written-out loops."""

import numpy as np
import pytest
import torch
from torch import nn

from mmadv.errors import UserError
from mmadv.models.pag_regions import RegionDistillation, RegionExemplars, Repainted, region_boxes, region_scores
from mmadv.models.pag_targets import BankRequest, collect_regions
from mmadv.robustness import ClassBank


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def scene():
    """Returns a label map with a block of class 1, one of class 2, and a spot of class 3 that is too small."""
    label = np.zeros((20, 20), np.int64)
    label[3:7, 5:9] = 1
    label[12:17, 1:6] = 2
    label[10:12, 15:17] = 3
    return label


def flat_bank(classes=4, per_class=1, side=8):
    """Returns examples of one colour each, labelled with their class throughout: example m of class k is 10 k + m."""
    examples = torch.empty(classes, per_class, 4, side, side, dtype=torch.uint8)
    for k in range(classes):
        for m in range(per_class):
            examples[k, m, :3], examples[k, m, 3] = 10 * k + m, k
    return ClassBank(examples, torch.full((classes,), per_class))


def test_boxes_enclose_regions_with_a_margin_and_large_ones_are_windows():
    boxes = dict(region_boxes(scene()))
    assert boxes[1] == (slice(2, 8), slice(4, 10)) and boxes[2] == (slice(11, 18), slice(0, 7))
    assert set(boxes) == {0, 1, 2}  # the spot has 4 pixels
    assert [axis.stop - axis.start for axis in boxes[0]] == [10, 10]
    orders, windows = set(), set()
    for seed in range(20):
        found = list(region_boxes(scene(), generator=seeded(seed)))
        orders.add(tuple(k for k, _ in found))
        (rows, columns), *_ = [box for k, box in found if k == 0]
        assert rows.start >= 0 and rows.stop <= 20 and rows.stop - rows.start == columns.stop - columns.start == 10
        windows.add((rows.start, columns.start))
        assert dict(found)[1] == boxes[1]
    assert len(orders) > 3 and len(windows) > 10
    void = np.full((20, 20), 255)
    assert not list(region_boxes(void)) and [k for k, _ in region_boxes(void, ignore_index=9)] == [255]


def test_repainting_changes_only_its_regions_and_says_how():
    labels = torch.from_numpy(np.stack([scene()] * 3))
    labels[:, 4] = 255  # across the block of class 1
    images = torch.rand(3, 3, 20, 20, generator=seeded())
    target = RegionExemplars(flat_bank(), regions=2)
    repainted = target.repaint(images, labels, seeded(1))
    outside = repainted.regions == 0
    assert torch.equal(repainted.labels[outside], labels[outside])
    assert torch.equal(repainted.images.movedim(1, -1)[outside], images.movedim(1, -1)[outside])
    assert (outside[labels == 255]).all()
    directions = target.directions(images, labels, repainted)
    torch.testing.assert_close(images + directions, repainted.images)
    assert not directions.movedim(1, -1)[outside].any()
    for n in range(3):
        numbers = repainted.regions[n].unique().tolist()
        assert numbers in ([0, 1], [0, 1, 2])
        for number in numbers[1:]:
            painted = repainted.regions[n] == number
            differs = painted & (repainted.labels[n] != labels[n])
            (t,) = repainted.labels[n][differs].unique().tolist()
            colours = repainted.images[n][:, painted]
            torch.testing.assert_close(colours, torch.full_like(colours, 10 * t / 255))
    again = target.repaint(images, labels, seeded(1))
    assert torch.equal(again.labels, repainted.labels) and torch.equal(again.images, repainted.images)
    assert not torch.equal(target.repaint(images, labels, seeded(2)).labels, repainted.labels)


def test_an_exemplar_paints_where_its_labels_differ_and_one_pixel_around():
    bank = flat_bank(classes=2)
    bank.examples[1, 0, 3] = 0
    bank.examples[1, 0, 3, 3:5, 3:5] = 1
    labels, images = torch.zeros(1, 16, 16, dtype=torch.int64), torch.rand(1, 3, 16, 16, generator=seeded())
    repainted = RegionExemplars(bank).repaint(images, labels, seeded())
    rows, columns = np.where(repainted.labels[0] == 1)
    assert len(rows) == 4 and np.ptp(rows) == np.ptp(columns) == 1  # a window of 8 x 8: the exemplar's own size
    expected = torch.zeros(16, 16, dtype=torch.int64)
    expected[rows.min() - 1 : rows.max() + 2, columns.min() - 1 : columns.max() + 2] = 1
    assert torch.equal(repainted.regions[0], expected)


def test_the_nearest_example_of_a_paintable_class_is_painted():
    bank = flat_bank(classes=3, per_class=3)
    labels, images = torch.zeros(1, 16, 16, dtype=torch.int64), torch.full((1, 3, 16, 16), 11.2 / 255)
    repainted = RegionExemplars(bank, without=[2]).repaint(images, labels, seeded())
    inside = repainted.regions[0] > 0
    assert set(repainted.labels[0][inside].tolist()) == {1}
    torch.testing.assert_close(repainted.images[0, 0][inside], torch.full((int(inside.sum()),), 11 / 255))


def test_classes_without_examples_are_never_painted_and_two_must_have_some():
    bank = flat_bank()
    counts = torch.tensor([1, 0, 1, 1])
    target = RegionExemplars(ClassBank(bank.examples, counts), without=[3], regions=10)
    assert target.paintable == [0, 2] and target.num_classes == 4
    labels = torch.from_numpy(scene())[None]
    for seed in range(5):
        changed = target.repaint(torch.rand(1, 3, 20, 20), labels, seeded(seed)).labels
        assert set(changed[changed != labels].tolist()) <= {0, 2}
    with pytest.raises(UserError, match='examples of at least two classes'):
        RegionExemplars(ClassBank(bank.examples, counts), without=[2, 3])


def random_repainting():
    generator = seeded(3)
    labels = torch.randint(0, 4, (2, 6, 7), generator=generator)
    new = torch.where(torch.rand(2, 6, 7, generator=generator) < 0.5, labels, (labels + 1) % 4)
    regions = torch.randint(0, 3, (2, 6, 7), generator=generator)
    new = torch.where(regions > 0, new, labels)
    labels[0, 0] = new[0, 0] = 255
    return labels, Repainted(torch.rand(2, 3, 6, 7, generator=generator), new, regions)


def naive_score(logits, labels, new, regions):
    total = 0.0
    for number in range(1, int(regions.max()) + 1):
        gains = [
            logits[new[i, j], i, j] - logits[labels[i, j], i, j]
            for i in range(labels.shape[0])
            for j in range(labels.shape[1])
            if regions[i, j] == number and new[i, j] != labels[i, j]
        ]
        total = total + sum(gains) / len(gains)
    return total


def test_scores_are_the_mean_gains_of_the_changed_pixels():
    labels, repainted = random_repainting()
    logits = torch.randn(2, 4, 6, 7, generator=seeded(4))
    scores = region_scores(logits, labels, repainted)
    for n in range(2):
        expected = naive_score(logits[n], labels[n], repainted.labels[n], repainted.regions[n])
        assert float(scores[n]) == pytest.approx(float(expected), rel=1e-5)
    nothing = Repainted(repainted.images, labels, torch.zeros_like(labels))
    assert region_scores(logits, labels, nothing).tolist() == [0, 0]


def test_a_teacher_s_directions_are_its_gradients_image_by_image():
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)).train()
    labels, repainted = random_repainting()
    target = RegionDistillation(teacher, flat_bank()).train()
    images = torch.rand(2, 3, 6, 7, generator=seeded(5))
    directions = target.directions(images, labels, repainted)
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    for n in range(2):
        one = images[n : n + 1].clone().requires_grad_()
        score = naive_score(teacher(one)[0], labels[n], repainted.labels[n], repainted.regions[n])
        torch.testing.assert_close(directions[n], torch.autograd.grad(score, one)[0][0])


def test_a_bank_of_regions_holds_boxes_with_their_label_maps():
    seen = []

    def pictures():
        for n in range(6):
            seen.append(n)
            yield np.full((20, 20, 3), 10 * n, np.uint8), scene() if n else np.zeros((20, 20), np.int64)

    bank = collect_regions(pictures(), BankRequest((1, 2), 4, 2, (12, 12)))
    assert bank.counts.tolist() == [0, 2, 2, 0] and seen == [0, 1, 2]
    assert bank.examples.shape == (4, 2, 4, 12, 12)
    for k in (1, 2):
        assert [example[:3].unique().tolist() for example in bank.examples[k]] == [[10], [20]]
    # The block of 4 x 4 pixels is in the middle of its box of 6 x 6, which becomes 12 x 12.
    expected = torch.zeros(12, 12, dtype=torch.uint8)
    expected[2:10, 2:10] = 1
    assert torch.equal(bank.examples[1, 0, 3], expected)
