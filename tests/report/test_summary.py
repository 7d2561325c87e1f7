"""What is printed below the table of metrics."""

from dataclasses import dataclass, replace

from stored_results import content

from mmadv.report.evaluation import Evaluation, MetricValues, MinimisedMIoU, PassCount, Passes, RadiusResult
from mmadv.report.measurement import MEASUREMENTS, Measurement
from mmadv.report.run import RunResults
from mmadv.report.summary import run_text
from mmadv.report.table import Table, classes_table, summary_table

SCALARS = dict.fromkeys(('aAcc', 'aAcc_image_mean', 'mAcc', 'mIoU'), 0.5)
VALUES = MetricValues(scalars=SCALARS, iou=(0.5, None), accuracy=(0.75, None), images=1, pixels=8)
PASSES = Passes(PassCount(1, 1.0), PassCount(1, 1.0))


def run(**of_radius):
    evaluation = Evaluation(
        title='some attack',
        ignore_index=255,
        classes=('sky', 'a, b'),
        images=1,
        excluded=(),
        clean=VALUES,
        attacked={'4/255': RadiusResult(VALUES, {}, PASSES, **of_radius)},
    )
    return replace(RunResults.from_json(content()), evaluation=evaluation)


def test_without_anything_else_the_table_alone():
    assert run_text(run()) == summary_table(run().evaluation)


def test_the_search_for_the_lowest_miou_says_value_starts_and_bound():
    starts = {'worst_case': 0.1312, 'js': 0.1234, 'random 1': 0.125}
    minimised = MinimisedMIoU(value=0.1234, lower_bound=0.1, spread=0.0078, starts=starts)
    assert run_text(run(minimised=minimised)).endswith(
        '\n\n4/255: lowest mIoU over all choices of attacks found 12.34 %, from 3 starts that end between 12.34 and '
        '13.12 %; no choice is below 10.00 %'
    )
    undefined = MinimisedMIoU(value=None, lower_bound=None, spread=None, starts={'worst_case': None})
    assert run_text(run(minimised=undefined)).endswith('\n\n4/255: mIoU over the dataset is undefined')


def test_a_measurement_adds_its_sentences_or_its_tables(monkeypatch):
    @dataclass
    class Luck(Measurement):
        name = 'luck'
        summary = dict[str, float]

        @classmethod
        def tables(cls, summary):
            return [Table(('what', 'how much'), tuple(summary.items()), text_columns=1, caption='luck')]

    monkeypatch.setitem(MEASUREMENTS, 'Luck', Luck)
    lucky = run()
    lucky = lucky.with_summary(Luck(), {'coin': 0.5})
    assert run_text(lucky).endswith('\n\nluck\nwhat  how much\n----  --------\ncoin       0.5')
    assert lucky.to_json()['evaluation']['luck'] == {'coin': 0.5}


def test_classes_as_fractions():
    assert classes_table(run().evaluation, fractions=True).csv().splitlines() == [
        'class,IoU clean,Acc clean,IoU 4/255,Acc 4/255',
        'sky,0.5,0.75,0.5,0.75',
        '"a, b",,,,',
    ]


def test_passes_name_the_largest_number_if_images_differ():
    assert PassCount.of(9, [2, 7]).text == '4.5 (at most 7)'
    assert PassCount.of(8, [4, 4]).text == '4.0'
    assert PassCount.from_json({'total': 9, 'mean_per_image': 4.5}).text == '4.5'
