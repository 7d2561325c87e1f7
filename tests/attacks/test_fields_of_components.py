"""Every field of every registered component, with values of another type or out of range."""

import inspect
import math

import pytest

import mmadv.attacks
import mmadv.robustness
from mmadv.errors import UserError
from mmadv.registry import ATTACKS, PARTS, build

LINF = {'type': 'Linf', 'radius': '4/255'}
PGD = {'type': 'PGD', 'threat': LINF, 'steps': 2}
GIVEN = {
    'threat': LINF,
    'radius': '4/255',
    'attack': PGD,
    'attacks': {'a': PGD, 'b': PGD},
    'sigma': 0.1,
    'top': 0.2,
    'left': 0.0,
    'height': 0.5,
    'width': 0.5,
}
# The attacks that wrap others take particular ones.
INNER = {
    'RadiusReduction': {**PGD, 'keep': 'lowest_accuracy'},
    'FurthestClass': {'type': 'ScheduledPGD', 'threat': LINF, 'steps': 2},
    'StepSearch': {'type': 'FGSM', 'threat': LINF},
}
WRONG = ['no', '', [], {}, [None], -1, -0.5, 10**30, 1e30, math.nan, math.inf, None, 2.5, 0, True, object()]
# (field, value) -> why it is right.
RIGHT = {
    'None': {'step_size', 'max_radius', 'region', 'weights'},  # the default
    'True': {'targeted', 'random_start', 'random_step'},
    '0': {'flipped_weight', 'momentum', 'top', 'left'},  # an end of the range
    '[]': {'relays'},  # no relay
    '2.5': {'start'},  # a larger ball
    "'no'": {'label'},  # any text
    "''": {'label'},
}
# Norms that grow with the number of values have larger balls.
LARGE_BALLS = (('L1', 'radius', 2.5), ('L2', 'radius', 2.5))


def arguments(entry):
    needed = {
        name: GIVEN[name] for name, one in inspect.signature(entry).parameters.items() if one.default is one.empty
    }
    if entry.__name__ in INNER:
        needed['attack'] = INNER[entry.__name__]
    if entry.__name__ == 'ByRadius':  # which has one attack for each radius
        needed['attacks'] = {'a': PGD, 'b': {**PGD, 'threat': {'type': 'Linf', 'radius': '8/255'}}}
    return needed


COMPONENTS = [(registry, name) for registry in PARTS for name in registry.names()]
FIELDS = [(*one, field) for one in COMPONENTS for field in inspect.signature(one[0].get(one[1])).parameters]


@pytest.mark.parametrize(('registry', 'name'), COMPONENTS, ids=lambda one: getattr(one, 'kind', one))
def test_components_build_and_refuse_misspelt_fields(registry, name):
    entry = registry.get(name)
    config = {'type': name, **arguments(entry)}
    build(config, registry)
    for field in inspect.signature(entry).parameters:
        with pytest.raises(UserError, match=f"{name} has no argument '{field}x'; did you mean '"):
            build({**config, f'{field}x': 1}, registry)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(('registry', 'name', 'field'), FIELDS, ids=lambda one: getattr(one, 'kind', one))
def test_every_wrong_value_of_a_field_is_refused(registry, name, field):
    entry = registry.get(name)
    accepted = []
    for value in WRONG:
        if field in RIGHT.get(repr(value), ()) or (name, field, value) in (
            (norm, 'radius', 2.5) for norm in ('L1', 'L2')
        ):
            continue
        config = {'type': name, **arguments(entry), field: value}
        settings = {key: one for key, one in config.items() if key != 'type'}
        for make, one in ((build, (config, registry)), (lambda settings: entry(**settings), (settings,))):
            try:
                make(*one)
            except UserError as error:
                assert '\n' not in str(error)
            else:
                accepted.append(value)
    assert not accepted, f'{name}.{field} accepted {accepted}'


def test_text_is_no_boolean():
    with pytest.raises(UserError, match=r"PGD\.random_start must be True or False; found 'no' \(text\)"):
        build({**PGD, 'random_start': 'no'}, ATTACKS)
    with pytest.raises(UserError, match=r'PGD\.random_start must be True or False'):
        mmadv.attacks.PGD(threat=LINF, random_start='no')
