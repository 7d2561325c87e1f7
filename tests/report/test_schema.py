"""Results as types: written and read again, of earlier and later versions, and described in docs/results.md."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from stored_results import content

from mmadv.errors import UserError
from mmadv.evaluation import ImageRecord
from mmadv.report import RunResults, load_results
from mmadv.report.measurement import MEASUREMENTS
from mmadv.report.metrics import METRICS
from mmadv.report.schema import InvalidValue, Schema, entry, inner_schemas, json_keys

DOCS = Path(__file__).parents[2] / 'docs' / 'results.md'


@dataclass(frozen=True)
class Point(Schema):
    """Two numbers, and a name that may be absent."""

    x: float
    pair: tuple[int, int] = (0, 0)
    name: str | None = entry(omit=True, default=None)


@dataclass(frozen=True)
class Track(Schema):
    """Points by name, and other keys of a known set."""

    points: dict[str, Point]
    others: dict[str, bool] = entry(keys=('a', 'b'))


def test_what_is_written_is_read_again():
    track = Track({'p': Point(1.5, (2, 3), 'n'), 'q': Point(1)}, {'a': True})
    written = {'points': {'p': {'x': 1.5, 'pair': [2, 3], 'name': 'n'}, 'q': {'x': 1, 'pair': [0, 0]}}, 'a': True}
    assert track.to_json() == written
    assert Track.from_json(json.loads(json.dumps({**written, 'of a later version': 1}))) == track


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        ({'points': {'p': {}}}, "track.points.p must be a dict with 'x'; found {}"),
        ({'points': {'p': {'x': 'one'}}}, "track.points.p.x must be a finite number; found 'one'"),
        ({'points': {'p': {'x': True}}}, 'track.points.p.x must be a finite number; found True'),
        ({'points': {'p': {'x': 1, 'pair': [1, 2.5]}}}, r'track.points.p.pair\[1\] must be an integer; found 2.5'),
        ({'points': {'p': {'x': 1, 'pair': [1]}}}, r'track.points.p.pair must be 2 integers; found \[1\]'),
        ({'points': [1]}, r'track.points must be a dict of items, each a Point; found \[1\]'),
        ({'points': {}, 'b': 1}, 'track.b must be True or False; found 1'),
        ([], r'track must be a dict; found \[\]'),
    ],
    ids=repr,
)
def test_the_key_that_does_not_fit_is_named(value, message):
    with pytest.raises(InvalidValue, match=message):
        Track.from_json(value, 'track')


def test_results_of_an_earlier_version_are_read(tmp_path):
    earlier = content()
    for key in ('intervals',):
        del earlier['evaluation'][key]
    for result in earlier['evaluation']['attacked'].values():
        del result['wins']
    run = RunResults.from_json(earlier)
    assert run.evaluation.interval('4/255', 'mIoU') is None and run.evaluation.failed == ()
    assert run.evaluation.attacked['8/255'].wins is None and run.pictures[0].kind == 'sample'
    assert (run.precision, run.space, run.source, run.summaries()) == ('float32', 'input', None, [])
    run.write(tmp_path)
    assert RunResults.load(tmp_path) == run
    # A reader of the dictionaries finds every key where it was.
    written = load_results(tmp_path)
    assert written['schema'] == 'mmadv/results' and written['schema_version'] == 1
    assert _within(earlier, written)


def _within(part, whole):
    if isinstance(part, dict):
        return all(key in whole and _within(value, whole[key]) for key, value in part.items())
    if isinstance(part, list):
        return len(part) == len(whole) and all(map(_within, part, whole))
    return part == whole


def test_results_that_do_not_fit_are_refused(tmp_path):
    RunResults.from_json(content()).write(tmp_path)
    path = tmp_path / 'results.json'
    changed = json.loads(path.read_text())
    changed['evaluation']['attacked']['4/255']['worst_case']['mIoU'] = 'high'
    path.write_text(json.dumps(changed))
    message = 'results.json.evaluation.attacked.4/255.worst_case.mIoU must be a finite number in'
    with pytest.raises(UserError, match=message):
        RunResults.load(tmp_path)


def _all_schemas(schema):
    schemas = [schema]
    for one in schemas:
        schemas += [inner for inner in dict.fromkeys(inner_schemas(one)) if inner not in schemas]
    return schemas


SCHEMAS = [one for kind in (RunResults, ImageRecord) for one in _all_schemas(kind)]
SCHEMAS += [
    one for kind in MEASUREMENTS.values() for inner in inner_schemas(kind.summary) for one in _all_schemas(inner)
]


@pytest.mark.parametrize('schema', dict.fromkeys(SCHEMAS), ids=lambda schema: schema.__name__)
def test_the_page_describes_every_field(schema):
    described = set(re.findall(r'`([^`\n]+)`', DOCS.read_text(encoding='utf-8')))
    assert [key for key in json_keys(schema) if key not in described] == []


@pytest.mark.parametrize('kind', MEASUREMENTS.values(), ids=lambda kind: kind.__name__)
def test_the_page_describes_every_measurement(kind):
    text = DOCS.read_text(encoding='utf-8')
    assert f'`{kind.name}`' in text and (not kind.key or f'`{kind.key}`' in text)


def test_the_page_describes_every_metric():
    section = DOCS.read_text(encoding='utf-8').partition('### Metrics')[2].partition('###')[0]
    assert [name for name in METRICS if f'`{name}`' not in section] == []
