"""What a result was made with: versions and hardware."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import mmcv
import mmengine
import mmseg
import numpy as np
import torch
from mmengine.dist import get_world_size

import mmadv


def versions() -> dict[str, str]:
    """Returns the versions of Python and the packages that decide numbers."""
    found = {
        'mmadv': mmadv.__version__,
        'python': platform.python_version(),
        'torch': torch.__version__,
        'mmengine': mmengine.__version__,
        'mmcv': mmcv.__version__,
        'mmseg': mmseg.__version__,
        'numpy': np.__version__,
    }
    if torch.cuda.is_available():
        found['cuda'] = str(torch.version.cuda)
        found['cudnn'] = str(torch.backends.cudnn.version())
    return found


def hardware() -> dict[str, str | int | list[str]]:
    """Returns processor, accelerators and the number of processes."""
    return {
        'platform': platform.platform(),
        'processor': _processor(),
        'cores': os.cpu_count() or 0,
        'threads': torch.get_num_threads(),
        'accelerators': [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        'processes': get_world_size(),
    }


def _processor() -> str:
    information = Path('/proc/cpuinfo')
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    return platform.processor() or platform.machine()
