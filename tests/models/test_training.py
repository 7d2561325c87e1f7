"""Every training method with what mmengine offers: resume, EMA, accumulation, checkpointing, compiling, DDP."""

import copy
import os
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.logging import MessageHub
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.runner import Runner
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing

from mmadv.errors import UserError
from mmadv.models import AdvSegDataPreProcessor

ATTACK = dict(type='RandomFGSM', threat=dict(type='Linf', radius='8/255'), step_size='10/255')
ADVERSARIAL = dict(type='AdvSegDataPreProcessor', attack=ATTACK, prob=0.5)
PGD = dict(type='PGD', threat=dict(type='Linf', radius='8/255'), steps=2, step_size='4/255')
# The data preprocessor of every training method; TRADES and DDC-AT have a segmentor of their own too.
METHODS = {
    'at': ADVERSARIAL,
    'fast_newton': dict(type='AdvSegDataPreProcessor', attack=dict(type='FastNewton', max_radius='8/255')),
    'random': dict(type='AdvSegDataPreProcessor', attack=dict(type='RandomChoice', attacks=dict(a=ATTACK, b=PGD))),
    'gaussian': dict(type='AdvSegDataPreProcessor', attack=dict(type='GaussianNoise', sigma=0.1)),
    'trades': dict(type='AdvSegDataPreProcessor', attack={**PGD, 'objective': dict(type='KullbackLeibler')}, prob=0.8),
    'free': dict(type='FreeAdvSegDataPreProcessor', radius='8/255'),
    'ddcat': dict(type='AdvSegDataPreProcessor', attack=PGD),
}
KINDS = {'trades': 'TRADESEncoderDecoder', 'ddcat': 'DDCATEncoderDecoder'}
# DDC-AT knows other heads than these.
PYRAMIDS = {'fcn': 'psp', 'segmenter': 'vit_psp'}


@pytest.fixture
def build_method(build_model):
    def build(name, architecture):
        """Returns a tiny segmentor in train mode, about to be trained by the method."""
        architecture = PYRAMIDS[architecture] if name == 'ddcat' else architecture
        model = build_model(architecture, METHODS[name], kind=KINDS.get(name))
        if name == 'free':
            model.data_preprocessor.slot = 0
        return model.train()

    return build


@pytest.fixture
def own_hub():
    """A message hub of the test's own, so that runners of other tests do not show through."""
    name = 'test_training'
    MessageHub._instance_dict.pop(name, None)
    yield MessageHub.get_instance(name)
    MessageHub._instance_dict.pop(name, None)


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
    def train(name, iterations, preprocessor=ADVERSARIAL, kind=None, architecture='fcn', **options):
        model = build_model(architecture, preprocessor, kind=kind)
        model.decode_head.dropout = torch.nn.Dropout2d(options.pop('dropout', 0.0))
        drawn = []
        if isinstance(model.data_preprocessor, AdvSegDataPreProcessor):
            draw = model.data_preprocessor._key.next

            def next_key():
                drawn.append(draw())
                return drawn[-1]

            monkeypatch.setattr(model.data_preprocessor._key, 'next', next_key)
        runner = Runner(
            model,
            work_dir=str(tmp_path / name),
            train_cfg=options.pop('train_cfg', dict(by_epoch=False)) | dict(max_iters=iterations),
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
    resumed, weights, _ = train('resumed', 4, load_from=str(checkpoint), resume=True)
    assert straight == [(3, iteration, 0) for iteration in range(4)]
    assert first + resumed == straight
    for key, value in expected.items():
        torch.testing.assert_close(weights[key], value, msg=key)


@pytest.mark.parametrize('preprocessor', [ADVERSARIAL, None], ids=['adversarial', 'clean'])
def test_resumed_run_with_dropout_is_the_run_that_was_not_interrupted(train, preprocessor):
    options = dict(custom_hooks=[dict(type='IterationSeedHook')], dropout=0.5)
    _, expected, _ = train('straight', 4, preprocessor, **options)
    _, _, checkpoint = train('first', 2, preprocessor, **options)
    _, weights, _ = train('resumed', 4, preprocessor, load_from=str(checkpoint), resume=True, **options)
    assert all(torch.equal(weights[key], value) for key, value in expected.items())


def test_trains_as_the_stock_preprocessor_does_except_for_the_attack(train):
    _, stock, _ = train('stock', 2, None)
    _, clean, _ = train('clean', 2, {**ADVERSARIAL, 'prob': 0})
    _, adversarial, _ = train('adversarial', 2)
    assert all(torch.equal(clean[key], value) for key, value in stock.items())
    assert not torch.equal(adversarial['backbone.stem.0.weight'], clean['backbone.stem.0.weight'])


def test_resumed_trades_is_the_run_that_was_not_interrupted(train):
    options = dict(kind='TRADESEncoderDecoder', custom_hooks=[dict(type='EMAHook')])
    _, expected, whole = train('straight', 3, METHODS['trades'], **options)
    _, _, checkpoint = train('first', 1, METHODS['trades'], **options)
    _, weights, resumed = train('resumed', 3, METHODS['trades'], load_from=str(checkpoint), resume=True, **options)
    assert all(torch.equal(weights[key], value) for key, value in expected.items())
    averages = [torch.load(path, weights_only=False)['state_dict'] for path in (whole, resumed)]
    assert all(torch.equal(averages[1][key], value) for key, value in averages[0].items())


def test_resumed_ddcat_is_the_run_that_was_not_interrupted(train, build_model):
    """The branches go on too, though the weights of the checkpoint are those of the stock model."""
    options = dict(kind='DDCATEncoderDecoder', architecture='psp', custom_hooks=[dict(type='EMAHook')])
    options['preprocessor'] = METHODS['ddcat']
    _, expected, whole = train('straight', 4, **options)
    _, _, checkpoint = train('first', 2, **options)
    _, weights, resumed = train('resumed', 4, load_from=str(checkpoint), resume=True, **options)
    assert all(torch.equal(weights[key], value) for key, value in expected.items())
    files = [torch.load(path, weights_only=False) for path in (whole, resumed)]
    branches = [file['message_hub']['runtime_info']['ddcat_branches']['weights'] for file in files]
    assert branches[0] and branches[0].keys() == branches[1].keys()
    assert all(torch.equal(branches[1][key], value) for key, value in branches[0].items())
    build_model('psp').load_state_dict(files[0]['state_dict'], strict=True)
    assert all(torch.equal(files[1]['state_dict'][key], value) for key, value in files[0]['state_dict'].items())


def test_resumed_free_training_is_the_run_that_was_not_interrupted(train):
    """Interrupted between two replays of a batch, the perturbation goes on where it was."""
    options = dict(train_cfg=dict(type='FreeTrainLoop', replays=2), custom_hooks=[dict(type='EMAHook')])
    _, expected, _ = train('straight', 4, METHODS['free'], **options)
    _, _, checkpoint = train('first', 3, METHODS['free'], **options)
    _, weights, _ = train('resumed', 4, METHODS['free'], load_from=str(checkpoint), resume=True, **options)
    assert all(torch.equal(weights[key], value) for key, value in expected.items())
    hub = torch.load(checkpoint, weights_only=False)['message_hub']['runtime_info']
    (perturbation,) = hub['free_perturbations'].values()
    assert perturbation.shape == (2, 3, 24, 24) and perturbation.abs().max() == pytest.approx(8 / 255)
    assert not any('perturbation' in key for key in weights)


def test_ema_and_accumulation(train, build_model):
    drawn, _, checkpoint = train(
        'ema',
        4,
        custom_hooks=[dict(type='EMAHook')],
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01), accumulative_counts=2),
    )
    assert drawn == [(3, iteration, 0) for iteration in range(4)]
    build_model('fcn').load_state_dict(torch.load(checkpoint, weights_only=False)['state_dict'], strict=True)


def free_port():
    with socket.socket() as connection:
        connection.bind(('127.0.0.1', 0))
        return connection.getsockname()[1]


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


def take_steps(model, optimizer, batches):
    """Trains on batches in turn, as a runner would."""
    hub = MessageHub.get_current_instance()
    hub.update_info('seed', 3)
    model.train()
    for iteration, batch in enumerate(batches):
        hub.update_info('iter', iteration)
        model.train_step(copy.deepcopy(batch), optimizer)


def sgd(model, **options):
    return OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.05), **options)


def ddp_rank(rank, port, models, batches, path):
    start(rank, 2, port)
    for (name, static_graph), model in models.items():
        wrapped = MMDistributedDataParallel(model, static_graph=static_graph)
        take_steps(wrapped, sgd(model), [{key: part[rank::2] for key, part in batch.items()} for batch in batches])
        torch.save(model.state_dict(), f'{path}/{name}_{static_graph}_{rank}.pth')
    dist.destroy_process_group()


def test_two_processes_train_as_one_with_the_whole_batch(build_method, make_batch, tmp_path, own_hub):
    """Three steps of every method; a network without batch norm, whose statistics are each process's own."""
    batches = [make_batch([(32, 32)] * 4, seed=seed) for seed in range(2)]
    batches = [batches[0], batches[0], batches[1]]
    keys = [*((name, False) for name in METHODS), ('at', True), ('trades', True)]
    models = {key: build_method(key[0], 'segmenter') for key in keys}
    begin = {name: copy.deepcopy(models[name, False].state_dict()) for name in METHODS}
    # Forked processes need no imports, and share no tensors.
    mp.start_processes(ddp_rank, (free_port(), models, batches, tmp_path), nprocs=2, start_method='fork')
    alone = {}
    for name in METHODS:
        alone[name] = build_method(name, 'segmenter')
        take_steps(alone[name], sgd(alone[name]), batches)
    for name, static_graph in keys:
        ranks = [torch.load(tmp_path / f'{name}_{static_graph}_{rank}.pth') for rank in range(2)]
        for key, value in alone[name].state_dict().items():
            assert torch.equal(ranks[0][key], ranks[1][key])
            # A sign of the input gradient may flip by rounding, which moves weights by far less than a step does.
            moved = (value - begin[name][key]).abs().max()
            torch.testing.assert_close(ranks[0][key], value, rtol=0, atol=float(2e-3 * moved) + 1e-6)


@pytest.mark.parametrize('name', METHODS)
def test_accumulated_gradients_are_the_mean_over_the_batches(build_method, make_batch, own_hub, name):
    batches = [make_batch([(32, 32)] * 2, seed=seed) for seed in range(2)]
    model, gradients = build_method(name, 'segmenter'), []
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    for iteration, batch in enumerate(batches):
        own_hub.update_info('seed', 3)
        own_hub.update_info('iter', iteration)
        single = build_method(name, 'segmenter').train()
        gradients.append(step(single, copy.deepcopy(batch)))
    if name == 'free':  # FreeTrainLoop gives every batch of an update a perturbation of its own
        count_slots(model)
    take_steps(model, sgd(model, accumulative_counts=2), batches)
    for key, value in model.named_parameters():
        expected = before[key] - 0.05 * sum(gradient[key] for gradient in gradients) / 2
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-4)


def count_slots(model):
    perturb, slots = model.data_preprocessor._perturbed, iter(range(9))

    def perturbed(*arguments):
        model.data_preprocessor.slot = next(slots)
        return perturb(*arguments)

    model.data_preprocessor._perturbed = perturbed


@pytest.mark.parametrize('name', METHODS)
def test_activation_checkpointing_changes_no_gradient(build_method, make_batch, own_hub, name):
    batch = make_batch([(24, 24)] * 2)
    expected = step(build_method(name, 'fcn').train(), copy.deepcopy(batch))
    own_hub.update_info('iter', 1)  # the next call of iteration 0 would draw other noise
    own_hub.update_info('iter', 0)
    model = build_method(name, 'fcn').train()
    turn_on_activation_checkpointing(model, ['backbone.layer1', 'backbone.layer2'])
    for block in model.backbone.layer3:
        block.with_cp = True
    for key, gradient in step(model, batch).items():
        torch.testing.assert_close(gradient, expected[key], atol=1e-6, rtol=1e-4, msg=key)


@pytest.mark.filterwarnings('default')  # torch's compiler reads attributes that warn, wherever they are
@pytest.mark.parametrize('name', ['at', 'trades', 'free'])
def test_compiled_model_has_the_same_gradients(build_method, make_batch, own_hub, name):
    batch = make_batch([(24, 24)] * 2)
    expected = step(build_method(name, 'fcn'), copy.deepcopy(batch))
    own_hub.update_info('iter', 1)
    own_hub.update_info('iter', 0)
    model = build_method(name, 'fcn')
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward  # what the tracing made, without the minutes of generating code

    # What mmengine does for ``compile=dict(...)`` in a config.
    model.forward = torch.compile(model.forward, backend=backend)
    weights = step(model, batch)
    assert graphs
    for key, gradient in weights.items():
        torch.testing.assert_close(gradient, expected[key], atol=1e-6, rtol=1e-4, msg=key)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('name', METHODS)
def test_mixed_precision(build_method, make_batch, own_hub, name):
    model = build_method(name, 'fcn').cuda()
    optimizer = AmpOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=0.01), loss_scale='dynamic')
    before = model.backbone.stem[0].weight.detach().clone()
    take_steps(model, optimizer, [make_batch([(32, 32)] * 2)] * 4)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert not torch.equal(model.backbone.stem[0].weight, before)


def test_fsdp_is_refused(build_model, build_method, make_batch):
    from torch.distributed.fsdp import FullyShardedDataParallel

    start(0, 1, free_port())
    try:
        model = build_model('fcn', ADVERSARIAL)
        FullyShardedDataParallel(model, device_id=torch.device('cpu'))
        with pytest.raises(UserError, match='does not work with FSDP'):
            model.data_preprocessor(make_batch([(24, 24)]), True)
        for name in ('trades', 'free'):
            model = build_method(name, 'fcn')
            FullyShardedDataParallel(model, device_id=torch.device('cpu'))
            with pytest.raises(UserError, match='does not work with FSDP'):
                model.data_preprocessor(make_batch([(24, 24)]), True)
    finally:
        dist.destroy_process_group()
