"""Adversarial training under mmengine's Runner: resume, EMA, accumulation, DDP; FSDP is refused."""

import os
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from mmadv.errors import UserError
from mmadv.models import AdvSegDataPreProcessor

ATTACK = dict(type='RandomFGSM', threat=dict(type='Linf', radius='8/255'), step_size='10/255')
ADVERSARIAL = dict(type='AdvSegDataPreProcessor', attack=ATTACK, prob=0.5)


class Pictures(torch.utils.data.Dataset):
    """A few samples as mmseg's pipeline packs them."""

    metainfo = dict(classes=('a', 'b', 'c', 'd', 'e'))

    def __init__(self, batch):
        self.batch = batch

    def __len__(self):
        return len(self.batch['inputs'])

    def __getitem__(self, index):
        return dict(inputs=self.batch['inputs'][index].clone(), data_samples=self.batch['data_samples'][index].clone())


@pytest.fixture
def train(build_model, make_batch, tmp_path, monkeypatch):
    def train(name, iterations, preprocessor=ADVERSARIAL, **options):
        model = build_model('fcn', preprocessor)
        drawn = []
        if isinstance(model.data_preprocessor, AdvSegDataPreProcessor):
            draw = model.data_preprocessor._next_key

            def next_key():
                drawn.append(draw())
                return drawn[-1]

            monkeypatch.setattr(model.data_preprocessor, '_next_key', next_key)
        runner = Runner(
            model,
            work_dir=str(tmp_path / name),
            train_cfg=dict(by_epoch=False, max_iters=iterations),
            log_level='ERROR',
            train_dataloader=dict(
                batch_size=2,
                dataset=Pictures(make_batch([(24, 24)] * 8)),
                sampler=dict(type='InfiniteSampler', shuffle=True),
                collate_fn=dict(type='pseudo_collate'),
            ),
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=2, by_epoch=False)),
            default_scope='mmseg',
            randomness=dict(seed=3),
            experiment_name=f'{tmp_path.name}_{name}',
            **{
                'optim_wrapper': dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
                'param_scheduler': dict(type='ConstantLR', factor=1, by_epoch=False),
                **options,
            },
        )
        runner.train()
        return drawn, runner.model.state_dict(), tmp_path / name / f'iter_{iterations}.pth'

    return train


def test_resumed_run_is_the_run_that_was_not_interrupted(train):
    straight, expected, _ = train('straight', 4)
    first, _, checkpoint = train('first', 2)
    resumed, found, _ = train('resumed', 4, load_from=str(checkpoint), resume=True)
    assert straight == [(3, 0, iteration, 0) for iteration in range(4)]
    assert first + resumed == straight
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, msg=key)


def test_trains_as_the_stock_preprocessor_does_except_for_the_attack(train):
    _, stock, _ = train('stock', 2, None)
    _, clean, _ = train('clean', 2, {**ADVERSARIAL, 'prob': 0})
    _, adversarial, _ = train('adversarial', 2)
    assert all(torch.equal(clean[key], value) for key, value in stock.items())
    assert not torch.equal(adversarial['backbone.stem.0.weight'], clean['backbone.stem.0.weight'])


def test_ema_and_accumulation(train, build_model):
    drawn, _, checkpoint = train(
        'ema',
        4,
        custom_hooks=[dict(type='EMAHook')],
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01), accumulative_counts=2),
    )
    assert drawn == [(3, 0, iteration, 0) for iteration in range(4)]
    build_model('fcn').load_state_dict(torch.load(checkpoint, weights_only=False)['state_dict'], strict=True)


def free_port():
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        return found.getsockname()[1]


def start(rank, world_size, port):
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world_size))
    torch.set_num_threads(1)
    dist.init_process_group('gloo', rank=rank, world_size=world_size)


def step(model, batch):
    """Returns the gradients of one training step that updates nothing."""
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.0))
    optimizer.zero_grad = lambda **options: None
    model.train_step(batch, optimizer)
    inner = model.module if hasattr(model, 'module') else model
    return {name: parameter.grad for name, parameter in inner.named_parameters()}


def ddp_rank(rank, port, models, batches, path):
    start(rank, 2, port)
    for static_graph, model in models.items():
        wrapped = MMDistributedDataParallel(model, broadcast_buffers=False, static_graph=static_graph)
        torch.save(
            (step(wrapped, batches[rank]), model.data_preprocessor.last_key), f'{path}/{static_graph}_{rank}.pth'
        )
    dist.destroy_process_group()


class KeyKeeper(AdvSegDataPreProcessor):
    """Keeps the key of the last call."""

    last_key = None

    def _next_key(self):
        self.last_key = super()._next_key()
        return self.last_key


def test_ddp_averages_the_ranks_gradients_and_gives_them_noise_of_their_own(build_model, make_batch, tmp_path):
    def fresh():
        model = build_model('psp', {**ADVERSARIAL, 'prob': 1.0}).train()
        model.data_preprocessor.__class__ = KeyKeeper
        return model

    batches = [make_batch([(24, 24)] * 2, seed=rank) for rank in range(2)]
    models = {static_graph: fresh() for static_graph in (False, True)}
    # Forked processes need no imports, and share no tensors.
    mp.start_processes(ddp_rank, (free_port(), models, batches, tmp_path), nprocs=2, start_method='fork')
    for static_graph in (False, True):
        ranks = [torch.load(tmp_path / f'{static_graph}_{rank}.pth') for rank in range(2)]
        assert [key[1] for _, key in ranks] == [0, 1]
        alone = []
        for (_, key), batch in zip(ranks, batches, strict=True):
            model = fresh()
            model.data_preprocessor._next_key = lambda key=key: key
            alone.append(step(model, batch))
        (first, _), (second, _) = ranks
        for name, gradient in first.items():
            assert torch.equal(gradient, second[name])
            torch.testing.assert_close(gradient, (alone[0][name] + alone[1][name]) / 2, atol=1e-5, rtol=1e-4)


def test_fsdp_is_refused(build_model, make_batch):
    from torch.distributed.fsdp import FullyShardedDataParallel

    start(0, 1, free_port())
    try:
        model = build_model('fcn', ADVERSARIAL)
        FullyShardedDataParallel(model, device_id=torch.device('cpu'))
        with pytest.raises(UserError, match='does not work with FSDP'):
            model.data_preprocessor(make_batch([(24, 24)]), True)
    finally:
        dist.destroy_process_group()
