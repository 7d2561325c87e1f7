"""The attack configs of SEA's tables and figures, against the paper's text."""

import pytest
from mmengine.config import Config
from toy_models import batch, conv_net

from mmadv.attacks import APGD, CosPGD, Linf, RadiusReduction, Restarts, SegPGD, WorstCase, objectives, sea
from mmadv.attacks.steps import step_notes
from mmadv.config_paths import cfg
from mmadv.engine.spec import attacks_by_radius
from mmadv.errors import UserError
from mmadv.registry import ATTACKS, build

SEA_LOSSES = dict(
    masked_ce=objectives.MaskedCrossEntropy(),
    balanced_ce=objectives.BalancedCrossEntropy(),
    js=objectives.JensenShannon(),
    masked_spherical=objectives.MaskedSpherical(),
)
# Appendix B.1 and C.1: step size by radius.
TABLE_1 = {'2/255': 2e-3, '4/255': 4e-3, '8/255': 5e-3, '12/255': 6e-3}
TABLE_7 = {'4/255': 5e-3, '8/255': 1e-2, '12/255': 1e-2, '16/255': 1e-2}


def attack_file(name):
    return build(Config.fromfile(cfg(f'_base_/attacks/{name}.py')).attack.to_dict(), ATTACKS)


@pytest.mark.parametrize(('suffix', 'keep'), [('', 'best_loss'), ('_lowest_accuracy', 'lowest_accuracy')])
def test_table_1(suffix, keep):
    attack = attack_file(f'sea_table_1{suffix}')
    for radius, step_size in TABLE_1.items():
        settings = dict(threat=Linf(radius=radius), steps=300, step_size=step_size, keep=keep)
        assert attack.with_radius(radius) == WorstCase(
            attacks=dict(cospgd=CosPGD(**settings), segpgd=SegPGD(**settings), **sea(radius, 300).attacks)
        )
    assert step_notes(attack, attacks_by_radius(attack, list(TABLE_1))) == []  # nothing is scaled
    with pytest.raises(UserError, match='ByRadius has no attack for Linf 16/255, only for Linf 2/255, Linf 4/255, '):
        attack.with_radius('16/255')


@pytest.mark.parametrize(('suffix', 'keep'), [('', 'best_loss'), ('_lowest_accuracy', 'lowest_accuracy')])
def test_table_7(suffix, keep):
    attack = attack_file(f'sea_table_7{suffix}')
    for radius, step_size in TABLE_7.items():
        threat = Linf(radius=radius)
        pgd = {
            name: kind(threat=threat, steps=100, step_size=step_size, keep=keep)
            for name, kind in dict(segpgd=SegPGD, cospgd=CosPGD).items()
        }
        apgd = {
            name: APGD(threat=threat, steps=100, objective=objective)
            for name, objective in dict(
                segapgd=objectives.BalancedCrossEntropy(), cosapgd=objectives.CosineCrossEntropy()
            ).items()
        }
        assert attack.with_radius(radius) == WorstCase(attacks=pgd | apgd)


@pytest.mark.parametrize('radius', ['0.25/255', '4/255', '16/255'])
def test_tables_2_and_8(radius):
    six = dict(ce=objectives.CrossEntropy(), cosine_ce=objectives.CosineCrossEntropy(), **SEA_LOSSES)
    attacks = {name: APGD(threat=Linf(radius=radius), steps=100, objective=loss) for name, loss in six.items()}
    assert attack_file('sea_tables_2_8').with_radius(radius) == WorstCase(attacks=attacks)


def test_arms_of_figures_2_to_4():
    apgd = {name: APGD(threat=Linf(radius='8/255'), steps=100, objective=loss) for name, loss in SEA_LOSSES.items()}
    restarts = {name: Restarts(attack=attack, restarts=3) for name, attack in apgd.items()}
    assert attack_file('sea_restarts_3x100_4').with_radius('8/255') == WorstCase(attacks=restarts)
    assert attack_file('sea_constant_radius_100_4').with_radius('8/255') == WorstCase(attacks=apgd)
    reduced = {name: RadiusReduction(attack=attack).with_steps(300) for name, attack in apgd.items()}
    assert sea('8/255') == WorstCase(attacks=reduced)


def test_figures_7_to_10():
    apgd = APGD(threat=Linf(radius='2/255'), steps=300, objective=objectives.MaskedCrossEntropy())
    assert attack_file('sea_figures_7_10').with_radius('2/255') == RadiusReduction(attack=apgd)


def test_one_run_has_every_column_of_table_1():
    model, (images, labels) = conv_net(2).eval(), batch(2)
    attack = attack_file('sea_table_1').with_steps(12).with_radius('0.04706')  # 12/255 in five digits
    result = attack(model, images, labels, seeds=[1, 2, 3])
    assert list(result.members) == ['cospgd', 'segpgd', *SEA_LOSSES]
    assert (result.images - images).abs().max() <= 0.04706 + 1e-9
    strongest = min(member.accuracy.mean() for name, member in result.members.items() if name in SEA_LOSSES)
    assert result.accuracy.mean() <= strongest <= result.members['cospgd'].accuracy.mean()
