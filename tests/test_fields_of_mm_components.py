"""Every field of every component that mmengine and mmseg build from configs, with values of another type or range."""

import importlib.util
import inspect
import math

import mmengine.registry
import mmseg.registry
import pytest
from mmengine.registry import Registry

import mmadv  # noqa: F401  (registers)
from mmadv.errors import UserError

PGD = {'type': 'PGD', 'threat': {'type': 'Linf', 'radius': '4/255'}, 'steps': 1}
WRONG = ['no', '', [], {}, [None], -1, -0.5, 10**30, 1e30, math.nan, math.inf, None, 2.5, 0, True, object()]
# What a component needs, beside the field that is tried.
NEEDED = {
    'attack': PGD,
    'target': {'type': 'OneImage'},
    'radius': '4/255',
    'corruptions': ['fog'],
    'size': 4,
    'split': 'val',
    'length': 2,
    'checkpoint': 'weights.pth',
    'runner': None,
    'dataloader': {},
    'evaluator': {},
    'max_iters': 1,
    'dataset': [1],
    'backbone': {},
    'decode_head': {},
    'excluded_classes': (0,),
    'pag': {'weight': 1.0},
    'pretrained': '/nowhere/model',
    'model': 'lraspp_mobilenet_v3_large',
}
# Field -> why other components, or the runner, check it.
OTHERS = {
    'runner': 'mmengine passes itself',
    'dataloader': 'mmengine builds it',
    'evaluator': 'mmengine builds it',
    'dataset': 'mmengine passes the one that it built',
    'data_preprocessor': 'mmseg builds it, or takes it as it is',
    'self': 'no field',
    'init_cfg': 'mmengine builds it, an empty list as none',
}
METRIC = {"'no'": 'prefix collect_dir', "''": 'prefix collect_dir', '-1': 'ignore_index', '0': 'ignore_index'}
WEIGHT = {'2.5': 'loss_weight', '0': 'loss_weight'}
# Component -> value -> the fields for which it is right, or wrong for another reason that is told first.
RIGHT = {
    'AdvSegDataPreProcessor': {'0': 'prob'},
    'AttackMetric': METRIC,
    # Then the runner is read, which is None here.
    'AttackTestLoop': {"'no'": 'title target', "''": 'title target', '[]': 'radii measurements'},
    'CommonCorruption': {
        '0': 'prob seed',
        **dict.fromkeys(("'no'", "''"), 'frost_photographs'),
        # An empty list stands for all corruptions, and frost needs the photographs of this package.
        **({'[]': 'corruptions'} if importlib.util.find_spec('imagecorruptions') else {}),
    },
    'CostSampler': {'0': 'seed'},
    'FreeAdvSegDataPreProcessor': {
        **dict.fromkeys(('-1', '-0.5', '2.5'), 'pad_val seg_pad_val'),
        '0': 'seg_pad_val',
        '{}': 'test_cfg',
    },
    'FreeTrainLoop': {'0': 'val_begin', '[]': 'dynamic_intervals'},
    'JensenShannonLoss': WEIGHT,
    'KLDivergenceLoss': WEIGHT,
    'PlainResNet': {'0': 'frozen_stages', '{}': 'norm_cfg'},
    'RandomGaussianBlur': {'0': 'prob'},
    'RobustPretrained': {"'no'": 'checkpoint', "''": 'checkpoint'},
    'EnsembleMetric': METRIC,
    # MMSeg builds the parts, here of empty configs, and says so.
    'TRADESEncoderDecoder': {
        '{}': 'backbone decode_head neck auxiliary_head train_cfg test_cfg',
        **dict.fromkeys(("'no'", "''"), 'pretrained'),
        **dict.fromkeys(('2.5', '0'), 'beta'),
    },
    'TorchvisionSegmentor': {'None': 'weights'},
    'TimmConvNeXt': {'None': 'layer_scale', '2.5': 'layer_scale'},
    'TimmVisionTransformer': {'2.5': 'norm_eps'},
}


def components():
    for module in (mmseg.registry, mmengine.registry):
        for registry in vars(module).values():
            for component in registry.module_dict.values() if isinstance(registry, Registry) else ():
                if component.__module__.split('.')[0] == 'mmadv' and inspect.isclass(component):
                    yield component


COMPONENTS = sorted(set(components()), key=lambda one: one.__name__)


def fields(component):
    parameters = inspect.signature(component.__init__).parameters.values()
    return [
        one for one in parameters if one.name not in OTHERS and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    ]


@pytest.mark.parametrize('component', COMPONENTS, ids=lambda one: one.__name__)
def test_misspelt_fields_are_refused(component):
    if component.__init__ is object.__init__:
        with pytest.raises(TypeError, match='takes no arguments'):
            component(x=1)
        return
    arguments = {one.name: NEEDED[one.name] for one in fields(component) if one.default is one.empty}
    arguments |= {
        key: NEEDED[key] for key in ('runner', 'dataloader', 'evaluator', 'dataset') if key in params(component)
    }
    with pytest.raises((UserError, TypeError), match='stepz'):
        component(**arguments, stepz=1)


def params(component):
    return inspect.signature(component.__init__).parameters


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
    ('component', 'field'),
    [(one, field.name) for one in COMPONENTS for field in fields(one)],
    ids=lambda one: getattr(one, '__name__', one),
)
def test_every_wrong_value_of_a_field_is_refused(component, field):
    default = params(component)[field].default
    right = RIGHT.get(component.__name__, {})
    accepted, others, refused = [], [], []
    for value in WRONG:
        if value is default or value == default or (value is True and default in (True, False)):
            continue
        arguments = {one.name: NEEDED[one.name] for one in fields(component) if one.default is one.empty}
        arguments |= {key: NEEDED[key] for key in OTHERS if key in params(component) and key in NEEDED}
        arguments[field] = value
        is_right = field in right.get(repr(value), '').split()
        try:
            component(**arguments)
        except UserError as error:
            assert '\n' not in str(error)
            refused += [value] * is_right
        except Exception as error:
            others += [(value, repr(error)[:80])] * (not is_right)
        else:
            accepted += [value] * (not is_right)
    assert not accepted, f'{component.__name__}.{field} accepted {accepted}'
    assert not others, others
    assert not refused, f'{component.__name__}.{field} refuses {refused}, which need no leave'


def test_only_components_have_leave():
    known = {f'{one.__name__}.{field.name}' for one in COMPONENTS for field in fields(one)}
    pairs = [(name, text) for name, row in RIGHT.items() for text in row.values()]
    assert {f'{name}.{field}' for name, text in pairs for field in text.split()} <= known


@pytest.mark.parametrize('loss', ['KLDivergenceLoss', 'JensenShannonLoss'])
def test_losses_that_mmseg_would_drop_are_refused(loss):
    component = next(one for one in COMPONENTS if one.__name__ == loss)
    with pytest.raises(UserError, match=f"{loss}.loss_name must be a text that begins with 'loss_'; found 'kl'"):
        component(loss_name='kl')


@pytest.mark.parametrize(('name', 'more'), [('AttackTestLoop', {'radii': ['4/255']}), ('AttackValLoop', {})])
def test_loops_need_the_config_of_a_dataset(name, more):
    loop = next(one for one in COMPONENTS if one.__name__ == name)
    runner = type('Runner', (), {'cfg': {}, 'model': None})()
    with pytest.raises(UserError, match=f"must be a config with 'dataset' for {name}; found {{}}"):
        loop(runner, {}, {}, attack=PGD, **more)
