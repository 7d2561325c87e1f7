"""The weights that a command evaluates: from a checkpoint, or from the model of the config itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from mmadv.checkpoints.loading import file_sha256
from mmadv.errors import UserError
from mmadv.models.segmentors.imported_segmentor import own_weights
from mmadv.report.run import CheckpointFile


def weights_of(file: str, checkpoint: str | None, config: Mapping[str, Any]) -> CheckpointFile:
    """Returns the name of the weights and their SHA-256; of several files, the SHA-256 of their joined checksums.

    Args:
        file: path of the config.
        checkpoint: path of the checkpoint; None for the weights that the model brings.
        config: config of the model.

    Raises:
        UserError: there is no checkpoint, and the model has no weights of its own.
    """
    if checkpoint is not None:
        return CheckpointFile(checkpoint, file_sha256(checkpoint))
    found = own_weights(config['model'])
    if found is None:
        raise UserError(
            f'config {file}: give a checkpoint after the config; only models of Hugging Face and '
            'torchvision bring their weights along'
        )
    name, files = found
    sums = [file_sha256(file) for file in files]
    return CheckpointFile(name, sums[0] if len(sums) == 1 else hashlib.sha256(''.join(sums).encode()).hexdigest())
