"""``mmadv test`` of models of torchvision and Hugging Face, which bring their weights and their preprocessing along."""

import json

import pytest
import torch
from refusals import configure, refused
from torchvision.models import get_model

from mmadv.checkpoints.loading import file_sha256

NAME = 'lraspp_mobilenet_v3_large'
TORCHVISION = f"""
model = dict(type='TorchvisionSegmentor', model='{NAME}', weights='weights.pth', names=metainfo['classes'], size=32)
"""
HUGGING_FACE = "\nmodel = dict(type='HuggingFaceSegmentor', pretrained='segformer')\n"
ARGUMENTS = ['config.py', '--attack', 'pgd', '--eps', '16/255', '--iterations', '2', '--limit', '2', '--out', 'out']
CERTIFY = ['config.py', '--sigma', '0.1', '--n0', '2', '--n', '60', '--limit', '1', '--out', 'certified']


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('torchvision') / 'weights.pth'
    torch.save(get_model(NAME, weights=None, weights_backbone=None, num_classes=3).state_dict(), path)
    return path


@pytest.fixture
def torchvision_project(project, weights):
    (project / 'weights.pth').write_bytes(weights.read_bytes())
    configure(project, TORCHVISION)
    return project


def test_torchvision_model(torchvision_project, attack_tool):
    assert attack_tool(ARGUMENTS) == 0
    results = json.loads((torchvision_project / 'out' / 'results.json').read_text())
    assert results['checkpoint'] == {'file': 'weights.pth', 'sha256': file_sha256('weights.pth')}
    assert results['evaluation']['classes'] == ['ground', 'box', 'disc']


def test_torchvision_model_is_certified(torchvision_project, certify_tool):
    assert certify_tool(CERTIFY) == 0
    results = json.loads((torchvision_project / 'certified' / 'results.json').read_text())
    assert results['checkpoint'] == {'file': 'weights.pth', 'sha256': file_sha256('weights.pth')}


def test_torchvision_model_is_the_source_of_a_transfer_attack(torchvision_project, attack_tool):
    assert attack_tool(ARGUMENTS) == 0
    white_box = json.loads((torchvision_project / 'out' / 'results.json').read_text())
    assert attack_tool([*ARGUMENTS[:-1], 'transferred', '--source', 'config.py']) == 0
    results = json.loads((torchvision_project / 'transferred' / 'results.json').read_text())
    assert results['source'] == {'config': 'config.py', 'checkpoint': None, 'sha256': file_sha256('weights.pth')}
    # The source is the evaluated model, so that the attack is that of the white box.
    assert (
        results['evaluation']['attacked']['16/255']['worst_case']
        == white_box['evaluation']['attacked']['16/255']['worst_case']
    )


def test_torchvision_model_paints(torchvision_project, synthesize_tool):
    short = ['--steps', '2', '--out', 'out']
    assert synthesize_tool(['generate', 'config.py', '0', '2', '--model', 'config.py', '0.1', *short]) == 0
    results = json.loads((torchvision_project / 'out' / 'synthesis.json').read_text())
    assert results['images'] == ['0.png', '2.png']
    assert [model['checkpoint'] for model in results['models']] == ['weights.pth', 'weights.pth']
    assert [model['sha256'] for model in results['models']] == [file_sha256('weights.pth')] * 2
    assert [model['sigma'] for model in results['models']] == [None, 0.1]


@pytest.mark.parametrize('name', ['attack', 'certify'])
def test_stock_model_needs_a_checkpoint(name, project, request, capsys):
    arguments = {'attack': ARGUMENTS, 'certify': CERTIFY}[name]
    said = refused(request.getfixturevalue(f'{name}_tool'), arguments, project, capsys)
    assert 'config config.py: give a checkpoint after the config; only models of Hugging Face and torchvision' in said


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ("model['names'] = None", 'the weights in weights.pth do not fit LRASPP: 4 of another size'),
        ("model['weights'] = 'nowhere.pth'", "there is no file 'nowhere.pth'"),
        ("model['model'] = 'lrasp'", "torchvision has no segmentation model 'lrasp'"),
        (
            "model['names'] = ['box', 'ground', 'disc']",
            "LRASPP has the data set's classes in another order, box",
        ),
        ("model['names'] = ['box', 'ground']\nmodel['weights'] = None", 'give a checkpoint after the config'),
    ],
)
def test_says_what_is_wrong(torchvision_project, attack_tool, capsys, change, message):
    configure(torchvision_project, TORCHVISION + change + '\n')
    assert message in refused(attack_tool, ARGUMENTS, torchvision_project, capsys)


def test_hugging_face_model(project, attack_tool, capsys):
    transformers = pytest.importorskip('transformers')
    names = {0: 'ground', 1: 'box', 2: 'ball'}
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 8, 16, 16],
        depths=[1] * 4,
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=8,
        id2label=names,
    )
    transformers.SegformerForSemanticSegmentation(config).save_pretrained('segformer')
    transformers.SegformerImageProcessor(size=dict(height=32, width=32)).save_pretrained('segformer')
    configure(project, HUGGING_FACE)
    assert attack_tool(ARGUMENTS) == 0
    results = json.loads((project / 'out' / 'results.json').read_text())
    assert results['checkpoint'] == {'file': 'segformer', 'sha256': file_sha256('segformer/model.safetensors')}
    (note,) = results['caveats']
    assert note.startswith('1 of 3 classes have other names in SegformerForSemanticSegmentation than in the data set')
    assert "class 2: 'ball' and 'disc'" in note

    configure(project, HUGGING_FACE + "model['classes'] = metainfo['classes']\n")
    said = refused(attack_tool, [*ARGUMENTS[:-1], 'other'], project, capsys)
    assert "model.classes: SegformerForSemanticSegmentation has no class 'disc'" in said
    del names[2]
    change = json.loads((project / 'segformer' / 'preprocessor_config.json').read_text())
    (project / 'segformer' / 'preprocessor_config.json').write_text(json.dumps({**change, 'image_mean': None}))
    configure(project, HUGGING_FACE)
    said = refused(attack_tool, [*ARGUMENTS[:-1], 'other'], project, capsys)
    assert 'the processor of segformer normalises images, but its image_mean is None' in said
