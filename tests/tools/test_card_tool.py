"""mmadv card: its numbers are those of the single commands, its cost is that of its passes, and it survives a kill."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_project
from forks import fork, kill_once
from mmengine.config import Config
from mmseg.models.segmentors import EncoderDecoder
from refusals import refused

from mmadv.commands import card as card_command
from mmadv.commands.card_parts import BUDGETS, PARTS, l2_radii, noise_of_training
from mmadv.commands.main import main
from mmadv.errors import UserError
from mmadv.report import RunResults, views
from mmadv.report.card import Card, Rates

# Images 0, 2 and 4 are of one size, and have labels.
EXTRA = """
train_dataloader = dict(dataset=dict(indices=[0, 2, 4]))
model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', attack=dict(type='GaussianNoise', sigma=0.12)))
"""
TINY = replace(
    BUDGETS['quick'],
    images=3,
    linf=('0.5/255',),
    l2=(0.25 / 255,),
    auto=4,
    sea=1,
    severities=(3,),
    square=5,
    patch=2,
    universal=2,
    calibration=3,
    check=1,
)
RATES = Rates(overhead=1.0, forward=0.25, pair=0.5, source_pair=2.0, corrupted=0.125)


def card_tool(argv):
    return main(['card', *map(str, argv)])


@pytest.fixture(scope='module')
def folder(tiny, tmp_path_factory):
    """A folder with data, two configs and a checkpoint; the current folder."""
    root = tmp_path_factory.mktemp('card')
    tiny_project.write_dataset(root / 'data')
    base = Config.fromfile(str(tiny_project.write_config(root / 'base.py', root / 'data')))
    (root / 'config.py').write_text("_base_ = './base.py'\n" + EXTRA)
    fog = {
        'data_root': str(root / 'data'),
        'indices': [1, 3],
        **{k: v for k, v in base.dataset.items() if k != 'data_root'},
    }
    loader = {
        'batch_size': 1,
        'num_workers': 0,
        'dataset': fog,
        'sampler': {'type': 'DefaultSampler', 'shuffle': False},
    }
    Config({'test_dataloader': loader}).dump(root / 'fog.py')
    (root / 'trained.pth').write_bytes((tiny / 'trained.pth').read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setitem(BUDGETS, 'quick', TINY)
        yield root


@pytest.fixture
def timed(monkeypatch):
    """No probe."""
    monkeypatch.setattr(card_command, 'probe', lambda *arguments: RATES)


@pytest.fixture(scope='module')
def counted():
    """Images that went forward through the model, by the part that was running."""
    return {}


@pytest.fixture(scope='module')
def card(folder, counted):
    """The folder of a card with every part, made with the probe."""
    run, encode = card_command.testing.run_evaluation, EncoderDecoder.encode_decode
    running = ['probe']

    def run_part(command, arguments, argv, spec):
        running[0] = arguments.out.rpartition('/')[2]
        return run(command, arguments, argv, spec)

    def encode_decode(self, inputs, metas):
        counted[running[0]] = counted.get(running[0], 0) + len(inputs)
        return encode(self, inputs, metas)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(card_command, 'release_memory', lambda: None)
        patch.setattr(views, 'curves', lambda runs: [])  # of the parts' own pages; the card's page draws its own
        patch.setattr(card_command.testing, 'run_evaluation', run_part)
        patch.setattr(EncoderDecoder, 'encode_decode', encode_decode)
        words = ['--weather', 'fog.py', '--source', 'config.py', 'trained.pth', '--parts', *PARTS]
        assert card_tool(['config.py', 'trained.pth', '--out', 'card', *words]) == 0
    return folder / 'card'


def test_every_part_is_measured(card):
    content = Card.load(card)
    assert list(content.parts) == [name if name != 'weather' else 'weather.fog' for name in PARTS]
    assert all(part.rows for part in content.parts.values())
    assert {part.images for name, part in content.parts.items() if name not in ('checks', 'weather.fog')} == {3}
    assert content.parts['weather.fog'].images == 2
    assert content.parts['certificates'].rows[0].condition == 'smoothed'
    assert len(content.parts['checks'].findings) == 7


@pytest.mark.parametrize('name', ['auto-l2', 'certificates', 'weather.fog'])
def test_the_numbers_are_those_of_the_single_command(card, name):
    part = Card.load(card).parts[name]
    config = card / part.config if part.config else 'config.py'
    assert main([part.command, str(config), 'trained.pth', *part.words, '--show', '0', '--out', f'single_{name}']) == 0
    run = RunResults.load(f'single_{name}')
    if name == 'certificates':
        (one,) = run.evaluation.measurements['certificates']['certified']
        assert part.rows[1].values == {
            key: one[key] for key in ('certified_accuracy', 'certified_mIoU', 'guaranteed_mIoU', 'abstained')
        }
        return
    if name == 'auto-l2':
        assert run.evaluation.title == 'auto (4 passes), L2'
        assert run.attack.parameters['attacks']['ama']['threat']['type'] == 'L2'
    columns = run.evaluation.worst_cases
    assert [row.condition for row in part.rows] == [
        column for column in columns if column != 'clean' or len(columns) == 1
    ]
    for row in part.rows:
        for metric, value in row.values.items():
            assert value == columns[row.condition][metric]
            assert row.intervals[metric] == run.evaluation.interval(row.condition, metric)


def test_predicted_passes_are_those_that_are_counted(card, counted):
    """No image of the tiny model is solved, except by the sanity checks' attack at a large radius."""
    costs = json.loads((card / 'cost.json').read_text())['parts']
    predicted = {name: cost['images'] * cost['forward'] + cost['once'] for name, cost in costs.items()}
    actual = {name: number for name, number in counted.items() if name in predicted}
    # The source model has the same class, and its passes count too.
    checks = predicted.pop('checks'), actual.pop('checks')
    assert actual == predicted
    assert 0.5 * checks[0] < checks[1] <= checks[0]
    for name, part in Card.load(card).parts.items():
        backward = sum(backward for _, backward in part.passes.values())
        assert backward == costs[name]['backward'] or name in ('checks',)
    assert all(cost['actual'] > 0 for cost in costs.values())


def test_time_follows_from_the_rates(folder, timed, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(card_command, '_run', lambda *arguments: seen.append(arguments[-1]) or 0)
    words = ['config.py', 'trained.pth', '--parts', 'auto', 'corruptions', 'universal', 'transfer']
    assert card_tool([*words, '--source', 'config.py', 'trained.pth', '--out', 'planned']) == 0
    (costs,) = seen
    auto, transfer = costs['auto'], costs['transfer']
    assert (auto.images, auto.backward) == (3, 4) and auto.forward > auto.backward
    assert auto.seconds == 1 + 3 * ((auto.forward - 4) * 0.25 + 4 * 0.5)
    assert transfer.seconds == 1 + 3 * ((transfer.forward - 4) * 0.25 + 4 * 2.0)
    number = costs['corruptions'].forward - 1
    assert number in (14, 15)
    assert costs['corruptions'].seconds == 1 + 3 * ((number + 1) * 0.25 + number * 0.125)
    assert costs['universal'].seconds == 1 + 3 * 2 * 0.25 + 2 * 8 * 0.5
    total = sum(cost.seconds for cost in costs.values()) / 60
    assert f'which are {total:.1f} minutes here' in capsys.readouterr().out
    assert not (folder / 'planned').exists()


def test_a_killed_card_goes_on_to_the_same_bytes(folder, timed, capsys):
    words = ['config.py', 'trained.pth', '--parts', 'clean', 'noise', '--seed', '3']
    assert card_tool([*words, '--out', 'whole']) == 0
    records = folder / 'cut/parts/noise/unfinished'
    process = fork(card_tool, [*words, '--out', 'cut'], folder / 'log')
    assert kill_once(process, lambda: any(path.read_bytes().count(b'\n') > 1 for path in records.glob('rec*'))) == -9
    assert (folder / 'cut/parts/clean/results.json').is_file() and not (folder / 'cut/card.json').exists()
    assert 'holds an unfinished card; go on with --resume' in refused(
        lambda argv: main(['card', *argv]), [*words, '--out', 'cut'], folder / 'cut', capsys
    )
    assert card_tool([*words[:-1], '4', '--out', 'cut', '--resume']) == 2
    assert (
        'error: part clean: ' in (message := capsys.readouterr().err) and 'differs in seed (3 then, 4 now)' in message
    )
    assert card_tool([*words, '--out', 'cut', '--resume']) == 0
    for name in ('card.json', 'summary.md', 'summary.csv', 'summary.tex'):
        assert (folder / 'cut' / name).read_bytes() == (folder / 'whole' / name).read_bytes(), name
    noise = json.loads((folder / 'cut/cost.json').read_text())['parts']['noise']
    assert noise['actual'] is None  # a part of the work was done before the kill


def test_options_of_the_config_that_are_given_twice_all_count(folder, timed):
    twice = ['--cfg-options', 'test_dataloader.batch_size=2', '--cfg-options', 'test_dataloader.dataset.indices=[0,2]']
    assert card_tool(['config.py', 'trained.pth', '--parts', 'clean', '--out', 'twice', *twice]) == 0
    content = Card.load(folder / 'twice')
    assert (content.size, content.parts['clean'].images) == (2, 2)


def test_the_size_is_that_of_the_models_own_data(folder, timed):
    words = ['config.py', 'trained.pth', '--parts', 'clean', 'weather', '--weather', 'fog.py', '--out', 'sized']
    assert card_tool(words) == 0
    assert (Card.load(folder / 'sized').size, Card.load(folder / 'sized').parts['weather.fog'].images) == (6, 2)


def test_an_interrupt_says_how_to_go_on(folder, timed, monkeypatch, capsys):
    def stop(*arguments):
        (folder / 'stopped/parts').mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(card_command, '_run', stop)
    assert card_tool(['config.py', 'trained.pth', '--parts', 'clean', '--out', 'stopped']) == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        'mmadv card config.py trained.pth --parts clean --out stopped --resume'
    )


@pytest.mark.parametrize(
    ('words', 'sentence'),
    [
        (['--parts', 'weather'], '--parts weather: no data of bad weather; name their configs with --weather'),
        (['--parts', 'transfer'], '--parts transfer: no second model; name it with --source'),
        (['--parts', 'clean', '--without', 'clean'], '--parts and --without both name clean; leave out one of them'),
        (['--without', *PARTS], '--without leaves no part to measure; name fewer'),
        (['--parts', 'clean', '--sigma', '0.5'], '--sigma 0.5 is for certificates, which the card does not measure'),
        (['--without', 'region', '--region', 'class:box'], '--region class:box is for region, which the card does not'),
        (['--region', 'box:2'], '--region must be box:TOP,LEFT,HEIGHT,WIDTH, class:NAME or except:NAME'),
        (['--region', 'class:bax'], "--region: the dataset has no class 'bax'; did you mean 'box'?"),
        (['--eps', '4/255', '4/255'], '--eps names 4/255 twice; give it once'),
        (['--weather', 'none.py'], '--weather: weather config none.py does not exist'),
        (['--source', 'config.py'], '--source'),
        (['--resume'], '--resume needs --out'),
    ],
    ids=' '.join,
)
def test_refused(folder, timed, capsys, words, sentence):
    argv = ['config.py', 'trained.pth', *words]
    assert sentence in refused(lambda argv: main(['card', *argv]), argv, folder, capsys)


def test_a_resumed_card_has_the_weather_that_it_began_with(tmp_path):
    file = tmp_path / 'weather/fog.py'
    card_command._write_weather(file, 'a = 1', resume=True)
    card_command._write_weather(file, 'a = 1', resume=True)
    with pytest.raises(UserError, match='fog.py of this card is another config; use the same one, or another --out'):
        card_command._write_weather(file, 'a = 2', resume=True)
    card_command._write_weather(file, 'a = 2', resume=False)
    assert file.read_text() == 'a = 2'


def test_the_page_of_the_card_names_every_part():
    page = (Path(card_command.__file__).parents[2] / 'docs/card.md').read_text(encoding='utf-8')
    assert [name for name in PARTS if f'`{name}`' not in page] == []


def test_noise_of_the_training_comes_from_the_config():
    attack = {'type': 'RandomChoice', 'attacks': [{'type': 'PGD'}, {'type': 'GaussianNoise', 'sigma': 0.25}]}
    assert noise_of_training({'model': {'data_preprocessor': {'attack': attack}}}) == 0.25
    assert noise_of_training({'model': {'data_preprocessor': {'attack': {'type': 'PGD'}}}}) is None
    assert noise_of_training({'model': {'head': {'type': 'RandomGaussianBlur', 'sigma': 1}}}) is None


def test_l2_radii_grow_with_the_root_of_the_values():
    assert l2_radii([0.01, 0.02], 3 * 100 * 120) == ('1.9', '3.79')
