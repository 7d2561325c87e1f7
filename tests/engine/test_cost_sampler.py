"""Images dealt to processes: each once, of equal cost, the same on every process."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmengine.registry import DATA_SAMPLERS
from PIL import Image
from tiny_project import write_config

from mmadv.commands.command_line import load_config
from mmadv.engine import cost_sampler
from mmadv.engine.cost_sampler import image_costs, split_by_cost
from mmadv.engine.data import Selection, build_dataset
from mmadv.engine.image_space import attack_image_files
from mmadv.engine.progress import Progress

SIZES = [(8, 8), (320, 8), (8, 8), (160, 16), (16, 16), (8, 24), (8, 8), (64, 40), (8, 8)]  # width, height


@given(st.lists(st.integers(1, 1000), max_size=40), st.integers(1, 5))
def test_every_image_once_and_no_process_above_its_share_and_one_image(costs, number):
    shares = split_by_cost(costs, number)
    assert len(shares) == number and sorted(i for share in shares for i in share) == list(range(len(costs)))
    assert all(share == sorted(share) for share in shares)
    loads = [sum(costs[i] for i in share) for share in shares]
    assert max(loads) <= sum(costs) / number + max(costs, default=0) * (1 - 1 / number) + 1e-9


@given(st.integers(0, 30), st.integers(1, 4))
def test_equal_costs_are_dealt_in_turn(images, number):
    assert split_by_cost([7] * images, number) == [list(range(images))[rank::number] for rank in range(number)]


def selection(root, resize='', indexes=None):
    """The images of SIZES, behind a test pipeline with or without a Resize step."""
    for folder in ('images', 'labels'):
        (root / 'data' / folder).mkdir(parents=True, exist_ok=True)
    for n, (width, height) in enumerate(SIZES):
        Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(root / f'data/images/{n}.png')
        Image.fromarray(np.zeros((height, width), np.uint8)).save(root / f'data/labels/{n}.png')
    extra = f'test_dataloader["dataset"] = dict(dataset, pipeline=[pipeline[0], {resize} *pipeline[1:]])\n'
    config = load_config(str(write_config(root / 'config.py', root / 'data', extra)))
    dataset = build_dataset(config.test_dataloader.dataset.to_dict(), 'test_dataloader.dataset')
    return Selection(dataset, range(len(SIZES)) if indexes is None else indexes)


@pytest.mark.parametrize('processes', [2, 3])
def test_processes_share_images_of_very_different_sizes(tmp_path, monkeypatch, processes):
    images = selection(tmp_path, indexes=[1, 0, 2, 3, 4, 5, 7, 6, 8])
    shares = []
    for rank in range(processes):
        monkeypatch.setattr(cost_sampler, 'get_dist_info', lambda rank=rank: (rank, processes))
        sampler = DATA_SAMPLERS.build({'type': 'mmengine.CostSampler'}, default_args={'dataset': images, 'seed': 0})
        assert list(sampler) == list(sampler) and len(sampler) == len(list(sampler))
        shares.append([images.indexes[position] for position in sampler])
    assert sorted(index for share in shares for index in share) == list(range(9))
    loads = [sum(SIZES[index][0] * SIZES[index][1] for index in share) for share in shares]
    in_turn = [sum(SIZES[i][0] * SIZES[i][1] for i in images.indexes[rank::processes]) for rank in range(processes)]
    assert max(loads) < max(in_turn)  # in turn, the first process would have two or three of the three large ones


@pytest.mark.parametrize(
    ('resize', 'expected'),
    [
        ('', [width * height for width, height in SIZES]),
        ("dict(type='Resize', scale=(16, 12)),", [16 * 12] * 9),
        ("dict(type='Resize', scale=(64, 16), keep_ratio=True),", [256, 128, 256, 384, 256, 768, 256, 416, 256]),
        ("dict(type='Resize', scale_factor=0.5),", [width * height // 4 for width, height in SIZES]),
    ],
)
def test_costs_are_the_pixels_that_the_pipeline_gives(tmp_path, resize, expected):
    images = selection(tmp_path, resize)
    assert image_costs(images) == expected
    assert expected == [int(np.prod(images[n]['inputs'].shape[1:])) for n in range(9)]
    attack_image_files(images.dataset)
    assert image_costs(images) == expected


def test_without_readable_headers_all_images_count_the_same(tmp_path):
    images = selection(tmp_path)
    (tmp_path / 'data/images/3.png').write_bytes(b'nothing')
    assert image_costs(images) == [1] * 9


@pytest.mark.parametrize(('share', 'steps'), [(None, [4, 2]), (3, [2, 1]), (1, [1])])
def test_the_bar_ends_full_whatever_the_share_of_the_main_process(share, steps):
    progress = Progress(total=10, description='', done=4, share=share)
    seen = []
    for images in steps:
        progress.advance(images)
        seen.append(progress._bar.n)
    progress.close()
    assert seen == [4 + 6 * sum(steps[: n + 1]) // sum(steps) for n in range(len(steps))]
