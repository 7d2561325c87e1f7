"""Accuracy by the size of the labelled objects, from predictions counted by hand."""

from dataclasses import replace

import pytest
import torch

from mmadv.engine.measurements import ObjectSizes
from mmadv.engine.predictor import AttackedAtRadius, PredictedGroup
from mmadv.errors import UserError
from mmadv.evaluation import ImageRecord
from mmadv.report.evaluation import AttackedImage, ImageResult
from mmadv.report.measurement import Outcome


def measured():
    """Three images of two objects, 0 0 and 1 1, half of the image each; the last one is void."""
    labels = torch.tensor([[[0, 0, 1, 1]], [[0, 0, 1, 1]], [[255] * 4]])
    clean = torch.tensor([[[0, 0, 1, 1]], [[0, 0, 0, 1]], [[1] * 4]])
    predictions = {
        'x': torch.tensor([[[0, 0, 0, 0]], [[1, 1, 0, 0]], [[0] * 4]]),  # 2 of 4, 0 of 4
        'y': torch.tensor([[[1, 0, 0, 0]], [[0, 0, 1, 1]], [[0] * 4]]),  # 1 of 4, 4 of 4
    }
    attacked = AttackedAtRadius(predictions, labels, None, labels, labels, 0.0, {})
    group = PredictedGroup(None, ['0', '1', '2'], [0, 1, 2], None, labels, 255, clean, attacked={'4/255': attacked})
    values = ObjectSizes().measure(None, group)
    records = [
        ImageRecord(n, str(n), None, 'a', 255, {}, [], {}, measurements={'objects': value})
        for n, value in enumerate(values)
    ]
    worst = ('y', 'x', None)
    images = [
        ImageResult(n, str(n), 4, None, {'4/255': AttackedImage({}, None, name, 0, 0)}) for n, name in enumerate(worst)
    ]
    return Outcome(None, images, records)


def test_each_images_worst_member_counts():
    result = ObjectSizes().summarise(None, measured())
    assert (result.objects, result.pixels) == ((0, 0, 0, 4), (0, 0, 0, 8))
    assert result.clean.to_json() == {'aAcc': [None, None, None, 7 / 8], 'object_mean': [None, None, None, 3.5 / 4]}
    assert result.attacked['4/255'].pixels[3] == 1 / 8
    assert result.attacked['4/255'].objects[3] == 0.5 / 4


def test_records_of_an_earlier_version_have_no_sizes():
    outcome = measured()
    earlier = [replace(outcome.records[0], measurements={}), *outcome.records[1:]]
    assert ObjectSizes().summarise(None, outcome._replace(records=earlier)) is None


def test_as_text_and_file(tmp_path):
    part = {'aAcc': [None, 0.25], 'object_mean': [None, 0.5]}
    stored = {'edges': [0.01], 'objects': [0, 3], 'pixels': [0, 40], 'clean': part, 'attacked': {'4/255': part}}
    sizes = ObjectSizes.read({'object_sizes': stored})
    lines = ObjectSizes.text(sizes).splitlines()
    assert ' '.join(lines[1].split()) == ('object size number pixels clean objects clean pixels 4/255 objects 4/255')
    assert lines[-2].split() == ['below', '1', '%', '0', '-', '-', '-', '-']
    assert lines[-1].split() == ['1', '%', 'and', 'more', '3', '25.00', '50.00', '25.00', '50.00']
    ObjectSizes().write(None, tmp_path, None, sizes)
    assert (tmp_path / 'object_sizes.csv').read_text().splitlines() == [
        'object size,objects,pixels,aAcc clean,object_mean clean,aAcc 4/255,object_mean 4/255',
        'below 1 %,0,0,,,,',
        '1 % and more,3,40,0.25,0.5,0.25,0.5',
    ]
    with pytest.raises(UserError, match="object_sizes.edges must be a list of numbers in .0, 1.; found 'x'"):
        ObjectSizes.read({'object_sizes': {**stored, 'edges': 'x'}})
