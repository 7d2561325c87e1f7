"""Shows that an evaluation costs a fixed time plus a time in proportion to its images and its passes.

    python benchmarks/linear_cost.py

The script runs tools/test.py on the tiny project of long_run.py with more and more images, then with more and more
iterations. Each run has its own process. The script measures processor time and peak memory, and fits straight lines by
least squares. Then it measures the wall time of one attack in one process and in several. Writes
benchmarks/results/linear_cost.json and a section of docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from experiments import PERFORMANCE, ROOT, provenance, store, write_section
from long_run import BATCH, SIZE, write_project

from mmadv.report import load_results

RADIUS = '8/255'
IMAGES = (500, 1000, 2000, 4000)
ITERATIONS = (1, 4, 16, 64)
PROCESSES = (1, 2)
FIXED = {'images': 500, 'iterations': 1, 'processes': 1}
SHARED = {'images': 500, 'iterations': 16}


def measured(folder: Path, images: int, iterations: int, processes: int) -> dict[str, Any]:
    """Runs the command, and returns what it took.

    Returns:
        ``seconds`` of processor time and ``memory``, the peak in bytes, of all of the command; ``wall``, seconds that
        the attack itself took.
    """
    out = folder / 'out'
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, '-W', 'ignore', '-m', 'torch.distributed.run', f'--nproc_per_node={processes}']
    if processes == 1:
        command = command[:3]
    command += ['tools/test.py', str(folder / 'config.py'), str(folder / 'weights.pth')]
    command += ['--launcher', 'pytorch'] if processes > 1 else []
    command += ['--attack', 'pgd', '--iterations', str(iterations), '--eps', RADIUS, '--limit', str(images)]
    command += ['--batch-size', str(BATCH), '--show', '0', '--out', str(out)]
    with (folder / 'log').open('wb') as log:
        actions = [(os.POSIX_SPAWN_DUP2, log.fileno(), descriptor) for descriptor in (1, 2)]
        process = os.posix_spawn(command[0], command, {**os.environ, 'OMP_NUM_THREADS': '1'}, file_actions=actions)
        _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f'the command failed; see {folder / "log"}')
    seconds = usage.ru_utime + usage.ru_stime
    values = {'seconds': seconds, 'memory': 1024 * usage.ru_maxrss, 'wall': load_results(out)['seconds'][RADIUS]}
    return {'images': images, 'iterations': iterations, 'processes': processes, **values}


def fitted(records: Sequence[dict[str, Any]], key: str) -> tuple[float, float, float]:
    """Returns intercept and slope of the seconds over a number, and the largest relative deviation from that line."""
    numbers = np.array([record[key] for record in records], dtype=float)
    seconds = np.array([record['seconds'] for record in records])
    # Relative deviations: a long run must not hide what is wrong with a short one.
    design = np.stack([np.ones_like(numbers), numbers], axis=1) / seconds[:, None]
    (intercept, slope), *_ = np.linalg.lstsq(design, np.ones_like(seconds), rcond=None)
    return intercept, slope, float(np.abs((intercept + slope * numbers) / seconds - 1).max())


def text_of(content: dict[str, Any]) -> str:
    """Returns the Markdown of the section."""
    blocks = []
    for key, unit in (('images', 'image'), ('iterations', 'iteration')):
        fixed = 'iterations' if key == 'images' else 'images'
        chosen = [record for record in content['records'] if record['varied'] == key]
        lines = [f'| {key} | processor time, s | peak memory, MB |', '|---:|---:|---:|']
        lines += [f'| {one[key]} | {one["seconds"]:.1f} | {one["memory"] / 1e6:.0f} |' for one in chosen]
        intercept, slope, deviation = fitted(chosen, key)
        blocks.append(
            '\n'.join(lines)
            + f'\n\nWith {FIXED[fixed]} {fixed}: {intercept:.1f} s, and {1000 * slope:.1f} ms for each '
            f'{unit}; no run is further than {100 * deviation:.1f} % from that line.'
        )
    walls = {one['processes']: one['wall'] for one in content['records'] if one['varied'] == 'processes'}
    shared = ', '.join(
        f'{number}: {wall:.1f} s ({walls[1] / wall:.2f} times as fast)' for number, wall in walls.items()
    )
    blocks.append(
        f'{SHARED["iterations"]} iterations on {SHARED["images"]} images by processes of one thread each, on '
        f'{content["hardware"]["cores"]} cores: {shared}.'
    )
    blocks.append(
        f'{SIZE}x{SIZE} pixels, batches of {BATCH}, PGD. {provenance(content)}\n\n```bash\n{content["command"]}\n```'
    )
    return '\n\n'.join(blocks)


def main() -> None:
    """Measures, and writes results and section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/linear_cost'))
    folder = (ROOT / parser.parse_args().work_dir).resolve()
    write_project(folder, max(IMAGES))
    records = []
    for key, numbers in (('images', IMAGES), ('iterations', ITERATIONS)):
        for number in numbers:
            records.append({'varied': key, **measured(folder, **{**FIXED, key: number})})
            print(records[-1], flush=True)
    for number in PROCESSES:
        records.append({'varied': 'processes', **measured(folder, **SHARED, processes=number)})
        print(records[-1], flush=True)
    content = json.loads(store('linear_cost', records).read_text(encoding='utf-8'))
    write_section(PERFORMANCE, 'benchmarks/linear_cost.py', text_of(content))


if __name__ == '__main__':
    main()
