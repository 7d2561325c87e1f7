"""Running a tool that must refuse what it is given."""

import tiny_project


def configure(project, extra):
    tiny_project.write_config(project / 'config.py', project / 'data', extra)


def snapshot(folder):
    return sorted((str(path), path.is_file() and path.stat().st_size) for path in folder.rglob('*'))


def refused(main, argv, folder, capsys, done=None):
    """Runs a tool that must refuse, and returns its sentence; ``done`` is how many images it must have kept."""
    before = snapshot(folder)
    capsys.readouterr()
    status = main([str(word) for word in argv])
    errors = capsys.readouterr().err
    assert status == 2, errors
    assert 'Traceback' not in errors
    sentences = [line for line in errors.splitlines() if line.startswith('error: ')]
    assert len(sentences) == 1
    assert errors.rstrip().endswith(sentences[0])
    if done is None:
        assert snapshot(folder) == before
    else:
        assert sentences[0].endswith(
            f'({done} images are done and kept in out; go on with the same command and --resume)'
        )
        assert [path.name for path in (folder / 'out').iterdir()] == ['unfinished']
    return sentences[0]


def attacked(*words, attack='pgd', eps=('4/255',), iterations=2):
    argv = ['config.py', 'trained.pth', '--attack', attack, '--out', 'out']
    argv += ['--eps', *eps] if eps else []
    argv += ['--iterations', iterations] if iterations is not None else []
    return [*argv, *words]
