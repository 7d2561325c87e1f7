"""The calls of mmadv.report refuse every spoilt argument in one clear sentence."""

import numpy as np
import pytest
from mutations import cases, check_complete, check_refused, rights
from stored_results import content

import mmadv.report
from mmadv.report import (
    Example,
    RunResults,
    class_table,
    draw_curve,
    draw_example,
    load_results,
    summary_table,
    write_report,
)

# Their fields are those of result files, which tests/report/test_schema.py and test_result_check.py spoil.
READ_FROM_FILES = (
    *('Evaluation', 'ImageResult', 'MetricValues', 'RadiusResult', 'RunResults', 'Schema.from_json'),
    *('MetricValues.from_json', 'MetricValues.with_scalars', 'Evaluation.has_interval'),
)
# The loop and the writers of a run call them.
OF_A_RUN = ('Example', 'Example.from_arrays', 'RunResults.summary', 'RunResults.with_summary', 'RunResults.write')


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Name -> a function that returns the callable and its right arguments."""
    monkeypatch.chdir(tmp_path)
    run = RunResults.from_json(content() | {'pictures': []})
    run.write(tmp_path)
    classes = np.zeros((4, 5), dtype=np.int64)
    example = Example(0, 'a.png', np.zeros((4, 5, 3)), classes, classes)
    palette = [[0, 0, 0], [255, 0, 0]]
    return {
        'class_table': lambda: (class_table, dict(evaluation=run.evaluation)),
        'summary_table': lambda: (summary_table, dict(evaluation=run.evaluation)),
        'draw_curve': lambda: (draw_curve, dict(runs={'a': run}, path='curve.png')),
        'draw_example': lambda: (
            draw_example,
            dict(example=example, path='example.png', classes=['a', 'b'], palette=palette, ignore_index=255),
        ),
        'load_results': lambda: (load_results, dict(folder='.')),
        'write_report': lambda: (write_report, dict(result_dirs={'a': '.'}, out='report.html', title='A')),
        'RunResults.load': lambda: (RunResults.load, dict(folder='.')),
        'Evaluation.interval': lambda: (run.evaluation.interval, dict(column='clean', metric='mIoU')),
    }


RIGHT = rights(
    ('the current folder', "''", 'load_results.folder', 'RunResults.load.folder'),
    ('any names', 'texts', 'draw_example.classes'),
    ('any label may be void', '-1|0', 'draw_example.ignore_index'),
    ('the sentence names the folder', 'value text', 'write_report.result_dirs'),
    ('a file of any name', "'no'|misspelt", 'write_report.out'),
    ('any text', "'no'|''|misspelt", 'write_report.title'),
)


def test_spoilt_arguments_are_refused(table):
    for name, argument in cases(table):
        check_refused(table, RIGHT, name, argument)


def test_every_call_is_tried(table):
    check_complete(mmadv.report, table, (*READ_FROM_FILES, *OF_A_RUN))
