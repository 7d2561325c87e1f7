"""Results as types, and the tables, pictures and pages that mmadv makes from results and arrays alone."""

from mmadv.report.curve import draw_curve
from mmadv.report.evaluation import Evaluation, ImageResult, MetricValues, RadiusResult
from mmadv.report.html import write_report
from mmadv.report.pictures import Example, draw_example
from mmadv.report.run import SCHEMA, SCHEMA_VERSION, RunResults, load_results
from mmadv.report.table import class_table, summary_table

__all__ = [
    'SCHEMA',
    'SCHEMA_VERSION',
    'Evaluation',
    'Example',
    'ImageResult',
    'MetricValues',
    'RadiusResult',
    'RunResults',
    'class_table',
    'draw_curve',
    'draw_example',
    'load_results',
    'summary_table',
    'write_report',
]
