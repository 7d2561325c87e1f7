"""Conversion of public checkpoints, and RobustPretrained, on the exact key names and shapes of the public files."""

import os
import sys
import types
from pathlib import Path

import public_files
import pytest
import timm
import torch
from mmengine.registry import WEIGHT_INITIALIZERS
from mmseg.registry import MODELS
from mmseg.utils import register_all_modules

import mmadv  # noqa: F401  (registers the components)
from mmadv.checkpoints.families import SOURCES
from mmadv.checkpoints.matching import match
from mmadv.commands.main import main as run_main
from mmadv.errors import UserError
from mmadv.models.backbones import ARCHITECTURES, RobustPretrained, build_backbone
from mmadv.models.backbones.conversion import convert, convert_file

register_all_modules()
UNIT = dict(mean=[0, 0, 0], std=[255, 255, 255])
IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='module')
def resnet18():
    return public_files.resnet(18)


@pytest.fixture
def save(tmp_path):
    def write(content, name='public.pt'):
        torch.save(content, tmp_path / name)
        return str(tmp_path / name)

    return write


def segmentor(backbone, preprocessor, channels=512, index=3):
    """Returns a segmentor on a backbone's config, as stock tools build it."""
    head = dict(
        type='FCNHead', in_channels=channels, in_index=index, channels=8, num_convs=1, num_classes=3,
        norm_cfg=dict(type='BN'), loss_decode=dict(type='CrossEntropyLoss'),
    )  # fmt: skip
    return MODELS.build(
        dict(
            type='EncoderDecoder',
            data_preprocessor=dict(dict(type='SegDataPreProcessor', bgr_to_rgb=True, size_divisor=1), **preprocessor),
            backbone=backbone,
            decode_head=head,
            train_cfg=dict(),
            test_cfg=dict(mode='whole'),
        )
    )


@pytest.mark.parametrize(
    'prefix', ['', 'module.', 'module.model.', 'base_model.', 'module.base_model.', 'model.base_model.']
)
@pytest.mark.parametrize('normalizer', [None, (public_files.MEAN, public_files.STD)], ids=['bare', 'normalized'])
def test_revisiting_at_prefixes(prefix, normalizer):
    with torch.device('meta'):
        model = public_files.timm_model('convnext_t_convstem')
    content = public_files.revisiting_at(model, prefix, normalizer)
    conversion = convert(content, SOURCES['revisiting-at'])
    assert conversion.architecture == 'convnext_t_convstem'
    assert conversion.input_convention == ('imagenet' if normalizer else 'unit')
    classifier = {f'{prefix}head.{name}' for name in ('norm.weight', 'norm.bias', 'fc.weight', 'fc.bias')}
    dropped = {key for key, why in conversion.report.dropped.items() if why == 'classifier head'}
    assert dropped == classifier
    assert len(conversion.report.dropped) - len(dropped) == (2 if normalizer else 0)
    expected = set(model.state_dict()) - {key.removeprefix(prefix) for key in classifier}
    assert set(conversion.report.weights) == expected
    assert {'stem.stem.0.weight', 'stem.stem.4.bias', 'stages.0.blocks.0.gamma'} <= expected
    assert len(conversion.report.renamed) == (len(expected) if prefix else 0)


@pytest.mark.parametrize('name', SOURCES['revisiting-at'].architectures)
def test_every_revisiting_at_architecture_is_recognised(name):
    with torch.device('meta'):
        model = public_files.timm_model(name)
    conversion = convert(public_files.revisiting_at(model), SOURCES['revisiting-at'])
    assert conversion.architecture == name
    assert conversion.report.gaps == 0
    assert len(conversion.report.weights) + len(conversion.report.dropped) == len(model.state_dict())


@pytest.mark.parametrize('source', ['salman', 'madry', 'robustbench-salman', 'torchvision'])
def test_resnet50_of_every_source(source, save, tmp_path):
    with torch.device('meta'):
        shapes = {key: value.shape for key, value in public_files.resnet(50).state_dict().items()}
    model = types.SimpleNamespace(
        state_dict=lambda: {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}
    )
    publish = {'robustbench-salman': public_files.robustbench, 'torchvision': lambda model: model.state_dict()}
    content = publish.get(source, public_files.madry)(model)
    weights = content.get('model', content)
    conversion = convert(weights, SOURCES[source])
    assert conversion.architecture == 'resnet50'
    assert conversion.input_convention == 'imagenet'
    assert set(conversion.report.weights) == set(shapes) - {'fc.weight', 'fc.bias'}
    reasons = list(conversion.report.dropped.values())
    assert reasons.count('classifier head') == 2
    assert sum('normalizer' in reason for reason in reasons) == (0 if source == 'torchvision' else 2)
    attacked = len(shapes) + 2 if source in ('salman', 'madry') else 0
    assert sum('attacker' in reason for reason in reasons) == attacked
    assert len(reasons) + len(conversion.report.weights) == len(weights)


def test_timm_resnet_v2_is_recognised():
    with torch.device('meta'):
        model = timm.create_model('resnetv2_50')
    conversion = convert(model.state_dict(), SOURCES['timm'])
    assert conversion.architecture == 'resnetv2_50'
    assert conversion.input_convention is None
    assert 'not known; state it in the backbone' in conversion.summary()


@pytest.mark.parametrize('source', ['salman', 'madry', 'robustbench-salman', 'torchvision'])
def test_resnet_features_survive_file_and_initialiser(source, save, tmp_path, resnet18):
    publish = {'robustbench-salman': public_files.robustbench, 'torchvision': lambda model: model.state_dict()}
    public = save(publish.get(source, public_files.madry)(resnet18))
    convert_file(public, tmp_path / 'converted.pth', source_name=source)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        stem = resnet18.maxpool(resnet18.relu(resnet18.bn1(resnet18.conv1(images))))
        expected = resnet18.layer4(resnet18.layer3(resnet18.layer2(resnet18.layer1(stem))))
    for config in (
        dict(type='RobustPretrained', checkpoint=public, source=source),
        dict(type='RobustPretrained', checkpoint=str(tmp_path / 'converted.pth')),
    ):
        backbone = dict(type='PlainResNet', depth=18, output_stride=32, input_convention='imagenet', init_cfg=config)
        model = segmentor(backbone, IMAGENET)
        model.init_weights()
        with torch.no_grad():
            torch.testing.assert_close(model.backbone.eval()(images)[3], expected)


def test_convnext_features_survive_file_and_initialiser(save, tmp_path):
    public_model = public_files.timm_model('convnext_t_convstem', ls_init_value=0.5)
    public = save(public_files.revisiting_at(public_model, 'module.base_model.'))
    conversion = convert_file(public, tmp_path / 'converted.pth', source_name='revisiting-at')
    assert conversion.architecture == 'convnext_t_convstem'
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = public_model.forward_intermediates(images, intermediates_only=True)
    for config in (dict(checkpoint=public, source='revisiting-at'), dict(checkpoint=str(tmp_path / 'converted.pth'))):
        backbone = build_backbone('convnext_t_convstem', init_cfg=dict(type='RobustPretrained', **config))
        backbone.init_weights()
        features = backbone.stem(images)
        with torch.no_grad():
            for stage, theirs in zip(backbone.stages, expected, strict=True):
                features = stage(features)
                torch.testing.assert_close(features, theirs, atol=1e-5, rtol=1e-5)


def test_position_embedding_is_resized_with_a_message(save, caplog):
    model = public_files.timm_model('vit_s_convstem', depth=1)
    public = save(public_files.revisiting_at(model))
    initialiser = WEIGHT_INITIALIZERS.build(dict(type='RobustPretrained', checkpoint=public, source='revisiting-at'))
    backbone = build_backbone('vit_s_convstem', depth=1, img_size=(32, 64), out_indices=(0,), input_convention='unit')
    initialiser(backbone)
    expected = timm.layers.resample_abs_pos_embed(model.pos_embed, new_size=[2, 4])
    torch.testing.assert_close(backbone.pos_embed, expected)
    assert not torch.equal(backbone.pos_embed, torch.zeros(1, 9, 384))
    report = match(
        public_files.revisiting_at(model),
        SOURCES['revisiting-at'].map_key,
        {key: value.shape for key, value in backbone.state_dict().items()},
        grid=(2, 4),
    )
    assert report.resized == {'pos_embed': 'from 14x14 to 2x4 patches'}
    assert 'resized: pos_embed from 14x14 to 2x4 patches' in report.summary()


def test_gaps_name_their_keys():
    with torch.device('meta'):
        weights = public_files.revisiting_at(public_files.timm_model('convnext_t_convstem'), 'module.')
    value = weights.pop('module.stem.stem.3.weight')
    weights['module.stem.stem.9.weight'] = value
    weights['module.stages.0.blocks.0.gamma'] = torch.zeros(95)
    with pytest.raises(UserError) as caught:
        convert(weights, SOURCES['revisiting-at'], file='public.pt')
    assert str(caught.value) == (
        'the weights in public.pt do not fit the nearest architecture, convnext_t_convstem: 1 missing in the file, '
        'stem.stem.3.weight; 1 without a place in the network, module.stem.stem.9.weight; 1 of another size, '
        'stages.0.blocks.0.gamma (95,) in the file, (96,) in the network; check the source and the architecture'
    )


def test_wrong_architecture_is_an_error(save, resnet18):
    public = save(resnet18.state_dict())
    initialiser = RobustPretrained(public, source='torchvision')
    backbone = build_backbone('convnext_t', depths=(1, 1, 1, 1), input_convention='imagenet')
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(UserError, match=r'do not fit TimmConvNeXt: 52 missing in the file, stem.0.weight'):
        initialiser(backbone)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    with pytest.raises(UserError, match='do not fit vit_s: '):
        convert(resnet18.state_dict(), SOURCES['torchvision'], architecture='vit_s')


@pytest.mark.parametrize('change', ['no weights', 'twice', 'grid'])
def test_strange_contents(change, save, tmp_path, resnet18):
    weights = dict(resnet18.state_dict())
    if change == 'no weights':
        content, source, message = {'epoch': 3}, 'torchvision', 'holds no weights: .* found epoch'
    elif change == 'twice':
        content = {**weights, 'module.conv1.weight': weights['conv1.weight']}
        source, message = 'torchvision', 'keys conv1.weight and module.conv1.weight .* both stand for conv1.weight'
    else:
        content, source, message = {'pos_embed': torch.zeros(1, 12, 384)}, 'timm', 'has 12 entries, which are not'
    with pytest.raises(UserError, match=message):
        convert_file(save(content), tmp_path / 'out.pth', source_name=source, image_size=(32, 32))
    assert os.listdir(tmp_path) == ['public.pt']


def test_wrong_data_preprocessor_is_refused():
    stated = dict(type='TimmConvNeXt', depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), input_convention='unit')
    with pytest.raises(UserError) as caught:
        segmentor(stated, IMAGENET, 8)
    assert str(caught.value) == (
        'model.data_preprocessor has mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], but '
        "model.backbone.input_convention is 'unit': it needs mean=[0, 0, 0], std=[255, 255, 255]; weights fed "
        'otherwise are not robust'
    )
    with pytest.raises(UserError, match='has no mean and std, so images in .0, 255., but'):
        segmentor(stated, {}, 8)
    with pytest.raises(UserError, match='data_preprocessor has mean=.123.675'):
        segmentor(stated, dict(IMAGENET, type='AdvSegDataPreProcessor', prob=0.0), 8)
    assert segmentor(stated, UNIT, 8).backbone.input_convention == 'unit'
    # Nothing stated: nothing refused.
    segmentor(dict(stated, input_convention=None), IMAGENET, 8)


def test_stock_backbones_are_checked_by_their_source():
    stock = dict(
        type='ResNet', depth=18, init_cfg=[dict(type='RobustPretrained', checkpoint='absent.pt', source='salman')]
    )
    with pytest.raises(
        UserError, match="checkpoints of the source 'salman' take 'imagenet' inputs: it needs mean=.123.675"
    ):
        segmentor(stock, UNIT)
    model = segmentor(stock, IMAGENET)
    with pytest.raises(UserError, match='the checkpoint absent.pt does not exist'):
        model.init_weights()


@pytest.mark.parametrize(
    ('stated', 'preprocessor', 'file', 'message'),
    [
        ('unit', UNIT, (public_files.MEAN, public_files.STD), "'imagenet' inputs, by the normalizer that .* holds"),
        ('imagenet', IMAGENET, None, "take 'unit' inputs, as are all checkpoints of the source 'revisiting-at'"),
        (None, IMAGENET, ((0.0,) * 3, (1.0,) * 3), 'data_preprocessor has mean=|init_cfg'),
        ('unit', UNIT, ((0.1,) * 3, (0.3,) * 3), 'mean .0.1, 0.1, 0.1. and std .0.3, 0.3, 0.3., which is not a known'),
        ('imagenet', IMAGENET, (public_files.MEAN, public_files.STD), None),
        ('unit', UNIT, None, None),
    ],
)  # fmt: skip
def test_checkpoints_convention_meets_the_config(stated, preprocessor, file, message, save):
    arguments = dict(depths=(1, 1, 1, 1), dims=(96, 8, 8, 8))
    public_model = timm.create_model('convnext_tiny', **arguments)
    public_model.stem = public_files.Stem((48, 96), None)
    public = save(public_files.revisiting_at(public_model, 'module.base_model.', file))
    backbone = dict(
        type='TimmConvNeXt', **arguments, stem_widths=(48, 96), input_convention=stated,
        init_cfg=dict(type='RobustPretrained', checkpoint=public, source='revisiting-at'),
    )  # fmt: skip
    if message is None:
        model = segmentor(backbone, preprocessor, 8)
        model.init_weights()
        assert torch.equal(model.backbone.stem.stem[0].weight, public_model.stem.stem[0].weight)
    else:
        with pytest.raises(UserError, match=message):
            segmentor(backbone, preprocessor, 8).init_weights()
        overruled = dict(backbone['init_cfg'], input_convention=stated or 'imagenet')
        segmentor(dict(backbone, init_cfg=overruled), preprocessor, 8).init_weights()


def test_timm_needs_a_stated_convention(save):
    public = save(
        timm.create_model('convnext_atto', depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), conv_mlp=False).state_dict()
    )
    init_cfg = dict(type='RobustPretrained', checkpoint=public, source='timm')
    backbone = dict(type='TimmConvNeXt', depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), layer_scale=1e-6, init_cfg=init_cfg)
    with pytest.raises(UserError, match='nothing says which mean and std the weights in .* were trained with; state'):
        segmentor(backbone, IMAGENET, 8).init_weights()


def test_other_initialisers_must_come_first(save, resnet18):
    init_cfg = [
        dict(type='RobustPretrained', checkpoint=save(resnet18.state_dict()), source='torchvision'),
        dict(type='Kaiming', layer='Conv2d'),
    ]
    with pytest.raises(UserError, match='RobustPretrained must be the last of the init_cfg'):
        segmentor(dict(type='ResNet', depth=18, init_cfg=init_cfg), IMAGENET).init_weights()


class Payload:
    """Pickles into a call that writes which process ran it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return exec, (f"import os; open({self.path!r}, 'w').write(str(os.getpid()))",)


@pytest.fixture
def hostile(tmp_path, resnet18):
    """A file that runs code when it is unpickled, names a class that is not installed, and holds weights."""
    module = types.ModuleType('absent_library')
    module.Schedule = type('Schedule', (dict,), {'__module__': 'absent_library', '__qualname__': 'Schedule'})
    sys.modules['absent_library'] = module
    content = {
        **public_files.madry(resnet18),
        'schedule': module.Schedule(step=3),
        'hook': Payload(str(tmp_path / 'ran')),
    }
    torch.save(content, tmp_path / 'hostile.pt')
    torch.save(content, tmp_path / 'legacy.pt', _use_new_zipfile_serialization=False, pickle_protocol=4)
    del sys.modules['absent_library']
    return tmp_path


def test_code_is_not_run_without_trust(hostile):
    public, out = str(hostile / 'hostile.pt'), hostile / 'out.pth'
    with pytest.raises(
        UserError,
        match=r'holds code .*it was not run.* convert it by mmadv convert with --trust, which runs',
    ):
        convert_file(public, out, source_name='madry')
    with pytest.raises(UserError, match='holds code'):
        RobustPretrained(public, source='madry')(build_backbone('resnet18'))
    assert not (hostile / 'ran').exists()
    assert not out.exists()


@pytest.mark.parametrize('name', ['hostile.pt', 'legacy.pt'])
def test_trusted_code_runs_in_a_process_of_its_own(name, hostile, resnet18, monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')
    out = hostile / 'out.pth'
    convert_file(hostile / name, out, source_name='madry', trust=True)
    assert int((hostile / 'ran').read_text()) != os.getpid()
    written = torch.load(out, weights_only=True)
    assert torch.equal(written['state_dict']['layer4.1.bn2.weight'], resnet18.layer4[1].bn2.weight)
    assert 'absent_library' not in sys.modules


def test_trusted_garbage_is_one_sentence(tmp_path):
    content = {'hook': Payload(str(tmp_path / 'ran'))}
    torch.save(content, tmp_path / 'public.pt')
    with pytest.raises(UserError, match=r'did not unpickle \(ValueError: no tensor is under hook\)'):
        convert_file(tmp_path / 'public.pt', tmp_path / 'out.pth', source_name='madry', trust=True)


@pytest.fixture(scope='module')
def main():
    return lambda argv: run_main(['convert', *argv])


def test_command_line(main, save, tmp_path, resnet18, capsys):
    public, out = save(public_files.madry(resnet18)), tmp_path / 'out.pth'
    assert main([public, str(out), '--source', 'salman']) == 0
    printed = capsys.readouterr().out
    assert 'resnet18: 120 weights taken: 0 by name, 120 renamed' in printed
    assert 'renamed such as module.model.conv1.weight -> conv1.weight' in printed
    assert 'dropped (classifier head): module.model.fc.weight, module.model.fc.bias' in printed
    assert "input convention: 'imagenet', by the normalizer" in printed
    content = torch.load(out, weights_only=True)
    record = content['meta']['mmadv']
    assert (record['source'], record['architecture'], record['input_convention']) == ('salman', 'resnet18', 'imagenet')
    assert len(record['sha256']) == 64
    assert main([str(out), str(tmp_path / 'again.pth'), '--source', 'salman']) == 2
    assert 'is a converted checkpoint already' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['absent.pt', 'OUT', '--source', 'salman'], 'the checkpoint absent.pt does not exist'),
        (['IN', 'OUT', '--source', 'slaman'], "unknown checkpoint source 'slaman'; did you mean 'salman'?"),
        (['IN', 'OUT'], 'the following arguments are required: --source'),
        (['IN', 'IN', '--source', 'torchvision'], 'is the input; give another file'),
        (['IN', 'FOLDER/OUT', '--source', 'torchvision'], 'no/out does not exist; create it'),
        (['IN', 'OUT', '--source', 'torchvision', '--architecture', 'resnet5'], "unknown architecture 'resnet5'"),
        (
            ['IN', 'OUT', '--source', 'revisiting-at'],
            "is not a file of the source 'revisiting-at': its keys and sizes are those of the source 'timm' or",
        ),
        (['IN', 'OUT', '--source', 'timm', '--input-convention', 'unti'], "did you mean 'unit'?"),
        (['SHORT', 'OUT', '--source', 'torchvision'], 'was cut short'),
    ],
)
def test_command_line_mistakes_are_one_sentence(arguments, message, main, save, tmp_path, resnet18, capsys):
    public = save(resnet18.state_dict())
    short = tmp_path / 'short.pt'
    short.write_bytes(Path(public).read_bytes()[:20_000_000])
    places = {
        'IN': public,
        'OUT': str(tmp_path / 'out.pth'),
        'SHORT': str(short),
        'FOLDER/OUT': str(tmp_path / 'no' / 'out'),
    }
    assert main([places.get(word, word) for word in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert error.count('\n') == 1
    assert message in error
    assert sorted(os.listdir(tmp_path)) == ['public.pt', 'short.pt']


def test_output_is_whole_or_absent(main, save, tmp_path, resnet18, monkeypatch, capsys):
    public, out = save(resnet18.state_dict()), tmp_path / 'out.pth'
    out.write_bytes(b'older')

    def fail(content, file):
        file.write(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(torch, 'save', fail)
    assert main([public, str(out), '--source', 'torchvision']) == 2
    assert 'cannot write' in capsys.readouterr().err
    assert out.read_bytes() == b'older'
    assert sorted(os.listdir(tmp_path)) == ['out.pth', 'public.pt']


def test_architectures_are_found_by_name_on_the_command_line():
    assert {'convnext_t_convstem', 'vit_s', 'resnet50', 'resnetv2_50'} <= set(ARCHITECTURES)
