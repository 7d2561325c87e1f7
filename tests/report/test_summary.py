"""What is printed below the table of metrics."""

from mmadv.report.summary import summary_text
from mmadv.report.table import summary_table

VALUES = dict.fromkeys(('aAcc', 'aAcc_image_mean', 'mAcc', 'mIoU'), 0.5)


def evaluation(**of_radius):
    attacked = {'worst_case': VALUES, 'members': {}, **of_radius}
    return {'title': 'some attack', 'clean': VALUES, 'attacked': {'4/255': attacked}}


def test_without_anything_else_the_table_alone():
    assert summary_text(evaluation()) == summary_table(evaluation())


def test_the_search_for_the_lowest_miou_says_value_starts_and_bound():
    starts = {'worst_case': 0.1312, 'js': 0.1234, 'random 1': 0.125}
    minimised = {'value': 0.1234, 'lower_bound': 0.1, 'spread': 0.0078, 'starts': starts}
    assert summary_text(evaluation(minimised=minimised)).endswith(
        '\n\n4/255: lowest mIoU over all choices of attacks found 12.34 %, from 3 starts that end between 12.34 and '
        '13.12 %; no choice is below 10.00 %'
    )
    undefined = {'value': None, 'lower_bound': None, 'spread': None, 'starts': {'worst_case': None}}
    assert summary_text(evaluation(minimised=undefined)).endswith('\n\n4/255: mIoU over the dataset is undefined')
