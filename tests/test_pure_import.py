"""The pure folders work without the OpenMMLab packages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mmadv

BLOCK = '''
import sys

class Refuse:
    """Import hook that refuses the OpenMMLab packages, or says that there are none."""

    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {'mmengine', 'mmcv', 'mmseg', 'mmdet', 'mmpretrain'}:
            raise ModuleNotFoundError(f'{name} is blocked', name=name)

sys.meta_path.insert(0, Refuse())
'''
# What find_spec answers where a package is not installed: nothing, instead of an error.
ABSENT = """
import sys
for name in ('mmengine', 'mmcv', 'mmseg', 'mmdet', 'mmpretrain'):
    sys.modules[name] = None
"""
USE = """
import torch
import mmadv, mmadv.checkpoints, mmadv.reproduction.pag_toy, mmadv.robustness, mmadv.synthesis
from mmadv.attacks import sea

model = torch.nn.Conv2d(3, 4, 3, padding=1)
images, labels = torch.rand(1, 3, 8, 8), torch.randint(0, 4, (1, 8, 8))
result = sea(radius='1/255', iterations=10)(model, images, labels, ignore_index=255)
print(sorted(result.members), bool((result.images - images).abs().max() <= 1 / 255 + 1e-6))
print([name for name, module in sys.modules.items() if module and name.startswith(('mmengine', 'mmcv', 'mmseg'))])
"""


@pytest.mark.parametrize('block', [BLOCK, ABSENT], ids=['refused', 'absent'])
def test_attacks_run_without_openmmlab(block, tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(f'import sys\nsys.path.insert(0, {str(Path(mmadv.__file__).parents[1])!r})\n{block}{USE}')
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "['balanced_ce', 'js', 'masked_ce', 'masked_spherical'] True"
    assert lines[1] == '[]'
