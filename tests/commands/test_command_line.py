"""Which errors become sentences, and what signals do."""

import os
import signal
import time

import pytest

from mmadv.commands.command_line import guarded, user_sentence
from mmadv.commands.training import pretrained
from mmadv.errors import UserError


def test_sentence_of_a_worker_process():
    error = UserError(
        'Caught UserError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n'
        '  File "x.py", line 1\nmmadv.errors.UserError: image a.png does not exist; repair or remove it\n'
    )
    assert user_sentence(error) == 'image a.png does not exist; repair or remove it'
    assert user_sentence(UserError('plain')) == 'plain'


@pytest.mark.parametrize(
    ('error', 'sentence'),
    [
        (
            KeyError('FooHead is not in the mmseg::model registry. Please check'),
            "the type 'FooHead', which the registry",
        ),
        (IndexError('Target 17 is out of bounds.'), 'a training label holds the value 17'),
        (IndexError('list index out of range'), None),
        (RuntimeError('anything'), None),
    ],
)
def test_sentences(error, sentence):
    actual = user_sentence(error)
    assert actual is None if sentence is None else sentence in actual


def test_status_and_stderr(capsys, monkeypatch):
    monkeypatch.delenv('MMADV_TRACEBACK', raising=False)

    def refuse(argv):
        raise UserError(f'no {argv[0]}')

    assert guarded(lambda argv: None, []) == 0
    assert guarded(refuse, ['luck']) == 2
    assert capsys.readouterr().err == 'error: no luck\n'
    with pytest.raises(ZeroDivisionError):
        guarded(lambda argv: 1 / 0, [])


def test_pretrained_checkpoints_are_found_at_any_depth():
    model = {'a': [{'init_cfg': {'type': 'Pretrained', 'checkpoint': 'x.pth'}}], 'init_cfg': {'type': 'Normal'}}
    assert list(pretrained(model)) == ['x.pth']


@pytest.fixture
def heeded():
    """Signals as a terminal gives them, also if whoever started the tests ignores some, as nohup does."""
    usual = {signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures('heeded')
@pytest.mark.parametrize(('number', 'status'), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_signals_of_a_scheduler_do_what_an_interrupt_does(capsys, number, status):
    cleaned = []
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP)}

    def command(argv):
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        finally:
            cleaned.append(number)

    assert guarded(command, []) == status
    assert cleaned == [number] and capsys.readouterr().err == 'interrupted\n'
    assert {one: signal.getsignal(one) for one in before} == before


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert guarded(lambda argv: os.kill(os.getpid(), signal.SIGHUP), []) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
