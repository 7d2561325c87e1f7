"""Names with control characters, and files that are none."""

import logging
import os
import warnings

import pytest

from mmadv.errors import UserError
from mmadv.files import check_regular
from mmadv.printing import escaped_messages, printable, shown
from mmadv.report.table import Table

HOSTILE = 'car\x1b[31m\r\nerror: all is well\u202e\x85\u2028'


def test_nothing_of_a_name_acts_on_the_terminal():
    text = printable(HOSTILE)
    assert text == r'car\x1b[31m\r\nerror: all is well\u202e\x85\u2028'
    assert text.isprintable() and printable('größe 4/255') == 'größe 4/255'
    assert printable('a\n\tb\r', lines=True) == 'a\n\tb\\r'
    assert shown(HOSTILE).isprintable() and len(shown('x' * 1000)) < 80
    assert shown(10**5000).startswith('a int that cannot be shown')


def test_tables_escape_their_cells():
    table = Table(('class', 'IoU'), ((HOSTILE, '1.00'),), text_columns=1)
    for text, lines in ((table.text(), 3), (table.markdown(), 3)):
        assert len(text.splitlines()) == lines and all(line.isprintable() for line in text.splitlines())


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'link').symlink_to(tmp_path / 'pipe')
    for name, kind in (('pipe', 'a named pipe'), ('link', 'a named pipe'), ('', 'a folder')):
        with pytest.raises(UserError, match=f'the checkpoint .* is {kind}; give a regular file'):
            check_regular(tmp_path / name, 'the checkpoint')
    with pytest.raises(UserError, match='is a device'):
        check_regular('/dev/zero', 'the checkpoint')
    (tmp_path / 'file').write_text('')
    check_regular(tmp_path / 'file', 'the checkpoint')
    check_regular(tmp_path / 'none', 'the checkpoint')


def test_warnings_and_logs_are_escaped(caplog):
    plain = warnings.formatwarning, logging.getLogRecordFactory()
    with escaped_messages():
        warned = warnings.formatwarning(UserWarning(HOSTILE), UserWarning, 'file.py', 1)
        logging.getLogger('hostile').warning('class %s', HOSTILE)
    for text in (warned, caplog.messages[0]):
        assert r'car\x1b[31m\r' in text and text.replace('\n', '').isprintable()
    assert not any(line.startswith('error:') for line in warned.splitlines())
    assert (warnings.formatwarning, logging.getLogRecordFactory()) == plain
