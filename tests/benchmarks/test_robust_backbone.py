"""The study of Pre, RB, AT and AT-101: AT-101 trains as AT, with a deeper network from a classifier of its depth."""

import json

import digit_classifiers
import experiments
import robust_backbone
import torch
from mmengine.config import Config, DictAction

from mmadv.models.building import build_segmentor


def options(command):
    words = command[command.index('--cfg-options') + 1 :] if '--cfg-options' in command else ()
    pairs = (word.partition('=') for word in words)
    return {key: DictAction._parse_iterable(value) for key, _, value in pairs}


def test_the_deeper_network_trains_as_the_other_from_a_classifier_of_its_depth(tmp_path, monkeypatch):
    runs = {item.name: item for item in robust_backbone.plan(tmp_path, tmp_path)}
    shallow, deep = (options(runs[f'{name}_0'].stages[0].command) for name in ('AT', 'AT-101'))
    checkpoint = 'model.backbone.init_cfg.checkpoint'
    differences = {key for key in {*shallow, *deep} if shallow.get(key) != deep.get(key)}
    assert differences == {'model.backbone.depths', checkpoint}
    assert options(runs['AT-101_0'].stages[1].command) == {'model.backbone.depths': [1, 1, 6, 1]}
    assert options(runs['AT_0'].stages[1].command) == {}
    classifier = digit_classifiers.Classifier(digit_classifiers.DEEP)
    path = digit_classifiers.weights(tmp_path, 'clean_deep')
    assert deep[checkpoint] == str(path)
    torch.save(classifier.network.state_dict(), path)
    config = Config.fromfile(experiments.ROOT / robust_backbone.ADVERSARIAL)
    config.merge_from_dict(deep)
    segmentor = build_segmentor(config)
    segmentor.init_weights()
    own = segmentor.backbone.state_dict()
    blocks = {
        key: value for key, value in classifier.network.state_dict().items() if key.startswith('stages.2.blocks.')
    }
    assert {key.split('.')[3] for key in blocks} == set('012345')
    found = {key: value for key, value in own.items() if 'stages.2.blocks.' in key}
    assert len(found) == len(blocks)
    assert all(torch.equal(value, blocks[key[key.index('stages.') :]]) for key, value in found.items())


def test_first_classifiers_are_those_that_are_needed(tmp_path):
    first, second = digit_classifiers.runs(tmp_path, ('clean', 'robust', 'clean_deep'))
    assert [item.name for item in first] == ['classifier_first', 'classifier_first_deep']
    assert [item.stages[0].command[1] for item in first] == ['clean', 'clean_deep']
    assert [item.stages[0].command[3][-8:] for item in second] == ['irst.pth', 'irst.pth', 'deep.pth']


def test_stored_records_keep_their_date(tmp_path, monkeypatch):
    monkeypatch.setattr(robust_backbone, 'RESULTS', tmp_path)
    assert robust_backbone.stored_content() == {'records': [], 'classifiers': {}}
    records = [{'method': 'Pre'}, {'method': 'AT-101', 'date': '2026-12-01'}]
    content = {'date': '2026-11-21', 'records': records, 'classifiers': {}}
    (tmp_path / 'robust_backbone.json').write_text(json.dumps(content))
    assert [one['date'] for one in robust_backbone.stored_content()['records']] == ['2026-11-21', '2026-12-01']
