"""Writes the published weights of ESPNet as a checkpoint of configs/espnet_camvid.py.

    python projects/espnet/convert.py espnet_p_2_q_8.pth work_dirs/espnet/espnet_camvid.pth

Every key of the file must be one of ESPNet's, and every weight of the network must be in it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn

PROJECT = Path(__file__).resolve().parent
sys.path.insert(0, str(PROJECT))

from espnet_segmentor.published import from_published  # noqa: E402

from mmadv.checkpoints.contents import weights_of  # noqa: E402
from mmadv.checkpoints.loading import load_checkpoint_file, load_weights  # noqa: E402
from mmadv.errors import UserError  # noqa: E402
from mmadv.models.building import build_segmentor  # noqa: E402


def convert(published: Path, output: Path) -> nn.Module:
    """Returns the segmentor with the published weights, after writing them to ``output``.

    Raises:
        UserError: the file cannot be read, has a key that is not ESPNet's, or lacks a key; then nothing is written.
    """
    weights = from_published(weights_of(load_checkpoint_file(published), str(published)))
    segmentor = build_segmentor(Config.fromfile(PROJECT / 'configs/espnet_camvid.py'))
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(f'{output.name}.unfinished')
    torch.save({'state_dict': weights}, unfinished)
    try:
        load_weights(segmentor, unfinished)
        unfinished.replace(output)
    finally:
        unfinished.unlink(missing_ok=True)
    return segmentor


def main() -> None:
    """Converts as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('published', type=Path, help='the state dict that the authors published')
    parser.add_argument('output', type=Path, help='the checkpoint to write')
    arguments = parser.parse_args()
    try:
        segmentor = convert(arguments.published, arguments.output)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        raise SystemExit(2) from None
    count = sum(parameter.numel() for parameter in segmentor.parameters())
    print(f'{count} parameters written to {arguments.output}')


if __name__ == '__main__':
    main()
