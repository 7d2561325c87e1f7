"""Trains and attacks an mmseg model by the command line's functions: python examples/evaluate_an_mmseg_model.py.

The script writes a config as your own project would, and reads the results as a program would.
"""

import argparse
import json
from pathlib import Path

from mmadv.commands.main import main as mmadv

CONFIG = """
_base_ = [__import__('mmadv').cfg('demo/pspnet_clean_digits.py')]
custom_imports = dict(imports=['mmadv'], allow_failed_imports=False)
train_cfg = dict(max_iters={iterations}, val_interval={iterations})
"""


def main() -> None:
    """Writes work folder/config.py, trains it, attacks it with PGD, and prints mIoU with and without attack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path, help='work folder; the script creates it')
    parser.add_argument('--iterations', type=int, default=200, help='training iterations (default: 200)')
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    config = arguments.folder / 'config.py'
    config.write_text(CONFIG.format(iterations=arguments.iterations), encoding='utf-8')
    checkpoint = arguments.folder / 'training' / f'iter_{arguments.iterations}.pth'
    out = arguments.folder / 'pgd'
    commands = [
        ['train', str(config), '--work-dir', str(checkpoint.parent)],
        ['test', str(config), str(checkpoint), '--attack', 'pgd', '--eps', '4/255', '--iterations', '10',
         '--limit', '8', '--batch-size', '8', '--out', str(out)],
    ]  # fmt: skip
    for command in commands:
        status = mmadv(command)
        if status:
            raise SystemExit(status)
    evaluation = json.loads((out / 'results.json').read_text(encoding='utf-8'))['evaluation']
    print(f'mIoU without attack {100 * evaluation["clean"]["mIoU"]:.1f} %')
    for radius, attacked in evaluation['attacked'].items():
        print(f'mIoU under PGD at {radius} {100 * attacked["worst_case"]["mIoU"]:.1f} %')


if __name__ == '__main__':
    main()
