"""``mmadv demo``: train a toy segmentor with and without adversarial training, attack both, and write a report.

``make demo`` runs this command. It calls ``mmadv train`` and ``mmadv test`` only, and keeps their output.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmadv.commands.command_line import Parser
from mmadv.report import RunResults, draw_curve, write_report
from mmadv.report.output_folder import check_writable

RUNS = {
    'standard training': 'demo/pspnet_clean_digits.py',
    'adversarial training': 'demo/pspnet_pgd2_digits.py',
}
RADII = ('4/255', '8/255', '12/255')
ITERATIONS = 20
IMAGES = 32
PROGRESS = re.compile(r'Iter\(train\) *\[ *(\d+)/(\d+)\].*?loss: ([\d.]+)')
TABLE = re.compile(r'(radius|-{3,}|\d+(/\d+)?)  ')


def parser() -> Parser:
    """Returns the parser of ``mmadv demo``."""
    result = Parser(
        prog='mmadv demo',
        description='Train a toy segmentor with and without adversarial training, attack both, and write a report.',
        example='mmadv demo --out demo_output',
    )
    result.add_argument('--out', default='demo_output', metavar='DIR', help='output folder (default: demo_output)')
    return result


def run_demo(argv: Sequence[str]) -> int:
    """Runs every stage, and returns the exit status: 0, or the status of the first stage that failed."""
    out = Path(parser().parse_args(argv).out).resolve()
    check_writable(out)
    start = time.perf_counter()
    results: dict[str, Path] = {}
    start_from: list[str] = []
    try:
        for name, config in RUNS.items():
            folder = out / Path(config).stem
            training = folder / 'training'
            run_stage(
                f'{name}: train {config}',
                ['-m', 'mmadv', 'train', config, '--work-dir', str(training), *start_from],
                folder / 'train.log',
            )
            weights = (training / 'last_checkpoint').read_text(encoding='utf-8').strip()
            run_stage(
                f'{name}: attack with SEA at {", ".join(RADII)}',
                [
                    *('-m', 'mmadv', 'test', config, weights, '--attack', 'sea', '--eps', *RADII),
                    *('--iterations', str(ITERATIONS), '--limit', str(IMAGES), '--batch-size', str(IMAGES)),
                    *('--out', str(folder / 'attack'), '--restart'),
                ],
                folder / 'test.log',
            )
            results[name] = folder / 'attack'
            # Adversarial training takes less time if it starts from a model that knows the digits.
            start_from = ['--cfg-options', f'load_from={weights}']
    except StageFailed as failure:
        print(failure, file=sys.stderr)
        return failure.status
    draw_curve({name: RunResults.load(folder) for name, folder in results.items()}, out / 'curve.png')
    report = write_report(results, out / 'report.html', title='mmadv demo: digit scenes under SEA')
    print(f'[demo] everything took {time.perf_counter() - start:.0f} s; open the report:\n{report}')
    return 0


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
