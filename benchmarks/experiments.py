"""Shared code of the studies: commands as stages of runs, stored records, means with errors, sections of docs."""

from __future__ import annotations

import datetime
import itertools
import json
import multiprocessing
import os
import shlex
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

from mmadv.commands.provenance import hardware, versions
from mmadv.commands.testing import run_test
from mmadv.commands.training import run_train

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'benchmarks' / 'results'
PERFORMANCE = ROOT / 'docs' / 'performance.md'
TOOLS: dict[str, Callable[[Sequence[str]], None]] = {'tools/train.py': run_train, 'tools/test.py': run_test}
# Options of configs on CamVid at 80x60: the frame, and what is cropped of it in training.
CAMVID_80X60 = (
    'train_dataloader.dataset.pipeline.2.scale=(80,60)',
    'train_dataloader.dataset.pipeline.3.crop_size=(60,80)',
    'val_dataloader.dataset.pipeline.2.scale=(80,60)',
    'test_dataloader.dataset.pipeline.2.scale=(80,60)',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'test_dataloader.num_workers=0',
    'test_dataloader.persistent_workers=False',
)


@dataclass(frozen=True)
class Stage:
    """One command, and the file that exists once it has run.

    Attributes:
        command: 'tools/train.py' or 'tools/test.py' and its arguments, or a name given to ``run`` in ``functions``.
        done: written by the command when it ends, and by nothing before.
    """

    command: tuple[str, ...]
    done: Path


@dataclass(frozen=True)
class Run:
    """Stages in the order they run in; what has run already is not run again.

    Attributes:
        name: in messages and of the log.
        stages: one after the other.
        facts: what the study wants to know of the run later, such as method and seed.
    """

    name: str
    stages: tuple[Stage, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


def run(
    runs: Iterable[Run],
    logs: Path,
    workers: int,
    functions: Mapping[str, Callable] | None = None,
    after_each: Callable[[], Any] | None = None,
) -> None:
    """Runs what has not run yet, each run in a process of one thread, and prints every command first.

    Args:
        runs: of the study.
        logs: folder for one log per run.
        workers: runs at a time.
        functions: further commands by name, which take the list of their arguments.
        after_each: called whenever a run has ended well, to store what there is.

    Raises:
        SystemExit: runs that failed, with their logs.
    """
    logs.mkdir(parents=True, exist_ok=True)
    waiting = [run for run in runs if not all(stage.done.is_file() for stage in run.stages)]
    tools = {**TOOLS, **(functions or {})}
    # A fork has imported everything already, and shares no state with the run before.
    context = multiprocessing.get_context('fork')
    active: dict[int, tuple[Run, Any, float]] = {}
    failed: list[str] = []
    total, ended = len(waiting), 0
    while waiting or active:
        while waiting and len(active) < workers:
            item = waiting.pop(0)
            process = context.Process(target=_run_stages, args=(item, logs / f'{item.name}.log', tools))
            process.start()
            active[process.sentinel] = (item, process, time.perf_counter())
        for sentinel in wait(list(active)):
            item, process, start = active.pop(sentinel)
            process.join()
            ended += 1
            state = 'done' if process.exitcode == 0 else 'FAILED'
            print(f'[{ended}/{total}] {item.name}: {state} in {time.perf_counter() - start:.0f} s', flush=True)
            if process.exitcode:
                failed.append(str(logs / f'{item.name}.log'))
            elif after_each is not None:
                after_each()
    if failed:
        raise SystemExit(f'error: runs failed, see {", ".join(failed)}')


def _run_stages(item: Run, log: Path, tools: Mapping[str, Callable]) -> None:
    torch.set_num_threads(1)
    os.chdir(ROOT)
    with log.open('a', encoding='utf-8') as stream:
        for descriptor in (1, 2):
            os.dup2(stream.fileno(), descriptor)
        sys.stdout = sys.stderr = stream
        for stage in item.stages:
            if stage.done.is_file():
                continue
            name, *arguments = stage.command
            print('$ python', shlex.join(stage.command), flush=True)
            try:
                tools[name](arguments)
            except BaseException:
                traceback.print_exc()
                break
            if not stage.done.is_file():
                print(f'{stage.done} is missing after its stage')
                break
        stream.flush()
        # Without the clean-up of a parent's state, which is not this process's to end.
        os._exit(0 if all(stage.done.is_file() for stage in item.stages) else 1)


def allocated_peak(step: Callable[[], Any], device: str) -> int:
    """Returns the bytes that torch has allocated at most while a step runs, beyond those before it.

    Args:
        step: takes no argument; run it once before, so that what is made once only does not count.
        device: 'cpu' or 'cuda'.
    """
    if device == 'cuda':
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # otherwise it prints that there is no GPU
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    events = profile.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == '[memory]')
    return max(itertools.accumulate((change for _, change in changes), initial=0))


def store(experiment: str, records: Sequence[Mapping[str, Any]], *, threads: int = 1, **more: Any) -> Path:
    """Writes ``benchmarks/results/STUDY.json``: the records, and what they were made with; returns its path."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    content = {
        'schema': f'mmadv/benchmark/{experiment}',
        'schema_version': 1,
        'date': datetime.date.today().isoformat(),
        'command': command_line(),
        'versions': versions(),
        'hardware': {**hardware(), 'threads': threads},
        **more,
        'records': list(records),
    }
    path = RESULTS / f'{experiment}.json'
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + '\n', encoding='utf-8')
    return path


def command_line() -> str:
    """Returns the command that runs, without its work folder, which is a path of this machine."""
    words = iter(sys.argv)
    kept = [word for word in words if not (word == '--work-dir' and next(words)) and not word.startswith('--work-dir=')]
    return shlex.join(['python', *kept])


def comparison(
    experiment: str, records: Sequence[Mapping[str, Any]], names: Sequence[str], numbers: Sequence[str]
) -> str:
    """Returns a table of what was measured now beside what ``benchmarks/results/STUDY.json`` holds.

    Args:
        experiment: of the stored file.
        records: measured now.
        names: keys that tell records apart.
        numbers: keys of what is compared; a record without a stored counterpart has '-' there.
    """
    path = RESULTS / f'{experiment}.json'
    content = json.loads(path.read_text(encoding='utf-8'))
    stored = {tuple(record[name] for name in names): record for record in content['records']}
    lines = [f'now, beside {path.relative_to(ROOT)} of {content["date"]} ({content["hardware"]["processor"]}):']
    for record in records:
        key = tuple(record[name] for name in names)
        cells = [
            f'{number} {record[number]:.2f} ({stored[key][number]:.2f})'
            if key in stored
            else f'{number} {record[number]:.2f} (-)'
            for number in numbers
        ]
        lines.append(f'{", ".join(map(str, key)):44} {"   ".join(cells)}')
    return '\n'.join(lines)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean, and the sample standard deviation (0 for a single value).

    >>> mean_and_deviation([1.0, 2.0, 3.0])
    (2.0, 1.0)
    """
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def text_of(values: Sequence[float]) -> str:
    """Returns mean ± standard deviation of shares, in percent.

    >>> text_of([0.5, 0.52])
    '51.0 ± 1.4'
    """
    mean, deviation = mean_and_deviation(values)
    return f'{100 * mean:.1f} ± {100 * deviation:.1f}'


def cell(shares: Sequence[float]) -> str:
    """Returns shares in percent: mean ± standard deviation, one share without a deviation, none as '-'.

    >>> cell([0.5]), cell([])
    ('50.0', '-')
    """
    if not shares:
        return '-'
    return text_of(shares) if len(shares) > 1 else f'{100 * shares[0]:.1f}'


def dated_records(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the stored records, each with the date that it was measured; a record without one has the file's."""
    return [{'date': content['date'], **record} for record in content['records']]


def dates_text(records: Iterable[Mapping[str, Any]]) -> str:
    """Returns which methods were measured on which date.

    >>> dates_text([{'method': 'a', 'date': '1'}, {'method': 'b', 'date': '2'}, {'method': 'a', 'date': '1'}])
    'Measured: a on 1; b on 2.'
    """
    dates: dict[str, dict[str, None]] = {}
    for record in records:
        dates.setdefault(record['date'], {})[record['method']] = None
    parts = (f'{", ".join(methods)} on {date}' for date, methods in dates.items())
    return f'Measured: {"; ".join(parts)}.'


def provenance(content: Mapping[str, Any]) -> str:
    """Returns the line that says what stored records were made with."""
    machine = content['hardware']
    accelerators = ', '.join(machine['accelerators']) or 'no accelerator'
    return (
        f'{machine["processor"]}, {machine["threads"]} thread for each run, {accelerators}; '
        f'torch {content["versions"]["torch"]}, mmadv {content["versions"]["mmadv"]}; {content["date"]}.'
    )


def write_section(path: Path, script: str, text: str) -> None:
    """Replaces what stands between the marks of a study in a document.

    Args:
        path: of the document; its marks are ``<!-- NAME: written by SCRIPT -->`` and ``<!-- NAME: end -->``.
        script: such as 'benchmarks/camvid.py'; NAME is its stem.
        text: Markdown.
    """
    name = Path(script).stem
    begin, end = f'<!-- {name}: written by {script} -->', f'<!-- {name}: end -->'
    before, _, rest = path.read_text(encoding='utf-8').partition(begin)
    _, mark, after = rest.partition(end)
    if not mark:
        raise SystemExit(f'{path} has no lines {begin} and {end}; put them where the section belongs')
    path.write_text(f'{before}{begin}\n\n{text}\n\n{end}{after}', encoding='utf-8')
