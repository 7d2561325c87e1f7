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


def fork(main, argv, log, environment=None):
    """Starts main(argv) in a process of its own and returns its id; what it prints goes to a file."""
    process = os.fork()
    if process:
        return process
    status = 99
    try:
        # A command warns as it does for a user; it ends in no error because a library warns.
        warnings.simplefilter('default')
        with open(log, 'w') as stream, contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
            if environment:
                os.environ.update(environment)
                torch.distributed.init_process_group('gloo')
            try:
                status = main([str(word) for word in argv])
            except BaseException:
                traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


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


def status_of(process):
    """Waits for a process and returns its exit status, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def kill_once(process, ready, wait=0.0, timeout=120):
    """Kills a process with SIGKILL some seconds after ready() first holds, and returns its status."""
    end = time.monotonic() + timeout
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
    statuses = [status_of(process) for process in processes]
    assert statuses == [0] * world, [(folder / f'log{rank}').read_text()[-2000:] for rank in range(world)]
