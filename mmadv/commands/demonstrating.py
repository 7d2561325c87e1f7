"""``mmadv demo``: train a toy segmentor by three methods, attack the results, and write a report.

``make demo`` runs this command. It calls ``mmadv train`` and ``mmadv test`` only, and keeps their output.
"""

from __future__ import annotations

import json
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmadv.commands.command_line import Parser
from mmadv.report import RunResults, draw_curve, write_report
from mmadv.report.output_folder import check_writable
from mmadv.report.table import Table, percent

START = 'demo/pspnet_clean_digits.py'
# All methods train equally long, from the same model. The first one is the unit of the cost.
RUNS = {
    'standard training': 'demo/pspnet_clean_digits.py',
    'Fast Newton': 'fast_newton/pspnet_fast_newton_digits.py',
    'PGD with 2 steps': 'demo/pspnet_pgd2_digits.py',
}
RADII = ('4/255', '8/255', '12/255')
ITERATIONS = 20
IMAGES = 16
PROGRESS = re.compile(r'Iter\(train\) *\[ *(\d+)/(\d+)\].*?loss: ([\d.]+)')
TABLE = re.compile(r'(radius|-{3,}|\d+(/\d+)?)  ')


def parser() -> Parser:
    """Returns the parser of ``mmadv demo``."""
    result = Parser(
        prog='mmadv demo',
        description='Train a toy segmentor by three methods, attack the results, and write a report.',
        example='mmadv demo --out demo_output',
    )
    result.add_argument('--out', default='demo_output', metavar='DIR', help='output folder (default: demo_output)')
    return result


def run_demo(argv: Sequence[str]) -> int:
    """Runs every stage, and returns the exit status: 0, or the status of the first stage that failed."""
    out = Path(parser().parse_args(argv).out).resolve()
    check_writable(out)
    start = time.perf_counter()
    folders: dict[str, Path] = {}
    try:
        weights = train(START, out / Path(START).stem, f'the start of all methods: train {START}')
        for name, config in RUNS.items():
            folders[name] = out / name.lower().replace(' ', '_')
            attack(name, config, train(config, folders[name], f'{name}: train {config}', weights), folders[name])
    except StageFailed as failure:
        print(failure, file=sys.stderr)
        return failure.status
    seconds = {name: seconds_per_step(folder / 'training') for name, folder in folders.items()}
    costs = {name: value / next(iter(seconds.values())) for name, value in seconds.items()}
    results = {f'{name} ({costs[name]:.1f}x the time)': folder / 'attack' for name, folder in folders.items()}
    runs = {name: RunResults.load(folder) for name, folder in results.items()}
    draw_curve(runs, out / 'curve.png')
    report = write_report(results, out / 'report.html', title='mmadv demo: digit scenes under SEA')
    print(
        '[demo] mIoU under SEA, %, and the time of a training step (by the clock: other programs that ran meanwhile '
        f'distort it)\n\n{summary(runs).text()}\n'
    )
    print(f'[demo] everything took {time.perf_counter() - start:.0f} s; open the report:\n{report}')
    return 0


def train(config: str, folder: Path, title: str, start: str | None = None) -> str:
    """Trains a model, and returns the path of its weights.

    Args:
        config: config of the training.
        folder: folder of the training and its log.
        title: title of the stage.
        start: path of the weights that the training starts from; None for random weights.

    Raises:
        StageFailed: the training ended with an error.
    """
    training = folder / 'training'
    loaded = [] if start is None else ['--cfg-options', f'load_from={start}']
    command = ['-m', 'mmadv', 'train', config, '--work-dir', str(training), *loaded]
    run_stage(title, command, folder / 'train.log')
    return (training / 'last_checkpoint').read_text(encoding='utf-8').strip()


def attack(name: str, config: str, weights: str, folder: Path) -> None:
    """Attacks a model with SEA, and writes the results to ``attack`` in its folder.

    Raises:
        StageFailed: the attack ended with an error.
    """
    run_stage(
        f'{name}: attack with SEA at {", ".join(RADII)}',
        [
            *('-m', 'mmadv', 'test', config, weights, '--attack', 'sea', '--eps', *RADII),
            *('--iterations', str(ITERATIONS), '--limit', str(IMAGES), '--batch-size', str(IMAGES)),
            *('--out', str(folder / 'attack'), '--restart'),
        ],
        folder / 'test.log',
    )


def seconds_per_step(training: Path) -> float:
    """Returns the median time of a training step without that of loading its data, from the logs of a training."""
    log = max(training.glob('*/vis_data/scalars.json'))  # the folders are named by their time
    lines = map(json.loads, log.read_text(encoding='utf-8').splitlines())
    return statistics.median(line['time'] - line['data_time'] for line in lines if 'loss' in line)


def summary(runs: Mapping[str, RunResults]) -> Table:
    """Returns mIoU by radius, in percent, one row for each run."""
    rows = tuple(
        (name, *(percent(values['mIoU']) for values in run.evaluation.worst_cases.values()))
        for name, run in runs.items()
    )
    columns = next(iter(runs.values())).evaluation.worst_cases
    return Table(('training', *columns), rows, text_columns=1)


class StageFailed(RuntimeError):
    """A stage ended with an error; holds the last lines of its output, and its exit status in ``status``."""

    def __init__(self, status: int, log: Path) -> None:
        tail = log.read_text(encoding='utf-8').splitlines()[-5:]
        super().__init__('\n'.join([*tail, f'error: this stage failed; its whole output is in {log}']))
        self.status = status


def _lines_of(process: subprocess.Popen[str]) -> Iterator[str]:
    """Yields the lines that a process prints; a signal that ends this command also ends the process."""
    assert process.stdout is not None
    try:
        yield from process.stdout
    except BaseException:
        process.terminate()
        process.wait()
        raise


def run_stage(title: str, command: list[str], log: Path) -> None:
    """Runs one command, shows its progress and its duration, and writes its output to a log.

    Raises:
        StageFailed: the command ended with an error.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f'[demo] {title}\n       $ {shlex.join(["python", *command])}', flush=True)
    start = time.perf_counter()
    with log.open('w', encoding='utf-8') as file:
        process = subprocess.Popen(
            [sys.executable, '-W', 'ignore', *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding='utf-8',
        )
        for line in _lines_of(process):
            file.write(line)
            match = PROGRESS.search(line)
            if match:
                done, of, loss = match.groups()
                print(f'       iteration {done} of {of}, loss {loss}', flush=True)
            elif TABLE.match(line):
                print(f'       {line}', end='', flush=True)
        status = process.wait()
    print(f'       took {time.perf_counter() - start:.0f} s', flush=True)
    if status:
        raise StageFailed(status, log)
