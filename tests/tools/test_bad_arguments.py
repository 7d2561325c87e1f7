"""Mistakes in arguments, configs and checkpoints: one sentence on stderr, exit status 2, nothing written."""

import pickle
from pathlib import Path

import cv2
import pytest
import torch
from forks import run_script
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from refusals import attacked, configure, refused

from mmadv.commands.command_line import TRACEBACK_VARIABLE

TOOLS = Path(__file__).parents[2] / 'tools'


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (['no.py', 'trained.pth', '--attack', 'none'], 'config no.py does not exist'),
        (['config.py', 'no.pth', '--attack', 'none'], 'the checkpoint no.pth does not exist'),
        (['config.py', 'trained.pth'], 'required: --attack; see --help'),
        (attacked(attack='pdg'), "unknown attack 'pdg'; did you mean 'pgd'?"),
        (attacked(attack='sea_ecv'), "unknown attack 'sea_ecv'; did you mean 'sea-eccv'?"),
        (attacked(attack='no.py'), 'attack config no.py does not exist'),
        (attacked(eps=()), '--attack pgd needs --eps'),
        (attacked(eps=['-4/255']), "'-4/255' is negative"),
        (attacked(eps=['0']), '--eps 0 leaves the attack nothing to change'),
        (attacked(eps=['4/0']), "--eps '4/0' divides by zero"),
        (attacked(eps=['large']), "--eps 'large' is not a number"),
        (attacked(eps=['nan']), "--eps 'nan' is not"),
        (attacked(eps=['4/255', '4/255']), 'a radius is given twice'),
        (attacked(attack='fgsm'), 'FGSM takes one step'),
        (attacked(attack='none'), '--attack none takes neither --eps nor --iterations nor --check'),
        (attacked(iterations=0), "--iterations must be an integer in [1, 1000000000]; found '0'"),
        (attacked('--limit', '0'), "--limit must be an integer in [1, 1000000000]; found '0'"),
        (attacked('--batch-size', '-1'), "'-1' is negative"),
        (attacked('--cfg-options', 'model'), '--cfg-options takes key=value'),
        (attacked('--cfg-options', 'model.no_such.0.x=1', 'custom_imports.imports.7=x'), '--cfg-options does not fit'),
        (attacked('--launcher', 'rocket'), "invalid choice: 'rocket'"),
        (attacked('--cfg-options', 'model.type=EncodrDecoder'), "the config names the type 'EncodrDecoder'"),
    ],
)
def test_arguments(attack_tool, project, capsys, argv, message):
    assert message in refused(attack_tool, argv, project, capsys)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('attack = dict(type="PGD", threat=dict(type="Linff", radius=1), steps=1)', "did you mean 'Linf'"),
        (
            'attack = dict(type="APGD", threat=dict(type="Linf", radius=1), objective=dict(type="MaskedCrossEntrop"))',
            "did you mean 'MaskedCrossEntropy'",
        ),
        ('attack = dict(type="sea", radius=1, preset="papper")', "unknown SEA preset 'papper'; did you mean 'paper'"),
        ('attack = dict(type="sea", radius="-4/255")', "'-4/255' is negative"),
        ('attack = dict(type="sea", radius=0)', 'radius 0 leaves an attack nothing to change'),
        ('attack = dict(type="Linf", radius="4/255")', "unknown attack 'Linf'"),
        ('atack = dict()', "defines no 'attack'"),
    ],
)
def test_attack_files(attack_tool, project, capsys, text, message):
    (project / 'attack.py').write_text(text)
    assert message in refused(attack_tool, attacked(attack='attack.py', iterations=None), project, capsys)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('model = dict(type="EncoderDecoder", backbone=dict(', 'is not valid Python, line 1'),
        ('model = dict(type=undefined_name)', 'NameError'),
        ('raise SystemExit(0)', 'cannot be loaded: SystemExit'),
        ("_base_ = ['./no_base.py']", 'no_base.py'),
        ("_base_ = ['mmseg::no/such.py']", 'cannot be loaded'),
        ('model = dict(type="EncoderDecoder")', "has no 'test_dataloader'; is it cut short"),
        ("custom_imports = dict(imports=['no_such_module'])", 'no_such_module'),
    ],
)
@pytest.mark.parametrize('tool', ['test', 'train'])
def test_configs(attack_tool, train_tool, project, capsys, text, message, tool):
    (project / 'config.py').write_text(text)
    if tool == 'test':
        assert message in refused(attack_tool, attacked(), project, capsys)
    else:
        message = message.replace('test_dataloader', 'train_dataloader')
        assert message in refused(train_tool, ['config.py', '--work-dir', 'work'], project, capsys)


class Payload:
    """Creates a file when unpickled."""

    def __reduce__(self):
        return (open, ('ran', 'w'))


@pytest.mark.parametrize('tool', ['test', 'train'])
def test_checkpoint_that_holds_code_is_refused_and_never_run(attack_tool, train_tool, project, capsys, tool):
    torch.save({'state_dict': Payload()}, project / 'trained.pth')
    argv = attacked() if tool == 'test' else ['config.py', '--work-dir', 'work', '--resume', 'trained.pth']
    sentence = refused(attack_tool if tool == 'test' else train_tool, argv, project, capsys)
    assert 'holds code' in sentence
    assert not (project / 'ran').exists()


def test_other_checkpoints(attack_tool, train_tool, project, capsys):
    whole = (project / 'trained.pth').read_bytes()
    (project / 'trained.pth').write_bytes(whole[: len(whole) // 2])
    assert 'cut short' in refused(attack_tool, attacked(), project, capsys)
    argv = ['config.py', '--work-dir', 'work', '--resume', 'trained.pth']
    assert 'cut short' in refused(train_tool, argv, project, capsys)
    (project / 'trained.pth').write_bytes(pickle.dumps([1, 2]))
    assert 'trained.pth' in refused(attack_tool, attacked(), project, capsys)
    (project / 'trained.pth').write_bytes(whole)
    options = ['--cfg-options', 'model.decode_head.channels=8']
    assert 'do not fit EncoderDecoder' in refused(attack_tool, attacked(*options), project, capsys)
    assert 'do not fit EncoderDecoder' in refused(train_tool, [*argv, *options], project, capsys)
    assert 'no.pth does not exist' in refused(train_tool, [*argv[:-1], 'no.pth'], project, capsys)


def test_output_folder_that_cannot_be_written(attack_tool, train_tool, project, capsys):
    (project / 'file').write_text('')
    argv = ['config.py', 'trained.pth', '--attack', 'none', '--out']
    assert 'file is a file' in refused(attack_tool, [*argv, 'file'], project, capsys)
    assert 'cannot be written' in refused(attack_tool, [*argv, 'file/out'], project, capsys)
    assert 'cannot be written' in refused(attack_tool, [*argv, '/proc/out'], project, capsys)
    assert 'cannot be written' in refused(train_tool, ['config.py', '--work-dir', '/proc/out'], project, capsys)


def test_train_arguments(train_tool, project, capsys):
    options = ['--cfg-options', 'optim_wrapper.type=AmpOptimWrapperX']
    sentence = refused(train_tool, ['config.py', '--amp', *options], project, capsys)
    assert '--amp needs optim_wrapper.type OptimWrapper; found AmpOptimWrapperX' in sentence
    configure(project, "model['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint='no_backbone.pth')\n")
    assert 'no_backbone.pth, which the model starts from, does not exist' in refused(
        train_tool, ['config.py'], project, capsys
    )
    configure(project, "model['data_preprocessor'].update(type='AdvSegDataPreProcessor', attack=dict(type='PDG'))\n")
    assert "unknown attack 'PDG'; did you mean 'PGD'?" in refused(train_tool, ['config.py'], project, capsys)


@MODELS.register_module()
class FrozenEncoderDecoder(EncoderDecoder):
    """A segmentor whose parameters are all frozen."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.requires_grad_(False)


FREE = "dict(type='FreeAdvSegDataPreProcessor', radius='4/255')"
PGD = "dict(type='PGD', threat=dict(type='Linf', radius='4/255'), steps=0)"


@pytest.mark.parametrize(
    ('extra', 'message'),
    [
        (
            "model['type'] = 'FrozenEncoderDecoder'",
            'every parameter of the model is frozen, so there is nothing to train',
        ),
        ("model['type'] = 'TRADESEncoderDecoder'", 'TRADESEncoderDecoder needs a data_preprocessor of type AdvSegData'),
        (f"model['data_preprocessor'].update({FREE})", "set train_cfg.type='FreeTrainLoop'"),
        ("train_cfg = dict(type='FreeTrainLoop', max_iters=2)", 'of type FreeAdvSegDataPreProcessor; found SegData'),
        (
            "train_cfg = dict(type='FreeTrainLoop', max_iters=2, replays=0)",
            'replays must be a positive integer; found 0',
        ),
        ("val_cfg = dict(type='AttackValLoop')", 'val_cfg has no attack'),
        (f"val_cfg = dict(type='AttackValLoop', attack={PGD})", 'steps must be a positive integer; found 0'),
        (
            f"custom_hooks = [dict(type='CatastrophicOverfittingHook', attack={PGD})]",
            'steps must be a positive integer; found 0',
        ),
    ],
)
def test_methods_that_contradict_themselves(train_tool, project, capsys, extra, message):
    configure(project, extra + '\n')
    assert message in refused(train_tool, ['config.py', '--work-dir', 'work'], project, capsys)


def test_as_processes(project):
    for words, message in (
        (['test.py', 'no.py', 'trained.pth', '--attack', 'none'], 'error: config no.py does not exist'),
        (['train.py', 'no.py'], 'error: config no.py does not exist'),
    ):
        printed = run_script(TOOLS / words[0], project, *words[1:], status=2)
        assert printed.strip().splitlines()[-1].startswith(message)


def test_traceback_on_request(attack_tool, project, capsys, monkeypatch):
    monkeypatch.setenv(TRACEBACK_VARIABLE, '1')
    assert attack_tool(['no.py', 'trained.pth', '--attack', 'none']) == 2
    errors = capsys.readouterr().err
    assert 'Traceback' in errors and errors.rstrip().splitlines()[-1].startswith('error: config no.py')


def test_what_is_no_mistake_of_the_user_raises(attack_tool, project, monkeypatch):
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        attack_tool(attacked(attack='none', eps=(), iterations=None))
