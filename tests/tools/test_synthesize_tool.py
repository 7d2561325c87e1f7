"""tools/synthesize.py on a tiny trained model: what it writes, and what it refuses."""

import json

import numpy as np
import pytest
from PIL import Image

from mmadv.attacks import L2
from mmadv.commands.synthesis_columns import columns, model_specs
from mmadv.commands.synthesizing import parser

MODEL = ['config.py', 'trained.pth']
SHORT = ['--steps', '5', '--step-size', '0.3']


def synthesize(tool, project, task, *arguments):
    assert tool([task, *MODEL, *arguments, *SHORT, '--out', 'out']) == 0
    return json.loads((project / 'out' / 'synthesis.json').read_text())


def picture(project, name):
    return np.asarray(Image.open(project / 'out' / 'images' / name))


def test_inpainting_measures_the_box_of_every_model(project, synthesize_tool, capsys):
    other = ['--model', 'config.py', 'trained.pth', '--frames', '2']
    results = synthesize(synthesize_tool, project, 'inpaint', '0', '2', '--box', '4', '5', '12', '9', *other)
    assert [model['title'] for model in results['models']] == ['config', 'config (2)']
    assert results['quality']['config'] == results['quality']['config (2)']
    original = np.asarray(Image.open(project / 'data' / 'images' / '2.png')) / 255
    painted = picture(project, 'model0_image1.png') / 255
    box = (slice(4, 16), slice(5, 14))
    error = np.abs(painted - original)[box].mean()
    assert results['quality']['config'][1]['mae'] == pytest.approx(error, abs=2e-3)
    assert results['quality']['config'][1]['psnr'] == pytest.approx(
        -10 * np.log10(((painted - original)[box] ** 2).mean()), abs=0.1
    )
    assert Image.open(project / 'out' / 'frames' / 'model1_image0.gif').n_frames == 3
    assert (project / 'out' / 'sheet.png').stat().st_size > 5000
    assert f'PSNR {results["quality"]["config"][1]["psnr"]:.2f} dB' in capsys.readouterr().out


def test_generation_follows_labels_or_a_class(project, synthesize_tool):
    whole = synthesize(synthesize_tool, project, 'generate', '0')
    assert whole['images'] == ['0.png'] and whole['quality'] == {}
    results = synthesize(synthesize_tool, project, 'generate', 'disc', '--count', '2', '--seed', '1')
    assert results['settings']['class'] == 'disc' and results['settings']['gaussian_images'] == 5
    assert len(results['images']) == 2
    first, second = picture(project, 'model0_image0.png'), picture(project, 'model0_image1.png')
    assert (first != second).any()


def test_a_target_stays_in_the_ball_smoothed_or_not(project, synthesize_tool):
    original = np.asarray(Image.open(project / 'data' / 'images' / '0.png')) / 255
    for smooth in ([], ['--smooth', '0.1', '--samples', '2']):
        synthesize(synthesize_tool, project, 'target', 'box', '--images', '0', '--eps', '0.8', *smooth)
        change = np.linalg.norm(picture(project, 'model0_image0.png') / 255 - original)
        assert 0.5 < change < 0.9  # 0.8, and rounding to bytes


@pytest.mark.filterwarnings('ignore:.*, less than the radius:UserWarning')
def test_models_side_by_side_are_smoothed_each_by_its_own_noise(project, synthesize_tool):
    models = ['--model', *MODEL, '0.1', '--model', *MODEL, '--samples', '2']
    results = synthesize(synthesize_tool, project, 'target', 'box', *models)
    assert [(model['title'], model['sigma']) for model in results['models']] == [
        ('config', None),
        ('config, σ = 0.1', 0.1),
        ('config (2)', None),
    ]
    plain, smoothed, again = (picture(project, f'model{m}_image0.png') for m in range(3))
    assert (plain == again).all() and (plain != smoothed).any()


def test_a_sheet_has_a_column_for_every_objective_and_number_of_samples(project, synthesize_tool):
    sheet = ['--smooth', '0.1', '--objective', 'mean_logit', 'cross_entropy', '--samples', '1', '3']
    results = synthesize(synthesize_tool, project, 'target', 'box', '--eps', '1', *sheet)
    columns = [(column['title'], column['objective'], column['samples']) for column in results['models']]
    assert columns == [
        ('config, σ = 0.1, mean logit, 1 sample', 'mean_logit', 1),
        ('config, σ = 0.1, mean logit, 3 samples', 'mean_logit', 3),
        ('config, σ = 0.1, cross-entropy, 1 sample', 'cross_entropy', 1),
        ('config, σ = 0.1, cross-entropy, 3 samples', 'cross_entropy', 3),
    ]
    painted = [picture(project, f'model{n}_image0.png') for n in range(4)]
    assert all((one != other).any() for n, one in enumerate(painted) for other in painted[:n])
    for n, (_, objective, samples) in list(enumerate(columns))[1:3]:
        alone = ['--smooth', '0.1', '--eps', '1', '--objective', objective, '--samples', samples]
        synthesize(synthesize_tool, project, 'target', 'box', *alone)
        assert (picture(project, 'model0_image0.png') == painted[n]).all()


def test_the_preset_has_the_numbers_of_the_paper():
    """The table of appendix C of Kaur, Cohen and Lipton; a given option wins."""

    def sheet(*options):
        arguments = parser().parse_args(['target', *MODEL, 'box', '--preset', 'kaur', *options])
        chosen = columns(arguments, model_specs(arguments))
        return [
            (one.smoothing, one.objective, one.descent.steps, one.descent.step_size, one.descent.threat)
            for one in chosen
        ]

    assert sheet('--smooth', '0.5') == [((0.5, 20), 'mean_logit', 300, 0.7, L2(radius=40))]
    assert sheet('--model', *MODEL, '0.25') == [
        (None, 'mean_logit', 300, 2.8, L2(radius=40)),
        ((0.25, 20), 'mean_logit', 300, 0.7, L2(radius=40)),
    ]
    figure_13 = sheet('--smooth', '0.5', '--objective', 'cross_entropy', 'mean_logit')
    assert [(objective, size) for _, objective, _, size, _ in figure_13] == [
        ('cross_entropy', 2.0),
        ('mean_logit', 0.7),
    ]
    figure_14 = sheet('--smooth', '0.5', '--samples', '1', '5', '50')
    assert [smoothing for smoothing, *_ in figure_14] == [(0.5, 1), (0.5, 5), (0.5, 50)]
    given = sheet('--smooth', '0.5', '--steps', '9', '--step-size', '0.3', '--eps', '2')
    assert given == [((0.5, 20), 'mean_logit', 9, 0.3, L2(radius=2))]
    arguments = parser().parse_args(['generate', *MODEL, 'box', '--preset', 'kaur'])
    (generated,) = columns(arguments, model_specs(arguments))
    assert (generated.descent.threat, generated.descent.step_size) == (L2(radius=40), 2.8)


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['target', *MODEL, 'box', '--samples', '3'], '--samples is for smoothed models; give --smooth too'),
        (['target', *MODEL, 'box', '--smooth', '0.1', '--samples', '3', '3'], '--samples takes each value once'),
        (['generate', *MODEL, '0', '--objective', 'mean_logit'], '--objective is for a class'),
        (['generate', *MODEL, '0', '--preset', 'kaur'], '--preset is for a class'),
        (['inpaint', *MODEL, '9'], "images must be indexes of test images, from 0 to 5; found '9'"),
        (['inpaint', *MODEL, '0', '--box', '0', '0', '40', '4'], '--box 0 0 40 4 does not lie in the images, 32x32'),
        (['inpaint', *MODEL, '0', '--mask', 'mask.png'], 'mask.png is 5x4 and the images 32x32'),
        (['inpaint', *MODEL, '0', '1'], 'must have one size'),
        (['target', *MODEL, 'disk'], "the data has no class 'disk'; did you mean 'disc'?"),
        (['generate', *MODEL, 'disc', 'box'], "images must be indexes of test images, or one class; found 'disc box'"),
        (['generate', *MODEL, 'disc', '--count', '0'], "--count must be an integer in [1, 1000000000]; found '0'"),
        (['target', *MODEL, 'disc', '--smooth', '0'], '--smooth must be a number in (0, 1]'),
        (['target', *MODEL, 'disc', '--model', *MODEL, '0'], '--model: the deviation must be a number in (0, 1]'),
        (
            ['target', *MODEL, 'disc', '--model', *MODEL, 'x'],
            "--model: the deviation must be a number in (0, 1], in units of images in [0, 1]; found 'x'",
        ),
        (['target', *MODEL, 'disc', '--model', *MODEL, '0.1', '1'], 'at most, the standard deviation of the noise'),
        (['target', *MODEL, 'disc', '--model', 'config.py'], '--model: config config.py: give a checkpoint after the'),
        (['target', 'config.py', 'disc'], 'config config.py: give a checkpoint after the config'),
        (['inpaint', 'config.py', '0', '2'], 'the checkpoint 0 does not exist'),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(arguments, sentence, project, synthesize_tool, capsys):
    Image.fromarray(np.full((5, 4), 255, np.uint8)).save(project / 'mask.png')
    assert synthesize_tool([*arguments, '--out', 'out']) == 2
    assert sentence in capsys.readouterr().err
    assert not (project / 'out').exists()
