"""The code, versions and hardware that produced a result."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import subprocess
from pathlib import Path

import mmcv
import mmengine
import mmseg
import numpy as np
import torch
from mmengine.dist import get_world_size

import mmadv
from mmadv.report.run import NOT_DECISIVE

PACKAGE = Path(mmadv.__file__).parent

CHANGED = ' and changes'


def versions() -> dict[str, str]:
    """Returns the versions of Python, of the packages that decide numbers, and of mmadv's own code.

    ``mmadv_code`` is a checksum of the package's files. ``mmadv_commit`` is present if the package lies in its git
    checkout. It ends in ' and changes' if a file of the package differs from that commit.
    """
    commit = code_commit(PACKAGE)
    installed = {
        'mmadv': mmadv.__version__,
        'mmadv_code': code_checksum(PACKAGE),
        **({'mmadv_commit': commit} if commit else {}),
        'python': platform.python_version(),
        'torch': torch.__version__,
        'mmengine': mmengine.__version__,
        'mmcv': mmcv.__version__,
        'mmseg': mmseg.__version__,
        'numpy': np.__version__,
    }
    if torch.cuda.is_available():
        installed['cuda'] = str(torch.version.cuda)
        installed['cudnn'] = str(torch.backends.cudnn.version())
    return installed


def decisive_versions() -> dict[str, str]:
    """Returns the versions that must stay the same when a run is resumed."""
    return {name: version for name, version in versions().items() if name not in NOT_DECISIVE}


@functools.cache
def code_checksum(package: Path) -> str:
    """Returns 16 hexadecimal digits of BLAKE2b over the names and contents of a package's Python files."""
    digest = hashlib.blake2b(digest_size=8)
    files = {path.relative_to(package).as_posix(): path for path in package.rglob('*.py')}
    for name in sorted(files):
        digest.update(hashlib.blake2b(name.encode()).digest())
        digest.update(hashlib.blake2b(files[name].read_bytes()).digest())
    return digest.hexdigest()


@functools.cache
def code_commit(package: Path) -> str | None:
    """Returns the git commit of a package; None if no git checkout tracks the package."""

    def git(*words: str) -> str | None:
        command = ['git', '-C', str(package), *words]
        try:
            finished = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        except OSError:  # no git on this machine
            return None
        return None if finished.returncode else finished.stdout.strip()

    # An environment can lie inside the checkout of another project, which does not track the installed package.
    if git('ls-files', '--error-unmatch', '__init__.py') is None:
        return None
    commit, changes = git('rev-parse', 'HEAD'), git('status', '--porcelain', '--', '.')
    return f'{commit}{CHANGED}' if commit and changes else commit


def hardware() -> dict[str, str | int | list[str]]:
    """Returns the processor, the accelerators and the number of processes."""
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
