"""Checkpoints are read as data: code in them is refused and not run."""

import collections
import hashlib
import os
import pickle
import re
import zipfile

import numpy as np
import pytest
import torch
from forks import run_script
from torch import nn

from mmadv.checkpoints import file_sha256, load_checkpoint_file, load_weights, use_safe_loading
from mmadv.checkpoints.loading import matched_weights
from mmadv.errors import UserError


class Payload:
    """Unpickles by running a command that leaves a file behind."""

    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return os.system, (f'touch {self.victim}',)


class GetattrPayload:
    """Reaches code through getattr alone, which mmengine's own allow-list holds."""

    def __reduce__(self):
        return getattr, (np.ndarray, 'tofile')


def save_with(tmp_path, content, **options):
    path = tmp_path / 'checkpoint.pth'
    torch.save(content, path, **options)
    return path


def network():
    return nn.Sequential(collections.OrderedDict(conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4)))


@pytest.mark.parametrize('zipped', [True, False])
def test_code_is_refused_and_not_run(tmp_path, zipped):
    victim = tmp_path / 'victim'
    path = save_with(tmp_path, {'state_dict': {}, 'x': Payload(victim)}, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r'holds code \(posix.system\) instead of weights'):
        load_checkpoint_file(path)
    with pytest.raises(UserError, match='holds code'):
        load_weights(network(), path)
    assert not victim.exists()


@pytest.mark.filterwarnings('ignore:.torch.load. received a zip file that looks like a TorchScript:UserWarning')
# PyTorch says that TorchScript is deprecated, and that such a file looks like one.
@pytest.mark.filterwarnings('ignore')
def test_plain_pickles_and_getattr_and_torchscript_are_refused(tmp_path):
    victim, path = tmp_path / 'victim', tmp_path / 'checkpoint.pth'
    path.write_bytes(pickle.dumps(Payload(victim), protocol=2))
    with pytest.raises(UserError, match='holds code|is not a checkpoint'):
        load_checkpoint_file(path)
    assert not victim.exists()
    with pytest.raises(UserError, match=r'holds code \(getattr\)'):
        load_checkpoint_file(save_with(tmp_path, {'x': GetattrPayload()}))
    torch.jit.script(nn.ReLU()).save(path)
    with pytest.raises(UserError, match=r'holds code \(TorchScript\)'):
        load_checkpoint_file(path)


def test_whole_modules_are_refused(tmp_path):
    with pytest.raises(UserError, match=r'holds code \(torch.nn.modules.container.Sequential\)'):
        load_checkpoint_file(save_with(tmp_path, network()))


def test_damaged_files(tmp_path):
    path = save_with(tmp_path, {'state_dict': network().state_dict()})
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:10], b'', b'model = dict()\n', b'\x80\x02}q\x00.'):
        path.write_bytes(content)
        with pytest.raises(UserError, match='checkpoint.pth is not a checkpoint, or was cut short'):
            load_checkpoint_file(path)
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('something', 'else')
    with pytest.raises(UserError, match='is not a checkpoint, or was cut short'):
        load_checkpoint_file(path)
    with pytest.raises(UserError, match='missing.pth does not exist'):
        load_checkpoint_file(tmp_path / 'missing.pth')
    with pytest.raises(UserError, match='is a folder'):
        load_checkpoint_file(tmp_path)
    with pytest.raises(UserError, match='holds a Tensor, not a dict'):
        load_checkpoint_file(save_with(tmp_path, torch.zeros(3)))


def test_hash(tmp_path):
    path = tmp_path / 'file'
    path.write_bytes(b'abc' * 1000000)
    assert file_sha256(path) == hashlib.sha256(b'abc' * 1000000).hexdigest()


@pytest.mark.parametrize(
    'wrap', [lambda state: state, lambda state: {'state_dict': state, 'meta': {'epoch': np.float64(3)}}]
)
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_weights_load(tmp_path, wrap, prefix):
    source, target = network(), network()
    nn.init.normal_(source.conv.weight)
    state = {prefix + key: value for key, value in source.state_dict().items() if 'num_batches' not in key}
    load_weights(target, save_with(tmp_path, wrap(state)))
    assert torch.equal(target.conv.weight, source.conv.weight)


def test_weights_that_do_not_fit_are_named(tmp_path):
    state = network().state_dict()
    renamed = {key.replace('conv', 'convolution'): value for key, value in state.items()}
    message = r'2 missing, first conv.weight; 2 not in the model, first convolution.weight; use the config'
    with pytest.raises(UserError, match=re.escape(message)):
        load_weights(network(), save_with(tmp_path, renamed))
    resized = {**state, 'conv.bias': torch.zeros(7)}
    model = network()
    before = model.conv.weight.clone()
    with pytest.raises(
        UserError, match=r'do not fit Sequential: 1 of another size, first conv.bias: \(7,\) in the file, \(4,\)'
    ):
        load_weights(model, save_with(tmp_path, resized))
    assert torch.equal(model.conv.weight, before)
    with pytest.raises(UserError, match='holds no weights'):
        load_weights(network(), save_with(tmp_path, {'meta': {}}))


# mmengine is patched for the whole process, so what follows runs in processes of its own.
PRELUDE = """
import logging, os, sys
import torch
from torch import nn
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint
from mmadv.checkpoints import use_safe_loading
from mmadv.errors import UserError

class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)
    def forward(self, inputs, data_samples=None, mode='tensor'):
        return dict(loss=self.conv(torch.stack(inputs)).mean())

def runner(work_dir, iterations, **options):
    data = [dict(inputs=torch.ones(1, 2, 2) * i) for i in range(4)]
    return Runner(
        Model(), work_dir=work_dir, train_cfg=dict(by_epoch=False, max_iters=iterations), log_level='ERROR',
        train_dataloader=dict(
            batch_size=2, dataset=data, sampler=dict(type='InfiniteSampler'), collate_fn=dict(type='pseudo_collate')),
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=0.1)), param_scheduler=dict(type='ConstantLR'),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=2, by_epoch=False)),
        custom_hooks=[dict(type='EMAHook')],
        experiment_name=f'run{iterations}', cfg=dict(marker='x = 1'), **options)
"""


def run_python(tmp_path, body):
    script = tmp_path / 'script.py'
    script.write_text(PRELUDE + body)
    return run_script(script, tmp_path)


def test_mmengine_refuses_code_however_it_loads(tmp_path):
    for name, payload in (('code', Payload(tmp_path / 'victim')), ('getattr', GetattrPayload())):
        torch.save({'state_dict': Model().state_dict(), 'meta': {}, 'x': payload}, tmp_path / f'{name}.pth')
    out = run_python(
        tmp_path,
        """
from pathlib import Path
from mmengine.model import PretrainedInit
use_safe_loading()
here = Path.cwd()
for name in ('code', 'getattr'):
    for load in (
        lambda: load_checkpoint(Model(), f'{name}.pth'),
        lambda: CheckpointLoader.load_checkpoint(f'{name}.pth', map_location='cpu'),
        lambda: CheckpointLoader.load_checkpoint(str(here / f'{name}.pth'), map_location='cpu'),
        lambda: PretrainedInit(f'{name}.pth')(Model()),
        lambda: runner('b', 1, load_from=f'{name}.pth').train(),
        lambda: runner('c', 1, load_from=f'{name}.pth', resume=True).train(),
        lambda: torch.load(f'{name}.pth', weights_only=False),
    ):
        try:
            load()
        except UserError as error:
            print('refused', 'holds code' in str(error))
        except Exception as error:
            print('refused', type(error).__name__ == 'UnpicklingError')
        else:
            print('LOADED')
""",
    )
    assert out.count('refused True') == 14, out
    assert 'LOADED' not in out
    assert not (tmp_path / 'victim').exists()


def test_own_files_resume_and_the_config_in_them_is_not_evaluated(tmp_path):
    victim = tmp_path / 'victim'
    out = run_python(
        tmp_path,
        f"""
from mmadv.checkpoints import load_checkpoint_file
runner('a', 2).train()
content = load_checkpoint_file('a/iter_2.pth')
print(sorted(content), content['meta']['iter'])
content = torch.load('a/iter_2.pth', weights_only=False)
code = "open({str(victim)!r}, 'w').close()"
content['meta']['config'] = content['meta']['cfg'] = content['message_hub']['runtime_info']['cfg'] = code
torch.save(content, 'evil.pth')
use_safe_loading()
use_safe_loading()
loaded = CheckpointLoader.load_checkpoint('evil.pth', map_location='cpu')
print('config' in loaded['meta'], 'cfg' in loaded['meta'], 'cfg' in loaded['message_hub']['runtime_info'])
for path in ('a/iter_2.pth', 'evil.pth'):
    resumed = runner(path[0], 4, load_from=path, resume=True)
    resumed.train()
    print(path, 'resumed to', resumed.iter, len(resumed.message_hub.get_scalar('train/loss').data[0]))
""",
    )
    assert "['ema_state_dict', 'message_hub', 'meta', 'optimizer', 'param_schedulers', 'state_dict'] 2" in out
    assert 'False False False' in out
    assert 'a/iter_2.pth resumed to 4 4' in out and 'evil.pth resumed to 4 4' in out
    assert not victim.exists()


def test_urls_load_as_weights_only(tmp_path):
    torch.save({'state_dict': Model().state_dict(), 'meta': {}}, tmp_path / 'good.pth')
    torch.save({'x': Payload(tmp_path / 'victim')}, tmp_path / 'code.pth')
    out = run_python(
        tmp_path,
        """
import functools, http.server, threading
os.environ['TORCH_HOME'] = 'hub'
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory='.')
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
use_safe_loading()
url = f'http://127.0.0.1:{server.server_port}/'
print(sorted(load_checkpoint(Model(), url + 'good.pth')))
try:
    load_checkpoint(Model(), url + 'code.pth')
except UserError as error:
    print(error)
""",
    )
    assert "['meta', 'state_dict']" in out
    assert 'code.pth holds code (posix.system)' in out
    assert not (tmp_path / 'victim').exists()


def test_contradicting_environment(monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    with pytest.raises(UserError, match='TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set'):
        use_safe_loading()


class Model(nn.Module):
    """Stands for the model of the scripts, to write its weights."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)


def test_share_of_matched_weights_decides_whether_a_load_that_takes_what_fits_may_start():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))  # 8 weights, and a counter
    state = model.state_dict()
    assert matched_weights(model, {'state_dict': state}, 'a.pth') == '8 of 8 weights of Sequential are in a.pth'
    half = {key: state[key] for key in ('0.weight', '0.bias', '1.weight', '1.bias')}
    expected = (
        '5 of 8 weights of Sequential are in a.pth; 2 missing, first 1.running_mean; 1 of another size, first 2.bias'
    )
    assert matched_weights(model, {**half, '2.weight': state['2.weight'], '2.bias': torch.ones(7)}, 'a.pth') == expected
    assert matched_weights(model, half, 'a.pth').startswith('4 of 8')
    prefixed = {f'net.{key}': value for key, value in state.items()}
    assert matched_weights(model, prefixed, 'a.pth', prefix='net').startswith('8 of 8')
    del half['0.bias']
    with pytest.raises(UserError, match='3 of 8 weights.*a key of the file is 0.weight; fewer than 50% fit'):
        matched_weights(model, half, 'a.pth')
    with pytest.raises(UserError, match='0 of 8 weights of Sequential are in a.pth; 8 missing, first 0.weight; a key'):
        matched_weights(model, prefixed, 'a.pth')


@pytest.mark.parametrize('share', [0.0, 0.01, 0.2, 0.5, 0.9, 0.999])
def test_file_cut_anywhere_is_told_as_such(tmp_path, share):
    """Some lengths make torch say no more than 'Invalid argument'."""
    torch.save({'state_dict': torch.nn.Conv2d(3, 64, 3).state_dict()}, tmp_path / 'whole.pth')
    whole = (tmp_path / 'whole.pth').read_bytes()
    for length in range(int(share * len(whole)), min(int(share * len(whole)) + 40, len(whole))):
        (tmp_path / 'cut.pth').write_bytes(whole[:length])
        for mmap in (False, True):
            with pytest.raises(UserError, match=r'cut.pth is not a checkpoint, or was cut short'):
                load_checkpoint_file(tmp_path / 'cut.pth', mmap=mmap)


@pytest.mark.parametrize(
    ('name', 'change', 'message'),
    [
        ('0.weight', lambda value: (value * 10).long(), 'holds 0.weight as int64, but the model has floating-point'),
        ('1.running_var', lambda value: value / 0, 'holds NaN or infinite values in 1.running_var'),
        ('1.running_mean', lambda value: value * float('nan'), 'holds NaN or infinite values in 1.running_mean'),
        ('1.running_var', lambda value: -value, 'holds a negative variance in 1.running_var'),
    ],
)
def test_weights_that_make_another_network(tmp_path, name, change, message):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    weights = model.state_dict()
    torch.save(weights, tmp_path / 'whole.pth')
    torch.save({**weights, name: change(weights[name])}, tmp_path / 'changed.pth')
    load_weights(model, tmp_path / 'whole.pth')
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UserError, match=message):
        load_weights(model, tmp_path / 'changed.pth')
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
