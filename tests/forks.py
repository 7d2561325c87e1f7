"""Commands in processes that are forked from the test's own, which spares them the imports."""

import contextlib
import os
import runpy
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

import torch

GLOO = ['--launcher', 'pytorch']
# Seconds; less than the time that pyproject.toml gives to a test.
PATIENCE = 240.0


def start(work):
    """Starts work() in a process of its own and returns its id; the process ends with it, with status 1 on an error."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(status)


def fork(main, argv, log, environment=None):
    """Starts main(argv) in a process of its own and returns its id; what it prints goes to a file."""

    def work():
        # A command warns as it does for a user; it ends in no error because a library warns.
        warnings.simplefilter('default')
        with open(log, 'w') as stream, contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
            if environment:
                os.environ.update(environment)
                torch.distributed.init_process_group('gloo')
            status = 99
            try:
                status = main([str(word) for word in argv])
            except BaseException:
                traceback.print_exc()
        os._exit(status)

    return start(work)


def run_script(path, folder, *arguments, status=0):
    """Runs a Python file, to this exit status, as a process of its own in a folder; returns all that it printed."""

    def run(argv):
        warnings.simplefilter('ignore')
        os.chdir(folder)
        sys.argv = [str(path), *argv]
        sys.path.insert(0, str(Path(path).parent))
        try:
            runpy.run_path(str(path), run_name='__main__')
        except SystemExit as end:
            return end.code
        return 0

    log = Path(folder) / f'{Path(path).stem}.log'
    ended = status_of(fork(run, arguments, log))
    printed = log.read_text()
    assert ended == status, printed[-3000:]
    return printed


def statuses_of(processes):
    """Waits for processes and returns their exit statuses, or minus the signal that ended them, in order.

    A process that hangs is aborted, so that its traceback appears on stderr, and so are those that it waits for.
    """
    left, statuses = set(processes), {}
    end = time.monotonic() + PATIENCE
    while left:
        for process in tuple(left):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                left.remove(process)
                statuses[process] = os.waitstatus_to_exitcode(status)
        if left and time.monotonic() > end:
            for process in left:
                os.kill(process, signal.SIGABRT)
                os.waitpid(process, 0)
            raise AssertionError(f'{len(left)} of {len(processes)} processes did not end within {PATIENCE:.0f} s')
        time.sleep(0.002)
    return [statuses[process] for process in processes]


def status_of(process):
    """Waits for one process and returns its exit status, or minus the signal that ended it."""
    return statuses_of([process])[0]


def kill_once(process, ready, wait=0.0):
    """Kills a process with SIGKILL some seconds after ready() first holds, and returns its status."""
    end = time.monotonic() + PATIENCE
    while not ready() and time.monotonic() < end:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    time.sleep(wait)
    os.kill(process, signal.SIGKILL)
    return status_of(process)


def run_together(main, argv, world, port, folder):
    """Runs a command in several processes of one group, which all must succeed."""
    processes = []
    for rank in range(world):
        environment = {'RANK': rank, 'LOCAL_RANK': rank, 'WORLD_SIZE': world, 'MASTER_PORT': port}
        environment = {name: str(value) for name, value in environment.items()} | {'MASTER_ADDR': '127.0.0.1'}
        processes.append(fork(main, [*argv, *GLOO], folder / f'log{rank}', environment))
    statuses = statuses_of(processes)
    assert statuses == [0] * world, [(folder / f'log{rank}').read_text()[-2000:] for rank in range(world)]
