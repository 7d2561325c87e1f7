"""AdvSegDataPreProcessor: mmseg's preprocessor, with adversarial samples."""

import copy
import pickle
import re

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from mmseg.models.data_preprocessor import SegDataPreProcessor

from mmadv.attacks import NonFiniteLogits, derive_seed
from mmadv.errors import UserError
from mmadv.models import AdvSegDataPreProcessor, SegmentorAdapter, stack_images, stack_labels
from mmadv.models.iteration_key import IterationKey

PGD = dict(type='PGD', threat=dict(type='Linf', radius='8/255'), steps=2, step_size='4/255')
RADIUS = 8 / 255
PADDINGS = [dict(size_divisor=32, size=None), dict(size=(64, 48), size_divisor=None), dict(size_divisor=1)]


@pytest.fixture(autouse=True)
def own_hub():
    """A message hub of the test's own, so that runners of other tests do not show through."""
    name = 'test_adv_data_preprocessor'
    MessageHub._instance_dict.pop(name, None)
    yield MessageHub.get_instance(name)
    MessageHub._instance_dict.pop(name, None)


def adversarial(**changes):
    return dict(type='AdvSegDataPreProcessor', attack=PGD, **changes)


def at_iteration(hub, iteration, seed=0):
    hub.update_info('seed', seed)
    hub.update_info('iter', iteration)


def run(model, batch):
    return model.data_preprocessor(copy.deepcopy(batch), True)


def stock(model, batch, training=True):
    own = model.data_preprocessor
    names = ('size', 'size_divisor', 'pad_val', 'seg_pad_val', 'batch_augments', 'test_cfg')
    same = SegDataPreProcessor(
        mean=own.mean.flatten().tolist(),
        std=own.std.flatten().tolist(),
        bgr_to_rgb=True,
        **{name: getattr(own, name) for name in names},
    )
    return same(copy.deepcopy(batch), training)


def pixels(model, normalised):
    """Undoes the normalisation and gives pixels in [0, 1] in loaded channel order."""
    own = model.data_preprocessor
    return ((normalised * own.std + own.mean) / 255)[:, [2, 1, 0]]


@pytest.mark.parametrize('padding', PADDINGS, ids=repr)
def test_clean_samples_are_mmsegs_bit_for_bit(build_model, make_batch, padding):
    model = build_model('fcn', adversarial(prob=0.0, **padding))
    batch = make_batch([(40, 40), (37, 45)] if padding.get('size_divisor') else [(40, 40), (40, 40)])
    expected, actual = stock(model, batch), run(model, batch)
    assert torch.equal(actual['inputs'], expected['inputs'])
    for ours, theirs in zip(actual['data_samples'], expected['data_samples'], strict=True):
        assert torch.equal(ours.gt_sem_seg.data, theirs.gt_sem_seg.data)
        assert ours.metainfo == theirs.metainfo


@pytest.mark.parametrize('kind', ['AdvSegDataPreProcessor', 'FreeAdvSegDataPreProcessor'])
@pytest.mark.parametrize(('low', 'high'), [(0, 1), (-1, 1)])
def test_images_scaled_in_the_pipeline_are_refused(build_model, make_batch, kind, low, high):
    own = adversarial() if kind == 'AdvSegDataPreProcessor' else dict(type=kind, radius='8/255')
    model = build_model('fcn', {**own, 'size_divisor': 1})
    model.data_preprocessor.slot = 0
    batch = make_batch([(40, 40)] * 2)
    run(model, batch)
    batch['inputs'] = [image / 255 * (high - low) + low for image in batch['inputs']]
    with pytest.raises(UserError, match=r'pixels must be in \[0, 255\]; found values from .* of the pipeline'):
        run(model, batch)


def test_testing_is_mmsegs_bit_for_bit(build_model, make_batch):
    model = build_model('fcn', adversarial(test_cfg=dict(size_divisor=32)))
    batch = make_batch([(37, 45)] * 2)
    actual = model.data_preprocessor(copy.deepcopy(batch), False)
    assert torch.equal(actual['inputs'], stock(model, batch, training=False)['inputs'])
    assert actual['data_samples'][0].img_padding_size == (0, 19, 0, 27)


def test_unchosen_samples_stay_and_chosen_ones_change(build_model, make_batch):
    model = build_model('fcn', adversarial(prob=0.5))
    batch = make_batch([(24, 24)] * 8)
    changed = (run(model, batch)['inputs'] != stock(model, batch)['inputs']).flatten(1).any(1)
    assert 0 < changed.sum() < 8


def test_prob_is_the_share_of_adversarial_samples(build_model, make_batch):
    model = build_model('fcn', adversarial(prob=0.3))
    own, inputs = model.data_preprocessor, make_batch([(4, 4)] * 4)['inputs']
    chosen = sum(len(group) for _ in range(1000) for group in own._choose(inputs, own._key.next()))
    assert chosen / 4000 == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize('padding', PADDINGS, ids=repr)
def test_perturbation_is_in_the_budget_and_padding_is_not_touched(build_model, make_batch, padding):
    model = build_model('uper', adversarial(**padding))
    sizes = [(37, 45), (40, 40), (37, 45)] if padding.get('size_divisor') != 1 else [(40, 40)] * 3
    batch = make_batch(sizes)
    clean, actual = stock(model, batch), run(model, batch)
    difference = pixels(model, actual['inputs']) - pixels(model, clean['inputs'])
    for (height, width), perturbation in zip(sizes, difference, strict=True):
        assert 0.9 * RADIUS < perturbation[:, :height, :width].abs().max() < RADIUS + 1e-5
        assert not perturbation[:, height:].any() and not perturbation[:, :, width:].any()
    for ours, theirs in zip(actual['data_samples'], clean['data_samples'], strict=True):
        assert torch.equal(ours.gt_sem_seg.data, theirs.gt_sem_seg.data)
        assert ours.metainfo == theirs.metainfo


def test_is_the_attack_on_the_eval_mode_model(build_model, make_batch):
    model = build_model('fcn', adversarial())
    batch = make_batch([(32, 32)] * 2)
    own = model.data_preprocessor
    result = own.attack(
        SegmentorAdapter(model, batch['data_samples']),
        stack_images(batch['inputs']),
        stack_labels(batch['data_samples']),
        seeds=[derive_seed('noise', 5, 0, 7, 0, index) for index in range(2)],
    )
    at_iteration(MessageHub.get_current_instance(), 7, seed=5)
    model.train()
    torch.testing.assert_close(pixels(model, run(model, batch)['inputs']), result.images, atol=1e-6, rtol=0)


def test_attack_raises_the_loss_of_the_labels_predicted_before(build_model, make_batch):
    model = build_model('fcn', adversarial())
    batch = make_batch([(32, 32)] * 4)
    with torch.no_grad():
        predicted = SegmentorAdapter(model, batch['data_samples'])(stack_images(batch['inputs'])).argmax(1)
        for sample, labels in zip(batch['data_samples'], predicted, strict=True):
            sample.gt_sem_seg.data = labels[None]
        data = {'clean': stock(model, batch), 'attacked': run(model, batch)}
        losses = {name: model.loss(**part) for name, part in data.items()}
    assert losses['attacked']['decode.loss_ce'] > losses['clean']['decode.loss_ce']
    assert losses['attacked']['decode.acc_seg'] < losses['clean']['decode.acc_seg'] == 100


def test_leaves_the_model_as_it_was(build_model, make_batch):
    model = build_model('fcn', adversarial()).train()
    model.backbone.layer1.eval()
    model.decode_head.conv_seg.bias.requires_grad_(False)
    flags = [module.training for module in model.modules()]
    required = [parameter.requires_grad for parameter in model.parameters()]
    state = copy.deepcopy(model.state_dict())
    run(model, make_batch([(24, 24)] * 2))
    assert flags == [module.training for module in model.modules()]
    assert required == [parameter.requires_grad for parameter in model.parameters()]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_state_dict_is_the_stock_models(build_model):
    ours, theirs = build_model('fcn', adversarial()), build_model('fcn', seed=1)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert len(list(ours.modules())) == len(list(theirs.modules()))


def test_copies_bind_to_the_copy_and_pickles_to_nothing(build_model, make_batch):
    model = build_model('fcn', adversarial())
    batch = make_batch([(24, 24)])
    duplicate = copy.deepcopy(model)
    assert duplicate.data_preprocessor._segmentor() is duplicate
    assert model.data_preprocessor._segmentor() is model
    assert torch.equal(run(duplicate, batch)['inputs'], run(model, batch)['inputs'])
    loaded = pickle.loads(pickle.dumps(model))
    with pytest.raises(UserError, match=re.escape('call bind(segmentor)')):
        run(loaded, batch)
    loaded.data_preprocessor.bind(loaded)
    run(loaded, batch)
    assert copy.deepcopy(model.data_preprocessor)._segmentor is None


def test_noise_is_a_function_of_seed_rank_and_iteration(build_model, make_batch, own_hub, monkeypatch):
    batch = make_batch([(24, 24)] * 2)

    def noise(iteration, seed=0, rank=0):
        at_iteration(own_hub, iteration, seed)
        monkeypatch.setattr('mmadv.models.adv_data_preprocessor.get_rank', lambda: rank)
        monkeypatch.setattr('mmadv.models.adv_data_preprocessor.get_world_size', lambda: rank + 1)
        return run(build_model('fcn', adversarial()), batch)['inputs']

    first = noise(0)
    assert torch.equal(first, noise(0))
    for other in (noise(1), noise(0, seed=1), noise(0, rank=1)):
        assert not torch.equal(first, other)


def test_processes_draw_what_one_process_draws_for_the_whole_batch(build_model, make_batch, own_hub, monkeypatch):
    at_iteration(own_hub, 2)
    batch = make_batch([(24, 24)] * 6)
    model = build_model('fcn', adversarial(prob=0.5))
    chosen, seeds = [], []
    monkeypatch.setattr(model.data_preprocessor, '_attack_samples', lambda *parts: seeds_of(*parts))

    def seeds_of(adapter, data, positions, names, key):
        chosen.append([names[position] for position in positions])
        seeds.append(model.data_preprocessor._seeds(positions, key))
        return [data['inputs'][position] / 255 for position in positions]

    run(model, batch)
    for rank in range(2):
        model.data_preprocessor._key = IterationKey()
        monkeypatch.setattr('mmadv.models.adv_data_preprocessor.get_rank', lambda rank=rank: rank)
        monkeypatch.setattr('mmadv.models.adv_data_preprocessor.get_world_size', lambda: 2)
        run(model, {name: part[rank::2] for name, part in batch.items()})
    (whole, *parts), (whole_seeds, *part_seeds) = chosen, seeds
    assert 0 < len(whole) < 6
    actual = {name: seed for part in zip(parts, part_seeds, strict=True) for name, seed in zip(*part, strict=True)}
    assert actual == dict(zip(whole, whole_seeds, strict=True))


def test_noise_does_not_repeat_within_an_iteration_or_without_a_runner(build_model, make_batch, own_hub):
    batch = make_batch([(24, 24)])
    model = build_model('fcn', adversarial())
    without_runner = [run(model, batch)['inputs'] for _ in range(2)]
    at_iteration(own_hub, 3)
    within = [run(model, batch)['inputs'] for _ in range(2)]
    assert not torch.equal(*without_runner)
    assert not torch.equal(*within)


def test_global_random_state_is_not_touched(build_model, make_batch):
    model = build_model('fcn', adversarial(prob=0.5))
    before = torch.get_rng_state()
    run(model, make_batch([(24, 24)] * 4))
    assert torch.equal(before, torch.get_rng_state())


def test_autocast_does_not_reach_the_attack(build_model, make_batch, own_hub):
    batch = make_batch([(24, 24)] * 2)
    at_iteration(own_hub, 0)
    expected = run(build_model('fcn', adversarial()), batch)['inputs']
    with torch.autocast('cpu', dtype=torch.bfloat16):
        actual = run(build_model('fcn', adversarial()), batch)['inputs']
    assert torch.equal(actual, expected)


def test_with_cp(build_model, make_batch, own_hub):
    batch = make_batch([(24, 24)] * 2)
    at_iteration(own_hub, 0)
    expected = run(build_model('fcn', adversarial()), batch)['inputs']
    model = build_model('fcn', adversarial())
    for block in model.backbone.layer1:
        block.with_cp = True
    assert torch.equal(run(model, batch)['inputs'], expected)
    assert all(block.with_cp for block in model.backbone.layer1)


def test_batch_augments_follow_the_attack(build_model, make_batch, own_hub):
    seen = []

    def mix(inputs, data_samples):
        seen.append(inputs.clone())
        return inputs.flip(0), data_samples

    batch = make_batch([(24, 24)] * 2)
    at_iteration(own_hub, 0)
    plain = run(build_model('fcn', adversarial()), batch)['inputs']
    mixed = run(build_model('fcn', adversarial(batch_augments=mix)), batch)['inputs']
    assert torch.equal(seen[0], plain)
    assert torch.equal(mixed, plain.flip(0))


def test_image_without_a_valid_pixel_is_left_as_it_is(build_model, make_batch):
    model = build_model('fcn', adversarial())
    batch = make_batch([(24, 24)] * 2)
    batch['data_samples'][0].gt_sem_seg.data.fill_(255)
    changed = (run(model, batch)['inputs'] != stock(model, batch)['inputs']).flatten(1).any(1)
    assert changed.tolist() == [False, True]


@pytest.mark.parametrize('name', ['psp', 'sigmoid', 'ocr', 'segmenter'])
def test_train_step(build_model, make_batch, name):
    from mmengine.optim import OptimWrapper

    model = build_model(name, adversarial(prob=0.5, size=(32, 32), size_divisor=None)).train()
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
    log = model.train_step(make_batch([(32, 32)] * 2, classes=2), optimizer)
    assert torch.isfinite(log['loss'])


@pytest.mark.parametrize('prob', [-0.1, 1.1, float('nan'), '0.5', True, None])
def test_refuses_a_prob_that_is_none(prob):
    with pytest.raises(UserError, match=r'prob must be a finite number in \[0, 1\]; found'):
        AdvSegDataPreProcessor(PGD, prob)


def test_refuses_configs_that_contradict_themselves():
    with pytest.raises(UserError, match='prob is 1.0 but there is no attack'):
        AdvSegDataPreProcessor()
    assert AdvSegDataPreProcessor(prob=0).attack is None
    with pytest.raises(UserError, match='no argument pad_size_divisor; it replaces a SegDataPreProcessor'):
        AdvSegDataPreProcessor(PGD, pad_size_divisor=32)
    with pytest.raises(UserError, match="unknown attack 'PDG'; did you mean 'PGD'"):
        AdvSegDataPreProcessor(dict(PGD, type='PDG'))
    objective = dict(type='CrossEntropy', targeted=True)
    with pytest.raises(UserError, match='attack is targeted'):
        AdvSegDataPreProcessor(dict(PGD, objective=objective))


def test_builds_from_stamped_configs():
    config = ConfigDict(PGD, _scope_='mmadv')
    config.threat._scope_ = 'mmadv'
    assert AdvSegDataPreProcessor(config).attack == AdvSegDataPreProcessor(PGD).attack


def test_names_bad_samples(build_model, make_batch):
    model = build_model('fcn', adversarial())
    batch = make_batch([(24, 24)] * 2)
    batch['inputs'][1] = batch['inputs'][1].double() + 1
    with pytest.raises(UserError, match=r'/data/1.png: pixels must be in \[0, 255\]; found values from 1 to 256'):
        run(model, batch)
    batch = make_batch([(24, 24)] * 2)
    batch['data_samples'][1].gt_sem_seg.data[0, 0, 0] = 5
    with pytest.raises(UserError, match='/data/1.png: labels must be below 5, the number of classes, or 255'):
        run(model, batch)
    with pytest.raises(UserError, match='/data/0.png: the image is 24x24 and its label map 24x20'):
        run(model, make_batch([(24, 24)], labels=(24, 20)))
    batch = make_batch([(24, 24)])
    del batch['data_samples'][0].gt_sem_seg
    with pytest.raises(UserError, match='/data/0.png: there are no labels'):
        run(model, batch)


def test_names_the_image_and_iteration_of_non_finite_logits(build_model, make_batch, own_hub):
    model = build_model('fcn', adversarial())
    with torch.no_grad():
        model.decode_head.conv_seg.bias.fill_(float('nan'))
    at_iteration(own_hub, 12)
    with pytest.raises(UserError, match='/data/0.png: .* iteration 0 of the attack in training iteration 12') as caught:
        run(model, make_batch([(24, 24)] * 2))
    assert isinstance(caught.value.__cause__, NonFiniteLogits)


def test_needs_one_way_to_pad(build_model, make_batch):
    for padding in (dict(size=None, size_divisor=None), dict(size=(32, 32), size_divisor=32)):
        with pytest.raises(UserError, match='exactly one of size and size_divisor'):
            run(build_model('fcn', adversarial(**padding)), make_batch([(24, 24)]))


def test_refuses_a_model_of_another_kind(make_batch):
    with pytest.raises(UserError, match='does not belong to a segmentor of mmseg'):
        AdvSegDataPreProcessor(PGD, size_divisor=1)(make_batch([(24, 24)]), True)
