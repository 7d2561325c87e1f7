import pytest
from miniature_trees import write_ade20k, write_voc

from mmadv.commands.main import main as run_main
from mmadv.datasets.prepare.files import write_whole
from mmadv.errors import UserError


@pytest.fixture
def main():
    return lambda argv: run_main(['prepare', *argv])


def test_prints_the_counts(main, tmp_path, capsys):
    assert main(['ade20k', str(write_ade20k(tmp_path))]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines()[0].startswith('training: 3 images with label maps (0 written, 3 there already)')
    assert 'training: 100%' in output.err


def test_source(main, tmp_path, capsys):
    devkit = write_voc(tmp_path / 'VOCdevkit')
    (devkit / 'VOCaug' / 'dataset').rename(tmp_path / 'boundaries')
    assert main(['voc', str(devkit), '--source', str(tmp_path / 'boundaries')]) == 0
    assert 'sbd_train.txt: 3 images (written)' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['vok', '.'], "unknown dataset 'vok'; did you mean 'voc'?"),
        (['ade20k', 'nowhere'], "the folder 'nowhere' does not exist"),
        (['ade20k', '.', '--source', '.'], 'ade20k takes no --source'),
        (['camvid', 'new', '--source', 'nowhere'], "--source: the folder 'nowhere' does not exist"),
        (['ade20k'], 'the following arguments are required: ROOT'),
    ],
)
def test_mistakes_are_told_in_one_sentence(main, arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f'error: {sentence}')
    assert error.count('\n') == 1


def test_nothing_is_overwritten(tmp_path):
    path = tmp_path / 'a'
    write_whole(path, b'first')
    with pytest.raises(UserError, match='exists and is not overwritten'):
        write_whole(path, b'second')
    assert path.read_bytes() == b'first'


def test_what_cannot_be_written_is_told(tmp_path):
    (tmp_path / 'file').write_bytes(b'')
    with pytest.raises(UserError, match=r"cannot write '.*file/a.png' \(.+\)"):
        write_whole(tmp_path / 'file' / 'a.png', b'x')
