"""Resumed training with dropout and random transforms is the training that was not interrupted."""

import random

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmadv.engine.seeded_data import SeededSampler


class Augmented(Dataset):
    """Samples that are drawn by each of the three global generators."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        noise = torch.rand(4) + float(np.random.rand()) + random.random()
        return dict(values=torch.arange(4.0) * index + noise, index=index)


class Regression(BaseModel):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
        self.seen = []

    def forward(self, values, index, mode):
        self.seen.append((list(index), torch.stack(values)))
        return {'loss': self.layers(torch.stack(values)).square().mean() / 100}


@pytest.fixture
def train(tmp_path):
    def train(name, length, workers=0, sampler='InfiniteSampler', resume=None, hook=True, **loop):
        """Trains and returns the runner; ``length`` in iterations or epochs."""
        by_epoch = loop.pop('by_epoch', False)
        runner = Runner(
            Regression(),
            str(tmp_path / name),
            train_dataloader=dict(
                dataset=Augmented(),
                collate_fn=dict(type='pseudo_collate'),
                batch_size=2,
                num_workers=workers,
                sampler=dict(type=sampler, shuffle=True),
            ),
            train_cfg={'by_epoch': by_epoch, 'max_epochs' if by_epoch else 'max_iters': length},
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=by_epoch)),
            custom_hooks=[dict(type='IterationSeedHook')] if hook else [],
            randomness=dict(seed=0),
            load_from=resume and str(tmp_path / resume),
            resume=resume is not None,
            experiment_name=f'{tmp_path.name}_{name}',
            log_level='ERROR',
            default_scope='mmseg',
        )
        runner.train()
        return runner

    return train


def same(first, second):
    return all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize(
    'options',
    [
        {},
        dict(workers=2),
        dict(sampler='DefaultSampler', by_epoch=True),
        dict(sampler='DefaultSampler', by_epoch=True, workers=1),
    ],
    ids=['iterations', 'iterations and workers', 'epochs', 'epochs and workers'],
)
def test_resumed_run_is_the_run_that_was_not_interrupted(train, options):
    by_epoch = options.get('by_epoch', False)
    length, checkpoint = (3, 'straight/epoch_1.pth') if by_epoch else (7, 'straight/iter_4.pth')
    straight = train('straight', length, **options)
    resumed = train('resumed', length, resume=checkpoint, **options)
    rest = straight.model.seen[3 if by_epoch else 4 :]
    assert len(resumed.model.seen) == len(rest)
    for (indexes, values), (expected, wanted) in zip(resumed.model.seen, rest, strict=True):
        assert indexes == expected and torch.equal(values, wanted)
    assert same(resumed.model.state_dict(), straight.model.state_dict())


def test_without_the_hook_it_is_another_run(train):
    straight = train('straight', 7, hook=False)
    resumed = train('resumed', 7, resume='straight/iter_4.pth', hook=False)
    assert not same(resumed.model.state_dict(), straight.model.state_dict())


def test_workers_change_nothing_and_samples_differ(train):
    alone, two = train('alone', 7), train('two', 7, workers=2)
    assert same(alone.model.state_dict(), two.model.state_dict())
    drawn = torch.cat([values - torch.tensor(index)[:, None] * torch.arange(4.0) for index, values in alone.model.seen])
    assert len(drawn.unique(dim=0)) == 14


def test_seed_of_the_checkpoint_goes_on(train):
    """Mmengine takes over the seed of the checkpoint; the data must too."""
    straight = train('straight', 3)
    assert straight.train_dataloader.dataset.seed == 0
    checkpoint = straight.work_dir + '/iter_2.pth'
    content = torch.load(checkpoint, weights_only=False)
    content['meta']['seed'] = 7
    torch.save(content, checkpoint)
    assert train('resumed', 3, resume='straight/iter_2.pth').train_dataloader.dataset.seed == 7


def test_sampler_skips_only_where_its_own_does():
    assert not hasattr(SeededSampler(torch.utils.data.SequentialSampler(range(3))), 'skip')
