"""Reads the weights of a pickled checkpoint that holds code, for a user who trusts its author."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mmadv.checkpoints import unpickle
from mmadv.checkpoints.loading import load_checkpoint_file
from mmadv.errors import UserError
from mmadv.files import check_regular
from mmadv.locks import temporary_folder


def load_trusted_file(path: str | Path) -> dict[str, Any]:
    """Returns the weights of a checkpoint; a separate process runs any code that the file holds.

    The separate process has the rights of the user. So call this function only if the user says that the file is
    trusted. The separate process does not change this process and returns only tensors. This process reads the
    tensors without running any code.

    Args:
        path: a file of ``torch.save``, pickled by pickle or dill.

    Raises:
        UserError: the file holds no weights, or does not unpickle.
    """
    check_regular(path, 'the checkpoint')
    with temporary_folder(tempfile.gettempdir(), 'mmadv-unpickled-') as folder:
        out = folder / 'weights.pth'
        command = [sys.executable, '-I', unpickle.__file__, str(Path(path).resolve()), str(out)]
        # The variables that make mmengine load safely in this process would forbid unpickling in the other process.
        environment = {name: value for name, value in os.environ.items() if 'WEIGHTS_ONLY_LOAD' not in name}
        finished = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if finished.returncode or not out.is_file():
            said = finished.stderr.strip().splitlines()
            raise UserError(
                f'{path} did not unpickle ({said[-1] if said else f"exit status {finished.returncode}"}); '
                'check that it is a checkpoint of a classifier'
            )
        return load_checkpoint_file(out)
