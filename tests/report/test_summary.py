"""What is printed below the table of metrics."""

from dataclasses import replace

from mmadv.report.breakdown import write_breakdowns
from mmadv.report.evaluation import (
    Evaluation,
    MetricValues,
    MinimisedMIoU,
    ObjectSizes,
    PassCount,
    Passes,
    RadiusResult,
    RoundedValues,
    SizeAccuracies,
)
from mmadv.report.summary import summary_text
from mmadv.report.table import summary_table

SCALARS = dict.fromkeys(('aAcc', 'aAcc_image_mean', 'mAcc', 'mIoU'), 0.5)
VALUES = MetricValues(SCALARS, iou=(0.5, None), accuracy=(0.75, None), images=1, pixels=8)
PASSES = Passes(PassCount(1, 1.0), PassCount(1, 1.0))


def evaluation(**of_radius):
    return Evaluation(
        title='some attack',
        ignore_index=255,
        classes=('sky', 'a, b'),
        images=1,
        excluded=(),
        clean=VALUES,
        attacked={'4/255': RadiusResult(VALUES, {}, PASSES, **of_radius)},
    )


def test_without_anything_else_the_table_alone():
    assert summary_text(evaluation()) == summary_table(evaluation())


def test_the_search_for_the_lowest_miou_says_value_starts_and_bound():
    starts = {'worst_case': 0.1312, 'js': 0.1234, 'random 1': 0.125}
    minimised = MinimisedMIoU(value=0.1234, lower_bound=0.1, spread=0.0078, starts=starts)
    assert summary_text(evaluation(minimised=minimised)).endswith(
        '\n\n4/255: lowest mIoU over all choices of attacks found 12.34 %, from 3 starts that end between 12.34 and '
        '13.12 %; no choice is below 10.00 %'
    )
    undefined = MinimisedMIoU(value=None, lower_bound=None, spread=None, starts={'worst_case': None})
    assert summary_text(evaluation(minimised=undefined)).endswith('\n\n4/255: mIoU over the dataset is undefined')


def test_what_rounding_costs():
    rounded = RoundedValues(**vars(VALUES), difference=dict.fromkeys(SCALARS, 0.0123))
    assert summary_text(replace(evaluation(), rounded={'4/255': rounded})).endswith(
        '\n\n4/255: images rounded to 8 bits and predicted again: ACC (image mean) 50.00 % (+1.23 points), '
        'mIoU 50.00 % (+1.23 points)'
    )


def test_object_sizes_as_text_and_files(tmp_path):
    part = SizeAccuracies(pixels=(None, 0.25), objects=(None, 0.5))
    sizes = ObjectSizes(edges=(0.01,), objects=(0, 3), pixels=(0, 40), clean=part, attacked={'4/255': part})
    content = replace(evaluation(), object_sizes=sizes)
    lines = summary_text(content).splitlines()
    assert ' '.join(lines[-4].split()) == ('object size number pixels clean objects clean pixels 4/255 objects 4/255')
    assert lines[-2].split() == ['below', '1', '%', '0', '-', '-', '-', '-']
    assert lines[-1].split() == ['1', '%', 'and', 'more', '3', '25.00', '50.00', '25.00', '50.00']
    write_breakdowns(tmp_path, content)
    assert (tmp_path / 'per_class.csv').read_text().splitlines() == [
        'class,IoU clean,Acc clean,IoU 4/255,Acc 4/255',
        'sky,0.5,0.75,0.5,0.75',
        '"a, b",,,,',
    ]
    assert (tmp_path / 'object_sizes.csv').read_text().splitlines() == [
        'object size,objects,pixels,aAcc clean,object_mean clean,aAcc 4/255,object_mean 4/255',
        'below 1 %,0,0,,,,',
        '1 % and more,3,40,0.25,0.5,0.25,0.5',
    ]
