"""label_map_notes compares the classes of a network from elsewhere with those of a data set."""

import pytest
from mmseg.models.segmentors import EncoderDecoder

from mmadv.engine.label_map import label_map_notes
from mmadv.errors import UserError
from mmadv.models.segmentors import TorchvisionSegmentor


@pytest.fixture(scope='module')
def network():
    return TorchvisionSegmentor('lraspp_mobilenet_v3_large', None, num_classes=2)


@pytest.fixture
def segmentor(network, monkeypatch):
    def named(*names, reduces=False):
        monkeypatch.setattr(network, 'class_names', names)
        monkeypatch.setattr(network, 'reduces_labels', reduces)
        return network

    return named


def test_same_names_raise_no_doubt(segmentor):
    classes = dict(classes=('background', 'traffic light'), reduce_zero_label=True)
    assert label_map_notes(segmentor('__background__', 'Traffic-Light'), classes) == []
    assert label_map_notes(segmentor('background', 'traffic light', reduces=True), classes) == []
    assert label_map_notes(EncoderDecoder.__new__(EncoderDecoder), {}) == []


def test_other_names_and_reduced_labels_are_told(segmentor):
    one, two = label_map_notes(segmentor('sky', 'car', reduces=True), dict(classes=('sky', 'auto')))
    assert one.startswith(
        "1 of 2 classes have other names in LRASPP than in the data set, first class 1: 'car' and 'auto'"
    )
    assert two.startswith('the processor of LRASPP takes 1 from labels and makes 0 void')


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        (
            ('a', 'b', 'c', 'd'),
            r'LRASPP has 4 classes \(a, b, c, ...\), the data set has 2 \(a, b\); give model.classes',
        ),
        (('b', 'a'), "LRASPP has the data set's classes in another order, b, a; give model.classes, .*: a, b$"),
    ],
)
def test_refuses_other_numbers_and_orders(segmentor, names, message):
    with pytest.raises(UserError, match=message):
        label_map_notes(segmentor(*names), dict(classes=('a', 'b')))
