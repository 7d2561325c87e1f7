"""Every field of every component that mmengine and mmseg build from configs, with values of another type or range."""

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
    'pag': {'weight': 1.0},
}
# Field -> why other components, or the runner, check it.
OTHERS = {
    'runner': 'mmengine passes itself',
    'dataloader': 'mmengine builds it',
    'evaluator': 'mmengine builds it',
    'dataset': 'mmengine passes the one that it built',
    'data_preprocessor': 'mmseg builds it, or takes it as it is',
    'self': 'no field',
    'data_prefix': "mmseg's datasets take an empty one for that of their class",
    'pipeline': 'mmengine builds it',
    'auxiliary_head': 'mmseg builds it',
    'init_cfg': 'mmengine builds it, an empty list as none',
}
TEXTS = {
    'prefix',
    'collect_dir',
    'loss_name',
    'title',
    'img_suffix',
    'seg_map_suffix',
    'pretrained',
    'target',  # a class of the dataset, which is built first
}
# value -> fields for which it is right.
RIGHT = {
    "'no'": TEXTS | {'checkpoint'},
    "''": TEXTS | {'checkpoint'},
    'None': {'layer_scale'},
    '-1': {'ignore_index', 'pad_val', 'seg_pad_val', 'frozen_stages', 'interval', 'max_keep_ckpts', 'save_begin'},
    '-0.5': {'pad_val', 'seg_pad_val'},
    '2.5': {'pad_val', 'seg_pad_val', 'beta', 'loss_weight', 'layer_scale', 'norm_eps'},
    '0': {
        *('pad_val', 'seg_pad_val', 'beta', 'loss_weight', 'seed', 'label', 'void', 'show', 'val_begin', 'prob'),
        *('ignore_index', 'drop_path_rate', 'frozen_stages', 'unlabelled_channels', 'save_begin'),
    },
    '[]': {'radii', 'dynamic_intervals', 'class_weight', 'out_indices', 'stem_widths', 'measurements'},
    '{}': {'test_cfg', 'init_cfg', 'train_cfg', 'norm_cfg', 'backbone', 'decode_head', 'neck', 'auxiliary_head'},
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
    given = {one.name: NEEDED[one.name] for one in fields(component) if one.default is one.empty}
    given |= {key: NEEDED[key] for key in ('runner', 'dataloader', 'evaluator', 'dataset') if key in params(component)}
    with pytest.raises((UserError, TypeError), match='stepz'):
        component(**given, stepz=1)


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
    accepted, others = [], []
    for value in WRONG:
        if field in RIGHT.get(repr(value), ()) or value is default or value == default:
            continue
        if value is True and default in (True, False):
            continue
        given = {one.name: NEEDED[one.name] for one in fields(component) if one.default is one.empty}
        given |= {key: NEEDED[key] for key in OTHERS if key in params(component) and key in NEEDED}
        given[field] = value
        try:
            component(**given)
        except UserError as error:
            assert '\n' not in str(error)
        except Exception as error:
            others.append((value, repr(error)[:80]))
        else:
            accepted.append(value)
    assert not accepted, f'{component.__name__}.{field} accepted {accepted}'
    assert not others, others
