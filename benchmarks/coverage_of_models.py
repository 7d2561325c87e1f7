"""Attacks one model of every family among MMSegmentation's stock configs, at tiny size, and writes docs/coverage.md.

    python benchmarks/coverage_of_models.py --work-dir work_dirs/coverage

A family is a combination of segmentor, backbone, neck and heads. The script builds its smallest stock config unchanged,
with random weights, and attacks it on a picture of 64x64 pixels. The work folder keeps the result of each family, and
the packages that it was run on. An interrupted run can be resumed. If the process died during a family, that family is
not tried again.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import string
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import mmseg
import torch
from mmengine.config import Config
from mmseg.structures import SegDataSample
from mmseg.utils import register_all_modules
from torch import nn

from mmadv.attacks import PGD, CrossEntropy, Linf
from mmadv.errors import UserError
from mmadv.models.adapter import CAVEATS, SegmentorAdapter, caveats
from mmadv.models.building import build_segmentor
from mmadv.models.requirements import MissingPackageError, is_installed

ROOT = Path(__file__).parents[1]
SIZE = 64
# Of sliding windows; and the picture's size for heads that pool over more than 64 pixels.
CROP, STRIDE = 48, 16
LARGE = 392
# Number of parameters up to which the gradient is compared in float64.
DOUBLE_LIMIT = 100e6
TOLERANCE = {torch.float64: 1e-3, torch.float32: 5e-2}
STEP = {torch.float64: 1e-6, torch.float32: 1e-3}
# Words in the names of small variants, from the smallest on.
SMALL = ('mit-b0', 'r18', 'tiny', '-t_', 'small', '-s_', 'mscan-t', 'r50', 'w18', 's50', 'base', 'b0')


# Random weights, in the order in which they are tried. The first give larger gradients than a model's own. None stands
# for the model's own. Kaiming's suit depthwise convolutions, whose outputs vanish under the first.
WEIGHTS: tuple[Callable[[torch.Tensor], Any] | None, ...] = (
    partial(nn.init.xavier_normal_, gain=1.2),
    None,
    nn.init.kaiming_normal_,
)
# Columns of the table of runs -> the distributions whose versions they show.
PACKAGES = {
    'torch': 'torch',
    'mmengine': 'onedl-mmengine',
    'mmcv': 'onedl-mmcv',
    'mmdet': 'onedl-mmdetection',
    'mmpretrain': 'onedl-mmpretrain',
}

# The end of the page.
END = """
## Models that need other packages

| models | need |
|---|---|
| MaskFormer, Mask2Former | onedl-mmdetection (`pip install -e '.[mmdet]'`) and the compiled ops of mmcv |
| ConvNeXt, PoolFormer | onedl-mmpretrain (`pip install -e '.[mmpretrain]'`) |
| CCNet, PointRend, PSANet, SAN | the compiled ops of mmcv |

[Compiled ops of mmcv](installation.md#compiled-ops-of-mmcv) says how to compile them.
A command that gets such a model without its package says which one is missing. mmadv's own `TimmConvNeXt` needs no
mmpretrain. MaskFormer, Mask2Former and SAN are attacked on log-scores: see
[Evaluate an mmseg model](evaluation.md#which-models).

## Repeat it

```bash
pip install -e '.[mmdet,mmpretrain]'
python benchmarks/coverage_of_models.py --work-dir work_dirs/coverage
```

Compile mmcv's ops between the two. Delete the work folder to run every family again.
"""


def stock_configs() -> list[Path]:
    """Returns one stock config for each model name, without those that differ only in data set or schedule."""
    folder = Path(mmseg.__file__).parent / '.mim' / 'configs'
    chosen: dict[str, Path] = {}
    for path in sorted(folder.glob('*/*.py')):
        name = re.split(r'[_-]\d+xb?\d*', path.stem)[0]
        if path.parent.name != '_base_':
            chosen.setdefault(f'{path.parent.name}/{name}', path)
    return list(chosen.values())


def family_of(model: Mapping[str, Any]) -> str:
    """Returns the segmentor, backbone, neck and heads of a model config.

    >>> family_of({'type': 'EncoderDecoder', 'backbone': {'type': 'ResNet'}, 'decode_head': [{'type': 'FCNHead'}]})
    'EncoderDecoder / ResNet / FCNHead'
    """
    parts = [str(model['type']).rpartition('.')[2]]
    for key in ('image_encoder', 'backbone', 'neck', 'decode_head', 'auxiliary_head'):
        value = model.get(key)
        kinds = [item['type'] for item in (value if isinstance(value, list) else [value]) if item]
        text = ' + '.join(dict.fromkeys(str(kind).rpartition('.')[2] for kind in kinds))
        if text:
            parts.append(f'({text})' if key == 'auxiliary_head' else text)
    return ' / '.join(parts)


def families(cache: Path) -> dict[str, str]:
    """Returns family -> its smallest stock config, relative to mmseg's config folder; the cache knows them later."""
    if cache.is_file():
        return json.loads(cache.read_text(encoding='utf-8'))
    folder = Path(mmseg.__file__).parent / '.mim' / 'configs'
    nearest: dict[str, tuple[int, int, str]] = {}
    for path in stock_configs():
        name = str(path.relative_to(folder))
        try:
            model = Config.fromfile(str(path)).get('model')
        except Exception as error:
            family = f'{path.parent.name} (config does not load: {type(error).__name__})'
            nearest.setdefault(family, (0, 0, name))
            continue
        if model:
            rank = next((n for n, word in enumerate(SMALL) if word in path.stem), len(SMALL))
            # A text encoder reads a number of sentences for every class.
            classes = model.decode_head.num_classes if 'text_encoder' in model else 0
            family = family_of(model.to_dict())
            nearest[family] = min(nearest.get(family, (99, 0, '')), (rank, classes, name))
    result = {family: path for family, (_, _, path) in sorted(nearest.items())}
    cache.write_text(json.dumps(result, indent=1), encoding='utf-8')
    return result


def small_model(model: Mapping[str, Any], draw: Callable[[torch.Tensor], Any] | None = WEIGHTS[0]) -> nn.Module:
    """Returns the segmentor of a config for pictures of 64x64, with random weights, in evaluation mode.

    Args:
        model: its config.
        draw: fills a weight with random numbers; None keeps the model's own.
    """
    config = Config(dict(model=model)).model
    config.setdefault('train_cfg', {})
    backbone = config.get('backbone') or config.get('image_encoder') or {}
    slides = config.get('test_cfg', {}).get('mode') == 'slide'
    if 'img_size' in backbone:
        backbone.img_size = (CROP, CROP) if slides else (SIZE, SIZE)
    if 'pretrain_img_size' in backbone and backbone.get('type') != 'SwinTransformer':
        backbone.pretrain_img_size = SIZE
    if slides:
        config.test_cfg.update(crop_size=(CROP, CROP), stride=(STRIDE, STRIDE))
    preprocessor = config.get('data_preprocessor')
    if preprocessor is not None and preprocessor.get('test_cfg', {}).get('size'):
        preprocessor.test_cfg.size = (SIZE, SIZE)
    torch.manual_seed(0)
    built = build_segmentor({'model': config})
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.ndim > 1 and draw is not None:
                draw(parameter)
    return built.eval()


def check(model: nn.Module, size: int = SIZE) -> dict[str, Any]:
    """Returns what an attack can do with a segmentor: ``gradient``, ``attack``, ``reason`` and numbers.

    ``gradient`` compares the derivative of the cross-entropy along the gradient with central differences; ``attack``
    says whether three steps of PGD raise it.
    """
    sample = SegDataSample(metainfo=dict.fromkeys(('ori_shape', 'img_shape', 'pad_shape'), (size, size)))
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 3, size, size, generator=generator, dtype=torch.float64)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    result: dict[str, Any] = {'parameters': parameters, 'notes': []}
    try:
        adapter = SegmentorAdapter(model, [sample])
    except UserError as error:
        return {**result, 'gradient': 'refused', 'attack': 'refused', 'reason': str(error)}
    result['notes'] = caveats(model)
    labels = torch.randint(adapter.num_classes, (1, size, size), generator=generator)
    for dtype in (torch.float64,) if parameters <= DOUBLE_LIMIT else (torch.float32, torch.float64):
        try:
            result.update(_gradient(adapter.to(dtype), images.to(dtype), labels))
        except RuntimeError as error:
            # Some models hold constants in float32.
            if dtype == torch.float32 or not re.search('dtype|Double|Float', str(error)):
                raise
            dtype = torch.float32
            result.update(_gradient(adapter.to(dtype), images.to(dtype), labels))
        if result['gradient'] != 'too small to compare':
            break
    images = images.to(dtype)
    attack = PGD(threat=Linf(radius='8/255'), steps=3, keep='best_loss', random_start=False)
    output = attack(adapter, images, labels, seeds=[0])
    with torch.no_grad():
        before, after = (_loss(adapter, batch, labels).item() for batch in (images, output.images))
    result.update(attack='ok' if after > before else 'gains nothing', loss=[before, after])
    return {**result, 'reason': ''}


def _gradient(adapter: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
    with torch.no_grad():
        if not torch.equal(adapter(images), adapter(images)):
            return {'gradient': 'random', 'error': None}
    images = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(_loss(adapter, images, labels), images)
    length = gradient.norm()
    if not torch.isfinite(length) or length == 0:
        return {'gradient': 'not finite' if length != 0 else 'zero', 'error': None}
    direction, step = gradient / length, STEP[images.dtype]
    with torch.no_grad():
        ahead, behind = (_loss(adapter, images + sign * step * direction, labels) for sign in (1, -1))
    if torch.finfo(images.dtype).eps * abs(ahead.item()) / step > TOLERANCE[images.dtype] * length:
        return {'gradient': 'too small to compare', 'error': None}
    error = abs(((ahead - behind) / (2 * step) / length - 1).item())
    return {'gradient': 'ok' if error <= TOLERANCE[images.dtype] else 'partial', 'error': error}


def _loss(adapter: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return CrossEntropy()(adapter(images), labels).mean()


def check_config(path: str) -> dict[str, Any]:
    """Returns what ``check`` finds for a stock config, or why its model does not build or run."""
    try:
        config = Config.fromfile(str(Path(mmseg.__file__).parent / '.mim' / 'configs' / path))
        model = small_model(config.model.to_dict())
    except Exception as error:
        refused = isinstance(error, UserError) and not isinstance(error, MissingPackageError)
        attack = 'refused' if refused else 'does not build'
        return {'gradient': '-', 'attack': attack, 'reason': _first_line(error), 'notes': []}
    try:
        outcome = _check_at_a_size_that_fits(model)
        for draw in WEIGHTS[1:]:
            if outcome['gradient'] in ('ok', 'refused', 'random') or (
                outcome['gradient'] == 'partial' and outcome['notes']
            ):
                break
            # Saturated or vanishing activations leave a gradient below the rounding of the differences.
            again = _check_again(config.model.to_dict(), draw)
            outcome = again if again['gradient'] == 'ok' else outcome
        return outcome
    except Exception as error:
        traceback.print_exc()
        return {'gradient': '-', 'attack': 'does not run', 'reason': _first_line(error), 'notes': []}


def _check_again(model: Mapping[str, Any], draw: Callable[[torch.Tensor], Any] | None) -> dict[str, Any]:
    try:
        return _check_at_a_size_that_fits(small_model(model, draw))
    except UserError as error:
        # A model's own weights may be empty memory, which the checkpoint fills: its logits need not be finite.
        return {'gradient': 'does not run', 'reason': str(error)}


def _check_at_a_size_that_fits(model: nn.Module) -> dict[str, Any]:
    try:
        return check(model)
    except RuntimeError as error:
        if 'too small' not in str(error):
            raise
        return check(model, LARGE)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or ['']
    # mmengine puts the class that did not build before the reason.
    lines = [line for line in lines if line.strip() and 'PYTHONPATH' not in line and not line.strip().startswith('/')]
    reason = lines[0 if isinstance(error, ImportError) else -1] if lines else ''
    name = '' if isinstance(error, UserError) else f'{type(error).__name__}: '
    return f'{name}{reason.strip()[:240]}'


def results(work_dir: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yields family, config and finding of every family, checking what is not in the work folder yet."""
    folder = work_dir / 'families'
    folder.mkdir(parents=True, exist_ok=True)
    known = families(work_dir / 'families.json')
    for number, (family, path) in enumerate(known.items(), 1):
        file = folder / f'{number:03d}.json'
        if not file.is_file():
            died = {'gradient': '-', 'attack': 'not tried', 'reason': 'the process died', 'notes': []}
            died['run'] = environment()
            file.write_text(json.dumps(died), encoding='utf-8')
            start = time.perf_counter()
            try:
                outcome = check_config(path)
                seconds = round(time.perf_counter() - start, 1)
                outcome = {**outcome, 'seconds': seconds, 'run': environment()}
            except KeyboardInterrupt:
                file.unlink()
                raise
            temporary = file.with_suffix('.tmp')
            temporary.write_text(json.dumps(outcome), encoding='utf-8')
            os.replace(temporary, file)
            print(f'{number}/{len(known)} {family}: {outcome["attack"]} {outcome["reason"]}', flush=True)
        yield family, path, json.loads(file.read_text(encoding='utf-8'))


def environment() -> dict[str, str]:
    """Returns the date, the processor and the versions of the packages that a family runs on."""
    found = {'date': datetime.date.today().isoformat(), 'processor': f'{platform.machine()}, one thread'}
    for column, distribution in PACKAGES.items():
        try:
            found[column] = version(distribution)
        except PackageNotFoundError:
            found[column] = '-'
    found['ops of mmcv'] = _compiler_of_ops()
    return found


def _compiler_of_ops() -> str:
    if not is_installed('mmcv._ext'):
        return 'not compiled'
    from mmcv.ops import get_compiler_version

    return f'compiled, {get_compiler_version()}'


def page(checked: list[tuple[str, str, dict[str, Any]]]) -> str:
    """Returns docs/coverage.md."""
    works = [item for item in checked if item[2]['attack'] == 'ok']
    limited = set(CAVEATS.values())
    attacked = [item for item in works if item[2]['gradient'] == 'ok' and not limited & set(item[2]['notes'])]
    flagged = [item for item in works if item not in attacked]
    refused = [item for item in checked if item[2]['attack'] == 'refused']
    runs = sorted({tuple(outcome['run'].items()) for _, _, outcome in checked}, key=str)
    letters = dict(zip(runs, string.ascii_lowercase, strict=False))
    lines = [
        '# Which stock models can be attacked',
        '',
        f'{len(checked)} combinations of segmentor, backbone, neck and heads stand among the stock configs of '
        f'MMSegmentation {mmseg.__version__}.',
        '',
        f'- attacked with an exact gradient: {len(attacked)}',
        f'- attacked with a partial gradient: {len(flagged)}',
        f'- refused: {len(refused)}',
        f'- do not build or run: {len(checked) - len(attacked) - len(flagged) - len(refused)}',
        '',
        'Written by `python benchmarks/coverage_of_models.py`: the smallest config of each, random weights (seed 0),',
        f'one random picture of {SIZE}x{SIZE} ({LARGE}x{LARGE} where a head pools over more).',
        '',
        'Gradient: `ok` where the derivative along it agrees with central differences. The tolerance is 0.1 % in',
        f'float64. It is 5 % in float32, in which models with over {DOUBLE_LIMIT / 1e6:.0f} million parameters run, or',
        'with constants in float32. `partial`: they do not agree. `too small to compare`: rounding hides it. Attack:',
        '`ok` where three steps of PGD at 8/255 raise the cross-entropy. Auxiliary heads stand in brackets; attacks do',
        'not use them. A head that computes without gradient counts as partial whatever its weights. The last column',
        'names the [packages](#packages) of the run.',
        '',
        '| family | config | gradient | attack | remark | run |',
        '|---|---|---|---|---|---|',
    ]
    for family, path, outcome in checked:
        remark = '; '.join(filter(None, [outcome['reason'], *outcome['notes']])).replace('|', '/')
        letter = letters[tuple(outcome['run'].items())]
        cells = [family, path.removesuffix('.py'), outcome['gradient'], outcome['attack'], remark, letter]
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join([*lines, '', *_table_of_runs(letters)]) + '\n' + END


def _table_of_runs(letters: Mapping[tuple[tuple[str, str], ...], str]) -> list[str]:
    columns = list(dict(next(iter(letters))))
    lines = ['## Packages', '', f'| run | {" | ".join(columns)} |', '|---' * (len(columns) + 1) + '|']
    return lines + [
        f'| {letter} | {" | ".join(dict(run)[column] for column in columns)} |' for run, letter in letters.items()
    ]


def main() -> None:
    """Checks all families and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'coverage')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs' / 'coverage.md')
    arguments = parser.parse_args()
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    register_all_modules(init_default_scope=True)
    arguments.out.write_text(page(list(results(arguments.work_dir))), encoding='utf-8')
    print(f'wrote {arguments.out}')


if __name__ == '__main__':
    main()
